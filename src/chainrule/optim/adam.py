"""Adam and AdamW: steps scaled by running means of the gradient and of its square."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ..errors import ArgumentError
from .groups import ParameterGroup, Value, require_range, several
from .optimizer import Optimizer


class Adam(Optimizer):
    """m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², w ← w − lr·m̂ / (√v̂ + ε) (Kingma and Ba, 2015).

    m̂ and v̂ are m and v divided by 1 − βᵗ, because both start at 0. `weight_decay`·w is added to g at first, or with
    `decoupled_weight_decay` taken from w as in AdamW; with `amsgrad` the largest v so far is used (Reddi, Kale and
    Kumar, 2018); `maximize` climbs instead of descending. Raises ArgumentError for numbers out of range.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.Adam([w], lr=0.25)
    >>> (w * w).sum().backward(); optimizer.step()
    >>> w
    tensor([0.75], requires_grad=True)
    """

    keeps: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")
    may_keep: ClassVar[tuple[str, ...]] = ("max_exp_avg_sq",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults = {
            "lr": lr, "betas": several("betas", betas, 2), "eps": eps, "weight_decay": weight_decay,
            "amsgrad": bool(amsgrad), "maximize": bool(maximize),
            "decoupled_weight_decay": bool(decoupled_weight_decay),
        }  # fmt: skip
        super().__init__(params, defaults)

    def check(self, options: Mapping[str, Any]) -> None:
        """lr, eps and weight_decay from 0; both betas from 0 to below 1."""
        for name in ("lr", "eps", "weight_decay"):
            require_range(options, name, 0.0)
        first, second = several("betas", options["betas"], 2)
        require_range({"betas[0]": first}, "betas[0]", 0.0, 1.0)
        require_range({"betas[1]": second}, "betas[1]", 0.0, 1.0)

    def kept(self, group: ParameterGroup) -> tuple[str, ...]:
        """The two running means, and with amsgrad the largest of the second."""
        return (*self.keeps, *self.may_keep) if group["amsgrad"] else self.keeps

    def coefficients(self, xp: Any, group: ParameterGroup, step: Value) -> dict[str, Value]:
        """The weights of the means, and both corrections for their start at 0."""
        first, second = group["betas"]
        numbers = {
            "first": 1.0 - first,
            "second": second,
            "rest": 1.0 - second,
            "size": group["lr"] / (1.0 - first**step),
            "scale": xp.sqrt(1.0 - second**step),
            "eps": group["eps"],
        }
        if group.active("weight_decay"):
            if group["decoupled_weight_decay"]:
                numbers["shrink"] = 1.0 - group["lr"] * group["weight_decay"]
            else:
                numbers["weight_decay"] = group["weight_decay"]
        return numbers

    def update(
        self, xp: Any, parameter: Value, gradient: Value, kept: dict[str, Value], numbers: dict[str, Value]
    ) -> tuple[Value, dict[str, Value]]:
        """One step, in the order of operations of PyTorch's."""
        if "shrink" in numbers:
            parameter = parameter * numbers["shrink"]
        if "weight_decay" in numbers:
            gradient = gradient + parameter * numbers["weight_decay"]
        mean = kept["exp_avg"] + (gradient - kept["exp_avg"]) * numbers["first"]
        square = kept["exp_avg_sq"] * numbers["second"] + gradient * gradient * numbers["rest"]
        entries = {"exp_avg": mean, "exp_avg_sq": square}
        largest = square
        if "max_exp_avg_sq" in kept:
            largest = entries["max_exp_avg_sq"] = xp.maximum(kept["max_exp_avg_sq"], square)
        spread = xp.sqrt(largest) / numbers["scale"] + numbers["eps"]
        return parameter - mean / spread * numbers["size"], entries


class AdamW(Adam):
    """Adam, whose weight decay acts on the weights alone: w ← (1 − lr·λ)·w, then Adam's step (Loshchilov, Hutter 2019).

    In Adam the decay is part of the gradient, so weights with large gradients decay less; here all decay alike.
    λ is `weight_decay`. Raises ArgumentError for numbers out of range.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.AdamW([w], lr=0.25, weight_decay=0.5)
    >>> (w * w).sum().backward(); optimizer.step()
    >>> w
    tensor([0.625], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True
        )

    def check(self, options: Mapping[str, Any]) -> None:
        """As Adam; and weight decay is decoupled, always."""
        super().check(options)
        if not options["decoupled_weight_decay"]:
            raise ArgumentError(
                "AdamW decays weights apart from the gradient; got decoupled_weight_decay=False, as in Adam's state. "
                "Use optim.Adam"
            )
