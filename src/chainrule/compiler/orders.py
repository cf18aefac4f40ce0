"""The order in which the axes of every value lie in memory, each with its reason.

What comes in and what leaves lies in row-major order. Between those a sum over several axes (a convolution) puts the
axis along which it runs in vectors last, and what is computed from it follows, so that every loop runs along memory.
Knows operations by their lowering, never by name; knows nothing of groups, buffers and loops.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..graph import Graph, Node, names_of
from ..operations import Type
from ..ops.lowering import Contraction, Gather, Position, Reduce, Running, Scalar, View
from .builder import Builder
from .forms import Order, elements, inner_of, lowering_of, part_of, sums_of, through_views, whole
from .indices import Index, Variable
from .loops import Value

# Of values that are so many times larger a value does not decide how they lie: a mask, a bias that is spread out.
_AUTHORITY = 16

Axes = tuple[int, ...]
Map = Mapping[int, int]


def orders(graph: Graph) -> dict[Node, Order]:
    """The order of every value that does not lie in row-major order."""
    nodes = [node for node in graph.nodes() if node.inputs]
    if not any(_prefers(node) for node in nodes):
        return {}
    return _Orders(graph, nodes).found()


def _prefers(node: Node) -> bool:
    """Whether a node sums over several axes, so that the order of its values matters."""
    return isinstance(lowering_of(node), Contraction) and len(inner_of(node)) > 1 and node._value is None


class _Orders:
    """Orders spread from where they are known, over whatever moves axes as wholes."""

    def __init__(self, graph: Graph, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.names = names_of(graph)
        written = [node for node in graph.writes.values() if node is not None]
        host = [node for node in nodes if whole(node)]
        outside = [node for node in graph.nodes() if not node.inputs]
        self.fixed = {*graph.sources, *graph.outputs, *written, *host, *outside}
        self.fixed.update(operand for node in host for operand in node.inputs)
        self.fixed.update(node for node in nodes if part_of(node))
        self.maps = _all_maps(nodes)
        self.consumers: dict[Node, list[tuple[Node, int]]] = {}
        for node in nodes:
            for k, operand in enumerate(node.inputs):
                self.consumers.setdefault(operand, []).append((node, k))
        self.known: dict[Node, Order] = {}

    def found(self) -> dict[Node, Order]:
        """First what has to lie as it comes or leaves, then what sums want, in the order in which they are made."""
        given = {node for node in self.fixed if node.ndim > 1}
        for node in sorted(given, key=lambda one: one.serial):
            self.known[node] = Order(tuple(range(node.ndim)), f"as {self.names[node]}")
        self._spread(sorted(given, key=lambda one: one.serial))
        for node in self.nodes:
            if _prefers(node):
                axis = _moved_by_right(node)
                if axis is not None:
                    self._want(node, axis, "the sum runs along it")
        for node in self.nodes:
            if _prefers(node):
                for operand, axis in _operands(node):
                    self._want(operand, axis, f"{self.names[node]} runs along it")
        return {
            node: order
            for node, order in self.known.items()
            if node not in self.fixed and not _row_major(order.axes, node.shape)
        }

    def _want(self, node: Node, axis: int, reason: str) -> None:
        """One axis innermost, if nothing is known yet."""
        if node not in self.known and node not in self.fixed:
            self.known[node] = Order(_innermost(node.ndim, axis), reason)
            self._spread([node])

    def _spread(self, start: Iterable[Node]) -> None:
        """Neighbours that are not known yet follow, theirs next."""
        waiting = deque(start)
        while waiting:
            node = waiting.popleft()
            for other, moves in self._neighbours(node):
                if other in self.known or other in self.fixed or other.ndim < 2:
                    continue
                if elements(other) > _AUTHORITY * elements(node):
                    continue
                axes = _moved(self.known[node].axes, moves, other.ndim)
                if axes is not None:
                    self.known[other] = Order(axes, f"as {self.names[node]}")
                    waiting.append(other)

    def _neighbours(self, node: Node) -> Iterable[tuple[Node, Map]]:
        """Nodes beside this one, with the axis there of axes here."""
        for consumer, k in self.consumers.get(node, ()):
            yield consumer, self.maps[consumer][k]
        if node not in self.fixed or node.inputs:
            for operand, moves in zip(node.inputs, self.maps.get(node, ())):
                yield operand, {there: here for here, there in moves.items()}


def _innermost(ndim: int, axis: int) -> Axes:
    return (*(k for k in range(ndim) if k != axis), axis)


def _row_major(axes: Axes, shape: tuple[int, ...]) -> bool:
    """Whether an order is row-major up to axes of one element."""
    moved = [axis for axis in axes if shape[axis] != 1]
    return moved == sorted(moved)


def _moved(axes: Axes, moves: Map, ndim: int) -> Axes | None:
    """The order of a neighbour: the same where every axis has moved there, else with the same one innermost."""
    if len(moves) == len(axes) == ndim:
        return tuple(moves[axis] for axis in axes)
    return _innermost(ndim, moves[axes[-1]]) if axes[-1] in moves else None


def maps_of(node: Node) -> list[dict[int, int]]:
    """For each operand: the axis of the result along which an axis of the operand is read, where that is one to one."""
    form = lowering_of(node)
    whole = {k: k for k in range(node.ndim)}
    if isinstance(form, Scalar | Running):
        return [dict(whole) if operand.shape == node.shape else {} for operand in node.inputs]
    if isinstance(form, Reduce | Position):
        (x,) = node.inputs
        axes = node.attributes.get("axes", (node.attributes.get("axis"),))
        kept = [axis for axis in range(x.ndim) if axis not in axes]
        same = node.ndim == x.ndim
        return [{axis: axis if same else k for k, axis in enumerate(kept)}]
    if isinstance(form, View | Gather):
        return _read_maps(node, form)
    return [{} for _ in node.inputs]


def _all_maps(nodes: Iterable[Node]) -> dict[Node, list[dict[int, int]]]:
    """The maps of every node; equal operations on equal types are looked at once."""
    known: dict[Any, list[dict[int, int]]] = {}
    found = {}
    for node in nodes:
        key = (
            node.operation,
            node.types,
            tuple(one.type for one in node.inputs),
            tuple(node.attributes.items()),
        )
        if key not in known:
            known[key] = maps_of(node)
        found[node] = known[key]
    return found


class _Recorder:
    """An operand of a `Gather` that notes where it is read."""

    def __init__(self, builder: Builder, node: Node) -> None:
        self.builder, self.node = builder, node
        self.places: list[tuple[Index, ...]] = []

    @property
    def type(self) -> Type:
        """The operand's type."""
        return self.node.type

    def __call__(self, position: Iterable[Index | int]) -> Value:
        self.places.append(tuple(map(Index.of, position)))
        return self.builder.literal(0, self.node.dtype)


