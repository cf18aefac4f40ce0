"""Transformations at any order and in any nesting; `backward()` as PyTorch; 60 functions against PyTorch."""

from __future__ import annotations

import dataclasses
import gc
import math
import weakref
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

import chainrule as cr
from chainrule.errors import ArgumentError, CotangentError, DtypeError, GradientError, ShapeError
from rivals import torch

F = cr.float64


def tensor(*values: Any) -> cr.Tensor:
    return cr.tensor(values[0] if len(values) == 1 else list(values), dtype=F)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def close(got: Any, wanted: Any, tolerance: float = 1e-12) -> None:
    got = got.detach().numpy() if isinstance(got, cr.Tensor) else np.asarray(got)
    np.testing.assert_allclose(got, np.asarray(wanted), tolerance, tolerance)


# ----------------------------------------------------------------------------------------- any order


@pytest.mark.parametrize("order", range(1, 7))
def test_nested_grad(order: int) -> None:
    f: Any = cr.sin
    for _ in range(order):
        f = cr.grad(f)
    wanted = [np.sin, np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x)][order % 4](0.7)
    close(f(tensor(0.7)), wanted)


@pytest.mark.parametrize("order", range(1, 6))
def test_nested_jvp(order: int) -> None:
    def slope(g: Any) -> Any:
        return lambda x: cr.jvp(g, [x], [cr.ones_like(x)])[1]

    f: Any = cr.exp
    for _ in range(order):
        f = slope(f)
    close(f(tensor(0.3)), np.exp(0.3))


def test_grad_through_jvp_and_jvp_through_grad() -> None:
    x = tensor(0.7)
    close(cr.grad(lambda y: cr.jvp(cr.sin, [y], [y * y])[1])(x), 2 * 0.7 * np.cos(0.7) - 0.49 * np.sin(0.7))
    close(cr.jvp(cr.grad(lambda y: y**3.0), [x], [tensor(2.0)])[1], 6 * 0.7 * 2)
    close(cr.grad(lambda y: cr.vjp(cr.sin, y)[1](y)[0])(x), np.cos(0.7) - 0.7 * np.sin(0.7))


def test_perturbations_are_not_confused() -> None:
    """d/dx (x · d/dy (x + y)) is 1, not 2 (Siskind and Pearlmutter, "Perturbation confusion", IFL 2005)."""
    close(cr.grad(lambda x: x * cr.grad(lambda y: x + y)(1.0))(2.0), 1.0)
    inner = lambda x: cr.jvp(lambda y: x * y, [tensor(3.0)], [tensor(1.0)])[1]
    close(cr.jvp(lambda x: x * inner(x), [tensor(2.0)], [tensor(1.0)])[1], 4.0)
    close(cr.grad(lambda x: cr.grad(lambda y: x * y * y)(x))(tensor(3.0)), 4 * 3.0)
    close(cr.grad(lambda x: cr.jvp(lambda y: x * cr.sin(x * y), [x], [tensor(1.0)])[1])(tensor(0.5)),
          cr.grad(lambda x: x * x * cr.cos(x * x))(tensor(0.5)).item())  # fmt: skip
    shifted = lambda s, f: lambda x: f(x + s)
    derivative = cr.grad(lambda s: cr.grad(shifted(s, cr.sin))(0.3))
    close(derivative(tensor(0.0)), -np.sin(np.float32(0.3)), 1e-6)


def test_closures_capture_values_and_gradients() -> None:
    weight = cr.tensor([2.0, 3.0], dtype=F, requires_grad=True)
    gradient = cr.grad(lambda x: (weight * x * x).sum())(tensor(1.0, 5.0))
    close(gradient, [4.0, 30.0])
    (gradient**2).sum().backward()  # a gradient penalty reaches the captured weight
    close(weight.grad, [2 * 4.0 * 2, 2 * 30.0 * 10])
    value, _ = cr.value_and_grad(lambda x: (weight * x).sum())(tensor(1.0, 1.0))
    value.backward()
    close(weight.grad, [17.0, 601.0])
    with cr.no_grad():
        assert not cr.grad(lambda x: (weight * x).sum())(tensor(1.0, 5.0)).requires_grad


def test_a_gradient_does_not_keep_the_graph() -> None:
    gone = weakref.ref(cr.grad(lambda x: (x * x).sum())(tensor(1.0, 2.0)).node)
    assert gone() is None
    held: list[Any] = []
    gradient = cr.grad(lambda x: held.append(weakref.ref(cr.sin(x).node)) or (x * x).sum())(tensor(1.0, 2.0))
    assert held[0]() is None and not gradient.requires_grad


