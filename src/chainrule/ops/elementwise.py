"""The elementwise primitives on floating-point numbers: value, local derivatives, loop body, reason.

Derivative rules are read as a calculus table: `out` is the result, then the operands. They are written in
operations, so they work on arrays, on nodes (second order), and on the explainer's formulas.
"""

from __future__ import annotations

import math
from typing import Any

from .kinds import elementwise
from .lowering import Exact, Scalar

# ------------------------------------------------------------------------------------------ arithmetic


@elementwise(derivatives=(1, 1), lower=Scalar(lambda b, x, y: b.add(x, y)), may_warn=True, accepts="number")
def add(xp: Any, x: Any, y: Any) -> Any:
    """x + y.  Why: a sum moves as much as either term moves, so each receives the gradient unchanged."""
    return xp.add(x, y)


@elementwise(
    derivatives=(1, -1),
    lower=Scalar(lambda b, x, y: b.subtract(x, y)),
    may_warn=True,
    accepts="number",
    exact=Exact(neutral=(None, 0)),
)
def subtract(xp: Any, x: Any, y: Any) -> Any:
    """x − y.  Why: a difference rises with its first term and falls with its second, one for one."""
    return xp.subtract(x, y)


@elementwise(
    derivatives=(lambda out, x, y: y, lambda out, x, y: x),
    lower=Scalar(lambda b, x, y: b.multiply(x, y)),
    may_warn=True,
    accepts="number",
    exact=Exact(neutral=(1, 1)),
)
def multiply(xp: Any, x: Any, y: Any) -> Any:
    """x · y.  Why: each factor is the slope of the other, so the gradients arrive swapped."""
    return xp.multiply(x, y)


@elementwise(
    derivatives=(lambda out, x, y: 1 / y, lambda out, x, y: -(out / y)),
    lower=Scalar(lambda b, x, y: b.divide(x, y)),
    cost="costly",
    may_warn=True,
    exact=Exact(neutral=(None, 1)),
)
def divide(xp: Any, x: Any, y: Any) -> Any:
    """x / y.  Why: the numerator's slope is 1/denominator, the denominator's is −quotient/denominator."""
    return xp.divide(x, y)


@elementwise(derivatives=(-1,), lower=Scalar(lambda b, x: b.negative(x)), accepts="number")
def negative(xp: Any, x: Any) -> Any:
    """−x.  Why: turning the sign of a value turns the sign of its gradient."""
    return xp.negative(x)


@elementwise(
    derivatives=(lambda out, x: -(out * out),),
    lower=Scalar(lambda b, x: b.divide(b.constant(1), x)),
    cost="costly",
    may_warn=True,
)
def reciprocal(xp: Any, x: Any) -> Any:
    """1 / x.  Why: 1/x falls at the rate 1/x², which is the square of the output."""
    return xp.reciprocal(x)


@elementwise(
    derivatives=(lambda out, x: 2 * x,),
    lower=Scalar(lambda b, x: b.multiply(x, x)),
    may_warn=True,
    accepts="number",
)
def square(xp: Any, x: Any) -> Any:
    """x².  Why: a square's slope is twice its side."""
    return xp.square(x)


@elementwise(
    derivatives=(
        lambda out, x, y: absorb(y, pow_(x, y - 1)),
        lambda out, x, y: absorb(out, log(x)),
    ),
    cost="costly",
    may_warn=True,
    accepts="number",
    lower=Scalar(lambda b, x, y: b.library("pow", x, y), only="f"),
)
def pow_(xp: Any, x: Any, y: Any) -> Any:
    """xʸ.  Why: the exponent comes down as a factor; the base acts on the exponent through its logarithm."""
    return xp.power(x, y)


# ---------------------------------------------------------------------------- exponentials, logarithms


@elementwise(
    derivatives=(lambda out, x: out,), lower=Scalar(lambda b, x: b.exp(x)), cost="costly", may_warn=True
)
def exp(xp: Any, x: Any) -> Any:
    """eˣ.  Why: eˣ is its own slope, so the local derivative is the output itself."""
    return xp.exp(x)


@elementwise(
    # Not out + 1, which has lost its digits where out is next to −1.
    derivatives=(lambda out, x: exp(x),),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x: b.library("expm1", x), only="f"),
)
def expm1(xp: Any, x: Any) -> Any:
    """eˣ − 1, exact near 0.  Why: the constant adds no slope, so it is that of eˣ: eˣ itself."""
    return xp.expm1(x)


