"""Activations as layers: the functions of `functional` where a Sequential needs a module."""

from __future__ import annotations

from typing import Any

from .. import functional
from ..tensor import Tensor
from .module import Module


class ReLU(Module):
    """max(x, 0), elementwise; its slope at 0 is 0."""

    def forward(self, x: Any) -> Tensor:
        """max(x, 0)."""
        return functional.relu(x)


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ), elementwise."""

    def forward(self, x: Any) -> Tensor:
        """1 / (1 + e⁻ˣ)."""
        return functional.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent, elementwise."""

    def forward(self, x: Any) -> Tensor:
        """tanh x."""
        return functional.tanh(x)
