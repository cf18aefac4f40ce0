"""Losses as modules: the functions of `functional` with their options, and weights as buffers.

The repr shows options that are not PyTorch's defaults.
"""

from __future__ import annotations

from typing import Any

from .. import functional
from ..functional.checks import check_choice, check_number
from ..functional.classes import IGNORED, check_ignored, check_smoothing
from ..functional.losses import DIVERGENCE_REDUCTIONS, REDUCTIONS, check_weight
from ..tensor import Tensor
from .module import Module


class _Loss(Module):
    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)

    def _keep_weight(self, name: str, weight: Any) -> None:
        """Register a weight under PyTorch's name, so that it is saved with the module."""
        kind = type(self).__name__
        self.register_buffer(name, None if weight is None else check_weight(kind, weight, name).detach())

    def extra_repr(self) -> str:
        """The options that differ from the defaults; weights by their shape."""
        shown = []
        for name, default in (*self._defaults().items(), ("reduction", "mean")):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                shown.append(f"{name}=<{value.dtype.name} {value.shape}>")
            elif value != default:
                shown.append(f"{name}={value!r}")
        return ", ".join(shown)

    def _defaults(self) -> dict[str, Any]:
        return {}


# ----------------------------------------------------------------------------------------------- numbers


class MSELoss(_Loss):
    """Mean of (input − target)²; see `functional.mse_loss`.

    >>> import chainrule as cr
    >>> MSELoss()(cr.tensor([1.0, 2.0]), cr.tensor([1.0, 4.0])).item()
    2.0
    """

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of `input` beside `target`, of one shape."""
        return functional.mse_loss(input, target, self.reduction)


class L1Loss(_Loss):
    """Mean of |input − target|; see `functional.l1_loss`.

    >>> import chainrule as cr
    >>> L1Loss()(cr.tensor([1.0, 2.0]), cr.tensor([1.0, 4.0])).item()
    1.0
    """

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of `input` beside `target`, of one shape."""
        return functional.l1_loss(input, target, self.reduction)


class HuberLoss(_Loss):
    """Squared near the target and absolute beyond `delta`; see `functional.huber_loss`.

    >>> import chainrule as cr
    >>> HuberLoss(delta=2.0)(cr.tensor([4.0]), cr.tensor([0.0])).item()
    6.0
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = check_number("HuberLoss", "delta", delta, above=0)

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of `input` beside `target`, of one shape."""
        return functional.huber_loss(input, target, self.reduction, self.delta)

    def _defaults(self) -> dict[str, Any]:
        return {"delta": 1.0}


class SmoothL1Loss(_Loss):
    """Squared near the target, absolute with slope 1 beyond `beta`; see `functional.smooth_l1_loss`.

    >>> import chainrule as cr
    >>> SmoothL1Loss(beta=2.0)(cr.tensor([4.0]), cr.tensor([0.0])).item()
    3.0
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = check_number("SmoothL1Loss", "beta", beta, least=0)

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of `input` beside `target`, of one shape."""
        return functional.smooth_l1_loss(input, target, self.reduction, self.beta)

    def _defaults(self) -> dict[str, Any]:
        return {"beta": 1.0}


# ------------------------------------------------------------------------------------------ yes or no


class BCELoss(_Loss):
    """Binary cross-entropy of probabilities; see `functional.binary_cross_entropy`.

    >>> import chainrule as cr
    >>> round(BCELoss()(cr.tensor([0.5]), cr.tensor([1.0])).item(), 4)
    0.6931
    """

    weight: Tensor | None

    def __init__(self, weight: Any = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self._keep_weight("weight", weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of probabilities beside targets from 0 to 1, of one shape."""
        return functional.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)

    def _defaults(self) -> dict[str, Any]:
        return {"weight": None}


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of sigmoid(input); see `functional.binary_cross_entropy_with_logits`.

    >>> import chainrule as cr
    >>> round(BCEWithLogitsLoss(pos_weight=[3.0])(cr.tensor([0.0]), cr.tensor([1.0])).item(), 4)
    2.0794
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(self, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self._keep_weight("weight", weight)
        self._keep_weight("pos_weight", pos_weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of logits beside targets from 0 to 1, of one shape."""
        return functional.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )

    def _defaults(self) -> dict[str, Any]:
        return {"weight": None, "pos_weight": None}


# ----------------------------------------------------------------------------------------------- classes


class CrossEntropyLoss(_Loss):
    """−log softmax(input) of the right class; see `functional.cross_entropy`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> round(nn.CrossEntropyLoss()(cr.zeros((2, 4)), cr.tensor([0, 3])).item(), 4)
    1.3863
    >>> nn.CrossEntropyLoss([1.0, 5.0], label_smoothing=0.1)
    CrossEntropyLoss(weight=<float32 (2,)>, label_smoothing=0.1)
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Any = None,
        *,
        ignore_index: int = IGNORED,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        self._keep_weight("weight", weight)
        self.ignore_index = check_ignored(ignore_index)
        self.label_smoothing = check_smoothing(label_smoothing)

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of logits (N, C, …) for classes (N, …) or probabilities (N, C, …)."""
        return functional.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )

    def _defaults(self) -> dict[str, Any]:
        return {"weight": None, "ignore_index": IGNORED, "label_smoothing": 0.0}


class NLLLoss(_Loss):
    """−input of the right class, for log-probabilities; see `functional.nll_loss`.

    >>> import chainrule as cr
    >>> NLLLoss()(cr.tensor([[-1.0, -0.5]]), cr.tensor([1])).item()
    0.5
    """

    weight: Tensor | None

    def __init__(self, weight: Any = None, *, ignore_index: int = IGNORED, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self._keep_weight("weight", weight)
        self.ignore_index = check_ignored(ignore_index)

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of log-probabilities (N, C, …) for classes (N, …)."""
        return functional.nll_loss(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction
        )

    def _defaults(self) -> dict[str, Any]:
        return {"weight": None, "ignore_index": IGNORED}


class KLDivLoss(_Loss):
    """The divergence of log-probabilities `input` from probabilities; see `functional.kl_div`.

    >>> import chainrule as cr
    >>> round(KLDivLoss(reduction="batchmean")(cr.log(cr.tensor([[0.5, 0.5]])), cr.tensor([[1.0, 0.0]])).item(), 4)
    0.6931
    """

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        self.reduction = check_choice("reduction", reduction, DIVERGENCE_REDUCTIONS)
        self.log_target = log_target

    def forward(self, input: Any, target: Any) -> Tensor:
        """The loss of log-probabilities beside probabilities, of one shape."""
        return functional.kl_div(input, target, self.reduction, self.log_target)

    def _defaults(self) -> dict[str, Any]:
        return {"log_target": False}
