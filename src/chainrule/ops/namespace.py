"""`xp` for NumPy: the array API names, and the few functions that array libraries do differently.

Each function below is part of the meaning of an operation, so what it does at the edges (integer division
by zero, shifts beyond the width, NaN to integer) is decided here and holds in every engine.
"""

from __future__ import annotations

import math
import types
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..graph import state
from ..operations import Array
from .totals import FEW_RESULTS, SHORT_COMMON, kept_in, running_in

# So long a part of a common axis is multiplied in one call of BLAS, whose products of matrices add up in blocks.
_COMMON = 1 << 16

# Up to this many elements a NumPy call costs more than its work, so the call that starts fastest is taken.
_SHORT = 4096

# Up to so many entries each, stretches are reduced side by side.
_FEW = 16


class quiet:
    """Context with floating-point warnings off: NaN and infinity are values here, reported by other means.

    Sections nest at no cost, so a composite function pays once for all its operations.
    """

    __slots__ = ("_errors",)

    def __enter__(self) -> None:
        self._errors = None if state.quiet else np.errstate(all="ignore")
        if self._errors is not None:
            self._errors.__enter__()
            state.quiet = True

    def __exit__(self, *_: object) -> None:
        if self._errors is not None:
            state.quiet = False
            self._errors.__exit__(None, None, None)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e⁻ˣ) without overflow on either side."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


_erf = np.frompyfunc(math.erf, 1, 1)
# NumPy's stubs do not know `keepdims` as a variable.
_sum: Any = np.add.reduce
_max: Any = np.maximum.reduce
_min: Any = np.minimum.reduce


def erf(x: Any) -> Any:
    """The error function, by the C library (NumPy has none)."""
    return np.asarray(_erf(x), x.dtype)  # of a 0-d array frompyfunc gives a Python float


def add_up(x: Any, axis: Any, keepdims: bool) -> Any:
    """Sum along `axis`; long float32 sums are kept in float64."""
    wide = kept_in(x.dtype, _terms(x, axis))
    if not x.flags.c_contiguous and _few(x, axis):
        return _folded(np.add, x, axis, keepdims, wide).astype(x.dtype, copy=False)
    total = _sum(x, axis, dtype=wide, keepdims=keepdims)
    return total if wide == x.dtype else total.astype(x.dtype)


def _terms(x: Any, axis: Any) -> int:
    """How many entries make one sum."""
    if axis is None:
        return int(x.size)
    return math.prod([x.shape[k] for k in (axis if isinstance(axis, tuple) else (axis,))])


def _few(x: Any, axes: Any) -> bool:
    """Whether many short stretches at the end of x are reduced, such as windows: NumPy does them one by one."""
    if (
        not isinstance(axes, tuple)
        or x.size <= _SHORT
        or tuple(axes) != tuple(range(x.ndim - len(axes), x.ndim))
    ):
        return False
    return bool(1 < math.prod(x.shape[x.ndim - len(axes) :]) <= _FEW)


def _folded(combine: Any, x: Any, axes: tuple[int, ...], keepdims: bool, dtype: Any) -> Any:
    """A reduction of the last axes, for all stretches at once: entry after entry."""
    first, *rest = np.ndindex(*x.shape[x.ndim - len(axes) :])
    out = x[(..., *first)].astype(dtype)
    for place in rest:
        combine(out, x[(..., *place)], out=out)
    return out.reshape(*out.shape, *(1 for _ in axes)) if keepdims else out


def cumulative_sum(x: Any, axis: int, dtype: Any) -> Any:
    """Running total along `axis`; float32 totals are kept in float64."""
    return np.add.accumulate(x, axis, dtype=running_in(x.dtype)).astype(dtype, copy=False)


def matmul(x: Any, y: Any) -> Any:
    """Matrix product over the last two axes; a long common axis is cut into parts, and those are added up."""
    common, results = x.shape[-1], x.shape[-2] * y.shape[-1]
    if x.dtype.kind != "f" or common <= (2 * SHORT_COMMON if results <= FEW_RESULTS else _COMMON):
        return np.matmul(x, y)
    if results <= FEW_RESULTS:
        many = common // SHORT_COMMON
        cut = many * SHORT_COMMON
        left = x[..., :cut].reshape(*x.shape[:-1], many, SHORT_COMMON).swapaxes(-2, -3)
        right = y[..., :cut, :].reshape(*y.shape[:-2], many, SHORT_COMMON, y.shape[-1])
        parts = [np.matmul(left, right).sum(-3, dtype=np.float64), np.matmul(x[..., cut:], y[..., cut:, :])]
    else:
        starts = range(0, common, _COMMON)
        parts = [np.matmul(x[..., k : k + _COMMON], y[..., k : k + _COMMON, :]) for k in starts]
    total = parts[0].astype(np.float64)
    for part in parts[1:]:
        total += part
    return total.astype(x.dtype, copy=False)


