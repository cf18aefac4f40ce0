"""`backward`: where the walk starts, and where its gradients arrive: in cells and in tensors still held.

Knows handles and cells; knows nothing of derivative rules, optimizers or compilation.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..autodiff import gradients
from ..errors import ArgumentError, GradientError, GraphRetainedWarning, ShapeError, at
from ..graph import Cell, Node, constant, state
from ..operations import CONSTANT, WITHOUT_GRAPH
from . import dispatch
from .core import Tensor, as_tensor, wrap

# Graphs from one line that may be alive at the same time before the line is named in a warning.
RETAINED_GRAPHS_LIMIT = 1000


def backward(
    tensor: Tensor, gradient: Any, create_graph: bool, inputs: Tensor | Sequence[Tensor] | None
) -> None:
    """Walk back from `tensor` and add to `.grad` of everything that it depends on (or of `inputs` only)."""
    node = tensor.node
    if node.attributes is WITHOUT_GRAPH:
        raise GradientError(
            f"backward() needs a graph, and the result of a compiled function has none; got "
            f"{node.dtype.name}{node.shape} that was computed from one. Call backward() inside the compiled function"
        )
    if not node.requires_grad:
        raise GradientError(
            f"backward() needs a tensor that depends on one with requires_grad=True; got "
            f"{node.dtype.name}{node.shape} without. Were the inputs detached, or was this under no_grad?"
        )
    as_nodes = create_graph or state.trace is not None
    if state.trace is not None:
        state.trace.differentiated(node)
    seed = _seed(tensor, node, gradient)
    only = None if inputs is None else _nodes(inputs)

    def deposit(reached: Node, g: Any) -> None:
        held = reached.cell is not None or reached.holder is not None
        if held and (only is None or reached in only):
            _deposit(reached, g, as_nodes)

    recording, state.grad_enabled = state.grad_enabled, create_graph
    try:
        begin = [seed if as_nodes else seed.value]
        gradients([node], begin, as_nodes=as_nodes, visit=deposit, whole=only is None)
    finally:
        state.grad_enabled = recording
    if state.trace is None:
        _watch(node)


def _nodes(inputs: Tensor | Sequence[Tensor]) -> set[Node]:
    found = set()
    for one in [inputs] if isinstance(inputs, Tensor) else inputs:
        if not isinstance(one, Tensor) or not one.requires_grad:
            shown = f"{one.dtype.name}{one.shape}" if isinstance(one, Tensor) else repr(one)
            raise GradientError(f"backward(inputs=) needs tensors that require grad; got {shown}")
        found.add(one.node)
    return found


def _seed(tensor: Tensor, node: Node, gradient: Any) -> Node:
    if gradient is None:
        if tensor.size != 1:
            raise GradientError(
                f"backward() needs one number to start from; got shape {tensor.shape}. Use .sum() or "
                ".mean(), or pass gradient= of that shape"
            )
        return constant(np.ones(node.shape, node.dtype))
    given = as_tensor(gradient)
    if given.shape != node.shape:
        raise ShapeError(
            f"backward() needs a gradient of the tensor's shape; got gradient {given.shape} for a tensor of "
            f"shape {node.shape}. Reshape or broadcast it first"
        )
    if given.dtype.kind == "b":
        raise ArgumentError("backward() needs a gradient of numbers; got bools. Use astype")
    return dispatch.astype(given.node, node.dtype)


# ------------------------------------------------------------------------------- gradients arrive here


def _deposit(node: Node, g: Any, as_nodes: bool) -> None:
    """Add a cotangent to the `.grad` of the leaf or of the held tensor that the node belongs to."""
    if node.cell is not None:
        if node.cell.requires_grad:
            _deposit_in_cell(node.cell, g, as_nodes)
    elif node.holder is not None:
        handle = node.holder()
        if handle is not None:
            arrived = handle_on(g) if as_nodes else wrap(Node(CONSTANT, value=np.asarray(g)))
            handle._grad = arrived if handle._grad is None else handle._grad + arrived


def handle_on(g: Node) -> Tensor:
    """A handle on a cotangent; one that somebody holds (a given seed, another's gradient) keeps its own."""
    held = g.holder is not None and g.holder() is not None
    return wrap(ops.positive.node((g,), {}) if held or g.cell is not None else g)


def _deposit_in_cell(cell: Cell, g: Any, as_nodes: bool) -> None:
    if state.trace is not None:
        present = state.trace.read_grad(cell)
        state.trace.write_grad(cell, g if present is None else ops.add(present, g))
        return
    if not as_nodes:
        value = g if cell.grad is None else cell.grad._array() + g
        cell.grad = wrap(Node(CONSTANT, value=np.asarray(value)))
        return
    arrived = handle_on(g)
    cell.grad = arrived if cell.grad is None else cell.grad + arrived


def clear_grad(tensor: Tensor, set_to_none: bool) -> None:
    """Forget a gradient, or make it zeros where there is one."""
    if set_to_none:
        tensor.grad = None
    elif tensor.grad is not None:
        tensor.grad = wrap(constant(np.zeros(tensor.shape, tensor.dtype)))


_retained: dict[tuple[int, int], weakref.WeakSet[Node]] = {}


def _watch(root: Node) -> None:
    """Warn once per line when many graphs that started there are kept alive."""
    if root.origin is None:
        return
    alive = _retained.setdefault((id(root.origin.code), root.origin.lasti), weakref.WeakSet())
    alive.add(root)
    if len(alive) == RETAINED_GRAPHS_LIMIT:
        warnings.warn_explicit(
            f"{RETAINED_GRAPHS_LIMIT} results of this line are still held together with the graphs that made "
            f"them, so memory grows{at(root.origin)}. Keep loss.item() or loss.detach() instead",
            GraphRetainedWarning,
            root.origin.file,
            root.origin.line,
        )
