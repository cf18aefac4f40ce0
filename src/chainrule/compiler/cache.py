"""Machine code on disk: one file for each module, named by what it was made from, checked when it is read.

A file is written beside its place and renamed, so many processes can share the folder; a damaged one is made again;
a folder that cannot be used is no fault. Code is only taken from files that belong to this user.
Where: CHAINRULE_CACHE_DIR, else the user's cache folder; CHAINRULE_CACHE=0 switches it off.
Knows nothing of what the code does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sys
import time
from pathlib import Path

# The folder is cut to three quarters of this when it has grown beyond it: the oldest files go.
_LARGEST = 256 << 20
# Seconds after which a file that was not renamed belongs to a process that was killed.
_ABANDONED = 3600
_DIGEST = hashlib.sha256
_DIGEST_SIZE = _DIGEST().digest_size


def folder() -> Path | None:
    """Where the files are; None if there are none to be kept."""
    if os.environ.get("CHAINRULE_CACHE", "1") == "0":
        return None
    named = os.environ.get("CHAINRULE_CACHE_DIR")
    if named:
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return Path(base) / "chainrule" / "cache" if base else None
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "chainrule"
    with contextlib.suppress(RuntimeError):
        home = Path.home()
        return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "chainrule"
    return None


def key_of(*parts: str) -> str:
    """A name for code made from these texts."""
    found = _DIGEST()
    for part in parts:
        found.update(f"{len(part)}\0".encode() + part.encode())
    return found.hexdigest()


def load(key: str) -> bytes | None:
    """The code under this name; None if there is none that can be trusted."""
    place = folder()
    if place is None:
        return None
    path = place / f"{key}.o"
    try:
        with open(path, "rb") as file:
            if not _is_ours(os.fstat(file.fileno())):
                return None
            content = file.read()
    except OSError:
        return None
    digest, code = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
    if _DIGEST(key.encode() + code).digest() != digest:
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # used now: the oldest go first
    return code


def store(key: str, code: bytes) -> None:
    """Keep the code under this name, if that can be done."""
    place = folder()
    if place is None:
        return
    temporary = place / f".{key}.{secrets.token_hex(8)}"
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(_DIGEST(key.encode() + code).digest() + code)
        os.replace(temporary, place / f"{key}.o")
        _cut(place)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _is_ours(status: os.stat_result) -> bool:
    """Whether nobody else can have written the file."""
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def _cut(place: Path) -> None:
    """Let the oldest files go if there are too many bytes, and what was left half written long ago."""
    files = []
    for one in os.scandir(place):
        with contextlib.suppress(OSError):
            status = one.stat()
            if one.name.startswith(".") and status.st_mtime < time.time() - _ABANDONED:
                os.unlink(one.path)
                continue
            files.append((status.st_mtime, status.st_size, one.path))
    total = sum(size for _, size, _ in files)
    if total <= _LARGEST:
        return
    for _, size, path in sorted(files):
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size
        if total <= _LARGEST * 3 // 4:
            return
