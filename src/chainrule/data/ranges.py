"""Rows far outside of what was trained on, where a network answers with confidence and knows nothing.

Knows schemas and fitted steps; decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import cells as read
from .facts import Fact, fact, quoted
from .schema import Column, Schema
from .steps import NumberStep, Step

# Beyond the range of training by more than so many of its own widths; deviations from the mean where that is not known.
_WIDTHS, _DEVIATIONS = 1.0, 12.0


def far_rows(
    schema: Schema, steps: Sequence[Step], blocks: Sequence[NDArray[np.float64]], rows: Sequence[object]
) -> list[Fact]:
    """What to say of rows whose numbers or dates lie far outside; blocks: the scaled columns of each step."""
    columns = {column.name: column for column in schema.features}
    found = []
    for step, block in zip(steps, blocks):
        if not isinstance(step, NumberStep) or step.style == "boolean":
            continue
        numbers = block[:, 0] * step.scalings[0].scale + step.scalings[0].mean
        far = _far(columns[step.column], block[:, 0], numbers)
        if far.any():
            found.append(_told(columns[step.column], step, numbers, far, rows))
    return found


def _far(column: Column, scaled: NDArray[np.float64], numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
    low, high = column.minimum, column.maximum
    if isinstance(low, float) and isinstance(high, float) and high > low:
        width = _WIDTHS * (high / 2 - low / 2) * 2
        return np.asarray((numbers < low - width) | (numbers > high + width))
    return np.asarray(np.abs(scaled) > _DEVIATIONS)


def _told(
    column: Column, step: NumberStep, numbers: NDArray[np.float64], far: Any, rows: Sequence[object]
) -> Fact:
    first = int(np.argmax(far))
    low, high = (
        f"{one:.6g}" if isinstance(one, float) else str(one) for one in (column.minimum, column.maximum)
    )
    shown = f"{numbers[first]:.6g}" if read.is_number_style(step.style) else _date(numbers[first])
    return fact(
        "far_rows", column=quoted(column.name), count=int(far.sum()), low=low, high=high, value=shown,
        row=read.row_name(rows, first),
    )  # fmt: skip


def _date(days: float) -> str:
    return str(np.datetime64(0, "D") + np.timedelta64(round(days), "D"))
