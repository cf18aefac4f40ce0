"""Small programs that a fault in the compiler cannot get through: a list of checks, each of them a function.

`test_compiler_faults.py` runs them as tests; `mutate_compiler.py` runs them against compilers with a fault. Every
program runs as a compiled step (twice: the second call takes the quick way) and alone, for several kinds of
processors, in memory that is surrounded by guards and full of NaN at first. What it gives is compared with the NumPy
interpreter, and with Python; nothing that it reads may change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import chainrule as cr
import test_compiler
from chainrule import functional as F
from chainrule import nn, ops, optim
from chainrule.compiler import Compilation, compile_graph, entry
from chainrule.compiler import loops as ir
from chainrule.compiler.product import Registers
from chainrule.graph import Graph, evaluate
from chainrule.iteration import scan
from chainrule.runtime.audit import _Memory
from random_programs import check as check_random_program

Check = Callable[[], None]
CHECKS: dict[str, Check] = {}
"""Every check by its name, the quick ones that find most first."""

MACHINES = (Registers(16, 16), Registers(32, 16), Registers(64, 32))
FLOATS = ("float32", "float64")


def check(function: Check) -> Check:
    """One more check, called like the function."""
    CHECKS[function.__name__.removeprefix("check_")] = function
    return function


def checks(name: str, function: Callable[..., None], cases: Sequence[tuple[Any, ...]]) -> None:
    """A check for each case."""
    for case in cases:
        CHECKS[f"{name} {' '.join(map(str, case))}"] = partial(function, *case)


def normal(*shape: int, dtype: str = "float64", seed: int = 0) -> Any:
    """Numbers of a normal distribution."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


# ------------------------------------------------------------------------------------------- what is compared


def near(got: Any, wanted: Any, units: float, told: str = "", by_element: bool = False) -> None:
    """Equal up to so many units in the last place of the largest number (or of each); integers exactly."""
    assert got.shape == wanted.shape and got.dtype == wanted.dtype, f"{told}: {got.dtype}{got.shape}"
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, wanted, told)
        return
    rounding = units * float(np.finfo(got.dtype).eps)
    scale = 0.0 if by_element else float(np.max(np.abs(wanted[np.isfinite(wanted)]), initial=0.0))
    np.testing.assert_allclose(got, wanted, rtol=rounding, atol=rounding * scale, err_msg=told)


def arrays_of(result: Any) -> list[Any]:
    """Copies of the numbers that a function returns."""
    return [one.detach().numpy() for one in (result if isinstance(result, tuple) else (result,))]


def interpreted(graph: Graph, sources: Sequence[Any]) -> list[Any]:
    """The values of a graph's roots by NumPy."""
    with ops.quiet():
        return [np.asarray(one) for one in evaluate(graph, list(sources), ops.NUMPY)]


def alone(compilation: Compilation, sources: Sequence[Any]) -> tuple[bool, list[Any]]:
    """(whether the machine code refuses, the outputs and written values), in memory of its own, full of NaN.

    What it may not write stays: the guards between the buffers, and sources that no cell is written into.
    """
    late = {compilation.plan.buffers[old] for old in compilation.fusion.in_place.values()}
    for nest in compilation.loops.nests:
        written = {one.buffer for one in ir.walk(nest.body) if isinstance(one, ir.Store)}
        assert nest.commit or late.isdisjoint(written), "a cell is written before the checks"
    memory = _Memory(compilation, sources)
    shadow = memory.block.copy()
    refused = memory.run(compilation, compilation.native()[0])
    plan, fusion = compilation.plan, compilation.fusion
    in_place = {plan.buffers[old].index for old in fusion.in_place.values()} if not refused else set()
    free = np.zeros(len(shadow), bool)
    for place, region in enumerate(memory.regions):
        if place >= memory.first["result"] or place in in_place:
            start = region.__array_interface__["data"][0] - memory.block.__array_interface__["data"][0]
            free[start : start + len(region)] = True
    assert (memory.block[~free] == shadow[~free]).all(), "memory was written that belongs to others"
    graph = fusion.graph
    wanted = (*graph.outputs, *(node for node in graph.writes.values() if node is not None))
    found = []
    for node in wanted:
        held = node in plan.buffers and (node.inputs or node in graph.sources)
        found.append(memory.array_of(plan.buffers[node]) if held else np.asarray(node.value))
    return refused, found


def agree(
    function: Any,
    *arrays: Any,
    units: float = 16.0,
    machines: Sequence[Registers] = (),
    by_element: bool = False,
) -> Any:
    """The compiled function gives what the interpreter gives, twice, here and on other machines; the step."""
    step = cr.compile(function)
    tensors = [cr.tensor(one) for one in arrays]
    before = [one.tobytes() for one in arrays]
    first, again = arrays_of(step(*tensors)), arrays_of(step(*tensors))
    assert len(step._programs) == 1
    graph = step.graph()
    sources = [*arrays, *(cell.array for cell, _ in graph.reads)]
    wanted = interpreted(graph, sources)
    for k, (one, other) in enumerate(zip(first, again, strict=True)):
        assert one.tobytes() == other.tobytes(), f"result {k}: a second call gives other bits"
        near(one, wanted[k], units, f"result {k}", by_element)
    for machine in (None, *machines):
        refused, found = alone(compile_graph(graph, machine), sources)
        assert not refused
        for k, (got, value) in enumerate(zip(found, wanted)):
            near(got, value, units, f"result {k}, {machine}", by_element)
            if machine is None and k < len(first):
                assert got.tobytes() == first[k].tobytes(), f"result {k}: alone it gives other bits"
    assert [one.numpy().tobytes() for one in tensors] == before, "an argument was written into"
    return step


