"""A Contraction over several axes as tiles in registers: LLVM text for convolutions and their gradients.

As for a matrix product a tile of the result stays in registers, but what is summed over is a nest of loops: the
kernel's rows, and within each its places with their channels. The operands are read where they lie, without being laid
out as matrices first; only a right operand whose columns do not lie side by side is packed. Where the result's columns
do not lie side by side, or where there are too few tiles to share, tiles are kept apart and added up in the end.
Every size is cut by the shape alone, so the bits depend on the shape only.

Sources: the tiles are those of `product`; convolution without a copy of the image: J. Zhang, F. Franchetti and
T. M. Low, "High performance zero-memory overhead direct convolutions", 2018.
Knows nothing of graphs; knows the machine only by the width and number of its vector registers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from ..ops.totals import BLOCK, FEW_BLOCKS, WHOLE_BLOCK
from .indices import Index, Variable
from .loops import Contraction
from .product import Registers, even
from .text import ROLLED, SINGLE, Number, Writer
from .tiles import Level, Tile, tile_text

# Steps that are summed up before a tile is put down: all, if there are not many; else so many that the right operand's
# part of them stays in the first cache.
_FEW, _DEPTH = WHOLE_BLOCK, BLOCK
# Tasks into which a contraction is cut from so many floating-point operations on.
_TASKS = 16
_WORTH_SHARING = 1_000_000


def suits(one: Contraction) -> bool:
    """Whether the contraction can be cut into these tiles: rows share the right operand, floats at known distances."""
    steps = one.right[1].coefficient(one.rows), one.left[1].coefficient(one.columns)
    return steps[0] == 0 and steps[1] in (0, 1) and even(one)


@dataclass(frozen=True)
class Around:
    """One loop around the tiles: how often, and how far it moves in the operands and in the result."""

    extent: int
    left: int
    right: int
    out: int


class Nested:
    """One contraction, cut: what `nested_text` writes."""

    def __init__(self, one: Contraction, registers: Registers, sharing: bool = True) -> None:
        self.one, self.sharing = one, sharing
        self.dtype = one.out[0].type.dtype
        self.kind = "float" if self.dtype.itemsize == 4 else "double"
        self.lanes = registers.bytes // self.dtype.itemsize
        self.columns = one.columns.extent
        self.vectors = 1 if self.columns <= self.lanes else 2
        self.width = self.vectors * self.lanes
        self.panels = -(-self.columns // self.width)
        self.tail = self.columns - (self.panels - 1) * self.width
        #: Whether the left operand has a number of its own for each column.
        self.left_vectors = self.columns > 1 and self._left(one.columns) == 1
        self.packs = self.columns > 1 and self._right(one.columns) != 1
        self._cut_rows(14 if registers.count >= 32 else registers.tile_rows(self.vectors))
        self._cut_depth()
        self._set_around()
        self._set_tasks()

    def _left(self, variable: Variable) -> int:
        return self.one.left[1].coefficient(variable)

    def _right(self, variable: Variable) -> int:
        return self.one.right[1].coefficient(variable)

    def _out(self, variable: Variable) -> int:
        return self.one.out[1].coefficient(variable)

    def _cut_rows(self, most: int) -> None:
        """The rows of a tile: a part of one variable, or a few small ones together."""
        self.rows = [self.one.rows]
        self.batch = list(self.one.batch)
        while True:
            count = prod(v.extent for v in self.rows)
            fitting = [v for v in self.batch if not self._right(v) and v.extent * count <= most]
            if not fitting:
                break
            best = max(fitting, key=lambda v: v.extent)
            self.rows.insert(0, best)
            self.batch.remove(best)
        self.tiles = -(-count // most)
        self.height = -(-count // self.tiles)
        #: So many tiles at the end are one row lower: rows are cut as evenly as can be.
        self.low_tiles = self.tiles * self.height - count

    def _cut_depth(self) -> None:
        """The loops of the sum: those inside a tile, and those around it."""
        inner = sorted(self.one.inner, key=lambda v: -abs(self._left(v)))
        self.depth = prod(v.extent for v in inner)
        below = self.depth
        levels: list[Level] = []
        for v in inner:
            below //= v.extent
            level = Level(v.extent, self._left(v), below * self.width if self.packs else self._right(v))
            before = levels[-1] if levels else None
            if before and (before.left, before.right) == (level.left * v.extent, level.right * v.extent):
                levels[-1] = Level(before.extent * v.extent, level.left, level.right)
            else:
                levels.append(level)
        limit, count = (self.depth if self.depth <= _FEW else _DEPTH), 1
        self.inside: list[Level] = []
        while levels and count * levels[-1].extent <= limit:
            self.inside.insert(0, levels.pop())
            count *= self.inside[0].extent
        #: The innermost loop around a tile's own is cut: so many parts of so many steps.
        self.parts_of_level, self.part = 1, 1
        self.outside = levels
        if levels:
            cut = levels[-1]
            self.parts_of_level = -(-cut.extent // max(1, limit // count))
            self.part = -(-cut.extent // self.parts_of_level)
        self.blocks = prod(level.extent for level in levels[:-1]) * (self.parts_of_level if levels else 1)

    def _set_around(self) -> None:
        """The loops around the tiles: first those that move the right operand, then those that share it."""
        own = [v for v in self.batch if self._right(v)]
        shared = [v for v in self.batch if not self._right(v)]
        self.panel_size = self.depth * self.width
        below = self.panels * self.panel_size
        loops: list[Around] = []
        for v in reversed(own):
            loops.insert(
                0, Around(v.extent, self._left(v), below if self.packs else self._right(v), self._out(v))
            )
            below *= v.extent
        #: Elements of the packed right operand, in whole vectors.
        self.packed = -(-below // self.lanes) * self.lanes if self.packs else 0
        self.own = own
        self.panel_loop = len(loops)
        loops.append(
            Around(
                self.panels,
                self.width if self.left_vectors else 0,
                self.panel_size if self.packs else self.width,
                self.width * self._out(self.one.columns),
            )
        )
        loops += [Around(v.extent, self._left(v), 0, self._out(v)) for v in shared]
        self.around = loops

    def _set_tasks(self) -> None:
        """How many loops are cut for threads, and into how many parts the sum is if those are not enough."""
        extents = [*(loop.extent for loop in self.around), self.tiles]
        #: Tiles of all loops: `units` at a time are the loops that are cut.
        self.all_tiles = prod(extents)
        flops = 2 * self.all_tiles * self.height * min(self.width, self.columns) * self.depth
        wanted = _TASKS if flops >= _WORTH_SHARING else 1
        self.cut_loops, self.units = 0, 1
        while self.cut_loops < len(extents) and self.units < wanted:
            self.units *= extents[self.cut_loops]
            self.cut_loops += 1
        self.ranges = min(self.units, wanted)
        self.parts = max(1, min(wanted // self.ranges, self.blocks // 2))
        side_by_side = self.columns == 1 or self._out(self.one.columns) == 1
        #: Whether the sums of the blocks are added up in float64.
        self.wide = self.kind == "float" and self.blocks > FEW_BLOCKS * self.parts
        #: Whether tiles are kept apart and put into the result in the end.
        self.apart = self.parts > 1 or not side_by_side or self.wide
        self.tile_size = self.height * self.width

    @property
    def tasks(self) -> int:
        """How many parts can run at the same time."""
        return self.ranges * self.parts

    @property
    def shares(self) -> bool:
        """Whether threads share them."""
        return self.sharing and self.tasks > 1

    @property
    def scratch(self) -> int:
        """Bytes for the packed right operand and for tiles that are kept apart."""
        kept = self.apart * self.parts * self.all_tiles * self.tile_size
        return self.packed * self.dtype.itemsize + kept * (8 if self.wide else self.dtype.itemsize)

    @property
    def kept_kind(self) -> str:
        """LLVM's type of a number of a tile that is kept apart."""
        return "double" if self.wide else self.kind


