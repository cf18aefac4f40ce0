"""Who is measured: each engine is a module with `load`, `prepare`, and for its own process `environment`.

An engine is loaded when it is measured; one that is not installed is reported as such.
Knows names; knows nothing of how steps are written.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ....errors import MissingExtraError
from ..workloads import Workload


@dataclass(frozen=True)
class Prepared:
    """A network that is ready to learn.

    step: one step on one batch, done when it returns. number: the loss that it returned, as a float. epoch: makes the
    batches of an epoch and returns what runs `Workload.epoch` steps on them, in the engine's quickest way; `how`
    says which. keep: keeps the state of now, and returns what brings it back.
    """

    step: Callable[[], Any]
    number: Callable[[Any], float]
    epoch: Callable[[], Callable[[], Any]]
    keep: Callable[[], Callable[[], Any]]
    how: str


@dataclass(frozen=True)
class Engine:
    """What is measured: its name for readers, its module here, and the package that it needs."""

    name: str
    shown: str
    module: str
    needs: str

    @property
    def ours(self) -> bool:
        """Whether it is chainrule itself."""
        return self.name == OURS

    @property
    def installed(self) -> bool:
        """Whether its package can be imported."""
        return importlib.util.find_spec(self.needs) is not None

    def load(self) -> None:
        """Import all that it needs."""
        self._module().load()

    def prepare(self, workload: Workload) -> Prepared:
        """The workload's network with its first weights, its optimizer and its step."""
        prepared: Prepared = self._module().prepare(workload)
        return prepared

    def environment(self, folder: str) -> dict[str, str]:
        """Variables under which a process keeps compiled code in `folder`."""
        found: dict[str, str] = self._module().environment(folder)
        return found

    def _module(self) -> Any:
        if not self.installed:
            raise MissingExtraError(
                f"{self.shown} is measured with the package {self.needs}; it is not installed. "
                f"Use pip install {self.needs}, or leave {self.name} out of --engines"
            )
        return importlib.import_module(f"{__name__}.{self.module}")


OURS = "chainrule"
ENGINES = {
    one.name: one
    for one in (
        Engine("chainrule", "chainrule", "own", "numpy"),
        Engine("pytorch", "PyTorch eager", "pytorch", "torch"),
        Engine("torch_compile", "torch.compile", "inductor", "torch"),
        Engine("jax", "JAX jit", "xla", "jax"),
    )
}
