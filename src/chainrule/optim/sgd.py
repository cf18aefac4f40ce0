"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ..errors import ArgumentError
from .groups import ParameterGroup, Value, require_range
from .optimizer import Optimizer


class SGD(Optimizer):
    """w ← w − lr·d, where d is the gradient, or with momentum v ← μ·v + (1 − dampening)·g and d = v.

    As in PyTorch the first v is g itself; with `nesterov` d = g + μ·v (Sutskever et al., 2013); `weight_decay`·w is
    added to g at first; `maximize` climbs instead of descending. Raises ArgumentError for numbers out of range.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.SGD([w], lr=0.5)
    >>> (w * w).sum().backward(); optimizer.step()
    >>> w
    tensor([0.], requires_grad=True)
    """

    may_keep: ClassVar[tuple[str, ...]] = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": bool(nesterov), "maximize": bool(maximize),
        }  # fmt: skip
        super().__init__(params, defaults)

    def check(self, options: Mapping[str, Any]) -> None:
        """lr, momentum and weight_decay from 0; nesterov needs momentum without dampening."""
        for name in ("lr", "momentum", "weight_decay"):
            require_range(options, name, 0.0)
        require_range(options, "dampening", float("-inf"))
        if options["nesterov"] and not (options["momentum"] > 0 and options["dampening"] == 0):
            raise ArgumentError(
                f"nesterov needs a momentum above 0 and no dampening; got momentum={options['momentum']:g} and "
                f"dampening={options['dampening']:g}"
            )

    def kept(self, group: ParameterGroup) -> tuple[str, ...]:
        """The momentum buffer, where there is momentum."""
        return self.may_keep if group.active("momentum") else ()

    def coefficients(self, xp: Any, group: ParameterGroup, step: Value) -> dict[str, Value]:
        """`share` is the part of the gradient that enters the buffer: all of it in the first step."""
        numbers = {"lr": group["lr"]}
        if group.active("weight_decay"):
            numbers["weight_decay"] = group["weight_decay"]
        if group.active("momentum"):
            numbers["momentum"] = group["momentum"]
            numbers["share"] = 1.0
            if group.active("dampening"):
                numbers["share"] = 1.0 - group["dampening"] * xp.minimum(step - 1.0, 1.0)
            if group["nesterov"]:
                numbers["nesterov"] = group["momentum"]
        return numbers

    def update(
        self, xp: Any, parameter: Value, gradient: Value, kept: dict[str, Value], numbers: dict[str, Value]
    ) -> tuple[Value, dict[str, Value]]:
        """One step, as in PyTorch's documentation of SGD."""
        if "weight_decay" in numbers:
            gradient = gradient + parameter * numbers["weight_decay"]
        if not kept:
            return parameter - gradient * numbers["lr"], kept
        velocity = kept["momentum_buffer"] * numbers["momentum"] + gradient * numbers["share"]
        direction = velocity
        if "nesterov" in numbers:
            direction = gradient + velocity * numbers["nesterov"]
        return parameter - direction * numbers["lr"], {"momentum_buffer": velocity}
