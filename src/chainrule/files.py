"""Files and folders that are there whole or not at all: written beside their place, flushed, renamed.

Raises OSError as the system does; what it means to the user is said by the caller.
Knows nothing of what is written.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil


def replace_file(place: str | os.PathLike[str], data: bytes) -> None:
    """Let `data` be the content of the file, in one step: a crash leaves the old file or the new one.

    A symbolic link keeps pointing where it does; its target is what is replaced. What exists and is no
    regular file (a folder, a device) raises FileExistsError.
    """
    target = os.path.realpath(os.fspath(place))
    if os.path.exists(target) and not os.path.isfile(target):
        raise FileExistsError(17, "not a regular file", target)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(8)}")
    try:
        _write_synced(temporary, data)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(folder)


class NewFolder:
    """A folder that appears under its name only when `finish` is called, with all its files.

    It is made beside its place at once, so that a place that cannot be written to is known before work is done.
    """

    def __init__(self, place: str) -> None:
        self.place = os.path.abspath(place)
        parent, name = os.path.split(self.place)
        self._temporary = os.path.join(parent, f".{name[:100]}.{secrets.token_hex(8)}")
        self._made: list[str] = []
        while not os.path.isdir(parent):
            self._made.append(parent)
            parent = os.path.dirname(parent)
        try:
            for missing in reversed(self._made):
                os.mkdir(missing)
            os.mkdir(self._temporary)
        except OSError:
            self.discard()
            raise

    def write(self, name: str, data: bytes) -> None:
        """Add a file."""
        _write_synced(os.path.join(self._temporary, name), data)

    def finish(self) -> None:
        """Let the folder appear. An empty folder of that name is replaced, anything else raises OSError."""
        sync_folder(self._temporary)
        if os.path.isdir(self.place):
            os.rmdir(self.place)
        os.rename(self._temporary, self.place)
        sync_folder(os.path.dirname(self.place))

    def discard(self) -> None:
        """Remove what was written, if the folder has not appeared, and the folders around it that were made for it."""
        shutil.rmtree(self._temporary, ignore_errors=True)
        for made in self._made:
            with contextlib.suppress(OSError):  # not empty: somebody uses it
                os.rmdir(made)


def _write_synced(path: str, data: bytes) -> None:
    # `open` and not `tempfile`, whose files nobody else may read.
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: str) -> None:
    """A rename reaches the disk with its folder. Windows cannot open folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
