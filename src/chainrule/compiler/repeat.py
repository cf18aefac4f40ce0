"""LLVM text that runs a compiled step many times in one call: an epoch, or a part of one.

The step's function stays as it is. Around it stands a loop that does what Python does otherwise between two steps:
gather the rows of the next batch, call the step, and move what it has computed to where it belongs. So a step in the
loop gives the very bits that it gives alone, and the loop is one small function for all steps.

For batch k of `count` the rows order[k·rows … (k + 1)·rows) are copied from each data array into the step's input. The
step is called with its table of addresses. After a step whose checks hold, results are copied: into the cells that the
step does not write in place (always to the same place), and into lists of outputs (one place further each time). At
the first step whose checks fail the loop ends; nothing of that step is kept.

Knows addresses and bytes; knows nothing of graphs and of what a step computes.
"""

from __future__ import annotations

#: Numbers of a gather: address of the data, bytes of a row, address of the step's input.
GATHER = 3
#: Numbers of a move: from, to, bytes, how much further `to` is after each step.
MOVE = 4

NAME = "cr_repeat"
LIBRARIES = ("memcpy",)


def repeat_text() -> str:
    """`cr_repeat(step, table, order, rows, gathers, how many, moves, how many, count)` → steps that were made."""
    parameters = ", ".join([
        "ptr %step", "ptr %table", "ptr %order", "i64 %rows", "ptr %gathers", "i64 %inputs", "ptr %moves",
        "i64 %outputs", "i64 %count",
    ])  # fmt: skip
    lines = [
        f"define i64 @{NAME}({parameters}) {{",
        "entry:",
        "  br label %head",
        "head:",
        "  %k = phi i64 [ 0, %entry ], [ %following, %done ]",
        "  %more = icmp slt i64 %k, %count",
        "  br i1 %more, label %batch, label %end",
        "batch:",
        "  %first = mul i64 %k, %rows",
        "  %ordered = getelementptr i64, ptr %order, i64 %first",
        *_loop("g", "%inputs", "batch", "run", [
            *_numbers("%gathers", "%g", GATHER, "g"),
            *_loop("r", "%rows", "g.body", "g.next", [
                "  %r.place = getelementptr i64, ptr %ordered, i64 %r",
                "  %row = load i64, ptr %r.place, align 8",
                "  %r.from = mul i64 %row, %g.1",
                "  %r.to = mul i64 %r, %g.1",
                "  %r.data = inttoptr i64 %g.0 to ptr",
                "  %r.input = inttoptr i64 %g.2 to ptr",
                "  %r.source = getelementptr i8, ptr %r.data, i64 %r.from",
                "  %r.target = getelementptr i8, ptr %r.input, i64 %r.to",
                "  %r.copied = call ptr @memcpy(ptr %r.target, ptr %r.source, i64 %g.1)",
                "  br label %r.next",
            ]),
        ]),
        "run:",
        "  %failed = call i32 %step(ptr %table)",
        "  %holds = icmp eq i32 %failed, 0",
        "  br i1 %holds, label %keep, label %end",
        "keep:",
        *_loop("m", "%outputs", "keep", "done", [
            *_numbers("%moves", "%m", MOVE, "m"),
            "  %m.away = mul i64 %k, %m.3",
            "  %m.place = add i64 %m.1, %m.away",
            "  %m.from = inttoptr i64 %m.0 to ptr",
            "  %m.to = inttoptr i64 %m.place to ptr",
            "  %m.copied = call ptr @memcpy(ptr %m.to, ptr %m.from, i64 %m.2)",
            "  br label %m.next",
        ]),
        "done:",
        "  %following = add i64 %k, 1",
        "  br label %head",
        "end:",
        "  ret i64 %k",
        "}",
        "",
        "declare ptr @memcpy(ptr, ptr, i64)",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _loop(name: str, end: str, before: str, after: str, body: list[str]) -> list[str]:
    """A loop that counts `%name` from 0 to `end`; its body goes to `name.next` at last."""
    return [
        f"  br label %{name}.head",
        f"{name}.head:",
        f"  %{name} = phi i64 [ 0, %{before} ], [ %{name}.plus, %{name}.next ]",
        f"  %{name}.more = icmp slt i64 %{name}, {end}",
        f"  br i1 %{name}.more, label %{name}.body, label %{after}",
        f"{name}.body:",
        *body,
        f"{name}.next:",
        f"  %{name}.plus = add i64 %{name}, 1",
        f"  br label %{name}.head",
    ]


def _numbers(table: str, entry: str, width: int, name: str) -> list[str]:
    """The numbers of one entry of a table: %name.0, %name.1 …"""
    lines = [f"  %{name}.entry = mul i64 {entry}, {width}"]
    for k in range(width):
        lines += [
            f"  %{name}.place.{k} = add i64 %{name}.entry, {k}",
            f"  %{name}.at.{k} = getelementptr i64, ptr {table}, i64 %{name}.place.{k}",
            f"  %{name}.{k} = load i64, ptr %{name}.at.{k}, align 8",
        ]
    return lines
