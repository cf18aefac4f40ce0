"""What values of the user's mean to a trace: each gets a pattern, and something that stands in its place meanwhile.

Tensors without a history become inputs, as arrays and numbers do where that is wanted; containers are looked into, and
everything in them. What else there is, and where it can lead, the surroundings know.
Knows tensors, arrays and Python's containers; knows nothing of names and of code.
"""

from __future__ import annotations

import array
import dataclasses
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..dtypes import as_dtype
from ..errors import GradientError
from ..graph import Node, state
from ..operations import INPUT, Type
from ..tensor import Tensor, wrap
from ..tensor.number import TracedNumber
from . import patterns as pt
from .frames import is_user_module
from .patterns import PLAIN, Container, Pattern
from .spaces import held_by, hold, slots_of
from .templates import fill

_BYTES = (bytearray, array.array, memoryview)


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


class Values(ABC):
    """Patterns of all values that one run of a function has met. dynamic: keys of numbers that are inputs."""

    def __init__(self, dynamic: frozenset[Any]) -> None:
        self.inputs: list[Node] = []
        self.numbers: dict[Node, Any] = {}
        self.containers: list[Container] = []
        self.handles: dict[int, Handle] = {}
        # Inputs that the last call has computed from what requires grad, and where they are.
        self.cut: dict[Node, str] = {}
        # Containers that are reached, but not from a place with a name: what a partial was made with, for example.
        self.anchors: list[Pattern] = []
        self._arrays: list[pt.Contents] = []
        self._dynamic = dynamic
        self._patterns: dict[int, Pattern] = {}
        # Whatever is known by its identity is held, so that it stays its own.
        self._held: list[Any] = []

    @abstractmethod
    def reach(self, value: Any, label: str) -> None:
        """Look further into an object."""

    @abstractmethod
    def _owner(self, value: Any, label: str) -> None:
        """Look at the attributes of an object."""

    @abstractmethod
    def _class(self, kind: type, made: bool = False) -> None:
        """Look at the classes of an object."""

    def pattern_of(self, value: Any) -> Pattern | None:
        """The pattern of an object that was there before; None for one that the function has made."""
        return self._patterns.get(id(value))

    def arrays_written(self) -> list[pt.Contents]:
        """NumPy arrays of the user's that the function has written into."""
        return [one for one in self._arrays if one.written()]

    def _restore_values(self) -> None:
        for handle in self.handles.values():
            handle.restore()
        for container in reversed(self.containers):
            _put_back(container)
        for one in self._arrays:
            one.restore()

    def _anchor(self, value: Any, label: str) -> None:
        """Look at a value that cannot be replaced where it is; what is in it can."""
        found = self.look(value, label, None)[0]
        if type(found) is not pt.Same and not isinstance(found, pt.Plain | pt.Again):
            self.anchors.append(found)

    # ------------------------------------------------------------------------------- values

    def look(self, value: Any, label: str, key: Any, argument: bool = False) -> tuple[Pattern, Any]:
        """The pattern of a value, and what stands in its place while the function runs."""
        if isinstance(value, PLAIN) and not isinstance(value, np.generic):  # np.float64 is a float too
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
        if _has_numbers(value):
            return pt.Numbers(value, label), value
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
        if getattr(value, "default_factory", None) is not None:
            self._anchor(value.default_factory, label)
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
        before = held_by(value)
        found = pt.Fields(value, label, list(before), [])
        self._patterns[id(value)] = found
        found.items, planted = self._items(iter(before.items()), label, key, True, ".{}")
        found.before, found.planted = before, dict(zip(before, planted))
        self.containers.append(found)
        hold(value, found.planted)
        self._class(type(value))
        return found, value


def _has_numbers(value: Any) -> bool:
    """Whether an object of another library can be read as an array: what is in it is out of sight otherwise."""
    return not isinstance(value, type) and hasattr(type(value), "__array__")


def _put_back(container: Container) -> None:
    value = container.value
    if isinstance(value, tuple | frozenset):
        return
    if isinstance(container, pt.Fields):
        hold(value, container.before)
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


__all__ = ["Handle", "Values"]