# ---------------------------------------------------------------------------------------- signatures


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass
class Layer:
    weight: Any
    bias: Any


TREES: dict[str, Any] = {
    "dict": {"a": tensor(1.0, 2.0), "b": tensor(3.0)},
    "list": [tensor(1.0, 2.0), tensor(3.0)],
    "tuple": (tensor(1.0, 2.0), tensor(3.0)),
    "named tuple": Pair(tensor(1.0, 2.0), tensor(3.0)),
    "dataclass": Layer(tensor(1.0, 2.0), tensor(3.0)),
    "nested": {"a": [tensor(1.0, 2.0)], "b": ({"c": tensor(3.0)}, None)},
}


@pytest.mark.parametrize("name", TREES)
def test_pytrees_keep_their_structure(name: str) -> None:
    from chainrule.pytree import flatten

    tree = TREES[name]

    def f(t: Any) -> cr.Tensor:
        vector, scalar = flatten(t)[0]
        return (vector * vector).sum() * scalar

    gradient = cr.grad(f)(tree)
    assert type(gradient) is type(tree)
    vector, scalar = flatten(gradient)[0]
    close(vector, [6.0, 12.0])
    close(scalar, 5.0)
    _, tangent = cr.jvp(f, [tree], [tree])
    close(tangent, 2 * 15.0 + 15.0)
    close(flatten(cr.hvp(f, [tree], [tree])[1][0])[0][1], 2 * 5.0)


def test_argnums_aux_and_keywords() -> None:
    f = lambda x, y, scale=1.0: (x * x * y * scale).sum()
    x, y = tensor(2.0), tensor(5.0)
    close(cr.grad(f)(x, y), 20.0)
    close(cr.grad(f, 1)(x, y), 4.0)
    close(cr.grad(f, -1)(x, y), 4.0)
    both = cr.grad(f, (1, 0))(x, y, scale=2.0)
    close(both[0], 8.0)
    close(both[1], 40.0)
    value, gradient = cr.value_and_grad(f)(x, y)
    assert (value.item(), gradient.item()) == (20.0, 20.0)
    (value, aux), gradient = cr.value_and_grad(lambda z: (z * z, {"twice": z * 2}), has_aux=True)(x)
    assert (value.item(), aux["twice"].item(), gradient.item()) == (4.0, 4.0, 4.0)
    assert not aux["twice"].requires_grad
    gradient, aux = cr.grad(lambda z: (z * z, "note"), has_aux=True)(x)
    assert (gradient.item(), aux) == (4.0, "note")


def test_gradients_have_shape_and_dtype_of_their_argument() -> None:
    for dtype in (cr.float32, cr.float64):
        for shape in ((), (1,), (0,), (2, 0, 3), (3, 2)):
            got = cr.grad(lambda x: (x.astype("float64") * 2).sum())(cr.ones(shape, dtype=dtype))
            assert got.shape == shape and got.dtype == dtype
    assert cr.grad(lambda x: tensor(1.0))(tensor(3.0)).item() == 0.0  # no path
    assert cr.grad(lambda x: (x * cr.ones(3)).sum())(2.0).shape == ()
    assert cr.grad(lambda x: (x + cr.ones((2, 3))).sum())(cr.ones((1, 3))).tolist() == [[2.0, 2.0, 2.0]]


def test_errors_teach() -> None:
    with pytest.raises(DtypeError, match=r"only floats have gradients; got an argument of int64. Write 1.0"):
        cr.grad(lambda x: x * 2.0)(3)
    with pytest.raises(GradientError, match=r"returns one float; got float64\(3,\)"):
        cr.grad(lambda x: x * 2)(cr.ones(3, dtype=F))
    with pytest.raises(GradientError, match="got float"):
        cr.grad(lambda x: 3.0)(1.0)
    with pytest.raises(GradientError, match="got int64"):
        cr.grad(cr.argmax)(cr.ones(3))
    with pytest.raises(ArgumentError, match="argnums=2"):
        cr.grad(lambda x: x, 2)(1.0)
    with pytest.raises(ArgumentError, match="mode 'forward', 'reverse' or None; got 'both'"):
        cr.jacobian(cr.sin, mode="both")
    with pytest.raises(ShapeError, match=r"the cotangent needs shapes \[\(3,\)\]; got \[\(2,\)\]"):
        cr.vjp(lambda x: x * 2, cr.ones(3))[1](cr.ones(2))
    with pytest.raises(ShapeError, match="the tangents need"):
        cr.jvp(lambda x: x, [cr.ones(3)], [cr.ones(2)])
    with pytest.raises(GradientError, match="the value of the function must consist of tensors"):
        cr.vjp(lambda x: "text", 1.0)
    with pytest.raises(DtypeError, match="requires_grad=True"):
        cr.tensor([1, 2], requires_grad=True)


