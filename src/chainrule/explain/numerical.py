"""Numerical differentiation as the seeds' posts discuss it: central differences, their best step, their cost.

Also proportional blame, the 60/40 picture of backpropagation, beside which the gradient is shown.
Knows functions of float64 arrays, and the graph of one only to weigh its rounding errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autodiff import gradients
from ..errors import ArgumentError
from ..graph import Node
from ..operations import Array
from ..ops.namespace import absorb

Function = Callable[[Mapping[str, Array]], float]

STEPS = tuple(10.0**-k for k in range(1, 13))
"""Steps that are tried: from far too coarse to far too fine."""

_EPSILON = float(np.finfo(np.float64).eps)

# The verdict allows this many times the estimated error of the best step.
_TOLERANCE = 10.0


@dataclass(frozen=True, slots=True)
class Difference:
    """∂f/∂element by a central difference, the step that it took, and an estimate of its error."""

    name: str
    index: tuple[int, ...]
    value: float
    step: float
    error: float

    def agrees(self, gradient: float) -> bool:
        """Is `gradient` within the error bar (and a little rounding)?"""
        return abs(self.value - gradient) <= _TOLERANCE * self.error + 1e-12 * max(1.0, abs(gradient))


def central(
    f: Function, values: Mapping[str, Array], name: str, index: tuple[int, ...], step: float
) -> float:
    """(f(x + h) − f(x − h)) / 2h in one element: two forward passes."""
    up, down = values[name].copy(), values[name].copy()
    up[index] += step
    down[index] -= step
    width = float(up[index] - down[index])  # the step that floating point really took
    return (f({**values, name: up}) - f({**values, name: down})) / width


def rounding_noise(result: Node) -> float:
    """Rounding error of a float64 result: Σ ε·|v|·|∂result/∂v| over every value v behind it.

    Each value is rounded by up to ε·|v|, and its gradient says how much of that arrives (the running error
    analysis of Wilkinson, with the backward pass as its bookkeeping).
    """
    total = 0.0

    def add(node: Node, g: Any) -> None:
        nonlocal total
        if isinstance(g, np.ndarray) and isinstance(node.value, np.ndarray):
            total += float(np.abs(absorb(node.value, g)).sum())

    gradients([result], [np.ones(result.shape, result.dtype)], visit=add)
    return _EPSILON * total if math.isfinite(total) else math.inf


def best_difference(
    f: Function, values: Mapping[str, Array], name: str, index: tuple[int, ...], noise: float
) -> Difference:
    """The central difference at the step with the smallest estimated error.

    Truncation is estimated by what changes from a step ten times as large (a central difference's error
    falls with h², so 1/99 of that change is left), rounding by noise/h, where `noise` is the error of f.
    """
    scale = max(1.0, abs(float(values[name][index])))
    best: Difference | None = None
    before: float | None = None
    for relative in STEPS:
        step = relative * scale
        value = central(f, values, name, index, step)
        if math.isfinite(value):
            rounding = (noise + _EPSILON * abs(value) * scale) / step
            truncation = abs(value - before) / 99 if before is not None else math.inf
            error = truncation + rounding
            if best is None or error < best.error:
                best = Difference(name, index, value, step, error)
            before = value
        else:
            before = None
    return best or Difference(name, index, math.nan, math.nan, math.inf)


def proportional_blame(contributions: Sequence[float], error: float) -> tuple[list[float], list[float]]:
    """Shares of the contributions in their sum, and the error divided in those shares.

    This is how backpropagation is often pictured, and it is not the gradient: the gradient of a sum is the
    same for every term, whatever its size, because every term moves the sum one for one.
    Raises ArgumentError if the contributions add up to 0 or are not finite.

    >>> proportional_blame([3, 2], 0.6)
    ([0.6, 0.4], [0.36, 0.24])
    """
    numbers = [float(one) for one in contributions]
    total = math.fsum(numbers)
    if not numbers or not math.isfinite(total) or total == 0:
        raise ArgumentError(
            f"shares need finite contributions whose sum is not 0; got {numbers}. The gradient has no such limit"
        )
    shares = [one / total for one in numbers]
    return shares, [share * float(error) for share in shares]
