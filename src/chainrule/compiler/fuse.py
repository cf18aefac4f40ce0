"""Graph → groups: which values are stored and which are computed where they are read, each with its reason.

One group becomes one loop nest. Stored: results, reductions, products and their operands, costly values that are
needed more than once, and what must be the same bits for several readers. Everything else is inlined.
Knows operations by kind and lowering, never by name; knows nothing of buffers, loops or machine code.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

from ..config import config
from ..errors import CompileError, GraphError
from ..graph import Graph, Names, Node, describe, print_graph
from ..ops.kinds import Selection
from ..ops.lowering import (
    HOST,
    Contraction,
    Gather,
    Loop,
    Part,
    Position,
    Reduce,
    Running,
    Scatter,
    View,
)
from .forms import (
    Order,
    elements,
    inner_of,
    lowering_of,
    part_of,
    place_in,
    shows_parts,
    sums_of,
    through_views,
    whole,
)
from .indices import Index, Variable

# So many operations, done again, take longer than writing their result down and reading it.
_WORTH_STORING = 16

# More operations than this in one expression (counted for every time that it is computed) are stored apart.
_MOST_INLINED = 64


@dataclass(frozen=True)
class Decision:
    """What became of a value, and why."""

    stored: bool
    reason: str


@dataclass(eq=False)
class Group:
    """One stored value (or one check) with what is computed for it on the way."""

    root: Node
    inlined: list[Node]
    reads: list[Node]
    check: int | None = None
    parts: list[Node] = field(default_factory=list)

    @property
    def stores(self) -> list[Node]:
        """The values that the group writes: the root, or those of its several results that are read."""
        return self.parts or [self.root]


@dataclass(eq=False)
class Fusion:
    """The groups in the order in which they run, and the decision on every node.

    `late`: what runs after every check only. `in_place`: those of them that are written where a cell's old value lies.
    `orders`: how values lie in memory that do not lie in row-major order.
    """

    graph: Graph
    decisions: dict[Node, Decision]
    groups: list[Group]
    in_place: dict[Node, Node] = field(default_factory=dict)
    late: set[Node] = field(default_factory=set)
    orders: Mapping[Node, Order] = field(default_factory=dict)

    def stored(self, node: Node) -> bool:
        """Whether the value exists in memory: given from outside, or stored by a group."""
        decision = self.decisions.get(node)
        return decision is None or decision.stored

    def product_of(self, root: Node) -> Node | None:
        """The contraction that a group computes: its root, or what its root shows; None for others."""
        if isinstance(lowering_of(root), Contraction):
            return root
        shown = root.inputs[0] if isinstance(lowering_of(root), View) else root
        return shown if isinstance(lowering_of(shown), Contraction) and not self.stored(shown) else None

    def __str__(self) -> str:
        return "\n".join(_print(self))


def fuse(graph: Graph, inline: bool = True, orders: Mapping[Node, Order] | None = None) -> Fusion:
    """Decide on every node, then form the groups. Without `inline` every value is stored.

    orders: how values lie in memory that do not lie in row-major order.

    Raises CompileError for an operation without loops if machine code is insisted on.
    """
    sources = set(graph.sources)
    nodes = [node for node in graph.nodes() if node.inputs and node not in sources]
    _refuse_unsupported(nodes)
    if inline:
        decisions, times = _decide(graph, nodes, orders or {})
        _limit_size(nodes, decisions)
        _limit_work(nodes, decisions, times)
    else:
        decisions = dict.fromkeys(nodes, Decision(True, "every value is stored: fuse is skipped"))
    fusion = Fusion(graph, decisions, [], orders=orders or {})
    fusion.groups = [_group(fusion, node) for node in nodes if decisions[node].stored and not part_of(node)]
    _hand_over_parts(fusion)
    fusion.groups += [_group(fusion, check.condition, k) for k, check in enumerate(graph.checks)]
    return verify(fusion)


def _hand_over_parts(fusion: Fusion) -> None:
    """Several results belong to the group that computes them."""
    group_of = {group.root: group for group in fusion.groups}
    for node in fusion.decisions:
        if part_of(node):
            group_of[node.inputs[0]].parts.append(node)


def _refuse_unsupported(nodes: Iterable[Node]) -> None:
    for node in nodes:
        if lowering_of(node) is not HOST:
            continue
        if config.forbid_interpreter:
            given = ", ".join(str(operand.type) for operand in node.inputs)
            raise CompileError(
                f"cr.compile cannot turn {node.operation.name} of {given} into machine code yet. Take it out of "
                "the step, or run the step eagerly: without @cr.compile, or with CHAINRULE_COMPILE=0, or let NumPy "
                "compute it: without CHAINRULE_FORBID_INTERPRETER",
                node.origin,
            )


# ------------------------------------------------------------------------------------------- decisions

_SAME_BITS = "read by a selection and by others: all must see the same bits"

Reader = tuple[Any, tuple[Any, ...]]
"""Where a value is needed: the group that needs it, and the views through which it looks."""


def _decide(
    graph: Graph, nodes: list[Node], orders: Mapping[Node, Order]
) -> tuple[dict[Node, Decision], dict[Node, float]]:
    """From the last node to the first, so that every reader is known; and how often each element is needed."""
    results = _results(graph)
    operands = _operands_of_products(nodes, orders)
    operands |= _operands_of_wholes(nodes)
    consumers: dict[Node, list[tuple[Node, int]]] = {node: [] for node in nodes}
    readers: dict[Node, set[Reader]] = {node: set() for node in nodes}
    for node in nodes:
        for index, operand in enumerate(node.inputs):
            if operand in consumers:
                consumers[operand].append((node, index))
    for k, check in enumerate(graph.checks):
        if check.condition in readers:
            readers[check.condition].add((k, ()))
    decisions: dict[Node, Decision] = {}
    times: dict[Node, float] = {}
    for node in reversed(nodes):
        for consumer, index in consumers[node]:
            readers[node] |= _readers_through(consumer, index, decisions[consumer].stored, readers[consumer])
        times[node] = _times(graph, node, readers[node])
        reason = _reason_to_store(node, results, operands, consumers[node], times[node])
        if _only_shown(node, consumers, results):
            decisions[node] = Decision(False, "computed as it is seen: a part of it, or in another order")
            (view,) = (consumer for consumer, _ in consumers[node])
            decisions[view] = Decision(True, decisions[view].reason if view in results else "shows a product")
            readers[node], times[node] = {(view, ())}, 1.0
            continue
        if reason is _SAME_BITS and isinstance(lowering_of(node), View):
            operands.setdefault(
                _behind_views(node), _SAME_BITS
            )  # then all see the same through the view, too
            reason = None
        if reason is None and times[node] > 1 and _lies_apart(node, orders):
            reason = f"its elements lie apart in memory and are needed {times[node]:g} times"
        if reason is None and len(readers[node]) > _MOST_INLINED:
            reason = f"read in {len(readers[node])} places"
        decisions[node] = Decision(reason is not None, reason or _reason_to_inline(node, len(readers[node])))
    return decisions, times


def _only_shown(
    node: Node, consumers: Mapping[Node, list[tuple[Node, int]]], results: Mapping[Node, str]
) -> bool:
    """Whether all that is needed of a sum over several axes is one view of it, which then is computed instead."""
    if not isinstance(lowering_of(node), Contraction) or len(inner_of(node)) < 2 or node in results:
        return False
    readers = [consumer for consumer, _ in consumers[node]]
    return len(readers) == 1 and shows_parts(readers[0], node)


def _results(graph: Graph) -> dict[Node, str]:
    """Nodes that leave the function, with what they are there."""
    found: dict[Node, str] = {}
    for (cell, part), node in graph.writes.items():
        if node is not None:
            found[node] = f"written to {cell.name or 'a cell'}.{part}"
    found.update(dict.fromkeys(graph.outputs, "returned"))
    return found


def _behind_views(node: Node) -> Node:
    while node.inputs and isinstance(lowering_of(node), View):
        node = node.inputs[0]
    return node


def _lies_apart(node: Node, orders: Mapping[Node, Order]) -> bool:
    """Whether a view that is read along one axis finds what lies there far apart."""
    if node not in orders or not isinstance(lowering_of(node), View):
        return False
    axis = next((axis for axis in reversed(orders[node].axes) if node.shape[axis] > 1), 0)
    variables = [Variable("a", size) for size in node.shape]
    base, position = through_views(node, tuple(map(Index.of, variables)), lambda one: not one.inputs)
    place = place_in(orders[base].axes if base in orders else (), position, base.shape)
    even = all(isinstance(atom, Variable) for atom, _ in place.terms)
    return not even or place.coefficient(variables[axis]) not in (0, 1)


def _operands_of_products(nodes: Iterable[Node], orders: Mapping[Node, Order]) -> dict[Node, str]:
    """What products read from memory, and why: their operands, behind views if steps stay even through them."""
    found: dict[Node, str] = {}
    for node in nodes:
        if isinstance(lowering_of(node), Contraction):
            sums = sums_of(node, lambda extent: Variable("a", extent))
            for operand, position in zip(node.inputs, (sums.left, sums.right)):
                base, reason = _steady_base(operand, position, orders)
                found.setdefault(base, reason)
    return found


def _steady_base(
    operand: Node, position: tuple[Index, ...], orders: Mapping[Node, Order]
) -> tuple[Node, str]:
    """The last node behind views in whose memory every variable moves by the same distance always."""
    base, node, goes_on = operand, operand, True
    while goes_on:
        axes = orders[node].axes if node in orders else ()
        place = place_in(axes, position, node.shape)
        if all(isinstance(atom, Variable) for atom, _ in place.terms):
            base = node
        before = node
        node, position = through_views(before, position, partial(operator.is_not, before))
        goes_on = node is not before
    return base, "operand of a product" if base is node else "operand of a product: its elements lie unevenly"


def _operands_of_wholes(nodes: Iterable[Node]) -> dict[Node, str]:
    """What NumPy reads between native segments, and loops over time, with the reason."""
    return {
        operand: "operand of a NumPy call" if lowering_of(node) is HOST else "operand of a loop over time"
        for node in nodes
        if whole(node)
        for operand in node.inputs
    }


def _readers_through(consumer: Node, index: int, stored: bool, beyond: set[Reader]) -> set[Reader]:
    """Readers of an operand: the consumer if it is stored, else all that it is inlined into."""
    form = lowering_of(consumer)
    moved = isinstance(form, View | Gather)
    if not stored:
        return {(group, (*path, consumer)) for group, path in beyond} if moved else beyond
    return {(consumer, (index,) if moved or isinstance(form, Contraction) else ())}


def _times(graph: Graph, node: Node, readers: set[Reader]) -> float:
    """How often each element would be computed if the value were not stored."""
    total = sum(_domain(graph, group) for group, _ in readers)
    return total / max(elements(node), 1)


def _domain(graph: Graph, group: Any) -> int:
    """Number of iterations of the group's innermost loop."""
    if isinstance(group, int):
        return elements(graph.checks[group].condition)
    form = lowering_of(group)
    if isinstance(form, Reduce | Position):
        return elements(group.inputs[0])
    if isinstance(form, Scatter):
        return elements(group.inputs[form.source])
    if isinstance(form, Contraction):
        return elements(group) * prod(inner_of(group))
    return elements(group)