# ------------------------------------------------------------------------------- Jacobians, Hessians


@given(
    arrays.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4),
    arrays.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_both_directions_give_one_jacobian(inner: tuple[int, ...], outer: tuple[int, ...]) -> None:
    mixing = cr.tensor(np.random.default_rng(1).normal(size=(*outer, *inner)), dtype=F)
    axes = len(inner)

    def f(x: cr.Tensor) -> cr.Tensor:
        return cr.sin(cr.tensordot(mixing, x, axes=axes))

    x = cr.tensor(np.random.default_rng(2).normal(size=inner), dtype=F)
    forward, reverse = (cr.jacobian(f, mode=mode)(x) for mode in ("forward", "reverse"))
    assert forward.shape == reverse.shape == (*outer, *inner)
    close(forward, reverse.numpy())
    close(cr.jacobian(f)(x), reverse.numpy())


def test_the_direction_is_chosen_by_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    from chainrule import transforms

    used: list[str] = []
    for name in ("_blocks_forward", "_blocks_reverse"):
        original = getattr(transforms, name)
        monkeypatch.setattr(transforms, name, lambda *a, n=name, f=original: used.append(n) or f(*a))
    cr.jacobian(lambda x: cr.ones((5, 2), dtype=F) @ x)(tensor(1.0, 2.0))
    cr.jacobian(lambda x: x.sum())(tensor(1.0, 2.0))
    assert used == ["_blocks_forward", "_blocks_reverse"]


def test_jacobian_of_pytrees() -> None:
    f = lambda p: {"a": p["x"] * p["y"], "b": p["x"].sum()}
    for mode in ("forward", "reverse"):
        got = cr.jacobian(f, mode=mode)({"x": tensor(1.0, 2.0), "y": tensor(3.0)})
        close(got["a"]["x"], [[3.0, 0.0], [0.0, 3.0]])
        close(got["a"]["y"], [1.0, 2.0])
        close(got["b"]["x"], [1.0, 1.0])
        close(got["b"]["y"], 0.0)


def test_hessian_and_hvp() -> None:
    matrix = normal(4, 4)
    x, v = tensor(normal(4, seed=1)), tensor(normal(4, seed=2))
    f = lambda y: (y @ cr.tensor(matrix, dtype=F) @ y) + (y**3.0).sum()
    wanted = matrix + matrix.T + np.diag(6 * x.numpy())
    close(cr.hessian(f)(x), wanted)
    close(cr.hvp(f, [x], [v])[1][0], wanted @ v.numpy())
    close(cr.jacobian(cr.grad(f), mode="reverse")(x), wanted)
    close(cr.grad(lambda y: (cr.grad(f)(y) * v).sum())(x), wanted @ v.numpy())
    blocks = cr.hessian(lambda a, b: (a * a * b).sum(), (0, 1))(tensor(2.0), tensor(3.0))
    assert [[one.item() for one in row] for row in blocks] == [[6.0, 4.0], [4.0, 0.0]]


def test_third_derivatives_through_a_hessian() -> None:
    third = cr.jacobian(cr.hessian(lambda x: (x**4.0).sum()))(tensor(1.0, 2.0))
    wanted = np.zeros((2, 2, 2))
    wanted[0, 0, 0], wanted[1, 1, 1] = 24.0, 48.0
    close(third, wanted)


# ---------------------------------------------------------------------------------------- checkpoint


def deep(x: cr.Tensor, w: cr.Tensor) -> cr.Tensor:
    for _ in range(3):
        x = cr.tanh(x @ w) + cr.relu(x)
    return x


