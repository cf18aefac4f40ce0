"""Graph → machine code, one named step after the other: simplify, fuse, plan, lower, llvm.

Each step is a function, its product can be printed and is verified. Knows graphs and the operations' kinds and
lowerings; knows nothing of tensors, modules or how a step is called.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ..config import config
from ..graph import Graph, verify
from .fuse import Decision, Fusion, Group, fuse
from .llvm import emit, libraries
from .loops import Loops
from .lower import lower
from .machine import Native, available, native
from .plan import Buffer, Plan, plan
from .simplify import simplify

STAGES = ("trace", "simplify", "fuse", "plan", "lower", "llvm")

__all__ = [
    "STAGES", "Buffer", "Compilation", "Decision", "Fusion", "Graph", "Group", "Loops", "Native", "Plan",
    "available", "compile_graph", "native",
]  # fmt: skip


@dataclass(eq=False)
class Compilation:
    """One graph and all that was made of it."""

    graph: Graph
    simplified: Graph
    fusion: Fusion
    plan: Plan
    loops: Loops
    text: str
    entry: str

    @property
    def stages(self) -> dict[str, str]:
        """Every stage as text, in order."""
        products = (self.graph, self.simplified, self.fusion, self.plan, self.loops, self.text)
        return {name: str(product) for name, product in zip(STAGES, products)}

    def native(self) -> tuple[Native, bool]:
        """The machine code, and whether it had to be made just now."""
        return native(self.text, self.entry, libraries(self.loops))


def compile_graph(graph: Graph) -> Compilation:
    """Run every stage up to LLVM's textual IR. Raises CompileError for an operation without loops."""
    _dump("trace", graph)
    simplified = verify(simplify(verify(graph)))
    _dump("simplify", simplified)
    fusion = fuse(simplified)
    _dump("fuse", fusion)
    planned = plan(fusion)
    _dump("plan", planned)
    loops = lower(planned)
    _dump("lower", loops)
    text, entry = emit(loops, planned)
    _dump("llvm", text)
    return Compilation(graph, simplified, fusion, planned, loops, text, entry)


def _dump(stage: str, product: object) -> None:
    if stage in config.dump:
        print(f"--- {stage}\n{product}", file=sys.stderr)
