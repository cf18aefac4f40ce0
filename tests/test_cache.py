"""Machine code on disk: shared by processes, checked when it is read, never a reason to fail."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler import available, cache, machine

pytestmark = pytest.mark.skipif(not available(), reason="needs llvmlite")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new, empty folder for machine code."""
    outer = tmp_path / "code"
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(outer))
    monkeypatch.delenv("CHAINRULE_CACHE", raising=False)
    machine._natives.clear()
    return outer / "code-v1"


def compiled() -> list[float]:
    """One call of a step that was never compiled in this process."""
    machine._natives.clear()
    step = cr.compile(lambda x: cr.exp(x) * 1.25 - x)
    found: list[float] = step(cr.tensor(np.linspace(-1, 1, 37))).tolist()
    assert step._last.native is not None
    return found


def both(place: Path) -> list[Path]:
    """The file of the code, and that of what is known of it."""
    return sorted(place.iterdir(), key=lambda file: -file.stat().st_size)


def count_compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    compile_text = machine._compiled
    monkeypatch.setattr(machine, "_compiled", lambda text: made.append(text) or compile_text(text))
    return made


def test_code_is_made_once_and_gives_the_same_bits(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = count_compilations(monkeypatch)
    first = compiled()
    assert len(made) == 1
    assert compiled() == first and len(made) == 1
    files = list(place.iterdir())
    assert len(files) == 2  # the code, and what is known of it
    if os.name == "posix":
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)


@pytest.mark.parametrize("damage", [
    lambda content: b"",
    lambda content: content[:10],
    lambda content: content[:-1],
    lambda content: content[: len(content) // 2],
    lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
    lambda content: bytes([content[0] ^ 1]) + content[1:],
    lambda content: content + b"\0",
    lambda content: bytes(len(content)),
], ids=["empty", "ten bytes", "a byte less", "half", "one bit", "checksum", "a byte more", "zeros"])  # fmt: skip
def test_damaged_code_is_made_again(place: Path, monkeypatch: pytest.MonkeyPatch, damage: Any) -> None:
    made = count_compilations(monkeypatch)
    wanted = compiled()
    code, note = both(place)
    whole = code.read_bytes()
    code.write_bytes(damage(whole))
    assert compiled() == wanted and len(made) == 2
    assert code.read_bytes() == whole
    assert compiled() == wanted and len(made) == 2
    whole = note.read_bytes()
    note.write_bytes(damage(whole))
    assert compiled() == wanted and len(made) == 2
    assert note.read_bytes() == whole


def test_code_under_another_name_is_refused(place: Path) -> None:
    cache.store("a" * 64, b"code")
    (place / f"{'a' * 64}.o").rename(place / f"{'b' * 64}.o")
    assert cache.load("b" * 64) is None and cache.load("a" * 64) is None


@pytest.mark.skipif(os.name != "posix", reason="needs owners and modes")
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_files_that_others_may_write_are_refused(place: Path, mode: int) -> None:
    cache.store("k", b"code")
    assert cache.load("k") == b"code"
    (place / "k.o").chmod(mode)
    assert cache.load("k") is None
    cache.store("k", b"code")
    assert cache.load("k") == b"code", "it is replaced by one of our own"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs owners")
def test_files_of_others_are_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store("k", b"code")
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    assert cache.load("k") is None
    monkeypatch.undo()


def test_a_folder_that_cannot_be_used_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    for wrong in (
        tmp_path / "file",
        tmp_path / "file" / "below",
        Path("/proc/none/such"),
        tmp_path / ("x" * 400),
    ):
        monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(wrong))
        assert len(compiled()) == 37
    assert (tmp_path / "file").read_text() == "no folder"


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="needs a user whom modes stop")
def test_a_folder_that_may_not_be_written(place: Path) -> None:
    place.mkdir(mode=0o500, parents=True)
    assert len(compiled()) == 37
    assert not list(place.iterdir())


def test_a_file_in_the_way(place: Path) -> None:
    wanted = compiled()
    files = both(place)
    for file in files:
        file.unlink()
        file.mkdir()
    assert compiled() == wanted
    assert set(place.iterdir()) == set(files), "nothing half written is left"


