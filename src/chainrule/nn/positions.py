"""Layers that tell a network where in the sequence a vector stands, by adding a row of a table to it."""

from __future__ import annotations

from typing import Any

from numpy.typing import DTypeLike

from ..dtypes import dtype_or_default
from ..errors import ShapeError
from ..functional.dropout import check_rate, dropout
from ..functional.positions import sinusoidal_positions
from ..tensor import Tensor, as_tensor
from ..tensor.creation import zeros
from ..tensor.manipulation import expand_dims
from . import init
from .checks import check_floats, check_size
from .module import Module, Parameter

# Radford et al., "Language models are unsupervised multitask learners", 2019: small beside what is learnt of tokens.
_SPREAD = 0.02


class _Positions(Module):
    """What both layers do with their rows."""

    def __init__(self, embed_dim: int, dropout: float, batch_first: bool) -> None:
        self.embed_dim = check_size("embed_dim", embed_dim)
        self.dropout = check_rate(type(self).__name__, dropout, "dropout")
        self.batch_first = bool(batch_first)

    def _length(self, x: Tensor) -> int:
        """How many positions there are; raises ShapeError for another layout or width."""
        layout = "(N, L, E)" if self.batch_first else "(L, N, E)"
        if x.ndim not in (2, 3) or x.shape[-1] != self.embed_dim:
            raise ShapeError(
                f"{self._called()} needs {layout} or (L, E) with E = {self.embed_dim}; got {x.shape}. "
                "Change the input, or embed_dim="
            )
        return x.shape[1 if x.ndim == 3 and self.batch_first else 0]

    def _with(self, x: Tensor, rows: Tensor) -> Tensor:
        """The sum, of which some is left out in training."""
        result = x + (rows if x.ndim == 2 or self.batch_first else expand_dims(rows, axis=1))
        return dropout(result, self.dropout) if self.training and self.dropout else result


class SinusoidalPositions(_Positions):
    """x plus `functional.sinusoidal_positions`: waves of lengths from 2π to 10000·2π (Vaswani et al., 2017).

    Nothing is learnt, and there is no longest sequence. dropout: share of the sum left out in training.
    batch_first: (N, L, E) instead of (L, N, E).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.SinusoidalPositions(2)(cr.zeros((2, 2))).tolist()
    [[0.0, 1.0], [0.8414709568023682, 0.5403022766113281]]
    """

    def __init__(self, embed_dim: int, dropout: float = 0.0, batch_first: bool = False) -> None:
        super().__init__(embed_dim, dropout, batch_first)

    def forward(self, x: Any) -> Tensor:
        """x, of shape (L, N, E), (N, L, E) with batch_first, or (L, E), plus the row of each position."""
        source = as_tensor(x)
        check_floats(self._called(), source, source.dtype)
        rows = sinusoidal_positions(self._length(source), self.embed_dim, source.dtype)
        return self._with(source, rows)

    def extra_repr(self) -> str:
        """Sizes and settings."""
        return f"{self.embed_dim}, dropout={self.dropout:g}, batch_first={self.batch_first}"


class LearnedPositions(_Positions):
    """x plus the first rows of `weight` (max_length, embed_dim), which is learnt and starts as N(0, 0.02²).

    Raises ShapeError for a sequence longer than max_length. dropout: share of the sum left out in training.
    batch_first: (N, L, E) instead of (L, N, E).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.LearnedPositions(16, 8, batch_first=True)(cr.zeros((2, 5, 8))).shape
    (2, 5, 8)
    """

    weight: Parameter

    def __init__(
        self,
        max_length: int,
        embed_dim: int,
        dropout: float = 0.0,
        batch_first: bool = False,
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(embed_dim, dropout, batch_first)
        self.max_length = check_size("max_length", max_length)
        wanted = dtype_or_default(dtype)
        self.weight = Parameter(zeros((max_length, embed_dim), dtype=wanted))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table anew."""
        init.normal_(self.weight, std=_SPREAD)

    def forward(self, x: Any) -> Tensor:
        """x, of shape (L, N, E), (N, L, E) with batch_first, or (L, E), plus the row of each position."""
        source = as_tensor(x)
        check_floats(self._called(), source, self.weight.dtype)
        length = self._length(source)
        if length > self.max_length:
            raise ShapeError(
                f"{self._called()} has {self.max_length} positions; got a sequence of {length}. Cut it, or use "
                f"max_length={length}"
            )
        return self._with(source, self.weight[:length])

    def extra_repr(self) -> str:
        """Sizes and settings."""
        return (
            f"{self.max_length}, {self.embed_dim}, dropout={self.dropout:g}, batch_first={self.batch_first}"
        )
