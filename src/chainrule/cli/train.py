"""`chainrule train data.csv --target species`: a network for a table, with an honest score beside a baseline."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from typing import Any

from ..data.tabular import read_table
from ..errors import ArgumentError, DataError
from ..files import NewFolder
from ..train.files import readable
from ..train.progress import make_progress
from ..train.run import reserve_folder
from ..train.tabular import Outcome, Plan, Settings, plan_table, record_of, save_run, train_plan
from .report import Report, command, report_outcome, report_plan

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments and options of `chainrule train`."""
    parser.add_argument("table", metavar="data.csv", help="a table with column names in its first line")
    parser.add_argument("--target", metavar="COLUMN", help="the column to predict")
    parser.add_argument(
        "--task",
        choices=("auto", "classification", "regression"),
        default="auto",
        help="what to predict: classes or numbers (found from the target by default)",
    )
    parser.add_argument(
        "--skip", action="append", metavar="COLUMN", help="a column not to learn from (may be repeated)"
    )
    parser.add_argument(
        "--category",
        action="append",
        metavar="COLUMN",
        help="a column whose values are names, even where they look like numbers (may be repeated)",
    )
    parser.add_argument(
        "--hidden", metavar="WIDTHS", help="widths of the hidden layers, as 64,32 (by the size of the data)"
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="ROWS", help="rows of one step (by the size of the data)"
    )
    parser.add_argument(
        "--encoding",
        metavar="NAME",
        help="how the file's letters are written, as utf-8 or cp949 (found by default)",
    )
    add_training_options(parser)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """The options that `train` and `demo` share."""
    defaults = Settings()
    parser.add_argument(
        "--epochs",
        type=int,
        default=defaults.epochs,
        metavar="N",
        help=f"at most so many passes over the training rows ({defaults.epochs})",
    )
    parser.add_argument(
        "--patience",
        type=int,
        default=defaults.patience,
        metavar="N",
        help=f"stop after so many epochs without a better validation loss ({defaults.patience})",
    )
    parser.add_argument(
        "--lr",
        type=float,
        default=defaults.learning_rate,
        metavar="RATE",
        help=f"learning rate of Adam ({defaults.learning_rate})",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the same seed gives the same split and weights (0)"
    )
    parser.add_argument("--out", metavar="FOLDER", help="where the run is saved (runs/<date>-<name>)")
    parser.add_argument("--quiet", action="store_true", help="print the score and where the run is")
    parser.add_argument(
        "--json", action="store_true", help="print the record of the run as JSON, and nothing else"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, print and save; 0 when done, 130 when Ctrl-C came before there was anything to save."""
    table = read_table(arguments.table, encoding=arguments.encoding)
    if arguments.target is None:
        report = Report(arguments.lang)
        columns = ", ".join(map(str, table.frame.columns))
        raise DataError(
            report.say("train.target_needed", name=os.path.basename(arguments.table), columns=columns)
        )
    stem = os.path.splitext(os.path.basename(arguments.table))[0]
    settings = settings_of(arguments, hidden=_widths(arguments.hidden), batch_size=arguments.batch_size)
    kinds = {readable(name): kind for kind in ("skip", "category") for name in getattr(arguments, kind) or ()}
    plan = plan_table(table, readable(arguments.target), arguments.task, settings, kinds)
    folder = reserve_folder(arguments.out, stem)
    try:
        outcome = train_and_save(plan, folder, arguments)
    finally:
        folder.discard()
    if outcome is None:
        return INTERRUPTED
    report = Report(arguments.lang, silent=arguments.json)
    place = shown_path(folder.place)
    report.line("next", command("chainrule", "predict", place, "new.csv", "-o", "predictions.csv"))
    return 0


def settings_of(arguments: argparse.Namespace, **more: Any) -> Settings:
    """Settings from the options; ArgumentError for numbers without meaning."""
    for name in ("epochs", "patience"):
        if getattr(arguments, name) < 1:
            raise ArgumentError(f"--{name} must be a whole number from 1; got {getattr(arguments, name)}")
    if more.get("batch_size") is not None and more["batch_size"] < 1:
        raise ArgumentError(f"--batch-size must be a whole number from 1; got {more['batch_size']}")
    if not arguments.lr > 0:
        raise ArgumentError(f"--lr must be above 0; got {arguments.lr:g}")
    return Settings(
        seed=arguments.seed,
        epochs=arguments.epochs,
        patience=arguments.patience,
        learning_rate=arguments.lr,
        **more,
    )


def _widths(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = [one.strip() for one in text.split(",") if one.strip()]
    if any(not one.isascii() or not one.isdigit() or not 0 < int(one) < 1 << 16 for one in parts):
        raise ArgumentError(f"--hidden takes widths such as 64,32; got {text!r}")
    return tuple(map(int, parts))


def train_and_save(plan: Plan, folder: NewFolder, arguments: argparse.Namespace) -> Outcome | None:
    """The whole way from a plan to a saved run, printed as it goes; None if Ctrl-C came too early."""
    report = Report(arguments.lang, silent=arguments.json)
    if not arguments.quiet:
        report_plan(plan, report)
        report.blank()
    silent = arguments.quiet or arguments.json
    progress = make_progress(not silent, plan.settings.epochs, arguments.lang)
    with warnings.catch_warnings():
        # That the loss was not finite any more is told below, with how training ended.
        warnings.simplefilter("ignore", RuntimeWarning)
        outcome = train_plan(plan, progress)
    if not outcome.run.history:
        print(report.say("train.nothing_learnt"), file=sys.stderr)
        return None
    if not silent:
        report.blank()
    report_outcome(outcome, report)
    record = record_of(outcome)
    save_run(outcome, folder)
    place = shown_path(folder.place)
    report.line("saved", place)
    if arguments.json:
        print(
            json.dumps({"run": place, "beats_baseline": outcome.beats_baseline, **record}, ensure_ascii=False)
        )
    return outcome


def shown_path(path: str) -> str:
    """The path from here where it lies below, else the whole path."""
    relative = os.path.relpath(path)
    return readable(path if relative.startswith("..") else relative)
