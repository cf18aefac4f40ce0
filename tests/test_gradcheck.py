"""`check_grads`: planted mistakes are found and named; good functions are never called wrong, kinks included."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import chainrule as cr
from chainrule.errors import ArgumentError, GradientCheckError
from chainrule.testing import KINDS, check_grads
from chainrule.testing.differences import differentiate

Rule = Callable[..., Any]


def normal(*shape: int, seed: int = 0, dtype: Any = cr.float64) -> cr.Tensor:
    return cr.tensor(np.random.default_rng(seed).normal(size=shape), dtype=dtype)


# ------------------------------------------------------------------------------------ good functions

X, W, B = normal(4, 3), normal(3, 2, seed=1), normal(2, seed=2)


class Layer(NamedTuple):
    weight: Any
    bias: Any


@dataclasses.dataclass
class Model:
    first: Any
    scale: Any


GOOD: dict[str, tuple[Rule, tuple[Any, ...]]] = {
    "mlp": (lambda x, w, b: cr.tanh(x @ w + b).sum(), (X, W, B)),
    "vector output": (lambda x: cr.sin(x) * x, (X,)),
    "two outputs": (lambda x: {"a": cr.exp(x), "b": (x * x).sum()}, (X,)),
    "dict, list, named tuple": (
        lambda p: (p["w"] @ p["l"][0]).sum() * p["t"].bias,
        ({"w": normal(2, 3), "l": [normal(3)], "t": Layer(normal(2), normal())},),
    ),
    "dataclass": (lambda m: (m.first * m.scale).sum(), (Model(normal(3), normal()),)),
    "integers beside floats": (lambda x, k: cr.take(x, k, axis=0) * 2.0, (X, np.asarray([1, 1, 0]))),
    "python floats": (lambda a, b: a**b, (2.0, 3.0)),
    "softmax cross entropy": (
        lambda z: cr.functional.cross_entropy(z, cr.asarray([0, 2, 1, 1])), (normal(4, 3),)),
    "broadcasts": (lambda a, b: a * b + b, (normal(3, 1), normal(1, 4))),
    "small input": (lambda x: cr.log(x), (cr.tensor([1e-6, 1e-3], dtype=cr.float64),)),
    "large input": (lambda x: cr.sin(x / 1e6), (cr.tensor([3e6, -1e7], dtype=cr.float64),)),
    "tiny scale": (lambda x: 1e-30 * cr.exp(x), (normal(3),)),
    "large offset": (lambda x: 1e6 + cr.sin(x), (normal(3),)),
    "constant": (lambda x: cr.floor(x) + 5.0, (cr.tensor([0.3, 2.6], dtype=cr.float64),)),
    "inner gradient": (lambda x: cr.grad(lambda y: (y * y * y).sum())(x), (normal(3),)),
    "checkpoint": (lambda x: cr.checkpoint(lambda y: cr.sin(y) * y)(x), (normal(3),)),
    "relu network": (lambda x, w: cr.relu(cr.relu(x @ w) @ w.T).sum(), (X, W)),
    "fast oscillation": (lambda x: cr.sin(128 * np.pi * x), (cr.tensor([0.0, 1.0], dtype=cr.float64),)),
    "empty": (lambda x: x.sum() + 1.0, (cr.zeros((0, 3), dtype=cr.float64),)),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_functions_are_correct(name: str) -> None:
    function, args = GOOD[name]
    report = check_grads(function, args)
    assert report.ok
    assert not report.undecided, str(report)
    assert {one.order for one in report.checks} == {1, 2}


def test_single_precision_is_judged_in_double() -> None:
    report = check_grads(
        lambda x, w: cr.functional.softmax(x @ w), (X.astype("float32"), W.astype("float32"))
    )
    assert report.ok and not report.undecided
    assert max(float(np.nanmax(one.error)) for one in report.checks) < 1e-6


def test_single_precision_only() -> None:
    report = check_grads(lambda x: cr.tanh(x.astype("float32") * 2), (X.astype("float32"),), order=1)
    assert report.ok and not report.undecided
    assert "float32 only" in str(report)
    wrong = planted(lambda g, x: 2 * g * (1 - cr.tanh(x) ** 2), cr.tanh)
    report = check_grads(lambda x: wrong(x.astype("float32")), (X.astype("float32"),), raise_on_error=False)
    assert [one.kind for one in report.wrong] == ["factor"]


def test_captured_single_precision_weights() -> None:
    model = W.astype("float32")
    assert check_grads(lambda x: cr.functional.linear(x, model.T), (X.astype("float32"),), order=1).ok


# ----------------------------------------------------------------------- never a false alarm at kinks

at = lambda *values: cr.tensor(values[0] if len(values) == 1 else list(values), dtype=cr.float64)

KINKS: dict[str, tuple[Rule, tuple[Any, ...], str]] = {
    "relu at 0": (cr.relu, (at(0.0),), "kink"),
    "abs at 0": (cr.abs, (at(0.0),), "kink"),
    "max tie": (cr.max, (at(1.0, 1.0, 0.0),), "kink"),
    "maximum tie": (cr.maximum, (at(1.0), at(1.0)), "kink"),
    "clip at its end": (lambda x: cr.clip(x, 0.0, 1.0), (at(1.0),), "kink"),
    "sqrt(x)**2 at 0": (lambda x: cr.sqrt(x) ** 2, (at(0.0),), "edge"),
    "sqrt at 0": (cr.sqrt, (at(0.0),), "edge"),
    "log at 0": (cr.log, (at(0.0),), "edge"),
    "1/x at 0": (lambda x: 1 / x, (at(0.0),), "edge"),
    "asin at 1": (cr.asin, (at(1.0),), "edge"),
    "norm at 0": (lambda x: cr.sqrt((x * x).sum()), (at(0.0, 0.0),), "kink"),
    "masked sqrt at 0": (lambda x: cr.where(x > 0, cr.sqrt(x), 0.0), (at(0.0),), "diverges"),
    "floor at a whole number": (cr.floor, (at(2.0),), "diverges"),
    "a step": (lambda x: cr.where(x > 1, 1.0, 0.0) * x, (at(1.0),), "diverges"),
    "cancelling kinks": (lambda x: cr.relu(x) - cr.relu(-x), (at(0.0),), "convention"),
    "cancelling absolutes": (lambda x: cr.abs(x) + x - cr.abs(x), (at(0.0),), "correct"),
    "cancelled digits": (lambda x: (1e16 + x) - 1e16, (at(1.0),), "noise"),
    "max pooling tie": (lambda x: cr.max(x.reshape((2, 2)), axis=1), (at(1.0, 1.0, 2.0, 0.0),), "kink"),
    "nan": (lambda x: cr.log(x), (at(-1.0),), "edge"),
}


@pytest.mark.parametrize("name", KINKS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_no_false_alarm(name: str, dtype: str) -> None:
    function, args, obstacle = KINKS[name]
    report = check_grads(function, tuple(one.astype(dtype) for one in args))
    assert report.ok
    first = [one for one in report.checks if one.order == 1]
    if obstacle == "correct":
        assert all(one.verdict == "correct" for one in first)
        return
    assert all(one.verdict == "not decidable here" for one in first), str(report)
    assert all(obstacle in one.reasons.values() for one in first), [one.reasons for one in first]
    assert "not decidable here" in str(report)


def test_an_infinite_slope_that_meets_its_opposite() -> None:
    """√(x − x): reverse mode meets ∞ − ∞ inside, forward mode a tangent of 0. Neither is a mistake of a rule."""
    report = check_grads(lambda x: cr.sqrt(x - x), (at(1.0),), order=1)
    assert [one.verdict for one in report.checks] == ["correct", "not decidable here"]


def test_relu_layers_with_exact_zeros() -> None:
    x = cr.tensor(np.asarray([[0.0, 1.0], [-1.0, 0.0]]), dtype=cr.float32)
    assert check_grads(lambda x, w: cr.relu(cr.relu(x) @ w).mean(), (x, cr.eye(2))).ok


# -------------------------------------------------------------------------------- planted mistakes


def planted(rule: Rule, forward: Rule) -> Rule:
    """`forward` with the backward rule `rule(g, *arguments)`."""

    @cr.custom_gradient
    def function(*arguments: cr.Tensor) -> Any:
        return forward(*arguments), lambda g: rule(g, *arguments)

    return function


def dense(x: Any, w: Any, b: Any) -> Any:
    return x @ w + b


SQUARE = normal(3, 3, seed=5)
sigmoid, tanh = cr.sigmoid, cr.tanh
LABEL = at(1.0, 0.0, 1.0)

# name: (forward, wrong rule, arguments, the input that is wrong, kind, factor)
PLANTED: dict[str, tuple[Rule, Rule, tuple[Any, ...], str, str, float | None]] = {
    "sin: sign": (cr.sin, lambda g, x: -g * cr.cos(x), (X,), "x", "sign", -1),
    "cos: sign forgotten": (cr.cos, lambda g, x: g * cr.sin(x), (X,), "x", "sign", -1),
    "square: 2 forgotten": (lambda x: x * x, lambda g, x: g * x, (X,), "x", "factor", 0.5),
    "tanh: doubled": (tanh, lambda g, x: 2 * g * (1 - tanh(x) ** 2), (X,), "x", "factor", 2),
    "sigmoid: σ instead of σ′": (sigmoid, lambda g, x: g * sigmoid(x), (X,), "x", "output used as slope", None),
    "sigmoid: σ′ missing": (sigmoid, lambda g, x: g, (X,), "x", "local derivative missing", None),
    "relu: gate missing": (cr.relu, lambda g, x: g, (X,), "x", "local derivative missing", None),
    "log10: log 10 forgotten": (cr.log10, lambda g, x: g / x, (abs(X),), "x", "factor", 2.302585),
    "exp: cut": (cr.exp, lambda g, x: g * 0, (X,), "x", "zero", 0),
    "sqrt: NaN": (cr.sqrt, lambda g, x: g / (x * 0) * 0, (abs(X),), "x", "not finite", None),
    "dense: w sign": (dense, lambda g, x, w, b: (g @ w.T, -(x.T @ g), g.sum(axis=0)), (X, W, B), "w", "sign", -1),
    "dense: w doubled": (
        dense, lambda g, x, w, b: (g @ w.T, 2 * (x.T @ g), g.sum(axis=0)), (X, W, B), "w", "factor", 2),
    "dense: w not transposed for x": (
        lambda x, w: x @ w, lambda g, x, w: (g @ w, x.T @ g), (X, SQUARE), "x", "values", None),
    "dense: wᵀ gradient for w": (
        lambda x, w: x @ w, lambda g, x, w: (g @ w.T, g.T @ x), (X, SQUARE), "w", "transposed", None),
    "dense: w gradient refolded": (
        lambda x, w: x @ w, lambda g, x, w: (g @ w.T, (g.T @ x).reshape(w.shape)), (X, W), "w", "transposed", None),
    "dense: bias of one row": (
        dense, lambda g, x, w, b: (g @ w.T, x.T @ g, g[0]), (X, W, B), "b", "missing batch sum", None),
    "dense: bias of the last row": (
        dense, lambda g, x, w, b: (g @ w.T, x.T @ g, g[-1]), (X, W, B), "b", "missing batch sum", None),
    "dense: bias mean": (
        dense, lambda g, x, w, b: (g @ w.T, x.T @ g, g.mean(axis=0)), (X, W, B), "b", "factor", 0.25),
    "dense: w of one row": (
        dense, lambda g, x, w, b: (g @ w.T, x[0][:, None] * g[0], g.sum(axis=0)), (X, W, B), "w",
        "missing batch sum", None),
    "rows: summed over the batch": (
        lambda x: cr.sin(x), lambda g, x: cr.broadcast_to((g * cr.cos(x)).sum(axis=0), x.shape), (X,), "x",
        "summed over the batch", None),
    "product: operands swapped": (
        lambda x, y: cr.sin(x) * y, lambda g, x, y: (g * cr.sin(x), g * cr.cos(x) * y), (X, normal(4, 3, seed=9)),
        "x", "swapped", None),
    "mse: ŷ − y turned round": (
        lambda p: ((p - LABEL) ** 2).mean(), lambda g, p: g * 2 * (LABEL - p) / 3, (normal(3),), "p", "sign", -1),
    "mse: 1/n forgotten": (
        lambda p: ((p - LABEL) ** 2).mean(), lambda g, p: g * 2 * (p - LABEL), (normal(3),), "p", "factor", 3),
    "bce with logits: y − σ": (
        lambda z: cr.functional.binary_cross_entropy_with_logits(z, LABEL),
        lambda g, z: g * (LABEL - sigmoid(z)) / 3, (normal(3),), "z", "sign", -1),
    "flip: order kept": (lambda x: cr.flip(x, axis=0), lambda g, x: g, (normal(5),), "x", "reversed", None),
    "cumulative sum: not turned": (
        lambda x: cr.cumulative_sum(x, axis=0), lambda g, x: cr.cumulative_sum(g, axis=0), (normal(5),), "x",
        "values", None),
    "softmax: the sum forgotten": (
        cr.functional.softmax, lambda g, x: g * cr.functional.softmax(x), (X,), "x", "output used as slope", None),
    "division: y² forgotten": (
        lambda x, y: x / y, lambda g, x, y: (g / y, -g * x / y), (X, normal(4, 3, seed=9)), "y", "values", None),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_planted_mistakes_are_named(name: str) -> None:
    forward, rule, args, wrong, kind, factor = PLANTED[name]
    names = {"x": 0, "w": 1, "b": 2, "y": 1, "p": 0, "z": 0}
    function = planted(rule, forward)
    wrapped: dict[int, Rule] = {1: lambda x: function(x), 2: lambda x, w: function(x, w),
                                3: lambda x, w, b: function(x, w, b)}  # fmt: skip
    report = check_grads(wrapped[len(args)], args, raise_on_error=False)
    assert not report.ok
    found = {one.name: one for one in report.wrong}
    position = ["x", "w", "b"][names[wrong]]
    assert position in found, str(report)
    assert found[position].kind == kind, str(report)
    if factor is not None:
        assert found[position].factor == pytest.approx(factor, rel=1e-5)
    if kind != "swapped":
        assert set(found) == {position}


SHAPES: dict[str, tuple[Rule, Rule, tuple[Any, ...], str]] = {
    "bias without the batch sum": (
        dense, lambda g, x, w, b: (g @ w.T, x.T @ g, g), (X, W, B), "missing batch sum"),
    "w transposed": (lambda x, w: x @ w, lambda g, x, w: (g @ w.T, g.T @ x), (X, W), "transposed"),
    "a scalar for a vector": (lambda x: x * 2, lambda g, x: g.sum() * 2, (X,), "shape"),
    "broadcast column not summed": (
        lambda x, y: x * y, lambda g, x, y: (g * y, g * x), (X, normal(4, 1)), "missing batch sum"),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_cotangents_of_the_wrong_shape_are_named(name: str) -> None:
    forward, rule, args, kind = SHAPES[name]
    report = check_grads(planted(rule, forward), args, raise_on_error=False)
    assert not report.ok
    assert [one.kind for one in report.wrong] == [kind]
    assert "cotangent" in str(report)


@pytest.mark.parametrize(
    "name", [n for n in PLANTED if n.split(":")[0] in ("sin", "square", "tanh", "dense", "exp")]
)
def test_planted_mistakes_inside_a_network_and_in_single_precision(name: str) -> None:
    forward, rule, args, _, kind, _ = PLANTED[name]
    function = planted(rule, forward)
    narrow = tuple(one.astype("float32") for one in args)
    report = check_grads(lambda *a: cr.tanh(function(*a) * 0.3).sum(), narrow, raise_on_error=False)
    assert not report.ok
    if kind in ("sign", "factor", "zero", "transposed"):
        assert kind in {one.kind for one in report.wrong}


def test_a_mistake_of_second_order_alone() -> None:
    """A rule whose value is right, and whose own derivative is cut."""
    function = planted(lambda g, x: g * cr.cos(x).detach(), cr.sin)
    report = check_grads(lambda x: function(x), (X,), raise_on_error=False)
    assert {one.order for one in report.wrong} == {2}
    assert all(one.verdict == "correct" for one in report.checks if one.order == 1)


def test_a_mistake_in_one_element_is_found_where_it_is() -> None:
    mask = np.ones((4, 3))
    mask[2, 1] = -1
    function = planted(lambda g, x: g * cr.cos(x) * mask, cr.sin)
    (found,) = check_grads(lambda x: function(x), (X,), raise_on_error=False).wrong
    assert [one.index for one in found.elements("wrong")] == [(2, 1)]
    assert found.kind == "sign"
    assert int((found.verdicts == "correct").sum()) == 11


def test_a_mistake_on_one_side_of_a_kink_is_no_convention() -> None:
    leaky = planted(lambda g, x: g * cr.where(x > 0, 1.0, 0.5), lambda x: cr.where(x > 0, x, 0.1 * x))
    report = check_grads(lambda x: leaky(x), (at(-1.0, 1.0),), raise_on_error=False)
    assert [one.index for one in report.wrong[0].elements("wrong")] == [(0,)]


# ------------------------------------------------------------------------------------ report, errors


def test_the_error_tells_input_place_kind_and_numbers() -> None:
    function = planted(lambda g, x: 2 * g * cr.cos(x), cr.sin)
    with pytest.raises(GradientCheckError) as caught:
        check_grads(lambda angle: function(angle), (at(0.5),))
    assert isinstance(caught.value, AssertionError)
    text = str(caught.value)
    assert "angle" in text and "factor of 2" in text and "0.877583 ±" in text and "test_gradcheck.py" in text
    assert caught.value.report.wrong[0].factor == pytest.approx(2)


def test_the_report_is_a_table_with_the_cost() -> None:
    report = check_grads(lambda w, b: (w @ w.T).sum() + b, (W, 1.0))
    lines = str(report).splitlines()
    assert lines[0] == "Gradient check (input numbers: 7): all correct."
    assert lines[2].split()[:4] == ["input", "order", "mode", "verdict"]
    assert lines[3].startswith("w  (3, 2)  1      forward")
    assert "One backward pass gives all of them" in lines[-1]
    assert report.forward_passes >= 2 * 7 * 4 and report.backward_passes == 1
    korean = report.text("ko")
    assert "역전파 한 번" in korean and "맞음" in korean


def test_every_kind_has_its_sentence() -> None:
    from chainrule.language import catalogue

    assert all("testing.kind_" + kind.replace(" ", "_") in catalogue() for kind in KINDS)


def test_a_few_elements_only() -> None:
    report = check_grads(lambda x: cr.sin(x), (normal(20, 20),), elements=5)
    assert report.elements == 5
    assert all((one.verdicts == "correct").sum() == 5 for one in report.checks)


def test_bad_arguments() -> None:
    with pytest.raises(ArgumentError, match="at least one argument of floats"):
        check_grads(lambda k: k, (3,))
    with pytest.raises(ArgumentError, match="returns floats"):
        check_grads(lambda x: x > 0, (1.0,))
    with pytest.raises(ArgumentError, match="order 1 or 2"):
        check_grads(cr.sin, (1.0,), order=3)
    with pytest.raises(ArgumentError, match="modes"):
        check_grads(cr.sin, (1.0,), modes=("sideways",))


def test_modes_can_be_chosen() -> None:
    assert {one.mode for one in check_grads(cr.sin, (X,), 1, ("reverse",)).checks} == {"reverse"}
    found = check_grads(planted(lambda g, x: g * cr.cos(x), cr.sin), (X,))
    assert {one.mode for one in found.checks} == {"reverse", "reverse over reverse", "forward over reverse"}
    assert "Forward mode was not checked" in str(found)


# ------------------------------------------------------------------------ the differences themselves


@pytest.mark.parametrize(
    ("function", "x", "slope"),
    [
        (np.sin, 1.0, np.cos(1.0)), (np.exp, 3.0, np.exp(3.0)), (np.log, 1e-6, 1e6), (lambda x: x**9, 2.0, 9 * 2.0**8),
        (np.tanh, 20.0, 0.0), (lambda x: 1 / x, 1e-4, -1e8), (lambda x: 3.0 * x + 1, 5.0, 3.0),
    ],
)  # fmt: skip
def test_the_error_bar_holds_and_is_small(function: Rule, x: float, slope: float) -> None:
    value = float(function(x))
    with np.errstate(invalid="ignore"):
        found = differentiate(lambda h: (float(function(x + h)), (x + h) - x), x, value=value,
                              noise=4e-16 * abs(value), resolution=2e-16, goal=1e-9)  # fmt: skip
    assert abs(found.value - slope) <= found.error
    assert found.error <= 1e-6 * max(abs(slope), 1e-6)


def test_the_bar_widens_at_a_kink() -> None:
    found = differentiate(lambda h: (max(h, 0.0), h), 0.0, value=0.0, noise=0.0, resolution=0.0, goal=1e-9)
    assert found.obstacle == "kink"
    assert found.value == pytest.approx(0.5) and found.error >= 0.5


# ----------------------------------------------------------------------- random programs, mutated rules

UNARY: list[Rule] = [
    cr.exp, cr.tanh, cr.sigmoid, cr.relu, cr.abs, cr.sin, cr.cos, cr.square, cr.sqrt, cr.log, cr.erf, cr.atan,
    cr.log1p, cr.expm1, cr.reciprocal, cr.floor, cr.sign, cr.negative, cr.functional.softmax, cr.functional.softplus,
    lambda x: cr.clip(x, -1.0, 1.0), lambda x: cr.where(x > 0, cr.sqrt(x), 0.0), lambda x: x.T, lambda x: x[::-1],
    lambda x: cr.max(x, axis=0, keepdims=True) + x, lambda x: x - cr.mean(x), lambda x: cr.cumulative_sum(x, axis=0),
    lambda x: cr.concat([x, x], axis=0)[: x.shape[0]], lambda x: x**1.5, lambda x: cr.sort(x, axis=0),
]  # fmt: skip
BINARY: list[Rule] = [
    cr.add, cr.subtract, cr.multiply, cr.divide, cr.maximum, cr.minimum, cr.hypot, cr.atan2, cr.logaddexp,
    lambda a, b: a @ b.T, lambda a, b: cr.where(a > b, a, b),
]  # fmt: skip


def random_program(random: np.random.Generator) -> Rule:
    """A function of two 2×2 matrices: a chain of operations that shares its intermediate values."""
    steps = [
        (random.integers(len(UNARY)), -1) if random.random() < 0.6 else (-1, random.integers(len(BINARY)))
        for _ in range(random.integers(1, 7))
    ]
    picks = random.integers(0, 100, (len(steps), 2))

    def program(a: cr.Tensor, b: cr.Tensor) -> cr.Tensor:
        values = [a, b]
        for (unary, binary), (first, second) in zip(steps, picks):
            left, right = values[-1 - first % min(2, len(values))], values[second % len(values)]
            values.append(UNARY[unary](left) if binary < 0 else BINARY[binary](left, right))
        return values[-1]

    return program


def random_point(random: np.random.Generator, dtype: str) -> tuple[cr.Tensor, cr.Tensor]:
    """Ordinary numbers, or whole ones: exactly on kinks, ties and edges of domains."""
    draw = (
        random.normal(size=(2, 2, 2))
        if random.random() < 0.6
        else random.integers(-1, 3, (2, 2, 2)).astype(float)
    )
    return cr.tensor(draw[0], dtype=dtype), cr.tensor(draw[1], dtype=dtype)


@pytest.mark.parametrize("seed", range(60))
def test_random_programs_raise_no_alarm(seed: int) -> None:
    random = np.random.default_rng(seed)
    program = random_program(random)
    check_grads(program, random_point(random, "float32" if seed % 3 == 0 else "float64"))
