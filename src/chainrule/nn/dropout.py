"""Dropout as a layer."""

from __future__ import annotations

from typing import Any

from .. import functional
from ..errors import ArgumentError
from ..functional.dropout import check_rate
from ..tensor import Tensor
from ..tensor.random import Generator
from .module import Module


class Dropout(Module):
    """In training each entry is 0 with probability `p` and divided by 1 − p otherwise; in evaluation x itself.

    generator: where the random bits come from; by default the one that `cr.manual_seed` sets. The same state gives
    the same entries, eager and compiled. `inplace` changes nothing: tensors are never overwritten.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> layer = nn.Dropout(0.25)
    >>> layer.eval()(cr.ones(2))
    tensor([1., 1.])
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, generator: Generator | None = None) -> None:
        self.p = check_rate("Dropout", p)
        self.inplace = bool(inplace)
        if generator is not None and not isinstance(generator, Generator):
            raise ArgumentError(
                f"Dropout needs a generator to draw from; got {generator!r}. Use cr.Generator(seed)"
            )
        self.generator = generator

    def forward(self, x: Any) -> Tensor:
        """The entries that are kept."""
        return functional.dropout(x, self.p, self.training, generator=self.generator)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p:g}, inplace={self.inplace}"
