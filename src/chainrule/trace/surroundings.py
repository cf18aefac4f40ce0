"""Everything of the user's that a traced function can reach by name, from before it runs until all is put back.

Code that runs names attributes and variables; objects that are reached by these names are looked at, and so are the
objects in them. What a name held before the code could change it is its pattern; tensors there become inputs. What is
different after the function has returned is what it has written.
Knows Python's objects, tensors and patterns; knows nothing of graphs and of engines.
"""

from __future__ import annotations

import array
import dataclasses
import dis
import functools
import gc
import io
import types
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

import numpy as np

from ..dtypes import as_dtype
from ..errors import PACKAGE_FOLDER, GradientError, Origin
from ..graph import Node, state
from ..operations import INPUT, Type
from ..tensor import Tensor, wrap
from ..tensor.number import TracedNumber
from . import patterns as pt
from .frames import (
    Names,
    RandomState,
    is_own_module,
    is_suspicious,
    is_user_file,
    is_user_module,
    known_names,
    may_read,
)
from .patterns import PLAIN, Container, Pattern
from .spaces import (
    MISSING,
    OF_PYTHON,
    Attributes,
    ClassAttributes,
    Closure,
    Defaults,
    Slots,
    Space,
    Variables,
    slots_of,
)
from .templates import Assign, Effect, fill

_BYTES = (bytearray, array.array, memoryview)
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
# What a module of layers keeps for itself.
_OF_MODULES = {"_kinds", "_parent", "_hooks", "training"}


class Handle:
    """A tensor that the trace has met: what it stood for before, and the pattern that hands it to calls."""

    __slots__ = ("before", "owner", "pattern", "planted", "tensor")

    def __init__(self, tensor: Tensor, pattern: Pattern) -> None:
        self.tensor = tensor
        self.pattern = pattern
        self.before = tensor._node, tensor._cell, tensor._grad
        self.planted = self.before
        # A NumPy array of the caller's that the tensor stands in for.
        self.owner: Any = None

    def plant(self, node: Node | None = None, grad: Tensor | None = None) -> None:
        """Let the tensor stand for other nodes while the function runs."""
        if node is not None:
            self.tensor._node = node
        if grad is not None:
            self.tensor._grad = grad
        self.planted = self.tensor._node, self.tensor._cell, self.tensor._grad

    def restore(self) -> None:
        """Let it stand for what it stood for."""
        self.tensor._node, self.tensor._cell, self.tensor._grad = self.before


