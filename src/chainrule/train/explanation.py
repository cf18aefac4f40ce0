"""One prediction of a stored run, taken apart: what each layer made of the row, which columns pushed it, the loss.

A network of weighted sums and ReLUs is a weighted sum itself as long as no unit switches on or off. So the
pushes, gradient × input, and what is left when all inputs are 0 add up to the output exactly and are no estimate.
Inputs are scaled, so 0 is the mean of a column of numbers.
Knows predictors, graphs and stories; knows nothing of words and pages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import functional, nn
from ..autodiff import gradients
from ..data.cells import cells_of
from ..data.steps import NumberStep
from ..data.tabular import Fact
from ..errors import DataError
from ..explain.story import Story, build
from ..tensor import Tensor
from .predictor import Predictor
from .problem import Array

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, slots=True)
class Input:
    """A column of the row: its cell as it stands in the table, and what the networks got for it.

    features: names and numbers of the networks' inputs. deviations: how far a number is from its column's mean, None
    for anything but a number. push: how much it adds to the margin, or to the number predicted, in the target's unit.
    slope: ∂loss / ∂column in the column's own unit, None without target or unit.
    """

    column: str
    cell: str | None
    features: tuple[tuple[str, float], ...]
    deviations: float | None
    push: float
    slope: float | None


@dataclass(frozen=True, slots=True)
class Layer:
    """What came out of a layer: values (count, units)."""

    name: str
    kind: str
    values: Array


@dataclass(slots=True)
class RowExplanation:
    """Everything about one prediction.

    prediction, truth: in the target's own words or unit; truth is None where the row has none. logits, probabilities:
    (classes,), None for numbers. rival: the class that `margin` (logit of the prediction less logit of the rival) is
    measured against. rest: what margin or prediction would be if all inputs were 0. loss: None without truth.
    gradients: the norm of the loss's gradient in every parameter.
    """

    classes: tuple[str, ...]
    prediction: Any
    truth: Any
    inputs: list[Input]
    layers: list[Layer]
    logits: Array | None
    probabilities: Array | None
    rival: str | None
    margin: float
    rest: float
    loss: float | None
    gradients: dict[str, float]
    story: Story
    facts: list[Fact] = field(default_factory=list)


def explain_row(
    predictor: Predictor,
    row: pandas.DataFrame,
    *,
    fold: bool = True,
    depth: int | None = None,
    language: str = "en",
) -> RowExplanation:
    """Take the prediction for a table of one row apart. The target's column may be missing or empty.

    fold, depth, language: of the story, as in `explain`. Raises DataError for a row that cannot be read.
    """
    preparation, model = predictor.preparation, predictor.model
    facts: list[Fact] = []
    x = Tensor(preparation.transform(row, facts), requires_grad=True)
    layers, named = _through_layers(model, x)
    answer = named[-1][1].mean(axis=0)
    named.append(("logits" if preparation.classes else "answer", answer))
    values = answer.detach().numpy()[0].astype(np.float64)
    order = np.argsort(-values, kind="stable")
    top = answer[0, int(order[0])]
    measured = top - answer[0, int(order[1])] if preparation.classes else top
    scale = 1.0 if preparation.classes else preparation.target_scale
    slopes = _gradient(measured, [x])[0][0]
    pushes = slopes.astype(np.float64) * x.detach().numpy()[0] * scale
    margin = float(measured.item()) * scale + (0.0 if preparation.classes else preparation.target_mean)
    truth = _truth(predictor, row)
    parameters = dict(model.named_parameters())
    loss = None if truth is None else _loss(answer, truth, bool(preparation.classes))
    found = [] if loss is None else _gradient(loss, [x, *parameters.values()])
    last = ("margin", measured) if loss is None else ("L", loss)
    story = build(last[1], [*named, last], [], fold=fold, depth=depth, language=language, sources={})
    return RowExplanation(
        classes=preparation.classes,
        prediction=preparation.decode_target(order[:1] if preparation.classes else values)[0],
        truth=None if truth is None else preparation.decode_target(truth)[0],
        inputs=_inputs(predictor, row, x, pushes, found[0][0] if found else None),
        layers=layers,
        logits=values if preparation.classes else None,
        probabilities=_softmax(values) if preparation.classes else None,
        rival=preparation.classes[int(order[1])] if preparation.classes else None,
        margin=margin,
        rest=margin - float(pushes.sum()),
        loss=None if loss is None else float(loss.item()),
        gradients={name: float(np.linalg.norm(one)) for name, one in zip(parameters, found[1:])},
        story=story,
        facts=facts,
    )


def _through_layers(model: nn.Module, x: Tensor) -> tuple[list[Layer], list[tuple[str, Tensor]]]:
    """What came out of each layer, and the same with the input as tensors by their names in formulas."""
    layers, named = [], [("x", x)]
    for name, module in model.named_children():
        flow = module(named[-1][1])
        layers.append(Layer(name, type(module).__name__, flow.detach().numpy()[:, 0, :]))
        named.append((_letter(name), flow))
    return layers, named


def _letter(name: str) -> str:
    """The name of a layer's result in formulas: z1 before and h1 after the first ReLU; answers of all networks."""
    return name.replace("hidden", "z").replace("relu", "h").replace("output", "answers")


def _gradient(result: Tensor, sources: list[Tensor]) -> list[Array]:
    nodes = [one.node for one in sources]
    found = gradients([result.node], [np.ones(result.shape, result.dtype)], nodes)
    return [
        np.zeros(node.shape, node.dtype) if found.get(node) is None else np.asarray(found[node])
        for node in nodes
    ]


def _softmax(logits: Array) -> Array:
    shares = np.exp(logits - logits.max())
    result: Array = shares / shares.sum()
    return result


def _truth(predictor: Predictor, row: pandas.DataFrame) -> Array | None:
    """The target as the loss needs it, (1,); None where the row has none, or a class that was not learnt."""
    target = predictor.preparation.target.name
    if target not in row.columns:
        return None
    try:
        return predictor.preparation.encode_target(row[target])
    except DataError:
        return None


def _loss(answer: Tensor, truth: Array, classes: bool) -> Tensor:
    if classes:
        return functional.cross_entropy(answer, Tensor(truth))
    return functional.mse_loss(answer.reshape((1,)), Tensor(truth))


def _inputs(
    predictor: Predictor, row: pandas.DataFrame, x: Tensor, pushes: Array, slopes: Array | None
) -> list[Input]:
    """The columns of the row, those with the largest push first."""
    preparation, numbers = predictor.preparation, x.detach().numpy()[0]
    found, start = [], 0
    for step in preparation.steps:
        places = range(start, start + len(step.features))
        start = places.stop
        (cell,) = cells_of(row[step.column])
        scalings = step.scalings if isinstance(step, NumberStep) else ()
        deviations = float(numbers[places[0]]) if len(scalings) == 1 else None
        slope = None
        if slopes is not None and len(scalings) == 1:
            slope = float(slopes[places[0]]) / scalings[0].scale
        found.append(
            Input(
                step.column,
                cell,
                tuple((name, float(numbers[place])) for name, place in zip(step.features, places)),
                deviations,
                float(sum(pushes[place] for place in places)),
                slope,
            )
        )
    return sorted(found, key=lambda one: -abs(one.push))