Made = tuple[Callable[..., Any], list[Any], list[tuple[Any, ...]]]


def learns(make: Callable[[], Made], units: float = 64.0) -> Any:
    """A compiled step leaves what Python leaves: results, cells and gradients after every call; the step.

    make: (step, its tensors, arguments of every call), anew each time.
    """
    plain, tensors, calls = make()
    wanted = [_outcome(plain, tensors, given) for given in calls]
    function, tensors, calls = make()
    step = cr.compile(function)
    for given, values in zip(calls, wanted, strict=True):
        for k, (got, value) in enumerate(zip(_outcome(step, tensors, given), values, strict=True)):
            near(got, value, units, f"value {k}")
    return step


def _outcome(step: Any, tensors: list[Any], given: tuple[Any, ...]) -> list[Any]:
    found = arrays_of(step(*given))
    for one in tensors:
        found += [one.detach().numpy(), *([] if one.grad is None else [one.grad.numpy()])]
    return found


# ------------------------------------------------------------------------------------------- products

#: How the operands lie: as they are, or as transposes of what is given.
FORMS: dict[str, tuple[Callable[[Any, Any], Any], bool, bool]] = {
    "x@y": (lambda x, y: x @ y, False, False), "x'@y": (lambda x, y: x.T @ y, True, False),
    "x@y'": (lambda x, y: x @ y.T, False, True), "x'@y'": (lambda x, y: x.T @ y.T, True, True),
}  # fmt: skip


def check_product(rows: int, common: int, columns: int, form: str, dtype: str) -> None:
    function, left, right = FORMS[form]
    x = normal(*((common, rows) if left else (rows, common)), dtype=dtype)
    y = normal(*((columns, common) if right else (common, columns)), dtype=dtype)
    agree(function, x, y, units=4 + common**0.5, machines=MACHINES)


checks("product", check_product, [
    (5, 1, 33, "x@y", "float32"), (13, 7, 17, "x'@y", "float64"), (13, 255, 20, "x@y'", "float32"),
    (50, 256, 9, "x'@y'", "float64"), (49, 257, 35, "x@y", "float32"), (7, 300, 33, "x@y", "float64"),
    (50, 300, 37, "x'@y", "float32"), (5, 600, 19, "x@y'", "float32"), (3, 1025, 5, "x@y", "float64"),
    (52, 513, 40, "x'@y'", "float32"), (1, 259, 1, "x@y", "float32"), (300, 300, 70, "x'@y", "float32"),
    (20, 520, 290, "x@y", "float32"),
    (261, 270, 67, "x'@y'", "float64"), (13, 258, 1, "x'@y", "float64"), (1, 270, 31, "x@y'", "float32"),
])  # fmt: skip


@check
def check_products_of_parts() -> None:
    """Operands behind views, batches, and results that lie apart."""

    def products(x: Any, y: Any, z: Any) -> Any:
        return (
            x @ y, x[:, 1:5, ::3] @ y[2:102], cr.flip(x, axis=2) @ y, cr.permute_dims(x, (1, 0, 2)) @ y[:, 3:],
            cr.reshape(x, (14, 300)) @ y, x[0, 0] @ y, x[1] @ y[:, 0], z @ cr.permute_dims(z, (0, 2, 1)),
            cr.permute_dims(z, (0, 2, 1)) @ z, (x @ y)[:, :, 1:7], cr.permute_dims(x @ y, (0, 2, 1)) * 2.0,
            cr.broadcast_to(x[0, :1], (4, 300)) @ y, cr.tensordot(x, x, axes=((0, 1), (0, 1)))[:3, :5],
            cr.sum(x * 2.0, axis=0) @ cr.exp(y * 0.1), cr.vecdot(z, z), cr.outer(x[0, 0, :9], y[:4, 1]),
        )  # fmt: skip

    for dtype in FLOATS:
        agree(products, normal(2, 7, 300, dtype=dtype), normal(300, 18, dtype=dtype),
              normal(3, 260, 5, dtype=dtype), units=40)  # fmt: skip


@check
def check_empty_and_whole_products() -> None:
    def products(x: Any, y: Any, z: Any) -> Any:
        return (
            x @ y,
            y.T @ x.T,
            x[:0] @ y,
            x @ y[:, :0],
            x[:, :0] @ y[:0],
            x[0] @ y,
            z @ z,
            z @ cr.permute_dims(z, (0, 2, 1)),
        )

    for dtype in ("int32", "int64", "uint8"):
        x, y, z = (np.random.default_rng(1).integers(0, 9, shape).astype(dtype)
                   for shape in ((3, 4), (4, 5), (2, 3, 3)))  # fmt: skip
        agree(products, x, y, z)
    agree(products, normal(3, 4), normal(4, 5), normal(2, 3, 3))


