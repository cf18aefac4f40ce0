"""The Loops: nests of loops over buffers, as data that can be printed and verified.

A nest is a tree of statements. Values are computed in order and named; positions are indices over loop variables.
Knows nothing of graphs, operations or LLVM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..dtypes import Dtype
from ..errors import GraphError, Origin
from ..operations import Array
from .indices import Dynamic, Index, Variable
from .plan import Buffer


@dataclass(eq=False)
class Value:
    """One number in a loop body.

    `detail` is the number of a "constant", (buffer, index) of a "load", the index of a "number", the
    accumulator of a "read", the function of a "library" call or of one that is made "unless" a condition holds.
    `flags` are what rounding may be changed.
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
    """out = Σ left · right over the inner variables, for every value of rows, columns and the batch variables.

    Each operand is (buffer, index over the variables); rows do not move the right one. `by_rows`: whole rows of the
    result grow with the inner variables, because rows of the right operand lie side by side; otherwise each element is
    one sum. `finite`: a bool that becomes false if some element of the result is infinite or NaN.
    """

    batch: tuple[Variable, ...]
    rows: Variable
    columns: Variable
    inner: tuple[Variable, ...]
    left: tuple[Buffer, Index]
    right: tuple[Buffer, Index]
    out: tuple[Buffer, Index]
    by_rows: bool
    finite: tuple[Buffer, Index] | None = None


@dataclass(eq=False)
class Host:
    """out = call(operands), computed by NumPy between two native segments.

    `operands` are buffers, or arrays where the numbers are known already; `origin` is the user's line. `parts`: where
    the results go, by number, if there are several.
    """

    name: str
    call: Callable[[list[Array]], Any]
    operands: tuple[Buffer | Array, ...]
    out: Buffer
    origin: Origin | None = None
    parts: tuple[tuple[int, Buffer], ...] = ()

    @property
    def writes(self) -> list[Buffer]:
        """Where the results go."""
        return [buffer for _, buffer in self.parts] or [self.out]

    @property
    def reads(self) -> list[Buffer]:
        """The operands that lie in buffers."""
        return [one for one in self.operands if isinstance(one, Buffer)]


class Bound(NamedTuple):
    """Where a buffer of one step lies: in a buffer outside, so many bytes from its start and so many further at each
    step; or where carry number `carry` is read or written at this step (`role` "in", "out", else "").
    """

    outer: Buffer | None
    offset: int = 0
    stride: int = 0
    role: str = ""
    carry: int = 0


@dataclass(eq=False)
class Carry:
    """What a step hands to the next: where it comes from at first, and where it goes at last (None: nowhere).

    Between, it lies in two `spare` places in turn; or `along` a stacked result, at the place of the step that has
    computed it, or `ahead`: at that of the step that reads it.
    """

    bytes: int
    start: Buffer | None
    final: Buffer | None
    spare: tuple[Buffer, Buffer]
    along: Buffer | None = None
    ahead: bool = False


@dataclass(eq=False)
class Recurrence:
    """The nests of `body`, run once for each of `length` steps, from the last one on if `reverse`.

    bound: where the buffers of the body lie. reads, writes: buffers outside.
    """

    body: Loops
    length: int
    reverse: bool
    bound: dict[Buffer, Bound]
    carries: list[Carry]
    reads: list[Buffer]
    writes: list[Buffer]


Statement = Value | Accumulator | Update | Store | For | Contraction | Host | Recurrence


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


def walk(body: list[Statement]) -> list[Statement]:
    """Every statement, those inside loops too."""
    found: list[Statement] = []
    for statement in body:
        found.append(statement)
        if type(statement) is For:
            found.extend(walk(statement.body))
    return found


def flat_loop(nest: Nest) -> For | None:
    """The only loop of a nest that computes and stores element by element."""
    if len(nest.body) != 1 or not isinstance(nest.body[0], For):
        return None
    loop = nest.body[0]
    return loop if all(isinstance(one, Value | Store) for one in loop.body) else None


def outer_loop(nest: Nest) -> For | None:
    """The only loop of a nest, if each of its turns writes memory that no other one touches."""
    if len(nest.body) != 1 or not isinstance(nest.body[0], For):
        return None
    loop = nest.body[0]
    inside = list(walk(loop.body))
    if any(isinstance(one, Contraction | Host) for one in inside):
        return None
    touched = [(one.buffer, one.index) for one in inside if isinstance(one, Store)]
    # What a nest has for itself is cleared in each turn, and each thread has its own.
    written = {buffer for buffer, _ in touched if buffer.place != "local"}
    touched += [one.detail for one in inside if isinstance(one, Value) and one.opcode == "load"]
    return loop if all(_own_part(touched, buffer, loop.variable) for buffer in written) else None


