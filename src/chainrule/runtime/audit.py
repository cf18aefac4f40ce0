"""The audit of a compiled step: what its machine code stores, nest by nest, beside what the interpreter says.

The step is run twice on copies of everything that it reads, so nothing is changed: once as it is, and once with the
same nests and the same places in memory one after the other. Between two nests every stored value is compared with the
NumPy interpreter in float64, from the operands that the nest itself was given: differences do not pile up, and each
belongs to one node. What a nest writes outside its own memory, reads too late, or leaves unwritten is found as well.
Knows programs, the compiler's products and memory; knows nothing of how code is made.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..compiler import Buffer, Compilation, Native, available, compile_graph, native
from ..compiler.fuse import Group
from ..compiler.loops import Contraction, Host, Nest, Recurrence, Store, buffers_of, host_call, walk
from ..compiler.module import libraries
from ..compiler.plan import ALIGNMENT
from ..errors import at
from ..graph import Graph, Node
from ..operations import CONSTANT, INPUT, Array
from ..ops.lowering import View
from ..rewrite import remake
from .bounds import Bounded, Evaluator, disagreements, exact
from .host import Segments
from .memory import address, aligned, whole
from .program import Program
from .threads import pool

# Bytes around every array, and what stands in them; what is not written yet is filled with the other one, which is
# NaN as a float and −1 as an integer.
_GUARD = 4 * ALIGNMENT
_GUARDED = 0xA5
_UNWRITTEN = 0xFF


@dataclass(frozen=True, eq=False)
class Difference:
    """One stored value that is not what it should be.

    `kind`: "value" (other numbers than the interpreter's), "check" (another answer of a check), "memory" (written by a
    nest that has no business there, or overwritten before it was read), "build" (the step as it is and the step run
    nest by nest do not give the same bits), "graph" (the simplified graph does not compute what was traced).
    `index`, `got`, `expected`: the worst element and its two values; `allowed`: what rounding explains there.
    """

    kind: str
    node: Node
    told: str
    index: tuple[int, ...] = ()
    got: float = 0.0
    expected: float = 0.0
    allowed: float = 0.0
    wrong: int = 0
    inlined: tuple[Node, ...] = ()

    @property
    def operation(self) -> str:
        """The operation that is to blame."""
        return self.node.operation.name

    @property
    def name(self) -> str:
        """The operation with its type, as `matmul float32[32, 10]`."""
        return f"{self.operation} {self.node.type}"

    @property
    def line(self) -> str:
        """The user's line, as `train.py:14`; empty where it is unknown."""
        return str(self.node.origin) if self.node.origin is not None else ""

    def __str__(self) -> str:
        return f"{describe(self.node)}: {self.told}"


def describe(node: Node) -> str:
    """`gradient of tanh: multiply float32[32, 10] (train.py:14)`."""
    of = f"in the gradient of {node.gradient_of.operation.name}: " if node.gradient_of is not None else ""
    return f"{of}{node.operation.name} {node.type}{at(node.origin)}"


