"""Losses: every option equal to PyTorch, right at the extremes, the same compiled, and clear about mistakes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn

INF, NAN = math.inf, math.nan
random = np.random.default_rng(11)


@dataclass(frozen=True)
class Loss:
    """A functional loss of PyTorch's name with its input, target and options (arrays are made tensors)."""

    name: str
    input: np.ndarray
    target: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)
    reductions: tuple[str, ...] = ("mean", "sum", "none")
    smooth: bool = True

    def ours(self, x: Any, target: Any, dtype: str = "float64", **more: Any) -> cr.Tensor:
        given = {
            key: one.astype(dtype) if isinstance(one, np.ndarray) else one
            for key, one in self.options.items()
        }
        return getattr(F, self.name)(x, target, **given, **more)

    def layer(self, dtype: str = "float64", **more: Any) -> nn.Module:
        given = {
            key: one.astype(dtype) if isinstance(one, np.ndarray) else one
            for key, one in self.options.items()
        }
        return getattr(nn, LAYERS[self.name])(**given, **more)

    def theirs(self, torch: Any, x: Any, target: Any, dtype: str, **more: Any) -> Any:
        given = {
            key: torch.tensor(one.astype(dtype)) if isinstance(one, np.ndarray) else one
            for key, one in self.options.items()
        }  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the meaning of "mean" in kl_div
            return getattr(torch.nn.functional, self.name)(x, target, **given, **more)


LAYERS = {
    "mse_loss": "MSELoss", "l1_loss": "L1Loss", "huber_loss": "HuberLoss", "smooth_l1_loss": "SmoothL1Loss",
    "binary_cross_entropy": "BCELoss", "binary_cross_entropy_with_logits": "BCEWithLogitsLoss",
    "cross_entropy": "CrossEntropyLoss", "nll_loss": "NLLLoss", "kl_div": "KLDivLoss",
}  # fmt: skip

X, Y = random.normal(size=(4, 5)) * 2, random.normal(size=(4, 5))
Z = random.normal(size=(6, 3)) * 2
LOGP = Z - np.log(np.exp(Z).sum(axis=1, keepdims=True))
P = random.uniform(0.05, 0.95, (4, 5))
YES = (random.random((4, 5)) > 0.5).astype(float)
SOFT = random.random((4, 5))
SHARES = random.dirichlet(np.ones(3), 6)
LABELS = np.asarray([0, 2, 1, 1, 0, 2])
SOME = np.asarray([0, -100, 1, -100, 0, 2])
WEIGHT = np.asarray([0.5, 2.0, 1.25])
IMAGES, PIXELS = random.normal(size=(2, 3, 4, 5)), random.integers(0, 3, (2, 4, 5))
LINES, TOKENS = random.normal(size=(2, 3, 4)), random.integers(0, 3, (2, 4))
GAPS = np.where(random.random((2, 4)) > 0.5, TOKENS, 1)
MIXED = np.moveaxis(random.dirichlet(np.ones(3), (2, 4)), -1, 1)
CE, BCE, BCEL = "cross_entropy", "binary_cross_entropy", "binary_cross_entropy_with_logits"

