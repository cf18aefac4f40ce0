"""Values with bounds of the rounding that machine code may have put into them.

A group is computed once more in float64 from its own operands; beside every element stands how far a correct
computation in the group's own dtype can be from it. A bound has three parts: what the operands' bounds become (the
operation is computed at their ends, which also tells where a comparison, a choice or a step may fall either way), the
rounding of the operation itself, and for sums and products n roundings of the sum of absolute terms.
Source of the bounds: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., 2002, §3 and §4.2.
Knows nodes, and operations by kind and lowering, never by name; knows nothing of buffers and machine code.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from ..compiler.forms import inner_of
from ..dtypes import Dtype, float32, float64
from ..graph import Graph, Node, topological
from ..operations import Array, Attributes
from ..ops.kinds import Linear
from ..ops.lowering import Contraction, Loop, Part, Position, Reduce, Running, Scalar, Steps
from ..ops.totals import BLOCK, kept_in, product_roundings, running_in

# Roundings that a function of the C library, or one written out as a polynomial, may be away.
_COSTLY = 8


@dataclass(eq=False)
class Bounded:
    """An array, wide, and how far each element may be from what is computed elsewhere (None: not at all).

    The bound of a bool is above 0 where it may be the other one. Infinity: nothing can be said about the element.
    """

    value: Array
    error: Array | None = None


def exact(array: Any) -> Bounded:
    """Numbers as they are."""
    return Bounded(widened(np.asarray(array)))


def widened(array: Array) -> Array:
    """float32 as float64; everything else as it is."""
    return array.astype(float64) if array.dtype == float32 else array


class Evaluator:
    """Values of nodes from those of others.

    `fine`: take float32 for float64, as if everything were computed wide. `bounded`: with bounds of what is computed;
    without them only values. `own`: sums are kept as `ops/totals.py` says; else in any order, in their own type.
    """

    def __init__(self, fine: bool = False, bounded: bool = True, own: bool = True) -> None:
        self.fine = fine
        self.bounded = bounded
        self.own = own

    def node(self, node: Node, operands: list[Bounded]) -> Bounded:
        """What the node's operation makes of its operands, with the bound for the node's own dtype."""
        body, attributes = self._body(node)
        with ops.quiet():
            value = self._in_range(np.asarray(body(*(one.value for one in operands))), node.dtype)
            error = self._error(node, operands, value, body, attributes) if self.bounded else None
        return Bounded(value, error)

    def all(self, nodes: Iterable[Node], known: Mapping[Node, Bounded]) -> dict[Node, Bounded]:
        """The known values and those of the nodes, which come after their operands."""
        values = dict(known)
        for node in nodes:
            if node not in values:
                values[node] = self._node(node, values)
        return values

    def graph(self, graph: Graph, sources: Mapping[Node, Array]) -> dict[Node, Bounded]:
        """Values of everything that the graph computes."""
        known = {node: exact(array) for node, array in sources.items()}
        return self.all(topological(graph.roots, follow=lambda node: node not in known), known)

    def _node(self, node: Node, values: Mapping[Node, Any]) -> Any:
        if not node.inputs:
            return exact(node.value)
        form = getattr(node.operation, "lowering", None)
        operands = [values[operand] for operand in node.inputs]
        if isinstance(form, Loop):
            return self.steps(node, operands)
        return operands[0][node.attributes["index"]] if isinstance(form, Part) else self.node(node, operands)

    def steps(
        self, node: Node, operands: Sequence[Bounded], stored: Mapping[int, Array] | None = None
    ) -> list[Bounded]:
        """Every result of a loop over time, step after step.

        stored: stacked results by number, as they are elsewhere. What is carried and stacked is taken from there for
        the next step, so that differences do not pile up.
        """
        steps, stored = Steps(**node.attributes), stored or {}
        body: Graph = steps.body
        nodes = [one for one in body.nodes() if one not in body.inputs]
        carries = list(operands[: steps.carries])
        first = steps.carries + steps.stacked
        entries, shared = operands[steps.carries : first], operands[first:]
        rows: list[list[Bounded]] = []
        times = list(reversed(range(steps.length)) if steps.reverse else range(steps.length))
        for count, t in enumerate(times):
            before = dict(zip(body.inputs, carries))
            for k in range(steps.carries if count else 0):
                for place, array in stored.items():
                    if body.outputs[place] is body.inputs[k]:
                        carries[k] = exact(array[t])
            given = (*carries, *(_entry(one, t) for one in entries), *shared)
            found = self.all(nodes, dict(zip(body.inputs, given)))
            results = [found[one] for one in body.outputs]
            # Stacked as it came in, a carry is what the step before has made of it: not what is stored itself.
            rows.append([before.get(one, found[one]) for one in body.outputs[steps.carries :]])
            carries = results[: steps.carries]
            for k in range(steps.carries):
                for place, array in stored.items():
                    if body.outputs[place] is body.outputs[k]:
                        carries[k] = exact(array[t])
        if steps.reverse:
            rows.reverse()
        stacked = enumerate(body.outputs[steps.carries :])
        return [*carries, *(_stack([row[k] for row in rows], one) for k, one in stacked)]

    # ------------------------------------------------------------------------------- one operation

    def _body(self, node: Node) -> tuple[Callable[..., Array], Attributes]:
        attributes = {
            name: float64 if isinstance(given, np.dtype) and given == float32 else given
            for name, given in node.attributes.items()
        }
        return lambda *values: node.operation.body(ops.NUMPY, *values, **attributes), attributes

    def unit(self, dtype: Dtype) -> float:
        """The distance from 1 to the next number; 0 for whole numbers."""
        if dtype.kind != "f":
            return 0.0
        return float(np.finfo(float64 if self.fine else dtype).eps)

    def _tiny(self, dtype: Dtype) -> float:
        return (
            8 * float(np.finfo(float64 if self.fine else dtype).smallest_subnormal)
            if dtype.kind == "f"
            else 0.0
        )

    def _in_range(self, value: Array, dtype: Dtype) -> Array:
        """Infinite where the dtype's own range ends."""
        if dtype != float32 or self.fine:
            return value
        largest = float(np.finfo(float32).max)
        return np.where(np.abs(value) > largest * (1 + 2.0**-25), np.copysign(np.inf, value), value)

    def _error(
        self,
        node: Node,
        operands: list[Bounded],
        value: Array,
        body: Callable[..., Array],
        attributes: Attributes,
    ) -> Array | None:
        form = getattr(node.operation, "lowering", None)
        uncertain = any(one.error is not None for one in operands)
        if node.dtype.kind != "f" and not uncertain:
            return None
        if isinstance(form, Scalar):
            return self._scalar(node, operands, value, body)
        if isinstance(form, Contraction):
            return self._product(node, operands, body)
        if isinstance(form, Reduce) and not form.grouped:
            return _none_if_zero(_spread(body, operands, value)) if uncertain else None
        if isinstance(form, Position) and uncertain:
            return _none_if_zero(_tied(operands[0], value, attributes["axis"]))
        if isinstance(node.operation, Linear):
            return self._linear(node, operands, value, body)
        return np.full(value.shape, np.inf) if uncertain else None

    # ------------------------------------------------------------------------------- elementwise

    def _scalar(
        self, node: Node, operands: list[Bounded], value: Array, body: Callable[..., Array]
    ) -> Array | None:
        total = _spread(body, operands, value)
        if node.dtype.kind == "f":
            costly = getattr(node.operation, "cost", "cheap") == "costly"
            size = np.where(np.isfinite(value), np.abs(value), 0.0)
            rounding = self.unit(node.dtype) * (_COSTLY if costly else 1) * size
            if costly:
                rounding = rounding + self._backward(node, operands, value, body)
            else:
                rounding = np.where(self._kept(node, operands, value), 0.0, rounding)
            rounding = rounding + np.where(rounding > 0, self._tiny(node.dtype), 0.0)
            total = total + rounding
        return _none_if_zero(total)

    def _kept(self, node: Node, operands: list[Bounded], value: Array) -> Array:
        """Where nothing was rounded: the result is an operand, up to its sign, or a number that the dtype has."""
        same = np.zeros(value.shape, bool)
        if any(one.error is not None for one in operands):
            return same
        for one, given in zip(operands, node.inputs):
            if given.dtype == node.dtype:
                same |= np.abs(one.value) == np.abs(value)
        if node.dtype == float32 and not self.fine:
            same |= value.astype(float32) == value
        return same

    def _backward(
        self, node: Node, operands: list[Bounded], value: Array, body: Callable[..., Array]
    ) -> Array:
        """What one rounding of each operand would do: a function may be computed for a neighbour of its operand."""
        unit, total = self.unit(node.dtype), np.zeros(value.shape)
        for k, one in enumerate(operands):
            if one.value.dtype.kind != "f":
                continue
            for factor in (1 - unit, 1 + unit):
                moved = [other.value * factor if j == k else other.value for j, other in enumerate(operands)]
                away = np.abs(body(*moved) - value)
                total = np.maximum(total, np.where(np.isfinite(away), away, 0.0))
        return total

    # ------------------------------------------------------------------------------- sums and products

    def _linear(
        self, node: Node, operands: list[Bounded], value: Array, body: Callable[..., Array]
    ) -> Array | None:
        """Places, sums, scatters: 0 or 1 times each element of the operands."""
        if any(one.error is not None and one.value.dtype.kind not in "fiub" for one in operands):
            return np.full(value.shape, np.inf)
        given = [k for k, one in enumerate(operands) if one.value.dtype.kind == "f"] or [0]
        chosen = [one for k, one in enumerate(operands) if k not in given]
        if any(one.error is not None for one in chosen):
            return np.full(value.shape, np.inf)

        def apply(replaced: Callable[[Bounded], Array]) -> Array:
            return np.asarray(
                body(*(replaced(one) if k in given else one.value for k, one in enumerate(operands)))
            )

        total = np.zeros(value.shape)
        if any(one.error is not None for one in operands):
            total = apply(lambda one: np.zeros(one.value.shape) if one.error is None else one.error * 1.0)
            total = np.where(np.isnan(total), np.inf, total)
        if node.dtype.kind == "f":
            total = total + self._adding(node, value, apply)
        return _none_if_zero(total)

    def _adding(
        self, node: Node, value: Array, apply: Callable[[Callable[[Bounded], Array]], Array]
    ) -> Array:
        """n − 1 roundings of the sum of the absolute terms; those of a block where blocks are added up in float64."""
        counts = apply(lambda one: np.ones(one.value.shape))
        if counts.size == 0 or counts.max() <= 1:
            return np.zeros(value.shape)
        absolute = apply(lambda one: np.where(np.isfinite(one.value), np.abs(one.value), 0.0))
        unit, kept = self.unit(node.dtype), self._kept_in(node, int(counts.max()))
        if kept != node.dtype and not self.fine:
            block = 0 if isinstance(node.operation.lowering, Running) else BLOCK  # type: ignore[attr-defined]
            size = np.abs(np.where(np.isfinite(value), value, 0.0))
            return unit * size + np.minimum(counts, block) * unit * absolute + counts * 2.0**-52 * absolute
        return self._overflow(node, absolute, np.maximum(counts - 1, 0) * unit * absolute)

    def _kept_in(self, node: Node, terms: int) -> Dtype:
        """The type in which the sums of a node grow."""
        form = getattr(node.operation, "lowering", None)
        if isinstance(form, Running) and self.own:
            return running_in(node.dtype)
        return kept_in(node.dtype, terms) if isinstance(form, Reduce) and self.own else node.dtype

    def _product(self, node: Node, operands: list[Bounded], body: Callable[..., Array]) -> Array | None:
        x, y = operands
        finite = [np.where(np.isfinite(one.value), np.abs(one.value), 0.0) for one in operands]
        absolute = body(*finite)
        terms = math.prod(inner_of(node))
        terms = product_roundings(terms) if self.own else terms
        error = self._overflow(node, absolute, terms * self.unit(node.dtype) * absolute)
        for one, other, first in ((x, finite[1], True), (y, finite[0], False)):
            if one.error is not None:
                error = error + (body(one.error, other) if first else body(other, one.error))
        if x.error is not None and y.error is not None:
            error = error + body(x.error, y.error)
        tiny = self._tiny(node.dtype) * terms
        return _none_if_zero(np.where(np.isnan(error), np.inf, error + np.where(absolute > 0, tiny, 0.0)))

    def _overflow(self, node: Node, absolute: Array, error: Array) -> Array:
        """Nothing can be said where a partial sum may have left the range."""
        limit = float(np.finfo(float64 if self.fine else node.dtype).max)
        return np.where(absolute > limit, np.inf, error)


