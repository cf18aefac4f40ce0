"""Which rows are held back from training: a share of every class, drawn at random from a seed.

Knows arrays and labels; knows nothing of models and of tables in files (`splitting` divides those).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, DataError
from ..tensor import Tensor
from ..tensor.random import Generator
from .arrays import Array, as_array, count_rows, map_leaves, named_leaves

Rows = NDArray[np.int64]


def held_back_rows(labels: Array, share: float, generator: Generator) -> NDArray[np.bool_]:
    """Which rows are held back: about `share` of every label, drawn at random; a label of one row is kept."""
    chosen = np.zeros(len(labels), bool)
    order = generator.permutation(len(labels)).numpy()
    owed = 0.0
    for rows in _by_label(labels[order]):
        # What rounding took from one label is given to the next, so that the sum comes out right.
        owed += len(rows) * share
        count = min(round(owed), len(rows) - 1) if len(rows) > 1 else 0
        owed -= count
        chosen[order[rows[:count]]] = True
    return chosen


def _by_label(labels: Array) -> Iterator[Rows]:
    """Positions of each label, in the order of the labels."""
    order = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(labels[order][1:] != labels[order][:-1]) + 1
    yield from np.split(order, ends)


def train_test_split(
    *arrays: Any,
    test_size: float | int | None = None,
    stratify: Any = None,
    seed: int = 0,
    shuffle: bool = True,
    **unknown: Any,
) -> list[Any]:
    """Every array in two parts, training rows and test rows: `x, x_test, y, y_test = train_test_split(x, y)`.

    arrays: arrays, tensors, lists, tables, data sets, or tuples and dicts of them, with as many rows each; parts are of
        the same type. test_size: a share of the rows (0.25 by default) or their number, rounded up as in scikit-learn.
    stratify: labels, texts or whole numbers, of which each keeps its share in both parts; a label of one row trains.
    seed: the same seed gives the same rows on every machine. shuffle: False takes the last rows as test rows.
    Raises DataError for rows that differ in number or are too few, ArgumentError for the rest.

    >>> labels = np.arange(10) % 2
    >>> x, x_test, y, y_test = train_test_split(np.arange(10), labels, test_size=0.4, stratify=labels)
    >>> x.shape, x_test.shape, sorted(y_test.tolist())
    ((6,), (4,), [0, 0, 1, 1])
    """
    for name in unknown:
        advice = {"random_state": "Write seed=", "train_size": "Write test_size="}.get(name, "Leave it out")
        raise ArgumentError(f"train_test_split has no argument {name!r}. {advice}")
    if not arrays:
        raise ArgumentError("train_test_split needs an array; got none. Write train_test_split(X, y)")
    leaves = [leaf for place, one in enumerate(arrays) for leaf in named_leaves(one, f"array {place}")]
    for name, leaf in leaves:
        if not hasattr(leaf, "__len__") or not hasattr(leaf, "__getitem__"):
            raise DataError(
                f"train_test_split needs rows; got {type(leaf).__name__} for {name}. Give an array"
            )
    rows = count_rows(leaves)
    count = _test_rows(test_size, rows)
    if stratify is not None and not shuffle:
        raise ArgumentError("stratify draws rows at random; got shuffle=False. Leave one of them out")
    chosen = _chosen(rows, count, stratify, seed, shuffle)
    places = np.arange(rows) if not shuffle else Generator(seed).permutation(rows).numpy()
    training, test = places[~chosen[places]], places[chosen[places]]
    return [part for one in arrays for part in (_part(one, training), _part(one, test))]


def _part(tree: Any, places: Rows) -> Any:
    return map_leaves(tree, lambda leaf, _: _rows(leaf, places), "")


def _test_rows(size: float | int | None, rows: int) -> int:
    size = 0.25 if size is None else size
    if isinstance(size, bool) or not isinstance(size, int | float) or size <= 0:
        raise ArgumentError(f"test_size must be a share below 1 or a number of rows; got {size!r}. Try 0.25")
    count = math.ceil(size * rows - 1e-9) if isinstance(size, float) else size
    if (isinstance(size, float) and size >= 1) or (isinstance(size, int) and size >= rows > 1):
        raise ArgumentError(
            f"test_size must leave rows to train on, as a share below 1 or fewer than {rows} rows; got {size}"
        )
    if not 0 < count < rows:
        raise DataError(f"two parts need at least two rows; got {rows} rows and test_size {size}. Add rows")
    return count


def _chosen(rows: int, count: int, stratify: Any, seed: int, shuffle: bool) -> NDArray[np.bool_]:
    """Which rows are test rows."""
    chosen = np.zeros(rows, bool)
    if not shuffle:
        chosen[rows - count :] = True
        return chosen
    generator = Generator(seed)
    if stratify is None:
        chosen[generator.permutation(rows).numpy()[:count]] = True
        return chosen
    labels = np.asarray(stratify.detach().numpy() if isinstance(stratify, Tensor) else stratify)
    if labels.shape[:1] != (rows,) or labels.size != rows:
        raise DataError(f"stratify needs one label for each of {rows} rows; got shape {labels.shape}")
    if labels.dtype.kind == "f":
        as_array(labels, "stratify")
    if labels.dtype.kind == "O":
        labels = labels.astype(str)
    _, codes = np.unique(labels.reshape(-1), return_inverse=True)
    several = int((np.bincount(codes) > 1).sum())
    if not several or count < several:
        raise DataError(
            f"stratify needs a test row for each label of several rows; got {count} test rows and {several} such "
            "labels. Use a larger test_size, or leave stratify out"
        )
    return held_back_rows(codes, count / rows, generator)


def _rows(leaf: Any, places: Rows) -> Any:
    """The rows at these places, in the type that they came in."""
    if hasattr(leaf, "iloc"):
        return leaf.iloc[places]
    if hasattr(leaf, "subset"):
        if getattr(leaf, "ordered", False):
            raise ArgumentError(
                f"windows may overlap, so rows drawn at random would leak; got {type(leaf).__name__}. Write "
                "training, test = windows.split(0.2)"
            )
        return leaf.subset(places)
    if isinstance(leaf, Tensor | np.ndarray):
        return leaf[places]
    if isinstance(leaf, list):
        return [leaf[place] for place in places.tolist()]
    return np.asarray(leaf)[places]
