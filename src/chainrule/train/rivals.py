"""What a network has to beat: the most frequent class or the mean, and a linear model; and whether it does.

The linear model is scikit-learn's, with its defaults, on the very same inputs: `LogisticRegression` or `Ridge`.
Knows arrays and scores; knows nothing of tables, files and training.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..data import extras

Array = NDArray[Any]

Verdict = Literal["better", "worse", "same", "open"]

# Enough for tables that a person has; where it is not, the model is still a fair rival.
_ITERATIONS = 1000

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much the network is better than the linear model, with a 95 % interval.

    measure: "accuracy", "mean_absolute_error" or "r2". Positive is better for the network, for errors too.
    """

    measure: str
    value: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """ "better" or "worse" where the interval leaves 0 out, "same" where nothing differs at all, else "open"."""
        if self.low == self.high == 0:
            return "same"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "open"

    def to_json(self) -> dict[str, Any]:
        """The difference as plain JSON."""
        return {
            "measure": self.measure,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "verdict": self.verdict,
        }


def linear_predictions(
    inputs: Array, targets: Array, unseen: Array, *, classes: bool, balanced: bool
) -> Array:
    """What a linear model that learnt `inputs` (rows, features) and `targets` (rows,) says of the rows `unseen`.

    classes: whether targets are class indices. balanced: whether every class counts alike.
    """
    models = extras.load("sklearn.linear_model")
    if classes and (targets == targets[0]).all():
        return np.full(len(unseen), targets[0])
    if classes:
        weight = "balanced" if balanced else None
        model = models.LogisticRegression(max_iter=_ITERATIONS, class_weight=weight)
    else:
        model = models.Ridge()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it did not converge, or that columns depend on each other
        found: Array = model.fit(inputs.astype(np.float64), targets).predict(unseen.astype(np.float64))
    return found


def paired_difference(measure: str, network: Array, linear: Array) -> Difference:
    """The mean of `network − linear`, two figures for each test row, with Student's 95 % interval for pairs.

    >>> found = paired_difference("accuracy", np.array([1.0] * 30 + [0.0]), np.array([1.0] * 20 + [0.0] * 11))
    >>> round(found.value, 3), found.verdict
    (0.323, 'better')
    """
    each = network.astype(np.float64) - linear.astype(np.float64)
    mean, rows = float(each.mean()), len(each)
    half = math.inf
    if rows > 1:
        half = _quantile(rows - 1) * float(each.std(ddof=1)) / math.sqrt(rows)
    elif mean == 0:
        half = 0.0
    return Difference(measure, mean, mean - half, mean + half)


def corrected_interval(scores: Sequence[float], tested: float, trained: float) -> tuple[float, float]:
    """The 95 % interval of the mean of scores from resampled splits with `tested` and `trained` rows each.

    Folds share training rows, so their scores vary together and s²/n is too small: the variance is
    (1/n + tested/trained)·s², as in C. Nadeau and Y. Bengio, "Inference for the generalization error", 2003;
    for repeated cross-validation R. R. Bouckaert and E. Frank, "Evaluating the replicability of significance
    tests for comparing learning algorithms", 2004.

    >>> [round(one, 3) for one in corrected_interval([0.8, 0.9, 0.85, 0.95], tested=20, trained=80)]
    [0.73, 1.02]
    """
    values = np.asarray(scores, np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return -math.inf, math.inf
    spread = math.sqrt((1 / len(values) + tested / trained) * float(values.var(ddof=1)))
    half = _quantile(len(values) - 1) * spread
    return mean - half, mean + half


def _quantile(freedom: int) -> float:
    """Student's t for a two-sided interval."""
    return float(extras.load("scipy.special").stdtrit(freedom, (1 + _CONFIDENCE) / 2))


def macro_f1(truth: Array, predicted: Array) -> float:
    """The mean over the classes of 2·hits / (true rows + predicted rows), so that a rare class counts like any.

    >>> macro_f1(np.array([0, 0, 1]), np.array([0, 0, 0]))
    0.4
    """
    found = []
    for one in {*truth.tolist(), *predicted.tolist()}:
        wanted, given = truth == one, predicted == one
        found.append(2 * float((wanted & given).sum()) / float(wanted.sum() + given.sum()))
    return float(np.mean(found))


def accuracy_interval(accuracy: float, rows: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy measured on so many rows (Wilson, 1927).

    >>> [round(one, 2) for one in accuracy_interval(0.9, 30)]
    [0.74, 0.97]
    """
    z = 1.959964
    centre = accuracy + z * z / (2 * rows)
    half = z * math.sqrt(accuracy * (1 - accuracy) / rows + z * z / (4 * rows * rows))
    scale = 1 + z * z / rows
    return (centre - half) / scale, (centre + half) / scale
