"""Python function → Graph, with everything that has been taken for granted on the way.

Knows Python functions, tensors and cells; knows nothing of what becomes of the graph.
"""

from ..ops.bounds import describe_range
from .function import Arguments, Result, Traced, arguments_of, labels, trace, tracing_lock
from .guards import identities
from .purity import find_impurity
from .recording import Tracing

__all__ = [
    "Arguments", "Result", "Traced", "Tracing", "arguments_of", "describe_range", "find_impurity", "identities",
    "labels", "trace", "tracing_lock",
]  # fmt: skip
