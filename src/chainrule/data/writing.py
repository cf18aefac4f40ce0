"""From a table to a CSV file, so that a crash leaves the old file or the new one and never a part."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..files import replace_file
from .cells import Cell, cells_of, is_number
from .facts import Fact, fact, fault, quoted

if TYPE_CHECKING:
    import pandas

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_table(frame: pandas.DataFrame, path: str | os.PathLike[str], *, guard: bool = True) -> list[Fact]:
    """Writes `frame` as CSV: UTF-8, commas, a line of column names, no index; a missing value is an empty cell.

    The file is written beside its place under another name, flushed to the disk, and renamed. A path that
    exists and is not a regular file (a folder, a device) is refused.

    With `guard`, a text of two or more characters that begins with `= + - @`, a tab or a return, and is not a
    number, gets a `'` before it, because spreadsheets would run it as a formula. Returns that count as a fact.

    Raises DataError if the file cannot be written.

    >>> import pandas, pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     facts = write_table(pandas.DataFrame({"species": ["setosa"]}), folder + "/out.csv")
    ...     pathlib.Path(folder, "out.csv").read_text()
    'species\\nsetosa\\n'
    """
    text, guarded = _csv_text(frame, guard)
    try:
        replace_file(path, text.encode("utf-8"))
    except OSError as error:
        raise fault("unwritable", file=quoted(os.fspath(path), 200), reason=error.strerror) from error
    return [fact("guarded_cells", count=guarded)] if guarded else []


def _csv_text(frame: pandas.DataFrame, guard: bool) -> tuple[str, int]:
    columns: list[list[Cell]] = [
        [str(name), *cells_of(frame.iloc[:, position])] for position, name in enumerate(frame.columns)
    ]
    lines, guarded = [], 0
    for row in zip(*columns):
        fields = [field or "" for field in row]
        for position, field in enumerate(fields):
            if guard and _is_formula(field):
                fields[position] = "'" + field
                guarded += 1
        # A line with nothing on it would be a blank line and not a row.
        lines.append(",".join(map(_quote, fields)) or '""')
    return "\n".join([*lines, ""]), guarded


def _quote(field: str) -> str:
    """The field as CSV. Not left to `csv.writer`, which writes a lone return without quotes."""
    needed = any(letter in field for letter in ',"\r\n')
    return '"' + field.replace('"', '""') + '"' if needed else field


def _is_formula(field: str) -> bool:
    return len(field) > 1 and field.startswith(_FORMULA_STARTS) and not is_number(field)
