"""The gradient of one tensor divided among those who read it: among steps in time, or among single uses.

Where an operation reads the tensor for several steps at once (one product for the inputs of all times), what arrives is
kept apart by the step that it comes from, and pulled back once for each: rules are linear, so the shares add up.
Knows nodes, gradients and steps; knows nothing of text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..autodiff import gradients
from ..graph import Node
from ..operations import CONSTANT, Array
from ..rewrite import remake, source_like

OUTSIDE = -1
"""The share of operations that belong to no step."""


def shares_by_step(
    order: Sequence[Node], arrived: Mapping[Node, Any], step_of: Mapping[Node, int], weight: Node
) -> dict[int, Array]:
    """What each step adds to the gradient of `weight`.

    order: the operations that require grad, operands first. arrived: the gradient of each.
    """
    parts: dict[Node, dict[int, Any]] = {}
    needed = _depending_on(order, weight)
    for node in reversed(order):
        if node is weight or node not in needed or node not in arrived:
            continue
        if node in step_of:
            own = {step_of[node]: arrived[node]}
        else:
            own = parts.pop(node, {}) or {OUTSIDE: arrived[node]}
        wanted = [k for k, operand in enumerate(node.inputs) if operand in needed and operand not in step_of]
        if not wanted:
            continue
        for step, g in own.items():
            for index, sent in pulled(node, g).items():
                if index in wanted:
                    found = parts.setdefault(node.inputs[index], {})
                    found[step] = _sum(found[step], sent) if step in found else sent
    return parts.get(weight, {})


def pulled(node: Node, g: Any) -> dict[int, Any]:
    """What one operation passes on to each operand of a gradient `g`, whatever else has arrived there."""
    stubs = []
    for operand in node.inputs:
        stub = source_like(operand, CONSTANT, operand.value)
        stub.requires_grad, stub.cell = operand.requires_grad, None  # hooks wait for the whole gradient
        stubs.append(stub)
    alone = remake(node, tuple(stubs))
    alone._value = node.value
    found = gradients([alone], [g], stubs)
    return {index: found[stub] for index, stub in enumerate(stubs) if stub in found}


def _sum(a: Any, b: Any) -> Any:
    if isinstance(a, list):
        return [y if x is None else x if y is None else x + y for x, y in zip(a, b)]
    return a + b


def _depending_on(order: Sequence[Node], weight: Node) -> set[Node]:
    found = {weight}
    for node in order:
        if any(operand in found for operand in node.inputs):
            found.add(node)
    return found
