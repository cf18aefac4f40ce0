"""The array API's creation functions. Floats are float32 by default, integers int64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import ops
from ..dtypes import DEFAULT_FLOAT, DEFAULT_INTEGER, Dtype, as_dtype, dtype_or_default
from ..errors import ArgumentError, DtypeError, ShapeError, SharingError
from ..graph import Node, constant
from ..operations import CONSTANT
from ..ops.shapes import as_shape, count, whole
from . import dispatch
from .core import Tensor, as_tensor, wrap
from .elementwise import astype
from .manipulation import broadcast_to, reshaped

Shape = int | Sequence[int]


def tensor(data: Any, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor with a copy of `data` (numbers, nested lists, arrays, tensors).

    dtype: by default float32 for Python floats, int64 for Python ints, and that of an array.
    requires_grad: whether `backward` shall compute a gradient for it; floats only.
    Raises DtypeError for what is not numbers.

    >>> tensor([[1.0, 2.0]]).shape
    (1, 2)
    """
    return Tensor(data, dtype, requires_grad)


def asarray(
    obj: Any, /, *, dtype: DTypeLike | None = None, device: Any = None, copy: bool | None = None
) -> Tensor:
    """A tensor of `obj`; a tensor of the right dtype is returned as it is unless `copy` is True.

    Foreign data is always copied, so later changes of it are not seen; `copy=False` raises there.

    >>> asarray([1, 2]).dtype
    dtype('int64')
    """
    check_device(device)
    if isinstance(obj, Tensor):
        target = obj.dtype if dtype is None else as_dtype(dtype)
        if obj.dtype == target:
            return obj.clone() if copy else obj
        return wrap(dispatch.astype(obj.node, target))
    if copy is False:
        raise SharingError("asarray always copies foreign data; got copy=False. Use copy=None")
    return Tensor(obj, dtype)


def check_device(device: Any) -> None:
    """Tensors are in the memory of the processor."""
    if device not in (None, "cpu"):
        raise ArgumentError(f"the only device is 'cpu'; got {device!r}. Leave it out")


def _made(name: str, make: Callable[..., NDArray[Any]], shape: Any, dtype: Dtype, device: Any) -> Tensor:
    """A tensor of the array that `make(shape, dtype)` allocates, if it fits into memory."""
    check_device(device)
    sizes = as_shape(name, shape)
    try:
        return wrap(Node(CONSTANT, value=make(sizes, dtype)))
    except (MemoryError, ValueError) as failure:
        raise ShapeError(f"{name} found no memory for {dtype.name}{sizes}. Make it smaller") from failure


def _sizes(shape: Any, more: tuple[Any, ...]) -> Any:
    """`zeros(2, 3)`, as in PyTorch, means `zeros((2, 3))`."""
    for one in more:
        if isinstance(one, type) or not hasattr(one, "__index__"):
            raise ArgumentError(
                f"after the shape come names, such as dtype=; got {one!r}. Write dtype={_said(one)}"
            )
    return (shape, *more) if more else shape


def _said(value: Any) -> str:
    """A dtype as one would type it: `cr.float64`, not the class NumPy has for it."""
    try:
        return f"cr.{as_dtype(value).name}"
    except DtypeError:
        return "…"


