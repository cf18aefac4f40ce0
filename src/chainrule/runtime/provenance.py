"""Where a NaN or infinity comes from: the first operation that makes one of finite numbers, not those that hand it on.

The search goes back from a value that is not finite, through the operands that are to blame for it: those whose repair
would make the result finite. It ends at an operation whose operands are fine, or at what came in from outside: data, a
parameter, a constant. Infinity that somebody wrote down (a mask of −∞) is no fault by itself; the first operation that
makes NaN of it is.
Works on any graph with values, compiled or eager. Knows nodes and operations; the advice knows operations by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import ops
from ..errors import NonFiniteError, at
from ..graph import Cell, Graph, Node, evaluate, topological
from ..operations import CONSTANT, INPUT, READ, Array
from ..ops.lowering import Loop, Part, Scalar, Steps

Values = Callable[[Node], Any]
"""The array of a node, or None where it is not known."""

# Numbers that stand in for what is not finite, to see whether an operation would do without it.
_REPAIRS = (1.0, 0.5)
# Parameters named in a message.
_MOST_NAMES = 3


@dataclass(frozen=True)
class Operand:
    """One number that went into the producer: the operand's name, the number, where it stands."""

    name: str
    value: float
    index: tuple[int, ...]
    everywhere: bool = False


@dataclass(frozen=True, eq=False)
class Producer:
    """What made the first NaN or infinity.

    `kind`: "operation", "input" (an argument), "state" (a parameter, buffer or gradient) or "constant". `value` and
    `index`: the first element that is not finite; `wrong` of `size` elements are. `operands`: the numbers that went in
    there. `fix`: what to do, in a sentence. `steps`: at which step of a loop over time (of each, if one runs inside of
    another), and `within` the loop's result through which it leaves.
    """

    node: Node
    kind: str
    value: float
    index: tuple[int, ...]
    wrong: int
    size: int
    operands: tuple[Operand, ...]
    name: str
    fix: str
    steps: tuple[int, ...] = ()
    within: Node | None = None

    @property
    def operation(self) -> str:
        """The operation's name."""
        return self.node.operation.name

    @property
    def line(self) -> str:
        """The user's line, as `train.py:14`; empty where it is unknown."""
        return str(self.node.origin) if self.node.origin is not None else ""

    def __str__(self) -> str:
        count = f", {self.wrong} of {self.size} elements" if self.size > 1 else ""
        if self.kind != "operation":
            return f"{self.name}: {_number(self.value)}{_place(self.index)}{count}"
        of = (
            f"the gradient of {self.node.gradient_of.operation.name}, "
            if self.node.gradient_of is not None
            else ""
        )
        given = " and ".join(
            f"{one.name} {'is up to' if one.everywhere else '='} {_number(one.value)}"
            for one in self.operands
        )
        where = f" where {given}" if given else ""
        when = f", at step {' and step '.join(map(str, self.steps))}" if self.steps else ""
        told = f"{of}{self.operation}{at(self.node.origin)}: {_number(self.value)}"
        return f"{told}{_place(self.index)}{where}{count}{when}"


def find_producer(
    root: Node, values: Values | Mapping[Node, Any] | None = None, names: Mapping[Node, str] | None = None
) -> Producer | None:
    """What made the first NaN or infinity that reached `root`; None if `root` is finite or its value is unknown.

    values: the array of a node, as a function or a mapping (default: what eager nodes keep). names: what sources are
    called (default: their cells' names).

    >>> import chainrule as cr
    >>> from chainrule.runtime.provenance import find_producer
    >>> p = cr.tensor([0.5, 0.0], requires_grad=True)
    >>> found = find_producer((p * cr.log(p)).sum().node)
    >>> found.operation, found.value, found.index, found.operands[0].value
    ('log', -inf, (1,), 0.0)
    """
    look: Values = values.get if isinstance(values, Mapping) else values or _kept_value
    if _broken(look(root)) is None:
        return None
    carrying, makers = _search(root, look)
    legitimate = [node for node in makers if node.operation is CONSTANT and not _has_nan(look(node))]
    guilty = [node for node in makers if node not in legitimate]
    sources = [node for node in guilty if not node.inputs]
    if sources:
        return _source(min(sources, key=_serial), look, names or {})
    if guilty:
        return _operation(min(guilty, key=_serial), look)
    first = [node for node in carrying if node.inputs and _has_nan(look(node))]
    if first:
        return _operation(min(first, key=_serial), look)
    return _source(min(legitimate, key=_serial), look, names or {}) if legitimate else None


