"""Which learning rate to train with: a short training whose rate grows at every step, and everything put back.

Source: L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", 2017 (the range test).
Knows models, losses and optimizers; knows nothing of epochs.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import nn
from ..blas import single_threaded
from ..data.sources import Batch, Source
from ..elsewhere import checked
from ..errors import ArgumentError
from ..graph import Cell
from ..optim import Adam, Optimizer
from ..tensor import Tensor
from ..tensor.random import default_generator
from .problem import make_problem, tensors_of
from .snapshot import generators
from .sources import Batching, Weighing, make_sources
from .step import NotFiniteError, Step, make_step, number

# Losses so far are averaged with this share of the past, and the test ends when that is so many times the lowest.
_PAST = 0.9
_DIVERGED = 4.0

# The steps on either side over which the curve is smoothed, as a share of all, and the fewest steps to read it.
_NEIGHBOURS = 0.05
_FEWEST = 10

# How far below the rate of the lowest loss the suggestion stays, and how much the loss must fall to make one.
_SAFETY = 10.0
_FALL = 0.02

# The first of so many parts of the curve is where rates are too small to change the loss.
_PLATEAU = 4

_COLUMNS, _ROWS = 60, 10


class LearningRates:
    """What `find_learning_rate` saw: losses beside learning rates, and the rate to begin with.

    rates, losses: float64 (steps,), the losses smoothed. raw: the losses as they were. suggestion: the rate at which
    the loss has fallen half of its way, at most a tenth of the rate of the lowest loss; None if the loss did not fall.
    `print` shows the curve.
    """

    def __init__(self, rates: ArrayLike, raw: ArrayLike) -> None:
        self.rates: NDArray[np.float64] = np.array(rates, np.float64)
        self.raw: NDArray[np.float64] = np.array(raw, np.float64)
        self.losses = _smoothed(self.raw)
        self.suggestion = _suggested(self.rates, self.losses)

    def __repr__(self) -> str:
        shown = "none" if self.suggestion is None else f"{self.suggestion:.2g}"
        return (
            f"LearningRates(suggestion {shown}, from {self.rates[0]:.2g} to {self.rates[-1]:.2g} in {len(self.rates)} "
            "steps)"
        )

    def __str__(self) -> str:
        return f"{self.chart()}\n{self!r}"

    def chart(self) -> str:
        """The smoothed losses over the rates, in text; the rates grow by factors."""
        low, high = (
            float(self.losses.min()),
            float(min(self.losses.max(), 2 * self.losses[0] - self.losses.min())),
        )
        span = high - low or 1.0
        places = np.log(self.rates / self.rates[0]) / max(math.log(self.rates[-1] / self.rates[0]), 1e-300)
        rows = [[" "] * _COLUMNS for _ in range(_ROWS)]
        for place, loss in zip(places, self.losses):
            if loss <= high:
                rows[round((_ROWS - 1) * (high - loss) / span)][round((_COLUMNS - 1) * place)] = "•"
        labels = [f"{high:9.3g} ┤", *["          │"] * (_ROWS - 2), f"{low:9.3g} ┤"]
        lines = [label + "".join(row).rstrip() for label, row in zip(labels, rows)]
        axis = ["─"] * _COLUMNS
        if self.suggestion is not None:
            axis[round((_COLUMNS - 1) * float(np.interp(self.suggestion, self.rates, places)))] = "▲"
        ends = f"{self.rates[0]:.2g}", f"{self.rates[-1]:.2g}"
        between = " " * (_COLUMNS - len(ends[0]) - len(ends[1]))
        return "\n".join([*lines, " " * 10 + "└" + "".join(axis), " " * 11 + ends[0] + between + ends[1]])


@checked(
    dict.fromkeys(("start", "min_lr", "start_lr"), "Use low=…")
    | dict.fromkeys(("end", "max_lr", "end_lr"), "Use high=…")
)
def find_learning_rate(
    model: nn.Module,
    data: Any,
    *,
    loss: Any = "cross_entropy",
    optimizer: Optimizer | None = None,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
    seed: int = 0,
) -> LearningRates:
    """Train for some steps while the learning rate grows from `low` to `high`; where the loss falls is a good rate.

    data: (X, y), a DataLoader or an iterable of batches, as for `fit`. loss: as for `fit`.
    optimizer: Adam by default; rates of several groups keep their ratios, and the suggestion is for the first.
    The test ends early where the loss grows to four times its lowest. Afterwards model, optimizer, gradients and
    generators of random numbers are exactly what they were. Raises DataError and ArgumentError as `fit` does.

    >>> import chainrule as cr
    >>> x = [[0.0], [1.0], [2.0], [3.0]] * 8
    >>> _ = cr.manual_seed(0)
    >>> found = find_learning_rate(nn.Linear(1, 2), (x, [0, 0, 1, 1] * 8))
    >>> 1e-4 < found.suggestion < 10
    True
    """
    _check(model, optimizer, low, high, steps)
    chosen = Adam(model.parameters()) if optimizer is None else optimizer
    problem = make_problem(loss, ())
    with _put_back(model, chosen), single_threaded():
        sources = make_sources(model, problem, data, None, batch_size, seed, Weighing(), Batching())
        step = make_step(model, problem, chosen)
        model.train()
        chosen.zero_grad()
        rates = np.geomspace(low, high, steps)
        raw = list(_losses(step, chosen, sources.training, rates))
    if len(raw) < _FEWEST:
        raise ArgumentError(
            f"the loss was finite for {len(raw)} steps only, from a learning rate of {low:g} on. Use a lower low=, and "
            "inputs scaled to about −1 … 1"
        )
    return LearningRates(rates[: len(raw)], raw)


def _check(model: Any, optimizer: Any, low: Any, high: Any, steps: Any) -> None:
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"find_learning_rate takes an nn.Module; got {type(model).__name__}")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise ArgumentError(
            f"optimizer must be one of chainrule.optim; got {type(optimizer).__name__}. Write "
            "optim.SGD(model.parameters(), lr=0.1)"
        )
    fits = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (low, high))
    if not fits or not 0 < low < high < math.inf:
        raise ArgumentError(f"learning rates must be 0 < low < high; got {low!r} and {high!r}")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < _FEWEST:
        raise ArgumentError(f"steps must be a whole number from {_FEWEST}; got {steps!r}")


def _losses(step: Step, optimizer: Optimizer, source: Source, rates: NDArray[np.float64]) -> Iterator[float]:
    """The loss before each step; ends where training diverges."""
    ratios = [float(group["lr"]) for group in optimizer.param_groups]
    first = ratios[0] if ratios[0] > 0 else 1.0
    average = 0.0
    lowest = math.inf
    for k, (rate, batch) in enumerate(zip(rates.tolist(), _batches(source))):
        for group, own in zip(optimizer.param_groups, ratios):
            group["lr"] = rate * (own / first if ratios[0] > 0 else 1.0)
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                found, _ = step(
                    tensors_of(batch.inputs), tensors_of(batch.targets), batch.weights, None, True
                )
        except NotFiniteError:
            return
        value = number(found)
        average = _PAST * average + (1 - _PAST) * value
        smooth = average / (1 - _PAST ** (k + 1))
        yield value
        lowest = min(lowest, smooth)
        if k >= _FEWEST and smooth > _DIVERGED * abs(lowest):
            return


def _batches(source: Source) -> Iterator[Batch]:
    """Epoch after epoch."""
    for number_ in itertools.count(1):
        yield from source.epoch(number_)


def _smoothed(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each loss averaged with its neighbours on both sides, so that no fall is seen late."""
    reach = max(1, round(_NEIGHBOURS * len(raw)))
    weights = 1.0 - np.abs(np.arange(-reach, reach + 1)) / (reach + 1)
    total = np.convolve(raw, weights)[reach : reach + len(raw)]
    return np.asarray(total / np.convolve(np.ones(len(raw)), weights)[reach : reach + len(raw)])


