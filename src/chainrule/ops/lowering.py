"""How an operation says what its loops look like, and which of its forms are exactly equal.

Data only: the compiler reads it, by form, never by the operation's name. The `builder` of the rules makes one
value of a loop body from others; positions are integer expressions that know `+ - * // %`.
Knows nothing of LLVM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Lowering:
    """Base of the forms below."""


@dataclass(frozen=True)
class Scalar(Lowering):
    """One result element from one element of each operand: `emit(builder, *elements, **attributes)`.

    `only` names the kinds of dtypes (NumPy's letters) that it can do; "" stands for all. `finite`: it asks whether
    its operand is finite, which who computes the operand can answer on the way.
    """

    emit: Callable[..., Any]
    only: str = ""
    finite: bool = False


@dataclass(frozen=True)
class View(Lowering):
    """The result reads the operand elsewhere.

    `index(position, operand_type, result_type, **attributes)` maps a result position (one term per
    axis) to the operand position.
    """

    index: Callable[..., Any]


@dataclass(frozen=True)
class Gather(Lowering):
    """The result reads any elements: `element(builder, position, operands, result_type, **attributes)`.

    Each of `operands` is called with a position and gives the element there; `.type` is its type.
    """

    element: Callable[..., Any]


@dataclass(frozen=True)
class Reduce(Lowering):
    """Folds the elements along `axes`, starting from `initial(builder)`: `combine(builder, accumulator, element)`.

    `grouped`: the elements may be grouped anew (sums), and many of them are folded in the widest type.
    """

    initial: Callable[..., Any]
    combine: Callable[..., Any]
    grouped: bool = False


@dataclass(frozen=True)
class Contraction(Lowering):
    """Sums of products of two operands' elements: matrix products, convolutions.

    `inner(left_type, right_type, **attributes)`: extents of the axes that are summed over.
    `places(position, along, left_type, right_type, **attributes)`: (position in left, position in right) of one term,
    for a position in the result and one along the inner axes.
    `parts(result_type, **attributes)`: for each axis of the result the extents of the parts that it is counted in, the
    outermost first (a group, and a channel within it); `position` then has a term for each part. None: whole axes.
    `turns`: with the last two axes of both operands exchanged and the operands too, the result's are exchanged.
    """

    inner: Callable[..., Any]
    places: Callable[..., Any]
    parts: Callable[..., Any] | None = None
    turns: bool = False


@dataclass(frozen=True)
class Scatter(Lowering):
    """The elements of operand `source` are written, in order, at `place(builder, position, operands, result_type)`.

    They are added to zeros; or, where `start` names an operand, they replace elements of it.
    """

    place: Callable[..., Any]
    source: int = 0
    start: int | None = None


@dataclass(frozen=True)
class Running(Lowering):
    """Every partial result of folding along `axis`: `combine(builder, accumulator, element)`."""

    initial: Callable[..., Any]
    combine: Callable[..., Any]


@dataclass(frozen=True)
class Position(Lowering):
    """Where along `axis` the first element stands that no other is `better(builder, element, best)` than.

    A NaN is better than every number.
    """

    better: Callable[..., Any]


class Steps(NamedTuple):
    """A graph that is run for each step of time: how many of its inputs are carries, then entries of stacked inputs;
    its outputs are the new carries, then entries of stacked results.
    """

    body: Any
    carries: int
    stacked: int
    length: int
    reverse: bool


@dataclass(frozen=True)
class Loop(Lowering):
    """A graph run step after step, with several results; the operation's attributes are those of `Steps`."""


@dataclass(frozen=True)
class Part(Lowering):
    """One of several results of the operand, which has stored them all; the attribute `index` says which."""


class _Host(Lowering):
    """No loop: the operation runs as a NumPy call between native segments."""

    def __repr__(self) -> str:
        return "HOST"


HOST = _Host()


@dataclass(frozen=True)
class Exact:
    """What may be put in an operation's place without changing one bit of the result.

    `gate`: the result is above 0 exactly where the operand is. `above`: which operand is asked whether it is above the
    other one; of a gate's operand and 0 the gate's result may be asked instead, which is in memory anyway.
    `neutral`: for each operand the value that leaves the other one as it is (None: there is none).
    `plain`: the name of the operation that does the same where one operand is a finite constant other than 0.
    `merge(inner, outer, operand_type)`: attributes with which one operation does the work of two of its kind
    in a row; None if it cannot. `nothing(operand_type, **attributes)`: does it change nothing at all?
    `results(operands, inline, **attributes)`: the nodes that stand for the results of an operation over a graph,
    where `inline(graph, operands)` writes a graph out; an operand with several results is the tuple of them.
    """

    neutral: tuple[float | None, ...] = ()
    gate: bool = False
    above: int | None = None
    plain: str | None = None
    merge: Callable[..., Any] | None = None
    nothing: Callable[..., bool] | None = None
    results: Callable[..., Any] | None = None


NOTHING_EXACT = Exact()
