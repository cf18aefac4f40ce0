"""The Loops: nests of loops over buffers, as data that can be printed and verified.

A nest is a tree of statements. Values are computed in order and named; positions are indices over loop variables.
Knows nothing of graphs, operations or LLVM.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..dtypes import Dtype
from ..errors import GraphError
from .indices import Dynamic, Index, Variable
from .plan import Buffer


@dataclass(eq=False)
class Value:
    """One number in a loop body.

    `detail` is the number of a "constant", (buffer, index) of a "load", the index of a "number", the
    accumulator of a "read", the function of a "library" call. `flags` are what rounding may be changed.
    """

    name: str
    opcode: str
    dtype: Dtype
    operands: tuple[Value, ...] = ()
    detail: Any = None
    flags: str = ""

    def __str__(self) -> str:
        return f"{self.detail}" if self.opcode == "constant" else self.name


@dataclass(eq=False)
class Accumulator:
    """A number that lives through a loop, starting from `initial`."""

    name: str
    dtype: Dtype
    initial: Value


@dataclass(eq=False)
class Update:
    """The accumulator takes a new value."""

    accumulator: Accumulator
    value: Value


@dataclass(eq=False)
class Store:
    """buffer[index] = value."""

    buffer: Buffer
    index: Index
    value: Value


@dataclass(eq=False)
class For:
    """The body for every value of the variable, in order."""

    variable: Variable
    body: list[Statement] = field(default_factory=list)


@dataclass(eq=False)
class Contraction:
    """out[m, n] = Σₖ left[m, k] · right[k, n], for every value of the batch variables.

    Each operand is (buffer, index over the variables). `by_rows`: whole rows of the result grow with k,
    because rows of the right operand lie side by side; otherwise each element is one sum over k.
    """

    batch: tuple[Variable, ...]
    rows: Variable
    columns: Variable
    inner: Variable
    left: tuple[Buffer, Index]
    right: tuple[Buffer, Index]
    out: tuple[Buffer, Index]
    by_rows: bool


Statement = Value | Accumulator | Update | Store | For | Contraction


@dataclass(eq=False)
class Nest:
    """The loops of one group."""

    title: str
    body: list[Statement]


@dataclass(eq=False)
class Loops:
    """A whole step: its nests in order."""

    name: str
    nests: list[Nest]

    def __str__(self) -> str:
        lines = [f"loops {self.name}: {len(self.nests)} nests"]
        for k, nest in enumerate(self.nests):
            lines.append(f"nest {k}: {nest.title}")
            lines.extend(_print(nest.body, "  "))
        return "\n".join(lines)


def walk(body: list[Statement]) -> Iterator[Statement]:
    """Every statement, those inside loops too."""
    for statement in body:
        yield statement
        if isinstance(statement, For):
            yield from walk(statement.body)


def buffers_of(nest: Nest) -> list[Buffer]:
    """The buffers that a nest touches, in the order of their first use."""
    found: dict[Buffer, None] = {}
    for statement in walk(nest.body):
        if isinstance(statement, Store):
            found[statement.buffer] = None
        elif isinstance(statement, Value) and statement.opcode == "load":
            found[statement.detail[0]] = None
        elif isinstance(statement, Contraction):
            found.update(dict.fromkeys(part[0] for part in (statement.left, statement.right, statement.out)))
    return list(found)


# ---------------------------------------------------------------------------------------------- printer


def _print(body: list[Statement], indent: str) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, For):
            yield f"{indent}for {statement.variable} in {statement.variable.extent}:"
            yield from _print(statement.body, indent + "  ")
        elif isinstance(statement, Store):
            yield f"{indent}{statement.buffer.name}[{statement.index}] = {statement.value}"
        elif isinstance(statement, Accumulator):
            yield f"{indent}{statement.name} = {statement.initial}  {statement.dtype.name}"
        elif isinstance(statement, Update):
            yield f"{indent}{statement.accumulator.name} = {statement.value}"
        elif isinstance(statement, Contraction):
            yield from _print_contraction(statement, indent)
        elif statement.opcode != "constant":
            yield f"{indent}{statement.name} = {_expression(statement)}"


def _expression(value: Value) -> str:
    flags = f"  [{value.flags}]" if value.flags else ""
    if value.opcode == "load":
        return f"{value.detail[0].name}[{value.detail[1]}]"
    if value.opcode == "read":
        return str(value.detail.name)
    if value.opcode == "number":
        return f"{value.detail}"
    name = value.detail if value.opcode == "library" else value.opcode
    name = f"cast {value.dtype.name}" if value.opcode == "cast" else name
    return f"{name} {', '.join(map(str, value.operands))}{flags}"


def _print_contraction(one: Contraction, indent: str) -> Iterator[str]:
    loops = ", ".join(f"{v} in {v.extent}" for v in (*one.batch, one.rows, one.columns))
    (left, at_left), (right, at_right), (out, at_out) = one.left, one.right, one.out
    how = "by rows" if one.by_rows else "by elements"
    yield f"{indent}contract {loops} over {one.inner} in {one.inner.extent}, {how}:"
    yield f"{indent}  {out.name}[{at_out}] = sum {left.name}[{at_left}] * {right.name}[{at_right}]"


# --------------------------------------------------------------------------------------------- verifier


def verify(loops: Loops) -> Loops:
    """Return it, or raise GraphError: values exist before their use, and no index leaves its buffer."""
    for nest in loops.nests:
        _verify(nest.body, set(), set(), nest.title)
    return loops


def _verify(body: list[Statement], values: set[Any], variables: set[Variable], title: str) -> None:
    known, inside = set(values), set(variables)
    for statement in body:
        if isinstance(statement, For):
            if statement.variable.extent:
                _verify(statement.body, known, inside | {statement.variable}, title)
        elif isinstance(statement, Accumulator):
            _need(statement.initial, known, title)
            known.add(statement)
        elif isinstance(statement, Update):
            _need(statement.value, known, title)
            _need(statement.accumulator, known, title)
        elif isinstance(statement, Store):
            _need(statement.value, known, title)
            _verify_index(statement.buffer, statement.index, known, inside, title)
            if statement.value.dtype != statement.buffer.type.dtype:
                raise GraphError(f"{title}: {statement.value.dtype} stored in {statement.buffer.name}")
        elif isinstance(statement, Contraction):
            reach = inside | {*statement.batch, statement.rows, statement.columns, statement.inner}
            if all(variable.extent for variable in reach):
                for buffer, index in (statement.left, statement.right, statement.out):
                    _verify_index(buffer, index, known, reach, title)
        else:
            for operand in statement.operands:
                _need(operand, known, title)
            if statement.opcode == "load":
                _verify_index(statement.detail[0], statement.detail[1], known, inside, title)
            known.add(statement)


def _need(value: Value | Accumulator, known: set[Any], title: str) -> None:
    if value not in known:
        raise GraphError(f"{title}: {value.name} is used before it is computed")


def _verify_index(
    buffer: Buffer, index: Index, known: set[Any], variables: set[Variable], title: str
) -> None:
    for atom in index.atoms():
        if isinstance(atom, Variable) and atom not in variables:
            raise GraphError(f"{title}: {atom} is used outside its loop")
        if isinstance(atom, Dynamic):
            _need(atom.value, known, title)
    if index.low < 0 or index.high >= buffer.size:
        raise GraphError(
            f"{title}: {buffer.name}[{index}] reaches from {index.low} to {index.high} of {buffer.size} elements"
        )
