"""How much a nest computes and moves: counted from its loops, not measured.

Knows the loops only.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from .indices import Index, Variable
from .loops import Contraction, For, Host, Nest, Recurrence, Statement, Store, Value
from .plan import Buffer

# What is no arithmetic: numbers from elsewhere, choices, other forms of the same number.
_FREE = {
    "constant", "load", "read", "number", "cast", "bitcast", "select", "equal", "not_equal", "less", "less_equal",
    "and", "or", "xor", "shl", "shr", "negative", "absolute", "copysign",
}  # fmt: skip


class Work(NamedTuple):
    """Arithmetic operations on floats (a function of the C library counts as one; None where nobody knows), and the
    bytes of memory that are read and written at least.
    """

    flops: int | None
    read: int
    written: int


def work_of(nest: Nest) -> Work:
    """What one run of the nest costs."""
    counter = _Counter()
    counter.walk(nest.body, 1)
    moved = [
        sum(min(buffer.bytes, count * buffer.type.dtype.itemsize) for buffer, count in touched.items())
        for touched in (counter.read, counter.written)
    ]
    return Work(counter.flops, moved[0], moved[1])


class _Counter:
    """Goes through the statements with the number of times that each is run."""

    def __init__(self) -> None:
        self.flops: int | None = 0
        self.read: dict[Buffer, int] = {}
        self.written: dict[Buffer, int] = {}
        self._seen: set[tuple[Buffer, Index]] = set()

    def walk(self, body: list[Statement], times: int) -> None:
        """Count a body that is run so many times."""
        for statement in body:
            if isinstance(statement, For):
                self.walk(statement.body, times * statement.variable.extent)
            elif isinstance(statement, Store):
                self._touch(self.written, statement.buffer, times)
            elif isinstance(statement, Contraction):
                self._contract(statement)
            elif isinstance(statement, Host):
                self.flops = None
                for buffer in statement.reads:
                    self._touch(self.read, buffer, buffer.size)
                for buffer in statement.writes:
                    self._touch(self.written, buffer, buffer.size)
            elif isinstance(statement, Recurrence):
                self._repeat(statement)
            elif isinstance(statement, Value):
                self._value(statement, times)

    def _repeat(self, one: Recurrence) -> None:
        """A loop over time: what its nests do at each step, and the memory outside that it goes through."""
        flops = [work_of(nest).flops for nest in one.body.nests]
        if self.flops is not None:
            self.flops = None if None in flops else self.flops + one.length * sum(filter(None, flops))
        for touched, buffers in ((self.read, one.reads), (self.written, one.writes)):
            for buffer in buffers:
                self._touch(touched, buffer, buffer.size)

    def _value(self, value: Value, times: int) -> None:
        if value.opcode == "load":
            buffer, index = value.detail
            if (buffer, index) not in self._seen:
                self._seen.add((buffer, index))
                variables = {atom for atom in index.atoms() if isinstance(atom, Variable)}
                reached = prod(one.extent for one in variables) if variables == set(index.atoms()) else times
                self._touch(self.read, buffer, min(times, reached))
        elif value.opcode not in _FREE and value.dtype.kind == "f" and self.flops is not None:
            self.flops += times

    def _contract(self, one: Contraction) -> None:
        batch = prod(variable.extent for variable in one.batch)
        rows, columns = one.rows.extent, one.columns.extent
        inner = prod(variable.extent for variable in one.inner)
        if self.flops is not None:
            self.flops += 2 * batch * rows * columns * inner
        self._touch(self.read, one.left[0], batch * rows * inner)
        self._touch(self.read, one.right[0], batch * inner * columns)
        self._touch(self.written, one.out[0], batch * rows * columns)

    def _touch(self, touched: dict[Buffer, int], buffer: Buffer, count: int) -> None:
        if buffer.place == "local":
            return
        touched[buffer] = touched.get(buffer, 0) + count
