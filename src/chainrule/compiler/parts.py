"""A long module in two parts that LLVM can work on at the same time, in two processes: it lets one thread at a time in.

Only modules whose calls are read from a list are cut, and only at the list: a part calls into the other through the
addresses that stand there, so the parts may lie anywhere in memory. Where a module is cut follows from its text alone.
The second process is a help: where none can be started, or it fails, the part is made here, to the same bytes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from .entry import FUNCTIONS

# Characters of a module that are worth a second process: it needs 0.1 s to begin, LLVM about 1.5 s for a million.
_LONG = 600_000
# So many LLVM is through with while a process begins, so the second part is shorter by that.
_MEANWHILE = 60_000
_DEFINITION = re.compile(r"^define (?:internal )?[^@]*@(\w+)\(.*?^}$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"@(cr_\w+)")
_WAY = "cr_way_"
_MAGIC = b"chainrule parts\0"


def cut(text: str) -> list[str]:
    """The module in two parts, which together are the module; in one if it is short or cannot be cut.

    A function that both parts call is in both. Those that others look for by name are in the first one.
    """
    found = {one[1]: one[0] for one in _DEFINITION.finditer(text)} if len(text) >= _LONG else {}
    calls = {
        name: [one for one in dict.fromkeys(_NAME.findall(body)) if one in found and one != name]
        for name, body in found.items()
    }
    listed = [name for name in _listed(text) if name in found] if found else []
    if len(listed) < 2:
        return [text]
    ways = [name for name in found if name.startswith(_WAY)]
    first = _reached(
        [*(name for name in found if not found[name].startswith("define internal")), *ways], calls
    )
    second: set[str] = set()
    load = [sum(len(found[name]) for name in first), min(_MEANWHILE, len(text) // 10)]
    needed = {name: _reached([name], calls) for name in listed}
    sizes = {name: sum(len(found[one]) for one in some) for name, some in needed.items()}
    for name in sorted(
        listed, key=lambda one: (-sizes[one], one)
    ):  # the longest first, to the part that has less
        place = int(load[1] < load[0])
        load[place] += sizes[name]
        (first, second)[place].update(needed[name])
    # Only their addresses are asked for, so it does not matter what they take.
    elsewhere = [name for name in listed if name not in first]
    declared = "".join(f"declare void @{name}()\n" for name in elsewhere)
    head = [line for line in _DEFINITION.sub("", text).splitlines() if line and not line.startswith("@cr_")]
    bodies = [
        found[name].replace("define internal ", "define ", 1) if name in elsewhere else found[name]
        for name in found
        if name in second
    ]
    return [
        _DEFINITION.sub(lambda one: one[0] if one[1] in first else "", text) + declared,
        "\n\n".join([*bodies, *head]) + "\n",
    ]


def _listed(text: str) -> list[str]:
    """The functions of which the module lists the addresses."""
    begin = text.find(FUNCTIONS)
    return _NAME.findall(text[begin + len(FUNCTIONS) : text.find("\n", begin)]) if begin >= 0 else []


def _reached(names: Iterable[str], calls: dict[str, list[str]]) -> set[str]:
    """These functions and all that they call."""
    waiting = list(names)
    found = set(waiting)
    while waiting:
        new = [one for one in calls[waiting.pop()] if one not in found]
        found.update(new)
        waiting += new
    return found


# ------------------------------------------------------------------------------- the objects of the parts


def join(objects: list[bytes]) -> bytes:
    """Object files as one file."""
    if len(objects) == 1:
        return objects[0]
    return _MAGIC + b"".join(len(one).to_bytes(8, "little") + one for one in objects)


def separate(content: bytes) -> list[bytes]:
    """The object files in a file that `join` has made."""
    if not content.startswith(_MAGIC):
        return [content]
    found, at = [], len(_MAGIC)
    while at < len(content):
        end = at + 8 + int.from_bytes(content[at : at + 8], "little")
        found.append(content[at + 8 : end])
        at = end
    return found


# ------------------------------------------------------------------------------- the second process


def compile_parts(
    texts: list[str], here: Callable[[str], bytes], options: list[str], package: Path
) -> list[bytes]:
    """The object file of each part. here: what makes one in this process. options: those of `assembler.py`.

    package: the folder in which llvmlite lies, which the other process is told: it looks nowhere else.
    """
    helper = _Helper(texts[1], options, package) if len(texts) == 2 and _processors() > 1 else None
    if helper is None:
        return [here(text) for text in texts]
    try:
        first = here(texts[0])
        return [first, helper.result() or here(texts[1])]
    finally:
        helper.end()


_start = subprocess.Popen


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Helper:
    """A process that makes the object file of one part."""

    def __init__(self, text: str, options: list[str], package: Path) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._answer: list[bytes] = []
        # What is not Python itself, such as a program that was packed with it, would start that program once more.
        if getattr(sys, "frozen", False) or not Path(sys.executable or "").stem.lower().startswith("python"):
            return
        worker = str(Path(__file__).with_name("assembler.py"))
        try:
            self._process = _start(
                [sys.executable, "-I", "-S", worker, str(package), *options],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError:
            return
        self._thread = threading.Thread(target=self._talk, args=(text.encode(),), daemon=True)
        self._thread.start()

    def _talk(self, text: bytes) -> None:
        assert self._process is not None
        try:
            answer, _ = self._process.communicate(text)
        except (OSError, ValueError):
            return
        if self._process.returncode == 0:
            self._answer.append(answer)

    def result(self) -> bytes:
        """The object file; nothing if the process has failed."""
        if self._process is not None:
            self._thread.join()
        return self._answer[0] if self._answer else b""

    def end(self) -> None:
        """No process stays behind, whatever has ended the work here."""
        if self._process is not None and self._thread.is_alive():
            self._process.kill()
            self._thread.join()
