"""exp, log, erf, sin, cos and their kin as polynomials that vectorise: no call, no table.

Ranges are reduced with the bits of the numbers, then a power series is summed whose rest lies below the last bit.
Infinities, NaN, signed zeros and subnormal numbers come out as they should; errors are measured by a test.

Sources: the reduction x = n·ln 2 + r in two parts is Cody and Waite's ("Software Manual for the Elementary
Functions", 1980); log(1 + f) = f − s·(f − R) with s = f/(2 + f) is that of Sun's fdlibm (1993); log1p by
log(u)·x/(u − 1) is Kahan's; the error of a difference is Knuth's ("The Art of Computer Programming" 2, 4.2.2).
The coefficients are those of the power series, 1/k! and 2/(2k + 1).
Knows the builder's arithmetic; knows nothing of loops, graphs or LLVM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..dtypes import Dtype

if TYPE_CHECKING:
    from .builder import Builder
    from .loops import Value


class Format(NamedTuple):
    """What has to be known of a float type."""

    integer: Dtype
    digits: int  # bits behind the point
    bias: int
    magic: float  # 1.5·2^digits: adding it leaves a whole number in the last bits
    high: float  # ln 2 = high + low; high has so many zeros at its end that n·high is exact
    low: float
    largest: float  # e^x is infinite from here on
    smallest: float  # and 0 from here on
    terms: int  # of the exponential's series
    odd: int  # of the logarithm's series
    tiny: float  # a power of 2 that makes subnormal numbers normal
    shift: int  # its exponent


_FORMATS = {
    4: Format(
        np.dtype("int32"), 23, 127, 1.5 * 2**23, 0.693145751953125, 1.42860682030941723212e-6, 89.0, -104.0,
        7, 5, 2.0**25, 25,
    ),
    8: Format(
        np.dtype("int64"), 52, 1023, 1.5 * 2**52, 6.93147180369123816490e-01, 1.90821492927058770002e-10,
        710.0, -746.0, 13, 11, 2.0**54, 54,
    ),
}  # fmt: skip


def _format(x: Value) -> Format:
    return _FORMATS[x.dtype.itemsize]


def _fused(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """x·y + z; the product need not be rounded."""
    before, b.flags = b.flags, "contract"
    result = b.add(b.multiply(x, y), z)
    b.flags = before
    return result


def _series(b: Builder, x: Value, coefficients: Sequence[float]) -> Value:
    """c₀ + c₁x + c₂x² + … by Horner's rule."""
    total = b.literal(coefficients[-1], x.dtype)
    for number in reversed(coefficients[:-1]):
        total = _fused(b, total, x, b.literal(number, x.dtype))
    return total


def _power_of_two(b: Builder, n: Value, dtype: Dtype) -> Value:
    """2ⁿ for a whole number within the exponents of normal numbers."""
    form = _FORMATS[dtype.itemsize]
    raised = b.add(n, b.literal(form.bias, form.integer))
    return b.bitcast(b.value("shl", form.integer, raised, b.literal(form.digits, form.integer)), dtype)


def _reduced(b: Builder, x: Value) -> tuple[Value, Value, Value]:
    """(n as a whole number, n as a float, r) with x = n·ln 2 + r and |r| at most ln 2 / 2."""
    form = _format(x)
    magic = b.literal(form.magic, x.dtype)
    shifted = _fused(b, x, b.literal(1 / math.log(2), x.dtype), magic)
    whole = b.subtract(b.bitcast(shifted, form.integer), b.bitcast(magic, form.integer))
    n = b.subtract(shifted, magic)
    r = _fused(b, n, b.literal(-form.high, x.dtype), x)
    return whole, n, _fused(b, n, b.literal(-form.low, x.dtype), r)


def _grown(b: Builder, r: Value) -> Value:
    """eʳ − 1 for small r: r + r²·(1/2 + r/6 + …)."""
    form = _format(r)
    rest = _series(b, r, [1 / math.factorial(k) for k in range(2, form.terms + 1)])
    return _fused(b, b.multiply(r, r), rest, r)


