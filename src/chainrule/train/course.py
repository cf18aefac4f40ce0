"""The course of a training from its arguments to its Run: parts are made, put back to a checkpoint, run, and written.

Knows every room of training; each does its part and knows little of the others.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import nn
from ..data.augmentation import as_augmentation
from ..data.kept import stored
from ..errors import ArgumentError, ChainruleError
from .behaviour import describe_behaviour
from .callbacks import Callbacks
from .config import (
    describe_model,
    describe_optimizer,
    describe_scheduler,
    describe_source,
    name_of,
    shapes,
)
from .engine import StepEngine, make_forward_engine, make_step_engine
from .keeper import FolderKeeper, NoKeeper
from .loop import Loop, Plan
from .metrics import make_metrics
from .options import DEFAULT_LOSS, Options, check_schedulers, find_optimizers, find_schedulers
from .problem import Problem, call_model, make_problem
from .progress import Progress, make_progress
from .results import Run
from .run import RunFolder
from .signals import TERMINATED, Signals
from .snapshot import Parts, cells, settle
from .sources import NO_LOSS, Batching, Sources, Weighing, is_pair, make_sources
from .step import forget_gradients, make_own_step, make_step
from .watch import Watch, find_monitor

_TAKEN = ("epoch", "loss", "seconds", "learning_rate")


@dataclass
class Setting:
    """Everything that a training consists of."""

    options: Options
    run: Run
    parts: Parts
    sources: Sources
    problem: Problem
    engine: StepEngine

    @functools.cached_property
    def fingerprints(self) -> tuple[str, str]:
        """Digests of the training data and of the rows held back; empty where there are none to be had."""
        held = self.sources.validation
        return self.sources.training.fingerprint(), "none" if held is None else held.fingerprint()


def train(model: nn.Module, data: Any, options: Options) -> Run:
    """Train, with `options` that were checked."""
    progress = make_progress(options.progress, options.epochs)
    setting = prepare(model, data, options)
    modes = [(module, module.training) for module in model.modules()]
    try:
        if options.folder is None:
            with Signals() as signals:
                _train(setting, signals, progress, None)
        else:
            _train_in_folder(setting, progress)
    finally:
        progress.close()
        for module, mode in modes:
            if module.training is not mode:
                module.training = mode
    return setting.run


def prepare(model: nn.Module, data: Any, options: Options) -> Setting:
    """Find every fault that can be found before the first step, and make the parts."""
    problem, sources = _problem_and_sources(model, data, options)
    optimizers, schedulers = find_optimizers(options, model), find_schedulers(options)
    monitor, higher = find_monitor(
        options.monitor, problem.metrics, sources.validation is not None, problem.function is not NO_LOSS
    )
    check_schedulers(schedulers, optimizers, monitor, higher)
    several = options.step is not None and len(optimizers) != 1
    run = Run(model, problem, (optimizers or None) if several else optimizers[0], sources.flat)
    functions = () if options.callback is None else (options.callback,)
    parts = Parts(
        model,
        optimizers,
        schedulers,
        Callbacks((*options.callbacks, *functions)),
        Watch(monitor, higher, options.patience, options.restores),
        copy.deepcopy(problem.metrics),
        run.history,
    )
    engine = _engine(model, problem, options, optimizers)
    parts.engines = {
        "step": engine,
        "forward": make_forward_engine(model, options.compile, call_model, options.backend),
    }
    run._engine = engine
    given = options.preparation
    run.preparation = getattr(sources.training, "preparation", None) if given is None else given
    return Setting(options, run, parts, sources, problem, engine)


def _problem_and_sources(model: nn.Module, data: Any, options: Options) -> tuple[Problem, Sources]:
    """What is learnt, from what. A step of the user's own may learn something else than the default loss means."""
    problem = _problem(options)
    makes = functools.partial(
        make_sources, model, data=data, validation=options.validation, batch_size=options.batch_size,
        seed=options.seed, weighing=Weighing(options.sample_weight, options.class_weight),
        batching=Batching(options.augment, options.bucket_by_length, options.pad_to_multiple_of),
    )  # fmt: skip
    if options.step is None or options.loss != DEFAULT_LOSS:
        return problem, makes(problem)
    if not is_pair(data):
        problem.lenient = True  # batches are seen when they come
        return problem, makes(problem)
    with contextlib.suppress(ChainruleError):
        return problem, makes(problem)
    problem = Problem(NO_LOSS, make_metrics(options.metrics, NO_LOSS.kind))
    with contextlib.suppress(ChainruleError):
        return problem, makes(problem)
    problem.lenient = True
    return problem, makes(problem)


