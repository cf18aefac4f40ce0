"""The graph of a story as SVG: a box for each step, on every edge the value forwards and the gradient backwards.

Forward is green, solid, ▶ above the line; backward is red, dashed, ◀∂ below it; so colour is never the only sign.
Every element carries the moment at which it appears (`data-at`), for stepping through.
Knows the story's classes and the layout; knows nothing of the page around the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ..language import sentence
from ..operations import Array
from .layout import Box, Drawing, Link, draw
from .numbers import digits, show
from .section import width
from .text import moving, partial

if TYPE_CHECKING:
    from .story import Edge, Step, Story

# Stories with more steps are told by the table alone: such a picture could not be read.
DRAWN_STEPS = 300

# Sizes in pixels. A monospaced letter is about 0.6 of its height wide; a little more is left for ∂ and ŷ.
LETTER, LINE, SMALL_LETTER = 7.6, 18.0, 6.9
PADDING, PORT, BEND, LABEL, MARGIN, SPACING = 10.0, 46.0, 40.0, 164.0, 16.0, 22.0
_LONGEST = 44
_LABEL_LETTERS = 20


class Moments:
    """When each step is reached: forward in order, then backward in reverse."""

    def __init__(self, story: Story) -> None:
        forward = list(story.steps)
        backward = [step for step in reversed(story.steps) if step.gradient is not None or moving(step)]
        self.order = [(step, "forward") for step in forward] + [(step, "backward") for step in backward]
        self.forward = {step.number: k for k, step in enumerate(forward)}
        self.backward = {step.number: len(forward) + k for k, step in enumerate(backward)}


def picture(story: Story) -> str:
    """The SVG element; "" for a story that is too long to be drawn."""
    if len(story.steps) > DRAWN_STEPS:
        return ""
    moments = Moments(story)
    lines = [_lines(step, story.root.name) for step in story.steps]
    edges = [(step, edge) for step in story.steps for edge in step.edges if edge.source.number]
    boxes = [_box(step, text) for step, text in zip(story.steps, lines)]
    links = [Link(edge.source.number - 1, step.number - 1, _port(step, edge)) for step, edge in edges]
    drawing = draw(boxes, links, BEND + LABEL, SPACING, MARGIN)
    parts = [_edge(step, edge, way, moments) for (step, edge), way in zip(edges, drawing.ways)]
    parts += [
        _node(step, box, text, story, moments) for step, box, text in zip(story.steps, drawing.boxes, lines)
    ]
    return _frame(drawing, "".join(parts))


def _frame(drawing: Drawing, inner: str) -> str:
    size = f"{drawing.width:.0f} {drawing.height:.0f}"
    wide, high = size.split()
    return (
        f'<svg class="cr-graph" viewBox="0 0 {size}" width="{wide}" height="{high}" role="group" '
        f'xmlns="http://www.w3.org/2000/svg">{inner}</svg>'
    )


# ------------------------------------------------------------------------------------------------- boxes


def _lines(step: Step, root: str) -> list[tuple[str, str]]:
    """(class, text) of the lines in a box: what it is, value, gradient, local derivatives."""
    lines = [("title", _clip(step.name if step.is_leaf else f"{step.name} = {step.formula}"))]
    lines.append(("forward", f"▶ {short(step.value)}"))
    if step.gradient is not None:
        lines.append(("backward", f"◀ {partial(root, step.name)} = {short(step.gradient)}"))
        if len(step.arrivals) > 1:
            terms = " + ".join(_bracketed(short(edge.outgoing)) for _, edge in step.arrivals)
            lines.append(("sum", _clip(f"  = {terms}")))
    for edge in step.edges:
        if edge.outgoing is not None:
            lines.append(("local", _clip(_local(step, edge))))
    return lines


def _local(step: Step, edge: Edge) -> str:
    if edge.local is None:
        return f"→ {edge.source.name}: {edge.rule}" if edge.rule else ""
    number = short(edge.local)
    formula = f" = {edge.symbol}" if edge.symbol and edge.symbol.replace("−", "-") != number else ""
    return f"{partial(step.name, edge.source.name)}{formula} = {number}"


def short(value: Array | None) -> str:
    """A number or a pair as it is; a larger array as shape and largest magnitude."""
    if value is None:
        return "…"
    text = show(value)
    if value.size == 1 or (value.size <= 3 and len(text) <= _LABEL_LETTERS):
        return text
    if value.size <= 3:
        return show(np.vectorize(lambda one: float(f"{one:.3g}"), otypes=[np.float64])(value))
    with np.errstate(all="ignore"):
        largest = digits(np.float64(f"{np.abs(value.astype(np.float64)).max():.3g}"))
    return f"[{'×'.join(map(str, value.shape))}] |·|≤{largest}"


def _bracketed(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def _clip(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _box(step: Step, lines: Sequence[tuple[str, str]]) -> Box:
    text = [line for kind, line in lines if line]
    ports = len([edge for edge in step.edges if edge.source.number])
    wide = max(width(line) for line in text) * LETTER + 2 * PADDING
    high = max(len(text) * LINE + PADDING, ports * PORT)
    return Box(wide, high, [(k - (ports - 1) / 2) * PORT for k in range(ports)])


def _port(step: Step, edge: Edge) -> int:
    return [one for one in step.edges if one.source.number].index(edge)


def _node(step: Step, box: Box, lines: Sequence[tuple[str, str]], story: Story, moments: Moments) -> str:
    at, back = moments.forward[step.number], moments.backward.get(step.number, 10**9)
    shown = [line for line in lines if line[1]]
    y = box.y - (len(shown) - 1) * LINE / 2 + 4
    rows = []
    for k, (kind, line) in enumerate(shown):
        when = f' data-at="{back}"' if kind in ("backward", "sum", "local") else ""
        place = f'x="{box.x + PADDING:.1f}" y="{y + k * LINE:.1f}"'
        rows.append(f'<text class="cr-{kind}" {place}{when}>{escape(line)}</text>')
    labels = {language: aria(step, story.root.name, language) for language in ("en", "ko")}
    return (
        f'<g class="cr-node cr-{step.kind}" tabindex="0" role="img" data-step="{step.number}" data-at="{at}" '
        f'data-back="{back}" aria-label="{escape(labels[story.language])}" data-en="{escape(labels["en"])}" '
        f'data-ko="{escape(labels["ko"])}"><rect x="{box.x:.1f}" y="{box.y - box.height / 2:.1f}" '
        f'width="{box.width:.1f}" height="{box.height:.1f}" rx="{8 if step.is_leaf else 3}"/>{"".join(rows)}'
        f"<title>{escape(labels[story.language])}</title></g>"
    )


def aria(step: Step, root: str, language: str) -> str:
    """What a screen reader says for a node."""
    what = step.name if step.is_leaf else f"{step.name} = {step.formula}"
    values = {"what": what, "value": show(step.value, language=language) or "…"}
    if step.gradient is None:
        return sentence("explain.aria_constant", language, **values)
    gradient = show(step.gradient, language=language)
    return sentence("explain.aria", language, **values, root=root, gradient=gradient)


# ------------------------------------------------------------------------------------------------- edges


def _edge(step: Step, edge: Edge, way: Sequence[tuple[float, float]], moments: Moments) -> str:
    """Two lines with their labels: the value forwards above, the gradient backwards below."""
    at = moments.forward[step.number]
    end, first = way[-1], way[0]
    label = f'x="{end[0] - 12:.1f}" text-anchor="end"'
    forward = (
        f'<g class="cr-forward" data-at="{at}"><path d="{_path(way, -3)}"/>'
        f'<polygon points="{_arrow(end[0], end[1] - 3, -1)}"/>'
        f'<text {label} y="{end[1] - 9:.1f}">▶ {escape(short(edge.source.value))}</text></g>'
    )
    if edge.outgoing is None:
        return forward
    back = moments.backward[step.number]
    return forward + (
        f'<g class="cr-backward" data-at="{back}"><path d="{_path(way, 3)}"/>'
        f'<polygon points="{_arrow(first[0], first[1] + 3, 1)}"/>'
        f'<text {label} y="{end[1] + 17:.1f}">◀∂ {escape(short(edge.outgoing))}</text></g>'
    )


def _arrow(x: float, y: float, side: int) -> str:
    """A small triangle whose tip is at (x, y); `side` 1 points left, −1 right."""
    back = x + 9 * side
    return f"{x:.1f},{y:.1f} {back:.1f},{y - 4.5:.1f} {back:.1f},{y + 4.5:.1f}"


def _path(way: Sequence[tuple[float, float]], offset: float) -> str:
    """A line that bends just behind each layer and is straight where labels stand."""
    x, y = way[0][0], way[0][1] + offset
    commands = [f"M{x:.1f} {y:.1f}"]
    for next_x, level in way[1:]:
        next_y = level + offset
        if abs(next_y - y) > 0.5:
            middle, after = x + BEND / 2, min(x + BEND, next_x)
            commands.append(f"C{middle:.1f} {y:.1f} {middle:.1f} {next_y:.1f} {after:.1f} {next_y:.1f}")
        commands.append(f"H{next_x:.1f}")
        x, y = next_x, next_y
    return "".join(commands)
