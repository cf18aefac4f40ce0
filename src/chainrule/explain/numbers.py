"""How numbers and arrays are written in stories: enough digits to check by hand, large arrays in short.

Knows arrays; knows nothing of graphs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..language import sentence
from ..operations import Array

DIGITS = 6
"""Significant digits of the text and the page."""

SUMMARY_DIGITS = 4
"""Significant digits where a large array is described."""

# Arrays with more elements are described instead of listed.
LISTED_ELEMENTS = 6


def show(value: Array | None, listed: int = LISTED_ELEMENTS, language: str = "en") -> str:
    """A number or a small array with its elements; a larger one by its shape, extremes and mean.

    >>> show(np.array([0.5, -1 / 3]))
    '[0.5, -0.333333]'
    >>> show(np.zeros((32, 10)))
    '(32, 10) from 0 to 0, mean 0'
    """
    if value is None:
        return ""
    if value.size <= listed:
        return _nested(value.tolist())
    low, mean, high = (digits(one, SUMMARY_DIGITS) for one in extremes(value))
    return sentence("explain.array", language, shape=value.shape, low=low, high=high, mean=mean)


def brief(value: Array | None, listed: int = LISTED_ELEMENTS) -> str:
    """As `show`, for narrow columns: one element as a plain number, four digits in lists; "" for what is too large.

    >>> brief(np.array([0.5, -1 / 3])), brief(np.array([[1 / 3]])), brief(np.zeros(9))
    ('[0.5, -0.3333]', '0.333333', '')
    """
    if value is None or value.size > listed:
        return ""
    return digits(value.item()) if value.size == 1 else _nested(value.tolist(), SUMMARY_DIGITS)


def digits(value: Any, count: int = DIGITS) -> str:
    """One number with six (or `count`) significant digits; True and False, inf and nan as they are."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | np.integer):
        return str(value)
    text = f"{float(value):.{count}g}"
    return "0" if text == "-0" else text


def extremes(value: Array) -> tuple[float, float, float]:
    """Smallest, mean and largest element, in float64."""
    wide = value.astype(np.float64)
    with np.errstate(all="ignore"):
        low, mean, high = float(wide.min()), float(wide.mean()), float(wide.max())
    # What is left of a mean that cancels to 0 is rounding noise of the elements' own type.
    noise = (
        4 * float(np.finfo(value.dtype).eps) * max(abs(low), abs(high)) if value.dtype.kind == "f" else 0.0
    )
    return low, 0.0 if abs(mean) <= noise else mean, high


def _nested(value: Any, count: int = DIGITS) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_nested(one, count) for one in value)}]"
    return digits(value, count)
