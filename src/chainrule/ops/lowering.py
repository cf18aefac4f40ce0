"""How an operation says what its loops look like. Data only: the compiler reads it, by kind, never by name.

Knows nothing of LLVM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Lowering:
    """Base of the forms below."""


@dataclass(frozen=True)
class Scalar(Lowering):
    """One result element from one element of each operand: `emit(builder, *elements, **attributes)`."""

    emit: Callable[..., Any]


@dataclass(frozen=True)
class View(Lowering):
    """The result reads the operand elsewhere.

    `index(position, operand_type, result_type, **attributes)` maps a result position (one term per
    axis) to the operand position.
    """

    index: Callable[..., Any]


@dataclass(frozen=True)
class Reduce(Lowering):
    """Folds the elements along `axes`, starting from `initial`: `combine(builder, accumulator, element)`."""

    initial: Callable[..., Any]
    combine: Callable[..., Any]


@dataclass(frozen=True)
class Contraction(Lowering):
    """Sum over a common axis of products of two operands (a batched matrix product)."""


@dataclass(frozen=True)
class Loop(Lowering):
    """A loop of its own: `emit(builder, operands, result, **attributes)` writes the result's elements."""

    emit: Callable[..., Any]


class _Host(Lowering):
    """No loop: the operation runs as a NumPy call between native segments."""

    def __repr__(self) -> str:
        return "HOST"


HOST = _Host()
