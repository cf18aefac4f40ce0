"""Normalization: batch and layer norm. The variance is the mean of squared distances, so nothing cancels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import ArgumentError, DtypeError, ShapeError
from ..tensor import Tensor, as_tensor
from ..tensor.elementwise import sqrt
from ..tensor.manipulation import reshaped
from ..tensor.statistical import mean
from .checks import check_number
from .composite import composite


@composite
def batch_norm(
    x: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x − mean) / √(variance + eps) · weight + bias, for each channel of x (N, C, …).

    training: mean and variance are those of the batch, and `running_mean` and `running_var` (unbiased) move towards
    them by the factor `momentum`; they may be None. Otherwise the running ones are used. All vectors are (C,).
    Raises ShapeError for another number of channels, and for a single value for each channel in training.
    Ioffe and Szegedy, "Batch normalization: accelerating deep network training …", 2015.

    >>> import chainrule as cr
    >>> batch_norm(cr.tensor([[1.0], [3.0]]), None, None, training=True, eps=0.0).tolist()
    [[-1.0], [1.0]]
    """
    source = _floats("batch_norm", x)
    if source.ndim < 2:
        raise ShapeError(f"batch_norm needs (N, C, …); got {source.shape}. Add an axis")
    vectors = (
        ("running_mean", running_mean),
        ("running_var", running_var),
        ("weight", weight),
        ("bias", bias),
    )
    for name, vector in vectors:
        if vector is not None and vector.shape != source.shape[1:2]:
            raise ShapeError(
                f"batch_norm needs {name} of shape {source.shape[1:2]} for x {source.shape}; got {vector.shape}"
            )
    return normalized_batch(
        "batch_norm", source, running_mean, running_var, weight, bias, training, momentum, eps
    )


def normalized_batch(
    name: str,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: Any,
    eps: float,
) -> Tensor:
    """The formula; `name` is for messages."""
    column = (1, x.shape[1], *(1 for _ in x.shape[2:]))
    if training:
        axes = (0, *range(2, x.ndim))
        count = math.prod([x.shape[axis] for axis in axes])
        if count < 2:
            raise ShapeError(
                f"{name} needs two or more values for each channel in training; got {x.shape}. Use a larger batch, "
                "leave out a last batch of one row, or call .eval() to predict"
            )
        centre = mean(x, axis=axes, keepdims=True)
        distance = x - centre
        spread = mean(distance * distance, axis=axes, keepdims=True)
        _move(running_mean, centre.detach(), momentum)
        _move(running_var, spread.detach() * (count / (count - 1)), momentum)
    elif running_mean is None or running_var is None:
        raise ArgumentError(
            f"{name} needs running_mean and running_var unless it is training; got None. Pass training=True"
        )
    else:
        distance = x - reshaped(running_mean, column)
        spread = reshaped(running_var, column)
    # One factor for each channel: then the backward pass needs the distances and nothing else of this size.
    factor = 1.0 / sqrt(spread + eps)
    if weight is not None:
        factor = factor * reshaped(weight, column)
    result = distance * factor
    return result if bias is None else result + reshaped(bias, column)


def _move(running: Tensor | None, found: Tensor, momentum: Any) -> None:
    """running ← (1 − momentum)·running + momentum·found, in the running one's own cell."""
    if running is not None:
        running.copy_(running.detach() * (1.0 - momentum) + reshaped(found, running.shape) * momentum)


@composite
def layer_norm(
    x: Any,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x − mean) / √(variance + eps) · weight + bias, over the last axes, which have `normalized_shape`.

    weight, bias: of `normalized_shape`. Raises ShapeError if the last axes of x are others.
    Ba, Kiros and Hinton, "Layer normalization", 2016.

    >>> import chainrule as cr
    >>> layer_norm(cr.tensor([[1.0, 3.0]]), 2, eps=0.0).tolist()
    [[-1.0, 1.0]]
    """
    shape = as_normalized_shape("layer_norm", normalized_shape)
    source = _floats("layer_norm", x)
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and vector.shape != shape:
            raise ShapeError(f"layer_norm needs {name} of shape {shape}; got {vector.shape}")
    return normalized_layer("layer_norm", source, shape, weight, bias, eps)


def as_normalized_shape(name: str, given: Any) -> tuple[int, ...]:
    """The last axes as a tuple; a single number stands for one axis."""
    sizes = tuple(given) if isinstance(given, Sequence) else (given,)
    if not sizes or any(not isinstance(one, int) or isinstance(one, bool) or one < 1 for one in sizes):
        raise ArgumentError(
            f"{name} needs a whole number from 1, or several, as normalized_shape; got {given!r}"
        )
    return sizes


def normalized_layer(
    name: str, x: Tensor, shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """The formula; `name` is for messages."""
    if x.shape[-len(shape) :] != shape:
        raise ShapeError(f"{name} needs {shape} as the last axes; got {x.shape}. Change normalized_shape")
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    distance = x - mean(x, axis=axes, keepdims=True)
    spread = mean(distance * distance, axis=axes, keepdims=True)
    result = distance / sqrt(spread + eps)
    if weight is not None:
        result = result * weight
    return result if bias is None else result + bias


def check_eps(name: str, eps: Any) -> float:
    """A number from 0."""
    return check_number(name, "eps", eps, least=0.0)


def _floats(name: str, x: Any) -> Tensor:
    source = as_tensor(x)
    if source.dtype.kind != "f":
        raise DtypeError(f"{name} needs floats; got {source.dtype.name}. Use x.astype('float32')")
    return source
