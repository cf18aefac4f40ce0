"""The data types, their promotion by the array API standard, and the default for Python numbers.

A dtype is NumPy's own `numpy.dtype`, so nothing has to be converted at the border.
Knows nothing of tensors or graphs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .errors import DtypeError

Dtype = np.dtype[Any]

bool_ = np.dtype("bool")
int8, int16, int32, int64 = (np.dtype(f"int{bits}") for bits in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64))
float32, float64 = np.dtype("float32"), np.dtype("float64")

FLOATS: frozenset[Dtype] = frozenset((float32, float64))
SIGNED: frozenset[Dtype] = frozenset((int8, int16, int32, int64))
UNSIGNED: frozenset[Dtype] = frozenset((uint8, uint16, uint32, uint64))
INTEGERS: frozenset[Dtype] = SIGNED | UNSIGNED
ALL: frozenset[Dtype] = FLOATS | INTEGERS | {bool_}

DEFAULT_FLOAT = float32
DEFAULT_INTEGER = int64

_NAMES = {dtype.name: dtype for dtype in ALL}
_PYTHON: dict[Any, Dtype] = {bool: bool_, int: DEFAULT_INTEGER, float: DEFAULT_FLOAT}


def as_dtype(dtype: DTypeLike) -> Dtype:
    """Any spelling of a dtype as one of ours: `"float64"`, `numpy.float64`, `float` (float32 here).

    >>> as_dtype("float64")
    dtype('float64')
    """
    if isinstance(dtype, type) and dtype in _PYTHON:
        return _PYTHON[dtype]
    try:
        result = None if dtype is None else np.dtype(dtype).newbyteorder("=")
    except (TypeError, ValueError):
        result = None
    if result not in ALL:
        known = ", ".join(sorted(_NAMES))
        raise DtypeError(f"a dtype must be one of {known}; got {dtype!r}. Convert the data first")
    return result


def dtype_or_default(dtype: DTypeLike | None) -> Dtype:
    """The dtype asked for, or float32 where none is."""
    return DEFAULT_FLOAT if dtype is None else as_dtype(dtype)


def is_float(dtype: Dtype) -> bool:
    """True for float32 and float64: the types that have gradients."""
    return dtype.kind == "f"


def promote(first: Dtype, second: Dtype) -> Dtype:
    """The common type of two arrays by the array API standard.

    The standard leaves mixes of kinds open. Here, as in PyTorch, an integer or bool array beside a
    float array takes the float type; `uint64` with a signed integer has no common type and raises.
    """
    if first == second:
        return first
    if is_float(first) != is_float(second):
        return first if is_float(first) else second
    if bool_ in (first, second):
        return second if first == bool_ else first
    result = np.promote_types(first, second)
    if result.kind == "f" and first.kind != "f":
        raise DtypeError(
            f"{first.name} and {second.name} have no common integer type. Use astype on one of them"
        )
    return result


def promote_scalar(dtype: Dtype, value: bool | int | float) -> Dtype:
    """The type of (array of `dtype`) ∘ (Python number): the number is weak, as the standard says.

    A float beside an integer array gives the default float; an int beside a bool array the default
    integer.
    """
    if isinstance(value, bool):
        return dtype
    if isinstance(value, int):
        return DEFAULT_INTEGER if dtype == bool_ else dtype
    return dtype if is_float(dtype) else DEFAULT_FLOAT


def of_python(value: bool | int | float) -> Dtype:
    """The type of a Python number standing alone: bool, int64 or float32."""
    kind = value.__class__  # a number that is traced names Python's kind here
    return _PYTHON[kind] if kind in _PYTHON else as_dtype(np.asarray(value).dtype)
