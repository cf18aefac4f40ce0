"""Losses of classes: one right class for each item as an index, or a probability for each class.

The axis of classes is the second one, or the only one of a single item. Items of the class `ignore_index` teach
nothing; the mean divides by the weights of the others, and is 0 where none is left.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError, BoundsError, DtypeError, ShapeError
from ..tensor import Tensor, as_tensor, wrap
from ..tensor.elementwise import astype, where
from ..tensor.manipulation import expand_dims, moved, reshaped, take
from ..tensor.statistical import sum
from .activations import log_softmax
from .checks import check_choice, check_number, check_range, floats
from .composite import composite, without_axis
from .linear import absorb
from .losses import REDUCTIONS, cast, check_weight, reduced

IGNORED = -100


@composite
def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = IGNORED,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """−log softmax(input) of the right class: `input` logits (N, C), (C,) or (N, C, …); `target` classes.

    target: class indices, of input's shape without the axis C; or probabilities, of input's shape.
    weight: (C,), from 0, the weight of each class. ignore_index: items of this class cost nothing.
    label_smoothing: from 0 to 1, the share of the target that is spread over all classes (Szegedy et al., "Rethinking
    the Inception architecture", 2016). reduction: "mean" divides by the weights of the items that count (by the number
    of items for probabilities); if none counts it is 0, where PyTorch gives NaN. The gradient of the logits is
    softmax − one-hot (divided by N for "mean").
    Raises BoundsError for a class outside 0 … C − 1, DtypeError for targets of another kind, ShapeError for shapes that
    do not fit, ArgumentError for a negative weight or another option.

    >>> import chainrule as cr
    >>> round(cross_entropy(cr.tensor([[0.0, 0.0]]), cr.tensor([1])).item(), 4)
    0.6931
    >>> cross_entropy(cr.tensor([[9.0, 0.0], [0.0, 0.0]]), cr.tensor([-100, 0]), weight=[1.0, 5.0], reduction="none")
    tensor([0.       , 0.6931472])
    """
    name = "cross_entropy"
    wanted = as_tensor(target)
    logits, axis = _with_classes(name, input, "logits", wanted)
    smoothing = check_smoothing(label_smoothing)
    check_choice("reduction", reduction, REDUCTIONS)
    factors = None if weight is None else _class_weights(name, weight, logits, axis)
    if wanted.dtype.kind == "f" and wanted.shape == logits.shape:
        shares = _smoothed(cast(wanted, logits), smoothing, axis)
        return reduced(_of_shares(logits, shares, axis, factors, ignore_index), reduction)
    items = _Items(name, logits, axis, wanted, ignore_index)
    return items.reduced(log_softmax(logits, axis), factors, reduction, smoothing)


@composite
def nll_loss(
    input: Any, target: Any, weight: Any = None, *, ignore_index: int = IGNORED, reduction: str = "mean"
) -> Tensor:
    """−input of the right class: `input` log-probabilities (N, C), (C,) or (N, C, …); `target` class indices.

    `cross_entropy` without its softmax: input is what `log_softmax` gives. target, weight, ignore_index, reduction and
    errors are those of `cross_entropy`.

    >>> import chainrule as cr
    >>> scores = cr.functional.log_softmax(cr.tensor([[0.0, 0.0]]))
    >>> round(nll_loss(scores, cr.tensor([1])).item(), 4)
    0.6931
    """
    wanted = as_tensor(target)
    scores, axis = _with_classes("nll_loss", input, "log-probabilities", wanted)
    check_choice("reduction", reduction, REDUCTIONS)
    factors = None if weight is None else _class_weights("nll_loss", weight, scores, axis)
    items = _Items("nll_loss", scores, axis, wanted, ignore_index)
    return items.reduced(scores, factors, reduction, 0.0)


def check_smoothing(value: float) -> float:
    """The share of the target that all classes get."""
    share = check_number("cross_entropy", "label_smoothing", value, least=0)
    if share > 1:
        raise ArgumentError(f"label_smoothing must be from 0 to 1; got {value!r}. 0.1 is usual")
    return share


def check_ignored(value: int) -> int:
    """A class, or a number that is none."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise ArgumentError(
            f"ignore_index must be a whole number; got {value!r}. Use the label of the items to leave out"
        )
    return int(value)


def _with_classes(name: str, x: Any, what: str, target: Tensor) -> tuple[Tensor, int]:
    """Scores as floats, and their axis of classes."""
    given = as_tensor(x)
    if given.dtype.kind in "iu" and target.dtype.kind == "f" and target.ndim > given.ndim:
        raise DtypeError(
            f"{name} takes {what} first and classes second; got {given.dtype.name} {given.shape} first and "
            f"{target.dtype.name} {target.shape} second. Swap them"
        )
    scores = floats(given)
    if not scores.ndim:
        raise ShapeError(f"{name} needs an axis of classes; got {what} of shape (). Use shape (N, C)")
    axis = 0 if scores.ndim == 1 else 1
    if not scores.shape[axis]:
        raise ShapeError(f"{name} needs at least one class; got {what} {scores.shape}. Use shape (N, C)")
    return scores, axis


def _class_weights(name: str, weight: Any, scores: Tensor, axis: int) -> Tensor:
    """One weight for each class, from 0, in the dtype of the scores."""
    factors = check_weight(name, weight)
    classes = scores.shape[axis]
    if factors.shape != (classes,):
        raise ShapeError(
            f"{name} needs one weight for each class, shape ({classes},); got {factors.shape}. "
            "Weights of items: use reduction='none' and multiply"
        )
    message = f"{name} needs class weights from 0; got {{low:.6g}}. Use 0 to leave a class out"
    check_range(factors.node, 0, math.inf, message)
    return cast(factors, scores)


