"""The story as one HTML page: picture, stepping, table and reasons, in both languages, without any network.

The page opens from disk. Its content policy allows nothing but its own style and script, by their hashes.
Without script everything is still there; the script only steps through and switches themes and languages.
Knows the story's classes; knows nothing of graphs.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from html import escape
from importlib import resources
from typing import TYPE_CHECKING

from ..language import LANGUAGES, sentence
from .drawing import DRAWN_STEPS, Moments, picture
from .numbers import show
from .section import Section, Table
from .text import SHOWN_STEPS, backward, derivative, label, moving, where

if TYPE_CHECKING:
    from .story import Step, Story


def page(story: Story, language: str = "en") -> str:
    """The complete page."""
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src 'sha256-{_hash(style)}'; script-src 'sha256-{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = story.title or f"{story.root.name} = {story.root.formula}"
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · chainrule</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f'<main class="cr-story">\n<h1>{escape(title)}</h1>\n{_controls()}{_figure(story)}{_rest(story)}</main>\n'
        f'<script type="application/json" id="cr-moments">{_moments(story)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def fragment(story: Story, language: str = "en") -> str:
    """The static part for a notebook: picture and table, with the style beside it and no script."""
    style = _asset("page.css")
    scoped = f'<div class="cr-notebook" lang="{language}"><style>{style}</style><div class="cr-story">'
    return f"{scoped}{_figure(story)}{_rest(story)}</div></div>"


@functools.cache
def _asset(name: str) -> str:
    return resources.files("chainrule.explain").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _both(key: str, **values: object) -> str:
    """A sentence in both languages, of which the page shows one."""
    return _in_both(lambda language: sentence(key, language, **values))


def _in_both(say: Callable[[str], str]) -> str:
    """What is said in both languages, of which the page shows one."""
    return _side_by_side({language: say(language) for language in LANGUAGES})


def _side_by_side(texts: Mapping[str, str]) -> str:
    """The text in both languages; once where they are the same."""
    said = {language: escape(text) for language, text in texts.items()}
    if len(set(said.values())) == 1:
        return said["en"]
    return "".join(
        f'<span class="cr-{language}" lang="{language}">{text}</span>' for language, text in said.items()
    )


# ------------------------------------------------------------------------------------------------- parts


def _controls() -> str:
    buttons = [
        ("first", "«", "explain.button_first"),
        ("back", "‹", "explain.button_back"),
        ("next", "›", "explain.button_next"),
        ("last", "»", "explain.button_last"),
    ]
    moves = "".join(
        f'<button type="button" id="cr-{key}" aria-label="{escape(sentence(name, "en"))}" '
        f'data-en="{escape(sentence(name, "en"))}" data-ko="{escape(sentence(name, "ko"))}">{sign}</button>'
        for key, sign, name in buttons
    )
    switches = "".join(
        f'<button type="button" id="cr-{key}">{_both(f"explain.button_{key}")}</button>'
        for key in ("theme", "colour", "language")
    )
    return (
        f'<div class="cr-controls" role="toolbar">{moves}<span id="cr-count"></span>{switches}</div>\n'
        f'<p id="cr-narration" role="status" aria-live="polite">{_both("explain.how_to_step")}</p>\n'
    )


def _figure(story: Story) -> str:
    drawn = picture(story)
    legend = (
        f'<figcaption><span class="cr-forward">━ ▶ {_both("explain.legend_forward")}</span> '
        f'<span class="cr-backward">┅ ◀∂ {_both("explain.legend_backward")}</span></figcaption>'
    )
    if not drawn:
        note = _both("explain.not_drawn", count=len(story.steps), limit=DRAWN_STEPS)
        return f'<p class="cr-note">{note}</p>\n'
    return f'<figure>{legend}<div class="cr-scroll" tabindex="0">{drawn}</div></figure>\n'


def _rest(story: Story) -> str:
    notes = ""
    if story.notes:
        blocks = "".join(_pre(language, lines) for language, lines in story.notes.items())
        notes = f"<section>{blocks}</section>\n"
    sections = "".join(_section(one) for one in story.sections)
    return f"{_table(story)}{sections}{_details(story)}{notes}"


def _section(section: Section) -> str:
    """A section's blocks; each is there in both languages, of which the page shows one."""
    english, korean = (section.blocks(language) for language in LANGUAGES)
    parts = [f"<h2>{_in_both(section.heading)}</h2>"]
    for one, other in zip(english, korean, strict=True):
        if isinstance(one, Table) and isinstance(other, Table):
            parts.append(_section_table(one, other))
        else:
            parts.append(f"<p>{_cell(str(one), str(other))}</p>")
    return f'<section class="cr-section">{"".join(parts)}</section>\n'


