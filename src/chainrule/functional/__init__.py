"""Composite functions: ordinary Python over the primitives, each call in a scope of its own.

The scope is what the explainer folds. Names and defaults are PyTorch's; `dim=` is accepted beside `axis=`.
Knows tensors and operations; holds no parameters, and knows nothing of modules, training or compilation.
"""

from typing import NoReturn

from ..elsewhere import checked_call, missing_in
from ..tensor import elementwise as _elementwise
from .activations import (
    celu,
    elu,
    gelu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_softmax,
    logsigmoid,
    logsumexp,
    mish,
    relu6,
    selu,
    silu,
    softmax,
    softmin,
    softplus,
)
from .attention import scaled_dot_product_attention
from .classes import cross_entropy, nll_loss
from .convolution import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from .dropout import dropout, dropout1d, dropout2d
from .embedding import embedding
from .linear import absorb, linear
from .losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from .normalization import batch_norm, group_norm, layer_norm, rms_norm
from .pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool2d,
)
from .positions import sinusoidal_positions
from .recurrent import gru_cell, lstm_cell, rnn_cell
from .resize import interpolate, pad

relu, sigmoid, tanh = map(checked_call, (_elementwise.relu, _elementwise.sigmoid, _elementwise.tanh))

__all__ = [
    "absorb",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cross_entropy",
    "dropout",
    "dropout1d",
    "dropout2d",
    "elu",
    "embedding",
    "gelu",
    "group_norm",
    "gru_cell",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "huber_loss",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsigmoid",
    "logsumexp",
    "lstm_cell",
    "max_pool1d",
    "max_pool2d",
    "mish",
    "mse_loss",
    "nll_loss",
    "pad",
    "relu",
    "relu6",
    "rms_norm",
    "rnn_cell",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "sinusoidal_positions",
    "smooth_l1_loss",
    "softmax",
    "softmin",
    "softplus",
    "tanh",
]  # fmt: skip


def __getattr__(name: str) -> NoReturn:
    raise missing_in("functional", name, __all__)
