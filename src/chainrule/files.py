"""Files and folders that are there whole or not at all: written beside their place, flushed, renamed.

`replace_file` is for places that the user names, whose symbolic links mean something. `Folder` is for folders that are
ours, which may come from elsewhere: in them nothing is written or removed through a link.
Raises OSError as the system does; what it means to the user is said by the caller.
Knows nothing of what is written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterable

if sys.platform == "darwin":
    import fcntl

# Windows opens no folders: there paths are used. It does not let a folder be renamed in which a file is open.
_HOLDS = os.open in os.supports_dir_fd
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
# A pipe would let us wait for somebody at its other end.
_PLAIN = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"), (stat.S_ISDIR, "a folder"), (stat.S_ISREG, "a file"),
    (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
)  # fmt: skip


def replace_file(place: str | os.PathLike[str], data: bytes) -> None:
    """Let `data` be the content of the file, in one step: a crash leaves the old file or the new one.

    A symbolic link keeps pointing where it does; its target is what is replaced. What exists and is no
    regular file (a folder, a device) raises FileExistsError.
    """
    target = os.path.realpath(os.fspath(place))
    if os.path.exists(target) and not os.path.isfile(target):
        raise FileExistsError(errno.EEXIST, "not a regular file", target)
    parent, name = os.path.split(target)
    try:
        folder = Folder.open(parent)
    except PermissionError:  # a folder that takes files and does not show them
        folder = Folder(parent, None)
    with folder:
        folder.replace(name, data)


def is_temporary(name: str, of: Iterable[str]) -> bool:
    """Whether a file or folder is what a killed process was writing to be one of these."""
    match = re.fullmatch(r"\.(.+)\.[0-9a-f]{16}", name)
    return match is not None and match[1] in map(_shortened, of)


def _temporary(name: str) -> str:
    return f".{_shortened(name)}.{secrets.token_hex(8)}"


def _shortened(name: str) -> str:
    """A name has 255 bytes at most, and a letter up to four of them."""
    return name[:50]


class Folder:
    """A folder held open: what is done in it is done in this very folder, also after it was renamed.

    A `name` is that of a file or folder directly in it. Symbolic links are not followed where something is written or
    removed; files are regular ones (no pipe, no device), and those that are changed in place have no second name.

    path: what it was called when it was opened, for messages. Use it in a `with` statement, or `close` it.
    """

    def __init__(self, path: str, descriptor: int | None) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: str) -> Folder:
        """The folder under a path, links on the way included."""
        if not _HOLDS and not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", path)
        return cls(os.path.abspath(path), os.open(path, _FOLDER) if _HOLDS else None)

    def sub(self, name: str, *, make: bool = False, mode: int = 0o777) -> Folder:
        """A folder in this one; made if it is missing and `make` says so."""
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._at(name), mode, dir_fd=self._descriptor)
        status = self.status(name)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(
                errno.ENOTDIR, f"{name} is {_kind(status)} and no folder", self._at(name)
            )
        path = os.path.join(self.path, name)
        descriptor = os.open(name, _FOLDER | _NO_LINK, dir_fd=self._descriptor) if _HOLDS else None
        return Folder(path, descriptor)

    def status(self, name: str | None = None) -> os.stat_result:
        """What the system says of a file, or of the folder itself; of links, and not of what they lead to."""
        if name is None:
            return os.stat(self.path if self._descriptor is None else self._descriptor)
        return os.stat(self._at(name), dir_fd=self._descriptor, follow_symlinks=False)

    def has(self, name: str) -> bool:
        """Whether there is anything of that name."""
        try:
            self.status(name)
        except FileNotFoundError:
            return False
        return True

    def is_file(self, name: str) -> bool:
        """Whether there is a regular file, or a link to one."""
        try:
            return stat.S_ISREG(os.stat(self._at(name), dir_fd=self._descriptor).st_mode)
        except OSError:
            return False

    def names(self) -> list[str]:
        """What is in it."""
        return os.listdir(self.path if self._descriptor is None else self._descriptor)

    def open_file(self, name: str, flags: int, mode: int = 0o666) -> int:
        """A descriptor of a regular file; OSError for anything else. Never waits."""
        with contextlib.suppress(FileNotFoundError):  # first, because some things can be opened only once
            _require_file(name, self.status(name), flags)
        descriptor = os.open(self._at(name), flags | _NO_LINK | _PLAIN, mode, dir_fd=self._descriptor)
        try:
            _require_file(name, os.fstat(descriptor), flags)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def read(self, name: str) -> bytes:
        """The content of a regular file, or of one that a link leads to: reading harms nobody."""
        descriptor = os.open(self._at(name), os.O_RDONLY | _PLAIN, dir_fd=self._descriptor)
        with open(descriptor, "rb") as file:
            _require_file(name, os.fstat(descriptor), os.O_RDONLY)
            return file.read()

    def write(self, name: str, data: bytes, mode: int = 0o666, *, synced: bool = True) -> None:
        """Make a file that was not there, and wait until it is on the disk if `synced` says so."""
        descriptor = os.open(
            self._at(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN, mode, dir_fd=self._descriptor
        )
        with open(descriptor, "wb") as file:
            file.write(data)
            if synced:
                file.flush()
                os.fsync(file.fileno())

    def append(self, name: str, data: bytes) -> None:
        """Add to the end of a file."""
        with open(self.open_file(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as file:
            file.write(data)

    def replace(self, name: str, data: bytes) -> None:
        """Let `data` be the content of the file, in one step; a link of that name is replaced, not followed."""
        temporary = _temporary(name)
        try:
            self.write(temporary, data)
            self.rename(temporary, name)
        except BaseException:
            with contextlib.suppress(OSError):
                self.unlink(temporary)
            raise
        self.sync()

    def rename(self, old: str, new: str) -> None:
        """Give a file or folder another name; a file of that name is replaced."""
        os.replace(
            self._at(old), self._at(new), src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor
        )  # fmt: skip

    def unlink(self, name: str) -> None:
        """Remove a file, or a link and not what it leads to."""
        os.unlink(self._at(name), dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        """Remove a file, a link, or a folder with all that is in it, but nothing that links in it lead to."""
        if stat.S_ISDIR(self.status(name).st_mode):
            shutil.rmtree(self._at(name), dir_fd=self._descriptor)
        else:
            self.unlink(name)

    def sync(self) -> None:
        """A rename reaches the disk with its folder."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._descriptor)

    def is_at(self, path: str) -> bool:
        """Whether this very folder is what a path leads to now."""
        try:
            return os.path.samestat(self.status(), os.stat(path))
        except OSError:
            return False

    def whereabouts(self) -> str | None:
        """The path that the folder has now; None if it has been removed, or the system does not tell."""
        path = self.path
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                if sys.platform == "darwin":
                    answer = fcntl.fcntl(self._descriptor, fcntl.F_GETPATH, bytes(1024))
                    path = os.fsdecode(answer.rstrip(b"\0"))
                else:
                    path = os.readlink(f"/proc/self/fd/{self._descriptor}")
        return path if self.is_at(path) else None

    def is_removed(self) -> bool:
        """Whether it is gone from the disk, and not only renamed."""
        if self._descriptor is None:
            return not os.path.isdir(self.path)
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{self._descriptor}").endswith(" (deleted)"):
                return True
        return self.status().st_nlink == 0

    def reopen(self) -> None:
        """Hold what is under its path now: for a folder that was removed and made again."""
        again = Folder.open(self.path)
        self.close()
        self._descriptor = again._descriptor

    def close(self) -> None:
        """Let it go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _at(self, name: str) -> str:
        return name if self._descriptor is not None else os.path.join(self.path, name)


class NewFolder:
    """A folder in another that appears under its name only when `finish` is called, with all its files."""

    def __init__(self, parent: Folder, name: str) -> None:
        self._parent = parent
        self._name = name
        self._temporary = _temporary(name)
        self._folder = parent.sub(self._temporary, make=True)

    def write(self, name: str, data: bytes) -> None:
        """Add a file."""
        self._folder.write(name, data)

    def finish(self) -> None:
        """Let the folder appear. OSError if there is one of that name that is not empty."""
        self._folder.sync()
        self._parent.rename(self._temporary, self._name)
        self._folder.close()
        self._parent.sync()

    def discard(self) -> None:
        """Remove what was written, if the folder has not appeared."""
        self._folder.close()
        with contextlib.suppress(OSError):
            self._parent.remove(self._temporary)


def _require_file(name: str, status: os.stat_result, flags: int) -> None:
    """Raise OSError for what is no regular file, or may not be changed because it is another file too."""
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"{name} is {_kind(status)} and no regular file", name)
    if flags & (os.O_WRONLY | os.O_RDWR) and status.st_nlink > 1:
        raise OSError(errno.EMLINK, f"{name} is a hard link to a file that has another name too", name)


def _kind(status: os.stat_result) -> str:
    """What something is, in words."""
    return next((words for is_one, words in _KINDS if is_one(status.st_mode)), "a device")
