"""Columns into network inputs and back: fitted on training rows by scikit-learn, kept and applied as plain numbers.

scikit-learn's transformers find the medians, means, scales and category lists. From then on, in training as in
prediction, one implementation (`transform`) works from those numbers, which are stored as JSON and never pickled.

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
from .facts import Fact, fact, fault, listed, quoted
from .inference import infer_schema
from .ranges import far_rows
from .schema import Schema, Target, columns_of, labels_of, require_column
from .steps import Step, apply_step, finite, fit_scaling, fit_steps, step_from_json, step_to_json

if TYPE_CHECKING:
    import pandas

_FORMAT = "chainrule preparation 1"


@dataclass(frozen=True, slots=True)
class Preparation:
    """How rows become arrays: the schema, one step for each used column, and the target's mean and scale.

    >>> from chainrule.data.tabular import bundled
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
            raise fault("other_schema", target=repr(target))
        columns = columns_of(frame)
        for name in (target, *(column.name for column in schema.features)):
            require_column(name, columns)
        known = [cell is not None for cell in read.cells_of(columns[target])]
        if not any(known):
            raise fault("no_target_values", target=repr(target), rows=len(frame))
        frame = frame[known]
        if not schema.features:
            raise fault(
                "no_features" if schema.skipped else "no_other_columns",
                target=repr(target),
                columns=[column.name for column in schema.skipped],
            )
        preparation = cls(schema, fit_steps(schema.features, frame))
        if _target_of(schema).task == "classification":
            return preparation
        _, mean, scale = fit_scaling(preparation._target_numbers(columns[target][known])[:, None], [target])
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
        absent = [step.column for step in self.steps if step.column not in columns]
        if len(absent) > 1:
            raise fault("missing_columns", count=len(absent), missing=absent, names=listed(columns, 20))
        for name in absent:
            require_column(name, columns, "add_column")
        known = {column.name for column in self.schema.columns}
        notes = (
            [fact("ignored_columns", names=extra)]
            if (extra := [name for name in columns if name not in known])
            else []
        )
        rows = list(frame.index)
        blocks = [apply_step(step, read.cells_of(columns[step.column]), rows, notes) for step in self.steps]
        if facts is not None:
            facts.extend([*notes, *far_rows(self.schema, self.steps, blocks, rows)])
        with np.errstate(over="ignore"):
            result: NDArray[np.float32] = np.concatenate(blocks, axis=1).astype(np.float32)
        if not np.isfinite(result).all():
            row, feature = (int(index[0]) for index in np.nonzero(~np.isfinite(result)))
            raise fault("too_far", column=quoted(self.feature_columns[feature]), row=read.row_name(rows, row))
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
                raise fault(
                    "unknown_class", target=quoted(target.name), classes=list(target.classes), value=quoted(label),
                    row=read.row_name(rows, position),
                )  # fmt: skip
        return np.array([indices[label] for label in labels if label is not None], dtype=np.int64)

    def decode_target(self, values: ArrayLike) -> NDArray[Any]:
        """The inverse of `encode_target`: class names, object; or for regression numbers in the target's unit, float64.

        Class indices have shape (rows,); numbers (rows,) or (rows, 1). Raises DataError for an index of no class.
        """
        array = np.asarray(values).reshape(-1)
        if self.task == "regression":
            return np.asarray(array.astype(np.float64) * self.target_scale + self.target_mean)
        if array.dtype.kind not in "iu" or (
            len(array) and not 0 <= array.min() <= array.max() < len(self.classes)
        ):
            raise fault("no_such_class", last=len(self.classes) - 1, values=listed(array.tolist(), 3))
        names: NDArray[Any] = np.array(self.classes, dtype=object)[array]
        return names

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON: dictionaries, lists, strings and finite numbers."""
        return {
            "format": _FORMAT,
            "schema": self.schema.to_json(),
            "steps": [step_to_json(step) for step in self.steps],
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
            steps = tuple(step_from_json(step) for step in record["steps"])
            mean, scale = finite(record["target_mean"]), finite(record["target_scale"])
            if [step.column for step in steps] != [
                column.name for column in schema.features
            ] or schema.target is None:
                raise ValueError("the steps, which do not fit the schema")
            return cls(schema, steps, mean, scale)
        except DataError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise fault("damaged_preparation", format=repr(_FORMAT), error=str(error)) from error

    def _target_numbers(self, series: pandas.Series[Any]) -> NDArray[np.float64]:
        rows = list(series.index)
        numbers = read.parse_numbers(
            read.cells_of(series), self.target.style or "plain", self.target.name, rows
        )
        if np.isnan(numbers).any():
            raise _missing_target(self.target.name, rows, int(np.argmax(np.isnan(numbers))))
        return numbers

    def _scale_target(self, numbers: NDArray[np.float64]) -> NDArray[np.float32]:
        return ((numbers - self.target_mean) / self.target_scale).astype(np.float32)


def _target_of(schema: Schema) -> Target:
    if schema.target is None:
        raise fault("schema_without_target")
    return schema.target


def _missing_target(name: str, rows: Sequence[object], position: int) -> DataError:
    return fault("missing_target", target=quoted(name), row=read.row_name(rows, position))