def _entry(stack: Bounded, t: int) -> Bounded:
    return Bounded(stack.value[t, ...], None if stack.error is None else np.asarray(stack.error)[t, ...])


def _stack(rows: list[Bounded], node: Node) -> Bounded:
    """The results of all steps as one array."""
    if not rows:
        return exact(np.empty((0, *node.shape), node.dtype))
    value = np.stack([one.value for one in rows])
    if all(one.error is None for one in rows):
        return Bounded(value)
    shape = value.shape[1:]
    errors = [np.zeros(shape) if one.error is None else np.broadcast_to(one.error, shape) for one in rows]
    return Bounded(value, np.stack(errors))


def _none_if_zero(error: Array) -> Array | None:
    return error if error.any() else None


def _spread(body: Callable[..., Array], operands: list[Bounded], value: Array) -> Array:
    """How far the result moves if every operand may be anywhere within its bound."""
    total = np.zeros(value.shape)
    if all(one.error is None for one in operands):
        return total
    for signs in itertools.product(*map(_ends, operands)):
        corner = np.asarray(body(*(_moved(one, sign) for one, sign in zip(operands, signs))))
        if value.dtype.kind == "b":
            away = (corner != value).astype(float64)
        else:
            away = np.abs(corner.astype(float64) - value.astype(float64))
            same = (corner == value) | ((corner != corner) & (value != value))  # noqa: PLR0124
            away = np.where(same, 0.0, np.where(np.isnan(away), np.inf, away))
        total = np.maximum(total, away)
    return total


