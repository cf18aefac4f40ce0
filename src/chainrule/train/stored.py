"""A Run out of a run directory.

Knows run directories and results; knows nothing of how training is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from .. import nn
from ..data.kept import from_stored
from ..errors import ArgumentError, RunError, ShapeError, warn
from ..files import Folder
from .checkpoint import Checkpoint, Checkpoints
from .files import Path
from .losses import Loss, find_loss
from .metrics import make_metrics
from .problem import Problem
from .results import Run
from .run import MODEL, read_record, read_run


def load_run(
    folder: Path, model: nn.Module | Callable[[Any], nn.Module], *, loss: Any = None, metrics: Any = None
) -> Run:
    """The Run of a run directory that `fit(…, folder=…)` made, with its weights in `model`.

    model: built as it was for `fit`; or a function that builds it from what made the rows, such as a Vocabulary:
    `load_run(folder, lambda vocabulary: Net(len(vocabulary)))`. loss, metrics: as given to `fit`; needed for `evaluate`
    where they are functions of one's own, and found in the record where they are names. Of a run that did not come to
    its end the newest checkpoint is used. `run.preparation` is what made the rows, such as a Vocabulary.
    Raises RunError for a folder that is none, or was changed, and for a model of other shapes.

    >>> import tempfile, chainrule as cr
    >>> from chainrule import nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = [[0.0], [1.0]] * 8, [0, 1] * 8
    ...     run = cr.fit(nn.Linear(1, 2), data, epochs=2, folder=folder, progress=False)
    ...     again = load_run(folder, nn.Linear(1, 2))
    >>> again.state, len(again.history), bool((again.outputs([[3.0]]) == run.outputs([[3.0]])).all())
    ('finished', 2, True)
    """
    place, record = read_record(folder)
    if "problem" not in record:
        raise RunError(
            f"load_run reads runs of fit; got {place!r}, a run of kind {record.get('kind')!r}. Use `chainrule predict`"
        )
    preparation = from_stored(record.get("kept"), place)
    model = _built(model, preparation)
    run = Run(model, _problem(record["problem"], loss, metrics), None, bool(record["problem"]["flat"]))
    if MODEL in record["files"]:
        stored = read_run(place)
        weights, run.history = stored.weights, stored.history
        run.best_epoch, run.restored = (
            record["training"]["best_epoch"],
            bool(record["training"].get("restored")),
        )
        run.state = record["training"]["stopped"]
    else:
        found = _newest(place)
        weights, run.history = found.state["model"], found.state["history"]
        run.best_epoch = found.state["watch"]["best_epoch"]
        run.state = record.get("state", "running")
    run.folder = os.path.abspath(place)
    run.preparation = preparation
    try:
        model.load_state_dict(weights)
    except (ShapeError, ArgumentError) as error:
        raise RunError(f"the weights in {place!r} do not fit the model: {error.message}") from error
    return run


def _built(model: Any, preparation: Any) -> nn.Module:
    """The model, or what the user's function makes of the preparation."""
    if isinstance(model, nn.Module):
        return model
    made = model(preparation) if callable(model) and not isinstance(model, type) else model
    if not isinstance(made, nn.Module):
        shown = f"the class {made.__name__}" if isinstance(made, type) else type(made).__name__
        raise ArgumentError(
            f"load_run puts the weights into an nn.Module; got {shown}. Build it as for fit, or give a function of the "
            "preparation that does"
        )
    return made


def _newest(place: str) -> Checkpoint:
    try:
        run = Folder.open(place)
    except OSError as error:
        raise RunError(
            f"a readable folder is needed; got {place!r}: {error.strerror}. Check the path"
        ) from error
    with run:
        found, faults = Checkpoints(run, 1).newest()
    if found is None:
        raise RunError(
            f"a run with weights is needed; got {place!r}, which has neither {MODEL} nor a checkpoint"
        )
    for fault in faults:
        warn(
            f"a damaged checkpoint was passed over: {fault}. The one before, {found.name}, is used",
        )
    return found


def _problem(stored: dict[str, Any], loss: Any, metrics: Any) -> Problem:
    """The problem of a run: its kind from the record, its loss by name or as given."""
    known = _find(stored["loss"]) if loss is None else find_loss(loss)
    if known is None:
        known = Loss(stored["loss"], _unknown(stored["loss"]), None, stored["kind"], logits=stored["logits"])
    if metrics is None:
        metrics = [name for name in stored["metrics"] if _is_known(name, known)]
    return Problem(known, make_metrics(metrics, known.kind, known.logits))


def _find(name: str) -> Loss | None:
    try:
        return find_loss(name)
    except ArgumentError:
        return None


def _is_known(name: str, loss: Loss) -> bool:
    try:
        make_metrics([name], loss.kind, loss.logits)
    except ArgumentError:
        return False
    return True


def _unknown(name: str) -> Any:
    def refuse(outputs: Any, targets: Any, **_: Any) -> Any:
        raise ArgumentError(
            f"evaluation needs the loss of the run; got a run with {name.splitlines()[0]}, which no file can hold. "
            "Give it: load_run(folder, model, loss=…)"
        )

    return refuse
