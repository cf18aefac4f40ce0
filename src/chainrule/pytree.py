"""Nested dicts, lists, tuples, named tuples and dataclasses as flat lists of leaves, and back.

Knows nothing of what the leaves are. None is a leaf-less node, everything unknown is a leaf.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple


class Structure(NamedTuple):
    """How leaves are nested: a constructor, its keys, and the structures below. `LEAF` stands for one leaf."""

    make: Callable[[Sequence[Any]], Any]
    kind: type
    keys: tuple[Any, ...]
    children: tuple[Any, ...]


LEAF = "leaf"


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
        parts = tuple(_describe(tree[key], leaves) for key in keys)
        return Structure(lambda parts: dict(zip(keys, parts)), kind, keys, parts)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return Structure(
            lambda parts: kind(*parts), kind, tree._fields, tuple(_describe(x, leaves) for x in tree)
        )
    if kind is list or kind is tuple:
        return Structure(lambda parts: kind(parts), kind, (), tuple(_describe(x, leaves) for x in tree))
    if dataclasses.is_dataclass(tree):
        names = tuple(one.name for one in dataclasses.fields(tree))
        parts = tuple(_describe(getattr(tree, name), leaves) for name in names)
        return Structure(lambda parts: kind(**dict(zip(names, parts))), kind, names, parts)
    leaves.append(tree)
    return LEAF


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
    return structure.kind, structure.keys, tuple(map(skeleton, structure.children))


def labels(structure: Any, label: str) -> list[str]:
    """What each leaf is called, if the whole is called `label`.

    >>> labels(flatten({"a": 1, "b": (2, 3)})[1], "state")
    ["state['a']", "state['b'][0]", "state['b'][1]"]
    """
    if structure is LEAF:
        return [label]
    found: list[str] = []
    for k, child in enumerate(structure.children):
        key = structure.keys[k] if structure.keys else k
        dotted = structure.kind not in (dict, list, tuple)
        found.extend(labels(child, f"{label}.{key}" if dotted else f"{label}[{key!r}]"))
    return found
