"""Python function → Graph: the function runs with nodes that have no numbers, and what it does is recorded.

Nothing is changed while tracing: what the function has written is put back, and happens with each call instead. It is
traced twice: what comes out differently the second time is no function of its inputs.
Knows tensors, cells and what surrounds a function; knows nothing of loops or machine code.
"""

from __future__ import annotations

import builtins
import contextlib
import contextvars
import gc
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import Origin, TraceError
from ..graph import Cell, Graph, Node, refuse_left, state, topological
from ..operations import Type
from ..structure import structure_version
from ..tensor import Tensor
from . import patterns as pt
from .frames import Observer, finding
from .guards import Guards, tracing_lock
from .patterns import Pattern
from .purity import difference_between
from .recording import Tracing
from .results import Recipes
from .spaces import Attributes
from .surroundings import Surroundings
from .templates import Effect, Renew, Require, Template

# Up to so many nodes a trace is so short that it is observed in any case.
_FEW_NODES = 500


@dataclass(eq=False)
class Traced:
    """A graph, where its inputs come from and where its outputs go, and what has been taken for granted.

    `inputs`: for each input of the graph the pattern that gives its array. `result`: what the function returns.
    `effects`: what a call does besides.
    """

    graph: Graph
    inputs: list[Pattern]
    result: Template
    effects: list[Effect]
    guards: Guards
    cells: dict[Cell, tuple[Type, bool]]
    grad_was_none: dict[Cell, bool]
    version: int
    names: dict[Cell, str] = field(default_factory=dict)
    # Whether calls make objects that stand in several places afterwards.
    shares: bool = False
    # Buffers that get a new tensor: what they hold before is kept for the old one.
    renewed: list[Cell] = field(default_factory=list)
    # Whether a second trace is to watch what runs.
    observe: bool = False
    # Keys of the Python numbers that are inputs.
    dynamic: frozenset[Any] = frozenset()
    # How many pieces of code were known to run.
    pieces: int = 0
    # Attributes of layers that guards look at: (identity of the layer, name).
    answered: frozenset[tuple[int, str]] = frozenset()

    def changed_cells(self) -> list[str]:
        """What is different about the cells that the graph reads and writes, in words."""
        found = []
        for cell, (type, required) in self.cells.items():
            name = cell.name or self.names.get(cell) or "a tensor"
            if cell.type != type:
                found.append(f"{name}: {type} → {cell.type}")
            if cell.requires_grad != required:
                found.append(f"{name}.requires_grad: {required} → {cell.requires_grad}")
        for cell, none in self.grad_was_none.items():
            if (cell.grad is None) != none:
                name = cell.name or "a tensor"
                found.append(f"{name}.grad: " + ("None → a gradient" if none else "a gradient → None"))
        return found


class NeedsNumber(Exception):
    """A number that was to be an input decides what the graph looks like: its keys."""

    def __init__(self, keys: frozenset[Any]) -> None:
        super().__init__(keys)
        self.keys = keys


class MovedOn(TraceError):
    """The attempt has moved on what cannot be put back, so Python would not do what it does without the attempt."""


