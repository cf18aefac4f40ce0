"""What is learnt: the loss with the kind of targets that it needs, and data checked against a model up front.

A fault in the data is found here, before the first step, and told by row and column.
Knows nothing of epochs and optimizers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import nn
from ..data.arrays import as_array, as_arrays, count_rows, map_leaves, named_leaves
from ..dtypes import Dtype
from ..elsewhere import unfit_call
from ..errors import ArgumentError, ChainruleError, DataError, DtypeError, ShapeError
from ..graph import constant
from ..tensor import Tensor, wrap
from ..transforms import no_grad
from .losses import Loss, find_loss
from .metrics import Metric, make_metrics

Array = NDArray[Any]

# Rows that go through the model at once where nothing is learnt.
EVALUATION_ROWS = 1024

# With more leaves of integers than this, they are all cast or none.
_MIXED_LEAVES = 4


class Problem:
    """A loss, the kind of targets that it needs, and the metrics that are reported beside it.

    `kind` is "classes" (indices or probabilities, scores for each), "binary" (0 or 1, one output for each), both with
    or without `logits`; "numbers"; or "custom" where the loss is a function of the user's own.
    """

    def __init__(self, loss: Loss, metrics: dict[str, Metric]) -> None:
        self.function = loss
        self.kind = loss.kind
        self.logits = loss.logits
        self.metrics = metrics
        #: Whether rows are taken as they are where they do not fit the loss or the model: a step of the user's own
        #: may do with them what it likes.
        self.lenient = False

    def loss(self, outputs: Any, targets: Any, weights: Any = None) -> Any:
        """The loss of a batch, one number: a mean over its rows, in which each counts as much as its weight.

        outputs: what the model returned. targets: tensors. weights: a tensor or array (rows,), or None. With weights
        it is Σ w·loss / Σ w over the rows, as PyTorch's classes with weights; 0 where all weights are 0.
        """
        return self.function.mean(outputs, targets, weights)


def make_problem(loss: Any, metrics: Any = None) -> Problem:
    """The problem that a name, a loss module or a function stands for, with metrics as `make_metrics` takes them."""
    found = find_loss(loss)
    return Problem(found, make_metrics(metrics, found.kind, found.logits))


# ------------------------------------------------------------------------------------------- inputs


def inputs_for(model: nn.Module, x: Any) -> Any:
    """The rows of x as arrays that the model takes: an array, or a tuple or dict of them.

    Floats get the model's dtype. Integers and bools stay what they are if the model takes the first two rows so, as
    an embedding does, and get the model's dtype if not.
    """
    dtype = model_dtype(model)
    arrays = map_leaves(as_arrays(x, "X"), lambda leaf, _: _cast(leaf, dtype, "f"), "X")
    whole = [name for name, leaf in named_leaves(arrays, "X") if leaf.dtype.kind != "f"]
    if not whole:
        return arrays
    head = first_rows(arrays, 2)
    refused: ChainruleError | None = None
    for cast in _choices(whole):
        try:
            run_model(model, _cast_named(head, cast, dtype))
        except DtypeError as error:
            refused = refused or error
            continue
        return _cast_named(arrays, cast, dtype)
    assert refused is not None
    raise refused


def _choices(names: Sequence[str]) -> list[set[str]]:
    """Which leaves to cast, in the order to try: none first, then as few as possible."""
    if len(names) > _MIXED_LEAVES:
        return [set(), set(names)]
    return [set(some) for count in range(len(names) + 1) for some in itertools.combinations(names, count)]


def _cast_named(arrays: Any, names: set[str], dtype: Dtype) -> Any:
    return map_leaves(arrays, lambda leaf, name: leaf.astype(dtype) if name in names else leaf, "X")


def _cast(array: Array, dtype: Dtype, kinds: str) -> Array:
    if array.dtype.kind not in kinds:
        return array
    with np.errstate(over="ignore"):
        result = np.asarray(array.astype(dtype, copy=False))
    if result is not array and not np.isfinite(result).all():
        raise DataError(
            f"numbers of {array.dtype} are too large for the model's {dtype}. Scale them to about −1 … 1"
        )
    return result


def model_dtype(model: nn.Module) -> Dtype:
    """The dtype of the model's parameters."""
    for parameter in model.parameters():
        return parameter.dtype
    raise ArgumentError(f"training needs a model with parameters; got {type(model).__name__} without any")


def rows_of(arrays: Any) -> int:
    """How many rows arrays have; `arrays` is an array, or a tuple or dict of them."""
    return count_rows(named_leaves(arrays, "X"))


