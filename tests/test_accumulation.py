"""Writes that add up, norms, shares over several axes, convolutions over three axes: against NumPy, in every engine."""

from __future__ import annotations

import importlib.util
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import chainrule as cr

HAS_JAX = importlib.util.find_spec("jax") is not None
ENGINES = [
    "native",
    pytest.param("jax", marks=pytest.mark.skipif(not HAS_JAX, reason="JAX is not installed")),
]
MANY = settings(max_examples=150, deadline=None, derandomize=True)


def numbers(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def gradients(function, *arguments):
    """Values, the gradients of a bent loss, and the gradients of those."""
    every = tuple(range(len(arguments)))

    def loss(*given):
        return cr.sin(function(*given)).sum()

    def bent(*given):
        total = cr.asarray(0.0, dtype=cr.float64)
        for one in cr.grad(loss, argnums=every)(*given):
            total = total + (one**2).sum()
        return total

    return (
        function(*arguments),
        *cr.grad(loss, argnums=every)(*arguments),
        *cr.grad(bent, argnums=every)(*arguments),
    )


def same_everywhere(function, *arrays, engine):
    """Compiled code gives the values and gradients of eager code, whose gradients are those of differences."""
    arguments = [cr.asarray(one) for one in arrays]
    if engine == "native":
        cr.testing.check_grads(function, tuple(arguments))
    wanted = gradients(function, *arguments)
    found = cr.compile(lambda *given: gradients(function, *given), backend=engine)(*arguments)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-12, atol=1e-10)


# ------------------------------------------------------------------------------------------- accumulating writes


@st.composite
def scattered(draw):
    """x, axis, index and source as PyTorch allows them: the index may be smaller than both."""
    shape = draw(npst.array_shapes(max_dims=3, max_side=4))
    axis = draw(st.integers(0, len(shape) - 1))
    many = draw(st.integers(0, 5))
    sizes = tuple(many if k == axis else draw(st.integers(0, size)) for k, size in enumerate(shape))
    longer = tuple(size + draw(st.integers(0, 2)) for size in sizes)
    index = draw(npst.arrays(np.int64, sizes, elements=st.integers(-shape[axis], shape[axis] - 1)))
    return numbers(shape), axis - draw(st.sampled_from([0, len(shape)])), index, numbers(longer, 1)


@MANY
@given(scattered())
def test_scatter_add_adds_every_entry_where_its_index_says(case):
    x, axis, index, source = case
    want, along = x.copy(), axis % x.ndim
    for place in np.ndindex(index.shape):
        want[(*place[:along], index[place], *place[along + 1 :])] += source[place]
    given = cr.asarray(x)
    np.testing.assert_allclose(
        cr.scatter_add(given, axis, index, source).numpy(), want, rtol=1e-13, atol=1e-14
    )
    np.testing.assert_allclose(given.scatter_add(axis, index, source).numpy(), want, rtol=1e-13, atol=1e-14)
    np.testing.assert_array_equal(given.numpy(), x)


