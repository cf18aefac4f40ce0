"""Everything that adds up: bounds of its errors against exact sums, in every engine, and what the docs promise.

Sizes from 1 to a million, numbers far from 0, both dtypes, along each axis; values, gradients, and theirs.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn
from chainrule.compiler import available, contraction, folds, nested, product
from chainrule.ops import totals

HAS_JAX = importlib.util.find_spec("jax") is not None
ENGINES = [
    "eager",
    pytest.param("native", marks=pytest.mark.skipif(not available(), reason="needs llvmlite")),
    pytest.param("jax", marks=pytest.mark.skipif(not HAS_JAX, reason="needs JAX")),
]
OWN = ENGINES[:2]
SIZES = [1, 7, 1000, 100_000, 1_000_000]
# The mean, and the distances from it.
PLACES = [(0.0, 1.0), (1e4, 1.0), (1e8, 100.0)]
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
# XLA groups sums and products in its own way: what is measured, with room.
XLA, XLA_PRODUCT = 600, 4096


def compiled(engine: str, function: Callable[..., Any]) -> Callable[..., Any]:
    return function if engine == "eager" else cr.compile(function, backend=engine)


def roundings(terms: int, dtype: str, engine: str) -> int:
    """How often a term of a sum is rounded at most, as docs/numerics.md says."""
    if dtype == "float64":
        return terms + 1
    return min(terms, XLA if engine == "jax" else 256) + 2


def product_roundings(terms: int, dtype: str, engine: str) -> int:
    if dtype == "float64":
        return terms + 1
    return min(terms, XLA_PRODUCT if engine == "jax" else 544) + 2


# ----------------------------------------------------------------------------------- values


@functools.cache
def drawn(size: int, axis: int | None, place: tuple[float, float], dtype: str) -> Any:
    """Numbers around a mean; three rows or columns of them, unless all are added up."""
    random = np.random.default_rng(size)
    shape = {None: (size,), 0: (size, 3), 1: (3, size)}[axis]
    return (random.normal(size=shape) * place[1] + place[0]).astype(dtype)


def statistics(axis: int | None) -> Callable[[cr.Tensor], Any]:
    """Every reduction that is built on sums, of one operand."""

    def compute(x: cr.Tensor) -> Any:
        rows = x if axis == 1 else x.T if axis == 0 else x.reshape(1, -1)
        ones = cr.ones((rows.shape[1], 1), dtype=x.dtype)
        return {
            "sum": cr.sum(x, axis=axis),
            "mean": cr.mean(x, axis=axis),
            "var": cr.var(x, axis=axis),
            "std": cr.std(x, axis=axis),
            "dot": (rows @ ones).reshape(-1),
            "vecdot": cr.vecdot(rows, ones.reshape(1, -1)),
            "running": cr.cumulative_sum(x, axis=axis or 0),
            "logsumexp": F.logsumexp(rows, 1),
        }

    return compute


@functools.cache
def truths(size: int, axis: int | None, place: tuple[float, float], dtype: str) -> list[dict[str, float]]:
    """The true statistics of each row or column."""
    x = drawn(size, axis, place, dtype)
    columns = [x] if axis is None else list(x.T if axis == 0 else x)
    return [exact(column.astype(float).tolist()) for column in columns]


def exact(column: list[float]) -> dict[str, float]:
    """Sums without any rounding; squares are of distances that float64 has to fifteen digits."""
    total, count = math.fsum(column), len(column)
    mean = total / count
    variance = math.fsum((one - mean) ** 2 for one in column) / count
    largest = max(column)
    return {
        "sum": total, "mean": mean, "var": variance, "std": math.sqrt(variance), "dot": total, "vecdot": total,
        "size": math.fsum(map(abs, column)), "first": abs(column[0] - mean),
        "logsumexp": largest + math.log(math.fsum(math.exp(one - largest) for one in column)),
    }  # fmt: skip


def allowed(name: str, truth: dict[str, float], terms: int, dtype: str, engine: str) -> float:
    """The bound of docs/numerics.md."""
    unit, often = UNIT[dtype], roundings(terms, dtype, engine)
    if name in ("dot", "vecdot"):
        return product_roundings(terms, dtype, engine) * unit * truth["size"]
    if name in ("sum", "mean"):
        return (often + (name == "mean")) * unit * truth["size"] / (terms if name == "mean" else 1)
    if name == "logsumexp":
        return often * unit + 8 * unit * abs(truth["logsumexp"]) + 1e-30
    spread = math.sqrt(truth["var"])
    outside = 1 + truth["first"] / spread if spread else 1.0
    return (2 * often + 8 * outside) * unit * truth[name]


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("engine", ENGINES)
def test_errors_stay_within_the_bounds(engine: str, size: int, axis: int | None) -> None:
    function = compiled(engine, statistics(axis))
    for dtype in UNIT:
        for place in PLACES:
            x = drawn(size, axis, place, dtype)
            found = {name: one.numpy() for name, one in function(cr.tensor(x)).items()}
            for k, truth in enumerate(truths(size, axis, place, dtype)):
                for name in ("sum", "mean", "var", "std", "dot", "vecdot", "logsumexp"):
                    away = abs(float(found[name].reshape(-1)[k]) - truth[name])
                    bound = allowed(name, truth, size, dtype, engine)
                    assert away <= bound, (name, dtype, place, away, bound)
            check_running(found["running"], x, axis or 0, dtype, engine)


def check_running(got: Any, x: Any, axis: int, dtype: str, engine: str) -> None:
    """Each total is rounded once; in float64 and under XLA as often as it has terms."""
    wide = np.add.accumulate(x.astype(np.longdouble), axis)
    sizes = np.add.accumulate(np.abs(x).astype(np.longdouble), axis)
    unit, terms = UNIT[dtype], x.shape[axis]
    bound = unit * np.abs(wide) + (terms * 2.0**-53) * sizes
    if engine == "jax":
        bound = bound + min(terms, XLA) * unit * sizes
    assert (np.abs(got.astype(np.longdouble) - wide) <= bound).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_more_ones_than_float32_can_count(engine: str) -> None:
    """Beyond 2²⁴ a float32 total of ones stands still; nothing here does."""
    count = (1 << 24) + 4000

    def totals_of(x: cr.Tensor) -> Any:
        return (
            x.sum(), x.mean(), cr.vecdot(x, x), (x.reshape(1, -1) @ x.reshape(-1, 1)).sum(),
            cr.cumulative_sum(x)[-1], cr.cumulative_sum(x, axis=0)[count - 1], cr.var(x), F.logsumexp(x, 0),
        )  # fmt: skip

    found = [one.item() for one in compiled(engine, totals_of)(cr.ones(count))]
    assert found[:7] == [count, 1.0, count, count, count, count, 0.0]
    assert found[7] == pytest.approx(1 + math.log(count), rel=1e-6)


@pytest.mark.parametrize("engine", OWN)
@pytest.mark.parametrize("number", [0.1, 1 / 3, 0.7])
@pytest.mark.parametrize("rows", [1000, 60_000, 300_000])
def test_one_number_again_and_again(engine: str, number: float, rows: int) -> None:
    """The worst case of a plain total: every rounding goes the same way."""
    x = np.full((rows, 4), number, "float32")
    wanted = float(x[0, 0]) * rows

    def totals_of(x: cr.Tensor) -> Any:
        return (
            x.sum(axis=0),
            x.T.sum(axis=1),
            cr.cumulative_sum(x, axis=0)[-1],
            x.T @ cr.ones(rows),
            x.sum() / 4,
        )

    for one in compiled(engine, totals_of)(cr.tensor(x)):
        np.testing.assert_allclose(one.numpy(), wanted, rtol=3e-6)


@pytest.mark.parametrize("engine", OWN)
@pytest.mark.parametrize(
    "shape", [(5, 3, 7, 2), (300, 3, 7, 2), (3, 300, 5, 4), (2, 70, 6, 90), (7, 2, 700, 3)]
)
def test_sums_over_several_axes(engine: str, shape: tuple[int, ...]) -> None:
    """Blocks that end in the middle of an axis, along every set of axes."""
    random = np.random.default_rng(0)
    x = random.uniform(0.5, 1.5, size=shape).astype("float32")
    sets = [(0,), (1,), (2,), (0, 2), (0, 3), (1, 2), (0, 2, 3), (0, 1, 2), (1, 3), (0, 1, 2, 3)]
    function = compiled(engine, lambda x: [cr.sum(x, axis=axes) for axes in sets])
    for axes, one in zip(sets, function(cr.tensor(x))):
        terms = math.prod(shape[k] for k in axes)
        bound = roundings(terms, "float32", engine) * UNIT["float32"]
        np.testing.assert_allclose(one.numpy(), x.astype(float).sum(axes), rtol=bound)


@pytest.mark.skipif(not available(), reason="needs llvmlite")
@pytest.mark.parametrize(("shape", "axes"), [
    ((1000, 130), (0,)), ((300, 5000), (0,)), ((2, 300, 4097), (1,)), ((200, 3, 5000), (0,)), ((300, 2, 70), (0, 2)),
    ((129, 4096), (0,)), ((128, 4097), (0,)), ((257,), (0,)), ((3, 129), (1,)), ((5, 30, 20, 7), (0, 1, 2)),
])  # fmt: skip
def test_blocks_and_strips_of_rows_are_whole(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    """Whole numbers have exact sums; what is computed on the way to them is another one at each place."""
    x = (np.arange(math.prod(shape)).reshape(shape) * 7919 % 513).astype("float32")
    function = cr.compile(lambda x: (x.sum(axis=axes), (x * 2.0 + 1.0).sum(axis=axes, keepdims=True)))
    plain, shifted = function(cr.tensor(x))
    np.testing.assert_array_equal(plain.numpy(), x.astype(float).sum(axes))
    np.testing.assert_array_equal(shifted.numpy(), (2 * x.astype(float) + 1).sum(axes, keepdims=True))
    assert function.audit(cr.tensor(x)).ok


# ----------------------------------------------------------------------------------- products


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("common", [1, 255, 256, 257, 4096, 4097, 5000, 100_003])
@pytest.mark.parametrize("dtype", UNIT)
def test_products_over_a_long_common_axis(engine: str, common: int, dtype: str) -> None:
    """As rows and columns lie, and turned; with sizes that leave narrow and low tiles."""
    random = np.random.default_rng(common)
    x, y = random.uniform(size=(13, common)).astype(dtype), random.uniform(size=(common, 37)).astype(dtype)
    wide = x.astype(float) @ y.astype(float)
    bound = product_roundings(common, dtype, engine) * UNIT[dtype] + (dtype == "float64") * common * 2.0**-53
    function = compiled(engine, lambda x, y, u, v: (x @ y, u.T @ y, x @ v.T, (v @ x.T).T))
    found = function(*map(cr.tensor, (x, y, np.ascontiguousarray(x.T), np.ascontiguousarray(y.T))))
    for one in found:
        np.testing.assert_allclose(one.numpy(), wide, rtol=bound)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("images", [1, 40, 400])
def test_gradients_of_kernels_add_up_over_all_pixels(engine: str, images: int) -> None:
    random = np.random.default_rng(0)
    x, g = (random.uniform(size=(images, n, 24 + m, 24 + m)).astype("float32") for n, m in ((3, 2), (5, 0)))
    wide = np.zeros((5, 3, 3, 3))
    for i, j in np.ndindex(3, 3):
        part = x[:, :, i : i + 24, j : j + 24].astype(float)
        wide[:, :, i, j] = np.tensordot(g.astype(float), part, ((0, 2, 3), (0, 2, 3)))
    found = compiled(engine, cr.grad(lambda w, x, g: (F.conv2d(x, w) * g).sum()))(
        cr.zeros((5, 3, 3, 3)), cr.tensor(x), cr.tensor(g)
    )
    bound = product_roundings(images * 24 * 24, "float32", engine) * UNIT["float32"]
    np.testing.assert_allclose(found.numpy(), wide, rtol=bound)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_weight_receives_at_each_step_of_time(engine: str) -> None:
    x = cr.tensor(np.full((100_000, 2), 0.1, "float32"))

    def total(w: cr.Tensor, x: cr.Tensor) -> cr.Tensor:
        return cr.scan(lambda carry, entry: (carry, w * entry), cr.zeros(2), x)[1].sum()

    found = compiled(engine, cr.grad(total))(cr.ones(2), x)
    np.testing.assert_allclose(found.numpy(), float(np.float32(0.1)) * 100_000, rtol=1e-6)


# ----------------------------------------------------------------------------------- normalization


NORMS: dict[str, Callable[[cr.Tensor], cr.Tensor]] = {
    "var": lambda x: cr.var(x, axis=0, correction=1),
    "std": lambda x: cr.std(x, axis=0),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[1]),
    "group_norm": lambda x: F.group_norm(x.reshape(1, *x.shape), 1),
    "standardized": lambda x: (x - x.mean(axis=0)) / x.std(axis=0),
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("shape", [(5, 40), (300, 6), (40, 700)])
@pytest.mark.parametrize("engine", ENGINES)
def test_normalization_far_from_zero_with_gradients(engine: str, shape: tuple[int, ...], name: str) -> None:
    """Values, gradients and theirs, beside the same in float64: the mean does not matter."""
    random = np.random.default_rng(1)
    weights = random.normal(size=shape)

    def orders(x: cr.Tensor, w: cr.Tensor) -> Any:
        def loss(x: cr.Tensor) -> cr.Tensor:
            found = NORMS[name](x)
            return (found.reshape(*shape) * w).sum() if found.size == w.size else found.sum()

        slope = cr.grad(loss)
        return NORMS[name](x), slope(x), cr.grad(lambda x: (slope(x) * w).sum())(x)

    function = compiled(engine, orders)
    for mean, spread in PLACES:
        if name == "standardized" and mean > 1e4 * spread:
            continue  # the user's own difference is from a mean that float32 has rounded
        x = (random.normal(size=shape) * spread + mean).astype("float32")
        wide = orders(cr.tensor(x.astype(float)), cr.tensor(weights))
        found = function(cr.tensor(x), cr.tensor(weights.astype("float32")))
        tolerance = 2e-3 if name == "standardized" and mean else 4e-6
        for got, wanted in zip(found, wide):
            scale = float(np.abs(wanted.numpy()).max())
            np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seconds", [600, 3600, 86_400])
def test_batch_norm_of_moments_in_time(engine: str, seconds: int) -> None:
    """Unix seconds of one hour: float32 has them to two minutes, and of those nothing is lost."""
    moments = 1.7e9 + np.random.default_rng(0).uniform(0, seconds, size=(256, 1))
    x = moments.astype("float32").astype(float)
    layer = nn.BatchNorm1d(1)
    found = compiled(engine, lambda x: layer(x))(cr.tensor(x.astype("float32"))).detach().numpy()
    wanted = (x - x.mean()) / np.sqrt(x.var() + layer.eps)
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.1 * x.mean(), rtol=2e-7)
    np.testing.assert_allclose(layer.running_var.numpy(), 0.9 + 0.1 * x.var(ddof=1), rtol=2e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("first", [0.0, 3e4, -1e9])
def test_a_first_entry_far_from_all_others(engine: str, first: float) -> None:
    """Distances are taken from the first entry: where it lies alone the spread is as large as its distance."""
    x = (np.random.default_rng(0).normal(size=(400, 3)) + 1e4).astype("float32")
    x[0] = first
    wide = x.astype(float)
    found = compiled(engine, lambda x: (cr.var(x, axis=0), F.batch_norm(x, None, None, training=True)))(
        cr.tensor(x)
    )
    np.testing.assert_allclose(found[0].numpy(), wide.var(0), rtol=1e-5)
    normal = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5)
    np.testing.assert_allclose(found[1].numpy(), normal, atol=20 * 2**-23 * 2)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("number", [0.1, 1e8, -7.7e-20, 3e30])
@pytest.mark.parametrize("rows", [1, 2, 3, 1000])
def test_equal_entries_have_no_variance(engine: str, number: float, rows: int) -> None:
    x = cr.tensor(np.full((rows, 2), number, "float32"))
    found = compiled(engine, lambda x: (cr.var(x, axis=0), cr.std(x), cr.mean(x - x[:1])))(x)
    assert [one.tolist() for one in found] == [[0.0, 0.0], 0.0, 0.0]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_variance_of_nothing_and_of_what_is_not_finite(engine: str) -> None:
    function = compiled(engine, lambda x: cr.var(x, axis=0))
    assert np.isnan(function(cr.zeros((0, 2))).numpy()).all()
    assert function(cr.zeros((3, 0))).shape == (0,)
    for bad in (math.inf, -math.inf, math.nan):
        found = function(cr.tensor([[1.0, bad], [2.0, 3.0], [4.0, 5.0]])).tolist()
        assert found[0] == pytest.approx(14 / 9) and math.isnan(found[1])


# ----------------------------------------------------------------------------------- the audit, the rule


@pytest.mark.skipif(not available(), reason="needs llvmlite")
@pytest.mark.parametrize("name", ["running", "rows", "product", "pixels"])
def test_the_audit_sees_totals_that_are_kept_too_narrow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's rule without its counterpart in the compiler."""
    functions: dict[str, Callable[[cr.Tensor], Any]] = {
        "running": lambda x: cr.cumulative_sum(x, axis=0),
        "rows": lambda x: x.sum(axis=0),
        "product": lambda x: x.T @ x,
        "pixels": lambda x: F.conv1d(x.T.reshape(1, 2, -1), x.T.reshape(2, 1, -1), groups=2),
    }
    x = cr.tensor(np.full((400_000, 20 if name == "rows" else 2), 0.1, "float32"))

    def narrow(dtype: Any, *_: Any) -> Any:
        return dtype

    monkeypatch.setenv("CHAINRULE_CACHE", "0")
    right = cr.compile(functions[name])
    right(x)
    assert right.audit(x).ok
    for module, given in ((folds, ("kept_in", "running_in")), (contraction, ("kept_in",))):
        for one in given:
            monkeypatch.setattr(module, one, narrow)
    monkeypatch.setattr(product, "_DEPTH", 1 << 30)
    monkeypatch.setattr(nested, "_FEW", 1 << 30)
    wrong = cr.compile(lambda x: functions[name](x))
    audit = wrong.audit(x)
    assert not audit.ok and audit.differences[0].kind == "value"


def test_one_rule_for_every_engine() -> None:
    f32, f64 = np.dtype("float32"), np.dtype("float64")
    assert totals.kept_in(f32, 1 << 20) == totals.running_in(f32) == f64
    assert totals.kept_in(f32, totals.ROWS) == f32
    for other in (f64, np.dtype("int32"), np.dtype("bool")):
        assert totals.kept_in(other, 1 << 20) == totals.running_in(other) == other
    assert totals.product_roundings(10) == 10 and totals.product_roundings(1 << 30) < 600


@pytest.mark.skipif(not available(), reason="needs llvmlite")
def test_bits_of_long_sums_do_not_depend_on_the_number_of_threads() -> None:
    random = np.random.default_rng(0)
    x = cr.tensor(random.normal(size=(20_000, 70)).astype("float32"))
    function = cr.compile(lambda x: (x.sum(axis=0), x.T @ x, x.T.sum(axis=1), cr.var(x, axis=0), x.var()))
    before, found = cr.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            cr.set_num_threads(threads)
            found.append(b"".join(one.numpy().tobytes() for one in function(x)))
    finally:
        cr.set_num_threads(before)
    assert len(set(found)) == 1
