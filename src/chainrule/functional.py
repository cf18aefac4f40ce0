"""Composite functions: ordinary Python over the primitives, each call in a scope of its own.

The scope is what the explainer folds. Names and defaults are PyTorch's; `dim=` is accepted beside `axis=`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

import numpy as np

from . import ops
from .dtypes import DEFAULT_FLOAT
from .errors import ArgumentError, BoundsError, DtypeError, ShapeError
from .graph import Node, constant, scope, state
from .ops.shapes import check_axis, reduced
from .tensor import Tensor, as_tensor, dispatch, wrap
from .tensor.core import as_operand
from .tensor.elementwise import exp, log, logaddexp, relu, sigmoid, tanh
from .tensor.manipulation import expand_dims, matrix_transpose, moved, reshaped
from .tensor.products import matmul
from .tensor.statistical import max, mean, sum

P = ParamSpec("P")

__all__ = [
    "absorb", "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "linear",
    "log_softmax", "logsumexp", "mse_loss", "relu", "sigmoid", "softmax", "softplus", "tanh",
]  # fmt: skip


def composite(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Every call of the function opens a scope with its name."""
    name = function.__name__

    @functools.wraps(function)
    def scoped(*arguments: P.args, **keywords: P.kwargs) -> Tensor:
        with scope(name, "function"):
            if state.quiet:
                return function(*arguments, **keywords)
            with ops.quiet():
                return function(*arguments, **keywords)

    return scoped


def _axis(name: str, axis: int | None, dim: int | None, x: Tensor) -> int:
    """The axis counted from the front; the last one if neither `axis` nor `dim` is given."""
    if axis is not None and dim is not None:
        raise ArgumentError(f"axis and dim mean the same; got axis={axis} and dim={dim}. Give one")
    return check_axis(name, axis if axis is not None else dim if dim is not None else -1, x)


def absorb(x: Any, y: Any) -> Tensor:
    """x·y, and 0 wherever either is 0, even against infinity and NaN; shapes broadcast.

    >>> absorb(0.0, float("inf")).item()
    0.0
    """
    operands = [as_operand(x), as_operand(y)]
    dtype = dispatch.common_dtype("absorb", operands)
    nodes = [
        dispatch.astype(one, dtype) if isinstance(one, Node) else dispatch.number(one, dtype)
        for one in operands
    ]
    return wrap(dispatch.broadcast_node(ops.absorb, tuple(nodes)))