@check
def check_a_gradient_that_overflows_in_one_place() -> None:
    """Products watch their own results: one infinity anywhere is seen, none where there is none."""
    rows, columns, batch = 53, 37, 300
    weight = cr.tensor(np.zeros((rows, columns), "float32"), requires_grad=True)

    @cr.compile
    def step(x: Any, slope: Any) -> Any:
        loss = cr.sum((x @ weight) * slope)
        loss.backward()
        with cr.no_grad():
            weight.copy_(weight - 0.0 * weight.grad)
        weight.grad = None
        return loss

    x, slope = np.zeros((batch, rows), "float32"), np.zeros((batch, columns), "float32")
    assert step(cr.tensor(x), cr.tensor(slope)).item() == 0.0
    for row, column, at in ((0, 0, 0), (52, 36, 299), (13, 35, 256), (52, 0, 255), (30, 32, 3), (5, 36, 280)):
        x[at, row] = slope[at, column] = 1e20
        given = cr.tensor(x), cr.tensor(slope)
        refused(lambda given=given: step(*given), "gradient")
        x[at, row] = slope[at, column] = 1e10
        step(cr.tensor(x), cr.tensor(slope))
        x[at, row] = slope[at, column] = 0.0


def refused(call: Callable[[], Any], *words: str) -> None:
    """The call is refused with these words, and says that nothing was changed."""
    try:
        call()
    except cr.errors.ChainruleError as failure:
        told = str(failure)
        assert "Nothing was changed by this step" in told, told
        assert all(word in told for word in words), told
        return
    raise AssertionError(f"not refused: {words}")


# ------------------------------------------------------------------------------------------- convolutions


def check_convolution(
    image: tuple[int, ...], kernel: tuple[int, ...], options: dict[str, Any], dtype: str
) -> None:
    def both(x: Any, w: Any, b: Any) -> Any:
        loss = lambda x, w, b: cr.sum(cr.sin(F.conv2d(x, w, b, **options)))
        return (F.conv2d(x, w, b, **options), *cr.grad(loss, (0, 1, 2))(x, w, b))

    x, w, b = normal(*image, dtype=dtype), normal(*kernel, dtype=dtype), normal(kernel[0], dtype=dtype)
    agree(both, x, w, b, units=64 if dtype == "float64" else 640, machines=MACHINES)


checks("convolution", check_convolution, [
    ((2, 3, 7, 6), (5, 3, 3, 3), {"padding": 1}, "float32"),
    ((1, 4, 9, 8), (6, 2, 3, 2), {"groups": 2, "stride": 2}, "float64"),
    ((3, 1, 6, 5), (1, 1, 1, 1), {}, "float32"),
    ((2, 3, 8, 9), (4, 3, 2, 3), {"dilation": 2, "padding": 2}, "float32"),
    ((2, 70, 5, 4), (19, 70, 3, 3), {"padding": 1}, "float32"),
    ((4, 6, 6, 6), (6, 1, 3, 3), {"groups": 6}, "float64"),
    ((3, 17, 20, 20), (33, 17, 3, 3), {"stride": (1, 2)}, "float32"),
])  # fmt: skip


@check
def check_a_network_of_convolutions() -> None:
    """Values between convolutions lie in another order; long sums over them are made in two steps."""

    def make() -> Made:
        w, v = (cr.tensor(normal(*shape) * 0.3, requires_grad=True) for shape in ((8, 3, 3, 3), (5, 8, 3, 3)))
        b, scale = (cr.tensor(normal(8, seed=k), requires_grad=True) for k in (1, 2))

        def step(x: Any) -> Any:
            y = F.conv2d(x, w, b, padding=1)
            mean = cr.mean(y, axis=(0, 2, 3), keepdims=True)
            y = (
                (y - mean)
                * cr.reshape(scale, (1, 8, 1, 1))
                / cr.sqrt(cr.var(y, axis=(0, 2, 3), keepdims=True) + 0.1)
            )
            z = F.conv2d(F.max_pool2d(cr.tanh(y), 2), v, stride=2)
            peak = cr.argmax(z, axis=1)
            loss = cr.mean(z * z) + cr.sum(cr.mean(z, axis=(2, 3))[:, :2] * 0.1)
            loss.backward()
            with cr.no_grad():
                for one in (w, v, b, scale):
                    one.copy_(one - 0.1 * one.grad)
            for one in (w, v, b, scale):
                one.grad = None
            return (
                loss,
                peak,
                z,
                cr.concat([z, z * 2.0], axis=1),
                cr.sum(y, axis=1),
                cr.cumulative_sum(z, axis=1),
            )

        return step, [w, v, b, scale], [(cr.tensor(normal(6, 3, 30, 32, seed=k)),) for k in range(2)]

    learns(make, units=4000)


# ------------------------------------------------------------------------------------------- folds


def check_folds(shape: tuple[int, ...], dtype: str) -> None:
    def folds(x: Any) -> Any:
        found = []
        for axis in (*range(x.ndim), None):
            for keep in (False, True):
                found += [cr.sum(x, axis=axis, keepdims=keep), cr.max(x, axis=axis, keepdims=keep)]
            found += [
                cr.min(x, axis=axis),
                cr.prod(x, axis=axis),
                cr.any(x > 1, axis=axis),
                cr.all(x < 2, axis=axis),
            ]
            if axis is not None:
                found += [cr.argmax(x, axis=axis), cr.argmin(x, axis=axis), cr.cumulative_sum(x, axis=axis)]
                found += [cr.sum(cr.flip(x, axis=axis) * 2, axis=axis), cr.cumulative_prod(x, axis=axis)]
        if x.ndim > 2:
            found += [cr.sum(x, axis=(0, 2)), cr.sum(x, axis=(0, 1), keepdims=True), cr.max(x, axis=(1, 2))]
        return tuple(found)

    random = np.random.default_rng(0)
    x = random.normal(size=shape) if dtype[0] == "f" else random.integers(0, 4, shape)
    agree(folds, x.astype(dtype), units=32)


