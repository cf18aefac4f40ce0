"""Batch normalization taken apart: nine steps forward, nine back, and the three ways from x to the output.

The steps are those of Kratzert, "Understanding the backward pass through batch normalization layer", 2016. The engine
computes the same with fewer passes; the numbers here are computed step by step and must agree with its own.
Knows how a call of batch_norm looks in a graph; draws nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..autodiff import Contribution
from ..graph import Node, Scope
from ..language import sentence
from ..operations import Array
from .data import numbers
from .numbers import LISTED_ELEMENTS, digits, show
from .section import Block, Section, Table

SCOPE = "batch_norm"

# Elements whose three paths are listed.
LISTED_ROWS = 12


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the backward pass: from a step to one of its operands.

    incoming × local, added up over the batch where `added`, is outgoing.
    """

    step: int
    source: str
    target: str
    symbol: str
    incoming: Array
    local: Array
    outgoing: Array
    added: bool = False


@dataclass(slots=True)
class Normalization(Section):
    """One channel of one call: what each step computes, what it passes back, and the three paths.

    forward: (formula, value) of the steps. paths: what reaches x directly, through the variance, through the mean.
    """

    kind: ClassVar[str] = "batch_norm"

    names: Mapping[str, str]
    channel: int
    channels: int
    x: Array
    forward: list[tuple[str, Array]]
    backward: list[Line]
    paths: dict[str, Array]

    @property
    def gradient(self) -> Array:
        """The three paths added up: ∂L/∂x of the channel."""
        return np.asarray(sum(self.paths.values()))

    # ------------------------------------------------------------------------------------- told

    def heading(self, language: str) -> str:
        """Which call, and which of its channels."""
        key = "normalization.heading" if self.channels == 1 else "normalization.heading_channel"
        return sentence(
            key, language, out=self.names["out"], x=self.names["x"], channel=self.channel, count=self.channels
        )

    def blocks(self, language: str) -> list[Block]:
        """Steps forward, steps back, the three paths and what they add up to."""
        root, x = self.names["root"], self.names["x"]
        found: list[Block] = [
            self._forward(language),
            sentence("normalization.backward", language, root=root),
            self._backward(language),
            sentence("normalization.paths", language, x=x, root=root),
            self._paths(language),
            sentence("normalization.why", language, total=_rounded_sum(self.gradient)),
        ]
        return found

    def _forward(self, language: str) -> Table:
        heads = ["", sentence("normalization.step", language), sentence("explain.column_forward", language)]
        rows = [["", f"{self.names['x']}", show(self.x, language=language)]]
        rows += [
            [str(k), formula, _shown(value, language)] for k, (formula, value) in enumerate(self.forward, 1)
        ]
        return Table(heads, rows)

    def _backward(self, language: str) -> Table:
        root = self.names["root"]
        heads = [
            "", sentence("normalization.to", language), sentence("normalization.rule", language),
            sentence("normalization.product", language), "= " + sentence("normalization.sent", language),
        ]  # fmt: skip
        rows = []
        for line in self.backward:
            sign = "Σ " if line.added else ""
            local = "" if line.symbol in ("1", "−1") else f" = {_shown(line.local, language)}"
            rows.append(
                [
                    str(line.step), f"→ {line.target}", f"∂{line.source}/∂{line.target} = {line.symbol}{local}",
                    f"{sign}∂{root}/∂{line.source} × {_bracketed(line.symbol)}", _shown(line.outgoing, language),
                ]
            )  # fmt: skip
        return Table(heads, rows)

    def _paths(self, language: str) -> Table:
        x, root = self.names["x"], self.names["root"]
        heads = [x, *(sentence(f"normalization.{name}", language) for name in self.paths), f"= ∂{root}/∂{x}"]
        columns = [self.x, *self.paths.values(), self.gradient]
        if self.x.size > LISTED_ROWS:
            norms = [f"‖·‖ {digits(np.linalg.norm(one.astype(np.float64)))}" for one in columns]
            return Table(heads, [norms])
        rows = [[digits(one[k]) for one in columns] for k in range(self.x.size)]
        total = [sentence("normalization.sum", language), *(_rounded_sum(one) for one in columns[1:])]
        return Table(heads, [*rows, total], total=True)

    def data(self, full: bool = False) -> dict[str, Any]:
        """Everything with all digits."""
        return {
            "channel": self.channel,
            "channels": self.channels,
            "x": numbers(self.x, full),
            "forward": [{"formula": formula, "value": numbers(value, full)} for formula, value in self.forward],
            "backward": [
                {
                    "step": line.step, "from": line.source, "to": line.target, "local_derivative": line.symbol,
                    "incoming": numbers(line.incoming, full), "local": numbers(line.local, full),
                    "added_up": line.added, "outgoing": numbers(line.outgoing, full),
                }
                for line in self.backward
            ],
            "paths": {name: numbers(one, full) for name, one in self.paths.items()},
            "gradient": numbers(self.gradient, full),
        }  # fmt: skip


