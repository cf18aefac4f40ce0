"""A process of its own for one engine: import, first step, memory. The order and the answer are JSON.

Knows engines and the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from . import machine
from .engines import ENGINES
from .workloads import Workload

# Steps after which memory has seen all that it will see.
_STEPS = 20
# torch.compile may take minutes.
_PATIENCE = 900

# What the process has with NumPy alone is told to the probe before it loads anything else.
_START = (
    "import sys, time, numpy\n"
    "bare = next((line.split()[1] for line in open('/proc/self/status') if line.startswith('VmRSS')), None) "
    "if sys.platform == 'linux' else None\n"
    "start = time.perf_counter()\n"
    "import chainrule\n"
    "imported = time.perf_counter() - start\n"
    "from chainrule.cli.bench import probe\n"
    "probe.answer(sys.argv[1], imported, None if bare is None else int(bare) * 1024)"
)


def ask(name: str, workload: Workload, times: int = 2) -> list[dict[str, Any]]:
    """What processes of their own tell of one engine: the first with an empty folder for compiled code, the next ones
    with what it left there. Each answer has `first_step`, `import` (seconds), `memory` (bytes), or `failed`.
    """
    engine = ENGINES[name]
    order = json.dumps({"engine": name, "workload": workload.as_json()})
    with tempfile.TemporaryDirectory(prefix="chainrule-bench-") as folder:
        environment = {**os.environ, **engine.environment(folder), "PYTHONPATH": _search_path()}
        return [_answer(order, environment) for _ in range(times)]


def _search_path() -> str:
    """Where the other process finds this package, wherever it was found here."""
    root = str(Path(__file__).resolve().parents[3])
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])


def _answer(order: str, environment: dict[str, str]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _START, order],
            env=environment, capture_output=True, text=True, encoding="utf-8", timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer within {_PATIENCE} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"failed": lines[-1] if lines else f"exit code {done.returncode}"}
    # Libraries may print on their own; the answer comes last.
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def answer(order: str, own_import: float, bare: int | None) -> None:
    """Do what is ordered in this process, and print what was found.

    own_import: seconds that importing chainrule took. bare: memory of the process with NumPy alone.
    """
    asked = json.loads(order)
    engine, workload = ENGINES[asked["engine"]], Workload.from_json(asked["workload"])
    own = machine.resident()
    start = time.perf_counter()
    engine.load()
    imported = time.perf_counter() - start
    loaded = machine.resident()
    prepared = engine.prepare(workload)
    known = machine.forget_peak()
    start = time.perf_counter()
    result = prepared.step()
    first = time.perf_counter() - start
    loss = prepared.number(result)
    for _ in range(_STEPS):
        prepared.step()
    found: dict[str, Any] = {
        "import": own_import if engine.ours else imported,
        "first_step": first,
        "loss": loss,
        "memory": None,
    }
    peak = machine.peak()
    if None not in (peak, own, loaded, bare) and known:
        assert peak is not None and own is not None and loaded is not None and bare is not None
        # What this program itself brought along is no part of a rival.
        foreign = 0 if engine.ours else own - bare
        found["memory"] = {"peak": peak - foreign, "above_import": peak - (own if engine.ours else loaded)}
    print(json.dumps(found))
