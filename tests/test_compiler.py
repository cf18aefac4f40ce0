"""Graph → machine code: every stage written down, every lowered operation compared with the interpreter."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, ops, optim
from chainrule.compiler import PASSES, STAGES, Buffer, compile_graph
from chainrule.compiler import loops as ir
from chainrule.compiler.fuse import verify as verify_fusion
from chainrule.compiler.indices import Index, Variable, offset
from chainrule.compiler.plan import ALIGNMENT
from chainrule.compiler.plan import verify as verify_plan
from chainrule.compiler.product import Registers
from chainrule.compiler.simplify import simplify
from chainrule.config import config
from chainrule.errors import CompileError, GraphError
from chainrule.graph import Graph, Names, Node, evaluate, state
from chainrule.operations import CONSTANT, INPUT, Type
from chainrule.ops.lowering import HOST, Scalar
from chainrule.runtime import Compiled, compile
from chainrule.tensor import wrap
from chainrule.trace import Tracing
from op_samples import SAMPLES, Case
from random_programs import check

GOLDEN = Path(__file__).parent / "golden"
FLOATS = ("float32", "float64")


def needs(*passes: str) -> Any:
    """A test of what a pass does: it has no meaning where CHAINRULE_SKIP switches that pass off."""
    return pytest.mark.skipif(bool(config.skip & set(passes)), reason="the pass is switched off")


def graph_of(function: Any, *arrays: np.ndarray) -> Graph:
    """A graph of nodes: what the function does to inputs of the arrays' types."""
    outer, state.trace = state.trace, Tracing()
    try:
        inputs = tuple(Node(INPUT, type=(Type(a.shape, a.dtype),)) for a in arrays)
        result = function(*inputs)
    finally:
        state.trace = outer
    return Graph("test", inputs, result if isinstance(result, tuple) else (result,))


def run_both(function: Any, *arrays: np.ndarray) -> tuple[list[Any], list[Any]]:
    """Results of a function of tensors: from machine code, and from the interpreter on the traced graph."""
    step: Compiled[Any, Any] = compile(function)
    result = step(*(cr.tensor(a) for a in arrays))
    outputs = [one.numpy() for one in (result if isinstance(result, tuple) else (result,))]
    graph = step.graph()
    reads = [cell.array for cell, _ in graph.reads]
    with ops.quiet():
        wanted = evaluate(graph, [*arrays, *reads], ops.NUMPY)[: len(outputs)]
    return outputs, [np.asarray(one) for one in wanted]


def assert_agree(function: Any, *arrays: np.ndarray, units: float = 8.0) -> None:
    """Equal to the interpreter up to `units` in the last place, NaN and infinities at the same places."""
    for got, wanted in zip(*run_both(function, *arrays)):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        if got.dtype.kind == "f":
            rounding = units * float(np.finfo(got.dtype).eps)
            scale = float(np.max(np.abs(wanted[np.isfinite(wanted)]), initial=0.0))
            np.testing.assert_allclose(got, wanted, rtol=rounding, atol=rounding * min(scale, 1.0))
        else:
            np.testing.assert_array_equal(got, wanted)


# ---------------------------------------------------------------------------------- the stages, written down


