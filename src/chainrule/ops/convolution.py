"""Convolution and what slides windows over arrays: one bilinear primitive, its windows, and the first winner.

Padding and zeros between entries are no part of it: they are `pad`. Any number of spatial axes, which are the
last ones. Knows nothing of layers, and nothing of how products are computed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from ..dtypes import int64
from ..errors import DtypeError, ShapeError
from ..operations import Type
from . import shapes
from .discrete import argmax, equal
from .kinds import bilinear, linear, selection
from .linear import broadcast_to, cast, flip, pad, permute_dims, reshape, slice_
from .lowering import Contraction, Gather, Reduce, View

Steps = tuple[int, ...]


def windows_along(size: int, kernel: int, stride: int, dilation: int) -> int:
    """How many windows fit into `size` places; 0 or less if none does."""
    return (size - dilation * (kernel - 1) - 1) // stride + 1


# ----------------------------------------------------------------------------------------- convolution


def _conv_type(x: Type, w: Type, *, strides: Steps, dilation: Steps, groups: int) -> Type:
    spatial = len(strides)
    if len(x.shape) != spatial + 2 or len(w.shape) != spatial + 2 or len(dilation) != spatial:
        raise ShapeError(
            f"conv over {spatial} axes needs x (N, C, …) and w (O, C/groups, …) with {spatial + 2} axes; got "
            f"{x.shape} and {w.shape}"
        )
    if x.dtype != w.dtype:
        raise DtypeError(f"conv needs one dtype; got {x.dtype.name} and {w.dtype.name}. Use astype")
    channels, outputs = x.shape[1], w.shape[0]
    if channels != groups * w.shape[1] or outputs % groups:
        raise ShapeError(
            f"conv with groups={groups} needs w (O, C/groups, …) with O a multiple of {groups}; got x {x.shape} "
            f"and w {w.shape}"
        )
    places = tuple(map(windows_along, x.shape[2:], w.shape[2:], strides, dilation))
    if any(one < 1 for one in places) or 0 in w.shape[2:]:
        raise ShapeError(
            f"conv needs a kernel that fits into x; got kernel {w.shape[2:]} with dilation {dilation} and x "
            f"{x.shape}. Pad x, or use a smaller kernel"
        )
    return Type((x.shape[0], outputs, *places), x.dtype)


def _conv_to_x(g: Any, x: Any, w: Any, *, strides: Steps, dilation: Steps, groups: int) -> Any:
    """Every output place sends its cotangent back through the kernel: a convolution with the kernel turned round."""
    kernel, spatial = tuple(w.shape[2:]), len(strides)
    reach = [gap * (size - 1) for gap, size in zip(dilation, kernel)]
    # Before the first place the kernel's reach; behind the last one that too, and what the stride left over of x.
    behind = [size - (places - 1) * step - 1 for size, places, step in zip(x.shape[2:], g.shape[2:], strides)]
    spread = pad(
        g, low=(0, 0, *reach), high=(0, 0, *behind), interior=(0, 0, *(step - 1 for step in strides))
    )
    outputs, inputs = w.shape[0] // groups, w.shape[1]
    turned = flip(w, axes=tuple(range(2, 2 + spatial)))
    turned = reshape(turned, shape=(groups, outputs, inputs, *kernel))
    turned = permute_dims(turned, axes=(0, 2, 1, *range(3, 3 + spatial)))
    turned = reshape(turned, shape=(groups * inputs, outputs, *kernel))
    return conv(spread, turned, strides=(1,) * spatial, dilation=dilation, groups=groups)


def _conv_to_w(g: Any, x: Any, w: Any, *, strides: Steps, dilation: Steps, groups: int) -> Any:
    """A kernel entry met x at every output place: a convolution of x with g, where batch and channels change roles."""
    spatial = len(strides)
    batch, channels = x.shape[:2]
    inside, last = tuple(x.shape[2:]), range(3, 3 + spatial)
    images = reshape(x, shape=(batch, groups, channels // groups, *inside))
    images = reshape(
        permute_dims(images, axes=(2, 1, 0, *last)), shape=(channels // groups, groups * batch, *inside)
    )
    kernels = permute_dims(g, axes=(1, 0, *range(2, 2 + spatial)))
    found = conv(images, kernels, strides=dilation, dilation=strides, groups=groups)
    # Where the stride left places of x over, more kernel entries than there are would fit.
    stops = (*found.shape[:2], *w.shape[2:])
    if tuple(found.shape) != stops:
        found = slice_(found, starts=(0,) * len(stops), stops=stops, steps=(1,) * len(stops))
    return permute_dims(found, axes=(1, 0, *range(2, 2 + spatial)))


def _conv_places(
    at: Sequence[Any],
    along: Sequence[Any],
    x: Type,
    w: Type,
    *,
    strides: Steps,
    dilation: Steps,
    groups: int,
) -> tuple[list[Any], list[Any]]:
    """Where output (image, group, channel within it, *place) reads for (input channel of the group, *offset)."""
    image, group, output, *places = at
    channel, *offsets = along
    inside = [
        place * step + offset * gap for place, offset, step, gap in zip(places, offsets, strides, dilation)
    ]
    outputs, channels = w.shape[0] // groups, w.shape[1]
    return [image, group * channels + channel, *inside], [group * outputs + output, *along]


@bilinear(
    type=_conv_type,
    transposes=(_conv_to_x, _conv_to_w),
    lower=Contraction(
        inner=lambda x, w, *, strides, dilation, groups: w.shape[1:],
        places=_conv_places,
        parts=lambda out, *, strides, dilation, groups: (
            (out.shape[0],), (groups, out.shape[1] // groups), *((size,) for size in out.shape[2:]),
        ),
    ),
    cost="costly",
    may_warn=True,
)  # fmt: skip
def conv(xp: Any, x: Any, w: Any, *, strides: Steps, dilation: Steps, groups: int) -> Any:
    """Cross-correlation of x (N, C, *spatial) with w (O, C/groups, *kernel), where the kernel lies inside x.

    Output channel o reads the channels of its own group only. Place k of an axis reads from k·stride on, every
    `dilation`-th entry: (size − dilation·(kernel − 1) − 1) // stride + 1 places.
    Why: one kernel slides over all places, so its gradient adds up over them, and a place hears from every window
    that it was in.
    """
    return xp.conv(x, w, strides, dilation, groups)


# --------------------------------------------------------------------------------------------- windows


def _window_type(x: Type, *, sizes: Steps, strides: Steps, dilation: Steps) -> Type:
    first = len(x.shape) - len(sizes)
    if first < 0 or not len(sizes) == len(strides) == len(dilation):
        raise ShapeError(
            f"window needs sizes, strides and dilation for axes of x; got {sizes}, {strides}, {dilation} for {x.shape}"
        )
    places = tuple(map(windows_along, x.shape[first:], sizes, strides, dilation))
    if any(one < 1 for one in (*places, *sizes)):
        raise ShapeError(
            f"window needs sizes from 1 that fit into x; got {sizes} by {dilation} and {x.shape}"
        )
    return Type((*x.shape[:first], *places, *sizes), x.dtype)


def _window_index(
    position: Sequence[Any], x: Type, out: Type, *, sizes: Steps, strides: Steps, dilation: Steps
) -> list[Any]:
    spatial = len(sizes)
    first = len(x.shape) - spatial
    places, offsets = position[first : first + spatial], position[first + spatial :]
    return [
        *position[:first],
        *(
            place * step + offset * gap
            for place, offset, step, gap in zip(places, offsets, strides, dilation)
        ),
    ]


def _laid_back(g: Any, x: Any, *, sizes: Steps, strides: Steps, dilation: Steps) -> Any:
    """The cotangent of what windows were cut from."""
    return fold(g, shape=tuple(x.shape[len(x.shape) - len(sizes) :]), strides=strides, dilation=dilation)


@linear(
    type=_window_type,
    transposes=(_laid_back,),
    lower=View(_window_index),
)
def window(xp: Any, x: Any, *, sizes: Steps, strides: Steps, dilation: Steps) -> Any:
    """Windows over the last axes of x: (…, *spatial) → (…, *places, *sizes).

    Why: an entry stands in several windows, so it hears from all of them.
    """
    return xp.window(x, sizes, strides, dilation)


def _fold_type(x: Type, *, shape: Steps, strides: Steps, dilation: Steps) -> Type:
    spatial = len(shape)
    first = len(x.shape) - 2 * spatial
    if first < 0 or not spatial == len(strides) == len(dilation):
        raise ShapeError(
            f"fold needs x (…, *places, *sizes) for {spatial} axes; got {x.shape}, {strides} and {dilation}"
        )
    places, sizes = x.shape[first : first + spatial], x.shape[first + spatial :]
    if tuple(map(windows_along, shape, sizes, strides, dilation)) != places:
        raise ShapeError(f"fold needs as many windows as {shape} has; got {x.shape} by {strides}, {dilation}")
    return Type((*x.shape[:first], *shape), x.dtype)


def _sources(
    b: Any, place: Any, windows: int, size: int, step: int, gap: int
) -> list[tuple[Any, Any, list[Any]]]:
    """The (window, offset, conditions) along one axis that may have read a place.

    Either every offset is tried, or every window that reaches the place: whichever are fewer.
    """
    reaching = -(-((size - 1) * gap + 1) // step)
    found = []
    if size <= reaching:
        for offset in range(size):
            at, hit = b.strided(place, offset * gap, step, windows)
            found.append((at, offset, [hit]))
        return found
    for back in range(reaching):
        at, exists = b.strided(place // step, back, 1, windows)
        offset, hit = b.strided(place % step + back * step, 0, gap, size)
        found.append((at, offset, [exists, hit]))
    return found


def _fold_element(
    b: Any, position: Any, operands: Any, out: Type, *, shape: Steps, strides: Steps, dilation: Steps
) -> Any:
    """The sum over all (window, offset) pairs that stand for this place."""
    (x,) = operands
    spatial = len(shape)
    first = len(out.shape) - spatial
    windows, sizes = x.type.shape[first : first + spatial], x.type.shape[first + spatial :]
    along = [
        _sources(b, *one) for one in zip(position[first:], windows, sizes, strides, dilation, strict=True)
    ]
    total = None
    for pairs in itertools.product(*along):
        inside = b.true()
        for _, _, conditions in pairs:
            for condition in conditions:
                inside = b.bits("and", inside, condition)
        element = x([*position[:first], *(pair[0] for pair in pairs), *(pair[1] for pair in pairs)])
        part = b.select(inside, element, b.constant(0))
        total = part if total is None else b.add(total, part)
    return b.constant(0) if total is None else total


@linear(
    type=_fold_type,
    transposes=(
        lambda g, x, *, shape, strides, dilation: window(
            g, sizes=tuple(x.shape[len(x.shape) - len(shape) :]), strides=strides, dilation=dilation
        ),
    ),
    lower=Gather(_fold_element),
    may_warn=True,
)
def fold(xp: Any, x: Any, *, shape: Steps, strides: Steps, dilation: Steps) -> Any:
    """Windows laid back and added where they overlap: (…, *places, *sizes) → (…, *shape).

    Why: an entry of a window lands in one place of the sum, and hears from there.
    """
    return xp.fold(x, shape, strides, dilation)


# ------------------------------------------------------------------------------------ the first winner


def _flat_position(position: Sequence[Any], shape: Steps, axes: Steps) -> Any:
    """The number of a place along `axes`, counted in row-major order."""
    number: Any = 0
    for axis in axes:
        number = number * shape[axis] + position[axis]
    return number


@linear(
    type=lambda x, *, axes: Type(x.shape, int64),
    transposes=(None,),
    lower=Gather(
        lambda b, position, operands, out, *, axes: b.number(_flat_position(position, out.shape, axes))
    ),
)
def positions_like(xp: Any, x: Any, *, axes: Steps) -> Any:
    """0, 1, 2 … along `axes` (in row-major order, the same along all others) for each entry of x.

    Why: counting does not depend on the entries.
    """
    sizes = tuple(size if axis in axes else 1 for axis, size in enumerate(x.shape))
    numbers = xp.reshape(xp.arange(math.prod(sizes), dtype=int64), sizes)
    return xp.broadcast_to(numbers, tuple(x.shape))


def _first_max_type(x: Type, *, axes: Steps, keepdims: bool) -> Type:
    checked = shapes.check_axes("first_max", axes, x)
    if any(x.shape[axis] == 0 for axis in checked):
        raise ShapeError(f"the largest of no elements is undefined; got shape {x.shape}, axes {checked}")
    return Type(shapes.reduced(x.shape, checked, keepdims), x.dtype)


def _first_winner(out: Any, x: Any, *, axes: Steps, keepdims: bool) -> Any:
    """1 at the first of the largest elements, or at the first NaN."""
    shape, along = tuple(x.shape), tuple(sorted(axes))
    kept = tuple(axis for axis in range(len(shape)) if axis not in along)
    last = x if (*kept, *along) == tuple(range(len(shape))) else permute_dims(x, axes=(*kept, *along))
    stretches = (*(shape[axis] for axis in kept), math.prod(shape[axis] for axis in along))
    first = reshape(
        argmax(reshape(last, shape=stretches), axis=len(kept)), shape=shapes.reduced(shape, along, True)
    )
    return cast(equal(positions_like(x, axes=along), broadcast_to(first, shape=shape)), dtype=x.dtype)


@selection(
    type=_first_max_type,
    weights=_first_winner,
    lower=Reduce(lambda b: b.lowest(), lambda b, best, x: b.maximum(best, x)),
)
def first_max(xp: Any, x: Any, *, axes: Steps, keepdims: bool) -> Any:
    """Largest entry along `axes`; NaN if there is one.  Why: only the winner counts; of ties the first takes all."""
    return xp.largest(x, axes, keepdims)
