"""Transformations of functions, as JAX names them: grad, vjp, jvp, jacobian, hessian, checkpoint …

A function takes and returns tensors in any nesting of dicts, lists, tuples and dataclasses. What it records
is differentiated with arrays; inside another transformation with nodes, so they nest to any order.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from . import autodiff, ops
from .errors import ArgumentError, CotangentError, DtypeError, GradientError, ShapeError
from .graph import Node, constant, scope, state, topological
from .operations import CONSTANT
from .pytree import Structure, flatten, unflatten
from .tensor import Tensor, as_tensor, wrap
from .tensor import manipulation as shape_functions

F = TypeVar("F", bound=Callable[..., Any])


class no_grad(contextlib.ContextDecorator):
    """Context (or decorator) in which nothing is recorded for gradients.

    >>> import chainrule as cr
    >>> w = cr.tensor(1.0, requires_grad=True)
    >>> with cr.no_grad():
    ...     (w * 2).requires_grad
    False
    """

    _enabled = False

    def __init__(self) -> None:
        self._outer: list[bool] = []

    def __enter__(self) -> None:
        self._outer.append(state.grad_enabled)
        state.grad_enabled = self._enabled

    def __exit__(self, *_: object) -> None:
        state.grad_enabled = self._outer.pop()


class enable_grad(no_grad):
    """Context (or decorator) in which recording is on again, inside a `no_grad`."""

    _enabled = True


# ------------------------------------------------------------------------------------ recorded functions


class _Recorded:
    """One call of a function on inputs of its own: the nodes of the inputs, and what came out."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], wrt: Sequence[int]) -> None:
        self.leaves: list[Node] = []
        self.structures: list[Structure] = []
        self.counts: list[int] = []
        self.nested = state.depth > 0
        prepared = list(arguments)
        for position in wrt:
            values, structure = flatten(arguments[position])
            fresh = [self._fresh(value) for value in values]
            self.structures.append(structure)
            self.counts.append(len(fresh))
            self.leaves += [one.node for one in fresh]
            prepared[position] = unflatten(structure, fresh)
        self.held = prepared  # keeps the input nodes alive
        state.depth += 1
        recording, state.grad_enabled = state.grad_enabled, True
        try:
            self.result = function(*prepared)
        finally:
            state.depth -= 1
            state.grad_enabled = recording
        traced = state.trace is not None
        self.as_nodes = traced or (recording and (self.nested or self._captures()))

    def _captures(self) -> bool:
        """Whether the result depends on something from outside that requires grad.

        Then the gradient depends on it too (a gradient penalty, for one), and that path must not be cut.
        """
        outputs = [one.node for one in flatten(self.result)[0] if isinstance(one, Tensor)]
        own = set(self.leaves)
        return any(source not in own for source in autodiff.differentiable_sources(outputs))

    def _fresh(self, value: Any) -> Tensor:
        source = as_tensor(value)
        if source.dtype.kind != "f":
            raise DtypeError(
                f"only floats have gradients; got an argument of {source.dtype.name}. Write 1.0 instead of 1, or "
                "choose other arguments with argnums="
            )
        node = source.node
        if node.requires_grad or node.value is None:
            self.nested = self.nested or node.requires_grad
            linked = ops.positive.node((node,), {})
            linked.requires_grad = True
            return wrap(linked)
        return wrap(Node(CONSTANT, value=node.value, requires_grad=True))

    def split(self, flat: Sequence[Any]) -> list[Any]:
        """One pytree for each differentiated argument."""
        trees, start = [], 0
        for structure, count in zip(self.structures, self.counts):
            trees.append(unflatten(structure, flat[start : start + count]))
            start += count
        return trees

    def pull(self, outputs: Sequence[Node], cotangents: Sequence[Node], *, as_nodes: bool) -> list[Tensor]:
        """Cotangents of the input leaves, zeros where no path leads."""
        seeds = list(cotangents) if as_nodes else [one.value for one in cotangents]
        recording, state.grad_enabled = state.grad_enabled, as_nodes
        try:
            found = autodiff.gradients(outputs, seeds, self.leaves, as_nodes=as_nodes)
        finally:
            state.grad_enabled = recording
        return [_handle(found.get(leaf), leaf) for leaf in self.leaves]

    def push(self, outputs: Sequence[Node], tangents: Sequence[Node], *, as_nodes: bool) -> list[Tensor]:
        """Tangents of the outputs, zeros where nothing moves."""
        given = list(tangents) if as_nodes else [one.value for one in tangents]
        recording, state.grad_enabled = state.grad_enabled, as_nodes
        try:
            found = autodiff.pushforward(outputs, self.leaves, given, as_nodes=as_nodes)
        finally:
            state.grad_enabled = recording
        return [_handle(tangent, output) for tangent, output in zip(found, outputs)]