def test_checkpoint_changes_nothing_at_any_order() -> None:
    x, w = tensor(normal(2, 3)), tensor(normal(3, 3, seed=1))
    plain = lambda a, b: (deep(a, b) ** 2).sum()
    saving = lambda a, b: (cr.checkpoint(deep)(a, b) ** 2).sum()
    for k in (0, 1):
        close(cr.grad(saving, k)(x, w), cr.grad(plain, k)(x, w).numpy())
    close(cr.hessian(saving)(x, w), cr.hessian(plain)(x, w).numpy(), 1e-10)
    close(cr.jvp(saving, [x, w], [x, w])[1], cr.jvp(plain, [x, w], [x, w])[1].numpy())
    close(cr.hvp(saving, [x, w], [x, w])[1][1], cr.hvp(plain, [x, w], [x, w])[1][1].numpy(), 1e-10)
    third = lambda f: cr.grad(lambda a: (cr.grad(lambda b: (cr.grad(f)(b, w) ** 2).sum())(a) ** 2).sum())
    close(third(saving)(x), third(plain)(x).numpy(), 1e-9)


def test_checkpoint_with_captured_parameters() -> None:
    w = cr.tensor(normal(3, 3, seed=1), dtype=F, requires_grad=True)
    b = cr.tensor(normal(3, seed=2), dtype=F, requires_grad=True)
    h = w * 2.0  # captured, and no leaf
    x = tensor(normal(2, 3))
    block = lambda y: cr.tanh(y @ h) + b

    def gradients(f: Any) -> list[np.ndarray]:
        w.grad = b.grad = None
        (f(x) ** 2).sum().backward()
        return [w.grad.numpy(), b.grad.numpy()]

    for got, wanted in zip(gradients(cr.checkpoint(block)), gradients(block)):
        close(got, wanted)
    close(
        cr.grad(lambda y: cr.checkpoint(block)(y).sum())(x),
        cr.grad(lambda y: block(y).sum())(x).detach().numpy(),
    )
    close(cr.jvp(cr.checkpoint(block), [x], [x])[1], cr.jvp(block, [x], [x])[1].detach().numpy())
    twice = cr.checkpoint(lambda y: cr.checkpoint(block)(cr.sin(y)))
    for got, wanted in zip(gradients(twice), gradients(lambda y: block(cr.sin(y)))):
        close(got, wanted)


def test_checkpoint_keeps_no_intermediate_values() -> None:
    kept: list[Any] = []

    def body(x: cr.Tensor) -> cr.Tensor:
        middle = cr.exp(x)
        kept.append(weakref.ref(middle.node))
        return cr.sin(middle)

    x = cr.tensor([1.0, 2.0], requires_grad=True)
    plain = body(x)
    assert kept[0]() is not None
    saving = cr.checkpoint(body)(x)
    gc.disable()
    try:
        assert kept[1]() is None
    finally:
        gc.enable()
    (plain - saving).sum().backward()
    close(x.grad, [0.0, 0.0], 1e-6)


def test_checkpoint_of_several_results_and_pytrees() -> None:
    f = cr.checkpoint(
        lambda p, k: {"s": cr.sin(p["x"]) * k, "i": cr.argmax(p["x"]), "two": (p["x"], p["x"] * 2)}
    )
    x = tensor(1.0, 2.0)
    result = f({"x": x}, 3)
    assert result["i"].item() == 1
    gradient = cr.grad(lambda y: f({"x": y}, 3)["s"].sum() + f({"x": y}, k=2)["two"][1].sum())(x)
    close(gradient, 3 * np.cos([1.0, 2.0]) + 2)


# ----------------------------------------------------------------------------------- custom gradients


def test_custom_gradient_at_higher_orders() -> None:
    @cr.custom_gradient
    def cube(x: cr.Tensor) -> Any:
        square = x * x
        return x * square, lambda g: g * 3.0 * square

    x = tensor(2.0)
    close(cr.grad(cube)(x), 12.0)
    close(cr.grad(cr.grad(cube))(x), 12.0)
    close(cr.grad(cr.grad(cr.grad(cube)))(x), 6.0)
    close(cr.jvp(cr.grad(cube), [x], [tensor(1.0)])[1], 12.0)


def test_custom_gradient_is_used() -> None:
    @cr.custom_gradient
    def clipped(x: cr.Tensor, y: cr.Tensor) -> Any:
        return {"x": x * 1.0, "y": y * 1.0}, lambda g: (cr.clip(g["x"], -1.0, 1.0), None)

    f = lambda x, y: (clipped(x, y)["x"] * 100.0 + clipped(x, y)["y"]).sum()
    gradients = cr.grad(f, (0, 1))(tensor(1.0, 2.0), tensor(1.0, 2.0))
    close(gradients[0], [1.0, 1.0])
    close(gradients[1], [0.0, 0.0])
    parameter = cr.tensor([1.0, 2.0], dtype=F, requires_grad=True)
    f(parameter, tensor(0.0, 0.0)).backward()
    close(parameter.grad, [1.0, 1.0])


