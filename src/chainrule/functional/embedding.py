"""Embedding: rows of a table looked up by whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError, BoundsError, DtypeError, ShapeError
from ..tensor import Tensor, as_tensor, dispatch, wrap
from ..tensor.manipulation import expand_dims
from .checks import check_range
from .composite import composite


@composite
def embedding(input: Any, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """The rows of `weight` (rows, width) at `input` (any shape of whole numbers), of shape (*input.shape, width).

    The gradient of a row is the sum over its occurrences; that of row `padding_idx` (which may count from the end)
    is 0. Raises BoundsError for a number outside 0 … rows − 1, in a compiled step too, before anything is changed.

    >>> import chainrule as cr
    >>> embedding(cr.tensor([2, 0]), cr.tensor([[1.0], [2.0], [3.0]])).tolist()
    [[3.0], [1.0]]
    """
    table = as_tensor(weight)
    if table.ndim != 2:
        raise ShapeError(f"embedding needs a table (rows, width); got {table.shape}. Reshape the weight")
    indices = checked_indices("embedding", input, table.shape[0])
    return looked_up(indices, table, check_padding("embedding", padding_idx, table.shape[0]))


def checked_indices(name: str, input: Any, rows: int) -> Tensor:
    """Whole numbers from 0 to rows − 1."""
    indices = as_tensor(input)
    if isinstance(input, list | tuple) and not indices.size:
        indices = indices.astype("int64")
    if indices.dtype.kind not in "iu":
        raise DtypeError(
            f"{name} needs whole numbers as indices; got {indices.dtype.name}{indices.shape}. Use x.astype('int64')"
        )
    check_range(
        indices.node,
        0,
        rows - 1,
        f"{name} needs indices from 0 to {rows - 1}; got {{low}} to {{high}}. Check the data, or make the table larger",
        BoundsError,
    )
    return indices


def check_padding(name: str, padding_idx: Any, rows: int) -> int | None:
    """The number of the padding row counted from the front."""
    if padding_idx is None:
        return None
    whole = isinstance(padding_idx, int | np.integer) and not isinstance(padding_idx, bool)
    if not whole or not -rows <= padding_idx < rows:
        raise ArgumentError(
            f"{name} needs a row from {-rows} to {rows - 1} as padding_idx; got {padding_idx!r}. Change padding_idx="
        )
    return int(padding_idx) % rows


def looked_up(indices: Tensor, table: Tensor, padding: int | None) -> Tensor:
    """The rows; those of the padding are constants."""
    rows = wrap(ops.take.node((table.node, indices.node), {"axis": 0}))
    if padding is None:
        return rows
    padded = expand_dims(indices == padding, axis=-1).node
    return wrap(dispatch.broadcast_node(ops.where, (padded, rows.detach().node, rows.node)))
