"""Metrics by name: how good outputs are beside targets, added up batch by batch and exact over all rows.

Names and numbers are scikit-learn's (`sklearn.metrics`).
Knows arrays; knows nothing of models, losses and epochs.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import ArgumentError
from .scoring import (
    R2,
    Array,
    Counted,
    Function,
    LabelMean,
    Metric,
    NumberMean,
    Ranked,
    Reader,
    absolute,
    area,
    average_precision,
    balanced_accuracy,
    f1,
    hits,
    percentage,
    precision,
    ratio,
    recall,
    squared,
    surprise,
    top_hits,
)

__all__ = ["FunctionMetric", "Metric", "make_metrics"]


class FunctionMetric(Metric):
    """A function (outputs, targets) → number: of all rows at once, or the mean over batches, weighted by their rows.

    The function's attribute `higher_is_better` is taken over; without it a name that ends in error or loss means
    False, in score or accuracy True.
    """

    def __init__(self, name: str, function: Function) -> None:
        super().__init__(name)
        self._function = function
        self.higher_is_better = getattr(function, "higher_is_better", _guess(name))

    def update(self, outputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Add rows."""
        found = self._function(outputs, targets)
        try:
            value = float(found)
        except (TypeError, ValueError) as error:
            raise ArgumentError(
                f"a metric must return one number; got {type(found).__name__} from {self.name!r}"
            ) from error
        self._add(total=value * len(outputs), rows=len(outputs))

    def compute(self) -> float:
        """The metric of all rows so far."""
        return ratio(self._sums.get("total"), self._sums.get("rows"))


def _guess(name: str) -> bool | None:
    if name.endswith(("error", "loss")):
        return False
    return True if name.endswith(("score", "accuracy")) else None


# ------------------------------------------------------------------------------- by name


def _same(values: Any) -> Any:
    return values


_CLASSES: tuple[str, ...] = ("classes", "binary", "custom")
_NUMBERS: tuple[str, ...] = ("numbers", "custom")

# name → (kinds that have it, whether a larger number is better, how it is made of a name and a reader)
_KNOWN: dict[str, tuple[tuple[str, ...], bool, Callable[[str, Reader], Metric]]] = {
    "accuracy": (_CLASSES, True, lambda name, reader: LabelMean(name, reader, hits)),
    "balanced_accuracy": (_CLASSES, True, lambda name, reader: Counted(name, reader, balanced_accuracy)),
    "precision": (_CLASSES, True, lambda name, reader: Counted(name, reader, precision)),
    "recall": (_CLASSES, True, lambda name, reader: Counted(name, reader, recall)),
    "f1": (_CLASSES, True, lambda name, reader: Counted(name, reader, f1)),
    "roc_auc": (_CLASSES, True, lambda name, reader: Ranked(name, reader, area)),
    "average_precision": (_CLASSES, True, lambda name, reader: Ranked(name, reader, average_precision)),
    "log_loss": (_CLASSES, False, lambda name, reader: LabelMean(name, reader, surprise)),
    "mean_absolute_error": (_NUMBERS, False, lambda name, _: NumberMean(name, absolute, _same)),
    "mean_squared_error": (_NUMBERS, False, lambda name, _: NumberMean(name, squared, _same)),
    "root_mean_squared_error": (_NUMBERS, False, lambda name, _: NumberMean(name, squared, np.sqrt)),
    "mean_absolute_percentage_error": (
        _NUMBERS,
        False,
        lambda name, _: NumberMean(name, percentage, _same),
    ),
    "r2": (_NUMBERS, True, lambda name, _: R2(name)),
}
_ALIASES = {
    "mae": "mean_absolute_error", "mse": "mean_squared_error", "rmse": "root_mean_squared_error",
    "mape": "mean_absolute_percentage_error", "auc": "roc_auc", "acc": "accuracy", "macro_f1": "f1",
    "accuracy_score": "accuracy", "balanced_accuracy_score": "balanced_accuracy", "precision_score": "precision",
    "recall_score": "recall", "f1_score": "f1", "roc_auc_score": "roc_auc", "r2_score": "r2",
    "average_precision_score": "average_precision",
}  # fmt: skip
_TOP = re.compile(r"top_([1-9]\d*)_accuracy")
_DEFAULTS = {
    "classes": ("accuracy",), "binary": ("accuracy",), "numbers": ("mean_absolute_error",), "custom": ()
}  # fmt: skip


