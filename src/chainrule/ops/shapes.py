"""Shape arithmetic with its errors, shared by the type rules. Shapes are Python integers, so they never wrap."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from ..errors import ArgumentError, AxisError, ShapeError

# More elements than any machine addresses; refused before memory is touched.
_MOST_ELEMENTS = 1 << 47


class Shaped(Protocol):
    """Whatever has a shape: a type, a node, an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""


def whole(name: str, what: str, value: Any) -> int:
    """The value as a Python integer; raises ArgumentError for bools, floats and everything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        try:
            return int(operator.index(value))
        except TypeError:  # an array that is not one whole number
            pass
    raise ArgumentError(f"{name} needs a whole number as {what}; got {value!r}")


def check_axis(name: str, axis: Any, x: Shaped) -> int:
    """The axis counted from the front; raises AxisError outside −ndim … ndim − 1."""
    ndim = len(x.shape)
    if type(axis) is int and 0 <= axis < ndim:
        return axis
    number = whole(name, "axis", axis)
    if not -ndim <= number < ndim:
        if not ndim:
            raise AxisError(
                f"{name} needs an axis, and a single number has none; got axis {axis} for shape ()"
            )
        raise AxisError(f"{name} needs an axis from {-ndim} to {ndim - 1}; got {axis} for shape {x.shape}")
    return number % ndim


def check_axes(name: str, axis: int | Iterable[int] | None, x: Shaped) -> tuple[int, ...]:
    """All axes for None; otherwise the named ones, counted from the front, each at most once."""
    if axis is None:
        return tuple(range(len(x.shape)))
    if type(axis) is int:
        return (check_axis(name, axis, x),)
    named = tuple(axis) if isinstance(axis, Iterable) else (axis,)
    axes = tuple([check_axis(name, one, x) for one in named])
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{name} needs different axes; got {axis} for shape {x.shape}")
    return axes


def as_shape(name: str, shape: Any) -> tuple[int, ...]:
    """A shape given by a user, one number or several, as Python integers from 0 that memory can hold."""
    given = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    sizes = tuple([whole(name, "size", size) for size in given])
    if any(size < 0 for size in sizes):
        raise ShapeError(f"{name} needs sizes from 0; got {sizes}")
    count(sizes)
    return sizes


def count(shape: Sequence[int]) -> int:
    """Number of elements; raises ShapeError for more than can be addressed."""
    total = math.prod(shape)
    if total > _MOST_ELEMENTS:
        raise ShapeError(f"a shape of {tuple(shape)} has {total:,} elements, more than memory can hold")
    return total


def reduced(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    """Shape after a reduction along `axes`."""
    if keepdims:
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def broadcast_shapes(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape by the standard's rules (right-aligned, 1 stretches); raises ShapeError."""
    filled = [shape for shape in shapes if shape]
    if all(shape == filled[0] for shape in filled):
        count(filled[0] if filled else ())
        return tuple(filled[0]) if filled else ()
    result: list[int] = []
    for axis in range(-max(map(len, shapes), default=0), 0):
        sizes = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(sizes) > 1:
            shapes = tuple([shape for shape in dict.fromkeys(shapes) if shape])  # () fits everywhere
            shown = " and ".join(map(str, shapes))
            raise ShapeError(
                f"{name} needs shapes that are equal or 1 along each axis, counted from the right; "
                f"got {shown}. {_hint(shapes)}"
            )
        result.append(sizes.pop() if sizes else 1)
    count(result)
    return tuple(result)


def _hint(shapes: tuple[tuple[int, ...], ...]) -> str:
    """A fix that works for the different shapes at hand."""
    if len(shapes) == 2:
        first, second = shapes
        if len(second) == 1 and len(first) == 2 and second[0] == first[0]:
            return f"Did you mean y[:, None], of shape ({second[0]}, 1)?"
        if len(first) == 1 and len(second) == 2 and first[0] == second[0]:
            return f"Did you mean x[:, None], of shape ({first[0]}, 1)?"
        if len(first) > 1 and first == second[::-1]:
            return "Did you mean to transpose one of them (.T)?"
    return "Reshape one of them, or add an axis with None"
