"""A graph told step by step: operations over whole graphs are replaced by the operations inside them.

A scan becomes its body once for each step, a checkpoint the part that it did not keep, so that every step in time
has values and gradients of its own. Values are computed again; the given graph is never changed.
Knows nodes and operations over graphs; knows nothing of weights, time or text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .. import ops
from ..autodiff import call, part
from ..errors import ArgumentError
from ..graph import Graph, Node, constant, state, topological
from ..operations import Type
from ..scans import scan

_OPENED = (call, scan)

# More operations than these are not told one by one.
LONGEST = 200_000

Results = Node | tuple[Node, ...]
"""What stands for a node: a node, or one for each of its results."""


def count_operations(root: Node) -> int:
    """How many operations the graph has when it is told step by step."""
    return sum(map(_operations_in, topological([root])))


def unrolled(
    root: Node, instead: Mapping[tuple[Node, int], Node] | None = None
) -> tuple[Node, dict[Node, Results]]:
    """(what stands for `root`, what stands for each node that was made again).

    instead: what an operation shall read as its operand of this number. Nodes that nothing changes are kept.
    Raises ArgumentError where more than 200,000 operations would come out.
    """
    slots = dict(instead or {})
    changed = {node for node, _ in slots}
    done: dict[Node, Results] = {}
    if count_operations(root) > LONGEST:
        raise ArgumentError(
            f"a story is told of up to {LONGEST:,} operations; got more after unrolling. Take fewer steps"
        )
    outer = state.trace, state.grad_enabled, state.gradient_of
    state.trace, state.grad_enabled, state.gradient_of = None, True, None
    try:
        with ops.quiet():
            order = topological([root])
            read = _read_results(order)
            for node in order:
                if node in done or not node.inputs:
                    continue
                opened = node.operation in _OPENED
                if not opened and node not in changed and not any(one in done for one in node.inputs):
                    continue
                operands = tuple(
                    slots.get((node, k), done.get(operand, operand)) for k, operand in enumerate(node.inputs)
                )
                done[node] = (
                    _open(node, _single(operands), read.get(node)) if opened else _again(node, operands)
                )
    finally:
        state.trace, state.grad_enabled, state.gradient_of = outer
    found = done.get(root, root)
    assert isinstance(found, Node)
    return found, done


def _single(operands: Sequence[Results]) -> tuple[Node, ...]:
    assert all(isinstance(one, Node) for one in operands)
    return tuple(one for one in operands if isinstance(one, Node))


def _again(node: Node, operands: tuple[Results, ...]) -> Results:
    """The same operation on other operands, from the same place in the user's code."""
    if node.operation is part and isinstance(operands[0], tuple):
        return operands[0][node.attributes["index"]]
    assert isinstance(node.operation, ops.Op)
    made = node.operation.node(_single(operands), node.attributes)
    made.scope, made.origin, made.hooks = node.scope, node.origin, node.hooks
    return made


def _read_results(order: Iterable[Node]) -> dict[Node, set[int]]:
    """Which of their results are read, for operations with several."""
    found: dict[Node, set[int]] = {}
    for node in order:
        if node.operation is part:
            found.setdefault(node.inputs[0], set()).add(node.attributes["index"])
    return found


def _operations_in(node: Node) -> int:
    """How many operations a node becomes."""
    if node.operation is call:
        return sum(map(_operations_in, node.attributes["graph"].nodes()))
    if node.operation is scan:
        inside = sum(map(_operations_in, node.attributes["body"].nodes()))
        return int(node.attributes["length"]) * inside
    return 1


def _open(node: Node, operands: tuple[Node, ...], read: set[int] | None) -> tuple[Node, ...]:
    """The results of an operation over a graph, from the operations inside it; unread stacks stand unmade."""
    if node.operation is call:
        return _run(node.attributes["graph"], operands)
    return _steps(operands, read or set(), **node.attributes)


def _steps(
    operands: tuple[Node, ...],
    read: set[int],
    *,
    body: Graph,
    carries: int,
    stacked: int,
    length: int,
    reverse: bool,
) -> tuple[Node, ...]:
    """A scan step by step: the last carries, and what the steps give besides, stacked."""
    handed, entries = operands[:carries], operands[carries : carries + stacked]
    invariants = operands[carries + stacked :]
    given: dict[int, tuple[Node, ...]] = {}
    for t in reversed(range(length)) if reverse else range(length):
        results = _run(body, (*handed, *(_entry(one, t) for one in entries), *invariants))
        handed, given[t] = results[:carries], results[carries:]
    stacks = [
        _stack([given[t][k] for t in range(length)], output.type) if carries + k in read else constant(0.0)
        for k, output in enumerate(body.outputs[carries:])
    ]
    return (*handed, *stacks)


def _entry(stack: Node, t: int) -> Node:
    shape = stack.shape
    starts, stops = (t, *(0 for _ in shape[1:])), (t + 1, *shape[1:])
    row: Node = ops.slice_.node((stack,), {"starts": starts, "stops": stops, "steps": (1,) * len(shape)})
    entry: Node = ops.reshape.node((row,), {"shape": shape[1:]})
    return entry


def _stack(rows: Sequence[Node], row: Type) -> Node:
    if not rows:
        return constant(np.zeros((0, *row.shape), row.dtype))
    grown = tuple(ops.reshape.node((one,), {"shape": (1, *row.shape)}) for one in rows)
    stack: Node = ops.concat.node(grown, {"axis": 0})
    return stack


def _run(graph: Graph, operands: Sequence[Node]) -> tuple[Node, ...]:
    """The graph's outputs for these operands: every operation applied once more, to nodes with values."""
    done: dict[Node, Results] = dict(zip(graph.inputs, operands, strict=True))
    nodes = graph.nodes()
    read = _read_results(nodes)
    for node in nodes:
        if node in done:
            continue
        if not node.inputs:
            done[node] = node if node.value is not None else constant(np.zeros(node.shape, node.dtype))
            continue
        inner = tuple(done[operand] for operand in node.inputs)
        opened = node.operation in _OPENED
        done[node] = _open(node, _single(inner), read.get(node)) if opened else _again(node, inner)
    return _single([done[one] for one in graph.outputs])
