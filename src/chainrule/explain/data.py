"""The story as plain data and as JSON, and into files.

Numbers keep every digit of their type. JSON has no NaN or infinity: they are the strings "NaN", "Infinity"
and "-Infinity". Arrays of more than 1,000 elements are described unless `full`.
Knows the story's classes; knows nothing of pages beyond asking for one.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError
from ..files import replace_file
from ..operations import Array
from .numbers import extremes

if TYPE_CHECKING:
    from .story import Edge, Step, Story

SCHEMA = "chainrule.story/1"
LISTED_ELEMENTS = 1000


def as_data(story: Story, full: bool = False) -> dict[str, Any]:
    """The story as dicts and lists."""
    sections = [{"section": one.kind, **one.data(full)} for one in story.sections]
    return {
        "schema": SCHEMA,
        "title": story.title,
        "root": story.root.name,
        "starts_from_ones": story.seed_is_ones,
        "steps": [_step(step, full) for step in story.steps],
        **({"sections": sections} if sections else {}),
        **story.extras,
    }


def as_json(story: Story, full: bool = False) -> str:
    """The story as JSON text that every parser accepts."""
    return json.dumps(as_data(story, full), ensure_ascii=False, allow_nan=False, indent=2)


def _step(step: Step, full: bool) -> dict[str, Any]:
    return {
        "step": step.number,
        "name": step.name,
        "kind": step.kind,
        "operation": step.operation,
        "formula": step.formula,
        "shape": list(step.type.shape),
        "dtype": step.type.dtype.name,
        "value": numbers(step.value, full),
        "gradient": numbers(step.gradient, full),
        "sum_of": [
            {"step": consumer.number, "operand": edge.position, "value": numbers(edge.outgoing, full)}
            for consumer, edge in step.arrivals
        ],
        "operands": [_edge(step, edge, full) for edge in step.edges],
        "why": step.why,
        "source": {"file": step.origin.file, "line": step.origin.line}
        if step.origin
        else step.source or None,
        "scope": step.scope,
        "folded": list(step.folded),
    }


def _edge(step: Step, edge: Edge, full: bool) -> dict[str, Any]:
    passes = edge.outgoing is not None
    return {
        "step": edge.source.number or None,
        "name": edge.source.name,
        "local_derivative": edge.symbol or None,
        "local": numbers(edge.local, full),
        "rule": edge.rule or None,
        "incoming": numbers(step.gradient, full) if passes else None,
        "outgoing": numbers(edge.outgoing, full),
    }


def numbers(value: Array | None, full: bool = False) -> Any:
    """An array as nested lists of numbers; a large one as shape, smallest, mean and largest element."""
    if value is None:
        return None
    if value.size > LISTED_ELEMENTS and not full:
        low, mean, high = extremes(value)
        return {"shape": list(value.shape), "min": _finite(low), "mean": _finite(mean), "max": _finite(high)}
    return _nested(_shortest(value).tolist())


def _shortest(value: Array) -> Array:
    """float32 numbers as the float64 with the fewest digits that mean the same float32."""
    if value.dtype == np.float32:
        return np.array([float(str(one)) for one in value.ravel()]).reshape(value.shape)
    return value


def _nested(value: Any) -> Any:
    return [_nested(one) for one in value] if isinstance(value, list) else _finite(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def save(story: Story, path: str | os.PathLike[str], language: str) -> None:
    """Write the story to a file in the form that its suffix names."""
    target = Path(path)
    suffix = target.suffix.lower()
    text = (
        story.html(language)
        if suffix in (".html", ".htm")
        else story.json() + "\n" if suffix == ".json" else story.text(language) + "\n"
    )  # fmt: skip
    try:
        replace_file(target, text.encode("utf-8"))
    except OSError as failure:
        raise ArgumentError(
            f"the story could not be written to {str(target)!r}: {failure.strerror}. Choose a folder that exists"
        ) from failure
