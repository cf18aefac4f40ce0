"""`chainrule demo`: the whole way on the iris flowers that ship with the package, within seconds."""

from __future__ import annotations

import argparse
import os
import tempfile

from ..data.tabular import bundled
from ..train.predictor import Request
from ..train.tabular import Outcome, plan_table, predict_rows
from .options import add_settings, gather, of_demo
from .report import Report, aligned, command
from .train import Order, add_output_options, new_place, shown_path, train_and_save
from .usage import Parser

_EXAMPLES = 3


def add_arguments(parser: Parser) -> None:
    """The options of `chainrule demo`."""
    add_settings(parser, of_demo)
    add_output_options(parser)
    parser.epilog = parser.say("option.train_codes")


def run(arguments: argparse.Namespace) -> int:
    """Train on the bundled table, show a few predictions, and say where to go on."""
    report = Report(arguments.lang, silent=arguments.json)
    chosen = gather(arguments)
    if not arguments.quiet:
        report.text(report.say("demo.title"))
        report.blank()
    plan = plan_table(bundled("iris"), "species", settings=chosen.settings())
    request = Request("species", checkpoint_seconds=chosen["train.checkpoint_seconds"])
    order = Order(plan, request, _place(chosen["run.out"], report))
    code, outcome = train_and_save(order, arguments)
    if outcome is None:
        return code
    _examples(outcome, report)
    place = shown_path(order.place)
    report.blank()
    steps = [
        (command("chainrule", "explain", place, "--row", "1"), "demo.next_row"),
        (command("chainrule", "explain", "sigmoid(w*x)", "w=0.8", "x=0.5"), "demo.next_explain"),
        (command("chainrule", "predict", place, "new.csv", "-o", "predictions.csv"), "demo.next_predict"),
        (command("chainrule", "train", "data.csv", "--target", "COLUMN"), "demo.next_train"),
    ]
    report.line("next")
    for line, what in steps:
        report.line("", f"{line}   # {report.say(what)}")
    return code


def _place(out: str | None, report: Report) -> str:
    """Where the run is kept: here, or where programs may always write."""
    place = new_place(out, "iris-demo")
    parent = os.path.dirname(os.path.abspath(place))
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    if out is not None or (os.path.isdir(parent) and os.access(parent, os.W_OK)):
        return place
    place = os.path.join(tempfile.mkdtemp(prefix="chainrule-"), "iris-demo")
    report.line("note", report.say("demo.elsewhere", place=place))
    return place


def _examples(outcome: Outcome, report: Report) -> None:
    """A few test rows with the truth, the prediction and how sure it is."""
    plan = outcome.plan
    test = plan.table.frame.iloc[plan.test]
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
