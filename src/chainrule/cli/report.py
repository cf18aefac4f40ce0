"""What the commands on tables print: labelled lines and aligned columns, as wide as Korean letters need.

Knows plans and outcomes of `train.tabular`; decides nothing.
"""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from ..data.tabular import Column, Fact
from ..language import sentence
from ..train.files import readable
from ..train.tabular import Outcome, Plan, accuracy_interval

# Longer lists of columns or classes are cut, so that the score stays on the screen.
_SHOWN_COLUMNS = 12
_SHOWN_CLASSES = 8

# Facts that go without saying.
_ORDINARY = {"encoding_utf8", "delimiter_comma", "number", "category", "boolean"}

_LABELS = ("data", "target", "split", "network", "training", "test", "saved", "next", "note")


def width(text: str) -> int:
    """How many cells of a terminal the text takes: Korean letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def padded(text: str, cells: int) -> str:
    """The text, with blanks behind it up to so many cells."""
    return text + " " * (cells - width(text))


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows of texts as lines with columns of equal width."""
    table = [list(row) for row in rows]
    widths = [max(map(width, column)) for column in zip(*table)]
    return ["  ".join(map(padded, row, widths)).rstrip() for row in table]


class Report:
    """Prints lines with a label before them in one language, or nothing if it is silent."""

    def __init__(self, language: str, silent: bool = False) -> None:
        self.language = language
        self._silent = silent
        self._indent = 2 + max(width(self.say(f"train.{label}")) for label in _LABELS)

    def say(self, key: str, **values: Any) -> str:
        """A sentence of the catalogue."""
        return sentence(key, self.language, **values)

    def told(self, fact: Fact) -> str:
        """A fact in words."""
        return fact.told(self.language)

    def line(self, label: str, text: str = "") -> None:
        """A line with the label of the catalogue's `[train]` (or another room's) before it."""
        if self._silent:
            return
        key = label if "." in label else f"train.{label}"
        head = self.say(key) if label else ""
        print((padded(head, self._indent) + text).rstrip(), flush=True)

    def lines(self, texts: Iterable[str]) -> None:
        """Lines below a label."""
        for text in texts:
            self.line("", text)

    def text(self, text: str) -> None:
        """A line of its own."""
        if not self._silent:
            print(text)

    def blank(self) -> None:
        """An empty line."""
        if not self._silent:
            print()


def number(value: float) -> str:
    """A number of a table or a score, short."""
    return f"{value:.6g}"


# ------------------------------------------------------------------------------------------- the plan


def report_plan(plan: Plan, report: Report) -> None:
    """Data, target, split and network, before training."""
    reading, schema = plan.table.reading, plan.schema
    name = readable(os.path.basename(reading.path))
    report.line("data", report.say("train.data_size", name=name, rows=reading.rows, columns=reading.columns))
    report.lines(report.told(one) for one in reading.facts if one.key not in _ORDINARY)
    used, skipped = schema.features, schema.skipped
    shown = [*used[:_SHOWN_COLUMNS], *skipped[:_SHOWN_COLUMNS]]
    report.lines(aligned(_column_row(column, report) for column in shown))
    if len(shown) < len(used) + len(skipped):
        report.line("", report.say("train.more_columns", count=len(used) + len(skipped) - len(shown)))
    target = plan.preparation.target
    report.line("target", f"{target.name} — {report.told(target.reason)}")
    if target.classes:
        counted = [f"{name} {count}" for name, count in zip(target.classes, target.counts)]
        extra = len(counted) - _SHOWN_CLASSES
        more = [report.say("train.more_classes", count=extra)] if extra > 0 else []
        report.line("", " · ".join(counted[:_SHOWN_CLASSES] + more))
    report.lines(map(report.told, target.facts))
    training, validation, test = map(len, plan.parts)
    sizes = {"training": training, "validation": validation, "test": test, "seed": plan.settings.seed}
    report.line("split", report.say("train.split_sizes", **sizes))
    report.lines(map(report.told, plan.facts))
    shape = " → ".join(map(str, plan.sizes))
    report.line(
        "network",
        report.say(
            "train.network_shape", sizes=shape, parameters=f"{plan.parameters:,}", batch=plan.batch_size
        ),
    )


def _column_row(column: Column, report: Report) -> list[str]:
    if not column.used:
        reason = report.told(column.reason)
        mark = report.say("train.kind_skipped")
        return [column.name, mark, reason.removeprefix(f"{mark}: ")]
    notes = []
    if column.minimum is not None:
        low, high = (
            one if isinstance(one, str) else number(one or 0.0) for one in (column.minimum, column.maximum)
        )
        notes.append(report.say("train.span", low=low, high=high))
    elif column.common:
        notes.append(", ".join(name for name, _ in column.common[:4]) + (", …" if column.levels > 4 else ""))
    if column.reason.key not in _ORDINARY:
        notes.append(report.told(column.reason))
    if column.missing:
        notes.append(report.say("train.missing", count=column.missing))
    return [column.name, report.say(f"train.kind_{column.kind}"), "; ".join(notes)]


# ------------------------------------------------------------------------------------------- the outcome


def report_outcome(outcome: Outcome, report: Report) -> None:
    """How training ended, and the score of the test rows beside the baseline."""
    run, plan = outcome.run, outcome.plan
    ending = {"epochs": len(run.history), "best": run.best_epoch, "patience": plan.settings.patience}
    report.line("training", report.say(f"train.{run.stopped}", **ending))
    report.line("test", report.say("train.test_rows", rows=outcome.test_rows))
    rows = [["", report.say("train.column_network"), report.say("train.column_baseline"), ""]]
    for name, value in outcome.score.items():
        detail = _accuracy_detail(outcome, value, report) if name == "accuracy" else ""
        rows.append(
            [
                report.say(f"train.{name}"),
                score_text(name, value),
                score_text(name, outcome.baseline[name]),
                detail,
            ]
        )
    report.lines(aligned(rows))
    report.line("", _baseline(outcome, report))
    if not outcome.beats_baseline:
        report.line("note", report.say("train.no_better"))


def score_text(name: str, value: float) -> str:
    """A score: shares with three places, errors in the target's unit with four digits."""
    return f"{value:.4g}" if name == "mean_absolute_error" else f"{value:.3f}"


def _accuracy_detail(outcome: Outcome, value: float, report: Report) -> str:
    low, high = accuracy_interval(value, outcome.test_rows)
    hits = round(value * outcome.test_rows)
    detail = report.say(
        "train.accuracy_detail", hits=hits, rows=outcome.test_rows, low=f"{low:.2f}", high=f"{high:.2f}"
    )
    return f"({detail})"


def _baseline(outcome: Outcome, report: Report) -> str:
    if outcome.baseline_class is None:
        return report.say("train.baseline_mean")
    return report.say("train.baseline_class", name=repr(outcome.baseline_class))


def command(*parts: str) -> str:
    """A command line to copy, with quotes where a shell needs them."""
    return " ".join(shlex.quote(readable(part)) for part in parts)