def absorb(a: Any, b: Any) -> Any:
    """a·b, but 0 wherever a or b is 0, even against infinity and NaN."""
    product = a * b
    # Only a NaN can differ from the plain product; a sum (of squares, for short ones) shows that there is none.
    short = product.size <= _SHORT
    total = np.vdot(product, product) if short else np.add.reduce(product, None)
    if total == total:  # noqa: PLR0124
        return product
    rescued = np.isnan(product) & ((a == 0) | (b == 0))
    if not rescued.any():
        return product
    _count_rescues(int(np.count_nonzero(rescued)))
    return np.where(rescued, np.zeros((), product.dtype), product)


class Rescue(NamedTuple):
    """Gradients that the strong zero has kept from becoming NaN: which operation, on which line, how many."""

    operation: str
    line: str
    elements: int


_rescues: Counter[tuple[str, str]] = Counter()


def _count_rescues(elements: int) -> None:
    node = state.gradient_of
    if node is not None:
        _rescues[node.operation.name, str(node.origin or "")] += elements


def rescues(reset: bool = False) -> list[Rescue]:
    """Where 0 · ∞ or 0 · NaN came up in a backward or forward walk and was taken as 0; most first.

    reset: start counting anew afterwards.

    >>> import chainrule as cr
    >>> _ = cr.rescues(reset=True)
    >>> x = cr.tensor(0.0, requires_grad=True)
    >>> cr.where(x > 0, cr.sqrt(x), 0.0).backward()
    >>> cr.rescues()[0].operation, x.grad.item()
    ('sqrt', 0.0)
    """
    found = [Rescue(name, line, count) for (name, line), count in _rescues.most_common()]
    if reset:
        _rescues.clear()
    return found


def cast(x: Any, dtype: Any) -> Any:
    """Change of dtype. Float to integer truncates, saturates at the ends, and sends NaN to 0."""
    if x.dtype.kind == "f" and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        low, high = x.dtype.type(limits.min), x.dtype.type(limits.max)
        inside = np.where((x > low) & (x < high), x, 0).astype(dtype)
        return np.where(x >= high, limits.max, np.where(x <= low, limits.min, inside)).astype(dtype)
    return x.astype(dtype)


def floor_divide(x: Any, y: Any) -> Any:
    """⌊x / y⌋. Integers: x // 0 is 0, and the most negative number // −1 wraps around.

    Floats as the array API standard has it: where an operand is infinite it is x / y itself, so ∞ // 2 is ∞ and
    1 // −∞ is −0.
    """
    if x.dtype.kind != "f":
        return np.floor_divide(x, y)
    return np.where(np.isinf(x) | np.isinf(y), x / y, np.floor_divide(x, y))


def remainder(x: Any, y: Any) -> Any:
    """x − y·⌊x / y⌋, with the sign of y. Integers: the remainder by 0 is 0."""
    return np.remainder(x, y)


def shift_left(x: Any, y: Any) -> Any:
    """x · 2ʸ in integers; 0 when y is negative or not below the width."""
    width = x.dtype.itemsize * 8
    inside = (y >= 0) & (y < width)
    return np.where(inside, np.left_shift(x, np.where(inside, y, 0)), 0).astype(x.dtype)


def shift_right(x: Any, y: Any) -> Any:
    """⌊x / 2ʸ⌋ in integers; the sign alone is left when y is negative or not below the width."""
    width = x.dtype.itemsize * 8
    return (
        np.right_shift(x, np.where((y >= 0) & (y < width), y, width - 1).astype(x.dtype))
        if (x.dtype.kind == "i")
        else np.where(y < width, np.right_shift(x, np.minimum(y, width - 1)), 0).astype(x.dtype)
    )


def power(x: Any, y: Any) -> Any:
    """xʸ. Integers with a negative exponent: 0, but 1 and −1 keep their powers."""
    if x.dtype.kind not in "iu":
        return np.power(x, y)
    sign = np.where((y % 2 == 0) | (x == 1), 1, -1)
    return np.where(y >= 0, np.power(x, np.maximum(y, 0)), np.where(np.abs(x) == 1, sign, 0)).astype(x.dtype)


def permute_dims(x: Any, axes: tuple[int, ...]) -> Any:
    """Axes in another order (the method: NumPy's function costs four times as much)."""
    return x.transpose(axes)


def reshape(x: Any, shape: tuple[int, ...]) -> Any:
    """The same entries in another shape (the method: NumPy's function costs four times as much)."""
    return x.reshape(shape)


def broadcast_to(x: Any, shape: tuple[int, ...]) -> Any:
    """x copied to `shape`; a view where the copy would be long."""
    if math.prod(shape) > _SHORT:
        return np.broadcast_to(x, shape)
    out = np.empty(shape, x.dtype)
    out[...] = x
    return out


