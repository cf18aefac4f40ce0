"""What was decided or noticed about a table, as data: a key and the values that belong to it.

Nothing here prints. `str(fact)` is the English sentence; the key and the values are what a sentence in
another language needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import DataError

SENTENCES = {
    # How a file was read.
    "encoding_utf8": "the text is UTF-8",
    "encoding_mark": "the text is {encoding}, by its byte order mark",
    "encoding_cp949": "the text is not UTF-8; read as cp949 (Korean), because {share:.0%} of its other "
    "characters are Korean syllables",
    "encoding_guessed": "the text is not UTF-8; read as {encoding}, the most likely encoding",
    "encoding_fallback": "the text is not UTF-8; read as {encoding} (Western European) for want of a better guess",
    "encoding_asked": "the text is read as {encoding}, as asked",
    "delimiter_comma": "columns are separated by commas",
    "delimiter_found": "columns are separated by {delimiter}, not by commas",
    "delimiter_declared": "columns are separated by {delimiter}, as the file's first line says",
    "delimiter_asked": "columns are separated by {delimiter}, as asked",
    "delimiter_single": "the table has one column",
    "blank_lines": "{count} blank lines were skipped",
    "unnamed_columns": "columns without a name were named {names}",
    "numeric_header": "the first line was taken as column names, but it looks like numbers: {names}",
    # Why a column has its kind.
    "number": "every value is a number",
    "number_thousands": "every value is a number; commas were read as thousands separators",
    "number_decimal_comma": "every value is a number; commas were read as decimal points",
    "boolean": "two values that mean yes and no: {values}",
    "date": "every value is a date ({format})",
    "category": "{levels} different values",
    "category_codes": "{levels} different codes; digits with leading zeros are not numbers",
    "category_mixed": "{levels} different values, some of them not numbers, such as {value}",
    "identifier": "skipped: every row has its own value",
    "identifier_name": "skipped: every row has its own whole number, and the name says identifier",
    "text": "skipped: free text, {levels} different values in {count} rows",
    "text_dates": "skipped: dates whose day and month cannot be told apart; write them as YYYY-MM-DD",
    "constant": "skipped: every row has the value {value}",
    "missing": "skipped: every value is missing",
    "asked": "used as {kind}, as asked",
    "skipped": "skipped, as asked",
    # What the target is.
    "task_text": "classification: the target holds names, {classes} different ones",
    "task_few": "classification: the target holds {classes} different whole numbers in {rows} rows",
    "task_many": "regression: the target holds {levels} different numbers in {rows} rows",
    "task_asked": "{task}, as asked",
    "target_missing": "{count} rows have no target value and are left out",
    "single_row_classes": "classes with a single row, which cannot be both learnt and tested: {names}",
    # What happened when rows were divided, prepared or written.
    "split_stratified": "every class keeps its share in each part",
    "split_random_single": "the parts were drawn at random: every class has a single row",
    "split_random_small": "the parts were drawn at random, without keeping the share of each class: a part of {rows} "
    "rows cannot hold {classes} classes",
    "ignored_columns": "columns that the training table did not have were ignored: {names}",
    "unseen_levels": "column {column}: {count} values, such as {value}, were never seen in training and count as "
    "unknown",
    "unseen_missing": "column {column}: {count} values are missing, which never happened in training",
    "guarded_cells": "{count} cells that a spreadsheet would run as a formula were written with ' before them",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One statement about a table: a key of `SENTENCES` and the values in its sentence.

    >>> str(Fact("blank_lines", {"count": 2}))
    '2 blank lines were skipped'
    """

    key: str
    values: Mapping[str, Any]

    def __str__(self) -> str:
        values = {
            name: listed(value) if isinstance(value, (list, tuple)) else value
            for name, value in self.values.items()
        }
        return SENTENCES[self.key].format(**values)

    def to_json(self) -> dict[str, Any]:
        """The fact as plain JSON."""
        return {"key": self.key, "values": dict(self.values)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Fact:
        """The inverse of `to_json`. Raises DataError for a key that does not exist."""
        if record["key"] not in SENTENCES:
            raise DataError(
                f"a fact needs a known key; got {record['key']!r}. The record is damaged or newer"
            )
        return cls(record["key"], dict(record["values"]))


def fact(key: str, **values: Any) -> Fact:
    """Short form of `Fact(key, values)`."""
    return Fact(key, values)


def listed(names: Iterable[object], limit: int = 8) -> str:
    """Names in quotes for a sentence, cut after `limit` of them with the count of the rest.

    >>> listed(["a", "b", "c"], limit=2)
    "'a', 'b' and 1 more"
    """
    names = list(names)
    shown = ", ".join(quoted(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def quoted(value: object, limit: int = 40) -> str:
    """One value from a file in quotes, cut to `limit` characters so that a message stays readable."""
    text = str(value)
    return repr(text if len(text) <= limit else text[:limit] + "…")
