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
    `backend`: who runs what is compiled, where `cr.compile` is not told: "native" or "jax" (CHAINRULE_BACKEND=jax).
    `check_finite`: whether a compiled step refuses to write anything after a loss or gradient that is not finite.
    `forbid_interpreter`: whether a compiled step must be machine code from end to end (CHAINRULE_FORBID_INTERPRETER=1);
    then an operation that NumPy would have to compute is an error, and so is a missing llvmlite; and `fit`, which
    otherwise begins as Python, compiles its step before the first batch.
    `dump`: stages of the compiler that are printed to stderr (CHAINRULE_DUMP=fuse,lower; with JAX also
    jaxpr, stablehlo and hlo).
    `skip`: passes of the compiler that are left out, to find out which one is at fault (CHAINRULE_SKIP=merge,layout).

    >>> from chainrule.config import config
    >>> config.check_finite
    True
    """

    compile: bool = field(default_factory=lambda: os.environ.get("CHAINRULE_COMPILE", "1") != "0")
    backend: str = field(default_factory=lambda: os.environ.get("CHAINRULE_BACKEND") or "native")
    check_finite: bool = True
    forbid_interpreter: bool = field(
        default_factory=lambda: os.environ.get("CHAINRULE_FORBID_INTERPRETER", "0") not in ("", "0")
    )
    dump: frozenset[str] = field(default_factory=lambda: _words(os.environ.get("CHAINRULE_DUMP", "")))
    skip: frozenset[str] = field(default_factory=lambda: _words(os.environ.get("CHAINRULE_SKIP", "")))


config = Config()
