"""What can be looked at in a step that JAX runs: its stages as text, what it costs, and whether its numbers are right.

Nothing is changed by looking: a step is measured and compared on copies of everything that it reads.
Knows programs of the device and the interpreter; knows nothing of how XLA makes code.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..errors import at
from ..graph import Names, Node, describe, print_graph, topological
from ..operations import Array
from .audit import Audit, Difference
from .bounds import Bounded, Evaluator, disagreements, exact
from .device import DeviceProgram
from .report import NestReport, Report, ValueReport, stand_ins
from .threads import usable_cpus

# The step is run over and over for about so long, and so often at least and at most.
_SECONDS, _FEWEST, _MOST = 0.2, 3, 200

# XLA adds a product in one operation, without rounding it in between, where the processor can.
_ADDING, _PRODUCTS = ("add", "subtract"), ("multiply", "absorb", "square")

# How far a loop over steps of time may be from the interpreter's, in parts of its largest number, by bytes of a float.
_LOOPS = {4: 1e-4, 8: 1e-11}


# ------------------------------------------------------------------------------------------------ report


def report_of_device(
    program: DeviceProgram, sources: Sequence[Array] | None, programs: int, recompiles: Sequence[str]
) -> Report:
    """The report on a program, measured on an array for each source of its graph, or on stand-ins."""
    executable = program.executable
    seconds = _measure(program, stand_ins(program) if sources is None else sources)
    cost = executable.cost()
    temporary = int(cost.get("temporary bytes", 0))
    given = sum(_bytes(node) for node in program.graph.sources)
    written = sum(_bytes(node) for node in program.graph.roots)
    flops = int(cost["flops"]) if "flops" in cost else None
    nest = NestReport(f"{program.graph.name} by XLA", False, False, flops, given, written, seconds, 1.0)
    return Report(
        name=program.graph.name,
        engine=f"JAX on {executable.device}",
        threads=usable_cpus() if executable.device == "cpu" else 1,
        seconds=seconds,
        native_share=1.0,
        measured_on="stand-ins" if sources is None else "arguments",
        arena=temporary,
        arena_without_sharing=temporary,
        programs=programs,
        recompiles=tuple(recompiles),
        host_operations=(),
        nests=(nest,),
        values=tuple(_values(program)),
    )


def _bytes(node: Node) -> int:
    return int(np.prod(node.shape, dtype=object)) * node.dtype.itemsize


def _values(program: DeviceProgram) -> list[ValueReport]:
    names = Names()
    list(print_graph(program.graph, names))
    reason = "see stages()['hlo']"
    return [
        ValueReport(
            names[node], describe(node, names), str(node.type), "given to XLA", reason, str(node.origin or "")
        )
        for node in program.graph.nodes()
        if node.inputs
    ]


def _measure(program: DeviceProgram, sources: Sequence[Array]) -> float:
    """Seconds of one call, from arrays that are on the device to arrays that are: the median."""
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < _FEWEST or (len(times) < _MOST and time.perf_counter() - started < _SECONDS):
        arguments = _arguments(program, sources)
        before = time.perf_counter()
        results: list[Any] = []
        program.executable.run(*arguments, results)
        for one in (results[0][0], *results[0][1], *results[0][2]):
            one.block_until_ready()
        times.append(time.perf_counter() - before)
    return statistics.median(times[1:])  # the first may have made the code


def _arguments(program: DeviceProgram, sources: Sequence[Array]) -> tuple[list[Any], list[Any], list[Any]]:
    """Copies of the sources as a call takes them."""
    executable, count = program.executable, len(program.graph.inputs)
    known = dict(zip(program.graph.reads, sources[count:]))
    copy = executable.copy
    return (
        [copy(one) for one in sources[:count]],
        [copy(known[slot]) for slot in executable.kept],
        [copy(known[slot]) for slot in executable.donated],
    )


# ------------------------------------------------------------------------------------------------- audit


def audit_device(program: DeviceProgram, given: list[Array]) -> Audit:
    """Compare one call of a program, with arrays for its inputs, with the interpreter. Nothing is changed by it.

    Twice: every value of the graph, from the operands that JAX itself has for it, so that a difference is blamed on
    one operation; and what the step as it is gives back and writes, with bounds for all roundings on the way.
    """
    sources = program.snapshot(given)
    audit = Audit(program.graph.name)
    with ops.quiet():
        _compare_values(program, sources, audit)
        _compare_results(program, sources, audit)
    return audit


def _compare_values(program: DeviceProgram, sources: Sequence[Array], audit: Audit) -> None:
    """Value by value, each from JAX's own operands."""
    graph = program.graph
    known: dict[Node, Any] = dict(zip(graph.sources, sources))
    nodes = topological(graph.roots, follow=lambda node: node not in known)
    inner = [node for node in nodes if node not in known and node.inputs and len(node.types) == 1]
    taps = dict(zip(inner, program.executable.values(inner, sources)))
    evaluator = Evaluator(own=False)
    for node in nodes:
        if node in known:
            continue
        if not node.inputs:
            known[node] = node.value
            continue
        operands = [known[operand] for operand in node.inputs]
        if len(node.types) > 1:  # a loop: its results are looked at one by one, by their parts
            known[node] = _whole(node, operands)
            continue
        known[node] = taps[node]
        try:
            if isinstance(operands[0], tuple):
                wanted = _loosely(operands[0][node.attributes["index"]])
            else:
                wanted = evaluator.node(node, [_operand(node, k, one) for k, one in enumerate(operands)])
        except IndexError:  # a label or token outside its range: the step's own check says so
            audit.undecided += taps[node].size
            continue
        _compare(node, taps[node], wanted, audit, "from the same operands")


