"""Comparisons, logic, bits and positions: operations without a derivative."""

from __future__ import annotations

from typing import Any

from ..dtypes import int64, uint32
from ..errors import ArgumentError, DtypeError, ShapeError
from ..operations import Type
from .kinds import discrete, elementwise
from .lowering import Exact, Gather, Position, Scalar
from .shapes import check_axis

_NO_SLOPE = (None, None)


@elementwise(derivatives=_NO_SLOPE, result="bool", lower=Scalar(lambda b, x, y: b.equal(x, y)), accepts="any")
def equal(xp: Any, x: Any, y: Any) -> Any:
    """x = y.  Why: true or false has no slope."""
    return xp.equal(x, y)


@elementwise(
    derivatives=_NO_SLOPE, result="bool", lower=Scalar(lambda b, x, y: b.not_equal(x, y)), accepts="any"
)
def not_equal(xp: Any, x: Any, y: Any) -> Any:
    """x ≠ y.  Why: true or false has no slope."""
    return xp.not_equal(x, y)


@elementwise(
    derivatives=_NO_SLOPE,
    result="bool",
    lower=Scalar(lambda b, x, y: b.less(x, y)),
    accepts="any",
    exact=Exact(above=1),
)
def less(xp: Any, x: Any, y: Any) -> Any:
    """x < y.  Why: true or false has no slope."""
    return xp.less(x, y)


@elementwise(
    derivatives=_NO_SLOPE, result="bool", lower=Scalar(lambda b, x, y: b.less_equal(x, y)), accepts="any"
)
def less_equal(xp: Any, x: Any, y: Any) -> Any:
    """x ≤ y.  Why: true or false has no slope."""
    return xp.less_equal(x, y)


@elementwise(
    derivatives=_NO_SLOPE,
    result="bool",
    lower=Scalar(lambda b, x, y: b.less(y, x)),
    accepts="any",
    exact=Exact(above=0),
)
def greater(xp: Any, x: Any, y: Any) -> Any:
    """x > y.  Why: true or false has no slope."""
    return xp.greater(x, y)


@elementwise(
    derivatives=_NO_SLOPE, result="bool", lower=Scalar(lambda b, x, y: b.less_equal(y, x)), accepts="any"
)
def greater_equal(xp: Any, x: Any, y: Any) -> Any:
    """x ≥ y.  Why: true or false has no slope."""
    return xp.greater_equal(x, y)


@elementwise(
    derivatives=(None,), result="bool", lower=Scalar(lambda b, x: b.not_equal(x, x)), accepts="number"
)
def isnan(xp: Any, x: Any) -> Any:
    """Is x not a number?  Why: true or false has no slope."""
    return xp.isnan(x)


@elementwise(
    derivatives=(None,),
    result="bool",
    accepts="number",
    lower=Scalar(lambda b, x: b.equal(b.absolute(x), b.highest()), only="f"),
)
def isinf(xp: Any, x: Any) -> Any:
    """Is x infinite?  Why: true or false has no slope."""
    return xp.isinf(x)


@elementwise(
    derivatives=(None,),
    result="bool",
    accepts="number",
    lower=Scalar(lambda b, x: b.less(b.absolute(x), b.highest()), only="f", finite=True),
)
def isfinite(xp: Any, x: Any) -> Any:
    """Is x neither infinite nor NaN?  Why: true or false has no slope."""
    return xp.isfinite(x)


@elementwise(
    derivatives=(None,),
    result="bool",
    lower=Scalar(lambda b, x: b.less(b.library("copysign", b.constant(1), x), b.constant(0)), only="f"),
)
def signbit(xp: Any, x: Any) -> Any:
    """Is the sign bit set (−0 too)?  Why: true or false has no slope."""
    return xp.signbit(x)


@elementwise(derivatives=_NO_SLOPE, accepts="bits", lower=Scalar(lambda b, x, y: b.bits("and", x, y)))
def bitwise_and(xp: Any, x: Any, y: Any) -> Any:
    """Bits set in both; on bools: and.  Why: bits jump, they have no slope."""
    return xp.bitwise_and(x, y)


@elementwise(derivatives=_NO_SLOPE, accepts="bits", lower=Scalar(lambda b, x, y: b.bits("or", x, y)))
def bitwise_or(xp: Any, x: Any, y: Any) -> Any:
    """Bits set in either; on bools: or.  Why: bits jump, they have no slope."""
    return xp.bitwise_or(x, y)


