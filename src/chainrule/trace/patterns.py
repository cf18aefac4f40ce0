"""What a place held when a function was traced, and how a later call tells whether it still holds as much.

Each pattern writes the lines of Python that check a value: a step of ten microseconds has no time to interpret guards,
so `guards.py` joins these lines into one function. What is an input of the graph hands its array on instead.
Knows tensors and Python's containers; knows nothing of where a value was found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dtypes import as_dtype
from ..graph import Node
from ..operations import WITHOUT_GRAPH, Array, Type
from ..tensor import Tensor
from .spaces import held_by

if TYPE_CHECKING:
    from .guards import Writer

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range, slice, np.dtype)


class Pattern:
    """What is expected of one value. `label`: what the user calls the place. `value`: what was there."""

    # Whether this is an argument of the call itself, not something in it.
    argument = False

    def __init__(self, value: Any, label: str) -> None:
        self.value = value
        self.label = label
        self.variable = ""

    def write(self, writer: Writer, variable: str) -> None:
        """Lines that check what `variable` holds."""
        self.variable = variable
        self.check(writer, variable)

    def check(self, writer: Writer, variable: str) -> None:
        """The lines of this kind of pattern."""
        writer.require(f"{variable} is {writer.bind(self.value)}", self, variable)

    def show(self) -> str:
        """What was there, for people."""
        return show(self.value)

    def parts(self) -> Iterator[Pattern]:
        """The pattern and those inside it."""
        yield self


def show(value: Any) -> str:
    """A value in the words of reasons: numbers and texts as they are, tensors by type, everything else by class."""
    if isinstance(value, Tensor) and value.cell is None:
        return str(value.node.type)
    if isinstance(value, np.ndarray):
        return str(Type(value.shape, value.dtype))
    if isinstance(value, PLAIN):
        text = repr(value)
        return text if len(text) <= 40 else text[:37] + "..."
    if isinstance(value, list | tuple | dict | set | frozenset):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, type):
        return value.__name__
    return type(value).__name__


class Same(Pattern):
    """An object that is itself: modules, functions, classes, whatever is looked into elsewhere."""


class Missing(Pattern):
    """Nothing of this name."""

    def show(self) -> str:
        """In words."""
        return "nothing"


class Plain(Pattern):
    """A number, text or flag: the same type and value; NaN equals itself, and −0.0 is not 0.0."""

    # Where the value lives, by which a number that changes is known again; None where it cannot become an input.
    key: Any = None

    def check(self, writer: Writer, variable: str) -> None:
        """Identity first: it is quick and settles most calls."""
        constant = writer.bind(self.value)
        if self.value is None or isinstance(self.value, bool | type(Ellipsis)):
            writer.require(f"{variable} is {constant}", self, variable)
            return
        equal = f"{variable} == {constant}"
        if (isinstance(self.value, float) and (self.value == 0 or math.isnan(self.value))) or isinstance(
            self.value, complex | range | slice
        ):
            equal = f"repr({variable}) == {writer.bind(repr(self.value))}"
        kind = writer.bind(type(self.value))
        writer.require(
            f"{variable} is {constant} or (type({variable}) is {kind} and {equal})", self, variable
        )


class Scalar(Pattern):
    """A NumPy scalar, compared bit by bit."""

    def check(self, writer: Writer, variable: str) -> None:
        """Type and bytes."""
        kind, bits = writer.bind(type(self.value)), writer.bind(self.value.tobytes())
        writer.require(f"type({variable}) is {kind} and {variable}.tobytes() == {bits}", self, variable)


class Number(Pattern):
    """A Python number that is an input: its type counts, its value is given anew at each call."""

    def __init__(self, value: Any, label: str, key: Any, node: Node) -> None:
        super().__init__(value, label)
        self.key = key
        self.node = node

    def check(self, writer: Writer, variable: str) -> None:
        """The type; whole numbers must fit 64 bits."""
        condition = f"type({variable}) is {writer.bind(type(self.value))}"
        if isinstance(self.value, int):
            condition += f" and -{1 << 63} <= {variable} < {1 << 63}"
        writer.require(condition, self, variable)
        writer.give(self.node, f"array({variable}, {writer.bind(self.node.dtype)})")


class Held(Pattern):
    """A tensor without a history: its type counts, its numbers are an input."""

    def __init__(self, value: Tensor, label: str, node: Node) -> None:
        super().__init__(value, label)
        self.node = node
        #: Whether a compiled step has computed it from what requires grad: in Python it would have a history.
        self.cut = value.node.attributes is WITHOUT_GRAPH
        #: Whether it had no gradient, and the function may look.
        self.without_grad = False

    def check(self, writer: Writer, variable: str) -> None:
        """As few steps as can be: this is on the path of every call."""
        array, node = writer.fresh("a"), writer.fresh("n")
        kind = writer.bind(type(self.value))
        writer.require(f"type({variable}) is {kind} and {variable}._cell is None", self, variable)
        if self.without_grad:
            writer.require(f"{variable}._grad is None", self, variable)
        writer.line(f"{node} = {variable}._node")
        writer.line(f"{array} = {node}._value")
        writer.line(f"if type({array}) is not ndarray: {array} = settled({variable})")
        shape, dtype = writer.bind(self.node.shape), writer.bind(self.node.dtype)
        mark = f"{node}.attributes is {'' if self.cut else 'not '}{writer.bind(WITHOUT_GRAPH)}"
        writer.require(
            f"{array}.shape == {shape} and {array}.dtype == {dtype} and not {node}.requires_grad and {mark}",
            self,
            variable,
        )
        writer.give(self.node, f"whole({array})")


class Given(Pattern):
    """A NumPy array among the arguments: an input, in the dtype that tensors have."""

    def __init__(self, value: Any, label: str, node: Node, handle: Tensor) -> None:
        super().__init__(value, label)
        self.node = node
        self.handle = handle

    def check(self, writer: Writer, variable: str) -> None:
        """NumPy's scalars too."""
        kind, dtype = writer.bind(type(self.value)), writer.bind(self.value.dtype)
        shape = writer.bind(self.value.shape)
        writer.require(
            f"type({variable}) is {kind} and {variable}.shape == {shape} and {variable}.dtype == {dtype}",
            self,
            variable,
        )
        writer.give(self.node, f"taken({variable}, {writer.bind(as_dtype(self.value.dtype))})")


