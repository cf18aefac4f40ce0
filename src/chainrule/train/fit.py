"""`fit`: the door to training. It checks what it is given and calls the rooms behind it.

Knows nothing of how an epoch goes (`loop`), of one update (`step`) and of files (`keeper`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .. import nn
from ..blas import single_threaded
from ..elsewhere import FIT_ADVICE, checked
from ..errors import ArgumentError
from ..optim import Optimizer
from .callbacks import Callback
from .course import train
from .files import Path
from .options import Options, as_tuple
from .progress import Progress
from .results import Run
from .run import RunFolder
from .sources import DEFAULT_SHARE

__all__ = ["Record", "Run", "fit"]

Record = dict[str, float]


@checked(FIT_ADVICE)
def fit(
    model: nn.Module,
    data: Any,
    *apart: Any,
    loss: Any = "cross_entropy",
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    scheduler: Any = None,
    epochs: int = 20,
    batch_size: int = 32,
    validation: Any = DEFAULT_SHARE,
    seed: int = 0,
    metrics: Any = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    step: Callable[[Any, Any], Any] | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    accumulate: int = 1,
    patience: int | None = None,
    monitor: str | None = None,
    restore_best: bool | None = None,
    callbacks: Callback | Callable[[Record], object] | Iterable[Callback | Callable[[Record], object]] = (),
    callback: Callable[[Record], object] | None = None,
    progress: bool | str | Progress = True,
    folder: Path | RunFolder | None = None,
    checkpoint_seconds: float | None = 30.0,
    checkpoint_steps: int | None = None,
    keep_checkpoints: int = 2,
    resume: bool | str = False,
    compile: bool | str = "auto",
    audit_every: int | None = None,
    backend: str | None = None,
    augment: Any = None,
    bucket_by_length: int | Sequence[int] | None = None,
    pad_to_multiple_of: int | None = None,
    preparation: Any = None,
) -> Run:
    """Train `model` on `data` = (X, y), and return a Run with the history.

    X, y: tensors, arrays, tables or lists with one row for each example; floats are cast to the model's dtype once,
        integers stay if the model takes them. X may be a tuple or a dict of them: then model(*X) or model(**X) is
        called. Or data is a `data.Dataset` (`ImageFolder`, `TextWindows`, `SeriesWindows` …), a DataLoader, or an
        iterable (or a function of the epoch's number that makes one) of batches (x, y) or (x, y, weights).
    loss: "cross_entropy" (y: classes 0 … C − 1), "mse", "bce" (probabilities), "bce_with_logits", "l1", "huber" …, a
        loss module, or a function (outputs, targets) → one number.
    optimizer: `Adam(model.parameters(), lr=1e-3)` by default. scheduler: of `optim.lr_scheduler`, or a list of them;
        stepped after each epoch or each update, as its `interval` says.
    validation: the share of rows that are held back (of each class, for classes; the end of a text or series), or
        (X, y), (X, y, weights), a data set or a DataLoader of one's own, or None. Of batches no share is held back.
    seed: the same seed gives the same split and the same batches. Dropout draws from the generator that
        `cr.manual_seed` sets.
    metrics: names ("accuracy", "f1", "roc_auc", "mae", "r2" …) or functions (outputs, targets) → float.
    sample_weight, class_weight: how much the loss of a row counts: a number for each row; "balanced", a dict or a
        sequence for the classes. The loss of a batch is Σ w·loss / Σ w. Metrics count every row once.
    step: a step of one's own, (x, y) → loss or (loss, outputs), which does all: forward, backward and update. Then
        `optimizer` is the one that it uses, or a list of all that it uses, so that checkpoints keep their state, and
        `loss` (or None) is for the rows held back; the default one only where it fits what the model returns.
    clip_norm, clip_value: limits of the gradients, as `optim.clip_grad_norm_` and `clip_grad_value_`.
    accumulate: how many batches make one update, which is that of one batch of all their rows, also where the last
        batch or the last group is smaller. With BatchNorm each batch has its own mean, and a last batch of one row,
        which has no variance, is left out: it is another row in every epoch.
    patience: stop after this many epochs without a better `monitor` ("validation_loss", or "loss" without validation,
        or a metric as in the history); then the best weights are put back, unless `restore_best` says otherwise.
    callbacks: `cr.Callback`s, and functions that get each epoch's record. callback: one such function.
    progress: True, "plain", False, or an object with `epoch` and `close`.
    folder: a run directory, with the configuration, the metrics of each epoch, checkpoints and at the end the weights.
        A checkpoint is written every `checkpoint_seconds` or `checkpoint_steps` updates (None: not by that), between
        two updates, and at the end; the newest `keep_checkpoints` stay. `resume=True` goes on from the newest one
        that is whole, bit for bit as if nothing had happened, or starts anew in an empty folder. It is an error if the
        data, a setting, a module or the code or a constant of a function are not those of the checkpoint;
        `resume="changed"` goes on with another loss, dropout rate, activation or data deliberately, and a warning names
        what has changed.
    compile: "auto" runs the first steps as Python and all further ones as machine code (about 0.4 s of Python: after
        how many steps follows from the sizes of model and batch, so a training repeats bit for bit). A step that is no
        graph, as with hooks or NumPy's random numbers in `forward`, or that cannot be compiled, stays Python, and so
        does one of your own; `run.why_python` says why, and the progress once. True: machine code from the first step
        on, or an error; also for a step of your own. False, or CHAINRULE_COMPILE=0: Python, breakpoints included.
        `run.compiled` is what `cr.compile` gives.
    backend: "native", or "jax": XLA runs the steps, on the GPU or TPU that JAX has, from the first one on.
    audit_every: with compile=True, every so many updates one is audited: each value that the machine code has stored
        is compared with NumPy's, and a difference ends the run with an error that names the operation and your line.
    augment: a random change of the inputs that are trained on, or a list of them (`data.RandomHorizontalFlip()` …): a
        function of (seed, epoch, row). The rows held back stay as they are.
    bucket_by_length, pad_to_multiple_of: for a `data.SequenceDataset`, as in `data.DataLoader`: batches of sequences of
        like length, filled up to a few lengths, so that a compiled step meets few shapes.
    preparation: what made the rows out of raw data, such as a `data.Vocabulary`: the run directory keeps it, and
        `run.predict("a text")` uses it. By default that of the data set.

    Ctrl-C ends the run after the batch at hand, with everything so far and a checkpoint; twice ends it at once. With a
    folder SIGTERM does the same and then ends the program with exit code 143. A loss or gradient that is not finite
    ends the run before the update. If the disk refuses a checkpoint, a warning says so and training goes on; if it
    refuses the weights at the end, the RunError has the Run as `error.run`.
    Raises DataError for data that do not fit, RunError for folders, ArgumentError for the rest.

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
    options = Options(
        loss=loss, optimizer=optimizer, scheduler=scheduler, epochs=epochs, batch_size=batch_size,
        validation=validation, seed=seed, metrics=metrics, sample_weight=sample_weight, class_weight=class_weight,
        step=step, clip_norm=clip_norm, clip_value=clip_value, accumulate=accumulate, patience=patience,
        monitor=monitor, restore_best=restore_best, callbacks=as_tuple(callbacks), callback=callback, progress=progress,
        folder=folder, checkpoint_seconds=checkpoint_seconds, checkpoint_steps=checkpoint_steps,
        keep_checkpoints=keep_checkpoints, resume=resume, compile=compile, audit_every=audit_every,
        backend=backend, augment=augment, bucket_by_length=bucket_by_length, pad_to_multiple_of=pad_to_multiple_of,
        preparation=preparation,
    )  # fmt: skip
    options.check(model, data)
    with single_threaded():
        return train(model, data, options)