@elementwise(derivatives=_NO_SLOPE, accepts="bits", lower=Scalar(lambda b, x, y: b.bits("xor", x, y)))
def bitwise_xor(xp: Any, x: Any, y: Any) -> Any:
    """Bits set in exactly one; on bools: either but not both.  Why: bits jump, they have no slope."""
    return xp.bitwise_xor(x, y)


@elementwise(derivatives=(None,), accepts="bits", lower=Scalar(lambda b, x: b.bits("xor", x, b.all_bits())))
def bitwise_invert(xp: Any, x: Any) -> Any:
    """All bits turned; on bools: not.  Why: bits jump, they have no slope."""
    return xp.invert(x)


@elementwise(
    derivatives=_NO_SLOPE, accepts="bits", lower=Scalar(lambda b, x, y: b.shifted("left", x, y), only="iu")
)
def bitwise_left_shift(xp: Any, x: Any, y: Any) -> Any:
    """Bits moved up by y; 0 from the width on.  Why: bits jump, they have no slope."""
    return xp.shift_left(x, y)


@elementwise(
    derivatives=_NO_SLOPE, accepts="bits", lower=Scalar(lambda b, x, y: b.shifted("right", x, y), only="iu")
)
def bitwise_right_shift(xp: Any, x: Any, y: Any) -> Any:
    """Bits moved down by y; the sign alone from the width on.  Why: bits jump, they have no slope."""
    return xp.shift_right(x, y)


# ------------------------------------------------------------------------------------------- positions


def _position_type(x: Type, *, axis: int) -> Type:
    check_axis("argmax", axis, x)
    if x.shape[axis] == 0:
        raise ArgumentError(f"argmax needs at least one element along axis {axis}; got shape {x.shape}")
    return Type(x.shape[:axis] + x.shape[axis + 1 :], int64)


@discrete(type=_position_type, lower=Position(lambda b, x, best: b.less(best, x)))
def argmax(xp: Any, x: Any, *, axis: int) -> Any:
    """Position of the first largest element along `axis`; NaN counts.  Why: a position jumps; it has no slope."""
    return xp.argmax(x, axis=axis)


@discrete(type=_position_type, lower=Position(lambda b, x, best: b.less(x, best)))
def argmin(xp: Any, x: Any, *, axis: int) -> Any:
    """Position of the first smallest element along `axis`; NaN counts.  Why: a position jumps; it has no slope."""
    return xp.argmin(x, axis=axis)


def _order_type(x: Type, *, axis: int, descending: bool) -> Type:
    check_axis("argsort", axis, x)
    return Type(x.shape, int64)


@discrete(type=_order_type)
def argsort(xp: Any, x: Any, *, axis: int, descending: bool) -> Any:
    """Positions that sort `x` along `axis`; equal ones keep their order.  Why: positions jump; they have no slope."""
    if not descending:
        return xp.argsort(x, axis=axis, stable=True)
    backwards = xp.flip(xp.argsort(xp.flip(x, axis=axis), axis=axis, stable=True), axis=axis)
    return x.shape[axis] - 1 - backwards


def _front_type(indices: Type, *, size: int) -> Type:
    if indices.dtype.kind not in "iu":
        raise DtypeError(f"an index must be whole numbers; got {indices.dtype}. Use astype(int64)")
    return Type(indices.shape, int64)


def _front_element(b: Any, indices: Any, *, size: int) -> Any:
    whole, zero = b.cast(indices, int64), b.literal(0, int64)
    if indices.dtype.kind == "u":
        return whole
    return b.select(b.less(whole, zero), b.add(whole, b.literal(size, int64)), whole)


@discrete(type=_front_type, lower=Scalar(_front_element), bounds=(0, lambda indices, *, size: size))
def from_front(xp: Any, indices: Any, *, size: int) -> Any:
    """Indices of an axis of `size` entries, counted from the front.  Why: a position jumps; it has no slope."""
    return xp.from_front(indices, size)


def _places_type(ordered: Type, values: Type, *, side: str) -> Type:
    if len(ordered.shape) != 1 or ordered.dtype != values.dtype:
        raise ShapeError(f"searchsorted needs a vector and values of its dtype; got {ordered} and {values}")
    return Type(values.shape, int64)


