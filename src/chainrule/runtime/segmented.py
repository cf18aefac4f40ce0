"""A function that is no graph, run as Python between native segments: `cr.compile(function, fallback=True)`.

Python runs at every call, so whatever it does is right: conditions on numbers, files, random numbers, shapes that the
data decide. Operations on tensors are only noted. Where somebody asks for numbers, and at the end, all that they depend
on becomes one piece of machine code, kept by what it computes. What is written to cells is committed at the end, after
all checks.
Knows traces and the compiler's products; knows nothing of guards and effects.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .. import ops
from ..graph import Cell, Graph, Node, Slot, constant, evaluate, state, topological
from ..operations import CONSTANT, INPUT, NO_ATTRIBUTES, READ, WITHOUT_GRAPH, Array
from ..rewrite import remake
from ..tensor import Tensor, wrap
from ..trace import Tracing, describe_range
from .memory import whole
from .program import Program, stand_alone

# Pieces of machine code that one function keeps.
_MOST_SEGMENTS = 256


class Segmented:
    """Runs a function as Python, its operations as machine code in pieces. `segments`: how many pieces there are."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._programs: dict[Any, Program | None] = {}

    @property
    def segments(self) -> int:
        """How many pieces of machine code have been made."""
        return sum(one is not None for one in self._programs.values())

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """One call: as Python does it, but that cells change at its end only."""
        trace = _Noting(self)
        collecting = gc.isenabled()
        gc.disable()
        outer, state.trace = state.trace, trace
        try:
            result = self._function(*args, **keywords)
            trace.finish()
        finally:
            state.trace = outer
            trace.release()
            if collecting:
                gc.enable()
        trace.commit()
        return result

    def run(self, roots: list[Node], arrays: Callable[[Node], Array]) -> list[Array]:
        """The arrays of nodes; arrays: those of the sources."""
        sources, copies, key = _closed(roots)
        given = [whole(arrays(one)) for one in sources]
        if key is None or key not in self._programs:
            made = None if key is None else Program(stand_alone(copies))
            if key is None:
                with ops.quiet():
                    return [np.array(one) for one in evaluate(copies, given, ops.NUMPY)]
            self._programs[key] = made
            while len(self._programs) > _MOST_SEGMENTS:
                del self._programs[next(iter(self._programs))]
        program = self._programs[key]
        assert program is not None
        found: list[Tensor] = program.run((given, ()))
        return [one.node.value for one in found]


