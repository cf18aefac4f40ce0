"""Loops → one LLVM module: every different nest once, and an entry that calls them in order.

Long flat nests and large products are cut into tasks that threads can share; how is decided by their shape alone.
Knows the loops and the buffers' places; knows nothing of graphs, and nothing of llvmlite.
"""

from __future__ import annotations

import hashlib
import platform
from typing import NamedTuple

import numpy as np

from . import loops as ir
from .entry import Call, entry_text
from .llvm import WORTH_SHARING, NestFunction
from .loops import Contraction, Loops, Nest, Recurrence, Value, host_call
from .nested import Nested, nested_text, suits
from .plan import Plan
from .pool import c_functions, share_text
from .product import Product, Registers, is_product, product_text
from .steps import Stepping
from .text import MARKS_MEAN, ROLLED, SINGLE
from .vectors import declarations

# The most tasks into which the outer loop of a nest is cut.
_TASKS = 8


class Emitted(NamedTuple):
    """A module's text, the name of its entry, the bytes that it needs for packed operands, whether it has tasks to
    share, and how many segments it has: one, and one more for each call of NumPy.
    """

    text: str
    entry: str
    scratch: int
    shares: bool
    segments: int = 1


def emit(
    loops: Loops, plan: Plan, registers: Registers, one_by_one: bool = False, sharing: bool = True
) -> Emitted:
    """The module. Its entry takes one pointer, to a table of the addresses of all buffers: sources, constants,
    results, arena, status, scratch, board; behind them stands 1 once everything is committed. Where NumPy is called
    between nests, it also takes the number of a segment, which it runs; the last one checks and commits.

    `one_by_one`: the entry takes the number of a nest beside it and runs that one only, so that what the nests do
    can be watched between them. The nests are the very same code. `sharing`: whether threads may share tasks.
    """
    module = _Module(registers, sharing)
    calls = [None if host_call(nest) is not None else module.nest(nest) for nest in loops.nests]
    computed = sum(not nest.commit for nest in loops.nests)
    entry = entry_text(calls[:computed], calls[computed:], plan, one_by_one)
    parts = [
        *module.functions.values(),
        entry,
        *(share_text(platform.machine()) if module.shares else []),
        *sorted(module.declarations),
        "attributes #0 = { nounwind willreturn memory(none) }",
    ]
    name = _name("\n".join(parts))
    text = "\n\n".join(parts).replace("@ENTRY", f"@{name}") + "\n"
    return Emitted(text, name, module.scratch, module.shares, 1 + calls.count(None))


def libraries(loops: Loops, emitted: Emitted) -> set[str]:
    """Names of the C library's functions that the module calls."""
    found = {
        value.detail + ("f" if value.dtype == np.dtype("float32") else "")
        for nest in ir.all_nests(loops)
        for value in ir.walk(nest.body)
        if isinstance(value, Value) and value.opcode in ("library", "unless")
    }
    if any(isinstance(one, Recurrence) for nest in loops.nests for one in nest.body):
        found.add("memcpy")
    if emitted.shares:
        found.update(c_functions(platform.machine()))
    return found