def _handle(value: Any, like: Node) -> Tensor:
    if value is None:
        return wrap(constant(np.zeros(like.shape, like.dtype)))
    return wrap(value if isinstance(value, Node) else Node(CONSTANT, value=np.asarray(value)))


def _positions(argnums: int | Sequence[int], count: int) -> list[int]:
    wanted = [argnums] if isinstance(argnums, int) else list(argnums)
    if any(not -count <= one < count for one in wanted):
        raise ArgumentError(f"argnums={argnums} needs that many arguments; got {count}")
    return [one % count for one in wanted]


def _bind(function: Callable[..., Any], keywords: dict[str, Any]) -> Callable[..., Any]:
    return functools.partial(function, **keywords) if keywords else function


def _detached(value: Any, as_nodes: bool) -> Any:
    """Auxiliary and primal results as the caller may keep them: without the inner history."""
    if as_nodes:
        return value
    leaves, structure = flatten(value)
    return unflatten(structure, [one.detach() if isinstance(one, Tensor) else one for one in leaves])


# --------------------------------------------------------------------------------------- first order


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns (value, gradient) of `function`, which must return one number.

    argnums: which positional arguments to differentiate; several give a tuple of gradients.
    has_aux: the function returns (value, anything), and the result is ((value, anything), gradient).
    Raises GradientError if the value is no single float.

    >>> import chainrule as cr
    >>> value, slope = cr.value_and_grad(lambda x: x * x)(3.0)
    >>> value.item(), slope.item()
    (9.0, 6.0)
    """

    @functools.wraps(function)
    def differentiated(*arguments: Any, **keywords: Any) -> Any:
        wrt = _positions(argnums, len(arguments))
        recorded = _Recorded(_bind(function, keywords), arguments, wrt)
        value, extra = recorded.result if has_aux else (recorded.result, None)
        if not isinstance(value, Tensor) or value.size != 1 or value.dtype.kind != "f":
            shown = f"{value.dtype.name}{value.shape}" if isinstance(value, Tensor) else type(value).__name__
            raise GradientError(
                f"grad needs a function that returns one float; got {shown}. Use jacobian or .sum()"
            )
        node = value.node
        seed = constant(np.ones(node.shape, node.dtype))
        trees = recorded.split(recorded.pull([node], [seed], as_nodes=recorded.as_nodes))
        gradient = trees[0] if isinstance(argnums, int) else tuple(trees)
        value = _detached(value, recorded.as_nodes)
        return ((value, _detached(extra, recorded.as_nodes)) if has_aux else value), gradient

    return differentiated


def grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns the gradient of `function`, which must return one number.

    The gradient has the structure, shapes and dtypes of the argument. Nest it for higher orders.

    >>> import chainrule as cr
    >>> cr.grad(cr.grad(lambda x: x**3.0))(2.0).item()
    12.0
    """
    both = value_and_grad(function, argnums, has_aux)

    @functools.wraps(function)
    def differentiated(*arguments: Any, **keywords: Any) -> Any:
        value, gradient = both(*arguments, **keywords)
        return (gradient, value[1]) if has_aux else gradient

    return differentiated


def _tensors(value: Any, what: str) -> tuple[list[Tensor], Structure]:
    leaves, structure = flatten(value)
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise GradientError(f"{what} must consist of tensors; got {[type(leaf).__name__ for leaf in leaves]}")
    return leaves, structure


