"""The training loop: shuffled batches, a look at rows held back after every epoch, and a Run that tells what happened.

Knows models, losses and optimizers; knows nothing of tables and of run directories.
"""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import functional, nn
from ..errors import ArgumentError, DataError
from ..optim import Adam, Optimizer
from ..tensor import Tensor
from ..tensor.random import Generator
from ..transforms import no_grad
from .problem import Array, Problem, inputs_for, make_problem, measure, run_model, targets_for, tensor_of
from .progress import Progress, make_progress

Record = dict[str, float]


class Run:
    """What `fit` returns: the trained model, the history, and predictions.

    history: one dict for each epoch, with epoch, loss, the metrics, the same with `validation_` before them for the
        rows held back, and seconds. Loss and metrics of the training rows are averages over the epoch, while the
        weights change; those of the rows held back are taken at its end.
    best_epoch: the epoch (from 1) with the lowest validation loss, or loss without validation.
    restored: whether the model has the weights of that epoch, and not of the last one.
    stopped: "finished", "early" (no better for `patience` epochs), "interrupted" (Ctrl-C) or "diverged".
    """

    def __init__(self, model: nn.Module, problem: Problem, optimizer: Optimizer, flat: bool) -> None:
        self.model = model
        self.optimizer = optimizer
        self.history: list[Record] = []
        self.best_epoch = 0
        self.restored = False
        self.stopped = "finished"
        self._problem = problem
        self._flat = flat

    @property
    def score(self) -> Record:
        """Loss and metrics of the rows held back, of the epoch whose weights the model has.

        They chose the epoch if the best weights were restored, so they flatter a little: keep test rows of your own
        and use `evaluate` for a figure to report. Empty without validation.
        """
        if not self.history:
            return {}
        record = self.history[(self.best_epoch if self.restored else len(self.history)) - 1]
        mark = "validation_"
        return {name.removeprefix(mark): value for name, value in record.items() if name.startswith(mark)}

    def outputs(self, x: Any) -> Array:
        """The model's outputs for the rows of x, in evaluation mode."""
        return run_model(self.model, inputs_for(self.model, x))

    def predict(self, x: Any) -> Array:
        """Class indices (int64) for classes, 0 or 1 for binary targets, the outputs for anything else."""
        outputs = self.outputs(x)
        if self._problem.kind == "classes":
            return np.asarray(outputs.argmax(axis=1))
        if self._problem.kind == "binary":
            outputs = (outputs > (0.0 if self._problem.logits else 0.5)).astype(np.int64)
        return outputs.reshape(len(outputs)) if self._flat else outputs

    def predict_proba(self, x: Any) -> Array:
        """Probabilities: (rows, classes), or those of 1 for binary targets. ArgumentError for other losses."""
        outputs = self.outputs(x)
        with no_grad():
            if self._problem.kind == "classes":
                return functional.softmax(tensor_of(outputs), axis=1).numpy()
            if self._problem.kind != "binary":
                raise ArgumentError(f"probabilities need a loss of classes; got one of {self._problem.kind}")
            result = functional.sigmoid(tensor_of(outputs)).numpy() if self._problem.logits else outputs
        return result.reshape(len(result)) if self._flat else result

    def evaluate(self, x: Any, y: Any) -> Record:
        """Loss and metrics of rows; an honest score where the model has never seen them."""
        outputs = self.outputs(x)
        return measure(self._problem, outputs, targets_for(self._problem, y, outputs, len(outputs)))

    def __repr__(self) -> str:
        if not self.history:
            return f"Run({self.stopped} before the first epoch ended)"
        shown = ", ".join(f"{name} {value:.4g}" for name, value in self.history[self.best_epoch - 1].items())
        return f"Run({self.stopped} after {len(self.history)} epochs; best: {shown})"