def _engine(model: nn.Module, problem: Problem, options: Options, optimizers: list[Any]) -> StepEngine:
    """What runs the step: the user's own one, or that of the model, the loss and the optimizer."""
    if options.step is not None:
        step, watched = make_own_step(options.step), (model, options.step)
    else:
        measured = bool(problem.metrics)
        step = make_step(model, problem, optimizers[0], options.clip_norm, options.clip_value, measured)
        watched = (model, problem.function.function)
    return make_step_engine(step, model, options.compile, watched, options.step is not None, options.backend)


def _problem(options: Options) -> Problem:
    if options.loss is None:
        return Problem(NO_LOSS, make_metrics(options.metrics, NO_LOSS.kind))
    problem = make_problem(options.loss, options.metrics)
    for name in problem.metrics:
        if name in _TAKEN:
            raise ArgumentError(
                f"a metric needs a name of its own; got {name!r}, which the history has already"
            )
    return problem


# ------------------------------------------------------------------------------------------- the course


def _train(setting: Setting, signals: Signals, progress: Progress, keeper: FolderKeeper | None) -> None:
    options, run, parts = setting.options, setting.run, setting.parts
    settle(cells(run.model))
    if options.step is None:
        forget_gradients(parts.optimizers)
    found = keeper.find() if keeper is not None and options.resume else None
    parts.callbacks.tell("on_train_begin", run)
    if keeper is not None and found is not None:
        keeper.resume(found, _entries(setting))
        progress.resume(parts.place.epoch - 1)
    elif keeper is not None:
        keeper.begin(_entries(setting))
    plan = Plan(
        setting.engine, setting.problem, setting.sources, options.epochs, options.accumulate, progress,
        options.audit_every,
    )  # fmt: skip
    loop = Loop(run, plan, parts, signals, keeper or NoKeeper())
    loop.train()
    try:
        _end(setting, keeper, loop.torn)
    except KeyboardInterrupt:  # the second Ctrl-C, while the end was written; what is on the disk is whole
        run.state = "interrupted"


def _end(setting: Setting, keeper: FolderKeeper | None, torn: bool) -> None:
    run, watch = setting.run, setting.parts.watch
    if keeper is not None and not torn and run.state != "diverged":
        keeper.save()
    if setting.options.restores and watch.weights is not None:
        run.model.load_state_dict(watch.weights)
        run.restored = True
    if keeper is not None:
        keeper.finish(_outcome(run))
    setting.parts.callbacks.tell("on_train_end", run)


def _train_in_folder(setting: Setting, progress: Progress) -> None:
    options, run = setting.options, setting.run
    folder = options.folder if isinstance(options.folder, RunFolder) else RunFolder(options.folder)
    run.folder = folder.place
    folder.open(bool(options.resume))
    try:
        keeper = FolderKeeper(
            folder,
            run,
            setting.parts,
            identity=_identity(setting),
            epochs=options.epochs,
            seconds=options.checkpoint_seconds,
            steps=options.checkpoint_steps,
            keep=options.keep_checkpoints,
            behaviour=functools.partial(_behaviour, setting),
            changed=options.resume == "changed",
        )
        with Signals(catch_terminate=True) as signals:
            try:
                _train(setting, signals, progress, keeper)
            except Exception:
                keeper.fail()
                raise
    finally:
        if not folder.held:
            folder.close()
    if signals.asked == "terminated":
        raise SystemExit(TERMINATED)


