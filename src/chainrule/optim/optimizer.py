"""What all optimizers share: state in cells, one update formula for arrays and for traces, saving and loading.

A subclass states three things: which arrays it keeps for a parameter, the numbers that depend on the
hyper-parameters and the step count alone, and the formula of the update over `xp`. The formula runs on
plain arrays when a step is taken eagerly, and on tensors when it is traced, where hyper-parameters and
step counts are inputs: so a changed learning rate needs no new trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ..elsewhere import checked_constructor
from ..errors import ArgumentError, DtypeError, ShapeError
from ..graph import Cell, state
from ..operations import Array
from ..ops import NUMPY, quiet
from ..structure import BORN, bump_structure
from ..tensor import Tensor, as_tensor
from ..tensor import elementwise as tensor_functions
from ..tensor.arrival import clear_grad
from ..tensor.core import of_cell
from ..tensor.elementwise import astype
from ..transforms import enable_grad, no_grad
from .groups import INITIAL_LR, ParameterGroup, Value
from .moments import State

STEP = "step"


class Optimizer:
    """Base of all optimizers. `param_groups` holds the hyper-parameters, `state` what is kept for each parameter.

    params: tensors that require grad (`model.parameters()`), or dicts with "params" and hyper-parameters of their own.
    With the flag `maximize` among the hyper-parameters the gradient's sign is turned before anything else.
    """

    #: Arrays kept for each parameter, beside the step count, under PyTorch's names.
    keeps: ClassVar[tuple[str, ...]] = ()
    #: Further ones that some hyper-parameters ask for.
    may_keep: ClassVar[tuple[str, ...]] = ()

    param_groups: list[ParameterGroup]
    state: dict[Tensor, dict[str, Tensor]]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        checked_constructor(cls)

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.param_groups = []
        self.state = State(type(self).__name__)
        if isinstance(params, Tensor):
            raise ArgumentError("an optimizer takes several parameters; got one tensor. Write [parameter]")
        if not isinstance(params, Iterable) or isinstance(params, Mapping | str):
            raise ArgumentError(
                f"an optimizer takes parameters or a list of groups; got {type(params).__name__}. Pass "
                "model.parameters()"
            )
        given = list(params)
        if not given:
            raise ArgumentError(
                "an optimizer needs at least one parameter; got none. Pass model.parameters() itself: a generator "
                "that was read before is empty"
            )
        for group in given if isinstance(given[0], Mapping) else [{"params": given}]:
            self.add_param_group(group)

    def __setattr__(self, name: str, value: Any) -> None:
        if not self.__dict__:
            bump_structure(self, BORN)
        before = self.__dict__.get(name, ...)
        super().__setattr__(name, value)
        bump_structure(self, f"{type(self).__name__}.{name}", before, value)

    # ------------------------------------------------------------------------- what a subclass states

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise ArgumentError for hyper-parameters without meaning."""

    def kept(self, group: ParameterGroup) -> tuple[str, ...]:
        """Names of the arrays that the update of this group needs: `keeps`, and some of `may_keep`."""
        del group
        return self.keeps

    def initial(self, name: str, group: ParameterGroup) -> float:
        """What a kept array is filled with at first."""
        del name, group
        return 0.0

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
                    with group.as_tensors():
                        self._step_traced(group)
        return loss

    def _step_eagerly(self, group: ParameterGroup) -> None:
        names, maximize = self.kept(group), group.flag("maximize")
        known: dict[float, dict[str, float]] = {}
        for parameter in group["params"]:
            cell: Cell = parameter.cell
            if cell.grad is None:
                continue
            gradient = cell.grad._array()
            entries = self._entries(parameter, group, names)
            counter = entries[STEP].cell
            assert counter is not None
            count = float(counter.array) + 1.0
            numbers = known.get(count)
            if numbers is None:
                found = self.coefficients(NUMPY, group, count)
                # Python floats, because NumPy's own would turn float32 arrays into float64.
                numbers = known[count] = {name: float(value) for name, value in found.items()}
            kept = {name: entries[name].cell.array for name in names}  # type: ignore[union-attr]
            result, kept = self.update(NUMPY, cell.array, -gradient if maximize else gradient, kept, numbers)
            cell.write(result)
            counter.write(np.array(count))
            for name in names:
                entries[name].cell.write(kept[name])  # type: ignore[union-attr]

    def _step_traced(self, group: ParameterGroup) -> None:
        names, maximize = self.kept(group), group.flag("maximize")
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            entries = self._entries(parameter, group, names)
            count = entries[STEP] + 1.0
            found = self.coefficients(tensor_functions, group, count)
            numbers = {name: astype(as_tensor(value), parameter.dtype) for name, value in found.items()}
            kept: dict[str, Value] = {name: entries[name] for name in names}
            gradient = -gradient if maximize else gradient
            result, kept = self.update(tensor_functions, parameter, gradient, kept, numbers)
            written = {
                parameter: result,
                entries[STEP]: count,
                **{entries[name]: kept[name] for name in names},
            }
            for target, value in written.items():
                assert target.cell is not None
                target.cell.write_node(value.node)

    def _entries(self, parameter: Tensor, group: ParameterGroup, names: tuple[str, ...]) -> dict[str, Tensor]:
        """What is kept for a parameter, in its dtype; made at first."""
        entries = self.state.get(parameter, {})
        complete = STEP in entries and all(map(entries.__contains__, names))
        if not complete or (names and entries[names[0]].dtype != parameter.dtype):
            # These cells outlive a trace that happens to be running, so they are made outside it.
            outer, state.trace = state.trace, None
            try:
                for name in (STEP, *names):
                    if name not in entries:
                        value = 0.0 if name == STEP else self.initial(name, group)
                        entries[name] = _filled(parameter, name, value)
                _follow_dtype(parameter, entries)
            finally:
                state.trace = outer
            self.state[parameter] = entries
        return entries

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients; without `set_to_none` they become zeros."""
        for group in self.param_groups:
            for parameter in group["params"]:
                clear_grad(parameter, set_to_none)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with hyper-parameters of their own: `{"params": […], "lr": 0.01}`."""
        if not isinstance(param_group, Mapping):
            raise ArgumentError(
                f"a parameter group is a dict with 'params'; got {type(param_group).__name__} beside dicts"
            )
        params = param_group.get("params")
        given = [params] if isinstance(params, Tensor) else list(() if params is None else params)
        unknown = set(param_group) - set(self.defaults) - {"params", INITIAL_LR}
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
        count = len(self.param_groups)
        self.param_groups.append(ParameterGroup(given, options, self.check))
        bump_structure(self, f"groups of parameters of {type(self).__name__}", count, count + 1)

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
        groups, entries = self._parts_of(state_dict)
        options = [
            {name: saved[name] for name in (*group.options(), INITIAL_LR) if name in saved}
            for group, saved in zip(self.param_groups, groups)
        ]
        loaded: dict[Tensor, dict[str, Array]] = {}
        for group, saved, new in zip(self.param_groups, groups, options):
            self.check({**group.options(), **new})
            for key, parameter in zip(saved["params"], group["params"]):
                if key in entries:
                    loaded[parameter] = self._state_of(parameter, entries[key])
        for group, new in zip(self.param_groups, options):
            group.write(new)
        for parameter in [one for one in self.state if one not in loaded]:
            del self.state[parameter]
        for parameter, arrays in loaded.items():
            self._continue_from(parameter, arrays)
        bump_structure(name=f"the state of {type(self).__name__} was loaded")

    def _parts_of(self, state_dict: Mapping[str, Any]) -> tuple[Sequence[Any], dict[Any, Mapping[str, Any]]]:
        """Groups of the same sizes as here, and what belongs to each parameter's number."""
        if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
            keys = list(state_dict)[:5] if isinstance(state_dict, Mapping) else type(state_dict).__name__
            raise ArgumentError(
                f"load_state_dict needs 'state' and 'param_groups'; got {keys}. Pass optimizer.state_dict()"
            )
        groups = state_dict["param_groups"]
        own = [len(group["params"]) for group in self.param_groups]
        sizes = [len(group["params"]) for group in groups]
        if sizes != own:
            raise ArgumentError(
                f"load_state_dict needs groups of {own} parameters; got {sizes}. Build the optimizer for the same model"
            )
        # A file may have turned the numbers into texts.
        entries = {_as_number(key): value for key, value in state_dict["state"].items()}
        unknown = set(entries) - {key for group in groups for key in group["params"]}
        if unknown:
            raise ArgumentError(f"load_state_dict knows {sum(own)} parameters; got state for {unknown}")
        return groups, entries

    def _state_of(self, parameter: Tensor, entries: Mapping[str, Any]) -> dict[str, Array]:
        """Arrays under their names: those that this optimizer keeps, and no foreign ones."""
        given = {name: value for name, value in entries.items() if value is not None}
        known = (STEP, *self.keeps, *self.may_keep)
        if set(given) - set(known) or (given and set(self.keeps) - set(given)):
            raise ArgumentError(
                f"load_state_dict of {type(self).__name__} knows {', '.join(known)}; got {', '.join(given)}. Was it "
                "another optimizer?"
            )
        arrays = {name: _state_array(parameter, name, value) for name, value in given.items()}
        # PyTorch's SGD counts no steps, but its buffer says that there was one.
        arrays.setdefault(STEP, np.array(1.0 if given else 0.0))
        return arrays

    def _continue_from(self, parameter: Tensor, arrays: Mapping[str, Array]) -> None:
        """Write into the cells that there are, since compiled steps may know them; make those that are new."""
        entries = self.state.setdefault(parameter, {})
        for name in [name for name in entries if name not in arrays]:
            del entries[name]
        for name, array in arrays.items():
            if name in entries:
                cell = entries[name].cell
                assert cell is not None
                cell.write(array)
            else:
                entries[name] = _kept_cell(parameter, name, array)

    def __repr__(self) -> str:
        groups = "\n".join(f"  {k}: {group!r}" for k, group in enumerate(self.param_groups))
        return f"{type(self).__name__}(\n{groups}\n)"


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


