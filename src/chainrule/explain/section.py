"""Parts of a story that stand below its table: a heading, sentences and tables, in both languages.

A section is told as text here and shown on the page by `page`; both read the same blocks.
Knows words and columns; knows nothing of graphs.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

INDENT = "  "


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under heads; with `total` a line stands above the last row, which sums up the others."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: bool = False


Block = str | Table
"""A sentence or a table."""


class Section(ABC):
    """One part: told in a language, and as plain data."""

    kind: ClassVar[str]

    @abstractmethod
    def heading(self, language: str) -> str:
        """What the part is about."""

    @abstractmethod
    def blocks(self, language: str) -> list[Block]:
        """Its sentences and tables, in order."""

    @abstractmethod
    def data(self, full: bool = False) -> dict[str, Any]:
        """Its numbers as dicts and lists; `full` keeps large arrays whole."""


def told(section: Section, language: str) -> list[str]:
    """The lines of a section in the terminal."""
    lines = [section.heading(language)]
    for block in section.blocks(language):
        if isinstance(block, Table):
            lines += ["", *(INDENT + line for line in columns(block)), ""]
        else:
            lines.append(INDENT + block)
    while not lines[-1]:
        lines.pop()
    return lines


def columns(table: Table) -> list[str]:
    """The table in aligned columns; a cell takes the columns of the screen that it needs."""
    rows = [table.heads, *table.rows]
    used = [k for k in range(len(table.heads)) if any(row[k] for row in table.rows)]
    widths = {k: max(width(row[k]) for row in rows) for k in used}
    lines = ["  ".join(pad(row[k], widths[k]) for k in used).rstrip() for row in rows]
    rule = "─" * (sum(widths.values()) + 2 * len(used) - 2)
    if table.total:
        lines.insert(len(lines) - 1, rule)
    return [lines[0], rule, *lines[1:]]


def width(text: str) -> int:
    """Columns that a terminal gives to the text: Korean letters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def pad(text: str, size: int) -> str:
    """The text with blanks up to `size` columns."""
    return text + " " * (size - width(text))
