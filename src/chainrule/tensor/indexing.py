"""`x[key]` and `x[key] = value`: integers, slices, None, Ellipsis, masks, and arrays of integers, as in NumPy.

Integers, forward slices, None and Ellipsis become regular slices; one array of integers among forward
slices becomes a `take` along its axis; everything else becomes flat positions and one `take` or `put`. So every
key that NumPy understands is understood.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..dtypes import DEFAULT_INTEGER, int64
from ..errors import BoundsError, DtypeError, ShapeError
from ..graph import Node
from ..operations import CONSTANT
from ..ops.shapes import broadcast_shapes
from . import dispatch
from .core import Tensor, as_tensor, wrap
from .manipulation import reshaped

_WHOLE = slice(None)
Keys = tuple[Any, ...]


def getitem(x: Tensor, key: Any) -> Tensor:
    """The part of `x` at `key`, as NumPy gives it, but always a tensor of its own.

    Raises BoundsError for an index outside its axis, DtypeError for a key that is no index.

    >>> import chainrule as cr
    >>> cr.tensor([[1.0, 2.0], [3.0, 4.0]])[:, -1]
    tensor([2., 4.])
    """
    keys = tuple([_plain(one) for one in (key if isinstance(key, tuple) else (key,))])
    keys = _without_ellipsis(x, keys)
    places = [k for k, one in enumerate(keys) if not _is_regular(one)]
    if not places:
        return _regular(x, keys)
    if len(places) == 1 and all(isinstance(one, slice) for k, one in enumerate(keys) if k != places[0]):
        indices = _as_indices(keys[places[0]])
        if indices is not None:
            rows = _regular(x, (*keys[: places[0]], _WHOLE, *keys[places[0] + 1 :]))
            return wrap(ops.take.node((rows.node, indices), {"axis": places[0]}))
    _refuse_traced(keys)
    flat = reshaped(x, (x.size,))
    return wrap(ops.take.node((flat.node, Node(CONSTANT, value=_positions(x.shape, keys))), {"axis": 0}))


def setitem(x: Tensor, key: Any, value: Any) -> None:
    """Point `x` at a copy of itself with `value` (broadcast) at `key`; no other tensor changes.

    Raises BoundsError for an index outside its axis, ShapeError for a value that does not fit, DtypeError for
    a value of a kind that `x` cannot hold, GradientError for a leaf that requires grad outside `no_grad`.

    >>> import chainrule as cr
    >>> x = cr.zeros(3)
    >>> x[1:] = 5.0
    >>> x
    tensor([0., 5., 5.])
    """
    x._refuse_leaf("x[i] = v")
    keys = tuple([_plain(one) for one in (key if isinstance(key, tuple) else (key,))])
    keys = _without_ellipsis(x, keys)
    _refuse_traced(keys)
    positions = _positions(x.shape, keys)
    node = _fitting(_value_node(x, value), positions.shape)
    flat = (
        reshaped(x, (x.size,)).node,
        Node(CONSTANT, value=positions.reshape(-1)),
        ops.reshape.node((node,), {"shape": (positions.size,)}),
    )
    x._assign("x[i] = v", reshaped(wrap(ops.put.node(flat, {})), x.shape))


def _value_node(x: Tensor, value: Any) -> Node:
    """The value in the dtype of `x`; Python numbers are weak, but a float is no integer."""
    if isinstance(value, bool | int | float) and not isinstance(value, np.generic):
        if isinstance(value, float) and x.dtype.kind != "f":
            raise DtypeError(f"x[i] = v keeps the dtype; got {value!r} for {x.dtype.name}. Use astype first")
        return as_tensor(value, x.dtype).node
    given = as_tensor(value)
    if not np.can_cast(given.dtype, x.dtype, "same_kind"):
        raise DtypeError(
            f"x[i] = v keeps the dtype; got {given.dtype.name} for {x.dtype.name}. Use astype on one of them"
        )
    return dispatch.astype(given.node, x.dtype)


def _fitting(node: Node, shape: tuple[int, ...]) -> Node:
    """The value in the shape of the chosen part; leading axes of size 1 may be too many, as in NumPy."""
    extra = len(node.shape) - len(shape)
    if extra > 0 and node.shape[:extra] == (1,) * extra:
        node = ops.reshape.node((node,), {"shape": node.shape[extra:]})
    try:
        fits = broadcast_shapes("x[i] = v", node.shape, shape) == shape
    except ShapeError:
        fits = False
    if not fits:
        raise ShapeError(
            f"x[i] = v needs a value that fits the chosen part, of shape {shape}; got {node.shape}. "
            "Reshape the value, or choose another part"
        )
    return dispatch.broadcast(node, shape)


# -------------------------------------------------------------------------------------- reading a key


def _plain(key: Any) -> Any:
    """One part of a key as an integer, a slice, None, Ellipsis, a NumPy array, or a traced tensor."""
    if key is None or key is Ellipsis or type(key) is int:
        return key
    if isinstance(key, slice):
        return _plain_slice(key)
    if isinstance(key, Tensor):
        if key.dtype.kind == "f":
            raise DtypeError(
                f"an index must be whole numbers or bools; got {key.dtype.name}. Use astype(int64)"
            )
        return key if key.node.value is None else _scalar_or_array(key._array())
    if isinstance(key, bool | int | np.generic | np.ndarray | list | tuple):
        array = np.asarray(dispatch.to_array(key)) if np.size(key) else np.asarray(key)
        if not array.size and array.dtype.kind == "f":
            array = array.astype(DEFAULT_INTEGER)
        if array.dtype.kind not in "biu":
            raise DtypeError(f"an index must be whole numbers or bools; got {array.dtype}. Use astype(int64)")
        return _scalar_or_array(array)
    raise DtypeError(
        f"an index must be whole numbers, bools, slices, None or ...; got {key!r}. Convert it to an integer"
    )


def _scalar_or_array(array: NDArray[Any]) -> Any:
    return int(array) if array.ndim == 0 and array.dtype.kind in "iu" else array


def _plain_slice(key: slice) -> slice:
    parts = []
    for part in (key.start, key.stop, key.step):
        try:
            parts.append(part if part is None or type(part) is int else part.__index__())
        except (AttributeError, TypeError):
            raise DtypeError(f"a slice needs whole numbers; got {part!r}. Convert it with int()") from None
    if parts[2] == 0:
        raise ShapeError("a slice needs a step other than 0; got 0")
    return slice(*parts)


def _is_regular(key: Any) -> bool:
    """An integer, a forward slice or None."""
    if isinstance(key, slice):
        return key.step is None or key.step > 0
    return key is None or type(key) is int


def _axes_of(key: Any) -> int:
    """How many axes of the tensor a part of a key stands for: a mask for as many as it has."""
    if key is None or key is Ellipsis:
        return 0
    return key.ndim if isinstance(key, np.ndarray | Tensor) and key.dtype.kind == "b" else 1


def _without_ellipsis(x: Tensor, keys: Keys) -> Keys:
    """The key with `...` written out, and whole slices for the axes that it does not name."""
    gaps = [k for k, one in enumerate(keys) if one is Ellipsis]
    if len(gaps) > 1:
        raise ShapeError("an index can hold one Ellipsis (...) at most; got several")
    used = sum([_axes_of(one) for one in keys])
    if used > x.ndim:
        raise BoundsError(
            f"a tensor of shape {x.shape} takes at most {x.ndim} indices; got {used}. Leave some out"
        )
    whole = (_WHOLE,) * (x.ndim - used)
    return keys[: gaps[0]] + whole + keys[gaps[0] + 1 :] if gaps else keys + whole


def _as_indices(key: Any) -> Node | None:
    """A node of integers for an integer array, or for a mask over one axis; None for anything else."""
    if isinstance(key, Tensor):
        return key.node if key.dtype.kind in "iu" else None
    if not isinstance(key, np.ndarray):
        return None
    return Node(CONSTANT, value=key) if key.dtype.kind in "iu" else None


def _refuse_traced(keys: Keys) -> None:
    if any(isinstance(one, Tensor) for one in keys):
        raise DtypeError(
            "inside cr.compile a tensor index must be one tensor of whole numbers beside slices; got a mask or "
            "several indices. Use cr.where, take or take_along_axis"
        )


# ------------------------------------------------------------------------------------- choosing entries


def _regular(x: Tensor, keys: Keys) -> Tensor:
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
            start, step = _inside(one, size, axis, x.shape), 1
            stop = start + 1
        starts.append(start)
        stops.append(stop)
        steps.append(step)
        axis += 1
    part = x
    if any(starts) or tuple(stops) != x.shape or steps != [1] * x.ndim:
        attributes = {"starts": tuple(starts), "stops": tuple(stops), "steps": tuple(steps)}
        part = wrap(ops.slice_.node((x.node,), attributes))
    part = reshaped(part, tuple(shape))
    return x.clone() if part is x else part


def _inside(index: int, size: int, axis: int, shape: tuple[int, ...]) -> int:
    if not -size <= index < size:
        limits = f"from {-size} to {size - 1}" if size else "none, for the axis is empty"
        raise BoundsError(f"an index along axis {axis} must be {limits}; got {index} for shape {shape}")
    return index % size


def _positions(shape: tuple[int, ...], keys: Keys) -> NDArray[Any]:
    """Flat positions (int64) of the entries that NumPy would choose from an array of `shape`.

    Each axis is asked for its own coordinate, so the work grows with what is chosen, not with the array.
    """
    axis = 0
    for one in keys:
        if type(one) is int:
            _inside(one, shape[axis], axis, shape)
        axis += _axes_of(one)
    total: Any = None
    stride = math.prod(shape)
    for axis, size in enumerate(shape):
        stride = stride // size if size else 0
        along = np.arange(size, dtype=int64).reshape((-1,) + (1,) * (len(shape) - axis - 1))
        chosen = _choose(np.broadcast_to(along, shape), keys) * stride
        total = chosen if total is None else total + chosen
    return np.asarray(_choose(np.zeros(shape, int64), keys) if total is None else total, int64)


def _choose(coordinates: NDArray[Any], keys: Keys) -> Any:
    try:
        return coordinates[keys]
    except IndexError as failure:
        raise BoundsError(
            f"the index does not fit a tensor of shape {coordinates.shape}; got an index where {failure}. "
            "Check the range and the shapes of the index arrays"
        ) from None
