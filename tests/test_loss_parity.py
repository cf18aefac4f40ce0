"""Training with every loss equals PyTorch's: 200 steps from the same weights over the same batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim
from rivals import torch

pytestmark = [pytest.mark.pytorch, pytest.mark.usefixtures("one_thread_of_pytorch")]

STEPS, RATE, BATCHES, ROWS, FEATURES, HIDDEN, CLASSES = 200, 1e-3, 4, 16, 4, 8, 3


@dataclass(frozen=True)
class Training:
    """A loss with its options, what stands between the network and it, and which targets it takes."""

    loss: str
    options: dict[str, Any] = field(default_factory=dict)
    head: str = ""
    targets: str = "numbers"


WEIGHT = np.asarray([0.5, 2.0, 1.25])
CE, BCE, BCEL = "CrossEntropyLoss", "BCELoss", "BCEWithLogitsLoss"
TRAININGS = {
    "mse": Training("MSELoss"),
    "mse sum": Training("MSELoss", {"reduction": "sum"}),
    "l1": Training("L1Loss"),
    "l1 sum": Training("L1Loss", {"reduction": "sum"}),
    "huber": Training("HuberLoss"),
    "huber 0.3": Training("HuberLoss", {"delta": 0.3, "reduction": "sum"}),
    "smooth_l1": Training("SmoothL1Loss"),
    "smooth_l1 0.2": Training("SmoothL1Loss", {"beta": 0.2, "reduction": "sum"}),
    "smooth_l1 0": Training("SmoothL1Loss", {"beta": 0.0}),
    "bce": Training(BCE, {}, "sigmoid", "yes"),
    "bce sum soft": Training(BCE, {"reduction": "sum"}, "sigmoid", "chances"),
    "bce weight": Training(BCE, {"weight": WEIGHT}, "sigmoid", "chances"),
    "bce_with_logits": Training(BCEL, {}, "", "yes"),
    "bce_with_logits sum soft": Training(BCEL, {"reduction": "sum"}, "", "chances"),
    "bce_with_logits weight": Training(BCEL, {"weight": WEIGHT}, "", "yes"),
    "bce_with_logits pos_weight": Training(BCEL, {"pos_weight": 3 * WEIGHT}, "", "yes"),
    "bce_with_logits both": Training(BCEL, {"weight": WEIGHT, "pos_weight": 3 * WEIGHT}, "", "chances"),
    "ce": Training(CE, {}, "", "classes"),
    "ce sum": Training(CE, {"reduction": "sum"}, "", "classes"),
    "ce of lines": Training(CE, {"weight": WEIGHT}, "lines", "classes of lines"),
    "ce weight": Training(CE, {"weight": WEIGHT}, "", "classes"),
    "ce ignored": Training(CE, {}, "", "some classes"),
    "ce ignored weight": Training(CE, {"weight": WEIGHT}, "", "some classes"),
    "ce ignore_index": Training(CE, {"ignore_index": 1}, "lines", "classes of lines"),
    "ce smoothing": Training(CE, {"label_smoothing": 0.1}, "", "classes"),
    "ce smoothing weight ignored": Training(
        CE, {"label_smoothing": 0.1, "weight": WEIGHT, "ignore_index": 2}, "", "classes"),
    "ce shares": Training(CE, {}, "", "shares"),
    "ce shares weight": Training(CE, {"weight": WEIGHT}, "", "shares"),
    "ce shares weight smoothing": Training(CE, {"weight": WEIGHT, "label_smoothing": 0.2}, "", "shares"),
    "nll": Training("NLLLoss", {}, "log_softmax", "classes"),
    "nll weight ignored": Training("NLLLoss", {"weight": WEIGHT}, "log_softmax", "some classes"),
    "nll sum": Training("NLLLoss", {"reduction": "sum", "ignore_index": 0}, "log_softmax", "classes"),
    "kl_div": Training("KLDivLoss", {}, "log_softmax", "shares"),
    "kl_div batchmean": Training("KLDivLoss", {"reduction": "batchmean"}, "log_softmax", "shares"),
    "kl_div log_target": Training(
        "KLDivLoss", {"reduction": "batchmean", "log_target": True}, "log_softmax", "logarithms of shares"),
}  # fmt: skip

HEADS = {
    "": (lambda x: x, lambda x: x),
    "sigmoid": (F.sigmoid, torch.sigmoid),
    "log_softmax": (lambda x: F.log_softmax(x, 1), lambda x: torch.log_softmax(x, 1)),
    "lines": (lambda x: x.reshape(ROWS, CLASSES, 2), lambda x: x.reshape(ROWS, CLASSES, 2)),
}


def targets_of(kind: str, random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    classes = random.integers(0, CLASSES, (BATCHES, ROWS))
    shares = random.dirichlet(np.ones(CLASSES), (BATCHES, ROWS))
    made = {
        "numbers": random.normal(size=shape),
        "yes": (random.random(shape) > 0.5).astype(float),
        "chances": random.random(shape),
        "classes": classes,
        "some classes": np.where(random.random(classes.shape) > 0.7, -100, classes),
        "classes of lines": random.integers(0, CLASSES, (BATCHES, ROWS, 2)),
        "shares": shares,
        "logarithms of shares": np.log(shares),
    }[kind]
    return made.astype(dtype) if made.dtype.kind == "f" else made


def options_of(training: Training, dtype: str, make: Any) -> dict[str, Any]:
    return {
        name: make(value.astype(dtype)) if isinstance(value, np.ndarray) else value
        for name, value in training.options.items()
    }


def ours(training: Training, weights: list[np.ndarray], xs: Any, ys: Any, optimizer: str) -> Iterator[Any]:
    """(loss, outputs) of every step, then the weights."""
    dtype, head = str(xs.dtype), HEADS[training.head][0]
    model = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, len(weights[2]))).to(
        dtype
    )
    model.load_state_dict(dict(zip(model.state_dict(), weights)))
    learning = (
        optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
        if optimizer == "sgd"
        else optim.Adam(model.parameters(), lr=RATE)
    )
    criterion = getattr(nn, training.loss)(**options_of(training, dtype, cr.asarray))
    batches = [(cr.asarray(x), cr.asarray(y)) for x, y in zip(xs, ys)]
    for number in range(STEPS):
        x, y = batches[number % BATCHES]
        outputs = head(model(x))
        loss = criterion(outputs, y)
        learning.zero_grad()
        loss.backward()
        learning.step()
        yield loss.item(), outputs.detach().numpy()
    yield [one.detach().numpy() for one in model.parameters()]


def theirs(training: Training, weights: list[np.ndarray], xs: Any, ys: Any, optimizer: str) -> Iterator[Any]:
    """The same by PyTorch."""
    head = HEADS[training.head][1]
    model = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, len(weights[2]))
    ).to(getattr(torch, str(xs.dtype)))
    model.load_state_dict({name: torch.tensor(one) for name, one in zip(model.state_dict(), weights)})
    learning = (
        torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
        if optimizer == "sgd"
        else torch.optim.Adam(model.parameters(), lr=RATE)
    )
    criterion = getattr(torch.nn, training.loss)(**options_of(training, str(xs.dtype), torch.tensor))
    batches = [(torch.tensor(x), torch.tensor(y)) for x, y in zip(xs, ys)]
    for number in range(STEPS):
        x, y = batches[number % BATCHES]
        outputs = head(model(x))
        loss = criterion(outputs, y)
        learning.zero_grad()
        loss.backward()
        learning.step()
        yield loss.item(), outputs.detach().numpy()
    yield [one.detach().numpy() for one in model.parameters()]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", TRAININGS)
def test_trajectories_equal_torch(name: str, dtype: str, optimizer: str) -> None:
    training, random = TRAININGS[name], np.random.default_rng(list(TRAININGS).index(name))
    outputs = 2 * CLASSES if training.head == "lines" else CLASSES
    shapes = ((HIDDEN, FEATURES), (HIDDEN,), (outputs, HIDDEN), (outputs,))
    weights = [random.normal(size=shape, scale=0.6).astype(dtype) for shape in shapes]
    xs = random.normal(size=(BATCHES, ROWS, FEATURES)).astype(dtype)
    ys = targets_of(training.targets, random, (BATCHES, ROWS, outputs), dtype)
    tolerance = 1e-9 if dtype == "float64" else 1e-4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of the meaning of "mean" in kl_div
        wanted = list(theirs(training, weights, xs, ys, optimizer))
    got = list(ours(training, weights, xs, ys, optimizer))
    assert len(got) == len(wanted) == STEPS + 1 and got[-2][0] != got[BATCHES - 1][0]
    for (loss, output), (other_loss, other_output) in zip(got[:-1], wanted[:-1]):
        assert loss == pytest.approx(other_loss, rel=tolerance, abs=tolerance)
        np.testing.assert_allclose(output, other_output, tolerance, tolerance)
    if dtype == "float64":
        for one, other in zip(got[-1], wanted[-1]):
            np.testing.assert_allclose(one, other, tolerance, tolerance)
