"""LLVM text for sharing tasks among threads: who takes which task is decided by an atomic counter.

A job is a function, a pointer and a number of tasks. The thread that has the job offers it, works with the others
and waits until every task is done. Tasks are cut by shape, and each writes its own part of the result, so the bits
do not depend on who does what.

The board, one cache line for each part that is written by itself: the ticket (a job's number in the upper 32 bits,
the next task in the lower), the job, the count of what is done, the word on which idle threads sleep.
Knows nothing of Python's threads: `runtime/threads.py` has them.
"""

from __future__ import annotations

import sys

#: Bytes of the board, and where its parts lie.
BOARD = 384
TICKET, COUNT, FUNCTION, JOB, DONE, EPOCH, SLEEPERS, WORKERS, BUSY, STOP = (
    0,
    64,
    72,
    80,
    128,
    192,
    196,
    256,
    264,
    320,
)

# Tasks beyond every count: nobody takes one while a job is being written on the board.
_CLOSED = 0xFFFFFFFF

# Looks at what is done before the processor is offered to others: a helper may have been taken off it.
_PATIENCE = 2000

# The kernel's calls for sleeping on a word: their number differs by processor.
_FUTEX = {"x86_64": 202, "amd64": 202, "aarch64": 98, "arm64": 98}
_WAIT, _WAKE = 128, 129


def futex_number(machine: str) -> int | None:
    """The number of Linux's futex call; None where there is none that we know."""
    return _FUTEX.get(machine.lower()) if sys.platform == "linux" else None


def _at(name: str, offset: int) -> str:
    return f"  %{name} = getelementptr inbounds i8, ptr %board, i64 {offset}"


def _pause(machine: str) -> str:
    word = "pause" if machine.lower() in ("x86_64", "amd64") else "yield"
    return f'  call void asm sideeffect "{word}", ""()'


def c_functions(machine: str) -> tuple[str, ...]:
    """Names of the C library's functions that the texts below call."""
    return ("syscall", "sched_yield") if futex_number(machine) is not None else ()


def _declared(machine: str) -> list[str]:
    known = futex_number(machine) is not None
    return ["declare i64 @syscall(i64, ...)", "declare i32 @sched_yield()"] if known else []


def _wake(machine: str, word: str) -> list[str]:
    """Wake whoever sleeps on a word."""
    number = futex_number(machine)
    given = f"i64 {number}, ptr {word}, i64 {_WAKE}, i64 2147483647, ptr null, ptr null, i64 0"
    return [] if number is None else [f"  call i64 (i64, ...) @syscall({given})"]