checks("folds", check_folds, [
    ((3, 5), "float32"), ((2, 17, 4), "float64"), ((40, 3), "int32"), ((1, 1), "float64"), ((33,), "float32"),
    ((3, 1, 20), "uint8"), ((19, 2, 3), "float32"),
])  # fmt: skip


@check
def check_long_sums_are_wide() -> None:
    """From 2¹⁶ float32 on sums are of float64, whether they lie side by side or apart."""
    x = (np.random.default_rng(0).random((70_001, 6)) + 0.5).astype("float32")
    step = cr.compile(lambda x, y: (
        cr.sum(x, axis=0), cr.mean(x, axis=0), cr.sum(y, axis=1), cr.sum(x), cr.sum(x[:, :5], axis=0, keepdims=True),
        cr.sum(cr.reshape(x[:69984], (2, 34992, 6)), axis=(0, 1)), cr.sum(cr.reshape(x[:65536], (65536, 3, 2)),
        axis=0)
    ))  # fmt: skip
    y = np.ascontiguousarray(x.T)
    wide = x.astype("float64")
    wanted = [
        wide.sum(0), wide.mean(0), wide.sum(0), wide.sum(), wide[:, :5].sum(0, keepdims=True), wide[:69984].sum(0),
        wide[:65536].sum(0).reshape(3, 2),
    ]  # fmt: skip
    for got, value in zip(arrays_of(step(cr.tensor(x), cr.tensor(y))), wanted, strict=True):
        near(got, np.asarray(value, "float32"), 1.0, by_element=True)
    # Neighbours side by side, each with a total of its own; the sums are exact.
    for shape in ((300, 80, 70, 3), (70, 4200, 1, 6)):
        parts = ((np.arange(np.prod(shape)).reshape(shape) % 251) / 256 + 0.5).astype("float32")
        got = cr.compile(lambda x: cr.sum(x, axis=0))(cr.tensor(parts)).numpy()
        np.testing.assert_array_equal(got, parts.astype("float64").sum(0).astype("float32"))
    broad = np.tile(x, (1, 6))[:65_600, :34]
    near(
        cr.compile(lambda x: cr.sum(x, axis=0))(cr.tensor(broad)).numpy(),
        broad.astype("float64").sum(0).astype("float32"),
        1.0,
    )
    ones = np.ones((20_000_000,), "float32")
    assert cr.compile(lambda x: x.sum())(cr.tensor(ones)).item() == 20_000_000


@check
def check_the_largest_equals_itself() -> None:
    """A selection sees the very bits that others see."""
    x = normal(40, 37, dtype="float32")

    def found(x: Any) -> Any:
        y = cr.exp(x) * 1.7 + cr.sin(x)
        peak = cr.max(y, axis=1, keepdims=True)
        return cr.sum(cr.astype(y == peak, cr.int32), axis=1), cr.take_along_axis(
            y, cr.argmax(y, axis=1, keepdims=True), axis=1
        ) - peak

    number, away = arrays_of(cr.compile(found)(cr.tensor(x)))
    assert (number == 1).all() and (away == 0).all()
    special = np.array([[1, 3, 3], [np.nan, 5, np.nan], [2, np.nan, 9], [-np.inf, -np.inf, -np.inf]])
    for dtype in FLOATS:
        agree(lambda x: tuple(f(x, axis=k) for f in (cr.argmax, cr.argmin, cr.max, cr.min) for k in (0, 1)),
              special.astype(dtype))  # fmt: skip


# ------------------------------------------------------------------------------------------- element by element

_NUMBERS = np.concatenate([
    np.linspace(-9, 9, 181), [0.0, -0.0, 1e-8, -1e-8, 0.5, 1.0, -1.0, 87.0, -103.0, 88.9, -87.5, 20.0, -17.0, 1e-30],
    [0.70710678, 1.41421356, 2.0, 5.9, 6.1, np.inf, -np.inf, np.nan, 1e-310, 1e-40, 700.0, -745.0, 709.9, -740.0],
])  # fmt: skip
_FAR_NUMBERS = np.concatenate([_NUMBERS, [1e5, -99999.5, 1.1e6, -3e7, 1e22]])
#: Within so many units in the last place; logarithms near 1 and sines near multiples of π are close in absolute terms.
UNARY: dict[str, list[Callable[[Any], Any]]] = {
    "exponentials": [cr.exp, cr.expm1, cr.sigmoid, cr.tanh, F.softplus, cr.sinh, cr.cosh],
    "logarithms": [cr.log, cr.log1p, cr.log2, cr.log10, cr.sqrt, lambda x: cr.logaddexp(x, x * 0.5), cr.asinh],
    "circular": [cr.sin, cr.cos, cr.erf, lambda x: cr.sin(x * 1e4), cr.tan, cr.atan],
    "rounding": [cr.floor, cr.ceil, cr.trunc, cr.round, cr.sign, cr.abs, cr.relu, cr.square, lambda x: x**3.0,
                 lambda x: -x, lambda x: 1.0 / x, lambda x: cr.clip(x, -1.0, 2.0), cr.isnan, cr.isfinite, cr.isinf,
                 lambda x: x // 0.7, lambda x: cr.remainder(x, -1.3), lambda x: cr.copysign(x, -x), cr.signbit,
                 lambda x: cr.maximum(x, 0.3), lambda x: cr.minimum(x, 0.3), lambda x: cr.where(x < 0.5, x, 2.0)],
}  # fmt: skip


