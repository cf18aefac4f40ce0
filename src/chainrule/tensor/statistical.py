"""Sums, products, extremes, means, running totals: the array API's statistics.

`axis` takes one axis, several, or None for all; PyTorch's `dim` is understood by `functional` and `nn`.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import ops
from ..dtypes import DEFAULT_FLOAT, DEFAULT_INTEGER, Dtype, as_dtype, uint64
from ..errors import ArgumentError, ShapeError
from ..graph import Node, scope
from ..operations import CONSTANT
from ..ops.shapes import check_axes, check_axis, whole
from . import dispatch
from .core import Tensor, as_tensor, elementwise, wrap
from .manipulation import broadcast_to, concat, moved, reshaped

Axis = int | Sequence[int] | None


def _axes(name: str, axis: Axis, x: Tensor) -> tuple[int, ...]:
    return tuple(range(x.ndim)) if axis is None else check_axes(name, axis, x)


def _summed_dtype(dtype: Dtype, wish: DTypeLike | None) -> Dtype:
    if wish is not None:
        return as_dtype(wish)
    if dtype.kind == "f":
        return dtype
    return uint64 if dtype.kind == "u" else DEFAULT_INTEGER


def sum(x: Any, /, *, axis: Axis = None, dtype: DTypeLike | None = None, keepdims: bool = False) -> Tensor:
    """Sum along `axis`. Small integers and bools are summed as int64 (uint64 if unsigned).

    Each entry receives a copy of the gradient.

    >>> import chainrule as cr
    >>> cr.sum(cr.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0)
    tensor([4., 6.])
    """
    source = as_tensor(x)
    node = dispatch.astype(source.node, _summed_dtype(source.dtype, dtype))
    return wrap(ops.sum_.node((node,), {"axes": _axes("sum", axis, source), "keepdims": keepdims}))


def mean(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Arithmetic mean along `axis`; bools and integers count as float32. The mean of nothing is NaN.

    >>> import chainrule as cr
    >>> cr.mean(cr.tensor([1.0, 3.0]))
    tensor(2.)
    """
    source = _floating(x)
    axes = _axes("mean", axis, source)
    with scope("mean", "function"):
        return sum(source, axis=axes, keepdims=keepdims) / _count(source, axes)


def _floating(x: Any) -> Tensor:
    source = as_tensor(x)
    return source if source.dtype.kind == "f" else _as(source, DEFAULT_FLOAT)


def _as(x: Tensor, dtype: Dtype) -> Tensor:
    """`x` in another dtype; the same handle if it has it already (a node has one handle that hears from it)."""
    return x if x.dtype == dtype else wrap(dispatch.astype(x.node, dtype))


def _count(x: Tensor, axes: tuple[int, ...]) -> float:
    shape = x.shape
    return float(math.prod([shape[axis] for axis in axes]))


