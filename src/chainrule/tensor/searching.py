"""Finding positions: the array API's searching, sorting and set functions.

What depends on values in its shape (`nonzero`, `unique_*`) needs numbers, so it works eagerly only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..dtypes import bool_, promote
from ..errors import ArgumentError, ShapeError, TraceError
from ..graph import Node, state
from ..operations import CONSTANT
from ..ops.shapes import broadcast_shapes, check_axis
from . import dispatch
from .core import Tensor, as_tensor, wrap
from .creation import zeros
from .elementwise import clip, logical_not
from .manipulation import as_indices, expand_dims, moved, reshaped, take


def _position(op: ops.Discrete, x: Any, axis: int | None, keepdims: bool) -> Tensor:
    source = as_tensor(x)
    if axis is None:
        found = wrap(op.node((reshaped(source, (source.size,)).node,), {"axis": 0}))
        return reshaped(found, (1,) * source.ndim) if keepdims else found
    along = check_axis(op.name, axis, source)
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
    along = check_axis("argsort", axis, source)
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
    source, chosen = as_tensor(x), as_indices("take_along_axis", indices)
    along = check_axis("take_along_axis", axis, source)
    if chosen.ndim != source.ndim:
        raise ShapeError(
            f"take_along_axis needs indices with {source.ndim} axes; got {chosen.shape} for {source.shape}. "
            "Add axes with None, or use take"
        )
    entries, picked = moved(source, along, -1), moved(chosen, along, -1)
    rows = broadcast_shapes("take_along_axis", entries.shape[:-1], picked.shape[:-1])
    nodes = (
        dispatch.broadcast(entries.node, (*rows, entries.shape[-1])),
        dispatch.broadcast(picked.node, (*rows, picked.shape[-1])),
    )
    return moved(wrap(ops.take_along.node(nodes, {})), -1, along)


def nonzero(x: Any, /) -> tuple[Tensor, ...]:
    """Positions of the entries that are not 0, one int64 vector for each axis.

    >>> import chainrule as cr
    >>> cr.nonzero(cr.tensor([0.0, 5.0]))[0].tolist()
    [1]
    """
    source = as_tensor(x)
    if not source.ndim:
        raise ShapeError("nonzero needs at least one axis; got a tensor of shape (). Compare with 0 instead")
    array = _known(
        "nonzero", source, "Compare, and use the bools with cr.where, or count them with cr.count_nonzero"
    )
    return tuple(_constant(one) for one in np.nonzero(array))


def _known(name: str, x: Tensor, cure: str) -> NDArray[Any]:
    """The numbers of a tensor. Raises TraceError where a compiled step has none yet: the result has no shape then."""
    if x.node.value is None and state.trace is not None and not state.trace.forces:
        raise TraceError(
            f"{state.trace.place} the shape of every result must be known, and that of {name} depends on the data; got "
            f"Traced {x.node.type}. {cure}, call {name} outside the step, or run it with cr.compile(..., fallback=True)"
        )
    return x._array()


def _constant(array: Any) -> Tensor:
    """A tensor of a fresh array; positions and counts become int64."""
    value = np.ascontiguousarray(array).reshape(np.shape(array))
    return wrap(Node(CONSTANT, value=value.astype(np.int64) if value.dtype == np.intp else value))


def searchsorted(x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None) -> Tensor:
    """Where the entries of `x2` would be inserted into the sorted vector `x1`; int64, in the shape of x2.

    side: "left" before equal entries, "right" behind them. sorter: positions that sort `x1`.

    >>> import chainrule as cr
    >>> cr.searchsorted(cr.tensor([1.0, 2.0]), cr.tensor([1.5])).tolist()
    [1]
    """
    if side not in ("left", "right"):
        raise ArgumentError(f"searchsorted needs side 'left' or 'right'; got {side!r}")
    ordered, values = as_tensor(x1), as_tensor(x2)
    if ordered.ndim != 1:
        raise ShapeError(
            f"searchsorted looks into a vector; got shape {ordered.shape}. Take one row at a time"
        )
    dtype = promote(ordered.dtype, values.dtype)
    if sorter is not None:
        order = as_indices("searchsorted", sorter)
        if order.shape != ordered.shape:
            raise ShapeError(
                f"sorter needs one position for each entry, {ordered.shape}; got {order.shape}. Use cr.argsort"
            )
        ordered = take(ordered, order, axis=0)
    nodes = (dispatch.astype(ordered.node, dtype), dispatch.astype(values.node, dtype))
    return wrap(ops.searchsorted.node(nodes, {"side": side}))


class UniqueCounts(NamedTuple):
    """The different entries in order, and how often each occurs."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """The different entries in order, and for each entry its position among them."""

    values: Tensor
    inverse_indices: Tensor


class UniqueAll(NamedTuple):
    """Different entries, first positions, positions of each entry among them, and counts."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


def unique_values(x: Any, /) -> Tensor:
    """The different entries, in order; each NaN counts as different.

    >>> import chainrule as cr
    >>> cr.unique_values(cr.tensor([2, 1, 2])).tolist()
    [1, 2]
    """
    return unique_all(x).values


def unique_counts(x: Any, /) -> UniqueCounts:
    """The different entries in order, and how often each occurs.

    >>> import chainrule as cr
    >>> cr.unique_counts(cr.tensor([2, 1, 2])).counts.tolist()
    [1, 2]
    """
    found = unique_all(x)
    return UniqueCounts(found.values, found.counts)


def unique_inverse(x: Any, /) -> UniqueInverse:
    """The different entries in order, and for each entry of `x` its position among them.

    >>> import chainrule as cr
    >>> cr.unique_inverse(cr.tensor([2, 1, 2])).inverse_indices.tolist()
    [1, 0, 1]
    """
    found = unique_all(x)
    return UniqueInverse(found.values, found.inverse_indices)


def unique_all(x: Any, /) -> UniqueAll:
    """Different entries, first positions, positions of each entry among them, and counts.

    The values are read out of `x`, so a gradient passes to the first place of each.

    >>> import chainrule as cr
    >>> cr.unique_all(cr.tensor([2, 1, 2])).indices.tolist()
    [1, 0]
    """
    source = as_tensor(x)
    array = _known("unique_all", source, "Use cr.isin or cr.searchsorted against values known beforehand")
    _, first, inverse, counts = np.unique(
        array, return_index=True, return_inverse=True, return_counts=True, equal_nan=False
    )
    values = take(reshaped(source, (source.size,)), first, axis=0)
    return UniqueAll(values, _constant(first), _constant(inverse.reshape(array.shape)), _constant(counts))


def isin(x: Any, values: Any, /, *, invert: bool = False) -> Tensor:
    """Whether each entry of `x` is among `values`; bools.

    >>> import chainrule as cr
    >>> cr.isin(cr.tensor([1, 5]), cr.tensor([5])).tolist()
    [False, True]
    """
    entries, among = as_tensor(x), as_tensor(values)
    dtype = promote(entries.dtype, among.dtype)
    if not among.size:
        hit = zeros(entries.shape, dtype=bool_)
        return logical_not(hit) if invert else hit
    ordered = sort(reshaped(wrap(dispatch.astype(among.node, dtype)), (among.size,)))
    wanted = wrap(dispatch.astype(entries.node, dtype))
    place = clip(searchsorted(ordered, wanted), max=among.size - 1)
    hit = take(ordered, place, axis=0) == wanted
    return logical_not(hit) if invert else hit
