"""Sequences of different lengths as one array, filled up to one length, with the lengths beside it.

Knows arrays; knows nothing of what the sequences are and of training.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..elsewhere import checked
from ..errors import ArgumentError, DataError
from ..tensor import Tensor
from .arrays import Array, as_array
from .datasets import Dataset, Rows

_SIDES = ("post", "pre")


class Padded(NamedTuple):
    """Sequences in one array: values (N, length, …), and how long each was, int64 (N,).

    >>> import chainrule as cr
    >>> values, lengths = cr.data.pad_sequences([[1, 2, 3], [4]])
    >>> values.shape, lengths.tolist()
    ((2, 3), [3, 1])
    """

    values: Array
    lengths: NDArray[np.int64]


@checked({
    "batch_first": "Leave it out: the rows are the first axis", "padding_value": "Use value=",
    "padding_side": "Use padding='post' (right) or 'pre' (left)", "max_length": "Use maxlen=",
})  # fmt: skip
def pad_sequences(
    sequences: Sequence[Any],
    maxlen: int | None = None,
    *,
    value: float = 0,
    padding: str = "post",
    truncating: str = "post",
    dtype: DTypeLike | None = None,
) -> Padded:
    """Sequences (length, …) as one array (N, longest, …), filled up with `value`; and their lengths.

    maxlen: the length of all; longer sequences are cut. padding, truncating: "post" fills up and cuts at the end, as
    recurrent layers with `lengths` need it, "pre" at the beginning (the default of Keras). dtype: by default that of
    the sequences together. Raises DataError for an empty sequence, and for further axes that differ.

    >>> pad_sequences([[1, 2, 3], [4]])
    Padded(values=array([[1, 2, 3],
           [4, 0, 0]]), lengths=array([3, 1]))
    """
    for name, side in (("padding", padding), ("truncating", truncating)):
        if side not in _SIDES:
            raise ArgumentError(
                f"{name} must be 'post' (at the end) or 'pre' (at the beginning); got {side!r}"
            )
    if maxlen is not None and (not isinstance(maxlen, int) or isinstance(maxlen, bool) or maxlen < 1):
        raise ArgumentError(f"maxlen must be a whole number from 1; got {maxlen!r}")
    rows = [_row(one, place) for place, one in enumerate(sequences)]
    if not rows:
        raise DataError("pad_sequences needs sequences; got none")
    for place, one in enumerate(rows):
        if one.shape[1:] != rows[0].shape[1:]:
            raise DataError(
                f"sequences may differ in length only; got {rows[0].shape} for sequence 0 and {one.shape} for "
                f"sequence {place}"
            )
    if maxlen is not None:
        rows = [one[:maxlen] if truncating == "post" else one[-maxlen:] for one in rows]
    lengths = np.array([len(one) for one in rows], np.int64)
    kind = np.dtype(dtype) if dtype is not None else np.result_type(*{one.dtype for one in rows})
    values = np.full((len(rows), maxlen or int(lengths.max()), *rows[0].shape[1:]), value, kind)
    if not np.array_equal(values[:1, :1].astype(np.float64), np.full_like(values[:1, :1], value, np.float64)):
        raise ArgumentError(f"value must be a number of {kind.name}; got {value!r}. Write dtype=")
    for target, one in zip(values, rows):
        target[slice(len(one)) if padding == "post" else slice(len(target) - len(one), None)] = one
    return Padded(values, lengths)


def _row(sequence: Any, place: int) -> Array:
    if isinstance(sequence, str | bytes):
        raise DataError(
            f"sequences are of numbers; got a text for sequence {place}. Use Vocabulary(…).encode(text)"
        )
    array = sequence.detach().numpy() if isinstance(sequence, Tensor) else np.asarray(sequence)
    if not array.ndim:
        raise DataError(f"a sequence has an axis at least; got the number {sequence!r} for sequence {place}")
    if not len(array):
        raise DataError(f"a sequence has a step at least; got none in sequence {place}. Leave it out")
    return as_array(array, f"sequence {place}")


class SequenceDataset(Dataset):
    """Sequences of different lengths with their targets; each batch is filled up to its own longest one.

    The inputs of a batch are (values, lengths), so a model is called as model(values, lengths).
    sequences: arrays or lists (length, …). targets: one number, array … for each sequence; or one for each of its
        steps, which are filled up with `ignore_index`, the class that `cross_entropy` leaves out.
    value: what fills the sequences up. multiple_of: lengths of batches are multiples of it, so that a compiled step
        meets few shapes; the longest one counts where it is less.

    >>> data = SequenceDataset([[1, 2, 3], [4], [5, 6]], [0, 1, 0], multiple_of=2)
    >>> (values, lengths), y = data.take(np.array([1, 2]))
    >>> values.tolist(), lengths.tolist(), y.tolist()
    ([[4, 0], [5, 6]], [1, 2], [1, 0])
    """

    def __init__(
        self,
        sequences: Sequence[Any],
        targets: Any,
        *,
        value: float = 0,
        multiple_of: int = 8,
        ignore_index: int = -100,
    ) -> None:
        self.sequences = [_row(one, place) for place, one in enumerate(sequences)]
        pad_sequences(
            [one[:1] for one in self.sequences], value=value
        )  # told now what would fail in some batch
        self.value, self.ignore_index = value, ignore_index
        if not isinstance(multiple_of, int) or isinstance(multiple_of, bool) or multiple_of < 1:
            raise ArgumentError(f"multiple_of must be a whole number from 1; got {multiple_of!r}")
        self.multiple_of = multiple_of
        if len(targets) != len(self.sequences):
            raise DataError(
                f"sequences and targets need as many rows; got {len(self.sequences)} and {len(targets)}. Check how "
                "they were made"
            )
        self._steps: list[Array] | None = None
        if self._one_for_each_step(targets):
            self._steps = [_row(one, place) for place, one in enumerate(targets)]
        else:
            self.targets = as_array(targets, "targets")
        self._lengths = np.array([len(one) for one in self.sequences], np.int64)
        self._bounds: NDArray[np.int64] | None = None

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How long each sequence is, int64 (N,)."""
        return self._lengths

    def padded_to(self, lengths: Sequence[int]) -> SequenceDataset:
        """The same sequences, in batches that are filled up to the least of these lengths that holds them.

        A batch with a longer sequence is filled up as before. The sequences themselves are shared.
        """
        found = copy.copy(self)
        found._bounds = np.array(sorted(lengths), np.int64)
        return found

    def _filled_up(self, longest: int) -> int:
        """The length of a batch whose longest sequence is so long."""
        if self._bounds is not None and longest <= self._bounds[-1]:
            return int(self._bounds[np.searchsorted(self._bounds, longest)])
        return min(-(-longest // self.multiple_of) * self.multiple_of, int(self._lengths.max()))

    def _one_for_each_step(self, targets: Any) -> bool:
        lengths = [np.shape(one)[:1] for one in targets]
        if any(not one for one in lengths):
            return False
        wrong = [k for k, one in enumerate(self.sequences) if lengths[k] != (len(one),)]
        if wrong and len(set(lengths)) > 1:
            place = wrong[0]
            raise DataError(
                f"targets of steps need one for each; got {lengths[place][0]} for the "
                f"{len(self.sequences[place])} steps of sequence {place}"
            )
        return not wrong

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> tuple[Array, Any]:
        return self.sequences[index], (self.targets if self._steps is None else self._steps)[index]

    def take(self, rows: Rows, epoch: int = 1) -> tuple[Padded, Array]:
        """((values, lengths), targets) of the rows at these positions."""
        chosen = [self.sequences[int(row)] for row in rows]
        length = self._filled_up(max(len(one) for one in chosen))
        values = pad_sequences(chosen, length, value=self.value)
        if self._steps is None:
            return values, self.targets[rows]
        steps = [self._steps[int(row)] for row in rows]
        return values, pad_sequences(steps, length, value=self.ignore_index).values

    def fingerprint(self) -> str:
        """SHA-256 of all sequences and targets, and of how they are filled up."""
        bounds = "" if self._bounds is None else f" {self._bounds.tolist()}"
        found = hashlib.sha256(f"{self.value} {self.multiple_of} {self.ignore_index}{bounds}\0".encode())
        targets = [self.targets] if self._steps is None else self._steps
        for one in (*self.sequences, *targets):
            found.update(f"{one.dtype.str} {one.shape}\0".encode())
            found.update(one.tobytes())
        return found.hexdigest()
