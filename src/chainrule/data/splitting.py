"""Which rows train, validate and test; and how good a prediction is, beside one that knows nothing.

Knows nothing of features, tensors and networks.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ArgumentError
from . import extras
from .cells import Cell, cells_of
from .facts import Fact, fact, fault
from .schema import columns_of, require_column

if TYPE_CHECKING:
    import pandas

Rows = NDArray[np.int64]


def split(
    frame: pandas.DataFrame,
    target: str,
    task: str,
    test: float = 0.2,
    seed: int = 0,
    *,
    facts: list[Fact] | None = None,
) -> tuple[Rows, Rows]:
    """Positions of the training rows and of the test rows, int64, ascending, for `frame.iloc`.

    Rows without a target value are in neither. For classification each class keeps its share in both parts, if every
    class can be in both; a class of a single row goes to training. `test` is a share from 0 (no test rows) to
    below 1. The same seed gives the same rows. What is worth saying is appended to `facts`.

    Raises DataError for an unknown target and for too few rows; ArgumentError for a share or a seed without meaning.

    >>> from chainrule.data.tabular import bundled
    >>> train, test = split(bundled("iris").frame, "species", "classification", test=0.2)
    >>> len(train), len(test)
    (120, 30)
    """
    labels = _labels(frame, target, task, seed)
    if not 0 <= test < 1:
        raise ArgumentError(f"the share of test rows must be at least 0 and below 1; got {test}. Try 0.2")
    known = np.array([row for row, label in enumerate(labels) if label is not None], dtype=np.int64)
    classes = labels if task == "classification" else None
    return _divide(known, classes, test, seed, facts)


def split_three(
    frame: pandas.DataFrame,
    target: str,
    task: str,
    *,
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    facts: list[Fact] | None = None,
) -> tuple[Rows, Rows, Rows]:
    """Positions of the training, validation and test rows; both shares are of all rows. See `split`.

    >>> from chainrule.data.tabular import bundled
    >>> [len(rows) for rows in split_three(bundled("iris").frame, "species", "classification")]
    [90, 30, 30]
    """
    labels = _labels(frame, target, task, seed)
    if validation < 0 or test < 0 or validation + test >= 1:
        raise ArgumentError(
            f"the shares of validation and test rows must be at least 0 and together below 1; got {validation} "
            f"and {test}. Try 0.2 and 0.2"
        )
    known = np.array([row for row, label in enumerate(labels) if label is not None], dtype=np.int64)
    classes = labels if task == "classification" else None
    rest, tested = _divide(known, classes, test, seed, facts)
    train, validated = _divide(rest, classes, validation / (1 - test), seed, facts)
    return train, validated, tested


def _labels(frame: pandas.DataFrame, target: str, task: str, seed: int) -> list[Cell]:
    if task not in ("classification", "regression"):
        raise ArgumentError(
            f"the task must be classification or regression; got {task!r}. Use the schema's target.task"
        )
    if not 0 <= seed < 2**32:
        raise ArgumentError(f"the seed must be at least 0 and below 2**32; got {seed}")
    columns = columns_of(frame)
    require_column(target, columns)
    return cells_of(columns[target])


def _divide(
    rows: Rows, labels: list[Cell] | None, share: float, seed: int, facts: list[Fact] | None
) -> tuple[Rows, Rows]:
    """The rows in two parts, the second with `share` of them."""
    if share == 0:
        return rows, rows[:0]
    if len(rows) < 2:
        raise fault("too_few_rows", rows=len(rows))
    divided, classes = rows, None
    if labels is not None:
        counts = Counter(labels[row] for row in rows.tolist())
        # A class of one row can be learnt or tested and not both: it is learnt, and the others are divided.
        several = rows[np.array([counts[labels[row]] > 1 for row in rows.tolist()])]
        manner = _manner(counts, len(several), share)
        if manner.key == "split_stratified":
            divided, classes = several, [labels[row] for row in several.tolist()]
        if facts is not None:
            facts.append(manner)
    parts = extras.load("sklearn.model_selection").train_test_split(
        divided, test_size=_size(len(divided), share), random_state=seed, stratify=classes
    )
    second = np.sort(parts[1])
    return np.setdiff1d(rows, second), second


def _size(rows: int, share: float) -> int:
    """Rows of the second part: scikit-learn's rounding up, with at least one row left for the first."""
    return min(int(np.ceil(rows * share - 1e-9)), rows - 1)