def _cell(english: str, korean: str) -> str:
    return _side_by_side(dict(zip(LANGUAGES, (english, korean))))


def _section_table(english: Table, korean: Table) -> str:
    """One table whose cells are there in both languages where these differ; columns without content are left out."""
    used = [k for k in range(len(english.heads)) if any(row[k] for row in english.rows)]
    heads = "".join(f'<th scope="col">{_cell(english.heads[k], korean.heads[k])}</th>' for k in used)
    rows = []
    for j, (one, other) in enumerate(zip(english.rows, korean.rows, strict=True)):
        cells = [_cell(one[k], other[k]) for k in used]
        last = ' class="cr-total"' if english.total and j == len(english.rows) - 1 else ""
        rest = "".join(f"<td>{cell}</td>" for cell in cells[1:])
        rows.append(f'<tr{last}><th scope="row">{cells[0]}</th>{rest}</tr>')
    body = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="cr-scroll" tabindex="0">{body}</div>'


def _pre(language: str, lines: list[str]) -> str:
    text = "\n".join(lines).strip("\n")
    return f'<pre class="cr-{language}" lang="{language}">{escape(text)}</pre>'


def _table(story: Story) -> str:
    root = story.root.name
    names = ("step", "node", "forward", "local", "backward")
    heads = "".join(f'<th scope="col">{_both(f"explain.column_{name}", root=root)}</th>' for name in names)
    rows = "".join(_row(step) for step in story.steps[:SHOWN_STEPS])
    left_out = len(story.steps) - SHOWN_STEPS
    more = f'<p class="cr-note">{_both("explain.rows_left_out", count=left_out)}</p>' if left_out > 0 else ""
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="cr-scroll" tabindex="0">{table}</div>{more}\n'


def _row(step: Step) -> str:
    name = _in_both(lambda language: label(step, language))
    told = [
        _side_by_side({language: derivative(step, edge, language) for language in LANGUAGES})
        for edge in moving(step)
    ]
    local = "<br>".join(line for line in told if line)
    value = _in_both(lambda language: show(step.value, language=language))
    gradient = _in_both(lambda language: show(step.gradient, language=language)) or "—"
    return (
        f'<tr data-row="{step.number}"><td>{step.number}</td><th scope="row">{name}</th>'
        f'<td class="cr-forward">{value}</td><td>{local}</td>'
        f'<td class="cr-backward">{gradient}</td></tr>'
    )


def _details(story: Story) -> str:
    """The backward pass in words, one foldable block for each step."""
    blocks = []
    for step in reversed(story.steps[-SHOWN_STEPS:]):
        told = {language: backward(step, story.root, language, where(step)) for language in LANGUAGES}
        if not told["en"]:
            continue
        inner = "".join(_pre(language, lines) for language, lines in told.items())
        summary = escape(step.name if step.is_leaf else f"{step.name} = {step.formula}")
        blocks.append(f"<details><summary>{summary}</summary>{inner}</details>")
    heading = f"<h2>{_both('explain.backward_heading')}</h2>"
    return f'<section class="cr-why">{heading}{"".join(blocks)}</section>\n'


# ------------------------------------------------------------------------------------------------ moments


def _moments(story: Story) -> str:
    """What is said at each moment, as JSON that cannot close its script element."""
    if len(story.steps) > DRAWN_STEPS:
        return "[]"
    said = [
        {
            "step": step.number,
            "phase": phase,
            **{language: _said(step, phase, story.root, language) for language in LANGUAGES},
        }
        for step, phase in Moments(story).order
    ]
    text = json.dumps(said, ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _said(step: Step, phase: str, root: Step, language: str) -> str:
    value = show(step.value, language=language) or "…"
    if phase == "forward":
        if step.is_leaf:
            return sentence("explain.said_given", language, name=step.name, value=value)
        return sentence("explain.said_forward", language, name=step.name, formula=step.formula, value=value)
    lines = backward(step, root, language, "")
    if lines:
        return "\n".join(line.strip() for line in lines)
    return sentence(
        "explain.said_backward",
        language,
        root=root.name,
        name=step.name,
        value=show(step.gradient, language=language),
    )
