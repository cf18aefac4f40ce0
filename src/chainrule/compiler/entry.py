"""The entry of a module: every nest's function called in order, with the buffers' addresses; the checks; the commit.

Few calls are written out. Many, if they are alike, are read from a list of numbers that a loop walks through: code
grows with the forms of calls only, because LLVM needs more than twice the time for twice the length of one function.
Knows buffers and their places; knows nothing of what the functions compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .plan import Buffer, Plan

# More calls than this are read from a list, which takes 2 ns longer for each of them.
_MOST_WRITTEN = 256
# And so many of a form on average: else the ways to read them are more code than the calls.
_LEAST_ALIKE = 8

FUNCTIONS = "@cr_functions = internal constant "
"""How the line begins that lists the functions which are called through their addresses only."""


class Call(NamedTuple):
    """A nest's function with the buffers and further arguments that it is given.

    `starts`: buffers that it is given from another element on than the first.
    """

    name: str
    buffers: list[Buffer]
    more: tuple[str, ...]
    starts: dict[Buffer, int]


Calls = Sequence[Call | None]


def entry_text(computing: Calls, committing: Calls, plan: Plan, one_by_one: bool) -> str:
    """The whole step: addresses out of the table, nest after nest, and the commit only if every check holds.

    Returns 0, or 1 if a check has failed. None stands for a call of NumPy, before which a segment ends.
    `one_by_one`: only the nest whose number is given.
    """
    table = _Table(plan)
    calls = [_form_of(one) for one in (*computing, *committing) if one is not None]
    many = len(calls) > _MOST_WRITTEN and len(calls) >= _LEAST_ALIKE * len(set(calls))
    kind = _Listed if many else _Written
    numbered = one_by_one or None in computing
    return kind(table, "i64 %number" if numbered else "").text(computing, committing, one_by_one)


def _form_of(one: Call) -> tuple[int, tuple[str, ...]]:
    """What calls have in common that are read from a list in one way: how many buffers, what else, numbers apart."""
    return len(one.buffers), tuple("i64" if more.startswith("i64 ") else more for more in one.more)


class _Table:
    """Where addresses stand in the table that the entry is given."""

    def __init__(self, plan: Plan) -> None:
        sources, constants = len(plan.fusion.graph.sources), len(plan.constants)
        self._first = {"source": 0, "constant": sources, "result": sources + constants}
        self.arena = sources + constants + len(plan.results)
        self.status, self.scratch, self.board, self.done = range(self.arena + 1, self.arena + 5)
        self.checks = plan.status.size

    def place(self, buffer: Buffer, start: int) -> tuple[int, int]:
        """(slot, bytes behind the address in it)."""
        if buffer.place == "arena":
            return self.arena, buffer.offset
        if buffer.place == "status":
            return self.status, start
        return self._first[buffer.place] + buffer.index, 0


def _slot(name: str, number: int) -> list[str]:
    """Load an address out of the table."""
    return [
        f"  %{name}.slot = getelementptr inbounds ptr, ptr %table, i64 {number}",
        f"  %{name} = load ptr, ptr %{name}.slot, align 8",
    ]


class _Written:
    """An entry with every call written out."""

    def __init__(self, table: _Table, number: str) -> None:
        self.table, self.number = table, number
        self.lines: list[str] = []
        self.pointers: dict[tuple[Buffer, int], str] = {}

    def text(self, computing: Calls, committing: Calls, one_by_one: bool) -> str:
        """The definition of @ENTRY, and what it needs."""
        parameters = ", ".join(["ptr noalias %table", *([self.number] if self.number else [])])
        for one in (*computing, *committing):
            self.locate(one)
        body = self.one_of((*computing, *committing)) if one_by_one else self.step(computing, committing)
        head = [f"define i32 @ENTRY({parameters}) {{", "entry:"]
        for name in ("arena", "status", "scratch", "board"):
            head += _slot(name, getattr(self.table, name))
        return "\n".join([*head, *self.lines, *body, "}"])

    def step(self, computing: Calls, committing: Calls) -> list[str]:
        """The calls, and those that commit if every check holds."""
        return [
            *self.segments(computing),
            *self.all_hold(),
            "  br i1 %hold, label %commit, label %failed",
            "commit:",
            *self.run(committing),
            f"  %done = getelementptr inbounds ptr, ptr %table, i64 {self.table.done}",
            "  store i64 1, ptr %done, align 8",
            "  ret i32 0",
            "failed:",
            "  ret i32 1",
        ]

    def locate(self, one: Call | None) -> None:
        """Work out the addresses that a call needs."""
        for buffer in () if one is None else one.buffers:
            key = buffer, one.starts.get(buffer, 0)  # type: ignore[union-attr]
            if key in self.pointers:
                continue
            name = f"b{len(self.pointers)}"
            slot, offset = self.table.place(*key)
            base = {self.table.arena: "%arena", self.table.status: "%status"}.get(slot)
            if base is None:
                self.lines += _slot(name, slot)
            else:
                self.lines.append(f"  %{name} = getelementptr inbounds i8, ptr {base}, i64 {offset}")
            self.pointers[key] = f"%{name}"

    def run(self, calls: Calls) -> list[str]:
        """One call after the other."""
        return [self.call(one) for one in calls if one is not None]

    def call(self, one: Call) -> str:
        """The call of one nest's function."""
        given = [f"ptr {self.pointers[buffer, one.starts.get(buffer, 0)]}" for buffer in one.buffers]
        return f"  call void @{one.name}({', '.join([*given, *one.more])})"

    def segments(self, calls: Calls) -> list[str]:
        """All calls; where NumPy is called between some, only those of the segment whose number is given."""
        count = calls.count(None)
        if not count:
            return self.run(calls)
        targets = " ".join(f"i64 {k}, label %segment.{k}" for k in range(count))
        lines = [f"  switch i64 %number, label %segment.{count} [ {targets} ]"]
        rest = list(calls)
        for number in range(count + 1):
            end = rest.index(None) if number < count else len(rest)
            lines += [f"segment.{number}:", *self.run(rest[:end])]
            lines += ["  ret i32 0"] if number < count else []
            rest = rest[end + 1 :]
        return lines

    def one_of(self, calls: Calls) -> list[str]:
        """The call whose number is given; none for any other number."""
        targets = " ".join(f"i64 {k}, label %nest.{k}" for k in range(len(calls)))
        lines = [f"  switch i64 %number, label %over [ {targets} ]"]
        for k, call in enumerate(calls):
            lines += [f"nest.{k}:", *self.run([call]), "  br label %over"]
        return [*lines, "over:", "  ret i32 0"]

    def all_hold(self) -> list[str]:
        """Whether every check holds, as %hold."""
        lines = ["  %all.0 = add i8 1, 0"]
        for k in range(self.table.checks):
            lines += [
                f"  %at.{k} = getelementptr inbounds i8, ptr %status, i64 {k}",
                f"  %one.{k} = load i8, ptr %at.{k}",
                f"  %all.{k + 1} = and i8 %all.{k}, %one.{k}",
            ]
        return [*lines, f"  %hold = icmp ne i8 %all.{self.table.checks}, 0"]


