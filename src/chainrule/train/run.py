"""The run directory: a trained model with all that is needed to use it again, checked when it is read.

    runs/2025-11-21-iris/
        model.safetensors   the weights, under PyTorch's names
        run.json            data, preparation, model, settings, scores, versions; with checksums
        metrics.jsonl       one line for each epoch

Knows nothing of what the record says; see `tabular`.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from ..errors import RunError
from ..files import NewFolder
from ..tensor import Tensor
from .files import Path, from_bytes, read_file, readable, to_bytes

FORMAT = "chainrule run 1"
MODEL, RECORD, METRICS = "model.safetensors", "run.json", "metrics.jsonl"

_CHECKSUM = "sha256"


class StoredRun(NamedTuple):
    """What a run directory holds: the record of `run.json`, and the weights."""

    record: dict[str, Any]
    weights: dict[str, Tensor]


def reserve_folder(out: str | None, name: str) -> NewFolder:
    """A new folder for a run: `out` itself, or `runs/<date>-<name>` with a number behind it if that exists.

    Raises RunError, which names the option --out, if it exists with files in it or cannot be made.
    """
    place = out if out is not None else _free_place(name)
    if os.path.lexists(place) and not (os.path.isdir(place) and not os.listdir(place)):
        raise RunError(
            f"a run needs a folder of its own; got {place!r}, which exists. Name another with --out"
        )
    try:
        return NewFolder(place)
    except OSError as error:
        raise RunError(
            f"a run needs a folder that it can make; got {place!r}: {error.strerror}. Name a place that can be "
            "written to with --out"
        ) from error


def _free_place(name: str) -> str:
    slug = re.sub(r"[^\w.-]+", "-", readable(name)).strip("-.")[:60] or "run"
    first = os.path.join("runs", os.fsdecode(f"{datetime.date.today().isoformat()}-{slug}".encode()))
    place, number = first, 1
    while os.path.lexists(place):
        number += 1
        place = f"{first}-{number}"
    return place


def write_run(
    folder: NewFolder,
    record: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    history: Iterable[dict[str, float]],
) -> None:
    """Fill the folder and let it appear; RunError if the disk refuses."""
    model = to_bytes(weights)
    full = {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        **record,
        "files": {MODEL: hashlib.sha256(model).hexdigest()},
    }
    full[_CHECKSUM] = _digest(full)
    try:
        folder.write(MODEL, model)
        folder.write(METRICS, b"".join(json.dumps(one).encode() + b"\n" for one in history))
        folder.write(RECORD, json.dumps(full, ensure_ascii=False, indent=1, allow_nan=False).encode() + b"\n")
        folder.finish()
    except OSError as error:
        raise RunError(
            f"a run needs a folder that it can fill; got {folder.place!r}: {error.strerror}. Check the free space, or "
            "name another place with --out"
        ) from error


def read_run(place: Path) -> StoredRun:
    """The record and the weights of a run directory.

    Raises RunError for anything that is none, is of another version, or has changed since it was written.
    """
    name = os.fspath(place)
    if os.path.basename(name) in (MODEL, RECORD) and os.path.isfile(name):
        name = os.path.dirname(name) or "."
    path = os.path.join(name, RECORD)
    if not os.path.isfile(path):
        raise RunError(f"a run directory with {RECORD} is needed; got {name!r}{_runs_near(name)}")
    record = _read_record(path)
    model_path = os.path.join(name, MODEL)
    if not os.path.isfile(model_path):
        raise RunError(
            f"a run needs the {MODEL} that it was saved with; got {name!r} without it. Use another copy of the run, "
            "or train again"
        )
    data = read_file(model_path)
    if hashlib.sha256(data).hexdigest() != record["files"].get(MODEL):
        raise RunError(
            f"a run needs the {MODEL} that it was saved with; got another one in {name!r}: its checksum does not "
            "match. Use another copy of the run, or train again"
        )
    return StoredRun(record, from_bytes(data, model_path))


def _read_record(path: str) -> dict[str, Any]:
    try:
        record: Any = json.loads(read_file(path).decode("utf-8"))
    except ValueError as error:
        raise RunError(f"a run needs a readable {RECORD}; got {path!r}: {error}. Use another copy") from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise RunError(f"this version reads the format {FORMAT!r}; got {found!r} in {path!r}. Train again")
    if record.pop(_CHECKSUM, None) != _digest(record) or not isinstance(record.get("files"), dict):
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
    return f"{advice}. Name a folder that `chainrule train` made"


def _digest(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version(), "numpy": np.__version__, "platform": sys.platform}
    for package in ("chainrule", "pandas", "scikit-learn"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
