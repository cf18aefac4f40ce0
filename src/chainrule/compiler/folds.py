"""Reductions as loops: folded in registers, written out, or row by row in memory, as the operand lies.

Knows operations by the form of their lowering; knows nothing of LLVM.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from ..graph import Node
from ..operations import Type
from ..ops import lowering as forms
from ..ops.lowering import Reduce, Running, View
from ..ops.totals import BLOCK, ROWS, kept_in, running_in
from .forms import lowering_of
from .indices import Index
from .loops import Store, Update, Value
from .nests import NestWriter
from .plan import Buffer

# Folds of so few elements are written out, so that the loop around them can run in vectors.
_WRITTEN_OUT = 16

# So many totals at most lie beside a result while it grows row by row: they fit into the stack of any thread.
_MOST_TOTALS = 4096

# So many sums at a time are kept in registers where each is of elements that lie far apart.
_SUMS_AT_ONCE = 16


class FoldWriter(NestWriter):
    """Writes what folds elements along axes."""

    def write_reduction(self, root: Node, form: Reduce, out: Buffer) -> None:
        """In a register where what lies side by side is folded; otherwise row by row into the result."""
        fold = _Fold(root, form, out, self.axes_of(root.inputs[0]))
        if not fold.along_memory:
            self._fold_in_register(fold)
        elif fold.folded * self._operations() <= _WRITTEN_OUT:
            self._fold_written_out(fold)
        elif fold.wide and prod(fold.cleared_shape[:-1]) > _MOST_TOTALS:
            self._fold_several(fold)
        else:
            self._fold_in_memory(fold)

    def _each_block(self, fold: _Fold, rest: list[int], write: Callable[[_Block], None]) -> None:
        """Loops from block to block over these axes, which stand in the order of memory; `write` writes one block."""
        shape, (outer, axis) = fold.x.shape, fold.cut
        if axis is None:
            write(_Block(rest, [shape[one] for one in rest], {}))
            return
        inner = [one for one in rest if one not in outer]

        def around(at: list[Index]) -> None:
            def one_block(start: Index, extent: int) -> None:
                sizes = [extent if one == axis else shape[one] for one in inner]
                write(_Block(inner, sizes, dict(zip(outer, at, strict=True)), axis, start))

            whole, left = divmod(shape[axis], fold.step)
            self.loop([whole], lambda along: one_block(along[0] * fold.step, fold.step))
            if left:
                one_block(Index(whole * fold.step), left)

        self.loop([shape[one] for one in outer], around)

    def _fold_in_register(self, fold: _Fold) -> None:
        """Each element is a loop of its own."""

        x, form = fold.x, fold.form

        def outside(at: list[Index]) -> None:
            kept = dict(zip(fold.kept, at, strict=True))
            self.dtype = fold.dtype
            total = self.accumulate(form.initial(self))

            def write(block: _Block) -> None:
                self.dtype = x.dtype
                part = self.accumulate(form.initial(self)) if fold.wide else total

                def inside(along: list[Index]) -> None:
                    element = self.read(x, block.position(kept, along))
                    self.block.append(Update(part, self._combined(form, self.current(part), element)))

                self.loop(block.shape, inside)
                if fold.wide:
                    found = self.cast(self.current(part), fold.dtype)
                    self.block.append(Update(total, self._combined(form, self.current(total), found)))

            self._each_block(fold, [axis for axis in fold.axes if axis in fold.gone], write)
            self.store(fold.out, fold.place(at), self.cast(self.current(total), fold.out.type.dtype))

        self.loop(fold.kept_shape, outside, fold.kept_order)

    def _fold_written_out(self, fold: _Fold) -> None:
        """A few elements one after the other, without a loop."""

        def outside(at: list[Index]) -> None:
            self.dtype = fold.dtype
            total: Value = fold.form.initial(self)
            for along in itertools.product(*map(range, fold.folded_shape)):
                element = self.read(fold.x, fold.position(at, list(map(Index.of, along))))
                total = self._combined(fold.form, total, element)
            self.store(fold.out, fold.place(at), total)

        self.loop(fold.kept_shape, outside, fold.kept_order)

    def _fold_several(self, fold: _Fold) -> None:
        """Neighbours in memory side by side, each in a register of its own."""
        shape, last = list(fold.kept_shape), fold.kept_order[-1]
        count = max(k for k in range(1, _SUMS_AT_ONCE + 1) if shape[last] % k == 0)
        shape[last] //= count

        def outside(at: list[Index]) -> None:
            self.dtype = fold.dtype
            totals = [self.accumulate(fold.form.initial(self), f".{k}" * bool(k)) for k in range(count)]
            ats = [[*at[:last], at[last] * count + k, *at[last + 1 :]] for k in range(count)]

            def inside(along: list[Index]) -> None:
                for one, total in zip(ats, totals):
                    element = self.cast(self.read(fold.x, fold.position(one, along)), fold.dtype)
                    self.block.append(Update(total, self._combined(fold.form, self.current(total), element)))

            self.loop(fold.folded_shape, inside, fold.folded_order)
            for one, total in zip(ats, totals):
                result = self.cast(self.current(total), fold.out.type.dtype)
                self.store(fold.out, fold.place(one), result)

        self.loop(shape, outside, fold.kept_order)

    def _fold_in_memory(self, fold: _Fold) -> None:
        """Row by row into the result; for each value of the axes that stay apart outside of all that is folded."""

        def outside(before: list[Index]) -> None:
            lead = dict(zip(fold.lead, before, strict=True))
            if not fold.wide or prod(fold.cleared_shape) <= _MOST_TOTALS:
                self._fold_rows(fold, lead, fold.cleared_shape, {})
                return
            # In strips of the rows: their totals lie beside the result.
            *others, extent = fold.cleared_shape
            width = _MOST_TOTALS // prod(others)
            whole, left = divmod(extent, width)

            def strip(start: Index, size: int) -> None:
                self._fold_rows(fold, lead, [*others, size], {fold.cleared[-1]: start})

            self.loop([whole], lambda at: strip(at[0] * width, width))
            if left:
                strip(Index(whole * width), left)

        self.loop(fold.lead_shape, outside)

    def _fold_rows(
        self, fold: _Fold, lead: dict[int, Index], sizes: list[int], starts: dict[int, Index]
    ) -> None:
        """Row by row, in blocks if there are many; the sums of the blocks are added up beside the result.

        sizes, starts: the stretches of the axes that are cleared.
        """
        x, out, form = fold.x, fold.out, fold.form
        flat = "flat" if fold.axes == tuple(range(x.ndim)) and not out.axes and not starts else None
        totals = Buffer("totals", Type(tuple(sizes), fold.dtype), "local")
        extents = dict(zip(fold.cleared, sizes, strict=True))

        def each_place(write: Callable[[list[Index], Index], None]) -> None:
            def inside(at: list[Index]) -> None:
                terms = _moved(lead | dict(zip(fold.cleared, at, strict=True)), starts)
                write(at, out.at(fold.place([terms[axis] for axis in fold.kept])))

            self.loop(sizes, inside, grouping=flat)

        def clear(at: list[Index], place: Index) -> None:
            self.dtype = x.dtype
            self.store_at(out, place, form.initial(self))
            if fold.wide:
                self.dtype = fold.dtype
                self.store(totals, at, form.initial(self))

        def gather(at: list[Index], place: Index) -> None:
            found = self.cast(self.load(out, place), fold.dtype)
            self.store(totals, at, self._combined(form, self.load(totals, totals.at(at)), found))
            self.dtype = x.dtype
            self.store_at(out, place, form.initial(self))

        def write(block: _Block) -> None:
            def inside(at: list[Index]) -> None:
                position = block.position(lead, at, starts)
                place = out.at(fold.place([position[axis] for axis in fold.kept]))
                element = self.read(x, position)
                self.dtype = x.dtype
                self.store_at(out, place, self._combined(form, self.load(out, place), element))

            shape = [extents.get(axis, size) for axis, size in zip(block.axes, block.shape)]
            self.loop(shape, inside)
            if fold.wide:
                each_place(gather)

        each_place(clear)
        self._each_block(fold, [axis for axis in fold.axes if axis not in fold.lead], write)
        if fold.wide:
            each_place(
                lambda at, place: self.store_at(
                    out, place, self.cast(self.load(totals, totals.at(at)), out.type.dtype)
                )
            )

    def _operations(self) -> int:
        """How many operations make one element of the operand, with the reading of it."""
        return 1 + sum(not isinstance(lowering_of(node), View) for node in self.group.inlined)

    def store_at(self, buffer: Buffer, index: Index, value: Value) -> None:
        """A value at a place in memory."""
        self.block.append(Store(buffer, index, value))

    def _combined(self, form: Reduce | Running, total: Value, element: Value) -> Value:
        """The fold of one more element; sums may be regrouped by the machine's vectors."""
        self.dtype = total.dtype
        self.flags = "reassoc" if isinstance(form, Reduce) and form.grouped else ""
        value: Value = form.combine(self, total, element)
        self.flags = ""
        return value

    def write_running(self, root: Node, form: Running, out: Buffer) -> None:
        """Every partial result along an axis."""
        (x,) = root.inputs
        axis = root.attributes["axis"]
        others = [k for k in range(x.ndim) if k != axis]

        def outside(at: list[Index]) -> None:
            self.dtype = running_in(root.dtype)
            total = self.accumulate(form.initial(self))

            def inside(along: list[Index]) -> None:
                place = _interleave(others, at, (axis,), along)
                element = self.cast(self.read(x, place), total.dtype)
                now = self._combined(form, self.current(total), element)
                self.block.append(Update(total, now))
                self.store(out, place, self.cast(now, root.dtype))

            self.loop([x.shape[axis]], inside)

        self.loop([x.shape[k] for k in others], outside, grouping="axes")

    def write_position(self, root: Node, form: forms.Position, out: Buffer) -> None:
        """Where along an axis the best element stands."""
        (x,) = root.inputs
        axis = root.attributes["axis"]
        order = [k for k in self.axes_of(x) or range(x.ndim) if k != axis]
        others = sorted(order)
        few = x.shape[axis] * self._operations() <= _WRITTEN_OUT

        def outside(at: list[Index]) -> None:
            def element(along: Index) -> Value:
                return self.read(x, _interleave(others, at, (axis,), [along]))

            first = element(Index(0)), self.literal(0, root.dtype)
            if few:
                best, found = first
                for k in range(1, x.shape[axis]):
                    best, found = self._better(form, element(Index(k)), Index(k), best, found)
                self.store(out, at, found)
                return
            so_far, place = map(self.accumulate, first)

            def inside(along: list[Index]) -> None:
                now = self.current(so_far), self.current(place)
                best, found = self._better(form, element(along[0]), along[0], *now)
                self.block.append(Update(so_far, best))
                self.block.append(Update(place, found))

            self.loop([x.shape[axis]], inside)
            self.store(out, at, self.current(place))

        self.loop([x.shape[k] for k in others], outside, [others.index(k) for k in order], "axes")

    def _better(
        self, form: forms.Position, element: Value, along: Index, best: Value, found: Value
    ) -> tuple[Value, Value]:
        """(the best element so far, where it stands) with one more; a NaN is better than every number."""
        self.dtype = element.dtype
        better = form.better(self, element, best)
        if element.dtype.kind == "f":
            first_nan = self.bits("and", self.not_equal(element, element), self.equal(best, best))
            better = self.bits("or", better, first_nan)
        place = self.select(better, self.number(along), found)
        return self.select(better, element, best), place