@pytest.mark.skipif(os.name != "posix", reason="needs limits")
def test_a_full_disk_is_no_fault(place: Path) -> None:
    program = (
        "import resource, signal, chainrule as cr\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "print(cr.compile(lambda x: cr.exp(x) * 1.5)(cr.zeros(3)).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[1.5, 1.5, 1.5]\n"
    assert not list(place.iterdir())


def test_it_can_be_switched_off(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_CACHE", "0")
    assert len(compiled()) == 37 and not place.exists()


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CHAINRULE_CACHE_DIR", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "chainrule/code-v1"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache/chainrule/code-v1"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.folder() == tmp_path / "Library/Caches/chainrule/code-v1"


def test_the_folder_stays_bounded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_LARGEST", 100_000)
    kept, others = cache.key_of("kept"), [cache.key_of(str(number)) for number in range(40)]
    cache.store(kept, b"k" * 1000)
    for other in others:
        cache.store(other, bytes(10_000))
        time.sleep(0.002)  # files have times
        assert cache.load(kept) == b"k" * 1000, "what is used stays"
        assert sum(one.stat().st_size for one in place.iterdir()) <= 100_000
    assert cache.load(others[39]) is not None and cache.load(others[0]) is None


def test_what_a_killed_process_left_goes(place: Path) -> None:
    cache.store("k", b"code")
    old, fresh = (place / f"{cache.key_of('k')}.{16 * digit}.part" for digit in "0f")
    for one in (old, fresh):
        one.write_bytes(b"half")
    os.utime(old, (1, 1))
    cache.store("l", b"code")
    assert old.exists(), "not looked at again before some bytes have been written"
    cache._ALLOWED.clear()  # as a new process does
    cache.store("m", b"code")
    assert not old.exists() and fresh.exists()


def test_the_key_knows_the_processor_and_the_compiler(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code for another processor would stop the process."""
    made = count_compilations(monkeypatch)
    compiled()
    name, features = machine._processor()
    assert name and features
    fewer = features.replace("+avx512f", "-avx512f").replace("+avx2", "-avx2")
    for other in (("another", features), (name, fewer + ",-sse4a"), (name, features)):
        monkeypatch.setattr(machine, "_processor", lambda other=other: other)
        if other[0] == name:
            compiled()
        else:
            keys = {cache.key_of("text", *other), cache.key_of("text", name, features)}
            assert len(keys) == 2
    assert len(made) == 2
    assert cache.key_of("ab", "c") != cache.key_of("a", "bc")


_WORKER = """
import sys, time
import numpy as np, chainrule as cr
from chainrule import nn, optim, functional as F
while time.time() < float(sys.argv[1]):
    pass
cr.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3))
optimizer = optim.Adam(model.parameters())
@cr.compile
def step(x, y):
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss
random = np.random.default_rng(0)
x, y = random.normal(size=(8, 16)).astype("float32"), random.integers(0, 3, 8)
print([step(x, y).item().hex() for _ in range(3)])
"""


def test_many_processes_at_once(place: Path) -> None:
    start = str(time.time() + 2.5)
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, start], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    ends = [one.communicate(timeout=120) for one in crowd]
    assert all(one.returncode == 0 for one in crowd), ends
    assert len({out for out, _ in ends}) == 1
    assert not [one.name for one in place.iterdir() if not one.name.endswith(".o")]
    later = subprocess.run([sys.executable, "-c", _WORKER, "0"], capture_output=True, text=True, check=True)
    assert later.stdout == ends[0][0], "the same bits from the files"


_WRITER = """
import os, sys
from chainrule.compiler import cache
sys.stdout.write("go\\n"); sys.stdout.flush()
while True:
    cache.store("k", bytes(range(256)) * 4000)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_kill_minus_nine_while_it_is_written(place: Path) -> None:
    random = np.random.default_rng(0)
    found = []
    for _ in range(6):
        child = subprocess.Popen([sys.executable, "-c", _WRITER], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stdout.readline() == "go\n"
        time.sleep(float(random.uniform(0.002, 0.05)))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        content = cache.load("k")
        assert content is None or content == bytes(range(256)) * 4000
        found.append(content is not None)
        if content is not None:
            (place / "k.o").unlink()
    assert any(found)


# ------------------------------------------------------------------------------- what is known of a plan


def program_of(function: Any, *arrays: Any) -> Any:
    """The program that serves a call of the function."""
    step = cr.compile(function)
    step(*map(cr.tensor, arrays))
    return step._last


def called(program: Any, *arrays: Any) -> Any:
    """What a program returns for these arrays."""
    return program.run(program.serve(tuple(map(cr.tensor, arrays)), {}))


def test_a_known_plan_runs_without_its_loops(place: Path) -> None:
    x = np.linspace(-1, 1, 37)

    def step(x: Any) -> Any:
        return cr.exp(x) * 1.25 - x.sum()

    first, second = (program_of(step, x) for _ in range(2))
    assert first.compilation.known is None and second.compilation.known is not None
    assert "_written" not in vars(second.compilation)
    assert called(first, x).tolist() == called(second, x).tolist()
    # Whoever looks gets the loops of the code that runs.
    assert second.compilation.emitted.text == first.compilation.emitted.text
    assert second.compilation.plan.arena == first.compilation.plan.arena
    assert second.native is first.native


_X, _Y = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
DIFFERENT: list[Any] = [
    lambda x, y: x + y, lambda x, y: y + x, lambda x, y: x - y, lambda x, y: x + x, lambda x, y: x + y + 1.0,
    lambda x, y: x + y + 2.0, lambda x, y: x + y + cr.tensor([1.0, 2.0, 4.0]),
    lambda x, y: x + y + cr.tensor([1.0, 2.0, 5.0]), lambda x, y: cr.sum(x + y, axis=0),
    lambda x, y: cr.sum(x + y, axis=1), lambda x, y: cr.sum(x + y, axis=1, keepdims=True), lambda x, y: (x + y, -x),
    lambda x, y: (-x, x + y), lambda x, y: (x + y, -y), lambda x, y: (x + y).astype("float32"),
    lambda x, y: cr.permute_dims(x + y, (1, 0)), lambda x, y: cr.reshape(x + y, (3, 2)), lambda x, y: (x + y)[0],
    lambda x, y: (x + y)[1], lambda x, y: cr.take(x, cr.tensor([0, 1]), axis=1) + y[:, :2],
    lambda x, y: cr.take(x, cr.tensor([0, 2]), axis=1) + y[:, :2], lambda x, y: x @ y.T, lambda x, y: x.T @ y,
]  # fmt: skip


def test_no_two_programs_are_taken_for_each_other(place: Path) -> None:
    names: dict[str, int] = {}
    found = []
    for number, function in enumerate(DIFFERENT):
        program = program_of(function, _X, _Y)
        name, entry = program.compilation.name, program.compilation.emitted.entry
        assert name is not None and name not in names, (number, names.get(name))
        names[name] = number
        found.append(entry)
    machine._natives.clear()
    for number, function in enumerate(DIFFERENT):
        program = program_of(function, _X, _Y)
        assert program.compilation.known is not None and program.compilation.known.entry == found[number]
        again, eager = (
            cr.compile(function)(cr.tensor(_X), cr.tensor(_Y)),
            function(cr.tensor(_X), cr.tensor(_Y)),
        )
        for one, other in zip(*(x if isinstance(x, tuple) else (x,) for x in (again, eager))):
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-12)


def test_what_is_handed_through_needs_no_code_of_its_own(place: Path) -> None:
    plain, x, y = program_of(lambda x, y: x + y, _X, _Y), cr.tensor(_X), cr.tensor(_Y)
    for function in (lambda x, y: (x + y, x), lambda x, y: (x + y, y), lambda x, y: (x + y, x, y)):
        assert program_of(function, _X, _Y).compilation.name == plain.compilation.name
        total, *handed = cr.compile(function)(x, y)
        assert [id(one) for one in handed] == [id(one) for one in function(x, y)[1:]]
        np.testing.assert_array_equal(total.numpy(), _X + _Y)


def test_other_shapes_dtypes_and_switches_have_other_names(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(*arrays: Any) -> str:
        found: str = program_of(lambda x, y: cr.exp(x) + y, *arrays).compilation.name
        return found

    kinds = [(_X, _Y), (_X.T, _Y.T), (_X.astype("float32"), _Y.astype("float32")), (_X[:1], _Y[:1])]
    found = [names(*one) for one in kinds]
    monkeypatch.setattr(cr.config, "skip", frozenset({"merge"}))
    found.append(names(*kinds[0]))
    monkeypatch.setattr(cr.config, "skip", frozenset())
    assert len(set(found)) == len(found)


def test_a_damaged_note_is_written_again(place: Path) -> None:
    step = lambda x: cr.tanh(x) * 3.0
    first = program_of(step, _X)
    path = place / f"{first.compilation.name}.o"
    path.write_bytes(path.read_bytes()[:-3])
    assert program_of(step, _X).compilation.known is None
    assert program_of(step, _X).compilation.known is not None


def test_code_that_is_gone_is_made_from_the_plan(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = lambda x: cr.tanh(x) * 5.0
    first = program_of(step, _X)
    (place / f"{first.compilation.needs.code}.o").unlink()
    wanted = called(first, _X).tolist()
    del first
    machine._natives.clear()
    made = count_compilations(monkeypatch)
    again = program_of(step, _X)
    assert again.compilation.known is not None and len(made) == 1
    assert called(again, _X).tolist() == wanted


def test_what_cannot_be_described_is_compiled(place: Path) -> None:
    def loop(x: Any) -> Any:
        return cr.scan(lambda carry, one: (carry + one, carry), cr.tensor(np.zeros(3)), x)[1]

    for function in (loop, lambda x: cr.argsort(x)):
        for _ in range(2):
            assert program_of(function, _X).compilation.known is None
