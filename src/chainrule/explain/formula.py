"""Formulas as text, by running the operations' own derivative rules on names instead of numbers.

A rule such as `out * (1 - out)` is called with formulas; what comes back is its text. So every operation
that can be differentiated can be written down, and nothing about calculus is said here a second time.
Knows the notation of operations (infix signs, powers, brackets); knows nothing of graphs, values or pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..dtypes import Dtype, float64
from ..errors import ChainruleError
from ..operations import Arithmetic, Attributes, Operation, Type

# How tightly a formula holds together; a weaker one inside a stronger one is put in brackets.
_COMPARISON, _SUM, _PRODUCT, _SIGN, _POWER, _ATOM = range(6)

_INFIX = {
    "add": ("+", _SUM), "subtract": ("−", _SUM), "multiply": ("·", _PRODUCT), "absorb": ("·", _PRODUCT),
    "divide": ("/", _PRODUCT), "matmul": ("@", _PRODUCT), "equal": ("=", _COMPARISON),
    "not_equal": ("≠", _COMPARISON), "less": ("<", _COMPARISON), "less_equal": ("≤", _COMPARISON),
    "greater": (">", _COMPARISON), "greater_equal": ("≥", _COMPARISON),
}  # fmt: skip
# What is no part of a formula: in a slope, which is written element by element, every change of shape; in a
# rule for gradients the refolding that goes with a broadcast; nothing where a step itself is written down.
# In a sketch, for rules that are long, nothing that only moves entries, and no settings.
SLOPE, RULE, STEP, SKETCH = "slope", "rule", "step", "sketch"
_HIDDEN = {
    SLOPE: ("broadcast_to", "reshape", "positive"), RULE: ("reshape", "positive"), STEP: (),
    SKETCH: ("broadcast_to", "reshape", "positive", "permute_dims", "pad", "slice"),
}  # fmt: skip
# Letters from which on a rule is only sketched.
_LONG_RULE = 80
_RAISED = {"2": "²", "3": "³"}
_SHORT = {
    "broadcast_to": "broadcast", "permute_dims": "permute", "reduce_max": "max", "reduce_min": "min",
    "first_max": "max", "positions_like": "place",
}  # fmt: skip


class Formula(Arithmetic):
    """A piece of mathematics as text, standing for a value of a known type.

    >>> y = Formula("y")
    >>> str(y * (1 - y))
    'y·(1 − y)'
    """

    __slots__ = ("mode", "number", "strength", "text", "type")

    def __init__(
        self,
        text: str,
        type: Type | None = None,
        strength: int = _ATOM,
        number: float | None = None,
        mode: str = SLOPE,
    ) -> None:
        self.text = text
        self.type = type or Type((), float64)
        self.strength = strength
        self.number = number
        self.mode = mode

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value that the formula stands for."""
        return self.type.shape

    @property
    def dtype(self) -> Dtype:
        """Dtype of the value that the formula stands for."""
        return self.type.dtype

    def __str__(self) -> str:
        return self.text

    def __apply__(self, operation: Operation, operands: tuple[Any, ...], attributes: Attributes) -> Formula:
        given = [one if isinstance(one, Formula) else number(one, self.dtype) for one in operands]
        written = write(operation, given, attributes, self.mode)
        written.mode = self.mode
        return written


def number(value: Any, dtype: Dtype = float64) -> Formula:
    """A plain number as a formula; an array as its type."""
    array = np.asarray(value)
    if array.size != 1:
        return Formula(f"<{Type(array.shape, array.dtype)}>", Type(array.shape, array.dtype))
    plain = float(array.reshape(()))
    text = f"{plain:.6g}".replace("-", "−")
    return Formula(text, Type((), dtype), _SIGN if plain < 0 else _ATOM, plain)


def write(
    operation: Operation, operands: Sequence[Formula], attributes: Attributes, mode: str = SLOPE
) -> Formula:
    """The formula of an operation on formulas; but for steps with simplifications (1·x, 2 − 1, x·x)."""
    type = _result_type(operation, operands, attributes)
    name = operation.name
    if name in _HIDDEN[mode]:
        one = operands[0]
        return Formula(one.text, type, one.strength, one.number)
    if name == "cast" and mode != STEP:
        one = operands[0]
        bracketed = f"[{one.text}]" if one.dtype.kind == "b" else one.text
        return Formula(bracketed, type, _ATOM if one.dtype.kind == "b" else one.strength, one.number)
    short = _simplified(name, operands) if mode != STEP else None
    if short is not None:
        return Formula(short.text, type, short.strength, short.number)
    if name in _INFIX and len(operands) == 2:
        return _infix(name, operands[0], operands[1], type)
    if name == "sigmoid_complement":
        return write(
            ops.subtract, [number(1, operands[0].dtype), _sigmoid(operands, attributes, mode)], {}, mode
        )
    if name == "negative":
        return Formula("−" + _inside(operands[0], _SIGN), type, _SIGN)
    if name in ("square", "pow"):
        return _power(operands[0], operands[1] if name == "pow" else number(2), type)
    if name == "abs":
        return Formula(f"|{operands[0].text}|", type)
    if name == "slice":
        return Formula(f"{_inside(operands[0], _ATOM)}[{_ranges(**attributes)}]", type)
    if name == "permute_dims" and _swaps_last(attributes["axes"]):
        return Formula(_inside(operands[0], _ATOM) + "ᵀ", type)
    return Formula(_call(operation, operands, {} if mode == SKETCH else attributes), type)


def _sigmoid(operands: Sequence[Formula], attributes: Attributes, mode: str) -> Formula:
    return write(ops.sigmoid, operands, attributes, mode)


