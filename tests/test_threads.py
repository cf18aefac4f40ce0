"""Threads: those that help a step, those of Python that call it, forks, signals; and that nothing is left behind."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import hashlib
import itertools
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim
from chainrule.compiler import available, machine
from chainrule.compiler.machine import Native
from chainrule.compiler.pool import c_functions, share_text, worker_text
from chainrule.errors import ArgumentError
from chainrule.runtime import threads
from chainrule.runtime.threads import usable_cpus

pytestmark = pytest.mark.skipif(not available(), reason="needs llvmlite")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(autouse=True)
def keep_threads(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whatever a test chooses is forgotten afterwards."""
    monkeypatch.setattr(threads, "_wanted", threads._wanted)
    yield
    monkeypatch.undo()


def learner(width: int = 300) -> tuple[nn.Module, Any]:
    """A model that is large enough for its step to be shared among threads."""
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, width), nn.ReLU(), nn.Linear(width, 10))
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    @cr.compile
    def step(x: Any, y: Any) -> cr.Tensor:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return model, step


def batch(rows: int = 160) -> tuple[cr.Tensor, cr.Tensor]:
    random = np.random.default_rng(1)
    return cr.tensor(random.normal(size=(rows, 200)).astype("float32")), cr.tensor(
        random.integers(0, 10, rows)
    )


def bits(model: nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for value in model.state_dict().values())


def run(program: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, **extra},
    )  # fmt: skip


def together(count: int, work: Any) -> list[Any]:
    """`work(k)` in so many threads at once; their results, or the first error."""
    results: list[Any] = [None] * count
    errors: list[BaseException] = []
    barrier = threading.Barrier(count)

    def live(k: int) -> None:
        try:
            barrier.wait()
            results[k] = work(k)
        except BaseException as error:
            errors.append(error)

    crowd = [threading.Thread(target=live, args=(k,)) for k in range(count)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join(60)
    assert not any(one.is_alive() for one in crowd), "a thread hangs"
    if errors:
        raise errors[0]
    return results


# -------------------------------------------------------------------------------- helping threads


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    x, y = batch()
    found = []
    for count in (1, 2, 3, 8, 2):
        cr.set_num_threads(count)
        model, step = learner()
        for _ in range(5):
            step(x, y)
        assert step._last._shares
        assert step.report().threads == count == cr.get_num_threads()
        found.append(bits(model))
    assert len(set(found)) == 1


def named() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "chainrule"]


def wait_for(condition: Any) -> bool:
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_threads_end_when_their_number_changes() -> None:
    """Also those that sleep: closing wakes them."""
    _, step = learner()
    x, y = batch()
    cr.set_num_threads(4)
    step(x, y)
    assert wait_for(lambda: len(named()) == 3)
    time.sleep(0.05)  # they are asleep now
    cr.set_num_threads(2)
    step(x, y)
    assert wait_for(lambda: len(named()) == 1)
    cr.set_num_threads(1)
    step(x, y)
    assert wait_for(lambda: not named())


def test_the_number_changes_while_steps_run_in_other_threads() -> None:
    x, y = batch()
    wanted = learner()
    for _ in range(30):
        wanted[1](x, y)
    stop = threading.Event()

    def work(k: int) -> bytes:
        if k == 0:
            for round_ in range(100):
                cr.set_num_threads(1 + round_ % 5)
                time.sleep(0.002)
                if stop.is_set():
                    break
            return b""
        model, step = models[k]
        for _ in range(30):
            step(x, y)
        stop.set()
        return bits(model)

    models = {k: learner() for k in (1, 2)}
    results = together(3, work)
    assert results[1] == results[2] == bits(wanted[0])


def test_more_threads_than_processors() -> None:
    cr.set_num_threads(64)
    model, step = learner()
    x, y = batch()
    for _ in range(5):
        step(x, y)
    cr.set_num_threads(1)
    twin, plain = learner()
    for _ in range(5):
        plain(x, y)
    assert bits(model) == bits(twin)