def exp(b: Builder, x: Value) -> Value:
    """eˣ = 2ⁿ·eʳ; 2ⁿ in two factors, so that subnormal results and overflow come out right."""
    form = _format(x)
    inside = b.minimum(b.maximum(x, b.literal(form.smallest, x.dtype)), b.literal(form.largest, x.dtype))
    n, _, r = _reduced(b, inside)
    half = b.value("shr", form.integer, n, b.literal(1, form.integer))
    rest = b.subtract(n, half)
    grown = b.add(b.literal(1, x.dtype), _grown(b, r))
    return b.multiply(b.multiply(grown, _power_of_two(b, half, x.dtype)), _power_of_two(b, rest, x.dtype))


def expm1(b: Builder, x: Value) -> Value:
    """eˣ − 1 = 2·(2ᵐ·(eʳ − 1) + (2ᵐ − 1/2)) with m = n − 1, which neither cancels near 0 nor overflows early."""
    form = _format(x)
    inside = b.minimum(b.maximum(x, b.literal(-50.0, x.dtype)), b.literal(form.largest, x.dtype))
    n, _, r = _reduced(b, inside)
    scale = _power_of_two(b, b.subtract(n, b.literal(1, form.integer)), x.dtype)
    grown = _grown(b, r)
    moved = _fused(b, scale, grown, b.subtract(scale, b.literal(0.5, x.dtype)))
    result = b.multiply(moved, b.literal(2, x.dtype))
    # For n = 0 the two halves cancel exactly; what is left keeps the sign of zero.
    return b.select(
        b.equal(n, b.literal(0, form.integer)), b.select(b.equal(x, b.literal(0, x.dtype)), x, grown), result
    )


def log(b: Builder, x: Value) -> Value:
    """log x = n·ln 2 + log m with m between √½ and √2."""
    return _logarithm(b, x)


def _logarithm(b: Builder, x: Value) -> Value:
    form, dtype = _format(x), x.dtype
    integer, zero = form.integer, b.literal(0, dtype)
    normal = b.literal(float(np.finfo(dtype).tiny), dtype)
    small = b.less(x, normal)
    scaled = b.select(small, b.multiply(x, b.literal(form.tiny, dtype)), x)
    bits = b.bitcast(scaled, integer)
    # Bits of √½ subtracted: the exponent is then that of the nearest power of 2.
    origin = b.bitcast(b.literal(math.sqrt(0.5), dtype), integer)
    above = b.subtract(bits, origin)
    exponent = b.value("shr", integer, above, b.literal(form.digits, integer))
    m = b.bitcast(b.subtract(bits, b.value("shl", integer, exponent, b.literal(form.digits, integer))), dtype)
    n = b.cast(
        b.subtract(exponent, b.select(small, b.literal(form.shift, integer), b.literal(0, integer))), dtype
    )
    f = b.subtract(m, b.literal(1, dtype))
    s = b.divide(f, b.add(b.literal(2, dtype), f))
    z = b.multiply(s, s)
    r = b.multiply(z, _series(b, z, [2 / (2 * k + 1) for k in range(1, form.odd + 1)]))
    half = b.multiply(b.literal(0.5, dtype), b.multiply(f, f))
    # n·high − ((half − (s·(half + r) + n·low)) − f)
    inner = _fused(b, n, b.literal(form.low, dtype), b.multiply(s, b.add(half, r)))
    result = _fused(b, n, b.literal(form.high, dtype), b.subtract(f, b.subtract(half, inner)))
    result = b.select(b.less(x, b.literal(np.inf, dtype)), result, x)  # infinity and NaN
    result = b.select(b.less(x, zero), b.literal(np.nan, dtype), result)
    return b.select(b.equal(x, zero), b.literal(-np.inf, dtype), result)


