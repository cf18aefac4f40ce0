"""What is learnt: the loss with the kind of targets that it needs, and data checked against a model up front.

A fault in the data is found here, before the first step, and told by row and column.
Knows nothing of epochs and optimizers.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import functional, nn
from ..dtypes import Dtype
from ..errors import ArgumentError, DataError
from ..graph import constant
from ..tensor import Tensor, wrap
from ..transforms import no_grad

Array = NDArray[Any]
Metric = Callable[[Array, Array], float]

# Rows that go through the model at once where nothing is learnt.
EVALUATION_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Problem:
    """A loss, the kind of targets that it needs, and the metrics that are reported beside it.

    `kind` is "classes" (indices, logits for each), "binary" (0 or 1, one output for each) with or without `logits`,
    "numbers", or "custom" where the loss is a function of the user's own.
    """

    loss: Callable[[Tensor, Tensor], Any]
    kind: str
    logits: bool
    metrics: dict[str, Metric]


_LOSSES: dict[str, tuple[Callable[..., Any], str, bool]] = {
    "cross_entropy": (functional.cross_entropy, "classes", True),
    "mse": (functional.mse_loss, "numbers", False),
    "bce": (functional.binary_cross_entropy, "binary", False),
    "bce_with_logits": (functional.binary_cross_entropy_with_logits, "binary", True),
}
_MODULES: dict[type[nn.Module], str] = {
    nn.CrossEntropyLoss: "cross_entropy",
    nn.MSELoss: "mse",
    nn.BCELoss: "bce",
    nn.BCEWithLogitsLoss: "bce_with_logits",
}


def accuracy(outputs: Array, targets: Array) -> float:
    """The share of rows whose largest output is that of the right class."""
    wanted = targets.argmax(axis=1) if targets.shape == outputs.shape else targets
    return float(np.mean(outputs.argmax(axis=1) == wanted))


def mean_absolute_error(outputs: Array, targets: Array) -> float:
    """The mean of |output − target|."""
    return float(np.mean(np.abs(outputs - targets)))


def make_problem(loss: Any, metrics: Sequence[Any] | None) -> Problem:
    """The problem that a name, a loss module or a function stands for."""
    function, kind, logits = _find_loss(loss)
    known: dict[str, Metric] = {}
    if kind == "classes":
        known = {"accuracy": accuracy}
    elif kind == "binary":
        limit = 0.0 if logits else 0.5
        known = {"accuracy": lambda outputs, targets: float(np.mean((outputs > limit) == (targets > 0.5)))}
    elif kind == "numbers":
        known = {"mean_absolute_error": mean_absolute_error}
    chosen = dict(known) if metrics is None else {}
    for one in metrics or ():
        if callable(one):
            chosen[getattr(one, "__name__", "metric")] = one
        elif one in known:
            chosen[one] = known[one]
        else:
            has = ", ".join(known) or "none by name"
            raise ArgumentError(
                f"this loss has the metrics: {has}; got {one!r}. Or give a function (outputs, targets)"
            )
    return Problem(function, kind, logits, chosen)


def _find_loss(loss: Any) -> tuple[Callable[..., Any], str, bool]:
    if isinstance(loss, str):
        if loss not in _LOSSES:
            close = difflib.get_close_matches(loss, _LOSSES, 1)
            hint = f". Did you mean {close[0]!r}?" if close else ". Name one of these"
            raise ArgumentError(f"loss must be {', '.join(_LOSSES)}, or a function; got {loss!r}{hint}")
        return _LOSSES[loss]
    if not callable(loss):
        raise ArgumentError(
            f"loss must be a name or a function (outputs, targets); got {type(loss).__name__}"
        )
    if type(loss) in _MODULES:
        _, kind, logits = _LOSSES[_MODULES[type(loss)]]
        return loss, kind, logits
    for function, kind, logits in _LOSSES.values():
        if loss is function:
            return function, kind, logits
    return loss, "custom", False


# ------------------------------------------------------------------------------------------- data


def as_array(data: Any, name: str) -> Array:
    """An array of numbers from a tensor, array, table or nested list; DataError for anything else."""
    array = data.detach().numpy() if isinstance(data, Tensor) else np.asarray(data)
    if array.dtype.kind == "O":
        with contextlib.suppress(TypeError, ValueError):
            array = array.astype(np.float64)
    if array.dtype.kind not in "biuf":
        shown = next((repr(one) for one in array.reshape(-1)[:1].tolist()), "nothing")
        fix = (
            "Encode them: classes, y = np.unique(y, return_inverse=True)"
            if name == "y"
            else "Encode texts as numbers first; `chainrule train` does it for tables"
        )
        raise DataError(f"{name} needs numbers; got {array.dtype} such as {shown}. {fix}")
    if not array.ndim or not len(array):
        raise DataError(f"{name} needs rows; got shape {array.shape}. Check how the data were read")
    _refuse_non_finite(array, name)
    return array


def _refuse_non_finite(array: Array, name: str) -> None:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    bad = ~np.isfinite(array)
    where = np.argwhere(bad)[0]
    value = array[tuple(where)]
    place = f"row {where[0]}" + (f", column {where[1]}" if array.ndim > 1 else "")
    rows = int(bad.reshape(len(array), -1).any(axis=1).sum())
    raise DataError(
        f"{name} needs finite numbers; got {value} in {place} ({rows} of {len(array)} rows have such values). "
        "Fill them or leave the rows out"
    )


def inputs_for(model: nn.Module, x: Any) -> Array:
    """The rows of x in the model's dtype."""
    array = as_array(x, "X")
    return np.asarray(array.astype(model_dtype(model), copy=False))


