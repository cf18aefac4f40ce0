"""`cr.compile(step, backend="jax")`: the same steps through XLA, with the same checks, reasons and errors."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.backends import jax_engine
from chainrule.iteration import scan
from chainrule.runtime.memory import aligned_like

pytestmark = pytest.mark.jax

F = cr.functional


@pytest.fixture(autouse=True)
def same_chance() -> Iterator[None]:
    cr.manual_seed(5)
    yield


def classifier(dtype: Any = cr.float64) -> nn.Module:
    cr.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.3), nn.Linear(9, 4))
    return model.to(dtype)


def regression(dtype: Any = cr.float64) -> nn.Module:
    cr.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 1))
    return model.to(dtype)


def batches(count: int, dtype: str = "float64", classes: int = 4) -> list[tuple[cr.Tensor, cr.Tensor]]:
    random = np.random.default_rng(1)
    return [
        (cr.tensor(random.normal(size=(8, 6)).astype(dtype)), cr.tensor(random.integers(0, classes, 8)))
        for _ in range(count)
    ]


def step_of(model: nn.Module, optimizer: Any) -> Callable[..., Any]:
    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def weights(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def assert_same(
    mine: dict[str, np.ndarray], theirs: dict[str, np.ndarray], tolerance: float, but: str = ""
) -> None:
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert value.dtype == theirs[name].dtype
        if name != but:
            np.testing.assert_allclose(value, theirs[name], rtol=tolerance, atol=tolerance, err_msg=name)


# ------------------------------------------------------------------------------------------ training steps

OPTIMIZERS = {
    "SGD": lambda model: optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True),
    "Adam": lambda model: optim.Adam(model.parameters(), lr=1e-2),
    "AdamW": lambda model: optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1, amsgrad=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_steps_equal_the_interpreters(name: str) -> None:
    losses, found = [], []
    for backend in (None, "jax"):
        model = classifier()
        step = step_of(model, OPTIMIZERS[name](model))
        if backend:
            step = cr.compile(step, backend=backend)
        cr.manual_seed(7)
        losses.append([step(x, y).item() for x, y in batches(20)])
        found.append(weights(model))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-12)
    assert step.recompiles == []
    # A bias before a BatchNorm has no gradient but rounding noise, which Adam takes for a direction.
    assert_same(found[1], found[0], 1e-9, but="0.bias")
    assert found[1]["1.num_batches_tracked"] == 20


def test_float32_stays_float32_and_needs_no_64_bits() -> None:
    import jax

    model = regression(cr.float32)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    x, y = cr.tensor(np.ones((5, 6), "float32")), cr.tensor(np.full((5, 1), 2.0, "float32"))

    @cr.compile(backend="jax")
    def step(x: Any, y: Any) -> Any:
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    before = step(x, y)
    for _ in range(10):
        after = step(x, y)
    assert before.dtype == after.dtype == cr.float32 and after.item() < before.item()
    assert not jax.config.jax_enable_x64
    predict = cr.compile(lambda x: model(x).detach(), backend="jax")
    assert predict(x).dtype == cr.float32 and not predict._last.executable.wide
    assert all(value.dtype == np.float32 for value in weights(model).values())


def test_64_bits_are_kept_where_there_are_some() -> None:
    import jax

    big = 2**40 + 1
    add = cr.compile(lambda x, n: (x + 1e-12, n + 1), backend="jax")
    x, n = add(cr.tensor([1.0], dtype=cr.float64), cr.tensor([big]))
    assert x.dtype == cr.float64 and x.item() == 1.0 + 1e-12
    assert n.dtype == cr.int64 and n.item() == big + 1
    assert not jax.config.jax_enable_x64 and jax.numpy.ones(1, "float32").dtype == "float32"


def test_a_scheduler_does_not_trace_again_and_the_rate_arrives() -> None:
    found = []
    for backend in (None, "jax"):
        model = regression()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)

        def step(x: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            loss = F.mse_loss(model(x), x[:, :1] * 2.0)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        run = cr.compile(step, backend=backend) if backend else step
        for x, _ in batches(6):
            run(x)
            scheduler.step()
        found.append(weights(model))
    assert run.recompiles == [] and len(run._programs) == 1
    assert_same(found[1], found[0], 1e-12)


def test_what_changes_around_it_is_told_and_traced_again() -> None:
    model = classifier()
    step = cr.compile(step_of(model, optim.SGD(model.parameters(), lr=0.1)), backend="jax")
    (x, y), *_ = batches(1)
    step(x, y)
    model.eval()
    step(x, y)
    assert len(step.recompiles) == 1 and "training: True → False" in step.recompiles[0]
    running = model.state_dict()["1.running_mean"].numpy()
    step(x, y)
    assert np.array_equal(model.state_dict()["1.running_mean"].numpy(), running)
    frozen = model[0].weight.numpy()
    model[0].weight.requires_grad = False
    step(x, y)
    assert len(step.recompiles) == 2 and "requires_grad" in step.recompiles[1]
    assert np.array_equal(model[0].weight.numpy(), frozen)
    model[0].weight.requires_grad = True
    model.train()
    step(x, y)
    assert len(step.recompiles) == 2, "the first program serves again"
    step(x[:3], y[:3])
    assert "float64[8, 6] → float64[3, 6]" in step.recompiles[2]


# ------------------------------------------------------------------------------------------ layers


def of_images() -> tuple[nn.Module, Any, Any]:
    random = np.random.default_rng(2)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.Flatten(), nn.Linear(24, 4),
    )  # fmt: skip
    return model, random.normal(size=(3, 2, 11, 11)), random.integers(0, 4, 3)


class Reader(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.read = getattr(nn, kind)(5, 6, batch_first=True)
        self.say = nn.Linear(6, 4)

    def forward(self, x: Any) -> Any:
        return self.say(self.read(self.embed(x))[0][:, -1])


def of_text(kind: str) -> tuple[nn.Module, Any, Any]:
    random = np.random.default_rng(2)
    return Reader(kind), random.integers(0, 7, (3, 5)), random.integers(0, 4, 3)


@pytest.mark.parametrize("case", ["images", "LSTM", "GRU"])
def test_layers_of_images_and_sequences(case: str) -> None:
    if case != "images" and not hasattr(nn, case):
        pytest.skip("there are no recurrent layers")
    losses, found = [], []
    for backend in (None, "jax"):
        cr.manual_seed(4)
        model, x, y = of_images() if case == "images" else of_text(case)
        model.to(cr.float64)
        step = step_of(model, optim.SGD(model.parameters(), lr=1e-2, momentum=0.9))
        if backend:
            step = cr.compile(step, backend=backend)
        losses.append([step(cr.tensor(x), cr.tensor(y)).item() for _ in range(5)])
        found.append(weights(model))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-12)
    assert_same(found[1], found[0], 1e-9)
    audit = step.audit(cr.tensor(x), cr.tensor(y))
    assert audit.ok and audit.values > 50, str(audit)


@pytest.mark.parametrize("case", [{}, {"reverse": True}, {"checkpoint_every": 2}], ids=str)
def test_scan_and_its_gradient(case: dict[str, Any]) -> None:
    random = np.random.default_rng(3)
    w = cr.tensor(random.normal(size=(3, 3)) / 2, requires_grad=True)

    def step(x: Any) -> Any:
        def one(h: Any, row: Any) -> Any:
            h = cr.tanh(row @ w + h)
            return h, h * 2.0

        last, every = scan(one, cr.zeros((2, 3), dtype=cr.float64), x, **case)
        loss = (last * every).sum()
        loss.backward()
        gradient = w.grad
        w.grad = None
        return loss, gradient, every.detach()

    x = cr.tensor(random.normal(size=(6, 2, 3)))
    compiled = cr.compile(step, backend="jax")
    for mine, theirs in zip(compiled(x), step(x)):
        np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=1e-12)
    assert "scan[" in compiled.stages()["jaxpr"], "one loop, however many steps"


def test_checkpointed_parts_and_rules_of_ones_own() -> None:
    w = cr.tensor([0.5, -0.25], dtype=cr.float64, requires_grad=True)

    @cr.custom_gradient
    def doubled(x: Any) -> Any:
        return x * 2.0, lambda g: g * 3.0

    def loss(x: Any) -> Any:
        return (cr.checkpoint(lambda a: cr.tanh(a * x))(w) + doubled(w)).sum().detach()

    def gradient(x: Any) -> Any:
        return cr.grad(lambda v: (cr.checkpoint(lambda a: cr.tanh(a * x))(v) + doubled(v)).sum())(w.detach())

    x = cr.tensor([1.5, 2.5], dtype=cr.float64)
    for function in (loss, gradient):
        np.testing.assert_allclose(
            cr.compile(function, backend="jax")(x).numpy(), function(x).numpy(), rtol=1e-14
        )


# ------------------------------------------------------------------------------------------ checks


def test_a_failed_check_changes_nothing_and_says_what_it_was() -> None:
    model = classifier()
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    step = cr.compile(step_of(model, optimizer), backend="jax")
    good = batches(6)
    for x, y in good[:2]:
        step(x, y)
    twin = classifier()
    twin.load_state_dict(model.state_dict())
    before = weights(model)
    bad = good[0][0].numpy()
    bad[3, 4] = np.nan
    with pytest.raises(cr.NonFiniteError, match=r"got nan.*argument x: nan at \[3, 4\].*Nothing was changed"):
        step(cr.tensor(bad), good[0][1])
    assert_same(weights(model), before, 0)
    with pytest.raises(
        cr.BoundsError, match=r"classes from 0 to 3; got 1 to 8.*Nothing was changed"
    ) as failure:
        step(good[0][0], cr.tensor([1, 2, 3, 8, 1, 1, 1, 1]))
    assert "test_jax.py" in str(failure.value) and isinstance(failure.value, IndexError)
    assert_same(weights(model), before, 0)
    # The step goes on as if nothing had been.
    optimizers, steps = [], []
    for one, state in ((model, optimizer.state_dict()), (twin, optimizer.state_dict())):
        fresh = optim.Adam(one.parameters(), lr=1e-2)
        fresh.load_state_dict(state)
        optimizers.append(fresh)
        steps.append(step_of(one, fresh))
    compiled = cr.compile(steps[0], backend="jax")
    for run in (compiled, steps[1]):
        cr.manual_seed(11)
        last = [run(x, y).item() for x, y in good[2:]]
    assert np.isfinite(last).all()
    assert_same(weights(model), weights(twin), 1e-9, but="0.bias")


def test_a_check_that_fails_at_the_first_call() -> None:
    table = cr.tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)

    @cr.compile(backend="jax")
    def step(i: Any) -> Any:
        loss = cr.take(table, i, axis=0).sum()
        loss.backward()
        with cr.no_grad():
            table.copy_(table - table.grad)
        table.grad = None
        return loss

    kept = table.numpy()
    with pytest.raises(cr.BoundsError, match="from -3 to 2; got 0 to 3"):
        step(cr.tensor([0, 3]))
    assert np.array_equal(table.numpy(), kept)
    assert step(cr.tensor([-1, 0])).item() == 10.0
    assert np.array_equal(table.numpy(), kept - [[1, 1], [0, 0], [1, 1]])


# ------------------------------------------------------------------------------------------ arrays


def held(tensor: cr.Tensor) -> Any:
    assert tensor.cell is not None
    return tensor.cell._array


def counter() -> tuple[cr.Tensor, Callable[[], Any]]:
    w = cr.tensor(np.zeros(4), requires_grad=True)

    @cr.compile(backend="jax")
    def step() -> Any:
        with cr.no_grad():
            w.copy_(w + 1.0)
        return w.sum()

    return w, step


def test_state_stays_on_the_device_and_is_used_up() -> None:
    import jax

    w, step = counter()
    step()
    first = held(w)
    assert isinstance(first, jax.Array)
    assert w.shape == (4,) and w.dtype == cr.float64, "asking for the type copies nothing"
    assert held(w) is first
    step()
    assert first.is_deleted() and held(w) is not first
    read = w.numpy()
    second = held(w)
    assert isinstance(second, jax.Array), "reading leaves it where it is"
    assert step._last._generations == [cell.generation for cell in step._last._typed]
    step()
    assert second.is_deleted()
    assert read.tolist() == [2.0] * 4 and w.numpy().tolist() == [3.0] * 4


def test_arrays_of_the_users_are_never_used_up() -> None:
    mine = np.arange(4.0)
    w = cr.asarray(mine)
    w.requires_grad = True
    view = w.detach()
    squared = w * w

    @cr.compile(backend="jax")
    def step(x: Any) -> Any:
        with cr.no_grad():
            w.copy_(w + x)
        return w.detach() * 1.0

    x = cr.tensor(np.ones(4))
    results = [step(x) for _ in range(3)]
    assert mine.tolist() == view.numpy().tolist() == [0.0, 1.0, 2.0, 3.0]
    assert [one.numpy()[0] for one in results] == [1.0, 2.0, 3.0] and x.numpy().tolist() == [1.0] * 4
    assert squared.detach().numpy().tolist() == [0.0, 1.0, 4.0, 9.0]
    squared.sum().backward()
    assert w.grad.numpy().tolist() == [0.0, 2.0, 4.0, 6.0], "a node keeps the array that it has read"


def test_what_is_written_to_two_cells_or_exchanged_is_kept_apart() -> None:
    a, b, c, d = (cr.tensor([float(k)], requires_grad=True) for k in (1, 2, 3, 4))

    @cr.compile(backend="jax")
    def step() -> Any:
        with cr.no_grad():
            first, second = a * 1.0, b + 10.0
            a.copy_(b + 0.0)
            b.copy_(first)
            c.copy_(second)
            d.copy_(second)
            return second, a.sum(), x, c

    x = cr.tensor([7.0])
    kept = [step() for _ in range(4)]
    assert [one.item() for one in (a, b, c, d)] == [1.0, 2.0, 11.0, 11.0]
    assert [(second.item(), given.item()) for second, _, given, _ in kept] == [
        (12.0, 7.0), (11.0, 7.0), (12.0, 7.0), (11.0, 7.0),
    ]  # fmt: skip
    assert len({held(one).unsafe_buffer_pointer() for one in (a, b, c, d)}) == 4


def test_engines_can_take_turns() -> None:
    found = []
    for order in (("eager",) * 6, ("jax", "eager", "native", "jax", "jax", "native")):
        model = regression()
        optimizer = optim.Adam(model.parameters(), lr=1e-2)

        def step(x: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            loss = F.mse_loss(model(x), x[:, :1])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        runs = {"eager": step, "native": cr.compile(step), "jax": cr.compile(step, backend="jax")}
        for engine, (x, _) in zip(order, batches(6)):
            runs[engine](x)
        found.append(weights(model))
    assert_same(found[1], found[0], 1e-12)


def test_what_is_uploaded_is_a_copy() -> None:
    (_, step), mine = counter(), aligned_like(np.zeros(1 << 12))
    step()
    there = step._last.executable.copy(mine)
    mine[...] = 5.0
    assert not np.asarray(there).any()


def test_a_model_that_is_only_read() -> None:
    model = regression()
    predict = cr.compile(lambda x: model(x).detach(), backend="jax")
    (x, _), *_ = batches(1)
    np.testing.assert_allclose(predict(x).numpy(), model(x).detach().numpy(), rtol=1e-13)
    arrays = [one.cell.array for one in model.parameters()]
    predict(x)
    assert all(one.cell.array is array for one, array in zip(model.parameters(), arrays))
    with cr.no_grad():
        model[0].bias.copy_(model[0].bias + 1.0)
    np.testing.assert_allclose(predict(x).numpy(), model(x).detach().numpy(), rtol=1e-13)


def test_gradients_that_are_kept_add_up() -> None:
    found = []
    for backend in (None, "jax"):
        model = regression()

        def step(x: Any, model: Any = model) -> Any:
            loss = F.mse_loss(model(x), x[:, :1])
            loss.backward()
            return loss

        run = cr.compile(step, backend=backend) if backend else step
        for x, _ in batches(3):
            run(x)
        found.append({name: one.grad.numpy() for name, one in model.named_parameters()})
    assert_same(found[1], found[0], 1e-12)
    assert [reason for reason in run.recompiles if "None → a gradient" in reason]


def test_arguments_and_results_nest_and_handles_follow() -> None:
    @cr.compile(backend="jax")
    def step(batch: dict[str, Any], scale: float) -> Any:
        batch["x"] += scale
        return {"sum": batch["x"].sum(), "both": (batch["x"], batch["y"])}, "text", 3

    x, y = cr.tensor([1.0, 2.0]), cr.tensor([5])
    found, text, number = step({"x": x, "y": y}, 2.0)
    assert found["sum"].item() == 7.0 and (text, number) == ("text", 3)
    assert x.numpy().tolist() == [3.0, 4.0] and found["both"][1].numpy().tolist() == [5]
    step({"x": x, "y": y}, 3.0)
    assert x.numpy().tolist() == [6.0, 7.0] and "scale" in step.recompiles[0]


def test_empty_arrays_and_empty_functions() -> None:
    assert cr.compile(lambda x: x.sum(), backend="jax")(cr.zeros((0, 3))).item() == 0.0
    assert cr.compile(lambda x: x * 2.0, backend="jax")(cr.zeros((2, 0))).shape == (2, 0)
    assert cr.compile(lambda: 5, backend="jax")() == 5
    same = cr.tensor([1.0])
    assert cr.compile(lambda x: x, backend="jax")(same).numpy().tolist() == [1.0]


def test_the_same_numbers_are_drawn() -> None:
    draw = cr.compile(lambda: (cr.rand(5), cr.randn(3)), backend="jax")
    cr.manual_seed(9)
    first = [one.numpy() for _ in range(2) for one in draw()]
    cr.manual_seed(9)
    for mine, theirs in zip(first, [one.numpy() for _ in range(2) for one in (cr.rand(5), cr.randn(3))]):
        np.testing.assert_allclose(mine, theirs, rtol=3e-6)
    assert not np.array_equal(first[0], first[2])


# ------------------------------------------------------------------------------------------ interruptions, threads


def test_an_interrupted_step_happens_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    w, step = counter()
    step()
    fetch, calls = jax_engine.Executable.fetch, []

    def interrupted(arrays: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return fetch(arrays)

    monkeypatch.setattr(jax_engine.Executable, "fetch", staticmethod(interrupted))
    with pytest.raises(KeyboardInterrupt):
        step()
    assert w.numpy().tolist() == [2.0] * 4
    step()
    assert w.numpy().tolist() == [3.0] * 4


def test_an_interrupted_first_call_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a program is made, Python runs: what comes between may lose the results, so copies are used up."""
    w, step = counter()
    step()
    run = jax_engine.Executable.run

    def lost(self: Any, given: Any, kept: Any, donated: Any, results: Any) -> None:
        run(self, given, kept, donated, [])
        raise KeyboardInterrupt

    monkeypatch.setattr(jax_engine.Executable, "run", lost)

    @cr.compile(backend="jax")
    def doubled() -> None:
        with cr.no_grad():
            w.copy_(w * 2.0)

    with pytest.raises(KeyboardInterrupt):
        doubled()
    monkeypatch.undo()
    assert w.numpy().tolist() == [1.0] * 4
    doubled()
    assert w.numpy().tolist() == [2.0] * 4