def _reason_to_store(
    node: Node,
    results: dict[Node, str],
    operands: dict[Node, str],
    consumers: list[tuple[Node, int]],
    times: float,
) -> str | None:
    form = lowering_of(node)
    if form is HOST:
        given = ", ".join(str(one.dtype) for one in node.inputs)
        return f"no loops for {node.operation.name} of {given}: NumPy computes it"
    if node in results:
        return results[node]
    if isinstance(form, Loop | Part):
        return "a loop over time" if isinstance(form, Loop) else "one of several results"
    if isinstance(form, Reduce | Running | Position):
        return "the result of a reduction"
    if isinstance(form, Contraction):
        return "the result of a product"
    if isinstance(form, Scatter):
        return "its elements arrive in any order"
    if node in operands:
        return operands[node]
    if len(consumers) > 1 and any(isinstance(consumer.operation, Selection) for consumer, _ in consumers):
        return _SAME_BITS
    if getattr(node.operation, "cost", "cheap") == "costly" and times > 1:
        return f"costly and needed {times:g} times"
    return None


def _reason_to_inline(node: Node, readers: int) -> str:
    form = lowering_of(node)
    if isinstance(form, View | Gather):
        return "only reads elsewhere"
    return "read in one place" if readers == 1 else f"cheap, computed again in {readers} places"


