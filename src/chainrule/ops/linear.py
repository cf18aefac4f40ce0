"""The linear and bilinear primitives, and the reductions that select: each with its transpose.

A transpose takes the cotangent `g` of the result and gives the one of the operand: where the forward pass
copied it adds up, where it read it writes, where it permuted it permutes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dtypes import Dtype, int64
from ..errors import DtypeError, ShapeError
from ..operations import Type
from . import shapes
from .kinds import bilinear, elementwise, linear, selection
from .lowering import Contraction, Exact, Gather, Reduce, Running, Scalar, Scatter, View

# ---------------------------------------------------------------------------- elementwise and linear


@bilinear(
    type=lambda a, b: Type(a.shape or b.shape, a.dtype),
    transposes=(lambda g, a, b: absorb(g, b), lambda g, a, b: absorb(g, a)),
    lower=Scalar(lambda b, x, y: b.absorb(x, y)),
    may_warn=True,
    exact=Exact(neutral=(1, 1), plain="multiply"),
)
def absorb(xp: Any, a: Any, b: Any) -> Any:
    """a·b, and 0 wherever either is 0, even against ∞ and NaN.

    Why: a path of slope 0 carries nothing, whatever stands at its end.
    """
    return xp.absorb(a, b)


def _choice_type(condition: Type, x: Type, y: Type) -> Type:
    """Result type of a choice between `x` and `y`; 0-d constants stand beside any shape."""
    shape = next((operand.shape for operand in (condition, x, y) if operand.shape), ())
    if any(operand.shape not in ((), shape) for operand in (condition, x, y)):
        raise ShapeError(
            f"where needs operands of one shape; got {condition.shape}, {x.shape} and {y.shape}. Use broadcast_to"
        )
    if x.dtype != y.dtype:
        raise DtypeError(f"where needs two sides of one dtype; got {x.dtype} and {y.dtype}. Use astype")
    return Type(shape, x.dtype)


@linear(
    type=_choice_type,
    transposes=(
        None,
        lambda g, condition, x, y: where(condition, g, 0),
        lambda g, condition, x, y: where(condition, 0, g),
    ),
    lower=Scalar(lambda b, condition, x, y: b.select(condition, x, y)),
)
def where(xp: Any, condition: Any, x: Any, y: Any) -> Any:
    """x where the condition is true, y elsewhere.  Why: the gradient goes to the side that was taken."""
    return xp.where(condition, x, y)


def _lossless(inner: Dtype, outer: Dtype) -> bool:
    """Whether every number of `inner` exists in `outer` (so that a cast there and on loses nothing)."""
    return bool(np.can_cast(inner, outer, "safe")) and not (inner.kind in "iu" and outer.kind == "f")


@linear(
    type=lambda x, *, dtype: Type(x.shape, dtype),
    transposes=(lambda g, x, *, dtype: cast(g, dtype=x.dtype),),
    lower=Scalar(lambda b, x, *, dtype: b.cast(x, dtype)),
    may_warn=True,
    exact=Exact(
        merge=lambda inner, outer, x: outer if _lossless(x.dtype, inner["dtype"]) else None,
        nothing=lambda x, *, dtype: dtype == x.dtype,
    ),
)
def cast(xp: Any, x: Any, *, dtype: Dtype) -> Any:
    """Change of dtype; NaN becomes the integer 0.  Why: the number stays, so the gradient is only cast back."""
    return xp.cast(x, dtype)


@linear(
    type=lambda x: x,
    transposes=(lambda g, x: g,),
    lower=Scalar(lambda b, x: x),
    exact=Exact(nothing=lambda x: True),
)
def positive(xp: Any, x: Any) -> Any:
    """x itself.  Why: nothing happens to the value, so nothing happens to the gradient."""
    return x


@elementwise(derivatives=(None,), lower=Scalar(lambda b, x: x), exact=Exact(nothing=lambda x: True))
def stop_gradient(xp: Any, x: Any) -> Any:
    """x, taken as a constant.  Why: it was declared a constant here, so no gradient passes."""
    return x


# ----------------------------------------------------------------------------------------------- shape


def _broadcast_type(x: Type, *, shape: tuple[int, ...]) -> Type:
    if shapes.broadcast_shapes("broadcast_to", x.shape, shape) != tuple(shape):
        raise ShapeError(f"broadcast_to cannot shrink; got {x.shape} to {tuple(shape)}. Use sum or reshape")
    return Type(tuple(shape), x.dtype)


def _unbroadcast(g: Any, x: Any, *, shape: tuple[int, ...]) -> Any:
    """Add up what was copied: the new axes, and those stretched from 1."""
    new = len(shape) - len(x.shape)
    stretched = [new + k for k, size in enumerate(x.shape) if size == 1 and shape[new + k] != 1]
    axes = (*range(new), *stretched)
    added = sum_(g, axes=axes, keepdims=False) if axes else g
    return reshape(added, shape=tuple(x.shape)) if stretched else added


def _broadcast_index(position: Sequence[Any], x: Type, out: Type, *, shape: tuple[int, ...]) -> list[Any]:
    new = len(out.shape) - len(x.shape)
    return [0 if size == 1 else position[new + k] for k, size in enumerate(x.shape)]


@linear(
    type=_broadcast_type,
    transposes=(_unbroadcast,),
    lower=View(_broadcast_index),
    exact=Exact(merge=lambda inner, outer, x: outer, nothing=lambda x, *, shape: tuple(shape) == x.shape),
)
def broadcast_to(xp: Any, x: Any, *, shape: tuple[int, ...]) -> Any:
    """x copied along new axes and along axes of size 1.  Why: one value used many times answers for all uses."""
    return xp.broadcast_to(x, shape)


def _sum_type(x: Type, *, axes: tuple[int, ...], keepdims: bool) -> Type:
    return Type(shapes.reduced(x.shape, shapes.check_axes("sum", axes, x), keepdims), x.dtype)


def _spread(g: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    kept = shapes.reduced(tuple(x.shape), axes, True)
    return broadcast_to(g if keepdims else reshape(g, shape=kept), shape=tuple(x.shape))


@linear(
    type=_sum_type,
    transposes=(_spread,),
    lower=Reduce(lambda b: b.constant(0), lambda b, total, x: b.add(total, x), grouped=True),
    may_warn=True,
)
def sum_(xp: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    """Sum along `axes`.  Why: every entry counts once, so each receives a copy of the gradient."""
    return xp.add_up(x, axes, keepdims)


def _permute_type(x: Type, *, axes: tuple[int, ...]) -> Type:
    if sorted(axes) != list(range(len(x.shape))):
        raise ShapeError(f"permute_dims needs each axis of {x.shape} once; got axes {tuple(axes)}")
    return Type(tuple(x.shape[axis] for axis in axes), x.dtype)


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    if axes == (1, 0):
        return axes
    return tuple(axes.index(axis) for axis in range(len(axes)))


@linear(
    type=_permute_type,
    transposes=(lambda g, x, *, axes: permute_dims(g, axes=_inverse(axes)),),
    lower=View(lambda position, x, out, *, axes: [position[k] for k in _inverse(axes)]),
    exact=Exact(
        merge=lambda inner, outer, x: {"axes": tuple(inner["axes"][k] for k in outer["axes"])},
        nothing=lambda x, *, axes: tuple(axes) == tuple(range(len(axes))),
    ),
)
def permute_dims(xp: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    """Axes in another order.  Why: the entries only change places, so the gradients change places back."""
    return xp.permute_dims(x, axes)


def _reshape_type(x: Type, *, shape: tuple[int, ...]) -> Type:
    if shapes.count(x.shape) != shapes.count(shape) or any(size < 0 for size in shape):
        raise ShapeError(
            f"reshape keeps the number of elements; got {x.shape} ({shapes.count(x.shape)}) "
            f"to {tuple(shape)} ({shapes.count(shape)})"
        )
    return Type(tuple(shape), x.dtype)


def _reshape_index(position: Sequence[Any], x: Type, out: Type, *, shape: tuple[int, ...]) -> list[Any]:
    flat: Any = 0
    for term, size in zip(position, out.shape):
        flat = flat * size + term
    index = []
    for size in reversed(x.shape):
        whole = size or 1  # of no elements none is read, so any place will do
        index.append(flat % whole)
        flat = flat // whole
    return index[::-1]


@linear(
    type=_reshape_type,
    transposes=(lambda g, x, *, shape: reshape(g, shape=tuple(x.shape)),),
    lower=View(_reshape_index),
    exact=Exact(merge=lambda inner, outer, x: outer, nothing=lambda x, *, shape: tuple(shape) == x.shape),
)
def reshape(xp: Any, x: Any, *, shape: tuple[int, ...]) -> Any:
    """The same entries in rows of another length.  Why: nothing is computed, so the gradient is only refolded."""
    return xp.reshape(x, shape)


Steps = tuple[int, ...]


def _slice_type(x: Type, *, starts: Steps, stops: Steps, steps: Steps) -> Type:
    lengths = (len(range(a, b, c)) for a, b, c in zip(starts, stops, steps))
    if any(a < 0 or b > size or c < 1 for a, b, c, size in zip(starts, stops, steps, x.shape)):
        raise ShapeError(f"slice needs ranges inside {x.shape}; got {starts} to {stops} by {steps}")
    return Type(tuple(lengths), x.dtype)


def _unslice(g: Any, x: Any, *, starts: Steps, stops: Steps, steps: Steps) -> Any:
    low, high = [], []
    for start, step, size, taken in zip(starts, steps, x.shape, g.shape):
        covered = (taken - 1) * step + 1 if taken else 0
        low.append(start if taken else 0)
        high.append(size - covered - low[-1])
    return pad(g, low=tuple(low), high=tuple(high), interior=tuple(step - 1 for step in steps))


@linear(
    type=_slice_type,
    transposes=(_unslice,),
    lower=View(
        lambda position, x, out, *, starts, stops, steps: [
            start + term * step for term, start, step in zip(position, starts, steps)
        ]
    ),
)
def slice_(xp: Any, x: Any, *, starts: Steps, stops: Steps, steps: Steps) -> Any:
    """A regular part of x.  Why: what was left out had no effect, so its gradient is 0."""
    return x[tuple(slice(a, b, c) for a, b, c in zip(starts, stops, steps))]


def _pad_type(x: Type, *, low: Steps, high: Steps, interior: Steps) -> Type:
    spread = (max(size + (size - 1) * gap, 0) for size, gap in zip(x.shape, interior))
    return Type(tuple(a + s + b for a, s, b in zip(low, spread, high)), x.dtype)


def _unpad(g: Any, x: Any, *, low: Steps, high: Steps, interior: Steps) -> Any:
    steps = tuple(gap + 1 for gap in interior)
    stops = tuple(a + (size - 1) * s + 1 if size else a for a, size, s in zip(low, x.shape, steps))
    return slice_(g, starts=low, stops=stops, steps=steps)


def _pad_element(
    b: Any, position: Any, operands: Any, out: Type, *, low: Steps, high: Steps, interior: Steps
) -> Any:
    """The operand's element where the position falls on one, 0 elsewhere."""
    (x,) = operands
    inside, places = b.true(), []
    for term, before, gap, size in zip(position, low, interior, x.type.shape):
        place, hit = b.strided(term, before, gap + 1, size)
        inside = b.bits("and", inside, hit)
        places.append(place)
    return b.select(inside, x(places), b.constant(0))


