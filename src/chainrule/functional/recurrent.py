"""One step in time of recurrent cells: the old state and an input give the new state.

A step takes the input's weighted sum with all biases that can go there, so that a layer computes those of all times
as one product, and the gradients of the biases are sums over all times at once.
Gate order and formulas are PyTorch's. Knows nothing of sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import DtypeError, ShapeError
from ..tensor import Tensor, as_tensor
from ..tensor.elementwise import relu, sigmoid, tanh
from ..tensor.manipulation import moved, pad, reshaped, unstack
from .checks import check_choice
from .composite import composite
from .linear import linear

NONLINEARITIES: dict[str, Callable[[Any], Tensor]] = {"tanh": tanh, "relu": relu}

#: A bias of the input's part and of the state's part, or None for none.
Bias = Tensor | None


@composite
def rnn_cell(
    input: Any,
    hx: Any,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    nonlinearity: str = "tanh",
) -> Tensor:
    """The new state tanh(W_ih·x + b_ih + W_hh·h + b_hh): `input` (N, in) or (in,), `hx` (N, H) or (H,).

    weight_ih (H, in), weight_hh (H, H), biases (H,). nonlinearity: "tanh" or "relu". Raises ShapeError for shapes that
    do not fit, ArgumentError for another nonlinearity.

    >>> import chainrule as cr
    >>> rnn_cell(cr.ones(2), cr.zeros(1), cr.ones((1, 2)), cr.ones((1, 1)), nonlinearity="relu")
    tensor([2.])
    """
    check_choice("nonlinearity", nonlinearity, list(NONLINEARITIES))
    x, (h,) = _checked("rnn_cell", input, (hx,), weight_ih, weight_hh, 1)
    return rnn_step(linear(x, weight_ih, both(bias_ih, bias_hh)), h, weight_hh, nonlinearity)


def rnn_step(projected: Tensor, h: Tensor, weight_hh: Tensor, nonlinearity: str) -> Tensor:
    """The new state; `projected` is W_ih·x + b_ih + b_hh."""
    return NONLINEARITIES[nonlinearity](projected + linear(h, weight_hh))


def both(bias_ih: Bias, bias_hh: Bias) -> Bias:
    """The sum of the biases that are there."""
    return bias_hh if bias_ih is None else bias_ih if bias_hh is None else bias_ih + bias_hh


@composite
def lstm_cell(
    input: Any,
    hx: tuple[Any, Any],
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
) -> tuple[Tensor, Tensor]:
    """The new (h, c) of a long short-term memory: `input` (N, in) or (in,), `hx` = (h, c), each (N, H) or (H,).

    i, f, o = sigmoid and g = tanh of the four parts of W_ih·x + b_ih + W_hh·h + b_hh, in the order i, f, g, o;
    c′ = f·c + i·g and h′ = o·tanh(c′). weight_ih (4H, in), weight_hh (4H, H), biases (4H,). Hochreiter and
    Schmidhuber, "Long short-term memory", 1997, with the forget gate of Gers, Schmidhuber and Cummins, 2000.

    >>> import chainrule as cr
    >>> h, c = lstm_cell(cr.zeros(2), (cr.zeros(1), cr.ones(1)), cr.ones((4, 2)), cr.ones((4, 1)))
    >>> c.tolist()
    [0.5]
    """
    x, (h, c) = _checked("lstm_cell", input, tuple(hx), weight_ih, weight_hh, 4)
    projected = linear(x, weight_ih, both(bias_ih, bias_hh))
    return lstm_step(gates_first(projected, 4), h, c, weight_hh)


def lstm_step(projected: Tensor, h: Tensor, c: Tensor, weight_hh: Tensor) -> tuple[Tensor, Tensor]:
    """The new (h, c); `projected` is W_ih·x + b_ih + b_hh, gates first."""
    i, f, g, o = unstack(projected + gates_first(linear(h, weight_hh), 4))
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def gates_first(x: Tensor, count: int) -> Tensor:
    """(…, count · H) as (count, …, H): what is computed from one gate alone then lies in one piece of memory."""
    split = reshaped(x, (*x.shape[:-1], count, x.shape[-1] // count))
    return moved(split, -2, 0)


@composite
def gru_cell(
    input: Any,
    hx: Any,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
) -> Tensor:
    """The new state of a gated recurrent unit: `input` (N, in) or (in,), `hx` (N, H) or (H,).

    r, z = sigmoid of the first two of three parts of W_ih·x + b_ih + W_hh·h + b_hh; n = tanh of the third part of
    W_ih·x + b_ih plus r times that of W_hh·h + b_hh; h′ = (1 − z)·n + z·h. weight_ih (3H, in), weight_hh (3H, H),
    biases (3H,). Cho et al., "Learning phrase representations using RNN encoder–decoder …", 2014, with the reset gate
    applied after the product, as in PyTorch.

    >>> import chainrule as cr
    >>> gru_cell(cr.zeros(2), cr.ones(1), cr.ones((3, 2)), cr.zeros((3, 1))).tolist()
    [0.5]
    """
    x, (h,) = _checked("gru_cell", input, (hx,), weight_ih, weight_hh, 3)
    outer, inner = gru_biases(bias_ih, bias_hh)
    return gru_step(gates_first(linear(x, weight_ih, outer), 3), h, weight_hh, inner)


def gru_biases(bias_ih: Bias, bias_hh: Bias) -> tuple[Bias, Bias]:
    """What can be added to the input's weighted sum, and what belongs to the third part of the state's."""
    if bias_hh is None:
        return bias_ih, None
    width = bias_hh.shape[0] // 3
    return both(bias_ih, pad(bias_hh[: 2 * width], [(0, width)])), bias_hh[2 * width :]


def gru_step(projected: Tensor, h: Tensor, weight_hh: Tensor, bias_n: Bias) -> Tensor:
    """The new state; `projected` is W_ih·x + b_ih + b_hh, gates first, without the third part of b_hh: `bias_n`."""
    of_state = gates_first(linear(h, weight_hh), 3)
    r, z = unstack(sigmoid(projected[:2] + of_state[:2]))
    proposed = of_state[2] if bias_n is None else of_state[2] + bias_n
    n = tanh(projected[2] + r * proposed)
    return n + z * (h - n)


def _checked(
    name: str, input: Any, states: tuple[Any, ...], weight_ih: Tensor, weight_hh: Tensor, gates: int
) -> tuple[Tensor, list[Tensor]]:
    """The input and the states as tensors that fit the weights."""
    x, held = as_tensor(input), [as_tensor(one) for one in states]
    if len(held) != (2 if gates == 4 else 1):
        raise ShapeError(f"{name} needs hx as a pair (h, c); got {len(held)} states. Pass hx=(h, c)")
    width = weight_hh.shape[-1]
    if weight_hh.shape != (gates * width, width) or weight_ih.shape[:-1] != (gates * width,):
        raise ShapeError(
            f"{name} needs weight_ih ({gates}·H, in) and weight_hh ({gates}·H, H); got {weight_ih.shape} and "
            f"{weight_hh.shape}"
        )
    if x.ndim not in (1, 2) or x.shape[-1] != weight_ih.shape[-1]:
        raise ShapeError(
            f"{name} needs an input (N, {weight_ih.shape[-1]}) or ({weight_ih.shape[-1]},); got {x.shape}. "
            "Pass one step in time"
        )
    for state in held:
        if state.shape != (*x.shape[:-1], width):
            raise ShapeError(
                f"{name} needs states of shape {(*x.shape[:-1], width)} for the input {x.shape}; got {state.shape}"
            )
        if state.dtype != x.dtype:
            raise DtypeError(
                f"{name} needs input and states of one dtype; got {x.dtype.name} and {state.dtype.name}. "
                "Use x.astype(…)"
            )
    return x, held
