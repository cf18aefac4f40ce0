"""The normal distribution's share below a point, and its inverse, in double precision.

Knows arrays only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# M. J. Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37, 1988:
# numerator and denominator of the rational functions for the middle, the shoulders and the tails, from the constant
# term upwards; about 16 digits.
_MIDDLE = (
    (3.387132872796366608, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
     45921.953931549871457, 67265.770927008700853, 33430.575583588128105, 2509.0809287301226727),
    (1.0, 42.313330701600911252, 687.1870074920579083, 5394.1960214247511077, 21213.794301586595867,
     39307.89580009271061, 28729.085735721942674, 5226.495278852854561),
)  # fmt: skip
_SHOULDER = (
    (1.42343711074968357734, 4.6303378461565452959, 5.7694972214606914055, 3.64784832476320460504,
     1.27045825245236838258, 0.24178072517745061177, 0.0227238449892691845833, 7.7454501427834140764e-4),
    (1.0, 2.05319162663775882187, 1.6763848301838038494, 0.68976733498510000455, 0.14810397642748007459,
     0.0151986665636164571966, 5.475938084995344946e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_TAIL = (
    (6.6579046435011037772, 5.4637849111641143699, 1.7848265399172913358, 0.29656057182850489123,
     0.026532189526576123093, 0.0012426609473880784386, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 0.59983220655588793769, 0.13692988092273580531, 0.0148753612908506148525, 7.868691311456132591e-4,
     1.8463183175100546818e-5, 1.4215117583164458887e-7, 2.04426310338993978564e-15),
)  # fmt: skip


def cumulative(x: float) -> float:
    """The share of a standard normal distribution below x."""
    return math.erfc(-x / math.sqrt(2.0)) / 2.0


def quantile(shares: NDArray[Any]) -> NDArray[Any]:
    """Where so large a share of a standard normal distribution lies below; −∞ for 0 and ∞ for 1.

    >>> quantile(np.array([0.5, 0.975])).round(6).tolist()
    [0.0, 1.959964]
    """
    p = np.asarray(shares, np.float64)
    offset = p - 0.5
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        middle = offset * _ratio(_MIDDLE, 0.180625 - offset * offset)
        depth = np.sqrt(-np.log(np.minimum(p, 1.0 - p)))
        outer = np.where(depth <= 5.0, _ratio(_SHOULDER, depth - 1.6), _ratio(_TAIL, depth - 5.0))
    outer = np.where(np.isinf(depth), np.inf, outer)
    return np.where(np.abs(offset) <= 0.425, middle, np.copysign(outer, offset))


def _ratio(parts: tuple[tuple[float, ...], tuple[float, ...]], x: NDArray[Any]) -> NDArray[Any]:
    above, below = (np.polynomial.polynomial.polyval(x, np.array(part)) for part in parts)
    result: NDArray[Any] = above / below
    return result
