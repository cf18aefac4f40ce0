"""Schedulers that follow a plain formula: steps, exponentials, lines, polynomials, a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from ...errors import ArgumentError
from ..groups import number
from ..optimizer import Optimizer
from .base import LRScheduler, between, for_each_group, whole


class StepLR(LRScheduler):
    """Multiply the rate by `gamma` every `step_size` steps.

    Raises ArgumentError unless step_size is a whole number from 1 and gamma is from 0.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.SGD([w], lr=0.5)
    >>> scheduler, rates = optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5), []
    >>> for epoch in range(5):
    ...     (w * w).sum().backward(); optimizer.step(); rates += scheduler.get_last_lr(); scheduler.step()
    >>> rates
    [0.5, 0.5, 0.25, 0.25, 0.125]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        step_size: int,
        gamma: float = 0.1,
        last_epoch: int = -1,
        *,
        interval: str = "epoch",
    ) -> None:
        self.step_size = whole("step_size", step_size)
        self.gamma = between("gamma", gamma, 0.0)
        super().__init__(optimizer, last_epoch, interval=interval)

    def next_rate(self, group: int, rate: float) -> float:
        """`rate` · gamma at every step_size-th step."""
        return rate * self.gamma if self.last_epoch and self.last_epoch % self.step_size == 0 else rate


class MultiStepLR(LRScheduler):
    """Multiply the rate by `gamma` at each of the `milestones`.

    Raises ArgumentError unless the milestones are whole numbers from 0 and gamma is from 0.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.SGD([w], lr=0.5)
    >>> scheduler, rates = optim.lr_scheduler.MultiStepLR(optimizer, [1, 3], gamma=0.5), []
    >>> for epoch in range(5):
    ...     (w * w).sum().backward(); optimizer.step(); rates += scheduler.get_last_lr(); scheduler.step()
    >>> rates
    [0.5, 0.25, 0.25, 0.125, 0.125]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
        *,
        interval: str = "epoch",
    ) -> None:
        self.milestones = sorted(whole("a milestone", one, 0) for one in milestones)
        self.gamma = between("gamma", gamma, 0.0)
        super().__init__(optimizer, last_epoch, interval=interval)

    def next_rate(self, group: int, rate: float) -> float:
        """`rate` · gamma for each milestone that is reached now."""
        return rate * self.gamma ** self.milestones.count(self.last_epoch)


class ExponentialLR(LRScheduler):
    """Multiply the rate by `gamma` at every step. Raises ArgumentError for a gamma below 0.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.SGD([w], lr=0.5)
    >>> scheduler, rates = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5), []
    >>> for epoch in range(3):
    ...     (w * w).sum().backward(); optimizer.step(); rates += scheduler.get_last_lr(); scheduler.step()
    >>> rates
    [0.5, 0.25, 0.125]
    """

    def __init__(
        self, optimizer: Optimizer, gamma: float, last_epoch: int = -1, *, interval: str = "epoch"
    ) -> None:
        self.gamma = between("gamma", gamma, 0.0)
        super().__init__(optimizer, last_epoch, interval=interval)

    def next_rate(self, group: int, rate: float) -> float:
        """`rate` · gamma."""
        return rate * self.gamma if self.last_epoch else rate


class ConstantLR(LRScheduler):
    """Multiply the rate by `factor` for the first `total_iters` steps.

    Raises ArgumentError unless factor is from 0 to 1 and total_iters a whole number from 1.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.SGD([w], lr=0.5)
    >>> scheduler, rates = optim.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=2), []
    >>> for epoch in range(4):
    ...     (w * w).sum().backward(); optimizer.step(); rates += scheduler.get_last_lr(); scheduler.step()
    >>> rates
    [0.25, 0.25, 0.5, 0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
        *,
        interval: str = "epoch",
    ) -> None:
        self.factor = between("factor", factor, 0.0, 1.0)
        self.total_iters = whole("total_iters", total_iters)
        super().__init__(optimizer, last_epoch, interval=interval)

    def next_rate(self, group: int, rate: float) -> float:
        """`rate` · factor at first, undone at the end."""
        if self.last_epoch == 0:
            return rate * self.factor
        if self.last_epoch != self.total_iters:
            return rate
        return rate / self.factor if self.factor else self.base_lrs[group]


