"""Both modes of differentiation, derived from the kinds: cotangents backwards, tangents forwards.

The walks are written once and work on arrays (eager, first order: fast) and on nodes (higher orders and
graphs: the result is itself a graph that can be differentiated). No recursion, so depth is no limit.
Knows nothing of tensors, modules or machine code.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import ops
from .errors import BoundsError, ChainruleError, GradientError
from .graph import Cell, Graph, Node, Trace, constant, evaluate, state, topological
from .operations import INPUT, WITHOUT_GRAPH, Attributes, Operation, Type
from .ops.lowering import Exact, Part

Value = Any
"""An array in the fast mode, a node otherwise."""


class Contribution(NamedTuple):
    """What one node passed to one of its operands: incoming gradient × local derivative = outgoing."""

    node: Node
    operand: int
    incoming: Value
    outgoing: Value


class Mode(ABC):
    """How rules see values: as arrays or as nodes."""

    as_nodes: bool

    @staticmethod
    @abstractmethod
    def read(node: Node) -> Value:
        """The node's value in this mode."""

    @staticmethod
    @abstractmethod
    def zeros(type: Type) -> Value:
        """A zero of this type."""


class Arrays(Mode):
    """Rules run on NumPy arrays; nothing is recorded."""

    as_nodes = False

    @staticmethod
    def read(node: Node) -> Value:
        """The array."""
        return node.value if node._value is None else node._value

    @staticmethod
    def zeros(type: Type) -> Value:
        """An array of zeros."""
        return np.zeros(type.shape, type.dtype)


class Nodes(Mode):
    """Rules run on nodes, so that what they compute can be differentiated or compiled."""

    as_nodes = True

    @staticmethod
    def read(node: Node) -> Value:
        """The node itself."""
        return node

    @staticmethod
    def zeros(type: Type) -> Value:
        """A constant node of zeros."""
        return constant(np.zeros(type.shape, type.dtype))


# ---------------------------------------------------------------------------------------- reverse mode


def gradients(
    outputs: Sequence[Node],
    cotangents: Sequence[Value],
    wrt: Iterable[Node] | None = None,
    *,
    as_nodes: bool = False,
    contributions: list[Contribution] | None = None,
    visit: Callable[[Node, Value], None] | None = None,
    whole: bool = False,
) -> dict[Node, Value]:
    """Cotangents of nodes, given those of `outputs`; by the chain rule, from the last node to the first.

    With `wrt` only the paths to those nodes are walked and only their cotangents are returned (a node
    that no path reaches is missing). Otherwise every node on a path that requires grad is visited, and
    `visit(node, cotangent)` is called once for each when its cotangent is complete. `contributions`
    collects what every node passed to every operand. Hooks come first: what they answer is the cotangent.
    `whole`: raise GradientError where a compiled function, whose results have no graph, stands in the way.
    """
    mode: type[Mode] = Nodes if as_nodes else Arrays
    order = _differentiable(outputs, whole)
    wanted = None if wrt is None else set(wrt)
    needed = None if wanted is None else _leading_to(wanted, order)
    found: dict[Node, Value] = {}
    for node, cotangent in zip(outputs, cotangents, strict=True):
        if node.requires_grad:
            _accumulate(found, node, cotangent)
    kept: dict[Node, Value] = {}
    outer = state.gradient_of
    with ops.quiet():
        try:
            for node in reversed(order):
                g = found.pop(node, None)
                if g is None:
                    continue
                hooks = node.hooks if node.cell is None else node.cell.hooks
                if hooks and (needed is None or node in needed):
                    state.gradient_of = node
                    for hook in list(hooks.values()):
                        g = hook(g, as_nodes)
                if wanted is not None and node in wanted:
                    kept[node] = g
                if visit is not None:
                    visit(node, g)
                if node.inputs and (needed is None or node in needed):
                    state.gradient_of = node
                    for index, outgoing in _pull(node, g, mode, needed):
                        if contributions is not None:
                            contributions.append(Contribution(node, index, g, outgoing))
                        _accumulate(found, node.inputs[index], outgoing)
        finally:
            state.gradient_of = outer
    return kept