def golden_program() -> Any:
    specification = importlib.util.spec_from_file_location("program", GOLDEN / "program.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stages() -> dict[str, str]:
    step = compile(golden_program().program)
    graph = step.graph(np.array([[1.0, -2.0, 3.0], [0.0, 0.5, -1.0]], "float32"), np.array([0, 1]))
    # The same registers on every machine, so that the text is the same.
    return compile_graph(graph, Registers(32, 16)).stages


@needs(*PASSES)
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_prints_what_is_written_down(stage: str, stages: dict[str, str]) -> None:
    """CHAINRULE_UPDATE_GOLDEN=1 writes the files anew; read the difference before you keep it."""
    file = GOLDEN / f"{stage}.txt"
    text = "\n".join(line.rstrip() for line in stages[stage].splitlines()) + "\n"
    if os.environ.get("CHAINRULE_UPDATE_GOLDEN") == "1":
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@needs("fuse")
def test_a_dumped_stage_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(config, "dump", frozenset({"fuse"}))
    compile(lambda x: cr.exp(x).sum())(cr.tensor([1.0]))
    printed = capsys.readouterr().err
    assert printed.startswith("--- fuse") and "read in one place" in printed
    assert "--- lower" not in printed


# ---------------------------------------------------------------------------------- operation by operation


def lowered(operation: ops.Op, case: Case) -> bool:
    form = operation.lowering
    kinds = {np.asarray(one).dtype.kind for one in case.operands}
    return form is not HOST and not (isinstance(form, Scalar) and form.only and not kinds <= set(form.only))


def in_float32(case: Case) -> Case:
    return Case(
        tuple(a.astype("float32") if a.dtype.kind == "f" else a for a in case.operands), case.attributes
    )


CASES = [
    (operation, Case(tuple(np.asarray(a) for a in case.operands), case.attributes))
    for operation in ops.primitives()
    if operation.name in SAMPLES
    for case in (*SAMPLES[operation.name].cases, *SAMPLES[operation.name].integer_cases)
    if lowered(operation, case)
]


def test_every_operation_but_sorting_and_searching_has_loops() -> None:
    """`call` and `custom` are written out by simplify."""
    without = {op.name for op in ops.primitives() if op.lowering is HOST}
    assert without == {"argsort", "searchsorted", "call", "custom"}


@pytest.mark.parametrize("name", sorted({operation.name for operation, _ in CASES}))
def test_compiled_operations_equal_the_interpreter(name: str) -> None:
    cases = [(op, case) for op, case in CASES if op.name == name]
    cases += [
        (op, in_float32(case)) for op, case in cases if any(a.dtype == "float64" for a in case.operands)
    ]

    def all_cases(*tensors: cr.Tensor) -> tuple[cr.Tensor, ...]:
        given = iter(tensors)
        return tuple(
            wrap(op.node(tuple(next(given).node for _ in case.operands), case.attributes))
            for op, case in cases
        )

    assert_agree(all_cases, *(a for _, case in cases for a in case.operands), units=32)


SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 1e-30, 3e38, -3e38, np.inf, -np.inf, np.nan])
FLOAT_OPERATIONS = [
    op for op in ops.primitives()
    if isinstance(op.lowering, Scalar)
    and ((isinstance(op, ops.Elementwise) and op.accepts != "bits") or op.name == "absorb")
]  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", FLOAT_OPERATIONS, ids=lambda op: op.name)
def test_special_numbers(op: ops.Op, dtype: str) -> None:
    """NaN, infinities and zeros of both signs, in every combination."""
    values = SPECIAL.astype(dtype)
    operands = (
        [values] if len(op.operand_names) == 1 else [a.reshape(-1) for a in np.meshgrid(values, values)]
    )
    got, wanted = run_both(lambda *x: wrap(op.node(tuple(one.node for one in x), {})), *operands)
    np.testing.assert_allclose(got[0], wanted[0], rtol=32 * np.finfo(dtype).eps)
    # Which zero is the larger one is left open, by NumPy too.
    if wanted[0].dtype.kind == "f" and op.name not in ("maximum", "minimum"):
        there = ~np.isnan(wanted[0])
        np.testing.assert_array_equal(np.signbit(got[0])[there], np.signbit(wanted[0])[there])


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint64"])
@pytest.mark.parametrize("name", [
    "add", "subtract", "multiply", "negative", "square", "abs", "relu", "maximum", "minimum", "less", "greater_equal",
    "equal", "sign", "absorb",
])  # fmt: skip
def test_integers_wrap_and_compare_as_in_numpy(name: str, dtype: str) -> None:
    op = next(op for op in ops.primitives() if op.name == name)
    limits = np.iinfo(dtype)
    values = np.array(sorted({limits.min, limits.min + 1, 0, 1, 3, limits.max - 1, limits.max}), dtype)
    operands = (
        [values] if len(op.operand_names) == 1 else [a.reshape(-1) for a in np.meshgrid(values, values)]
    )
    assert_agree(lambda *x: wrap(op.node(tuple(one.node for one in x), {})), *operands)


TYPES = ["bool", "int8", "int32", "int64", "uint8", "uint32", "uint64", "float32", "float64"]