def _own_part(touched: list[tuple[Buffer, Index]], buffer: Buffer, variable: Variable) -> bool:
    """Whether a buffer is touched at each value of the variable in a stretch of its own."""
    indices = {index for other, index in touched if other is buffer}
    steps = {index.coefficient(variable) for index in indices}
    if len(steps) != 1:
        return False
    (step,) = steps
    rests = [index - Index.of(variable) * step for index in indices]
    if step <= 0 or any(atom is variable for rest in rests for atom in rest.atoms()):
        return False
    return max(rest.high for rest in rests) - min(rest.low for rest in rests) < step


def turns(body: list[Statement]) -> int:
    """How often the innermost loops run, all together."""
    loops = [one for one in body if isinstance(one, For)]
    return sum(one.variable.extent * turns(one.body) for one in loops) if loops else 1


def buffers_of(nest: Nest) -> list[Buffer]:
    """The buffers that a nest touches, in the order of their first use; without those that it has for itself."""
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
        elif isinstance(statement, Host | Recurrence):
            found.update(dict.fromkeys((*statement.reads, *statement.writes)))
    return [buffer for buffer in found if buffer.place != "local"]


def all_nests(loops: Loops) -> Iterator[Nest]:
    """Every nest, those of loops over time too."""
    for nest in loops.nests:
        yield nest
        if nest.body and isinstance(nest.body[0], Recurrence):
            yield from all_nests(nest.body[0].body)


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
            names = ", ".join(buffer.name for buffer in statement.writes)
            yield f"{indent}{names} = NumPy {statement.name}({given})"
        elif isinstance(statement, Recurrence):
            way = "from the last to the first" if statement.reverse else "in order"
            yield f"{indent}for {statement.length} steps {way}:"
            for nest in statement.body.nests:
                yield f"{indent}  {nest.title}"
                yield from _print(nest.body, indent + "    ")
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
    name = f"{name} {value.detail}" if value.opcode == "unless" else name
    name = f"cast {value.dtype.name}" if value.opcode == "cast" else name
    return f"{name} {', '.join(map(str, value.operands))}{flags}"


def _print_contraction(one: Contraction, indent: str) -> Iterator[str]:
    loops = ", ".join(f"{v} in {v.extent}" for v in (*one.batch, one.rows, one.columns))
    (left, at_left), (right, at_right), (out, at_out) = one.left, one.right, one.out
    how = "by rows" if one.by_rows else "by elements"
    over = ", ".join(f"{v} in {v.extent}" for v in one.inner)
    yield f"{indent}contract {loops} over {over}, {how}:"
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
            reach = inside | {*statement.batch, statement.rows, statement.columns, *statement.inner}
            if all(variable.extent for variable in reach):
                for buffer, index in (statement.left, statement.right, statement.out):
                    _verify_index(buffer, index, known, reach, title)
        elif isinstance(statement, Host):
            if len(body) > 1 or variables:
                raise GraphError(f"{title}: a call of NumPy stands alone, outside of loops")
        elif isinstance(statement, Recurrence):
            if len(body) > 1 or variables:
                raise GraphError(f"{title}: a loop over time stands alone, outside of loops")
            verify(statement.body)
        else:
            for operand in statement.operands:
                _need(operand, known, title)
            if statement.opcode == "load":
                _verify_index(statement.detail[0], statement.detail[1], known, inside, title)
            elif statement.opcode == "number":
                _verify_atoms(statement.detail, known, inside, title)
            known.add(statement)


def _need(value: Value | Accumulator, known: set[Any], title: str) -> None:
    if value not in known:
        raise GraphError(f"{title}: {value.name} is used before it is computed")


def _verify_index(
    buffer: Buffer, index: Index, known: set[Any], variables: set[Variable], title: str
) -> None:
    _verify_atoms(index, known, variables, title)
    if index.low < 0 or index.high >= buffer.size:
        raise GraphError(
            f"{title}: {buffer.name}[{index}] reaches from {index.low} to {index.high} of {buffer.size} elements"
        )


def _verify_atoms(index: Index, known: set[Any], variables: set[Variable], title: str) -> None:
    for atom in index.atoms():
        if isinstance(atom, Variable) and atom not in variables:
            raise GraphError(f"{title}: {atom} is used outside its loop")
        if isinstance(atom, Dynamic):
            _need(atom.value, known, title)
