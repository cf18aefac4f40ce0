"""Places outside a traced function that have names: attributes, variables of modules and closures, defaults, slots.

A space can be read, compared with what it was, and put back. Which of its names count, the caller says.
Knows Python's objects; knows nothing of tensors.
"""

from __future__ import annotations

import abc
import types
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..structure import bump_structure
from .frames import is_own_module

if TYPE_CHECKING:
    from .guards import Writer
    from .patterns import Pattern


class _Missing:
    """Nothing of this name."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "nothing"


MISSING = _Missing()


class Space(ABC):
    """Names and their values, of one owner.

    `before`: what there was. `patterns`: what is known of the names that were looked at. `guarded`: those of them that
    each call compares.
    """

    def __init__(self, owner: Any, label: str) -> None:
        self.owner = owner
        self.label = label
        self.before = self.content()
        # What is there while the function is traced, where something was put in place of a value.
        self.planted = dict(self.before)
        self.patterns: dict[str, Pattern] = {}
        self.guarded: dict[str, Pattern] = {}
        # Names that are not there, and must not come.
        self.absent: frozenset[str] = frozenset()
        # Whether there must be the same names, because code can make up which ones it asks for.
        self.exact = False

    def name_of(self, name: str) -> str:
        """What the user calls a place."""
        return f"{self.label}.{name}" if self.label else name

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """All names and values now."""

    @abstractmethod
    def assign(self, name: str, value: Any) -> None:
        """Put a value there; MISSING takes it away."""

    @abstractmethod
    def source(self, writer: Writer) -> Iterator[tuple[str, str]]:
        """(name, expression) for each guarded name."""

    def write(self, writer: Writer) -> None:
        """The lines that guard this space."""
        for name, expression in self.source(writer):
            writer.root(self.guarded[name], expression)

    def watch_writes(self, names: Iterable[str]) -> None:
        """Code can write these names; of most spaces every name counts."""
        del names

    def changes(self) -> dict[str, Any]:
        """Names whose value is another one than before or than what was planted, with the value now."""
        now = self.content()
        found = {}
        for name in {**self.planted, **now}:
            value = now.get(name, MISSING)
            if value is not self.planted.get(name, MISSING):
                found[name] = value
        return found

    def restore(self) -> None:
        """Put everything back."""
        now = self.content()
        for name in {**now, **self.before}:
            value = self.before.get(name, MISSING)
            if now.get(name, MISSING) is not value:
                self.assign(name, value)

    def plant(self, name: str, value: Any) -> None:
        """Put something in place of a value while the function is traced."""
        self.planted[name] = value
        self.assign(name, value)


class Variables(Space):
    """The variables of a module."""

    def __init__(self, owner: Any, label: str) -> None:
        super().__init__(owner, label)
        self._written: set[str] = set()

    def watch_writes(self, names: Iterable[str]) -> None:
        """Code can write these."""
        self._written.update(names)

    def content(self) -> dict[str, Any]:
        """Its namespace."""
        return dict(self.owner)

    def assign(self, name: str, value: Any) -> None:
        """As a statement of the module would."""
        if value is MISSING:
            self.owner.pop(name, None)
        else:
            self.owner[name] = value

    def changes(self) -> dict[str, Any]:
        """What no code that runs can write, somebody else has written meanwhile: another thread, the interpreter."""
        return {name: value for name, value in super().changes().items() if name in self._written}

    def restore(self) -> None:
        """Likewise."""
        for name in self.changes():
            self.assign(name, self.before.get(name, MISSING))
        for name, value in self.planted.items():
            if value is not self.before[name] and self.owner.get(name) is value:
                self.assign(name, self.before[name])

    def source(self, writer: Writer) -> Iterator[tuple[str, str]]:
        """Looked up in the namespace."""
        space = writer.bind(self.owner)
        for name in self.guarded:
            yield name, f"{space}.get({name!r}, MISSING)"

    def write(self, writer: Writer) -> None:
        """A variable that is new would hide a builtin."""
        super().write(writer)
        write_names(self, writer, self.owner, writer.bind(self.owner))


def counts(owner: Any) -> bool:
    """Whether an object counts each write of an attribute of its own."""
    return any(is_own_module(one.__module__) and "__setattr__" in vars(one) for one in type(owner).__mro__)


class Attributes(Space):
    """What stands in an object's own dict."""

    def __init__(self, owner: Any, label: str) -> None:
        # A module or an optimizer counts the writes of its attributes, and whoever relies on them looks at the count.
        self.counted = counts(owner)
        self._space: dict[str, Any] = vars(owner)
        super().__init__(owner, label)

    def content(self) -> dict[str, Any]:
        """Its dict."""
        return dict(self._space)

    def assign(self, name: str, value: Any) -> None:
        """Past the class's own __setattr__, which may do more."""
        if value is MISSING:
            self._space.pop(name, None)
        else:
            self._space[name] = value

    def source(self, writer: Writer) -> Iterator[tuple[str, str]]:
        """Looked up in the dict; what is not there must not come, for it would hide what the class has."""
        space = writer.bind(self._space)
        for name in self.guarded:
            yield name, f"{space}.get({name!r}, MISSING)"

    def write(self, writer: Writer) -> None:
        """Names that are absent are compared in one go."""
        super().write(writer)
        held = f"{writer.bind(self.owner)}.__dict__"
        if self.guarded:
            writer.names_of(held, f"names is {writer.bind(self._space)}", f"the attributes of {self.label}")
        write_names(self, writer, self._space, held)

    def restore(self) -> None:
        """Layers count that too: what is again as it was is no difference for those who rely on it."""
        changes = self.changes() if self.counted else {}
        super().restore()
        for name, value in changes.items():
            self.count(name, value)

    def count(self, name: str, before: Any) -> None:
        """Say that an attribute was written, under the name by which its owner says so."""
        now = self._space.get(name, ...)
        label = f"{getattr(self.owner, 'path', '') or type(self.owner).__name__}.{name}"
        bump_structure(self.owner, label, ... if before is MISSING else before, now)