def nested_text(nested: Nested) -> tuple[str, dict[str, str]]:
    """(the function, named @NEST, of left, right, out, scratch and pool; the functions that it calls, by name)."""
    return _Driver(nested).text()


# What a task is given: left, right, out, scratch, and the bool that becomes false with a result that is not finite.
_FIELDS = ("left", "right", "out", "scratch", "flag")
_JOB = "{ ptr, ptr, ptr, ptr, ptr }"


class _Task(Writer):
    """The body of a function that does one task."""

    def __init__(self) -> None:
        super().__init__()
        for k, field in enumerate(_FIELDS):
            place = self.put(f"getelementptr {_JOB}, ptr %job, i64 0, i32 {k}")
            self.do(f"%{field} = load ptr, ptr {place}")

    def text(self) -> str:
        """The function, named @TASK."""
        head = "define internal void @TASK(ptr noalias readonly %job, i64 %task) noinline {"
        return "\n".join([head, "entry:", *self.lines, "  ret void", "}"])

    def divided(self, x: Number, divisor: int) -> tuple[Number, Number]:
        """(x // divisor, x % divisor)."""
        if isinstance(x, int):
            return divmod(x, divisor)
        if divisor == 1:
            return x, 0
        return self.put(f"udiv i64 {x}, {divisor}"), self.put(f"urem i64 {x}, {divisor}")

    def digits(self, x: Number, extents: Sequence[int]) -> list[Number]:
        """The number in digits of these extents, the first one open."""
        found: list[Number] = []
        for extent in reversed(extents[1:]):
            x, digit = self.divided(x, extent)
            found.insert(0, digit)
        return [x, *found] if extents else []

    def share(self, number: Number, whole: int, parts: int) -> tuple[Number, Number]:
        """Where part `number` of so many begins and ends in the whole."""
        if parts == 1:
            return 0, whole
        begin, _ = self.divided(self.multiply(number, whole), parts)
        end, _ = self.divided(self.multiply(self.add(number, 1), whole), parts)
        return begin, end

    def either(self, condition: str, write: Sequence[Callable[[], None]]) -> None:
        """The first where the condition holds, else the second."""
        labels = [self.new("then"), self.new("else")]
        done = self.new("done")
        self.do(f"br i1 {condition}, label %{labels[0]}, label %{labels[1]}")
        for label, one in zip(labels, write):
            self.start(label)
            one()
            self.do(f"br label %{done}")
        self.start(done)

    def moved(self, at: Sequence[Number], steps: Sequence[int], start: Number = 0) -> Number:
        """Σ at · steps."""
        for number, step in zip(at, steps, strict=True):
            start = self.add(start, self.multiply(number, step))
        return start


