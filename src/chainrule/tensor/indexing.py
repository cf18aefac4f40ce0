"""`x[key]` and `x[key] = value`: integers, slices, None, Ellipsis, masks, and arrays of integers, as in NumPy.

Reading: slices come first; then the axes that index arrays stand for are made one axis, and one `take` reads along it.
Writing: the flat position of each entry is counted, and one `put` writes; a mask that is not known yet is a choice
between the old and the new entries. All of it is nodes, so a compiled step runs what eager code runs, and indices
that come with the data are checked with the step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from ..dtypes import int64
from ..errors import BoundsError, DtypeError, ShapeError, TraceError
from ..graph import Node, Trace, state
from ..operations import CONSTANT
from ..ops.shapes import broadcast_shapes
from . import dispatch
from .core import Tensor, as_tensor, wrap
from .keys import Gap, Indices, Mask, NewAxis, Part, Parts, Regular, Single, Stretch, parts_of
from .manipulation import moved, reshaped

_CHOSEN, _SLICES, _KEPT = (Single, Indices, Mask), (Regular, Stretch), (Regular, Stretch, NewAxis)
_IN_PLACE = {Indices, Regular}


def getitem(x: Tensor, key: Any) -> Tensor:
    """The part of `x` at `key`, as NumPy gives it, but always a tensor of its own.

    Raises BoundsError for an index outside its axis, DtypeError for a key that is no index, and, inside a compiled
    step, TraceError for a mask: how many entries it chooses depends on the data.

    >>> import chainrule as cr
    >>> cr.tensor([[1.0, 2.0], [3.0, 4.0]])[:, -1]
    tensor([2., 4.])
    """
    parts = parts_of(x, key)
    for part in parts:
        if type(part) is Mask:
            raise _unknown_length(x, part)
    return _read(x, parts)


def setitem(x: Tensor, key: Any, value: Any) -> None:
    """Point `x` at a copy of itself with `value` (broadcast) at `key`; no other tensor changes.

    Raises BoundsError for an index outside its axis, ShapeError for a value that does not fit, DtypeError for
    a value of a kind that `x` cannot hold, GradientError for a leaf that requires grad outside `no_grad`.

    >>> import chainrule as cr
    >>> x = cr.zeros(3)
    >>> x[1:] = 5.0
    >>> x
    tensor([0., 5., 5.])
    """
    x._refuse_leaf("x[i] = v")
    x._assign("x[i] = v", placed(x, key, value_node(x, value), False))


def placed(x: Tensor, key: Any, given: Node, added: bool) -> Tensor:
    """A copy of `x` with the values at `key`; `added`: added to what is there, as often as a place is named."""
    return _written(x, parts_of(x, key), given, added)


def _written(x: Tensor, parts: Parts, given: Node, added: bool) -> Tensor:
    if any(isinstance(part, Mask) for part in parts):
        return _where(x, parts, given, added)
    positions = positions_of(x.shape, parts)
    values = _fitting(given, positions.shape)
    places = reshaped(positions, (positions.size,)).node
    entries = ops.reshape.node((values,), {"shape": (positions.size,)})
    if added:
        sums = ops.scatter_add.node((entries, places), {"axis": 0, "size": x.size})
        return x + reshaped(wrap(sums), x.shape)
    flat = reshaped(x, (x.size,)).node
    return reshaped(wrap(ops.put.node((flat, places, entries), {})), x.shape)


def value_node(x: Tensor, value: Any) -> Node:
    """The value in the dtype of `x`; Python numbers are weak, but a float is no integer."""
    if isinstance(value, bool | int | float) and not isinstance(value, np.generic):
        if isinstance(value, float) and x.dtype.kind != "f":
            raise DtypeError(f"x[i] = v keeps the dtype; got {value!r} for {x.dtype.name}. Use astype first")
        return as_tensor(value, x.dtype).node
    given = as_tensor(value)
    if not np.can_cast(given.dtype, x.dtype, "same_kind"):
        raise DtypeError(
            f"x[i] = v keeps the dtype; got {given.dtype.name} for {x.dtype.name}. Use astype on one of them"
        )
    return dispatch.astype(given.node, x.dtype)


def _fitting(node: Node, shape: tuple[int, ...]) -> Node:
    """The value in the shape of the chosen part; leading axes of size 1 may be too many, as in NumPy."""
    extra = len(node.shape) - len(shape)
    if extra > 0 and node.shape[:extra] == (1,) * extra:
        node = ops.reshape.node((node,), {"shape": node.shape[extra:]})
    try:
        fits = broadcast_shapes("x[i] = v", node.shape, shape) == shape
    except ShapeError:
        fits = False
    if not fits:
        raise ShapeError(
            f"x[i] = v needs a value that fits the chosen part, of shape {shape}; got {node.shape}. "
            "Reshape the value, or choose another part"
        )
    return dispatch.broadcast(node, shape)


# --------------------------------------------------------------------------------------- where the result's axes lie


@dataclass(slots=True)
class Layout:
    """The result's axes: those before the index arrays, the common axes of the arrays, those behind.

    `before` counts the parts, new axes among them, that keep an axis and come before; `shape` is the arrays' own.
    """

    before: int
    shape: tuple[int, ...]


def _is_array(part: Part) -> bool:
    return isinstance(part, Indices) and (part.flag or part.at.ndim > 0)


def _layout(parts: Parts) -> Layout:
    """NumPy's rule: index arrays, and integers beside them, that follow each other put their axes in their place;
    if anything stands between them, in front of all others.
    """
    arrays = [part.at.shape for part in parts if isinstance(part, Indices)]
    if not arrays and not any(isinstance(part, Mask) for part in parts):
        return Layout(0, ())
    try:
        shape = broadcast_shapes("an index", *arrays)
    except ShapeError:
        raise BoundsError(
            f"index arrays need shapes that can be broadcast together; got {' and '.join(map(str, arrays))}. "
            "Add an axis to one with None to choose every pair, as in x[rows[:, None], columns]"
        ) from None
    if not any(isinstance(part, Mask) or _is_array(part) for part in parts):
        return Layout(0, shape)
    chosen = [k for k, part in enumerate(parts) if type(part) in _CHOSEN]
    together = chosen[-1] - chosen[0] + 1 == len(chosen)
    kept = [k for k, part in enumerate(parts) if _keeps(part)]
    return Layout(len([k for k in kept if k < chosen[0]]) if together else 0, shape)


def _keeps(part: Part) -> bool:
    """Whether an axis of the result is this part's own."""
    return type(part) in _KEPT


