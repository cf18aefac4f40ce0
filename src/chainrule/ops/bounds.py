"""Whether the indices that an operation is given lie inside, as a condition in the graph.

Knows the bounds that operations state; knows nothing of who checks the condition, and when.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..graph import Node, constant, operand_types
from ..operations import Attributes
from .discrete import bitwise_and, greater_equal, less
from .kinds import Op


class Bounded(NamedTuple):
    """The condition, what to say where it fails ({low} and {high} stand for the range), and the indices."""

    condition: Node
    message: str
    indices: Node


def bounds_of(operation: Op, inputs: tuple[Node, ...], attributes: Attributes) -> Bounded | None:
    """What must hold of an operation's indices; None where their dtype alone makes sure of it."""
    if operation.bounds is None:
        return None
    operand, limit = operation.bounds
    indices = inputs[operand]
    size = limit(*operand_types(inputs), **attributes)
    limits = np.iinfo(indices.dtype)
    conditions = []
    if limits.max >= size:
        conditions.append(less.on_nodes((indices, constant(size, indices.dtype)), {}))
    if limits.min < -size:
        conditions.append(greater_equal.on_nodes((indices, constant(-size, indices.dtype)), {}))
    if not conditions:
        return None
    message = (
        f"{operation.name} needs indices from {-size} to {size - 1}; got {{low}} to {{high}}. "
        "Check the index; labels and tokens against the number of classes"
    )
    holds = conditions[0] if len(conditions) == 1 else bitwise_and.on_nodes(tuple(conditions), {})
    return Bounded(holds, message, indices)


def describe_range(message: str, values: Any) -> str:
    """The message with the smallest and largest of the values in it (NaN, if there is one)."""
    if values is None:
        return message
    values = np.asarray(values)
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if values.dtype.kind == "f":
        return message.format(low=float(low), high=float(high))
    return message.format(low=int(low), high=int(high))