_SERIAL = operator.attrgetter("serial")


def _differentiable(outputs: Iterable[Node], whole: bool = False) -> list[Node]:
    """Nodes that require grad and lead to `outputs`, operands first; `whole` as in `gradients`."""
    pending = [node for node in outputs if node.requires_grad]
    seen = set(pending)
    while pending:
        for operand in pending.pop().inputs:
            if operand.requires_grad:
                if operand not in seen:
                    seen.add(operand)
                    pending.append(operand)
            elif whole and operand.attributes is WITHOUT_GRAPH:
                raise GradientError(
                    "a gradient cannot pass the result of a compiled function, which has no graph; got "
                    f"{operand.dtype.name}{operand.shape} of one beside tensors that require grad. Compute the loss "
                    "inside the compiled function, or use .detach() on its result if it is meant as a constant"
                )
    return sorted(seen, key=_SERIAL)


def differentiable_sources(outputs: Iterable[Node]) -> list[Node]:
    """The nodes without operands that require grad and lead to `outputs`."""
    return [node for node in _differentiable(outputs) if not node.inputs]


def _leading_to(wanted: set[Node], order: list[Node]) -> set[Node]:
    """Nodes of `order` that depend on a wanted node, the wanted ones included."""
    needed = set(wanted)
    for node in order:
        if node not in needed and any(operand in needed for operand in node.inputs):
            needed.add(node)
    return needed


def _accumulate(found: dict[Node, Value], node: Node, outgoing: Value) -> None:
    """Add to what has already reached the node: where paths meet, gradients add."""
    present = found.get(node)
    if present is None:
        found[node] = outgoing
    elif isinstance(present, list):
        found[node] = [
            b if a is None else a if b is None else ops.add(a, b) for a, b in zip(present, outgoing)
        ]
    else:
        found[node] = ops.add(present, outgoing)


def _pull(node: Node, g: Value, mode: type[Mode], needed: set[Node] | None) -> list[tuple[int, Value]]:
    """(operand index, outgoing cotangent) of one node, for the operands that need one."""
    operation = node.operation
    assert isinstance(operation, ops.Op)
    result = []
    if operation.kind == "special":
        wanted = [
            index
            for index, operand in enumerate(node.inputs)
            if operand.requires_grad and (needed is None or operand in needed)
        ]
        result += operation.pull(node, g, mode, wanted)  # type: ignore[attr-defined]
        return result
    pull = _PULL[operation.kind]
    for index, operand in enumerate(node.inputs):
        if operand.requires_grad and (needed is None or operand in needed):
            outgoing = pull(operation, node, index, g, mode)
            if outgoing is not None:
                result.append((index, outgoing))
    return result


def _pull_elementwise(
    operation: ops.Elementwise, node: Node, index: int, g: Value, mode: type[Mode]
) -> Value | None:
    slope = local_derivative(operation, node, index, mode)
    if slope is None:
        return None
    # A slope of 0 everywhere is an answer (`.grad` is 0, as in PyTorch); None means that nothing was asked.
    return mode.zeros(node.inputs[index].type) if isinstance(slope, int) and slope == 0 else _times(g, slope)


def _pull_bilinear(
    operation: ops.Bilinear, node: Node, index: int, g: Value, mode: type[Mode]
) -> Value | None:
    rule = operation.transpose(index)
    a, b = node.inputs
    return None if rule is None else rule(g, mode.read(a), mode.read(b), **node.attributes)


def _pull_linear(operation: ops.Linear, node: Node, index: int, g: Value, mode: type[Mode]) -> Value | None:
    rule = operation.transpose(index)
    return None if rule is None else rule(g, *_linear_operands(operation, node, mode), **node.attributes)


def _pull_selection(
    operation: ops.Selection, node: Node, index: int, g: Value, mode: type[Mode]
) -> Value | None:
    x = mode.read(node.inputs[0])
    weights = operation.weights(mode.read(node), x, **node.attributes)
    return ops.absorb(_spread(g, x, node.attributes), weights)


_PULL: dict[str, Callable[..., Value | None]] = {
    "elementwise": _pull_elementwise,
    "bilinear": _pull_bilinear,
    "linear": _pull_linear,
    "selection": _pull_selection,
    "discrete": lambda operation, node, index, g, mode: None,
}


