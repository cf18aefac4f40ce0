"""Losses by name, as modules and as functions: which targets they need, and their weighted mean over rows.

Knows nothing of models and of data sets.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import functional, nn
from ..elsewhere import unfit_call
from ..errors import ArgumentError
from ..tensor import Tensor, as_tensor
from ..tensor.elementwise import astype, where
from ..tensor.manipulation import broadcast_to, take

Function = Callable[..., Any]

# The class that the losses of classes leave out, unless told another; PyTorch's number.
_IGNORED = -100


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss (outputs, targets) → one number, and what is known of it.

    kind: "classes", "binary", "numbers" or "custom". logits: whether outputs are logits or log-probabilities, and not
    probabilities. each: the same loss for every row or place, None where a function cannot tell it.
    indices, shares: for classes, whether targets may be indices, and probabilities of the outputs' shape.
    ignored, class_weight: the index that is left out, and the loss's own weights of classes, which its mean divides by.
    """

    name: str
    function: Function
    each: Function | None
    kind: str = "custom"
    logits: bool = True
    indices: bool = True
    shares: bool = True
    ignored: int | None = None
    class_weight: NDArray[Any] | None = None
    summed: bool = False

    def mean(self, outputs: Any, targets: Any, weights: Any = None) -> Tensor:
        """The loss of a batch, one number. weights: (rows,), or None; where all are 0 the loss is 0."""
        found = (
            self.function(outputs, targets) if weights is None else self._weighted(outputs, targets, weights)
        )
        if not isinstance(found, Tensor) or found.size != 1:
            shown = f"shape {found.shape}" if isinstance(found, Tensor) else type(found).__name__
            raise ArgumentError(
                f"a loss must be one number, a Tensor; got {shown} from {self.name}. Use .mean()"
            )
        return found

    def _weighted(self, outputs: Any, targets: Any, weights: Any) -> Any:
        if self.each is None:
            raise ArgumentError(
                f"weights of rows need the loss of each row; got the function {self.name}, which has no reduction=. "
                "Give it a keyword reduction, and return a number for each row where that is 'none'"
            )
        losses = self.each(outputs, targets)
        rows = len(weights)
        if not isinstance(losses, Tensor) or losses.shape[:1] != (rows,):
            shown = f"shape {losses.shape}" if isinstance(losses, Tensor) else type(losses).__name__
            raise ArgumentError(
                f"with reduction='none' a loss must return a number for each of {rows} rows; got {shown} from "
                f"{self.name}"
            )
        given = as_tensor(weights, dtype=np.dtype("float64")).reshape((-1, *[1] * (losses.ndim - 1)))
        shares = broadcast_to(given, losses.shape)
        if not self.summed:
            total = (shares * self._counts(targets, losses.shape)).sum()
            some = total > 0.0
            shares = where(some, shares, 0.0) / where(some, total, 1.0)
        return (losses * astype(shares, losses.dtype)).sum()

    def count(self, targets: Any, rows: int, weights: Any = None) -> float:
        """How much a batch counts in a mean over several batches: what the sum of its losses is divided by.

        targets: an array, or anything else where they do not matter. weights: an array, or None.
        """
        shares = np.ones(rows) if weights is None else np.asarray(weights, np.float64)
        if not isinstance(targets, np.ndarray) or not self._leaves_out(targets):
            return float(shares.sum())
        known = targets != self.ignored
        counts = np.asarray(known, np.float64)
        if self.class_weight is not None:
            counts = np.where(known, self.class_weight[np.where(known, targets, 0)], 0.0)
        return float(shares @ counts.reshape(rows, -1).sum(axis=1))

    def counts_rows(self, targets: Any) -> bool:
        """Whether `count` is the number of rows for every batch of these targets without weights."""
        if not isinstance(targets, np.ndarray) or not self._leaves_out(targets):
            return True
        return self.class_weight is None and targets.ndim == 1 and not (targets == self.ignored).any()

    def _leaves_out(self, targets: Any) -> bool:
        """Whether places may count less than others."""
        return self.ignored is not None and targets.dtype.kind != "f"

    def _counts(self, targets: Any, shape: tuple[int, ...]) -> Any:
        """How much each place counts in the mean, before the weights of rows."""
        if not isinstance(targets, Tensor) or not self._leaves_out(targets):
            return 1.0
        labels = targets.reshape(shape)
        known = labels != self.ignored
        if self.class_weight is None:
            return astype(known, np.float64)
        rule = as_tensor(self.class_weight)
        return where(known, take(rule, where(known, labels, 0).reshape(-1), axis=0).reshape(shape), 0.0)


def _divergence(input: Any, target: Any, reduction: str = "batchmean") -> Tensor:
    """KL divergence of rows of probabilities: summed over the classes, the mean over the rows."""
    found = functional.kl_div(input, target, reduction=reduction)
    return _row_sums(found) if reduction == "none" else found


def _row_sums(losses: Tensor) -> Tensor:
    return losses.reshape((losses.shape[0], -1)).sum(axis=1)


def _known(name: str, function: Function, kind: str, **facts: Any) -> Loss:
    return Loss(name, function, functools.partial(function, reduction="none"), kind, **facts)