LOSSES = {
    "mse": Loss("mse_loss", X, Y),
    "mse of one number": Loss("mse_loss", np.asarray(1.5), np.asarray(0.25)),
    "l1": Loss("l1_loss", X, Y, smooth=False),
    "huber": Loss("huber_loss", X, Y),
    "huber 0.3": Loss("huber_loss", X, Y, {"delta": 0.3}),
    "smooth_l1": Loss("smooth_l1_loss", X, Y),
    "smooth_l1 2": Loss("smooth_l1_loss", X, Y, {"beta": 2.0}),
    "smooth_l1 0": Loss("smooth_l1_loss", X, Y, {"beta": 0.0}, smooth=False),
    "bce": Loss(BCE, P, SOFT),
    "bce hard": Loss(BCE, P, YES),
    "bce weight": Loss(BCE, P, SOFT, {"weight": random.random((4, 5))}),
    "bce weight of columns": Loss(BCE, P, YES, {"weight": random.random(5)}),
    "bce weight of rows": Loss(BCE, P, YES, {"weight": random.random((4, 1))}),
    "bce_with_logits": Loss(BCEL, X, SOFT),
    "bce_with_logits hard": Loss(BCEL, X, YES),
    "bce_with_logits weight": Loss(BCEL, X, SOFT, {"weight": random.random((4, 5))}),
    "bce_with_logits pos_weight": Loss(BCEL, X, SOFT, {"pos_weight": random.random(5) * 3}),
    "bce_with_logits one pos_weight": Loss(BCEL, X, YES, {"pos_weight": np.asarray([2.5])}),
    "bce_with_logits both": Loss(
        BCEL, X, YES, {"weight": random.random((4, 1)), "pos_weight": random.random(5) * 3}),
    "ce": Loss(CE, Z, LABELS),
    "ce of one item": Loss(CE, Z[0], np.asarray(2)),
    "ce of lines": Loss(CE, LINES, TOKENS),
    "ce of images": Loss(CE, IMAGES, PIXELS),
    "ce weight": Loss(CE, Z, LABELS, {"weight": WEIGHT}),
    "ce weight of one item": Loss(CE, Z[0], np.asarray(2), {"weight": WEIGHT}),
    "ce weight of images": Loss(CE, IMAGES, PIXELS, {"weight": WEIGHT}),
    "ce ignored": Loss(CE, Z, SOME),
    "ce ignore_index": Loss(CE, LINES, GAPS, {"ignore_index": 1}),
    "ce ignored weight": Loss(CE, Z, SOME, {"weight": WEIGHT}),
    "ce smoothing": Loss(CE, Z, LABELS, {"label_smoothing": 0.1}),
    "ce all smooth": Loss(CE, Z, LABELS, {"label_smoothing": 1.0}),
    "ce smoothing weight": Loss(CE, Z, LABELS, {"label_smoothing": 0.1, "weight": WEIGHT}),
    "ce smoothing ignored": Loss(CE, Z, SOME, {"label_smoothing": 0.1}),
    "ce smoothing of one item": Loss(CE, Z[0], np.asarray(2), {"label_smoothing": 0.1}),
    "ce everything": Loss(
        CE, LINES, GAPS, {"label_smoothing": 0.3, "weight": WEIGHT, "ignore_index": 1}),
    "ce shares": Loss(CE, Z, SHARES),
    "ce shares of one item": Loss(CE, Z[0], SHARES[0]),
    "ce shares of lines": Loss(CE, LINES, MIXED),
    "ce shares weight": Loss(CE, Z, SHARES, {"weight": WEIGHT}),
    "ce shares weight of lines": Loss(CE, LINES, MIXED, {"weight": WEIGHT}),
    "ce shares weight of one item": Loss(CE, Z[0], SHARES[0], {"weight": WEIGHT}),
    "ce shares smoothing": Loss(CE, Z, SHARES, {"label_smoothing": 0.2, "weight": WEIGHT}),
    "nll": Loss("nll_loss", LOGP, LABELS),
    "nll of one item": Loss("nll_loss", LOGP[0], np.asarray(1)),
    "nll of images": Loss("nll_loss", IMAGES, PIXELS, {"weight": WEIGHT}),
    "nll weight ignored": Loss("nll_loss", LOGP, SOME, {"weight": WEIGHT}),
    "nll ignore_index": Loss("nll_loss", LOGP, LABELS, {"ignore_index": 2}),
    "kl_div": Loss("kl_div", LOGP, SHARES, reductions=("mean", "batchmean", "sum", "none")),
    "kl_div of lines": Loss("kl_div", LINES, MIXED, reductions=("batchmean",)),
    "kl_div log_target": Loss(
        "kl_div", LOGP, np.log(SHARES), {"log_target": True}, ("mean", "batchmean", "sum", "none")),
}  # fmt: skip
NAMES = pytest.mark.parametrize("name", LOSSES)
DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])


def in_dtype(target: np.ndarray, dtype: str) -> np.ndarray:
    return target.astype(dtype) if target.dtype.kind == "f" else target


# ------------------------------------------------------------------------------------------ against PyTorch


def compare(
    torch: Any, case: Loss, x: np.ndarray, dtype: str, reduction: str, finite_only: bool = False
) -> None:
    """Value and gradient of the input beside PyTorch's."""
    x, target = x.astype(dtype), in_dtype(case.target, dtype)
    given = torch.tensor(x, requires_grad=True)
    wanted = case.theirs(torch, given, torch.tensor(target), dtype, reduction=reduction)
    weights = np.random.default_rng(5).random(tuple(wanted.shape)).astype(dtype)
    (wanted * torch.tensor(weights)).sum().backward()
    ours = cr.tensor(x, requires_grad=True)
    value = case.ours(ours, cr.asarray(target), dtype, reduction=reduction)
    (value * weights).sum().backward()
    assert value.shape == tuple(wanted.shape) and value.dtype == x.dtype
    tolerance = 1e-12 if dtype == "float64" else 3e-6
    pairs = ((value.detach().numpy(), wanted.detach().numpy()), (ours.grad.numpy(), given.grad.numpy()))
    for one, other in pairs:
        chosen = np.isfinite(other) if finite_only else np.ones(other.shape, bool)
        scale = np.abs(other[chosen]).max(initial=1e-3)
        np.testing.assert_allclose(one[chosen], other[chosen], tolerance, tolerance * min(scale, 1.0))


