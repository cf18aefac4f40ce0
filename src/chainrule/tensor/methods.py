"""Functions that are methods of Tensor too: the same functions, under the same names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..errors import ArgumentError, ShapeError
from . import (
    accumulation,
    elementwise,
    elsewhere,
    hooks,
    indexing,
    manipulation,
    products,
    searching,
    statistical,
)
from .core import Tensor

PLAIN = {
    elementwise: ("abs", "astype", "clip", "cos", "exp", "log", "relu", "sigmoid", "sin", "sqrt", "tanh"),
    manipulation: ("flatten",),
    accumulation: ("index_add", "index_put", "scatter_add"),
}
WITH_AXIS = {
    statistical: ("all", "any", "max", "mean", "min", "prod", "std", "sum", "var"),
    searching: ("argmax", "argmin"),
    manipulation: ("squeeze",),
}


def _with_axis(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`x.sum(0)` as well as `x.sum(axis=0)`, PyTorch's `dim=` and `keepdim=`, and what NumPy's functions pass."""

    @functools.wraps(function)
    def method(self: Tensor, *axis: Any, **options: Any) -> Tensor:
        for name in ("out", "dtype"):  # numpy.sum(x) calls x.sum(axis=None, dtype=None, out=None)
            if name in options and options[name] is None:
                del options[name]
        if "dim" in options:
            if function.__name__ in ("max", "min"):  # of two rows, unpacked, the wrong thing without a word
                raise ArgumentError(
                    f"PyTorch's {function.__name__}(dim=) gives values and indices; got dim={options['dim']}. Use "
                    f"{function.__name__}(axis=…) for the values and arg{function.__name__}(axis=…) for the indices"
                )
            options["axis"] = options.pop("dim")
        if "keepdim" in options:
            options["keepdims"] = options.pop("keepdim")
        if axis:
            options["axis"] = axis[0] if len(axis) == 1 else axis
        return function(self, **options)

    return method


def _reshape(self: Tensor, *shape: Any) -> Tensor:
    """The same entries in another shape: `x.reshape(2, -1)` or `x.reshape((2, -1))`."""
    return manipulation.reshape(self, shape[0] if len(shape) == 1 else shape)


def _permute_dims(self: Tensor, *axes: Any) -> Tensor:
    """Axes in another order: `x.permute_dims(1, 0)` or `x.permute_dims((1, 0))`."""
    return manipulation.permute_dims(
        self, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
    )


def _transpose(self: Tensor) -> Tensor:
    """The two axes of a matrix exchanged."""
    if self.ndim != 2:
        raise ShapeError(f".T needs a matrix; got shape {self.shape}. Use .mT or permute_dims")
    return manipulation.matrix_transpose(self)


def _format(self: Tensor, spec: str) -> str:
    """`f"{loss:.4f}"` writes the number; without a format, as `print` does."""
    return format(self.item(), spec) if spec else str(self)


def _dir(self: Tensor) -> list[str]:
    """The names that a tensor has."""
    return elsewhere.without_these(type(self), list(object.__dir__(self)))


def _attach() -> None:
    for room, names in PLAIN.items():
        for name in names:
            setattr(Tensor, name, getattr(room, name))
    for room, names in WITH_AXIS.items():
        for name in names:
            setattr(Tensor, name, _with_axis(getattr(room, name)))
    methods: dict[str, Any] = {
        "reshape": _reshape,
        "permute_dims": _permute_dims,
        "T": property(_transpose),
        "mT": property(manipulation.matrix_transpose),
        "__matmul__": products.matmul,
        "__rmatmul__": lambda self, other: products.matmul(other, self),
        "__getitem__": indexing.getitem,
        "__setitem__": indexing.setitem,
        "register_hook": hooks.register_hook,
        "__dir__": _dir,
        "__format__": _format,
    }
    for name, method in methods.items():
        setattr(Tensor, name, method)
    elsewhere.attach(Tensor)


_attach()