class _Module:
    """The functions of all nests, each different one once."""

    def __init__(self, registers: Registers, sharing: bool) -> None:
        self.registers, self.sharing = registers, sharing
        self.functions: dict[str, str] = {}
        self.declarations: set[str] = set()
        self.scratch = 0
        self.shares = False

    def nest(self, nest: Nest) -> Call:
        """Write the nest's function, if it is a new one."""
        (only, *more) = nest.body or [None]  # type: ignore[list-item]
        if isinstance(only, Contraction) and not more and suits(only):
            return self.product(only)
        if isinstance(only, Recurrence):
            stepping = Stepping(only, [self.nest(one) for one in only.body.nests])
            self.declarations.add("declare ptr @memcpy(ptr, ptr, i64)")
            given = ("ptr %scratch", "ptr %board", f"i64 {only.length}")
            return Call(self.named(stepping.text()), stepping.buffers, given, {})
        function = NestFunction(nest)
        name = self.named(function.text())
        self.declarations |= function.declarations
        if function.ranged is None:
            return Call(name, function.buffers, (), function.starts)
        size = function.ranged.variable.extent
        if function.turns < WORTH_SHARING or not self.sharing:
            return Call(name, function.buffers, ("i64 0", f"i64 {size}"), function.starts)
        self.shares = True
        part = -(-size // (_TASKS * function.grain)) * function.grain
        self.functions.setdefault(*self.task(name, len(function.buffers), size, part))
        shared = self.named(_sharing(f"{name}_{size}", len(function.buffers), -(-size // part)))
        return Call(shared, function.buffers, ("ptr %board",), function.starts)

    def task(self, name: str, buffers: int, size: int, part: int) -> tuple[str, str]:
        """(name, text) of a function that does one task of a nest: a part of its outer loop's turns."""
        lines = [
            f"define internal void @{name}_{size}(ptr noalias readonly %job, i64 %task) noinline {{",
            "entry:",
        ]
        for k in range(buffers):
            lines.append(f"  %at{k} = getelementptr ptr, ptr %job, i64 {k}")
            lines.append(f"  %p{k} = load ptr, ptr %at{k}")
        given = ", ".join([*(f"ptr %p{k}" for k in range(buffers)), "i64 %from", "i64 %to"])
        lines += [
            f"  %from = mul nuw nsw i64 %task, {part}",
            f"  %end = add nuw nsw i64 %from, {part}",
            f"  %beyond = icmp sgt i64 %end, {size}",
            f"  %to = select i1 %beyond, i64 {size}, i64 %end",
            f"  call void @{name}({given})",
            "  ret void",
            "}",
        ]
        return f"{name}_{size}", "\n".join(lines)

    def product(self, one: Contraction) -> Call:
        """A product or a nested sum of floats, in tiles."""
        product: Product | Nested
        if is_product(one):
            product = Product(one, self.registers, self.sharing)
            text, functions = product_text(product)
        else:
            product = Nested(one, self.registers, self.sharing)
            text, functions = nested_text(product)
        self.functions.update(functions)
        if any(mark in one for one in functions.values() for mark in (ROLLED, SINGLE)):
            self.declarations |= MARKS_MEAN
        self.declarations |= set(declarations(product.kind, product.lanes))
        self.shares |= product.shares
        self.scratch = max(self.scratch, product.scratch)
        buffers, starts = [one.left[0], one.right[0], one.out[0]], {}
        if one.finite is not None:
            buffers.append(one.finite[0])
            starts[one.finite[0]] = one.finite[1].constant
        return Call(self.named(text), buffers, ("ptr %scratch", "ptr %board"), starts)

    def named(self, text: str) -> str:
        """Keep the function under a name made from its text."""
        name = _name(text)
        self.functions.setdefault(name, text.replace("@NEST", f"@{name}"))
        return name


def _sharing(task: str, buffers: int, tasks: int) -> str:
    """A function that offers the tasks of a nest."""
    parameters = ", ".join([*(f"ptr %p{k}" for k in range(buffers)), "ptr %board"])
    lines = [
        f"define internal void @NEST({parameters}) noinline {{",
        "entry:",
        f"  %job = alloca [{buffers} x ptr]",
    ]
    for k in range(buffers):
        lines.append(f"  %at{k} = getelementptr ptr, ptr %job, i64 {k}")
        lines.append(f"  store ptr %p{k}, ptr %at{k}")
    lines += [f"  call void @cr_share(ptr %board, ptr @{task}, ptr %job, i64 {tasks})", "  ret void", "}"]
    return "\n".join(lines)


def _name(text: str) -> str:
    """A symbol that no library has, and the same for the same text."""
    return "cr_" + hashlib.sha256(text.encode()).hexdigest()[:16]
