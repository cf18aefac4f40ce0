"""Where batches of rows come from: in an order that is data, so that a resumed run meets the same batches.

The order of an epoch is a pure function of (seed, number of the epoch), from the same counter-based bits in every
engine and on every machine; nothing has to be stored to find it again.
Knows arrays and iterables; knows nothing of data sets, models, losses and training.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..elsewhere import unfit_call
from ..errors import ArgumentError, ChainruleError, DataError
from ..ops import random_bits
from ..tensor.random import Generator
from .arrays import Array, as_arrays, count_rows, map_leaves, named_leaves
from .weights import as_sample_weight

# The word that sets the keys of epochs apart from everything else that is drawn from a seed.
_EPOCHS = 0x65706F63

_CHUNK = 1 << 24


class Batch(NamedTuple):
    """Rows that go through the model together.

    inputs, targets: arrays, or tuples and dicts of them; targets is None where there are none.
    weights: (rows,) or None. rows: how many there are.
    """

    inputs: Any
    targets: Any
    weights: Array | None
    rows: int


@runtime_checkable
class Source(Protocol):
    """Where batches come from. rows and batches: those of one epoch, None where they are not known before."""

    @property
    def rows(self) -> int | None:
        """Rows of one epoch."""

    @property
    def batches(self) -> int | None:
        """Batches of one epoch."""

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number` (from 1) without the first `skip`."""

    def fingerprint(self) -> str:
        """A digest of all that decides the batches; the empty string where that cannot be known."""


def epoch_order(rows: int, seed: int, number: int) -> NDArray[np.int64]:
    """The numbers 0 … rows − 1 in the random order of epoch `number`, int64: a pure function of the three.

    >>> sorted(epoch_order(4, seed=0, number=1).tolist())
    [0, 1, 2, 3]
    """
    generator = Generator(seed)
    low, high, _, _ = generator.get_state()
    # The epoch's own key: one block of Threefry under the seed's key, at the place of the epoch.
    words = random_bits(np.array([low, high, number, _EPOCHS], np.uint32), size=2)
    generator.set_state([int(words[0]), int(words[1]), 0, 0])
    order: NDArray[np.int64] = generator.permutation(rows).numpy()
    return order


