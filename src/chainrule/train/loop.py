"""Epochs and batches: the course of a training, from its place onwards to its end.

Knows steps, sources and what observes them; knows nothing of files: it is given a `Keeper` that saves its state.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.sources import ArraySource, Batch, Source
from ..errors import ArgumentError, DataError, NonFiniteError, warn
from ..graph import Cell
from ..optim.lr_scheduler import ReduceLROnPlateau
from ..tensor import Tensor
from .engine import StepEngine, told
from .problem import Problem, model_dtype, output_arrays, tensor_of, tensors_of
from .progress import Progress
from .results import Run
from .signals import Signals
from .snapshot import Parts, cell_of, cells, settle
from .sources import Sources, evaluate_source
from .step import NotFiniteError, forget_gradients
from .stretch import Stretches, rows_of_outputs

Record = dict[str, float]

# More updates than are ever made at once.
_MANY = 1 << 30

# States of a run that has come to the end that it was given.
COMPLETE = ("finished", "early", "stopped")


class Keeper(Protocol):
    """Whoever saves the state of a training between two updates."""

    def save_if_due(self) -> None:
        """Save, if the last time is long enough ago."""

    def updates_left(self) -> int | None:
        """How many updates may be made before `save_if_due` has to be asked again; None: any."""

    def note_epoch(self, record: Record) -> None:
        """An epoch is over."""


@dataclass
class Plan:
    """What is done in every epoch."""

    engine: StepEngine
    problem: Problem
    sources: Sources
    epochs: int
    accumulate: int
    progress: Progress
    audit_every: int | None = None


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
        self._explained = False
        self._cells: list[Cell] = []
        self._buffers: list[Cell] = []
        self._dtype = model_dtype(run.model)
        self._stretches = self._find_stretches()

    def _find_stretches(self) -> Stretches | None:
        """How many updates can be made at once; None where something has to be done after each."""
        plan, source = self.plan, self.plan.sources.training
        stepwise = any(getattr(one, "interval", "epoch") != "epoch" for one in self.parts.schedulers)
        if (
            stepwise
            or plan.accumulate > 1
            or self.parts.callbacks.want_batches
            or not isinstance(source, ArraySource)
        ):
            return None
        return Stretches(plan.engine, plan.problem, source)

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
        for loss in self._updates():
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

    def _updates(self) -> Iterator[float | None]:
        """Make the updates that are left in this epoch, one or many at a time: the last loss, None if it diverged."""
        place, source = self.parts.place, self.plan.sources.training
        if not isinstance(source, ArraySource):
            yield from map(self._group, _groups(source, place.epoch, place.batch, self.plan.accumulate))
            return
        order, size = source.order(place.epoch), source.batch_size
        while place.batch < source.batches:
            stretches = self._stretches
            full = stretches is not None and place.batch < stretches.batches and self._before_audit() > 0
            if full and stretches is not None and stretches.ready():
                yield self._stretch(order[place.batch * size : stretches.batches * size])
                continue
            last = min(place.batch + self.plan.accumulate, source.batches)
            yield self._group(
                [source.take(order[k * size : (k + 1) * size]) for k in range(place.batch, last)]
            )

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
            seen = evaluate_source(
                run.model, self.plan.problem, self.plan.sources.validation, call=self._forward
            )
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
        if self.plan.engine.refused and not self._explained:
            self._explained = True
            self.plan.progress.stays_python(self.plan.engine.reason or "")
        parts.callbacks.tell("on_epoch_end", run, record)
        if run.stop_asked:
            run.state = "stopped"
        elif not self._asked():
            self.keeper.save_if_due()

    def _forward(self, _: Any, inputs: Any) -> Any:
        return self.parts.engines["forward"].call((inputs,))

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
        # A single step puts its buffers back itself; earlier steps of a group have written theirs.
        buffers = [(cell, np.array(cell.array)) for cell in self._buffers] if len(group) > 1 else []
        sizes = [self._size(batch) for batch in group]
        total = 0.0
        for k, batch in enumerate(group):
            try:
                loss, outputs = self._step(batch, self._share(sizes, k), k == len(group) - 1)
            except NotFiniteError as failure:
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

    def _stretch(self, order: NDArray[np.int64]) -> float | None:
        """The last loss of many updates that one call makes; None if one was not finite, which was not made."""
        place, stretches = self.parts.place, self._stretches
        assert stretches is not None
        made = stretches.run(order, min(self.keeper.updates_left() or _MANY, self._before_audit()))
        count = len(made.losses)
        for loss, size in zip(made.losses, made.sizes):
            place.loss += loss * size
            place.weight += size
        place.batch += count
        place.step += count
        if count:
            self._measure_stretch(made.outputs, order, count)
        if made.failure is not None:
            if not isinstance(made.failure, NonFiniteError):
                raise made.failure
            forget_gradients(self.parts.optimizers)
            self._diverged(told(made.failure), place.batch + 1)
            return None
        return made.losses[-1]

    def _before_audit(self) -> int:
        """How many updates there are before the one that is audited."""
        every = self.plan.audit_every
        return _MANY if every is None else every - 1 - self.parts.place.step % every

    def _measure_stretch(self, outputs: Any, order: NDArray[np.int64], count: int) -> None:
        source, stretches = self.plan.sources.training, self._stretches
        if (
            outputs is None
            or not self.parts.metrics
            or not isinstance(source, ArraySource)
            or source.targets is None
        ):
            return
        assert stretches is not None
        size = source.batch_size
        for metric in self.parts.metrics.values():
            each = count if metric.counts else 1
            for k in range(0, count, each):
                rows = order[k * size : (k + each) * size]
                metric.update(rows_of_outputs(outputs, k, k + each), stretches.targets(rows))

    def _size(self, batch: Batch) -> float:
        """How much a batch counts in a mean over several: its rows, or the sum of their weights."""
        return self.plan.problem.function.count(batch.targets, batch.rows, batch.weights)

    def _share(self, sizes: list[float], k: int) -> Tensor | None:
        """The share of the k-th batch in the loss of a group; None: all of it."""
        if len(sizes) == 1 or self.plan.problem.function.summed:
            return None
        return tensor_of(np.array(sizes[k] / sum(sizes) if sum(sizes) else 0.0, self._dtype))

    def _step(self, batch: Batch, share: Tensor | None, update: bool) -> tuple[float, Any]:
        targets = None if batch.targets is None else tensors_of(batch.targets)
        weights = None if batch.weights is None else tensor_of(np.asarray(batch.weights, np.float64))
        inputs = tensors_of(batch.inputs)
        if update and not self._before_audit():
            self.plan.engine.audit((inputs, targets, weights, share), update)
        return self.plan.engine.step(inputs, targets, weights, share, update)

    def _measure(self, outputs: Any, batch: Batch) -> None:
        """Metrics count every row once; weights act on the loss."""
        if outputs is None or not self.parts.metrics or batch.targets is None:
            return
        arrays = output_arrays(outputs)
        for metric in self.parts.metrics.values():
            metric.update(arrays, batch.targets)

    def _diverged(self, failure: NotFiniteError, batch: int) -> None:
        run = self.run
        groups = [group for one in self.parts.optimizers for group in one.param_groups]
        rates = ", ".join(f"{group['lr']:g}" for group in groups) or "its own"
        what, value = failure.what, failure.value
        where = (
            f"got {value} in epoch {self.parts.place.epoch}, batch {batch}, with a learning rate of {rates}"
        )
        fix = "Use a lower learning rate, and inputs scaled to about −1 … 1"
        if failure.why:
            fix = failure.why
        if not run.history:
            run.state = "diverged"
            raise ArgumentError(f"training needs a finite {what}; {where}. {fix}") from failure.__cause__
        run.state = "diverged"
        warn(f"training ended early: the {what} must be finite; {where}. {fix}")


def _groups(source: Source, epoch: int, skip: int, size: int) -> Iterator[list[Batch]]:
    """Batches of an epoch, `size` at a time; the last group may be smaller."""
    batches: Iterable[Batch] = source.epoch(epoch, skip)
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, size)):
        yield group
