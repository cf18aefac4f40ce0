"""The metrics themselves: what is added up of each batch, and the number that comes out.

The numbers are those of scikit-learn (`sklearn.metrics`). All sums are float64. What a metric has seen is a small
state of plain numbers, except for `Ranked`, which keeps every score in arrays: 24 bytes for each row with one output, 8
more for each class.
Knows arrays; knows nothing of models, losses and epochs, nor by which names users ask for metrics.
"""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError

Array = NDArray[Any]
Floats = NDArray[np.float64]
Function = Callable[[Array, Array], Any]


class Metric(abc.ABC):
    """One number about outputs and targets, of all rows since `reset`.

    name: what it is called in the history. higher_is_better: whether a larger number is a better one, None where
    that is not known, as of a function without an attribute of that name.
    """

    higher_is_better: bool | None = True
    #: Whether rows without weights may come in other portions and give the same bits: whole numbers are added up.
    counts: bool = False

    def __init__(self, name: str) -> None:
        self.name = name
        self._sums: dict[str, Floats] = {}

    @abc.abstractmethod
    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Add rows: outputs of the model, targets, and how much each row counts."""

    @abc.abstractmethod
    def compute(self) -> float:
        """The metric of all rows so far; NaN where it has no meaning, as without any row."""

    def __call__(self, outputs: Array, targets: Array, weights: Array | None = None) -> float:
        """The metric of these rows alone; what was seen before is left as it is."""
        alone = copy.copy(self)
        alone.reset()
        alone.update(outputs, targets, weights)
        return alone.compute()

    @property
    def empty(self) -> bool:
        """Whether no row was seen since `reset`."""
        return not self._sums

    def reset(self) -> None:
        """Forget all rows."""
        self._sums = {}

    def state_dict(self) -> dict[str, Any]:
        """What was seen, as numbers and lists of them."""
        return {name: value.tolist() for name, value in self._sums.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave."""
        self._sums = {name: np.array(value, np.float64) for name, value in state.items()}

    def _add(self, **terms: Any) -> None:
        for name, term in terms.items():
            before = self._sums.get(name)
            self._sums[name] = np.array(term if before is None else before + term, np.float64)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.compute():.6g})"


# ------------------------------------------------------------------------------- what outputs and targets mean


class Labels(NamedTuple):
    """Classes of rows: the true ones, scores (rows, classes) or (rows,) for two classes, weights, how many classes."""

    truth: NDArray[np.int64]
    scores: Array
    weights: Floats
    classes: int
    binary: bool


class Reader(NamedTuple):
    """How outputs are read: by the kind of the problem, and whether they are logits."""

    kind: str
    logits: bool

    def labels(self, outputs: Array, targets: Array, weights: Array | None) -> Labels:
        """Rows with a class below 0 (as ignore_index of cross_entropy is) are left out."""
        if self._is_binary(outputs, targets):
            truth = targets.reshape(-1)
            truth = (truth > 0.5 if truth.dtype.kind == "f" else truth).astype(np.int64)
            return Labels(truth, outputs.reshape(-1), _spread(weights, len(outputs), truth.size), 2, True)
        if outputs.ndim < 2:
            raise ArgumentError(f"metrics of classes need outputs (rows, classes); got {outputs.shape}")
        classes = outputs.shape[1]
        scores = np.moveaxis(outputs, 1, -1).reshape(-1, classes)
        if targets.shape == outputs.shape:
            truth = np.moveaxis(targets, 1, -1).reshape(-1, classes).argmax(axis=1)
        else:
            truth = targets.reshape(-1).astype(np.int64)
        if len(truth) != len(scores):
            raise ArgumentError(
                f"metrics of classes need one class for each row; got {targets.shape} for outputs {outputs.shape}"
            )
        found = _spread(weights, len(outputs), truth.size)
        counted = truth >= 0
        if not counted.all():
            truth, scores, found = truth[counted], scores[counted], found[counted]
        return Labels(truth, scores, found, classes, False)

    def _is_binary(self, outputs: Array, targets: Array) -> bool:
        if self.kind != "custom":
            return self.kind == "binary"
        return outputs.ndim < 2 or (outputs.size == len(outputs) and targets.size == outputs.size)

    def predicted(self, labels: Labels) -> NDArray[np.int64]:
        """The class of each row that the scores are for."""
        if labels.binary:
            return np.asarray(labels.scores > (0.0 if self.logits else 0.5), np.int64)
        return np.asarray(labels.scores.argmax(axis=1), np.int64)

    def log_probabilities(self, labels: Labels) -> Floats:
        """(rows, classes), float64. Probabilities are kept an epsilon of their dtype away from 0 and 1."""
        scores = labels.scores.astype(np.float64)
        if self.logits and labels.binary:
            scores = np.stack([np.zeros_like(scores), scores], axis=1)
        if self.logits:
            largest = scores.max(axis=1, keepdims=True)
            shifted = scores - largest
            return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
        if labels.binary:
            scores = np.stack([1 - scores, scores], axis=1)
        limit = np.finfo(labels.scores.dtype).eps if labels.scores.dtype.kind == "f" else 0.0
        return np.asarray(np.log(np.clip(scores, limit, 1 - limit)))


