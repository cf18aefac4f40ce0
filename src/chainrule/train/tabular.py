"""From a table to trained networks with an honest score, beside a linear model and a baseline that knows nothing.

A table is divided before anything is learnt from it: the preparation and the weights come from training rows, and the
score from test rows that nothing has seen. When to stop is told by training rows too, each judged by a network that
has not learnt from it; see `networks`.
Nothing here prints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import functional
from ..data.leaks import find_leaks, find_repeated
from ..data.notes import notes_on
from ..data.tabular import Fact, Preparation, Schema, Table, baseline, infer_schema, score, split
from ..errors import ArgumentError
from ..optim import AdamW
from ..tensor.random import default_generator, manual_seed
from ..transforms import no_grad
from .fit import Run, fit
from .networks import (
    PARTS,
    Networks,
    accuracy,
    average,
    class_loss,
    deal,
    number_loss,
    shares_of,
    soft_labels,
)
from .problem import run_model, tensor_of
from .rivals import Difference, linear_predictions, macro_f1, paired_difference
from .run import RunFolder

Record = dict[str, float]
Array = NDArray[Any]
Rows = NDArray[np.int64]

# From how many training rows on a network gets a second hidden layer, and batches of which size.
_SECOND_LAYER_ROWS = 1000
_BATCHES = ((2_000, 32), (20_000, 64), (100_000, 128))
_LARGEST_BATCH = 256


@dataclass(frozen=True, slots=True)
class Settings:
    """How a table is divided and networks are trained. None: chosen by the size of the data.

    The defaults were chosen on nine data sets at once (five real, four made), and are the same for every table.
    """

    seed: int = 0
    epochs: int = 200
    patience: int = 20
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.1
    networks: int = 5
    test: float = 0.2
    hidden: tuple[int, ...] | None = None
    batch_size: int | None = None
    class_weight: str | None = None


@dataclass(slots=True)
class Plan:
    """What is decided before training: columns, rows of each part, preparation, and the fresh networks."""

    table: Table
    schema: Schema
    training: Rows
    test: Rows
    preparation: Preparation
    model: Networks
    settings: Settings
    batch_size: int
    facts: list[Fact] = field(default_factory=list)
    leaks: list[Fact] = field(default_factory=list)
    notes: list[Fact] = field(default_factory=list)
    repeated: Fact | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Inputs, widths of the hidden layers, outputs."""
        return self.model.sizes

    @property
    def balanced(self) -> bool:
        """Whether every class counts alike."""
        return self.settings.class_weight == "balanced" and bool(self.preparation.classes)


@dataclass(slots=True)
class Outcome:
    """Trained networks, and the scores of the test rows in the target's own unit beside those of two rivals.

    difference: by how much the networks beat the linear model. Scores are empty where no test rows were held back.
    """

    plan: Plan
    run: Run
    score: Record = field(default_factory=dict)
    linear: Record = field(default_factory=dict)
    baseline: Record = field(default_factory=dict)
    baseline_class: str | None = None
    difference: Difference | None = None

    @property
    def beats_baseline(self) -> bool:
        """Whether the networks are better than the most frequent class or the mean."""
        return beats(self.score, self.baseline)


def beats(found: Record, below: Record) -> bool:
    """Whether the first figure of a score, of which more is better, is above that of the other."""
    name = next(iter(found))
    return found[name] > below[name]


# ------------------------------------------------------------------------------------------- before training


