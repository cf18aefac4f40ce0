"""Layers of weighted sums."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import DTypeLike

from .. import functional
from ..dtypes import dtype_or_default
from ..errors import ShapeError
from ..tensor import Tensor, as_tensor
from ..tensor.creation import zeros
from . import init
from .checks import check_floats, check_size
from .module import Module, Parameter


class Linear(Module):
    """x·weightᵀ + bias: (…, in_features) → (…, out_features).

    `weight` is (out_features, in_features) and `bias` (out_features,); both start as U(−1/√in, 1/√in), which is
    what `kaiming_uniform_(a=√5)` means in PyTorch.

    Raises ShapeError for another number of features and DtypeError for another dtype, naming the layer.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Linear(4, 2)(cr.ones((3, 4))).shape
    (3, 2)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, dtype: DTypeLike | None = None
    ) -> None:
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        wanted = dtype_or_default(dtype)
        self.weight = Parameter(zeros((out_features, in_features), dtype=wanted))
        self.register_parameter("bias", Parameter(zeros(out_features, dtype=wanted)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Any) -> Tensor:
        """x·weightᵀ + bias."""
        source = as_tensor(x)
        if not source.ndim or source.shape[-1] != self.in_features:
            raise ShapeError(
                f"{self._called()} needs {self.in_features} features on the last axis; got {source.shape}. "
                f"{self._advice(source.shape)}"
            )
        check_floats(self._called(), source, self.weight.dtype)
        return functional.linear(source, self.weight, self.bias)

    def _advice(self, shape: tuple[int, ...]) -> str:
        """How to make it fit: what convolutions give is to be flattened first, row by row of a batch."""
        if len(shape) > 2 and self.in_features == math.prod(shape[1:]):
            return "Flatten it first: nn.Flatten() in front of the layer, or x.flatten(1)"
        if len(shape) > 1 and self.in_features == math.prod(shape):
            return "This is one row without the axis of the batch: give the network x[None]"
        return f"Change the input, or use nn.Linear({shape[-1] if shape else 1}, {self.out_features})"

    def extra_repr(self) -> str:
        """Sizes and whether there is a bias."""
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"
