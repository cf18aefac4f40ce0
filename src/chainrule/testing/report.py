"""What a gradient check found: a verdict for each input and element, and a table that a learner can read.

Knows nothing of how derivatives are computed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..language import sentence
from .diagnosis import Diagnosis

RULE = "custom_gradient"
"""Name of the row for a rule that answered in the wrong shape: there is no element to compare then."""

CORRECT, WRONG, UNDECIDED, SKIPPED = "correct", "wrong", "not decidable here", "not checked"


@dataclass(frozen=True, slots=True)
class Element:
    """One number: where it stands, what was computed, what the differences give, and the verdict."""

    index: tuple[int, ...]
    verdict: str
    computed: float
    numerical: float
    error: float
    reason: str


@dataclass
class InputCheck:
    """One input in one mode and order.

    computed, numerical, error (the bar of the numerical one) and verdicts have the input's shape; `reasons`
    says for each undecided element what is in the way: kink, edge, diverges, noise, convention or rounding.
    """

    name: str
    order: int
    mode: str
    computed: NDArray[Any]
    numerical: NDArray[Any]
    error: NDArray[Any]
    verdicts: NDArray[Any]
    reasons: dict[tuple[int, ...], str] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None

    @property
    def verdict(self) -> str:
        """The worst verdict of all elements."""
        found = set(self.verdicts.ravel().tolist())
        return next((one for one in (WRONG, UNDECIDED, CORRECT) if one in found), CORRECT)

    @property
    def kind(self) -> str | None:
        """The kind of mistake, if there is one: one of `KINDS`."""
        return self.diagnosis.kind if self.diagnosis is not None else None

    @property
    def factor(self) -> float | None:
        """computed / right, where the mistake is a factor."""
        return self.diagnosis.factor if self.diagnosis is not None else None

    def elements(self, verdict: str | None = None) -> list[Element]:
        """Every element, or those of one verdict."""
        return [
            Element(
                index,
                str(self.verdicts[index]),
                float(self.computed[index]),
                float(self.numerical[index]),
                float(self.error[index]),
                self.reasons.get(index, ""),
            )
            for index in np.ndindex(self.verdicts.shape)
            if verdict is None or self.verdicts[index] == verdict
        ]


@dataclass
class GradientReport:
    """The result of `check_grads`: `ok`, one `InputCheck` per input, mode and order, and the cost.

    forward_passes: how often the function ran for the numerical derivatives of first order;
    backward_passes: what reverse mode needed for the same numbers. The seconds are as measured.
    """

    checks: list[InputCheck]
    notes: list[str] = field(default_factory=list)
    elements: int = 0
    forward_passes: int = 0
    backward_passes: int = 1
    numerical_seconds: float = 0.0
    backward_seconds: float = 0.0
    shape_fault: str = ""

    @property
    def ok(self) -> bool:
        """True if nothing is wrong (what cannot be decided is not wrong)."""
        return not self.wrong and not self.shape_fault

    @property
    def wrong(self) -> list[InputCheck]:
        """The checks that found a mistake."""
        return [one for one in self.checks if one.verdict == WRONG]

    @property
    def undecided(self) -> list[InputCheck]:
        """The checks with an element that cannot be decided, and none that is wrong."""
        return [one for one in self.checks if one.verdict == UNDECIDED]

    def text(self, language: str = "en") -> str:
        """The report as a table with sentences below, in "en" or "ko"."""

        def say(key: str, **values: Any) -> str:
            return sentence(f"testing.{key}", language, **values)

        rows = [[say(f"column_{name}") for name in ("input", "order", "mode", "verdict", "off", "bar")]]
        for one in self.checks:
            off, bar = _largest(one)
            verdict = say(_KEYS[one.verdict])
            shape = one.verdicts.shape
            rows.append([f"{one.name}  {shape}" if shape else one.name, str(one.order),
                         say(f"mode_{one.mode.replace(' ', '_')}"), verdict, off, bar])  # fmt: skip
        head = "bad" if not self.ok else "open" if self.undecided else "good"
        lines = [say(head, elements=self.elements), "", *_table(rows)]
        details = [line for one in self.checks for line in _details(one, say)]
        if self.shape_fault:
            details.append(f"{say(_kind_key(self.wrong[0]))}: {self.shape_fault}")
        if details:
            lines += ["", *dict.fromkeys(details)]
        lines += ["", *(say(note) for note in self.notes), *self._cost(say)]
        return "\n".join(lines)

    def _cost(self, say: Any) -> list[str]:
        if not self.forward_passes:
            return []
        steps = max(round(self.forward_passes / (2 * max(self.elements, 1))), 1)
        return [
            say(
                "effort",
                passes=self.forward_passes,
                elements=self.elements,
                steps=steps,
                numerical=_duration(self.numerical_seconds),
                backward=_duration(self.backward_seconds),
            )
        ]

    def __str__(self) -> str:
        return self.text()


_KEYS = {CORRECT: "correct", WRONG: "wrong", UNDECIDED: "undecided", SKIPPED: "skipped"}


def _largest(one: InputCheck) -> tuple[str, str]:
    """The largest deviation of the elements with the row's verdict, and the bar of that element."""
    chosen = (one.verdicts == one.verdict) & (one.verdicts != SKIPPED)
    if not chosen.any():
        return "–", "–"
    with np.errstate(invalid="ignore"):
        off = np.where(chosen, np.abs(one.computed - one.numerical), -1.0)
    place = np.unravel_index(int(np.argmax(np.where(np.isnan(off), np.inf, off))), off.shape)
    return _number(float(off[place])), _number(float(one.error[place]))


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "∞" if np.isinf(value) else "?"
    return f"{value:.1e}" if value else "0"


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(_width, column)) for column in zip(*rows)]
    return [
        "  ".join(cell + " " * (w - _width(cell)) for cell, w in zip(row, widths)).rstrip() for row in rows
    ]


