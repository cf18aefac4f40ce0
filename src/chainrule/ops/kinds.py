"""How an operation is declared, and how it is applied to arrays and to nodes.

The kind knows the calculus: an elementwise operation states one local derivative per operand, a linear
one its transpose, a bilinear one two, a selecting one its weights. `autodiff` derives both modes from that.
Registration fails if a part is missing, so tests, documentation and explanations can rely on all of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..dtypes import bool_
from ..errors import BoundsError, ChainruleError, DtypeError, GraphError, ShapeError, TraceError
from ..graph import Node, constant, operand_types, state
from ..operations import CONSTANT, NO_ATTRIBUTES, OPERATIONS, WITHOUT_GRAPH, Attributes, Operation, Type
from .lowering import HOST, NOTHING_EXACT, Exact, Lowering, Scalar
from .namespace import NUMPY
from .shapes import broadcast_shapes

Rule = Callable[..., Any]
Bounds = tuple[int, Callable[..., int]]

_WHY = "Why:"


class Op(Operation):
    """A primitive operation with everything that the house needs to know about it.

    Called with arrays it computes; called with nodes it makes a node; anything else that has
    `__apply__` (formulas of the explainer) decides for itself.
    """

    kind: ClassVar[str] = ""

    def __init__(
        self,
        body: Rule,
        *,
        lower: Lowering = HOST,
        cost: str = "cheap",
        may_warn: bool = False,
        bounds: Bounds | None = None,
        exact: Exact = NOTHING_EXACT,
    ) -> None:
        self.name: str = body.__name__.removesuffix("_")
        self.body = body
        self.lowering = lower
        self.cost = cost
        self.may_warn = may_warn
        self.bounds = bounds
        self.exact = exact
        self.manual, self.why = self._split(inspect.getdoc(body) or "")
        parameters = list(inspect.signature(body).parameters.values())[1:]
        self.operand_names = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
        self.attribute_names = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        if self.name in OPERATIONS:
            raise GraphError(f"an operation named {self.name} is registered already")
        OPERATIONS[self.name] = self

    def _split(self, text: str) -> tuple[str, str]:
        manual, mark, why = text.partition(_WHY)
        if not manual.strip() or not mark or not why.strip():
            raise GraphError(f"{self.name} needs a docstring of the form 'What it does.  {_WHY} reason.'")
        return manual.strip(), why.strip()

    def __repr__(self) -> str:
        return f"<{self.kind} operation {self.name}>"

    def __call__(self, *operands: Any, **attributes: Any) -> Any:
        """The result on arrays, a node on nodes, whatever `__apply__` gives on anything else."""
        for operand in operands:
            if type(operand) is not np.ndarray:
                apply = getattr(operand, "__apply__", None)
                if apply is not None:
                    return apply(self, operands, attributes)
        return self.body(NUMPY, *operands, **attributes)

    # ------------------------------------------------------------------------------- on nodes

    def on_nodes(self, operands: tuple[Any, ...], attributes: Attributes) -> Node:
        """Apply to nodes; plain numbers beside them become constants of their dtype."""
        for operand in operands:
            if type(operand) is not Node:
                return self.node(self._as_nodes(operands), attributes)
        return self.node(operands, attributes)

    def _as_nodes(self, operands: tuple[Any, ...]) -> tuple[Node, ...]:
        dtype = next(
            operand.dtype for operand in reversed(operands) if isinstance(operand, Node | np.ndarray)
        )
        return tuple(
            operand
            if isinstance(operand, Node)
            else constant(operand, None if isinstance(operand, np.ndarray) else dtype)
            for operand in operands
        )

    def node(self, inputs: tuple[Node, ...], attributes: Attributes) -> Node:
        """The node of this operation on `inputs`: computed at once where all operands have arrays."""
        # On the path of every eager operation: one loop, no helper calls before the body.
        values = []
        recorded = False
        for operand in inputs:
            value = operand._value
            if value is None:
                value = operand.value
                if value is None:
                    return self._traced(inputs, attributes)
            values.append(value)
            if operand.requires_grad:
                recorded = True
        if self.may_warn and not state.quiet:
            result = self.run(values, attributes)
        else:
            try:
                result = self.body(NUMPY, *values, **attributes)
            except (ValueError, TypeError, IndexError, MemoryError) as failure:
                self._explain(failure, values, attributes)
                raise
        kind = type(result)
        if kind is not np.ndarray and kind is not tuple:
            result = np.asarray(result)
        if recorded and state.grad_enabled:
            return Node(self, inputs, attributes, result, None, kind is tuple or result.dtype.kind == "f")
        return self._constant(inputs, result)

    def record(self, inputs: tuple[Node, ...], attributes: Attributes, value: Any) -> Node:
        """A node with its array; operands are kept only if a gradient may be asked for."""
        if type(value) is not np.ndarray and type(value) is not tuple:
            value = np.asarray(value)
        if state.grad_enabled:
            for operand in inputs:
                if operand.requires_grad:
                    differentiable = type(value) is tuple or value.dtype.kind == "f"
                    return Node(self, inputs, attributes, value, None, differentiable)
        return self._constant(inputs, value)

    def _constant(self, inputs: tuple[Node, ...], value: Any) -> Node:
        """A result that nothing asks the gradient of; one of a compiled function's results hands on that it is."""
        if state.grad_enabled:
            for operand in inputs:
                if operand.attributes is WITHOUT_GRAPH and self._has_slope(value):
                    return Node(CONSTANT, (), WITHOUT_GRAPH, value)
        return Node(CONSTANT, (), NO_ATTRIBUTES, value)

    def _has_slope(self, value: Any) -> bool:
        """Whether a gradient would pass."""
        flat = self.kind == "discrete" or not any(getattr(self, "derivatives", (True,)))
        return not flat and (type(value) is tuple or value.dtype.kind == "f")

    def _traced(self, inputs: tuple[Node, ...], attributes: Attributes) -> Node:
        if state.trace is None:
            stale = next(operand for operand in inputs if operand.value is None)
            raise TraceError(
                f"{self.name} needs values; got {stale.type} {stale.operation.name} of a compiled step that is "
                f"over, made at {stale.origin}. Return it from the step"
            )
        return state.trace.apply(self, inputs, attributes)

    def symbolic(self, inputs: tuple[Node, ...], attributes: Attributes) -> Node:
        """A node without an array, typed by the rule; what a trace and the passes make."""
        types = self.types(*operand_types(inputs), **attributes)
        requires_grad = (
            state.grad_enabled
            and any(operand.requires_grad for operand in inputs)
            and any(type.dtype.kind == "f" for type in types)
        )
        return Node(self, inputs, attributes, None, types, requires_grad)

    def run(self, values: Sequence[Any], attributes: Attributes) -> Any:
        """The body on arrays; a failure is told in terms of this operation, never of NumPy."""
        try:
            if self.may_warn and not state.quiet:
                with np.errstate(all="ignore"):
                    return self.body(NUMPY, *values, **attributes)
            return self.body(NUMPY, *values, **attributes)
        except (ValueError, TypeError, IndexError, MemoryError) as failure:
            self._explain(failure, values, attributes)
            raise

    def _explain(self, failure: Exception, values: Sequence[Any], attributes: Attributes) -> None:
        """Raise the failure of a body in the project's own words; return if it has them already."""
        if isinstance(failure, ChainruleError):
            return
        types = [Type(np.shape(value), np.asarray(value).dtype) for value in values]
        if isinstance(self, Elementwise) or isinstance(self.lowering, Scalar):
            broadcast_shapes(self.name, *(type.shape for type in types))
        self.types(*types, **attributes)
        if self.bounds is not None:
            operand, limit = self.bounds
            size = limit(*types, **attributes)
            indices = np.asarray(values[operand])
            raise BoundsError(
                f"{self.name} needs indices from {-size} to {size - 1}; got "
                f"{indices.min()} to {indices.max()}. Check the index; labels and tokens against the "
                "number of classes"
            ) from failure
        raise ShapeError(
            f"{self.name} cannot take {', '.join(map(str, types))}"
            f"{f' with {dict(attributes)}' if attributes else ''}: {failure}"
        ) from failure


