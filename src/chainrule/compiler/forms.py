"""How an operation's loops look, with positions filled in: what its lowering says about one node.

Knows nodes, lowerings and indices; knows nothing of groups, buffers or loops.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from ..graph import Graph, Node
from ..ops.lowering import HOST, Contraction, Loop, Lowering, Part, Scalar, Steps, View
from .indices import Index, Variable, offset


class Order(NamedTuple):
    """Axes from the outermost in memory to the innermost, and why they lie like that."""

    axes: tuple[int, ...]
    reason: str


def place_in(axes: Sequence[int], position: Sequence[Index | int], shape: Sequence[int]) -> Index:
    """How far a position is from the first element, with the axes in this order in memory; () is row-major."""
    if not axes:
        return offset(position, shape)
    return offset([position[axis] for axis in axes], [shape[axis] for axis in axes])


def lowering_of(node: Node) -> Lowering:
    """The form of the node's loops; HOST where there are none for operands of these dtypes."""
    form: Lowering = getattr(node.operation, "lowering", HOST)
    if isinstance(form, Scalar):
        if form.only and any(one.dtype.kind not in form.only for one in node.inputs):
            return HOST
    elif isinstance(form, Loop) and not _has_loops(node.attributes["body"]):
        return HOST
    return form


def steps_of(node: Node) -> Steps:
    """What a loop over time runs, and how often."""
    return Steps(**node.attributes)


def whole(node: Node) -> bool:
    """Whether a node takes its operands as arrays in row-major order: NumPy does, and a loop over time."""
    form = lowering_of(node)
    return form is HOST or isinstance(form, Loop)


def part_of(node: Node) -> bool:
    """Whether a node is one of several results, stored by what computes them."""
    return isinstance(lowering_of(node), Part)


_whole_bodies: weakref.WeakKeyDictionary[Graph, bool] = weakref.WeakKeyDictionary()


def _has_loops(body: Graph) -> bool:
    """Whether everything in a body can be written as loops."""
    if body not in _whole_bodies:
        inner = [node for node in body.nodes() if node.inputs]
        _whole_bodies[body] = all(lowering_of(node) is not HOST for node in inner)
    return _whole_bodies[body]


def elements(node: Node) -> int:
    """Number of elements of the result."""
    return prod(node.shape)


def inner_of(node: Node) -> tuple[int, ...]:
    """Extents of the axes that a contraction sums over."""
    form = lowering_of(node)
    assert isinstance(form, Contraction)
    x, y = node.inputs
    return tuple(form.inner(x.type, y.type, **node.attributes))


@dataclass(frozen=True)
class Sums:
    """A contraction over variables: those of each axis of its result, those that are summed over, and where the
    result and both operands are touched for them.
    """

    axes: tuple[tuple[Variable, ...], ...]
    inner: tuple[Variable, ...]
    result: tuple[Index, ...]
    left: tuple[Index, ...]
    right: tuple[Index, ...]


def sums_of(node: Node, variable: Callable[[int], Variable], view: Node | None = None) -> Sums:
    """The contraction of a node over new variables, made by `variable(extent)`.

    view: the result is seen through it: variables are those of its axes, and nothing else is computed.
    """
    form = lowering_of(node)
    assert isinstance(form, Contraction)
    x, y = node.inputs
    parts = (
        [(size,) for size in node.shape] if form.parts is None else form.parts(node.type, **node.attributes)
    )
    if view is None:
        axes = [tuple(map(variable, one)) for one in parts]
        at = [Index.of(part) for axis in axes for part in axis]
    else:
        seen = axes_seen(view)
        assert seen is not None
        axes, at = _seen_parts(view, seen, [tuple(one) for one in parts], variable)
    inner = tuple(map(variable, inner_of(node)))
    left, right = form.places(at, list(map(Index.of, inner)), x.type, y.type, **node.attributes)
    result = []
    for axis in axes:
        whole = Index(0)
        for part in axis:
            whole = whole * part.extent + Index.of(part)
        result.append(whole)
    return Sums(tuple(axes), inner, tuple(result), _indices(left), _indices(right))


Seen = tuple[tuple[int, int, int], ...]
"""For each axis of a view's operand: the view's axis that moves along it, where it starts, how far it steps."""


def axes_seen(view: Node) -> Seen | None:
    """How a view shows whole axes of its operand, cut or in another order; None if it does something else."""
    form = lowering_of(view)
    if not isinstance(form, View) or view.ndim != view.inputs[0].ndim:
        return None
    (x,) = view.inputs
    variables = [Variable("a", size) for size in view.shape]
    found: list[tuple[int, int, int]] = []
    for term in form.index(list(map(Index.of, variables)), x.type, view.type, **view.attributes):
        index = Index.of(term)
        moving = [k for k, one in enumerate(variables) if index.coefficient(one)]
        if len(index.terms) != 1 or len(moving) != 1:
            return None
        found.append((moving[0], index.constant, index.coefficient(variables[moving[0]])))
    return tuple(found) if len({axis for axis, _, _ in found}) == view.ndim else None


def _seen_parts(
    view: Node, seen: Seen, parts: list[tuple[int, ...]], variable: Callable[[int], Variable]
) -> tuple[list[tuple[Variable, ...]], list[Index]]:
    """(variables of the view's axes, the position in what it shows, part by part)."""
    axes: list[tuple[Variable, ...]] = [()] * view.ndim
    at: list[Index] = []
    for (axis, start, step), extents in zip(seen, parts, strict=True):
        whole = (start, step) == (0, 1) and view.shape[axis] == prod(extents)
        axes[axis] = tuple(map(variable, extents if whole else (view.shape[axis],)))
        at += [Index.of(part) * step + start for part in axes[axis]]
    return axes, at


def shows_parts(view: Node, node: Node) -> bool:
    """Whether a contraction can be computed as a view of its result is: axes that are counted in parts stay whole."""
    form, seen = lowering_of(node), axes_seen(view)
    if not isinstance(form, Contraction) or seen is None or not elements(view):
        return False
    if form.parts is None:
        return True
    parts = form.parts(node.type, **node.attributes)
    return all(
        len(extents) == 1 or ((start, step) == (0, 1) and view.shape[axis] == size)
        for (axis, start, step), extents, size in zip(seen, parts, node.shape, strict=True)
    )


def through_views(
    node: Node, position: Sequence[Index | int], stops: Callable[[Node], bool]
) -> tuple[Node, tuple[Index, ...]]:
    """The node behind views (down to one at which `stops` says so) whose element is read, and where."""
    while not stops(node):
        form = lowering_of(node)
        if not isinstance(form, View):
            break
        (x,) = node.inputs
        position = form.index(list(position), x.type, node.type, **node.attributes)
        node = x
    return node, _indices(position)


def _indices(position: Sequence[Any]) -> tuple[Index, ...]:
    return tuple(map(Index.of, position))
