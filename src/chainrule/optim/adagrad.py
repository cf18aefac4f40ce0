"""Adagrad: steps that shrink with the sum of all squared gradients so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from .groups import ParameterGroup, Value, require_range
from .optimizer import Optimizer


class Adagrad(Optimizer):
    """s ← s + g², w ← w − lrₜ·g / (√s + ε), where lrₜ = lr / (1 + (t − 1)·lr_decay) (Duchi, Hazan and Singer, 2011).

    s starts at `initial_accumulator_value`. `weight_decay`·w is added to g at first; `maximize` climbs instead of
    descending. Raises ArgumentError for numbers out of range.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.Adagrad([w], lr=0.25)
    >>> (w * w).sum().backward(); optimizer.step()
    >>> w
    tensor([0.75], requires_grad=True)
    """

    keeps: ClassVar[tuple[str, ...]] = ("sum",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "maximize": bool(maximize),
        }  # fmt: skip
        super().__init__(params, defaults)

    def check(self, options: Mapping[str, Any]) -> None:
        """All numbers from 0."""
        for name in ("lr", "lr_decay", "eps", "weight_decay", "initial_accumulator_value"):
            require_range(options, name, 0.0)

    def initial(self, name: str, group: ParameterGroup) -> float:
        """The sum need not start at 0: a start above it makes the first steps smaller."""
        value: float = group["initial_accumulator_value"]
        return value

    def coefficients(self, xp: Any, group: ParameterGroup, step: Value) -> dict[str, Value]:
        """The learning rate of this step."""
        numbers = {"lr": group["lr"] / (1.0 + (step - 1.0) * group["lr_decay"]), "eps": group["eps"]}
        if group.active("weight_decay"):
            numbers["weight_decay"] = group["weight_decay"]
        return numbers

    def update(
        self, xp: Any, parameter: Value, gradient: Value, kept: dict[str, Value], numbers: dict[str, Value]
    ) -> tuple[Value, dict[str, Value]]:
        """One step, in the order of operations of PyTorch's."""
        if "weight_decay" in numbers:
            gradient = gradient + parameter * numbers["weight_decay"]
        total = kept["sum"] + gradient * gradient
        direction = gradient / (xp.sqrt(total) + numbers["eps"])
        return parameter - direction * numbers["lr"], {"sum": total}
