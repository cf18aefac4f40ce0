"""Whether two traces of a function are the same: what differs between them is no function of the step's inputs.

Knows graphs and templates; knows nothing of machine code.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import Origin
from ..graph import Graph, Node, topological
from .templates import Assign, Constant, Nested, Print, Template

if TYPE_CHECKING:
    from .function import Traced


NOTHING: Mapping[Node, str] = MappingProxyType({})


def difference_between(first: Traced, second: Traced) -> tuple[str, Origin | None] | None:
    """What is different, and where; None if nothing is."""
    one, other = list(_described(first)), list(_described(second))
    for (before, node), (now, _) in zip(one, other):
        if before != now:
            name = "what it leaves behind" if node is None else node.operation.name
            return f"{name} differs between two runs", None if node is None else _place(first.graph, node)
    if len(one) != len(other):
        longer = max(one, other, key=len)[min(len(one), len(other))][1]
        return "it does more at one time than at another", None if longer is None else longer.origin
    return None


def _place(graph: Graph, node: Node) -> Origin | None:
    """The line of a node; of a constant the line where it is used first."""
    users = [one for one in graph.nodes() if node in one.inputs and one.origin is not None]
    return node.origin or (users[0].origin if users else None)


def _described(traced: Traced) -> Any:
    """Everything that decides what a trace computes, without the identities of its nodes."""
    labels = {node: one.label for node, one in zip(traced.graph.inputs, traced.inputs)}
    yield from _graph(traced.graph, labels)
    yield _template(traced.result), None
    assigned = [
        (one.name, None if one.value is None else _template(one.value))
        for one in traced.effects
        if isinstance(one, Assign)
    ]
    # Each place is assigned once, so the order tells nothing: it is that in which a namespace came to hold the names.
    yield sorted(assigned, key=repr), None
    for effect in traced.effects:
        parts: tuple[Any, ...] = (type(effect).__name__,)
        if isinstance(effect, Assign):
            continue
        if isinstance(effect, Print):
            parts += tuple(map(_template, effect.items))
        else:
            parts += tuple(_template(one) for one in getattr(effect, "items", ()))
        yield parts, None


def _graph(graph: Graph, labels: Mapping[Node, str] = NOTHING) -> Any:
    """Of the sources only those that are used, each by what it is called: a trace may have met others besides."""
    numbers: dict[Node, int] = {}
    for k, node in enumerate(topological(graph.roots) if labels else graph.nodes()):
        numbers[node] = k
        operands = tuple(numbers[one] for one in node.inputs if one in numbers)
        value = _plain(node._value) if not node.inputs else None
        name = labels.get(node, node.operation.name)
        yield (name, operands, node.types, _plain(dict(node.attributes)), value), node
    yield [(id(cell), part, numbers.get(node)) for (cell, part), node in graph.reads.items()], None
    yield [(id(cell), part, node and numbers[node]) for (cell, part), node in graph.writes.items()], None
    yield [(numbers[check.condition], check.message) for check in graph.checks], None
    yield [numbers[node] for node in graph.outputs], None


def _template(template: Template) -> Any:
    if isinstance(template, Constant):
        return (
            _plain(template.value)
            if isinstance(template.value, int | float | str | bytes)
            else type(template.value)
        )
    if isinstance(template, Nested):
        return ("nested", *map(_template, template.items))
    return tuple(
        repr(one) if not isinstance(one, Template) else _template(one) for one in vars(template).values()
    )


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, Graph):
        return [text for text, _ in _graph(value)]
    if isinstance(value, dict):
        return [(key, _plain(one)) for key, one in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return (
        repr(value)
        if isinstance(value, int | float | str | bool | np.generic | np.dtype)
        else type(value).__name__
    )
