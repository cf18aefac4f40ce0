"""Activations: equal to exact arithmetic and to PyTorch, with limits at both ends, in both engines and orders."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn

INF, NAN = math.inf, math.nan


@dataclass(frozen=True)
class Activation:
    """A function with options, its layer, PyTorch's names, and (value, slope) at −∞ and at ∞."""

    function: Callable[[Any], Any]
    layer: Callable[[], nn.Module]
    theirs: str
    options: tuple[Any, ...] = ()
    ends: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (INF, 1.0))
    kinks: tuple[float, ...] = ()


FLAT = ((0.0, 0.0), (1.0, 0.0))
ACTIVATIONS = {
    "relu": Activation(F.relu, nn.ReLU, "ReLU", kinks=(0.0,)),
    "relu6": Activation(F.relu6, nn.ReLU6, "ReLU6", ends=((0.0, 0.0), (6.0, 0.0)), kinks=(0.0, 6.0)),
    "leaky_relu": Activation(
        F.leaky_relu, nn.LeakyReLU, "LeakyReLU", ends=((-INF, 0.01), (INF, 1.0)), kinks=(0.0,)),
    "leaky_relu steep": Activation(
        lambda x: F.leaky_relu(x, 0.3), lambda: nn.LeakyReLU(0.3), "LeakyReLU", (0.3,), ((-INF, 0.3), (INF, 1.0)),
        (0.0,)),
    "leaky_relu flat": Activation(
        lambda x: F.leaky_relu(x, 0.0), lambda: nn.LeakyReLU(0.0), "LeakyReLU", (0.0,), kinks=(0.0,)),
    "elu": Activation(F.elu, nn.ELU, "ELU", ends=((-1.0, 0.0), (INF, 1.0))),
    "elu 2.5": Activation(
        lambda x: F.elu(x, 2.5), lambda: nn.ELU(2.5), "ELU", (2.5,), ((-2.5, 0.0), (INF, 1.0)), (0.0,)),
    "celu 2.5": Activation(
        lambda x: F.celu(x, 2.5), lambda: nn.CELU(2.5), "CELU", (2.5,), ((-2.5, 0.0), (INF, 1.0))),
    "celu": Activation(F.celu, nn.CELU, "CELU", ends=((-1.0, 0.0), (INF, 1.0))),
    "selu": Activation(
        F.selu, nn.SELU, "SELU", ends=((-1.7580993408473766, 0.0), (INF, 1.0507009873554805)), kinks=(0.0,)),
    "gelu": Activation(F.gelu, nn.GELU, "GELU"),
    "gelu tanh": Activation(lambda x: F.gelu(x, "tanh"), lambda: nn.GELU("tanh"), "GELU", ("tanh",)),
    "silu": Activation(F.silu, nn.SiLU, "SiLU"),
    "mish": Activation(F.mish, nn.Mish, "Mish"),
    "softplus": Activation(F.softplus, nn.Softplus, "Softplus"),
    "softplus steep": Activation(
        lambda x: F.softplus(x, 3.0), lambda: nn.Softplus(3.0), "Softplus", (3.0,)),
    "softplus threshold": Activation(
        lambda x: F.softplus(x, 0.5, 1.0), lambda: nn.Softplus(0.5, 1.0), "Softplus", (0.5, 1.0), kinks=(2.0,)),
    "sigmoid": Activation(F.sigmoid, nn.Sigmoid, "Sigmoid", ends=FLAT),
    "logsigmoid": Activation(F.logsigmoid, nn.LogSigmoid, "LogSigmoid", ends=((-INF, 1.0), (0.0, 0.0))),
    "tanh": Activation(F.tanh, nn.Tanh, "Tanh", ends=((-1.0, 0.0), (1.0, 0.0))),
    "hardtanh": Activation(
        F.hardtanh, nn.Hardtanh, "Hardtanh", ends=((-1.0, 0.0), (1.0, 0.0)), kinks=(-1.0, 1.0)),
    "hardtanh uneven": Activation(
        lambda x: F.hardtanh(x, -0.5, 2.0), lambda: nn.Hardtanh(-0.5, 2.0), "Hardtanh", (-0.5, 2.0),
        ((-0.5, 0.0), (2.0, 0.0)), (-0.5, 2.0)),
    "hardsigmoid": Activation(F.hardsigmoid, nn.Hardsigmoid, "Hardsigmoid", ends=FLAT, kinks=(-3.0, 3.0)),
    "hardswish": Activation(F.hardswish, nn.Hardswish, "Hardswish", kinks=(-3.0, 3.0)),
}  # fmt: skip
ALONG_AXIS = {
    "softmax": (F.softmax, nn.Softmax, "Softmax"),
    "log_softmax": (F.log_softmax, nn.LogSoftmax, "LogSoftmax"),
    "softmin": (F.softmin, nn.Softmin, "Softmin"),
}
NAMES = pytest.mark.parametrize("name", ACTIVATIONS)
DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])