@elementwise(
    derivatives=(lambda out, x: 1 / x,), lower=Scalar(lambda b, x: b.log(x)), cost="costly", may_warn=True
)
def log(xp: Any, x: Any) -> Any:
    """Natural logarithm.  Why: doubling x adds the same amount everywhere, so the slope is 1/x."""
    return xp.log(x)


@elementwise(
    derivatives=(lambda out, x: 1 / (1 + x),),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x: b.library("log1p", x), only="f"),
)
def log1p(xp: Any, x: Any) -> Any:
    """log(1 + x), exact near 0.  Why: the slope of the logarithm at 1 + x is 1/(1 + x)."""
    return xp.log1p(x)


@elementwise(
    derivatives=(lambda out, x: (1 / math.log(2)) / x,),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x: b.library("log2", x), only="f"),
)
def log2(xp: Any, x: Any) -> Any:
    """Logarithm to base 2.  Why: the natural logarithm's slope 1/x, measured in units of log 2."""
    return xp.log2(x)


@elementwise(
    derivatives=(lambda out, x: (1 / math.log(10)) / x,),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x: b.library("log10", x), only="f"),
)
def log10(xp: Any, x: Any) -> Any:
    """Logarithm to base 10.  Why: the natural logarithm's slope 1/x, measured in units of log 10."""
    return xp.log10(x)


@elementwise(
    derivatives=(lambda out, x, y: sigmoid(x - y), lambda out, x, y: sigmoid(y - x)),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x, y: b.logaddexp(x, y), only="f"),
)
def logaddexp(xp: Any, x: Any, y: Any) -> Any:
    """log(eˣ + eʸ) without overflow.  Why: each term's slope is its share of the sum, eˣ / (eˣ + eʸ) = σ(x − y)."""
    return xp.logaddexp(x, y)


@elementwise(
    derivatives=(lambda out, x: 0.5 / out,),
    lower=Scalar(lambda b, x: b.sqrt(x)),
    cost="costly",
    may_warn=True,
)
def sqrt(xp: Any, x: Any) -> Any:
    """√x.  Why: the larger the root, the less it moves: one over twice the output."""
    return xp.sqrt(x)


# ------------------------------------------------------------------------------------------ activations


@elementwise(
    derivatives=(lambda out, x: cast(x > 0, dtype=x.dtype),),
    lower=Scalar(lambda b, x: b.select(b.less_equal(x, b.constant(0)), b.constant(0), x)),
    accepts="number",
    exact=Exact(gate=True),
)
def relu(xp: Any, x: Any) -> Any:
    """x above 0, otherwise 0; NaN stays.  Why: the gate is open where x > 0 and closed elsewhere, at 0 too."""
    return xp.maximum(x, 0)


@elementwise(
    # out·(1 − out), where 1 − out keeps its digits when out is next to 1.
    derivatives=(lambda out, x: out * sigmoid_complement(x),),
    lower=Scalar(lambda b, x: b.sigmoid(x)),
    cost="costly",
    may_warn=True,
)
def sigmoid(xp: Any, x: Any) -> Any:
    """1 / (1 + e⁻ˣ).  Why: steepest (1/4) at one half and flat at both ends: output times one minus output."""
    return xp.sigmoid(x)


@elementwise(
    derivatives=(lambda out, x: -(out * sigmoid(x)),),
    lower=Scalar(lambda b, x: b.sigmoid(b.negative(x))),
    cost="costly",
    may_warn=True,
)
def sigmoid_complement(xp: Any, x: Any) -> Any:
    """1 − sigmoid(x), with all its digits.  Why: what the sigmoid gains, what is missing to 1 loses."""
    return xp.sigmoid(-x)


@elementwise(derivatives=(lambda out, x: 1 - out * out,), lower=Scalar(lambda b, x: b.tanh(x)), cost="costly")
def tanh(xp: Any, x: Any) -> Any:
    """Hyperbolic tangent.  Why: slope 1 in the middle, flat at ±1: one minus the square of the output."""
    return xp.tanh(x)


@elementwise(
    derivatives=(lambda out, x: (2 / math.sqrt(math.pi)) * exp(-(x * x)),),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x: b.library("erf", x), only="f"),
)
def erf(xp: Any, x: Any) -> Any:
    """The error function.  Why: it is the area under a bell curve, so its slope is that curve."""
    return xp.erf(x)


# ------------------------------------------------------------------------------------------ trigonometry


@elementwise(
    derivatives=(lambda out, x: cos(x),),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x: b.library("sin", x), only="f"),
)
def sin(xp: Any, x: Any) -> Any:
    """Sine of x radians.  Why: the height of a point on the circle changes at the rate of its width."""
    return xp.sin(x)


