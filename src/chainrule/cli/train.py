"""`chainrule train data.csv --target species`: networks for a table, with an honest score beside two rivals."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from dataclasses import dataclass
from typing import Any

from ..data.tabular import read_table
from ..errors import RunError
from ..train.files import readable
from ..train.predictor import Request, first_record, last_record, stored_plan
from ..train.progress import make_progress
from ..train.run import RunFolder, free_place, plain
from ..train.tabular import Outcome, Plan, beats, plan_table, train_plan
from ..train.validation import CrossValidation, Scores, cross_validate, fold_rows
from .options import Chosen, add_settings, gather
from .report import Report, command, report_outcome, report_plan
from .usage import Parser, UsageError

DONE, FINDING, INTERRUPTED = 0, 1, 130

# What a run that goes on may still be told.
_RESUMABLE = {"train.checkpoint_seconds"}


def add_arguments(parser: Parser) -> None:
    """The arguments and options of `chainrule train`."""
    parser.add("table", about="table", metavar="data.csv", nargs="?")
    add_settings(parser)
    parser.add("--config", about="config", metavar="FILE.toml")
    parser.add("--resume", about="resume", metavar="RUN")
    add_output_options(parser)
    parser.epilog = parser.say("option.train_codes")


def add_output_options(parser: Parser) -> None:
    """How much is printed, and as what."""
    parser.add("--quiet", about="quiet", action="store_true")
    parser.add("--json", about="json_record", action="store_true")


@dataclass(slots=True)
class Order:
    """What is to be trained, and where it is kept."""

    plan: Plan
    request: Request
    place: str
    resume: bool = False


def run(arguments: argparse.Namespace) -> int:
    """Train, print and save; 0 when done, 1 where nothing beats the baseline, 130 after an early Ctrl-C."""
    chosen = gather(arguments)
    order = _order(chosen) if arguments.resume is None else _resumed(arguments, chosen)
    code, _ = train_and_save(order, arguments)
    if code != INTERRUPTED:
        report = Report(arguments.lang, silent=arguments.json)
        place = shown_path(order.place)
        report.line("next", command("chainrule", "predict", place, "new.csv", "-o", "predictions.csv"))
        table = command("chainrule", "explain", place, "--row", "1")
        report.line("", f"{table}   # {report.say('train.next_explain')}")
    return code


def _order(chosen: Chosen) -> Order:
    """A new training, as the settings say."""
    path = chosen["data.table"]
    if path is None:
        raise UsageError("table_needed")
    table = read_table(path, encoding=chosen["data.encoding"])
    if chosen["data.target"] is None:
        columns = ", ".join(map(str, table.frame.columns))
        raise UsageError("target_needed", name=readable(os.path.basename(path)), columns=columns)
    folds, repeats = chosen["validation.folds"], chosen["validation.repeats"]
    if repeats is not None and folds is None:
        folds = 5
    if folds is not None and "data.test" in chosen and chosen["data.test"] > 0:
        raise UsageError("test_and_folds")
    request = Request(
        target=chosen["data.target"],
        task=chosen["data.task"],
        kinds={name: kind for kind in ("skip", "category") for name in chosen[f"data.{kind}"]},
        encoding=chosen["data.encoding"],
        folds=folds,
        repeats=repeats or 1,
        checkpoint_seconds=chosen["train.checkpoint_seconds"],
    )
    plan = plan_table(
        table, request.target, request.task, chosen.settings(without_test=folds is not None), request.kinds
    )
    if folds is not None:
        fold_rows(plan, folds, request.repeats)  # a mistake is told before anything is learnt
    stem = os.path.splitext(os.path.basename(path))[0]
    return Order(plan, request, new_place(chosen["run.out"], stem))


def new_place(out: str | None, stem: str) -> str:
    """Where a new run is kept: `out`, or a free name in `runs`. RunError, which names --out, if it is taken."""
    place = free_place(stem) if out is None else out
    if os.path.lexists(place) and not (os.path.isdir(place) and not os.listdir(place)):
        raise RunError(
            f"a run needs a folder of its own; got {readable(place)!r}, which exists. Name another with --out"
        )
    return place


def _resumed(arguments: argparse.Namespace, chosen: Chosen) -> Order:
    """A training that was begun, as its record says."""
    others = [key for key in chosen.keys if key not in _RESUMABLE]
    if others or arguments.config is not None:
        raise UsageError("resume_alone", names=", ".join(others) or "--config")
    plan, request, _ = stored_plan(arguments.resume)
    place = os.path.dirname(arguments.resume) if os.path.isfile(arguments.resume) else arguments.resume
    if "train.checkpoint_seconds" in chosen:
        request.checkpoint_seconds = chosen["train.checkpoint_seconds"]
    return Order(plan, request, place, resume=True)


# ------------------------------------------------------------------------------------------- training


def train_and_save(order: Order, arguments: argparse.Namespace) -> tuple[int, Outcome | None]:
    """The whole way from a plan to a saved run, printed as it goes: (exit code, outcome or None)."""
    plan, report = order.plan, Report(arguments.lang, silent=arguments.json)
    if not arguments.quiet:
        report_plan(plan, report)
        report.blank()
    # Held open until all is written: nobody else may begin to write between the training and its scores.
    folder = RunFolder(order.place, {} if order.resume else first_record(plan, order.request), held=True)
    silent = arguments.quiet or arguments.json
    try:
        outcome = _train(
            order, folder, report, make_progress(not silent, plan.settings.epochs, arguments.lang)
        )
        if not outcome.run.history:
            print(report.say("train.nothing_learnt"), file=sys.stderr)
            if not order.resume:
                folder.discard()
            return INTERRUPTED, None
        if not silent:
            report.blank()
        validation = None
        if order.request.folds is not None and outcome.run.state != "interrupted":
            validation = _validate(order, folder, report, shown=not silent)
        entries = last_record(outcome, validation)
        try:
            folder.update(**entries)
        except OSError as error:
            raise folder.refused(error) from error
        order.place = folder.place
    finally:
        folder.close()
    report_outcome(outcome, validation, report)
    place = shown_path(order.place)
    report.line("saved", place)
    better = not entries["score"] or beats(entries["score"], entries["baseline"])
    if arguments.json:
        print(
            json.dumps(plain({"run": place, "beats_baseline": better, **folder.record}), ensure_ascii=False)
        )
    return DONE if better else FINDING, outcome


def _train(order: Order, folder: RunFolder, report: Report, progress: Any) -> Outcome:
    """`train_plan`, with what it warns of as notes; a folder in which nothing could be begun is removed again."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        try:
            outcome = train_plan(
                order.plan,
                progress,
                folder=folder,
                checkpoint_seconds=order.request.checkpoint_seconds,
                resume=order.resume,
            )
        except RunError:
            if not order.resume and not folder.record:
                folder.discard()
            raise
    for one in caught:
        # That the loss was not finite any more is told below, with how training ended.
        if issubclass(one.category, RuntimeWarning) and outcome.run.state != "diverged":
            report.line("note", str(one.message))
    return outcome


def _validate(order: Order, folder: RunFolder, report: Report, shown: bool) -> CrossValidation:
    """Cross-validation; the scores of each fold are kept, so that a run that is killed goes on from there."""

    def note(scores: list[Scores], total: int) -> None:
        folder.update(folds_done=scores)
        if shown and (len(scores) == total or len(scores) % max(1, total // 10) == 0):
            name, value = next(iter(scores[-1]["network"].items()))
            told = f"{report.say(f'train.{name}')} {value:.3f}"
            report.text(report.say("train.fold", number=len(scores), total=total, score=told))

    request = order.request
    assert request.folds is not None
    done = folder.record.get("folds_done", ())
    found = cross_validate(order.plan, request.folds, request.repeats, done=done, note=note)
    if shown:
        report.blank()
    return found


def shown_path(path: str) -> str:
    """The path from here where it lies below, else the whole path."""
    relative = os.path.relpath(path)
    return readable(os.path.abspath(path) if relative.startswith("..") else relative)
