"""Text as numbers: vocabularies of characters or bytes, and windows of tokens to learn the next one from.

Knows characters and tokens; knows nothing of models and of training.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, DataError
from ..tensor import Tensor
from .chance import Chance
from .datasets import Dataset, Rows, counts_of
from .padding import pad_sequences
from .sources import Batch

Tokens = NDArray[np.int64]

_BYTES = 256


class Vocabulary:
    """Characters with their numbers, from 0; a run directory keeps it with the weights.

    characters: each once, in the order of their numbers. `from_text` takes those of a text, `of_bytes` needs none.
    pad: a name for what fills up short texts, such as "<pad>"; it gets the number 0. unknown: a name for every
        character that is none of these, such as "<unk>"; without it they are errors.

    >>> vocabulary = Vocabulary("abc")
    >>> vocabulary.encode("cab"), vocabulary.decode([1, 0])
    (array([2, 0, 1]), 'ba')
    """

    kind = "vocabulary"

    def __init__(
        self, characters: Iterable[str], *, pad: str | None = None, unknown: str | None = None
    ) -> None:
        self._of_bytes = False
        self._specials = [one for one in (pad, unknown) if one is not None]
        self._codes = np.array([_code(one) for one in characters], np.int64)
        self.pad, self.unknown = pad, unknown
        self._sorted = np.argsort(self._codes, kind="stable")
        ordered = self._codes[self._sorted]
        if not len(ordered):
            raise DataError("a vocabulary needs characters; got none. Check how the text was read")
        if (ordered[1:] == ordered[:-1]).any():
            twice = chr(int(ordered[1:][ordered[1:] == ordered[:-1]][0]))
            raise DataError(
                f"a vocabulary has each character once; got {twice!r} twice. Use Vocabulary.from_text"
            )
        for one in self._specials:
            if not isinstance(one, str) or len(one) < 2 or self._specials.count(one) > 1:
                raise ArgumentError(
                    f"pad and unknown need names of their own, as '<pad>' and '<unk>'; got {one!r}"
                )

    @classmethod
    def from_text(
        cls, text: str, *, pad: str | None = None, unknown: str | None = None, min_count: int = 1
    ) -> Vocabulary:
        """The characters of a text, in the order of their code points; those that occur `min_count` times at least.

        >>> len(Vocabulary.from_text("hello world"))
        8
        """
        if not isinstance(text, str):
            raise DataError(
                f"a vocabulary of characters needs a text; got {type(text).__name__}. Read it with open(…)"
            )
        if min_count > 1 and unknown is None:
            raise ArgumentError(
                "min_count leaves characters out; got no name for them. Write unknown='<unk>'"
            )
        counts = Counter(text)
        return cls(
            sorted(one for one, count in counts.items() if count >= min_count), pad=pad, unknown=unknown
        )

    @classmethod
    def of_bytes(cls) -> Vocabulary:
        """The 256 bytes of UTF-8: every text has tokens, and one character outside ASCII has two to four.

        >>> Vocabulary.of_bytes().encode("é").tolist()
        [195, 169]
        """
        made = cls([chr(one) for one in range(_BYTES)])
        made._of_bytes = True
        return made

    def __len__(self) -> int:
        return len(self._specials) + len(self._codes)

    def __contains__(self, character: object) -> bool:
        if not isinstance(character, str) or len(character) != 1:
            return character in self._specials
        return self._of_bytes or bool((self._codes == ord(character)).any())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((tuple(self._specials), self._codes.tobytes(), self._of_bytes))

    def __repr__(self) -> str:
        if self._of_bytes:
            return "Vocabulary.of_bytes()"
        shown = "".join(self.tokens[len(self._specials) :])
        return f"Vocabulary({len(self)} tokens: {shown if len(shown) <= 40 else shown[:37] + '…'!r})"

    @property
    def tokens(self) -> list[str]:
        """The name of every token, by number."""
        if self._of_bytes:
            return [f"<0x{one:02X}>" for one in range(_BYTES)]
        return [*self._specials, *(chr(one) for one in self._codes.tolist())]

    def encode(self, text: str | bytes) -> Tokens:
        """The numbers of the characters of a text, int64 (length,).

        Raises DataError, which tells the place, for a character that the vocabulary lacks, unless it has `unknown`.
        """
        if self._of_bytes:
            raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
            if isinstance(raw, bytes | bytearray):
                return np.frombuffer(raw, np.uint8).astype(np.int64)
        if not isinstance(text, str):
            raise DataError(
                f"encode needs a text; got {type(text).__name__}. Use encode(text), one text at a time"
            )
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)
        places = np.searchsorted(self._codes, codes, sorter=self._sorted)
        found = self._sorted[np.minimum(places, len(self._codes) - 1)]
        wrong = self._codes[found] != codes
        if wrong.any():
            if self.unknown is None:
                raise self._lacks(text, int(wrong.argmax()))
            found = np.where(wrong, self._specials.index(self.unknown) - len(self._specials), found)
        return found + len(self._specials)

    def _lacks(self, text: str, place: int) -> DataError:
        line = text.count("\n", 0, place) + 1
        character = text[place]
        return DataError(
            f"the vocabulary has {len(self)} tokens, and not {character!r} (U+{ord(character):04X}); got it at place "
            f"{place}, line {line}. Make the vocabulary of all texts, or with unknown='<unk>'"
        )

    def decode(self, tokens: Any) -> str:
        """The text of numbers (length,); nothing for `pad`. Raises DataError for a number that is none of a token."""
        array = tokens.detach().numpy() if isinstance(tokens, Tensor) else np.asarray(tokens)
        if not array.size:
            return ""
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise DataError(
                f"decode needs whole numbers (length,); got {array.dtype.name} {array.shape}. Decode row by row"
            )
        if array.min() < 0 or array.max() >= len(self):
            raise DataError(f"tokens are 0 to {len(self) - 1}; got {array.min()} to {array.max()}")
        if self._of_bytes:
            return array.astype(np.uint8).tobytes().decode("utf-8", "replace")
        names = self.tokens
        names[: len(self._specials)] = ["" if one == self.pad else one for one in self._specials]
        return "".join(names[one] for one in array.tolist())

    def prepare(self, raw: Any) -> Any:
        """A text as tokens (1, length), a list of texts as (N, length); anything else as it is."""
        if isinstance(raw, str):
            raw = [raw]
        if not isinstance(raw, list | tuple) or not raw or not all(isinstance(one, str) for one in raw):
            return raw
        rows = [self.encode(one) for one in raw]
        sizes = sorted({len(one) for one in rows})
        if not sizes[0]:
            raise DataError("a text needs a character at least; got an empty one")
        if len(sizes) > 1 and self.pad is None:
            raise DataError(
                f"texts need one length; got {sizes[0]} to {sizes[-1]} characters. Make the vocabulary with "
                "pad='<pad>', or give one text at a time"
            )
        return pad_sequences(rows, value=0).values

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON has it; characters as their code points, so that none is lost."""
        if self._of_bytes:
            return {"of": "bytes"}
        return {"of": "characters", "codes": self._codes.tolist(), "pad": self.pad, "unknown": self.unknown}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Vocabulary:
        """The vocabulary that `to_json` described."""
        if stored["of"] == "bytes":
            return cls.of_bytes()
        return cls(map(chr, stored["codes"]), pad=stored["pad"], unknown=stored["unknown"])


