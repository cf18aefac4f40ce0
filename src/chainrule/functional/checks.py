"""Arguments that activations and losses share: numbers, choices, and values that must stay in a range.

A range is checked at once where the values are known; in a compiled step it becomes a check of the step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..dtypes import DEFAULT_FLOAT
from ..errors import ArgumentError, ChainruleError
from ..graph import Node, state
from ..tensor import Tensor, as_tensor, dispatch, wrap


def floats(x: Any) -> Tensor:
    """`x` as a tensor of floats; bools and integers become float32."""
    source = as_tensor(x)
    return source if source.dtype.kind == "f" else wrap(dispatch.astype(source.node, DEFAULT_FLOAT))


def check_number(
    name: str, argument: str, value: Any, *, above: float = -math.inf, least: float = -math.inf
) -> float:
    """A Python number that is `above` one bound and at `least` another; NaN is neither."""
    real = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if real and (value > above or above == -math.inf) and value >= least:
        return float(value)
    bound = f" above {above:g}" if above > -math.inf else f" from {least:g}" if least > -math.inf else ""
    raise ArgumentError(f"{name} needs a number{bound} as {argument}; got {value!r}. Change {argument}=")


def check_choice(argument: str, value: Any, choices: Sequence[str]) -> str:
    """One of a few words."""
    if isinstance(value, str) and value in choices:
        return value
    words = [repr(choice) for choice in choices]
    raise ArgumentError(f"{argument} must be {', '.join(words[:-1])} or {words[-1]}; got {value!r}")


def check_range(
    subject: Node, low: float, high: float, message: str, error: type[ChainruleError] = ArgumentError
) -> None:
    """Values from `low` to `high`, or `error` with {low} and {high} of the values; NaN shows in the result."""
    values = subject.value
    if subject.dtype.kind != "f":  # a bound that the dtype cannot hold is no bound
        limits = np.iinfo(np.uint8 if subject.dtype.kind == "b" else subject.dtype)
        low, high = max(low, limits.min), min(high, limits.max)
    if values is not None:
        if ((values < low) | (values > high)).any():
            raise error(message.format(low=np.fmin.reduce(values, None), high=np.fmax.reduce(values, None)))
    elif state.trace is not None:
        outside = subject < low if high == math.inf else ops.bitwise_or(subject < low, subject > high)
        state.trace.check(ops.bitwise_invert(outside), message, error, subject)