class LinearLR(LRScheduler):
    """Multiply the rate by a factor that goes from `start_factor` to `end_factor` on a line, in `total_iters` steps.

    This is the warm-up. To go on with another schedule afterwards put both into `SequentialLR`; to count batches in
    `cr.fit` pass interval="step". Raises ArgumentError unless start_factor is above 0 and both are at most 1.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.SGD([w], lr=0.5)
    >>> scheduler, rates = optim.lr_scheduler.LinearLR(optimizer, start_factor=0.25, total_iters=3), []
    >>> for epoch in range(5):
    ...     (w * w).sum().backward(); optimizer.step(); rates += scheduler.get_last_lr(); scheduler.step()
    >>> rates
    [0.125, 0.25, 0.375, 0.5, 0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
        *,
        interval: str = "epoch",
    ) -> None:
        self.start_factor = between("start_factor", start_factor, 0.0, 1.0, above=True)
        self.end_factor = between("end_factor", end_factor, 0.0, 1.0)
        self.total_iters = whole("total_iters", total_iters)
        super().__init__(optimizer, last_epoch, interval=interval)

    def next_rate(self, group: int, rate: float) -> float:
        """`rate` · the factor now ÷ the factor before."""
        if self.last_epoch == 0:
            return rate * self.start_factor
        if self.last_epoch > self.total_iters:
            return rate
        rise = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * rise
        return rate * (1.0 + rise / before)


class PolynomialLR(LRScheduler):
    """Lower the rate to 0 in `total_iters` steps: base · (1 − step / total_iters)ᵖᵒʷᵉʳ.

    Raises ArgumentError unless total_iters is a whole number from 1 and power is from 0.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.SGD([w], lr=0.5)
    >>> scheduler, rates = optim.lr_scheduler.PolynomialLR(optimizer, total_iters=2), []
    >>> for epoch in range(3):
    ...     (w * w).sum().backward(); optimizer.step(); rates += scheduler.get_last_lr(); scheduler.step()
    >>> rates
    [0.5, 0.25, 0.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
        *,
        interval: str = "epoch",
    ) -> None:
        self.total_iters = whole("total_iters", total_iters)
        self.power = between("power", power, 0.0)
        super().__init__(optimizer, last_epoch, interval=interval)

    def next_rate(self, group: int, rate: float) -> float:
        """`rate` · what is left now ÷ what was left before, to the power."""
        if self.last_epoch == 0 or self.last_epoch > self.total_iters:
            return rate
        left, before = (1.0 - one / self.total_iters for one in (self.last_epoch, self.last_epoch - 1))
        return rate * float((left / before) ** self.power)


class LambdaLR(LRScheduler):
    """The base rate times `lr_lambda(step)`: a function of the number of steps, or a list of one for each group.

    Functions are not saved: build the scheduler with the same ones before `load_state_dict`.
    Raises ArgumentError for anything else than functions, and where one gives a negative or no number.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.SGD([w], lr=0.5)
    >>> scheduler, rates = optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch)), []
    >>> for epoch in range(3):
    ...     (w * w).sum().backward(); optimizer.step(); rates += scheduler.get_last_lr(); scheduler.step()
    >>> [round(rate, 4) for rate in rates]
    [0.5, 0.25, 0.1667]
    """

    unsaved: ClassVar[tuple[str, ...]] = (*LRScheduler.unsaved, "lr_lambdas")

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | list[Callable[[int], float]],
        last_epoch: int = -1,
        *,
        interval: str = "epoch",
    ) -> None:
        self._attach(optimizer, interval)
        self.lr_lambdas = for_each_group("lr_lambda", lr_lambda, optimizer)
        for one in self.lr_lambdas:
            if not callable(one):
                raise ArgumentError(f"lr_lambda must be a function of the step; got {type(one).__name__}")
        super().__init__(optimizer, last_epoch, interval=interval)

    def next_rate(self, group: int, rate: float) -> float:
        """The base rate times the function's value."""
        factor = number("what lr_lambda gives", self.lr_lambdas[group](self.last_epoch))
        return self.base_lrs[group] * factor
