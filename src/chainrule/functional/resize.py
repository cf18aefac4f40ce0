"""Arrays in another size: zeros or copies around the edge, and images enlarged or shrunk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError, ShapeError
from ..graph import Node, constant
from ..tensor import Tensor, as_tensor, dispatch, wrap
from .checks import check_choice
from .composite import composite
from .spatial import AXES, batched, check_sizes, extended, for_each_axis

Factors = float | Sequence[float]

_MODES = ("nearest", "linear", "bilinear")
_PAD_MODES = {"constant": "zeros", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


@composite
def pad(x: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Places before and behind the last axes, the last one first: pad = (left, right, top, bottom, …).

    mode: "constant" (`value`, 0 by default; negative numbers cut off), "reflect", "replicate" or "circular".
    Raises ArgumentError for an odd number of widths, ShapeError for more than there is. `cr.pad` takes
    (before, after) for every axis.

    >>> import chainrule as cr
    >>> pad(cr.tensor([[1.0, 2.0, 3.0]]), (2, 0), mode="reflect").tolist()
    [[3.0, 2.0, 1.0, 2.0, 3.0]]
    """
    source = as_tensor(x)
    check_choice("mode", mode, tuple(_PAD_MODES))
    widths = tuple(pad) if isinstance(pad, Sequence) else ()
    whole = all(isinstance(one, int) and not isinstance(one, bool) for one in widths)
    if not widths or len(widths) % 2 or not whole or len(widths) > 2 * source.ndim:
        raise ArgumentError(
            f"pad needs whole numbers, two for each of the last axes, the last axis first; got {pad!r} for "
            f"{source.shape}"
        )
    if mode != "constant" and value:
        raise ArgumentError(
            f"pad takes a value with mode='constant' only; got value={value} and mode={mode!r}"
        )
    low, high = widths[::2][::-1], widths[1::2][::-1]
    return extended("pad", source, low, high, _PAD_MODES[mode], 0.0 if value is None else value)