@elementwise(
    derivatives=(lambda out, x: -sin(x),),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x: b.library("cos", x), only="f"),
)
def cos(xp: Any, x: Any) -> Any:
    """Cosine of x radians.  Why: the width of a point on the circle shrinks at the rate of its height."""
    return xp.cos(x)


@elementwise(
    derivatives=(lambda out, x: 1 + out * out,),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x: b.library("tan", x), only="f"),
)
def tan(xp: Any, x: Any) -> Any:
    """Tangent of x radians.  Why: the quotient rule on sin/cos leaves one plus the square of the output."""
    return xp.tan(x)


@elementwise(
    derivatives=(lambda out, x: 1 / sqrt(1 - x * x),),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x: b.library("asin", x), only="f"),
)
def asin(xp: Any, x: Any) -> Any:
    """Angle in radians whose sine is x.  Why: the inverse's slope is one over the cosine of that angle."""
    return xp.asin(x)


@elementwise(
    derivatives=(lambda out, x: -1 / sqrt(1 - x * x),),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x: b.library("acos", x), only="f"),
)
def acos(xp: Any, x: Any) -> Any:
    """Angle in radians whose cosine is x.  Why: the inverse's slope is minus one over the sine of that angle."""
    return xp.acos(x)


@elementwise(
    derivatives=(lambda out, x: 1 / (1 + x * x),),
    cost="costly",
    lower=Scalar(lambda b, x: b.library("atan", x), only="f"),
)
def atan(xp: Any, x: Any) -> Any:
    """Angle in radians whose tangent is x.  Why: the inverse of a slope 1 + tan² is one over it."""
    return xp.atan(x)


@elementwise(
    derivatives=(
        lambda out, y, x: absorb(x, 1 / (x * x + y * y)),
        lambda out, y, x: -absorb(y, 1 / (x * x + y * y)),
    ),
    cost="costly",
    lower=Scalar(lambda b, y, x: b.library("atan2", y, x), only="f"),
)
def atan2(xp: Any, y: Any, x: Any) -> Any:
    """Angle in radians of the point (x, y).  Why: moving across the ray turns it, by one over the distance."""
    return xp.atan2(y, x)


@elementwise(
    derivatives=(lambda out, x: cosh(x),),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x: b.library("sinh", x), only="f"),
)
def sinh(xp: Any, x: Any) -> Any:
    """Hyperbolic sine.  Why: of the two exponentials in it only one changes sign, which gives cosh."""
    return xp.sinh(x)


@elementwise(
    derivatives=(lambda out, x: sinh(x),),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x: b.library("cosh", x), only="f"),
)
def cosh(xp: Any, x: Any) -> Any:
    """Hyperbolic cosine.  Why: of the two exponentials in it one changes sign, which gives sinh."""
    return xp.cosh(x)


@elementwise(
    derivatives=(lambda out, x: 1 / sqrt(x * x + 1),),
    cost="costly",
    lower=Scalar(lambda b, x: b.library("asinh", x), only="f"),
)
def asinh(xp: Any, x: Any) -> Any:
    """Inverse hyperbolic sine.  Why: the inverse's slope is one over cosh, which is √(x² + 1)."""
    return xp.asinh(x)


@elementwise(
    derivatives=(lambda out, x: 1 / sqrt(x * x - 1),),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x: b.library("acosh", x), only="f"),
)
def acosh(xp: Any, x: Any) -> Any:
    """Inverse hyperbolic cosine.  Why: the inverse's slope is one over sinh, which is √(x² − 1)."""
    return xp.acosh(x)


@elementwise(
    derivatives=(lambda out, x: 1 / (1 - x * x),),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x: b.library("atanh", x), only="f"),
)
def atanh(xp: Any, x: Any) -> Any:
    """Inverse hyperbolic tangent.  Why: the inverse's slope is one over 1 − tanh²."""
    return xp.atanh(x)


@elementwise(
    derivatives=(
        lambda out, x, y: absorb(x, 1 / out),
        lambda out, x, y: absorb(y, 1 / out),
    ),
    cost="costly",
    may_warn=True,
    lower=Scalar(lambda b, x, y: b.library("hypot", x, y), only="f"),
)
def hypot(xp: Any, x: Any, y: Any) -> Any:
    """√(x² + y²) without overflow.  Why: a step along one leg counts by that leg's share of the length."""
    return xp.hypot(x, y)


# --------------------------------------------------------------------------- kinks, steps, strong zero


