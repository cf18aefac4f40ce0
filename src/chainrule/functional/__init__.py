"""Composite functions: ordinary Python over the primitives, each call in a scope of its own.

The scope is what the explainer folds. Names and defaults are PyTorch's; `dim=` is accepted beside `axis=`.
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
from .classes import cross_entropy, nll_loss
from .dropout import dropout
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
from .normalization import batch_norm, layer_norm

relu, sigmoid, tanh = map(checked_call, (_elementwise.relu, _elementwise.sigmoid, _elementwise.tanh))

__all__ = [
    "absorb",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsigmoid",
    "logsumexp",
    "mish",
    "mse_loss",
    "nll_loss",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softmin",
    "softplus",
    "tanh",
]  # fmt: skip


def __getattr__(name: str) -> NoReturn:
    raise missing_in("functional", name, __all__)
