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
from ..config import config
from ..dtypes import as_dtype
from ..errors import NonFiniteError
from ..graph import Cell, Graph, Node, Slot, evaluate, state
from ..locks import lock_of
from ..operations import CONSTANT, NO_ATTRIBUTES, WITHOUT_GRAPH, Array
from ..pytree import LEAF, unflatten
from ..structure import structure_version
from ..tensor import Tensor, wrap
from ..trace import Result, Traced, describe_range, identities, tracing_lock
from .memory import whole
from .provenance import explain_check


class Served(ABC):
    """One trace that can be called: the base of all engines' programs.

    `graph` is what is really computed, with the inputs of the trace; `replayed` what the interpreter goes through to
    find out why a check has failed.
    """

    def __init__(self, traced: Traced, graph: Graph, replayed: Graph) -> None:
        self.traced = traced
        self.graph = graph
        self.replayed = replayed
        self._leaving = set(graph.roots)
        # Steps that write the same cells wait for each other, also those of other functions.
        self._lock = lock_of([cell for cell, _ in (*graph.reads, *graph.writes)] if graph.writes else [])
        self._status = np.ones(len(graph.checks), bool)
        self._slots: list[Slot] = []
        self._forgotten: list[Cell] = []
        self._marks = [WITHOUT_GRAPH if one.requires_grad else NO_ATTRIBUTES for one in traced.graph.outputs]
        self._prepare_key()

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
                found.append(np.array(read_part(cell, part)) if there else stand_in(node))
            return found

    @abstractmethod
    def _step(self, given: list[Array], leaves: Any) -> Any:
        """Compute, check and commit for an array of each input; the result as the function nests it."""

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

    # ------------------------------------------------------------------------------- what comes of it

    def _commit(self, outputs: list[Array], values: list[Any], leaves: Any) -> None:
        """Write the cells, and let the handles that stand for something else now follow. May be done twice."""
        for (cell, part), value in zip(self._slots, values):
            if part == "array":
                cell.write(value)
            else:
                cell.grad = wrap(Node(CONSTANT, value=value))
        for cell in self._forgotten:
            cell.grad = None
        for owner, index in self.traced.rebound:
            handle = leaves[owner] if isinstance(owner, int) else owner
            handle._node = Node(CONSTANT, value=outputs[index])

    def _result(self, outputs: list[Array]) -> Any:
        """What the function returns, nested as it nests it."""
        results = [
            wrap(Node(CONSTANT, (), self._marks[one.index], outputs[one.index]))
            if type(one) is Result
            else one
            for one in self.traced.results
        ]
        return results[0] if self.traced.structure is LEAF else unflatten(self.traced.structure, results)


def read_part(cell: Cell, part: str) -> Array:
    """The array of a part of a cell."""
    array: Array = cell.array if part == "array" else cell.grad.node.value
    return array
