"""Compiled loops over time: the numbers of the interpreter, native code whose size does not grow with the steps."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn, optim
from chainrule.compiler import available
from chainrule.errors import BoundsError, NonFiniteError, TraceError
from chainrule.functional import dropout
from chainrule.iteration import scan

pytestmark = pytest.mark.skipif(not available(), reason="needs llvmlite")


def random(*shape: int, seed: int = 0, grad: bool = True, dtype: Any = np.float64) -> cr.Tensor:
    values = np.random.default_rng([seed, *shape]).normal(size=shape) * 0.5
    return cr.tensor(values.astype(dtype), requires_grad=grad)


def both(
    step: Callable[..., Any], leaves: list[cr.Tensor], *inputs: cr.Tensor
) -> tuple[Any, list[np.ndarray], list[np.ndarray]]:
    """The compiled step; and value and gradients of the compiled and of the eager one."""
    found = []
    compiled = cr.compile(step)
    for run in (compiled, step):
        for leaf in leaves:
            leaf.grad = None
        value = run(*inputs)
        values = [one.detach().numpy() for one in (value if isinstance(value, tuple) else (value,))]
        found.append([*values, *(np.zeros(1) if one.grad is None else one.grad.numpy() for one in leaves)])
    for leaf in leaves:
        leaf.grad = None
    return compiled, found[0], found[1]


def assert_same(step: Callable[..., Any], leaves: list[cr.Tensor], *inputs: cr.Tensor) -> Any:
    compiled, got, wanted = both(step, leaves, *inputs)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)
    return compiled


class Recurrent:
    """A recurrent net with everything that a body can do: products, views, a mask, a nested carry."""

    def __init__(self, inputs: int, hidden: int, dtype: Any = np.float64) -> None:
        self.W, self.U = random(hidden, inputs, dtype=dtype), random(hidden, hidden, seed=1, dtype=dtype)
        self.b = random(hidden, dtype=dtype)
        self.leaves = [self.W, self.U, self.b]

    def __call__(self, h: Any, x: Any) -> Any:
        h = cr.tanh(x @ self.W.T + h @ self.U.T + self.b)
        return h, h * h


def learning(net: Any, h: cr.Tensor, **options: Any) -> Callable[[cr.Tensor], cr.Tensor]:
    def step(x: cr.Tensor) -> cr.Tensor:
        last, ys = scan(net, h, x, **options)
        loss = (last * last).sum() + cr.sin(ys).sum()
        loss.backward()
        return loss

    return step


@given(
    steps=st.integers(0, 4), batch=st.integers(0, 3), inputs=st.integers(1, 3), hidden=st.integers(1, 3),
    reverse=st.booleans(), every=st.sampled_from([None, 1, 2]),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_a_compiled_recurrent_net_is_the_interpreted_one(
    steps: int, batch: int, inputs: int, hidden: int, reverse: bool, every: int | None
) -> None:
    net, h, x = Recurrent(inputs, hidden), random(batch, hidden), random(steps, batch, inputs, grad=False)
    assert_same(learning(net, h, reverse=reverse, checkpoint_every=every), [*net.leaves, h], x)


def test_everything_is_machine_code_and_the_audit_agrees() -> None:
    net, h, x = Recurrent(4, 6, np.float32), random(3, 6, dtype=np.float32), random(5, 3, 4, grad=False)
    x = x.astype(cr.float32)
    for options in ({}, {"reverse": True}, {"checkpoint_every": 2}):
        compiled = cr.compile(learning(net, h, **options))
        report = compiled.report(x)
        assert report.native_share == 1.0 and report.host_operations == ()
        audit = compiled.audit(x)
        assert audit.ok and audit.undecided == 0, str(audit)
        assert audit.values > 15
        for leaf in (*net.leaves, h):
            leaf.grad = None


def test_the_audit_sees_a_wrong_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """One number of the body's machine code changed: the loop's results are not the interpreter's."""
    from chainrule.compiler import module

    plain = module.Stepping.text

    def wrong(self: Any) -> str:
        return re.sub(r"(%away\.\d+ = mul nsw i64) %t", r"\1 0", plain(self), count=1)

    monkeypatch.setattr(module.Stepping, "text", wrong)
    x = random(5, 3)
    compiled = cr.compile(lambda x: scan(lambda c, x: (c + x, c * x), cr.zeros(3, dtype=cr.float64), x))
    with cr.no_grad():
        audit = compiled.audit(x.detach())
    assert not audit.ok and any(one.operation == "part" for one in audit.differences)