def _code(character: Any) -> int:
    if not isinstance(character, str) or len(character) != 1:
        raise DataError(
            f"a vocabulary is of single characters; got {character!r}. Give a text, or a list of them"
        )
    return ord(character)


# ------------------------------------------------------------------------------------------- windows


class TextWindows(Dataset):
    """Windows of a text to learn the next token from: x are `length` tokens, y the same moved on by one.

    text: a str (its characters make the vocabulary unless one is given), bytes (tokens are bytes), or whole numbers
        (tokens). length: tokens of a window. stride: how far the next window is; `length` by default, so that every
        token is learnt once in an epoch.
    random: every epoch draws the places of as many windows anew, from (seed, epoch).
    `split(0.1)` cuts the text in two, so that no token is in both parts. `streams(batch_size)` gives batches in which
    row k goes on where row k of the batch before ended, for networks that keep their state.

    >>> windows = TextWindows("abcabcabc", length=4)
    >>> [(windows.vocabulary.decode(x), windows.vocabulary.decode(y)) for x, y in windows]
    [('abca', 'bcab'), ('bcab', 'cabc')]
    """

    ordered = True

    def __init__(
        self,
        text: Any,
        length: int,
        *,
        vocabulary: Vocabulary | None = None,
        stride: int | None = None,
        random: bool = False,
        seed: int = 0,
    ) -> None:
        self.length = _whole("length", length)
        self.stride = self.length if stride is None else _whole("stride", stride)
        self.random, self.seed = random, seed
        if vocabulary is None and isinstance(text, str):
            vocabulary = Vocabulary.from_text(text)
        elif vocabulary is None and isinstance(text, bytes | bytearray):
            vocabulary = Vocabulary.of_bytes()
        self.vocabulary = self.preparation = vocabulary
        self.tokens = _tokens(text, vocabulary)
        if len(self.tokens) <= self.length:
            raise DataError(
                f"windows of {self.length} tokens and the next one need a longer text; got {len(self.tokens)} tokens. "
                "Use a smaller length"
            )

    def __len__(self) -> int:
        return (len(self.tokens) - 1 - self.length) // self.stride + 1

    def __getitem__(self, index: int) -> tuple[Tokens, Tokens]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} windows; got {index}")
        x, y = self.take(np.array([index % len(self)]))
        return x[0], y[0]

    def take(self, rows: Rows, epoch: int = 1) -> tuple[Tokens, Tokens]:
        """(tokens, the next ones), each int64 (rows, length)."""
        if self.random:
            starts = Chance.of(self.seed, epoch, rows).integers(0, len(self.tokens) - self.length)
        else:
            starts = rows * self.stride
        windows = self.tokens[starts[:, None] + np.arange(self.length + 1)]
        return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])

    @property
    def size_in_memory(self) -> int | None:
        """Bytes of all windows; None where they are drawn anew in each epoch."""
        return None if self.random else 16 * self.length * len(self)

    def split(self, *sizes: float, seed: int = 0) -> tuple[Dataset, ...]:
        """Parts of the text in its order: one for each of `sizes` at the end, and before them the rest.

        sizes: shares of the text, or numbers of tokens. Only the first part draws its windows at random.
        """
        ends = np.cumsum([0, len(self.tokens) - sum(counts := counts_of(sizes, len(self.tokens))), *counts])
        return tuple(
            self._part(int(a), int(b), place) for place, (a, b) in enumerate(itertools.pairwise(ends))
        )

    def _part(self, begin: int, end: int, place: int) -> TextWindows:
        return TextWindows(
            self.tokens[begin:end],
            self.length,
            vocabulary=self.vocabulary,
            stride=self.stride,
            random=self.random and place == 0,
            seed=self.seed,
        )

    def streams(self, batch_size: int) -> TextStreams:
        """Batches of windows in which every row goes on where the same row of the batch before ended."""
        return TextStreams(self.tokens, self.length, _whole("batch_size", batch_size), self.vocabulary)

    def fingerprint(self) -> str:
        """SHA-256 of the tokens, and of how windows are cut."""
        drawn = self.seed if self.random else None
        found = hashlib.sha256(f"{self.length} {self.stride} {drawn}\0".encode())
        found.update(self.tokens.tobytes())
        return found.hexdigest()


