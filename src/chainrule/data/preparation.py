"""Columns into network inputs and back: fitted on training rows by scikit-learn, kept and applied as plain numbers.

scikit-learn's transformers find the medians, means, scales and category lists. From then on, in training as in
prediction, one implementation (`transform`) works from those numbers, which are stored as JSON and never pickled.

- A number, boolean or date: the missing are replaced with the training median, then (value − mean) / scale. A
  second column says where values are missing, if any was in training.
- A date becomes days since 1970, month, weekday, and the hour if some hour is not 0.
- A category becomes one column of 0 and 1 for each level. Missing is a level of its own if it happened in training.
  Levels with fewer than `rows // 100` rows (at most 10), and those beyond 50, share one column, "rare".
  A level that training never saw counts as rare, or as none at all (zeros) where there is no such column.

Knows nothing of tensors and networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from . import cells as read
from . import extras
from .cells import Cell
from .facts import Fact, fact, listed, quoted
from .schema import Column, Schema, Target, columns_of, infer_schema, labels_of, require_column

if TYPE_CHECKING:
    import pandas

_FORMAT = "chainrule preparation 1"
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


@dataclass(frozen=True, slots=True)
class Preparation:
    """How rows become arrays: the schema, one step for each used column, and the target's mean and scale.

    >>> from chainrule.data import bundled
    >>> frame = bundled("iris").frame
    >>> preparation = Preparation.fit(frame, target="species")
    >>> preparation.transform(frame).shape, preparation.encode_target(frame["species"])[:3]
    ((150, 4), array([0, 0, 0]))
    """

    schema: Schema
    steps: tuple[Step, ...]
    target_mean: float = 0.0
    target_scale: float = 1.0

    @classmethod
    def fit(
        cls, frame: pandas.DataFrame, target: str, task: str = "auto", *, schema: Schema | None = None
    ) -> Preparation:
        """Learns the numbers from training rows only. Rows without a target value are left out.

        `schema` is what `infer_schema` said of the whole table; then only kinds and classes come from it, and
        every statistic still from `frame`. Without it the schema is inferred from `frame`.

        Raises DataError if no column can be used, or as `infer_schema` does.
        """
        if schema is None:
            schema = infer_schema(frame, target, task)
        elif schema.target is None or schema.target.name != target:
            raise DataError(f"fit needs a schema made for the target {target!r}. Call infer_schema with it")
        columns = columns_of(frame)
        for name in (target, *(column.name for column in schema.features)):
            require_column(name, columns)
        known = [cell is not None for cell in read.cells_of(columns[target])]
        if not any(known):
            raise DataError(f"fit needs rows with a value of the target {target!r}; got none in {len(frame)} rows")
        frame = frame[known]
        if not schema.features:
            raise DataError(
                f"learning needs at least one column besides the target {target!r}; got "
                f"{listed(column.name for column in schema.skipped)}, all skipped. Settle the kind of a column"
            )
        preparation = cls(schema, _fit_steps(schema.features, frame))
        if _target_of(schema).task == "classification":
            return preparation
        _, mean, scale = _fit_scaling(preparation._target_numbers(columns[target][known])[:, None], [target])
        return cls(schema, preparation.steps, float(mean[0]), float(scale[0]))

    @property
    def target(self) -> Target:
        """The column to predict, with its task and classes."""
        return _target_of(self.schema)

    @property
    def task(self) -> str:
        """Either "classification" or "regression"."""
        return self.target.task

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order of their indices; empty for regression."""
        return self.target.classes

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns of `transform`'s result."""
        return tuple(name for step in self.steps for name in step.features)

    @property
    def feature_columns(self) -> tuple[str, ...]:
        """For each column of `transform`'s result, the column of the table that it comes from."""
        return tuple(step.column for step in self.steps for _ in step.features)

    def transform(self, frame: pandas.DataFrame, facts: list[Fact] | None = None) -> NDArray[np.float32]:
        """The network's inputs, shape (rows, features), float32. Columns may come in any order.

        What is worth saying (columns ignored, levels never seen) is appended to `facts`.

        Raises DataError for a column that is missing, and for a cell that cannot be read as its column needs, with
        the row and the value.
        """
        columns = columns_of(frame)
        for step in self.steps:
            require_column(step.column, columns)
        known = {column.name for column in self.schema.columns}
        notes = [fact("ignored_columns", names=extra)] if (extra := [name for name in columns if name not in known]) else []
        rows = list(frame.index)
        blocks = [_apply(step, read.cells_of(columns[step.column]), rows, notes) for step in self.steps]
        if facts is not None:
            facts.extend(notes)
        with np.errstate(over="ignore"):
            result: NDArray[np.float32] = np.concatenate(blocks, axis=1).astype(np.float32)
        if not np.isfinite(result).all():
            row, feature = (int(index[0]) for index in np.nonzero(~np.isfinite(result)))
            raise DataError(
                f"column {quoted(self.feature_columns[feature])} needs numbers near those of training; got one in row "
                f"{read.row_name(rows, row)} that is too far from them for a float32. Correct the cell"
            )
        return result

    def encode_target(self, series: pandas.Series[Any]) -> NDArray[np.int64] | NDArray[np.float32]:
        """Class indices, shape (rows,), int64; or for regression (value − mean) / scale, shape (rows,), float32.

        Raises DataError for a missing value and for a class that training did not have, with the row.
        """
        target = self.target
        if target.task == "regression":
            scaled: NDArray[np.float32] = self._scale_target(self._target_numbers(series))
            return scaled
        rows = list(series.index)
        labels, _ = labels_of(target.style, read.cells_of(series), target.name, rows)
        indices = {label: index for index, label in enumerate(target.classes)}
        for position, label in enumerate(labels):
            if label is None:
                raise _missing_target(target.name, rows, position)
            if label not in indices:
                raise DataError(
                    f"the target {quoted(target.name)} needs one of the classes of training, {listed(target.classes)}; "
                    f"got {quoted(label)} in row {read.row_name(rows, position)}. Leave the row out, or train with it"
                )
        return np.array([indices[label] for label in labels if label is not None], dtype=np.int64)

    def decode_target(self, values: ArrayLike) -> NDArray[Any]:
        """The inverse of `encode_target`: class names, object; or for regression numbers in the target's unit, float64.

        Class indices have shape (rows,); numbers (rows,) or (rows, 1). Raises DataError for an index of no class.
        """
        array = np.asarray(values).reshape(-1)
        if self.task == "regression":
            return array.astype(np.float64) * self.target_scale + self.target_mean
        if array.dtype.kind not in "iu" or (len(array) and not 0 <= array.min() <= array.max() < len(self.classes)):
            raise DataError(
                f"decode_target needs class indices from 0 to {len(self.classes) - 1}; got {listed(array.tolist(), 3)}. "
                "Take the argmax of the network's output"
            )
        return np.array(self.classes, dtype=object)[array]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON: dictionaries, lists, strings and finite numbers."""
        return {
            "format": _FORMAT,
            "schema": self.schema.to_json(),
            "steps": [_step_to_json(step) for step in self.steps],
            "target_mean": self.target_mean,
            "target_scale": self.target_scale,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Preparation:
        """The inverse of `to_json`: the result transforms bit for bit alike.

        Raises DataError for a record that is damaged or of another version.
        """
        try:
            if record["format"] != _FORMAT:
                raise ValueError(f"the format {record['format']!r}")
            schema = Schema.from_json(record["schema"])
            steps = tuple(_step_from_json(step) for step in record["steps"])
            mean, scale = _finite(record["target_mean"]), _finite(record["target_scale"])
            if [step.column for step in steps] != [column.name for column in schema.features] or schema.target is None:
                raise ValueError("the steps, which do not fit the schema")
            return cls(schema, steps, mean, scale)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"a preparation needs the format {_FORMAT!r}; got a record that lacks or garbles {error}. "
                "The file is damaged or of another version: train again"
            ) from error

    def _target_numbers(self, series: pandas.Series[Any]) -> NDArray[np.float64]:
        rows = list(series.index)
        numbers = read.parse_numbers(read.cells_of(series), self.target.style or "plain", self.target.name, rows)
        if np.isnan(numbers).any():
            raise _missing_target(self.target.name, rows, int(np.argmax(np.isnan(numbers))))
        return numbers

    def _scale_target(self, numbers: NDArray[np.float64]) -> NDArray[np.float32]:
        return ((numbers - self.target_mean) / self.target_scale).astype(np.float32)


def _target_of(schema: Schema) -> Target:
    if schema.target is None:
        raise DataError("a preparation needs a schema with a target. Call infer_schema with target=")
    return schema.target


def _missing_target(name: str, rows: Sequence[object], position: int) -> DataError:
    return DataError(
        f"the target {quoted(name)} needs a value in every row; got none in row {read.row_name(rows, position)}. "
        "Take the rows from split, which leaves such rows out"
    )


def _fit_steps(features: Sequence[Column], frame: pandas.DataFrame) -> tuple[Step, ...]:
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
    if style in ("plain", "thousands", "decimal comma", "boolean"):
        return read.parse_numbers(cells, style, name, rows)[:, None]
    return read.parse_dates(cells, style, name, rows)


def _fit_numbers(matrices: Mapping[str, NDArray[np.float64]], styles: Mapping[str, str]) -> dict[str, NumberStep]:
    """All columns of numbers at once: scikit-learn's medians, means and scales, taken out of its transformers."""
    if not matrices:
        return {}
    features = [
        name if matrix.shape[1] == 1 else f"{name} {part}"
        for name, matrix in matrices.items()
        for part in _DATE_PARTS[: matrix.shape[1]]
    ]
    medians, means, scales = _fit_scaling(np.concatenate(list(matrices.values()), axis=1), features)
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


