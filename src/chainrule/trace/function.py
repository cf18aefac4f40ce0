"""Python function → Graph: the function runs once with nodes that have no numbers, and what it does is recorded.

Nothing is changed while tracing: if the function fails, everything is as before.
Knows tensors, cells and pytrees; knows nothing of loops or machine code.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..config import config
from ..dtypes import as_dtype
from ..errors import GradientError, TraceError
from ..graph import Cell, Graph, Node, state
from ..locks import TRACING, lock
from ..operations import INPUT, Type
from ..pytree import flatten, skeleton, unflatten
from ..pytree import labels as label_leaves
from ..structure import structure_version
from ..tensor import Tensor, wrap
from .guards import Watched, captured_tensors, snapshot, watch
from .recording import Tracing

# -------------------------------------------------------------------------------------- arguments, results


@dataclass(eq=False)
class Arguments:
    """A call's arguments: leaves, how they are nested, and the key that says which traces can serve them."""

    leaves: list[Any]
    structure: Any
    key: tuple[Any, ...]


def arguments_of(args: tuple[Any, ...], keywords: dict[str, Any]) -> Arguments:
    """Flatten a call. Tensors and arrays count by type, cells and objects by identity, numbers by value."""
    leaves, structure = flatten((args, keywords))
    key = (skeleton(structure), state.grad_enabled, config.check_finite, *map(_leaf_key, leaves))
    return Arguments(leaves, structure, key)


def _leaf_key(leaf: Any) -> Any:
    if is_input(leaf):
        return Type(tuple(leaf.shape), as_dtype(leaf.dtype))
    return snapshot(leaf)


def is_input(leaf: Any) -> bool:
    """Whether an argument's numbers are given anew at each call."""
    if isinstance(leaf, Tensor):
        return leaf.cell is None
    return isinstance(leaf, np.ndarray | np.generic)


def labels(structure: Any, names: Sequence[str]) -> list[str]:
    """What each leaf of the arguments is called: `batch['x']`, `args[2]`, `training`."""
    positional, named = structure.children
    found: list[str] = []
    for k, child in enumerate(positional.children):
        found.extend(label_leaves(child, names[k] if k < len(names) else f"argument {k}"))
    for name, child in zip(named.keys, named.children):
        found.extend(label_leaves(child, name))
    return found


# ------------------------------------------------------------------------------------------- one trace


@dataclass(eq=False)
class Traced:
    """A graph, what its inputs are and where its outputs go, and what has been taken for granted.

    `inputs`: for each input of the graph the number of an argument leaf, or a captured tensor.
    `results`: for each leaf of the result the number of an output, or the object itself.
    `rebound`: tensors (or argument leaves) that stand for another output afterwards.
    `labels`: what the leaves of the arguments are called.
    """

    graph: Graph
    inputs: list[int | Tensor]
    structure: Any
    results: list[Any]
    rebound: list[tuple[int | Tensor, int]]
    watched: list[tuple[Watched, Any]]
    cells: dict[Cell, tuple[Type, bool]]
    grad_was_none: dict[Cell, bool]
    version: int
    arguments: Arguments = field(repr=False)
    labels: list[str] = field(default_factory=list)

    def changes(self) -> list[str]:
        """What has changed since, outside the arguments; empty if the trace still holds."""
        found = [
            f"{one.name}: {_show(before)} → {_show(now)}"
            for one, before in self.watched
            if (now := snapshot(one.look())) != before
        ]
        for cell, (type, required) in self.cells.items():
            name = cell.name or "a tensor"
            if cell.type != type:
                found.append(f"{name}: {type} → {cell.type}")
            if cell.requires_grad != required:
                found.append(f"{name}.requires_grad: {required} → {cell.requires_grad}")
        for cell, none in self.grad_was_none.items():
            if (cell.grad is None) != none:
                name = cell.name or "a tensor"
                found.append(f"{name}.grad: " + ("None → a gradient" if none else "a gradient → None"))
        return found


def _show(part: Any) -> str:
    if isinstance(part, tuple) and len(part) == 2 and isinstance(part[1], str):
        return part[1]
    return "changed" if isinstance(part, tuple) else repr(part)


