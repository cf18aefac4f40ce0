"""More checks: memory, threads, many steps in one call, and what the disk keeps."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim
from chainrule.compiler import cache, compile_graph, known, machine
from chainrule.compiler.repeat import NAME
from chainrule.config import config
from chainrule.errors import ArgumentError
from chainrule.graph import Cell
from chainrule.runtime import memory, repeated, threads
from commit_checks import bits
from compiler_checks import (
    arrays_of,
    check,
    near,
    normal,
)

# ------------------------------------------------------------------------------------------- memory


@check
def check_memory() -> None:
    """Addresses, wholeness, alignment, and who can reach an array."""
    x = normal(6, 4)
    assert memory.address(x) == x.ctypes.data and memory.address(x[2:]) == x[2:].ctypes.data
    assert memory.address(x[:0]) == 0 and memory.address(np.zeros((0, 3))) == 0
    assert memory.whole(x) is x and memory.whole(x[1:3]).base is x
    crooked = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float64)
    strange = np.frombuffer(bytearray(b"\0" + x.tobytes()), dtype="u1", offset=1).view("float64")
    for one in (
        x.T,
        x[::2],
        x[:, 1:],
        x[:, ::-1],
        np.broadcast_to(x[0], (3, 4)),
        np.asfortranarray(x),
        crooked,
        strange,
    ):
        made = memory.whole(one)
        assert (
            made.flags.c_contiguous and made.flags.aligned and (made == one).all() and made.shape == one.shape
        )
    for size in (0, 1, 63, 64, 65, 1000):
        made = memory.aligned(size)
        assert made.nbytes == size and made.dtype == np.uint8 and (not size or made.ctypes.data % 64 == 0)
        assert made.base is None or made.base.nbytes >= size
    copied = memory.aligned_like(x)
    assert (copied == x).all() and copied.ctypes.data % 64 == 0 and not np.shares_memory(copied, x)
    back = memory.array_at(x.ctypes.data, (6, 4), x.dtype)
    assert (
        (back == x).all()
        and np.shares_memory(back, x)
        and memory.array_at(0, (0, 3), x.dtype).shape == (0, 3)
    )
    back[5, 3] = 9.0
    assert x[5, 3] == 9.0
    cells = [Cell(normal(3)), Cell(normal(4))]
    assert memory.all_alone(cells)
    held = cells[1].array
    assert not memory.all_alone(cells) and memory.all_alone(cells[:1]) and not memory.all_alone(cells[1:])
    arrays = list(map(memory.array_of, cells))
    assert memory.first_alone(arrays, cells[:1])
    assert not memory.first_alone(arrays, cells)
    del held
    assert memory.first_alone(arrays, cells)
    del arrays
    before = cells[0].array
    memory.make_alone(cells[0])
    assert cells[0].owned and cells[0].array is not before and (cells[0].array == before).all()
    mine = memory.address(cells[0].array)
    memory.make_alone(cells[0])
    assert memory.address(cells[0].array) == mine, "an array that is the runtime's and alone was copied"
    kept = cells[0].array
    memory.make_alone(cells[0])
    assert cells[0].array is not kept


@check
def check_inputs_of_any_layout() -> None:
    x = normal(6, 8)
    crooked = np.frombuffer(bytearray(b"\0" + x.tobytes()), np.uint8)[1:].view(np.float64).reshape(6, 8)
    given = [
        x,
        x.T.copy().T,
        np.repeat(x, 2, axis=0)[::2],
        x[::-1][::-1],
        crooked,
        x.astype(">f8"),
        np.broadcast_to(x, (2, 6, 8))[1],
    ]
    step = cr.compile(
        lambda x: (
            cr.sum(cr.asarray(x) * 2.0, axis=0),
            cr.asarray(x) @ cr.permute_dims(cr.asarray(x), (1, 0)),
            cr.asarray(x),
        )
    )
    for one in given:
        before = one.tobytes()
        total, square, same = arrays_of(step(one))
        near(total, x.sum(0) * 2.0, 16)
        near(square, x @ x.T, 64)
        assert (same == x).all() and one.tobytes() == before and not np.shares_memory(same, one)
    views = cr.compile(lambda x: cr.exp(x) + cr.flip(x, axis=0))
    base = cr.tensor(x)
    for one in (
        base,
        cr.permute_dims(cr.permute_dims(base, (1, 0)) * 1.0, (1, 0)),
        cr.flip(cr.flip(base, axis=1), axis=1),
        cr.broadcast_to(base[:1], (6, 8)),
        base[:, ::-1],
    ):
        near(views(one).numpy(), np.exp(one.numpy()) + one.numpy()[::-1], 16)


# ------------------------------------------------------------------------------------------- many steps, threads


def repeatable(kind: str) -> tuple[Any, list[Any]]:
    """(a step that can be run many times in one call, what it writes)."""
    cr.manual_seed(2)
    model = nn.Sequential(
        nn.Linear(7, 200 if kind == "shared" else 9),
        nn.BatchNorm1d(200 if kind == "shared" else 9),
        nn.ReLU(),
        nn.Linear(200 if kind == "shared" else 9, 3),
    )
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    last = cr.tensor(np.zeros(3, "float32"), requires_grad=True)

    @cr.compile
    def step(x: Any, y: Any) -> Any:
        out = model(x)
        loss = F.cross_entropy(out, y) + cr.mean(cr.log(x[:, 0]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with cr.no_grad():
            last.copy_(cr.mean(out, axis=0) if kind != "kept" else cr.mean(out, axis=0) + last * 0.0)
        return {
            "loss": loss,
            "nothing": None,
            "several": [out, 3 if kind == "text" else cr.argmax(out, axis=1)],
        }

    return step, [*model.parameters(), last]


@check
def check_many_steps_in_one_call() -> None:
    rows = 6
    x, y = (np.abs(normal(40, 7, dtype="float32")) + 0.1), np.arange(40) % 3
    order = np.random.default_rng(0).permutation(40)[: 6 * rows]
    before = cr.get_num_threads()
    try:
        for kind, count in (("plain", 1), ("kept", 1), ("shared", 2)):
            cr.set_num_threads(count)
            step, held = repeatable(kind)
            singles = [
                step(
                    cr.tensor(x[order[k * rows : (k + 1) * rows]]),
                    cr.tensor(y[order[k * rows : (k + 1) * rows]]),
                )
                for k in range(6)
            ]
            twin, cells = repeatable(kind)
            twin(cr.tensor(x[order[:rows]]), cr.tensor(y[order[:rows]]))
            loop = repeated.repeated(twin._last)
            assert loop is not None and loop.fits([x, y]) and loop.output_bytes == 4 + rows * 3 * 4 + rows * 8
            assert (
                not loop.fits([x])
                and not loop.fits([x[:, :6], y])
                and not loop.fits([x.astype("float64"), y])
            )
            assert (
                not loop.fits([x[::2], y[::2]])
                and not loop.fits([x, y, y])
                and not loop.fits([np.asfortranarray(x), y])
            )
            done, found, failure = loop.run([x, y], order[rows:], 5)
            assert done == 5 and failure is None and bits(cells) == bits(held)
            for k, one in enumerate(singles[1:]):
                assert found["loss"][k] == one["loss"].numpy()
                assert found["several"][0][k].tobytes() == one["several"][0].numpy().tobytes()
                assert (found["several"][1][k] == one["several"][1].numpy()).all()
            bad = x.copy()
            bad[order[2 * rows + 1], 0] = 0.0
            done, found, failure = loop.run([bad, y], order, 6)
            assert done == 2 and failure is not None and "loss" in str(failure) and len(found["loss"]) == 2
            for k in range(2):
                step(
                    cr.tensor(x[order[k * rows : (k + 1) * rows]]),
                    cr.tensor(y[order[k * rows : (k + 1) * rows]]),
                )
            assert bits(cells) == bits(held)
            kept = [one.detach() for one in cells]
            wanted = bits(kept)
            loop.run([x, y], order, 1)
            assert bits(kept) == wanted and bits(cells) != wanted
            again = twin(cr.tensor(x[:rows]), cr.tensor(y[:rows]))
            step(cr.tensor(x[order[:rows]]), cr.tensor(y[order[:rows]]))
            assert again["loss"].item() == step(cr.tensor(x[:rows]), cr.tensor(y[:rows]))["loss"].item()
    finally:
        cr.set_num_threads(1)
        threads.pool()
        cr.set_num_threads(before)
    assert NAME


@check
def check_steps_that_cannot_be_repeated() -> None:
    w = cr.tensor([1.0, 2.0, 3.0], requires_grad=True)

    def grown(x: Any) -> Any:
        loss = cr.sum(w * x)
        loss.backward()
        return loss

    outside = cr.tensor([1.0, 2.0, 3.0])
    x, y = cr.tensor(normal(4, 3)), cr.tensor(normal(2, 3))
    wrong: list[tuple[Any, tuple[Any, ...]]] = [
        (lambda x: cr.sort(x), (x,)), (grown, (x,)), (lambda x: x, (x,)), (lambda x: (x * 2.0, 3), (x,)),
        (lambda x, y: cr.sum(x) + y, (x, y)), (lambda x: x * 2.0, (cr.tensor(2.0),)), (lambda: w * 2.0, ()),
        (lambda x: (x * 2.0, w), (x,)), (lambda x: x[:0] + 1.0, (cr.tensor(np.zeros((0, 3))),)),
        (lambda x: x * 2.0 + outside, (cr.tensor(normal(3)),)), (lambda x: w * 1.0 + cr.sum(x), (x,)),
    ]  # fmt: skip
    for k, (function, given) in enumerate(wrong):
        step = cr.compile(function)
        step(*given)
        made = repeated.repeated(step._last)
        assert (made is None) == (k < 10), k


@check
def check_threads_and_their_number() -> None:
    before, made = cr.get_num_threads(), threads.pool()
    x = cr.tensor(normal(400, 300))
    step = cr.compile(lambda x: (x @ cr.permute_dims(x, (1, 0)), cr.exp(x)))
    try:
        cr.set_num_threads(1)
        wanted = [one.tobytes() for one in arrays_of(step(x))]
        assert threads.pool() is None
        for count in (2, 5, 3):
            cr.set_num_threads(count)
            made = threads.pool()
            assert made is not None and made.threads == count and threads.pool() is made
            for _ in range(8):
                assert [one.tobytes() for one in arrays_of(step(x))] == wanted
        for wrong in (0, -1, 1025, True, 2.0, "2", None):
            try:
                cr.set_num_threads(wrong)  # type: ignore[arg-type]
            except ArgumentError:
                continue
            raise AssertionError(f"set_num_threads took {wrong!r}")
        assert cr.get_num_threads() == 3
        cr.set_num_threads(1024)
        assert cr.get_num_threads() == 1024
        for text, number in (
            ("1", 1),
            ("7", 7),
            ("1024", 1024),
            ("0", None),
            ("1025", None),
            ("-1", None),
            ("x", None),
            ("²", None),
            ("00001", None),
            ("1.5", None),
        ):
            try:
                assert threads._number(text) == number
            except ArgumentError:
                assert number is None, text
    finally:
        cr.set_num_threads(1)
        assert threads.pool() is None
        cr.set_num_threads(before)


# ------------------------------------------------------------------------------------------- what the disk keeps


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A new folder for machine code; the process forgets what it has compiled."""
    outer = {name: os.environ.get(name) for name in ("CHAINRULE_CACHE", "CHAINRULE_CACHE_DIR")}
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(CHAINRULE_CACHE="1", CHAINRULE_CACHE_DIR=folder)
        kept = dict(machine._natives)
        machine._natives.clear()
        try:
            yield Path(folder)
        finally:
            machine._natives.update(kept)
            for name, value in outer.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def different(w: Any) -> list[Any]:
    """Programs of two tensors that are alike, but not the same; some write to w."""

    def update(scale: float, order: int) -> Any:
        def step(x: Any, y: Any) -> Any:
            with cr.no_grad():
                w.copy_((w, w * scale + cr.sum(x, axis=0) * 0.0, cr.flip(w) * scale)[order])
            return cr.sum(x * w)

        return step

    return [
        lambda x, y: x + y, lambda x, y: y - x, lambda x, y: x - y, lambda x, y: x + y + 1.0,
        lambda x, y: x + y + 2.0,
        lambda x, y: x + y + cr.tensor([1.0, 2.0, 4.0]), lambda x, y: x + y + cr.tensor([1.0, 2.0, 5.0]),
        lambda x, y: cr.sum(x + y, axis=0), lambda x, y: cr.sum(x + y, axis=1), lambda x, y: (x + y, x - y),
        lambda x, y: (x - y, x + y),
        lambda x, y: (x + y).astype("float32"), lambda x, y: cr.permute_dims(x + y, (1, 0)), lambda x, y: (x + y)[0],
        lambda x, y: (x + y)[1], lambda x, y: cr.take(x, cr.tensor([0, 1]), axis=1),
        lambda x, y: x @ cr.permute_dims(y, (1, 0)),
        lambda x, y: cr.take(x, cr.tensor([0, 2]), axis=1), lambda x, y: cr.permute_dims(x, (1, 0)) @ y,
        lambda x, y: cr.exp(x) @ y.T + 1.0,
        lambda x, y: F.conv2d(cr.reshape(x, (1, 1, 2, 3)), cr.reshape(y, (3, 1, 1, 2))),
        lambda x, y: (cr.exp(x) * y, cr.exp(x) + y),
        lambda x, y: F.conv2d(cr.reshape(x, (1, 1, 2, 3)), cr.reshape(y, (3, 1, 2, 1))), update(0.5, 1),
        update(0.25, 1), update(0.5, 2),
    ]  # fmt: skip


