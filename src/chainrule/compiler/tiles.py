"""The code of one tile of a Contraction over several axes: nested loops around multiplications in registers.

Knows LLVM's grammar and steps; knows nothing of what is computed, of threads and of tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from .text import Number, Writer
from .vectors import Vectors, add_up_wide, added, watch

# Multiplications of vectors in a row that are written without a loop.
_WRITTEN_OUT = 160


@dataclass(frozen=True)
class Level:
    """One loop of the sum: how often, and how far it moves in the left and in the right operand."""

    extent: int
    left: int
    right: int


@dataclass(frozen=True)
class Tile:
    """What a tile computes: where its rows are in the left operand and in the result, columns, the loops of the sum.

    `left_vectors`: the left operand has a number of its own for each column. `goes_on`: it may be called for a part of
    the sum only, and adds it to those before; `wide`: in float64, in which its rows lie then. `watched`: it says
    whether a result is not finite.
    """

    kind: str
    lanes: int
    columns: int
    rows: tuple[int, ...]
    outs: tuple[int, ...]
    loops: tuple[tuple[Number, Level], ...]
    left_vectors: bool
    goes_on: bool
    watched: bool
    wide: bool = False


def tile_text(p: Tile) -> str:
    """out[i, j] (+)= Σ left[i] · right[j] over the loops of the sum, for a tile that stays in registers."""
    w = Writer()
    v = Vectors(w, p.kind, p.columns, p.lanes)
    tile = [(i, j) for i in range(len(p.rows)) for j in range(v.count)]
    ends = [w.at("double" if p.wide else p.kind, "%out", place) for place in p.outs]

    def step(left: str, right: str, sums: list[str]) -> list[str]:
        bs = [v.load(right, j) for j in range(v.count)]
        found: list[str] = []
        for i, place in enumerate(p.rows):
            row = w.at(p.kind, left, place)
            everywhere = "" if p.left_vectors else _spread(w, v, row)
            for j in range(v.count):
                a = v.load(row, j) if p.left_vectors else everywhere
                # `contract`: one rounding where the machine can multiply and add at once.
                both = w.put(f"fmul contract {v.type} {a}, {bs[j]}")
                found.append(w.put(f"fadd contract {v.type} {sums[i * v.count + j]}, {both}"))
        return found

    sums = _summed(w, v, p.loops, "%left", "%right", ["zeroinitializer"] * len(tile), step)
    places = [(ends[i], j) for i, j in tile]
    if p.wide:
        add_up_wide(w, v, places, sums, "%goes.on")
    else:
        sums = added(w, v, places, sums, "%goes.on") if p.goes_on else sums
        for (row, j), value in zip(places, sums):
            v.store(value, row, j)
    if p.watched:
        watch(w, v, sums)
    head = (
        "define internal void @TILE(ptr noalias readonly %left, ptr noalias readonly %right, ptr noalias %out, "
        "i64 %count, i1 %goes.on, ptr %flag) noinline {"
    )
    return "\n".join([head, "entry:", *w.lines, "  ret void", "}"])


def _spread(w: Writer, v: Vectors, place: str) -> str:
    """One number in every lane."""
    scalar = w.put(f"load {v.kind}, ptr {place}, align {v.align}")
    single = w.put(f"insertelement {v.type} poison, {v.kind} {scalar}, i64 0")
    return w.put(f"shufflevector {v.type} {single}, {v.type} poison, <{v.lanes} x i32> zeroinitializer")


def _summed(
    w: Writer,
    v: Vectors,
    loops: Sequence[tuple[Number, Level]],
    left: str,
    right: str,
    sums: list[str],
    step: Callable[[str, str, list[str]], list[str]],
) -> list[str]:
    """The sums after the loops; what is short is written without a loop."""
    if not loops:
        return step(left, right, sums)
    (extent, level), *rest = loops
    steps = [extent, *(other for other, _ in rest)]
    if all(isinstance(one, int) for one in steps) and prod(map(int, steps)) * len(sums) <= _WRITTEN_OUT:
        for k in range(int(extent)):
            a, b = w.at(v.kind, left, k * level.left), w.at(v.kind, right, k * level.right)
            sums = _summed(w, v, rest, a, b, sums, step)
        return sums
    before, head, after = w.label, w.new("head"), w.new("after")
    w.do(f"br label %{head}")
    w.start(head)
    index, a, b = w.new("%i"), w.new("%a"), w.new("%b")
    running = [w.new("%s") for _ in sums]
    place = len(w.lines)
    found = _summed(w, v, rest, a, b, running, step)
    a_next = w.put(f"getelementptr inbounds {v.kind}, ptr {a}, i64 {level.left}")
    b_next = w.put(f"getelementptr inbounds {v.kind}, ptr {b}, i64 {level.right}")
    following = w.put(f"add nuw nsw i64 {index}, 1")
    more = w.put(f"icmp slt i64 {following}, {extent}")
    w.do(f"br i1 {more}, label %{head}, label %{after}")
    phis = [("i64", index, 0, following), ("ptr", a, left, a_next), ("ptr", b, right, b_next)]
    phis += [(v.type, name, old, new) for name, old, new in zip(running, sums, found)]
    w.lines[place:place] = [
        f"  {name} = phi {kind} [ {old}, %{before} ], [ {new}, %{w.label} ]" for kind, name, old, new in phis
    ]
    w.start(after)
    return found