def first_rows(arrays: Any, count: int) -> Any:
    """The first rows of an array, or of each in a tuple or dict."""
    return map_leaves(arrays, lambda leaf, _: leaf[:count], "X")


# ------------------------------------------------------------------------------------------- targets


def targets_for(problem: Problem, y: Any, outputs: Any, rows: int) -> Any:
    """Targets as the loss needs them, checked against the model's outputs of the first rows.

    A tuple or dict of targets needs a loss of one's own. Raises DataError, which says what to change.
    """
    if isinstance(y, tuple | dict):
        if problem.kind != "custom":
            raise DataError(
                f"this loss needs one array of targets; got a {type(y).__name__}. Use a function (outputs, targets) "
                "as loss"
            )
        arrays = as_arrays(y, "y")
        _check_rows(rows, rows_of(arrays))
        return map_leaves(arrays, lambda leaf, _: _cast(leaf, _float_of(outputs), "f"), "y")
    targets = as_array(y, "y")
    _check_rows(rows, len(targets))
    if problem.kind == "custom":
        return _cast(targets, _float_of(outputs), "f")
    if not isinstance(outputs, np.ndarray):
        raise DataError(
            f"this loss needs one tensor from the model; got a {type(outputs).__name__}. Return the scores alone "
            "from forward (a recurrent layer gives its output and its state), or pass a loss of your own that picks "
            "them: loss=lambda outputs, targets: cr.functional.cross_entropy(outputs[0], targets)"
        )
    if problem.kind == "classes":
        return _classes(problem.function, targets, outputs)
    return _numbers(problem, targets, outputs)


def _check_rows(rows: int, found: int) -> None:
    if found != rows:
        raise DataError(f"X and y need as many rows; got {rows} and {found}. Check how they were made")


def _float_of(outputs: Any) -> Dtype:
    leaves = present_leaves(outputs)
    return next((leaf.dtype for _, leaf in leaves if leaf.dtype.kind == "f"), np.dtype("float32"))


def _numbers(problem: Problem, targets: Array, outputs: Array) -> Array:
    targets = _cast(targets, outputs.dtype, "biuf")
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


def _classes(loss: Loss, targets: Array, outputs: Array) -> Array:
    name = loss.name
    if outputs.ndim < 2:
        raise DataError(f"{name} needs outputs (rows, classes); got {outputs.shape} from the model")
    if targets.dtype.kind == "f" and targets.shape[1:] == outputs.shape[1:] and loss.shares:
        return targets.astype(outputs.dtype, copy=False)
    if not loss.indices:
        raise DataError(
            f"{name} needs a probability for each class, of the outputs' shape {outputs.shape[1:]}; got rows of "
            f"{targets.dtype.name} {targets.shape[1:]}. Use loss='cross_entropy' for classes"
        )
    if targets.dtype.kind == "f":
        parts = targets.reshape(-1)[targets.reshape(-1) != np.floor(targets.reshape(-1))]
        shown = f" such as {parts[0]:g}" if parts.size else ""
        advice = "U" if parts.size else "Use y.astype(int), or u"
        raise DataError(
            f"{name} needs classes as whole numbers; got {targets.dtype.name}{shown}. {advice}se loss='mse' to predict "
            "numbers"
        )
    expected = (len(targets), *outputs.shape[2:])
    if targets.size != np.prod(expected):
        order = (0, outputs.ndim - 1, *range(1, outputs.ndim - 1))
        last = outputs.ndim > 2 and targets.shape[1:] == outputs.shape[1:-1]
        advice = (
            f"Classes are the axis 1 of what the model gives: return cr.permute_dims(scores, {order})"
            if last
            else f"A row of what the model gives is {outputs.shape[1:]}: classes, and then the axes of y"
        )
        raise DataError(
            f"{name} needs one class for each row, shape {expected}; got {targets.shape}. {advice}"
        )
    targets = targets.reshape(expected).astype(np.int64)
    _check_range(targets if loss.ignored is None else targets[targets != loss.ignored], outputs.shape[1])
    return targets


def _check_range(labels: Array, count: int) -> None:
    if not labels.size:
        raise DataError("y needs a row whose class is not ignored; got none. Check ignore_index")
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < count:
        return
    fix = f"Give the last layer {high + 1} outputs" if low >= 0 else "Number the classes from 0"
    if low == 1 and high == count:
        fix = "Number the classes from 0: y - 1"
    raise DataError(
        f"the model has {count} outputs, so classes are 0 to {count - 1}; got {low} to {high}. {fix}"
    )


