"""`check_grads`: both modes of differentiation against numerical differentiation, element by element.

An element is wrong only if it lies outside the numerical error bar here and also right beside here; so a
convention at a kink or a removable singularity is never called a mistake.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dtypes import float32, float64
from ..errors import ArgumentError, CotangentError, GradientCheckError, GradientError
from .diagnosis import Diagnosis, Evidence, diagnose, from_shapes
from .differences import DIVERGES, NEGLIGIBLE, ONE_SIDED, Estimate, differentiate
from .problems import Problem, in_float64, unpack
from .report import CORRECT, RULE, SKIPPED, UNDECIDED, WRONG, GradientReport, InputCheck

Array = NDArray[Any]

# How far a right derivative may be off beside the error bar, relative to its size: enough for rounding in the
# rule itself, far too little for a mistake to hide in.
_TOLERANCE = {float64: 1e-6, float32: 2e-3}
# A bar wider than this part of the derivative decides nothing.
_INFORMATIVE = 0.05
# How far "right beside here" is, relative to max(1, |x|).
_BESIDE = 1e-3
# Steps are smaller there, so that a staircase that looked like a slope here does not look like one again.
_REACH_BESIDE = 1 / 16
_ROWS_LIMIT = 64


def check_grads(
    function: Callable[..., Any],
    args: Any,
    order: int = 2,
    modes: Sequence[str] = ("forward", "reverse"),
    *,
    elements: int | None = None,
    raise_on_error: bool = True,
) -> GradientReport:
    """Compare the derivatives of `function` at `args` with numerical differentiation, and say what is wrong.

    args: a tuple of positional arguments, pytrees of tensors, arrays and numbers; integers and bools are kept
    fixed. The function returns a float tensor or a pytree of them; several outputs are contracted with fixed
    random weights. order: 1, or 2 to differentiate the derivative again in each mode. elements: check at most so
    many elements of each input, chosen by a fixed seed. float32 functions are judged in float64 where they
    can compute in it, otherwise with error bars that know the rounding of float32.
    Raises GradientCheckError (an AssertionError, with the `report`) if anything is wrong.

    >>> import chainrule as cr
    >>> report = check_grads(lambda x: (x * cr.sin(x)).sum(), (cr.tensor([0.5, 1.0]),))
    >>> report.ok, report.checks[0].verdict
    (True, 'correct')
    """
    if order not in (1, 2) or not modes or set(modes) - {"forward", "reverse"}:
        raise ArgumentError(
            f"check_grads needs order 1 or 2 and modes out of 'forward' and 'reverse'; got {order!r}, {modes!r}"
        )
    call, leaves, names = unpack(function, args)
    wide = in_float64(call, leaves)
    problem = Problem(call, leaves if wide is None else wide)
    narrow = Problem(call, leaves, problem.weights) if wide is not None and _mixed(leaves) else None
    report = GradientReport([], elements=sum(_count(leaf, elements) for leaf in leaves))
    if len(problem.outputs) > 1 or problem.outputs[0].size > 1:
        report.notes.append("contracted")
    if wide is None:
        report.notes.append("in_float32")
    try:
        _Check(problem, names, report, 1, elements).run({mode: mode for mode in modes}, narrow)
        if order == 2 and report.ok:
            _second_order(problem, names, report, modes, elements)
        elif order == 2:
            report.notes.append("order_2_skipped")
    except CotangentError as fault:
        diagnosis = from_shapes(fault.expected, fault.got)
        report.shape_fault = str(fault)
        report.checks.append(_shape_check(fault, diagnosis))
    if raise_on_error and not report.ok:
        raise GradientCheckError(f"a derivative is wrong.\n{report}\n", report)
    return report


def _mixed(leaves: list[Array]) -> bool:
    return any(leaf.dtype == float32 for leaf in leaves)


def _count(leaf: Array, elements: int | None) -> int:
    return leaf.size if elements is None else min(leaf.size, elements)


def _shape_check(fault: CotangentError, diagnosis: Diagnosis) -> InputCheck:
    unknown = np.full(fault.expected, np.nan)
    verdicts = np.full(fault.expected, WRONG, dtype=object)
    return InputCheck(RULE, 1, "reverse", unknown, unknown, unknown, verdicts, {}, diagnosis)


def _second_order(
    problem: Problem, names: list[str], report: GradientReport, modes: Sequence[str], elements: int | None
) -> None:
    """Differentiate the derivative along a fixed random direction, in every mode over every mode."""
    random = np.random.default_rng(21)
    directions = [random.uniform(0.5, 1.5, leaf.shape) for leaf in problem.leaves]
    for inner in modes:
        try:
            slope = problem.slope(inner, directions)
        except GradientError:
            continue
        outer = {f"{one} over {inner}": one for one in modes}
        _Check(slope, names, report, 2, elements).run(outer, None)


@dataclass(frozen=True)
class _Numbers:
    """Numerical derivatives of all inputs at one point."""

    values: list[Array]
    errors: list[Array]
    chords: list[Array]
    obstacles: list[Array]


class _Check:
    """One order: numerical derivatives once, then each mode beside them."""

    def __init__(
        self, problem: Problem, names: list[str], report: GradientReport, order: int, elements: int | None
    ) -> None:
        self.problem = problem
        self.names = names
        self.report = report
        self.order = order
        self.reach = 1.0
        self.precision = float32 if any(out.dtype == float32 for out in problem.outputs) else float64
        random = np.random.default_rng(22)
        self.chosen = [
            np.isin(np.arange(leaf.size), random.permutation(leaf.size)[: _count(leaf, elements)])
            for leaf in problem.leaves
        ]

    def run(self, modes: dict[str, str], narrow: Problem | None) -> None:
        """Add one InputCheck for each mode and input to the report."""
        start = time.perf_counter()
        self.problem.forward_passes = 0
        numbers = self._numbers(self.problem.leaves, self.chosen)
        if self.order == 1:
            self.report.numerical_seconds = time.perf_counter() - start
            self.report.forward_passes = self.problem.forward_passes
        for label, mode in modes.items():
            try:
                start = time.perf_counter()
                computed = self.problem.derivative(mode)
                if mode == "reverse" and self.order == 1:
                    self.report.backward_seconds = time.perf_counter() - start
            except CotangentError:
                raise
            except GradientError:
                if "no_" + mode not in self.report.notes:
                    self.report.notes.append("no_" + mode)
                continue
            checks = [self._judge(k, label, computed[k], numbers) for k in range(len(self.names))]
            self._reconsider(checks, mode)
            for k, check in enumerate(checks):
                if check.verdict == WRONG:
                    check.diagnosis = diagnose(self._evidence(k, check, numbers))
            if narrow is not None:
                _compare_float32(checks, narrow.derivative(mode))
            self.report.checks += checks

    # ------------------------------------------------------------------------------ numerically

    def _numbers(self, leaves: list[Array], chosen: list[Array]) -> _Numbers:
        """Numerical derivatives by every chosen element."""
        noise = self.problem.noise()
        base = self.problem.number(leaves)
        values, errors, chords, obstacles = [], [], [], []
        for k, leaf in enumerate(leaves):
            value, error, chord = np.full(leaf.size, np.nan), np.full(leaf.size, np.inf), np.zeros(leaf.size)
            obstacle = np.full(leaf.size, "", dtype=object)
            for place in np.flatnonzero(chosen[k]):
                estimate = self._element(leaves, k, int(place), base, noise)
                value[place], error[place] = estimate.value, estimate.error
                chord[place], obstacle[place] = estimate.chord, estimate.obstacle
            values.append(value.reshape(leaf.shape))
            errors.append(error.reshape(leaf.shape))
            chords.append(chord.reshape(leaf.shape))
            obstacles.append(obstacle.reshape(leaf.shape))
        return _Numbers(values, errors, chords, obstacles)

    def _element(self, leaves: list[Array], k: int, place: int, base: float, noise: float) -> Estimate:
        x = float(leaves[k].flat[place])
        if not (np.isfinite(x) and np.isfinite(base)):
            return Estimate(np.nan, np.inf, ONE_SIDED, 0.0, 0)

        def along(step: float) -> tuple[float, float]:
            moved, taken = _moved(leaves, k, place, step)
            return self.problem.number(moved), taken

        return differentiate(
            along,
            x,
            value=base,
            noise=noise,
            resolution=float(np.finfo(leaves[k].dtype).eps) if leaves[k].dtype == float64 else 0.0,
            goal=_TOLERANCE[self.precision] / 10,
            reach=self.reach,
        )

    # ---------------------------------------------------------------------------------- verdicts

    def _judge(self, k: int, label: str, computed: Array, numbers: _Numbers) -> InputCheck:
        value, error = numbers.values[k], numbers.errors[k]
        known = np.abs(value[np.isfinite(value)])
        largest = float(known.max()) if known.size else 0.0
        verdicts = np.full(value.shape, SKIPPED, dtype=object)
        reasons: dict[tuple[int, ...], str] = {}
        chosen = self.chosen[k].reshape(value.shape)
        size = np.abs(self.problem.leaves[k])
        for index in np.ndindex(value.shape):
            if not chosen[index]:
                continue
            a, n, bar = float(computed[index]), float(value[index]), float(error[index])
            floor = (
                np.sqrt(np.finfo(self.precision).eps) * self.problem.magnitude / max(float(size[index]), 1.0)
            )
            near = NEGLIGIBLE * max(largest, float(numbers.chords[k][index]))
            verdicts[index] = _verdict(a, n, bar, near, floor, _TOLERANCE[self.precision])
            if not np.isfinite(a) and self.problem.partial:
                verdicts[index], reasons[index] = UNDECIDED, ONE_SIDED
            elif np.isnan(a) and self.problem.singular:
                verdicts[index], reasons[index] = UNDECIDED, DIVERGES
            elif verdicts[index] == UNDECIDED:
                reasons[index] = str(numbers.obstacles[k][index])
        return InputCheck(self.names[k], self.order, label, computed, value, error, verdicts, reasons)

    def _reconsider(self, checks: list[InputCheck], mode: str) -> None:
        """What is wrong here but wrong on neither side of here is a convention at a singular point."""
        suspects = [(check.verdicts == WRONG).ravel() for check in checks]
        if not any(one.any() for one in suspects):
            return
        still = [np.zeros(one.shape, bool) for one in suspects]
        for sign in (1.0, -1.0):
            random = np.random.default_rng(23)
            beside = [_shifted(leaf, sign, random) for leaf in self.problem.leaves]
            problem = Problem(self.problem.call, beside, self.problem.weights)
            other = _Check(problem, self.names, self.report, self.order, None)
            other.chosen, other.reach = suspects, _REACH_BESIDE
            numbers, computed = other._numbers(beside, suspects), problem.derivative(mode)
            for k, check in enumerate(checks):
                found = other._judge(k, check.mode, computed[k], numbers).verdicts.ravel()
                still[k] |= found == WRONG
        for suspect, wrong, check in zip(suspects, still, checks):
            for place in np.flatnonzero(suspect & ~wrong):
                index = tuple(int(i) for i in np.unravel_index(place, check.verdicts.shape))
                check.verdicts[index] = UNDECIDED
                check.reasons[index] = "convention"

    def _evidence(self, k: int, check: InputCheck, numbers: _Numbers) -> Evidence:
        outputs, weights = self.problem.outputs, self.problem.weights
        shape = check.computed.shape
        same = len(outputs) == 1 and outputs[0].shape == shape
        return Evidence(
            check.computed,
            check.numerical,
            check.error,
            check.verdicts == WRONG,
            [
                (self.names[j], numbers.values[j])
                for j in range(len(self.names))
                if j != k and numbers.values[j].shape == shape
            ],
            self._rows(k),
            outputs[0] if same else None,
            weights[0] if same else None,
        )

    def _rows(self, k: int) -> Array | None:
        """What each row of the (only) output contributes, by plain central differences."""
        outputs, leaves = self.problem.outputs, self.problem.leaves
        if len(outputs) != 1 or outputs[0].ndim < 2 or not 1 < outputs[0].shape[0] <= _ROWS_LIMIT:
            return None
        step = float(np.finfo(self.precision).eps) ** (1 / 3)
        columns = []
        for place in range(leaves[k].size):
            size = step * max(1.0, abs(float(leaves[k].flat[place])))
            (above, up), (below, down) = (_moved(leaves, k, place, s) for s in (size, -size))
            difference = self.problem.rows(above)[0] - self.problem.rows(below)[0]
            columns.append(difference.reshape(len(difference), -1).sum(axis=1) / (up - down))
        return np.stack(columns, axis=1).reshape(len(outputs[0]), *leaves[k].shape)


def _moved(leaves: list[Array], k: int, place: int, step: float) -> tuple[list[Array], float]:
    """The leaves with one element moved, and the step as rounding really made it."""
    moved = leaves[k].copy()
    before = float(moved.flat[place])
    moved.flat[place] = before + step
    return [*leaves[:k], moved, *leaves[k + 1 :]], float(moved.flat[place]) - before


def _shifted(leaf: Array, sign: float, random: np.random.Generator) -> Array:
    """The leaf with every element moved by another amount, so that ties come apart."""
    amount = sign * _BESIDE * random.uniform(0.5, 1.5, leaf.shape) * np.maximum(np.abs(leaf), 1.0)
    return np.asarray(leaf + amount, leaf.dtype)


def _verdict(a: float, n: float, bar: float, near: float, floor: float, tolerance: float) -> str:
    """Computed `a` against numerical `n` ± `bar`; `near` and `floor` say what counts as zero here."""
    if not np.isfinite(n) or not np.isfinite(bar):
        return UNDECIDED
    if not np.isfinite(a):
        return WRONG if bar <= max(_INFORMATIVE * abs(n), floor) else UNDECIDED
    scale = max(abs(a), abs(n), near)
    if abs(a - n) > bar + tolerance * scale:
        return WRONG
    return CORRECT if bar <= max(_INFORMATIVE * scale, floor) else UNDECIDED


def _compare_float32(checks: list[InputCheck], narrow: list[Array]) -> None:
    """The rule was judged in float64; here the same rule's float32 numbers are put beside it.

    A deviation that is a clean sign, factor or transposition cannot be rounding; any other is.
    """
    for check, found in zip(checks, narrow):
        wide = check.computed
        check.computed = found.astype(float64)
        known = np.abs(wide[np.isfinite(wide)])
        scale = np.maximum(np.abs(wide), 1e-2 * (known.max() if known.size else 0.0))
        with np.errstate(invalid="ignore"):
            off = ~(np.abs(check.computed - wide) <= _TOLERANCE[float32] * scale)
        off &= (check.verdicts == CORRECT) & ~((wide == check.computed) | (np.isnan(wide) & np.isnan(found)))
        if not off.any():
            continue
        diagnosis = diagnose(Evidence(check.computed, wide, 1e-3 * scale, off))
        clean = diagnosis.kind in ("sign", "factor", "transposed") and np.count_nonzero(off) > 1
        for index in zip(*np.nonzero(off)) if off.ndim else [()]:
            place = tuple(int(i) for i in index)
            check.verdicts[place] = WRONG if clean else UNDECIDED
            if not clean:
                check.reasons[place] = "rounding"
        if clean:
            check.diagnosis = diagnosis