@check
def check_what_is_known_of_a_plan() -> None:
    """No two plans share a name, equal ones do, and what runs from the disk is what was compiled."""
    w = cr.tensor([1.0, 2.0, 3.0], requires_grad=True)

    functions = different(w)
    x, y = cr.tensor(np.arange(6.0).reshape(2, 3)), cr.tensor(np.arange(6.0).reshape(2, 3) * 0.5 + 1.0)
    with place():
        names: dict[str, int] = {}
        first = []
        for turn in range(2):
            machine._natives.clear()
            for k, function in enumerate(functions):
                w.cell.write(np.array([1.0, 2.0, 3.0], "float32"))
                step = cr.compile(function)
                values = [one.tobytes() for one in (*arrays_of(step(x, y)), w.numpy())]
                w.cell.write(np.array([1.0, 2.0, 3.0], "float32"))
                again = [one.tobytes() for one in (*arrays_of(step(x, y)), w.numpy())]
                assert values == again
                compilation = compile_graph(step.graph())
                assert compilation.name is not None
                assert names.setdefault(compilation.name, k) == k, (
                    f"{k} is taken for {names[compilation.name]}"
                )
                if not turn:
                    first.append(values)
                else:
                    assert compilation.known is not None and values == first[k], k
                    w.cell.write(np.array([1.0, 2.0, 3.0], "float32"))
                    for one, value in zip(arrays_of(function(x, y)), arrays_of_bytes(values, step, x, y)):
                        near(value, one, 16)
        assert len(names) == len(functions)
    outside, inside = cr.compile(functions[3]), cr.compile(functions[3])
    assert [one.tobytes() for one in arrays_of(outside(x, y))] == [
        one.tobytes() for one in arrays_of(inside(x, y))
    ]


