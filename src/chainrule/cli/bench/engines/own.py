"""The step written with chainrule: one native function.

Knows what a user of the package knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....compiler import available
from ....config import config
from ....dtypes import as_dtype
from ....errors import CompileError
from ....functional import cross_entropy
from ....nn import BatchNorm1d, Conv2d, Flatten, Linear, MaxPool2d, Module, ReLU, Sequential
from ....optim import SGD, Adam
from ....runtime import Compiled, Program, compile
from ....runtime.repeated import repeated
from ....tensor import Tensor
from ....tensor.creation import tensor
from ....tensor.manipulation import reshape
from ..workloads import Array, Layered, Workload
from . import Prepared
from .own_sequences import sequence_model


@dataclass(frozen=True)
class Own(Prepared):
    """Our step, with the program that runs it after a first call."""

    compiled: Compiled[Any, Any]

    def program(self) -> Program:
        """What runs the step. Raises CompileError before the first call."""
        last = self.compiled._last
        if not isinstance(last, Program):
            raise CompileError("the step has not been called yet. Call it once first")
        return last


def load() -> None:
    """Everything is loaded already; llvmlite counts to the first step, as it does for users."""


def environment(folder: str) -> dict[str, str]:
    """Where compiled code is kept."""
    return {"CHAINRULE_CACHE_DIR": folder, "CHAINRULE_CACHE": "1", "CHAINRULE_COMPILE": "1"}


def network(workload: Workload) -> Module:
    """The workload's network with its first weights."""
    model = _layers(workload) if isinstance(workload, Layered) else sequence_model(workload)
    model.to(as_dtype(workload.dtype))
    model.load_state_dict({name: tensor(array) for name, array in workload.weights().items()}, strict=False)
    return model


def _layers(workload: Layered) -> Module:
    made: dict[str, Callable[[int, int], Module]] = {
        "linear": Linear,
        "conv": lambda inputs, outputs: Conv2d(inputs, outputs, 3, padding=1),
        "norm": lambda inputs, outputs: BatchNorm1d(outputs),
        "relu": lambda inputs, outputs: ReLU(),
        "pool": lambda inputs, outputs: MaxPool2d(2),
        "flatten": lambda inputs, outputs: Flatten(),
    }
    return Sequential(*(made[one.kind](one.inputs, one.outputs) for one in workload.layers()))


def prepare(workload: Workload) -> Own:
    """The compiled step."""
    model = network(workload)
    optimizers = {"sgd": SGD, "adam": Adam}
    optimizer = optimizers[workload.optimizer](model.parameters(), lr=workload.rate)

    @compile
    def step(x: Tensor, y: Tensor) -> Tensor:
        logits = model(x)
        loss: Tensor = cross_entropy(reshape(logits, (-1, logits.shape[-1])), reshape(y, (-1,)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    def epoch() -> Callable[[], Any]:
        inputs, labels = workload.batches(workload.epoch)
        if not compiles:
            batches = list(zip(map(tensor, inputs), map(tensor, labels)))
            return lambda: [step(x, y) for x, y in batches]
        data = (inputs.reshape(-1, *inputs.shape[2:]), labels.reshape(-1, *labels.shape[2:]))
        return _repeated(own, data, workload.epoch)

    def keep() -> Callable[[], None]:
        if not compiles:
            return lambda: None
        cells = {cell: cell.array.copy() for cell, _ in own.program().graph.writes if cell.array is not None}

        def restore() -> None:
            for cell, array in cells.items():
                cell.write(array.copy())

        return restore

    compiles = config.compile and available()
    x, y = map(tensor, workload.data())
    how = "one call" if compiles else "calls"
    own = Own(lambda: step(x, y), lambda loss: float(loss.item()), epoch, keep, how, step)
    return own


def _repeated(own: Own, data: tuple[Array, Array], count: int) -> Callable[[], Any]:
    """So many steps in one native call, as `fit` makes them: it takes the rows of each batch by their numbers."""
    loop = repeated(own.program())
    if loop is None or not loop.fits(data):
        raise CompileError(
            "this step cannot be repeated in one call: Python has to do something between two steps"
        )
    order = np.arange(len(data[0]))

    def run() -> Any:
        _, losses, failure = loop.run(data, order, count)
        if failure is not None:
            raise failure
        return losses

    return run
