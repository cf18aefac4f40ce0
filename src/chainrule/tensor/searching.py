"""Finding positions: the array API's searching, sorting and set functions.

What depends on values in its shape (`nonzero`, `unique_*`) needs numbers, so it works eagerly only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..dtypes import DEFAULT_INTEGER, bool_
from ..errors import ArgumentError, BoundsError, DtypeError, ShapeError
from ..graph import CONSTANT, Node
from ..ops.shapes import check_axis
from . import dispatch
from .core import Tensor, as_tensor, wrap
from .manipulation import expand_dims, moveaxis, reshape, take


def _position(op: ops.Discrete, x: Any, axis: int | None, keepdims: bool) -> Tensor:
    source = as_tensor(x)
    if axis is None:
        found = wrap(op.node((reshape(source, (-1,)).node,), {"axis": 0}))
        return reshape(found, (1,) * source.ndim) if keepdims else found
    along = check_axis(op.name, axis, source.node.type)
    found = wrap(op.node((source.node,), {"axis": along}))
    return expand_dims(found, axis=along) if keepdims else found


def argmax(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Position of the first largest entry along `axis` (in the flattened array for None); int64.

    >>> import chainrule as cr
    >>> cr.argmax(cr.tensor([1.0, 3.0])).item()
    1
    """
    return _position(ops.argmax, x, axis, keepdims)