class _Listed(_Written):
    """An entry that reads its calls from a list of numbers.

    For each call there stand the number of its way and of the nest's function; for each buffer, a slot of the table and
    how many bytes behind the address in it; the numbers among the further arguments. A way is a function that reads
    those, calls the nest's and returns where the next call stands. Calls of one form go one way. Of the functions only
    the addresses are in a table, so they may be machine code of another module (`parts.py`).
    """

    def __init__(self, table: _Table, number: str) -> None:
        super().__init__(table, number)
        self.words: list[int] = []
        self.functions: dict[str, int] = {}
        self.ways: dict[tuple[int, tuple[str, ...]], int] = {}

    def text(self, computing: Calls, committing: Calls, one_by_one: bool) -> str:
        """The entry, the ways, and the function that walks through the list."""
        entry = super().text(computing, committing, one_by_one)
        ways = ", ".join(f"ptr @cr_way_{number}" for number in self.ways.values())
        functions = ", ".join(f"ptr @{name}" for name in self.functions)
        words = ", ".join(f"i64 {word}" for word in self.words)
        return "\n\n".join([
            f"@cr_ways = internal constant [{len(self.ways)} x ptr] [{ways}]",
            f"{FUNCTIONS}[{len(self.functions)} x ptr] [{functions}]",
            f"@cr_words = internal constant [{len(self.words)} x i64] [{words}]",
            *(self.way(number, *way) for way, number in self.ways.items()),
            _WALK,
            entry,
        ])  # fmt: skip

    def locate(self, one: Call | None) -> None:
        """Nothing: the ways do it."""

    def run(self, calls: Calls) -> list[str]:
        """Put the calls on the list, and walk through that part of it."""
        begin = len(self.words)
        for one in calls:
            if one is None:
                continue
            self.words.append(self.ways.setdefault(_form_of(one), len(self.ways)))
            self.words.append(self.functions.setdefault(one.name, len(self.functions)))
            for buffer in one.buffers:
                self.words += self.table.place(buffer, one.starts.get(buffer, 0))
            self.words += [int(more[4:]) for more in one.more if more.startswith("i64 ")]
        if begin == len(self.words):
            return []
        return [f"  call void @cr_walk(ptr %table, i64 {begin}, i64 {len(self.words)})"]

    def way(self, number: int, buffers: int, more: tuple[str, ...]) -> str:
        """The function that makes a call of a form with what the list says."""
        lines = [f"define internal ptr @cr_way_{number}(ptr %table, ptr %word) noinline {{", "entry:"]
        for needed in ("scratch", "board"):
            if f"ptr %{needed}" in more:
                lines += _slot(needed, getattr(self.table, needed))
        lines += [
            *_word("number", 1),
            "  %function.at = getelementptr ptr, ptr @cr_functions, i64 %number",
            "  %function = load ptr, ptr %function.at, align 8",
        ]
        for k in range(buffers):
            lines += [
                *_word(f"slot.{k}", 2 * k + 2),
                *_word(f"bytes.{k}", 2 * k + 3),
                f"  %base.at.{k} = getelementptr ptr, ptr %table, i64 %slot.{k}",
                f"  %base.{k} = load ptr, ptr %base.at.{k}, align 8",
                f"  %p{k} = getelementptr i8, ptr %base.{k}, i64 %bytes.{k}",
            ]
        given, length = [f"ptr %p{k}" for k in range(buffers)], 2 * buffers + 2
        for kind in more:
            if kind == "i64":
                lines += _word(f"given.{length}", length)
                given.append(f"i64 %given.{length}")
                length += 1
            else:
                given.append(kind)
        return "\n".join([
            *lines,
            f"  call void %function({', '.join(given)})",
            f"  %next = getelementptr i64, ptr %word, i64 {length}",
            "  ret ptr %next",
            "}",
        ])  # fmt: skip

    def all_hold(self) -> list[str]:
        """The checks, in a loop."""
        return [
            f"  %all = call i8 @cr_all(ptr %status, i64 {self.table.checks})",
            "  %hold = icmp ne i8 %all, 0",
        ]