_LOSSES: dict[str, Loss] = {
    one.name: one
    for one in (
        _known("cross_entropy", functional.cross_entropy, "classes", ignored=_IGNORED),
        _known("nll", functional.nll_loss, "classes", ignored=_IGNORED, shares=False),
        _known("kl_div", _divergence, "classes", indices=False),
        _known("bce", functional.binary_cross_entropy, "binary", logits=False),
        _known("bce_with_logits", functional.binary_cross_entropy_with_logits, "binary"),
        _known("mse", functional.mse_loss, "numbers"),
        _known("l1", functional.l1_loss, "numbers"),
        _known("huber", functional.huber_loss, "numbers"),
        _known("smooth_l1", functional.smooth_l1_loss, "numbers"),
    )
}
_FUNCTIONS: dict[Any, str] = {one.function: name for name, one in _LOSSES.items()} | {
    functional.kl_div: "kl_div"
}
_MODULES: dict[type[nn.Module], str] = {
    nn.CrossEntropyLoss: "cross_entropy",
    nn.NLLLoss: "nll",
    nn.KLDivLoss: "kl_div",
    nn.BCELoss: "bce",
    nn.BCEWithLogitsLoss: "bce_with_logits",
    nn.MSELoss: "mse",
    nn.L1Loss: "l1",
    nn.HuberLoss: "huber",
    nn.SmoothL1Loss: "smooth_l1",
}
# Other words for them: the functions' own names, and scikit-learn's and Keras'.
_ALIASES = {
    "mse_loss": "mse",
    "mean_squared_error": "mse",
    "l1_loss": "l1",
    "mae": "l1",
    "mean_absolute_error": "l1",
    "huber_loss": "huber",
    "smooth_l1_loss": "smooth_l1",
    "nll_loss": "nll",
    "binary_cross_entropy": "bce",
    "binary_cross_entropy_with_logits": "bce_with_logits",
}
# Names that do not say whether the model gives logits → what to choose from.
_ELSEWHERE = {
    **dict.fromkeys(("ce", "sparse_categorical_crossentropy", "categorical_crossentropy", "log_loss"),
                    "Use 'cross_entropy', with a model that ends before its softmax"),
    "binary_crossentropy": "Use 'bce_with_logits', or 'bce' for a model that ends in a sigmoid",
}  # fmt: skip


def find_loss(loss: Any) -> Loss:
    """What is known of a loss: a name, a module of `nn`, or a function (outputs, targets). ArgumentError for others.

    >>> find_loss("huber").kind, find_loss(nn.BCELoss()).logits
    ('numbers', False)
    """
    if isinstance(loss, str):
        plain = _ALIASES.get(loss, loss)
        if plain in _LOSSES:
            return _LOSSES[plain]
        if loss in _ELSEWHERE:
            raise ArgumentError(
                f"loss must be {', '.join(_LOSSES)}, or a function; got {loss!r}. {_ELSEWHERE[loss]}"
            )
        close = difflib.get_close_matches(loss, [*_LOSSES, *_ALIASES], 1)
        hint = f". Did you mean {_ALIASES.get(close[0], close[0])!r}?" if close else ". Name one of these"
        raise ArgumentError(f"loss must be {', '.join(_LOSSES)}, or a function; got {loss!r}{hint}")
    if isinstance(loss, type) or not callable(loss):
        shown = f"the class {loss.__name__}" if isinstance(loss, type) else type(loss).__name__
        fix = f". Write {loss.__name__}()" if isinstance(loss, type) else ""
        raise ArgumentError(
            f"loss must be a name, a module or a function (outputs, targets); got {shown}{fix}"
        )
    if (taken := unfit_call(loss, None, None)) is not None:
        raise ArgumentError(f"a loss is called with (outputs, targets); got a function that takes {taken}")
    if isinstance(loss, nn.Module):
        return _of_module(loss)
    plain_function = loss.func if isinstance(loss, functools.partial) else loss
    name = _FUNCTIONS.get(plain_function) if inspect.isroutine(plain_function) else None
    each = functools.partial(loss, reduction="none") if name or _takes_reduction(loss) else None
    if name is None:
        return Loss(getattr(loss, "__name__", type(loss).__name__), loss, each)
    own = loss.keywords if isinstance(loss, functools.partial) else {}
    return _with_options(_LOSSES[name], loss, each, own)


def _of_module(module: nn.Module) -> Loss:
    name = next((name for kind, name in _MODULES.items() if isinstance(module, kind)), None)
    if name is None:
        return Loss(type(module).__name__, module, None)
    # A second handle on the same loss and its weights, which only reduces otherwise.
    one = type(module).__new__(type(module))
    vars(one).update(vars(module), reduction="none")
    each: Function = one
    if getattr(module, "reduction", None) == "batchmean":
        each = lambda outputs, targets: _row_sums(one(outputs, targets))
    return _with_options(_LOSSES[name], module, each, vars(module))


def _with_options(known: Loss, function: Function, each: Function | None, options: Any) -> Loss:
    """A known loss with options of its own."""
    found = replace(known, function=function, each=each, summed=options.get("reduction") == "sum")
    if known.ignored is None:
        return found
    weight = options.get("weight")
    array = weight.detach().numpy() if isinstance(weight, Tensor) else weight
    return replace(
        found,
        ignored=options.get("ignore_index", known.ignored),
        class_weight=None if array is None else np.asarray(array, np.float64),
    )


def _takes_reduction(function: Any) -> bool:
    try:
        return "reduction" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