# --------------------------------------------------------------------------------------- reading


def _read(x: Tensor, parts: Parts) -> Tensor:
    kinds = {type(one) for one in parts}
    if Indices not in kinds and Stretch not in kinds:
        part = _sliced(x, parts, True)
        return x.clone() if part is x else part
    arrays = [k for k, one in enumerate(parts) if type(one) is Indices]
    if len(arrays) == 1 and kinds <= _IN_PLACE:
        part, (place,) = _sliced(x, parts, False), arrays
        return wrap(ops.take.node((part.node, parts[place].at.node), {"axis": place}))  # type: ignore[attr-defined]
    layout = _layout(parts)
    part = _sliced(x, parts, False)
    # From here on the axes of `part` are those of the slices and of the index arrays, in their order.
    axis, chosen = 0, []
    for one in parts:
        if isinstance(one, Indices):
            chosen.append((axis, one))
            axis += 1
        elif type(one) in _SLICES:
            if isinstance(one, Stretch):
                part = wrap(ops.take.node((part.node, _along(one).node), {"axis": axis}))
            axis += 1
    own = [[one] for one in parts if _keeps(one)]
    if chosen:
        before = [one for (one,) in own[: layout.before] if not isinstance(one, NewAxis)]
        part = _taken(part, chosen, len(before))
    sizes = iter(part.shape)
    shape: list[int] = []
    for group in (*own[: layout.before], layout.shape if chosen else (), *own[layout.before :]):
        shape.extend([1 if isinstance(one, NewAxis) else next(sizes) for one in group])
    return reshaped(part, tuple(shape))