@MANY
@given(npst.array_shapes(max_dims=3, max_side=4), st.data())
def test_index_add_and_index_put_are_numpys_add_at(shape, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    index = data.draw(
        npst.arrays(np.int64, st.integers(0, 5), elements=st.integers(-shape[axis], shape[axis] - 1))
    )
    x, source = numbers(shape), numbers((*shape[:axis], len(index), *shape[axis + 1 :]), 1)
    key = (*(slice(None),) * axis, index)
    want = x.copy()
    np.add.at(want, key, 2.0 * source)
    given = cr.asarray(x)
    np.testing.assert_allclose(
        given.index_add(axis, index, source, alpha=2.0).numpy(), want, rtol=1e-13, atol=1e-14
    )
    np.testing.assert_allclose(
        cr.index_put(given, key, 2.0 * source, accumulate=True).numpy(), want, rtol=1e-14
    )
    want = x.copy()
    want[key] = source
    np.testing.assert_array_equal(given.index_put(key, source).numpy(), want)
    np.testing.assert_array_equal(given.numpy(), x)


ROWS, COLUMNS, AXES = np.asarray([0, 2, -1, 0]), np.asarray([[1, 1], [3, 0]]), np.asarray([1, 1, 0, 1])
ACCUMULATING = {
    "scatter_add": (lambda x, v: cr.scatter_add(x, 1, COLUMNS, v), (3, 4), (2, 3)),
    "index_add": (lambda x, v: cr.index_add(x, 0, ROWS, v, alpha=0.5), (3, 4), (4, 4)),
    "index_put": (lambda x, v: cr.index_put(x, (ROWS, AXES), v, accumulate=True), (3, 4), (4,)),
    "index_put, replacing": (lambda x, v: cr.index_put(x, (ROWS, slice(1, 3)), v), (3, 4), (4, 2)),
    "through a mask": (lambda x, v: cr.index_put(x, x > 0, v, accumulate=True), (3, 4), (1,)),
    "a new row": (lambda x, v: x.index_put((0, None), v, accumulate=True), (3, 4), (1, 4)),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ACCUMULATING)
def test_accumulating_writes_have_their_gradients_in_every_engine(name, engine):
    function, shape, source = ACCUMULATING[name]
    same_everywhere(function, numbers(shape), numbers(source, 1), engine=engine)


REFUSED = {
    "too large": (lambda x: cr.scatter_add(x, 0, [[0, 1, 0]], [[1.0] * 3]), cr.ShapeError, r"index \(1, 3\)"),
    "too many": (lambda x: cr.scatter_add(x, 0, [[0], [1]], [[1.0]]), cr.ShapeError, r"source \(1, 1\)"),
    "outside": (lambda x: cr.scatter_add(x, 0, [[2]], [[1.0]]), cr.errors.BoundsError, "-2 to 1; got 2"),
    "axis": (lambda x: cr.scatter_add(x, 2, [[0]], [[1.0]]), cr.ShapeError, "axis from -2 to 1; got 2"),
    "floats": (lambda x: cr.index_add(x, 0, [0.5], [[1.0, 1.0]]), cr.DtypeError, "whole numbers"),
    "matrix": (lambda x: cr.index_add(x, 0, [[0]], [[1.0, 1.0]]), cr.ShapeError, "vector of indices"),
    "source": (lambda x: cr.index_add(x, 0, [0], [1.0]), cr.ShapeError, r"source of shape \(1, 2\)"),
    "bools": (lambda x: cr.index_add(x > 0, 0, [0], [[True, True]]), cr.DtypeError, "adds numbers"),
    "dtype": (
        lambda x: cr.index_put(x.astype(cr.int64), 0, 0.5, accumulate=True),
        cr.DtypeError,
        "keeps the dtype",
    ),
    "in place": (lambda x: x.index_add_(0, [0], [[1.0, 1.0]]), cr.MissingNameError, r"x = x\.index_add"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_added_is_refused(name):
    act, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        act(cr.zeros((2, 2)))


# ------------------------------------------------------------------------------------------- norms


@MANY
@given(
    npst.array_shapes(max_dims=3, max_side=4), st.data(), st.booleans(),
    st.sampled_from([2, 1, 3, 0.5, 2.5, 0, -1, np.inf, -np.inf]),
)  # fmt: skip
def test_vector_norms_are_numpys(shape, data, keepdims, order):
    x = numbers(shape)
    axes = data.draw(st.none() | st.sets(st.integers(0, len(shape) - 1), min_size=1).map(tuple))
    along = tuple(range(len(shape))) if axes is None else axes
    moved = np.moveaxis(x, along, range(len(along))).reshape(
        -1, *(s for k, s in enumerate(shape) if k not in along)
    )
    want = np.linalg.norm(moved.reshape(len(moved), -1), order, axis=0).reshape(moved.shape[1:])
    if keepdims:
        want = want.reshape([1 if k in along else s for k, s in enumerate(shape)])
    found = cr.linalg.vector_norm(cr.asarray(x), axis=axes, keepdims=keepdims, ord=order)
    assert found.shape == want.shape
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-12)


@pytest.mark.parametrize("order", ["fro", 1, -1, np.inf, -np.inf])
@pytest.mark.parametrize("keepdims", [True, False])
def test_matrix_norms_are_numpys(order, keepdims):
    x = numbers((2, 3, 4))
    found = cr.linalg.matrix_norm(cr.asarray(x), ord=order, keepdims=keepdims)
    np.testing.assert_allclose(
        found.numpy(), np.linalg.norm(x, order, axis=(1, 2), keepdims=keepdims), rtol=1e-12
    )


NORMS = {
    **{
        f"order {k}": (lambda x, k=k: cr.linalg.vector_norm(x, axis=1, ord=k))
        for k in (2, 1, 3, 0.5, -2, np.inf)
    },
    **{f"matrix {k}": (lambda x, k=k: cr.linalg.matrix_norm(x, ord=k)) for k in ("fro", 1, np.inf, -1)},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NORMS)
def test_norms_have_their_gradients_in_every_engine(name, engine):
    same_everywhere(NORMS[name], numbers((3, 4)), engine=engine)


@pytest.mark.parametrize("order", [2, 3, 1.5])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_norms_neither_overflow_nor_vanish(order, scale):
    x = cr.tensor([3.0 * scale, -4.0 * scale], requires_grad=True)
    length = cr.linalg.vector_norm(x, ord=order)
    want = np.linalg.norm(np.asarray([3.0, 4.0]), order)
    assert abs(length.item() / scale - want) < 1e-5 * want
    length.backward()
    np.testing.assert_allclose(
        x.grad.numpy(),
        np.asarray([3.0, -4.0]) * np.abs([3.0, 4.0]) ** (order - 2) / want ** (order - 1),
        rtol=1e-5,
    )


def test_norms_at_the_edges():
    zero = cr.tensor([0.0, 0.0], requires_grad=True)
    cr.linalg.vector_norm(zero).backward()
    assert zero.grad.tolist() == [0.0, 0.0]
    assert cr.linalg.vector_norm(cr.zeros((0, 2)), axis=0).tolist() == [0.0, 0.0]
    assert cr.linalg.vector_norm(cr.tensor([np.inf, 1.0])).item() == np.inf
    assert np.isnan(cr.linalg.vector_norm(cr.tensor([np.nan, 1.0])).item())
    assert cr.linalg.vector_norm(cr.tensor([3, 4])).dtype == cr.float32
    with pytest.raises(cr.ArgumentError, match="singular values"):
        cr.linalg.matrix_norm(cr.ones((2, 2)), ord=2)
    with pytest.raises(cr.ArgumentError, match="number, inf or -inf as ord"):
        cr.linalg.matrix_norm(cr.ones((2, 2)), ord="nuc")
    with pytest.raises(cr.ShapeError, match="two axes"):
        cr.linalg.matrix_norm(cr.ones(2))
    with pytest.raises(cr.MissingNameError, match="linalg has no 'svd'"):
        _ = cr.linalg.svd


# ------------------------------------------------------------------------------------------- shares of several axes

FAMILY = ("softmax", "softmin", "log_softmax", "logsumexp")


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("axes", [(0, 1), (0, 2), (2, 1), (-1, -2), (0, 1, 2), (1,)])
def test_several_axes_are_one_that_holds_them_all(name, axes):
    x, function = numbers((2, 3, 4)), getattr(cr.functional, name)
    order = [k for k in range(3) if k not in {a % 3 for a in axes}]
    first = [a % 3 for a in axes]
    flat = x.transpose(*order, *first).reshape(*(x.shape[k] for k in order), -1)
    want = function(cr.asarray(flat), axis=-1).numpy()
    if name != "logsumexp":
        spread = want.reshape([x.shape[k] for k in (*order, *first)])
        want = spread.transpose(np.argsort([*order, *first]))
    for option in ({"axis": axes}, {"dim": axes}):
        np.testing.assert_allclose(function(cr.asarray(x), **option).numpy(), want, rtol=1e-12)
    if name == "logsumexp":
        assert function(cr.asarray(x), axis=axes, keepdims=True).shape == tuple(
            1 if k in first else size for k, size in enumerate(x.shape)
        )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", FAMILY)
def test_shares_of_several_axes_have_their_gradients_in_every_engine(name, engine):
    function = getattr(cr.functional, name)
    same_everywhere(lambda x: function(x, axis=(0, 2)), numbers((2, 3, 4)), engine=engine)
    far = cr.compile(lambda x: function(x, axis=(0, 1)), backend=engine)(cr.tensor([[1e4, 0.0], [0.0, 1e4]]))
    assert np.isfinite(far.numpy()).all()


@pytest.mark.parametrize("name", FAMILY)
def test_axes_that_are_not_there_are_refused(name):
    function = getattr(cr.functional, name)
    for axes, error in (((0, 2), cr.ShapeError), ((0, 0), cr.ShapeError), ((), cr.ArgumentError)):
        with pytest.raises(error, match=name):
            function(cr.ones((2, 3)), axis=axes)


# ------------------------------------------------------------------------------------------- three axes


def direct(x, w, b, stride, padding, dilation, groups):
    """The sum, written out place by place."""
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    kernel = w.shape[2:]
    places = [
        (size - d * (k - 1) - 1) // s + 1 for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation)
    ]
    out = np.zeros((len(x), len(w), *places)) + b.reshape(-1, 1, 1, 1)
    inside, outside = x.shape[1] // groups, len(w) // groups
    for at in itertools.product(*map(range, places)):
        window = tuple(
            slice(p * s, p * s + d * (k - 1) + 1, d) for p, s, d, k in zip(at, stride, dilation, kernel)
        )
        for o in range(len(w)):
            first = o // outside * inside
            out[(slice(None), o, *at)] += (
                x[(slice(None), slice(first, first + inside), *window)] * w[o]
            ).sum((1, 2, 3, 4))
    return out


OPTIONS = [
    ((1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    ((2, 1, 2), (1, 0, 1), (1, 1, 1), 1),
    ((1, 2, 1), (1, 2, 0), (2, 1, 1), 2),
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("engine", ENGINES)
def test_convolutions_over_three_axes(options, engine):
    stride, padding, dilation, groups = options
    x, w, b = numbers((2, 4, 4, 5, 3)), numbers((4, 4 // groups, 2, 3, 2), 1), numbers(4, 2)

    def convolve(x, w, b):
        return cr.functional.conv3d(x, w, b, stride, padding, dilation, groups)

    np.testing.assert_allclose(
        convolve(*map(cr.asarray, (x, w, b))).numpy(), direct(x, w, b, *options), rtol=1e-12, atol=1e-12
    )
    same_everywhere(convolve, x, w, b, engine=engine)


@pytest.mark.parametrize("options", OPTIONS)
def test_the_transpose_over_three_axes_is_the_gradient_of_the_convolution(options):
    stride, padding, dilation, groups = options
    g = numbers((2, 4, 3, 2, 3))
    w = numbers((4, 4 // groups, 2, 3, 2), 1)
    spread = cr.functional.conv_transpose3d(
        cr.asarray(g), cr.asarray(w), None, stride, padding, 0, groups, dilation
    )
    x = cr.tensor(np.zeros(spread.shape), requires_grad=True)
    (cr.functional.conv3d(x, cr.asarray(w), None, stride, padding, dilation, groups) * g).sum().backward()
    np.testing.assert_allclose(spread.numpy(), x.grad.numpy(), rtol=1e-12, atol=1e-12)
    with pytest.raises(cr.ShapeError, match=r"conv3d needs \(N, C, D, H, W\)"):
        cr.functional.conv3d(cr.ones((2, 3)), cr.asarray(w))
