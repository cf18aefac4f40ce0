"""Layers that learn nothing and change at most the shape."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor, as_tensor
from ..tensor.manipulation import flatten
from .module import Module


class Identity(Module):
    """What comes in goes out; arguments of the constructor are ignored."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        del arguments, keywords

    def forward(self, x: Any) -> Any:
        """x."""
        return x


class Flatten(Module):
    """Axes from `start_dim` to `end_dim` folded into one; by default all but the first.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Flatten()(cr.zeros((2, 3, 4))).shape
    (2, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, x: Any) -> Tensor:
        """The folded tensor."""
        return flatten(as_tensor(x), self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The axes."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
