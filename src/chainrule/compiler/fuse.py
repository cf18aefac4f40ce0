"""Graph → groups: which values are stored and which are computed where they are read, each with its reason.

One group becomes one loop nest. Stored: results, reductions, products and their operands, costly values that are
needed more than once, and what must be the same bits for several readers. Everything else is inlined.
Knows operations by kind and lowering, never by name; knows nothing of buffers, loops or machine code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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
    Lowering,
    Position,
    Reduce,
    Running,
    Scalar,
    Scatter,
    View,
)

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


@dataclass(eq=False)
class Fusion:
    """The groups in the order in which they run, and the decision on every node.

    `late`: what runs after every check only. `in_place`: those of them that are written where a cell's old value lies.
    """

    graph: Graph
    decisions: dict[Node, Decision]
    groups: list[Group]
    in_place: dict[Node, Node] = field(default_factory=dict)
    late: set[Node] = field(default_factory=set)

    def stored(self, node: Node) -> bool:
        """Whether the value exists in memory: given from outside, or stored by a group."""
        decision = self.decisions.get(node)
        return decision is None or decision.stored

    def __str__(self) -> str:
        return "\n".join(_print(self))


def lowering_of(node: Node) -> Lowering:
    """The form of the node's loops; HOST where there are none for operands of these dtypes."""
    form = getattr(node.operation, "lowering", HOST)
    assert isinstance(form, Lowering)
    if isinstance(form, Scalar) and form.only and any(one.dtype.kind not in form.only for one in node.inputs):
        return HOST
    return form


def elements(node: Node) -> int:
    """Number of elements of the result."""
    return prod(node.shape)


def fuse(graph: Graph) -> Fusion:
    """Decide on every node, then form the groups.

    Raises CompileError for an operation without loops, if it has several results or if machine code is insisted on.
    """
    nodes = [node for node in graph.nodes() if node.inputs and node not in set(graph.sources)]
    _refuse_unsupported(nodes)
    decisions, times = _decide(graph, nodes)
    _limit_size(nodes, decisions)
    _limit_work(nodes, decisions, times)
    fusion = Fusion(graph, decisions, [])
    fusion.groups = [_group(fusion, node) for node in nodes if decisions[node].stored]
    fusion.groups += [_group(fusion, check.condition, k) for k, check in enumerate(graph.checks)]
    return verify(fusion)


def _refuse_unsupported(nodes: Iterable[Node]) -> None:
    for node in nodes:
        if lowering_of(node) is not HOST:
            continue
        several = any(len(one.types) > 1 for one in (node, *node.inputs))
        if several or config.forbid_interpreter:
            given = ", ".join(str(operand.type) for operand in node.inputs)
            advice = "" if several else ", or let NumPy compute it: without CHAINRULE_FORBID_INTERPRETER"
            raise CompileError(
                f"cr.compile cannot turn {node.operation.name} of {given} into machine code yet. Take it out of "
                f"the step, or run the step eagerly: without @cr.compile, or with CHAINRULE_COMPILE=0{advice}",
                node.origin,
            )


# ------------------------------------------------------------------------------------------- decisions

Reader = tuple[Any, tuple[Any, ...]]
"""Where a value is needed: the group that needs it, and the views through which it looks."""


def _decide(graph: Graph, nodes: list[Node]) -> tuple[dict[Node, Decision], dict[Node, float]]:
    """From the last node to the first, so that every reader is known; and how often each element is needed."""
    results = _results(graph)
    operands = dict.fromkeys(_operands_of_products(nodes), "operand of a product")
    operands |= dict.fromkeys(_operands_of_host(nodes), "operand of a NumPy call")
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
        if reason is None and len(readers[node]) > _MOST_INLINED:
            reason = f"read in {len(readers[node])} places"
        decisions[node] = Decision(reason is not None, reason or _reason_to_inline(node, len(readers[node])))
    return decisions, times


def _results(graph: Graph) -> dict[Node, str]:
    """Nodes that leave the function, with what they are there."""
    found: dict[Node, str] = {}
    for (cell, part), node in graph.writes.items():
        if node is not None:
            found[node] = f"written to {cell.name or 'a cell'}.{part}"
    found.update(dict.fromkeys(graph.outputs, "returned"))
    return found


def _operands_of_products(nodes: Iterable[Node]) -> set[Node]:
    """What products read from memory: their operands, behind views."""
    found = set()
    for node in nodes:
        if isinstance(lowering_of(node), Contraction):
            for operand in node.inputs:
                base = operand
                while base.inputs and isinstance(lowering_of(base), View):
                    base = base.inputs[0]
                found.add(base)
    return found


def _operands_of_host(nodes: Iterable[Node]) -> set[Node]:
    """What NumPy reads between native segments."""
    return {operand for node in nodes if lowering_of(node) is HOST for operand in node.inputs}


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
        common: int = group.inputs[0].shape[-1]
        return elements(group) * common
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
    if isinstance(form, Reduce | Running | Position):
        return "the result of a reduction"
    if isinstance(form, Contraction):
        return "the result of a product"
    if isinstance(form, Scatter):
        return "its elements arrive in any order"
    if node in operands:
        return operands[node]
    if len(consumers) > 1 and any(isinstance(consumer.operation, Selection) for consumer, _ in consumers):
        return "read by a selection and by others: all must see the same bits"
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
        inside = 1 + sum(work.get(operand, 0) for operand in node.inputs)
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
            ready.add(group.root)
    for node in (*graph.outputs, *(written for written in graph.writes.values() if written is not None)):
        if node not in ready:
            raise GraphError(f"{graph.name}: the result {node!r} is not stored")
    return fusion