def _kept_value(node: Node) -> Any:
    return node.value


def _serial(node: Node) -> int:
    return node.serial


def _broken(value: Any) -> Array | None:
    """Where a value is not finite; None if it is everywhere."""
    if value is None or isinstance(value, tuple) or np.asarray(value).dtype.kind != "f":
        return None
    wrong: Array = ~np.isfinite(value)
    return wrong if wrong.any() else None


def _has_nan(value: Any) -> bool:
    return bool(np.isnan(value).any())


# ------------------------------------------------------------------------------------------- the search


def _search(root: Node, look: Values) -> tuple[set[Node], list[Node]]:
    """(everything that is not finite on the way to the root, where that begins)."""
    seen, makers, pending = {root}, [], [root]
    while pending:
        node = pending.pop()
        passed, made = _blamed(node, look)
        if made is not None:
            makers.append(node)
        for operand in passed:
            if operand not in seen:
                seen.add(operand)
                pending.append(operand)
    return seen, makers


def _blamed(node: Node, look: Values) -> tuple[list[Node], Array | None]:
    """(operands that handed it on, where the node itself has made it)."""
    wrong = _broken(look(node))
    if wrong is None:
        return [], None
    loop = _loop_of(node)
    if loop is not None:
        return _blamed_loop(loop, wrong, look)
    operands = [look(one) for one in node.inputs]
    if not node.inputs or any(one is None for one in operands):
        return [], wrong
    suspects = [k for k, one in enumerate(operands) if _broken(one) is not None]
    if not suspects:
        return [], wrong
    own = wrong & ~_repaired(node, operands, suspects)
    passed = [k for k in suspects if (wrong & _repaired(node, operands, [k])).any()]
    if not passed and not own.all():
        passed = suspects
    if not passed and not own.any():
        own = wrong
    return [node.inputs[k] for k in dict.fromkeys(passed)], own if own.any() else None


def _loop_of(node: Node) -> Node | None:
    """The loop over time of which a node is one result; None for everything else."""
    form = getattr(node.operation, "lowering", None)
    if not isinstance(form, Part):
        return None
    whole = node.inputs[0]
    return whole if isinstance(getattr(whole.operation, "lowering", None), Loop) else None


def _blamed_loop(loop: Node, wrong: Array, look: Values) -> tuple[list[Node], Array | None]:
    """What was not finite before the loop; otherwise something in it has made it."""
    passed = [one for one in loop.inputs if _broken(look(one)) is not None]
    return (passed, None) if passed else ([], wrong)


def _inside_loop(node: Node, loop: Node, look: Values) -> Producer | None:
    """What made the first NaN or infinity inside a loop over time, which is run again step after step."""
    steps = Steps(**loop.attributes)
    given = [look(one) for one in loop.inputs]
    if any(one is None for one in given):
        return None
    body: Graph = steps.body
    first = steps.carries + steps.stacked
    carries, entries, shared = given[: steps.carries], given[steps.carries : first], given[first:]
    for t in reversed(range(steps.length)) if steps.reverse else range(steps.length):
        sources = dict(zip(body.inputs, (*carries, *(one[t, ...] for one in entries), *shared)))
        values = _replayed(body.outputs, sources)
        for output in body.outputs:
            found = find_producer(output, values)
            if found is not None and found.kind == "operation":
                return replace(found, steps=(t, *found.steps), within=node)
        carries = [values[one] for one in body.outputs[: steps.carries]]
    return None


def _repaired(node: Node, operands: Sequence[Any], places: Iterable[int]) -> Array:
    """Where the result is finite if those operands were."""
    chosen, finite = set(places), None
    for number in _REPAIRS:
        given = [
            np.where(np.isfinite(one), one, np.asarray(number, one.dtype)) if k in chosen else one
            for k, one in enumerate(operands)
        ]
        with ops.quiet():
            result = np.isfinite(node.operation.body(ops.NUMPY, *given, **node.attributes))
        finite = result if finite is None else finite | result
    return np.asarray(finite)


# ------------------------------------------------------------------------------------------- the record


def _source(node: Node, look: Values, names: Mapping[Node, str]) -> Producer:
    value = np.asarray(look(node))
    wrong = ~np.isfinite(value)
    index = _first(wrong)
    kind = "input" if node.operation is INPUT else "state" if node.operation is READ else "constant"
    own = node.cell.name if node.cell is not None else None
    name = names.get(node) or own or {"input": "an argument", "state": "a parameter"}.get(kind, "a constant")
    fix = {
        "input": "Remove or replace such numbers in the data, as with nan_to_num, before they are learnt from",
        "state": "It was so before this step: go back to a checkpoint, and use a lower learning rate",
        "constant": "Put a finite number in its place",
    }[kind]
    count = int(np.count_nonzero(wrong))
    return Producer(node, kind, float(value[index]), index, count, value.size, (), name, fix)


