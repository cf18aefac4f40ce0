"""Put known faults into the machine code of steps, one at a time, and count how many the audit finds and blames.

    python tests/plant_faults.py                 # 50 faults of ten kinds, 100 flipped opcodes
    python tests/plant_faults.py --faults 10 --flips 2 --seed 1

A fault is put into the text of the nests, which the step and its audited twin share. Every one runs in a process of
its own: a wrong index may end it. A fault counts if the step's results differ by more than rounding from those of the
code without it; it is blamed rightly if every difference names a value that a faulty nest computes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import select
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim
from chainrule.compiler import Compilation
from chainrule.compiler.machine import Native
from chainrule.compiler.module import _Module, libraries
from chainrule.runtime import compile
from chainrule.runtime.audit import _groups_of, _Memory, compare

# ------------------------------------------------------------------------------------ steps


def classifier() -> tuple[Any, tuple[Any, ...]]:
    """float32: batch norm, dropout, cross entropy, Adam: merged nests, cells written in place, products that check."""
    cr.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(13, 11),
        nn.BatchNorm1d(11),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(11, 10),
        nn.Tanh(),
        nn.Linear(10, 5),
    )
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    maker = np.random.default_rng(0)
    return step, (
        cr.tensor(maker.normal(size=(24, 13)).astype("float32")),
        cr.tensor(maker.integers(0, 5, 24)),
    )


def reader() -> tuple[Any, tuple[Any, ...]]:
    """float64: tokens, attention, layer norm, running sums, extremes, positions, casts, a scattered gradient."""
    cr.manual_seed(1)
    table = cr.tensor(np.random.default_rng(2).normal(size=(17, 6)), requires_grad=True)
    weight = cr.tensor(np.random.default_rng(3).normal(size=(6, 6)), requires_grad=True)

    def step(tokens: Any, scale: Any) -> Any:
        x = cr.take(table, tokens, axis=0)
        x = F.layer_norm(x + cr.cumulative_sum(x, axis=1) * 0.1, (6,))
        share = F.softmax((x @ weight) @ cr.permute_dims(x, (0, 2, 1)) / 2.5, axis=-1)
        y = share @ x
        peak = cr.max(y, axis=1) - cr.min(y, axis=1)
        loss = cr.mean(cr.log(cr.abs(peak) + 1.5)) + cr.mean(cr.where(y > 0.1, y, 0.25 * y) ** 2)
        loss = loss + cr.mean(cr.astype(scale, cr.float64) * cr.sin(peak[:, 0]))
        loss.backward()
        with cr.no_grad():
            for one in (table, weight):
                one.copy_(one - 0.1 * one.grad)
                one.grad = None
        return loss, cr.argmax(y, axis=-1)

    maker = np.random.default_rng(4)
    return step, (cr.tensor(maker.integers(0, 17, (5, 7))), cr.tensor(maker.integers(-3, 4, 5)))


def small() -> tuple[Any, tuple[Any, ...]]:
    """A few nests in which every kind of fault has a place."""
    table = cr.tensor(np.random.default_rng(2).normal(size=(7, 6)).astype("float32"), requires_grad=True)
    weight = cr.tensor(np.random.default_rng(3).normal(size=(6, 5)).astype("float32"), requires_grad=True)

    def step(tokens: Any, scale: Any) -> Any:
        y = cr.take(table, tokens, axis=0) @ weight
        y = cr.where(y > 0.1, cr.exp(-y) - y, 0.25 * y)
        centred = y - cr.mean(y, axis=0)
        loss = cr.mean(centred * centred * cr.astype(scale, cr.float32))
        loss.backward()
        with cr.no_grad():
            for one in (table, weight):
                one.copy_(one - 0.1 * one.grad)
                one.grad = None
        return loss, cr.sum(y, axis=0)

    maker = np.random.default_rng(4)
    return step, (cr.tensor(maker.integers(0, 7, 9)), cr.tensor(maker.integers(-3, 4, (9, 5))))


def pictures() -> tuple[Any, tuple[Any, ...]]:
    """float32: convolutions with strides, padding and groups, pools, and a norm by channel."""
    cr.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 4, 3, stride=2, groups=2), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    maker = np.random.default_rng(5)
    images = maker.normal(size=(5, 2, 11, 9)).astype("float32")
    return step, (cr.tensor(images), cr.tensor(maker.integers(0, 3, 5)))


def loops() -> tuple[Any, tuple[Any, ...]]:
    """float32: an LSTM with lengths, whose steps and their gradients are loops over time."""
    cr.manual_seed(4)
    net, last = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)
    optimizer = optim.SGD([*net.parameters(), *last.parameters()], lr=0.1)

    def step(x: Any, lengths: Any, y: Any) -> Any:
        states, _ = net(x, lengths=lengths)
        loss = F.cross_entropy(last(cr.sum(states, axis=1)), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    maker = np.random.default_rng(6)
    series = maker.normal(size=(4, 6, 3)).astype("float32")
    return step, (cr.tensor(series), cr.tensor([6, 2, 5, 1]), cr.tensor(maker.integers(0, 2, 4)))


STEPS: dict[str, Callable[[], tuple[Any, tuple[Any, ...]]]] = {
    "classifier": classifier, "reader": reader, "small": small, "pictures": pictures, "loops": loops
}  # fmt: skip

# ------------------------------------------------------------------------------------ faults


@dataclass(frozen=True)
class Fault:
    """One place in the text of one function, and what stands there instead."""

    kind: str
    function: str
    start: int
    end: int
    text: str

    def put_into(self, module: str, function: str) -> str:
        changed = function[: self.start] + self.text + function[self.end :]
        assert module.count(function) == 1
        return module.replace(function, changed)


Change = Callable[[re.Match[str]], str | None]


def _scaled(match: re.Match[str]) -> str | None:
    (number,) = struct.unpack(">d", bytes.fromhex(match[1]))
    if number == 0 or not np.isfinite(number):
        return None
    return "0x" + struct.pack(">d", number * 2).hex().upper()


def _one_less(match: re.Match[str]) -> str | None:
    return f"{match[1]}{int(match[2]) - 1}" if int(match[2]) > 1 else None


def _mask(match: re.Match[str]) -> str | None:
    lanes = match[0].split(", ")
    real = [k for k, lane in enumerate(lanes) if "true" in lane]
    if not real:
        return None
    lanes[real[-1]] = lanes[real[-1]].replace("true", "false")
    return ", ".join(lanes)


_TURNED = {
    "olt": "ogt",
    "ole": "oge",
    "oeq": "une",
    "une": "oeq",
    "slt": "sgt",
    "sle": "sge",
    "ult": "ugt",
    "ule": "uge",
}
_NUMBER = r"(?:%[\w.]+|0x\w+|-?\d+)"

KINDS: dict[str, tuple[str, Change]] = {
    "wrong constant": (r"(?<=[ ,])0x([0-9A-F]{16})", _scaled),
    "operands of a subtraction swapped": (
        rf"(fsub [^%0]*)({_NUMBER}), ({_NUMBER})", lambda m: f"{m[1]}{m[3]}, {m[2]}" if m[2] != m[3] else None
    ),
    "loop one too short": (r"(icmp eq i64 %\w+, )(\d+)", _one_less),
    "last column dropped": (r"<i1 true, [i1 truefals,]*>(?=\)\n)", _mask),
    "wrong stride": (r"(mul nsw i64 %[\w.]+, )(\d+)", _one_less),
    "missing initialisation": (
        r"  store (?:float|double|i64|i32) (?:0x[0-9A-F]{16}|0), ptr %t\d+, align \d+", lambda m: ""
    ),
    "comparison turned round": (
        r"(fcmp|icmp) (olt|ole|slt|sle|ult|ule)(?= (?:float|double|i64|i32) )", lambda m: f"{m[1]} {_TURNED[m[2]]}"
    ),
    "wrong start of a sum": (
        r"(store (?:float|double) )0x0{16}(?=, ptr %a)", lambda m: f"{m[1]}0x3FF0000000000000"
    ),
    "stale buffer": (r"", lambda m: None),
    "wrong cast": (
        r"(sitofp|uitofp|zext|sext)(?= i\d+ %\w+ to (?:float|double|i32|i64))",
        lambda m: {"sitofp": "uitofp", "uitofp": "sitofp", "zext": "sext", "sext": "zext"}[m[1]],
    ),
}  # fmt: skip

FLIPS: dict[str, str] = {
    "fadd": "fsub", "fsub": "fadd", "fmul": "fadd", "fdiv": "fmul", "add nsw i64": "sub nsw i64",
    "and i1": "or i1", "or i1": "and i1", "xor i32": "or i32", "add i32": "sub i32",
    "@llvm.maximum.f32(float %": "@llvm.minimum.f32(float %", "fcmp oeq": "fcmp une", "fcmp une": "fcmp oeq",
}  # fmt: skip


def sites(compilation: Compilation, kind: str) -> list[Fault]:
    """Every place of the module's nests where a fault of this kind can be put."""
    functions, calls = nests_of(compilation)
    if kind == "stale buffer":
        return list(_stale(functions, calls))
    if kind == "flip":
        patterns: list[tuple[str, Change]] = [
            (re.escape(word), lambda m, to=to: to) for word, to in FLIPS.items()  # type: ignore[misc]
            if "maximum" not in word
        ]  # fmt: skip
    else:
        patterns = [KINDS[kind]]
    found = []
    for name, text in functions.items():
        body = text.index("{\n")
        for pattern, change in patterns:
            for match in re.finditer(pattern, text):
                made = change(match) if match.start() > body else None
                if made is not None:
                    told = f"{match[0]} → {made}" if kind == "flip" else kind
                    found.append(Fault(told, name, match.start(), match.end(), made))
    return found