@discrete(type=_places_type)
def searchsorted(xp: Any, ordered: Any, values: Any, *, side: str) -> Any:
    """Where `values` would stand in the sorted vector, before or behind equal ones.  Why: a position has no slope."""
    return xp.astype(xp.searchsorted(ordered, values, side=side), int64)


# --------------------------------------------------------------------------------------------- chance

# Rotation distances and key-schedule constant of Threefry-2x32 (Salmon, Moraes, Dror, Shaw: "Parallel random
# numbers: as easy as 1, 2, 3", SC11, 2011; 20 rounds as in the paper's reference).
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def _bits_type(key: Type, *, size: int) -> Type:
    return Type((size,), uint32)


def _random_word(b: Any, position: Any, operands: Any, out: Type, *, size: int) -> Any:
    """One word: the first half are the first words of each block, the second half the second words."""
    (key,) = operands
    half = (size + 1) // 2
    at, middle = b.number(position[0]), b.literal(half, int64)
    first = b.less(at, middle)
    block = b.cast(b.select(first, at, b.subtract(at, middle)), uint32)
    words = [key([k]) for k in range(4)]
    keys = (words[0], words[1], b.bits("xor", b.bits("xor", words[0], words[1]), b.constant(_PARITY)))
    low = b.add(block, words[2])
    high = b.add(words[3], b.cast(b.less(low, block), uint32))
    x, y = b.add(low, keys[0]), b.add(high, keys[1])
    for number in range(5):
        for distance in _ROTATIONS[number % 2]:
            x = b.add(x, y)
            up, down = (b.constant(turn) for turn in (distance, 32 - distance))
            y = b.bits("xor", b.bits("or", b.shifted("left", y, up), b.shifted("right", y, down)), x)
        x = b.add(x, keys[(number + 1) % 3])
        y = b.add(b.add(y, keys[(number + 2) % 3]), b.constant(number + 1))
    return b.select(first, x, y)


def _advanced_word(b: Any, position: Any, operands: Any, out: Type, *, blocks: int) -> Any:
    """The word of the key at the position: the counter's two words after the addition."""
    (key,) = operands
    at, old = b.number(position[0]), key([2])
    low = b.add(old, b.constant(blocks & 0xFFFFFFFF))
    carry = b.cast(b.less(low, old), uint32)
    high = b.add(b.add(key([3]), carry), b.constant(blocks >> 32))
    counter = b.select(b.equal(at, b.literal(2, int64)), low, high)
    return b.select(b.less(at, b.literal(2, int64)), key(position), counter)


def threefry(xp: Any, first: Any, second: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """The two random words of each counter (x, y) under each key (first, second); arrays of uint32 that broadcast."""
    keys = (first, second, first ^ second ^ xp.asarray(_PARITY, dtype=uint32))
    x, y = x + keys[0], y + keys[1]
    for block in range(5):
        for distance in _ROTATIONS[block % 2]:
            x = x + y
            y = ((y << distance) | (y >> (32 - distance))) ^ x
        x = x + keys[(block + 1) % 3]
        y = y + keys[(block + 2) % 3] + xp.asarray(block + 1, dtype=uint32)
    return x, y


@discrete(type=_bits_type, lower=Gather(_random_word))
def random_bits(xp: Any, key: Any, *, size: int) -> Any:
    """`size` random 32-bit words (Threefry-2x32) of a key of four words: two of key, two of counter.

    Why: chance does not depend on any value, so no gradient passes.
    """
    half = (size + 1) // 2
    position = xp.arange(half, dtype=uint32)
    x = position + key[2]
    y = key[3:4] + xp.astype(x < position, uint32)
    x, y = threefry(xp, key[0], key[1], x, y)
    return xp.concat((x, y))[:size]


@discrete(type=lambda key, *, blocks: key, lower=Gather(_advanced_word))
def advance(xp: Any, key: Any, *, blocks: int) -> Any:
    """The key of `random_bits` with its 64-bit counter moved on by `blocks` pairs of words.

    Why: chance does not depend on any value, so no gradient passes.
    """
    low = key[2:3] + xp.asarray([blocks & 0xFFFFFFFF], dtype=uint32)
    carry = xp.astype(low < key[2:3], uint32)
    high = key[3:4] + carry + xp.asarray([blocks >> 32], dtype=uint32)
    return xp.concat((key[:2], low, high))
