"""Names for the nodes of a story: given by the user, a cell's own, found in the caller's variables, or made.

Variables are a best effort: the local and then the global names of the calling function, and one level into
lists, tuples and dicts there. Other results are called v1, v2, …; z where an activation function follows.
Knows nodes and handles; knows nothing of gradients.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import PACKAGE_FOLDER, ArgumentError
from ..graph import Node
from ..operations import CONSTANT
from ..tensor import Tensor

# Entries of one container that are looked at; a list of a million tensors holds no variables.
_CONTAINER_LIMIT = 1000

# What goes into one of these is called z, as textbooks do.
_ACTIVATIONS = frozenset({"sigmoid", "tanh", "relu", "erf"})

Variables = list[tuple[str, Tensor]]


def caller_variables() -> Variables:
    """Named tensors of the first calling function outside the package, local names before global ones."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE_FOLDER):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return []
    found = list(_tensors(frame.f_locals))
    if frame.f_globals is not frame.f_locals:
        found += _tensors(frame.f_globals)
    return found


def _tensors(variables: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    containers: list[tuple[str, Any]] = []
    for name, value in list(variables.items()):
        if name.startswith("_"):
            continue
        if isinstance(value, Tensor):
            yield name, value
        elif type(value) in (list, tuple, dict) and len(value) <= _CONTAINER_LIMIT:
            containers.append((name, value))
    for name, value in containers:
        items: Iterable[tuple[Any, Any]] = value.items() if type(value) is dict else enumerate(value)
        for key, item in items:
            if isinstance(item, Tensor):
                yield f"{name}[{key!r}]", item


def given_names(names: Mapping[str, Tensor] | None) -> Variables:
    """The user's own names, checked."""
    if names is None:
        return []
    for name, value in names.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ArgumentError(
                f"names= maps names to tensors, as in {{'w': w}}; got {name!r}: {type(value).__name__}"
            )
    return list(names.items())


class NodeNames:
    """One name for each node, none given twice."""

    def __init__(self, order: Iterable[Node], given: Variables, variables: Variables) -> None:
        self._names: dict[Node, str] = {}
        self._taken: set[str] = set()
        by_cell: dict[Any, list[Node]] = {}
        present: set[Node] = set()
        self._order = list(order)
        for node in self._order:
            present.add(node)
            if node.cell is not None:
                by_cell.setdefault(node.cell, []).append(node)
        self._claim(given, present, by_cell)
        for cell, nodes in by_cell.items():
            if cell.name:
                for node in nodes:
                    self._give(node, cell.name)
        self._claim(variables, present, by_cell)

    def _claim(self, pairs: Variables, present: set[Node], by_cell: dict[Any, list[Node]]) -> None:
        for name, tensor in pairs:
            if tensor.cell is not None:
                for node in by_cell.get(tensor.cell, ()):
                    self._give(node, name)
            elif (node := tensor.node) in present:
                self._give(node, name)

    def _give(self, node: Node, wish: str) -> None:
        if node in self._names:
            return
        name, k = wish, 2
        while name in self._taken:
            name, k = f"{wish}_{k}", k + 1
        self._taken.add(name)
        self._names[node] = name

    def __contains__(self, node: Node) -> bool:
        return node in self._names

    def __getitem__(self, node: Node) -> str:
        return self._names[node]

    def complete(self, nodes: Iterable[Node], root: Node) -> None:
        """Make names for those of `nodes` that have none yet; constants of one element are their number."""
        if root not in self:
            self._give(root, "out" if "L" in self._taken or root.shape else "L")
        activated = {
            one.inputs[0] for one in self._order if one.operation.name in _ACTIVATIONS and one.inputs
        }
        unnamed = []
        for node in nodes:
            if node in self:
                continue
            text = scalar_text(node)
            if text is not None:
                self._names[node] = text
            else:
                unnamed.append(node)
        results = [node for node in unnamed if node.inputs]
        weighted = [node for node in results if node in activated]
        for k, node in enumerate(weighted, 1):
            self._give(node, "z" if len(weighted) == 1 else f"z{k}")
        for k, node in enumerate((node for node in results if node not in activated), 1):
            self._give(node, f"v{k}")
        for k, node in enumerate((node for node in unnamed if not node.inputs), 1):
            self._give(node, f"c{k}" if node.operation is CONSTANT else f"leaf{k}")


def scalar_text(node: Node) -> str | None:
    """The number of a constant of one element, as formulas write it; None for every other node."""
    value = node.value
    if node.operation is not CONSTANT or not isinstance(value, np.ndarray) or value.ndim:
        return None
    return re.sub("^-", "−", f"{value.item():.6g}") if value.dtype.kind == "f" else str(value.item())