def local_derivative(operation: ops.Elementwise, node: Node, index: int, mode: type[Mode]) -> Value | None:
    """∂result/∂operand, element by element; a plain number where the rule is one; None for no slope."""
    rule = operation.derivatives[index]
    if rule is None or isinstance(rule, int):
        return rule
    operands = [mode.read(operand) for operand in node.inputs]
    return rule(mode.read(node), *operands, **node.attributes)


def _times(g: Value, slope: Value) -> Value:
    """g × slope, where 0 absorbs infinity and NaN."""
    if isinstance(slope, int):
        return g if slope == 1 else ops.negative(g)
    return ops.absorb(g, slope)


def _linear_operands(operation: ops.Linear, node: Node, mode: type[Mode]) -> list[Value]:
    """Linear operands matter by shape only, so the node stands for them; the others are read."""
    if len(node.inputs) == 1:
        return [node.inputs[0]]
    return [
        operand if operation.transpose(index) is not None else mode.read(operand)
        for index, operand in enumerate(node.inputs)
    ]


def _spread(g: Value, x: Value, attributes: Attributes) -> Value:
    """The gradient of a reduction, copied to every entry that took part."""
    kept = tuple(1 if axis in attributes["axes"] else size for axis, size in enumerate(x.shape))
    return ops.broadcast_to(ops.reshape(g, shape=kept), shape=tuple(x.shape))


# ---------------------------------------------------------------------------------------- forward mode


def pushforward(
    outputs: Sequence[Node], inputs: Sequence[Node], tangents: Sequence[Value], *, as_nodes: bool = False
) -> list[Value | None]:
    """Tangents of `outputs` for tangents of `inputs`; None for an output that does not depend on them."""
    mode: type[Mode] = Nodes if as_nodes else Arrays
    found: dict[Node, Value] = dict(zip(inputs, tangents, strict=True))
    outer = state.gradient_of
    with ops.quiet():
        try:
            for node in _differentiable(outputs):
                if node in found or not any(operand in found for operand in node.inputs):
                    continue
                state.gradient_of = node
                tangent = _push(node, [found.get(operand) for operand in node.inputs], mode)
                if tangent is not None:
                    found[node] = tangent
        finally:
            state.gradient_of = outer
    return [found.get(node) for node in outputs]


def _push(node: Node, tangents: list[Value | None], mode: type[Mode]) -> Value | None:
    """The tangent of one node's result from those of its operands (None: it does not move)."""
    operation = node.operation
    if isinstance(operation, ops.Elementwise):
        terms = []
        for index, tangent in enumerate(tangents):
            if tangent is not None:
                slope = local_derivative(operation, node, index, mode)
                if slope is not None and not (isinstance(slope, int) and slope == 0):
                    terms.append(_times(tangent, slope))
        return _total(terms)
    if isinstance(operation, ops.Bilinear):
        a, b = (mode.read(operand) for operand in node.inputs)
        terms = [operation(tangents[0], b, **node.attributes)] if tangents[0] is not None else []
        terms += [operation(a, tangents[1], **node.attributes)] if tangents[1] is not None else []
        return _total(terms)
    if isinstance(operation, ops.Linear):
        moved = [
            mode.read(operand)
            if operation.transpose(index) is None
            else mode.zeros(operand.type) if tangent is None else tangent
            for index, (operand, tangent) in enumerate(zip(node.inputs, tangents))
        ]  # fmt: skip
        return operation(*moved, **node.attributes)
    if isinstance(operation, ops.Selection):
        x = mode.read(node.inputs[0])
        weights = operation.weights(mode.read(node), x, **node.attributes)
        return ops.sum_(ops.absorb(tangents[0], weights), **node.attributes)
    if isinstance(operation, ops.Special):
        return operation.push(node, tangents, mode)
    return None


def _total(terms: list[Value]) -> Value | None:
    if not terms:
        return None
    total = terms[0]
    for term in terms[1:]:
        total = ops.add(total, term)
    return total


# ------------------------------------------------------------------------- operations over whole graphs


