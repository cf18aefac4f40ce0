"""Timing in turns, and what is told of the samples.

Knows callables and numbers; knows nothing of engines.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Run = Callable[[], Any]

# After a turn the threads of an engine may go on looking for work for a while.
_PAUSE = 0.02
# The part of a turn that goes by before the clock starts, so that caches and clocks are warm.
_WARMING = 0.25
# Where something is far slower than it should be (threads that wait for each other on a busy machine), no further
# round begins after so many times what was planned, once there are enough for quartiles.
_PATIENCE = 4
_FEWEST = 3


@dataclass(frozen=True)
class Effort:
    """How much is measured: turns of each engine, and seconds of one turn."""

    rounds: int = 15
    seconds: float = 0.15


QUICK = Effort(3, 0.01)


def in_turns(
    runs: Mapping[str, Run], effort: Effort, before: Mapping[str, Run] | None = None
) -> dict[str, list[float]]:
    """Seconds per run, one sample for each round: the runs take turns, forwards and backwards alternately.

    before: what is done before each turn of a run.

    >>> sorted(in_turns({"a": int, "b": float}, Effort(2, 0.001)))
    ['a', 'b']
    """
    counts = {name: _runs_in(run, effort.seconds) for name, run in runs.items()}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    planned = effort.rounds * len(runs) * (effort.seconds * (1 + _WARMING) + _PAUSE)
    start = time.perf_counter()
    for number in range(effort.rounds):
        if number >= _FEWEST and time.perf_counter() - start > _PATIENCE * planned:
            break
        for name in list(runs)[:: -1 if number % 2 else 1]:
            run, count = runs[name], counts[name]
            if before is not None:
                before[name]()
            time.sleep(_PAUSE)
            _spend(run, round(count * _WARMING))
            samples[name].append(_spend(run, count) / count)
    return samples


def _runs_in(run: Run, seconds: float) -> int:
    """How often it runs in that time, after a few runs to warm up."""
    _spend(run, 1)  # which may have to compile
    count, spent = 1, _spend(run, 1)
    while spent < seconds / 4:
        count *= 2
        spent = _spend(run, count)
    return max(1, round(count * seconds / spent))


def _spend(run: Run, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        run()
    return time.perf_counter() - start


def told(samples: list[float], each: int = 1) -> dict[str, Any]:
    """Median, quartiles, smallest and number of samples, per step where a sample has `each` steps; and all of them.

    >>> told([3.0, 1.0, 2.0])["median"]
    2.0
    """
    steps = [sample / each for sample in samples]
    low, _, high = statistics.quantiles(steps, n=4, method="inclusive") if len(steps) > 1 else steps * 3
    return {
        "median": statistics.median(steps),
        "quartiles": [low, high],
        "least": min(steps),
        "samples": steps,
    }


def ratio(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """How many times as long they take: median and quartiles of the rounds' ratios.

    The samples of one round lie close together, so what changes from round to round (clocks, neighbours) drops out.
    """
    found = told([b / a for a, b in zip(ours["samples"], theirs["samples"])])
    return {"median": found["median"], "quartiles": found["quartiles"]}
