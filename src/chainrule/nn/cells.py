"""Recurrent cells as layers: one step in time, under PyTorch's names."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import DTypeLike

from ..dtypes import Dtype, dtype_or_default
from ..errors import ShapeError
from ..functional.checks import check_choice
from ..functional.composite import composite
from ..functional.linear import linear
from ..functional.recurrent import (
    NONLINEARITIES,
    both,
    gates_first,
    gru_biases,
    gru_step,
    lstm_step,
    rnn_step,
)
from ..tensor import Tensor, as_tensor
from ..tensor.creation import zeros
from . import init
from .checks import check_floats, check_size
from .module import Module, Parameter

_rnn = composite(rnn_step, "rnn_cell")
_lstm = composite(lstm_step, "lstm_cell")
_gru = composite(gru_step, "gru_cell")


def add_weights(
    module: Module,
    names: tuple[str, str, str, str],
    gates: int,
    sizes: tuple[int, int],
    bias: bool,
    dtype: Dtype,
) -> None:
    """Register weight_ih (gates·H, in), weight_hh (gates·H, H) and both biases (gates·H,), or None for these."""
    wide, hidden = gates * sizes[1], sizes[1]
    for name, shape in zip(names, ((wide, sizes[0]), (wide, hidden), (wide,), (wide,))):
        kept = bias or len(shape) == 2
        module.register_parameter(name, Parameter(zeros(shape, dtype=dtype)) if kept else None)


def draw_weights(module: Module, hidden_size: int) -> None:
    """Every parameter anew as U(−1/√H, 1/√H), as PyTorch does."""
    bound = 1 / math.sqrt(hidden_size)
    for parameter in module.parameters(recurse=False):
        init.uniform_(parameter, -bound, bound)


class _Cell(Module):
    """What all cells share: sizes, weights, and the checks of what comes in."""

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, gates: int, dtype: DTypeLike | None
    ) -> None:
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.bias = bool(bias)
        wanted = dtype_or_default(dtype)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        add_weights(self, names, gates, (input_size, hidden_size), self.bias, wanted)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        draw_weights(self, self.hidden_size)

    def _input(self, x: Any) -> Tensor:
        source = as_tensor(x)
        if source.ndim not in (1, 2) or source.shape[-1] != self.input_size:
            raise ShapeError(
                f"{self._called()} needs (N, {self.input_size}) or ({self.input_size},); got {source.shape}. "
                "Pass one step in time, or change input_size="
            )
        check_floats(self._called(), source, self.weight_ih.dtype)
        return source

    def _state(self, given: Any, x: Tensor, name: str = "hx") -> Tensor:
        wanted = (*x.shape[:-1], self.hidden_size)
        if given is None:
            return zeros(wanted, dtype=x.dtype)
        state = as_tensor(given)
        if state.shape != wanted:
            raise ShapeError(
                f"{self._called()} needs {name} of shape {wanted} for the input {x.shape}; got {state.shape}"
            )
        check_floats(self._called(), state, self.weight_ih.dtype)
        return state

    def extra_repr(self) -> str:
        """Sizes and whether there is a bias."""
        return f"{self.input_size}, {self.hidden_size}, bias={self.bias}"


class RNNCell(_Cell):
    """One step of a simple recurrent net: x (N, input_size), state (N, hidden_size) → the new state.

    See `functional.rnn_cell`. nonlinearity: "tanh" or "relu". Without N: a single sequence.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.RNNCell(4, 3)(cr.ones((2, 4))).shape
    (2, 3)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.nonlinearity = check_choice("nonlinearity", nonlinearity, list(NONLINEARITIES))
        super().__init__(input_size, hidden_size, bias, 1, dtype)

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        """The new state; it starts as 0."""
        x = self._input(input)
        projected = linear(x, self.weight_ih, both(self.bias_ih, self.bias_hh))
        return _rnn(projected, self._state(hx, x), self.weight_hh, self.nonlinearity)

    def extra_repr(self) -> str:
        """Sizes and settings."""
        return f"{super().extra_repr()}, nonlinearity={self.nonlinearity!r}"


class LSTMCell(_Cell):
    """One step of a long short-term memory: x (N, input_size), (h, c) each (N, hidden_size) → the new (h, c).

    See `functional.lstm_cell`. Without N: a single sequence.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> h, c = nn.LSTMCell(4, 3)(cr.ones((2, 4)))
    >>> h.shape, c.shape
    ((2, 3), (2, 3))
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, dtype: DTypeLike | None = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, dtype)

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        """The new (h, c); both start as 0."""
        x = self._input(input)
        given = (None, None) if hx is None else hx
        if isinstance(given, Tensor) or len(given) != 2:
            raise ShapeError(
                f"{self._called()} needs hx as a pair (h, c); got {shown_states(given)}. Pass hx=(h, c)"
            )
        h, c = self._state(given[0], x, "h"), self._state(given[1], x, "c")
        projected = linear(x, self.weight_ih, both(self.bias_ih, self.bias_hh))
        return _lstm(gates_first(projected, 4), h, c, self.weight_hh)


class GRUCell(_Cell):
    """One step of a gated recurrent unit: x (N, input_size), state (N, hidden_size) → the new state.

    See `functional.gru_cell`. Without N: a single sequence.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.GRUCell(4, 3)(cr.ones((2, 4))).shape
    (2, 3)
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, dtype: DTypeLike | None = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, dtype)

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        """The new state; it starts as 0."""
        x = self._input(input)
        outer, inner = gru_biases(self.bias_ih, self.bias_hh)
        projected = gates_first(linear(x, self.weight_ih, outer), 3)
        return _gru(projected, self._state(hx, x), self.weight_hh, inner)


def shown_states(given: Any) -> str:
    """What came in place of a pair of states, for messages."""
    return f"a tensor {given.shape}" if isinstance(given, Tensor) else f"{len(given)} of them"
