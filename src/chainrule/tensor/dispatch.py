"""From what the user wrote to nodes: Python numbers, promotion by the standard, broadcasting made explicit.

Knows nodes and operations; knows nothing of the Tensor class.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from ..errors import DtypeError, GradientError, ShapeError
from ..graph import Node, constant, state
from ..operations import CONSTANT, NO_ATTRIBUTES, Type
from ..ops.shapes import broadcast_shapes

Number = bool | int | float


class Weak:
    """A Python number that a call will give: a node without axes that takes the dtype of what stands beside it."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node


# The largest float32: beyond it NumPy warns when it makes an array of a Python number.
_LARGEST = float(np.finfo(np.float32).max)


def to_array(data: Any, dtype: Dtype | None = None) -> NDArray[Any]:
    """A fresh array of one of our dtypes. Python floats become float32, float64 arrays stay float64.

    Raises DtypeError for what is not numbers or does not fit the integer type asked for, ShapeError for rows
    of unequal length.
    """
    of_python = isinstance(data, bool | int | float | list | tuple) and not isinstance(data, np.generic)
    array = _python_array(data, dtype) if of_python else _foreign_array(data)
    if array.dtype.kind == "c":
        raise DtypeError(
            f"complex numbers are not offered; got {_shorten(data)}. Keep two real arrays instead"
        )
    if array.dtype.kind not in "biuf":
        raise DtypeError(
            f"an array needs numbers; got {_shorten(data)} ({array.dtype}). Encode it as numbers first"
        )
    if dtype is None and of_python and array.dtype.kind == "f":
        dtype = _float_of(data)
    target = as_dtype(array.dtype if dtype is None else dtype)
    if array.dtype == target and array.dtype.isnative:
        return array
    with ops.quiet():
        result: NDArray[Any] = ops.NUMPY.cast(array, target)
    return result


def _foreign_array(data: Any) -> NDArray[Any]:
    """A copy of an array or of anything that NumPy can read as one."""
    try:
        # In two steps: what other libraries hand out as an array may be their own memory, whatever they were asked for.
        return np.array(data if type(data) is np.ndarray else np.asarray(data), copy=True)
    except (ValueError, TypeError) as failure:
        raise DtypeError(
            f"an array needs numbers; got {_shorten(data)}: {failure}. Convert it to a list or an array first"
        ) from failure


def _python_array(data: Any, dtype: Dtype | None) -> NDArray[Any]:
    """An array of nested Python numbers; whole numbers must fit `dtype`, by default int64."""
    try:
        array = np.array(data)
        if array.dtype.kind in "uO" or (array.dtype.kind == "f" and dtype is not None and dtype.kind in "iu"):
            array = _whole_array(data, array, dtype)
        if dtype is not None and dtype.kind in "iu" and array.dtype.kind in "iu":
            return np.array(data, dtype=dtype)
    except OverflowError as failure:
        limits = np.iinfo(dtype or DEFAULT_INTEGER)
        raise DtypeError(
            f"{limits.dtype.name} holds {limits.min} to {limits.max}; got {_shorten(data)}. "
            "Choose a wider dtype= or floats"
        ) from failure
    except GradientError:
        raise GradientError(
            f"an array of tensors would cut their gradients; got {_shorten(data)}. Use cr.stack or cr.concat"
        ) from None
    except ValueError as failure:
        raise ShapeError(
            f"an array needs rows of equal length; got {_shorten(data)}: {failure}. Pad the short rows"
        ) from failure
    except TypeError as failure:
        raise DtypeError(
            f"an array needs numbers; got {_shorten(data)}: {failure}. Convert the entries first"
        ) from failure
    return array


def _whole_array(data: Any, array: NDArray[Any], dtype: Dtype | None) -> NDArray[Any]:
    """Very large Python ints, which NumPy alone would take as unsigned, as floats or as objects."""
    entries = list(_entries(data))
    if not entries or not all(isinstance(entry, int) for entry in entries):
        return array
    return np.array(data, dtype=dtype or DEFAULT_INTEGER)


def _entries(data: Any) -> Iterator[Any]:
    """What nested lists and tuples hold, in any order."""
    pending = [data]
    while pending:
        item = pending.pop()
        if isinstance(item, list | tuple):
            pending.extend(item)
        else:
            yield item


def _float_of(data: Any) -> Dtype:
    """The float type of nested sequences: that of the arrays and NumPy scalars in it, else the default."""
    found: Dtype | None = None
    for item in _entries(data):
        dtype = getattr(item, "dtype", None)
        if isinstance(dtype, np.dtype) and dtype.kind == "f":
            found = as_dtype(dtype) if found is None else promote(found, as_dtype(dtype))
    return found or DEFAULT_FLOAT


