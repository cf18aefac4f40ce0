"""The scheduler that looks at a metric: it lowers the rates when nothing gets better any more."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ...errors import ArgumentError
from ..optimizer import Optimizer
from .base import LRScheduler, between, for_each_group, one_of, whole


class ReduceLROnPlateau(LRScheduler):
    """Multiply the rates by `factor` when a metric has not become better for more than `patience` steps.

    mode: "min" if smaller is better, "max" if larger. A value is better if it beats the best one by `threshold`: by
    that part of it ("rel") or by that much ("abs"). After a reduction `cooldown` steps are not counted. Rates do
    not fall below `min_lr` (a number, or a list of one for each group), nor change by less than `eps`. NaN is never
    better. Raises ArgumentError unless factor is below 1, and for other numbers out of range.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.SGD([cr.tensor([1.0], requires_grad=True)], lr=0.5)
    >>> scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    >>> for loss in (3.0, 2.0, 2.5, 2.5):
    ...     scheduler.step(loss)
    >>> scheduler.get_last_lr()
    [0.25]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | list[float] = 0.0,
        eps: float = 1e-8,
        *,
        interval: str = "epoch",
    ) -> None:
        self._attach(optimizer, interval)
        self.mode = one_of("mode", mode, ("min", "max"))
        self.factor = between("factor", factor, 0.0)
        if self.factor >= 1:
            raise ArgumentError(f"factor must be from 0 to below 1; got {self.factor:g}")
        self.patience = whole("patience", patience, 0)
        self.threshold = between("threshold", threshold, 0.0)
        self.threshold_mode = one_of("threshold_mode", threshold_mode, ("rel", "abs"))
        self.cooldown = whole("cooldown", cooldown, 0)
        self.min_lrs = [between("min_lr", one, 0.0) for one in for_each_group("min_lr", min_lr, optimizer)]
        self.eps = between("eps", eps, 0.0)
        self.best = math.inf if self.mode == "min" else -math.inf
        self.cooldown_counter = 0
        self.num_bad_epochs = 0
        self.last_epoch = 0
        self._last_lr = self._present()

    def step(self, metrics: Any = None) -> None:
        """Look at one more value of the metric (a number, or a tensor of one), and lower the rates if need be."""
        self._check_call()
        current = _one_number(metrics)
        self.last_epoch += 1
        if self._is_better(current):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self._present()

    def _is_better(self, value: float) -> bool:
        sign = 1.0 if self.mode == "max" else -1.0
        step = self.threshold if self.threshold_mode == "abs" else 0.0
        part = self.threshold if self.threshold_mode == "rel" else 0.0
        return sign * value > sign * (self.best * (1.0 + sign * part) + sign * step)

    def _reduce(self) -> None:
        if len(self._groups) != len(self.min_lrs):
            raise ArgumentError(
                f"ReduceLROnPlateau knows {len(self.min_lrs)} parameter groups; got {len(self._groups)}. Make the "
                "scheduler after add_param_group"
            )
        for group, lowest in zip(self._groups, self.min_lrs):
            new = max(group["lr"] * self.factor, lowest)
            if group["lr"] - new > self.eps:
                group["lr"] = new


def _one_number(metrics: Any) -> float:
    if metrics is None:
        raise ArgumentError(
            "ReduceLROnPlateau.step needs the metric; got nothing. Write scheduler.step(loss)"
        )
    single = not isinstance(metrics, str | Iterable) or getattr(metrics, "size", 0) == 1
    try:
        return float(metrics.item() if hasattr(metrics, "item") else metrics) if single else _refuse(metrics)
    except (TypeError, ValueError):
        return _refuse(metrics)


def _refuse(metrics: Any) -> float:
    raise ArgumentError(f"ReduceLROnPlateau.step needs one number; got {metrics!r}")