@check
def check_names_of_plans() -> None:
    """The name tells the sources and the switches apart; what is damaged, or cannot be described, is not known."""
    x = cr.tensor(np.arange(6.0).reshape(2, 3))
    step = cr.compile(lambda x: cr.exp(x) * 3.25)
    with place() as folder:
        step(x)
        compilation = compile_graph(step.graph())
        assert compilation.known is not None
        name = compilation.name
        outer = known._sources
        known._sources = lambda: "another state of this package"
        try:
            assert compile_graph(step.graph()).name not in (None, name), (
                "the name does not tell the sources apart"
            )
        finally:
            known._sources = outer
        others = [config.skip, frozenset({"merge"})]
        config.skip = others[1]
        try:
            assert compile_graph(step.graph()).name not in (None, name)
        finally:
            config.skip = others[0]
        assert known._sources() == outer()
        for file in folder.rglob("*.o"):
            file.write_bytes(file.read_bytes()[:-1] + b"?")
        machine._natives.clear()
        assert compile_graph(step.graph()).known is None
        found = cr.compile(lambda x: cr.scan(lambda c, one: (c + one, c), cr.tensor(np.zeros(3)), x)[1])
        found(x)
        assert compile_graph(found.graph()).name is None
        sorting = cr.compile(lambda x: cr.sort(x))
        sorting(x)
        assert compile_graph(sorting.graph()).name is None