def _number(name: str, what: str, value: Any) -> bool | int | float:
    """A Python number of anything that stands for one."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Tensor | np.ndarray | np.generic) and value.size == 1:
        number: bool | int | float = value.item()
        return number
    raise ArgumentError(f"{name} needs a number as {what}; got {value!r}")


def full(shape: Shape, fill_value: Any, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """A tensor of `shape` with one number everywhere; its dtype by default is that of the number.

    >>> full((2,), 3.0)
    tensor([3., 3.])
    """
    check_device(device)
    value = as_tensor(fill_value)
    if value.size != 1:
        raise ShapeError(f"full needs one number; got shape {value.shape}. Use broadcast_to")
    target = value.dtype if dtype is None else as_dtype(dtype)
    if value.node.value is None or (isinstance(fill_value, Tensor) and fill_value.requires_grad):
        return broadcast_to(reshaped(astype(value, target), ()), as_shape("full", shape))
    number = Tensor(fill_value, target)._array().reshape(())
    return _made("full", lambda sizes, dtype: np.full(sizes, number, dtype), shape, target, device)


def zeros(shape: Shape, *more: int, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """A tensor of zeros, float32 by default; the shape as one argument, or one argument for each axis.

    >>> zeros(2)
    tensor([0., 0.])
    >>> zeros((2, 3)).shape == zeros(2, 3).shape
    True
    """
    return _made("zeros", np.zeros, _sizes(shape, more), dtype_or_default(dtype), device)


def ones(shape: Shape, *more: int, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """A tensor of ones, float32 by default; the shape as one argument, or one argument for each axis.

    >>> ones(2)
    tensor([1., 1.])
    >>> ones((2, 3)).shape == ones(2, 3).shape
    True
    """
    return _made("ones", np.ones, _sizes(shape, more), dtype_or_default(dtype), device)


def empty(shape: Shape, *more: int, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """A tensor to be filled later; here it holds zeros, so that nothing random can leak in.

    >>> empty(2)
    tensor([0., 0.])
    """
    return zeros(_sizes(shape, more), dtype=dtype, device=device)


def full_like(x: Any, /, fill_value: Any, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """One number everywhere, in the shape (and by default the dtype) of `x`.

    >>> full_like(zeros(2), 7.0)
    tensor([7., 7.])
    """
    like = as_tensor(x)
    return full(like.shape, fill_value, dtype=like.dtype if dtype is None else dtype, device=device)


def zeros_like(x: Any, /, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """Zeros in the shape and dtype of `x`.

    >>> zeros_like(ones(2))
    tensor([0., 0.])
    """
    like = as_tensor(x)
    return zeros(like.shape, dtype=like.dtype if dtype is None else dtype, device=device)


def ones_like(x: Any, /, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """Ones in the shape and dtype of `x`.

    >>> ones_like(zeros(2))
    tensor([1., 1.])
    """
    like = as_tensor(x)
    return ones(like.shape, dtype=like.dtype if dtype is None else dtype, device=device)


def empty_like(x: Any, /, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """A tensor to be filled later (zeros), in the shape and dtype of `x`.

    >>> empty_like(ones(2))
    tensor([0., 0.])
    """
    return zeros_like(x, dtype=dtype, device=device)


def arange(
    start: float,
    /,
    stop: float | None = None,
    step: float = 1,
    *,
    dtype: DTypeLike | None = None,
    device: Any = None,
) -> Tensor:
    """Numbers from `start` (0 if only one is given) to before `stop`; int64 for whole numbers, else float32.

    >>> arange(3).tolist()
    [0, 1, 2]
    """
    check_device(device)
    given = (0, start) if stop is None else (start, stop)
    first, last = (_number("arange", "bound", one) for one in given)
    step = _number("arange", "step", step)
    if step == 0 or not all(math.isfinite(one) for one in (first, last, step)):
        raise ArgumentError(
            f"arange needs finite numbers and a step other than 0; got {first}, {last}, {step}"
        )
    if dtype is None:
        dtype = (
            DEFAULT_FLOAT if any(isinstance(one, float) for one in (first, last, step)) else DEFAULT_INTEGER
        )
    size = max(math.ceil((last - first) / step), 0)
    return _made("arange", lambda shape, kind: _steps(first, last, step, kind), size, as_dtype(dtype), None)


def _steps(first: float, last: float, step: float, dtype: Dtype) -> NDArray[Any]:
    """Whole numbers in int64, others in float64, then cast: so that nothing is rounded on the way."""
    result: NDArray[Any] = ops.NUMPY.cast(np.arange(first, last, step), dtype)
    return result


def linspace(
    start: float,
    stop: float,
    /,
    num: int,
    *,
    dtype: DTypeLike | None = None,
    device: Any = None,
    endpoint: bool = True,
) -> Tensor:
    """`num` numbers at equal distances from `start` to `stop`.

    >>> linspace(0, 1, 3)
    tensor([0. , 0.5, 1. ])
    """
    check_device(device)
    target = dtype_or_default(dtype)
    first, last = _number("linspace", "start", start), _number("linspace", "stop", stop)

    def make(shape: tuple[int, ...], dtype: Dtype) -> NDArray[Any]:
        with ops.quiet():
            return np.linspace(first, last, shape[0], endpoint=bool(endpoint), dtype=dtype)

    return _made("linspace", make, whole("linspace", "num", num), target, None)


def eye(
    n_rows: int,
    n_cols: int | None = None,
    /,
    *,
    k: int = 0,
    dtype: DTypeLike | None = None,
    device: Any = None,
) -> Tensor:
    """Ones on the `k`-th diagonal, zeros elsewhere; shape (n_rows, n_cols or n_rows).

    >>> eye(2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    check_device(device)
    target = dtype_or_default(dtype)
    shape = (n_rows, n_rows if n_cols is None else n_cols)
    k = whole("eye", "k", k)
    return _made("eye", lambda sizes, dtype: np.eye(sizes[0], sizes[1], k, dtype), shape, target, None)


def meshgrid(*arrays: Any, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Coordinates of every point of a grid: one tensor for each vector. Gradients pass.

    >>> a, b = meshgrid(arange(2), arange(3), indexing="ij")
    >>> a.shape
    (2, 3)
    """
    if indexing not in ("xy", "ij"):
        raise ArgumentError(f"meshgrid needs indexing 'xy' or 'ij'; got {indexing!r}")
    vectors = [as_tensor(one) for one in arrays]
    if any(one.ndim > 1 for one in vectors):
        raise ShapeError(f"meshgrid needs vectors; got {' and '.join(str(one.shape) for one in vectors)}")
    order = list(range(len(vectors)))
    if indexing == "xy" and len(vectors) > 1:
        order[:2] = [1, 0]
    shape = tuple(vectors[k].size for k in order)
    result = []
    for k, one in enumerate(vectors):
        place = [1] * len(vectors)
        place[order.index(k)] = one.size
        result.append(wrap(_expanded(one.node, tuple(place), shape)))
    return tuple(result)


def _expanded(node: Node, place: tuple[int, ...], shape: tuple[int, ...]) -> Node:
    placed = ops.reshape.node((node,), {"shape": place})
    count(shape)
    result: Node = ops.broadcast_to.node((placed,), {"shape": shape})
    return result


def _triangle(name: str, x: Any, keep: Callable[[NDArray[Any]], NDArray[Any]]) -> Tensor:
    source = as_tensor(x)
    if source.ndim < 2:
        raise ShapeError(f"{name} needs at least two axes; got shape {source.shape}. Add one with None")
    mask = constant(np.broadcast_to(keep(np.ones(source.shape[-2:], bool)), source.shape))
    return wrap(dispatch.broadcast_node(ops.where, (mask, source.node, constant(0, source.dtype))))


def tril(x: Any, /, *, k: int = 0) -> Tensor:
    """x with zeros above the `k`-th diagonal of the last two axes.

    >>> tril(ones((2, 2))).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    return _triangle("tril", x, lambda mask: np.tril(mask, k))


def triu(x: Any, /, *, k: int = 0) -> Tensor:
    """x with zeros below the `k`-th diagonal of the last two axes.

    >>> triu(ones((2, 2))).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    return _triangle("triu", x, lambda mask: np.triu(mask, k))
