"""Convolution layers: weights and options as PyTorch's layers of the same names have them."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from numpy.typing import DTypeLike

from ..dtypes import dtype_or_default
from ..errors import ArgumentError, ShapeError
from ..functional.checks import check_choice
from ..functional.composite import composite
from ..functional.convolution import convolved, spread_out, widths
from ..functional.spatial import PADDING_MODES, Sizes, for_each_axis
from ..tensor import Tensor, as_tensor
from ..tensor.creation import zeros
from . import init
from .checks import check_floats, check_size
from .module import Module, Parameter

_FORWARD = {axes: composite(convolved, f"conv{axes}d") for axes in (1, 2)}
_TRANSPOSED = {axes: composite(spread_out, f"conv_transpose{axes}d") for axes in (1, 2)}


class _Convolution(Module):
    """What all of them share: options, parameters and their first values."""

    _axes: ClassVar[int]
    _transposed: ClassVar[bool] = False
    weight: Parameter
    bias: Parameter | None
    # Numbers, or "same" or "valid"; a transposed convolution has numbers only.
    padding: Any

    def _prepare(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes,
        padding: Sizes | str,
        dilation: Sizes,
        groups: int,
        bias: bool,
        padding_mode: str,
        dtype: DTypeLike | None,
    ) -> None:
        name, axes = type(self).__name__, self._axes
        self.in_channels = check_size("in_channels", in_channels)
        self.out_channels = check_size("out_channels", out_channels)
        self.groups = check_size("groups", groups)
        for what, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ArgumentError(
                    f"{name} needs groups that divide {what}; got {what}={channels} and groups={groups}"
                )
        self.kernel_size = for_each_axis(name, "kernel_size", kernel_size, axes)
        self.stride = for_each_axis(name, "stride", stride, axes)
        self.dilation = for_each_axis(name, "dilation", dilation, axes)
        widths(name, axes, padding, self.kernel_size, self.stride, self.dilation)
        self.padding = (
            padding if isinstance(padding, str) else for_each_axis(name, "padding", padding, axes, 0)
        )
        self.padding_mode = check_choice("padding_mode", padding_mode, PADDING_MODES)
        if self._transposed and padding_mode != "zeros":
            raise ArgumentError(f"{name} needs padding_mode='zeros'; got {padding_mode!r}")
        first, second = (in_channels, out_channels) if self._transposed else (out_channels, in_channels)
        wanted = dtype_or_default(dtype)
        self.weight = Parameter(zeros((first, second // groups, *self.kernel_size), dtype=wanted))
        self.register_parameter("bias", Parameter(zeros(out_channels, dtype=wanted)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew: U(−b, b) with b = 1/√(weight.shape[1] · size of the kernel)."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """Channels, sizes, and what is not as usual."""
        shown = [
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        ]
        none, one = (0,) * self._axes, (1,) * self._axes
        usual = {
            "padding": none, "dilation": one, "output_padding": none, "groups": 1, "padding_mode": "zeros",
        }  # fmt: skip
        for option, value in usual.items():
            if (given := getattr(self, option, value)) != value:
                shown.append(f"{option}={given!r}")
        return ", ".join(shown + ([] if self.bias is not None else ["bias=False"]))


class _Forward(_Convolution):
    """A convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        dtype: DTypeLike | None = None,
    ) -> None:
        self._prepare(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            dtype,
        )

    def forward(self, x: Any) -> Tensor:
        """The convolution of x."""
        source = as_tensor(x)
        check_floats(self._called(), source, self.weight.dtype)
        return _FORWARD[self._axes](
            self._called(),
            self._axes,
            source,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.padding_mode,
        )


class Conv1d(_Forward):
    """The sum over channels and kernel of x · weight at every place, plus bias: (N, C, L) → (N, O, L′).

    weight is (O, C/groups, kernel) and bias (O,); both start as U(−b, b) with b = 1/√(C/groups · kernel). padding:
    places on both sides, filled as padding_mode says ("zeros", "reflect", "replicate" or "circular"), or "same", or
    "valid". groups: channels are cut into so many parts that do not mix. Raises ShapeError and DtypeError for an
    input that does not fit, naming the layer.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Conv1d(3, 8, 5, padding="same")(cr.ones((2, 3, 10))).shape
    (2, 8, 10)
    """

    _axes = 1