def _ends(one: Bounded) -> tuple[int, ...]:
    """Which ends of an operand are looked at; where one is infinite, what others do beside the value itself too."""
    if one.error is None:
        return (0,)
    return (-1, 0, 1) if np.isinf(one.error).any() else (-1, 1)


def _moved(one: Bounded, sign: int) -> Array:
    """The operand at one end of its bound, or as it is."""
    value, error = one.value, one.error
    if error is None or sign == 0:
        return value
    if value.dtype.kind == "b":
        return np.asarray(value | (error > 0) if sign > 0 else value & ~(error > 0))
    if value.dtype.kind in "iu":
        return np.asarray(ops.NUMPY.cast(np.round(value + sign * error), value.dtype))
    return np.asarray(value + sign * error)


def _tied(x: Bounded, position: Array, axis: int) -> Array:
    """Infinite where another element may be as good as the chosen one."""
    assert x.error is not None
    error = np.broadcast_to(x.error, x.value.shape)
    at = np.expand_dims(position, axis)
    best, slack = np.take_along_axis(x.value, at, axis), np.take_along_axis(error, at, axis)
    near = ~(np.abs(x.value - best) > error + slack)
    near &= np.arange(x.value.shape[axis]).reshape([-1] + [1] * (x.value.ndim - axis - 1)) != at
    return np.where(near.any(axis), np.inf, 0.0)


