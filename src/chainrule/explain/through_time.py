"""A weight shared by the steps of a loop: what each step adds to its gradient, and how far a gradient reaches back.

∂L/∂w = Σ_t (what step t adds), and ∂h_T/∂h_t is the product of the Jacobians of the steps between: it shrinks or grows
with every factor (Hochreiter 1991; Bengio, Simard and Frasconi, "Learning long-term dependencies with gradient descent
is difficult", 1994).
Knows graphs and recurrences, arrays and words; draws nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import ops
from ..autodiff import Contribution, gradients
from ..graph import Node, topological
from ..language import sentence
from ..operations import CONSTANT, Array
from .data import numbers
from .numbers import brief, digits, show
from .recurrence import Recurrence, Start, Use, recurrence
from .section import Block, Section, Table
from .shares import OUTSIDE, shares_by_step
from .unrolling import count_operations, unrolled

# Elements of a state or a weight that are listed; larger ones are told by their norm.
LISTED = 4

# Rows of the table: the first and the last steps.
_FIRST, _LAST = 6, 14

# A state of up to so many numbers is measured along all directions; a larger one along some.
_WHOLE, _SOME = 64, 12

# A longer loop is told of only if somebody asks for it.
_BY_ITSELF = 3_000

# A gradient that comes back with less than a third of its size, or more than three times of it, does not hold it.
_VANISHES, _EXPLODES = 1 / 3, 3.0

# How many of the last steps bring most of the gradient.
_MOST = 0.9


@dataclass(frozen=True, slots=True)
class Moment:
    """Step t: its state h_t, ∂L/∂h_t, ∂h_T/∂h_t with its largest stretch, and what the step adds to ∂L/∂w.

    jacobian: (size of h_T, size of h_t), None if too large to be kept. stretch: the largest singular value, at least
    this where only some directions were measured.
    """

    step: int
    state: Array | None
    gradient: Array | None
    jacobian: Array | None
    stretch: float | None
    share: Array | None


@dataclass(slots=True)
class ThroughTime(Section):
    """The section. `moments` from h_0 (or the first step) to h_T; `outside`: what comes from no step."""

    kind: ClassVar[str] = "through_time"

    weight: str
    root: str
    state: str
    moments: list[Moment]
    outside: Array | None
    gradient: Array
    whole: bool
    parts: int

    @property
    def steps(self) -> int:
        """T, the number of the last step."""
        return self.moments[-1].step

    @property
    def rate(self) -> float | None:
        """By which factor a gradient grows with each step back, on average; None for a single state."""
        measured = [(one.step, one.stretch) for one in self.moments if one.stretch is not None]
        if len(measured) < 2 or not math.isfinite(measured[0][1]):
            return None
        # Where a long product has shrunk to 0, the steps behind that tell the rate.
        step, reach = next(((t, one) for t, one in measured[:-1] if one), measured[-2])
        return float(reach ** (1 / (measured[-1][0] - step)))

    @property
    def verdict(self) -> str:
        """ "vanishes", "explodes", "holds", or "unknown" where numbers are not finite or there is one state."""
        if self.rate is None:
            return "unknown"
        reach = next(one.stretch for one in self.moments if one.stretch is not None)
        return "vanishes" if reach < _VANISHES else "explodes" if reach > _EXPLODES else "holds"

    # ------------------------------------------------------------------------------------- told

    def heading(self, language: str) -> str:
        """Which weight, and over how many steps."""
        count = len([one for one in self.moments if one.share is not None])
        return sentence("time.heading", language, weight=self.weight, count=count, root=self.root)

    def blocks(self, language: str) -> list[Block]:
        """The table over time, how the shares add up, and what the product of Jacobians does."""
        found: list[Block] = [self._table(language)]
        if not self._adds_up():
            gradient = self._shown(self.gradient, language)
            found.append(
                sentence("time.hooked", language, weight=self.weight, root=self.root, gradient=gradient)
            )
        if self.parts > 1:
            found.append(sentence("time.parts", language, state=self.state, count=self.parts))
        found += self._recent(language)
        if self.rate is not None:
            found += self._product(language)
        return found

    def _adds_up(self) -> bool:
        scale = max((float(np.abs(one).max(initial=0)) for one in self._shares()), default=0.0)
        if not math.isfinite(scale):
            return True
        noise = float(np.finfo(self.gradient.dtype).eps) * 100 * len(self.moments) * (scale or 1.0)
        return bool(np.allclose(self.total, self.gradient, rtol=1e-3, atol=noise, equal_nan=True))

    @property
    def _scalar(self) -> bool:
        """Is a state one number?"""
        return all(one.jacobian is not None and one.jacobian.size == 1 for one in self.moments if one.stretch)

    @property
    def _large(self) -> bool:
        """Is a state too large to be listed?"""
        return any(one.state is not None and one.state.size > LISTED for one in self.moments)

    def _shares(self) -> list[Array]:
        found = [one.share for one in self.moments if one.share is not None]
        return found if self.outside is None else [*found, self.outside]

    @property
    def total(self) -> Array:
        """The sum of all shares."""
        return np.asarray(sum(self._shares(), np.zeros_like(self.gradient)))

    def _shown(self, value: Array, language: str) -> str:
        return show(value, LISTED, language) if value.size <= LISTED else f"‖·‖ = {_norm(value)}"

    def _table(self, language: str) -> Table:
        weight, root = self.weight, self.root
        reach = f"∂{self.state}_{self.steps}/∂{self.state}_t"
        arriving = f"∂{root}/∂{self.state}_t"
        norm = "time.adds_norm" if self.gradient.size > LISTED else "time.norm"
        heads = [
            "t", f"{self.state}_t", f"‖{arriving}‖" if self._large else arriving,
            reach if self._scalar else f"‖{reach}‖", sentence("time.factor", language),
            sentence("time.adds", language, weight=weight, root=root),
            sentence(norm, language, weight=weight, root=root),
        ]  # fmt: skip
        rows = [self._row(k) for k in range(len(self.moments))]
        left = len(rows) - _FIRST - _LAST
        if left > 1:
            middle = sentence("time.more", language, count=left)
            told = [f"… {middle}", ""] if self._large else ["…", middle]  # a column of nothing is left out
            rows[_FIRST:-_LAST] = [[*told, *("" for _ in heads[2:])]]
        sums = [("time.sum", self.total)]
        if self.outside is not None:
            sums.insert(0, ("time.outside", self.outside))
        for key, value in sums:
            norm = "" if self.gradient.size == 1 else _norm(value)
            rows.append([sentence(key, language), *("" for _ in heads[3:]), brief(value, LISTED), norm])
        return Table(heads, rows, total=True)

    def _row(self, k: int) -> list[str]:
        one = self.moments[k]
        before = self.moments[k - 1] if k else None
        factor = ""
        if before is not None and one.stretch and before.stretch is not None:
            factor = digits(before.stretch / one.stretch)
        bound = "" if self.whole or one.stretch is None or one.step == self.steps else "≥ "
        norm = "" if one.share is None or self.gradient.size == 1 else _norm(one.share)
        arriving = (
            _norm(one.gradient) if self._large and one.gradient is not None else brief(one.gradient, LISTED)
        )
        reach = "" if one.stretch is None else digits(one.stretch)
        if self._scalar and one.jacobian is not None:
            reach = digits(one.jacobian.item())
        return [
            str(one.step), brief(one.state, LISTED), arriving, bound + reach, factor, brief(one.share, LISTED), norm,
        ]  # fmt: skip

    def _recent(self, language: str) -> list[Block]:
        """How few of the last steps bring most of the gradient."""
        sizes = [float(np.linalg.norm(one.share)) for one in self.moments if one.share is not None]
        if not math.isfinite(math.fsum(sizes)) or not math.fsum(sizes):
            return []
        count, reached = 0, 0.0
        while reached < _MOST * math.fsum(sizes):
            count += 1
            reached += sizes[-count]
        share = f"{reached / math.fsum(sizes):.0%}"
        return (
            []
            if 2 * count > len(sizes)
            else [sentence("time.recent", language, count=count, steps=len(sizes), share=share)]
        )

    def _product(self, language: str) -> list[Block]:
        measured = [one for one in self.moments if one.stretch is not None]
        first, factors = measured[0], measured[-1].step - measured[0].step
        rate = self.rate or 0.0
        values = {
            "state": self.state, "last": self.steps, "first": first.step, "count": factors,
            "stretch": digits(first.stretch), "rate": digits(rate), "hundred": digits(_power(rate, 100)),
        }  # fmt: skip
        keys = ["time.product" if self.whole else "time.product_some", "time.rate", f"time.{self.verdict}"]
        return [sentence(key, language, **values) for key in keys]

    def data(self, full: bool = False) -> dict[str, Any]:
        """Everything with all digits; a state of several parts is one flat list."""
        return {
            "weight": self.weight,
            "moments": [
                {
                    "step": one.step,
                    "state": numbers(one.state, full),
                    "gradient": numbers(one.gradient, full),
                    "jacobian": numbers(one.jacobian, full),
                    "stretch": None if one.stretch is None else numbers(np.asarray(one.stretch)),
                    "share": numbers(one.share, full),
                }
                for one in self.moments
            ],
            "outside": numbers(self.outside, full),
            "sum": numbers(self.total, full),
            "gradient": numbers(self.gradient, full),
            "rate": self.rate,
            "verdict": self.verdict,
        }


def _norm(value: Array) -> str:
    with np.errstate(all="ignore"):
        return digits(np.linalg.norm(value.astype(np.float64)))


def _power(rate: float, count: int) -> float:
    try:
        return rate**count
    except OverflowError:
        return math.inf


# ------------------------------------------------------------------------------------------- computing


def through_time(
    root: Node, seed: Array, weight: Node | None, named: Mapping[Node, str], root_name: str
) -> ThroughTime | None:
    """The section about `weight` (None: about the weight of the only loop there is), None if there is no loop.

    named: names of nodes as far as they have one. A weight that meets its own result twice without a loop around is
    no loop either: that is a shared layer.
    """
    if weight is None and count_operations(root) > _BY_ITSELF:
        return None
    end, made = unrolled(root)
    target = made.get(weight, weight) if weight is not None else None
    assert target is None or isinstance(target, Node)
    order = _ordered(end)
    found = recurrence(order, target)
    if found is None or not (found.looped or found.steps > 2) or (weight is None and not found.looped):
        return None
    names = {one: name for node, name in named.items() if isinstance(one := made.get(node, node), Node)}
    if found.initial:
        end, made = unrolled(end, _movable(found.initial))
        order = _ordered(end)
        target = None if target is None else _same(made, target)
        names = {_same(made, node): name for node, name in names.items()}
        found = recurrence(order, target) or found
    target = target or found.clock
    return _tell(order, end, seed, target, found, names, root_name)


def _same(made: Mapping[Node, Any], node: Node) -> Node:
    other = made.get(node, node)
    return other if isinstance(other, Node) else node


def _ordered(root: Node) -> list[Node]:
    return [node for node in topological([root]) if node.requires_grad]


def _movable(starts: Sequence[Start]) -> dict[Use, Node]:
    """Leaves in the place of constants, so that there is a slope to them."""
    found: dict[Use, Node] = {}
    for start in starts:
        reader, index = start.slots[0]
        value = np.reshape(reader.inputs[index].value, start.shape)
        leaf = Node(CONSTANT, value=value, requires_grad=True)
        for reader, index in start.slots:
            other = reader.inputs[index]
            if np.array_equal(np.ravel(other.value), np.ravel(value), equal_nan=True):
                same = other.shape == start.shape
                found[reader, index] = leaf if same else ops.reshape.node((leaf,), {"shape": other.shape})
    return found


def _tell(
    order: Sequence[Node],
    end: Node,
    seed: Array,
    weight: Node,
    found: Recurrence,
    names: Mapping[Node, str],
    root_name: str,
) -> ThroughTime | None:
    arrived: dict[Node, Any] = {}
    gradients([end], [seed], visit=arrived.__setitem__)
    shares = shares_by_step(order, arrived, found.step_of, weight)
    outside = shares.pop(OUTSIDE, None)
    if len(shares) < 2:
        return None
    jacobians, whole = _jacobians(found)
    moments = []
    for t, state in enumerate(found.states):
        if not state and t not in shares:
            continue
        jacobian = jacobians.get(t)
        moments.append(
            Moment(
                t,
                _flat([node.value for node in state]),
                _flat([arrived.get(node, np.zeros(node.shape, node.dtype)) for node in state]),
                jacobian if whole else None,
                None if jacobian is None else _stretch(jacobian),
                None if t not in shares else np.asarray(shares[t]),
            )
        )
    return ThroughTime(
        names.get(weight, "w"), root_name, _letter(found.states[-1], names), moments,
        outside, np.asarray(arrived[weight]), whole, len(found.states[-1]),
    )  # fmt: skip


def _letter(state: Sequence[Node], names: Mapping[Node, str]) -> str:
    """What the state is called: the variable that holds the last one, without an index; s if it has several parts."""
    if len(state) > 1:
        return "s"
    name = names.get(state[0], "")
    head = name.partition("[")[0].rstrip("0123456789")
    made_up = head in ("v", "z", "c", "leaf", "out") and name != head
    return head if head.isidentifier() and len(head) <= 8 and not made_up else "h"


def _flat(parts: Sequence[Any]) -> Array | None:
    return np.concatenate([np.ravel(one) for one in parts]) if parts else None


def _stretch(jacobian: Array) -> float:
    """The largest singular value: by how much the longest of all vectors of length 1 comes out longer."""
    wide = jacobian.astype(np.float64)
    if not np.isfinite(wide).all():
        return math.nan
    return float(np.linalg.norm(wide, 2))


def _jacobians(found: Recurrence) -> tuple[dict[int, Array], bool]:
    """∂h_T/∂h_t for every t (rows: directions of h_T), and whether every direction was measured."""
    ends = found.states[-1]
    sizes = [math.prod(node.shape) for node in ends]
    total = sum(sizes)
    whole = total <= _WHOLE
    count = total if whole else _SOME
    directions = np.eye(total) if whole else _orthonormal(count, total)
    rows: dict[int, list[Array]] = {t: [] for t, state in enumerate(found.states) if state}
    place = {node: (t, k) for t, state in enumerate(found.states) for k, node in enumerate(state)}
    for direction in directions:
        for t, row in _row_of_each(found, place, direction, sizes).items():
            rows[t].append(row)
    return {t: np.stack(found_rows) for t, found_rows in rows.items()}, whole


def _orthonormal(count: int, size: int) -> Array:
    """So many directions at right angles, the same ones every time."""
    drawn = np.random.default_rng(0).standard_normal((size, count))
    return np.asarray(np.linalg.qr(drawn)[0].T)


def _row_of_each(
    found: Recurrence, place: Mapping[Node, tuple[int, int]], direction: Array, sizes: Sequence[int]
) -> dict[int, Array]:
    """direction · ∂h_T/∂h_t for every t: what later steps send back to the state, parts side by side."""
    ends = found.states[-1]
    pieces = np.split(direction, np.cumsum(sizes)[:-1])
    cotangents = [one.reshape(node.shape).astype(node.dtype) for one, node in zip(pieces, ends)]
    passed: list[Contribution] = []
    gradients(ends, cotangents, contributions=passed)
    sums: dict[Node, Any] = {}
    for one in passed:
        operand = one.node.inputs[one.operand]
        if operand not in place:
            continue
        t = place[operand][0]
        if found.step_of.get(one.node, -1 if t else 1) > t:
            sums[operand] = sums[operand] + one.outgoing if operand in sums else one.outgoing
    rows = {}
    for t, state in enumerate(found.states[:-1]):
        if state:
            rows[t] = np.concatenate([np.ravel(sums.get(node, np.zeros(node.shape))) for node in state])
    rows[len(found.states) - 1] = direction
    return rows