class Conv2d(_Forward):
    """The sum over channels and kernel of x · weight at every pixel, plus bias: (N, C, H, W) → (N, O, H′, W′).

    weight is (O, C/groups, height, width) and bias (O,); both start as U(−b, b) with b = 1/√(C/groups · height ·
    width). kernel_size, stride, padding, dilation: one number, or one for each axis. padding: places on both sides,
    filled as padding_mode says ("zeros", "reflect", "replicate" or "circular"), or "same", or "valid". groups:
    channels are cut into so many parts that do not mix. Raises ShapeError and DtypeError for an input that does not
    fit, naming the layer.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Conv2d(3, 16, 3, stride=2, padding=1)(cr.ones((2, 3, 32, 32))).shape
    (2, 16, 16, 16)
    """

    _axes = 2


class _Transposed(_Convolution):
    """A transposed convolution."""

    _transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        padding_mode: str = "zeros",
        dtype: DTypeLike | None = None,
    ) -> None:
        name = type(self).__name__
        if isinstance(padding, str):
            raise ArgumentError(f"{name} needs numbers as padding; got {padding!r}")
        self.output_padding = for_each_axis(name, "output_padding", output_padding, self._axes, 0)
        self._prepare(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            dtype,
        )

    def forward(self, x: Any, output_size: Any = None) -> Tensor:
        """x spread out; `output_size` picks one of the sizes that the stride leaves open."""
        source = as_tensor(x)
        check_floats(self._called(), source, self.weight.dtype)
        extra = self.output_padding if output_size is None else self._extra(source, output_size)
        return _TRANSPOSED[self._axes](
            self._called(),
            self._axes,
            source,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            extra,
            self.groups,
            self.dilation,
        )

    def _extra(self, x: Tensor, output_size: Any) -> tuple[int, ...]:
        """The output padding that gives this size."""
        wanted = tuple(output_size)[-self._axes :] if isinstance(output_size, tuple | list) else output_size
        sizes = for_each_axis(self._called(), "output_size", wanted, self._axes)
        least = [
            (size - 1) * step - 2 * cut + gap * (window - 1) + 1
            for size, step, cut, gap, window in zip(
                x.shape[-self._axes :], self.stride, self.padding, self.dilation, self.kernel_size
            )
        ]
        most = [low + step - 1 for low, step in zip(least, self.stride)]
        if any(not low <= size <= high for low, size, high in zip(least, sizes, most)):
            raise ShapeError(
                f"{self._called()} can give sizes from {tuple(least)} to {tuple(most)} for {x.shape}; got "
                f"output_size={output_size}"
            )
        return tuple(size - low for size, low in zip(sizes, least))


class ConvTranspose1d(_Transposed):
    """Every place of x spread over the output by the kernel, plus bias: the transpose of `Conv1d`.

    weight is (C, O/groups, kernel) and bias (O,); both start as U(−b, b) with b = 1/√(O/groups · kernel). Otherwise
    as `ConvTranspose2d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ConvTranspose1d(3, 8, 4, stride=2, padding=1)(cr.ones((2, 3, 10))).shape
    (2, 8, 20)
    """

    _axes = 1


class ConvTranspose2d(_Transposed):
    """Every pixel of x spread over the output by the kernel, plus bias: the transpose of `Conv2d`.

    weight is (C, O/groups, height, width) and bias (O,); both start as U(−b, b) with b = 1/√(O/groups · height ·
    width). H′ = (H − 1)·stride − 2·padding + dilation·(height − 1) + output_padding + 1. Called with `output_size`,
    the layer works the output padding out. Raises ShapeError and DtypeError for an input that does not fit, naming
    the layer.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ConvTranspose2d(16, 3, 2, stride=2)(cr.ones((2, 16, 8, 8))).shape
    (2, 3, 16, 16)
    """

    _axes = 2
