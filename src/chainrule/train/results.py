"""What a training gives: the Run, with history, predictions and scores; the same for a model without one.

Knows problems and sources; knows nothing of how training is done.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional, nn
from ..blas import single_threaded
from ..data.datasets import DatasetSource, is_dataset
from ..data.sources import Source
from ..data.weights import as_sample_weight
from ..elsewhere import checked, checked_call
from ..errors import ArgumentError, ShapeError
from ..transforms import no_grad
from .problem import (
    Array,
    Problem,
    first_rows,
    inputs_for,
    make_problem,
    rows_of,
    run_model,
    targets_for,
    tensor_of,
)
from .sources import Prepared, evaluate_source, is_pair, is_source, joined, plain_source, scores

Record = dict[str, float]


class Run:
    """What `fit` returns: the trained model, the history, and predictions.

    history: one dict for each epoch, with epoch, loss, the metrics, the same with `validation_` before them for the
        rows held back, and seconds; with a scheduler also learning_rate. Loss and metrics of the training rows are
        averages over the epoch, while the weights change; those of the rows held back are taken at its end.
    best_epoch: the epoch (from 1) with the best monitored number, 0 before the first one.
    restored: whether the model has the weights of that epoch, and not of the last one.
    state: "running"; then "finished", "early" (no better for `patience` epochs), "stopped" (by `run.stop()`),
        "interrupted" (Ctrl-C or SIGTERM) or "diverged" (a loss that is not finite). A run that `load_run` found cut off
        is "running", or "failed" if an error ended it.
    optimizer: the one that was used; None, or a list, with a step of the user's own. folder: the run directory, or
        None. resumed_at: (epoch, batches done in it) of the checkpoint that this run went on from, or None.
    preparation: what made the rows out of raw data (`data.Vocabulary`, `data.Scaling`, `data.ImageFormat`), or None.
        With it `predict` and the like take raw data too: a text, or paths of images.
    """

    def __init__(self, model: nn.Module, problem: Problem, optimizer: Any, flat: bool) -> None:
        self.model = model
        self.optimizer = optimizer
        self.history: list[Record] = []
        self.best_epoch = 0
        self.restored = False
        self.state = "running"
        self.folder: str | None = None
        self.resumed_at: tuple[int, int] | None = None
        self.stop_asked = False
        self.preparation: Any = None
        self._engine: Any = None
        self._problem = problem
        self._flat = flat

    @property
    def stopped(self) -> str:
        """How training ended, in the words of `state`."""
        return self.state

    @property
    def compiled(self) -> Any:
        """The machine code that the training runs most of its steps with: an object as `cr.compile` makes it.

        None where steps run as Python; `why_python` says why.
        """
        return None if self._engine is None else self._engine.compiled

    @property
    def why_python(self) -> str | None:
        """Why the steps run as Python for good; None if they are compiled, or will be after some calls."""
        return None if self._engine is None else self._engine.why_python

    def stop(self) -> None:
        """Ask the training to end: after the batch at hand, with the record of the epoch as far as it came."""
        self.stop_asked = True

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

    def outputs(self, x: Any) -> Any:
        """The model's outputs for the rows of x (or of a data set), in evaluation mode."""
        with single_threaded():
            return _outputs(self.model, x if self.preparation is None else self.preparation.prepare(x))

    def predict(self, x: Any) -> Any:
        """Class indices (int64) for classes, 0 or 1 for binary targets, the outputs for anything else."""
        return predictions(self._problem, self.outputs(x), self._flat)

    def predict_proba(self, x: Any) -> Array:
        """Probabilities: (rows, classes), or those of 1 for binary targets. ArgumentError for other losses."""
        return probabilities(self._problem, self.outputs(x), self._flat)

    def evaluate(self, x: Any, y: Any = None, sample_weight: Any = None) -> Record:
        """Loss and metrics of rows; an honest score where the model has never seen them.

        Called as evaluate(X, y), evaluate((X, y)), evaluate(loader) or evaluate(dataset). With `sample_weight` rows
        count as much as it says, in the loss and in the metrics.
        """
        data = x if y is None else (x, y)
        with single_threaded():
            return _evaluate(self.model, self._problem, data, sample_weight)

    def __repr__(self) -> str:
        if not self.history:
            return f"Run({self.state} before the first epoch ended)"
        shown = ", ".join(f"{name} {value:.4g}" for name, value in self.history[self.best_epoch - 1].items())
        return f"Run({self.state} after {len(self.history)} epochs; best: {shown})"


