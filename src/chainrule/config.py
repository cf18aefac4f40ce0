"""The few switches of the package, read from the environment once and changeable at any time.

Knows nothing of what obeys them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field


def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in text.replace(",", " ").split() if word)


@dataclass
class Config:
    """`compile`: whether `cr.compile` compiles (CHAINRULE_COMPILE=0: everything runs eagerly).
    `check_finite`: whether a compiled step refuses to write anything after a loss or gradient that is not finite.
    `forbid_interpreter`: whether a compiled step must be machine code from end to end (CHAINRULE_FORBID_INTERPRETER=1);
    then an operation that NumPy would have to compute is an error, and so is a missing llvmlite.
    `dump`: stages of the compiler that are printed to stderr (CHAINRULE_DUMP=fuse,lower).

    >>> from chainrule.config import config
    >>> config.check_finite
    True
    """

    compile: bool = field(default_factory=lambda: os.environ.get("CHAINRULE_COMPILE", "1") != "0")
    check_finite: bool = True
    forbid_interpreter: bool = field(
        default_factory=lambda: os.environ.get("CHAINRULE_FORBID_INTERPRETER", "0") not in ("", "0")
    )
    dump: frozenset[str] = field(default_factory=lambda: _words(os.environ.get("CHAINRULE_DUMP", "")))


config = Config()
