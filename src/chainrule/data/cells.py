"""The meaning of one cell's text: missing, number, boolean or date. Every reading is decided here, once.

A file holds text, and so does every table in this room until its cells are turned into numbers here. The rules:

- **Missing**: an empty cell, or one of `MISSING` (`NA`, `null`, `?`, …). In a column of numbers also `-` and `.`.
- **Numbers** are ASCII: `12`, `-0.5`, `.5`, `6e-3`. `1_000` and digits of other scripts (`１２`, `١٢`) are text,
  although Python's `float` accepts them. A column of numbers may have thousands commas (`12,000`), or decimal
  commas (`1,5`; `1.234,5`) when some value cannot be read otherwise; every value of the column is then read so.
- **Units**: a column in which every number has one and the same (`$5`, `5%`, `5 kg`) is one of numbers; see `units`.
- **Infinity** is refused with its row, and so is a number too large for a float (`1e999`).
- **Booleans** are pairs of words: true/false, yes/no, y/n, t/f, on/off, 예/아니요.
- **Dates** are ISO 8601 or one of a few usual forms; day/month/year is told from month/day/year only when some
  value allows one reading, and otherwise the column is not read as dates.

Knows nothing of files, columns' roles or preparation.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import extras
from .facts import fault, quoted
from .units import common_unit, without_unit

if TYPE_CHECKING:
    import pandas

Cell = str | None

# pandas' own list of words for a missing value, and the question mark that the UCI repository uses.
MISSING = frozenset((
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null", "?",
))  # fmt: skip
_MISSING_NUMBER = frozenset(("-", "."))

_INFINITE = r"[iI][nN][fF](?:[iI][nN][iI][tT][yY])?"
_PLAIN = re.compile(rf"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|{_INFINITE})", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d*)?", re.ASCII)
_DECIMAL_COMMA = re.compile(
    r"[+-]?(?:(?:[1-9]\d{0,2}(?:\.\d{3})+|\d+)(?:,\d*)?|,\d+)(?:[eE][+-]?\d+)?", re.ASCII
)

_BOOLEANS = (
    ("true", "false"), ("yes", "no"), ("y", "n"), ("t", "f"), ("on", "off"), ("예", "아니요"), ("예", "아니오"),
)  # fmt: skip
_TRUTH = {word: float(truth) for pair in _BOOLEANS for word, truth in zip(pair, (True, False))} | {
    "1": 1.0,
    "0": 0.0,
}

_STYLES: dict[str, tuple[re.Pattern[str], Callable[[str], float]]] = {
    "plain": (_PLAIN, float),
    "thousands": (_THOUSANDS, lambda cell: float(cell.replace(",", ""))),
    "decimal comma": (_DECIMAL_COMMA, lambda cell: float(cell.replace(".", "").replace(",", "."))),
    "boolean": (re.compile("|".join(_TRUTH), re.IGNORECASE), lambda cell: _TRUTH[cell.lower()]),
}
NUMBER_STYLES = tuple(_STYLES)

# The style of numbers with a unit: "plain in $|", "thousands in |kg".
_IN = " in "

_ISO = re.compile(
    r"\d{4}-\d{2}(-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?\s?(Z|[+-]\d{2}:?\d{2})?)?)?", re.ASCII
)
_DAYS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y. %m. %d.", "%Y. %m. %d", "%Y년 %m월 %d일", "%Y%m%d",
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y",
)  # fmt: skip
DATE_FORMATS = ("ISO8601", *(day + time for day in _DAYS for time in ("", " %H:%M", " %H:%M:%S")))
_LOOKS_LIKE_DATE = re.compile(r"\d{1,4}\s?[-/.년]\s?\d{1,2}\s?[-/.월]?.*|(?:19|20)\d{6}", re.ASCII)


def cells_of(series: pandas.Series[Any]) -> list[Cell]:
    """The values of a column as text without white space around it; None where one is missing.

    A column that already holds numbers, booleans or dates is written out first, whole floats without
    their `.0`, so that a table made in Python is read exactly as the same table from a file.
    """
    pandas = extras.load("pandas")
    # A float32 is written with its own few digits and not with those of the float64 beside it.
    values = (
        [str(value) for value in series.to_numpy()]
        if series.dtype == np.float32
        else series.astype(object).tolist()
    )
    return [None if absent else _cell(value) for value, absent in zip(values, pandas.isna(series).tolist())]


def _cell(value: Any) -> Cell:
    if isinstance(value, str):
        text = value.strip()
        return None if text in MISSING else text
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat(" ") if isinstance(value, datetime.datetime) else value.isoformat()
    return str(value)


def number_style(values: Sequence[str]) -> str | None:
    """How the different values of a column are written as numbers; None if some of them are not numbers.

    The answer is "plain", "thousands" or "decimal comma", and behind it the unit that all of them have: "plain in |kg".

    >>> number_style(["1,234", "5"]), number_style(["1,5", "2"]), number_style(["1_000"])
    ('thousands', 'decimal comma', None)
    """
    values = [value for value in values if value not in _MISSING_NUMBER]
    if (style := _bare_style(values)) is not None:
        return style
    united = common_unit(values) if values else None
    if united is None or (style := _bare_style(united[0])) is None:
        return None
    return f"{style}{_IN}{united[1]}|{united[2]}"


def _bare_style(values: Sequence[str]) -> str | None:
    return next(
        (style for style in NUMBER_STYLES[:3] if values and all(map(_STYLES[style][0].fullmatch, values))),
        None,
    )


def unit_of(style: str) -> tuple[str, str, str]:
    """A style of numbers without its unit, and what stands before and behind the numbers.

    >>> unit_of("plain in $|"), unit_of("thousands")
    (('plain', '$', ''), ('thousands', '', ''))
    """
    bare, _, unit = style.partition(_IN)
    before, _, behind = unit.partition("|")
    return bare, before, behind


def is_number_style(style: Any) -> bool:
    """Whether `number_style` may have answered so, or it is "boolean"."""
    return isinstance(style, str) and unit_of(style)[0] in NUMBER_STYLES


def is_number(value: str) -> bool:
    """Whether one cell alone is written as a plain number."""
    return _PLAIN.fullmatch(value) is not None


def has_leading_zero(values: Sequence[str]) -> bool:
    """Whether the values are codes of one width such as `007`: digits only, some beginning with 0."""
    width = len(values[0])
    return (
        width > 1
        and all(len(value) == width and value.isascii() and value.isdigit() for value in values)
        and any(value[0] == "0" for value in values)
    )


def boolean_pair(values: Sequence[str]) -> bool:
    """Whether the values are a pair of words for yes and no, in any letter case."""
    words = {value.lower() for value in values}
    return any(words == set(pair) for pair in _BOOLEANS)


def date_format(values: Sequence[str]) -> str | None:
    """The form in which all values are dates, "ambiguous" if day and month may be swapped, None if not dates.

    >>> date_format(["2024-03-01", "2024-03-02"]), date_format(["13/02/2024"]), date_format(["03/02/2024"])
    ('ISO8601', '%d/%m/%Y', 'ambiguous')
    """
    if not values or not all(map(_LOOKS_LIKE_DATE.fullmatch, values)):
        return None
    found = [form for form in DATE_FORMATS if _all_dates(values[:20], form) and _all_dates(values, form)]
    if any(form.startswith("%d/") for form in found) and any(form.startswith("%m/") for form in found):
        return "ambiguous"
    return found[0] if found else None


def _all_dates(values: Sequence[str], form: str) -> bool:
    return not np.isnan(_days(values, form)).any()


def _stamps(values: Sequence[Cell], form: str) -> Any:
    """Time stamps in UTC, NaT where a value is missing or not a date of this form."""
    pandas = extras.load("pandas")
    if form == "ISO8601":
        values = [value if value is not None and _ISO.fullmatch(value) else None for value in values]
    series = pandas.Series(values, dtype=object)
    return pandas.to_datetime(series, format=form, errors="coerce", utc=True)


def _days(values: Sequence[Cell], form: str) -> NDArray[np.float64]:
    pandas = extras.load("pandas")
    elapsed: Any = _stamps(values, form) - pandas.Timestamp("1970-01-01", tz="UTC")
    days: NDArray[np.float64] = (elapsed / pandas.Timedelta(days=1)).to_numpy(np.float64)
    return days


def parse_numbers(
    cells: Sequence[Cell], style: str, column: str, rows: Sequence[object]
) -> NDArray[np.float64]:
    """Numbers, shape (rows,), float64, NaN where missing. `style` is `number_style`'s answer or "boolean".

    Raises DataError with the column, the row and the value for text that is no number and for infinity.
    """
    bare, before, behind = unit_of(style)
    form, convert = _STYLES[bare]
    texts = ["" if cell is None or cell in _MISSING_NUMBER else cell for cell in cells]
    if before or behind:
        texts = [without_unit(cell, before, behind) if cell else cell for cell in texts]
    for position, cell in enumerate(texts):
        if cell and form.fullmatch(cell) is None:
            key = "not_yes_or_no" if style == "boolean" else "not_a_number"
            raise fault(key, column=quoted(column), value=quoted(cell), row=row_name(rows, position))
    numbers = np.array([convert(cell) if cell else math.nan for cell in texts], dtype=np.float64)
    for position in np.flatnonzero(np.isinf(numbers)).tolist():
        raise fault(
            "infinite", column=quoted(column), value=quoted(texts[position]), row=row_name(rows, position)
        )
    return numbers


def parse_dates(cells: Sequence[Cell], form: str, column: str, rows: Sequence[object]) -> NDArray[np.float64]:
    """Numbers of a date, shape (rows, 4), float64: days since 1970, month 1–12, weekday 0–6, hour. NaN where missing.

    Raises DataError with the column, the row and the value for a cell that is no date of the form `form`.
    """
    stamps = _stamps(cells, form)
    days = _days(cells, form)
    for position in np.flatnonzero(np.isnan(days)).tolist():
        if cells[position] is not None:
            raise fault(
                "not_a_date", column=quoted(column), form=form, value=quoted(cells[position]),
                row=row_name(rows, position),
            )  # fmt: skip
    parts = (stamps.dt.month, stamps.dt.day_of_week, stamps.dt.hour + stamps.dt.minute / 60)
    return np.stack([days, *(part.to_numpy(np.float64) for part in parts)], axis=1)


def row_name(rows: Sequence[object], position: int) -> str:
    """What to call the row at `position`: counted from 1 below the header, or the table's own label."""
    label = rows[position]
    return str(int(label) + 1) if isinstance(label, (int, np.integer)) else quoted(label)
