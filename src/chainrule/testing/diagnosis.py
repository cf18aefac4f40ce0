"""What kind of mistake turns the right derivative into the wrong one: sign, factor, transposed, …

Each hypothesis is a formula that predicts the wrong numbers from the right ones; the first that holds
within the error bars is named. Knows arrays only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

KINDS = (
    "sign", "factor", "zero", "not finite", "transposed", "missing batch sum", "summed over the batch",
    "swapped", "reversed", "output used as slope", "local derivative missing", "shape", "values",
)  # fmt: skip
"""Every kind of mistake that a report can name; "values" is what no other name fits."""


@dataclass(frozen=True)
class Evidence:
    """What is known about one input: computed and numerical derivative, error bars, which elements are wrong."""

    computed: Array
    numerical: Array
    error: Array
    wrong: Array
    others: Sequence[tuple[str, Array]] = ()
    """Numerical derivatives of the other inputs, with their names."""
    rows: Array | None = None
    """Numerical derivative of each row of the output's first axis: (rows, *shape)."""
    output: Array | None = None
    weights: Array | None = None
    """The output and its contraction weights, if it has the input's shape."""


@dataclass(frozen=True)
class Diagnosis:
    """The kind, with the factor or the other input's name where that belongs to it."""

    kind: str
    factor: float | None = None
    detail: str = ""


def diagnose(evidence: Evidence) -> Diagnosis:
    """The simplest mistake that explains the numbers."""
    g, n, wrong = evidence.computed, evidence.numerical, evidence.wrong
    if not np.isfinite(g[wrong]).all():
        return Diagnosis("not finite")
    if not g[wrong].any():
        return Diagnosis("zero", 0.0)
    if _matches(evidence, -n):
        return Diagnosis("sign", -1.0)
    factor = _factor(evidence)
    if factor is not None and (
        _is_round(factor) or (np.count_nonzero(wrong) > 1 and not _constant(n[wrong]))
    ):
        return Diagnosis("factor", factor)
    for kind, detail, predicted in _hypotheses(evidence):
        if predicted.shape == g.shape and _matches(evidence, predicted):
            return Diagnosis(kind, None, detail)
    return (
        Diagnosis("factor", factor)
        if factor is not None and np.count_nonzero(wrong) > 1
        else Diagnosis("values")
    )


def from_shapes(expected: tuple[int, ...], got: tuple[int, ...]) -> Diagnosis:
    """The mistake behind a cotangent of the wrong shape."""
    if len(got) == len(expected) and got == expected[::-1]:
        return Diagnosis("transposed")
    extra = len(got) - len(expected)
    if (extra > 0 and got[extra:] == expected) or (
        extra == 0 and all(a in (b, 1) for a, b in zip(expected, got))
    ):
        return Diagnosis("missing batch sum")
    return Diagnosis("shape")


def _tolerance(evidence: Evidence) -> Array:
    known = np.abs(evidence.numerical[np.isfinite(evidence.numerical)])
    return 3 * evidence.error + 1e-4 * (known.max() if known.size else 1.0)


def _matches(evidence: Evidence, predicted: Array) -> bool:
    where = evidence.wrong & np.isfinite(predicted)
    if not where.any() or (evidence.wrong & ~where).any():
        return False
    off = np.abs(evidence.computed - predicted)
    scale = max(float(np.abs(predicted[where]).max()), 0.0) * 1e-4
    return bool((off[where] <= _tolerance(evidence)[where] + scale).all())


def _factor(evidence: Evidence) -> float | None:
    g, n = evidence.computed[evidence.wrong], evidence.numerical[evidence.wrong]
    size = float((n * n).sum())
    if size == 0:
        return None
    factor = float((g * n).sum()) / size
    return factor if _matches(evidence, factor * evidence.numerical) else None


def _is_round(factor: float) -> bool:
    """A small whole number or one over it: a slip that needs no second witness."""
    size = abs(factor) if abs(factor) >= 1 else 1 / abs(factor)
    return size < 1000.5 and abs(size - round(size)) < 1e-3


def _constant(values: Array) -> bool:
    return bool(np.ptp(values) <= 1e-6 * np.abs(values).max())


def _hypotheses(evidence: Evidence) -> Iterator[tuple[str, str, Array]]:
    n, g = evidence.numerical, evidence.computed
    if n.ndim >= 2:
        turned = np.swapaxes(n, -1, -2)
        yield "transposed", "", turned
        yield "transposed", "", turned.reshape(n.shape)
    for name, other in evidence.others:
        yield "swapped", name, other
    if evidence.rows is not None and len(evidence.rows) > 1:
        for row in evidence.rows:
            yield "missing batch sum", "", row
    if n.ndim and n.shape[0] > 1:
        yield "summed over the batch", "", np.broadcast_to(n.sum(axis=0), n.shape)
    for axis in range(n.ndim):
        yield "reversed", "", np.flip(n, axis)
    if evidence.output is not None and evidence.weights is not None and evidence.output.shape == g.shape:
        yield "local derivative missing", "", evidence.weights
        yield "output used as slope", "", evidence.weights * evidence.output