@pytest.mark.parametrize("source", TYPES)
def test_casts(source: str) -> None:
    """From every type to every other, with numbers that do not fit."""
    kind = np.dtype(source).kind
    if kind == "f":
        values = np.array(
            [
                0.0,
                -0.0,
                0.9,
                -0.9,
                1.5,
                -1.5,
                127.5,
                300.0,
                -300.0,
                1e10,
                -1e10,
                1e30,
                np.inf,
                -np.inf,
                np.nan,
            ]
        )
    elif kind == "b":
        values = np.array([True, False])
    else:
        values = np.array([np.iinfo(source).min, 0, 1, 100, np.iinfo(source).max], source)

    def all_types(x: cr.Tensor) -> tuple[cr.Tensor, ...]:
        return tuple(wrap(ops.cast.node((x.node,), {"dtype": np.dtype(target)})) for target in TYPES)

    assert_agree(all_types, values.astype(source))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("rows", "common", "columns"),
    [(1, 1, 1), (2, 3, 5), (7, 1, 13), (1, 17, 1), (0, 3, 2), (2, 0, 3), (31, 37, 29)],
)
def test_products(rows: int, common: int, columns: int, dtype: str) -> None:
    """Both operands as they are, transposed, and from an expression."""
    random = np.random.default_rng(0)
    x, y = (
        random.normal(size=(rows, common)).astype(dtype),
        random.normal(size=(common, columns)).astype(dtype),
    )

    def products(x: Any, y: Any, xt: Any, yt: Any) -> Any:
        return x @ y, xt.T @ y, x @ yt.T, xt.T @ yt.T, cr.relu(x) @ (y * 2.0)

    assert_agree(products, x, y, x.T.copy(), y.T.copy(), units=64)


@pytest.mark.parametrize("dtype", FLOATS)
def test_batched_products_and_broadcast_operands(dtype: str) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(3, 2, 5)).astype(dtype), random.normal(size=(5, 4)).astype(dtype)
    assert_agree(lambda x, y: (x @ y, cr.ones((2, 2), dtype=dtype) @ x), x, y, units=64)


def test_a_long_sum_of_float32_does_not_stop_growing() -> None:
    ones = np.ones(20_000_000, "float32")
    assert compile(lambda x: x.sum())(cr.tensor(ones)).item() == 20_000_000
    column = np.ones((70_000, 2), "float32") * np.float32(0.1)
    np.testing.assert_allclose(compile(lambda x: x.sum(axis=0))(column).numpy(), 7000.0, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "uint64", "float32"])
def test_reductions_start_from_what_nothing_is_beyond(dtype: str) -> None:
    high = np.array([[True, True]]) if dtype == "bool" else np.array([[200, 250]]).astype(dtype)
    low = ~high if dtype == "bool" else (-high if dtype == "float32" else high)
    both = lambda x, y: tuple(
        wrap(op.node((one.node,), {"axes": (1,), "keepdims": True}))
        for one in (x, y)
        for op in (ops.reduce_max, ops.reduce_min)
    )
    assert_agree(both, high, low)


@needs("fuse")
def test_views_cost_nothing_and_are_right() -> None:
    x = np.arange(2 * 3 * 5 * 7, dtype="float32").reshape(2, 3, 5, 7)

    def views(x: cr.Tensor) -> tuple[cr.Tensor, ...]:
        y = cr.permute_dims(x, (2, 0, 3, 1))
        return (
            cr.reshape(y, (10, 21)) + 1.0, cr.reshape(y, (-1,))[3::4] * 2.0, cr.flip(x, axis=1)[..., 1:6:2] - 1.0,
            cr.reshape(cr.reshape(x, (6, 35)), (2, 105)) + 0.5, x[1, :, 2, None] * cr.ones((4, 3, 1, 7)),
            cr.concat([x[:, :2], x, x[:, :1]], axis=1) * 3.0, cr.reshape(x, (30, 7)).sum(axis=0),
        )  # fmt: skip

    assert_agree(views, x)
    program = compile(views)
    program(x)
    flat = program.stages()["lower"].split("nest 3:")[1].split("nest 4:")[0]
    assert (
        "for i in 210" in flat and "//" not in flat and "%" not in flat.replace("%1", "").replace("%", "", 1)
    )


