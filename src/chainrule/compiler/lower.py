"""Groups and buffers → Loops: one nest of loops for each group.

A value is written where it is read; views disappear into positions. Loops run in row-major order, as one flat
loop where no position needs a division.
Knows operations by the form of their lowering; knows nothing of LLVM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from ..errors import GraphError
from ..graph import Names, Node, print_graph
from ..operations import Type
from ..ops import lowering as forms
from ..ops.lowering import HOST, Gather, Reduce, Running, Scalar, Scatter, View
from ..ops.lowering import Contraction as ContractionForm
from . import loops as ir
from .builder import Builder
from .fuse import Group, elements, lowering_of
from .indices import Index, Quotient, Remainder, Variable, offset
from .loops import Accumulator, For, Loops, Nest, Statement, Store, Update, Value
from .plan import Buffer, Plan
from .simplify import uniform

Position = Sequence[Index | int]

# From this many elements on a sum is folded in float64: a float32 total stops growing at 2²⁴ times its terms.
_WIDE_FROM = 1 << 16


def lower(plan: Plan) -> Loops:
    """Write the loops of every group, in order."""
    names = Names()
    list(print_graph(plan.fusion.graph, names))
    nests = [_Nest(plan, group, names).build() for group in plan.fusion.groups]
    return ir.verify(Loops(plan.fusion.graph.name, nests))


class _Reader:
    """An operand as a `Gather` or `Scatter` rule sees it: called with a position, it gives the element."""

    def __init__(self, nest: _Nest, node: Node) -> None:
        self.nest, self.node = nest, node

    @property
    def type(self) -> Type:
        """The operand's type."""
        return self.node.type

    def __call__(self, position: Position) -> Value:
        return self.nest.read(self.node, position)


