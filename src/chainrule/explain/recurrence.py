"""Time in a graph: which operations belong to which step of a loop, and what a step hands on to the next.

A weight that is multiplied with what an earlier product with it has led to is a clock: the k-th such product on a way
belongs to step k. What one step hands on is the state h_t. Everything else follows: an operation belongs to the first
step whose state depends on it, and one behind the loop to the last state that it depends on.
Knows nodes and kinds of operations; knows nothing of gradients, arrays or text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .. import ops
from ..errors import Origin
from ..graph import Node

Use = tuple[Node, int]
"""An operation that reads something, and as which operand."""

Consumers = dict[Node, list[Use]]

Products = dict[Node, int]
"""Operations that multiply something, and as which operand they read it."""


@dataclass(frozen=True, slots=True)
class Start:
    """A part of h_0 that is constant: its shape, and the operands of the first step that read it."""

    shape: tuple[int, ...]
    slots: list[Use]


@dataclass(slots=True)
class Recurrence:
    """clock: the weight that counts the steps. states[t], t from 0: what step t hands on (for an LSTM h_t and c_t).

    initial: what stands where h_0 would, if that is constant. step_of: the step of each operation that depends on a
    state. looped: every product with the clock comes from the same place in the user's code.
    """

    clock: Node
    states: list[list[Node]]
    initial: list[Start]
    step_of: dict[Node, int]
    looped: bool

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        return len(self.states) - 1


def consumers_of(order: Iterable[Node]) -> Consumers:
    """Who reads each node."""
    found: Consumers = {}
    for node in order:
        for index, operand in enumerate(node.inputs):
            found.setdefault(operand, []).append((node, index))
    return found


def uses_of(weight: Node, consumers: Consumers) -> list[Use]:
    """Operations that compute with `weight`; moving it (a transpose, a slice, a copy along axes) is no use."""
    found: list[Use] = []
    pending, moved = [weight], {weight}
    while pending:
        for node, index in consumers.get(pending.pop(), ()):
            moves = isinstance(node.operation, ops.Linear) and not isinstance(node.operation, ops.Bilinear)
            if not moves or not all(one in moved or _is_leaf(one) for one in node.inputs):
                found.append((node, index))
            elif node not in moved:
                moved.add(node)
                pending.append(node)
    return sorted(found, key=lambda use: (use[0].serial, use[1]))


def _is_leaf(node: Node) -> bool:
    return node.requires_grad and not node.inputs


def products_with(weight: Node, consumers: Consumers) -> Products:
    """Operations that multiply `weight` with something else, and as which operand they read it."""
    uses = uses_of(weight, consumers)
    readings = Counter(node for node, _ in uses)
    return {
        node: index
        for node, index in uses
        if (isinstance(node.operation, ops.Bilinear) or node.operation.name == "multiply")
        and readings[node] == 1
    }


def recurrence(order: Sequence[Node], weight: Node | None = None) -> Recurrence | None:
    """The loop that `weight` takes part in (or the longest one), in a graph whose last node is the result.

    None if no weight meets what an earlier product with it has led to.
    """
    consumers = consumers_of(order)
    found = _clock(order, consumers, weight)
    if found is None:
        return None
    clock, chain = found
    depth = _depths(order, set(chain.products))
    parts = _States(order, consumers, depth, chain.products)
    states = parts.all()
    states[0], initial = parts.starts(states)
    return Recurrence(clock, states, initial, _steps(order, states, depth), chain.looped)


@dataclass(frozen=True, slots=True)
class _Chain:
    """Products with one weight of which `length` follow from one another; looped: all from the same place."""

    products: Products
    length: int
    looped: bool


def _clock(order: Sequence[Node], consumers: Consumers, weight: Node | None) -> tuple[Node, _Chain] | None:
    """The weight itself if it meets its own result again; otherwise the one whose loop is nearest to its uses."""
    candidates = [node for node in order if _is_leaf(node) or node is weight]
    chains = {node: found for node in candidates if (found := _chain(order, consumers, node)).length > 1}
    if not chains:
        return None
    near: Node | None = max(chains, key=lambda node: (chains[node].length, -node.serial))
    if weight is not None:
        near = weight if weight in chains else _nearest(weight, consumers, chains)
    return None if near is None else _earliest(near, chains)


def _nearest(weight: Node, consumers: Consumers, chains: Mapping[Node, _Chain]) -> Node | None:
    """Whose products the uses of `weight` reach first, forwards; backwards for a weight behind the loop."""
    clock_of = {product: clock for clock, chain in chains.items() for product in chain.products}
    uses = [node for node, _ in uses_of(weight, consumers)]

    def forwards(node: Node) -> list[Node]:
        return [reader for reader, _ in consumers.get(node, ())]

    for step in (forwards, lambda node: list(node.inputs)):
        layer, seen = uses, set(uses)
        while layer:
            found = [clock_of[node] for node in layer if node in clock_of]
            if found:
                return min(found, key=_serial)
            reached = dict.fromkeys(one for node in layer for one in step(node) if one not in seen)
            seen.update(reached)
            layer = list(reached)
    return None


def _earliest(clock: Node, chains: Mapping[Node, _Chain]) -> tuple[Node, _Chain]:
    """The weight of the same loop that a step multiplies with first: what it meets is the state, not a part of a gate.

    It is of the same loop if the clock's first product follows from its first one and leads to its second one.
    """
    own = chains[clock]
    first = min(own.products, key=_serial)
    behind = _leading_to([first])
    for node, chain in sorted(chains.items(), key=lambda item: min(map(_serial, item[1].products))):
        if chain.length >= own.length and node is not clock:
            start, second = sorted(chain.products, key=_serial)[:2]
            if start in behind and first in _leading_to([second]):
                return node, chain
    return clock, own


def _serial(node: Node) -> int:
    return node.serial


def _chain(order: Sequence[Node], consumers: Consumers, weight: Node) -> _Chain:
    """The products with the weight that count steps: those of one place in the user's code, if these are a loop.

    A cell may multiply with parts of one matrix one after the other, so places are counted one by one.
    """
    products = products_with(weight, consumers)
    places: dict[tuple[Origin | None, str], Products] = {}
    for node, index in products.items():
        places.setdefault((node.origin, _path(node)), {})[node] = index
    longest = _Chain({}, 0, False)
    for (origin, _), own in places.items():
        length = _longest(order, own)
        if origin is not None and length > max(1, longest.length):
            longest = _Chain(own, length, True)
    return longest if longest.products else _Chain(products, _longest(order, products), False)


def _longest(order: Sequence[Node], products: Products) -> int:
    return max(_depths(order, set(products)).values()) if len(products) > 1 else 0


def _path(node: Node) -> str:
    return node.scope.path if node.scope is not None else ""


def _depths(order: Iterable[Node], counted: set[Node]) -> dict[Node, int]:
    """The largest number of `counted` nodes on a way to each node, itself included."""
    depth: dict[Node, int] = {}
    for node in order:
        below = max((depth.get(operand, 0) for operand in node.inputs), default=0)
        depth[node] = below + (node in counted)
    return depth


class _States:
    """What each step hands on to the next."""

    def __init__(
        self, order: Sequence[Node], consumers: Consumers, depth: dict[Node, int], products: Products
    ) -> None:
        self.order = order
        self.consumers = consumers
        self.products = products
        self.depth = depth
        self.last = max(depth[node] for node in products)
        self.leading: set[Node] = set()
        self._fellows: dict[tuple[int, str, Origin | None, str], list[Node]] = {}
        self.at: dict[int, list[Node]] = {}
        for node in order:
            self._fellows.setdefault(self._key(node, self.depth[node]), []).append(node)
            self.at.setdefault(self.depth[node], []).append(node)

    def all(self) -> list[list[Node]]:
        """h_1 … h_T behind an empty place for h_0: each a list of nodes."""
        ends, last = self._ends()
        self.leading = _leading_to(ends)
        states: list[list[Node]] = [[], *(self._state(t) for t in range(1, last))]
        if 1 < last == self.last:
            ends = self._counterparts(states[-1], 1) or ends
        return [*states, ends]

    def _ends(self) -> tuple[list[Node], int]:
        """The last state, and its number: the counterpart of an earlier one, as no product reads it any more."""
        before_last = self._carried_into_products(self.last)
        if self.last > 2:
            self.leading = _leading_to(before_last)
            known = self._state(self.last - 2)
            for later in (2, 1):
                found = self._counterparts(known, later)
                if found and len(found) == len(known):
                    return found, self.last - 2 + later
        found = self._counterparts(before_last, 1)
        return (found, self.last) if found else (before_last, self.last - 1)

    def _counterparts(self, state: Sequence[Node], later: int) -> list[Node]:
        return [one for node in state if (one := self._counterpart(node, later)) is not None]

    def _state(self, step: int) -> list[Node]:
        """What a step leaves to later ones that lead to the end."""
        crossing = [
            node
            for node in self.at.get(step, ())
            if any(
                self.depth[reader] > step and reader in self.leading
                for reader, _ in self.consumers.get(node, ())
            )
        ]
        return self._own(self._sources(crossing, step), step)

    def _carried_into_products(self, step: int) -> list[Node]:
        """The other operands of the products of a step."""
        found: dict[Node, None] = {}
        for node, index in self.products.items():
            if self.depth[node] == step and len(node.inputs) > 1:
                other = node.inputs[1 - index]
                if other.requires_grad and self.depth[other] == step - 1:
                    found[other] = None
        return self._sources(list(found), step - 1)

    def _sources(self, nodes: Sequence[Node], step: int) -> list[Node]:
        """Behind moves and joins (a reshape, [x_t, h_t] side by side), the state itself."""
        found: dict[Node, None] = {}
        for one in nodes:
            node = one
            while step and isinstance(node.operation, ops.Linear) and node not in self.products:
                inner = [operand for operand in node.inputs if self.depth.get(operand, 0) == step]
                if len(inner) != 1 or isinstance(node.operation, ops.Bilinear):
                    break
                node = inner[0]
            found[node] = None
        return list(found)

    def _own(self, nodes: Sequence[Node], step: int) -> list[Node]:
        """Without what follows from the others alone: a gate of the next step is no state, though it is read later."""
        given = set(nodes)
        return [node for node in nodes if self._follows_from_product(node, given, step)]

    def _follows_from_product(self, node: Node, given: set[Node], step: int) -> bool:
        pending, seen = [node], {node}
        while pending:
            one = pending.pop()
            if one in self.products:
                return True
            for operand in one.inputs:
                if operand not in seen and operand not in given and self.depth.get(operand, 0) == step:
                    seen.add(operand)
                    pending.append(operand)
        return False

    def _key(self, node: Node, step: int) -> tuple[int, str, Origin | None, str]:
        return step, node.operation.name, node.origin, _path(node)

    def _counterpart(self, node: Node, later: int) -> Node | None:
        """The operation that does in a later (or earlier) step what `node` does in its own."""
        step = self.depth[node]
        own = self._fellows[self._key(node, step)]
        others = self._fellows.get(self._key(node, step + later), [])
        place = own.index(node)
        return others[place] if place < len(others) and node.inputs else None

    def starts(self, states: Sequence[Sequence[Node]]) -> tuple[list[Node], list[Start]]:
        """What the first step reads where the second reads h_1: nodes with a gradient, and constants.

        No constants if the first step computed with them what left no operation in the graph: 2·h of a constant h.
        """
        if len(states) < 3:
            return self._carried_into_products(1), []
        inside = _leading_to(states[1])
        found: dict[Node, None] = {}
        constants: list[Start] = []
        whole = True
        for node in states[1]:
            slots: list[Use] = []
            for reader, index in uses_of(node, self.consumers):
                if reader in inside or reader not in self.leading:
                    continue
                first = self._counterpart(reader, -1)
                other = first.inputs[index] if first is not None else node
                if first is None or self.depth.get(other, 0) or _size(other) != _size(node):
                    whole = False
                elif other.requires_grad:
                    found[_unmoved(other)] = None
                else:
                    slots.append((first, index))
            if slots:
                constants.append(Start(node.shape, slots))
        return list(found), constants if whole else []


def _unmoved(node: Node) -> Node:
    while len(node.inputs) == 1 and isinstance(node.operation, ops.Linear):
        node = node.inputs[0]
    return node


def _size(node: Node) -> int:
    return math.prod(node.shape)


def _leading_to(ends: Sequence[Node]) -> set[Node]:
    found = set(ends)
    pending = list(ends)
    while pending:
        for operand in pending.pop().inputs:
            if operand not in found:
                found.add(operand)
                pending.append(operand)
    return found


def _steps(
    order: Sequence[Node], states: Sequence[Sequence[Node]], depth: dict[Node, int]
) -> dict[Node, int]:
    """The step of every node that depends on h_1 or later: the first state that depends on it, or the last below it.

    What depends on h_0 alone is told by what it leads to, as inputs are: they may be shared by several loops.
    """
    own = {node: t for t, state in enumerate(states) for node in state if t or node.inputs}
    above: dict[Node, int] = {}
    for node in reversed(order):
        reached = min(above.get(node, len(states)), own.get(node, len(states)))
        if reached < len(states):
            above[node] = reached
            for operand in node.inputs:
                above[operand] = min(above.get(operand, reached), reached)
    below: dict[Node, int] = {}
    for node in order:
        known = [below[operand] for operand in node.inputs if operand in below]
        known += [own[operand] for operand in node.inputs if own.get(operand, 0)]
        if known:
            below[node] = max(known)
    found: dict[Node, int] = {}
    for node in order:
        if node in own or node in below or depth[node] > 0:
            found[node] = above.get(node, below.get(node, len(states) - 1))
    return found