@NAMES
@DTYPES
def test_values_and_gradients_equal_torch(torch: Any, name: str, dtype: str) -> None:
    case = LOSSES[name]
    for reduction in case.reductions:
        compare(torch, case, case.input, dtype, reduction)


@NAMES
@DTYPES
def test_extremes_equal_torch(torch: Any, name: str, dtype: str) -> None:
    case = LOSSES[name]
    far = np.random.default_rng(3).choice([-1e4, -300.0, -1.0, 0.0, 0.5, 300.0, 1e4], case.input.shape)
    if case.name == BCE:
        far = np.where(np.abs(far) > 1, 1 / (1 + np.exp(-np.clip(far, -20, 20) / 2)), 0.5)
    for reduction in case.reductions:
        compare(torch, case, far, dtype, reduction, finite_only=True)


@pytest.mark.parametrize("name", ["mse", "l1", "huber", "smooth_l1", "bce", "bce_with_logits pos_weight", "ce shares",
                                  "ce shares smoothing", "kl_div", "kl_div log_target"])  # fmt: skip
def test_gradients_of_targets_equal_torch(torch: Any, name: str) -> None:
    case = LOSSES[name]
    target, wanted = cr.tensor(case.target, requires_grad=True), torch.tensor(case.target, requires_grad=True)
    case.ours(cr.tensor(case.input), target).backward()
    case.theirs(torch, torch.tensor(case.input), wanted, "float64").backward()
    np.testing.assert_allclose(target.grad.numpy(), wanted.grad.numpy(), 1e-12, 1e-14)


@NAMES
def test_layers_equal_the_functions(name: str) -> None:
    case = LOSSES[name]
    x, target = cr.tensor(case.input), cr.asarray(case.target)
    for reduction in case.reductions:
        layer = case.layer(reduction=reduction)
        np.testing.assert_array_equal(
            layer(x, target).numpy(), case.ours(x, target, reduction=reduction).numpy())  # fmt: skip
    np.testing.assert_array_equal(case.layer()(x, target).numpy(), case.ours(x, target).numpy())


# ------------------------------------------------------------------------------ derivatives, and compiled


@pytest.mark.parametrize("name", [name for name, case in LOSSES.items() if case.smooth])
def test_both_modes_and_orders_equal_numerical_differentiation(name: str) -> None:
    case = LOSSES[name]
    target = cr.asarray(case.target)
    report = cr.testing.check_grads(
        lambda x: case.ours(x, target), (cr.tensor(case.input),), order=2, elements=6
    )
    assert report.ok


@pytest.mark.parametrize("name", ["l1", "smooth_l1 0"])
def test_kinked_losses_equal_numerical_differentiation(name: str) -> None:
    case = LOSSES[name]
    assert cr.testing.check_grads(lambda x: case.ours(x, case.target), (cr.tensor(case.input),), order=1).ok


@NAMES
@DTYPES
def test_compiled_steps_equal_eager_ones(name: str, dtype: str) -> None:
    case, tolerance = LOSSES[name], 1e-13 if dtype == "float64" else 3e-6
    x, target = case.input.astype(dtype), in_dtype(case.target, dtype)
    layer = case.layer(dtype)

    def step(given: Any, wanted: Any) -> Any:
        loss = layer(given, wanted)
        return loss, cr.grad(lambda v: layer(v, wanted))(given)

    compiled = cr.compile(step)
    for scale in (1.0, 0.5):
        given = x * np.asarray(scale, dtype)
        for got, expected in zip(compiled(given, target), step(cr.tensor(given), cr.asarray(target))):
            assert got.dtype == expected.dtype and got.shape == expected.shape
            np.testing.assert_allclose(got.numpy(), expected.numpy(), tolerance, tolerance)
    assert not compiled.recompiles


