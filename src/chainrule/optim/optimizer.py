"""What all optimizers share: parameter groups, state in cells, one update formula for arrays and for traces.

A subclass states three things: which arrays it keeps for a parameter, the numbers that depend on the
hyper-parameters and the step count alone, and the formula of the update over `xp`. The formula runs on
plain arrays when a step is taken eagerly, and on tensors when it is traced, where hyper-parameters and
step counts are inputs: so a changed learning rate needs no new trace.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..graph import Cell, bump_structure, constant, state
from ..operations import Array
from ..ops import NUMPY, quiet
from ..tensor import Tensor, as_tensor
from ..tensor import elementwise as tensor_functions
from ..tensor.arrival import clear_grad
from ..tensor.core import of_cell
from ..tensor.elementwise import astype
from ..transforms import enable_grad, no_grad

Value = Any
"""A float or an array in an eager step, a tensor in a traced one."""

STEP = "step"


class ParameterGroup(MutableMapping[str, Any]):
    """The parameters that share hyper-parameters, as a dict: `group["lr"] = 0.1`.

    Numbers (and pairs of numbers) live in scalar cells: floats outside a trace, inputs of the graph inside.
    """

    def __init__(self, params: list[Tensor], options: Mapping[str, Any]) -> None:
        self._params = params
        self._cells: dict[str, Cell | tuple[Cell, ...]] = {}
        self._flags: dict[str, bool] = {}
        for name, value in options.items():
            if isinstance(value, bool):
                self._flags[name] = value
            elif isinstance(value, Sequence):
                self._cells[name] = tuple(_scalar_cell(name, one) for one in value)
            else:
                self._cells[name] = _scalar_cell(name, value)

    def __getitem__(self, name: str) -> Any:
        if name == "params":
            return self._params
        if name in self._flags:
            return self._flags[name]
        if name not in self._cells:
            raise KeyError(f"{name}; a parameter group has {', '.join(self)}")
        cells = self._cells[name]
        return tuple(_read(one) for one in cells) if isinstance(cells, tuple) else _read(cells)

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self._flags:
            self._flags[name] = bool(value)
            bump_structure()
            return
        if name not in self._cells:
            raise ArgumentError(f"a parameter group has {', '.join(self)}; got {name!r}")
        cells = self._cells[name]
        before = self.active(name)
        if isinstance(cells, tuple):
            for cell, one in zip(cells, value, strict=True):
                _write(cell, one)
        else:
            _write(cells, value)
        if before != self.active(name):
            bump_structure()

    def __delitem__(self, name: str) -> None:
        raise ArgumentError(f"the entries of a parameter group stay; got del of {name!r}. Set it to 0")

    def __iter__(self) -> Iterator[str]:
        return iter(("params", *self._cells, *self._flags))

    def __len__(self) -> int:
        return 1 + len(self._cells) + len(self._flags)

    def active(self, name: str) -> bool:
        """Whether a number is anything but 0. This is structure: a change of it makes a traced step trace again."""
        cells = self._cells[name]
        return isinstance(cells, tuple) or bool(cells.array != 0)

    def options(self) -> dict[str, Any]:
        """Everything but the parameters."""
        return {name: self[name] for name in self if name != "params"}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.options().items())
        return f"{len(self._params)} parameters, {shown}"


class Optimizer:
    """Base of all optimizers. `param_groups` holds the hyper-parameters, `state` what is kept for each parameter.

    params: tensors that require grad (`model.parameters()`), or dicts with "params" and hyper-parameters of their own.
    """

    #: Arrays kept for each parameter, beside the step count, under PyTorch's names.
    keeps: ClassVar[tuple[str, ...]] = ()

    param_groups: list[ParameterGroup]
    state: dict[Tensor, dict[str, Tensor]]

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.param_groups = []
        self.state = {}
        if isinstance(params, Tensor):
            raise ArgumentError("an optimizer takes several parameters; got one tensor. Write [parameter]")
        given = list(params)
        if not given:
            raise ArgumentError(
                "an optimizer needs at least one parameter; got none. Pass model.parameters(), once for each optimizer"
            )
        for group in given if isinstance(given[0], Mapping) else [{"params": given}]:
            self.add_param_group(group)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        bump_structure()

    # ------------------------------------------------------------------------- what a subclass states

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise ArgumentError for hyper-parameters without meaning."""

    def kept(self, group: ParameterGroup) -> tuple[str, ...]:
        """Names of the arrays that the update of this group needs."""
        del group
        return self.keeps

    def coefficients(self, xp: Any, group: ParameterGroup, step: Value) -> dict[str, Value]:
        """Numbers that the formula needs, from the hyper-parameters and the number of this step (from 1)."""
        raise ArgumentError(f"an optimizer needs a method coefficients; got {type(self).__name__} without")

    def update(
        self, xp: Any, parameter: Value, gradient: Value, kept: dict[str, Value], numbers: dict[str, Value]
    ) -> tuple[Value, dict[str, Value]]:
        """The parameter afterwards, and the arrays that are kept. Nothing is overwritten."""
        raise ArgumentError(f"an optimizer needs a method update; got {type(self).__name__} without")

    # ------------------------------------------------------------------------- what a user calls

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient. `closure` computes the loss first and is returned's value."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad(), quiet():
            for group in self.param_groups:
                if state.trace is None:
                    self._step_eagerly(group)
                else:
                    self._step_traced(group)
        return loss

    def _step_eagerly(self, group: ParameterGroup) -> None:
        names = self.kept(group)
        known: dict[float, dict[str, float]] = {}
        for parameter in group["params"]:
            cell: Cell = parameter.cell
            if cell.grad is None:
                continue
            entries = self._entries(parameter, names)
            counter = entries[STEP].cell
            assert counter is not None
            count = float(counter.array) + 1.0
            numbers = known.get(count)
            if numbers is None:
                found = self.coefficients(NUMPY, group, count)
                # Python floats, because NumPy's own would turn float32 arrays into float64.
                numbers = known[count] = {name: float(value) for name, value in found.items()}
            kept = {name: entries[name].cell.array for name in names}  # type: ignore[union-attr]
            result, kept = self.update(NUMPY, cell.array, cell.grad._array(), kept, numbers)
            cell.write(result)
            counter.write(np.array(count))
            for name in names:
                entries[name].cell.write(kept[name])  # type: ignore[union-attr]

    def _step_traced(self, group: ParameterGroup) -> None:
        names = self.kept(group)
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            entries = self._entries(parameter, names)
            count = entries[STEP] + 1.0
            found = self.coefficients(tensor_functions, group, count)
            numbers = {name: astype(as_tensor(value), parameter.dtype) for name, value in found.items()}
            kept: dict[str, Value] = {name: entries[name] for name in names}
            result, kept = self.update(tensor_functions, parameter, gradient, kept, numbers)
            written = {
                parameter: result,
                entries[STEP]: count,
                **{entries[name]: kept[name] for name in names},
            }
            for target, value in written.items():
                assert target.cell is not None
                target.cell.write_node(value.node)

    def _entries(self, parameter: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
        """What is kept for a parameter; zeros at first."""
        entries = self.state.setdefault(parameter, {})
        if len(entries) <= len(names):
            # These cells outlive a trace that happens to be running, so they are made outside it.
            outer, state.trace = state.trace, None
            try:
                for name in (STEP, *names):
                    if name not in entries:
                        entries[name] = _zeros(parameter, name)
            finally:
                state.trace = outer
        return entries

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients; without `set_to_none` they become zeros."""
        for group in self.param_groups:
            for parameter in group["params"]:
                clear_grad(parameter, set_to_none)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with hyper-parameters of their own: `{"params": […], "lr": 0.01}`."""
        params = param_group.get("params")
        given = [params] if isinstance(params, Tensor) else list(params or ())
        unknown = set(param_group) - set(self.defaults) - {"params"}
        if not given or unknown:
            fault = f"the unknown {', '.join(sorted(unknown))}" if unknown else "no parameters"
            raise ArgumentError(f"a parameter group has params, {', '.join(self.defaults)}; got {fault}")
        seen = {id(one.cell) for group in self.param_groups for one in group["params"]}
        for one in given:
            _check_parameter(one)
            if id(one.cell) in seen:
                raise ArgumentError(
                    f"a parameter belongs to one group, once; got one of shape {one.shape} again"
                )
            seen.add(id(one.cell))
        options = {
            **self.defaults,
            **{name: value for name, value in param_group.items() if name != "params"},
        }
        self.check(options)
        self.param_groups.append(ParameterGroup(given, options))
        bump_structure()

    # ------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Hyper-parameters and state in PyTorch's form: parameters are numbered over all groups."""
        numbered = [one for group in self.param_groups for one in group["params"]]
        position = {id(one): k for k, one in enumerate(numbered)}
        return {
            "state": {
                k: {name: value.detach() for name, value in self.state[one].items()}
                for k, one in enumerate(numbered)
                if one in self.state
            },
            "param_groups": [
                {**group.options(), "params": [position[id(one)] for one in group["params"]]}
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave; also from PyTorch's. Nothing is changed on an error.

        Raises ArgumentError or ShapeError if the groups, names or shapes are others.
        """
        groups, own = state_dict["param_groups"], self.param_groups
        sizes = [len(group["params"]) for group in groups]
        if sizes != [len(group["params"]) for group in own]:
            raise ArgumentError(
                f"load_state_dict needs groups of {[len(group['params']) for group in own]} parameters; got {sizes}. "
                "Build the optimizer for the same model"
            )
        numbered = [one for group in own for one in group["params"]]
        loaded = {
            numbered[int(k)]: {
                name: _state_array(numbered[int(k)], name, value) for name, value in entries.items()
            }
            for k, entries in state_dict["state"].items()
        }
        for group, saved in zip(own, groups):
            options = {name: saved[name] for name in group if name != "params" and name in saved}
            self.check({**group.options(), **options})
            group.update(options)
        for parameter, arrays in loaded.items():
            entries = self._entries(parameter, tuple(name for name in arrays if name != STEP))
            for name, array in arrays.items():
                cell = entries[name].cell
                assert cell is not None
                cell.write_node(constant(array))
        for parameter in [one for one in self.state if one not in loaded]:
            del self.state[parameter]
        bump_structure()

    def __repr__(self) -> str:
        groups = "\n".join(f"  {k}: {group!r}" for k, group in enumerate(self.param_groups))
        return f"{type(self).__name__}(\n{groups}\n)"


def _scalar_cell(name: str, value: Any) -> Cell:
    return Cell(np.array(_number(name, value)), kind="hyper-parameter", name=name)


def _number(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.size == 1:
        return float(value)
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ArgumentError(f"{name} must be a number; got {value!r}")
    return float(value)


def _read(cell: Cell) -> Value:
    return float(cell.array) if state.trace is None else of_cell(cell)


def _write(cell: Cell, value: Any) -> None:
    if isinstance(value, Tensor) and state.trace is not None:
        cell.write_node(astype(value, cell.array.dtype).node)
    else:
        cell.write_node(constant(np.array(_number(cell.name or "value", value))))


def _check_parameter(one: Any) -> None:
    if not isinstance(one, Tensor):
        raise ArgumentError(
            f"a parameter must be a Tensor; got {type(one).__name__}. Pass model.parameters()"
        )
    if one.cell is None or one.dtype.kind != "f":
        raise ArgumentError(
            f"an optimizer changes leaves that require grad; got the result of an operation or a constant of shape "
            f"{one.shape}. Use requires_grad=True where the tensor is made"
        )


def _zeros(parameter: Tensor, name: str) -> Tensor:
    label = (parameter.cell.name if parameter.cell is not None else None) or "parameter"
    zeros = np.zeros(()) if name == STEP else np.zeros(parameter.shape, parameter.dtype)
    return of_cell(Cell(zeros, kind="moment", name=f"{label}.{name}"))


def _state_array(parameter: Tensor, name: str, value: Any) -> Array:
    array = np.asarray(value.numpy() if isinstance(value, Tensor) else value)
    dtype = np.dtype(np.float64) if name == STEP else parameter.dtype
    shape = () if name == STEP else parameter.shape
    if array.shape != shape:
        raise ShapeError(
            f"load_state_dict needs {name} of shape {shape}; got {array.shape}. Was it another model?"
        )
    return array.astype(dtype)


def require_range(options: Mapping[str, Any], name: str, low: float, high: float = float("inf")) -> None:
    """Raise ArgumentError unless low ≤ option < high."""
    value = _number(name, options[name])
    if not low <= value < high:
        limit = f"from {low:g}" if high == float("inf") else f"from {low:g} to below {high:g}"
        raise ArgumentError(f"{name} must be {limit}; got {value:g}")
