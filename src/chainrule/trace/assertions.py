"""`assert condition` inside a traced function: which truth of the condition lets it pass.

Python asks a condition for its truth and jumps; whether the jump avoids an AssertionError stands in the code. Tests
whose assertions pytest has rewritten keep the condition in variables of its own.
Knows Python's instructions; knows nothing of tensors.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Sequence

from ..errors import PACKAGE_FOLDER

_RAISES = ("LOAD_ASSERTION_ERROR",)
_REWRITTEN = "@py_assert"


def asserted_truth() -> bool | None:
    """What must be true of the value whose truth the user's code asks for right now; None where it is no assertion."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE_FOLDER):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return None
    instructions = [one for one in dis.get_instructions(frame.f_code) if one.opname != "CACHE"]
    place = next((k for k, one in enumerate(instructions) if one.offset == frame.f_lasti), None)
    if place is None:
        return None
    before = instructions[place - 1].argval if place else None
    if instructions[place].opname == "TO_BOOL":
        place += 1
    jump = instructions[place]
    if "JUMP" not in jump.opname or "IF_" not in jump.opname:
        return None
    on_true = "IF_TRUE" in jump.opname
    after = instructions[place + 1 :]
    target = [one for one in instructions if one.offset >= jump.argval]
    if isinstance(before, str) and before.startswith(_REWRITTEN):
        return on_true
    if _raises(after):
        return on_true
    if _raises(target):
        return not on_true
    return None


def _raises(instructions: Sequence[dis.Instruction]) -> bool:
    """Whether an AssertionError is made right there."""
    for one in instructions[:2]:
        if one.opname in _RAISES or (one.opname == "LOAD_COMMON_CONSTANT" and one.argval is AssertionError):
            return True
        if one.opname not in ("NOT_TAKEN", "NOP", "POP_TOP"):
            return False
    return False
