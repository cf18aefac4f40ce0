"""What a compiled step is made of: what became of every value and why, what every nest costs, how long it takes.

Times are measured nest by nest on copies of everything that the step reads, so a report changes nothing.
Knows programs and the compiler's products; knows nothing of how code is made.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..compiler import Compilation, native
from ..compiler.forms import lowering_of
from ..compiler.loops import Host, host_call
from ..compiler.module import libraries
from ..compiler.plan import ALIGNMENT
from ..compiler.work import work_of
from ..errors import at
from ..graph import Names, describe, print_graph
from ..operations import Array
from ..ops.lowering import HOST
from .host import Segments, hosts_of
from .memory import address, aligned, whole
from .program import Program
from .served import Served
from .threads import get_num_threads, pool

# The nests are run over and over for about so long, and so often at least and at most.
_SECONDS, _FEWEST, _MOST = 0.2, 5, 200


class Stages(dict[str, str]):
    """Every stage of the compiler as text, by its name; prints as one text."""

    def __str__(self) -> str:
        return "\n".join(f"--- {name}\n{text.rstrip()}" for name, text in self.items())

    def to_dict(self) -> dict[str, str]:
        """A plain dict."""
        return dict(self)


@dataclass(frozen=True)
class ValueReport:
    """What became of one value: "stored", "inlined" (computed where it is read) or "host" (computed by NumPy)."""

    name: str
    operation: str
    type: str
    became: str
    reason: str
    line: str


@dataclass(frozen=True)
class NestReport:
    """One nest of loops, or one call of NumPy.

    flops: arithmetic operations on floats, None for NumPy. seconds: the median of one run, None if not measured.
    share: its part of the time of all. commit: it runs only if every check holds.
    """

    title: str
    host: bool
    commit: bool
    flops: int | None
    bytes_read: int
    bytes_written: int
    seconds: float | None
    share: float | None


@dataclass(frozen=True)
class Report:
    """A compiled step in numbers and reasons. `print` shows it, `to_dict()` gives plain Python values.

    native_share: the part of the time that machine code takes; 1.0 where NumPy is not called, 0.0 for the interpreter.
    arena: bytes for values that live within a step; arena_without_sharing: if no two shared their bytes.
    measured_on: "arguments" of the call of `report`, or "stand-ins" of the same types.
    """

    name: str
    engine: str
    threads: int
    seconds: float | None
    native_share: float
    measured_on: str
    arena: int
    arena_without_sharing: int
    programs: int
    recompiles: tuple[str, ...]
    host_operations: tuple[str, ...]
    nests: tuple[NestReport, ...]
    values: tuple[ValueReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """Dicts, lists, texts and numbers only."""
        found = asdict(self)
        return {name: list(part) if isinstance(part, tuple) else part for name, part in found.items()}

    def __str__(self) -> str:
        return "\n".join(_print(self))


def report_of(
    program: Program, sources: Sequence[Array] | None, programs: int, recompiles: Sequence[str]
) -> Report:
    """The report on a program, measured on an array for each source of its graph, or on stand-ins."""
    compilation = program.compilation
    given = stand_ins(program) if sources is None else sources
    times = [] if program.native is None else _measure(program, given)
    nests = _nests(compilation, times)
    total = sum(times)
    by_host = sum(one.seconds or 0.0 for one in nests if one.host)
    in_arena = compilation.plan.temporary
    return Report(
        name=compilation.graph.name,
        engine="interpreter" if program.native is None else "machine code",
        threads=get_num_threads() if compilation.needs.shares and program.native is not None else 1,
        seconds=total if times else None,
        native_share=0.0 if program.native is None else 1.0 if not by_host else 1.0 - by_host / total,
        measured_on="stand-ins" if sources is None else "arguments",
        arena=compilation.plan.arena,
        arena_without_sharing=sum(-(-one.bytes // ALIGNMENT) * ALIGNMENT for one in in_arena),
        programs=programs,
        recompiles=tuple(recompiles),
        host_operations=tuple(_called(one) for one in hosts_of(compilation)),
        nests=tuple(nests),
        values=tuple(_values(compilation)),
    )


def _called(one: Host) -> str:
    return f"{one.name} {one.out.type}{at(one.origin)}"


def _values(compilation: Compilation) -> Iterator[ValueReport]:
    names = Names()
    list(print_graph(compilation.laid_out, names))
    for node, decision in sorted(compilation.fusion.decisions.items(), key=lambda item: item[0].serial):
        became = "host" if lowering_of(node) is HOST else "stored" if decision.stored else "inlined"
        line = "" if node.origin is None else str(node.origin)
        yield ValueReport(names[node], describe(node, names), str(node.type), became, decision.reason, line)


def _nests(compilation: Compilation, times: Sequence[float]) -> list[NestReport]:
    found = []
    total = sum(times)
    for k, nest in enumerate(compilation.loops.nests):
        work = work_of(nest)
        seconds = times[k] if times else None
        share = None if seconds is None else seconds / total if total else 0.0
        host = host_call(nest) is not None
        found.append(
            NestReport(nest.title, host, nest.commit, work.flops, work.read, work.written, seconds, share)
        )
    return found


# ------------------------------------------------------------------------------------------- measuring


def stand_ins(program: Served) -> list[Array]:
    """An array for each source: copies of the cells; for inputs numbers that are always allowed."""
    random = np.random.default_rng(0)
    given = [_stand_in(node.shape, node.dtype, random) for node in program.graph.inputs]
    return [*given, *program.copies_of_state(lambda node: _stand_in(node.shape, node.dtype, random))]


def _stand_in(shape: tuple[int, ...], dtype: Any, random: np.random.Generator) -> Array:
    return random.random(shape).astype(dtype) if dtype.kind == "f" else np.zeros(shape, dtype)


class _Copy:
    """Memory of its own for everything that a step touches, and the table of the addresses."""

    def __init__(self, compilation: Compilation, sources: Sequence[Array]) -> None:
        plan = compilation.plan
        self.sources = [np.array(one, order="C") for one in sources]
        self._kept = [np.array(one, order="C") for one in sources]
        in_place = set(compilation.fusion.in_place.values())
        self._written = [k for k, node in enumerate(plan.fusion.graph.sources) if node in in_place]
        arrays = [*self.sources, *(whole(node.value) for node in plan.constants)]
        arrays += [np.empty(node.shape, node.dtype) for node in plan.results]
        arrays += [aligned(plan.arena), np.ones(plan.status.size, bool), aligned(compilation.needs.scratch)]
        self._arrays = arrays
        self._helpers = pool() if compilation.needs.shares else None
        last = 0 if self._helpers is None else self._helpers.address
        self.table = (ctypes.c_void_p * (len(arrays) + 2))(*map(address, arrays), last, 0)
        self.address = ctypes.addressof(self.table)

    def restore(self) -> None:
        """State as it was before the step."""
        for k in self._written:
            self.sources[k][...] = self._kept[k]
        if self._helpers is not None:
            self._helpers.ring()


def _measure(program: Program, sources: Sequence[Array]) -> list[float]:
    """Seconds of each nest: medians of passes through all of them, in order, without what a call itself costs."""
    compilation = program.compilation
    stepped = compilation.one_by_one()
    parts, _ = native(stepped.text, stepped.entry, libraries(compilation.loops, stepped))
    run = parts.lookup(parts.entry, ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
    copy = _Copy(compilation, sources)
    hosts = Segments(parts, compilation, copy.table)
    calls = [host_call(nest) for nest in compilation.loops.nests]
    passes: list[list[int]] = []
    clock, started = time.perf_counter_ns, time.perf_counter()
    while len(passes) < _FEWEST or (len(passes) < _MOST and time.perf_counter() - started < _SECONDS):
        copy.restore()
        times = []
        for k, one in enumerate([*calls, None]):  # the last number stands for no nest: what a call costs
            before = clock()
            if one is None:
                run(copy.address, k)
            else:
                hosts.run(one)
            times.append(clock() - before)
        passes.append(times)
    medians = [statistics.median(column) for column in zip(*passes)]
    floor = medians.pop()
    return [
        max(0.0, median - (floor if one is None else 0.0)) * 1e-9
        for median, one in zip(medians, calls, strict=True)
    ]


# -------------------------------------------------------------------------------------------- printing


def _print(report: Report) -> Iterator[str]:
    took = "" if report.seconds is None else f", {_time(report.seconds)} in {len(report.nests)} nests"
    yield f"{report.name}: {report.engine}{took}, {_plural(report.threads, 'thread')}"
    host = ", ".join(report.host_operations) or "none"
    yield f"  native share  {report.native_share:.3g}; computed by NumPy: {host}"
    yield f"  arena         {report.arena:,} bytes ({report.arena_without_sharing:,} without sharing)"
    yield f"  programs      {report.programs}; traced again: {'never' if not report.recompiles else ''}".rstrip()
    yield from (f"    {reason}" for reason in report.recompiles)
    yield ""
    rows: list[tuple[str, ...]] = [("nest", "time", "share", "flops", "read", "written", "")]
    for k, one in enumerate(report.nests):
        note = "NumPy" if one.host else "after the checks" if one.commit else ""
        rows.append((
            f"{k} {_short(one.title)}",
            "-" if one.seconds is None else _time(one.seconds),
            "-" if one.share is None else f"{one.share:.1%}",
            "-" if one.flops is None else f"{one.flops:,}",
            f"{one.bytes_read:,}",
            f"{one.bytes_written:,}",
            note,
        ))  # fmt: skip
    yield from _table(rows, "<>>>>><")
    yield ""
    values: list[tuple[str, ...]] = [("value", "type", "became", "because", "line")]
    values += [
        (f"{v.name} = {_short(v.operation)}", v.type, v.became, v.reason, v.line) for v in report.values
    ]
    yield from _table(values, "<<<<<")


def _table(rows: list[tuple[str, ...]], sides: str) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        yield "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths)).rstrip()


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:,.2f} ms"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
