"""The functions that compiled code writes out itself: errors against mpmath, and what the docs promise."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler.polynomials import OWN

ROOT = Path(__file__).resolve().parent.parent


def _accuracy() -> Any:
    specification = importlib.util.spec_from_file_location("accuracy", ROOT / "benchmarks" / "accuracy.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


accuracy = _accuracy()
TABLE = {
    (row[0], row[1]): tuple(map(float, row[2:]))
    for line in (ROOT / "docs" / "numerics.md").read_text(encoding="utf-8").splitlines()
    if (row := [cell.strip() for cell in line.strip("|").split("|")]) and re.fullmatch(r"[\d.]+", row[-1])
}
CASES = [(name, span) for name, spans in accuracy.RANGES.items() for span in spans]


def test_the_table_has_every_function_and_range() -> None:
    assert set(TABLE) == {(name, accuracy.told(span)) for name, span in CASES}
    assert set(OWN) <= set(accuracy.RANGES)
    assert all(one <= 4 for errors in TABLE.values() for one in errors)


@pytest.mark.parametrize("dtype", accuracy.FLOATS)
@pytest.mark.parametrize(("name", "span"), CASES, ids=lambda one: str(one).replace(" ", ""))
def test_errors_stay_below_those_of_the_table(name: str, span: Any, dtype: str) -> None:
    """On fewer numbers, and others; a sample of its own may find a slightly larger error than the table's."""
    promised = TABLE[name, accuracy.told(span)][accuracy.FLOATS.index(dtype)]
    assert accuracy.error(name, dtype, span, 600, seed=5) <= promised + 0.3


@pytest.mark.parametrize("dtype", accuracy.FLOATS)
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_circular_functions_of_the_hardest_numbers(name: str, dtype: str) -> None:
    """Multiples of π/2 and their neighbours, where nearly everything cancels, on both sides of the C library's part."""
    multiples = np.concatenate([np.arange(1, 2000), 636_000 + np.arange(1300), 10 ** np.arange(7, 30.0)])
    near = (multiples * (np.pi / 2)).astype(dtype)
    x = np.concatenate([near, np.nextafter(near, np.inf, dtype=dtype), np.nextafter(near, 0, dtype=dtype)])
    x = np.concatenate([x, -x, np.array([999_999.9, 1e6, 1_000_000.1]).astype(dtype)])
    found = cr.compile(getattr(cr, name))(cr.tensor(x)).numpy()
    with mpmath.workprec(300):
        for one, got in zip(x.tolist(), found):
            true = getattr(mpmath, name)(mpmath.mpf(one))
            unit = float(np.spacing(np.abs(np.asarray(float(true), dtype))))
            assert abs(mpmath.mpf(float(got)) - true) <= 1.5 * unit, one


def test_circular_functions_keep_their_vectors_beside_far_numbers() -> None:
    """One number beyond the polynomial's reach changes no other result; the call stands behind a branch."""
    x = np.linspace(-50, 50, 4099).astype("float32")
    step = cr.compile(lambda x: cr.sin(x) + cr.cos(x))
    alone = step(cr.tensor(x)).numpy()
    x[::97] = 3e30
    x[5] = np.inf
    beside = step(cr.tensor(x)).numpy()
    same = np.abs(x) < 100
    np.testing.assert_array_equal(beside[same], alone[same])
    assert np.isnan(beside[5]) and np.isfinite(np.delete(beside, 5)).all()
    text = step.stages()["llvm"]
    assert "phi float" in text and "call float @sinf" in text
