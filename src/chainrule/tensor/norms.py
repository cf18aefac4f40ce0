"""Lengths of vectors and matrices, as the linear-algebra extension of the array API has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..dtypes import DEFAULT_FLOAT
from ..errors import ArgumentError, ShapeError
from ..graph import constant, scope
from ..ops.shapes import check_axes
from . import dispatch
from .core import Tensor, as_tensor, wrap
from .elementwise import abs as absolute
from .elementwise import isfinite, pow, where
from .statistical import max, min, sum


def vector_norm(
    x: Any,
    /,
    *,
    axis: int | Sequence[int] | None = None,
    keepdims: bool = False,
    ord: float = 2,
) -> Tensor:
    """(Σ |x|ᵖ)^(1/p) along `axis` (of all entries for None), p being `ord`; nothing overflows on the way.

    ord: inf gives the largest magnitude, -inf the smallest, 0 how many entries are not 0. Integers count as float32.
    At 0 the gradient is 0. Raises ShapeError for an axis that is not there, ArgumentError for an order that is no
    number.

    >>> import chainrule as cr
    >>> cr.linalg.vector_norm(cr.tensor([3.0, -4.0]))
    tensor(5.)
    """
    order = _number("vector_norm", ord)
    source = _floats(x)
    axes = check_axes("vector_norm", axis, source)
    with scope("vector_norm", "function"):
        sizes = absolute(source)
        if order == math.inf:
            return max(sizes, axis=axes, keepdims=keepdims)
        if order == -math.inf:
            return min(sizes, axis=axes, keepdims=keepdims)
        if order == 0:
            present = dispatch.astype((source != 0).node, source.dtype)
            return sum(wrap(present), axis=axes, keepdims=keepdims)
        if order == 1:
            return sum(sizes, axis=axes, keepdims=keepdims)
        return _power_mean(source, sizes, order, axes, keepdims)


def _power_mean(x: Tensor, sizes: Tensor, order: float, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    """The norm of entries divided by the largest magnitude, times it: as a constant it cancels in every derivative."""
    unit = _unit(sizes, axes)
    if order == 2:
        shares = x / unit
        result = _root(sum(shares * shares, axis=axes, keepdims=True)) * unit
    else:
        result = pow(sum(pow(sizes / unit, order), axis=axes, keepdims=True), 1.0 / order) * unit
    return result if keepdims else sum(result, axis=axes)


def _root(x: Tensor) -> Tensor:
    return wrap(ops.sqrt.node((x.node,), {}))


def _unit(sizes: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The largest magnitude where it is a number above 0, else 1."""
    if not all(sizes.shape[axis] for axis in axes):
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(sizes.shape))
        return wrap(constant(np.ones(kept, sizes.dtype)))
    largest = max(sizes.detach(), axis=axes, keepdims=True)
    return where((largest > 0) & isfinite(largest), largest, 1.0)


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: float | str | None = "fro") -> Tensor:
    """Norm of each matrix in the last two axes: "fro" √Σ|x|², 1 the largest sum of a column, inf that of a row.

    -1 and -inf: the smallest such sum. Raises ShapeError for fewer than two axes, ArgumentError for the orders that
    need singular values (2, -2, "nuc"), which are not offered.

    >>> import chainrule as cr
    >>> cr.linalg.matrix_norm(cr.tensor([[3.0, 0.0], [0.0, 4.0]]))
    tensor(5.)
    """
    source = _floats(x)
    if source.ndim < 2:
        raise ShapeError(f"matrix_norm needs at least two axes; got shape {source.shape}. Use vector_norm")
    if ord is None or ord == "fro":
        return vector_norm(source, axis=(-2, -1), keepdims=keepdims)
    order = _number("matrix_norm", ord)
    if order not in (1, -1, math.inf, -math.inf):
        raise ArgumentError(
            f"matrix_norm offers 'fro', 1, -1, inf and -inf; got ord={ord!r}, which needs singular values. Use 'fro'"
        )
    along, across = (-2, -1) if order in (1, -1) else (-1, -2)
    with scope("matrix_norm", "function"):
        sums = sum(absolute(source), axis=along, keepdims=True)
        choose = max if order > 0 else min
        largest = choose(sums, axis=across, keepdims=True)
        return largest if keepdims else sum(largest, axis=(-2, -1))


def _floats(x: Any) -> Tensor:
    source = as_tensor(x)
    return source if source.dtype.kind == "f" else wrap(dispatch.astype(source.node, DEFAULT_FLOAT))


def _number(name: str, order: Any) -> float:
    """The order as a number that is not NaN."""
    if isinstance(order, int | float | np.number) and not isinstance(order, bool) and not math.isnan(order):
        return float(order)
    raise ArgumentError(
        f"{name} needs a number, inf or -inf as ord; got {order!r}. Use 2 for the usual length"
    )
