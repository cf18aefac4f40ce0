"""The operation `scan`: one graph run for each step of time, its results carried on to the next step.

Its derivatives are scans again: backwards over what the forward run has stacked, or forwards beside it. What an
invariant (a weight) receives at each step is added up after the loop, as one product, where it is a product.
Knows graphs and the calculus; knows nothing of tensors, cells or machine code.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from . import ops
from .autodiff import Building, Contribution, Mode, Nodes, Value, gradients, part, pushforward
from .dtypes import Dtype
from .errors import ChainruleError
from .graph import Graph, Node, state, topological
from .operations import CONSTANT, INPUT, Type
from .ops.lowering import Loop
from .ops.totals import running_type
from .rewrite import remake

# --------------------------------------------------------------------------------- the body as a program


class Program:
    """A graph made ready to be evaluated many times: its nodes in order, their values in a list of places."""

    def __init__(self, graph: Graph) -> None:
        given = set(graph.inputs)
        nodes = topological(graph.outputs, follow=lambda node: node not in given)
        order = [*graph.inputs, *(node for node in nodes if node not in given)]
        places = {node: place for place, node in enumerate(order)}
        self.start = [None if node in given or node.inputs else node.value for node in order]
        self.steps = [
            (node, [places[operand] for operand in node.inputs], places[node])
            for node in order
            if node.inputs and node not in given
        ]
        self.results = [places[node] for node in graph.outputs]

    def __call__(self, xp: Any, given: Sequence[Any]) -> list[Any]:
        """Values of the graph's outputs; a failure is told in terms of the operation that failed."""
        values = self.start.copy()
        values[: len(given)] = given
        for node, places, place in self.steps:
            operands = [values[k] for k in places]
            try:
                values[place] = node.operation.body(xp, *operands, **node.attributes)
            except (ValueError, TypeError, IndexError, MemoryError) as failure:
                _explain(node, operands, failure)
                raise
        return [values[k] for k in self.results]


def _explain(node: Node, operands: list[Any], failure: Exception) -> None:
    """Raise what went wrong in a step in the project's words, with the user's line in the body."""
    assert isinstance(node.operation, ops.Op)
    try:
        node.operation._explain(failure, operands, node.attributes)
    except ChainruleError as told:
        raise type(told)(told.message, node.origin) from failure


class Derived:
    """What has been derived from a body so far; held as long as the body lives."""

    def __init__(self) -> None:
        self.program: Program | None = None
        self.backwards: dict[tuple[int, tuple[int, ...], tuple[int, ...]], Backward] = {}
        self.augmented: Graph | None = None
        # Nothing here may hold the body itself: it would live for ever.
        self.complete = False
        self.parts: dict[tuple[Node, int], Node] = {}
        """Results of operations with several in the body, by which of them they are."""


_derived: weakref.WeakKeyDictionary[Graph, Derived] = weakref.WeakKeyDictionary()


def derived(body: Graph) -> Derived:
    """The record of what has been derived from this body."""
    found = _derived.get(body)
    if found is None:
        found = _derived[body] = Derived()
    return found


def program(body: Graph) -> Program:
    """The body, ready to be evaluated."""
    record = derived(body)
    if record.program is None:
        record.program = Program(body)
    return record.program


# --------------------------------------------------------------------------------------- the operation


def step_type(stack: Type) -> Type:
    """The type of one step's entry of a stacked value."""
    return Type(stack.shape[1:], stack.dtype)


def _types(
    *operands: Type, body: Graph, carries: int, stacked: int, length: int, reverse: bool
) -> tuple[Type, ...]:
    return (
        *(output.type for output in body.outputs[:carries]),
        *(Type((length, *output.shape), output.dtype) for output in body.outputs[carries:]),
    )


def _pull(node: Node, g: list[Value | None], mode: type[Mode], wanted: list[int]) -> list[tuple[int, Value]]:
    return Pull(node, g, mode, wanted).run()


def _push(node: Node, tangents: list[Value | None], mode: type[Mode]) -> list[Value | None]:
    return push(node, tangents, mode)