def _matching(given: Any, like: Sequence[Node], what: str) -> list[Node]:
    leaves = [as_tensor(leaf) for leaf in flatten(given)[0]]
    if len(leaves) != len(like) or any(a.shape != b.shape for a, b in zip(leaves, like)):
        raise ShapeError(
            f"{what} needs shapes {[one.shape for one in like]}; got {[one.shape for one in leaves]}"
        )
    return [leaf.astype(one.dtype).node for leaf, one in zip(leaves, like)]


def vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """(value, pull): `pull(cotangent)` gives a tuple with cotangent · Jacobian for each argument.

    The cotangent has the structure and shapes of the value.

    >>> import chainrule as cr
    >>> value, pull = cr.vjp(lambda x: x * x, cr.tensor([1.0, 2.0]))
    >>> pull(cr.tensor([1.0, 1.0]))[0]
    tensor([2., 4.])
    """
    recorded = _Recorded(function, primals, range(len(primals)))
    outputs, _ = _tensors(recorded.result, "the value of the function")
    nodes = [one.node for one in outputs]

    def pull(cotangent: Any) -> tuple[Any, ...]:
        given = _matching(cotangent, nodes, "the cotangent")
        as_nodes = recorded.as_nodes or state.depth > 0 or any(one.requires_grad for one in given)
        return tuple(recorded.split(recorded.pull(nodes, given, as_nodes=as_nodes)))

    return _detached(recorded.result, recorded.as_nodes), pull


