"""Attention: every query takes a weighted mean of the values, with weights that follow from how keys match it.

A query that may look at nothing gets 0, with gradient 0. Knows nothing of heads and projections.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..errors import DtypeError, ShapeError
from ..graph import constant
from ..operations import Array
from ..ops.shapes import broadcast_shapes
from ..tensor import Tensor, as_tensor, wrap
from ..tensor.elementwise import where
from ..tensor.manipulation import expand_dims, matrix_transpose, reshaped
from ..tensor.products import matmul
from ..tensor.random import Generator
from .activations import shares, shares_of_some
from .checks import check_number
from .composite import composite
from .dropout import check_rate, dropout

_NAME = "scaled_dot_product_attention"


@composite
def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """softmax(query·keyᵀ·scale)·value: query (…, L, E), key (…, S, E), value (…, S, V) → (…, L, V).

    attn_mask: broadcasts to (…, L, S); bools say who may look (True takes part), floats are added to the products.
    is_causal: query i looks at keys 0 … i only; together with a mask both hold. scale: 1/√E by default. dropout_p: the
    share of weights left out, always (pass 0 to predict). enable_gqa: the third axis from the end are heads, and
    groups of query heads share a key and a value head. A query that may look at nothing gets 0, and passes no
    gradient. Vaswani et al., "Attention is all you need", 2017.
    Raises ShapeError and DtypeError for what does not fit.

    >>> import chainrule as cr
    >>> x = cr.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> scaled_dot_product_attention(x, x, x, is_causal=True)[0].tolist()
    [1.0, 0.0]
    """
    q, k, v = as_tensor(query), as_tensor(key), as_tensor(value)
    check_parts(_NAME, q, k, v)
    if enable_gqa:
        k, v = _for_all_heads(k, q, "key"), _for_all_heads(v, q, "value")
    masks = [] if attn_mask is None else [as_tensor(attn_mask)]
    check_rate(_NAME, dropout_p, "dropout_p")
    return attend(_NAME, q, k, v, masks, is_causal, scale, dropout_p, generator)[0]


def attend(
    name: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    masks: Sequence[Tensor],
    causal: bool,
    scale: float | None = None,
    rate: float = 0.0,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """The means and the weights (…, L, S); every mask is one of bools or floats, as in `attn_mask`."""
    factor = 1 / math.sqrt(query.shape[-1] or 1) if scale is None else check_number(name, "scale", scale)
    scores = matmul(query * factor, matrix_transpose(key))
    for mask in masks:
        scores = _masked(name, scores, mask)
    if causal:
        rows, columns = scores.shape[-2:]
        scores = where(wrap(constant(_past(rows, columns))), scores, -math.inf)
    last = (scores.ndim - 1,)
    weights = shares_of_some(scores, last) if masks else shares(scores, last)
    if rate:
        weights = dropout(weights, rate, generator=generator)
    return matmul(weights, value), weights


@functools.lru_cache(maxsize=8)
def _past(rows: int, columns: int) -> Array:
    """Who may look at whom if nobody looks ahead; one array for all layers, so that a compiled step holds it once."""
    mask = np.tri(rows, columns, dtype=bool)
    mask.setflags(write=False)
    return mask


def _masked(name: str, scores: Tensor, mask: Tensor) -> Tensor:
    if mask.dtype.kind not in "bf":
        raise DtypeError(
            f"{name} needs a mask of bools, or of floats that are added; got {mask.dtype.name}{mask.shape}. "
            "Use mask.astype('bool')"
        )
    if broadcast_shapes(f"{name}, for the scores and the mask,", scores.shape, mask.shape) != scores.shape:
        raise ShapeError(
            f"{name} needs a mask that broadcasts to the scores, {scores.shape}; got {mask.shape}. Drop its extra axes"
        )
    if mask.dtype.kind == "b":
        return where(mask, scores, -math.inf)
    return scores + (mask if mask.dtype == scores.dtype else mask.astype(scores.dtype))


def check_parts(name: str, query: Tensor, key: Tensor, value: Tensor) -> None:
    """Floats of one dtype; equal widths of query and key, as many keys as values."""
    parts = (query, key, value)
    shown = " and ".join(f"{one.dtype.name}{one.shape}" for one in parts)
    if any(one.dtype != query.dtype or one.dtype.kind != "f" for one in parts):
        raise DtypeError(
            f"{name} needs query, key and value in floats of one dtype; got {shown}. Use x.astype(…)"
        )
    if any(one.ndim < 2 for one in parts):
        raise ShapeError(
            f"{name} needs query (…, L, E), key (…, S, E) and value (…, S, V); got {shown}. Add an axis"
        )
    if query.shape[-1] != key.shape[-1]:
        raise ShapeError(f"{name} needs queries and keys of one width; got {shown}. Project one of them")
    if key.shape[-2] != value.shape[-2]:
        raise ShapeError(f"{name} needs a value for each key; got {shown}. Use the same positions for both")


def _for_all_heads(part: Tensor, query: Tensor, what: str) -> Tensor:
    """Each head of keys or values once for every query head of its group."""
    if part.ndim < 3 or query.ndim < 3 or not part.shape[-3] or query.shape[-3] % part.shape[-3]:
        raise ShapeError(
            f"{_NAME} with enable_gqa needs heads on the third axis from the end, those of {what} dividing those of "
            f"the query; got {part.shape} and {query.shape}. Change the numbers of heads"
        )
    *batch, heads, length, width = part.shape
    group = query.shape[-3] // heads
    if group == 1:
        return part
    shape = (*batch, heads, group, length, width)
    spread = wrap(ops.broadcast_to.node((expand_dims(part, axis=-3).node,), {"shape": shape}))
    return reshaped(spread, (*batch, heads * group, length, width))