def plan_table(
    table: Table,
    target: str,
    task: str = "auto",
    settings: Settings | None = None,
    kinds: Mapping[str, str] | None = None,
    *,
    rows: tuple[Rows, Rows] | None = None,
    schema: Schema | None = None,
) -> Plan:
    """Infer the columns, divide the rows, fit the preparation on the training rows, and make the networks.

    `kinds` settles the kind of some columns, as in `infer_schema`. rows: positions of the training and of the test
    rows, instead of a share that is drawn. schema: what is known of the table already.

    Raises DataError for a table or a target that cannot be learnt, ArgumentError for settings without meaning.
    """
    chosen = settings or Settings()
    check_settings(chosen)
    facts: list[Fact] = []
    leaks: list[Fact] = []
    if schema is None:
        schema = infer_schema(table.frame, target, task, kinds)
        leaks = find_leaks(table.frame, schema)
    assert schema.target is not None
    if rows is None:
        rows = split(table.frame, target, schema.target.task, test=chosen.test, seed=chosen.seed, facts=facts)
    preparation = Preparation.fit(table.frame.iloc[rows[0]], target, schema=schema)
    outputs = len(preparation.classes) or 1
    inputs, count = len(preparation.feature_names), len(rows[0])
    hidden = hidden_sizes(inputs, outputs, count) if chosen.hidden is None else chosen.hidden
    model = make_networks((inputs, *hidden, outputs), _count(chosen.networks, count), chosen.seed)
    batch = next((size for limit, size in _BATCHES if count < limit), _LARGEST_BATCH)
    plan = Plan(
        table, schema, rows[0], rows[1], preparation, model, chosen, chosen.batch_size or batch, facts, leaks
    )
    plan.notes = notes_on(preparation, plan.balanced)
    plan.repeated = find_repeated(table.frame, schema, rows[0], rows[1])
    return plan


def check_settings(settings: Settings) -> None:
    """Raise ArgumentError for settings without meaning."""
    for name in ("epochs", "patience", "networks"):
        if getattr(settings, name) < 1:
            raise ArgumentError(f"{name} must be a whole number from 1; got {getattr(settings, name)}")
    if settings.batch_size is not None and settings.batch_size < 1:
        raise ArgumentError(f"batch_size must be a whole number from 1; got {settings.batch_size}")
    if not (settings.learning_rate > 0 and math.isfinite(settings.learning_rate)):
        raise ArgumentError(f"the learning rate must be above 0; got {settings.learning_rate:g}")
    if not (settings.weight_decay >= 0 and math.isfinite(settings.weight_decay)):
        raise ArgumentError(f"weight_decay must be at least 0; got {settings.weight_decay:g}")
    if not 0 <= settings.label_smoothing < 1:
        raise ArgumentError(
            f"label_smoothing must be at least 0 and below 1; got {settings.label_smoothing:g}"
        )
    if settings.class_weight not in (None, "none", "balanced"):
        raise ArgumentError(f"class_weight must be none or balanced; got {settings.class_weight!r}")


def _count(wanted: int, rows: int) -> int:
    """How many networks: no more than there are rows to hold back."""
    return max(1, min(wanted, rows))