def centred(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(x − mean, mean) of floats along `axes`, which stay as axes of size 1.

    The mean is taken of the distances from the first entry, which is a constant for the gradient: of what is moved by a
    constant neither the distances nor their slopes change. So nothing is lost where the mean is much larger than the
    distances, and a mean that is off by its own rounding is put right.
    Source: T. F. Chan, G. H. Golub and R. J. LeVeque, "Algorithms for computing the sample variance", 1983.

    >>> import chainrule as cr
    >>> [one.tolist() for one in centred(cr.tensor([1.0, 3.0]), (0,))]
    [[-1.0, 1.0], [2.0]]
    """
    if not _count(x, axes):
        middle = mean(x, axis=axes, keepdims=True)
        return x - middle, middle
    stops = tuple(1 if k in axes else size for k, size in enumerate(x.shape))
    every = {"starts": (0,) * x.ndim, "stops": stops, "steps": (1,) * x.ndim}
    first = wrap(ops.slice_.node((x.detach().node,), every))
    near = x - first
    rest = mean(near, axis=axes, keepdims=True)
    return near - rest, first + rest


def var(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Mean squared distance from the mean along `axis`; `correction` 1 gives the unbiased estimate.

    >>> import chainrule as cr
    >>> cr.var(cr.tensor([1.0, 3.0]))
    tensor(1.)
    """
    source = _floating(x)
    axes = _axes("var", axis, source)
    with scope("var", "function"):
        distance, _ = centred(source, axes)
        total = sum(distance * distance, axis=axes, keepdims=keepdims)
        return total / builtins.max(_count(source, axes) - correction, 0.0)


def std(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Square root of `var`.

    >>> import chainrule as cr
    >>> cr.std(cr.tensor([1.0, 3.0]))
    tensor(1.)
    """
    with scope("std", "function"):
        return elementwise(ops.sqrt, var(x, axis=axis, correction=correction, keepdims=keepdims))


def max(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Largest entry along `axis`; NaN if there is one. Ties share the gradient equally.

    >>> import chainrule as cr
    >>> cr.max(cr.tensor([1.0, 3.0]))
    tensor(3.)
    """
    source = as_tensor(x)
    return wrap(
        ops.reduce_max.node((source.node,), {"axes": _axes("max", axis, source), "keepdims": keepdims})
    )


def min(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Smallest entry along `axis`; NaN if there is one. Ties share the gradient equally.

    >>> import chainrule as cr
    >>> cr.min(cr.tensor([1.0, 3.0]))
    tensor(1.)
    """
    source = as_tensor(x)
    return wrap(
        ops.reduce_min.node((source.node,), {"axes": _axes("min", axis, source), "keepdims": keepdims})
    )


def prod(x: Any, /, *, axis: Axis = None, dtype: DTypeLike | None = None, keepdims: bool = False) -> Tensor:
    """Product along `axis`, by halves: so the gradient is right when factors are 0, at every order.

    >>> import chainrule as cr
    >>> x = cr.tensor([2.0, 0.0, 3.0], requires_grad=True)
    >>> cr.prod(x).backward()
    >>> x.grad
    tensor([0., 6., 0.])
    """
    source = as_tensor(x)
    source = _as(source, _summed_dtype(source.dtype, dtype))
    axes = _axes("prod", axis, source)
    kept = tuple(1 if k in axes else size for k, size in enumerate(source.shape))
    rest = tuple(size for k, size in enumerate(source.shape) if k not in axes)
    with scope("prod", "function"):
        folded = moved(source, axes, tuple(range(len(axes))))
        folded = reshaped(folded, (int(_count(source, axes)), *rest))
        while folded.shape[0] > 1:
            half = folded.shape[0] // 2
            odd = folded[2 * half :]
            folded = folded[:half] * folded[half : 2 * half]
            folded = concat([folded, odd], axis=0) if odd.shape[0] else folded
        # Of one factor nothing is left to multiply, and the sum drops the axis; of none it gives 0.
        product = sum(folded, axis=0, dtype=source.dtype)
        product = product if folded.shape[0] else product + 1
        return reshaped(product, kept if keepdims else rest)


def all(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether every entry along `axis` is true (not 0); true for no entries.

    >>> import chainrule as cr
    >>> cr.all(cr.tensor([True, False])).item()
    False
    """
    return sum(as_tensor(x) == 0, axis=axis, keepdims=keepdims) == 0


def any(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether some entry along `axis` is true (not 0).

    >>> import chainrule as cr
    >>> cr.any(cr.tensor([True, False])).item()
    True
    """
    return sum(as_tensor(x) != 0, axis=axis, keepdims=keepdims) != 0


def count_nonzero(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """How many entries along `axis` are not 0; int64.

    >>> import chainrule as cr
    >>> cr.count_nonzero(cr.tensor([1.0, 0.0])).item()
    1
    """
    return sum(as_tensor(x) != 0, axis=axis, keepdims=keepdims)


def cumulative_sum(
    x: Any, /, *, axis: int | None = None, dtype: DTypeLike | None = None, include_initial: bool = False
) -> Tensor:
    """Running total along `axis` (which may be left out for vectors).

    >>> import chainrule as cr
    >>> cr.cumulative_sum(cr.tensor([1.0, 2.0, 3.0]))
    tensor([1., 3., 6.])
    """
    source, along = _running(x, axis, dtype)
    total = wrap(ops.cumulative_sum.node((source.node,), {"axis": along}))
    return _with_initial(total, 0, along) if include_initial else total


def cumulative_prod(
    x: Any, /, *, axis: int | None = None, dtype: DTypeLike | None = None, include_initial: bool = False
) -> Tensor:
    """Running product along `axis`, by doubling steps: so the gradient is right when factors are 0.

    >>> import chainrule as cr
    >>> cr.cumulative_prod(cr.tensor([1.0, 2.0, 3.0]))
    tensor([1., 2., 6.])
    """
    source, along = _running(x, axis, dtype)
    result, size = source, source.shape[along]
    with scope("cumulative_prod", "function"):
        step = 1
        while step < size:
            head, tail = _cut(result, along, 0, step), _cut(result, along, step, size)
            result = concat([head, tail * _cut(result, along, 0, size - step)], axis=along)
            step *= 2
    if include_initial:
        return _with_initial(result, 1, along)
    return result.clone() if result is source else result


def _running(x: Any, axis: int | None, dtype: DTypeLike | None) -> tuple[Tensor, int]:
    source = as_tensor(x)
    if axis is None and source.ndim != 1:
        raise ShapeError(f"a running total needs axis= unless it is over a vector; got shape {source.shape}")
    along = check_axis("a running total", 0 if axis is None else axis, source)
    return _as(source, _summed_dtype(source.dtype, dtype)), along


def _cut(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    return x[(slice(None),) * axis + (slice(start, stop),)]


def _with_initial(x: Tensor, value: int, axis: int) -> Tensor:
    shape = tuple(1 if k == axis else size for k, size in enumerate(x.shape))
    return concat([wrap(Node(CONSTANT, value=np.full(shape, value, x.dtype))), x], axis=axis)


def diff(x: Any, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Tensor:
    """Differences of neighbours along `axis`, `n` times.

    >>> import chainrule as cr
    >>> cr.diff(cr.tensor([1.0, 4.0, 9.0]))
    tensor([3., 5.])
    """
    source = as_tensor(x)
    along = check_axis("diff", axis, source)
    if whole("diff", "n", n) < 0:
        raise ArgumentError(f"diff is taken n times, from 0; got n={n}")
    parts = [_beside(source, one, along) for one in (prepend, source, append) if one is not None]
    result = concat(parts, axis=along) if len(parts) > 1 else source
    with scope("diff", "function"):
        for _ in range(n):
            size = result.shape[along]
            result = _cut(result, along, 1, size) - _cut(result, along, 0, builtins.max(size - 1, 0))
    return result.clone() if result is source else result


def _beside(x: Tensor, part: Any, axis: int) -> Tensor:
    """What stands before or behind `x` in `diff`; a single number is copied along the other axes."""
    given = part if isinstance(part, Tensor) else as_tensor(part, x.dtype)
    shape = tuple(1 if k == axis else size for k, size in enumerate(x.shape))
    return given if given.ndim else broadcast_to(given, shape)