def test_a_limit_on_threads_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    started = threading.Thread.start
    room = [2]

    def start(self: threading.Thread) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise RuntimeError("can't start new thread")
        started(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    cr.set_num_threads(7)
    model, step = learner()
    step(*batch())
    assert threads.pool()._word(threads.WORKERS).value == 2
    monkeypatch.undo()
    cr.set_num_threads(1)
    twin, plain = learner()
    plain(*batch())
    assert bits(model) == bits(twin)


def test_every_task_is_done_once_however_often() -> None:
    """The board itself: many small jobs, helpers that fall asleep in between, two boards at once."""
    text = "\n\n".join([
        *share_text(platform.machine()),
        "define internal void @task(ptr %job, i64 %task) {\n  %at = getelementptr i64, ptr %job, i64 %task\n"
        "  %old = atomicrmw add ptr %at, i64 1 monotonic\n  ret void\n}",
        "define void @many(ptr %board, ptr %job, i64 %count) {\n"
        "  call void @cr_share(ptr %board, ptr @task, ptr %job, i64 %count)\n  ret void\n}",
    ])  # fmt: skip
    native = Native(text, "many", c_functions(platform.machine()))
    many = native.lookup("many", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    boards = [threads.Pool(4), threads.Pool(3)]

    def work(k: int) -> None:
        board = boards[k % 2]
        for size in range(1, 400):
            done = np.zeros(size, "int64")
            board.ring()
            many(board.address, done.ctypes.data, size)
            assert (done == 1).all()
            if size % 100 == 0:
                time.sleep(0.02)

    try:
        together(3, work)  # the third shares a board with the first: who finds it busy works alone
    finally:
        for board in boards:
            board.close()
    assert wait_for(lambda: not [one for one in named() if one.is_alive()] or threads._pool is not None)


def test_closing_while_a_job_runs() -> None:
    x, y = batch()
    cr.set_num_threads(3)
    model, step = learner()
    step(x, y)
    stop = threading.Event()

    def close() -> None:
        while not stop.is_set():
            helpers = threads.pool()
            if helpers is not None:
                helpers.close()
                threads._pool = None

    closer = threading.Thread(target=close)
    closer.start()
    for _ in range(40):
        step(x, y)
    stop.set()
    closer.join()
    twin, plain = learner()
    for _ in range(41):
        plain(x, y)
    assert bits(model) == bits(twin)


def test_what_the_number_of_threads_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (0, -1, 1.5, True, "2", 1025, None):
        with pytest.raises(ArgumentError, match="whole number from 1 to 1024"):
            cr.set_num_threads(wrong)  # type: ignore[arg-type]
    monkeypatch.setattr(threads, "_wanted", None)
    for wrong in ("0", "-1", "two", "1.5", "99999", "٣"):
        monkeypatch.setattr(threads, "_default", None)
        monkeypatch.setenv("CHAINRULE_NUM_THREADS", wrong)
        with pytest.raises(ArgumentError, match=f"CHAINRULE_NUM_THREADS must be .*got '{wrong}'"):
            cr.get_num_threads()
    for text, wanted in ((" 3 ", 3), ("", usable_cpus())):
        monkeypatch.setattr(threads, "_default", None)
        monkeypatch.setenv("CHAINRULE_NUM_THREADS", text)
        assert cr.get_num_threads() == wanted
    monkeypatch.setattr(threads, "_default", None)


def test_a_wrong_number_in_the_environment_is_told_at_the_first_step() -> None:
    program = "import chainrule as cr\ncr.compile(lambda x: x * 2.0)(cr.ones(3))"
    done = run(program, CHAINRULE_NUM_THREADS="many")
    assert (
        done.returncode == 1
        and "CHAINRULE_NUM_THREADS must be a whole number from 1 to 1024; got 'many'" in done.stderr
    )


def test_the_share_of_a_container_is_respected(tmp_path: Path) -> None:
    own = usable_cpus(str(tmp_path))
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)

    def limited(where: Path, text: str) -> int:
        where.mkdir(parents=True, exist_ok=True)
        (where / "cpu.max").write_text(text)
        return usable_cpus(str(tmp_path))

    assert limited(group, "max 100000\n") == own
    assert limited(group, "50000 100000\n") == 1
    for broken in ("", "a b\n", "1\n", "100000 0\n", "-1 100000\n"):
        assert limited(group, broken) == own
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/user.slice/session.scope\n")
    assert limited(group / "user.slice", "100000 100000\n") == 1, "a limit above the process's own group"
    (group / "user.slice/cpu.max").unlink()
    (tmp_path / "proc/self/cgroup").write_text("7:cpu,cpuacct:/docker/abc\n3:memory:/x\n\nbroken\n")
    old = group / "cpu/docker/abc"
    old.mkdir(parents=True)
    (old / "cpu.cfs_quota_us").write_text("-1\n")
    (old / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cpus(str(tmp_path)) == own
    (old / "cpu.cfs_quota_us").write_text("90000\n")
    assert usable_cpus(str(tmp_path)) == 1


@pytest.mark.parametrize("kind", ["x86_64", "AMD64", "aarch64", "riscv64"])
def test_the_board_is_written_for_every_processor(kind: str) -> None:
    """Where the kernel's call is not known, threads rest in Python, and nothing of it is declared."""
    for text in ("\n\n".join(share_text(kind)), worker_text(kind)):
        module = machine._binding().parse_assembly(text)
        module.verify()
        assert ("@syscall" in text) == bool(c_functions(kind))
    assert bool(c_functions(kind)) == (kind != "riscv64" and sys.platform == "linux")


def test_threads_that_cannot_sleep_on_the_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_can_sleep", lambda: False)
    monkeypatch.setattr(threads, "_pool", None)
    cr.set_num_threads(3)
    model, step = learner()
    x, y = batch()
    for _ in range(5):
        step(x, y)
        time.sleep(0.01)  # they rest in between
    crowd = threads.pool()
    assert crowd is not None and wait_for(lambda: crowd._resting == 2)
    crowd.close()
    monkeypatch.undo()
    twin, plain = learner()
    for _ in range(5):
        plain(x, y)
    assert bits(model) == bits(twin)


# ------------------------------------------------------------------------------- threads of Python


def test_eight_threads_make_the_first_call_of_one_function() -> None:
    x, y = batch()
    model, step = learner()
    losses = together(8, lambda _: [step(x, y).item() for _ in range(5)])
    assert len(step._programs) == 1 and step.recompiles == []
    twin, plain = learner()
    wanted = [plain(x, y).item() for _ in range(40)]
    assert sorted(itertools.chain(*losses)) == sorted(wanted), "every step happens once, as a whole"
    assert bits(model) == bits(twin)


def test_threads_with_kinds_of_calls_of_their_own() -> None:
    w = cr.tensor(np.ones(3, "float32"))
    double = cr.compile(lambda x: x * 2.0 + w.sum())
    results = together(8, lambda k: [double(cr.ones(k + 1)).tolist() for _ in range(20)])
    for k, found in enumerate(results):
        assert found == [[5.0] * (k + 1)] * 20
    assert len(double._programs) == 8 and len(double.recompiles) == 7
    assert w.tolist() == [1.0, 1.0, 1.0], "a tensor that is captured has its numbers again"


def test_steps_of_different_functions_on_the_same_cells_do_not_mix() -> None:
    """Increments of one counter by two functions and two kinds of calls: none is lost."""
    w = cr.tensor(np.zeros(2000), requires_grad=True)

    def adding(amount: float) -> Any:
        def step(x: cr.Tensor) -> cr.Tensor:
            with cr.no_grad():
                w.copy_(w + amount * x.sum())
            return w.sum()

        return cr.compile(step)

    steps = [adding(1.0), adding(2.0)]
    ones = [cr.tensor(np.ones(1)), cr.tensor(np.full(2, 0.5))]
    together(4, lambda k: [steps[k % 2](ones[k // 2]) for _ in range(200)])
    assert (w.detach().numpy() == 2 * 200 * (1.0 + 2.0)).all()


def test_inference_in_one_thread_while_another_learns() -> None:
    x, y = batch()
    model, step = learner()
    predict = cr.compile(lambda v: model(v))
    done = threading.Event()

    def work(k: int) -> Any:
        if k == 0:
            for _ in range(60):
                step(x, y)
            done.set()
            return bits(model)
        count = 0
        while not done.is_set() or not count:
            with cr.no_grad():
                assert np.isfinite(predict(x).numpy()).all()
            count += 1
        return count

    results = together(3, work)
    twin, plain = learner()
    for _ in range(60):
        plain(x, y)
    assert results[0] == bits(twin) and results[1] and results[2]


def test_gradients_of_any_layout_are_held_while_they_are_read() -> None:
    w = cr.tensor(np.ones((40, 30)), requires_grad=True)

    @cr.compile
    def step() -> cr.Tensor:
        return w.grad * 2.0

    values = np.arange(1200.0).reshape(30, 40)
    w.grad = cr.tensor(values).T
    for _ in range(20):
        np.testing.assert_array_equal(step().numpy(), values.T * 2.0)


# --------------------------------------------------------------------------------------- forks


@needs_fork
@pytest.mark.filterwarnings(
    "ignore:This process:DeprecationWarning"
)  # Python 3.12 and later warn of every such fork
def test_a_fork_after_the_pool_has_started() -> None:
    """The child computes the same and does not hang; the parent goes on."""
    cr.set_num_threads(3)
    x, y = batch()
    model, step = learner()
    step(x, y)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # nothing of pytest's may run here
        try:
            faulthandler.dump_traceback_later(50, exit=True, file=sys.__stderr__)
            for _ in range(3):
                step(x, y)
            fresh = cr.compile(lambda v: cr.exp(v).sum())(x)  # compiles in the child, too
            os.write(write, f"{hash_of(bits(model))} {np.isfinite(fresh.item())}".encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write)
    for _ in range(3):
        step(x, y)
    assert finished(child) == 0
    assert os.read(read, 1000).decode() == f"{hash_of(bits(model))} True"
    os.close(read)


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def finished(child: int) -> int:
    """The status of a child that must end within a minute."""
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the child hangs")


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forks_while_other_threads_run_steps_and_compile() -> None:
    cr.set_num_threads(2)
    x, y = batch()
    models = [learner() for _ in range(2)]
    for _, step in models:
        step(x, y)
    stop = threading.Event()

    def busy(k: int) -> None:
        number = 0
        while not stop.is_set():
            models[k][1](x, y)
            number += 1
            cr.compile(lambda v, n: v * float(n))(x, number % 7)

    crowd = [threading.Thread(target=busy, args=(k,)) for k in range(2)]
    for one in crowd:
        one.start()
    try:
        for _ in range(8):
            child = os.fork()
            if child == 0:
                try:
                    faulthandler.dump_traceback_later(50, exit=True, file=sys.__stderr__)
                    for _, step in models:
                        step(x, y)
                    os._exit(0)
                finally:
                    os._exit(1)
            assert finished(child) == 0
    finally:
        stop.set()
        for one in crowd:
            one.join()


# ------------------------------------------------------------------------------------- signals, the end

_INTERRUPTED = """
import os, signal, threading, time
import numpy as np, chainrule as cr
from chainrule import nn, optim, functional as F
cr.set_num_threads(2)
cr.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 3))
optimizer = optim.Adam(model.parameters())
@cr.compile
def step(x, y):
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss
x, y = cr.rand(8, 64), cr.randint(0, 3, (8,))
step(x, y)
cells = [t.cell for t in (*model.parameters(), *model.buffers())] + [c for c, _ in step._last.graph.writes]
cells = list(dict.fromkeys(cells))
def state():
    return [c.array.copy() for c in cells]
def same(a, b):
    return all(np.array_equal(i, j) for i, j in zip(a, b))
def tick(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, tick)
whole = nothing = 0
for k in range(600):
    before, generator = state(), None
    step(x, y)
    after = state()
    for cell, array in zip(cells, before):
        cell.write(array.copy())
    hit = False
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-6 + 2e-6 * (k % 300))
        step(x, y)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        hit = True
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            hit = True
    now = state()
    assert all(p.grad is None for p in model.parameters())
    if same(now, after):
        whole += hit
    else:
        assert hit and same(now, before), k
        nothing += 1
        for cell, array in zip(cells, after):
            cell.write(array.copy())
print(whole, nothing)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_an_interrupted_step_happens_as_a_whole_or_not_at_all() -> None:
    """Ctrl-C at any moment of a step, between any two lines of the commit."""
    done = run(_INTERRUPTED)
    assert done.returncode == 0, done.stderr[-2000:]
    whole, nothing = map(int, done.stdout.split())
    assert whole >= 5 and nothing >= 5, done.stdout


_LONG = """
import os, signal, threading, time
import numpy as np, chainrule as cr
w = cr.tensor(np.ones((700, 700)), requires_grad=True)
@cr.compile
def step(x):
    y = x
    for _ in range(12):
        y = cr.tanh(y @ w)
    with cr.no_grad():
        w.copy_(w * 0.5)
    return y.sum()
x = cr.tensor(np.ones((700, 700)))
step(x)
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
started = time.monotonic()
try:
    while True:
        step(x)
except KeyboardInterrupt:
    took = time.monotonic() - started - 0.3
assert np.isfinite(step(x).item()) and len(set(w.detach().numpy().ravel())) == 1
print(took < 5.0)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_ctrl_c_is_handled_when_the_call_returns() -> None:
    done = run(_LONG)
    assert done.stdout == "True\n", done.stderr[-2000:]


@pytest.mark.parametrize(
    "last", ["", "import sys; sys.exit(3)", "raise SystemExit(3)", "import os; os._exit(3)"]
)
def test_the_process_ends_though_threads_sleep_in_machine_code(last: str) -> None:
    program = (
        "import chainrule as cr\ncr.set_num_threads(4)\n"
        "f = cr.compile(lambda x: cr.exp(x) * 2.0)\nf(cr.ones(200_000)); f(cr.ones(200_000))\nassert f._last._shares\n"
    )
    done = run(program + last)
    assert done.returncode == (3 if last else 0) and done.stderr == ""


# --------------------------------------------------------------------------------------- nothing is left

_LEAK = """
import gc, sys, resource
import chainrule as cr
from chainrule import nn, optim, functional as F
steps = int(sys.argv[1])
cr.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 3))
optimizer = optim.Adam(model.parameters(), lr=1e-3)
@cr.compile
def step(x, y):
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss, cr.sort(model(x), axis=1)
x, y = cr.rand(32, 16), cr.randint(0, 3, (32,))
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
for _ in range(500):
    step(x, y)
gc.collect()
gc.disable()
before, objects = resident(), len(gc.get_objects())
for _ in range(steps):
    step(x, y)
grown, more = resident() - before, len(gc.get_objects()) - objects
print(grown, more)
"""


def leak_of(steps: int) -> tuple[int, int]:
    """(bytes, objects) that so many steps leave behind, without the garbage collector."""
    done = subprocess.run(
        [sys.executable, "-c", _LEAK, str(steps)], capture_output=True, text=True, timeout=600, check=True
    )
    grown, more = map(int, done.stdout.split())
    return grown, more


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_steps_leave_nothing_behind() -> None:
    """5,000 of them; with CHAINRULE_LEAK_STEPS=100000 as many as that."""
    steps = int(os.environ.get("CHAINRULE_LEAK_STEPS", "5000"))
    grown, more = leak_of(steps)
    assert more < 50, f"{more} objects"
    assert grown < 2 << 20, f"{grown} bytes"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_many_shapes_stay_bounded() -> None:
    """Programs and their machine code go when others come; with CHAINRULE_SHAPES=1000 as many as that."""
    shapes = int(os.environ.get("CHAINRULE_SHAPES", "200"))
    program = f"""
import gc, resource
import chainrule as cr
import chainrule.runtime.compiled as compiled
from chainrule.compiler import machine
compiled._MOST_PROGRAMS = 16
f = cr.compile(lambda x: (cr.exp(x) * 2.0 + x).sum())
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
for n in range(1, {shapes + 1}):
    assert f(cr.zeros(n)).item() == 2.0 * n
    if n == {shapes} // 2:
        gc.collect()
        half = resident()
gc.collect()
assert len(f._programs) == 16 and len(f.recompiles) == {shapes - 1}
assert len(machine._natives) <= 16, len(machine._natives)
print(resident() - half)
"""
    done = run(program)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < shapes // 2 * 15_000, "an LLVM module takes more than this"


def test_programs_go_with_their_function() -> None:
    model, step = learner(64)
    step(*batch(8))
    gc.collect()
    natives = len(machine._natives)
    del step
    gc.collect()
    assert len(machine._natives) == natives - 1
    del model
