"""The learning-rate finder: what it suggests, and that nothing is different afterwards, not a bit."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.data import DataLoader
from chainrule.errors import ArgumentError, DataError
from chainrule.tensor.random import default_generator
from chainrule.train.finder import LearningRates, find_learning_rate


def blobs(rows=120, seed=0):
    generator = np.random.default_rng(seed)
    y = np.arange(rows) % 3
    return np.array([[0, 0], [4, 0], [0, 4]])[y] + generator.normal(size=(rows, 2)), y


def network(seed=0):
    cr.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 3))


def bits(model, optimizer):
    found = {name: one.numpy().tobytes() for name, one in model.state_dict().items()}
    for k, (_, kept) in enumerate(optimizer.state.items()):
        found |= {f"{k}.{name}": one.detach().numpy().tobytes() for name, one in kept.items()}
    return found


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "trained"])
@pytest.mark.parametrize("make", [
    lambda p: optim.Adam(p, lr=0.01), lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.SGD(p, lr=0.1),
])  # fmt: skip
def test_everything_is_as_before(make, used):
    model = network().eval()
    model[0].eval()
    model[3].train()
    optimizer = make(model.parameters())
    x, y = blobs()
    if used:
        for _ in range(3):
            cr.functional.cross_entropy(model(x.astype(np.float32)), y).backward()
            optimizer.step()
    gradients = [one.grad for one in model.parameters()]
    before, modes = bits(model, optimizer), [one.training for one in model.modules()]
    cells = [id(one.cell) for one in model.parameters()]
    words, drawn = default_generator.get_state(), np.random.get_state()[1].tolist()
    find_learning_rate(model, (x, y), optimizer=optimizer, high=1e6)
    assert bits(model, optimizer) == before and [one.training for one in model.modules()] == modes
    assert [one.grad for one in model.parameters()] == gradients or used
    assert all(one.grad is other for one, other in zip(model.parameters(), gradients))
    assert [id(one.cell) for one in model.parameters()] == cells
    assert default_generator.get_state() == words and np.random.get_state()[1].tolist() == drawn
    assert optimizer.param_groups[0]["lr"] in (0.01, 0.1) and bool(optimizer.state) == used


def test_everything_is_as_before_after_an_error_too():
    model = network()
    optimizer = optim.Adam(model.parameters())
    before, words = bits(model, optimizer), default_generator.get_state()
    calls = []

    def loss(outputs, targets):
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return (outputs**2).mean()

    with pytest.raises(KeyboardInterrupt):
        find_learning_rate(model, blobs(), loss=loss, optimizer=optimizer)
    assert bits(model, optimizer) == before and default_generator.get_state() == words


@pytest.mark.parametrize("make,low,high", [
    (lambda p: optim.Adam(p), 1e-4, 0.3), (lambda p: optim.SGD(p, lr=0.1, momentum=0.9), 1e-3, 2.0),
])  # fmt: skip
def test_the_suggested_rate_trains(make, low, high):
    x, y = blobs()
    model = network()
    found = find_learning_rate(model, (x, y), optimizer=make(model.parameters()))
    assert low < found.suggestion < high
    assert len(found.rates) == len(found.losses) == len(found.raw) <= 100
    assert found.rates[0] == pytest.approx(1e-7) and (np.diff(found.rates) > 0).all()
    optimizer = make(model.parameters())
    optimizer.param_groups[0]["lr"] = found.suggestion
    run = cr.fit(model, (x, y), optimizer=optimizer, epochs=15, progress=False)
    assert run.history[-1]["loss"] < run.history[0]["loss"] / 2


def test_the_same_seed_gives_the_same_curve():
    one, two, other = (find_learning_rate(network(), blobs(), seed=seed) for seed in (1, 1, 2))
    assert one.raw.tolist() == two.raw.tolist() != other.raw.tolist()


def test_groups_keep_the_ratio_of_their_rates():
    model = network()
    seen = []

    class Watched(optim.SGD):
        def step(self, closure=None):
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    first, last = list(model[0].parameters()), list(model[3].parameters())
    groups = [{"params": first, "lr": 0.1}, {"params": last, "lr": 0.01}]
    optimizer = Watched(groups, lr=1.0)
    find_learning_rate(model, blobs(), optimizer=optimizer, high=0.1, steps=20)
    assert len(seen) == 20 and all(a == pytest.approx(10 * b) for a, b in seen)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01]


def test_batches_from_a_loader():
    x, y = blobs()
    loader = DataLoader((x, y), batch_size=16, shuffle=True)
    assert find_learning_rate(network(), loader).suggestion is not None


def test_curves_and_what_is_read_from_them():
    rates = np.geomspace(1e-6, 1, 60)
    fall = 1 / (1 + (rates / 1e-3) ** 2) + np.where(rates > 0.1, (rates / 0.1) ** 2, 0)
    found = LearningRates(rates, 1 + fall)
    assert 3e-4 < found.suggestion < 3e-3
    noise = np.random.default_rng(0).normal(size=60) * 0.15  # no fall is seen in it
    assert 3e-4 < LearningRates(rates, 1 + fall + noise).suggestion < 1e-2
    flat = LearningRates(rates, np.ones(60))
    assert flat.suggestion is None and "suggestion none" in repr(flat)
    assert LearningRates(rates, np.linspace(1, 5, 60)).suggestion is None
    assert found.losses[0] == pytest.approx(2, rel=1e-3)  # the ends of the curve are not pulled to 0


def test_the_chart():
    rates = np.geomspace(1e-6, 1, 60)
    found = LearningRates(rates, 1 / (1 + (rates / 1e-3) ** 2))
    lines = found.chart().splitlines()
    assert len(lines) == 12 and all(len(line) <= 72 for line in lines)
    assert (
        lines[0].strip().startswith("1 ┤•••")
        and lines[9].endswith("•")
        and lines[-1].split() == ["1e-06", "1"]
    )
    assert lines[10].index("▲") == 11 + round(59 * np.log(found.suggestion / 1e-6) / np.log(1e6))
    assert str(found) == f"{found.chart()}\n{found!r}"


@pytest.mark.parametrize("options,kind,words", [
    ({"low": 1.0, "high": 0.1}, ArgumentError, r"0 < low < high; got 1\.0 and 0\.1"),
    ({"low": 0}, ArgumentError, "0 < low < high; got 0"),
    ({"low": "a"}, ArgumentError, "0 < low < high; got 'a'"),
    ({"steps": 3}, ArgumentError, "steps must be a whole number from 10; got 3"),
    ({"optimizer": "adam"}, ArgumentError, "optimizer must be one of chainrule.optim; got str"),
    ({"loss": "msq"}, ArgumentError, "Did you mean 'mse'"),
    ({"low": 1e30, "high": 1e35}, ArgumentError, r"finite for \d+ steps only, from a learning rate of 1e\+30"),
    ({"data": ([[np.nan]], [0])}, DataError, "X needs finite numbers"),
])  # fmt: skip
def test_refusals(options, kind, words):
    data = options.pop("data", blobs())
    with np.errstate(all="ignore"), pytest.raises(kind, match=words):
        find_learning_rate(network(), data, **options)