class _Fold:
    """A reduction: its axes, and the order in which they are run through."""

    def __init__(self, root: Node, form: Reduce, out: Buffer, axes: tuple[int, ...]) -> None:
        (self.x,) = root.inputs
        self.form, self.out = form, out
        shape = self.x.shape
        self.axes = axes or tuple(range(len(shape)))
        #: The axes that go, and those that stay, both as they are counted.
        self.gone = sorted(root.attributes["axes"])
        self.kept = [axis for axis in range(len(shape)) if axis not in self.gone]
        self.kept_shape = [shape[axis] for axis in self.kept]
        self.folded_shape = [shape[axis] for axis in self.gone]
        self.kept_order = [self.kept.index(axis) for axis in self.axes if axis in self.kept]
        self.folded_order = [self.gone.index(axis) for axis in self.axes if axis in self.gone]
        self.folded = prod(self.folded_shape)
        #: The axes that stay and lie outside of all that go.
        self.lead = list(itertools.takewhile(lambda axis: axis in self.kept, self.axes))
        #: Whether what lies side by side stays apart.
        self.along_memory = next(
            (axis in self.kept for axis in reversed(self.axes) if shape[axis] > 1), False
        )
        self.lead_shape = [shape[axis] for axis in self.lead]
        #: Those that stay and do not.
        self.cleared = [axis for axis in self.axes if axis in self.kept and axis not in self.lead]
        self.cleared_shape = [shape[axis] for axis in self.cleared]
        self.dtype = kept_in(root.dtype, self.folded) if form.grouped else root.dtype
        self.wide = self.dtype != root.dtype
        self.step = 1
        self.cut = self._blocks() if self.wide else ([], None)

    def _blocks(self) -> tuple[list[int], int | None]:
        """(the folded axes around blocks, the axis of which a block has `step` entries): as even as can be."""
        axes, inside = [one for one in self.axes if one in self.gone], 1
        most = ROWS if self.along_memory else BLOCK
        while axes and inside * self.x.shape[axes[-1]] <= most:
            inside *= self.x.shape[axes.pop()]
        if not axes:
            return [], None
        *outer, axis = axes
        size = self.x.shape[axis]
        parts = -(-size // (most // inside))
        self.step = -(-size // parts)
        return outer, axis

    def position(self, at: Sequence[Index], along: Sequence[Index]) -> list[Index]:
        """The operand's position from those along the kept axes and along the others."""
        return _interleave(self.kept, at, self.gone, along)

    def place(self, at: Sequence[Index]) -> list[Index]:
        """The result's position from that along the kept axes."""
        if len(self.out.type.shape) == len(self.kept):
            return list(at)
        return self.position(at, [Index(0)] * len(self.gone))


@dataclass(frozen=True)
class _Block:
    """A part of what is folded: its axes and their extents, in the order of memory, and where it begins.

    `before`: the place along the axes around it. `axis`: the one that it begins at `start` of.
    """

    axes: list[int]
    shape: list[int]
    before: dict[int, Index]
    axis: int | None = None
    start: Index = Index(0)  # noqa: RUF009

    def position(
        self, known: dict[int, Index], at: Sequence[Index], starts: dict[int, Index] | None = None
    ) -> list[Index]:
        """The operand's position at a place in the block, from the terms of the axes that are not its own."""
        begins = starts or {}
        if self.axis is not None:
            begins = begins | {self.axis: self.start}
        terms = _moved(known | self.before | dict(zip(self.axes, at, strict=True)), begins)
        return [terms[axis] for axis in sorted(terms)]


def _moved(terms: dict[int, Index], starts: dict[int, Index]) -> dict[int, Index]:
    """The terms of axes, counted from where their stretches begin."""
    return {axis: term + starts[axis] if axis in starts else term for axis, term in terms.items()}


def _interleave(
    kept: Sequence[int], at: Sequence[Index], axes: Sequence[int], along: Sequence[Index]
) -> list[Index]:
    """One position from the terms of the kept axes and those of the folded axes, given in axis order."""
    terms = dict(zip(kept, at, strict=True)) | dict(zip(sorted(axes), along, strict=True))
    return [terms[axis] for axis in sorted(terms)]
