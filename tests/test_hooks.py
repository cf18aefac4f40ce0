"""Hooks of tensors and modules: eager, at higher order, in transformations, checkpoints and compiled steps."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError, DtypeError, GradientError, ShapeError, TraceError


def leaf(values: Any) -> cr.Tensor:
    return cr.tensor(values, dtype="float64", requires_grad=True)


# ------------------------------------------------------------------------------------------- tensors


def test_a_hook_sees_the_whole_gradient_once_and_before_it_is_kept() -> None:
    x, seen = leaf([1.0, 2.0]), []
    h = x * 3
    h.register_hook(lambda gradient: seen.append(gradient.tolist()))
    (h * h + h).sum().backward()  # three paths meet in h
    assert seen == [[7.0, 13.0]] and h.grad.tolist() == [7.0, 13.0]


def test_what_a_hook_returns_flows_on_and_into_grad() -> None:
    x = leaf([1.0, 2.0])
    h = x * 3
    h.register_hook(lambda gradient: gradient * 10)
    h.register_hook(lambda gradient: gradient + 1)
    h.sum().backward()
    assert h.grad.tolist() == [11.0, 11.0] and x.grad.tolist() == [33.0, 33.0]


def test_hooks_on_leaves_run_before_the_gradient_is_added() -> None:
    w = leaf([1.0, 2.0])
    handle = w.register_hook(lambda gradient: gradient * 0.5)
    for _ in range(2):
        (w * 4).sum().backward()
    assert w.grad.tolist() == [4.0, 4.0]
    handle.remove()
    handle.remove()
    w.grad = None
    (w * 4).sum().backward()
    assert w.grad.tolist() == [4.0, 4.0]
    with w.register_hook(lambda gradient: gradient * 0):
        (w * 4).sum().backward()
    (w * 4).sum().backward()
    assert w.grad.tolist() == [8.0, 8.0]


def test_order_and_numbers_equal_pytorchs(torch: Any) -> None:
    told: dict[str, list[Any]] = {"ours": [], "theirs": []}
    for name, x in (
        ("ours", leaf([0.5, -1.5])),
        ("theirs", torch.tensor([0.5, -1.5], dtype=torch.float64, requires_grad=True)),
    ):

        def tell(label: str, factor: float | None, name: str = name) -> Any:
            def hook(gradient: Any) -> Any:
                told[name].append((label, gradient.tolist()))
                return None if factor is None else gradient * factor

            return hook

        x.register_hook(tell("x", 2.0))
        h = x * x
        h.register_hook(tell("h", None))
        y = h.exp()
        y.register_hook(tell("y", 3.0))
        y.register_hook(tell("y again", None))
        (y * h).sum().backward()
        told[name].append(("x.grad", x.grad.tolist()))
    assert [label for label, _ in told["ours"]] == [label for label, _ in told["theirs"]]
    for (_, ours), (_, theirs) in zip(told["ours"], told["theirs"]):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)


def test_hooks_are_differentiated_with_create_graph(torch: Any) -> None:
    x = leaf(3.0)
    h = x * 1.0
    h.register_hook(lambda gradient: gradient * gradient)
    (h * h).backward(create_graph=True)  # d/dx = (2x)²
    assert x.grad.item() == 36.0
    slope, x.grad = x.grad, None
    h.grad = None
    handle = x.register_hook(lambda gradient: gradient)
    slope.backward()  # through g² → 2·g·2 = 8x, once more through the hook on h: (8x)² + …, so compare with PyTorch
    handle.remove()
    there = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    k = there * 1.0
    k.register_hook(lambda gradient: gradient * gradient)
    (first,) = torch.autograd.grad(k * k, there, create_graph=True)
    first.backward()
    assert x.grad.item() == pytest.approx(there.grad.item())


def test_hooks_hold_in_transformations_and_checkpoints() -> None:
    def scaled(x: cr.Tensor) -> cr.Tensor:
        h = cr.sin(x)
        h.register_hook(lambda gradient: gradient * 3)
        x.register_hook(lambda gradient: gradient * 2)
        return h * h

    expected = 6 * cr.grad(lambda x: cr.sin(x) ** 2)(0.5).item()
    assert cr.grad(scaled)(0.5).item() == pytest.approx(expected)
    assert cr.grad(cr.checkpoint(scaled))(0.5).item() == pytest.approx(expected)
    assert cr.grad(lambda x: cr.grad(scaled)(x))(0.5).item() != 0


def test_a_hook_off_the_asked_path_is_not_called() -> None:
    called = []

    def function(x: cr.Tensor, y: cr.Tensor) -> cr.Tensor:
        (h := y * 2).register_hook(lambda gradient: called.append(1))
        return x * h

    cr.grad(function)(leaf(2.0), leaf(3.0))
    assert not called
    cr.grad(function, argnums=1)(leaf(2.0), leaf(3.0))
    assert called


def test_what_is_raised_in_a_hook_passes_and_leaves_nothing_behind() -> None:
    x = leaf(1.0)

    def refuse(gradient: cr.Tensor) -> None:
        raise KeyError("mine")

    h = x * 2
    h.register_hook(refuse)
    for options in ({}, {"create_graph": True}):
        with pytest.raises(KeyError, match="mine"):
            h.backward(**options)
    assert x.grad is None
    y = x * 2
    y.backward()
    assert x.grad.item() == 2.0 and (x * 1).requires_grad


def test_faults_of_hooks_in_words() -> None:
    with pytest.raises(GradientError, match=r"a hook needs a tensor that requires grad; got float64\(\)"):
        cr.tensor(1.0, dtype="float64").register_hook(print)
    with pytest.raises(ArgumentError, match="a hook is a function of the gradient; got int"):
        leaf(1.0).register_hook(3)
    for answer, error, words in ((2.0, ArgumentError, "returns a tensor, or None to change nothing; got float"),
                                 (cr.ones(2, dtype="float64"), ShapeError, r"same shape; got \(2,\) for \(\)"),
                                 (cr.tensor(1.0), DtypeError, "same dtype; got float32 for float64")):  # fmt: skip
        x = leaf(1.0)
        x.register_hook(lambda gradient, answer=answer: answer)
        for options in ({}, {"create_graph": True}):
            with pytest.raises(error, match=words):
                (x * 2).backward(**options)


def test_hooks_do_not_keep_graphs_alive() -> None:
    def hooked(x: cr.Tensor) -> weakref.ref[Any]:
        h = x * 2
        h.register_hook(lambda gradient: h * 0 + gradient)  # refers to itself
        h.sum().backward()
        return weakref.ref(h.node)

    ghost = hooked(leaf([1.0]))
    gc.collect()
    assert ghost() is None


def test_hooks_in_compiled_steps() -> None:
    w = leaf([1.0, 2.0])
    handle = w.register_hook(lambda gradient: gradient * 10)

    def step(x: cr.Tensor) -> tuple[cr.Tensor, cr.Tensor]:
        h = w * x
        h.register_hook(lambda gradient: cr.clip(gradient, -1.0, 1.0) * 2)
        loss = (h * h).sum()
        loss.backward()
        slope, w.grad = w.grad, None
        return loss, slope

    compiled = cr.compile(step)
    x = cr.tensor([3.0, 0.1], dtype="float64")
    for _ in range(2):
        assert compiled(x)[1].tolist() == pytest.approx(step(x)[1].tolist())
        handle.remove()
    assert compiled(x)[1].tolist() == pytest.approx([6.0, 0.08])


def test_a_hook_that_asks_for_numbers_in_a_trace_says_so() -> None:
    w = leaf([1.0, 2.0])
    w.register_hook(lambda gradient: gradient * float(gradient.sum()))

    @cr.compile
    def step() -> None:
        (w * w).sum().backward()

    with pytest.raises(TraceError, match=r"inside cr\.compile a tensor has no numbers yet"):
        step()
    assert w.grad is None


# ------------------------------------------------------------------------------------------- modules


class Pair(nn.Module):
    """Two outputs, of which the second does not learn; `scale` comes by keyword."""

    def __init__(self) -> None:
        self.layer = nn.Linear(2, 2, dtype="float64")

    def forward(self, x: Any, number: Any = None, scale: float = 1.0) -> tuple[Any, Any]:
        return self.layer(x) * scale, x * 2


def test_forward_hooks_see_and_replace() -> None:
    layer, log = nn.Linear(2, 2), []
    layer.register_forward_pre_hook(lambda module, given: log.append(("pre", len(given))))
    layer.register_forward_pre_hook(
        lambda module, given: given[0] * 0
    )  # a single value stands for a tuple of one
    layer.register_forward_hook(lambda module, given, output: output + 1)
    layer.register_forward_hook(lambda module, given, output: log.append(("post", given[0].tolist())))
    layer.register_forward_hook(lambda module, given, output: log.append("first"), prepend=True)
    out = layer(cr.ones((1, 2)))
    assert log == [("pre", 1), "first", ("post", [[0.0, 0.0]])]
    assert out.tolist() == (layer.bias.detach() + 1).reshape(1, 2).tolist()


def test_forward_hooks_with_keywords() -> None:
    pair, seen = Pair(), []

    def before(module: Any, given: Any, keywords: Any) -> Any:
        seen.append(keywords)
        return given, {**keywords, "scale": 0.0}

    pair.register_forward_pre_hook(before, with_kwargs=True)
    pair.register_forward_hook(
        lambda module, given, keywords, output: seen.append(keywords) or output[0], with_kwargs=True
    )
    out = pair(cr.ones((1, 2), dtype="float64"), scale=5.0)
    assert seen == [{"scale": 5.0}, {"scale": 0.0}] and out.tolist() == [[0.0, 0.0]]
    pair.register_forward_pre_hook(lambda module, given, keywords: given, with_kwargs=True)
    with pytest.raises(
        ArgumentError, match=r"returns \(arguments, keywords\), a tuple and a dict, or None; got tuple"
    ):
        pair(cr.ones((1, 2), dtype="float64"))


def test_handles_always_come_and_always_called_hooks_always_run() -> None:
    layer, log = nn.Linear(2, 2), []
    handles = [
        layer.register_forward_pre_hook(lambda *given: log.append("pre")),
        layer.register_forward_hook(lambda *given: log.append("post")),
        layer.register_forward_hook(lambda *given: log.append("always"), always_call=True),
        layer.register_full_backward_hook(lambda *given: log.append("back")),
        layer.register_full_backward_pre_hook(lambda *given: log.append("back pre")),
    ]
    with pytest.raises(ShapeError):
        layer(cr.ones((1, 3)))
    assert log == ["pre", "always"]
    layer(cr.ones((1, 2))).sum().backward()
    assert log[2:] == ["pre", "post", "always", "back pre", "back"]
    for handle in handles:
        handle.remove()
    log.clear()
    layer(cr.ones((1, 2))).sum().backward()
    assert not log
    with pytest.raises(ArgumentError, match="a hook is a function; got str"):
        layer.register_forward_hook("print")


def told_backwards(kind: Any, tensor: Any, ours: bool) -> list[Any]:
    """What the gradient hooks of a module of two outputs hear, for several uses."""
    if ours:
        module: Any = Pair()
    else:

        class Twin(kind.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = kind.Linear(2, 2).double()

            forward = Pair.forward

        module = Twin()
    for parameter, value in zip(
        module.parameters(), (np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([5.0, 6.0]))
    ):
        parameter.requires_grad_(False)
        parameter.copy_(tensor(value))
        parameter.requires_grad_(True)
    heard: list[Any] = []

    def plain(row: Any) -> Any:
        return [None if one is None else one.tolist() for one in row]

    module.register_full_backward_hook(
        lambda m, before, after: heard.append(("back", plain(before), plain(after)))
    )
    module.register_full_backward_pre_hook(lambda m, after: heard.append(("pre", plain(after))))
    module.register_full_backward_hook(
        lambda m, before, after: tuple(None if g is None else g * 10 for g in before)
    )
    module.register_full_backward_pre_hook(
        lambda m, after: tuple(None if g is None else g * 2 for g in after), prepend=True
    )
    for pick in (lambda a, b: a.sum(), lambda a, b: b.sum(), lambda a, b: (a * b).sum()):
        x = tensor(np.array([[1.0, -1.0]]))
        x.requires_grad_()
        pick(*module(x, 3)).backward()
        heard.append(x.grad.tolist())
    return heard


def test_gradient_hooks_hear_what_pytorchs_hear(torch: Any) -> None:
    assert told_backwards(nn, cr.tensor, True) == told_backwards(
        torch.nn, lambda value: torch.from_numpy(np.array(value)), False
    )


def test_a_gradient_hook_of_a_layer_whose_inputs_do_not_learn() -> None:
    layer, heard = nn.Linear(2, 1), []
    layer.register_full_backward_hook(lambda module, before, after: heard.append((before, after[0].tolist())))
    layer(cr.ones((1, 2))).sum().backward()
    assert heard == [((None,), [[1.0]])]
    with cr.no_grad():
        assert not layer(cr.ones((1, 2))).requires_grad
    assert layer(cr.ones((1, 2))).tolist() == layer.forward(cr.ones((1, 2))).tolist()


def test_gradient_hooks_in_compiled_steps_and_at_second_order() -> None:
    def build() -> nn.Sequential:
        cr.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        model[1].register_full_backward_hook(lambda module, before, after: (before[0] * 3 + before[0] ** 2,))
        model[2].register_full_backward_pre_hook(lambda module, after: (after[0] * 2,))
        return model

    x = cr.tensor(np.random.default_rng(0).normal(size=(5, 3)))
    slopes = []
    for wrap in (lambda step: step, cr.compile):
        model = build()

        def step(x: cr.Tensor, model: nn.Module = model) -> list[cr.Tensor]:
            model(x).sum().backward()
            found = [parameter.grad for parameter in model.parameters()]
            model.zero_grad()
            return found

        slopes.append([one.numpy() for one in wrap(step)(x)])
    for one, other in zip(*slopes):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    model = build()
    model(x).sum().backward(create_graph=True)
    model[0].weight.grad.sum().backward()
    assert np.isfinite(model[0].weight.grad.detach().numpy()).all()
    tangent = cr.jvp(lambda x: model(x), (x,), (cr.ones(x.shape, dtype="float64"),))[1]
    plain = cr.jvp(
        lambda x: model[2].forward(model[1].forward(model[0](x))), (x,), (cr.ones(x.shape, dtype="float64"),)
    )[1]
    np.testing.assert_allclose(tangent.detach().numpy(), plain.detach().numpy(), rtol=1e-14)


def test_a_hook_changes_a_compiled_step_when_it_is_registered_removed_or_its_variables_change() -> None:
    layer, factor = nn.Linear(2, 1, bias=False), [3.0]
    compiled = cr.compile(lambda x: layer(x))
    x = cr.ones((1, 2))
    plain = compiled(x).item()
    handle = layer.register_forward_hook(lambda module, given, output: output * factor[0])
    assert compiled(x).item() == pytest.approx(3 * plain)
    factor[0] = 5.0
    assert compiled(x).item() == pytest.approx(5 * plain)
    handle.remove()
    assert compiled(x).item() == pytest.approx(plain)


def test_what_gradient_hooks_return_is_checked() -> None:
    layer = nn.Linear(2, 1)
    handle = layer.register_full_backward_hook(lambda module, before, after: (before[0], before[0]))
    x = cr.tensor([[1.0, 2.0]], requires_grad=True)
    with pytest.raises(ArgumentError, match="a full backward hook returns 1 gradients, one for each; got 2"):
        layer(x).backward()
    handle.remove()
    layer.register_full_backward_pre_hook(lambda module, after: (after[0].reshape(1),))
    with pytest.raises(
        ShapeError, match=r"pre-hook returns a gradient of the same shape; got \(1,\) for \(1, 1\)"
    ):
        layer(x).backward()


def test_nested_outputs_and_missing_arguments_keep_their_places() -> None:
    class Nested(nn.Module):
        def forward(self, nothing: Any, pair: Any) -> dict[str, Any]:
            return {"sum": pair[0] + pair[1], "kept": 3}

    module, heard = Nested(), []
    module.register_full_backward_hook(lambda m, before, after: heard.append((before, after)))
    a, b = leaf(1.0), cr.tensor(2.0, dtype="float64")
    out = module(None, [a, b])
    assert out["kept"] == 3
    out["sum"].backward()
    before, after = heard[0]
    assert before[0] is None and before[1].item() == 1.0 and before[2] is None
    assert after[0].item() == 1.0 and after[1] is None


def test_hooks_are_copied_with_the_module() -> None:
    layer, log = nn.ReLU(), []
    layer.register_forward_hook(lambda *given: log.append(1))
    twin = copy.deepcopy(layer)
    twin(cr.ones(1))
    assert log == [1]
