"""A step with calls of NumPy in it: native segment, NumPy, native segment, and so on.

Knows the loops' calls and the table of addresses; knows nothing of cells and of when a step is run.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from ..compiler import Buffer, Compilation, Native
from ..compiler.loops import Host, host_call
from ..errors import ChainruleError, at
from ..operations import Array
from .memory import array_at


def places_of(compilation: Compilation) -> Callable[[Any, Buffer], int]:
    """`place(table, buffer)`: the address of a buffer, as the machine code finds it."""
    plan = compilation.plan
    sources = len(plan.fusion.graph.sources)
    first = {"source": 0, "constant": sources, "result": sources + len(plan.constants)}
    arena = first["result"] + len(plan.results)

    def place(table: Any, buffer: Buffer) -> int:
        if buffer.place == "arena":
            return int(table[arena] or 0) + buffer.offset
        return int(table[arena + 1 if buffer.place == "status" else first[buffer.place] + buffer.index] or 0)

    return place


def hosts_of(compilation: Compilation) -> list[Host]:
    """The calls of NumPy, in order."""
    return [one for one in map(host_call, compilation.loops.nests) if one is not None]


class Segments:
    """The whole step as one function of the table's address, like the native function of a step without such calls."""

    def __init__(self, native: Native, compilation: Compilation, table: Any) -> None:
        self._segment = native.lookup(native.entry, ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
        self._hosts = hosts_of(compilation)
        self._place = places_of(compilation)
        self._table = table

    def __call__(self, table_address: int) -> int:
        """0, or 1 if a check has failed. Raises what an operation says of its operands; nothing is committed then."""
        for k, one in enumerate(self._hosts):
            self._segment(table_address, k)
            self.run(one)
        failed: int = self._segment(table_address, len(self._hosts))
        return failed

    def run(self, one: Host) -> None:
        """One call of NumPy, from buffers to buffers."""
        operands = [self._array(given) if isinstance(given, Buffer) else given for given in one.operands]
        try:
            with ops.quiet():
                result = one.call(operands)
        except ChainruleError as failure:
            message = failure.message.removesuffix(at(failure.origin))
            raise type(failure)(f"{message}. Nothing was changed by this step", one.origin) from failure
        if one.parts:
            for index, buffer in one.parts:
                self._array(buffer)[...] = result[index]
        else:
            self._array(one.out)[...] = np.asarray(result)

    def _array(self, buffer: Buffer) -> Array:
        return array_at(self._place(self._table, buffer), buffer.type.shape, buffer.type.dtype)
