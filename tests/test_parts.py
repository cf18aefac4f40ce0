"""Long modules in two parts: the same bits as in one, made by two processes or by one, kept and found again."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.compiler import cache, entry, machine, parts

pytestmark = pytest.mark.skipif(not machine.available(), reason="needs llvmlite")


def learner(layers: int = 3) -> tuple[Any, Any, nn.Module]:
    """A step of some layers."""
    cr.manual_seed(0)
    blocks = [one for _ in range(layers) for one in (nn.Linear(6, 6), nn.LayerNorm(6), nn.Tanh())]
    model = nn.Sequential(*blocks, nn.Linear(6, 3))
    optimizer = optim.Adam(model.parameters(), lr=1e-2)

    @cr.compile
    def step(x: cr.Tensor, y: cr.Tensor) -> cr.Tensor:
        loss = cr.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    random = np.random.default_rng(0)
    x = cr.tensor(random.normal(size=(5, 6)).astype("float32"))
    y = cr.tensor(random.integers(0, 3, 5))
    return step, lambda: step(x, y), model


def bits(layers: int = 3) -> tuple[bytes, Any]:
    """Losses and weights of some steps, and the step."""
    step, call, model = learner(layers)
    losses = [call().item() for _ in range(4)]
    weights = b"".join(one.numpy().tobytes() for one in model.state_dict().values())
    return np.array(losses).tobytes() + weights, step


@pytest.fixture(autouse=True, scope="module")
def calls_in_a_list() -> Iterator[None]:
    """Also those of a small step."""
    before = entry._MOST_WRITTEN, entry._LEAST_ALIKE
    entry._MOST_WRITTEN, entry._LEAST_ALIKE = 8, 1
    yield
    entry._MOST_WRITTEN, entry._LEAST_ALIKE = before


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing is known from before, neither here nor on the disk."""
    monkeypatch.setenv("CHAINRULE_CACHE", "0")
    machine._natives.clear()
    return monkeypatch


@pytest.fixture(scope="module")
def text(calls_in_a_list: None) -> str:
    step, call, _ = learner()
    call()
    found: str = step.stages()["llvm"]
    return found


def functions(text: str) -> set[str]:
    return {one[1] for one in parts._DEFINITION.finditer(text)}


def test_each_function_is_in_a_part_and_what_it_calls_beside_it(text: str, monkeypatch: Any) -> None:
    assert parts.cut(text) == [text], "short modules stay whole"
    monkeypatch.setattr(parts, "_LONG", 0)
    first, second = parts.cut(text)
    assert functions(first) | functions(second) == functions(text)
    assert 0.3 < len(first) / (len(first) + len(second)) < 0.7
    for part in (first, second):
        called = set(re.findall(r"call [^@]*@(cr_\w+)", part))
        assert called <= functions(part), "no part calls into the other but through the list"
    across = set(re.findall(r"^declare void @(cr_\w+)\(\)$", first, re.MULTILINE))
    assert across and across <= functions(second) - functions(first)
    assert parts.cut(text) == [first, second], "where it is cut follows from the text"


def test_two_parts_have_the_bits_of_one(anew: pytest.MonkeyPatch) -> None:
    whole, _ = bits()
    cuts: list[int] = []
    cut = parts.cut

    def noted(text: str) -> list[str]:
        found = cut(text)
        cuts.append(len(found))
        return found

    machine._natives.clear()
    anew.setattr(parts, "_LONG", 0)
    anew.setattr(machine, "cut", noted)
    assert bits()[0] == whole and 2 in cuts


class Lost:
    """A process that cannot be started, fails, or answers with nothing."""

    def __init__(self, way: str) -> None:
        self.way, self.started = way, 0

    def __call__(self, command: list[str], **options: Any) -> Any:
        self.started += 1
        if self.way == "cannot be started":
            raise OSError("no more processes")
        program = {"fails": "raise SystemExit(3)", "is killed": "import os; os.kill(os.getpid(), 9)"}[
            self.way
        ]
        return subprocess.Popen([sys.executable, "-c", program], **options)


@pytest.mark.parametrize("way", ["cannot be started", "fails", "is killed"])
def test_without_the_second_process_the_part_is_made_here(anew: pytest.MonkeyPatch, way: str) -> None:
    anew.setattr(parts, "_LONG", 0)
    anew.setattr(parts, "_processors", lambda: 2)
    whole = bits()[0]
    machine._natives.clear()
    lost = Lost(way)
    anew.setattr(parts, "_start", lost)
    assert bits()[0] == whole and lost.started


@pytest.mark.parametrize("name", ["", "/opt/program/trainer", "python"])
def test_only_python_itself_is_started(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A program that was packed with Python would start once more."""
    lost = Lost("fails")
    monkeypatch.setattr(parts, "_start", lost)
    monkeypatch.setattr(sys, "executable", name)
    if name == "python":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    helper = parts._Helper("", [], Path())
    assert helper.result() == b"" and not lost.started
    helper.end()


def test_both_processes_make_the_same_object(text: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(parts, "_LONG", 0)
    monkeypatch.setattr(parts, "_processors", lambda: 2)
    by_two = machine._compiled(text)
    monkeypatch.setattr(parts, "_processors", lambda: 1)
    assert machine._compiled(text) == by_two and len(parts.separate(by_two)) == 2


def test_an_error_here_ends_the_other_process(text: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(parts, "_LONG", 0)
    started: list[Any] = []

    def start(command: list[str], **options: Any) -> Any:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], **options))
        return started[0]

    def interrupted(part: str) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "_start", start)
    monkeypatch.setattr(parts, "_processors", lambda: 2)
    with pytest.raises(KeyboardInterrupt):
        parts.compile_parts(parts.cut(text), interrupted, [], Path())
    assert started[0].poll() is not None


def test_files_of_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They come back from the disk, and a damaged one is made again."""
    objects = [b"one" * 100, b"", b"three"]
    assert parts.separate(parts.join(objects)) == objects and parts.join([b"alone"]) == b"alone"
    monkeypatch.setattr(parts, "_LONG", 0)
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path))
    machine._natives.clear()
    whole, _ = bits()
    machine._natives.clear()
    made: list[str] = []
    compiled = machine._compiled
    monkeypatch.setattr(machine, "_compiled", lambda text: made.append(text) or compiled(text))
    again, _ = bits()
    assert again == whole and not made, "nothing was made anew"
    kept = [path for path in tmp_path.rglob("*.o") if parts._MAGIC in path.read_bytes()[:200]]
    assert kept
    key = kept[0].stem
    content = cache.load(key)
    assert content is not None and machine._kept(key, "cr_none") is None
    cache.store(key, content[: len(content) // 2])
    machine._natives.clear()
    assert bits()[0] == whole and made