def jvp(function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """(value, tangent of the value): Jacobian · tangents, in one forward walk.

    primals, tangents: one entry for each argument, of equal structure and shapes.

    >>> import chainrule as cr
    >>> cr.jvp(lambda x: x * x, [cr.tensor(3.0)], [cr.tensor(1.0)])[1].item()
    6.0
    """
    recorded = _Recorded(function, tuple(primals), range(len(primals)))
    given = _matching(list(tangents), recorded.leaves, "the tangents")
    outputs, structure = _tensors(recorded.result, "the value of the function")
    as_nodes = recorded.as_nodes or any(one.requires_grad for one in given)
    moved = recorded.push([one.node for one in outputs], given, as_nodes=as_nodes)
    return _detached(recorded.result, as_nodes), unflatten(structure, moved)


# ------------------------------------------------------------------------------------- whole Jacobians


def jacobian(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, mode: str | None = None
) -> Callable[..., Any]:
    """A function that returns ∂output/∂argument, of shape output.shape + argument.shape.

    mode: "forward" walks once for each input element, "reverse" once for each output element; None takes
    the shorter way. Pytrees give the output's structure with the argument's inside.

    >>> import chainrule as cr
    >>> cr.jacobian(lambda x: x * x)(cr.tensor([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    if mode not in (None, "forward", "reverse"):
        raise ArgumentError(f"jacobian needs mode 'forward', 'reverse' or None; got {mode!r}")

    @functools.wraps(function)
    def differentiated(*arguments: Any, **keywords: Any) -> Any:
        wrt = _positions(argnums, len(arguments))
        recorded = _Recorded(_bind(function, keywords), arguments, wrt)
        outputs, structure = _tensors(recorded.result, "the value of the function")
        nodes = [one.node for one in outputs]
        size_in = sum(math.prod(leaf.shape) for leaf in recorded.leaves)
        size_out = sum(math.prod(node.shape) for node in nodes)
        forward = mode == "forward" or (mode is None and size_in < size_out)
        blocks = _blocks_forward(recorded, nodes) if forward else _blocks_reverse(recorded, nodes)
        per_output = []
        for row in blocks:
            trees = recorded.split(row)
            per_output.append(trees[0] if isinstance(argnums, int) else tuple(trees))
        return unflatten(structure, per_output)

    return differentiated


def _units(node: Node) -> Iterator[Node]:
    """Every unit vector of a node's shape."""
    size = math.prod(node.shape)
    for k in range(size):
        unit = np.zeros(size, node.dtype)
        unit[k] = 1
        yield constant(unit.reshape(node.shape))


def _zero(node: Node) -> Node:
    return constant(np.zeros(node.shape, node.dtype))


def _blocks_reverse(recorded: _Recorded, outputs: list[Node]) -> list[list[Tensor]]:
    blocks = []
    for node in outputs:
        rows = [recorded.pull([node], [unit], as_nodes=recorded.as_nodes) for unit in _units(node)]
        blocks.append(
            [
                shape_functions.reshape(_stacked([row[k] for row in rows], leaf), (*node.shape, *leaf.shape))
                for k, leaf in enumerate(recorded.leaves)
            ]
        )
    return blocks


def _stacked(parts: list[Tensor], like: Node) -> Tensor:
    return shape_functions.stack(parts) if parts else wrap(constant(np.zeros((0, *like.shape), like.dtype)))


def _blocks_forward(recorded: _Recorded, outputs: list[Node]) -> list[list[Tensor]]:
    blocks: list[list[Tensor]] = [[] for _ in outputs]
    for place, leaf in enumerate(recorded.leaves):
        columns = []
        for unit in _units(leaf):
            tangents = [unit if k == place else _zero(other) for k, other in enumerate(recorded.leaves)]
            columns.append(recorded.push(outputs, tangents, as_nodes=recorded.as_nodes))
        for k, node in enumerate(outputs):
            stacked = _stacked([column[k] for column in columns], node)
            ordered = shape_functions.moveaxis(stacked, 0, -1)
            blocks[k].append(shape_functions.reshape(ordered, (*node.shape, *leaf.shape)))
    return blocks


def hessian(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that returns all second derivatives of `function`, which must return one number.

    Forward over reverse: one product with the Hessian for each input element.

    >>> import chainrule as cr
    >>> cr.hessian(lambda x: (x * x).sum())(cr.tensor([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    return jacobian(grad(function, argnums), argnums, mode="forward")


def hvp(function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """(gradient, Hessian · tangents) with respect to all arguments, without forming the Hessian.

    >>> import chainrule as cr
    >>> gradient, product = cr.hvp(lambda x: x**3.0, [cr.tensor(2.0)], [cr.tensor(1.0)])
    >>> product[0].item()
    12.0
    """
    return jvp(grad(function, tuple(range(len(primals)))), primals, tangents)


# -------------------------------------------------------------------------------- memory, custom rules


def checkpoint(function: F) -> F:
    """The same function, but its intermediate values are not kept: the gradient computes them again.

    Less memory for about one more forward pass. Tensors that the function uses from outside get their
    gradients too. It must do the same each time it runs (random numbers in it are kept as they fell).

    >>> import chainrule as cr
    >>> f = lambda x: cr.sin(cr.exp(x))
    >>> cr.grad(cr.checkpoint(f))(0.0).item() == cr.grad(f)(0.0).item()
    True
    """

    @functools.wraps(function)
    def forgetful(*arguments: Any, **keywords: Any) -> Any:
        if not state.grad_enabled or state.trace is not None:
            return function(*arguments, **keywords)
        leaves, structure = flatten((arguments, keywords))
        places = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        outer = [leaves[k].node for k in places]
        inner = [Node(CONSTANT, value=node.value, requires_grad=node.requires_grad) for node in outer]
        before = inner[-1].serial if inner else Node(CONSTANT).serial
        for k, node in zip(places, inner):
            leaves[k] = wrap(node)
        given, named = unflatten(structure, leaves)
        with scope(getattr(function, "__name__", "checkpoint"), "function"):
            outputs, shape = _tensors(function(*given, **named), "the value of a checkpointed function")
            nodes = [one.node for one in outputs]
            graph, captured = autodiff.capture("checkpoint", inner, nodes, before)
            values = tuple(node.value for node in nodes)
            attributes = {"graph": graph, "pulled": []}
            whole = autodiff.call.record((*outer, *captured), attributes, values)
        if not whole.requires_grad:
            return unflatten(shape, [wrap(Node(CONSTANT, value=value)) for value in values])
        return unflatten(shape, _parts(whole, len(nodes)))

    return forgetful  # type: ignore[return-value]


def _parts(node: Node, count: int) -> list[Tensor]:
    return [wrap(autodiff.part.node((node,), {"index": k})) for k in range(count)]


def custom_gradient(function: Callable[..., tuple[Any, Callable[..., Any]]]) -> Callable[..., Any]:
    """A function with a backward rule of its own: `function` returns (value, pull).

    `pull(cotangent)` gets the cotangent of the value and returns one for each positional argument (a tuple,
    or the only one); None where there is no gradient. For higher orders `pull` itself is differentiated, so it
    may use the arguments and what was computed from them. Forward mode through it raises GradientError, and
    so does a tensor from outside that requires grad: it must be an argument, or detached.

    >>> import chainrule as cr
    >>> @cr.custom_gradient
    ... def clipped(x):
    ...     return x, lambda g: cr.clip(g, -1.0, 1.0)
    >>> cr.grad(lambda x: clipped(x) * 100.0)(1.0).item()
    1.0
    """

    @functools.wraps(function)
    def customised(*arguments: Any) -> Any:
        tensors = [as_tensor(one) for one in arguments]
        nodes = [one.node for one in tensors]
        # Recorded, so that what the rule keeps is connected to the arguments when the rule is differentiated.
        value, rule = function(*tensors)
        results, structure = _tensors(value, "the value of a custom_gradient function")
        _refuse_captured(results, nodes)
        outputs = [one.detach() for one in results]
        pull = _custom_pull(rule, structure, outputs, [(one.shape, one.dtype) for one in tensors])
        attributes = {"count": len(outputs), "pull": pull}
        whole = autodiff.custom.node((*(one.node for one in outputs), *nodes), attributes)
        if not whole.requires_grad and whole.value is not None:
            return unflatten(structure, outputs)
        return unflatten(structure, _parts(whole, len(outputs)))

    return customised


def _refuse_captured(results: list[Tensor], arguments: list[Node]) -> None:
    """The rule answers for the arguments only: anything else that requires grad would be cut silently."""
    own = set(arguments)
    inner = topological(
        [one.node for one in results], follow=lambda node: node.requires_grad and node not in own
    )
    for node in inner:
        if node.requires_grad and not node.inputs and node not in own:
            name = node.cell.name if node.cell is not None and node.cell.name else "a tensor"
            raise GradientError(
                f"a custom_gradient function has gradients for its arguments only; got {name} of shape {node.shape} "
                "from outside, which requires grad. Pass it as an argument, or use its .detach()"
            )


def _custom_pull(
    rule: Callable[..., Any],
    structure: Structure,
    outputs: list[Tensor],
    arguments: list[tuple[tuple[int, ...], Any]],
) -> Callable[[list[Any], bool], list[Any]]:
    like = [(one.shape, one.dtype) for one in outputs]

    def pull(cotangents: list[Any], as_nodes: bool) -> list[Any]:
        handles = [
            wrap(constant(np.zeros(shape, dtype)))
            if g is None
            else wrap(g if isinstance(g, Node) else Node(CONSTANT, value=np.asarray(g)))
            for g, (shape, dtype) in zip(cotangents, like)
        ]
        answer = rule(unflatten(structure, handles))
        answers = list(answer) if isinstance(answer, tuple | list) else [answer]
        if len(answers) != len(arguments):
            raise GradientError(
                f"a custom_gradient rule returns one cotangent for each of {len(arguments)} arguments; got "
                f"{len(answers)}"
            )
        results = [
            None if one is None else _cotangent(as_tensor(one, dtype).astype(dtype), shape, place)
            for place, (one, (shape, dtype)) in enumerate(zip(answers, arguments))
        ]
        return [one if as_nodes or one is None else one.value for one in results]

    return pull


def _cotangent(answer: Tensor, shape: tuple[int, ...], place: int) -> Node:
    """What a rule returned for an argument of this shape; a cotangent has its argument's shape."""
    if answer.shape == shape:
        return answer.node
    extra = len(answer.shape) - len(shape)
    if extra > 0 and answer.shape[extra:] == shape:
        fix = f"Sum it over the first {extra} axes (the batch): .sum(axis={tuple(range(extra))})"
    elif answer.shape == shape[::-1]:
        fix = "Did you mean .T?"
    else:
        fix = "Sum over what was broadcast, or reshape it"
    raise CotangentError(
        f"a custom_gradient rule returns a cotangent of its argument's shape {shape}; got {answer.shape} for "
        f"argument {place}. {fix}",
        shape,
        answer.shape,
    )
