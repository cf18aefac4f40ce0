"""`scan` is the loop that it stands for: values, all gradients, both modes, higher orders, and what it keeps."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import autodiff, scans
from chainrule.errors import (
    ArgumentError,
    BoundsError,
    DtypeError,
    GradientError,
    ShapeError,
    TraceError,
)
from chainrule.functional import dropout
from chainrule.graph import Node, evaluate
from chainrule.iteration import scan
from chainrule.ops import NUMPY
from chainrule.pytree import flatten, unflatten


def loop(f: Callable[..., Any], init: Any, xs: Any, reverse: bool = False) -> tuple[Any, Any]:
    """What scan stands for, as Python runs it."""
    leaves, structure = flatten(xs)
    steps = range(leaves[0].shape[0])
    carry, results = init, []
    for t in reversed(steps) if reverse else steps:
        carry, y = f(carry, unflatten(structure, [one[t] for one in leaves]))
        results.append(y)
    if reverse:
        results.reverse()
    columns = zip(*(flatten(one)[0] for one in results))
    return carry, unflatten(flatten(results[0])[1], [cr.stack(list(column)) for column in columns])


def random(*shape: int, seed: int = 0, grad: bool = True) -> cr.Tensor:
    values = np.random.default_rng([seed, *shape]).normal(size=shape)
    return cr.tensor(values, requires_grad=grad)


def gradients_of(value: Any, leaves: list[cr.Tensor]) -> list[np.ndarray]:
    for leaf in leaves:
        leaf.grad = None
    total = sum(
        (cr.sin(one) * (k + 1.5)).sum() for k, one in enumerate(flatten(value)[0]) if one.dtype.kind == "f"
    )
    total.backward()
    return [np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy() for leaf in leaves]


def assert_same(got: list[np.ndarray], wanted: list[np.ndarray], tolerance: float = 1e-12) -> None:
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def values_of(tree: Any) -> list[np.ndarray]:
    return [one.detach().numpy() for one in flatten(tree)[0]]


def compare(f: Callable[..., Any], init: Any, xs: Any, leaves: list[cr.Tensor], **options: Any) -> None:
    wanted = loop(f, init, xs, options.get("reverse", False))
    got = scan(f, init, xs, **options)
    assert_same(values_of(got), values_of(wanted))
    assert_same(gradients_of(got, leaves), gradients_of(wanted, leaves))


# ------------------------------------------------------------------------------------------- the same as a loop


class Cell:
    """A recurrent cell with weights of its own."""

    def __init__(self, inputs: int, hidden: int) -> None:
        self.W, self.U, self.b = random(hidden, inputs), random(hidden, hidden, seed=1), random(hidden)
        self.leaves = [self.W, self.U, self.b]

    def __call__(self, h: cr.Tensor, x: cr.Tensor) -> tuple[cr.Tensor, cr.Tensor]:
        h = cr.tanh(x @ self.W.T + h @ self.U.T + self.b)
        return h, h * x.sum()


@given(
    steps=st.integers(1, 5), batch=st.integers(0, 3), inputs=st.integers(1, 3), hidden=st.integers(1, 3),
    reverse=st.booleans(), every=st.sampled_from([None, 1, 2, 3]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_recurrent_net_is_its_unrolled_loop(
    steps: int, batch: int, inputs: int, hidden: int, reverse: bool, every: int | None
) -> None:
    cell, h, x = Cell(inputs, hidden), random(batch, hidden), random(steps, batch, inputs)
    compare(cell, h, x, [*cell.leaves, h, x], reverse=reverse, checkpoint_every=every)


def test_no_steps_give_the_first_carry_and_empty_stacks() -> None:
    cell, h, x = Cell(2, 3), random(4, 3), random(0, 4, 2)
    last, ys = scan(cell, h, x)
    assert last.tolist() == h.tolist() and ys.shape == (0, 4, 3)
    found = gradients_of((last, ys), [*cell.leaves, h, x])
    assert all(not one.any() for one in found[:3]) and found[3].any() and found[4].shape == (0, 4, 2)


class Pair(NamedTuple):
    first: Any
    second: Any


def test_nested_carries_inputs_and_results() -> None:
    w = random(3)

    def f(carry: dict[str, Any], x: Pair) -> tuple[dict[str, Any], tuple[Any, Any]]:
        a, count = carry["a"] * w + x.first, carry["more"][0] + 1
        return {"a": a, "more": [count, carry["a"]]}, (a * x.second["k"], {"count": count})

    init = {"a": random(3, seed=3), "more": [cr.tensor(0), random(3, seed=4)]}
    xs = Pair(random(4, 3), {"k": random(4, 1)})
    compare(f, init, xs, [w, init["a"], init["more"][1], xs.first, xs.second["k"]])
    last, (_, extra) = scan(f, init, xs)
    assert list(last) == ["a", "more"] and extra["count"].tolist() == [1, 2, 3, 4]


def test_an_input_that_is_missing_and_a_result_that_is_missing() -> None:
    w = cr.tensor(0.5, requires_grad=True)
    last, ys = scan(lambda c, x: (c * w, None), cr.tensor(1.0), length=3)
    assert last.item() == 0.125 and ys is None
    last.backward()
    assert w.grad is not None and w.grad.item() == pytest.approx(0.75)


def test_carries_and_inputs_that_pass_through() -> None:
    w, x = random(2), random(3, 2)

    def f(carry: tuple[Any, Any], x: Any) -> tuple[Any, Any]:
        a, b = carry
        return (b, a), (x, w, a, x)

    compare(f, (random(2, seed=1), random(2, seed=2)), x, [w, x])


def test_what_does_not_depend_on_the_step_runs_once() -> None:
    """The weight's own computation stays outside of the loop; views are looked at again."""
    w, x = random(3, 3), random(6, 2, 3)
    ys = scan(lambda c, x: (c, x @ cr.exp(w).T), cr.tensor(0.0), x)[1]
    body = find_scan(ys).attributes["body"]
    assert not any(node.operation.name == "exp" for node in body.nodes())
    compare(lambda c, x: (c, x @ cr.exp(w).T), cr.tensor(0.0), x, [w, x])


