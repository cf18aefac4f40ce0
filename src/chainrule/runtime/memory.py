"""Arrays for machine code: aligned memory, addresses, and whether anybody else can reach an array.

Knows NumPy's arrays and cells; knows nothing of graphs.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from ..graph import Cell
from ..operations import Array

_ALIGNMENT = 64

# Where an array object keeps the address of its elements: first behind the head that every object has. This is part
# of NumPy's stable binary interface; where a test says otherwise (another Python), the slow way is taken.
_OFFSET = object.__basicsize__


def _offset_holds() -> bool:
    probe = np.arange(3)
    if sys.implementation.name != "cpython":
        return False
    return ctypes.c_size_t.from_address(id(probe) + _OFFSET).value == probe.ctypes.data


_DIRECT = _offset_holds()
_word = ctypes.c_size_t.from_address


def address(array: Array) -> int:
    """Where the first element lies; 0 for an empty array."""
    if not array.size:
        return 0
    return _word(id(array) + _OFFSET).value if _DIRECT else array.ctypes.data


def array_at(place: int, shape: tuple[int, ...], dtype: Any) -> Array:
    """The memory at an address as an array. Whoever asks sees to it that the memory lives as long."""
    size = math.prod(shape) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    return np.frombuffer((ctypes.c_char * size).from_address(place), dtype).reshape(shape)


def whole(array: Array) -> Array:
    """The array in row-major order without gaps; itself where it is."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.array(array, order="C")


def aligned(size: int) -> Array:
    """Bytes that start at a cache line."""
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size]


def aligned_like(array: Array) -> Array:
    """A copy that starts at a cache line."""
    made: Array = aligned(array.nbytes).view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


# ------------------------------------------------------------------------------- who else can see an array

array_of = attrgetter("_array")


def _references(cells: Sequence[Cell]) -> list[int]:
    """How many references there are to the array of each cell, counted in one way."""
    return list(map(sys.getrefcount, map(array_of, cells)))


def first_alone(held: list[Array], cells: Sequence[Cell]) -> bool:
    """Whether nobody but the cells and the list can reach the first arrays, one for each cell."""
    count = len(cells)
    return list(map(sys.getrefcount, held[:count])).count(_HELD_ALONE) == count


def _alone() -> int:
    """What `_references` says of an array that only its cell knows."""
    return _references([Cell(np.zeros(1))])[0]


_ALONE = (
    _alone()
    if sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()
    else -1
)

_HELD_ALONE = _ALONE + 2 if _ALONE > 0 else -1  # the list, and the part of it that is looked at


def all_alone(cells: Sequence[Cell]) -> bool:
    """Whether no node, export or user can reach the arrays of these cells."""
    return _references(cells).count(_ALONE) == len(cells)


def make_alone(cell: Cell) -> None:
    """Give the cell an array that was made here and that nobody else knows, with the same numbers."""
    if not cell.owned or not all_alone((cell,)):
        cell.own(aligned_like(cell.array))
