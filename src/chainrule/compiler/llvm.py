"""A nest of loops → LLVM's textual IR: one function of the pointers that it touches.

Floating point stays IEEE: no fast-math flags but those that a value carries. Pointers are only ever offset.
Knows nothing of graphs and operations; knows nothing of llvmlite.
"""

from __future__ import annotations

import struct
from typing import Any

from ..dtypes import Dtype, is_float
from ..errors import GraphError
from . import loops as ir
from .contraction import expand
from .indices import Atom, Dynamic, Index, Quotient, Remainder
from .loops import Accumulator, Contraction, For, Nest, Statement, Store, Update, Value, buffers_of, flat_loop
from .plan import Buffer
from .text import MARKS_MEAN, ROLLED

_ARITHMETIC = {
    "add": ("fadd", "add", "add"), "subtract": ("fsub", "sub", "sub"), "multiply": ("fmul", "mul", "mul"),
    "divide": ("fdiv", "", ""),
    "equal": ("fcmp oeq", "icmp eq", "icmp eq"), "not_equal": ("fcmp une", "icmp ne", "icmp ne"),
    "less": ("fcmp olt", "icmp slt", "icmp ult"), "less_equal": ("fcmp ole", "icmp sle", "icmp ule"),
    "quotient": ("", "sdiv", "udiv"), "rest": ("", "srem", "urem"),
    "shl": ("", "shl", "shl"), "shr": ("", "ashr", "lshr"),
    "and": ("", "and", "and"), "or": ("", "or", "or"), "xor": ("", "xor", "xor"),
}  # fmt: skip
"""Instruction for floats, signed integers, unsigned integers and bools."""

_INTRINSICS = {
    "sqrt": "sqrt", "absolute": "fabs", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "roundeven",
}  # fmt: skip

# `llvm.maximum` hands NaN on, as NumPy does; `llvm.maxnum` would lose it.
_EXTREMES = {"maximum": ("maximum", "smax", "umax"), "minimum": ("minimum", "smin", "umin")}

# Flat loops of at least so many elements are written for any length.
LONG = 64
# Loops of up to so many turns would be written out; those of whole vectors become vectors instead.
_SHORT, _LANES = 32, 8
# Turns of the innermost loops from which on a nest is cut into tasks.
WORTH_SHARING = 1 << 16


def type_of(dtype: Dtype) -> str:
    """LLVM's type of a value in a register."""
    if is_float(dtype):
        return "float" if dtype.itemsize == 4 else "double"
    return "i1" if dtype.kind == "b" else f"i{dtype.itemsize * 8}"


def _in_memory(dtype: Dtype) -> str:
    return "i8" if dtype.kind == "b" else type_of(dtype)


def literal(number: Any, dtype: Dtype) -> str:
    """A number as LLVM writes it: floats as the bits of the double, so that none is lost."""
    if is_float(dtype):
        return "0x" + struct.pack(">d", float(number)).hex().upper()
    if dtype.kind == "b":
        return "true" if number else "false"
    return str(int(number))


