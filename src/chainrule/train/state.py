"""Nested state taken apart: tensors under dotted names, and a skeleton of plain JSON that says where they belong.

A state is dicts (keys: texts and integers), lists and tuples of tensors, arrays, numbers, texts, bools and None.
Every number comes back with its own bits: integers of any size, −0.0, infinity; NaN as NaN.
Knows nothing of files and of training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dtypes import ALL
from ..errors import ArgumentError
from ..tensor import Tensor

Array = NDArray[Any]

# Deeper states are more likely to contain themselves.
DEEPEST = 100

# JSON keeps integers up to here in every reader.
_PLAIN_INTEGER = 2**53


def take_apart(state: Any) -> tuple[dict[str, Array], Any]:
    """(arrays by their dotted names, skeleton). Raises ArgumentError, which names the place of what cannot be kept.

    >>> arrays, skeleton = take_apart({"model": {"weight": np.ones(1)}, "epoch": 3})
    >>> list(arrays), skeleton
    (['model.weight'], {'dict': [['model', {'dict': [['weight', {'tensor': 'model.weight'}]]}], ['epoch', 3]]})
    """
    arrays: dict[str, Array] = {}
    return arrays, _apart(state, (), arrays)


def _apart(value: Any, path: tuple[str, ...], arrays: dict[str, Array]) -> Any:
    if isinstance(value, Tensor | np.ndarray):
        name = _free_name(".".join(path) or "value", arrays)
        arrays[name] = as_saved(".".join(path), value)
        return {"tensor": name}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value) if abs(value) <= _PLAIN_INTEGER else {"integer": hex(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if len(path) >= DEEPEST:
        raise ArgumentError(
            f"save keeps {DEEPEST} levels of nesting; got more. Does the state contain itself?"
        )
    if isinstance(value, Mapping):
        return {
            "dict": [[_key(key, path), _apart(one, (*path, str(key)), arrays)] for key, one in value.items()]
        }
    if isinstance(value, list | tuple):
        parts = [_apart(one, (*path, str(place)), arrays) for place, one in enumerate(value)]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    raise _refused(value, path)


def _refused(value: Any, path: tuple[str, ...]) -> ArgumentError:
    place = repr(".".join(path)) if path else "the whole"
    advice = "Leave it out, or turn it into one of these"
    if hasattr(value, "state_dict"):
        advice = "Write its .state_dict()"
    return ArgumentError(
        "save keeps tensors, arrays, numbers, texts, bools, None, and lists, tuples and dicts of them; got "
        f"{type(value).__name__} for {place}. {advice}"
    )


def _key(key: Any, path: tuple[str, ...]) -> Any:
    if isinstance(key, str):
        return str(key)
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return _apart(int(key), path, {})
    raise ArgumentError(
        f"save needs dict keys that are texts or integers; got {key!r} in {'.'.join(path) or 'the whole'!r}"
    )


def _free_name(name: str, arrays: dict[str, Array]) -> str:
    """The dotted name, with a number behind it if another path has the same, in letters that UTF-8 has."""
    name = name.encode("utf-8", "backslashreplace").decode()
    if name == "__metadata__":
        name += "#1"
    found, number = name, 1
    while found in arrays:
        number += 1
        found = f"{name}#{number}"
    return found


def as_saved(name: str, value: Any) -> Array:
    """A tensor's or array's numbers as they are written: contiguous, in the machine's byte order."""
    array = value.detach().numpy() if isinstance(value, Tensor) else value
    plain = array.dtype.newbyteorder("=")
    if plain not in ALL:
        raise ArgumentError(
            f"save keeps numbers of {', '.join(sorted(one.name for one in ALL))}; got {array.dtype} for {name!r}. "
            "Convert it"
        )
    return np.array(array, dtype=plain, order="C")


def put_together(skeleton: Any, leaves: Mapping[str, Any]) -> Any:
    """The state of a skeleton, with `leaves` by the names of their tensors.

    Raises KeyError, TypeError or ValueError for a skeleton that `take_apart` did not make.

    >>> put_together({"dict": [["a", {"tuple": [1, {"tensor": "a.1"}]}]]}, {"a.1": 2})
    {'a': (1, 2)}
    """
    if isinstance(skeleton, list):
        return [put_together(one, leaves) for one in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    ((kind, content),) = skeleton.items()
    if kind == "tensor":
        return leaves[content]
    if kind == "dict":
        return {put_together(key, leaves): put_together(one, leaves) for key, one in content}
    if kind == "tuple":
        return tuple(put_together(one, leaves) for one in content)
    if kind == "integer":
        return int(content, 16)
    if kind == "float":
        return float(content)
    raise ValueError(f"the entry {kind!r}")
