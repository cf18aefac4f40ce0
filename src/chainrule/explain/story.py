"""The story of a tensor as data: steps, what flows along every edge, and sums where paths meet.

It joins the values kept by the graph with the contributions recorded by `autodiff.gradients`. It computes
its own gradients: `.grad` is neither read nor written.
Knows graphs, derivatives and names; knows nothing of text, JSON or pages, which only read what is here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import ops
from ..autodiff import Arrays, Contribution, gradients, local_derivative, part
from ..errors import ArgumentError, GradientError, Origin, ShapeError, TraceError
from ..graph import Node, Scope, topological
from ..language import LANGUAGES, preferred_language
from ..operations import Array, Type
from ..ops.lowering import Scalar
from ..tensor import Tensor
from .about import Told, sections
from .data import as_data, as_json, save
from .folding import Unit, is_plain_spread, units
from .formula import STEP, Formula, number, outgoing, slope, write
from .naming import NodeNames, Variables, caller_variables, given_names, scalar_text
from .page import fragment, page
from .section import Section
from .text import tell


@dataclass(slots=True)
class Edge:
    """What flows between a step and one of its operands: forward a value, backward a gradient.

    incoming (the step's gradient) × local = outgoing, element by element where `local` is given; where a
    gradient is moved or summed instead, `rule` says how: `∂L/∂z @ wᵀ`.
    """

    source: Step
    position: int
    symbol: str = ""
    local: Array | None = None
    rule: str = ""
    outgoing: Array | None = None
    paths: int = 1


@dataclass(slots=True)
class Step:
    """One line of the story: a leaf, an operation, or a folded call of a function or layer."""

    number: int
    name: str
    kind: str
    operation: str
    formula: str
    type: Type
    value: Array | None
    gradient: Array | None = None
    edges: list[Edge] = field(default_factory=list)
    arrivals: list[tuple[Step, Edge]] = field(default_factory=list)
    origin: Origin | None = None
    source: str = ""
    scope: str = ""
    folded: tuple[str, ...] = ()
    manual: str = ""
    why: str = ""

    @property
    def is_leaf(self) -> bool:
        """True for parameters, inputs and constants."""
        return self.kind in ("leaf", "constant")

    def __repr__(self) -> str:
        return f"<step {self.number}: {self.formula or self.name} {self.type}>"


@dataclass(slots=True)
class Story:
    """Everything behind one tensor. `print(story)` tells it; `data`, `json`, `html`, `save` hand it on."""

    steps: list[Step]
    seed_is_ones: bool
    language: str
    title: str = ""
    extras: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)

    @property
    def root(self) -> Step:
        """The step whose tensor was explained."""
        return self.steps[-1]

    def __getitem__(self, name: str) -> Step:
        for step in self.steps:
            if step.name == name:
                return step
        known = ", ".join(step.name for step in self.steps)
        raise ArgumentError(f"no step has this name; got {name!r}. The names are {known}")

    def text(self, language: str | None = None) -> str:
        """The story as text, in English ("en") or Korean ("ko")."""
        return tell(self, language or self.language)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<story of {self.root.name}: {len(self.steps)} steps>"

    def data(self, full: bool = False) -> dict[str, Any]:
        """The story as plain dicts, lists, numbers and strings; `full` keeps large arrays whole."""
        return as_data(self, full)

    def json(self, full: bool = False) -> str:
        """The story as JSON text."""
        return as_json(self, full)

    def html(self, language: str | None = None) -> str:
        """The story as one page that needs no network."""
        return page(self, language or self.language)

    def save(self, path: Any, language: str | None = None) -> None:
        """Write the page (`.html`), the data (`.json`) or the text (any other suffix) to `path`."""
        save(self, path, language or self.language)

    def _repr_html_(self) -> str:
        return fragment(self, self.language)


def explain(
    tensor: Tensor,
    *,
    names: Mapping[str, Tensor] | None = None,
    fold: bool = True,
    depth: int | None = None,
    gradient: Any = None,
    about: Tensor | None = None,
    language: str | None = None,
) -> Story:
    """The story of how `tensor` was computed, and of how its gradient flows back to everything behind it.

    names: your own names for tensors; others are taken from parameters and from your variables.
    fold: tell the call of a function or layer as one step; `depth` opens that many levels of calls
    (by default the containers that hold layers).
    gradient: where the backward pass starts, in the tensor's shape; ones if it is left out.
    about: a tensor to be told of in a section below the story. A weight that the steps of a loop share (also in
    cr.scan and nn.RNN): what each step adds to its gradient, and the product of Jacobians ∂h_T/∂h_t. The filter of a
    convolution: the windows that it met. What goes into a batch normalization: its nine steps and three paths.
    Logits: p − y for each class. Any tensor that is read several times: what each use adds. Left out: the first
    loop, batch normalization and convolution of the story get a section.
    language: "en" or "ko"; by default what the environment asks for.
    Raises GradientError if nothing behind the tensor requires grad, TraceError inside `compile`, ArgumentError for
    an `about` of which there is nothing more to tell.

    >>> import chainrule as cr
    >>> w, h = cr.tensor(0.5, requires_grad=True), cr.tensor(1.0)
    >>> story = cr.explain(w * h, names={"w": w, "h": h})
    >>> story["w"].gradient
    array(1., dtype=float32)
    >>> for _ in range(3):
    ...     h = w * h
    >>> story = cr.explain(h, about=w)
    >>> story.sections[0].verdict, [float(one.stretch) for one in story.sections[0].moments]
    ('vanishes', [0.125, 0.25, 0.5, 1.0])
    """
    if not isinstance(tensor, Tensor):
        raise ArgumentError(f"explain needs a Tensor; got {type(tensor).__name__}")
    if language is not None and language not in LANGUAGES:
        raise ArgumentError(f"the language must be one of {', '.join(LANGUAGES)}; got {language!r}")
    return build(
        tensor,
        given_names(names),
        caller_variables(),
        fold=fold,
        depth=depth,
        gradient=gradient,
        language=language or preferred_language(),
        detailed=True,
        about=about,
    )


def build(
    tensor: Tensor,
    names: Variables,
    variables: Variables,
    *,
    fold: bool = True,
    depth: int | None = None,
    gradient: Any = None,
    language: str = "en",
    sources: Mapping[Node, str] | None = None,
    detailed: bool = False,
    about: Tensor | None = None,
) -> Story:
    """`explain` without looking around: `sources` gives the user's text for nodes, in place of lines of code.

    detailed: with the sections below the table, about the tensor `about` if one is given.
    """
    root = _differentiable(tensor.node)
    order = topological([root])
    found: dict[Node, Any] = {}
    contributions: list[Contribution] = []
    seed = _seed(root, gradient)
    gradients([root], [seed], contributions=contributions, visit=found.__setitem__)
    builder = _Builder(order, root, found, contributions, names, variables, sources)
    story = Story(
        builder.steps(units(order, root, fold, depth)),
        gradient is None and math.prod(root.shape) != 1,
        language,
    )
    if detailed:
        known = {node: builder.names[node] for node in order if node in builder.names}
        story.sections = sections(Told(root, seed, order, found, contributions, known), about)
    return story


def _differentiable(root: Node) -> Node:
    """The node, if it has a value and a gradient."""
    if root.value is None:
        raise TraceError(
            "explain needs numbers, and a tensor inside cr.compile has none yet; got Traced "
            f"{root.type}. Call it outside, or set CHAINRULE_COMPILE=0"
        )
    if not root.requires_grad:
        raise GradientError(
            "explain needs a tensor that depends on one with requires_grad=True; got "
            f"{root.dtype.name}{root.shape} without. Was it made from plain numbers, detached, or under no_grad?"
        )
    return root


def _seed(root: Node, gradient: Any) -> Array:
    if gradient is None:
        return np.ones(root.shape, root.dtype)
    array = gradient.numpy() if isinstance(gradient, Tensor) else np.asarray(gradient)
    if array.shape != root.shape:
        raise ShapeError(f"gradient= needs the tensor's shape {root.shape}; got {array.shape}")
    return array.astype(root.dtype)


class _Builder:
    """Turns units of nodes into steps and contributions into edges."""

    def __init__(
        self,
        order: list[Node],
        root: Node,
        found: dict[Node, Any],
        contributions: list[Contribution],
        names: Variables,
        variables: Variables,
        sources: Mapping[Node, str] | None,
    ) -> None:
        self.order = order
        self.root = root
        self.gradient = found
        self.names = NodeNames(order, names, variables)
        self.sources = sources
        self.passed: dict[Node, list[Contribution]] = {}
        for one in contributions:
            self.passed.setdefault(one.node, []).append(one)
        self.step_of: dict[Node, Step] = {}

    def steps(self, found: list[Unit]) -> list[Step]:
        """All steps in order, numbered from 1."""
        operands = {unit.result: self._operands(unit) for unit in found}
        results = {unit.result: unit for unit in found}
        ordered: dict[Node, Unit | None] = {}
        for unit in found:  # leaves stand before their first use, in the order of the formula
            ordered |= {
                node: None for node in operands[unit.result] if node not in ordered and node not in results
            }
            ordered[unit.result] = unit
        ordered.setdefault(self.root, None)
        self.names.complete([node for node in ordered if node is not self.root], self.root)
        result: list[Step] = []
        for node, made_by in ordered.items():
            if made_by is None and self.names[node] == scalar_text(node):
                self.step_of[node] = self._leaf(node, 0)  # a plain number is no step
                continue
            k = len(result) + 1
            step = self._leaf(node, k) if made_by is None else self._result(made_by, operands[node], k)
            self.step_of[node] = step
            result.append(step)
        return result

    # ------------------------------------------------------------------------------- leaves

    def _leaf(self, node: Node, number: int) -> Step:
        kind = "leaf" if node.requires_grad else "constant"
        return Step(
            number, self.names[node], kind, "", "", node.type, _first(node.value), self._gradient(node)
        )

    def _gradient(self, node: Node) -> Array | None:
        """∂root/∂node; zeros where no slope leads there, None for what has no gradient at all."""
        found: Array | None = _first(self.gradient.get(node))
        if found is None and node.requires_grad and len(node.types) == 1:
            return np.zeros(node.shape, node.dtype)
        return found

    def _operands(self, unit: Unit) -> list[Node]:
        """Nodes from outside that the unit reads, in the order of the formula; each once for a folded call."""
        if unit.scope is None:
            return [_unbroadcast(operand) for operand in unit.result.inputs]
        members = set(unit.members)
        found: dict[Node, None] = {}
        pending, seen = [unit.result], set()
        while pending:
            node = pending.pop()
            if node not in members:
                if self._matters(node, unit.scope):
                    found[node] = None
            elif node not in seen:
                seen.add(node)
                pending += [_unbroadcast(operand) for operand in reversed(node.inputs)]
        return list(found)

    def _matters(self, node: Node, scope: Scope) -> bool:
        """Is a leaf of a folded call worth showing? Not the constants that the function made by itself."""
        return node.requires_grad or node in self.names or node.serial < scope.call_number

    # ------------------------------------------------------------------------------- results

    def _result(self, unit: Unit, operands: list[Node], number: int) -> Step:
        node = unit.result
        step = Step(
            number,
            self.names[node],
            "operation" if unit.scope is None else "scope",
            node.operation.name if unit.scope is None else unit.scope.name,
            "",
            node.type,
            _first(node.value),
            self._gradient(node),
            origin=None if self.sources is not None else node.origin,
            scope=_layer(unit.scope or node.scope),
        )
        if self.sources is not None:
            step.source = self.sources.get(node, "")
        if unit.scope is None:
            self._describe_operation(step, node, operands)
        else:
            self._describe_call(step, unit, operands)
        for edge in step.edges:
            if edge.outgoing is not None:
                edge.source.arrivals.append((step, edge))
        return step

    def _describe_operation(self, step: Step, node: Node, operands: list[Node]) -> None:
        operation = node.operation
        assert isinstance(operation, ops.Op)
        step.manual, step.why = operation.manual, operation.why
        written = [self._written(one) for one in operands]
        step.formula = str(write(operation, written, node.attributes, STEP))
        sent = {one.operand: one.outgoing for one in self.passed.get(node, ())}
        out = Formula(step.name, node.type)
        for index, operand in enumerate(operands):
            edge = Edge(self.step_of[operand], index)
            step.edges.append(edge)
            if node.requires_grad and operand.requires_grad:
                edge.outgoing = step.gradient if operation is part else _first(sent.get(index))
                if edge.outgoing is None:
                    edge.outgoing = np.zeros(operand.shape, operand.dtype)
                self._derive(edge, operation, node, out, written, index)

    def _derive(
        self, edge: Edge, operation: ops.Op, node: Node, out: Formula, written: list[Formula], index: int
    ) -> None:
        """Local derivative of one operand: its text, and its numbers where it acts element by element."""
        with ops.quiet():
            if isinstance(operation, ops.Elementwise):
                edge.symbol = slope(operation, index, out, written, node.attributes)
                edge.local = _array(local_derivative(operation, node, index, Arrays), node.inputs[index])
            elif isinstance(operation, ops.Selection):
                edge.symbol = slope(operation, index, out, written, node.attributes)
                edge.local = operation.weights(node.value, node.inputs[0].value, **node.attributes)
            elif isinstance(operation, ops.Linear) and isinstance(operation.lowering, Scalar):
                edge.symbol = slope(operation, index, out, written, node.attributes)
                edge.local = self._transposed_ones(operation, node, index)
            elif isinstance(operation, ops.Linear):
                incoming = f"∂{self.names[self.root]}/∂{out.text}"
                edge.rule = outgoing(operation, index, incoming, node.type, written, node.attributes)

    def _transposed_ones(self, operation: ops.Linear, node: Node, index: int) -> Array:
        rule = operation.transpose(index)
        if rule is None:
            return np.zeros(node.shape, node.dtype)
        ones = np.ones(node.shape, node.dtype)
        return np.asarray(rule(ones, *(one.value for one in node.inputs), **node.attributes))

    def _written(self, node: Node) -> Formula:
        name = self.names[node]
        if scalar_text(node) == name:
            return number(node.value, node.dtype)
        return Formula(name, node.type)

    def _describe_call(self, step: Step, unit: Unit, operands: list[Node]) -> None:
        members = set(unit.members)
        step.folded = tuple(node.operation.name for node in unit.members)
        step.formula = f"{step.operation}({', '.join(self.names[one] for one in operands)})"
        totals: dict[Node, tuple[Any, int]] = {}
        for node in reversed(unit.members):
            for one in self.passed.get(node, ()):
                target = _unbroadcast(node.inputs[one.operand])
                if target not in members:
                    before, count = totals.get(target, (None, 0))
                    sent = _first(one.outgoing)
                    totals[target] = (sent if before is None else before + sent, count + 1)
        for index, operand in enumerate(operands):
            edge = Edge(self.step_of[operand], index)
            step.edges.append(edge)
            if operand in totals:
                edge.outgoing, edge.paths = totals[operand]
                edge.local = self._net(unit.result, operand, step.gradient, edge.outgoing)
        step.why = ""

    def _net(self, result: Node, operand: Node, incoming: Array | None, sent: Array | None) -> Array | None:
        """∂result/∂operand of a folded call with one number as result; None for larger ones."""
        if incoming is None or sent is None or incoming.size != 1:
            return None
        scale = incoming.reshape(())
        if (
            np.isfinite(scale)
            and abs(scale) > np.finfo(scale.dtype).smallest_normal
            and np.isfinite(sent).all()
        ):
            return np.asarray(sent / scale)
        found = gradients([result], [np.ones(result.shape, result.dtype)], [operand])
        return found.get(operand)


def _unbroadcast(node: Node) -> Node:
    """A constant that was spread stands for itself: only the spreading of what has a gradient is a step."""
    while is_plain_spread(node):
        node = node.inputs[0]
    return node


def _first(value: Any) -> Any:
    """The array of a node with one result; None for several results, each of which has a step of its own."""
    if isinstance(value, tuple | list):
        value = value[0] if len(value) == 1 else None
    return None if value is None else np.asarray(value)


def _array(slope: Any, operand: Node) -> Array:
    return np.asarray(0 if slope is None else slope, dtype=operand.dtype)


def _layer(scope: Scope | None) -> str:
    """Path of the innermost layer around a call: `Sequential/0`."""
    while scope is not None and scope.kind != "module":
        scope = scope.parent
    return scope.path if scope is not None and scope.parent is not None else ""
