"""`xp` for JAX: the same functions as `ops/namespace.py` has for NumPy, with the same answers at the edges.

What XLA leaves open (indices outside their range, division of integers by 0, the order of writes to one place) is
decided as there. JAX itself is handed in: this module loads nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ops.totals import FEW_RESULTS, SHORT_COMMON

# Up to so many slices are written side by side; more are one gather or one scatter.
_MOST_SLICES = 64

Steps = tuple[int, ...]
Step = Callable[[Sequence[Any], Sequence[Any]], tuple[Sequence[Any], Sequence[Any]]]


class JaxNamespace:
    """The namespace for the bodies of operations; every name that is not here is `jax.numpy`'s."""

    def __init__(self, jax: Any) -> None:
        self._jax = jax
        self._numpy = jax.numpy
        self._lax = jax.lax

    def __getattr__(self, name: str) -> Any:
        return getattr(self._numpy, name)

    # ------------------------------------------------------------------------------- elementwise

    def sigmoid(self, x: Any) -> Any:
        """1 / (1 + e⁻ˣ) without overflow on either side."""
        small = self._numpy.exp(-self._numpy.abs(x))
        return self._numpy.where(x >= 0, 1, small) / (1 + small)

    def erf(self, x: Any) -> Any:
        """The error function."""
        return self._lax.erf(self._numpy.asarray(x))

    def absorb(self, a: Any, b: Any) -> Any:
        """a·b, but 0 wherever a or b is 0, even against infinity and NaN."""
        product = self._numpy.multiply(a, b)
        rescued = self._numpy.isnan(product) & ((a == 0) | (b == 0))
        return self._numpy.where(rescued, 0, product)

    def cast(self, x: Any, dtype: Any) -> Any:
        """Change of dtype. Float to integer truncates, saturates at the ends, and sends NaN to 0."""
        jnp = self._numpy
        if x.dtype.kind == "f" and dtype.kind in "iu":
            limits = np.iinfo(dtype)
            low, high = x.dtype.type(limits.min), x.dtype.type(limits.max)
            inside = jnp.where((x > low) & (x < high), x, 0).astype(dtype)
            least, most = np.asarray(limits.min, dtype), np.asarray(limits.max, dtype)
            return jnp.where(x >= high, most, jnp.where(x <= low, least, inside))
        return jnp.asarray(x).astype(dtype)

    def floor_divide(self, x: Any, y: Any) -> Any:
        """⌊x / y⌋. Integers: x // 0 is 0; floats: where an operand is infinite it is x / y itself."""
        jnp = self._numpy
        if x.dtype.kind != "f":
            return jnp.where(y == 0, 0, jnp.floor_divide(x, jnp.where(y == 0, 1, y)))
        # NumPy's own steps (npy_floor_divide in its math library): first the exact remainder, then the quotient.
        rest = self._lax.rem(*self._pair(x, y))
        near = (x - rest) / y
        near = jnp.where((rest != 0) & ((y < 0) != (rest < 0)), near - 1, near)
        whole = jnp.floor(near)
        whole = jnp.where(near - whole > 0.5, whole + 1, whole)
        whole = jnp.where(near == 0, jnp.copysign(jnp.zeros((), near.dtype), x / y), whole)
        return jnp.where((y == 0) | jnp.isinf(x) | jnp.isinf(y), x / y, whole)

    def remainder(self, x: Any, y: Any) -> Any:
        """x − y·⌊x / y⌋, with the sign of y. Integers: the remainder by 0 is 0."""
        jnp = self._numpy
        if x.dtype.kind != "f":
            return jnp.where(y == 0, 0, jnp.remainder(x, jnp.where(y == 0, 1, y)))
        rest = self._lax.rem(*self._pair(x, y))
        turned = jnp.where((rest != 0) & ((y < 0) != (rest < 0)), rest + y, rest)
        return jnp.where(rest == 0, jnp.copysign(jnp.zeros((), rest.dtype), y), turned)

    def _pair(self, x: Any, y: Any) -> tuple[Any, ...]:
        """Both in one shape, for functions that do not broadcast."""
        return tuple(self._numpy.broadcast_arrays(x, y))

    def shift_left(self, x: Any, y: Any) -> Any:
        """x · 2ʸ in integers; 0 when y is negative or not below the width."""
        jnp = self._numpy
        inside = (y >= 0) & (y < x.dtype.itemsize * 8)
        return jnp.where(inside, jnp.left_shift(x, jnp.where(inside, y, 0)), 0).astype(x.dtype)

    def shift_right(self, x: Any, y: Any) -> Any:
        """⌊x / 2ʸ⌋ in integers; the sign alone is left when y is negative or not below the width."""
        jnp, width = self._numpy, x.dtype.itemsize * 8
        if x.dtype.kind == "i":
            return jnp.right_shift(x, jnp.where((y >= 0) & (y < width), y, width - 1).astype(x.dtype))
        return jnp.where(y < width, jnp.right_shift(x, jnp.minimum(y, width - 1)), 0).astype(x.dtype)

    def power(self, x: Any, y: Any) -> Any:
        """xʸ. Integers with a negative exponent: 0, but 1 and −1 keep their powers."""
        jnp = self._numpy
        if x.dtype.kind not in "iu":
            return jnp.power(x, y)
        if x.dtype.kind == "u":
            return jnp.power(x, y)
        sign = jnp.where((y % 2 == 0) | (x == 1), 1, -1)
        small = jnp.where(jnp.abs(x) == 1, sign, 0)
        return jnp.where(y >= 0, jnp.power(x, jnp.maximum(y, 0)), small).astype(x.dtype)

    def floor(self, x: Any) -> Any:
        """Largest integer not above x; integers stay."""
        return self._numpy.floor(x) if x.dtype.kind == "f" else x

    def ceil(self, x: Any) -> Any:
        """Smallest integer not below x; integers stay."""
        return self._numpy.ceil(x) if x.dtype.kind == "f" else x

    def trunc(self, x: Any) -> Any:
        """x without its fraction; integers stay."""
        return self._numpy.trunc(x) if x.dtype.kind == "f" else x

    def round(self, x: Any) -> Any:
        """Nearest integer, halves to even; integers stay."""
        return self._numpy.round(x) if x.dtype.kind == "f" else x

    # ------------------------------------------------------------------------------- shapes

    def permute_dims(self, x: Any, axes: Steps) -> Any:
        """Axes in another order."""
        return self._numpy.transpose(x, axes)

    def reshape(self, x: Any, shape: Steps) -> Any:
        """The same entries in another shape."""
        return self._numpy.reshape(x, shape)

    def pad(self, x: Any, low: Steps, high: Steps, interior: Steps) -> Any:
        """Zeros before, after and between the elements of each axis."""
        zero = self._numpy.zeros((), x.dtype)
        return self._lax.pad(self._numpy.asarray(x), zero, list(zip(low, high, interior)))

    # ------------------------------------------------------------------------------- sums, extremes, products

    def add_up(self, x: Any, axis: Any, keepdims: bool) -> Any:
        """Sum along `axis`. XLA adds up in a tree, so a long float32 sum needs no wider type."""
        return self._numpy.sum(x, axis, dtype=x.dtype, keepdims=keepdims)

    def cumulative_sum(self, x: Any, axis: int, dtype: Any) -> Any:
        """Running total along `axis`."""
        return self._numpy.cumsum(x, axis, dtype=dtype)

    def largest(self, x: Any, axes: Steps, keepdims: bool) -> Any:
        """Largest entry along `axes`; NaN if there is one."""
        return self._numpy.max(x, axes, keepdims=keepdims)

    def smallest(self, x: Any, axes: Steps, keepdims: bool) -> Any:
        """Smallest entry along `axes`; NaN if there is one."""
        return self._numpy.min(x, axes, keepdims=keepdims)

    def scan(
        self,
        step: Step,
        carries: Sequence[Any],
        entries: Sequence[Any],
        length: int,
        reverse: bool,
        stacks: Any,
    ) -> tuple[Any, ...]:
        """The last carries, then what each step gives, stacked: one loop, however many steps there are."""
        asarray = self._numpy.asarray

        def body(state: Any, given: Any) -> Any:
            carried, results = step(state, given)
            return list(map(asarray, carried)), list(map(asarray, results))

        start, stacked = list(map(asarray, carries)), list(map(asarray, entries))
        last, results = self._lax.scan(body, start, stacked, length=length, reverse=reverse)
        return (*last, *results)

    @property
    def _precision(self) -> Any:
        """All digits of float32 on every device, unless the user has told JAX otherwise."""
        told = self._jax.config.jax_default_matmul_precision
        return self._lax.Precision.HIGHEST if told is None else None

    def matmul(self, x: Any, y: Any) -> Any:
        """Matrix product over the last two axes.

        XLA adds up a long product of few results from one end to the other, so it is cut into parts.
        """
        jnp, common = self._numpy, x.shape[-1]
        if x.dtype.kind != "f" or x.shape[-2] * y.shape[-1] > FEW_RESULTS or common <= 2 * SHORT_COMMON:
            return jnp.matmul(x, y, precision=self._precision)
        many = common // SHORT_COMMON
        cut = many * SHORT_COMMON
        left = jnp.reshape(x[..., :cut], (*x.shape[:-1], many, SHORT_COMMON)).swapaxes(-2, -3)
        right = jnp.reshape(y[..., :cut, :], (*y.shape[:-2], many, SHORT_COMMON, y.shape[-1]))
        whole = jnp.sum(jnp.matmul(left, right, precision=self._precision), -3)
        return whole + jnp.matmul(x[..., cut:], y[..., cut:, :], precision=self._precision)

    # ------------------------------------------------------------------------------- indices

    def _places(self, indices: Any, size: int) -> Any:
        """Indices counted from the front; `size` for those outside, which is nowhere."""
        jnp = self._numpy
        if indices.dtype.kind == "u" and indices.dtype.itemsize >= 4:
            bound = np.asarray(min(size, np.iinfo(np.int32).max), indices.dtype)
            return jnp.minimum(indices, bound).astype(np.int32)
        whole = jnp.asarray(indices)
        whole = whole.astype(np.int32) if indices.dtype.itemsize < 4 else whole
        whole = jnp.where(whole < 0, whole + size, whole)
        return jnp.where((whole < 0) | (whole >= size), size, whole)

    def from_front(self, indices: Any, size: int) -> Any:
        """Indices counted from the front, as int64."""
        return self._places(indices, size).astype(np.int64)

    def take(self, x: Any, indices: Any, axis: int) -> Any:
        """Elements of `x` at `indices` along `axis`; negative indices count from the end."""
        jnp, size = self._numpy, x.shape[axis]
        if not size:  # whatever the indices are, the step's own check refuses them
            return jnp.zeros((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)
        return jnp.take(jnp.asarray(x), self._places(indices, size), axis=axis, mode="clip")

    def scatter_add(self, updates: Any, indices: Any, axis: int, size: int) -> Any:
        """Zeros with `updates` added at `indices` along `axis` (repeated indices add up)."""
        jnp = self._numpy
        before, after = updates.shape[:axis], updates.shape[axis + indices.ndim :]
        rows = jnp.reshape(updates, (*before, math.prod(indices.shape), *after))
        places = self._places(indices, size).reshape(-1)
        zeros = jnp.zeros((*before, size, *after), updates.dtype)
        return zeros.at[(slice(None),) * axis + (places,)].add(rows, mode="drop")

    def take_along(self, x: Any, indices: Any) -> Any:
        """Entries at `indices` along the last axis, row by row; negative indices count from the end."""
        jnp, size = self._numpy, x.shape[-1]
        if not size or not indices.size:
            return jnp.zeros(indices.shape, x.dtype)
        return jnp.take_along_axis(jnp.asarray(x), self._places(indices, size), axis=-1, mode="clip")

    def scatter_along(self, updates: Any, indices: Any, size: int) -> Any:
        """Zeros with `updates` added at `indices` along the last axis, row by row."""
        jnp = self._numpy
        shape = (*updates.shape[:-1], size)
        if not updates.size:
            return jnp.zeros(shape, updates.dtype)
        places = self._places(indices, size)
        if indices.shape[-1] == 1:  # one to a row, as the labels of a loss: nothing meets, nothing adds up
            return jnp.where(
                jnp.arange(size, dtype=places.dtype) == places, updates, jnp.zeros((), updates.dtype)
            )
        flat, places = jnp.reshape(updates, (-1, updates.shape[-1])), places.reshape(-1, indices.shape[-1])
        rows = jnp.arange(flat.shape[0], dtype=places.dtype).reshape(-1, 1)
        made = jnp.zeros((flat.shape[0], size), updates.dtype).at[rows, places].add(flat, mode="drop")
        return made.reshape(shape)

    def put(self, x: Any, indices: Any, values: Any) -> Any:
        """A copy of the one-dimensional `x` with `values` at `indices`; of repeated indices the last wins."""
        jnp, size = self._numpy, x.shape[0]
        if not indices.shape[0]:
            return jnp.asarray(x)
        places = self._places(indices, size)
        order = jnp.arange(indices.shape[0], dtype=np.int32)
        last = jnp.full((size + 1,), -1, np.int32).at[places].max(order)
        # XLA writes in any order, so only the last write to each place is made.
        places = jnp.where(last[places] == order, places, size)
        return jnp.asarray(x).at[places].set(values, mode="drop")

    # ------------------------------------------------------------------------------- windows

    def window(self, x: Any, sizes: Steps, strides: Steps, dilation: Steps) -> Any:
        """Windows over the last axes: (…, *places, *sizes)."""
        jnp, first = self._numpy, x.ndim - len(sizes)
        places = tuple(
            (size - gap * (one - 1) - 1) // step + 1
            for size, one, step, gap in zip(x.shape[first:], sizes, strides, dilation)
        )
        lead = x.shape[:first]
        if math.prod(sizes) > _MOST_SLICES:
            return x[(..., *_grid(places, sizes, strides, dilation))]
        parts = [
            x[(..., *map(_run, (k * gap for k, gap in zip(at, dilation)), places, strides))]
            for at in np.ndindex(*sizes)
        ]
        return jnp.stack(parts, axis=-1).reshape(*lead, *places, *sizes)

    def fold(self, x: Any, shape: Steps, strides: Steps, dilation: Steps) -> Any:
        """Windows (…, *places, *sizes) added up where they lie in `shape`."""
        jnp, spatial = self._numpy, len(shape)
        lead = x.shape[: x.ndim - 2 * spatial]
        places, sizes = x.shape[len(lead) : len(lead) + spatial], x.shape[len(lead) + spatial :]
        by_offset = math.prod(sizes) <= math.prod(places)
        near, far, jumps, gaps = (
            (sizes, places, dilation, strides) if by_offset else (places, sizes, strides, dilation)
        )
        if math.prod(near) > _MOST_SLICES:
            grid = _grid(places, sizes, strides, dilation)
            return jnp.zeros((*lead, *shape), x.dtype).at[(..., *grid)].add(x)
        total = jnp.zeros((*lead, *shape), x.dtype)
        for at in np.ndindex(*near):
            part = x[(..., *at)] if by_offset else x[(..., *at, *(slice(None) for _ in sizes))]
            low = [k * jump for k, jump in zip(at, jumps)]
            ends = [start + (many - 1) * gap + 1 for start, many, gap in zip(low, far, gaps)]
            around = [(start, size - end, gap - 1) for start, size, end, gap in zip(low, shape, ends, gaps)]
            total = total + self._lax.pad(part, jnp.zeros((), x.dtype), [(0, 0, 0)] * len(lead) + around)
        return total

    def conv(self, x: Any, w: Any, strides: Steps, dilation: Steps, groups: int) -> Any:
        """Cross-correlation of x (N, C, *spatial) with w (O, C/groups, *kernel), where the kernel lies inside x."""
        places = tuple(
            (size - gap * (kernel - 1) - 1) // step + 1
            for size, kernel, step, gap in zip(x.shape[2:], w.shape[2:], strides, dilation)
        )
        shape = (x.shape[0], w.shape[0], *places)
        if not math.prod(shape) or not w.shape[1]:
            return self._numpy.zeros(shape, x.dtype)
        return self._lax.conv_general_dilated(
            self._numpy.asarray(x), self._numpy.asarray(w), tuple(strides), [(0, 0)] * len(places),
            rhs_dilation=tuple(dilation), feature_group_count=groups, precision=self._precision,
        )  # fmt: skip


def _run(start: int, many: int, step: int) -> slice:
    return slice(start, start + (many - 1) * step + 1, step)


def _grid(places: Steps, sizes: Steps, strides: Steps, dilation: Steps) -> list[Any]:
    """For every axis the index of each (place, offset) in the array below the windows."""
    spatial, found = len(places), []
    for axis, (many, size, step, gap) in enumerate(zip(places, sizes, strides, dilation)):
        index = np.arange(many)[:, None] * step + np.arange(size) * gap
        shape = [1] * (2 * spatial)
        shape[axis], shape[spatial + axis] = many, size
        found.append(index.reshape(shape).astype(np.int32))
    return found
