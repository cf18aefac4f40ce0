"""What the columns of a table are, as data that is stored with a trained network: kinds, statistics, the target.

How they are found is `inference`. Knows nothing of files and of how columns become network inputs.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import cells as read
from .cells import Cell
from .facts import Fact, Fault, fault, listed

if TYPE_CHECKING:
    import pandas

Task = Literal["classification", "regression"]

USED_KINDS = ("number", "boolean", "date", "category")
SKIPPED_KINDS = ("identifier", "text", "constant", "missing", "skipped")


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its kind, why, and what it holds.

    `style` is how its text is read ("plain", "thousands", "decimal comma", "boolean", or the form of a date).
    `minimum`, `mean` and `maximum` are numbers for numbers and ISO texts (without mean) for dates; None elsewhere.
    `common` holds up to five of the most frequent values with their counts, for categories and booleans.
    """

    name: str
    kind: str
    reason: Fact
    missing: int
    levels: int
    style: str | None = None
    minimum: float | str | None = None
    mean: float | None = None
    maximum: float | str | None = None
    common: tuple[tuple[str, int], ...] = ()

    @property
    def used(self) -> bool:
        """Whether the kind can be a feature; the target can be of any kind."""
        return self.kind in USED_KINDS


@dataclass(frozen=True, slots=True)
class Target:
    """The column to predict. `classes` (in the order of their indices) and `counts` are empty for regression."""

    name: str
    task: Task
    reason: Fact
    style: str | None
    missing: int
    classes: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class Schema:
    """All columns of a table in their order, the number of rows, and the target if one was named."""

    rows: int
    columns: tuple[Column, ...]
    target: Target | None = None

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns that a network learns from: of a used kind, and not the target."""
        name = self.target.name if self.target else None
        return tuple(column for column in self.columns if column.used and column.name != name)

    @property
    def skipped(self) -> tuple[Column, ...]:
        """The columns left out, whose `reason` says why; never the target."""
        name = self.target.name if self.target else None
        return tuple(column for column in self.columns if not column.used and column.name != name)

    def to_json(self) -> dict[str, Any]:
        """The schema as plain JSON: dictionaries, lists, strings and finite numbers."""
        target = None if self.target is None else _to_json(self.target)
        return {"rows": self.rows, "columns": [_to_json(column) for column in self.columns], "target": target}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Schema:
        """The inverse of `to_json`. Raises DataError for a record that is not one."""
        try:
            columns = tuple(_column_from_json(column) for column in record["columns"])
            target = None if record["target"] is None else _target_from_json(record["target"])
            return cls(int(record["rows"]), columns, target)
        except DataError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise fault("damaged_schema", error=str(error)) from error


def _to_json(item: Column | Target) -> dict[str, Any]:
    record: dict[str, Any] = {name: getattr(item, name) for name in item.__slots__}
    record["reason"] = item.reason.to_json()
    if isinstance(item, Target):
        return record | {
            "classes": list(item.classes),
            "counts": list(item.counts),
            "facts": [entry.to_json() for entry in item.facts],
        }
    return record | {"common": [list(pair) for pair in item.common]}


def _column_from_json(record: Mapping[str, Any]) -> Column:
    common = tuple((str(level), int(count)) for level, count in record["common"])
    column = Column(**{**record, "reason": Fact.from_json(record["reason"]), "common": common})
    if column.kind not in USED_KINDS + SKIPPED_KINDS:
        raise ValueError(f"the kind {column.kind!r}")
    return column


def _target_from_json(record: Mapping[str, Any]) -> Target:
    target = Target(
        **{
            **record,
            "reason": Fact.from_json(record["reason"]),
            "classes": tuple(map(str, record["classes"])),
            "counts": tuple(map(int, record["counts"])),
            "facts": tuple(map(Fact.from_json, record["facts"])),
        }
    )
    if target.task not in ("classification", "regression"):
        raise ValueError(f"the task {target.task!r}")
    if target.style is not None and not read.is_number_style(target.style):
        raise ValueError(f"the style {target.style!r}")
    if len(set(target.classes)) != len(target.classes) or (target.task == "classification") != bool(
        target.classes
    ):
        raise ValueError(f"the classes {target.classes!r}")
    return target


def columns_of(frame: pandas.DataFrame) -> dict[str, pandas.Series[Any]]:
    """The columns by their names as text. Raises DataError for two columns of one name, or no rows."""
    names = [str(name) for name in frame.columns]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise fault("repeated_columns", names=repeated)
    if not len(frame):
        raise fault("no_rows")
    return {name: frame.iloc[:, position] for position, name in enumerate(names)}


def require_column(name: str, names: Mapping[str, object], otherwise: str = "name_a_column") -> None:
    """Raises DataError if `name` is not among `names`, with those that come close, or with the advice `otherwise`."""
    if name in names:
        return
    lowered = {existing.lower(): existing for existing in names}
    close = [lowered[one] for one in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    advice = Fault("did_you_mean", {"names": _either(close)}) if close else Fault(otherwise, {})
    raise fault("no_column", name=repr(name), names=listed(names, 20), advice=advice)


def _either(names: Sequence[str]) -> str | Fault:
    """`'a' or 'b'`, in the reader's language."""
    found: str | Fault = repr(names[0])
    for name in names[1:]:
        found = Fault("or", {"first": found, "second": repr(name)})
    return found


def labels_of(
    style: str | None, cells: Sequence[Cell], name: str, rows: Sequence[object]
) -> tuple[list[Cell], NDArray[np.float64] | None]:
    """The class of each row as text, None where missing, and the numbers if the column has a number `style`.

    Numbers are written in one way, so that `1` and `1.0` are the same class.
    """
    if style is None:
        return list(cells), None
    numbers = read.parse_numbers(cells, style, name, rows)
    return [None if np.isnan(number) else _number_label(number) for number in numbers.tolist()], numbers


def _number_label(number: float) -> str:
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
