"""What a model and the user's functions do, described as plain texts: classes, settings, code and its constants.

Two trainings whose tensors have the same shapes may still differ: another activation, another dropout rate, another
number in a loss. The description is kept in checkpoints, so that whoever goes on is told of such a difference by name.
Numbers of parameters and buffers are no part of it. Code is compared between interpreters of one version only.
Knows Python's objects; knows nothing of files and of training.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import nn
from ..tensor import Tensor
from ..tensor.random import Generator

_PACKAGE = __name__.partition(".")[0]
_INTERNAL = frozenset({"_kinds", "_parent", "_hooks", "training"})
_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic, np.dtype)

# Objects inside objects, and entries of one container, that are looked at.
_DEEPEST = 4
_MOST_ENTRIES = 64
_LONGEST = 60

_INTERPRETER = "{}.{}".format(*sys.version_info)


def describe_behaviour(model: nn.Module, functions: Mapping[str, Any]) -> dict[str, str]:
    """Texts by the names of what they describe: `{"the model's 1.p": "0.5", "loss's constants": "0.1, 2.0"}`.

    functions: what else of the user's is called, by its name in messages; None, texts and modules are fine.

    >>> found = describe_behaviour(nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5)), {"the loss": "mse"})
    >>> found["the model's 1"], found["the model's 1.p"], found["the loss"]
    ('Dropout', '0.5', "'mse'")
    """
    description = _Description()
    description.module("the model", model)
    for name, function in functions.items():
        description.thing(name, function)
    return description.found


def behaviour_differences(then: Mapping[str, str], now: Mapping[str, str], moved: Iterable[str]) -> list[str]:
    """What is described otherwise now than when the training began.

    moved: names of what training itself has changed, such as a counter in a module; they tell nothing.
    """
    other_interpreter = then.get("python") != now.get("python")
    found = []
    for name in dict.fromkeys((*then, *now)):
        if (
            name == "python"
            or name in moved
            or (other_interpreter and name.endswith(("'s code", "'s constants")))
        ):
            continue
        here = now.get(name)
        if here != then.get(name):
            if name.endswith("'s code"):
                found.append(f"{name} is another")
            else:
                found.append(f"{name} is {_shown(then.get(name))} there and {_shown(here)} here")
    return found


def _shown(text: str | None) -> str:
    return "missing" if text is None else text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


class _Description:
    """Writes descriptions into one dict. Every object is looked at once."""

    def __init__(self) -> None:
        self.found = {"python": _INTERPRETER}
        # With the objects, so that no number is given to another one meanwhile.
        self._seen: dict[int, Any] = {}

    def module(self, name: str, module: nn.Module) -> None:
        """A module with all below it."""
        kinds: dict[type, str] = {}
        for path, one in module.named_modules():
            where = f"{name}'s {path}" if path else name
            self._seen[id(one)] = one
            self.found[where] = type(one).__name__
            kinds.setdefault(type(one), where)
            for attribute, value in vars(one).items():
                if attribute in _INTERNAL or attribute in one._kinds:
                    continue
                self.thing(f"{where}.{attribute}" if path else f"{where}'s {attribute}", value)
            for hook in one.hook_functions():
                self.thing(f"{where} hook", hook)
        for kind in kinds:
            self._class(kind)

    def _class(self, kind: type) -> None:
        """The code and the settings of the user's classes."""
        for base in kind.__mro__:
            if _is_library(base) or id(base) in self._seen:
                continue
            self._seen[id(base)] = base
            for attribute, held in vars(base).items():
                value = getattr(held, "__func__", getattr(held, "fget", held))
                if isinstance(value, types.FunctionType):
                    self.function(f"{base.__name__}.{attribute}", value)
                elif isinstance(value, _PLAIN) and not attribute.startswith("__"):
                    self.found[f"{base.__name__}.{attribute}"] = repr(value)

    def thing(self, name: str, value: Any, depth: int = 0) -> None:
        """Anything that a module, a closure or a module of Python holds."""
        if isinstance(value, _PLAIN):
            self.found[name] = repr(value.item() if isinstance(value, np.generic) else value)
            return
        if id(value) in self._seen or depth > _DEEPEST:
            return
        self._seen[id(value)] = value
        if isinstance(value, nn.Module):
            self.module(name, value)
        elif isinstance(value, Tensor):
            self.found[name] = (
                f"a parameter {value.shape}" if value.cell is not None else _of_array(value.detach().numpy())
            )
        elif isinstance(value, np.ndarray):
            self.found[name] = _of_array(value)
        elif isinstance(value, Mapping | list | tuple | set | frozenset):
            self._container(name, value, depth)
        elif isinstance(value, types.MethodType):
            self.thing(name, value.__func__, depth)
            self.thing(f"{name}'s object", value.__self__, depth + 1)
        elif isinstance(value, types.FunctionType):
            self.function(name, value, depth)
        elif isinstance(value, functools.partial):
            self.thing(name, value.func, depth)
            self.thing(f"{name}'s arguments", [*value.args, *value.keywords.items()], depth + 1)
        else:
            self._object(name, value, depth)

    def _container(self, name: str, value: Any, depth: int) -> None:
        entries: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, Mapping) else enumerate(value)
        if isinstance(value, set | frozenset):
            entries = enumerate(sorted(map(repr, value)))
        if all(isinstance(one, _PLAIN) for _, one in entries):
            text = repr(sorted(map(repr, value)) if isinstance(value, set | frozenset) else value)
            self.found[name] = text if len(text) <= 1000 else f"{text[:20]} … {_digest(text.encode())}"
            return
        entries = value.items() if isinstance(value, Mapping) else enumerate(value)
        self.found[name] = f"{type(value).__name__} of {len(value)}"
        for key, one in list(entries)[:_MOST_ENTRIES]:
            self.thing(f"{name}[{key!r}]", one, depth + 1)

    def _object(self, name: str, value: Any, depth: int) -> None:
        kind = value if isinstance(value, type) else type(value)
        self.found[name] = getattr(value, "__qualname__", None) or kind.__qualname__
        if isinstance(value, type | types.ModuleType | Generator) or _is_library(kind):
            return
        self._class(kind)
        for attribute, one in getattr(value, "__dict__", {}).items():
            self.thing(f"{name}.{attribute}", one, depth + 1)

    def function(self, name: str, function: types.FunctionType, depth: int = 0) -> None:
        """The code of a function of the user's, and the values that it finds outside of its arguments."""
        self._seen[id(function)] = function
        if _is_library(function):
            self.found[name] = f"{function.__module__}.{function.__qualname__}"
            return
        codes = list(_codes(function.__code__))
        self.found[f"{name}'s code"] = _digest(
            b"".join(code.co_code + repr((code.co_names, code.co_freevars)).encode() for code in codes)
        )
        self.found[f"{name}'s constants"] = ", ".join(
            _of_constant(one) for code in codes for one in _constants(code, function.__doc__)
        )
        for key, value in _defaults(function):
            self.thing(f"{name}'s {key}", value, depth + 1)
        for key, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            try:
                self.thing(f"{name}'s {key}", cell.cell_contents, depth + 1)
            except ValueError:  # not bound yet
                continue
        names = dict.fromkeys(each for code in codes for each in code.co_names)
        for key in names:
            if key in function.__globals__:
                value = function.__globals__[key]
                if not isinstance(value, types.ModuleType) and not (
                    isinstance(value, type) and _is_library(value)
                ):
                    self.thing(f"{name}'s {key}", value, depth + 1)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code, and that of functions inside it."""
    yield code
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield from _codes(one)


def _constants(code: types.CodeType, text: str | None) -> list[Any]:
    """Numbers and texts in the code, without its documentation."""
    return [
        one
        for one in code.co_consts
        if not isinstance(one, types.CodeType) and one is not None and not (one == text and text is not None)
    ]


def _of_constant(value: Any) -> str:
    """The order of a set's texts changes from process to process."""
    return f"{{{', '.join(sorted(map(repr, value)))}}}" if isinstance(value, frozenset) else repr(value)


def _defaults(function: types.FunctionType) -> list[tuple[str, Any]]:
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount][code.co_argcount - len(values) :]
    return [*zip(names, values), *(function.__kwdefaults__ or {}).items()]


def _is_library(thing: Any) -> bool:
    """Whether it is not of the user's: of this package, of Python or of what is installed."""
    name = str(getattr(thing, "__module__", "") or "")
    if name.partition(".")[0] in (_PACKAGE, "builtins", *sys.stdlib_module_names):
        return name.partition(".")[0] != "__main__"
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def _of_array(array: Any) -> str:
    return f"{array.dtype}{array.shape} {_digest(np.ascontiguousarray(array).tobytes())}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
