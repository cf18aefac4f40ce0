"""How much each row counts: weights of rows, and weights of classes.

Names and numbers are scikit-learn's. Knows nothing of losses and of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, DataError
from .arrays import Array, as_array

Weights = NDArray[np.float64]


def as_sample_weight(sample_weight: Any, rows: int, *, batch: bool = False) -> Weights:
    """Weights of rows, float64 (rows,). DataError for a wrong length, NaN, negative weights, or none above 0.

    `batch`: the rows are one batch of many, whose weights may all be 0.

    >>> as_sample_weight([1, 2], 2).tolist()
    [1.0, 2.0]
    """
    weights = as_array(sample_weight, "sample_weight").astype(np.float64)
    if weights.shape != (rows,) and weights.size == len(weights):
        weights = weights.reshape(-1)
    if weights.shape != (rows,):
        raise DataError(
            f"sample_weight needs one weight for each row, shape ({rows},); got {weights.shape}. Check its length"
        )
    if (weights < 0).any():
        row = int((weights < 0).argmax())
        raise DataError(
            f"sample_weight needs weights from 0; got {weights[row]:g} in row {row}. Use 0 to leave it out"
        )
    if not batch and not weights.any():
        raise DataError("sample_weight needs a weight above 0; got 0 in all rows. Nothing could be learnt")
    return weights


def class_weights(class_weight: Any, labels: Array, classes: int | None = None) -> Weights:
    """The weight of each class 0 … classes − 1, float64 (classes,).

    class_weight: "balanced": rows / (classes that occur · rows of the class), as in scikit-learn, so that the weights
    of all rows average 1 and a class without rows weighs 0; a dict from class to weight, 1 where it names none; or a
    sequence with a weight for each class. labels: whole numbers from 0. Raises ArgumentError.

    >>> class_weights("balanced", np.array([0, 0, 0, 1])).tolist()
    [0.6666666666666666, 2.0]
    """
    count = int(labels.max()) + 1 if classes is None else classes
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ArgumentError(
                f"class_weight must be 'balanced', a dict or a sequence; got {class_weight!r}"
            )
        rows = np.bincount(labels.reshape(-1), minlength=count)
        present = rows > 0
        result = np.zeros(count)
        result[present] = labels.size / (present.sum() * rows[present])
        return result
    if isinstance(class_weight, Mapping):
        result = np.ones(count)
        for key, value in class_weight.items():
            if not isinstance(key, int | np.integer) or not 0 <= key < count:
                raise ArgumentError(
                    f"class_weight names classes 0 to {count - 1}; got {key!r}. Check the labels"
                )
            result[key] = _weight(value, key)
    else:
        values = list(np.asarray(class_weight).reshape(-1).tolist())
        if len(values) != count:
            raise ArgumentError(
                f"class_weight needs a weight for each class, {count} of them; got {len(values)}. Or use a dict"
            )
        result = np.array([_weight(value, key) for key, value in enumerate(values)])
    if not result[np.unique(labels)].any():
        raise ArgumentError("class_weight needs a weight above 0; got 0 for every class that has rows")
    return result


def _weight(value: Any, key: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
        raise ArgumentError(f"class_weight needs finite weights from 0; got {value!r} for class {key}")
    return float(value)
