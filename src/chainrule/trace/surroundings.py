"""Everything of the user's that a traced function can reach by name, from before it runs until all is put back.

Code that runs names attributes and variables; objects that are reached by these names are looked at, and so are the
objects in them. What a name held before the code could change it is its pattern; tensors there become inputs. What is
different after the function has returned is what it has written.
Knows Python's objects, tensors and patterns; knows nothing of graphs and of engines.
"""

from __future__ import annotations

import abc
import dis
import functools
import gc
import io
import operator
import os
import types
import weakref
from collections.abc import Iterable
from contextvars import ContextVar
from types import FrameType
from typing import Any

import numpy as np

from ..errors import PACKAGE_FOLDER, Origin
from ..tensor import Tensor
from . import patterns as pt
from .frames import (
    Names,
    OutsideState,
    is_own_module,
    is_suspicious,
    is_user_code,
    is_user_module,
    known_names,
    may_read,
)
from .patterns import PLAIN, Container, Pattern
from .spaces import (
    MISSING,
    OF_PYTHON,
    Attributes,
    Cached,
    ClassAttributes,
    Closure,
    Context,
    Defaults,
    Kind,
    Registrations,
    Slots,
    Space,
    Variables,
    counts,
    slots_of,
)
from .values import Values

_OPAQUE = (types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType, types.CodeType)
# Special methods that run when an object is made or goes, not when it is used.
_OF_MAKING = {
    "__init__",
    "__new__",
    "__post_init__",
    "__del__",
    "__init_subclass__",
    "__set_name__",
    "__reduce__",
}
# Objects in objects that are looked into at once; Python's own stack has an end.
_DEEPEST = 30
# What a module of layers keeps for itself.
_OF_MODULES = {"_kinds", "_parent", "_hooks", "training"}