def write_names(space: Space, writer: Writer, names: Any, source: str) -> None:
    """The line that looks for names which must not have come, or gone."""
    if space.exact:
        expected = frozenset(space.before) | (OF_PYTHON & frozenset(names))
        condition = f"names.keys() == {writer.bind(expected)}"
    elif space.absent:
        condition = f"names.keys().isdisjoint({writer.bind(space.absent)})"
    else:
        return
    writer.names_of(source, condition, f"the attributes of {space.label}")


class Slots(Space):
    """What stands in the slots of an object's class."""

    def content(self) -> dict[str, Any]:
        """Slots that are set."""
        found = {}
        for name, descriptor in slots_of(type(self.owner)).items():
            try:
                found[name] = descriptor.__get__(self.owner)
            except AttributeError:
                continue
        return found

    def assign(self, name: str, value: Any) -> None:
        """Through the slot itself, so that frozen classes can be put back too."""
        descriptor = slots_of(type(self.owner))[name]
        if value is MISSING:
            descriptor.__delete__(self.owner)
        else:
            descriptor.__set__(self.owner, value)

    def source(self, writer: Writer) -> Iterator[tuple[str, str]]:
        """Through the slot."""
        owner = writer.bind(self.owner)
        for name in self.guarded:
            read = writer.bind(_reader(type(self.owner), name))
            yield name, f"{read}({owner})"


def slots_of(kind: type) -> dict[str, Any]:
    """The slots of a class and its bases, by name."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if "__slots__" not in vars(base):  # what a class written in C keeps has such descriptors too
            continue
        for name, value in vars(base).items():
            if isinstance(value, types.MemberDescriptorType):
                found[name] = value
    return found


def held_by(value: Any) -> dict[str, Any]:
    """All that an object holds: in its dict, and in slots that are set."""
    found = dict(getattr(value, "__dict__", ()))
    for name, descriptor in slots_of(type(value)).items():
        try:
            found[name] = descriptor.__get__(value)
        except AttributeError:
            continue
    return found


def hold(value: Any, held: dict[str, Any]) -> None:
    """Let an object hold just that, past what its class does when attributes are written."""
    slots = slots_of(type(value))
    for name in held_by(value):
        if name not in held:
            object.__delattr__(value, name)
    for name, one in held.items():
        if name in slots:
            slots[name].__set__(value, one)
        else:
            vars(value)[name] = one


def _reader(kind: type, name: str) -> Any:
    descriptor = slots_of(kind)[name]

    def read(owner: Any) -> Any:
        try:
            return descriptor.__get__(owner)
        except AttributeError:
            return MISSING

    return read


class ClassAttributes(Space):
    """What stands in a class itself."""

    def content(self) -> dict[str, Any]:
        """Its dict, without what Python keeps there for itself."""
        return {name: value for name, value in vars(self.owner).items() if name not in OF_PYTHON}

    def assign(self, name: str, value: Any) -> None:
        """As `Class.name = value` does, past a metaclass."""
        if value is MISSING:
            type.__delattr__(self.owner, name)
        else:
            type.__setattr__(self.owner, name, value)

    def source(self, writer: Writer) -> Iterator[tuple[str, str]]:
        """Looked up in the class's dict, of which Python gives a view."""
        space = writer.bind(vars(self.owner))
        for name in self.guarded:
            yield name, f"{space}.get({name!r}, MISSING)"

    def write(self, writer: Writer) -> None:
        """A name that is new in a class may hide one of its bases."""
        super().write(writer)
        write_names(self, writer, vars(self.owner), writer.bind(vars(self.owner)))


