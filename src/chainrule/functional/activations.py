"""Activations: what stands between the layers, and the softmax family, shifted so that nothing overflows."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..graph import constant
from ..ops.shapes import reduced
from ..tensor import Tensor, as_tensor, dispatch, wrap
from ..tensor.elementwise import exp, log, logaddexp
from ..tensor.manipulation import reshaped
from ..tensor.statistical import max, sum
from .composite import axis_of, composite, without_axis


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
    along = axis_of("logsumexp", axis, dim, source)
    shift = _finite(_largest(source, along))
    total = log(sum(exp(source - shift), axis=along, keepdims=True)) + shift
    return total if keepdims else reshaped(total, without_axis(source.shape, along))


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
    along = axis_of("softmax", axis, dim, source)
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
    along = axis_of("log_softmax", axis, dim, source)
    shifted = source - _largest(source, along)
    return shifted - log(sum(exp(shifted), axis=along, keepdims=True))
