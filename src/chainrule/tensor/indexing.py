"""`x[key]` and `x[key] = value`: integers, slices, None, Ellipsis, masks, and arrays of integers, as in NumPy.

Integers, forward slices, None and Ellipsis become regular slices; everything else becomes flat positions
and one `take` or `put`, so every key that NumPy understands is understood.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..dtypes import int64
from ..errors import BoundsError, DtypeError, ShapeError
from ..graph import CONSTANT, Node
from . import dispatch
from .core import Tensor, as_tensor, wrap
from .manipulation import reshape

_WHOLE = slice(None)


def getitem(x: Tensor, key: Any) -> Tensor:
    """The part of `x` at `key`, as NumPy gives it, but always a tensor of its own."""
    keys = key if isinstance(key, tuple) else (key,)
    if _is_regular(keys):
        return _regular(x, keys)
    traced = _single_traced(x, keys)
    if traced is not None:
        axis, indices = traced
        return wrap(ops.take.node((x.node, indices.node), {"axis": axis}))
    positions = _positions(x.shape, keys)
    flat = reshape(x, (-1,)) if x.ndim != 1 else x
    return wrap(ops.take.node((flat.node, Node(CONSTANT, value=positions)), {"axis": 0}))


def setitem(x: Tensor, key: Any, value: Any) -> None:
    """Point `x` at a copy of itself with `value` (broadcast) at `key`; no other tensor changes."""
    x._refuse_leaf("x[i] = v")
    keys = key if isinstance(key, tuple) else (key,)
    positions = _positions(x.shape, keys)
    given = as_tensor(value, x.dtype)
    if given.dtype.kind == "f" and x.dtype.kind != "f":
        raise DtypeError(f"x[i] = v keeps the dtype; got {given.dtype.name} for {x.dtype.name}. Use astype")
    node = dispatch.astype(given.node, x.dtype)
    if (
        node.ndim > positions.ndim
        and node.shape[: node.ndim - positions.ndim].count(1) == node.ndim - positions.ndim
    ):
        node = reshape(wrap(node), node.shape[node.ndim - positions.ndim :]).node
    try:
        np.broadcast_shapes(node.shape, positions.shape)
        fits = np.broadcast_shapes(node.shape, positions.shape) == positions.shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(f"x[i] = v needs v to fit the chosen part {positions.shape}; got {node.shape}")
    expanded = (
        node if node.shape == positions.shape else ops.broadcast_to.node((node,), {"shape": positions.shape})
    )
    flat = (
        reshape(x, (-1,)).node,
        Node(CONSTANT, value=positions.reshape(-1)),
        reshape(wrap(expanded), (-1,)).node,
    )
    x._assign("x[i] = v", reshape(wrap(ops.put.node(flat, {})), x.shape))


def _is_regular(keys: tuple[Any, ...]) -> bool:
    """Only integers, forward slices, None and Ellipsis."""
    for one in keys:
        if (
            one is None
            or one is Ellipsis
            or (isinstance(one, int | np.integer) and not isinstance(one, bool))
        ):
            continue
        if isinstance(one, slice) and (one.step is None or (isinstance(one.step, int) and one.step > 0)):
            continue
        return False
    return True


def _regular(x: Tensor, keys: tuple[Any, ...]) -> Tensor:
    keys = _without_ellipsis(x, keys)
    starts, stops, steps, shape = [], [], [], []
    axis = 0
    for one in keys:
        if one is None:
            shape.append(1)
            continue
        size = x.shape[axis]
        if isinstance(one, slice):
            start, stop, step = one.indices(size)
            stop = max(start, stop)
            shape.append(len(range(start, stop, step)))
        else:
            start, step = _inside(int(one), size, axis, x), 1
            stop = start + 1
        starts.append(start)
        stops.append(stop)
        steps.append(step)
        axis += 1
    attributes = {"starts": tuple(starts), "stops": tuple(stops), "steps": tuple(steps)}
    whole = attributes == {"starts": (0,) * x.ndim, "stops": x.shape, "steps": (1,) * x.ndim}
    part = x if whole else wrap(ops.slice_.node((x.node,), attributes))
    return reshape(part, tuple(shape)) if part.shape != tuple(shape) else part.clone() if part is x else part


def _inside(index: int, size: int, axis: int, x: Tensor) -> int:
    if not -size <= index < size:
        raise BoundsError(
            f"an index along axis {axis} must be from {-size} to {size - 1}; got {index} for shape {x.shape}"
        )
    return index % size


def _without_ellipsis(x: Tensor, keys: tuple[Any, ...]) -> tuple[Any, ...]:
    """The key with `...` written out, and whole slices for the axes that it does not name."""
    if sum(one is Ellipsis for one in keys) > 1:
        raise ShapeError("an index can hold one Ellipsis (...) at most; got several")
    used = sum(one is not None and one is not Ellipsis for one in keys)
    if used > x.ndim:
        raise BoundsError(f"too many indices: {used} for a tensor of shape {x.shape}")
    whole = (_WHOLE,) * (x.ndim - used)
    if Ellipsis in [one for one in keys if one is Ellipsis]:
        place = next(k for k, one in enumerate(keys) if one is Ellipsis)
        return keys[:place] + whole + keys[place + 1 :]
    return keys + whole


def _single_traced(x: Tensor, keys: tuple[Any, ...]) -> tuple[int, Tensor] | None:
    """(axis, indices) for a key with one integer tensor that has no numbers yet and whole slices before it."""
    places = [k for k, one in enumerate(keys) if isinstance(one, Tensor) and one.node.value is None]
    if not places:
        return None
    place = places[0]
    only = len(places) == 1 and all(
        isinstance(one, slice) and one == _WHOLE for k, one in enumerate(keys) if k != place
    )
    indices = keys[place]
    if not only or indices.dtype.kind not in "iu":
        raise DtypeError(
            "inside cr.compile a tensor index must be one tensor of whole numbers; got a mask or several "
            "tensors. Use cr.where, take or take_along_axis"
        )
    return place, indices


def _positions(shape: tuple[int, ...], keys: tuple[Any, ...]) -> Any:
    """Flat positions (int64) of the entries that NumPy would choose from an array of `shape`."""
    plain = tuple(_plain(one) for one in keys)
    all_positions = np.arange(int(np.prod(shape, dtype=int)), dtype=int64).reshape(shape)
    try:
        return np.asarray(all_positions[plain])
    except IndexError as failure:
        raise BoundsError(f"the index does not fit a tensor of shape {shape}: {failure}") from failure


def _plain(key: Any) -> Any:
    if isinstance(key, Tensor):
        key = key._array()
    if isinstance(key, list):
        key = np.asarray(key, dtype=int64 if not key else None)
    if isinstance(key, np.ndarray) and key.dtype.kind not in "biu":
        raise DtypeError(f"an index must be whole numbers or bools; got {key.dtype}. Use astype(int64)")
    if isinstance(key, float | str):
        raise DtypeError(f"an index must be whole numbers, bools or slices; got {key!r}")
    return key