def largest(x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """Largest entry along `axes`; NaN if there is one."""
    if _few(x, axes):
        return _folded(np.maximum, x, axes, keepdims, x.dtype)
    return _max(x, axes, keepdims=keepdims)


def smallest(x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """Smallest entry along `axes`; NaN if there is one."""
    if _few(x, axes):
        return _folded(np.minimum, x, axes, keepdims, x.dtype)
    return _min(x, axes, keepdims=keepdims)


def pad(x: Any, low: tuple[int, ...], high: tuple[int, ...], interior: tuple[int, ...]) -> Any:
    """Zeros before, after and between the elements of each axis."""
    spread = [max(size + (size - 1) * gap, 0) for size, gap in zip(x.shape, interior)]
    out = np.zeros([a + s + b for a, s, b in zip(low, spread, high)], x.dtype)
    out[tuple(slice(a, a + s, gap + 1) for a, s, gap in zip(low, spread, interior))] = x
    return out


def take(x: Any, indices: Any, axis: int) -> Any:
    """Elements of `x` at `indices` along `axis`; negative indices count from the end."""
    return np.take(x, _signed(indices), axis=axis)


def _signed(indices: Any) -> Any:
    """Indices that NumPy accepts: beyond int64 they are out of every range, and must stay so."""
    if indices.dtype != np.uint64:
        return indices
    return np.minimum(indices, np.uint64(np.iinfo(np.int64).max)).astype(np.int64)


def from_front(indices: Any, size: int) -> Any:
    """Indices counted from the front, as int64; raises IndexError outside −size … size − 1."""
    whole = _signed(indices).astype(np.int64)
    if whole.size and not (-size <= whole.min() and whole.max() < size):
        raise IndexError(f"index {whole.min()} to {whole.max()} is out of bounds for size {size}")
    return np.where(whole < 0, whole + size, whole)


def _add_flat(shape: tuple[int, ...], positions: Any, updates: Any) -> Any:
    """Zeros of `shape` with `updates` added at flat positions (NumPy is several times faster in one dimension)."""
    out = np.zeros(math.prod(shape), updates.dtype)
    np.add.at(out, positions.reshape(-1), updates.reshape(-1))
    return out.reshape(shape)


def scatter_add(updates: Any, indices: Any, axis: int, size: int) -> Any:
    """Zeros with `updates` added at `indices` along `axis` (repeated indices add up)."""
    before, after = updates.shape[:axis], updates.shape[axis + indices.ndim :]
    places = from_front(indices, size).reshape(1, -1, 1)
    rows = np.arange(math.prod(before)).reshape(-1, 1, 1)
    entries = math.prod(after)
    positions = (rows * size + places) * entries + np.arange(entries)
    return _add_flat((*before, size, *after), positions, updates)


def take_along(x: Any, indices: Any) -> Any:
    """Entries at `indices` along the last axis, row by row; negative indices count from the end."""
    if not indices.size:
        return np.zeros(indices.shape, x.dtype)
    flat = _signed(indices).reshape(-1, indices.shape[-1])
    rows = np.arange(flat.shape[0]).reshape(-1, 1)
    return x.reshape(-1, x.shape[-1])[rows, flat].reshape(indices.shape)


def scatter_along(updates: Any, indices: Any, size: int) -> Any:
    """Zeros with `updates` added at `indices` along the last axis, row by row."""
    shape = (*updates.shape[:-1], size)
    if not updates.size:
        return np.zeros(shape, updates.dtype)
    if indices.shape[-1] == 1:  # one to a row, as the labels of a loss: nothing meets, nothing adds up
        out = np.zeros((updates.size, size), updates.dtype)
        out[np.arange(updates.size), _signed(indices).reshape(-1)] = updates.reshape(-1)
        return out.reshape(shape)
    places = from_front(indices, size).reshape(-1, indices.shape[-1])
    return _add_flat(shape, np.arange(places.shape[0]).reshape(-1, 1) * size + places, updates)


def put(x: Any, indices: Any, values: Any) -> Any:
    """A copy of the one-dimensional `x` with `values` at `indices`; of repeated indices the last wins."""
    out = x.copy()
    out[indices] = values
    return out


def window(x: Any, sizes: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...]) -> Any:
    """Windows over the last axes as a view: (…, *places, *sizes)."""
    first = x.ndim - len(sizes)
    lead, steps = x.shape[:first], x.strides[first:]
    places = [
        (size - gap * (window - 1) - 1) // step + 1
        for size, window, step, gap in zip(x.shape[first:], sizes, strides, dilation)
    ]
    return np.lib.stride_tricks.as_strided(
        x,
        (*lead, *places, *sizes),
        (
            *x.strides[:first],
            *(one * step for one, step in zip(steps, strides)),
            *(one * gap for one, gap in zip(steps, dilation)),
        ),
        writeable=False,
    )


def fold(x: Any, shape: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...]) -> Any:
    """Windows (…, *places, *sizes) added up where they lie in `shape`: one slice at a time."""
    spatial = len(shape)
    lead = x.shape[: x.ndim - 2 * spatial]
    places, sizes = x.shape[len(lead) : len(lead) + spatial], x.shape[len(lead) + spatial :]
    out = np.zeros((*lead, *shape), x.dtype)
    # Few long additions: over the offsets of a window, or over the windows if they are fewer.
    by_offset = math.prod(sizes) <= math.prod(places)
    near, far, jumps, gaps = (
        (sizes, places, dilation, strides) if by_offset else (places, sizes, strides, dilation)
    )
    for place in np.ndindex(*near):
        inside: Any = tuple(
            slice(at * jump, at * jump + (many - 1) * gap + 1, gap)
            for at, jump, many, gap in zip(place, jumps, far, gaps)
        )
        part = x[(..., *place)] if by_offset else x[(..., *place, *(slice(None) for _ in sizes))]
        out[(..., *inside)] += part
    return out


