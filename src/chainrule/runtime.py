"""`cr.compile`: one native function for each kind of call, and the call itself: compute, check, commit.

Keeps the traces of a function with their machine code, decides which serves a call, hands addresses over, and
writes cells only after every check has passed.
Knows tensors, cells and the compiler's products; knows nothing of how code is made.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

from . import ops
from .compiler import Compilation, Native, available, compile_graph
from .config import config
from .dtypes import as_dtype
from .errors import ArgumentError
from .graph import Graph, Node, evaluate, state, structure_version
from .operations import CONSTANT, Array
from .pytree import unflatten
from .tensor import Tensor, wrap
from .trace import Arguments, Result, Traced, arguments_of, describe_range, labels, trace

P = ParamSpec("P")
R = TypeVar("R")

# Traces of one function that are kept; the one that was used longest ago goes first.
_MOST_PROGRAMS = 64

_ALIGNMENT = 64


class Program:
    """One trace with what runs it: machine code, or the interpreter where LLVM is missing."""

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.compilation: Compilation = compile_graph(traced.graph)
        self.native: Native | None = None
        self.compiled_now = False
        if available():
            self.native, self.compiled_now = self.compilation.native()
        self._leaving = set(self.graph.roots)
        self._lock = threading.Lock()
        self._arena = _aligned(self.compilation.plan.arena)
        self._status = np.ones(len(self.graph.checks), bool)
        self._constants = [_whole(node.value) for node in self.compilation.plan.constants]

    @property
    def graph(self) -> Graph:
        """The simplified graph: what is really computed."""
        return self.compilation.simplified

    def __call__(self, leaves: list[Any]) -> Any:
        """One step: compute, check, commit; the result as the function nests it."""
        given = self._sources(leaves)
        with self._lock:
            values = self._run_native(given) if self.native is not None else self._interpret(given)
            self._check(given)
        return self._commit(leaves, values)

    # ------------------------------------------------------------------------------- compute

    def _sources(self, leaves: list[Any]) -> dict[Node, Array]:
        """The array of every source."""
        traced, given = self.traced, {}
        for node, origin in zip(traced.graph.inputs, traced.inputs):
            owner = leaves[origin] if isinstance(origin, int) else origin
            foreign = not isinstance(owner, Tensor)
            # An array of the caller's that leaves again as a result must not be shared with it.
            copied = foreign and node in self._leaving
            array = (
                np.array(owner, as_dtype(owner.dtype), copy=copied or None) if foreign else owner.node.value
            )
            given[node] = _whole(array)
        for (cell, part), node in self.graph.reads.items():
            given[node] = _whole(cell.array if part == "array" else cell.grad.node.value)
        return given

    def _run_native(self, given: dict[Node, Array]) -> dict[Node, Array]:
        """Values of all roots, computed by the native function into new arrays."""
        assert self.native is not None
        plan = self.compilation.plan
        results = {node: np.empty(node.shape, node.dtype) for node in plan.results}
        handed = [given[node] for node in self.graph.sources]
        handed += [*self._constants, *results.values(), self._arena, self._status]
        self.native([array.ctypes.data if array.size else 0 for array in handed])
        return given | results

    def _interpret(self, given: dict[Node, Array]) -> dict[Node, Array]:
        """The same by NumPy, operation by operation."""
        graph = self.graph
        with ops.quiet():
            for k, check in enumerate(graph.checks):  # first: an index outside its range would stop NumPy
                self._status[k] = np.all(self._evaluate(check.condition, given))
            if not self._status.all():
                return given
            values = evaluate(graph, [given[node] for node in graph.sources], ops.NUMPY)
        return given | {root: np.array(value) for root, value in zip(graph.roots, values)}

    def _evaluate(self, node: Node, given: dict[Node, Array]) -> Any:
        """One value by the interpreter; None where it cannot be computed (an earlier check says why)."""
        single = Graph(self.graph.name, self.graph.inputs, (node,), self.graph.reads)
        try:
            with ops.quiet():
                return evaluate(single, [given[source] for source in single.sources], ops.NUMPY)[0]
        except IndexError:
            return None

    # ------------------------------------------------------------------------------- check, commit

    def _check(self, given: dict[Node, Array]) -> None:
        """Raise the first failed check; nothing has been written yet."""
        if self._status.all():
            return
        failed = self.graph.checks[int(np.argmin(self._status))]
        values = None if failed.subject is None else self._evaluate(failed.subject, given)
        told = describe_range(failed.message, values)
        raise failed.error(f"{told}. Nothing was changed by this step, so it can be run again", failed.origin)

    def _commit(self, leaves: list[Any], values: dict[Node, Array]) -> Any:
        """Write the cells and move the handles, then build the result."""
        for (cell, part), node in self.graph.writes.items():
            if part == "array":
                assert node is not None
                cell.write(_value(node, values))
            else:
                cell.grad = None if node is None else wrap(Node(CONSTANT, value=_value(node, values)))
        outputs = [_value(node, values) for node in self.graph.outputs]
        for owner, index in self.traced.rebound:
            handle = leaves[owner] if isinstance(owner, int) else owner
            handle._node = Node(CONSTANT, value=outputs[index])
        results = [
            wrap(Node(CONSTANT, value=outputs[one.index])) if isinstance(one, Result) else one
            for one in self.traced.results
        ]
        return unflatten(self.traced.structure, results)


def _value(node: Node, values: dict[Node, Array]) -> Array:
    array: Array = values.get(node, node.value)
    return array


def _whole(array: Array) -> Array:
    """The array in row-major order without gaps; itself where it is."""
    return array if array.flags.c_contiguous and array.flags.aligned else np.array(array, order="C")


def _aligned(size: int) -> Array:
    """Bytes that start at a cache line."""
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size]


# ------------------------------------------------------------------------------------- what users call


class Compiled(Generic[P, R]):
    """A function that runs as machine code, one program for each kind of call.

    `recompiles` says in words why further programs had to be made.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.recompiles: list[str] = []
        self._programs: list[Program] = []
        self._last: Program | None = None

    def __call__(self, *args: P.args, **keywords: P.kwargs) -> R:
        """Run the program for this kind of call, made first if there is none."""
        if not config.compile or state.trace is not None:
            return self.function(*args, **keywords)
        arguments = arguments_of(args, keywords)
        program = self._find(arguments) or self._make(arguments)
        self._last = program
        result: R = program(arguments.leaves)
        return result

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<compiled {self._name}, {len(self._programs)} programs>"

    @property
    def _name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def graph(self, *args: P.args, **keywords: P.kwargs) -> Graph:
        """The graph of a call with these arguments, which is traced but not run; without any, the last one's."""
        if not args and not keywords and self._last is not None:
            return self._last.traced.graph
        return trace(self.function, arguments_of(args, keywords), self._name).graph

    def stages(self) -> dict[str, str]:
        """Every stage of the last call's program as text: trace, simplify, fuse, plan, lower, llvm.

        Raises ArgumentError before the first call.
        """
        if self._last is None:
            raise ArgumentError(f"{self._name} has not been compiled yet. Call it once first")
        return self._last.compilation.stages

    # ------------------------------------------------------------------------------- programs

    def _find(self, arguments: Arguments) -> Program | None:
        """The program that serves this call: the same kind of arguments, and nothing changed around it."""
        for program in reversed(self._programs):
            traced = program.traced
            if (
                traced.version == structure_version()
                and traced.arguments.key == arguments.key
                and not traced.changes()
            ):
                return program
        return None

    def _make(self, arguments: Arguments) -> Program:
        """Trace and compile; say why, if this is not the first time."""
        version = structure_version()
        reason = self._reason(arguments)
        program = Program(trace(self.function, arguments, self._name))
        program.traced.arguments = Arguments(_kept(arguments), arguments.structure, arguments.key)
        if program.compiled_now and self._programs:
            self.recompiles.append(reason)
        if program.native is None:
            _say_once()
        # A program made for another structure can never be valid again: the number only grows.
        self._programs = [one for one in self._programs if one.traced.version == version][
            1 - _MOST_PROGRAMS :
        ]
        self._programs.append(program)
        return program

    def _reason(self, arguments: Arguments) -> str:
        """What is different from the last program's call, in words."""
        if not self._programs:
            return ""
        last = self._programs[-1].traced
        if last.arguments.key == arguments.key:
            changed = last.changes()
            return "; ".join(changed) or "an attribute of a module or an optimizer was written"
        return "; ".join(self._differences(last.arguments, arguments))

    def _differences(self, old: Arguments, new: Arguments) -> list[str]:
        try:
            names = list(inspect.signature(self.function).parameters)
        except (TypeError, ValueError):
            names = []
        before, now = labels(old.structure, names), labels(new.structure, names)
        if old.key[0] != new.key[0]:
            if before != now:
                return [f"arguments: {', '.join(before)} → {', '.join(now)}"]
            return ["the arguments are nested in another way"]
        found = []
        for label, one, other in zip(
            ("gradients enabled", "config.check_finite"), old.key[1:3], new.key[1:3]
        ):
            if one != other:
                found.append(f"{label}: {one} → {other}")
        for label, one, other in zip(now, old.key[3:], new.key[3:]):
            if one != other:
                found.append(f"argument {label}: {_shown(one)} → {_shown(other)}")
        return found


