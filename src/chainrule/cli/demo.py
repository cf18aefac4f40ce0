"""`chainrule demo`: the whole way on the iris flowers that ship with the package, within seconds."""

from __future__ import annotations

import argparse
import os
import tempfile

from ..data.tabular import bundled
from ..errors import RunError
from ..files import NewFolder
from ..train.run import reserve_folder
from ..train.tabular import Outcome, plan_table, predict_rows
from .report import Report, aligned, command
from .train import INTERRUPTED, add_training_options, settings_of, shown_path, train_and_save

_EXAMPLES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chainrule demo`."""
    add_training_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train on the bundled table, show a few predictions, and say where to go on."""
    report = Report(arguments.lang, silent=arguments.json)
    folder = _reserve(arguments.out, report)
    try:
        if not arguments.quiet:
            report.text(report.say("demo.title"))
            report.blank()
        plan = plan_table(bundled("iris"), "species", settings=settings_of(arguments))
        outcome = train_and_save(plan, folder, arguments)
    finally:
        folder.discard()
    if outcome is None:
        return INTERRUPTED
    _examples(outcome, report)
    place = shown_path(folder.place)
    report.blank()
    steps = [
        (command("chainrule", "explain", "sigmoid(w*x)", "w=0.8", "x=0.5"), "demo.next_explain"),
        (command("chainrule", "predict", place, "new.csv", "-o", "predictions.csv"), "demo.next_predict"),
        (command("chainrule", "train", "data.csv", "--target", "COLUMN"), "demo.next_train"),
    ]
    report.line("next")
    for line, what in steps:
        report.line("", f"{line}   # {report.say(what)}")
    return 0


def _reserve(out: str | None, report: Report) -> NewFolder:
    """A folder for the run: here, or where programs may always write."""
    try:
        return reserve_folder(out, "iris-demo")
    except RunError:
        if out is not None:
            raise
    place = os.path.join(tempfile.mkdtemp(prefix="chainrule-"), "iris-demo")
    report.line("note", report.say("demo.elsewhere", place=place))
    return reserve_folder(place, "iris-demo")


def _examples(outcome: Outcome, report: Report) -> None:
    """A few test rows with the truth, the prediction and how sure it is."""
    plan = outcome.plan
    test = plan.table.frame.iloc[plan.parts[2]]
    # One of each species, in the order of the table.
    rows = test.groupby(plan.preparation.target.name, sort=False).head(1).head(_EXAMPLES)
    values, probabilities = predict_rows(plan.model, plan.preparation, plan.preparation.transform(rows))
    assert probabilities is not None
    heads = [report.say(f"demo.column_{name}") for name in ("truth", "prediction", "probability")]
    features = [str(name) for name in rows.columns if name != plan.preparation.target.name]
    table = [[*features, *heads]]
    for k, values_of_row in enumerate(rows.to_dict("records")):
        cells = [str(values_of_row[name]) for name in features]
        truth = str(values_of_row[plan.preparation.target.name])
        table.append([*cells, truth, str(values[k]), f"{probabilities[k].max():.3f}"])
    report.blank()
    report.line("demo.examples")
    report.lines(aligned(table))