@elementwise(
    derivatives=(lambda out, x: sign(x),), lower=Scalar(lambda b, x: b.absolute(x)), accepts="number"
)
def abs_(xp: Any, x: Any) -> Any:
    """|x|.  Why: the slope is the sign of x, and 0 at the kink."""
    return xp.abs(x)


@elementwise(derivatives=(0,), accepts="number", lower=Scalar(lambda b, x: b.sign(x)))
def sign(xp: Any, x: Any) -> Any:
    """−1, 0 or 1; NaN stays.  Why: between its jumps it does not move, so no gradient passes."""
    return xp.sign(x)


@elementwise(derivatives=(0,), accepts="number", lower=Scalar(lambda b, x: b.rounded("floor", x)))
def floor(xp: Any, x: Any) -> Any:
    """Largest integer not above x.  Why: between its jumps it does not move, so no gradient passes."""
    return xp.floor(x)


@elementwise(derivatives=(0,), accepts="number", lower=Scalar(lambda b, x: b.rounded("ceil", x)))
def ceil(xp: Any, x: Any) -> Any:
    """Smallest integer not below x.  Why: between its jumps it does not move, so no gradient passes."""
    return xp.ceil(x)


@elementwise(derivatives=(0,), accepts="number", lower=Scalar(lambda b, x: b.rounded("trunc", x)))
def trunc(xp: Any, x: Any) -> Any:
    """x without its fraction.  Why: between its jumps it does not move, so no gradient passes."""
    return xp.trunc(x)


@elementwise(derivatives=(0,), accepts="number", lower=Scalar(lambda b, x: b.rounded("round", x)))
def round_(xp: Any, x: Any) -> Any:
    """Nearest integer, halves to even.  Why: between its jumps it does not move, so no gradient passes."""
    return xp.round(x)


def _share(x: Any, y: Any) -> Any:
    """1 where x > y, one half where they tie, 0 elsewhere."""
    return 0.5 * (cast(x > y, dtype=x.dtype) + cast(x >= y, dtype=x.dtype))


@elementwise(
    derivatives=(lambda out, x, y: _share(x, y), lambda out, x, y: _share(y, x)),
    lower=Scalar(lambda b, x, y: b.maximum(x, y)),
    accepts="number",
)
def maximum(xp: Any, x: Any, y: Any) -> Any:
    """The larger; NaN if either is.  Why: only the winner moves the result; at a tie both share equally."""
    return xp.maximum(x, y)


@elementwise(
    derivatives=(lambda out, x, y: _share(y, x), lambda out, x, y: _share(x, y)),
    lower=Scalar(lambda b, x, y: b.minimum(x, y)),
    accepts="number",
)
def minimum(xp: Any, x: Any, y: Any) -> Any:
    """The smaller; NaN if either is.  Why: only the winner moves the result; at a tie both share equally."""
    return xp.minimum(x, y)


@elementwise(
    derivatives=(lambda out, x, y: sign(x) * sign(out), 0),
    lower=Scalar(lambda b, x, y: b.library("copysign", x, y), only="f"),
)
def copysign(xp: Any, x: Any, y: Any) -> Any:
    """|x| with the sign of y.  Why: it follows x up or down, turned round where the signs differ."""
    return xp.copysign(x, y)


@elementwise(derivatives=(None, None), lower=Scalar(lambda b, x, y: b.library("nextafter", x, y), only="f"))
def nextafter(xp: Any, x: Any, y: Any) -> Any:
    """The next float after x towards y.  Why: a step of the number system, not of a curve: no derivative."""
    return xp.nextafter(x, y)


@elementwise(
    derivatives=(0, 0), may_warn=True, accepts="number", lower=Scalar(lambda b, x, y: b.floor_divide(x, y))
)
def floor_divide(xp: Any, x: Any, y: Any) -> Any:
    """⌊x / y⌋; integers by 0 give 0.  Why: between its jumps it does not move, so no gradient passes."""
    return xp.floor_divide(x, y)


@elementwise(
    derivatives=(1, lambda out, x, y: -floor(x / y)),
    may_warn=True,
    accepts="number",
    lower=Scalar(lambda b, x, y: b.remainder(x, y)),
)
def remainder(xp: Any, x: Any, y: Any) -> Any:
    """x − y·⌊x / y⌋.  Why: it follows x one for one, and loses one y for every whole time that y fits."""
    return xp.remainder(x, y)


# At the end: the rules above use these names when they run, not when they are declared.
from .linear import absorb, cast  # noqa: E402
