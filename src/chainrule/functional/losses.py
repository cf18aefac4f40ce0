"""Losses of numbers, probabilities and distributions beside targets of the same shape, stable at extremes.

Losses of classes are in `classes`. Each reduces the losses of all elements to one number, or returns them.
"""

from __future__ import annotations

import math
from typing import Any

from ..errors import ArgumentError, ShapeError
from ..ops.shapes import broadcast_shapes
from ..tensor import Tensor, as_tensor, dispatch, wrap
from ..tensor.elementwise import abs, exp, log, logaddexp, maximum, where
from ..tensor.statistical import mean, sum
from .checks import check_choice, check_number, check_range, floats
from .composite import composite
from .linear import absorb

REDUCTIONS = ("mean", "sum", "none")
DIVERGENCE_REDUCTIONS = ("mean", "batchmean", "sum", "none")

# PyTorch's bound of the logarithm of a probability (torch.nn.BCELoss), and the probability that reaches it.
_LOWEST_LOG = -100.0
_SMALLEST_CHANCE = math.exp(_LOWEST_LOG)


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """The losses of all elements as their mean, their sum, or as they are."""
    check_choice("reduction", reduction, REDUCTIONS)
    if reduction == "none" or not losses.ndim:
        return losses
    return mean(losses) if reduction == "mean" else sum(losses)


def cast(x: Tensor, like: Tensor) -> Tensor:
    """`x` in the dtype of `like`; the same handle if it has it already."""
    return x if x.dtype == like.dtype else wrap(dispatch.astype(x.node, like.dtype))