def test_scans_nest() -> None:
    w = random(2)

    def inner(c: Any, x: Any) -> tuple[Any, Any]:
        c = cr.tanh(c * w + x)
        return c, c

    def outer(run: Callable[..., Any]) -> Callable[..., Any]:
        def f(c: Any, x: Any) -> tuple[Any, Any]:
            last, ys = run(inner, c, x)
            return last, ys.sum() * w

        return f

    c, x = random(2, seed=7), random(3, 4, 2)
    assert_same(
        gradients_of(scan(outer(scan), c, x), [w, c, x]), gradients_of(loop(outer(loop), c, x), [w, c, x])
    )


def test_one_scan_feeds_another() -> None:
    first, second, x = Cell(2, 3), Cell(3, 2), random(4, 2, 2)
    h, k = random(2, 3), random(2, 2)

    def both(run: Callable[..., Any]) -> Any:
        a, ys = run(first, h, x)
        b, zs = run(second, k, ys, reverse=True)
        return a, b, zs

    leaves = [*first.leaves, *second.leaves, h, k, x]
    assert_same(gradients_of(both(scan), leaves), gradients_of(both(loop), leaves))


# ------------------------------------------------------------------------------------------- derivatives


def small(w: Any, c: Any, x: Any) -> Any:
    last, ys = scan(lambda c, x: ((d := cr.tanh(c * w + x @ w)), d * w), c, x)
    return (last * ys).sum()


def unrolled(w: Any, c: Any, x: Any) -> Any:
    last, ys = loop(lambda c, x: ((d := cr.tanh(c * w + x @ w)), d * w), c, x)
    return (last * ys).sum()


def test_numbers_agree_with_numerical_differentiation() -> None:
    cr.testing.check_grads(small, (random(2, seed=1).detach(), random(2).detach(), random(3, 2).detach()))


def test_forward_mode_equals_the_loop() -> None:
    primals = [random(2, seed=1).detach(), random(2).detach(), random(3, 2).detach()]
    tangents = [random(2, seed=5).detach(), random(2, seed=6).detach(), random(3, 2, seed=7).detach()]
    for k in range(4):
        moved = [one if k in (j, 3) else one * 0 for j, one in enumerate(tangents)]
        got, wanted = cr.jvp(small, primals, moved), cr.jvp(unrolled, primals, moved)
        assert got[1].item() == pytest.approx(wanted[1].item(), rel=1e-12)


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_second_order_equals_the_loop(argument: int) -> None:
    primals = (random(2, seed=1).detach(), random(2).detach(), random(3, 2).detach())
    got = cr.hessian(small, argument)(*primals)
    assert_same([got.numpy()], [cr.hessian(unrolled, argument)(*primals).numpy()], 1e-11)