def fit(
    model: nn.Module,
    data: tuple[Any, Any],
    *apart: Any,
    loss: Any = "cross_entropy",
    optimizer: Optimizer | None = None,
    epochs: int = 20,
    batch_size: int = 32,
    validation: float | tuple[Any, Any] | None = 0.2,
    seed: int = 0,
    metrics: Sequence[Any] | None = None,
    patience: int | None = None,
    restore_best: bool | None = None,
    progress: bool | str | Progress = True,
    callback: Callable[[Record], object] | None = None,
) -> Run:
    """Train `model` on `data` = (X, y), and return a Run with the history.

    X, y: tensors, arrays, tables or lists with one row for each example; floats are cast to the model's dtype once.
    loss: "cross_entropy" (y: classes 0 … C − 1), "mse", "bce" (probabilities), "bce_with_logits", a loss module, or
        a function (outputs, targets) → one number.
    optimizer: `Adam(model.parameters(), lr=1e-3)` by default.
    validation: the share of rows that are held back (of each class, for classes), or (X, y) of one's own, or None.
    seed: the same seed gives the same split and the same batches.
    metrics: names or functions (outputs, targets) → float; accuracy or mean_absolute_error by default.
    patience: stop after this many epochs without a lower validation loss; then the best weights are put back, unless
        `restore_best` says otherwise.
    progress: True, "plain", False, or an object with `epoch` and `close`. callback: called with each epoch's record.

    Ctrl-C ends the run after the batch at hand, with everything so far; twice ends it at once. A loss that is not
    finite ends it before the step is taken. Raises DataError for data that do not fit, ArgumentError for the rest.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> x = [[0.0], [1.0], [2.0], [3.0]] * 8
    >>> y = [0, 0, 1, 1] * 8
    >>> run = fit(nn.Sequential(nn.Linear(1, 2)), (x, y), epochs=2, progress=False)
    >>> len(run.history), run.predict([[0.5]]).shape
    (2, (1,))
    """
    if apart:
        raise ArgumentError(
            f"fit takes inputs and targets as one pair; got {1 + len(apart)} arguments for them. "
            "Write fit(model, (X, y), …) and name the options"
        )
    _check_arguments(model, data, epochs, batch_size, patience)
    problem = make_problem(loss, metrics)
    x = inputs_for(model, data[0])
    probe = run_model(model, x[:2])
    y = targets_for(problem, data[1], probe, len(x))
    optimizer = Adam(model.parameters()) if optimizer is None else _checked_optimizer(optimizer, model)
    run = Run(model, problem, optimizer, np.ndim(data[1]) == 1 and probe[0].size == 1)
    generator = Generator(seed)
    training, held_back = _hold_back(model, problem, x, y, probe, validation, generator)
    shown = make_progress(progress, epochs)
    loop = _Loop(run, training, held_back, batch_size, generator)
    try:
        loop.run(epochs, patience, [shown.epoch, *([callback] if callback is not None else [])])
    finally:
        shown.close()
    if restore_best if restore_best is not None else patience is not None:
        loop.restore()
    return run


Rows = tuple[Array, Array]


