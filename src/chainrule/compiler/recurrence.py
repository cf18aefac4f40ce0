"""Graph → graph: loops over time without superfluous work.

What is the same at every step is computed once before the loop; results, carries and inputs that nobody needs go; and
what leaves a step is made a value of its own, so that it can be written where it is kept.
Knows operations by their lowering, never by name; knows nothing of buffers, loops or machine code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .. import ops
from ..graph import Graph, Node, topological
from ..operations import INPUT, NO_ATTRIBUTES
from ..ops.lowering import Loop, Part, Steps, View
from ..rewrite import remake, rewrite
from .forms import elements, steps_of


def settle(graph: Graph, thorough: bool = True) -> Graph:
    """The graph with its loops over time ready to be written; not `thorough`: with all that they compute."""
    if not any(_loops(node) for node in graph.nodes()):
        return graph
    while thorough:
        trimmed = _trim(graph)
        if trimmed is graph:
            break
        graph = trimmed
    return _finish(graph, thorough)


def _loops(node: Node) -> bool:
    return isinstance(getattr(node.operation, "lowering", None), Loop) and bool(node.inputs)


def _part_of(node: Node) -> Node | None:
    """The loop of which a node is one result; None for everything else."""
    if not isinstance(getattr(node.operation, "lowering", None), Part) or not _loops(node.inputs[0]):
        return None
    return node.inputs[0]


def remade(node: Node, inputs: tuple[Node, ...], steps: Steps) -> Node:
    """The loop with other operands and another body."""
    types = node.operation.types(*(one.type for one in inputs), **steps._asdict())
    return remake(node, inputs, attributes=steps._asdict(), types=types)


# ------------------------------------------------------------------------------------------- before the loop


def hoist(node: Node, body: Graph, rule: Callable[[Node], Node]) -> Node:
    """The loop over a body from which everything has been taken that is the same at every step.

    rule: what becomes of a node that is now computed outside. A copy to a larger shape is only another way to read,
    and stays.
    """
    steps = steps_of(node)
    first = steps.carries + steps.stacked
    chosen = _steady(body, first)
    if not chosen:
        return remade(node, node.inputs, steps._replace(body=body))
    outside = dict(zip(body.inputs, node.inputs, strict=True))
    for one in topological(chosen, follow=lambda one: one not in outside):
        if one not in outside:
            outside[one] = rule(remake(one, tuple(outside[k] for k in one.inputs))) if one.inputs else one
    places = {one: Node(INPUT, type=one.types) for one in chosen}
    inputs = (*body.inputs, *places.values())
    inner = Graph(body.name, inputs, _replaced(body, {**dict(zip(body.inputs, body.inputs)), **places}))
    return remade(node, (*node.inputs, *(outside[one] for one in chosen)), steps._replace(body=inner))


def _replaced(body: Graph, done: dict[Node, Node]) -> tuple[Node, ...]:
    """The outputs of a body, with other nodes in the place of some."""
    for node in topological(body.outputs, follow=lambda node: node not in done):
        if node not in done:
            inputs = tuple(done[operand] for operand in node.inputs)
            done[node] = remake(node, inputs) if inputs else node
    return tuple(done[node] for node in body.outputs)


def _steady(body: Graph, first: int) -> list[Node]:
    """Values that are computed from what is given for all steps, and are read by what is not."""
    given = set(body.inputs)
    steady = set(body.inputs[first:])
    nodes = [node for node in body.nodes() if node.inputs and node not in given]
    for node in nodes:
        if any(one in steady for one in node.inputs) and all(
            one in steady or _known(one) for one in node.inputs
        ):
            steady.add(node)
    wanted: dict[Node, None] = {}
    for node in nodes:
        if node not in steady:
            for operand in node.inputs:
                _choose(operand, steady, given, wanted)
    return sorted(wanted, key=lambda one: one.serial)


def _known(node: Node) -> bool:
    return not node.inputs and node._value is not None


def _choose(node: Node, steady: set[Node], given: set[Node], wanted: dict[Node, None]) -> None:
    while node in steady and node not in given:
        form = getattr(node.operation, "lowering", None)
        if not isinstance(form, View) or elements(node) <= elements(node.inputs[0]):
            wanted[node] = None
            return
        (node,) = node.inputs


# ------------------------------------------------------------------------------------------- what nobody needs


class _Trimmed(NamedTuple):
    """What is left of a loop: its steps, which operands it takes, and where its results are now.

    `moved`: the new number of a result. `through`: results that are an operand, unchanged from step to step.
    """

    steps: Steps
    operands: list[int]
    moved: dict[int, int]
    through: dict[int, int]


def _trim(graph: Graph) -> Graph:
    """The graph with smaller loops; the very graph if there is nothing to leave out."""
    used: dict[Node, set[int]] = {}
    for node in graph.nodes():
        loop = _part_of(node)
        if loop is not None:
            used.setdefault(loop, set()).add(node.attributes["index"])
    found = {loop: _trimmed(steps_of(loop), results) for loop, results in used.items()}
    changes = {loop: one for loop, one in found.items() if one is not None}
    if not changes:
        return graph
    operands: dict[Node, tuple[Node, ...]] = {}
    parts: dict[tuple[Node, int], Node] = {}

    def rule(node: Node, original: Node) -> Node:
        if original in changes:
            change = changes[original]
            operands[original] = node.inputs
            return remade(node, tuple(node.inputs[k] for k in change.operands), change.steps)
        loop = _part_of(original)
        if loop not in changes or loop is None:
            return node
        index, change = node.attributes["index"], changes[loop]
        if index in change.through:
            return operands[loop][change.through[index]]
        place = loop, change.moved[index]
        if place not in parts:  # two results that were the same value are one from here on
            parts[place] = remake(node, node.inputs, attributes={"index": place[1]})
        return parts[place]

    return rewrite(graph, rule)


def _trimmed(steps: Steps, used: set[int]) -> _Trimmed | None:
    body, carries = steps.body, steps.carries
    through = [k for k in range(carries) if body.outputs[k] is body.inputs[k]]
    alive = [k for k in range(carries) if k in used and k not in through]
    first: dict[Node, int] = {}
    for k in range(carries, len(body.outputs)):
        if k in used:
            first.setdefault(body.outputs[k], k)
    stacks = list(first.values())
    while True:
        needed = set(topological([body.outputs[k] for k in (*alive, *stacks)]))
        more = [k for k in range(carries) if body.inputs[k] in needed and k not in alive and k not in through]
        if not more:
            break
        alive = sorted([*alive, *more])
    entries = [k for k in range(carries, carries + steps.stacked) if body.inputs[k] in needed]
    shared = [k for k in range(carries + steps.stacked, len(body.inputs)) if body.inputs[k] in needed]
    shared += [k for k in through if body.inputs[k] in needed]
    operands, results = [*alive, *entries, *shared], [*alive, *stacks]
    if len(operands) == len(body.inputs) and len(results) == len(body.outputs) and not through:
        return None
    inner = Graph(body.name, tuple(body.inputs[k] for k in operands), tuple(body.outputs[k] for k in results))
    smaller = steps._replace(body=inner, carries=len(alive), stacked=len(entries))
    moved = {k: place for place, k in enumerate(results)}
    moved |= {k: moved[first[body.outputs[k]]] for k in used if k >= carries}
    return _Trimmed(smaller, operands, moved, {k: k for k in through})


# ------------------------------------------------------------------------------------------- what leaves a step


def _finish(graph: Graph, thorough: bool) -> Graph:
    """Every result of a step is computed by it, and no two are the same value, but for what is carried and kept."""

    def rule(node: Node, original: Node) -> Node:
        if not _loops(node):
            return node
        steps = steps_of(node)
        body = _with_results(steps._replace(body=settle(steps.body, thorough)))
        return remade(node, node.inputs, steps._replace(body=body))

    return rewrite(graph, rule)


def _with_results(steps: Steps) -> Graph:
    """The body with copies where a result is an input, a constant, or a result already.

    A carry may be kept as well: either what it becomes, or what it was; see `ahead`.
    """
    body, carries = steps.body, steps.carries
    given = set(body.inputs)
    kept = body.outputs[carries:]
    behind = {k for k in range(carries) if body.outputs[k] in kept}
    seen: set[Node] = set()
    outputs: list[Node] = []
    for node in body.outputs[:carries]:
        fresh = bool(node.inputs) and node not in given and node not in seen
        seen.add(node)
        outputs.append(node if fresh else _copied(node))
    seen = set()
    for node in kept:
        ahead = node in body.inputs[:carries] and body.inputs.index(node) not in behind
        fresh = (ahead or (bool(node.inputs) and node not in given)) and node not in seen
        seen.add(node)
        outputs.append(node if fresh else _copied(node))
    return Graph(body.name, body.inputs, tuple(outputs))


def _copied(node: Node) -> Node:
    return remake(node, (node,), ops.positive, NO_ATTRIBUTES, (node.type,))
