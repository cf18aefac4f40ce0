"""How one column becomes network inputs: fitted by scikit-learn, kept and applied as plain numbers.

- A number, boolean or date: the missing are replaced with the training median, then (value − mean) / scale. A
  second column says where values are missing, if any was in training.
- A date becomes days since 1970, month, weekday, and the hour if some hour is not 0.
- A category becomes one column of 0 and 1 for each level. Missing is a level of its own if it happened in training.
  Levels with fewer than `rows // 100` rows (at most 10), and those beyond 50, share one column, "rare".
  A level that training never saw counts as rare, or as none at all (zeros) where there is no such column.

Knows nothing of targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import cells as read
from . import extras
from .cells import Cell
from .facts import Fact, fact, fault, quoted
from .schema import Column, columns_of

if TYPE_CHECKING:
    import pandas

_MOST_LEVELS = 50
_MISSING_LEVEL = ""  # no cell that is present is empty
_DATE_PARTS = ("days", "month", "weekday", "hour")


@dataclass(frozen=True, slots=True)
class Scaling:
    """One number of a column: what replaces it when missing, and its mean and scale in training."""

    feature: str
    median: float
    mean: float
    scale: float


@dataclass(frozen=True, slots=True)
class NumberStep:
    """A column of numbers, booleans or dates: one scaling, or one for each part of a date."""

    column: str
    style: str
    scalings: tuple[Scaling, ...]
    indicator: bool

    @property
    def features(self) -> list[str]:
        """Names of the columns that this step makes."""
        names = [scaling.feature for scaling in self.scalings]
        return [*names, f"{self.column} (missing)"] if self.indicator else names


@dataclass(frozen=True, slots=True)
class CategoryStep:
    """A column of words: its levels with a column each, and those that share the column "rare"."""

    column: str
    levels: tuple[str, ...]
    rare: tuple[str, ...]

    @property
    def features(self) -> list[str]:
        """Names of the columns that this step makes."""
        names = [f"{self.column}={level}" if level else f"{self.column} (missing)" for level in self.levels]
        return [*names, f"{self.column} (rare)"] if self.rare else names


Step = NumberStep | CategoryStep


def fit_steps(features: Sequence[Column], frame: pandas.DataFrame) -> tuple[Step, ...]:
    """One step for each feature, in the order of the columns."""
    columns, rows = columns_of(frame), list(frame.index)
    texts = {column.name: read.cells_of(columns[column.name]) for column in features}
    matrices: dict[str, NDArray[np.float64]] = {}
    for column in features:
        if column.kind != "category":
            matrix = _numbers(column.name, column.style or "plain", texts[column.name], rows)
            hours = matrix.shape[1] == 4 and not (np.nan_to_num(matrix[:, 3]) != 0).any()
            matrices[column.name] = matrix[:, :3] if hours else matrix
    numbers = _fit_numbers(matrices, {column.name: column.style or "plain" for column in features})
    categories = {column.name: texts[column.name] for column in features if column.kind == "category"}
    fitted: dict[str, Step] = {**numbers, **_fit_categories(categories, len(rows))}
    return tuple(fitted[column.name] for column in features)


def _numbers(name: str, style: str, cells: Sequence[Cell], rows: Sequence[object]) -> NDArray[np.float64]:
    """The numbers of a column, shape (rows, 1), or (rows, 4) for a date."""
    if read.is_number_style(style):
        return read.parse_numbers(cells, style, name, rows)[:, None]
    return read.parse_dates(cells, style, name, rows)


def _fit_numbers(
    matrices: Mapping[str, NDArray[np.float64]], styles: Mapping[str, str]
) -> dict[str, NumberStep]:
    """All columns of numbers at once: scikit-learn's medians, means and scales, taken out of its transformers."""
    if not matrices:
        return {}
    features = [
        name if matrix.shape[1] == 1 else f"{name} {part}"
        for name, matrix in matrices.items()
        for part in _DATE_PARTS[: matrix.shape[1]]
    ]
    medians, means, scales = fit_scaling(np.concatenate(list(matrices.values()), axis=1), features)
    scalings = iter(map(Scaling, features, medians.tolist(), means.tolist(), scales.tolist()))
    return {
        name: NumberStep(
            name,
            styles[name],
            tuple(next(scalings) for _ in range(matrix.shape[1])),
            indicator=bool(np.isnan(matrix[:, 0]).any()),
        )
        for name, matrix in matrices.items()
    }


