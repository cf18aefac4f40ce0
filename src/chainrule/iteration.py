"""`scan`: a function run for each step of time, recorded once, whatever the number of steps.

What the function reads from outside becomes an invariant of the loop; cells that it writes (a generator, running
statistics) become state that is carried along. Knows tensors and cells; knows nothing of compilation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from . import autodiff, ops, scans
from .elsewhere import checked
from .errors import (
    ArgumentError,
    BoundsError,
    ChainruleError,
    DtypeError,
    GradientError,
    ShapeError,
    TraceError,
)
from .graph import Cell, Graph, Node, Trace, constant, state, topological
from .operations import CONSTANT, INPUT, Attributes, Operation
from .ops.bounds import bounds_of, describe_range
from .ops.shapes import whole
from .pytree import flatten, labels, skeleton, unflatten
from .rewrite import remake
from .tensor import Tensor, as_tensor, wrap
from .tensor import manipulation as shape_functions

_PRODUCT: ops.Op = ops.matmul


@checked({"unroll": "Leave it out: a compiled loop is native code", "_split_transpose": "Leave it out"})
def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    *,
    length: int | None = None,
    reverse: bool = False,
    checkpoint_every: int | None = None,
) -> tuple[Any, Any]:
    """The loop `for x in xs: carry, y = f(carry, x)` as one operation: returns (last carry, all y stacked).

    f: takes the carry and one step's entry of xs; returns the new carry, of the same structure, shapes and dtypes, and
    y. It is recorded once, so it must do the same at each step; tensors from outside (weights) get gradients too.
    init: the first carry. xs: tensors with one entry for each step along their first axis, or None with `length=`.
    All three may be nested. reverse: from the last step to the first; y stays at the place of its x.
    checkpoint_every: keep only every so many steps what the gradient needs, and compute the rest again.
    Raises ShapeError or DtypeError where the carry changes its type or the entries of xs differ in number.

    Truncated backpropagation through time: scan over a stretch, learn, go on with the carry detached.

    >>> import chainrule as cr
    >>> last, sums = scan(lambda total, x: (total + x, total + x), cr.tensor(0.0), cr.tensor([1.0, 2.0, 3.0]))
    >>> last.item(), sums.tolist()
    (6.0, [1.0, 3.0, 6.0])
    >>> state = cr.zeros(())
    >>> for stretch in (cr.ones(50), cr.ones(50)):
    ...     state, outputs = scan(lambda h, x: (0.5 * h + x, h), state.detach(), stretch)
    """
    given = _Given.of(init, xs)
    steps = _count(given, length)
    if checkpoint_every is not None:
        every = whole("scan", "checkpoint_every", checkpoint_every)
        if every < 1:
            raise ArgumentError(f"scan needs checkpoint_every of at least 1; got {every}")
        if every < steps and state.grad_enabled:
            return _in_stretches(f, given, steps, reverse, every)
    return _run(f, given, steps, reverse, forgetful=False)


# ------------------------------------------------------------------------------------------- what is given


class _Given(NamedTuple):
    """Carry and inputs of a scan, flat, with how they are nested and what their leaves are called."""

    carry: list[Tensor]
    carry_structure: Any
    entries: list[Tensor]
    entry_structure: Any

    @classmethod
    def of(cls, init: Any, xs: Any) -> _Given:
        carry, carry_structure = flatten(init)
        entries, entry_structure = flatten(xs)
        return cls(
            [as_tensor(one) for one in carry],
            carry_structure,
            [as_tensor(one) for one in entries],
            entry_structure,
        )


def _count(given: _Given, length: int | None) -> int:
    """The number of steps: what xs and `length` say alike."""
    names = labels(given.entry_structure, "xs")
    for name, one in zip(names, given.entries):
        if not one.shape:
            raise ShapeError(
                f"scan needs one entry of xs for each step, along the first axis; got {name} of shape (). "
                "What is the same at each step need not be passed: f may use it from outside"
            )
    found = {one.shape[0] for one in given.entries}
    if len(found) > 1:
        sizes = ", ".join(f"{name} {one.shape}" for name, one in zip(names, given.entries))
        raise ShapeError(f"scan needs xs with equally many steps along the first axis; got {sizes}")
    if length is None:
        if not found:
            raise ArgumentError("scan needs to know how many steps; got no tensor in xs. Pass length=")
        return found.pop()
    steps = whole("scan", "length", length)
    if steps < 0:
        raise ArgumentError(f"scan needs a length of at least 0; got {steps}")
    if found and found != {steps}:
        raise ShapeError(
            f"scan needs as many steps in xs as length says; got {found.pop()} and length={steps}. Leave length= out"
        )
    return steps


# ------------------------------------------------------------------------------------------- one scan


def _run(
    f: Callable[..., Any], given: _Given, steps: int, reverse: bool, *, forgetful: bool
) -> tuple[Any, Any]:
    recorded = _Recorded(f, given)
    body, operands = recorded.close(steps)
    if forgetful:
        body = _forgetful(body)
    carries = len(recorded.starts)
    found = scans.apply(operands, body, carries, len(recorded.entries), steps, reverse)
    nodes = [one if isinstance(one, Node) else Node(CONSTANT, value=one) for one in found]
    own = len(given.carry)
    recorded.finish(nodes[own:carries])
    carry = unflatten(given.carry_structure, [wrap(one) for one in nodes[:own]])
    return carry, unflatten(recorded.result_structure, [wrap(one) for one in nodes[carries:]])


def _forgetful(body: Graph) -> Graph:
    """The body as one call, whose intermediate values are computed again when the gradient arrives."""
    inputs = tuple(Node(INPUT, type=one.types, requires_grad=one.requires_grad) for one in body.inputs)
    with scans.building():
        answer = autodiff.call.symbolic(inputs, {"graph": body, "pulled": []})
        outputs = tuple(autodiff.part.symbolic((answer,), {"index": k}) for k in range(len(body.outputs)))
    for one, inner in zip(outputs, body.outputs):
        one.requires_grad = inner.requires_grad
    return Graph(body.name, inputs, outputs)


def _in_stretches(
    f: Callable[..., Any], given: _Given, steps: int, reverse: bool, every: int
) -> tuple[Any, Any]:
    """A scan over stretches of `every` steps, each a scan that is computed again; what is left over comes last."""
    count, left = divmod(steps, every)
    start, rest = (left, slice(0, left)) if reverse else (0, slice(count * every, steps))

    def stretch(carry: Any, entries: Any) -> tuple[Any, Any]:
        return _run(f, _Given.of(carry, entries), every, reverse, forgetful=False)

    stretch.__name__ = getattr(f, "__name__", "scan")
    folded = [
        shape_functions.reshape(one[start : start + count * every], (count, every, *one.shape[1:]))
        for one in given.entries
    ]
    whole_stretches = given._replace(entries=folded)
    carry, ys = _run(stretch, whole_stretches, count, reverse, forgetful=True)
    leaves, structure = flatten(ys)
    flat = [shape_functions.reshape(one, (count * every, *one.shape[2:])) for one in leaves]
    if left:
        remaining = _Given.of(carry, None)._replace(
            entries=[one[rest] for one in given.entries], entry_structure=given.entry_structure
        )
        carry, more = _run(f, remaining, left, reverse, forgetful=False)
        pairs = [(b, a) if reverse else (a, b) for a, b in zip(flat, flatten(more)[0])]
        flat = [shape_functions.concat(pair, axis=0) for pair in pairs]
    return carry, unflatten(structure, flat)


# ------------------------------------------------------------------------------------------- recording


@dataclass(eq=False)
class _Condition:
    """Something that must hold at every step, and what to say where it does not."""

    condition: Node
    message: str
    error: type[ChainruleError]
    subject: Node | None
    results: int = field(default=0)


class _Recorded:
    """A function recorded on inputs without numbers: the body of a scan, and what it needs from outside.

    `starts`: the first carries: the user's, then the cells that are written, then what conditions count.
    """

    def __init__(self, f: Callable[..., Any], given: _Given) -> None:
        self.given = given
        recording = state.grad_enabled
        self.starts = [one.node for one in given.carry]
        self.entries = [one.node for one in given.entries]
        self.carries = [
            Node(INPUT, type=(one.type,), requires_grad=recording and one.dtype.kind == "f")
            for one in self.starts
        ]
        self.slices = [
            Node(INPUT, type=(scans.step_type(one.type),), requires_grad=recording and one.requires_grad)
            for one in self.entries
        ]
        self.name = getattr(f, "__name__", type(f).__name__)
        self.trace = _Steps([*self.carries, *self.slices])
        with self.trace:
            result = f(
                unflatten(given.carry_structure, [wrap(one) for one in self.carries]),
                unflatten(given.entry_structure, [wrap(one) for one in self.slices]),
            )
            self.ends, self.results, self.result_structure = self._split(result)
            self._carry_cells()
            self._count_violations()

    def _split(self, result: Any) -> tuple[list[Node], list[Node], Any]:
        """What the function returned: new carries and the results of the step."""
        if type(result) is not tuple or len(result) != 2:
            shown = f"a tuple of {len(result)}" if type(result) is tuple else type(result).__name__
            raise ArgumentError(f"scan needs a function that returns (carry, y); got {shown}. y may be None")
        leaves, structure = flatten(result[0])
        if skeleton(structure) != skeleton(self.given.carry_structure):
            raise ArgumentError(
                f"scan needs a carry that keeps its structure; got {_shown(self.given.carry_structure)} at first and "
                f"{_shown(structure)} from {self.name}"
            )
        ends = [as_tensor(leaf).node for leaf in leaves]
        for label, start, end in zip(labels(structure, "carry"), self.carries, ends):
            if start.type != end.type:
                kind = DtypeError if start.shape == end.shape else ShapeError
                fix = "Use astype" if start.shape == end.shape else "Give init the shape that it keeps"
                raise kind(
                    f"scan needs a carry that keeps its type; {label} is {start.type} at first and becomes {end.type}. "
                    f"{fix}",
                    end.origin,
                )
        results, result_structure = flatten(result[1])
        return ends, [as_tensor(leaf).node for leaf in results], result_structure

    def _carry_cells(self) -> None:
        """Cells that were written go along from step to step."""
        for cell, end in self.trace.written.items():
            self.starts.append(self.trace.sources[self.trace.cells[cell]])
            self.carries.append(self.trace.cells.pop(cell))
            self.ends.append(end)

    def _count_violations(self) -> None:
        """How often conditions did not hold, and the range of what they were about, go along from step to step."""
        for one in self.trace.conditions:
            opposite = ops.bitwise_invert.on_nodes((one.condition,), {})
            failed = ops.cast.on_nodes((opposite,), {"dtype": np.dtype("int64")})
            self._fold(constant(0, np.dtype("int64")), ops.add, _over_all(ops.sum_, failed))
            one.results = 1
            if one.subject is not None and one.subject.dtype.kind in "iuf" and 0 not in one.subject.shape:
                low, high = _limits(one.subject.dtype)
                self._fold(
                    constant(high, one.subject.dtype), ops.minimum, _over_all(ops.reduce_min, one.subject)
                )
                self._fold(
                    constant(low, one.subject.dtype), ops.maximum, _over_all(ops.reduce_max, one.subject)
                )
                one.results = 3

    def _fold(self, start: Node, combine: ops.Op, value: Node) -> None:
        carry = Node(INPUT, type=(start.type,))
        self.trace.varying.add(carry)
        self.starts.append(start)
        self.carries.append(carry)
        self.ends.append(combine.on_nodes((carry, value), {}))

    # ------------------------------------------------------------------------------- the closed body

    def close(self, steps: int) -> tuple[Graph, list[Node]]:
        """The body as a closed graph, and the operands of the scan."""
        done: dict[Node, Node] = {node: node for node in (*self.carries, *self.slices)}
        done |= self._products_before(steps)
        outside: dict[Node, Node] = dict(self._cells_read())
        done |= {placeholder: placeholder for placeholder in outside}
        flags: dict[Node, bool] = {}
        outputs = [*self.ends, *self.results]
        for node in topological(outputs, follow=self._inside):
            if node in done:
                continue
            if self._inside(node):
                copy = done[node] = remake(node, tuple(done[operand] for operand in node.inputs))
                copy.hooks = node.hooks
                flags[copy] = node.requires_grad
            elif node.operation is CONSTANT and not (node.requires_grad and node.serial <= self.trace.start):
                done[node] = node if not node.requires_grad else Node(CONSTANT, value=node.value)
            else:
                needs = state.grad_enabled and node.requires_grad
                done[node] = Node(INPUT, type=node.types, requires_grad=needs)
                outside[done[node]] = node
        ends = [done[node] for node in outputs]
        self._mark(flags, ends)
        read = set(topological(ends))
        used = [k for k, one in enumerate(self.slices) if one in read]
        self.entries, self.slices = [self.entries[k] for k in used], [self.slices[k] for k in used]
        graph = Graph(self.name, (*self.carries, *self.slices, *outside), tuple(ends))
        return graph, [*self.starts, *self.entries, *outside.values()]

    def _products_before(self, steps: int) -> dict[Node, Node]:
        """Products of a step's entry and a weight, which are taken for all steps at once, before the loop."""
        found: dict[Node, Node] = {}
        stacks = dict(zip(self.slices, self.entries))
        for node in topological([*self.ends, *self.results], follow=self._inside):
            if node.operation is not _PRODUCT or node.hooks or node.inputs[1] in self.trace.varying:
                continue
            left, weight = node.inputs
            rows, inner = left.shape[-2:]
            while left.operation is ops.reshape and left not in stacks and not left.hooks:
                (left,) = left.inputs
            recorded = node.requires_grad or not (left.requires_grad or weight.requires_grad)
            if left not in stacks or len(node.shape) != 2 or not recorded:
                continue
            flat = ops.reshape.node((stacks[left],), {"shape": (steps * rows, inner)})
            product = ops.matmul(flat, weight)
            product.origin, product.scope = node.origin, node.scope
            shape = (steps, rows, weight.shape[1])
            self.entries.append(ops.reshape.node((product,), {"shape": shape}))
            needs = state.grad_enabled and product.requires_grad
            found[node] = Node(INPUT, type=(node.type,), requires_grad=needs)
            self.slices.append(found[node])
        return found

    def _cells_read(self) -> list[tuple[Node, Node]]:
        return [(placeholder, self.trace.sources[placeholder]) for placeholder in self.trace.cells.values()]

    def _inside(self, node: Node) -> bool:
        """Whether the node belongs to the body: it depends on the step, or is only another look at an invariant."""
        if node in self.trace.varying:
            return bool(node.inputs)
        return node.serial > self.trace.start and scans.sinks(node) and not node.hooks and bool(node.inputs)

    def _mark(self, flags: dict[Node, bool], ends: list[Node]) -> None:
        """What requires grad: what depends on something that does, from step to step."""
        for carry, start in zip(self.carries, self.starts):
            carry.requires_grad = state.grad_enabled and start.requires_grad and start.dtype.kind == "f"
        changed = True
        while changed:
            changed = False
            for node, recorded in flags.items():
                node.requires_grad = recorded and any(operand.requires_grad for operand in node.inputs)
            for carry, end in zip(self.carries, ends):
                if end.requires_grad and not carry.requires_grad:
                    carry.requires_grad = changed = True

    # ------------------------------------------------------------------------------- afterwards

    def finish(self, extras: list[Node]) -> None:
        """Cells get their last array; conditions are handed on to whoever checks them."""
        ends = iter(extras)
        for cell in self.trace.written:
            cell.write_node(next(ends))
        for one in self.trace.conditions:
            found = [next(ends) for _ in range(one.results)]
            subject = None
            if len(found) > 1:
                rows = [ops.reshape.on_nodes((node,), {"shape": (1,)}) for node in found[1:]]
                subject = ops.concat.on_nodes(tuple(rows), {"axis": 0})
            holds = ops.equal.on_nodes((found[0], 0), {})
            if state.trace is not None:
                state.trace.check(holds, one.message, one.error, subject)
            elif not holds.value.all():
                raise one.error(describe_range(one.message, None if subject is None else subject.value))