# -------------------------------------------------------------------------------------- probabilities


def _smoothed(shares: Tensor, smoothing: float, axis: int) -> Tensor:
    return shares if smoothing == 0 else shares * (1 - smoothing) + smoothing / shares.shape[axis]


def _of_shares(
    logits: Tensor, shares: Tensor, axis: int, factors: Tensor | None, ignore_index: int
) -> Tensor:
    """The losses of items whose target is a probability for each class."""
    if check_ignored(ignore_index) >= 0:
        raise ArgumentError(
            f"cross_entropy ignores class indices only; got ignore_index={ignore_index} and probabilities as target. "
            "Give the items to leave out probabilities of 0"
        )
    if factors is not None:
        shares = absorb(shares, reshaped(factors, (*factors.shape, *(1,) * (shares.ndim - axis - 1))))
    # A class of probability 0 costs nothing, even where its logit is −∞.
    return -sum(absorb(shares, log_softmax(logits, axis)), axis=axis)


# ---------------------------------------------------------------------------------------------- indices


class _Items:
    """The right classes of the items, checked, and which of them count."""

    def __init__(self, name: str, scores: Tensor, axis: int, target: Tensor, ignore_index: int) -> None:
        self.name, self.axis = name, axis
        self.shape, self.classes = without_axis(scores.shape, axis), scores.shape[axis]
        self.ignored = check_ignored(ignore_index)
        self._check_kind(target, scores)
        self.kept = target != self.ignored if self._may_ignore(target) else None
        self.labels = target if self.kept is None else where(self.kept, target, 0)
        message = (
            f"{name} needs classes from 0 to {self.classes - 1}; got {{low}} to {{high}}. "
            "Check the labels, or the size of the last layer"
        )
        check_range(self.labels.node, 0, self.classes - 1, message, BoundsError)

    def _check_kind(self, target: Tensor, scores: Tensor) -> None:
        if target.dtype.kind not in "iu":
            more = (
                f" or probabilities (floats of shape {scores.shape})" if self.name == "cross_entropy" else ""
            )
            raise DtypeError(
                f"{self.name} needs class indices (integers of shape {self.shape}){more}; got "
                f"{target.dtype.name} {target.shape}. Use astype(int64)"
            )
        if target.shape != self.shape:
            raise ShapeError(
                f"{self.name} needs one class for each item, shape {self.shape} for scores {scores.shape}; got "
                f"{target.shape}. {self._advice(scores.shape, target.shape)}"
            )

    def _advice(self, scores: tuple[int, ...], target: tuple[int, ...]) -> str:
        """How to make targets fit: one-hot rows are floats, and classes are the axis 1 of the scores."""
        if target == scores and self.name == "cross_entropy":
            return "For one-hot rows use astype('float32')"
        if len(scores) > 2 and target == scores[:-1]:
            order = (0, len(scores) - 1, *range(1, len(scores) - 1))
            return (
                f"Classes are the axis 1 of the scores: give cr.permute_dims(scores, {order}), or "
                f"scores.reshape(-1, {scores[-1]}) with target.reshape(-1)"
            )
        return f"Reshape the target to {self.shape}"

    def _may_ignore(self, target: Tensor) -> bool:
        """Where the labels are known, the graph shows the mask only if an item is left out (or there is none)."""
        values = target.node.value
        if values is None:
            return _holds(target, self.ignored)
        return not values.size or bool((values == self.ignored).any())

    def _picked(self, rows: Tensor) -> Tensor:
        return wrap(ops.take_along.node((rows.node, expand_dims(self.labels, axis=-1).node), {}))

    def reduced(self, scores: Tensor, factors: Tensor | None, reduction: str, smoothing: float) -> Tensor:
        """−score of the right class, weighted and smoothed, reduced."""
        rows = moved(scores, self.axis, -1)
        picked = self._picked(rows)
        if factors is None and self.kept is None and not smoothing:
            return reduced(-(reshaped(picked, self.shape) if reduction == "none" else picked), reduction)
        costs = -reshaped(picked, self.shape)
        weights = self._weights(factors, scores)
        if smoothing:
            costs = costs * (1 - smoothing)
        if weights is not None:
            costs = absorb(costs, weights)
        if smoothing:
            costs = costs + self._spread(rows, factors) * (smoothing / self.classes)
        if weights is None or reduction != "mean":
            return reduced(costs, reduction)
        total = sum(weights)
        return where(total == 0, 0.0, sum(costs) / total)  # nothing counts, nothing is learnt

    def _weights(self, factors: Tensor | None, scores: Tensor) -> Tensor | None:
        """The weight of each item, 0 for those left out; None if all count the same."""
        if factors is None:
            return None if self.kept is None else astype(self.kept, scores.dtype)
        flat = reshaped(self.labels, (self.labels.size,))
        weights = reshaped(take(factors, flat, axis=0), self.shape)
        return weights if self.kept is None else where(self.kept, weights, 0.0)

    def _spread(self, rows: Tensor, factors: Tensor | None) -> Tensor:
        """−Σ of the weighted scores of all classes, for the items that count."""
        total = -sum(rows if factors is None else absorb(rows, factors), axis=-1)
        return total if self.kept is None else where(self.kept, total, 0.0)


def _holds(labels: Tensor, number: int) -> bool:
    """Whether the dtype of the labels has this number."""
    limits = np.iinfo(labels.dtype)
    return bool(limits.min <= number <= limits.max)
