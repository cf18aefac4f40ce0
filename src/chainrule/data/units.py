"""Numbers written with a unit: `$5`, `5 %`, `1,250 kg`. A column that has one unit throughout is a column of numbers.

A unit is a currency, a share (`%`), a usual unit of measure, or a word behind a blank. Letters right before or behind
digits, as in `A12` or `12a`, are codes and no numbers, unless they are one of the usual units.
Knows texts of cells; knows nothing of columns' roles.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

_WRITTEN = re.compile(
    r"(?P<sign>[+-]?)(?P<before>[^\W\d_]{0,3}[^\w\s.,+-]?) ?(?P<number>[+-]?[\d.,]*\d[\d.,]*(?:[eE][+-]?\d+)?)"
    r"(?P<blank>\s?)(?P<behind>[^\d\s.,+-][^\d\s,]*(?:/[^\d\s,]+)?\d?)?"
)

_CURRENCIES = frozenset(
    ("USD", "EUR", "GBP", "JPY", "KRW", "CNY", "CHF", "US$", "A$", "C$", "R$", "원", "엔")
)
_SHARES = frozenset("%‰％°º′″")
# What is written right behind a number too. Years, months and days are dates.
_USUAL = frozenset((
    "kg", "g", "mg", "t", "lb", "lbs", "oz", "km", "m", "cm", "mm", "mi", "ft", "in", "l", "L", "ml", "mL", "cc",
    "h", "hr", "hrs", "min", "s", "sec", "ms", "W", "kW", "MW", "Wh", "kWh", "V", "mV", "mA", "Hz", "kHz", "MHz", "GHz",
    "B", "KB", "kB", "MB", "GB", "TB", "px", "pt", "hp", "bar", "Pa", "hPa", "kPa", "MPa", "K", "°C", "°F", "℃", "℉",
    "㎏", "㎝", "㎜", "㎞", "㎡", "m²", "m³", "m2", "km²", "km2", "km/h", "kmh", "mph", "m/s", "mpg", "ppm", "dB",
    "개", "명", "회", "건", "대", "세", "살", "점", "층", "평", "번", "시간", "분", "초", "만원", "천원", "억원",
))  # fmt: skip
_DATES = frozenset(("년", "월", "일", "시"))


class Written(NamedTuple):
    """A number apart from its unit: what stands before and behind it."""

    number: str
    before: str
    behind: str


def written(value: str) -> Written | None:
    """The number in a text and its unit; None where the text is no number with one unit.

    >>> written("-$1,250.50"), written("5 kg"), written("A12"), written("5")
    (Written(number='-1,250.50', before='$', behind=''), Written(number='5', before='', behind='kg'), None, None)
    """
    found = _WRITTEN.fullmatch(value)
    if found is None:
        return None
    sign, number = found["sign"], found["number"]
    before, behind = found["before"], found["behind"] or ""
    if bool(before) == bool(behind) or (sign and number[0] in "+-"):
        return None
    if before and not _is_currency(before):
        return None
    if behind and not (_is_currency(behind) or _is_usual(behind) or (found["blank"] and _is_word(behind))):
        return None
    return Written(sign + number, before, behind)


def _is_currency(text: str) -> bool:
    return text in _CURRENCIES or (len(text) == 1 and unicodedata.category(text) == "Sc")


def _is_usual(text: str) -> bool:
    return text in _SHARES or text in _USUAL


def _is_word(text: str) -> bool:
    """A word behind a blank, which is a unit or something that is counted."""
    return text not in _DATES and text.isalpha() and len(text) <= 12


def common_unit(values: Sequence[str]) -> tuple[list[str], str, str] | None:
    """(numbers, what stands before them, what stands behind) where all values have one unit; None otherwise.

    A zero may be without it. `values` are different from each other, and none is empty.
    """
    numbers, units = [], set()
    for value in values:
        if value == "0":
            numbers.append(value)
            continue
        found = written(value)
        if found is None:
            return None
        numbers.append(found.number)
        units.add((found.before, found.behind))
        if len(units) > 1:
            return None
    if len(units) != 1:
        return None
    ((before, behind),) = units
    return numbers, before, behind


def without_unit(value: str, before: str, behind: str) -> str:
    """The number in a value with this unit, or the value itself where it has none or another one."""
    found = written(value)
    return found.number if found is not None and found[1:] == (before, behind) else value