def _manner(counts: Counter[Cell], rows: int, share: float) -> Fact:
    """Whether the classes keep their shares when `rows` rows are divided, and if not, why."""
    classes = sum(count > 1 for count in counts.values())
    if not classes:
        return fact("split_random_single")
    second = _size(rows, share)
    smaller = min(second, rows - second)
    if smaller < classes:
        return fact("split_random_small", rows=smaller, classes=classes)
    return fact("split_stratified")


def accuracy(truth: ArrayLike, prediction: ArrayLike) -> float:
    """The share of equal entries. Both have shape (rows,).

    >>> accuracy([0, 1, 1, 2], [0, 1, 2, 2])
    0.75
    """
    first, second = _pair(truth, prediction)
    return float(np.mean(first == second))


def r2(truth: ArrayLike, prediction: ArrayLike) -> float:
    """1 − squared error / squared deviation from the mean of `truth`; both have shape (rows,).

    1 is perfect and 0 is no better than the mean. Where `truth` is constant it is 1 for equality and else 0, as
    in scikit-learn.

    >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 2.0])
    0.5
    """
    first, second = (array.astype(np.float64) for array in _pair(truth, prediction))
    error = float(np.sum((first - second) ** 2))
    deviation = float(np.sum((first - first.mean()) ** 2))
    if deviation == 0:
        return 1.0 if error == 0 else 0.0
    return 1 - error / deviation


def mean_absolute_error(truth: ArrayLike, prediction: ArrayLike) -> float:
    """The mean of |truth − prediction|, in the target's unit. Both have shape (rows,).

    >>> mean_absolute_error([1.0, 2.0], [1.0, 4.0])
    1.0
    """
    first, second = (array.astype(np.float64) for array in _pair(truth, prediction))
    return float(np.mean(np.abs(first - second)))


def score(task: str, truth: ArrayLike, prediction: ArrayLike) -> dict[str, float]:
    """`{"accuracy": …}` for classification, `{"r2": …, "mean_absolute_error": …}` for regression."""
    if task == "classification":
        return {"accuracy": accuracy(truth, prediction)}
    if task == "regression":
        return {"r2": r2(truth, prediction), "mean_absolute_error": mean_absolute_error(truth, prediction)}
    raise ArgumentError(f"the task must be classification or regression; got {task!r}")


def baseline(task: str, y_train: ArrayLike, y_test: ArrayLike) -> dict[str, float]:
    """The score on `y_test` of what needs no features: the most frequent class, or the mean, of `y_train`.

    A network is worth something only above it. Of equally frequent classes the smallest is taken.

    >>> baseline("classification", [0, 0, 1], [0, 1])
    {'accuracy': 0.5}
    """
    train, test = np.asarray(y_train).reshape(-1), np.asarray(y_test).reshape(-1)
    if not len(train):
        raise fault("no_training_rows")
    constant: Any
    if task == "classification":
        values, counts = np.unique(train, return_counts=True)
        constant = values[np.argmax(counts)]
    else:
        constant = train.astype(np.float64).mean()
    return score(task, test, np.full(test.shape, constant))


def _pair(truth: ArrayLike, prediction: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    first, second = np.asarray(truth).reshape(-1), np.asarray(prediction).reshape(-1)
    if first.shape != second.shape or not len(first):
        raise fault("uneven_score", predictions=len(second), values=len(first))
    return first, second