class _Driver:
    """The loops around the tiles."""

    def __init__(self, nested: Nested) -> None:
        self.nested = nested
        self.functions: dict[str, str] = {}

    def text(self) -> tuple[str, dict[str, str]]:
        """The right operand is packed, tiles are computed, tiles that were kept apart are put into the result."""
        p, w = self.nested, Writer()
        watched = p.one.finite is not None
        w.do(f"%job = alloca {_JOB}")
        if watched:
            w.do("store i8 1, ptr %flag")
        given = {"left": p.one.left[1], "right": p.one.right[1], "out": p.one.out[1], "scratch": Index(0)}
        for k, field in enumerate(_FIELDS):
            value = w.at(p.kind, f"%{field}", given[field].constant) if field in given else "null"
            value = "%flag" if field == "flag" and watched else value
            w.do(f"store ptr {value}, ptr {w.put(f'getelementptr {_JOB}, ptr %job, i64 0, i32 {k}')}")
        if p.packs:
            self._run(w, "pack", self._packing(), prod(v.extent for v in p.own) * p.panels)
        self._run(w, "tiles", self._computing(), p.tasks)
        if p.apart:
            self._run(w, "put", self._putting(), p.ranges)
        head = (
            "define internal void @NEST(ptr noalias readonly %left, ptr noalias readonly %right, ptr noalias %out, "
            f"{'ptr %flag, ' * watched}ptr noalias %scratch, ptr %pool) noinline {{"
        )
        return "\n".join([head, "entry:", *w.lines, "  ret void", "}"]), self.functions

    def _run(self, w: Writer, stem: str, text: str, tasks: int) -> None:
        """Do every task of a function: alone, or with the pool where there is enough to do."""
        name = self._named(stem, text, "@TASK")
        if self.nested.shares and tasks > 1:
            w.do(f"call void @cr_share(ptr %pool, ptr @{name}, ptr %job, i64 {tasks})")
            return
        with w.loop(tasks) as task:
            w.do(f"call void @{name}(ptr %job, i64 {task})")

    def _named(self, stem: str, text: str, word: str) -> str:
        name = f"cr_{stem}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        self.functions[name] = text.replace(word, f"@{name}")
        return name

    # ------------------------------------------------------------------------------- packing

    def _packing(self) -> str:
        """The task that packs one panel of the right operand: for each step of the sum its columns side by side."""
        p, w = self.nested, _Task()
        *own, panel = w.digits("%task", [*(v.extent for v in p.own), p.panels])
        steps = [p.one.right[1].coefficient(v) for v in p.own]
        across = p.one.right[1].coefficient(p.one.columns)
        start = w.moved(own, steps, w.multiply(panel, p.width * across))
        target = w.at(p.kind, "%scratch", w.multiply("%task", p.panel_size))
        count = w.smaller(p.width, w.rest(p.columns, w.multiply(panel, p.width)))
        inner = sorted(p.one.inner, key=lambda v: -abs(p.one.left[1].coefficient(v)))

        def along(variables: list[Variable], place: Number, number: Number) -> None:
            if variables:
                first, *rest = variables
                with w.loop(first.extent, mark=ROLLED) as k:
                    moved = w.add(place, w.multiply(k, p.one.right[1].coefficient(first)))
                    along(rest, moved, w.add(w.multiply(number, first.extent), k))
                return
            to = w.at(p.kind, target, w.multiply(number, p.width))
            with w.loop(count, mark="" if across == 1 else SINGLE) as j:
                source = w.at(p.kind, "%right", w.add(place, w.multiply(j, across)))
                w.do(f"store {p.kind} {w.put(f'load {p.kind}, ptr {source}')}, ptr {w.at(p.kind, to, j)}")

        along(inner, start, 0)
        return w.text()

    # ------------------------------------------------------------------------------- tiles

    def _computing(self) -> str:
        """The task that computes a part of the tiles, or of their sums."""
        p, w = self.nested, _Task()
        part, number = w.divided("%task", p.ranges) if p.parts > 1 else (0, "%task")
        first, stop = w.share(number, p.units, p.ranges)
        begin, end = w.share(part, p.blocks, p.parts)
        with w.between(begin, end) as block:
            left, right, count = self._block(w, block)
            goes_on = "" if p.blocks == 1 else w.put(f"icmp ne i64 {block}, {begin}")
            with w.between(first, stop) as unit:
                extents = [*(loop.extent for loop in p.around), p.tiles]
                at = w.digits(unit, extents[: p.cut_loops])

                def inside(at: list[Number]) -> None:
                    if len(at) < len(extents):
                        with w.loop(extents[len(at)]) as index:
                            inside([*at, index])
                        return
                    self._tile_at(w, at, part, left, right, count, goes_on)

                inside(at)
        return w.text()

    def _block(self, w: _Task, block: Number) -> tuple[Number, Number, Number]:
        """(how far the left operand is moved, and the right one, steps of the outermost loop) for a part of the sum."""
        p = self.nested
        if not p.outside:
            return 0, 0, 1
        *at, cut = w.digits(block, [*(level.extent for level in p.outside[:-1]), p.parts_of_level])
        place = w.multiply(cut, p.part)
        at.append(place)
        left = w.moved(at, [level.left for level in p.outside])
        right = w.moved(at, [level.right for level in p.outside])
        extent = p.outside[-1].extent
        return left, right, p.part if extent % p.part == 0 else w.smaller(p.part, w.rest(extent, place))

    def _tile_at(
        self,
        w: _Task,
        at: list[Number],
        part: Number,
        left: Number,
        right: Number,
        count: Number,
        goes_on: str,
    ) -> None:
        """Call the code for one tile: of the whole width or of what is left of it, of the full height or one lower."""
        p = self.nested
        *around, tile = at
        row = w.multiply(tile, p.height)
        if p.low_tiles and p.height > 1:
            row = w.rest(row, w.larger(w.rest(tile, p.tiles - p.low_tiles), 0))
        (rows,) = p.rows[-1:]
        a = w.at(
            p.kind,
            "%left",
            w.moved([*around, row], [*(o.left for o in p.around), p.one.left[1].coefficient(rows)], left),
        )
        b = w.at(
            p.kind, "%scratch" if p.packs else "%right", w.moved(around, [o.right for o in p.around], right)
        )
        if p.apart:
            c = self._kept(w, at, part)
        else:
            steps = [*(o.out for o in p.around), p.one.out[1].coefficient(rows)]
            c = w.at(p.kind, "%out", w.moved([*around, row], steps))

        def call(height: int, columns: int) -> Callable[[], None]:
            name = self._tile(height, columns)
            given = [
                f"ptr {a}",
                f"ptr {b}",
                f"ptr {c}",
                f"i64 {count}",
                f"i1 {goes_on or 'false'}",
                "ptr %flag",
            ]
            return lambda: w.do(f"call void @{name}({', '.join(given)})")

        def of_height(height: int) -> Callable[[], None]:
            panel = around[p.panel_loop]
            if p.tail == p.width or p.panels == 1:
                return call(height, p.tail)
            whole, narrow = call(height, p.width), call(height, p.tail)
            last = w.put(f"icmp eq i64 {panel}, {p.panels - 1}") if not isinstance(panel, int) else ""
            if not last:
                return narrow if panel == p.panels - 1 else whole
            return lambda: w.either(last, (narrow, whole))

        if not p.low_tiles:
            of_height(p.height)()
            return
        high, low = of_height(p.height), of_height(p.height - 1)
        w.either(w.put(f"icmp sge i64 {tile}, {p.tiles - p.low_tiles}"), (low, high))

    def _kept(self, w: _Task, at: list[Number], part: Number) -> str:
        """Where a tile is kept that is put into the result in the end."""
        p = self.nested
        number: Number = part
        for index, extent in zip(at, [*(o.extent for o in p.around), p.tiles], strict=True):
            number = w.add(w.multiply(number, extent), index)
        start = w.at(p.kind, "%scratch", p.packed)
        return w.at(p.kept_kind, start, w.multiply(number, p.tile_size))

    def _tile(self, height: int, columns: int) -> str:
        p = self.nested
        outs = [i * p.width for i in range(height)] if p.apart else places_of(p.rows, p.one.out[1])[:height]
        loops: list[tuple[Number, Level]] = [(level.extent, level) for level in p.inside]
        if p.outside and p.part > 1:
            even_parts = p.outside[-1].extent % p.part == 0
            loops.insert(0, (p.part if even_parts else "%count", p.outside[-1]))
        watched = p.one.finite is not None and not p.apart
        rows = places_of(p.rows, p.one.left[1])[:height]
        tile = Tile(
            p.kind, p.lanes, columns, tuple(rows), tuple(outs), tuple(loops), p.left_vectors, p.blocks > 1, watched,
            p.wide,
        )  # fmt: skip
        return self._named("nest", tile_text(tile), "@TILE")

    # ------------------------------------------------------------------------------- putting tiles down

    def _putting(self) -> str:
        """The task that adds up the parts of some tiles and puts them where they belong."""
        p, w = self.nested, _Task()
        first, stop = w.share("%task", p.all_tiles, p.ranges)
        across = p.one.out[1].coefficient(p.one.columns)
        *others, rows = p.rows
        with w.between(first, stop) as unit:
            *around, tile = at = w.digits(unit, [*(o.extent for o in p.around), p.tiles])
            row = w.multiply(tile, p.height)
            height: Number = p.height if not others else rows.extent
            if p.low_tiles:
                beyond = w.larger(w.rest(tile, p.tiles - p.low_tiles), 0)
                row = w.rest(row, beyond)
                height = w.rest(p.height, w.smaller(w.larger(w.rest(tile, p.tiles - p.low_tiles - 1), 0), 1))
            steps = [*(o.out for o in p.around), p.one.out[1].coefficient(rows)]
            place = w.moved([*around, row], steps)
            source = self._kept(w, at, 0)
            columns = w.smaller(p.width, w.rest(p.columns, w.multiply(around[p.panel_loop], p.width)))

            def along(variables: list[tuple[Variable, Number]], place: Number, number: Number) -> None:
                if variables:
                    (variable, extent), *rest = variables
                    with w.loop(extent, mark=ROLLED) as i:
                        moved = w.add(place, w.multiply(i, p.one.out[1].coefficient(variable)))
                        along(rest, moved, w.add(w.multiply(number, variable.extent), i))
                    return
                with w.loop(columns, mark="" if across == 1 else SINGLE) as j:
                    self._put_one(
                        w, source, w.add(w.multiply(number, p.width), j), w.add(place, w.multiply(j, across))
                    )

            along([*((v, v.extent) for v in others), (rows, height)], place, 0)
        return w.text()

    def _put_one(self, w: _Task, source: str, number: Number, place: Number) -> None:
        """One element: its parts in order."""
        p = self.nested
        total, kind = "", p.kept_kind
        for part in range(p.parts):
            at = w.at(kind, source, w.add(number, part * p.all_tiles * p.tile_size))
            value = w.put(f"load {kind}, ptr {at}")
            total = w.put(f"fadd {kind} {total}, {value}") if total else value
        total = w.put(f"fptrunc double {total} to {p.kind}") if p.wide else total
        w.do(f"store {p.kind} {total}, ptr {w.at(p.kind, '%out', place)}")
        if p.one.finite is not None:
            nothing = w.put(f"fmul {p.kind} {total}, 0.0")
            lost = w.put(f"fcmp uno {p.kind} {nothing}, 0.0")
            w.either(lost, (lambda: w.do("store atomic i8 0, ptr %flag monotonic, align 1"), lambda: None))


def places_of(variables: Sequence[Variable], index: Index) -> list[int]:
    """How far each combination of the variables is from the first."""
    places = [0]
    for variable in variables:
        step = index.coefficient(variable)
        places = [place + k * step for place in places for k in range(variable.extent)]
    return places