def samples(name: str, dtype: str = "float64") -> np.ndarray:
    """Random numbers, the kinks, and numbers far out and next to 0."""
    random = np.random.default_rng(len(name))
    near, wide = random.normal(size=80) * 2, random.uniform(-30, 30, size=60)
    fixed = [0.0, -0.0, 1e-9, -1e-9, 1e-30, -1e-30, 20.0, -20.0, 1e4, -1e4, 1e30, -1e30, 88.8, -88.8, -104.0]
    return np.concatenate([near, wide, fixed, ACTIVATIONS[name].kinks]).astype(dtype)


def with_slopes(function: Callable[[Any], Any], x: Any, weights: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """The values, and the gradient of their weighted sum."""
    given = cr.tensor(x, requires_grad=True)
    values = function(given)
    (values if weights is None else values * weights).sum().backward()
    return values.detach().numpy(), given.grad.numpy()


# ------------------------------------------------------------------------------------------ against PyTorch


@NAMES
@DTYPES
def test_values_and_gradients_equal_torch(torch: Any, name: str, dtype: str) -> None:
    case, x = ACTIVATIONS[name], samples(name, dtype)
    weights = np.random.default_rng(1).normal(size=x.shape).astype(dtype)
    value, slope = with_slopes(case.function, x, weights)
    given = torch.tensor(x, requires_grad=True)
    wanted = getattr(torch.nn, case.theirs)(*case.options)(given)
    (wanted * torch.tensor(weights)).sum().backward()
    assert value.dtype == slope.dtype == x.dtype
    wanted, wanted_slope = wanted.detach().numpy(), given.grad.numpy()
    # The one difference: PyTorch's tanh form of GELU overflows far out, where ours goes on.
    fine = np.isfinite(wanted) & np.isfinite(wanted_slope)
    assert fine.sum() >= len(x) - 2 and np.isfinite(value).all() and np.isfinite(slope).all()
    relative, absolute = (1e-12, 1e-14) if dtype == "float64" else (3e-6, 2e-6)
    np.testing.assert_allclose(value[fine], wanted[fine], relative, absolute)
    if name == "hardsigmoid":  # PyTorch rounds its 1/6 to float32
        relative = max(relative, 3e-8)
    np.testing.assert_allclose(slope[fine], wanted_slope[fine], relative, absolute)


@pytest.mark.parametrize("name", ALONG_AXIS)
@DTYPES
def test_shares_equal_torch(torch: Any, name: str, dtype: str) -> None:
    function, layer, theirs = ALONG_AXIS[name]
    random = np.random.default_rng(3)
    inputs = [random.normal(size=(4, 5)), random.uniform(-1e4, 1e4, (3, 4, 2)), random.normal(size=6) * 1e-9]
    for x in (one.astype(dtype) for one in inputs):
        weights = random.normal(size=x.shape).astype(dtype)
        for dim in (*range(x.ndim), -1):
            given = torch.tensor(x, requires_grad=True)
            wanted = getattr(torch.nn, theirs)(dim)(given)
            (wanted * torch.tensor(weights)).sum().backward()
            tolerance = 1e-12 if dtype == "float64" else 2e-6
            for call in (lambda x, d=dim: function(x, dim=d), layer(dim), layer(axis=dim)):
                value, slope = with_slopes(call, x, weights)
                np.testing.assert_allclose(value, wanted.detach().numpy(), tolerance, tolerance)
                np.testing.assert_allclose(slope, given.grad.numpy(), tolerance, tolerance)


@NAMES
def test_layers_are_shown_as_in_torch(torch: Any, name: str) -> None:
    case = ACTIVATIONS[name]
    assert repr(case.layer()) == repr(getattr(torch.nn, case.theirs)(*case.options))
    if case.theirs in ("ReLU", "ReLU6", "LeakyReLU", "ELU", "CELU", "SELU", "SiLU", "Mish", "Hardtanh"):
        ours, theirs = (getattr(where, case.theirs)(*case.options, inplace=True) for where in (nn, torch.nn))
        assert repr(ours) == repr(theirs)


def test_axes_are_shown_as_in_torch(torch: Any) -> None:
    for _, layer, theirs in ALONG_AXIS.values():
        assert repr(layer(dim=1)) == repr(layer(axis=1)) == repr(getattr(torch.nn, theirs)(dim=1))


# ------------------------------------------------------------------------------------- against exact numbers

EXACT: dict[str, Callable[[Any], Any]] = {
    "elu": lambda x: x if x > 0 else mpmath.expm1(x),
    "celu 2.5": lambda x: x if x > 0 else mpmath.expm1(x / mpmath.mpf(2.5)) * mpmath.mpf(2.5),
    "gelu": lambda x: x * mpmath.ncdf(x),
    "gelu tanh": lambda x: (
        x / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)))
    ),
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "mish": lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x))),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "logsigmoid": lambda x: -mpmath.log1p(mpmath.exp(-x)),
    "tanh": mpmath.tanh,
}
POINTS = (-1e4, -745.0, -40.0, -17.0, -3.0, -1.0, -1e-9, 1e-9, 0.5, 2.0, 17.0, 40.0, 1e4)


