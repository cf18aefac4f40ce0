"""What all schedulers share: base rates, the count of steps, writing rates into the groups, saving and loading.

A subclass states the rate of a group at `last_epoch`, given the present one. Rates follow from the ones before, as
in PyTorch, so schedulers that are called one after the other multiply.
Knows parameter groups; knows nothing of epochs, batches and losses: whoever calls `step` counts.
"""

from __future__ import annotations

import copy
import numbers
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ...elsewhere import checked_call, checked_constructor
from ...errors import ArgumentError, TraceError
from ...graph import state
from ..groups import INITIAL_LR, ParameterGroup, number
from ..optimizer import Optimizer

# Entries of PyTorch's own states that mean nothing here, beside those that start with "_".
_PYTORCH_ONLY = {"verbose", "default_min_lr", "mode_worse"}


class LRScheduler:
    """Base of all schedulers: each `step()` writes the next learning rates into `optimizer.param_groups`.

    Call `step()` after `optimizer.step()`: once an epoch or once a batch, whichever the numbers are meant for.
    `interval`, "epoch" or "step", says to `cr.fit` which. A new rate never recompiles a compiled step.
    last_epoch: −1 to start; otherwise the groups have an "initial_lr" and their present rates stay.

    For one of your own write `get_lr()`, the list of rates at `self.last_epoch` (0 at first), as in PyTorch:

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> class Halving(optim.lr_scheduler.LRScheduler):
    ...     def get_lr(self):
    ...         return [rate * 0.5**self.last_epoch for rate in self.base_lrs]
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.SGD([w], lr=0.5)
    >>> scheduler = Halving(optimizer)
    >>> for _ in range(2):
    ...     (w * w).sum().backward(); optimizer.step(); scheduler.step()
    >>> scheduler.get_last_lr()
    [0.125]
    """

    #: Attributes that are no part of the state: what is built anew, and functions.
    unsaved: ClassVar[tuple[str, ...]] = ("optimizer", "interval")

    optimizer: Optimizer
    interval: str
    last_epoch: int
    base_lrs: list[float]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        checked_constructor(cls)

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1, *, interval: str = "epoch") -> None:
        self._attach(optimizer, interval)
        if last_epoch == -1:
            for group in self._groups:
                group.setdefault(INITIAL_LR, group["lr"])
        elif any(INITIAL_LR not in group for group in self._groups):
            raise ArgumentError(
                f"last_epoch={last_epoch} needs groups with {INITIAL_LR!r}; got none. Use load_state_dict of the "
                "scheduler and of the optimizer to continue"
            )
        self.base_lrs = [group[INITIAL_LR] for group in self._groups]
        self.last_epoch = whole("last_epoch", last_epoch, -1) + 1
        self._last_lr = self._present()
        if last_epoch == -1:
            self._begin()

    def _attach(self, optimizer: Optimizer, interval: str) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(
                f"{type(self).__name__} needs an optimizer; got {type(optimizer).__name__}. Use one of chainrule.optim"
            )
        self.optimizer = optimizer
        self.interval = one_of("interval", interval, ("epoch", "step"))

    # ------------------------------------------------------------------------- what a subclass states

    def next_rate(self, group: int, rate: float) -> float:
        """The rate of group number `group` at `self.last_epoch`; `rate` is the present one."""
        raise ArgumentError(
            f"a scheduler needs a method get_lr; got {type(self).__name__} without. Write one"
        )

    def get_lr(self) -> list[float]:
        """The rates of all groups at `self.last_epoch`, from the present ones."""
        return [self.next_rate(k, rate) for k, rate in enumerate(self._present())]

    # ------------------------------------------------------------------------- what a user calls

    @checked_call
    def step(self) -> None:
        """Write the next learning rates into the optimizer's groups.

        Raises TraceError inside a compiled step: it would happen once, when the step is traced.
        """
        self._check_call()
        if self.last_epoch == 0 and not self.optimizer.state:
            warnings.warn(
                "scheduler.step() comes after optimizer.step(); got it first, so the first learning rate is never "
                "used. Swap the two lines",
                UserWarning,
                stacklevel=3,
            )
        self._advance()

    def get_last_lr(self) -> list[float]:
        """The rates that this scheduler has written last, one for each group."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """All numbers of this scheduler, its settings too. The rates themselves are saved by the optimizer."""
        return {name: copy.deepcopy(value) for name, value in vars(self).items() if name not in self.unsaved}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave; also from that of PyTorch's scheduler of the same name.

        The settings become those of the saved one. Raises ArgumentError for another scheduler's state, or one of
        another number of groups, and then changes nothing.
        """
        vars(self).update(self._checked_state(state_dict))

    def _checked_state(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        own = [name for name in vars(self) if name not in self.unsaved]
        missing = [name for name in own if name not in state_dict]
        foreign = [name for name in state_dict if name not in (*own, *self.unsaved) and not _ignored(name)]
        if missing or foreign:
            raise ArgumentError(
                f"load_state_dict of {type(self).__name__} needs {', '.join(own)}; got {', '.join(state_dict)}. Was it "
                "another scheduler?"
            )
        rates = state_dict["_last_lr"]
        if len(rates) != len(self._groups):
            raise ArgumentError(
                f"load_state_dict needs the rates of {len(self._groups)} parameter groups; got {len(rates)}. Build the "
                "optimizer for the same groups"
            )
        return {name: copy.deepcopy(state_dict[name]) for name in own}

    def __repr__(self) -> str:
        rates = ", ".join(f"{rate:g}" for rate in self._last_lr)
        return f"{type(self).__name__}({self.interval} {self.last_epoch}, lr={rates})"

    # ------------------------------------------------------------------------- parts

    @property
    def _groups(self) -> list[ParameterGroup]:
        return self.optimizer.param_groups

    def _present(self) -> list[float]:
        return [group["lr"] for group in self._groups]

    def _check_call(self) -> None:
        if state.trace is not None:
            raise TraceError(
                "a compiled step runs its Python once; got scheduler.step() inside. Call it after the step: a new "
                "learning rate does not recompile"
            )

    def _begin(self) -> None:
        """Write the rates of epoch 0, from the present ones."""
        self.last_epoch = 0
        self._update()

    def _restart(self) -> None:
        """Write the rates of epoch 0, from the base rates."""
        for group, rate in zip(self._groups, self.base_lrs):
            group["lr"] = rate
        self._begin()

    def _advance(self) -> None:
        self.last_epoch += 1
        self._update()

    def _update(self) -> None:
        """Write the rates of `last_epoch` into the groups."""
        if len(self.base_lrs) != len(self._groups):
            raise ArgumentError(
                f"{type(self).__name__} knows {len(self.base_lrs)} parameter groups; got {len(self._groups)}. Make "
                "the scheduler after add_param_group"
            )
        rates = [number("a learning rate", rate) for rate in self.get_lr()]
        if len(rates) != len(self._groups):
            raise ArgumentError(
                f"get_lr gives {len(self._groups)} rates, one for each group; got {len(rates)}"
            )
        for group, rate in zip(self._groups, rates):
            group["lr"] = rate
        self._last_lr = self._present()


def _ignored(name: str) -> bool:
    return name.startswith("_") or name in _PYTORCH_ONLY


# ------------------------------------------------------------------------------------ arguments


def whole(name: str, value: Any, low: int = 1) -> int:
    """A whole number from `low`. Raises ArgumentError for anything else."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < low:
        raise ArgumentError(f"{name} must be a whole number from {low}; got {value!r}")
    return int(value)


def between(name: str, value: Any, low: float, high: float = float("inf"), *, above: bool = False) -> float:
    """A number with low ≤ value ≤ high; with `above` low < value. Raises ArgumentError for anything else."""
    found = number(name, value)
    if not low <= found <= high or (above and found == low):
        start = f"above {low:g}" if above else f"from {low:g}"
        raise ArgumentError(
            f"{name} must be {start}{f' to {high:g}' if high < float('inf') else ''}; got {found:g}"
        )
    return found


def one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    """One of the known words. Raises ArgumentError for another."""
    if value not in known:
        raise ArgumentError(f"{name} must be {' or '.join(map(repr, known))}; got {value!r}")
    return str(value)


def for_each_group(name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """One value for each group: the same for all, or a list of as many."""
    count = len(optimizer.param_groups)
    if not isinstance(value, Iterable) or isinstance(value, str):
        return [value] * count
    found = list(value)
    if len(found) != count:
        raise ArgumentError(f"{name} must be one value or {count}, one for each group; got {len(found)}")
    return found