def test_around_what_is_empty_there_may_be_something() -> None:
    """Computed inside another nest, an empty value has no element at all that it could give."""
    random = np.random.default_rng(0)
    arrays = random.normal(size=(3, 0)), random.normal(size=(0, 4)), random.normal(size=(3, 2))

    def around(x: Any, y: Any, z: Any) -> Any:
        nothing = cr.concat([x, cr.tanh(x)], axis=1) * 2.0
        return (
            cr.sum(cr.pad(nothing, ((1, 0), (2, 1))), axis=0), cr.concat([nothing, z, cr.exp(nothing)], axis=1) + 1.0,
            cr.pad(cr.concat([y, y], axis=0)[:, 1:], ((0, 2), (0, 0))) - 1.0,
        )  # fmt: skip

    assert_agree(around, *arrays)


def test_a_position_from_memory_that_chooses_between_parts_moves_with_its_loop() -> None:
    """Which part of the concatenation is taken is a number read from memory: the loop that asks is not joined."""
    x = np.random.default_rng(0).normal(size=5)

    def chosen(x: Any, tokens: Any) -> Any:
        rows = [cr.broadcast_to(x * 2.0, (1, 5)), cr.broadcast_to(x - 1.0, (1, 5))]
        return cr.tanh(x), cr.take(cr.concat(rows, axis=0), tokens, axis=0)[0] + x

    assert_agree(chosen, x, np.array([1]))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("seed", range(10))
def test_random_programs(seed: int, dtype: str) -> None:
    check(seed, dtype)


# ---------------------------------------------------------------------------------- simplify


def only(graph: Graph) -> list[str]:
    """Names of the operations that are left."""
    return [node.operation.name for node in simplify(graph).nodes() if node.inputs]


X = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("function", "left"),
    [
        (lambda x: x * 1.0, []),
        (lambda x: 1.0 * x, []),
        (lambda x: x / 1.0, []),
        (lambda x: x - 0.0, []),
        (lambda x: x + 0.0, ["add"]),  # −0 + 0 is 0
        (lambda x: x - (-0.0), ["subtract"]),
        (lambda x: x * 0.0, ["multiply"]),  # NaN · 0 is NaN
        (lambda x: ops.permute_dims(ops.permute_dims(x, axes=(1, 0)), axes=(1, 0)), []),
        (lambda x: ops.reshape(ops.reshape(x, shape=(6,)), shape=(2, 3)), []),
        (lambda x: ops.reshape(ops.reshape(x, shape=(6,)), shape=(3, 2)), ["reshape"]),
        (lambda x: ops.cast(ops.cast(x, dtype=np.dtype("float64")), dtype=np.dtype("float64")), []),
        (lambda x: ops.exp(x) + ops.exp(x), ["exp", "add"]),
        (lambda x: ops.stop_gradient(ops.positive(x)), []),
    ],
)  # fmt: skip
def test_simplify_keeps_every_bit(function: Any, left: list[str]) -> None:
    assert only(graph_of(function, X)) == left


@pytest.mark.parametrize(
    ("number", "left"),
    [(2.0, "multiply"), (-1e-300, "multiply"), (0.0, "absorb"), (np.inf, "absorb"), (np.nan, "absorb")],
)
def test_absorb_becomes_a_product_only_beside_a_finite_number_other_than_0(number: float, left: str) -> None:
    assert only(graph_of(lambda x: ops.absorb.on_nodes((x, number), {}), X)) == [left]
    assert only(graph_of(lambda x: ops.absorb(x, x), X)) == ["absorb"]
    spread = lambda x: ops.absorb(
        x, ops.broadcast_to.symbolic((Node(CONSTANT, value=np.asarray(number)),), {"shape": (2, 3)})
    )
    assert only(graph_of(spread, X))[-1] == left


