"""The packages that chainrule is compared with: which tests need one, and what stands where one is not installed.

A test that is a comparison bears the mark `pytorch` or `jax`, or asks for the fixture `torch`. Without the package it
is left out and counted in one line, see `conftest.py`; `pytest -m pytorch` runs the comparisons alone.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rival:
    """A package that comparisons need: its mark is the key in `RIVALS`."""

    shown: str
    package: str

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


RIVALS = {"pytorch": Rival("PyTorch", "torch"), "jax": Rival("JAX", "jax")}


class Absent:
    """A package that is not installed: tables of cases may name what is in it, but nothing of it can be called."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self._name}.{name}")

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise ModuleNotFoundError(f"{self._name} is not installed. Give this test the mark of its comparison")


torch: Any = importlib.import_module("torch") if RIVALS["pytorch"].installed else Absent("torch")


def left_out(counts: dict[str, int]) -> list[str]:
    """A line for each kind of comparison that was not run."""
    return [
        f"comparisons with {RIVALS[mark].shown}: {count} not run: {RIVALS[mark].shown} is not installed"
        for mark, count in counts.items()
        if count
    ]
