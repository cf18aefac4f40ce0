"""What convolutions, pools and resizing share: sizes for each spatial axis, a batch of one, places around the edge.

Spatial axes are the last ones: (N, C, L) or (N, C, H, W); without N it is one row or image.
Knows neither kernels nor windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError, DtypeError, ShapeError
from ..graph import constant
from ..tensor import Tensor, as_tensor, dispatch, wrap
from ..tensor.manipulation import reshaped

Sizes = int | Sequence[int]

AXES = {1: "L", 2: "H, W", 3: "D, H, W"}
"""Names of the spatial axes, by their number."""

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def for_each_axis(name: str, argument: str, given: Any, axes: int, least: int = 1) -> tuple[int, ...]:
    """A whole number from `least` for each spatial axis; one number stands for all of them."""
    sizes = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,) * axes
    if isinstance(given, Sequence) and len(sizes) == 1:
        sizes *= axes
    whole = all(isinstance(one, int | np.integer) and not isinstance(one, bool) for one in sizes)
    if not whole or len(sizes) != axes or any(one < least for one in sizes):
        several = "" if axes == 1 else f", or {axes} of them"
        raise ArgumentError(
            f"{name} needs a whole number from {least}{several}, as {argument}; got {given!r}. Change {argument}="
        )
    return tuple(int(one) for one in sizes)


def batched(name: str, x: Any, axes: int) -> tuple[Tensor, bool]:
    """`x` as a tensor of floats (N, C, …), and whether it was one without N."""
    source = as_tensor(x)
    if source.dtype.kind != "f":
        raise DtypeError(f"{name} needs floats; got {source.dtype.name}. Use x.astype('float32')")
    if source.ndim not in (axes + 1, axes + 2):
        names = AXES.get(axes, "…")
        fix = "Add the axis of channels: x[None]" if source.ndim == axes else "Reshape it"
        raise ShapeError(f"{name} needs (N, C, {names}), or (C, {names}) for one; got {source.shape}. {fix}")
    if source.ndim == axes + 2:
        return source, False
    return reshaped(source, (1, *source.shape)), True


def single(result: Tensor, alone: bool) -> Tensor:
    """The result without its batch axis, where the input had none."""
    return reshaped(result, result.shape[1:]) if alone else result


def check_sizes(name: str, x: Tensor) -> None:
    """Channels and places are there; only the batch may be empty."""
    if 0 in x.shape[1:]:
        raise ShapeError(f"{name} needs sizes from 1 on every axis but the batch; got {x.shape}")


# ------------------------------------------------------------------------------------- around the edge


def extended(
    name: str, x: Tensor, low: Sequence[int], high: Sequence[int], mode: str = "zeros", value: float = 0.0
) -> Tensor:
    """`x` with `low` places before and `high` behind on its last axes; negative numbers cut off.

    mode: "zeros" (or any other `value`), "reflect" (mirrored at the edge, which is not repeated), "replicate" (the
    edge repeated) or "circular" (from the other end).
    """
    if not any(low) and not any(high):
        return x
    if mode == "zeros":
        return _filled(name, x, low, high, value)
    result = x
    for axis, (before, after) in enumerate(zip(low, high), x.ndim - len(low)):
        if before or after:
            result = _continued(name, result, axis, before, after, mode)
    return result


def _filled(name: str, x: Tensor, low: Sequence[int], high: Sequence[int], value: float) -> Tensor:
    first = x.ndim - len(low)
    kept = x.shape[first:]
    starts = (0,) * first + tuple(max(-one, 0) for one in low)
    stops = x.shape[:first] + tuple(size - max(-one, 0) for size, one in zip(kept, high))
    if any(stop < start for start, stop in zip(starts, stops)):
        raise ShapeError(
            f"{name} cannot cut off more than there is; got {tuple(low)} and {tuple(high)} for {x.shape}"
        )
    node = x.node
    if any(starts) or stops != x.shape:
        node = ops.slice_.node((node,), {"starts": starts, "stops": stops, "steps": (1,) * x.ndim})
    around = {
        "low": (0,) * first + tuple(max(one, 0) for one in low),
        "high": (0,) * first + tuple(max(one, 0) for one in high),
        "interior": (0,) * x.ndim,
    }
    inside = tuple(node.shape[first:])
    node = ops.pad.node((node,), around)
    if value == 0:
        return wrap(node)
    outside = np.ones(node.shape[first:], bool)
    outside[tuple(slice(one, one + size) for one, size in zip(around["low"][first:], inside))] = False
    return wrap(dispatch.broadcast_node(ops.where, (constant(outside), constant(value, x.dtype), node)))


def _continued(name: str, x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """One axis continued by its own entries."""
    size = x.shape[axis]
    most = {"reflect": size - 1, "circular": size, "replicate": max(before, after) if size else 0}[mode]
    if min(before, after) < 0 or max(before, after) > most:
        raise ShapeError(
            f"{name} with {mode!r} needs from 0 to {most} places around an axis of {size}; got {before} and {after} "
            f"for {x.shape}. Use less padding"
        )

    def part(start: int, stop: int) -> Tensor:
        return x[(*(slice(None),) * axis, slice(start, stop))]

    def repeated(edge: Tensor, times: int) -> Any:
        shape = (*x.shape[:axis], times, *x.shape[axis + 1 :])
        return ops.broadcast_to.node((edge.node,), {"shape": shape})

    def turned(piece: Tensor) -> Any:
        return ops.flip.node((piece.node,), {"axes": (axis,)})

    if mode == "reflect":
        ahead, behind = turned(part(1, before + 1)), turned(part(size - 1 - after, size - 1))
    elif mode == "replicate":
        ahead, behind = repeated(part(0, 1), before), repeated(part(size - 1, size), after)
    else:
        ahead, behind = part(size - before, size).node, part(0, after).node
    pieces = [one for one, many in ((ahead, before), (x.node, 1), (behind, after)) if many]
    return wrap(ops.concat.node(tuple(pieces), {"axis": axis}))
