"""What the machine is and what else runs on it: processor, versions, foreign load, peak memory.

Knows Linux's files and does without them elsewhere; knows nothing of what is measured.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import __version__
from ...compiler import available
from ...config import config
from ...runtime import get_num_threads
from .. import env

_PACKAGES = ("torch", "jax", "jaxlib", "scikit-learn")

# A run beside which others took more than this share of the processors is marked.
FOREIGN = 0.05


def facts() -> dict[str, Any]:
    """Processor, threads and versions, those of rivals too (None: not installed)."""
    found = env.gather()
    packages = found["packages"]
    assert isinstance(packages, dict)
    versions = {name: packages.get(name) for name in ("numpy", "llvmlite")}
    return {
        "processor": found["processor"],
        "system": found["system"],
        "python": found["python"],
        "processors": found["threads"],
        "threads": get_num_threads(),
        "compiled": config.compile and available(),
        "chainrule": __version__,
        "packages": versions | {name: env.version_of(name) for name in _PACKAGES},
    }


# ------------------------------------------------------------------------------- foreign load


@dataclass(frozen=True)
class _Moment:
    clock: float
    busy: float
    stolen: float
    own: float


class Load:
    """What others take of this process's processors, from its making until it is asked.

    Work of this process and of children that have ended counts as ours.
    """

    def __init__(self) -> None:
        self._start = _now()

    def told(self) -> dict[str, Any] | None:
        """Shares of the processors' time that others and the hypervisor took, and whether that spoils a
        measurement; None where the system does not say.
        """
        start, end = self._start, _now()
        if start is None or end is None:
            return None
        time_of_all = (end.clock - start.clock) * len(_processors())
        if time_of_all <= 0:
            return None
        foreign = max(0.0, (end.busy - start.busy) - (end.own - start.own)) / time_of_all
        stolen = (end.stolen - start.stolen) / time_of_all
        return {"foreign": foreign, "stolen": stolen, "disturbed": foreign + stolen > FOREIGN}


def _processors() -> set[int]:
    affinity = getattr(os, "sched_getaffinity", None)
    return affinity(0) if affinity is not None else set(range(os.cpu_count() or 1))


def _now() -> _Moment | None:
    """Seconds that this process's processors were busy, and that we were."""
    try:
        text = Path("/proc/stat").read_text(encoding="ascii")
    except OSError:
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    busy = stolen = 0.0
    for line in text.splitlines():
        name, *numbers = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in _processors():
            # user nice system idle iowait irq softirq steal …; see proc_stat(5).
            user, nice, system, _, _, irq, soft, steal = map(int, numbers[:8])
            busy += (user + nice + system + irq + soft) / ticks
            stolen += steal / ticks
    return _Moment(time.perf_counter(), busy, stolen, sum(os.times()[:4]))


# ------------------------------------------------------------------------------- memory


def resident() -> int | None:
    """Bytes of memory that this process has now."""
    return _status("VmRSS")


def forget_peak() -> bool:
    """Let the peak start anew from here; whether that can be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak() -> int | None:
    """The most bytes of memory that this process ever had, or had since `forget_peak`."""
    return _status("VmHWM")


def _status(name: str) -> int | None:
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