@dataclass(eq=False)
class Audit:
    """What an audit has found. Printed, it says so in a few lines.

    `values`: stored values and checks that were compared; `elements`: numbers in them; `undecided`: numbers of which
    nothing can be said, because a rounding before decides between two outcomes; `worst`: the largest share that a
    difference has of what rounding explains; `failed`: what the step's own checks would have refused.
    """

    step: str
    native: bool = True
    values: int = 0
    elements: int = 0
    undecided: int = 0
    worst: float = 0.0
    differences: list[Difference] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything agrees."""
        return not self.differences

    def __str__(self) -> str:
        if not self.native:
            return f"{self.step} runs on the NumPy interpreter itself, without llvmlite: there is nothing to compare"
        counted = (
            f"{self.values} values ({self.elements:,} numbers) of {self.step} compared with the interpreter"
        )
        if self.ok:
            share = f"the largest difference is {100 * self.worst:.0f} % of what rounding explains"
            lines = [f"{counted}: all agree; {share}"]
        else:
            count = len(self.differences)
            lines = [f"{counted}: {count} do not agree" if count > 1 else f"{counted}: 1 does not agree"]
            lines += [f"  {one}" for one in self.differences]
        if self.undecided:
            lines.append(f"  {self.undecided:,} numbers were left out: rounding decides which way they fall")
        lines += [f"  this call would be refused: {one}" for one in self.failed]
        return "\n".join(lines)


def audit_program(program: Program, given: list[Array]) -> Audit:
    """Compare one call of a program, with arrays for its inputs, with the interpreter. Nothing is changed by it."""
    return audit_sources(program.compilation, program.snapshot(given))


def audit_sources(compilation: Compilation, sources: Sequence[Array]) -> Audit:
    """The same for a compilation and an array for each source of its graph; they are copied."""
    audit = Audit(compilation.graph.name)
    if not available():
        audit.native = False
        return audit
    made, _ = compilation.native()
    parts = _parts.get(compilation)
    if parts is None:
        stepped = compilation.one_by_one()
        parts, _ = native(stepped.text, stepped.entry, libraries(compilation.loops, stepped))
        _parts[compilation] = parts
    return compare(compilation, sources, made, parts)


# The nests one by one of what has been audited: made once.
_parts: weakref.WeakKeyDictionary[Compilation, Native] = weakref.WeakKeyDictionary()


def compare(compilation: Compilation, sources: Sequence[Array], made: Native, parts: Native) -> Audit:
    """The audit of machine code that is there already: the step as it is, and the same nests one by one."""
    audit = Audit(compilation.graph.name)
    watch = _Watch(compilation, sources, audit)
    watch.run(parts)
    if all(one.kind != "memory" for one in audit.differences):
        _compare_builds(compilation, sources, made, watch, audit)
    _compare_graphs(compilation, sources, audit)
    return audit


# ------------------------------------------------------------------------------------------- memory


class _Memory:
    """Copies of all that a step touches, in one block with guards between, and the table of their addresses."""

    def __init__(self, compilation: Compilation, sources: Sequence[Array]) -> None:
        plan = compilation.plan
        given = [*map(whole, sources), *(whole(np.asarray(node.value)) for node in plan.constants)]
        sizes = [array.nbytes for array in given]
        sizes += [plan.buffers[node].bytes for node in plan.results]
        sizes += [plan.arena, plan.status.size, compilation.needs.scratch]
        starts = [_GUARD]
        for size in sizes:
            starts.append(starts[-1] + -(-size // ALIGNMENT) * ALIGNMENT + _GUARD)
        self.block = aligned(starts[-1])
        self.block[:] = _GUARDED
        self.regions = [self.block[start : start + size] for start, size in zip(starts, sizes)]
        for region, array in zip(self.regions, given):
            region[:] = array.reshape(-1).view(np.uint8)
        for region in self.regions[len(given) :]:
            region[:] = _UNWRITTEN
        self.first = {"source": 0, "constant": len(sources), "result": len(given)}
        self.arena, self.status, self.scratch = self.regions[-3:]
        self.status[:] = 1
        #: The table, and behind it the board and the mark of a commit.
        self.table = (ctypes.c_void_p * (len(sizes) + 2))(*map(address, self.regions))
        self._helpers = pool() if compilation.needs.shares else None  # held while machine code runs
        if self._helpers is not None:
            self.table[len(sizes)] = self._helpers.address
            self._helpers.ring()

    def run(self, compilation: Compilation, made: Native) -> bool:
        """The step as it is; whether one of its checks has refused it."""
        segments = compilation.segments > 1
        function = Segments(made, compilation, self.table) if segments else made.function
        return bool(function(ctypes.addressof(self.table)))

    def bytes_of(self, buffer: Buffer) -> Array:
        """The buffer's bytes as they are now."""
        if buffer.place == "status":
            return self.status
        if buffer.place == "arena":
            return self.arena[buffer.offset : buffer.offset + buffer.bytes]
        return self.regions[self.first[buffer.place] + buffer.index]

    def array_of(self, buffer: Buffer) -> Array:
        """A copy of what is in the buffer."""
        found: Array = self.bytes_of(buffer).view(buffer.type.dtype)
        shape, axes = buffer.type.shape, buffer.axes or tuple(range(len(buffer.type.shape)))
        found = found.reshape([shape[axis] for axis in axes])
        found = found.transpose([axes.index(k) for k in range(len(axes))])
        return found.copy(order="C")


