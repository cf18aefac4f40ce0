"""Vectors of registers in LLVM text: rows of a tile loaded, stored, added to what was there, and looked at.

Knows LLVM's grammar; knows nothing of what is computed, of threads and of tasks.
"""

from __future__ import annotations

from .text import Writer


class Vectors:
    """Loads and stores of the vectors that a row of `columns` needs; the last one masked where it is not full."""

    def __init__(self, w: Writer, kind: str, columns: int, lanes: int) -> None:
        self.w, self.kind, self.lanes = w, kind, lanes
        self.count = -(-columns // lanes)
        self.type = f"<{lanes} x {kind}>"
        self.suffix = f"v{lanes}f{32 if kind == 'float' else 64}"
        rest = columns - (self.count - 1) * lanes
        bits = ", ".join(f"i1 {'true' if k < rest else 'false'}" for k in range(lanes))
        self.mask = "" if rest == lanes else f"<{bits}>"
        self.mask_type = f"<{lanes} x i1>"
        self.align = 4 if kind == "float" else 8

    def load(self, pointer: str, k: int) -> str:
        """Vector k of the row that starts at the pointer; 0 beyond its end."""
        place = self.w.at(self.kind, pointer, k * self.lanes)
        if self.mask and k == self.count - 1:
            return self.w.put(
                f"call {self.type} @llvm.masked.load.{self.suffix}.p0(ptr align {self.align} {place}, "
                f"{self.mask_type} {self.mask}, {self.type} zeroinitializer)"
            )
        return self.w.put(f"load {self.type}, ptr {place}, align {self.align}")

    def store(self, value: str, pointer: str, k: int) -> None:
        """Put vector k of a row down."""
        place = self.w.at(self.kind, pointer, k * self.lanes)
        if self.mask and k == self.count - 1:
            self.w.do(
                f"call void @llvm.masked.store.{self.suffix}.p0({self.type} {value}, ptr align {self.align} {place}, "
                f"{self.mask_type} {self.mask})"
            )
        else:
            self.w.do(f"store {self.type} {value}, ptr {place}, align {self.align}")


def declarations(kind: str, lanes: int) -> list[str]:
    """What the functions here call."""
    vector, mask = f"<{lanes} x {kind}>", f"<{lanes} x i1>"
    suffix = f"v{lanes}f{32 if kind == 'float' else 64}"
    return [
        f"declare {vector} @llvm.masked.load.{suffix}.p0(ptr, {mask}, {vector})",
        f"declare void @llvm.masked.store.{suffix}.p0({vector}, ptr, {mask})",
        f"declare i1 @llvm.vector.reduce.or.v{lanes}i1({mask})",
    ]


Place = tuple[str, int]
"""A row of a tile, and which of its vectors."""


def added(w: Writer, v: Vectors, places: list[Place], sums: list[str], goes_on: str) -> list[str]:
    """The sums of a block, and where it goes on those that lie at the places already."""
    before = w.label
    w.do(f"br i1 {goes_on}, label %add, label %ready")
    w.start("add")
    totals = [w.put(f"fadd {v.type} {v.load(row, j)}, {value}") for (row, j), value in zip(places, sums)]
    w.do("br label %ready")
    w.start("ready")
    return [
        w.put(f"phi {v.type} [ {value}, %{before} ], [ {total}, %add ]") for value, total in zip(sums, totals)
    ]


def add_up_wide(w: Writer, v: Vectors, places: list[Place], sums: list[str], goes_on: str) -> list[str]:
    """The same in float64: what there is then is put down at the places and given back."""
    wide = f"<{v.lanes} x double>"
    pointers = [w.at("double", row, j * v.lanes) for row, j in places]
    found = [w.put(f"fpext {v.type} {value} to {wide}") for value in sums]
    before = w.label
    w.do(f"br i1 {goes_on}, label %add, label %ready")
    w.start("add")
    totals = [
        w.put(f"fadd {wide} {w.put(f'load {wide}, ptr {place}, align 8')}, {value}")
        for place, value in zip(pointers, found)
    ]
    w.do("br label %ready")
    w.start("ready")
    totals = [
        w.put(f"phi {wide} [ {value}, %{before} ], [ {total}, %add ]") for value, total in zip(found, totals)
    ]
    for place, total in zip(pointers, totals):
        w.do(f"store {wide} {total}, ptr {place}, align 8")
    return totals


def rounded_once(w: Writer, v: Vectors, totals: list[str], state: str) -> list[str]:
    """Wide totals in their own type, if the block was the last (bit 1 of the state); else the function ends here."""
    w.do(f"br i1 {w.put(f'icmp uge i64 {state}, 2')}, label %last, label %kept.wide")
    w.start("kept.wide")
    w.do("ret void")
    w.start("last")
    return [w.put(f"fptrunc <{v.lanes} x double> {total} to {v.type}") for total in totals]


def watch(w: Writer, v: Vectors, values: list[str]) -> None:
    """Σ 0·value is 0 as long as every value is finite, and NaN for ever after one that is not."""
    total = "zeroinitializer"
    for value in values:
        product = w.put(f"fmul contract {v.type} {value}, zeroinitializer")
        total = w.put(f"fadd contract {v.type} {product}, {total}")
    lost = w.put(f"fcmp uno {v.type} {total}, zeroinitializer")
    some = w.put(f"call i1 @llvm.vector.reduce.or.v{v.lanes}i1({v.mask_type} {lost})")
    w.do(f"br i1 {some}, label %lost, label %kept")
    w.start("lost")
    w.do("store atomic i8 0, ptr %flag monotonic, align 1")
    w.do("br label %kept")
    w.start("kept")
