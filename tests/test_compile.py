"""`cr.compile` as a user meets it: whole steps, transactions, what is noticed between calls, and its errors."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, ops, optim, runtime
from chainrule.config import config
from chainrule.errors import (
    ArgumentError,
    BoundsError,
    CompileError,
    GradientError,
    NonFiniteError,
    TraceError,
)
from chainrule.graph import evaluate
from chainrule.runtime import compile


def f64(value: Any, **options: Any) -> cr.Tensor:
    return cr.tensor(value, dtype=cr.float64, **options)


# ---------------------------------------------------------------------------------- whole steps


def neuron(rate: float) -> tuple[cr.Tensor, Any]:
    """A weight, and the compiled step of the seed neuron that learns it."""
    w = f64(0.8, requires_grad=True)

    @compile
    def step(x: cr.Tensor, y: cr.Tensor) -> Any:
        nonlocal w
        z = w * x
        guess = cr.sigmoid(z)
        loss = F.binary_cross_entropy(guess, y)
        loss.backward()
        slopes = z.grad, w.grad
        with cr.no_grad():
            w -= rate * w.grad
        w.grad = None
        return {"z": z, "guess": guess, "loss": loss, "slopes": slopes}

    return w, step


def test_the_seed_neuron() -> None:
    """Worked examples S1 to S5: z, ŷ, loss, dL/dz, dL/dw, and the update at two rates."""
    for rate, updated, next_loss in ((0.1, 0.820065617, 0.509001), (1.0, 1.0006561699, 0.4739531)):
        w, step = neuron(rate)
        result = step(f64(0.5), f64(1.0))
        assert result["z"].item() == pytest.approx(0.4, abs=1e-15)
        assert result["guess"].item() == pytest.approx(0.598687660112452, abs=1e-14)
        assert result["loss"].item() == pytest.approx(0.5130152523999526, abs=1e-14)
        dz, dw = result["slopes"]
        assert dz.item() == pytest.approx(-0.401312339887548, abs=1e-14)
        assert dw.item() == pytest.approx(-0.200656169943774, abs=1e-14)
        assert w.item() == pytest.approx(updated, abs=1e-9)
        assert w.grad is None and w.requires_grad
        assert step(f64(0.5), f64(1.0))["loss"].item() == pytest.approx(next_loss, abs=1e-6)
        assert len(step._programs) == 1


def parameters(dtype: str) -> list[cr.Tensor]:
    random = np.random.default_rng(0)
    shapes = ((16, 8), (16,), (3, 16), (3,))
    return [cr.tensor(random.normal(size=shape).astype(dtype), requires_grad=True) for shape in shapes]


def learning(params: list[cr.Tensor], rate: float = 0.1) -> Any:
    def step(x: Any, y: Any) -> cr.Tensor:
        w1, b1, w2, b2 = params
        loss = F.cross_entropy(F.linear(F.relu(F.linear(x, w1, b1)), w2, b2), y)
        loss.backward()
        with cr.no_grad():
            for p in params:
                p.copy_(p - rate * p.grad)
                p.grad = None
        return loss

    return step


def batch(dtype: str, rows: int = 32) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    return random.normal(size=(rows, 8)).astype(dtype), random.integers(0, 3, rows)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-13)])
def test_a_two_layer_step_equals_eager_and_the_interpreter(dtype: str, tolerance: float) -> None:
    x, y = batch(dtype)
    compiled, eager = parameters(dtype), parameters(dtype)
    step, plain = compile(learning(compiled)), learning(eager)
    for _ in range(20):
        before = [p.detach().numpy() for p in compiled]
        loss = step(x, y).item()
        assert loss == pytest.approx(plain(cr.tensor(x), cr.tensor(y)).item(), abs=tolerance)
        for one, other in zip(compiled, eager):
            np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), atol=tolerance)
        graph = step.graph()
        with ops.quiet():
            wanted = evaluate(graph, [x, y, *before], ops.NUMPY)
        assert loss == pytest.approx(float(wanted[0]), abs=tolerance)
        for p, value in zip(compiled, wanted[1:]):
            np.testing.assert_allclose(p.detach().numpy(), value, atol=tolerance)
    assert len(step._programs) == 1 and not step.recompiles
    assert all(p.grad is None for p in compiled)


@pytest.mark.parametrize("make", [
    lambda params: optim.SGD(params, lr=0.1, momentum=0.9),
    lambda params: optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    lambda params: optim.Adam(params, lr=0.01),
    lambda params: optim.Adam(params, lr=0.01, amsgrad=True, weight_decay=0.1),
], ids=["sgd", "nesterov", "adam", "amsgrad"])  # fmt: skip
def test_modules_and_optimizers(make: Any) -> None:
    """The step of the README, 20 times, against the same step run eagerly; a new learning rate needs no new code."""

    def build() -> tuple[Any, Any]:
        cr.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
        return model, make(model.parameters())

    def learn(model: Any, optimizer: Any) -> Any:
        def step(x: Any, y: Any) -> cr.Tensor:
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        return step

    (fast, fast_optimizer), (slow, slow_optimizer) = build(), build()
    compiled, eager = compile(learn(fast, fast_optimizer)), learn(slow, slow_optimizer)
    x, y = batch("float32")
    for number in range(20):
        if number == 10:
            for one in (fast_optimizer, slow_optimizer):
                one.param_groups[0]["lr"] = 0.003
        assert compiled(x, y).item() == pytest.approx(eager(cr.tensor(x), cr.tensor(y)).item(), abs=2e-5)
    for one, other in zip(fast.parameters(), slow.parameters()):
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), atol=2e-4)
    assert len(compiled.recompiles) <= 1, compiled.recompiles


def test_gradients_stay_where_they_are_not_cleared() -> None:
    w = f64([1.0, 2.0], requires_grad=True)

    @compile
    def accumulate(x: cr.Tensor) -> None:
        (w * x).sum().backward()

    accumulate(f64([3.0, 4.0]))
    assert w.grad.tolist() == [3.0, 4.0]
    accumulate(f64([3.0, 4.0]))
    accumulate(f64([1.0, 1.0]))
    assert w.grad.tolist() == [7.0, 9.0]
    assert accumulate.recompiles == ["a tensor.grad: None → a gradient"]


def test_two_updates_in_one_step() -> None:
    """A cell that was written is a leaf again: the second backward reaches it, and stops there."""

    def twice(w: cr.Tensor) -> Any:
        def step(x: cr.Tensor) -> cr.Tensor:
            for _ in range(2):
                loss = ((w * x - 1.0) ** 2).sum()
                loss.backward()
                with cr.no_grad():
                    w.copy_(w - 0.1 * w.grad)
                w.grad = None
            return loss

        return step

    one, other = f64([0.5, -1.0], requires_grad=True), f64([0.5, -1.0], requires_grad=True)
    compiled, eager = compile(twice(one)), twice(other)
    for _ in range(3):
        assert compiled(f64([1.0, 2.0])).item() == pytest.approx(eager(f64([1.0, 2.0])).item(), abs=1e-14)
    np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), atol=1e-14)


def test_derivatives_inside_a_step() -> None:
    cubed = compile(
        lambda x: (cr.grad(lambda v: (v**2 * v).sum())(x), cr.grad(cr.grad(lambda v: v * v * v))(x[0]))
    )
    first, second = cubed(f64([2.0, 3.0]))
    assert first.tolist() == pytest.approx([12.0, 27.0]) and second.item() == pytest.approx(12.0)


def test_checkpoints_and_custom_gradients_inside_a_step() -> None:
    w = f64([0.5, 2.0], requires_grad=True)
    inner = cr.checkpoint(lambda v: cr.exp(v * w))

    @cr.custom_gradient
    def doubled(x: cr.Tensor) -> Any:
        return x * 1.0, lambda g: (g * 2.0,)

    def step(x: cr.Tensor) -> cr.Tensor:
        loss = doubled(cr.checkpoint(lambda v: inner(v) * v)(x * w)).sum()
        loss.backward()
        return loss

    x = f64([1.0, 0.25])
    eager = step(x).item()
    wanted, w.grad = w.grad, None
    assert compile(step)(x).item() == pytest.approx(eager, abs=1e-14)
    np.testing.assert_allclose(w.grad.numpy(), wanted.numpy(), rtol=1e-14)


def test_random_numbers_are_the_eager_ones_and_new_at_each_call() -> None:
    cr.manual_seed(5)
    eager = [cr.rand(3).tolist() + cr.randn(2, dtype=cr.float64).tolist() for _ in range(3)]
    cr.manual_seed(5)
    draw = compile(lambda: (cr.rand(3), cr.randn(2, dtype=cr.float64)))
    for wanted in eager:
        a, b = draw()
        assert a.tolist() == wanted[:3]
        assert b.tolist() == pytest.approx(wanted[3:], abs=1e-14)
    assert len(draw._programs) == 1


# ---------------------------------------------------------------------------------- transactions


def test_a_bad_label_changes_nothing() -> None:
    params = parameters("float32")
    step = compile(learning(params))
    x, y = batch("float32")
    step(x, y)
    before = [p.detach().numpy() for p in params]
    for bad in (3, -1, 1 << 40):
        wrong = y.copy()
        wrong[7] = bad
        with pytest.raises(
            BoundsError, match=rf"classes from 0 to 2; got .*{bad}.*Nothing was changed.*test_compile.py:\d+"
        ):
            step(x, wrong)
    for p, was in zip(params, before):
        np.testing.assert_array_equal(p.detach().numpy(), was)
        assert p.grad is None
    assert np.isfinite(step(x, y).item())


def test_indices_are_checked_and_memory_is_never_left() -> None:
    table = cr.tensor(np.arange(12.0).reshape(4, 3), requires_grad=True)

    @compile
    def look(rows: cr.Tensor) -> cr.Tensor:
        picked = cr.take(table, rows, axis=0)
        picked.sum().backward()
        return picked

    assert look(cr.tensor([0, -1])).tolist() == [[0.0, 1.0, 2.0], [9.0, 10.0, 11.0]]
    assert table.grad.tolist() == [[1.0] * 3, [0.0] * 3, [0.0] * 3, [1.0] * 3]
    for bad in (4, -5, 1 << 62, -(1 << 62)):
        with pytest.raises(BoundsError, match="take needs indices from -4 to 3"):
            look(cr.tensor([0, bad]))
    assert table.grad.tolist() == [[1.0] * 3, [0.0] * 3, [0.0] * 3, [1.0] * 3]
    with pytest.raises(BoundsError):
        compile(lambda x: cr.take_along_axis(x, cr.tensor([[5]]), axis=1))(cr.ones((1, 3)))
    picked = compile(lambda x, i: cr.take_along_axis(x, i, axis=1))
    assert picked(cr.tensor([[1.0, 2.0], [3.0, 4.0]]), cr.tensor([[-1], [-2]])).tolist() == [[2.0], [3.0]]


@pytest.mark.parametrize("start", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_not_learnt_from(start: float) -> None:
    w = f64([1.0, start], requires_grad=True)

    @compile
    def step(x: cr.Tensor) -> cr.Tensor:
        loss = (w * x).sum()
        loss.backward()
        with cr.no_grad():
            w.copy_(w - w.grad)
        return loss

    with pytest.raises(NonFiniteError, match=r"a loss must be finite .* got (nan|inf).*Nothing was changed"):
        step(f64([1.0, 1.0]))
    assert w.detach().numpy()[0] == 1.0 and w.grad is None


def test_a_gradient_that_is_not_finite_is_not_learnt_from() -> None:
    w = f64([0.0, 4.0], requires_grad=True)
    w.cell.name = "weight"

    @compile
    def step() -> cr.Tensor:
        loss = cr.sqrt(w).sum()
        loss.backward()
        return loss

    with pytest.raises(NonFiniteError, match=r"gradient of weight must be finite; got 0\.25 to inf"):
        step()
    assert w.grad is None


def test_the_check_of_finite_numbers_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "check_finite", False)
    w = f64([0.0, 4.0], requires_grad=True)
    step = compile(lambda: cr.sqrt(w).sum().backward())
    step()
    assert w.grad.tolist() == [np.inf, 0.25]
    monkeypatch.setattr(config, "check_finite", True)
    w.grad = None
    with pytest.raises(NonFiniteError):
        step()
    assert step.recompiles == ["config.check_finite: False → True"]


def test_probabilities_are_checked() -> None:
    loss = compile(lambda p: F.binary_cross_entropy(p, cr.ones(2)))
    assert loss(cr.tensor([0.5, 0.5])).item() == pytest.approx(0.6931, abs=1e-4)
    with pytest.raises(ArgumentError, match=r"probabilities from 0 to 1; got 0.5 to 1.5"):
        loss(cr.tensor([0.5, 1.5]))
    assert np.isnan(loss(cr.tensor([0.5, np.nan])).item())


def test_a_failing_function_leaves_everything_as_it_was() -> None:
    w = f64(1.0, requires_grad=True)

    def step(x: cr.Tensor) -> None:
        (w * x).backward()
        with cr.no_grad():
            w.copy_(w * 0.0)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        compile(step)(f64(2.0))
    assert w.item() == 1.0 and w.grad is None
    assert (w * 2.0).item() == 2.0  # no trace is left running


# ---------------------------------------------------------------------------------- conventions


def slope_of(function: Any, at: Any) -> list[float]:
    """∂Σf/∂x from machine code."""
    x = f64(at, requires_grad=True)
    compile(lambda: function(x).sum().backward())()
    result: list[float] = x.grad.tolist()
    return result


def test_strong_zero_in_machine_code() -> None:
    inf, nan = float("inf"), float("nan")
    assert slope_of(lambda x: cr.where(x > 0, cr.sqrt(x), 0.0), [0.0, 4.0]) == [0.0, 0.25]
    assert slope_of(lambda x: cr.sqrt((x * x).sum()), [0.0, 0.0]) == [0.0, 0.0]
    assert slope_of(lambda x: cr.where(x > 0, cr.log(x), 0.0), [-1.0, 0.0, 2.0]) == [0.0, 0.0, 0.5]
    target = f64([1.0, nan, 3.0])
    masked = lambda p: cr.where(cr.isnan(target), 0.0, (p - target) ** 2)
    assert slope_of(masked, [2.0, 2.0, 2.0]) == [2.0, 0.0, -2.0]
    with pytest.raises(NonFiniteError):
        slope_of(lambda x: 1.0 / x, [0.0])
    assert compile(lambda a, b: F.absorb(a, b))(f64([0.0, inf, 2.0]), f64([inf, 0.0, nan])).tolist()[:2] == [
        0.0,
        0.0,
    ]


def test_strong_zero_of_second_order() -> None:
    """The Hessian of (√x − 1)² at 1 is 0.5: absorb is bilinear, not a choice."""
    second = compile(cr.grad(cr.grad(lambda x: (cr.sqrt(x) - 1.0) ** 2)))
    assert second(f64(1.0)).item() == pytest.approx(0.5)


def test_nan_stays_nan() -> None:
    x = cr.tensor([np.nan, -1.0, 2.0])
    assert np.isnan(compile(F.relu)(x).numpy()[0])
    assert np.isnan(compile(lambda v: cr.max(v))(x).item()) and np.isnan(
        compile(lambda v: cr.min(v))(x).item()
    )
    assert np.isnan(compile(lambda v: cr.maximum(v, 0.0))(x).numpy()[0])
    assert np.isnan(compile(lambda v: cr.maximum(0.0, v))(x).numpy()[0])


# ---------------------------------------------------------------------------------- between calls


def test_reasons_for_another_program() -> None:
    @compile
    def step(batch: dict[str, Any], scale: float = 1.0, training: bool = True) -> cr.Tensor:
        return (batch["x"] * scale).sum() * (1.0 if training else 0.5)

    x = np.ones((2, 3), "float32")
    step({"x": x})
    step({"x": x + 1})
    assert step.recompiles == []
    step({"x": np.ones((5, 3), "float32")})
    step({"x": np.ones((5, 3))})
    step({"x": np.ones((5, 3))}, scale=2.0)
    step({"x": np.ones((5, 3))}, scale=2.0, training=False)
    with cr.no_grad():
        step({"x": np.ones((5, 3))}, scale=3.0)
    assert step.recompiles[:4] == [
        "argument batch['x']: float32[2, 3] → float32[5, 3]",
        "argument batch['x']: float32[5, 3] → float64[5, 3]",
        "arguments: batch → batch, scale",
        "arguments: batch, scale → batch, scale, training",
    ]
    assert step({"x": x}, 2.0).item() == 12.0
    step({"x": x}, 3.0)
    assert step.recompiles[-1] == "argument scale: 2.0 → 3.0"


def test_a_program_for_no_grad_is_another_one() -> None:
    w = f64(2.0, requires_grad=True)
    step = compile(lambda x: (w * x, (w * x).requires_grad))
    assert step(f64(1.0))[1] is True
    with cr.no_grad():
        assert step(f64(1.0))[1] is False
    assert step(f64(1.0))[1] is True
    assert len(step._programs) == 2


SCALE = 2.0
TABLE = {"shift": 1.0}


def helper(x: Any) -> Any:
    return x * SCALE + TABLE["shift"]


def test_numbers_of_globals_and_closures_are_compared_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    offset = 10.0
    step = compile(lambda x: helper(x) + offset)
    assert step(f64(1.0)).item() == 13.0
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 3.0)
    assert step(f64(1.0)).item() == 14.0
    monkeypatch.setitem(TABLE, "shift", 2.0)
    assert step(f64(1.0)).item() == 15.0
    offset = 20.0
    assert step(f64(1.0)).item() == 25.0
    assert step.recompiles[0] == "SCALE: 2.0 → 3.0" and step.recompiles[2] == "offset: 10.0 → 20.0"
    offset = 10.0
    assert step(f64(1.0)).item() == 15.0


class Settings:
    def __init__(self) -> None:
        self.rate = 1.0

    @compile
    def scaled(self, x: cr.Tensor) -> cr.Tensor:
        return x * self.rate


def test_attributes_of_objects_are_compared() -> None:
    settings = Settings()
    assert settings.scaled(f64(2.0)).item() == 2.0
    settings.rate = 5.0
    assert settings.scaled(f64(2.0)).item() == 10.0
    assert Settings().scaled(f64(2.0)).item() == 2.0
    step = compile(lambda x: x * settings.rate)
    assert step(f64(2.0)).item() == 10.0
    settings.rate = 6.0
    assert step(f64(2.0)).item() == 12.0


class Scaled(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * SCALE


def test_globals_of_layers_deep_in_a_model_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Sequential(Scaled()))
    step, direct = compile(lambda x: model(x)), compile(model)
    assert step(f64(1.0)).item() == direct(f64(1.0)).item() == 2.0
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 5.0)
    assert step(f64(1.0)).item() == direct(f64(1.0)).item() == 5.0
    assert direct.function is model and not hasattr(direct, "training")


def test_captured_tensors_and_arrays_are_inputs() -> None:
    shift, mask = f64([1.0, 2.0]), np.array([1.0, 0.0])
    step = compile(lambda x: x * mask + shift)
    assert step(f64([1.0, 1.0])).tolist() == [2.0, 2.0]
    shift += 1.0
    assert step(f64([1.0, 1.0])).tolist() == [3.0, 3.0]
    assert len(step._programs) == 1
    mask[1] = 5.0
    assert step(f64([1.0, 1.0])).tolist() == [3.0, 8.0]
    shift = f64([0.0, 0.0])
    assert step(f64([1.0, 1.0])).tolist() == [1.0, 5.0]


def test_in_place_on_handles_reaches_the_caller() -> None:
    total = f64([0.0, 0.0])

    @compile
    def add(x: cr.Tensor) -> None:
        nonlocal total
        total += x
        x *= 2.0

    x = f64([1.0, 2.0])
    add(x)
    add(x)
    assert total.tolist() == [3.0, 6.0] and x.tolist() == [4.0, 8.0]
    assert len(add._programs) == 1


def test_modes_freezing_and_swapped_layers_are_noticed() -> None:
    class Switch(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2.0 if self.training else x

    model = nn.Sequential(nn.Linear(2, 2), Switch())
    step = compile(lambda x: model(x))
    x = cr.ones((1, 2))
    training = step(x).numpy()
    model.eval()
    np.testing.assert_allclose(step(x).numpy() * 2, training)
    model.train()
    np.testing.assert_allclose(step(x).numpy(), training)
    model[0].weight.requires_grad = False
    learn = compile(lambda x: model(x).sum().backward())
    learn(x)
    assert model[0].weight.grad is None and model[0].bias.grad is not None
    model[0].weight.requires_grad = True
    learn(x)
    assert model[0].weight.grad is not None
    model[0] = nn.Linear(2, 3)
    assert step(x).shape == (1, 3)


def test_other_arrays_in_the_same_cells_are_used() -> None:
    params = parameters("float32")
    step = compile(learning(params))
    x, y = batch("float32")
    first = step(x, y).item()
    with cr.no_grad():
        for p, original in zip(params, parameters("float32")):
            p.copy_(original)
    assert step(x, y).item() == first
    assert len(step._programs) == 1


def test_results_are_the_callers_own() -> None:
    x = np.ones(3, "float32")
    same = compile(lambda v: v)
    result = same(x)
    x[0] = 7.0
    assert result.tolist() == [1.0, 1.0, 1.0]
    w = cr.tensor([1.0], requires_grad=True)
    assert compile(lambda: w)() is w
    a, b = compile(lambda v: (v + 1.0, v + 1.0))(x)
    assert a is not b and a.tolist() == b.tolist()
    assert compile(lambda v: {"n": 3, "s": "text", "none": None, "l": [v * 2.0]})(x)["l"][0].tolist() == [
        14.0,
        2.0,
        2.0,
    ]


def test_arrays_of_any_layout() -> None:
    base = np.arange(24, dtype=">f8").reshape(4, 6)
    step = compile(lambda x: x + 1.0)
    for view in (
        base,
        base.T,
        base[::2, ::-1],
        np.asfortranarray(base),
        base.astype("float32")[1:, 1:],
        base[:, :0],
    ):
        np.testing.assert_array_equal(step(view).numpy(), view + 1.0)
    assert step(np.float64(3.0)).item() == 4.0


def test_cells_made_inside_do_not_outlive_the_call() -> None:
    @compile
    def step(x: cr.Tensor) -> cr.Tensor:
        inner = f64([1.0, 2.0], requires_grad=True)
        (inner * x).sum().backward()
        return inner.grad

    assert step(f64([3.0, 4.0])).tolist() == [3.0, 4.0]
    assert step(f64([5.0, 6.0])).tolist() == [5.0, 6.0]
    assert len(step._programs) == 1


def test_a_compiled_function_inside_another_is_part_of_it() -> None:
    inner = compile(lambda x: x * 2.0)
    outer = compile(lambda x: inner(x) + 1.0)
    assert outer(f64(3.0)).item() == 7.0
    assert not inner._programs


def test_programs_and_their_memory_go_away() -> None:
    step = compile(lambda x: cr.exp(x) * 3.25)
    step(f64([1.0]))
    program = weakref.ref(step._programs[0])
    del step
    gc.collect()
    assert program() is None


def test_the_number_of_programs_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.compiled, "_MOST_PROGRAMS", 3)
    step = compile(lambda x, n: x * 1.0 if n >= 0 else x)
    for n in range(6):
        step(f64(1.0), n)
    assert len(step._programs) == 3


# ---------------------------------------------------------------------------------- errors, switches


def test_numbers_are_refused_with_the_line_and_the_fix() -> None:
    for ask in (float, bool, int, lambda x: x.numpy(), lambda x: x.tolist(), lambda x: 1 if x > 0 else 2):
        with pytest.raises(
            TraceError,
            match=r"has no numbers yet; got Traced (float64|bool)\[\] .*cr\.where.*test_compile\.py:\d+",
        ):
            compile(lambda x, ask=ask: ask(x * 2.0))(f64(1.0))


def test_a_traced_tensor_prints_what_it_is() -> None:
    seen = []

    @compile
    def step(x: cr.Tensor) -> cr.Tensor:
        y = F.relu(x)
        seen.append(repr(y))
        return y

    step(cr.ones((32, 10)))
    assert seen[0].startswith("Traced float32[32, 10] relu (test_compile.py:")


def test_a_value_that_is_kept_outside_has_numbers_after_the_call() -> None:
    kept = []

    @compile
    def step(x: cr.Tensor) -> cr.Tensor:
        kept.append(x * 2.0)
        return x

    step(f64(1.0))
    step(f64(2.0))
    assert [one.item() for one in kept] == [2.0, 4.0]
    assert compile(lambda x: x + kept[0])(f64(1.0)).item() == 3.0


def test_arguments_with_a_history_are_refused() -> None:
    w = f64(2.0, requires_grad=True)
    with pytest.raises(GradientError, match=r"pass x.detach\(\)"):
        compile(lambda x: x * 2.0)(w * 3.0)
    with cr.no_grad():
        assert compile(lambda x: x * 2.0)(w * 3.0).item() == 12.0


def test_a_cell_keeps_its_type() -> None:
    w = cr.tensor([1.0], requires_grad=True)
    with pytest.raises(
        TraceError, match=r"keeps the types of cells; a tensor is float32\[1\], and float64\[1\]"
    ):
        compile(lambda: w.cell.write_node(f64([1.0]).node))()


def test_compile_refuses_what_is_no_function() -> None:
    with pytest.raises(ArgumentError, match="needs a function; got int"):
        compile(3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="has not been compiled yet"):
        compile(lambda: None).stages()


def test_switching_compilation_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "compile", False)
    step = compile(lambda x: 1.0 if float(x) > 0 else 2.0)
    assert step(f64(1.0)) == 1.0 and not step._programs


def test_the_environment_switches_compilation_off_and_dumps_stages() -> None:
    program = (
        "import chainrule as cr; from chainrule.runtime import compile\n"
        "step = compile(lambda x: (x * 2.0).sum()); print(step(cr.ones(3)).item(), len(step._programs))"
    )
    run = lambda **extra: subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **extra},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run(CHAINRULE_COMPILE="0").stdout == "6.0 0\n"
    dumped = run(CHAINRULE_DUMP="fuse,lower")
    assert dumped.stdout == "6.0 1\n"
    assert "--- fuse" in dumped.stderr and "--- lower" in dumped.stderr and "--- llvm" not in dumped.stderr


def test_without_llvm_the_interpreter_keeps_the_transaction(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtime.program, "available", lambda: False)
    runtime.compiled._say_once.cache_clear()
    params, same = parameters("float64"), parameters("float64")
    step, plain = compile(learning(params)), learning(same)
    x, y = batch("float64")
    for _ in range(3):
        assert step(x, y).item() == pytest.approx(plain(cr.tensor(x), cr.tensor(y)).item(), abs=1e-13)
    before = params[0].detach().numpy()
    with pytest.raises(BoundsError, match="classes from 0 to 2"):
        step(x, y + 3)
    np.testing.assert_array_equal(params[0].detach().numpy(), before)
    assert capsys.readouterr().err.count("runs on the NumPy interpreter") + 0 <= 1
    runtime.compiled._say_once.cache_clear()


def test_llvmlite_is_loaded_when_a_step_is_compiled() -> None:
    program = "import sys, chainrule, chainrule.runtime; print('llvmlite' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_operations_without_machine_code_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "forbid_interpreter", True)
    with pytest.raises(CompileError, match=r"cannot turn argsort of float64\[2\] .*test_compile.py"):
        compile(cr.sort)(f64([1.0, 0.0]))