def share_text(machine: str) -> list[str]:
    """`cr_share(board, function, job, count)`: every task done, by this thread and by those that help."""
    number = futex_number(machine)
    lines = [
        "define internal void @cr_share(ptr %board, ptr %function, ptr %job, i64 %count) noinline {",
        "entry:",
        "  %none = icmp eq ptr %board, null",
        "  br i1 %none, label %alone, label %look",
        "look:",
        _at("workers", WORKERS), _at("busy", BUSY), _at("ticket", TICKET), _at("place.count", COUNT),
        _at("place.function", FUNCTION), _at("place.job", JOB), _at("done", DONE), _at("epoch", EPOCH),
        _at("sleepers", SLEEPERS),
        "  %there = load atomic i64, ptr %workers monotonic, align 8",
        "  %some = icmp sgt i64 %there, 0",
        "  br i1 %some, label %try, label %alone",
        "try:",
        "  %taken = cmpxchg ptr %busy, i64 0, i64 1 acquire monotonic",
        "  %mine = extractvalue { i64, i1 } %taken, 1",
        "  br i1 %mine, label %offer, label %alone",
        "offer:",
        "  %old = load atomic i64, ptr %ticket monotonic, align 8",
        "  %number = lshr i64 %old, 32",
        "  %closed.high = shl i64 %number, 32",
        f"  %closed = or i64 %closed.high, {_CLOSED}",
        "  store atomic i64 %closed, ptr %ticket seq_cst, align 8",
        # Release: whoever sees one of these sees the closed ticket too, so an old ticket cannot be taken any more.
        "  store atomic i64 %count, ptr %place.count release, align 8",
        "  store atomic ptr %function, ptr %place.function release, align 8",
        "  store atomic ptr %job, ptr %place.job release, align 8",
        "  store atomic i64 0, ptr %done release, align 8",
        "  %following = add i64 %number, 1",
        "  %open = shl i64 %following, 32",
        "  store atomic i64 %open, ptr %ticket seq_cst, align 8",
        "  %before = atomicrmw add ptr %epoch, i32 1 seq_cst",
        "  %asleep = load atomic i32, ptr %sleepers seq_cst, align 4",
        "  %any = icmp sgt i32 %asleep, 0",
        "  br i1 %any, label %wake, label %work",
        "wake:",
        *_wake(machine, "%epoch"),
        "  br label %work",
        "work:",
        "  %more = call i1 @cr_take(ptr %board)",
        "  br i1 %more, label %work, label %wait",
        "wait:",
        "  %looks = phi i64 [ 0, %work ], [ %looks.next, %pause ], [ 0, %yield ]",
        "  %so.far = load atomic i64, ptr %done acquire, align 8",
        "  %all = icmp sge i64 %so.far, %count",
        "  br i1 %all, label %over, label %not.yet",
        "not.yet:",
        f"  %long = icmp sge i64 %looks, {_PATIENCE}",
        "  br i1 %long, label %yield, label %pause",
        "pause:",
        _pause(machine),
        "  %looks.next = add nuw nsw i64 %looks, 1",
        "  br label %wait",
        "yield:",
        *(["  call i32 @sched_yield()"] if number is not None else []),
        "  br label %wait",
        "over:",
        "  store atomic i64 0, ptr %busy release, align 8",
        "  ret void",
        "alone:",
        "  br label %each",
        "each:",
        "  %task = phi i64 [ 0, %alone ], [ %next, %each ]",
        "  call void %function(ptr %job, i64 %task)",
        "  %next = add nuw nsw i64 %task, 1",
        "  %again = icmp slt i64 %next, %count",
        "  br i1 %again, label %each, label %end",
        "end:",
        "  ret void",
        "}",
    ]  # fmt: skip
    return ["\n".join(lines), _take_text(), *_declared(machine)]


def _take_text() -> str:
    """`cr_take(board)`: do one task of the job on the board; false if there is none left.

    What is read between looking at the ticket and taking it belongs to the ticket: a new job changes the ticket first.
    """
    lines = [
        "define internal i1 @cr_take(ptr %board) noinline {",
        "entry:",
        _at("ticket", TICKET), _at("place.count", COUNT), _at("place.function", FUNCTION), _at("place.job", JOB),
        _at("done", DONE),
        "  br label %look",
        "look:",
        "  %seen = load atomic i64, ptr %ticket seq_cst, align 8",
        f"  %task = and i64 %seen, {_CLOSED}",
        "  %count = load atomic i64, ptr %place.count acquire, align 8",
        "  %function = load atomic ptr, ptr %place.function acquire, align 8",
        "  %job = load atomic ptr, ptr %place.job acquire, align 8",
        "  %left = icmp slt i64 %task, %count",
        "  br i1 %left, label %try, label %none",
        "try:",
        "  %next = add i64 %seen, 1",
        "  %swap = cmpxchg ptr %ticket, i64 %seen, i64 %next seq_cst seq_cst",
        "  %mine = extractvalue { i64, i1 } %swap, 1",
        "  br i1 %mine, label %do, label %look",
        "do:",
        "  call void %function(ptr %job, i64 %task)",
        "  %before = atomicrmw add ptr %done, i64 1 release",
        "  ret i1 true",
        "none:",
        "  ret i1 false",
        "}",
    ]  # fmt: skip
    return "\n".join(lines)


