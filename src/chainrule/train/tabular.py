"""From a table to a trained network with an honest score, and from a run directory to predictions.

A table is divided before anything is learnt from it: the preparation and the weights come from training rows, the
stopping point from validation rows, and the score from test rows that nothing has seen.
Nothing here prints.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import functional, nn
from ..data.tabular import Fact, Preparation, Schema, Table, baseline, infer_schema, score, split_three
from ..errors import ArgumentError, RunError, ShapeError
from ..files import NewFolder
from ..optim import Adam
from ..tensor.random import default_generator, manual_seed
from ..transforms import no_grad
from .files import Path, readable
from .fit import Record, Run, fit
from .problem import run_model, tensor_of
from .run import StoredRun, read_run, write_run

if TYPE_CHECKING:
    import pandas

KIND = "tabular"

# From how many training rows on a network gets a second hidden layer, and batches of which size.
_SECOND_LAYER_ROWS = 1000
_BATCHES = ((2_000, 32), (20_000, 64), (100_000, 128))
_LARGEST_BATCH = 256


@dataclass(frozen=True, slots=True)
class Settings:
    """How a table is divided and a network trained. None: chosen by the size of the data."""

    seed: int = 0
    epochs: int = 200
    patience: int = 20
    learning_rate: float = 5e-3
    weight_decay: float = 1e-4
    validation: float = 0.2
    test: float = 0.2
    hidden: tuple[int, ...] | None = None
    batch_size: int | None = None


@dataclass(slots=True)
class Plan:
    """What is decided before training: columns, rows of each part, preparation, and the fresh network."""

    table: Table
    schema: Schema
    parts: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    preparation: Preparation
    model: nn.Sequential
    sizes: tuple[int, ...]
    settings: Settings
    batch_size: int
    facts: list[Fact] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        """How many numbers the network learns."""
        return sum(one.size for one in self.model.parameters())


@dataclass(slots=True)
class Outcome:
    """A trained network beside the baseline: scores of the test rows, in the target's own unit."""

    plan: Plan
    run: Run
    score: Record
    baseline: Record
    baseline_class: str | None
    test_rows: int

    @property
    def beats_baseline(self) -> bool:
        """Whether the network is better than the most frequent class or the mean."""
        name = next(iter(self.score))
        return self.score[name] > self.baseline[name]


def plan_table(
    table: Table,
    target: str,
    task: str = "auto",
    settings: Settings | None = None,
    kinds: Mapping[str, str] | None = None,
) -> Plan:
    """Infer the columns, divide the rows, fit the preparation on the training rows, and make a network.

    `kinds` settles the kind of some columns, as in `infer_schema`.

    Raises DataError for a table or a target that cannot be learnt.
    """
    chosen = settings or Settings()
    facts: list[Fact] = []
    schema = infer_schema(table.frame, target, task, kinds)
    assert schema.target is not None
    parts = split_three(
        table.frame,
        target,
        schema.target.task,
        validation=chosen.validation,
        test=chosen.test,
        seed=chosen.seed,
        facts=facts,
    )
    preparation = Preparation.fit(table.frame.iloc[parts[0]], target, schema=schema)
    outputs = len(preparation.classes) or 1
    inputs = len(preparation.feature_names)
    hidden = hidden_sizes(inputs, outputs, len(parts[0])) if chosen.hidden is None else chosen.hidden
    sizes = (inputs, *hidden, outputs)
    # The user's own stream of random numbers is left where it was.
    before = default_generator.get_state()
    manual_seed(chosen.seed)
    model = make_network(sizes)
    default_generator.set_state(before)
    rows = len(parts[0])
    batch = next((size for limit, size in _BATCHES if rows < limit), _LARGEST_BATCH)
    return Plan(
        table,
        schema,
        parts,
        preparation,
        model,
        sizes,
        chosen,
        chosen.batch_size or batch,
        _without_repeats(facts),
    )


