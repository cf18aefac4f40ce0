"""Optimizers, under PyTorch's names and with its defaults; schedulers in `lr_scheduler`; clipping of gradients.

Knows tensors with gradients; knows nothing of layers, losses and data.
"""

from typing import NoReturn

from ..clipping import clip_grad_norm_, clip_grad_value_
from . import lr_scheduler
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .elsewhere import missing
from .groups import ParameterGroup
from .optimizer import Optimizer
from .rmsprop import RMSprop
from .sgd import SGD

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "ParameterGroup",
    "RMSprop",
    "clip_grad_norm_",
    "clip_grad_value_",
    "lr_scheduler",
]


def __getattr__(name: str) -> NoReturn:
    raise missing("chainrule.optim", name)