def log1p(b: Builder, x: Value) -> Value:
    """log(1 + x) = log u · x/(u − 1) with u = 1 + x rounded; x itself where u is 1."""
    one = b.literal(1, x.dtype)
    u = b.add(one, x)
    away = b.subtract(u, one)
    exact = b.equal(away, b.literal(0, x.dtype))
    found = b.multiply(_logarithm(b, u), b.divide(x, b.select(exact, one, away)))
    found = b.select(b.less(u, b.literal(np.inf, x.dtype)), found, u)
    return b.select(exact, x, found)


def log2(b: Builder, x: Value) -> Value:
    """log x / log 2."""
    return b.multiply(_logarithm(b, x), b.literal(1 / math.log(2), x.dtype))


def log10(b: Builder, x: Value) -> Value:
    """log x / log 10."""
    return b.multiply(_logarithm(b, x), b.literal(1 / math.log(10), x.dtype))


# exp(x²)·(1 − erf x) for 1 ≤ x ≤ 6 as a polynomial in t = (x − 2)/(x + 2): Chebyshev's interpolation of degree 8
# (relative error 3e-9) and 18 (5e-19), computed with 40 digits.
_TAIL = {
    4: (
        0.25539567655524859288, -0.42718584608697693429, 0.24165813437907881899, -0.078978657308910116645,
        0.003735255353827602515, 0.006997470970135616615, -0.00087818117466304963435, -0.00095795657326268006308,
        0.00017761552754330537794,
    ),
    8: (
        0.25539567631050574389, -0.42718584741395839526, 0.2416581942424663291, -0.0789785810157325263,
        0.0037328924043494834936, 0.0069974617392284760557, -0.00084714325227522531679,
        -0.00098197702691626470458, 0.000043555644272098928705, 0.00017436114311543650247,
        0.000027524767363165049701, -0.000027579013119021908574, -0.000013961490067423969642,
        1.3805842477253988023e-6, 3.7601677167193132465e-6, 1.2559897861345693262e-6, -5.0609154386930482202e-7,
        -6.144477167995065622e-7, 1.3408848717362391034e-7,
    ),
}  # fmt: skip


def erf(b: Builder, x: Value) -> Value:
    """2/√π·∫₀ˣ e^−t² dt: its power series below 1; above, 1 − e^−x² times a polynomial; 1 from 6 on."""
    form, dtype = _format(x), x.dtype
    one, two = b.literal(1, dtype), b.literal(2, dtype)
    square = b.multiply(x, x)
    terms = range(11 if form.digits < 24 else 20)
    series = [2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in terms]
    near = b.multiply(x, _series(b, square, series))
    size = b.minimum(b.maximum(b.absolute(x), one), b.literal(6, dtype))
    t = b.divide(b.subtract(size, two), b.add(size, two))
    rest = b.multiply(exp(b, b.negative(b.multiply(size, size))), _series(b, t, _TAIL[dtype.itemsize]))
    far = b.value("copysign", dtype, b.subtract(one, rest), x)
    return b.select(b.less(b.absolute(x), one), near, far)


# π/2 cut into three parts of 33 bits and what is left, computed with 400 bits: n·part is exact for whole n below 2²⁰.
_HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21, 8.4784276603689e-32)

# Beyond this the multiple of π/2 would not be exact: the C library reduces such numbers by hundreds of digits of π.
_FAR = 1e6

# Terms of the series of (sin r)/r and of cos r for |r| up to π/4: what is left out is below 1/30 of the last bit.
_SINE_TERMS = {4: 5, 8: 9}
_COSINE_TERMS = {4: 6, 8: 9}


def sin(b: Builder, x: Value) -> Value:
    """±sin r or ±cos r with x = n·π/2 + r; the C library's beyond 10⁶."""
    return _circular(b, x, 0)


def cos(b: Builder, x: Value) -> Value:
    """sin(x + π/2): ±cos r or ±sin r with x = n·π/2 + r; the C library's beyond 10⁶."""
    return _circular(b, x, 1)


