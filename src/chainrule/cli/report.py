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
from ..language import sentence, visible
from ..train.files import readable
from ..train.rivals import Difference, accuracy_interval
from ..train.tabular import Outcome, Plan, Record
from ..train.validation import CrossValidation

# Longer lists of columns or classes are cut, so that the score stays on the screen.
_SHOWN_COLUMNS = 12
_SHOWN_CLASSES = 8

# Facts that go without saying.
_ORDINARY = {"encoding_utf8", "delimiter_comma", "number", "category", "boolean"}

_LABELS = (
    "data",
    "target",
    "split",
    "network",
    "training",
    "test",
    "verdict",
    "saved",
    "next",
    "note",
    "careful",
)

# Figures in the order of the columns of a report.
_MODELS = ("network", "linear", "baseline")


def width(text: str) -> int:
    """How many cells of a terminal the text takes: Korean letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def padded(text: str, cells: int) -> str:
    """The text, with blanks behind it up to so many cells."""
    return text + " " * (cells - width(text))


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows of texts as lines with columns of equal width."""
    table = [[visible(cell) for cell in row] for row in rows]
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
        print((padded(head, self._indent) + visible(text)).rstrip(), flush=True)

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
    """Data, target, split and networks, before training."""
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
    sizes = {"training": len(plan.training), "test": len(plan.test), "seed": plan.settings.seed}
    report.line("split", report.say("train.split_sizes" if len(plan.test) else "train.split_none", **sizes))
    report.lines(map(report.told, plan.facts))
    _report_networks(plan, report)
    for one in plan.leaks:
        report.line("careful", report.told(one))
    for one in plan.notes:
        report.line("note", report.told(one))


def _report_networks(plan: Plan, report: Report) -> None:
    count = plan.model.count
    values = {
        "sizes": " → ".join(map(str, plan.sizes)),
        "parameters": f"{plan.model.parameter_count:,}",
        "batch": plan.batch_size,
        "count": count,
    }
    report.line("network", report.say(f"train.network_{'several' if count > 1 else 'single'}", **values))
    if len(plan.training) > 1:
        report.line("", report.say("train.held_back" if count > 1 else "train.held_back_single", count=count))


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


def report_outcome(outcome: Outcome, validation: CrossValidation | None, report: Report) -> None:
    """How training ended, the scores of rows that were not learnt from, and whether the network helps."""
    run, plan = outcome.run, outcome.plan
    ending = {"epochs": len(run.history), "best": run.best_epoch, "patience": plan.settings.patience}
    report.line("training", report.say(f"train.{run.stopped}", **ending))
    if validation is not None:
        _report_validation(validation, plan, report)
        _report_verdict(validation.difference, validation.mean("network"), validation.mean("linear"), report)
        better = validation.mean("network"), validation.mean("baseline")
    elif outcome.score:
        _report_test(outcome, report)
        assert outcome.difference is not None
        _report_verdict(outcome.difference, outcome.score, outcome.linear, report, len(plan.test))
        better = outcome.score, outcome.baseline
    else:
        report.line("test", report.say("train.no_test"))
        return
    name = next(iter(better[0]))
    if better[0][name] <= better[1][name]:
        report.line("careful", report.say("train.no_better"))


def _heads(report: Report) -> list[str]:
    return ["", *(report.say(f"train.column_{model}") for model in _MODELS), ""]


def _report_test(outcome: Outcome, report: Report) -> None:
    rows = [_heads(report)]
    for name, value in outcome.score.items():
        figures = [score_text(name, one[name]) for one in (outcome.score, outcome.linear, outcome.baseline)]
        detail = _accuracy_detail(value, len(outcome.plan.test), report) if name == "accuracy" else ""
        rows.append([report.say(f"train.{name}"), *figures, detail])
    report.line("test", report.say("train.test_rows", rows=len(outcome.plan.test)))
    report.lines(aligned(rows))
    report.line("", _rivals(outcome.plan, outcome.baseline_class, report))
    _report_repeated(outcome.plan, report)


def _report_validation(validation: CrossValidation, plan: Plan, report: Report) -> None:
    values = {
        "folds": validation.folds, "repeats": validation.repeats, "count": len(validation.scores),
        "tested": round(validation.tested),
    }  # fmt: skip
    report.line("test", report.say("train.validated", **values))
    rows = [_heads(report)]
    for name in validation.measures:
        figures = []
        for model in _MODELS:
            low, high = (score_text(name, one) for one in validation.interval(model, name))
            mean = score_text(name, validation.mean(model)[name])
            figures.append(mean if model == "baseline" else f"{mean} ({low} … {high})")
        rows.append([report.say(f"train.{name}"), *figures, ""])
    report.lines(aligned(rows))
    report.line("", report.say("train.intervals"))
    report.line("", _rivals(plan, None, report))
    _report_repeated(plan, report)


def _report_repeated(plan: Plan, report: Report) -> None:
    if plan.repeated is not None:
        report.line("careful", report.told(plan.repeated))


def _report_verdict(
    difference: Difference, network: Record, linear: Record, report: Report, rows: int | None = None
) -> None:
    """Whether the network helps, beside a linear model."""
    name = difference.measure
    values = {
        "measure": report.say(f"train.{name}"),
        "network": score_text(name, network[name]),
        "linear": score_text(name, linear[name]),
        "low": f"{difference.low:+.3g}",
        "high": f"{difference.high:+.3g}",
        "value": f"{difference.value:+.3g}",
    }
    report.line("verdict", report.say(f"train.verdict_{difference.verdict}", **values))
    if difference.verdict == "open":
        report.line("", report.say("train.verdict_more" if rows is None else "train.verdict_rows", rows=rows))


def score_text(name: str, value: float) -> str:
    """A score: shares with three places, errors in the target's unit with four digits."""
    return f"{value:.4g}" if name == "mean_absolute_error" else f"{value:.3f}"


def _accuracy_detail(value: float, rows: int, report: Report) -> str:
    low, high = accuracy_interval(value, rows)
    values = {"hits": round(value * rows), "rows": rows, "low": f"{low:.2f}", "high": f"{high:.2f}"}
    return f"({report.say('train.accuracy_detail', **values)})"


def _rivals(plan: Plan, baseline_class: str | None, report: Report) -> str:
    """What the two rivals are."""
    if not plan.preparation.classes:
        return report.say("train.rivals_numbers")
    if baseline_class is None:
        return report.say("train.rivals_classes")
    return report.say("train.rivals_class", name=repr(baseline_class))


def command(*parts: str) -> str:
    """A command line to copy, with quotes where a shell needs them."""
    return " ".join(shlex.quote(readable(part)) for part in parts)