def _operation(node: Node, look: Values) -> Producer:
    loop = _loop_of(node)
    inside = None if loop is None else _inside_loop(node, loop, look)
    if inside is not None:
        return inside
    value = np.asarray(look(node))
    _, made = _blamed(node, look)
    wrong = made if made is not None else np.isnan(value)
    index = _first(wrong)
    operands = tuple(_operands(node, look, index))
    fix = _advice(node, operands, float(value[index]), value.dtype)
    count = int(np.count_nonzero(wrong))
    return Producer(
        node, "operation", float(value[index]), index, count, value.size, operands, node.operation.name, fix
    )


def _first(wrong: Array) -> tuple[int, ...]:
    return tuple(int(k) for k in np.unravel_index(int(np.argmax(wrong)), wrong.shape))


def _operands(node: Node, look: Values, index: tuple[int, ...]) -> Iterable[Operand]:
    """The numbers that met at one element; of a sum or product the largest that went in."""
    operation = node.operation
    names = getattr(operation, "operand_names", ())
    direct = isinstance(getattr(operation, "lowering", None), Scalar)
    for k, one in enumerate(node.inputs):
        value = look(one)
        if value is None or isinstance(value, tuple):
            continue
        value = np.asarray(value)
        if value.dtype.kind != "f" or not value.size:
            continue
        if direct and value.shape in ((), np.shape(look(node))):
            place, everywhere = index if value.shape else (), False
        else:
            size = np.where(np.isnan(value), np.inf, np.abs(value))
            place, everywhere = _first(size == size.max()), value.size > 1
        yield Operand(names[k] if k < len(names) else f"operand {k}", float(value[place]), place, everywhere)


def _number(value: float) -> str:
    if math.isnan(value):
        return "nan"
    return {math.inf: "inf", -math.inf: "-inf"}.get(value, f"{value:.6g}")


def _place(index: tuple[int, ...]) -> str:
    return f" at {list(index)}" if index else ""


# ------------------------------------------------------------------------------------------- advice

_LARGE = (
    "Numbers have grown beyond the dtype: use a lower learning rate, scale the inputs, or clip the gradients"
)

_OUTSIDE = {
    "log": ("x > 0", "Give it log(clip(x, 1e-12)) or log(x + 1e-12), or use a loss that takes logits"),
    "log2": ("x > 0", "Give it log2(clip(x, 1e-12)) or log2(x + 1e-12)"),
    "log10": ("x > 0", "Give it log10(clip(x, 1e-12)) or log10(x + 1e-12)"),
    "log1p": ("x > −1", "Keep its operand above −1, as with clip"),
    "sqrt": ("x ≥ 0", "Give it sqrt(clip(x, 0)): rounding or a difference has made its operand negative"),
    "asin": ("−1 ≤ x ≤ 1", "Give it clip(x, −1, 1)"),
    "acos": ("−1 ≤ x ≤ 1", "Give it clip(x, −1, 1)"),
    "atanh": ("−1 < x < 1", "Keep its operand inside, as with clip"),
    "acosh": ("x ≥ 1", "Give it clip(x, 1)"),
}
"""Operations that are defined on a part of the numbers only: the part, and what to do."""

_GROWING = {"exp", "expm1", "sinh", "cosh"}


def _advice(node: Node, operands: tuple[Operand, ...], value: float, dtype: np.dtype[Any]) -> str:
    """What to do about it, in a sentence."""
    name, numbers = node.operation.name, [one.value for one in operands]
    forward = node.gradient_of.operation.name if node.gradient_of is not None else None
    if name in ("divide", "reciprocal") and numbers and numbers[-1] == 0:
        if forward is not None and forward not in ("divide", "reciprocal"):
            return (
                f"The slope of {forward} has no bound there: move its operand away by a small number, as "
                f"{forward}(x + 1e-12), or keep such elements out with where before it"
            )
        return "It divides by 0: add a small number to what it divides by, or keep 0 out with where before it"
    if name in _OUTSIDE and numbers and math.isfinite(numbers[0]) and not _inside(name, numbers[0]):
        part, remedy = _OUTSIDE[name]
        return f"{name} needs {part}. {remedy}"
    if name in _GROWING and numbers and numbers[0] > 1:
        limit = math.log(float(np.finfo(dtype).max))
        return (
            f"{name} of more than {limit:.4g} is beyond {dtype}: subtract the largest number first, as softmax and "
            "logsumexp do, or clip its operand"
        )
    if name == "pow" and len(numbers) == 2:
        if numbers[0] == 0:
            return "0 to a negative power is infinite: add a small number to the base"
        if numbers[0] < 0 and math.isnan(value):
            return "A negative base has no power with a fraction: take abs(x) first, or clip(x, 0)"
    if math.isnan(value) and any(map(math.isinf, numbers)):
        return _undefined(name, numbers)
    return _LARGE if math.isinf(value) else "Look at its operands"


