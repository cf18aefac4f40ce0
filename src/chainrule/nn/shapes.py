"""Layers that learn nothing and change at most the shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import ArgumentError, ShapeError
from ..ops.shapes import check_axis
from ..tensor import Tensor, as_tensor
from ..tensor.manipulation import flatten, reshape
from .module import Module


class Identity(Module):
    """What comes in goes out; arguments of the constructor are ignored.

    It takes the place of a layer that is not wanted.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    >>> net[1] = nn.Identity()
    >>> net(cr.ones((1, 2))).shape
    (1, 3)
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        del arguments, keywords

    def forward(self, x: Any) -> Any:
        """x."""
        return x


class Flatten(Module):
    """Axes from `start_dim` to `end_dim` folded into one; by default all but the first.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Flatten()(cr.zeros((2, 3, 4))).shape
    (2, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, x: Any) -> Tensor:
        """The folded tensor."""
        return flatten(as_tensor(x), self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The axes."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """One axis unfolded into several: axis `dim` becomes `unflattened_size`, one size of which may be −1.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Unflatten(1, (3, -1))(cr.zeros((2, 12))).shape
    (2, 3, 4)
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        if not isinstance(unflattened_size, Sequence) or not unflattened_size:
            raise ArgumentError(
                f"Unflatten needs sizes, such as (3, 4), as unflattened_size; got {unflattened_size!r}"
            )
        self.dim = dim
        self.unflattened_size = tuple(unflattened_size)

    def forward(self, x: Any) -> Tensor:
        """The unfolded tensor."""
        source = as_tensor(x)
        axis = check_axis(self._called(), self.dim, source)
        sizes, known = self.unflattened_size, math.prod(size for size in self.unflattened_size if size != -1)
        if -1 in sizes and known > 0 and source.shape[axis] % known == 0:
            sizes = tuple(source.shape[axis] // known if size == -1 else size for size in sizes)
        if math.prod(sizes) != source.shape[axis] or -1 in sizes:
            raise ShapeError(
                f"{self._called()} needs {self.unflattened_size} to have as many entries as axis {self.dim}, "
                f"{source.shape[axis]}; got {source.shape}"
            )
        return reshape(source, (*source.shape[:axis], *sizes, *source.shape[axis + 1 :]))

    def extra_repr(self) -> str:
        """The axis and its sizes."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