def disagreements(got: Array, wanted: Bounded, dtype: Dtype) -> tuple[Array, Array, float]:
    """(where they differ, where nothing can be said, the largest share of a bound that is used)."""
    value = np.asarray(wanted.value)
    error = np.zeros(value.shape) if wanted.error is None else np.broadcast_to(wanted.error, value.shape)
    if dtype == float64:
        error = 2 * error  # what it is compared with is rounded as often
    mine = widened(got)
    if value.dtype.kind != "f":
        error = np.asarray(error, float64)
        differs = (mine != value) & (error == 0) if value.dtype.kind == "b" else _beyond(mine, value, error)
        return differs, ~np.isfinite(error) | ((error > 0) & (value.dtype.kind == "b")), 0.0
    with np.errstate(all="ignore"):
        away = np.abs(mine - value)
        same = (mine == value) | (np.isnan(mine) & np.isnan(value))
        differs = ~same & ~(away <= error)
        share = np.where(
            ~same & (error > 0) & np.isfinite(error), away / np.where(error > 0, error, 1.0), 0.0
        )
    largest = float(share[~differs].max(initial=0.0)) if share.size else 0.0
    return differs & np.isfinite(error), ~np.isfinite(error), largest


def _beyond(mine: Array, value: Array, error: Array) -> Array:
    with np.errstate(all="ignore"):
        away = np.abs(mine.astype(float64) - value.astype(float64))
    return np.asarray(np.where(error > 0, away > error, mine != value) & np.isfinite(error))
