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
