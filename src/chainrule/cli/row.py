"""One prediction of a run, told: `chainrule explain RUN --row 5`.

Knows explanations of rows and the catalogue; computes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.cells import is_number
from ..data.tabular import Table, read_table
from ..explain.data import as_data
from ..explain.numbers import digits
from ..explain.text import tell
from ..language import LANGUAGES, sentence
from ..train.explanation import RowExplanation, explain_row
from ..train.files import readable
from ..train.predictor import Predictor, load_predictor, stored_table
from .formula import page_path
from .report import aligned, number
from .usage import UsageError

if TYPE_CHECKING:
    import pandas

# Longer lists are cut: the rest moves the prediction little.
_SHOWN_INPUTS, _SHOWN_CLASSES = 12, 5

_BAR = 12

# Letters from which on a number is rounded.
_LONG = 10


def explain_run(arguments: argparse.Namespace, place: str) -> int:
    """Print the explanation, or write its page."""
    page = page_path(arguments.html, place) if arguments.html is not None else None
    predictor = load_predictor(place)
    table = _table(predictor, arguments)
    if not 1 <= arguments.row <= len(table.frame):
        raise UsageError("unknown_row", rows=len(table.frame), row=arguments.row)
    row = table.frame.iloc[[arguments.row - 1]]
    found = explain_row(
        predictor, row, fold=not arguments.unfold, depth=arguments.depth, language=arguments.lang
    )
    name = readable(os.path.basename(table.reading.path))
    teller = Teller(found, predictor, name, arguments.row)
    found.story.title = teller.headline(arguments.lang)
    found.story.extras |= {"explanation": teller.data(row)}
    if arguments.json:
        told = json.dumps(as_data(found.story), ensure_ascii=False, allow_nan=False, indent=2)
    else:
        story = tell(found.story, arguments.lang).partition("\n")[2].lstrip("\n")
        told = "\n".join(
            [*teller.lines(arguments.lang), "", sentence("row.story", arguments.lang), "", story]
        )
    if page is not None:  # before anything is printed: the reader of a pipe may leave early
        found.story.notes = {language: teller.lines(language)[1:] for language in LANGUAGES}
        found.story.save(page, arguments.lang)
    print(told)
    if page is not None and not arguments.json:
        print(sentence("explain.page", arguments.lang, path=readable(page)))
    return 0


def _table(predictor: Predictor, arguments: argparse.Namespace) -> Table:
    if arguments.data is not None:
        return read_table(arguments.data, encoding=arguments.encoding)
    return stored_table(predictor.record)


class Teller:
    """What is said of an explanation, in every language."""

    def __init__(self, found: RowExplanation, predictor: Predictor, table: str, row: int) -> None:
        self._found = found
        self._target = predictor.preparation.target.name
        self._count = predictor.model.count
        self._table = table
        self._row = row
        self._unit = (predictor.preparation.target_scale, predictor.preparation.target_mean)

    def headline(self, language: str) -> str:
        """`Row 5 of iris.csv: species is predicted as setosa (98.1%); the table says so too`."""
        found = self._found
        say = {"target": self._target, "prediction": _shown(found.prediction)}
        head = sentence("row.title", language, row=self._row, table=self._table)
        if found.probabilities is None:
            predicted = sentence("row.predicted", language, **say)
        else:
            share = float(found.probabilities.max())
            predicted = sentence("row.predicted_share", language, share=share, **say)
        return f"{head}: {predicted}; {self._truth(language)}"

    def _truth(self, language: str) -> str:
        found = self._found
        if found.truth is None:
            return sentence("row.unknown", language)
        if found.probabilities is None:
            error = digits(float(found.prediction) - float(found.truth), 4)
            return sentence("row.off", language, truth=_shown(found.truth), error=error)
        key = "right" if found.truth == found.prediction else "wrong"
        return sentence(f"row.{key}", language, truth=_shown(found.truth))

    def lines(self, language: str) -> list[str]:
        """The explanation without the story."""
        notes = [one.told(language) for one in self._found.facts if one.key != "ignored_columns"]
        lines = [self.headline(language), *notes, "", *self._inputs(language), "", *self._layers(language)]
        return [*lines, "", *self._loss(language)] if self._found.loss is not None else lines

    # ------------------------------------------------------------------------------- parts

    def _inputs(self, language: str) -> list[str]:
        found = self._found
        heads = [sentence(f"row.{name}", language) for name in ("column", "cell", "scaled", "push")]
        largest = max((abs(one.push) for one in found.inputs), default=0.0) or 1.0
        rows = [[*heads, ""]]
        for one in found.inputs[:_SHOWN_INPUTS]:
            cell = sentence("row.missing", language) if one.cell is None else _short(one.cell)
            bar = "▇" * round(_BAR * abs(one.push) / largest)
            away = "" if one.deviations is None else f"{one.deviations:+.2f}"
            rows.append([one.column, cell, away, f"{one.push:+.4g}", bar])
        lines = [sentence("row.inputs", language), *("  " + line for line in aligned(rows))]
        if len(found.inputs) > _SHOWN_INPUTS:
            count = len(found.inputs) - _SHOWN_INPUTS
            lines.append("  " + sentence("train.more_columns", language, count=count))
        values = {
            "pushes": digits(found.margin - found.rest, 4), "rest": digits(found.rest, 4),
            "margin": digits(found.margin, 4), "target": self._target,
        }  # fmt: skip
        if found.rival is None:
            return [*lines, "  " + sentence("row.push_number", language, **values)]
        values |= {"prediction": _shown(found.prediction), "rival": found.rival}
        return [*lines, "  " + sentence("row.push_classes", language, **values)]

    def _layers(self, language: str) -> list[str]:
        found = self._found
        key = "row.layers" if self._count > 1 else "row.layers_single"
        lines = [sentence(key, language, count=self._count)]
        rows = []
        for layer in found.layers[:-1]:
            units = layer.values.shape[1]
            if layer.kind == "ReLU":
                on = ", ".join(str(int(one)) for one in (layer.values > 0).sum(axis=1))
                text = sentence("row.units_on", language, units=units, on=on)
            else:
                low, high = digits(layer.values.min(), 4), digits(layer.values.max(), 4)
                text = sentence("row.sums", language, units=units, low=low, high=high)
            rows.append([layer.name, text])
        names = max(len(one.name) for one in found.layers)
        lines += [f"  {name:<{names}}  {text}" for name, text in rows]
        return lines + ["  " + line for line in self._answers(names, language)]

    def _answers(self, names: int, language: str) -> list[str]:
        """The last layer, after a name of so many letters: what each network answers, and what comes of it."""
        found, last = self._found, self._found.layers[-1]
        mean, softmax = sentence("row.mean", language), sentence("row.softmax", language)
        if found.logits is None or found.probabilities is None:
            own = [f"{float(one):.3f}" for one in last.values[:, 0]]
            average = float(last.values.mean())
            value = digits(average * self._unit[0] + self._unit[1])
            unit = sentence("row.in_unit", language, target=self._target, value=value)
            return aligned([[f"{last.name:<{names}}", *own, mean, f"{average:.3f}", unit]])
        rows = []
        order = np.argsort(-found.probabilities, kind="stable")
        for k, place in enumerate(order[:_SHOWN_CLASSES].tolist()):
            own = [f"{one:.2f}" for one in last.values[:, place]]
            sign = "▶" if k == 0 else ""
            rows.append(
                [
                    f"{last.name if k == 0 else '':<{names}}", found.classes[place], *own, mean,
                    f"{found.logits[place]:.3f}", softmax, f"{found.probabilities[place]:.2%} {sign}",
                ]
            )  # fmt: skip
        lines = aligned(rows)
        left = len(found.classes) - _SHOWN_CLASSES
        return lines + ([sentence("row.more", language, count=left)] if left > 0 else [])

    def _loss(self, language: str) -> list[str]:
        found = self._found
        assert found.loss is not None
        if found.probabilities is None:
            lines = [sentence("row.loss_number", language, loss=digits(found.loss))]
        else:
            share = float(found.probabilities[found.classes.index(str(found.truth))])
            values = {"truth": _shown(found.truth), "share": digits(share), "loss": digits(found.loss)}
            lines = [sentence("row.loss_classes", language, **values)]
        told = sorted((one for one in found.inputs if one.slope), key=lambda one: -abs(one.push))
        for one in told[:3]:
            assert one.slope is not None
            lines.append("  " + sentence("row.slope", language, column=one.column, slope=f"{one.slope:+.4g}"))
        sizes = ", ".join(f"{name} {digits(size, 3)}" for name, size in found.gradients.items())
        return [*lines, "  " + sentence("row.by_layer", language, sizes=sizes)]

    def data(self, row: pandas.DataFrame) -> dict[str, Any]:
        """Everything as plain JSON."""
        found = self._found
        probabilities = found.probabilities
        return {
            "table": self._table,
            "row": self._row,
            "target": self._target,
            "prediction": _plain(found.prediction),
            "truth": _plain(found.truth),
            "probabilities": None
            if probabilities is None
            else dict(zip(found.classes, probabilities.tolist())),
            "logits": None if found.logits is None else dict(zip(found.classes, found.logits.tolist())),
            "method": "gradient × input",
            "rival": found.rival,
            "margin": found.margin,
            "rest": found.rest,
            "inputs": [
                {
                    "column": one.column,
                    "value": one.cell,
                    "inputs": dict(one.features),
                    "push": one.push,
                    "loss_slope": one.slope,
                }
                for one in found.inputs
            ],
            "layers": [
                {"name": one.name, "kind": one.kind, "outputs": one.values.tolist()} for one in found.layers
            ],
            "loss": found.loss,
            "gradients": found.gradients,
            "notes": [one.to_json() for one in found.facts],
        }


def _short(cell: str) -> str:
    """The cell's own text; of a number with many digits the first ones."""
    return number(float(cell)) if len(cell) > _LONG and is_number(cell) else cell


def _shown(value: Any) -> str:
    return digits(value) if isinstance(value, float | np.floating) else str(value)


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, np.floating) else value
