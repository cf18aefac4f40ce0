"""What a call leaves behind: the recipe of a value that was traced, and where values go once they are known.

A template builds a value anew for each call, from the numbers that it has computed; an effect puts values where the
function has put them: into attributes, lists, variables, tensors that were given. Effects are prepared first and happen
afterwards, so that a step is a whole.
Knows tensors and Python's containers; knows nothing of engines.
"""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import Origin, TraceError
from ..graph import Cell, Node
from ..operations import CONSTANT, Array
from ..operations import Attributes as Marks
from ..structure import bump_structure
from ..tensor import Tensor, wrap
from ..tensor.core import of_cell
from .spaces import MISSING, Attributes, Space, held_by, hold

Call = tuple[Any, ...]
"""The values that a call has found at the places that templates refer to."""

Outputs = Sequence[Array]


class Template(ABC):
    """A value of the function, made anew for each call."""

    @abstractmethod
    def build(self, call: Call, outputs: Outputs) -> Any:
        """The value."""

    def parts(self) -> Iterator[Template]:
        """The template and those inside it."""
        yield self


@dataclass(frozen=True)
class Constant(Template):
    """An object that is the same at each call."""

    value: Any

    def build(self, call: Call, outputs: Outputs) -> Any:
        """Itself."""
        return self.value


@dataclass(frozen=True)
class Result(Template):
    """A tensor: output number `index` of the graph. lost: it has had a gradient, which is no output."""

    index: int
    marks: Marks
    gradient: int | None = None
    lost: bool = False

    def build(self, call: Call, outputs: Outputs) -> Any:
        """A tensor without a history."""
        made = wrap(Node(CONSTANT, (), self.marks, outputs[self.index]))
        if self.lost:
            made._lost = True
        if self.gradient is not None:
            made.grad = wrap(Node(CONSTANT, value=outputs[self.gradient]))
        return made


@dataclass(eq=False)
class Once(Template):
    """A new object. Where the function has put it into several places, a call makes one and puts it into all."""

    inner: Template
    shared: bool = False

    def build(self, call: Call, outputs: Outputs) -> Any:
        """The last entry of a call with shared objects is a dict of those that it has made."""
        if not self.shared:
            return self.inner.build(call, outputs)
        made = call[-1]
        if self not in made:
            made[self] = self.inner.build(call, outputs)
        return made[self]

    def parts(self) -> Iterator[Template]:
        """The object's own parts."""
        yield self
        yield from self.inner.parts()


@dataclass(frozen=True)
class Gradient(Template):
    """The tensor that is a cell's gradient when the call begins."""

    cell: Cell

    def build(self, call: Call, outputs: Outputs) -> Any:
        """To be asked before anything is written: see `Hold`."""
        return self.cell.grad


@dataclass(frozen=True)
class NumberResult(Template):
    """A Python number: output number `index`."""

    index: int

    def build(self, call: Call, outputs: Outputs) -> Any:
        """bool, int or float."""
        return outputs[self.index].item()


@dataclass(frozen=True)
class LeafResult(Template):
    """A tensor that the function has made a leaf: its numbers, and its gradient where it has one."""

    index: int
    requires_grad: bool
    kind: str
    name: str | None
    gradient: int | None

    def build(self, call: Call, outputs: Outputs) -> Any:
        """A leaf with a cell of its own."""
        return of_cell(self.cell(outputs))

    def cell(self, outputs: Outputs) -> Cell:
        """The cell of such a leaf."""
        made = Cell(np.array(outputs[self.index]), self.requires_grad, self.kind, self.name)
        if self.gradient is not None:
            made.grad = wrap(Node(CONSTANT, value=outputs[self.gradient]))
        return made


@dataclass(frozen=True)
class Found(Template):
    """What the call has found at a place: an argument, a list, a tensor."""

    index: int

    def build(self, call: Call, outputs: Outputs) -> Any:
        """The object itself."""
        return call[self.index]


@dataclass(frozen=True)
class Kept(Template):
    """An entry of a container that stays, wherever it stands now."""

    key: Any

    def build(self, call: Call, outputs: Outputs) -> Any:
        """Looked up by the effect."""
        raise AssertionError


@dataclass(frozen=True)
class Text(Template):
    """A text with numbers in it: texts, and (template, format) for what stands between."""

    parts_: tuple[Any, ...]

    def build(self, call: Call, outputs: Outputs) -> str:
        """The whole text."""
        return "".join(
            one if isinstance(one, str) else _shown(one[0].build(call, outputs), one[1])
            for one in self.parts_
        )

    def parts(self) -> Iterator[Template]:
        """All inside."""
        yield self
        for one in self.parts_:
            if not isinstance(one, str):
                yield from one[0].parts()