class Surroundings:
    """What one run of a function can reach. dynamic: keys of numbers that are inputs."""

    def __init__(self, dynamic: frozenset[Any]) -> None:
        self.inputs: list[Node] = []
        self.numbers: dict[Node, Any] = {}
        self.spaces: list[Space] = []
        self.containers: list[Container] = []
        self.handles: dict[int, Handle] = {}
        # Inputs that the last call has computed from what requires grad, and where they are.
        self.cut: dict[Node, str] = {}
        self.random = RandomState()
        self._arrays: list[pt.Contents] = []
        self.names: set[str] = set()
        self.everything = False
        self.growing: set[str] = set()
        self.reading: set[str] = set()
        # Whether code names something that may be no computation.
        self.suspicious = False
        self.problems: list[tuple[str, str]] = []
        # Containers that are reached, but not from a place with a name: what a partial was made with, for example.
        self.anchors: list[Pattern] = []
        self._dynamic = dynamic
        self._patterns: dict[int, Pattern] = {}
        self._held: list[Any] = []
        self._spaces: dict[tuple[int, type], Space] = {}
        self._reached: set[int] = set()
        self._ran: dict[int, bool] = {}
        self._codes: list[types.CodeType] = []
        # Modules that code can reach as objects, by the identity of their spaces.
        self._modules: set[int] = set()
        self._busy = False

    # ------------------------------------------------------------------------------- values

    def look(self, value: Any, label: str, key: Any, argument: bool = False) -> tuple[Pattern, Any]:
        """The pattern of a value, and what stands in its place while the function runs."""
        if isinstance(value, PLAIN):
            return self._plain(value, label, key)
        first = self._patterns.get(id(value))
        if first is not None:
            stand_in = value
            if isinstance(first, pt.Given):
                stand_in = first.handle
            return pt.Again(value, label, first), stand_in
        self._held.append(value)
        found, stand_in = self._new(value, label, key, argument)
        self._patterns[id(value)] = found
        return found, stand_in

    def _plain(self, value: Any, label: str, key: Any) -> tuple[Pattern, Any]:
        if key in self._dynamic and type(value) in (int, float):
            dtype = np.dtype(np.float64 if type(value) is float else np.int64)
            if type(value) is float or -(1 << 63) <= value < 1 << 63:
                node = self._input(Type((), dtype))
                self.numbers[node] = key
                return pt.Number(value, label, key, node), TracedNumber(node)
        found = pt.Plain(value, label)
        found.key = key
        return found, value

    def _input(self, type: Type) -> Node:
        node = Node(INPUT, type=(type,))
        self.inputs.append(node)
        return node

    def _new(self, value: Any, label: str, key: Any, argument: bool) -> tuple[Pattern, Any]:
        if isinstance(value, Tensor):
            return self._tensor(value, label, argument), value
        if isinstance(value, np.ndarray | np.generic):
            return self._array(value, label, argument)
        if isinstance(value, _BYTES):
            found = pt.Bytes(value, label)
            return self._container(found, list(value), value), value
        if isinstance(value, dict):
            return self._dict(value, label, key, argument)
        if isinstance(value, list | tuple | deque):
            return self._sequence(value, label, key, argument)
        if isinstance(value, set | frozenset):
            return self._container(pt.Group(value, label), list(value), value), value
        if argument and dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._fields(value, label, key)
        self.reach(value, label)
        return pt.Same(value, label), value

    # ------------------------------------------------------------------------------- tensors and arrays

    def _tensor(self, value: Tensor, label: str, argument: bool) -> Pattern:
        if value._cell is not None:
            leaf = pt.Leaf(value, label)
            return leaf
        node = value.node
        if node.requires_grad:
            if argument and state.grad_enabled:
                raise GradientError(
                    f"a compiled step takes tensors as plain numbers; got {value.dtype.name}{value.shape} that depends "
                    "on tensors with requires_grad=True. Compute it inside the step, or pass x.detach()"
                )
            return self._history(value, label)
        if node.value is None:  # of another trace that runs around this one
            return pt.Same(value, label)
        held = pt.Held(value, label, self._input(Type(tuple(value.shape), as_dtype(value.dtype))))
        if held.cut:
            self.cut[held.node] = label
        handle = self.handles[id(value)] = Handle(value, held)
        handle.plant(held.node)
        return held

    def _history(self, value: Tensor, label: str) -> Pattern:
        grad = value._grad
        node = None if grad is None else self._input(grad.node.type)
        pattern = pt.History(value, label, value.node, node)
        handle = self.handles[id(value)] = Handle(value, pattern)
        if node is not None:
            handle.plant(grad=wrap(node))
        return pattern

    def _array(self, value: Any, label: str, argument: bool) -> tuple[Pattern, Any]:
        if not argument:
            if isinstance(value, np.generic):
                return pt.Scalar(value, label), value
            contents = pt.Contents(value, label)
            self._arrays.append(contents)
            return contents, value
        node = self._input(Type(tuple(value.shape), as_dtype(value.dtype)))
        stand_in = wrap(node)
        given = pt.Given(value, label, node, stand_in)
        handle = self.handles[id(stand_in)] = Handle(stand_in, given)
        handle.owner = value
        return given, stand_in

    # ------------------------------------------------------------------------------- containers

    def _container(self, found: Container, planted: Any, value: Any) -> Container:
        found.before = dict(value) if isinstance(value, dict) else list(value)
        found.planted = planted
        self.containers.append(found)
        if is_user_module(type(value).__module__) or slots_of(type(value)):
            self._owner(value, found.label)
            found.itself = bool(getattr(value, "__dict__", None))
        return found

    def _items(
        self, pairs: Iterator[tuple[Any, Any]], label: str, key: Any, argument: bool, form: str
    ) -> tuple[list[Pattern], list[Any]]:
        found, planted = [], []
        for name, item in pairs:
            below = (*key, name) if isinstance(key, tuple) and isinstance(name, str | int) else None
            pattern, stand_in = self.look(item, label + form.format(name), below, argument)
            found.append(pattern)
            planted.append(stand_in)
        return found, planted

    def _sequence(self, value: Any, label: str, key: Any, argument: bool) -> tuple[Pattern, Any]:
        found = pt.Sequence(value, label, [])
        self._patterns[id(value)] = found  # a list that holds itself
        found.items, planted = self._items(iter(enumerate(value)), label, key, argument, "[{!r}]")
        self._container(found, planted, value)
        changed = any(one is not other for one, other in zip(planted, value))
        if not isinstance(value, tuple):
            if changed:
                for k, one in enumerate(planted):
                    value[k] = one
            return found, value
        if not changed:
            return found, value
        made = tuple.__new__(type(value), planted)
        self._held.append(made)
        self._patterns[id(made)] = found
        return found, made

    def _dict(self, value: Any, label: str, key: Any, argument: bool) -> tuple[Pattern, Any]:
        found = pt.Mapping(value, label, list(value), [])
        self._patterns[id(value)] = found
        found.items, planted = self._items(iter(list(value.items())), label, key, argument, "[{!r}]")
        self._container(found, dict(zip(found.keys, planted)), value)
        for name, one in zip(found.keys, planted):
            if one is not found.before[name]:
                dict.__setitem__(value, name, one)
            if not isinstance(name, PLAIN):
                self._anchor(name, f"a key of {label}")
        return found, value

    def _fields(self, value: Any, label: str, key: Any) -> tuple[Pattern, Any]:
        own = {**getattr(value, "__dict__", {}), **dict.fromkeys(slots_of(type(value)))}
        names = [
            one.name for one in dataclasses.fields(value) if one.name in own and hasattr(value, one.name)
        ]
        found = pt.Fields(value, label, names, [])
        self._patterns[id(value)] = found
        held = [getattr(value, name) for name in names]
        found.items, planted = self._items(iter(zip(names, held)), label, key, True, ".{}")
        found.before, found.planted = held, planted
        self.containers.append(found)
        for name, one, other in zip(names, planted, held):
            if one is not other:
                object.__setattr__(value, name, one)
        self._class(type(value))
        return found, value

    # ------------------------------------------------------------------------------- what can be reached

    def reach(self, value: Any, label: str) -> None:
        """Objects that can be looked into further, by the names that code uses."""
        if id(value) in self._reached or isinstance(value, PLAIN):
            return
        self.suspicious = self.suspicious or is_suspicious(value)
        if isinstance(value, _OPAQUE):
            return
        self._reached.add(id(value))
        self._held.append(value)
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
        elif isinstance(value, weakref.ref):
            if (referent := value()) is not None:
                self._anchor(referent, label)
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
        elif not isinstance(value, io.IOBase):
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
        if is_user_file(file):
            self._space(Attributes, value, value.__name__)
            self._activate(value)
            self._run(value.__code__, value.__globals__, known_names(value.__code__), True)
            return
        if not file.startswith(PACKAGE_FOLDER):
            self._run(value.__code__, value.__globals__, known_names(value.__code__), False)
        self._callables([_content(one) for one in value.__closure__ or ()], value.__name__)

    def _anchor(self, value: Any, label: str) -> None:
        """Look at a value that cannot be replaced where it is; what is in it can."""
        found = self.look(value, label, None)[0]
        if not isinstance(found, pt.Same | pt.Plain | pt.Again):
            self.anchors.append(found)

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
        if self.everything and not isinstance(space, Variables):
            wanted = [name for name in space.before if not name.startswith("__")]
        for name in list(wanted):
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
        library = isinstance(space, Variables) and not is_user_module(space.owner.get("__name__"))
        if library and isinstance(
            value, types.FunctionType | type | types.ModuleType | types.BuiltinFunctionType
        ):
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
            if id(frame.f_code) not in self._ran:
                functions = [
                    one for one in gc.get_referrers(frame.f_code) if isinstance(one, types.FunctionType)
                ]
                self._run(frame.f_code, frame.f_globals, names, users)
                for one in functions:
                    self.reach(one, one.__name__)
                    if users:
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
            for name in set(variables.before) if names.namespace else names.variables:
                if not (names.namespace and name.startswith("__")):
                    self._watch(variables, name)
                    self.refuse_iterator(variables.before.get(name), name)
        for one in code.co_consts:
            if isinstance(one, types.CodeType):
                self._run(one, space, known_names(one), users)
        for one in list(self.spaces):
            if not isinstance(one, Variables) or id(one) in self._modules:
                self._scan(one, new)

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
        for handle in self.handles.values():
            handle.restore()
        for container in reversed(self.containers):
            _put_back(container)
        for space in self.spaces:
            space.restore()
        for one in self._arrays:
            if one.value.flags.writeable and not np.array_equal(one.value, one._copy):
                one.value[...] = one._copy
        if self.random.changed():
            self.random.restore()

    @property
    def pieces(self) -> int:
        """How many pieces of code are known to run."""
        return len(self._ran)

    def arrays_written(self) -> list[pt.Contents]:
        """NumPy arrays of the user's that the function has written into."""
        return [one for one in self._arrays if one.value.tobytes() != one._copy.tobytes()]

    def pattern_of(self, value: Any) -> Pattern | None:
        """The pattern of an object that was there before; None for one that the function has made."""
        return self._patterns.get(id(value))

    def was_there(self, value: Any) -> bool:
        """Whether an object is known to be from before."""
        return id(value) in self._reached or id(value) in self._patterns

    def is_shared(self, container: Container) -> bool:
        """Whether a container stands at several places."""
        places = [one for space in self.spaces for root in space.patterns.values() for one in root.parts()]
        return any(isinstance(one, pt.Again) and one.first is container for one in places)

    def guard(self, effects: list[Effect]) -> None:
        """Decide which names each call compares: of layers those that the step writes itself, or that nobody counts."""
        absent = frozenset(self.names) - OF_PYTHON
        for handle in self.handles.values():
            if isinstance(handle.pattern, pt.Held):
                handle.pattern.without_grad = "grad" in self.names and handle.before[2] is None
        written = {(id(one.space), one.name) for one in effects if isinstance(one, Assign)}
        for space in self.spaces:
            layer = isinstance(space, Attributes) and (_is_module(space.owner) or space.counted)
            for name, pattern in space.patterns.items():
                if layer and _is_counted(pattern) and (id(space), name) not in written:
                    continue
                space.guarded[name] = pattern
            if isinstance(space, Attributes | ClassAttributes) and not layer:
                space.absent = absent - space.before.keys()
                space.exact = self.everything


