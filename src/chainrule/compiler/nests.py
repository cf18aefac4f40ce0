"""One nest of loops while it is being written: what is read where, and which loops there are.

A value is written where it is read; views disappear into positions. Loops run in the order in which the result lies
in memory: as one flat loop where no position needs a division, else as two, else with a loop for each axis, and for
parts of an axis where those are what is read.
Knows operations by the form of their lowering; knows nothing of what a group stores, and nothing of LLVM.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from math import prod

from ..errors import GraphError
from ..graph import Node
from ..operations import Type
from ..ops.lowering import Gather, Scalar, View
from . import loops as ir
from .builder import Builder
from .forms import elements, lowering_of
from .fuse import Group
from .indices import Atom, Index, Quotient, Remainder, Variable
from .loops import Accumulator, For, Statement, Store, Value
from .plan import Buffer, Plan
from .simplify import uniform

Position = Sequence[Index | int]

# How axes become loops: all in one, the last in memory apart, one loop for each.
GROUPINGS = ("flat", "rows", "axes")

# Into so many parts a nest is cut at most where its operands begin and end.
_MOST_PIECES = 8


class Reader:
    """An operand as a `Gather` or `Scatter` rule sees it: called with a position, it gives the element."""

    def __init__(self, nest: NestWriter, node: Node) -> None:
        self.nest, self.node = nest, node

    @property
    def type(self) -> Type:
        """The operand's type."""
        return self.node.type

    def __call__(self, position: Position) -> Value:
        """The element at a position."""
        return self.nest.read(self.node, position)


