"""What is worth knowing about a table before a network learns from it: rare classes, scales, far values.

Knows schemas and preparations; decides nothing.
"""

from __future__ import annotations

from .facts import Fact, fact, quoted
from .preparation import Preparation
from .steps import NumberStep, Scaling

# From which ratio of the largest to the smallest class on accuracy hides what happens to the smallest.
_IMBALANCE = 4.0

# Deviations from the mean beyond which a value is far: an exponential distribution goes so far once in e¹³ = 440,000
# rows.
_FAR = 12.0

# Spreads that differ by more than this would have kept a network from learning.
_UNEQUAL = 10.0


def notes_on(preparation: Preparation, balanced: bool = False) -> list[Fact]:
    """The notes on a table. balanced: whether the classes are weighted already."""
    return [*_imbalance(preparation, balanced), *_scales(preparation), *_far_values(preparation)]


def _imbalance(preparation: Preparation, balanced: bool) -> list[Fact]:
    target = preparation.target
    if len(target.counts) < 2 or max(target.counts) < _IMBALANCE * min(target.counts):
        return []
    rare, frequent = min(target.counts), max(target.counts)
    values = {
        "rare": quoted(target.classes[target.counts.index(rare)]),
        "frequent": quoted(target.classes[target.counts.index(frequent)]),
        "share": rare / sum(target.counts),
        "times": round(frequent / rare),
    }
    return [fact("imbalance_balanced" if balanced else "imbalance", **values)]


def _numbers(preparation: Preparation) -> list[Scaling]:
    return [
        step.scalings[0]
        for step in preparation.steps
        if isinstance(step, NumberStep) and len(step.scalings) == 1 and step.style != "boolean"
    ]


def _scales(preparation: Preparation) -> list[Fact]:
    numbers = _numbers(preparation)
    if not numbers:
        return []
    low, high = (pick(numbers, key=lambda one: one.scale) for pick in (min, max))
    if high.scale <= _UNEQUAL * low.scale:
        return [fact("scaled", count=len(numbers))]
    return [
        fact(
            "scaled_unequal", count=len(numbers), low=quoted(low.feature), small=f"{low.scale:.3g}",
            high=quoted(high.feature), large=f"{high.scale:.3g}",
        )
    ]  # fmt: skip


def _far_values(preparation: Preparation) -> list[Fact]:
    scalings = {one.feature: one for one in _numbers(preparation)}
    far: list[tuple[float, str, float]] = []
    for column in preparation.schema.features:
        scaling = scalings.get(column.name)
        if scaling is None:
            continue
        for value in (column.minimum, column.maximum):
            if isinstance(value, float) and (away := abs(value - scaling.mean) / scaling.scale) > _FAR:
                far.append((away, column.name, value))
    if not far:
        return []
    away, name, value = max(far)
    columns = list(dict.fromkeys(one[1] for one in sorted(far, reverse=True)))
    return [fact("far_values", columns=columns, column=quoted(name), value=f"{value:.6g}", times=round(away))]