def _stale(functions: dict[str, str], calls: list[Any]) -> Iterator[Fault]:
    """A nest reads another buffer of the same kind, at least as large, than the one that it should."""
    for call in calls:
        if call is None or call.name not in functions:
            continue
        text = functions[call.name]
        for k, buffer in enumerate(call.buffers):
            for j, other in enumerate(call.buffers):
                fits = other.type.dtype == buffer.type.dtype and other.size >= buffer.size and j != k
                for match in (
                    re.finditer(rf"(getelementptr inbounds \w+, ptr )%p{k}(?=,)", text) if fits else ()
                ):
                    yield Fault("stale buffer", call.name, match.start(), match.end(), f"{match[1]}%p{j}")


def nests_of(compilation: Compilation) -> tuple[dict[str, str], list[Any]]:
    """The functions of the module by name, and the call of each nest."""
    module = _Module(compilation.registers, True)
    calls = [module.nest(nest) for nest in compilation.loops.nests]
    return module.functions, calls


def faulty_nodes(compilation: Compilation, function: str) -> set[Any]:
    """What the nests compute that call a function, directly or not."""
    functions, calls = nests_of(compilation)
    reached = {function}
    while True:
        more = {
            name for name, text in functions.items() if any(re.search(rf"@{one}\b", text) for one in reached)
        } | reached
        if more == reached:
            break
        reached = more
    groups = _groups_of(compilation)
    return {group.root for call, nest in zip(calls, groups) if call.name in reached for group in nest}