def test_custom_gradient_errors() -> None:
    weight = cr.tensor(2.0, requires_grad=True)
    captured = cr.custom_gradient(lambda x: (x * weight, lambda g: g * weight.detach()))
    with pytest.raises(GradientError, match=r"for its arguments only; got .* from outside.*\.detach"):
        captured(cr.tensor(1.0))
    too_many = cr.custom_gradient(lambda x: (x * 2, lambda g: (g, g)))
    with pytest.raises(GradientError, match="one cotangent for each of 1 arguments; got 2"):
        cr.grad(too_many)(1.0)
    unsummed = cr.custom_gradient(lambda x, b: (x + b, lambda g: (g, g)))
    with pytest.raises(
        CotangentError, match=r"shape \(3,\); got \(2, 3\) for argument 1. Sum it over the first 1"
    ):
        cr.grad(lambda b: unsummed(cr.ones((2, 3)), b).sum())(cr.ones(3))
    with pytest.raises(GradientError, match="states reverse mode only"):
        cr.jvp(cr.custom_gradient(lambda x: (x, lambda g: g)), [1.0], [1.0])


def test_no_grad_and_enable_grad() -> None:
    x = cr.tensor(3.0, requires_grad=True)
    with cr.no_grad():
        assert not (x * 2).requires_grad
        with cr.enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad

    @cr.no_grad()
    def constant(y: cr.Tensor) -> cr.Tensor:
        return y * y

    assert cr.grad(lambda y: constant(y) * y)(tensor(3.0)).item() == 9.0
    with cr.no_grad():
        assert cr.grad(lambda y: y * y)(tensor(3.0)).item() == 6.0
    with pytest.raises(ZeroDivisionError), cr.no_grad():
        _ = 1 / 0
    assert (x * 2).requires_grad
    assert cr.grad(lambda y: y.detach() * y)(tensor(3.0)).item() == 3.0


# ------------------------------------------------------------------------------ PyTorch as the oracle


def both(array: np.ndarray) -> tuple[cr.Tensor, Any]:
    return cr.tensor(array, dtype=F, requires_grad=True), torch.tensor(array, requires_grad=True)


def same(ours: Any, theirs: Any, tolerance: float = 1e-12) -> None:
    assert (ours is None) == (theirs is None)
    if ours is not None:
        close(ours.detach(), theirs.detach().numpy(), tolerance)


@pytest.mark.pytorch
def test_gradients_accumulate_and_are_cleared() -> None:
    (x, t) = both(normal(3))
    for _ in range(3):
        (x * x).sum().backward()
        (t * t).sum().backward()
        same(x.grad, t.grad)
    x.grad = t.grad = None
    (x * 2).sum().backward()
    (t * 2).sum().backward()
    same(x.grad, t.grad)


@pytest.mark.pytorch
def test_backward_with_gradient() -> None:
    (x, t), seed = both(normal(3, 2)), normal(3, 2, seed=4)
    cr.sin(x).backward(gradient=cr.tensor(seed, dtype=F))
    torch.sin(t).backward(gradient=torch.tensor(seed))
    same(x.grad, t.grad)
    with pytest.raises(GradientError, match="one number to start from"):
        cr.sin(x).backward()
    with pytest.raises(ShapeError, match=r"got gradient \(2,\) for a tensor of shape \(3, 2\)"):
        cr.sin(x).backward(gradient=cr.ones(2))
    with pytest.raises(GradientError, match="depends on one with requires_grad"):
        tensor(1.0).backward()


@pytest.mark.pytorch
@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")  # PyTorch's, of cycles that it makes
def test_create_graph() -> None:
    (x, t) = both(normal(3))
    (x**3.0).sum().backward(create_graph=True)
    (t**3.0).sum().backward(create_graph=True)
    ours, theirs = x.grad, t.grad
    same(ours, theirs)
    assert ours.requires_grad
    x.grad = t.grad = None
    (ours**2).sum().backward()
    (theirs**2).sum().backward()
    same(x.grad, t.grad)


