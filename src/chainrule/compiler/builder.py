"""What the `lower=` rules of operations write with: one value of a loop body from others.

The meaning at the edges (NaN, signed zero, casts out of range, integers that wrap) is that of the NumPy bodies.
Knows values and indices; knows nothing of graphs, groups or LLVM.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import Dtype, bool_, int64
from . import mathlib, polynomials
from .indices import Dynamic, Index
from .loops import Accumulator, Statement, Value
from .plan import Buffer


class Builder:
    """Appends to `block`, the innermost loop body that is being written. `dtype` is that of plain numbers."""

    def __init__(self) -> None:
        self.block: list[Statement] = []
        self.dtype: Dtype = np.dtype("float64")
        self.flags = ""
        self._count = 0

    def value(self, opcode: str, dtype: Dtype, *operands: Value, detail: Any = None) -> Value:
        """One more value at the end of the block."""
        flags = self.flags if dtype.kind == "f" and opcode in ("add", "subtract", "multiply") else ""
        name = "" if opcode == "constant" else f"v{self._count}"
        self._count += bool(name)
        made = Value(name, opcode, dtype, operands, detail, flags)
        self.block.append(made)
        return made

    # ------------------------------------------------------------------------------- numbers, memory

    def literal(self, number: Any, dtype: Dtype) -> Value:
        """A number of a dtype."""
        return self.value("constant", dtype, detail=np.asarray(number).astype(dtype)[()])

    def constant(self, number: float) -> Value:
        """A number of the current dtype."""
        return self.literal(number, self.dtype)

    def true(self) -> Value:
        """The bool true."""
        return self.literal(True, bool_)

    def all_bits(self) -> Value:
        """All bits set, in the current dtype."""
        return self.literal(True if self.dtype.kind == "b" else -1, self.dtype)

    def lowest(self) -> Value:
        """What no number of the current dtype is below."""
        return self.constant(-np.inf if self.dtype.kind == "f" else self._limits()[0])

    def highest(self) -> Value:
        """What no number of the current dtype is above."""
        return self.constant(np.inf if self.dtype.kind == "f" else self._limits()[1])

    def _limits(self) -> tuple[int, int]:
        if self.dtype.kind == "b":
            return 0, 1
        return int(np.iinfo(self.dtype).min), int(np.iinfo(self.dtype).max)

    def load(self, buffer: Buffer, index: Index) -> Value:
        """The buffer's element at the index."""
        return self.value("load", buffer.type.dtype, detail=(buffer, index))

    def number(self, index: Index | int) -> Value:
        """A position as an int64."""
        return self.value("number", int64, detail=Index.of(index))

    def current(self, accumulator: Accumulator) -> Value:
        """What the accumulator holds now."""
        return self.value("read", accumulator.dtype, detail=accumulator)

    # ------------------------------------------------------------------------------- arithmetic

    def add(self, x: Value, y: Value) -> Value:
        """x + y; or, on bools."""
        return self.value("add" if x.dtype.kind != "b" else "or", x.dtype, x, y)

    def subtract(self, x: Value, y: Value) -> Value:
        """x − y."""
        return self.value("subtract", x.dtype, x, y)

    def multiply(self, x: Value, y: Value) -> Value:
        """x · y; and, on bools."""
        return self.value("multiply" if x.dtype.kind != "b" else "and", x.dtype, x, y)

    def divide(self, x: Value, y: Value) -> Value:
        """x / y of floats."""
        return self.value("divide", x.dtype, x, y)

    def negative(self, x: Value) -> Value:
        """−x; integers wrap around."""
        if x.dtype.kind == "f":
            return self.value("negative", x.dtype, x)
        return self.subtract(self.literal(0, x.dtype), x)

    def absolute(self, x: Value) -> Value:
        """|x|; the most negative integer stays."""
        if x.dtype.kind == "f":
            return self.value("absolute", x.dtype, x)
        if x.dtype.kind != "i":
            return x
        return self.select(self.less(x, self.literal(0, x.dtype)), self.negative(x), x)

    def maximum(self, x: Value, y: Value) -> Value:
        """The larger; NaN if either is."""
        return self.value("maximum" if x.dtype.kind != "b" else "or", x.dtype, x, y)

    def minimum(self, x: Value, y: Value) -> Value:
        """The smaller; NaN if either is."""
        return self.value("minimum" if x.dtype.kind != "b" else "and", x.dtype, x, y)

    def absorb(self, x: Value, y: Value) -> Value:
        """x·y; 0 instead of NaN where either is 0."""
        product = self.multiply(x, y)
        if x.dtype.kind != "f":
            return product
        zero = self.literal(0, x.dtype)
        asked = next((one.operands[0] for one in (x, y) if one.opcode == "cast"), zero)
        if asked.dtype == bool_:  # beside 0 or 1 only a 0 makes NaN of a number
            either = self.bits("xor", asked, self.true())
        else:
            either = self.bits("or", self.equal(x, zero), self.equal(y, zero))
        return self.select(self.bits("and", self.not_equal(product, product), either), zero, product)

    def sqrt(self, x: Value) -> Value:
        """√x."""
        return self.value("sqrt", x.dtype, x)

    def floor_divide(self, x: Value, y: Value) -> Value:
        """⌊x / y⌋."""
        return mathlib.divided(self, x, y)[0]

    def remainder(self, x: Value, y: Value) -> Value:
        """x − y·⌊x / y⌋."""
        return mathlib.divided(self, x, y)[1]

    def rounded(self, way: str, x: Value) -> Value:
        """x as a whole number: "floor", "ceil", "trunc", or "round" (halves to even)."""
        return self.value(way, x.dtype, x) if x.dtype.kind == "f" else x

    def sign(self, x: Value) -> Value:
        """−1, 0 or 1; NaN stays."""
        zero, one = self.literal(0, x.dtype), self.literal(1, x.dtype)
        below = self.literal(-1, x.dtype) if x.dtype.kind != "u" else zero
        rest = self.select(self.equal(x, zero), zero, x) if x.dtype.kind == "f" else zero
        return self.select(self.less(zero, x), one, self.select(self.less(x, zero), below, rest))

    def library(self, name: str, *operands: Value) -> Value:
        """A function of the C library, by its name for doubles; written out where that vectorises."""
        if name in polynomials.OWN:
            return polynomials.OWN[name](self, *operands)
        if name == "copysign":
            return self.value("copysign", operands[0].dtype, *operands)
        return self.value("library", operands[0].dtype, *operands, detail=name)

    def unless(self, condition: Value, x: Value, name: str, *operands: Value) -> Value:
        """x where the condition holds, otherwise a function of the C library: called for those elements only."""
        return self.value("unless", x.dtype, condition, x, *operands, detail=name)

    def exp(self, x: Value) -> Value:
        """eˣ."""
        return self.library("exp", x)

    def log(self, x: Value) -> Value:
        """Natural logarithm."""
        return self.library("log", x)

    def tanh(self, x: Value) -> Value:
        """Hyperbolic tangent."""
        return mathlib.tanh(self, x)

    def sigmoid(self, x: Value) -> Value:
        """1 / (1 + e⁻ˣ)."""
        return mathlib.sigmoid(self, x)

    def logaddexp(self, x: Value, y: Value) -> Value:
        """log(eˣ + eʸ)."""
        return mathlib.logaddexp(self, x, y)

    # ------------------------------------------------------------------------------- choices, bits, casts

    def bitcast(self, x: Value, dtype: Dtype) -> Value:
        """The same bits, read as another type of the same size."""
        return self.value("bitcast", dtype, x)

    def equal(self, x: Value, y: Value) -> Value:
        """x = y."""
        return self.value("equal", bool_, x, y)

    def not_equal(self, x: Value, y: Value) -> Value:
        """x ≠ y; true for NaN."""
        return self.value("not_equal", bool_, x, y)

    def less(self, x: Value, y: Value) -> Value:
        """x < y."""
        return self.value("less", bool_, x, y)

    def less_equal(self, x: Value, y: Value) -> Value:
        """x ≤ y."""
        return self.value("less_equal", bool_, x, y)

    def select(self, condition: Value, x: Value, y: Value) -> Value:
        """x where the condition holds, otherwise y."""
        if condition.opcode == "constant":
            return x if condition.detail else y
        return self.value("select", x.dtype, condition, x, y)

    def bits(self, way: str, x: Value, y: Value) -> Value:
        """Bit by bit "and", "or", "xor"; on bools too."""
        for one, other in ((x, y), (y, x)):
            if way == "and" and one.opcode == "constant" and one.dtype == bool_ and one.detail:
                return other
            if way == "and" and one.opcode == "constant" and one.dtype == bool_:
                return one
        return self.value(way, x.dtype, x, y)

    def shifted(self, way: str, x: Value, y: Value) -> Value:
        """Bits moved "left" or "right" by y; beyond the width 0 is left, of signed numbers moved right the sign."""
        zero, width = self.literal(0, y.dtype), self.literal(x.dtype.itemsize * 8, y.dtype)
        last = self.literal(x.dtype.itemsize * 8 - 1, y.dtype)
        inside = self.bits("and", self.less_equal(zero, y), self.less(y, width))
        moved = self.value("shl" if way == "left" else "shr", x.dtype, x, self.select(inside, y, last))
        if way == "right" and x.dtype.kind == "i":
            return moved
        return self.select(inside, moved, self.literal(0, x.dtype))

    def cast(self, x: Value, dtype: Dtype) -> Value:
        """Another dtype; floats saturate in integers, and NaN becomes 0."""
        if dtype == x.dtype:
            return x
        if dtype == bool_:
            return self.not_equal(x, self.literal(0, x.dtype))
        return self.value("cast", dtype, x)

    # ------------------------------------------------------------------------------- positions from memory

    def index(self, value: Value, size: int) -> Index:
        """A number read from memory as a position: negative ones count from the end.

        What lies outside is moved inside (the step's checks report it; memory is never left).
        """
        if size <= 0:
            return Index(0)
        whole, zero = self.cast(value, int64), self.literal(0, int64)
        if value.dtype.kind == "i":
            shifted = self.add(whole, self.literal(size, int64))
            whole = self.select(self.less(whole, zero), shifted, whole)
        last = self.literal(size - 1, int64)
        return Index.of(Dynamic(self.minimum(self.maximum(whole, zero), last), size))

    def strided(self, position: Index | int, before: int, step: int, size: int) -> tuple[Index, Value]:
        """(k, does it exist): the k from 0 to size − 1 with before + k·step = position; a safe k if there is none."""
        place = Index.of(position)
        if size <= 0:
            return Index(0), self.literal(False, bool_)
        last = (size - 1) * step
        if step == 1 and place.low >= before and place.high <= before + last:
            return place - before, self.true()
        if place.high < before or place.low > before + last:
            return Index(0), self.literal(False, bool_)
        away = self.subtract(self.number(place), self.literal(before, int64))
        zero, end = self.literal(0, int64), self.literal(last, int64)
        hit = self.bits("and", self.less_equal(zero, away), self.less_equal(away, end))
        inside = Index.of(Dynamic(self.minimum(self.maximum(away, zero), end), last + 1))
        if step > 1:
            hit = self.bits("and", hit, self.equal(self.number(inside % step), zero))
        return inside // step, hit
