"""What composites share: a scope for each call, and the reading of `axis=` and `dim=`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from .. import ops
from ..elsewhere import explain_misfit
from ..errors import ArgumentError
from ..graph import scope, state
from ..ops.shapes import check_axes
from ..tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")

Axes = int | Sequence[int] | None


def composite(function: Callable[P, R], scope_name: str | None = None) -> Callable[P, R]:
    """Every call of the function opens a scope with its name (or another)."""
    name = scope_name or function.__name__

    @functools.wraps(function)
    def scoped(*arguments: P.args, **keywords: P.kwargs) -> R:
        try:
            with scope(name, "function"):
                if state.quiet:
                    return function(*arguments, **keywords)
                with ops.quiet():
                    return function(*arguments, **keywords)
        except TypeError:
            kept = explain_misfit(function, name, arguments, keywords)
            if kept is None:
                raise
        return scoped(*arguments, **kept)

    return scoped


def axes_of(name: str, axis: Axes, dim: Axes, x: Tensor) -> tuple[int, ...]:
    """The axes counted from the front; the last one if neither `axis` nor `dim` is given."""
    if axis is not None and dim is not None:
        raise ArgumentError(f"axis and dim mean the same; got axis={axis} and dim={dim}. Give one")
    wanted = dim if axis is None else axis
    axes = check_axes(name, -1 if wanted is None else wanted, x)
    if not axes:
        raise ArgumentError(
            f"{name} needs at least one axis; got axis={wanted!r}. Leave it out for the last one"
        )
    return axes


def one_axis(axis: int | None, dim: int | None) -> int | None:
    """What was given of two names for the same thing."""
    if axis is not None and dim is not None:
        raise ArgumentError(f"axis and dim mean the same; got axis={axis} and dim={dim}. Give one")
    return dim if axis is None else axis


def without_axis(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The shape that is left when one axis is reduced."""
    k = axis % len(shape)
    return shape[:k] + shape[k + 1 :]
