"""What comes out of a compiled function has no graph: a gradient that would have to pass it is refused, not lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.config import config
from chainrule.errors import CompileError, GradientError
from chainrule.runtime import compile
from chainrule.train.engine import make_forward_engine

X = cr.tensor([1.0, -2.0])


@pytest.fixture
def step() -> Any:
    w = cr.tensor([3.0, 4.0], requires_grad=True)
    return compile(lambda x: (w * x, x * 2.0, w > 3.5))


@pytest.fixture
def v() -> cr.Tensor:
    return cr.tensor([5.0, 6.0], requires_grad=True)


@pytest.mark.parametrize("between", [
    lambda h: h, lambda h: h * 2.0 + 1.0, lambda h: cr.exp(h).sum(), lambda h: (h * cr.ones((3, 2))).mean(axis=0),
    lambda h: cr.concat([h, h])[1:3], lambda h: cr.where(h > 0, h, 0.0),
])  # fmt: skip
def test_a_gradient_that_would_pass_is_refused(between: Any, step: Any, v: cr.Tensor) -> None:
    loss = (between(step(X)[0]) * v).sum()
    with pytest.raises(
        GradientError, match=r"result of a compiled function.*got float32\(.*test_without_graph.py"
    ):
        loss.backward()
    assert v.grad is None


def test_backward_from_it_says_why(step: Any) -> None:
    for loss in (step(X)[0].sum(), (step(X)[0] ** 2).sum()):
        with pytest.raises(GradientError, match="Call backward\\(\\) inside the compiled function"):
            loss.backward()


@pytest.mark.parametrize("constant", [
    lambda step: step(X)[0].detach(), lambda step: step(X)[1], lambda step: step(X)[2].astype("float32"),
    lambda step: cr.sign(step(X)[0]), lambda step: cr.tensor(step(X)[0].numpy()),
])  # fmt: skip
def test_constants_pass(constant: Any, step: Any, v: cr.Tensor) -> None:
    """Detached, not dependent on anything that requires grad, or without a slope."""
    value = constant(step)
    (value * v).sum().backward()
    np.testing.assert_array_equal(v.grad.numpy(), value.numpy())


def test_no_gradient_is_asked_for(step: Any, v: cr.Tensor) -> None:
    with cr.no_grad():
        inside, later = step(X)[0], step(X)[0] * 2.0
    ((inside + later) * v).sum().backward()
    np.testing.assert_array_equal(v.grad.numpy(), 3 * inside.numpy())
    hidden = step(X)[0]
    np.testing.assert_array_equal(step(hidden)[1].numpy(), 2 * hidden.numpy())  # handed on to the next call
    loss = (step(X)[0] * v).sum()
    assert "constant" in str(cr.explain(loss)) and loss.item() == pytest.approx(-33.0)


def test_a_gradient_of_given_tensors_takes_it_as_a_constant(step: Any) -> None:
    found = cr.grad(lambda a: (a * step(X)[0]).sum())(cr.tensor([1.0, 1.0]))
    np.testing.assert_array_equal(found.numpy(), [3.0, -8.0])


# ------------------------------------------------------------------------------- CHAINRULE_FORBID_INTERPRETER


DATA = (np.random.default_rng(0).normal(size=(12, 3)).astype("float32"), np.arange(12) % 2)


def test_what_fit_runs_is_compiled_at_once_where_python_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = nn.Linear(3, 2), cr.tensor(DATA[0])
    call = lambda model, inputs: model(inputs)
    usual = make_forward_engine(model, "auto", call)
    usual.call((inputs,))
    assert usual.compiled is None
    monkeypatch.setattr(config, "forbid_interpreter", True)
    forced = make_forward_engine(model, "auto", call)
    np.testing.assert_allclose(forced.call((inputs,)).numpy(), model(inputs).detach().numpy(), rtol=1e-6)
    assert forced.compiled is not None
    run = cr.fit(model, DATA, loss="cross_entropy", epochs=1, batch_size=4, progress=False)
    assert run.why_python is None


def test_fit_says_what_cannot_be_compiled_where_python_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "forbid_interpreter", True)

    class Sorts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x: cr.Tensor) -> cr.Tensor:
            return self.linear(cr.sort(x))

    with pytest.raises(CompileError, match="cannot turn argsort"):
        cr.fit(Sorts(), DATA, loss="cross_entropy", epochs=1, batch_size=4, progress=False)
