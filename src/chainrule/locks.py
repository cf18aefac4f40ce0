"""Locks that a fork leaves free, and one lock for each set of cells that are written together.

The process that forks takes all locks first, so the child finds nothing half done and nothing held by a thread that
it does not have.
Knows nothing of what is locked.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable
from typing import Any, TypeVar

Lock = TypeVar("Lock", bound=Any)

#: In which order locks are taken: who holds one may wait for one that stands later here, never the other way.
FINDING, TRACING, RUNNING, COMPILING, LLVM = range(5)

_known: tuple[weakref.WeakSet[Any], ...] = tuple(weakref.WeakSet() for _ in range(5))
_taken: list[Any] = []

_of_owner: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_giving = threading.Lock()


def lock(made: Lock, order: int) -> Lock:
    """The lock, known from here on to whoever forks."""
    _known[order].add(made)
    return made


class Several:
    """Several locks as one, always taken in the same order."""

    def __init__(self, locks: Iterable[Any]) -> None:
        self._locks = sorted(locks, key=id)

    def __enter__(self) -> None:
        for one in self._locks:
            one.acquire()

    def __exit__(self, *_: object) -> None:
        for one in reversed(self._locks):
            one.release()


def lock_of(owners: Iterable[Any]) -> Any:
    """A lock that excludes every other one made for some of these owners; a new one where there are none."""
    owners = list(owners)
    with _giving:
        known = {id(found): found for one in owners if (found := _of_owner.get(one)) is not None}
        if not known:
            made = lock(threading.Lock(), RUNNING)
            known = {id(made): made}
        first = next(iter(known.values()))
        for one in owners:
            _of_owner.setdefault(one, first)
    return first if len(known) == 1 else Several(known.values())


def _before_fork() -> None:
    for group in _known:
        for one in sorted(group, key=id):
            one.acquire()
            _taken.append(one)


def _after_fork() -> None:
    while _taken:
        _taken.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