def _spread(weights: Array | None, rows: int, positions: int) -> Floats:
    """The weight of each position; a row of several positions gives its weight to all of them."""
    if weights is None:
        return np.ones(positions)
    return np.repeat(np.asarray(weights, np.float64), positions // max(rows, 1))


def _columns(outputs: Array, targets: Array) -> tuple[Floats, Floats]:
    """Numbers as float64 (rows, numbers of one row)."""
    if outputs.size != targets.size or len(outputs) != len(targets):
        raise ArgumentError(
            f"metrics of numbers need outputs and targets of one shape; got {outputs.shape} and {targets.shape}"
        )
    shape = (len(outputs), -1) if len(outputs) else (0, 1)
    return outputs.astype(np.float64).reshape(shape), targets.astype(np.float64).reshape(shape)


# ------------------------------------------------------------------------------- means over rows


class LabelMean(Metric):
    """The weighted mean of one number for each row: accuracy, top-k accuracy, log loss."""

    def __init__(self, name: str, reader: Reader, values: Callable[[Reader, Labels], Array]) -> None:
        super().__init__(name)
        self._reader = reader
        self._values = values
        self.counts = values is not surprise

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Add rows."""
        labels = self._reader.labels(outputs, targets, weights)
        values = np.asarray(self._values(self._reader, labels), np.float64)
        self._add(total=labels.weights @ values, weight=labels.weights.sum())

    def compute(self) -> float:
        """The metric of all rows so far."""
        return ratio(self._sums.get("total"), self._sums.get("weight"))


def hits(reader: Reader, labels: Labels) -> Array:
    """1 for each row that is predicted right."""
    return np.asarray(reader.predicted(labels) == labels.truth)


def top_hits(k: int, reader: Reader, labels: Labels) -> Array:
    """1 for each row whose class is among the `k` with the highest scores."""
    if labels.binary:
        return hits(reader, labels) if k == 1 else np.ones(len(labels.truth))
    # Of equal scores the class with the higher number comes first, as in scikit-learn.
    first = np.argsort(labels.scores, axis=1, kind="stable")[:, ::-1][:, :k]
    return np.asarray((first == labels.truth[:, None]).any(axis=1))


def surprise(reader: Reader, labels: Labels) -> Array:
    """−log of the probability of the true class."""
    return np.asarray(-reader.log_probabilities(labels)[np.arange(len(labels.truth)), labels.truth])


class NumberMean(Metric):
    """The weighted mean of an error for each column, made one number: MAE, MSE, RMSE, MAPE."""

    def __init__(
        self, name: str, error: Callable[[Floats, Floats], Floats], finish: Callable[[Any], Any]
    ) -> None:
        super().__init__(name)
        self._error = error
        self._finish = finish

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Add rows."""
        predicted, truth = _columns(outputs, targets)
        found = _spread(weights, len(outputs), len(outputs))
        self._add(total=found @ self._error(predicted, truth), weight=found.sum())

    def compute(self) -> float:
        """The metric of all rows so far."""
        if not self._sums or not self._sums["weight"]:
            return math.nan
        return float(np.mean(self._finish(self._sums["total"] / self._sums["weight"])))


def absolute(predicted: Floats, truth: Floats) -> Floats:
    """|predicted − truth|."""
    return np.abs(predicted - truth)


def squared(predicted: Floats, truth: Floats) -> Floats:
    """(predicted − truth)²."""
    return np.square(predicted - truth)


def percentage(predicted: Floats, truth: Floats) -> Floats:
    """|predicted − truth| as a share of |truth|; the share is huge, and not infinite, where truth is 0."""
    return np.abs(predicted - truth) / np.maximum(np.abs(truth), np.finfo(np.float64).eps)


class R2(Metric):
    """1 − squared error / squared deviation from the mean of the targets; the mean over the columns.

    Means and squared deviations of batches are joined by the formula of T. F. Chan, G. H. Golub and R. J. LeVeque,
    "Updating formulae and a pairwise algorithm for computing sample variances", 1979. Constant targets give 1 where
    the outputs equal them and else 0.
    """

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Add rows."""
        predicted, truth = _columns(outputs, targets)
        found = _spread(weights, len(outputs), len(outputs))
        weight = found.sum()
        if not weight:
            return
        counted = truth[found > 0]
        low, high, mean = counted.min(axis=0), counted.max(axis=0), found @ truth / weight
        deviation = found @ np.square(truth - mean)
        before = self._sums
        if before:
            both = before["weight"] + weight
            step = mean - before["mean"]
            deviation = deviation + before["deviation"] + step * step * (before["weight"] * weight / both)
            mean = before["mean"] + step * (weight / both)
            low, high = np.minimum(low, before["low"]), np.maximum(high, before["high"])
        self._add(weight=weight, error=found @ np.square(truth - predicted), rows=len(counted))
        self._sums |= {"mean": mean, "deviation": deviation, "low": low, "high": high}

    def compute(self) -> float:
        """The metric of all rows so far."""
        if not self._sums or self._sums["rows"] < 2:
            return math.nan
        error, deviation = self._sums["error"], self._sums["deviation"]
        constant = self._sums["low"] == self._sums["high"]
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(constant, np.where(error == 0, 1.0, 0.0), 1 - error / deviation)
        return float(np.mean(found))


# ------------------------------------------------------------------------------- counts of classes


class Counts(NamedTuple):
    """For each class: weight of hits, of rows predicted to be it, of rows that are it; and whether it occurs at all."""

    hits: Floats
    predicted: Floats
    actual: Floats
    occurs: NDArray[np.bool_]
    binary: bool


class Counted(Metric):
    """A figure of the counts of hits and misses of each class."""

    counts = True

    def __init__(self, name: str, reader: Reader, figure: Callable[[Counts], float]) -> None:
        super().__init__(name)
        self._reader = reader
        self._figure = figure

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Add rows."""
        labels = self._reader.labels(outputs, targets, weights)
        predicted = self._reader.predicted(labels)

        def count(classes: NDArray[np.int64], each: Floats | None) -> Array:
            return np.bincount(classes, each, labels.classes)

        hit = labels.truth == predicted
        self._add(
            hits=count(labels.truth[hit], labels.weights[hit]),
            predicted=count(predicted, labels.weights),
            actual=count(labels.truth, labels.weights),
            rows=count(labels.truth, None) + count(predicted, None),
        )
        self._sums["binary"] = np.array(labels.binary, np.float64)

    def compute(self) -> float:
        """The metric of all rows so far."""
        if not self._sums:
            return math.nan
        sums = self._sums
        return float(
            self._figure(
                Counts(
                    sums["hits"], sums["predicted"], sums["actual"], sums["rows"] > 0, bool(sums["binary"])
                )
            )
        )


def _share(above: Floats, below: Floats) -> Floats:
    """above / below, 0 where nothing is below (scikit-learn's zero_division=0)."""
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0)


