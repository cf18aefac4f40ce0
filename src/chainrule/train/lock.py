"""One process at a time in a folder: a file with the number of the process, locked by the operating system.

The system takes the lock back when the process ends, however it ends, so no lock is ever left behind.
Knows nothing of what the folder holds.
"""

from __future__ import annotations

import contextlib
import errno
import os

try:
    import fcntl
except ImportError:  # Windows has the other
    fcntl = None  # type: ignore[assignment]
    import msvcrt

LOCK = "lock"

_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)

# Windows locks bytes, and nobody else may read those: one far behind the number of the process.
_FAR = 1 << 20


class FolderLock:
    """Held from the call of `take` until that of `release`."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, LOCK)
        self._descriptor: int | None = None

    def take(self) -> str | None:
        """None, or the number of the process that holds the lock (empty if it is not known).

        Raises OSError where no file can be made. File systems without locks (some network drives) let everybody in.
        """
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            if not _lock(descriptor):
                holder = os.read(descriptor, 64).decode("ascii", "replace").strip()
                os.close(descriptor)
                return holder
            if _same_file(descriptor, self.path):
                break
            os.close(descriptor)  # its holder removed it between our two steps
        os.ftruncate(descriptor, 0)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the number
            os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return None

    def release(self) -> None:
        """Remove the file, while it is still locked, and give it back."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        os.close(self._descriptor)
        self._descriptor = None


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


def _same_file(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
