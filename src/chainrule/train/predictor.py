"""A run of a table on the disk: what its record says, predictions from it, and the plan that it goes on with.

Knows plans, outcomes and run directories; how a training goes is not known here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..data.facts import fault, quoted
from ..data.tabular import Fact, Preparation, Table, read_table
from ..errors import ArgumentError, RunError, ShapeError
from .files import Path, readable
from .networks import Networks
from .run import MODEL, StoredRun, read_record, read_run
from .tabular import (
    Array,
    Outcome,
    Plan,
    Record,
    Settings,
    make_networks,
    plan_table,
    predict_rows,
    score_predictions,
)
from .validation import CrossValidation

if TYPE_CHECKING:
    import pandas

# What only the record of a table's run has.
_MARK = "table"


@dataclass(slots=True)
class Request:
    """What was asked for besides the settings: enough to make the same plan from the same table again."""

    target: str
    task: str = "auto"
    kinds: Mapping[str, str] | None = None
    encoding: str | None = None
    folds: int | None = None
    repeats: int = 1
    checkpoint_seconds: float = 30.0


def first_record(plan: Plan, request: Request) -> dict[str, Any]:
    """What `run.json` says of a training before it begins, in addition to what `fit` writes."""
    reading = plan.table.reading
    return {
        _MARK: {
            "name": readable(os.path.basename(reading.path)),
            "path": os.fsencode(os.path.abspath(reading.path)).decode("utf-8", "surrogateescape"),
            "rows": reading.rows,
            "columns": reading.columns,
            "encoding": reading.encoding,
            "delimiter": reading.delimiter,
            "sha256": fingerprint(plan.table),
        },
        "request": asdict(request) | {"kinds": dict(request.kinds or {})},
        "split": {"training": len(plan.training), "test": len(plan.test)},
        "network": {
            "sizes": list(plan.sizes),
            "count": plan.model.count,
            "activation": "relu",
            "parameters": plan.model.parameter_count,
        },
        "settings": {
            **asdict(plan.settings),
            "batch_size": plan.batch_size,
            "hidden": list(plan.sizes[1:-1]),
        },
        "preparation": plan.preparation.to_json(),
        "notes": [one.to_json() for one in (*plan.leaks, *plan.notes)],
    }


def last_record(outcome: Outcome, validation: CrossValidation | None = None) -> dict[str, Any]:
    """What it says of the scores."""
    difference = outcome.difference if validation is None else validation.difference
    scores = {"score": outcome.score, "linear": outcome.linear, "baseline": outcome.baseline}
    if validation is not None:
        scores = {name: validation.mean(key) for name, key in zip(scores, ("network", "linear", "baseline"))}
    return {
        "kind": "tabular",
        **scores,
        "baseline_class": outcome.baseline_class,
        "difference": None if difference is None else difference.to_json(),
        "cross_validation": None if validation is None else validation.to_json(),
    }


def fingerprint(table: Table) -> str:
    """A digest of the cells, the same for the same table however its file was written."""
    found = hashlib.sha256(repr(list(table.frame.columns)).encode())
    for row in table.frame.itertuples(index=False, name=None):
        found.update(repr(row).encode())
    return found.hexdigest()


# ------------------------------------------------------------------------------------------- predictions


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predictions for the rows of a table: class names or numbers, probabilities (rows, classes) for classes, facts."""

    values: Array
    probabilities: Array | None
    facts: list[Fact]


class Predictor:
    """A stored run, ready to predict.

    Made by `load_predictor`. `record` is what `run.json` says.
    """

    def __init__(self, stored: StoredRun, place: str) -> None:
        self.record = stored.record
        self.place = place
        try:
            self.preparation = Preparation.from_json(self.record["preparation"])
            network = self.record["network"]
            self.model: Networks = make_networks(tuple(network["sizes"]), network["count"], 0)
            self.model.load_state_dict(stored.weights)
        except (ShapeError, ArgumentError, KeyError, TypeError) as error:
            raise RunError(
                f"the weights in {place!r} do not fit the networks that run.json describes: {error}. Use another copy "
                "of the run, or train again"
            ) from error

    def predict(self, frame: pandas.DataFrame) -> Prediction:
        """Predict every row. Columns may come in any order; DataError for a missing one or an unreadable cell."""
        facts: list[Fact] = []
        inputs = self.preparation.transform(frame, facts)
        return Prediction(*predict_rows(self.model, self.preparation, inputs), facts)

    def score(self, frame: pandas.DataFrame) -> Record:
        """The score of rows that have the target."""
        target = frame[self.preparation.target.name]
        truth = self.preparation.decode_target(self.preparation.encode_target(target))
        return score_predictions(self.preparation, truth, self.predict(frame).values)


def load_predictor(place: Path) -> Predictor:
    """The predictor of a run directory.

    Raises RunError for anything that is none, is damaged, or whose training did not come to its end.
    """
    name, record = read_record(place)
    _require_table(name, record)
    if MODEL not in record["files"]:
        raise RunError(
            f"predictions need a run that has ended; got {name!r}, whose training did not come to its end. Go on with "
            f"it: chainrule train --resume {name}"
        )
    return Predictor(read_run(place), os.fspath(place))


def _require_table(name: str, record: Mapping[str, Any]) -> None:
    if not {_MARK, "preparation", "network"} <= {*record}:
        if "problem" in record:
            raise RunError(
                f"a run of a table is needed; got {name!r}, a model that cr.fit trained. It is read in Python: "
                f"cr.load_run({name!r}, model) predicts, and cr.explain tells of its loss"
            )
        raise RunError(
            f"a run of a table is needed; got {name!r}, a run of kind {record.get('kind')!r}. Name a folder that "
            "`chainrule train` made"
        )


# ------------------------------------------------------------------------------------------- the run's table


def stored_table(record: Mapping[str, Any], path: str | None = None) -> Table:
    """The table that a run was trained on, found where it was (or at `path`) and checked by its digest.

    Raises DataError if it is gone or has other cells now.
    """
    known = record[_MARK]
    place = path if path is not None else os.fsdecode(known["path"].encode("utf-8", "surrogateescape"))
    if not os.path.isfile(place):
        raise fault("gone_table", file=quoted(readable(place), 200))
    table = read_table(place, encoding=known["encoding"], delimiter=known["delimiter"])
    if fingerprint(table) != known["sha256"]:
        raise fault("changed_table", file=quoted(readable(place), 200))
    return table


def stored_plan(place: Path) -> tuple[Plan, Request, dict[str, Any]]:
    """The plan of a run that was begun, made again from its table; what was asked for, and the record.

    Raises RunError for a folder that holds no such run, DataError for a table that is gone or has changed.
    """
    name, record = read_record(place)
    _require_table(name, record)
    try:
        request = Request(**record["request"])
        stored = record["settings"]
        settings = Settings(**{**stored, "hidden": tuple(stored["hidden"])})
    except (KeyError, TypeError) as error:
        raise RunError(
            f"a run needs its settings to go on; got {name!r}, which lacks or garbles {error}. Train anew"
        ) from error
    table = stored_table(record)
    plan = plan_table(table, request.target, request.task, settings, request.kinds)
    if plan.preparation.to_json() != record["preparation"]:
        raise RunError(
            f"a run goes on with the preparation that it began with; got {name!r}, for which this version makes "
            "another. Use the version that began it, or train anew"
        )
    return plan, request, record