def _kept(arguments: Arguments) -> list[Any]:
    """Leaves without the arrays: what is an input is not held."""
    return [
        None if isinstance(key, tuple) else leaf for key, leaf in zip(arguments.key[3:], arguments.leaves)
    ]


def _shown(key: Any) -> str:
    return str(key[1]) if isinstance(key, tuple) and len(key) == 2 else str(key)


@functools.cache
def _say_once() -> None:
    print(
        "chainrule: llvmlite is not installed, so compiled steps run on the NumPy interpreter",
        file=sys.stderr,
    )


def compile(function: Callable[P, R]) -> Compiled[P, R]:
    """The function as one native function: forward, loss, backward and update in one call.

    It works on ordinary eager code: what is read from parameters becomes an input, what is assigned becomes an
    output, and a step either happens as a whole or changes nothing. A new shape, dtype or flag compiles once more
    (`recompiles` says why). CHAINRULE_COMPILE=0 runs everything eagerly.
    Raises TraceError where the function asks for numbers, CompileError for an operation without machine code.

    >>> import chainrule as cr
    >>> from chainrule.runtime import compile
    >>> w = cr.tensor(1.0, requires_grad=True)
    >>> @compile
    ... def step(x):
    ...     loss = (w * x - 1.0) ** 2
    ...     loss.backward()
    ...     with cr.no_grad():
    ...         w.copy_(w - 0.25 * w.grad)
    ...     w.grad = None
    ...     return loss
    >>> [step(cr.tensor(2.0)).item() for _ in range(2)]
    [1.0, 1.0]
    """
    if isinstance(function, Compiled):
        return function
    if not callable(function):
        raise ArgumentError(f"cr.compile needs a function; got {type(function).__name__}")
    return Compiled(function)


__all__ = ["Compiled", "Program", "compile"]