def _macro(values: Floats, counts: Counts) -> float:
    """The value of class 1 of two, else the mean over the classes that occur in targets or predictions."""
    return float(values[1]) if counts.binary else float(np.mean(values[counts.occurs]))


def precision(counts: Counts) -> float:
    """Right ones among the rows predicted to be a class."""
    return _macro(_share(counts.hits, counts.predicted), counts)


def recall(counts: Counts) -> float:
    """Rows of a class that were found."""
    return _macro(_share(counts.hits, counts.actual), counts)


def f1(counts: Counts) -> float:
    """The harmonic mean of precision and recall of each class."""
    return _macro(_share(2 * counts.hits, counts.predicted + counts.actual), counts)


def balanced_accuracy(counts: Counts) -> float:
    """The mean of the recalls of the classes that have rows."""
    present = counts.actual > 0
    return float(np.mean(counts.hits[present] / counts.actual[present])) if present.any() else math.nan


# ------------------------------------------------------------------------------- ranks of scores


class Ranked(Metric):
    """A figure of the order of the scores, of class 1, or the mean over the classes, each against the rest."""

    counts = True

    def __init__(
        self, name: str, reader: Reader, figure: Callable[[Floats, NDArray[np.bool_], Floats], float]
    ) -> None:
        super().__init__(name)
        self._reader = reader
        self._figure = figure
        self._parts: list[tuple[Array, Array, Array]] = []

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Add rows."""
        labels = self._reader.labels(outputs, targets, weights)
        if labels.binary:
            scores = labels.scores.astype(np.float64)[:, None]
        elif self._reader.logits:
            scores = self._reader.log_probabilities(
                labels
            )  # in the order of the probabilities, without underflow
        else:
            scores = labels.scores.astype(np.float64)
        self._parts.append((scores, labels.truth, labels.weights))

    def compute(self) -> float:
        """The metric of all rows so far."""
        if not self._parts:
            return math.nan
        scores, truth, weights = (np.concatenate(part) for part in zip(*self._parts))
        self._parts = [(scores, truth, weights)]
        if scores.shape[1] == 1:
            return self._figure(scores[:, 0], truth == 1, weights)
        figures = [self._figure(scores[:, one], truth == one, weights) for one in np.unique(truth).tolist()]
        return float(np.mean(figures))

    @property
    def empty(self) -> bool:
        """Whether no row was seen since `reset`."""
        return not self._parts

    def reset(self) -> None:
        """Forget all rows."""
        self._parts = []

    def state_dict(self) -> dict[str, Any]:
        """All scores, true classes and weights, as arrays."""
        return {"parts": [list(part) for part in self._parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave."""
        self._parts = [
            (np.array(scores, np.float64), np.array(truth, np.int64), np.array(weights, np.float64))
            for scores, truth, weights in state["parts"]
        ]


