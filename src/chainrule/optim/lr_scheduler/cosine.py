"""Schedulers along a cosine: down once, down again and again, up and down in one cycle."""

from __future__ import annotations

import math
from typing import Any

from ...errors import ArgumentError
from ..groups import INITIAL_LR
from ..optimizer import Optimizer
from .base import LRScheduler, between, for_each_group, one_of, whole


class CosineAnnealingLR(LRScheduler):
    """Lower the rate along half a cosine, from the base rate to `eta_min` in `T_max` steps (Loshchilov, Hutter, 2017).

    Beyond T_max it rises again, as in PyTorch. Raises ArgumentError unless T_max is a whole number from 1.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.SGD([w], lr=0.5)
    >>> scheduler, rates = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4), []
    >>> for epoch in range(5):
    ...     (w * w).sum().backward(); optimizer.step(); rates += scheduler.get_last_lr(); scheduler.step()
    >>> [round(rate, 4) for rate in rates]
    [0.5, 0.4268, 0.25, 0.0732, 0.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_max: int,
        eta_min: float = 0.0,
        last_epoch: int = -1,
        *,
        interval: str = "epoch",
    ) -> None:
        self.T_max = whole("T_max", T_max)
        self.eta_min = between("eta_min", eta_min, 0.0)
        super().__init__(optimizer, last_epoch, interval=interval)

    def next_rate(self, group: int, rate: float) -> float:
        """What lies above eta_min, times the height of the cosine now ÷ before."""
        step, period = self.last_epoch, self.T_max
        if step == 0:
            return rate
        if (step - 1) % (2 * period) == period:
            # The rate was the lowest, so there is nothing to multiply: it starts to rise.
            rise = (1.0 - math.cos(math.pi / period)) / 2
            return rate + (self.base_lrs[group] - self.eta_min) * rise
        now, before = (1.0 + math.cos(math.pi * one / period) for one in (step, step - 1))
        # Rounding may leave the last one a hair below.
        return max(now / before * (rate - self.eta_min) + self.eta_min, 0.0)


class CosineAnnealingWarmRestarts(LRScheduler):
    """Along half a cosine from the base rate to `eta_min`, and anew: in T_0 steps, then T_0·T_mult, T_0·T_mult² …

    (SGDR: Loshchilov and Hutter, 2017.) `step(epoch)` goes to any moment, such as epoch + batch / batches.
    Raises ArgumentError unless T_0 and T_mult are whole numbers from 1.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.SGD([w], lr=0.5)
    >>> scheduler, rates = optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2), []
    >>> for epoch in range(5):
    ...     (w * w).sum().backward(); optimizer.step(); rates += scheduler.get_last_lr(); scheduler.step()
    >>> [round(rate, 4) for rate in rates]
    [0.5, 0.25, 0.5, 0.25, 0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
        *,
        interval: str = "epoch",
    ) -> None:
        self.T_0 = self.T_i = whole("T_0", T_0)
        self.T_mult = whole("T_mult", T_mult)
        self.eta_min = between("eta_min", eta_min, 0.0)
        self.T_cur: float = 0
        super().__init__(optimizer, last_epoch, interval=interval)
        if last_epoch != -1:
            self._go_to(self.last_epoch)

    def next_rate(self, group: int, rate: float) -> float:
        """The height of the cosine at `T_cur` of `T_i` steps."""
        height = (1.0 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return self.eta_min + (self.base_lrs[group] - self.eta_min) * height

    def step(self, epoch: float | None = None) -> None:
        """The next step, or any moment `epoch` counted from the start, a fraction too."""
        if epoch is None:
            super().step()
            return
        self._check_call()
        self._go_to(between("epoch", epoch, 0.0))
        self._update()

    def _begin(self) -> None:
        self.T_cur, self.T_i = 0, self.T_0
        super()._begin()

    def _advance(self) -> None:
        self.T_cur += 1
        if self.T_cur >= self.T_i:
            self.T_cur -= self.T_i
            self.T_i *= self.T_mult
        super()._advance()

    def _go_to(self, epoch: float) -> None:
        self.last_epoch = math.floor(epoch)
        self.T_cur, self.T_i = epoch, self.T_0
        while self.T_cur >= self.T_i:
            self.T_cur -= self.T_i
            self.T_i *= self.T_mult


class OneCycleLR(LRScheduler):
    """One rise from max_lr / div_factor to `max_lr` and one long descent far below it (Smith and Topin, 2018).

    Call `step()` after every batch. total_steps: of the whole training, or `epochs` times `steps_per_epoch`.
    pct_start: the part of them that rises. anneal_strategy: "cos" or "linear". cycle_momentum: momentum (or the first
    of betas) goes the other way, from `max_momentum` to `base_momentum` and back. The last rate is the first one /
    final_div_factor. three_phase: down as it came up, and then further down. max_lr and both momentums may be lists,
    one entry for each group. After the last step the rates stay (PyTorch's leave the curve once more).
    Raises ArgumentError for numbers out of range, and for more than total_steps steps.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.SGD([w], lr=0.1, momentum=0.9)
    >>> scheduler, rates = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=6, pct_start=0.5), []
    >>> for batch in range(6):
    ...     (w * w).sum().backward(); optimizer.step(); rates += scheduler.get_last_lr(); scheduler.step()
    >>> [round(rate, 4) for rate in rates]
    [0.02, 0.26, 0.5, 0.375, 0.125, 0.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
        *,
        interval: str = "step",
    ) -> None:
        self._attach(optimizer, interval)
        self.total_steps = _total(total_steps, epochs, steps_per_epoch)
        self.pct_start = between("pct_start", pct_start, 0.0, 1.0)
        self.anneal_strategy = one_of("anneal_strategy", anneal_strategy, ("cos", "linear"))
        self.three_phase = bool(three_phase)
        self.cycle_momentum = bool(cycle_momentum)
        peaks = for_each_group("max_lr", max_lr, optimizer)
        self.max_lrs = [between("max_lr", one, 0.0, above=True) for one in peaks]
        starts = [one / between("div_factor", div_factor, 0.0, above=True) for one in self.max_lrs]
        self.min_lrs = [
            one / between("final_div_factor", final_div_factor, 0.0, above=True) for one in starts
        ]
        self._prepare_momentum(base_momentum, max_momentum)
        if last_epoch == -1:
            for group, rate in zip(self._groups, starts):
                group[INITIAL_LR] = rate
        super().__init__(optimizer, last_epoch, interval=interval)

    def _prepare_momentum(self, base: Any, top: Any) -> None:
        known = self.optimizer.defaults
        if self.cycle_momentum and "momentum" not in known and "betas" not in known:
            raise ArgumentError(
                f"cycle_momentum needs an optimizer with momentum or betas; got {type(self.optimizer).__name__}. Pass "
                "cycle_momentum=False"
            )
        both = [
            [between(name, one, 0.0, 1.0) for one in for_each_group(name, value, self.optimizer)]
            for name, value in (("base_momentum", base), ("max_momentum", top))
        ]
        self.base_momentums, self.max_momentums = both

    def next_rate(self, group: int, rate: float) -> float:
        """The rate on the curve: start → peak → (start →) lowest."""
        start, peak, lowest = self.base_lrs[group], self.max_lrs[group], self.min_lrs[group]
        corners = [start, peak, start, lowest] if self.three_phase else [start, peak, lowest]
        return self._on_curve(corners)

    def _update(self) -> None:
        super()._update()
        if not self.cycle_momentum:
            return
        for group, low, high in zip(self._groups, self.base_momentums, self.max_momentums):
            momentum = self._on_curve([high, low, high, high] if self.three_phase else [high, low, high])
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum

    def _advance(self) -> None:
        if self.last_epoch >= self.total_steps:
            raise ArgumentError(
                f"this OneCycleLR has {self.total_steps} steps; got one more. Count the batches of the whole training: "
                "total_steps = epochs · batches of an epoch"
            )
        super()._advance()

    def _on_curve(self, corners: list[float]) -> float:
        """The value at `last_epoch` on a curve through the corners, which lie at the ends of the phases."""
        first = self.pct_start * self.total_steps - 1.0
        ends = (
            [first, 2.0 * first, self.total_steps - 1.0]
            if self.three_phase
            else [first, self.total_steps - 1.0]
        )
        begin = 0.0
        for phase, end in enumerate(ends):
            if self.last_epoch <= end or phase == len(ends) - 1:
                break
            begin = end
        part = min((self.last_epoch - begin) / (end - begin), 1.0) if end != begin else 1.0
        low, high = corners[phase], corners[phase + 1]
        if self.anneal_strategy == "linear":
            return low + (high - low) * part
        return high + (low - high) / 2.0 * (1.0 + math.cos(math.pi * part))


def _total(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    if total_steps is not None:
        return whole("total_steps", total_steps)
    if epochs is None or steps_per_epoch is None:
        raise ArgumentError("OneCycleLR needs total_steps, or epochs and steps_per_epoch; got neither")
    return whole("epochs", epochs) * whole("steps_per_epoch", steps_per_epoch)
