"""The guard of a trace: one function of Python, written for it, that says whether a call can be served, and with what.

It looks at every place that the traced function depends on and answers the arrays of the graph's inputs, or None. A
second function, written from the same patterns, finds all that differs, in words: why a step is traced again.
Knows patterns and spaces; knows nothing of graphs being compiled.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..config import config
from ..dtypes import Dtype
from ..graph import Node, state
from ..locks import TRACING, lock
from ..operations import Array
from ..tensor import Tensor
from .patterns import Container, Held, Mapping, Missing, Pattern, Same, show
from .patterns import Sequence as SequencePattern
from .spaces import MISSING, Space

Serve = Callable[[tuple[Any, ...], dict[str, Any]], "tuple[list[Array], tuple[Any, ...]] | None"]


class Difference:
    """One place that is not what it was: its pattern, and what is there now."""

    __slots__ = ("now", "pattern")

    def __init__(self, pattern: Pattern, now: Any) -> None:
        self.pattern = pattern
        self.now = now

    def __str__(self) -> str:
        before = self.pattern.show()
        now = (
            "nothing"
            if self.now is MISSING
            else self.now
            if isinstance(self.pattern, _Names)
            else show(self.now)
        )
        if before == now:
            return f"{self.pattern.label}: another {before}"
        return f"{self.pattern.label}: {before} → {now}"


class Writer:
    """Lines of Python, the objects that they name, and the arrays that they find for the graph's inputs."""

    def __init__(self, reasons: bool) -> None:
        self.names: dict[str, Any] = {}
        self._bound: dict[int, str] = {}
        self._lines: list[str] = []
        self._count = 0
        self._reasons = reasons
        self._indent = 4
        self._waiting: list[tuple[Pattern, str]] = []
        self._last = False
        self.given: dict[Node, str] = {}
        self.patterns: list[Pattern] = []

    def fresh(self, letter: str) -> str:
        """A variable that nothing else uses."""
        self._count += 1
        return f"{letter}{self._count}"

    def bind(self, value: Any) -> str:
        """A name for an object. It is held, so its identity is not given to another."""
        name = self._bound.get(id(value))
        if name is None:
            name = self._bound[id(value)] = f"k{len(self._bound)}"
            self.names[name] = value
        return name

    def line(self, text: str) -> None:
        """One line."""
        self._lines.append(" " * self._indent + text)

    def require(self, condition: str, pattern: Pattern, variable: str) -> None:
        """What must hold, or the call is not served."""
        if self._reasons:
            number = len(self.patterns)
            self.patterns.append(pattern)
            self.line(f"if not ({condition}):")
            self.line(f"    missed({number}, {variable})")
            self.line("    break")
        else:
            self.line(f"if not ({condition}): return None")

    def give(self, node: Node, expression: str) -> None:
        """The array of an input."""
        name = self.fresh("g")
        self.line(f"{name} = {expression}")
        self.given[node] = name

    def root(self, pattern: Pattern, source: str) -> None:
        """One value from outside, and everything in it. A reason for each, so one that differs hides no other."""
        variable = self.fresh("v")
        if self._reasons:
            self.line("for once in (0,):")
            self._indent += 4
            self.line("try:")
            self._indent += 4
        self.line(f"{variable} = {source}")
        pattern.write(self, variable)
        if self._reasons:
            number = len(self.patterns)
            self.patterns.append(pattern)
            self._indent -= 4
            self.line("except NameError: pass")
            self.line("except Exception: missed(" + f"{number}, MISSING)")
            self._indent -= 4

    def wait(self, pattern: Pattern, variable: str) -> bool:
        """Whether a pattern can be written behind all others, because it needs one of them."""
        if self._last:
            return False
        self._waiting.append((pattern, variable))
        return True

    def write_waiting(self) -> None:
        """What had to wait for others; they are all there now, or never come."""
        self._last = True
        for pattern, variable in self._waiting:
            self.root(pattern, variable)

    def names_of(self, source: str, condition: str, label: str) -> None:
        """A condition about which names there are."""
        self.root(_Condition(condition, label), source)

    def function(self, last: str) -> Callable[..., Any]:
        """The lines as a function of a call's arguments."""
        if self._reasons:
            body = [*self._lines, f"    {last}"]
        else:
            inside = [f"    {one}" for one in self._lines]
            body = ["    try:", *inside, f"        {last}", "    except failures: return None"]
        text = "\n".join(["def serve(args, keywords):", *body])
        exec(compile(text, "<guard>", "exec"), self.names)
        made: Callable[..., Any] = self.names["serve"]
        return made


#: Held while a function is traced: tensors and attributes that it reaches stand for inputs until it is over.
tracing_lock = lock(threading.RLock(), TRACING)


def settled(tensor: Tensor) -> Array:
    """The array of a tensor, also while another thread traces a function that captures it."""
    value = tensor.node.value
    if value is None:
        with tracing_lock:
            value = tensor.node.value
    array: Array = value
    return array


def _taken(value: Any, dtype: Dtype) -> Array:
    """An array of the caller's as one that machine code can read; a copy, so that what is returned is not shared."""
    return np.array(value, dtype, order="C")


def _same_bits(one: Array, other: Array) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind == "O":
        return all(a is b or (type(a) is type(b) and a == b) for a, b in zip(one.flat, other.flat))
    return bool(np.array_equal(one, other)) or one.tobytes() == other.tobytes()


def _whole(array: Array) -> Array:
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.array(array, order="C")


