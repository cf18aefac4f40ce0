"""Normalization: batch, layer, group and RMS norm. Variances are means of squared distances, so nothing cancels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, DtypeError, ShapeError
from ..tensor import Tensor, as_tensor
from ..tensor.elementwise import sqrt
from ..tensor.manipulation import reshaped
from ..tensor.statistical import centred, mean
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
        distance, centre = centred(x, axes)
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
    distance, _ = centred(x, axes)
    spread = mean(distance * distance, axis=axes, keepdims=True)
    result = distance / sqrt(spread + eps)
    if weight is not None:
        result = result * weight
    return result if bias is None else result + bias


@composite
def group_norm(
    x: Any, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """(x − mean) / √(variance + eps) · weight + bias, over each of `num_groups` groups of channels of x (N, C, …).

    weight, bias: (C,). Raises ShapeError for other shapes, ArgumentError unless num_groups divides C.
    Wu and He, "Group normalization", 2018.

    >>> import chainrule as cr
    >>> group_norm(cr.tensor([[1.0, 3.0, 10.0, 30.0]]), 2, eps=0.0).tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """
    source = _floats("group_norm", x)
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and vector.shape != source.shape[1:2]:
            raise ShapeError(
                f"group_norm needs {name} of shape {source.shape[1:2]} for x {source.shape}; got {vector.shape}"
            )
    return normalized_groups("group_norm", source, num_groups, weight, bias, eps)


def normalized_groups(
    name: str, x: Tensor, groups: Any, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """The formula; `name` is for messages."""
    if not isinstance(groups, int) or isinstance(groups, bool) or groups < 1:
        raise ArgumentError(f"{name} needs a whole number from 1 as num_groups; got {groups!r}")
    if x.ndim < 2:
        raise ShapeError(f"{name} needs (N, C, …); got {x.shape}. Add an axis")
    if x.shape[1] % groups:
        raise ArgumentError(
            f"{name} needs groups that divide the channels; got {groups} groups for {x.shape}"
        )
    # Behind the channels one axis for the channels of a group and one for their places: vectors fit by broadcasting.
    batch, channels = x.shape[:2]
    parts = reshaped(x, (batch, groups, channels // groups, math.prod(x.shape[2:])))
    distance, _ = centred(parts, (2, 3))
    spread = mean(distance * distance, axis=(2, 3), keepdims=True)
    factor = 1.0 / sqrt(spread + eps)
    each = (1, groups, channels // groups, 1)
    result = distance * (factor if weight is None else factor * reshaped(weight, each))
    if bias is not None:
        result = result + reshaped(bias, each)
    return reshaped(result, x.shape)


@composite
def rms_norm(
    x: Any, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / √(mean of squares + eps) · weight, over the last axes, which have `normalized_shape`.

    weight: of `normalized_shape`. eps: by default the distance from 1 to the next number of x's dtype. Raises
    ShapeError if the last axes of x are others. Zhang and Sennrich, "Root mean square layer normalization", 2019.

    >>> import chainrule as cr
    >>> rms_norm(cr.tensor([[1.0, 7.0]]), 2).tolist()
    [[0.20000000298023224, 1.399999976158142]]
    """
    shape = as_normalized_shape("rms_norm", normalized_shape)
    source = _floats("rms_norm", x)
    if weight is not None and weight.shape != shape:
        raise ShapeError(f"rms_norm needs weight of shape {shape}; got {weight.shape}")
    return normalized_squares("rms_norm", source, shape, weight, eps)


def normalized_squares(
    name: str, x: Tensor, shape: tuple[int, ...], weight: Tensor | None, eps: float | None
) -> Tensor:
    """The formula; `name` is for messages."""
    if x.shape[-len(shape) :] != shape:
        raise ShapeError(f"{name} needs {shape} as the last axes; got {x.shape}. Change normalized_shape")
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    least = float(np.finfo(x.dtype).eps) if eps is None else eps
    result = x / sqrt(mean(x * x, axis=axes, keepdims=True) + least)
    return result if weight is None else result * weight


def check_eps(name: str, eps: Any) -> float:
    """A number from 0."""
    return check_number(name, "eps", eps, least=0.0)


def _floats(name: str, x: Any) -> Tensor:
    source = as_tensor(x)
    if source.dtype.kind != "f":
        raise DtypeError(f"{name} needs floats; got {source.dtype.name}. Use x.astype('float32')")
    return source
