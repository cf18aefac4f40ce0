"""How training is shown while it runs: a bar on a terminal, one display in a notebook, lines in a pipe, or nothing.

Every display is told of batches and of epochs, and draws at most ten times a second, so it costs nothing to tell it.
Knows records of epochs; knows nothing of models and of how training is done.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from ..errors import ArgumentError
from ..language import sentence
from .notebook import Display, in_notebook

# Lines that a run prints where there is no terminal, and the longest silence between two.
_PLAIN_LINES = 10
_SILENCE = 30.0

# Shortest time between two drawings, and from which length of an epoch on its batches are shown.
_PAUSE = 0.1
_SLOW_EPOCH = 1.0

# The bar in columns, on a wide terminal and on a narrow one.
_BAR_WIDTH, _NARROW_BAR, _NARROW = 20, 10, 90

_KNOWN = (
    "loss", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "log_loss",
    "mean_absolute_error", "mean_squared_error", "root_mean_squared_error", "mean_absolute_percentage_error", "r2",
    "learning_rate",
)  # fmt: skip
_VALIDATION = "validation_"


class Progress(Protocol):
    """Is told of every epoch, of batches, and of the end."""

    def resume(self, done: int) -> None:
        """`done` epochs are over already, of a training that goes on."""

    def epoch(self, record: dict[str, float]) -> None:
        """An epoch is over."""

    def batch(self, done: int, total: int | None, loss: float) -> None:
        """`done` batches of this epoch, of `total` (None: not known), are over; `loss` is that of the last one."""

    def stays_python(self, reason: str) -> None:
        """Steps that were to be compiled run as Python to the end, for this reason; told once."""

    def close(self) -> None:
        """Training is over."""


def make_progress(progress: Any, epochs: int, language: str = "en") -> Progress:
    """What shows a training of so many epochs.

    progress: True: a bar on a terminal, a display in a notebook, plain lines elsewhere; "plain": lines; False: nothing;
    or an object of one's own with `epoch(record)` and `close()`, and `batch(done, total, loss)` if it likes.
    """
    if progress is False:
        return Silent()
    if progress is True:
        if in_notebook():
            return NotebookBar(epochs, language)
        return Bar(epochs, language) if is_terminal() else Lines(epochs, language)
    if progress == "plain":
        return Lines(epochs, language)
    if not isinstance(progress, type) and hasattr(progress, "epoch") and hasattr(progress, "close"):
        return _Own(progress)
    raise ArgumentError(
        f"progress must be True, False or 'plain', or an object with epoch and close; got {progress!r}"
    )


def is_terminal() -> bool:
    """Whether output goes to a terminal that can move its cursor."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


# ------------------------------------------------------------------------------- words


def parts_of(record: dict[str, float], language: str = "en") -> list[str]:
    """`["loss 0.3412", "accuracy 0.910", "validation loss 0.3560"]`."""
    parts = []
    for name, value in record.items():
        if name in ("epoch", "seconds"):
            continue
        plain = name.removeprefix(_VALIDATION)
        label = sentence(f"progress.{plain}", language) if plain in _KNOWN else plain
        if name.startswith(_VALIDATION):
            label = sentence("progress.validation", language, name=label)
        parts.append(f"{label} {value:.3f}" if plain.endswith("accuracy") else f"{label} {value:.4g}")
    return parts


def describe(record: dict[str, float], language: str = "en") -> str:
    """`loss 0.3412  accuracy 0.910  validation loss 0.3560`."""
    return "  ".join(parts_of(record, language))


def fitting(record: dict[str, float], width: int, language: str, measure: Callable[[str], int] = len) -> str:
    """As much of `describe` as fits: rows held back come before training rows, the loss before metrics.

    >>> fitting({"loss": 1.0, "accuracy": 0.5, "validation_loss": 2.0}, 30, "en")
    'loss 1  validation loss 2'
    """
    parts = parts_of(record, language)
    names = [name for name in record if name not in ("epoch", "seconds")]
    order = sorted(
        range(len(parts)),
        key=lambda k: (
            names[k].removeprefix(_VALIDATION) != "loss", not names[k].startswith(_VALIDATION), k
        ),
    )  # fmt: skip
    kept: set[int] = set()
    for place in order:
        if measure("  ".join(parts[k] for k in (*kept, place))) > width:
            break
        kept.add(place)
    return "  ".join(parts[k] for k in sorted(kept))


def clock(seconds: float) -> str:
    """`0:07`, `12:30` or `3:05:00`.

    >>> clock(7), clock(750), clock(11100)
    ('0:07', '12:30', '3:05:00')
    """
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


# ------------------------------------------------------------------------------- where training is


