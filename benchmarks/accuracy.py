"""Errors of the functions that compiled code writes out itself, in units in the last place, against mpmath.

python benchmarks/accuracy.py                    # the table of docs/numerics.md
python benchmarks/accuracy.py --points 200000 --seed 7
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import mpmath
import numpy as np

import chainrule as cr

POINTS = 20_000
FLOATS = ("float32", "float64")
# The smallest size of ranges that reach to 0.
_SMALL = 1e-8

Range = tuple[float, float]

# Every function with the ranges that are measured. Numbers are drawn evenly, and again evenly in their logarithm.
RANGES: dict[str, tuple[Range, ...]] = {
    "exp": ((-87.0, 88.0),),
    "expm1": ((-20.0, 88.0),),
    "log": ((1e-30, 1e30), (0.5, 2.0)),
    "log1p": ((-0.9, 1e30), (-0.5, 0.5)),
    "log2": ((1e-30, 1e30), (0.5, 2.0)),
    "log10": ((1e-30, 1e30), (0.5, 2.0)),
    "tanh": ((-20.0, 20.0),),
    "sigmoid": ((-80.0, 80.0),),
    "erf": ((-6.0, 6.0),),
    "sin": ((-10.0, 10.0), (-1e6, 1e6), (-1e30, 1e30)),
    "cos": ((-10.0, 10.0), (-1e6, 1e6), (-1e30, 1e30)),
}
_TRUE: dict[str, Callable[[Any], Any]] = {
    "log2": lambda x: mpmath.log(x, 2),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
}


def points(low: float, high: float, dtype: str, count: int, seed: int) -> Any:
    """Numbers of a range: half of them evenly, half evenly in the logarithm of their size, on both sides of 0."""
    random = np.random.default_rng(seed)
    parts = [random.uniform(low, high, count // 2)]
    sides = [(sign, end) for sign, end in ((-1, -low), (1, high)) if end > 0]
    for sign, end in sides:
        begin = low if low > 0 else min(_SMALL, end / 2)
        parts.append(sign * np.exp(random.uniform(np.log(begin), np.log(end), count // 2 // len(sides))))
    return np.clip(np.concatenate(parts), low, high).astype(dtype)


def error(name: str, dtype: str, span: Range, count: int = POINTS, seed: int = 0) -> float:
    """The largest error of the compiled function over the range, in units in the last place of the true result."""
    x = points(*span, dtype, count, seed)
    found = cr.compile(getattr(cr, name))(cr.tensor(x)).numpy()
    function = _TRUE.get(name, getattr(mpmath, name, None))
    worst = 0.0
    with mpmath.workprec(160):
        for one, got in zip(x.tolist(), found):
            true = function(mpmath.mpf(one))  # type: ignore[misc]
            unit = float(np.spacing(np.abs(np.asarray(float(true), dtype))))
            worst = max(worst, float(abs(mpmath.mpf(float(got)) - true) / unit))
    return worst


def rows(count: int = POINTS, seed: int = 0) -> Iterator[tuple[str, Range, list[float]]]:
    """(function, range, error in each dtype), measured."""
    for name, spans in RANGES.items():
        for span in spans:
            yield name, span, [error(name, dtype, span, count, seed) for dtype in FLOATS]


def told(span: Range) -> str:
    """A range as the table shows it."""
    return f"{span[0]:g} … {span[1]:g}".replace("e+0", "e").replace("e+", "e").replace("-", "−")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| function | range | float32 | float64 |\n|---|---|---|---|")
    for name, span, errors in rows(arguments.points, arguments.seed):
        print(f"| {name} | {told(span)} | {' | '.join(f'{one:.2f}' for one in errors)} |", flush=True)


if __name__ == "__main__":
    main()