class ArraySource:
    """Batches of arrays in memory.

    inputs, targets: arrays, or tuples and dicts of them, with as many rows each; targets may be None.
    weights: (rows,) or None. The last batch is smaller where the rows do not divide, or left out by `drop_last`.

    >>> source = ArraySource(np.arange(5), np.arange(5), batch_size=2, shuffle=False)
    >>> [batch.inputs.tolist() for batch in source.epoch(1)], source.batches
    ([[0, 1], [2, 3], [4]], 3)
    """

    def __init__(
        self,
        inputs: Any,
        targets: Any,
        weights: Array | None = None,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        self.inputs = map_leaves(inputs, lambda leaf, _: np.ascontiguousarray(leaf), "X")
        self.targets = None
        leaves = named_leaves(self.inputs, "X")
        if targets is not None:
            self.targets = map_leaves(targets, lambda leaf, _: np.ascontiguousarray(leaf), "y")
            leaves += named_leaves(self.targets, "y")
        self.weights = None if weights is None else np.ascontiguousarray(weights)
        if self.weights is not None:
            leaves.append(("the weights", self.weights))
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        #: What made the rows out of raw data, where that is known.
        self.preparation: Any = None
        self.rows: int = count_rows(leaves)
        self.batches: int = self.rows // batch_size if drop_last else -(-self.rows // batch_size)
        self._leaves = leaves
        if not self.batches:
            raise DataError(
                f"drop_last leaves no batch: got {self.rows} rows for batches of {batch_size}. Use a smaller "
                "batch_size"
            )

    def order(self, number: int) -> NDArray[np.int64]:
        """The order of the rows in epoch `number`, shape (rows,), int64."""
        return epoch_order(self.rows, self.seed, number) if self.shuffle else np.arange(self.rows)

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number` without the first `skip`. Every batch has arrays of its own."""
        order = self.order(number)
        for place in range(skip, self.batches):
            yield self.take(order[place * self.batch_size : (place + 1) * self.batch_size])

    def take(self, rows: NDArray[np.int64]) -> Batch:
        """The rows at these positions as one batch."""

        def gather(leaf: Array, _: str) -> Array:
            return leaf.take(rows, axis=0)

        return Batch(
            map_leaves(self.inputs, gather, "X"),
            None if self.targets is None else map_leaves(self.targets, gather, "y"),
            None if self.weights is None else self.weights.take(rows),
            len(rows),
        )

    def fingerprint(self) -> str:
        """SHA-256 of names, dtypes, shapes and bytes of all arrays, and of how they are cut into batches."""
        found = hashlib.sha256(f"{self.batch_size} {self.shuffle} {self.seed} {self.drop_last}\0".encode())
        add_arrays(found, self._leaves)
        return found.hexdigest()


def add_arrays(digest: Any, leaves: Iterable[tuple[str, Array]]) -> None:
    """Add names, dtypes, shapes and bytes of arrays to a digest of `hashlib`."""
    for name, array in leaves:
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for start in range(0, len(data), _CHUNK):
            digest.update(data[start : start + _CHUNK])


class IterableSource:
    """Batches that somebody else makes: each item is (inputs, targets) or (inputs, targets, weights).

    batches: an iterable, asked anew for every epoch; or a callable, called with the number of the epoch. A generator
    or iterator lasts for one epoch: a second one raises DataError.

    >>> source = IterableSource(lambda epoch: [([[1.0]], [0]), ([[2.0]], [1])])
    >>> [batch.rows for batch in source.epoch(1)]
    [1, 1]
    """

    rows: int | None = None

    def __init__(self, batches: Iterable[Any] | Callable[[int], Iterable[Any]]) -> None:
        if not callable(batches) and not hasattr(batches, "__iter__"):
            raise ArgumentError(
                f"batches come from an iterable, or a function of the epoch's number; got {type(batches).__name__}. "
                "Give (X, y), or a list of batches (x, y)"
            )
        if callable(batches) and (taken := unfit_call(batches, 1)) is not None:
            raise ArgumentError(
                f"a function of batches is called with the number of the epoch; got one that takes {taken}. Write "
                "lambda epoch: batches()"
            )
        self._made = batches
        self._spent = False
        try:
            self.batches: int | None = len(batches)  # type: ignore[arg-type]
        except TypeError:
            self.batches = None

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`; the first `skip` are drawn and left out."""
        once = not callable(self._made) and iter(self._made) is self._made
        if once and self._spent:
            raise DataError(
                f"a generator of batches lasts for one epoch; got a second use of it, in epoch {number}. Give a "
                "function of the epoch's number that makes one: lambda epoch: batches()"
            )
        self._spent = True
        items = self._made(number) if callable(self._made) else self._made
        for place, item in enumerate(itertools.islice(items, skip, None), skip + 1):
            try:
                batch = as_batch(item)
            except DataError as error:
                raise at_batch(error, place, number) from error
            yield batch

    def fingerprint(self) -> str:
        """SHA-256 of a list of batches; the empty string for others: what they will give is not known before."""
        if not isinstance(self._made, list | tuple):
            return ""
        found = hashlib.sha256()
        try:
            for item in self._made:
                batch = as_batch(item)
                add_arrays(found, [*named_leaves(batch.inputs, "X"), *named_leaves(batch.targets, "y")])
                add_arrays(found, [] if batch.weights is None else [("the weights", batch.weights)])
        except ChainruleError:  # it is told when training comes to that batch
            return ""
        return found.hexdigest()


def at_batch(error: DataError, place: int, epoch: int) -> DataError:
    """The fault of a batch, with where it was met."""
    return DataError(f"in batch {place} of epoch {epoch}: {error.message}")


def as_batch(item: Any) -> Batch:
    """(inputs, targets) or (inputs, targets, weights) as arrays. DataError for anything else."""
    if isinstance(item, Batch):
        return item
    if not isinstance(item, tuple | list) or len(item) not in (2, 3):
        shown = (
            f"{type(item).__name__} of {len(item)}" if isinstance(item, tuple | list) else type(item).__name__
        )
        raise DataError(f"a batch is (x, y) or (x, y, weights); got {shown}. Yield tuples of that form")
    inputs, targets = as_arrays(item[0], "X"), as_arrays(item[1], "y")
    rows = count_rows(named_leaves(inputs, "X") + named_leaves(targets, "y"))
    weights = None if len(item) == 2 or item[2] is None else as_sample_weight(item[2], rows, batch=True)
    return Batch(inputs, targets, weights, rows)