@linear(type=_pad_type, transposes=(_unpad,), lower=Gather(_pad_element))
def pad(xp: Any, x: Any, *, low: Steps, high: Steps, interior: Steps) -> Any:
    """x with zeros before, after and between.  Why: zeros do not depend on x; only its own places count."""
    return xp.pad(x, low, high, interior)


@linear(
    type=lambda x, *, axes: Type(x.shape, x.dtype),
    transposes=(lambda g, x, *, axes: flip(g, axes=axes),),
    lower=View(
        lambda position, x, out, *, axes: [
            x.shape[k] - 1 - term if k in axes else term for k, term in enumerate(position)
        ]
    ),
)
def flip(xp: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    """Entries in reverse order along `axes`.  Why: they only change places, so the gradients change back."""
    return xp.flip(x, axis=axes)


def _concat_type(*operands: Type, axis: int) -> Type:
    first = operands[0]
    rest = {operand.shape[:axis] + operand.shape[axis + 1 :] for operand in operands}
    if len(rest) > 1 or any(len(operand.shape) != len(first.shape) for operand in operands):
        raise ShapeError(
            f"concat needs shapes that are equal but for axis {axis}; got "
            f"{', '.join(str(operand.shape) for operand in operands)}"
        )
    total = sum(operand.shape[axis] for operand in operands)
    return Type((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype)


def _part_of(k: int, g: Any, *operands: Any, axis: int) -> Any:
    before = sum(operand.shape[axis] for operand in operands[:k])
    starts = [0] * len(g.shape)
    stops = list(g.shape)
    starts[axis], stops[axis] = before, before + operands[k].shape[axis]
    return slice_(g, starts=tuple(starts), stops=tuple(stops), steps=(1,) * len(starts))


def _concat_element(b: Any, position: Any, operands: Any, out: Type, *, axis: int) -> Any:
    """The element of the operand whose stretch the position is in."""
    result, start = None, 0
    for x in operands:
        size = x.type.shape[axis]
        if size:
            place, hit = b.strided(position[axis], start, 1, size)
            element = x([*position[:axis], place, *position[axis + 1 :]])
            result = element if result is None else b.select(hit, element, result)
            start += size
    return result


@linear(type=_concat_type, transpose=_part_of, lower=Gather(_concat_element))
def concat(xp: Any, *operands: Any, axis: int) -> Any:
    """Arrays joined along `axis`.  Why: each keeps its own stretch of the result, and gets that stretch back."""
    return xp.concat(operands, axis=axis)


# -------------------------------------------------------------------------------------------- indexing


def _take_type(x: Type, indices: Type, *, axis: int) -> Type:
    shapes.check_axis("take", axis, x)
    if indices.dtype.kind not in "iu":
        raise DtypeError(f"take needs whole numbers as indices; got {indices.dtype}. Use astype(int64)")
    return Type(x.shape[:axis] + indices.shape + x.shape[axis + 1 :], x.dtype)


def _take_element(b: Any, position: Any, operands: Any, out: Type, *, axis: int) -> Any:
    x, indices = operands
    after = axis + len(indices.type.shape)
    chosen = b.index(indices(position[axis:after]), x.type.shape[axis])
    return x([*position[:axis], chosen, *position[after:]])


@linear(
    type=_take_type,
    transposes=(
        lambda g, x, indices, *, axis: scatter_add(g, indices, axis=axis, size=x.shape[axis]),
        None,
    ),
    bounds=(1, lambda x, indices, *, axis: x.shape[axis]),
    lower=Gather(_take_element),
)
def take(xp: Any, x: Any, indices: Any, *, axis: int) -> Any:
    """Entries at `indices` along `axis`.  Why: an entry read several times answers for every reading."""
    return xp.take(x, indices, axis)


def _scatter_type(updates: Type, indices: Type, *, axis: int, size: int) -> Type:
    after = axis + len(indices.shape)
    if updates.shape[axis:after] != indices.shape:
        raise ShapeError(f"scatter_add needs updates for each index; got {updates.shape} and {indices.shape}")
    return Type((*updates.shape[:axis], size, *updates.shape[after:]), updates.dtype)


def _scatter_place(b: Any, position: Any, operands: Any, out: Type, *, axis: int, size: int) -> Any:
    after = axis + len(operands[1].type.shape)
    return [*position[:axis], b.index(operands[1](position[axis:after]), size), *position[after:]]


@linear(
    type=_scatter_type,
    transposes=(lambda g, updates, indices, *, axis, size: take(g, indices, axis=axis), None),
    bounds=(1, lambda updates, indices, *, axis, size: size),
    may_warn=True,
    lower=Scatter(_scatter_place),
)
def scatter_add(xp: Any, updates: Any, indices: Any, *, axis: int, size: int) -> Any:
    """Zeros with `updates` added at `indices`.  Why: each update lands in one place and hears from there."""
    return xp.scatter_add(updates, indices, axis, size)


def _take_along_type(x: Type, indices: Type) -> Type:
    if not x.shape or x.shape[:-1] != indices.shape[:-1]:
        raise ShapeError(f"take_along needs indices for each row; got {x.shape} and {indices.shape}")
    if indices.dtype.kind not in "iu":
        raise DtypeError(f"take_along needs whole numbers as indices; got {indices.dtype}. Use astype(int64)")
    return Type(indices.shape, x.dtype)


def _take_along_element(b: Any, position: Any, operands: Any, out: Type) -> Any:
    x, indices = operands
    return x([*position[:-1], b.index(indices(position), x.type.shape[-1])])


@linear(
    type=_take_along_type,
    transposes=(lambda g, x, indices: scatter_along(g, indices, size=x.shape[-1]), None),
    bounds=(1, lambda x, indices: x.shape[-1]),
    lower=Gather(_take_along_element),
)
def take_along(xp: Any, x: Any, indices: Any) -> Any:
    """From each row the entries at that row's `indices`.  Why: only what was picked had an effect."""
    return xp.take_along(x, indices)


def _scatter_along_type(updates: Type, indices: Type, *, size: int) -> Type:
    if updates.shape != indices.shape or not updates.shape:
        raise ShapeError(
            f"scatter_along needs one index for each update; got {updates.shape} and {indices.shape}"
        )
    return Type((*updates.shape[:-1], size), updates.dtype)


def _scatter_along_place(b: Any, position: Any, operands: Any, out: Type, *, size: int) -> Any:
    return [*position[:-1], b.index(operands[1](position), size)]


@linear(
    type=_scatter_along_type,
    transposes=(lambda g, updates, indices, *, size: take_along(g, indices), None),
    bounds=(1, lambda updates, indices, *, size: size),
    may_warn=True,
    lower=Scatter(_scatter_along_place),
)
def scatter_along(xp: Any, updates: Any, indices: Any, *, size: int) -> Any:
    """Rows of zeros with each row's `updates` added at its `indices`.  Why: each update hears from its place."""
    return xp.scatter_along(updates, indices, size)


def _put_type(x: Type, indices: Type, values: Type) -> Type:
    if len(x.shape) != 1 or indices.shape != values.shape or len(indices.shape) != 1:
        raise ShapeError(f"put needs vectors; got {x.shape}, {indices.shape} and {values.shape}")
    return x


def _zeros(like: Any, dtype: Dtype) -> Any:
    """Zeros in the shape of a vector."""
    return cast(less(arange_like(like), 0), dtype=dtype)


def _last_writer(g: Any, x: Any, indices: Any, values: Any) -> Any:
    """The cotangent of the values: of those written to one place only the last has had an effect."""
    order = arange_like(indices)
    owner = take(put(arange_like(g), indices, order), indices, axis=0)
    return where(equal(owner, order), take(g, indices, axis=0), 0)


def _put_place(b: Any, position: Any, operands: Any, out: Type) -> Any:
    return [b.index(operands[1](position), out.shape[0])]


@linear(
    type=_put_type,
    transposes=(lambda g, x, indices, values: put(g, indices, _zeros(indices, g.dtype)), None, _last_writer),
    bounds=(1, lambda x, indices, values: x.shape[0]),
    lower=Scatter(_put_place, source=2, start=0),
)
def put(xp: Any, x: Any, indices: Any, values: Any) -> Any:
    """A vector with `values` written at `indices`.  Why: what was overwritten no longer has an effect."""
    return xp.put(x, indices, values)


@linear(
    type=lambda x: Type(x.shape, int64),
    transposes=(None,),
    lower=Gather(lambda b, position, operands, out: b.number(position[0])),
)
def arange_like(xp: Any, x: Any) -> Any:
    """0, 1, 2 … for each entry of a vector.  Why: counting does not depend on the entries."""
    return xp.arange(x.shape[0], dtype=int64)


@linear(
    type=lambda x, *, axis: x,
    transposes=(lambda g, x, *, axis: flip(cumulative_sum(flip(g, axes=(axis,)), axis=axis), axes=(axis,)),),
    may_warn=True,
    lower=Running(lambda b: b.constant(0), lambda b, total, x: b.add(total, x)),
)
def cumulative_sum(xp: Any, x: Any, *, axis: int) -> Any:
    """Running total along `axis`.  Why: an entry is part of every later total, so it hears from all of them."""
    return xp.cumulative_sum(x, axis=axis, dtype=x.dtype)


# -------------------------------------------------------------------------------------------- products


def _matmul_type(x: Type, y: Type) -> Type:
    if len(x.shape) < 2 or len(y.shape) < 2 or x.shape[-1] != y.shape[-2]:
        raise ShapeError(
            f"matmul needs x.shape[-1] == y.shape[-2]; got {x.shape} and {y.shape}. {_matmul_hint(x, y)}"
        )
    if x.shape[:-2] != y.shape[:-2]:
        raise ShapeError(f"matmul needs equal batch axes; got {x.shape} and {y.shape}. Use broadcast_to")
    if x.dtype != y.dtype:
        raise DtypeError(f"matmul needs one dtype; got {x.dtype.name} and {y.dtype.name}. Use astype")
    return Type((*x.shape[:-1], y.shape[-1]), x.dtype)


def _matmul_hint(x: Type, y: Type) -> str:
    """A transposition that makes the product possible, if there is one."""
    if len(x.shape) >= 2 and len(y.shape) >= 2:
        if x.shape[-1] == y.shape[-1]:
            return "Did you mean y.T?"
        if x.shape[-2] == y.shape[-2]:
            return "Did you mean x.T?"
        if y.shape[-1] == x.shape[-2]:
            return "Did you mean y @ x?"
    return "Reshape one of them"


def transposed(x: Any) -> Any:
    """The last two axes exchanged."""
    last = len(x.shape)
    return permute_dims(x, axes=(1, 0) if last == 2 else (*range(last - 2), last - 1, last - 2))


@bilinear(
    type=_matmul_type,
    transposes=(
        lambda g, x, y: matmul(g, transposed(y)),
        lambda g, x, y: matmul(transposed(x), g),
    ),
    lower=Contraction(
        inner=lambda x, y: (x.shape[-1],),
        places=lambda at, along, x, y: ([*at[:-1], *along], [*at[:-2], *along, at[-1]]),
        turns=True,
    ),
    cost="costly",
    may_warn=True,
)
def matmul(xp: Any, x: Any, y: Any) -> Any:
    """Matrix product over the last two axes.

    Why: a weight meets every row that it multiplied, so the gradient is again a product, with the other
    factor transposed; the sum over the batch is part of it.
    """
    return xp.matmul(x, y)


# ------------------------------------------------------------------------------- reductions that select


def _extreme_type(x: Type, *, axes: tuple[int, ...], keepdims: bool) -> Type:
    checked = shapes.check_axes("max", axes, x)
    if any(x.shape[axis] == 0 for axis in checked):
        raise ShapeError(f"the largest of no elements is undefined; got shape {x.shape}, axes {checked}")
    return Type(shapes.reduced(x.shape, checked, keepdims), x.dtype)


def _winners(out: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    """1 at the extreme element; ties share it equally."""
    hits = cast(equal(x, _spread(out, x, axes=axes, keepdims=keepdims)), dtype=x.dtype)
    return hits / _spread(sum_(hits, axes=axes, keepdims=keepdims), x, axes=axes, keepdims=keepdims)


@selection(
    type=_extreme_type,
    weights=_winners,
    lower=Reduce(lambda b: b.lowest(), lambda b, best, x: b.maximum(best, x)),
)
def reduce_max(xp: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    """Largest entry along `axes`; NaN if there is one.  Why: only the winner counts; ties share equally."""
    return xp.largest(x, axes, keepdims)


@selection(
    type=_extreme_type,
    weights=_winners,
    lower=Reduce(lambda b: b.highest(), lambda b, best, x: b.minimum(best, x)),
)
def reduce_min(xp: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    """Smallest entry along `axes`; NaN if there is one.  Why: only the winner counts; ties share equally."""
    return xp.smallest(x, axes, keepdims)


from .discrete import equal, less  # noqa: E402