def _filled(parameter: Tensor, name: str, value: float) -> Tensor:
    """A new cell for what is kept: one number for the step count, otherwise of the parameter's shape."""
    array = np.array(value) if name == STEP else np.full(parameter.shape, value, parameter.dtype)
    return _kept_cell(parameter, name, array)


def _kept_cell(parameter: Tensor, name: str, array: Array) -> Tensor:
    label = (parameter.cell.name if parameter.cell is not None else None) or "parameter"
    return of_cell(Cell(array, kind="moment", name=f"{label}.{name}"))


def _follow_dtype(parameter: Tensor, entries: Mapping[str, Tensor]) -> None:
    """After `model.double()` in mid-training what is kept becomes float64 too."""
    for name, entry in entries.items():
        if name != STEP and entry.dtype != parameter.dtype and entry.cell is not None:
            entry.cell.write(entry.cell.array.astype(parameter.dtype))


def _as_number(key: Any) -> Any:
    return int(key) if isinstance(key, str) and key.isdecimal() else key


def _state_array(parameter: Tensor, name: str, value: Any) -> Array:
    array = np.asarray(value.numpy() if isinstance(value, Tensor) else value)
    dtype = np.dtype(np.float64) if name == STEP else parameter.dtype
    shape = () if name == STEP else parameter.shape
    if array.dtype.kind not in "iuf":
        raise DtypeError(f"load_state_dict needs numbers; got {array.dtype} for {name}")
    if array.shape != shape:
        raise ShapeError(
            f"load_state_dict needs {name} of shape {shape}; got {array.shape}. Was it another model?"
        )
    return array.astype(dtype)
