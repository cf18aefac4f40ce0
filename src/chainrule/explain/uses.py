"""A tensor that several operations read: what each of them adds to its gradient.

Knows graphs and names; draws nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..graph import Node
from ..language import sentence
from ..operations import Array
from .data import numbers
from .numbers import brief, digits
from .recurrence import consumers_of, uses_of
from .section import Block, Section, Table
from .shares import shares_by_step

# Elements that are listed, and uses.
LISTED, SHOWN = 4, 40


@dataclass(slots=True)
class Uses(Section):
    """shares: (operation, the user's line, what it adds), in order."""

    kind: ClassVar[str] = "uses"

    tensor: str
    root: str
    shares: list[tuple[str, str, Array]]

    @property
    def total(self) -> Array:
        """The sum of all shares."""
        return np.asarray(sum(share for *_, share in self.shares))

    def heading(self, language: str) -> str:
        """Which tensor, and how many read it."""
        return sentence("uses.heading", language, name=self.tensor, count=len(self.shares), root=self.root)

    def blocks(self, language: str) -> list[Block]:
        """A row for each use, and the sum."""
        adds = sentence("time.adds", language, weight=self.tensor, root=self.root)
        heads = ["", sentence("uses.operation", language), sentence("uses.line", language), adds, ""]
        heads[-1] = sentence("time.norm", language)
        single = self.total.size == 1

        def norm(value: Array) -> str:
            return "" if single else digits(np.linalg.norm(value.astype(np.float64)))

        rows = [
            [str(k), name, line, brief(share, LISTED), norm(share)]
            for k, (name, line, share) in enumerate(self.shares[:SHOWN], 1)
        ]
        left = self.shares[SHOWN:]
        if left:
            rest = np.asarray(sum(share for *_, share in left))
            rows.append(
                ["…", sentence("uses.more", language, count=len(left)), "", brief(rest, LISTED), norm(rest)]
            )
        rows.append([sentence("time.sum", language), "", "", brief(self.total, LISTED), norm(self.total)])
        return [Table(heads, rows, total=True)]

    def data(self, full: bool = False) -> dict[str, Any]:
        """Everything with all digits."""
        return {
            "tensor": self.tensor,
            "shares": [
                {"operation": name, "line": line, "share": numbers(share, full)}
                for name, line, share in self.shares
            ],
            "sum": numbers(self.total, full),
        }


def uses(
    order: Sequence[Node], tensor: Node, arrived: Mapping[Node, Any], names: Mapping[Node, str], root: str
) -> Uses | None:
    """The section about a tensor that is read by two or more operations; None if nothing arrives."""
    readers = list(dict.fromkeys(node for node, _ in uses_of(tensor, consumers_of(order))))
    number = {node: k for k, node in enumerate(readers)}
    shares = shares_by_step(order, arrived, number, tensor)
    if len(shares) < 2:
        return None
    told = []
    for k, node in enumerate(readers):
        if k in shares:
            scope = f" ({node.scope.path})" if node.scope is not None else ""
            told.append((node.operation.name + scope, str(node.origin or ""), np.asarray(shares[k])))
    return Uses(names.get(tensor, "x"), root, told)