def test_casts_merge_only_where_nothing_is_lost() -> None:
    through = lambda first, second: (
        lambda x: ops.cast(ops.cast(x, dtype=np.dtype(first)), dtype=np.dtype(second))
    )
    narrow, small = np.zeros(3, "float32"), np.zeros(3, "int8")
    assert only(graph_of(through("float64", "float32"), narrow)) == []
    assert only(graph_of(through("float32", "float64"), np.zeros(3))) == ["cast", "cast"]
    assert only(graph_of(through("int32", "int64"), small)) == ["cast"]
    assert only(graph_of(through("uint8", "int64"), small)) == ["cast", "cast"]


def test_constants_are_folded_but_broadcasts_of_them_stay_small() -> None:
    folded = simplify(graph_of(lambda x: x * ops.exp(Node(CONSTANT, value=np.asarray(1.0))), X))
    assert [node.operation.name for node in folded.nodes() if node.inputs] == ["multiply"]
    large = lambda x: (
        x + ops.broadcast_to.symbolic((Node(CONSTANT, value=np.asarray(1.0)),), {"shape": (100, 100)})
    )
    assert only(graph_of(large, np.zeros((100, 100)))) == ["broadcast_to", "add"]


# ---------------------------------------------------------------------------------- fuse, plan


def decisions_of(function: Any, *arrays: np.ndarray) -> dict[str, tuple[bool, str]]:
    fusion = compile_graph(graph_of(function, *arrays)).fusion
    return {node.operation.name: (made.stored, made.reason) for node, made in fusion.decisions.items()}


@needs("fuse")
def test_every_decision_has_its_reason() -> None:
    made = decisions_of(lambda x: ops.sum_(ops.exp(x) * 2.0, axes=(0,), keepdims=False), X)
    assert made["exp"] == (False, "read in one place")
    assert made["sum"] == (True, "returned")
    made = decisions_of(
        lambda x: (
            ops.sum_(e := ops.exp(x), axes=(0,), keepdims=False),
            ops.sum_(e, axes=(1,), keepdims=False),
        ),
        X,
    )
    assert made["exp"] == (True, "costly and needed 2 times")
    made = decisions_of(
        lambda x: (ops.sum_(e := x + 1.0, axes=(0,), keepdims=False), ops.sum_(e, axes=(1,), keepdims=False)),
        X,
    )
    assert made["add"] == (False, "cheap, computed again in 2 places")
    made = decisions_of(lambda x: ops.matmul(x + 1.0, ops.permute_dims(ops.negative(x), axes=(1, 0))), X)
    assert made["add"] == made["negative"] == (True, "operand of a product")
    assert made["permute_dims"] == (False, "only reads elsewhere")


@needs("fuse")
def test_a_costly_value_behind_a_broadcast_is_stored() -> None:
    row = np.zeros((1, 3))
    made = decisions_of(lambda x: ops.broadcast_to(ops.exp(x) + 1.0, shape=(7, 3)) * 2.0, row)
    assert made["exp"] == (True, "costly and needed 7 times")
    assert made["add"][0] is False


@needs("fuse")
def test_what_a_maximum_and_its_shift_read_is_stored_once() -> None:
    def shifted(x: Any) -> Any:
        y = x * 3.0
        return y - ops.broadcast_to(ops.reduce_max(y, axes=(1,), keepdims=True), shape=(2, 3))

    assert decisions_of(shifted, X)["multiply"] == (
        True,
        "read by a selection and by others: all must see the same bits",
    )


@needs("fuse")
def test_long_chains_are_cut_and_deep_ones_need_no_recursion() -> None:
    def chain(x: Any) -> Any:
        for _ in range(3000):
            x = ops.negative(x)
        return x

    compilation = compile_graph(graph_of(chain, X))
    reasons = {made.reason for made in compilation.fusion.decisions.values()}
    assert any("nests stay small" in reason for reason in reasons)
    got, wanted = run_both(lambda x: wrap(chain(x.node)), np.ones((2, 3)))
    np.testing.assert_array_equal(got, wanted)


def test_fusion_verifier_refuses_a_read_before_the_store() -> None:
    fusion = compile_graph(graph_of(lambda x: ops.matmul(ops.matmul(x, x), x), np.zeros((2, 2)))).fusion
    fusion.groups.reverse()
    with pytest.raises(GraphError, match="before it is stored"):
        verify_fusion(fusion)


