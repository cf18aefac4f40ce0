"""Batches of sequences of like length, filled up to a few lengths only: little padding, and few shapes to compile for.

The rows keep the random order of the epoch within their bucket; what is left over in a bucket goes on to the next
longer one, so that only the last batch of an epoch may be smaller. The order is a pure function of (seed, number of
the epoch).
Knows lengths and orders; knows nothing of what the sequences are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError
from .arrays import Array
from .datasets import Dataset, DatasetSource, Rows
from .sources import epoch_order

# Sets the order of the batches apart from that of the rows.
_BATCHES = 1 << 31


def padded_lengths(lengths: NDArray[np.int64], buckets: Any, multiple_of: int | None) -> tuple[int, ...]:
    """The lengths that batches are filled up to, ascending; the last one holds the longest sequence.

    buckets: how many, as even as the rows allow; or the lengths themselves; or None: all multiples of `multiple_of`.

    >>> padded_lengths(np.array([1, 2, 3, 9, 10, 30]), 3, None), padded_lengths(np.array([3, 17]), None, 8)
    ((3, 10, 30), (8, 16, 17))
    """
    longest = int(lengths.max())
    if buckets is None:
        bounds = list(range(multiple_of or 1, longest, multiple_of or 1))
    elif isinstance(buckets, int) and not isinstance(buckets, bool):
        shares = np.arange(1, buckets + 1) / max(1, buckets)
        bounds = np.quantile(lengths, shares, method="higher").astype(int).tolist() if buckets > 0 else [0]
    elif isinstance(buckets, Sequence | np.ndarray) and not isinstance(buckets, str):
        bounds = [one.item() if isinstance(one, np.integer) else one for one in buckets]
    else:
        bounds = [0]
    whole = all(isinstance(one, int) and not isinstance(one, bool) for one in bounds)
    if not whole or any(one < 1 for one in bounds):
        raise ArgumentError(
            f"bucket_by_length must be a number of buckets from 1, or the lengths that they are filled up to; got "
            f"{buckets!r}"
        )
    if multiple_of is not None:
        bounds = [-(-one // multiple_of) * multiple_of for one in bounds]
    return tuple(sorted({min(one, longest) for one in (*bounds, longest)}))


class BucketSource(DatasetSource):
    """Batches of a data set whose rows have `lengths`, each batch of rows of one bucket.

    >>> import chainrule as cr
    >>> words = cr.data.SequenceDataset([[1] * n for n in (1, 9, 2, 8, 1, 9)], [0] * 6)
    >>> source = BucketSource(words.padded_to((2, 9)), (2, 9), 3)
    >>> [batch.inputs[0].shape for batch in source.epoch(1)] in ([(3, 2), (3, 9)], [(3, 9), (3, 2)])
    True
    """

    def __init__(
        self,
        dataset: Dataset,
        bounds: Sequence[int],
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        weights: Array | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(dataset, batch_size, shuffle, seed, drop_last, weights, num_workers)
        assert dataset.lengths is not None
        self.bounds = tuple(bounds)
        self._bucket = np.searchsorted(self.bounds, dataset.lengths)

    def order(self, number: int) -> Rows:
        """The order of the rows in epoch `number`, shape (rows,), int64: batch after batch."""
        rows, size = super().order(number), self.batch_size
        full: list[Rows] = []
        left = rows[:0]
        for bucket in range(len(self.bounds)):
            here = np.concatenate([left, rows[self._bucket[rows] == bucket]])
            count = len(here) // size
            full += [here[k * size : (k + 1) * size] for k in range(count)]
            left = here[count * size :]
        if self.shuffle and full:
            full = [full[k] for k in epoch_order(len(full), self.seed, number ^ _BATCHES)]
        return np.concatenate([*full, left])

    def fingerprint(self) -> str:
        """A digest of the data set and of how it is cut into batches; empty where the data set has none."""
        whole = super().fingerprint()
        return hashlib.sha256(f"{whole} {self.bounds}".encode()).hexdigest() if whole else ""


def dataset_source(
    dataset: Dataset, buckets: int | Sequence[int] | None, multiple_of: int | None, *cut: Any
) -> DatasetSource:
    """Batches of a data set, of sequences of like length if so many buckets are wanted. cut: as in DatasetSource."""
    if buckets is None and multiple_of is None:
        return DatasetSource(dataset, *cut)
    lengths = dataset.lengths
    if lengths is None or not len(lengths):
        return DatasetSource(dataset.padded_to(()), *cut)  # which says what is wrong
    bounds = padded_lengths(lengths, buckets, multiple_of)
    padded = dataset.padded_to(bounds)
    return DatasetSource(padded, *cut) if buckets is None else BucketSource(padded, bounds, *cut)