@pytest.mark.pytorch
def test_inputs_only() -> None:
    (x, t), (y, u) = both(normal(3)), both(normal(3, seed=1))
    (x * y).sum().backward(inputs=[x])
    (t * u).sum().backward(inputs=[t])
    same(x.grad, t.grad)
    same(y.grad, u.grad)
    middle, other = x * y, t * u
    other.retain_grad()
    cr.sin(middle).sum().backward(inputs=[middle, y])
    torch.sin(other).sum().backward(inputs=[other, u])
    same(middle.grad, other.grad)
    same(y.grad, u.grad)
    same(x.grad, t.grad)


@pytest.mark.pytorch
def test_every_held_tensor_has_its_gradient() -> None:
    (x, t) = both(normal(3))
    a, b = cr.sin(x), torch.sin(t)
    c, d = a * x, b * t
    for one in (b, d):
        one.retain_grad()
    (c * c + a).sum().backward()
    (d * d + b).sum().backward()
    same(a.grad, b.grad)
    same(c.grad, d.grad)
    same(x.grad, t.grad)


@pytest.mark.pytorch
def test_backward_twice_adds_the_same_again() -> None:
    (x, t) = both(normal(3))
    y, u = cr.exp(x).sum(), torch.exp(t).sum()
    for _ in range(2):
        y.backward()
        u.backward(retain_graph=True)
    same(x.grad, t.grad)


@pytest.mark.pytorch
def test_shared_subterms_and_several_roots() -> None:
    (x, t) = both(normal(4))
    h, g = cr.tanh(x), torch.tanh(t)
    for _ in range(40):  # 2⁴⁰ paths
        h, g = h * 0.5 + h * 0.5, g * 0.5 + g * 0.5
    h.sum().backward()
    g.sum().backward()
    same(x.grad, t.grad)


@pytest.mark.pytorch
def test_requires_grad_of_results() -> None:
    (x, t), constant = both(normal(3)), tensor(normal(3))
    assert (constant * 2).requires_grad is False
    assert (x * constant).requires_grad is True
    assert (x > 0).requires_grad is (t > 0).requires_grad is False
    assert cr.argmax(x).requires_grad is torch.argmax(t).requires_grad is False
    assert x.is_leaf and t.is_leaf and not (x * 1).is_leaf
    assert x.detach().requires_grad is False


@pytest.mark.pytorch
def test_frozen_leaves_get_no_gradient() -> None:
    (x, t), (y, u) = both(normal(3)), both(normal(3, seed=1))
    x.requires_grad_(False)
    t.requires_grad_(False)
    (x * y).sum().backward()
    (t * u).sum().backward()
    same(x.grad, t.grad)
    same(y.grad, u.grad)


A, B, POSITIVE, UNIT = (
    normal(3, 4),
    normal(3, 4, seed=1),
    np.abs(normal(3, 4)) + 0.3,
    np.tanh(normal(3, 4)) * 0.9,
)
SQUARE, LABELS, CUBE = normal(4, 4, seed=2), np.asarray([0, 3, 1]), normal(2, 3, 4, seed=3)

POSITIVE_B = (B > 0).astype("float64")

