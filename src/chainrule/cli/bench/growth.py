"""How time grows with batch, width, depth and length in time, and how long equal layers take to compile.

Knows our own engine; knows nothing of rivals.
"""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...compiler.machine import Native
from ...compiler.module import libraries
from . import machine
from .engines import own
from .timing import Effort, in_turns, told
from .workloads import Layered, Sequences, Workload

WAYS = ("batch", "width", "depth", "length")
COMPILED = ("depth", "length")
"""Ways in which a network grows by equal parts, so that compiling it should not take longer."""

_TURN = 0.04

_BATCHES = (16, 32, 64, 128, 256, 512, 1024, 2048)
_WIDTHS = (32, 64, 96, 128, 192, 256, 384, 512)
_DEPTHS = (1, 2, 4, 8, 12, 16, 24, 32)
_LENGTHS = (16, 64, 256, 1024, 4096)


def series(way: str, quick: bool = False) -> list[tuple[int, Workload]]:
    """(size, workload) of each point: the size is the batch, the operations of the products, layers, steps in time."""
    found: list[tuple[int, Workload]]
    if way == "batch":
        found = [(one, Layered(f"batch {one}", one, sizes=(64, 128, 128, 10))) for one in _BATCHES]
    elif way == "width":
        wide = [Layered(f"width {one}", 64, sizes=(one, one, one, 10)) for one in _WIDTHS]
        found = [(one.flops, one) for one in wide]
    elif way == "length":
        found = [
            (one, Sequences(f"length {one}", 8, network="lstm", width=32, length=one)) for one in _LENGTHS
        ]
    else:
        found = [(one, Layered(f"depth {one}", 64, sizes=(64, *[64] * one, 10))) for one in _DEPTHS]
    return found[:4] if quick else found


def measure(way: str, effort: Effort, quick: bool = False) -> dict[str, Any]:
    """Time of a step at each size with the straight line through them; what the first step took too."""
    load = machine.Load()
    points = series(way, quick)
    steps, again, compiled = {}, {}, []
    for size, workload in points:
        prepared, first = _first(workload)
        steps[str(size)], again[str(size)] = prepared.step, prepared.keep()
        compiled.append(first)
    # Short turns from the first weights on: a small network that knows its batch by heart ends in denormal numbers.
    samples = in_turns(steps, Effort(effort.rounds, min(effort.seconds, _TURN)), again)
    found = [
        {"size": size, "workload": workload.as_json(), **told(samples[str(size)]), "first": first}
        for (size, workload), first in zip(points, compiled)
    ]
    medians = [one["median"] for one in found]
    steps.clear()
    again.clear()
    gc.collect()
    return {
        "way": way,
        "points": found,
        "line": line([size for size, _ in points], medians),
        "load": load.told(),
    }


def line(sizes: list[int], seconds: list[float]) -> dict[str, float]:
    """Seconds at size 0, seconds for each more, and the share of the variance that the line explains.

    Weighted by 1/seconds², so that small sizes count as much as large ones.

    >>> {name: round(value, 6) for name, value in line([1, 2, 3], [3.0, 5.0, 7.0]).items()}
    {'start': 1.0, 'each': 2.0, 'explained': 1.0, 'worst': 0.0}
    """
    x, y = np.array(sizes, float), np.array(seconds)
    each, start = np.polyfit(x, y, 1, w=1 / y)
    fitted = start + each * x
    spread = float(((y - statistics.fmean(seconds)) ** 2).sum())
    explained = 1 - float(((y - fitted) ** 2).sum()) / spread if spread else 1.0
    worst = float(np.abs(fitted / y - 1).max())
    return {"start": float(start), "each": float(each), "explained": explained, "worst": worst}


def _first(workload: Workload) -> tuple[Any, dict[str, Any]]:
    """The network, and what its first step took: in all, and for machine code; no code is taken from the disk."""
    with _no_cache():
        prepared = own.prepare(workload)
        start = time.perf_counter()
        prepared.step()
        seconds = time.perf_counter() - start
        compilation = prepared.program().compilation
        start = time.perf_counter()
        Native(
            compilation.emitted.text,
            compilation.emitted.entry,
            libraries(compilation.loops, compilation.emitted),
        )
        native = time.perf_counter() - start
    text = compilation.emitted.text
    return prepared, {
        "seconds": seconds, "machine_code": native, "nests": len(compilation.loops.nests),
        "functions": text.count("\ndefine "), "lines": text.count("\n"),
    }  # fmt: skip


@contextlib.contextmanager
def _no_cache() -> Iterator[None]:
    before = os.environ.get("CHAINRULE_CACHE")
    os.environ["CHAINRULE_CACHE"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CHAINRULE_CACHE"]
        else:
            os.environ["CHAINRULE_CACHE"] = before
