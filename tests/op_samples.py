"""Samples for every primitive: a reference in plain NumPy, and operands at odd shapes, away from kinks.

An operation that is registered and missing here fails `test_ops.py`, which says what to add.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.errors import ArgumentError, BoundsError, ShapeError

Reference = Callable[..., Any]
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

SHAPES: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (7,), (3, 5), (2, 0, 3), (1, 13), (2, 1, 3))
INTEGER_TYPES = ("int8", "int32", "int64", "uint8", "uint64")


@dataclass(frozen=True)
class Case:
    """One call: operands (float64 where differentiable) and attributes."""

    operands: tuple[np.ndarray, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Samples:
    """All that a test needs to know about one operation."""

    reference: Reference
    cases: tuple[Case, ...]
    integer_cases: tuple[Case, ...] = ()
    scale: float = 1.0
    """Tolerance of the forward value: how far the plain formula of the reference may be off."""
    constant: bool = False
    """Moves with its operand, but is declared a constant: the gradient is 0 whatever differences say."""


def random_for(name: str) -> np.random.Generator:
    """A generator of its own for each name, the same in every run."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def between(low: float, high: float) -> Draw:
    return lambda random, shape: random.uniform(low, high, shape)


def off_zero(low: float, high: float) -> Draw:
    """Of either sign, at least `low` from 0: nothing lies near a kink at 0."""
    return lambda random, shape: random.uniform(low, high, shape) * random.choice([-1.0, 1.0], shape)


def off_integers(low: int, high: int) -> Draw:
    """Nothing lies near a whole number or a half."""
    return lambda random, shape: (
        random.integers(low, high, shape) + random.choice([0.0, 0.5], shape) + random.uniform(0.1, 0.4, shape)
    )


def apart(draw: Draw, distance: float) -> Draw:
    """A second operand at least `distance` from the first: used for comparisons, maximum, minimum."""
    return lambda random, shape: draw(random, shape) + 10 * distance * random.choice([-1.0, 1.0], shape)


def whole(low: int, high: int) -> Draw:
    return lambda random, shape: random.integers(low, high, shape)


def elementwise(
    name: str, reference: Reference, *draws: Draw, integers: Sequence[Draw] = (), scale: float = 4.0,
    types: Sequence[str] = INTEGER_TYPES, constant: bool = False,
) -> Samples:  # fmt: skip
    """Every shape with floats of the given ranges, and integers of each type where accepted."""
    random = random_for(name)
    cases = [Case(tuple(np.asarray(draw(random, shape)) for draw in draws)) for shape in SHAPES if draws]
    whole_cases = [
        Case(tuple(_of_type(draw(random, shape), dtype) for draw in integers))
        for dtype in types
        for shape in ((), (0,), (7,), (3, 5))
        if integers
    ]
    return Samples(reference, tuple(cases), tuple(whole_cases), scale, constant)


def _of_type(values: Any, dtype: str) -> np.ndarray:
    array = np.asarray(values)
    return np.asarray(np.abs(array) if dtype.startswith("u") else array, dtype)


def structural(
    name: str, reference: Reference, *calls: tuple[Sequence[Any], dict[str, Any]], integers: bool = True
) -> Samples:
    """Calls whose operands are shapes (floats are drawn for them) or integer and bool arrays as they are."""
    random = random_for(name)
    cases = tuple(
        Case(
            tuple(np.asarray(random.normal(size=one) if isinstance(one, tuple) else one) for one in operands),
            attributes,
        )
        for operands, attributes in calls
    )
    whole_cases = tuple(
        Case(
            tuple(np.asarray(one * 9, "int64") if one.dtype.kind == "f" else one for one in case.operands),
            case.attributes,
        )
        for case in cases
        if integers
    )
    return Samples(reference, cases, whole_cases)


REAL = off_zero(0.2, 2.0)
SMALL = off_zero(0.05, 0.9)
POSITIVE = between(0.3, 3.0)
BITS = ("bool", "int8", "int64", "uint8", "uint32")
ANY = (whole(-9, 9),)
NUMBERS = (whole(-9, 9), whole(-9, 9))


def _integer_safe(function: Reference) -> Reference:
    """The reference computed in Python integers, element by element, wrapped to the type."""

    def reference(*operands: np.ndarray) -> np.ndarray:
        dtype = operands[0].dtype
        if dtype.kind == "f":
            return np.asarray(function(*operands))
        out = np.empty(operands[0].shape, dtype=object)
        for index in np.ndindex(out.shape):
            out[index] = function(*(int(one[index]) for one in operands))
        return np.vectorize(lambda v: int(v) & ((1 << dtype.itemsize * 8) - 1), otypes=[object])(out).astype(
            f"uint{dtype.itemsize * 8}"
        ).view(dtype) if out.size else np.zeros(out.shape, dtype)  # fmt: skip

    return reference


def _scatter_add(updates: Any, indices: Any, *, axis: int, size: int) -> Any:
    out = np.zeros((*updates.shape[:axis], size, *updates.shape[axis + indices.ndim :]), updates.dtype)
    for place in np.ndindex(indices.shape):
        before = (slice(None),) * axis
        out[(*before, int(indices[place]))] += updates[(*before, *place)]
    return out


def _scatter_along(updates: Any, indices: Any, *, size: int) -> Any:
    out = np.zeros((*updates.shape[:-1], size), updates.dtype)
    for place in np.ndindex(indices.shape):
        out[(*place[:-1], int(indices[place]))] += updates[place]
    return out


def _put(x: Any, indices: Any, values: Any) -> Any:
    out = x.copy()
    for k, place in enumerate(indices):
        out[place] = values[k]
    return out