class Building(Trace):
    """The smallest trace: nodes without arrays, typed by their rules. Cells have no place in it."""

    def apply(self, operation: Operation, inputs: tuple[Node, ...], attributes: Attributes) -> Node:
        """A node without an array."""
        assert isinstance(operation, ops.Op)
        return operation.symbolic(inputs, attributes)

    def read(self, cell: Cell) -> Node:
        """Refused: a rule works on what it is given."""
        raise GradientError(f"a derivative rule cannot read {cell.name or 'a cell'}")

    def write(self, cell: Cell, node: Node) -> None:
        """Refused: a rule works on what it is given."""
        raise GradientError(f"a derivative rule cannot write {cell.name or 'a cell'}")

    def read_grad(self, cell: Cell) -> Node | None:
        """Refused: a rule works on what it is given."""
        return self.read(cell)

    def write_grad(self, cell: Cell, node: Node | None) -> None:
        """Refused: a rule works on what it is given."""
        raise GradientError(f"a derivative rule cannot write {cell.name or 'a cell'}")

    def create(self, cell: Cell) -> None:
        """Nothing to do: a cell that is made and never read does not touch the graph."""

    def check(
        self,
        condition: Node,
        message: str,
        error: type[ChainruleError] = BoundsError,
        subject: Node | None = None,
    ) -> None:
        """Nothing to do: whoever evaluates the graph checks the bounds of indices himself."""

    def differentiated(self, node: Node) -> None:
        """Nothing to do."""


def differentiate(graph: Graph, name: str = "gradient") -> Graph:
    """graph → graph: (inputs, one cotangent for each output) → cotangents of the floating-point inputs.

    Pure: the given graph is not changed. An input that no path reaches gets zeros.
    """
    outer = state.trace, state.grad_enabled
    state.trace, state.grad_enabled = Building(), True
    try:
        given = tuple(Node(INPUT, type=node.types, requires_grad=True) for node in graph.outputs)
        wrt = [node for node in graph.inputs if node.requires_grad]
        found = gradients(graph.outputs, given, wrt, as_nodes=True)
        zero = {node: Nodes.zeros(node.type) for node in wrt if node not in found}
    finally:
        state.trace, state.grad_enabled = outer
    return Graph(name, (*graph.inputs, *given), tuple(found.get(node) or zero[node] for node in wrt))


def capture(
    name: str, inputs: Sequence[Node], outputs: Sequence[Node], before: int
) -> tuple[Graph, list[Node]]:
    """A closed graph of what was recorded between `inputs` and `outputs`, and the nodes it uses from outside.

    Nodes with a serial up to `before` existed already: those that require grad become further inputs, the
    others stay as constants. The copy holds no intermediate arrays.
    """
    replace = {node: _placeholder(node) for node in inputs}
    for node in inputs:  # hooks on what the function was given; those of nodes outside stay with these
        replace[node].hooks = node.hooks
    inner = topological(outputs, follow=lambda node: node.serial > before and node not in replace)
    outside = [
        node
        for node in inner
        if node not in replace and node.requires_grad and (node.serial <= before or not node.inputs)
    ]
    replace |= {node: _placeholder(node) for node in outside}
    given = tuple(replace.values())
    outer = state.trace, state.grad_enabled
    state.trace, state.grad_enabled = Building(), True
    try:
        for node in inner:
            if node in replace:
                continue
            if node.inputs and node.serial > before:
                assert isinstance(node.operation, ops.Op)
                operands = tuple(replace[operand] for operand in node.inputs)
                replace[node] = node.operation.symbolic(operands, node.attributes)
                replace[node].hooks = node.hooks
            else:
                replace[node] = node
    finally:
        state.trace, state.grad_enabled = outer
    return Graph(name, given, tuple(replace[node] for node in outputs)), outside


def _placeholder(node: Node) -> Node:
    return Node(INPUT, type=node.types, requires_grad=node.requires_grad)


def _call_types(*operands: Type, graph: Graph, pulled: Any) -> tuple[Type, ...]:
    return tuple(output.type for output in graph.outputs)