def test_programs_and_what_they_hold_go_away() -> None:
    w, step = counter()
    step()
    program, array = weakref.ref(step._last), weakref.ref(held(w))
    step()
    assert array() is None or array().is_deleted()
    del w, step
    gc.collect()
    assert program() is None


def test_a_device_that_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    w, step = counter()
    step()
    executable = step._last.executable
    whole = executable._function

    def refuses(*arguments: Any) -> Any:
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand more")

    executable._function = refuses
    with pytest.raises(cr.CompileError, match=r"got RESOURCE_EXHAUSTED: out of memory\. Nothing was changed"):
        step()
    assert w.numpy().tolist() == [1.0] * 4
    executable._function = whole
    step()

    def breaks(given: Any, kept: Any, donated: Any) -> Any:
        for one in donated:
            one.delete()
        refuses()

    executable._function = breaks
    with pytest.raises(cr.CompileError, match="The state is lost: load a checkpoint"):
        step()


def test_two_threads_make_whole_steps() -> None:
    w, step = counter()
    step()
    failures: list[BaseException] = []

    def many() -> None:
        try:
            for _ in range(50):
                step()
                assert len(set(w.numpy().tolist())) == 1
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=many) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not failures and w.numpy().tolist() == [101.0] * 4


def test_what_one_thread_reads_another_does_not_use_up() -> None:
    w, step = counter()
    step()
    total = cr.compile(lambda: w.detach() * 1.0, backend="jax")
    total()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(300):
                assert len(set(total().numpy().tolist())) == 1
        except BaseException as failure:
            failures.append(failure)

    reader = threading.Thread(target=read)
    reader.start()
    while reader.is_alive():
        step()
    reader.join()
    assert not failures


