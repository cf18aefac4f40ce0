"""Columns that tell the target by themselves: copies of it, which make a score worthless.

An identical copy is refused, because nobody can mean to predict a column from itself. A column whose values stand one
to one for the classes, or that is the target in another unit, is pointed out: it may be a fact known beforehand.
Knows schemas and cells; knows nothing of preparation and networks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from . import cells as read
from .cells import Cell
from .facts import Fact, fact, fault, quoted
from .schema import Schema, Target, columns_of, labels_of

if TYPE_CHECKING:
    import pandas

# With fewer rows a column may agree with the target by chance.
_FEWEST_COPIED, _FEWEST_TOLD = 5, 20

# How far from a straight line a column may be, as a share of the target's deviation: rounding in a file.
_STRAIGHT = 1e-6


def find_leaks(frame: pandas.DataFrame, schema: Schema) -> list[Fact]:
    """What to say of columns that give the target away, among those that would be learnt from.

    Raises DataError, naming the column, for an identical copy of the target.
    """
    assert schema.target is not None
    target, columns = schema.target, columns_of(frame)
    rows = list(frame.index)
    labels, numbers = labels_of(target.style, read.cells_of(columns[target.name]), target.name, rows)
    known = np.array([label is not None for label in labels])
    if known.sum() < _FEWEST_COPIED:
        return []
    found = []
    for column in schema.features:
        # As many different values are the least that a copy has; where rows lack a target that cannot be told.
        if column.kind == "date" or (
            target.classes and not target.missing and column.levels != len(target.classes)
        ):
            continue
        cells = read.cells_of(columns[column.name])
        style = column.style if column.kind == "number" else None
        own, own_numbers = labels_of(style, cells, column.name, rows)
        if _equal(labels, own, known):
            raise fault("leak_copy", column=quoted(column.name), target=quoted(target.name), name=column.name)
        key = _close_copy(target, (labels, numbers), (own, own_numbers), known)
        if key is not None:
            found.append(fact(key, column=quoted(column.name), target=quoted(target.name), name=column.name))
    return found


def find_repeated(
    frame: pandas.DataFrame, schema: Schema, training: NDArray[np.int64], test: NDArray[np.int64]
) -> Fact | None:
    """What to say of test rows that are among the training rows too, target and all used columns; None for nothing.

    Without test rows each row is tested in turn, as in cross-validation: then of rows that occur more than once.
    """
    assert schema.target is not None
    columns = columns_of(frame)
    names = [*(column.name for column in schema.features), schema.target.name]
    cells = [read.cells_of(columns[name]) for name in names]
    known = Counter(tuple(column[row] for column in cells) for row in training.tolist())
    tested, own = (test, 0) if len(test) else (training, 1)
    again = [row for row in tested.tolist() if known[tuple(column[row] for column in cells)] > own]
    if not again:
        return None
    row = read.row_name(list(frame.index), again[0])
    return fact("repeated_rows", count=len(again), rows=len(tested), row=row)


Values = tuple[list[Cell], NDArray[np.float64] | None]


def _equal(labels: Sequence[Cell], own: Sequence[Cell], known: NDArray[np.bool_]) -> bool:
    return all(label == other for label, other, there in zip(labels, own, known) if there)


def _close_copy(target: Target, labels: Values, own: Values, known: NDArray[np.bool_]) -> str | None:
    """The key of what to say of a column that is no identical copy; None for nothing."""
    if known.sum() < _FEWEST_TOLD:
        return None
    if target.task == "classification":
        pairs = {(label, other) for label, other, there in zip(labels[0], own[0], known) if there}
        return "leak_classes" if len(pairs) == len(target.classes) == _levels(own[0], known) else None
    if labels[1] is None or own[1] is None or not np.isfinite(own[1][known]).all():
        return None
    return "leak_unit" if _straight(own[1][known], labels[1][known]) else None


def _levels(own: Sequence[Cell], known: NDArray[np.bool_]) -> int:
    levels = {other for other, there in zip(own, known) if there}
    return 0 if None in levels else len(levels)


def _straight(x: NDArray[np.float64], y: NDArray[np.float64]) -> bool:
    """Whether y is a·x + b."""
    x, y = x - x.mean(), y - y.mean()
    with np.errstate(all="ignore"):
        rest = y - x * (x @ y / (x @ x))
        return bool(np.abs(rest).max() <= _STRAIGHT * y.std())