def _width(text: str) -> int:
    """Columns on a terminal: Hangul takes two."""
    return sum(2 if "ᄀ" <= letter <= "힣" else 1 for letter in text)


def _details(one: InputCheck, say: Any) -> list[str]:
    """A sentence for each mistake, and one for each reason why something cannot be decided."""
    lines = []
    if one.diagnosis is not None and one.name != RULE:
        first = one.elements(WRONG)[0]
        what = say(_kind_key(one), factor=_factor_text(one.factor), detail=one.diagnosis.detail)
        lines.append(
            say(
                "mistake",
                name=_place(one.name, first.index),
                order=one.order,
                mode=say(f"mode_{one.mode.replace(' ', '_')}"),
                what=what,
                computed=f"{first.computed:.6g}",
                numerical=f"{first.numerical:.6g}",
                error=_number(first.error),
                count=int((one.verdicts == WRONG).sum()),
                size=one.verdicts.size,
            )
        )
    counted = Counter(one.reasons[index] for index in sorted(one.reasons))
    for reason, count in counted.items():
        index = next(index for index in sorted(one.reasons) if one.reasons[index] == reason)
        place = _place(one.name, index)
        more = say("more", count=count - 1) if count > 1 else ""
        lines.append(say("reason_" + reason, name=place, more=more))
    return lines


def _kind_key(one: InputCheck) -> str:
    return "kind_" + str(one.kind).replace(" ", "_")


def _place(name: str, index: tuple[int, ...]) -> str:
    return f"{name}{list(index)}" if index else name


def _factor_text(factor: float | None) -> str:
    if factor is None:
        return ""
    if 0 < abs(factor) < 1 and abs(1 / factor - round(1 / factor)) < 1e-3:
        return f"{'-' if factor < 0 else ''}1/{abs(round(1 / factor))}"
    return f"{factor:.4g}"
