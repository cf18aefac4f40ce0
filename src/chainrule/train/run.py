"""The run directory: a training with all that is needed to go on with it and to use it, checked when it is read.

    runs/2025-11-21-iris/
        run.json            what is trained, on what, where and how far; with checksums
        metrics.jsonl       one line for each epoch, as it ends
        checkpoints/        the newest states of the training; see `checkpoint`
        model.safetensors   the weights at the end, under PyTorch's names
        lock                while a process trains

`read_run` reads every directory whose training has ended, that of a table too: it has more entries in its record.
Knows nothing of what the record says; see `tabular` and `config`.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import math
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from ..errors import RunError, warn
from ..files import Folder, is_temporary
from ..tensor import Tensor
from .files import Path, from_bytes, read_file, readable, to_bytes
from .lock import LOCK, FolderLock

FORMAT = "chainrule run 1"
MODEL, RECORD, METRICS, CHECKPOINTS = "model.safetensors", "run.json", "metrics.jsonl", "checkpoints"

RUNNING = "running"

_CHECKSUM = "sha256"
_FILES = (RECORD, METRICS, MODEL)
_OURS = (*_FILES, CHECKPOINTS)


class StoredRun(NamedTuple):
    """What a run directory holds: the record of `run.json`, the weights, and the history."""

    record: dict[str, Any]
    weights: dict[str, Tensor]
    history: list[dict[str, float]]


class RunFolder:
    """A run directory while a training fills it; one process at a time.

    The folder is held open: if it is renamed meanwhile, the training goes on in it, and says so. Nothing is written or
    removed through symbolic links in it.

    place: the folder. extra: more entries of the record in `run.json`, such as those of a table; they win over those
    of the same names. Entries can be added by `update` until it is closed. held: a training does not close it; whoever
    made it does, by `close`.
    """

    def __init__(self, place: Path, extra: Mapping[str, Any] | None = None, *, held: bool = False) -> None:
        self.place = os.path.abspath(os.fspath(place))
        self.record: dict[str, Any] = {}
        self.held = held
        self._extra = dict(extra or {})
        self._made: list[str] = []
        self._folder: Folder | None = None
        self._lock: FolderLock | None = None
        self._is_lost = False

    @property
    def folder(self) -> Folder:
        """The folder itself, while it is open."""
        if self._folder is None:
            raise RunError(
                f"a run is written to while its folder is open; got {self.place!r}, which is closed"
            )
        return self._folder

    def open(self, resume: bool) -> bool:
        """Make the folder and lock it; whether it has a run to go on with.

        Raises RunError if another process is at it, if it cannot be made, has other files, or has a run and `resume`
        does not say that it is to be continued.
        """
        owner = owning_run(self.place)
        if owner is not None:
            raise RunError(
                f"a run needs a folder of its own; got {self.place!r}, which belongs to the run in {owner!r}. Name "
                "another folder"
            )
        try:
            self._enter()
            return self._look(resume)
        except OSError as error:
            self.close()
            raise self.refused(error) from error
        except BaseException:
            self.close()
            raise

    def _enter(self) -> None:
        """Make the folder, hold it open and lock it."""
        missing = self.place
        while not os.path.lexists(missing):
            self._made.append(missing)
            missing = os.path.dirname(missing)
        os.makedirs(self.place, exist_ok=True)
        self._folder = Folder.open(self.place)
        self._lock = FolderLock(self._folder)
        holder = self._lock.take()
        if holder is not None:
            by = f"process {holder}" if holder else "another process"
            raise RunError(
                f"one process at a time trains in a folder; got {self.place!r}, where {by} is at work. Wait for it, or "
                "name another folder"
            )

    def _look(self, resume: bool) -> bool:
        begun = self.folder.is_file(RECORD)
        if begun and not resume:
            raise RunError(
                f"a new run needs a folder of its own; got {self.place!r}, which has one. Write resume=True to go on "
                "with it, or name another folder"
            )
        others = {name for name in self.folder.names() if not name.startswith(".")} - {*_OURS, LOCK}
        if not begun and others:
            raise RunError(
                f"a run needs a folder of its own; got {self.place!r}, which has {min(others)!r} and no {RECORD}. Name "
                "another folder"
            )
        if self.folder.has(CHECKPOINTS):
            self.folder.sub(CHECKPOINTS).close()  # OSError if it is a link, or no folder
        self._remove_leftovers()
        if begun:
            path = os.path.join(self.place, RECORD)
            try:
                self.record = _read_record(path)
            except RunError as error:
                advice = f". Remove {RECORD} to go on from the checkpoints alone" if resume else ""
                raise RunError(f"{error.message}{advice}") from error
        return begun

    def _remove_leftovers(self) -> None:
        """Files that a process was writing when it was killed; nobody else writes here, because of the lock."""
        for name in self.folder.names():
            if is_temporary(name, _FILES):
                with contextlib.suppress(OSError):
                    self.folder.unlink(name)

    def start(self, **entries: Any) -> None:
        """Write the record of a run that begins, or whose record was lost. Raises RunError if the disk refuses."""
        try:
            self.folder.sub(CHECKPOINTS, make=True).close()
            self._write_record(
                {
                    "format": FORMAT,
                    "created": _now(),
                    "versions": versions(),
                    "environment": environment(),
                    **entries,
                    **self._extra,
                    "state": RUNNING,
                    "files": {},
                }
            )
            self.folder.replace(METRICS, b"")
        except OSError as error:
            raise self.refused(error) from error

    def settle(self) -> None:
        """Notice that the folder was renamed or removed, and say so. Raises OSError where there is no way to go on.

        What was renamed is still ours, and is written to under its new name. What was removed is made again.
        """
        if self.folder.is_at(self.place):
            return
        if self.folder.is_removed():
            self._begin_again()
            return
        place = self.folder.whereabouts()
        if place == self.place or self._is_lost:  # back at this moment; or a warning has said it
            return
        now = "another, which the system does not tell" if place is None else f"the name {place!r}"
        warn(
            f"a run folder must keep its name while a training writes to it; got {self.place!r}, which has {now} now. "
            "Training goes on in the same folder, and nothing is lost: use its new name from now on"
        )
        self._is_lost = place is None
        if place is not None:
            self.place = self.folder.path = place

    def _begin_again(self) -> None:
        """Make a folder that was removed once more, with the record that it had."""
        if os.path.lexists(self.place):
            raise FileExistsError(
                errno.EEXIST, "it was removed, and something else has its place", self.place
            )
        os.makedirs(self.place)
        assert self._lock is not None
        self._lock.release()
        self.folder.reopen()
        if self._lock.take() is not None:
            raise FileExistsError(
                errno.EEXIST, "it was removed, and another training has its place", self.place
            )
        self.folder.replace(RECORD, _record_bytes(self.record))
        warn(
            f"a run folder must stay while a training writes to it; got {self.place!r}, which was removed. It was made "
            "again; what it held before is gone, but for what the training still knows"
        )

    def update(self, **entries: Any) -> None:
        """Add entries to the record, or replace them. Raises OSError."""
        self._write_record({**self.record, **entries})

    def note_epoch(self, record: Mapping[str, float]) -> None:
        """Add a line to the metrics. Raises OSError."""
        self.settle()
        self.folder.append(METRICS, _line(record))

    def write_metrics(self, history: Iterable[Mapping[str, float]]) -> None:
        """Let the metrics be those of `history`: after a resumption, what came after the checkpoint is cut off."""
        self.folder.replace(METRICS, b"".join(map(_line, history)))

    def finish(
        self, state: str, weights: Mapping[str, Any], history: Iterable[Mapping[str, float]], **entries: Any
    ) -> None:
        """Write the weights, the whole history, and a record that vouches for both. Raises OSError."""
        model, lines = to_bytes(weights), b"".join(map(_line, history))
        self.settle()
        self.folder.replace(MODEL, model)
        self.folder.replace(METRICS, lines)
        files = {MODEL: hashlib.sha256(model).hexdigest(), METRICS: hashlib.sha256(lines).hexdigest()}
        self.update(**entries, state=state, ended=_now(), files=files)

    def close(self) -> None:
        """Let others in."""
        if self._lock is not None:
            self._lock.release()
        if self._folder is not None:
            self._folder.close()
        self._folder = self._lock = None

    def discard(self) -> None:
        """Close it, and remove the run as far as it came, with the folders that were made for it; nothing else."""
        if self._folder is not None:
            for name in self._folder.names():
                if name in _OURS or is_temporary(name, _FILES):
                    with contextlib.suppress(OSError):
                        self._folder.remove(name)
        self.close()
        for made in self._made:
            with contextlib.suppress(OSError):  # not empty: somebody uses it
                os.rmdir(made)

    def _write_record(self, record: dict[str, Any]) -> None:
        self.settle()
        self.folder.replace(RECORD, _record_bytes(record))
        self.record = record

    def note_state(self, state: str) -> None:
        """Note how the training stands, as far as the disk allows it."""
        with contextlib.suppress(OSError):
            self.update(state=state)

    def refused(self, error: OSError, more: str = "") -> RunError:
        """The error for a disk that refuses. more: what else there is to say."""
        return RunError(
            f"a run needs a folder that it can write to; got {self.place!r}: {error.strerror}. {advice_for(error)}, or "
            f"name another folder{more}"
        )


def advice_for(error: OSError) -> str:
    """What to do about a file or folder that cannot be written."""
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EMLINK, errno.EISDIR, errno.ELOOP):
        return "Move away what is in its place"
    return "Check the free space and the permissions"


# ------------------------------------------------------------------------------------------- places


def owning_run(path: Path, run: Path | None = None) -> str | None:
    """The run directory that a path belongs to, by whatever links it leads there; None if to none.

    To a run belong the files that it writes itself, whether they exist or not, and all of its checkpoints; not what
    else somebody puts into its folder. run: a directory whose files are known by hard links too.
    """
    inside, name = os.path.split(os.path.realpath(path))
    while name:
        if name.casefold() in (*_OURS, LOCK) and _has_run(inside):
            return inside
        inside, name = os.path.split(inside)
    return None if run is None or not _is_linked(path, os.fspath(run)) else os.fspath(run)


def _has_run(folder: str) -> bool:
    """Whether a folder has a run, whole or not; others use the name `run.json` too."""
    path = os.path.join(folder, RECORD)
    if not os.path.isfile(path):
        return False
    try:
        return FORMAT.encode() in read_file(path) or os.path.lexists(os.path.join(folder, CHECKPOINTS))
    except RunError:
        return True


def _is_linked(path: Path, run: str) -> bool:
    """Whether a path is another name of one of the run's files."""
    try:
        sought = os.stat(path)
    except OSError:
        return False
    if os.path.isfile(run):  # its record or its weights name a run too
        run = os.path.dirname(run)
    files = [os.path.join(run, name) for name in _FILES]
    for folder, _, names in os.walk(os.path.join(run, CHECKPOINTS)):
        files += [os.path.join(folder, name) for name in names]
    return any(os.path.isfile(file) and os.path.samestat(sought, os.stat(file)) for file in files)