def model_dtype(model: nn.Module) -> Dtype:
    """The dtype of the model's parameters."""
    for parameter in model.parameters():
        return parameter.dtype
    raise ArgumentError(f"training needs a model with parameters; got {type(model).__name__} without any")


def targets_for(problem: Problem, y: Any, outputs: Array, rows: int) -> Array:
    """Targets as the loss needs them, checked against the model's outputs of the first rows."""
    targets = as_array(y, "y")
    if len(targets) != rows:
        raise DataError(f"X and y need as many rows; got {rows} and {len(targets)}. Check how they were made")
    if problem.kind == "classes":
        return _classes(targets, outputs)
    if targets.dtype.kind != "f" and problem.kind == "custom":
        return targets
    targets = targets.astype(outputs.dtype, copy=False)
    if problem.kind == "custom":
        return targets
    if targets.shape[1:] != outputs.shape[1:]:
        if targets[0].size != outputs[0].size:
            raise DataError(
                f"y needs one number for each output of the model; got rows of shape {targets.shape[1:]} for outputs "
                f"of shape {outputs.shape[1:]}. Change the size of the last layer, or y"
            )
        targets = targets.reshape(len(targets), *outputs.shape[1:])
    if problem.kind == "binary" and not ((targets >= 0) & (targets <= 1)).all():
        raise DataError(
            f"binary cross-entropy needs targets from 0 to 1; got {targets.min():g} to {targets.max():g}. "
            "For more than two classes use loss='cross_entropy'"
        )
    return targets


def _classes(targets: Array, outputs: Array) -> Array:
    if outputs.ndim < 2:
        raise DataError(f"cross_entropy needs outputs (rows, classes); got {outputs.shape} from the model")
    if targets.dtype.kind == "f" and targets.shape[1:] == outputs.shape[1:]:
        return targets.astype(outputs.dtype, copy=False)
    if targets.dtype.kind == "f":
        raise DataError(
            f"cross_entropy needs classes as whole numbers; got {targets.dtype.name}. Use y.astype(int), or loss='mse' "
            "to predict numbers"
        )
    expected = (len(targets), *outputs.shape[2:])
    if targets.size != np.prod(expected):
        raise DataError(f"cross_entropy needs one class for each row, shape {expected}; got {targets.shape}")
    count, low, high = outputs.shape[1], int(targets.min()), int(targets.max())
    if low < 0 or high >= count:
        fix = f"Give the last layer {high + 1} outputs" if low >= 0 else "Number the classes from 0"
        if low == 1 and high == count:
            fix = "Number the classes from 0: y - 1"
        raise DataError(
            f"the model has {count} outputs, so classes are 0 to {count - 1}; got {low} to {high}. {fix}"
        )
    return targets.reshape(expected).astype(np.int64)


# ------------------------------------------------------------------------------------------- forward


def tensor_of(array: Array) -> Tensor:
    """A constant on the array itself, without a copy."""
    return wrap(constant(array))


def run_model(model: nn.Module, x: Array) -> Array:
    """Outputs for all rows, in evaluation mode and without gradients; the mode is put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            parts = [
                _output_array(model(tensor_of(x[start : start + EVALUATION_ROWS])))
                for start in range(0, len(x), EVALUATION_ROWS)
            ]
    finally:
        for module, mode in modes:
            if module.training is not mode:
                module.training = mode
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _output_array(output: Any) -> Array:
    if not isinstance(output, Tensor):
        raise ArgumentError(f"the model must return one Tensor; got {type(output).__name__}")
    return output.numpy()


def measure(problem: Problem, outputs: Array, targets: Array) -> dict[str, float]:
    """Loss and metrics of outputs, averaged over the rows."""
    with no_grad():
        loss = float(problem.loss(tensor_of(outputs), tensor_of(targets)))
    return {
        "loss": loss,
        **{name: float(metric(outputs, targets)) for name, metric in problem.metrics.items()},
    }