class _Noting(Tracing):
    """A trace that computes what it has noted as soon as somebody needs numbers."""

    delivers = False
    forces = True

    def __init__(self, owner: Segmented) -> None:
        super().__init__()
        self._owner = owner
        self._held: dict[Slot, Node | None] = {}
        self._leaves: list[Cell] = []

    def create(self, cell: Cell) -> None:
        """Leaves of the call are kept in mind: they get their numbers at its end."""
        super().create(cell)
        if cell in self.local:
            self._leaves.append(cell)

    def force(self, node: Node) -> Array:
        """The numbers of a node, and of all that costs on the way; what has been checked so far must hold."""
        self._compute([node])
        value: Array = node._value  # type: ignore[assignment]
        return value

    def refused(self, error: Any, node: Node) -> None:
        """Nothing is refused here."""

    def decide(self, node: Node) -> bool | None:
        """Python decides."""
        return None

    def _compute(self, nodes: Iterable[Node]) -> None:
        pending = [check for check in self.checks if check.condition.value is None]
        wanted = [node for node in nodes if node.value is None] + [one.condition for one in pending]
        inside = topological(wanted, follow=lambda one: one._value is None)
        roots = dict.fromkeys(wanted)
        roots.update(dict.fromkeys(one for one in inside if _costs(one)))
        if roots:
            for node, value in zip(roots, self._owner.run(list(roots), self._array_of)):
                node._value = value
        for check in self.checks:
            if not np.all(check.condition.value):
                told = describe_range(
                    check.message, None if check.subject is None else self._shown(check.subject)
                )
                raise check.error(f"{told}. No parameter was changed by this step", check.origin)
        self.checks.clear()

    def _shown(self, node: Node) -> Any:
        if node.value is None:
            (node._value,) = self._owner.run([node], self._array_of)
        return node.value

    def _array_of(self, node: Node) -> Array:
        if node.value is not None:
            array: Array = node.value
            return array
        slot = next(slot for slot, one in self.reads.items() if one is node)
        cell, part = slot
        found: Array = cell.array if part == "array" else cell.grad.node.value
        return found

    # ------------------------------------------------------------------------------- the end

    def finish(self) -> None:
        """Compute all that is written, and what the user's code still holds."""
        writes, _ = self.close()
        leaves = [node for cell in self._leaves if (node := self.arrays.get(cell)) is not None]
        leaves += [node for cell in self._leaves if (node := self.grads.get(cell)) is not None]
        self._compute([*(node for node in writes.values() if node is not None), *leaves, *self._alive()])
        self._held = writes

    def _alive(self) -> list[Node]:
        """Nodes that tensors of the user's stand for, and which have no numbers yet."""
        gc.collect(0)
        nodes = [one._node for one in gc.get_objects(1) if isinstance(one, Tensor)]
        return [one for one in nodes if one is not None and self._is_ours(one)]

    def _is_ours(self, node: Node) -> bool:
        return node.serial > self.start and bool(node.inputs or node.value is None)

    def release(self) -> None:
        """Tensors that outlive the call are plain numbers."""
        gc.collect(0)
        for one in gc.get_objects(1):
            node = one._node if isinstance(one, Tensor) else None
            if node is not None and self._is_ours(node) and node.value is not None:
                marks = WITHOUT_GRAPH if node.requires_grad else NO_ATTRIBUTES
                one._node = Node(CONSTANT, (), marks, node.value)
        for cell in self._leaves:
            node, grad = self.arrays.get(cell), self.grads.get(cell)
            if node is not None and node.value is not None:
                cell.write(np.array(node.value))
            if grad is not None and grad.value is not None:
                cell.grad = wrap(constant(grad.value))

    def commit(self) -> None:
        """Write the cells."""
        for (cell, part), node in self._held.items():
            if part == "array":
                assert node is not None
                cell.write(np.array(node.value))
            else:
                cell.grad = None if node is None else wrap(constant(node.value))


def _costs(node: Node) -> bool:
    """Whether a value is worth keeping for a later segment: the backward pass asks for it again."""
    operation = node.operation
    kept = (
        getattr(operation, "kind", "") in ("bilinear", "special")
        or getattr(operation, "cost", "") == "costly"
    )
    return bool(node.inputs) and node._value is None and node.requires_grad and kept and len(node.types) == 1


# ------------------------------------------------------------------------------------------- a segment


def _closed(roots: list[Node]) -> tuple[list[Node], Graph, Any]:
    """(sources, the graph with inputs in their place, what tells it from others; None if that cannot be told)."""
    sources: list[Node] = []
    inputs: list[Node] = []
    done: dict[Node, Node] = {}
    number: dict[Node, int] = {}
    told: list[Any] = []
    describable = True
    for node in topological(roots, follow=lambda one: one._value is None):
        number[node] = len(number)
        if node.value is not None or node.operation is READ or not node.inputs:
            sources.append(node)
            done[node] = Node(INPUT, type=node.types)
            inputs.append(done[node])
            told.append(node.type)
            continue
        done[node] = remake(node, tuple(done[one] for one in node.inputs))
        try:
            attributes = tuple((name, _word(one)) for name, one in sorted(node.attributes.items()))
        except TypeError:
            describable, attributes = False, ()
        told.append((id(node.operation), tuple(number[one] for one in node.inputs), attributes, node.types))
    graph = Graph("segment", tuple(inputs), tuple(done[one] for one in roots))
    return sources, graph, (tuple(told), tuple(number[one] for one in roots)) if describable else None


def _word(value: Any) -> Any:
    """A value of an attribute as something to compare; raises TypeError for what only identity tells apart."""
    if value is None or isinstance(value, bool | int | float | str | np.dtype):
        return type(value), value
    if isinstance(value, tuple | list):
        return tuple(map(_word, value))
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.str, value.shape, value.tobytes()
    raise TypeError
