"""scikit-learn's MLPClassifier and our `fit` on the same digits: time of an epoch at equal layers and batches.

Ours are the times between the ends of epochs within one `fit`; theirs are calls of `partial_fit`, each one pass in
batches. What a whole training takes, with its start, is told beside it.
Loads scikit-learn when it is asked to.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ...nn import Linear, ReLU, Sequential
from ...optim import Adam
from ...train import fit
from . import machine
from .record import ABSENT, MEASURED
from .timing import ratio, told

_HIDDEN, _BATCH, _RATE = 32, 32, 1e-3
_EPOCHS, _ROUNDS = 20, 7
# The first epochs make or load machine code and warm the caches.
_WARMING = 2


def measure(quick: bool = False) -> dict[str, Any]:
    """Seconds of an epoch and of a training for both, in turns, with the accuracy on the training rows after it."""
    if importlib.util.find_spec("sklearn") is None:
        return {"status": ABSENT}
    load = machine.Load()
    found: Any = importlib.import_module("sklearn.datasets").load_digits()
    x, y = (found.data / 16).astype(np.float32), found.target
    trainings: dict[str, Callable[[Any, Any, int], tuple[list[float], float]]] = {
        "chainrule": _ours, "scikit-learn": _theirs,
    }  # fmt: skip
    epochs, rounds = (_WARMING + 3, 1) if quick else (_EPOCHS, _ROUNDS)
    samples: dict[str, list[float]] = {name: [] for name in trainings}
    wholes: dict[str, list[float]] = {name: [] for name in trainings}
    right: dict[str, float] = {}
    for _ in range(rounds):
        for name, train in trainings.items():
            start = time.perf_counter()
            seconds, right[name] = train(x, y, epochs)
            wholes[name].append(time.perf_counter() - start)
            samples[name] += seconds[_WARMING:]
    told_of = {
        name: {**told(one), "whole": told(wholes[name])["median"], "accuracy": right[name], "epochs": epochs}
        for name, one in samples.items()
    }
    return {
        "status": MEASURED,
        "rows": len(x),
        "sizes": [x.shape[1], _HIDDEN, 10],
        "batch": _BATCH,
        "engines": told_of,
        "ratio": ratio(told_of["chainrule"], told_of["scikit-learn"]),
        "load": load.told(),
    }


def _ours(x: Any, y: Any, epochs: int) -> tuple[list[float], float]:
    model = Sequential(Linear(x.shape[1], _HIDDEN), ReLU(), Linear(_HIDDEN, 10))
    ends = [time.perf_counter()]
    run = fit(
        model, (x, y), optimizer=Adam(model.parameters(), lr=_RATE), epochs=epochs, batch_size=_BATCH,
        validation=None, progress=False, compile=True, callback=lambda record: ends.append(time.perf_counter()),
    )  # fmt: skip
    seconds = [end - start for start, end in itertools.pairwise(ends)]
    return seconds, float((np.asarray(run.predict(x)) == y).mean())


def _theirs(x: Any, y: Any, epochs: int) -> tuple[list[float], float]:
    network: Any = importlib.import_module("sklearn.neural_network").MLPClassifier(
        (_HIDDEN,), batch_size=_BATCH, learning_rate_init=_RATE, alpha=0.0, random_state=0
    )
    classes, seconds = np.unique(y), []
    for _ in range(epochs):
        start = time.perf_counter()
        network.partial_fit(x, y, classes=classes)
        seconds.append(time.perf_counter() - start)
    return seconds, float(network.score(x, y))