class NestWriter(Builder):
    """Reads operands, opens loops and stores results for one group."""

    def __init__(self, plan: Plan, group: Group) -> None:
        super().__init__()
        self.plan, self.group, self.names = plan, group, plan.names
        self.body: list[Statement] = []
        self.memo: dict[tuple[Node, tuple[Index, ...]], Value] = {}
        self.offsets = plan.offsets
        self._variables = self._axes = 0
        self.grouping = GROUPINGS[0]
        self.numbers: dict[Variable, int] = {}
        self.cuts: dict[int, tuple[int, ...]] = {}
        self.edges: dict[int, set[int]] = {}
        self.pieces: dict[int, tuple[int, ...]] = {}
        self.piece: dict[int, tuple[int, int]] = {}
        self.splits = False

    def divides(self) -> bool:
        """Whether some position needs a quotient or remainder."""
        return any(isinstance(atom, Quotient | Remainder) for atom in self._atoms())

    def useful_cuts(self) -> dict[int, tuple[int, ...]]:
        """For loops (by number) of whose variable only parts are read: the extents of those, if they are whole."""
        divisors: dict[int, set[int]] = {}
        for atom in self._atoms():
            found = _divided(atom)
            if found is not None:
                divisors.setdefault(self.numbers[found[0]], set()).update(found[1])
        cuts = {}
        extents = {number: variable.extent for variable, number in self.numbers.items()}
        for number, given in divisors.items():
            chain = [extents[number], *sorted(given, reverse=True)]
            if all(outer % inner == 0 and outer > inner for outer, inner in itertools.pairwise(chain)):
                cuts[number] = (*(outer // inner for outer, inner in itertools.pairwise(chain)), chain[-1])
        return cuts

    def useful_pieces(self) -> dict[int, tuple[int, ...]]:
        """For loops (by number) in which an operand exists on a stretch only: where such stretches begin and end."""
        extents = {number: variable.extent for variable, number in self.numbers.items()}
        found = {
            number: (0, *sorted(edges), extents[number]) for number, edges in self.edges.items() if edges
        }
        return found if prod(len(edges) - 1 for edges in found.values()) <= _MOST_PIECES else {}

    def strided(self, position: Index | int, before: int, step: int, size: int) -> tuple[Index, Value]:
        """As for every rule; notes where along a loop the stretch of an operand begins and ends."""
        place = Index.of(position)
        if self.splits and step == 1 and len(place.terms) == 1:
            ((atom, factor),) = place.terms
            if isinstance(atom, Variable) and atom in self.numbers and factor == 1:
                edges = {before - place.constant, before + size - place.constant}
                inside = {edge for edge in edges if 0 < edge < atom.extent}
                self.edges.setdefault(self.numbers[atom], set()).update(inside)
        return super().strided(position, before, step, size)

    def _atoms(self) -> Iterator[Atom]:
        """Everything that positions are made of."""
        indices = []
        for statement in ir.walk(self.body):
            if isinstance(statement, Store):
                indices.append(statement.index)
            elif isinstance(statement, Value) and statement.opcode == "load":
                indices.append(statement.detail[1])
            elif isinstance(statement, Value) and statement.opcode == "number":
                indices.append(statement.detail)
        for index in indices:
            yield from index.atoms()

    # ------------------------------------------------------------------------------- reading values

    def read(self, node: Node, position: Position) -> Value:
        """The element of a node at a position: from memory, as a number, or computed here."""
        where = tuple(one if type(one) is Index else Index.of(one) for one in position) if node.shape else ()
        key = (node, where)
        if key not in self.memo:
            outer, self.dtype = self.dtype, node.dtype
            self.memo[key] = self._element(node, where)
            self.dtype = outer
        return self.memo[key]

    def _element(self, node: Node, where: tuple[Index, ...]) -> Value:
        if not elements(node):  # around it something may be: the zeros of a pad, the other part of a concat
            return self.literal(0, node.dtype)
        number = uniform(node) if self.plan.fusion.stored(node) else None
        if number is not None:
            return self.literal(number, node.dtype)
        if self.plan.fusion.stored(node):
            return self.load(self.plan.buffers[node], self.offset(where, self.plan.buffers[node]))
        return self.compute(node, where)

    def compute(self, node: Node, where: Position) -> Value:
        """The element of a node from its operands' elements."""
        form = lowering_of(node)
        if isinstance(form, View):
            (x,) = node.inputs
            return self.read(x, form.index(list(where), x.type, node.type, **node.attributes))
        if isinstance(form, Gather):
            operands = [Reader(self, operand) for operand in node.inputs]
            return self._typed(form.element(self, list(where), operands, node.type, **node.attributes), node)
        if isinstance(form, Scalar):
            values = [self.read(operand, where if operand.shape else ()) for operand in node.inputs]
            self.dtype = node.inputs[-1].dtype
            return self._typed(form.emit(self, *values, **node.attributes), node)
        raise GraphError(f"{node!r} cannot be computed inside another nest")

    def offset(self, where: tuple[Index | int, ...], buffer: Buffer) -> Index:
        """The place in memory; most operands of a nest are read at the same one."""
        key = where, buffer.type.shape, buffer.axes
        if key not in self.offsets:
            self.offsets[key] = buffer.at(where)
        return self.offsets[key]

    def _typed(self, value: Value, node: Node) -> Value:
        if value.dtype != node.dtype:
            raise GraphError(f"the loop body of {node.operation.name} gives {value.dtype}, not {node.dtype}")
        return value

    # ------------------------------------------------------------------------------- writing nests

    def variable(self, extent: int) -> Variable:
        """A new loop variable: i, j, k, … as they come."""
        name = "ijklmnopqr"[self._variables % 10] + (
            "" if self._variables < 10 else str(self._variables // 10)
        )
        self._variables += 1
        return Variable(name, extent)

    def axes_of(self, node: Node) -> tuple[int, ...]:
        """The order of a node's axes in memory, whether it is stored or not."""
        order = self.plan.fusion.orders.get(node)
        return () if order is None else order.axes

    def loop(
        self,
        shape: Sequence[int],
        inside: Callable[[list[Index]], None],
        order: Sequence[int] = (),
        grouping: str | None = None,
    ) -> None:
        """`inside(position)` for every position of a shape.

        order: its axes from the outermost loop to the innermost.
        """
        if 0 in shape:
            return
        outer = self.block
        order = order or range(len(shape))
        sizes = [shape[axis] for axis in order]
        first, known = self._axes, dict(self.memo)  # what is computed inside does not exist afterwards
        for piece in self._ways(first, len(sizes)):
            self._axes, self.piece = first, piece
            terms = self._terms(sizes, grouping or self.grouping)
            position = [terms[place] for place in _inverse(order)]
            inside(position)
            self.block, self.memo = outer, dict(known)

    def _ways(self, first: int, count: int) -> list[dict[int, tuple[int, int]]]:
        """For each part into which the next loops are cut, which stretch of each loop it is; usually one, of all."""
        if not self.splits:
            return [{}]
        numbers = [number for number in range(first, first + count) if number in self.pieces]
        stretches = [itertools.pairwise(self.pieces[number]) for number in numbers]
        return [dict(zip(numbers, chosen)) for chosen in itertools.product(*stretches)]

    def _terms(self, sizes: list[int], grouping: str) -> list[Index]:
        """New loops inside each other, and the position along each axis."""
        apart = {"flat": 0, "rows": 1, "axes": len(sizes)}[grouping]
        if len(sizes) - apart < 2:
            return [self._axis(size) for size in sizes]
        together, rest = sizes[: len(sizes) - apart], sizes[len(sizes) - apart :]
        if not rest and not self.cuts and not self._variables:
            return self._first_flat(tuple(together))
        flat = self._axis(prod(together))
        terms = []
        for size in reversed(together):
            terms.append(flat % size)
            flat = flat // size
        return [*reversed(terms), *map(self._axis, rest)]

    def _first_flat(self, sizes: tuple[int, ...]) -> list[Index]:
        """One loop before all others. Nests of equal sizes share its variable, and so what follows from it."""
        if sizes not in self.plan.flat:
            variable = self.variable(prod(sizes))
            place, terms = Index.of(variable), []
            for size in reversed(sizes):
                terms.append(place % size)
                place = place // size
            self.plan.flat[sizes] = variable, terms[::-1]
        variable, found = self.plan.flat[sizes]
        self._variables = 1
        self.numbers[variable], self._axes = self._axes, self._axes + 1
        self._open(variable)
        return found

    def _axis(self, size: int) -> Index:
        """A loop along one axis, or one for each part of it; the position."""
        number, self._axes = self._axes, self._axes + 1
        if number in self.piece:
            start, end = self.piece[number]
            variable = self.variable(end - start)
            self._open(variable)
            return Index.of(variable) + start
        place = Index(0)
        for extent in self.cuts.get(number, (size,)):
            variable = self.variable(extent)
            self.numbers[variable] = number
            self._open(variable)
            place = place * extent + Index.of(variable)
        return place

    def _open(self, variable: Variable) -> None:
        loop = For(variable)
        self.block.append(loop)
        self.block = loop.body

    def store(self, buffer: Buffer, position: Position, value: Value) -> None:
        """buffer[position] = value."""
        self.block.append(Store(buffer, self.offset(tuple(position), buffer), value))

    def accumulate(self, initial: Value, more: str = "") -> Accumulator:
        """A new number that lives through the loops that follow."""
        accumulator = Accumulator(f"a{self._count}{more}", initial.dtype, initial)
        self.block.append(accumulator)
        return accumulator


def _inverse(order: Sequence[int]) -> list[int]:
    """Where each axis stands in an order."""
    return [list(order).index(axis) for axis in range(len(order))]


def _divided(atom: Atom) -> tuple[Variable, set[int]] | None:
    """(variable, divisors), if an atom is some digits of a variable: x // d, x % d, x // c % d."""
    if not isinstance(atom, Quotient | Remainder) or atom.index.constant or len(atom.index.terms) != 1:
        return None
    ((inner, factor),) = atom.index.terms
    if factor != 1:
        return None
    if isinstance(inner, Variable):
        return inner, {atom.divisor}
    if isinstance(inner, Quotient) and isinstance(atom, Remainder):
        found = _divided(inner)
        return None if found is None else (found[0], found[1] | {inner.divisor * atom.divisor})
    return None