@composite
def linear(x: Any, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x·weightᵀ + bias: `x` (…, in), `weight` (out, in), `bias` (out,) → (…, out).

    >>> import chainrule as cr
    >>> linear(cr.ones((2, 3)), cr.ones((4, 3))).shape
    (2, 4)
    """
    source = as_tensor(x)
    if not source.ndim or source.shape[-1] != weight.shape[-1]:
        raise ShapeError(
            f"linear needs {weight.shape[-1]} features on the last axis; got {source.shape} for weight "
            f"{weight.shape}. The weight is (out, in): did you mean to transpose one of them?"
        )
    if source.dtype != weight.dtype:
        raise DtypeError(
            f"linear needs input and weight of one dtype; got {source.dtype.name} and {weight.dtype.name}. "
            f"Use x.astype({weight.dtype.name!r})"
        )
    result = matmul(source, matrix_transpose(weight))
    return result if bias is None else result + bias


@composite
def softplus(x: Any) -> Tensor:
    """log(1 + eˣ), without overflow.

    >>> round(softplus(0.0).item(), 4)
    0.6931
    """
    return logaddexp(as_tensor(x), 0.0)


@composite
def logsumexp(x: Any, axis: int | None = None, keepdims: bool = False, *, dim: int | None = None) -> Tensor:
    """log Σ eˣ along `axis` (the last by default), shifted by the largest entry so that nothing overflows.

    >>> import chainrule as cr
    >>> round(logsumexp(cr.tensor([0.0, 0.0])).item(), 4)
    0.6931
    """
    source = as_tensor(x)
    along = _axis("logsumexp", axis, dim, source)
    shift = _finite(_largest(source, along))
    total = log(sum(exp(source - shift), axis=along, keepdims=True)) + shift
    return total if keepdims else reshaped(total, _without(source.shape, along))


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    k = axis % len(shape)
    return shape[:k] + shape[k + 1 :]


def _largest(x: Tensor, axis: int) -> Tensor:
    """The largest entry, as a constant: a shift by it cancels in every derivative."""
    if not x.shape[axis]:
        return wrap(constant(np.zeros(reduced(x.shape, (axis,), True), x.dtype)))
    return max(x.detach(), axis=axis, keepdims=True)


def _finite(x: Tensor) -> Tensor:
    """x, and 0 where it is infinite: ∞ − ∞ would be NaN."""
    finite = wrap(ops.isfinite.node((x.node,), {}))
    return wrap(dispatch.broadcast_node(ops.where, (finite.node, x.node, constant(0, x.dtype))))


@composite
def softmax(x: Any, axis: int | None = None, *, dim: int | None = None) -> Tensor:
    """eˣ / Σ eˣ along `axis` (the last by default): shares that add up to 1.

    >>> import chainrule as cr
    >>> softmax(cr.tensor([0.0, 0.0]))
    tensor([0.5, 0.5])
    """
    source = as_tensor(x)
    along = _axis("softmax", axis, dim, source)
    powers = exp(source - _largest(source, along))
    return powers / sum(powers, axis=along, keepdims=True)


@composite
def log_softmax(x: Any, axis: int | None = None, *, dim: int | None = None) -> Tensor:
    """log of `softmax`, computed as x − log Σ eˣ without overflow.

    >>> import chainrule as cr
    >>> round(log_softmax(cr.tensor([0.0, 0.0]))[0].item(), 4)
    -0.6931
    """
    source = as_tensor(x)
    along = _axis("log_softmax", axis, dim, source)
    shifted = source - _largest(source, along)
    return shifted - log(sum(exp(shifted), axis=along, keepdims=True))


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return mean(losses) if losses.ndim else losses
    if reduction == "sum":
        return sum(losses) if losses.ndim else losses
    if reduction == "none":
        return losses
    raise ArgumentError(f"reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")


def _pair(name: str, x: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Prediction and target of one shape (a silent broadcast would compare everything with everything)."""
    prediction = as_tensor(x)
    if prediction.dtype.kind != "f":
        prediction = wrap(dispatch.astype(prediction.node, DEFAULT_FLOAT))
    wanted = as_tensor(target, None if isinstance(target, Tensor) else prediction.dtype)
    if prediction.shape != wanted.shape:
        raise ShapeError(
            f"{name} needs input and target of one shape; got {prediction.shape} and {wanted.shape}. "
            f"Reshape the target to {prediction.shape}"
        )
    return prediction, wanted


@composite
def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """Squared error (input − target)², averaged over all elements (reduction "mean", "sum" or "none").

    >>> import chainrule as cr
    >>> mse_loss(cr.tensor([1.0, 2.0]), cr.tensor([1.0, 4.0])).item()
    2.0
    """
    prediction, wanted = _pair("mse_loss", input, target)
    return _reduced((prediction - wanted) ** 2, reduction)


@composite
def binary_cross_entropy(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """−y·log p − (1 − y)·log(1 − p) of probabilities `input` and targets from 0 to 1, of one shape.

    A certain and wrong probability costs infinity (PyTorch cuts at 100).

    >>> import chainrule as cr
    >>> round(binary_cross_entropy(cr.tensor(0.5), cr.tensor(1.0)).item(), 4)
    0.6931
    """
    p, y = _pair("binary_cross_entropy", input, target)
    if p.node.value is None and state.trace is not None:
        outside = ops.bitwise_or(p.node < 0, p.node > 1)  # a NaN is on neither side: it is reported as itself
        state.trace.check(
            ops.bitwise_invert(outside),
            "binary_cross_entropy needs probabilities from 0 to 1; got {low:.6g} to {high:.6g}. Apply sigmoid, "
            "or use binary_cross_entropy_with_logits",
            ArgumentError,
            p.node,
        )
    if p.node.value is not None and ((p.node.value < 0) | (p.node.value > 1)).any():
        raise ArgumentError(
            f"binary_cross_entropy needs probabilities from 0 to 1; got {p.node.value.min():.6g} to "
            f"{p.node.value.max():.6g}. Apply sigmoid, or use binary_cross_entropy_with_logits"
        )
    return _reduced(-(absorb(log(p), y) + absorb(log(1 - p), 1 - y)), reduction)


@composite
def binary_cross_entropy_with_logits(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """`binary_cross_entropy` of sigmoid(input), computed from the logits so that nothing overflows.

    >>> import chainrule as cr
    >>> binary_cross_entropy_with_logits(cr.tensor(1000.0), cr.tensor(1.0)).item()
    0.0
    """
    z, y = _pair("binary_cross_entropy_with_logits", input, target)
    return _reduced(logaddexp(z, 0.0) - z * y, reduction)


@composite
def cross_entropy(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """−log softmax(input) of the right class: `input` logits (N, C), (C,) or (N, C, …); `target` classes.

    target: class indices, of input's shape without the axis C; or probabilities, of input's shape.
    The gradient of the logits is softmax − one-hot (divided by N for "mean").
    Raises BoundsError for a class outside 0 … C − 1, DtypeError for targets of another kind.

    >>> import chainrule as cr
    >>> round(cross_entropy(cr.tensor([[0.0, 0.0]]), cr.tensor([1])).item(), 4)
    0.6931
    """
    logits, wanted = as_tensor(input), as_tensor(target)
    if not logits.ndim:
        raise ShapeError("cross_entropy needs an axis of classes; got logits of shape ()")
    axis = 0 if logits.ndim == 1 else 1
    if wanted.dtype.kind == "f" and wanted.shape == logits.shape:
        # A class of probability 0 costs nothing, even where its logit is −∞.
        per_item = -sum(absorb(wanted, log_softmax(logits, axis)), axis=axis)
        return _reduced(per_item, reduction)
    expected = _without(logits.shape, axis)
    if wanted.dtype.kind not in "iu":
        raise DtypeError(
            f"cross_entropy needs class indices (integers of shape {expected}) or probabilities (floats of shape "
            f"{logits.shape}); got {wanted.dtype.name} {wanted.shape}. Use astype(int64)"
        )
    if wanted.shape != expected:
        raise ShapeError(
            f"cross_entropy needs one class for each item, shape {expected} for logits {logits.shape}; "
            f"got {wanted.shape}"
        )
    _check_classes(wanted, logits.shape[axis])
    scores = moved(log_softmax(logits, axis), axis, -1)
    picked = wrap(ops.take_along.node((scores.node, expand_dims(wanted, axis=-1).node), {}))
    if reduction == "none":
        picked = reshaped(picked, expected)
    return _reduced(-picked, reduction)


def _check_classes(target: Tensor, classes: int) -> None:
    value = target.node.value
    if value is None and state.trace is not None:
        labels = target.node
        below = ops.less_equal.on_nodes((labels, min(classes - 1, np.iinfo(labels.dtype).max)), {})
        state.trace.check(
            ops.bitwise_and(ops.greater_equal.on_nodes((labels, 0), {}), below),
            f"cross_entropy needs classes from 0 to {classes - 1}; got {{low}} to {{high}}. "
            "Check the labels, or the size of the last layer",
            BoundsError,
            labels,
        )
    if value is not None and value.size and not 0 <= value.min() <= value.max() < classes:
        raise BoundsError(
            f"cross_entropy needs classes from 0 to {classes - 1}; got {value.min()} to {value.max()}. "
            "Check the labels, or the size of the last layer"
        )
