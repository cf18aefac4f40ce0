"""What users hang into a training: objects that are told of its course, and functions that get each epoch's record.

Knows nothing of how training is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError

if TYPE_CHECKING:
    from .results import Run

Record = dict[str, float]


class Callback:
    """Base of what is told of a training's course; override what is needed.

    Every method gets the Run: `run.model`, `run.history`, `run.optimizer`; `run.stop()` asks to end. With `state_dict`
    and `load_state_dict` of its own a callback is kept in checkpoints: it goes on where it was after a resumption.
    A checkpoint is read after `on_train_begin`, so what happens there is the same in a run that is resumed.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> class Counter(Callback):
    ...     batches = 0
    ...     def on_batch_end(self, run, batch):
    ...         self.batches += 1
    >>> counter = Counter()
    >>> model, x, y = nn.Linear(1, 2), [[0.0], [1.0], [2.0], [3.0]] * 4, [0, 0, 1, 1] * 4
    >>> _ = cr.fit(model, (x, y), epochs=2, batch_size=8, validation=None, callbacks=[counter], progress=False)
    >>> counter.batches
    4
    """

    def on_train_begin(self, run: Run) -> None:
        """Training begins, or goes on after an interruption; `run.history` is empty in both."""

    def on_epoch_begin(self, run: Run, epoch: int) -> None:
        """Epoch `epoch` (from 1) begins; the model is in training mode."""

    def on_batch_end(self, run: Run, batch: dict[str, float]) -> None:
        """The weights were updated. batch: epoch, batch (both from 1), step (updates so far) and loss."""

    def on_epoch_end(self, run: Run, record: Record) -> None:
        """An epoch is over; `record` is the new last entry of `run.history`."""

    def on_train_end(self, run: Run) -> None:
        """Training is over, however it ended; the best weights are back in the model if they were asked for."""

    def state_dict(self) -> Mapping[str, Any]:
        """What has to be kept to go on after an interruption."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


class _Observer(Callback):
    """A plain function that gets each epoch's record."""

    def __init__(self, function: Callable[[Record], object]) -> None:
        self._function = function

    def on_epoch_end(self, run: Run, record: Record) -> None:
        self._function(record)


class Callbacks:
    """All callbacks of a training, told one after the other."""

    def __init__(self, callbacks: Iterable[Any]) -> None:
        self._all = [_as_callback(one) for one in callbacks]

    def tell(self, event: str, *arguments: Any) -> None:
        """Call the method `event` of each."""
        for one in self._all:
            getattr(one, event)(*arguments)

    @property
    def want_batches(self) -> bool:
        """Whether anybody wants to be told of every update."""
        return any(getattr(type(one), "on_batch_end", None) is not Callback.on_batch_end for one in self._all)

    def state_dict(self) -> list[Any]:
        """Class and state of each that has a state, in order."""
        states = [(type(one).__qualname__, dict(one.state_dict())) for one in self._all]
        return [{"class": name, "state": state} for name, state in states if state]

    def load_state_dict(self, states: list[Any]) -> None:
        """Go on from what `state_dict` gave. Callbacks without a state may have come or gone."""
        left = list(self._all)
        for saved in states:
            own = next((one for one in left if type(one).__qualname__ == saved["class"]), None)
            if own is None:
                raise ArgumentError(
                    f"a resumed training needs the callbacks whose state was kept; got no {saved['class']}. Give it in "
                    "callbacks="
                )
            own.load_state_dict(saved["state"])
            left.remove(own)


def _as_callback(one: Any) -> Callback:
    if isinstance(one, Callback):
        return one
    if isinstance(one, type) and issubclass(one, Callback):
        raise ArgumentError(f"a callback is an object; got the class {one.__name__}. Write {one.__name__}()")
    if not callable(one):
        raise ArgumentError(
            f"a callback is a cr.Callback or a function of each epoch's record; got {type(one).__name__}"
        )
    return _Observer(one)
