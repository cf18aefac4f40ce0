"""Dropout: entries left out at random, the others scaled up, so that the sum stays the same on average."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError, ShapeError
from ..graph import Node, constant
from ..tensor import Tensor, dispatch, wrap
from ..tensor.random import Generator, default_generator
from .checks import check_number, floats
from .composite import composite

_WORDS = 1 << 32


@composite
def dropout(
    x: Any,
    p: float = 0.5,
    training: bool = True,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """In training each entry is 0 with probability `p` and divided by 1 − p otherwise; else x itself.

    x: any shape, floats. The random bits come from `generator` (the default one if there is none): its state decides
    them, eager and compiled. What is left out passes no gradient and no infinity. Raises ArgumentError unless
    0 ≤ p ≤ 1. Srivastava, Hinton et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.

    >>> import chainrule as cr
    >>> sorted(set(dropout(cr.ones(100), 0.5).tolist()))
    [0.0, 2.0]
    >>> dropout(cr.ones(2), 0.5, training=False)
    tensor([1., 1.])
    """
    source, rate = floats(x), check_rate("dropout", p)
    if not training or rate == 0:
        return source
    if rate == 1:  # nothing is left to scale up
        return _where(constant(np.zeros(source.shape, bool)), source)
    return _where(_kept(source.shape, rate, generator or default_generator), source * (1 / (1 - rate)))


@composite
def dropout1d(x: Any, p: float = 0.5, training: bool = True, *, generator: Generator | None = None) -> Tensor:
    """In training each channel of x, (N, C, L) or (C, L), is 0 with probability `p` and divided by 1 − p otherwise.

    Otherwise as `dropout`. Raises ShapeError for other numbers of axes. Tompson et al., "Efficient object
    localization using convolutional networks", 2015.

    >>> import chainrule as cr
    >>> sorted(set(dropout1d(cr.ones((1, 40, 3))).sum(axis=2).tolist()[0]))
    [0.0, 6.0]
    """
    return dropped_channels("dropout1d", x, p, training, generator, (2, 3), 1)


@composite
def dropout2d(x: Any, p: float = 0.5, training: bool = True, *, generator: Generator | None = None) -> Tensor:
    """In training each channel of x, (N, C, H, W), is 0 with probability `p` and divided by 1 − p otherwise.

    Also (N, C, L), of which channels are left out too. Otherwise as `dropout1d`.

    >>> import chainrule as cr
    >>> sorted(set(dropout2d(cr.ones((1, 40, 2, 2))).sum(axis=(2, 3)).tolist()[0]))
    [0.0, 8.0]
    """
    return dropped_channels("dropout2d", x, p, training, generator, (3, 4), 0)


def dropped_channels(
    name: str,
    x: Any,
    p: float,
    training: bool,
    generator: Generator | None,
    ranks: tuple[int, ...],
    spatial: int,
) -> Tensor:
    """The formula; `name` is for messages. spatial: how many last axes a channel has (0: all after N, C)."""
    source, rate = floats(x), check_rate(name, p)
    if source.ndim not in ranks:
        raise ShapeError(
            f"{name} needs channels with places behind them, {' or '.join(map(str, ranks))} axes; got {source.shape}. "
            "Use dropout for single entries"
        )
    if not training or rate == 0:
        return source
    whole = spatial or source.ndim - 2
    shape = (*source.shape[: source.ndim - whole], *(1,) * whole)
    if rate == 1:
        return _where(constant(np.zeros(shape, bool)), source)
    return _where(_kept(shape, rate, generator or default_generator), source * (1 / (1 - rate)))


def check_rate(name: str, p: Any, argument: str = "p") -> float:
    """A probability, which the caller knows under the name `argument`."""
    rate = check_number(name, argument, p)
    if not 0 <= rate <= 1:
        raise ArgumentError(
            f"{name} needs a probability from 0 to 1 as {argument}; got {p!r}. Change {argument}="
        )
    return rate


def _kept(shape: tuple[int, ...], rate: float, generator: Generator) -> Node:
    """Bools, each true with probability 1 − rate (to 2⁻³²)."""
    size = int(np.prod(shape, dtype=object))
    least = min(round(rate * _WORDS), _WORDS - 1)
    flat = ops.greater_equal.on_nodes((generator.bits(size), least), {})
    kept: Node = ops.reshape.node((flat,), {"shape": shape})
    return kept


def _where(kept: Node, x: Tensor) -> Tensor:
    return wrap(dispatch.broadcast_node(ops.where, (kept, x.node, constant(0, x.dtype))))
