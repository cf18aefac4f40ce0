"""Data sets whose rows are made when they are asked for, and the batches of them.

Knows rows and batches; knows nothing of what the rows are (`images`, `text`, `series` do) and of training.
"""

from __future__ import annotations

import abc
import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, DataError
from ..pytree import flatten, unflatten
from ..tensor import Tensor
from ..tensor.random import Generator
from .arrays import Array, as_arrays, count_rows, named_leaves
from .augmentation import Compose, as_augmentation, described
from .chance import Chance
from .holding import held_back_rows
from .sources import ArraySource, Batch, Source, at_batch, epoch_order

Rows = NDArray[np.int64]


class Dataset(abc.ABC):
    """Rows that are made when they are asked for; `DataLoader`, `cr.fit` and `run.evaluate` take them.

    A class of one's own needs `__len__` and `__getitem__(index)` → (x, y), numbers, arrays or tensors (or tuples and
    dicts of them) of one shape for all rows. They are called anew for each batch, by several threads where the
    DataLoader has `num_workers`, so they should depend on nothing but the index.
    targets: the labels, where they are known without making the rows; then each keeps its share in `split`.
    preparation: what turns raw data into such rows (`Vocabulary` …); a run directory keeps it.

    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 4
    ...     def __getitem__(self, index):
    ...         return [float(index)], index * index
    >>> x, y = Squares().take(np.array([1, 3]))
    >>> x.tolist(), y.tolist()
    ([[1.0], [3.0]], [1, 9])
    """

    targets: Any = None
    preparation: Any = None
    #: Whether neighbouring rows share numbers, as windows do: then `split` cuts what they are windows of.
    ordered: bool = False

    @abc.abstractmethod
    def __len__(self) -> int:
        """The number of rows."""

    @abc.abstractmethod
    def __getitem__(self, index: int) -> Any:
        """One row, (x, y)."""

    def take(self, rows: Rows, epoch: int = 1) -> tuple[Any, Any]:
        """(inputs, targets) of the rows at these positions, as arrays; `epoch` is that of the training."""
        return pair_of(stacked([self[int(row)] for row in rows], type(self).__name__), type(self).__name__)

    def arrays(self) -> tuple[Any, Any]:
        """(inputs, targets) of all rows, in memory."""
        return self.take(np.arange(len(self)))

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        """How long the sequence of each row is, where rows are sequences; `DataLoader(bucket_by_length=…)` asks."""
        return None

    def padded_to(self, lengths: Sequence[int]) -> Dataset:
        """The same rows, in batches that are filled up to one of these lengths; only where rows are sequences."""
        raise ArgumentError(
            f"buckets are for sequences of different lengths; got {type(self).__name__}. Use data.SequenceDataset"
        )

    @property
    def size_in_memory(self) -> int | None:
        """Bytes of `arrays()` where that is the same data in every epoch and cheap to make; else None."""
        return None

    def subset(self, rows: Any) -> Dataset:
        """The rows at these positions, as a data set."""
        return Subset(self, rows)

    def split(self, *sizes: float, seed: int = 0) -> tuple[Dataset, ...]:
        """Parts: one for each of `sizes`, and before them the rest, to train on.

        sizes: shares of the rows, or numbers of rows: `training, test = data.split(0.2)`. Rows are drawn at random, of
        each label its share where `targets` are known; the same seed gives the same rows. DataError for a part without
        rows.
        """
        counts = counts_of(sizes, len(self))
        generator = Generator(seed)
        parts: list[Rows] = []
        left: Rows = np.arange(len(self))
        for count in reversed(counts):
            chosen = self._drawn(left, count, generator)
            parts.insert(0, left[chosen])
            left = left[~chosen]
        return tuple(self.subset(one) for one in (left, *parts))

    def _drawn(self, left: Rows, count: int, generator: Generator) -> NDArray[np.bool_]:
        labels = np.zeros(len(left)) if self.targets is None else np.asarray(self.targets)[left]
        if labels.ndim == 1 and labels.dtype.kind in "iub":
            chosen = held_back_rows(labels, count / len(left), generator)
            if 0 < chosen.sum() < len(left):
                return chosen
        chosen = np.zeros(len(left), bool)
        chosen[generator.permutation(len(left)).numpy()[:count]] = True
        return chosen

    def fingerprint(self) -> str:
        """A digest of all rows; the empty string where that cannot be known."""
        return ""


