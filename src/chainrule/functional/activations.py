"""Activations: what stands between the layers, each stable at its extremes, and the softmax family.

Where a value or a slope has a limit at ±∞, the limit is the result; NaN stays NaN. At kinks the slopes are PyTorch's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError
from ..graph import constant
from ..ops.shapes import reduced
from ..tensor import Tensor, dispatch, wrap
from ..tensor.elementwise import erf, exp, expm1, log, logaddexp, sigmoid, tanh, where
from ..tensor.elementwise import relu as rectified
from ..tensor.manipulation import reshaped
from ..tensor.statistical import max, sum
from .checks import check_choice, check_number, floats
from .composite import Axes, axes_of, composite
from .linear import absorb

# ------------------------------------------------------------------------------------- bent at a point


@composite
def leaky_relu(x: Any, negative_slope: float = 0.01) -> Tensor:
    """x above 0, `negative_slope`·x elsewhere; the slope at 0 is `negative_slope`.

    x: any shape, floats (bools and integers are taken as float32); the result has the same shape. Maas, Hannun and
    Ng, "Rectifier nonlinearities improve neural network acoustic models", 2013.

    >>> import chainrule as cr
    >>> leaky_relu(cr.tensor([-2.0, 3.0]), 0.5)
    tensor([-1.,  3.])
    """
    slope = check_number("leaky_relu", "negative_slope", negative_slope)
    source = floats(x)
    if slope == 0:  # 0 · −∞ would be NaN
        return rectified(source)
    return where(source > 0, source, source * slope)


@composite
def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """x between `min_val` and `max_val`, cut off beyond; the slope at and beyond both bounds is 0.

    x: any shape, floats. Raises ArgumentError unless min_val <= max_val.

    >>> import chainrule as cr
    >>> hardtanh(cr.tensor([-2.0, 0.5, 3.0]))
    tensor([-1. ,  0.5,  1. ])
    """
    check_bounds("hardtanh", min_val, max_val, strict=False)
    return _cut(floats(x), min_val, max_val)


def check_bounds(name: str, low: float, high: float, strict: bool = True) -> None:
    """Two numbers in order. strict: whether they must differ, as PyTorch's layer wants it and its function does not."""
    low, high = check_number(name, "min_val", low), check_number(name, "max_val", high)
    if not (low < high or (low == high and not strict)):
        rule = "below" if strict else "not above"
        raise ArgumentError(f"{name} needs min_val {rule} max_val; got {low:g} and {high:g}. Exchange them")


def _cut(x: Tensor, low: float, high: float) -> Tensor:
    """x between two bounds; not `clip`, which shares the slope at a bound."""
    return where(x <= low, low, where(x >= high, high, x))


@composite
def relu6(x: Any) -> Tensor:
    """x from 0 to 6, cut off beyond; the slope at 0 and at 6 is 0.

    x: any shape, floats. Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010.

    >>> import chainrule as cr
    >>> relu6(cr.tensor([-1.0, 2.0, 9.0]))
    tensor([0., 2., 6.])
    """
    return _cut(floats(x), 0.0, 6.0)


@composite
def hardsigmoid(x: Any) -> Tensor:
    """(x + 3) / 6 from −3 to 3, 0 below and 1 above: a sigmoid of straight pieces.

    x: any shape, floats. Courbariaux, Bengio and David, "BinaryConnect", 2015, in the form of MobileNetV3.

    >>> import chainrule as cr
    >>> hardsigmoid(cr.tensor([-4.0, 0.0, 4.0]))
    tensor([0. , 0.5, 1. ])
    """
    return _hard_gate(floats(x))


def _hard_gate(x: Tensor) -> Tensor:
    return where(x <= -3, 0.0, where(x >= 3, 1.0, (x + 3) / 6))


@composite
def hardswish(x: Any) -> Tensor:
    """x·hardsigmoid(x): `silu` of straight pieces.

    x: any shape, floats. Howard et al., "Searching for MobileNetV3", 2019.

    >>> import chainrule as cr
    >>> hardswish(cr.tensor([-4.0, 0.0, 4.0]))
    tensor([-0.,  0.,  4.])
    """
    source = floats(x)
    return absorb(source, _hard_gate(source))


# ------------------------------------------------------------------------------------ bent by eˣ below 0