# ------------------------------------------------------------------------------------------- nest by nest


class _Watch:
    """Runs the nests one after the other and looks at everything between them."""

    def __init__(self, compilation: Compilation, sources: Sequence[Array], audit: Audit) -> None:
        self.compilation, self.audit = compilation, audit
        self.plan, self.fusion, self.nests = compilation.plan, compilation.fusion, compilation.loops.nests
        self.memory = _Memory(compilation, sources)
        self.shadow = self.memory.block.copy()
        self.values = dict(zip(self.fusion.graph.sources, map(whole, map(np.array, sources))))
        self.values |= {node: np.asarray(node.value) for node in self.plan.constants}
        self.groups = _groups_of(compilation)
        self.last = {
            node: k
            for k, groups in enumerate(self.groups)
            for group in groups
            for node in (*group.reads, *group.stores)
        }
        self.evaluator = Evaluator()
        self.answers: dict[int, bool] = {}

    def run(self, parts: Native) -> None:
        """Every nest with what comes before and after it."""
        run_one = parts.lookup(parts.entry, ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
        table, hosts = (
            ctypes.addressof(self.memory.table),
            Segments(parts, self.compilation, self.memory.table),
        )
        for k, nest in enumerate(self.nests):
            writes = _written(nest)
            self._look_at_operands(k)
            host = host_call(nest)
            if host is None:
                run_one(table, k)
            else:
                hosts.run(host)
            self._look_at_memory(k, writes)
            for group in self.groups[k]:
                for node in group.stores if group.check is None else ():
                    self.values[node] = self.memory.array_of(self.plan.buffers[node])
            for group in self.groups[k] if host is None else []:
                self._compare(group)
            for node in [node for node in self.values if self.last.get(node, -1) == k]:
                del self.values[node]
        self._look_at_checks()

    def _look_at_operands(self, k: int) -> None:
        """What a nest is about to read must be what was stored. Of some operands it needs the shape only."""
        told: set[Node] = set()
        touched = set(buffers_of(self.nests[k]))
        here = {node for group in self.groups[k] if group.check is None for node in group.stores}
        for group in self.groups[k]:
            for node in group.reads:
                buffer = self.plan.buffers.get(node)
                if node in here or node in told or buffer not in touched or node not in self.values:
                    continue
                if self.memory.array_of(buffer).tobytes() != self.values[node].tobytes():
                    told.add(node)
                    text = f"its memory was overwritten before {describe(group.root)} has read it"
                    self.audit.differences.append(Difference("memory", node, text))

    def _look_at_memory(self, k: int, writes: set[Buffer]) -> None:
        """A nest may write its own buffers and the scratch space only."""
        for region in (*map(self.memory.bytes_of, writes), self.memory.scratch):
            start = address(region) - address(self.memory.block) if region.size else 0
            self.shadow[start : start + region.size] = region
        words, before = self.memory.block.view(np.uint64), self.shadow.view(np.uint64)
        if np.array_equal(words, before):
            return
        changed = np.flatnonzero(self.memory.block != self.shadow)
        text = f"this nest has written {changed.size} bytes outside its own memory, {self._owner(int(changed[0]))}"
        node = self.groups[k][0].root if self.groups[k] else self.fusion.graph.roots[0]
        self.audit.differences.append(Difference("memory", node, text, wrong=int(changed.size)))
        self.memory.block[:] = self.shadow  # put back, so that nobody else is blamed for it

    def _owner(self, offset: int) -> str:
        """Whose memory a byte of the block is."""
        place = address(self.memory.block) + offset
        for node, buffer in self.plan.buffers.items():
            region = self.memory.bytes_of(buffer)
            if node in self.values and region.size and 0 <= place - address(region) < region.size:
                return f"the first in that of {describe(node)}"
        return "the first where nothing is kept"

    # ------------------------------------------------------------------------------- one group

    def _compare(self, group: Group) -> None:
        """One stored value, or one check, with what the interpreter makes of the same operands."""
        known = {node: exact(self._value(node)) for node in group.reads}
        if group.parts:
            self._compare_steps(group, known)
            return
        order = [
            *group.inlined,
            *([] if group.check is not None or group.root in group.inlined else [group.root]),
        ]
        try:
            wanted = self.evaluator.all([node for node in order if node not in known], known)[group.root]
        except IndexError:  # a label or token outside its range: the step's own check says so
            self.audit.undecided += int(np.prod(group.root.shape, dtype=object))
            return
        if group.check is not None:
            self.audit.values += 1
            self._compare_check(group, wanted)
            return
        self._compare_value(group, wanted, known)

    def _value(self, node: Node) -> Array | None:
        """What is stored for a node; what has no elements is stored by no nest."""
        if node not in self.values and node.value is None and 0 in node.shape:
            return np.empty(node.shape, node.dtype)
        found: Array | None = self.values.get(node, node.value)
        return found

    def _compare_value(self, group: Group, wanted: Bounded, known: dict[Node, Bounded]) -> None:
        """What is stored for the root of a group."""
        self.audit.values += 1
        got = self.values[group.root]
        self.audit.elements += got.size
        differs, unknown, share = disagreements(got, wanted, group.root.dtype)
        self.audit.undecided += int(np.count_nonzero(unknown))
        self.audit.worst = max(self.audit.worst, share)
        if differs.any():
            self.audit.differences.append(self._difference(group, got, wanted, differs, known))

    def _compare_steps(self, group: Group, known: dict[Node, Bounded]) -> None:
        """Every result of a loop over time that is stored."""
        got = {part.attributes["index"]: self.values[part] for part in group.parts}
        carries = group.root.attributes["carries"]
        stacked = {index: array for index, array in got.items() if index >= carries}
        try:
            wanted = self.evaluator.steps(group.root, [known[one] for one in group.root.inputs], stacked)
        except IndexError:  # an index outside its range: the step's own check says so
            self.audit.undecided += sum(array.size for array in got.values())
            return
        for part in group.parts:
            index = part.attributes["index"]
            single = Group(part, [], [group.root])
            self._compare_value(single, wanted[index], known)

    def _difference(
        self, group: Group, got: Array, wanted: Bounded, differs: Array, known: dict[Node, Bounded]
    ) -> Difference:
        """The worst element, and the node of the group that is to blame."""
        index = _worst(got, wanted.value, differs)
        mine, expected = got[index].item(), wanted.value[index].item()
        allowed = 0.0 if wanted.error is None else float(np.broadcast_to(wanted.error, got.shape)[index])
        alone = _wrong_alone(group, known, self.evaluator)
        count = int(np.count_nonzero(differs))
        text = (
            f"machine code has {mine:.9g}{_place(index)}, the interpreter {expected:.9g} from the same operands "
            f"(rounding explains {allowed:.1g}); {count} of {got.size} elements differ"
        )
        if alone is not None and alone is not group.root:
            text += f". It is wrong by itself, and computed inside {describe(group.root)}"
        elif group.inlined:
            others = ", ".join(dict.fromkeys(node.operation.name for node in group.inlined))
            text += f". Computed in the same loop: {others}"
        inside = tuple(group.inlined)
        return Difference("value", alone or group.root, text, index, mine, expected, allowed, count, inside)

    def _compare_check(self, group: Group, wanted: Bounded) -> None:
        """A check holds if its condition holds everywhere."""
        assert group.check is not None
        self.audit.elements += 1
        sure = np.ones(wanted.value.shape, bool) if wanted.error is None else ~(wanted.error > 0)
        refuted, holds = bool((~wanted.value & sure).any()), bool((wanted.value & sure).all())
        answer = bool(self.memory.status[group.check])
        if not refuted and not holds:
            self.audit.undecided += 1
        elif answer is not holds:
            text = f"machine code says {answer} where the interpreter says {holds}"
            text += f" ({self.fusion.graph.checks[group.check].message})"
            self.audit.differences.append(Difference("check", group.root, text, (), answer, holds, 0.0, 1))

    def _look_at_checks(self) -> None:
        for check, holds in zip(self.fusion.graph.checks, self.memory.status):
            if not holds:
                rule = check.message.partition(";")[0]
                self.audit.failed.append(f"{rule}{at(check.origin)}")


def _groups_of(compilation: Compilation) -> list[list[Group]]:
    """For every nest the groups that it computes."""
    plan = compilation.plan
    by_buffer: dict[Buffer, int] = {}
    by_check: dict[int, int] = {}
    for k, nest in enumerate(compilation.loops.nests):
        for buffer, number in _stores(nest):
            if buffer is plan.status:
                by_check.setdefault(number, k)
            else:
                by_buffer.setdefault(buffer, k)
    found: list[list[Group]] = [[] for _ in compilation.loops.nests]
    for group in compilation.fusion.groups:
        if group.check is not None:
            place = by_check.get(group.check)
        else:
            places = [by_buffer[plan.buffers[one]] for one in group.stores if plan.buffers[one] in by_buffer]
            place = min(places, default=None)
        if place is not None:  # what has no elements has no loops
            found[place].append(group)
    return found


def _stores(nest: Nest) -> Iterable[tuple[Buffer, int]]:
    """(buffer, first element) of everything that a nest writes."""
    for one in walk(nest.body):
        if isinstance(one, Store):
            if one.buffer.place != "local":
                yield one.buffer, one.index.constant
        elif isinstance(one, Contraction):
            yield one.out[0], 0
            if one.finite is not None:
                yield one.finite[0], one.finite[1].constant
        elif isinstance(one, Host | Recurrence):
            yield from ((buffer, 0) for buffer in one.writes)


def _written(nest: Nest) -> set[Buffer]:
    return {buffer for buffer, _ in _stores(nest)}


def _worst(got: Array, wanted: Array, differs: Array) -> tuple[int, ...]:
    """Where two arrays differ most; a NaN or infinity on one side counts most."""
    with np.errstate(all="ignore"):
        away = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    away = np.where(differs, np.where(np.isnan(away), np.inf, away), -1.0)
    return tuple(int(k) for k in np.unravel_index(int(np.argmax(away)), got.shape))


def _place(index: tuple[int, ...]) -> str:
    return f" at {list(index)}" if index else ""


# ------------------------------------------------------------------------------------------- one node alone


def _wrong_alone(group: Group, known: dict[Node, Bounded], evaluator: Evaluator) -> Node | None:
    """The first node of a group whose machine code is wrong by itself, compiled and run alone; None if none is."""
    inside = [*group.inlined, group.root]
    if any(node not in known and node not in inside for one in inside for node in one.inputs):
        return None  # one of several results: a loop over time does not stand alone
    values = evaluator.all([node for node in inside if node not in known], known)
    for node in inside:
        if isinstance(getattr(node.operation, "lowering", None), View):
            continue
        inputs = tuple(
            one if one.operation is CONSTANT else Node(INPUT, type=one.types) for one in node.inputs
        )
        free = [k for k, one in enumerate(inputs) if one.operation is INPUT]
        if not free:
            continue
        graph = Graph("part", tuple(inputs[k] for k in free), (remake(node, inputs),))
        compilation = compile_graph(graph)
        given = [_rounded(values[node.inputs[k]], inputs[k].dtype) for k in free]
        memory = _Memory(compilation, given)
        memory.run(compilation, compilation.native()[0])
        (result,) = compilation.laid_out.outputs
        buffer = compilation.plan.buffers.get(result)
        if buffer is None or not buffer.size:
            continue
        operands = dict(zip(free, map(exact, given)))
        wanted = evaluator.node(node, [operands.get(k) or exact(one.value) for k, one in enumerate(inputs)])
        if disagreements(memory.array_of(buffer), wanted, node.dtype)[0].any():
            return node
    return None


def _rounded(value: Bounded, dtype: Any) -> Array:
    with np.errstate(all="ignore"):
        return value.value.astype(dtype)


# ------------------------------------------------------------------------------------------- the whole


def _compare_builds(
    compilation: Compilation, sources: Sequence[Array], made: Native, watch: _Watch, audit: Audit
) -> None:
    """The step as it is must give the same bits as its nests one by one."""
    memory, plan = _Memory(compilation, sources), compilation.plan
    refused = memory.run(compilation, made)
    leaving = [*plan.results, *compilation.fusion.in_place]
    if refused:
        leaving = [node for node in plan.results if node not in compilation.fusion.late]
    for node in leaving:
        buffer = plan.buffers[node]
        one, other = memory.array_of(buffer), watch.memory.array_of(buffer)
        if one.tobytes() != other.tobytes():
            differs = _bits(one) != _bits(other)
            index = _worst(one, other, differs.reshape(one.shape))
            text = (
                f"the step gives {one[index].item():.9g}{_place(index)}, its nests run one by one "
                f"{other[index].item():.9g}"
            )
            audit.differences.append(
                Difference(
                    "build",
                    node,
                    text,
                    index,
                    one[index].item(),
                    other[index].item(),
                    0.0,
                    int(differs.sum()),
                )
            )
    if refused is not bool(audit.failed):
        node = compilation.fusion.graph.checks[0].condition
        audit.differences.append(
            Difference("build", node, f"the step {'was' if refused else 'was not'} refused")
        )
    if refused:
        _compare_kept(compilation, sources, memory, audit)


def _compare_kept(compilation: Compilation, sources: Sequence[Array], memory: _Memory, audit: Audit) -> None:
    """A refused step has changed nothing that it was given."""
    for node, array, region in zip(compilation.fusion.graph.sources, sources, memory.regions):
        if whole(array).tobytes() != region.tobytes():
            audit.differences.append(Difference("build", node, "a refused step has changed it"))


def _bits(array: Array) -> Array:
    """Each element as an integer of its size."""
    return array.reshape(-1).view(f"u{array.dtype.itemsize}")


def _compare_graphs(compilation: Compilation, sources: Sequence[Array], audit: Audit) -> None:
    """The graph that was compiled must compute what was traced: both in float64, up to its roundings."""
    traced, compiled = compilation.graph, compilation.laid_out
    if any(len(node.types) > 1 or _holds_graphs(node) for node in traced.nodes()):
        return
    given = dict(zip(compiled.sources, sources))
    given |= {
        node: np.zeros(node.shape, node.dtype) for node in traced.sources if node not in given
    }  # not needed
    pairs = list(zip(traced.outputs, compiled.outputs))
    for slot, node in traced.writes.items():
        other = compiled.writes.get(slot)
        if node is not None and other is not None:
            pairs.append((node, other))
    try:
        values = [Evaluator(fine=True, bounded=False).graph(one, given) for one in (traced, compiled)]
        if all(_nearly(values[0][before].value, values[1][after].value) for before, after in pairs):
            return
        values = [Evaluator(fine=True).graph(one, given) for one in (traced, compiled)]
    except IndexError:  # a label or token outside its range: the step's own check says so
        return
    for before, after in pairs:
        _compare_results(after, values[0][before], values[1][after], audit)


def _nearly(one: Array, other: Array) -> bool:
    """Whether two arrays are equal but for the order in which a product adds up."""
    scale = float(np.abs(one[np.isfinite(one)]).max(initial=0.0)) if one.dtype.kind == "f" else 0.0
    with np.errstate(all="ignore"):
        return bool(np.allclose(one, other, rtol=1e-13, atol=1e-14 * scale, equal_nan=True))


def _compare_results(node: Node, wanted: Bounded, mine: Bounded, audit: Audit) -> None:
    """One result of the compiled graph beside the traced one's, both with bounds."""
    allowed = sum(np.zeros(wanted.value.shape) if e is None else e for e in (mine.error, wanted.error))
    differs, _, _ = disagreements(mine.value, Bounded(wanted.value, np.asarray(allowed)), wanted.value.dtype)
    if not differs.any():
        return
    index, count = _worst(mine.value, wanted.value, differs), int(np.count_nonzero(differs))
    got, expected = mine.value[index].item(), wanted.value[index].item()
    text = f"the simplified graph computes {got:.9g}{_place(index)}, the traced one {expected:.9g}"
    audit.differences.append(Difference("graph", node, text, index, got, expected, wrong=count))


def _holds_graphs(node: Node) -> bool:
    return any(isinstance(value, Graph) for value in node.attributes.values())