# ------------------------------------------------------------------------------------------ looking inside


def test_stages_and_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = regression()
    step = cr.compile(lambda x: model(x).sum(), backend="jax")
    with pytest.raises(cr.ArgumentError, match="has not been compiled yet"):
        step.stages()
    (x, _), *_ = batches(1)
    step(x)
    stages = step.stages()
    assert list(stages) == ["trace", "simplify", "jaxpr", "stablehlo", "hlo"]
    assert "dot_general" in stages["jaxpr"] and "stablehlo.dot_general" in stages["stablehlo"]
    assert stages["hlo"].startswith("HloModule") and "matmul(" in stages["trace"]
    monkeypatch.setattr(cr.config, "dump", frozenset({"simplify", "jaxpr"}))
    step(x[:2])
    told = capsys.readouterr().err
    assert told.startswith("--- simplify\ngraph") and "--- jaxpr\n{ lambda" in told and "hlo" not in told
    for report in (step.report(), step.report(x)):
        assert report.engine.startswith("JAX on ") and report.seconds > 0 and report.nests[0].flops > 0
        assert report.programs == 2 and "given to XLA" in str(report)
    assert {value.operation.partition("(")[0] for value in report.values} >= {"matmul", "tanh", "sum"}


def test_the_audit_agrees_and_changes_nothing() -> None:
    model = classifier()
    step = cr.compile(step_of(model, optim.SGD(model.parameters(), lr=1e-2)), backend="jax")
    for x, y in batches(3):
        step(x, y)
    before = weights(model)
    audit = step.audit(x, y)
    assert audit.ok and audit.values > 80 and audit.elements > 1000, str(audit)
    assert audit.undecided < audit.elements / 10
    assert_same(weights(model), before, 0)
    refused = step.audit(x, cr.tensor([9] * 8))
    assert refused.ok and "classes from 0 to 3" in refused.failed[0]


