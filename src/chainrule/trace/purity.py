"""Whether a function is one graph: traced twice, it must come out the same.

A function that counts its calls, draws numbers outside of chainrule or keeps what it has seen does something at each
call that a graph does only once. Most of that shows when it is traced twice.
Knows graphs and Python's objects; knows nothing of machine code.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..graph import Graph, Node
from ..pytree import LEAF
from ..structure import bump_structure
from .function import Arguments, Traced, trace
from .guards import watch

_CONTAINERS = (list, dict, set)


def find_impurity(
    function: Callable[..., Any], arguments: Arguments, holders: Iterable[Any] = ()
) -> str | None:
    """What the function does besides computing, in words; None if nothing is seen.

    holders: objects whose attributes the function may write. They, and the random numbers of NumPy and Python, are put
    back to what they were. Raises whatever the function raises.
    """
    seen = [one.look() for one in watch(function, arguments.leaves)]
    with _put_back(list(holders), seen) as changes:
        first = trace(function, arguments, "step")
        if changes():
            return changes()
        if others := first.changes():
            return f"it changes what it depends on: {', '.join(others)}"
        second = trace(function, arguments, "step")
    if _described(first) != _described(second):
        return "it computes something else at each call, although its inputs are the same"
    return None


# ------------------------------------------------------------------------------------------- a graph as plain values


def _described(traced: Traced) -> list[Any]:
    """Everything that decides what a trace computes, without the identities of its nodes."""
    numbers: dict[Node, int] = {}
    found = _graph(traced.graph, numbers)
    found.append(_skeleton(traced.structure))
    found += [leaf if isinstance(leaf, int | float | str | bool) else type(leaf) for leaf in traced.results]
    return found


def _graph(graph: Graph, numbers: dict[Node, int]) -> list[Any]:
    found: list[Any] = []
    for k, node in enumerate(graph.nodes()):
        numbers[node] = k
        operands = tuple(numbers[one] for one in node.inputs if one in numbers)
        found.append(
            (node.operation.name, operands, node.types, _plain(dict(node.attributes)), _plain(node.value))
        )
    found += [(id(cell), part, numbers[node]) for (cell, part), node in graph.reads.items()]
    found += [(id(cell), part, node and numbers[node]) for (cell, part), node in graph.writes.items()]
    found += [(numbers[check.condition], check.message) for check in graph.checks]
    found += [numbers[node] for node in graph.outputs]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, Graph):
        return _graph(value, {})
    if isinstance(value, dict):
        return [(key, _plain(one)) for key, one in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return repr(value) if isinstance(value, int | float | str | np.generic | np.dtype) else id(value)


def _skeleton(structure: Any) -> Any:
    return (
        LEAF if structure is LEAF else (structure.kind, structure.keys, *map(_skeleton, structure.children))
    )


# ------------------------------------------------------------------------------------------- what it touches


@contextlib.contextmanager
def _put_back(holders: list[Any], seen: list[Any]) -> Iterator[Callable[[], str | None]]:
    """Gives a function that says what has changed; all is put back at the end."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    before = [(one, dict(vars(one))) for one in holders]
    held_values = [*seen, *(value for _, held in before for value in held.values())]
    inside = [(value, value.copy()) for value in held_values if type(value) in _CONTAINERS]

    def changes() -> str | None:
        if not _equal(np.random.get_state(), numpy_state) or random.getstate() != python_state:
            return "it draws random numbers of NumPy or Python, not chainrule's"
        for one, held in before:
            name = _other(vars(one), held)
            if name is not None:
                return f"it writes the attribute {name} of {type(one).__name__}"
        if any(not _same_content(value, copy) for value, copy in inside):
            return "it changes a list or dict that outlives the call"
        return None

    try:
        yield changes
    finally:
        if changes() is not None:
            _restore(before, inside, numpy_state, python_state)


def _restore(before: list[Any], inside: list[Any], numpy_state: Any, python_state: Any) -> None:
    np.random.set_state(numpy_state)
    random.setstate(python_state)
    for one, held in before:
        if _other(vars(one), held) is not None:
            vars(one).clear()
            vars(one).update(held)
    for value, copy in inside:
        if not _same_content(value, copy):
            value.clear()
            value.extend(copy) if type(value) is list else value.update(copy)
    bump_structure(name="what a trial had changed was put back")


def _other(now: dict[str, Any], then: dict[str, Any]) -> str | None:
    return next((name for name in {**then, **now} if now.get(name, ...) is not then.get(name, ...)), None)


def _same_content(one: Any, other: Any) -> bool:
    if len(one) != len(other):
        return False
    if isinstance(one, dict):
        return all(key in other and value is other[key] for key, value in one.items())
    return one == other if isinstance(one, set) else all(map(lambda a, b: a is b, one, other))


def _equal(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other))
