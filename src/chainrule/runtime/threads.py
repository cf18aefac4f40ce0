"""The threads that help a compiled step: Python's own, that spend their lives inside machine code.

How many: `set_num_threads`, else CHAINRULE_NUM_THREADS, else as many as the process may use (its affinity, and the
share that a container is given). Results do not depend on the number. After a fork the child starts threads anew.
Knows the board of `compiler/pool.py`; knows nothing of what the tasks are.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path

from .. import blas
from ..compiler.machine import Native
from ..compiler.pool import BOARD, STOP, WORKERS, c_functions, futex_number, worker_text
from ..errors import ArgumentError
from .memory import address, aligned

# Looks at the board before a thread goes to sleep: about 50 µs.
_SPINS = 2000
_VARIABLE = "CHAINRULE_NUM_THREADS"
_MOST = 1024


class Pool:
    """The board and the threads at it.

    Who gives its address to machine code holds the pool until that returns: closing it lets the threads end, and
    when they have ended nothing but the holder keeps the board in memory.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._board = aligned(BOARD)
        self._board[:] = 0
        self.address = address(self._board)
        self._native = native = _workers()
        # Looked up here: a thread that is about to begin must not be found inside LLVM by a fork.
        self._work = native.lookup("cr_work", None, ctypes.c_void_p, ctypes.c_int64)
        self._work_and_sleep = native.lookup("cr_live", None, ctypes.c_void_p, ctypes.c_int64)
        self._stop = native.lookup("cr_stop", None, ctypes.c_void_p)
        self._bell = threading.Condition()
        self._resting = self._rung = 0
        started = 0
        with contextlib.suppress(RuntimeError):  # a limit on threads: those that there are must do
            for _ in range(threads - 1):
                threading.Thread(target=self._live, daemon=True, name="chainrule").start()
                started += 1
        self._word(WORKERS).value = started

    def _word(self, offset: int) -> ctypes.c_int64:
        return ctypes.c_int64.from_address(self.address + offset)

    def _live(self) -> None:
        if _can_sleep():
            self._work_and_sleep(self.address, _SPINS)
            return
        stop = self._word(STOP)
        while not stop.value:
            self._work(self.address, _SPINS)
            with self._bell:
                self._resting += 1
                before = self._rung
                while self._rung == before and not stop.value:
                    self._bell.wait()

    def ring(self) -> None:
        """Wake threads that could not sleep on the board: called before a step that has tasks to share."""
        if self._resting:
            with self._bell:
                self._resting = 0
                self._rung += 1
                self._bell.notify_all()

    def close(self) -> None:
        """Let the threads end, also those that sleep. A step that is running goes on alone."""
        self._stop(self.address)
        self.ring()


@functools.cache
def _workers() -> Native:
    """The machine code of helping threads."""
    machine = platform.machine()
    return Native(worker_text(machine), "cr_work", c_functions(machine))


def _can_sleep() -> bool:
    return futex_number(platform.machine()) is not None


_lock = threading.Lock()
_pool: Pool | None = None
_wanted: int | None = None
_default: int | None = None


def usable_cpus(root: str = "/") -> int:
    """How many processors this process may use: its affinity, cut by the share that a container is given.

    root: where the system's files begin.
    """
    try:
        found = len(os.sched_getaffinity(0))
    except AttributeError:
        found = os.cpu_count() or 1
    return max(1, min(found, _quota(Path(root)) or found))


def _quota(root: Path) -> int | None:
    """The processors that Linux's control groups grant, rounded up; None where nothing limits them.

    Every group above this process's own can set a limit; inside a container its own group is the top.
    """
    found = [share for group in _groups(root) if (share := _share(group)) is not None]
    return min(found, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """The folders that can hold a limit, of both versions of control groups."""
    yield root / "sys/fs/cgroup"
    yield root / "sys/fs/cgroup/cpu"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / ("sys/fs/cgroup/cpu" if controllers else "sys/fs/cgroup")
        names = [name for name in path.split("/") if name not in ("", "..")]
        yield from (top.joinpath(*names[:depth]) for depth in range(1, len(names) + 1))


def _share(group: Path) -> int | None:
    """The limit of one group."""
    try:
        if (group / "cpu.max").exists():
            share, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            share = (group / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (group / "cpu.cfs_period_us").read_text(encoding="ascii")
        return (
            -(-int(share) // int(period)) if share != "max" and int(share) > 0 and int(period) > 0 else None
        )
    except (OSError, ValueError):
        return None


def get_num_threads() -> int:
    """How many threads a compiled step uses: what `set_num_threads` was told, else the environment's
    CHAINRULE_NUM_THREADS, else as many as there are processors for this process (its affinity and its container's
    share; looked up once). Results do not depend on it.

    Raises ArgumentError if CHAINRULE_NUM_THREADS is not a whole number from 1 to 1024.

    >>> import chainrule as cr
    >>> cr.get_num_threads() >= 1
    True
    """
    global _default
    if _wanted is not None:
        return _wanted
    if _default is None:
        text = os.environ.get(_VARIABLE, "").strip()
        _default = _number(text) if text else usable_cpus()
    return _default


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= _MOST):
        raise ArgumentError(
            f"{_VARIABLE} must be a whole number from 1 to {_MOST}; got {text!r}. Correct or unset it"
        )
    return int(text)


def set_num_threads(count: int) -> None:
    """Let compiled steps use so many threads, this one counted. Results stay the same to the last bit.

    It holds for every step that begins from now on, in all threads of Python; a step that is running ends as it began.
    Matrix products outside compiled steps are NumPy's: its library uses no more than so many either.
    Raises ArgumentError for anything but a whole number from 1.

    >>> import chainrule as cr
    >>> before = cr.get_num_threads()
    >>> cr.set_num_threads(1)
    >>> cr.get_num_threads()
    1
    >>> cr.set_num_threads(before)
    """
    global _wanted
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MOST:
        raise ArgumentError(
            f"set_num_threads needs a whole number from 1 to {_MOST}; got {count!r}. Pass an int"
        )
    _wanted = count
    blas.limit(count)


def pool() -> Pool | None:
    """The pool of as many threads as are wanted; None for one thread."""
    global _pool
    wanted, known = get_num_threads(), _pool
    if wanted == (1 if known is None else known.threads):
        return known
    with _lock:
        if _pool is not None and _pool.threads != wanted:
            _pool.close()
            _pool = None
        if _pool is None and wanted > 1:
            _pool = Pool(wanted)
        return _pool


@atexit.register
def _close() -> None:
    """At the end of the process no thread is left in machine code."""
    if _pool is not None:
        _pool.close()


def _after_fork() -> None:
    """The child has none of the parent's threads."""
    global _pool, _lock, _default
    _pool, _lock, _default = None, threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