def _shown(value: Array, language: str) -> str:
    return digits(value.item()) if value.size == 1 else show(value, LISTED_ELEMENTS, language)


def _bracketed(symbol: str) -> str:
    return f"({symbol})" if symbol.startswith("−") else symbol


def _rounded_sum(value: Array) -> str:
    """The sum, where what is left of numbers that cancel counts as the 0 that it is."""
    total = math.fsum(value.ravel().tolist())
    size = float(np.abs(value).sum())
    return digits(0.0 if abs(total) <= 8 * float(np.finfo(value.dtype).eps) * size else total)


# ------------------------------------------------------------------------------------------- computing


@dataclass(frozen=True, slots=True)
class Call:
    """One call in training: its input, scale, shift and result, and the operations between."""

    x: Node
    weight: Node | None
    bias: Node | None
    result: Node
    eps: float
    members: frozenset[Node]

    def reads(self, node: Node) -> bool:
        """Is the tensor one of those that the call reads or makes?"""
        return node in (self.x, self.weight, self.bias, self.result)


def calls(order: Sequence[Node]) -> list[Call]:
    """The calls of batch_norm in a graph that normalize by their own batch, in order."""
    members: dict[Scope, list[Node]] = {}
    for node in order:
        if node.inputs and (scope := _call_of(node)) is not None:
            members.setdefault(scope, []).append(node)
    found = [_read(inner) for inner in members.values()]
    return [one for one in found if one is not None]


def _call_of(node: Node) -> Scope | None:
    scope = node.scope
    while scope is not None and scope.name != SCOPE:
        scope = scope.parent
    return scope


def _read(inner: list[Node]) -> Call | None:
    """The parts of a call by what its operations do; None where it normalizes by stored statistics."""
    members = frozenset(inner)
    first = next((node for node in inner if node.operation.name == "sum"), None)
    root = next((node for node in inner if node.operation.name == "sqrt"), None)
    if first is None or root is None or not first.inputs[0].inputs:
        return None
    # The first sum is of the distances from an entry of x.
    x, result = first.inputs[0].inputs[0], inner[-1]
    vectors = [node for node in _outside(inner, members) if node.shape == x.shape[1:2] and node is not x]
    bias = None
    if result.operation.name == "add":
        bias = next((one for one in map(_unmoved(members), result.inputs) if one in vectors), None)
    weight = next((node for node in vectors if node is not bias), None)
    shifted = root.inputs[0]
    eps = next((float(one.value) for one in shifted.inputs if not one.inputs and one.shape == ()), 0.0)
    return Call(x, weight, bias, result, eps, members)


def _outside(inner: Iterable[Node], members: frozenset[Node]) -> list[Node]:
    return list(dict.fromkeys(one for node in inner for one in node.inputs if one not in members))


def _unmoved(members: frozenset[Node]) -> Any:
    def source(node: Node) -> Node:
        while node in members and len(node.inputs) == 1:
            node = node.inputs[0]
        return node

    return source


def normalization(
    call: Call,
    arrived: Mapping[Node, Any],
    passed: Iterable[Contribution],
    names: Mapping[Node, str],
    root: str,
) -> Normalization | None:
    """The section about a call; None if its formula is not the usual one, or nothing arrives there."""
    g = arrived.get(call.result)
    if g is None or call.x.ndim < 2:
        return None
    rows, incoming, out = (_by_channel(one) for one in (call.x.value, np.asarray(g), call.result.value))
    found = [
        one.outgoing for one in passed if one.node in call.members and one.node.inputs[one.operand] is call.x
    ]
    whole = _by_channel(np.asarray(sum(found))) if found else np.zeros_like(rows)
    channel = int(np.argmax(np.nan_to_num(np.linalg.norm(whole.astype(np.float64), axis=1))))
    gamma, beta = (None if one is None else one.value[channel] for one in (call.weight, call.bias))
    known = {
        "root": root, "x": names.get(call.x, "x"), "out": names.get(call.result, "out"),
        "γ": names.get(call.weight, "γ") if call.weight else "", "β": names.get(call.bias, "β") if call.bias else "",
    }  # fmt: skip
    told = _nine(known, rows[channel], incoming[channel], gamma, beta, call.eps)
    section = Normalization(known, channel, len(rows), rows[channel], *told)
    agree = np.allclose(told[0][-1][1], out[channel], rtol=1e-3, atol=1e-4, equal_nan=True)
    size = float(np.abs(section.paths["directly"]).max())
    near = np.allclose(section.gradient, whole[channel], rtol=1e-3, atol=1e-4 * size, equal_nan=True)
    return section if agree and near else None