class Leaf(Pattern):
    """A tensor with a cell: itself, on the same cell. What the cell holds is an input that the graph names."""

    def __init__(self, value: Tensor, label: str) -> None:
        super().__init__(value, label)
        assert value.cell is not None
        self.cell = value.cell

    def check(self, writer: Writer, variable: str) -> None:
        """Handle and cell; a buffer may be another tensor on the same cell, since each assignment makes one."""
        cell = writer.bind(self.cell)
        same = f"{variable} is {writer.bind(self.value)}"
        if self.cell.kind == "buffer":
            same = f"type({variable}) is {writer.bind(type(self.value))}"
        writer.require(f"{same} and {variable}._cell is {cell}", self, variable)


class History(Pattern):
    """A tensor that was computed from others: its numbers never change, so they are constants while it stays itself."""

    def __init__(self, value: Tensor, label: str, node: Node, grad: Node | None) -> None:
        super().__init__(value, label)
        self.node = node
        self.grad = grad

    def check(self, writer: Writer, variable: str) -> None:
        """Handle and node; a gradient that it has already is an input."""
        same = f"{variable} is {writer.bind(self.value)} and {variable}._node is {writer.bind(self.node)}"
        if self.grad is None:
            writer.require(f"{same} and {variable}._grad is None", self, variable)
        else:
            writer.require(f"{same} and {variable}._grad is not None", self, variable)
            writer.give(self.grad, f"whole(settled({variable}._grad))")


class Contents(Pattern):
    """A NumPy array that the function reaches by name: every number counts, since NumPy computes with it."""

    def __init__(self, value: Array, label: str) -> None:
        super().__init__(value, label)
        self._copy = value.copy()

    def written(self) -> bool:
        """Whether it is another one than it was."""
        return bool(self.value.tobytes() != self._copy.tobytes())

    def restore(self) -> None:
        """Put its numbers back."""
        if self.value.flags.writeable and self.written():
            self.value[...] = self._copy

    def check(self, writer: Writer, variable: str) -> None:
        """Compared bit by bit."""
        kind, copy = writer.bind(type(self.value)), writer.bind(self._copy)
        writer.require(f"type({variable}) is {kind} and same_bits({variable}, {copy})", self, variable)


class Numbers(Pattern):
    """An object of another library that holds an array, such as a table's column: itself, with the same numbers."""

    def __init__(self, value: Any, label: str) -> None:
        super().__init__(value, label)
        self._copy = np.array(value)

    def check(self, writer: Writer, variable: str) -> None:
        """Read as an array each time."""
        same, copy = f"{variable} is {writer.bind(self.value)}", writer.bind(self._copy)
        writer.require(f"{same} and same_bits(array({variable}), {copy})", self, variable)


