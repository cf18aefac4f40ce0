"""Composite functions: stable at the extremes, equal to exact arithmetic and to PyTorch, clear about mistakes."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F

INF = math.inf


def random(*shape, seed=0, low=-3.0, high=3.0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def gradient(f, x):
    tensor = cr.tensor(np.asarray(x, np.float64), requires_grad=True)
    value = f(tensor)
    weights = np.arange(1.0, value.size + 1).reshape(value.shape)
    (value * weights).sum().backward()
    return value.detach().numpy(), tensor.grad.numpy()


# ---------------------------------------------------------------------------------- against exact numbers

ROWS = [
    [1e4, -1e4, 0.0],
    [-1e4, -1e4, -1e4 + 1],
    [1e4, 1e4, 1e4 - 3],
    [0.0, -INF, 1.0],
    [-INF, -INF, 5.0],
    [700.0, 710.0, 720.0],
    [1e-12, 0.0, -1e-12],
    [-800.0, 3.0, 2.5],
]


def exact_softmax(row):
    with mpmath.workdps(60):
        powers = [mpmath.exp(mpmath.mpf(x)) if x > -INF else mpmath.mpf(0) for x in row]
        total = mpmath.fsum(powers)
        return [power / total for power in powers], mpmath.log(total)


@pytest.mark.parametrize("row", ROWS)
def test_the_softmax_family_equals_exact_arithmetic(row):
    shares, total = exact_softmax(row)
    exact = [float(share) for share in shares]
    value, slope = gradient(lambda x: F.logsumexp(x), row)
    np.testing.assert_allclose(value, float(total), rtol=1e-14)
    np.testing.assert_allclose(slope, exact, rtol=1e-12, atol=1e-300)
    value, slope = gradient(F.softmax, row)
    np.testing.assert_allclose(value, exact, rtol=1e-12, atol=1e-300)
    weights = np.arange(1.0, 4.0)
    want = [share * (weight - float(np.dot(exact, weights))) for share, weight in zip(exact, weights)]
    np.testing.assert_allclose(slope, want, rtol=1e-9, atol=1e-14)
    value, slope = gradient(F.log_softmax, row)
    logs = [float(mpmath.mpf(x) - total) if x > -INF else -INF for x in row]
    np.testing.assert_allclose(value, logs, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(
        slope, [weight - 6 * share for weight, share in zip(weights, exact)], rtol=1e-12, atol=1e-14
    )


def test_rows_without_any_finite_logit():
    nothing = np.full(3, -INF)
    assert F.logsumexp(nothing).item() == -INF
    assert np.isnan(F.softmax(nothing).numpy()).all()
    assert F.logsumexp(cr.tensor([INF, 0.0])).item() == INF
    assert F.softmax(cr.zeros((2, 0))).shape == (2, 0) and F.logsumexp(cr.zeros((2, 0))).tolist() == [
        -INF,
        -INF,
    ]


def test_a_masked_row_gives_its_gradient_to_the_others_only():
    x = cr.tensor([[1.0, -INF, 2.0]], requires_grad=True)
    F.cross_entropy(x, cr.asarray([2])).backward()
    share = math.exp(1) / (math.exp(1) + math.exp(2))
    np.testing.assert_allclose(x.grad.numpy(), [[share, 0.0, -share]], rtol=1e-6)


@pytest.mark.parametrize("z", [-1e4, -745.0, -40.0, -1.0, -1e-9, 0.0, 1e-9, 1.0, 40.0, 745.0, 1e4])
def test_softplus_and_bce_equal_exact_arithmetic(z):
    with mpmath.workdps(60):
        plus = mpmath.log1p(mpmath.exp(mpmath.mpf(z)))
        share = 1 / (1 + mpmath.exp(-mpmath.mpf(z)))
        plus, share = float(plus), float(share)
    value, slope = gradient(F.softplus, z)
    assert value == pytest.approx(plus, rel=1e-14, abs=1e-300) and slope == pytest.approx(
        share, rel=1e-13, abs=1e-300
    )
    for y in (0.0, 0.3, 1.0):
        value, slope = gradient(lambda x, y=y: F.binary_cross_entropy_with_logits(x, y), z)
        assert value == pytest.approx(plus - z * y, rel=1e-12, abs=1e-12)
        assert slope == pytest.approx(share - y, rel=1e-12, abs=1e-15)


def test_binary_cross_entropy_at_the_ends():
    value, slope = gradient(
        lambda p: F.binary_cross_entropy(p, [0.0, 1.0, 0.25], reduction="none"), [0.0, 1.0, 0.25]
    )
    assert value[:2].tolist() == [0.0, 0.0] and slope[:2].tolist() == [1.0, -2.0]
    assert slope[2] == pytest.approx(0.0, abs=1e-15)
    assert F.binary_cross_entropy([0.0], [1.0]).item() == 100.0


def test_a_probability_of_zero_costs_nothing_even_where_the_logit_is_minus_infinity():
    logits = cr.tensor([[0.0, -INF]], requires_grad=True)
    loss = F.cross_entropy(logits, cr.tensor([[1.0, 0.0]]))
    loss.backward()
    assert loss.item() == 0.0 and logits.grad.tolist() == [[0.0, 0.0]]


# ----------------------------------------------------------------------------------------- against PyTorch


def compared(torch, ours, theirs, *arrays):
    """Values and gradients in float64, for the same arrays; the first one is differentiated."""
    x = cr.tensor(arrays[0], requires_grad=True)
    value = ours(x, *map(cr.asarray, arrays[1:]))
    z = torch.tensor(arrays[0], dtype=torch.float64, requires_grad=True)
    wanted = theirs(z, *map(torch.tensor, arrays[1:]))
    assert value.shape == tuple(wanted.shape) and value.dtype == cr.float64
    np.testing.assert_allclose(value.detach().numpy(), wanted.detach().numpy(), rtol=1e-12, atol=1e-12)
    weights = np.arange(1.0, value.size + 1).reshape(value.shape)
    (value * weights).sum().backward()
    (wanted * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy(), rtol=1e-12, atol=1e-12)


LOGITS = {
    "plain": random(4, 5),
    "extreme": random(4, 5, low=-1e4, high=1e4),
    "equal": np.ones((4, 5)),
    "masked": np.where(random(4, 5, seed=1) > 1.5, -INF, random(4, 5)),
    "one class": random(3, 1),
    "narrow": random(4, 5) * 1e-9,
}


@pytest.mark.parametrize("name", LOGITS)
def test_softmax_family_equals_torch(torch, name):
    x = LOGITS[name]
    for dim in (0, 1, -1):
        compared(torch, lambda x, d=dim: F.softmax(x, dim=d), lambda z, d=dim: torch.softmax(z, d), x)
        compared(torch, lambda x, d=dim: F.logsumexp(x, d), lambda z, d=dim: torch.logsumexp(z, d), x)
        if np.isfinite(x).all():
            compared(
                torch, lambda x, d=dim: F.log_softmax(x, axis=d), lambda z, d=dim: torch.log_softmax(z, d), x
            )
    compared(
        torch, lambda x: F.logsumexp(x, -1, keepdims=True), lambda z: torch.logsumexp(z, -1, keepdim=True), x
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_equal_torch(torch, reduction):
    T = torch.nn.functional
    for name, logits in LOGITS.items():
        if name == "masked":
            continue
        labels = np.arange(len(logits)) % logits.shape[1]
        compared(
            torch,
            lambda x, y: F.cross_entropy(x, y, reduction=reduction),
            lambda z, y: T.cross_entropy(z, y, reduction=reduction),
            logits,
            labels,
        )
        shares = np.random.default_rng(2).dirichlet(np.ones(logits.shape[1]), len(logits))
        compared(
            torch,
            lambda x, y: F.cross_entropy(x, y, reduction=reduction),
            lambda z, y: T.cross_entropy(z, y, reduction=reduction),
            logits,
            shares,
        )
        yes = (random(*logits.shape, seed=3) > 0).astype(float)
        compared(
            torch,
            lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction=reduction),
            lambda z, y: T.binary_cross_entropy_with_logits(z, y, reduction=reduction),
            logits,
            yes,
        )
        compared(
            torch,
            lambda x, y: F.mse_loss(x, y, reduction=reduction),
            lambda z, y: T.mse_loss(z, y, reduction=reduction),
            logits,
            yes,
        )
    chances = random(3, 4, low=0.01, high=0.99)
    compared(
        torch,
        lambda x, y: F.binary_cross_entropy(x, y, reduction=reduction),
        lambda z, y: T.binary_cross_entropy(z, y, reduction=reduction),
        chances,
        random(3, 4, low=0.0, high=1.0, seed=4),
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_of_images_and_single_items_equals_torch(torch, reduction):
    theirs = torch.nn.functional.cross_entropy
    for logits, classes in (
        (random(2, 3, 4, 5), np.random.default_rng(5).integers(0, 3, (2, 4, 5))),
        (random(4), np.asarray(2)),
    ):
        compared(
            torch,
            lambda x, y: F.cross_entropy(x, y, reduction=reduction),
            lambda z, y: theirs(z, y, reduction=reduction),
            logits,
            classes,
        )


def test_linear_and_softplus_equal_torch(torch):
    weight, bias = random(4, 3), random(4)
    for shape in ((3,), (2, 3), (5, 2, 3)):
        compared(torch, F.linear, torch.nn.functional.linear, random(*shape), weight, bias)
    compared(torch, F.softplus, torch.nn.functional.softplus, random(5, low=-10, high=10))


# --------------------------------------------------------------------------------------- without PyTorch


def test_reductions_and_labels_by_hand():
    logits = np.log([[0.2, 0.3, 0.5], [0.1, 0.6, 0.3]])
    costs = [-math.log(0.5), -math.log(0.6)]
    for labels in ([2, 1], np.asarray([2, 1], np.uint8), cr.asarray([2, 1])):
        assert F.cross_entropy(logits, labels, reduction="none").tolist() == pytest.approx(costs)
        assert F.cross_entropy(logits, labels).item() == pytest.approx(sum(costs) / 2)
        assert F.cross_entropy(logits, labels, reduction="sum").item() == pytest.approx(sum(costs))
    x = cr.tensor(logits, requires_grad=True)
    F.cross_entropy(x, cr.asarray([2, 1])).backward()
    np.testing.assert_allclose(x.grad.numpy(), [[0.1, 0.15, -0.25], [0.05, -0.2, 0.15]], rtol=1e-12)
    assert F.mse_loss([1, 2], [1.5, 2.5]).item() == 0.25


def test_absorb_and_second_derivatives():
    assert (
        F.absorb(0.0, math.nan).item() == 0.0
        and F.absorb(-INF, 0.0).item() == 0.0
        and math.isnan(F.absorb(1.0, math.nan).item())
    )
    assert F.absorb(cr.ones((2, 1)), cr.ones(3)).shape == (2, 3)
    x = cr.tensor(random(3), dtype=cr.float64)
    share = np.exp(x.numpy()) / np.exp(x.numpy()).sum()
    np.testing.assert_allclose(
        cr.hessian(F.logsumexp)(x).numpy(), np.diag(share) - np.outer(share, share), atol=1e-12
    )


def test_float32_stays_float32():
    x = cr.ones((2, 3))
    results = [
        F.softmax(x),
        F.log_softmax(x),
        F.logsumexp(x),
        F.softplus(x),
        F.mse_loss(x, np.ones((2, 3))),
        F.cross_entropy(x, [0, 1]),
        F.binary_cross_entropy(x * 0.5, np.ones((2, 3))),
        F.binary_cross_entropy_with_logits(x, [[0, 1, 0]] * 2),
    ]
    assert {result.dtype for result in results} == {cr.float32}


def test_every_call_is_a_scope_of_its_own():
    x = cr.tensor(random(2, 3), requires_grad=True)
    loss = F.cross_entropy(x, cr.asarray([0, 1]))
    paths, pending = set(), [loss.node]
    while pending:
        node = pending.pop()
        paths |= {node.scope.path} if node.scope is not None else set()
        pending += node.inputs
    assert paths == {"cross_entropy", "cross_entropy/log_softmax", "cross_entropy/mean"}
    assert {path.split("/")[0] for path in paths} == {"cross_entropy"}
    assert "test_functional.py" in str(loss.node.origin)


MISTAKES = {
    "linear": (
        lambda: F.linear(cr.ones((2, 3)), cr.ones((4, 5))),
        cr.ShapeError,
        [r"\(2, 3\)", r"\(4, 5\)", "5 features"],
    ),
    "linear dtype": (
        lambda: F.linear(cr.ones((2, 3), dtype=cr.float64), cr.ones((4, 3))),
        cr.DtypeError,
        ["float64", "float32", r"x.astype\('float32'\)"],
    ),
    "mse": (
        lambda: F.mse_loss(cr.ones((4, 1)), cr.ones(4)),
        cr.ShapeError,
        [r"\(4, 1\)", r"\(4,\)", "Reshape the target"],
    ),
    "bce shapes": (
        lambda: F.binary_cross_entropy(cr.ones((4, 1)), cr.ones(4)),
        cr.ShapeError,
        [r"\(4, 1\)", r"\(4,\)"],
    ),
    "bce range": (
        lambda: F.binary_cross_entropy(cr.tensor([1.5]), cr.ones(1)),
        cr.ArgumentError,
        ["from 0 to 1; got 1.5", "with_logits"],
    ),
    "labels above": (
        lambda: F.cross_entropy(cr.ones((2, 3)), [0, 3]),
        cr.BoundsError,
        ["classes from 0 to 2; got 0 to 3", "labels"],
    ),
    "labels below": (lambda: F.cross_entropy(cr.ones((2, 3)), [-1, 0]), cr.BoundsError, ["got -1 to 0"]),
    "labels as floats": (
        lambda: F.cross_entropy(cr.ones((2, 3)), cr.ones(2)),
        cr.DtypeError,
        [r"integers of shape \(2,\)", r"astype\(int64\)"],
    ),
    "labels of another shape": (
        lambda: F.cross_entropy(cr.ones((2, 3)), cr.asarray([[0], [1]])),
        cr.ShapeError,
        [r"shape \(2,\)", r"got \(2, 1\)"],
    ),
    "no classes": (lambda: F.cross_entropy(cr.tensor(1.0), 0), cr.ShapeError, ["axis of classes"]),
    "reduction": (
        lambda: F.mse_loss([1.0], [1.0], "average"),
        cr.ArgumentError,
        ["'mean', 'sum' or 'none'; got 'average'"],
    ),
    "axis and dim": (lambda: F.softmax(cr.ones((2, 2)), 0, dim=1), cr.ArgumentError, ["axis=0 and dim=1"]),
    "axis": (
        lambda: F.softmax(cr.ones((2, 2)), 2),
        cr.ShapeError,
        ["softmax needs an axis from -2 to 1; got 2"],
    ),
    "no axis": (lambda: F.logsumexp(1.0), cr.ShapeError, ["a single number has none"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_name_the_shapes_the_fix_and_the_line(name):
    act, error, messages = MISTAKES[name]
    for message in messages:
        with pytest.raises(error, match=message) as caught:
            act()
    assert "test_functional.py" in str(caught.value)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_axis_and_dim_mean_the_same(name):
    x = cr.tensor(random(2, 3))
    function = getattr(F, name)
    want = function(x.T).numpy().T
    np.testing.assert_allclose(function(x, dim=0).numpy(), want, rtol=1e-14)
    np.testing.assert_allclose(function(x, axis=0).numpy(), want, rtol=1e-14)
    np.testing.assert_allclose(function(x, 0).numpy(), want, rtol=1e-14)