class Subset(Dataset):
    """Some rows of a data set, by their positions or a mask of bools; torch.utils.data.Subset.

    Raises ArgumentError for what is no positions, DataError for a position that the data set lacks.

    >>> import chainrule as cr
    >>> words = cr.data.SequenceDataset([[1, 2], [3], [4, 5, 6]], [0, 1, 0])
    >>> some = cr.data.Subset(words, [0, 2])
    >>> len(some), some.targets.tolist()
    (2, [0, 0])
    """

    def __init__(self, dataset: Dataset, rows: Any) -> None:
        self.dataset = dataset
        self.rows: Rows = np.asarray(rows)
        if self.rows.dtype == bool:
            self.rows = np.flatnonzero(self.rows)
        if self.rows.ndim != 1 or (self.rows.size and self.rows.dtype.kind not in "iu"):
            raise ArgumentError(
                f"a subset needs positions of rows, one axis; got {self.rows.dtype} {self.rows.shape}"
            )
        self.rows = self.rows.astype(np.int64)
        if self.rows.size and not (self.rows.min() >= 0 and self.rows.max() < len(dataset)):
            raise DataError(
                f"the data set has rows 0 to {len(dataset) - 1}; got {self.rows.min()} to {self.rows.max()}"
            )
        self.targets = None if dataset.targets is None else np.asarray(dataset.targets)[self.rows]
        self.preparation, self.ordered = dataset.preparation, dataset.ordered

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.rows[index])]

    def take(self, rows: Rows, epoch: int = 1) -> tuple[Any, Any]:
        """(inputs, targets) of the rows at these positions."""
        return self.dataset.take(self.rows[rows], epoch)

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        """How long the sequence of each row is, or None."""
        whole = self.dataset.lengths
        return None if whole is None else whole[self.rows]

    def padded_to(self, lengths: Sequence[int]) -> Dataset:
        """The same rows, in batches that are filled up to one of these lengths."""
        return Subset(self.dataset.padded_to(lengths), self.rows)

    @property
    def size_in_memory(self) -> int | None:
        """Bytes of `arrays()`, or None."""
        whole = self.dataset.size_in_memory
        return None if whole is None else whole * len(self) // max(1, len(self.dataset))

    def split(self, *sizes: float, seed: int = 0) -> tuple[Dataset, ...]:
        """Parts as those of the whole; ArgumentError for chosen windows, which may share numbers with each other."""
        if self.ordered:
            raise ArgumentError(
                f"windows may overlap, so the whole is split, by its order; got a subset of "
                f"{type(self.dataset).__name__}. Write windows.split(0.2) first, or validation=None"
            )
        return super().split(*sizes, seed=seed)

    def fingerprint(self) -> str:
        """A digest of the data set and of which rows these are."""
        whole = self.dataset.fingerprint()
        return hashlib.sha256(whole.encode() + self.rows.tobytes()).hexdigest() if whole else ""

    def __getattr__(self, name: str) -> Any:
        # `classes`, `vocabulary` and the like are those of the whole.
        if name.startswith("_") or name in ("dataset", "rows"):
            raise AttributeError(name)
        return getattr(self.dataset, name)


def is_dataset(data: Any) -> bool:
    """Whether the data are a data set whose rows are made when they are asked for."""
    return isinstance(data, Dataset)


def is_items(data: Any) -> bool:
    """Whether the data are an object that gives one row at a time, such as a data set of PyTorch's."""
    known = (
        isinstance(data, list | tuple | dict | str | bytes | Tensor | Dataset | Source)
        or hasattr(data, "__array__")
        or hasattr(data, "iloc")
    )
    return not known and hasattr(data, "__getitem__") and hasattr(data, "__len__")


