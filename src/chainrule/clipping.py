"""Gradients kept within limits before an optimizer's step: all together by their norm, or entry by entry.

One formula for both, over arrays in an eager step and over tensors in a traced one.
Knows tensors and their gradients; knows nothing of optimizers and modules.
"""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from . import ops
from .dtypes import float64
from .elsewhere import fitted
from .errors import ArgumentError, NonFiniteError
from .graph import constant, state
from .ops import NUMPY, quiet
from .tensor import Tensor, as_tensor, wrap
from .tensor import elementwise as tensor_functions
from .transforms import no_grad

Value = Any
"""An array outside a trace, a tensor inside."""

# PyTorch adds this to the norm, so that a norm of 0 divides nothing by 0.
_SPARE = 1e-6

P = ParamSpec("P")
R = TypeVar("R")


def _checked(function: Callable[P, R]) -> Callable[P, R]:
    """Calls that do not fit, PyTorch's `foreach=` among them, are told in our words."""

    @functools.wraps(function)
    def checked(*arguments: P.args, **keywords: P.kwargs) -> R:
        return function(*arguments, **fitted(function, function.__name__, arguments, keywords))

    return checked


@_checked
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients by one factor so that their norm, taken over all together, is at most `max_norm`.

    Call it between `backward()` and `optimizer.step()`; it works in compiled steps too. The factor is
    min(1, max_norm / (norm + 10⁻⁶)), as in PyTorch (Pascanu, Mikolov and Bengio, 2013). norm_type: 2 (root of the sum
    of squares), 1, any other number above 0, or inf for the largest magnitude. Returns the norm before, a tensor of
    shape (); 0 where there is no gradient yet. Norms are summed in float64.

    A norm that is infinite or NaN makes gradients 0 or NaN, as in PyTorch; with `error_if_nonfinite` it raises
    NonFiniteError instead, and nothing is changed. Raises ArgumentError for limits below 0 and without parameters.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w / 2).sum().backward()
    >>> optim.clip_grad_norm_([w], max_norm=1.0)
    tensor(5.)
    >>> [round(entry, 3) for entry in w.grad.tolist()]
    [0.6, 0.8]
    """
    given = _listed(parameters)
    limit = _limit("max_norm", max_norm)
    norm = get_total_norm(_gradients(given), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(given, limit, norm)
    return norm


@_checked
def get_total_norm(
    tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """The norm of all entries of all tensors together, of shape () and their dtype; 0 of no tensors.

    Raises as `clip_grad_norm_`, which calls it.

    >>> import chainrule as cr
    >>> get_total_norm([cr.tensor([3.0]), cr.tensor([4.0])])
    tensor(5.)
    """
    order = _limit("norm_type", norm_type)
    if order == 0:
        raise ArgumentError("norm_type must be above 0; got 0. Use 2, 1 or float('inf')")
    given = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    with no_grad(), quiet():
        parts = [_value(as_tensor(one)) for one in given]
        if not parts:
            return as_tensor(0.0)
        dtype = np.result_type(*(one.dtype for one in parts))
        norm = _norm([part for part in parts if math.prod(part.shape)], order)
        total = wrap(constant(norm, dtype)) if state.trace is None else as_tensor(norm).astype(dtype)
        if error_if_nonfinite:
            _require_finite(total)
    return total


@_checked
def clip_grads_with_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor) -> None:
    """Scale all gradients by min(1, max_norm / (total_norm + 10⁻⁶)), with a norm from `get_total_norm`.

    >>> import chainrule as cr
    >>> w = cr.tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w / 2).sum().backward()
    >>> clip_grads_with_norm_([w], 2.5, cr.tensor(5.0))
    >>> [round(entry, 3) for entry in w.grad.tolist()]
    [1.5, 2.0]
    """
    given = _listed(parameters)
    limit = _limit("max_norm", max_norm)
    with no_grad(), quiet():
        xp = NUMPY if state.trace is None else tensor_functions
        factor = xp.minimum(limit / (_value(as_tensor(total_norm)) + _SPARE), 1.0)
        for parameter in given:
            if (gradient := parameter.grad) is not None:
                _deposit(parameter, _value(gradient) * factor.astype(gradient.dtype))


@_checked
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Cut every entry of every gradient to −clip_value … clip_value. NaN stays NaN.

    Call it between `backward()` and `optimizer.step()`; it works in compiled steps too. The direction of the
    gradient changes, other than with `clip_grad_norm_`. Raises ArgumentError for a limit below 0.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([3.0, -0.5], requires_grad=True)
    >>> (w * w / 2).sum().backward()
    >>> optim.clip_grad_value_([w], 1.0); w.grad
    tensor([ 1. , -0.5])
    """
    given = _listed(parameters)
    limit = _limit("clip_value", clip_value)
    with no_grad(), quiet():
        xp = NUMPY if state.trace is None else tensor_functions
        for parameter in given:
            if (gradient := parameter.grad) is not None:
                _deposit(parameter, xp.minimum(xp.maximum(_value(gradient), -limit), limit))


# -------------------------------------------------------------------------------------- parts


def _norm(parts: list[Value], order: float) -> Value:
    """(Σ|x|ᵖ)^(1/p) in float64, so that squares of float32 neither overflow nor lose digits."""
    if not parts:
        return np.zeros(())
    if order == math.inf:
        xp = NUMPY if state.trace is None else tensor_functions
        return functools.reduce(xp.maximum, [abs(part).max() for part in parts])
    wide = [part.astype(float64) for part in parts]
    if order == 2:
        return sum((part * part).sum() for part in wide) ** 0.5
    if order == 1:
        return sum(abs(part).sum() for part in wide)
    return sum((abs(part) ** order).sum() for part in wide) ** (1.0 / order)


def _require_finite(norm: Tensor) -> None:
    message = (
        "the norm of the gradients must be finite to be clipped by; got {low}. Look for the layer with cr.explain, or "
        "leave error_if_nonfinite out"
    )
    if state.trace is not None:
        condition = ops.isfinite.on_nodes((norm.node,), {})
        state.trace.check(condition, message, NonFiniteError, norm.node)
    elif not math.isfinite(norm.item()):
        raise NonFiniteError(message.format(low=norm.item()))


def _listed(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """The parameters, each once."""
    given = [parameters] if isinstance(parameters, Tensor) else parameters
    if not isinstance(given, Iterable):
        raise ArgumentError(f"clipping needs parameters; got {type(given).__name__}. Pass model.parameters()")
    found = {id(one): one for one in given}
    if not found:
        raise ArgumentError(
            "clipping needs parameters; got none. Pass model.parameters() itself: a generator that was read before "
            "is empty"
        )
    for one in found.values():
        if not isinstance(one, Tensor):
            raise ArgumentError(
                f"clipping needs parameters; got {type(one).__name__}. Pass model.parameters()"
            )
    return list(found.values())


def _limit(name: str, value: Any) -> float:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not (found := float(value)) >= 0:
        raise ArgumentError(f"{name} must be a number from 0; got {value!r}")
    return found


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [gradient for one in parameters if (gradient := one.grad) is not None]


def _value(tensor: Tensor) -> Value:
    return tensor._array() if state.trace is None else tensor


def _deposit(parameter: Tensor, gradient: Value) -> None:
    parameter.grad = gradient if isinstance(gradient, Tensor) else wrap(constant(gradient))


__all__ = ["clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]