class Kind(Space):
    """What an object is an instance of, and what a class is derived from: Python lets both be changed."""

    def __init__(self, owner: Any, label: str) -> None:
        self.name = "__bases__" if isinstance(owner, type) else "__class__"
        super().__init__(owner, label)

    def content(self) -> dict[str, Any]:
        """The class, or the bases."""
        return {self.name: getattr(self.owner, self.name) if self.name == "__bases__" else type(self.owner)}

    def assign(self, name: str, value: Any) -> None:
        """Past the class's own __setattr__."""
        (type if name == "__bases__" else object).__setattr__(self.owner, name, value)

    def source(self, writer: Writer) -> Iterator[tuple[str, str]]:
        """Asked for without the class's own `__class__`, which may say something else."""
        owner = writer.bind(self.owner)
        for name in self.guarded:
            yield name, f"{owner}.__bases__" if name == "__bases__" else f"type({owner})"


class Cached(Space):
    """What a function keeps that remembers its results: nobody can look at it, but see when all was forgotten."""

    def content(self) -> dict[str, Any]:
        """Nothing that could be put back."""
        return {}

    def assign(self, name: str, value: Any) -> None:
        """What is remembered stays."""

    def source(self, writer: Writer) -> Iterator[tuple[str, str]]:
        """No names."""
        yield from ()

    def write(self, writer: Writer) -> None:
        """As often as now the function has run; it starts from 0 when all is forgotten."""
        ran = writer.bind(self.owner.cache_info)
        condition = f"names.misses >= {self.owner.cache_info().misses}"
        writer.names_of(f"{ran}()", condition, f"what {self.label} remembers")


class Registrations(Space):
    """How often a class was registered with an abstract one: each time, `isinstance` may answer otherwise."""

    def content(self) -> dict[str, Any]:
        """Python's own count of them, for all abstract classes together."""
        return {"": abc.get_cache_token()}

    def assign(self, name: str, value: Any) -> None:
        """What was registered stays."""

    def source(self, writer: Writer) -> Iterator[tuple[str, str]]:
        """Asked for."""
        for name in self.guarded:
            yield name, f"{writer.bind(abc.get_cache_token)}()"


OF_PYTHON = {
    "__dict__", "__weakref__", "__module__", "__doc__", "__annotations__", "__abstractmethods__", "_abc_impl",
    "__parameters__", "__orig_bases__", "__static_attributes__", "__firstlineno__", "__qualname__",
}  # fmt: skip


class Closure(Space):
    """One variable of a closure."""

    def __init__(self, owner: types.CellType, label: str) -> None:
        super().__init__(owner, label)

    def name_of(self, name: str) -> str:
        """The variable's own name."""
        return self.label

    def content(self) -> dict[str, Any]:
        """The value under an empty name; nothing where it is not bound yet."""
        try:
            return {"": self.owner.cell_contents}
        except ValueError:
            return {}

    def assign(self, name: str, value: Any) -> None:
        """As the function that the variable belongs to would."""
        if value is MISSING:
            del self.owner.cell_contents
        else:
            self.owner.cell_contents = value

    def source(self, writer: Writer) -> Iterator[tuple[str, str]]:
        """Read directly; an empty one raises ValueError, which no call survives."""
        for name in self.guarded:
            yield name, f"{writer.bind(self.owner)}.cell_contents"


class Defaults(Space):
    """The default arguments of a function."""

    _NAMES = ("__defaults__", "__kwdefaults__", "__code__")

    def content(self) -> dict[str, Any]:
        """Both kinds, and the code."""
        return {name: getattr(self.owner, name) for name in self._NAMES}

    def assign(self, name: str, value: Any) -> None:
        """As an attribute of the function."""
        setattr(self.owner, name, value)

    def write(self, writer: Writer) -> None:
        """Most functions have no defaults: one comparison tells that, and that the code is still the same."""
        if self.owner.__defaults__ is None and self.owner.__kwdefaults__ is None:
            code = f"names.__code__ is {writer.bind(self.owner.__code__)}"
            condition = f"{code} and names.__defaults__ is None and names.__kwdefaults__ is None"
            writer.names_of(writer.bind(self.owner), condition, f"the defaults of {self.label}")
        else:
            super().write(writer)

    def source(self, writer: Writer) -> Iterator[tuple[str, str]]:
        """Attributes of the function."""
        function = writer.bind(self.owner)
        for name in self.guarded:
            yield name, f"{function}.{name}"


class Context(Space):
    """A context variable: what it holds in the context of the call."""

    def name_of(self, name: str) -> str:
        """The variable's own name."""
        return self.label

    def content(self) -> dict[str, Any]:
        """The value under an empty name."""
        return {"": self.owner.get(MISSING)}

    def assign(self, name: str, value: Any) -> None:
        """Set in the context of the call."""
        self.owner.set(value)

    def source(self, writer: Writer) -> Iterator[tuple[str, str]]:
        """Asked for."""
        for name in self.guarded:
            yield name, f"{writer.bind(self.owner)}.get(MISSING)"
