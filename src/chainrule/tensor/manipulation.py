"""The array API's manipulation functions: the entries stay, their places change. Gradients change places back."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

from .. import ops
from ..errors import ArgumentError, DtypeError, ShapeError
from ..graph import Type, scope
from ..ops.shapes import broadcast_shapes as _broadcast_shapes
from ..ops.shapes import check_axes, check_axis
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
    wish = (shape,) if isinstance(shape, int) else tuple(int(size) for size in shape)
    if wish.count(-1) == 1:
        known = math.prod(size for size in wish if size != -1)
        if known == 0 or source.size % known:
            raise ShapeError(
                f"reshape cannot work out -1 in {wish}; got {source.shape}, {source.size} entries"
            )
        wish = tuple(source.size // known if size == -1 else size for size in wish)
    if wish == source.shape:
        return source
    return wrap(ops.reshape.node((source.node,), {"shape": wish})) if _fits(source, wish) else source


def _fits(x: Tensor, shape: tuple[int, ...]) -> bool:
    ops.reshape.types(x.node.type, shape=shape)
    return True


def permute_dims(x: Any, /, axes: tuple[int, ...]) -> Tensor:
    """Axes in another order: `axes[k]` says which axis becomes the k-th.

    >>> import chainrule as cr
    >>> cr.permute_dims(cr.zeros((2, 3)), (1, 0)).shape
    (3, 2)
    """
    source = as_tensor(x)
    order = check_axes("permute_dims", tuple(axes), source.node.type)
    ops.permute_dims.types(source.node.type, axes=order)
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
    return permute_dims(source, (*range(source.ndim - 2), source.ndim - 1, source.ndim - 2))


def moveaxis(x: Any, source: Axes, destination: Axes, /) -> Tensor:
    """Axes `source` moved to the places `destination`; the others keep their order.

    >>> import chainrule as cr
    >>> cr.moveaxis(cr.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    given = as_tensor(x)
    start = check_axes("moveaxis", source, given.node.type)
    end = check_axes("moveaxis", destination, given.node.type)
    if len(start) != len(end):
        raise ShapeError(f"moveaxis needs as many places as axes; got {source} and {destination}")
    order = [axis for axis in range(given.ndim) if axis not in start]
    for place, axis in sorted(zip(end, start)):
        order.insert(place, axis)
    return given if order == list(range(given.ndim)) else permute_dims(given, tuple(order))


def expand_dims(x: Any, /, *, axis: int | tuple[int, ...] = 0) -> Tensor:
    """New axes of size 1 at the places `axis` of the result.

    >>> import chainrule as cr
    >>> cr.expand_dims(cr.zeros(3), axis=1).shape
    (3, 1)
    """
    source = as_tensor(x)
    places = (axis,) if isinstance(axis, int) else tuple(axis)
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
    gone = check_axes("squeeze", axis, source.node.type)
    if builtins.any(source.shape[k] != 1 for k in gone):
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
    first = check_axis("flatten", start_dim, source.node.type)
    last = check_axis("flatten", end_dim, source.node.type)
    folded = math.prod(source.shape[first : last + 1])
    return reshape(source, (*source.shape[:first], folded, *source.shape[last + 1 :]))


def broadcast_to(x: Any, /, shape: tuple[int, ...]) -> Tensor:
    """`x` copied along new axes and along axes of size 1.

    >>> import chainrule as cr
    >>> cr.broadcast_to(cr.zeros(3), (2, 3)).shape
    (2, 3)
    """
    source = as_tensor(x)
    target = (shape,) if isinstance(shape, int) else tuple(shape)
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
    return _broadcast_shapes("broadcast_shapes", *shapes)


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
        given = [reshape(one, (-1,)) for one in given]
    along = check_axis("concat", 0 if axis is None else axis, given[0].node.type)
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
    return concat([expand_dims(one, axis=axis) for one in arrays], axis=axis)


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts along `axis`, without that axis.

    >>> import chainrule as cr
    >>> len(cr.unstack(cr.zeros((2, 3))))
    2
    """
    source = moveaxis(x, axis, 0)
    return tuple(source[k] for k in range(source.shape[0]))


def flip(x: Any, /, *, axis: Axes | None = None) -> Tensor:
    """Entries in reverse order along `axis` (every axis for None).

    >>> import chainrule as cr
    >>> cr.flip(cr.arange(3)).tolist()
    [2, 1, 0]
    """
    source = as_tensor(x)
    return wrap(ops.flip.node((source.node,), {"axes": check_axes("flip", axis, source.node.type)}))


def roll(x: Any, /, shift: int | tuple[int, ...], *, axis: Axes | None = None) -> Tensor:
    """Entries moved by `shift` places along `axis`; what leaves at one end enters at the other.

    >>> import chainrule as cr
    >>> cr.roll(cr.arange(3), 1).tolist()
    [2, 0, 1]
    """
    source = as_tensor(x)
    if axis is None:
        return reshape(roll(reshape(source, (-1,)), shift, axis=0), source.shape)
    axes = check_axes("roll", axis, source.node.type)
    shifts = (shift,) * len(axes) if isinstance(shift, int) else tuple(shift)
    if len(shifts) != len(axes):
        raise ArgumentError(f"roll needs one shift for each axis; got {shift} and {axis}")
    result = source
    for one, along in zip(shifts, axes):
        size = result.shape[along]
        cut = -one % size if size else 0
        if cut:
            before = (slice(None),) * along
            result = concat(
                [result[(*before, slice(cut, None))], result[(*before, slice(None, cut))]], axis=along
            )
    return result


def repeat(x: Any, repeats: Any, /, *, axis: int | None = None) -> Tensor:
    """Each entry `repeats` times along `axis` (flattened first for None).

    >>> import chainrule as cr
    >>> cr.repeat(cr.arange(2), 2).tolist()
    [0, 0, 1, 1]
    """
    source = reshape(x, (-1,)) if axis is None else as_tensor(x)
    along = check_axis("repeat", 0 if axis is None else axis, source.node.type)
    times = as_tensor(repeats)._array()
    places = ops.NUMPY.repeat(ops.NUMPY.arange(source.shape[along]), times)
    return take(source, places, axis=along)


def tile(x: Any, repetitions: tuple[int, ...], /) -> Tensor:
    """The whole array repeated along each axis.

    >>> import chainrule as cr
    >>> cr.tile(cr.arange(2), (2,)).tolist()
    [0, 1, 0, 1]
    """
    source = as_tensor(x)
    times = (1,) * (source.ndim - len(repetitions)) + tuple(repetitions)
    source = reshape(source, (1,) * (len(times) - source.ndim) + source.shape)
    with scope("tile", "function"):
        for axis, count in enumerate(times):
            source = (
                concat([source] * count, axis=axis) if count else source[(slice(None),) * axis + (slice(0),)]
            )
    return source


def pad(x: Any, /, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Zeros before and after along each axis: `widths[k]` = (before, after).

    >>> import chainrule as cr
    >>> cr.pad(cr.ones(1), [(1, 2)])
    tensor([0., 1., 0., 0.])
    """
    source = as_tensor(x)
    if len(widths) != source.ndim or builtins.any(a < 0 or b < 0 for a, b in widths):
        raise ShapeError(f"pad needs (before, after) from 0 for each axis of {source.shape}; got {widths}")
    low, high = tuple(a for a, _ in widths), tuple(b for _, b in widths)
    attributes = {"low": low, "high": high, "interior": (0,) * source.ndim}
    return wrap(ops.pad.node((source.node,), attributes))


def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Tensor:
    """Entries at `indices` along `axis`. Raises BoundsError for an index outside the axis.

    >>> import chainrule as cr
    >>> cr.take(cr.tensor([1.0, 2.0]), cr.tensor([1, 1]), axis=0)
    tensor([2., 2.])
    """
    source, chosen = as_tensor(x), as_tensor(indices)
    if axis is None and source.ndim != 1:
        raise ShapeError(f"take needs axis= unless x is a vector; got shape {source.shape}")
    along = check_axis("take", 0 if axis is None else axis, source.node.type)
    if chosen.dtype.kind not in "iu":
        raise DtypeError(f"take needs whole numbers as indices; got {chosen.dtype.name}. Use astype(int64)")
    return wrap(ops.take.node((source.node, chosen.node), {"axis": along}))
