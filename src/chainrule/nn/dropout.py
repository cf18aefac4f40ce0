"""Dropout as layers: of single entries, and of whole channels."""

from __future__ import annotations

from typing import Any

from .. import functional
from ..functional.composite import composite
from ..functional.dropout import check_rate, dropped_channels
from ..tensor import Tensor
from ..tensor.random import Generator
from .checks import check_generator
from .module import Module

_dropout1d = composite(dropped_channels, "dropout1d")
_dropout2d = composite(dropped_channels, "dropout2d")


class _Dropout(Module):
    """A probability, and where the random bits come from."""

    def __init__(self, p: float = 0.5, inplace: bool = False, *, generator: Generator | None = None) -> None:
        self.p = check_rate(type(self).__name__, p)
        self.inplace = bool(inplace)
        self.generator = check_generator(type(self).__name__, generator)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p:g}, inplace={self.inplace}"


class Dropout(_Dropout):
    """In training each entry is 0 with probability `p` and divided by 1 − p otherwise; in evaluation x itself.

    generator: where the random bits come from; by default the one that `cr.manual_seed` sets. The same state gives
    the same entries, eager and compiled. `inplace` changes nothing: tensors are never overwritten.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> layer = nn.Dropout(0.25)
    >>> layer.eval()(cr.ones(2))
    tensor([1., 1.])
    """

    def forward(self, x: Any) -> Tensor:
        """The entries that are kept."""
        return functional.dropout(x, self.p, self.training, generator=self.generator)


class Dropout1d(_Dropout):
    """In training each channel of (N, C, L) or (C, L) is 0 with probability `p` and divided by 1 − p otherwise.

    Arguments as those of `Dropout`. Raises ShapeError for other numbers of axes, naming the layer.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> sorted(set(nn.Dropout1d(0.5)(cr.ones((1, 40, 3))).sum(axis=2).tolist()[0]))
    [0.0, 6.0]
    """

    def forward(self, x: Any) -> Tensor:
        """The channels that are kept."""
        return _dropout1d(self._called(), x, self.p, self.training, self.generator, (2, 3), 1)


class Dropout2d(_Dropout):
    """In training each channel of (N, C, H, W) or (N, C, L) is 0 with probability `p`, or divided by 1 − p.

    Arguments as those of `Dropout`. Neighbouring pixels of a feature map say nearly the same, so single ones left out
    would teach little. Raises ShapeError for other numbers of axes, naming the layer.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> sorted(set(nn.Dropout2d(0.5)(cr.ones((1, 40, 2, 2))).sum(axis=(2, 3)).tolist()[0]))
    [0.0, 8.0]
    """

    def forward(self, x: Any) -> Tensor:
        """The channels that are kept."""
        return _dropout2d(self._called(), x, self.p, self.training, self.generator, (3, 4), 0)