def _without_repeats(facts: list[Fact]) -> list[Fact]:
    kept: list[Fact] = []
    for one in facts:
        if one not in kept:
            kept.append(one)
    return kept


def hidden_sizes(inputs: int, outputs: int, rows: int) -> tuple[int, ...]:
    """Widths of the hidden layers: a power of 2 near twice the inputs and outputs, 16 to 128; two layers if rows allow.

    >>> hidden_sizes(4, 3, 90), hidden_sizes(64, 10, 1078)
    ((16,), (128, 64))
    """
    width = int(min(128, max(16, 2 ** math.ceil(math.log2(2 * (inputs + outputs))))))
    return (width, width // 2) if rows >= _SECOND_LAYER_ROWS else (width,)


def make_network(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them."""
    layers: list[nn.Module] = []
    for width, following in itertools.pairwise(sizes):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train_plan(
    plan: Plan, progress: Any = False, callback: Callable[[Record], object] | None = None
) -> Outcome:
    """Train with early stopping on the validation rows, then score the test rows once."""
    frame, name = plan.table.frame, plan.preparation.target.name
    inputs, targets = [], []
    for rows in plan.parts:
        part = frame.iloc[rows]
        inputs.append(
            plan.preparation.transform(part) if len(part) else np.zeros((0, plan.sizes[0]), np.float32)
        )
        targets.append(plan.preparation.encode_target(part[name]))
    settings = plan.settings
    run = fit(
        plan.model,
        (inputs[0], targets[0]),
        loss="cross_entropy" if plan.preparation.classes else "mse",
        optimizer=Adam(
            plan.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        ),
        epochs=settings.epochs,
        batch_size=plan.batch_size,
        validation=(inputs[1], targets[1]) if len(targets[1]) else None,
        seed=settings.seed,
        # Errors in the unit of a scaled target would only confuse; the score is in the target's own.
        metrics=None if plan.preparation.classes else (),
        patience=settings.patience,
        progress=progress,
        callback=callback,
    )
    predicted = predict_rows(plan.model, plan.preparation, inputs[2])[0]
    truth = plan.preparation.decode_target(targets[2])
    known = plan.preparation.decode_target(np.concatenate(targets[:2]))
    if not plan.preparation.classes:
        below, frequent = baseline(plan.preparation.task, known, truth), None
    else:
        names, counts = np.unique(known.astype(str), return_counts=True)
        frequent = str(names[counts.argmax()])
        below = score_predictions(plan.preparation, truth, np.full(truth.shape, frequent, dtype=object))
    found = score_predictions(plan.preparation, truth, predicted)
    return Outcome(plan, run, found, below, frequent, len(truth))


def score_predictions(preparation: Preparation, truth: NDArray[Any], predicted: NDArray[Any]) -> Record:
    """Accuracy and macro-F1 of classes, or R² and mean absolute error of numbers in the target's own unit."""
    found = score(preparation.task, truth, predicted)
    return found | ({"macro_f1": macro_f1(truth, predicted)} if preparation.classes else {})


def macro_f1(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    """The mean over the classes of 2·hits / (true rows + predicted rows), so that a rare class counts like any.

    >>> macro_f1(np.array([0, 0, 1]), np.array([0, 0, 0]))
    0.4
    """
    classes = {*truth.tolist(), *predicted.tolist()}
    found = []
    for one in classes:
        wanted, given = truth == one, predicted == one
        found.append(2 * float((wanted & given).sum()) / float(wanted.sum() + given.sum()))
    return float(np.mean(found))


def predict_rows(
    model: nn.Module, preparation: Preparation, inputs: NDArray[np.float32]
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """(predictions in the target's own words or unit, probabilities of the classes or None)."""
    outputs = run_model(model, inputs)
    if not preparation.classes:
        return preparation.decode_target(outputs), None
    with no_grad():
        probabilities = functional.softmax(tensor_of(outputs.astype(np.float64)), axis=1).numpy()
    return preparation.decode_target(outputs.argmax(axis=1)), probabilities


def accuracy_interval(accuracy: float, rows: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy measured on so many rows (Wilson, 1927).

    >>> [round(one, 2) for one in accuracy_interval(0.9, 30)]
    [0.74, 0.97]
    """
    z = 1.959964
    centre = accuracy + z * z / (2 * rows)
    half = z * math.sqrt(accuracy * (1 - accuracy) / rows + z * z / (4 * rows * rows))
    scale = 1 + z * z / rows
    return (centre - half) / scale, (centre + half) / scale


# ------------------------------------------------------------------------------------------- stored runs


def record_of(outcome: Outcome) -> dict[str, Any]:
    """What `run.json` says of a training."""
    plan, run = outcome.plan, outcome.run
    reading = plan.table.reading
    return {
        "kind": KIND,
        "data": {
            "name": readable(os.path.basename(reading.path)),
            "rows": reading.rows,
            "columns": reading.columns,
            "encoding": reading.encoding,
            "delimiter": reading.delimiter,
            "sha256": _fingerprint(plan.table),
        },
        "split": dict(zip(("training", "validation", "test"), map(len, plan.parts))),
        "model": {"sizes": list(plan.sizes), "activation": "relu", "parameters": plan.parameters},
        "settings": {
            **asdict(plan.settings),
            "batch_size": plan.batch_size,
            "hidden": list(plan.sizes[1:-1]),
        },
        "training": {"epochs": len(run.history), "best_epoch": run.best_epoch, "stopped": run.stopped},
        "validation": run.score,
        "score": outcome.score,
        "baseline": outcome.baseline,
        "baseline_class": outcome.baseline_class,
        "preparation": plan.preparation.to_json(),
    }


def _fingerprint(table: Table) -> str:
    """A digest of the cells, the same for the same table however its file was written."""
    found = hashlib.sha256(repr(list(table.frame.columns)).encode())
    for row in table.frame.itertuples(index=False, name=None):
        found.update(repr(row).encode())
    return found.hexdigest()


def save_run(outcome: Outcome, folder: NewFolder) -> None:
    """Write the run directory."""
    write_run(folder, record_of(outcome), outcome.plan.model.state_dict(), outcome.run.history)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predictions for the rows of a table: class names or numbers, probabilities (rows, classes) for classes, facts."""

    values: NDArray[Any]
    probabilities: NDArray[Any] | None
    facts: list[Fact]


class Predictor:
    """A stored run, ready to predict.

    Made by `load_predictor`. `record` is what `run.json` says.
    """

    def __init__(self, stored: StoredRun, place: str) -> None:
        self.record = stored.record
        if self.record.get("kind") != KIND:
            raise RunError(
                f"predictions for tables need a run of a table; got {self.record.get('kind')!r} in {place!r}"
            )
        self.preparation = Preparation.from_json(self.record["preparation"])
        self.model = make_network(tuple(self.record["model"]["sizes"]))
        try:
            self.model.load_state_dict(stored.weights)
        except (ShapeError, ArgumentError) as error:
            raise RunError(
                f"the weights in {place!r} do not fit the model that run.json describes: {error}"
            ) from error

    def predict(self, frame: pandas.DataFrame) -> Prediction:
        """Predict every row. Columns may come in any order; DataError for a missing one or an unreadable cell."""
        facts: list[Fact] = []
        values, probabilities = predict_rows(
            self.model, self.preparation, self.preparation.transform(frame, facts)
        )
        return Prediction(values, probabilities, facts)

    def score(self, frame: pandas.DataFrame) -> Record:
        """The score of rows that have the target."""
        truth = self.preparation.decode_target(
            self.preparation.encode_target(frame[self.preparation.target.name])
        )
        return score_predictions(self.preparation, truth, self.predict(frame).values)


def load_predictor(place: Path) -> Predictor:
    """The predictor of a run directory. Raises RunError for anything that is none, or is damaged."""
    return Predictor(read_run(place), os.fspath(place))