@pytest.mark.parametrize("labels", [LABELS, SOME, np.full(6, -100)], ids=["all", "some", "none"])
def test_one_compiled_step_serves_any_labels(labels: np.ndarray) -> None:
    """Which items are left out is data: the same code computes every batch."""
    step = cr.compile(lambda x, y: cr.value_and_grad(lambda v: F.cross_entropy(v, y, WEIGHT))(x))
    for target in (LABELS, labels, SOME):
        loss, slope = step(Z, target)
        expected, expected_slope = cr.value_and_grad(lambda v, y=target: F.cross_entropy(v, y, WEIGHT))(
            cr.tensor(Z)
        )
        np.testing.assert_allclose(loss.numpy(), expected.numpy(), 1e-13)
        np.testing.assert_allclose(slope.numpy(), expected_slope.numpy(), 1e-13, 1e-15)
    assert len(step._programs) == 1


# ---------------------------------------------------------------------------------------- conventions


BOTH = pytest.mark.parametrize("run", [lambda f: f, cr.compile], ids=["eager", "compiled"])


@BOTH
def test_a_batch_in_which_nothing_counts_costs_nothing_and_teaches_nothing(run: Any) -> None:
    nothing = np.full(6, -100)
    cases: list[Callable[[Any], Any]] = [
        lambda x: F.cross_entropy(x, nothing),
        lambda x: F.cross_entropy(x, nothing, WEIGHT),
        lambda x: F.cross_entropy(x, nothing, WEIGHT, label_smoothing=0.1),
        lambda x: F.cross_entropy(x, np.zeros(6, int), np.asarray([0.0, 1.0, 1.0]), label_smoothing=0.1),
        lambda x: F.nll_loss(x, np.ones(6, int), ignore_index=1),
        lambda x: F.cross_entropy(x, nothing, reduction="sum"),
    ]
    for case in cases:
        for logits in (Z, np.full((6, 3), NAN), np.full((6, 3), INF)):
            loss, slope = run(cr.value_and_grad(case))(cr.tensor(logits))
            assert loss.item() == 0.0 and not slope.numpy().any()
    empty = F.cross_entropy(np.zeros((0, 3)), np.zeros(0, int))
    assert empty.item() == 0.0


@BOTH
def test_items_left_out_may_hold_anything(run: Any) -> None:
    spoilt = np.where((SOME == -100)[:, None], NAN, Z)
    for case in (
        lambda x: F.cross_entropy(x, SOME, WEIGHT, label_smoothing=0.1),
        lambda x: F.cross_entropy(x, SOME),
    ):
        loss, slope = run(cr.value_and_grad(case))(cr.tensor(spoilt))
        kept = np.where((SOME == -100)[:, None], 0.0, Z)
        wanted, wanted_slope = cr.value_and_grad(case)(cr.tensor(kept))
        assert loss.item() == pytest.approx(wanted.item(), rel=1e-14)
        np.testing.assert_allclose(slope.numpy(), wanted_slope.numpy(), 1e-13, 1e-16)


@BOTH
@DTYPES
def test_a_certain_and_wrong_probability_costs_a_hundred(run: Any, dtype: str) -> None:
    """PyTorch's bound. The cut logarithm is flat, so its slope is 0; a certain and right one keeps its slope."""
    p, y = cr.tensor([0.0, 1.0, 0.0, 1.0], dtype=dtype), cr.tensor([1.0, 0.0, 0.0, 1.0], dtype=dtype)
    losses = run(lambda x: F.binary_cross_entropy(x, y, reduction="none"))(p)
    assert losses.tolist() == [100.0, 100.0, 0.0, 0.0]
    for alone, wanted in (
        ([0.0], [1.0]),
        ([1.0], [0.0]),
    ):  # where the values are known, each end is looked for
        assert (
            run(lambda x, y=wanted: F.binary_cross_entropy(x, y))(cr.tensor(alone, dtype=dtype)).item()
            == 100.0
        )
    slopes = run(cr.grad(lambda x: F.binary_cross_entropy(x, y, reduction="sum")))(p)
    assert slopes.tolist() == [0.0, 0.0, 1.0, -1.0]


@BOTH
def test_a_saturated_sigmoid_neither_explodes_nor_stops_the_others(run: Any) -> None:
    """float32 rounds sigmoid(20) to 1, so that its loss for 0 is cut; the next unit learns on."""
    z, y = cr.tensor([20.0, -200.0, 1.0]), cr.tensor([0.0, 1.0, 0.0])
    loss, slope = run(cr.value_and_grad(lambda z: F.binary_cross_entropy(cr.sigmoid(z), y, reduction="sum")))(
        z
    )
    assert loss.item() == pytest.approx(201.3133) and slope.tolist()[:2] == [0.0, 0.0]
    assert slope[2].item() == pytest.approx(0.7310586)