def _by_channel(value: Array) -> Array:
    """(N, C, …) as (C, values of the channel)."""
    return np.moveaxis(value, 1, 0).reshape(value.shape[1], -1)


def _nine(
    names: Mapping[str, str], x: Array, g: Array, gamma: Any, beta: Any, eps: float
) -> tuple[list[tuple[str, Array]], list[Line], dict[str, Array]]:
    """Values of the steps, the backward pass line by line from the last, and the three paths."""
    name, out = names["x"], names["out"]
    with np.errstate(all="ignore"):
        # Wide, as the engine does not lose small distances from a large mean either.
        mean = x.mean(dtype=np.float64)
        centred = (x - mean).astype(x.dtype)
        squared = centred * centred
        mean, variance = mean.astype(x.dtype), squared.mean(dtype=np.float64).astype(x.dtype)
        deviation = np.sqrt(variance + x.dtype.type(eps))
        inverse = 1 / deviation
        normal = centred * inverse
        forward = [
            (f"μ = mean({name})", mean), (f"c = {name} − μ", centred), ("q = c²", squared), ("v = mean(q)", variance),
            (f"d = √(v + {eps:g})", deviation), ("i = 1/d", inverse), ("n = c·i", normal),
        ]  # fmt: skip
        result = normal
        if gamma is not None:
            result = gamma * normal
            forward.append((f"s = {names['γ']}·n", result))
        if beta is not None:
            forward.append((f"{out} = {'n' if gamma is None else 's'} + {names['β']}", result + beta))
        last = _affine(names, g, normal, gamma, beta)
        to_normal = g if gamma is None else g * gamma
        lines, paths = _inner(name, to_normal, centred, inverse, deviation)
    return [(formula, np.asarray(value)) for formula, value in forward], [*last, *lines], paths


def _affine(names: Mapping[str, str], g: Array, normal: Array, gamma: Any, beta: Any) -> list[Line]:
    """Back through shift and scale, as far as there are any."""
    lines: list[Line] = []
    one, step = np.ones((), g.dtype), 8 if gamma is None else 9
    if beta is not None:
        lines.append(Line(step, names["out"], "n" if gamma is None else "s", "1", g, one, g))
        lines.append(Line(step, names["out"], names["β"], "1", g, one, g.sum(), added=True))
    if gamma is not None:
        lines.append(Line(8, "s", "n", names["γ"], g, np.asarray(gamma), g * gamma))
        lines.append(Line(8, "s", names["γ"], "n", g, normal, (g * normal).sum(), added=True))
    return lines


def _inner(
    name: str, g: Array, centred: Array, inverse: Any, deviation: Any
) -> tuple[list[Line], dict[str, Array]]:
    """Back from the normalized values to x, and the three paths; `g` is what arrives at the normalized values."""
    n = centred.size
    direct = g * inverse
    to_inverse = (g * centred).sum()
    to_deviation = -to_inverse * inverse * inverse
    to_variance = to_deviation / (2 * deviation)
    to_squared = np.broadcast_to(to_variance / n, centred.shape)
    through_variance = to_squared * 2 * centred
    to_centred = direct + through_variance
    to_mean = -to_centred.sum()
    through_mean = np.broadcast_to(to_mean / n, centred.shape)
    one, share = np.ones((), g.dtype), np.asarray(1 / n, g.dtype)
    lines = [
        Line(7, "n", "c", "i", g, inverse, direct),
        Line(7, "n", "i", "c", g, centred, to_inverse, added=True),
        Line(6, "i", "d", "−1/d²", to_inverse, -inverse * inverse, to_deviation),
        Line(5, "d", "v", "1/(2d)", to_deviation, 1 / (2 * deviation), to_variance),
        Line(4, "v", "q", f"1/{n}", to_variance, share, to_squared),
        Line(3, "q", "c", "2c", to_squared, 2 * centred, through_variance),
        Line(2, "c", name, "1", to_centred, one, to_centred),
        Line(2, "c", "μ", "−1", to_centred, -one, to_mean, added=True),
        Line(1, "μ", name, f"1/{n}", to_mean, share, through_mean),
    ]
    return lines, {"directly": direct, "through_variance": through_variance, "through_mean": through_mean}
