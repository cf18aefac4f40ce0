"""Writing LLVM's textual IR: fresh names, integer arithmetic that folds what is known, loops.

Knows LLVM's grammar; knows nothing of what is computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

Number = int | str
"""A 64-bit integer: known now, or a name."""

ROLLED = ", !llvm.loop !0"
"""Behind a loop's last branch: its turns are not to be written out one after the other."""
SINGLE = ", !llvm.loop !2"
"""The same, and they are taken one at a time: vectors would have to be gathered from far apart."""
MARKS_MEAN = frozenset((
    "!0 = distinct !{!0, !1}", '!1 = !{!"llvm.loop.unroll.disable"}',
    "!2 = distinct !{!2, !1, !3}", '!3 = !{!"llvm.loop.vectorize.enable", i1 false}',
))  # fmt: skip
"""What a module with such loops must say."""


class Writer:
    """Lines of one function's body."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.label = "entry"
        self._count = 0

    def new(self, prefix: str = "%t") -> str:
        """A fresh name."""
        self._count += 1
        return f"{prefix}{self._count}"

    def put(self, instruction: str) -> str:
        """One instruction with a result; its name."""
        name = self.new()
        self.lines.append(f"  {name} = {instruction}")
        return name

    def do(self, instruction: str) -> None:
        """One instruction without a result."""
        self.lines.append(f"  {instruction}")

    def start(self, label: str) -> None:
        """Go on in a new block."""
        self.lines.append(f"{label}:")
        self.label = label

    # ------------------------------------------------------------------------------- integers

    def add(self, x: Number, y: Number) -> Number:
        """x + y."""
        if isinstance(x, int) and isinstance(y, int):
            return x + y
        if x == 0 or y == 0:
            return y if x == 0 else x
        return self.put(f"add nsw i64 {x}, {y}")

    def multiply(self, x: Number, y: Number) -> Number:
        """x · y."""
        if isinstance(x, int) and isinstance(y, int):
            return x * y
        if x == 0 or y == 0:
            return 0
        if x == 1 or y == 1:
            return y if x == 1 else x
        return self.put(f"mul nsw i64 {x}, {y}")

    def smaller(self, x: Number, y: Number) -> Number:
        """The smaller of both."""
        if isinstance(x, int) and isinstance(y, int):
            return min(x, y)
        less = self.put(f"icmp slt i64 {x}, {y}")
        return self.put(f"select i1 {less}, i64 {x}, i64 {y}")

    def larger(self, x: Number, y: Number) -> Number:
        """The larger of both."""
        if isinstance(x, int) and isinstance(y, int):
            return max(x, y)
        more = self.put(f"icmp sgt i64 {x}, {y}")
        return self.put(f"select i1 {more}, i64 {x}, i64 {y}")

    def rest(self, whole: Number, part: Number) -> Number:
        """Whole − part."""
        if isinstance(whole, int) and isinstance(part, int):
            return whole - part
        return self.put(f"sub nsw i64 {whole}, {part}")

    def at(self, kind: str, pointer: str, index: Number) -> str:
        """The pointer moved by so many elements."""
        return (
            pointer if index == 0 else self.put(f"getelementptr inbounds {kind}, ptr {pointer}, i64 {index}")
        )

    # ------------------------------------------------------------------------------- loops

    @contextlib.contextmanager
    def between(self, begin: Number, end: Number) -> Iterator[Number]:
        """The body for begin, begin + 1 … below `end`; not at all if that is empty."""
        if isinstance(begin, int) and isinstance(end, int) and end - begin == 1:
            yield begin
            return
        before, head, after = self.label, self.new("head"), self.new("after")
        enters = self.put(f"icmp slt i64 {begin}, {end}")
        self.do(f"br i1 {enters}, label %{head}, label %{after}")
        self.start(head)
        index = self.new("%i")
        place = len(self.lines)
        yield index
        following = self.put(f"add nuw nsw i64 {index}, 1")
        more = self.put(f"icmp slt i64 {following}, {end}")
        self.do(f"br i1 {more}, label %{head}, label %{after}")
        self.lines.insert(
            place, f"  {index} = phi i64 [ {begin}, %{before} ], [ {following}, %{self.label} ]"
        )
        self.start(after)

    @contextlib.contextmanager
    def loop(self, stop: Number, step: int = 1, mark: str = "") -> Iterator[Number]:
        """The body for 0, step, 2·step … below `stop`; at least once: whoever calls knows that it is not empty.

        `mark`: what LLVM is told of the loop, ROLLED or SINGLE. The module needs `MARKS_MEAN` then.
        """
        if isinstance(stop, int) and stop <= step:
            yield 0
            return
        before, head, after = self.label, self.new("head"), self.new("after")
        self.do(f"br label %{head}")
        self.start(head)
        index = self.new("%i")
        place = len(self.lines)
        yield index
        following = self.put(f"add nuw nsw i64 {index}, {step}")
        more = self.put(f"icmp slt i64 {following}, {stop}")
        self.do(f"br i1 {more}, label %{head}, label %{after}{mark}")
        self.lines.insert(place, f"  {index} = phi i64 [ 0, %{before} ], [ {following}, %{self.label} ]")
        self.start(after)