@pytest.mark.parametrize("name", EXACT)
def test_values_and_slopes_equal_exact_arithmetic(name: str) -> None:
    value, slope = with_slopes(ACTIVATIONS[name].function, np.asarray(POINTS))
    with mpmath.workdps(60):
        wanted = [float(EXACT[name](mpmath.mpf(x))) for x in POINTS]
        slopes = [float(mpmath.diff(EXACT[name], mpmath.mpf(x))) for x in POINTS]
    np.testing.assert_allclose(value, wanted, rtol=2e-15, atol=1e-15)
    np.testing.assert_allclose(slope, slopes, rtol=4e-15, atol=1e-15)


def test_slopes_keep_their_digits_where_outputs_have_none_left() -> None:
    x = np.asarray([-30.0, -40.0, -100.0])
    np.testing.assert_allclose(with_slopes(F.elu, x)[1], np.exp(x), rtol=1e-14)
    np.testing.assert_allclose(with_slopes(F.logsigmoid, -x)[1], np.exp(x), rtol=1e-12)
    np.testing.assert_allclose(with_slopes(F.softplus, x)[1], np.exp(x), rtol=1e-12)


def test_softplus_without_a_threshold_is_the_formula_everywhere() -> None:
    with mpmath.workdps(60):
        wanted = [float(mpmath.log1p(mpmath.exp(mpmath.mpf(x)))) for x in POINTS]
    np.testing.assert_allclose(F.softplus(np.asarray(POINTS), 1.0, INF).numpy(), wanted, rtol=1e-14)
    assert (
        F.softplus(np.asarray([21.0])).item() == 21.0 < F.softplus(np.asarray([21.0]), threshold=INF).item()
    )


# ---------------------------------------------------------------------------------------- ends, NaN, kinks


@NAMES
@DTYPES
@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_limits_at_both_ends_and_nan_in_the_middle(name: str, dtype: str, engine: str) -> None:
    case = ACTIVATIONS[name]
    run = cr.compile if engine == "compiled" else lambda function: function
    x = cr.tensor([-INF, INF, NAN], dtype=dtype)
    value = run(case.function)(x).numpy()
    slope = run(cr.grad(lambda v: case.function(v).sum()))(x).numpy()
    (low, low_slope), (high, high_slope) = case.ends
    np.testing.assert_allclose(value, [low, high, NAN], rtol=3e-7)
    np.testing.assert_allclose(slope[:2], [low_slope, high_slope], rtol=3e-7)


