"""Windows over a time series: some steps to learn from, and the steps after them to predict; nothing leaks backwards.

Knows arrays in the order of time; knows nothing of models and of training.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, DataError
from ..tensor import Tensor
from .arrays import as_array
from .datasets import Dataset, Rows, counts_of

Numbers = NDArray[np.float64]
Windows = NDArray[np.float32]

SCALINGS = ("standard", "minmax")

# Columns that a scaling shows.
_SHOWN = 3


class Scaling:
    """Columns moved and scaled to about −1 … 1, and back; a run directory keeps it with the weights.

    offset, factor: one number for each column; scaled = (values − offset) / factor. target: the columns that are
    predicted, or None for the only one of a series (steps,).

    >>> scaling = Scaling.fit(np.array([[1.0, 10.0], [3.0, 30.0]]))
    >>> scaling.scale([[3.0, 20.0]]).tolist()
    [[1.0, 0.0]]
    """

    kind = "scaling"

    def __init__(self, offset: Any, factor: Any, target: int | Sequence[int] | None = None) -> None:
        self.offset, self.factor = np.asarray(offset, np.float64), np.asarray(factor, np.float64)
        self.target = target

    @classmethod
    def fit(
        cls, values: Any, how: str | None = "standard", target: int | Sequence[int] | None = None
    ) -> Scaling:
        """The scaling of values (steps, columns): "standard" by mean and deviation, "minmax" to 0 … 1, None: as it is.

        A column that never changes is only moved.
        """
        values = _table(values)
        if how is None:
            return cls(np.zeros(values.shape[1]), np.ones(values.shape[1]), target)
        if how not in SCALINGS:
            raise ArgumentError(f"scaling must be 'standard', 'minmax' or None; got {how!r}")
        if how == "standard":
            offset, factor = values.mean(axis=0), values.std(axis=0)
        else:
            offset, factor = values.min(axis=0), np.ptp(values, axis=0)
        # What rounding leaves of a constant column is no scale.
        flat = factor <= 1e-12 * np.abs(values).max(axis=0)
        return cls(offset, np.where(flat, 1.0, factor), target)

    def __repr__(self) -> str:
        columns = "1 column" if len(self.offset) == 1 else f"{len(self.offset)} columns"
        numbers = ", ".join(f"(x - {a:g}) / {b:g}" for a, b in zip(self.offset[:_SHOWN], self.factor))
        more = ", …" if len(self.offset) > _SHOWN else ""
        return f"Scaling({columns}: {numbers}{more})"

    def scale(self, values: Any) -> Numbers:
        """Values (steps, columns), or (steps,) of one column, as the network sees them."""
        array = as_array(values, "values").astype(np.float64)
        if array.ndim == 1 and len(self.offset) == 1:
            return np.asarray((array - self.offset[0]) / self.factor[0])
        if array.shape[-1:] != self.offset.shape:
            raise DataError(f"the scaling is of {len(self.offset)} columns; got shape {array.shape}")
        return (array - self.offset) / self.factor

    def unscale(self, predictions: Any) -> Numbers:
        """Predictions or targets of windows, (N, horizon) or (N, horizon, columns), in the units of the series."""
        array = predictions.detach().numpy() if isinstance(predictions, Tensor) else np.asarray(predictions)
        if self.target is None or isinstance(self.target, int):
            chosen = self.target or 0
            return np.asarray(array * self.factor[chosen] + self.offset[chosen], np.float64)
        columns = list(self.target)
        if array.shape[-1:] != (len(columns),):
            raise DataError(
                f"predictions of {len(columns)} columns are needed in the last axis; got {array.shape}"
            )
        return np.asarray(array * self.factor[columns] + self.offset[columns], np.float64)

    def prepare(self, raw: Any) -> Any:
        """Raw data as they are: numbers do not tell whether they were scaled already. Use `scale`."""
        return raw

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        target = self.target if self.target is None or isinstance(self.target, int) else list(self.target)
        return {"offset": self.offset.tolist(), "factor": self.factor.tolist(), "target": target}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Scaling:
        """The scaling that `to_json` described."""
        return cls(stored["offset"], stored["factor"], stored["target"])


class SeriesWindows(Dataset):
    """Windows over a time series: x are `length` steps (length, columns), y the `horizon` steps after them.

    values: (steps,) or (steps, columns), an array or table, in the order of time and without gaps. target: the column
        to be predicted, as number or name: then y is (horizon,). By default all: y is (horizon, columns), and
        (horizon,) for a series (steps,). stride: how far the next window is.
    scaling: "standard", "minmax" or None. It is fitted on the training part alone: on the first part of `split`, or on
        what `cr.fit` trains on; x and y are scaled, and `unscale(predictions)` undoes it.
    `split(0.2)` cuts by time: what is to be predicted in a later part lies wholly behind the cut, and its windows may
    look back before it, as a forecast does.

    >>> windows = SeriesWindows(np.arange(10.0), length=3, horizon=2, scaling=None)
    >>> x, y = windows[0]
    >>> x[:, 0].tolist(), y.tolist(), len(windows)
    ([0.0, 1.0, 2.0], [3.0, 4.0], 6)
    """

    ordered = True

    def __init__(
        self,
        values: Any,
        length: int,
        horizon: int = 1,
        *,
        stride: int = 1,
        target: Any = None,
        scaling: str | Scaling | None = "standard",
    ) -> None:
        for name, number in (("length", length), ("horizon", horizon), ("stride", stride)):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ArgumentError(f"{name} must be a whole number from 1; got {number!r}")
        self.length, self.horizon, self.stride = length, horizon, stride
        self._values = _table(values)
        self._target = _columns(values, self._values.shape[1], target)
        self._how = scaling
        self._place(0, len(self._values), scaling if isinstance(scaling, Scaling) else None)

    def _place(self, begin: int, end: int, scaling: Scaling | None) -> None:
        """Take the windows whose targets lie in the steps from `begin` to before `end`."""
        self._begin, self._end = begin, end
        self._first = max(0, begin - self.length)
        if end - self._first < self.length + self.horizon or end - begin < self.horizon:
            raise DataError(
                f"a window of {self.length} steps and {self.horizon} to predict needs {self.length + self.horizon} "
                f"steps; got {end - self._first}. Use a smaller length or horizon, or a larger part"
            )
        self._given = scaling
        if scaling is None:
            how = self._how if isinstance(self._how, str) else None
            scaling = Scaling.fit(self._values[begin:end], how, self._target)
        self.scaling = self.preparation = Scaling(scaling.offset, scaling.factor, self._target)
        self._scaled = self.scaling.scale(self._values).astype(np.float32)

    def __len__(self) -> int:
        return (self._end - self.length - self.horizon - self._first) // self.stride + 1

    def __getitem__(self, index: int) -> tuple[Windows, Windows]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} windows; got {index}")
        x, y = self.take(np.array([index % len(self)]))
        return x[0], y[0]

    def starts(self) -> Rows:
        """The step at which each window begins; what it predicts begins `length` steps later."""
        return self._first + self.stride * np.arange(len(self))

    def take(self, rows: Rows, epoch: int = 1) -> tuple[Windows, Windows]:
        """(x, y) of the windows at these positions, float32: (rows, length, columns), (rows, horizon[, columns])."""
        first = (self._first + rows * self.stride)[:, None]
        x = self._scaled[first + np.arange(self.length)]
        y = self._scaled[first + np.arange(self.length, self.length + self.horizon)]
        chosen = 0 if self._target is None else self._target
        return x, np.ascontiguousarray(y[..., chosen])

    @property
    def size_in_memory(self) -> int | None:
        """Bytes of all windows."""
        return 4 * len(self) * (self.length + self.horizon) * int(self._values.shape[1])

    def unscale(self, predictions: Any) -> Numbers:
        """Predictions or targets, (N, horizon) or (N, horizon, columns), in the units of the series."""
        return self.scaling.unscale(predictions)

    def split(self, *sizes: float, seed: int = 0) -> tuple[Dataset, ...]:
        """Parts by time: one for each of `sizes` at the end, and before them the rest, to train on.

        sizes: shares of the steps, or numbers of steps. The scaling is fitted on the first part, and is that of all
        parts. A part that is split again keeps it.
        """
        counts = counts_of(sizes, self._end - self._begin)
        ends = np.cumsum([self._begin, self._end - self._begin - sum(counts), *counts]).tolist()
        training = self._part(ends[0], ends[1], self._given)
        later = [self._part(a, b, training.scaling) for a, b in itertools.pairwise(ends[1:])]
        training._given = training.scaling
        return (training, *later)

    def _part(self, begin: int, end: int, scaling: Scaling | None) -> SeriesWindows:
        part = object.__new__(SeriesWindows)
        part.__dict__.update(self.__dict__)
        part._place(begin, end, scaling)
        return part

    def fingerprint(self) -> str:
        """SHA-256 of the scaled numbers, and of how windows are cut."""
        cut = (self.length, self.horizon, self.stride, self._target, self._begin, self._end)
        found = hashlib.sha256(repr(cut).encode())
        found.update(self._scaled[self._first : self._end].tobytes())
        return found.hexdigest()

    def __repr__(self) -> str:
        return (
            f"SeriesWindows({len(self)} windows of {self.length} steps and {self.horizon} to predict, over steps "
            f"{self._first} to {self._end - 1})"
        )


def _table(values: Any) -> Numbers:
    """The series as (steps, columns), float64."""
    array = as_array(values, "the series")
    if array.ndim not in (1, 2) or not array.size:
        raise DataError(f"a series needs shape (steps,) or (steps, columns); got {array.shape}")
    table: Numbers = array.reshape(len(array), -1).astype(np.float64)
    return table


def _columns(values: Any, width: int, target: Any) -> int | list[int] | None:
    """The numbers of the columns that are predicted; None: the only one of a series (steps,)."""
    names = [str(one) for one in values.columns] if hasattr(values, "columns") else None
    if target is None:
        return None if names is None and np.ndim(_plain(values)) == 1 else list(range(width))
    if isinstance(target, list | tuple):
        return [_column(one, names, width) for one in target]
    return _column(target, names, width)


def _plain(values: Any) -> Any:
    return values.detach().numpy() if isinstance(values, Tensor) else values


def _column(one: Any, names: list[str] | None, width: int) -> int:
    if isinstance(one, str) and names is not None and one in names:
        return names.index(one)
    if isinstance(one, int) and not isinstance(one, bool) and -width <= one < width:
        return one % width
    known = ", ".join(names) if names is not None else f"0 to {width - 1}"
    raise ArgumentError(f"target must be a column of the series, {known}; got {one!r}")
