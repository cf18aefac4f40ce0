"""What a user's function may change besides tensors: objects, containers, classes and variables that it can reach.

A step is traced before it is compiled, and tracing runs it: a meter that it updates would keep a value that has no
numbers. So all that can be reached is remembered first, and put back afterwards.
Knows Python's objects; knows nothing of graphs and of training.
"""

from __future__ import annotations

import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .. import nn
from ..structure import bump_structure
from ..tensor import Tensor

# Objects that are looked at, at most: what is further away is left as it is.
_MOST = 10_000

_PACKAGE = __name__.partition(".")[0]
_MISSING = object()


class Reachable:
    """The state of all that can be reached from some objects and functions, at the time when this is made.

    >>> seen = []
    >>> state = Reachable([seen])
    >>> seen.append(1)
    >>> state.put_back(), seen
    ('a list that outlives the call', [])
    """

    def __init__(self, roots: Iterable[Any]) -> None:
        self._undo: list[tuple[str, Callable[[], bool], Callable[[], None]]] = []
        self._seen: dict[int, Any] = {}
        waiting = deque(roots)
        while waiting and len(self._seen) < _MOST:
            one = waiting.popleft()
            if id(one) not in self._seen:
                self._seen[id(one)] = one
                waiting.extend(self._look(one))

    def put_back(self) -> str | None:
        """Put everything back; what had changed, in words, or None."""
        changed = [(name, restore) for name, same, restore in self._undo if not same()]
        for _, restore in changed:
            restore()
        if changed:
            bump_structure(name="what a trial had changed was put back")
        return changed[0][0] if changed else None

    def _look(self, one: Any) -> Iterator[Any]:
        """Remember one object, and give what can be reached from it."""
        if isinstance(one, list | deque):
            yield from self._sequence(one)
        elif isinstance(one, dict):
            yield from self._mapping(f"a {type(one).__name__} that outlives the call", one)
        elif isinstance(one, set):
            self._set(one)
        elif isinstance(one, tuple):
            yield from one
        elif isinstance(one, types.MethodType):
            yield from (one.__func__, one.__self__)
        elif isinstance(one, types.FunctionType):
            yield from self._function(one)
        elif not isinstance(one, Tensor | types.ModuleType) and (
            isinstance(one, nn.Module) or not _is_library(one)
        ):
            yield from self._object(one)

    def _set(self, one: set[Any]) -> None:
        before = set(one)

        def restore() -> None:
            one.clear()
            one.update(before)

        self._undo.append(("a set that outlives the call", lambda: one == before, restore))

    def _sequence(self, one: Any) -> Iterator[Any]:
        before = list(one)

        def same() -> bool:
            return len(one) == len(before) and all(a is b for a, b in zip(one, before))

        def restore() -> None:
            one.clear()
            one.extend(before)

        self._undo.append((f"a {type(one).__name__} that outlives the call", same, restore))
        yield from before

    def _mapping(self, name: str, one: dict[Any, Any]) -> Iterator[Any]:
        before = dict(one)

        def same() -> bool:
            return len(one) == len(before) and all(
                one.get(key, _MISSING) is value for key, value in before.items()
            )

        def restore() -> None:
            one.clear()
            one.update(before)

        self._undo.append((name, same, restore))
        yield from before.values()

    def _object(self, one: Any) -> Iterator[Any]:
        kind = one if isinstance(one, type) else type(one)
        yield kind
        if isinstance(one, type):
            held = {name: value for name, value in vars(one).items() if not name.startswith("__")}
            for name, value in held.items():
                self._name(f"the attribute {name} of the class {one.__name__}", one, name, value)
            yield from held.values()
            return
        if isinstance(getattr(one, "__dict__", None), dict):
            yield from self._mapping(f"an attribute of {kind.__name__}", vars(one))
        for base in kind.__mro__:
            slots = base.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                value = getattr(one, name, _MISSING)
                self._name(f"the attribute {name} of {kind.__name__}", one, name, value)
                yield value
        if callable(one) and isinstance(call := getattr(kind, "__call__", None), types.FunctionType):  # noqa: B004
            yield call

    def _function(self, function: types.FunctionType) -> Iterator[Any]:
        """The variables that a function of the user's can reach: those around it and those of its module."""
        if _is_library(function):
            return
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            value = getattr(cell, "cell_contents", _MISSING)
            self._name(f"the variable {name}", cell, "cell_contents", value)
            yield value
        for name in _names(function.__code__):
            if name in function.__globals__:
                value = function.__globals__[name]
                self._variable(name, function.__globals__, value)
                yield value
        yield from function.__defaults__ or ()
        yield from (function.__kwdefaults__ or {}).values()

    def _name(self, told: str, holder: Any, name: str, value: Any) -> None:
        def same() -> bool:
            found = (
                vars(holder).get(name, _MISSING)
                if isinstance(holder, type)
                else getattr(holder, name, _MISSING)
            )
            return found is value

        def restore() -> None:
            if value is _MISSING:
                delattr(holder, name)
            else:
                setattr(holder, name, value)

        self._undo.append((told, same, restore))

    def _variable(self, name: str, variables: dict[str, Any], value: Any) -> None:
        self._undo.append((
            f"the variable {name}", lambda: variables.get(name, _MISSING) is value,
            lambda: variables.__setitem__(name, value),
        ))  # fmt: skip


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that a code uses, and those of functions inside it."""
    yield from code.co_names
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield from _names(one)


def _is_library(one: Any) -> bool:
    """Whether it is of this package, of Python or of what is installed, and not the user's."""
    kind = one if isinstance(one, type | types.FunctionType) else type(one)
    name = str(getattr(kind, "__module__", "") or "")
    if name.partition(".")[0] in (_PACKAGE, "builtins") or (
        name.partition(".")[0] in sys.stdlib_module_names and name != "__main__"
    ):
        return True
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file