def check_functions(kind: str, dtype: str) -> None:
    numbers = (_FAR_NUMBERS if kind == "circular" else _NUMBERS).astype(dtype)
    agree(lambda x: tuple(one(x) for one in UNARY[kind]), numbers, units=12, by_element=True)
    if kind == "circular":  # a loop without a far number goes another way
        close = _NUMBERS[:181].astype(dtype)
        agree(lambda x: (cr.sin(x), cr.cos(x), cr.sin(x) * cr.cos(x * 3.0)), close, units=12, by_element=True)


checks("functions", check_functions, [(kind, dtype) for kind in UNARY for dtype in FLOATS])


@check
def check_strong_zeros() -> None:
    values = np.array([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan])
    x, y = (one.reshape(-1) for one in np.meshgrid(values, values))

    def slopes(x: Any, y: Any) -> Any:
        chosen = lambda x, y: cr.sum(cr.where(x > 0, x * y, y * 0.5) + cr.relu(x) * y)
        return (*cr.grad(chosen, (0, 1))(x, y), cr.grad(lambda x: cr.sum(cr.relu(x) + cr.sqrt(cr.abs(x))))(x))

    agree(slopes, x, y)


WHOLE = ["bool", "int8", "int32", "int64", "uint8", "uint32", "uint64"]


def check_whole_numbers(dtype: str) -> None:
    limits = np.iinfo(dtype)
    values = np.array(
        sorted({limits.min, limits.min + 1, max(limits.min, -7), 0, 1, 3, 5, limits.max}), dtype
    )
    values = np.append(values, np.array([-1], dtype)) if limits.min else values
    x, y = (one.reshape(-1) for one in np.meshgrid(values, values))

    def numbers(x: Any, y: Any) -> Any:
        shift = cr.abs(y) % 40 if limits.min else y % 40
        return (
            x + y, x - y, x * y, x // y, x % y, cr.maximum(x, y), cr.minimum(x, y), x < y, x <= y, x == y, x != y,
            x & y, x | y, x ^ y, -x, cr.abs(x), cr.sign(x), cr.bitwise_left_shift(x, shift), ~x, x * x,
            cr.bitwise_right_shift(x, shift), cr.sum(x), cr.max(y), cr.where(x > y, x, y), cr.cumulative_sum(x),
        )  # fmt: skip

    agree(numbers, x, y)


checks(
    "whole numbers", check_whole_numbers, [(one,) for one in ("int8", "int32", "int64", "uint8", "uint64")]
)


@check
def check_casts() -> None:
    floats = np.array(
        [0.0, -0.0, 0.9, -0.9, 1.5, -1.5, 127.5, 300.0, -300.0, 1e10, -1e10, 1e30, np.inf, -np.inf, np.nan]
    )
    to_all = lambda x: tuple(cr.astype(x, kind) for kind in (*WHOLE, *FLOATS))
    for source in (*WHOLE, *FLOATS):
        if source[0] == "f":
            given = floats.astype(source)
        elif source == "bool":
            given = np.array([True, False])
        else:
            given = np.array([np.iinfo(source).min, 0, 1, 100, np.iinfo(source).max], source)
        agree(to_all, given)
    truth = lambda x, y: (
        x & y,
        x | y,
        x ^ y,
        ~x,
        x * y,
        x + y,
        cr.maximum(x, y),
        cr.any(x),
        cr.all(y),
        cr.where(x, y, ~y),
    )
    agree(truth, np.array([True, True, False, False]), np.array([True, False, True, False]))


# ------------------------------------------------------------------------------------------- places


@check
def check_views() -> None:
    def views(x: Any) -> Any:
        y = cr.permute_dims(x, (2, 0, 3, 1))
        flat = cr.reshape(x, (210,))
        return (
            cr.reshape(y, (10, 21)) + 1.0, cr.reshape(y, (-1,))[3::4] * 2.0, cr.flip(x, axis=1)[..., 1:6:2] - 1.0,
            cr.reshape(cr.reshape(x, (6, 35)), (2, 105)) + 0.5, x[1, :, 2, None] * cr.ones((4, 3, 1, 7),
            dtype=x.dtype),
            cr.concat([x[:, :2], x, x[:, :1]], axis=1) * 3.0, cr.reshape(x, (30, 7)).sum(axis=0),
            cr.flip(flat) * flat,
            cr.pad(x, ((1, 0), (0, 2), (0, 0), (2, 1))), cr.roll(x, 2, axis=3) - x, cr.tile(x[0, 0], (2, 3)) + 1.0,
            cr.repeat(x, 2, axis=2) * 2.0, cr.stack([x, -x], axis=1), cr.tril(x[0, 0], k=1), cr.triu(x[0, 0], k=-1),
            cr.concat([flat, cr.exp(flat), flat * 2.0]), cr.pad(flat, ((3, 4),))[2:9], cr.reshape(y, (5, 6,
            7)) @ x[0, 0].T,
            cr.concat([cr.pad(flat * 0.5, ((0, 210),)), flat]) + cr.pad(flat, ((210, 210),)),
            cr.reshape(cr.reshape(flat, (14, 15)).T, (42, 5)) + cr.reshape(y, (42, 5)),
            cr.broadcast_to(cr.exp(x[:, :1]), (2, 3, 5, 7)) + x, cr.max(y, axis=(0, 2)), cr.sum(cr.reshape(y,
            (10, 21)), axis=0),
        )  # fmt: skip

    for dtype in FLOATS:
        agree(views, normal(2, 3, 5, 7, dtype=dtype), units=32)


