"""Attention with several heads as a layer, under PyTorch's names and with the meaning that its masks have there."""

from __future__ import annotations

from typing import Any

from numpy.typing import DTypeLike

from ..dtypes import Dtype, dtype_or_default
from ..errors import ArgumentError, DtypeError, ShapeError
from ..functional.attention import attend
from ..functional.composite import composite
from ..functional.dropout import check_rate
from ..functional.linear import linear
from ..tensor import Tensor, as_tensor
from ..tensor.creation import zeros
from ..tensor.manipulation import expand_dims, permute_dims, reshaped, unstack
from ..tensor.random import Generator
from ..tensor.statistical import mean
from . import init
from .checks import check_floats, check_generator, check_size
from .linear import Linear
from .module import Module, Parameter

_attend = composite(attend, "scaled_dot_product_attention")


class MultiheadAttention(Module):
    """Attention in `num_heads` parts: query (L, N, E), key (S, N, kdim), value (S, N, vdim) → (L, N, E), weights.

    Every head projects query, key and value to E / num_heads numbers, attends (see
    `functional.scaled_dot_product_attention`), and `out_proj` mixes the heads. Without N: a single sequence.
    batch_first: (N, L, E). dropout: share of the weights left out in training. Vaswani et al., 2017.
    `in_proj_weight` (3E, E) holds the projections of query, key and value one below the other; where kdim or vdim is
    not E there are `q_proj_weight` (E, E), `k_proj_weight` (E, kdim) and `v_proj_weight` (E, vdim) instead.
    Raises ArgumentError unless num_heads divides embed_dim.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> x = cr.ones((2, 5, 8))
    >>> out, weights = nn.MultiheadAttention(8, 2, batch_first=True)(x, x, x)
    >>> out.shape, weights.shape
    ((2, 5, 8), (2, 5, 5))
    """

    in_proj_weight: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype: DTypeLike | None = None,
        generator: Generator | None = None,
    ) -> None:
        self.embed_dim = check_size("embed_dim", embed_dim)
        self.num_heads = check_size("num_heads", num_heads)
        if embed_dim % num_heads:
            raise ArgumentError(
                f"MultiheadAttention needs num_heads that divide embed_dim; got {num_heads} and {embed_dim}. "
                f"Use embed_dim={-(-embed_dim // num_heads) * num_heads}, or another number of heads"
            )
        self.head_dim = embed_dim // num_heads
        self.kdim = embed_dim if kdim is None else check_size("kdim", kdim)
        self.vdim = embed_dim if vdim is None else check_size("vdim", vdim)
        self.dropout = check_rate("MultiheadAttention", dropout, "dropout")
        self.batch_first = bool(batch_first)
        self.generator = check_generator("MultiheadAttention", generator)
        wanted = dtype_or_default(dtype)
        self._add_projections(bias, wanted)
        self.out_proj = Linear(embed_dim, embed_dim, bias, wanted)
        self.reset_parameters()

    def _add_projections(self, bias: bool, dtype: Dtype) -> None:
        width = self.embed_dim
        one = self.kdim == self.vdim == width
        parts = {"q": width, "k": self.kdim, "v": self.vdim}
        if one:
            self.register_parameter("in_proj_weight", Parameter(zeros((3 * width, width), dtype=dtype)))
        for name, size in parts.items():
            weight = None if one else Parameter(zeros((width, size), dtype=dtype))
            self.register_parameter(f"{name}_proj_weight", weight)
        if not one:
            self.register_parameter("in_proj_weight", None)
        self.register_parameter("in_proj_bias", Parameter(zeros(3 * width, dtype=dtype)) if bias else None)

    def reset_parameters(self) -> None:
        """Draw the weights anew, as PyTorch does: projections by Glorot and Bengio (2010), biases 0."""
        self.out_proj.reset_parameters()
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            weight = getattr(self, name)
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None and self.out_proj.bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The output, and the weights (N, L, S) as means over the heads, or None with need_weights=False.

        key_padding_mask (N, S): True for keys that nobody may look at. attn_mask (L, S) or (N·num_heads, L, S): True
        for what may not be looked at. (So PyTorch has it here; in `scaled_dot_product_attention` True takes part.)
        Masks of floats are added. is_causal: query i looks at keys 0 … i only, with or without a mask.
        average_attn_weights: with False the weights of each head, (N, num_heads, L, S). In training they are those
        after dropout. A query that may look at nothing has weights 0.
        """
        q = as_tensor(query)
        k = q if key is query else as_tensor(key)
        v = q if value is query else k if value is key else as_tensor(value)
        self._check(q, k, v)
        single = q.ndim == 2
        masks = self._masks(key_padding_mask, attn_mask, q, k)
        q, k, v = self._projected(q, k, v)
        rate = self.dropout if self.training else 0.0
        means, weights = _attend(self._called(), q, k, v, masks, is_causal, None, rate, self.generator)
        result = self.out_proj(self._joined(means, single))
        if not need_weights:
            return result, None
        shown = mean(weights, axis=1) if average_attn_weights else weights
        return result, reshaped(shown, shown.shape[1:]) if single else shown

    def _check(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Ranks and sizes that fit each other and the layer."""
        name = self._called()
        shown = f"{q.shape}, {k.shape} and {v.shape}"
        layout = "(N, L, E)" if self.batch_first else "(L, N, E)"
        if q.ndim not in (2, 3) or k.ndim != q.ndim or v.ndim != q.ndim:
            raise ShapeError(
                f"{name} needs query, key and value {layout}, or (L, E) for one sequence; got {shown}. Reshape them"
            )
        for what, one, size in (("query", q, self.embed_dim), ("key", k, self.kdim), ("value", v, self.vdim)):
            if one.shape[-1] != size:
                raise ShapeError(
                    f"{name} needs {size} features on the last axis of {what}; got {one.shape}. "
                    "Change the input, or embed_dim=, kdim= or vdim="
                )
            check_floats(name, one, self.out_proj.weight.dtype)
        axis = 0 if self.batch_first else 1
        batches = {one.shape[axis] for one in (q, k, v)} if q.ndim == 3 else {1}
        if len(batches) > 1 or k.shape[:-1] != v.shape[:-1]:
            raise ShapeError(
                f"{name} needs one batch size, and a value for each key, in {layout}; got {shown}. "
                f"With batch_first={not self.batch_first} the first two axes change places"
            )

    def _projected(self, q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        """Query, key and value as the heads see them; what goes into several of them is multiplied once."""
        width, bias, found = self.embed_dim, self.in_proj_bias, list[Tensor]()
        parts, own = (q, k, v), (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        while len(found) < 3:
            first, last = len(found), len(found) + 1
            while self.in_proj_weight is not None and last < 3 and parts[last] is parts[first]:
                last += 1
            rows = slice(first * width, last * width)
            all_rows = last - first == 3
            weight: Tensor | None = own[first] if self.in_proj_weight is None else self.in_proj_weight
            assert weight is not None
            if self.in_proj_weight is not None and not all_rows:
                weight = weight[rows]
            product = linear(parts[first], weight, bias if bias is None or all_rows else bias[rows])
            found += self._heads(product, last - first)
        return found

    def _heads(self, x: Tensor, count: int) -> list[Tensor]:
        """`count` parts, each (N, num_heads, length, head_dim), of (length, N, …), (N, length, …) or (length, …)."""
        split = reshaped(x, (*x.shape[:-1], count, self.num_heads, self.head_dim))
        if x.ndim == 2:
            split = expand_dims(split, axis=0)
        order = (2, 0, 3, 1, 4) if x.ndim == 2 or self.batch_first else (2, 1, 3, 0, 4)
        return list(unstack(permute_dims(split, order)))  # parts first: then each lies in one piece of memory

    def _joined(self, means: Tensor, single: bool) -> Tensor:
        """The heads side by side again, in the order of axes that the layer was given."""
        batch, _, length, _ = means.shape
        order = (0, 2, 1, 3) if self.batch_first else (2, 0, 1, 3)
        sizes = (batch, length) if self.batch_first else (length, batch)
        return reshaped(permute_dims(means, order), (*((length,) if single else sizes), self.embed_dim))

    def _masks(self, padding: Any, mask: Any, q: Tensor, k: Tensor) -> list[Tensor]:
        """Both masks as (N or 1, heads or 1, L or 1, S), with True for what takes part."""
        axis = 0 if self.batch_first else 1
        batch = 1 if q.ndim == 2 else q.shape[axis]
        length, keys = (one.shape[0] if one.ndim == 2 else one.shape[1 - axis] for one in (q, k))
        found = []
        if padding is not None:
            given = self._mask("key_padding_mask", padding)
            if given.shape != ((keys,) if q.ndim == 2 else (batch, keys)):
                raise ShapeError(
                    f"{self._called()} needs a key_padding_mask of shape "
                    f"{(keys,) if q.ndim == 2 else (batch, keys)}; got {given.shape}. It has an entry for each key"
                )
            found.append(reshaped(given, (batch, 1, 1, keys)))
        if mask is not None:
            given = self._mask("attn_mask", mask)
            full = (batch * self.num_heads, length, keys)
            if given.shape not in ((length, keys), full):
                raise ShapeError(
                    f"{self._called()} needs an attn_mask of shape {(length, keys)} or {full}; got {given.shape}"
                )
            sizes = (1, 1) if given.ndim == 2 else (batch, self.num_heads)
            found.append(reshaped(given, (*sizes, length, keys)))
        return found

    def _mask(self, name: str, given: Any) -> Tensor:
        mask = as_tensor(given)
        if mask.dtype.kind == "b":
            return ~mask
        if mask.dtype.kind != "f":
            raise DtypeError(
                f"{self._called()} needs bools (True is left out), or floats that are added, as {name}; got "
                f"{mask.dtype.name}{mask.shape}. Use mask.astype('bool')"
            )
        return mask

    def extra_repr(self) -> str:
        """Sizes and settings."""
        sizes = "" if self.kdim == self.vdim == self.embed_dim else f", kdim={self.kdim}, vdim={self.vdim}"
        return (
            f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, dropout={self.dropout:g}, "
            f"bias={self.in_proj_bias is not None}{sizes}, batch_first={self.batch_first}"
        )
