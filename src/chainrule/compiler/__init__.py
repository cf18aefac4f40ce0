"""Graph → machine code, one named step after the other: simplify, fuse, plan, lower, llvm.

Each step is a function, its product can be printed and is verified. Knows graphs and the operations' kinds and
lowerings; knows nothing of tensors, modules or how a step is called.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from ..config import config
from ..errors import ArgumentError, CompileError
from ..graph import Graph, verify
from .commit import order_commit
from .fuse import Decision, Fusion, Group, fuse
from .known import Known, name_of, recall, remember
from .layout import layout
from .loops import Loops, buffers_of
from .loops import verify as verify_loops
from .lower import lower
from .machine import Native, available, key_of, native, registers
from .merge import merge
from .module import Emitted, emit, libraries
from .orders import orders
from .plan import Buffer, Plan, arrange, plan
from .product import Registers
from .recurrence import settle
from .simplify import simplify

STAGES = ("trace", "simplify", "layout", "fuse", "lower", "plan", "llvm")

#: What `config.skip` may name: passes without which the step computes the same, only slower.
#: simplify: superfluous work stays. layout: products are not turned. fuse: every value is stored. commit: no cell is
#: written in place. merge: one nest for each group. arena: no two values share bytes. threads: nothing is shared.
PASSES = ("simplify", "layout", "fuse", "commit", "merge", "arena", "threads")

__all__ = [
    "PASSES", "STAGES", "Buffer", "Compilation", "Decision", "Fusion", "Graph", "Group", "Loops", "Native", "Plan",
    "available", "compile_graph", "native", "nothing_collected",
]  # fmt: skip


@dataclass(eq=False)
class Compilation:
    """One graph and all that was made of it.

    `known`: what was kept of an equal plan; then loops and module are written only if somebody looks at them.
    """

    graph: Graph
    simplified: Graph
    laid_out: Graph
    fusion: Fusion
    plan: Plan
    registers: Registers
    skipped: frozenset[str] = frozenset()
    name: str | None = None
    known: Known | None = None

    @functools.cached_property
    def _written(self) -> tuple[Loops, Emitted]:
        loops = lower(self.plan)
        loops = verify_loops(loops if "merge" in self.skipped else merge(loops))
        _dump("lower", loops)
        arrange(self.plan, [buffers_of(nest) for nest in loops.nests], sharing="arena" not in self.skipped)
        _dump("plan", self.plan)
        emitted = emit(loops, self.plan, self.registers, sharing=self.sharing)
        _dump("llvm", emitted.text)
        if self.known is not None and self.known.entry != emitted.entry:
            raise CompileError(
                f"{self.graph.name} runs machine code that was kept under {self.known.entry}; the compiler now "
                f"writes {emitted.entry}. Set CHAINRULE_CACHE=0, and please report this"
            )
        return loops, emitted

    @property
    def sharing(self) -> bool:
        """Whether threads may share the work."""
        return "threads" not in self.skipped

    @property
    def loops(self) -> Loops:
        """The nests, in order."""
        return self._written[0]

    @property
    def emitted(self) -> Emitted:
        """The module."""
        return self._written[1]

    @property
    def segments(self) -> int:
        """How many segments the code has: one, and one more for each call of NumPy."""
        return 1 if self.known is not None else self.emitted.segments

    @property
    def needs(self) -> Known:
        """What a call has to know of the module."""
        if self.known is not None:
            return self.known
        one = self.emitted
        code = key_of(one.text) if available() else ""
        used = tuple(sorted(libraries(self.loops, one)))
        return Known(one.entry, code, self.plan.arena, one.scratch, one.shares, used)

    @property
    def stages(self) -> dict[str, str]:
        """Every stage as text, in order."""
        graphs = (self.graph, self.simplified, self.laid_out, self.fusion)
        products = (*graphs, self.loops, self.plan, self.emitted.text)
        return {name: str(product) for name, product in zip(STAGES, products)}

    def one_by_one(self) -> Emitted:
        """The same nests with an entry that runs one of them: see `emit`."""
        return emit(self.loops, self.plan, self.registers, True, self.sharing)

    def native(self) -> tuple[Native, bool]:
        """The machine code, and whether it had to be made or loaded just now."""
        needs = self.needs
        found = native(lambda: self.emitted.text, needs.entry, needs.libraries, needs.code)
        if self.known is None and self.name is not None:
            remember(self.name, needs)
        return found


def compile_graph(graph: Graph, machine: Registers | None = None) -> Compilation:
    """Run every stage up to LLVM's textual IR, for this processor or for one with other registers.

    Raises CompileError for an operation without loops, ArgumentError for a pass to be skipped that there is not.
    """
    with nothing_collected():
        return _compile_graph(graph, machine)


_paused = threading.Semaphore(1)


@contextlib.contextmanager
def nothing_collected() -> Iterator[None]:
    """While hundreds of thousands of objects are made that stay: no search through the whole process for garbage."""
    first = _paused.acquire(blocking=False)  # of several threads the first pauses and resumes
    pauses = first and gc.isenabled()
    if pauses:
        gc.disable()
    try:
        yield
    finally:
        if pauses:
            # What was made counts as old from here on: the next young objects are looked at without it, which would
            # take 0.2 s after a large step. Objects that somebody has frozen stay frozen.
            if hasattr(gc, "freeze") and not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()
        if first:
            _paused.release()


def _compile_graph(graph: Graph, machine: Registers | None) -> Compilation:
    skipped = _skipped()
    _dump("trace", graph)
    thorough = "simplify" not in skipped
    simplified = settle(simplify(verify(graph), thorough), thorough)
    _dump("simplify", simplified)
    laid_out = verify(simplified if "layout" in skipped else layout(simplified))
    _dump("layout", laid_out)
    fusion = fuse(laid_out, "fuse" not in skipped, {} if "layout" in skipped else orders(laid_out))
    fusion = fusion if "commit" in skipped else order_commit(fusion)
    _dump("fuse", fusion)
    planned = plan(fusion)
    machine = machine or registers()
    name = name_of(planned, machine) if available() else None
    known = None if name is None else recall(name)
    found = Compilation(graph, simplified, laid_out, fusion, planned, machine, skipped, name, known)
    if known is None:
        found.emitted  # noqa: B018 - faults come up now
    else:
        planned.arena = known.arena
    return found


def _skipped() -> frozenset[str]:
    unknown = sorted(config.skip - set(PASSES))
    if unknown:
        raise ArgumentError(
            f"config.skip and CHAINRULE_SKIP name passes: {', '.join(PASSES)}; got {', '.join(unknown)}. Leave it out"
        )
    return config.skip


def _dump(stage: str, product: object) -> None:
    if stage in config.dump:
        print(f"--- {stage}\n{product}", file=sys.stderr)
