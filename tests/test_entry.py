"""The entry of a module: many calls are read from a list, and give the bits that calls written out give."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler import entry
from chainrule.compiler.plan import ALIGNMENT, Buffer, _allocate, verify
from chainrule.compiler.text import MARKS_MEAN, ROLLED, SINGLE
from chainrule.errors import ChainruleError, GraphError
from chainrule.operations import Type

Array = Any


def learns(x: cr.Tensor) -> Callable[[], Any]:
    """Layers one after the other, with an update: many equal calls, checks, cells written in place."""
    cr.manual_seed(0)
    model = cr.nn.Sequential(*(one for _ in range(6) for one in (cr.nn.Linear(16, 16), cr.nn.Tanh())))
    optimizer = cr.optim.Adam(model.parameters(), lr=0.1)

    @cr.compile
    def step(x: cr.Tensor) -> cr.Tensor:
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return lambda: [step(x) for _ in range(3)] + [one.detach() for one in model.parameters()]


def calls_numpy(x: cr.Tensor) -> Callable[[], Any]:
    """Segments: NumPy sorts between the nests."""

    @cr.compile
    def step(x: cr.Tensor) -> tuple[cr.Tensor, cr.Tensor]:
        y = cr.sort(cr.exp(x).sum(axis=1))
        return y, cr.sort(cr.tanh(y)) * 2.0

    return lambda: step(x)


def goes_through_time(x: cr.Tensor) -> Callable[[], Any]:
    """A loop over time, with its own calls."""

    @cr.compile
    def step(x: cr.Tensor) -> cr.Tensor:
        _, found = cr.scan(lambda state, row: (cr.tanh(state + row),) * 2, x[0] * 0.0, x)
        return found

    return lambda: step(x)


def shares(x: cr.Tensor) -> Callable[[], Any]:
    """Nests long enough to be shared among threads, and products with packed operands."""

    @cr.compile
    def step(x: cr.Tensor) -> cr.Tensor:
        wide = cr.reshape(cr.broadcast_to(x[None], (300, *x.shape)), (-1, 16))
        return cr.exp(wide @ cr.matrix_transpose(x)).sum(axis=0)

    return lambda: step(x)


def chooses_nothing(x: cr.Tensor) -> Callable[[], Any]:
    """Values without elements have no address."""

    @cr.compile
    def step(x: cr.Tensor) -> tuple[cr.Tensor, cr.Tensor]:
        return (x[:0] * 2.0).sum(), cr.exp(x[:, :0])

    return lambda: step(x)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that is on the disk would be taken instead."""
    monkeypatch.setenv("CHAINRULE_CACHE", "0")


STEPS = (learns, calls_numpy, goes_through_time, shares, chooses_nothing)


def flat(value: Any) -> list[Array]:
    return [one.numpy() for one in (value if isinstance(value, tuple | list) else (value,))]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("make", STEPS, ids=lambda one: one.__name__)