class _Nest(Builder):
    """Writes the statements of one group."""

    def __init__(self, plan: Plan, group: Group, names: Names) -> None:
        super().__init__()
        self.plan, self.group, self.names = plan, group, names
        self.body: list[Statement] = []
        self.memo: dict[tuple[Node, tuple[Index, ...]], Value] = {}
        self._variables = 0

    def build(self) -> Nest:
        """Statements with one flat loop if that works, otherwise with one loop for each axis."""
        for flat in (True, False):
            self.body, self.block, self.memo = [], [], {}
            self._count = self._variables = 0
            self.block = self.body
            self._write(flat)
            if not flat or not self._divides():
                break
        root = self.group.root
        if self.group.check is not None:
            return Nest(f"check {self.group.check}", self.body, asks_finite=self._asks_finite(root))
        commit = root in self.plan.fusion.late
        return Nest(f"{self.names[root]} = {root.operation.name} {root.type}", self.body, commit)

    def _divides(self) -> bool:
        """Whether some position needs a quotient or remainder."""
        indices = []
        for statement in ir.walk(self.body):
            if isinstance(statement, Store):
                indices.append(statement.index)
            elif isinstance(statement, Value) and statement.opcode == "load":
                indices.append(statement.detail[1])
            elif isinstance(statement, Value) and statement.opcode == "number":
                indices.append(statement.detail)
        return any(isinstance(atom, Quotient | Remainder) for index in indices for atom in index.atoms())

    # ------------------------------------------------------------------------------- reading values

    def read(self, node: Node, position: Position) -> Value:
        """The element of a node at a position: from memory, as a number, or computed here."""
        where = tuple(Index.of(term) for term in position) if node.shape else ()
        key = (node, where)
        if key not in self.memo:
            outer, self.dtype = self.dtype, node.dtype
            self.memo[key] = self._element(node, where)
            self.dtype = outer
        return self.memo[key]

    def _element(self, node: Node, where: tuple[Index, ...]) -> Value:
        number = uniform(node) if self.plan.fusion.stored(node) else None
        if number is not None:
            return self.literal(number, node.dtype)
        if self.plan.fusion.stored(node):
            if not elements(node):
                return self.literal(0, node.dtype)
            return self.load(self.plan.buffers[node], offset(where, node.shape))
        return self.compute(node, where)

    def compute(self, node: Node, where: Position) -> Value:
        """The element of a node from its operands' elements."""
        form = lowering_of(node)
        if isinstance(form, View):
            (x,) = node.inputs
            return self.read(x, form.index(list(where), x.type, node.type, **node.attributes))
        if isinstance(form, Gather):
            operands = [_Reader(self, operand) for operand in node.inputs]
            return self._typed(form.element(self, list(where), operands, node.type, **node.attributes), node)
        if isinstance(form, Scalar):
            values = [self.read(operand, where if operand.shape else ()) for operand in node.inputs]
            self.dtype = node.inputs[-1].dtype
            return self._typed(form.emit(self, *values, **node.attributes), node)
        raise GraphError(f"{node!r} cannot be computed inside another nest")

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

    def loop(self, shape: Sequence[int], flat: bool, inside: Callable[[list[Index]], None]) -> None:
        """`inside(position)` for every position of a shape, in row-major order."""
        if 0 in shape:
            return
        outer = self.block
        position: list[Index] = []
        if flat and len(shape) > 1:
            variable = self.variable(prod(shape))
            self._open(variable)
            rest = Index.of(variable)
            for size in reversed(shape):
                position.append(rest % size)
                rest = rest // size
            position.reverse()
        else:
            for size in shape:
                variable = self.variable(size)
                self._open(variable)
                position.append(Index.of(variable))
        known = dict(self.memo)  # what is computed inside does not exist afterwards
        inside(position)
        self.block, self.memo = outer, known

    def _open(self, variable: Variable) -> None:
        loop = For(variable)
        self.block.append(loop)
        self.block = loop.body

    def store(self, buffer: Buffer, position: Position, value: Value) -> None:
        """buffer[position] = value."""
        self.block.append(Store(buffer, offset(position, buffer.type.shape), value))

    def _write(self, flat: bool) -> None:
        root = self.group.root
        if self.group.check is not None:
            self._write_check(root, self.group.check, flat)
            return
        out = self.plan.buffers[root]
        form = lowering_of(root)
        if form is HOST:
            self._write_host(root, out)
        elif isinstance(form, Reduce):
            self._write_reduction(root, form, out, flat)
        elif isinstance(form, Running):
            self._write_running(root, form, out)
        elif isinstance(form, forms.Position):
            self._write_position(root, form, out)
        elif isinstance(form, Scatter):
            self._write_scatter(root, form, out, flat)
        elif isinstance(form, ContractionForm):
            self._write_contraction(root, out)
        else:
            self.loop(root.shape, flat, lambda at: self.store(out, at, self._at_root(root, at)))

    def _write_host(self, root: Node, out: Buffer) -> None:
        """A call of NumPy on whole operands."""
        buffers, operation, attributes = self.plan.buffers, root.operation, root.attributes
        operands = tuple(buffers.get(one, one.value) for one in root.inputs)
        call = lambda arrays: operation.run(arrays, attributes)  # type: ignore[attr-defined]
        self.body.append(ir.Host(operation.name, call, operands, out, root.origin))

    def _at_root(self, root: Node, at: Position) -> Value:
        self.dtype = root.dtype
        return self.compute(root, at)

    def _write_check(self, condition: Node, number: int, flat: bool) -> None:
        holds = self._accumulate(self.true())

        def inside(at: list[Index]) -> None:
            self.block.append(Update(holds, self.bits("and", self.current(holds), self.read(condition, at))))

        self.loop(condition.shape, flat, inside)
        self.block.append(Store(self.plan.status, Index(number), self.current(holds)))

    def _asks_finite(self, condition: Node) -> tuple[Buffer, Store] | None:
        """The buffer whose numbers must be finite and the store of the answer, if that is the whole condition."""
        form = lowering_of(condition)
        if not isinstance(form, Scalar) or not form.finite or self.plan.fusion.stored(condition):
            return None
        (x,) = condition.inputs
        last = self.body[-1]
        if not self.plan.fusion.stored(x) or x not in self.plan.buffers or not isinstance(last, Store):
            return None
        return self.plan.buffers[x], last

    def _accumulate(self, initial: Value) -> Accumulator:
        accumulator = Accumulator(f"a{self._count}", initial.dtype, initial)
        self.block.append(accumulator)
        return accumulator

    def _write_reduction(self, root: Node, form: Reduce, out: Buffer, flat: bool) -> None:
        """In a register where the last axis is folded; otherwise row by row into the result."""
        (x,) = root.inputs
        axes = root.attributes["axes"]
        kept = [axis for axis in range(x.ndim) if axis not in axes]
        shape = [x.shape[axis] for axis in kept]
        folded = prod(x.shape[axis] for axis in axes)
        wide = form.grouped and root.dtype == np.dtype("float32") and folded >= _WIDE_FROM
        if x.ndim and kept and kept[-1] == x.ndim - 1 and shape[-1] > 1 and not wide:
            self._fold_in_memory(x, form, out, kept, flat)
            return
        dtype = np.dtype("float64") if wide else root.dtype

        def outside(at: list[Index]) -> None:
            self.dtype = dtype
            total = self._accumulate(form.initial(self))

            def inside(along: list[Index]) -> None:
                element = self.cast(self.read(x, _interleave(kept, at, axes, along)), dtype)
                self.block.append(Update(total, self._combined(form, self.current(total), element)))

            self.loop([x.shape[axis] for axis in sorted(axes)], flat, inside)
            result = self.cast(self.current(total), root.dtype)
            self.block.append(Store(out, offset(at, shape), result))

        self.loop(shape, flat, outside)

    def _fold_in_memory(self, x: Node, form: Reduce, out: Buffer, kept: list[int], flat: bool) -> None:
        shape = [x.shape[axis] for axis in kept]
        self.dtype = x.dtype
        self.loop(shape, True, lambda at: self._store_at(out, offset(at, shape), form.initial(self)))

        def inside(at: list[Index]) -> None:
            place = offset([at[axis] for axis in kept], shape)
            element = self.read(x, at)
            self.dtype = x.dtype
            self._store_at(out, place, self._combined(form, self.load(out, place), element))

        self.loop(x.shape, flat, inside)

    def _store_at(self, buffer: Buffer, index: Index, value: Value) -> None:
        self.block.append(Store(buffer, index, value))

    def _combined(self, form: Reduce | Running, total: Value, element: Value) -> Value:
        """The fold of one more element; sums may be regrouped by the machine's vectors."""
        self.dtype = total.dtype
        self.flags = "reassoc" if isinstance(form, Reduce) and form.grouped else ""
        value: Value = form.combine(self, total, element)
        self.flags = ""
        return value

    def _write_running(self, root: Node, form: Running, out: Buffer) -> None:
        (x,) = root.inputs
        axis = root.attributes["axis"]
        others = [k for k in range(x.ndim) if k != axis]

        def outside(at: list[Index]) -> None:
            self.dtype = root.dtype
            total = self._accumulate(form.initial(self))

            def inside(along: list[Index]) -> None:
                place = _interleave(others, at, (axis,), along)
                now = self._combined(form, self.current(total), self.read(x, place))
                self.block.append(Update(total, now))
                self.store(out, place, now)

            self.loop([x.shape[axis]], False, inside)

        self.loop([x.shape[k] for k in others], False, outside)

    def _write_position(self, root: Node, form: forms.Position, out: Buffer) -> None:
        (x,) = root.inputs
        axis = root.attributes["axis"]
        others = [k for k in range(x.ndim) if k != axis]

        def outside(at: list[Index]) -> None:
            best = self._accumulate(self.read(x, _interleave(others, at, (axis,), [Index(0)])))
            found = self._accumulate(self.literal(0, root.dtype))

            def inside(along: list[Index]) -> None:
                element, so_far = self.read(x, _interleave(others, at, (axis,), along)), self.current(best)
                self.dtype = x.dtype
                better = form.better(self, element, so_far)
                if x.dtype.kind == "f":
                    first_nan = self.bits("and", self.not_equal(element, element), self.equal(so_far, so_far))
                    better = self.bits("or", better, first_nan)
                place = self.select(better, self.number(along[0]), self.current(found))
                self.block.append(Update(best, self.select(better, element, so_far)))
                self.block.append(Update(found, place))

            self.loop([x.shape[axis]], False, inside)
            self.store(out, at, self.current(found))

        self.loop(root.shape, False, outside)

    def _write_scatter(self, root: Node, form: Scatter, out: Buffer, flat: bool) -> None:
        if not elements(root):
            return
        start = None if form.start is None else root.inputs[form.start]
        self.dtype = root.dtype
        self.loop(
            root.shape,
            flat,
            lambda at: self.store(out, at, self.constant(0) if start is None else self.read(start, at)),
        )
        source = root.inputs[form.source]
        operands = [_Reader(self, operand) for operand in root.inputs]

        def inside(at: list[Index]) -> None:
            place = offset(form.place(self, at, operands, root.type, **root.attributes), root.shape)
            value = self.read(source, at)
            self._store_at(out, place, value if start is not None else self.add(self.load(out, place), value))

        self.loop(source.shape, flat, inside)

    def _write_contraction(self, root: Node, out: Buffer) -> None:
        x, y = root.inputs
        self.dtype = root.dtype
        if not elements(root) or not x.shape[-1]:
            self.loop(root.shape, True, lambda at: self.store(out, at, self.constant(0)))
            return
        batch = tuple(self.variable(size) for size in root.shape[:-2])
        rows, columns, inner = (self.variable(size) for size in (*root.shape[-2:], x.shape[-1]))
        left = self._locate(x, [*map(Index.of, batch), Index.of(rows), Index.of(inner)])
        right = self._locate(y, [*map(Index.of, batch), Index.of(inner), Index.of(columns)])
        place = offset([*map(Index.of, batch), Index.of(rows), Index.of(columns)], root.shape)
        by_rows = right[1].coefficient(columns) == 1 and columns.extent > 1
        self.block.append(ir.Contraction(batch, rows, columns, inner, left, right, (out, place), by_rows))

    def _locate(self, node: Node, position: Position) -> tuple[Buffer, Index]:
        """Where a product finds the element of an operand: the views before it become part of the index."""
        while not self.plan.fusion.stored(node):
            form = lowering_of(node)
            assert isinstance(form, View)
            (x,) = node.inputs
            position = form.index(list(position), x.type, node.type, **node.attributes)
            node = x
        return self.plan.buffers[node], offset(position, node.shape)


def _interleave(
    kept: Sequence[int], at: Sequence[Index], axes: Sequence[int], along: Sequence[Index]
) -> list[Index]:
    """One position from the terms of the kept axes and those of the folded axes, given in axis order."""
    terms = dict(zip(kept, at, strict=True)) | dict(zip(sorted(axes), along, strict=True))
    return [terms[axis] for axis in sorted(terms)]
