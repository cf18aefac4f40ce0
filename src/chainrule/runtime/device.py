"""One trace that JAX runs: what a step writes stays on JAX's device from call to call, and is used up by the next.

A cell holds JAX's array then; whoever reads the cell gets a copy. Checks are computed with the step: if one fails, the
arrays come back with the numbers that they had.
Knows cells and how JAX is called; knows nothing of how XLA makes code.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..backends import Executable
from ..backends.jax_engine import TEXTS
from ..compiler.simplify import simplify
from ..config import config
from ..graph import Cell, verify
from ..locks import lock_of
from ..operations import Array
from ..trace import Traced
from .served import Served, read_part


class DeviceProgram(Served):
    """One trace as one program of XLA, on the device that JAX has."""

    def __init__(self, traced: Traced) -> None:
        graph = verify(simplify(verify(traced.graph)))
        super().__init__(traced, graph, graph)
        # Also of steps that write nothing: what they read must not be used up by another one meanwhile.
        self._lock = lock_of([cell for cell, _ in (*graph.reads, *graph.writes)])
        self._slots = [slot for slot, node in graph.writes.items() if node is not None]
        self._forgotten = [cell for (cell, _), node in graph.writes.items() if node is None]
        donated = [slot for slot in self._slots if slot[1] == "array" and slot in graph.reads]
        self.executable = Executable(graph, donated)
        self._uploaded: dict[Cell, tuple[int, Any]] = {}
        self._has_run = False
        place = {cell: k for k, cell in enumerate(self._typed)}
        self._replaced = [place[cell] for cell, part in self._slots if part == "array" and cell in place]

        self._dump()

    def stages(self) -> dict[str, str]:
        """Every stage as text, in order."""
        own = {"trace": str(self.traced.graph), "simplify": str(self.graph)}
        return own | self.executable.texts()

    def _dump(self) -> None:
        """Print the stages that CHAINRULE_DUMP asks for."""
        if config.dump & {"trace", "simplify", *TEXTS}:
            for name, text in self.stages().items():
                if name in config.dump:
                    print(f"--- {name}\n{text}", file=sys.stderr)

    def _step(self, given: list[Array], call: tuple[Any, ...]) -> Any:
        with self._lock:
            before = [cell._array for cell, _ in self.executable.donated]
            kept, donated = self._state(before)
            found: list[Any] = []
            try:
                self.executable.run(given, kept, donated, found)
                outputs = self._settle(found[0], before, call)
            except BaseException:
                # What was donated is gone: whatever a signal's handler raises here (Ctrl-C), the cells get the new
                # arrays first. A step happens as a whole or not at all.
                if found:
                    self._settle(found[0], before, call)
                raise
            self._has_run = True
            if outputs is None:
                self._raise_check(given)
        return self._result(call, outputs or [])

    def _state(self, before: list[Any]) -> tuple[list[Any], list[Any]]:
        """What the graph reads from cells: arrays that stay, and arrays that are used up."""
        # Before its first run a program is compiled, in Python, where a handler can come between: it gets copies.
        donated = [
            self.executable.copy(array) if isinstance(array, np.ndarray) or not self._has_run else array
            for array in before
        ]
        return [self._read(cell, part) for cell, part in self.executable.kept], donated

    def _read(self, cell: Cell, part: str) -> Any:
        """An array that stays as it is; NumPy's are copied to the device once for each time that they change."""
        if part != "array":
            return read_part(cell, part)
        array, generation = cell._array, cell.generation
        if not isinstance(array, np.ndarray):
            return array
        known = self._uploaded.get(cell)
        if known is None or known[0] != generation:
            known = self._uploaded[cell] = generation, self.executable.copy(array)
        return known[1]

    def _settle(self, found: Any, before: list[Any], call: tuple[Any, ...]) -> list[Array] | None:
        """Commit what was computed, or put back what was donated. The outputs, or None if a check has failed."""
        status, outputs, written = found
        on_host = [k for k, (_, part) in enumerate(self._slots) if part != "array"]
        fetched = self.executable.fetch([status, *outputs, *(written[k] for k in on_host)])
        self._status[:] = fetched[0]
        results, grads = fetched[1 : 1 + len(outputs)], fetched[1 + len(outputs) :]
        if not self._status.all():
            fresh = dict(zip(self._slots, written))
            for slot, held in zip(self.executable.donated, before):
                if not isinstance(held, np.ndarray) and slot[0]._array is held:
                    slot[0].write(fresh[slot])
            return None
        values = list(written)
        for k, array in zip(on_host, grads):
            values[k] = array
        self._commit(values, self._effects(call, results))
        if self._generations:  # types stay what they were, so the next call need not look at them
            for k in self._replaced:
                self._generations[k] += 1
        return results