@BOTH
@DTYPES
def test_infinite_logits_cost_what_their_probabilities_say(run: Any, dtype: str) -> None:
    z = cr.tensor([INF, -INF, INF, -INF, 1e4, -1e4, 1e4, -1e4], dtype=dtype)
    y = cr.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0], dtype=dtype)
    loss = lambda x: F.binary_cross_entropy_with_logits(x, y, reduction="none", pos_weight=[3.0])
    assert run(loss)(z).tolist() == [0.0, 0.0, INF, INF, 0.0, 0.0, 1e4, 3e4]
    assert run(cr.grad(lambda x: loss(x).sum()))(z).tolist() == [0.0, 0.0, 1.0, -3.0, 0.0, 0.0, 1.0, -3.0]


def test_logits_keep_the_digits_of_small_losses() -> None:
    z = cr.tensor([40.0, -40.0], dtype="float64", requires_grad=True)
    losses = F.binary_cross_entropy_with_logits(z, [1.0, 0.0], reduction="none")
    losses.sum().backward()
    np.testing.assert_allclose(losses.detach().numpy(), np.exp([-40.0, -40.0]), rtol=1e-15)
    np.testing.assert_allclose(z.grad.numpy(), [-math.exp(-40), math.exp(-40)], rtol=1e-15)


@BOTH
@DTYPES
def test_a_class_of_probability_zero_may_have_any_logit(run: Any, dtype: str) -> None:
    z = cr.tensor([[0.0, -INF, 1.0], [1e4, -1e4, 0.0]], dtype=dtype)
    share = math.exp(1) / (1 + math.exp(1))
    cases = [
        lambda x: F.cross_entropy(
            x, cr.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=dtype), reduction="sum"
        ),
        lambda x: F.cross_entropy(x, np.asarray([2, 0]), reduction="sum"),
        lambda x: F.cross_entropy(x, np.asarray([2, 0]), [1.0, 0.0, 1.0], reduction="sum"),
    ]
    for case in cases:
        loss, slope = run(cr.value_and_grad(case))(z)
        assert loss.item() == pytest.approx(-math.log(share), rel=1e-6)
        np.testing.assert_allclose(slope.numpy(), [[1 - share, 0.0, share - 1], [0.0] * 3], rtol=1e-5)
    weightless = run(lambda x: F.cross_entropy(x, np.asarray([1, 0]), [1.0, 0.0, 1.0], label_smoothing=0.0))(
        z
    )
    assert weightless.item() == 0.0


@BOTH
@DTYPES
def test_divergences_at_the_ends(run: Any, dtype: str) -> None:
    logs = cr.tensor([[-INF, 0.0], [-1e4, -1e-4]], dtype=dtype)
    plain = run(cr.value_and_grad(lambda x: F.kl_div(x, np.asarray([[0.0, 1.0]] * 2), "sum")))
    by_logs = run(cr.value_and_grad(
        lambda x: F.kl_div(x, np.asarray([[-INF, 0.0]] * 2), "sum", log_target=True)))  # fmt: skip
    for call in (plain, by_logs):
        loss, slope = call(logs)
        assert loss.item() == pytest.approx(1e-4, rel=1e-6)
        assert slope.tolist() == [[0.0, -1.0], [0.0, -1.0]]


@BOTH
def test_far_errors_pull_with_the_slope_of_the_line(run: Any) -> None:
    x = cr.tensor([1e200, -1e200, INF, 0.0, 1.0, -1.0], dtype="float64")
    target = np.zeros(6)
    huber = run(cr.grad(lambda v: F.huber_loss(v, target, "sum", delta=2.0)))(x)
    assert huber.tolist() == [2.0, -2.0, 2.0, 0.0, 1.0, -1.0]
    smooth = run(cr.grad(lambda v: F.smooth_l1_loss(v, target, "sum")))(x)
    assert smooth.tolist() == [1.0, -1.0, 1.0, 0.0, 1.0, -1.0]
    assert run(cr.grad(lambda v: F.l1_loss(v, target, "sum")))(x).tolist() == [1.0, -1.0, 1.0, 0.0, 1.0, -1.0]


@NAMES
def test_nan_shows_in_the_loss(name: str) -> None:
    case = LOSSES[name]
    spoilt = np.full(case.input.shape, NAN)
    assert math.isnan(case.ours(cr.tensor(spoilt), case.target, reduction="sum").item())


# -------------------------------------------------------------------------------------- what users write