_HELPERS = {
    "MISSING": MISSING,
    "S": state,
    "C": config,
    "array": np.asarray,
    "failures": (AttributeError, KeyError, ValueError, TypeError, IndexError, StopIteration, RuntimeError),
    "is_": operator.is_,
    "ndarray": np.ndarray,
    "same_bits": _same_bits,
    "settled": settled,
    "taken": _taken,
    "whole": _whole,
}


class Guards:
    """Everything that a trace takes for granted, as two functions.

    arguments, keywords: patterns of the call. spaces: the places outside. needed: patterns whose values calls hand to
    effects and results, in the order of what `serve` answers beside the arrays.
    """

    def __init__(
        self,
        arguments: SequencePattern,
        keywords: Mapping,
        spaces: Sequence[Space],
        inputs: Sequence[Node],
        needed: Sequence[Pattern],
        distinct: bool,
        parameters: Sequence[str] = (),
        anchors: Sequence[Pattern] = (),
    ) -> None:
        self._anchors = anchors
        self.parameters = [
            *parameters,
            *(f"argument {k}" for k in range(len(parameters), len(arguments.items))),
        ]
        self._arguments, self._keywords = arguments, keywords
        self._spaces = spaces
        self._inputs = inputs
        self._needed = needed
        self._distinct = distinct
        self.flags = (state.grad_enabled, config.check_finite)
        self.serve: Serve = self._write()
        self._explain: Callable[..., Any] | None = None

    def _roots(self, writer: Writer) -> None:
        self._arguments.variable = self._keywords.variable = ""
        self._call(writer, self._arguments, "args")
        self._call(writer, self._keywords, "keywords")
        for one in self._anchors:
            writer.root(one, writer.bind(one.value))
        for space in self._spaces:
            space.write(writer)
        writer.write_waiting()

    def _call(self, writer: Writer, container: Container, source: str) -> None:
        """Arguments one by one, so that a reason names each that differs."""
        writer.root(_Size(container), source)
        container.variable = source
        keys = container.keys if isinstance(container, Mapping) else range(len(container.items))
        for key, one in zip(keys, container.items):
            writer.root(one, f"{source}[{key!r}]")

    def _write(self) -> Serve:
        writer = Writer(reasons=False)
        writer.names.update(_HELPERS)
        recording, finite = self.flags
        writer.line(
            f"if S.grad_enabled is not {recording} or C.check_finite is not {finite} or S.trace is not None "
            "or not C.compile: return None"
        )
        self._roots(writer)
        found = [one for root in self._all() for one in root.parts() if isinstance(one, Held | Container)]
        distinct = [one.variable for one in found if one.variable]
        if self._distinct and len(distinct) > 1:
            writer.line(
                f"if len({{{', '.join(f'id({one})' for one in distinct)}}}) != {len(distinct)}: return None"
            )
        arrays = ", ".join(writer.given[node] for node in self._inputs)
        # What no guarded place leads to is the very object that was met.
        needed = "".join(f"{one.variable or writer.bind(one.value)}, " for one in self._needed)
        return writer.function(f"return [{arrays}], ({needed})")

    def _all(self) -> list[Pattern]:
        found: list[Pattern] = [*self._arguments.items, *self._keywords.items, *self._anchors]
        for space in self._spaces:
            found += space.guarded.values()
        return found

    def differences(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> list[Difference]:
        """All that is not as it was, for a call that was not served."""
        found: list[Difference] = []
        if len(args) != len(self._arguments.items) or keywords.keys() != set(self._keywords.keys):
            names = (*self.parameters[: len(args)], *keywords)
            before = (*self.parameters[: len(self._arguments.items)], *self._keywords.keys)
            return [Difference(_Names(before), _Names(names).show())]
        if self._explain is None:
            kept = [(one, one.variable) for root in self._all() for one in root.parts()]
            for one, _ in kept:
                one.variable = ""
            writer = Writer(reasons=True)
            writer.names.update(_HELPERS)
            self._roots(writer)
            self._patterns = writer.patterns
            self._names = writer.names
            self._explain = writer.function("return None")
            for one, variable in kept:
                one.variable = variable

        def missed(number: int, now: Any) -> None:
            found.append(Difference(self._patterns[number], now))

        self._names["missed"] = missed
        self._explain(args, keywords)
        return found


class _Size(Pattern):
    """How many arguments there are without a name, or which there are with one."""

    def __init__(self, container: Container) -> None:
        super().__init__(container, "arguments")
        self._container = container

    def check(self, writer: Writer, variable: str) -> None:
        """The number, and names."""
        if isinstance(self._container, Mapping) and self._container.keys:
            writer.require(f"{variable}.keys() == {writer.bind(set(self._container.keys))}", self, variable)
        else:
            writer.require(f"len({variable}) == {len(self._container.items)}", self, variable)


class _Condition(Pattern):
    """Something about which names there are."""

    def __init__(self, condition: str, label: str) -> None:
        super().__init__(None, label)
        self._condition = condition

    def check(self, writer: Writer, variable: str) -> None:
        """The variable is called `names` in the condition."""
        writer.line(f"names = {variable}")
        writer.require(self._condition, self, "MISSING")

    def show(self) -> str:
        """Which ones is not said: an attribute has come or gone."""
        return "others"


class _Names(Pattern):
    """Names of arguments, for reasons."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names, "arguments")

    def show(self) -> str:
        """One after the other."""
        return ", ".join(self.value) or "none"


#: Guards of what is run for arrays that are at hand: nothing is looked at.
UNGUARDED = Guards(SequencePattern([], "arguments", []), Mapping({}, "arguments", [], []), [], [], [], False)

__all__ = ["UNGUARDED", "Difference", "Guards", "Missing", "Same", "Serve", "Writer", "settled"]
