"""Products of matrices and tensors, all of them made from one batched matrix product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .. import ops
from ..dtypes import DEFAULT_INTEGER, bool_
from ..errors import ShapeError
from ..graph import Node, scope
from ..ops.shapes import broadcast_shapes, check_axes, check_axis
from . import dispatch
from .core import Tensor, as_tensor, wrap
from .manipulation import matrix_transpose, permute_dims, reshaped


def matmul(x: Any, y: Any, /) -> Tensor:
    """Matrix product over the last axis of `x` and the last but one of `y`; the axes before broadcast.

    A vector on the left is a row, on the right a column, and that axis is dropped from the result.
    Raises ShapeError with both shapes and a fix.

    >>> import chainrule as cr
    >>> cr.matmul(cr.ones((2, 3)), cr.ones((3, 4))).shape
    (2, 4)
    """
    left, right = as_tensor(x), as_tensor(y)
    if left.ndim == 2 and right.ndim == 2 and left.dtype == right.dtype and left.dtype.kind == "f":
        return _product(left.node, right.node)
    if not left.ndim or not right.ndim:
        raise ShapeError(
            f"matmul needs at least one axis on each side; got {left.shape} and {right.shape}. Use *"
        )
    dtype = dispatch.common_dtype("matmul", [left.node, right.node])
    dtype = DEFAULT_INTEGER if dtype == bool_ else dtype
    a, b = dispatch.astype(left.node, dtype), dispatch.astype(right.node, dtype)
    row, column = left.ndim == 1, right.ndim == 1
    if (row or column) and left.shape[-1] != right.shape[0 if column else -2]:
        fix = (
            "Did you mean y @ x?" if right.shape[-1] == left.shape[0] else "Reshape or transpose one of them"
        )
        raise ShapeError(
            f"matmul needs x.shape[-1] == y.shape[{0 if column else -2}]; got {left.shape} and {right.shape}. {fix}"
        )
    if right.ndim == 2 and left.ndim > 2 and a.shape[-1] == b.shape[0]:
        # One product of all rows: a copy of y for each batch would have a gradient of its own, to be added up later.
        with scope("matmul", "function"):
            rows = _product(_reshaped(a, (math.prod(a.shape[:-1]), a.shape[-1])), b)
            return reshaped(rows, (*a.shape[:-1], b.shape[-1]))
    with scope("matmul", "function"):
        a = _reshaped(a, (1, *a.shape)) if row else a
        b = _reshaped(b, (*b.shape, 1)) if column else b
        if a.shape[-1] != b.shape[-2]:
            ops.matmul.types(a.type, b.type)
        batch = broadcast_shapes("matmul, for the axes before the last two,", a.shape[:-2], b.shape[:-2])
        a, b = (dispatch.broadcast(node, (*batch, *node.shape[-2:])) for node in (a, b))
        result = _product(a, b)
        shape = (*batch, *(() if row else (a.shape[-2],)), *(() if column else (b.shape[-1],)))
        return reshaped(result, shape)


def _product(a: Node, b: Node) -> Tensor:
    if a.shape[-1] != b.shape[-2]:
        ops.matmul.types(a.type, b.type)
    return wrap(ops.matmul.node((a, b), {}))


def _reshaped(node: Node, shape: tuple[int, ...]) -> Node:
    result: Node = ops.reshape.node((node,), {"shape": shape})
    return result


def vecdot(x: Any, y: Any, /, *, axis: int = -1) -> Tensor:
    """Sum of products of matching entries along `axis`.

    >>> import chainrule as cr
    >>> cr.vecdot(cr.tensor([1.0, 2.0]), cr.tensor([3.0, 4.0]))
    tensor(11.)
    """
    left, right = as_tensor(x), as_tensor(y)
    along = check_axis("vecdot", axis, left) - left.ndim
    if check_axis("vecdot", axis, right) - right.ndim != along or left.shape[along] != right.shape[along]:
        raise ShapeError(
            f"vecdot needs vectors of one length along axis {axis}; got {left.shape} and {right.shape}. "
            "Count the axis from the end"
        )
    product = left * right
    axes = check_axes("vecdot", along, product)
    return wrap(ops.sum_.node((product.node,), {"axes": axes, "keepdims": False}))


def outer(x: Any, y: Any, /) -> Tensor:
    """Every entry of the vector `x` times every entry of the vector `y`: shape (len(x), len(y)).

    >>> import chainrule as cr
    >>> cr.outer(cr.tensor([1.0, 2.0]), cr.tensor([3.0])).tolist()
    [[3.0], [6.0]]
    """
    left, right = as_tensor(x), as_tensor(y)
    if left.ndim != 1 or right.ndim != 1:
        raise ShapeError(f"outer needs two vectors; got {left.shape} and {right.shape}. Use [:, None] and *")
    return reshaped(left, (left.size, 1)) * reshaped(right, (1, right.size))


def tensordot(x: Any, y: Any, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Tensor:
    """Sum of products over pairs of axes: the last `axes` of x with the first of y, or two lists of axes.

    >>> import chainrule as cr
    >>> cr.tensordot(cr.ones((2, 3, 4)), cr.ones((4, 3, 5)), axes=((1, 2), (1, 0))).shape
    (2, 5)
    """
    left, right = as_tensor(x), as_tensor(y)
    if isinstance(axes, int):
        if not 0 <= axes <= min(left.ndim, right.ndim):
            raise ShapeError(
                f"tensordot over {axes} axes needs as many on each side; got {left.shape} and {right.shape}. "
                "Give a smaller number, or two lists of axes"
            )
        over_left: tuple[int, ...] = tuple(range(left.ndim - axes, left.ndim))
        over_right: tuple[int, ...] = tuple(range(axes))
    else:
        over_left = check_axes("tensordot", axes[0], left)
        over_right = check_axes("tensordot", axes[1], right)
    sizes = [left.shape[k] for k in over_left]
    if sizes != [right.shape[k] for k in over_right]:
        raise ShapeError(
            f"tensordot needs the paired axes to be equal; got {left.shape} over {over_left} and "
            f"{right.shape} over {over_right}. Name the axes that belong together"
        )
    free_left = [k for k in range(left.ndim) if k not in over_left]
    free_right = [k for k in range(right.ndim) if k not in over_right]
    total = math.prod(sizes)
    rows = [left.shape[k] for k in free_left]
    columns = [right.shape[k] for k in free_right]
    with scope("tensordot", "function"):
        a = reshaped(permute_dims(left, (*free_left, *over_left)), (math.prod(rows), total))
        b = reshaped(permute_dims(right, (*over_right, *free_right)), (total, math.prod(columns)))
        return reshaped(matmul(a, b), (*rows, *columns))


__all__ = ["matmul", "matrix_transpose", "outer", "tensordot", "vecdot"]
