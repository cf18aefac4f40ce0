"""The generated checks of one primitive: pure functions that raise AssertionError, for pytest and the mutants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import autodiff, ops
from chainrule.graph import Graph, Node, evaluate, print_graph, state, verify
from chainrule.operations import CONSTANT, INPUT, OPERATIONS, Type
from chainrule.tensor import wrap
from op_samples import CONVENTIONS, SAMPLES, Case, Samples, random_for

# ------------------------------------------------------------------------------------------ helpers


def is_float(array: Any) -> bool:
    return bool(np.asarray(array).dtype.kind == "f")


def call(op: ops.Op, operands: Any, attributes: Any) -> np.ndarray:
    """The operation on arrays, through a node as a user's call would go."""
    return np.asarray(op.node(tuple(Node(CONSTANT, value=one) for one in operands), attributes).value)


def function_of(op: ops.Op, case: Case) -> tuple[Any, list[np.ndarray], list[int]]:
    """(function of the float operands as tensors, their arrays, their places)."""
    places = [k for k, one in enumerate(case.operands) if is_float(one)]

    def function(*floats: cr.Tensor) -> cr.Tensor:
        nodes = [Node(CONSTANT, value=one) for one in case.operands]
        for place, one in zip(places, floats):
            nodes[place] = one.node
        return wrap(op.node(tuple(nodes), case.attributes))

    return function, [case.operands[k] for k in places], places


def assert_close(got: Any, wanted: Any, tolerance: float, what: str) -> None:
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape, f"{what}: shape {got.shape}, expected {wanted.shape}"
    if not got.size:
        return
    scale = max(float(np.abs(wanted).max()), 1.0)
    worst = float(np.abs(got.astype("f8") - wanted.astype("f8")).max())
    assert worst <= tolerance * scale, f"{what}: off by {worst:.3g}; got {got}, expected {wanted}"


