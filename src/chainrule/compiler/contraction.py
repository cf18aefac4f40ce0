"""A Contraction: which of its variables are rows, columns and batch, and what it is as plain loops.

Only steps decide, that is how far a variable moves in the operands and in the result; so products and convolutions,
their gradients and their transposes are told apart by nothing but where their elements lie.
Knows nothing of graphs, or of the machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from ..ops.totals import kept_in
from .builder import Builder
from .indices import Atom, Index, Variable
from .loops import Accumulator, Contraction, For, Statement, Store, Update, Value
from .plan import Buffer

Part = tuple[Buffer, Index]

# Rows that fill a tile of the result well enough, and columns of which a vector is full.
_ENOUGH_ROWS = 6
_VECTOR = 8
# Multiplications that take as long as moving one element.
_TIMES_FASTER = 16


# ------------------------------------------------------------------------------------------- roles


def arrange(
    result: Sequence[Variable], inner: Sequence[Variable], left: Part, right: Part, out: Part
) -> Contraction:
    """out = Σ left · right with the variables in their roles; neighbours that always move together become one."""
    return _Roles(list(result), list(inner), left, right, out).found()


class _Roles:
    """Variables of the result sorted by the operands that they move."""

    def __init__(
        self, result: list[Variable], inner: list[Variable], left: Part, right: Part, out: Part
    ) -> None:
        self.inner = inner
        self.parts = [left, right, out]
        self.even = all(isinstance(atom, Variable) for _, index in self.parts for atom, _ in index.terms)
        self.lefts = [v for v in result if self.step(0, v) and not self.step(1, v)]
        self.rights = [v for v in result if self.step(1, v) and not self.step(0, v)]
        self.both = [v for v in result if self.step(0, v) and self.step(1, v)]
        free = [v for v in result if not self.step(0, v) and not self.step(1, v)]
        for group in (self.rights, self.lefts):
            if free and not group:
                group.append(free.pop())
        self.both += free

    def step(self, part: int, variable: Variable) -> int:
        """How far a variable moves: in the left operand (0), the right one (1), the result (2)."""
        return self.parts[part][1].coefficient(variable)

    def found(self) -> Contraction:
        """The contraction; where steps are not even, with the last two variables as rows and columns."""
        if self.even:
            self.lefts = self._merged(self.lefts, 2)
            self.rights = self._merged(self.rights, 2)
            several = [v for v in self.inner if v.extent > 1] or self.inner[-1:]
            self._forget(v for v in self.inner if v not in several)
            self.inner = self._merged(several, 0)
        columns = self._columns()
        if columns in self.lefts:
            self.parts[:2] = self.parts[1::-1]
            self.lefts, self.rights = self.rights, self.lefts
        rest = [v for v in self.lefts if v is not columns]
        rows = self._rows(rest) if rest else Variable("one", 1)
        batch = [v for v in (*self.both, *self.lefts, *self.rights) if v not in (rows, columns)]
        self._forget(v for v in batch if v.extent == 1)
        batch = sorted((v for v in batch if v.extent > 1), key=lambda v: v.order)
        left, right, out = self.parts
        by_rows = right[1].coefficient(columns) == 1 and columns.extent > 1
        return Contraction(tuple(batch), rows, columns, tuple(self.inner), left, right, out, by_rows)

    def _forget(self, variables: Iterable[Variable]) -> None:
        """Variables of one element are 0 always."""
        nothing: dict[Atom, Index] = {v: Index(0) for v in variables}
        self.parts = [(buffer, index.substitute(nothing)) for buffer, index in self.parts]

    def _merged(self, variables: list[Variable], part: int) -> list[Variable]:
        """The variables by their steps in a part, widest first; neighbours that always move together as one."""
        done: list[Variable] = []
        for variable in sorted(variables, key=lambda v: -abs(self.step(part, v))):
            before = done[-1] if done else None
            if (
                before is not None
                and 1 not in (before.extent, variable.extent)
                and self._together(before, variable)
            ):
                one = Variable(before.name, before.extent * variable.extent, before.order)
                moves: dict[Atom, Index] = {before: Index(0), variable: Index.of(one)}
                self.parts = [(buffer, index.substitute(moves)) for buffer, index in self.parts]
                done[-1] = one
            else:
                done.append(variable)
        return done

    def _together(self, outer: Variable, inner: Variable) -> bool:
        return all(self.step(k, outer) == self.step(k, inner) * inner.extent for k in range(3))

    def _columns(self) -> Variable:
        """Along which the result is computed in vectors: where it lies side by side, or else what costs least."""
        side_by_side = [v for v in self.rights if self.step(2, v) == 1]
        best = max(side_by_side, key=lambda v: v.extent, default=None)
        if best is not None and (best.extent > 1 or len(self.inner) == 1):
            return best
        vectors = [v for v in self.both if self.step(0, v) == 1 and v.extent > 1]
        candidates = [*self.rights, *self.lefts, *vectors]
        return min(candidates, key=self._cost, default=Variable("one", 1))

    def _cost(self, columns: Variable) -> float:
        """Elements that have to be moved on the way, and lanes of vectors that stay empty."""
        everything = [*self.lefts, *self.rights, *self.both, *self.inner]
        operand = 0 if columns in self.lefts else 1
        work = prod(v.extent for v in everything)
        full = -(-columns.extent // _VECTOR) * _VECTOR
        cost = work * full / columns.extent / _TIMES_FASTER
        if self.step(operand, columns) != 1:
            cost += prod(v.extent for v in everything if self.step(operand, v))
        if self.step(2, columns) != 1:
            cost += prod(v.extent for v in everything if self.step(2, v))
        return cost

    def _rows(self, variables: list[Variable]) -> Variable:
        """Neighbours in the left operand, if there are enough of them for a tile."""
        enough = [v for v in variables if v.extent >= _ENOUGH_ROWS]
        if enough:
            return min(reversed(enough), key=lambda v: abs(self.step(0, v)))
        return max(reversed(variables), key=lambda v: v.extent)


# -------------------------------------------------------------------------------------- plain loops


def expand(one: Contraction) -> list[Statement]:
    """Loops over batch, rows, columns and the inner axes; the innermost one runs along memory."""
    builder = Builder()
    whole: list[Statement] = []
    builder.block = whole
    _open(builder, (*one.batch, one.rows))
    kept = kept_in(one.out[0].type.dtype, prod(v.extent for v in one.inner))
    (_by_rows if one.by_rows and kept == one.out[0].type.dtype else _by_elements)(builder, one)
    return whole


def _open(builder: Builder, variables: Iterable[Variable]) -> list[Statement]:
    """Write into new loops from now on; returns the block around them."""
    outer = builder.block
    for variable in variables:
        loop = For(variable)
        builder.block.append(loop)
        builder.block = loop.body
    return outer


def _by_rows(builder: Builder, one: Contraction) -> None:
    """A row of the result is cleared, then grows by one scaled row of the right operand after the other."""
    outer = _open(builder, (one.columns,))
    builder.block.append(Store(*one.out, builder.literal(0, one.out[0].type.dtype)))
    builder.block = outer
    _open(builder, (*one.inner, one.columns))
    builder.block.append(Store(*one.out, _step(builder, one, builder.load(*one.out))))


def _by_elements(builder: Builder, one: Contraction) -> None:
    """Each element is one sum in a register, in float64 if it is long."""
    _open(builder, (one.columns,))
    dtype = one.out[0].type.dtype
    kept = kept_in(dtype, prod(v.extent for v in one.inner))
    total = Accumulator("total", kept, builder.literal(0, kept))
    builder.block.append(total)
    outer = _open(builder, one.inner)
    builder.block.append(Update(total, _step(builder, one, builder.current(total), "reassoc contract")))
    builder.block = outer
    builder.block.append(Store(*one.out, builder.cast(builder.current(total), dtype)))


def _step(builder: Builder, one: Contraction, total: Value, flags: str = "contract") -> Value:
    """total + left · right; the product need not be rounded before it is added."""
    left, right = (builder.cast(builder.load(*part), total.dtype) for part in (one.left, one.right))
    builder.flags = "contract"
    product = builder.multiply(left, right)
    builder.flags = flags
    result = builder.add(total, product)
    builder.flags = ""
    return result
