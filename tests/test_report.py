"""What a compiled step tells about itself, and operations that NumPy computes between native segments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim, runtime
from chainrule.compiler.work import work_of
from chainrule.config import config
from chainrule.errors import ArgumentError, CompileError, NonFiniteError


def learner(extra: nn.Module | None = None) -> tuple[nn.Module, Any]:
    """A small model and its compiled step."""
    cr.manual_seed(0)
    layers = [nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.25), nn.Linear(16, 3)]
    model = nn.Sequential(*layers, *([extra] if extra is not None else []))
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    @cr.compile
    def step(x: Any, y: Any) -> cr.Tensor:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return model, step


def batch(rows: int = 32) -> tuple[cr.Tensor, cr.Tensor]:
    random = np.random.default_rng(1)
    return cr.tensor(random.normal(size=(rows, 8)).astype("float32")), cr.tensor(random.integers(0, 3, rows))


def state_of(model: nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for value in model.state_dict().values())


# ------------------------------------------------------------------------------------- the report


def test_a_report_names_every_value_and_changes_nothing() -> None:
    x, y = batch()
    twin_model, twin = learner()
    twin(x, y)
    wanted = twin(x, y).item(), cr.rand(3).tolist()
    model, step = learner()
    step(x, y)
    before = state_of(model)
    report = step.report(x, y)
    again = step.report()
    assert state_of(model) == before
    assert report.measured_on == "arguments" and again.measured_on == "stand-ins"
    assert (step(x, y).item(), cr.rand(3).tolist()) == wanted, "a report must not use up random numbers"
    assert state_of(model) == state_of(twin_model)
    decisions = step._last.compilation.fusion.decisions
    assert len(report.values) == len(decisions)
    assert {one.became for one in report.values} == {"stored", "inlined"}
    assert all(one.reason and one.type for one in report.values)
    assert {"the result of a product", "returned", "operand of a product"} <= {
        one.reason for one in report.values
    }
    assert any(one.line.startswith("test_report.py:") for one in report.values)


def test_numbers_of_a_report() -> None:
    _, step = learner()
    x, y = batch()
    step(x, y)
    report = step.report(x, y)
    assert report.native_share == 1.0 and not report.host_operations and report.engine == "machine code"
    assert sum(one.share for one in report.nests) == pytest.approx(1.0)
    assert report.seconds == pytest.approx(sum(one.seconds for one in report.nests))
    assert len(report.nests) == len(step._last.compilation.loops.nests)
    product = next(
        one for one in report.nests if one.title.split(" = ")[1].startswith("matmul float32[32, 16]")
    )
    assert product.flops == 2 * 32 * 8 * 16
    assert product.bytes_read == 4 * (32 * 8 + 8 * 16) and product.bytes_written == 4 * 32 * 16
    assert report.arena == step._last.compilation.plan.arena < report.arena_without_sharing
    assert any(one.commit for one in report.nests) and not report.nests[0].commit


def test_work_is_counted_from_the_loops() -> None:
    step = cr.compile(lambda x: (x * 2.0 + 1.0).sum(axis=1))
    step(cr.ones((4, 5)))
    (nest,) = step._last.compilation.loops.nests
    assert work_of(nest) == (60, 80, 16)
    outer = cr.compile(lambda x, y: x[:, None] * y[None, :])
    outer(cr.ones(70), cr.ones(80))
    (nest,) = outer._last.compilation.loops.nests
    assert work_of(nest) == (5600, 4 * 150, 4 * 5600)


def test_a_report_prints_and_is_data() -> None:
    _, step = learner()
    step(*batch())
    step(*batch(16))
    report = step.report()
    text = str(report)
    for part in (
        "step: machine code", "native share  1", "computed by NumPy: none", "without sharing", "after the checks",
        "argument x: float32[32, 8] → float32[16, 8]", "operand of a product", "test_report.py:",
    ):  # fmt: skip
        assert part in text, part
    assert max(map(len, text.splitlines())) < 260
    data = json.loads(json.dumps(report.to_dict()))
    assert data["recompiles"] == step.recompiles and data["programs"] == 2
    assert set(data["nests"][0]) == {
        "title", "host", "commit", "flops", "bytes_read", "bytes_written", "seconds", "share",
    }  # fmt: skip


def test_stages_print_as_one_text_and_the_graph_can_be_asked_for() -> None:
    _, step = learner()
    x, y = batch()
    before = step.graph(x, y)
    with pytest.raises(ArgumentError, match="has not been compiled yet"):
        step.stages()
    step(x, y)
    stages = step.stages()
    assert list(stages) == ["trace", "simplify", "layout", "fuse", "lower", "plan", "llvm"]
    assert str(stages).startswith("--- trace\ngraph step(") and "\n--- llvm\n" in str(stages)
    assert type(stages.to_dict()) is dict
    assert str(step.graph()).count("\n") == str(before).count("\n") and "write 0.weight.array" in str(
        step.graph()
    )


def test_a_report_before_the_first_call() -> None:
    model, step = learner()
    before = state_of(model)
    assert step.report(*batch()).native_share == 1.0
    assert state_of(model) == before
    assert cr.compile(lambda: cr.ones(3) * 2.0).report().programs == 1


def test_a_report_of_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.program, "available", lambda: False)
    _, step = learner()
    step(*batch())
    report = step.report()
    assert report.engine == "interpreter" and report.native_share == 0.0 and report.seconds is None
    assert "interpreter" in str(report) and report.nests[0].seconds is None


# ------------------------------------------------------------------------------------- calls of NumPy


class Trimmed(nn.Module):
    """Sorted features times their place: something without loops in the middle of a model."""

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        return cr.sort(x, axis=1) * cr.arange(x.shape[1], dtype=cr.float32)


def test_numpy_is_called_between_native_segments() -> None:
    def build(dtype: str) -> tuple[cr.Tensor, Any]:
        w = cr.tensor(np.linspace(-1, 2, 6).astype(dtype), requires_grad=True)

        def step(x: cr.Tensor, n: cr.Tensor) -> Any:
            ordered = cr.sort(x * w, axis=1)
            loss = (ordered * cr.arange(6, dtype=x.dtype)).sum()
            loss.backward()
            with cr.no_grad():
                w.copy_(w - 0.01 * w.grad)
            w.grad = None
            return loss, n**n, cr.argsort(cr.exp(ordered), axis=0, descending=True)

        return w, step

    for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-13)):
        (fast, compiled), (slow, eager) = build(dtype), build(dtype)
        step = cr.compile(compiled)
        x = cr.tensor(np.random.default_rng(0).normal(size=(4, 6)).astype(dtype))
        n = cr.tensor([3, 0, 2])
        for _ in range(3):
            got, wanted = step(x, n), eager(x, n)
            assert got[0].item() == pytest.approx(wanted[0].item(), abs=tolerance)
            assert got[1].tolist() == wanted[1].tolist() == [27, 1, 4] and got[1].dtype == n.dtype
            assert got[2].tolist() == wanted[2].tolist()
            np.testing.assert_allclose(fast.detach().numpy(), slow.detach().numpy(), atol=tolerance)
        report = step.report(x, n)
        names = [one.split("(")[0].strip() for one in report.host_operations]
        assert names == ["argsort int64[4, 6]", "pow int64[3]", "argsort int64[4, 6]"]
        assert all("(test_report.py:" in one for one in report.host_operations)
        assert 0.0 < report.native_share < 1.0
        hosts = [one for one in report.values if one.became == "host"]
        assert hosts[0].reason == f"no loops for argsort of {dtype}: NumPy computes it"
        assert sum(one.host for one in report.nests) == 3 and "NumPy" in str(report)
        assert step._last.compilation.emitted.segments == 4


def test_a_model_with_a_call_of_numpy_learns_like_eager() -> None:
    (_, step), (twin, _) = learner(Trimmed()), learner(Trimmed())
    optimizer = optim.Adam(twin.parameters(), lr=0.01)
    x, y = batch()
    cr.manual_seed(3)
    fast = [step(x, y).item() for _ in range(5)]
    cr.manual_seed(3)
    slow = []
    for _ in range(5):
        loss = F.cross_entropy(twin(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        slow.append(loss.item())
    assert fast == pytest.approx(slow, abs=1e-4)
    assert "argsort" in step.report().host_operations[0]


def test_values_that_numpy_needs_or_makes_in_every_place() -> None:
    table = np.array([3.0, 1.0, 2.0], "float32")
    order = cr.tensor(np.zeros(3, "int64"))
    held = nn.Module()
    held.register_buffer("order", order)

    @cr.compile
    def step(x: cr.Tensor, unused: cr.Tensor) -> Any:
        first = cr.argsort(x)  # of an input, a result
        held.order.copy_(cr.argsort(cr.tensor(table) + x))  # written to a cell
        return first, cr.argsort(first), cr.argsort(cr.broadcast_to(x[:1], (2, 1)), axis=0), cr.argsort(x[:0])

    x = cr.tensor([0.5, -1.0, 7.0])
    first, second, third, empty = step(x, x)
    assert first.tolist() == [1, 0, 2] and second.tolist() == [1, 0, 2]
    assert third.tolist() == [[0], [1]] and empty.shape == (0,)
    assert held.order.tolist() == [1, 0, 2]
    assert step(-x, x)[0].tolist() == [2, 0, 1] and held.order.tolist() == [2, 1, 0]


def test_a_step_with_a_call_of_numpy_is_a_transaction() -> None:
    w = cr.tensor([1.0, 2.0], requires_grad=True)

    @cr.compile
    def step(x: cr.Tensor) -> cr.Tensor:
        loss = cr.sort(w * x).sum()
        loss.backward()
        with cr.no_grad():
            w.copy_(w - w.grad)
        w.grad = None
        return loss

    x = cr.tensor([1.0, 1.0])
    step(x)
    before = w.tolist()
    with pytest.raises(NonFiniteError, match="Nothing was changed"):
        step(cr.tensor([np.inf, 1.0]))
    (host,) = step._last._function._hosts
    works = host.call

    def fails(_: Any) -> Any:
        raise ArgumentError("argsort is out of order; got two. Try again")

    host.call = fails
    with pytest.raises(
        ArgumentError, match=r"^argsort .*again. Nothing was changed by this step \(test_report.py:\d+\)$"
    ):
        step(x)
    host.call = works
    assert w.tolist() == before and w.grad is None
    step(x)
    assert w.tolist() != before


def test_the_interpreter_can_be_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "forbid_interpreter", True)
    _, step = learner()
    step(*batch())
    assert step.report().native_share == 1.0
    with pytest.raises(
        CompileError, match=r"cannot turn argsort of float32\[3\] .*FORBID_INTERPRETER.*test_report"
    ):
        cr.compile(cr.sort)(cr.ones(3))
    monkeypatch.setattr(runtime.program, "available", lambda: False)
    with pytest.raises(CompileError, match="needs llvmlite"):
        cr.compile(lambda x: x * 2.0)(cr.ones(3))


def test_everything_works_where_llvmlite_is_missing() -> None:
    program = """
