"""Convolutions as PyTorch defines them: cross-correlations with stride, padding, dilation and groups.

The primitive `conv` knows neither padding nor bias; what a transposed convolution is, is said here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import ops
from ..errors import ArgumentError, DtypeError, ShapeError
from ..tensor import Tensor, as_tensor, wrap
from ..tensor.manipulation import reshaped
from .composite import composite
from .spatial import AXES, Sizes, batched, check_sizes, extended, for_each_axis, single


@composite
def conv1d(
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The sum over channels and kernel of x · weight at every place, plus bias: (N, C, L) → (N, O, L′).

    x: (N, C, L) or (C, L), weight: (O, C/groups, kernel), bias: (O,). padding: zeros on both sides, or "valid" (none)
    or "same" (as many places as x has, for stride 1). L′ = (L + 2·padding − dilation·(kernel − 1) − 1) // stride + 1.
    Raises ShapeError for other shapes, ArgumentError for options that do not fit, DtypeError for two dtypes.

    >>> import chainrule as cr
    >>> conv1d(cr.tensor([[[1.0, 2.0, 4.0]]]), cr.tensor([[[1.0, -1.0]]])).tolist()
    [[[-1.0, -2.0]]]
    """
    return convolved("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


@composite
def conv2d(
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The sum over channels and kernel of x · weight at every pixel, plus bias: (N, C, H, W) → (N, O, H′, W′).

    x: (N, C, H, W) or (C, H, W), weight: (O, C/groups, height, width), bias: (O,). stride, padding and dilation: one
    number, or one for each axis. padding: zeros on both sides, or "valid" (none) or "same" (as many pixels as x has,
    for stride 1). Raises ShapeError for other shapes, ArgumentError for options that do not fit, DtypeError for two
    dtypes.

    >>> import chainrule as cr
    >>> conv2d(cr.ones((1, 3, 8, 8)), cr.ones((4, 3, 3, 3)), padding=1, stride=2).shape
    (1, 4, 4, 4)
    """
    return convolved("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


@composite
def conv3d(
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The sum over channels and kernel of x · weight at every place, plus bias: (N, C, D, H, W) → (N, O, D′, H′, W′).

    x: (N, C, D, H, W) or (C, D, H, W), weight: (O, C/groups, depth, height, width), bias: (O,). Everything else as for
    `conv2d`.

    >>> import chainrule as cr
    >>> conv3d(cr.ones((1, 2, 4, 8, 8)), cr.ones((3, 2, 3, 3, 3)), padding=(0, 1, 1)).shape
    (1, 3, 2, 8, 8)
    """
    return convolved("conv3d", 3, x, weight, bias, stride, padding, dilation, groups)


@composite
def conv_transpose1d(
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """Every place of x (N, C, L) spread over the output by the kernel, plus bias: the transpose of `conv1d`.

    weight: (C, O/groups, kernel). L′ = (L − 1)·stride − 2·padding + dilation·(kernel − 1) + output_padding + 1.
    Raises as `conv_transpose2d`.

    >>> import chainrule as cr
    >>> conv_transpose1d(cr.tensor([[[1.0, 2.0]]]), cr.tensor([[[1.0, 10.0]]])).tolist()
    [[[1.0, 12.0, 20.0]]]
    """
    return spread_out(
        "conv_transpose1d", 1, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


@composite
def conv_transpose2d(
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """Every pixel of x (N, C, H, W) spread over the output by the kernel, plus bias: the transpose of `conv2d`.

    weight: (C, O/groups, height, width). padding: places cut off on both sides; output_padding: places added at the
    end, less than stride or dilation. Raises ShapeError for other shapes, ArgumentError for options that do not fit,
    DtypeError for two dtypes.

    >>> import chainrule as cr
    >>> conv_transpose2d(cr.ones((1, 3, 4, 4)), cr.ones((3, 2, 2, 2)), stride=2).shape
    (1, 2, 8, 8)
    """
    return spread_out(
        "conv_transpose2d", 2, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


@composite
def conv_transpose3d(
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """Every place of x (N, C, D, H, W) spread over the output by the kernel, plus bias: the transpose of `conv3d`.

    weight: (C, O/groups, depth, height, width). Everything else as for `conv_transpose2d`.

    >>> import chainrule as cr
    >>> conv_transpose3d(cr.ones((1, 3, 2, 4, 4)), cr.ones((3, 2, 2, 2, 2)), stride=2).shape
    (1, 2, 4, 8, 8)
    """
    return spread_out(
        "conv_transpose3d", 3, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


# ------------------------------------------------------------------------------------------ the formulas


def convolved(
    name: str,
    axes: int,
    x: Any,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes | str,
    dilation: Sizes,
    groups: int,
    mode: str = "zeros",
) -> Tensor:
    """The formula; `name` is for messages. mode: what stands around x."""
    source, alone = batched(name, x, axes)
    weight = as_tensor(weight)
    strides = for_each_axis(name, "stride", stride, axes)
    gaps = for_each_axis(name, "dilation", dilation, axes)
    _check_operands(name, axes, source, weight, groups, "(O, C/groups, …)")
    wanted = groups * weight.shape[1]
    if source.shape[1] != wanted:
        raise _wrong_channels(name, source, wanted, alone)
    if weight.shape[0] % groups:
        raise ArgumentError(
            f"{name} needs as many output channels in every group; got {weight.shape[0]} for groups={groups}"
        )
    _check_bias(name, bias, weight.shape[0])
    kernel = weight.shape[2:]
    low, high = widths(name, axes, padding, kernel, strides, gaps)
    around = extended(name, source, low, high, mode)
    reach = tuple(gap * (size - 1) + 1 for gap, size in zip(gaps, kernel))
    if any(size < one for size, one in zip(around.shape[2:], reach)):
        raise ShapeError(
            f"{name} needs {reach} places or more for a kernel {kernel} with dilation {gaps}; got "
            f"{source.shape[2:]}, {around.shape[2:]} with padding. Pad more, or use a smaller kernel"
        )
    check_sizes(name, source)
    attributes = {"strides": strides, "dilation": gaps, "groups": groups}
    result = wrap(ops.conv.node((around.node, weight.node), attributes))
    return single(_with_bias(result, bias), alone)


def widths(
    name: str,
    axes: int,
    padding: Sizes | str,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Places before and behind each axis. "same" puts the odd one behind, as PyTorch does."""
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ArgumentError(f"{name} needs numbers, 'same' or 'valid' as padding; got {padding!r}")
        if padding == "valid":
            return (0,) * axes, (0,) * axes
        if any(step != 1 for step in strides):
            raise ArgumentError(
                f"{name} can keep the size with padding='same' for stride 1 only; got stride {tuple(strides)}. "
                "Give padding as a number"
            )
        total = [gap * (size - 1) for gap, size in zip(dilation, kernel)]
        return tuple(one // 2 for one in total), tuple(one - one // 2 for one in total)
    both = for_each_axis(name, "padding", padding, axes, 0)
    return both, both


def spread_out(
    name: str,
    axes: int,
    x: Any,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: int,
    dilation: Sizes,
) -> Tensor:
    """The transposed convolution; `name` is for messages.

    Zeros between the entries of x, then a convolution with the kernel turned round: every entry meets every output
    place within the kernel's reach.
    """
    source, alone = batched(name, x, axes)
    weight = as_tensor(weight)
    strides = for_each_axis(name, "stride", stride, axes)
    gaps = for_each_axis(name, "dilation", dilation, axes)
    cut = for_each_axis(name, "padding", padding, axes, 0)
    more = for_each_axis(name, "output_padding", output_padding, axes, 0)
    _check_operands(name, axes, source, weight, groups, "(C, O/groups, …)")
    _check_transposed(name, source, weight, bias, groups, alone)
    if any(one >= max(step, gap) for one, step, gap in zip(more, strides, gaps)):
        raise ArgumentError(
            f"{name} needs output_padding less than stride or dilation; got {more} for stride {strides} and dilation "
            f"{gaps}"
        )
    reach = [gap * (size - 1) for gap, size in zip(gaps, weight.shape[2:])]
    interior = (0, 0, *(step - 1 for step in strides))
    none = (0,) * source.ndim
    apart = wrap(ops.pad.node((source.node,), {"low": none, "high": none, "interior": interior}))
    low = [one - away for one, away in zip(reach, cut)]
    high = [one + extra for one, extra in zip(low, more)]
    if any(size + a + b <= one for size, a, b, one in zip(apart.shape[2:], low, high, reach)):
        raise ShapeError(
            f"{name} would have no output: padding {cut} cuts off all of it; got x {source.shape}. Use less padding"
        )
    around = extended(name, apart, low, high)
    attributes = {"strides": (1,) * axes, "dilation": gaps, "groups": groups}
    result = wrap(ops.conv.node((around.node, _turned(weight, groups).node), attributes))
    return single(_with_bias(result, bias), alone)


def _check_transposed(
    name: str, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, alone: bool
) -> None:
    if x.shape[1] != weight.shape[0]:
        raise _wrong_channels(name, x, weight.shape[0], alone)
    if x.shape[1] % groups:
        raise ArgumentError(
            f"{name} needs as many input channels in every group; got {x.shape[1]} for groups={groups}"
        )
    check_sizes(name, x)
    _check_bias(name, bias, groups * weight.shape[1])


def _turned(weight: Tensor, groups: int) -> Tensor:
    """The kernel from back to front, its two channel axes exchanged inside each group."""
    inputs, outputs, *kernel = weight.shape
    spatial = tuple(range(2, weight.ndim))
    node = ops.flip.node((weight.node,), {"axes": spatial})
    node = ops.reshape.node((node,), {"shape": (groups, inputs // groups, outputs, *kernel)})
    node = ops.permute_dims.node((node,), {"axes": (0, 2, 1, *(axis + 1 for axis in spatial))})
    return wrap(ops.reshape.node((node,), {"shape": (groups * outputs, inputs // groups, *kernel)}))


def _with_bias(result: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return result
    column = (1, result.shape[1], *(1 for _ in result.shape[2:]))
    return result + reshaped(as_tensor(bias), column)


def _check_operands(name: str, axes: int, x: Tensor, weight: Tensor, groups: Any, form: str) -> None:
    if not isinstance(groups, int) or isinstance(groups, bool) or groups < 1:
        raise ArgumentError(f"{name} needs a whole number from 1 as groups; got {groups!r}")
    if weight.ndim != axes + 2:
        raise ShapeError(f"{name} needs a weight {form} with {axes + 2} axes; got {weight.shape}. Reshape it")
    if 0 in weight.shape:
        raise ShapeError(f"{name} needs a weight with sizes from 1; got {weight.shape}")
    if x.dtype != weight.dtype:
        raise DtypeError(
            f"{name} needs input and weight of one dtype; got {x.dtype.name} and {weight.dtype.name}. "
            f"Use x.astype({weight.dtype.name!r})"
        )


def _check_bias(name: str, bias: Tensor | None, outputs: int) -> None:
    if bias is not None and as_tensor(bias).shape != (outputs,):
        raise ShapeError(f"{name} needs a bias of shape ({outputs},); got {as_tensor(bias).shape}")


def _wrong_channels(name: str, x: Tensor, wanted: int, alone: bool) -> ShapeError:
    shape, places = x.shape[1:] if alone else x.shape, AXES.get(x.ndim - 2, "…")
    rule = f"{name} needs {wanted} channels, x ({'' if alone else 'N, '}{wanted}, {places}); got {shape}"
    if alone and wanted == 1:
        return ShapeError(f"{rule}. For a batch of one channel add its axis: x[:, None]")
    if shape[-1] == wanted:
        before = tuple(range(len(shape) - x.ndim + 1))
        order = (*before, len(shape) - 1, *range(len(before), len(shape) - 1))
        return ShapeError(f"{rule}. Channels come first: did you mean cr.permute_dims(x, {order})?")
    return ShapeError(f"{rule}. Change the input, or the layer's number of input channels")
