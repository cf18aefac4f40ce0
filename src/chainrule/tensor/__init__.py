"""Tensors and the functions on them, under the names of the array API standard."""

from . import methods  # attaches the functions to the class
from .core import Tensor, as_tensor, wrap

__all__ = ["Tensor", "as_tensor", "methods", "wrap"]
