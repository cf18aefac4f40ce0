"""Everything that decides how a training goes on, as one nested state; and a training put back to such a state.

With the same state, data and machine the next batch gives the same bits: so besides weights and optimizer there are
random generators, schedulers, modes of modules, the place in the epoch, and what was added up in it so far.
Knows nothing of files.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .. import nn
from ..graph import Cell, constant
from ..tensor import Tensor
from ..tensor.random import Generator, default_generator
from .callbacks import Callbacks
from .metrics import Metric
from .watch import Watch

Record = dict[str, float]


@dataclass
class Place:
    """Where in the training we are: `batch` batches of epoch `epoch` (from 1) are done, and `step` updates in all.

    loss, weight: the sum of the losses of this epoch's batches, each times the weight of its rows, and that of the
    weights. seconds: what this epoch took so far.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    loss: float = 0.0
    weight: float = 0.0
    seconds: float = 0.0

    def next_epoch(self) -> None:
        """The beginning of the next epoch."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.loss = self.weight = self.seconds = 0.0


@dataclass
class Parts:
    """What a training consists of, as far as it has a state."""

    model: nn.Module
    optimizers: list[Any]
    schedulers: list[Any]
    callbacks: Callbacks
    watch: Watch
    metrics: dict[str, Metric]
    history: list[Record]
    engines: dict[str, Any] = field(default_factory=dict)
    place: Place = field(default_factory=Place)


def gather(parts: Parts, stopped: str) -> dict[str, Any]:
    """The state of a training between two updates."""
    model = parts.model
    return {
        "model": model.state_dict(),
        "temporary_buffers": {name: cell_of(one).array for name, one in _temporary(model)},
        "gradients": {
            name: one.grad.detach() for name, one in model.named_parameters() if one.grad is not None
        },
        "frozen": [name for name, one in model.named_parameters() if not one.requires_grad],
        "evaluating": [name for name, one in model.named_modules() if not one.training],
        "optimizers": [one.state_dict() for one in parts.optimizers],
        "schedulers": [one.state_dict() for one in parts.schedulers],
        "random": _random_state(model),
        "place": asdict(parts.place),
        "metrics": {name: one.state_dict() for name, one in parts.metrics.items()},
        "history": [dict(one) for one in parts.history],
        "watch": parts.watch.state_dict(),
        "callbacks": parts.callbacks.state_dict(),
        "engines": {name: one.state_dict() for name, one in parts.engines.items()},
        "stopped": stopped,
    }


def restore(parts: Parts, state: Mapping[str, Any]) -> None:
    """Put a training back to a state that `gather` gave."""
    model = parts.model
    model.load_state_dict(state["model"])
    temporary = state["temporary_buffers"]
    for name, one in _temporary(model):
        if name in temporary:
            cell_of(one).write(_array(temporary[name]))
    for name, one in model.named_parameters():
        one.requires_grad = name not in state["frozen"]
        gradient = state["gradients"].get(name)
        one.grad = gradient
    for name, module in model.named_modules():
        if module.training is not (name not in state["evaluating"]):
            module.training = not module.training
    for mine, saved in zip(parts.optimizers, state["optimizers"], strict=True):
        mine.load_state_dict(saved)
    for scheduler, saved in zip(parts.schedulers, state["schedulers"], strict=True):
        scheduler.load_state_dict(saved)
    for metric, name in [(parts.metrics[name], name) for name in state["metrics"]]:
        metric.load_state_dict(state["metrics"][name])
    parts.history[:] = [dict(one) for one in state["history"]]
    parts.watch.load_state_dict(state["watch"])
    parts.callbacks.load_state_dict(state["callbacks"])
    for name, value in state["place"].items():
        setattr(parts.place, name, value)
    _restore_random(model, state["random"])
    settle(cells(model))
    for name, engine in parts.engines.items():
        engine.load_state_dict(state["engines"][name])


# ------------------------------------------------------------------------------------------- random numbers


def generators(model: nn.Module) -> Iterator[tuple[str, Generator]]:
    """Random generators that modules hold as attributes, with their paths."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Generator):
                yield f"{path}.{name}" if path else name, value


def _random_state(model: nn.Module) -> dict[str, Any]:
    """The default generator, those of modules, and the global ones of NumPy and Python, which users' code may use."""
    numpy_state: Any = np.random.get_state(legacy=False)
    version, words, spare = random.getstate()
    return {
        "default": default_generator.get_state(),
        "modules": {path: one.get_state() for path, one in generators(model)},
        "numpy": {
            "key": np.array(numpy_state["state"]["key"]),
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        }
        if numpy_state["bit_generator"] == "MT19937"
        else None,
        "python": {"version": version, "words": np.array(words, np.int64), "spare": spare},
    }


def _restore_random(model: nn.Module, state: Mapping[str, Any]) -> None:
    default_generator.set_state([int(word) for word in state["default"]])
    for path, one in generators(model):
        if path in state["modules"]:
            one.set_state([int(word) for word in state["modules"][path]])
    found = state["numpy"]
    if found is not None:
        key = _array(found["key"])
        np.random.set_state(("MT19937", key, found["pos"], found["has_gauss"], found["gauss"]))
    python = state["python"]
    random.setstate((python["version"], tuple(_array(python["words"]).tolist()), python["spare"]))


# ------------------------------------------------------------------------------------------- cells


def cells(model: nn.Module) -> list[Cell]:
    """The cells of all parameters and buffers."""
    return [cell_of(one) for one in (*model.parameters(), *model.buffers())]


def settle(found: Iterable[Cell]) -> None:
    """Let every array stand in memory row by row.

    A file keeps no order of axes in memory, and products of NumPy's BLAS differ in their last bits between the two
    orders; so a training that is never interrupted must not have the other one either.
    """
    for cell in found:
        if not cell.array.flags.c_contiguous:
            cell.write(np.ascontiguousarray(cell.array))


def cell_of(tensor: Tensor) -> Cell:
    """The cell behind a parameter or buffer."""
    assert tensor.cell is not None
    return tensor.cell


def _temporary(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Buffers that state dictionaries leave out."""
    saved = model.state_dict()
    return [(name, one) for name, one in model.named_buffers() if name not in saved]


def _array(value: Any) -> Any:
    array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return np.array(constant(array).value)