# So many numbers of a matrix of windows are laid out at a time: enough for a good product, few enough to stay near
# the processor. And so many columns the product has at least, if there are as many.
_WINDOWS_AT_ONCE = 1 << 21
_COLUMNS = 512


def conv(x: Any, w: Any, strides: tuple[int, ...], dilation: tuple[int, ...], groups: int) -> Any:
    """Cross-correlation of x (N, C, *spatial) with w (O, C/groups, *kernel): windows side by side, then products."""
    (batch, _, *inside), (outputs, channels, *kernel) = x.shape, w.shape
    windows = window(x.reshape(batch, groups, channels, *inside), tuple(kernel), strides, dilation)
    spatial = len(kernel)
    places = windows.shape[3 : 3 + spatial]
    many, each = math.prod(places), math.prod(kernel)
    out = np.zeros((batch, outputs, *places), np.result_type(x, w))
    if not out.size:
        return out
    weights = w.reshape(groups, outputs // groups, channels, each)
    # The longer of both rows is copied in one go; a product reads the matrix along either side.
    along_places = places[-1] >= kernel[-1]
    at, of = range(3, 3 + spatial), range(3 + spatial, 3 + 2 * spatial)
    order = (1, 2, *of, 0, *at) if along_places else (1, 0, *at, 2, *of)
    rows = max(-(-_COLUMNS // many), _WINDOWS_AT_ONCE // max(groups * channels * each * many, 1))
    depth = max(1, _WINDOWS_AT_ONCE // (groups * min(rows, batch) * many * each))
    for start in range(0, batch, rows):
        result = out[start : start + rows]
        columns = len(result) * many
        for first in range(0, channels, depth):
            part = windows[start : start + rows, :, first : first + depth].transpose(order)
            factor = weights[:, :, first : first + depth].reshape(groups, outputs // groups, -1)
            matrix = (
                part.reshape(groups, -1, columns) if along_places
                else part.reshape(groups, columns, -1).swapaxes(1, 2)
            )  # fmt: skip
            found = np.matmul(factor, matrix).reshape(outputs, len(result), *places)
            result += found.swapaxes(0, 1)
    return out


def scan(
    step: Any,
    carries: Sequence[Any],
    entries: Sequence[Any],
    length: int,
    reverse: bool,
    stacks: Sequence[Any],
) -> tuple[Any, ...]:
    """The last carries, then what each of `length` steps gives besides, stacked in arrays of the types `stacks`.

    `step(carries, entries)` gives both; reverse: from the last entries to the first.
    """
    state = list(carries)
    out = [np.empty((length, *one.shape), one.dtype) for one in stacks]
    for time in reversed(range(length)) if reverse else range(length):
        state, given = step(state, [one[time] for one in entries])
        for stack, value in zip(out, given):
            stack[time] = value
    return (*map(np.asarray, state), *out)


_EXTRAS = {
    function.__name__: function
    for function in (
        broadcast_to, permute_dims, reshape, largest, smallest, sigmoid, erf, add_up, cumulative_sum, matmul,
        absorb, cast, floor_divide, remainder, shift_left, shift_right, power, pad, take, scatter_add, take_along,
        scatter_along, from_front, put, window, fold, conv, scan,
    )
}  # fmt: skip


class _Namespace(types.SimpleNamespace):
    """The extras, and NumPy for every other name."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        setattr(self, name, function)
        return function


NUMPY = _Namespace(**_EXTRAS)
"""The namespace that the interpreter passes to every body."""

__all__ = ["NUMPY", "Array", "quiet"]
