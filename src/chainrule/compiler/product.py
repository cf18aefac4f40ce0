"""A Contraction as tiles in registers: LLVM text for matrix products of floats.

A tile of the result (rows × a few vectors of columns) stays in registers while the common axis runs. Operands
that do not lie well are packed first: the right one into panels of one tile's width, the left one into rows of
one tile's height. Every size is cut by the shape alone, so the bits of a product depend on its shape only.

Source of the scheme: K. Goto and R. van de Geijn, "Anatomy of high-performance matrix multiplication", 2008.
Knows nothing of graphs; knows the machine only by the width and number of its vector registers.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from ..dtypes import Dtype
from ..ops.totals import BLOCK, FEW_BLOCKS
from .indices import Index, Variable
from .loops import Contraction
from .panels import left_packer_text, packer_text
from .text import Number, Writer
from .vectors import Vectors, add_up_wide, added, rounded_once, watch

# Steps along the common axis: a panel of the right operand of this depth stays in the first cache.
_DEPTH = BLOCK
# Tiles for whose rows the packed left operand stays in the second cache.
_TILES_PER_BLOCK = 10
# From so many rows on, a packed right operand is worth its copy.
_ROWS_WORTH_PACKING = 48
# From such a distance on (in bytes), steps along the common axis miss pages and share cache lines' places.
_FAR = 1024
# Tasks into which a product is cut from so many floating-point operations on.
_TASKS = 8
_WORTH_SHARING = 2_000_000


@dataclass(frozen=True)
class Registers:
    """The machine's vector registers: bytes in one, and how many there are."""

    bytes: int = 32
    count: int = 16

    def tile_rows(self, vectors: int) -> int:
        """Rows of a tile: its registers, those of the right operand, and one for the left."""
        return 12 if self.count >= 32 else max(1, (self.count - vectors - 1) // vectors)


@dataclass(frozen=True)
class Steps:
    """An operand by its distances in elements: along its own axis of the result, along the common axis."""

    own: Number
    common: Number


class Product:
    """One contraction, cut: what `product_text` writes."""

    def __init__(self, one: Contraction, registers: Registers, sharing: bool = True) -> None:
        self.one, self.registers, self.sharing = one, registers, sharing
        self.dtype: Dtype = one.out[0].type.dtype
        self.kind = "float" if self.dtype.itemsize == 4 else "double"
        self.lanes = registers.bytes // self.dtype.itemsize
        (inner,) = one.inner
        self.rows, self.columns, self.depth = one.rows.extent, one.columns.extent, inner.extent
        self.left = Steps(one.left[1].coefficient(one.rows), one.left[1].coefficient(inner))
        self.right = Steps(one.right[1].coefficient(one.columns), one.right[1].coefficient(inner))
        self.pitch = one.out[1].coefficient(one.rows)
        self.vectors = 1 if self.columns <= self.lanes else 2
        self.width = self.vectors * self.lanes
        self.panels = -(-self.columns // self.width)
        self.tail = self.columns - (self.panels - 1) * self.width
        self.tiles = -(-self.rows // registers.tile_rows(self.vectors))
        self.height = -(-self.rows // self.tiles)
        #: So many tiles at the end are one row lower: rows are cut as evenly as can be.
        self.low_tiles = self.tiles * self.height - self.rows
        self.pack_right = self.right.own != 1 or self.rows >= _ROWS_WORTH_PACKING
        far = isinstance(self.left.common, int) and self.left.common * self.dtype.itemsize >= _FAR
        self.pack_left = far and self.columns >= 2 * self.width
        self.blocks, self.groups = self._tasks()
        #: Whether the sums of the blocks of the common axis are added up in float64, beside the result.
        self.wide = self.kind == "float" and self.depth > FEW_BLOCKS * self.step
        #: Elements of a row of those sums.
        self.wide_pitch = self.panels * self.width

    def _tasks(self) -> tuple[int, int]:
        """(blocks of rows, groups of panels): one task for each pair, so many that a few threads share them evenly."""
        wanted = _TASKS if 2 * self.rows * self.columns * self.depth >= _WORTH_SHARING else 1
        blocks = -(-self.tiles // _TILES_PER_BLOCK) if self.pack_left else 1
        if self.pack_left or self.panels < wanted:
            blocks = min(self.tiles, -(-max(blocks, wanted) // wanted) * wanted)
        groups = 1 if self.pack_left else min(self.panels, -(-wanted // blocks))
        return blocks, groups

    @property
    def tasks(self) -> int:
        """How many parts can run at the same time."""
        return self.blocks * self.groups

    @property
    def shares(self) -> bool:
        """Whether threads share them."""
        return self.sharing and self.tasks > 1

    @property
    def step(self) -> int:
        """How far the common axis runs before the tiles are put down."""
        return min(self.depth, _DEPTH)

    @property
    def block_tiles(self) -> int:
        """Tiles in one block of rows."""
        return -(-self.tiles // self.blocks)

    @property
    def right_scratch(self) -> int:
        """Elements of the packed right operand."""
        return self.step * self.width * self.panels if self.pack_right else 0

    @property
    def left_scratch(self) -> int:
        """Elements of the packed left operand of one block."""
        return self.step * self.height * self.block_tiles if self.pack_left else 0

    @property
    def scratch(self) -> int:
        """Bytes for the packed operands, and for sums that are kept wide."""
        return self.packed + 8 * self.wide * self.rows * self.wide_pitch

    @property
    def packed(self) -> int:
        """Bytes for the packed operands: whole vectors of registers."""
        size = (self.right_scratch + self.left_scratch * self.tasks) * self.dtype.itemsize
        return -(-size // self.registers.bytes) * self.registers.bytes


def is_product(one: Contraction) -> bool:
    """Whether this is a matrix product: one axis to sum over, floats at known distances, rows side by side."""
    shared = one.right[1].coefficient(one.rows) == one.left[1].coefficient(one.columns) == 0
    side_by_side = one.out[1].coefficient(one.columns) in (0, 1)
    return len(one.inner) == 1 and shared and side_by_side and even(one)


def even(one: Contraction) -> bool:
    """Whether these are floats at distances that are known."""
    variables = {*one.batch, one.rows, one.columns, *one.inner}
    parts = (one.left, one.right, one.out)
    plain = all(atom in variables for _, index in parts for atom, _ in index.terms)
    return plain and one.out[0].type.dtype.kind == "f"


def product_text(product: Product) -> tuple[str, dict[str, str]]:
    """(the function, named @NEST, of left, right, out, scratch and pool; the functions that it calls, by name)."""
    return _Driver(product).text()


@dataclass(frozen=True)
class _Job:
    """What a task is given, in registers."""

    left: str
    right: str
    out: str
    scratch: str
    depth: str
    state: str
    flag: str


def _unpacked(w: Writer) -> _Job:
    parts = []
    for field in range(7):
        place = w.put(f"getelementptr {_JOB}, ptr %job, i64 0, i32 {field}")
        parts.append(w.put(f"load {'i64' if field in (4, 5) else 'ptr'}, ptr {place}"))
    return _Job(*parts)


def _task_text(w: Writer) -> str:
    head = "define internal void @TASK(ptr noalias readonly %job, i64 %task) noinline {"
    return "\n".join([head, "entry:", *w.lines, "  ret void", "}"])


# What a task is given: left, right, out, scratch (pointers); depth, and whether this block of the common axis goes on
# (1), is the last (2), both (3), or neither (numbers); the bool that becomes false with a result that is not finite.
_JOB = "{ ptr, ptr, ptr, ptr, i64, i64, ptr }"


class _Driver:
    """The loops around the tasks."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.w = Writer()
        self.functions: dict[str, str] = {}

    def text(self) -> tuple[str, dict[str, str]]:
        """Batch, then depth: the panels of the right operand are packed, then blocks of tiles are computed."""
        w = self.w
        w.do(f"%job = alloca {_JOB}")
        watched = self.product.one.finite is not None
        flag = "%flag" if watched else "null"
        if watched:
            w.do("store i8 1, ptr %flag")
        w.do(f"store ptr {flag}, ptr {w.put(f'getelementptr {_JOB}, ptr %job, i64 0, i32 6')}")
        self._batch(list(self.product.one.batch), {})
        flags = "ptr %flag, " if watched else ""
        head = (
            "define internal void @NEST(ptr noalias readonly %left, ptr noalias readonly %right, ptr noalias %out, "
            f"{flags}ptr noalias %scratch, ptr %pool) noinline {{"
        )
        return "\n".join([head, "entry:", *w.lines, "  ret void", "}"]), self.functions

    def _batch(self, variables: list[Variable], at: dict[Variable, Number]) -> None:
        if variables:
            with self.w.loop(variables[0].extent) as index:
                self._batch(variables[1:], {**at, variables[0]: index})
            return
        one = self.product.one
        left = self._base("%left", one.left[1], at)
        right = self._base("%right", one.right[1], at)
        self._depth(left, right, self._base("%out", one.out[1], at))

    def _base(self, pointer: str, index: Index, at: dict[Variable, Number]) -> str:
        place: Number = index.constant
        for variable, number in at.items():
            place = self.w.add(place, self.w.multiply(number, index.coefficient(variable)))
        return self.w.at(self.product.kind, pointer, place)

    def _depth(self, left: str, right: str, out: str) -> None:
        p, w = self.product, self.w
        with w.loop(p.depth, p.step) as k:
            depth = w.smaller(p.step, w.rest(p.depth, k)) if p.depth % p.step else p.step
            goes_on = 0 if k == 0 else w.put(f"zext i1 {w.put(f'icmp ne i64 {k}, 0')} to i64")
            ends: Number = 2
            if p.depth > p.step:
                last = w.put(f"icmp sge i64 {k}, {p.depth - p.step}")
                ends = w.put(f"select i1 {last}, i64 2, i64 0")
            state = w.add(goes_on, ends)
            left_k = w.at(p.kind, left, w.multiply(k, p.left.common))
            right_k = w.at(p.kind, right, w.multiply(k, p.right.common))
            for field, value in enumerate((left_k, right_k, out, "%scratch", depth, state)):
                kind = "ptr" if field < 4 else "i64"
                w.do(
                    f"store {kind} {value}, ptr {w.put(f'getelementptr {_JOB}, ptr %job, i64 0, i32 {field}')}"
                )
            if p.pack_right:
                self._run("pack", self._packing(), p.panels)
            self._run("tiles", self._computing(), p.tasks)

    def _run(self, stem: str, text: str, tasks: int) -> None:
        """Do every task of a function: alone, or with the pool where there is enough to do."""
        name = f"cr_{stem}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        self.functions[name] = text.replace("@TASK", f"@{name}")
        if self.product.shares:
            self.w.do(f"call void @cr_share(ptr %pool, ptr @{name}, ptr %job, i64 {tasks})")
            return
        with self.w.loop(tasks) as task:
            self.w.do(f"call void @{name}(ptr %job, i64 {task})")

    # ------------------------------------------------------------------------------- packing

    def _packing(self) -> str:
        """The task that packs one panel of the right operand."""
        p, w = self.product, Writer()
        job = _unpacked(w)
        place = w.at(p.kind, job.right, w.multiply(w.multiply("%task", p.width), p.right.own))
        target = w.at(p.kind, job.scratch, w.multiply("%task", p.step * p.width))
        given = f"(ptr {place}, i64 {p.right.own}, i64 {p.right.common}, ptr {target}, i64 {job.depth})"
        self._for_columns(w, "%task", lambda columns: w.do(f"call void @{self._packer(columns)}{given}"))
        return _task_text(w)

    def _for_columns(self, w: Writer, panel: Number, write: Callable[[int], None]) -> None:
        """Code for a panel: one form for whole panels, one for the last if it is narrower."""
        p = self.product
        if p.tail == p.width or p.panels == 1:
            write(p.tail)
            return
        last, whole, narrow, done = (w.new(name) for name in ("%last", "whole", "narrow", "done"))
        w.do(f"{last} = icmp eq i64 {panel}, {p.panels - 1}")
        w.do(f"br i1 {last}, label %{narrow}, label %{whole}")
        for label, columns in ((whole, p.width), (narrow, p.tail)):
            w.start(label)
            write(columns)
            w.do(f"br label %{done}")
        w.start(done)

    def _packer(self, columns: int) -> str:
        """A function that copies `columns` columns into a panel, row of the panel after row."""
        p = self.product
        way = (
            "across"
            if p.right.own == 1
            else "along"
            if p.right.common == 1 and columns == p.width
            else "single"
        )
        name = f"cr_pack_{way}_{p.kind}_{columns}_{p.width}_{p.lanes}"
        if name not in self.functions:
            self.functions[name] = packer_text(name, way, p.kind, columns, p.width, p.lanes)
        return name

    # ------------------------------------------------------------------------------- blocks of tiles

    def _computing(self) -> str:
        """The task that computes one block of rows for one group of panels."""
        p, w = self.product, Writer()
        job = _unpacked(w)
        block = "%task" if p.groups == 1 else w.put(f"udiv i64 %task, {p.groups}")
        group = 0 if p.groups == 1 else w.put(f"urem i64 %task, {p.groups}")
        first = w.multiply(block, p.block_tiles)
        stop = w.smaller(w.add(first, p.block_tiles), p.tiles)
        source, own = job.left, p.left
        if p.pack_left:
            source, own = self._pack_left(w, job, first, stop), Steps(1, p.height)
        per_group = -(-p.panels // p.groups)
        begin = w.multiply(group, per_group)
        end = w.smaller(w.add(begin, per_group), p.panels)
        with w.between(begin, end) as panel:
            b = w.at(p.kind, job.scratch, w.multiply(panel, p.step * p.width))
            if not p.pack_right:
                b = w.at(p.kind, job.right, w.multiply(panel, p.width))
            pitch = p.width if p.pack_right else p.right.common
            target = w.at(p.kind, job.out, w.multiply(panel, p.width))

            flag = f", ptr {job.flag}" if p.one.finite is not None else ""

            def tiles(columns: int) -> None:
                with w.between(first, stop) as tile:
                    row = self._first_row(w, tile)
                    if p.pack_left:
                        a = w.at(p.kind, source, w.multiply(w.rest(tile, first), p.step * p.height))
                    else:
                        a = w.at(p.kind, source, w.multiply(row, p.left.own))
                    c = w.at(p.kind, target, w.multiply(row, p.pitch))
                    given = (
                        f"(i64 {job.depth}, ptr {a}, i64 {own.own}, i64 {own.common}, ptr {b}, i64 {pitch}, "
                        f"ptr {c}, i64 {p.pitch}, i64 {job.state}{self._kept(w, job, row, panel)}{flag})"
                    )
                    self._for_height(
                        w, tile, lambda height: w.do(f"call void @{self._tile(height, columns)}{given}")
                    )

            self._for_columns(w, panel, tiles)
        return _task_text(w)

    def _kept(self, w: Writer, job: _Job, row: Number, panel: Number) -> str:
        """Where the sums of a tile are kept wide, as arguments; none where they are added up in the result."""
        p = self.product
        if not p.wide:
            return ""
        start = w.at("i8", job.scratch, p.packed)
        place = w.add(w.multiply(row, p.wide_pitch), w.multiply(panel, p.width))
        return f", ptr {w.at('double', start, place)}, i64 {p.wide_pitch}"

    def _first_row(self, w: Writer, tile: Number) -> Number:
        """Tile · height, less one row for every lower tile before it."""
        p = self.product
        row = w.multiply(tile, p.height)
        if not p.low_tiles or p.height == 1:
            return row
        return w.rest(row, w.larger(w.rest(tile, p.tiles - p.low_tiles), 0))

    def _for_height(self, w: Writer, tile: Number, write: Callable[[int], None]) -> None:
        """Code for a tile: one form for the higher ones, one for those that are one row lower."""
        p = self.product
        if not p.low_tiles:
            write(p.height)
            return
        low, upper, lower, done = (w.new(name) for name in ("%low", "upper", "lower", "done"))
        w.do(f"{low} = icmp sge i64 {tile}, {p.tiles - p.low_tiles}")
        w.do(f"br i1 {low}, label %{lower}, label %{upper}")
        for label, height in ((upper, p.height), (lower, p.height - 1)):
            w.start(label)
            write(height)
            w.do(f"br label %{done}")
        w.start(done)

    def _pack_left(self, w: Writer, job: _Job, first: Number, stop: Number) -> str:
        p = self.product
        place = w.add(w.multiply("%task", p.left_scratch), p.right_scratch)
        target = w.at(p.kind, job.scratch, place)
        with w.between(first, stop) as tile:
            here = w.at(p.kind, job.left, w.multiply(self._first_row(w, tile), p.left.own))
            there = w.at(p.kind, target, w.multiply(w.rest(tile, first), p.step * p.height))
            given = f"(ptr {here}, i64 {p.left.own}, i64 {p.left.common}, ptr {there}, i64 {job.depth})"
            # A lower tile is packed as if it were higher: the row beyond it exists, except behind the last tile.
            self._for_height(w, tile, lambda height: w.do(f"call void @{self._left_packer(height)}{given}"))
        return target

    def _left_packer(self, height: int) -> str:
        """A function that copies `height` rows side by side, with room for the higher tiles."""
        p = self.product
        name = f"cr_pack_rows_{p.kind}_{height}_{p.height}"
        self.functions.setdefault(name, left_packer_text(name, p.kind, height, p.height))
        return name

    # ------------------------------------------------------------------------------- tiles

    def _tile(self, height: int, columns: int) -> str:
        p = self.product
        watched = p.one.finite is not None
        name = f"cr_tile{'_watched' * watched}{'_wide' * p.wide}_{p.kind}_{height}x{columns}_{p.lanes}"
        if name not in self.functions:
            self.functions[name] = _tile_text(name, p.kind, height, columns, p.lanes, watched, p.wide)
        return name


@functools.cache
def _tile_text(name: str, kind: str, height: int, columns: int, lanes: int, watched: bool, wide: bool) -> str:
    """out[i, j] (+)= Σₖ left[i·across + k·along] · right[k·pitch + j] for a tile that stays in registers.

    The sum of each block of the common axis starts from 0 and is added to those before; wide: in float64.
    """
    w = Writer()
    v = Vectors(w, kind, columns, lanes)
    tile = [(i, j) for i in range(height) for j in range(v.count)]
    rows = [w.at(kind, "%out", w.multiply(i, "%out.pitch")) for i in range(height)]
    lefts = [w.at(kind, "%left", w.multiply(i, "%across")) for i in range(height)]
    w.do("br label %head")
    w.start("head")
    w.do("%k = phi i64 [ 0, %entry ], [ %next, %head ]")
    for i, j in tile:
        w.do(f"%c{i}.{j} = phi {v.type} [ zeroinitializer, %entry ], [ %d{i}.{j}, %head ]")
    b = w.at(kind, "%right", w.multiply("%k", "%pitch"))
    bs = [v.load(b, j) for j in range(v.count)]
    along = w.multiply("%k", "%along")
    for i in range(height):
        scalar = w.put(f"load {kind}, ptr {w.at(kind, lefts[i], along)}, align {v.align}")
        one = w.put(f"insertelement {v.type} poison, {kind} {scalar}, i64 0")
        a = w.put(f"shufflevector {v.type} {one}, {v.type} poison, <{lanes} x i32> zeroinitializer")
        for j in range(v.count):
            # `contract`: one rounding where the machine can multiply and add at once.
            both = w.put(f"fmul contract {v.type} {a}, {bs[j]}")
            w.do(f"%d{i}.{j} = fadd contract {v.type} %c{i}.{j}, {both}")
    w.do("%next = add nuw nsw i64 %k, 1")
    w.do("%more = icmp slt i64 %next, %depth")
    w.do("br i1 %more, label %head, label %end")
    w.start("end")
    sums = [f"%d{i}.{j}" for i, j in tile]
    w.do("%goes.on = trunc i64 %state to i1")
    if wide:
        kept = [w.at("double", "%wide", w.multiply(i, "%wide.pitch")) for i in range(height)]
        totals = add_up_wide(w, v, [(kept[i], j) for i, j in tile], sums, "%goes.on")
        sums = rounded_once(w, v, totals, "%state")
    else:
        sums = added(w, v, [(rows[i], j) for i, j in tile], sums, "%goes.on")
    for (i, j), value in zip(tile, sums):
        v.store(value, rows[i], j)
    if watched:
        watch(w, v, sums)
    head = (
        f"define internal void @{name}(i64 %depth, ptr noalias readonly %left, i64 %across, i64 %along, "
        "ptr noalias readonly %right, i64 %pitch, ptr noalias %out, i64 %out.pitch, "
        f"i64 %state{', ptr noalias %wide, i64 %wide.pitch' * wide}{', ptr %flag' * watched}) noinline {{"
    )
    return "\n".join([head, "entry:", *w.lines, "  ret void", "}"])