def _circular(b: Builder, x: Value, turn: int) -> Value:
    """sin(x + turn·π/2). A float32 is computed as a float64 of fewer terms, so it is rounded once."""
    far, size = b.literal(_FAR, x.dtype), x.dtype.itemsize
    wide = b.cast(x, np.dtype("float64"))
    quarters, r, tail = _quarter_turns(b, wide, exact=size == 8)
    z = b.multiply(r, r)
    sine, cosine = _sine(b, r, z, tail, size), _cosine(b, r, z, tail, size)
    one, two, zero = (b.literal(number, np.dtype("int64")) for number in (1, 2, 0))
    count = b.add(quarters, b.literal(turn, np.dtype("int64")))
    odd = b.not_equal(b.bits("and", count, one), zero)
    below = b.not_equal(b.bits("and", count, two), zero)
    found = b.select(odd, cosine, sine)
    found = b.cast(b.select(below, b.negative(found), found), x.dtype)
    if not turn:
        found = b.select(b.equal(x, b.literal(0, x.dtype)), x, found)  # keeps the sign of zero
    return b.unless(b.less(b.absolute(x), far), found, "cos" if turn else "sin", x)


def _quarter_turns(b: Builder, x: Value, exact: bool) -> tuple[Value, Value, Value | None]:
    """(n in the last bits of an integer, r, what r lacks) with x = n·π/2 + r and |r| at most π/4."""
    magic = b.literal(_FORMATS[8].magic, x.dtype)
    shifted = _fused(b, x, b.literal(2 / math.pi, x.dtype), magic)
    n = b.subtract(shifted, magic)
    first, second, third, rest = (b.literal(part, x.dtype) for part in _HALF_PI)
    r = b.subtract(x, b.multiply(n, first))
    quarters = b.bitcast(shifted, np.dtype("int64"))
    if not exact:
        return quarters, b.subtract(r, b.multiply(n, second)), None
    r, one = _difference(b, r, b.multiply(n, second))
    r, other = _difference(b, r, b.multiply(n, third))
    return quarters, r, b.subtract(b.add(one, other), b.multiply(n, rest))


def _difference(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """(x − y rounded, what the rounding has lost): Knuth's, without a condition on the sizes."""
    found = b.subtract(x, y)
    taken = b.subtract(x, found)
    return found, b.add(b.subtract(x, b.add(found, taken)), b.subtract(taken, y))


def _sine(b: Builder, r: Value, z: Value, tail: Value | None, size: int) -> Value:
    """sin(r + tail) = r + (r·z·S(z) + tail·(1 − z/2)) with z = r²."""
    terms = range(1, _SINE_TERMS[size])
    series = _series(b, z, [(-1) ** k / math.factorial(2 * k + 1) for k in terms])
    if tail is None:
        return _fused(b, b.multiply(r, z), series, r)
    slope = _fused(b, z, b.literal(-0.5, z.dtype), b.literal(1, z.dtype))
    return b.add(r, _fused(b, b.multiply(r, z), series, b.multiply(tail, slope)))


def _cosine(b: Builder, r: Value, z: Value, tail: Value | None, size: int) -> Value:
    """cos(r + tail) = (1 − z/2) + (what that has lost + z²·C(z) − r·tail)."""
    one = b.literal(1, z.dtype)
    series = _series(b, z, [(-1) ** k / math.factorial(2 * k) for k in range(2, _COSINE_TERMS[size])])
    half = b.multiply(z, b.literal(0.5, z.dtype))
    whole = b.subtract(one, half)
    lost = b.subtract(b.subtract(one, whole), half)
    if tail is not None:
        lost = b.subtract(lost, b.multiply(r, tail))
    return b.add(whole, _fused(b, b.multiply(z, z), series, lost))


OWN = {
    "cos": cos, "erf": erf, "exp": exp, "expm1": expm1, "log": log, "log1p": log1p, "log2": log2, "log10": log10,
    "sin": sin,
}  # fmt: skip
"""Functions of the C library that are written out instead, by their names there."""
