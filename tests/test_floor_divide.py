"""`x // y` of floats at the edges of the number system: what the array API standard says, in every engine."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
import pytest

import chainrule as cr

NUMBERS = [math.inf, -math.inf, math.nan, 0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.5, -3.5, 1e30, -1e30, 1e-30, 7.0]
ENGINES = ["eager", "native", pytest.param("jax", marks=pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="needs JAX"))]  # fmt: skip


def expected(x: float, y: float) -> float:
    """The standard's list of special cases, and ⌊x / y⌋ by whole numbers for the rest."""
    if math.isnan(x) or math.isnan(y) or (math.isinf(x) and math.isinf(y)) or (x == 0 and y == 0):
        return math.nan
    sign = math.copysign(1.0, x) * math.copysign(1.0, y)
    if math.isinf(x) or y == 0:
        return sign * math.inf
    if math.isinf(y) or x == 0:
        return sign * 0.0
    (above, below), (over, under) = x.as_integer_ratio(), y.as_integer_ratio()
    return float((above * under) // (below * over)) or sign * 0.0


def run(engine: str, function: Any) -> Any:
    if engine == "eager":
        return function
    return cr.compile(function, backend="native" if engine == "native" else "jax")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_pair_of_numbers(engine: str, dtype: str) -> None:
    pairs = [(x, y) for x in NUMBERS for y in NUMBERS]
    x, y = (np.array(side, dtype) for side in zip(*pairs))
    got = run(engine, lambda a, b: a // b)(cr.tensor(x), cr.tensor(y)).numpy()
    for k, (a, b) in enumerate(zip(x.tolist(), y.tolist())):
        with np.errstate(over="ignore"):
            wanted = np.array(expected(a, b), dtype)
        if np.isfinite(wanted) and abs(wanted) > 1e7:  # the quotient itself is rounded
            assert got[k] == pytest.approx(float(wanted), rel=1e-5), (a, b)
        else:
            assert np.array_equal(got[k], wanted, equal_nan=True), (a, b, got[k])
            assert np.isnan(wanted) or np.signbit(got[k]) == np.signbit(wanted), (a, b, got[k])


@pytest.mark.parametrize("engine", ENGINES)
def test_beside_a_plain_number_and_in_place_of_a_gradient(engine: str) -> None:
    assert run(engine, lambda a: a // 2)(cr.tensor([math.inf, -math.inf])).tolist() == [math.inf, -math.inf]
    assert run(engine, lambda a: 1 // a)(cr.tensor([-math.inf])).tolist() == [0.0]
    slope = run(engine, cr.grad(lambda a: (a // 2).sum()))(cr.tensor([math.inf, 3.0]))
    assert slope.tolist() == [0.0, 0.0]
