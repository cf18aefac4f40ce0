"""From text to a schema: what each column is and what the target asks for, with the reason for each.

Knows nothing of files and of how columns become network inputs; see `reading` and `preparation`.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError
from . import cells as read
from .cells import Cell
from .facts import Fact, fact, fault, quoted
from .schema import USED_KINDS, Column, Schema, Target, Task, columns_of, labels_of, require_column

if TYPE_CHECKING:
    import pandas

# A column of words is free text when it has more different values than this, in more than half of its rows.
_TEXT_LEVELS = 20
# A column with this share of numbers and as many levels is a column of numbers with a fault in it.
_NUMBER_SHARE = 0.9
# Whole numbers are classes when there are at most so many, each with so many rows on average; two always are.
_FEW_CLASSES, _ROWS_PER_CLASS = 20, 5


def infer_schema(
    frame: pandas.DataFrame,
    target: str | None = None,
    task: str = "auto",
    kinds: Mapping[str, str] | None = None,
) -> Schema:
    """What each column of `frame` is, and what predicting `target` means.

    `task` is "auto", "classification" or "regression". `kinds` settles the kind of some columns: "number",
    "boolean", "date", "category" or "skip".

    Raises DataError for an unknown column, two columns of one name, a target that cannot be learnt, and a column
    of numbers with a few other cells in it; ArgumentError for a task or kind that does not exist.

    >>> from chainrule.data.tabular import bundled
    >>> schema = infer_schema(bundled("iris").frame, target="species")
    >>> [column.kind for column in schema.columns], str(schema.target.reason)
    (['number', 'number', 'number', 'number', 'category'], 'classification: the target holds names, 3 different ones')
    """
    columns = columns_of(frame)
    asked = dict(kinds or {})
    if task not in ("auto", "classification", "regression"):
        raise ArgumentError(f"the task must be auto, classification or regression; got {task!r}")
    for name, kind in asked.items():
        if kind not in (*USED_KINDS, "skip"):
            raise ArgumentError(
                f"the kind of a column must be {', '.join(USED_KINDS)} or skip; got {kind!r} for {name!r}"
            )
    for name in [*asked, *([] if target is None else [target])]:
        require_column(name, columns)
    rows = list(frame.index)
    texts = {name: read.cells_of(series) for name, series in columns.items()}
    found = tuple(infer_column(name, texts[name], rows, asked.get(name)) for name in columns)
    if target is None:
        return Schema(len(rows), found)
    column = next(column for column in found if column.name == target)
    return Schema(len(rows), found, infer_target(column, texts[target], rows, task))


def infer_column(
    name: str, cells: Sequence[Cell], rows: Sequence[object], asked: str | None = None
) -> Column:
    """The kind and statistics of one column of text cells, shape (rows,); `asked` settles the kind."""
    counts = Counter(cell for cell in cells if cell is not None)
    missing = len(cells) - counts.total()
    levels = list(counts)
    kind, style, reason = _asked_kind(asked, levels) if asked else _kind(name, counts, missing, cells, rows)
    base = Column(name, kind, reason, missing, len(levels), style)
    if kind == "number":
        return _with_numbers(base, read.parse_numbers(cells, style or "plain", name, rows))
    if kind == "date":
        return _with_dates(base, read.parse_dates(cells, style or "ISO8601", name, rows)[:, 0])
    if kind in ("category", "boolean"):
        if kind == "boolean":
            read.parse_numbers(cells, "boolean", name, rows)
        return dataclasses.replace(base, common=tuple(counts.most_common(5)))
    return base


def _with_numbers(column: Column, numbers: NDArray[np.float64]) -> Column:
    present = numbers[~np.isnan(numbers)]
    absent = int(np.isnan(numbers).sum())
    if not len(present):
        return dataclasses.replace(column, missing=absent)
    # Halved before they are added, so that the mean of two huge numbers stays finite.
    mean = float(np.mean(present / 2) * 2) if np.abs(present).max() > 1e300 else float(present.mean())
    levels = len(np.unique(present))
    return dataclasses.replace(
        column,
        missing=absent,
        levels=levels,
        minimum=float(present.min()),
        mean=mean,
        maximum=float(present.max()),
    )


def _with_dates(column: Column, days: NDArray[np.float64]) -> Column:
    present = days[~np.isnan(days)]
    if not len(present):
        return column
    first, last = (
        str(np.datetime64(0, "s") + np.timedelta64(round(float(day) * 86400), "s")).replace("T00:00:00", "")
        for day in (present.min(), present.max())
    )
    return dataclasses.replace(column, minimum=first, maximum=last)


def _asked_kind(asked: str, levels: Sequence[str]) -> tuple[str, str | None, Fact]:
    if asked == "skip":
        return "skipped", None, fact("skipped")
    style = None
    if asked == "number":
        # A column that is not made of numbers is then reported with its row.
        style = read.number_style(levels) or "plain"
    elif asked == "boolean":
        style = "boolean"
    elif asked == "date":
        style = read.date_format(levels) or "ISO8601"
        if style == "ambiguous":
            raise fault("ambiguous_dates", value=quoted(levels[0]))
    return asked, style, fact("asked", kind=asked)


def _kind(
    name: str, counts: Counter[str], missing: int, cells: Sequence[Cell], rows: Sequence[object]
) -> tuple[str, str | None, Fact]:
    """The kind of a column by its values, the style of its text, and the reason."""
    levels = list(counts)
    if not levels:
        return "missing", None, fact("missing")
    if len(levels) == 1 and not missing:
        return "constant", None, fact("constant", value=quoted(levels[0]))
    if read.boolean_pair(levels):
        return "boolean", "boolean", fact("boolean", values=sorted(levels))
    style = read.number_style(levels)
    if style is None or all(len(level) == 8 for level in levels):
        form = read.date_format(levels)
        if form == "ambiguous":
            return "text", None, fact("text_dates")
        if form is not None:
            return "date", form, fact("date", format=form)
    codes = read.has_leading_zero(levels)
    if style is not None and not codes:
        return _number_kind(name, levels, style, len(cells))
    return _text_kind(name, counts, codes, cells, rows)


# The last word of a column's name that numbers rows; endings of names that are written as one word.
_IDENTIFIERS = ("id", "index", "no", "nr", "key", "번호")
_IDENTIFIER_ENDINGS = ("Id", "ID", "번호", "아이디", "식별자")


def _number_kind(name: str, levels: Sequence[str], style: str, rows: int) -> tuple[str, str | None, Fact]:
    words = name.lower().replace("_", " ").replace("-", " ").split()
    named = (
        not words or words[0] == "unnamed" or words[-1] in _IDENTIFIERS or name.endswith(_IDENTIFIER_ENDINGS)
    )
    if named and len(levels) == rows > 2 and all(level.isdigit() for level in levels):
        return "identifier", None, fact("identifier_name")
    bare, before, behind = read.unit_of(style)
    if before or behind:
        return "number", style, fact("number_unit", unit=quoted(before or behind), value=quoted(levels[0]))
    key = {"plain": "number", "thousands": "number_thousands", "decimal comma": "number_decimal_comma"}[bare]
    return "number", style, fact(key)


def _text_kind(
    name: str, counts: Counter[str], codes: bool, cells: Sequence[Cell], rows: Sequence[object]
) -> tuple[str, str | None, Fact]:
    levels, present = len(counts), counts.total()
    other = next((level for level in counts if not read.is_number(level)), None)
    numbers = sum(count for level, count in counts.items() if read.is_number(level))
    if not codes and other is not None and levels > _TEXT_LEVELS and numbers >= _NUMBER_SHARE * present:
        row = read.row_name(rows, list(cells).index(other))
        raise fault(
            "mostly_numbers",
            column=quoted(name),
            numbers=numbers,
            present=present,
            value=quoted(other),
            row=row,
        )
    if levels > 1 and (levels == present or (levels > _TEXT_LEVELS and levels > present / 2)):
        kind = "identifier" if levels == present else "text"
        if (mixed := _mixed_numbers(counts)) is not None:
            return kind, None, fact("text_numbers", value=quoted(mixed))
        return (
            kind,
            None,
            fact(kind, **({} if kind == "identifier" else {"levels": levels, "count": present})),
        )
    if codes:
        return "category", None, fact("category_codes", levels=levels)
    if numbers and other is not None:
        return "category", None, fact("category_mixed", levels=levels, value=quoted(other))
    return "category", None, fact("category", levels=levels)


# A number with something around it that is no unit known here; a code such as `A-12` has letters before it.
_NUMBER_INSIDE = re.compile(r"[^\w]{0,3}\d[\d.,'\s]*[^\d]{0,12}")


def _mixed_numbers(values: Iterable[str]) -> str | None:
    """A value of a column of which nearly all are numbers with something around them; None where they are not."""
    values = list(values)
    inside = [one for one in values if _NUMBER_INSIDE.fullmatch(one) and not one.isdigit()]
    return inside[0] if len(inside) >= _NUMBER_SHARE * len(values) else None


def infer_target(column: Column, cells: Sequence[Cell], rows: Sequence[object], task: str = "auto") -> Target:
    """What predicting `column` means: the task, why, and its classes with their counts.

    Raises DataError for a target that is constant, missing everywhere, different in every row of words, or not
    made of numbers where regression was asked for.
    """
    where = quoted(column.name)
    labels, numbers = labels_of(column.style if column.kind == "number" else None, cells, column.name, rows)
    present = [label for label in labels if label is not None]
    missing = len(labels) - len(present)
    counts = Counter(present)
    if len(counts) < 2:
        if not present:
            raise fault("empty_target", target=where, rows=len(rows))
        raise fault("constant_target", target=where, value=quoted(present[0]))
    if task == "regression" and numbers is None:
        # Reading the words as numbers names the first row that is none.
        numbers = read.parse_numbers(cells, "plain", column.name, rows)
    chosen, reason = _task(task, numbers, counts, len(present))
    facts = [fact("target_missing", count=missing)] if missing else []
    style = column.style if column.kind == "number" else ("plain" if chosen == "regression" else None)
    if chosen == "regression":
        return Target(column.name, chosen, reason, style, missing, facts=tuple(facts))
    if len(counts) == len(present) > 2 or (column.kind == "text" and task == "auto"):
        raise fault(
            "too_many_classes", target=where, levels=len(counts), rows=len(present), value=quoted(present[0])
        )
    classes = sorted(counts, key=(lambda label: (float(label), label)) if numbers is not None else None)
    single = [label for label in classes if counts[label] == 1]
    facts += [fact("single_row_classes", names=single)] if single else []
    sizes = tuple(counts[label] for label in classes)
    return Target(column.name, chosen, reason, style, missing, tuple(classes), sizes, tuple(facts))


def _task(
    task: str, numbers: NDArray[np.float64] | None, counts: Counter[str], rows: int
) -> tuple[Task, Fact]:
    if task != "auto":
        return cast(Task, task), fact("task_asked", task=task)
    if numbers is None:
        return "classification", fact("task_text", classes=len(counts))
    present = numbers[~np.isnan(numbers)]
    levels = len(counts)
    few = levels == 2 or (levels <= _FEW_CLASSES and levels * _ROWS_PER_CLASS <= rows)
    if few and np.array_equal(present, np.round(present)):
        return "classification", fact("task_few", classes=levels, rows=rows)
    return "regression", fact("task_many", levels=levels, rows=rows)
