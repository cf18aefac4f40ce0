"""Tensors at the border: NumPy's ufuncs on them stay differentiable, arrays come and go by DLPack.

A NumPy function that would cut a gradient is refused, with the way out named.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..dtypes import ALL
from ..errors import ArgumentError, GradientError, SharingError
from ..graph import Node, state
from ..operations import CONSTANT, OPERATIONS
from . import elementwise as functions
from . import products
from .core import Tensor, elementwise, wrap

# NumPy's names of ufuncs where ours differ.
_ALIASES = {
    "absolute": "abs", "fabs": "abs", "power": "pow", "float_power": "pow", "true_divide": "divide",
    "rint": "round", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2",
    "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "invert": "bitwise_invert",
    "mod": "remainder", "left_shift": "bitwise_left_shift", "right_shift": "bitwise_right_shift",
}  # fmt: skip
# Ufuncs that are functions here, by the room that has them (looked up when called: the rooms need Tensor).
_FUNCTIONS: dict[str, tuple[Any, str]] = {
    "matmul": (products, "matmul"),
    "vecdot": (products, "vecdot"),
    "logical_and": (functions, "logical_and"),
    "logical_or": (functions, "logical_or"),
    "logical_xor": (functions, "logical_xor"),
    "logical_not": (functions, "logical_not"),
    "conjugate": (functions, "positive"),
    "positive": (functions, "positive"),
}
_OPERANDS = (Tensor, np.ndarray, np.generic, bool, int, float, list, tuple)


def apply_ufunc(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """What `__array_ufunc__` answers: our operation of the same meaning, else NumPy's own on constants."""
    if method == "at" and isinstance(inputs[0], Tensor):
        raise ArgumentError(
            f"NumPy cannot write into a tensor; got one in numpy.{ufunc.__name__}.at. Use "
            "x = cr.index_put(x, indices, values, accumulate=True), or x[indices] = values"
        )
    if not all(isinstance(one, _OPERANDS) for one in inputs):
        return NotImplemented
    if method == "__call__" and not keywords:
        name = _ALIASES.get(ufunc.__name__, ufunc.__name__)
        if name in _FUNCTIONS:
            room, function = _FUNCTIONS[name]
            return getattr(room, function)(*inputs)
        if name == "exp2":
            return elementwise(ops.pow_, 2.0, *inputs)
        op = OPERATIONS.get(name)
        if isinstance(op, ops.Elementwise):
            return elementwise(op, *inputs)
    return _on_constants(ufunc, method, inputs, keywords)


def _on_constants(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """NumPy computes: allowed where no gradient is lost. Results are tensors unless `out` was given."""
    cut = next((one for one in inputs if isinstance(one, Tensor) and one.requires_grad), None)
    if cut is not None and state.grad_enabled:
        called = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        given = f" with {', '.join(sorted(keywords))}=" if keywords else ""
        raise GradientError(
            f"numpy.{called}{given} would cut this tensor from its gradient; got {cut.dtype.name}{cut.shape} "
            "that requires grad. Use the function of chainrule, or .detach()"
        )
    if any(isinstance(one, Tensor) for one in keywords.get("out", ())):
        raise ArgumentError("NumPy cannot write into a tensor; got one as out=. Use the returned value")
    arrays = [one._array() if isinstance(one, Tensor) else one for one in inputs]
    with np.errstate(all="ignore"):
        result = getattr(ufunc, method)(*arrays, **keywords)
    if "out" in keywords:
        return result
    return tuple(_as_result(one) for one in result) if isinstance(result, tuple) else _as_result(result)


def _as_result(value: Any) -> Any:
    array = np.asarray(value)
    return wrap(Node(CONSTANT, value=array)) if array.dtype in ALL else value


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor with a copy of what any array library offers by DLPack.

    copy=False raises SharingError, a ValueError: foreign memory could change behind the tensor's back.

    >>> import numpy as np
    >>> from_dlpack(np.asarray([1.0, 2.0])).dtype
    dtype('float64')
    """
    if device not in (None, "cpu"):
        raise ArgumentError(f"the only device is 'cpu'; got {device!r}. Leave it out")
    if copy is False:
        raise SharingError("from_dlpack always copies foreign data; got copy=False. Use copy=None")
    if isinstance(x, Tensor):
        return x.clone()
    if not hasattr(x, "__dlpack__"):
        raise ArgumentError(
            f"from_dlpack needs an array with __dlpack__; got {type(x).__name__}. Use asarray"
        )
    return Tensor(np.from_dlpack(x))


def to_dlpack(
    x: Tensor, max_version: tuple[int, int] | None, device: tuple[int, int] | None, copy: bool | None
) -> Any:
    """A DLPack capsule of a copy. Raises SharingError, a BufferError, where no copy or another device is asked for."""
    if x.requires_grad and state.grad_enabled:
        raise GradientError(
            f"DLPack would cut this tensor from its gradient; got {x.dtype.name}{x.shape} that requires "
            "grad. Use .detach()"
        )
    if device not in (None, (1, 0)):
        raise SharingError(
            f"a tensor is exported for the processor, (1, 0); got dl_device={device}. Leave it out"
        )
    if copy is False:
        # A read-only mark would be no protection: not every library heeds it.
        raise SharingError(
            "a tensor's memory is not shared; got copy=False for DLPack. Use copy=None or copy=True"
        )
    return x._array().copy().__dlpack__(max_version=max_version)
