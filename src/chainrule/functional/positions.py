"""Where in a sequence something stands, as numbers that a network can read."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import DTypeLike

from ..dtypes import Dtype, dtype_or_default
from ..errors import ArgumentError, DtypeError
from ..graph import constant
from ..operations import Array
from ..tensor import Tensor, wrap

# Vaswani et al., "Attention is all you need", 2017, section 3.5: wavelengths from 2π to 10000·2π.
_LONGEST = 10000.0


def sinusoidal_positions(length: int, embed_dim: int, dtype: DTypeLike | None = None) -> Tensor:
    """The table (length, embed_dim) of Vaswani et al., 2017: sin(t / 10000^(2i/embed_dim)) in column 2i, cos in 2i + 1.

    dtype: float32 by default. Raises ArgumentError for a length below 0 or a width below 1.

    >>> [round(number, 3) for number in sinusoidal_positions(2, 4)[1].tolist()]
    [0.841, 0.54, 0.01, 1.0]
    """
    for name, value, least in (("length", length, 0), ("embed_dim", embed_dim, 1)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            raise ArgumentError(
                f"sinusoidal_positions needs a whole number from {least} as {name}; got {value!r}. Change {name}="
            )
    wanted = dtype_or_default(dtype)
    if wanted.kind != "f":
        raise DtypeError(
            f"sinusoidal_positions are floats; got dtype {wanted.name}. Use 'float32' or 'float64'"
        )
    return wrap(constant(_table(int(length), int(embed_dim), wanted)))


@functools.lru_cache(maxsize=64)
def _table(length: int, width: int, dtype: Dtype) -> Array:
    rates = _LONGEST ** (-np.arange(0, width, 2) / width)
    angles = np.arange(length)[:, None] * rates
    table = np.empty((length, width))
    table[:, 0::2] = np.sin(angles)
    table[:, 1::2] = np.cos(angles[:, : width // 2])
    table = table.astype(dtype)
    table.setflags(write=False)
    return table