def test_targets_come_as_lists_arrays_tensors_of_any_dtype() -> None:
    wanted = F.cross_entropy(Z, LABELS, WEIGHT).item()
    for labels in (LABELS.tolist(), LABELS.astype("uint8"), LABELS.astype("int32"), cr.asarray(LABELS)):
        for weight in (WEIGHT, WEIGHT.tolist(), cr.tensor(WEIGHT)):
            assert F.cross_entropy(Z, labels, weight).item() == pytest.approx(wanted, rel=1e-14)
    assert F.cross_entropy(Z.astype("float32"), LABELS, WEIGHT).dtype == cr.float32
    assert F.cross_entropy(Z.astype("float32"), SHARES, WEIGHT).dtype == cr.float32
    for yes in ([1, 0], [True, False], np.asarray([1, 0], "uint8"), cr.asarray([1, 0])):
        assert F.binary_cross_entropy_with_logits([0.0, 0.0], yes).item() == pytest.approx(math.log(2))
        assert F.binary_cross_entropy([0.5, 0.5], yes).item() == pytest.approx(math.log(2))
    compiled = cr.compile(lambda z, y: F.cross_entropy(z, y, WEIGHT))
    assert compiled(Z, LABELS.astype("uint8")).item() == pytest.approx(wanted, rel=1e-14)


def test_weights_are_buffers_that_are_saved_and_cast() -> None:
    loss = nn.CrossEntropyLoss([1.0, 2.0, 3.0], ignore_index=0)
    assert {name: one.tolist() for name, one in loss.state_dict().items()} == {"weight": [1.0, 2.0, 3.0]}
    assert list(nn.BCEWithLogitsLoss(pos_weight=[2.0]).state_dict()) == ["pos_weight"]
    assert not nn.CrossEntropyLoss().state_dict() and not list(loss.parameters())
    assert loss.to("float64").weight.dtype == cr.float64
    loss.load_state_dict({"weight": np.asarray([3.0, 2.0, 1.0])})
    assert loss.weight.tolist() == [3.0, 2.0, 1.0]
    step = cr.compile(lambda x, y: loss(x, y))
    before = step(Z, LABELS).item()
    loss.load_state_dict({"weight": np.asarray([1.0, 0.0, 9.0])})
    assert step(Z, LABELS).item() != before and len(step._programs) == 1


def test_options_are_shown_where_they_are_not_the_defaults() -> None:
    shown = [
        nn.MSELoss(), nn.L1Loss("sum"), nn.HuberLoss(delta=2.0), nn.SmoothL1Loss("none", 0.5), nn.BCELoss(),
        nn.BCEWithLogitsLoss(pos_weight=[1.0, 2.0]), nn.CrossEntropyLoss(), nn.NLLLoss(ignore_index=0),
        nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.1), nn.KLDivLoss("batchmean", log_target=True),
    ]  # fmt: skip
    assert [repr(one) for one in shown] == [
        "MSELoss()", "L1Loss(reduction='sum')", "HuberLoss(delta=2.0)", "SmoothL1Loss(beta=0.5, reduction='none')",
        "BCELoss()", "BCEWithLogitsLoss(pos_weight=<float32 (2,)>)", "CrossEntropyLoss()", "NLLLoss(ignore_index=0)",
        "CrossEntropyLoss(weight=<float64 (3,)>, label_smoothing=0.1)",
        "KLDivLoss(log_target=True, reduction='batchmean')",
    ]  # fmt: skip


def test_the_graph_shows_a_mask_only_where_one_is_needed() -> None:
    """What the explainer unfolds stays as small as the batch allows."""

    def operations(loss: cr.Tensor) -> list[str]:
        found, pending = [], [loss.node]
        while pending:
            node = pending.pop()
            found.append(node.operation.name)
            pending += node.inputs
        return found

    x = cr.tensor(Z, requires_grad=True)
    assert "where" not in operations(F.cross_entropy(x, LABELS))
    assert "where" in operations(F.cross_entropy(x, SOME))
    p = cr.tensor([0.2, 0.9], requires_grad=True)
    assert "maximum" not in operations(F.binary_cross_entropy(p, [0.0, 1.0]))
    assert "maximum" in operations(F.binary_cross_entropy(p * cr.tensor([0.0, 1.0]), [0.0, 1.0]))


