"""Numerical differentiation of a function of one number: central differences, an adaptive step, an error bar.

The derivative is extrapolated to step 0 after C. J. F. Ridders, "Accurate computation of F′(x) and F′(x)F″(x)",
Advances in Engineering Software 4 (1982) 75–76: steps are halved, Neville's scheme removes one power of the
step after the other, and the disagreement of neighbours in the scheme is the error bar. Two things are added:
the rounding noise of the function divided by the step, and half of the difference between the slopes to the
right and to the left, so that a kink widens the bar instead of raising a false alarm.
Knows nothing of tensors or derivative rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

# The first step, relative to max(1, |x|). Not a round number: functions with a round period would look constant.
_FIRST_STEP = 0.0886
_LEVELS = 40
# Columns kept in Neville's scheme; further ones only amplify noise.
_COLUMNS = 6
# A bar this wide relative to the value, found at every step, means that the differences do not settle.
_UNSETTLED = 0.2
# This part of the neighbouring slopes counts as 0.
NEGLIGIBLE = 1e-3

ONE_SIDED = "edge"
KINK = "kink"
DIVERGES = "diverges"
NOISE = "noise"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A numerical derivative: value ± error.

    `obstacle` names what limits it, `chord` is the steeper of the two slopes over the widest step (what
    counts as large near here), `evaluations` what it cost.
    """

    value: float
    error: float
    obstacle: str
    chord: float
    evaluations: int


class _Extrapolation:
    """Neville's scheme for a quantity measured at steps h, h/2, h/4 …, whose error is a series in hᵖ."""

    def __init__(self, first_power: int, power: int) -> None:
        self._first = first_power
        self._power = power
        self._row: list[float] = []
        self.value = math.nan
        self.error = math.inf

    def add(self, measured: float, noise: float) -> None:
        row = [measured]
        best, bar = math.nan, math.inf
        for column, before in enumerate(self._row[:_COLUMNS]):
            factor = 2.0 ** (self._first + self._power * column)
            row.append((factor * row[column] - before) / (factor - 1))
            error = max(abs(row[-1] - row[-2]), abs(row[-1] - before)) + 2 * noise
            if error <= bar:
                best, bar = row[-1], error
        self._row = row
        # A narrower bar wins; so does a smaller step that contradicts what larger ones had agreed on.
        if bar <= self.error or abs(best - self.value) > self.error + bar:
            self.value, self.error = best, bar

    def restart(self) -> None:
        self._row = []


def differentiate(
    function: Callable[[float], tuple[float, float]],
    x: float,
    *,
    value: float,
    noise: float,
    resolution: float,
    goal: float,
    reach: float = 1.0,
) -> Estimate:
    """The derivative at step 0 of `function(step)`, which returns (value, step as it was really taken).

    value: function(0). noise: rounding error of one value. resolution: relative spacing of the numbers
    near x. goal: a relative error bar that is good enough to stop at. reach: a factor of the first step.
    """
    slope = _Extrapolation(2, 2)  # the central difference has an error series in h², h⁴ …
    bend = _Extrapolation(1, 1)  # (f(x+h) − 2f(x) + f(x−h))/h: 0 where smooth, the jump in slope at a kink
    step = _FIRST_STEP * reach * max(1.0, abs(x))
    evaluations = usable = 0
    chord = 0.0
    for _ in range(_LEVELS):
        (above, up), (below, down) = function(step), function(-step)
        evaluations += 2
        width = up - down
        if width <= 0:
            break
        if not (math.isfinite(above) and math.isfinite(below)):
            slope.restart()
            bend.restart()
            step = abs(x) / 4 if 0 < abs(x) < step else step / 8
            continue
        usable += 1
        middle = (above - below) / width
        chord = chord if usable > 1 else 2 * max(abs(above - value), abs(value - below)) / width
        spread = 2 * (noise + resolution * abs(x) * abs(middle)) / width
        slope.add(middle, spread)
        bend.add(2 * (above - 2 * value + below) / width, 2 * spread)
        error = slope.error + (abs(bend.value) + bend.error) / 2
        if usable >= 4 and (error <= goal * abs(slope.value) or 2 * spread > error or _is_kink(slope, bend)):
            break
        step /= 2
    if usable < 2:
        return Estimate(math.nan, math.inf, ONE_SIDED, chord, evaluations)
    return _judge(slope, bend, noise, chord, evaluations)


def _is_kink(slope: _Extrapolation, bend: _Extrapolation) -> bool:
    """A jump in slope that has settled: no smaller step can make the bar narrower."""
    return bend.error < 1e-3 * abs(bend.value) and slope.error < abs(bend.value)


def _judge(
    slope: _Extrapolation, bend: _Extrapolation, noise: float, chord: float, evaluations: int
) -> Estimate:
    jump = abs(bend.value)
    error = slope.error + (jump + bend.error) / 2
    obstacle = NOISE
    if slope.error > max(_UNSETTLED * max(abs(slope.value), NEGLIGIBLE * chord), 1e3 * noise):
        obstacle, error = DIVERGES, math.inf
    elif jump > 3 * bend.error:
        obstacle = KINK
    elif bend.error > slope.error and bend.error > 1e3 * noise:
        obstacle = DIVERGES
    return Estimate(slope.value, error, obstacle, chord, evaluations)
