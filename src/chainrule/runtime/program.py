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
from ..dtypes import as_dtype
from ..errors import CompileError, NonFiniteError
from ..graph import Cell, Graph, Node, evaluate, state
from ..locks import lock_of
from ..operations import CONSTANT, Array
from ..pytree import LEAF, unflatten
from ..structure import structure_version
from ..tensor import Tensor, wrap
from ..trace import Result, Traced, describe_range, identities, tracing_lock
from .host import Segments
from .memory import address, aligned, array_of, first_alone, make_alone, whole
from .provenance import explain_check
from .threads import get_num_threads, pool


class Program:
    """One trace with what runs it: machine code, or the interpreter where LLVM is missing."""

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
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
        self._leaving = set(self.graph.roots)
        # Steps that write the same cells wait for each other, also those of other functions.
        self._lock = lock_of(
            [cell for cell, _ in (*self.graph.reads, *self.graph.writes)] if self.graph.writes else []
        )
        self._status = np.ones(len(self.graph.checks), bool)
        self._prepare_table()
        self._prepare_commit()
        self._prepare_key()

    @property
    def graph(self) -> Graph:
        """The simplified graph: what is really computed."""
        return self.compilation.laid_out

    def __call__(self, leaves: list[Any]) -> Any:
        """One step for flattened arguments; the result as the function nests it."""
        return self._step(
            [self._array_of(leaves, *one) for one in zip(self.graph.inputs, self.traced.inputs)], leaves
        )

    def run(self, args: tuple[Any, ...]) -> Any:
        """One step for arguments that it `serves`."""
        return self._step([whole(one._node._value) for one in args], args)

    def snapshot(self, leaves: list[Any]) -> list[Array]:
        """Copies of what a call with these flattened arguments reads: an array for each source of the graph."""
        with self._lock:
            values = self._source_values(
                [self._array_of(leaves, *one) for one in zip(self.graph.inputs, self.traced.inputs)]
            )
            return [np.array(values[node]) for node in self.graph.sources]

    def copies_of_state(self, stand_in: Callable[[Node], Array]) -> list[Array]:
        """Copies of what the graph reads from cells; a stand-in for a gradient that is not there now."""
        with self._lock:
            found = []
            for (cell, part), node in self.graph.reads.items():
                there = part == "array" or cell.grad is not None
                found.append(np.array(_read(cell, part)) if there else stand_in(node))
            return found

    def _step(self, given: list[Array], leaves: Any) -> Any:
        with self._lock:
            results: list[Array] = []
            found: list[tuple[list[Array], list[Array]]] = []
            try:
                (self._interpret if self.native is None else self._run_native)(given, results)
                found.append(self._find(given, results))
                self._commit(*found[0], leaves)
            except BaseException:
                # What a signal's handler raises (Ctrl-C) can come between any two lines here. If a commit has begun,
                # it is completed before that goes on: a step happens as a whole or not at all.
                if found or self._table[self._done]:
                    self._commit(*(found[0] if found else self._find(given, results)), leaves)
                raise
            outputs = found[0][0]
        return self._result(outputs)

    def _array_of(self, leaves: list[Any], node: Node, origin: int | Tensor) -> Array:
        """The array of an input: an argument's, or that of a captured tensor."""
        owner = leaves[origin] if isinstance(origin, int) else origin
        if isinstance(owner, Tensor):
            value = owner.node.value
            if value is None:  # another thread is tracing a function that captures it
                with tracing_lock:
                    value = owner.node.value
            return whole(value)
        # An array of the caller's that leaves again as a result must not be shared with it.
        copied = node in self._leaving
        return whole(np.array(owner, as_dtype(owner.dtype), copy=copied or None))

    # ------------------------------------------------------------------------------- a quick key

    def _prepare_key(self) -> None:
        """What has to hold for a call with plain tensors, in a form that is compared quickly."""
        traced = self.traced
        (positional, named) = traced.arguments.structure.children
        flat = not named.children and all(child is LEAF for child in positional.children)
        plain = list(range(len(positional.children))) == traced.inputs
        self._quick = flat and plain and not traced.rebound
        self._flags = (state.grad_enabled, config.check_finite)
        self._inputs = [(node.shape, node.dtype) for node in traced.graph.inputs]
        self._identities = identities(traced.watched)
        self._quick = self._quick and self._identities is not None
        self._typed = list(traced.cells)
        self._generations: list[int] = []
        self._none = [(cell, none) for cell, none in traced.grad_was_none.items()]

    def serves(self, args: tuple[Any, ...]) -> bool:
        """Whether a call with these arguments and no keywords is certainly one for this program."""
        if not self._quick or len(args) != len(self._inputs) or state.trace is not None or not config.compile:
            return False
        if self.traced.version != structure_version() or self._flags != (
            state.grad_enabled,
            config.check_finite,
        ):
            return False
        for one, (shape, dtype) in zip(args, self._inputs):
            if type(one) is not Tensor or one._cell is not None:
                return False
            held = one._node
            if held is None or held.requires_grad:
                return False
            value = held._value
            if type(value) is not np.ndarray or value.shape != shape or value.dtype != dtype:
                return False
        for look, expected in self._identities:  # type: ignore[union-attr]
            if look() is not expected:
                return False
        for cell, none in self._none:
            if (cell.grad is None) is not none:
                return False
        generations = [cell.generation for cell in self._typed]
        if generations != self._generations:
            if any(cell.type != self.traced.cells[cell][0] for cell in self._typed):
                return False
            self._generations = generations
        return True

    # ------------------------------------------------------------------------------- compute

    def _prepare_table(self) -> None:
        """The table of addresses that the machine code reads, with what never moves filled in."""
        plan, graph = self.compilation.plan, self.graph
        self._arena = aligned(plan.arena)
        self._scratch = aligned(self.compilation.emitted.scratch)
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
        self._shares = self.compilation.emitted.shares
        for k, array in enumerate(self._constants, first):
            self._table[k] = address(array)
        for k, array in enumerate((self._arena, self._status, self._scratch), last):
            self._table[k] = address(array)
        self._table_address = ctypes.addressof(self._table)
        if self.native is not None:
            segments = self.compilation.emitted.segments > 1
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
            self._kept = [one for one, cell in zip(self._kept, self._read_cells) if one is not cell.array]
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

    def _source_values(self, given: list[Array]) -> dict[Node, Array]:
        """The array of every source."""
        known = dict(zip(self.graph.inputs, given))
        for (cell, part), node in self.graph.reads.items():
            known[node] = cell.array if part == "array" else cell.grad.node.value
        return known

    def _evaluate(self, node: Node, sources: dict[Node, Array]) -> Any:
        """One value by the interpreter; None where it cannot be computed (an earlier check says why)."""
        single = Graph(self.graph.name, self.graph.inputs, (node,), self.graph.reads)
        try:
            with ops.quiet():
                return evaluate(single, [sources[source] for source in single.sources], ops.NUMPY)[0]
        except IndexError:
            return None

    # ------------------------------------------------------------------------------- check, commit

    def _raise_check(self, given: list[Array]) -> None:
        """Raise the first failed check; nothing has been written yet."""
        number, sources = int(np.argmin(self._status)), self._source_values(given)
        failed = self.graph.checks[number]
        values = None if failed.subject is None else self._evaluate(failed.subject, sources)
        told = describe_range(failed.message, values)
        if issubclass(failed.error, NonFiniteError):
            cells = self._cell_names()
            more = explain_check(
                self.compilation.simplified, number, sources, self._source_names(cells), cells
            )
            told = f"{told}. {more}" if more else told
        raise failed.error(f"{told}. Nothing was changed by this step, so it can be run again", failed.origin)

    def _cell_names(self) -> dict[Cell, str]:
        """What the user calls the cells: their own names, else those of variables."""
        seen = [(one.name, one.look()) for one, _ in self.traced.watched]
        names = {
            value.cell: name for name, value in seen if isinstance(value, Tensor) and value.cell is not None
        }
        return names | {cell: cell.name for cell, _ in self.graph.reads if cell.name}

    def _source_names(self, cells: dict[Cell, str]) -> dict[Node, str]:
        """What the user calls the sources of the graph."""
        names = {node: cells.get(cell, "a tensor") + ".grad" * (part != "array")
                 for (cell, part), node in self.graph.reads.items()}  # fmt: skip
        for node, origin in zip(self.graph.inputs, self.traced.inputs):
            names[node] = "a tensor from outside the step"
            if isinstance(origin, int) and origin < len(self.traced.labels):
                names[node] = f"argument {self.traced.labels[origin]}"
        return names

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
                return lambda given, results, at=cells[node]: _read(*at)  # type: ignore[misc]
            return lambda given, results: node.value

        writes = [
            (slot, node) for slot, node in graph.writes.items() if node in place or node not in in_place
        ]
        self._forgotten = [cell for (cell, _), node in writes if node is None]
        self._written = [(cell, part, finder(node)) for (cell, part), node in writes if node is not None]
        self._outputs = [finder(node) for node in graph.outputs]

    def _find(self, given: list[Array], results: list[Array]) -> tuple[list[Array], list[Array]]:
        """The outputs, and the new values of the cells that are not written in place: all before one is written."""
        return [find(given, results) for find in self._outputs], [
            find(given, results) for _, _, find in self._written
        ]

    def _commit(self, outputs: list[Array], values: list[Array], leaves: Any) -> None:
        """Write the cells, and let the handles that stand for something else now follow. May be done twice."""
        for (cell, part, _), value in zip(self._written, values):
            if part == "array":
                cell.write(value)
            else:
                cell.grad = wrap(Node(CONSTANT, value=value))
        for cell in self._forgotten:
            cell.grad = None
        for owner, index in self.traced.rebound:
            handle = leaves[owner] if isinstance(owner, int) else owner
            handle._node = Node(CONSTANT, value=outputs[index])
        self._table[self._done] = 0

    def _result(self, outputs: list[Array]) -> Any:
        """What the function returns, nested as it nests it."""
        results = [
            wrap(Node(CONSTANT, value=outputs[one.index])) if type(one) is Result else one
            for one in self.traced.results
        ]
        return results[0] if self.traced.structure is LEAF else unflatten(self.traced.structure, results)


def _read(cell: Cell, part: str) -> Array:
    array: Array = cell.array if part == "array" else cell.grad.node.value
    return array
