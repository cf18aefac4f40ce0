"""Pooling layers: windows that slide, and areas that split the input evenly. They learn nothing."""

from __future__ import annotations

from typing import Any, ClassVar

from ..functional.composite import composite
from ..functional.pooling import (
    OutputSizes,
    adapted,
    largest,
    mean,
    pooled_max,
    pooled_mean,
    refuse_indices,
    wanted_sizes,
)
from ..functional.spatial import Sizes, for_each_axis
from ..tensor import Tensor
from .module import Module

_MAX = {axes: composite(pooled_max, f"max_pool{axes}d") for axes in (1, 2)}
_MEAN = {axes: composite(pooled_mean, f"avg_pool{axes}d") for axes in (1, 2)}
_ADAPTED_MAX = {axes: composite(adapted, f"adaptive_max_pool{axes}d") for axes in (1, 2)}
_ADAPTED_MEAN = {axes: composite(adapted, f"adaptive_avg_pool{axes}d") for axes in (1, 2)}


class _Pool(Module):
    """Options of windows that slide."""

    _axes: ClassVar[int]
    _shown: ClassVar[tuple[str, ...]] = ("kernel_size", "stride", "padding", "ceil_mode")

    def _prepare(self, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, ceil_mode: bool) -> None:
        name, axes = type(self).__name__, self._axes
        for_each_axis(name, "kernel_size", kernel_size, axes)
        for_each_axis(name, "padding", padding, axes, 0)
        if stride is not None:
            for_each_axis(name, "stride", stride, axes)
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = bool(ceil_mode)

    def extra_repr(self) -> str:
        """Sizes and options."""
        return ", ".join(f"{option}={getattr(self, option)}" for option in self._shown)


class _MaxPool(_Pool):
    """The largest entry of each window."""

    _shown = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        refuse_indices(type(self).__name__, return_indices)
        self._prepare(kernel_size, stride, padding, ceil_mode)
        for_each_axis(type(self).__name__, "dilation", dilation, self._axes)
        self.dilation = dilation

    def forward(self, x: Any) -> Tensor:
        """The largest entries."""
        return _MAX[self._axes](
            self._called(),
            self._axes,
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
        )


class MaxPool1d(_MaxPool):
    """The largest entry of each window: (N, C, L) → (N, C, L′), L′ = (L + 2·padding − reach) // stride + 1.

    stride: by default the size of the window. padding: places on both sides that never win (at most half the window).
    dilation: distance of the entries of a window. ceil_mode: also windows that reach over the end. Of equal entries the
    first gets the gradient. Raises ShapeError for an input that does not fit, naming the layer.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.MaxPool1d(2)(cr.tensor([[[1.0, 3.0, 2.0, 5.0]]])).tolist()
    [[[3.0, 5.0]]]
    """

    _axes = 1


class MaxPool2d(_MaxPool):
    """The largest entry of each window: (N, C, H, W) → (N, C, H′, W′).

    kernel_size, stride, padding, dilation: one number, or one for each axis; otherwise as `MaxPool1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.MaxPool2d(2)(cr.ones((1, 3, 8, 8))).shape
    (1, 3, 4, 4)
    """

    _axes = 2


class _AvgPool(_Pool):
    """The mean of each window."""

    divisor_override: int | None = None

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self._prepare(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = bool(count_include_pad)

    def forward(self, x: Any) -> Tensor:
        """The means."""
        return _MEAN[self._axes](
            self._called(),
            self._axes,
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class AvgPool1d(_AvgPool):
    """The mean of each window: (N, C, L) → (N, C, L′), L′ = (L + 2·padding − kernel) // stride + 1.

    stride: by default the size of the window. padding: zeros on both sides, which count in the mean unless
    count_include_pad=False. ceil_mode: also windows that reach over the end, where nothing counts. Raises ShapeError
    for an input that does not fit, naming the layer.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.AvgPool1d(2)(cr.tensor([[[1.0, 3.0, 2.0, 6.0]]])).tolist()
    [[[2.0, 4.0]]]
    """

    _axes = 1


class AvgPool2d(_AvgPool):
    """The mean of each window: (N, C, H, W) → (N, C, H′, W′).

    kernel_size, stride, padding: one number, or one for each axis. divisor_override: what sums are divided by instead
    of their number of pixels. Otherwise as `AvgPool1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.AvgPool2d(2)(cr.ones((1, 3, 8, 8))).shape
    (1, 3, 4, 4)
    """

    _axes = 2

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.divisor_override = divisor_override


class _Adaptive(Module):
    """Areas that split the input evenly."""

    _axes: ClassVar[int]

    def __init__(self, output_size: OutputSizes) -> None:
        wanted_sizes(type(self).__name__, output_size, (1,) * self._axes)
        self.output_size = output_size

    def extra_repr(self) -> str:
        """The size."""
        return f"output_size={self.output_size}"


class _AdaptiveMean(_Adaptive):
    """The mean of each area."""

    def forward(self, x: Any) -> Tensor:
        """The means."""
        return _ADAPTED_MEAN[self._axes](self._called(), self._axes, x, self.output_size, mean)


class _AdaptiveMax(_Adaptive):
    """The largest entry of each area."""

    def __init__(self, output_size: OutputSizes, return_indices: bool = False) -> None:
        refuse_indices(type(self).__name__, return_indices)
        super().__init__(output_size)

    def forward(self, x: Any) -> Tensor:
        """The largest entries."""
        return _ADAPTED_MAX[self._axes](self._called(), self._axes, x, self.output_size, largest)


class AdaptiveAvgPool1d(_AdaptiveMean):
    """The means of `output_size` stretches, as even as they can be: (N, C, L) → (N, C, output_size).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.AdaptiveAvgPool1d(2)(cr.tensor([[[1.0, 3.0, 2.0, 6.0]]])).tolist()
    [[[2.0, 4.0]]]
    """

    _axes = 1


class AdaptiveAvgPool2d(_AdaptiveMean):
    """The means of areas, as even as they can be: (N, C, H, W) → (N, C, H′, W′).

    output_size: one number, or one for each axis; None keeps an axis.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.AdaptiveAvgPool2d(1)(cr.ones((2, 3, 7, 5))).shape
    (2, 3, 1, 1)
    """

    _axes = 2


class AdaptiveMaxPool1d(_AdaptiveMax):
    """The largest entries of `output_size` stretches, as even as they can be: (N, C, L) → (N, C, output_size).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.AdaptiveMaxPool1d(2)(cr.tensor([[[1.0, 3.0, 2.0, 6.0]]])).tolist()
    [[[3.0, 6.0]]]
    """

    _axes = 1


class AdaptiveMaxPool2d(_AdaptiveMax):
    """The largest entries of areas, as even as they can be: (N, C, H, W) → (N, C, H′, W′).

    output_size: one number, or one for each axis; None keeps an axis.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.AdaptiveMaxPool2d((2, None))(cr.ones((2, 3, 7, 5))).shape
    (2, 3, 2, 5)
    """

    _axes = 2
