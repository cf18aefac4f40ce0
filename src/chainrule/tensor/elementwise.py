"""The array API's elementwise functions, made from the operations that declare them.

Each takes tensors, arrays or Python numbers, promotes their dtypes, broadcasts their shapes and returns a
tensor. Name, manual and reason come from the declaration.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from ..dtypes import Dtype, as_dtype, bool_, float64, int64, of_python, promote, promote_scalar
from ..errors import ArgumentError, DtypeError
from ..graph import Node
from . import dispatch
from .core import Tensor, as_operand, as_tensor, elementwise, wrap

_TAKES = {
    "float": "Bools and integers are taken as float32.",
    "number": "Integers stay integers; bools become int64.",
    "bits": "Bools or integers; anything else raises DtypeError.",
    "any": "Any dtypes that have a common one.",
}


def _function(op: ops.Elementwise) -> Callable[..., Tensor]:
    """The user's function of an elementwise operation."""
    arguments = ", ".join(op.operand_names)

    def function(*operands: Any) -> Tensor:
        if len(operands) != len(op.operand_names):
            raise ArgumentError(f"{op.name} takes {arguments}; got {len(operands)} arguments")
        return elementwise(op, *operands)

    function.__name__ = function.__qualname__ = op.name
    function.__module__ = __name__
    positional = inspect.Parameter.POSITIONAL_ONLY
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, positional) for name in op.operand_names], return_annotation=Tensor
    )
    example = ", ".join(["cr.asarray([1, 0])" if op.accepts == "bits" else "0.5"] * len(op.operand_names))
    function.__doc__ = (
        f"{op.manual}\n\n"
        f"{op.why}\n"
        f"Operands: tensors, arrays or numbers of broadcastable shapes. {_TAKES[op.accepts]}\n"
        "Raises ShapeError if the shapes do not fit.\n\n"
        f">>> import chainrule as cr\n>>> y = cr.{op.name}({example})"
    )
    return function


acos = _function(ops.acos)
acosh = _function(ops.acosh)
add = _function(ops.add)
asin = _function(ops.asin)
asinh = _function(ops.asinh)
atan = _function(ops.atan)
atan2 = _function(ops.atan2)
atanh = _function(ops.atanh)
bitwise_and = _function(ops.bitwise_and)
bitwise_invert = _function(ops.bitwise_invert)
bitwise_left_shift = _function(ops.bitwise_left_shift)
bitwise_or = _function(ops.bitwise_or)
bitwise_right_shift = _function(ops.bitwise_right_shift)
bitwise_xor = _function(ops.bitwise_xor)
abs = _function(ops.abs_)
ceil = _function(ops.ceil)
copysign = _function(ops.copysign)
cos = _function(ops.cos)
cosh = _function(ops.cosh)
divide = _function(ops.divide)
equal = _function(ops.equal)
erf = _function(ops.erf)
exp = _function(ops.exp)
expm1 = _function(ops.expm1)
floor = _function(ops.floor)
floor_divide = _function(ops.floor_divide)
greater = _function(ops.greater)
greater_equal = _function(ops.greater_equal)
hypot = _function(ops.hypot)
isfinite = _function(ops.isfinite)
isinf = _function(ops.isinf)
isnan = _function(ops.isnan)
less = _function(ops.less)
less_equal = _function(ops.less_equal)
log = _function(ops.log)
log10 = _function(ops.log10)
log1p = _function(ops.log1p)
log2 = _function(ops.log2)
logaddexp = _function(ops.logaddexp)
maximum = _function(ops.maximum)
minimum = _function(ops.minimum)
multiply = _function(ops.multiply)
negative = _function(ops.negative)
nextafter = _function(ops.nextafter)
not_equal = _function(ops.not_equal)
pow = _function(ops.pow_)
reciprocal = _function(ops.reciprocal)
relu = _function(ops.relu)
remainder = _function(ops.remainder)
round = _function(ops.round_)
sigmoid = _function(ops.sigmoid)
sign = _function(ops.sign)
signbit = _function(ops.signbit)
sin = _function(ops.sin)
sinh = _function(ops.sinh)
sqrt = _function(ops.sqrt)
square = _function(ops.square)
subtract = _function(ops.subtract)
tan = _function(ops.tan)
tanh = _function(ops.tanh)
trunc = _function(ops.trunc)


def positive(x: Any, /) -> Tensor:
    """x itself, as a new tensor; gradients pass through.

    >>> positive(2.0).item()
    2.0
    """
    return as_tensor(x).clone()


def _logical(op: ops.Elementwise, *operands: Any) -> Tensor:
    return elementwise(op, *(_truth(operand) for operand in operands))


def _truth(operand: Any) -> Tensor:
    """True where the operand is not 0."""
    given = as_tensor(operand)
    return given if given.dtype == bool_ else given != 0