@pytest.mark.parametrize("name", ["tanh", "matmul", "add_up"])
def test_the_audit_finds_a_wrong_operation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    xp = jax_engine.namespace()
    right = getattr(xp, name)
    monkeypatch.setitem(vars(xp), name, lambda *args, **rest: right(*args, **rest) * (1 + 1e-9))
    model = regression()
    step = cr.compile(lambda x: model(x).sum(), backend="jax")
    (x, _), *_ = batches(1)
    audit = step.audit(x)
    operation = {"tanh": "tanh", "matmul": "matmul", "add_up": "sum"}[name]
    assert not audit.ok and operation in {one.operation for one in audit.differences}
    assert audit.differences[0].operation == operation and "JAX has" in str(audit)


# ------------------------------------------------------------------------------------------ choosing it


def test_names_of_backends() -> None:
    with pytest.raises(cr.ArgumentError, match="backend must be 'native' or 'jax'; got 'torch'"):
        cr.compile(lambda x: x, backend="torch")
    with pytest.raises(cr.ArgumentError, match="needs a function; got int"):
        cr.compile(3, backend="jax")
    once = cr.compile(lambda x: x + 1.0, backend="jax")
    assert cr.compile(once) is once and cr.compile(once, backend="jax") is once
    native = cr.compile(once, backend="native")
    assert native is not once and native.backend == "native" and native.function is once.function


