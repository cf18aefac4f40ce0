"""Files that a command writes because the user names them: never one that a run needs.

Knows run directories by their names; knows nothing of what is written.
"""

from __future__ import annotations

from ..train.files import readable
from ..train.run import owning_run
from .usage import UsageError


def refuse_own_files(option: str, path: str, run: str | None = None) -> None:
    """Raise UsageError if `path` is a file of a run, by whatever links. run: the one at hand, if there is one."""
    owner = owning_run(path, run)
    if owner is not None:
        raise UsageError("out_in_run", option=option, path=readable(path), run=readable(owner))
