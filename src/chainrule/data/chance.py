"""Random numbers for each row of a batch that do not depend on who is in the batch, or on who computes them.

The numbers of a row are a pure function of (seed, epoch, position of the row in the data), by the counter-based bits
that everything random here comes from. So a resumed training, another batch size and any number of threads meet the
same ones.
Knows arrays; knows nothing of images and of training.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError
from ..ops.discrete import threefry

# The word that sets these numbers apart from the order of the rows, which is drawn from the same seed.
_ROWS = 0x726F7773
_MASK = 0xFFFFFFFF

Words = NDArray[np.uint32]


class Chance:
    """Random numbers for each row of a batch; every call draws further ones.

    >>> chance = Chance.of(seed=0, epoch=1, rows=np.array([4, 7]))
    >>> alone = Chance.of(seed=0, epoch=1, rows=np.array([7]))
    >>> bool(chance.uniform()[1] == alone.uniform()[0])
    True
    """

    def __init__(self, first: Words, second: Words) -> None:
        self._keys = first, second
        self._drawn = 0

    @classmethod
    def of(cls, seed: int, epoch: int, rows: NDArray[np.int64]) -> Chance:
        """The numbers of the rows at these positions of the data, in this epoch."""
        key = _words(seed & _MASK), _words(seed >> 32 & _MASK)
        epoch_key = threefry(np, *key, _words(epoch), _words(_ROWS))
        places = rows.astype(np.uint64)
        return cls(*threefry(np, *epoch_key, _words(places & _MASK), _words(places >> np.uint64(32))))

    @property
    def rows(self) -> int:
        """How many rows there are numbers for."""
        return len(self._keys[0])

    def fork(self, place: int) -> Chance:
        """Numbers of their own for the part `place` of something that has several, however many each of them draws."""
        first, second = (one[:, None] for one in self._keys)
        # The other half of the counters, which `_bits` never comes to.
        keys = threefry(np, first, second, _words([place]), _words([_MASK]))
        return Chance(keys[0][:, 0], keys[1][:, 0])

    def _bits(self, count: int) -> Words:
        """(rows, count) random words."""
        half = (count + 1) // 2
        counter = np.arange(self._drawn, self._drawn + half, dtype=np.uint64)
        self._drawn += half
        first, second = (one[:, None] for one in self._keys)
        words = threefry(np, first, second, _words(counter & _MASK), _words(counter >> np.uint64(32)))
        return np.concatenate(words, axis=1)[:, :count]

    def uniform(self, shape: tuple[int, ...] = ()) -> NDArray[np.float32]:
        """(rows, *shape): numbers spread evenly over 0 ≤ x < 1, float32."""
        words = self._bits(math.prod(shape)) >> np.uint32(8)
        return (words.astype(np.float32) * np.float32(2.0**-24)).reshape(self.rows, *shape)

    def integers(self, low: int, high: int, shape: tuple[int, ...] = ()) -> NDArray[np.int64]:
        """(rows, *shape): whole numbers low ≤ n < high, int64. The bias of the modulus is below (high − low)/2³²."""
        if not low < high or high - low > 1 << 32:
            raise ArgumentError(f"integers needs low < high, at most 2**32 apart; got {low} and {high}")
        words = self._bits(math.prod(shape)).astype(np.int64)
        return (words % (high - low) + low).reshape(self.rows, *shape)

    def normal(self, shape: tuple[int, ...] = ()) -> NDArray[np.float32]:
        """(rows, *shape): normally distributed numbers of mean 0 and variance 1, float32.

        Source: G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates", 1958.
        """
        count = math.prod(shape)
        half = (count + 1) // 2
        pairs = self.uniform((2, half))
        radius = np.sqrt(np.float32(-2.0) * np.log(np.float32(1.0) - pairs[:, 0]))
        angle = np.float32(2.0 * math.pi) * pairs[:, 1]
        numbers = np.concatenate((radius * np.cos(angle), radius * np.sin(angle)), axis=1)
        return numbers[:, :count].reshape(self.rows, *shape)


def _words(value: Any) -> Words:
    return np.atleast_1d(np.asarray(value)).astype(np.uint32)