def _operand(node: Node, k: int, value: Array) -> Bounded:
    """An operand as JAX has it. Of a product that is added XLA may take all digits, before it is rounded."""
    wide, operand = exact(value), node.inputs[k]
    if (
        node.operation.name not in _ADDING
        or operand.operation.name not in _PRODUCTS
        or value.dtype.kind != "f"
    ):
        return wide
    return Bounded(wide.value, np.abs(wide.value) * float(np.finfo(value.dtype).eps))


def _whole(node: Node, operands: Sequence[Any]) -> tuple[Array, ...]:
    made: tuple[Array, ...] = node.operation.body(ops.NUMPY, *operands, **node.attributes)
    return made


def _loosely(value: Array) -> Bounded:
    """A result of many steps, with a bound that allows for the roundings of all of them."""
    wide = exact(value)
    if value.dtype.kind != "f":
        return wide
    largest = float(np.abs(wide.value[np.isfinite(wide.value)]).max(initial=0.0))
    return Bounded(wide.value, np.full(value.shape, _LOOPS[value.dtype.itemsize] * largest))


def _compare(node: Node, got: Array, wanted: Bounded, audit: Audit, how: str) -> None:
    """One value beside the interpreter's. XLA takes numbers below the smallest normal one for 0."""
    error = np.zeros(wanted.value.shape) if wanted.error is None else np.asarray(wanted.error)
    if node.dtype.kind == "f":
        error = error + 2 * float(np.finfo(node.dtype).tiny)
    audit.values += 1
    audit.elements += got.size
    differs, unknown, share = disagreements(got, Bounded(wanted.value, error), node.dtype)
    audit.undecided += int(np.count_nonzero(unknown))
    audit.worst = max(audit.worst, share)
    if differs.any():
        index = tuple(int(k) for k in np.argwhere(differs)[0])
        mine, expected = got[index].item(), wanted.value[index].item()
        count = int(np.count_nonzero(differs))
        allowed = float(error[index])
        text = (
            f"JAX has {mine:.9g}{f' at {list(index)}' if index else ''}, the interpreter {expected:.9g} {how} "
            f"(rounding explains {allowed:.1g}); {count} of {got.size} elements differ"
        )
        audit.differences.append(Difference("value", node, text, index, mine, expected, allowed, count))


def _compare_results(program: DeviceProgram, sources: Sequence[Array], audit: Audit) -> None:
    """What the step as it is gives back and writes, beside the interpreter's from the same sources."""
    graph, executable, results = program.graph, program.executable, list[Any]()
    executable.run(*_arguments(program, sources), results)
    status, outputs, written = (executable.fetch(part) for part in ([results[0][0]], *results[0][1:]))
    refused = [check for check, holds in zip(graph.checks, status[0]) if not holds]
    audit.failed += [f"{check.message.partition(';')[0]}{at(check.origin)}" for check in refused]
    if refused or any(len(node.types) > 1 for node in graph.nodes()):
        return  # what a refused step writes is what was there; of loops the values have been compared
    wanted = Evaluator(own=False).graph(graph, dict(zip(graph.sources, sources)))
    nodes = [*graph.outputs, *(node for node in graph.writes.values() if node is not None)]
    for node, got in zip(nodes, [*outputs, *written]):
        _compare(node, got, wanted[node], audit, "from the same arguments")