@dataclass(frozen=True)
class Result:
    """A leaf of the result that is output number `index` of the graph."""

    index: int


#: Held while a function is traced: plain tensors that it captures stand for inputs until it is over.
tracing_lock = lock(threading.RLock(), TRACING)


def trace(function: Callable[..., Any], arguments: Arguments, name: str) -> Traced:
    """Run the function once on nodes. Raises TraceError where it asks for numbers."""
    with tracing_lock:
        return _trace(function, arguments, name)


def _trace(function: Callable[..., Any], arguments: Arguments, name: str) -> Traced:
    watched = watch(function, arguments.leaves)
    before = [(one, snapshot(one.look())) for one in watched]
    captured = captured_tensors(watched)
    tracing = Tracing()
    inputs: list[Node] = []
    origins: list[int | Tensor] = []
    leaves, handles = _given(arguments, inputs, origins)
    for tensor in captured:
        origins.append(tensor)
        inputs.append(Node(INPUT, type=(tensor.node.type,)))
        handles.append((tensor, tensor, inputs[-1]))
    originals = [(tensor, tensor.node) for tensor in captured]
    outer, state.trace = state.trace, tracing
    try:
        for tensor, node in zip(captured, inputs[len(inputs) - len(captured) :]):
            tensor._node = node
        args, keywords = unflatten(arguments.structure, leaves)
        result = function(*args, **keywords)
        outputs: list[Node] = []
        results, structure = flatten(result)
        kept = [_result(leaf, tracing, outputs) for leaf in results]
        rebound = _rebound(handles, outputs)
        writes, checks = tracing.close()
    finally:
        state.trace = outer
        for tensor, node in originals:
            tensor._node = node
    graph = Graph(name, tuple(inputs), tuple(outputs), tracing.reads, writes, checks)
    cells = {cell: (cell.type, cell.requires_grad) for cell, _ in (*tracing.reads, *writes)}
    none = {cell: none for cell, none in tracing.grad_was_none.items() if cell not in tracing.local}
    return Traced(
        graph, origins, structure, kept, rebound, before, cells, none, structure_version(), arguments
    )


Handles = list[tuple[Any, Tensor, Node]]
"""What the caller holds (a leaf's number or a tensor), the handle that the function got, and its input."""


def _given(
    arguments: Arguments, inputs: list[Node], origins: list[int | Tensor]
) -> tuple[list[Any], Handles]:
    """The arguments as the function sees them: tensors and arrays without numbers, everything else as it is."""
    leaves, handles = [], Handles()
    for k, leaf in enumerate(arguments.leaves):
        if not is_input(leaf):
            leaves.append(leaf)
            continue
        if isinstance(leaf, Tensor) and leaf.requires_grad and state.grad_enabled:
            raise GradientError(
                f"a compiled step takes tensors as plain numbers; got {leaf.dtype.name}{leaf.shape} that depends on "
                "tensors with requires_grad=True. Compute it inside the step, or pass x.detach()"
            )
        node = Node(INPUT, type=(Type(tuple(leaf.shape), as_dtype(leaf.dtype)),))
        inputs.append(node)
        origins.append(k)
        leaves.append(wrap(node))
        handles.append((k, leaves[-1], node))
    return leaves, handles


def _result(leaf: Any, tracing: Tracing, outputs: list[Node]) -> Any:
    """A leaf of the result: an output of the graph, or an object that is returned as it is."""
    if not isinstance(leaf, Tensor) or (leaf.cell is not None and leaf.cell not in tracing.local):
        return leaf
    outputs.append(leaf.node)
    return Result(len(outputs) - 1)


def _rebound(handles: Handles, outputs: list[Node]) -> list[tuple[int | Tensor, int]]:
    """Handles that `+=` or `x[i] = v` has pointed at another node: the caller's must follow."""
    found = []
    for owner, handle, node in handles:
        if handle.cell is not None:
            raise TraceError(
                "a compiled step cannot make a leaf of a tensor that it is given; got requires_grad=True on one "
                f"of shape {handle.shape}. Set it outside"
            )
        if handle.node is not node:
            outputs.append(handle.node)
            found.append((owner, len(outputs) - 1))
    return found
