"""One thread for NumPy's OpenBLAS: the bits of its products depend on how many threads share the work.

Knows the library inside NumPy's wheel by the names that it exports; where there is none, nothing happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Callable, Iterator

import numpy as np

# How NumPy's wheels and the distributions export the two functions: with 64-bit integers, and without.
_NAMES = (
    ("scipy_openblas_get_num_threads64_", "scipy_openblas_set_num_threads64_"),
    ("scipy_openblas_get_num_threads", "scipy_openblas_set_num_threads"),
    ("openblas_get_num_threads64_", "openblas_set_num_threads64_"),
    ("openblas_get_num_threads", "openblas_set_num_threads"),
)

_lock = threading.Lock()
_users = 0
_before = 0


@functools.cache
def _library() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """(get, set) of the number of threads, found through the module that is linked to the library."""
    try:
        module = np._core._multiarray_umath  # type: ignore[attr-defined]
        library = ctypes.CDLL(module.__file__)
    except (AttributeError, OSError):
        return None
    for get, put in _NAMES:
        if hasattr(library, get) and hasattr(library, put):
            return getattr(library, get), getattr(library, put)
    return None


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Products of NumPy run on one thread inside; the number that was set before comes back with the last user.

    >>> with single_threaded():
    ...     product = np.ones((2, 2)) @ np.ones((2, 2))
    """
    global _users, _before
    functions = _library()
    if functions is None:
        yield
        return
    get, put = functions
    with _lock:
        if _users == 0:
            _before = get()
            put(1)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                put(_before)
