"""graph → graph: one walk from the operands up, in which a rule may put another node in a node's place.

Copies of nodes keep scope, origin and what they are the gradient of. The given graph is never changed.
Knows nothing of particular operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .graph import Graph, Node
from .operations import NO_ATTRIBUTES, Attributes, Operation, Type

Rule = Callable[[Node, Node], Node]
"""From a node with its final operands (and the node that it is a copy of) to what stands for it: itself, or another."""


def remake(
    node: Node,
    inputs: tuple[Node, ...],
    operation: Operation | None = None,
    attributes: Attributes | None = None,
    types: tuple[Type, ...] | None = None,
) -> Node:
    """A copy of the node with other operands (or another operation), from the same place in the user's code."""
    copy = Node(
        operation or node.operation,
        (),
        node.attributes if attributes is None else attributes,
        None,
        types or node.types,
        node.requires_grad,
        node.cell,
    )
    copy.inputs = inputs
    copy.scope, copy.origin, copy.gradient_of = node.scope, node.origin, node.gradient_of
    return copy


def source_like(node: Node, operation: Operation, value: object = None) -> Node:
    """A source of the node's type in the same place of the user's code."""
    copy = remake(node, (), operation, NO_ATTRIBUTES)
    copy._value = value  # type: ignore[assignment]
    return copy


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """The graph with `rule` applied to every node that has operands, operands first."""
    done: dict[Node, Node] = {node: node for node in graph.sources}
    for node in graph.nodes():
        if node in done:
            continue
        if not node.inputs:
            done[node] = rule(node, node)
            continue
        inputs = tuple(done[operand] for operand in node.inputs)
        # Copied even if nothing changed: a node must come after its operands, also those made just now.
        done[node] = rule(remake(node, inputs) if node._value is None else node, node)
    return Graph(
        graph.name,
        graph.inputs,
        tuple(done[node] for node in graph.outputs),
        dict(graph.reads),
        {slot: None if node is None else done[node] for slot, node in graph.writes.items()},
        [
            replace(check, condition=done[check.condition], subject=_moved(check.subject, done))
            for check in graph.checks
        ],
    )


def _moved(node: Node | None, done: dict[Node, Node]) -> Node | None:
    # What nothing else needs is computed where the check has failed, from the same sources.
    return None if node is None else done.get(node, node)
