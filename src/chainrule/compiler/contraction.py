"""A Contraction as plain loops.

Knows nothing of graphs, or of the machine.
"""

from __future__ import annotations

from .builder import Builder
from .indices import Variable
from .loops import Accumulator, Contraction, For, Statement, Store, Update, Value


def expand(one: Contraction) -> list[Statement]:
    """Loops over batch, rows, columns and the common axis; the innermost one runs along memory."""
    builder = Builder()
    whole: list[Statement] = []
    builder.block = whole
    for variable in (*one.batch, one.rows):
        _open(builder, variable)
    (_by_rows if one.by_rows else _by_elements)(builder, one)
    return whole


def _open(builder: Builder, variable: Variable) -> list[Statement]:
    """Write into a new loop from now on; returns the block around it."""
    outer = builder.block
    loop = For(variable)
    outer.append(loop)
    builder.block = loop.body
    return outer


def _by_rows(builder: Builder, one: Contraction) -> None:
    """A row of the result is cleared, then grows by one scaled row of the right operand after the other."""
    outer = _open(builder, one.columns)
    builder.block.append(Store(*one.out, builder.literal(0, one.out[0].type.dtype)))
    builder.block = outer
    _open(builder, one.inner)
    _open(builder, one.columns)
    builder.block.append(Store(*one.out, _step(builder, one, builder.load(*one.out))))


def _by_elements(builder: Builder, one: Contraction) -> None:
    """Each element is one sum in a register."""
    _open(builder, one.columns)
    total = Accumulator("total", one.out[0].type.dtype, builder.literal(0, one.out[0].type.dtype))
    builder.block.append(total)
    outer = _open(builder, one.inner)
    builder.block.append(Update(total, _step(builder, one, builder.current(total), "reassoc contract")))
    builder.block = outer
    builder.block.append(Store(*one.out, builder.current(total)))


def _step(builder: Builder, one: Contraction, total: Value, flags: str = "contract") -> Value:
    """total + left · right; the product need not be rounded before it is added."""
    left, right = builder.load(*one.left), builder.load(*one.right)
    builder.flags = "contract"
    product = builder.multiply(left, right)
    builder.flags = flags
    result = builder.add(total, product)
    builder.flags = ""
    return result
