"""How many threads NumPy's BLAS uses: the bits of its products depend on how many share the work.

threadpoolctl finds the libraries (OpenBLAS, MKL, BLIS, FlexiBLAS); it is loaded with the first wish, not before. Where
there is none that it knows (Apple's Accelerate has no such setting), nothing happens.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from collections.abc import Iterator
from typing import Any

from .locks import LLVM, lock

_lock = lock(threading.Lock(), LLVM)
_users = 0
# What each library goes back to when nobody needs one thread any more.
_afterwards: list[int] = []


@functools.cache
def _libraries() -> list[tuple[Any, int]]:
    """Every BLAS in this process, and how many threads it had when it was looked for."""
    controllers = importlib.import_module("threadpoolctl").ThreadpoolController().select(user_api="blas")
    return [(one, one.get_num_threads()) for one in controllers.lib_controllers]


def limit(threads: int) -> None:
    """Products of NumPy run on so many threads at most from now on, never on more than at the start.

    >>> limit(4)
    """
    global _afterwards
    with _lock:
        _afterwards = [min(threads, most) for _, most in _libraries()]
        if not _users:
            _go_back()


def _go_back() -> None:
    for (library, _), number in zip(_libraries(), _afterwards):
        _put(library, number)


def _put(library: Any, threads: int) -> None:
    """Set the number from any thread of Python: by itself OpenBLAS's controller listens to the first one only."""
    release = getattr(library, "clear_controlling_thread", lambda **_: None)
    release(force=True)
    library.set_num_threads(threads)
    release()


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Products of NumPy run on one thread inside; after the last user they have the number from before again.

    >>> import numpy as np
    >>> with single_threaded():
    ...     product = np.ones((2, 2)) @ np.ones((2, 2))
    """
    global _users, _afterwards
    with _lock:
        if not _users:
            _afterwards = [library.get_num_threads() for library, _ in _libraries()]
            for library, _ in _libraries():
                _put(library, 1)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _go_back()