def _groups(scores: Floats, truth: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """Weight of true and of false rows of each different score, the scores ascending."""
    order = np.argsort(scores, kind="stable")
    ranked, inside = scores[order], truth[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    found = weights[order]
    return np.add.reduceat(found * inside, starts), np.add.reduceat(found * ~inside, starts)


def area(scores: Floats, truth: NDArray[np.bool_], weights: Floats) -> float:
    """The share of pairs (true row, false row) in which the true one has the higher score; ties count half.

    Source: J. A. Hanley and B. J. McNeil, "The meaning and use of the area under a ROC curve", 1982.
    """
    if np.isnan(scores).any():
        return math.nan
    inside, outside = _groups(scores, truth, weights)
    pairs = inside.sum() * outside.sum()
    below = np.cumsum(outside) - outside
    return float(inside @ (below + outside / 2) / pairs) if pairs else math.nan


def average_precision(scores: Floats, truth: NDArray[np.bool_], weights: Floats) -> float:
    """Σ (recallₙ − recallₙ₋₁) · precisionₙ over the different scores as limits, from the highest down."""
    if np.isnan(scores).any():
        return math.nan
    inside, outside = (one[::-1] for one in _groups(scores, truth, weights))
    hits, false = np.cumsum(inside), np.cumsum(outside)
    return float(inside @ _share(hits, hits + false) / hits[-1]) if hits[-1] else math.nan


def ratio(above: Floats | None, below: Floats | None) -> float:
    """above / below; NaN where there is nothing yet."""
    return float(above / below) if above is not None and below is not None and below > 0 else math.nan
