"""What programs from elsewhere bring to `fit`: steps that do all, models that return more, data sets and loaders."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ArgumentError, DataError, ShapeError

F = cr.functional
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 6))
Y = (X[:, 0] > 0).astype(int)
TOKENS, NEXT = RANDOM.integers(0, 9, (64, 5)), RANDOM.integers(0, 9, (64, 5))


class Autoencoder(nn.Module):
    """Returns three tensors, as a VAE does."""

    def __init__(self) -> None:
        self.encoder, self.decoder = nn.Linear(6, 8), nn.Linear(4, 6)

    def forward(self, x: Any) -> Any:
        h = self.encoder(x)
        mean, spread = h[:, :4], h[:, 4:]
        return self.decoder(mean + cr.exp(0.5 * spread) * cr.randn(*mean.shape)), mean, spread


class Language(nn.Module):
    """Returns (logits, loss), and None for the loss without targets."""

    def __init__(self) -> None:
        self.table = nn.Embedding(9, 9)

    def forward(self, tokens: Any, targets: Any = None) -> Any:
        logits = self.table(tokens)
        return logits, None if targets is None else loss_of(logits, targets)


class Strict(Language):
    def forward(self, tokens: Any, targets: Any) -> Any:
        return super().forward(tokens, targets)


class Named(Language):
    def forward(self, tokens: Any, targets: Any = None) -> Any:
        logits, loss = super().forward(tokens, targets)
        return {"logits": logits, "loss": loss}


def loss_of(logits: Any, targets: Any) -> Any:
    return F.cross_entropy(logits.reshape(-1, 9), targets.reshape(-1))


def step_of(model: Any, optimizer: Any, loss: Any) -> Any:
    def step(x: Any, y: Any) -> Any:
        value = loss(model, x, y)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return value

    return step


def reconstruction(model: Any, x: Any, _: Any) -> Any:
    found, mean, spread = model(x)
    return ((found - x) ** 2).mean() - 0.5 * (1 + spread - mean**2 - cr.exp(spread)).mean()


STEPS: dict[str, Any] = {
    "autoencoder": (Autoencoder, (X, X), reconstruction),
    "autoencoder without targets of rows": (Autoencoder, (X, Y), reconstruction),
    "language": (Language, (TOKENS, NEXT), lambda model, x, y: model(x, y)[1]),
    "language with targets": (Strict, (TOKENS, NEXT), lambda model, x, y: model(x, y)[1]),
    "named": (Named, (TOKENS, NEXT), lambda model, x, y: model(x, y)["loss"]),
    "numbers": (lambda: nn.Linear(6, 1), (X, X[:, :1]), lambda model, x, y: ((model(x) - y) ** 2).mean()),
}


@pytest.mark.parametrize(
    "kind", ["arrays", "list of batches", "function of the epoch", "DataLoader", "no validation"]
)
@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_ones_own_needs_no_loss(name: str, kind: str, tmp_path: Path) -> None:
    make, (x, y), loss = STEPS[name]
    cr.manual_seed(0)
    model = make()
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    cut = [(x[k : k + 16], y[k : k + 16]) for k in range(0, 64, 16)]
    data: Any = {
        "list of batches": cut, "function of the epoch": lambda epoch: cut,
        "DataLoader": cr.data.DataLoader((x, y), batch_size=16),
    }.get(kind, (x, y))  # fmt: skip
    more = {"validation": None} if kind == "no validation" else {}
    run = cr.fit(
        model, data, step=step_of(model, optimizer, loss), optimizer=optimizer, epochs=4, batch_size=16,
        progress=False, folder=tmp_path / "run", **more,
    )  # fmt: skip
    assert len(run.history) == 4 and run.history[-1]["loss"] < run.history[0]["loss"]


def test_the_default_loss_still_measures_where_it_fits() -> None:
    model = nn.Linear(6, 2)
    optimizer = optim.Adam(model.parameters())
    step = step_of(model, optimizer, lambda model, x, y: F.cross_entropy(model(x), y))
    run = cr.fit(model, (X, Y), step=step, optimizer=optimizer, epochs=2, progress=False)
    assert {"validation_loss", "validation_accuracy"} <= run.history[-1].keys()


def test_faults_of_the_data_are_not_passed_over() -> None:
    model = Autoencoder()
    optimizer = optim.Adam(model.parameters())
    step = step_of(model, optimizer, reconstruction)
    for x, y, kind in (
        ([[np.nan] * 6] * 4, [0] * 4, DataError),
        (X, Y[:9], DataError),
        (X[:, :3], Y, ShapeError),
    ):
        with pytest.raises(kind):
            cr.fit(model, (x, y), step=step, optimizer=optimizer, progress=False)
    with pytest.raises(
        ArgumentError, match="got validation= beside a step whose model takes or returns others"
    ):
        strict = Strict()
        own = step_of(strict, optim.SGD(strict.parameters(), lr=0.1), lambda model, x, y: model(x, y)[1])
        cr.fit(strict, (TOKENS, NEXT), step=own, validation=0.5, progress=False)


@pytest.mark.parametrize("compile", [False, "auto", True])
def test_a_model_that_returns_scores_and_a_loss(compile: Any) -> None:
    run = cr.fit(
        Language(),
        (TOKENS, NEXT),
        loss=lambda found, y: loss_of(found[0], y),
        epochs=3,
        compile=compile,
        progress=False,
    )
    assert run.history[-1]["validation_loss"] > 0
    run = cr.fit(
        Language(), (TOKENS, NEXT), loss=lambda found, y: loss_of(found[0], y) if found[1] is None else found[1],
        epochs=2, progress=False, metrics={"zero": lambda found, y: float(found[1] is not None)},
    )  # fmt: skip
    assert run.history[-1]["validation_zero"] == 0.0
    with pytest.raises(DataError, match=r"got a tuple.*loss=lambda outputs, targets: .*outputs\[0\]"):
        cr.fit(Language(), (TOKENS, NEXT), progress=False, compile=compile)


# ------------------------------------------------------------------------------- data sets and loaders


class Items:
    """What PyTorch calls a data set."""

    wrap: Any = staticmethod(lambda x, y: (x, y))

    def __init__(self, rows: int = 64) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> Any:
        if index >= self.rows:
            raise IndexError(index)
        return self.wrap(X[index], Y[index])


class Tensors(Items):
    wrap = staticmethod(lambda x, y: (cr.tensor(x), cr.tensor(y)))


class Lists(Items):
    wrap = staticmethod(lambda x, y: (list(map(float, x)), int(y)))


class Loader:
    """What PyTorch calls a loader: batches as lists of two."""

    def __init__(self, dataset: Any, batch_size: int = 16) -> None:
        self.dataset, self.batch_size = dataset, batch_size

    def __iter__(self) -> Iterator[Any]:
        for k in range(0, len(self.dataset), self.batch_size):
            rows = [self.dataset[j] for j in range(k, min(k + self.batch_size, len(self.dataset)))]
            yield [np.stack([np.asarray(x) for x, _ in rows]), np.array([int(y) for _, y in rows])]


class Sized(Loader):
    def __len__(self) -> int:
        return math.ceil(len(self.dataset) / self.batch_size)


SOURCES: dict[str, Any] = {
    "data set": Items, "of tensors": Tensors, "of lists": Lists, "loader": lambda: Loader(Items()),
    "loader with a length": lambda: Sized(Lists()), "list of rows": lambda: list(zip(X, Y)),
    "list of items": lambda: [Items()[k] for k in range(64)], "arrays": lambda: (X, Y),
    "two batches": lambda: [(X[:32], Y[:32]), (X[32:], Y[32:])],
}  # fmt: skip


# Two rows of a list as validation are (X, y).
@pytest.mark.parametrize("held", [None, *(name for name in SOURCES if name != "two batches")])
@pytest.mark.parametrize("name", SOURCES)
def test_data_of_every_form(name: str, held: str | None) -> None:
    validation = {} if held is None else {"validation": SOURCES[held]()}
    cr.manual_seed(0)
    run = cr.fit(nn.Linear(6, 2), SOURCES[name](), batch_size=16, epochs=3, progress=False, **validation)
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    if held is not None:
        wanted = run.evaluate((X, Y))["loss"]
        assert run.history[-1]["validation_loss"] == pytest.approx(wanted, rel=1e-5)


# ------------------------------------------------------------------------------- models that are no modules


class Chain:
    """A hand-written Sequential."""

    def __init__(self, *layers: Any) -> None:
        self.layers = layers

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


class WithParameters(Chain):
    def parameters(self) -> list[Any]:
        return [one for layer in self.layers for one in layer.parameters()]


@pytest.mark.parametrize(
    "model,words",
    [
        (
            Chain(nn.Linear(6, 2)),
            r"an object of the class Chain. Let it inherit: class Chain\(nn.Module\), with forward",
        ),
        (WithParameters(nn.Linear(6, 2)), r"class WithParameters\(nn.Module\)"),
        ([nn.Linear(6, 2)], r"got a list. Write nn.Sequential\(\*layers\)"),
        ((nn.Linear(6, 2), nn.ReLU()), r"got a tuple. Write nn.Sequential\(\*layers\)"),
        (lambda x: x, "got function. Build the model from chainrule.nn"),
        (Chain, r"got the class Chain. Write Chain\(\)"),
        (None, "got NoneType. Build the model from chainrule.nn"),
    ],
    ids=["object", "with parameters", "list", "tuple", "function", "class", "none"],
)
def test_what_is_no_module_is_told_how_to_become_one(model: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        cr.fit(model, (X, Y), progress=False)