def make_metrics(
    names: str | Iterable[Any] | Mapping[str, Function] | None, kind: str, logits: bool = True
) -> dict[str, Metric]:
    """Metrics by the names that they were asked for; the usual ones of the kind for None.

    names: names, functions (outputs, targets) → number, Metrics, or a dict from name to function.
    kind: "classes" (outputs (rows, classes)), "binary" (one output), "numbers", or "custom", where outputs and targets
    themselves tell. logits: whether outputs of classes are logits and not probabilities.
    Raises ArgumentError for an unknown name, and for one without meaning for the kind.

    >>> metrics = make_metrics(["mae", "r2"], "numbers")
    >>> for one in metrics.values():
    ...     one.update(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    >>> {name: one.compute() for name, one in metrics.items()}
    {'mae': 1.0, 'r2': 0.11111111111111116}
    """
    if names is None:
        names = _DEFAULTS[kind]
    if isinstance(names, str | Metric) or (callable(names) and not isinstance(names, Mapping)):
        names = [names]
    if isinstance(names, Mapping):
        return {str(name): FunctionMetric(str(name), function) for name, function in names.items()}
    found: dict[str, Metric] = {}
    for one in names:
        made = _make(one, Reader(kind, logits))
        name, number = made.name, 1
        while made.name in found:
            number += 1
            made.name = f"{name}_{number}"
        found[made.name] = made
    return found


def _make(one: Any, reader: Reader) -> Metric:
    if isinstance(one, Metric):
        return one
    if callable(one):
        name = getattr(one, "__name__", type(one).__name__)
        if str(getattr(one, "__module__", "")).startswith("sklearn.metrics"):
            raise ArgumentError(
                f"a metric is a function (outputs, targets); got scikit-learn's {name}, which takes the targets first "
                f"and classes. Use a name such as {_nearest(name) or 'accuracy'!r}"
            )
        return FunctionMetric(name.strip("<>"), one)
    if not isinstance(one, str):
        raise ArgumentError(f"a metric is a name or a function (outputs, targets); got {type(one).__name__}")
    plain = _ALIASES.get(one, one)
    top = _TOP.fullmatch(plain)
    if top:
        made: Metric = LabelMean(one, reader, functools.partial(top_hits, int(top[1])))
        kinds, higher = _CLASSES, True
    elif plain in _KNOWN:
        kinds, higher, make = _KNOWN[plain]
        made = make(one, reader)
    else:
        close = _nearest(one)
        hint = f"Did you mean {close!r}?" if close else "Or give a function (outputs, targets)"
        raise ArgumentError(f"metrics by name are {', '.join(_KNOWN)}, top_5_accuracy; got {one!r}. {hint}")
    if reader.kind not in kinds:
        has = [name for name, (allowed, _, _) in _KNOWN.items() if reader.kind in allowed]
        raise ArgumentError(
            f"a loss of {reader.kind} has the metrics {', '.join(has)}; got {one!r}. Name one of them, or give a "
            "function (outputs, targets)"
        )
    made.higher_is_better = higher
    return made


def _nearest(name: str) -> str | None:
    """The name that somebody probably meant, by its letters."""
    plain = re.sub(r"\W+", "_", name.strip().lower())
    known = [*_KNOWN, *_ALIASES, "top_5_accuracy"]
    close = [one for one in known if one == plain or (len(plain) > 3 and one.startswith(plain))]
    close = close or difflib.get_close_matches(plain, known, 1)
    return _ALIASES.get(close[0], close[0]) if close else None
