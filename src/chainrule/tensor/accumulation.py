"""Writes that add up where they meet: `scatter_add`, `index_add` and `index_put`, as in PyTorch, out of place."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..errors import DtypeError, ShapeError
from ..ops.shapes import check_axis
from .core import Tensor, as_tensor, wrap
from .indexing import placed, value_node
from .manipulation import as_indices, moved, pad


def scatter_add(x: Any, axis: int, index: Any, source: Any, /) -> Tensor:
    """`x` with each entry of `source` added where `index` says along `axis`; x itself stays as it is.

    The entry at (i, j, k) of source goes, for axis 1, to (i, index[i, j, k], k). All three have as many axes; index may
    be smaller than the others: what it does not reach stays, or is not added. Entries that meet add up.
    Raises BoundsError for an index outside, ShapeError for shapes that do not fit, DtypeError for bools.

    >>> import chainrule as cr
    >>> cr.scatter_add(cr.zeros(3), 0, cr.tensor([0, 2, 0]), cr.tensor([1.0, 2.0, 3.0]))
    tensor([4., 0., 2.])
    """
    target, places, given = _operands("scatter_add", x, index, source)
    along = check_axis("scatter_add", axis, target)
    fits = places.ndim == target.ndim == given.ndim and all(
        one <= from_ and (one <= into or k == along)
        for k, (one, from_, into) in enumerate(zip(places.shape, given.shape, target.shape))
    )
    if not fits:
        raise ShapeError(
            "scatter_add needs an index that is no larger than source, nor than x along the other axes; got x "
            f"{target.shape}, index {places.shape}, source {given.shape} for axis {along}. Use index_add to add rows"
        )
    if places.shape != given.shape:
        given = given[tuple([slice(size) for size in places.shape])]
    nodes = (moved(given, along, -1).node, moved(places, along, -1).node)
    sums = moved(wrap(ops.scatter_along.node(nodes, {"size": target.shape[along]})), -1, along)
    return target + pad(sums, [(0, into - size) for size, into in zip(sums.shape, target.shape)])


def index_add(x: Any, axis: int, index: Any, source: Any, /, *, alpha: float = 1) -> Tensor:
    """`x` with alpha · the k-th slice of `source` added to its slice number `index[k]` along `axis`; x stays.

    index: a vector of whole numbers; slices that meet add up. Raises as `scatter_add`.

    >>> import chainrule as cr
    >>> cr.index_add(cr.zeros((2, 2)), 0, cr.tensor([1, 1]), cr.ones((2, 2))).tolist()
    [[0.0, 0.0], [2.0, 2.0]]
    """
    target, places, given = _operands("index_add", x, index, source)
    along = check_axis("index_add", axis, target)
    wanted = (*target.shape[:along], places.size, *target.shape[along + 1 :])
    if places.ndim != 1 or given.shape != wanted:
        raise ShapeError(
            f"index_add needs a vector of indices and a source of shape {wanted}; got index {places.shape}, source "
            f"{given.shape} for x {target.shape} and axis {along}. Use scatter_add to add single entries"
        )
    attributes = {"axis": along, "size": target.shape[along]}
    sums = wrap(ops.scatter_add.node((given.node, places.node), attributes))
    return target + (sums if alpha == 1 else sums * alpha)


def index_put(x: Any, indices: Any, values: Any, /, *, accumulate: bool = False) -> Tensor:
    """`x` with `values` (broadcast) at `x[indices]`: what `x[indices] = values` does, on a copy.

    accumulate: the values are added to what is there, as often as a place is named; otherwise the last one stays.
    Raises as `x[indices] = values` does.

    >>> import chainrule as cr
    >>> cr.index_put(cr.zeros(3), (cr.tensor([0, 2, 0]),), cr.ones(3), accumulate=True)
    tensor([2., 0., 1.])
    """
    target = as_tensor(x)
    if accumulate:
        _refuse_bools("index_put", target)
    return placed(target, indices, value_node(target, values), accumulate)


def _operands(name: str, x: Any, index: Any, source: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The target, the indices, and what is added in the dtype of the target."""
    target = as_tensor(x)
    _refuse_bools(name, target)
    return target, as_indices(name, index), wrap(value_node(target, source))


def _refuse_bools(name: str, target: Tensor) -> None:
    if target.dtype.kind == "b":
        raise DtypeError(f"{name} adds numbers; got bools of shape {target.shape}. Use astype(int64)")
