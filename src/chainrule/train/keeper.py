"""Keeps a training on the disk while it goes on: when to write a checkpoint, and what to do when the disk refuses.

The rule for a disk that refuses: at the start it is an error, because nothing is lost yet. In the middle training goes
on with the last good checkpoint, one warning says so, and writing is tried again after each interval. At the end it
is an error that carries the Run.
Knows run directories and checkpoints; knows nothing of epochs and losses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ChainruleError, RunError, warn
from .behaviour import behaviour_differences
from .checkpoint import Checkpoint, Checkpoints
from .config import changed_options, describe_optimizer, differences
from .results import Run
from .run import RUNNING, RunFolder, advice_for
from .snapshot import Parts, gather, restore

Record = dict[str, float]


class NoKeeper:
    """Keeps nothing: a training without a folder."""

    def save_if_due(self) -> None:
        """Nothing."""

    def updates_left(self) -> int | None:
        """Any number."""
        return None

    def note_epoch(self, record: Record) -> None:
        """Nothing."""


class FolderKeeper:
    """Keeps a training in its run directory.

    identity: what a training must have in common with the one whose checkpoint it goes on from. epochs: those asked
    for. seconds, steps: a checkpoint is due when so much time or so many updates have passed since the last one;
    None: never. behaviour: describes what the model and the user's functions do, by `describe_behaviour`. changed:
    whether a training is continued that is another one now, deliberately.
    """

    def __init__(
        self,
        folder: RunFolder,
        run: Run,
        parts: Parts,
        *,
        identity: Mapping[str, Any],
        epochs: int,
        seconds: float | None,
        steps: int | None,
        keep: int,
        behaviour: Callable[[], dict[str, str]] = dict,
        changed: bool = False,
    ) -> None:
        self._folder = folder
        self._run = run
        self._parts = parts
        self._facts: dict[str, Any] = {
            "identity": identity,
            "behaviour": behaviour(),
            "epochs": epochs,
            "optimizers": [describe_optimizer(one) for one in parts.optimizers],
        }
        self._behaviour = behaviour
        self._changed = changed
        # What training itself has changed of it, such as a counter in a module.
        self._moved: set[str] = set()
        self._seconds = seconds
        self._steps = steps
        self._checkpoints = Checkpoints(folder.folder, keep)
        self._last_time = time.monotonic()
        self._last_step = 0
        self._warned = False
        self._begun = False

    # ------------------------------------------------------------------------------- beginning

    def begin(self, entries: Mapping[str, Any]) -> None:
        """Write the record of a new run and its first checkpoint. Raises RunError if the disk refuses."""
        self._folder.start(**entries)
        self._begun = True
        try:
            self._write()
        except OSError as error:
            raise self._folder.refused(error) from error

    def find(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; a warning for each damaged one that is newer. None if there is none.

        Raises RunError if all are damaged, or if it is of another training than this one.
        """
        found, faults = self._checkpoints.newest()
        if found is None:
            if self._folder.record.get("state") == "finished":
                raise RunError(
                    f"resume=True goes on from checkpoints; got the finished run {self._folder.place!r} without any. "
                    "Read it with cr.load_run, or name another folder"
                )
            return None
        self._compare(found)
        for fault in faults:
            warn(
                f"a damaged checkpoint was passed over: {fault}. Training goes on from checkpoint {found.name}",
            )
        return found

    def _compare(self, found: Checkpoint) -> None:
        """Raise RunError for another training than that of the checkpoint; a warning if it was changed on purpose."""
        identity, now = found.facts["identity"], self._facts["identity"]
        wrong, changes = (
            differences(identity, now, deliberate=False),
            differences(identity, now, deliberate=True),
        )
        if (then := found.facts.get("behaviour")) is not None:
            changes += behaviour_differences(then, self._facts["behaviour"], found.facts["moved"])
            if not changes:
                self._facts["behaviour"] = then
                self._moved |= set(found.facts["moved"])
        place = self._folder.place
        if wrong or (changes and not self._changed):
            advice = "" if wrong else "; resume='changed' goes on with what is given here"
            raise RunError(
                f"resume=True goes on with the same training; got another than that in {place!r}: "
                f"{'; '.join([*wrong, *changes])}. Call fit as before, or name another folder{advice}"
            )
        if changes:
            warn(f"the training in {place!r} goes on as another one: {'; '.join(changes)}")

    def resume(self, found: Checkpoint, entries: Mapping[str, Any]) -> None:
        """Put the training back to a checkpoint, and the folder too; the record keeps all but the configuration."""
        run, parts = self._run, self._parts
        self._begun = True
        given = self._facts["optimizers"]
        try:
            restore(parts, found.state)
        except (ChainruleError, KeyError, ValueError) as error:
            told = error.message if isinstance(error, ChainruleError) else str(error)
            raise RunError(
                f"checkpoint {found.name} does not fit this training: {told}. Call fit as before, or name another "
                "folder"
            ) from error
        now = [describe_optimizer(one) for one in parts.optimizers]
        if changed := changed_options(found.facts["optimizers"], given, now):
            warn(
                f"a resumed training keeps the hyper-parameters of its checkpoint; got others: {'; '.join(changed)}. "
                "To change them write into optimizer.param_groups in a callback, or start a new run",
            )
        self._facts["optimizers"] = found.facts["optimizers"]
        run.best_epoch = parts.watch.best_epoch
        run.resumed_at = (parts.place.epoch, parts.place.batch)
        if found.state["stopped"] == "stopped" and self._facts["epochs"] <= found.facts["epochs"]:
            run.state = "stopped"
        self._last_time, self._last_step = time.monotonic(), parts.place.step
        self._checkpoints.clean(found.name)
        if not self._folder.record:
            self._folder.start(**entries)
        try:
            self._folder.write_metrics(run.history)
            self._folder.update(state=RUNNING, config=entries["config"])
        except OSError as error:
            raise self._folder.refused(error) from error

    # ------------------------------------------------------------------------------- in the middle

    def save_if_due(self) -> None:
        """Write a checkpoint, if the last one is long enough ago."""
        by_time = self._seconds is not None and time.monotonic() - self._last_time >= self._seconds
        by_steps = self._steps is not None and self._parts.place.step - self._last_step >= self._steps
        if by_time or by_steps:
            self.save()

    def updates_left(self) -> int | None:
        """How many updates may be made until a checkpoint is due by their number; None: any."""
        return None if self._steps is None else max(1, self._last_step + self._steps - self._parts.place.step)

    def save(self) -> None:
        """Write a checkpoint; one warning if the disk refuses."""
        try:
            self._write()
        except OSError as error:
            self._warn(error, "a checkpoint")
        self._last_time, self._last_step = time.monotonic(), self._parts.place.step

    def note_epoch(self, record: Record) -> None:
        """Add the epoch to the metrics; one warning if the disk refuses."""
        try:
            self._folder.note_epoch(record)
        except OSError as error:
            self._warn(error, "the list of metrics")

    def _write(self) -> None:
        self._settle()
        place = self._parts.place
        facts = {"epoch": place.epoch, "batch": place.batch, "step": place.step, **self._facts}
        begun, now = self._facts["behaviour"], self._behaviour()
        self._moved |= {name for name in {**begun, **now} if begun.get(name) != now.get(name)}
        facts["moved"] = sorted(self._moved)
        self._checkpoints.write(gather(self._parts, self._run.state), facts)

    def _warn(self, error: OSError, what: str) -> None:
        if self._warned:
            return
        self._warned = True
        try:
            names = self._checkpoints.names()
        except OSError:  # it is what is wrong
            names = []
        kept = f"the last good checkpoint, {names[0]}, is kept" if names else "there is no checkpoint"
        warn(
            f"{what} needs a folder that can be written to; got {self._folder.place!r}: {error.strerror}. Training "
            f"goes on, {kept}, and writing is tried again later. {advice_for(error)}",
        )

    def _settle(self) -> None:
        """Go after a folder that was renamed."""
        self._folder.settle()
        self._run.folder = self._folder.place

    # ------------------------------------------------------------------------------- the end

    def finish(self, entries: Mapping[str, Any]) -> None:
        """Write the weights and the record of a training that is over. RunError, with the Run, if the disk refuses."""
        run = self._run
        try:
            self._folder.finish(run.state, run.model.state_dict(), run.history, **entries)
            self._run.folder = self._folder.place
        except OSError as error:
            failure = self._folder.refused(
                error, ". The trained model is in `error.run`, and the last good checkpoint is kept"
            )
            failure.run = run
            raise failure from error

    def fail(self) -> None:
        """Note that an error ended the training, if it had begun, and as far as the disk allows it."""
        if self._begun:
            self._folder.note_state("failed")