def _shown(value: Any, spec: str) -> str:
    return format(value, spec) if spec else str(value)


@dataclass(frozen=True)
class Nested(Template):
    """A list, dict, tuple, object … that is made anew with its entries."""

    make: Callable[[list[Any]], Any]
    items: tuple[Template, ...]

    def build(self, call: Call, outputs: Outputs) -> Any:
        """With its entries built."""
        return self.make([one.build(call, outputs) for one in self.items])

    def parts(self) -> Iterator[Template]:
        """All inside."""
        yield self
        for one in self.items:
            yield from one.parts()


# ------------------------------------------------------------------------------------------- effects


class Effect(ABC):
    """Something that a call does besides computing."""

    @abstractmethod
    def prepare(self, call: Call, outputs: Outputs) -> Callable[[], None]:
        """What has to be done, with everything known that is needed: it may be done twice, and does the same."""


@dataclass(frozen=True)
class Assign(Effect):
    """An attribute or a variable gets a value, or goes."""

    space: Space
    name: str
    value: Template | None

    def prepare(self, call: Call, outputs: Outputs) -> Callable[[], None]:
        """The value is built now."""
        value = MISSING if self.value is None else self.value.build(call, outputs)
        # Layers count what is written, for whoever relies on it; tensors are looked at by every call.
        space = self.space
        layer = (
            space if isinstance(space, Attributes) and space.counted and type(value) is not Tensor else None
        )

        def commit() -> None:
            before = None if layer is None else layer.content().get(self.name, MISSING)
            space.assign(self.name, value)
            if layer is not None:
                layer.count(self.name, before)

        return commit


@dataclass(frozen=True)
class Fill(Effect):
    """A list, dict, set … gets other entries; those that stay are what it holds at the call."""

    container: Template
    keys: tuple[Any, ...] | None
    items: tuple[Template, ...]

    def prepare(self, call: Call, outputs: Outputs) -> Callable[[], None]:
        """The entries are built now."""
        container = self.container.build(call, outputs)
        held = _entries(container, self.keys)
        values = [held[one.key] if isinstance(one, Kept) else one.build(call, outputs) for one in self.items]

        def commit() -> None:
            fill(container, self.keys, values)

        return commit


@dataclass(frozen=True)
class Extend(Effect):
    """A list grows at its end."""

    container: Template
    items: tuple[Template, ...]

    def prepare(self, call: Call, outputs: Outputs) -> Callable[[], None]:
        """The entries are built now, and where they go."""
        container = self.container.build(call, outputs)
        size = len(container)
        values = [one.build(call, outputs) for one in self.items]

        def commit() -> None:
            if isinstance(container, deque):
                fill(container, None, [*list(container)[:size], *values])
            else:
                list.__setitem__(container, slice(size, None), values)

        return commit


@dataclass(frozen=True)
class Rebind(Effect):
    """A tensor that the function was given or has reached stands for other numbers now, or has a gradient."""

    tensor: Template
    value: int | None
    leaf: LeafResult | None
    gradient: Template | None

    def prepare(self, call: Call, outputs: Outputs) -> Callable[[], None]:
        """NumPy's arrays are written into, as `a += 1` does there."""
        tensor = self.tensor.build(call, outputs)
        value = None if self.value is None else outputs[self.value]
        if isinstance(tensor, np.ndarray):

            def write() -> None:
                if value is not None:
                    tensor[...] = value

            return write
        cell = None if self.leaf is None else self.leaf.cell(outputs)
        gradient = None if self.gradient is None else self.gradient.build(call, outputs)

        def commit() -> None:
            if cell is not None:
                tensor._node, tensor._cell = None, cell
            elif value is not None:
                tensor._node = Node(CONSTANT, value=value)
            if self.gradient is not None:
                tensor._grad = gradient

        return commit


@dataclass(frozen=True)
class Require(Effect):
    """A leaf requires grad from here on, or no longer."""

    cell: Cell
    value: bool

    def prepare(self, call: Call, outputs: Outputs) -> Callable[[], None]:
        """Set on the cell, and counted as a tensor's own setter does: other traces take the flag for granted."""

        def commit() -> None:
            cell, before = self.cell, self.cell.requires_grad
            if before is not self.value:
                cell.requires_grad = self.value
                bump_structure(cell, f"{cell.name or 'a tensor'}.requires_grad", before, self.value)

        return commit