class Elementwise(Op):
    """One result element from the operand elements at the same place.

    `accepts` says which dtypes the user may bring: "float" (others are cast to the default float), "number"
    (bools become integers), "bits" (bools and integers), or "any".
    """

    kind = "elementwise"

    def __init__(
        self,
        body: Rule,
        *,
        derivatives: tuple[Rule | int | None, ...],
        result: str = "same",
        accepts: str = "float",
        **rest: Any,
    ) -> None:
        super().__init__(body, **rest)
        self.derivatives = derivatives
        self.accepts = accepts
        self._result = result
        if len(derivatives) != len(self.operand_names):
            raise GraphError(f"{self.name} needs one derivative (or None) for each operand")

    def types(self, *operands: Type, **attributes: Any) -> tuple[Type, ...]:
        """Types of the results; raises ShapeError or DtypeError."""
        shape = next((operand.shape for operand in operands if operand.shape), ())
        if any(operand.shape and operand.shape != shape for operand in operands):
            raise ShapeError(
                f"{self.name} needs operands of one shape; got "
                f"{', '.join(str(operand.shape) for operand in operands)}. Use broadcast_to"
            )
        values = operands[1:] if self.operand_names[0] == "condition" else operands
        if any(operand.dtype != values[0].dtype for operand in values):
            raise DtypeError(
                f"{self.name} needs operands of one dtype; got "
                f"{', '.join(operand.dtype.name for operand in operands)}. Use astype"
            )
        return (Type(shape, bool_ if self._result == "bool" else values[0].dtype),)


