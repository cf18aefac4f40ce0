"""Where a NaN comes from: the operation that made it, what went in, the user's line, the parameter, and a fix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim
from chainrule.errors import NonFiniteError
from chainrule.runtime import compile, program
from chainrule.runtime.provenance import find_producer

ZERO = [0.0, 2.0, 0.0]
PLAIN = [1.0, 2.0, 3.0]


def failure(function: Any, data: list[float], start: list[float] | None = None) -> tuple[str, cr.Tensor]:
    """The message of a compiled step that learns `w` from a function of it; and w."""
    w = cr.tensor(start or [0.5, -1.0, 2.0], requires_grad=True)

    @compile
    def step(x: Any) -> Any:
        loss = function(w, x)
        loss.backward()
        with cr.no_grad():
            w.copy_(w - 0.1 * w.grad)
        w.grad = None
        return loss

    with pytest.raises(NonFiniteError) as caught:
        step(cr.tensor(data))
    return str(caught.value), w


CASES = {
    "logarithm of 0": (
        lambda w, x: cr.log(w * w * x).mean(), ZERO, "log (test_provenance.py", "-inf at [0] where x = 0, 2 of 3",
        "log needs x > 0"
    ),
    "logarithm of a negative number": (
        lambda w, x: cr.log(w * x).sum(), PLAIN, "log (test_provenance.py", "nan at [1] where x = -2, 1 of 3",
        "log needs x > 0"
    ),
    "division by 0": (
        lambda w, x: (w / x).sum(), ZERO, "divide (", "inf at [0] where x = 0.5 and y = 0, 2 of 3", "It divides by 0"
    ),
    "root of a negative number": (
        lambda w, x: cr.sqrt(w * x).sum(), PLAIN, "sqrt (", "nan at [1] where x = -2", "sqrt needs x ≥ 0"
    ),
    "overflow of exp": (
        lambda w, x: cr.exp(w * x * 100).sum(), PLAIN, "exp (", "inf at [2] where x = 600",
        "subtract the largest number"
    ),
    "a softmax written by hand": (
        lambda w, x: (cr.exp(w * x * 100) / cr.exp(w * x * 100).sum()).sum(), PLAIN, "exp (", "where x = 600", "softmax"
    ),
    "a row that is masked as a whole": (
        lambda w, x: F.softmax(cr.where(x > 5, w * x, -np.inf), axis=0).sum(), PLAIN,
        "subtract (", "where x = -inf and y = -inf, 3 of 3", "a row is masked as a whole"
    ),
    "0 times infinity": (
        lambda w, x: (w * x * cr.tensor([np.inf, 1.0, 1.0])).sum(), ZERO,
        "multiply (", "where x = 0 and y = inf", "0 · ∞ is no number"
    ),
    "a negative base": (
        lambda w, x: ((w * x) ** 0.3).sum(), PLAIN, "pow (", "where x = -2 and y = 0.3", "A negative base"
    ),
    "numbers that grow": (
        lambda w, x: (w * x * 1e30 * 1e30).sum(), PLAIN, "multiply (", "inf at [0]", "beyond the dtype"
    ),
    "behind a choice": (
        lambda w, x: (cr.where(w > 0, cr.log(w), 0.0) + cr.log(x - 1) * w).sum(), PLAIN,
        "log (", "-inf at [0] where x = 0, 1 of 3", "log needs x > 0"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_producer_is_named_with_its_operands_and_a_fix(name: str) -> None:
    function, data, producer, operands, fix = CASES[name]
    message, w = failure(function, data)
    assert message.startswith("a loss must be finite before anything is learnt from it; got ")
    assert f"The first comes from {producer}" in message
    assert operands in message and fix in message
    assert "Nothing was changed by this step" in message and message.endswith(")")
    assert w.detach().numpy().tolist() == [0.5, -1.0, 2.0] and w.grad is None


def network() -> tuple[nn.Module, Any]:
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @compile
    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return model, step


def data() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).normal(size=(8, 4)).astype("float32"), np.zeros(8, int)


@pytest.mark.parametrize("compiled", [True, False], ids=["machine code", "interpreter"])
def test_a_nan_in_the_data_is_told_as_such(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(program, "available", lambda: False)
    _, step = network()
    x, y = data()
    x[3, 1] = np.nan
    with pytest.raises(NonFiniteError) as caught:
        step(x, y)
    message = str(caught.value)
    assert "The first comes from argument x: nan at [3, 1], 1 of 32 elements" in message
    assert "it would have reached the gradient of 2.bias, 2.weight, 0.weight" in message
    assert "nan_to_num" in message


def test_a_parameter_that_is_not_finite_is_named() -> None:
    model, step = network()
    weight = model.state_dict()["0.weight"].numpy().copy()
    weight[2, 1] = np.inf
    model.load_state_dict({**model.state_dict(), "0.weight": cr.tensor(weight)})
    with pytest.raises(
        NonFiniteError, match=r"comes from 0\.weight: inf at \[2, 1\], 1 of 12 elements.*checkpoint"
    ):
        step(*data())


def test_a_gradient_that_alone_is_not_finite_names_its_parameter() -> None:
    """The loss is finite; a product in the backward pass leaves the range."""
    w = cr.tensor(np.full((2, 2), 1e-30, "float32"), requires_grad=True)

    @compile
    def step(x: Any) -> Any:
        loss = ((x @ w) * 1e20).sum()
        loss.backward()
        return loss

    with pytest.raises(NonFiniteError) as caught:
        step(cr.tensor(np.full((2, 2), 1e20, "float32")))
    message = str(caught.value)
    assert "the gradient of a tensor must be finite" in message
    assert "The first comes from the gradient of matmul, matmul (test_provenance.py" in message
    assert "is up to 1e+20" in message and "it would have reached the gradient of w" in message


def test_eager_graphs_are_searched_as_well() -> None:
    x = cr.tensor([4.0, -1.0, 0.0], requires_grad=True)
    y = cr.sqrt(x) * 2.0
    total = (y + 1.0).sum()
    found = find_producer(total.node)
    assert found is not None
    assert (found.operation, found.kind, found.index, found.wrong, found.size) == (
        "sqrt",
        "operation",
        (1,),
        1,
        3,
    )
    assert found.operands[0].value == -1.0 and found.operands[0].name == "x"
    assert found.line.startswith("test_provenance.py:") and np.isnan(found.value)
    assert "sqrt" in str(found)
    assert find_producer((x * 2.0).sum().node) is None


def test_those_that_only_hand_it_on_are_not_blamed() -> None:
    """A NaN that is not chosen is innocent; of two producers the earlier one is named."""
    x = cr.tensor([0.0, 1.0], requires_grad=True)
    innocent = cr.where(x > 0, cr.log(x), 0.0)
    guilty = cr.exp(x * 1000.0)
    found = find_producer((innocent + guilty).sum().node)
    assert found is not None and found.operation == "exp"
    both = cr.log(x - 1.0) + cr.exp(x * 1000.0)
    found = find_producer(both.sum().node)
    assert found is not None and found.operation == "log"


def test_infinity_that_was_written_down_is_no_fault_until_it_becomes_nan() -> None:
    x = cr.tensor([0.5, 1.0], requires_grad=True)
    masked = cr.where(cr.tensor([True, False]), -np.inf, x)
    assert np.isfinite(cr.exp(masked).sum().item())
    found = find_producer((masked * 0.0).sum().node)
    assert found is not None and found.operation == "multiply" and found.index == (0,)
