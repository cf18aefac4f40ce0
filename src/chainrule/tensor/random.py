"""Random numbers from a counter: the same seed gives the same bits, in whatever engine.

A Generator is a cell with four 32-bit words: two of key, two of counter. Numbers are Threefry-2x32 bits.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import ops
from ..dtypes import DEFAULT_FLOAT, Dtype, dtype_or_default, float64, uint32
from ..errors import ArgumentError, DtypeError
from ..graph import Cell, Node, constant
from ..ops.shapes import as_shape, whole
from . import dispatch
from .core import Tensor, elementwise, wrap

Shape = int | Sequence[int]

_MASK = 0xFFFFFFFF


class Generator:
    """A stream of random numbers. `seed`: a whole number from 0 to 2⁶⁴ − 1.

    >>> Generator(1).uniform(2).shape
    (2,)
    """

    def __init__(self, seed: int = 0) -> None:
        self.cell = Cell(np.zeros(4, uint32), kind="generator", name="generator")
        self._lock = threading.Lock()
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of `seed` from its beginning."""
        seed = whole("manual_seed", "seed", seed)
        if not 0 <= seed < 1 << 64:
            raise ArgumentError(f"a seed must be a whole number from 0 to 2**64 - 1; got {seed}")
        self.cell.write_node(constant(np.array([seed & _MASK, seed >> 32, 0, 0], uint32)))
        return self

    def get_state(self) -> list[int]:
        """Key and counter as four integers."""
        return [int(word) for word in self.cell.array]

    def set_state(self, words: list[int]) -> None:
        """Continue from a state that `get_state` gave. Raises ArgumentError for anything else."""
        if len(words) != 4 or not all(isinstance(word, int) and 0 <= word <= _MASK for word in words):
            raise ArgumentError(f"a generator's state is four 32-bit numbers; got {words!r}. Use get_state")
        self.cell.write_node(constant(np.array(words, uint32)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Generator:
        """A stream of its own that goes on in the same way."""
        twin = type(self)()
        twin.set_state(self.get_state())
        memo[id(self)] = twin
        return twin

    def bits(self, size: int) -> Node:
        """A node of `size` random 32-bit words; the counter moves on behind them."""
        with self._lock:  # two threads must not draw the same numbers
            key = self.cell.read()
            self.cell.write_node(ops.advance.node((key,), {"blocks": (size + 1) // 2}))
        words: Node = ops.random_bits.node((key,), {"size": size})
        return words

    def uniform(
        self, shape: Shape, low: float = 0.0, high: float = 1.0, dtype: DTypeLike | None = None
    ) -> Tensor:
        """Numbers spread evenly over low ≤ x < high, float32 by default (24 random bits; float64: 53).

        >>> Generator(1).uniform((2, 3), -1.0, 1.0).shape
        (2, 3)
        """
        target = _float(dtype)
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ArgumentError(f"uniform needs finite numbers low <= high; got {low} and {high}")
        unit = self._unit(as_shape("uniform", shape), target)
        if low == 0.0 and high == 1.0:
            return unit
        below = float(np.nextafter(target.type(high), target.type(low)))  # rounding must not reach `high`
        return elementwise(ops.minimum, unit * (high - low) + low, below)

    def _unit(self, shape: tuple[int, ...], dtype: Dtype) -> Tensor:
        size = math.prod(shape)
        if dtype == DEFAULT_FLOAT:
            words = ops.bitwise_right_shift.on_nodes((self.bits(size), 8), {})
            flat = dispatch.astype(words, dtype) * 2.0**-24
        else:
            words = self.bits(2 * size)
            cut = {"steps": (1,)}
            high = ops.slice_.node((words,), {"starts": (0,), "stops": (size,), **cut})
            low = ops.slice_.node((words,), {"starts": (size,), "stops": (2 * size,), **cut})
            upper = dispatch.astype(ops.bitwise_right_shift.on_nodes((high, 5), {}), dtype)
            lower = dispatch.astype(ops.bitwise_right_shift.on_nodes((low, 6), {}), dtype)
            flat = upper * 2.0**-27 + lower * 2.0**-53
        return wrap(ops.reshape.node((flat,), {"shape": shape}))

    def normal(
        self, shape: Shape, mean: float = 0.0, std: float = 1.0, dtype: DTypeLike | None = None
    ) -> Tensor:
        """Normally distributed numbers, float32 by default.

        Source: G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates", 1958.

        >>> Generator(1).normal(3).dtype
        dtype('float32')
        """
        target = _float(dtype)
        sizes = as_shape("normal", shape)
        first, second = self._unit(sizes, target).node, self._unit(sizes, target).node
        radius = ops.sqrt(-2.0 * ops.log(1.0 - first))
        return wrap(radius * ops.cos((2.0 * math.pi) * second)) * std + mean

    def integers(self, shape: Shape, low: int, high: int) -> Tensor:
        """Whole numbers with low ≤ n < high, int64. The bias of the modulus is below (high − low)/2³².

        >>> Generator(1).integers(3, 5, 6).tolist()
        [5, 5, 5]
        """
        low, high = whole("integers", "low", low), whole("integers", "high", high)
        if not low < high or high - low > 1 << 32:
            raise ArgumentError(f"integers needs low < high, at most 2**32 apart; got {low} and {high}")
        sizes = as_shape("integers", shape)
        words = dispatch.astype(self.bits(math.prod(sizes)), np.dtype("int64"))
        flat = ops.remainder.on_nodes((words, high - low), {})
        return wrap(ops.reshape.node((ops.add.on_nodes((flat, low), {}),), {"shape": sizes}))

    def permutation(self, size: int) -> Tensor:
        """The numbers 0 … size − 1 in random order, int64.

        >>> sorted(Generator(1).permutation(3).tolist())
        [0, 1, 2]
        """
        keys = self._unit(as_shape("permutation", whole("permutation", "size", size)), float64)
        return wrap(ops.argsort.node((keys.node,), {"axis": 0, "descending": False}))


def _float(dtype: DTypeLike | None) -> Dtype:
    target = dtype_or_default(dtype)
    if target.kind != "f":
        raise DtypeError(f"random floats need float32 or float64; got {target.name}. Use randint")
    return target


default_generator = Generator(0)


def manual_seed(seed: int) -> Generator:
    """Start the default generator's stream of `seed`; returns the generator.

    >>> import chainrule as cr
    >>> _ = cr.manual_seed(0)
    >>> a = cr.rand(3)
    >>> _ = cr.manual_seed(0)
    >>> bool((a == cr.rand(3)).all())
    True
    """
    return default_generator.manual_seed(seed)


def _sizes(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape


def rand(*shape: Any, dtype: DTypeLike | None = None, generator: Generator | None = None) -> Tensor:
    """Numbers spread evenly over 0 ≤ x < 1, float32 by default.

    >>> import chainrule as cr
    >>> cr.rand(2, 3).shape
    (2, 3)
    """
    return (generator or default_generator).uniform(_sizes(shape), dtype=dtype)


def randn(*shape: Any, dtype: DTypeLike | None = None, generator: Generator | None = None) -> Tensor:
    """Normally distributed numbers (mean 0, variance 1), float32 by default.

    >>> import chainrule as cr
    >>> cr.randn(2, 3).shape
    (2, 3)
    """
    return (generator or default_generator).normal(_sizes(shape), dtype=dtype)


def randint(low: int, high: int, size: Shape, *, generator: Generator | None = None) -> Tensor:
    """Whole numbers with low ≤ n < high, int64.

    >>> import chainrule as cr
    >>> cr.randint(0, 10, (4,)).dtype
    dtype('int64')
    """
    return (generator or default_generator).integers(size, low, high)


def randperm(n: int, *, generator: Generator | None = None) -> Tensor:
    """The numbers 0 … n − 1 in random order, int64.

    >>> import chainrule as cr
    >>> sorted(cr.randperm(3).tolist())
    [0, 1, 2]
    """
    return (generator or default_generator).permutation(n)
