"""Graph → machine code, one named step after the other: simplify, fuse, plan, lower, llvm.

Each step is a function, its product can be printed and is verified. Knows graphs and the operations' kinds and
lowerings; knows nothing of tensors, modules or how a step is called.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ..config import config
from ..graph import Graph, verify
from .commit import order_commit
from .fuse import Decision, Fusion, Group, fuse
from .layout import layout
from .loops import Loops, buffers_of
from .lower import lower
from .machine import Native, available, native, registers
from .merge import merge
from .module import Emitted, emit, libraries
from .plan import Buffer, Plan, arrange, plan
from .product import Registers
from .simplify import simplify

STAGES = ("trace", "simplify", "layout", "fuse", "lower", "plan", "llvm")

__all__ = [
    "STAGES", "Buffer", "Compilation", "Decision", "Fusion", "Graph", "Group", "Loops", "Native", "Plan",
    "available", "compile_graph", "native",
]  # fmt: skip


@dataclass(eq=False)
class Compilation:
    """One graph and all that was made of it."""

    graph: Graph
    simplified: Graph
    laid_out: Graph
    fusion: Fusion
    plan: Plan
    loops: Loops
    emitted: Emitted
    registers: Registers

    @property
    def stages(self) -> dict[str, str]:
        """Every stage as text, in order."""
        products = (
            self.graph,
            self.simplified,
            self.laid_out,
            self.fusion,
            self.loops,
            self.plan,
            self.emitted.text,
        )
        return {name: str(product) for name, product in zip(STAGES, products)}

    def one_by_one(self) -> Emitted:
        """The same nests with an entry that runs one of them: see `emit`."""
        return emit(self.loops, self.plan, self.registers, one_by_one=True)

    def native(self) -> tuple[Native, bool]:
        """The machine code, and whether it had to be made just now."""
        return native(self.emitted.text, self.emitted.entry, libraries(self.loops, self.emitted))


def compile_graph(graph: Graph, machine: Registers | None = None) -> Compilation:
    """Run every stage up to LLVM's textual IR, for this processor or for one with other registers.

    Raises CompileError for an operation without loops.
    """
    _dump("trace", graph)
    simplified = verify(simplify(verify(graph)))
    _dump("simplify", simplified)
    laid_out = verify(layout(simplified))
    _dump("layout", laid_out)
    fusion = order_commit(fuse(laid_out))
    _dump("fuse", fusion)
    planned = plan(fusion)
    loops = merge(lower(planned))
    _dump("lower", loops)
    arrange(planned, [buffers_of(nest) for nest in loops.nests])
    _dump("plan", planned)
    machine = machine or registers()
    emitted = emit(loops, planned, machine)
    _dump("llvm", emitted.text)
    return Compilation(graph, simplified, laid_out, fusion, planned, loops, emitted, machine)


def _dump(stage: str, product: object) -> None:
    if stage in config.dump:
        print(f"--- {stage}\n{product}", file=sys.stderr)