@check
def check_places_from_memory() -> None:
    def chosen(x: Any, at: Any, small: Any) -> Any:
        scattered = cr.grad(lambda x: cr.sum(cr.take(x, at, axis=0) * cr.sin(cr.take(x, at, axis=0))))(x)
        y = x * 1.0
        y[2] = 0.5
        y[:, 1] = x[:, 0] + 1.0
        rows = [cr.broadcast_to(x[0] * 2.0, (1, 5)), cr.broadcast_to(x[1] - 1.0, (1, 5))]
        return (
            cr.take(x, at, axis=0), cr.take(x, at, axis=1), cr.take(cr.exp(x), small, axis=0) * 2.0, scattered, y,
            cr.take_along_axis(x, cr.argmin(x, axis=1, keepdims=True), axis=1), cr.eye(5)[at % 5],
            cr.take(cr.concat(rows, axis=0), small % 2, axis=0)[0] + x[0], cr.tanh(x[0]), cr.sort(x, axis=0),
            cr.take(x, at, axis=0)[:, 1:4] @ x[:3],
        )  # fmt: skip

    agree(chosen, normal(6, 5), np.array([0, -1, 3, 3, -5, 1]) % 5, np.array([1, 0, 5], "uint8"))
    agree(lambda x, at: cr.take(x, at, axis=0) + 1.0, normal(6, 5), np.array([0, -1, 5, -6]))


@check
def check_places_outside_are_refused() -> None:
    table = cr.tensor(normal(4, 3), requires_grad=True)

    @cr.compile
    def step(at: Any) -> Any:
        loss = cr.sum(cr.take(table, at, axis=0) ** 2)
        loss.backward()
        with cr.no_grad():
            table.copy_(table - 0.1 * table.grad)
        table.grad = None
        return loss

    step(cr.tensor([3, -4]))
    before = table.numpy()
    for wrong in ([4, 0], [0, -5], [2**40, 1], [-(2**62), 0]):
        refused(lambda wrong=wrong: step(cr.tensor(wrong)))
        assert (table.numpy() == before).all()
    step(cr.tensor([0, 1]))
    assert (table.numpy() != before).any()


@check
def check_around_what_is_empty() -> None:
    def around(x: Any, y: Any, z: Any) -> Any:
        nothing = cr.concat([x, cr.tanh(x)], axis=1) * 2.0
        return (
            cr.sum(cr.pad(nothing, ((1, 0), (2, 1))), axis=0), cr.concat([nothing, z, cr.exp(nothing)], axis=1) + 1.0,
            cr.pad(cr.concat([y, y], axis=0)[:, 1:], ((0, 2), (0, 0))) - 1.0, cr.sum(x, axis=1), cr.sum(y,
            axis=0), x * 2.0,
            cr.cumulative_sum(x, axis=1), cr.prod(y), cr.all(x > 0, axis=1),
        )  # fmt: skip

    agree(around, normal(3, 0), normal(0, 4), normal(3, 2))


@check
def check_long_chains() -> None:
    """Expressions too long for one loop, and values that are read in many places."""

    def chain(x: Any) -> Any:
        y = z = x
        for k in range(150):
            y = cr.sin(y) if k % 40 == 7 else y * 0.99 - x * (0.01 * k)
        for _ in range(400):
            z = -z
        base = x * x + 1.0
        fan = [cr.sum(base * (0.1 * k + 1.0)) for k in range(70)]
        deep = cr.broadcast_to(cr.reshape(((x * 2.0 + 1.0) * x - 0.5) * x + 2.0, (67, 1)), (67, 40)) * cr.exp(
            x[:40]
        )
        return y, z, sum(fan[1:], fan[0]), deep

    agree(chain, normal(67), units=20000)


def _learnt_in_three_steps(compiled: bool) -> Any:
    """The weights of a small network after three updates with momentum."""
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 3))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x: Any) -> Any:
        loss = cr.mean(model(x) ** 2)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    run = cr.compile(step) if compiled else step
    for seed in range(3):
        run(cr.tensor(normal(5, 4, seed=seed).astype("float32")))
    return np.concatenate([one.detach().numpy().ravel() for one in model.parameters()])


@check
def check_calls_in_a_list() -> None:
    """The calls of long steps are read from a list, with other buffers and from other elements on; parts of it too."""
    before = entry._MOST_WRITTEN, entry._LEAST_ALIKE
    cached = os.environ.get("CHAINRULE_CACHE")
    entry._MOST_WRITTEN = entry._LEAST_ALIKE = 0
    os.environ["CHAINRULE_CACHE"] = "0"  # what is known of a plan does not know of the list
    try:
        agree(lambda x: x + 1.0, normal(3))
        agree(
            lambda x, y: (cr.exp(x) @ y, cr.sin(x) @ y, cr.sum(x * x), cr.flip(y)),
            normal(5, 4),
            normal(4, 6, seed=1),
        )
        agree(
            lambda x, y: (b := cr.sort(x * 2.0), cr.cumulative_sum(b) + y, cr.exp(cr.sort(y)) - b),
            normal(40), normal(40, seed=1),
        )  # fmt: skip
        wide = normal(70, 300)
        agree(
            lambda x: (F.softmax(x, axis=1), cr.max(x, axis=0), x[3:50, 10:] * 2.0, cr.mean(x, axis=0)), wide
        )
        weights = [_learnt_in_three_steps(compiled) for compiled in (False, True)]
        near(weights[1], weights[0], 64.0)
    finally:
        entry._MOST_WRITTEN, entry._LEAST_ALIKE = before
        os.environ.pop("CHAINRULE_CACHE")
        if cached is not None:
            os.environ["CHAINRULE_CACHE"] = cached


