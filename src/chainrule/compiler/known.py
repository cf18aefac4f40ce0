"""What a plan was compiled to before: enough to run its code from the disk without writing its loops again.

Loops, LLVM text and places in the arena follow from the plan alone, for one version of this program and one processor.
So under a name made from all of that stands what a call needs to know, and under which name the machine code is.
A plan with anything that cannot be described to the last detail has no name, and is compiled as if nothing were known.
Knows graphs, plans and the cache; knows nothing of loops and of what code looks like.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..config import config
from ..graph import Node
from ..operations import Operation
from ..ops.lowering import HOST, Loop, Lowering
from . import cache
from .forms import lowering_of
from .machine import target
from .plan import Plan
from .product import Registers


class Known(NamedTuple):
    """What is known of a module without its text: the name of its entry, the name of its machine code, the bytes of the
    arena and for packed operands, whether it has tasks to share, the functions of the C library that it calls.
    """

    entry: str
    code: str
    arena: int
    scratch: int
    shares: bool
    libraries: tuple[str, ...]


def name_of(plan: Plan, registers: Registers) -> str | None:
    """Under which name a plan's code is known; None if the plan cannot be described, or nothing is kept."""
    if cache.folder() is None or config.dump:
        return None
    try:
        text, sources = "\n".join(_told(plan)), _sources()
    except _CannotTell:
        return None
    more = (repr(registers), ",".join(sorted(config.skip)), sources, *target())
    return cache.key_of("known", text, *more)


def recall(name: str) -> Known | None:
    """What is known under a name."""
    content = cache.load(name)
    if content is None:
        return None
    try:
        record = json.loads(content)
        known = Known(**{**record, "libraries": tuple(record["libraries"])})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    types = (str, str, int, int, bool, tuple)
    whole = all(type(value) is kind for value, kind in zip(known, types, strict=True))
    return (
        known
        if whole and min(known.arena, known.scratch) >= 0 and all(map(_is_name, known.libraries))
        else None
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isidentifier()


def remember(name: str, known: Known) -> None:
    """Keep it."""
    cache.store(name, json.dumps(known._asdict()).encode())


# The modules that code follows from, by their folders: those of the package itself, with its version, and these.
_ROOMS = ("", "compiler", "ops")

# When they were loaded.
_LOADED = time.time_ns()


class _CannotTell(Exception):
    """Something has no description that is the same whenever the code is."""


@functools.cache
def _sources() -> str:
    """What tells one state of this package from another: the content of the modules that code follows from.

    That is their files, so it must be what runs: raises _CannotTell where a file is younger than this process knows it,
    or the files are not there (a package of bytecode alone).
    """
    if not os.path.isfile(__file__):
        raise _CannotTell
    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    digest = hashlib.sha256()
    try:
        for room in _ROOMS:
            for entry in sorted(os.scandir(os.path.join(root, room)), key=lambda entry: entry.name):
                if not entry.name.endswith(".py"):
                    continue
                # A change sets the time of the change, whatever it pretends to be the time of the content.
                if entry.stat().st_ctime_ns > _LOADED:
                    raise _CannotTell
                with open(entry.path, "rb", buffering=0) as file:
                    content = file.read()
                digest.update(f"{room}/{entry.name} {len(content)}\0".encode() + content)
    except OSError as error:
        raise _CannotTell from error
    return digest.hexdigest()


@functools.cache
def _of_this_package(operation: Operation, form: Lowering) -> bool:
    """Whether an operation and its loops were written where `_sources` looks."""
    rules = [operation.body, *filter(callable, vars(form).values())]
    return all(_is_known_room(getattr(rule, "__module__", None) or "") for rule in rules)


def _is_known_room(module: str) -> bool:
    package, _, rest = module.partition(".")
    return package == __name__.partition(".")[0] and rest.rpartition(".")[0] in _ROOMS


def _told(plan: Plan) -> Iterator[str]:
    """The graph, the groups in their order, and where everything lies."""
    fusion = plan.fusion
    graph = fusion.graph
    nodes = graph.nodes()
    number = {node: k for k, node in enumerate(nodes)}
    sources = set(graph.sources)
    for node in nodes:
        form = lowering_of(node)
        # NumPy's calls are no part of the code, and a loop over time has buffers that only its loops tell of.
        if isinstance(form, Loop) or (form is HOST and node.inputs and node not in sources):
            raise _CannotTell
        if node.inputs and not _of_this_package(node.operation, form):
            raise _CannotTell
        yield _node(node, number, node in sources)
    for some in (graph.inputs, graph.reads.values(), graph.outputs, plan.constants, plan.results):
        yield f"row {[number[node] for node in some]}"
    yield f"writes {[None if node is None else number[node] for node in graph.writes.values()]}"
    for check in graph.checks:
        yield f"check {number[check.condition]}"
    for group in fusion.groups:
        stores = [number[node] for node in group.stores]
        inlined, reads = ([number[node] for node in some] for some in (group.inlined, group.reads))
        yield f"group {number[group.root]} {stores} {inlined} {reads} {group.check} {group.root in fusion.late}"
    yield f"in place {[(number[one], number[other]) for one, other in fusion.in_place.items()]}"
    for node, buffer in plan.buffers.items():
        order = None if buffer.order is None else buffer.order.axes
        yield f"buffer {number[node]} {buffer.name} {buffer.place} {buffer.index} {order}"


def _node(node: Node, number: dict[Node, int], source: bool) -> str:
    types = ",".join(map(str, node.types))
    value = node._value
    if source or not node.inputs:
        held = "" if value is None or source else _value(value)
        return f"{node.operation.name} {types} {held}"
    attributes = [f"{name}={_value(one)}" for name, one in sorted(node.attributes.items())]
    return f"{node.operation.name} {[number[one] for one in node.inputs]} {attributes} {types}"


def _value(value: Any) -> str:
    """A text for a value of an attribute; raises _CannotTell."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"({','.join(map(_value, value))})"
    if isinstance(value, np.dtype):
        return value.str
    if isinstance(value, np.ndarray | np.generic):
        array = np.ascontiguousarray(value)
        return f"{array.dtype.str}{value.shape}{hashlib.sha256(array.tobytes()).hexdigest()}"
    raise _CannotTell