def _inside(name: str, x: float) -> bool:
    if name in ("asin", "acos", "atanh"):
        return abs(x) < 1 or (name != "atanh" and abs(x) == 1)
    if name in ("log1p", "acosh"):
        return x > -1 if name == "log1p" else x >= 1
    return x >= 0 if name == "sqrt" else x > 0


def _undefined(name: str, numbers: list[float]) -> str:
    if name in ("add", "subtract"):
        return (
            "∞ − ∞ is no number. Where −inf stands for a mask, a row is masked as a whole: leave one element in, or "
            "use a large finite number"
        )
    if name in ("multiply", "absorb", "matmul") and 0.0 in numbers:
        return "0 · ∞ is no number: choose with where before the product, not by multiplying with 0"
    if name in ("divide", "remainder", "floor_divide"):
        return "∞ / ∞ is no number: subtract the largest exponent first, as softmax does"
    return "It is given infinity: keep its operand finite, as with clip"


# ------------------------------------------------------------------------------------------- compiled steps


def explain_check(
    graph: Graph,
    number: int,
    sources: Mapping[Node, Array],
    names: Mapping[Node, str] | None = None,
    cells: Mapping[Cell, str] | None = None,
) -> str:
    """What a failed check of a loss or gradient says beyond its rule: the producer, what it would have reached, a fix.

    The step is replayed by the interpreter from `sources`. `names`, `cells`: what the user calls sources and
    parameters. Empty where that shows nothing.
    """
    subject = graph.checks[number].subject
    if subject is None:
        return ""
    values = _replayed([subject], sources)
    found = find_producer(subject, values, names)
    if found is None:
        return (
            "The interpreter finds finite numbers here: machine code and interpreter round differently, or one of them "
            "is wrong; step.audit(...) with these arguments tells"
        )
    reached = _reached(graph, found.within or found.node, sources, cells or {})
    told = f"The first comes from {found}"
    if reached:
        more = f" and {len(reached) - _MOST_NAMES} more" if len(reached) > _MOST_NAMES else ""
        told += f"; it would have reached the gradient of {', '.join(reached[:_MOST_NAMES])}{more}"
    return f"{told}. {found.fix}"


def _replayed(roots: Iterable[Node], sources: Mapping[Node, Array]) -> dict[Node, Any]:
    """Values of everything that nodes depend on, by the interpreter."""
    values: dict[Node, Any] = dict(sources)
    with ops.quiet():
        for node in topological(roots, follow=lambda node: node not in sources):
            if node in values:
                continue
            if not node.inputs:
                values[node] = node.value
                continue
            operands = [values[one] for one in node.inputs]
            made = node.operation.body(ops.NUMPY, *operands, **node.attributes)
            values[node] = made if isinstance(made, tuple) else np.asarray(made)
    return values


def _reached(
    graph: Graph, producer: Node, sources: Mapping[Node, Array], cells: Mapping[Cell, str]
) -> list[str]:
    """Names of the parameters whose gradients depend on the producer and are not finite."""
    checks = [
        check for check in graph.checks
        if check.cell is not None and check.subject is not None and issubclass(check.error, NonFiniteError)
    ]  # fmt: skip
    subjects = tuple(check.subject for check in checks if check.subject is not None)
    single = Graph(graph.name, graph.inputs, subjects, graph.reads)
    with ops.quiet():
        found = evaluate(single, [sources[node] for node in single.sources], ops.NUMPY)
    below = _descendants(single, producer)
    return [
        cells.get(check.cell) or check.cell.name or f"a tensor of shape {check.cell.type.shape}"
        for check, subject, value in zip(checks, subjects, found)
        if check.cell is not None and subject in below and _broken(value) is not None
    ]


def _descendants(graph: Graph, node: Node) -> set[Node]:
    """The node and everything that depends on it."""
    found = {node}
    for one in graph.nodes():
        if any(operand in found for operand in one.inputs):
            found.add(one)
    return found
