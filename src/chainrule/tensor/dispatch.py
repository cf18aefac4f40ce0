"""From what the user wrote to nodes: Python numbers, promotion by the standard, broadcasting made explicit.

Knows nodes and operations; knows nothing of the Tensor class.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..dtypes import (
    DEFAULT_FLOAT,
    DEFAULT_INTEGER,
    Dtype,
    as_dtype,
    bool_,
    of_python,
    promote,
    promote_scalar,
)
from ..errors import DtypeError
from ..graph import CONSTANT, Node, Type, constant, state
from ..ops.shapes import broadcast_shapes

Number = bool | int | float


def to_array(data: Any, dtype: Dtype | None = None) -> Any:
    """A fresh array of one of our dtypes. Python floats become float32, float64 arrays stay float64."""
    try:
        array = np.array(data, copy=True)
    except (ValueError, TypeError) as failure:
        raise DtypeError(
            f"an array needs numbers in rows of equal length; got {_shorten(data)}: {failure}"
        ) from failure
    if dtype is not None:
        if array.dtype.kind not in "biuf":
            raise DtypeError(f"an array needs numbers; got {array.dtype} from {_shorten(data)}")
        return ops.NUMPY.cast(array, as_dtype(dtype))
    if isinstance(data, np.ndarray | np.generic):
        return array.astype(as_dtype(array.dtype), copy=False)
    if array.dtype.kind == "f":
        return array.astype(_float_of(data))
    if array.dtype.kind not in "biu":
        raise DtypeError(f"an array needs numbers; got {array.dtype} from {_shorten(data)}")
    return array


def _float_of(data: Any) -> Dtype:
    """The float type of nested sequences: that of the NumPy scalars and arrays in it, else the default."""
    pending, found = [data], None
    while pending:
        item = pending.pop()
        if isinstance(item, list | tuple):
            pending.extend(item)
        elif isinstance(item, np.ndarray | np.generic) and item.dtype.kind == "f":
            one = as_dtype(item.dtype)
            found = one if found is None else promote(found, one)
    return found or DEFAULT_FLOAT


def _shorten(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 60 else text[:57] + "..."


def astype(node: Node, dtype: Dtype) -> Node:
    """The node in another dtype; the node itself if it has it already."""
    return node if node.dtype == dtype else ops.cast.node((node,), {"dtype": dtype})


def common_dtype(name: str, operands: list[Any]) -> Dtype:
    """The dtype that nodes and Python numbers meet in; numbers are weak."""
    dtype: Dtype | None = None
    for operand in operands:
        if isinstance(operand, Node):
            try:
                dtype = operand.dtype if dtype is None else promote(dtype, operand.dtype)
            except DtypeError as failure:
                raise DtypeError(f"{name}: {failure.args[0]}") from None
    for operand in operands:
        if not isinstance(operand, Node):
            dtype = of_python(operand) if dtype is None else promote_scalar(dtype, operand)
    assert dtype is not None
    return dtype


def accepted(op: ops.Elementwise, dtype: Dtype) -> Dtype:
    """The dtype in which the operation computes for operands of `dtype`."""
    if op.accepts == "float" and dtype.kind != "f":
        return DEFAULT_FLOAT
    if op.accepts == "number" and dtype == bool_:
        return DEFAULT_INTEGER
    if op.accepts == "bits" and dtype.kind == "f":
        raise DtypeError(f"{op.name} needs bools or integers; got {dtype.name}. Use astype, or a comparison")
    return dtype


def elementwise(op: ops.Elementwise, operands: list[Any]) -> Node:
    """Apply to nodes and Python numbers: promote, then broadcast, then one node."""
    first = operands[0]
    dtype = first.dtype if isinstance(first, Node) else None
    if dtype is None or any(not isinstance(other, Node) or other.dtype != dtype for other in operands[1:]):
        dtype = common_dtype(op.name, operands)
    dtype = accepted(op, dtype)
    nodes = [
        astype(operand, dtype) if isinstance(operand, Node) else constant(_checked(op, operand, dtype), dtype)
        for operand in operands
    ]
    return broadcast_node(op, nodes)


def _checked(op: ops.Op, value: Number, dtype: Dtype) -> Number:
    """The number, if the integer type can hold it."""
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        limits = np.iinfo(dtype)
        raise DtypeError(
            f"{op.name}: {dtype.name} holds {limits.min} to {limits.max}; got {value}. Use astype first"
        )
    return value


def broadcast_node(op: ops.Op, nodes: list[Node]) -> Node:
    """Apply an elementwise operation to nodes of one dtype, with the broadcasts written into the graph.

    NumPy broadcasts by itself, so the expanded arrays are only made if somebody looks at them.
    """
    shape = nodes[0].shape
    if all(node.shape == shape for node in nodes[1:]):
        return op.node(tuple(nodes), {})
    shape = broadcast_shapes(op.name, *(node.shape for node in nodes))
    values = [node.value for node in nodes]
    if any(value is None for value in values):
        return op.node(tuple(expand(node, shape) for node in nodes), {})
    value = op.run(values, {})
    if state.grad_enabled and any(node.requires_grad for node in nodes):
        return op.record(tuple(expand(node, shape) for node in nodes), {}, value)
    return op.record((), {}, value)


def expand(node: Node, shape: tuple[int, ...]) -> Node:
    """An explicit broadcast to `shape`; 0-d constants may stay as they are beside any shape."""
    if node.shape == shape or (node.operation is CONSTANT and not node.shape):
        return node
    if node._value is None:
        return ops.broadcast_to.node((node,), {"shape": shape})
    recorded = node.requires_grad and state.grad_enabled
    return Node(
        ops.broadcast_to, (node,), {"shape": shape}, None, (Type(shape, node.dtype),), requires_grad=recorded
    )
