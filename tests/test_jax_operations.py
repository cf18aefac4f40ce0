"""Every operation by JAX equals the interpreter: value and gradient, both float types, odd shapes, edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chainrule import autodiff, ops
from chainrule.backends import Executable
from chainrule.graph import Graph, evaluate
from op_checks import assert_close, differentiable, is_float, operation, sampled, seeds, traced
from op_samples import CONVENTIONS, SAMPLES, Case

pytestmark = pytest.mark.jax

TOLERANCE = {"float32": 4e-6, "float64": 4e-14}


def narrow(case: Case) -> Case:
    """The case in 32 bits, attributes too."""
    attributes = {
        name: np.dtype("float32") if value == np.dtype("float64") else value
        for name, value in case.attributes.items()
    }
    return Case(tuple(one.astype("float32") if is_float(one) else one for one in case.operands), attributes)


def whole(name: str, cases: list[Case]) -> tuple[Graph, list[np.ndarray]]:
    """One graph for all cases, with their derivatives, and what its inputs are given."""
    op, inputs, outputs, given = operation(name), [], [], []
    for case in cases:
        graph = traced(op, case)
        inputs += graph.inputs
        outputs += graph.outputs
        given += case.operands
        if differentiable(op, case):
            backward = autodiff.differentiate(graph)
            inputs += [node for node in backward.inputs if node not in graph.inputs]
            outputs += backward.outputs
            given.append(seeds(op, case).astype(graph.outputs[0].dtype))
    return Graph(name, tuple(inputs), tuple(outputs)), given


def compare(graph: Graph, given: list[np.ndarray], exact: bool = False) -> None:
    results: list[Any] = []
    executable = Executable(graph, [])
    executable.run(given, [], [], results)
    with ops.quiet():
        wanted = evaluate(graph, given, ops.NUMPY)
    for node, mine, theirs in zip(graph.outputs, executable.fetch(results[0][1]), wanted, strict=True):
        assert mine.dtype == node.dtype and mine.shape == node.shape, f"{node}: {mine.dtype}{mine.shape}"
        if exact:
            np.testing.assert_array_equal(mine, theirs, f"{graph.name}: {node}")
        elif is_float(mine):
            assert_close(mine, theirs, TOLERANCE[mine.dtype.name], f"{graph.name}: {node}")
        else:
            assert np.array_equal(mine, theirs), f"{graph.name}: {node} {mine}, expected {theirs}"


@pytest.mark.parametrize("name", sampled())
def test_value_and_gradient_equal_the_interpreters(name: str) -> None:
    cases = list(SAMPLES[name].cases)
    compare(*whole(name, cases))
    compare(*whole(name, [narrow(case) for case in cases]))


@pytest.mark.parametrize("name", [name for name in sampled() if SAMPLES[name].integer_cases])
def test_whole_numbers_are_equal(name: str) -> None:
    compare(*whole(name, list(SAMPLES[name].integer_cases)), exact=True)


EDGES = [name for name in CONVENTIONS if any(one.error is None for one in CONVENTIONS[name])]


@pytest.mark.parametrize("name", EDGES)
def test_edges_are_the_conventions(name: str) -> None:
    for one in CONVENTIONS[name]:
        if one.error is not None:
            continue
        graph = traced(operation(name), Case(one.operands, one.attributes))
        results: list[Any] = []
        executable = Executable(graph, [])
        executable.run(list(one.operands), [], [], results)
        (value,) = executable.fetch(results[0][1])
        if one.value is not None:
            np.testing.assert_allclose(
                value, one.value, 1e-15, 0, True, f"{name} of {one.operands}", strict=True
            )
            if is_float(value):
                signs = [np.signbit(np.where(np.isnan(side), 0.0, side)) for side in (value, one.value)]
                assert np.array_equal(*signs), f"{name} of {one.operands}: {value}"
        if one.cotangents is not None:
            backward = autodiff.differentiate(graph)
            executable, results = Executable(backward, []), []
            executable.run([*one.operands, np.ones(value.shape)], [], [], results)
            for got, wanted in zip(executable.fetch(results[0][1]), one.cotangents, strict=True):
                np.testing.assert_allclose(got, wanted, 1e-15, 0, True, f"{name} of {one.operands}")


def test_long_float32_sums_lose_nothing() -> None:
    ones = np.ones((1 << 24) + (1 << 12) + 1, "float32")
    rows = np.ones((3, (1 << 18) + 1), "float32") * np.float32(0.1)
    graphs = [
        traced(operation("sum"), Case((ones,), {"axes": (0,), "keepdims": False})),
        traced(operation("sum"), Case((rows.T,), {"axes": (0,), "keepdims": True})),
        traced(operation("sum"), Case((rows,), {"axes": (1, 0), "keepdims": False})),
    ]
    whole = Graph("sums", sum((one.inputs for one in graphs), ()), sum((one.outputs for one in graphs), ()))
    results: list[Any] = []
    executable = Executable(whole, [])
    executable.run([ones, rows.T, rows], [], [], results)
    first, second, third = executable.fetch(results[0][1])
    assert first == np.float32(ones.size)
    exact = float(np.float32(0.1)) * rows.shape[1]
    np.testing.assert_allclose(second, np.full((1, 3), exact), 5e-7)
    np.testing.assert_allclose(third, 3 * exact, 5e-7)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "uint64", "int64"])
def test_indices_of_every_type_beyond_their_range_are_harmless(dtype: str) -> None:
    """Whoever refuses the step does it afterwards: until then the place is nowhere."""
    limits = np.iinfo(dtype)
    indices = np.asarray([0, limits.max, limits.min], dtype)
    rows = np.arange(1.0, 4)
    cases = [("scatter_add", (rows, indices), {"axis": 0, "size": 2}), ("take", (rows, indices), {"axis": 0})]
    for name, operands, attributes in cases:
        graph = traced(operation(name), Case(operands, attributes))
        results: list[Any] = []
        executable = Executable(graph, [])
        executable.run(list(operands), [], [], results)
        (value,) = executable.fetch(results[0][1])
        if name == "scatter_add":
            assert value[0] == (1.0 if limits.min else 4.0) and value[1] == 0
        else:
            assert value[0] == 1.0


def test_the_users_configuration_of_jax_stays() -> None:
    import jax

    before = jax.config.jax_enable_x64
    compare(*whole("take", list(SAMPLES["take"].cases)))
    assert jax.config.jax_enable_x64 == before
    assert jax.numpy.arange(3).dtype == ("int64" if before else "int32")


SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-30]
FLOATS = [op for op in ops.primitives() if op.kind == "elementwise" and 1 <= len(op.operand_names) <= 2]


@pytest.mark.parametrize("op", FLOATS, ids=lambda op: op.name)
def test_special_numbers_are_treated_alike(op: ops.Op) -> None:
    graphs, given = [], []
    for dtype in ("float32", "float64"):
        numbers = np.asarray(SPECIAL, dtype)
        pair = [numbers] if len(op.operand_names) == 1 else [np.repeat(numbers, 13), np.tile(numbers, 13)]
        try:
            graphs.append(traced(op, Case(tuple(pair))))
            with ops.quiet():
                op(*pair)
        except TypeError:
            pytest.skip("for whole numbers only")
        given += pair
    both = Graph(op.name, sum((one.inputs for one in graphs), ()), sum((one.outputs for one in graphs), ()))
    results: list[Any] = []
    executable = Executable(both, [])
    executable.run(given, [], [], results)
    with ops.quiet():
        wanted = evaluate(both, given, ops.NUMPY)
    for mine, theirs in zip(executable.fetch(results[0][1]), wanted, strict=True):
        rtol = TOLERANCE.get(mine.dtype.name, 0.0)
        np.testing.assert_allclose(mine, theirs, rtol, np.finfo("f4").tiny, err_msg=op.name)
        if is_float(mine):
            large = np.abs(theirs) > np.finfo("f4").tiny
            assert np.array_equal(np.signbit(mine[large]), np.signbit(theirs[large])), op.name