class NestFunction:
    """One nest as a function of the pointers that it touches; a long flat one for a range of its elements."""

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.buffers = buffers_of(nest)
        self.pointers = {buffer: f"%p{k}" for k, buffer in enumerate(self.buffers)}
        #: The nest's own flags begin here among those of the step: its pointer is to this one, so that equal nests
        #: with other flags share their code.
        self.starts = _first_flags(nest)
        self.lines: list[str] = []
        self.slots: list[str] = []
        self.names: dict[Any, str] = {}
        self.declarations: set[str] = set()
        self.label = "entry"
        self.way = "calls"
        self._count = 0
        flat, outer = flat_loop(nest), ir.outer_loop(nest)
        #: The loop that runs from %from to %to: a flat one, so that nests of any length share their code; or one whose
        #: turns threads can share.
        self.ranged = flat if flat is not None and flat.variable.extent >= LONG else None
        self.turns = ir.turns(nest.body)
        if flat is None and outer is not None and outer.variable.extent > 1 and self.turns >= WORTH_SHARING:
            self.ranged = outer
        #: Turns that stay together when they are shared.
        self.grain = LONG if flat is not None else 1

    def text(self) -> str:
        """The whole definition, named @NEST until its name is known."""
        flat = flat_loop(self.nest)
        if flat is not None and any(isinstance(one, Value) and one.opcode == "unless" for one in flat.body):
            self.guarded(flat)
        else:
            self.statements(self.nest.body)
        written = {s.buffer for s in ir.walk(self.nest.body) if isinstance(s, Store)}
        written |= {s.out[0] for s in ir.walk(self.nest.body) if isinstance(s, Contraction)}
        parameters = ", ".join(
            f"ptr noalias {'' if buffer in written else 'readonly '}{self.pointers[buffer]}"
            for buffer in self.buffers
        )
        if self.ranged is not None:
            parameters += ", i64 %from, i64 %to"
        head = f"define internal void @NEST({parameters}) noinline {{"
        return "\n".join(
            [head, "entry:", *self.slots, "  br label %start", "start:", *self.lines, "  ret void", "}"]
        )

    def new(self, prefix: str = "%t") -> str:
        """A fresh name."""
        self._count += 1
        return f"{prefix}{self._count}"

    def put(self, instruction: str) -> str:
        """One instruction with a result; its name."""
        name = self.new()
        self.lines.append(f"  {name} = {instruction}")
        return name

    # ------------------------------------------------------------------------------- statements

    def guarded(self, loop: For) -> None:
        """A loop in which some elements may need a call: once without stores, to find out whether there is such an
        element, and then without any call if there is none, so that the loop becomes vectors.
        """
        self.slots.append("  %near = alloca i1")
        self.lines.append("  store i1 true, ptr %near")
        self.way = "look"
        self.loop(loop)
        all_near = self.put("load i1, ptr %near")
        self.lines += [f"  br i1 {all_near}, label %vectors, label %calls", "vectors:"]
        self.way = "vectors"
        self.loop(loop)
        self.lines += ["  br label %over", "calls:"]
        self.way = "calls"
        self.loop(loop)
        self.lines += ["  br label %over", "over:"]

    def statements(self, body: list[Statement]) -> None:
        """Every statement in order."""
        for statement in body:
            if isinstance(statement, For):
                self.loop(statement)
            elif isinstance(statement, Store):
                if self.way != "look":
                    self.store(statement)
            elif isinstance(statement, Accumulator):
                self.accumulator(statement)
            elif isinstance(statement, Update):
                kind = type_of(statement.accumulator.dtype)
                self.lines.append(
                    f"  store {kind} {self.operand(statement.value)}, ptr {self.names[statement.accumulator]}"
                )
            elif isinstance(statement, Contraction):
                self.statements(expand(statement))
            elif isinstance(statement, Value) and statement.opcode != "constant":
                self.names[statement] = self.compute(statement)

    def loop(self, loop: For) -> None:
        """Counts from 0; an empty loop writes nothing."""
        if loop.variable.extent <= 0:
            return
        before = self.new("before")
        head, after = self.new("head"), self.new("after")
        self.lines += [f"  br label %{before}", f"{before}:", f"  br label %{head}", f"{head}:"]
        name = self.new("%i")
        place = len(self.lines)
        self.names[loop.variable] = name
        outer, self.label = self.label, head
        self.statements(loop.body)
        following, done = self.new(), self.new()
        last = self.new("latch")
        begin, end = ("%from", "%to") if loop is self.ranged else ("0", str(loop.variable.extent))
        self.lines += [
            f"  br label %{last}", f"{last}:",
            f"  {following} = add nuw nsw i64 {name}, 1",
            f"  {done} = icmp eq i64 {following}, {end}",
            f"  br i1 {done}, label %{after}, label %{head}{self.kept(loop)}", f"{after}:",
        ]  # fmt: skip
        self.lines.insert(place, f"  {name} = phi i64 [ {begin}, %{before} ], [ {following}, %{last} ]")
        self.label = outer

    def kept(self, loop: For) -> str:
        """What keeps LLVM from writing out a short loop before it has turned it into vectors."""
        extent = loop.variable.extent
        short = extent <= _SHORT and extent % _LANES == 0 and loop is not self.ranged
        if not short or not any(isinstance(one, Store) for one in loop.body):
            return ""
        if any(isinstance(one, For) for one in loop.body):
            return ""
        self.declarations |= MARKS_MEAN
        return ROLLED

    def accumulator(self, one: Accumulator) -> None:
        """A slot on the stack, which LLVM turns into a register."""
        slot = self.new("%a")
        kind = type_of(one.dtype)
        self.slots.append(f"  {slot} = alloca {kind}")
        self.lines.append(f"  store {kind} {self.operand(one.initial)}, ptr {slot}")
        self.names[one] = slot

    def store(self, one: Store) -> None:
        """Bools are bytes in memory."""
        value, dtype = self.operand(one.value), one.value.dtype
        if dtype.kind == "b":
            value = self.put(f"zext i1 {value} to i8")
        address = self.address(one.buffer, one.index)
        self.lines.append(f"  store {_in_memory(dtype)} {value}, ptr {address}, align {dtype.itemsize}")

    def address(self, buffer: Buffer, index: Index) -> str:
        """Where an element stands."""
        element = _in_memory(buffer.type.dtype)
        if buffer in self.starts:
            index = index - self.starts[buffer]
        if buffer.place == "local" and buffer not in self.pointers:
            self.pointers[buffer] = self.new("%local")
            self.slots.append(f"  {self.pointers[buffer]} = alloca [{buffer.size} x {element}], align 64")
        return self.put(
            f"getelementptr inbounds {element}, ptr {self.pointers[buffer]}, i64 {self.index(index)}"
        )

    # ------------------------------------------------------------------------------- positions

    def index(self, index: Index) -> str:
        """An index as an i64."""
        total = ""
        for atom, factor in index.ordered:
            term = self.atom(atom)
            if factor != 1:
                term = self.put(f"mul nsw i64 {term}, {factor}")
            total = term if not total else self.put(f"add nsw i64 {total}, {term}")
        if not total:
            return str(index.constant)
        return self.put(f"add nsw i64 {total}, {index.constant}") if index.constant else total

    def atom(self, atom: Atom) -> str:
        """One part of an index; quotients and remainders are of numbers that are never negative."""
        if isinstance(atom, Quotient | Remainder):
            if atom.index.low < 0:
                raise GraphError(f"{atom} may be negative")
            way = "udiv" if isinstance(atom, Quotient) else "urem"
            return self.put(f"{way} i64 {self.index(atom.index)}, {atom.divisor}")
        if isinstance(atom, Dynamic):
            return self.operand(atom.value)
        return self.names[atom]

    # ------------------------------------------------------------------------------- values

    def operand(self, value: Value) -> str:
        """A value's name, or the number itself."""
        if value.opcode == "constant":
            return literal(value.detail, value.dtype)
        return self.names[value]

    def compute(self, value: Value) -> str:
        """The instruction for one value."""
        dtype, kind, opcode = value.dtype, type_of(value.dtype), value.opcode
        operands = [self.operand(operand) for operand in value.operands]
        if opcode == "load":
            return self.load(*value.detail)
        if opcode == "number":
            return self.put(f"add i64 {self.index(value.detail)}, 0")
        if opcode == "read":
            return self.put(f"load {kind}, ptr {self.names[value.detail]}")
        if opcode == "negative":
            return self.put(f"fneg {kind} {operands[0]}")
        if opcode == "select":
            return self.put(f"select i1 {operands[0]}, {kind} {operands[1]}, {kind} {operands[2]}")
        if opcode == "bitcast":
            return self.put(f"bitcast {type_of(value.operands[0].dtype)} {operands[0]} to {kind}")
        if opcode == "copysign":
            return self.call(f"@llvm.copysign.f{dtype.itemsize * 8}", kind, operands)
        if opcode == "cast":
            return self.cast(operands[0], value.operands[0].dtype, dtype)
        if opcode == "library":
            name = value.detail + ("f" if dtype.itemsize == 4 else "")
            return self.call(f"@{name}", kind, operands, " #0")
        if opcode == "unless":
            return self.unless(value, operands)
        if opcode in _INTRINSICS:
            return self.call(f"@llvm.{_INTRINSICS[opcode]}.f{dtype.itemsize * 8}", kind, operands)
        if opcode in _EXTREMES:
            name = _EXTREMES[opcode][_column(dtype)]
            suffix = f"f{dtype.itemsize * 8}" if dtype.kind == "f" else kind
            return self.call(f"@llvm.{name}.{suffix}", kind, operands)
        given = value.operands[0].dtype
        instruction = _ARITHMETIC[opcode][_column(given)]
        flags = f" {value.flags}" if value.flags else ""
        return self.put(f"{instruction}{flags} {type_of(given)} {operands[0]}, {operands[1]}")

    def unless(self, value: Value, operands: list[str]) -> str:
        """A branch around a call that is hardly ever needed; in a guarded loop there is none."""
        kind = type_of(value.dtype)
        if self.way == "look":
            before = self.put("load i1, ptr %near")
            self.lines.append(f"  store i1 {self.put(f'and i1 {before}, {operands[0]}')}, ptr %near")
        if self.way != "calls":
            return operands[1]
        near, far, both = self.new("near"), self.new("far"), self.new("both")
        self.lines += [f"  br label %{near}", f"{near}:"]
        self.lines += [f"  br i1 {operands[0]}, label %{both}, label %{far}", f"{far}:"]
        name = value.detail + ("f" if value.dtype.itemsize == 4 else "")
        called = self.call(f"@{name}", kind, operands[2:], " #0")
        self.lines += [f"  br label %{both}", f"{both}:"]
        return self.put(f"phi {kind} [ {operands[1]}, %{near} ], [ {called}, %{far} ]")

    def load(self, buffer: Buffer, index: Index) -> str:
        """An element; bools are bytes in memory."""
        dtype = buffer.type.dtype
        loaded = self.put(
            f"load {_in_memory(dtype)}, ptr {self.address(buffer, index)}, align {dtype.itemsize}"
        )
        return self.put(f"icmp ne i8 {loaded}, 0") if dtype.kind == "b" else loaded

    def call(self, name: str, kind: str, operands: list[str], attributes: str = "") -> str:
        """A function of numbers of one type."""
        self.declarations.add(f"declare {kind} {name}({', '.join([kind] * len(operands))}){attributes}")
        return self.put(f"call {kind} {name}({', '.join(f'{kind} {operand}' for operand in operands)})")

    def cast(self, operand: str, given: Dtype, dtype: Dtype) -> str:
        """Change of dtype; the saturating forms are defined for every float."""
        source, target = type_of(given), type_of(dtype)
        if given.kind == "f" and dtype.kind in "iu":
            way = "fptosi" if dtype.kind == "i" else "fptoui"
            name = f"@llvm.{way}.sat.{target}.f{given.itemsize * 8}"
            self.declarations.add(f"declare {target} {name}({source})")
            return self.put(f"call {target} {name}({source} {operand})")
        if given.kind == "f":
            return self.put(
                f"{'fpext' if dtype.itemsize > given.itemsize else 'fptrunc'} {source} {operand} to {target}"
            )
        if dtype.kind == "f":
            return self.put(f"{'sitofp' if given.kind == 'i' else 'uitofp'} {source} {operand} to {target}")
        if given.kind != "b" and dtype.itemsize < given.itemsize:
            return self.put(f"trunc {source} {operand} to {target}")
        if given.kind != "b" and dtype.itemsize == given.itemsize:
            return operand
        return self.put(f"{'sext' if given.kind == 'i' else 'zext'} {source} {operand} to {target}")


def _first_flags(nest: Nest) -> dict[Buffer, int]:
    """The first flag that the nest writes."""
    found: dict[Buffer, int] = {}
    for one in ir.walk(nest.body):
        if isinstance(one, Store) and one.buffer.place == "status":
            found[one.buffer] = min(found.get(one.buffer, one.index.low), one.index.low)
    return found


def _column(dtype: Dtype) -> int:
    return 0 if dtype.kind == "f" else 1 if dtype.kind == "i" else 2