def _suggested(rates: NDArray[np.float64], losses: NDArray[np.float64]) -> float | None:
    """Where the loss has fallen half of its way; seen from the lowest loss, so that noise at the start is no fall."""
    lowest = int(losses.argmin())
    start = float(np.median(losses[: max(1, len(losses) // _PLATEAU)]))
    least = float(losses[lowest])
    above = np.flatnonzero(losses[:lowest] > (start + least) / 2)
    if not above.size or least > start - _FALL * abs(start):
        return None
    return float(min(rates[above[-1]], rates[lowest] / _SAFETY))


# ------------------------------------------------------------------------------------------- all as it was


@contextmanager
def _put_back(model: nn.Module, optimizer: Optimizer) -> Iterator[None]:
    """Whatever happens inside, model, optimizer, gradients and random numbers are as before."""
    modes = [(module, module.training) for module in model.modules()]
    tensors = [*model.parameters(), *model.buffers()]
    learnt = [one for group in optimizer.param_groups for one in group["params"]]
    gradients = [(one, one.grad) for one in (*model.parameters(), *learnt)]
    entries = {one: dict(kept) for one, kept in optimizer.state.items()}
    tensors += [one for kept in entries.values() for one in kept.values()]
    arrays = [(cell, np.array(cell.array)) for cell in map(_cell, (*tensors, *learnt))]
    options = [
        {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
    ]
    sources = [default_generator, *(one for _, one in generators(model))]
    words = [one.get_state() for one in sources]
    others = random.getstate(), copy.deepcopy(np.random.get_state())
    try:
        yield
    finally:
        for cell, array in arrays:
            cell.write(array)
        for one, gradient in gradients:
            one.grad = gradient
        for parameter in list(optimizer.state):
            if parameter not in entries:
                del optimizer.state[parameter]
            else:
                optimizer.state[parameter] = entries[parameter]
        for group, own in zip(optimizer.param_groups, options):
            group.update(own)
        for module, mode in modes:
            if module.training is not mode:
                module.training = mode
        for one, state in zip(sources, words):
            one.set_state(state)
        random.setstate(others[0])
        np.random.set_state(others[1])


def _cell(tensor: Tensor) -> Cell:
    assert tensor.cell is not None
    return tensor.cell
