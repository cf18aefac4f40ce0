"""Layers that normalize: over the batch, with running statistics, over the features of each row, over groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from numpy.typing import DTypeLike

from ..dtypes import Dtype, dtype_or_default
from ..errors import ArgumentError, ShapeError
from ..functional.checks import check_number
from ..functional.composite import composite
from ..functional.normalization import (
    as_normalized_shape,
    check_eps,
    normalized_batch,
    normalized_groups,
    normalized_layer,
    normalized_squares,
)
from ..tensor import Tensor, as_tensor
from ..tensor.creation import ones, zeros
from ..tensor.elementwise import astype
from . import init
from .checks import check_floats, check_size
from .module import Module, Parameter

_batch_norm = composite(normalized_batch, "batch_norm")
_group_norm = composite(normalized_groups, "group_norm")
_layer_norm = composite(normalized_layer, "layer_norm")
_rms_norm = composite(normalized_squares, "rms_norm")


class _BatchNorm(Module):
    """Statistics of batches, and what they are replaced by in evaluation."""

    # What comes in, by the number of axes that it has.
    _forms: ClassVar[dict[int, str]]

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        dtype: DTypeLike | None = None,
    ) -> None:
        name = type(self).__name__
        self.num_features = check_size("num_features", num_features)
        self.eps = check_eps(name, eps)
        self.momentum = None if momentum is None else check_number(name, "momentum", momentum)
        self.affine = bool(affine)
        self.track_running_stats = bool(track_running_stats)
        wanted = dtype_or_default(dtype)
        _affine(self, (num_features,), affine, affine and bias, wanted)
        tracked = self.track_running_stats
        self.register_buffer("running_mean", zeros(num_features, dtype=wanted) if tracked else None)
        self.register_buffer("running_var", ones(num_features, dtype=wanted) if tracked else None)
        self.register_buffer("num_batches_tracked", zeros((), dtype="int64") if tracked else None)

    def reset_running_stats(self) -> None:
        """Forget all batches so far."""
        for buffer, value in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
            if buffer is not None:
                buffer.copy_(value)

    def reset_parameters(self) -> None:
        """Everything as at the start."""
        self.reset_running_stats()
        _reset(self)

    def forward(self, x: Any) -> Tensor:
        """The normalized tensor."""
        source = as_tensor(x)
        if source.ndim not in self._forms or source.shape[1] != self.num_features:
            raise self._unfit(source)
        kept = self.weight if self.weight is not None else self.running_mean
        check_floats(self._called(), source, source.dtype if kept is None else kept.dtype)
        momentum: Any = self.momentum
        tracked = self.num_batches_tracked if self.training else None
        count = None if tracked is None else tracked + 1
        if momentum is None:
            momentum = 0.0 if count is None else 1.0 / astype(count, source.dtype)
        result = _batch_norm(
            self._called(),
            source,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            momentum,
            self.eps,
        )
        if tracked is not None:
            tracked.copy_(count)
        return result

    def extra_repr(self) -> str:
        """Sizes and settings."""
        return (
            f"{self.num_features}, eps={self.eps:g}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )

    def _unfit(self, x: Tensor) -> ShapeError:
        """What is wrong with an input's axes or channels, and what would fit."""
        rule = f"{self._called()} needs {' or '.join(form.format(self.num_features) for form in self._forms.values())}"
        if x.ndim + 1 in self._forms and x.shape[:1] == (self.num_features,):
            fix = "Add the axis of the batch: x[None]"
        elif x.ndim in self._forms and x.ndim > 2 and x.shape[-1] == self.num_features:
            order = (0, x.ndim - 1, *range(1, x.ndim - 1))
            fix = f"Channels are the axis 1: did you mean cr.permute_dims(x, {order})?"
        elif x.ndim in self._forms:
            fix = f"Change the input, or use nn.{type(self).__name__}({x.shape[1]})"
        else:
            other = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d"}.get(x.ndim)
            fix = "Reshape it" if other is None else f"Change the input, or use nn.{other}({x.shape[1]})"
        return ShapeError(f"{rule}; got {x.shape}. {fix}")


class BatchNorm1d(_BatchNorm):
    """(x − mean) / √(variance + eps) · weight + bias for each feature: (N, C) → (N, C), (N, C, L) → (N, C, L).

    In training the statistics are those of the batch, and the buffers `running_mean` and `running_var` (unbiased)
    move towards them by the factor `momentum` (None: they are the plain averages of all batches so far); in
    evaluation the buffers are used. affine: whether there are `weight` (ones at first) and `bias` (zeros).
    track_running_stats: without it there are no buffers, and evaluation uses the batch too.
    Raises ShapeError for another number of features, and for a single row in training, naming the layer.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> layer = nn.BatchNorm1d(2)
    >>> _ = layer(cr.tensor([[1.0, 10.0], [3.0, 30.0]]))
    >>> layer.running_mean
    tensor([0.2, 2. ])
    """

    _forms: ClassVar[dict[int, str]] = {2: "(N, {})", 3: "(N, {}, L)"}


