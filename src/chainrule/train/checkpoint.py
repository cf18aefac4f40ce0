"""Checkpoints: states of a training on the disk, each there whole or not at all, checked before they are used.

    checkpoints/
        000007/
            state.safetensors   all numbers and the skeleton that they stand in
            checkpoint.json     where in the training this is; the checksum of the other file, and its own

A checkpoint is written beside its place, flushed to the disk, and renamed.
Knows nothing of what a state holds.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import ChainruleError, RunError
from ..files import NewFolder, sync_folder
from .files import from_bytes, read_file, to_bytes
from .run import digest

FORMAT = "chainrule checkpoint 1"
STATE, FACTS = "state.safetensors", "checkpoint.json"

_DAMAGED = ".damaged"


class Checkpoint(NamedTuple):
    """A state that was read, what is said of it, and the name of its folder."""

    state: dict[str, Any]
    facts: dict[str, Any]
    name: str


class Checkpoints:
    """The newest `keep` checkpoints in a folder."""

    def __init__(self, folder: str, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def names(self) -> list[str]:
        """The folders of the checkpoints, the newest first."""
        try:
            found = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted((one for one in found if re.fullmatch(r"\d{6,}", one)), key=int, reverse=True)

    def write(self, state: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
        """Write a state as the newest checkpoint, and remove the oldest beyond `keep`; the name of the new one.

        Raises OSError if the disk refuses; then everything is as it was before.
        """
        data = to_bytes(state)
        full = {
            "format": FORMAT,
            "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **facts,
            "files": {STATE: hashlib.sha256(data).hexdigest()},
        }
        full["sha256"] = digest(full)
        names = self.names()
        name = f"{int(names[0]) + 1 if names else 1:06d}"
        os.makedirs(self.folder, exist_ok=True)
        folder = NewFolder(os.path.join(self.folder, name))
        try:
            folder.write(STATE, data)
            folder.write(FACTS, json.dumps(full, indent=1).encode() + b"\n")
            folder.finish()
        except BaseException:
            folder.discard()
            raise
        for old in names[max(0, self.keep - 1) :]:
            self._remove(old)
        return name

    def _remove(self, name: str) -> None:
        """Take a checkpoint away at once, by a rename, so that a kill leaves no half of it under its name."""
        gone = os.path.join(self.folder, f".{name}.removed")
        with contextlib.suppress(OSError):
            os.rename(os.path.join(self.folder, name), gone)
            shutil.rmtree(gone)

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """(the newest checkpoint that is whole, what is wrong with each newer one); (None, []) if there is none.

        Raises RunError if there are checkpoints and none is whole.
        """
        faults: list[str] = []
        names = self.names()
        for name in names:
            try:
                return self.read(name), faults
            except RunError as error:
                faults.append(error.message)
        if names:
            raise RunError(
                f"resume=True needs a checkpoint that is whole; got {len(names)} in {self.folder!r}, none of them: "
                f"{'; '.join(faults)}. Use another copy of the run, or start a new one in another folder"
            )
        return None, []

    def read(self, name: str) -> Checkpoint:
        """One checkpoint, checked byte by byte. Raises RunError, which says what is wrong with it."""
        place = os.path.join(self.folder, name)
        try:
            facts = json.loads(read_file(os.path.join(place, FACTS)).decode())
            data = read_file(os.path.join(place, STATE))
        except RunError as error:
            raise RunError(f"checkpoint {name} is not whole ({error.message})") from error
        except (ValueError, RecursionError) as error:
            raise RunError(f"checkpoint {name} has a {FACTS} that cannot be read ({error})") from error
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            found = facts.get("format") if isinstance(facts, dict) else None
            raise RunError(f"checkpoint {name} has the format {found!r}, and this version reads {FORMAT!r}")
        if facts.pop("sha256", None) != digest(facts):
            raise RunError(f"checkpoint {name} has a {FACTS} that was changed: its checksum does not match")
        if hashlib.sha256(data).hexdigest() != facts["files"].get(STATE):
            raise RunError(
                f"checkpoint {name} has a {STATE} that is cut or changed: its checksum does not match"
            )
        try:
            state = from_bytes(data, os.path.join(place, STATE))
        except ChainruleError as error:
            raise RunError(f"checkpoint {name} cannot be read ({error.message})") from error
        return Checkpoint(dict(state), facts, name)

    def clean(self, whole: str | None) -> None:
        """Put damaged checkpoints that are newer than `whole` aside, and remove what a killed process left."""
        for one in self.names():
            if whole is not None and int(one) > int(whole):
                aside = os.path.join(self.folder, one + _DAMAGED)
                shutil.rmtree(aside, ignore_errors=True)
                with contextlib.suppress(OSError):
                    os.rename(os.path.join(self.folder, one), aside)
        with contextlib.suppress(OSError):
            for one in os.listdir(self.folder):
                if one.startswith("."):
                    shutil.rmtree(os.path.join(self.folder, one), ignore_errors=True)
            sync_folder(self.folder)
