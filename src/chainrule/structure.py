"""What was changed about modules, optimizers and hooks, so that whoever relies on it can ask what is different now.

Every write of an attribute counts up one number for the whole process. What was learnt at one number holds as long as
everything written since then is as it was.
Knows nothing of modules and optimizers; holds nothing of theirs alive.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from itertools import islice
from typing import Any, NamedTuple

# Writes that are remembered. What is older than that counts as changed.
_MOST = 4096

#: The name under which an object says that it has just been made.
BORN = "(made)"

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


class Change(NamedTuple):
    """One write: whose attribute, how it is called, what stood there before and what stands there now.

    `before` and `now` are marks that can be compared with `_same`; `shown` says in words what they were.
    """

    owner: int
    name: str
    before: Any
    now: Any
    shown: tuple[str, str]


_version = 0
_journal: deque[Change] = deque(maxlen=_MOST)
_lock = threading.Lock()


def structure_version() -> int:
    """A number that grows whenever a module, an optimizer or what requires grad may have changed.

    What was learnt about their structure holds as long as it stays the same.
    """
    return _version


def bump_structure(owner: Any = None, name: str = "", before: Any = None, now: Any = None) -> None:
    """Say that a module, an optimizer or what requires grad may have changed.

    Of which object, under which name for people, from what (... for nothing) to what. Without an object: something
    of which only the name is known.
    """
    global _version
    if owner is None or name is BORN:
        change = Change(id(owner), name, None, None, ("", ""))
    else:
        change = Change(id(owner), name, _mark(before), _mark(now), (_shown(before), _shown(now)))
    with _lock:
        _journal.append(change)
        _version += 1


def changes_since(version: int, but: frozenset[tuple[int, str]] = frozenset()) -> list[str] | None:
    """What is different from what it was at that number, in words; None where that is no longer known.

    but: attributes that do not count, by the identity of their owner and their name.
    """
    different = _different(version)
    if different is None:
        return None
    found = [one for one in different if (one[0].owner, one[0].name.rpartition(".")[2]) not in but]
    return list(dict.fromkeys(_told(*one) for one in found))


def can_return(version: int) -> bool:
    """Whether things can become again what they were at that number: only numbers, flags and texts were changed."""
    different = _different(version)
    return different is not None and all(isinstance(first.before, tuple) for first, _ in different)


def _different(version: int) -> list[tuple[Change, Change]] | None:
    """The first and the last write of everything that is different now."""
    with _lock:
        count = _version - version
        if count > len(_journal):
            return None
        recent = list(islice(_journal, len(_journal) - count, None))
    first: dict[tuple[int, str], Change] = {}
    last: dict[tuple[int, str], Change] = {}
    born: set[int] = set()
    for one in recent:
        if one.name is BORN:
            born.add(one.owner)  # what is new matters only where something older was made to name it
        elif one.owner not in born:
            first.setdefault((one.owner, one.name), one)
            last[one.owner, one.name] = one
    return [(one, last[key]) for key, one in first.items() if not _same(one.before, last[key].now)]


def _told(first: Change, last: Change) -> str:
    before, now = first.shown[0], last.shown[1]
    if not now:
        return last.name or "an attribute of a module or an optimizer was written"
    return f"{last.name}: another {now}" if before == now else f"{last.name}: {before} → {now}"


def _mark(value: Any) -> Any:
    """Something by which a value can be told from another one, without holding it; None if there is nothing."""
    if type(value) in _PLAIN:  # a number that is traced says of itself that it is one, and has no value
        return type(value), value
    try:
        return weakref.ref(value)
    except TypeError:
        return None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, weakref.ref) and isinstance(other, weakref.ref):
        held = one()
        return held is not None and held is other()
    return isinstance(one, tuple) and isinstance(other, tuple) and one == other


def _shown(value: Any) -> str:
    if value is ...:
        return "nothing"
    if isinstance(value, _PLAIN):
        text = repr(value)
        return text if len(text) <= 40 else text[:37] + "..."
    return type(value).__name__
