"""One trace that can be called, whoever computes it: what a call hands in, whether it fits, what it gives back.

An engine adds how the numbers come about. Knows traces, cells and tensors; knows nothing of machine code and devices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from ..compiler.recurrence import settle
from ..errors import NonFiniteError
from ..graph import Cell, Graph, Node, Slot, evaluate
from ..locks import lock_of
from ..operations import CONSTANT, Array
from ..structure import changes_since, structure_version
from ..tensor import wrap
from ..trace import Require, Traced, describe_range
from .provenance import explain_check

Call = tuple[list[Array], tuple[Any, ...]]
"""Arrays for the inputs of a graph, and what effects and results refer to."""


class Served(ABC):
    """One trace that can be called: the base of all engines' programs.

    `graph` is what is really computed, with the inputs of the trace; `replayed` what the interpreter goes through to
    find out why a check has failed.
    """

    def __init__(self, traced: Traced, graph: Graph, replayed: Graph) -> None:
        self.traced = traced
        self.graph = graph
        self.replayed = replayed
        # Steps that write the same cells wait for each other, also those of other functions.
        self._lock = lock_of([cell for cell, _ in (*graph.reads, *graph.writes)] if graph.writes else [])
        self._status = np.ones(len(graph.checks), bool)
        self._slots: list[Slot] = []
        self._forgotten: list[Cell] = []
        self._guard = traced.guards.serve
        self._typed = list(traced.cells)
        # Flags of cells are written through tensors, which counts as a change of structure, but for those of a trace.
        self._required = [(one.cell, not one.value) for one in traced.effects if isinstance(one, Require)]
        self._generations: list[int] = []
        self._none = list(traced.grad_was_none.items())
        #: How many calls it has served.
        self.calls = 0

    def serve(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> Call | None:
        """The arrays of the inputs and the values that effects need, if the trace holds for this call; else None."""
        traced = self.traced
        if traced.version != structure_version():
            version = structure_version()
            if changes_since(traced.version, traced.answered) != []:
                return None
            traced.version = version
        found = self._guard(args, keywords)
        if found is None:
            return None
        for cell, none in self._none:
            if (cell.grad is None) is not none:
                return None
        generations = [cell.generation for cell in self._typed]
        if generations != self._generations:
            if any(cell.type != self.traced.cells[cell][0] for cell in self._typed):
                return None
            self._generations = generations
        for cell, required in self._required:
            if cell.requires_grad is not required:
                return None
        return found

    def run(self, found: Call) -> Any:
        """One step for what `serve` has found; the result as the function nests it."""
        given, call = found
        if self.traced.shares or self.traced.renewed:
            # Held, so that nothing is written in place there.
            call = (*call, {cell: cell.array for cell in self.traced.renewed})
        return self._step(given, call)

    def snapshot(self, given: list[Array]) -> list[Array]:
        """Copies of what a call reads: an array for each source of the graph. given: the arrays of its inputs."""
        with self._lock:
            values = self._source_values(given)
            return [np.array(values[node]) for node in self.graph.sources]

    def copies_of_state(self, stand_in: Callable[[Node], Array]) -> list[Array]:
        """Copies of what the graph reads from cells; a stand-in for a gradient that is not there now."""
        with self._lock:
            found = []
            for (cell, part), node in self.graph.reads.items():
                there = part == "array" or cell.grad is not None
                found.append(np.array(read_part(cell, part)) if there else stand_in(node))
            return found

    @abstractmethod
    def _step(self, given: list[Array], call: tuple[Any, ...]) -> Any:
        """Compute, check and commit for an array of each input; the result as the function nests it."""

    # ------------------------------------------------------------------------------- values, checks

    def _source_values(self, given: list[Array]) -> dict[Node, Array]:
        """The array of every source."""
        known = dict(zip(self.graph.inputs, given))
        for (cell, part), node in self.graph.reads.items():
            known[node] = cell.array if part == "array" else cell.grad.node.value
        return known

    def _evaluate(self, node: Node, sources: dict[Node, Array]) -> Any:
        """One value by the interpreter; None where it cannot be computed (an earlier check says why)."""
        single = Graph(self.graph.name, self.graph.inputs, (node,), self.graph.reads)
        if any(not one.inputs and one.value is None and one not in sources for one in single.nodes()):
            return None
        single = settle(single)  # of a loop over time only what the value needs: the rest may have failed
        try:
            with ops.quiet():
                return evaluate(single, [sources[source] for source in single.sources], ops.NUMPY)[0]
        except IndexError:
            return None

    def _raise_check(self, given: list[Array]) -> None:
        """Raise the first failed check; nothing has been written yet."""
        number, sources = int(np.argmin(self._status)), self._source_values(given)
        failed = self.graph.checks[number]
        values = None if failed.subject is None else self._evaluate(failed.subject, sources)
        told = describe_range(failed.message, values)
        if issubclass(failed.error, NonFiniteError):
            cells = self._cell_names()
            more = explain_check(self.replayed, number, sources, self._source_names(cells), cells)
            told = f"{told}. {more}" if more else told
        raise failed.error(f"{told}. Nothing was changed by this step, so it can be run again", failed.origin)

    def _cell_names(self) -> dict[Cell, str]:
        """What the user calls the cells: their own names, else those of variables."""
        return self.traced.names | {cell: cell.name for cell, _ in self.graph.reads if cell.name}

    def _source_names(self, cells: dict[Cell, str]) -> dict[Node, str]:
        """What the user calls the sources of the graph."""
        names = {node: cells.get(cell, "a tensor") + ".grad" * (part != "array")
                 for (cell, part), node in self.graph.reads.items()}  # fmt: skip
        return names | {node: one.label for node, one in zip(self.graph.inputs, self.traced.inputs)}

    # ------------------------------------------------------------------------------- what comes of it

    def _effects(self, call: tuple[Any, ...], outputs: list[Array]) -> list[Callable[[], None]]:
        """What has to be done besides writing cells: everything is looked up before the first is done."""
        return [one.prepare(call, outputs) for one in self.traced.effects]

    def _commit(self, values: list[Any], effects: list[Callable[[], None]]) -> None:
        """Write the cells, and put values where the function puts them. May be done twice."""
        for (cell, part), value in zip(self._slots, values):
            if part == "array":
                cell.write(value)
            else:
                cell.grad = wrap(Node(CONSTANT, value=value))
        for cell in self._forgotten:
            cell.grad = None
        for commit in effects:
            commit()

    def _result(self, call: tuple[Any, ...], outputs: list[Array]) -> Any:
        """What the function returns, nested as it nests it."""
        return self.traced.result.build(call, outputs)


def read_part(cell: Cell, part: str) -> Array:
    """The array of a part of a cell."""
    array: Array = cell.array if part == "array" else cell.grad.node.value
    return array
