"""A loop over time → the nests of one step, and a function that runs them step after step.

The body is compiled once, like a small step of its own. What it reads and writes lies in buffers outside, one place
further at each step; what it hands on goes to one of two places in turn, or straight to where it is kept. So neither
the time to compile nor the size of the code depends on the number of steps.
Knows graphs, plans and loops; knows nothing of tensors, and nothing of llvmlite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..config import config
from ..graph import Node
from .forms import steps_of
from .fuse import fuse
from .layout import layout
from .loops import Bound, Carry, Loops, Recurrence, buffers_of
from .merge import merge
from .orders import orders
from .plan import Buffer, Plan, arrange, plan

# ------------------------------------------------------------------------------------------- graph → loops


def recurrence(outer: Plan, root: Node, parts: Sequence[Node], lower: Callable[[Plan], Loops]) -> Recurrence:
    """The loop over time of a node, whose results that are read are `parts`; `lower` writes the nests of a plan."""
    return _Writing(outer, root, parts, lower).finish()


class _Writing:
    """Writes one loop over time."""

    def __init__(
        self, outer: Plan, root: Node, parts: Sequence[Node], lower: Callable[[Plan], Loops]
    ) -> None:
        self.outer, self.root, self.steps = outer, root, steps_of(root)
        self.results = {part.attributes["index"]: outer.buffers[part] for part in parts}
        self.body = layout(self.steps.body) if "layout" not in config.skip else self.steps.body
        placed = orders(self.body) if "layout" not in config.skip else {}
        self.inner = plan(fuse(self.body, "fuse" not in config.skip, placed))
        loops = lower(self.inner)
        self.loops = loops if "merge" in config.skip else merge(loops)
        touched = [buffers_of(nest) for nest in self.loops.nests]
        arrange(self.inner, touched, sharing="arena" not in config.skip)
        self.bound: dict[Buffer, Bound] = {}
        self.carries: list[Carry] = []

    def finish(self) -> Recurrence:
        """Every buffer of the body bound to one outside."""
        self._bind_results()
        self._bind_inputs()
        self._bind_constants()
        rooms = [self.outer.take(self.inner.arena)] if self.inner.arena else []
        for one in self.inner.temporary:
            self.bound[one] = Bound(rooms[0] if rooms else None, one.offset)
        starts = [one.start for one in self.carries]
        given = [bound.outer for bound in self.bound.values() if bound.outer is not None]
        spare = [buffer for one in self.carries for buffer in one.spare]
        writes = dict.fromkeys([*self.results.values(), *rooms, *spare])
        reads = dict.fromkeys(one for one in (*starts, *given) if one is not None and one not in writes)
        return Recurrence(
            self.loops,
            self.steps.length,
            self.steps.reverse,
            self.bound,
            self.carries,
            list(reads),
            list(writes),
        )

    def _operand(self, k: int) -> Buffer | None:
        """Where an operand lies; nowhere if it has no elements."""
        return self.outer.buffers.get(self.root.inputs[k])

    def _bind_results(self) -> None:
        """Stacked results at the place of their step; carries where they are kept, or in two places in turn."""
        steps, outputs = self.steps, self.body.outputs
        kept: dict[Node, Buffer] = {}
        for k in range(steps.carries, len(outputs)):
            inside = self.inner.buffers[outputs[k]]
            outside = self.results.get(k)
            kept[outputs[k]] = inside if outside is None else outside
            if outputs[k] not in self.body.inputs:
                room = self.outer.take(inside.bytes) if outside is None else outside
                self.bound[inside] = Bound(room, 0, 0 if outside is None else inside.bytes)
                if outside is None:
                    del kept[outputs[k]]
        for k in range(steps.carries):
            before, after = self.body.inputs[k], outputs[k]
            size = self.inner.buffers[before].bytes
            along, ahead = kept.get(after), False
            if along is None and before in kept and self.results.get(outputs.index(before, steps.carries)):
                along, ahead = kept[before], True
            spare = (self.outer.take(size), self.outer.take(size))
            self.carries.append(Carry(size, self._operand(k), self.results.get(k), spare, along, ahead))
            self.bound[self.inner.buffers[before]] = Bound(None, role="in", carry=k)
            if along is None or ahead:
                self.bound[self.inner.buffers[after]] = Bound(None, role="out", carry=k)

    def _bind_inputs(self) -> None:
        steps = self.steps
        for k in range(steps.carries, len(self.body.inputs)):
            inside = self.inner.buffers[self.body.inputs[k]]
            moves = k < steps.carries + steps.stacked
            self.bound[inside] = Bound(self._operand(k), 0, inside.bytes if moves else 0)

    def _bind_constants(self) -> None:
        """Tables of the body are tables of the whole."""
        outer = self.outer
        for node in self.inner.constants:
            if node not in outer.buffers:
                name = self.inner.buffers[node].name
                outer.buffers[node] = Buffer(name, node.type, "constant", len(outer.constants))
                outer.constants.append(node)
            self.bound[self.inner.buffers[node]] = Bound(outer.buffers[node])


# ------------------------------------------------------------------------------------------- loops → LLVM


class Called(Protocol):
    """A nest's function with the buffers and further arguments that it is given."""

    @property
    def name(self) -> str:
        """The function's name."""

    @property
    def buffers(self) -> list[Buffer]:
        """Whose pointers it takes."""

    @property
    def more(self) -> tuple[str, ...]:
        """What it takes besides, with types."""


