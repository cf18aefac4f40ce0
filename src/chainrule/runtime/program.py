"""One trace with what runs it: compute, check, commit.

A call hands over addresses and gets a number back. New values of cells are written where the old ones lie if nobody
else can reach those arrays; otherwise the cell gets a copy first.
Knows cells and the compiler's products; knows nothing of how code is made.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from ..compiler import Compilation, Native, available, compile_graph
from ..config import config
from ..errors import CompileError
from ..graph import Graph, Node, evaluate
from ..operations import NO_ATTRIBUTES, Array
from ..trace import UNGUARDED, Nested, Result, Traced
from .host import Segments
from .memory import address, aligned, array_of, first_alone, make_alone, whole
from .served import Served, read_part
from .threads import get_num_threads, pool

_Found = tuple[list[Array], list[Array], list[Callable[[], None]]]


class Program(Served):
    """One trace with what runs it: machine code, or the interpreter where LLVM is missing."""

    def __init__(self, traced: Traced) -> None:
        self.compilation: Compilation = compile_graph(traced.graph)
        self.native: Native | None = None
        self.compiled_now = False
        if available():
            get_num_threads()  # a wrong number in the environment is told now
            self.native, self.compiled_now = self.compilation.native()
        elif config.forbid_interpreter:
            raise CompileError(
                "CHAINRULE_FORBID_INTERPRETER asks for machine code, which needs llvmlite; got a Python without it. "
                "Install llvmlite, or unset the variable"
            )
        super().__init__(traced, self.compilation.laid_out, self.compilation.simplified)
        self._prepare_table()
        self._prepare_commit()

    def _step(self, given: list[Array], call: tuple[Any, ...]) -> Any:
        with self._lock:
            results: list[Array] = []
            found: list[_Found] = []
            try:
                (self._interpret if self.native is None else self._run_native)(given, results)
                found.append(self._find(given, results, call))
                self._commit(*found[0][1:])
            except BaseException:
                # What a signal's handler raises (Ctrl-C) can come between any two lines here. If a commit has begun,
                # it is completed before that goes on: a step happens as a whole or not at all.
                if found or self._table[self._done]:
                    self._commit(*(found[0] if found else self._find(given, results, call))[1:])
                raise
            outputs = found[0][0]
        return self._result(call, outputs)

    # ------------------------------------------------------------------------------- compute

    def _prepare_table(self) -> None:
        """The table of addresses that the machine code reads, with what never moves filled in."""
        plan, graph = self.compilation.plan, self.graph
        needs = self.compilation.needs
        self._arena = aligned(needs.arena)
        self._scratch = aligned(needs.scratch)
        self._constants = [whole(node.value) for node in plan.constants]
        self._reads = [(cell, part) for cell, part in graph.reads]
        self._read_cells = [cell for cell, part in graph.reads if part == "array"]
        self._read_places = [
            k for k, (_, part) in enumerate(self._reads, len(graph.inputs)) if part == "array"
        ]
        self._read_grads = [
            (k, cell) for k, (cell, part) in enumerate(self._reads, len(graph.inputs)) if part != "array"
        ]
        self._seen: list[int] = []
        first = len(graph.sources)
        self._result_place = first + len(self._constants)
        self._result_types = [(node.shape, node.dtype) for node in plan.results]
        last = self._result_place + len(plan.results)
        self._table = (ctypes.c_void_p * (last + 5))()
        self._board, self._done = last + 3, last + 4
        self._shares = needs.shares
        for k, array in enumerate(self._constants, first):
            self._table[k] = address(array)
        for k, array in enumerate((self._arena, self._status, self._scratch), last):
            self._table[k] = address(array)
        self._table_address = ctypes.addressof(self._table)
        if self.native is not None:
            segments = self.compilation.segments > 1
            self._function = (
                Segments(self.native, self.compilation, self._table) if segments else self.native.function
            )
        in_place = set(self.compilation.fusion.in_place.values())
        self._in_place = [cell for (cell, _), node in graph.reads.items() if node in in_place]
        self._held = [
            *self._in_place,
            *(cell for cell in self._read_cells if cell not in set(self._in_place)),
        ]

    def _run_native(self, given: list[Array], results: list[Array]) -> None:
        """Values of the plan's results, computed by the native function into new arrays; cells are written in place."""
        table = self._table
        for k, array in enumerate(given):
            table[k] = address(array)
        held = self._locate_cells()
        results.extend([np.empty(shape, dtype) for shape, dtype in self._result_types])
        for k, array in enumerate(results, self._result_place):
            table[k] = address(array)
        helpers = None
        if self._shares:
            helpers = pool()  # held until the function returns: its board must not go away under it
            table[self._board] = 0 if helpers is None else helpers.address
            if helpers is not None:
                helpers.ring()
        if self._function(self._table_address):
            self._table[self._done] = 0
            self._raise_check(given)
        del held, helpers

    def _locate_cells(self) -> list[Array]:
        """Addresses of the cells' arrays, looked up again where an array was replaced or somebody else holds it.

        The arrays are to be held while machine code runs: another thread may give their cells new ones.
        """
        held = list(map(array_of, self._held))
        if not first_alone(held, self._in_place):
            held = self._claim(held)
        seen = [cell.generation for cell in self._read_cells]
        if seen != self._seen:
            held = self._claim(held)
            self._kept = [whole(cell.array) for cell in self._read_cells]
            for k, array in zip(self._read_places, self._kept):
                self._table[k] = address(array)
            # What is written in place must be reachable through its cell only.
            self._kept = [one for one, cell in zip(self._kept, self._read_cells) if one is not cell._array]
            self._seen = [cell.generation for cell in self._read_cells]
        for k, cell in self._read_grads:
            held.append(whole(cell.grad.node.value))
            self._table[k] = address(held[-1])
        return held

    def _claim(self, held: list[Array]) -> list[Array]:
        """Give every cell that is written in place an array that only it knows; what is held then."""
        held.clear()
        for cell in self._in_place:
            make_alone(cell)
        return list(map(array_of, self._held))

    def _interpret(self, given: list[Array], results: list[Array]) -> None:
        """The same by NumPy, operation by operation; what machine code writes in place comes behind the results."""
        graph, sources = self.graph, self._source_values(given)
        with ops.quiet():
            for k, check in enumerate(graph.checks):  # first: an index outside its range would stop NumPy
                self._status[k] = np.all(self._evaluate(check.condition, sources))
            if not self._status.all():
                self._raise_check(given)
            values = evaluate(graph, [sources[node] for node in graph.sources], ops.NUMPY)
        known = dict(zip(graph.roots, values))
        wanted = (*self.compilation.plan.results, *self.compilation.fusion.in_place)
        results.extend([np.array(known[node]) for node in wanted])

    # ------------------------------------------------------------------------------- check, commit

    def _prepare_commit(self) -> None:
        """For every write that machine code has not made in place: the cell, and where its value is found."""
        plan, graph = self.compilation.plan, self.graph
        in_place = self.compilation.fusion.in_place
        place = {
            node: k for k, node in enumerate((*plan.results, *(in_place if self.native is None else ())))
        }
        source = {node: k for k, node in enumerate(graph.inputs)}

        def finder(node: Node) -> Callable[[list[Array], list[Array]], Array]:
            if node in place:
                return lambda given, results, k=place[node]: results[k]  # type: ignore[misc]
            if node in source:
                return lambda given, results, k=source[node]: given[k]  # type: ignore[misc]
            cells = {read: (cell, part) for (cell, part), read in graph.reads.items()}
            if node in cells:
                return lambda given, results, at=cells[node]: read_part(*at)  # type: ignore[misc]
            return lambda given, results: node.value

        writes = [
            (slot, node) for slot, node in graph.writes.items() if node in place or node not in in_place
        ]
        self._forgotten = [cell for (cell, _), node in writes if node is None]
        self._slots = [slot for slot, node in writes if node is not None]
        self._values = [finder(node) for _, node in writes if node is not None]
        self._outputs = [finder(node) for node in graph.outputs]

    def _find(self, given: list[Array], results: list[Array], call: tuple[Any, ...]) -> _Found:
        """The outputs, the new values of cells that are not written in place, and effects: all before one happens."""
        outputs = [find(given, results) for find in self._outputs]
        values = [find(given, results) for find in self._values]
        return outputs, values, self._effects(call, outputs)

    def _commit(self, values: list[Any], effects: list[Callable[[], None]]) -> None:
        """Write the cells, and put values where the function puts them. May be done twice."""
        super()._commit(values, effects)
        self._table[self._done] = 0


def stand_alone(graph: Graph) -> Traced:
    """A graph without cells and checks as a trace that nobody guards: its program is run for arrays of its inputs."""
    results = Nested(lambda parts: parts, tuple(Result(k, NO_ATTRIBUTES) for k in range(len(graph.outputs))))
    return Traced(graph, [], results, [], UNGUARDED, {}, {}, 0)
