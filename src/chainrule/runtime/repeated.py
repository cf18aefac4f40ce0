"""A program run for many batches in one native call; bit for bit what as many calls give.

Knows programs and the loop of `compiler/repeat.py`; knows nothing of epochs, losses and models.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.machine import Native
from ..compiler.repeat import LIBRARIES, NAME, repeat_text
from ..errors import ChainruleError
from ..graph import Node
from ..operations import Array
from ..trace import Constant, Given, Held, Nested, Once, Result, Template
from .memory import address, aligned, make_alone
from .program import Program
from .served import Served
from .threads import pool


@functools.cache
def _loop() -> Callable[..., int]:
    """The native loop, made once in a process."""
    native = Native(repeat_text(), NAME, LIBRARIES)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    function: Callable[..., int] = native.lookup(
        NAME, number, pointer, pointer, pointer, number, pointer, number, pointer, number, number
    )
    _kept.append(native)
    return function


_kept: list[Native] = []


class Repeated:
    """One program with memory for a batch and for what a step computes."""

    def __init__(self, program: Program) -> None:
        self._program = program
        graph, plan = program.graph, program.compilation.plan
        place = {node: k for k, node in enumerate(plan.results)}
        self._inputs = [_room(node) for node in graph.inputs]
        self._results = [_room(node) for node in plan.results]
        self._outputs = [place[node] for node in graph.outputs]
        in_place = program.compilation.fusion.in_place
        self._written = [
            (cell, place[node])
            for (cell, _), node in graph.writes.items()
            if node is not None and node not in in_place
        ]
        assert program.native is not None
        self._function = ctypes.cast(program.native.function, ctypes.c_void_p)

    @property
    def output_bytes(self) -> int:
        """Bytes of what one step gives back."""
        return sum(self._results[k].nbytes for k in self._outputs)

    def fits(self, data: Sequence[Array]) -> bool:
        """Whether rows of these arrays are what the program takes."""
        return len(data) == len(self._inputs) and all(
            one.flags.c_contiguous and one.dtype == room.dtype and one.shape[1:] == room.shape[1:]
            for one, room in zip(data, self._inputs)
        )

    def run(
        self, data: Sequence[Array], order: NDArray[np.int64], count: int
    ) -> tuple[int, Any, ChainruleError | None]:
        """(steps made, what the function returns, why the next step was refused): with all steps' numbers along a
        first axis. data: arrays that `fits` holds for. order: rows for `count` batches, all within the arrays.
        """
        program = self._program
        lists = [np.empty((count, *self._results[k].shape), self._results[k].dtype) for k in self._outputs]
        with program._lock:
            for cell, _ in self._written:
                make_alone(cell)
            held = program._locate_cells()
            try:
                done = self._call(data, np.ascontiguousarray(order, np.int64), lists, count)
            finally:  # also after Ctrl-C: the loop has committed all that its steps write
                program._table[program._done] = 0
            del held
            failure = None if done == count else self._failure()
        return done, _stacked(program.traced.result, [one[:done] for one in lists]), failure

    def _call(self, data: Sequence[Array], order: NDArray[np.int64], lists: list[Array], count: int) -> int:
        program, table = self._program, self._program._table
        for k, room in enumerate(self._inputs):
            table[k] = address(room)
        for k, room in enumerate(self._results, program._result_place):
            table[k] = address(room)
        helpers = pool() if program._shares else None
        if program._shares:
            table[program._board] = 0 if helpers is None else helpers.address
            if helpers is not None:
                helpers.ring()
        gathers = [
            (address(one), room.nbytes // max(1, len(room)), address(room))
            for one, room in zip(data, self._inputs)
        ]
        moves = [
            (address(self._results[k]), address(one), self._results[k].nbytes, self._results[k].nbytes)
            for k, one in zip(self._outputs, lists)
        ] + [
            (address(self._results[k]), address(cell.array), self._results[k].nbytes, 0)
            for cell, k in self._written
        ]
        first, second = np.array(gathers, np.int64), np.array(moves, np.int64)
        rows = len(self._inputs[0])
        return _loop()(
            self._function, program._table_address, address(order), rows, address(first), len(gathers),
            address(second), len(moves), count,
        )  # fmt: skip

    def _failure(self) -> ChainruleError:
        """What the step says whose checks have failed; its batch lies in the inputs still."""
        try:
            self._program._raise_check(self._inputs)
        except ChainruleError as failure:
            return failure
        raise AssertionError("a step whose checks hold was refused")


def repeated(program: Served) -> Repeated | None:
    """The program as a loop; None where Python has to do something between two of its steps.

    That is so where operations run on the host, where gradients are kept from step to step, where what is given or
    read is handed on as it is, and where the function returns something else than what it has computed.
    """
    if not isinstance(program, Program):
        return None
    graph, plan = program.graph, program.compilation.plan
    computed = set(plan.results)
    in_place = program.compilation.fusion.in_place
    fits = (
        program.native is not None
        and program._function is program.native.function
        and not program.traced.effects
        and all(isinstance(one, Given | Held) and one.argument for one in program.traced.inputs)
        and bool(graph.inputs)
        and all(
            node.shape and node.shape[0] == graph.inputs[0].shape[0] and _bytes(node) for node in graph.inputs
        )
        and all(part == "array" for _, part in (*graph.reads, *graph.writes))
        and all(node in computed or node in in_place for node in graph.writes.values())
        and all(node in computed for node in graph.outputs)
        and all(
            isinstance(one, Result | Nested | Once) or (isinstance(one, Constant) and one.value is None)
            for one in program.traced.result.parts()
        )
    )
    return Repeated(program) if fits else None


def _stacked(template: Template, lists: list[Array]) -> Any:
    """What a function returns, with arrays in place of tensors."""
    if isinstance(template, Once):
        return _stacked(template.inner, lists)
    if isinstance(template, Nested):
        return template.make([_stacked(one, lists) for one in template.items])
    if isinstance(template, Constant):
        return template.value
    assert isinstance(template, Result)
    return lists[template.index]


def _bytes(node: Node) -> int:
    return int(np.prod(node.shape)) * node.dtype.itemsize


def _room(node: Node) -> Array:
    """Memory for one value, at the start of a cache line."""
    made: Array = aligned(_bytes(node)).view(node.dtype).reshape(node.shape)
    return made
