"""Several schedulers as one: one after the other, or all at the same time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ...errors import ArgumentError
from ..groups import INITIAL_LR
from ..optimizer import Optimizer
from .base import LRScheduler, whole
from .plateau import ReduceLROnPlateau


class _Combined(LRScheduler):
    """What both share: the schedulers inside, and their state."""

    unsaved: ClassVar[tuple[str, ...]] = (*LRScheduler.unsaved, "_schedulers")

    def _hold(
        self, optimizer: Optimizer | None, schedulers: Sequence[LRScheduler], interval: str | None
    ) -> None:
        name = type(self).__name__
        self._schedulers = list(schedulers)
        for one in self._schedulers:
            if not isinstance(one, LRScheduler) or isinstance(one, ReduceLROnPlateau):
                raise ArgumentError(
                    f"{name} takes schedulers whose step() needs no metric; got {type(one).__name__}"
                )
        if not self._schedulers:
            raise ArgumentError(f"{name} needs at least one scheduler; got none")
        # All are called at the same time; if one counts batches, all do.
        batches = any(one.interval == "step" for one in self._schedulers)
        common = "step" if batches else "epoch"
        self._attach(
            self._schedulers[0].optimizer if optimizer is None else optimizer,
            common if interval is None else interval,
        )
        if any(one.optimizer is not self.optimizer for one in self._schedulers):
            raise ArgumentError(f"the schedulers of {name} must have its optimizer; got another one's")

    def _restart(self) -> None:
        for group in self._groups:
            group["lr"] = group[INITIAL_LR]
        self._begin()

    def state_dict(self) -> dict[str, Any]:
        """All numbers of this scheduler and of those inside."""
        return {**super().state_dict(), "_schedulers": [one.state_dict() for one in self._schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave. Raises ArgumentError for another scheduler's, and changes nothing."""
        own = self._checked_state(state_dict)
        saved = state_dict.get("_schedulers", ())
        if len(saved) != len(self._schedulers):
            raise ArgumentError(
                f"load_state_dict needs the state of {len(self._schedulers)} schedulers; got {len(saved)}"
            )
        for one, part in zip(self._schedulers, saved):
            one._checked_state(part)
        for one, part in zip(self._schedulers, saved):
            one.load_state_dict(part)
        vars(self).update(own)


class SequentialLR(_Combined):
    """One scheduler after the other: number k + 1 takes over at milestones[k], and counts from 0.

    The usual warm-up: `LinearLR`, then any other. `interval` is "step" if it is for one of them. Raises ArgumentError
    unless there is one milestone less than there are schedulers, in rising order.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> from chainrule.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.SGD([w], lr=0.5)
    >>> warm_up = LinearLR(optimizer, start_factor=0.25, total_iters=3)
    >>> descent = CosineAnnealingLR(optimizer, T_max=2)
    >>> scheduler, rates = SequentialLR(optimizer, [warm_up, descent], milestones=[3]), []
    >>> for epoch in range(6):
    ...     (w * w).sum().backward(); optimizer.step(); rates += scheduler.get_last_lr(); scheduler.step()
    >>> [round(rate, 4) for rate in rates]
    [0.125, 0.25, 0.375, 0.5, 0.25, 0.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
        *,
        interval: str | None = None,
    ) -> None:
        self._hold(optimizer, schedulers, interval)
        self._milestones = [whole("a milestone", one, 0) for one in milestones]
        if len(self._milestones) != len(self._schedulers) - 1:
            raise ArgumentError(
                f"{len(self._schedulers)} schedulers need {len(self._schedulers) - 1} milestones; got "
                f"{len(self._milestones)}"
            )
        if sorted(set(self._milestones)) != self._milestones:
            raise ArgumentError(f"milestones must rise; got {self._milestones}")
        self.last_epoch = whole("last_epoch", last_epoch, -1) + 1
        for group in self._groups:
            group["lr"] = group[INITIAL_LR]
        self._current()._begin()
        self._last_lr = self._present()

    def _current(self) -> LRScheduler:
        return self._schedulers[bisect_right(self._milestones, self.last_epoch)]

    def _begin(self) -> None:
        self.last_epoch = 0
        self._current()._restart()
        self._last_lr = self._present()

    def _advance(self) -> None:
        self.last_epoch += 1
        if self.last_epoch in self._milestones:
            self._current()._restart()
        else:
            self._current()._advance()
        self._last_lr = self._present()


class ChainedScheduler(_Combined):
    """Several schedulers at the same time: each step is a step of all of them, and their factors multiply.

    `interval` is "step" if it is for one of them. Raises ArgumentError unless all have the same optimizer.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> from chainrule.optim.lr_scheduler import ChainedScheduler, ConstantLR, ExponentialLR
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.SGD([w], lr=1.0)
    >>> first, second = ConstantLR(optimizer, factor=0.5, total_iters=2), ExponentialLR(optimizer, gamma=0.5)
    >>> scheduler, rates = ChainedScheduler([first, second]), []
    >>> for epoch in range(4):
    ...     (w * w).sum().backward(); optimizer.step(); rates += scheduler.get_last_lr(); scheduler.step()
    >>> rates
    [0.5, 0.25, 0.25, 0.125]
    """

    def __init__(
        self,
        schedulers: Sequence[LRScheduler],
        optimizer: Optimizer | None = None,
        *,
        interval: str | None = None,
    ) -> None:
        self._hold(optimizer, schedulers, interval)
        self.last_epoch = max(one.last_epoch for one in self._schedulers)
        self._last_lr = self._present()

    def _begin(self) -> None:
        self.last_epoch = 0
        for one in self._schedulers:
            one._begin()
        self._last_lr = self._present()

    def _advance(self) -> None:
        self.last_epoch += 1
        for one in self._schedulers:
            one._advance()
        self._last_lr = self._present()
