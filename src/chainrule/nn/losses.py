"""Losses as modules: the functions of `functional` with a way to reduce the losses of a batch to one number."""

from __future__ import annotations

from typing import Any

from .. import functional
from ..errors import ArgumentError
from ..tensor import Tensor
from .module import Module


class _Loss(Module):
    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in ("mean", "sum", "none"):
            raise ArgumentError(f"reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")
        self.reduction = reduction

    def extra_repr(self) -> str:
        """The reduction, where it is not the mean."""
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"


class MSELoss(_Loss):
    """Mean of (input − target)²; see `functional.mse_loss`."""

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of `input` beside `target`, of one shape."""
        return functional.mse_loss(input, target, self.reduction)


class CrossEntropyLoss(_Loss):
    """−log softmax(input) of the right class; see `functional.cross_entropy`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> round(nn.CrossEntropyLoss()(cr.zeros((2, 4)), cr.tensor([0, 3])).item(), 4)
    1.3863
    """

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of logits (N, C, …) for classes (N, …)."""
        return functional.cross_entropy(input, target, self.reduction)


class BCELoss(_Loss):
    """Binary cross-entropy of probabilities; see `functional.binary_cross_entropy`."""

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of probabilities beside targets from 0 to 1, of one shape."""
        return functional.binary_cross_entropy(input, target, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of sigmoid(input); see `functional.binary_cross_entropy_with_logits`."""

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of logits beside targets from 0 to 1, of one shape."""
        return functional.binary_cross_entropy_with_logits(input, target, self.reduction)