@check
def check_loops_that_are_joined() -> None:
    """Nests over the same memory, read in the same places and in others."""

    def joined(x: Any, y: Any, n: Any) -> Any:
        a, b = cr.exp(x), cr.sin(y)
        c = cr.flip(a) * b
        d = a + cr.roll(b, 1)
        e = c * c + cr.flip(d)
        scale = cr.sum(a)
        place = cr.astype(cr.cumulative_sum(cr.ones(130, dtype=x.dtype)) - 1.0, cr.int64)
        return (
            a,
            b,
            c,
            d,
            e,
            a * scale,
            cr.concat([a[65:], b[:65]]),
            cr.max(c) + d,
            cr.where(place < n, a, e),
            a[:7],
            b[3:10] * 2.0,
        )

    agree(joined, normal(130), normal(130, seed=1), np.array(64), units=64)
    pairs: list[Callable[[Any, Any], Any]] = [
        lambda x, y: (a := cr.exp(x), cr.flip(a) * 2.0),
        lambda x, y: (a := cr.exp(x), cr.reshape(cr.reshape(a, (10, 13)).T, (130,)) + 1.0),
        lambda x, y: (cr.exp(x), cr.sin(x), cr.exp(x) - cr.sin(x)),
        lambda x, y: (a := cr.exp(x), b := cr.flip(a) - y, a + b),
        lambda x, y: (a := cr.exp(x), b := cr.sin(y), cr.sum(cr.flip(a)), a * cr.sum(a), b * cr.sum(b)),
        lambda x, y: (a := cr.exp(x), b := a + a[7], cr.flip(b) + a),
        lambda x, y: (a := cr.exp(x)[:65], cr.sin(x)[65:] + a, x * 2.0),
        lambda x, y: (a := cr.exp(x), b := a @ cr.reshape(y, (130, 1)), a * b, cr.cumulative_sum(a), a - x),
    ]  # fmt: skip
    for one in pairs:
        agree(one, normal(130), normal(130, seed=1), units=64)


@check
def check_work_that_is_shared() -> None:
    """Flat and nested loops, products and convolutions that are long enough for threads: the same bits with each."""
    before = cr.get_num_threads()

    def shared(x: Any, y: Any, image: Any, kernel: Any) -> Any:
        flat = cr.exp(cr.reshape(x, (-1,))) + 1.0
        rows = cr.sum(cr.sin(x) * x, axis=1)
        return (
            flat,
            rows,
            cr.cumulative_sum(x, axis=1),
            x @ y,
            x.T @ x,
            F.conv2d(image, kernel),
            cr.sum(x, axis=0),
            F.softmax(x, axis=1),
        )

    given = [normal(300, 257, dtype="float32"), normal(257, 70, dtype="float32")]
    given += [normal(3, 5, 40, 41, dtype="float32"), normal(9, 5, 3, 3, dtype="float32")]
    try:
        cr.set_num_threads(1)
        step = agree(shared, *given, units=64)
        tensors = [cr.tensor(one) for one in given]
        wanted = [one.tobytes() for one in arrays_of(step(*tensors))]
        for count in (3, 2):
            cr.set_num_threads(count)
            for _ in range(3):
                assert [one.tobytes() for one in arrays_of(step(*tensors))] == wanted
    finally:
        cr.set_num_threads(1)
        cr.compile(lambda x: x @ x)(cr.tensor(normal(128, 128)))  # lets the threads end
        cr.set_num_threads(before)


@check
def check_values_that_wait_for_a_product() -> None:
    """What a product reads later keeps its bytes until then, whatever is computed in between."""

    def waiting(x: Any, y: Any) -> Any:
        a = cr.exp(x * 0.1)
        b = cr.cumulative_sum(x, axis=0)
        c = cr.cumulative_sum(b * 0.2, axis=1)
        d = cr.cumulative_sum(c - b, axis=0)
        e = cr.cumulative_sum(cr.tanh(d) @ y, axis=1)
        f = (a @ e) @ cr.cumulative_sum(c * 0.1, axis=1)
        return f, cr.sum(d @ a, axis=0), b @ cr.tanh(f)

    agree(waiting, normal(20, 20), normal(20, 20, seed=1), units=4000)


