"""From what a traced function has returned and written to recipes: templates of values, and effects of calls.

Knows what surrounds the function and the trace; knows nothing of engines.
"""

from __future__ import annotations

import gc
import re
import types
from collections import Counter, deque
from typing import Any

import numpy as np

from ..errors import TraceError
from ..graph import Cell, Node
from ..operations import NO_ATTRIBUTES, WITHOUT_GRAPH
from ..tensor import Tensor
from ..tensor.number import TracedNumber, is_number
from . import patterns as pt
from .frames import HEAP_TYPE
from .patterns import PLAIN, Container, Pattern
from .recording import Tracing
from .spaces import MISSING, Attributes, Slots, held_by, slots_of
from .surroundings import Surroundings
from .templates import (
    Apart,
    Assign,
    Constant,
    Effect,
    Extend,
    Fill,
    Found,
    Gradient,
    Hold,
    Kept,
    LeafResult,
    Nested,
    NumberResult,
    Once,
    Print,
    Rebind,
    Regrade,
    Renew,
    Require,
    Result,
    Template,
    Text,
)
from .templates import fill as fill_container
from .values import Handle

Arguments = tuple[pt.Sequence, pt.Mapping]


class Recipes:
    """Templates and effects of one trace.

    `outputs`: the nodes that they need. `found`: the patterns whose values they need.
    """

    def __init__(self, tracing: Tracing, around: Surroundings) -> None:
        self.outputs: list[Node] = []
        self.found: list[Pattern] = []
        self._tracing = tracing
        self._around = around
        self._numbers: dict[Node, int] = {}
        self._places: dict[int, int] = {}
        self._known: set[int] = set()
        self._making: list[int] = []
        # Objects that the function has made, by identity; they are held, so that it stays theirs.
        self._made: dict[int, tuple[Any, Once]] = {}
        self.shares = False
        # Whether what is made goes into places of the user's: then it takes its gradient along.
        self._outliving = False
        # Tensors that go into places of the user's, by identity, and those that buffers were assigned.
        self._kept: set[int] = set()
        self._buffered: dict[int, tuple[Tensor, str]] = {}
        self._gradients_found: dict[int, Cell] = {}
        self._looked_up: list[Template] = []

    # ------------------------------------------------------------------------------- values

    def make(self, value: Any) -> Template:
        """How a call makes this value."""
        if is_number(value):
            return NumberResult(self._output(value.node))
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, PLAIN):
            return Constant(value)
        if self._outliving and isinstance(value, Tensor):
            self._kept.add(id(value))
        if id(value) in self._made:
            once = self._made[id(value)][1]
            once.shared = self.shares = True
            if self._outliving:
                self._take_gradients(once)
            return once
        if isinstance(value, Tensor):
            return self._once(value, self._tensor(value))
        pattern = self._around.pattern_of(value)
        if pattern is not None and not isinstance(pattern, pt.Same | pt.Again):
            return self._at(pattern)
        if self._around.was_there(value) or not _can_be_made(value):
            return Constant(value)
        if isinstance(value, np.ndarray):
            return self._once(value, Nested(lambda parts: value.copy(), ()))
        if id(value) in self._making:
            raise TraceError(
                f"a compiled step makes nested values anew at each call; got a {type(value).__name__} that holds itself"
            )
        self._making.append(id(value))
        try:
            return self._once(value, self._nested(value))
        finally:
            self._making.pop()

    def _take_gradients(self, made: Once) -> None:
        """What is returned and kept as well has its gradient wherever it is found."""
        values = {id(once): value for value, once in self._made.values()}
        for once in made.parts():
            if isinstance(once, Once) and isinstance(once.inner, Result):
                once.inner = self._result(values[id(once)])

    def _once(self, value: Any, made: Template) -> Template:
        if isinstance(made, Constant | Found):
            return made
        once = Once(made)
        self._made[id(value)] = value, once
        if isinstance(made, Gradient):  # looked up once, before it may be replaced
            once.shared = self.shares = True
            self._looked_up.append(once)
        return once

    @property
    def _found_gradients(self) -> dict[int, Cell]:
        """The tensors that were gradients before, by identity."""
        found = self._tracing.found_gradients
        if len(found) != len(self._gradients_found):
            self._gradients_found = {id(tensor): cell for cell, tensor in found.items()}
        return self._gradients_found

    def _output(self, node: Node) -> int:
        if node not in self._numbers:
            self._numbers[node] = len(self.outputs)
            self.outputs.append(node)
        return self._numbers[node]

    def _at(self, pattern: Pattern) -> Template:
        if id(pattern) not in self._places:
            self._places[id(pattern)] = len(self.found)
            self.found.append(pattern)
        return Found(self._places[id(pattern)])

    def _tensor(self, value: Tensor) -> Template:
        self._known.add(id(value))
        handle = self._around.handles.get(id(value))
        if handle is not None:
            # An array of the caller's comes back as the tensor that the function has seen.
            return self._result(value) if handle.owner is not None else self._of(handle)
        cell = value._cell
        found = self._found_gradients.get(id(value))
        if found is not None:
            return Gradient(found)
        if cell is None:
            pattern = self._around.pattern_of(value)
            return Constant(value) if pattern is not None else self._result(value)
        return self._leaf(value) if cell in self._tracing.local else Constant(value)

    def _of(self, handle: Handle) -> Template:
        return Constant(handle.tensor) if isinstance(handle.pattern, pt.History) else self._at(handle.pattern)

    def _result(self, value: Tensor) -> Template:
        if value._cell is not None:
            return self._leaf(value)
        node = value.node
        gradient = None
        if value._grad is not None and self._outliving:
            self._known.add(id(value._grad))
            gradient = self._output(value._grad.node)
        marks = WITHOUT_GRAPH if node.requires_grad else NO_ATTRIBUTES
        return Result(self._output(node), marks, gradient, value._grad is not None and gradient is None)

    def _leaf(self, value: Tensor) -> LeafResult:
        cell = value._cell
        assert cell is not None
        grad = self._tracing.read_grad(cell)
        return LeafResult(
            self._output(self._tracing.read(cell)),
            cell.requires_grad,
            cell.kind,
            cell.name,
            None if grad is None else self._output(grad),
        )

    def _text(self, value: str) -> Template:
        parts: list[Any] = []
        for k, piece in enumerate(re.split("\ue000(\\d+)\ue001", value)):
            if k % 2:
                subject, spec = self._tracing.texts[int(piece)]
                parts.append((self.make(subject), spec))
            elif piece:
                parts.append(piece)
        return Constant(value) if parts in ([], [value]) else Text(tuple(parts))

    def _nested(self, value: Any) -> Template:
        kind = type(value)
        if isinstance(value, dict):
            keys = list(value)
            items = tuple(self.make(one) for one in value.values())

            def fill(parts: list[Any]) -> Any:
                made = kind(value.default_factory) if hasattr(value, "default_factory") else kind()
                fill_container(made, tuple(keys), parts)
                return made

            return Nested(fill, items)
        if isinstance(value, tuple):
            return Nested(lambda parts: tuple.__new__(kind, parts), tuple(map(self.make, value)))
        if isinstance(value, list | set | frozenset):
            return Nested(lambda parts: kind(parts), tuple(map(self.make, value)))
        if isinstance(value, deque):
            return Nested(lambda parts: deque(parts, value.maxlen), tuple(map(self.make, value)))
        return self._object(value)

    def _object(self, value: Any) -> Template:
        """An object that the function has made: a new one with the same attributes."""
        kind = type(value)
        spaces = [Attributes(value, "")] if hasattr(value, "__dict__") else []
        own = [(name, one) for space in spaces for name, one in space.content().items()]
        slots = list(Slots(value, "").content().items()) if slots_of(kind) else []
        items = tuple(self.make(one) for _, one in (*own, *slots))

        def build(parts: list[Any]) -> Any:
            made = object.__new__(kind)
            for (name, _), part in zip(own, parts):
                vars(made)[name] = part
            for (name, _), part in zip(slots, parts[len(own) :]):
                slots_of(kind)[name].__set__(made, part)
            return made

        return Nested(build, items)

    # ------------------------------------------------------------------------------- effects

    def effects(self, arguments: Arguments) -> list[Effect]:
        """Everything that the function has written and that outlives it."""
        del arguments
        around = self._around
        self._outliving = True
        made: list[Effect] = []
        for handle in list(around.handles.values()):
            made += self._rebound(handle)
        for container in around.containers:
            made += self._filled(container)
        for space in around.spaces:
            if isinstance(space, Attributes) and space.counted:
                made += self._buffers(space)
            for name, value in space.changes().items():
                made.append(
                    Assign(space, name, None if value is MISSING else self._written(space, name, value))
                )
        for cell, before in self._tracing.flags.items():
            if cell.requires_grad is not before and cell not in self._tracing.local:
                made.append(Require(cell, cell.requires_grad))
        made += self._gradients()
        self._outliving = False
        for values, keywords in self._tracing.printed:
            items = tuple(self.make(one) for one in values)
            made.append(Print(items, keywords))
        self._refuse_shared_buffers()
        return [Hold(tuple(self._looked_up)), *made] if self._looked_up else made

    def _gradients(self) -> list[Effect]:
        """Gradients that were changed in place, and those that are the same tensor as something that is kept."""
        tracing, around = self._tracing, self._around
        changed = {
            cell: tensor
            for cell, tensor in tracing.found_gradients.items()
            if tensor.node is not tracing.reads[cell, "grad"] and cell not in tracing.local
        }
        made: list[Effect] = [
            Regrade(cell, (), self._output(tensor.node)) for cell, tensor in changed.items()
        ]
        tracing.kept_gradients.update(
            cell for cell, tensor in changed.items() if tracing.gradients.get(cell) is tensor
        )
        several = Counter(id(tensor) for tensor in tracing.gradients.values())
        held = self._made.keys() | around.handles.keys() | self._found_gradients.keys()
        for cell, tensor in tracing.gradients.items():
            kept = id(tensor) in held or several[id(tensor)] > 1
            if kept and cell not in tracing.local and tracing.found_gradients.get(cell) is not tensor:
                made.append(Regrade(cell, (self.make(tensor),)))
                tracing.kept_gradients.add(cell)
        handles = [one for one in around.handles.values() if not isinstance(one.pattern, pt.History)]
        rebound = [one for one in handles if one.tensor._node is not one.planted[0] and one.owner is None]
        apart = tuple(cell for cell, part in tracing.reads if part == "grad")
        if apart and (changed or rebound):
            where = tuple(self._of(one) for one in (handles if changed else rebound))
            node = next(one.node for one in (*changed.values(), *(one.tensor for one in rebound)))
            made.append(Apart(apart, tuple(changed), where, node.origin))
        return made

    def _refuse_shared_buffers(self) -> None:
        """A buffer stays where it is and takes the numbers; what else was to be the same tensor would be another."""
        for key in self._kept & self._buffered.keys():
            value, label = self._buffered[key]
            raise TraceError(
                f"a compiled step keeps a buffer in one place; got the tensor of {label} in another as well. Put "
                f"{label.rpartition('.')[2]}.clone() there",
                value.node.origin,
            )

    def _buffers(self, space: Attributes) -> list[Effect]:
        """A buffer that was assigned anew keeps its cell: the numbers are written into it."""
        made: list[Effect] = []
        for name, value in space.changes().items():
            before = space.before.get(name)
            cell = before._cell if isinstance(before, Tensor) else None
            if cell is None or cell.kind != "buffer" or not isinstance(value, Tensor) or value is before:
                continue
            node = value.node
            if node.type == cell.type and not any(one is cell for one, _ in self._tracing.written):
                self._tracing.write(cell, node)
                self._known.add(id(value))
                self._buffered[id(value)] = value, space.name_of(name)
                space.assign(name, before)
                made.append(Renew(space, name, cell))
        return made

    def _written(self, space: Any, name: str, value: Any) -> Template:
        del space, name
        return self.make(value)

    def _rebound(self, handle: Handle) -> list[Effect]:
        tensor = handle.tensor
        now = tensor._node, tensor._cell, tensor._grad
        if all(one is other for one, other in zip(now, handle.planted)):
            return []
        where = self._at(handle.pattern) if handle.owner is not None else self._of(handle)
        value = leaf = gradient = None
        if now[1] is not handle.planted[1] and tensor._cell is not None:
            leaf = self._leaf(tensor)
        elif now[0] is not handle.planted[0]:
            value = self._output(tensor.node)
        if now[2] is not handle.planted[2]:
            gradient = Constant(None) if now[2] is None else self.make(now[2])
        return [Rebind(where, value, leaf, gradient)]

    def _filled(self, container: Container) -> list[Effect]:
        now = container.value
        if isinstance(now, tuple | frozenset):
            return []
        if isinstance(container, pt.Fields):
            return self._filled_dict(container, held_by(now), container.planted)
        if isinstance(now, dict):
            return self._filled_dict(container, now, container.planted)
        before = list(container.planted)
        held = list(now)
        if isinstance(now, set):
            if now == set(before):
                return []
            return [Fill(self._where(container), None, tuple(self.make(one) for one in held))]
        if len(held) == len(before) and _same(held, before):
            return []
        if len(held) > len(before) and _same(held[: len(before)], before) and self._only_grows(container):
            container.growing = True
            return [Extend(self._where(container), tuple(self.make(one) for one in held[len(before) :]))]
        return [Fill(self._where(container), None, self._entries(held, before))]

    def _filled_dict(
        self, container: Container, now: dict[Any, Any], planted: dict[Any, Any]
    ) -> list[Effect]:
        if len(now) == len(planted) and _same(now, planted) and _same(now.values(), planted.values()):
            return []
        items = tuple(
            Kept(key) if planted.get(key, MISSING) is value else self.make(value)
            for key, value in now.items()
        )
        return [Fill(self._where(container), tuple(now), items)]

    def _where(self, container: Container) -> Template:
        """Containers are what the call finds, so another one of the same entries will do as well."""
        return self._at(container)

    def _entries(self, now: list[Any], before: list[Any]) -> tuple[Template, ...]:
        places = {id(one): k for k, one in enumerate(before) if not isinstance(one, PLAIN) or is_number(one)}
        found: list[Template] = []
        for k, one in enumerate(now):
            if k < len(before) and one is before[k]:
                found.append(Kept(k))
            elif id(one) in places:
                found.append(Kept(places[id(one)]))
            else:
                found.append(self.make(one))
        return tuple(found)

    def _only_grows(self, container: Container) -> bool:
        """Whether nothing that has run reads the list: it stands under one name, which is only appended to."""
        around = self._around
        name = re.split(r"\.", container.label)[-1]
        if not name.isidentifier():
            return False
        return name in around.growing and name not in around.reading and not around.is_shared(container)

    # ------------------------------------------------------------------------------- leftovers

    def refuse_leftovers(self) -> None:
        """A traced tensor in a place that was not seen would be used later as if it had numbers."""
        gc.collect(0)
        self._known |= {id(one.planted[2]) for one in self._around.handles.values()}
        start = self._tracing.start
        young = gc.get_objects(1)
        for one in young:
            if type(one) is Tensor and id(one) not in self._known and id(one) not in self._around.handles:
                node = one._node
                if node is None or node.serial <= start or node.value is not None:
                    continue
                holder = _holder(one, young)
                if holder is not None:
                    raise TraceError(
                        f"a compiled step cannot see where it keeps a value; {node.type} {node.operation.name} is "
                        f"still held by {holder} after it. Return it, or keep it as an attribute or in a list or dict",
                        node.origin,
                    )


def _holder(tensor: Tensor, young: list[Any]) -> str | None:
    """Who holds a tensor, in words; None where it is only Python's own machinery."""
    for one in gc.get_referrers(tensor):
        # A tensor holds its gradient; who holds that tensor is asked for it.
        if one is young or isinstance(
            one, Tensor | types.FrameType | types.TracebackType | types.GeneratorType
        ):
            continue
        if isinstance(one, dict | list | tuple | set | types.CellType) or not isinstance(one, type):
            return f"a {type(one).__name__}"
    return None


def _same(some: Any, others: Any) -> bool:
    return len(some) == len(others) and all(one is other for one, other in zip(some, others))


def _can_be_made(value: Any) -> bool:
    """Whether a new object of this kind can take the place of one that the function has made."""
    if isinstance(value, dict | list | tuple | set | frozenset | deque):
        return True
    if isinstance(value, np.ndarray):
        return True
    if isinstance(value, type | types.FunctionType | types.ModuleType | types.MethodType | np.generic):
        return False
    kind = type(value)
    written_in_python = bool(kind.__flags__ & HEAP_TYPE)
    return written_in_python and (hasattr(value, "__dict__") or bool(slots_of(kind)))


__all__ = ["Recipes", "TracedNumber"]