def read_items(data: Any) -> Any:
    """All items in arrays: a tuple or dict of them if an item is one."""
    return stacked([data[place] for place in range(len(data))], type(data).__name__)


def stacked(items: Sequence[Any], name: str) -> Any:
    """Items as arrays with a row for each. DataError if there are none, or if their shapes differ."""
    if not items:
        raise DataError(f"DataLoader needs rows; got {name} without items. Check how it was made")
    leaves, structures = zip(*(flatten(_plain(one)) for one in items))
    plain = [
        [one.detach().numpy() if isinstance(one, Tensor) else np.asarray(one) for one in row]
        for row in leaves
    ]
    try:
        columns = [np.stack(column) for column in zip(*plain, strict=True)]
    except ValueError as error:
        raise DataError(f"items need one shape; got {name}: {error}. Pad them to one length") from error
    return unflatten(structures[0], columns)


def _plain(item: Any) -> Any:
    """An item whose lists are rows of numbers, as everywhere in this room; tuples and dicts are branches."""
    if isinstance(item, tuple) and not hasattr(item, "_fields"):
        return tuple(_plain(one) for one in item)
    if isinstance(item, dict):
        return {key: _plain(one) for key, one in item.items()}
    return np.asarray(item) if isinstance(item, list) else item


def pair_of(arrays: Any, name: str) -> tuple[Any, Any]:
    """Arrays of items that are pairs (x, y)."""
    if not isinstance(arrays, tuple) or len(arrays) != 2:
        shown = f"tuple of {len(arrays)}" if isinstance(arrays, tuple) else type(arrays).__name__
        raise DataError(f"an item of a data set must be a pair (x, y); got a {shown} from {name}[0]")
    return arrays


def counts_of(sizes: Sequence[float], rows: int) -> list[int]:
    """How many rows each part has, from shares and numbers. ArgumentError or DataError for parts that cannot be."""
    if not sizes:
        raise ArgumentError("split needs the size of a part at least; got none. Write data.split(0.2)")
    counts = []
    for size in sizes:
        share = isinstance(size, float | np.floating)
        if (
            isinstance(size, bool)
            or not isinstance(size, int | float | np.number)
            or not size > 0
            or (share and size >= 1)
        ):
            raise ArgumentError(
                f"a size must be a share between 0 and 1, or a number of rows; got {size!r}. Try 0.2"
            )
        counts.append(max(1, round(size * rows)) if share else int(size))
    if sum(counts) >= rows:
        raise DataError(
            f"every part needs a row at least; got {rows} rows for parts of {', '.join(map(str, counts))} and a rest"
        )
    return counts


# ------------------------------------------------------------------------------------------- batches