class _Unlocated(Exception):
    """Something that a graph cannot do again, of which the line is still to be found."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.what, self.cure = what, cure


def trace(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    name: str,
    dynamic: frozenset[Any] = frozenset(),
    twice: bool = True,
) -> Traced:
    """Record the function for a call with these arguments.

    dynamic: keys of Python numbers that are inputs. twice: compare with a second trace.
    Raises TraceError where the function asks for numbers, or does what a graph cannot do again; NeedsNumber where a
    dynamic number must be known.
    """
    with tracing_lock:
        try:
            first = _trace(function, args, keywords, name, dynamic, False)
        except _Unlocated as failure:
            lines: list[Origin] = []
            with contextlib.suppress(_Unlocated):
                _trace(function, args, keywords, name, dynamic, False, lines)
            raise _impure(failure.what, lines[0] if lines else None, failure.cure) from None
        if not twice:
            return first
        second = _trace(function, args, keywords, name, dynamic, first.observe)
        if second.pieces != first.pieces:  # more was seen to run than could be read from the code
            first, second = second, _trace(function, args, keywords, name, dynamic, True)
        told = difference_between(first, second)
        if told is not None:
            raise _impure(f"it computes something else at each call: {told[0]}", told[1], kind=MovedOn)
    return second


def _impure(what: str, origin: Any, cure: str = "", kind: type[TraceError] = TraceError) -> TraceError:
    cure = cure or (
        "Compute what changes before the step and pass it as an argument, or keep it in a tensor or a number that the "
        "step writes itself"
    )
    return kind(f"a compiled step does the same at each call; {what}. {cure}", origin)


def _trace(*given: Any) -> Traced:
    """One recording. What it sets of context variables goes with the copy of the context that it runs in."""
    return contextvars.copy_context().run(_record, *given)


def _record(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    name: str,
    dynamic: frozenset[Any],
    observed: bool,
    lines: list[Origin] | None = None,
) -> Traced:
    tracing = Tracing()
    around = Surroundings(dynamic)
    tracing.cut = around.cut
    observer = Observer(around.enter)
    cells: dict[Cell, tuple[Type, bool]] = {}
    positional, named = list(args), dict(keywords)
    collecting = gc.isenabled()
    gc.disable()
    outer, state.trace = state.trace, tracing
    try:
        arguments, given = _arguments(around, positional, named, function)
        around.reach(function, "self")
        watching = observer.watching() if observed else contextlib.nullcontext()
        if lines is not None:
            watching = finding(lambda: around.random.changed() or bool(around.arrays_written()), lines)
        with _printing(tracing), watching:
            result = function(*given[0], **given[1])
        _refuse(tracing, around, observer)
        recipes = Recipes(tracing, around)
        answer = recipes.make(result)
        effects = recipes.effects(arguments)
        writes, checks = tracing.close()
        del result, given
        recipes.refuse_leftovers()
        inputs = [*around.inputs]
        outputs = tuple(recipes.outputs)
    except TraceError as failure:
        keys = tracing.keys_of(around.numbers)
        if keys:
            raise NeedsNumber(keys) from failure
        raise
    finally:
        state.trace = outer
        around.restore()
        tracing.restore()
        if collecting:
            gc.enable()
    graph = Graph(name, tuple(inputs), outputs, tracing.reads, writes, checks)
    _refuse_foreign(graph)
    hidden = _hidden(around, graph)
    inputs = [one for one in inputs if one not in hidden]
    graph.inputs = tuple(inputs)
    cells = {cell: (cell.type, cell.requires_grad) for cell, _ in (*tracing.reads, *writes)}
    none = {cell: none for cell, none in tracing.grad_was_none.items() if cell not in tracing.local}
    around.guard()
    guards = Guards(
        *arguments,
        around.spaces,
        inputs,
        recipes.found,
        bool(effects),
        parameter_names(function),
        around.anchors,
    )
    patterns = dict(_patterns_of(around, arguments))
    named_cells = {one.cell: one.label for _, one in _leaves(around, arguments)}
    return Traced(
        graph,
        [patterns[node] for node in inputs],
        answer,
        effects,
        guards,
        cells,
        none,
        structure_version(),
        named_cells,
        recipes.shares,
        [one.cell for one in effects if isinstance(one, Renew)],
        around.suspicious or len(topological(graph.roots)) < _FEW_NODES,
        dynamic,
        around.pieces,
        _answered(around, effects),
    )


Arguments = tuple[pt.Sequence, pt.Mapping]


def _arguments(
    around: Surroundings, positional: list[Any], named: dict[str, Any], function: Any
) -> tuple[Arguments, tuple[list[Any], dict[str, Any]]]:
    """Patterns of the arguments, and what the function is called with."""
    labels = parameter_names(function)
    first, given = pt.Sequence(positional, "arguments", []), []
    for k, value in enumerate(positional):
        label = labels[k] if k < len(labels) else f"argument {k}"
        label = label if label == "self" else f"argument {label}"
        pattern, stand_in = around.look(value, label, ("argument", k), True)
        pattern.argument = True
        first.items.append(pattern)
        given.append(stand_in)
    second, also = pt.Mapping(named, "arguments", list(named), []), {}
    for name, value in named.items():
        pattern, also[name] = around.look(value, f"argument {name}", ("argument", name), True)
        second.items.append(pattern)
    for one in (*positional, *named.values()):
        around.refuse_iterator(one, "its arguments")
    return (first, second), (given, also)


def parameter_names(function: Any) -> list[str]:
    """What a function calls its arguments; nothing where that is not known."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _roots(around: Surroundings, arguments: Arguments) -> Iterator[Pattern]:
    for container in arguments:
        for one in container.items:
            yield from one.parts()
    for space in around.spaces:
        for one in space.patterns.values():
            yield from one.parts()
    for one in around.anchors:
        yield from one.parts()


