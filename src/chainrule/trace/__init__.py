"""Python function → Graph, with everything that has been taken for granted on the way, and all that it leaves behind.

Knows Python functions, tensors and cells; knows nothing of what becomes of the graph.
"""

from ..ops.bounds import describe_range
from .function import MovedOn, NeedsNumber, Traced, trace, tracing_lock
from .guards import UNGUARDED, Difference
from .patterns import Given, Held, Number, Plain
from .purity import difference_between
from .recording import Tracing
from .templates import Constant, Nested, Once, Require, Result, Template

__all__ = [
    "UNGUARDED", "Constant", "Difference",
    "Given",
    "Held",
    "MovedOn", "NeedsNumber",
    "Nested",
    "Number",
    "Once",
    "Plain",
    "Require",
    "Result",
    "Template",
    "Traced",
    "Tracing",
    "describe_range",
    "difference_between",
    "trace",
    "tracing_lock",
]  # fmt: skip
