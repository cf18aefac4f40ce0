"""Convolution as shared weights: which windows of the input a filter met, and what each adds to its gradient.

∂L/∂w = Σ over output places (the window there) × (the gradient that arrives there); an entry of the input hears from
every window that it was in.
Knows what a convolution computes; knows nothing of how it is compiled.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..graph import Node
from ..language import sentence
from ..operations import Array
from ..ops.convolution import conv
from .data import numbers
from .numbers import brief, digits, show
from .recurrence import consumers_of, uses_of
from .section import Block, Section, Table

# Entries of a filter that are listed for each place, and in sums; places that are listed, or the strongest of more;
# entries of an input.
LISTED, LISTED_SUM, LISTED_PLACES, STRONGEST, LISTED_INPUT = 4, 9, 12, 8, 16

Place = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Visit:
    """One output place: the window that the filter met there, what arrives, and what that adds to ∂L/∂w."""

    place: Place
    window: Array
    arriving: float
    share: Array


@dataclass(slots=True)
class Convolution(Section):
    """One filter of a convolution, for one channel of its input.

    visits: every output place, or the strongest; rest: what the `others` add. heard: for a small input, each entry with
    its terms (weight, what arrives) and their sum.
    """

    kind: ClassVar[str] = "convolution"

    names: Mapping[str, str]
    filter: int
    channel: int
    filters: int
    channels: int
    places: int
    visits: list[Visit]
    others: int
    rest: Array | None
    gradient: Array
    heard: list[tuple[Place, list[tuple[float, float]], float]]

    @property
    def total(self) -> Array:
        """The sum over all places."""
        shares = [one.share for one in self.visits] + ([] if self.rest is None else [self.rest])
        return np.asarray(sum(shares))

    # ------------------------------------------------------------------------------------- told

    def heading(self, language: str) -> str:
        """Which filter met how many windows."""
        return sentence("convolution.heading", language, weight=self.names["w"], count=self.places)

    def blocks(self, language: str) -> list[Block]:
        """Which filter is told of, its windows with what each adds, and the entries of a small input."""
        w, root, out = self.names["w"], self.names["root"], self.names["out"]
        found: list[Block] = []
        if self.filters * self.channels > 1:
            found.append(
                sentence(
                    "convolution.filter", language, filter=self.filter, filters=self.filters, channel=self.channel,
                    channels=self.channels,
                )
            )  # fmt: skip
        found += [
            self._windows(language),
            sentence("convolution.shared", language, weight=w, root=root, out=out),
        ]
        if self.heard:
            x = self.names["x"]
            found += [sentence("convolution.heard", language, x=x, root=root), self._heard()]
        return found

    def _windows(self, language: str) -> Table:
        w, root, out, single = self.names["w"], self.names["root"], self.names["out"], self.gradient.size == 1
        large = self.gradient.size > LISTED
        heads = [
            sentence("convolution.place", language), sentence("convolution.window", language, x=self.names["x"]),
            f"∂{root}/∂{out}", sentence("time.adds", language, weight=w, root=root), sentence("time.norm", language),
        ]  # fmt: skip

        def norm(value: Array) -> str:
            return "" if single else digits(np.linalg.norm(value.astype(np.float64)))

        rows = [
            [
                _place(one.place), show(one.window, 0, language) if large else brief(one.window, LISTED),
                digits(one.arriving), show(one.share, 0, language) if large else brief(one.share, LISTED),
                norm(one.share),
            ]
            for one in self.visits
        ]  # fmt: skip
        if self.rest is not None:
            more = sentence("convolution.more", language, count=self.others)
            rows.append([more, "", "", brief(self.rest, LISTED_SUM), norm(self.rest)])
        rows.append([sentence("time.sum", language), "", "", brief(self.total, LISTED_SUM), norm(self.total)])
        return Table(heads, rows, total=True)

    def _heard(self) -> Table:
        x, root, w, out = (self.names[key] for key in ("x", "root", "w", "out"))
        heads = [x, f"{w} × ∂{root}/∂{out}", f"= ∂{root}/∂{x}"]
        rows = [
            [
                _place(place),
                " + ".join(f"{_signed(a)} × {_signed(b)}" for a, b in terms) or "0",
                digits(total),
            ]
            for place, terms, total in self.heard
        ]
        return Table(heads, rows)

    def data(self, full: bool = False) -> dict[str, Any]:
        """Everything with all digits."""
        return {
            "weight": self.names["w"], "filter": self.filter, "channel": self.channel, "places": self.places,
            "visits": [
                {
                    "place": list(one.place), "window": numbers(one.window, full),
                    "arriving": numbers(np.asarray(one.arriving)), "share": numbers(one.share, full),
                }
                for one in self.visits
            ],
            "rest": numbers(self.rest, full), "sum": numbers(self.total, full),
            "gradient": numbers(self.gradient, full),
            "heard": [
                {"place": list(place), "terms": [list(one) for one in terms], "gradient": total}
                for place, terms, total in self.heard
            ],
        }  # fmt: skip


def _place(place: Place) -> str:
    return f"({', '.join(map(str, place))}{',' if len(place) == 1 else ''})"


def _signed(value: float) -> str:
    text = digits(value)
    return f"({text})" if text.startswith("-") else text


# ------------------------------------------------------------------------------------------- computing


def convolutions(order: Sequence[Node], about: Node | None) -> list[Node]:
    """The convolutions whose filter has a gradient; those that `about` is the filter, input or result of."""
    found = [node for node in order if node.operation is conv and node.inputs[1].requires_grad]
    if about is None:
        return found
    touched = {node for node, _ in uses_of(about, consumers_of(order))} | {about}
    return [node for node in found if node in touched]


def convolution(
    node: Node, order: Sequence[Node], arrived: Mapping[Node, Any], names: Mapping[Node, str], root: str
) -> Convolution | None:
    """The section about one convolution; None if nothing arrives at it."""
    g = arrived.get(node)
    if g is None:
        return None
    x, w = (np.asarray(one.value) for one in node.inputs)
    windows = _Windows(x, w, np.asarray(g), **node.attributes)
    chosen, channel = windows.strongest()
    visits, others, rest = windows.visits(chosen, channel)
    known = {
        "root": root, "x": _named(node.inputs[0], names, "x"), "w": _named(node.inputs[1], names, "w"),
        "out": _result_name(node, order, names),
    }  # fmt: skip
    heard = windows.heard() if node.inputs[0].requires_grad else []
    return Convolution(
        known, chosen, channel, w.shape[0], w.shape[1], math.prod(windows.outside), visits, others, rest,
        windows.share(chosen, channel), heard,
    )  # fmt: skip


def _named(node: Node, names: Mapping[Node, str], instead: str) -> str:
    """The node's name, or that of what was only moved or padded."""
    while node not in names and len(node.inputs) == 1:
        node = node.inputs[0]
    return names.get(node, instead)