def logical_and(x: Any, y: Any, /) -> Tensor:
    """Are both true (not 0)? Bools of the broadcast shape.

    >>> logical_and(True, 0).item()
    False
    """
    return _logical(ops.bitwise_and, x, y)


def logical_or(x: Any, y: Any, /) -> Tensor:
    """Is either true (not 0)? Bools of the broadcast shape.

    >>> logical_or(True, 0).item()
    True
    """
    return _logical(ops.bitwise_or, x, y)


def logical_xor(x: Any, y: Any, /) -> Tensor:
    """Is exactly one true (not 0)? Bools of the broadcast shape.

    >>> logical_xor(True, 1).item()
    False
    """
    return _logical(ops.bitwise_xor, x, y)


def logical_not(x: Any, /) -> Tensor:
    """Is x false (0)? Bools of the shape of x.

    >>> logical_not(0.0).item()
    True
    """
    return as_tensor(x) == 0


def where(condition: Any, x: Any, y: Any, /) -> Tensor:
    """x where the condition is true, y elsewhere; the gradient goes to the side that was taken.

    condition: bools. x, y: of one dtype after promotion. All three broadcast.

    >>> import chainrule as cr
    >>> cr.where(cr.tensor([True, False]), 1.0, 0.0)
    tensor([1., 0.])
    """
    chosen = as_tensor(condition)
    if chosen.dtype != bool_:
        raise DtypeError(f"where needs a bool condition; got {chosen.dtype.name}. Write x != 0")
    operands = [as_operand(x), as_operand(y)]
    dtype = dispatch.common_dtype("where", operands)
    sides = (
        dispatch.astype(one, dtype) if isinstance(one, Node) else dispatch.number(one, dtype)
        for one in operands
    )
    return wrap(dispatch.broadcast_node(ops.where, (chosen.node, *sides)))


def clip(x: Any, /, min: Any = None, max: Any = None) -> Tensor:
    """x, but not below `min` and not above `max` (None: no bound). NaN stays.

    Beyond a bound the gradient is 0; at a bound x and the bound share it.

    >>> import chainrule as cr
    >>> cr.clip(cr.tensor([-2.0, 0.5, 9.0]), 0.0, 1.0)
    tensor([0. , 0.5, 1. ])
    """
    result = source = as_tensor(x)
    if min is not None:
        result = maximum(result, min)
    if max is not None:
        result = minimum(result, max)
    return source.clone() if result is source else result


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """x in another dtype. Floats to integers truncate; NaN becomes 0; gradients pass between floats.

    copy=False gives x itself where it has the dtype already.

    >>> import chainrule as cr
    >>> cr.astype(cr.tensor([1.9, -1.9]), "int64").tolist()
    [1, -1]
    """
    if device not in (None, "cpu"):
        raise ArgumentError(f"the only device is 'cpu'; got {device!r}. Leave it out")
    source = as_tensor(x)
    target = as_dtype(dtype)
    if source.dtype == target:
        return source.clone() if copy else source
    return wrap(dispatch.astype(source.node, target))


def result_type(*operands: Any) -> Dtype:
    """The dtype in which the operands (tensors, arrays, dtypes, numbers) would meet.

    >>> result_type("float32", "float64")
    dtype('float64')
    """
    found: Dtype | None = None
    numbers = []
    for one in operands:
        if isinstance(one, bool | int | float):
            numbers.append(one)
            continue
        dtype = as_dtype(one.dtype if isinstance(one, Tensor | np.ndarray | np.generic) else one)
        found = dtype if found is None else promote(found, dtype)
    for number in numbers:
        found = of_python(number) if found is None else promote_scalar(found, number)
    if found is None:
        raise ArgumentError("result_type needs at least one operand; got none")
    return found


def isclose(x: Any, y: Any, /, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """|x − y| ≤ atol + rtol·|y|, element by element; bools.

    >>> isclose(1.0, 1.0 + 1e-9).item()
    True
    """
    # In float64, where unsigned integers cannot wrap and the tolerances keep their digits.
    first, second = (astype(as_tensor(one).detach(), float64) for one in (x, y))
    near = (abs(first - second) <= atol + rtol * abs(second)) & isfinite(second) | (first == second)
    return near | (isnan(first) & isnan(second)) if equal_nan else near


def allclose(
    x: Any, y: Any, /, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool | Tensor:
    """Whether all elements are close, as `isclose` says: a Python bool; inside a compiled step a tensor of one bool.

    >>> allclose([1.0, 2.0], [1.0, 2.0])
    True
    """
    near = isclose(x, y, rtol, atol, equal_nan)
    if near.node.value is not None:
        return bool(near._array().all())
    far = dispatch.astype(logical_not(near).node, int64)
    return wrap(ops.sum_.node((far,), {"axes": tuple(range(near.ndim)), "keepdims": False})) == 0
