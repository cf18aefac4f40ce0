"""Pooling: the largest entry or the mean of windows that slide over the last axes, or that split them evenly.

Places around the edge never win a maximum and have no gradient; of equal entries the first one takes it all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError, ShapeError
from ..graph import Node, constant
from ..tensor import Tensor, dispatch, wrap
from .composite import composite
from .spatial import Sizes, batched, check_sizes, extended, for_each_axis, single

OutputSizes = int | None | Sequence[int | None]

# Windows of more entries that overlap are reduced along one axis after the other: k + k entries each, not k · k.
_AT_ONCE = 9


@composite
def max_pool1d(
    x: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The largest entry of each window of `kernel_size` places: (N, C, L) → (N, C, L′).

    stride: how far the window moves, by default its own size. padding: places on both sides that never win.
    ceil_mode: also windows that reach over the end. Raises ShapeError and ArgumentError for what does not fit.

    >>> import chainrule as cr
    >>> max_pool1d(cr.tensor([[[1.0, 3.0, 2.0, 5.0]]]), 2).tolist()
    [[[3.0, 5.0]]]
    """
    return pooled_max("max_pool1d", 1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@composite
def max_pool2d(
    x: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The largest entry of each window of `kernel_size` pixels: (N, C, H, W) → (N, C, H′, W′).

    kernel_size, stride, padding, dilation: one number, or one for each axis; otherwise as in `max_pool1d`.

    >>> import chainrule as cr
    >>> max_pool2d(cr.ones((1, 3, 8, 8)), 3, stride=2, padding=1).shape
    (1, 3, 4, 4)
    """
    return pooled_max("max_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@composite
def avg_pool1d(
    x: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of `kernel_size` places: (N, C, L) → (N, C, L′).

    stride: how far the window moves, by default its own size. padding: zeros on both sides, which count in the mean
    unless count_include_pad=False. ceil_mode: also windows that reach over the end, where nothing counts.

    >>> import chainrule as cr
    >>> avg_pool1d(cr.tensor([[[1.0, 3.0, 2.0, 6.0]]]), 2).tolist()
    [[[2.0, 4.0]]]
    """
    return pooled_mean("avg_pool1d", 1, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


@composite
def avg_pool2d(
    x: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of `kernel_size` pixels: (N, C, H, W) → (N, C, H′, W′).

    kernel_size, stride, padding: one number, or one for each axis. divisor_override: what sums are divided by instead
    of their number of pixels. Otherwise as in `avg_pool1d`.

    >>> import chainrule as cr
    >>> avg_pool2d(cr.ones((1, 3, 8, 8)), 2).shape
    (1, 3, 4, 4)
    """
    return pooled_mean(
        "avg_pool2d", 2, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@composite
def adaptive_avg_pool1d(x: Any, output_size: OutputSizes) -> Tensor:
    """The means of `output_size` stretches of x, as even as they can be: (N, C, L) → (N, C, output_size).

    >>> import chainrule as cr
    >>> adaptive_avg_pool1d(cr.tensor([[[1.0, 3.0, 2.0, 6.0]]]), 2).tolist()
    [[[2.0, 4.0]]]
    """
    return adapted("adaptive_avg_pool1d", 1, x, output_size, mean)


@composite
def adaptive_avg_pool2d(x: Any, output_size: OutputSizes) -> Tensor:
    """The means of output_size × output_size areas of x, as even as they can be: (N, C, H, W) → (N, C, H′, W′).

    output_size: one number, or one for each axis; None keeps an axis. Stretch k goes from ⌊k·H/H′⌋ to ⌈(k+1)·H/H′⌉.

    >>> import chainrule as cr
    >>> adaptive_avg_pool2d(cr.ones((1, 3, 7, 5)), (2, None)).shape
    (1, 3, 2, 5)
    """
    return adapted("adaptive_avg_pool2d", 2, x, output_size, mean)


@composite
def adaptive_max_pool1d(x: Any, output_size: OutputSizes, return_indices: bool = False) -> Tensor:
    """The largest entries of `output_size` stretches of x, as even as they can be: (N, C, L) → (N, C, output_size).

    >>> import chainrule as cr
    >>> adaptive_max_pool1d(cr.tensor([[[1.0, 3.0, 2.0, 6.0]]]), 2).tolist()
    [[[3.0, 6.0]]]
    """
    refuse_indices("adaptive_max_pool1d", return_indices)
    return adapted("adaptive_max_pool1d", 1, x, output_size, largest)


@composite
def adaptive_max_pool2d(x: Any, output_size: OutputSizes, return_indices: bool = False) -> Tensor:
    """The largest entries of output_size × output_size areas of x, as even as they can be, as `adaptive_avg_pool2d`.

    >>> import chainrule as cr
    >>> adaptive_max_pool2d(cr.ones((1, 3, 7, 5)), 2).shape
    (1, 3, 2, 2)
    """
    refuse_indices("adaptive_max_pool2d", return_indices)
    return adapted("adaptive_max_pool2d", 2, x, output_size, largest)


# ------------------------------------------------------------------------------------------ the formulas


def pooled_max(
    name: str,
    axes: int,
    x: Any,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    return_indices: bool = False,
) -> Tensor:
    """The formula; `name` is for messages."""
    refuse_indices(name, return_indices)
    source, alone = batched(name, x, axes)
    kernel, strides, before = _windows(name, axes, kernel_size, stride, padding)
    gaps = for_each_axis(name, "dilation", dilation, axes)
    check_sizes(name, source)
    places = _places(name, source.shape[2:], kernel, strides, before, gaps, ceil_mode)
    after = _behind(source.shape[2:], places, kernel, strides, before, gaps)
    around = extended(name, source, before, after, value=-math.inf)
    return single(wrap(_slid(around.node, kernel, strides, gaps, largest)), alone)


def pooled_mean(
    name: str,
    axes: int,
    x: Any,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> Tensor:
    """The formula; `name` is for messages."""
    source, alone = batched(name, x, axes)
    kernel, strides, before = _windows(name, axes, kernel_size, stride, padding)
    one = (1,) * axes
    check_sizes(name, source)
    sizes = source.shape[2:]
    places = _places(name, sizes, kernel, strides, before, one, ceil_mode)
    after = _behind(sizes, places, kernel, strides, before, one)
    around = extended(name, source, before, after)
    summed = _slid(around.node, kernel, strides, one, total)
    if divisor_override is not None:
        if (
            not isinstance(divisor_override, int)
            or isinstance(divisor_override, bool)
            or not divisor_override
        ):
            raise ArgumentError(
                f"{name} needs a whole number other than 0 as divisor_override; got {divisor_override!r}"
            )
        return single(wrap(summed) / divisor_override, alone)
    counts = [_counts(*axis, bool(count_include_pad)) for axis in zip(sizes, places, kernel, strides, before)]
    return single(_divided(summed, counts), alone)


def _slid(
    x: Node,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
    reduction: Callable[[Node, tuple[int, ...]], Node],
) -> Node:
    """The reduction of every window over the last axes."""
    reach = [gap * (size - 1) + 1 for size, gap in zip(kernel, dilation)]
    overlap = any(step < one for step, one in zip(strides, reach))
    if not overlap or math.prod(kernel) <= _AT_ONCE:
        windows = ops.window.node((x,), {"sizes": kernel, "strides": strides, "dilation": dilation})
        return reduction(windows, _last(windows, len(kernel)))
    # The last axis first: then the first of equal entries in reading order still wins.
    for axis in reversed(range(len(kernel))):
        one = {"sizes": kernel, "strides": strides, "dilation": dilation}
        alone = {
            name: (*(1,) * axis, given[axis], *(1,) * (len(kernel) - axis - 1)) for name, given in one.items()
        }
        windows = ops.window.node((x,), alone)
        x = reduction(windows, _last(windows, len(kernel)))
    return x


def adapted(
    name: str,
    axes: int,
    x: Any,
    output_size: OutputSizes,
    reduction: Callable[[Node, tuple[int, ...]], Node],
) -> Tensor:
    """The formula; `name` is for messages. reduction: of windows of equal size, along some axes."""
    source, alone = batched(name, x, axes)
    check_sizes(name, source)
    sizes = source.shape[2:]
    wanted = wanted_sizes(name, output_size, sizes)
    if all(size % places == 0 for size, places in zip(sizes, wanted)):
        steps = tuple(size // places for size, places in zip(sizes, wanted))
        attributes = {"sizes": steps, "strides": steps, "dilation": (1,) * axes}
        windows = ops.window.node((source.node,), attributes)
        return single(wrap(reduction(windows, _last(windows, axes))), alone)
    node = source.node
    # The last axis first: then the first of equal entries in reading order still wins.
    for axis in reversed(range(2, 2 + axes)):
        node = _uneven(node, axis, wanted[axis - 2], reduction)
    return single(wrap(node), alone)


def _uneven(x: Node, axis: int, places: int, reduction: Callable[[Node, tuple[int, ...]], Node]) -> Node:
    """One axis cut into `places` stretches that differ in length by one: all read as the longest, the rest masked."""
    size = x.shape[axis]
    if size == places:
        return x
    starts = np.arange(places) * size // places
    lengths = -(-(np.arange(places) + 1) * size // places) - starts
    offsets = np.arange(lengths.max())
    indices = np.minimum(starts[:, None] + offsets, size - 1)
    taken = ops.take.node((x, constant(indices)), {"axis": axis})
    tail = (1,) * (x.ndim - axis - 1)
    inside = (offsets < lengths[:, None]).reshape(*indices.shape, *tail)
    outside = -math.inf if reduction is largest else 0
    kept = dispatch.broadcast_node(ops.where, (constant(inside), taken, constant(outside, x.dtype)))
    if reduction is largest:
        return largest(kept, (axis + 1,))
    scale = constant(lengths.reshape(places, *tail), x.dtype)
    return dispatch.broadcast_node(ops.divide, (total(kept, (axis + 1,)), scale))


def largest(windows: Node, axes: tuple[int, ...]) -> Node:
    """The largest entry of windows along `axes`."""
    found: Node = ops.first_max.node((windows,), {"axes": axes, "keepdims": False})
    return found


def total(windows: Node, axes: tuple[int, ...]) -> Node:
    """The sum of windows along `axes`."""
    found: Node = ops.sum_.node((windows,), {"axes": axes, "keepdims": False})
    return found


def mean(windows: Node, axes: tuple[int, ...]) -> Node:
    """The mean of windows along `axes`."""
    return (wrap(total(windows, axes)) / math.prod(windows.shape[axis] for axis in axes)).node


def _last(windows: Node, axes: int) -> tuple[int, ...]:
    return tuple(range(windows.ndim - axes, windows.ndim))


def _divided(summed: Node, counts: list[Any]) -> Tensor:
    """Sums by how many entries they are of: one number, or one for each place."""
    number = np.ones((), "int64")
    for one in counts:
        number = number[..., None] * one
    first = number.reshape(-1)[:1]
    if (number == first).all():
        return wrap(summed) / int(first[0])
    return wrap(dispatch.broadcast_node(ops.divide, (summed, constant(number, summed.dtype))))


# ------------------------------------------------------------------------------------------------ sizes


def _windows(
    name: str, axes: int, kernel_size: Sizes, stride: Sizes | None, padding: Sizes
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    kernel = for_each_axis(name, "kernel_size", kernel_size, axes)
    strides = kernel if stride is None or stride == () else for_each_axis(name, "stride", stride, axes)
    return kernel, strides, for_each_axis(name, "padding", padding, axes, 0)


def _places(
    name: str,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[int, ...]:
    """How many windows each axis has; with ceil_mode also those that begin inside and reach over the end."""
    found = []
    for size, window, step, around, gap in zip(sizes, kernel, strides, padding, dilation):
        reach = gap * (window - 1) + 1
        if around > window // 2:
            raise ArgumentError(
                f"{name} needs padding of at most half the window; got padding {around} for a window of {window}. "
                "Use less padding, or a larger kernel_size"
            )
        free = size + 2 * around - reach
        places = (free + (step - 1 if ceil_mode else 0)) // step + 1
        if ceil_mode and (places - 1) * step >= size + around:
            places -= 1
        if places < 1:
            raise ShapeError(
                f"{name} needs {reach} places or more; got {size}, {size + 2 * around} with padding, in x of "
                f"(…, {', '.join(map(str, sizes))}). Use a smaller kernel_size"
            )
        found.append(places)
    return tuple(found)


def _behind(
    sizes: Sequence[int],
    places: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, ...]:
    """What the last window needs beyond the end of each axis."""
    return tuple(
        max((many - 1) * step + gap * (window - 1) + 1 - size - around, 0)
        for size, many, window, step, around, gap in zip(sizes, places, kernel, strides, padding, dilation)
    )


def _counts(size: int, places: int, window: int, step: int, padding: int, padded: bool) -> Any:
    """How many entries each mean is of: within x and its padding, or within x alone."""
    starts = np.arange(places) * step - padding
    stops = np.minimum(starts + window, size + padding)
    return stops - starts if padded else np.minimum(stops, size) - np.maximum(starts, 0)


def wanted_sizes(name: str, given: OutputSizes, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The output size of each axis; None keeps it."""
    each = tuple(given) if isinstance(given, Sequence) else (given,) * len(sizes)
    each = each * len(sizes) if len(each) == 1 else each
    if len(each) != len(sizes):
        raise ArgumentError(f"{name} needs {len(sizes)} sizes as output_size, or one; got {given!r}")
    return tuple(
        size if one is None else for_each_axis(name, "output_size", one, 1)[0]
        for one, size in zip(each, sizes)
    )


def refuse_indices(name: str, return_indices: bool) -> None:
    """Positions are not given."""
    if return_indices:
        raise ArgumentError(f"{name} gives the largest entries only; got return_indices=True. Leave it out")