class _Loop:
    """Epochs over the training rows of one run."""

    def __init__(
        self, run: Run, training: Rows, held_back: Rows | None, batch_size: int, generator: Generator
    ) -> None:
        self._run = run
        self._training = training
        self._held_back = held_back
        self._batch_size = batch_size
        self._generator = generator
        self._best = math.inf
        self._weights: dict[str, Tensor] | None = None

    def run(self, epochs: int, patience: int | None, observers: list[Callable[[Record], object]]) -> None:
        run, modes = self._run, [(module, module.training) for module in self._run.model.modules()]
        try:
            with _Interrupt() as interrupt:
                for epoch in range(1, epochs + 1):
                    record = self._epoch(epoch, interrupt)
                    if record is None:
                        break
                    run.history.append(record)
                    for observer in observers:
                        observer(record)
                    if self._note_best(record) or patience is None or epoch - run.best_epoch < patience:
                        continue
                    run.stopped = "early"
                    break
        except KeyboardInterrupt:
            run.stopped = "interrupted"
        finally:
            for module, mode in modes:
                if module.training is not mode:
                    module.training = mode

    def _epoch(self, epoch: int, interrupt: _Interrupt) -> Record | None:
        started = time.perf_counter()
        run, x, y = self._run, *self._training
        run.model.train()
        order = self._generator.permutation(len(x)).numpy()
        totals: Record = {}
        for start in range(0, len(order), self._batch_size):
            if interrupt.asked:
                run.stopped = "interrupted"
                return None
            rows = order[start : start + self._batch_size]
            found = self._step(x[rows], y[rows])
            if not math.isfinite(found["loss"]):
                self._diverged(epoch, start // self._batch_size + 1, found["loss"])
                return None
            for name, value in found.items():
                totals[name] = totals.get(name, 0.0) + value * len(rows)
        record = {"epoch": float(epoch), **{name: total / len(x) for name, total in totals.items()}}
        if self._held_back is not None:
            seen = measure(run._problem, run_model(run.model, self._held_back[0]), self._held_back[1])
            record.update({f"validation_{name}": value for name, value in seen.items()})
        record["seconds"] = time.perf_counter() - started
        return record

    def _step(self, x: Array, y: Array) -> Record:
        """One batch: forward, backward, update. The update is not made if the loss is not finite."""
        run = self._run
        outputs = run.model(tensor_of(x))
        loss = run._problem.loss(outputs, tensor_of(y))
        found = {"loss": float(loss)}
        if math.isfinite(found["loss"]):
            run.optimizer.zero_grad()
            loss.backward()
            run.optimizer.step()
            array = outputs.detach().numpy()
            found.update({name: float(metric(array, y)) for name, metric in run._problem.metrics.items()})
        run.optimizer.zero_grad()
        return found

    def _note_best(self, record: Record) -> bool:
        watched = record["validation_loss"] if self._held_back is not None else record["loss"]
        if not watched < self._best:
            return False
        self._best, self._run.best_epoch = watched, int(record["epoch"])
        self._weights = self._run.model.state_dict()
        return True

    def _diverged(self, epoch: int, batch: int, loss: float) -> None:
        run = self._run
        rates = ", ".join(f"{group['lr']:g}" for group in run.optimizer.param_groups)
        where = f"got {loss} in epoch {epoch}, batch {batch}, with a learning rate of {rates}"
        fix = "Use a lower learning rate, and inputs scaled to about −1 … 1"
        if not run.history:
            raise ArgumentError(f"training needs a finite loss; {where}. {fix}")
        run.stopped = "diverged"
        warnings.warn(
            f"training ended early: the loss must be finite; {where}. {fix}", RuntimeWarning, stacklevel=2
        )

    def restore(self) -> None:
        """Put the weights of the best epoch back."""
        if self._weights is not None:
            self._run.model.load_state_dict(self._weights)
            self._run.restored = True


class _Interrupt:
    """Turns the first Ctrl-C into a wish to stop; the second one interrupts as ever.

    Outside the main thread, or where the program has a handler of its own, signals are left alone.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> _Interrupt:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


# ------------------------------------------------------------------------------------------- before the loop


def _check_arguments(model: Any, data: Any, epochs: int, batch_size: int, patience: int | None) -> None:
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"fit trains an nn.Module; got {type(model).__name__}")
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ArgumentError(f"fit needs data as a pair (X, y); got {type(data).__name__}. Write (X, y)")
    for name, value in {"epochs": epochs, "batch_size": batch_size, "patience": patience}.items():
        if value is None and name == "patience":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ArgumentError(f"{name} must be a whole number from 1; got {value!r}")


def _checked_optimizer(optimizer: Optimizer, model: nn.Module) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError(
            f"optimizer must be one of chainrule.optim; got {type(optimizer).__name__}. Write "
            "optim.Adam(model.parameters())"
        )
    held = {id(one.cell) for group in optimizer.param_groups for one in group["params"]}
    if not any(id(one.cell) in held for one in model.parameters()):
        raise ArgumentError(
            "the optimizer must hold parameters of the model that is trained; got none of them. Make it anew with "
            "model.parameters()"
        )
    return optimizer


def _hold_back(
    model: nn.Module,
    problem: Problem,
    x: Array,
    y: Array,
    probe: Array,
    validation: float | tuple[Any, Any] | None,
    generator: Generator,
) -> tuple[Rows, Rows | None]:
    """(training rows, rows held back)."""
    if isinstance(validation, tuple | list):
        if len(validation) != 2:
            raise ArgumentError(f"validation must be a share or a pair (X, y); got {len(validation)} things")
        unseen = inputs_for(model, validation[0])
        if unseen.shape[1:] != x.shape[1:]:
            raise DataError(f"validation rows need the shape {x.shape[1:]}; got {unseen.shape[1:]}")
        return (x, y), (unseen, targets_for(problem, validation[1], probe, len(unseen)))
    if not validation:
        return (x, y), None
    if not 0 < validation < 1:
        raise ArgumentError(
            f"validation must be a share from 0 to below 1, or a pair (X, y); got {validation}"
        )
    labels = y if problem.kind in ("classes", "binary") and y.size == len(y) else np.zeros(len(y))
    chosen = held_back_rows(labels.reshape(-1), validation, generator)
    if not 0 < chosen.sum() < len(x):
        raise DataError(
            f"a validation share of {validation:g} needs more rows; got {len(x)}. Use validation=None"
        )
    return (x[~chosen], y[~chosen]), (x[chosen], y[chosen])


def held_back_rows(labels: Array, share: float, generator: Generator) -> NDArray[np.bool_]:
    """Which rows are held back: about `share` of every label, drawn at random; a label of one row is kept."""
    chosen = np.zeros(len(labels), bool)
    order = generator.permutation(len(labels)).numpy()
    owed = 0.0
    for rows in _by_label(labels[order]):
        # What rounding took from one label is given to the next, so that the sum comes out right.
        owed += len(rows) * share
        count = min(round(owed), len(rows) - 1) if len(rows) > 1 else 0
        owed -= count
        chosen[order[rows[:count]]] = True
    return chosen


def _by_label(labels: Array) -> Iterator[NDArray[np.int64]]:
    """Positions of each label, in the order of the labels."""
    order = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.diff(labels[order])) + 1
    yield from np.split(order, ends)