def test_the_arena_is_shared_and_never_overlaps() -> None:
    def chain(x: Any) -> Any:
        for _ in range(10):
            x = ops.matmul(x, x)
        return x

    plan = compile_graph(graph_of(chain, np.zeros((8, 8)))).plan
    in_arena = [one for one in plan.buffers.values() if one.place == "arena"]
    assert len(in_arena) == 9 and plan.arena == 2 * 8 * 8 * 8
    assert all(one.offset % ALIGNMENT == 0 for one in in_arena)
    in_arena[1].offset = in_arena[0].offset
    with pytest.raises(GraphError, match="share bytes"):
        verify_plan(plan)


# ---------------------------------------------------------------------------------- loops and positions


def test_an_index_that_leaves_its_buffer_is_refused() -> None:
    loops = compile_graph(graph_of(lambda x: x + 1.0, X)).loops
    store = next(s for s in ir.walk(loops.nests[0].body) if isinstance(s, ir.Store))
    store.index = store.index + 1
    with pytest.raises(GraphError, match=r"reaches from 1 to 6 of 6 elements"):
        ir.verify(loops)
    store.index = store.index - 1
    store.buffer = Buffer("other", Type((2, 3), np.dtype("float32")), "result")
    with pytest.raises(GraphError, match="float64 stored in other"):
        ir.verify(loops)