def _pair(name: str, x: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Prediction and target of one shape (a silent broadcast would compare everything with everything)."""
    prediction = floats(x)
    wanted = as_tensor(target, None if isinstance(target, Tensor) else prediction.dtype)
    if prediction.shape != wanted.shape:
        raise ShapeError(
            f"{name} needs input and target of one shape; got {prediction.shape} and {wanted.shape}. "
            f"Reshape the target to {prediction.shape}"
        )
    return prediction, wanted if wanted.dtype.kind == "f" else cast(wanted, prediction)


# ----------------------------------------------------------------------------------------------- numbers


@composite
def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """Squared error (input − target)², averaged over all elements (reduction "mean", "sum" or "none").

    input, target: floats of one shape. Raises ShapeError for two shapes, ArgumentError for another reduction.

    >>> import chainrule as cr
    >>> mse_loss(cr.tensor([1.0, 2.0]), cr.tensor([1.0, 4.0])).item()
    2.0
    """
    prediction, wanted = _pair("mse_loss", input, target)
    return reduced((prediction - wanted) ** 2, reduction)


@composite
def l1_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """Absolute error |input − target|, averaged over all elements (reduction "mean", "sum" or "none").

    input, target: floats of one shape; the slope of a difference of 0 is 0.
    Raises ShapeError for two shapes, ArgumentError for another reduction.

    >>> import chainrule as cr
    >>> l1_loss(cr.tensor([1.0, 2.0]), cr.tensor([1.0, 4.0])).item()
    1.0
    """
    prediction, wanted = _pair("l1_loss", input, target)
    return reduced(abs(prediction - wanted), reduction)


@composite
def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """½·e² where |e| < `delta`, delta·(|e| − ½·delta) beyond, for e = input − target.

    input, target: floats of one shape. Huber, "Robust estimation of a location parameter", 1964.
    Raises ShapeError for two shapes, ArgumentError for another reduction or unless delta > 0.

    >>> import chainrule as cr
    >>> huber_loss(cr.tensor([0.5, 4.0]), cr.tensor([0.0, 0.0]), "none").tolist()
    [0.125, 3.5]
    """
    bend = check_number("huber_loss", "delta", delta, above=0)
    prediction, wanted = _pair("huber_loss", input, target)
    return reduced(_bent(prediction - wanted, bend), reduction)


def _bent(error: Tensor, bend: float) -> Tensor:
    size = abs(error)
    return where(size < bend, error**2 * 0.5, (size - 0.5 * bend) * bend)


@composite
def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """½·e²/`beta` where |e| < beta, |e| − ½·beta beyond, for e = input − target; `l1_loss` for beta = 0.

    input, target: floats of one shape. Girshick, "Fast R-CNN", 2015.
    Raises ShapeError for two shapes, ArgumentError for another reduction or a negative beta.

    >>> import chainrule as cr
    >>> smooth_l1_loss(cr.tensor([0.5, 4.0]), cr.tensor([0.0, 0.0]), "none", beta=2.0).tolist()
    [0.0625, 3.0]
    """
    bend = check_number("smooth_l1_loss", "beta", beta, least=0)
    prediction, wanted = _pair("smooth_l1_loss", input, target)
    error = prediction - wanted
    return reduced(abs(error) if bend == 0 else _bent(error, bend) / bend, reduction)


# ------------------------------------------------------------------------------------------ yes or no


def _yes_or_no(name: str, x: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Prediction and target, the target from 0 to 1."""
    prediction, wanted = _pair(name, x, target)
    message = (
        f"{name} needs targets from 0 to 1; got {{low:.6g}} to {{high:.6g}}. For labels −1 and 1 use (y + 1) / 2, "
        "for several classes cross_entropy"
    )
    check_range(wanted.node, 0, 1, message)
    return prediction, wanted


def _weighted(name: str, losses: Tensor, weight: Any) -> Tensor:
    """The losses times a weight that broadcasts to them."""
    if weight is None:
        return losses
    factor = cast(check_weight(name, weight), losses)
    try:
        fits = broadcast_shapes(name, factor.shape, losses.shape) == losses.shape
    except ShapeError:
        fits = False
    if not fits:
        raise ShapeError(
            f"{name} needs a weight that broadcasts to the target's shape, {losses.shape}; got {factor.shape}. "
            "Give one weight for each element, or shape it with weight[:, None]"
        )
    return absorb(losses, factor)


def check_weight(name: str, weight: Any, argument: str = "weight") -> Tensor:
    """Weights as a tensor of numbers."""
    if isinstance(weight, str | bool):
        meant = weight if isinstance(weight, str) else "sum"
        raise ArgumentError(
            f"{name} needs a tensor of numbers as {argument}; got {weight!r}. Write reduction={meant!r} by its name"
        )
    return as_tensor(weight)


@composite
def binary_cross_entropy(input: Any, target: Any, weight: Any = None, *, reduction: str = "mean") -> Tensor:
    """−y·log p − (1 − y)·log(1 − p) of probabilities `input` and targets from 0 to 1, of one shape.

    A certain and wrong probability costs 100, as in PyTorch: the logarithms are cut at −100. There the loss is flat, so
    its slope is 0. weight: factors of the losses that broadcast to their shape; the mean is over all elements.
    Raises ShapeError for two shapes, ArgumentError for probabilities or targets outside 0 to 1.

    >>> import chainrule as cr
    >>> round(binary_cross_entropy(cr.tensor(0.5), cr.tensor(1.0)).item(), 4)
    0.6931
    >>> binary_cross_entropy(cr.tensor([0.0]), cr.tensor([1.0])).item()
    100.0
    """
    p, y = _yes_or_no("binary_cross_entropy", input, target)
    message = (
        "binary_cross_entropy needs probabilities from 0 to 1; got {low:.6g} to {high:.6g}. Apply sigmoid, "
        "or use binary_cross_entropy_with_logits"
    )
    check_range(p.node, 0, 1, message)
    yes, no = log(p), log(1 - p)
    if _may_be_certain(p):
        yes, no = maximum(yes, _LOWEST_LOG), maximum(no, _LOWEST_LOG)
    losses = -(absorb(yes, y) + absorb(no, 1 - y))
    return reduced(_weighted("binary_cross_entropy", losses, weight), reduction)


def _may_be_certain(p: Tensor) -> bool:
    """Whether a logarithm may have to be cut: where the values are known, the graph shows it only if it is."""
    values = p.node.value
    return values is None or bool(((values < _SMALLEST_CHANCE) | (values == 1)).any())


@composite
def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """`binary_cross_entropy` of sigmoid(input), computed from the logits so that nothing overflows or is cut.

    input: any shape, floats. target: of that shape, from 0 to 1. weight: factors of the losses that broadcast to their
    shape. pos_weight: from 0; factors of the positive part, y·log p, one for each class on the last axis (or any shape
    that broadcasts): more than 1 finds more of the positive ones. The mean is over all elements.
    Raises ShapeError for shapes that do not fit, ArgumentError for targets outside 0 to 1 or a negative pos_weight.

    >>> import chainrule as cr
    >>> binary_cross_entropy_with_logits(cr.tensor(1000.0), cr.tensor(1.0)).item()
    0.0
    >>> round(binary_cross_entropy_with_logits(cr.tensor([0.0]), cr.tensor([1.0]), pos_weight=[3.0]).item(), 4)
    2.0794
    """
    name = "binary_cross_entropy_with_logits"
    z, y = _yes_or_no(name, input, target)
    positive = y
    if pos_weight is not None:
        message = (
            f"{name} needs a pos_weight from 0; got {{low:.6g}}. Use more than 1 to find more positive ones"
        )
        factor = check_weight(name, pos_weight, "pos_weight")
        check_range(factor.node, 0, math.inf, message)
        positive = _weighted(name, y, factor)
    # log p = −log(1 + e⁻ᶻ) and log(1 − p) = −log(1 + eᶻ): each has all its digits, at ±∞ too.
    losses = absorb(logaddexp(-z, 0.0), positive) + absorb(logaddexp(z, 0.0), 1 - y)
    return reduced(_weighted(name, losses, weight), reduction)


# --------------------------------------------------------------------------------------- distributions


@composite
def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target·(log target − input), the divergence of Kullback and Leibler: how far `input` is from `target`.

    input: log-probabilities. target: probabilities of the same shape, or their logarithms with `log_target`. A target
    of 0 costs nothing, even where the input is −∞. reduction: "batchmean" divides the sum by the size of the first
    axis, which is the divergence itself; "mean" divides by the number of elements; or "sum", "none".
    Raises ShapeError for two shapes, ArgumentError for a negative target.

    >>> import chainrule as cr
    >>> guess, truth = cr.tensor([[0.5, 0.5]]), cr.tensor([[1.0, 0.0]])
    >>> round(kl_div(cr.log(guess), truth, reduction="batchmean").item(), 4)
    0.6931
    """
    check_choice("reduction", reduction, DIVERGENCE_REDUCTIONS)
    guess, wanted = _pair("kl_div", input, target)
    if log_target:
        losses = absorb(exp(wanted), wanted - guess)
    else:
        message = (
            "kl_div needs probabilities from 0 as target; got {low:.6g}. For logarithms use log_target=True"
        )
        check_range(wanted.node, 0, math.inf, message)
        losses = absorb(wanted, log(wanted) - guess)
    if reduction == "batchmean":
        return sum(losses) / losses.shape[0] if losses.ndim else losses
    return reduced(losses, reduction)