MISTAKES = {
    "classes above": (
        lambda: F.cross_entropy(Z, LABELS + 1), cr.BoundsError, "classes from 0 to 2; got 1 to 3. Check the labels"),
    "classes below": (
        lambda: F.nll_loss(LOGP, LABELS - 1), cr.BoundsError,
        "nll_loss needs classes from 0 to 2; got -1"),
    "another label to ignore": (
        lambda: F.cross_entropy(Z, SOME, ignore_index=-1), cr.BoundsError, "got -100 to 2"),
    "float classes": (lambda: F.cross_entropy(Z, LABELS * 1.0), cr.DtypeError, r"got float64 \(6,\). Use astype"),
    "float classes of nll": (
        lambda: F.nll_loss(LOGP, SHARES), cr.DtypeError,
        r"integers of shape \(6,\)\); got float64"),
    "bool classes": (lambda: F.cross_entropy(Z, LABELS > 0), cr.DtypeError, "got bool"),
    "one-hot integers": (
        lambda: F.cross_entropy(Z, np.eye(3, dtype=int)[LABELS]), cr.ShapeError,
        r"For one-hot rows use astype\('float32'\)"),
    "labels in a column": (
        lambda: F.cross_entropy(Z, LABELS[:, None]), cr.ShapeError, r"got \(6, 1\). Reshape the target to \(6,\)"),
    "no classes": (lambda: F.cross_entropy(np.zeros((6, 0)), LABELS), cr.ShapeError, "at least one class"),
    "no axis": (lambda: F.nll_loss(1.0, 0), cr.ShapeError, r"an axis of classes; got log-probabilities of shape \(\)"),
    "negative class weight": (
        lambda: F.cross_entropy(Z, LABELS, [-1.0, 1.0, 1.0]), cr.ArgumentError, "class weights from 0; got -1. Use 0"),
    "number of class weights": (
        lambda: F.cross_entropy(Z, LABELS, [1.0, 1.0]), cr.ShapeError, r"for each class, shape \(3,\); got \(2,\)"),
    "weights of items": (
        lambda: F.nll_loss(LOGP, LABELS, np.ones(6)), cr.ShapeError, "Weights of items: use reduction='none'"),
    "weight is a reduction": (
        lambda: F.cross_entropy(Z, LABELS, "sum"), cr.ArgumentError, "got 'sum'. Write reduction='sum' by its name"),
    "CrossEntropyLoss of a reduction": (
        lambda: nn.CrossEntropyLoss("none"), cr.ArgumentError, "CrossEntropyLoss needs a tensor of numbers as weight"),
    "smoothing": (lambda: F.cross_entropy(Z, LABELS, label_smoothing=2), cr.ArgumentError, "from 0 to 1; got 2. 0.1"),
    "negative smoothing": (
        lambda: nn.CrossEntropyLoss(label_smoothing=-0.1), cr.ArgumentError, "a number from 0 as label_smoothing"),
    "ignore_index": (lambda: nn.NLLLoss(ignore_index=None), cr.ArgumentError, "must be a whole number; got None"),
    "ignore_index of shares": (
        lambda: F.cross_entropy(Z, SHARES, ignore_index=1), cr.ArgumentError, "got ignore_index=1 and probabilities"),
    "reduction": (lambda: F.cross_entropy(Z, LABELS, reduction="avg"), cr.ArgumentError, "or 'none'; got 'avg'"),
    "size_average": (lambda: F.mse_loss(X, Y, False), cr.ArgumentError, "'mean', 'sum' or 'none'; got False"),
    "batchmean": (lambda: nn.MSELoss("batchmean"), cr.ArgumentError, "or 'none'; got 'batchmean'"),
    "kl_div reduction": (lambda: F.kl_div(LOGP, SHARES, "avg"), cr.ArgumentError, "'batchmean', 'sum' or 'none'"),
    "kl_div of logarithms": (lambda: F.kl_div(LOGP, LOGP), cr.ArgumentError, "For logarithms use log_target=True"),
    "shapes": (
        lambda: F.l1_loss(X, Y[:, :1]), cr.ShapeError,
        r"l1_loss needs input and target of one shape; got \(4, 5\)"),
    "huber delta": (
        lambda: F.huber_loss(X, Y, delta=0), cr.ArgumentError,
        "huber_loss needs a number above 0 as delta"),
    "HuberLoss delta": (
        lambda: nn.HuberLoss(delta=-1.0), cr.ArgumentError,
        "HuberLoss needs a number above 0 as delta"),
    "smooth_l1 beta": (lambda: F.smooth_l1_loss(X, Y, beta=-1), cr.ArgumentError, "a number from 0 as beta; got -1"),
    "probabilities": (lambda: F.binary_cross_entropy(X, YES), cr.ArgumentError, "from 0 to 1; got .* Apply sigmoid"),
    "targets of −1": (
        lambda: F.binary_cross_entropy_with_logits(X, 2 * YES - 1), cr.ArgumentError,
        r"got -1 to 1. .* \(y \+ 1\) / 2"),
    "targets of bce": (lambda: F.binary_cross_entropy(P, 2 * YES), cr.ArgumentError, "targets from 0 to 1; got 0 to 2"),
    "negative pos_weight": (
        lambda: F.binary_cross_entropy_with_logits(X, YES, pos_weight=[-1.0]), cr.ArgumentError,
        "a pos_weight from 0; got -1"),
    "shape of pos_weight": (
        lambda: F.binary_cross_entropy_with_logits(X, YES, pos_weight=np.ones(4)), cr.ShapeError,
        r"broadcasts to the target's shape, \(4, 5\); got \(4,\)"),
    "shape of weight": (
        lambda: F.binary_cross_entropy(P, YES, np.ones((2, 4, 5))), cr.ShapeError, r"got \(2, 4, 5\). Give one weight"),
    "weight of bce": (lambda: nn.BCELoss("sum"), cr.ArgumentError, "Write reduction='sum' by its name"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_say_the_rule_the_value_the_fix_and_the_line(name: str) -> None:
    act, error, message = MISTAKES[name]
    with pytest.raises(error, match=message) as caught:
        act()
    assert "test_losses.py" in str(caught.value)


TRACED = {
    "classes above": (
        lambda x, y: F.cross_entropy(x, y), (Z, LABELS + 1), cr.BoundsError,
        "classes from 0 to 2; got 1 to 3"),
    "classes below": (lambda x, y: F.nll_loss(x, y), (LOGP, LABELS - 2), cr.BoundsError, "classes from 0 to 2; got -2"),
    "classes beside ignored ones": (
        lambda x, y: F.cross_entropy(x, y), (Z, np.where(SOME == 2, 7, SOME)), cr.BoundsError, "got 0 to 7"),
    "unsigned classes": (
        lambda x, y: F.cross_entropy(x, y), (Z, (LABELS + 1).astype("uint8")), cr.BoundsError, "got 1 to 3"),
    "class weights": (
        lambda x, w: F.cross_entropy(x, LABELS, w), (Z, -WEIGHT), cr.ArgumentError, "class weights from 0; got -2"),
    "pos_weight": (
        lambda x, w: F.binary_cross_entropy_with_logits(x, YES, pos_weight=w), (X, np.asarray([-1.0])),
        cr.ArgumentError,
        "pos_weight from 0; got -1"),
    "probabilities": (
        lambda p, y: F.binary_cross_entropy(p, y), (P * 2, YES), cr.ArgumentError, "Apply sigmoid"),
    "targets": (
        lambda x, y: F.binary_cross_entropy_with_logits(x, y), (X, 2 * YES - 1), cr.ArgumentError, "got -1 to 1"),
    "divergence": (lambda x, y: F.kl_div(x, y), (LOGP, LOGP), cr.ArgumentError, "log_target=True"),
    "shape": (lambda x, y: F.huber_loss(x, y), (X, Y[:1]), cr.ShapeError, "of one shape"),
    "float classes": (lambda x, y: F.cross_entropy(x, y), (Z, LABELS * 1.0), cr.DtypeError, "integers of shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", TRACED)
def test_mistakes_in_compiled_steps_are_told_too(name: str) -> None:
    function, arguments, error, message = TRACED[name]
    with pytest.raises(error, match=message) as caught:
        cr.compile(function)(*arguments)
    assert "test_losses.py" in str(caught.value)
    with pytest.raises(error, match=message):
        function(*map(cr.asarray, arguments))


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
def test_classes_on_the_last_axis_are_told_where_they_belong(loss):
    scores, target = cr.randn(4, 6, 10), cr.randint(0, 10, (4, 6))
    with pytest.raises(
        cr.ShapeError, match=r"got \(4, 6\)\. Classes are the axis 1 .*permute_dims\(scores, \(0, 2, 1\)\)"
    ):
        loss(scores, target)
    moved = loss(cr.permute_dims(scores, (0, 2, 1)), target)  # both answers of the message, which are one
    flat = loss(scores.reshape(-1, 10), target.reshape(-1))
    np.testing.assert_allclose(moved.item(), flat.item(), rtol=1e-6)


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
def test_scores_and_classes_in_each_others_place(loss):
    with pytest.raises(cr.DtypeError, match=r"first and classes second; got int64 \(2,\) first.*Swap them"):
        loss(cr.tensor([0, 1]), cr.randn(2, 3))
