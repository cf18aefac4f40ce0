"""How a tensor is shown: one text for the terminal, one table for notebooks.

Knows arrays and nodes; knows nothing of how a tensor is used.
"""

from __future__ import annotations

import html
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import at
from ..graph import Node

# Entries shown in full; beyond, the ends of each axis are shown.
_FULL_TEXT = 200
_EDGE_TEXT = 3
# Rows and columns of a table in a notebook before the middle is left out.
_FULL_TABLE = 20
_EDGE_TABLE = 8

_PLAIN_DTYPES = ("float32", "int64", "bool")


def text(node: Node, leaf: bool) -> str:
    """`tensor([1., 2.], dtype=float64, requires_grad=True)`, or what a traced value will be.

    The dtype is left out where Python numbers would give it; the shape is added where the numbers cannot
    show it.
    """
    value = node.value
    if value is None:
        return f"Traced {node.type} {node.operation.name}{at(node.origin)}"
    notes = ""
    if (value.size == 0 and value.ndim != 1) or value.size > _FULL_TEXT:
        notes += f", shape={value.shape}"
    if value.dtype.name not in _PLAIN_DTYPES or (value.size == 0 and value.dtype.name != "float32"):
        notes += f", dtype={value.dtype.name}"
    if node.requires_grad:
        notes += ", requires_grad=True" if leaf else f", from {node.operation.name}"
    numbers = np.array2string(
        value, separator=", ", prefix="tensor(", suffix=")", threshold=_FULL_TEXT, edgeitems=_EDGE_TEXT
    )
    return f"tensor({numbers if value.size else '[]'}{notes})"


def table(node: Node, leaf: bool) -> str:
    """HTML for a notebook: a table for matrices and vectors, the text otherwise."""
    value = node.value
    head = html.escape(f"Tensor {node.type}" + (" · requires grad" if node.requires_grad else ""))
    if value is None or not 1 <= value.ndim <= 2 or not value.size:
        return f"<pre>{html.escape(text(node, leaf))}</pre>"
    matrix = np.atleast_2d(value)
    rows = [
        "<tr>" + "".join(_cell(matrix, row, column) for column in _places(matrix.shape[1])) + "</tr>"
        for row in _places(matrix.shape[0])
    ]
    caption = f'<caption style="text-align:left;white-space:nowrap">{head}</caption>'
    return f"<table>{caption}<tbody>{''.join(rows)}</tbody></table>"


def _places(size: int) -> list[int | None]:
    """Positions to show along an axis; None stands for those left out."""
    if size <= _FULL_TABLE:
        return list(range(size))
    return [*range(_EDGE_TABLE), None, *range(size - _EDGE_TABLE, size)]


def _cell(matrix: NDArray[Any], row: int | None, column: int | None) -> str:
    shown = "…" if row is None or column is None else _number(matrix[row, column])
    return f'<td style="text-align:right">{shown}</td>'


def _number(value: Any) -> str:
    return f"{value:.6g}" if value.dtype.kind == "f" else str(value)