def free_place(name: str) -> str:
    """`runs/<date>-<name>`, with a number behind it if that exists."""
    slug = re.sub(r"[^\w.-]+", "-", readable(name)).strip("-.")[:60] or "run"
    first = os.path.join("runs", os.fsdecode(f"{datetime.date.today().isoformat()}-{slug}".encode()))
    place, number = first, 1
    while os.path.lexists(place):
        number += 1
        place = f"{first}-{number}"
    return place


# ------------------------------------------------------------------------------------------- reading


def read_run(place: Path) -> StoredRun:
    """The record, the weights and the history of a run directory whose training has ended.

    Raises RunError for anything that is none, is of another version, or has changed since it was written.
    """
    name, record = read_record(place)
    if MODEL not in record["files"]:
        raise RunError(
            f"a run that has ended is needed; got {name!r}, whose training did not come to its end (its state is "
            f"{record.get('state')!r}). Go on with it: fit(…, folder={name!r}, resume=True)"
        )
    model = _checked_file(name, record, MODEL)
    lines = _checked_file(name, record, METRICS) if METRICS in record["files"] else b""
    return StoredRun(record, from_bytes(model, os.path.join(name, MODEL)), read_history(lines))


def read_record(place: Path) -> tuple[str, dict[str, Any]]:
    """(the folder, the record in its `run.json`). Raises RunError for anything that is none, or has changed."""
    name = os.fspath(place)
    if os.path.basename(name) in (MODEL, RECORD) and os.path.isfile(name):
        name = os.path.dirname(name) or "."
    path = os.path.join(name, RECORD)
    if not os.path.isfile(path):
        raise RunError(f"a run directory with {RECORD} is needed; got {name!r}{_runs_near(name)}")
    return name, _read_record(path)