def _pad(x: Any, *, low: Any, high: Any, interior: Any) -> Any:
    shape = [a + (n + (n - 1) * gap if n else 0) + b for a, n, gap, b in zip(low, x.shape, interior, high)]
    out = np.zeros(shape, x.dtype)
    for place in np.ndindex(x.shape):
        out[tuple(a + k * (gap + 1) for a, k, gap in zip(low, place, interior))] = x[place]
    return out


def _broadcast(x: Any, *, shape: Any) -> Any:
    return x + np.zeros(shape, x.dtype)


def _threefry(key: Any, *, size: int) -> Any:
    """Threefry-2x32 with 20 rounds in Python integers, word by word (Salmon et al., SC11, 2011)."""
    mask = 0xFFFFFFFF
    k0, k1, c0, c1 = (int(word) for word in key)
    schedule = (k0, k1, 0x1BD11BDA ^ k0 ^ k1)
    first, second = [], []
    for block in range((size + 1) // 2):
        low = (c0 + block) & mask
        high = (c1 + (1 if c0 + block > mask else 0)) & mask
        x, y = (low + schedule[0]) & mask, (high + schedule[1]) & mask
        for number in range(5):
            for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[number % 2]:
                x = (x + y) & mask
                y = (((y << turn) | (y >> (32 - turn))) & mask) ^ x
            x = (x + schedule[(number + 1) % 3]) & mask
            y = (y + schedule[(number + 2) % 3] + number + 1) & mask
        first.append(x)
        second.append(y)
    return np.asarray((first + second)[:size], dtype="uint32")


def _advance(key: Any, *, blocks: int) -> Any:
    counter = (int(key[2]) + (int(key[3]) << 32) + blocks) % 2**64
    return np.asarray([key[0], key[1], counter & 0xFFFFFFFF, counter >> 32], dtype="uint32")


def _order(x: Any, *, axis: int, descending: bool) -> Any:
    """Positions by Python's stable sort."""

    def line(values: Any) -> Any:
        return sorted(range(len(values)), key=lambda k: -values[k] if descending else values[k])

    if not x.size:
        return np.zeros(x.shape, "int64")
    return np.apply_along_axis(line, axis, x).astype("int64")


def _axes(name: str, method: str) -> Samples:
    return structural(
        name,
        lambda x, *, axes, keepdims: getattr(x, method)(axis=tuple(axes), keepdims=keepdims),
        ([(7,)], {"axes": (0,), "keepdims": False}),
        ([(3, 5)], {"axes": (1,), "keepdims": True}),
        ([(3, 5)], {"axes": (0, 1), "keepdims": False}),
        ([(2, 3, 5)], {"axes": (0, 2), "keepdims": False}),
        ([(1, 1)], {"axes": (0,), "keepdims": True}),
        ([(0, 3)], {"axes": (1,), "keepdims": False}),
        ([()], {"axes": (), "keepdims": False}),
        ([(3,)], {"axes": (), "keepdims": True}),
    )


def _position(name: str, function: Reference) -> Samples:
    return structural(
        name,
        lambda x, *, axis: function(x, axis=axis).astype("int64"),
        ([(7,)], {"axis": 0}),
        ([(3, 5)], {"axis": 1}),
        ([(2, 3, 5)], {"axis": 1}),
        ([(0, 3)], {"axis": 1}),
        ([np.asarray([2, 2, 1])], {"axis": 0}),
    )


def _conv(x: Any, w: Any, *, strides: Any, dilation: Any, groups: int) -> Any:
    """The sum over every place, channel and kernel entry, one at a time."""
    places = [
        (n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], w.shape[2:], strides, dilation)
    ]
    out = np.zeros((x.shape[0], w.shape[0], *places), x.dtype)
    share = w.shape[0] // groups
    for n, o, *place in np.ndindex(out.shape):
        for c, *offset in np.ndindex(w.shape[1:]):
            at = tuple(p * s + k * d for p, k, s, d in zip(place, offset, strides, dilation))
            out[(n, o, *place)] += x[(n, o // share * w.shape[1] + c, *at)] * w[(o, c, *offset)]
    return out


def _window(x: Any, *, sizes: Any, strides: Any, dilation: Any) -> Any:
    first = x.ndim - len(sizes)
    places = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[first:], sizes, strides, dilation)]
    out = np.zeros((*x.shape[:first], *places, *sizes), x.dtype)
    for place in np.ndindex(*places):
        for offset in np.ndindex(*sizes):
            at = tuple(p * s + k * d for p, k, s, d in zip(place, offset, strides, dilation))
            out[(..., *place, *offset)] = x[(..., *at)]
    return out


def _fold(x: Any, *, shape: Any, strides: Any, dilation: Any) -> Any:
    first = x.ndim - 2 * len(shape)
    out = np.zeros((*x.shape[:first], *shape), x.dtype)
    for both in np.ndindex(x.shape[first:]):
        place, offset = both[: len(shape)], both[len(shape) :]
        met = (p * s + k * d for p, k, s, d in zip(place, offset, strides, dilation))
        out[(..., *met)] += x[(..., *both)]
    return out


def _positions(x: Any, *, axes: Any) -> Any:
    out = np.zeros(x.shape, "int64")
    for place in np.ndindex(x.shape):
        out[place] = int("0" + "".join(str(place[axis]) for axis in axes))  # sizes below 10 count in tens
    ranks = {number: rank for rank, number in enumerate(sorted({int(one) for one in out.flat}))}
    return np.asarray([ranks[int(one)] for one in out.flat], "int64").reshape(x.shape)