class Course:
    """What every display wants to know: epochs and batches done, the last record, and how long the rest will take."""

    def __init__(self, epochs: int, language: str) -> None:
        self.epochs = epochs
        self.language = language
        self.done = self.before = 0
        self.first = True
        self.record: dict[str, float] = {}
        self.batches: tuple[int, int | None, float] | None = None
        self.over = False
        self.started = self.epoch_started = time.perf_counter()

    def end(self) -> None:
        """Training is over."""
        self.over, self.batches = True, None

    def resume(self, done: int) -> None:
        """So many epochs are over already."""
        self.done = self.before = done

    def end_epoch(self, record: dict[str, float]) -> None:
        """An epoch is over."""
        self.done = int(record["epoch"])
        self.first = False
        self.record = record
        self.batches = None
        self.epoch_started = time.perf_counter()

    def share(self) -> float:
        """Epochs done, with the part of the one at hand."""
        if self.batches is None or not self.batches[1]:
            return float(self.done)
        return self.done + min(1.0, self.batches[0] / self.batches[1])

    def rate(self) -> float:
        """Batches in a second, in this epoch."""
        passed = time.perf_counter() - self.epoch_started
        return self.batches[0] / passed if self.batches is not None and passed > 0 else 0.0

    def left(self) -> str:
        """`0:42 left`, from how long the epochs so far took; empty where nothing is known, or nothing is left."""
        seen, rest = self.share() - self.before, self.epochs - self.share()
        if self.over or seen <= 0 or rest <= 0:
            return ""
        passed = time.perf_counter() - self.started
        return sentence("progress.left", self.language, time=clock(passed / seen * rest))

    def slow(self) -> bool:
        """Whether the epoch at hand takes long enough to show its batches."""
        return self.batches is not None and time.perf_counter() - self.epoch_started > _SLOW_EPOCH

    def epoch_words(self) -> str:
        """`epoch  3/20`."""
        width = len(str(self.epochs))
        return sentence("progress.epoch", self.language, count=f"{self.done:>{width}}/{self.epochs}")

    def batch_words(self) -> str:
        """`batch 40/100  loss 0.51  812/s`."""
        assert self.batches is not None
        done, total, loss = self.batches
        counted = f"{done:>{len(str(total))}}/{total}" if total else str(done)
        rate = self.rate()
        return "  ".join((
            sentence("progress.batch", self.language, count=counted),
            f"{sentence('progress.loss', self.language)} {loss:.4g}",
            sentence("progress.rate", self.language, count=f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"),
        ))  # fmt: skip


# ------------------------------------------------------------------------------- displays


class Silent:
    """Shows nothing."""

    def resume(self, done: int) -> None:
        """Nothing."""

    def epoch(self, record: dict[str, float]) -> None:
        """Nothing."""

    def batch(self, done: int, total: int | None, loss: float) -> None:
        """Nothing."""

    def stays_python(self, reason: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def while_read(method: Callable[..., None]) -> Callable[..., None]:
    """A method of a display that does nothing any more once what it prints is refused.

    Training goes on where the reader of a pipe has left (`| head`), a terminal was closed or a disk is full.
    """

    @functools.wraps(method)
    def told(display: Any, *arguments: Any) -> None:
        if getattr(display, "unread", False):
            return
        try:
            method(display, *arguments)
        except OSError:
            display.unread = True
        except ValueError:
            if sys.stdout is not None and not sys.stdout.closed:
                raise
            display.unread = True

    return told


class _Own:
    """An object of the user's own, that is told of what it has methods for."""

    def __init__(self, inner: Any) -> None:
        self.epoch = inner.epoch
        self.close = inner.close
        self.batch = getattr(inner, "batch", Silent().batch)
        self.resume = getattr(inner, "resume", Silent().resume)
        self.stays_python = getattr(inner, "stays_python", Silent().stays_python)


class Lines:
    """About ten lines over the run, the last epoch, and a line whenever nothing was printed for half a minute."""

    def __init__(self, epochs: int, language: str) -> None:
        self._course = Course(epochs, language)
        self._every = max(1, -(-epochs // _PLAIN_LINES))
        self._pending = False
        self._printed = time.perf_counter()

    def resume(self, done: int) -> None:
        """Count from there."""
        self._course.resume(done)

    @while_read
    def epoch(self, record: dict[str, float]) -> None:
        """Print every tenth of the run."""
        first = self._course.first
        self._course.end_epoch(record)
        self._pending = True
        if first or self._course.done % self._every == 0 or self._silent():
            self._print()

    @while_read
    def batch(self, done: int, total: int | None, loss: float) -> None:
        """Print a line of a slow epoch."""
        if self._silent():
            self._course.batches = (done, total, loss)
            words = sentence(
                "progress.epoch",
                self._course.language,
                count=f"{self._course.done + 1}/{self._course.epochs}",
            )
            self._say(f"{words}  {self._course.batch_words()}")

    @while_read
    def stays_python(self, reason: str) -> None:
        """Print a line."""
        self._say(sentence("progress.stays_python", self._course.language, reason=reason))

    def _silent(self) -> bool:
        return time.perf_counter() - self._printed >= _SILENCE

    def _print(self) -> None:
        if self._pending:
            course = self._course
            self._say(f"{course.epoch_words()}  {describe(course.record, course.language)}")
            self._pending = False

    def _say(self, line: str) -> None:
        print(line, flush=True)
        self._printed = time.perf_counter()

    @while_read
    def close(self) -> None:
        """Print the last epoch, if it was not."""
        self._print()


class _Drawn:
    """A display that is drawn again and again, not more often than every tenth of a second."""

    def __init__(self, epochs: int, language: str) -> None:
        self._course = Course(epochs, language)
        self._drawn = 0.0

    def resume(self, done: int) -> None:
        """Begin there."""
        self._course.resume(done)

    @while_read
    def epoch(self, record: dict[str, float]) -> None:
        """Move the bar."""
        self._course.end_epoch(record)
        self._draw_if_due()

    @while_read
    def batch(self, done: int, total: int | None, loss: float) -> None:
        """Show how far a slow epoch is."""
        self._course.batches = (done, total, loss)
        self._draw_if_due()

    @while_read
    def stays_python(self, reason: str) -> None:
        """Show a line beside the bar."""
        self._show(sentence("progress.stays_python", self._course.language, reason=reason))

    def _show(self, line: str) -> None:
        """Show a line that stays."""

    def _draw_if_due(self) -> None:
        now = time.perf_counter()
        if now - self._drawn >= _PAUSE:
            self._draw()
            self._drawn = time.perf_counter()

    def _draw(self) -> None:
        """Draw now."""

    @while_read
    def close(self) -> None:
        """Leave the last state on the screen."""
        self._course.end()
        self._draw()


def _raise_broken_pipe() -> None:
    raise BrokenPipeError


class Bar(_Drawn):
    """One line on a terminal, and one more for the batches of a slow epoch."""

    @while_read
    def __init__(self, epochs: int, language: str) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(epochs, language)
        terminal = getattr(sys.stdout, "terminal", None)
        console = Console(
            file=None if terminal is None else terminal(), highlight=False, markup=False, emoji=False
        )
        # By itself it ends the program when the reader has gone.
        setattr(console, "on_broken_pipe", _raise_broken_pipe)  # noqa: B010
        self._live: Any = Live(console=console, auto_refresh=False)
        self._live.start()

    def _show(self, line: str) -> None:
        self._live.console.print(line, highlight=False, markup=False)

    def _draw(self) -> None:
        from rich.cells import cell_len
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        course = self._course
        head, tail = course.epoch_words(), course.left()
        screen = self._live.console.width
        width = _BAR_WIDTH if screen >= _NARROW else _NARROW_BAR
        room = screen - cell_len(head) - cell_len(tail) - width - 5
        numbers = fitting(course.record, room, course.language, cell_len)
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(course.epochs, course.share(), width=width)
        grid.add_row(Text(head), bar, Text(numbers, no_wrap=True), Text(tail, style="dim"))
        rows: list[Any] = [grid]
        if course.slow():
            assert course.batches is not None
            done, total, _ = course.batches
            inner = Table.grid(padding=(0, 1))
            inside = ProgressBar(total or 1, done if total else 0, width=width, pulse=not total)
            inner.add_row(
                Text(" " * cell_len(head)), inside, Text(course.batch_words(), style="dim", no_wrap=True)
            )
            rows.append(inner)
        self._live.update(Group(*rows), refresh=True)

    @while_read
    def close(self) -> None:
        """Leave the last state of the line on the screen."""
        super().close()
        self._live.stop()


class NotebookBar(_Drawn):
    """One display of a notebook, with a bar and the numbers of the last epoch."""

    def __init__(self, epochs: int, language: str) -> None:
        super().__init__(epochs, language)
        self._display = Display()
        self._notes: list[str] = []

    def _show(self, line: str) -> None:
        self._notes.append(line)

    def _draw(self) -> None:
        course = self._course
        lines = [f"{course.epoch_words().strip()}  {describe(course.record, course.language)}".rstrip()]
        if course.slow():
            lines.append(course.batch_words())
        lines += self._notes
        self._display.show(course.share(), course.epochs, lines, course.left())
