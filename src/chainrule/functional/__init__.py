"""Composite functions: ordinary Python over the primitives, each call in a scope of its own.

The scope is what the explainer folds. Names and defaults are PyTorch's; `dim=` is accepted beside `axis=`.
"""

from ..tensor.elementwise import relu, sigmoid, tanh
from .activations import log_softmax, logsumexp, softmax, softplus
from .linear import absorb, linear
from .losses import binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy, mse_loss

__all__ = [
    "absorb", "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "linear",
    "log_softmax", "logsumexp", "mse_loss", "relu", "sigmoid", "softmax", "softplus", "tanh",
]  # fmt: skip