@ops.special(types=_types, pull=_pull, push=_push, lower=Loop(), may_warn=True)
def scan(
    xp: Any, *operands: Any, body: Graph, carries: int, stacked: int, length: int, reverse: bool
) -> tuple[Any, ...]:
    """Runs `body` for each of `length` steps: operands are carries, stacked inputs and invariants.

    Results: the last carries, then what each step gives besides, stacked.

    Why: each step hands its state to the next, so the gradient goes back through the steps in the opposite order,
    and what all steps share receives the sum.
    """
    run, invariants = program(body), operands[carries + stacked :]

    def step(state: Sequence[Any], entries: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        results = run(xp, (*state, *entries, *invariants))
        return results[:carries], results[carries:]

    stacks = [output.type for output in body.outputs[carries:]]
    result: tuple[Any, ...] = xp.scan(
        step, operands[:carries], operands[carries : carries + stacked], length, reverse, stacks
    )
    return result


def apply(
    operands: Sequence[Value], body: Graph, carries: int, stacked: int, length: int, reverse: bool
) -> list[Value]:
    """Every result of a scan, on arrays or nodes. Nodes that may be differentiated also stack what that will need."""
    keeps = state.grad_enabled and any(isinstance(one, Node) and one.requires_grad for one in operands)
    whole = augmented(body, carries, stacked) if keeps else body
    answer = scan(*operands, body=whole, carries=carries, stacked=stacked, length=length, reverse=reverse)
    count = len(body.outputs)
    return [part(answer, index=k) for k in range(count)] if isinstance(answer, Node) else list(answer[:count])


# ---------------------------------------------------------------------------------------- reverse mode


@contextlib.contextmanager
def building() -> Iterator[None]:
    """Rules make nodes without arrays, as in every graph that is derived from another.

    They are of the body alone: what is being differentiated around it is not what they belong to, and would be held.
    """
    outer = state.trace, state.grad_enabled, state.gradient_of, state.scope
    state.trace, state.grad_enabled, state.gradient_of, state.scope = Building(), True, None, None
    try:
        yield
    finally:
        state.trace, state.grad_enabled, state.gradient_of, state.scope = outer


class Product(NamedTuple):
    """What an invariant receives at each step, as a product that can be taken once over all steps.

    `left` and `right` are per-step values (the second None for a sum), each with whether it stands transposed;
    `after` is what is done with the product afterwards.
    """

    left: Node
    right: Node | None
    turned: tuple[bool, bool]
    after: tuple[Node, ...]


@dataclass(eq=False)
class Backward:
    """The backward scan of a body: its graph, and where its operands come from and its results go.

    `live`: carries whose cotangent is handed on. `entries`: stacked inputs of the wanted ones. `added`: invariants
    that are added up step by step, by operand; `products`: those that are added up after the loop. `stacks`: forward
    values of each step that the backward scan reads. `kept`: gradient values of each step that products need.
    """

    live: list[int]
    graph: Graph
    entries: list[int]
    added: list[int]
    products: dict[int, list[Product]]
    stacks: list[Node]
    invariants: list[Node]
    kept: list[Node]
    needed: list[Node] = field(default_factory=list)
    """Forward values of each step that must be there, whether the scan or a product reads them."""


def backward(
    body: Graph, carries: int, stacked: int, wanted: Sequence[int], present: Sequence[int]
) -> Backward:
    """The backward scan for the `wanted` operands, given cotangents of the `present` stacked results."""
    found = derived(body).backwards
    key = (carries, tuple(wanted), tuple(present))
    if key not in found:
        with building():
            found[key] = _Deriving(body, carries, stacked, wanted, present).finish()
    return found[key]


def augmented(body: Graph, carries: int, stacked: int) -> Graph:
    """The body, which also gives what its backward scan will read."""
    record = derived(body)
    if record.augmented is None and not record.complete:
        wanted = [k for k, node in enumerate(body.inputs) if node.requires_grad]
        present = [k for k, node in enumerate(body.outputs[carries:]) if node.requires_grad]
        needed = backward(body, carries, stacked, wanted, present).needed
        outputs = set(body.outputs[carries:])
        extra = [node for node in needed if node not in outputs]
        record.complete = not extra
        if extra:
            record.augmented = Graph(body.name, body.inputs, (*body.outputs, *extra))
    return record.augmented or body


_SUNK = (ops.broadcast_to, ops.permute_dims, ops.reshape)
"""Views that are cheaper to look at again than to keep."""


def sinks(node: Node) -> bool:
    """Whether the node is only another look at its operand, not at a part of it."""
    return node.operation in _SUNK


class _Deriving:
    """Derives one backward scan; lives for one call of `backward`."""

    def __init__(
        self, body: Graph, carries: int, stacked: int, wanted: Sequence[int], present: Sequence[int]
    ) -> None:
        self.body, self.carries, self.stacked = body, carries, stacked
        self.present = list(present)
        self.live = [k for k in range(carries) if body.inputs[k].requires_grad]
        self.entries = [k for k in wanted if carries <= k < carries + stacked]
        self.shared = [k for k in wanted if k >= carries + stacked]
        self.parts = derived(body).parts
        nodes = body.nodes()
        for node in nodes:
            self._first_part(node)
        self.forward = {*nodes, *self.parts.values()}
        self.varying = set(body.inputs[: carries + stacked])
        for node in (*nodes, *self.parts.values()):
            if any(operand in self.varying for operand in node.inputs):
                self.varying.add(node)

    def _first_part(self, node: Node) -> Node:
        """The node that stands for this part of several results from now on; the node itself for everything else."""
        if node.operation is not part:
            return node
        return self.parts.setdefault((node.inputs[0], node.attributes["index"]), node)

    def finish(self) -> Backward:
        body, carries = self.body, self.carries
        ends = [body.outputs[k] for k in self.live] + [body.outputs[carries + k] for k in self.present]
        seeds = [Node(INPUT, type=one.types, requires_grad=True) for one in ends]
        wrt = [body.inputs[k] for k in (*self.live, *self.entries, *self.shared)]
        passed: list[Contribution] = []
        found = gradients(ends, seeds, wrt, as_nodes=True, contributions=passed)
        shares = self._shares(passed, ends, seeds)
        products, rest = self._products(shares)
        added = [k for k in self.shared if rest.get(k)]
        starts = [Node(INPUT, type=(running_type(body.inputs[k].type),), requires_grad=True) for k in added]
        totals = []
        for k, start in zip(added, starts):
            total: Node = start
            for one in rest[k]:
                total = ops.add(total, _cast(one, start.dtype))
            totals.append(total)
        kept = self._kept(products)
        hands = [self._found(found, k) for k in self.live]
        gives = [self._found(found, k) for k in self.entries]
        return self._close(seeds, starts, [*hands, *totals, *gives, *kept], added, products, kept)

    def _found(self, found: dict[Node, Value], k: int) -> Node:
        node = self.body.inputs[k]
        result: Node = found[node] if node in found else Nodes.zeros(node.type)
        return result

    def _shares(
        self, passed: list[Contribution], ends: list[Node], seeds: list[Node]
    ) -> dict[int, list[Node]]:
        """What each wanted invariant receives in one step, use by use."""
        places = {self.body.inputs[k]: k for k in self.shared}
        shares: dict[int, list[Node]] = {k: [] for k in self.shared}
        for one in passed:
            place = places.get(one.node.inputs[one.operand])
            if place is not None:
                shares[place].append(one.outgoing)
        for end, seed in zip(ends, seeds):
            if end in places:
                shares[places[end]].append(seed)
        return shares

    def _products(
        self, shares: dict[int, list[Node]]
    ) -> tuple[dict[int, list[Product]], dict[int, list[Node]]]:
        """The shares that are products of two values of the step, or sums of a value that is kept anyway; the rest."""
        products: dict[int, list[Product]] = {}
        rest: dict[int, list[Node]] = {}
        for k, outgoing in shares.items():
            for one in outgoing:
                found = self._product(one)
                if found is not None:
                    products.setdefault(k, []).append(found)
                else:
                    rest.setdefault(k, []).append(one)
        kept = {one for group in products.values() for found in group for one in (found.left, found.right)}
        for k in list(rest):
            for one in list(rest[k]):
                found = self._sum(one, kept)
                if found is not None:
                    products.setdefault(k, []).append(found)
                    rest[k].remove(one)
        return products, rest

    def _product(self, node: Node) -> Product | None:
        after, node = _unfold(node)
        if node.operation is not ops.matmul or len(node.shape) != 2:
            return None
        sides = [_turned(operand) for operand in node.inputs]
        if not all(self._moves(one) for one, _ in sides):
            return None
        (left, first), (right, second) = sides
        return Product(left, right, (first, second), after)

    def _sum(self, node: Node, kept: set[Node | None]) -> Product | None:
        after, node = _unfold(node)
        if node.operation is not ops.sum_ or node.inputs[0] not in kept:
            return None
        return Product(node.inputs[0], None, (False, False), (node, *after))

    def _moves(self, node: Node) -> bool:
        """Whether the value is another one at each step, as far as that can be seen."""
        return node in self.varying or node not in self.forward

    def _kept(self, products: dict[int, list[Product]]) -> list[Node]:
        """Gradient values that products need, each once."""
        sides = [one for group in products.values() for found in group for one in (found.left, found.right)]
        return list(dict.fromkeys(one for one in sides if one is not None and one not in self.forward))

    def _close(
        self,
        seeds: list[Node],
        starts: list[Node],
        outputs: list[Node],
        added: list[int],
        products: dict[int, list[Product]],
        kept: list[Node],
    ) -> Backward:
        """The closed graph, and what it needs of the forward run."""
        before = set(self.forward)
        done, stacks, invariants = self._copied(outputs, {*seeds, *starts}, before)
        live = len(self.live)
        inputs = (*seeds[:live], *starts, *seeds[live:], *stacks.values(), *invariants.values())
        sides = [one for group in products.values() for found in group for one in (found.left, found.right)]
        needed = dict.fromkeys([*stacks, *(one for one in sides if one is not None and one in before)])
        entries = set(self.body.inputs[self.carries : self.carries + self.stacked])
        return Backward(
            self.live,
            Graph(f"{self.body.name} backwards", inputs, tuple(done[node] for node in outputs)),
            self.entries, added, products, list(stacks), list(invariants), kept,
            [node for node in needed if node not in entries],
        )  # fmt: skip

    def _copied(
        self, outputs: list[Node], given: set[Node], before: set[Node]
    ) -> tuple[dict[Node, Node], dict[Node, Node], dict[Node, Node]]:
        """Copies of all nodes: forward values that are read become inputs, cheap ones are computed again.

        The copies; the inputs for what each step has stacked; those for what is the same at every step.
        """
        stacks: dict[Node, Node] = {}
        invariants: dict[Node, Node] = {}
        shared = set(self.body.inputs[self.carries + self.stacked :])

        def reads(node: Node) -> bool:
            """Whether a value of the forward run is read; one of several results counts, not all of them together."""
            if node.operation is part and node.inputs[0] in before:
                self.forward.add(node)
                if node.inputs[0] in self.varying:
                    self.varying.add(node)
            several = isinstance(node.operation, ops.Special) and node.operation is not part
            if node not in self.forward or sinks(node) or several:
                return False
            return node in self.varying or not node.inputs

        done: dict[Node, Node] = {node: node for node in given}
        for node in topological(outputs, follow=lambda node: node not in given and not reads(node)):
            if node in done:
                continue
            if node in shared or (reads(node) and node.operation is not CONSTANT):
                group, known = (stacks if node in self.varying else invariants), self._first_part(node)
                if known not in group:
                    group[known] = Node(INPUT, type=node.types, requires_grad=node.requires_grad)
                done[node] = group[known]
            elif node.inputs:
                done[node] = remake(node, tuple(done[operand] for operand in node.inputs))
            else:
                done[node] = node
        return done, stacks, invariants


def _cast(value: Any, dtype: Dtype) -> Any:
    return value if value.dtype == dtype else ops.cast(value, dtype=dtype)


def _unfold(node: Node) -> tuple[tuple[Node, ...], Node]:
    """What is done with a value at the end without adding anything, in order, and the value itself."""
    after: list[Node] = []
    while node.operation in (ops.permute_dims, ops.reshape):
        after.append(node)
        node = node.inputs[0]
    return tuple(reversed(after)), node


def _turned(node: Node) -> tuple[Node, bool]:
    """The matrix that an operand is the transposed of, or itself; and whether it is transposed."""
    turned = False
    while node.operation is ops.permute_dims and tuple(node.attributes["axes"]) == (1, 0):
        node, turned = node.inputs[0], not turned
    return node, turned


class Pull:
    """The cotangents of one scan's operands; lives for one backward walk through one node."""

    def __init__(self, node: Node, g: list[Value | None], mode: type[Mode], wanted: list[int]) -> None:
        self.node, self.mode, self.wanted = node, mode, wanted
        self.body: Graph = node.attributes["body"]
        self.carries: int = node.attributes["carries"]
        self.stacked: int = node.attributes["stacked"]
        self.length: int = node.attributes["length"]
        self.g = g
        self.results: list[Value] | None = None
        present = [k for k in range(len(g) - self.carries) if g[self.carries + k] is not None]
        self.plan = backward(self.body, self.carries, self.stacked, wanted, present)
        self.present = present
        self.operands = [mode.read(operand) for operand in node.inputs]
        self.stacks = self._stacks()

    def run(self) -> list[tuple[int, Value]]:
        """(operand, cotangent) for each wanted operand that is reached."""
        plan, body = self.plan, self.body
        carried = [self._cotangent(k) for k in plan.live]
        totals = [self.mode.zeros(running_type(body.inputs[k].type)) for k in plan.added]
        stacked = [self.g[self.carries + k] for k in self.present]
        stacked += [self.stacks[one] for one in plan.stacks]
        places = {one: k for k, one in enumerate(body.inputs)}
        shared = [self.operands[places[one]] for one in plan.invariants]
        found = apply(
            [*carried, *totals, *stacked, *shared],
            plan.graph, len(carried) + len(totals), len(stacked), self.length, not self.node.attributes["reverse"],
        )  # fmt: skip
        ends = iter(found)
        answers: dict[int, Value] = dict(zip(plan.live, ends))
        sums = {k: _cast(next(ends), body.inputs[k].dtype) for k in plan.added}
        answers.update({k: next(ends) for k in plan.entries})
        self.stacks.update(zip(plan.kept, ends))
        for k in (k for k in self.wanted if k >= self.carries + self.stacked):
            terms = [sums[k]] if k in sums else []
            terms += [self._total(one) for one in plan.products.get(k, ())]
            for term in terms:
                answers[k] = ops.add(answers[k], term) if k in answers else term
        return [(k, answers[k]) for k in self.wanted if k in answers]

    def _cotangent(self, k: int) -> Value:
        g = self.g[k]
        return self.mode.zeros(self.body.outputs[k].type) if g is None else g

    def _stacks(self) -> dict[Node, Value]:
        """The stacked forward values that are needed: inputs, results, or computed again."""
        body, plan = self.body, self.plan
        entries = body.inputs[self.carries : self.carries + self.stacked]
        found = {one: self.operands[self.carries + k] for k, one in enumerate(entries)}
        outputs = body.outputs[self.carries :]
        missing = [one for one in plan.needed if one not in outputs]
        if missing:
            again = Graph(body.name, body.inputs, (*body.outputs, *missing))
            attributes = {**self.node.attributes, "body": again}
            answer = scan(*self.operands, **attributes)
        else:
            again, answer = body, self.mode.read(self.node)
        for k, one in enumerate(again.outputs[self.carries :]):
            if one in plan.needed:
                place = self.carries + k
                found[one] = part(answer, index=place) if self.mode.as_nodes else answer[place]
        return found

    def _total(self, product: Product) -> Value:
        """The sum over all steps of what an invariant receives."""
        left = self.stacks[product.left]
        if product.right is None:
            sum_, after = product.after[0], product.after[1:]
            axes = (0, *(axis + 1 for axis in sum_.attributes["axes"]))
            result = ops.sum_(left, axes=axes, keepdims=False)
            if sum_.attributes["keepdims"]:
                result = ops.reshape(result, shape=sum_.shape)
        else:
            rows = _flat(left, not product.turned[0], last=True)
            columns = _flat(self.stacks[product.right], product.turned[1], last=False)
            result, after = ops.matmul(rows, columns), product.after
        for node in after:
            result = node.operation(result, **node.attributes)  # type: ignore[operator]
        return result


def _flat(stack: Value, inner_last: bool, *, last: bool) -> Value:
    """A stack of matrices as one matrix, over the steps and the axis that is summed: as columns (`last`) or rows.

    inner_last: the summed axis is the last of each matrix, not the first.
    """
    length, first, second = stack.shape
    if not inner_last:
        flat = ops.reshape(stack, shape=(length * first, second))
        return ops.permute_dims(flat, axes=(1, 0)) if last else flat
    if last:
        return ops.reshape(ops.permute_dims(stack, axes=(1, 0, 2)), shape=(first, length * second))
    return ops.reshape(ops.permute_dims(stack, axes=(0, 2, 1)), shape=(length * second, first))


# ---------------------------------------------------------------------------------------- forward mode


def push(node: Node, tangents: list[Value | None], mode: type[Mode]) -> list[Value | None]:
    """Tangents of all results: one scan that carries values and tangents side by side."""
    body: Graph = node.attributes["body"]
    carries, stacked = node.attributes["carries"], node.attributes["stacked"]
    moving = [k for k, tangent in enumerate(tangents) if tangent is not None]
    with building():
        given, pushed = _pushed(body, carries, moving)
    moved = [k for k in given if k < carries]
    entries = [k for k in given if carries <= k < carries + stacked]
    shared = [k for k in given if k >= carries + stacked]
    reached = [k for k, one in enumerate(pushed) if k >= carries and one is not None]
    ends = [pushed[k] for k in moved]
    inputs = body.inputs
    graph = Graph(
        f"{body.name} forwards",
        (
            *inputs[:carries], *(given[k] for k in moved),
            *inputs[carries : carries + stacked], *(given[k] for k in entries),
            *inputs[carries + stacked :], *(given[k] for k in shared),
        ),
        (*body.outputs[:carries], *ends, *(pushed[k] for k in reached)),  # type: ignore[arg-type]
    )  # fmt: skip
    own = [mode.read(operand) for operand in node.inputs]
    start = [mode.zeros(inputs[k].type) if tangents[k] is None else tangents[k] for k in moved]
    operands = [
        *own[:carries], *start, *own[carries : carries + stacked], *(tangents[k] for k in entries),
        *own[carries + stacked :], *(tangents[k] for k in shared),
    ]  # fmt: skip
    found = apply(
        operands, graph, carries + len(moved), stacked + len(entries), node.attributes["length"],
        node.attributes["reverse"],
    )  # fmt: skip
    results: list[Value | None] = [None] * len(body.outputs)
    for k, one in zip([*moved, *reached], found[carries:]):
        results[k] = one
    return results


def _pushed(body: Graph, carries: int, moving: list[int]) -> tuple[dict[int, Node], list[Node | None]]:
    """Inputs for the tangents of the operands that move, and the tangents of the body's outputs.

    A carry moves if what it becomes moves, which may make others move.
    """
    while True:
        given = {k: Node(INPUT, type=body.inputs[k].types, requires_grad=True) for k in sorted(moving)}
        pushed = pushforward(
            body.outputs, [body.inputs[k] for k in given], list(given.values()), as_nodes=True
        )
        new = [k for k in range(carries) if pushed[k] is not None and k not in given]
        if not new:
            for k in range(carries):
                if k in given and pushed[k] is None:
                    pushed[k] = Nodes.zeros(body.outputs[k].type)
            return given, pushed
        moving = [*moving, *new]
