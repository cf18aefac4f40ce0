"""Engines of others that run a graph of ours: the namespace that the bodies of operations need, and how it is called.

Knows graphs and operations; knows nothing of tensors, of cells, or of when a step may be committed.
"""

from .jax_engine import Executable, is_installed, refuse_without_jax

__all__ = ["Executable", "is_installed", "refuse_without_jax"]