def worker_text(machine: str) -> str:
    """What a helping thread runs: `cr_work(board, spins)`: take tasks, and return when there has been none for so many
    looks; `cr_live(board, spins)`: work, sleep until a job is offered, and so on until the board is closed;
    `cr_stop(board)`: close it and wake everybody.
    """
    number = futex_number(machine)
    given = f"i64 {number}, ptr %epoch, i64 {_WAIT}, i32 %seen, ptr null, ptr null, i64 0"
    sleep = f"  call i64 (i64, ...) @syscall({given})"
    lines = [
        "define void @cr_work(ptr %board, i64 %spins) {",
        "entry:",
        _at("stop", STOP),
        "  br label %fresh",
        "fresh:",
        "  br label %look",
        "look:",
        "  %count = phi i64 [ 0, %fresh ], [ %next, %idle ]",
        "  %did = call i1 @cr_take(ptr %board)",
        "  br i1 %did, label %fresh, label %idle",
        "idle:",
        _pause(machine),
        "  %next = add nuw nsw i64 %count, 1",
        "  %halt = load atomic i64, ptr %stop monotonic, align 8",
        "  %stopped = icmp ne i64 %halt, 0",
        "  %enough = icmp sge i64 %next, %spins",
        "  %leave = or i1 %stopped, %enough",
        "  br i1 %leave, label %end, label %look",
        "end:",
        "  ret void",
        "}",
        "",
        "define internal void @cr_park(ptr %board) {",
        "entry:",
        _at("epoch", EPOCH), _at("sleepers", SLEEPERS), _at("ticket", TICKET), _at("place.count", COUNT),
        _at("stop", STOP),
        "  %seen = load atomic i32, ptr %epoch seq_cst, align 4",
        "  %up = atomicrmw add ptr %sleepers, i32 1 seq_cst",
        "  %now = load atomic i64, ptr %ticket seq_cst, align 8",
        f"  %task = and i64 %now, {_CLOSED}",
        "  %count = load atomic i64, ptr %place.count seq_cst, align 8",
        "  %work = icmp slt i64 %task, %count",
        "  %halt = load atomic i64, ptr %stop seq_cst, align 8",
        "  %stopped = icmp ne i64 %halt, 0",
        "  %awake = or i1 %work, %stopped",
        "  br i1 %awake, label %end, label %sleep",
        "sleep:",
        *([sleep] if number is not None else []),
        "  br label %end",
        "end:",
        "  %down = atomicrmw sub ptr %sleepers, i32 1 seq_cst",
        "  ret void",
        "}",
        "",
        "define void @cr_live(ptr %board, i64 %spins) {",
        "entry:",
        _at("stop", STOP),
        "  br label %again",
        "again:",
        "  call void @cr_work(ptr %board, i64 %spins)",
        "  %halt = load atomic i64, ptr %stop seq_cst, align 8",
        "  %stopped = icmp ne i64 %halt, 0",
        "  br i1 %stopped, label %end, label %rest",
        "rest:",
        "  call void @cr_park(ptr %board)",
        "  br label %again",
        "end:",
        "  ret void",
        "}",
        "",
        "define void @cr_stop(ptr %board) {",
        "entry:",
        _at("workers", WORKERS), _at("stop", STOP), _at("epoch", EPOCH),
        "  store atomic i64 0, ptr %workers seq_cst, align 8",
        "  store atomic i64 1, ptr %stop seq_cst, align 8",
        "  %before = atomicrmw add ptr %epoch, i32 1 seq_cst",
        *_wake(machine, "%epoch"),
        "  ret void",
        "}",
    ]  # fmt: skip
    return "\n\n".join(["\n".join(lines), _take_text(), *_declared(machine)]) + "\n"