class TextStreams:
    """Batches of a text cut into `batch_size` equal stretches that are read side by side, window by window.

    Row k of each batch goes on where row k of the one before ended, in every epoch; made by `TextWindows.streams`.

    >>> streams = TextWindows("abcdefghi", length=2).streams(batch_size=2)
    >>> [["".join("abcdefghi"[k] for k in row) for row in batch.inputs] for batch in streams.epoch(1)]
    [['ab', 'ef'], ['cd', 'gh']]
    """

    def __init__(
        self, tokens: Tokens, length: int, batch_size: int, vocabulary: Vocabulary | None = None
    ) -> None:
        stretch = (len(tokens) - 1) // batch_size
        self.batch_size, self.length = batch_size, length
        self.vocabulary = self.preparation = vocabulary
        self.batches: int | None = stretch // length
        self.rows: int | None = self.batches * batch_size
        if not self.batches:
            raise DataError(
                f"{batch_size} streams with windows of {length} tokens need {batch_size * length + 1} tokens; got "
                f"{len(tokens)}. Use a smaller batch_size, or a smaller length"
            )
        self._x = tokens[: stretch * batch_size].reshape(batch_size, stretch)
        self._y = tokens[1 : stretch * batch_size + 1].reshape(batch_size, stretch)

    def __len__(self) -> int:
        return self.batches or 0

    def __iter__(self) -> Iterator[tuple[Tokens, Tokens]]:
        return ((batch.inputs, batch.targets) for batch in self.epoch(1))

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch without the first `skip`; the same ones in every epoch."""
        for place in range(skip, len(self)):
            cut = slice(place * self.length, (place + 1) * self.length)
            x, y = (np.ascontiguousarray(one[:, cut]) for one in (self._x, self._y))
            yield Batch(x, y, None, self.batch_size)

    def fingerprint(self) -> str:
        """SHA-256 of the tokens, and of how they are cut."""
        found = hashlib.sha256(f"streams {self.length} {self.batch_size}\0".encode())
        found.update(self._y.tobytes())
        return found.hexdigest()


def _tokens(text: Any, vocabulary: Vocabulary | None) -> Tokens:
    if isinstance(text, str | bytes | bytearray):
        assert vocabulary is not None
        return vocabulary.encode(text if isinstance(text, str) else bytes(text))
    if isinstance(text, Sequence) and text and isinstance(text[0], str):
        raise DataError(
            f"windows are of one text; got {type(text).__name__} of texts. Join them: '\\n'.join(texts)"
        )
    array = text.detach().numpy() if isinstance(text, Tensor) else np.asarray(text)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"windows need a text, or tokens (length,) of whole numbers; got {array.dtype} {array.shape}"
        )
    if array.size and (array.min() < 0 or (vocabulary is not None and array.max() >= len(vocabulary))):
        upper = math.inf if vocabulary is None else len(vocabulary) - 1
        raise DataError(f"tokens are 0 to {upper:g}; got {array.min()} to {array.max()}")
    return array.astype(np.int64)


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ArgumentError(f"{name} must be a whole number from 1; got {value!r}")
    return int(value)
