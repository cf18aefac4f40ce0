"""The array API's manipulation functions: the entries stay, their places change. Gradients change places back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..dtypes import DEFAULT_INTEGER
from ..errors import ArgumentError, DtypeError, ShapeError
from ..graph import scope
from ..operations import Type
from ..ops.shapes import as_shape, check_axes, check_axis, count, whole
from ..ops.shapes import broadcast_shapes as _broadcast_shapes
from . import dispatch
from .core import Tensor, as_tensor, wrap

Axes = int | Sequence[int]


def reshape(x: Any, /, shape: int | tuple[int, ...], *, copy: bool | None = None) -> Tensor:
    """The same entries in another shape; one size may be -1 and is worked out.

    Raises ShapeError if the number of entries differs.

    >>> import chainrule as cr
    >>> cr.reshape(cr.arange(6), (2, -1)).shape
    (2, 3)
    """
    source = as_tensor(x)
    given = (shape,) if isinstance(shape, int) else tuple(shape)
    wish = tuple([whole("reshape", "size", size) for size in given])
    if -1 in wish:
        known = math.prod(size for size in wish if size != -1)
        if wish.count(-1) > 1 or known <= 0 or source.size % known:
            raise ShapeError(
                f"reshape cannot work out -1 in {wish}; got {source.shape}, {source.size} entries. "
                "Write the sizes out"
            )
        wish = tuple([source.size // known if size == -1 else size for size in wish])
    return source.clone() if wish == source.shape else reshaped(source, wish)


def reshaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`x` in another shape; the same handle if it has it already, so for values that no user holds."""
    return x if x.shape == shape else wrap(ops.reshape.node((x.node,), {"shape": shape}))


def permute_dims(x: Any, /, axes: tuple[int, ...]) -> Tensor:
    """Axes in another order: `axes[k]` says which axis becomes the k-th.

    >>> import chainrule as cr
    >>> cr.permute_dims(cr.zeros((2, 3)), (1, 0)).shape
    (3, 2)
    """
    source = as_tensor(x)
    order = check_axes("permute_dims", axes, source)
    if len(order) != source.ndim:
        raise ShapeError(f"permute_dims needs each axis of {source.shape} once; got axes {tuple(axes)}")
    return wrap(ops.permute_dims.node((source.node,), {"axes": order}))


def matrix_transpose(x: Any, /) -> Tensor:
    """The last two axes exchanged.

    >>> import chainrule as cr
    >>> cr.matrix_transpose(cr.zeros((5, 2, 3))).shape
    (5, 3, 2)
    """
    source = as_tensor(x)
    if source.ndim < 2:
        raise ShapeError(f"matrix_transpose needs at least two axes; got shape {source.shape}")
    return wrap(ops.transposed(source.node))


def moveaxis(x: Any, source: Axes, destination: Axes, /) -> Tensor:
    """Axes `source` moved to the places `destination`; the others keep their order.

    >>> import chainrule as cr
    >>> cr.moveaxis(cr.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    given = as_tensor(x)
    result = moved(given, source, destination)
    return given.clone() if result is given else result


def moved(x: Tensor, source: Axes, destination: Axes) -> Tensor:
    """`moveaxis`; the same handle if nothing moves, so for values that no user holds."""
    start = check_axes("moveaxis", source, x)
    end = check_axes("moveaxis", destination, x)
    if start == end:
        return x
    if len(start) != len(end):
        raise ShapeError(f"moveaxis needs as many places as axes; got {source} and {destination}")
    order = [axis for axis in range(x.ndim) if axis not in start]
    for place, axis in sorted(zip(end, start)):
        order.insert(place, axis)
    return wrap(ops.permute_dims.node((x.node,), {"axes": tuple(order)}))


def expand_dims(x: Any, /, axis: int | tuple[int, ...] = 0) -> Tensor:
    """New axes of size 1 at the places `axis` of the result. Raises AxisError for a place that is not there.

    >>> import chainrule as cr
    >>> cr.expand_dims(cr.zeros(3), axis=1).shape
    (3, 1)
    """
    source = as_tensor(x)
    places = tuple(axis) if isinstance(axis, Iterable) else (axis,)
    ndim = source.ndim + len(places)
    where = check_axes("expand_dims", places, Type((1,) * ndim, source.dtype))
    rest = iter(source.shape)
    return reshape(source, tuple(1 if k in where else next(rest) for k in range(ndim)))


def squeeze(x: Any, /, axis: Axes | None = None) -> Tensor:
    """Without the axes `axis`, which must have size 1; without every axis of size 1 for None.

    >>> import chainrule as cr
    >>> cr.squeeze(cr.zeros((1, 3)), 0).shape
    (3,)
    """
    source = as_tensor(x)
    if axis is None:
        return reshape(source, tuple(size for size in source.shape if size != 1))
    gone = check_axes("squeeze", axis, source)
    if any(source.shape[k] != 1 for k in gone):
        raise ShapeError(f"squeeze removes axes of size 1; got axes {gone} of shape {source.shape}")
    return reshape(source, tuple(size for k, size in enumerate(source.shape) if k not in gone))


def flatten(x: Any, /, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes from `start_dim` to `end_dim` folded into one.

    >>> import chainrule as cr
    >>> cr.flatten(cr.zeros((2, 3, 4)), 1).shape
    (2, 12)
    """
    source = as_tensor(x)
    if source.ndim == 0:
        return reshape(source, (1,))
    first = check_axis("flatten", start_dim, source)
    last = check_axis("flatten", end_dim, source)
    if last < first:
        raise ShapeError(f"flatten needs start_dim up to end_dim; got {start_dim} and {end_dim}")
    folded = math.prod(source.shape[first : last + 1])
    return reshape(source, (*source.shape[:first], folded, *source.shape[last + 1 :]))