def _pull_call(
    node: Node, g: list[Value | None], mode: type[Mode], wanted: list[int]
) -> list[tuple[int, Value]]:
    graph: Graph = node.attributes["graph"]
    pulled: list[Graph] = node.attributes["pulled"]
    if not pulled:
        pulled.append(differentiate(graph))
    cotangents = [mode.zeros(output.type) if one is None else one for one, output in zip(g, graph.outputs)]
    operands = (*(mode.read(operand) for operand in node.inputs), *cotangents)
    answer = call(*operands, graph=pulled[0], pulled=[])
    indices = [index for index, source in enumerate(graph.inputs) if source.requires_grad]
    results = [part(answer, index=k) if mode.as_nodes else answer[k] for k in range(len(indices))]
    return [(index, result) for index, result in zip(indices, results) if index in wanted]


def _push_call(node: Node, tangents: list[Value | None], mode: type[Mode]) -> list[Value]:
    graph: Graph = node.attributes["graph"]
    moving = [k for k, tangent in enumerate(tangents) if tangent is not None]
    outer = state.trace, state.grad_enabled
    state.trace, state.grad_enabled = Building(), True
    try:
        given = [Node(INPUT, type=graph.inputs[k].types, requires_grad=True) for k in moving]
        pushed = pushforward(graph.outputs, [graph.inputs[k] for k in moving], given, as_nodes=True)
        outputs = [
            Nodes.zeros(output.type) if tangent is None else tangent
            for tangent, output in zip(pushed, graph.outputs)
        ]
    finally:
        state.trace, state.grad_enabled = outer
    forward = Graph("tangent", (*graph.inputs, *given), tuple(outputs))
    operands = (*(mode.read(operand) for operand in node.inputs), *(tangents[k] for k in moving))
    answer = call(*operands, graph=forward, pulled=[])
    return [part(answer, index=k) if mode.as_nodes else answer[k] for k in range(len(outputs))]


@ops.special(
    types=_call_types,
    pull=_pull_call,
    push=_push_call,
    exact=Exact(results=lambda operands, inline, *, graph, pulled: inline(graph, operands)),
)
def call(xp: Any, *operands: Any, graph: Graph, pulled: list[Graph]) -> tuple[Any, ...]:
    """Results of a whole graph, whose intermediate values are not kept (`pulled` caches its derivative).

    Why: what was not kept is computed again when the gradient arrives: time paid for memory.
    """
    return evaluate(graph, operands, xp)


def _pull_part(node: Node, g: Value, mode: type[Mode], wanted: list[int]) -> list[tuple[int, Value]]:
    slots: list[Value | None] = [None] * len(node.inputs[0].types)
    slots[node.attributes["index"]] = g
    return [(0, slots)]


@ops.special(
    types=lambda *operands, index: (operands[index],),
    pull=_pull_part,
    push=lambda node, tangents, mode: tangents[0][node.attributes["index"]],
    lower=Part(),
    exact=Exact(results=lambda operands, inline, *, index: operands[0][index]),
)
def part(xp: Any, operands: tuple[Any, ...], *, index: int) -> Any:
    """One of several results.  Why: only this result was used, so the others hear nothing from here."""
    return operands[index]


def _pull_custom(node: Node, g: Value, mode: type[Mode], wanted: list[int]) -> list[tuple[int, Value]]:
    count = node.attributes["count"]
    cotangents = node.attributes["pull"](g, mode.as_nodes)
    return [(index, cotangents[index - count]) for index in wanted if cotangents[index - count] is not None]


def _push_custom(node: Node, tangents: list[Value | None], mode: type[Mode]) -> Value:
    raise GradientError(
        "custom_gradient states reverse mode only; got forward mode (jvp). Use vjp or grad, or write the "
        "function from operations",
        node.origin,
    )


@ops.special(
    types=lambda *operands, count, pull: operands[:count],
    pull=_pull_custom,
    push=_push_custom,
    exact=Exact(results=lambda operands, inline, *, count, pull: operands[:count]),
)
def custom(xp: Any, *operands: Any, count: int, pull: Any) -> tuple[Any, ...]:
    """The first `count` operands, with a backward rule given by the user.

    Why: the user has stated how the gradient passes here.
    """
    return operands[:count]