def argmin(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Position of the first smallest entry along `axis` (in the flattened array for None); int64.

    >>> import chainrule as cr
    >>> cr.argmin(cr.tensor([1.0, 3.0])).item()
    0
    """
    return _position(ops.argmin, x, axis, keepdims)


def argsort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """Positions that sort `x` along `axis`; int64. Always stable.

    >>> import chainrule as cr
    >>> cr.argsort(cr.tensor([3.0, 1.0])).tolist()
    [1, 0]
    """
    source = as_tensor(x)
    along = check_axis("argsort", axis, source.node.type)
    return wrap(ops.argsort.node((source.node,), {"axis": along, "descending": descending}))


def sort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """`x` in order along `axis`; each entry keeps its own gradient.

    >>> import chainrule as cr
    >>> cr.sort(cr.tensor([3.0, 1.0]))
    tensor([1., 3.])
    """
    from_order = argsort(x, axis=axis, descending=descending)
    return take_along_axis(x, from_order, axis=axis)


def take_along_axis(x: Any, indices: Any, /, *, axis: int = -1) -> Tensor:
    """Entries at `indices` along `axis`, row by row; other axes broadcast. Raises BoundsError outside.

    >>> import chainrule as cr
    >>> cr.take_along_axis(cr.tensor([[1.0, 2.0]]), cr.tensor([[1]]), axis=1)
    tensor([[2.]])
    """
    source, chosen = as_tensor(x), as_tensor(indices)
    along = check_axis("take_along_axis", axis, source.node.type)
    if chosen.dtype.kind not in "iu":
        raise DtypeError(f"take_along_axis needs whole numbers as indices; got {chosen.dtype.name}")
    if chosen.ndim != source.ndim:
        raise ShapeError(
            f"take_along_axis needs indices with {source.ndim} axes; got {chosen.shape} for {source.shape}"
        )
    moved = moveaxis(source, along, -1)
    picked = moveaxis(chosen, along, -1)
    rows = int(np.prod(moved.shape[:-1], dtype=int))
    size = moved.shape[-1]
    shape = (*moved.shape[:-1], picked.shape[-1])
    picked = wrap(dispatch.expand(picked.node, shape))
    flat = rows_take(reshape(moved, (rows, size)), reshape(picked, (rows, shape[-1])))
    return moveaxis(reshape(flat, shape), -1, along)


def rows_take(x: Tensor, indices: Tensor) -> Tensor:
    """x[row, indices[row, k]] of matrices (rows, size) and (rows, k), as one flat `take`."""
    rows, size = x.shape
    bounded = _bounded(indices, size)
    start = wrap(Node(CONSTANT, value=np.arange(rows, dtype=np.int64).reshape(rows, 1) * size))
    return take(reshape(x, (-1,)), bounded + start, axis=0)


def _bounded(indices: Tensor, size: int) -> Tensor:
    """Indices as int64 from 0, checked where they are known (a flat index would slip into the next row)."""
    whole = dispatch.astype(indices.node, DEFAULT_INTEGER)
    if whole.value is None:
        return wrap(whole)
    low, high = (whole.value.min(), whole.value.max()) if whole.value.size else (0, 0)
    if low < -size or high >= size:
        raise BoundsError(
            f"an index along an axis of {size} must be from {-size} to {size - 1}; got {low} to {high}. "
            "Check the labels or tokens against the number of classes"
        )
    return wrap(whole) if low >= 0 else wrap(Node(CONSTANT, value=whole.value % size))


def nonzero(x: Any, /) -> tuple[Tensor, ...]:
    """Positions of the entries that are not 0, one int64 vector for each axis.

    >>> import chainrule as cr
    >>> cr.nonzero(cr.tensor([0.0, 5.0]))[0].tolist()
    [1]
    """
    return tuple(wrap(Node(CONSTANT, value=one)) for one in np.nonzero(as_tensor(x)._array()))


def searchsorted(x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None) -> Tensor:
    """Where the entries of `x2` would be inserted into the sorted vector `x1`; int64.

    >>> import chainrule as cr
    >>> cr.searchsorted(cr.tensor([1.0, 2.0]), cr.tensor([1.5])).tolist()
    [1]
    """
    if side not in ("left", "right"):
        raise ArgumentError(f"searchsorted needs side 'left' or 'right'; got {side!r}")
    order = None if sorter is None else as_tensor(sorter)._array()
    found = np.searchsorted(as_tensor(x1)._array(), as_tensor(x2)._array(), side=side, sorter=order)  # type: ignore[call-overload]
    return wrap(Node(CONSTANT, value=np.asarray(found, np.int64)))


def unique_values(x: Any, /) -> Tensor:
    """The different entries, in order.

    >>> import chainrule as cr
    >>> cr.unique_values(cr.tensor([2, 1, 2])).tolist()
    [1, 2]
    """
    return wrap(Node(CONSTANT, value=np.unique(as_tensor(x)._array(), equal_nan=False)))


def unique_counts(x: Any, /) -> tuple[Tensor, Tensor]:
    """The different entries in order, and how often each occurs.

    >>> import chainrule as cr
    >>> cr.unique_counts(cr.tensor([2, 1, 2]))[1].tolist()
    [1, 2]
    """
    values, counts = np.unique(as_tensor(x)._array(), return_counts=True, equal_nan=False)
    return wrap(Node(CONSTANT, value=values)), wrap(Node(CONSTANT, value=counts.astype(np.int64)))


def unique_inverse(x: Any, /) -> tuple[Tensor, Tensor]:
    """The different entries in order, and for each entry of `x` its position among them.

    >>> import chainrule as cr
    >>> cr.unique_inverse(cr.tensor([2, 1, 2]))[1].tolist()
    [1, 0, 1]
    """
    source = as_tensor(x)._array()
    values, inverse = np.unique(source, return_inverse=True, equal_nan=False)
    places = inverse.reshape(source.shape).astype(np.int64)
    return wrap(Node(CONSTANT, value=values)), wrap(Node(CONSTANT, value=places))


def unique_all(x: Any, /) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Different entries, first positions, positions of each entry among them, and counts.

    >>> import chainrule as cr
    >>> cr.unique_all(cr.tensor([2, 1, 2]))[1].tolist()
    [1, 0]
    """
    source = as_tensor(x)._array()
    values, first, inverse, counts = np.unique(
        source, return_index=True, return_inverse=True, return_counts=True, equal_nan=False
    )
    parts = (values, first, inverse.reshape(source.shape), counts)
    a, b, c, d = (wrap(Node(CONSTANT, value=np.ascontiguousarray(part))) for part in parts)
    return a, b, c, d


def isin(x: Any, values: Any, /, *, invert: bool = False) -> Tensor:
    """Whether each entry of `x` is among `values`; bools.

    >>> import chainrule as cr
    >>> cr.isin(cr.tensor([1, 5]), cr.tensor([5])).tolist()
    [False, True]
    """
    found = np.isin(as_tensor(x)._array(), as_tensor(values)._array(), invert=invert)
    return wrap(Node(CONSTANT, value=np.asarray(found, bool_)))