import sys
sys.modules["llvmlite"] = None
import chainrule as cr
from chainrule import nn, optim, functional as F
cr.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))
optimizer = optim.Adam(model.parameters(), lr=0.05)
@cr.compile
def step(x, y):
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss
cr.set_num_threads(4)
x = cr.randn(64, 4)
y = cr.astype(x[:, 0] > 0, cr.int64)
first, last = step(x, y).item(), [step(x, y).item() for _ in range(60)][-1]
assert last < 0.7 * first, (first, last)
report = step.report()
assert report.engine == "interpreter" and "define i32" in step.stages()["llvm"]
model.eval()
assert step(x, y).item() < first and len(step.recompiles) == 1
print(cr.get_num_threads(), str(report).splitlines()[0])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4 step: interpreter, 1 thread\n"
    assert done.stderr.count("llvmlite is not installed") == 1 and done.stderr.count("\n") == 1


def test_the_environment_forbids_the_interpreter() -> None:
    program = (
        "import chainrule as cr\n"
        "try:\n    cr.compile(cr.sort)(cr.ones(3))\nexcept cr.CompileError as error:\n    print(error)"
    )
    for value, said in (("1", "cr.compile cannot turn argsort"), ("0", "")):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True,
            env={**os.environ, "CHAINRULE_FORBID_INTERPRETER": value},
        )  # fmt: skip
        assert done.stdout.startswith(said) and bool(done.stdout) == bool(said)
