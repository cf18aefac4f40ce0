"""What composites share: a scope for each call, and the reading of `axis=` and `dim=`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

from .. import ops
from ..errors import ArgumentError
from ..graph import scope, state
from ..ops.shapes import check_axis
from ..tensor import Tensor

P = ParamSpec("P")


def composite(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Every call of the function opens a scope with its name."""
    name = function.__name__

    @functools.wraps(function)
    def scoped(*arguments: P.args, **keywords: P.kwargs) -> Tensor:
        with scope(name, "function"):
            if state.quiet:
                return function(*arguments, **keywords)
            with ops.quiet():
                return function(*arguments, **keywords)

    return scoped


def axis_of(name: str, axis: int | None, dim: int | None, x: Tensor) -> int:
    """The axis counted from the front; the last one if neither `axis` nor `dim` is given."""
    if axis is not None and dim is not None:
        raise ArgumentError(f"axis and dim mean the same; got axis={axis} and dim={dim}. Give one")
    return check_axis(name, axis if axis is not None else dim if dim is not None else -1, x)


def without_axis(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The shape that is left when one axis is reduced."""
    k = axis % len(shape)
    return shape[:k] + shape[k + 1 :]