def _limit_size(nodes: list[Node], decisions: dict[Node, Decision]) -> None:
    """Cut expressions that would grow too large (or too deep for the walk that writes them)."""
    size: dict[Node, int] = {}
    for node in nodes:
        inside = 1 + sum(size.get(operand, 0) for operand in node.inputs)
        if decisions[node].stored:
            continue
        if inside > _MOST_INLINED:
            decisions[node] = Decision(True, f"an expression of {inside} operations: nests stay small")
        else:
            size[node] = inside


def _limit_work(nodes: list[Node], decisions: dict[Node, Decision], times: dict[Node, float]) -> None:
    """Store what would take longer to compute again than to write down and read."""
    work: dict[Node, float] = {}
    for node in nodes:
        if decisions[node].stored:
            continue
        own = 0 if isinstance(lowering_of(node), View) else 1  # reading elsewhere computes nothing
        inside = own + sum(work.get(operand, 0) for operand in node.inputs)
        again = inside * (times[node] - 1)
        if again > _WORTH_STORING and not isinstance(lowering_of(node), View | Gather):
            decisions[node] = Decision(True, f"{inside:g} operations, needed {times[node]:g} times")
        else:
            work[node] = inside


def _group(fusion: Fusion, root: Node, check: int | None = None) -> Group:
    """Everything between the root and the stored values that it reads."""
    inlined, reads, pending = set(), set(), list(root.inputs)
    if check is not None:
        pending = [root]
    while pending:
        node = pending.pop()
        if fusion.stored(node):
            reads.add(node)
        elif node not in inlined:
            inlined.add(node)
            pending.extend(node.inputs)
    by_serial = lambda node: node.serial
    return Group(root, sorted(inlined, key=by_serial), sorted(reads, key=by_serial), check)


