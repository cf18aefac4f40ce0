"""What a traced function depends on besides its arguments and cells: numbers and objects in closures and globals.

Looked at: the variables that the function's code names, attributes of the objects behind them that the code
names too, and the same for the user's functions, methods and modules that it calls. Containers are looked into
and arrays compared by content up to a size, beyond it by identity. What is reached in other ways (an entry of a
long list, an attribute of an object in it) is taken as it was when the function was traced.
Knows nothing of graphs being compiled.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..errors import PACKAGE_FOLDER
from ..graph import Node
from ..pytree import flatten
from ..tensor import Tensor

# Containers with more leaves are compared by identity and length.
_MOST_LEAVES = 64
# Arrays with more bytes are compared by identity.
_MOST_BYTES = 1 << 20
# Objects whose attributes are looked at, at most.
_MOST_OBJECTS = 200

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


class Same:
    """An object that equals only itself, held so that its identity is not given to another."""

    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.held is self.held

    def __hash__(self) -> int:
        return id(self.held)

    def __repr__(self) -> str:
        return type(self.held).__name__


class Watched(NamedTuple):
    """A variable or attribute: how the code calls it, and how to look at it."""

    name: str
    look: Callable[[], Any]


_MISSING = object()


def snapshot(value: Any) -> Any:
    """Something that compares equal as long as the value means the same to a traced function."""
    if isinstance(value, _PLAIN):
        return type(value).__name__, repr(value)
    if isinstance(value, Tensor):
        if value.cell is not None or value.requires_grad:
            return Same(value), Same(value.cell or value.node)
        return Same(value), value.dtype, value.shape  # its numbers are an input
    if isinstance(value, np.ndarray):
        if value.nbytes > _MOST_BYTES:
            return Same(value)
        content = hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=16).hexdigest()
        return value.dtype.str, value.shape, content
    if type(value) in (list, tuple, dict):
        return _container(value)
    return Same(value)


def _container(value: Any) -> Any:
    if len(value) <= _MOST_LEAVES:
        leaves, _ = flatten(value)
        if len(leaves) <= _MOST_LEAVES:
            keys = tuple(map(repr, value)) if isinstance(value, dict) else len(value)
            return (
                type(value).__name__,
                keys,
                tuple(
                    Same(leaf) if isinstance(leaf, np.ndarray | list | tuple | dict) else snapshot(leaf)
                    for leaf in leaves
                ),
            )
    return Same(value), len(value)


def identities(watched: list[tuple[Watched, Any]]) -> list[tuple[Callable[[], Any], Any]] | None:
    """(how to look, the object that must be there), if that is all that has to be compared; otherwise None."""
    found = []
    for one, before in watched:
        value = one.look()
        if isinstance(before, Same):
            found.append((one.look, before.held))
        elif isinstance(value, Tensor) and isinstance(before, tuple) and isinstance(before[0], Same):
            if value.cell is None:
                return None
            found.append((one.look, value))
        elif isinstance(value, int | float | str | type(None)) and snapshot(value) == before:
            found.append((one.look, value))
        else:
            return None
    return found


def captured_tensors(watched: list[Watched]) -> list[Tensor]:
    """Tensors behind the variables whose numbers can be inputs: without a cell, without a gradient."""
    found: dict[int, Tensor] = {}
    for one in watched:
        value = one.look()
        leaves = [value]
        if type(value) in (list, tuple, dict) and len(value) <= _MOST_LEAVES:
            leaves = flatten(value)[0][: _MOST_LEAVES + 1]
        for leaf in leaves:
            given = isinstance(leaf, Tensor) and leaf.cell is None and not leaf.requires_grad
            if given and leaf.node.value is not None:
                found[id(leaf)] = leaf
    return list(found.values())


# ------------------------------------------------------------------------------------ what code names


def watch(function: Any, arguments: Iterable[Any] = ()) -> list[Watched]:
    """The variables and attributes that the function depends on, those of objects among its arguments too."""
    search = _Search()
    search.enter(function)
    for one in getattr(function, "__depends__", ()):  # what a function of this package calls of the user's
        search.enter(one)
    for one in arguments:
        if _has_attributes(one):
            search.objects.setdefault(id(one), (type(one).__name__, one))
    return search.finish()


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code and that of the functions written inside it."""
    yield code
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield from _codes(one)