def is_iterator(value: Any) -> bool:
    """Whether taking from a value changes it in a way that nobody can see."""
    if isinstance(value, Tensor) or not hasattr(type(value), "__next__"):
        return False
    return isinstance(value, types.GeneratorType) or not is_user_module(type(value).__module__)


def _is_counted(pattern: Pattern) -> bool:
    """Whether a write to the place alone can change what stands there, and modules count those."""
    return isinstance(pattern, pt.Plain | pt.Same | pt.Leaf | pt.Missing)


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


def _put_back(container: Container) -> None:
    value = container.value
    if isinstance(value, tuple | frozenset):
        return
    if isinstance(container, pt.Fields):
        if _differ([getattr(value, name) for name in container.names], container.before):
            fill(value, tuple(container.names), container.before)
    elif isinstance(value, dict):
        before = container.before
        if len(value) != len(before) or _differ(value, before) or _differ(value.values(), before.values()):
            fill(value, tuple(container.before), list(container.before.values()))
    elif isinstance(value, set):
        if value != set(container.before):
            fill(value, None, container.before)
    elif len(value) != len(container.before) or _differ(value, container.before):
        fill(value, None, container.before)


def _differ(some: Any, others: Any) -> bool:
    return any(one is not other for one, other in zip(some, others))


__all__ = ["Handle", "Surroundings", "is_iterator"]
