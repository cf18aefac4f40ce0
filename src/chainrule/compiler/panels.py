"""Copies of a product's operands into the order in which its tiles read them, as LLVM text.

Knows LLVM's grammar and distances in memory; knows nothing of what is computed, of threads and of tasks.
"""

from __future__ import annotations

import functools

from .text import Number, Writer
from .vectors import Vectors

_PACKER = (
    "define internal void @{}(ptr noalias readonly %from, i64 %own, i64 %common, ptr noalias %to, i64 %depth) "
    "noinline {{"
)


@functools.cache
def left_packer_text(name: str, kind: str, height: int, room: int) -> str:
    """to[k·room + i] = from[i·own + k·common]."""
    w = Writer()
    rows = [w.at(kind, "%from", w.multiply(i, "%own")) for i in range(height)]
    with w.loop("%depth") as k:
        along, to = w.multiply(k, "%common"), w.at(kind, "%to", w.multiply(k, room))
        for i in range(height):
            w.do(
                f"store {kind} {w.put(f'load {kind}, ptr {w.at(kind, rows[i], along)}')}, ptr {w.at(kind, to, i)}"
            )
    return "\n".join([_PACKER.format(name), "entry:", *w.lines, "  ret void", "}"])


@functools.cache
def packer_text(name: str, way: str, kind: str, columns: int, width: int, lanes: int) -> str:
    """to[k·width + j] = from[j·own + k·common] for `columns` columns."""
    w = Writer()
    if way == "across":
        v = Vectors(w, kind, columns, lanes)
        with w.loop("%depth") as k:
            source, to = (
                w.at(kind, "%from", w.multiply(k, "%common")),
                w.at(kind, "%to", w.multiply(k, width)),
            )
            for j in range(v.count):
                w.do(f"store {v.type} {v.load(source, j)}, ptr {w.at(kind, to, j * lanes)}, align {v.align}")
    elif way == "along":
        _transposed(w, kind, columns, width, lanes)
    else:
        _single(w, kind, columns, width, "%depth", "%from", "%to")
    return "\n".join([_PACKER.format(name), "entry:", *w.lines, "  ret void", "}"])


def _single(w: Writer, kind: str, columns: int, width: int, depth: Number, source: str, to: str) -> None:
    """Element by element; columns of the panel that do not exist are left as they are: nobody reads them."""
    with w.loop(depth) as k, w.loop(columns) as j:
        place = w.add(w.multiply(j, "%own"), w.multiply(k, "%common"))
        value = w.put(f"load {kind}, ptr {w.at(kind, source, place)}")
        w.do(f"store {kind} {value}, ptr {w.at(kind, to, w.add(w.multiply(k, width), j))}")


def _transposed(w: Writer, kind: str, columns: int, width: int, lanes: int) -> None:
    """Squares of lanes × lanes turned in registers, and what is left of the depth element by element."""
    vector = f"<{lanes} x {kind}>"
    align = 4 if kind == "float" else 8
    squares = w.put(f"sdiv i64 %depth, {lanes}")
    whole = w.put(f"mul nsw i64 {squares}, {lanes}")
    w.do(f"%any = icmp sgt i64 {squares}, 0")
    w.do("br i1 %any, label %turn, label %rest")
    w.start("turn")
    with w.loop(whole, lanes) as k:
        for first in range(0, columns, lanes):
            rows = [
                w.put(
                    f"load {vector}, ptr "
                    f"{w.at(kind, w.at(kind, '%from', w.multiply(first + i, '%own')), k)}, align {align}"
                )
                for i in range(lanes)
            ]
            for i, row in enumerate(_turn(w, vector, rows)):
                place = w.at(kind, "%to", w.add(w.multiply(w.add(k, i), width), first))
                w.do(f"store {vector} {row}, ptr {place}, align {align}")
    w.do("br label %rest")
    w.start("rest")
    left = w.rest("%depth", whole)
    w.do(f"%some = icmp sgt i64 {left}, 0")
    w.do("br i1 %some, label %single, label %end")
    w.start("single")
    _single(
        w, kind, columns, width, left, w.at(kind, "%from", whole), w.at(kind, "%to", w.multiply(whole, width))
    )
    w.do("br label %end")
    w.start("end")


def _turn(w: Writer, vector: str, rows: list[str]) -> list[str]:
    """The transpose of a square of vectors: blocks of 1, 2, 4 … change places."""
    lanes, distance = len(rows), 1
    while distance < lanes:
        turned = list(rows)
        for i in range(lanes):
            if i & distance:
                continue
            one, other = rows[i], rows[i | distance]
            upper = [j if not j & distance else lanes + j - distance for j in range(lanes)]
            lower = [j + distance if not j & distance else lanes + j for j in range(lanes)]
            for place, picks in ((i, upper), (i | distance, lower)):
                chosen = ", ".join(f"i32 {pick}" for pick in picks)
                turned[place] = w.put(
                    f"shufflevector {vector} {one}, {vector} {other}, <{lanes} x i32> <{chosen}>"
                )
        rows, distance = turned, distance * 2
    return rows