def test_a_list_of_calls_gives_the_same_bits(
    make: Any, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = cr.tensor(np.random.default_rng(0).normal(size=(64, 16)).astype("float32"))
    before = cr.get_num_threads()
    cr.set_num_threads(threads)
    try:
        written = flat(make(x)())
        monkeypatch.setattr(entry, "_MOST_WRITTEN", 0)
        monkeypatch.setattr(entry, "_LEAST_ALIKE", 0)
        listed = flat(make(x)())
    finally:
        cr.set_num_threads(before)
    assert len(written) == len(listed)
    for one, other in zip(written, listed):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("most", [0, 1000], ids=["listed", "written"])
@pytest.mark.parametrize("row", [0, 3, 5])
def test_a_check_that_fails_lets_nothing_be_written(
    most: int, row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "_MOST_WRITTEN", most)
    monkeypatch.setattr(entry, "_LEAST_ALIKE", 0)
    cells = [cr.tensor([1.0, 2.0], requires_grad=True) for _ in range(6)]

    @cr.compile
    def step(x: cr.Tensor) -> cr.Tensor:
        sum(((cell * x[k]).sum() for k, cell in enumerate(cells)), cr.tensor(0.0)).backward()
        with cr.no_grad():
            for cell in cells:
                cell.copy_(cell - cell.grad)
                cell.grad = None
        return x[0]

    good = np.ones((6, 2), "float32")
    step(cr.tensor(good))
    before = [cell.numpy().copy() for cell in cells]
    bad = good.copy()
    bad[row, 1] = np.inf
    with pytest.raises(ChainruleError, match="finite"):
        step(cr.tensor(bad))
    for cell, old in zip(cells, before):
        np.testing.assert_array_equal(cell.numpy(), old)
    step(cr.tensor(good))
    np.testing.assert_array_equal(cells[row].numpy(), [-1.0, 0.0])


def test_the_list_is_used_for_many_calls_only() -> None:
    def text(layers: int) -> str:
        @cr.compile
        def step(x: cr.Tensor) -> cr.Tensor:
            for _ in range(layers):
                x = cr.tanh(x @ x)
            return x

        step(cr.tensor(np.eye(4, dtype="float32")))
        return step.stages()["llvm"]

    few, many, more = text(4), text(200), text(300)
    assert "@cr_words" not in few
    assert "@cr_words" in many
    # What grows with the calls is the list alone.
    without = [[line for line in one.splitlines() if "@cr_words =" not in line] for one in (many, more)]
    assert len(without[0]) == len(without[1])


@pytest.mark.parametrize("seed", range(5))
def test_places_in_the_arena_are_the_first_that_fit(seed: int) -> None:
    """As by looking through all buffers that are alive, from the lowest."""
    random = np.random.default_rng(seed)
    buffers = []
    for k in range(120):
        first = int(random.integers(0, 40))
        one = Buffer(f"b{k}", Type((int(random.integers(0, 400)),), np.dtype("uint8")), "arena")
        one.first, one.last = first, first + int(random.integers(0, 12))
        buffers.append(one)
    size = _allocate(buffers)
    aligned = lambda count: -(-count // ALIGNMENT) * ALIGNMENT
    placed: list[Buffer] = []
    for one in sorted(buffers, key=lambda one: one.first):
        alive = [other for other in placed if other.last >= one.first]
        wanted = 0
        for other in sorted(alive, key=lambda other: other.offset):
            if wanted + one.bytes <= other.offset:
                break
            wanted = max(wanted, aligned(other.offset + other.bytes))
        assert one.offset == wanted
        placed.append(one)
    assert size == aligned(max(one.offset + one.bytes for one in buffers))


def test_buffers_that_share_bytes_are_refused() -> None:
    @cr.compile
    def step(x: cr.Tensor) -> cr.Tensor:
        y = cr.exp(x)
        return cr.tanh(y @ y) @ cr.exp(y)

    step(cr.tensor(np.eye(4, dtype="float32")))
    made = step._last.compilation.plan  # type: ignore[union-attr]
    verify(made)
    temporary = made.temporary
    assert len(temporary) > 1
    for one in temporary:
        one.offset, one.first, one.last = 0, 0, 5
    with pytest.raises(GraphError, match="share bytes"):
        verify(made)


@pytest.mark.parametrize("kernel", [3, 5])
def test_outer_loops_of_packing_stay_loops(kernel: int) -> None:
    """Written out, a kernel of 3 × 3 would be packed by nine copies of the same code."""
    model = cr.nn.Sequential(*(cr.nn.Conv2d(one, 32, kernel, padding=kernel // 2) for one in (3, 32)))

    @cr.compile
    def step(x: cr.Tensor) -> cr.Tensor:
        loss = model(x).sum()
        loss.backward()
        return loss

    step(cr.tensor(np.ones((4, 3, 12, 12), "float32")))
    text = step.stages()["llvm"]
    functions = [one for one in text.split("\n\n") if "@cr_pack_" in one.splitlines()[0] and "%job" in one]
    latches = [re.findall(r"  br i1 %\w+, label %head\d+, label %after\d+(.*)", one) for one in functions]
    assert any(len(one) > 1 for one in latches)
    for first, *outer in latches:  # the innermost ends first
        assert first in ("", SINGLE)
        assert all(one == ROLLED for one in outer)
    assert all(one in text for one in MARKS_MEAN)
