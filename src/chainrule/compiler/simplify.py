"""Graph → graph: folded constants, no work that changes nothing, equal nodes once, checks that always hold gone.

Every step leaves each bit of the results as it is. What is exactly equal is declared by the operations.
Knows no operation by name, and nothing of loops or machine code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from ..graph import Check, Graph, Node, topological
from ..operations import CONSTANT, OPERATIONS
from ..ops.lowering import Loop, Part, View
from ..rewrite import remake, rewrite, source_like
from .recurrence import hoist

# A constant of at most so many elements is computed now even if it is larger than its operands.
_SMALL = 16


def simplify(graph: Graph, thorough: bool = True) -> Graph:
    """The graph without superfluous work; reads that nothing depends on are gone.

    Not `thorough`: only what later passes need: operations over graphs are written out, known values are constants.
    """
    simplifier = _Simplifier()
    rule = simplifier.rule if thorough else simplifier.needed
    simplifier.rule_inside = rule
    simpler = rewrite(graph, lambda node, _: rule(node))
    if not thorough:
        return simpler
    used = set(simpler.nodes()) - set(simpler.sources) | {n for node in simpler.nodes() for n in node.inputs}
    used |= set(simpler.roots)
    simpler.reads = {slot: node for slot, node in simpler.reads.items() if node in used}
    simpler.checks = _needed(simpler.checks)
    simpler.writes = {
        slot: node
        for slot, node in simpler.writes.items()
        if node is None or simpler.reads.get(slot) is not node
    }
    return simpler


def _needed(checks: list[Check]) -> list[Check]:
    """Each condition once, without those that are known to hold."""
    kept: dict[Node, Check] = {}
    for check in checks:
        value = check.condition._value
        if value is None or not np.all(value):
            kept.setdefault(check.condition, check)
    return list(kept.values())


def uniform(node: Node) -> Any:
    """The one number that a node is known to hold everywhere, as a NumPy scalar; None if there is none."""
    while node.operation is not CONSTANT:
        lowering = getattr(node.operation, "lowering", None)
        if not isinstance(lowering, View) or node._value is not None:
            return None
        node = node.inputs[0]
    value = node._value
    if not isinstance(value, np.ndarray) or not value.size:
        return None
    first = value.reshape(-1)[:1]
    same = value.size == 1 or value.tobytes() == first.tobytes() * value.size
    return first[0] if same else None


class _Simplifier:
    """The rules, with the memory that equal nodes need."""

    def __init__(self) -> None:
        self.seen: dict[Any, Node] = {}
        self.several: dict[Node, tuple[Node, ...]] = {}
        self.gates: dict[Node, Node] = {}
        self.rule_inside: Callable[[Node], Node] = self.rule

    def needed(self, node: Node) -> Node:
        """The node without what has no loops, as it is otherwise."""
        if node.operation is CONSTANT:
            return node
        if not node.inputs or node._value is not None:
            return source_like(node, CONSTANT, node.value)
        lowering = getattr(node.operation, "lowering", None)
        if isinstance(lowering, Loop):
            body = simplify(node.attributes["body"], thorough=False)
            return remake(node, node.inputs, attributes={**node.attributes, "body": body})
        kept = isinstance(lowering, Part) and node.inputs[0] not in self.several
        whole = node.operation.exact.results is None or kept  # type: ignore[attr-defined]
        return node if whole else self.written_out(node)

    def looped(self, node: Node) -> Node:
        """A loop over time with a simpler body; what is the same at every step stands before it."""
        return hoist(node, simplify(node.attributes["body"]), self.rule)

    def rule(self, node: Node) -> Node:
        """The simplest node that is exactly equal to this one."""
        if node.operation is CONSTANT:
            return self.once(node)
        if not node.inputs or node._value is not None:
            return self.once(source_like(node, CONSTANT, node.value))
        lowering = getattr(node.operation, "lowering", None)
        if isinstance(lowering, Loop):
            return self.looped(node)
        kept = isinstance(lowering, Part) and node.inputs[0] not in self.several
        if node.operation.exact.results is not None and not kept:  # type: ignore[attr-defined]
            return self.written_out(node)
        for step in (self.without_effect, self.merged, self.gated, self.plain, self.folded):
            simpler = step(node)
            if simpler is not node:
                return self.rule(simpler) if simpler.inputs and simpler._value is None else self.once(simpler)
        return self.once(node)

    def written_out(self, node: Node) -> Node:
        """What an operation over a graph computes, in its place; several results are remembered for their parts."""
        operands = tuple(self.several.get(operand, operand) for operand in node.inputs)
        if any(isinstance(operand, Node) and len(operand.types) > 1 for operand in operands):
            return self.once(node)  # one result of what stays as it is, such as a loop over steps
        results = node.operation.exact.results(operands, self.inline, **node.attributes)  # type: ignore[attr-defined]
        if isinstance(results, Node):
            return results
        self.several[node] = tuple(results)
        return node

    def inline(self, graph: Graph, operands: tuple[Node, ...]) -> tuple[Node, ...]:
        """The outputs of a closed graph with these operands as its inputs."""
        done = dict(zip(graph.inputs, operands, strict=True))
        for node in topological(graph.outputs):
            if node not in done:
                inputs = tuple(done[operand] for operand in node.inputs)
                inner = remake(node, inputs) if inputs and node._value is None else node
                done[node] = self.rule_inside(inner)
        return tuple(done[node] for node in graph.outputs)

    def without_effect(self, node: Node) -> Node:
        """The operand, where the operation leaves it as it is."""
        exact, operands = node.operation.exact, node.inputs  # type: ignore[attr-defined]
        if exact.nothing is not None and exact.nothing(operands[0].type, **node.attributes):
            return operands[0]
        for index, neutral in enumerate(exact.neutral):
            other = operands[1 - index]
            if neutral is not None and other.type == node.type and _is(uniform(operands[index]), neutral):
                return other
        return node

    def merged(self, node: Node) -> Node:
        """One operation for two of its kind in a row."""
        inner = node.inputs[0]
        merge = node.operation.exact.merge  # type: ignore[attr-defined]
        if merge is None or inner.operation is not node.operation or inner._value is not None:
            return node
        attributes = merge(inner.attributes, node.attributes, inner.inputs[0].type)
        return node if attributes is None else remake(node, inner.inputs, attributes=attributes)

    def gated(self, node: Node) -> Node:
        """Asked of a gate's result instead of its operand whether it is above 0: then the operand is not kept."""
        exact = node.operation.exact  # type: ignore[attr-defined]
        if exact.gate:
            self.gates.setdefault(node.inputs[0], node)
        if exact.above is None:
            return node
        asked = node.inputs[exact.above]
        if asked not in self.gates or not _is(uniform(node.inputs[1 - exact.above]), 0.0):
            return node
        inputs = list(node.inputs)
        inputs[exact.above] = self.gates[asked]
        return remake(node, tuple(inputs))

    def plain(self, node: Node) -> Node:
        """The cheaper operation that does the same beside a finite constant other than 0."""
        name = node.operation.exact.plain  # type: ignore[attr-defined]
        if name is not None:
            for operand in node.inputs:
                value = uniform(operand)
                if value is not None and np.isfinite(value) and value != 0:
                    return remake(node, node.inputs, OPERATIONS[name])
        return node

    def folded(self, node: Node) -> Node:
        """A constant, where all operands are; but a broadcast constant stays small."""
        values: list[Any] = [operand._value for operand in node.inputs]
        if any(value is None for value in values) or len(node.types) > 1:
            return node
        size = int(np.prod(node.shape, dtype=object))
        if size > max(_SMALL, *(np.size(value) for value in values)):
            return node
        with ops.quiet():
            result = node.operation.body(ops.NUMPY, *values, **node.attributes)
        return source_like(node, CONSTANT, np.asarray(result))

    def once(self, node: Node) -> Node:
        """The first node that is equal to this one."""
        try:
            key = _key(node)
            return self.seen.setdefault(key, node) if key is not None else node
        except TypeError:  # attributes that cannot be compared: graphs, functions
            return node


def _is(value: Any, number: float) -> bool:
    """Whether a NumPy scalar is this number, with the sign of a zero."""
    return value is not None and value == number and (number != 0 or not np.signbit(value))


def _key(node: Node) -> Any:
    """What makes two nodes equal; None for those that are only equal to themselves."""
    if node.inputs:
        attributes = tuple(sorted((name, value) for name, value in node.attributes.items()))
        return node.operation, node.inputs, attributes, node.types
    value = node._value
    if node.operation is CONSTANT and isinstance(value, np.ndarray):
        if value.size > _SMALL:
            # One array is one constant, wherever it is used: the first node holds it.
            return CONSTANT, id(value)
        return CONSTANT, value.dtype, value.shape, value.tobytes()
    return None
