"""Training: the loop, run directories with checkpoints, tables."""

from .callbacks import Callback
from .files import load, save
from .finder import LearningRates, find_learning_rate
from .fit import fit
from .results import Run, evaluate, predict
from .stored import load_run

__all__ = [
    "Callback",
    "LearningRates",
    "Run",
    "evaluate",
    "find_learning_rate",
    "fit",
    "load",
    "load_run",
    "predict",
    "save",
]
