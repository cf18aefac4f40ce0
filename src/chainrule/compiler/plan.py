"""Groups → buffers: where every stored value lives. One arena holds what is needed for a while only.

Places are given before the loops are written, bytes of the arena after they have been merged: when a value is needed
depends on the order of the nests.

Knows nothing of what is computed.
"""

from __future__ import annotations

import bisect
import functools
import heapq
import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import GraphError
from ..graph import Names, Node, names_of
from ..operations import CONSTANT, Type
from ..ops.lowering import Loop, View
from .forms import Order, elements, lowering_of, place_in
from .fuse import Fusion
from .indices import Index, Variable
from .simplify import uniform

# Bytes to which every buffer is aligned: one cache line, and the widest vector register.
ALIGNMENT = 64
# Where the last free bytes of the arena end: beyond every memory.
_NO_END = 1 << 62


@dataclass(eq=False)
class Buffer:
    """Memory for one value. `place` is "source", "constant", "result", "arena" or "status"; or "local": a nest's own.

    `index` counts among the buffers of the same place; `offset` is in bytes from the start of the arena;
    `first` and `last` are the nests between which the arena's bytes are taken. `order`: the axes from the outermost in
    memory to the innermost, and why; None is row-major.
    """

    name: str
    type: Type
    place: str
    index: int = 0
    offset: int = 0
    first: int = 0
    last: int = 0
    order: Order | None = None

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes from the outermost in memory to the innermost; () is row-major."""
        return () if self.order is None else self.order.axes

    def at(self, position: Sequence[Index | int]) -> Index:
        """How far the element at a position is from the first one."""
        return place_in(self.axes, position, self.type.shape)

    @functools.cached_property
    def bytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.type.shape) * self.type.dtype.itemsize

    @functools.cached_property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.type.shape)


@dataclass(eq=False)
class Plan:
    """The buffer of every value in memory, those of each place in the order in which they are handed over."""

    fusion: Fusion
    buffers: dict[Node, Buffer]
    constants: list[Node]
    results: list[Node]
    arena: int
    status: Buffer
    names: Names
    further: list[Buffer] = field(default_factory=list)
    """Memory of loops over time for what lives in a step only."""
    flat: dict[tuple[int, ...], tuple[Variable, list[Index]]] = field(default_factory=dict, repr=False)
    """For sizes of axes: one loop over all of them, and the position along each."""
    offsets: dict[tuple[Any, ...], Index] = field(default_factory=dict, repr=False)
    """Places in memory that were worked out before, by position, shape and order of axes."""

    @property
    def temporary(self) -> list[Buffer]:
        """The buffers of the arena."""
        return [*(one for one in self.buffers.values() if one.place == "arena"), *self.further]

    def take(self, size: int) -> Buffer:
        """So many bytes of the arena more."""
        name = f"room {len(self.further)}"
        self.further.append(Buffer(name, Type((size,), np.dtype("uint8")), "arena", len(self.further)))
        return self.further[-1]

    def __str__(self) -> str:
        return "\n".join(_print(self))


def plan(fusion: Fusion) -> Plan:
    """Give every stored value a place."""
    graph = fusion.graph
    names = names_of(graph)
    buffers: dict[Node, Buffer] = {}
    for k, node in enumerate(graph.sources):
        buffers[node] = Buffer(names[node], node.type, "source", k)
    constants = _constants(fusion)
    for k, node in enumerate(constants):
        buffers[node] = Buffer(names[node], node.type, "constant", k)
    leaving = (*graph.outputs, *(node for node in graph.writes.values() if node is not None))
    results = [
        node for node in dict.fromkeys(leaving) if node in fusion.decisions and node not in fusion.in_place
    ]
    for k, node in enumerate(results):
        buffers[node] = Buffer(names[node], node.type, "result", k)
    buffers.update({node: buffers[old] for node, old in fusion.in_place.items()})
    count = 0
    for group in fusion.groups:
        for node in group.stores if group.check is None else ():
            if node not in buffers:
                order = fusion.orders.get(node)
                buffers[node] = Buffer(names[node], node.type, "arena", count, order=order)
                count += 1
    status = Buffer("status", Type((len(graph.checks),), np.dtype("bool")), "status")
    return Plan(fusion, buffers, constants, results, 0, status, names)


def arrange(plan: Plan, touched: Sequence[Iterable[Buffer]], sharing: bool) -> Plan:
    """Give the arena's buffers their bytes, by the nests (in order) that touch them; buffers that are needed at
    different times share, unless they must not.
    """
    used: dict[Buffer, list[int]] = {}
    for k, buffers in enumerate(touched):
        for buffer in buffers:
            used.setdefault(buffer, []).append(k)
    temporary = plan.temporary
    for buffer in temporary:
        places = used.get(buffer, [0])
        buffer.first, buffer.last = (places[0], places[-1]) if sharing else (0, len(touched))
    plan.arena = _allocate(temporary)
    return verify(plan)


def _constants(fusion: Fusion) -> list[Node]:
    """Constants that must lie in memory: tables, and operands of products."""
    found: dict[Node, None] = {}
    sources = set(fusion.graph.sources)
    for group in fusion.groups:
        bases: set[Node] = set()
        if isinstance(lowering_of(group.root), Loop):
            bases.update(group.root.inputs)
        product = fusion.product_of(group.root)
        if product is not None:
            for operand in product.inputs:
                base = operand
                while base.inputs and isinstance(lowering_of(base), View) and not fusion.stored(base):
                    base = base.inputs[0]
                bases.add(base)
        for node in group.reads:
            given = node.operation is CONSTANT and node not in sources
            if given and (uniform(node) is None or node in bases) and elements(node):
                found[node] = None
    return list(found)


def _allocate(buffers: list[Buffer]) -> int:
    """Offsets by first fit, in the order in which the buffers come to life; the size of the arena."""
    free = _Free()
    ends: list[tuple[int, int, int, int]] = []
    total = 0
    for count, buffer in enumerate(sorted(buffers, key=lambda one: one.first)):
        while ends and ends[0][0] < buffer.first:
            _, _, begin, end = heapq.heappop(ends)
            free.give(begin, end)
        size = _aligned(buffer.bytes)
        buffer.offset = free.take(size)
        if size:
            heapq.heappush(ends, (buffer.last, count, buffer.offset, buffer.offset + size))
        total = max(total, buffer.offset + size)
    return total


class _Free:
    """The bytes of the arena that nobody needs at a moment: stretches in order, none beside another."""

    def __init__(self) -> None:
        self._begins = [0]
        self._ends = [_NO_END]

    def take(self, size: int) -> int:
        """Where the first stretch begins that is long enough; it gets shorter by so many bytes."""
        if not size:
            return 0
        for k, (begin, end) in enumerate(zip(self._begins, self._ends)):
            if end - begin > size:
                self._begins[k] = begin + size
                return begin
            if end - begin == size:
                del self._begins[k], self._ends[k]
                return begin
        raise GraphError("the arena has no end, so there is always room")

    def give(self, begin: int, end: int) -> None:
        """Bytes that are free again."""
        k = bisect.bisect_left(self._begins, begin)
        if end == self._begins[k]:
            self._begins[k] = begin
        else:
            self._begins.insert(k, begin)
            self._ends.insert(k, end)
        if k and self._ends[k - 1] == begin:
            self._ends[k - 1] = self._ends[k]
            del self._begins[k], self._ends[k]


class _Alive:
    """The buffers whose bytes are taken at a moment, in the order of their offsets."""

    def __init__(self) -> None:
        self.by_offset: list[Buffer] = []
        self._by_end: list[tuple[int, int, Buffer]] = []
        self._count = 0

    def advance(self, moment: int) -> None:
        """Forget those that are not needed from this nest on."""
        while self._by_end and self._by_end[0][0] < moment:
            over = heapq.heappop(self._by_end)[2]
            place = bisect.bisect_left(self.by_offset, over.offset, key=_offset_of)
            while self.by_offset[place] is not over:
                place += 1
            del self.by_offset[place]

    def add(self, buffer: Buffer) -> tuple[Buffer | None, Buffer | None]:
        """Take one up; its neighbours."""
        place = bisect.bisect_right(self.by_offset, buffer.offset, key=_offset_of)
        before = self.by_offset[place - 1] if place else None
        after = self.by_offset[place] if place < len(self.by_offset) else None
        self.by_offset.insert(place, buffer)
        self._count += 1
        heapq.heappush(self._by_end, (buffer.last, self._count, buffer))
        return before, after


_offset_of = operator.attrgetter("offset")


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT


def _print(plan: Plan) -> Iterator[str]:
    in_arena = plan.temporary
    apart = sum(_aligned(one.bytes) for one in in_arena)
    yield f"plan {plan.fusion.graph.name}: arena of {plan.arena} bytes (without sharing {apart})"
    for buffer in (*plan.buffers.values(), *plan.further):
        where = f"{buffer.place} {buffer.index}"
        if buffer.place == "arena":
            where = f"arena {buffer.offset}, nests {buffer.first}-{buffer.last}"
        order = "" if buffer.order is None else f"  axes {buffer.order.axes}: {buffer.order.reason}"
        yield f"  {buffer.name}: {buffer.type}  {buffer.bytes} bytes  {where}{order}"


def verify(plan: Plan) -> Plan:
    """Return it, or raise GraphError: no two values share bytes while both are needed."""
    in_arena = plan.temporary
    alive = _Alive()
    for one in sorted(in_arena, key=lambda one: one.first):
        if one.offset % ALIGNMENT or one.offset + one.bytes > plan.arena:
            raise GraphError(f"buffer {one.name} lies outside the arena or off its alignment")
        if not one.bytes:
            continue
        alive.advance(one.first)
        # Those alive lie apart from each other, so one that shares bytes with any shares them with a neighbour.
        for other in alive.add(one):
            if other is None:
                continue
            if one.offset < other.offset + other.bytes and other.offset < one.offset + one.bytes:
                raise GraphError(f"buffers {other.name} and {one.name} share bytes while both are needed")
    return plan