def _result_name(node: Node, order: Sequence[Node], names: Mapping[Node, str]) -> str:
    """The name of the result, or of what it is once the bias is added: the same gradient arrives there."""
    shifted = [one for one in order if node in one.inputs and one.operation.name == "add"]
    return next((names[one] for one in (node, *shifted) if one in names), "out")


class _Windows:
    """Windows of x (N, C, *spatial) that w (O, C/groups, *kernel) met, and what arrives at each, g (N, O, *out)."""

    def __init__(self, x: Array, w: Array, g: Array, *, strides: Place, dilation: Place, groups: int) -> None:
        self.x, self.w, self.g = x, w, g
        self.strides, self.dilation, self.groups = strides, dilation, groups
        self.kernel = w.shape[2:]
        self.outside = (x.shape[0], *g.shape[2:])

    def of(self, chosen: int, channel: int) -> Array:
        """(N, *out, *kernel): the windows of a filter's channel."""
        group = chosen // (self.w.shape[0] // self.groups)
        plane = self.x[:, group * self.w.shape[1] + channel]
        reach = tuple(gap * (size - 1) + 1 for gap, size in zip(self.dilation, self.kernel))
        axes = tuple(range(1, plane.ndim))
        view = np.lib.stride_tricks.sliding_window_view(plane, reach, axis=axes)
        steps = (slice(None), *(slice(None, None, one) for one in self.strides))
        return view[steps + tuple(slice(None, None, one) for one in self.dilation)]

    def arriving(self, chosen: int) -> Array:
        """(N, *out): what arrives at the filter's places."""
        return np.asarray(self.g[:, chosen])

    def share(self, chosen: int, channel: int) -> Array:
        """∂L/∂w of a filter's channel: the sum over all places."""
        places = tuple(range(len(self.outside)))
        return np.tensordot(self.arriving(chosen), self.of(chosen, channel), axes=(places, places))

    def strongest(self) -> tuple[int, int]:
        """The filter and channel with the largest gradient."""
        arriving = np.moveaxis(self.g, 1, 0).reshape(self.g.shape[1], -1)
        chosen = int(np.argmax(np.nan_to_num(np.linalg.norm(arriving, axis=1))))
        sizes = [float(np.linalg.norm(self.share(chosen, channel))) for channel in range(self.w.shape[1])]
        return chosen, int(np.argmax(np.nan_to_num(sizes)))

    def visits(self, chosen: int, channel: int) -> tuple[list[Visit], int, Array | None]:
        """The places of a filter in order (of many the strongest), how many others there are, and what they add."""
        windows, arriving = self.of(chosen, channel), self.arriving(chosen)
        kernel = tuple(range(windows.ndim - len(self.kernel), windows.ndim))
        strength = np.abs(arriving) * np.sqrt((windows.astype(np.float64) ** 2).sum(axis=kernel))
        count = arriving.size
        kept = (
            range(count)
            if count <= LISTED_PLACES
            else np.argsort(-strength.ravel(), kind="stable")[:STRONGEST]
        )
        visits = []
        for flat in sorted(int(one) for one in kept):
            place = tuple(int(one) for one in np.unravel_index(flat, self.outside))
            window, g = np.asarray(windows[place]), arriving[place]
            own = place[1:] if self.outside[0] == 1 else place
            visits.append(Visit(own, window, float(g), np.asarray(window * g)))
        if len(visits) == count:
            return visits, 0, None
        rest = self.share(chosen, channel) - sum(one.share for one in visits)
        return visits, count - len(visits), np.asarray(rest)

    def heard(self) -> list[tuple[Place, list[tuple[float, float]], float]]:
        """For a small input of one channel: what each entry hears from the windows that it was in."""
        if self.x.size > LISTED_INPUT or self.x.shape[:2] != (1, 1) or self.w.shape[0] != 1:
            return []
        terms: dict[Place, list[tuple[float, float]]] = {
            place: [] for place in itertools.product(*map(range, self.x.shape[2:]))
        }
        for out in itertools.product(*map(range, self.g.shape[2:])):
            for offset in itertools.product(*map(range, self.kernel)):
                steps = zip(out, self.strides, offset, self.dilation)
                place = tuple(a * stride + b * gap for a, stride, b, gap in steps)
                terms[place].append((float(self.w[(0, 0, *offset)]), float(self.g[(0, 0, *out)])))
        return [(place, found, math.fsum(a * b for a, b in found)) for place, found in terms.items()]
