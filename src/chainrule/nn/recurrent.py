"""Recurrent nets over whole sequences: layers above each other, both directions, sequences of different lengths.

The weighted sums of the inputs of all times are one product; what remains in the loop over time is the state's part.
Names, shapes, gate order, first numbers and results are PyTorch's; `lengths=` stands for its packed sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..dtypes import dtype_or_default
from ..errors import BoundsError, DtypeError, ShapeError, warn
from ..functional.checks import check_choice, check_range
from ..functional.dropout import check_rate, dropout
from ..functional.linear import linear
from ..functional.recurrent import NONLINEARITIES, Bias, both, gru_biases, gru_step, lstm_step, rnn_step
from ..graph import constant
from ..iteration import scan
from ..tensor import Tensor, as_tensor, wrap
from ..tensor.creation import zeros
from ..tensor.elementwise import where
from ..tensor.manipulation import concat, expand_dims, moved, reshaped, stack
from .cells import add_weights, draw_weights, shown_states
from .checks import check_floats, check_size
from .module import Module

#: The state of one layer in one direction: (h,), or (h, c) of an LSTM; each (N, H).
State = tuple[Tensor, ...]


class _Recurrent(Module):
    """What all three nets share; subclasses say how many gates and states there are, and what one step does."""

    _gates = 1
    _state_names: tuple[str, ...] = ("hx",)
    # (weighted sums of the input, state, weight_hh, the bias that is left) → the state one step later
    _step: Callable[[Tensor, State, Tensor, Bias], State]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        checkpoint_every: int | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.num_layers = check_size("num_layers", num_layers)
        self.bias = bool(bias)
        self.batch_first = bool(batch_first)
        self.dropout = check_rate(type(self).__name__, dropout, "dropout")
        self.bidirectional = bool(bidirectional)
        self.checkpoint_every = (
            None if checkpoint_every is None else check_size("checkpoint_every", checkpoint_every)
        )
        if self.dropout and num_layers == 1:
            warn(
                f"{type(self).__name__} drops out between its layers; got dropout={self.dropout:g} and one layer, so "
                "nothing is left out. Use num_layers=2, or nn.Dropout on the output",
                UserWarning,
            )
        wanted = dtype_or_default(dtype)
        for layer in range(num_layers):
            for reverse in range(self._directions):
                width = input_size if layer == 0 else hidden_size * self._directions
                add_weights(
                    self, _names(layer, reverse), self._gates, (width, hidden_size), self.bias, wanted
                )
        self.reset_parameters()

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        draw_weights(self, self.hidden_size)

    def forward(self, input: Any, hx: Any = None, lengths: Any = None) -> tuple[Tensor, Any]:
        """(output, last state): what the last layer says at every time, and where every layer ends.

        input: (T, N, in), or (N, T, in) with batch_first, or (T, in) for a single sequence. output: the same with
        hidden_size (twice that if bidirectional) in place of in. hx: the states at the start, 0 by default:
        (num_layers · directions, N, hidden_size), without N for a single sequence; an LSTM takes and gives a pair
        (h, c) of them. lengths (N,): sequence n ends after lengths[n] steps; what comes later is not looked at,
        outputs are 0 there, the last state is that at its end, and the reverse direction begins at its end.
        Raises ShapeError and DtypeError for what does not fit, BoundsError for a length outside 1 … T, naming the
        layer; in a compiled step too, before anything is changed.
        """
        source = self._input(input)
        x = source
        if source.ndim == 2:
            x = expand_dims(source, axis=1)
        elif self.batch_first:
            x = moved(source, 0, 1)
        starts = self._starts(hx, x, source.ndim == 2)
        active = None if lengths is None else self._active(lengths, x, source)
        ends: list[State] = []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                x = dropout(x, self.dropout)
            outputs = []
            for reverse in range(self._directions):
                output, end = self._run(x, starts[len(ends)], _names(layer, reverse), bool(reverse), active)
                outputs.append(output)
                ends.append(end)
            x = outputs[0] if len(outputs) == 1 else concat(outputs, axis=-1)
        if source.ndim == 2:
            x = reshaped(x, (x.shape[0], x.shape[2]))
        elif self.batch_first:
            x = moved(x, 0, 1)
        return x, self._last(ends, source.ndim == 2)

    def _run(
        self, x: Tensor, start: State, names: Sequence[str], reverse: bool, active: Tensor | None
    ) -> tuple[Tensor, State]:
        """One layer in one direction: the outputs (T, N, H) and the state at the end."""
        weight_ih, weight_hh, bias_ih, bias_hh = (getattr(self, name) for name in names)
        outer, inner = self._biases(bias_ih, bias_hh)
        projected = linear(x, weight_ih, outer)
        if self._gates > 1:  # (T, gates, N, H)
            projected = moved(reshaped(projected, (*x.shape[:2], self._gates, self.hidden_size)), 2, 1)

        def step(state: State, given: Any) -> tuple[State, Tensor]:
            if active is None:
                new = self._step(given, state, weight_hh, inner)
                return new, new[0]
            one, goes_on = given
            new = self._step(one, state, weight_hh, inner)
            kept = tuple(where(goes_on, after, before) for after, before in zip(new, state))
            return kept, where(goes_on, new[0], 0.0)

        entries = projected if active is None else (projected, active)
        end, outputs = scan(step, start, entries, reverse=reverse, checkpoint_every=self.checkpoint_every)
        return outputs, end

    def _biases(self, bias_ih: Bias, bias_hh: Bias) -> tuple[Bias, Bias]:
        """What is added to the weighted sums of the input, and what is left for the step."""
        return both(bias_ih, bias_hh), None

    # ------------------------------------------------------------------------------- what comes in

    def _input(self, input: Any) -> Tensor:
        x = as_tensor(input)
        layout = f"({'N, T' if self.batch_first else 'T, N'}, {self.input_size})"
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{self._called()} needs {layout}, or (T, {self.input_size}) for one sequence; got {x.shape}. "
                "Change the input, or input_size="
            )
        check_floats(self._called(), x, self.weight_ih_l0.dtype)
        if not x.shape[1 if x.ndim == 3 and self.batch_first else 0]:
            raise ShapeError(
                f"{self._called()} needs a step in time or more, {layout}; got {x.shape}. Leave it out"
            )
        return x

    def _starts(self, hx: Any, x: Tensor, single: bool) -> list[State]:
        """The state of each layer and direction at the start; `x` is (T, N, in)."""
        count, several = self.num_layers * self._directions, len(self._state_names) > 1
        if hx is None:
            blank = zeros((x.shape[1], self.hidden_size), dtype=x.dtype)
            return [(blank,) * len(self._state_names)] * count
        given = tuple(hx) if several and isinstance(hx, tuple | list) else (hx,)
        if len(given) != len(self._state_names):
            raise ShapeError(
                f"{self._called()} needs hx as a pair (h, c); got {shown_states(hx)}. Pass hx=(h, c)"
            )
        shape = (count, self.hidden_size) if single else (count, x.shape[1], self.hidden_size)
        states = [as_tensor(one) for one in given]
        for name, state in zip(self._state_names, states):
            if state.shape != shape:
                raise ShapeError(
                    f"{self._called()} needs {name} of shape {shape}: layers · directions"
                    f"{'' if single else ', batch'}, hidden_size; got {state.shape}. Change {name}"
                )
            check_floats(self._called(), state, x.dtype)
        rows = [expand_dims(one, axis=1) if single else one for one in states]
        return [tuple(one[k] for one in rows) for k in range(count)]

    def _active(self, lengths: Any, x: Tensor, source: Tensor) -> Tensor:
        """(T, N, 1): whether sequence n still goes on at time t."""
        times, batch = x.shape[:2]
        given = as_tensor(lengths)
        if isinstance(lengths, list | tuple) and not lengths:
            given = given.astype("int64")
        if given.dtype.kind not in "iu":
            raise DtypeError(
                f"{self._called()} needs whole numbers as lengths; got {given.dtype.name}{given.shape}. "
                "Use lengths.astype('int64')"
            )
        if given.shape != ((batch,) if source.ndim == 3 else ()):
            raise ShapeError(
                f"{self._called()} needs a length for each sequence, {(batch,) if source.ndim == 3 else '()'}; got "
                f"{given.shape} for the input {source.shape}"
            )
        check_range(
            given.node,
            1,
            times,
            f"{self._called()} needs lengths from 1 to {times}, the steps of the input; got {{low}} to {{high}}. "
            "Leave empty sequences out, or pad the input further",
            BoundsError,
        )
        number = wrap(constant(np.arange(times).reshape(times, 1, 1)))
        return number < reshaped(given.astype("int64"), (1, batch, 1))

    def _last(self, ends: list[State], single: bool) -> Any:
        """The states at the end as PyTorch gives them."""
        found = [stack([end[k] for end in ends]) for k in range(len(self._state_names))]
        if single:
            found = [reshaped(one, (one.shape[0], one.shape[2])) for one in found]
        return found[0] if len(found) == 1 else tuple(found)

    def extra_repr(self) -> str:
        """Sizes, and settings that are not the usual ones."""
        usual: dict[str, Any] = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        usual |= {"bidirectional": False, "checkpoint_every": None}
        other = [
            f"{name}={getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value
        ]
        return ", ".join([str(self.input_size), str(self.hidden_size), *other])


class RNN(_Recurrent):
    """A simple recurrent net: h′ = tanh(W_ih·x + b_ih + W_hh·h + b_hh) at every time, in `num_layers` layers.

    input (T, N, input_size) → output (T, N, hidden_size) and the last state (num_layers, N, hidden_size).
    nonlinearity: "tanh" or "relu". bidirectional: each layer also runs from the end to the start, and both outputs
    stand side by side. dropout: share of each layer's output but the last's that is left out in training.
    batch_first: (N, T, …). Weights start as U(−1/√H, 1/√H). checkpoint_every: keep only every so many steps what the
    gradient needs, and compute the rest again. See `forward` for states and lengths.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> output, last = nn.RNN(4, 3, batch_first=True)(cr.ones((2, 7, 4)))
    >>> output.shape, last.shape
    ((2, 7, 3), (1, 2, 3))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        checkpoint_every: int | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.nonlinearity = check_choice("nonlinearity", nonlinearity, list(NONLINEARITIES))
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            checkpoint_every=checkpoint_every,
            dtype=dtype,
        )

    def _step(self, projected: Tensor, state: State, weight_hh: Tensor, bias: Bias) -> State:
        return (rnn_step(projected, state[0], weight_hh, self.nonlinearity),)

    def extra_repr(self) -> str:
        """Sizes, and settings that are not the usual ones."""
        shown = super().extra_repr()
        return shown if self.nonlinearity == "tanh" else f"{shown}, nonlinearity={self.nonlinearity!r}"


