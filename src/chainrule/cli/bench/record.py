"""One measurement of engines on workloads, as a record that JSON can hold.

All engines of a workload run in this process and take turns, from the same first weights and on the same batches; an
engine whose losses are not ours is reported and not compared. Memory and first steps are found in processes of
their own. Knows all the parts of the measurement; knows nothing of how it is shown.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from . import floor, machine, probe
from .engines import ENGINES, OURS, Prepared
from .timing import Effort, in_turns, ratio, told
from .workloads import Workload

FORMAT = 1

# Losses of the first steps must agree to this, relatively: then derivative and update are the same.
STEPS_COMPARED = 3
TOLERANCE = 1e-4

MEASURED, ABSENT, FAILED, DISAGREES = "measured", "not installed", "failed", "disagrees"

Say = Callable[..., None]


def measure(
    workloads: Sequence[Workload], engines: Sequence[str], effort: Effort, epoch: bool, fresh: bool, say: Say
) -> dict[str, Any]:
    """The record of all workloads. epoch: many steps in a call too. fresh: processes of their own too.

    say: is told what begins, as a key of the catalogue and its values.
    """
    found = []
    for workload in workloads:
        say("measuring", name=workload.name, described=workload.described)
        found.append(_workload(workload, engines, effort, epoch, fresh))
    return {"format": FORMAT, "machine": machine.facts(), "effort": asdict(effort), "workloads": found}


def _workload(
    workload: Workload, engines: Sequence[str], effort: Effort, epoch: bool, fresh: bool
) -> dict[str, Any]:
    load = machine.Load()
    told_of: dict[str, dict[str, Any]] = {}
    ready: dict[str, Prepared] = {}
    for name in engines:
        told_of[name], prepared = _prepared(name, workload)
        if prepared is not None:
            ready[name] = prepared
    _compare(told_of, ready)
    # Every turn begins where training began: thousands of steps on a batch would end in denormal numbers.
    again = {name: one.keep() for name, one in ready.items()}
    _time("call", {name: one.step for name, one in ready.items()}, told_of, effort, 1, again)
    if epoch:
        _time(
            "epoch",
            {name: one.epoch() for name, one in ready.items()},
            told_of,
            effort,
            workload.epoch,
            again,
        )
        for name, one in ready.items():
            told_of[name]["epoch"]["how"] = one.how
    best = floor.measure(workload, effort)
    names = list(ready)
    ready.clear()
    again.clear()
    gc.collect()
    if fresh:
        for name in names:
            told_of[name]["fresh"] = probe.ask(name, workload)
    return {
        "workload": workload.as_json(),
        "steps_in_epoch": workload.epoch,
        "engines": told_of,
        "floor": best,
        "ratios": {way: _against_best(told_of, way) for way in ("call", "epoch") if way == "call" or epoch},
        "load": load.told(),
    }


def _prepared(name: str, workload: Workload) -> tuple[dict[str, Any], Prepared | None]:
    """What is known of an engine after its first steps, and the network if it works."""
    engine = ENGINES[name]
    if not engine.installed:
        return {"status": ABSENT}, None
    try:
        prepared = engine.prepare(workload)
        losses = [prepared.number(prepared.step()) for _ in range(STEPS_COMPARED)]
    except Exception as failure:
        if engine.ours:
            raise
        # Whatever a rival raises is a finding about the rival, and the others are measured all the same.
        first = (str(failure).strip().splitlines() or [""])[0]
        return {"status": FAILED, "reason": f"{type(failure).__name__}: {first}"[:300]}, None
    return {"status": MEASURED, "losses": losses}, prepared


def _compare(told_of: dict[str, dict[str, Any]], ready: dict[str, Prepared]) -> None:
    """Take out whoever computes something else."""
    if OURS not in ready:
        return
    ours = told_of[OURS]["losses"]
    for name in list(ready):
        apart = max(abs(a - b) / max(1e-30, abs(a)) for a, b in zip(ours, told_of[name]["losses"]))
        told_of[name]["apart"] = apart
        if not apart <= TOLERANCE:  # also where it is NaN
            told_of[name]["status"] = DISAGREES
            del ready[name]


def _time(
    way: str,
    runs: dict[str, Callable[[], Any]],
    told_of: dict[str, dict[str, Any]],
    effort: Effort,
    each: int,
    again: dict[str, Callable[[], Any]],
) -> None:
    for name, samples in in_turns(runs, effort, again).items():
        told_of[name][way] = told(samples, each)


def _against_best(told_of: dict[str, dict[str, Any]], way: str) -> dict[str, Any] | None:
    """The quickest rival, and how many times as long as ours it takes; None without rivals."""
    rivals = [name for name in told_of if name != OURS and way in told_of[name]]
    if not rivals or way not in told_of.get(OURS, {}):
        return None
    best = min(rivals, key=lambda name: float(told_of[name][way]["median"]))
    return {"best_rival": best, **ratio(told_of[OURS][way], told_of[best][way])}


def findings(record: dict[str, Any]) -> list[str]:
    """Engines that computed something else, as `workload: engine`."""
    return [
        f"{one['workload']['name']}: {name}"
        for one in record.get("workloads", ())
        for name, engine in one["engines"].items()
        if engine["status"] == DISAGREES
    ]