def hidden_sizes(inputs: int, outputs: int, rows: int) -> tuple[int, ...]:
    """Widths of the hidden layers: a power of 2 near twice the inputs and outputs, 16 to 128; two layers if rows allow.

    >>> hidden_sizes(4, 3, 90), hidden_sizes(64, 10, 1078)
    ((16,), (128, 64))
    """
    width = int(min(128, max(16, 2 ** math.ceil(math.log2(2 * (inputs + outputs))))))
    return (width, width // 2) if rows >= _SECOND_LAYER_ROWS else (width,)


def make_networks(sizes: tuple[int, ...], count: int, seed: int) -> Networks:
    """Fresh networks whose weights follow from the seed. The user's own stream of random numbers stays where it was."""
    before = default_generator.get_state()
    manual_seed(seed)
    try:
        return Networks(sizes, count)
    finally:
        default_generator.set_state(before)


# ------------------------------------------------------------------------------------------- training


def train_plan(
    plan: Plan,
    progress: Any = False,
    callback: Callable[[Record], object] | None = None,
    *,
    folder: RunFolder | None = None,
    checkpoint_seconds: float | None = 30.0,
    resume: bool = False,
) -> Outcome:
    """Train until the held-back rows gain no more, then score the test rows once, if there are any.

    folder, checkpoint_seconds, resume: as in `fit`.
    """
    settings, name = plan.settings, plan.preparation.target.name
    part = plan.table.frame.iloc[plan.training]
    inputs, targets = plan.preparation.transform(part), plan.preparation.encode_target(part[name])
    data, held_back = _training_data(plan, inputs, targets)
    # A seed of its own for what `fit` may draw, and the user's stream where it was.
    before = default_generator.get_state()
    manual_seed(settings.seed)
    try:
        run = fit(
            plan.model,
            data,
            loss=class_loss if plan.preparation.classes else number_loss,
            optimizer=AdamW(
                plan.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
            ),
            epochs=settings.epochs,
            batch_size=plan.batch_size,
            validation=held_back,
            seed=settings.seed,
            # Errors in the unit of a scaled target would only confuse; the score is in the target's own.
            metrics=[accuracy] if plan.preparation.classes else (),
            patience=settings.patience,
            progress=progress,
            callback=callback,
            folder=folder,
            checkpoint_seconds=checkpoint_seconds,
            resume=resume,
        )
    finally:
        default_generator.set_state(before)
    outcome = Outcome(plan, run)
    if len(plan.test) and run.history:
        _judge(outcome, inputs, targets)
    return outcome


def _training_data(plan: Plan, inputs: Array, targets: Array) -> tuple[Any, Any]:
    """(data for `fit`, the same rows judged by the networks that hold them back; None for too few rows)."""
    classes, settings = len(plan.preparation.classes), plan.settings
    rows, count = len(inputs), plan.model.count
    parts = deal(targets if classes else None, rows, settings.seed, min(max(PARTS, count), rows))
    if rows < 2:
        learnt = np.ones((rows, count), np.float32)
        judged = np.zeros((rows, count), np.float32)
    else:
        learnt, judged = shares_of(parts, count, _weights(targets, classes) if plan.balanced else None)
    truth: Array = targets
    if classes:
        truth = soft_labels(targets, classes, settings.label_smoothing)
    data = (inputs, {"truth": truth, "shares": learnt})
    seen = parts < count
    if rows < 2 or not seen.any():
        return data, None
    hard: Array = soft_labels(targets, classes, 0.0) if classes else targets
    return data, (inputs[seen], {"truth": hard[seen], "shares": judged[seen]})


def _weights(labels: Array, classes: int) -> Array:
    """rows / (classes · rows of the class), as scikit-learn's "balanced"."""
    counts = np.bincount(labels, minlength=classes)
    present = int((counts > 0).sum())
    found: Array = len(labels) / (present * np.maximum(counts, 1)[labels])
    return found


# ------------------------------------------------------------------------------------------- judging


def _judge(outcome: Outcome, inputs: Array, targets: Array) -> None:
    """Fill in the scores of the test rows."""
    plan, preparation = outcome.plan, outcome.plan.preparation
    part = plan.table.frame.iloc[plan.test]
    unseen = preparation.transform(part)
    truth = preparation.decode_target(preparation.encode_target(part[preparation.target.name]))
    predicted = predict_rows(plan.model, preparation, unseen)[0]
    linear = preparation.decode_target(
        linear_predictions(inputs, targets, unseen, classes=bool(preparation.classes), balanced=plan.balanced)
    )
    known = preparation.decode_target(targets)
    if preparation.classes:
        names, counts = np.unique(known.astype(str), return_counts=True)
        outcome.baseline_class = str(names[counts.argmax()])
        constant = np.full(truth.shape, outcome.baseline_class, dtype=object)
        outcome.baseline = score_predictions(preparation, truth, constant)
    else:
        outcome.baseline = baseline(preparation.task, known, truth)
    outcome.score = score_predictions(preparation, truth, predicted)
    outcome.linear = score_predictions(preparation, truth, linear)
    if preparation.classes:
        outcome.difference = paired_difference("accuracy", predicted == truth, linear == truth)
    else:
        errors = np.abs(linear - truth), np.abs(predicted - truth)
        outcome.difference = paired_difference("mean_absolute_error", *errors)


def score_predictions(preparation: Preparation, truth: Array, predicted: Array) -> Record:
    """Accuracy and macro-F1 of classes, or R² and mean absolute error of numbers in the target's own unit."""
    found = score(preparation.task, truth, predicted)
    return found | ({"macro_f1": macro_f1(truth, predicted)} if preparation.classes else {})


def predict_rows(model: Networks, preparation: Preparation, inputs: Array) -> tuple[Array, Array | None]:
    """(predictions in the target's own words or unit, probabilities of the classes or None)."""
    outputs = average(run_model(model, inputs))
    if not preparation.classes:
        return preparation.decode_target(outputs), None
    with no_grad():
        probabilities = functional.softmax(tensor_of(outputs), axis=1).numpy()
    return preparation.decode_target(outputs.argmax(axis=1)), probabilities