def test_the_configuration_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cr.config, "backend", "jax")
    assert cr.compile(lambda x: x).backend == "jax"
    assert cr.compile(lambda x: x, backend="native").backend == "native"
    monkeypatch.setattr(cr.config, "compile", False)
    step = cr.compile(lambda x: x * 2.0)
    assert step(cr.tensor([2.0])).item() == 4.0 and not step._programs


def test_fit_by_jax() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(70, 6))
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    losses = []
    for backend, choice in (("native", False), ("jax", "auto")):
        model = classifier()
        cr.manual_seed(2)
        run = cr.fit(
            model, (x, y), epochs=3, batch_size=16, metrics=["accuracy"], progress=False,
            optimizer=optim.Adam(model.parameters(), lr=1e-2), compile=choice, backend=backend,
        )  # fmt: skip
        losses.append(
            [(one["loss"], one["validation_loss"], one["validation_accuracy"]) for one in run.history]
        )
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-11)
    assert run.compiled.backend == "jax" and run.why_python is None
    assert run.predict(x[:3]).shape == (3,)
    with pytest.raises(cr.ArgumentError, match="backend must be"):
        cr.fit(model, (x, y), backend="tpu", progress=False)


def test_fit_by_jax_goes_on_from_a_checkpoint(tmp_path: Any) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 6)), random.integers(0, 4, 40)

    def train(folder: Any, epochs: int, resume: bool, backend: str = "jax") -> Any:
        cr.manual_seed(2)
        model = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.2)).to(cr.float64)
        optimizer = optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
        cr.fit(model, (x, y), epochs=epochs, batch_size=10, progress=False, optimizer=optimizer, folder=folder,
               resume=resume, backend=backend)  # fmt: skip
        return weights(model)

    whole = train(tmp_path / "whole", 4, False)
    train(tmp_path / "parts", 2, False)
    parts = train(tmp_path / "parts", 4, True)
    assert_same(parts, whole, 0)


