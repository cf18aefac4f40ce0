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
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import ChainruleError, RunError
from ..files import Folder, NewFolder
from .files import from_bytes, to_bytes
from .run import CHECKPOINTS, digest

FORMAT = "chainrule checkpoint 1"
STATE, FACTS = "state.safetensors", "checkpoint.json"

_DAMAGED, _REMOVED = ".damaged", ".removed"


class Checkpoint(NamedTuple):
    """A state that was read, what is said of it, and the name of its folder."""

    state: dict[str, Any]
    facts: dict[str, Any]
    name: str


class Checkpoints:
    """The newest `keep` checkpoints of a run, in the folder `checkpoints` of its directory."""

    def __init__(self, run: Folder, keep: int) -> None:
        self._run = run
        self.keep = keep

    @property
    def place(self) -> str:
        """Where they are, for messages."""
        return os.path.join(self._run.path, CHECKPOINTS)

    def names(self) -> list[str]:
        """The folders of the checkpoints, the newest first. OSError where `checkpoints` is no folder."""
        try:
            with self._run.sub(CHECKPOINTS) as folder:
                return _names(folder)
        except FileNotFoundError:
            return []

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
        with self._run.sub(CHECKPOINTS, make=True) as folder:
            names = _names(folder)
            name = f"{int(names[0]) + 1 if names else 1:06d}"
            new = NewFolder(folder, name)
            try:
                new.write(STATE, data)
                new.write(FACTS, json.dumps(full, indent=1).encode() + b"\n")
                new.finish()
            except BaseException:
                new.discard()
                raise
            for old in names[max(0, self.keep - 1) :]:
                # At once, by a rename, so that a kill leaves no half of it under its name.
                with contextlib.suppress(OSError):
                    folder.rename(old, f".{old}{_REMOVED}")
                _remove(folder, f".{old}{_REMOVED}")
        return name

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """(the newest checkpoint that is whole, what is wrong with each newer one); (None, []) if there is none.

        Raises RunError if there are checkpoints and none is whole.
        """
        faults: list[str] = []
        try:
            names = self.names()
        except OSError as error:
            raise RunError(
                f"a run needs a folder for its checkpoints; got {self.place!r}: {error.strerror}. Use another copy of "
                "the run"
            ) from error
        for name in names:
            try:
                return self.read(name), faults
            except RunError as error:
                faults.append(error.message)
        if names:
            raise RunError(
                f"resume=True needs a checkpoint that is whole; got {len(names)} in {self.place!r}, none of them: "
                f"{'; '.join(faults)}. Use another copy of the run, or start a new one in another folder"
            )
        return None, []

    def read(self, name: str) -> Checkpoint:
        """One checkpoint, checked byte by byte. Raises RunError, which says what is wrong with it."""
        try:
            with self._run.sub(CHECKPOINTS) as folder, folder.sub(name) as checkpoint:
                text, data = checkpoint.read(FACTS), checkpoint.read(STATE)
            facts = json.loads(text.decode())
        except OSError as error:
            raise RunError(f"checkpoint {name} is not whole ({error.strerror})") from error
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
            state = from_bytes(data, os.path.join(self.place, name, STATE))
        except ChainruleError as error:
            raise RunError(f"checkpoint {name} cannot be read ({error.message})") from error
        return Checkpoint(dict(state), facts, name)

    def clean(self, whole: str | None) -> None:
        """Put damaged checkpoints that are newer than `whole` aside, and remove what a killed process left."""
        with contextlib.suppress(OSError), self._run.sub(CHECKPOINTS) as folder:
            for name in _names(folder):
                if whole is not None and int(name) > int(whole):
                    with contextlib.suppress(OSError):
                        _remove(folder, name + _DAMAGED)
                        folder.rename(name, name + _DAMAGED)
            for name in folder.names():
                if re.fullmatch(rf"\.\d{{6,}}({re.escape(_REMOVED)}|\.[0-9a-f]{{16}})", name, re.ASCII):
                    _remove(folder, name)
            folder.sync()


def _remove(folder: Folder, name: str) -> None:
    with contextlib.suppress(OSError):
        folder.remove(name)


def _names(folder: Folder) -> list[str]:
    names = (name for name in folder.names() if re.fullmatch(r"\d{6,}", name, re.ASCII))
    return sorted(names, key=int, reverse=True)