def central(function: Any, x: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Fourth-order central difference (Abramowitz & Stegun 25.3.6 with five points) along `direction`."""
    h = 1e-3
    near = function(x + h * direction) - function(x - h * direction)
    far = function(x + 2 * h * direction) - function(x - 2 * h * direction)
    return np.asarray((8 * near - far) / (12 * h))


def differentiable(op: ops.Op, case: Case) -> bool:
    """Whether the case has a float operand, and a float result."""
    floats = [one for one in case.operands if is_float(one)]
    return bool(floats) and is_float(call(op, case.operands, case.attributes))


# ------------------------------------------------------------------------------------------ checks


def check_forward(op: ops.Op, samples: Samples) -> None:
    """The body against plain NumPy: float64, float32, integers."""
    with ops.quiet():
        for case in samples.cases:
            wanted = samples.reference(*case.operands, **case.attributes)
            got = call(op, case.operands, case.attributes)
            assert got.dtype == np.asarray(wanted).dtype, f"{op.name}: {got.dtype} for float64"
            assert_close(got, wanted, samples.scale * 2.3e-16 * 4, f"{op.name} float64")
            narrow = [one.astype("f4") if is_float(one) else one for one in case.operands]
            single = call(op, narrow, case.attributes)
            if is_float(got) and "dtype" not in case.attributes:
                assert single.dtype == np.float32, f"{op.name}: {single.dtype} for float32"
                wide = samples.reference(*(one.astype("f8") if is_float(one) else one for one in narrow),
                                         **case.attributes)  # fmt: skip
                assert_close(single, wide, samples.scale * 1.2e-7 * 8, f"{op.name} float32")
        for case in samples.integer_cases:
            wanted = np.asarray(samples.reference(*case.operands, **case.attributes))
            got = call(op, case.operands, case.attributes)
            assert got.dtype == wanted.dtype, f"{op.name}: {got.dtype} for {case.operands[0].dtype}"
            assert np.array_equal(got, wanted), f"{op.name} integers: {got}, expected {wanted}"


def layouts(array: np.ndarray) -> dict[str, np.ndarray]:
    """The same values in other memory layouts."""
    if not array.ndim:
        frozen = array.copy()
        frozen.flags.writeable = False
        return {"read-only": frozen}
    reverse = (slice(None, None, -1),) * array.ndim
    stepped = np.zeros([2 * n for n in array.shape], array.dtype)
    stepped[(slice(None, None, 2),) * array.ndim] = array
    frozen = array.copy()
    frozen.flags.writeable = False
    return {
        "transposed": np.ascontiguousarray(array.T).T,
        "reversed": np.ascontiguousarray(array[reverse])[reverse],
        "stepped": stepped[(slice(None, None, 2),) * array.ndim],
        "read-only": frozen,
    }


def check_layouts(op: ops.Op, samples: Samples) -> None:
    """Strides never change a value, forward or backward, and operands are never written into."""
    with ops.quiet():
        for case in (*samples.cases, *samples.integer_cases):
            kept = [one.copy() for one in case.operands]
            plain = call(op, case.operands, case.attributes)
            options = [layouts(one) for one in case.operands]
            for layout in sorted({name for option in options for name in option}):
                operands = tuple(o.get(layout, one) for o, one in zip(options, case.operands))
                got = call(op, operands, case.attributes)
                # Sums may be added up in another order; everything else is equal to the bit.
                assert_close(got, plain, 1e-14 if is_float(plain) else 0.0, f"{op.name}, {layout} operands")
                if differentiable(op, case):
                    for a, b in zip(pulled(op, Case(operands, case.attributes)), pulled(op, case)):
                        assert_close(a, b, 1e-14, f"{op.name}: cotangent for {layout} operands")
            assert all(np.array_equal(a, b) for a, b in zip(kept, case.operands)), (
                f"{op.name} wrote an operand"
            )
            check_stride_zero(op, case)


def check_stride_zero(op: ops.Op, case: Case) -> None:
    """Operands that are broadcast views of one element."""
    same = tuple(
        np.broadcast_to(one.flat[0], one.shape) if is_float(one) and one.size else one
        for one in case.operands
    )
    wanted = call(op, [one.copy() for one in same], case.attributes)
    assert_close(call(op, same, case.attributes), wanted, 1e-14, f"{op.name}: stride 0")


def seeds(op: ops.Op, case: Case) -> np.ndarray:
    shape = call(op, case.operands, case.attributes).shape
    return random_for(op.name + "seed").normal(size=shape)


def pulled(op: ops.Op, case: Case) -> list[np.ndarray]:
    """Cotangents of the float operands for the fixed seed."""
    function, floats, _ = function_of(op, case)
    _, pull = cr.vjp(function, *(wrap(Node(CONSTANT, value=one)) for one in floats))
    return [one.numpy() for one in pull(cr.Tensor(seeds(op, case)))]


def check_derivatives(op: ops.Op, samples: Samples) -> None:
    """VJP and JVP against central differences, and against each other, in float64."""
    for case in samples.cases:
        if not differentiable(op, case):
            continue
        function, floats, _ = function_of(op, case)
        seed, random = seeds(op, case), random_for(op.name + "direction")
        cotangents = pulled(op, case)
        if samples.constant:
            assert not any(one.any() for one in cotangents), f"{op.name}: a constant passed a gradient"
            continue
        for k, x in enumerate(floats):
            assert cotangents[k].shape == x.shape, f"{op.name}: cotangent {k} has shape {cotangents[k].shape}"
            assert cotangents[k].dtype == x.dtype, f"{op.name}: cotangent {k} has dtype {cotangents[k].dtype}"
            direction = random.uniform(0.5, 1.5, x.shape) * random.choice([-1.0, 1.0], x.shape)

            def moved(value: np.ndarray, k: int = k, floats: Any = floats, function: Any = function) -> Any:
                changed = [*floats[:k], value, *floats[k + 1 :]]
                return function(*(cr.Tensor(one) for one in changed)).numpy()

            slope = central(moved, x, direction)
            tangents = [direction if j == k else np.zeros_like(one) for j, one in enumerate(floats)]
            pushed = cr.jvp(function, [cr.Tensor(one) for one in floats], [cr.Tensor(t) for t in tangents])[1]
            assert_close(pushed.numpy(), slope, 2e-8, f"{op.name}: JVP of operand {k} at {x.shape}")
            both = (float((seed * pushed.numpy()).sum()), float((cotangents[k] * direction).sum()))
            assert_close(
                both[1], both[0], 1e-12, f"{op.name}: ⟨cotangent, JVP⟩ = ⟨VJP, tangent⟩, operand {k}"
            )
            check_each_element(op, moved, x, seed, cotangents[k], k)


def check_each_element(op: ops.Op, moved: Any, x: np.ndarray, seed: Any, cotangent: Any, k: int) -> None:
    """The cotangent element by element, for small operands."""
    for place in range(min(x.size, 8)):
        unit = np.zeros(x.size)
        unit[place] = 1
        slope = float((central(moved, x, unit.reshape(x.shape)) * seed).sum())
        assert_close(cotangent.flat[place], slope, 2e-8, f"{op.name}: VJP of operand {k}, element {place}")


def check_second_order(op: ops.Op, samples: Samples) -> None:
    """The derivative of the derivative, in all four combinations of modes, against central differences."""
    for case in samples.cases:
        if samples.constant or not differentiable(op, case) or sum(one.size for one in case.operands) > 40:
            continue
        function, floats, _ = function_of(op, case)
        seed = cr.Tensor(seeds(op, case))
        random = random_for(op.name + "second")
        first = [cr.Tensor(random.uniform(0.5, 1.5, one.shape)) for one in floats]
        second = [random.uniform(0.5, 1.5, one.shape) for one in floats]
        every = tuple(range(len(floats)))

        def contracted(*xs: cr.Tensor, function: Any = function, seed: Any = seed) -> cr.Tensor:
            return (function(*xs) * seed).sum()

        def forward(*xs: cr.Tensor, contracted: Any = contracted, first: Any = first) -> cr.Tensor:
            return cr.jvp(contracted, xs, first)[1]

        def reverse(
            *xs: cr.Tensor, contracted: Any = contracted, first: Any = first, every: Any = every
        ) -> cr.Tensor:
            found = cr.grad(contracted, every)(*xs)
            return sum((g * u).sum() for g, u in zip(found, first))

        for inner in (forward, reverse):

            def line(t: Any, inner: Any = inner, floats: Any = floats, second: Any = second) -> Any:
                return inner(*(cr.Tensor(x + t * u) for x, u in zip(floats, second))).numpy()

            slope = central(line, np.asarray(0.0), np.asarray(1.0))
            tensors, directions = [cr.Tensor(x) for x in floats], [cr.Tensor(u) for u in second]
            pushed = cr.jvp(inner, tensors, directions)[1].numpy()
            pulled_back = cr.grad(inner, every)(*tensors)
            total = sum(float((g.numpy() * u).sum()) for g, u in zip(pulled_back, second))
            assert_close(pushed, slope, 1e-7, f"{op.name}: forward over {inner.__name__}")
            assert_close(total, slope, 1e-7, f"{op.name}: reverse over {inner.__name__}")


def check_none(op: ops.Op, samples: Samples) -> None:
    """Integer and bool operands, and results that are no floats, have no cotangent at all."""
    for case in (*samples.cases, *samples.integer_cases):
        nodes = tuple(Node(CONSTANT, value=one, requires_grad=is_float(one)) for one in case.operands)
        with ops.quiet():
            result = op.node(nodes, case.attributes)
        if not is_float(result.value):
            assert not result.requires_grad, f"{op.name}: a result of {result.dtype} requires grad"
        found = autodiff.gradients([result], [np.ones(result.shape)], nodes)
        assert all(node.requires_grad for node in found), f"{op.name}: a cotangent for an integer"


def check_float32(op: ops.Op, samples: Samples) -> None:
    """In float32 the cotangents are float32 and near those of float64."""
    for case in samples.cases:
        if not differentiable(op, case) or "dtype" in case.attributes:
            continue
        function, floats, _ = function_of(op, case)
        wide = pulled(op, case)
        _, pull = cr.vjp(function, *(cr.Tensor(one.astype("f4")) for one in floats))
        for a, b in zip(pull(cr.Tensor(seeds(op, case).astype("f4"))), wide):
            assert a.dtype == np.float32, f"{op.name}: cotangent of {a.dtype}"
            assert_close(a.numpy(), b, 3e-5, f"{op.name}: cotangent in float32")


def traced(op: ops.Op, case: Case) -> Graph:
    """A closed graph of one call, with inputs for all operands."""
    outer, state.trace = state.trace, autodiff.Building()
    try:
        inputs = tuple(
            Node(INPUT, type=(Type(one.shape, one.dtype),), requires_grad=is_float(one))
            for one in case.operands
        )
        return Graph(op.name, inputs, (op.node(inputs, case.attributes),))
    finally:
        state.trace = outer


def check_types_and_graph(op: ops.Op, samples: Samples) -> None:
    """The type rule says what the body gives; the traced node prints, verifies, evaluates; its derivative too."""
    with ops.quiet():
        for case in (*samples.cases, *samples.integer_cases):
            value = call(op, case.operands, case.attributes)
            types = op.types(*(Type(one.shape, one.dtype) for one in case.operands), **case.attributes)
            assert types == (Type(value.shape, value.dtype),), (
                f"{op.name}: rule {types}, body {value.dtype}{value.shape}"
            )
            graph = verify(traced(op, case))
            assert f"{op.name}(" in "\n".join(print_graph(graph))
            (again,) = evaluate(graph, case.operands, ops.NUMPY)
            assert np.array_equal(again, value), f"{op.name}: evaluated {again}, called {value}"
            if differentiable(op, case):
                derivative = verify(autodiff.differentiate(graph))
                found = evaluate(derivative, [*case.operands, seeds(op, case)], ops.NUMPY)
                for a, b in zip(found, pulled(op, case)):
                    assert_close(a, b, 1e-14, f"{op.name}: derivative graph")


def check_words(op: ops.Op, samples: Samples) -> None:
    """The manual and the Why are sentences."""
    assert op.manual.strip().endswith((".", "?", ")")), f"{op.name}: the manual is no sentence: {op.manual!r}"
    assert op.why.strip().endswith("."), f"{op.name}: the Why is no sentence: {op.why!r}"
    assert len(op.why.split()) >= 4, f"{op.name}: the Why explains nothing: {op.why!r}"


def check_conventions(op: ops.Op, samples: Samples) -> None:
    """Values and cotangents at kinks, ties and edges are the ones that were decided."""
    for one in CONVENTIONS.get(op.name, ()):
        case = Case(one.operands, one.attributes)
        if one.error is not None:
            with pytest.raises(one.error):
                call(op, case.operands, case.attributes)
            continue
        with ops.quiet():
            value = call(op, case.operands, case.attributes)
        if one.value is not None:
            np.testing.assert_array_equal(value, one.value, f"{op.name} of {one.operands}", strict=True)
        if one.cotangents is not None:
            function, floats, _ = function_of(op, case)
            _, pull = cr.vjp(function, *(cr.Tensor(x) for x in floats))
            for got, wanted in zip(pull(cr.Tensor(np.ones(value.shape))), one.cotangents, strict=True):
                np.testing.assert_allclose(
                    got.numpy(), wanted, 1e-15, 0, True, f"{op.name} of {one.operands}"
                )


CHECKS = (
    check_forward, check_layouts, check_derivatives, check_second_order, check_none, check_float32,
    check_types_and_graph, check_words, check_conventions,
)  # fmt: skip


def sampled() -> list[str]:
    """Names of the registered operations that have samples."""
    return [op.name for op in ops.primitives() if op.name in SAMPLES]


def operation(name: str) -> ops.Op:
    found = OPERATIONS[name]
    assert isinstance(found, ops.Op)
    return found
