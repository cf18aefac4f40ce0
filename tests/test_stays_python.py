"""`fit(compile="auto")` compiles what keeps values of its steps, and goes on in Python whatever else is done there.

Either way the numbers are Python's: up to rounding from machine code, to the bit from Python, which says why once.
"""

from __future__ import annotations

import collections
import random
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.compiler import available
from chainrule.runtime.compiled import Compiled
from chainrule.train import engine as engines

pytestmark = pytest.mark.skipif(not available(), reason="needs llvmlite")

F = cr.functional


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code is made after a few steps."""
    monkeypatch.setattr(engines, "PATIENCE", 0.002)


class Meter:
    """What people count with while they train."""

    def __init__(self) -> None:
        self.total: Any = 0.0
        self.values: Any = []
        self.latest: Any = {}

    def add(self, value: Any) -> None:
        self.total = self.total + value

    def append(self, value: Any) -> None:
        self.values.append(value)
        if len(self.values) > 3 and float(self.values[-2]) > 1e9:
            raise AssertionError

    def store(self, value: Any) -> None:
        self.latest["value"] = value + 0.0 * self.latest.get("value", 0.0)


class Slotted:
    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total: Any = 0.0

    def add(self, value: Any) -> None:
        self.total = self.total + value


class OfTheClass:
    total: Any = 0.0

    @classmethod
    def add(cls, value: Any) -> None:
        cls.total = cls.total + value


class Called(Meter):
    def __call__(self, value: Any) -> None:
        self.add(value)


GLOBAL = Meter()
LATEST: Any = 0.0
RECENT: Any = collections.deque(maxlen=5)


def keep_in_global(value: Any) -> None:
    GLOBAL.add(value)


def rebind_global(value: Any) -> None:
    global LATEST
    LATEST = LATEST + value


def keep_in_deque(value: Any) -> None:
    RECENT.append(value)
    sum(float(one) for one in RECENT)


def closure() -> Any:
    total: Any = 0.0

    def add(value: Any) -> None:
        nonlocal total
        total = total + value

    return add


def with_default() -> Any:
    def add(value: Any, seen: Any = []) -> None:  # noqa: B006
        seen.append(value)
        sum(float(one) for one in seen[-2:])

    return add


def in_list() -> Any:
    meters = {"all": [Meter()]}
    return lambda value: meters["all"][0].add(value)


# How `forward` tells somebody of a value of every step: an object and a function of the value.
WATCHERS: dict[str, Any] = {
    "object": lambda: Meter().add,
    "list of an object": lambda: Meter().append,
    "dict of an object": lambda: Meter().store,
    "slots": lambda: Slotted().add,
    "class": lambda: OfTheClass.add,
    "callable": Called,
    "global object": lambda: keep_in_global,
    "global variable": lambda: rebind_global,
    "deque": lambda: keep_in_deque,
    "closure": closure,
    "default": with_default,
    "nested": in_list,
    "number": lambda: lambda value: float(value),
    "item": lambda: lambda value: value.item(),
    "condition": lambda: lambda value: 1 if value > 0 else 2,
    "numpy": lambda: lambda value: np.asarray(value.numpy()).sum(),
    "print": lambda: lambda value: f"{value:.3f}",
    "python's chance": lambda: lambda value: random.random(),
    "numpy's chance": lambda: lambda value: np.random.rand(),
}


# Those whose values machine code keeps, or hands over after each step. The others need numbers on the way, or chance.
COMPILED = {
    "object", "dict of an object", "slots", "class", "callable", "global object", "global variable", "closure",
    "nested", "item", "print",
}  # fmt: skip


def numbers_in(value: Any) -> list[float]:
    """Every number that somebody has kept, wherever it lies."""
    if isinstance(value, cr.Tensor):
        assert not value.requires_grad and value.shape == ()
        return [value.item()]
    if isinstance(value, int | float):
        return [float(value)]
    if isinstance(value, dict):
        return [number for one in value.values() for number in numbers_in(one)]
    if isinstance(value, list | tuple | collections.deque):
        return [number for one in value for number in numbers_in(one)]
    if isinstance(value, Meter):
        return numbers_in(vars(value))
    if isinstance(value, Slotted):
        return numbers_in(value.total)
    if hasattr(value, "__self__"):
        return numbers_in(value.__self__)
    cells = getattr(value, "__closure__", None) or ()
    return numbers_in([*(one.cell_contents for one in cells), *(getattr(value, "__defaults__", None) or ())])


class Watched(nn.Module):
    """A network that tells of its outputs."""

    def __init__(self, watcher: Any) -> None:
        self.layer, self.watcher = nn.Linear(3, 2), watcher

    def forward(self, x: Any) -> Any:
        y = self.layer(x)
        self.watcher(y.detach().mean())
        return y


class Told:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def epoch(self, record: Any) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    def stays_python(self, reason: str) -> None:
        self.reasons.append(reason)


def rows() -> Any:
    x = np.random.default_rng(0).normal(size=(96, 3))
    return x, (x[:, 0] > 0).astype(int)


def forget() -> None:
    global LATEST
    GLOBAL.__init__()  # type: ignore[misc]
    LATEST, OfTheClass.total = 0.0, 0.0
    RECENT.clear()
    random.seed(0)
    np.random.seed(0)


def train(model: Any, compile: Any, progress: Any = False, **options: Any) -> Any:
    return cr.fit(model, rows(), epochs=8, batch_size=16, compile=compile, progress=progress, **options)


@pytest.mark.parametrize("where", ["forward", "loss"])
@pytest.mark.parametrize("name", WATCHERS)
def test_the_numbers_are_those_of_python(name: str, where: str) -> None:
    found = []
    for choice in (False, "auto"):
        forget()
        cr.manual_seed(0)
        watcher, told = WATCHERS[name](), Told()
        if where == "forward":
            run = train(Watched(watcher), choice, told)
        else:

            def loss(outputs: Any, targets: Any, watcher: Any = watcher) -> Any:
                value = F.cross_entropy(outputs, targets)
                watcher(value.detach())
                return value

            run = train(nn.Linear(3, 2), choice, told, loss=loss)
        weights = [one for part in run.model.state_dict().values() for one in part.numpy().ravel().tolist()]
        kept = numbers_in([GLOBAL, LATEST, OfTheClass.total, RECENT, watcher])
        chance = [random.random(), np.random.rand()]
        found.append([*weights, *(one["loss"] for one in run.history), *kept, *chance])
    if name in COMPILED:
        assert run.compiled is not None and run.why_python is None and told.reasons == []
        assert len(found[0]) == len(found[1])
        np.testing.assert_allclose(found[1], found[0], rtol=2e-5, atol=1e-6)
    else:
        assert run.compiled is None and run.why_python and told.reasons == [run.why_python]
        assert found[0] == found[1]


def test_what_was_kept_is_looked_at() -> None:
    counts = {}
    for name, make in WATCHERS.items():
        forget()
        watcher = make()
        before = len(set(numbers_in([GLOBAL, LATEST, OfTheClass.total, RECENT, watcher])))
        for value in (1.5, 2.25):
            watcher(cr.tensor(value))
        counts[name] = len(set(numbers_in([GLOBAL, LATEST, OfTheClass.total, RECENT, watcher]))) - before
    silent = {"number", "item", "condition", "numpy", "print", "python's chance", "numpy's chance"}
    assert {name for name, count in counts.items() if count <= 0} <= silent


@pytest.mark.parametrize(
    "kind",
    [
        RuntimeError,
        ValueError,
        AttributeError,
        cr.errors.CompileError,
        cr.errors.TraceError,
        NotImplementedError,
    ],
)
@pytest.mark.parametrize("place", ["_served", "_make", "_trace", "_verify"])
def test_whatever_goes_wrong_in_making_the_code_python_goes_on(
    kind: Any, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    def wrong(*_: Any) -> Any:
        raise kind("no code for this")

    cr.manual_seed(0)
    wanted = train(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), False).history
    monkeypatch.setattr(Compiled, place, wrong)
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    told = Told()
    run = train(model, "auto", told, folder=tmp_path / "run")
    assert [one["loss"] for one in run.history] == [one["loss"] for one in wanted]
    assert "no code for this" in run.why_python and told.reasons == [run.why_python] and run.compiled is None
    assert "no code for this" in (tmp_path / "run" / "run.json").read_text(encoding="utf-8")
    with pytest.raises(kind, match="no code for this"):
        train(nn.Linear(3, 2), True)


def test_a_fault_of_the_users_is_raised_and_not_taken_for_a_refusal() -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            self.layer, self.calls = nn.Linear(3, 2), 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            if self.calls == 30:
                raise ZeroDivisionError("the user's own")
            return self.layer(x)

    with pytest.raises(ZeroDivisionError, match="the user's own"):
        train(Breaks(), "auto")


@pytest.mark.parametrize(
    "language,words", [("en", "steps run as Python, not as machine code: "), ("ko", "파이썬으로 실행합니다")]
)
def test_the_reason_is_printed_once(language: str, words: str, capsys: Any) -> None:
    from chainrule.train.progress import Lines

    display: Any = Lines(8, language)
    train(Watched(Meter().append), "auto", display)
    assert capsys.readouterr().out.count(words) == 1
    train(nn.Linear(3, 2), "auto", Lines(8, language))
    train(Watched(Meter().append), False, Lines(8, language))
    assert words not in capsys.readouterr().out
