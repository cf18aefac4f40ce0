"""Hooks on tensors: what the user wants to see, or to change, when a gradient arrives.

Knows tensors, and that the walk asks the hooks of a node or cell; knows nothing of modules.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ArgumentError, DtypeError, GradientError, ShapeError
from ..graph import Node
from ..operations import CONSTANT
from ..structure import bump_structure
from .arrival import handle_on
from .core import Tensor, wrap

_next_key = itertools.count(1).__next__


class RemovableHandle:
    """A hook that is registered; `remove()`, or leaving a `with` block, takes it away again."""

    def __init__(self, hooks: dict[int, Any], hook: Any, prepend: bool = False) -> None:
        self._hooks = hooks
        self._key = _next_key()
        written = getattr(hook, "function", hook)
        self._name = f"hook {getattr(written, '__name__', type(written).__name__)}"
        later = dict(hooks) if prepend else {}
        if prepend:
            hooks.clear()
        hooks[self._key] = hook
        hooks.update(later)
        # A step that was traced without it must be traced again.
        bump_structure(self, self._name, False, True)

    def remove(self) -> None:
        """Take the hook away; nothing happens if it is gone already."""
        if self._hooks.pop(self._key, None) is not None:
            bump_structure(self, self._name, True, False)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call `hook(gradient)` whenever the gradient with respect to this tensor has arrived, and before it is kept.

    A tensor that the hook returns flows on (and into `.grad`) in its place; None leaves the gradient as it is.
    Several hooks run in the order in which they were registered. Inside `cr.compile` the hook runs once, when the
    step is traced, and what it computes becomes part of the step.
    Raises GradientError if this tensor requires no grad.

    >>> import chainrule as cr
    >>> w = cr.tensor([1.0, 2.0], requires_grad=True)
    >>> handle = w.register_hook(lambda gradient: gradient * 10.0)
    >>> (w * w).sum().backward()
    >>> w.grad
    tensor([20., 40.])
    >>> handle.remove()
    """
    if not self.requires_grad:
        raise GradientError(
            f"a hook needs a tensor that requires grad; got {self.dtype.name}{self.shape} without. Was it detached?"
        )
    if not callable(hook):
        raise ArgumentError(f"a hook is a function of the gradient; got {type(hook).__name__}")
    owner = self.node if self.cell is None else self.cell
    if owner.hooks is None:
        owner.hooks = {}
    return RemovableHandle(owner.hooks, Hook(hook))


class Hook:
    """A user's hook as the walk calls it: on arrays or nodes."""

    def __init__(self, function: Callable[[Tensor], Tensor | None]) -> None:
        self.function = function

    def __call__(self, gradient: Any, as_nodes: bool) -> Any:
        """The gradient that flows on."""
        answer = self.function(as_handle(gradient, as_nodes))
        return gradient if answer is None else replaced("a hook", answer, gradient, as_nodes)


def as_handle(gradient: Any, as_nodes: bool) -> Tensor:
    """A gradient as the user sees it."""
    return handle_on(gradient) if as_nodes else wrap(Node(CONSTANT, value=np.asarray(gradient)))


def replaced(who: str, answer: Any, gradient: Any, as_nodes: bool) -> Any:
    """What a hook has returned, in the form that the walk needs; it must be of the gradient's type."""
    if not isinstance(answer, Tensor):
        raise ArgumentError(f"{who} returns a tensor, or None to change nothing; got {type(answer).__name__}")
    if answer.shape != tuple(gradient.shape):
        raise ShapeError(
            f"{who} returns a gradient of the same shape; got {answer.shape} for {tuple(gradient.shape)}"
        )
    if answer.dtype != gradient.dtype:
        raise DtypeError(
            f"{who} returns a gradient of the same dtype; got {answer.dtype.name} for {gradient.dtype.name}. "
            f"Use astype({gradient.dtype.name!r})"
        )
    return answer.node if as_nodes else answer._array()
