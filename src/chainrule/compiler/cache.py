"""Machine code on disk: one file for each module, named by what it was made from, checked when it is read.

Where: the folder `code-v1` in CHAINRULE_CACHE_DIR, else in `chainrule` in the user's cache folder (XDG_CACHE_HOME,
`~/.cache`; as each system has it); CHAINRULE_CACHE=0 switches it off. Paths that are not absolute are ignored: they
would mean another folder in each working directory, and one of them may have come with somebody's files.

Whoever can write to what we run can run what they like as us. So code is only taken from regular files of this user
that nobody else may write to, in a folder of which the same is true, in another of which the same is true; through no
link but one of the user's own to the outer folder. Only names that are ours are ever written or removed: the user may
name any folder.

A file is written beside its place and renamed, so many processes can share the folder; a damaged one is made again;
a folder that cannot be used is no fault.
Knows nothing of what the code does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
import sys
import time
from pathlib import Path

from ..errors import warn
from ..files import Folder

# A folder of our own in the one that was named; another form of files will have another name.
_OWN = "code-v1"
_CODE = re.compile(r"[0-9a-f]{64}\.o")
_TEMPORARY = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{16}\.part")
# The folder is cut to three quarters of this when it has grown beyond it: the oldest files go.
_LARGEST = 256 << 20
# Seconds after which a file that was not renamed belongs to a process that was killed.
_ABANDONED = 3600
# Bytes that this process may still write to a folder before it counts again what lies there, by device and inode.
_ALLOWED: dict[tuple[int, int], int] = {}
# Relative paths that a warning has named.
_REPORTED: set[str] = set()
_DIGEST = hashlib.sha256
_DIGEST_SIZE = _DIGEST().digest_size


def folder() -> Path | None:
    """Where the files are; None if there are none to be kept."""
    base = _base()
    return None if base is None else base / _OWN


def _base() -> Path | None:
    """The folder that the user, or the system, has for this."""
    if os.environ.get("CHAINRULE_CACHE", "1") == "0":
        return None
    named = os.environ.get("CHAINRULE_CACHE_DIR")
    if named:
        if os.path.isabs(named):
            return Path(named)
        _report_relative(named)
    place: Path | None = None
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    if base and os.path.isabs(base):
        place = Path(base) / "chainrule"
        return place / "cache" if sys.platform == "win32" else place
    if sys.platform == "win32":
        return None
    with contextlib.suppress(RuntimeError):
        caches = "Library/Caches" if sys.platform == "darwin" else ".cache"
        place = Path.home() / caches / "chainrule"
    return place if place is not None and place.is_absolute() else None


def _report_relative(named: str) -> None:
    """Say it once."""
    if named in _REPORTED:
        return
    _REPORTED.add(named)
    warn(
        f"CHAINRULE_CACHE_DIR must be an absolute path; got {named!r}, which is ignored: machine code is kept where it "
        "would be without. Write the whole path, or CHAINRULE_CACHE=0 to keep none"
    )


def key_of(*parts: str) -> str:
    """A name for code made from these texts."""
    found = _DIGEST()
    for part in parts:
        found.update(f"{len(part)}\0".encode() + part.encode())
    return found.hexdigest()


def load(key: str) -> bytes | None:
    """The code under this name; None if there is none that can be trusted."""
    try:
        with _opened(make=False) as place:
            return _load(place, key)
    except OSError:
        return None


def _load(place: Folder, key: str) -> bytes | None:
    name = f"{key}.o"
    descriptor = place.open_file(name, os.O_RDONLY)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        # A second name may be somebody else's.
        if not _is_ours(status) or status.st_nlink > 1:
            return None
        content = file.read()
        digest, code = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
        if _DIGEST(key.encode() + code).digest() == digest:
            with contextlib.suppress(OSError, TypeError):  # Windows wants a path
                os.utime(descriptor)  # used now: the oldest go first
            return code
    place.unlink(name)
    return None


def store(key: str, code: bytes) -> None:
    """Keep the code under this name, if that can be done."""
    temporary = f"{key}.{secrets.token_hex(8)}.part"
    with contextlib.suppress(OSError), _opened(make=True) as place:
        try:
            place.write(temporary, _DIGEST(key.encode() + code).digest() + code, 0o600, synced=False)
            place.rename(temporary, f"{key}.o")
        except OSError:
            place.unlink(temporary)
            raise
        status = place.status()
        identity = (status.st_dev, status.st_ino)
        _ALLOWED[identity] = _ALLOWED.get(identity, 0) - len(code)
        if _ALLOWED[identity] < 0:
            # Others write there too: an eighth of what is free is written unseen.
            _ALLOWED[identity] = max(0, _LARGEST - _cut(place)) // 8


def _opened(make: bool) -> Folder:
    """The folder of the files, held open. OSError if there is none that can be trusted."""
    base = _base()
    if base is None:
        raise FileNotFoundError
    if make:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = os.lstat(base)
    if stat.S_ISLNK(status.st_mode) and hasattr(os, "geteuid") and status.st_uid not in (0, os.geteuid()):
        raise PermissionError
    with Folder.open(str(base)) as outer:
        _require_ours(outer)
        inner = outer.sub(_OWN, make=make, mode=0o700)
    try:
        _require_ours(inner)
    except OSError:
        inner.close()
        raise
    return inner


def _require_ours(place: Folder) -> None:
    if not _is_ours(place.status()):
        raise PermissionError


def _is_ours(status: os.stat_result) -> bool:
    """Whether nobody else can have written the file or folder."""
    if not hasattr(os, "geteuid"):
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _cut(place: Folder) -> int:
    """Let the oldest files go if there are too many bytes, and what was left half written long ago; ours alone.

    Returns how many bytes there are then.
    """
    files = []
    for name in place.names():
        whole = _CODE.fullmatch(name)
        if not whole and not _TEMPORARY.fullmatch(name):
            continue
        with contextlib.suppress(OSError):
            status = place.status(name)
            if not stat.S_ISREG(status.st_mode):
                continue
            if whole:
                files.append((status.st_mtime, status.st_size, name))
            elif status.st_mtime < time.time() - _ABANDONED:
                place.unlink(name)
    total = sum(size for _, size, _ in files)
    if total <= _LARGEST:
        return total
    for _, size, name in sorted(files):
        with contextlib.suppress(OSError):
            place.unlink(name)
        total -= size
        if total <= _LARGEST * 3 // 4:
            break
    return total
