"""What stands between the brackets of `x[…]`, read into parts that say which entries of each axis are meant.

A part is the same whether its numbers are known now or come with each call of a compiled step: only a mask whose
bools are not known yet is kept as a mask, for how many entries it chooses nobody knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..dtypes import DEFAULT_INTEGER, int64
from ..errors import BoundsError, DtypeError, ShapeError, TraceError
from ..graph import Node, Trace, state
from ..operations import CONSTANT
from . import dispatch
from .core import Tensor, as_tensor, wrap

_WHOLE = slice(None)


class Part:
    """One part of a key. `axes`: how many axes of the tensor it stands for."""

    axes = 1


class NewAxis(Part):
    """`None`: an axis of size 1 that the tensor lacks."""

    axes = 0


class Gap(Part):
    """`...` that stands for no axis: it only keeps index arrays on its two sides apart."""

    axes = 0


@dataclass
class Regular(Part):
    """A slice whose three numbers are known: `entries` are the positions along the axis."""

    entries: range


@dataclass
class Stretch(Part):
    """A slice that begins where the tensor `start` says, and has `extent` entries wherever that is."""

    start: Tensor
    extent: int
    step: int


@dataclass
class Single(Part):
    """One known position, counted from the front."""

    place: int


@dataclass
class Indices(Part):
    """Positions in a tensor of whole numbers, negative ones counted from the end; `flag`: of no axis at all.

    `from_front`: int64, and known to have no negative ones. Several parts are read side by side, broadcast.
    """

    at: Tensor
    flag: bool = False
    from_front: bool = False

    @property
    def axes(self) -> int:  # type: ignore[override]
        """None for a single bool: it chooses all of the tensor, or nothing."""
        return 0 if self.flag else 1


@dataclass
class Mask(Part):
    """Bools that are not known yet, over as many axes as they have."""

    chosen: Tensor

    @property
    def axes(self) -> int:  # type: ignore[override]
        """The axes of the mask."""
        return self.chosen.ndim


Parts = list[Part]


def parts_of(x: Tensor, key: Any) -> Parts:
    """The key as parts that stand for all axes of `x`, in their order.

    Raises BoundsError for an index outside its axis, ShapeError or DtypeError for what is no key of this tensor.
    """
    pieces = [_plain(one) for one in (key if isinstance(key, tuple) else (key,))]
    shape = x.shape
    pieces = _without_ellipsis(shape, pieces)
    parts: Parts = []
    axis = 0
    for one in pieces:
        for part in _parts(one, shape, axis):
            parts.append(part)
            axis += part.axes
    return parts


# --------------------------------------------------------------------------------------- what was typed


def _plain(key: Any) -> Any:
    """One piece of a key: an integer, a slice, None, Ellipsis, a NumPy array, or a tensor without numbers yet."""
    if key is None or key is Ellipsis or type(key) is int or type(key) is slice:
        return key
    if isinstance(key, list | tuple) and any(isinstance(one, Tensor) for one in key):
        key = _stacked(key)
    if isinstance(key, Tensor):
        if key.dtype.kind == "f":
            raise DtypeError(
                f"an index must be whole numbers or bools; got {key.dtype.name}. Use astype(int64)"
            )
        unknown = key.node.value is None and not (state.trace is not None and state.trace.forces)
        return key if unknown else _scalar_or_array(key._array())
    if isinstance(key, bool | int | np.generic | np.ndarray | list | tuple):
        array = np.asarray(dispatch.to_array(key)) if np.size(key) else np.asarray(key)
        if not array.size and array.dtype.kind == "f":
            array = array.astype(DEFAULT_INTEGER)
        if array.dtype.kind not in "biu":
            raise DtypeError(f"an index must be whole numbers or bools; got {array.dtype}. Use astype(int64)")
        return _scalar_or_array(array)
    raise DtypeError(
        f"an index must be whole numbers, bools, slices, None or ...; got {key!r}. Convert it to an integer"
    )


def _stacked(rows: Any) -> Any:
    """A list of tensors as one tensor of an axis more."""
    tensors = [as_tensor(one) for one in rows]
    if len({one.shape for one in tensors}) > 1:
        raise ShapeError(
            f"a list of indices needs entries of one shape; got {', '.join(str(one.shape) for one in tensors)}. "
            "Write a tuple to index several axes"
        )
    dtype = dispatch.common_dtype("an index", [one.node for one in tensors])
    shape = (1, *tensors[0].shape)
    nodes = tuple(ops.reshape.node((dispatch.astype(one.node, dtype),), {"shape": shape}) for one in tensors)
    return wrap(ops.concat.node(nodes, {"axis": 0}))


def _scalar_or_array(array: NDArray[Any]) -> Any:
    return int(array) if array.ndim == 0 and array.dtype.kind in "iu" else array


def _axes_of(piece: Any) -> int:
    """How many axes of the tensor a piece of a key stands for: a mask for as many as it has."""
    if piece is None or isinstance(piece, Gap):
        return 0
    return piece.ndim if isinstance(piece, np.ndarray | Tensor) and piece.dtype.kind == "b" else 1


def _without_ellipsis(shape: tuple[int, ...], pieces: list[Any]) -> list[Any]:
    """The key with `...` written out, and whole slices for the axes that it does not name."""
    if len(pieces) == len(shape) and all(type(one) is int or type(one) is slice for one in pieces):
        return pieces
    gaps = [k for k, one in enumerate(pieces) if one is Ellipsis]
    if len(gaps) > 1:
        raise ShapeError("an index can hold one Ellipsis (...) at most; got several")
    used = sum([_axes_of(one) for one in pieces if one is not Ellipsis])
    if used > len(shape):
        raise BoundsError(
            f"a tensor of shape {shape} takes at most {len(shape)} indices; got {used}. Leave some out"
        )
    whole: list[Any] = [_WHOLE] * (len(shape) - used)
    return pieces[: gaps[0]] + (whole or [Gap()]) + pieces[gaps[0] + 1 :] if gaps else pieces + whole


# --------------------------------------------------------------------------------------- one piece


def _parts(piece: Any, shape: tuple[int, ...], axis: int) -> Parts:
    """What a piece says about the axes from `axis` on."""
    if piece is None:
        return [NewAxis()]
    if isinstance(piece, Gap):
        return [piece]
    if isinstance(piece, slice):
        return [_sliced(piece, shape[axis])]
    if type(piece) is int:
        return [Single(inside(piece, axis, shape))]
    if piece.dtype.kind != "b":
        return [_indices(piece, axis, shape)]
    if piece.shape != shape[axis : axis + piece.ndim]:
        raise BoundsError(
            f"a mask needs the sizes of the axes that it covers, {shape[axis : axis + piece.ndim]}; got a mask of "
            f"shape {piece.shape} for shape {shape}. Compare along those axes, or index with whole numbers"
        )
    if isinstance(piece, Tensor):
        return [Mask(piece)]
    if not piece.ndim:
        return [Indices(_of_array(np.zeros(int(piece), int64)), flag=True)]
    return [Indices(_of_array(places.astype(int64)), from_front=True) for places in np.nonzero(piece)]


def _of_array(array: NDArray[Any]) -> Tensor:
    return wrap(Node(CONSTANT, value=array))


def inside(index: int, axis: int, shape: tuple[int, ...]) -> int:
    """The index counted from the front. Raises BoundsError outside the axis."""
    size = shape[axis]
    if not -size <= index < size:
        raise _outside(f"{index}", axis, shape)
    return index % size


def _outside(found: str, axis: int, shape: tuple[int, ...]) -> BoundsError:
    size = shape[axis]
    limits = f"from {-size} to {size - 1}" if size else "none, for the axis is empty"
    return BoundsError(f"an index along axis {axis} must be {limits}; got {found} for shape {shape}")


def _indices(piece: Any, axis: int, shape: tuple[int, ...]) -> Indices:
    if isinstance(piece, Tensor):
        return Indices(piece)
    low = 0
    if piece.size:
        low, high = int(piece.min()), int(piece.max())
        if low < -shape[axis] or high >= shape[axis]:
            raise _outside(f"{low} to {high}", axis, shape)
    return Indices(_of_array(piece), from_front=low >= 0 and piece.dtype == int64)


# --------------------------------------------------------------------------------------- slices


def _sliced(key: slice, size: int) -> Part:
    start, stop, step = key.start, key.stop, key.step
    if start is None and stop is None and step is None:
        return Regular(range(size))
    start, stop, step = _bound(start), _bound(stop), _bound(step)
    if isinstance(start, Tensor) or isinstance(stop, Tensor) or isinstance(step, Tensor):
        return _stretch(start, stop, step, size)
    if step == 0:
        raise ShapeError("a slice needs a step other than 0; got 0")
    return Regular(range(*slice(start, stop, step).indices(size)))


def _bound(part: Any) -> Any:
    """One number of a slice: None, an integer, or a tensor whose number is not known yet."""
    if part is None or type(part) is int:
        return part
    if isinstance(part, Tensor) and part.node.value is None and part.dtype.kind in "iu" and part.size == 1:
        return part if not part.ndim else wrap(ops.reshape.node((part.node,), {"shape": ()}))
    try:
        return part.__index__()
    except (AttributeError, TypeError):
        raise DtypeError(f"a slice needs whole numbers; got {part!r}. Convert it with int()") from None


def _stretch(start: Any, stop: Any, step: Any, size: int) -> Stretch:
    """A slice with ends that are not known yet: its length must follow from how they were computed."""
    trace = state.trace or Trace
    extent = _distance(start, stop) if isinstance(start, Tensor) and isinstance(stop, Tensor) else None
    step = 1 if step is None else step
    if extent is None or not isinstance(step, int) or step < 1 or np.iinfo(start.dtype).max < size:
        plain = isinstance(step, int) and step == 1
        ends = (start, stop) if plain else (start, stop, step)
        shown = ":".join(
            ["" if one is None else "k" if isinstance(one, Tensor) else str(one) for one in ends]
        )
        raise TraceError(
            f"{trace.place} the length of a slice must be known when the step is traced; got x[{shown}] whose ends "
            f"come with the data. Write x[k:k + length] with one k and a length that is a plain number, "
            "x[k + cr.arange(length)], or a mask with cr.where"
        )
    count = len(range(0, extent, step))
    most = size - (count - 1) * step
    if most < 1:
        raise BoundsError(
            f"a slice of {count} entries needs as many along its axis; got {size}. Make it shorter"
        )
    if state.trace is not None and count:
        at = dispatch.astype(start.node, int64)
        holds = ops.bitwise_and.on_nodes(
            (ops.greater_equal.on_nodes((at, 0), {}), ops.less.on_nodes((at, most), {})), {}
        )
        message = (
            f"a slice of {count} entries of {size} must begin from 0 to {most - 1}; got {{low}} to {{high}}. "
            "Clip the start: cr.clip(k, 0, size − length)"
        )
        state.trace.check(holds, message, BoundsError, at)
    return Stretch(start, count, step)


def _distance(start: Tensor, stop: Tensor) -> int | None:
    """stop − start, if both are one number with something known added to it."""
    (first, before), (last, after) = _from_base(start.node), _from_base(stop.node)
    return max(after - before, 0) if first is last else None


def _from_base(node: Node) -> tuple[Node, int]:
    """The node as (another one, what was added to it)."""
    added = 0
    while True:
        if node.operation in (ops.add, ops.subtract) and node.dtype.itemsize >= 4:  # narrow ones may wrap
            sign = 1 if node.operation is ops.add else -1
            x, y = node.inputs
            if y.value is not None:
                node, added = x, added + sign * int(y.value.reshape(())[()])
                continue
            if x.value is not None and sign == 1:
                node, added = y, added + int(x.value.reshape(())[()])
                continue
        elif node.operation in (ops.positive, ops.reshape, ops.stop_gradient) or (
            node.operation is ops.cast and _widens(node)
        ):
            node = node.inputs[0]
            continue
        return node, added


def _widens(node: Node) -> bool:
    """Whether a cast keeps every whole number as it is."""
    (source,) = node.inputs
    return source.dtype.kind in "iu" and bool(np.can_cast(source.dtype, node.dtype, "safe"))
