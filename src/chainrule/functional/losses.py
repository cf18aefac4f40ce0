"""Losses: how far outputs are from targets, as one number (or one for each item), stable at extremes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..dtypes import DEFAULT_FLOAT
from ..errors import ArgumentError, BoundsError, DtypeError, ShapeError
from ..graph import state
from ..tensor import Tensor, as_tensor, dispatch, wrap
from ..tensor.elementwise import log, logaddexp
from ..tensor.manipulation import expand_dims, moved, reshaped
from ..tensor.statistical import mean, sum
from .activations import log_softmax
from .composite import composite, without_axis
from .linear import absorb


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
    expected = without_axis(logits.shape, axis)
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