class Linear(Op):
    """Linear in its differentiable operands: states the result type and a transpose for each of them."""

    kind = "linear"

    def __init__(
        self,
        body: Rule,
        *,
        type: Rule,
        transposes: tuple[Rule | None, ...] | None = None,
        transpose: Rule | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(body, **rest)
        self._rule = type
        self.transposes = transposes
        self.transpose_of = transpose
        if (transposes is None) == (transpose is None):
            raise GraphError(f"{self.name} needs `transposes`, or one `transpose` for any operand")

    def types(self, *operands: Type, **attributes: Any) -> tuple[Type, ...]:
        """Types of the results; raises ShapeError or DtypeError."""
        return (self._rule(*operands, **attributes),)

    def transpose(self, index: int) -> Rule | None:
        """The rule `(g, *operands, **attributes) → cotangent` of operand `index`; None if it has none."""
        if self.transposes is not None:
            return self.transposes[index]
        general = self.transpose_of
        assert general is not None
        return lambda g, *operands, **attributes: general(index, g, *operands, **attributes)


class Bilinear(Linear):
    """Linear in each of its two operands."""

    kind = "bilinear"


class Selection(Op):
    """A reduction that is locally linear: result = Σ weights · operand, with weights that depend on it."""

    kind = "selection"

    def __init__(self, body: Rule, *, type: Rule, weights: Rule, **rest: Any) -> None:
        super().__init__(body, **rest)
        self._rule = type
        self.weights = weights

    def types(self, *operands: Type, **attributes: Any) -> tuple[Type, ...]:
        """Types of the results; raises ShapeError or DtypeError."""
        return (self._rule(*operands, **attributes),)


class Discrete(Op):
    """Without derivative: integers, positions, random bits."""

    kind = "discrete"

    def __init__(self, body: Rule, *, type: Rule, **rest: Any) -> None:
        super().__init__(body, **rest)
        self._rule = type

    def types(self, *operands: Type, **attributes: Any) -> tuple[Type, ...]:
        """Types of the results; raises ShapeError or DtypeError."""
        return (self._rule(*operands, **attributes),)


class Special(Op):
    """Brings its own two modes: operations over whole graphs."""

    kind = "special"

    def __init__(self, body: Rule, *, types: Rule, pull: Rule, push: Rule, **rest: Any) -> None:
        super().__init__(body, **rest)
        self._rule = types
        self.pull = pull
        self.push = push

    def types(self, *operands: Type, **attributes: Any) -> tuple[Type, ...]:
        """Types of the results; raises ShapeError or DtypeError."""
        return tuple(self._rule(*operands, **attributes))


def _decorator(kind: type[Op]) -> Callable[..., Callable[[Rule], Any]]:
    def declare(**parts: Any) -> Callable[[Rule], Any]:
        return lambda body: kind(body, **parts)

    return declare


elementwise = _decorator(Elementwise)
linear = _decorator(Linear)
bilinear = _decorator(Bilinear)
selection = _decorator(Selection)
discrete = _decorator(Discrete)
special = _decorator(Special)


def primitives() -> list[Op]:
    """Every registered primitive, in the order of declaration."""
    return [operation for operation in OPERATIONS.values() if isinstance(operation, Op)]
