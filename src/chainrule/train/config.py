"""What a training is made of, as JSON: for the record in the run directory, and to tell one training from another.

Knows arguments of `fit`; knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import nn
from ..data.sources import Source
from ..optim import Optimizer
from .run import plain

_SHOWN = 8


def name_of(thing: Any) -> str:
    """How a function, a module or an object is called in a record."""
    if thing is None or isinstance(thing, str):
        return str(thing)
    if isinstance(thing, nn.Module):
        return repr(thing)
    name = getattr(thing, "__qualname__", None)
    if name is None:
        return type(thing).__name__
    return f"{getattr(thing, '__module__', '')}.{name}".lstrip(".")


def describe_model(model: nn.Module) -> dict[str, Any]:
    """The model's own description, its parameters and buffers."""
    return {
        "repr": repr(model),
        "state": shapes(model),
        "parameters": sum(one.size for one in model.parameters()),
    }


def shapes(model: nn.Module) -> dict[str, str]:
    """Dtype and shape of everything in the state of a model: `{"0.weight": "float32(16, 2)"}`."""
    return {name: f"{one.dtype.name}{one.shape}" for name, one in model.state_dict().items()}


def describe_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    """Class and hyper-parameters."""
    return {
        "class": type(optimizer).__name__,
        "groups": [plain(group.options()) for group in optimizer.param_groups],
    }


def describe_scheduler(scheduler: Any) -> dict[str, Any]:
    """Class and numbers."""
    return {"class": type(scheduler).__name__, "state": _short(scheduler.state_dict())}


def _short(value: Any) -> Any:
    """Numbers, texts and lists of them; anything else by its type."""
    if isinstance(value, Mapping):
        return {str(key): _short(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_short(one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return plain(value)
    return name_of(value)


def describe_source(source: Source | None, fingerprint: str) -> dict[str, Any] | None:
    """Rows, batches and fingerprint."""
    if source is None:
        return None
    return {"rows": source.rows, "batches": source.batches, "sha256": fingerprint}


# What may be changed on purpose when a training goes on: the state of the checkpoint fits all the same.
_DELIBERATE = frozenset(
    {"data", "validation data", "loss", "step", "class_weight", "clip_norm", "clip_value"}
)


def differences(then: Mapping[str, Any], now: Mapping[str, Any], deliberate: bool) -> list[str]:
    """What tells a training from the one whose checkpoint is to be continued: `seed is 1 there and 2 here`.

    deliberate: those that may be meant, or those that may not.
    """
    found = []
    others = {name: value for name, value in plain(now).items() if then.get(name) != value}
    # These make other batches of the same data.
    explained = any(name in others for name in ("batch_size", "seed", "validation", "class_weight"))
    for name, value in others.items():
        if (name in _DELIBERATE) is not deliberate:
            continue
        before = then.get(name)
        if name == "model":
            found += _model_differences(before or {}, value)
        elif name in ("data", "validation data"):
            if not explained and before and value:  # an iterable has no fingerprint
                found.append(f"the {name}, or how they are cut into batches, are not the same")
        else:
            found.append(f"{name} is {_text(before)} there and {_text(value)} here")
    return found


def _model_differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    wrong = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    told = [
        f"the model's {name} is {then.get(name, 'missing')} there and {now.get(name, 'missing')} here"
        for name in wrong[:_SHOWN]
    ]
    if len(wrong) > _SHOWN:
        told.append(f"{len(wrong) - _SHOWN} more of the model's tensors differ")
    return told


def _text(value: Any) -> str:
    if isinstance(value, str):
        return repr(value.partition("\n")[0])
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else repr(value)


def changed_options(
    then: list[dict[str, Any]], given: list[dict[str, Any]], now: list[dict[str, Any]]
) -> list[str]:
    """Hyper-parameters that are neither those that the run began with nor those that it goes on with."""
    found = []
    for first, asked, used in zip(then, given, now):
        for before, mine, kept in zip(first["groups"], asked["groups"], used["groups"]):
            found += [
                f"{name}={value!r} here and {kept[name]!r} there"
                for name, value in mine.items()
                if name in kept and value not in (before.get(name), kept[name])
            ]
    return found