class Again(Pattern):
    """What stands at another place already: the two must stay one."""

    def __init__(self, value: Any, label: str, first: Pattern) -> None:
        super().__init__(value, label)
        self.first = first

    def check(self, writer: Writer, variable: str) -> None:
        """Identity with what the other place has given, which may be looked at further below."""
        if self.first.variable:
            writer.require(f"{variable} is {self.first.variable}", self, variable)
        elif not writer.wait(self, variable):
            super().check(writer, variable)


class Container(Pattern):
    """Something that holds other values.

    `before`: what it held. `planted`: what it holds while the function is traced.
    """

    def __init__(self, value: Any, label: str, items: list[Pattern]) -> None:
        super().__init__(value, label)
        self.items = items
        self.before: Any = None
        self.planted: Any = None
        # A list that the function only appends to: what is in it does not matter.
        self.growing = False
        # Whether it must stay the same object, because attributes of its own are looked at.
        self.itself = False

    def parts(self) -> Iterator[Pattern]:
        """All that is inside."""
        yield self
        for one in self.items:
            yield from one.parts()

    def _kind(self, writer: Writer, variable: str) -> str:
        if self.itself:
            return f"{variable} is {writer.bind(self.value)}"
        return f"type({variable}) is {writer.bind(type(self.value))}"


class Sequence(Container):
    """A list, tuple, named tuple or deque: its length and each entry."""

    def check(self, writer: Writer, variable: str) -> None:
        """Plain entries of long lists are compared in one go."""
        if self.growing:
            writer.require(self._kind(writer, variable), self, variable)
            return
        writer.require(
            f"{self._kind(writer, variable)} and len({variable}) == {len(self.items)}", self, variable
        )
        if len(self.items) > 8 and all(type(one) is Same for one in self.items):
            whole = writer.bind(tuple(one.value for one in self.items))
            writer.require(f"all(map(is_, {variable}, {whole}))", self, variable)
            return
        iterator = writer.fresh("i")
        writer.line(f"{iterator} = iter({variable})")
        for one in self.items:
            item = writer.fresh("v")
            writer.line(f"{item} = next({iterator})")
            one.write(writer, item)


class Mapping(Container):
    """A dict: its keys in their order, and each entry."""

    def __init__(self, value: Any, label: str, keys: list[Any], items: list[Pattern]) -> None:
        super().__init__(value, label, items)
        self.keys = keys

    def check(self, writer: Writer, variable: str) -> None:
        """Keys that are no plain values are compared by identity."""
        plain = all(isinstance(key, str | int | bool | type(None)) for key in self.keys)
        keys = writer.bind(self.keys)
        same = f"list({variable}) == {keys}" if plain else f"all(map(is_, {variable}, {keys}))"
        size = len(self.keys)
        writer.require(
            f"{self._kind(writer, variable)} and len({variable}) == {size} and {same}", self, variable
        )
        iterator = writer.fresh("i")
        if self.items:
            writer.line(f"{iterator} = iter({variable}.values())")
        for one in self.items:
            item = writer.fresh("v")
            writer.line(f"{item} = next({iterator})")
            one.write(writer, item)


class Group(Container):
    """A set: the same members, compared by their own equality."""

    def __init__(self, value: Any, label: str) -> None:
        super().__init__(value, label, [])
        self._copy = frozenset(value)

    def check(self, writer: Writer, variable: str) -> None:
        """As sets compare."""
        writer.require(
            f"{self._kind(writer, variable)} and {variable} == {writer.bind(self._copy)}", self, variable
        )


class Bytes(Container):
    """A bytearray, array.array or memoryview: its entries."""

    def __init__(self, value: Any, label: str) -> None:
        super().__init__(value, label, [])
        self._copy = list(value)

    def check(self, writer: Writer, variable: str) -> None:
        """Compared as lists, whatever the type of the entries."""
        copy = writer.bind(self._copy)
        writer.require(f"{self._kind(writer, variable)} and list({variable}) == {copy}", self, variable)


class Fields(Container):
    """A dataclass among the arguments: all that it holds, in its dict and its slots, and nothing else."""

    def __init__(self, value: Any, label: str, names: list[str], items: list[Pattern]) -> None:
        super().__init__(value, label, items)
        self.names = names

    def check(self, writer: Writer, variable: str) -> None:
        """As attributes; one that has come or gone is a difference too."""
        names = writer.fresh("v")
        writer.require(self._kind(writer, variable), self, variable)
        writer.line(f"{names} = {writer.bind(held_by)}({variable})")
        writer.require(f"{names}.keys() == {writer.bind(set(self.names))}", self, variable)
        for name, one in zip(self.names, self.items):
            item = writer.fresh("v")
            writer.line(f"{item} = {names}[{name!r}]")
            one.write(writer, item)
