"""The story as text: a table of the steps, then the backward pass told edge by edge.

Every word comes from the catalogue; columns are aligned by display width, so Korean stays in line.
Knows the story's classes; knows nothing of graphs.
"""

from __future__ import annotations

import linecache
from typing import TYPE_CHECKING

from ..language import catalogue, sentence
from .numbers import show
from .section import pad, width
from .section import told as told_section

if TYPE_CHECKING:
    from .story import Edge, Step, Story

# Longer stories are cut in the middle: nobody reads a table of 100,000 rows.
SHOWN_STEPS = 200

# Elements of an array that a cell of the table lists.
LISTED = 3

# Terms of a sum that are written out.
SHOWN_TERMS = 10

# Letters of a line of code that are quoted.
LINE_LIMIT = 80


def tell(story: Story, language: str = "en") -> str:
    """The whole story as text."""
    kept, left_out = _kept(story.steps)
    lines = [story.title or f"{story.root.name} = {story.root.formula}", ""]
    lines += table(kept, story.root.name, language)
    if left_out:
        lines += ["", sentence("explain.left_out", language, count=left_out)]
    lines += ["", sentence("explain.backward_heading", language), ""]
    if story.seed_is_ones:
        lines.append("  " + sentence("explain.starts_from_ones", language, name=story.root.name))
    told = ""
    for step in reversed(kept):
        place = where(step)
        lines += backward(step, story.root, language, "" if place == told else place)
        told = place or told
    for section in story.sections:
        lines += ["", *told_section(section, language)]
    return "\n".join(lines)


def _kept(steps: list[Step]) -> tuple[list[Step], int]:
    if len(steps) <= SHOWN_STEPS:
        return steps, 0
    half = SHOWN_STEPS // 2
    return steps[:half] + steps[-half:], len(steps) - SHOWN_STEPS


# ------------------------------------------------------------------------------------------------ table


def table(steps: list[Step], root: str, language: str) -> list[str]:
    """One row for each step, and one more for each further operand."""
    heads = [
        sentence(f"explain.column_{name}", language, root=root)
        for name in ("step", "node", "forward", "local", "backward")
    ]
    rows = [heads]
    for step in steps:
        local = [text for edge in moving(step) if (text := derivative(step, edge, language))]
        value, gradient = show(step.value, LISTED, language), show(step.gradient, LISTED, language)
        first = [str(step.number), label(step, language), value, local[0] if local else ""]
        rows.append([*first, gradient or "—"])
        rows += [["", "", "", more, ""] for more in local[1:]]
    widths = [max(width(row[k]) for row in rows) for k in range(len(heads))]
    aligned = ["  ".join(pad(cell, size) for cell, size in zip(row, widths)).rstrip() for row in rows]
    return ["  " + line for line in (aligned[0], "─" * (sum(widths) + 2 * len(widths) - 2), *aligned[1:])]


def label(step: Step, language: str) -> str:
    """`z = w·x`, or the name of a leaf with its kind."""
    if step.is_leaf:
        return f"{step.name} ({sentence(f'explain.{step.kind}', language)})"
    return f"{step.name} = {step.formula}" + (f" ({step.scope})" if step.scope else "")


def moving(step: Step) -> list[Edge]:
    """The edges along which a gradient is passed on."""
    return [edge for edge in step.edges if edge.outgoing is not None]


def partial(above: str, below: str) -> str:
    """`∂z/∂w`."""
    return f"∂{above}/∂{below}"


def derivative(step: Step, edge: Edge, language: str = "en") -> str:
    """`∂y/∂z = y·(1 − y) = 0.24` where slopes are multiplied; `→ w: xᵀ @ ∂L/∂z` where gradients are moved."""
    if edge.local is None:
        return f"→ {edge.source.name}: {edge.rule}" if edge.rule else ""
    number = show(edge.local, LISTED, language)
    formula = edge.symbol.replace("−", "-")
    shown = number if not formula or formula == number else f"{edge.symbol} = {number}"
    return f"{partial(step.name, edge.source.name)} = {shown}"


# --------------------------------------------------------------------------------------- backward, told


def backward(step: Step, root: Step, language: str, place: str) -> list[str]:
    """What arrives at a step, what it passes on to each operand, and why."""
    lines = []
    if step is not root and len(step.arrivals) > 1 and step.gradient is not None:
        lines.append("  " + summed(step, language))
    if step.is_leaf or not moving(step):
        return lines
    lines.append(f"  {step.name} = {step.formula}{f'   ({place})' if place else ''}")
    if step is root:
        lines.append(
            "      "
            + sentence(
                "explain.start", language, name=root.name, value=show(root.gradient, language=language)
            )
        )
    lines += ["    → " + passed(step, edge, root.name, language) for edge in moving(step)]
    reason = why(step, language)
    if reason:
        lines.append(f"      {reason}")
    return lines


def summed(step: Step, language: str) -> str:
    """`a receives 2 gradients, which add up: 1 + 1 = 2`."""
    found = [_bracketed(show(edge.outgoing, language=language)) for _, edge in step.arrivals]
    if len(found) > SHOWN_TERMS:
        found[SHOWN_TERMS - 2 : -1] = ["…"]
    terms = " + ".join(found)
    total = show(step.gradient, language=language)
    return sentence(
        "explain.sum", language, name=step.name, count=len(step.arrivals), terms=terms, total=total
    )


def passed(step: Step, edge: Edge, root: str, language: str) -> str:
    """`w: ∂L/∂z × ∂z/∂w = -0.401312 × 0.5 = -0.200656`."""
    target, sent = edge.source.name, show(edge.outgoing, language=language)
    if edge.local is not None:
        incoming, local = show(step.gradient, language=language), show(edge.local, language=language)
        product = f"{_bracketed(incoming)} × {_bracketed(local)}"
        names = f"{partial(root, step.name)} × {partial(step.name, target)}"
        return f"{target}: {names} = {product} = {sent}"
    if edge.rule:
        return f"{target}: {edge.rule} = {sent}"
    return f"{target}: " + sentence("explain.net", language, value=sent)


def _bracketed(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def why(step: Step, language: str) -> str:
    """The reason behind the step's rule, in the reader's language."""
    known = catalogue()
    if step.kind == "scope":
        count = len(step.folded)
        own = f"composite.{step.operation}"
        if own in known:
            return sentence(own, language)
        return sentence(
            "explain.folded", language, count=count, operations=", ".join(dict.fromkeys(step.folded))
        )
    translated = known.get(f"operation.{step.operation}", {}).get(language)
    text = (translated or step.why).replace("\n", " ")
    return text[:1].upper() + text[1:] if text[1:2].isascii() else text


def where(step: Step) -> str:
    """The user's text for the step: the part of the expression, or file:line and that line."""
    if step.source:
        plain = step.formula.replace("·", "*").replace("−", "-")
        return "" if _letters(plain) == _letters(step.source) else step.source
    if step.origin is None:
        return ""
    line = linecache.getline(step.origin.file, step.origin.line).strip()
    if len(line) > LINE_LIMIT:
        line = line[: LINE_LIMIT - 1] + "…"
    layer = f"{step.scope}, " if step.scope else ""
    return f"{layer}{step.origin}: {line}" if line else f"{layer}{step.origin}"


def _letters(text: str) -> str:
    return "".join(text.split())