class Surroundings(Values):
    """What one run of a function can reach. dynamic: keys of numbers that are inputs."""

    def __init__(self, dynamic: frozenset[Any]) -> None:
        super().__init__(dynamic)
        self.spaces: list[Space] = []
        self.random = OutsideState()
        self.names: set[str] = set()
        self.everything = False
        self.growing: set[str] = set()
        self.reading: set[str] = set()
        # Whether code names something that may be no computation.
        self.suspicious = False
        self.problems: list[tuple[str, str]] = []
        self._spaces: dict[tuple[int, type], Space] = {}
        self._reached: set[int] = set()
        self._ran: dict[int, bool] = {}
        self._codes: list[types.CodeType] = []
        # Modules that code can reach as objects, by the identity of their spaces.
        self._modules: set[int] = set()
        self._busy = False
        self._waiting: list[tuple[Any, str]] = []
        self._depth = 0

    # ------------------------------------------------------------------------------- what can be reached

    def reach(self, value: Any, label: str) -> None:
        """Objects that can be looked into further, by the names that code uses; what lies deep is looked at later."""
        if id(value) in self._reached or isinstance(value, PLAIN):
            return
        self.suspicious = self.suspicious or is_suspicious(value)
        if isinstance(value, _OPAQUE):
            return
        self._reached.add(id(value))
        self._held.append(value)
        self._waiting.append((value, label))
        if self._depth < _DEEPEST:
            self._depth += 1
            try:
                self._into(*self._waiting.pop())
                while self._depth == 1 and self._waiting:
                    self._into(*self._waiting.pop())
            finally:
                self._depth -= 1

    def _into(self, value: Any, label: str) -> None:
        """Look into one object, by its kind."""
        if isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.MethodType):
            self._anchor(value.__func__, label)
            self._anchor(value.__self__, "self")
        elif isinstance(value, functools.partial):
            for name in ("func", "args", "keywords"):
                self._anchor(getattr(value, name), f"{label}.{name}")
            self._spaces_of(value, label)
        elif isinstance(value, type):
            self._class(value, made=True)
        elif isinstance(value, types.ModuleType):
            self._module(value)
        elif isinstance(value, ContextVar):
            self._watch(self._space(Context, value, value.name), "")
        elif isinstance(value, operator.attrgetter | operator.methodcaller):
            parts = value.__reduce__()[1:]  # what it asks for stands in how it is copied
            self._learn(
                {name for part in parts for one in part if isinstance(one, str) for name in one.split(".")}
            )
        elif isinstance(value, weakref.ref):
            if (referent := value()) is not None:
                self._anchor(referent, label)
        elif isinstance(value, functools._lru_cache_wrapper):
            self._space(Cached, value, label)
            self._object(value, label)
        elif isinstance(value, staticmethod | classmethod):
            self.look(value.__func__, label, None)
        elif isinstance(value, property):
            for one in (value.fget, value.fset, value.fdel):
                self.look(one, label, None)
        elif isinstance(value, functools.cached_property | functools.partialmethod):
            self.look(value.func, label, None)
        elif not self.random.watch(value):
            self._object(value, label)

    def _object(self, value: Any, label: str) -> None:
        wrapped = (getattr(value, "__dict__", None) or {}).get("__wrapped__")
        if isinstance(wrapped, types.FunctionType):
            self.reach(wrapped, label)
        kind = type(value)
        if is_own_module(kind.__module__) and not _is_module(value):
            self._library_object(value, label)
        else:
            self._owner(value, label)
            if _is_module(value):
                self._layers(value, label)

    def _library_object(self, value: Any, label: str) -> None:
        """An object of this package: it looks after its own state, but may hold functions and objects of the user's."""
        if hasattr(value, "__dict__"):
            self._callables(list(vars(value).values()), label)

    def _layers(self, value: Any, label: str) -> None:
        """The layers inside one, and the functions that they call besides their own."""
        for path, module in value.named_modules():
            if module is not value:
                self.reach(module, f"{label}.{path}" if label else path)
        for hook in value.hook_functions():
            self.reach(hook, "hook")

    def _owner(self, value: Any, label: str) -> None:
        self._spaces_of(value, label)
        self._class(type(value))
        # Layers and optimizers count that as they count every attribute; nobody can change a class written in C.
        if is_user_module(type(value).__module__) and not counts(value):
            self._kind(value, label)

    def _kind(self, value: Any, label: str) -> None:
        space = self._space(Kind, value, label)
        space.patterns = {name: pt.Same(held, space.name_of(name)) for name, held in space.before.items()}

    def _spaces_of(self, value: Any, label: str) -> None:
        if isinstance(getattr(value, "__dict__", None), dict):
            self._space(Attributes, value, label)
        if slots_of(type(value)):
            self._space(Slots, value, label)

    def _class(self, kind: type, made: bool = False) -> None:
        """The classes of an object. made: objects of it may be made, so what makes them runs too."""
        # What is derived from a class of this package is called by it, under names that no code of the user's has.
        called = any(is_own_module(base.__module__) for base in kind.__mro__)
        for base in kind.__mro__:
            if is_user_module(base.__module__):
                space = self._space(ClassAttributes, base, base.__name__)
                self._kind(base, base.__name__)
                if isinstance(base, abc.ABCMeta):
                    self._watch(self._space(Registrations, abc.ABCMeta, "registered classes"), "")
                for name, value in space.before.items():
                    special = (called or name.startswith("__")) and isinstance(value, types.FunctionType)
                    if special and (made or name not in _OF_MAKING):
                        self._watch(space, name)
            elif not is_own_module(base.__module__) and id(base) not in self._reached:
                self._reached.add(id(base))
                for value in vars(base).values():
                    if isinstance(value, types.FunctionType):
                        self._run(value.__code__, value.__globals__, known_names(value.__code__), False)
        if type(kind) is not type and is_user_module(type(kind).__module__):
            self._class(type(kind))

    def _module(self, value: types.ModuleType) -> None:
        if not is_own_module(value.__name__):
            space = self._space(Variables, vars(value), value.__name__.rpartition(".")[2])
            if id(space) not in self._modules:
                self._modules.add(id(space))
                self._scan(space, self.names)

    def _function(self, value: types.FunctionType) -> None:
        """One that may run; of those of this package and of libraries only the functions of the user's in them."""
        for one in getattr(value, "__depends__", ()):  # what a function of this package calls of the user's
            self._anchor(one, "self")
        if wrapped := getattr(value, "__wrapped__", None):
            self._anchor(wrapped, value.__name__)
        file = value.__code__.co_filename
        if is_user_code(value.__code__, value.__globals__):
            self._space(Attributes, value, value.__name__)
            self._activate(value)
            self._run(value.__code__, value.__globals__, known_names(value.__code__), True)
            return
        if not file.startswith(PACKAGE_FOLDER):
            self._run(value.__code__, value.__globals__, known_names(value.__code__), False)
        self._callables([_content(one) for one in value.__closure__ or ()], value.__name__)
        registry = dict(zip(value.__code__.co_freevars, value.__closure__ or ())).get("registry")
        if (
            registry is not None and value.__module__ == "functools"
        ):  # of singledispatch: which type runs what
            self._anchor(_content(registry), f"{value.__name__}.registry")

    def _callables(self, values: Iterable[Any], label: str) -> None:
        """Functions and objects of the user's among what a library holds, also in its lists and dicts."""
        for one in values:
            parts = (
                one if isinstance(one, list | tuple) else one.values() if isinstance(one, dict) else (one,)
            )
            for part in list(parts)[:64]:
                if callable(part) or _is_users(part):
                    self._anchor(part, label)

    # ------------------------------------------------------------------------------- spaces and names

    def _space(self, kind: type[Space], owner: Any, label: str) -> Space:
        found = self._spaces.get((id(owner), kind))
        if found is None:
            found = self._spaces[id(owner), kind] = kind(owner, label)
            self._held.append(owner)
            self.spaces.append(found)
            if kind is Attributes and _is_module(owner):
                self._whole_layer(found)
            if kind is not Variables:
                self._scan(found, self.names)
        return found

    def _whole_layer(self, space: Space) -> None:
        """A layer of this package runs no code of the user's, but what it was given may be a list that they change."""
        if not is_own_module(type(space.owner).__module__):
            return
        for name, value in space.before.items():
            if name not in _OF_MODULES and isinstance(value, list | dict | set | np.ndarray):
                self._watch(space, name)

    def _scan(self, space: Space, names: Iterable[str]) -> None:
        wanted: Iterable[str] = names
        space.watch_writes(names)
        if self.everything and not isinstance(space, Variables):
            wanted = [name for name in space.before if not name.startswith("__")]
        for name in sorted(wanted):  # in an order that is the same in each process
            if name in space.before and name not in space.patterns:
                self._watch(space, name)

    def _watch(self, space: Space, name: str) -> None:
        """Look at what a name holds; what the function itself has put there since is no state from before."""
        if name in space.patterns or name not in space.before:
            return
        value = space.before[name]
        if space.content().get(name, MISSING) is not value:
            space.patterns[name] = pt.Missing(value, space.name_of(name))
            self._held.append(value)
            found: Pattern = self.look(value, space.name_of(name), None)[0]
            space.patterns[name] = found
            return
        library = isinstance(space, Variables) and not is_user_module(space.owner.get("__name__", "__main__"))
        if library and isinstance(value, types.FunctionType | types.BuiltinFunctionType):
            self.reach(value, name)
            return
        if library and isinstance(value, type | types.ModuleType):
            self.suspicious = self.suspicious or is_suspicious(value)
            return
        found, stand_in = self.look(value, space.name_of(name), (id(space.owner), name))
        space.patterns[name] = found
        if not isinstance(space, Variables | Closure):
            self.refuse_iterator(value, space.name_of(name))
        if stand_in is not value:
            space.plant(name, stand_in)

    # ------------------------------------------------------------------------------- code that runs

    def enter(self, frame: FrameType, names: Names, users: bool) -> None:
        """New code is about to run: what it names is looked at before it can change it."""
        if self._busy:
            return
        self._busy = True
        try:
            code = frame.f_code
            if id(code) in self._ran:
                return
            if not users:  # of a library's functions only the user's in them matter
                self._run(code, frame.f_globals, names, False)
                self._callables([frame.f_locals.get(name) for name in code.co_freevars], code.co_name)
                return
            # What a name leads to has been reached before; this walk over all objects is for functions that only a
            # library knows.
            functions = [one for one in gc.get_referrers(code) if isinstance(one, types.FunctionType)]
            self._run(code, frame.f_globals, names, True)
            for one in functions:
                self.reach(one, one.__name__)
                self._activate(one)
        finally:
            self._busy = False

    def _run(self, code: types.CodeType, space: dict[str, Any], names: Names, users: bool) -> None:
        """Code that may run: the names in it, and what they stand for."""
        if id(code) in self._ran:
            return
        self._ran[id(code)] = True
        self._codes.append(code)
        new = names.attributes - self.names
        self.names |= new
        if names.dynamic and users and not self.everything:
            self.everything = True
        self.growing |= names.growing
        self.reading |= names.reading
        self.suspicious = self.suspicious or may_read(names)
        if users:
            variables = self._space(Variables, space, "")
            variables.absent |= names.variables - variables.before.keys()
            variables.watch_writes(names.variables)
            for name in sorted(variables.before if names.namespace else names.variables):
                if not (names.namespace and name.startswith("__")):
                    self._watch(variables, name)
                    self.refuse_iterator(variables.before.get(name), name)
        for one in code.co_consts:
            if isinstance(one, types.CodeType):
                self._run(one, space, known_names(one), users)
        if "environ" in names.variables:
            self.reach(os.environ, "os.environ")
        self._learn(new)

    def _learn(self, names: Iterable[str]) -> None:
        """Look at attributes of these names, wherever they are."""
        self.names.update(names)
        for one in list(self.spaces):
            if not isinstance(one, Variables) or id(one) in self._modules:
                self._scan(one, names)

    def _activate(self, function: types.FunctionType) -> None:
        """A function that may run: its closure and its defaults."""
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            if (id(cell), Closure) in self._spaces:
                continue
            space = self._space(Closure, cell, name)
            self._watch(space, "")
            self.refuse_iterator(space.before.get(""), name)
        if (id(function), Defaults) not in self._spaces:
            space = self._space(Defaults, function, function.__name__)
            for name in ("__defaults__", "__kwdefaults__", "__code__"):
                self._watch(space, name)

    def refuse_iterator(self, value: Any, label: str) -> None:
        """Taking from an iterator changes it where nobody can see."""
        if is_iterator(value):
            self.problems.append((f"it takes from {label}, a {type(value).__name__} that moves on", label))

    def origin_of(self, label: str) -> Origin | None:
        """Where code names something."""
        name = label.rpartition(".")[2]
        for code in self._codes:
            for one in dis.get_instructions(code):
                if one.argval == name:
                    return Origin(code, one.offset)
        return None

    # ------------------------------------------------------------------------------- what is put back

    def restore(self) -> None:
        """Everything as it was before."""
        self._restore_values()
        for space in self.spaces:
            space.restore()
        if self.random.changed():
            self.random.restore()

    @property
    def pieces(self) -> int:
        """How many pieces of code are known to run."""
        return len(self._ran)

    def was_there(self, value: Any) -> bool:
        """Whether an object is known to be from before."""
        return id(value) in self._reached or id(value) in self._patterns

    def is_shared(self, container: Container) -> bool:
        """Whether a container stands at several places."""
        places = [one for space in self.spaces for root in space.patterns.values() for one in root.parts()]
        return any(isinstance(one, pt.Again) and one.first is container for one in places)

    def guard(self) -> None:
        """Decide which names each call compares: all that were looked at, and that others have not come."""
        absent = frozenset(self.names) - OF_PYTHON
        for handle in self.handles.values():
            if isinstance(handle.pattern, pt.Held):
                handle.pattern.without_grad = "grad" in self.names and handle.before[2] is None
        for space in self.spaces:
            layer = isinstance(space, Attributes) and (_is_module(space.owner) or space.counted)
            space.guarded.update(space.patterns)
            if isinstance(space, Attributes | ClassAttributes) and not layer:
                space.absent = absent - space.before.keys()
                space.exact = self.everything


def is_iterator(value: Any) -> bool:
    """Whether taking from a value changes it in a way that nobody can see."""
    if isinstance(value, Tensor | io.IOBase) or not hasattr(type(value), "__next__"):
        return False
    return isinstance(value, types.GeneratorType) or not is_user_module(type(value).__module__)


def _is_module(value: Any) -> bool:
    """A layer, or a network of them."""
    return hasattr(type(value), "hook_functions") and hasattr(type(value), "named_modules")


def _is_users(value: Any) -> bool:
    kind = type(value)
    return is_user_module(kind.__module__) and not isinstance(value, Tensor)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


__all__ = ["Surroundings", "is_iterator"]
