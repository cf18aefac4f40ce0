"""Products: the weighted sum of a layer, and the product in which 0 absorbs everything."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..errors import DtypeError, ShapeError
from ..graph import Node
from ..tensor import Tensor, as_tensor, dispatch, wrap
from ..tensor.core import as_operand
from ..tensor.manipulation import matrix_transpose
from ..tensor.products import matmul
from .composite import composite


def absorb(x: Any, y: Any) -> Tensor:
    """x·y, and 0 wherever either is 0, even against infinity and NaN; shapes broadcast.

    >>> absorb(0.0, float("inf")).item()
    0.0
    """
    operands = [as_operand(x), as_operand(y)]
    dtype = dispatch.common_dtype("absorb", operands)
    nodes = [
        dispatch.astype(one, dtype) if isinstance(one, Node) else dispatch.number(one, dtype)
        for one in operands
    ]
    return wrap(dispatch.broadcast_node(ops.absorb, tuple(nodes)))


@composite
def linear(x: Any, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x·weightᵀ + bias: `x` (…, in), `weight` (out, in), `bias` (out,) → (…, out).

    >>> import chainrule as cr
    >>> linear(cr.ones((2, 3)), cr.ones((4, 3))).shape
    (2, 4)
    """
    source, weight = as_tensor(x), as_tensor(weight)
    if weight.ndim != 2:
        raise ShapeError(f"linear needs a weight (out, in); got {weight.shape}. Reshape it")
    if not source.ndim or source.shape[-1] != weight.shape[-1]:
        raise ShapeError(
            f"linear needs {weight.shape[-1]} features on the last axis; got {source.shape} for weight "
            f"{weight.shape}. The weight is (out, in): did you mean to transpose one of them?"
        )
    if source.dtype != weight.dtype:
        raise DtypeError(
            f"linear needs input and weight of one dtype; got {source.dtype.name} and {weight.dtype.name}. "
            f"Use x.astype({weight.dtype.name!r})"
        )
    result = matmul(source, matrix_transpose(weight))
    return result if bias is None else result + bias