def refuse_one_class(problem: Problem, targets: Any) -> None:
    """Raise DataError if all rows to be trained on are of one class: there is nothing to tell apart.

    A loss of the user's own, and batches from an iterable, may still do that.
    """
    if problem.kind not in ("classes", "binary") or len(targets) < 2:
        return
    labels = targets
    if problem.kind == "classes" and targets.dtype.kind == "f":
        labels = targets.argmax(axis=1)
    first = labels.reshape(-1)[0]
    if (labels == first).all() and (problem.kind == "classes" or first in (0, 1)):
        raise DataError(
            f"training needs rows of two classes at least; got class {int(first)} in all {len(targets)} rows. Check "
            "how y was made"
        )


# ------------------------------------------------------------------------------------------- forward


def tensor_of(array: Array) -> Tensor:
    """A constant on the array itself, without a copy."""
    return wrap(constant(array))


def tensors_of(arrays: Any) -> Any:
    """Constants on an array, or on each in a tuple or dict; None stays None."""
    return map_leaves(arrays, lambda leaf, _: None if leaf is None else tensor_of(leaf), "X")


def present_leaves(outputs: Any) -> list[tuple[str, Any]]:
    """Names and arrays of what a model returned, without the places where it returned None."""
    return [(name, leaf) for name, leaf in named_leaves(outputs, "outputs") if leaf is not None]


def call_model(model: nn.Module, inputs: Any) -> Any:
    """model(x); model(*x) for a tuple, model(**x) for a dict of tensors.

    Raises DataError if `forward` takes others, ShapeError with advice for X of one axis where rows were expected.
    """
    named = inputs if isinstance(inputs, dict) else {}
    places = () if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)
    try:
        return model(*places, **named)
    except TypeError as error:
        taken = unfit_call(model.forward, *places, **named)
        if taken is None:
            raise
        given = "one array" if len(places) == 1 else f"a tuple of {len(places)}"
        got = f"a dict of {', '.join(map(repr, named))}" if named else given
        raise DataError(
            f"X goes to {type(model).__name__}.forward{taken}; got {got}. Give a dict of those names, or a tuple in "
            "that order"
        ) from error
    except ShapeError as error:
        if not any(one.ndim == 1 and one.dtype.kind == "f" for one in (*places, *named.values())):
            raise
        raise ShapeError(
            f"a model needs rows, most often X of shape (rows, features); got X with one axis, and then: "
            f"{error.message.rstrip('.')}. For one feature write X.reshape(-1, 1), for one row X.reshape(1, -1)"
        ) from error


def run_model(model: nn.Module, x: Any, call: Callable[[Any, Any], Any] = call_model) -> Any:
    """Outputs for all rows, in evaluation mode and without gradients; the mode is put back afterwards.

    x: an array, or a tuple or dict of them. call: what calls the model. The outputs are an array, or a tuple or dict
    of them.
    """
    modes = [(module, module.training) for module in model.modules()]
    rows = rows_of(x)
    model.eval()
    try:
        with no_grad():
            parts = [
                output_arrays(call(model, tensors_of(_slice(x, start))))
                for start in range(0, rows, EVALUATION_ROWS)
            ]
    finally:
        for module, mode in modes:
            if module.training is not mode:
                module.training = mode
    return parts[0] if len(parts) == 1 else _joined(parts)


def _slice(x: Any, start: int) -> Any:
    return map_leaves(x, lambda leaf, _: leaf[start : start + EVALUATION_ROWS], "X")


def _joined(parts: list[Any]) -> Any:
    """Outputs of chunks of rows as those of all rows."""
    columns = [iter([leaf for _, leaf in present_leaves(part)]) for part in parts]

    def whole(leaf: Any, _: str) -> Any:
        return None if leaf is None else np.concatenate([next(column) for column in columns])

    return map_leaves(parts[0], whole, "outputs")


def output_arrays(outputs: Any) -> Any:
    """The arrays of what a model returned: one Tensor, or a tuple or dict of them. ArgumentError for anything else.

    In a tuple or dict a model may leave a place empty, as the loss where it was given no targets: None.
    """

    def array(leaf: Any, _: str) -> Array | None:
        if leaf is None and leaf is not outputs:
            return None
        if not isinstance(leaf, Tensor):
            raise ArgumentError(
                f"the model must return a Tensor, or a tuple or dict of them; got {type(leaf).__name__}"
            )
        return leaf.detach().numpy()

    return map_leaves(outputs, array, "outputs")


def measure(problem: Problem, outputs: Any, targets: Any, weights: Array | None = None) -> dict[str, float]:
    """Loss and metrics of all rows at once, each row counting as much as its weight."""
    with no_grad():
        found = {"loss": float(problem.loss(tensors_of(outputs), tensors_of(targets), weights))}
    for name, metric in problem.metrics.items():
        found[name] = metric(outputs, targets, weights)
    return found
