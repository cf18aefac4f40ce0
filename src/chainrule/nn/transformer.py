"""The encoder of the transformer: attention and a small network, each with a way around it, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from numpy.typing import DTypeLike

from .. import functional
from ..errors import ArgumentError
from ..tensor import Tensor, as_tensor
from .attention import MultiheadAttention
from .checks import check_size
from .containers import ModuleList
from .dropout import Dropout
from .linear import Linear
from .module import Module
from .normalization import LayerNorm

_ACTIVATIONS: dict[str, Callable[[Any], Tensor]] = {"relu": functional.relu, "gelu": functional.gelu}


class TransformerEncoderLayer(Module):
    """Self-attention, then a network of one hidden layer, both added to what came in: (L, N, d_model) → the same shape.

    dim_feedforward: width of the hidden layer. activation: "relu", "gelu", or a function. norm_first: normalise what
    goes into either part (Xiong et al., "On layer normalization in the transformer architecture", 2020) rather than
    the sum after it (Vaswani et al., "Attention is all you need", 2017). dropout: share left out in training of the
    weights of attention, of the hidden layer, and of what both parts add. bias: whether linear layers and norms have
    one. batch_first: (N, L, d_model).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    >>> layer(cr.ones((2, 5, 8))).shape
    (2, 5, 8)
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Any], Tensor] = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias, batch_first=batch_first, dtype=dtype
        )
        self.linear1 = Linear(d_model, check_size("dim_feedforward", dim_feedforward), bias, dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype)
        self.norm_first = bool(norm_first)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        known = activation in _ACTIVATIONS if isinstance(activation, str) else callable(activation)
        if not known:
            raise ArgumentError(
                f"TransformerEncoderLayer needs 'relu', 'gelu' or a function as activation; got {activation!r}"
            )
        self.activation = _ACTIVATIONS[activation] if isinstance(activation, str) else activation

    def forward(
        self, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
    ) -> Tensor:
        """The sequences one layer on.

        src_mask (L, L) or (N·nhead, L, L), src_key_padding_mask (N, L): as attn_mask and key_padding_mask of
        `nn.MultiheadAttention`: True is left out. is_causal: nothing looks ahead, with or without a mask.
        """
        x = as_tensor(src)
        if self.norm_first:
            x = x + self._attended(self.norm1(x), src_mask, src_key_padding_mask, is_causal)
            return x + self._fed_forward(self.norm2(x))
        x = self.norm1(x + self._attended(x, src_mask, src_key_padding_mask, is_causal))
        result: Tensor = self.norm2(x + self._fed_forward(x))
        return result

    def _attended(self, x: Tensor, mask: Any, padding: Any, causal: bool) -> Tensor:
        attended, _ = self.self_attn(x, x, x, padding, False, mask, is_causal=causal)
        result: Tensor = self.dropout1(attended)
        return result

    def _fed_forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.activation(self.linear1(x)))
        result: Tensor = self.dropout2(self.linear2(hidden))
        return result

    def extra_repr(self) -> str:
        """What its layers do not show."""
        return f"norm_first={self.norm_first}"


class TransformerEncoder(Module):
    """`num_layers` copies of a layer, one after the other, and a norm after the last if one is given.

    All copies start with the same numbers, as in PyTorch; `reset_parameters` of their parts draws them anew.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16)
    >>> nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(8))(cr.ones((5, 3, 8))).shape
    (5, 3, 8)
    """

    norm: Module | None

    def __init__(self, encoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        if not isinstance(encoder_layer, Module):
            raise ArgumentError(
                f"TransformerEncoder needs a layer to copy; got {type(encoder_layer).__name__}. "
                "Use nn.TransformerEncoderLayer(d_model, nhead)"
            )
        self.num_layers = check_size("num_layers", num_layers)
        self.layers = ModuleList([copy.deepcopy(encoder_layer) for _ in range(num_layers)])
        self.add_module("norm", norm)

    def forward(
        self, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
    ) -> Any:
        """The sequences after all layers; masks and is_causal as those of the layer."""
        x: Any = src
        for layer in self.layers:
            x = layer(x, mask, src_key_padding_mask, bool(is_causal))
        return x if self.norm is None else self.norm(x)