def broadcast_to(x: Any, /, shape: tuple[int, ...]) -> Tensor:
    """`x` copied along new axes and along axes of size 1.

    >>> import chainrule as cr
    >>> cr.broadcast_to(cr.zeros(3), (2, 3)).shape
    (2, 3)
    """
    source = as_tensor(x)
    target = as_shape("broadcast_to", shape)
    ops.broadcast_to.types(source.node.type, shape=target)
    return wrap(ops.broadcast_to.node((source.node,), {"shape": target}))


def broadcast_arrays(*arrays: Any) -> tuple[Tensor, ...]:
    """All of them in their common shape.

    >>> import chainrule as cr
    >>> [x.shape for x in cr.broadcast_arrays(cr.zeros(3), cr.zeros((2, 1)))]
    [(2, 3), (2, 3)]
    """
    given = [as_tensor(one) for one in arrays]
    shape = _broadcast_shapes("broadcast_arrays", *(one.shape for one in given))
    return tuple(broadcast_to(one, shape) for one in given)


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape of arrays of these shapes. Raises ShapeError if there is none.

    >>> import chainrule as cr
    >>> cr.broadcast_shapes((3,), (2, 1))
    (2, 3)
    """
    return _broadcast_shapes("broadcast_shapes", *(as_shape("broadcast_shapes", one) for one in shapes))


def concat(arrays: Sequence[Any], /, *, axis: int | None = 0) -> Tensor:
    """Arrays joined along `axis` (flattened first for None); dtypes are promoted.

    >>> import chainrule as cr
    >>> cr.concat([cr.zeros(2), cr.ones(1)])
    tensor([0., 0., 1.])
    """
    given = [as_tensor(one) for one in arrays]
    if not given:
        raise ArgumentError("concat needs at least one array; got none")
    if axis is None:
        given = [reshaped(one, (one.size,)) for one in given]
    along = check_axis("concat", 0 if axis is None else axis, given[0])
    dtype = dispatch.common_dtype("concat", [one.node for one in given])
    nodes = tuple(dispatch.astype(one.node, dtype) for one in given)
    ops.concat.types(*(node.type for node in nodes), axis=along)
    return wrap(ops.concat.node(nodes, {"axis": along}))


def stack(arrays: Sequence[Any], /, *, axis: int = 0) -> Tensor:
    """Arrays of one shape joined along a new axis.

    >>> import chainrule as cr
    >>> cr.stack([cr.zeros(3), cr.ones(3)]).shape
    (2, 3)
    """
    given = [as_tensor(one) for one in arrays]
    if not given:
        raise ArgumentError("stack needs at least one array; got none")
    if len({one.shape for one in given}) > 1:
        shown = " and ".join(map(str, dict.fromkeys(one.shape for one in given)))
        raise ShapeError(f"stack needs arrays of one shape; got {shown}. Use concat, or pad them")
    return concat([expand_dims(one, axis=axis) for one in given], axis=axis)


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts along `axis`, without that axis.

    >>> import chainrule as cr
    >>> len(cr.unstack(cr.zeros((2, 3))))
    2
    """
    source = moved(as_tensor(x), axis, 0)
    return tuple(source[k] for k in range(source.shape[0]))


def flip(x: Any, /, *, axis: Axes | None = None) -> Tensor:
    """Entries in reverse order along `axis` (every axis for None).

    >>> import chainrule as cr
    >>> cr.flip(cr.arange(3)).tolist()
    [2, 1, 0]
    """
    source = as_tensor(x)
    return wrap(ops.flip.node((source.node,), {"axes": check_axes("flip", axis, source)}))