def _patterns_of(around: Surroundings, arguments: Arguments) -> Iterator[tuple[Node, Pattern]]:
    for one in _roots(around, arguments):
        if isinstance(one, pt.Held | pt.Given | pt.Number):
            yield one.node, one
        elif isinstance(one, pt.History) and one.grad is not None:
            yield one.grad, one


def _leaves(around: Surroundings, arguments: Arguments) -> Iterator[tuple[None, pt.Leaf]]:
    for one in _roots(around, arguments):
        if isinstance(one, pt.Leaf):
            yield None, one


def _answered(around: Surroundings, effects: Sequence[Effect]) -> frozenset[tuple[int, str]]:
    """What is counted and compared at each call all the same: attributes of layers, flags that the step sets itself."""
    layers = [space for space in around.spaces if isinstance(space, Attributes) and space.counted]
    names = {(id(space.owner), name) for space in layers for name in space.guarded}
    return frozenset(names | {(id(one.cell), "requires_grad") for one in effects if isinstance(one, Require)})


def _hidden(around: Surroundings, graph: Graph) -> set[Node]:
    """Inputs that stand in lists which the function only appends to: what is in those does not matter."""
    hidden: set[Node] = set()
    used = set(topological(graph.roots))
    for container in around.containers:
        if container.growing:
            nodes = {node for one in container.parts() if (node := getattr(one, "node", None)) is not None}
            container.growing = nodes.isdisjoint(used)
            hidden |= nodes if container.growing else set()
    return hidden


def _refuse(tracing: Tracing, around: Surroundings, observer: Observer) -> None:
    """What a graph cannot do again is an error with its line, also where the user's code has caught ours."""
    if tracing.errors:
        raise tracing.errors[0]
    for what, origin, cure, moves_on in observer.impurities:
        raise _impure(what, origin, cure, MovedOn if moves_on else TraceError)
    for what, label in around.problems:
        cure = "Take the item before the step and pass it as an argument"
        raise _impure(what, around.origin_of(label), cure, MovedOn)
    if around.random.changed():
        raise _Unlocated(
            "it draws random numbers of NumPy or Python, not chainrule's, or reads on in a file",
            "Use chainrule's random functions, or draw or read before the step and pass that as an argument",
        )
    if around.arrays_written():
        raise _Unlocated(
            f"it writes into {around.arrays_written()[0].label}, a NumPy array",
            "Keep it as a tensor: writing into that is part of the step",
        )


def _refuse_foreign(graph: Graph) -> None:
    """Values that belong to something inside (a step of a loop, a recomputed part) cannot leave it."""
    sources = set(graph.sources)
    for node in graph.nodes():
        if not node.inputs and node.value is None and node not in sources:
            refuse_left(graph, node)
            raise TraceError(
                f"a compiled step keeps values of its own; got {node.type} of a loop or of another step, made at "
                f"{node.origin or 'an unknown place'}. Return it from there"
            )


@contextlib.contextmanager
def _printing(tracing: Tracing) -> Iterator[None]:
    """What the function prints is delivered after each call, in this thread; others print as ever."""
    original = builtins.print

    def delivered(*values: Any, **keywords: Any) -> None:
        if state.trace is None or not tracing.within(state.trace):
            original(*values, **keywords)
        else:
            tracing.printed.append((values, keywords))

    builtins.print = delivered
    try:
        yield
    finally:
        builtins.print = original


__all__ = ["MovedOn", "NeedsNumber", "Tensor", "Traced", "trace", "tracing_lock"]