def read_history(lines: bytes) -> list[dict[str, float]]:
    """The epochs in the bytes of `metrics.jsonl`. A number that JSON has no word for comes back as NaN."""
    found = (json.loads(line) for line in lines.splitlines())
    return [{key: math.nan if value is None else value for key, value in one.items()} for one in found]


def _checked_file(folder: str, record: dict[str, Any], name: str) -> bytes:
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        raise RunError(
            f"a run needs the {name} that it was saved with; got {folder!r} without it. Use another copy of the run, "
            "or train again"
        )
    data = read_file(path)
    if hashlib.sha256(data).hexdigest() != record["files"].get(name):
        raise RunError(
            f"a run needs the {name} that it was saved with; got another one in {folder!r}: its checksum does not "
            "match. Use another copy of the run, or train again"
        )
    return data


def _read_record(path: str) -> dict[str, Any]:
    try:
        record: Any = json.loads(read_file(path).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"a run needs a readable {RECORD}; got {path!r}: {error}. Use another copy") from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise RunError(f"this version reads the format {FORMAT!r}; got {found!r} in {path!r}. Train again")
    if record.pop(_CHECKSUM, None) != digest(record) or not isinstance(record.get("files"), dict):
        raise RunError(
            f"a run needs {RECORD} as it was saved; got {path!r}, which does not match its checksum. "
            "Use another copy of the run, or train again"
        )
    return dict(record)