class DatasetSource:
    """Batches of a data set, each made when its turn comes; `num_workers` threads make the next ones meanwhile.

    The order is that of `ArraySource`, so the batches do not depend on the threads.

    >>> class Numbers(Dataset):
    ...     def __len__(self):
    ...         return 5
    ...     def __getitem__(self, index):
    ...         return index, index
    >>> [batch.inputs.tolist() for batch in DatasetSource(Numbers(), 2, shuffle=False, num_workers=2).epoch(1)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        weights: Array | None = None,
        num_workers: int = 0,
    ) -> None:
        self.dataset = dataset
        self.batch_size, self.shuffle, self.seed, self.drop_last = batch_size, shuffle, seed, drop_last
        self.weights = weights
        self.preparation = dataset.preparation
        self.rows: int = len(dataset)
        self.batches: int = self.rows // batch_size if drop_last else -(-self.rows // batch_size)
        self._workers = num_workers
        if not self.rows:
            raise DataError(
                f"training needs rows; got {type(dataset).__name__} without any. Check how it was made"
            )
        if not self.batches:
            raise DataError(
                f"drop_last leaves no batch: got {self.rows} rows for batches of {batch_size}. Use a smaller batch_size"
            )

    def order(self, number: int) -> Rows:
        """The order of the rows in epoch `number`, shape (rows,), int64."""
        return epoch_order(self.rows, self.seed, number) if self.shuffle else np.arange(self.rows)

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number` without the first `skip`."""
        order, size = self.order(number), self.batch_size
        wanted = [order[place * size : (place + 1) * size] for place in range(skip, self.batches)]
        made = self._ahead(wanted, number) if self._workers else (self.take(one, number) for one in wanted)
        place = skip
        try:
            for batch in made:
                place += 1
                yield batch
        except DataError as error:
            raise at_batch(error, place + 1, number) from error

    def _ahead(self, wanted: list[Rows], number: int) -> Iterator[Batch]:
        """Batches that threads make, a few ahead of the one that is asked for."""
        with ThreadPoolExecutor(self._workers, "batches") as pool:
            pending: deque[Future[Batch]] = deque()
            rest = iter(wanted)
            try:
                for rows in rest:
                    pending.append(pool.submit(self.take, rows, number))
                    if len(pending) > 2 * self._workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:  # the reader may leave early
                for one in pending:
                    one.cancel()

    def take(self, rows: Rows, number: int = 1) -> Batch:
        """The rows at these positions as one batch."""
        found = self.dataset.take(rows, number)
        inputs, targets = as_arrays(found[0], "X"), None if found[1] is None else as_arrays(found[1], "y")
        leaves = named_leaves(inputs, "X") + ([] if targets is None else named_leaves(targets, "y"))
        count = count_rows(leaves)
        if count != len(rows):
            raise DataError(
                f"take must give a row for each position; got {count} for {len(rows)} from "
                f"{type(self.dataset).__name__}"
            )
        return Batch(inputs, targets, None if self.weights is None else self.weights.take(rows), count)

    def fingerprint(self) -> str:
        """A digest of the data set and of how it is cut into batches; empty where the data set has none."""
        whole = self.dataset.fingerprint()
        if not whole:
            return ""
        found = hashlib.sha256(
            f"{whole} {self.batch_size} {self.shuffle} {self.seed} {self.drop_last}".encode()
        )
        if self.weights is not None:
            found.update(self.weights.tobytes())
        return found.hexdigest()


class AugmentedSource:
    """The batches of a source with their inputs changed at random, a function of (seed, epoch, position of the row).

    plain: the source without the changes, which is what evaluation uses.
    """

    def __init__(self, plain: ArraySource | DatasetSource, augment: Any, seed: int) -> None:
        self.plain = plain
        self.augment: Compose = as_augmentation(augment)
        self.seed = seed
        self.preparation = getattr(plain, "preparation", None)
        self.rows, self.batches, self.batch_size = plain.rows, plain.batches, plain.batch_size

    def order(self, number: int) -> Rows:
        """The order of the rows in epoch `number`, shape (rows,), int64."""
        return self.plain.order(number)

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number` without the first `skip`."""
        order, size = self.order(number), self.batch_size
        for place, batch in enumerate(self.plain.epoch(number, skip), skip):
            chance = Chance.of(self.seed, number, order[place * size : (place + 1) * size])
            yield batch._replace(inputs=self._changed(batch, chance))

    def _changed(self, batch: Batch, chance: Chance) -> Any:
        changed = self.augment(batch.inputs, chance)
        leaves = named_leaves(changed, "X")
        if not all(isinstance(leaf, np.ndarray) and len(leaf) == batch.rows for _, leaf in leaves):
            shown = ", ".join(str(getattr(leaf, "shape", type(leaf).__name__)) for _, leaf in leaves)
            raise ArgumentError(
                f"an augmentation must return an array with the {batch.rows} rows that it was given; got {shown} from "
                f"{self.augment!r}"
            )
        return changed

    def fingerprint(self) -> str:
        """A digest of the source and of the changes."""
        whole = self.plain.fingerprint()
        changes = " ".join(described(one) for one in self.augment.changes)
        return hashlib.sha256(f"{whole} {self.seed} {changes}".encode()).hexdigest() if whole else ""


def without_augmentation(source: Source) -> Source:
    """The batches as they are before they are changed at random: what a network is measured by."""
    found = getattr(source, "plain", source)
    return found if isinstance(found, Source) else source