PAIRS: dict[str, tuple[Any, Any, tuple[np.ndarray, ...]]] = {
    "add": (cr.add, torch.add, (A, B)),
    "subtract broadcast": (lambda a, b: a - b[0], lambda a, b: a - b[0], (A, B)),
    "multiply broadcast": (lambda a, b: a * b[:, :1], lambda a, b: a * b[:, :1], (A, B)),
    "divide": (cr.divide, torch.div, (A, B)),
    "pow": (cr.pow, torch.pow, (POSITIVE, B)),
    "pow 3": (lambda a: a**3, lambda a: a**3, (A,)),
    "square": (cr.square, torch.square, (A,)),
    "reciprocal": (cr.reciprocal, torch.reciprocal, (A,)),
    "exp": (cr.exp, torch.exp, (A,)),
    "expm1": (cr.expm1, torch.expm1, (A,)),
    "log": (cr.log, torch.log, (POSITIVE,)),
    "log1p": (cr.log1p, torch.log1p, (POSITIVE,)),
    "log2": (cr.log2, torch.log2, (POSITIVE,)),
    "log10": (cr.log10, torch.log10, (POSITIVE,)),
    "logaddexp": (cr.logaddexp, torch.logaddexp, (A, B)),
    "sqrt": (cr.sqrt, torch.sqrt, (POSITIVE,)),
    "sigmoid": (cr.sigmoid, torch.sigmoid, (A,)),
    "tanh": (cr.tanh, torch.tanh, (A,)),
    "relu": (cr.relu, torch.relu, (A,)),
    "erf": (cr.erf, torch.erf, (A,)),
    "sin": (cr.sin, torch.sin, (A,)),
    "cos": (cr.cos, torch.cos, (A,)),
    "tan": (cr.tan, torch.tan, (UNIT,)),
    "asin": (cr.asin, torch.asin, (UNIT,)),
    "acos": (cr.acos, torch.acos, (UNIT,)),
    "atan": (cr.atan, torch.atan, (A,)),
    "atan2": (cr.atan2, torch.atan2, (A, B)),
    "sinh": (cr.sinh, torch.sinh, (A,)),
    "cosh": (cr.cosh, torch.cosh, (A,)),
    "asinh": (cr.asinh, torch.asinh, (A,)),
    "acosh": (cr.acosh, torch.acosh, (POSITIVE + 1,)),
    "atanh": (cr.atanh, torch.atanh, (UNIT,)),
    "hypot": (cr.hypot, torch.hypot, (A, B)),
    "abs": (cr.abs, torch.abs, (A,)),
    "maximum with ties": (cr.maximum, torch.maximum, (np.round(A), np.round(B))),
    "minimum with ties": (cr.minimum, torch.minimum, (np.round(A), np.round(B))),
    "remainder": (cr.remainder, torch.remainder, (A, POSITIVE)),
    "copysign": (cr.copysign, torch.copysign, (A, B)),
    "clip": (lambda a: cr.clip(a, -0.5, 0.5), lambda a: torch.clamp(a, -0.5, 0.5), (A,)),
    "where": (lambda a, b: cr.where(a > 0, a, b), lambda a, b: torch.where(a > 0, a, b), (A, B)),
    "sum": (lambda a: cr.sum(a, axis=1), lambda a: torch.sum(a, 1), (A,)),
    "mean keepdims": (lambda a: cr.mean(a, axis=0, keepdims=True), lambda a: torch.mean(a, 0, keepdim=True), (A,)),
    "prod": (lambda a: cr.prod(a, axis=1), lambda a: torch.prod(a, 1), (A,)),
    "prod with a zero": (lambda a: cr.prod(a, axis=1), lambda a: torch.prod(a, 1), (A * (np.arange(4) != 2),)),
    "prod with two zeros": (lambda a: cr.prod(a, axis=1), lambda a: torch.prod(a, 1), (A * (np.arange(4) < 2),)),
    "var": (lambda a: cr.var(a, axis=1), lambda a: torch.var(a, 1, correction=0), (A,)),
    "std corrected": (lambda a: cr.std(a, axis=1, correction=1), lambda a: torch.std(a, 1), (A,)),
    "max": (lambda a: cr.max(a, axis=1), lambda a: torch.amax(a, 1), (A,)),
    "max with ties": (lambda a: cr.max(a, axis=1), lambda a: torch.amax(a, 1), (np.round(A),)),
    "min over all": (cr.min, torch.min, (A,)),
    "cumulative sum": (lambda a: cr.cumulative_sum(a, axis=1), lambda a: torch.cumsum(a, 1), (A,)),
    "cumulative prod": (lambda a: cr.cumulative_prod(a, axis=1), lambda a: torch.cumprod(a, 1), (A,)),
    "matmul": (lambda a, b: a @ b, lambda a, b: a @ b, (A, SQUARE)),
    "matmul batched": (lambda a, b: a @ b, lambda a, b: a @ b, (CUBE, SQUARE)),
    "matmul vector": (lambda a, b: a @ b[0], lambda a, b: a @ b[0], (CUBE, SQUARE)),
    "tensordot": (lambda a, b: cr.tensordot(a, b, axes=1), lambda a, b: torch.tensordot(a, b, 1), (CUBE, SQUARE)),
    "permute": (lambda a: cr.permute_dims(a, (2, 0, 1)), lambda a: a.permute(2, 0, 1), (CUBE,)),
    "reshape": (lambda a: a.reshape((4, -1)), lambda a: a.reshape(4, -1), (CUBE,)),
    "slice": (lambda a: a[:, 1:, ::2], lambda a: a[:, 1:, ::2], (CUBE,)),
    "index by arrays": (
        lambda a: a[cr.asarray([0, 2, 2]), cr.asarray([1, 3, 3])],
        lambda a: a[torch.tensor([0, 2, 2]), torch.tensor([1, 3, 3])], (A,)),
    "mask": (lambda a: a[cr.asarray(A > 0)], lambda a: a[torch.tensor(A > 0)], (A,)),
    "flip": (lambda a: cr.flip(a, axis=1), lambda a: torch.flip(a, [1]), (A,)),
    "roll": (lambda a: cr.roll(a, 2, axis=1), lambda a: torch.roll(a, 2, 1), (A,)),
    "concat": (lambda a, b: cr.concat([a, b, a], axis=1), lambda a, b: torch.cat([a, b, a], 1), (A, B)),
    "stack": (lambda a, b: cr.stack([a, b], axis=1), lambda a, b: torch.stack([a, b], 1), (A, B)),
    "take": (
        lambda a: cr.take(a, cr.asarray(LABELS), axis=1),
        lambda a: torch.index_select(a, 1, torch.tensor(LABELS)), (A,)),
    "take along": (
        lambda a: cr.take_along_axis(a, cr.asarray(LABELS[:, None]), axis=1),
        lambda a: torch.gather(a, 1, torch.tensor(LABELS[:, None])), (A,)),
    "sort": (lambda a: cr.sort(a, axis=1), lambda a: torch.sort(a, 1).values, (A,)),
    "tril": (cr.tril, torch.tril, (A,)),
    "repeat": (lambda a: cr.repeat(a, 3, axis=1), lambda a: torch.repeat_interleave(a, 3, 1), (A,)),
    "softmax": (cr.functional.softmax, lambda a: torch.softmax(a, -1), (A,)),
    "log softmax": (cr.functional.log_softmax, lambda a: torch.log_softmax(a, -1), (A,)),
    "logsumexp": (cr.functional.logsumexp, lambda a: torch.logsumexp(a, -1), (A,)),
    "softplus": (cr.functional.softplus, torch.nn.functional.softplus, (A,)),
    "mse": (cr.functional.mse_loss, torch.nn.functional.mse_loss, (A, B)),
    "cross entropy": (
        lambda a: cr.functional.cross_entropy(a, cr.asarray(LABELS)),
        lambda a: torch.nn.functional.cross_entropy(a, torch.tensor(LABELS)), (A,)),
    "bce": (
        lambda a: cr.functional.binary_cross_entropy(cr.sigmoid(a), cr.asarray(POSITIVE_B)),
        lambda a: torch.nn.functional.binary_cross_entropy(torch.sigmoid(a), torch.tensor(POSITIVE_B)), (A,)),
    "bce with logits": (
        lambda a: cr.functional.binary_cross_entropy_with_logits(a, cr.asarray(POSITIVE_B)),
        lambda a: torch.nn.functional.binary_cross_entropy_with_logits(a, torch.tensor(POSITIVE_B)), (A,)),
    "linear": (lambda a, b: cr.functional.linear(a, b, b[:, 0]),
               lambda a, b: torch.nn.functional.linear(a, b, b[:, 0]), (A, B)),
}  # fmt: skip