def _runs_near(name: str) -> str:
    if not os.path.exists(name):
        advice = ", which does not exist"
    elif os.path.isdir(name):
        advice = ", a folder without it"
        inside = sorted(one for one in os.listdir(name) if os.path.isfile(os.path.join(name, one, RECORD)))
        if inside:
            return f"{advice}. Did you mean {os.path.join(name, inside[-1])!r}?"
    else:
        advice = ", a file"
    return f"{advice}. Name a folder that `chainrule train` made, or fit(…, folder=…)"


# ------------------------------------------------------------------------------------------- what is written


def digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record, whatever the order of its keys."""
    text = json.dumps(record, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def plain(value: Any) -> Any:
    """The value as JSON has it: None for NaN and infinity, which JSON has no words for."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return readable(value) if isinstance(value, str) else value


def _record_bytes(record: Mapping[str, Any]) -> bytes:
    full = plain(record)
    full.pop(_CHECKSUM, None)
    full[_CHECKSUM] = digest(full)
    text: str = json.dumps(full, ensure_ascii=False, indent=1, allow_nan=False)
    return text.encode() + b"\n"


def _line(record: Mapping[str, float]) -> bytes:
    return json.dumps(plain(record), ensure_ascii=False).encode() + b"\n"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version(), "numpy": np.__version__, "platform": sys.platform}
    for package in ("chainrule", "pandas", "scikit-learn"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """The machine, as far as numbers or speed depend on it."""
    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "threads": {name: os.environ[name] for name in _THREADS if name in os.environ},
    }


_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def _processor() -> str:
    """The processor's own name where the system tells it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
