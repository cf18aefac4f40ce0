"""The audit of compiled steps: correct code passes, wrong code is found and blamed, and nothing is changed by it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import compiler, nn, ops, optim
from chainrule import functional as F
from chainrule.compiler import Compilation, Loops, compile_graph
from chainrule.compiler import loops as ir
from chainrule.compiler.module import emit
from chainrule.config import config
from chainrule.graph import Node
from chainrule.operations import INPUT, Type
from chainrule.ops.lowering import HOST, Scalar
from chainrule.rewrite import remake
from chainrule.runtime import audit as auditing
from chainrule.runtime import compile
from chainrule.runtime.audit import Difference, audit_sources, compare
from chainrule.runtime.bounds import Bounded, Evaluator, disagreements, exact
from op_samples import SAMPLES
from plant_faults import STEPS, prepare
from random_programs import Program

FOLDER = Path(__file__).parent


def learner(
    dtype: str = "float32", batch: int = 24, width: int = 11
) -> tuple[Any, Any, tuple[cr.Tensor, ...]]:
    """(model, compiled step, arguments): batch norm, dropout, cross entropy, Adam."""
    cr.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(13, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 5)
    )
    model = model.to(getattr(cr, dtype))
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    @compile
    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    maker = np.random.default_rng(0)
    return (
        model,
        step,
        (cr.tensor(maker.normal(size=(batch, 13)).astype(dtype)), cr.tensor(maker.integers(0, 5, batch))),
    )


# ---------------------------------------------------------------------------------- correct code passes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_correct_step_passes_and_nothing_is_changed(dtype: str) -> None:
    model, step, arguments = learner(dtype)
    _, twin, _ = learner(dtype)
    for number in range(3):
        before = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
        found = step.audit(*arguments)
        assert found.ok, str(found)
        assert found.values > 30 and found.elements > 1000 and found.undecided == 0 and not found.failed
        assert "all agree" in str(found) and "\n" not in str(found)
        assert {name: value.numpy().tobytes() for name, value in model.state_dict().items()} == before
        assert all(one.grad is None for one in model.parameters())
        losses = []
        for one in (step, twin):
            cr.manual_seed(number)  # both drop the same elements
            losses.append(one(*arguments).numpy().tobytes())
        assert losses[0] == losses[1], f"step {number}"
    assert len(step._programs) == 1


@pytest.mark.parametrize("name", STEPS)
def test_steps_of_every_kind_of_nest_pass(name: str) -> None:
    step, arguments = STEPS[name]()
    found = compile(step).audit(*arguments)
    assert found.ok, str(found)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_steps_whose_work_is_shared_among_threads_pass(threads: int) -> None:
    before = cr.get_num_threads()
    cr.set_num_threads(threads)
    try:
        _, step, arguments = learner(batch=256, width=300)
        found = step.audit(*arguments)
        assert step._last is None and step._programs[0].compilation.emitted.shares
    finally:
        cr.set_num_threads(before)
    assert found.ok, str(found)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_programs_pass(seed: int, dtype: str) -> None:
    program = Program(seed, dtype)
    w = cr.tensor(program.w, requires_grad=True)
    found = compile(lambda x: program(w, x)).audit(cr.tensor(program.x))
    assert found.ok, str(found)


def test_a_step_with_a_call_of_numpy_passes() -> None:
    @compile
    def step(x: Any) -> Any:
        order = cr.argsort(x * 2.0)
        return cr.take(cr.exp(x), order, axis=0) + 1.0

    found = step.audit(cr.tensor([0.5, -1.0, 2.0]))
    assert found.ok, str(found)
    assert found.values >= 2


def test_a_refused_call_is_told() -> None:
    _, step, (x, y) = learner()
    bad = x.numpy().copy()
    bad[3, 1] = np.nan
    found = step.audit(cr.tensor(bad), y)
    assert found.ok, str(found)
    assert any("a loss must be finite" in one and "test_audit.py" in one for one in found.failed)
    assert "this call would be refused" in str(found)
    outside = step.audit(x, cr.tensor(np.full(24, 7)))
    assert outside.ok and outside.undecided and any("needs indices" in one for one in outside.failed)


def test_a_check_of_what_has_no_elements_passes() -> None:
    w = cr.tensor(np.zeros((3, 0), "float32"), requires_grad=True)

    def step(x: Any) -> Any:
        loss = cr.sum(w) + cr.sum(cr.exp(x))
        loss.backward()
        return loss

    compiled = compile(step)
    compiled(cr.tensor([0.5]))
    found = compiled.audit(cr.tensor([0.5]))  # adds the gradient to the one of the call before
    assert found.ok and found.values >= 2, str(found)


def test_what_a_loop_stacks_before_each_step_is_compared() -> None:
    """A state that is stored as it came in must be what the step before has made of the one that is stored there."""
    f = compile(lambda x: cr.scan(lambda c, one: (c + one, c), cr.zeros((), dtype=cr.float64), x))
    (node,) = [one for one in f.graph(np.ones(3)).nodes() if one.operation.name == "scan"]
    operands = [exact(np.ones(3) if one.shape else np.zeros(())) for one in node.inputs]
    wanted = Evaluator().steps(node, operands, {1: np.array([0.0, 5.0, 2.0])})
    assert wanted[1].value.tolist() == [0.0, 1.0, 6.0]
    assert wanted[0].value.item() == 3.0


def test_without_machine_code_there_is_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "available", lambda: False)
    found = compile(lambda x: cr.exp(x).sum()).audit(cr.tensor([1.0]))
    assert not found.native and found.values == 0 and "nothing to compare" in str(found)


# ---------------------------------------------------------------------------------- wrong code is found


def the_difference(found: Any, kind: str) -> Difference:
    assert not found.ok
    assert [one.kind for one in found.differences] == [kind], str(found)
    only: Difference = found.differences[0]
    return only


def test_planted_faults_are_found_and_blamed() -> None:
    """One fault of each of ten kinds, in processes of their own; all with `python tests/plant_faults.py`."""
    command = [
        sys.executable,
        str(FOLDER / "plant_faults.py"),
        "--faults",
        "10",
        "--flips",
        "0",
        "--step",
        "reader",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 faults of 10 kinds have changed a result" in done.stdout


def test_a_wrong_loop_body_is_blamed_even_inside_another_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ops.tanh.lowering
    monkeypatch.setattr(
        ops.tanh, "lowering", Scalar(lambda b, x: b.multiply(right.emit(b, x), b.constant(1.01)))
    )
    found = compile(lambda x: cr.exp(cr.tanh(x) * 0.5) + x).audit(cr.tensor([0.5, 1.0, -2.0]))
    only = the_difference(found, "value")
    assert only.operation == "tanh" and only.line.startswith("test_audit.py")
    assert only.name == "tanh float32[3]" and only.wrong == 3
    assert "is wrong by itself, and computed inside add float32[3]" in str(only)
    assert "1 does not agree" in str(found)


def test_values_that_share_memory_too_early_are_found() -> None:
    prepared = prepare("reader")
    compilation = prepared.compilation
    assert compilation.loops.nests  # which gives every value its place
    arena = [one for one in compilation.plan.buffers.values() if one.place == "arena" and one.bytes > 300]
    first, second = next(
        (one, other) for one in arena for other in arena
        if one.first < other.first < one.last and other.offset != one.offset
    )  # fmt: skip
    second.offset = first.offset
    compilation.known = compilation.name = None
    vars(compilation)["_written"] = (
        compilation.loops, emit(compilation.loops, compilation.plan, compilation.registers)
    )  # fmt: skip
    found = audit_sources(compilation, prepared.sources)
    assert "memory" in {one.kind for one in found.differences}
    blamed = next(one for one in found.differences if one.kind == "memory")
    assert compilation.plan.buffers[blamed.node] is first and "was overwritten before" in str(blamed)


def test_a_pass_that_changes_what_is_computed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any) -> Any:
        (result,) = graph.outputs
        graph.outputs = (remake(result, (result.inputs[1], result.inputs[0])),)
        return graph

    monkeypatch.setattr(compiler, "layout", broken)
    only = the_difference(compile(lambda x, y: x - y).audit(cr.tensor([1.0]), cr.tensor([3.0])), "graph")
    assert only.operation == "subtract" and (only.got, only.expected) == (2.0, -2.0)


def test_a_step_that_differs_from_its_watched_nests_is_found() -> None:
    x, y = np.array([1.0, 2.0]), np.array([4.0, 6.0])
    one, other = (compiled_graph(f, x, y) for f in (lambda a, b: a - b, lambda a, b: b - a))
    stepped = one.one_by_one()
    parts, _ = compiler.native(stepped.text, stepped.entry, ())
    only = the_difference(compare(one, [x, y], other.native()[0], parts), "build")
    assert only.index == (1,) and (only.got, only.expected) == (4.0, -4.0)


def compiled_graph(function: Any, *arrays: np.ndarray) -> Compilation:
    step = compile(function)
    return compile_graph(step.graph(*map(cr.tensor, arrays)))


# ---------------------------------------------------------------------------------- the bounds


def rounding_cases() -> list[Any]:
    found = []
    for name, sample in SAMPLES.items():
        operation = next(one for one in ops.primitives() if one.name == name)
        if operation.lowering is HOST:
            continue
        found += [pytest.param(operation, case, id=f"{name}-{k}") for k, case in enumerate(sample.cases)]
    return found


@pytest.mark.parametrize(("operation", "case"), rounding_cases())
def test_every_operation_in_float32_stays_within_its_bound(operation: Any, case: Any) -> None:
    """What NumPy computes in float32 from operands with errors is inside what is computed in float64 with bounds."""
    maker = np.random.default_rng(0)
    narrow, wide = [], []
    for one in case.operands:
        array = np.asarray(one)
        if array.dtype.kind != "f":
            narrow.append(array)
            wide.append(exact(array))
            continue
        value = array.astype("float32")
        error = 1e-5 * maker.random(value.shape)
        narrow.append((value + error * maker.uniform(-1, 1, value.shape)).astype("float32"))
        wide.append(Bounded(value.astype("float64"), error + 1e-7 * np.abs(value)))
    inputs = tuple(Node(INPUT, type=(Type(one.shape, one.dtype),)) for one in narrow)
    attributes = {
        k: np.dtype("float32") if v == np.dtype("float64") else v for k, v in case.attributes.items()
    }
    types = operation.types(*(one.type for one in inputs), **attributes)
    node = Node(operation, inputs, attributes, type=types)
    with ops.quiet():
        got = np.asarray(operation.body(ops.NUMPY, *narrow, **attributes))
        wanted = Evaluator().node(node, wide)
    differs, _, _ = disagreements(got, wanted, node.dtype)
    assert not differs.any(), (got[differs], wanted.value[differs])


def bounded(function: Any, *operands: Bounded) -> Bounded:
    inputs = tuple(Node(INPUT, type=(Type(one.value.shape, np.dtype("float32")),)) for one in operands)
    node = Node(function, inputs, type=function.types(*(one.type for one in inputs)))
    return Evaluator().node(node, list(operands))


def test_a_comparison_near_a_tie_may_fall_either_way() -> None:
    x = Bounded(np.array([1.0, 2.0]), np.array([1e-6, 1e-6]))
    answer = bounded(ops.less, x, exact(np.array([1.0000005, 1.5])))
    assert (
        answer.value.tolist() == [True, False]
        and answer.error is not None
        and answer.error.tolist() == [1.0, 0.0]
    )


def test_what_is_exact_has_no_bound() -> None:
    x = exact(np.array([0.5, -2.0], "float32"))
    assert bounded(ops.relu, x).error is None
    assert bounded(ops.multiply, x, x).error is None
    assert bounded(ops.add, x, exact(np.array([1e-9, 1e-9]))).error is not None


def test_nothing_is_said_where_rounding_leads_to_infinity() -> None:
    x = Bounded(np.array([1e-9, 1.0]), np.array([1e-8, 1e-8]))
    with np.errstate(all="ignore"):
        found = bounded(ops.log, x)
    assert found.error is not None and np.isinf(found.error[0]) and found.error[1] < 1e-6


# ---------------------------------------------------------------------------------- the sentinel


def work(loops: Loops) -> float:
    """Numbers computed, counted along the loops; a product that answers a check computes three more for an element."""

    def of(body: list[Any]) -> float:
        total = 0.0
        for one in body:
            if isinstance(one, ir.For):
                total += one.variable.extent * of(one.body)
            elif isinstance(one, ir.Contraction):
                elements = one.rows.extent * one.columns.extent * np.prod([v.extent for v in one.batch])
                inner = np.prod([v.extent for v in one.inner])
                total += elements * (2 * inner + 3 * (one.finite is not None))
            elif isinstance(one, ir.Value):
                total += one.opcode != "constant"
            else:
                total += 1
        return total

    return sum(of(nest.body) for nest in loops.nests)


def test_the_checks_of_loss_and_gradients_cost_two_percent_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    for checked in (True, False):
        monkeypatch.setattr(config, "check_finite", checked)
        cr.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        optimizer = optim.Adam(model.parameters(), lr=0.01)

        @compile
        def step(x: Any, y: Any) -> Any:
            loss = F.cross_entropy(model(x), y)  # noqa: B023
            loss.backward()
            optimizer.step()  # noqa: B023
            optimizer.zero_grad()  # noqa: B023
            return loss

        step(cr.rand(32, 64), cr.randint(0, 10, (32,)))
        assert step._last is not None
        graph = step._last.compilation
        assert len(graph.laid_out.checks) == (7 if checked else 2)
        counted.append(work(graph.loops))
    assert counted[1] < counted[0] <= 1.02 * counted[1]
