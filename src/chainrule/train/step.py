"""One step of training: forward, loss, backward, and the update at the end of a group of batches.

The step is one plain function over tensors, which `engine.py` runs as Python or as machine code. What needs numbers
before the update, the look whether the loss is finite, is left to the runtime where a trace runs; everything else
that needs numbers is done outside.
Knows nothing of epochs and of data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import nn
from ..clipping import clip_grad_norm_, clip_grad_value_
from ..errors import ArgumentError
from ..graph import state
from ..optim import Optimizer
from ..tensor import Tensor
from .problem import Problem, call_model

Step = Callable[[Any, Any, Any, Tensor | None, bool], tuple[Any, Any]]
"""(inputs, targets, weights, share of the group, whether to update) → (loss, outputs or None)."""


class NotFiniteError(Exception):
    """A loss or a gradient is infinite or not a number; no parameter was changed.

    why: sentences that say where the first such number comes from and what to do; nothing where that is not known.
    """

    def __init__(self, what: str, value: str, why: str = "") -> None:
        super().__init__(what, value, why)
        self.what = what
        self.value = value
        self.why = why


def make_step(
    model: nn.Module,
    problem: Problem,
    optimizer: Optimizer,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    measured: bool = True,
) -> Step:
    """The step of a model, a loss and an optimizer. Gradients must be gone before it, and are gone after an update.

    measured: whether anybody wants the outputs.
    """
    learnt = [one for group in optimizer.param_groups for one in group["params"]]

    def step(inputs: Any, targets: Any, weights: Any, share: Tensor | None, update: bool) -> tuple[Any, Any]:
        outputs = call_model(model, inputs)
        loss = problem.loss(outputs, targets, weights)
        _require_finite_loss(loss)
        (loss if share is None else loss * share).backward()
        if update:
            if clip_value is not None:
                clip_grad_value_(learnt, clip_value)
            if clip_norm is not None:
                clip_grad_norm_(learnt, clip_norm)
            _require_finite_gradients(learnt)
            optimizer.step()
            optimizer.zero_grad()
        return loss, outputs if measured else None

    return step


def make_own_step(function: Callable[[Any, Any], Any]) -> Step:
    """The step that the user wrote: (x, y) → loss, or (loss, outputs) so that metrics see the outputs."""

    def step(inputs: Any, targets: Any, weights: Any, share: Tensor | None, update: bool) -> tuple[Any, Any]:
        if weights is not None:
            raise ArgumentError(
                "a step of one's own gets x and y; got batches with weights of rows beside them. Leave them out, or "
                "put them into x"
            )
        result = function(inputs, targets)
        return result if isinstance(result, tuple) and len(result) == 2 else (result, None)

    return step


def number(loss: Any, name: str = "step") -> float:
    """The loss as a number. Raises ArgumentError for anything that is not one number."""
    if isinstance(loss, Tensor) and loss.size == 1:
        return float(loss.item())
    if isinstance(loss, int | float | np.number):
        return float(loss)
    shown = f"a tensor of shape {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
    raise ArgumentError(f"{name} must return the loss as one number; got {shown}. Take its mean()")


def _require_finite_loss(loss: Any) -> None:
    if not loss.requires_grad:
        raise ArgumentError(
            "a loss must depend on parameters that require grad; got a tensor without gradient. Compute it from the "
            "outputs with chainrule's functions, and leave a part of the model to be learnt: requires_grad_(True)"
        )
    if state.trace is None and not math.isfinite(value := number(loss)):
        raise NotFiniteError("loss", f"{value}")


def _require_finite_gradients(learnt: Sequence[Tensor]) -> None:
    """A gradient that is not finite would spoil its parameter for good. A compiled step looks for itself."""
    if state.trace is not None:
        return
    for parameter in learnt:
        gradient = parameter.grad
        if gradient is None:
            continue
        finite = np.isfinite(array := gradient._array())
        if not finite.all():
            name = parameter.cell.name if parameter.cell is not None else None
            raise NotFiniteError(f"gradient of {name or 'a parameter'}", f"{array[~finite][0]}")


def forget_gradients(optimizers: Sequence[Optimizer]) -> None:
    """Forget the gradients of what the optimizers hold."""
    for optimizer in optimizers:
        optimizer.zero_grad()