FORKED = """
import os, sys, warnings
warnings.simplefilter("ignore")
import chainrule as cr
if sys.argv[1] == "imported":
    import jax
w = cr.tensor([1.0, 2.0], requires_grad=True)

@cr.compile(backend="jax")
def step(x):
    loss = (w * x).sum()
    loss.backward()
    with cr.no_grad():
        w.copy_(w - 0.1 * w.grad)
    w.grad = None
    return loss

if sys.argv[1] == "started":
    step(cr.ones(2))
child = os.fork()
if not child:
    for act in (lambda: step(cr.ones(2)), lambda: cr.compile(lambda x: x + 1, backend="jax")(cr.ones(2))):
        try:
            print("ran", act().tolist(), flush=True)
        except cr.CompileError as failure:
            print(failure, flush=True)
    print(w.detach().tolist(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(step(cr.ones(2)).tolist())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("before", ["started", "imported", "nothing"])
def test_a_forked_child_is_told_that_jax_does_not_run_there(before: str, tmp_path: Path) -> None:
    script = tmp_path / "forked.py"
    script.write_text(FORKED)
    ran = subprocess.run(
        [sys.executable, str(script), before], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    first, second, third, fourth = ran.stdout.splitlines()
    if before == "started":
        for line in (first, second):
            assert (
                "forked after JAX had started" in line
                and "get_context('spawn')" in line
                and "forked.py" in line
            )
        assert third == "[0.8999999761581421, 1.899999976158142]" and fourth.startswith("2.79")
    else:  # JAX has no threads yet, so it starts anew on both sides
        assert first == "ran 3.0" and second == "ran [2.0, 2.0]" and fourth == "3.0"
