"""Repeated cross-validation: the score of a way of training, with an interval, from all rows of a table.

Every fold is a training of its own, with its own preparation; nothing of a test row is ever learnt from.
Knows plans and outcomes of `tabular`; knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ArgumentError
from .networks import deal
from .rivals import Difference, corrected_interval
from .tabular import Plan, Record, Rows, plan_table, train_plan

Scores = dict[str, Record]
"""The scores of one fold: of "network", "linear" and "baseline"."""


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """The scores of all folds, in their order. trained, tested: rows of a fold, on average."""

    folds: int
    repeats: int
    trained: float
    tested: float
    scores: tuple[Scores, ...]

    @property
    def measures(self) -> list[str]:
        """Names of the figures; more of the first one is better."""
        return list(self.scores[0]["network"])

    def values(self, model: str, measure: str) -> list[float]:
        """One figure of "network", "linear" or "baseline" in each fold."""
        return [one[model][measure] for one in self.scores]

    def mean(self, model: str) -> Record:
        """The means over the folds."""
        return {name: float(np.mean(self.values(model, name))) for name in self.measures}

    def interval(self, model: str, measure: str) -> tuple[float, float]:
        """The 95 % interval of a mean, corrected for folds that share training rows."""
        return corrected_interval(self.values(model, measure), self.tested, self.trained)

    @property
    def difference(self) -> Difference:
        """By how much the networks beat the linear model, in the first figure, fold by fold."""
        name = self.measures[0]
        each = np.subtract(self.values("network", name), self.values("linear", name))
        low, high = corrected_interval(each.tolist(), self.tested, self.trained)
        return Difference(name, float(each.mean()), low, high)

    def to_json(self) -> dict[str, Any]:
        """All figures as plain JSON."""
        return {
            "folds": self.folds,
            "repeats": self.repeats,
            "trained": self.trained,
            "tested": self.tested,
            "scores": list(self.scores),
            "mean": {model: self.mean(model) for model in self.scores[0]},
            "interval": {
                model: {name: list(self.interval(model, name)) for name in self.measures}
                for model in self.scores[0]
            },
        }


def fold_rows(plan: Plan, folds: int, repeats: int) -> list[tuple[Rows, Rows]]:
    """Positions of the training and of the test rows of each fold, repeat by repeat.

    Every repeat deals all rows with a target anew; each class has its share in each fold. Raises ArgumentError for
    fewer than two folds or more folds than rows, and for no repeat.
    """
    rows = np.sort(np.concatenate([plan.training, plan.test]))
    if not 2 <= folds <= len(rows):
        raise ArgumentError(
            f"folds must be from 2 to the number of rows with a target, {len(rows)}; got {folds}"
        )
    if repeats < 1:
        raise ArgumentError(f"repeats must be a whole number from 1; got {repeats}")
    labels = None
    if plan.preparation.classes:
        labels = plan.preparation.encode_target(plan.table.frame.iloc[rows][plan.preparation.target.name])
    found = []
    for repeat in range(repeats):
        parts = deal(labels, len(rows), plan.settings.seed + repeat, folds)
        found += [(rows[parts != fold], rows[parts == fold]) for fold in range(folds)]
    return found


def cross_validate(
    plan: Plan,
    folds: int = 5,
    repeats: int = 1,
    *,
    done: Iterable[Scores] = (),
    note: Callable[[list[Scores], int], object] | None = None,
) -> CrossValidation:
    """Train and test as `plan` says on every fold.

    done: the scores of the first folds, if they are known already. note: called after each fold with the scores so far
    and the number of folds.

    >>> from chainrule.data.tabular import bundled
    >>> from chainrule.train.tabular import Settings
    >>> plan = plan_table(bundled("iris"), "species", settings=Settings(epochs=20))
    >>> found = cross_validate(plan, folds=3)
    >>> len(found.scores), found.mean("network")["accuracy"] > found.mean("baseline")["accuracy"]
    (3, True)
    """
    splits = fold_rows(plan, folds, repeats)
    scores = list(done)[: len(splits)]
    target = plan.preparation.target
    for rows in splits[len(scores) :]:
        part = plan_table(plan.table, target.name, target.task, plan.settings, rows=rows, schema=plan.schema)
        outcome = train_plan(part)
        if outcome.run.state == "interrupted":  # a fold that was cut short would tell a wrong score
            raise KeyboardInterrupt
        scores.append({"network": outcome.score, "linear": outcome.linear, "baseline": outcome.baseline})
        if note is not None:
            note(scores, len(splits))
    trained, tested = (float(np.mean([len(rows[k]) for rows in splits])) for k in (0, 1))
    return CrossValidation(folds, repeats, trained, tested, tuple(scores))