class _Search:
    def __init__(self) -> None:
        self.found: dict[tuple[int, str], Watched] = {}
        self.names: dict[str, None] = {"forward": None}
        self.objects: dict[int, tuple[str, Any]] = {}
        self.functions: set[types.FunctionType] = set()

    def enter(self, function: Any) -> None:
        """A function, a bound method, or an object that can be called; what decorators wrap comes first."""
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self.enter(wrapped)
        if isinstance(function, types.MethodType):
            self.objects.setdefault(id(function.__self__), ("self", function.__self__))
            function = function.__func__
        if not isinstance(function, types.FunctionType):
            self.objects.setdefault(id(function), ("self", function))
            function = type(function).__call__
        if isinstance(function, types.FunctionType):
            self.follow(function)

    def follow(self, function: types.FunctionType) -> None:
        """Variables of one function, if the user has written it."""
        if function in self.functions or not _is_users(function.__code__.co_filename):
            return
        self.functions.add(function)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            self.add(name, id(cell), lambda cell=cell: _content(cell))  # type: ignore[misc]
        for code in _codes(function.__code__):
            for name in code.co_names:
                self.names.setdefault(name)
                if name in function.__globals__:
                    space = function.__globals__
                    self.add(name, id(space), lambda space=space, name=name: space.get(name, _MISSING))  # type: ignore[misc]

    def add(self, name: str, owner: int, look: Callable[[], Any]) -> None:
        """Watch one variable, and what stands behind it."""
        if (owner, name) in self.found:
            return
        self.found[owner, name] = Watched(name, look)
        value = look()
        if isinstance(value, types.FunctionType):
            self.follow(value)
        elif _has_attributes(value):
            self.objects.setdefault(id(value), (name, value))

    def finish(self) -> list[Watched]:
        """Attributes of the objects, then everything that was found."""
        done: set[int] = set()
        while len(done) < _MOST_OBJECTS:
            waiting = [key for key in self.objects if key not in done]
            if not waiting:
                break
            key = waiting[0]
            done.add(key)
            label, value = self.objects[key]
            for part in _parts(value):
                self.objects.setdefault(id(part), (label, part))
            for hook in _hooks(value):
                self.enter(hook)
            space = getattr(value, "__dict__", {})
            for name in [name for name in self.names if name in space]:
                self.add(
                    f"{label}.{name}",
                    id(space),
                    lambda space=space, name=name: space.get(name, _MISSING),  # type: ignore[misc]
                )
            for name in list(self.names):
                method = getattr(type(value), name, None)
                if isinstance(method, types.FunctionType):
                    self.follow(method)
        return list(self.found.values())


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def _parts(value: Any) -> list[Any]:
    """The modules inside a neural network's module."""
    modules = getattr(type(value), "modules", None)
    return list(value.modules()) if isinstance(modules, types.FunctionType) else []


def _hooks(value: Any) -> list[Any]:
    """The functions that a neural network's module calls besides its own."""
    hooks = getattr(type(value), "hook_functions", None)
    return list(value.hook_functions()) if isinstance(hooks, types.FunctionType) else []


def _has_attributes(value: Any) -> bool:
    """Objects of users' classes and users' modules; not classes, not other libraries."""
    if isinstance(value, type | Tensor | Node | np.ndarray | np.generic) or not hasattr(value, "__dict__"):
        return False
    if isinstance(value, types.ModuleType):
        file = getattr(value, "__file__", None)
        return file is not None and _is_users(file)
    return not isinstance(value, types.BuiltinFunctionType)


_LIBRARIES = tuple(
    {
        PACKAGE_FOLDER,
        *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)


def _is_users(file: str) -> bool:
    """Whether a file is the user's own: not this package's, not a library's."""
    return not file.startswith((*_LIBRARIES, "<frozen ")) and "site-packages" not in file