@checked_call
def evaluate(
    model: nn.Module,
    data: Any,
    *,
    loss: Any = "cross_entropy",
    metrics: Any = None,
    sample_weight: Any = None,
) -> Record:
    """Loss and metrics of a model on rows, in evaluation mode; loss and metrics as in `fit`.

    data: (X, y), a DataLoader or a data set. Raises DataError for rows that do not fit the model or the loss.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> model = nn.Linear(1, 2)
    >>> found = evaluate(model, ([[0.0], [1.0]], [0, 1]), metrics=["accuracy", "f1"])
    >>> list(found)
    ['loss', 'accuracy', 'f1']
    """
    with single_threaded():
        return _evaluate(model, make_problem(loss, metrics), data, sample_weight)


@checked({"probabilities": "Use run.predict_proba(X), or cr.functional.softmax of the outputs"})
def predict(model: nn.Module, x: Any, *, loss: Any = None) -> Any:
    """The outputs of a model for the rows of x (array, list, table, data set, or tuple or dict), in evaluation mode.

    loss: the one that the model was trained with, to get classes instead of outputs: indices for "cross_entropy",
    0 or 1 for binary losses.

    >>> from chainrule import nn
    >>> model = nn.Linear(1, 3)
    >>> predict(model, [[0.0], [1.0]]).shape, predict(model, [[0.0], [1.0]], loss="cross_entropy").shape
    ((2, 3), (2,))
    """
    with single_threaded():
        outputs = _outputs(model, x)
    return outputs if loss is None else predictions(make_problem(loss, ()), outputs, False)


def _outputs(model: nn.Module, x: Any) -> Any:
    """The outputs for the rows of x; of a data set, batch by batch."""
    if not is_dataset(x):
        return run_model(model, inputs_for(model, x))
    batches = DatasetSource(x, shuffle=False).epoch(1)
    return joined([run_model(model, inputs_for(model, one.inputs)) for one in batches])


def _evaluate(model: nn.Module, problem: Problem, data: Any, sample_weight: Any) -> Record:
    if is_source(data) or is_dataset(data):
        if sample_weight is not None:
            raise ArgumentError("sample_weight goes with arrays (X, y); got a loader. Give it to the loader")
        source: Source = Prepared(model, problem, plain_source(data))
        return evaluate_source(model, problem, source, weighted=True)
    if not is_pair(data):
        raise ArgumentError(f"evaluate needs data as a pair (X, y); got {type(data).__name__}. Write (X, y)")
    inputs = inputs_for(model, data[0])
    rows = rows_of(inputs)
    probe = run_model(model, first_rows(inputs, 2))
    targets = targets_for(problem, data[1], probe, rows)
    weights = None if sample_weight is None else as_sample_weight(sample_weight, rows)
    return scores(problem, run_model(model, inputs), targets, weights)


def predictions(problem: Problem, outputs: Any, flat: bool) -> Any:
    """Class indices for classes, 0 or 1 for binary targets, the outputs for anything else."""
    if not isinstance(outputs, np.ndarray):
        return outputs
    if problem.kind == "classes":
        _require_classes(outputs)
        return np.asarray(outputs.argmax(axis=1))
    if problem.kind == "binary":
        outputs = (outputs > (0.0 if problem.logits else 0.5)).astype(np.int64)
    return outputs.reshape(len(outputs)) if flat else outputs


def _require_classes(outputs: Any) -> None:
    if outputs.ndim < 2:
        raise ShapeError(
            f"classes need a score for each, (rows, classes); got outputs of shape {outputs.shape}. For one row write "
            "X.reshape(1, -1)"
        )


def probabilities(problem: Problem, outputs: Any, flat: bool) -> Array:
    """Probabilities out of logits, or what are probabilities already."""
    if problem.kind not in ("classes", "binary"):
        raise ArgumentError(f"probabilities need a loss of classes; got one of {problem.kind}")
    if problem.kind == "classes":
        _require_classes(outputs)
    result: Array = outputs
    if problem.logits:
        with no_grad():
            if problem.kind == "classes":
                return functional.softmax(tensor_of(outputs), axis=1).numpy()
            result = functional.sigmoid(tensor_of(outputs)).numpy()
    return result.reshape(len(result)) if flat and problem.kind == "binary" else result
