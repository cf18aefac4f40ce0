"""Which epoch is the best one so far, whether to stop waiting for a better one, and the best weights.

Knows records of epochs and state dictionaries; knows nothing of batches and files.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from .. import nn
from ..errors import ArgumentError
from .metrics import Metric

Record = dict[str, float]

_VALIDATION = "validation_"


class Watch:
    """Follows one number of each epoch's record. keep_weights: whether the model's state of the best epoch is kept."""

    def __init__(
        self, monitor: str, higher_is_better: bool, patience: int | None, keep_weights: bool
    ) -> None:
        self.monitor = monitor
        self.higher_is_better = higher_is_better
        self.patience = patience
        self.keep_weights = keep_weights
        self.best: float | None = None
        self.best_epoch = 0
        self.waited = 0
        self.weights: dict[str, Any] | None = None

    def note(self, record: Record, model: nn.Module) -> None:
        """Look at the record of an epoch that has just ended. NaN is better than nothing and no number."""
        value = record[self.monitor]
        if self._better(value):
            self.best, self.best_epoch, self.waited = value, int(record["epoch"]), 0
            self.weights = model.state_dict() if self.keep_weights else None
        else:
            self.waited += 1

    def _better(self, value: float) -> bool:
        if self.best is None:
            return not math.isnan(value)
        return value > self.best if self.higher_is_better else value < self.best

    @property
    def over(self) -> bool:
        """Whether no epoch was better for too long."""
        return self.patience is not None and self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What has to be kept to go on."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "waited": self.waited,
            "weights": self.weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.waited = state["waited"]
        self.weights = state["weights"]


def find_monitor(
    monitor: str | None, metrics: Mapping[str, Metric], validated: bool, measured: bool = True
) -> tuple[str, bool]:
    """(the name in the records, whether a larger number is better) of what is monitored.

    By default the loss of the rows held back, or that of the training rows without any. measured: whether there is a
    loss of the rows held back. Raises ArgumentError for a
    name that no record will have, and for a metric of the user's own that does not say which way is better.
    """
    known = ["loss", *metrics]
    if validated:
        known += [f"{_VALIDATION}{name}" for name in (*(["loss"] if measured else []), *metrics)]
    if monitor is None:
        return "validation_loss" if "validation_loss" in known else "loss", False
    if monitor not in known:
        raise ArgumentError(
            f"monitor must be one of {', '.join(known)}; got {monitor!r}.{_hint(monitor, known)}"
        )
    name = monitor.removeprefix(_VALIDATION)
    if name == "loss":
        return monitor, False
    higher = metrics[name].higher_is_better
    if higher is None:
        raise ArgumentError(
            f"a metric that is monitored says which way is better; got the function {name} without. Set "
            f"{name}.higher_is_better = True, or False"
        )
    return monitor, higher


def _hint(monitor: str, known: Iterable[str]) -> str:
    written = str(monitor).replace("val_", _VALIDATION)
    close = difflib.get_close_matches(written, list(known), 1)
    return f" Did you mean {close[0]!r}?" if close else " Name one of them"
