"""Rows of a table that is learnt, looked up by whole numbers."""

from __future__ import annotations

from typing import Any

from numpy.typing import DTypeLike

from ..dtypes import dtype_or_default
from ..errors import ShapeError
from ..functional.composite import composite
from ..functional.embedding import check_padding, checked_indices, looked_up
from ..tensor import Tensor, as_tensor
from ..tensor.creation import zeros
from ..transforms import no_grad
from . import init
from .checks import check_size
from .module import Module, Parameter

_rows = composite(looked_up, "embedding")


class Embedding(Module):
    """A table (num_embeddings, embedding_dim): whole numbers (…) → rows (…, embedding_dim).

    `weight` starts as N(0, 1). padding_idx: a row that starts as 0 and gets no gradient.
    Raises BoundsError for a number outside 0 … num_embeddings − 1, naming the layer; in a compiled step as well,
    before anything is changed.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Embedding(10, 3, padding_idx=0)(cr.tensor([[0, 7]])).shape
    (1, 2, 3)
    """

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.num_embeddings = check_size("num_embeddings", num_embeddings)
        self.embedding_dim = check_size("embedding_dim", embedding_dim)
        self.padding_idx = check_padding("Embedding", padding_idx, num_embeddings)
        wanted = dtype_or_default(dtype)
        self.weight = Parameter(zeros((num_embeddings, embedding_dim), dtype=wanted))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table anew; the padding row becomes 0."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0.0

    @classmethod
    def from_pretrained(
        cls, embeddings: Any, freeze: bool = True, padding_idx: int | None = None
    ) -> Embedding:
        """A layer with this table (rows, width), which is not learnt unless freeze=False.

        >>> import chainrule as cr
        >>> from chainrule import nn
        >>> nn.Embedding.from_pretrained(cr.tensor([[1.0], [2.0]]))(cr.tensor([1])).tolist()
        [[2.0]]
        """
        table = as_tensor(embeddings)
        if table.ndim != 2:
            raise ShapeError(f"from_pretrained needs a table (rows, width); got {table.shape}. Reshape it")
        layer = cls(table.shape[0], table.shape[1], padding_idx, dtype=table.dtype)
        with no_grad():
            layer.weight.copy_(table)
        layer.weight.requires_grad = not freeze
        return layer

    def forward(self, x: Any) -> Tensor:
        """The rows at x."""
        indices = checked_indices(self._called(), x, self.num_embeddings)
        return _rows(indices, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """Sizes and the padding row."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
