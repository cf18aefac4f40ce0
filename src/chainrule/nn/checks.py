"""Arguments that layers share, checked when a layer is made."""

from __future__ import annotations

from typing import Any

from ..dtypes import Dtype
from ..errors import ArgumentError, DtypeError
from ..tensor import Tensor
from ..tensor.random import Generator


def check_size(name: str, value: int) -> int:
    """A whole number from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArgumentError(f"{name} must be a whole number from 1; got {value!r}")
    return value


def check_floats(layer: str, x: Tensor, dtype: Dtype) -> None:
    """Floats of the layer's own dtype."""
    if x.dtype.kind != "f":
        pixels = " / 255, if these are pixels" if x.dtype.name == "uint8" else ""
        raise DtypeError(f"{layer} needs floats; got {x.dtype.name}. Use x.astype('{dtype.name}'){pixels}")
    if x.dtype != dtype:
        raise DtypeError(
            f"{layer} needs its weight's dtype, {dtype.name}; got {x.dtype.name}. "
            f"Use x.astype('{dtype.name}'), or the module's .to('{x.dtype.name}')"
        )


def check_generator(name: str, generator: Any) -> Generator | None:
    """A generator of random numbers, or None for the default one."""
    if generator is not None and not isinstance(generator, Generator):
        raise ArgumentError(
            f"{name} needs a generator to draw from; got {generator!r}. Use cr.Generator(seed)"
        )
    return generator
