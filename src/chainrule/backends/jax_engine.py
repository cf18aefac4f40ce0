"""One graph under `jax.jit`: XLA compiles it for whatever device JAX has, and the state that it replaces is donated.

Whether all checks hold is computed with the rest, and what was donated comes back as it was if one does not: so the
arrays that go in may be given up, and a step still happens as a whole or not at all.
Knows graphs, operations and JAX; knows nothing of cells' owners, tensors, or what follows from a failed check.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import CompileError, MissingExtraError
from ..graph import Graph, Node, Slot, evaluate
from ..operations import Array, Type
from .jax_namespace import JaxNamespace

_MISSING = "backend='jax' needs JAX: pip install 'chainrule[jax]' (for a GPU as JAX's own manual says)"


#: The stages that JAX has, by name.
TEXTS = ("jaxpr", "stablehlo", "hlo")


def is_installed() -> bool:
    """Whether JAX can be imported; it is not imported for that."""
    return importlib.util.find_spec("jax") is not None


def load() -> Any:
    """The module `jax`. Raises MissingExtraError, which names the command that installs it.

    Raises CompileError in a process that was forked after JAX had started its threads: a fork copies none of them, so
    whatever waits for one waits for ever.
    """
    if _forked_from:
        raise CompileError(
            f"JAX does not run in a process that was forked after JAX had started; got process {os.getpid()}, forked "
            f"from {_forked_from[-1]}. Start workers with multiprocessing.get_context('spawn')"
        )
    return _imported()


# Processes that had started JAX and that this one was forked from, the last one last.
_forked_from: list[int] = []


def _after_fork() -> None:
    bridge = sys.modules.get("jax._src.xla_bridge")
    # Imported alone it has no threads yet. Where JAX no longer says so, it counts as started once it is loaded.
    if _forked_from or (bridge is not None and getattr(bridge, "_backends", True)):
        _forked_from.append(os.getppid())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def _imported() -> Any:
    try:
        return importlib.import_module("jax")
    except ImportError as error:
        raise MissingExtraError(_MISSING) from error


@functools.cache
def namespace() -> JaxNamespace:
    """The namespace that the bodies of operations get."""
    load()
    importlib.import_module("jax.numpy")
    return JaxNamespace(load())


def refuse_without_jax() -> None:
    """Raise MissingExtraError where JAX is not installed."""
    if not is_installed():
        raise MissingExtraError(_MISSING)


def wide(graph: Graph) -> bool:
    """Whether there is any 64-bit number in the graph, or in a graph inside it."""
    for node in graph.nodes():
        if any(type.dtype.itemsize == 8 for type in node.types):
            return True
        if any(isinstance(value, Graph) and wide(value) for value in node.attributes.values()):
            return True
    return False


def widths(with_64_bits: bool) -> Any:
    """A context in which JAX keeps 64-bit types (or knows none), in this thread only."""
    jax = load()
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(with_64_bits)
    return importlib.import_module("jax.experimental").enable_x64(with_64_bits)


class Executable:
    """A graph as one XLA program: (inputs, what is only read, what is replaced) → (checks, outputs, what is written).

    `donated`: the slots that are read and written again; their arrays are used up by a call.
    """

    def __init__(self, graph: Graph, donated: Sequence[Slot]) -> None:
        self.graph = graph
        self.wide = wide(graph)
        self.written = [slot for slot, node in graph.writes.items() if node is not None]
        self.donated = list(donated)
        self.kept = [slot for slot in graph.reads if slot not in set(donated)]
        self._traced = functools.partial(self._compute)
        self._traced.__name__ = re.sub(r"\W", "_", graph.name) or "step"  # type: ignore[attr-defined]
        self._function = load().jit(self._traced, donate_argnums=2)

    # ------------------------------------------------------------------------------- arrays

    def copy(self, array: Any) -> Any:
        """A copy of an array, NumPy's or JAX's, on JAX's device; nobody else can reach it."""
        with widths(self.wide):
            if isinstance(array, np.ndarray):
                # JAX may take NumPy's memory as it is, so what it gets is a copy already.
                return load().device_put(np.array(array))
            return namespace().array(array, copy=True)

    @staticmethod
    def fetch(arrays: Sequence[Any]) -> list[Array]:
        """Arrays as NumPy's own copies; what the device still computes is waited for."""
        for one in arrays:
            one.copy_to_host_async()  # all are on their way before the first is waited for
        return [np.array(one) for one in arrays]

    # ------------------------------------------------------------------------------- running

    def run(
        self, given: Sequence[Array], kept: Sequence[Any], donated: Sequence[Any], results: list[Any]
    ) -> None:
        """Append (checks, outputs, written arrays) to `results`; what was donated is used up then, and not before.

        The call and the append are one step for Python: a signal's handler cannot come between them.
        """
        with widths(self.wide):
            try:
                results.extend(map(self._function, [list(given)], [list(kept)], [list(donated)]))
            except RuntimeError as failure:
                if any(one.is_deleted() for one in donated):
                    raise CompileError(
                        "the device broke off a step that had begun to replace its state; got "
                        f"{_first_line(failure)}. The state is lost: load a checkpoint, and make the batch smaller"
                    ) from failure
                raise CompileError(
                    f"the device cannot run this step; got {_first_line(failure)}. Nothing was changed"
                ) from failure

    def _compute(self, given: Sequence[Any], kept: Sequence[Any], donated: Sequence[Any]) -> Any:
        """The graph's roots over JAX's arrays: what is traced by `jit`."""
        xp, graph = namespace(), self.graph
        known = {**dict(zip(self.kept, kept)), **dict(zip(self.donated, donated))}
        sources = [*given, *(known[slot] for slot in graph.reads)]
        roots = list(evaluate(graph, sources, xp))
        outputs, written = roots[: len(graph.outputs)], roots[len(graph.outputs) :][: len(self.written)]
        conditions = [xp.all(one) for one in roots[len(outputs) + len(written) :]]
        holds = xp.stack(conditions) if conditions else xp.zeros((0,), bool)
        if conditions:
            every = xp.all(holds)
            written = [
                xp.where(every, new, known[slot]) if slot in self.donated else new
                for slot, new in zip(self.written, written)
            ]
        # `jit` gives each result memory of its own, also where two are one value or an argument.
        return holds, outputs, written

    def values(self, nodes: Sequence[Node], sources: Sequence[Array]) -> list[Array]:
        """Values of these nodes of the graph for an array of each source, each computed and kept by JAX."""
        single = Graph(self.graph.name, self.graph.inputs, tuple(nodes), self.graph.reads)
        with widths(self.wide):
            found = load().jit(lambda given: evaluate(single, given, namespace()))(list(sources))
            return self.fetch(found)

    # ------------------------------------------------------------------------------- what becomes of it

    def _types(self) -> tuple[list[Any], ...]:
        """Stand-ins for the arguments, by type."""
        graph = self.graph
        groups = (
            [node.type for node in graph.inputs],
            [graph.reads[slot].type for slot in self.kept],
            [graph.reads[slot].type for slot in self.donated],
        )
        return tuple([_stand_in(type) for type in group] for group in groups)

    def texts(self) -> dict[str, str]:
        """What JAX and XLA make of the graph: jaxpr, StableHLO, and XLA's own optimised program."""
        jax = load()
        with widths(self.wide):
            lowered = self._function.lower(*self._types())
            found = (
                str(jax.make_jaxpr(self._traced)(*self._types())),
                lowered.as_text(),
                lowered.compile().as_text(),
            )
        return dict(zip(TEXTS, found))

    def cost(self) -> dict[str, float]:
        """XLA's own account: "flops", "bytes accessed", and "temporary bytes"; what it does not know is left out."""
        with widths(self.wide):
            compiled = self._function.lower(*self._types()).compile()
        told = compiled.cost_analysis() or {}
        told = told[0] if isinstance(told, list) else told
        found = {name: float(told[name]) for name in ("flops", "bytes accessed") if name in told}
        with contextlib.suppress(AttributeError, TypeError):
            found["temporary bytes"] = float(compiled.memory_analysis().temp_size_in_bytes)
        return found

    @property
    def device(self) -> str:
        """JAX's name of the device that runs it: `cpu`, `gpu` or `tpu`."""
        return str(load().default_backend())


def _stand_in(type: Type) -> Any:
    return load().ShapeDtypeStruct(type.shape, type.dtype)


def _first_line(failure: BaseException) -> str:
    return (str(failure).strip() or type(failure).__name__).splitlines()[0]
