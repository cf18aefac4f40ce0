"""Python's operators on tensors, each one elementwise operation; `+=` and its kin point the handle elsewhere.

Knows which operation stands behind which operator, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import ops

if TYPE_CHECKING:
    from .core import Tensor


class Operators:
    """Base of Tensor: the operators of Python and of the array API standard."""

    __slots__ = ()
    __hash__ = object.__hash__

    if TYPE_CHECKING:

        def _assign(self, name: str, result: Tensor) -> Tensor: ...

    def __add__(self, other: Any) -> Tensor:
        return core.elementwise(ops.add, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return core.elementwise(ops.add, other, self)

    def __iadd__(self, other: Any) -> Tensor:
        return self._assign("+=", core.elementwise(ops.add, self, other))

    def __sub__(self, other: Any) -> Tensor:
        return core.elementwise(ops.subtract, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return core.elementwise(ops.subtract, other, self)

    def __isub__(self, other: Any) -> Tensor:
        return self._assign("-=", core.elementwise(ops.subtract, self, other))

    def __mul__(self, other: Any) -> Tensor:
        return core.elementwise(ops.multiply, self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return core.elementwise(ops.multiply, other, self)

    def __imul__(self, other: Any) -> Tensor:
        return self._assign("*=", core.elementwise(ops.multiply, self, other))

    def __truediv__(self, other: Any) -> Tensor:
        return core.elementwise(ops.divide, self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return core.elementwise(ops.divide, other, self)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._assign("/=", core.elementwise(ops.divide, self, other))

    def __floordiv__(self, other: Any) -> Tensor:
        return core.elementwise(ops.floor_divide, self, other)

    def __ifloordiv__(self, other: Any) -> Tensor:
        return self._assign("//=", core.elementwise(ops.floor_divide, self, other))

    def __rfloordiv__(self, other: Any) -> Tensor:
        return core.elementwise(ops.floor_divide, other, self)

    def __mod__(self, other: Any) -> Tensor:
        return core.elementwise(ops.remainder, self, other)

    def __imod__(self, other: Any) -> Tensor:
        return self._assign("%=", core.elementwise(ops.remainder, self, other))

    def __rmod__(self, other: Any) -> Tensor:
        return core.elementwise(ops.remainder, other, self)

    def __pow__(self, other: Any) -> Tensor:
        if isinstance(other, int | float) and other == 2:
            return core.elementwise(ops.square, self)
        return core.elementwise(ops.pow_, self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return core.elementwise(ops.pow_, other, self)

    def __ipow__(self, other: Any) -> Tensor:
        return self._assign("**=", self**other)

    def __imatmul__(self, other: Any) -> Tensor:
        return self._assign("@=", core.as_tensor(self) @ other)

    def __neg__(self) -> Tensor:
        return core.elementwise(ops.negative, self)

    def __pos__(self) -> Tensor:
        return core.as_tensor(self).clone()

    def __abs__(self) -> Tensor:
        return core.elementwise(ops.abs_, self)

    def __invert__(self) -> Tensor:
        return core.elementwise(ops.bitwise_invert, self)

    def __and__(self, other: Any) -> Tensor:
        return core.elementwise(ops.bitwise_and, self, other)

    def __iand__(self, other: Any) -> Tensor:
        return self._assign("&=", core.elementwise(ops.bitwise_and, self, other))

    def __rand__(self, other: Any) -> Tensor:
        return core.elementwise(ops.bitwise_and, other, self)

    def __or__(self, other: Any) -> Tensor:
        return core.elementwise(ops.bitwise_or, self, other)

    def __ior__(self, other: Any) -> Tensor:
        return self._assign("|=", core.elementwise(ops.bitwise_or, self, other))

    def __ror__(self, other: Any) -> Tensor:
        return core.elementwise(ops.bitwise_or, other, self)

    def __xor__(self, other: Any) -> Tensor:
        return core.elementwise(ops.bitwise_xor, self, other)

    def __ixor__(self, other: Any) -> Tensor:
        return self._assign("^=", core.elementwise(ops.bitwise_xor, self, other))

    def __rxor__(self, other: Any) -> Tensor:
        return core.elementwise(ops.bitwise_xor, other, self)

    def __lshift__(self, other: Any) -> Tensor:
        return core.elementwise(ops.bitwise_left_shift, self, other)

    def __rlshift__(self, other: Any) -> Tensor:
        return core.elementwise(ops.bitwise_left_shift, other, self)

    def __ilshift__(self, other: Any) -> Tensor:
        return self._assign("<<=", core.elementwise(ops.bitwise_left_shift, self, other))

    def __rshift__(self, other: Any) -> Tensor:
        return core.elementwise(ops.bitwise_right_shift, self, other)

    def __rrshift__(self, other: Any) -> Tensor:
        return core.elementwise(ops.bitwise_right_shift, other, self)

    def __irshift__(self, other: Any) -> Tensor:
        return self._assign(">>=", core.elementwise(ops.bitwise_right_shift, self, other))

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        if other is None or isinstance(other, str):
            return NotImplemented  # Python then answers by identity: `x == None` is False
        return core.elementwise(ops.equal, self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        if other is None or isinstance(other, str):
            return NotImplemented
        return core.elementwise(ops.not_equal, self, other)

    def __lt__(self, other: Any) -> Tensor:
        return core.elementwise(ops.less, self, other)

    def __le__(self, other: Any) -> Tensor:
        return core.elementwise(ops.less_equal, self, other)

    def __gt__(self, other: Any) -> Tensor:
        return core.elementwise(ops.greater, self, other)

    def __ge__(self, other: Any) -> Tensor:
        return core.elementwise(ops.greater_equal, self, other)


from . import core  # noqa: E402 - Tensor is made of this class, and needed only when an operator runs