def _sliced(x: Tensor, parts: Parts, with_new: bool) -> Tensor:
    """The known slices and integers of a key: of the integers no axis is left, of a single bool one of size 1.

    with_new: new axes too.
    """
    starts: list[int] = []
    stops, steps, shape, turned = [], [], [], []
    source = x.shape
    for one in parts:
        kind = type(one)
        if not one.axes:
            if (kind is NewAxis and with_new) or kind is Indices:
                shape.append(1)
            continue
        low, high, step = 0, source[len(starts)], 1
        if kind is Single:
            low = one.place  # type: ignore[attr-defined]
            high = low + 1
        else:
            if kind is Regular:
                low, high, step = _forward(one.entries)  # type: ignore[attr-defined]
                if step < 0:
                    step = -step
                    turned.append(len(shape))
            shape.append((high - low + step - 1) // step)
        starts.append(low)
        stops.append(high)
        steps.append(step)
    part = x
    if any(starts) or tuple(stops) != source or steps != [1] * len(source):
        attributes = {"starts": tuple(starts), "stops": tuple(stops), "steps": tuple(steps)}
        part = wrap(ops.slice_.node((x.node,), attributes))
    part = reshaped(part, tuple(shape))
    return wrap(ops.flip.node((part.node,), {"axes": tuple(turned)})) if turned else part


def _forward(entries: range) -> tuple[int, int, int]:
    """The same positions from the first to the last: (start, stop, step), the step negative where they are turned."""
    if not entries:
        return 0, 0, 1
    if entries.step > 0:
        return entries.start, entries.stop, entries.step
    return entries[-1], entries[0] + 1, entries.step if len(entries) > 1 else 1


def _along(one: Stretch) -> Tensor:
    """The positions of a slice whose start is not known yet."""
    steps = wrap(
        Node(CONSTANT, value=np.arange(0, one.extent * one.step, one.step, dtype=int64)[: one.extent])
    )
    return steps + wrap(dispatch.astype(one.start.node, int64))


def _taken(part: Tensor, chosen: list[tuple[int, Indices]], place: int) -> Tensor:
    """The entries of several axes at indices that are read side by side; their axes stand at `place` then."""
    axes = [axis for axis, _ in chosen]
    if len(chosen) == 1:
        source = moved(part, axes[0], place)
        return wrap(ops.take.node((source.node, chosen[0][1].at.node), {"axis": place}))
    source = moved(part, axes, tuple(range(place, place + len(axes))))
    sizes = source.shape[place : place + len(axes)]
    flat = _flat([one for _, one in chosen], sizes)
    rest = source.shape[place + len(axes) :]
    source = reshaped(source, (*source.shape[:place], math.prod(sizes), *rest))
    return wrap(ops.take.node((source.node, flat.node), {"axis": place}))


def _flat(indices: list[Indices], sizes: tuple[int, ...]) -> Tensor:
    """Positions in several axes of these sizes as positions in one."""
    total = _from_front(indices[0], sizes[0])
    for one, size in zip(indices[1:], sizes[1:]):
        total = total * size + _from_front(one, size)
    return total


def _from_front(one: Indices, size: int) -> Tensor:
    return one.at if one.from_front else wrap(ops.from_front.node((one.at.node,), {"size": size}))


# --------------------------------------------------------------------------------------- writing


def positions_of(shape: tuple[int, ...], parts: Parts) -> Tensor:
    """Flat positions (int64) of the chosen entries, in the shape of the result.

    Each part is asked for its own coordinates, so the work grows with what is chosen, not with the array.
    """
    layout = _layout(parts)
    own = [one for one in parts if _keeps(one)]
    arrays = len(layout.shape)
    ndim = len(own) + arrays
    sizes = (*map(_extent, own[: layout.before]), *layout.shape, *map(_extent, own[layout.before :]))
    stride, known = math.prod(shape), 0
    total: Tensor | None = None
    axis = kept = 0
    for one in parts:
        size = shape[axis] if one.axes else 1
        if one.axes:
            stride = stride // size if size else 0
        axis += one.axes
        if isinstance(one, Single):
            known += one.place * stride
        elif type(one) is not NewAxis and type(one) is not Gap:
            coordinates, end = _coordinates(one, size), ndim - layout.before - arrays
            if not isinstance(one, Indices):
                end = ndim - 1 - (kept if kept < layout.before else kept + arrays)
            spread = reshaped(coordinates, coordinates.shape + (1,) * end) * stride
            total = spread if total is None else total + spread
        kept += _keeps(one)
    start = wrap(Node(CONSTANT, value=np.asarray(known, int64)))
    total = start if total is None else total + start
    return wrap(dispatch.broadcast(total.node, sizes))


def _extent(one: Part) -> int:
    """The size of a part's own axis in the result."""
    if isinstance(one, Stretch):
        return one.extent
    return len(one.entries) if isinstance(one, Regular) else 1


def _coordinates(one: Part, size: int) -> Tensor:
    """The positions along its axis that a part stands for."""
    if isinstance(one, Indices):
        return _from_front(one, size)
    if isinstance(one, Stretch):
        return _along(one)
    assert isinstance(one, Regular)
    return wrap(Node(CONSTANT, value=np.asarray(one.entries, int64)))


def _where(x: Tensor, parts: Parts, given: Node, added: bool) -> Tensor:
    """`x[mask] = v` with a mask that is not known yet: each entry is the old one or the value (or their sum)."""
    place = next(k for k, one in enumerate(parts) if isinstance(one, Mask))
    mask = parts[place]
    assert isinstance(mask, Mask)
    if any(isinstance(one, Mask) or _is_array(one) for one in (*parts[:place], *parts[place + 1 :])):
        raise _unknown_length(x, mask)
    whole: Parts = [Regular(range(size)) for size in mask.chosen.shape]
    around = [*parts[:place], *whole, *parts[place + 1 :]]
    old = _read(x, around)
    own = [one for one in parts[:place] if _keeps(one)]
    chosen = _choice(old, mask.chosen, given, len(own), _layout(parts).before, added)
    if len(around) == x.ndim and all(
        isinstance(one, Regular) and one.entries == range(size) for one, size in zip(around, x.shape)
    ):
        return chosen
    return _written(x, around, chosen.node, False)


def _choice(old: Tensor, mask: Tensor, given: Node, at: int, counted: int, added: bool) -> Tensor:
    """The value where the mask holds, the old entries elsewhere.

    The mask's axes are those from `at` on; for the value they are one axis, `counted`, of an unknown size.
    """
    many = mask.ndim
    ndim = old.ndim - many + 1
    extra = len(given.shape) - ndim
    shape = given.shape[extra:] if extra > 0 and given.shape[:extra] == (1,) * extra else given.shape
    where = len(shape) - (ndim - counted)
    if len(shape) > ndim or (where >= 0 and shape[where] != 1):
        trace = state.trace or Trace
        raise TraceError(
            f"{trace.place} x[mask] = v needs a v that fits however many entries the mask chooses; got {given.shape}. "
            "Write x = cr.where(mask, values, x) with values in the shape of x"
        )
    if where >= 0:
        shape = (*shape[:where], *(1,) * many, *shape[where + 1 :])
    value = wrap(ops.reshape.node((given,), {"shape": shape}) if shape != given.shape else given)
    if counted != at:
        value = reshaped(value, (1,) * (old.ndim - value.ndim) + value.shape)
        value = moved(value, tuple(range(many)), tuple(range(at, at + many)))
    bools = reshaped(mask, mask.shape + (1,) * (old.ndim - at - many))
    new = wrap(_fitting(value.node, old.shape))
    nodes = (dispatch.broadcast(bools.node, old.shape), (old + new if added else new).node, old.node)
    return wrap(ops.where.node(nodes, {}))


def _unknown_length(x: Tensor, mask: Mask) -> TraceError:
    trace = state.trace or Trace
    return TraceError(
        f"{trace.place} the shape of every result must be known, and how many entries a mask chooses depends on the "
        f"data; got a mask of shape {mask.chosen.shape} for shape {x.shape}. Write cr.where(mask, x, 0) or x * mask "
        "and sum that, x[mask] = v to set entries, cr.index_put(x, mask, v, accumulate=True) to add to them, or run "
        "this step with cr.compile(..., fallback=True)"
    )
