"""Parameters that share hyper-parameters, and the hyper-parameters themselves: scalar cells, flags, their ranges.

Knows cells and traces; knows nothing of update formulas and of what is kept for a parameter.
"""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..graph import Cell, constant, state
from ..structure import bump_structure
from ..tensor import Tensor
from ..tensor.core import of_cell
from ..tensor.elementwise import astype
from ..tensor.number import is_number, number_of

Value = Any
"""A float or an array in an eager step, a tensor in a traced one."""

#: The learning rate that schedulers start from: they write it into the group, as PyTorch's do.
INITIAL_LR = "initial_lr"


class ParameterGroup(MutableMapping[str, Any]):
    """The parameters that share hyper-parameters, as a dict: `group["lr"] = 0.1`.

    Numbers (and pairs of numbers) live in scalar cells: floats outside a trace, inputs of the graph inside.
    What is written is checked as in the optimizer's constructor.
    """

    def __init__(
        self,
        params: list[Tensor],
        options: Mapping[str, Any],
        check: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._params = params
        self._check = check
        self._as_tensors = False
        self._cells: dict[str, Cell | tuple[Cell, ...]] = {}
        self._flags: dict[str, bool] = {}
        self._notes: dict[str, float] = {}
        for name, value in options.items():
            if name == INITIAL_LR:
                self._notes[name] = number(name, value)
            elif isinstance(value, bool):
                self._flags[name] = value
            elif isinstance(value, Sequence) and not isinstance(value, str):
                self._cells[name] = tuple(_scalar_cell(name, one) for one in value)
            else:
                self._cells[name] = _scalar_cell(name, value)

    def __getitem__(self, name: str) -> Any:
        if name == "params":
            return self._params
        if name in self._flags:
            return self._flags[name]
        if name in self._notes:
            return self._notes[name]
        if name not in self._cells:
            raise KeyError(f"{name}; a parameter group has {', '.join(self)}")
        cells = self._cells[name]
        read = of_cell if self._as_tensors and state.trace is not None else _read
        return tuple(read(one) for one in cells) if isinstance(cells, tuple) else read(cells)

    @contextlib.contextmanager
    def as_tensors(self) -> Iterator[None]:
        """Numbers as float64 tensors while a step is traced: for formulas that compute with tensors' functions."""
        self._as_tensors = True
        try:
            yield
        finally:
            self._as_tensors = False

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self or name == "params":
            if name != INITIAL_LR:
                advice = ". Use add_param_group for more parameters" if name == "params" else ""
                raise ArgumentError(
                    f"the hyper-parameters of this group are {', '.join(self.options())}; got {name!r}{advice}"
                )
        elif self._check is not None and state.trace is None:
            self._check({**self.options(), name: value})
        self.write({name: value})

    def write(self, options: Mapping[str, Any]) -> None:
        """Set several hyper-parameters at once; their meaning has been checked."""
        for name, value in options.items():
            if name == INITIAL_LR:
                self._notes[name] = number(name, value)
            elif name in self._flags:
                self._set_flag(name, bool(value))
            else:
                self._set_number(name, value)

    def _set_flag(self, name: str, value: bool) -> None:
        if self._flags[name] is not value:
            self._flags[name] = value
            bump_structure(self, name, not value, value)

    def _set_number(self, name: str, value: Any) -> None:
        cells = self._cells[name]
        before = self.active(name)
        if isinstance(cells, tuple):
            for cell, one in zip(cells, several(name, value, len(cells))):
                _write(cell, one)
        else:
            _write(cells, value)
        if before != self.active(name):
            bump_structure(self, f"{name} in use", before, not before)

    def __delitem__(self, name: str) -> None:
        raise ArgumentError(f"the entries of a parameter group stay; got del of {name!r}. Set it to 0")

    def __iter__(self) -> Iterator[str]:
        return iter(("params", *self._cells, *self._flags, *self._notes))

    def __len__(self) -> int:
        return 1 + len(self._cells) + len(self._flags) + len(self._notes)

    def active(self, name: str) -> bool:
        """Whether a number is anything but 0. This is structure: a change of it makes a traced step trace again."""
        cells = self._cells[name]
        return isinstance(cells, tuple) or bool(cells.array != 0)

    def flag(self, name: str) -> bool:
        """Whether a flag is set; False for one that this optimizer lacks."""
        return self._flags.get(name, False)

    def options(self) -> dict[str, Any]:
        """Everything but the parameters."""
        return {name: self[name] for name in self if name != "params"}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.options().items())
        return f"{len(self._params)} parameters, {shown}"


# ------------------------------------------------------------------------------------------ numbers


def number(name: str, value: Any) -> float:
    """A Python float. Raises ArgumentError for anything else, NaN and infinity too."""
    if isinstance(value, Tensor) and value.size == 1:
        value = float(value)
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ArgumentError(f"{name} must be a number; got {value!r}")
    if not math.isfinite(value):
        raise ArgumentError(f"{name} must be finite; got {float(value):g}")
    return float(value)


def several(name: str, value: Any, count: int) -> tuple[Any, ...]:
    """A tuple of `count` entries. Raises ArgumentError for anything else."""
    found = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | Tensor) else ()
    if len(found) != count:
        raise ArgumentError(f"{name} must be {count} numbers; got {value!r}")
    return found


def require_range(options: Mapping[str, Any], name: str, low: float, high: float = math.inf) -> None:
    """Raise ArgumentError unless the option is a number with low ≤ option < high."""
    value = number(name, options[name])
    if not low <= value < high:
        limit = f"from {low:g}" if high == math.inf else f"from {low:g} to below {high:g}"
        raise ArgumentError(f"{name} must be {limit}; got {value:g}")


def _scalar_cell(name: str, value: Any) -> Cell:
    return Cell(np.array(number(name, value)), kind="hyper-parameter", name=name)


def _read(cell: Cell) -> Value:
    """A Python number; in a trace one that each call gives, and as weak as Python's beside tensors."""
    return float(cell.array) if state.trace is None else number_of(cell.read())


def _write(cell: Cell, value: Any) -> None:
    if is_number(value):
        cell.write_node(value.node)
    elif isinstance(value, Tensor) and state.trace is not None:
        cell.write_node(astype(value, cell.array.dtype).node)
    else:
        cell.write_node(constant(np.array(number(cell.name or "value", value))))