class LSTM(_Recurrent):
    """A long short-term memory (see `functional.lstm_cell`) at every time, in `num_layers` layers.

    input (T, N, input_size) → output (T, N, hidden_size) and the last (h, c), each (num_layers, N, hidden_size).
    Options and weights as those of `nn.RNN`; the four gates stand in the order i, f, g, o.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> output, (h, c) = nn.LSTM(4, 3, bidirectional=True)(cr.ones((7, 2, 4)), lengths=[7, 5])
    >>> output.shape, h.shape, output[6, 1].tolist()
    ((7, 2, 6), (2, 2, 3), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    """

    _gates = 4
    _state_names = ("h", "c")

    def _step(self, projected: Tensor, state: State, weight_hh: Tensor, bias: Bias) -> State:
        h, c = state
        return lstm_step(projected, h, c, weight_hh)


class GRU(_Recurrent):
    """A gated recurrent unit (see `functional.gru_cell`) at every time, in `num_layers` layers.

    input (T, N, input_size) → output (T, N, hidden_size) and the last state (num_layers, N, hidden_size).
    Options and weights as those of `nn.RNN`; the three gates stand in the order r, z, n.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> output, last = nn.GRU(4, 3, num_layers=2)(cr.ones((7, 4)))
    >>> output.shape, last.shape
    ((7, 3), (2, 3))
    """

    _gates = 3

    def _biases(self, bias_ih: Bias, bias_hh: Bias) -> tuple[Bias, Bias]:
        return gru_biases(bias_ih, bias_hh)

    def _step(self, projected: Tensor, state: State, weight_hh: Tensor, bias: Bias) -> State:
        return (gru_step(projected, state[0], weight_hh, bias),)


def _names(layer: int, reverse: int) -> tuple[str, str, str, str]:
    """The parameters of one layer in one direction."""
    end = f"_l{layer}{'_reverse' if reverse else ''}"
    return f"weight_ih{end}", f"weight_hh{end}", f"bias_ih{end}", f"bias_hh{end}"
