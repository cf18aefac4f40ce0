"""Groups and buffers → Loops: one nest of loops for each group.

Knows operations by the form of their lowering; knows nothing of LLVM.
"""

from __future__ import annotations

from ..graph import Node
from ..ops import lowering as forms
from ..ops.lowering import HOST, Loop, Reduce, Running, Scalar, Scatter
from . import loops as ir
from .contraction import arrange
from .folds import FoldWriter
from .forms import elements, inner_of, lowering_of, sums_of, through_views
from .indices import Index
from .loops import Loops, Nest, Store, Update, Value
from .nests import GROUPINGS, Position, Reader
from .plan import Buffer, Plan
from .steps import recurrence


def lower(plan: Plan) -> Loops:
    """Write the loops of every group, in order."""
    return Loops(plan.fusion.graph.name, [_Nest(plan, group).build() for group in plan.fusion.groups])


class _Nest(FoldWriter):
    """Writes the statements of one group."""

    def build(self) -> Nest:
        """Statements with as few loops as work without divisions."""
        for self.grouping in GROUPINGS:
            self._start()
            if not self.divides():
                break
        else:
            self.cuts = self.useful_cuts()
            if self.cuts:
                self._start()
        if self.grouping != "flat" and not self.cuts:
            self.pieces = self.useful_pieces()
            if self.pieces:
                self._start()
        root = self.group.root
        if self.group.check is not None:
            return Nest(f"check {self.group.check}", self.body, asks_finite=self._asks_finite(root))
        commit = root in self.plan.fusion.late
        stored = ", ".join(self.names[one] for one in self.group.stores)
        types = ", ".join(str(one.type) for one in self.group.stores)
        return Nest(f"{stored} = {root.operation.name} {types}", self.body, commit)

    def _start(self) -> None:
        """Write the body anew."""
        self.body, self.memo = [], {}
        self._count = self._variables = self._axes = 0
        self.edges, self.piece = {}, {}
        self.block = self.body
        self._write()

    def _write(self) -> None:
        root = self.group.root
        if self.group.check is not None:
            self._write_check(root, self.group.check)
            return
        out = self.plan.buffers[self.group.stores[0]]
        form = lowering_of(root)
        if form is HOST:
            self._write_host(root)
        elif isinstance(form, Loop):
            self.body.append(recurrence(self.plan, root, self.group.parts, lower))
        elif isinstance(form, Reduce):
            self.write_reduction(root, form, out)
        elif isinstance(form, Running):
            self.write_running(root, form, out)
        elif isinstance(form, forms.Position):
            self.write_position(root, form, out)
        elif isinstance(form, Scatter):
            self._write_scatter(root, form, out)
        elif self.plan.fusion.product_of(root) is not None:
            self._write_contraction(root, out)
        else:
            self.splits = True
            self.loop(root.shape, lambda at: self.store(out, at, self._at_root(root, at)), out.axes)
            self.splits = False

    def _write_host(self, root: Node) -> None:
        """A call of NumPy on whole operands."""
        buffers, operation, attributes = self.plan.buffers, root.operation, root.attributes
        operands = tuple(buffers.get(one, one.value) for one in root.inputs)
        call = lambda arrays: operation.run(arrays, attributes)  # type: ignore[attr-defined]
        parts = tuple((part.attributes["index"], buffers[part]) for part in self.group.parts)
        out = parts[0][1] if parts else buffers[root]
        self.body.append(ir.Host(operation.name, call, operands, out, root.origin, parts))

    def _at_root(self, root: Node, at: Position) -> Value:
        self.dtype = root.dtype
        return self.compute(root, at)

    def _write_check(self, condition: Node, number: int) -> None:
        holds = self.accumulate(self.true())

        def inside(at: list[Index]) -> None:
            self.block.append(Update(holds, self.bits("and", self.current(holds), self.read(condition, at))))

        self.loop(condition.shape, inside, self.axes_of(condition))
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

    def _write_scatter(self, root: Node, form: Scatter, out: Buffer) -> None:
        if not elements(root):
            return
        start = None if form.start is None else root.inputs[form.start]
        self.dtype = root.dtype
        self.loop(
            root.shape,
            lambda at: self.store(out, at, self.constant(0) if start is None else self.read(start, at)),
            out.axes,
        )
        source = root.inputs[form.source]
        operands = [Reader(self, operand) for operand in root.inputs]

        def inside(at: list[Index]) -> None:
            place = out.at(form.place(self, at, operands, root.type, **root.attributes))
            value = self.read(source, at)
            self.store_at(out, place, value if start is not None else self.add(self.load(out, place), value))

        self.loop(source.shape, inside)

    def _write_contraction(self, root: Node, out: Buffer) -> None:
        """A sum of products: the root itself, or what it shows."""
        product = self.plan.fusion.product_of(root)
        assert product is not None
        self.dtype = root.dtype
        if not elements(root) or 0 in inner_of(product):
            zero = lambda at: self.store(out, at, self.constant(0))
            self.loop(root.shape, zero, out.axes, "flat")
            return
        sums = sums_of(product, self.variable, None if product is root else root)
        left, right = (self._locate(*one) for one in zip(product.inputs, (sums.left, sums.right)))
        result = [part for axis in sums.axes for part in axis]
        self.block.append(arrange(result, sums.inner, left, right, (out, out.at(sums.result))))

    def _locate(self, node: Node, position: tuple[Index, ...]) -> tuple[Buffer, Index]:
        """Where a product finds the element of an operand: the views before it become part of the index."""
        base, place = through_views(node, position, self.plan.fusion.stored)
        buffer = self.plan.buffers[base]
        return buffer, buffer.at(place)
