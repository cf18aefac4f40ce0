"""Epochs and batches: the course of a training, from its place onwards to its end.

Knows steps, sources and what observes them; knows nothing of files: it is given a `Keeper` that saves its state.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..data.loader import Batch, Source
from ..errors import ArgumentError, DataError, NonFiniteError, warn
from ..graph import Cell
from ..optim.lr_scheduler import ReduceLROnPlateau
from ..tensor import Tensor
from .problem import Problem, model_dtype, output_arrays, tensor_of, tensors_of
from .progress import Progress
from .results import Run
from .signals import Signals
from .snapshot import Parts, cell_of, cells, settle
from .sources import Sources, evaluate_source
from .step import NotFiniteError, Step, forget_gradients, number

Record = dict[str, float]

# States of a run that has come to the end that it was given.
COMPLETE = ("finished", "early", "stopped")


class Keeper(Protocol):
    """Whoever saves the state of a training between two updates."""

    def save_if_due(self) -> None:
        """Save, if the last time is long enough ago."""

    def note_epoch(self, record: Record) -> None:
        """An epoch is over."""


@dataclass
class Plan:
    """What is done in every epoch."""

    step: Step
    problem: Problem
    sources: Sources
    epochs: int
    accumulate: int
    progress: Progress


class Loop:
    """A training, from the place in `parts` onwards. After `train` the state of `run` says how it ended.

    torn: whether the end came in the middle of an update, so that the state is none between two updates.
    """

    def __init__(self, run: Run, plan: Plan, parts: Parts, signals: Signals, keeper: Keeper) -> None:
        self.run = run
        self.plan = plan
        self.parts = parts
        self.signals = signals
        self.keeper = keeper
        self.torn = False
        self._cells: list[Cell] = []
        self._buffers: list[Cell] = []
        self._dtype = model_dtype(run.model)

    def train(self) -> None:
        """Epoch after epoch, until the end or until somebody asks to end."""
        run, place, watch = self.run, self.parts.place, self.parts.watch
        try:
            while run.state == "running":
                if watch.over and place.batch == 0:
                    run.state = "early"
                elif place.epoch > self.plan.epochs:
                    run.state = "finished"
                else:
                    self._epoch()
        except KeyboardInterrupt:
            run.state, self.torn = "interrupted", True

    # ------------------------------------------------------------------------------- an epoch

    def _epoch(self) -> None:
        run, place = self.run, self.parts.place
        started = time.perf_counter() - place.seconds
        if place.batch == 0:
            run.model.train()
            for metric in self.parts.metrics.values():
                metric.reset()
            self.parts.callbacks.tell("on_epoch_begin", run, place.epoch)
        self._cells = cells(run.model)
        self._buffers = [cell_of(one) for one in run.model.buffers()]
        settle(self._cells)
        for group in _groups(self.plan.sources.training, place.epoch, place.batch, self.plan.accumulate):
            loss = self._group(group)
            if loss is None:
                return
            place.seconds = time.perf_counter() - started
            self.plan.progress.batch(place.batch, self.plan.sources.training.batches, loss)
            if run.stop_asked or self._asked():
                break
            self.keeper.save_if_due()
        if run.state != "running":
            return
        if not place.batch:
            raise DataError(
                f"an epoch needs a batch at least; got none in epoch {place.epoch}. Check where the batches come from"
            )
        self._end_epoch(started)

    def _asked(self) -> bool:
        if self.signals.asked:
            self.run.state = "interrupted"
        return bool(self.signals.asked)

    def _end_epoch(self, started: float) -> None:
        run, parts, place = self.run, self.parts, self.parts.place
        record: Record = {
            "epoch": float(place.epoch),
            "loss": place.loss / place.weight if place.weight else 0.0,
        }
        # A step of one's own that returns only the loss shows no outputs, so there is nothing to measure.
        record |= {name: metric.compute() for name, metric in parts.metrics.items() if not metric.empty}
        if self.plan.sources.validation is not None:
            seen = evaluate_source(run.model, self.plan.problem, self.plan.sources.validation)
            record |= {f"validation_{name}": value for name, value in seen.items()}
        if parts.schedulers:
            record["learning_rate"] = float(parts.schedulers[0].optimizer.param_groups[0]["lr"])
        record["seconds"] = time.perf_counter() - started
        run.history.append(record)
        parts.watch.note(record, run.model)
        run.best_epoch = parts.watch.best_epoch
        self._advance_schedulers("epoch", record)
        place.next_epoch()
        self.keeper.note_epoch(record)
        self.plan.progress.epoch(record)
        parts.callbacks.tell("on_epoch_end", run, record)
        if run.stop_asked:
            run.state = "stopped"
        elif not self._asked():
            self.keeper.save_if_due()

    def _advance_schedulers(self, interval: str, record: Record | None = None) -> None:
        for scheduler in self.parts.schedulers:
            if getattr(scheduler, "interval", "epoch") != interval:
                continue
            if isinstance(scheduler, ReduceLROnPlateau):
                assert record is not None
                scheduler.step(record[self.parts.watch.monitor])
            else:
                scheduler.step()

    # ------------------------------------------------------------------------------- an update

    def _group(self, group: list[Batch]) -> float | None:
        """The loss of one update from one or more batches; None if it is not finite, and then no update was made."""
        place, run = self.parts.place, self.run
        buffers = [(cell, cell.array) for cell in self._buffers]
        sizes = [self._size(batch) for batch in group]
        total = 0.0
        for k, batch in enumerate(group):
            try:
                loss, outputs = self._step(batch, self._share(sizes, k), k == len(group) - 1)
            except (NotFiniteError, NonFiniteError) as failure:
                forget_gradients(self.parts.optimizers)
                for cell, array in buffers:
                    cell.write(array)
                self._diverged(failure, place.batch + k + 1)
                return None
            total += loss * sizes[k]
            self._measure(outputs, batch)
        settle(self._cells)
        place.batch += len(group)
        place.step += 1
        place.loss += total
        place.weight += sum(sizes)
        self._advance_schedulers("step")
        mean = total / sum(sizes) if sum(sizes) else 0.0
        told = {"epoch": place.epoch, "batch": place.batch, "step": place.step, "loss": mean}
        self.parts.callbacks.tell("on_batch_end", run, told)
        return mean

    def _size(self, batch: Batch) -> float:
        """How much a batch counts in a mean over several: its rows, or the sum of their weights."""
        loss = self.plan.problem.function
        targets = tensors_of(batch.targets) if isinstance(batch.targets, np.ndarray) else None
        return loss.count(targets, batch.rows, batch.weights)

    def _share(self, sizes: list[float], k: int) -> Tensor | None:
        """The share of the k-th batch in the loss of a group; None: all of it."""
        if len(sizes) == 1 or self.plan.problem.function.summed:
            return None
        return tensor_of(np.array(sizes[k] / sum(sizes) if sum(sizes) else 0.0, self._dtype))

    def _step(self, batch: Batch, share: Tensor | None, update: bool) -> tuple[float, Any]:
        targets = None if batch.targets is None else tensors_of(batch.targets)
        loss, outputs = self.plan.step(tensors_of(batch.inputs), targets, batch.weights, share, update)
        value = number(loss)
        if not math.isfinite(value):
            raise NotFiniteError("loss", f"{value}")
        return value, outputs

    def _measure(self, outputs: Any, batch: Batch) -> None:
        """Metrics count every row once; weights act on the loss."""
        if outputs is None or not self.parts.metrics or batch.targets is None:
            return
        arrays = output_arrays(outputs)
        for metric in self.parts.metrics.values():
            metric.update(arrays, batch.targets)

    def _diverged(self, failure: NotFiniteError | NonFiniteError, batch: int) -> None:
        run = self.run
        groups = [group for one in self.parts.optimizers for group in one.param_groups]
        rates = ", ".join(f"{group['lr']:g}" for group in groups) or "its own"
        what, value = ("loss", failure.message) if isinstance(failure, NonFiniteError) else failure.args
        where = (
            f"got {value} in epoch {self.parts.place.epoch}, batch {batch}, with a learning rate of {rates}"
        )
        fix = "Use a lower learning rate, and inputs scaled to about −1 … 1"
        if not run.history:
            run.state = "diverged"
            raise ArgumentError(f"training needs a finite {what}; {where}. {fix}")
        run.state = "diverged"
        warn(f"training ended early: the {what} must be finite; {where}. {fix}")


def _groups(source: Source, epoch: int, skip: int, size: int) -> Iterator[list[Batch]]:
    """Batches of an epoch, `size` at a time; the last group may be smaller."""
    batches: Iterable[Batch] = source.epoch(epoch, skip)
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, size)):
        yield group
