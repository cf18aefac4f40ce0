"""Training: the loop, run directories, tables."""

from .files import load, save
from .fit import Run, fit

__all__ = ["Run", "fit", "load", "save"]