def _saturating(x: Tensor, alpha: float, rate: float) -> Tensor:
    """x above 0, alpha·(e^(x/rate) − 1) elsewhere; nothing positive reaches the power, so nothing overflows."""
    cold = where(x > 0, 0.0, x)
    return where(x > 0, x, expm1(cold if rate == 1 else cold / rate) * alpha)


@composite
def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """x above 0, `alpha`·(eˣ − 1) elsewhere.

    x: any shape, floats. Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning by
    exponential linear units", 2015.

    >>> import chainrule as cr
    >>> elu(cr.tensor([-1e4, 0.0, 2.0]))
    tensor([-1.,  0.,  2.])
    """
    return _saturating(floats(x), check_number("elu", "alpha", alpha), 1.0)


@composite
def celu(x: Any, alpha: float = 1.0) -> Tensor:
    """x above 0, `alpha`·(e^(x/alpha) − 1) elsewhere: an `elu` whose slope is continuous for every alpha.

    x: any shape, floats. Barron, "Continuously differentiable exponential linear units", 2017.
    Raises ArgumentError unless alpha > 0.

    >>> import chainrule as cr
    >>> celu(cr.tensor([-1e4, 2.0]), alpha=3.0)
    tensor([-3.,  2.])
    """
    rate = check_number("celu", "alpha", alpha, above=0)
    return _saturating(floats(x), rate, rate)


# Klambauer, Unterthiner, Mayr and Hochreiter, "Self-normalizing neural networks", 2017, equation 14.
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


@composite
def selu(x: Any) -> Tensor:
    """λ·elu(x, α) with the λ and α that keep mean 0 and variance 1 from layer to layer.

    x: any shape, floats. λ = 1.0507…, α = 1.6733…: Klambauer et al., "Self-normalizing neural networks", 2017.

    >>> import chainrule as cr
    >>> selu(cr.tensor([-1e4, 1.0]))
    tensor([-1.7580993,  1.050701 ])
    """
    return _saturating(floats(x), _SELU_ALPHA, 1.0) * _SELU_SCALE


# --------------------------------------------------------------------------------- x times a smooth gate


@composite
def silu(x: Any) -> Tensor:
    """x·sigmoid(x), also called swish.

    x: any shape, floats. Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units", 2017.

    >>> import chainrule as cr
    >>> silu(cr.tensor([float("-inf"), 0.0, 1e4])).tolist()
    [0.0, 0.0, 10000.0]
    """
    source = floats(x)
    return absorb(source, sigmoid(source))


@composite
def mish(x: Any) -> Tensor:
    """x·tanh(log(1 + eˣ)).

    x: any shape, floats. Misra, "Mish: a self regularized non-monotonic activation function", 2019.

    >>> import chainrule as cr
    >>> round(mish(1.0).item(), 4)
    0.8651
    """
    source = floats(x)
    return absorb(source, tanh(logaddexp(source, 0.0)))


APPROXIMATIONS = ("none", "tanh")


@composite
def gelu(x: Any, approximate: str = "none") -> Tensor:
    """x·Φ(x), where Φ is the share of a normal distribution below x.

    x: any shape, floats. approximate: "none" for Φ by the error function, or "tanh" for
    ½·(1 + tanh(√(2/π)·(x + 0.044715·x³))). Hendrycks and Gimpel, "Gaussian error linear units", 2016.
    Raises ArgumentError for another word.

    >>> import chainrule as cr
    >>> round(gelu(1.0).item(), 4), round(gelu(1.0, approximate="tanh").item(), 4)
    (0.8413, 0.8412)
    """
    check_choice("approximate", approximate, APPROXIMATIONS)
    source = floats(x)
    if approximate == "none":
        return absorb(source, (1 + erf(source * math.sqrt(0.5))) * 0.5)
    inner = source * (source * source * 0.044715 + 1) * math.sqrt(2 / math.pi)
    return absorb(source, (1 + tanh(inner)) * 0.5)


# ------------------------------------------------------------------------------------------- logarithms


