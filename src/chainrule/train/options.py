"""What `fit` is told, checked before anything is done.

Knows what each argument may be; knows nothing of what is done with it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import nn
from ..data.augmentation import as_augmentation
from ..data.datasets import is_dataset, is_items
from ..data.kept import check_preparation
from ..elsewhere import unfit_call
from ..errors import ArgumentError
from ..optim import Adam, Optimizer
from ..optim.lr_scheduler import ReduceLROnPlateau
from ..runtime.compiled import check_backend
from ..tensor import Tensor
from .run import RunFolder
from .sources import is_pair, is_source

#: The loss of `fit` where none is named.
DEFAULT_LOSS = "cross_entropy"


@dataclass(frozen=True)
class Options:
    """The arguments of `fit`; their meaning is said there."""

    loss: Any
    optimizer: Any
    scheduler: Any
    epochs: int
    batch_size: int
    validation: Any
    seed: int
    metrics: Any
    sample_weight: Any
    class_weight: Any
    step: Any
    clip_norm: float | None
    clip_value: float | None
    accumulate: int
    patience: int | None
    monitor: str | None
    restore_best: bool | None
    callbacks: Any
    callback: Any
    progress: Any
    folder: Any
    checkpoint_seconds: float | None
    checkpoint_steps: int | None
    keep_checkpoints: int
    resume: bool | str
    compile: bool | str
    audit_every: int | None
    backend: str | None = None
    augment: Any = None
    bucket_by_length: Any = None
    pad_to_multiple_of: int | None = None
    preparation: Any = None

    def __post_init__(self) -> None:
        """Numbers of NumPy become Python's: they may come out of a search over settings, and JSON has only those."""
        for name, value in vars(self).items():
            if isinstance(value, np.generic):
                object.__setattr__(self, name, value.item())

    @property
    def restores(self) -> bool:
        """Whether the best weights are put back at the end."""
        return self.patience is not None if self.restore_best is None else bool(self.restore_best)

    def check(self, model: Any, data: Any) -> None:
        """Raise ArgumentError for arguments without meaning."""
        _check_model(model)
        _check_data(data)
        if self.augment is not None:
            as_augmentation(self.augment)
        if self.preparation is not None:
            check_preparation(self.preparation)
        for name in ("epochs", "batch_size", "accumulate", "keep_checkpoints"):
            _check_whole(name, getattr(self, name))
        for name in ("patience", "checkpoint_steps", "audit_every", "pad_to_multiple_of"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name))
        for name in ("clip_norm", "clip_value", "checkpoint_seconds"):
            if getattr(self, name) is not None:
                _check_positive(name, getattr(self, name), zero=name == "checkpoint_seconds")
        if not isinstance(self.resume, bool) and self.resume != "changed":
            raise ArgumentError(
                f"resume must be True, False or 'changed'; got {self.resume!r}. Name the folder with folder="
            )
        if not isinstance(self.compile, bool) and self.compile != "auto":
            raise ArgumentError(f"compile must be True, False or 'auto'; got {self.compile!r}")
        if self.backend is not None:
            check_backend(self.backend)
        if self.audit_every is not None and self.compile is not True:
            raise ArgumentError(
                f"audit_every looks into steps that are compiled; got compile={self.compile!r}. Write compile=True"
            )
        if self.restore_best is not None and not isinstance(self.restore_best, bool):
            raise ArgumentError(f"restore_best must be True, False or None; got {self.restore_best!r}")
        if self.folder is not None and not isinstance(self.folder, str | bytes | os.PathLike | RunFolder):
            raise ArgumentError(f"folder must be a path; got {self.folder!r}. Write folder='runs/first'")
        if self.resume and self.folder is None:
            raise ArgumentError("resume=True needs the folder of the run; got none. Write folder=…")
        if self.step is not None:
            self._check_step()
        elif self.loss is None:
            raise ArgumentError(
                "training needs a loss; got None. Name one, such as 'mse', or give a step of your own"
            )

    def _check_step(self) -> None:
        if not callable(self.step):
            raise ArgumentError(f"step must be a function (x, y) → loss; got {type(self.step).__name__}")
        if (taken := unfit_call(self.step, None, None)) is not None:
            raise ArgumentError(
                f"a step is called with the inputs and the targets of a batch; got one that takes {taken}. Write "
                "def step(x, y), where x is all inputs"
            )
        given: Mapping[str, Any] = {
            "clip_norm": self.clip_norm,
            "clip_value": self.clip_value,
            "sample_weight": self.sample_weight,
            "class_weight": self.class_weight,
            "accumulate": None if self.accumulate == 1 else self.accumulate,
        }
        for name, value in given.items():
            if value is not None:
                raise ArgumentError(
                    f"a step of one's own does the whole update; got {name} beside it. Do it in the step"
                )
        if self.folder is not None and self.optimizer is None:
            raise ArgumentError(
                "checkpoints keep the optimizer's state; got a step of one's own and a folder without optimizer=. Give "
                "the optimizer that the step uses, or a list of them; [] if there is none"
            )


