"""Python function → Graph, with everything that has been taken for granted on the way."""

from .function import Arguments, Result, Traced, arguments_of, labels, trace
from .recording import Tracing, describe_range

__all__ = ["Arguments", "Result", "Traced", "Tracing", "arguments_of", "describe_range", "labels", "trace"]
