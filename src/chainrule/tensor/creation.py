"""The array API's creation functions. Floats are float32 by default, integers int64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..dtypes import DEFAULT_FLOAT, Dtype, as_dtype, of_python
from ..errors import ArgumentError
from ..graph import CONSTANT, Node
from ..ops.shapes import broadcast_shapes, count
from . import dispatch
from .core import Tensor, as_tensor, wrap

Shape = int | tuple[int, ...] | list[int]


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
    _check_device(device)
    if isinstance(obj, Tensor):
        target = obj.dtype if dtype is None else as_dtype(dtype)
        if obj.dtype == target:
            return obj.clone() if copy else obj
        return wrap(dispatch.astype(obj.node, target))
    if copy is False:
        raise ArgumentError("asarray always copies foreign data; got copy=False. Use copy=None")
    return Tensor(obj, dtype)


def _check_device(device: Any) -> None:
    if device not in (None, "cpu"):
        raise ArgumentError(f"the only device is 'cpu'; got {device!r}")


def _shape(shape: Shape) -> tuple[int, ...]:
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(not isinstance(size, int | np.integer) or size < 0 for size in sizes):
        raise ArgumentError(f"a shape needs whole numbers from 0; got {shape!r}")
    sizes = tuple(int(size) for size in sizes)
    count(sizes)
    return sizes


def _filled(shape: Shape, value: Any, dtype: Dtype, device: Any) -> Tensor:
    _check_device(device)
    return wrap(Node(CONSTANT, value=np.full(_shape(shape), value, dtype)))


def full(shape: Shape, fill_value: Any, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """A tensor of `shape` with one number everywhere; its dtype by default is that of the number.

    >>> full((2,), 3.0)
    tensor([3., 3.])
    """
    return _filled(shape, fill_value, of_python(fill_value) if dtype is None else as_dtype(dtype), device)


def zeros(shape: Shape, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """A tensor of zeros, float32 by default.

    >>> zeros(2)
    tensor([0., 0.])
    """
    return _filled(shape, 0, DEFAULT_FLOAT if dtype is None else as_dtype(dtype), device)


def ones(shape: Shape, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """A tensor of ones, float32 by default.

    >>> ones(2)
    tensor([1., 1.])
    """
    return _filled(shape, 1, DEFAULT_FLOAT if dtype is None else as_dtype(dtype), device)


def empty(shape: Shape, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """A tensor to be filled later; here it holds zeros, so that nothing random can leak in.

    >>> empty(2)
    tensor([0., 0.])
    """
    return zeros(shape, dtype=dtype, device=device)


def full_like(x: Any, /, fill_value: Any, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """One number everywhere, in the shape (and by default the dtype) of `x`.

    >>> full_like(zeros(2), 7.0)
    tensor([7., 7.])
    """
    like = as_tensor(x)
    return _filled(like.shape, fill_value, like.dtype if dtype is None else as_dtype(dtype), device)


def zeros_like(x: Any, /, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """Zeros in the shape and dtype of `x`.

    >>> zeros_like(ones(2))
    tensor([0., 0.])
    """
    return full_like(x, 0, dtype=dtype, device=device)


def ones_like(x: Any, /, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """Ones in the shape and dtype of `x`.

    >>> ones_like(zeros(2))
    tensor([1., 1.])
    """
    return full_like(x, 1, dtype=dtype, device=device)


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
    _check_device(device)
    first, last = (0, start) if stop is None else (start, stop)
    if step == 0:
        raise ArgumentError("arange needs a step other than 0; got 0")
    if dtype is None:
        dtype = DEFAULT_FLOAT if any(isinstance(n, float) for n in (first, last, step)) else np.dtype("int64")
    count((max(int(np.ceil((last - first) / step)), 0),))
    return wrap(Node(CONSTANT, value=np.arange(first, last, step).astype(as_dtype(dtype))))


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
    _check_device(device)
    target = DEFAULT_FLOAT if dtype is None else as_dtype(dtype)
    return wrap(Node(CONSTANT, value=np.linspace(start, stop, num, endpoint=endpoint).astype(target)))


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
    _check_device(device)
    target = DEFAULT_FLOAT if dtype is None else as_dtype(dtype)
    _shape((n_rows, n_rows if n_cols is None else n_cols))
    return wrap(Node(CONSTANT, value=np.eye(n_rows, n_cols, k, target)))


def meshgrid(*arrays: Any, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Coordinates of every point of a grid: one tensor for each vector. Gradients pass.

    >>> a, b = meshgrid(arange(2), arange(3), indexing="ij")
    >>> a.shape
    (2, 3)
    """
    if indexing not in ("xy", "ij"):
        raise ArgumentError(f"meshgrid needs indexing 'xy' or 'ij'; got {indexing!r}")
    vectors = [as_tensor(one) for one in arrays]
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
    placed = dispatch.ops.reshape.node((node,), {"shape": place})
    return dispatch.ops.broadcast_to.node((placed,), {"shape": broadcast_shapes("meshgrid", place, shape)})


def _triangle(x: Any, keep: Any) -> Tensor:
    source = as_tensor(x)
    rows, columns = source.shape[-2:]
    mask = wrap(Node(CONSTANT, value=np.broadcast_to(keep(np.ones((rows, columns), bool)), source.shape)))
    zero = wrap(Node(CONSTANT, value=np.zeros((), source.dtype)))
    return wrap(dispatch.broadcast_node(dispatch.ops.where, [mask.node, source.node, zero.node]))


def tril(x: Any, /, *, k: int = 0) -> Tensor:
    """x with zeros above the `k`-th diagonal of the last two axes.

    >>> tril(ones((2, 2))).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    return _triangle(x, lambda mask: np.tril(mask, k))


def triu(x: Any, /, *, k: int = 0) -> Tensor:
    """x with zeros below the `k`-th diagonal of the last two axes.

    >>> triu(ones((2, 2))).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    return _triangle(x, lambda mask: np.triu(mask, k))
