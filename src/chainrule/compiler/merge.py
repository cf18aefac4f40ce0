"""Loops → Loops: flat nests of one length that touch the same memory become one pass over it.

An update reads a gradient for the first moment, the second moment and the parameter: in one loop it is read once.
Two nests may become one if they share a buffer as long as they are, if every buffer that one of them writes and the
other touches is touched by both at the same element only, and if nothing between them stands in the way. Nests that
share nothing but a few numbers (a learning rate) stay apart: so the updates of equal parameters stay equal.
Knows the loops only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from . import loops as ir
from .indices import Atom, Dynamic, Index
from .loops import Contraction, For, Loops, Nest, Statement, Store, Value, flat_loop
from .nested import suits
from .plan import Buffer

# Values in one loop: more would not stay in registers, and would take long to compile.
_MOST_VALUES = 200


def merge(loops: Loops) -> Loops:
    """The loops with as few passes over memory as the order of the nests allows."""
    merger = _Merger()
    for nest in loops.nests:
        merger.take(nest)
    return Loops(loops.name, [one.nest for one in merger.taken])


class _Taken:
    """A nest with what has to be known of it again and again."""

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.reads, self.writes = _touched(nest)
        self.flat = flat_loop(nest)
        extent = 0 if self.flat is None else self.flat.variable.extent
        #: What is worth being read once for both.
        self.long = {buffer for buffer in self.reads | self.writes if buffer.size >= extent}
        self.accesses = [] if self.flat is None else list(_accesses(self.flat))
        places = [index for _, index in self.accesses]
        places += [] if self.flat is None else _numbers(self.flat)
        self.follows_memory = any(isinstance(atom, Dynamic) for index in places for atom in index.atoms())


class _Merger:
    """The nests so far, and which of them touch a buffer."""

    def __init__(self) -> None:
        self.taken: list[_Taken] = []
        self.touching: dict[Buffer, list[int]] = {}
        self.writing: dict[Buffer, list[int]] = {}
        self.last = {False: -1, True: -1}
        """The last nest of those that compute, and of those that commit."""

    def take(self, nest: Nest) -> None:
        """One more nest: as part of one that is there, or behind them all."""
        if self.answered(nest):
            return
        given = _Taken(nest)
        place = self.partner(given)
        if place is None:
            place = len(self.taken)
            self.taken.append(given)
            self.last[nest.commit] = place
        else:
            self.taken[place] = _Taken(_joined(self.taken[place].nest, nest))
        for buffer in given.reads | given.writes:
            self.touching.setdefault(buffer, []).append(place)
        for buffer in given.writes:
            self.writing.setdefault(buffer, []).append(place)

    def answered(self, nest: Nest) -> bool:
        """Let the product that computes a buffer say whether its numbers are finite, if that is all the nest asks."""
        if nest.asks_finite is None:
            return False
        buffer, store = nest.asks_finite
        if buffer not in self.writing:
            return False
        writer = self.taken[max(self.writing[buffer])]
        (only, *more) = writer.nest.body
        if not isinstance(only, Contraction) or more or not suits(only) or only.finite is not None:
            return False
        only.finite = store.buffer, store.index
        writer.nest.title += f"; {nest.title}"
        writer.writes.add(store.buffer)
        return True

    def partner(self, given: _Taken) -> int | None:
        """The last nest that this one can be part of, with nothing in between that depends on the order."""
        if given.flat is None:
            return None
        both = given.reads | given.writes
        boundary = self.last[not given.nest.commit]
        places: set[int] = set()
        for buffer in both:  # of what is only read here, and not worth sharing, those that write it matter
            every = buffer in given.long or buffer in given.writes
            places.update((self.touching if every else self.writing).get(buffer, ()))
        for place in sorted(places, reverse=True):
            if place <= boundary:  # what commits runs after every check, what computes before
                return None
            other = self.taken[place]
            if not other.long.isdisjoint(given.long) and _fits(other, given):
                return place
            if not (other.writes.isdisjoint(both) and given.writes.isdisjoint(other.reads)):
                return None
        return None


def _fits(first: _Taken, second: _Taken) -> bool:
    one, other = first.flat, second.flat
    if one is None or other is None or one.variable.extent != other.variable.extent:
        return False
    if len(one.body) + len(other.body) > _MOST_VALUES or first.follows_memory or second.follows_memory:
        return False
    written = first.writes | second.writes
    return all(
        index == here
        for here, accesses in (
            (Index.of(one.variable), first.accesses),
            (Index.of(other.variable), second.accesses),
        )
        for buffer, index in accesses
        if buffer in written
    )


def _accesses(loop: For) -> Iterator[tuple[Buffer, Index]]:
    for one in loop.body:
        if isinstance(one, Store):
            yield one.buffer, one.index
        elif isinstance(one, Value) and one.opcode == "load":
            yield one.detail


def _numbers(loop: For) -> list[Index]:
    """Positions that are used as numbers, to see whether they lie in some stretch."""
    return [one.detail for one in loop.body if isinstance(one, Value) and one.opcode == "number"]


def _touched(nest: Nest) -> tuple[set[Buffer], set[Buffer]]:
    """(buffers that are read, buffers that are written)."""
    reads, writes = set(), set()
    for one in ir.walk(nest.body):
        if isinstance(one, Store):
            writes.add(one.buffer)
        elif isinstance(one, ir.Contraction):
            reads |= {one.left[0], one.right[0]}
            writes.add(one.out[0])
            writes |= {one.finite[0]} if one.finite is not None else set()
        elif isinstance(one, ir.Host | ir.Recurrence):
            reads |= set(one.reads)
            writes |= set(one.writes)
        elif isinstance(one, Value) and one.opcode == "load":
            reads.add(one.detail[0])
    return reads, writes


def _joined(first: Nest, second: Nest) -> Nest:
    """One loop with both bodies; what is in memory already, or was computed there, is not loaded again."""
    one, other = flat_loop(first), flat_loop(second)
    assert one is not None and other is not None
    known: dict[tuple[Buffer, Index], Value] = {}
    body: list[Statement] = []
    for statement in one.body:
        body.append(statement)
        _note(statement, known)
    count = sum(isinstance(statement, Value) and bool(statement.name) for statement in body)
    moved: dict[Value, Value] = {}
    here: dict[Atom, Index] = {other.variable: Index.of(one.variable)}
    for statement in other.body:
        if isinstance(statement, Store):
            taken: Statement = Store(
                statement.buffer, statement.index.substitute(here), moved[statement.value]
            )
        else:
            assert isinstance(statement, Value)
            detail = _moved_detail(statement, here)
            if statement.opcode == "load" and detail in known:
                moved[statement] = known[detail]
                continue
            name = f"v{count}" if statement.name else ""
            count += bool(name)
            operands = tuple(moved[operand] for operand in statement.operands)
            taken = moved[statement] = replace(statement, name=name, operands=operands, detail=detail)
        body.append(taken)
        _note(taken, known)
    return Nest(f"{first.title}; {second.title}", [For(one.variable, body)], first.commit)


def _moved_detail(value: Value, here: dict[Atom, Index]) -> object:
    if value.opcode == "load":
        return value.detail[0], value.detail[1].substitute(here)
    if value.opcode == "number":
        return value.detail.substitute(here)
    return value.detail


def _note(statement: Statement, known: dict[tuple[Buffer, Index], Value]) -> None:
    """Remember which value stands at a place in memory."""
    if isinstance(statement, Store):
        known[statement.buffer, statement.index] = statement.value
    elif isinstance(statement, Value) and statement.opcode == "load":
        known.setdefault(statement.detail, statement)