@dataclass(frozen=True)
class Renew(Effect):
    """A buffer was assigned anew: its cell has the new numbers, and whoever holds the tensor from before keeps the old.

    The last entry of a call says what the cell held when it began.
    """

    space: Space
    name: str
    cell: Cell

    def prepare(self, call: Call, outputs: Outputs) -> Callable[[], None]:
        """Another tensor takes the place, on the same cell."""
        before, array = self.space.content()[self.name], call[-1][self.cell]
        old = Cell(array, self.cell.requires_grad, self.cell.kind, self.cell.name)
        now = of_cell(self.cell)

        def commit() -> None:
            before._cell = old
            self.space.assign(self.name, now)

        return commit


@dataclass(frozen=True)
class Hold(Effect):
    """What is found when the call begins is looked up before it may be replaced."""

    items: tuple[Template, ...]

    def prepare(self, call: Call, outputs: Outputs) -> Callable[[], None]:
        """Nothing is left to do."""
        for one in self.items:
            one.build(call, outputs)
        return lambda: None


@dataclass(frozen=True)
class Regrade(Effect):
    """A cell's gradient is a tensor that is somewhere else too; or the tensor that it is stands for other numbers."""

    cell: Cell
    items: tuple[Template, ...]
    value: int | None = None

    def prepare(self, call: Call, outputs: Outputs) -> Callable[[], None]:
        """The numbers go into the tensor that is there when the call begins."""
        cell = self.cell
        if self.value is None:
            (tensor,) = (one.build(call, outputs) for one in self.items)

            def replace() -> None:
                cell.grad = tensor

            return replace
        there, array = cell.grad, outputs[self.value]

        def change() -> None:
            if there._cell is not None:
                there._cell.write(np.array(array))
            else:
                there._node = Node(CONSTANT, value=array)

        return change


@dataclass(frozen=True)
class Apart(Effect):
    """What the function has taken for two tensors must not be one: gradients that it reads, and others that it meets.

    changed: those of the gradients that it changes in place. A trace may meet other tensors that it has no use for, so
    they are nothing that two traces are compared by.
    """

    cells: tuple[Cell, ...]
    changed: tuple[Cell, ...]
    others: tuple[Template, ...]
    origin: Origin | None

    def prepare(self, call: Call, outputs: Outputs) -> Callable[[], None]:
        """Raises TraceError before anything is written."""
        others = [one.build(call, outputs) for one in self.others]
        for cell in self.cells:
            twins = [one.grad for one in self.changed if one is not cell]
            if cell.grad is not None and any(cell.grad is one for one in (*others, *twins)):
                raise TraceError(
                    f"a compiled step changes a tensor in place that is the .grad of {cell.name or 'a tensor'} and is "
                    "kept elsewhere too. Keep a copy of the gradient: x.grad.clone()",
                    self.origin,
                )
        return lambda: None


@dataclass(frozen=True)
class Print(Effect):
    """What the function has printed appears after the call."""

    items: tuple[Template, ...]
    keywords: dict[str, Any]

    def prepare(self, call: Call, outputs: Outputs) -> Callable[[], None]:
        """Printed once, also if the commit is repeated."""
        pending = [[one.build(call, outputs) for one in self.items]]

        def commit() -> None:
            if pending:
                builtins.print(*pending.pop(), **self.keywords)

        return commit


def _entries(container: Any, keys: tuple[Any, ...] | None) -> Any:
    if isinstance(container, dict):
        return dict(container)
    return list(container) if keys is None else held_by(container)


def fill(container: Any, keys: tuple[Any, ...] | None, values: list[Any]) -> None:
    """Give a container these entries, past what its class may do on the way."""
    if isinstance(container, dict):
        assert keys is not None
        base: Any = (
            OrderedDict if isinstance(container, OrderedDict) else dict
        )  # which keeps an order of its own
        base.clear(container)
        for key, value in zip(keys, values):
            base.__setitem__(container, key, value)
    elif isinstance(container, list):
        list.__setitem__(container, slice(None), values)
    elif isinstance(container, set):
        set.clear(container)
        set.update(container, values)
    elif isinstance(container, deque):
        container.clear()
        container.extend(values)
    elif isinstance(container, bytearray):
        container[:] = bytes(values)
    elif isinstance(container, array):
        container[:] = array(container.typecode, values)
    elif isinstance(container, memoryview):
        for k, value in enumerate(values):
            container[k] = value
    else:
        hold(container, dict(zip(keys or (), values)))