@check
def check_convolutions_that_are_seen_in_part() -> None:
    shown: list[Callable[[Any], Any]] = [
        lambda y: (y, y[:, 1:]), lambda y: y[:, :2], lambda y: y[:, ::2, 1:],
        lambda y: cr.permute_dims(y, (0, 2, 3, 1)),
        lambda y: (y[:, 1:], y[:, :1]), lambda y: y[:1, :, :3, 2:], lambda y: cr.flip(y, axis=1),
        lambda y: y[:, :, ::-1][:, 1:],
        lambda y: (y, cr.permute_dims(y, (1, 0, 3, 2))), lambda y: cr.reshape(y, (2, -1)), lambda y: y[..., 0],
    ]  # fmt: skip
    x, w, grouped = normal(2, 4, 7, 6), normal(6, 4, 3, 3), normal(6, 2, 3, 3)
    for one in shown:
        agree(lambda x, w, one=one: one(F.conv2d(x, w, padding=1)), x, w, units=64)
        agree(lambda x, w, one=one: one(F.conv2d(x, w, groups=2)), x, grouped, units=64)


# ------------------------------------------------------------------------------------------- loops over time


def check_scan(kind: str, steps: int) -> None:
    def make() -> Made:
        w, u = (cr.tensor(normal(4, 4, seed=k) * 0.5, requires_grad=True) for k in (1, 2))
        h = cr.tensor(normal(3, 4, seed=3), requires_grad=True)

        def cell(h: Any, x: Any) -> Any:
            h = cr.tanh(x @ w.T + h @ u.T)
            return h, h * h

        def swapped(carry: Any, x: Any) -> Any:
            a, b, same = carry
            return (b, a * 1.5, same), (x, a, w, x, same * x, b)

        def twice(carry: Any, x: Any) -> Any:
            new = cr.sin(carry[0] + carry[1] * x)
            return (new, new), (new, new, carry[0])

        def step(x: Any) -> Any:
            if kind == "swapped":
                last, ys = scan(swapped, (h, h * 2.0, h - 1.0), x)
            elif kind == "twice":
                last, ys = scan(twice, (h, h * 0.5), x, reverse=True)
            elif kind == "sorted":
                last, ys = scan(lambda c, x: (c + cr.sort(c @ w + x, axis=0), c), h, x)
            elif kind == "inside":
                last, ys = scan(lambda c, x: scan(cell, c, cr.stack([x, x * 0.5]) + c), h, x)
            else:
                options = {"reverse": kind == "reverse", "checkpoint_every": 2 if kind == "kept" else None}
                last, ys = scan(cell, h, x, **options)
            values = [
                *(last if isinstance(last, tuple) else (last,)),
                *(ys if isinstance(ys, tuple) else (ys,)),
            ]
            loss = sum((cr.sum(cr.sin(one)) * (k + 1.0) for k, one in enumerate(values)), cr.sum(h) * 0.0)
            loss.backward()
            with cr.no_grad():
                for one in (w, u, h):
                    one.copy_(one - 0.0 if one.grad is None else one - 0.1 * one.grad)
            for one in (w, u, h):
                one.grad = None
            return (loss, *values)

        return step, [w, u, h], [(cr.tensor(normal(steps, 3, 4, seed=k)),) for k in range(2)]

    learns(make, units=4000)


checks("scan", check_scan, [
    ("plain", 5), ("reverse", 4), ("kept", 5), ("swapped", 3), ("twice", 4), ("inside", 3), ("sorted", 3),
    ("plain", 1),
    ("swapped", 1), ("swapped", 2), ("reverse", 0), ("twice", 1), ("swapped", 0),
])  # fmt: skip


@check
def check_scans_without_gradients() -> None:
    w, table = (cr.tensor(normal(*shape), requires_grad=True) for shape in ((3,), (6, 3)))

    def kept(x: Any) -> Any:
        with cr.no_grad():
            before = scan(lambda c, x: (cr.sin(c * w + x), c), x[0], x)
            count = scan(lambda c, x: (c + 1, cr.take(table, c % 6, axis=0) + x), cr.tensor(2), x)
            alike = scan(lambda c, x: (c + cr.sum(w) * x, (c, c)), x[0], x, reverse=True)
            return (*before, *count, alike[0], *alike[1])

    for steps in (1, 2, 5):
        agree(kept, normal(steps, 3), units=64)


# ------------------------------------------------------------------------------------------- NumPy between


@check
def check_numpy_between_segments() -> None:
    def between(x: Any, n: Any) -> Any:
        y = cr.exp(x * 0.3) @ x
        order = cr.argsort(y, axis=1)
        z = cr.take_along_axis(y, order, axis=1) * 2.0
        power = (n * 2 + 1) ** (n % 3)
        view = cr.argsort(cr.permute_dims(y + 1.0, (1, 0))[::-1], axis=0)
        return (
            z,
            order,
            power,
            power + cr.astype(order[:, 0], cr.int64),
            view,
            cr.argsort(cr.flip(x, axis=0)[1:], axis=0),
            cr.sort(cr.tensor([3.0, 1.0])) + x[0, 0],
        )

    agree(between, normal(4, 4), np.array([3, 0, 5, 2]), units=64)


# ------------------------------------------------------------------------------------------- parts of the compiler

for _one in (
    test_compiler.test_positions_cancel_their_divisions, test_compiler.test_values_of_positions_are_those_of_integers,
    test_compiler.test_an_index_that_leaves_its_buffer_is_refused,
    test_compiler.test_fusion_verifier_refuses_a_read_before_the_store,
    test_compiler.test_the_arena_is_shared_and_never_overlaps,
):  # fmt: skip
    CHECKS[_one.__name__.removeprefix("test_")] = _one

# ------------------------------------------------------------------------------------------- anything

checks("random program", check_random_program, [
    (seed, FLOATS[seed % 2]) for seed in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
])  # fmt: skip