# ------------------------------------------------------------------------------------ one fault


@dataclass(eq=False)
class Prepared:
    """A step with its machine code, its inputs and its results without faults."""

    compilation: Compilation
    sources: list[Any]
    results: list[Any]


def prepare(name: str) -> Prepared:
    """Trace, compile and run a step once."""
    step, arguments = STEPS[name]()
    compiled = compile(step)
    for _ in range(2):
        compiled(*arguments)
    program = compiled._last
    assert program is not None
    call = program.serve(arguments, {})
    assert call is not None
    sources = program.snapshot(call[0])
    native, _ = program.compilation.native()
    return Prepared(program.compilation, sources, results_of(program.compilation, sources, native))


def results_of(compilation: Compilation, sources: list[Any], native: Native) -> list[Any]:
    """Everything that leaves the step."""
    memory = _Memory(compilation, sources)
    refused = memory.run(compilation, native)
    plan = compilation.plan
    leaving = [*plan.results, *compilation.fusion.in_place]
    return [np.array(refused), *(memory.array_of(plan.buffers[node]) for node in leaving)]


def far_apart(one: list[Any], other: list[Any]) -> tuple[bool, bool]:
    """(some bit differs, something differs by more than rounding)."""
    bits = any(a.tobytes() != b.tobytes() for a, b in zip(one, other))
    far = False
    for a, b in zip(one, other):
        if a.dtype.kind != "f":
            far |= bool((a != b).any())
            continue
        near = 2e-5 if a.dtype == np.float32 else 1e-12
        scale = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
        far |= not np.allclose(a, b, rtol=near, atol=near * scale, equal_nan=True)
    return bits, far


