"""Nested dicts, lists, tuples, named tuples and dataclasses as flat lists of leaves, and back.

Subclasses are rebuilt as what they are, with the attributes that they had, and without running any code of their own:
what they check or count when they are made was checked and counted once. Knows nothing of what the leaves are. None is
a leaf-less node, everything unknown is a leaf.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import UserDict, UserList, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple


class Structure(NamedTuple):
    """How leaves are nested: a constructor, its keys, and the structures below. `LEAF` stands for one leaf.

    `note`: what else two of a kind may differ in.
    """

    make: Callable[[Sequence[Any]], Any]
    kind: type
    keys: tuple[Any, ...]
    children: tuple[Any, ...]
    note: Any = None


class Attribute(NamedTuple):
    """The key of what an object holds under a name; an entry of a dict by the same name is something else."""

    name: str

    def __str__(self) -> str:
        return self.name


LEAF = "leaf"

# Classes with this attribute are leaves, whatever they are made of.
ONE_LEAF = "__one_leaf__"

# Python's own records with names, such as `time.struct_time`, have this; they cannot be made entry by entry.
_FIXED = "n_sequence_fields"

# Python's mark of classes that are made by a class statement.
_MADE_IN_PYTHON = 1 << 9


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """(leaves, structure). Dicts keep the order of their keys.

    >>> flatten({"a": 1, "b": (2, None)})[0]
    [1, 2]
    """
    leaves: list[Any] = []
    return leaves, _describe(tree, leaves)


def _describe(tree: Any, leaves: list[Any]) -> Any:
    kind = type(tree)
    if tree is None:
        return Structure(lambda parts: None, kind, (), ())
    if kind is dict:
        keys = tuple(tree)
        parts = tuple([_describe(tree[key], leaves) for key in keys])
        return Structure(lambda parts: dict(zip(keys, parts)), kind, keys, parts)
    if kind is list or kind is tuple:
        return Structure(lambda parts: kind(parts), kind, (), tuple([_describe(x, leaves) for x in tree]))
    native = _native(kind)
    nested = native in (list, tuple) or issubclass(native, dict) or (native is object and _is_record(kind))
    if nested and not hasattr(kind, ONE_LEAF) and not hasattr(kind, _FIXED):
        return _described(tree, native, leaves)
    leaves.append(tree)
    return LEAF


def _native(kind: type) -> type:
    """The class of Python itself that objects of this kind are laid out as."""
    return next(base for base in kind.__mro__ if not base.__flags__ & _MADE_IN_PYTHON)


def _is_record(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) or issubclass(kind, UserDict | UserList)


def _described(tree: Any, native: Any, leaves: list[Any]) -> Structure:
    """An object of a class of somebody's own: its entries, and then its attributes."""
    kind = type(tree)
    held = _attributes(tree)
    entries: list[Any] = []
    keys: tuple[Any, ...] = ()
    if issubclass(native, dict):
        keys = tuple(native.__iter__(tree))
        entries = [native.__getitem__(tree, key) for key in keys]
    elif native is not object:
        entries = list(native.__iter__(tree))
        fields = getattr(kind, "_fields", ()) if native is tuple else ()
        keys = tuple(map(Attribute, fields)) or (tuple(range(len(entries))) if held else ())
    count = len(entries)
    factory = object.__getattribute__(tree, "default_factory") if native is defaultdict else None

    def make(parts: Sequence[Any]) -> Any:
        made = _blank(kind, native, keys, parts[:count])
        if native is defaultdict:
            object.__setattr__(made, "default_factory", factory)
        inside = getattr(made, "__dict__", {})
        for (name, in_dict), part in zip(held, parts[count:]):
            if in_dict:
                inside[name] = part
            else:
                object.__setattr__(made, name, part)
        return made

    values = [*entries, *held.values()]
    children = tuple([_describe(value, leaves) for value in values])
    names = [Attribute(name) for name, _ in held]
    return Structure(make, kind, (*keys, *names), children, None if factory is None else id(factory))


def _blank(kind: type, native: Any, keys: Sequence[Any], entries: Sequence[Any]) -> Any:
    """An object of this kind with these entries, on which nothing of the kind's own has run."""
    if native is tuple:
        return tuple.__new__(kind, entries)
    made = native.__new__(kind)
    if native is list:
        list.extend(made, entries)
    elif native is not object:
        for key, entry in zip(keys, entries):
            native.__setitem__(made, key, entry)
    return made


def _attributes(tree: Any) -> dict[tuple[str, bool], Any]:
    """What the object holds by (name, is it in its `__dict__`): fields of a dataclass first, then everything else.

    A field that has not been set is not there; nothing is asked of properties.
    """
    inside = getattr(tree, "__dict__", {})
    slots = {name: base.__dict__[name] for base in type(tree).__mro__ for name in _slots(base)}
    fields = [one.name for one in dataclasses.fields(tree)] if dataclasses.is_dataclass(tree) else []
    held: dict[tuple[str, bool], Any] = {}
    for name in dict.fromkeys([*fields, *slots, *inside]):
        if name in inside:
            held[name, True] = inside[name]
        elif name in slots:
            with contextlib.suppress(AttributeError):
                held[name, False] = slots[name].__get__(tree)
    return held


def _slots(base: type) -> list[str]:
    """The names in the class's own `__slots__`, as they are stored."""
    told = base.__dict__.get("__slots__", ())
    names = [told] if isinstance(told, str) else list(told)
    hidden = f"_{base.__name__.lstrip('_')}"
    names = [f"{hidden}{one}" if one.startswith("__") and not one.endswith("__") else one for one in names]
    return [one for one in names if one not in ("__dict__", "__weakref__") and one in base.__dict__]


def unflatten(structure: Any, leaves: Sequence[Any]) -> Any:
    """The tree of this structure with these leaves.

    >>> leaves, structure = flatten({"a": 1, "b": (2, 3)})
    >>> unflatten(structure, [x * 10 for x in leaves])
    {'a': 10, 'b': (20, 30)}
    """
    return _build(structure, iter(leaves))


def _build(structure: Any, leaves: Iterator[Any]) -> Any:
    if structure is LEAF:
        return next(leaves)
    return structure.make([_build(child, leaves) for child in structure.children])


def skeleton(structure: Any) -> Any:
    """How leaves are nested, as something that can be compared: kinds and keys without the constructors."""
    if structure is LEAF:
        return LEAF
    return structure.kind, structure.keys, structure.note, tuple(map(skeleton, structure.children))


def labels(structure: Any, label: str) -> list[str]:
    """What each leaf is called, if the whole is called `label`.

    >>> labels(flatten({"a": 1, "b": (2, 3)})[1], "state")
    ["state['a']", "state['b'][0]", "state['b'][1]"]
    """
    if structure is LEAF:
        return [label]
    names: list[str] = []
    for k, child in enumerate(structure.children):
        key = structure.keys[k] if structure.keys else k
        names.extend(labels(child, f"{label}.{key}" if isinstance(key, Attribute) else f"{label}[{key!r}]"))
    return names