# ------------------------------------------------------------------------------------ printer, verifier


def _print(fusion: Fusion) -> Iterator[str]:
    names = Names()
    list(print_graph(fusion.graph, names))
    yield f"fuse {fusion.graph.name}: {len(fusion.groups)} groups"
    rows = [
        (
            f"{names[node]} = {describe(node, names)}",
            "host" if lowering_of(node) is HOST else "stored" if decision.stored else "inlined",
            decision.reason,
        )
        for node, decision in sorted(fusion.decisions.items(), key=lambda item: item[0].serial)
    ]
    width = max((len(row[0]) for row in rows), default=0)
    for text, what, reason in rows:
        yield f"  {text:<{width}}  {what:<7}  {reason}"
    for group in fusion.groups:
        what = names[group.root] if group.check is None else f"check {group.check}"
        inside = " ".join(names[node] for node in group.inlined) or "-"
        yield f"  group {what}: inlines {inside}, reads {' '.join(names[node] for node in group.reads) or '-'}"


def verify(fusion: Fusion) -> Fusion:
    """Return it, or raise GraphError: results are in memory, and groups read what stands there already."""
    graph = fusion.graph
    ready = set(graph.sources) | {node for node in graph.nodes() if not node.inputs}
    for group in fusion.groups:
        for node in group.reads:
            if node not in ready:
                raise GraphError(
                    f"{graph.name}: the group of {group.root!r} reads {node!r} before it is stored"
                )
        if group.check is None:
            ready.update(group.stores)
    for node in (*graph.outputs, *(written for written in graph.writes.values() if written is not None)):
        if node not in ready:
            raise GraphError(f"{graph.name}: the result {node!r} is not stored")
    return fusion