def arrays_of_bytes(values: list[bytes], step: Any, x: Any, y: Any) -> list[Any]:
    """The bytes as arrays again, typed like the outputs of the step's graph."""
    outputs = step.graph().outputs
    return [np.frombuffer(one, node.dtype).reshape(node.shape) for one, node in zip(values, outputs)]


@check
def check_files_of_the_cache() -> None:
    """Which files are trusted, which go, and where they lie."""
    first, second, third, fourth = (letter * 64 for letter in "abcd")
    with place() as base:
        folder = base / "code-v1"
        assert cache.folder() == folder
        cache.store(first, b"code")
        assert cache.load(first) == b"code" and cache.load(second) is None
        file = folder / f"{first}.o"
        modes = {0o600: True, 0o644: True, 0o620: False, 0o602: False, 0o640: True, 0o645: True}
        for mode, trusted in modes.items():
            file.chmod(mode)
            assert (cache.load(first) == b"code") is trusted, oct(mode)
        file.chmod(0o600)
        fresh, old = (folder / f"{first}.{digit * 16}.part" for digit in "12")
        fresh.write_bytes(b"half")
        old.write_bytes(b"half")
        os.utime(old, (1.0, 1.0))
        cache._ALLOWED.clear()  # as in a new process
        cache.store(third, b"more")
        assert fresh.exists() and not old.exists() and file.exists()
        largest, cache._LARGEST = cache._LARGEST, 200
        try:
            os.utime(file, (1.0, 1.0))
            cache._ALLOWED.clear()
            cache.store(fourth, b"x" * 100)
            assert not file.exists() and (folder / f"{fourth}.o").exists()
        finally:
            cache._LARGEST = largest
        outer = {name: os.environ.pop(name, None) for name in ("CHAINRULE_CACHE_DIR", "XDG_CACHE_HOME")}
        try:
            if sys.platform.startswith("linux"):
                assert cache.folder() == Path.home() / ".cache" / "chainrule" / "code-v1"
            os.environ["XDG_CACHE_HOME"] = str(base)
            assert sys.platform == "win32" or cache.folder() == base / "chainrule" / "code-v1"
            os.environ["CHAINRULE_CACHE"] = "0"
            assert cache.folder() is None
        finally:
            os.environ["CHAINRULE_CACHE"] = "1"
            for name, value in outer.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@check
def check_the_collector_goes_on() -> None:
    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            cr.compile(lambda x: x * 2.0)(cr.tensor([1.0]))
            assert gc.isenabled() is enabled
        finally:
            gc.enable()