def try_fault(prepared: Prepared, fault: Fault) -> dict[str, Any]:
    """Build the step and its twin with the fault, run both, and see what the audit says."""
    compilation = prepared.compilation
    function = nests_of(compilation)[0][fault.function]
    twin = compilation.one_by_one()
    names = libraries(compilation.loops, compilation.emitted)
    made = Native(fault.put_into(compilation.emitted.text, function), compilation.emitted.entry, names)
    parts = Native(fault.put_into(twin.text, function), twin.entry, names)
    bits, far = far_apart(results_of(compilation, prepared.sources, made), prepared.results)
    found = compare(compilation, prepared.sources, made, parts)
    right = faulty_nodes(compilation, fault.function)
    # One of several results is told as that result; the loop that gives it is what is wrong.
    blamed = [one.node.inputs[0] if one.operation == "part" else one.node for one in found.differences]
    return {
        "bits": bits, "far": far, "caught": not found.ok,
        "blamed": bool(blamed) and all(one in right for one in blamed),
        "told": str(found)[:1500],
    }  # fmt: skip


def apart(work: Callable[[], dict[str, Any]], seconds: float = 60.0) -> dict[str, Any]:
    """The result of some work in a process of its own; {"ended": why} if it crashes or does not come to an end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            result = work()
        except Exception as failure:
            result = {"refused": f"{type(failure).__name__}: {str(failure)[:300]}"}
        os.write(writing, json.dumps(result).encode())
        os._exit(0)
    os.close(writing)
    end, content = time.monotonic() + seconds, b""
    while True:
        ready, _, _ = select.select([reading], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            os.kill(child, signal.SIGKILL)
            break
        piece = os.read(reading, 1 << 16)
        if not piece:
            break
        content += piece
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"ended": signal.Signals(os.WTERMSIG(status)).name}
    found: dict[str, Any] = json.loads(content)
    return found


RIGHT, WRONG, MISSED = "found, blamed rightly", "found, BLAMED WRONGLY", "NOT FOUND"
COUNTED = (RIGHT, WRONG, MISSED)


def outcome(found: dict[str, Any]) -> str:
    """What came of a fault, in words; those of COUNTED have changed a result."""
    if "ended" in found:
        return f"ended by {found['ended']}"
    if "refused" in found:
        return "LLVM refuses it"
    if not found["far"]:
        return ("changes bits within rounding" if found["bits"] else "changes no result") + ", found" * found[
            "caught"
        ]
    if not found["caught"]:
        return MISSED
    return RIGHT if found["blamed"] else WRONG


def run(
    prepared: dict[str, Prepared], kind: str, wanted: int, chooser: random.Random, tries: int
) -> Counter[str]:
    """Faults of a kind from all steps, until so many have changed a result; every outcome counted and printed."""
    places = [(name, fault) for name, one in prepared.items() for fault in sites(one.compilation, kind)]
    counts: Counter[str] = Counter()
    for name, fault in chooser.sample(places, min(tries, len(places))):
        if sum(counts[what] for what in COUNTED) >= wanted:
            break
        found = apart(lambda name=name, fault=fault: try_fault(prepared[name], fault))  # type: ignore[misc]
        what = outcome(found)
        counts[what] += 1
        print(f"{name:<11} {fault.kind:<36} {what}", flush=True)
        if what in (MISSED, WRONG) or "refused" in found:
            print(f"    {fault.function}: …{fault.text}", found.get("told", found.get("refused", "")))
    return counts


def report(faults: int, flips: int, seed: int, names: list[str]) -> int:
    """Run them all, print what came of each and the totals; how many were missed, blamed wrongly, or not to be had."""
    prepared = {name: prepare(name) for name in names}
    chooser, counts, lacking = random.Random(seed), Counter[str](), 0
    for kind in KINDS:
        wanted = faults // len(KINDS)
        one = run(prepared, kind, wanted, chooser, 20 * wanted)
        lacking += wanted - sum(one[what] for what in COUNTED)
        counts += one
    print(f"{sum(counts[what] for what in COUNTED)} faults of {len(KINDS)} kinds have changed a result")
    counts += run(prepared, "flip", flips, chooser, flips)
    for what, count in sorted(counts.items()):
        print(f"{count:4}  {what}")
    return counts[MISSED] + counts[WRONG] + lacking


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--flips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--step", choices=list(STEPS), action="append")
    given = parser.parse_args()
    cr.set_num_threads(1)  # so that processes can be split off
    os.environ["CHAINRULE_CACHE"] = "0"
    return report(given.faults, given.flips, given.seed, given.step or list(STEPS))


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