def _read_maps(node: Node, form: View | Gather) -> list[dict[int, int]]:
    if not elements(node) or not all(map(elements, node.inputs)):
        return [{} for _ in node.inputs]
    variables = [Variable(f"a{k}", size) for k, size in enumerate(node.shape)]
    position = [Index.of(variable) for variable in variables]
    if isinstance(form, View):
        (x,) = node.inputs
        places = [[tuple(map(Index.of, form.index(position, x.type, node.type, **node.attributes)))]]
    else:
        builder = Builder()
        builder.block, builder.dtype = [], node.dtype
        operands = [_Recorder(builder, operand) for operand in node.inputs]
        form.element(builder, position, operands, node.type, **node.attributes)
        places = [operand.places for operand in operands]
    return [_agreed(given, variables) for given in places]


def _agreed(places: list[tuple[Index, ...]], variables: list[Variable]) -> dict[int, int]:
    """Axes that follow one axis of the result at every reading."""
    found: dict[int, int] = {}
    for axis in range(len(places[0]) if places else 0):
        terms = {place[axis] for place in places}
        (term, *others) = terms
        k = next((k for k, variable in enumerate(variables) if term == Index.of(variable)), None)
        if k is not None and not others and variables[k].extent > 1 and k not in found.values():
            found[axis] = k
    return found


def _moved_by_right(node: Node) -> int | None:
    """The axis of a sum's result that the right operand follows: columns of a product, outputs of a convolution."""
    sums = sums_of(node, _counted())
    return next((k for k, axis in enumerate(sums.axes) if all(_in(part, sums.right) for part in axis)), None)


def _operands(node: Node) -> list[tuple[Node, int]]:
    """What a sum's operands are views of, with the axis along which its vectors run there."""
    sums = sums_of(node, _counted())
    axis = next((axis for axis in sums.axes if all(_in(part, sums.right) for part in axis)), ())
    columns = next((part for part in reversed(axis) if part.extent > 1), None)
    if columns is None:
        return []
    found = []
    for operand, read in zip(node.inputs, (sums.left, sums.right)):
        base, position = through_views(operand, read, lambda one: False)
        place = next((k for k, index in enumerate(position) if index.coefficient(columns)), None)
        if place is not None:
            found.append((base, place))
    return found


def _counted() -> Callable[[int], Variable]:
    """A maker of variables that tells those of one element apart too."""
    return lambda extent: Variable("a", extent)


def _in(variable: Variable, position: Iterable[Index]) -> bool:
    return any(index.coefficient(variable) for index in position)