# ------------------------------------------------------------------------------------------- what is recorded


def _identity(setting: Setting) -> dict[str, Any]:
    """What a training must have in common with one that it goes on from."""
    options, parts = setting.options, setting.parts
    return {
        "data": setting.fingerprints[0],
        "validation data": setting.fingerprints[1],
        "batch_size": options.batch_size,
        "seed": options.seed,
        "validation": options.validation if isinstance(options.validation, float) else None,
        "class_weight": _weights(options.class_weight),
        "accumulate": options.accumulate,
        "model": shapes(parts.model),
        "loss": name_of(options.loss),
        "step": None if options.step is None else name_of(options.step),
        "metrics": list(parts.metrics),
        "monitor": parts.watch.monitor,
        "restore_best": options.restores,
        "optimizer": [type(one).__name__ for one in parts.optimizers],
        "scheduler": [type(one).__name__ for one in parts.schedulers],
        "clip_norm": options.clip_norm,
        "clip_value": options.clip_value,
        "compile": setting.engine.policy,
    }


def _behaviour(setting: Setting) -> dict[str, str]:
    """What the model and the user's functions do, as texts."""
    options = setting.options
    functions = {"the loss": options.loss, "the step": options.step, "augment": options.augment}
    return describe_behaviour(setting.parts.model, {**functions, "metrics": options.metrics})


def _entries(setting: Setting) -> Mapping[str, Any]:
    """What the record of a new run says of it."""
    options, parts = setting.options, setting.parts
    return {
        "kind": "model",
        "data": {
            "training": describe_source(setting.sources.training, setting.fingerprints[0]),
            "validation": describe_source(setting.sources.validation, setting.fingerprints[1]),
        },
        "model": describe_model(parts.model),
        "problem": {
            "loss": name_of(options.loss),
            "kind": setting.problem.kind,
            "logits": setting.problem.logits,
            "metrics": list(setting.problem.metrics),
            "flat": setting.run._flat,
        },
        "optimizers": [describe_optimizer(one) for one in parts.optimizers],
        "schedulers": [describe_scheduler(one) for one in parts.schedulers],
        "config": _config(setting),
        **({} if setting.run.preparation is None else {"kept": stored(setting.run.preparation)}),
    }


def _config(setting: Setting) -> dict[str, Any]:
    """The arguments of `fit` as JSON has them."""
    options = setting.options
    plain = (
        "epochs", "batch_size", "seed", "clip_norm", "clip_value", "accumulate", "patience", "checkpoint_seconds",
        "checkpoint_steps", "keep_checkpoints", "compile", "audit_every", "pad_to_multiple_of",
    )  # fmt: skip
    validation, buckets = options.validation, options.bucket_by_length
    return {
        **{name: getattr(options, name) for name in plain},
        "validation": validation if isinstance(validation, int | float) else name_of(validation),
        "monitor": setting.parts.watch.monitor,
        "restore_best": options.restores,
        "class_weight": _weights(options.class_weight),
        "sample_weight": options.sample_weight is not None,
        "step": None if options.step is None else name_of(options.step),
        "augment": None if options.augment is None else repr(as_augmentation(options.augment)),
        "bucket_by_length": buckets
        if buckets is None or isinstance(buckets, int)
        else [int(one) for one in buckets],
        "callbacks": [name_of(one) for one in options.callbacks],
    }


def _weights(class_weight: Any) -> Any:
    if class_weight is None or isinstance(class_weight, str):
        return class_weight
    if isinstance(class_weight, Mapping):
        return {str(key): float(value) for key, value in class_weight.items()}
    return [float(value) for value in class_weight]


def _outcome(run: Run) -> Mapping[str, Any]:
    """What the record says of a training that is over."""
    return {
        "training": {
            "epochs": len(run.history),
            "best_epoch": run.best_epoch,
            "stopped": run.state,
            "restored": run.restored,
            "why_python": run.why_python,
        },
        "validation": run.score,
    }
