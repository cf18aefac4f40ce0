"""Batches of tensors, to be looped over: `DataLoader`.

Knows sources of batches; knows nothing of models, losses and training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError
from ..graph import constant
from ..tensor import Tensor, wrap
from .arrays import Array, as_arrays, count_rows, map_leaves, named_leaves
from .bucketing import dataset_source
from .datasets import AugmentedSource, Dataset, DatasetSource, is_items, read_items
from .sources import ArraySource, Batch, Source
from .weights import as_sample_weight


class DataLoader:
    """Batches of tensors, to be looped over: `for x, y in DataLoader((X, y), batch_size=32, shuffle=True)`.

    data: an array, tensor, list of rows or table, or a tuple or dict of them with as many rows each; each batch is
        of the same form. A tuple of two is (inputs, targets) for `fit`. Or a `data.Dataset` (`ImageFolder` …), whose
        rows are made when their batch comes. Or what PyTorch calls a data set: an object with `__len__` and
        `__getitem__`, whose items are read once, into memory.
    batch_size, shuffle, drop_last: as in PyTorch. seed: the order of the rows in the n-th loop over the loader is a
        pure function of (seed, n), on every machine; `set_epoch(n)` says which one comes next.
    sample_weight: (rows,): how much each row's loss counts; batches of (x, y) become (x, y, weights).
    augment: a random change of the inputs, or a list of them (`RandomHorizontalFlip` …); a function of (seed, n, row).
        Left out where the loader is for evaluation.
    bucket_by_length: for a `data.SequenceDataset`: how many lengths its batches are filled up to, or those lengths. A
        batch then has sequences of like length, and a compiled step meets no more shapes than buckets, and one for the
        smaller last batch. What a bucket has left over goes to the next longer one. Rows and batches come in an order
        that is a function of (seed, n).
    pad_to_multiple_of: lengths of batches are multiples of it, in place of the data set's own `multiple_of`.
    num_workers: for a `data.Dataset`, how many threads make the next batches while this one is used. The batches are
        the same for any number.
    Raises DataError for data that are no finite numbers, ArgumentError for the rest.

    >>> loader = DataLoader(([[1.0], [2.0], [3.0]], [0, 1, 0]), batch_size=2)
    >>> [(x.shape, y.tolist()) for x, y in loader], len(loader)
    ([((2, 1), [0, 1]), ((1, 1), [0])], 2)
    """

    def __init__(
        self,
        data: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        seed: int = 0,
        sample_weight: Any = None,
        augment: Any = None,
        bucket_by_length: int | Sequence[int] | None = None,
        pad_to_multiple_of: int | None = None,
        num_workers: int = 0,
        **unknown: Any,
    ) -> None:
        _refuse_unknown(unknown)
        _check_whole("batch_size", batch_size, 1)
        _check_whole("num_workers", num_workers, 0)
        if isinstance(data, DataLoader):
            raise ArgumentError("DataLoader takes arrays; got a DataLoader. Loop over that one")
        self._pair = True
        self._base: ArraySource | DatasetSource
        if pad_to_multiple_of is not None:
            _check_whole("pad_to_multiple_of", pad_to_multiple_of, 1)
        if isinstance(data, Dataset):
            weights = None if sample_weight is None else as_sample_weight(sample_weight, len(data))
            cut = (batch_size, shuffle, seed, drop_last, weights, num_workers)
            self._base = dataset_source(data, bucket_by_length, pad_to_multiple_of, *cut)
        elif bucket_by_length is not None or pad_to_multiple_of is not None:
            raise ArgumentError(
                f"sequences are filled up batch by batch out of a data set; got {type(data).__name__}. Write "
                "DataLoader(data.SequenceDataset(sequences, targets), …)"
            )
        else:
            self._base = self._of_arrays(
                data, sample_weight, num_workers, batch_size, shuffle, seed, drop_last
            )
        self._source = self._base if augment is None else AugmentedSource(self._base, augment, seed)
        self._next = 1
        self.preparation = getattr(data, "preparation", None)
        self.rows: int | None = self._base.rows
        self.batches: int | None = self._base.batches

    def _of_arrays(self, data: Any, sample_weight: Any, num_workers: int, *cut: Any) -> ArraySource:
        if num_workers:
            raise ArgumentError(
                f"num_workers is for a data.Dataset; got {num_workers} for arrays. Leave it out: batches are cut from "
                "arrays in memory, which takes no workers"
            )
        arrays = as_arrays(read_items(data) if is_items(data) else data, "data")
        rows = count_rows(named_leaves(arrays, "data"))
        self._pair = isinstance(arrays, tuple) and len(arrays) == 2
        weights = None if sample_weight is None else as_sample_weight(sample_weight, rows)
        if weights is not None and not self._pair:
            raise ArgumentError("sample_weight needs data of the form (X, y); got another. Write (X, y)")
        inputs, targets = arrays if self._pair else (arrays, None)
        return ArraySource(inputs, targets, weights, *cut)

    @property
    def plain(self) -> Source:
        """The batches without random changes, for evaluation."""
        return self._base

    def __len__(self) -> int:
        return self._base.batches

    def __iter__(self) -> Iterator[Any]:
        number, self._next = self._next, self._next + 1
        return map(self._shown, self._source.epoch(number))

    def _shown(self, batch: Batch) -> Any:
        """A batch as the user gets it: tensors in the form of the data."""
        inputs = map_leaves(batch.inputs, _tensor, "data")
        if not self._pair:
            return inputs
        parts = (inputs, map_leaves(batch.targets, _tensor, "data"))
        return parts if batch.weights is None else (*parts, _tensor(batch.weights, "weights"))

    def set_epoch(self, number: int) -> None:
        """The next loop over the loader takes the order of epoch `number` (from 1)."""
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number < 1 << 32:
            raise ArgumentError(f"set_epoch needs a whole number from 1; got {number!r}")
        self._next = number

    def order(self, number: int) -> NDArray[np.int64]:
        """The order of the rows in epoch `number`, shape (rows,), int64."""
        return self._source.order(number)

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number` (from 1) without the first `skip`, as arrays; `fit` asks for them."""
        return self._source.epoch(number, skip)

    def fingerprint(self) -> str:
        """A digest of the data and of how they are cut into batches."""
        return self._source.fingerprint()

    def state_dict(self) -> dict[str, Any]:
        """The number of the epoch that comes next; the order follows from it."""
        return {"epoch": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the epoch that `state_dict` named."""
        self.set_epoch(state["epoch"])

    def __repr__(self) -> str:
        source = self._base
        return f"DataLoader({source.rows} rows in {source.batches} batches of {source.batch_size})"


def _tensor(array: Array, _: str) -> Tensor:
    return wrap(constant(array))


# PyTorch's arguments that have no counterpart, with what to do.
_ADVICE = {
    "pin_memory": "Leave it out: tensors live in the memory of the CPU",
    "generator": "Write seed=: the order of an epoch is a pure function of it",
    "sampler": "Give the rows in that order, or an iterable of batches to fit",
    "batch_sampler": "Give fit an iterable of batches",
    "group_by_length": "Write bucket_by_length=4, with a data.SequenceDataset",
    "collate_fn": "Give fit an iterable of batches",
    "weights": "Write sample_weight=",
    **dict.fromkeys(("transform", "transforms", "augmentation"), "Write augment="),
}


def _check_whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ArgumentError(f"{name} must be a whole number from {least}; got {value!r}")


def _refuse_unknown(unknown: dict[str, Any]) -> None:
    for name in unknown:
        advice = _ADVICE.get(
            name,
            "It takes batch_size, shuffle, drop_last, seed, sample_weight, augment, bucket_by_length, "
            "pad_to_multiple_of and num_workers",
        )
        raise ArgumentError(f"DataLoader has no argument {name!r}. {advice}")
