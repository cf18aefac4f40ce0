"""How training is shown while it runs: a bar on a terminal, a few lines in a pipe, or nothing."""

from __future__ import annotations

import os
import sys
from typing import Any, Protocol

from ..errors import ArgumentError
from ..language import sentence

# Lines that a run prints where there is no terminal.
_PLAIN_LINES = 10

_KNOWN = ("loss", "accuracy", "mean_absolute_error")


class Progress(Protocol):
    """Is told of every epoch, and of the end."""

    def epoch(self, record: dict[str, float]) -> None:
        """An epoch is over."""

    def close(self) -> None:
        """Training is over."""


def make_progress(progress: bool | str | Progress, epochs: int, language: str = "en") -> Progress:
    """True: a bar on a terminal, else plain lines; "plain": lines; False: nothing; or an object of one's own."""
    if progress is False:
        return Silent()
    if progress is True:
        return Bar(epochs, language) if is_terminal() else Lines(epochs, language)
    if progress == "plain":
        return Lines(epochs, language)
    if hasattr(progress, "epoch") and hasattr(progress, "close"):
        return progress
    raise ArgumentError(f"progress must be True, False or 'plain'; got {progress!r}")


def is_terminal() -> bool:
    """Whether output goes to a terminal that can move its cursor."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def describe(record: dict[str, float], language: str = "en") -> str:
    """`loss 0.3412  accuracy 0.910  validation loss 0.3560`."""
    parts = []
    for name, value in record.items():
        if name in ("epoch", "seconds"):
            continue
        unseen = name.startswith("validation_")
        plain = name.removeprefix("validation_")
        label = sentence(f"progress.{plain}", language) if plain in _KNOWN else plain
        if unseen:
            label = sentence("progress.validation", language, name=label)
        parts.append(f"{label} {value:.3f}" if plain == "accuracy" else f"{label} {value:.4g}")
    return "  ".join(parts)


class Silent:
    """Shows nothing."""

    def epoch(self, record: dict[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """About ten lines over the run, and the last epoch."""

    def __init__(self, epochs: int, language: str) -> None:
        self._epochs = epochs
        self._language = language
        self._every = max(1, -(-epochs // _PLAIN_LINES))
        self._pending: dict[str, float] | None = None

    def epoch(self, record: dict[str, float]) -> None:
        """Print every tenth of the run."""
        self._pending = record
        if int(record["epoch"]) % self._every == 0 or record["epoch"] == 1:
            self._print()

    def _print(self) -> None:
        if self._pending is None:
            return
        width = len(str(self._epochs))
        counted = f"{int(self._pending['epoch']):>{width}}/{self._epochs}"
        head = sentence("progress.epoch", self._language, count=counted)
        print(f"{head}  {describe(self._pending, self._language)}", flush=True)
        self._pending = None

    def close(self) -> None:
        """Print the last epoch, if it was not."""
        self._print()


class Bar:
    """One line that is drawn again and again."""

    def __init__(self, epochs: int, language: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._language = language
        self._rich: Any = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            console=Console(highlight=False, markup=False),
        )
        self._task = self._rich.add_task(
            sentence("progress.epoch", language, count=""), total=epochs, numbers=""
        )
        self._rich.start()

    def epoch(self, record: dict[str, float]) -> None:
        """Move the bar."""
        self._rich.update(self._task, completed=record["epoch"], numbers=describe(record, self._language))

    def close(self) -> None:
        """Leave the last state of the line on the screen."""
        self._rich.stop()