def _fit_scaling(
    matrix: NDArray[np.float64], names: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Median, mean and scale of each column, float64. A column that is missing in every training row gets 0, 0, 1."""
    imputer = extras.load("sklearn.impute").SimpleImputer(strategy="median", keep_empty_features=True)
    scaler = extras.load("sklearn.preprocessing").StandardScaler()
    with np.errstate(over="ignore", invalid="ignore"):
        scaler.fit(imputer.fit_transform(matrix))
    fitted = np.stack([imputer.statistics_, scaler.mean_, scaler.scale_])
    wrong = ~np.isfinite(fitted).all(axis=0)
    if wrong.any():
        raise DataError(
            f"column {quoted(names[int(np.argmax(wrong))])} needs numbers whose squares are finite; got larger ones. "
            "Write the column in a larger unit, or as logarithms"
        )
    return fitted[0], fitted[1], fitted[2]


def _fit_categories(columns: Mapping[str, Sequence[Cell]], rows: int) -> dict[str, CategoryStep]:
    """All columns of words at once: scikit-learn's level lists, taken out of its encoder."""
    if not columns:
        return {}
    matrix = np.array([[cell or _MISSING_LEVEL for cell in cells] for cells in columns.values()], dtype=object).T
    encoder = extras.load("sklearn.preprocessing").OneHotEncoder(
        handle_unknown="infrequent_if_exist", min_frequency=rare_below(rows), max_categories=_MOST_LEVELS
    )
    encoder.fit(matrix)
    steps = {}
    for name, levels, rare in zip(columns, encoder.categories_, encoder.infrequent_categories_):
        rare = frozenset() if rare is None else frozenset(rare.tolist())
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


def _apply(step: Step, cells: Sequence[Cell], rows: Sequence[object], notes: list[Fact]) -> NDArray[np.float64]:
    """The columns of one step, shape (rows, features of the step), float64."""
    if isinstance(step, CategoryStep):
        return _apply_category(step, cells, notes)
    numbers = _numbers(step.column, step.style, cells, rows)[:, : len(step.scalings)]
    absent = np.isnan(numbers[:, 0])
    if absent.any() and not step.indicator:
        notes.append(fact("unseen_missing", column=quoted(step.column), count=int(absent.sum())))
    median, mean, scale = (
        np.array([getattr(scaling, name) for scaling in step.scalings]) for name in ("median", "mean", "scale")
    )
    with np.errstate(over="ignore"):
        scaled = (np.where(np.isnan(numbers), median, numbers) - mean) / scale
    return np.column_stack([scaled, absent]) if step.indicator else scaled


def _apply_category(step: CategoryStep, cells: Sequence[Cell], notes: list[Fact]) -> NDArray[np.float64]:
    width = len(step.features)
    positions = {level: position for position, level in enumerate(step.levels)} | dict.fromkeys(step.rare, width - 1)
    unknown = width - 1 if step.rare else -1
    found = np.array([positions.get(cell or _MISSING_LEVEL, -1) for cell in cells])
    absent = sum(cell is None for cell in cells) if _MISSING_LEVEL not in positions else 0
    unseen = [cell for cell in cells if cell is not None and cell not in positions]
    if absent:
        notes.append(fact("unseen_missing", column=quoted(step.column), count=absent))
    if unseen:
        notes.append(fact("unseen_levels", column=quoted(step.column), count=len(unseen), value=quoted(unseen[0])))
    found = np.where(found < 0, unknown, found)
    return (found[:, None] == np.arange(width)).astype(np.float64)


def _step_to_json(step: Step) -> dict[str, Any]:
    if isinstance(step, CategoryStep):
        return {"kind": "category", "column": step.column, "levels": list(step.levels), "rare": list(step.rare)}
    scalings = [{name: getattr(scaling, name) for name in Scaling.__slots__} for scaling in step.scalings]
    return {
        "kind": "number", "column": step.column, "style": step.style, "scalings": scalings, "indicator": step.indicator
    }  # fmt: skip


def _step_from_json(record: Mapping[str, Any]) -> Step:
    if record["kind"] == "category":
        step = CategoryStep(record["column"], tuple(record["levels"]), tuple(record["rare"]))
        if len({*step.levels, *step.rare}) != len(step.levels) + len(step.rare):
            raise ValueError(f"the levels of {step.column!r}")
        return step
    scalings = tuple(
        Scaling(str(one["feature"]), _finite(one["median"]), _finite(one["mean"]), _finite(one["scale"]))
        for one in record["scalings"]
    )
    if record["kind"] != "number" or not scalings or any(scaling.scale <= 0 for scaling in scalings):
        raise ValueError(f"the step of {record['column']!r}")
    return NumberStep(str(record["column"]), str(record["style"]), scalings, bool(record["indicator"]))


def _finite(value: Any) -> float:
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"the number {value!r}")
    return number
