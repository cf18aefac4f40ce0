"""RMSprop: steps scaled by a running mean of the gradient's square."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from .groups import ParameterGroup, Value, require_range
from .optimizer import Optimizer


class RMSprop(Optimizer):
    """v ← αv + (1 − α)g², w ← w − lr·g / (√v + ε) (Tieleman and Hinton, 2012, lecture 6.5).

    `weight_decay`·w is added to g at first. `centered` takes v − ḡ² for v, the variance of the gradient (Graves, 2013),
    where ḡ ← αḡ + (1 − α)g. With `momentum` b ← μb + g / (√v + ε) and w ← w − lr·b. `maximize` climbs instead of
    descending. ε is added outside the root, as in PyTorch. Raises ArgumentError for numbers out of range.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.RMSprop([w], lr=0.25, alpha=0.75)
    >>> (w * w).sum().backward(); optimizer.step()
    >>> w
    tensor([0.5], requires_grad=True)
    """

    keeps: ClassVar[tuple[str, ...]] = ("square_avg",)
    may_keep: ClassVar[tuple[str, ...]] = ("grad_avg", "momentum_buffer")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum,
            "centered": bool(centered), "maximize": bool(maximize),
        }  # fmt: skip
        super().__init__(params, defaults)

    def check(self, options: Mapping[str, Any]) -> None:
        """lr, eps, weight_decay and momentum from 0; alpha from 0 to below 1."""
        for name in ("lr", "eps", "weight_decay", "momentum"):
            require_range(options, name, 0.0)
        require_range(options, "alpha", 0.0, 1.0)

    def kept(self, group: ParameterGroup) -> tuple[str, ...]:
        """The mean of squares; the mean of gradients if centred; the buffer where there is momentum."""
        centered = ("grad_avg",) if group["centered"] else ()
        return (*self.keeps, *centered, *(("momentum_buffer",) if group.active("momentum") else ()))

    def coefficients(self, xp: Any, group: ParameterGroup, step: Value) -> dict[str, Value]:
        """The weights of the mean; nothing depends on the number of the step."""
        numbers = {
            "alpha": group["alpha"],
            "rest": 1.0 - group["alpha"],
            "eps": group["eps"],
            "lr": group["lr"],
        }
        for name in ("weight_decay", "momentum"):
            if group.active(name):
                numbers[name] = group[name]
        return numbers

    def update(
        self, xp: Any, parameter: Value, gradient: Value, kept: dict[str, Value], numbers: dict[str, Value]
    ) -> tuple[Value, dict[str, Value]]:
        """One step, in the order of operations of PyTorch's."""
        if "weight_decay" in numbers:
            gradient = gradient + parameter * numbers["weight_decay"]
        square = kept["square_avg"] * numbers["alpha"] + gradient * gradient * numbers["rest"]
        entries = {"square_avg": square}
        spread = square
        if "grad_avg" in kept:
            mean = kept["grad_avg"] + (gradient - kept["grad_avg"]) * numbers["rest"]
            entries["grad_avg"] = mean
            spread = square - mean * mean
        direction = gradient / (xp.sqrt(spread) + numbers["eps"])
        if "momentum_buffer" in kept:
            direction = kept["momentum_buffer"] * numbers["momentum"] + direction
            entries["momentum_buffer"] = direction
        return parameter - direction * numbers["lr"], entries
