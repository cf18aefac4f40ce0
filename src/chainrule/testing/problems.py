"""A function under test as numbers: its floating-point leaves, its contracted output, its rounding noise.

Knows nothing of verdicts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import autodiff, ops
from ..dtypes import float32, float64
from ..errors import ArgumentError, ChainruleError, GradientError
from ..graph import Node
from ..operations import CONSTANT
from ..pytree import Structure, flatten, labels, unflatten
from ..tensor import Tensor, as_tensor, wrap
from ..transforms import jacobian, jvp, no_grad, vjp

Array = NDArray[Any]
Call = Callable[..., list[Tensor]]


class Problem:
    """Outputs of `call(*leaves)`, contracted with fixed weights to one number."""

    def __init__(self, call: Call, leaves: list[Array], weights: list[Array] | None = None) -> None:
        self.call = call
        self.leaves = leaves
        self.outputs = [one.detach().numpy() for one in self._run(leaves)]
        self.forward_passes = 0
        self.singular = False  # set by `noise`: an infinite slope stands somewhere inside
        self.weights = self._weights() if weights is None else weights
        self.value = self.number(leaves)
        self.magnitude = float(
            sum(np.abs(w * _finite(out)).sum() for w, out in zip(self.weights, self.outputs))
        )

    def _run(self, leaves: Sequence[Array]) -> list[Tensor]:
        return self.call(*(wrap(Node(CONSTANT, value=leaf)) for leaf in leaves))

    def _weights(self) -> list[Array]:
        """1 for a single number; otherwise random, away from 0, so that no entry can hide behind another."""
        if sum(out.size for out in self.outputs) == 1:
            return [np.ones(out.shape) for out in self.outputs]
        random = np.random.default_rng(20)
        return [
            np.where(np.isfinite(out), random.uniform(0.5, 1.5, out.shape), 0.0)
            * random.choice([-1.0, 1.0], out.shape)
            for out in self.outputs
        ]

    @property
    def partial(self) -> bool:
        """Whether some outputs are not finite here, so that only the others are compared.

        A product meets their infinity or NaN with the cotangent 0, and is IEEE: its gradient may be NaN.
        """
        return any(not weights.all() for weights in self.weights)

    def rows(self, leaves: Sequence[Array]) -> list[Array]:
        """Values of the outputs as float64, each multiplied by its weights."""
        self.forward_passes += 1
        with no_grad(), ops.quiet():
            outputs = [one.numpy().astype(float64) for one in self._run(leaves)]
        return [_weighted(w, out) for w, out in zip(self.weights, outputs)]

    def number(self, leaves: Sequence[Array]) -> float:
        """The contracted output, added up in float64."""
        return float(sum(row.sum() for row in self.rows(leaves)))

    def derivative(self, mode: str) -> list[Array]:
        """The derivative of the contracted output by every leaf, as the engine computes it.

        The weights go in as cotangent, or meet the tangents in NumPy: no operation of the engine stands between,
        where its own mistake could cancel one under test.
        """
        handles = [wrap(Node(CONSTANT, value=leaf)) for leaf in self.leaves]
        if mode == "reverse":
            found = vjp(self.call, *handles)[1](self.weights)
            return [one.detach().numpy() for one in found]
        blocks = jacobian(self.call, tuple(range(len(handles))), mode="forward")(*handles)
        total = [np.zeros(leaf.shape) for leaf in self.leaves]
        for weights, row in zip(self.weights, blocks):
            for k, block in enumerate(row):
                columns = block.detach().numpy().reshape(*weights.shape, total[k].size)
                kept = np.where((weights != 0)[..., None], columns, 0.0)
                total[k] += np.tensordot(weights, kept, weights.ndim).reshape(total[k].shape)
        return total

    def slope(self, mode: str, directions: list[Array]) -> Problem:
        """The derivative along `directions`, computed in `mode`, as a problem of its own."""

        def forward(*leaves: Tensor) -> list[Tensor]:
            moved: list[Tensor] = jvp(self.call, leaves, directions)[1]
            return moved

        def reverse(*leaves: Tensor) -> list[Tensor]:
            return list(vjp(self.call, *leaves)[1](self.weights))

        if mode == "forward":
            return Problem(forward, self.leaves, self.weights)
        return Problem(reverse, self.leaves, directions)

    def noise(self) -> float:
        """Rounding error of the contracted output: Σ (∂L/∂v · v)² over all values v on the way, times ε².

        First order, from one backward pass: S. Linnainmaa, "Taylor expansion of the accumulated rounding
        error", BIT 16 (1976) 146–160, the paper that reverse mode comes from.
        """
        total = 0.0

        def visit(node: Node, g: Any) -> None:
            nonlocal total
            value = node.value
            if isinstance(g, np.ndarray | np.generic) and isinstance(value, np.ndarray) and value.size:
                self.singular |= bool(node.inputs) and bool(np.isinf(g).any())
                with ops.quiet():
                    share = np.asarray(g, float64) * value
                    share = share[np.isfinite(share)] * np.finfo(value.dtype).eps
                    total += float((share * share).sum())

        leaves = [wrap(Node(CONSTANT, value=leaf, requires_grad=True)) for leaf in self.leaves]
        try:
            nodes = [one.node for one in self.call(*leaves)]
            seeds = [weights.astype(node.dtype) for weights, node in zip(self.weights, nodes)]
            autodiff.gradients(nodes, seeds, visit=visit)
        except GradientError:
            pass
        eps = max(float(np.finfo(out.dtype).eps) for out in self.outputs)
        return 4 * float(np.sqrt(total)) + eps * self.magnitude


def _finite(values: Array) -> Array:
    return np.where(np.isfinite(values), values, 0.0)


def _weighted(weights: Array, values: Array) -> Array:
    return weights * (values if weights.all() else np.where(weights != 0, values, 0.0))


# --------------------------------------------------------------------------------- from the user's call


def unpack(function: Callable[..., Any], args: Any) -> tuple[Call, list[Array], list[str]]:
    """(function of the floating-point leaves → float outputs, the leaves, their names)."""
    arguments = tuple(args) if isinstance(args, tuple | list) else (args,)
    leaves, structure = flatten(arguments)
    tensors = [as_tensor(leaf) if _is_number(leaf) else leaf for leaf in leaves]
    places = [k for k, one in enumerate(tensors) if isinstance(one, Tensor) and one.dtype.kind == "f"]
    if not places:
        raise ArgumentError(
            f"check_grads needs at least one argument of floats; got {len(leaves)} without. Write 1.0 instead of 1"
        )
    names = _names(function, structure)

    def call(*floats: Tensor) -> list[Tensor]:
        filled = list(tensors)
        for place, one in zip(places, floats):
            filled[place] = one
        result = flatten(function(*unflatten(structure, filled)))[0]
        outputs = [as_tensor(one) for one in result if _is_number(one)]
        wanted = [one for one in outputs if one.dtype.kind == "f" and one.size]
        if not wanted:
            raise ArgumentError("check_grads needs a function that returns floats; got none")
        return wanted

    return call, [tensors[k].detach().numpy() for k in places], [names[k] for k in places]


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, Tensor | np.ndarray | np.generic | bool | int | float)


def in_float64(call: Call, leaves: list[Array]) -> list[Array] | None:
    """The leaves as float64, if the function then computes in float64 too; None if it cannot."""
    wide = [leaf.astype(float64) for leaf in leaves]
    try:
        with no_grad():
            outputs = call(*(wrap(Node(CONSTANT, value=leaf)) for leaf in wide))
    except ChainruleError:
        return None
    return wide if all(one.dtype != float32 for one in outputs) else None


def _names(function: Callable[..., Any], structure: Structure) -> list[str]:
    """`w`, `params['b']`, `layers[0]`: the parameter's name and the way down to each leaf."""
    try:
        parameters = [
            p.name for p in inspect.signature(function).parameters.values() if p.kind < p.VAR_POSITIONAL
        ]
    except (TypeError, ValueError):
        parameters = []
    found: list[str] = []
    for place, child in enumerate(structure.children):
        found.extend(labels(child, parameters[place] if place < len(parameters) else f"args[{place}]"))
    return found