def as_tuple(callbacks: Any) -> tuple[Any, ...]:
    """Callbacks, where one of them may come alone."""
    return tuple(callbacks) if hasattr(callbacks, "__iter__") else (callbacks,)


def find_optimizers(options: Options, model: nn.Module) -> list[Optimizer]:
    """The optimizers that are used; Adam by default. Raises ArgumentError for anything that is none of this model."""
    given = options.optimizer
    if given is None:
        schedulers = find_schedulers(options)
        if schedulers and isinstance(getattr(schedulers[0], "optimizer", None), Optimizer):
            return [schedulers[0].optimizer]
        return [] if options.step is not None else [Adam(model.parameters())]
    found = list(given) if isinstance(given, list | tuple) else [given]
    if options.step is None and len(found) != 1:
        raise ArgumentError(
            f"one optimizer updates the model; got {len(found)}. Give it several groups, or write a step of your own"
        )
    for one in found:
        if not isinstance(one, Optimizer):
            shown = f"the class {one.__name__}" if isinstance(one, type) else type(one).__name__
            raise ArgumentError(
                f"optimizer must be one of chainrule.optim; got {shown}. Write optim.Adam(model.parameters())"
            )
    held = {id(one.cell) for part in found for group in part.param_groups for one in group["params"]}
    if options.step is None and not any(id(one.cell) in held for one in model.parameters()):
        raise ArgumentError(
            "the optimizer must hold parameters of the model that is trained; got none of them. Make it anew with "
            "model.parameters()"
        )
    return found


def find_schedulers(options: Options) -> list[Any]:
    """The schedulers, as a list. Raises ArgumentError for anything that is none."""
    given = options.scheduler
    found = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    for one in found:
        if isinstance(one, type) or not all(
            hasattr(one, name) for name in ("step", "state_dict", "optimizer")
        ):
            shown = f"the class {one.__name__}" if isinstance(one, type) else type(one).__name__
            raise ArgumentError(
                f"scheduler must be one of chainrule.optim.lr_scheduler; got {shown}. Write "
                "optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)"
            )
    return found


def check_schedulers(
    schedulers: list[Any], optimizers: list[Optimizer], monitor: str, higher_is_better: bool
) -> None:
    """Schedulers must change the rates of the optimizers that are used, and wait for what gets better."""
    for one in schedulers:
        if not any(one.optimizer is used for used in optimizers):
            raise ArgumentError(
                f"a scheduler must hold the optimizer that is used; got {type(one).__name__} of another. Make it with "
                "the optimizer that fit is given"
            )
        if isinstance(one, ReduceLROnPlateau) and one.mode != ("max" if higher_is_better else "min"):
            better = "higher" if higher_is_better else "lower"
            raise ArgumentError(
                f"ReduceLROnPlateau must wait for what gets better; got mode={one.mode!r} for {monitor}, of which "
                f"{better} is better. Change its mode, or monitor"
            )


def _check_model(model: Any) -> None:
    if isinstance(model, nn.Module):
        return
    if isinstance(model, type):
        raise ArgumentError(
            f"fit trains an nn.Module; got the class {model.__name__}. Write {model.__name__}(), with its arguments"
        )
    kind = type(model)
    if isinstance(model, list | tuple):
        raise ArgumentError(f"fit trains an nn.Module; got a {kind.__name__}. Write nn.Sequential(*layers)")
    if kind.__module__ != "builtins" and callable(model) and not hasattr(model, "state_dict"):
        raise ArgumentError(
            f"fit trains an nn.Module; got an object of the class {kind.__qualname__}. Let it inherit: class "
            f"{kind.__name__}(nn.Module), with forward in place of __call__, layers as attributes or in an "
            "nn.ModuleList, and what is learnt as nn.Parameter"
        )
    place = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    raise ArgumentError(
        f"fit trains an nn.Module; got {place}{kind.__qualname__}. Build the model from chainrule.nn"
    )


def _check_data(data: Any) -> None:
    if is_pair(data) or is_source(data) or is_dataset(data) or is_items(data):
        return
    single = isinstance(data, np.ndarray | Tensor | str | bytes | dict | tuple) or hasattr(data, "iloc")
    if single or not (callable(data) or hasattr(data, "__iter__")):
        raise ArgumentError(f"fit needs data as a pair (X, y); got {type(data).__name__}. Write (X, y)")


def _check_whole(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArgumentError(f"{name} must be a whole number from 1; got {value!r}")


def _check_positive(name: str, value: Any, zero: bool) -> None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or value < 0 or (value == 0 and not zero):
        raise ArgumentError(f"{name} must be a number {'from' if zero else 'above'} 0; got {value!r}")
