"""One process at a time in a folder: a file with the number of the process, locked by the operating system.

The system takes the lock back when the process ends, however it ends, so no lock is ever left behind.
Knows nothing of what the folder holds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re

from ..files import Folder

try:
    import fcntl
except ImportError:  # Windows has the other
    fcntl = None  # type: ignore[assignment]
    import msvcrt

LOCK = "lock"

# The longest number of a process, and a line's end.
_LONGEST = 24

_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)

# Windows locks bytes, and nobody else may read those: one far behind the number of the process.
_FAR = 1 << 20


class FolderLock:
    """Held from the call of `take` until that of `release`. A file that is no lock of ours is never written to."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def take(self) -> str | None:
        """None, or the number of the process that holds the lock (empty if it is not known).

        Raises OSError where no file can be made, or the file of that name is something else. File systems without locks
        (some network drives) let everybody in.
        """
        while True:
            descriptor = self._folder.open_file(LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                content = os.read(descriptor, _LONGEST + 1)
                if not re.fullmatch(rb"[0-9]*\n?", content) or len(content) > _LONGEST:
                    raise FileExistsError(
                        errno.EEXIST, f"its file {LOCK} is not one that a training made", LOCK
                    )
                free = _lock(descriptor)
                if free and self._is_there(descriptor):
                    break
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            if not free:
                return content.decode("ascii").strip()
            # else its holder removed it between our two steps
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the number
            os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return None

    def release(self) -> None:
        """Remove the file, while it is still locked, and give it back."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            if self._is_there(self._descriptor):
                self._folder.unlink(LOCK)
        os.close(self._descriptor)
        self._descriptor = None

    def _is_there(self, descriptor: int) -> bool:
        """Whether the file that we hold is still the one in the folder."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._folder.status(LOCK))
        except FileNotFoundError:
            return False


def _lock(descriptor: int) -> bool:
    """Whether the lock was free."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError as error:
        return error.errno not in _TAKEN
    return True