def test_positions_cancel_their_divisions() -> None:
    v = Index.of(Variable("v", 250))
    position = [v // 50, v // 10 % 5, v % 10]
    assert str(position[1]) == "((v // 10) % 5)"
    assert offset(position, (5, 5, 10)) == v
    i, j = Index.of(Variable("i", 4)), Index.of(Variable("j", 6))
    assert (i * 6 + j) // 6 == i and (i * 6 + j) % 6 == j
    assert (i * 6 + j + 12) // 6 == i + 2
    assert str((i * 6 + j) % 4) == "((6*i + j) % 4)" or "% 4" in str((i * 6 + j) % 4)


def test_values_of_positions_are_those_of_integers() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        variables = [Variable(name, int(random.integers(1, 9))) for name in "ijk"]
        at = {v: int(random.integers(0, v.extent)) for v in variables}
        index, value = Index(0), 0
        for _ in range(8):
            v, c = variables[int(random.integers(3))], int(random.integers(1, 13))
            way = int(random.integers(5))
            if way == 0:
                index, value = index + Index.of(v) * c, value + at[v] * c
            elif way == 1:
                index, value = index * c + Index.of(v), value * c + at[v]
            elif way == 4:
                index, value = index.high - index, index.high - value
            elif way == 2:
                index, value = index // c, value // c
            else:
                index, value = index % c + 3, value % c + 3
        result = index.substitute({v: Index(x) for v, x in at.items()})
        assert not result.terms and result.constant == value
        assert index.low <= value <= index.high


def test_names_of_the_graph_are_those_of_later_stages() -> None:
    compilation = compile_graph(graph_of(lambda x: ops.exp(x) + 1.0, X))
    names = Names()
    assert names[compilation.simplified.inputs[0]] == "%1"
    assert "%3[i] = v" in str(compilation.loops) or "%3[" in str(compilation.loops)


# ---------------------------------------------------------------------------------- LLVM


def test_generated_code_keeps_ieee_and_its_own_symbols(stages: dict[str, str]) -> None:
    text = stages["llvm"]
    for forbidden in ("inttoptr", "ptrtoint", " fast ", "nnan", "ninf", " nsz ", "arcp", "afn"):
        assert forbidden not in text
    defined = [line.split("@")[1].split("(")[0] for line in text.splitlines() if line.startswith("define")]
    assert defined and all(name.startswith("cr_") for name in defined)
    for line in text.splitlines():
        assert "reassoc" not in line or "fadd" in line


def test_equal_nests_are_written_once() -> None:
    compilation = compile_graph(graph_of(lambda x, y: (ops.exp(x), ops.exp(y)), X, X))
    assert len(compilation.loops.nests) == 2
    assert compilation.emitted.text.count("define internal") == 1
    assert compilation.emitted.text.count("call void @cr_") == 2


def test_equal_modules_are_compiled_once() -> None:
    first, second = (compile_graph(graph_of(lambda x: ops.exp(x) * 7.0, X)) for _ in range(2))
    one, made = first.native()
    two, again = second.native()
    assert one is two and made and not again


# ---------------------------------------------------------------------------------- what has no loops


def test_an_operation_without_loops_is_named_with_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "forbid_interpreter", True)

    def ordered(x: cr.Tensor) -> cr.Tensor:
        return cr.sort(x * 2.0)

    with pytest.raises(
        CompileError, match=r"cannot turn argsort of float32\[3\] .* \(test_compiler.py:\d+\)"
    ):
        compile(ordered)(cr.tensor([3.0, 1.0, 2.0]))
    with pytest.raises(CompileError, match=r"cannot turn pow of int64\[2\], int64\[2\]"):
        compile(lambda x: x**x)(cr.tensor([3, 1]))


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint64", "float32", "float64"])
def test_division_never_traps_and_is_numpys(dtype: str) -> None:
    """By 0, and the lowest number by −1, where the processor's own division stops the process."""
    if np.dtype(dtype).kind == "f":
        values = np.array([0.0, -0.0, 1.0, -1.0, 0.3, -7.5, 1e20, np.inf, -np.inf, np.nan], dtype)
    else:
        limits = np.iinfo(dtype)
        values = np.array(
            sorted({limits.min, limits.min + 1, max(limits.min, -7), 0, 1, 3, limits.max}), dtype
        )
        if limits.min < 0:
            values = np.append(values, np.array([-1], dtype))
    x, y = (a.reshape(-1) for a in np.meshgrid(values, values))
    assert_agree(lambda x, y: (x // y, x % y), x, y)


@pytest.mark.parametrize("dtype", FLOATS)
def test_positions_of_extremes(dtype: str) -> None:
    """The first of equals; the first NaN before all."""
    x = np.array([[1, 3, 3], [np.nan, 5, np.nan], [2, np.nan, 9], [-np.inf, -np.inf, -np.inf]], dtype)
    assert_agree(
        lambda x: (cr.argmax(x, axis=1), cr.argmin(x, axis=1), cr.argmax(x, axis=0), cr.argmin(x)), x
    )


def test_checks_of_a_graph_are_part_of_it() -> None:
    step = compile(lambda x, i: F.mse_loss(cr.take(x, i, axis=0), cr.ones(2)))
    assert step(cr.tensor([1.0, 2.0, 3.0]), cr.tensor([0, 2])).item() == 2.0
    assert len(step.graph().checks) == 1
    assert dataclasses.is_dataclass(step.graph().checks[0])


# ------------------------------------------------------------------------------------------- other processors


def _small_step() -> Any:
    """Graph of a small training step, and numbers for what it reads."""
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 40), nn.Tanh(), nn.LayerNorm(40), nn.Linear(40, 5))
    optimizer = optim.Adam(model.parameters())

    @compile
    def step(x: Any, y: Any) -> Any:
        loss = cr.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step.graph(cr.randn(16, 24), cr.randint(0, 5, (16,)))


@pytest.mark.parametrize(
    ("triple", "processor", "registers", "word"),
    [
        ("x86_64-unknown-linux-gnu", "x86-64-v2", Registers(16, 16), "mulps"),
        ("x86_64-unknown-linux-gnu", "x86-64-v3", Registers(32, 16), "vfmadd"),
        ("x86_64-unknown-linux-gnu", "x86-64-v4", Registers(64, 32), "%zmm"),
        ("aarch64-unknown-linux-gnu", "cortex-a76", Registers(16, 32), "fmla"),
    ],
    ids=["SSE", "AVX2", "AVX-512", "NEON"],
)
def test_the_same_code_for_other_processors(
    triple: str, processor: str, registers: Registers, word: str
) -> None:
    """What is printed for their vectors is taken by LLVM and becomes their instructions."""
    binding = pytest.importorskip("llvmlite.binding")
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    try:
        target = binding.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip("this llvmlite was built without that target")
    module = binding.parse_assembly(compile_graph(_small_step(), registers).emitted.text)
    module.triple = triple
    module.verify()
    assert word in target.create_target_machine(cpu=processor, opt=2).emit_assembly(module)