def _shorten(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 60 else text[:57] + "..."


def astype(node: Node, dtype: Dtype) -> Node:
    """The node in another dtype; the node itself if it has it already."""
    return node if node.dtype == dtype else ops.cast.node((node,), {"dtype": dtype})


def common_dtype(name: str, operands: Sequence[Any]) -> Dtype:
    """The dtype that nodes and Python numbers meet in; numbers are weak."""
    dtype: Dtype | None = None
    for operand in operands:
        if isinstance(operand, Node):
            try:
                dtype = operand.dtype if dtype is None else promote(dtype, operand.dtype)
            except DtypeError as failure:
                raise DtypeError(f"{name}: {failure.message}") from None
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


def elementwise(op: ops.Elementwise, operands: Sequence[Any]) -> Node:
    """Apply to nodes and Python numbers: promote, then broadcast, then one node."""
    if op.accepts != "bits":
        # The common cases, one or two arrays of one float type, kept free of loops: they are on every path.
        x, y = operands[0], operands[-1]
        if type(x) is Node and type(y) is Node and len(operands) <= 2:
            a, b = x._value, y._value
            if type(a) is np.ndarray and type(b) is np.ndarray and a.dtype.kind == "f" and a.dtype == b.dtype:
                if len(operands) == 1:
                    return op.node((x,), NO_ATTRIBUTES)
                return op.node((x, y), NO_ATTRIBUTES) if a.shape == b.shape else broadcast_node(op, (x, y))
    dtype: Dtype | None = None
    for operand in operands:
        if isinstance(operand, Node):
            if dtype is None:
                dtype = operand.dtype
            elif operand.dtype != dtype:
                break
        elif type(operand) is not float or dtype is None or dtype.kind != "f":
            break
    else:
        if dtype is not None and dtype.kind == "f" and op.accepts != "bits":
            return broadcast_node(op, tuple([_weak(one, dtype) for one in operands]))
    dtype = accepted(op, common_dtype(op.name, operands))
    return broadcast_node(
        op,
        tuple(
            astype(one, dtype) if isinstance(one, Node) else number(_checked(op, one, dtype), dtype)
            for one in operands
        ),
    )


def _weak(operand: Any, dtype: Dtype) -> Node:
    return operand if isinstance(operand, Node) else number(operand, dtype)


def number(value: Number, dtype: Dtype) -> Node:
    """A constant of a Python number of any size: too large for float32 is infinity, without a warning."""
    if issubclass(type(value), Weak):
        return astype(value.node, dtype)  # type: ignore[union-attr]
    if -_LARGEST <= value <= _LARGEST:
        return constant(value, dtype)
    with ops.quiet():
        try:
            return constant(np.asarray(value, dtype))
        except OverflowError:
            return constant(np.asarray(math.inf if value > 0 else -math.inf, dtype))


def _checked(op: ops.Op, value: Number, dtype: Dtype) -> Number:
    """The number, if the integer type can hold it."""
    if issubclass(type(value), Weak):
        # Whole numbers of a call fit 64 bits; a smaller type needs to know which one it is.
        return value if dtype.kind not in "iu" or dtype == DEFAULT_INTEGER else int(value)
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        limits = np.iinfo(dtype)
        raise DtypeError(
            f"{op.name}: {dtype.name} holds {limits.min} to {limits.max}; got {value}. Use astype first"
        )
    return value


def broadcast_node(op: ops.Op, nodes: tuple[Node, ...]) -> Node:
    """Apply an elementwise operation to nodes of one dtype, with the broadcasts written into the graph.

    NumPy broadcasts by itself, so the expanded arrays are only made if somebody looks at them.
    """
    values: list[Any] = []
    same, recorded = True, False
    for node in nodes:
        value: Any = node._value
        if value is None:
            value = node.value
            if value is None:
                return _broadcast_traced(op, nodes)
        values.append(value)
        if value.shape != values[0].shape:
            same = False
        if node.requires_grad:
            recorded = True
    if same:
        return op.node(nodes, NO_ATTRIBUTES)
    result = op.run(values, NO_ATTRIBUTES)
    if recorded and state.grad_enabled:
        shape = result.shape
        expanded = tuple([one if one.shape == shape else expand(one, shape) for one in nodes])
        return op.record(expanded, NO_ATTRIBUTES, result)
    return op.record(nodes, NO_ATTRIBUTES, result)


def _broadcast_traced(op: ops.Op, nodes: tuple[Node, ...]) -> Node:
    shape = broadcast_shapes(op.name, *(node.shape for node in nodes))
    return op.node(tuple(expand(node, shape) for node in nodes), NO_ATTRIBUTES)


def expand(node: Node, shape: tuple[int, ...]) -> Node:
    """An explicit broadcast to `shape`; 0-d constants may stay as they are beside any shape."""
    if node.shape == shape or (node.operation is CONSTANT and not node.shape and not node.requires_grad):
        return node
    if node._value is None:
        return broadcast(node, shape)
    recorded = node.requires_grad and state.grad_enabled
    return Node(
        ops.broadcast_to, (node,), {"shape": shape}, None, (Type(shape, node.dtype),), requires_grad=recorded
    )


def broadcast(node: Node, shape: tuple[int, ...]) -> Node:
    """The node copied to `shape`; the node itself if it has it already."""
    if node.shape == shape:
        return node
    result: Node = ops.broadcast_to.node((node,), {"shape": shape})
    return result