@NAMES
def test_nothing_has_to_be_rescued_at_finite_numbers(name: str) -> None:
    """Strong zero would save these too, but each rescue is counted and shown to the user."""
    cr.rescues(reset=True)
    with_slopes(ACTIVATIONS[name].function, samples(name)[np.abs(samples(name)) < 1e5])
    assert not cr.rescues(reset=True)


@NAMES
def test_second_derivatives_vanish_far_out(name: str) -> None:
    x = cr.tensor([-INF, -1e30, -1e4, 1e4, 1e30, INF], dtype="float64")
    function = ACTIVATIONS[name].function
    second = cr.grad(lambda v: cr.grad(lambda u: function(u).sum())(v).sum())(x)
    np.testing.assert_array_equal(second.numpy(), np.zeros(6))


@NAMES
def test_both_modes_and_orders_equal_numerical_differentiation(name: str) -> None:
    x = np.random.default_rng(7).uniform(0.2, 2.7, 8) * np.asarray([1, -1] * 4)
    kinks = np.asarray([0.0, *ACTIVATIONS[name].kinks])
    x = x[np.abs(x[:, None] - kinks).min(axis=1) > 0.05]
    assert len(x) >= 6 and cr.testing.check_grads(ACTIVATIONS[name].function, (cr.tensor(x),), order=2).ok


@pytest.mark.parametrize("name", ALONG_AXIS)
def test_shares_equal_numerical_differentiation(name: str) -> None:
    function = ALONG_AXIS[name][0]
    x = cr.tensor(np.random.default_rng(7).normal(size=(2, 3)))
    for axis in (0, 1):
        assert cr.testing.check_grads(lambda x, a=axis: function(x, a), (x,), order=2).ok


# ------------------------------------------------------------------------------------------------ compiled


@NAMES
@DTYPES
def test_compiled_steps_equal_eager_ones(name: str, dtype: str) -> None:
    layer, x = ACTIVATIONS[name].layer(), samples(name, dtype)
    x = x[np.abs(x) < 1e5]  # beyond, a sum of float32 has no digits left for the others
    weights = cr.tensor(np.random.default_rng(2).normal(size=x.shape).astype(dtype))

    def learner() -> tuple[cr.Tensor, Callable[[], Any]]:
        w = cr.tensor(x, requires_grad=True)

        def step() -> Any:
            loss = (layer(w) * weights).mean()
            loss.backward()
            slopes = w.grad
            with cr.no_grad():
                w.copy_(w - 0.1 * w.grad)
            w.grad = None
            return loss, slopes

        return w, step

    (one, eager), (other, step) = learner(), learner()
    step = cr.compile(step)
    tolerance = 1e-13 if dtype == "float64" else 3e-6
    for _ in range(3):
        (loss, slopes), (wanted, wanted_slopes) = step(), eager()
        np.testing.assert_allclose(loss.item(), wanted.item(), tolerance, tolerance)
        np.testing.assert_allclose(slopes.numpy(), wanted_slopes.numpy(), tolerance, tolerance)
        np.testing.assert_allclose(
            other.detach().numpy(), one.detach().numpy(), 10 * tolerance, 10 * tolerance
        )


@pytest.mark.parametrize("name", ALONG_AXIS)
@DTYPES
def test_compiled_shares_equal_eager_ones(name: str, dtype: str) -> None:
    function = ALONG_AXIS[name][0]
    x = cr.tensor(np.random.default_rng(5).uniform(-50, 50, (3, 4)).astype(dtype))
    tolerance = 1e-13 if dtype == "float64" else 3e-6
    for axis in (0, 1):
        both = lambda x, a=axis: (function(x, a), cr.grad(lambda v: (function(v, a) ** 2).sum())(x))
        for got, wanted in zip(cr.compile(both)(x), both(x)):
            np.testing.assert_allclose(got.numpy(), wanted.numpy(), tolerance, tolerance)