def _over_all(operation: ops.Op, node: Node) -> Node:
    return operation.on_nodes((node,), {"axes": tuple(range(len(node.shape))), "keepdims": False})


def _limits(dtype: Any) -> tuple[Any, Any]:
    if dtype.kind == "f":
        return -math.inf, math.inf
    limits = np.iinfo(dtype)
    return limits.min, limits.max


def _shown(structure: Any) -> str:
    """A structure as the user would write it, with the names of its leaves."""
    names = labels(structure, "carry")
    return f"({', '.join(names)})" if names else "nothing"


class _Steps(Trace):
    """The trace of a scan's body: what depends on the step is recorded, the rest runs outside, once."""

    place = "in the function of scan"
    advice = "Return it as part of y, or use cr.where instead of if"

    def __init__(self, given: Sequence[Node]) -> None:
        self.start = Node(CONSTANT).serial
        self.varying = set(given)
        self.outer = state.trace
        self.cells: dict[Cell, Node] = {}
        self.sources: dict[Node, Node] = {}
        self.written: dict[Cell, Node] = {}
        self.made: dict[Cell, Node | None] = {}
        self.conditions: list[_Condition] = []

    def __enter__(self) -> None:
        state.trace = self

    def __exit__(self, *_: object) -> None:
        state.trace = self.outer

    # ------------------------------------------------------------------------------- operations

    def apply(self, operation: Operation, inputs: tuple[Node, ...], attributes: Attributes) -> Node:
        """A node of the body, if an operand depends on the step."""
        assert isinstance(operation, ops.Op)
        if not any(operand in self.varying for operand in inputs):
            state.trace = self.outer
            try:
                return operation.node(inputs, attributes)
            finally:
                state.trace = self
        # Without a trace around, the interpreter reports an index that is out of bounds by itself.
        bounded = bounds_of(operation, inputs, attributes) if self.outer is not None else None
        if bounded is not None and bounded.indices in self.varying:
            self.check(bounded.condition, bounded.message, BoundsError, bounded.indices)
        node = operation.symbolic(inputs, attributes)
        self.varying.add(node)
        return node

    def check(
        self,
        condition: Node,
        message: str,
        error: type[ChainruleError] = BoundsError,
        subject: Node | None = None,
    ) -> None:
        """The condition must hold at every step; one that does not depend on the step is checked outside."""
        if condition in self.varying:
            if math.prod(condition.shape):
                self.conditions.append(_Condition(condition, message, error, subject))
        elif self.outer is not None:
            self.outer.check(condition, message, error, subject)
        elif not condition.value.all():
            raise error(describe_range(message, None if subject is None else subject.value))

    def refused(self, error: TraceError, node: Node) -> None:
        """The step around hears of it, also if the function catches the error."""
        if self.outer is not None:
            self.outer.refused(error, node)

    # ------------------------------------------------------------------------------- cells

    def create(self, cell: Cell) -> None:
        """A cell that the function makes is made anew at each step."""
        self.made[cell] = None

    def read(self, cell: Cell) -> Node:
        """A weight is an invariant; what does not require grad may be written, so it is part of the step."""
        if cell in self.made:
            node = self.made[cell] or Node(
                CONSTANT, value=cell.array, requires_grad=cell.requires_grad, cell=cell
            )
            self.made[cell] = node
            return node
        if cell in self.written:
            return self.written[cell]
        if cell in self.cells:
            return self.cells[cell]
        state.trace = self.outer
        try:
            source = cell.read()
        finally:
            state.trace = self
        if source in self.varying or cell.requires_grad:
            return source
        placeholder = self.cells[cell] = Node(INPUT, type=(cell.type,))
        self.sources[placeholder] = source
        self.varying.add(placeholder)
        return placeholder

    def write(self, cell: Cell, node: Node) -> None:
        """The cell goes along from step to step."""
        name = cell.name or "a tensor"
        if cell in self.made:
            self.made[cell] = node
            return
        if cell.requires_grad:
            raise TraceError(
                f"the function of scan cannot change what requires grad; got a new value for {name}. Carry it from "
                "step to step: return it as part of the carry"
            )
        if node.type != cell.type:
            raise TraceError(
                f"the function of scan keeps the types of cells; {name} is {cell.type}, and {node.type} would be "
                "written. Use astype"
            )
        self.read(cell)
        self.written[cell] = node

    def read_grad(self, cell: Cell) -> Node | None:
        """Refused: see `differentiated`."""
        raise self._no_gradients(f"the .grad of {cell.name or 'a tensor'}")

    def write_grad(self, cell: Cell, node: Node | None) -> None:
        """Refused: see `differentiated`."""
        raise self._no_gradients(f"the .grad of {cell.name or 'a tensor'}")

    def differentiated(self, node: Node) -> None:
        """Refused: the function is recorded once, and its gradients arrive when the scan is over."""
        raise self._no_gradients("backward()")

    def _no_gradients(self, what: str) -> GradientError:
        return GradientError(
            f"the function of scan is recorded once for all steps, and nothing has a .grad in it; got {what} inside. "
            "Call backward() on what scan returns, or use cr.grad inside"
        )
