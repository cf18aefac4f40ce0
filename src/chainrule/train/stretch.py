"""Many batches of an epoch in one native call.

Where nothing has to be done between two updates (no callback that wants to be told, no rate that changes), a stretch of
batches is run by one call, about a tenth of a second long, so that progress is shown and Ctrl-C is heard. How long a
stretch is changes nothing: all numbers are those that single steps give, bit for bit.
Knows arrays, the engine and its programs; knows nothing of epochs, files and callbacks.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..config import config
from ..data.arrays import map_leaves, named_leaves
from ..data.sources import ArraySource
from ..errors import ChainruleError
from ..runtime.repeated import Repeated, repeated
from ..runtime.served import Served
from .engine import StepEngine
from .problem import Array, Problem, tensor_of, tensors_of

# Seconds of a stretch, and of what length the first one is, in batches.
_SECONDS = 0.1
_FIRST = 4
# Bytes of outputs that a stretch may give back.
_MOST_BYTES = 32 << 20


class Made(NamedTuple):
    """What a stretch gives: of each batch its loss and size, the outputs (batches, rows, …), and why it ended early."""

    losses: list[float]
    sizes: list[float]
    outputs: Any
    failure: ChainruleError | None


class Stretches:
    """Runs stretches of full batches of arrays in memory."""

    def __init__(self, engine: StepEngine, problem: Problem, source: ArraySource) -> None:
        self._engine = engine
        self._loss = problem.function
        self._source = source
        targets = () if source.targets is None else named_leaves(source.targets, "y")
        weights = None if source.weights is None else np.ascontiguousarray(source.weights, np.float64)
        self._data = [one for _, one in (*named_leaves(source.inputs, "X"), *targets)]
        self._data += [] if weights is None else [weights]
        self._whole = weights is None and self._loss.counts_rows(source.targets)
        self._template: Any = None
        self._made: tuple[Served, Repeated | None] | None = None
        self._length = _FIRST

    @property
    def batches(self) -> int:
        """Batches of an epoch that are full."""
        return self._source.rows // self._source.batch_size

    def ready(self) -> bool:
        """Whether the next batch may be the first one of a stretch."""
        if not config.check_finite:
            return False
        if self._template is None:
            batch = self._source.take(np.zeros(self._source.batch_size, np.int64))
            targets = None if batch.targets is None else tensors_of(batch.targets)
            weights = None if batch.weights is None else tensor_of(np.asarray(batch.weights, np.float64))
            self._template = (tensors_of(batch.inputs), targets, weights, None)
        found = self._engine.program(self._template, True)
        if found is None:
            return False
        self._kind, program = found
        if self._made is None or self._made[0] is not program:
            made = repeated(program)
            self._made = program, made if made is not None and made.fits(self._data) else None
        return self._made[1] is not None

    def run(self, order: NDArray[np.int64], most: int) -> Made:
        """The next stretch: batches of the rows in `order`, at most `most` of them. Only after `ready`."""
        assert self._made is not None and self._made[1] is not None
        program, size = self._made[1], self._source.batch_size
        count = min(
            most, self._length, len(order) // size, max(1, _MOST_BYTES // max(1, program.output_bytes))
        )
        started = time.perf_counter()
        done, (losses, outputs), failure = program.run(self._data, order[: count * size], count)
        seconds = (time.perf_counter() - started) / max(1, done)
        self._length = max(1, min(8 * self._length, int(_SECONDS / max(seconds, 1e-7))))
        self._kind.calls += done
        sizes = [float(size)] * done if self._whole else self._sizes(order, done)
        return Made(losses.reshape(done).tolist(), sizes, outputs, failure)

    def _sizes(self, order: NDArray[np.int64], done: int) -> list[float]:
        """How much each batch counts in the mean of the losses."""
        size = self._source.batch_size
        batches = (self._source.take(order[k * size : (k + 1) * size]) for k in range(done))
        return [self._loss.count(one.targets, one.rows, one.weights) for one in batches]

    def targets(self, order: NDArray[np.int64]) -> Any:
        """The targets of rows."""
        return map_leaves(self._source.targets, lambda leaf, _: leaf.take(order, axis=0), "y")


def rows_of_outputs(outputs: Any, first: int, last: int) -> Any:
    """The outputs of batches `first` to `last` of a stretch, as those of so many rows."""

    def part(leaf: Any, _: str) -> Array:
        chosen: Array = leaf[first:last]
        return chosen.reshape(-1, *chosen.shape[2:])

    return map_leaves(outputs, part, "outputs")