def fit_scaling(
    matrix: NDArray[np.float64], names: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Median, mean and scale of each column, float64. A column that is missing in every training row gets 0, 0, 1."""
    imputer = extras.load("sklearn.impute").SimpleImputer(strategy="median", keep_empty_features=True)
    scaler = extras.load("sklearn.preprocessing").StandardScaler()
    with np.errstate(over="ignore", invalid="ignore"):
        filled = imputer.fit_transform(matrix)
        scaler.fit(filled)
    # The scale is 1 where the variance overflows, so that the variance has to be looked at.
    fitted = np.stack([imputer.statistics_, scaler.mean_, scaler.scale_, scaler.var_])
    wrong = ~np.isfinite(fitted).all(axis=0)
    if wrong.any():
        raise fault("huge_numbers", column=quoted(names[int(np.argmax(wrong))]))
    # The mean of equal numbers is that number; summing and dividing misses it by a rounding error, which for a
    # number like 1e57 is larger than anything that a scale of 1 can bring back.
    constant = filled.min(axis=0) == filled.max(axis=0)
    means = np.where(constant, filled[0], fitted[1])
    return fitted[0], means, fitted[2]


def _fit_categories(columns: Mapping[str, Sequence[Cell]], rows: int) -> dict[str, CategoryStep]:
    """All columns of words at once: scikit-learn's level lists, taken out of its encoder."""
    if not columns:
        return {}
    matrix = np.array(
        [[cell or _MISSING_LEVEL for cell in cells] for cells in columns.values()], dtype=object
    ).T
    encoder = extras.load("sklearn.preprocessing").OneHotEncoder(
        handle_unknown="infrequent_if_exist", min_frequency=rare_below(rows), max_categories=_MOST_LEVELS
    )
    encoder.fit(matrix)
    steps = {}
    for name, levels, infrequent in zip(columns, encoder.categories_, encoder.infrequent_categories_):
        rare = frozenset() if infrequent is None else frozenset(infrequent.tolist())
        steps[name] = CategoryStep(
            name, tuple(level for level in levels.tolist() if level not in rare), tuple(sorted(rare))
        )
    return steps


def rare_below(rows: int) -> int:
    """Levels with fewer training rows than this share one column.

    One in a hundred and at most 10: a level seen a few times gives a weight that fits noise, but in a small table
    nothing would be left.
    """
    return min(10, max(1, rows // 100))


def apply_step(
    step: Step, cells: Sequence[Cell], rows: Sequence[object], notes: list[Fact]
) -> NDArray[np.float64]:
    """The columns of one step, shape (rows, features of the step), float64."""
    if isinstance(step, CategoryStep):
        return _apply_category(step, cells, notes)
    numbers = _numbers(step.column, step.style, cells, rows)[:, : len(step.scalings)]
    absent = np.isnan(numbers[:, 0])
    if absent.any() and not step.indicator:
        notes.append(fact("unseen_missing", column=quoted(step.column), count=int(absent.sum())))
    median, mean, scale = (
        np.array([getattr(scaling, name) for scaling in step.scalings])
        for name in ("median", "mean", "scale")
    )
    with np.errstate(over="ignore"):
        scaled = (np.where(np.isnan(numbers), median, numbers) - mean) / scale
    return np.column_stack([scaled, absent]) if step.indicator else scaled


def _apply_category(step: CategoryStep, cells: Sequence[Cell], notes: list[Fact]) -> NDArray[np.float64]:
    width = len(step.features)
    positions = {level: position for position, level in enumerate(step.levels)} | dict.fromkeys(
        step.rare, width - 1
    )
    unknown = width - 1 if step.rare else -1
    found = np.array([positions.get(cell or _MISSING_LEVEL, -1) for cell in cells])
    absent = sum(cell is None for cell in cells) if _MISSING_LEVEL not in positions else 0
    unseen = [cell for cell in cells if cell is not None and cell not in positions]
    if absent:
        notes.append(fact("unseen_missing_level", column=quoted(step.column), count=absent))
    if unseen:
        notes.append(
            fact(
                "unseen_levels_rare" if step.rare else "unseen_levels",
                column=quoted(step.column),
                count=len(unseen),
                value=quoted(unseen[0]),
            )
        )
    known = np.where(found < 0, unknown, found)
    ones: NDArray[np.float64] = np.equal(known[:, None], np.arange(width)).astype(np.float64)
    return ones


def step_to_json(step: Step) -> dict[str, Any]:
    """One step as plain JSON."""
    if isinstance(step, CategoryStep):
        return {
            "kind": "category",
            "column": step.column,
            "levels": list(step.levels),
            "rare": list(step.rare),
        }
    scalings = [{name: getattr(scaling, name) for name in Scaling.__slots__} for scaling in step.scalings]
    return {
        "kind": "number", "column": step.column, "style": step.style, "scalings": scalings, "indicator": step.indicator
    }  # fmt: skip


def step_from_json(record: Mapping[str, Any]) -> Step:
    """The inverse of `step_to_json`. Raises ValueError, KeyError or TypeError for a damaged record."""
    if record["kind"] == "category":
        step = CategoryStep(
            str(record["column"]), tuple(map(str, record["levels"])), tuple(map(str, record["rare"]))
        )
        if len({*step.levels, *step.rare}) != len(step.levels) + len(step.rare):
            raise ValueError(f"the levels of {step.column!r}")
        return step
    scalings = tuple(
        Scaling(str(one["feature"]), finite(one["median"]), finite(one["mean"]), finite(one["scale"]))
        for one in record["scalings"]
    )
    if read.is_number_style(record["style"]):
        fits = len(scalings) == 1
    else:
        fits = record["style"] in read.DATE_FORMATS and len(scalings) in (3, 4)
    if record["kind"] != "number" or not fits or any(scaling.scale <= 0 for scaling in scalings):
        raise ValueError(f"the step of {record['column']!r}")
    return NumberStep(str(record["column"]), str(record["style"]), scalings, bool(record["indicator"]))


def finite(value: Any) -> float:
    """A number out of a record; raises ValueError for infinity and NaN."""
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"the number {value!r}")
    return number