def text_of(steps: int, learns: bool) -> str:
    net, h, x = Recurrent(6, 6, np.float32), random(3, 6, dtype=np.float32), random(steps, 3, 6, grad=False)
    alone = lambda h, x: (cr.tanh(x + h @ net.U.T), h * h)
    compiled = cr.compile(learning(net, h) if learns else lambda x: scan(alone, h, x))
    with contextlib.nullcontext() if learns else cr.no_grad():
        compiled(x.astype(cr.float32))
    return compiled.stages()["llvm"]


def test_the_code_does_not_grow_with_the_number_of_steps() -> None:
    numbers = [re.sub(r"cr_[0-9a-f]+|\b(16|4096)\b", "", text_of(steps, False)) for steps in (16, 4096)]
    assert numbers[0] == numbers[1], "the number of steps is an argument of the loop, and stands nowhere else"
    # What a gradient adds up after the loop is cut by its length, like every product and sum.
    assert len(text_of(4096, True)) < 1.5 * len(text_of(16, True))


def test_equal_nests_inside_and_outside_share_their_code() -> None:
    def step(x: cr.Tensor) -> Any:
        return cr.exp(x) * 2.0, scan(lambda c, _: (cr.exp(c) * 2.0, None), x, length=3)[0]

    compiled = cr.compile(step)
    compiled(random(100, grad=False))
    text = compiled.stages()["llvm"]
    calls = re.findall(r"call void @(cr_\w+)\(", text)
    assert any(calls.count(name) > 1 for name in set(calls)), (
        "the same function is called in the loop and before it"
    )


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_bits_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    net, h = Recurrent(64, 160, np.float32), random(48, 160, dtype=np.float32)
    x = random(3, 48, 64, grad=False).astype(cr.float32)
    before = cr.get_num_threads()
    found = []
    try:
        for count in (1, threads):
            cr.set_num_threads(count)
            for leaf in (*net.leaves, h):
                leaf.grad = None
            value = cr.compile(learning(net, h))(x)
            found.append(
                [value.numpy().tobytes(), *(leaf.grad.numpy().tobytes() for leaf in (*net.leaves, h))]
            )
    finally:
        cr.set_num_threads(before)
    assert found[0] == found[1]


# ------------------------------------------------------------------------------------------- forms of scans


def test_inference_computes_nothing_for_a_gradient() -> None:
    net, h, x = Recurrent(4, 6), random(3, 6), random(5, 3, 4, grad=False)

    def predict(x: cr.Tensor) -> Any:
        return scan(net, h, x)[0]

    compiled = cr.compile(predict)
    np.testing.assert_allclose(compiled(x).numpy(), scan(net, h, x)[0].detach().numpy(), rtol=1e-12)
    fused = compiled.stages()["fuse"]
    assert fused.count("part(") == 1, (
        "neither what a gradient would need nor the results of each step are kept"
    )


def test_carries_that_change_places_and_pass_through() -> None:
    w, init = random(2), (random(2, seed=1), random(2, seed=2), random(2, seed=3))

    def f(carry: Any, x: Any) -> Any:
        a, b, same = carry
        return (b, a, same), (x, w, a, x, same * w)

    def step(x: cr.Tensor) -> cr.Tensor:
        last, ys = scan(f, init, x)
        loss = sum((cr.sin(one) * (k + 1.0)).sum() for k, one in enumerate((*last, *ys)))
        loss.backward()
        return loss

    for steps in (0, 1, 2, 5):
        assert_same(step, [w, *init], random(steps, 2, grad=False))


def test_one_value_carried_twice_and_kept_twice() -> None:
    init = (random(3), random(3, seed=1))

    def f(carry: Any, x: Any) -> Any:
        h = cr.sin(carry[0] + carry[1] * x)
        return (h, h), (h, h, carry[0])

    def step(x: cr.Tensor) -> Any:
        (a, b), (p, q, r) = scan(f, init, x, reverse=True)
        loss = (a * b).sum() + (p * q * r).sum()
        loss.backward()
        return loss, p, q, r

    assert_same(step, list(init), random(4, 3, grad=False))


def test_a_carry_is_kept_where_it_is_read() -> None:
    """The old carry of each step, without a copy at each step."""
    w = random(3)

    def step(x: cr.Tensor) -> Any:
        with cr.no_grad():
            return scan(lambda c, x: (cr.sin(c * w + x), c), x[0], x)

    for steps in (1, 2, 5):
        x = random(steps, 3, grad=False)
        compiled = assert_same(step, [], x)
        assert "positive" not in compiled.stages()["lower"]


