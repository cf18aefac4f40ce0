"""The Loops: nests of loops over buffers, as data that can be printed and verified.

A nest is a tree of statements. Values are computed in order and named; positions are indices over loop variables.
Knows nothing of graphs, operations or LLVM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..dtypes import Dtype
from ..errors import GraphError, Origin
from ..operations import Array
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
    because rows of the right operand lie side by side; otherwise each element is one sum over k. `finite`: a bool
    that becomes false if some element of the result is infinite or NaN.
    """

    batch: tuple[Variable, ...]
    rows: Variable
    columns: Variable
    inner: Variable
    left: tuple[Buffer, Index]
    right: tuple[Buffer, Index]
    out: tuple[Buffer, Index]
    by_rows: bool
    finite: tuple[Buffer, Index] | None = None


@dataclass(eq=False)
class Host:
    """out = call(operands), computed by NumPy between two native segments.

    `operands` are buffers, or arrays where the numbers are known already; `origin` is the user's line.
    """

    name: str
    call: Callable[[list[Array]], Any]
    operands: tuple[Buffer | Array, ...]
    out: Buffer
    origin: Origin | None = None

    @property
    def reads(self) -> list[Buffer]:
        """The operands that lie in buffers."""
        return [one for one in self.operands if isinstance(one, Buffer)]


Statement = Value | Accumulator | Update | Store | For | Contraction | Host


@dataclass(eq=False)
class Nest:
    """The loops of one group, or of several that became one.

    `commit`: they run only if every check holds. `asks_finite`: all that they find out is whether a buffer's numbers
    are finite.
    """

    title: str
    body: list[Statement]
    commit: bool = False
    asks_finite: tuple[Buffer, Store] | None = None


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


def flat_loop(nest: Nest) -> For | None:
    """The only loop of a nest that computes and stores element by element."""
    if len(nest.body) != 1 or not isinstance(nest.body[0], For):
        return None
    loop = nest.body[0]
    return loop if all(isinstance(one, Value | Store) for one in loop.body) else None


def buffers_of(nest: Nest) -> list[Buffer]:
    """The buffers that a nest touches, in the order of their first use."""
    found: dict[Buffer, None] = {}
    for statement in walk(nest.body):
        if isinstance(statement, Store):
            found[statement.buffer] = None
        elif isinstance(statement, Value) and statement.opcode == "load":
            found[statement.detail[0]] = None
        elif isinstance(statement, Contraction):
            parts = (
                statement.left,
                statement.right,
                statement.out,
                *((statement.finite,) * bool(statement.finite)),
            )
            found.update(dict.fromkeys(part[0] for part in parts))  # type: ignore[index]
        elif isinstance(statement, Host):
            found.update(dict.fromkeys((*statement.reads, statement.out)))
    return list(found)


def host_call(nest: Nest) -> Host | None:
    """The call of NumPy that a nest stands for; None for loops."""
    return nest.body[0] if nest.body and isinstance(nest.body[0], Host) else None


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
        elif isinstance(statement, Host):
            given = ", ".join(
                one.name if isinstance(one, Buffer) else "constant" for one in statement.operands
            )
            yield f"{indent}{statement.out.name} = NumPy {statement.name}({given})"
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
    if one.finite is not None:
        yield f"{indent}  {one.finite[0].name}[{one.finite[1]}] = all finite"


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
        elif isinstance(statement, Host):
            if len(body) > 1 or variables:
                raise GraphError(f"{title}: a call of NumPy stands alone, outside of loops")
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