class Stepping:
    """The function that runs the nests of a loop over time: one of all its buffers, scratch, board and steps."""

    def __init__(self, one: Recurrence, calls: Sequence[Called]) -> None:
        self.one, self.calls = one, calls
        self.buffers = list(dict.fromkeys((*one.reads, *one.writes)))
        self.pointers = {buffer: f"%p{k}" for k, buffer in enumerate(self.buffers)}
        self.before: list[str] = []
        self.lines: list[str] = []
        self.places: dict[Buffer, str] = {}

    def text(self) -> str:
        """The whole definition, named @NEST until its name is known."""
        carries = list(enumerate(self.one.carries))
        for k, carry in carries:
            self._write_carry(k, carry)
        for call in self.calls:
            given = [f"ptr {self._place(buffer)}" for buffer in call.buffers]
            self.lines.append(f"  call void @{call.name}({', '.join([*given, *call.more])})")
        given = [f"ptr {self.pointers[one]}" for one in self.buffers]
        parameters = [*given, "ptr %scratch", "ptr %board", "i64 %length"]
        first = "%last" if self.one.reverse else "0"
        return "\n".join([
            f"define internal void @NEST({', '.join(parameters)}) noinline {{",
            "entry:",
            "  %last = sub nsw i64 %length, 1",
            "  %any = icmp sgt i64 %length, 0",
            "  br i1 %any, label %begin, label %never",
            "never:",
            *(self._copy(one, self._outer(one.start), one.final) for _, one in carries if one.final is not None),
            "  ret void",
            "begin:",
            *(line for k, one in carries for line in self._begin(k, one, first)),
            *self.before,
            "  br label %head",
            "head:",
            "  %i = phi i64 [ 0, %begin ], [ %following, %head ]",
            *(f"  %in.{k} = phi ptr [ {self._outer(one.start)}, %begin ], [ %out.{k}, %head ]"
              for k, one in carries if not one.ahead),
            f"  %t = {'sub nsw i64 %last, %i' if self.one.reverse else 'add i64 %i, 0'}",
            f"  %further = {'sub' if self.one.reverse else 'add'} nsw i64 %t, 1",
            "  %ends = icmp eq i64 %i, %last",
            "  %following = add nuw nsw i64 %i, 1",
            "  %odd = trunc i64 %i to i1",
            *self.lines,
            "  br i1 %ends, label %end, label %head",
            "end:",
            *(self._copy(one, f"%out.{k}", one.final)
              for k, one in carries if one.final is not None and one.along is not None and not one.ahead),
            "  ret void",
            "}",
        ])  # fmt: skip

    def _outer(self, buffer: Buffer | None) -> str:
        return "null" if buffer is None else self.pointers[buffer]

    def _copy(self, carry: Carry, source: str, target: Buffer | None) -> str:
        """All bytes of a carry; where there are none, nothing."""
        if not carry.bytes:
            return "  ; nothing to copy"
        return f"  call ptr @memcpy(ptr {self._outer(target)}, ptr {source}, i64 {carry.bytes})"

    def _begin(self, k: int, carry: Carry, first: str) -> list[str]:
        """What is kept ahead starts with what is given."""
        if not carry.ahead:
            return []
        return [
            f"  %first.{k} = mul nsw i64 {first}, {carry.bytes}",
            f"  %begin.{k} = getelementptr i8, ptr {self._outer(carry.along)}, i64 %first.{k}",
            f"  call ptr @memcpy(ptr %begin.{k}, ptr {self._outer(carry.start)}, i64 {carry.bytes})",
        ]

    def _write_carry(self, k: int, carry: Carry) -> None:
        """%in.k, where step t reads it, and %out.k, where it writes it."""
        spare = [self.pointers[one] for one in carry.spare]
        if carry.along is not None:
            step = "%further" if carry.ahead else "%t"
            target = "after" if carry.ahead else "out"
            self.lines += [
                f"  %far.{k} = mul nsw i64 {step}, {carry.bytes}",
                f"  %{target}.{k} = getelementptr i8, ptr {self._outer(carry.along)}, i64 %far.{k}",
            ]
        if carry.ahead:
            final = spare[0] if carry.final is None else self.pointers[carry.final]
            self.lines += [
                f"  %near.{k} = mul nsw i64 %t, {carry.bytes}",
                f"  %in.{k} = getelementptr i8, ptr {self._outer(carry.along)}, i64 %near.{k}",
                f"  %out.{k} = select i1 %ends, ptr {final}, ptr %after.{k}",
            ]
        elif carry.along is None:
            turn = f"select i1 %odd, ptr {spare[1]}, ptr {spare[0]}"
            if carry.final is None:
                self.lines.append(f"  %out.{k} = {turn}")
            else:
                self.lines += [
                    f"  %turn.{k} = {turn}",
                    f"  %out.{k} = select i1 %ends, ptr {self.pointers[carry.final]}, ptr %turn.{k}",
                ]

    def _place(self, buffer: Buffer) -> str:
        """The pointer to a buffer of the body at this step."""
        if buffer not in self.places:
            bound, number = self.one.bound[buffer], len(self.places)
            if bound.role:
                self.places[buffer] = f"%{bound.role}.{bound.carry}"
            elif bound.outer is None or not (bound.offset or bound.stride):
                self.places[buffer] = self._outer(bound.outer)
            else:
                self.places[buffer] = f"%at.{number}"
                base = self.pointers[bound.outer]
                if bound.stride:
                    self.lines.append(f"  %away.{number} = mul nsw i64 %t, {bound.stride}")
                    self.lines.append(f"  %at.{number} = getelementptr i8, ptr {base}, i64 %away.{number}")
                else:
                    self.before.append(f"  %at.{number} = getelementptr i8, ptr {base}, i64 {bound.offset}")
        return self.places[buffer]
