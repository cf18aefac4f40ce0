"""What this array namespace offers, and questions about data types: the standard's inspection functions.

The array API standard 2025.12 is offered without complex numbers: there are no complex dtypes, and so no
`real`, `imag`, `conj`, and none of the optional `linalg` and `fft` extensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dtypes import (
    DEFAULT_FLOAT,
    DEFAULT_INTEGER,
    FLOATS,
    INTEGERS,
    SIGNED,
    UNSIGNED,
    Dtype,
    as_dtype,
    bool_,
)
from ..errors import ArgumentError, DtypeError
from .core import Tensor
from .creation import check_device

_KINDS: dict[str, frozenset[Dtype]] = {
    "bool": frozenset((bool_,)),
    "signed integer": SIGNED,
    "unsigned integer": UNSIGNED,
    "integral": INTEGERS,
    "real floating": FLOATS,
    "complex floating": frozenset(),
    "numeric": INTEGERS | FLOATS,
}


@dataclass(frozen=True)
class FloatInfo:
    """Limits of a floating-point type, as Python numbers."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: Dtype


@dataclass(frozen=True)
class IntegerInfo:
    """Limits of an integer type, as Python numbers."""

    bits: int
    max: int
    min: int
    dtype: Dtype


def _dtype_of(value: Any) -> Dtype:
    return as_dtype(value.dtype) if isinstance(value, Tensor | np.ndarray) else as_dtype(value)


def finfo(type: Any, /) -> FloatInfo:
    """Limits of the floating-point dtype `type` (or of that of an array). Raises DtypeError for others.

    >>> finfo("float32").bits
    32
    """
    dtype = _dtype_of(type)
    if dtype not in FLOATS:
        raise DtypeError(f"finfo needs a floating-point dtype; got {dtype.name}. Use iinfo")
    limits = np.finfo(dtype)
    return FloatInfo(
        int(limits.bits),
        float(limits.eps),
        float(limits.max),
        float(limits.min),
        float(limits.smallest_normal),
        dtype,
    )


def iinfo(type: Any, /) -> IntegerInfo:
    """Limits of the integer dtype `type` (or of that of an array). Raises DtypeError for others.

    >>> iinfo("int8").max
    127
    """
    dtype = _dtype_of(type)
    if dtype not in INTEGERS:
        raise DtypeError(f"iinfo needs an integer dtype; got {dtype.name}. Use finfo")
    limits = np.iinfo(dtype)
    return IntegerInfo(int(limits.bits), int(limits.max), int(limits.min), dtype)


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether `dtype` is of a kind: "bool", "integral", "real floating", "numeric", … , a dtype, or a tuple of them.

    >>> isdtype("int8", "signed integer"), isdtype("float32", ("bool", "integral"))
    (True, False)
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, one) for one in kind)
    given = as_dtype(dtype)
    if isinstance(kind, str):
        if kind not in _KINDS:
            raise ArgumentError(f"a kind of dtype must be one of {', '.join(_KINDS)}; got {kind!r}")
        return given in _KINDS[kind]
    return given == as_dtype(kind)


def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether every value of a dtype (or of an array's) can be held by the dtype `to`.

    >>> can_cast("int8", "int16"), can_cast("float64", "float32")
    (True, False)
    """
    return bool(np.can_cast(_dtype_of(from_), as_dtype(to)))


class NamespaceInfo:
    """Answers of `__array_namespace_info__`: devices, dtypes and what is possible."""

    def capabilities(self) -> dict[str, bool | int]:
        """What depends on the library: masks and data-dependent shapes work, axes are limited to 64.

        >>> NamespaceInfo().capabilities()["boolean indexing"]
        True
        """
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> str:
        """Where tensors are made.

        >>> NamespaceInfo().default_device()
        'cpu'
        """
        return "cpu"

    def devices(self) -> list[str]:
        """Every place where tensors can live.

        >>> NamespaceInfo().devices()
        ['cpu']
        """
        return ["cpu"]

    def default_dtypes(self, *, device: Any = None) -> dict[str, Dtype]:
        """The dtypes of Python floats, of Python ints, and of positions.

        >>> NamespaceInfo().default_dtypes()["real floating"]
        dtype('float32')
        """
        check_device(device)
        return {"real floating": DEFAULT_FLOAT, "integral": DEFAULT_INTEGER, "indexing": DEFAULT_INTEGER}

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, Dtype]:
        """All dtypes by name, or those of a kind (see `isdtype`).

        >>> list(NamespaceInfo().dtypes(kind="real floating"))
        ['float32', 'float64']
        """
        check_device(device)
        every = sorted({bool_} | INTEGERS | FLOATS, key=lambda dtype: (dtype.kind, dtype.itemsize))
        return {dtype.name: dtype for dtype in every if kind is None or isdtype(dtype, kind)}


def __array_namespace_info__() -> NamespaceInfo:
    """What this namespace offers, as the array API standard asks.

    >>> __array_namespace_info__().default_device()
    'cpu'
    """
    return NamespaceInfo()