def test_several_scans_and_scans_inside_of_scans() -> None:
    first, second = Recurrent(2, 3), Recurrent(3, 2)
    h, k = random(2, 3), random(2, 2)
    w = random(3)

    def inner(c: Any, x: Any) -> Any:
        c = cr.tanh(c * w + x)
        return c, c

    def step(x: cr.Tensor) -> cr.Tensor:
        a, ys = scan(first, h, x)
        b, zs = scan(second, k, ys, reverse=True)
        deep, rows = scan(lambda c, block: scan(inner, c, block), w, ys)
        loss = (a * a).sum() + (b * b).sum() + cr.sin(zs).sum() + (deep * deep).sum() + cr.cos(rows).sum()
        loss.backward()
        return loss

    compiled = assert_same(step, [*first.leaves, *second.leaves, h, k, w], random(4, 2, 2, grad=False))
    assert compiled.report().native_share == 1.0


def test_a_training_step_with_an_optimizer() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(7, 4)
            self.head = nn.Linear(4, 1)

        def forward(self, x: cr.Tensor) -> cr.Tensor:
            def cell(h: Any, x: Any) -> Any:
                h = cr.tanh(self.cell(cr.concat([x, h], axis=1)))
                return h, None

            return self.head(scan(cell, cr.zeros((x.shape[1], 4)), x)[0])

    losses = []
    x, y = random(6, 5, 3, grad=False).astype(cr.float32), random(5, 1, grad=False).astype(cr.float32)
    for compiles in (True, False):
        cr.manual_seed(0)
        net = Net()
        adam = optim.Adam(net.parameters(), lr=0.05)

        def step(x: cr.Tensor, y: cr.Tensor, net: Any = net, adam: Any = adam) -> cr.Tensor:
            loss = cr.functional.mse_loss(net(x), y)
            loss.backward()
            adam.step()
            adam.zero_grad()
            return loss

        run = cr.compile(step) if compiles else step
        losses.append([run(x, y).item() for _ in range(20)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-4)
    assert losses[0][-1] < 0.5 * losses[0][0]


def test_tables_of_the_body_are_tables_of_the_step() -> None:
    table = np.arange(12.0).reshape(4, 3)

    def f(c: Any, x: Any) -> Any:
        return c + cr.take(cr.tensor(table), x, axis=0), c.sum()

    def step(x: cr.Tensor) -> Any:
        with cr.no_grad():
            return scan(f, cr.zeros(3, dtype=cr.float64), x)

    assert_same(step, [], cr.tensor([3, 0, -1, 2]))


def test_random_numbers_fall_anew_at_each_step() -> None:
    def step(x: cr.Tensor) -> cr.Tensor:
        return scan(lambda c, x: (c, dropout(x, 0.5)), cr.tensor(0.0), x)[1]

    x, found = cr.ones((4, 40)), []
    for run in (cr.compile(step), step):
        cr.manual_seed(5)
        found.append([run(x).tolist(), run(x).tolist(), cr.rand(2).tolist()])
    assert found[0] == found[1] and found[0][0] != found[0][1]


def test_running_statistics_are_committed() -> None:
    layers = [nn.BatchNorm1d(3) for _ in range(2)]
    x = random(4, 6, 3, grad=False).astype(cr.float32)
    for layer, wrap in zip(layers, (cr.compile, lambda f: f)):

        def step(x: cr.Tensor, layer: Any = layer) -> cr.Tensor:
            with cr.no_grad():
                return scan(lambda c, x: (c, layer(x)), cr.tensor(0.0), x)[1]

        run = wrap(step)
        run(x), run(x)
    for name, value in layers[0].state_dict().items():
        np.testing.assert_allclose(value.numpy(), layers[1].state_dict()[name].numpy(), rtol=1e-5)


# ------------------------------------------------------------------------------------------- checks


def test_an_index_outside_its_range_at_any_step_changes_nothing() -> None:
    table = random(4, 3)

    def step(x: cr.Tensor) -> cr.Tensor:
        loss = scan(lambda c, x: (c + cr.take(table, x, axis=0), None), cr.zeros(3, dtype=cr.float64), x)[
            0
        ].sum()
        loss.backward()
        return loss

    compiled = assert_same(step, [table], cr.tensor([3, 0, -4, 2]))
    with pytest.raises(BoundsError, match=r"take needs indices from -4 to 3; got 0 to 7"):
        compiled(cr.tensor([3, 0, 7, 2]))
    assert table.grad is None


def test_the_first_nan_is_named_with_its_step_and_line() -> None:
    w = cr.tensor([1.0, 2.0], dtype=cr.float64, requires_grad=True)

    def f(c: Any, x: Any) -> Any:
        c = c + cr.log(x) * w
        return c, c

    def step(x: cr.Tensor) -> cr.Tensor:
        loss = scan(f, cr.zeros(2, dtype=cr.float64), x)[1].sum()
        loss.backward()
        return loss

    compiled = cr.compile(step)
    good = random(6, 2, grad=False) ** 2.0 + 1.0
    compiled(good)
    w.grad = None
    bad = good.numpy()
    bad[3, 1] = -1.0
    with pytest.raises(
        NonFiniteError, match=r"log \(test_compiled_scan\.py:\d+\).*nan at \[1\].*x = -1.*step 3"
    ):
        compiled(cr.tensor(bad))


def test_a_value_that_is_not_finite_from_outside_is_not_blamed_on_the_loop() -> None:
    def step(x: cr.Tensor) -> cr.Tensor:
        w = x[0].sum() * 0.0 + 1.0
        loss = (scan(lambda c, x: (c + x * w, None), cr.zeros(2, dtype=cr.float64), x)[0] * parameter).sum()
        loss.backward()
        return loss

    parameter = random(2)
    compiled = cr.compile(step)
    bad = np.ones((3, 2))
    bad[1, 0] = np.inf
    with pytest.raises(NonFiniteError, match=r"The first comes from argument x: inf at \[1, 0\]"):
        compiled(cr.tensor(bad))


# ------------------------------------------------------------------------------------------- without loops


def test_what_has_no_loops_lets_numpy_run_the_whole_scan() -> None:
    w = random(3)

    def step(x: cr.Tensor) -> cr.Tensor:
        last, ys = scan(lambda c, x: (c + cr.sort(c * w + x), c), cr.zeros(3, dtype=cr.float64), x)
        loss = (last * ys).sum()
        loss.backward()
        return loss

    compiled = assert_same(step, [w], random(4, 3, grad=False))
    report = compiled.report()
    assert 0 < len(report.host_operations) <= 2 and all(
        one.startswith("scan ") for one in report.host_operations
    )


@pytest.mark.parametrize("skipped", ["simplify", "layout", "fuse", "commit", "merge", "arena", "threads"])
def test_every_pass_can_be_left_out(skipped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cr.config, "skip", frozenset({skipped}))
    net, h = Recurrent(2, 3), random(2, 3)
    assert_same(learning(net, h), [*net.leaves, h], random(4, 2, 2, grad=False))


def test_weights_are_turned_once_before_the_loop() -> None:
    net, h, x = Recurrent(4, 6), random(3, 6), random(5, 3, 4, grad=False)
    compiled = cr.compile(learning(net, h))
    compiled(x)
    lines = compiled.stages()["fuse"].splitlines()
    turned = [
        k for k, line in enumerate(lines) if "permute_dims(" in line and "operand of a loop over time" in line
    ]
    first = next(k for k, line in enumerate(lines) if " = scan(" in line)
    assert len(turned) == 1 and turned[0] < first, "the transpose of U, that the products of every step read"
    assert sum("matmul(" in line for line in lines[:first]) == 1, "and the product with all inputs"
    assert "loop over time" in lines[first]


def test_parts_of_a_value_are_written_one_after_the_other_without_choices() -> None:
    """Joined operands, and the gradients of gates that were cut out of one product."""
    a, b = random(4, 3, grad=False), random(4, 5, grad=False)
    compiled = cr.compile(lambda a, b: cr.concat([a * 2.0, b + 1.0], axis=1))
    np.testing.assert_array_equal(compiled(a, b).numpy(), np.concatenate([a.numpy() * 2, b.numpy() + 1], 1))
    assert "select" not in compiled.stages()["lower"]

    w = random(3, 8)

    def step(x: cr.Tensor) -> cr.Tensor:
        gates = x @ w
        loss = (gates[:, :2] * cr.sin(gates[:, 2:4]) + gates[:, 4:6] * gates[:, 6:]).sum()
        loss.backward()
        return loss

    assert_same(step, [w], random(5, 3, grad=False))


def test_without_llvm_the_interpreter_runs_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from chainrule import runtime

    monkeypatch.setattr(runtime.program, "available", lambda: False)
    net, h, table = Recurrent(2, 3), random(2, 3), random(4, 2)

    def step(x: cr.Tensor) -> cr.Tensor:
        loss = scan(lambda h, x: net(h, cr.take(table, x, axis=0)), h, x)[1].sum()
        loss.backward()
        return loss

    compiled = assert_same(step, [*net.leaves, h, table], cr.tensor([[0, 1], [3, 2], [1, 1]]))
    assert compiled.report().native_share == 0.0
    with pytest.raises(BoundsError, match="got 1 to 4"):
        compiled(cr.tensor([[3, 2], [4, 1], [1, 1]]))


def test_a_value_that_leaves_the_function_is_told_at_its_line() -> None:
    def step(x: cr.Tensor) -> cr.Tensor:
        kept: list[cr.Tensor] = []
        scan(lambda c, x: (c + x, kept.append(c * x)), cr.tensor(0.0), x)
        return kept[0] * 2.0

    with pytest.raises(
        TraceError, match=r"as that of scan, stays in it; got float32\[\] multiply.*test_compiled_scan"
    ):
        cr.compile(step)(cr.ones(3))
