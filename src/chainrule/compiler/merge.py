"""Loops → Loops: flat nests of one length that touch the same memory become one pass over it.

An update reads a gradient for the first moment, the second moment and the parameter: in one loop it is read once.
Two nests may become one if every buffer that one of them writes and the other touches is touched by both at the
same element only, and if nothing between them stands in the way.
Knows the loops only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from . import loops as ir
from .indices import Atom, Dynamic, Index
from .loops import Contraction, For, Loops, Nest, Statement, Store, Value, flat_loop
from .plan import Buffer
from .product import suits

# Values in one loop: more would not stay in registers, and would take long to compile.
_MOST_VALUES = 200


def merge(loops: Loops) -> Loops:
    """The loops with as few passes over memory as the order of the nests allows."""
    merged: list[Nest] = []
    for nest in loops.nests:
        if _answered(merged, nest):
            continue
        place = _partner(merged, nest)
        if place is None:
            merged.append(nest)
        else:
            merged[place] = _joined(merged[place], nest)
    return ir.verify(Loops(loops.name, merged))


def _answered(before: list[Nest], nest: Nest) -> bool:
    """Let the product that computes a buffer say whether its numbers are finite, if that is all the nest asks."""
    if nest.asks_finite is None:
        return False
    buffer, store = nest.asks_finite
    for other in reversed(before):
        if buffer in _touched(other)[1]:
            (only, *more) = other.body
            if not isinstance(only, Contraction) or more or not suits(only) or only.finite is not None:
                return False
            only.finite = store.buffer, store.index
            other.title += f"; {nest.title}"
            return True
    return False


def _partner(before: list[Nest], nest: Nest) -> int | None:
    """The last nest that this one can be part of, with nothing in between that depends on the order."""
    if flat_loop(nest) is None:
        return None
    reads, writes = _touched(nest)
    for place in range(len(before) - 1, -1, -1):
        other = before[place]
        if other.commit is not nest.commit:
            return None
        other_reads, other_writes = _touched(other)
        shared = (other_reads | other_writes) & (reads | writes)
        if shared and _fits(other, nest):
            return place
        if other_writes & (reads | writes) or writes & other_reads:
            return None
    return None


def _fits(first: Nest, second: Nest) -> bool:
    one, other = flat_loop(first), flat_loop(second)
    if one is None or other is None or one.variable.extent != other.variable.extent:
        return False
    if len(one.body) + len(other.body) > _MOST_VALUES or _follows_memory(one) or _follows_memory(other):
        return False
    written = _touched(first)[1] | _touched(second)[1]
    return all(
        index == Index.of(loop.variable)
        for loop in (one, other)
        for buffer, index in _accesses(loop)
        if buffer in written
    )


def _follows_memory(loop: For) -> bool:
    """Whether some position is itself read from memory."""
    return any(isinstance(atom, Dynamic) for _, index in _accesses(loop) for atom in index.atoms())


def _accesses(loop: For) -> Iterator[tuple[Buffer, Index]]:
    for one in loop.body:
        if isinstance(one, Store):
            yield one.buffer, one.index
        elif isinstance(one, Value) and one.opcode == "load":
            yield one.detail


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
        elif isinstance(one, ir.Host):
            reads |= set(one.reads)
            writes.add(one.out)
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
