"""`chainrule predict RUN new.csv -o out.csv`: the predictions of a stored run for the rows of a table."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from ..data.tabular import Fact, read_table, write_table
from ..errors import ArgumentError, DataError
from ..train.files import readable
from ..train.predictor import Prediction, Predictor, load_predictor
from .outputs import refuse_own_files
from .report import Report, score_text
from .usage import Parser

if TYPE_CHECKING:
    import pandas


def add_arguments(parser: Parser) -> None:
    """The arguments and options of `chainrule predict`."""
    parser.add("run", about="run", metavar="RUN")
    parser.add("table", about="new_table", metavar="new.csv")
    parser.add("-o", "--out", about="predictions", metavar="out.csv")
    parser.add("--encoding", about="encoding", metavar="NAME")
    parser.add("--quiet", about="quiet_predict", action="store_true")
    parser.add("--json", about="json", action="store_true")
    parser.epilog = parser.say("option.plain_codes")


def run(arguments: argparse.Namespace) -> int:
    """Predict, write the table, and say what was noticed."""
    predictor = load_predictor(arguments.run)
    stem = os.path.splitext(os.path.basename(arguments.table))[0]
    place = arguments.out or f"{stem}-predictions.csv"
    refuse_own_files("--out", place, predictor.place)
    frame, reading = read_table(arguments.table, encoding=arguments.encoding)
    if os.path.exists(place) and os.path.samefile(place, arguments.table):
        raise ArgumentError(
            f"--out names a file other than the table that is read; got {place!r} for both. Choose another name"
        )
    prediction = predictor.predict(frame)
    added = added_columns(predictor, prediction, frame)
    facts = [*prediction.facts, *write_table(frame.assign(**added), place)]
    score = _score(predictor, frame)
    if arguments.json:
        record = {
            "out": readable(place),
            "rows": len(frame),
            "columns": list(added),
            "facts": [one.to_json() for one in facts],
            "score": score,
        }
        print(json.dumps(record, ensure_ascii=False))
        return 0
    _tell(arguments, [*reading.facts, *facts], list(added), len(frame), score, predictor, place)
    return 0


def added_columns(
    predictor: Predictor, prediction: Prediction, frame: pandas.DataFrame
) -> dict[str, list[str]]:
    """The new columns by their names: the prediction, and for classes their probabilities."""
    taken = {str(name) for name in frame.columns}
    texts = [one if isinstance(one, str) else f"{one:.9g}" for one in prediction.values.tolist()]
    added = {_free_name("prediction", taken): texts}
    if prediction.probabilities is not None:
        for k, name in enumerate(predictor.preparation.classes):
            column = prediction.probabilities[:, k]
            added[_free_name(f"probability_{name}", taken)] = [f"{one:.6f}" for one in column.tolist()]
    return added


def _free_name(name: str, taken: set[str]) -> str:
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    taken.add(free)
    return free


def _score(predictor: Predictor, frame: pandas.DataFrame) -> dict[str, float] | None:
    """The score, where every row has a target that can be compared."""
    if predictor.preparation.target.name not in frame.columns:
        return None
    try:
        return predictor.score(frame)
    except (
        DataError
    ):  # some rows have no target, or a class that was not learnt: there is no score, and no fault
        return None


def _tell(
    arguments: argparse.Namespace,
    facts: list[Fact],
    added: list[str],
    rows: int,
    score: dict[str, Any] | None,
    predictor: Predictor,
    place: str,
) -> None:
    report = Report(arguments.lang)
    name = readable(os.path.basename(arguments.table))
    if not arguments.quiet:
        report.line("data", report.say("predict.rows", rows=rows, name=name, run=readable(arguments.run)))
    for one in facts:
        if one.key not in ("encoding_utf8", "delimiter_comma"):
            report.line("note", report.told(one))
    if score is not None and not arguments.quiet:
        told = ", ".join(
            f"{report.say(f'train.{key}')} {score_text(key, value)}" for key, value in score.items()
        )
        report.line("note", report.say("predict.score", target=predictor.preparation.target.name, score=told))
    if not arguments.quiet:
        shown = ", ".join(added[:4]) + (", …" if len(added) > 4 else "")
        report.line("saved", report.say("predict.written", path=readable(place), columns=shown))