class BatchNorm2d(_BatchNorm):
    """(x − mean) / √(variance + eps) · weight + bias for each channel of images: (N, C, H, W) → (N, C, H, W).

    Statistics are over the batch and all pixels; otherwise as `BatchNorm1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.BatchNorm2d(3)(cr.ones((2, 3, 4, 4))).shape
    (2, 3, 4, 4)
    """

    _forms: ClassVar[dict[int, str]] = {4: "(N, {}, H, W)"}


class LayerNorm(Module):
    """(x − mean) / √(variance + eps) · weight + bias over the last axes, which have `normalized_shape`.

    normalized_shape: a whole number for the last axis, or one for each of several. elementwise_affine: whether there
    are `weight` (ones at first) and, unless bias=False, `bias` (zeros). Training and evaluation are the same.
    Raises ShapeError if the last axes are others, naming the layer.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.LayerNorm(2, eps=0.0)(cr.tensor([[1.0, 3.0], [5.0, 1.0]])).tolist()
    [[-1.0, 1.0], [1.0, -1.0]]
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.normalized_shape = as_normalized_shape("LayerNorm", normalized_shape)
        self.eps = check_eps("LayerNorm", eps)
        self.elementwise_affine = bool(elementwise_affine)
        wanted = dtype_or_default(dtype)
        _affine(self, self.normalized_shape, elementwise_affine, elementwise_affine and bias, wanted)

    def reset_parameters(self) -> None:
        """Everything as at the start."""
        _reset(self)

    def forward(self, x: Any) -> Tensor:
        """The normalized tensor."""
        source = as_tensor(x)
        check_floats(self._called(), source, source.dtype if self.weight is None else self.weight.dtype)
        return _layer_norm(self._called(), source, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Sizes and settings."""
        return (
            f"{self.normalized_shape}, eps={self.eps:g}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class GroupNorm(Module):
    """(x − mean) / √(variance + eps) · weight + bias over each of `num_groups` groups of channels of (N, C, …).

    affine: whether there are `weight` (C,), ones at first, and `bias` (C,), zeros. Training and evaluation are the
    same. Raises ArgumentError unless num_groups divides num_channels, ShapeError for another number of channels,
    naming the layer.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.GroupNorm(2, 4, eps=0.0)(cr.tensor([[1.0, 3.0, 10.0, 30.0]])).tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.num_groups = check_size("num_groups", num_groups)
        self.num_channels = check_size("num_channels", num_channels)
        if num_channels % num_groups:
            raise ArgumentError(
                f"GroupNorm needs groups that divide the channels; got num_groups={num_groups} and "
                f"num_channels={num_channels}"
            )
        self.eps = check_eps("GroupNorm", eps)
        self.affine = bool(affine)
        wanted = dtype_or_default(dtype)
        _affine(self, (num_channels,), affine, affine, wanted)

    def reset_parameters(self) -> None:
        """Everything as at the start."""
        _reset(self)

    def forward(self, x: Any) -> Tensor:
        """The normalized tensor."""
        source = as_tensor(x)
        if source.ndim < 2 or source.shape[1] != self.num_channels:
            raise ShapeError(
                f"{self._called()} needs (N, {self.num_channels}, …); got {source.shape}. Change the input, or "
                "num_channels"
            )
        check_floats(self._called(), source, source.dtype if self.weight is None else self.weight.dtype)
        return _group_norm(self._called(), source, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Sizes and settings."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps:g}, affine={self.affine}"


class RMSNorm(Module):
    """x / √(mean of squares + eps) · weight over the last axes, which have `normalized_shape`.

    normalized_shape: a whole number for the last axis, or one for each of several. eps: by default the distance from 1
    to the next number of the input's dtype. elementwise_affine: whether there is `weight` (ones at first). Raises
    ShapeError if the last axes are others, naming the layer.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.RMSNorm(2)(cr.tensor([[3.0, 3.0]])).tolist()
    [[1.0, 1.0]]
    """

    weight: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.normalized_shape = as_normalized_shape("RMSNorm", normalized_shape)
        self.eps = None if eps is None else check_eps("RMSNorm", eps)
        self.elementwise_affine = bool(elementwise_affine)
        wanted = dtype_or_default(dtype)
        weight = Parameter(ones(self.normalized_shape, dtype=wanted)) if elementwise_affine else None
        self.register_parameter("weight", weight)

    def reset_parameters(self) -> None:
        """Everything as at the start."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, x: Any) -> Tensor:
        """The normalized tensor."""
        source = as_tensor(x)
        check_floats(self._called(), source, source.dtype if self.weight is None else self.weight.dtype)
        return _rms_norm(self._called(), source, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Sizes and settings."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


def _affine(module: Module, shape: tuple[int, ...], weight: bool, bias: bool, dtype: Dtype) -> None:
    module.register_parameter("weight", Parameter(ones(shape, dtype=dtype)) if weight else None)
    module.register_parameter("bias", Parameter(zeros(shape, dtype=dtype)) if bias else None)


def _reset(module: Any) -> None:
    if module.weight is not None:
        init.ones_(module.weight)
    if module.bias is not None:
        init.zeros_(module.bias)
