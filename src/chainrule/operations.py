"""What a node can do: types, the base of operations, and Python operators for whatever stands in a rule.

Knows nothing of nodes, of particular operations, of derivatives or machine code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .dtypes import Dtype
from .errors import GraphError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
else:
    Array = np.ndarray

Attributes = Mapping[str, Any]
NO_ATTRIBUTES: Attributes = {}
#: Marks a constant that came out of a compiled function and would have a graph if Python had computed it.
WITHOUT_GRAPH: Attributes = {"compiled": True}


# Not frozen, though nobody changes one: a frozen dataclass takes four times as long to make.
@dataclass(slots=True, unsafe_hash=True)
class Type:
    """Shape and dtype of one value. Prints as `float32[32, 10]`."""

    shape: tuple[int, ...]
    dtype: Dtype

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


class Operation:
    """What a node does: a name, a meaning over an array namespace, and a rule for result types."""

    name: str
    body: Callable[..., Any]

    def types(self, *operands: Type, **attributes: Any) -> tuple[Type, ...]:
        """Types of the results for operands of these types; raises ShapeError or DtypeError."""
        raise GraphError(f"{self.name} is a source: its type is stated, not derived")


class Source(Operation):
    """A node without operands: an input, a constant, or a cell that was read."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<source {self.name}>"


INPUT, CONSTANT, READ = Source("input"), Source("constant"), Source("read")

OPERATIONS: dict[str, Operation] = {}
"""Every registered operation by its name. Filled by the `ops` room when it is imported."""


class Arithmetic:
    """Python operators as operations, for whatever can stand in a derivative rule."""

    __slots__ = ()
    __array_ufunc__ = None  # so that `ndarray * node` reaches __rmul__

    def __apply__(self, operation: Operation, operands: tuple[Any, ...], attributes: Attributes) -> Any:
        raise GraphError(f"{type(self).__name__} cannot be an operand of {operation.name}")

    def _operator(self, name: str, *operands: Any) -> Any:
        return self.__apply__(OPERATIONS[name], operands, NO_ATTRIBUTES)

    def __add__(self, other: Any) -> Any:
        return self._operator("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return self._operator("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return self._operator("subtract", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._operator("subtract", other, self)

    def __mul__(self, other: Any) -> Any:
        return self._operator("multiply", self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._operator("multiply", other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._operator("divide", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._operator("divide", other, self)

    def __neg__(self) -> Any:
        return self._operator("negative", self)

    def __lt__(self, other: Any) -> Any:
        return self._operator("less", self, other)

    def __le__(self, other: Any) -> Any:
        return self._operator("less_equal", self, other)

    def __gt__(self, other: Any) -> Any:
        return self._operator("greater", self, other)

    def __ge__(self, other: Any) -> Any:
        return self._operator("greater_equal", self, other)