# ------------------------------------------------------------------------------------- what users write


@NAMES
def test_layers_are_the_functions(name: str) -> None:
    case, x = ACTIVATIONS[name], cr.tensor(samples(name, "float32"))
    layer = case.layer()
    np.testing.assert_array_equal(layer(x).numpy(), case.function(x).numpy())
    assert not list(layer.parameters()) and not layer.state_dict()
    assert case.function(cr.zeros((2, 0, 3))).shape == (2, 0, 3) and case.function(1.0).shape == ()
    if name != "relu":  # which keeps integers
        assert case.function(cr.asarray([1, 2])).dtype == cr.float32


def test_in_place_layers_leave_their_input_alone() -> None:
    x = cr.tensor([-1.0, 2.0])
    assert nn.ReLU(inplace=True)(x).tolist() == [0.0, 2.0] and x.tolist() == [-1.0, 2.0]


@pytest.mark.parametrize(("name", "inside"), [("relu6", "hardtanh"), ("selu", "elu"), ("softmin", "softmax")])
def test_every_call_is_one_scope(name: str, inside: str) -> None:
    x = cr.tensor([0.5, -0.5], requires_grad=True)
    result = getattr(F, name)(x)
    paths, pending = set(), [result.node]
    while pending:
        node = pending.pop()
        paths |= {node.scope.path} if node.scope is not None else set()
        pending += node.inputs
    assert paths == {name} and inside not in paths


MISTAKES = {
    "leaky_relu": (
        lambda: F.leaky_relu([1.0], "steep"),
        "needs a number as negative_slope; got 'steep'. Change negative_slope=",
    ),
    "LeakyReLU": (lambda: nn.LeakyReLU(True), "LeakyReLU needs a number as negative_slope; got True"),
    "celu": (lambda: F.celu([1.0], 0.0), "celu needs a number above 0 as alpha; got 0.0"),
    "CELU": (lambda: nn.CELU(-1), "CELU needs a number above 0 as alpha; got -1"),
    "gelu": (lambda: F.gelu([1.0], "erf"), "approximate must be 'none' or 'tanh'; got 'erf'"),
    "GELU": (lambda: nn.GELU(True), "approximate must be 'none' or 'tanh'; got True"),
    "hardtanh": (
        lambda: F.hardtanh([1.0], 1.0, -1.0),
        "needs min_val not above max_val; got 1 and -1. Exchange",
    ),
    "Hardtanh": (lambda: nn.Hardtanh(1.0, 1.0), "Hardtanh needs min_val below max_val; got 1 and 1"),
    "softplus": (lambda: F.softplus([1.0], 0), "a beta other than 0; got 0"),
    "Softplus": (lambda: nn.Softplus(threshold=None), "needs a number as threshold; got None"),
    "softplus nan": (lambda: F.softplus([1.0], beta=NAN), "needs a number as beta; got nan"),
    "softmin": (lambda: F.softmin(cr.ones(3), 1), r"softmin needs an axis from -1 to 0; got 1"),
    "Softmax": (lambda: nn.Softmax(1, axis=0), "axis and dim mean the same; got axis=0 and dim=1. Give one"),
    "no axis": (lambda: nn.Softmax(0)(1.0), "a single number has none"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_say_the_rule_the_value_and_the_line(name: str) -> None:
    act, message = MISTAKES[name]
    with pytest.raises((cr.ArgumentError, cr.ShapeError), match=message) as caught:
        act()
    assert "test_activations.py" in str(caught.value)


@pytest.mark.parametrize("bound", [0.0, 1.0, -2.5])
def test_bounds_that_are_equal_leave_one_number(bound: float) -> None:
    x = cr.tensor([-3.0, bound, 3.0], requires_grad=True)
    y = F.hardtanh(x, bound, bound)
    y.sum().backward()
    assert y.tolist() == [bound] * 3 and x.grad.tolist() == [0.0] * 3
    with pytest.raises(cr.ArgumentError, match="needs min_val not above max_val"):
        F.hardtanh(x, bound, bound - 1)
    with pytest.raises(cr.ArgumentError):
        F.hardtanh(x, float("nan"), 1.0)