@composite
def interpolate(
    x: Any,
    size: int | Sequence[int] | None = None,
    scale_factor: Factors | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Tensor:
    """x in another size: (N, C, L) → (N, C, L′), (N, C, H, W) → (N, C, H′, W′).

    size or scale_factor: one number, or one for each axis; the size is ⌊factor · size⌋. mode: "nearest" (copies),
    "linear" (for L) or "bilinear" (for H, W). align_corners: whether the outermost entries keep their places; else
    the edges do. recompute_scale_factor: take the factor from the rounded sizes. Raises ArgumentError for what does
    not fit, ShapeError for other numbers of axes.

    >>> import chainrule as cr
    >>> interpolate(cr.tensor([[[1.0, 3.0]]]), scale_factor=2, mode="linear").tolist()
    [[[1.0, 1.5, 2.5, 3.0]]]
    """
    return resized("interpolate", x, size, scale_factor, mode, align_corners, recompute_scale_factor)


def resized(
    name: str,
    x: Any,
    size: Any,
    scale_factor: Any,
    mode: str,
    align_corners: bool | None,
    recompute_scale_factor: bool | None,
) -> Tensor:
    """The formula; `name` is for messages."""
    source = as_tensor(x)
    if source.ndim not in (3, 4):
        raise ShapeError(f"{name} needs (N, C, L) or (N, C, H, W); got {source.shape}. Add an axis: x[None]")
    axes = source.ndim - 2
    source, _ = batched(name, source, axes)
    check_mode(name, mode, align_corners)
    if mode != "nearest" and mode != _MODES[axes]:
        raise ArgumentError(
            f"{name} needs mode={_MODES[axes]!r} or 'nearest' for (N, C, {AXES[axes]}); got {mode!r}"
        )
    check_sizes(name, source)
    sizes, factors = _target(name, source.shape[2:], size, scale_factor, bool(recompute_scale_factor))
    node = source.node
    for axis in reversed(range(2, source.ndim)):
        target, factor = sizes[axis - 2], factors[axis - 2]
        if mode == "nearest":
            node = _nearest(node, axis, target, factor)
        else:
            node = _linear(node, axis, target, factor, bool(align_corners))
    return wrap(node)


def check_mode(name: str, mode: Any, align_corners: bool | None) -> None:
    """A mode, and corners for modes that have them."""
    if mode not in _MODES:
        raise ArgumentError(f"{name} needs 'nearest', 'linear' or 'bilinear' as mode; got {mode!r}")
    if align_corners is not None and mode == "nearest":
        raise ArgumentError(
            f"{name} can align corners with mode='linear' or 'bilinear' only; got align_corners={align_corners} and "
            f"mode={mode!r}. Leave it out"
        )


def _target(
    name: str, sizes: tuple[int, ...], size: Any, scale_factor: Any, again: bool
) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """The size of each axis, and the factor that positions are counted with (None: the ratio of the sizes)."""
    axes = len(sizes)
    if (size is None) == (scale_factor is None):
        raise ArgumentError(
            f"{name} needs size or scale_factor; got size={size!r}, scale_factor={scale_factor!r}"
        )
    if size is not None:
        return for_each_axis(name, "size", size, axes), (None,) * axes
    factors = tuple(scale_factor) if isinstance(scale_factor, Sequence) else (scale_factor,) * axes
    fits = all(
        isinstance(one, int | float | np.number) and not isinstance(one, bool) and 0 < one < math.inf
        for one in factors
    )
    if len(factors) != axes or not fits:
        raise ArgumentError(
            f"{name} needs a number above 0, or {axes} of them, as scale_factor; got {scale_factor!r}"
        )
    target = tuple(math.floor(one * float(factor)) for one, factor in zip(sizes, factors))
    if 0 in target:
        raise ShapeError(
            f"{name} would leave no entries of {sizes}; got scale_factor={scale_factor!r}. Use a larger one"
        )
    return target, tuple(None if again else float(factor) for factor in factors)


def _nearest(x: Node, axis: int, target: int, factor: float | None) -> Node:
    """Entry ⌊k · size / target⌋ at place k; whole factors are copies side by side, which costs no lookup."""
    size = x.shape[axis]
    if target == size and factor in (None, 1.0):
        return x
    if target % size == 0 and (factor is None or factor == target // size):
        times = target // size
        wide = (*x.shape[: axis + 1], times, *x.shape[axis + 1 :])
        node = ops.reshape.node((x,), {"shape": (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :])})
        node = ops.broadcast_to.node((node,), {"shape": wide})
        found: Node = ops.reshape.node((node,), {"shape": (*x.shape[:axis], target, *x.shape[axis + 1 :])})
        return found
    # In float32, as PyTorch counts: a place on the border of two entries must fall to the same side.
    scale = np.float32(size / target if factor is None else 1.0 / factor)
    indices = np.minimum(np.floor(np.arange(target, dtype=np.float32) * scale), size - 1).astype(np.int64)
    taken: Node = ops.take.node((x, constant(indices)), {"axis": axis})
    return taken


def _linear(x: Node, axis: int, target: int, factor: float | None, corners: bool) -> Node:
    """Between the two nearest entries, by how far place k is from each."""
    size = x.shape[axis]
    if target == size and (corners or factor in (None, 1.0)):
        return x
    at = np.arange(target)
    if corners:
        where = at * ((size - 1) / (target - 1) if target > 1 else 0.0)
    else:
        scale = size / target if factor is None else 1.0 / factor
        where = np.maximum((at + 0.5) * scale - 0.5, 0.0)
    left = np.minimum(where.astype(np.int64), size - 1)
    right = np.minimum(left + 1, size - 1)
    share = np.clip(where - left, 0.0, 1.0).reshape(target, *(1 for _ in x.shape[axis + 1 :]))
    parts = [
        dispatch.broadcast_node(
            ops.multiply,
            (ops.take.node((x, constant(indices)), {"axis": axis}), constant(weight, x.dtype)),
        )
        for indices, weight in ((left, 1.0 - share), (right, share))
    ]
    total: Node = ops.add.node(tuple(parts), {})
    return total