SAMPLES: dict[str, Samples] = {
    # comparisons and bits
    "equal": elementwise("equal", lambda x, y: x == y, REAL, apart(REAL, 0.5), integers=NUMBERS),
    "not_equal": elementwise("not_equal", lambda x, y: x != y, REAL, apart(REAL, 0.5), integers=NUMBERS),
    "less": elementwise("less", lambda x, y: x < y, REAL, apart(REAL, 0.5), integers=NUMBERS),
    "less_equal": elementwise("less_equal", lambda x, y: x <= y, REAL, apart(REAL, 0.5), integers=NUMBERS),
    "greater": elementwise("greater", lambda x, y: x > y, REAL, apart(REAL, 0.5), integers=NUMBERS),
    "greater_equal": elementwise("greater_equal", lambda x, y: x >= y, REAL, apart(REAL, 0.5), integers=NUMBERS),
    "isnan": elementwise("isnan", lambda x: ~(np.abs(x) >= 0), REAL, integers=ANY),
    "isinf": elementwise("isinf", lambda x: np.abs(x) == np.inf, REAL, integers=ANY),
    "isfinite": elementwise("isfinite", lambda x: np.abs(x) < np.inf, REAL, integers=ANY),
    "signbit": elementwise("signbit", lambda x: np.copysign(1, x) < 0, REAL),
    "bitwise_and": elementwise("bitwise_and", lambda x, y: x & y, integers=NUMBERS, types=BITS),
    "bitwise_or": elementwise("bitwise_or", lambda x, y: x | y, integers=NUMBERS, types=BITS),
    "bitwise_xor": elementwise("bitwise_xor", lambda x, y: x ^ y, integers=NUMBERS, types=BITS),
    "bitwise_invert": elementwise("bitwise_invert", lambda x: ~x, integers=ANY, types=BITS),
    "bitwise_left_shift": elementwise(
        "bitwise_left_shift", _integer_safe(lambda x, y: x << y), integers=(whole(-9, 9), whole(0, 7))),
    "bitwise_right_shift": elementwise(
        "bitwise_right_shift", _integer_safe(lambda x, y: x >> y), integers=(whole(-9, 9), whole(0, 7))),
    # positions and chance
    "argmax": _position("argmax", np.argmax),
    "argmin": _position("argmin", np.argmin),
    "argsort": structural(
        "argsort", _order,
        ([(7,)], {"axis": 0, "descending": False}),
        ([(3, 5)], {"axis": 1, "descending": True}),
        ([(3, 5)], {"axis": 0, "descending": False}),
        ([np.asarray([2, 1, 2, 1])], {"axis": 0, "descending": True}),
        ([(0, 3)], {"axis": 0, "descending": True})),
    "from_front": structural(
        "from_front", lambda indices, *, size: np.asarray(indices, "int64") % max(size, 1),
        ([np.asarray([3, 0, -1, -7])], {"size": 7}),
        ([np.asarray([[4, 4], [0, -5]], "int8")], {"size": 5}),
        ([np.asarray([1, 2], "uint8")], {"size": 3}),
        ([np.asarray(2)], {"size": 3}),
        ([np.zeros((0,), "int64")], {"size": 0}), integers=False),
    "searchsorted": structural(
        "searchsorted", lambda ordered, values, *, side: np.searchsorted(ordered, values, side),
        ([np.asarray([1.0, 2.0, 2.0, 5.0]), np.asarray([2.0, 0.0, 9.0])], {"side": "left"}),
        ([np.asarray([1.0, 2.0, 2.0, 5.0]), np.asarray([[2.0], [math.inf]])], {"side": "right"}),
        ([np.asarray([1, 2, 2, 5]), np.asarray(2)], {"side": "right"}),
        ([np.zeros((0,)), np.asarray([2.0])], {"side": "left"}), integers=False),
    "random_bits": structural(
        "random_bits", _threefry,
        ([np.asarray([1, 2, 3, 4], "uint32")], {"size": 7}),
        ([np.asarray([0, 0, 0, 0], "uint32")], {"size": 0}),
        ([np.asarray([2**32 - 1, 5, 2**32 - 2, 2**32 - 1], "uint32")], {"size": 11}), integers=False),
    "advance": structural(
        "advance", _advance,
        ([np.asarray([1, 2, 3, 4], "uint32")], {"blocks": 5}),
        ([np.asarray([1, 2, 2**32 - 1, 4], "uint32")], {"blocks": 1}),
        ([np.asarray([1, 2, 7, 2**32 - 1], "uint32")], {"blocks": 2**32 + 2**33 - 3}), integers=False),
    # arithmetic
    "add": elementwise("add", _integer_safe(lambda x, y: x + y), REAL, REAL, integers=NUMBERS),
    "subtract": elementwise("subtract", _integer_safe(lambda x, y: x - y), REAL, REAL, integers=NUMBERS),
    "multiply": elementwise("multiply", _integer_safe(lambda x, y: x * y), REAL, REAL, integers=NUMBERS),
    "divide": elementwise("divide", lambda x, y: x * (1 / y), REAL, REAL),
    "negative": elementwise("negative", _integer_safe(lambda x: 0 - x), REAL, integers=ANY),
    "reciprocal": elementwise("reciprocal", lambda x: x**-1.0, REAL),
    "square": elementwise("square", _integer_safe(lambda x: x * x), REAL, integers=ANY),
    "pow": elementwise(
        "pow", _integer_safe(lambda x, y: x**y), POSITIVE, REAL, integers=(whole(-3, 4), whole(0, 4)), scale=16),
    # exponentials, logarithms
    "exp": elementwise("exp", lambda x: np.power(np.e, x), REAL, scale=16),
    "expm1": elementwise("expm1", lambda x: np.exp(x) - 1, REAL, scale=32),
    "log": elementwise("log", lambda x: np.log2(x) * math.log(2), POSITIVE, scale=32),
    "log1p": elementwise("log1p", lambda x: np.log(1 + x), POSITIVE, scale=16),
    "log2": elementwise("log2", lambda x: np.log(x) / math.log(2), POSITIVE, scale=32),
    "log10": elementwise("log10", lambda x: np.log(x) / math.log(10), POSITIVE, scale=32),
    "logaddexp": elementwise("logaddexp", lambda x, y: np.log(np.exp(x) + np.exp(y)), REAL, REAL, scale=32),
    "sqrt": elementwise("sqrt", lambda x: x**0.5, POSITIVE),
    # activations
    "relu": elementwise("relu", _integer_safe(lambda x: x * (x > 0)), REAL, integers=ANY),
    "sigmoid": elementwise("sigmoid", lambda x: 1 / (1 + np.exp(-x)), REAL),
    "sigmoid_complement": elementwise("sigmoid_complement", lambda x: 1 / (1 + np.exp(x)), REAL),
    "tanh": elementwise("tanh", lambda x: np.sinh(x) / np.cosh(x), REAL, scale=16),
    "erf": elementwise("erf", lambda x: np.vectorize(math.erf, otypes=[x.dtype])(x), REAL),
    # trigonometry
    "sin": elementwise("sin", lambda x: np.imag(np.exp(1j * x)), REAL, scale=16),
    "cos": elementwise("cos", lambda x: np.real(np.exp(1j * x)), between(0.2, 1.4), scale=32),
    "tan": elementwise("tan", lambda x: np.sin(x) / np.cos(x), off_zero(0.2, 1.2), scale=16),
    "asin": elementwise("asin", lambda x: np.arctan2(x, np.sqrt(1 - x * x)), SMALL, scale=16),
    "acos": elementwise("acos", lambda x: np.arctan2(np.sqrt(1 - x * x), x), SMALL, scale=16),
    "atan": elementwise("atan", lambda x: np.arcsin(x / np.sqrt(1 + x * x)), REAL, scale=32),
    "atan2": elementwise("atan2", lambda y, x: np.angle(x + 1j * y), REAL, REAL, scale=16),
    "sinh": elementwise("sinh", lambda x: (np.exp(x) - np.exp(-x)) / 2, REAL, scale=32),
    "cosh": elementwise("cosh", lambda x: (np.exp(x) + np.exp(-x)) / 2, REAL, scale=16),
    "asinh": elementwise("asinh", lambda x: np.sign(x) * np.log(np.abs(x) + np.sqrt(x * x + 1)), REAL, scale=32),
    "acosh": elementwise("acosh", lambda x: np.log(x + np.sqrt(x * x - 1)), between(1.3, 3.0), scale=32),
    "atanh": elementwise("atanh", lambda x: np.log((1 + x) / (1 - x)) / 2, SMALL, scale=64),
    "hypot": elementwise("hypot", lambda x, y: np.sqrt(x * x + y * y), REAL, REAL),
    # kinks and steps
    "abs": elementwise("abs", _integer_safe(lambda x: x * np.sign(x)), REAL, integers=ANY),
    "sign": elementwise(
        "sign", _integer_safe(lambda x: (x > 0) * 1 - (x < 0) if isinstance(x, int) else (x > 0) - 1.0 * (x < 0)),
        REAL, integers=ANY),
    "floor": elementwise("floor", _integer_safe(lambda x: x - x % 1), off_integers(-3, 3), integers=ANY),
    "ceil": elementwise("ceil", _integer_safe(lambda x: x + -x % 1), off_integers(-3, 3), integers=ANY),
    "trunc": elementwise(
        "trunc", lambda x: np.sign(x) * (np.abs(x) - np.abs(x) % 1), off_integers(-3, 3),
        integers=(whole(0, 9),)),
    "round": elementwise("round", _integer_safe(lambda x: x + 0.5 - (x + 0.5) % 1 if not isinstance(x, int) else x),
                         off_integers(-3, 3), integers=ANY),
    "maximum": elementwise(
        "maximum", _integer_safe(lambda x, y: x * (x >= y) + y * (x < y)), REAL, apart(REAL, 0.5),
        integers=NUMBERS),
    "minimum": elementwise(
        "minimum", _integer_safe(lambda x, y: x * (x < y) + y * (x >= y)), REAL, apart(REAL, 0.5),
        integers=NUMBERS),
    "copysign": elementwise("copysign", lambda x, y: np.abs(x) * np.sign(y), REAL, REAL),
    "nextafter": elementwise(
        "nextafter", lambda x, y: np.vectorize(np.nextafter, otypes=[x.dtype])(x, y), REAL, apart(REAL, 0.5),
        constant=True),
    "floor_divide": elementwise(
        "floor_divide", _integer_safe(lambda x, y: (x - x % y) / y if not isinstance(x, int) else x // y),
        off_zero(2.1, 2.2), off_zero(0.8, 0.95), integers=(whole(-9, 9), whole(1, 7))),
    "remainder": elementwise(
        "remainder", _integer_safe(lambda x, y: x % y), off_zero(2.1, 2.2), off_zero(0.8, 0.95),
        integers=(whole(-9, 9), whole(1, 7)), scale=16),
    "stop_gradient": elementwise("stop_gradient", lambda x: x, REAL, constant=True),
    # linear
    "absorb": elementwise("absorb", lambda a, b: a * b, REAL, REAL),
    "where": structural(
        "where", lambda condition, x, y: condition * x + ~condition * y,
        ([np.asarray(True), (), ()], {}),
        ([np.asarray([True, False, True]), (3,), (3,)], {}),
        ([np.zeros((0, 2), bool), (0, 2), (0, 2)], {}),
        ([np.asarray([[True, False, False], [False, True, True]]), (2, 3), (2, 3)], {})),
    "cast": structural(
        "cast", lambda x, *, dtype: x.astype(dtype),
        ([(3, 5)], {"dtype": np.dtype("float64")}), ([()], {"dtype": np.dtype("float64")}),
        ([(0,)], {"dtype": np.dtype("int32")}), ([(7,)], {"dtype": np.dtype("int64")}),
        ([(7,)], {"dtype": np.dtype("bool")})),
    "positive": elementwise("positive", lambda x: x, REAL, integers=ANY),
    "broadcast_to": structural(
        "broadcast_to", _broadcast,
        ([()], {"shape": (3,)}), ([(3,)], {"shape": (2, 3)}), ([(3, 1)], {"shape": (2, 3, 5)}),
        ([(1, 1)], {"shape": (3, 5)}), ([(3, 1)], {"shape": (4, 1, 3, 2)}),
        ([(1, 1)], {"shape": (2, 1, 5)}), ([(1,)], {"shape": (0,)}), ([(5,)], {"shape": (5,)}),
        ([(1, 5)], {"shape": (1, 5)}), ([(2, 1, 3)], {"shape": (2, 0, 3)})),
    "sum": _axes("sum", "sum"),
    "permute_dims": structural(
        "permute_dims", lambda x, *, axes: np.einsum(x, list(range(x.ndim)), list(axes)),
        ([(3, 5)], {"axes": (1, 0)}), ([(2, 3, 5)], {"axes": (2, 0, 1)}), ([()], {"axes": ()}),
        ([(2, 0, 3)], {"axes": (1, 2, 0)}), ([(7,)], {"axes": (0,)})),
    "reshape": structural(
        "reshape", lambda x, *, shape: np.asarray(list(x.flat), x.dtype).reshape(shape),
        ([(3, 5)], {"shape": (5, 3)}), ([(7,)], {"shape": (1, 7, 1)}), ([()], {"shape": (1,)}),
        ([(0, 3)], {"shape": (3, 0)}), ([(2, 3, 5)], {"shape": (30,)})),
    "slice": structural(
        "slice", lambda x, *, starts, stops, steps: x[tuple(slice(*one) for one in zip(starts, stops, steps))],
        ([(7,)], {"starts": (1,), "stops": (6,), "steps": (2,)}),
        ([(3, 5)], {"starts": (0, 1), "stops": (3, 5), "steps": (2, 3)}),
        ([(7,)], {"starts": (3,), "stops": (3,), "steps": (1,)}),
        ([(2, 3)], {"starts": (0, 0), "stops": (2, 3), "steps": (1, 1)}),
        ([()], {"starts": (), "stops": (), "steps": ()}),
        ([(0, 3)], {"starts": (0, 1), "stops": (0, 2), "steps": (1, 1)})),
    "pad": structural(
        "pad", _pad,
        ([(5,)], {"low": (2,), "high": (1,), "interior": (0,)}),
        ([(3, 2)], {"low": (0, 1), "high": (2, 0), "interior": (1, 2)}),
        ([(0, 2)], {"low": (1, 0), "high": (1, 0), "interior": (2, 0)}),
        ([()], {"low": (), "high": (), "interior": ()})),
    "flip": structural(
        "flip", lambda x, *, axes: x[tuple(slice(None, None, -1 if k in axes else 1) for k in range(x.ndim))],
        ([(7,)], {"axes": (0,)}), ([(3, 5)], {"axes": (1,)}), ([(3, 5)], {"axes": (0, 1)}),
        ([(0, 3)], {"axes": (0,)}), ([(3,)], {"axes": ()})),
    "concat": structural(
        "concat", lambda *parts, axis: np.concatenate(parts, axis),
        ([(3,), (4,)], {"axis": 0}), ([(2, 3), (2, 1), (2, 0)], {"axis": 1}), ([(5, 2)], {"axis": 0}),
        ([(1, 3), (2, 3)], {"axis": 0})),
    "take": structural(
        "take", lambda x, indices, *, axis: np.take(x, indices % max(x.shape[axis], 1), axis),
        ([(7,), np.asarray([3, 0, 3, -1])], {"axis": 0}),
        ([(3, 5), np.asarray([[4, 4], [0, -5]])], {"axis": 1}),
        ([(3, 5), np.asarray(2)], {"axis": 0}),
        ([(3, 2), np.zeros((0,), "int64")], {"axis": 0}),
        ([(2, 3, 2), np.asarray([1], "uint8")], {"axis": 1})),
    "scatter_add": structural(
        "scatter_add", _scatter_add,
        ([(4,), np.asarray([3, 0, 3, -1])], {"axis": 0, "size": 7}),
        ([(3, 2, 2), np.asarray([[4, 4], [0, -5]])], {"axis": 1, "size": 5}),
        ([(5,), np.asarray(2)], {"axis": 0, "size": 3}),
        ([(0, 2), np.zeros((0,), "int64")], {"axis": 0, "size": 3})),
    "take_along": structural(
        "take_along",
        lambda x, indices: np.take_along_axis(x, indices % max(x.shape[-1], 1), -1) if indices.size
        else np.zeros(indices.shape, x.dtype),
        ([(7,), np.asarray([3, 0, 3, -1])], {}),
        ([(3, 5), np.asarray([[4, 4], [0, -5], [1, 2]])], {}),
        ([(2, 1, 3), np.asarray([[[2]], [[0]]])], {}),
        ([(3, 2), np.zeros((3, 0), "int64")], {})),
    "scatter_along": structural(
        "scatter_along", _scatter_along,
        ([(4,), np.asarray([3, 0, 3, -1])], {"size": 7}),
        ([(3, 2), np.asarray([[4, 4], [0, -5], [1, 2]])], {"size": 5}),
        ([(3, 0), np.zeros((3, 0), "int64")], {"size": 2})),
    "put": structural(
        "put", _put,
        ([(7,), np.asarray([2, 5, 0]), (3,)], {}),
        ([(5,), np.asarray([1, 3, 1, 1]), (4,)], {}),
        ([(5,), np.asarray([4, -1, 2]), (3,)], {}),
        ([(3,), np.zeros((0,), "int64"), (0,)], {})),
    "arange_like": structural(
        "arange_like", lambda x: np.asarray(range(len(x)), "int64"), ([(7,)], {}), ([(0,)], {})),
    "cumulative_sum": structural(
        "cumulative_sum", lambda x, *, axis: np.asarray(np.add.accumulate(x, axis), x.dtype),
        ([(7,)], {"axis": 0}), ([(3, 5)], {"axis": 1}), ([(2, 3, 2)], {"axis": 1}), ([(0, 3)], {"axis": 0})),
    "matmul": structural(
        "matmul", lambda x, y: np.einsum("...ij,...jk->...ik", x, y),
        ([(3, 5), (5, 2)], {}), ([(2, 3, 1), (2, 1, 3)], {}), ([(1, 7), (7, 1)], {}), ([(3, 0), (0, 2)], {}),
        ([(0, 3), (3, 2)], {}), ([(2, 1, 3, 2), (2, 1, 2, 5)], {})),
    "conv": structural(
        "conv", _conv,
        ([(1, 1, 5), (1, 1, 3)], {"strides": (1,), "dilation": (1,), "groups": 1}),
        ([(2, 3, 7), (2, 3, 2)], {"strides": (2,), "dilation": (3,), "groups": 1}),
        ([(1, 2, 8), (2, 1, 3)], {"strides": (3,), "dilation": (1,), "groups": 2}),
        ([(1, 4, 3), (6, 2, 1)], {"strides": (2,), "dilation": (5,), "groups": 2}),
        ([(1, 2, 4, 5), (1, 2, 2, 3)], {"strides": (1, 1), "dilation": (1, 1), "groups": 1}),
        ([(2, 2, 5, 3), (2, 1, 3, 1)], {"strides": (1, 2), "dilation": (2, 1), "groups": 2}),
        ([(1, 1, 6, 7), (1, 1, 2, 2)], {"strides": (3, 2), "dilation": (2, 3), "groups": 1}),
        ([(1, 1, 3, 2, 3), (2, 1, 2, 1, 2)], {"strides": (1, 1, 1), "dilation": (1, 1, 1), "groups": 1}),
        ([(0, 2, 4), (3, 2, 2)], {"strides": (1,), "dilation": (1,), "groups": 1})),
    "window": structural(
        "window", _window,
        ([(7,)], {"sizes": (3,), "strides": (2,), "dilation": (1,)}),
        ([(2, 8)], {"sizes": (2,), "strides": (1,), "dilation": (3,)}),
        ([(2, 4, 5)], {"sizes": (2, 2), "strides": (2, 2), "dilation": (1, 1)}),
        ([(5, 4)], {"sizes": (3, 1), "strides": (1, 2), "dilation": (2, 1)}),
        ([(7,)], {"sizes": (2,), "strides": (4,), "dilation": (2,)}),
        ([(0, 3)], {"sizes": (2,), "strides": (1,), "dilation": (1,)}),
        ([(3,)], {"sizes": (), "strides": (), "dilation": ()})),
    "fold": structural(
        "fold", _fold,
        ([(3, 3)], {"shape": (8,), "strides": (2,), "dilation": (1,)}),
        ([(2, 5, 2)], {"shape": (8,), "strides": (1,), "dilation": (3,)}),
        ([(2, 2, 2, 2, 2)], {"shape": (4, 5), "strides": (2, 2), "dilation": (1, 1)}),
        ([(1, 2, 3, 1)], {"shape": (5, 4), "strides": (1, 2), "dilation": (2, 1)}),
        ([(2, 5)], {"shape": (7,), "strides": (2,), "dilation": (1,)}),
        ([(2, 2)], {"shape": (8,), "strides": (4,), "dilation": (2,)}),
        ([(0, 2, 2)], {"shape": (3,), "strides": (1,), "dilation": (1,)})),
    "positions_like": structural(
        "positions_like", _positions,
        ([(7,)], {"axes": (0,)}), ([(3, 5)], {"axes": (1,)}), ([(2, 3, 4)], {"axes": (1, 2)}),
        ([(2, 3, 4)], {"axes": (0, 2)}), ([(0, 3)], {"axes": (1,)}), ([(2, 3)], {"axes": ()})),
    "first_max": structural(
        "first_max", lambda x, *, axes, keepdims: x.max(axis=tuple(axes), keepdims=keepdims),
        ([(7,)], {"axes": (0,), "keepdims": False}),
        ([(3, 5)], {"axes": (1,), "keepdims": True}),
        ([(2, 3, 4)], {"axes": (1, 2), "keepdims": False}),
        ([(2, 3, 4)], {"axes": (0, 2), "keepdims": True}),
        ([(2, 3, 4)], {"axes": (1,), "keepdims": False}),
        ([(0, 3)], {"axes": (1,), "keepdims": False}),
        ([(3,)], {"axes": (), "keepdims": True})),
    "reduce_max": _axes("reduce_max", "max"),
    "reduce_min": _axes("reduce_min", "min"),
}  # fmt: skip

WITHOUT_SAMPLES = {
    "scan": "runs a graph for each step of time: tested in test_scan.py",
    "call": "runs a whole graph: tested through checkpoint in test_transforms.py",
    "part": "reads one result of several: tested through checkpoint in test_transforms.py",
    "custom": "carries a rule of the user: tested in test_transforms.py and test_gradcheck.py",
}
"""Operations over graphs, with the place of their tests."""


@dataclass(frozen=True)
class Convention:
    """What holds at one point by decision: the value, or the cotangents for a cotangent of ones."""

    operands: tuple[Any, ...]
    value: Any = None
    cotangents: tuple[Any, ...] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    error: type[Exception] | None = None


def _f(*values: float) -> np.ndarray:
    return np.asarray(values, "float64")


def _i(*values: int, dtype: str = "int64") -> np.ndarray:
    return np.asarray(values, dtype)


INF, NAN = np.inf, np.nan
LONGEST = np.iinfo("int64").max
ROW = {"axes": (0,), "keepdims": False}

CONVENTIONS: dict[str, tuple[Convention, ...]] = {
    # kinks: the slope is 0 in the middle, ties share
    "relu": (Convention((_f(0, -0.0, NAN, -INF, INF),), _f(0, 0, NAN, 0, INF), (_f(0, 0, 0, 0, 1),)),
             Convention((_i(-3, 0, 2),), _i(0, 0, 2))),
    "abs": (Convention((_f(0, -0.0, -2),), _f(0, 0, 2), (_f(0, 0, -1),)),),
    "sign": (Convention((_f(0, NAN, -INF),), _f(0, NAN, -1), (_f(0, 0, 0),)),),
    "maximum": (Convention((_f(1, 2, NAN), _f(1, 3, 0)), _f(1, 3, NAN), (_f(0.5, 0, 0), _f(0.5, 1, 0))),
                Convention((_f(0), _f(NAN)), _f(NAN))),
    "minimum": (Convention((_f(1, 2, NAN), _f(1, 3, 0)), _f(1, 2, NAN), (_f(0.5, 1, 0), _f(0.5, 0, 0))),),
    "reduce_max": (Convention((_f(2, 1, 2),), np.asarray(2.0), (_f(0.5, 0, 0.5),), ROW),
                   Convention((_f(3, 3, 3),), _f(3), (_f(1 / 3, 1 / 3, 1 / 3),), {"axes": (0,), "keepdims": True}),
                   Convention((_f(1, NAN),), np.asarray(NAN), None, ROW),
                   Convention((_f(),), attributes=ROW, error=ShapeError)),
    "first_max": (Convention((_f(1, 2, 2),), np.asarray(2.0), (_f(0, 1, 0),), ROW),
                  Convention((_f(1, NAN, 3, NAN),), np.asarray(NAN), (_f(0, 1, 0, 0),), ROW),
                  Convention((_f(-INF, -INF),), np.asarray(-INF), (_f(1, 0),), ROW),
                  Convention((_f(5, 7, 7, 5, 7, 7).reshape(3, 2),), np.asarray(7.0),
                             (_f(0, 1, 0, 0, 0, 0).reshape(3, 2),), {"axes": (0, 1), "keepdims": False}),
                  Convention((_f(),), attributes=ROW, error=ShapeError)),
    "reduce_min": (Convention((_f(1, 1, 2),), np.asarray(1.0), (_f(0.5, 0.5, 0),), ROW),
                   Convention((_f(1, NAN),), np.asarray(NAN), None, ROW),
                   Convention((_f(),), attributes=ROW, error=ShapeError)),
    "argmax": (Convention((_f(1, 3, 3),), np.asarray(1), None, {"axis": 0}),
               Convention((_f(1, NAN, 3, NAN),), np.asarray(1), None, {"axis": 0}),
               Convention((_f(),), attributes={"axis": 0}, error=ArgumentError)),
    "argmin": (Convention((_f(2, 1, 1),), np.asarray(1), None, {"axis": 0}),
               Convention((_f(1, NAN, 0),), np.asarray(1), None, {"axis": 0})),
    "floor": (Convention((_f(2, -0.5),), _f(2, -1), (_f(0, 0),)), Convention((_i(7),), _i(7))),
    "ceil": (Convention((_f(2, -0.5),), _f(2, -0.0), (_f(0, 0),)),),
    "trunc": (Convention((_f(2, -1.5),), _f(2, -1), (_f(0, 0),)),),
    "round": (Convention((_f(0.5, 1.5, 2.5),), _f(0, 2, 2), (_f(0, 0, 0),)),),
    "copysign": (Convention((_f(3, 3), _f(-0.0, 0.0)), _f(-3, 3), (_f(-1, 1), _f(0, 0))),),
    "stop_gradient": (Convention((_f(3),), _f(3), (_f(0),)),),
    # edges of domains: what the formula says, infinities included
    "divide": (Convention((_f(1, -1, 0), _f(0, 0, 0)), _f(INF, -INF, NAN), None),
               Convention((_f(1), _f(0)), None, (_f(INF), _f(-INF)))),
    "reciprocal": (Convention((_f(0, -0.0, INF),), _f(INF, -INF, 0), (_f(-INF, -INF, 0),)),),
    "sqrt": (Convention((_f(0, -1, INF),), _f(0, NAN, INF), (_f(INF, NAN, 0),)),),
    "log": (Convention((_f(0, -1, INF),), _f(-INF, NAN, INF), None), Convention((_f(0),), None, (_f(INF),))),
    "pow": (Convention((_f(0, 0, 2), _f(0, 2, 0)), _f(1, 0, 1), None),
            Convention((_f(0, 0, 0), _f(0, 1, 2)), None, (_f(0, 1, 0), _f(-INF, 0, 0))),
            Convention((_i(2, 1, -1, -1, 0, -2), _i(-1, -5, -3, -2, -1, -2)), _i(0, 1, -1, 1, 0, 0)),
            Convention((_i(0, 3), _i(0, 0)), _i(1, 1))),
    "exp": (Convention((_f(1e4, -1e4, -INF),), _f(INF, 0, 0), (_f(INF, 0, 0),)),),
    "sigmoid": (Convention((_f(1e4, -1e4, NAN),), _f(1, 0, NAN), (_f(0, 0, NAN),)),),
    "logaddexp": (Convention((_f(INF, 1e4), _f(0, -1e4)), _f(INF, 1e4), (_f(1, 1), _f(0, 0))),),
    "hypot": (Convention((_f(0, 1e300), _f(0, 0)), _f(0, 1e300), (_f(0, 1), _f(0, 0))),),
    "atan2": (Convention((_f(0, 1), _f(-1, 0)), _f(np.pi, np.pi / 2), (_f(-1, 0), _f(0, -1))),
              Convention((_f(0), _f(0)), _f(0), (_f(0), _f(0)))),
    "remainder": (Convention((_f(-7, 7), _f(3, -3)), _f(2, -2), (_f(1, 1), _f(3, 3))),
                  Convention((_i(-7, 7, 5), _i(3, -3, 0)), _i(2, -2, 0))),
    "floor_divide": (Convention((_i(7, -7, 5, 0), _i(2, 2, 0, 0)), _i(3, -4, 0, 0)),
                     Convention((_i(-LONGEST - 1), _i(-1)), _i(-LONGEST - 1)),
                     Convention((_f(7), _f(2)), _f(3), (_f(0), _f(0)))),
    # strong zero and IEEE
    "absorb": (Convention((_f(0, INF, 0, NAN, 2), _f(INF, 0, NAN, 0, 3)), _f(0, 0, 0, 0, 6), None),
               Convention((_f(0), _f(INF)), None, (_f(INF), _f(0))),
               Convention((_f(INF, NAN), _f(2, 1)), _f(INF, NAN))),
    "multiply": (Convention((_f(0), _f(INF)), _f(NAN), None),),
    "matmul": (Convention((_f(0, 1).reshape(1, 2), _f(INF, 1).reshape(2, 1)), _f(NAN).reshape(1, 1), None),),
    "where": (Convention((np.asarray([True, False]), _f(1, NAN), _f(INF, 2)), _f(1, 2), (_f(1, 0), _f(0, 1))),),
    # integers: shifts, casts, indices
    "bitwise_left_shift": (
        Convention((_i(1, 1, 3, dtype="int8"), _i(7, 8, -1, dtype="int8")), _i(-128, 0, 0, dtype="int8")),
        Convention((_i(1, dtype="uint64"), _i(64, dtype="uint64")), _i(0, dtype="uint64"))),
    "bitwise_right_shift": (
        Convention((_i(-8, -8, 8, dtype="int8"), _i(1, 8, 100, dtype="int8")), _i(-4, -1, 0, dtype="int8")),
        Convention((_i(255, 255, dtype="uint8"), _i(4, 8, dtype="uint8")), _i(15, 0, dtype="uint8"))),
    "cast": (
        Convention((_f(NAN, INF, -INF, 1.9, -1.9, 300),), _i(0, 127, -128, 1, -1, 127, dtype="int8"), None,
                   {"dtype": np.dtype("int8")}),
        Convention((_f(NAN, INF, -1),), _i(0, 255, 0, dtype="uint8"), None, {"dtype": np.dtype("uint8")}),
        Convention((_f(1e30, -1e30),), _i(LONGEST, -LONGEST - 1), None, {"dtype": np.dtype("int64")}),
        Convention((_f(NAN, 0, 2),), np.asarray([True, False, True]), None, {"dtype": np.dtype("bool")})),
    "take": (Convention((_f(1, 2, 3), _i(-1, 0)), _f(3, 1), (_f(1, 0, 1),), {"axis": 0}),
             Convention((_f(1, 2, 3), _i(3)), attributes={"axis": 0}, error=BoundsError),
             Convention((_f(1, 2, 3), _i(-4)), attributes={"axis": 0}, error=BoundsError),
             Convention((_f(), _i(0)), attributes={"axis": 0}, error=BoundsError)),
    "scatter_add": (Convention((_f(1, 2), _i(0, 3)), attributes={"axis": 0, "size": 3}, error=BoundsError),
                    Convention((_f(1, 2), _i(-1, 0)), _f(2, 0, 1), (_f(1, 1),), {"axis": 0, "size": 3})),
    "take_along": (Convention((_f(1, 2, 3), _i(3)), error=BoundsError),
                   Convention((_f(1, 2, 3), _i(-4)), error=BoundsError)),
    "scatter_along": (Convention((_f(1), _i(3)), attributes={"size": 3}, error=BoundsError),),
    "from_front": (Convention((_i(3),), attributes={"size": 3}, error=BoundsError),
                   Convention((_i(-4),), attributes={"size": 3}, error=BoundsError)),
    "put": (Convention((_f(1, 2, 3), _i(1, 1), _f(8, 9)), _f(1, 9, 3), (_f(1, 0, 1), _f(0, 1))),
            Convention((_f(1, 2, 3), _i(3), _f(8)), error=BoundsError)),
    "sum": (Convention((_f(),), np.asarray(0.0), (_f(),), ROW),
            Convention((_f(INF, -INF),), np.asarray(NAN), None, ROW)),
}  # fmt: skip
"""The conventions at kinks and edges, one page: every engine must agree with it."""
