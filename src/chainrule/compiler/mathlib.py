"""Functions that are built from others inside a loop body, in forms that neither overflow nor cancel.

Knows the builder's arithmetic; knows nothing of loops, graphs or LLVM.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .builder import Builder
    from .loops import Value


def sigmoid(b: Builder, x: Value) -> Value:
    """1 / (1 + e⁻ˣ): with e^−|x|, which is at most 1, so no exponential overflows."""
    one = b.literal(1, x.dtype)
    small = b.exp(b.negative(b.absolute(x)))
    above = b.select(b.less_equal(b.literal(0, x.dtype), x), one, small)
    return b.divide(above, b.add(one, small))


def tanh(b: Builder, x: Value) -> Value:
    """(e²ˣ − 1)/(e²ˣ + 1), as −m/(m + 2) with m = e^−2|x| − 1 and the sign of x: exact near 0, no overflow."""
    two = b.literal(2, x.dtype)
    m = b.library("expm1", b.negative(b.multiply(two, b.absolute(x))))
    return b.library("copysign", b.divide(b.negative(m), b.add(m, two)), x)


def logaddexp(b: Builder, x: Value, y: Value) -> Value:
    """log(eˣ + eʸ) = max + log(1 + e^−|x − y|); equal infinities are taken apart from their difference NaN."""
    distance = b.absolute(b.subtract(x, y))
    spread = b.add(b.maximum(x, y), b.library("log1p", b.exp(b.negative(distance))))
    return b.select(b.equal(x, y), b.add(x, b.literal(math.log(2), x.dtype)), spread)


def divided(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """(⌊x / y⌋, x − y·⌊x / y⌋), the remainder with the sign of y."""
    return _divided_floats(b, x, y) if x.dtype.kind == "f" else _divided_integers(b, x, y)


def _divided_integers(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """By 0 both are 0; by −1 the machine's division, which would trap for the lowest number, is not used."""
    zero, one = b.literal(0, x.dtype), b.literal(1, x.dtype)
    by_zero = unsafe = b.equal(y, zero)
    signed = x.dtype.kind == "i"
    if signed:
        turned = b.equal(y, b.literal(-1, x.dtype))
        unsafe = b.bits("or", by_zero, turned)
    safe = b.select(unsafe, one, y)
    quotient, rest = b.value("quotient", x.dtype, x, safe), b.value("rest", x.dtype, x, safe)
    if signed:
        apart = b.bits("xor", b.less(rest, zero), b.less(y, zero))
        below = b.bits("and", b.not_equal(rest, zero), apart)
        quotient = b.select(turned, b.negative(x), b.select(below, b.subtract(quotient, one), quotient))
        rest = b.select(below, b.add(rest, y), rest)
    return b.select(by_zero, zero, quotient), b.select(by_zero, zero, rest)


def _divided_floats(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """From the exact remainder, as NumPy does it: the quotient is a whole number up to rounding, and is rounded.

    By 0, and where an operand is infinite, the quotient is x / y itself.
    """
    zero, one, half, endless = (b.literal(number, x.dtype) for number in (0, 1, 0.5, math.inf))
    rest = b.library("fmod", x, y)
    quotient = b.divide(b.subtract(x, rest), y)
    there = b.not_equal(rest, zero)
    below = b.bits("and", there, b.bits("xor", b.less(y, zero), b.less(rest, zero)))
    quotient = b.select(below, b.subtract(quotient, one), quotient)
    remainder = b.select(there, b.select(below, b.add(rest, y), rest), b.library("copysign", zero, y))
    whole = b.rounded("floor", quotient)
    whole = b.select(b.less(half, b.subtract(quotient, whole)), b.add(whole, one), whole)
    ratio = b.divide(x, y)
    whole = b.select(b.not_equal(quotient, zero), whole, b.library("copysign", zero, ratio))
    by_zero = b.equal(y, zero)
    infinite = b.bits("or", b.equal(b.absolute(x), endless), b.equal(b.absolute(y), endless))
    return b.select(b.bits("or", by_zero, infinite), ratio, whole), b.select(by_zero, rest, remainder)