@pytest.mark.pytorch
@pytest.mark.parametrize("name", PAIRS)
def test_values_gradients_and_second_order_equal_pytorch(name: str) -> None:
    """float64: values and gradients to 1e-12, and a gradient of the gradient to 1e-11."""
    ours, theirs, arrays = PAIRS[name]
    mine, yours = zip(*(both(one) for one in arrays))
    y, u = ours(*mine), theirs(*yours)
    same(y, u)
    seed = normal(*y.shape, seed=7)
    first = torch.autograd.grad((u * torch.tensor(seed)).sum(), yours, create_graph=True)
    (y * cr.tensor(seed, dtype=F)).sum().backward(create_graph=True)
    for one, other in zip(mine, first):
        # Where the slope is 0 by nature nothing arrives here (None), and zeros in PyTorch.
        close(0.0 if one.grad is None else one.grad.detach(), other.detach().numpy())
    found = [one.grad for one in mine if one.grad is not None]
    total = sum(cr.sin(g).sum() for g in found)
    wanted = sum(torch.sin(g).sum() for g in first)
    if not wanted.requires_grad:
        return
    second = torch.autograd.grad(wanted, yours, allow_unused=True)
    for one in mine:
        one.grad = None
    if not total.requires_grad:
        assert all(one is None or not one.any() for one in second)
        return
    total.backward()
    for one, other in zip(mine, second):
        close(
            0.0 if one.grad is None else one.grad.detach(),
            0.0 if other is None else other.numpy(force=True),
            1e-10,
        )


def test_enough_functions_are_compared() -> None:
    assert len(PAIRS) >= 60
    assert math.prod(A.shape) == 12
