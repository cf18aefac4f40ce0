"""Layers that change the size of images and learn nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ArgumentError
from ..functional.composite import composite
from ..functional.resize import Factors, check_mode, resized
from ..functional.spatial import batched, extended, single
from ..tensor import Tensor
from .module import Module

_resized = composite(resized, "interpolate")
_extended = composite(extended, "pad")


class Upsample(Module):
    """x in another size: (N, C, L) → (N, C, L′), (N, C, H, W) → (N, C, H′, W′).

    size or scale_factor: one number, or one for each axis. mode: "nearest", "linear" (for L) or "bilinear" (for H, W).
    align_corners: whether the outermost entries keep their places. The same as `functional.interpolate`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Upsample(scale_factor=2)(cr.tensor([[[1.0, 3.0]]])).tolist()
    [[[1.0, 1.0, 3.0, 3.0]]]
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: Factors | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        if (size is None) == (scale_factor is None):
            raise ArgumentError(
                f"Upsample needs size or scale_factor; got size={size!r}, scale_factor={scale_factor!r}"
            )
        check_mode("Upsample", mode, align_corners)
        self.size = size
        self.scale_factor = scale_factor
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, x: Any) -> Tensor:
        """x in the new size."""
        return _resized(
            self._called(),
            x,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
        )

    def extra_repr(self) -> str:
        """Size and mode."""
        size = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{size}, mode={self.mode!r}"


class ZeroPad2d(Module):
    """Zeros around the pixels of (N, C, H, W) or (C, H, W); negative numbers cut off.

    padding: one number, or (left, right, top, bottom).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ZeroPad2d((1, 1, 2, 0))(cr.ones((1, 1, 2, 2))).shape
    (1, 1, 4, 4)
    """

    def __init__(self, padding: int | Sequence[int]) -> None:
        each = tuple(padding) if isinstance(padding, Sequence) else (padding,) * 4
        if len(each) != 4 or any(not isinstance(one, int) or isinstance(one, bool) for one in each):
            raise ArgumentError(
                f"ZeroPad2d needs a whole number, or (left, right, top, bottom), as padding; got {padding!r}"
            )
        self.padding = each

    def forward(self, x: Any) -> Tensor:
        """x with zeros around."""
        left, right, top, bottom = self.padding
        source, alone = batched(self._called(), x, 2)
        return single(_extended(self._called(), source, (top, left), (bottom, right)), alone)

    def extra_repr(self) -> str:
        """The widths."""
        return f"{self.padding}"
