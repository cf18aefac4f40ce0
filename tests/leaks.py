"""Run compiled steps, refused calls and ordinary ones very often, and see whether memory or objects grow.

`python tests/leaks.py 100000` makes so many calls of every kind, with the cycle collector switched off: nothing may
need it. Printed for each: resident memory and Python objects gained after the first tenth.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import chainrule as cr
from plant_faults import STEPS

#: Pages that the allocator keeps, tables that grow by doubling: far below one array, or one node, for each call.
MEMORY, OBJECTS = 4 << 20, 200


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm", encoding="ascii") as told:
        return int(told.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def compiled(name: str) -> Callable[[], Any]:
    """A step of plant_faults.py, as machine code."""
    step, arguments = STEPS[name]()
    run = cr.compile(step)
    return lambda: run(*arguments)


def ordinary() -> Callable[[], Any]:
    """The same without compilation."""
    step, arguments = STEPS["classifier"]()
    return lambda: step(*arguments)


def refused() -> Callable[[], Any]:
    """A call whose labels are outside, and one that is right."""
    step, (x, y) = STEPS["classifier"]()
    run, outside = cr.compile(step), cr.tensor(np.full(y.shape, 9))

    def both() -> None:
        try:
            run(x, outside)
        except cr.BoundsError:
            run(x, y)
        else:
            raise AssertionError("labels outside were taken")

    return both


def gained(call: Callable[[], Any], count: int) -> tuple[int, int]:
    """(bytes, objects) more after `count` calls than after a tenth of them."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(max(count // 10, 100)):
            call()
        memory, objects = resident(), len(gc.get_objects())
        for _ in range(count):
            call()
        return resident() - memory, len(gc.get_objects()) - objects
    finally:
        gc.enable()


def main() -> int:
    """Every kind of call."""
    count, grown = int(sys.argv[1]) if len(sys.argv) > 1 else 1000, 0
    kinds = {
        f"compiled {name}": lambda name=name: compiled(name) for name in ("classifier", "pictures", "loops")
    }
    for name, make in {**kinds, "refused": refused, "ordinary": ordinary}.items():
        calls = count // 10 if name in ("refused", "ordinary") else count
        memory, objects = gained(make(), calls)
        worse = memory > MEMORY or objects > OBJECTS
        grown += worse
        print(
            f"{name:<20} {calls:>7} calls: {memory / 1024:+.0f} KiB, {objects:+} objects{' GROWS' * worse}",
            flush=True,
        )
    return min(grown, 1)


if __name__ == "__main__":
    sys.exit(main())
