"""Groups → buffers: where every stored value lives. One arena holds what is needed for a while only.

Places are given before the loops are written, bytes of the arena after they have been merged: when a value is needed
depends on the order of the nests.

Knows nothing of what is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import GraphError
from ..graph import Names, Node, print_graph
from ..operations import CONSTANT, Type
from ..ops.lowering import Contraction, View
from .fuse import Fusion, elements, lowering_of
from .simplify import uniform

# Bytes to which every buffer is aligned: one cache line, and the widest vector register.
ALIGNMENT = 64


@dataclass(eq=False)
class Buffer:
    """Memory for one value. `place` is "source", "constant", "result", "arena" or "status".

    `index` counts among the buffers of the same place; `offset` is in bytes from the start of the arena;
    `first` and `last` are the nests between which the arena's bytes are taken.
    """

    name: str
    type: Type
    place: str
    index: int = 0
    offset: int = 0
    first: int = 0
    last: int = 0

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.type.shape) * self.type.dtype.itemsize

    @property
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

    def __str__(self) -> str:
        return "\n".join(_print(self))


def plan(fusion: Fusion) -> Plan:
    """Give every stored value a place."""
    graph = fusion.graph
    names = Names()
    list(print_graph(graph, names))
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
        if group.check is None and group.root not in buffers:
            buffers[group.root] = Buffer(names[group.root], group.root.type, "arena", count)
            count += 1
    status = Buffer("status", Type((len(graph.checks),), np.dtype("bool")), "status")
    return Plan(fusion, buffers, constants, results, 0, status)


def arrange(plan: Plan, touched: Sequence[Iterable[Buffer]]) -> Plan:
    """Give the arena's buffers their bytes, by the nests (in order) that touch them; buffers that are needed at
    different times share.
    """
    used: dict[Buffer, list[int]] = {}
    for k, buffers in enumerate(touched):
        for buffer in buffers:
            used.setdefault(buffer, []).append(k)
    temporary = [one for one in plan.buffers.values() if one.place == "arena"]
    for buffer in temporary:
        places = used.get(buffer, [0])
        buffer.first, buffer.last = places[0], places[-1]
    plan.arena = _allocate(temporary)
    return verify(plan)


def _constants(fusion: Fusion) -> list[Node]:
    """Constants that must lie in memory: tables, and operands of products."""
    found: dict[Node, None] = {}
    for group in fusion.groups:
        bases = set()
        if isinstance(lowering_of(group.root), Contraction):
            for operand in group.root.inputs:
                base = operand
                while base.inputs and isinstance(lowering_of(base), View) and not fusion.stored(base):
                    base = base.inputs[0]
                bases.add(base)
        for node in group.reads:
            given = node.operation is CONSTANT and node not in fusion.graph.sources
            if given and (uniform(node) is None or node in bases) and elements(node):
                found[node] = None
    return list(found)


def _allocate(buffers: list[Buffer]) -> int:
    """Offsets by first fit, in the order in which the buffers come to life; the size of the arena."""
    alive: list[Buffer] = []
    total = 0
    for buffer in sorted(buffers, key=lambda one: one.first):
        alive = sorted((one for one in alive if one.last >= buffer.first), key=lambda one: one.offset)
        place = 0
        for other in alive:
            if place + buffer.bytes <= other.offset:
                break
            place = max(place, _aligned(other.offset + other.bytes))
        buffer.offset = place
        alive.append(buffer)
        total = max(total, place + buffer.bytes)
    return _aligned(total)


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT


def _print(plan: Plan) -> Iterator[str]:
    in_arena = [one for one in plan.buffers.values() if one.place == "arena"]
    apart = sum(_aligned(one.bytes) for one in in_arena)
    yield f"plan {plan.fusion.graph.name}: arena of {plan.arena} bytes (without sharing {apart})"
    for buffer in plan.buffers.values():
        where = f"{buffer.place} {buffer.index}"
        if buffer.place == "arena":
            where = f"arena {buffer.offset}, nests {buffer.first}-{buffer.last}"
        yield f"  {buffer.name}: {buffer.type}  {buffer.bytes} bytes  {where}"


def verify(plan: Plan) -> Plan:
    """Return it, or raise GraphError: no two values share bytes while both are needed."""
    in_arena = [one for one in plan.buffers.values() if one.place == "arena"]
    for k, one in enumerate(in_arena):
        if one.offset % ALIGNMENT or one.offset + one.bytes > plan.arena:
            raise GraphError(f"buffer {one.name} lies outside the arena or off its alignment")
        for other in in_arena[:k]:
            together = one.first <= other.last and other.first <= one.last
            apart = one.offset + one.bytes <= other.offset or other.offset + other.bytes <= one.offset
            if together and not apart:
                raise GraphError(f"buffers {other.name} and {one.name} share bytes while both are needed")
    return plan