def _result_type(operation: Operation, operands: Sequence[Formula], attributes: Attributes) -> Type:
    try:
        return operation.types(*(one.type for one in operands), **attributes)[0]
    except ChainruleError:  # a number stands beside an array: the rule takes it, the strict type rule not
        return max((one.type for one in operands), key=lambda type: type.ndim)


def _infix(name: str, x: Formula, y: Formula, type: Type) -> Formula:
    sign, strength = _INFIX[name]
    right = strength + 1 if name in ("subtract", "divide", "matmul") or strength == _COMPARISON else strength
    left = f"{_inside(x, strength)}"
    gap = "" if sign in "·/" else " "
    return Formula(f"{left}{gap}{sign}{gap}{_inside(y, right)}", type, strength)


def _inside(one: Formula, strength: int) -> str:
    return one.text if one.strength >= strength else f"({one.text})"


def _power(base: Formula, exponent: Formula, type: Type) -> Formula:
    raised = _RAISED.get(exponent.text)
    text = _inside(base, _ATOM) + (raised or f"^{_inside(exponent, _ATOM)}")
    return Formula(text, type, _POWER)


def _simplified(name: str, operands: Sequence[Formula]) -> Formula | None:
    """x·1 = x, x·x = x², and arithmetic between plain numbers; None where there is nothing to do."""
    if name not in ("add", "subtract", "multiply", "absorb", "divide", "pow") or len(operands) != 2:
        return None
    x, y = operands
    if x.number is not None and y.number is not None and name in ("subtract", "multiply", "add"):
        value = {"subtract": x.number - y.number, "add": x.number + y.number}.get(name, x.number * y.number)
        return number(value)
    if name in ("multiply", "absorb"):
        if x.number == 1:
            return y
        if y.number == 1:
            return x
        if x.text == y.text:
            return _power(x, number(2), x.type)
    if (name in ("divide", "pow") and y.number == 1) or (name in ("subtract", "add") and y.number == 0):
        return x
    return None


def _swaps_last(axes: Sequence[int]) -> bool:
    """Does this order exchange the last two axes and leave the others?"""
    rank = len(axes)
    return rank >= 2 and tuple(axes) == (*range(rank - 2), rank - 1, rank - 2)


def _ranges(starts: Sequence[int], stops: Sequence[int], steps: Sequence[int]) -> str:
    """`0:2, 1:9:2`, as Python writes slices."""
    return ", ".join(f"{a}:{b}" + (f":{c}" if c != 1 else "") for a, b, c in zip(starts, stops, steps))


def _call(operation: Operation, operands: Sequence[Formula], attributes: Attributes) -> str:
    parts = [one.text for one in operands]
    for name, value in attributes.items():
        if _is_usual(operation.name, name, value):
            continue
        if isinstance(value, bool | int | float | str | tuple | np.dtype) and value is not False:
            shown = value.name if isinstance(value, np.dtype) else _tuple_text(name, value)
            parts.append(f"{name.replace('axes', 'axis')}={shown}")
    return f"{_SHORT.get(operation.name, operation.name)}({', '.join(parts)})"


def _is_usual(operation: str, name: str, value: Any) -> bool:
    """Settings that say nothing to a reader: steps of 1 of a convolution, how the operands of a scan are counted."""
    if operation == "conv":
        return all(one == 1 for one in np.atleast_1d(value))
    return operation == "scan" and name in ("carries", "stacked")


def _tuple_text(name: str, value: Any) -> str:
    return str(value[0]) if name == "axes" and isinstance(value, tuple) and len(value) == 1 else str(value)


# --------------------------------------------------------------------------------- what the story needs


def slope(
    operation: Operation, index: int, out: Formula, operands: Sequence[Formula], attributes: Attributes
) -> str:
    """∂out/∂operand `index` as text, for an operation that works element by element or selects; "" for none."""
    if isinstance(operation, ops.Elementwise):
        rule = operation.derivatives[index]
        if rule is None or isinstance(rule, int):
            return str(rule or 0).replace("-", "−")
        # A rule that computes the result once more means the result, which has a name.
        again = write(operation, operands, attributes).text
        return str(rule(out, *operands, **attributes)).replace(again, out.text)
    if isinstance(operation, ops.Selection):
        return str(operation.weights(out, operands[0], **attributes))
    if isinstance(operation, ops.Linear):
        rule = operation.transpose(index)
        return "0" if rule is None else str(rule(number(1, out.dtype), *operands, **attributes))
    return ""


def outgoing(
    operation: Operation,
    index: int,
    incoming: str,
    out: Type,
    operands: Sequence[Formula],
    attributes: Attributes,
) -> str:
    """The gradient that reaches operand `index`, in terms of the incoming one: `∂L/∂z @ wᵀ`."""
    if not isinstance(operation, ops.Linear):
        return ""
    rule = operation.transpose(index)
    if rule is None:
        return ""
    result = _ruled(rule, incoming, out, operands, attributes, RULE)
    if len(result.text) > _LONG_RULE:
        return _ruled(rule, incoming, out, operands, attributes, SKETCH).text
    if result.text == incoming and result.shape != out.shape:
        return f"reshape({incoming}, shape={result.shape})"
    return result.text


def _ruled(
    rule: Any, incoming: str, out: Type, operands: Sequence[Formula], attributes: Attributes, mode: str
) -> Formula:
    plain = [Formula(one.text, one.type, one.strength, one.number, mode=mode) for one in operands]
    found: Formula = rule(Formula(incoming, out, _POWER, mode=mode), *plain, **attributes)
    return found
