"""Every differentiable function of the array API standard has the gradient that numerical differences have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import chainrule as cr
from test_array_functions import STANDARD, seeded

# Functions whose results are bools, bits, positions, counts or shapes.
WITHOUT_SLOPE = {
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_invert",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "equal",
    "greater",
    "greater_equal",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "not_equal",
    "signbit",
    "nextafter",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "all",
    "any",
    "isin",
    "broadcast_shapes",
    "argmax",
    "argmin",
    "argsort",
    "count_nonzero",
    "nonzero",
    "searchsorted",
    "unique_all",
    "unique_counts",
    "unique_inverse",
}

X, Y = (2, 3), (3, 4)
GRADIENTS = {
    "abs": (cr.abs, [X]),
    "acos": (lambda x: cr.acos(x / 4), [X]),
    "acosh": (lambda x: cr.acosh(x * x + 1.5), [X]),
    "add": (cr.add, [X, (3,)]),
    "asin": (lambda x: cr.asin(x / 4), [X]),
    "asinh": (cr.asinh, [X]),
    "atan": (cr.atan, [X]),
    "atan2": (cr.atan2, [X, (3,)]),
    "atanh": (lambda x: cr.atanh(x / 4), [X]),
    "clip": (lambda x: cr.clip(x, -1.0, 1.0), [X]),
    "clip bounds": (cr.clip, [X, (3,), (2, 1)]),
    "copysign": (cr.copysign, [X, X]),
    "cos": (cr.cos, [X]),
    "cosh": (cr.cosh, [X]),
    "divide": (lambda x, y: x / (y * y + 0.5), [X, (2, 1)]),
    "exp": (cr.exp, [X]),
    "expm1": (cr.expm1, [X]),
    "hypot": (cr.hypot, [X, (3,)]),
    "log": (lambda x: cr.log(x * x + 0.1), [X]),
    "log1p": (lambda x: cr.log1p(x * x), [X]),
    "log2": (lambda x: cr.log2(x * x + 0.1), [X]),
    "log10": (lambda x: cr.log10(x * x + 0.1), [X]),
    "logaddexp": (cr.logaddexp, [X, (2, 1)]),
    "maximum": (cr.maximum, [X, (3,)]),
    "minimum": (cr.minimum, [X, (2, 1)]),
    "multiply": (cr.multiply, [X, ()]),
    "negative": (cr.negative, [X]),
    "positive": (cr.positive, [X]),
    "pow": (lambda x, y: cr.pow(x * x + 0.5, y), [X, (3,)]),
    "pow square": (lambda x: x**2 + x**3 + 2.0**x, [X]),
    "reciprocal": (lambda x: cr.reciprocal(x * x + 0.5), [X]),
    "remainder": (lambda x, y: cr.remainder(x, y * y + 4.0), [X, (3,)]),
    "sin": (cr.sin, [X]),
    "sinh": (cr.sinh, [X]),
    "square": (cr.square, [X]),
    "sqrt": (lambda x: cr.sqrt(x * x + 0.1), [X]),
    "subtract": (cr.subtract, [(), X]),
    "tan": (lambda x: cr.tan(x / 4), [X]),
    "tanh": (cr.tanh, [X]),
    "floor": (lambda x: x * cr.floor(x), [X]),
    "erf": (cr.erf, [X]),
    "relu": (cr.relu, [X]),
    "sigmoid": (cr.sigmoid, [X]),
    "astype": (lambda x: cr.astype(x, cr.float64), [X]),
    "where": (lambda x, y: cr.where(cr.tensor([[True], [False]]), x, y), [X, (3,)]),
    "full": (lambda x: cr.full((2, 2), x), [()]),
    "tril": (lambda x: cr.tril(x, k=-1), [(3, 4)]),
    "triu": (lambda x: cr.triu(x, k=1), [(2, 3, 4)]),
    "meshgrid": (lambda x, y: cr.concat([one.flatten() for one in cr.meshgrid(x, y)]), [(3,), (2,)]),
    "meshgrid ij": (lambda x, y: cr.stack(cr.meshgrid(x, y, indexing="ij")), [(3,), (2,)]),
    "take": (lambda x: cr.take(x, cr.asarray([1, 0, 1, -1]), axis=1), [X]),
    "take_along_axis": (lambda x: cr.take_along_axis(x, cr.asarray([[2, 2, -1, 0]]), axis=1), [X]),
    "matmul": (cr.matmul, [X, Y]),
    "matmul vectors": (cr.matmul, [(3,), (3,)]),
    "matmul row": (cr.matmul, [(3,), (5, 3, 4)]),
    "matmul column": (cr.matmul, [(5, 2, 3), (3,)]),
    "matmul batch": (cr.matmul, [(4, 1, 2, 3), (5, 3, 2)]),
    "matrix_transpose": (cr.matrix_transpose, [(2, 3, 4)]),
    "tensordot": (lambda x, y: cr.tensordot(x, y, axes=((1, 0), (0, 2))), [(2, 3), (3, 4, 2)]),
    "vecdot": (cr.vecdot, [(2, 3), (3,)]),
    "outer": (cr.outer, [(3,), (2,)]),
    "broadcast_arrays": (lambda x, y: cr.concat(cr.broadcast_arrays(x, y)), [(3,), (2, 1)]),
    "broadcast_to": (lambda x: cr.broadcast_to(x, (4, 2, 3)), [(2, 1)]),
    "concat": (lambda x, y: cr.concat([x, y, x], axis=1), [X, (2, 1)]),
    "concat flat": (lambda x, y: cr.concat([x, y], axis=None), [X, (2, 1)]),
    "expand_dims": (lambda x: cr.expand_dims(x, axis=(0, -1)), [X]),
    "flip": (lambda x: cr.flip(x, axis=1), [X]),
    "flip all": (cr.flip, [X]),
    "moveaxis": (lambda x: cr.moveaxis(x, 0, -1), [(2, 3, 4)]),
    "permute_dims": (lambda x: cr.permute_dims(x, (2, 0, 1)), [(2, 3, 4)]),
    "repeat": (lambda x: cr.repeat(x, cr.asarray([1, 0, 2]), axis=1), [X]),
    "repeat flat": (lambda x: cr.repeat(x, 2), [X]),
    "reshape": (lambda x: cr.reshape(x, (3, -1)), [X]),
    "roll": (lambda x: cr.roll(x, (1, -2), axis=(0, 1)), [X]),
    "roll flat": (lambda x: cr.roll(x, 2), [X]),
    "squeeze": (lambda x: cr.squeeze(x, 1), [(2, 1, 3)]),
    "stack": (lambda x, y: cr.stack([x, y], axis=-1), [X, X]),
    "tile": (lambda x: cr.tile(x, (2, 1, 2)), [X]),
    "unstack": (lambda x: cr.unstack(x, axis=1)[2] * cr.unstack(x, axis=1)[0], [X]),
    "pad": (lambda x: cr.pad(x, [(1, 0), (2, 1)]), [X]),
    "flatten": (lambda x: cr.flatten(x, 1), [(2, 3, 2)]),
    "sort": (lambda x: cr.sort(x, axis=0), [(4, 3)]),
    "sort down": (lambda x: cr.sort(x, descending=True), [(4, 3)]),
    "cumulative_sum": (lambda x: cr.cumulative_sum(x, axis=1, include_initial=True), [X]),
    "cumulative_prod": (lambda x: cr.cumulative_prod(x, axis=1, include_initial=True), [(2, 5)]),
    "max": (lambda x: cr.max(x, axis=0), [(4, 3)]),
    "max all": (cr.max, [X]),
    "min": (lambda x: cr.min(x, axis=(0, 2), keepdims=True), [(2, 3, 4)]),
    "mean": (lambda x: cr.mean(x, axis=1), [X]),
    "prod": (lambda x: cr.prod(x, axis=1), [(2, 5)]),
    "prod all": (cr.prod, [X]),
    "std": (lambda x: cr.std(x, axis=0, correction=1), [(4, 3)]),
    "sum": (lambda x: cr.sum(x, axis=(0, 2)), [(2, 3, 4)]),
    "var": (lambda x: cr.var(x, correction=1), [X]),
    "diff": (lambda x, y: cr.diff(x, n=2, axis=0, prepend=y), [(4, 3), (1, 3)]),
    "unique_values": (cr.unique_values, [X]),
    "round": (lambda x: cr.round(x) * x, [X]),
    "sign": (lambda x: cr.sign(x) * x, [X]),
    "trunc": (lambda x: cr.trunc(x) * x, [X]),
    "ceil": (lambda x: cr.ceil(x) * x, [X]),
    "floor_divide": (lambda x, y: cr.floor_divide(x, y * y + 4.0) * x, [X, X]),
    "ufunc": (lambda x, y: np.exp(x) + np.arctan2(x, y) * np.ones(3), [X, X]),
}


def numeric_gradients(f, arrays, step=1e-5):
    """Central differences of a function of NumPy arrays that returns one float."""
    slopes = []
    for k, array in enumerate(arrays):
        slope = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            ends = []
            for sign in (1, -1):
                moved = [one.copy() for one in arrays]
                moved[k][place] += sign * step
                ends.append(f(*moved))
            slope[place] = (ends[0] - ends[1]) / (2 * step)
        slopes.append(slope)
    return slopes


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_equal_numerical_ones(name):
    f, shapes = GRADIENTS[name]
    arrays = [seeded(name, k).uniform(-2, 2, shape) for k, shape in enumerate(shapes)]
    tensors = [cr.tensor(array, requires_grad=True) for array in arrays]
    result = f(*tensors)
    weights = seeded(name, "weights").uniform(0.5, 1.5, result.shape)
    (result * weights).sum().backward()
    with cr.no_grad():
        wanted = numeric_gradients(lambda *ends: float((f(*map(cr.tensor, ends)) * weights).sum()), arrays)
    for tensor, want in zip(tensors, wanted):
        if tensor.grad is None:  # steps have no slope, so nothing arrives
            assert not want.any()
            continue
        assert tensor.grad.shape == tensor.shape and tensor.grad.dtype == cr.float64
        np.testing.assert_allclose(tensor.grad.numpy(), want, rtol=1e-6, atol=1e-7)


def test_every_float_function_of_the_standard_has_a_gradient_test():
    groups = (
        "elementwise",
        "indexing",
        "linear algebra",
        "manipulation",
        "searching",
        "sets",
        "sorting",
        "statistical",
    )
    expected = {name for group in groups for name in STANDARD[group].split()} - WITHOUT_SLOPE
    assert expected - set(GRADIENTS) == set()


def test_products_with_zeros_have_the_right_gradient_at_every_order():
    for values in ([2.0, 0.0, 3.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]):
        x = cr.tensor(values, dtype=cr.float64, requires_grad=True)
        want = [np.prod(np.delete(values, k)) for k in range(3)]
        cr.prod(x).backward()
        assert x.grad.tolist() == want
        second = cr.hessian(cr.prod)(cr.tensor(values, dtype=cr.float64)).numpy()
        for i, j in itertools.product(range(3), range(3)):
            assert second[i, j] == (0.0 if i == j else np.prod(np.delete(values, [i, j])))
        y = cr.tensor(values, dtype=cr.float64, requires_grad=True)
        cr.cumulative_prod(y).sum().backward()
        running = [sum(np.prod(np.delete(values[: m + 1], k)) for m in range(k, 3)) for k in range(3)]
        assert y.grad.tolist() == running
    nothing = cr.zeros(0).requires_grad_()
    cr.prod(nothing).backward()
    assert nothing.grad.shape == (0,)


def test_ties_share_the_gradient():
    x = cr.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]], dtype=cr.float64, requires_grad=True)
    cr.max(x, axis=1).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [[0, 0.5, 0.5], [1 / 3] * 3])
    x.grad = None
    cr.min(x).backward()
    assert x.grad.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    a, b = (cr.tensor(1.0, requires_grad=True) for _ in range(2))
    cr.maximum(a, b).backward()
    assert (a.grad.item(), b.grad.item()) == (0.5, 0.5)


def test_spread_of_equal_entries_has_gradient_zero():
    x = cr.ones(4, dtype=cr.float64).requires_grad_()
    cr.std(x).backward()
    assert x.grad.tolist() == [0.0] * 4


def test_gradient_of_a_half_precise_path_is_cast_back():
    x = cr.tensor([1.0, 2.0], requires_grad=True)
    (x.astype(cr.float64) * 3.0).sum().backward()
    assert x.grad.dtype == cr.float32 and x.grad.tolist() == [3.0, 3.0]
    (x * 1.0).astype(cr.int64)
    assert not (x * 1.0).astype(cr.int64).requires_grad


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 3)])
def test_gradients_have_the_shape_of_their_tensor(shape):
    x = cr.ones(shape).requires_grad_()
    y = cr.ones((2, 1, 3) if len(shape) != 1 else (4, 1))
    (x * y + cr.exp(x)).sum().backward()
    assert x.grad.shape == shape and x.grad.dtype == cr.float32
