"""A Python number that a trace does not know yet: it computes like a number, and is one again after the call.

Numbers that change from call to call, `tensor.item()` and hyper-parameters are such numbers inside a compiled step. As
Python's own they are weak: beside a tensor they take its dtype. Where somebody needs to know the number itself
(`if`, `int()`, an index, a key), a TraceError says so.
Knows nodes and promotion; knows nothing of where a number comes from.
"""

from __future__ import annotations

from typing import Any, NoReturn

from .. import ops
from ..dtypes import bool_, float64, int64
from ..errors import TraceError
from ..graph import Node, constant, state
from . import dispatch

_KINDS = {"b": bool, "i": int, "u": int, "f": float}


class TracedNumber(dispatch.Weak):
    """A number of Python's whose value a call will give: a node of no axes, bool, int64 or float64."""

    __slots__ = ()
    __array_ufunc__ = None  # NumPy's scalars leave arithmetic to us

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """What isinstance is told: the kind of number that this will be."""
        return _KINDS[self.node.dtype.kind]

    def __repr__(self) -> str:
        return f"Traced {self.kind.__name__} {self.node.operation.name}"

    def __str__(self) -> str:
        return repr(self) if state.trace is None else state.trace.text_of(self, "")

    def __format__(self, spec: str) -> str:
        return repr(self) if state.trace is None else state.trace.text_of(self, spec)

    @property
    def kind(self) -> type:
        """bool, int or float."""
        return _KINDS[self.node.dtype.kind]

    # ------------------------------------------------------------------------------- arithmetic

    def __add__(self, other: Any) -> Any:
        return _apply(ops.add, self, other)

    def __radd__(self, other: Any) -> Any:
        return _apply(ops.add, other, self)

    def __sub__(self, other: Any) -> Any:
        return _apply(ops.subtract, self, other)

    def __rsub__(self, other: Any) -> Any:
        return _apply(ops.subtract, other, self)

    def __mul__(self, other: Any) -> Any:
        return _apply(ops.multiply, self, other)

    def __rmul__(self, other: Any) -> Any:
        return _apply(ops.multiply, other, self)

    def __truediv__(self, other: Any) -> Any:
        return _divide(ops.divide, self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _divide(ops.divide, other, self)

    def __floordiv__(self, other: Any) -> Any:
        return _divide(ops.floor_divide, self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _divide(ops.floor_divide, other, self)

    def __mod__(self, other: Any) -> Any:
        return _divide(ops.remainder, self, other)

    def __rmod__(self, other: Any) -> Any:
        return _divide(ops.remainder, other, self)

    def __pow__(self, other: Any) -> Any:
        return _power(self, other)

    def __rpow__(self, other: Any) -> Any:
        return _power(other, self)

    def __neg__(self) -> Any:
        return _apply(ops.negative, self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return _apply(ops.abs_, self)

    # ------------------------------------------------------------------------------- comparisons

    def __eq__(self, other: object) -> Any:
        if other is None or isinstance(other, str):
            return False
        return _apply(ops.equal, self, other)

    def __ne__(self, other: object) -> Any:
        if other is None or isinstance(other, str):
            return True
        return _apply(ops.not_equal, self, other)

    def __lt__(self, other: Any) -> Any:
        return _apply(ops.less, self, other)

    def __le__(self, other: Any) -> Any:
        return _apply(ops.less_equal, self, other)

    def __gt__(self, other: Any) -> Any:
        return _apply(ops.greater, self, other)

    def __ge__(self, other: Any) -> Any:
        return _apply(ops.greater_equal, self, other)

    # ------------------------------------------------------------------------------- what needs the number

    def __bool__(self) -> bool:
        decided = None if state.trace is None else state.trace.decide(_truth(self.node))
        return self._refuse("its truth") if decided is None else decided

    def __hash__(self) -> int:
        return self._refuse("a key of a dict or a member of a set")

    def __float__(self) -> float:
        return self._refuse("float()")

    def __int__(self) -> int:
        return self._refuse("int()")

    def __index__(self) -> int:
        return self._refuse("an index, a size or a count")

    def __round__(self, digits: int | None = None) -> int:
        return self._refuse("round()")

    def __trunc__(self) -> int:
        return self._refuse("int()")

    def __floor__(self) -> int:
        return self._refuse("math.floor()")

    def __ceil__(self) -> int:
        return self._refuse("math.ceil()")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self._refuse("NumPy")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._refuse(f"its attribute {name}")

    def __copy__(self) -> TracedNumber:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TracedNumber:
        return self

    def __reduce__(self) -> Any:
        return self._refuse("a pickle")

    def _refuse(self, what: str) -> NoReturn:
        refuse(
            self.node,
            f"inside cr.compile a number that a call gives has no value yet; {what} needs one. Use cr.where instead of "
            "if, keep it as a number (item() can be returned, stored and printed), or set CHAINRULE_COMPILE=0",
        )


def refuse(node: Node, message: str) -> NoReturn:
    """Raise a TraceError, and tell the trace, for the user's code may catch it and go another way than in Python."""
    error = TraceError(message)
    if state.trace is not None:
        state.trace.refused(error, node)
    raise error


def _truth(node: Node) -> Node:
    return node if node.dtype == bool_ else ops.not_equal.node((node, constant(0, node.dtype)), {})


def number_of(node: Node) -> TracedNumber:
    """A node of one element as a number of Python's: float64, int64 or bool, without axes."""
    target = {"f": float64, "b": bool_}.get(node.dtype.kind, int64)
    if node.shape:
        node = ops.reshape.node((node,), {"shape": ()})
    if node.requires_grad:
        node = ops.stop_gradient.node((node,), {})
        node.requires_grad = False
    return TracedNumber(dispatch.astype(node, target))


def is_number(value: Any) -> bool:
    """Whether a value is such a number; isinstance would be told that it is a float."""
    return issubclass(type(value), TracedNumber)


def _operand(value: Any) -> Node | None:
    if is_number(value):
        node: Node = value.node
        return node
    if isinstance(value, bool):
        return constant(value, bool_)
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return constant(value, int64)
    if isinstance(value, float):
        return constant(float(value), float64)
    return None


def _apply(operation: ops.Elementwise, *values: Any) -> Any:
    """As Python computes: ints in int64 (beyond it is an error of the call), everything else in float64."""
    nodes = [_operand(one) for one in values]
    if any(one is None for one in nodes):
        return NotImplemented
    found = [one for one in nodes if one is not None]
    kinds = {one.dtype.kind for one in found}
    arithmetic = operation.accepts == "number"
    target = float64 if "f" in kinds else int64 if "i" in kinds or arithmetic else bool_
    operands = [dispatch.astype(one, target) for one in found]
    return TracedNumber(operation.node(tuple(operands), {}))


def _divide(operation: ops.Elementwise, above: Any, below: Any) -> Any:
    """Python raises ZeroDivisionError where arrays give infinity: so that is a check of the step."""
    divisor = _operand(below)
    if divisor is None or _operand(above) is None:
        return NotImplemented
    zero = constant(0, divisor.dtype)
    condition = ops.not_equal.node((divisor, zero), {}) if divisor.dtype != bool_ else divisor
    if condition.value is None:
        state.trace.check(condition, "division by zero", ZeroDivision)  # type: ignore[union-attr]
    elif not condition.value:
        raise ZeroDivisionError("division by zero")
    if operation is ops.divide:
        above, below = _as_float(above), _as_float(below)
    return _apply(operation, above, below)


class ZeroDivision(TraceError, ZeroDivisionError):
    """A compiled step has divided a Python number by zero; nothing was changed."""


def _as_float(value: Any) -> Any:
    node = _operand(value)
    return value if node is None else TracedNumber(dispatch.astype(node, float64))


def _power(base: Any, exponent: Any) -> Any:
    """With a small whole number as products, as in Python up to rounding; otherwise its value is needed."""
    if not is_number(exponent) and isinstance(exponent, int) and 0 < exponent <= 2:
        return base if exponent == 1 else base * base
    if is_number(base):
        return base._refuse("a power")
    return exponent._refuse("a power") if is_number(exponent) else NotImplemented