@composite
def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + e^(beta·x)) / beta, without overflow; x itself where beta·x > `threshold`, as in PyTorch.

    x: any shape, floats. threshold=float("inf") computes the formula everywhere, which is as safe here.
    Raises ArgumentError for beta = 0.

    >>> round(softplus(0.0).item(), 4), softplus(1e4).item()
    (0.6931, 10000.0)
    """
    steepness = check_beta(beta)
    limit = check_number("softplus", "threshold", threshold)
    source = floats(x)
    scaled = source if steepness == 1 else source * steepness
    smooth = logaddexp(scaled, 0.0)
    if steepness != 1:
        smooth = smooth / steepness
    return smooth if limit == math.inf else where(scaled > limit, source, smooth)


def check_beta(beta: float) -> float:
    """The steepness of a softplus."""
    steepness = check_number("softplus", "beta", beta)
    if steepness == 0 or not math.isfinite(steepness):
        raise ArgumentError(f"softplus needs a beta other than 0; got {beta!r}. Use 1 for log(1 + eˣ)")
    return steepness


@composite
def logsigmoid(x: Any) -> Tensor:
    """log(sigmoid(x)), without overflow.

    x: any shape, floats.

    >>> import chainrule as cr
    >>> logsigmoid(cr.tensor([-1e4, 0.0]))
    tensor([-1.000000e+04, -6.931472e-01])
    """
    return -logaddexp(-floats(x), 0.0)


@composite
def logsumexp(x: Any, axis: Axes = None, keepdims: bool = False, *, dim: Axes = None) -> Tensor:
    """log Σ eˣ along `axis` (one or several, the last by default), shifted so that nothing overflows.

    >>> import chainrule as cr
    >>> round(logsumexp(cr.tensor([0.0, 0.0])).item(), 4)
    0.6931
    """
    source = floats(x)
    along = axes_of("logsumexp", axis, dim, source)
    shift = _finite(_largest(source, along))
    total = log(sum(exp(source - shift), axis=along, keepdims=True)) + shift
    return total if keepdims else reshaped(total, reduced(source.shape, along, False))


# --------------------------------------------------------------------------------------- the softmax family


def _largest(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The largest entry, as a constant: a shift by it cancels in every derivative."""
    if not all(x.shape[axis] for axis in axes):
        return wrap(constant(np.zeros(reduced(x.shape, axes, True), x.dtype)))
    return max(x.detach(), axis=axes, keepdims=True)


def _finite(x: Tensor) -> Tensor:
    """x, and 0 where it is infinite: ∞ − ∞ would be NaN."""
    finite = wrap(ops.isfinite.node((x.node,), {}))
    return wrap(dispatch.broadcast_node(ops.where, (finite.node, x.node, constant(0, x.dtype))))


def shares(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The formula of softmax, without a scope of its own."""
    powers = exp(x - _largest(x, axes))
    return powers / sum(powers, axis=axes, keepdims=True)


def shares_of_some(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """`shares`, but 0 with slope 0 where all that could have a share is −∞, which would be 0 / 0."""
    powers = exp(x - _finite(_largest(x, axes)))
    total = sum(powers, axis=axes, keepdims=True)
    return powers / where(total == 0, 1.0, total)


@composite
def softmax(x: Any, axis: Axes = None, *, dim: Axes = None) -> Tensor:
    """eˣ / Σ eˣ along `axis` (one or several, the last by default): shares that add up to 1.

    x: at least one axis, floats; the result has the same shape. −∞ has the share 0.
    Raises ShapeError for an axis that is not there.

    >>> import chainrule as cr
    >>> softmax(cr.tensor([0.0, 0.0]))
    tensor([0.5, 0.5])
    """
    source = floats(x)
    return shares(source, axes_of("softmax", axis, dim, source))


@composite
def softmin(x: Any, axis: Axes = None, *, dim: Axes = None) -> Tensor:
    """e⁻ˣ / Σ e⁻ˣ along `axis` (one or several, the last by default): the smallest entry gets the largest share.

    x: at least one axis, floats. Raises ShapeError for an axis that is not there.

    >>> import chainrule as cr
    >>> softmin(cr.tensor([0.0, 1e4]))
    tensor([1., 0.])
    """
    source = floats(x)
    return shares(-source, axes_of("softmin", axis, dim, source))


@composite
def log_softmax(x: Any, axis: Axes = None, *, dim: Axes = None) -> Tensor:
    """log of `softmax` (along one axis or several), computed as x − log Σ eˣ without overflow.

    x: at least one axis, floats. Raises ShapeError for an axis that is not there.

    >>> import chainrule as cr
    >>> round(log_softmax(cr.tensor([0.0, 0.0]))[0].item(), 4)
    -0.6931
    """
    source = floats(x)
    along = axes_of("log_softmax", axis, dim, source)
    shifted = source - _largest(source, along)
    return shifted - log(sum(exp(shifted), axis=along, keepdims=True))