def _word(name: str, place: int) -> list[str]:
    """Load a number that stands in a call's part of the list."""
    return [
        f"  %{name}.at = getelementptr i64, ptr %word, i64 {place}",
        f"  %{name} = load i64, ptr %{name}.at, align 8",
    ]


_WALK = """\
define internal void @cr_walk(ptr %table, i64 %begin, i64 %end) noinline {
entry:
  %first = getelementptr i64, ptr @cr_words, i64 %begin
  %last = getelementptr i64, ptr @cr_words, i64 %end
  br label %head
head:
  %word = phi ptr [ %first, %entry ], [ %next, %head ]
  %number = load i64, ptr %word, align 8
  %at = getelementptr ptr, ptr @cr_ways, i64 %number
  %way = load ptr, ptr %at, align 8
  %next = call ptr %way(ptr %table, ptr %word)
  %over = icmp eq ptr %next, %last
  br i1 %over, label %end.of.list, label %head
end.of.list:
  ret void
}

define internal i8 @cr_all(ptr %status, i64 %count) noinline {
entry:
  br label %head
head:
  %k = phi i64 [ 0, %entry ], [ %following, %one ]
  %all = phi i8 [ 1, %entry ], [ %both, %one ]
  %over = icmp eq i64 %k, %count
  br i1 %over, label %end, label %one
one:
  %at = getelementptr inbounds i8, ptr %status, i64 %k
  %flag = load i8, ptr %at
  %both = and i8 %all, %flag
  %following = add i64 %k, 1
  br label %head
end:
  ret i8 %all
}"""