def roll(x: Any, /, shift: int | tuple[int, ...], *, axis: Axes | None = None) -> Tensor:
    """Entries moved by `shift` places along `axis`; what leaves at one end enters at the other.

    >>> import chainrule as cr
    >>> cr.roll(cr.arange(3), 1).tolist()
    [2, 0, 1]
    """
    source = as_tensor(x)
    if axis is None:
        return reshaped(roll(reshaped(source, (source.size,)), shift, axis=0), source.shape)
    axes = tuple(
        [check_axis("roll", one, source) for one in (axis if isinstance(axis, Iterable) else (axis,))]
    )
    shifts = tuple(shift) if isinstance(shift, Iterable) else (shift,) * len(axes)
    if len(shifts) != len(axes):
        raise ArgumentError(f"roll needs one shift for each axis; got {shift} and {axis}")
    result = source
    for one, along in zip(shifts, axes):
        size = result.shape[along]
        cut = -whole("roll", "shift", one) % size if size else 0
        if cut:
            before = (slice(None),) * along
            result = concat(
                [result[(*before, slice(cut, None))], result[(*before, slice(None, cut))]], axis=along
            )
    return result.clone() if result is source else result


def repeat(x: Any, repeats: Any, /, *, axis: int | None = None) -> Tensor:
    """Each entry `repeats` times along `axis` (flattened first for None).

    >>> import chainrule as cr
    >>> cr.repeat(cr.arange(2), 2).tolist()
    [0, 0, 1, 1]
    """
    source = as_tensor(x)
    if axis is None:
        source = reshaped(source, (source.size,))
    along = check_axis("repeat", 0 if axis is None else axis, source)
    size = source.shape[along]
    times = as_indices("repeat", repeats)._array()
    if times.shape not in ((), (1,), (size,)) or (times < 0).any():
        raise ShapeError(
            f"repeat needs one count from 0, or {size} of them for axis {along}; got {repeats!r} for shape "
            f"{source.shape}"
        )
    total = int(times.sum()) if times.shape == (size,) else size * int(times.reshape(()))
    count((*source.shape[:along], total, *source.shape[along + 1 :]))
    return take(source, np.repeat(np.arange(size), times), axis=along)


def tile(x: Any, repetitions: tuple[int, ...], /) -> Tensor:
    """The whole array repeated along each axis.

    >>> import chainrule as cr
    >>> cr.tile(cr.arange(2), (2,)).tolist()
    [0, 1, 0, 1]
    """
    source = as_tensor(x)
    given = as_shape("tile", repetitions)
    times = (1,) * (source.ndim - len(given)) + given
    result = reshaped(source, (1,) * (len(times) - source.ndim) + source.shape)
    count([size * number for size, number in zip(result.shape, times)])
    with scope("tile", "function"):
        for axis, number in enumerate(times):
            if number == 0:
                result = result[(slice(None),) * axis + (slice(0),)]
            elif number > 1:
                result = concat([result] * number, axis=axis)
    return result.clone() if result is source else result


def pad(x: Any, /, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Zeros before and after along each axis: `widths[k]` = (before, after).

    >>> import chainrule as cr
    >>> cr.pad(cr.ones(1), [(1, 2)])
    tensor([0., 1., 0., 0.])
    """
    source = as_tensor(x)
    pairs = [tuple(pair) if isinstance(pair, Iterable) else () for pair in widths]
    if len(pairs) != source.ndim or any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        raise ShapeError(f"pad needs (before, after) from 0 for each axis of {source.shape}; got {widths}")
    low, high = (tuple([whole("pad", "width", pair[side]) for pair in pairs]) for side in (0, 1))
    count([a + size + b for a, size, b in zip(low, source.shape, high)])
    attributes = {"low": low, "high": high, "interior": (0,) * source.ndim}
    return wrap(ops.pad.node((source.node,), attributes))


def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Tensor:
    """Entries at `indices` along `axis`. Raises BoundsError for an index outside the axis.

    >>> import chainrule as cr
    >>> cr.take(cr.tensor([1.0, 2.0]), cr.tensor([1, 1]), axis=0)
    tensor([2., 2.])
    """
    source, chosen = as_tensor(x), as_indices("take", indices)
    if axis is None and source.ndim != 1:
        raise ShapeError(f"take needs axis= unless x is a vector; got shape {source.shape}")
    along = check_axis("take", 0 if axis is None else axis, source)
    return wrap(ops.take.node((source.node, chosen.node), {"axis": along}))


def as_indices(name: str, indices: Any) -> Tensor:
    """A tensor of whole numbers; an empty list counts as one. Raises DtypeError for other dtypes."""
    if isinstance(indices, list | tuple) and not indices:
        return Tensor(indices, DEFAULT_INTEGER)
    chosen = as_tensor(indices)
    if chosen.dtype.kind not in "iu":
        raise DtypeError(f"{name} needs whole numbers as indices; got {chosen.dtype.name}. Use astype(int64)")
    return chosen
