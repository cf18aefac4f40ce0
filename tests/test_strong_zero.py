"""Strong zero: a path of slope 0 carries nothing, whatever stands at its end, at every order.

Each case is written by hand from primitives: the trap itself, not a function that was made safe. The cases of
public issue threads carry their number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.errors import NonFiniteError

Rule = Callable[[Any], Any]
NAN, INF = np.nan, np.inf


@dataclass(frozen=True)
class Trap:
    """f at x: the gradient of f(x).sum(), and the sums of the Hessian's rows (None: not decided by the promise)."""

    function: Rule
    x: Any
    gradient: Any
    second: Any = None


MASK = np.asarray([True, False, True])
TARGET = np.asarray([1.0, NAN, 3.0])


def softmax_of_masked(x: Any) -> Any:
    """Scores of −∞ where masked, shifted by the largest finite one."""
    scores = cr.where(MASK, x, -INF)
    powers = cr.exp(scores - 2.0)
    return (powers / powers.sum()) * np.asarray([1.0, 5.0, 0.0])


def share(a: float, b: float) -> float:
    return float(np.exp(a) / (np.exp(a) + np.exp(b)))


P = share(1.0, 2.0)

TRAPS: dict[str, Trap] = {
    # DESIGN: the promise itself
    "(√x − 1)² at 1": Trap(lambda x: (cr.sqrt(x) - 1.0) ** 2, 1.0, 0.0, 0.5),
    "(√x − 1)·(√x − 1) at 1": Trap(lambda x: (cr.sqrt(x) - 1.0) * (cr.sqrt(x) - 1.0), 1.0, 0.0, 0.5),
    "where(x > 0, √x, 0) at 0": Trap(lambda x: cr.where(x > 0, cr.sqrt(x), 0.0), 0.0, 0.0, 0.0),
    "where(x > 0, √x, 0) around 0": Trap(
        lambda x: cr.where(x > 0, cr.sqrt(x), 0.0), [0.0, 4.0, -1.0], [0.0, 0.25, 0.0], [0.0, -1 / 32, 0.0]),
    "√Σx² at 0": Trap(lambda x: cr.sqrt((x * x).sum()), [0.0, 0.0], [0.0, 0.0]),
    "masked log": Trap(
        lambda x: cr.where(x > 0, cr.log(x), 0.0), [0.0, 2.0, -1.0], [0.0, 0.5, 0.0], [0.0, -0.25, 0.0]),
    "masked log by a product": Trap(
        lambda x: (cr.log(x) * MASK)[0] + x.sum() * 0.0, [2.0, 0.0, 1.0], [0.5, 0.0, 0.0]),
    "missing targets": Trap(
        lambda p: cr.where(cr.isnan(cr.asarray(TARGET)), 0.0, (p - TARGET) ** 2), [0.0, 0.0, 0.0],
        [-2.0, 0.0, -6.0], [2.0, 0.0, 2.0]),
    "x**0.0 at 0": Trap(lambda x: x**0.0, 0.0, 0.0, 0.0),
    "x**0.0 with a tensor exponent": Trap(
        lambda x: x ** cr.zeros(3, dtype=cr.float64), [0.0, 1.0, 2.0], [0.0] * 3, [0.0] * 3),
    "x**1.0 at 0": Trap(lambda x: x**1.0, 0.0, 1.0, 0.0),
    "x**2.0 at 0": Trap(lambda x: cr.pow(x, 2.0), 0.0, 0.0, 2.0),
    "x**3.0 at 0": Trap(lambda x: x**3.0, 0.0, 0.0, 0.0),
    "√x**2 at 0 answers 0": Trap(lambda x: cr.sqrt(x) ** 2, 0.0, 0.0),
    "√(x²) at 0": Trap(lambda x: cr.sqrt(x**2), 0.0, 0.0),
    "1/x at 0 stays infinite": Trap(lambda x: 1 / x, 0.0, -INF, INF),
    "√x at 0 stays infinite": Trap(cr.sqrt, 0.0, INF, -INF),
    "log at 0 stays infinite": Trap(cr.log, 0.0, INF, -INF),
    # pytorch#68425: where(a <= 0, exp(a), 1 + a) at 100
    "pytorch#68425": Trap(lambda a: cr.where(a <= 0, cr.exp(a), 1.0 + a), 100.0, 1.0, 0.0),
    "pytorch#68425 at 1e4": Trap(
        lambda a: cr.where(a <= 0, cr.exp(a), 1.0 + a), [1e4, -1.0], [1.0, np.exp(-1)], [0.0, np.exp(-1)]),
    # pytorch#108618, #18287, jax#347, #1052: the branch that is not taken is not finite
    "jax#1052 x·log x": Trap(lambda x: cr.where(x > 0, x * cr.log(x), 0.0), [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]),
    "jax#347 1/x": Trap(lambda x: cr.where(x != 0, 1 / x, 0.0), [0.0, 2.0], [0.0, -0.25], [0.0, 0.25]),
    "pytorch#18287 mask by index": Trap(
        lambda x: (1 / x)[MASK], [1.0, 0.0, 2.0], [-1.0, 0.0, -0.25], [2.0, 0.0, 0.25]),
    "pytorch#108618 asin": Trap(
        lambda x: cr.where(cr.abs(x) < 1, cr.asin(x), 0.0), [0.0, 1.0, 2.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    "autograd#802 division by a masked zero": Trap(
        lambda x: cr.where(MASK, cr.ones(3, dtype=cr.float64) / x, x), [1.0, 0.0, 2.0],
        [-1.0, 1.0, -0.25], [2.0, 0.0, 0.25]),
    "pytorch#36923 atan2 at the origin": Trap(
        lambda x: cr.where(x > 0, cr.atan2(x, x), 0.0), [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]),
    "pytorch#52248 power below 0": Trap(
        lambda x: cr.where(x > 0, x**0.5, 0.0), [-1.0, 0.0, 4.0], [0.0, 0.0, 0.25], [0.0, 0.0, -1 / 32]),
    "pytorch#64305 acos clipped": Trap(
        lambda x: cr.where(x < 1, cr.acos(x), 0.0), [1.0, 0.0], [0.0, -1.0], [0.0, 0.0]),
    "pytorch#89543 nested masks": Trap(
        lambda x: cr.where(x > 0, cr.where(x > 1, cr.sqrt(x - 1.0), 0.0), cr.log(x)), [1.0, 2.0, 0.5],
        [0.0, 0.5, 0.0], [0.0, -0.25, 0.0]),
    "pytorch#121416 overflow in the other branch": Trap(
        lambda x: cr.where(x > 20, x, cr.log(1.0 + cr.exp(x))), [1000.0, 0.0], [1.0, 0.5], [0.0, 0.25]),
    "a path of slope 0 behind a nan constant": Trap(
        lambda x: cr.where(MASK, x * 2.0, x * np.asarray([1.0, NAN, 1.0]) * 0.0 + x), [1.0, 2.0, 3.0],
        [2.0, 1.0, 2.0], [0.0, 0.0, 0.0]),
    "pytorch#156212 nan constant in a branch that is not taken": Trap(
        lambda x: cr.where(MASK, x * 2.0, x * np.asarray([NAN, 3.0, NAN])), [1.0, 2.0, 3.0],
        [2.0, 3.0, 2.0], [0.0, 0.0, 0.0]),
    "masked softmax": Trap(softmax_of_masked, [1.0, 7.0, 2.0], [P * (1 - P), 0.0, -P * (1 - P)]),
    "relu of a diverging root": Trap(lambda x: cr.relu(-cr.sqrt(x)), 0.0, 0.0, 0.0),
    "maximum that the root loses": Trap(lambda x: cr.maximum(cr.sqrt(x), 1.0), 0.0, 0.0, 0.0),
    "clipped root": Trap(
        lambda x: cr.clip(cr.sqrt(x), 0.5, 1.0), [0.0, 0.49], [0.0, 1 / 1.4], [0.0, -1 / (4 * 0.343)]),
    "largest of roots": Trap(lambda x: cr.max(cr.sqrt(x)), [0.0, 4.0], [0.0, 0.25], [0.0, -1 / 32]),
    # pytorch#2421, #65599, autograd#151: norms at 0
    "pytorch#2421 norm by power": Trap(lambda x: ((x**2.0).sum()) ** 0.5, [0.0, 0.0, 0.0], [0.0] * 3),
    "pytorch#65599 hypot at 0": Trap(lambda x: cr.hypot(x[0], x[1]), [0.0, 0.0], [0.0, 0.0]),
    "autograd#151 pairwise distances": Trap(
        lambda x: cr.sqrt((x[:, None] - x[None, :]) ** 2).sum(), [0.0, 1.0], [-2.0, 2.0]),
    "standard deviation of equal numbers": Trap(
        lambda x: cr.sqrt(((x - x.mean()) ** 2).mean()), [3.0, 3.0], [0.0, 0.0]),
    "entropy of a certain distribution": Trap(
        lambda p: -cr.functional.absorb(p, cr.log(p)), [1.0, 0.0], [-1.0, INF]),
}  # fmt: skip


class Eager:
    """The reference engine: operation by operation on NumPy."""

    name = "eager"

    @staticmethod
    def run(function: Rule) -> Rule:
        """The function as this engine runs it."""
        return function


class Compiled:
    """The same function traced and compiled to machine code."""

    name = "compiled"

    @staticmethod
    def run(function: Rule) -> Rule:
        """The function as this engine runs it."""
        compiled: Rule = cr.compile(function)
        return compiled


ENGINES: list[Any] = [Eager, Compiled]
"""Further engines are added here: anything with a name and `run(function) -> function`."""


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest) -> Any:
    return request.param


def at(trap: Trap, dtype: str) -> cr.Tensor:
    return cr.tensor(trap.x, dtype=dtype)


def close(got: Any, wanted: Any, dtype: str) -> None:
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    np.testing.assert_allclose(np.asarray(got.numpy()), np.asarray(wanted), tolerance, tolerance)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", TRAPS)
def test_gradient_by_reverse_mode(name: str, dtype: str, engine: Any) -> None:
    trap = TRAPS[name]
    run = engine.run(cr.grad(lambda x: trap.function(x).sum()))
    close(run(at(trap, dtype)), trap.gradient, dtype)


@pytest.mark.parametrize("name", TRAPS)
def test_gradient_by_forward_mode(name: str, engine: Any) -> None:
    trap = TRAPS[name]
    run = engine.run(cr.jacobian(lambda x: trap.function(x).sum(), mode="forward"))
    close(run(at(trap, "float64")), trap.gradient, "float64")


@pytest.mark.parametrize("name", TRAPS)
def test_gradient_by_backward(name: str, engine: Any) -> None:
    trap = TRAPS[name]
    x = cr.tensor(trap.x, dtype="float64", requires_grad=True)

    def step() -> Any:
        trap.function(x).sum().backward()
        return x.grad

    finite = (
        np.isfinite(trap.gradient).all() and np.isfinite(trap.function(at(trap, "float64")).numpy()).all()
    )
    if engine is Compiled and not finite:  # a compiled step commits nothing that is not finite
        with pytest.raises(NonFiniteError, match="must be finite"):
            engine.run(step)()
        assert x.grad is None
        return
    close(engine.run(step)(), trap.gradient, "float64")


@pytest.mark.parametrize("modes", ["forward over reverse", "reverse over reverse", "forward over forward"])
@pytest.mark.parametrize("name", [name for name, trap in TRAPS.items() if trap.second is not None])
def test_second_order(name: str, modes: str, engine: Any) -> None:
    trap = TRAPS[name]

    def value(x: Any) -> Any:
        return trap.function(x).sum()

    x = at(trap, "float64")
    if modes == "forward over forward":
        ones = cr.ones(x.shape, dtype=x.dtype)
        got = engine.run(cr.jacobian(lambda y: cr.jvp(value, [y], [ones])[1], mode="forward"))(x)
    else:
        outer = cr.grad if modes.startswith("reverse") else (lambda f: cr.jacobian(f, mode="forward"))
        got = engine.run(outer(lambda y: cr.grad(value)(y).sum()))(x)
    close(got, trap.second, "float64")


def test_third_order_of_a_masked_root() -> None:
    f = lambda x: cr.where(x > 0, cr.sqrt(x), 0.0)
    third = cr.grad(cr.grad(cr.grad(f)))
    assert third(cr.tensor(0.0, dtype=cr.float64)).item() == 0.0
    assert third(cr.tensor(1.0, dtype=cr.float64)).item() == pytest.approx(3 / 8)


def test_hessian_of_the_promise() -> None:
    for at_one in (cr.hessian, lambda f: cr.jacobian(cr.grad(f), mode="reverse")):
        assert at_one(lambda x: (cr.sqrt(x) - 1) ** 2)(cr.tensor(1.0, dtype=cr.float64)).item() == 0.5


@pytest.mark.parametrize("order", [1, 2])
def test_matrix_products_are_ieee(order: int) -> None:
    """The one exception: 0 · NaN inside a product is NaN, so padded NaN must be masked before it."""
    x = cr.tensor([[0.0, 1.0]], dtype=cr.float64)
    weight = cr.tensor([[NAN], [1.0]], dtype=cr.float64)
    assert np.isnan((x @ weight).item())
    gradient = cr.grad(lambda v: (v @ weight).sum() if order == 1 else ((v @ weight) ** 2).sum())
    assert np.isnan(gradient(x).numpy()[0, 0])
    masked = cr.where(cr.isnan(weight), 0.0, weight)
    assert cr.grad(lambda v: (v @ masked).sum())(x).tolist() == [[0.0, 1.0]]


def test_infinite_slopes_that_are_real_survive() -> None:
    x = cr.tensor([0.0, 4.0], dtype=cr.float64)
    assert cr.grad(lambda v: cr.sqrt(v).sum())(x).tolist() == [INF, 0.25]
    assert cr.grad(lambda v: (3.0 * cr.sqrt(v)).sum())(x).tolist() == [INF, 0.75]
    assert np.isnan(cr.grad(lambda v: (v * NAN).sum())(x).numpy()).all()


def test_absorb_is_bilinear_at_every_order() -> None:
    """d absorb(a, b) = absorb(da, b) + absorb(a, db): with a `where` inside, the mixed derivative would be 0."""
    a, b = cr.tensor(0.0, dtype=cr.float64), cr.tensor(3.0, dtype=cr.float64)
    first = cr.grad(cr.functional.absorb, (0, 1))
    assert [one.item() for one in first(a, b)] == [3.0, 0.0]
    mixed = cr.grad(lambda x, y: cr.grad(cr.functional.absorb)(x, y), 1)
    assert mixed(a, b).item() == 1.0
