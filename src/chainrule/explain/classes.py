"""Softmax with cross-entropy, class by class: the gradient of a logit is its share less the target, p − y.

Knows how a call of cross_entropy looks in a graph; draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..autodiff import Contribution
from ..graph import Node
from ..language import sentence
from ..operations import Array
from .data import numbers
from .numbers import digits
from .section import Block, Section, Table

SCOPE = "cross_entropy"

# Classes that are listed: the most likely and the right one.
LISTED = 12


@dataclass(slots=True)
class Classes(Section):
    """One item: its logits, their shares p, the target y, and factor × (p − y), its gradient."""

    kind: ClassVar[str] = "cross_entropy"

    logits: str
    root: str
    item: int
    items: int
    z: Array
    p: Array
    target: int
    factor: float
    gradient: Array

    def heading(self, language: str) -> str:
        """Which logits, and which item of several."""
        key = "classes.heading" if self.items == 1 else "classes.heading_item"
        return sentence(key, language, z=self.logits, item=self.item, count=self.items)

    def blocks(self, language: str) -> list[Block]:
        """A row for each class, the loss, and why."""
        z, root = self.logits, self.root
        known = sentence("classes.scaled", language, factor=digits(self.factor)) if self.factor != 1 else ""
        heads = [
            sentence("classes.class", language), "z", "e^z", "p = softmax(z)", "y", "p − y",
            f"∂{root}/∂{z} = {known or 'p − y'}" if self.factor != 1 else "",
        ]  # fmt: skip
        order = np.argsort(-self.p, kind="stable")[:LISTED].tolist()
        if self.target not in order:
            order[-1] = self.target
        rows = []
        for k in sorted(order):
            y = int(k == self.target)
            own = digits(self.gradient[k]) if self.factor != 1 else ""
            with np.errstate(over="ignore"):
                grown = digits(np.exp(self.z[k]))
            rows.append(
                [str(k), digits(self.z[k]), grown, digits(self.p[k]), str(y), digits(self.p[k] - y), own]
            )
        loss = digits(-np.log(self.p[self.target]))
        share = digits(self.p[self.target])
        return [
            Table(heads, rows),
            sentence("classes.loss", language, target=self.target, share=share, loss=loss),
            sentence("classes.why", language),
        ]

    def data(self, full: bool = False) -> dict[str, Any]:
        """Everything with all digits."""
        return {
            "item": self.item, "z": numbers(self.z, full), "p": numbers(self.p, full), "target": self.target,
            "factor": self.factor, "gradient": numbers(self.gradient, full),
        }  # fmt: skip


def classes(
    order: Sequence[Node], logits: Node, passed: Iterable[Contribution], names: Mapping[Node, str], root: str
) -> Classes | None:
    """The section about logits that go into cross_entropy with one right class each; None for all others."""
    inside = {node for node in order if node.inputs and _is_loss(node)}
    sent = [one.outgoing for one in passed if one.node in inside and one.node.inputs[one.operand] is logits]
    if not sent or logits in inside or not logits.shape:
        return None
    rows, gradient = _by_item(logits.value), _by_item(np.asarray(sum(sent)))
    shifted = np.exp(rows - rows.max(axis=1, keepdims=True))
    shares = shifted / shifted.sum(axis=1, keepdims=True)
    targets = np.argmin(gradient, axis=1)
    own = shares[np.arange(len(rows)), targets]
    item = int(np.argmin(own))
    target, found = int(targets[item]), gradient[item]
    factor = float(found[target] / (own[item] - 1)) if own[item] != 1 else 0.0
    expected = factor * (shares[item] - (np.arange(rows.shape[1]) == target))
    if factor <= 0 or not np.allclose(found, expected, rtol=1e-4, atol=1e-6 * factor):
        return None
    exact = 1.0 if abs(factor - 1) < 1e-6 else factor
    return Classes(
        names.get(logits, "z"), root, item, len(rows), rows[item], shares[item], target, exact, found
    )


def _is_loss(node: Node) -> bool:
    scope = node.scope
    while scope is not None and scope.name != SCOPE:
        scope = scope.parent
    return scope is not None


def _by_item(value: Array) -> Array:
    """(C,), (N, C) or (N, C, …) as (items, C)."""
    return value.reshape(1, -1) if value.ndim == 1 else np.moveaxis(value, 1, -1).reshape(-1, value.shape[1])