def test_the_gradient_of_a_gradient_backwards() -> None:
    def penalty(f: Callable[..., Any]) -> Callable[..., Any]:
        return lambda w, c, x: (cr.grad(f)(w, c, x) ** 2.0).sum()

    primals = (random(2, seed=1).detach(), random(2).detach(), random(3, 2).detach())
    for argument in range(3):
        got = cr.grad(penalty(small), argument)(*primals).detach()
        wanted = cr.grad(penalty(unrolled), argument)(*primals).detach()
        assert_same([got.numpy()], [wanted.numpy()], 1e-11)


def test_the_second_order_through_stretches_that_are_computed_again() -> None:
    def f(run: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        def value(w: Any) -> Any:
            last, ys = run(
                lambda c, x: (cr.tanh(c * w + x), c * w), cr.ones(2, dtype=cr.float64), x, **options
            )
            return (ys * ys).sum() + last.sum()

        return value

    x, w = random(5, 2).detach(), random(2, seed=1).detach()
    got = cr.hessian(f(scan, checkpoint_every=2))(w)
    assert_same([got.numpy()], [cr.hessian(f(loop))(w).numpy()], 1e-11)


def test_a_gradient_inside_the_function() -> None:
    """Gradient descent in a scan, and the gradient of what it finds with respect to the step size."""
    target = random(3).detach()

    def learn(run: Callable[..., Any], rate: Any) -> Any:
        def descend(w: Any, x: Any) -> tuple[Any, Any]:
            slope = cr.grad(lambda w: ((w * x - target) ** 2.0).sum())(w)
            return w - rate * slope, None if run is scan else w

        return run(descend, cr.zeros(3, dtype=cr.float64), random(4, 3).detach())[0].sum()

    for run in (scan, loop):
        rate = cr.tensor(0.1, dtype=cr.float64, requires_grad=True)
        learn(run, rate).backward()
        found = rate.grad.item() if run is scan else found  # noqa: F821
    assert rate.grad is not None and found == pytest.approx(rate.grad.item(), rel=1e-12)


def test_the_gradient_inside_of_a_weight_from_outside() -> None:
    w, x = random(3).detach(), random(4, 3).detach()

    def f(total: Any, x: Any) -> tuple[Any, Any]:
        return total + cr.grad(lambda v: (v * v * x).sum())(w), None

    assert_same([scan(f, cr.zeros(3, dtype=cr.float64), x)[0].numpy()], [(2 * w * x.sum(axis=0)).numpy()])


def test_detached_and_unrecorded_parts_pass_no_gradient() -> None:
    w, x = random(2), random(3, 2)

    def f(c: Any, x: Any) -> tuple[Any, Any]:
        with cr.no_grad():
            scale = (c * w).sum()
        return (c * w + x).detach() + w, x * scale * w

    compare(f, random(2, seed=3), x, [w, x])


def test_under_no_grad_nothing_is_recorded() -> None:
    cell, h, x = Cell(2, 3), random(4, 3), random(5, 4, 2)
    with cr.no_grad():
        last, ys = scan(cell, h, x)
    assert not last.requires_grad and not ys.requires_grad
    assert_same(values_of((last, ys)), values_of(loop(cell, h, x)))


def test_held_results_have_their_gradient() -> None:
    x = random(3, 2)
    last, ys = scan(lambda c, x: (c + x, c * x), random(2, seed=1), x * 2.0)
    loss = last.sum() + (ys * ys).sum()
    loss.backward()
    assert ys.grad is not None and last.grad is not None
    np.testing.assert_allclose(ys.grad.numpy(), 2 * ys.detach().numpy())


def test_hooks_on_what_goes_in_and_on_what_happens_inside() -> None:
    x, seen = random(3), []
    x.register_hook(lambda g: seen.append(g.shape))

    def f(c: Any, x: Any) -> tuple[Any, Any]:
        c = c * x
        c.register_hook(lambda g: g * 0.0)
        return c, None

    scan(f, cr.tensor(1.0, dtype=cr.float64), x)[0].backward()
    assert seen == [(3,)] and x.grad is not None and not x.grad.numpy().any()


def test_truncated_backpropagation_through_time() -> None:
    """A carry that is detached between two stretches ends the gradient there, and only there."""
    w = cr.tensor(0.9, dtype=cr.float64, requires_grad=True)
    x = cr.ones(6, dtype=cr.float64)
    state = cr.tensor(1.0, dtype=cr.float64)
    for stretch in (x[:3], x[3:]):
        w.grad = None
        start = state.detach()
        state, _ = scan(lambda c, x: (c * w + x, None), start, stretch)
        state.backward()
    s, g = start.item(), 0.0
    for _ in range(3):
        s, g = s * 0.9 + 1.0, g * 0.9 + s
    assert w.grad is not None and w.grad.item() == pytest.approx(g, rel=1e-12)


def test_gradients_vanish_and_explode_as_the_worked_example_says() -> None:
    # Karpathy, "The unreasonable effectiveness of recurrent neural networks": λ⁵⁰ and λ¹⁰⁰.
    known = {50: (0.0051538, 1.0, 117.3909), 100: (2.656e-05, 1.0, 13780.6)}
    for steps in (50, 100):
        for rate, wanted in zip((0.9, 1.0, 1.1), known[steps]):
            start = cr.tensor(1.0, dtype=cr.float64, requires_grad=True)
            scan(lambda c, _, rate=rate: (c * rate, None), start, length=steps)[0].backward()
            assert start.grad is not None and start.grad.item() == pytest.approx(wanted, rel=2e-4)


# ------------------------------------------------------------------------------------------- what is kept


def find_scan(result: cr.Tensor) -> Node:
    node = result.node
    while node.operation is not scans.scan:
        node = node.inputs[0]
    return node


def stacked_of(result: cr.Tensor) -> int:
    """How many values of each step the scan behind a result stacks."""
    node = find_scan(result)
    return len(node.types) - node.attributes["carries"]


def test_only_what_the_gradient_reads_is_kept() -> None:
    w, x = random(4, 4), random(5, 2, 4)
    plain = scan(lambda c, x: (c + x, None), random(2, 4), x)[0]
    assert stacked_of(plain) == 0, "sums need nothing"
    weighted = scan(lambda c, x: (cr.tanh(x @ w.T + c), None), random(2, 4), x)[0]
    assert stacked_of(weighted) == 1, "tanh needs its result; the product needs x, which is there"
    recurrent = scan(lambda c, x: (cr.tanh(x + c @ w.T), None), random(2, 4), x)[0]
    assert stacked_of(recurrent) == 2, "the product needs the carry too"
    again = scan(lambda c, x: (cr.tanh(x + c @ w.T), None), random(2, 4), x, checkpoint_every=2)[0]
    assert find_scan(again).attributes["length"] in (1, 2)


def test_stretches_that_are_computed_again_keep_their_first_carry_only() -> None:
    w = random(4, 4)
    last = scan(lambda c, x: (cr.tanh(x + c @ w.T), None), random(2, 4), random(8, 2, 4), checkpoint_every=4)[
        0
    ]
    node = find_scan(last)
    assert node.attributes["length"] == 2 and stacked_of(last) == 1
    assert node.types[1].shape == (2, 2, 4)


def test_weights_get_one_product_after_the_loop() -> None:
    """Not a sum of products inside of it."""
    cell, h, x = Cell(2, 3), random(4, 3), random(5, 4, 2)
    node = find_scan(scan(cell, h, x)[0])
    wanted = [k for k, operand in enumerate(node.inputs) if operand.requires_grad]
    stacked = node.attributes["stacked"]
    plan = scans.backward(node.attributes["body"], 1, stacked, wanted, [0])
    assert plan.added == [] and sorted(len(one) for one in plan.products.values()) == [1, 1]
    assert sum(node.operation.name == "matmul" for node in plan.graph.nodes()) == 1, "that of h alone"


def test_products_with_inputs_are_taken_before_the_loop() -> None:
    """One for all steps; what is recorded without a gradient, or has a hook, stays where it is."""
    w, u, x, flat = random(3, 4), random(3, 3), random(5, 2, 4), random(5, 8)

    def products(f: Callable[..., Any], x: Any = x) -> int:
        compare(f, random(2, 3), x, [w, u, x])
        body = find_scan(scan(f, random(2, 3), x)[0]).attributes["body"]
        return sum(node.operation.name == "matmul" for node in body.nodes())

    assert products(lambda c, x: (cr.tanh(x @ w.T + c @ u), x)) == 1
    assert products(lambda c, x: (cr.tanh(x.reshape(2, 4) @ w.T + c), None), flat) == 0
    assert products(lambda c, x: (cr.tanh((x * 2.0) @ w.T + c), None)) == 1, "only what is given"

    def hooked(c: Any, x: Any) -> Any:
        z = x @ w.T
        z.register_hook(lambda g: g * 2.0)
        return z + c, None

    def detached(c: Any, x: Any) -> Any:
        with cr.no_grad():
            z = x @ w.T
        return z * c, None

    assert products(hooked) == 1 and products(detached) == 1


def test_a_body_is_derived_once() -> None:
    cell, h, x = Cell(2, 3), random(4, 3), random(5, 4, 2)
    last, ys = scan(cell, h, x)
    body = find_scan(last).attributes["body"]
    (last.sum() + ys.sum()).backward()
    first = scans.derived(body).backwards
    count = len(first)
    (last.sum() + ys.sum()).backward()
    assert len(first) == count


@pytest.mark.parametrize("keeps", [False, True])
def test_what_was_derived_goes_with_its_body(keeps: bool) -> None:
    """A training loop makes a new body at every step: none may stay."""
    w, x = random(3), random(4, 3)

    def f(c: Any, x: Any) -> tuple[Any, Any]:
        return (cr.tanh(c * w + x) if keeps else c + w + x), c

    last, ys = scan(f, random(3, seed=2), x, checkpoint_every=2 if keeps else None)
    (last.sum() + ys.sum()).backward(create_graph=True)
    bodies = [weakref.ref(find_scan(last).attributes["body"]), *(weakref.ref(one) for one in scans._derived)]
    before = len(bodies)
    for leaf in (w, x):
        leaf.grad = None
    del last, ys
    gc.collect()
    assert before > 1 and all(one() is None for one in bodies)


# ------------------------------------------------------------------------------------------- state inside


def test_random_numbers_fall_anew_at_each_step_as_in_the_loop() -> None:
    x = cr.ones((4, 50))
    for run in (scan, loop):
        cr.manual_seed(3)
        ys = run(lambda c, x: (c, dropout(x, 0.5)), cr.tensor(0.0), x)[1]
        after = cr.rand(2)
        if run is scan:
            found, next_numbers = ys, after
    assert found.tolist() == ys.tolist() and next_numbers.tolist() == after.tolist()
    assert len({tuple(row) for row in ys.tolist()}) == 4


def test_the_same_random_numbers_fall_where_a_stretch_is_computed_again() -> None:
    w, grads = cr.tensor([1.0] * 20, requires_grad=True), []
    for every in (None, 2):
        cr.manual_seed(1)
        w.grad = None
        scan(lambda c, x: (dropout(c * w) + x, None), cr.ones(20), cr.ones((5, 20)), checkpoint_every=every)[
            0
        ].sum().backward()
        assert w.grad is not None
        grads.append(w.grad.tolist())
    assert grads[0] == grads[1]


def test_running_statistics_are_written_at_each_step() -> None:
    x = random(4, 6, 3, grad=False).astype(cr.float32)
    layers = [cr.nn.BatchNorm1d(3) for _ in range(2)]
    for layer, run in zip(layers, (scan, loop)):
        run(lambda c, x, layer=layer: (c, layer(x)), cr.tensor(0.0), x)
    a, b = (layer.state_dict() for layer in layers)
    assert all(np.array_equal(a[name].numpy(), b[name].numpy()) for name in a)
    assert a["running_mean"].numpy().any()


# ------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: scan(lambda c, x: (c, x), 0.0), ArgumentError, "how many steps.*length="),
        (lambda: scan(lambda c, x: (c, x), 0.0, cr.ones(3), length=4), ShapeError, "got 3 and length=4"),
        (lambda: scan(lambda c, x: (c, x), 0.0, cr.tensor(1.0)), ShapeError, r"xs of shape \(\)"),
        (lambda: scan(lambda c, x: (c, x), 0.0, {"a": cr.ones(3), "b": cr.ones((2, 3))}), ShapeError,
         r"xs\['a'\] \(3,\), xs\['b'\] \(2, 3\)"),
        (lambda: scan(lambda c, x: c, 0.0, cr.ones(3)), ArgumentError, r"returns \(carry, y\); got Tensor"),
        (lambda: scan(lambda c, x: (c, x, x), 0.0, cr.ones(3)), ArgumentError, "got a tuple of 3"),
        (lambda: scan(lambda c, x: ((c, c), x), 0.0, cr.ones(3)), ArgumentError,
         r"\(carry\) at first and \(carry\[0\], carry\[1\]\) from <lambda>"),
        (lambda: scan(lambda c, x: ({"h": c["h"] + cr.ones(2)}, x), {"h": cr.tensor(0.0)}, cr.ones(3)), ShapeError,
         r"carry\['h'\] is float32\[\] at first and becomes float32\[2\].*test_scan\.py:\d+"),
        (lambda: scan(lambda c, x: (c.astype(cr.float64), x), 0.0, cr.ones(3)), DtypeError,
         r"carry is float32\[\] at first and becomes float64\[\]\. Use astype"),
        (lambda: scan(lambda c, x: (c, x), 0.0, cr.ones(3), checkpoint_every=0), ArgumentError, "at least 1"),
        (lambda: scan(lambda c, x: (c, x), 0.0, length=-1), ArgumentError, "at least 0"),
        (lambda: scan(lambda c, x: (c, float(x)), 0.0, cr.ones(3)), TraceError,
         r"in the function of scan a tensor has no numbers yet.* Return it as part of y"),
        (lambda: scan(lambda c, x: (c @ cr.ones((3, 2)), x), cr.ones((2, 2)), cr.ones(3)), ShapeError,
         r"matmul needs .*test_scan\.py:\d+"),
        (lambda: scan(lambda c, x: (c, cr.take(cr.ones(3), x)), 0.0, cr.tensor([0, 7])), BoundsError,
         r"take needs indices from -3 to 2; got 7 to 7.*test_scan\.py:\d+"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_words(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_gradients_do_not_arrive_inside() -> None:
    w = random(2)

    def learns(c: Any, x: Any) -> tuple[Any, Any]:
        (w * x).sum().backward()
        return c, None

    with pytest.raises(GradientError, match=r"recorded once.*backward\(\) inside"):
        scan(learns, cr.tensor(0.0), random(3, 2))
    with pytest.raises(GradientError, match=r"the \.grad of"):
        scan(lambda c, x: (c, w.grad), cr.tensor(0.0), random(3, 2))


def test_a_weight_is_not_changed_inside() -> None:
    w = cr.nn.Linear(2, 2)

    def changes(c: Any, x: Any) -> tuple[Any, Any]:
        with cr.no_grad():
            w.bias += 1.0
        return c, None

    with pytest.raises(TraceError, match="cannot change what requires grad; got a new value for"):
        scan(changes, cr.tensor(0.0), random(3, 2))


def test_a_value_that_left_the_function_is_refused() -> None:
    kept = []
    scan(lambda c, x: (c + x, kept.append(c * x)), cr.tensor(0.0), cr.ones(3))
    with pytest.raises(TraceError):
        kept[0] + 1


# ------------------------------------------------------------------------------------------- in a graph


def test_the_interpreter_runs_it_in_a_graph() -> None:
    cell, h, x = Cell(2, 3), random(4, 3), random(5, 4, 2)
    last, ys = scan(cell, h, x)
    graph, captured = autodiff.capture("whole", [h.node, x.node], [last.node, ys.node], 0)
    sources = [h.node.value, x.node.value, *(node.value for node in captured)]
    assert_same(list(evaluate(graph, sources, NUMPY)), values_of(loop(cell, h, x)))
    assert "scan(" in str(graph) and "body=<graph of" in str(graph)
