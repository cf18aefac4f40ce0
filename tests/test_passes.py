"""Every optional pass of the compiler switched off, alone and all together: the steps compute what Python computes."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim
from chainrule.cli.bench.engines import own
from chainrule.cli.bench.workloads import WORKLOADS
from chainrule.compiler import PASSES
from chainrule.config import config
from chainrule.errors import ArgumentError, NonFiniteError
from chainrule.runtime import compile

STEPS = 4
SUMMED = cr.checkpoint(lambda x: cr.tanh(x).sum(axis=1, keepdims=True))


class Network(nn.Module):
    """Products, a norm with running statistics, dropout, a table of rows, something checkpointed."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 6)
        self.first = nn.Linear(
            6, 16, bias=False
        )  # a norm takes a bias away again: its gradient would be noise
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.25)
        self.second = nn.Linear(16, 5)

    def forward(self, tokens: cr.Tensor) -> cr.Tensor:
        hidden = self.drop(cr.relu(self.norm(self.first(self.table(tokens)))))
        return self.second(hidden) + SUMMED(hidden)


def trained(skip: frozenset[str], compiled: bool) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses of a few steps, and everything that the model holds afterwards."""
    cr.manual_seed(3)
    model = Network().to(cr.float64)
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def step(tokens: Any, labels: Any) -> Any:
        loss = F.cross_entropy(model(tokens), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    run = compile(step) if compiled else step
    random = np.random.default_rng(0)
    config.skip, outer = skip, config.skip
    try:
        losses = [
            run(cr.tensor(random.integers(0, 7, 12)), cr.tensor(random.integers(0, 5, 12))).item()
            for _ in range(STEPS)
        ]
    finally:
        config.skip = outer
    return losses, {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def expected() -> tuple[list[float], dict[str, np.ndarray]]:
    return trained(frozenset(), compiled=False)


@pytest.mark.parametrize(
    "skip", [(), *((one,) for one in PASSES), PASSES], ids=lambda one: "+".join(one) or "none"
)
def test_a_training_is_the_same_without_a_pass(skip: tuple[str, ...], expected: Any) -> None:
    losses, state = trained(frozenset(skip), compiled=True)
    np.testing.assert_allclose(losses, expected[0], rtol=1e-12)
    for name, value in expected[1].items():
        np.testing.assert_allclose(state[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("skip", [*((one,) for one in PASSES), PASSES], ids=lambda one: "+".join(one))
def test_a_failed_check_changes_nothing_without_a_pass(
    skip: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "skip", frozenset(skip))
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    optimizer = optim.SGD([w], lr=0.5)

    @compile
    def step(x: cr.Tensor) -> cr.Tensor:
        loss = cr.log(w * x).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    step(cr.tensor([1.0, 1.0]))
    before = w.numpy()
    with pytest.raises(NonFiniteError, match="loss must be finite"):
        step(cr.tensor([1.0, 0.0]))
    np.testing.assert_array_equal(w.numpy(), before)


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_that_is_off_leaves_its_mark(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each switch really switches something off."""

    def network(x: cr.Tensor, w: cr.Tensor) -> tuple[cr.Tensor, ...]:
        y = x @ w
        return (y * 1.0 + cr.exp(x)) @ w, cr.exp(y.T @ x), cr.exp(y) * 2.0

    def stages() -> dict[str, str]:
        model = nn.Linear(256, 256)
        optimizer = optim.Adam(model.parameters())

        @compile
        def step(x: cr.Tensor) -> Any:
            loss = (model(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return network(x, model.weight)

        step(cr.ones((256, 256)))
        return dict(step.stages())

    usual = stages()
    monkeypatch.setattr(config, "skip", frozenset({name}))
    other = stages()
    told = {
        "simplify": lambda text: len(text["simplify"]),
        "layout": lambda text: text["layout"] == text["simplify"],
        "fuse": lambda text: text["fuse"].count("  stored  "),
        "commit": lambda text: text["plan"].count("result"),
        "merge": lambda text: text["lower"].count("\nnest "),
        "arena": lambda text: int(re.search(r"arena of (\d+)", text["plan"])[1]),  # type: ignore[index]
        "threads": lambda text: -text["llvm"].count("call void @cr_share"),
    }[name]
    assert told(other) > told(usual)


def test_an_unknown_pass_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "skip", frozenset({"fusion"}))
    with pytest.raises(ArgumentError, match=r"name passes: simplify, .*; got fusion\. Leave it out"):
        compile(lambda x: x * 2.0)(cr.ones(2))


# ------------------------------------------------------------------------------- equal layers


def functions(layers: int) -> tuple[int, int]:
    """(functions in the text, nests) of a step through so many equal layers."""
    prepared = own.prepare(_deep(layers))
    prepared.step()
    compilation = prepared.program().compilation
    return compilation.emitted.text.count("define "), len(compilation.loops.nests)


def _deep(layers: int) -> Any:
    shape = WORKLOADS["mlp_deep_bn"]
    return dataclasses.replace(shape, sizes=(16, *[24] * layers, 5), batch=12)


@pytest.mark.parametrize("layers", [(2, 4), (12, 16)], ids=["calls written out", "calls in a list"])
def test_equal_layers_are_compiled_once(layers: tuple[int, int]) -> None:
    """Of hidden layers with BatchNorm and ReLU, Adam included: the same functions, called more often."""
    (few, short), (many, long) = map(functions, layers)
    assert few == many and long > short + 50
