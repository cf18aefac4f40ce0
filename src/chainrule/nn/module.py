"""What a layer is: parameters, buffers and other layers by their names, and a call that opens a scope.

Names, order and meaning are PyTorch's, so that state dictionaries can be exchanged.
Knows nothing of particular layers, of optimizers and of training.
"""

from __future__ import annotations

import copy
import difflib
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from ..dtypes import as_dtype
from ..elsewhere import checked_constructor, explain_misfit, module_advice
from ..errors import ArgumentError, DtypeError, GradientError, ShapeError
from ..graph import Cell, constant, scope, state
from ..ops import NUMPY
from ..structure import BORN, bump_structure
from ..tensor import Tensor
from ..tensor.arrival import clear_grad
from ..tensor.core import _differentiable, of_cell
from ..tensor.elementwise import astype
from ..tensor.hooks import Hook, RemovableHandle
from .hooks import ModuleHooks
from .mismatches import explain_names, explain_shapes, listed

Self = TypeVar("Self", bound="Module")

_OURS = __name__.partition(".")[0] + "."


class Parameter(Tensor):
    """A tensor that a module learns: a leaf that requires grad, and that a module registers by its name.

    data: a tensor, array or nested list of floats; it is copied. dtype: float32 or float64, data's own by default.
    Raises DtypeError for anything but floats.

    >>> import chainrule as cr
    >>> Parameter(cr.zeros(2))
    tensor([0., 0.], requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, data: Any, dtype: DTypeLike | None = None, requires_grad: bool = True) -> None:
        source = data.detach() if isinstance(data, Tensor) else data
        super().__init__(source, dtype)
        array = _differentiable(self.node.value)
        self._node = None
        self._cell = Cell(array, requires_grad, "parameter")


class LoadReport(NamedTuple):
    """What `load_state_dict` found: names that only the module has, and names that only the dictionary has."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base of all layers. Assign parameters and layers as attributes, and write `forward`.

    >>> import chainrule as cr
    >>> class Scale(Module):
    ...     def __init__(self):
    ...         self.factor = Parameter([2.0])
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> Scale()(cr.tensor([1.0, 3.0])).tolist(), [name for name, _ in Scale().named_parameters()]
    ([2.0, 6.0], ['factor'])
    """

    # A network is handed around as one thing, also where it is a dataclass.
    __one_leaf__ = True

    training: bool
    # What each registered attribute is; the values themselves are ordinary attributes.
    _kinds: dict[str, str]
    # The module that this one is an attribute of, and the name there.
    _parent: tuple[weakref.ref[Module], str] | None
    _hooks: ModuleHooks | None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        checked_constructor(cls)

    def __new__(cls: type[Self], *arguments: Any, **keywords: Any) -> Self:
        """Prepare the registry: here and not in __init__, so that a subclass cannot forget to call it."""
        self = super().__new__(cls)
        fresh: dict[str, Any] = {"_kinds": {}, "_parent": None, "_hooks": None, "training": True}
        self.__dict__.update(fresh)
        bump_structure(self, BORN)
        return self

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """What the layer computes; every subclass writes its own."""
        raise ArgumentError(f"a module needs a method forward; got {type(self).__name__} without. Write one")

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """`forward`, in a scope with the name of the layer."""
        parent, hooks = self._parent, self._hooks
        try:
            with scope(parent[1] if parent is not None else type(self).__name__, "module"):
                if hooks is not None:
                    return hooks.call(self, arguments, keywords)
                return self.forward(*arguments, **keywords)
        except TypeError:
            forward = type(self).forward
            if str(getattr(forward, "__module__", "")).startswith(_OURS):
                explain_misfit(forward, f"a call of {self._called()}", (self, *arguments), keywords)
            raise

    def _called(self) -> str:
        """`Linear 'encoder.0'`, for messages."""
        return f"{type(self).__name__} {self.path!r}" if self.path else type(self).__name__

    # ------------------------------------------------------------------------------- hooks

    def _hooked(self) -> ModuleHooks:
        if self._hooks is None:
            self.__dict__["_hooks"] = ModuleHooks()
        hooks = self._hooks
        assert hooks is not None
        return hooks

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, arguments)` before `forward`; what it returns takes the place of the arguments.

        with_kwargs: `hook(module, arguments, keywords)`, which returns both or None. prepend: before those that are
        registered already. The handle's `remove()` takes it away. In `cr.compile` a hook runs when a step is traced.
        """
        return self._hooked().add("forward_pre", hook, prepend, with_kwargs)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Call `hook(module, arguments, output)` after `forward`; what it returns takes the place of the output.

        with_kwargs: `hook(module, arguments, keywords, output)`. always_call: also if `forward` has raised.

        >>> import chainrule as cr
        >>> from chainrule import nn
        >>> layer, shapes = nn.Linear(4, 2), []
        >>> handle = layer.register_forward_hook(lambda module, arguments, output: shapes.append(output.shape))
        >>> _ = layer(cr.ones((3, 4)))
        >>> handle.remove()
        >>> shapes
        [(3, 2)]
        """
        return self._hooked().add("forward", hook, prepend, with_kwargs, always_call)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` when the gradients of the inputs have arrived.

        Both are tuples, one entry for each positional argument and each output, None where there is no gradient. A
        tuple that the hook returns flows on in place of `grad_input`. Where no input requires grad, it is called with
        the gradients of the outputs.

        >>> import chainrule as cr
        >>> from chainrule import nn
        >>> layer, norms = nn.Tanh(), []
        >>> _ = layer.register_full_backward_hook(lambda module, before, after: norms.append(before[0].item()))
        >>> layer(cr.tensor(0.0, requires_grad=True)).backward()
        >>> norms
        [1.0]
        """
        return self._hooked().add("backward", hook, prepend)

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, grad_output)` when the gradients of the outputs have arrived.

        A tuple that the hook returns flows on in their place.
        """
        return self._hooked().add("backward_pre", hook, prepend)

    def hook_functions(self) -> Iterator[Callable[..., Any]]:
        """The functions registered as hooks of this module and of its parameters; what a traced step depends on."""
        if self._hooks is not None:
            yield from self._hooks.functions()
        for parameter in self.parameters(recurse=False):
            cell = parameter.cell
            if cell is not None and cell.hooks:
                yield from (hook.function for hook in cell.hooks.values() if isinstance(hook, Hook))

    # ------------------------------------------------------------------------------- registration

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("__class__", "__dict__"):
            before = getattr(self, name)
            object.__setattr__(self, name, value)
            bump_structure(self, f"{self.path or type(self).__name__}.{name}", before, value)
            return
        kind = self._kinds.get(name)
        if isinstance(value, Parameter):
            kind = "parameter"
        elif isinstance(value, Module):
            kind = "module"
        elif kind == "buffer" and isinstance(value, Tensor):
            value = _as_buffer(value)
        elif value is not None:
            if kind is not None:
                _refuse_loss(name, kind, value)
            _refuse_hidden(name, value)
        self._register(name, kind, value)

    def _register(self, name: str, kind: str | None, value: Any) -> None:
        old = self.__dict__.get(name, ...)
        if isinstance(old, Module) and old is not value and old._parent is not None:
            old.__dict__["_parent"] = None
        self.__dict__[name] = value
        if kind is None:
            self._kinds.pop(name, None)
        else:
            self._kinds[name] = kind
            self._adopt(name, value)
        bump_structure(self, f"{self.path or type(self).__name__}.{name}", old, value)

    def _adopt(self, name: str, value: Any) -> None:
        """Give cells the names by which the outermost module knows them."""
        if isinstance(value, Module):
            if value is self or value in self._ancestors():
                raise ArgumentError(f"a module cannot hold itself; got {type(self).__name__} as {name!r}")
            value.__dict__["_parent"] = (weakref.ref(self), name)
            for path, tensor in [*value.named_parameters(), *value.named_buffers()]:
                _name_cell(tensor, f"{value.path}.{path}")
        elif value is not None:
            _name_cell(value, f"{self.path}.{name}" if self.path else name)

    def __delattr__(self, name: str) -> None:
        if isinstance(old := self.__dict__.get(name), Module):
            old.__dict__["_parent"] = None
        self._kinds.pop(name, None)
        super().__delattr__(name)
        bump_structure(self, f"{self.path or type(self).__name__}.{name}", old, ...)

    def __getattr__(self, name: str) -> Any:
        # Reached only when there is no such attribute. The error says what there is.
        known = [
            key for key in (*self.__dict__.get("_kinds", ()), *dir(type(self))) if not key.startswith("_")
        ]
        close = difflib.get_close_matches(name, known, n=1)
        advice = module_advice(name) or (f". Did you mean {close[0]!r}?" if close else "")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{advice}")

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter, or None to say that there is none of that name."""
        if parameter is not None and not isinstance(parameter, Parameter):
            raise ArgumentError(
                f"{name!r} must be a Parameter; got {type(parameter).__name__}. Use nn.Parameter(…)"
            )
        self._register(self._free_name(name), "parameter", parameter)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that belongs to the state and is not learnt. Without `persistent` it is not saved."""
        value = None if tensor is None else _as_buffer(tensor)
        self._register(self._free_name(name), "buffer" if persistent else "temporary buffer", value)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a layer under `name`."""
        if module is not None and not isinstance(module, Module):
            raise ArgumentError(f"{name!r} must be a Module; got {type(module).__name__}")
        self._register(self._free_name(name), "module", module)

    def _free_name(self, name: str) -> str:
        """A name for a parameter, buffer or layer, which hides nothing that the module has."""
        if not isinstance(name, str) or not name or "." in name:
            raise ArgumentError(f"a name needs to be a text without dots; got {name!r}")
        if name not in self._kinds and (name in self.__dict__ or hasattr(type(self), name)):
            raise ArgumentError(
                f"{type(self).__name__} has an attribute {name!r} already, which would be hidden. Choose another name"
            )
        return name

    register_module = add_module

    # ------------------------------------------------------------------------------- walking

    @property
    def path(self) -> str:
        """The name in the outermost module, such as `encoder.0`; empty for that module itself."""
        names = [module._parent[1] for module in (self, *self._ancestors()) if module._parent is not None]
        return ".".join(reversed(names))

    def _ancestors(self) -> list[Module]:
        found: list[Module] = []
        module: Module | None = self
        while module is not None and module._parent is not None:
            module = module._parent[0]()
            if module is not None:
                found.append(module)
        return found

    def _own(self, *kinds: str) -> Iterator[tuple[str, Any]]:
        for name, kind in self._kinds.items():
            if kind in kinds and (value := self.__dict__[name]) is not None:
                yield name, value

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The layers right below, with their names; each once."""
        seen: set[Module] = set()
        for name, module in self._own("module"):
            if module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The layers right below."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, prefix: str = "", *, _seen: set[Module] | None = None
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below with their paths, from the outside inwards; each once."""
        seen = set() if _seen is None else _seen
        if self in seen:
            return
        seen.add(self)
        yield prefix, self
        for name, module in self._own("module"):
            yield from module.named_modules(_join(prefix, name), _seen=seen)

    def modules(self) -> Iterator[Module]:
        """This module and all below."""
        return (module for _, module in self.named_modules())

    def _members(self, prefix: str, recurse: bool, *kinds: str) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, value in module._own(*kinds):
                if id(value) not in seen:
                    seen.add(id(value))
                    yield _join(path, name), value

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their paths, such as `0.weight`; a shared one once."""
        return self._members(prefix, recurse, "parameter")  # type: ignore[return-value]

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters; what an optimizer is given."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """All buffers with their paths."""
        return self._members(prefix, recurse, "buffer", "temporary buffer")

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module at a path such as `encoder.0`; this one for the empty path."""
        found = dict(self.named_modules())
        if target not in found:
            raise ArgumentError(f"{type(self).__name__} has no module {target!r}; it has {listed(found)}")
        return found[target]

    def apply(self: Self, function: Callable[[Module], None]) -> Self:
        """Call `function` with every module below and then with this one."""
        for module in self.children():
            module.apply(function)
        function(self)
        return self

    # ------------------------------------------------------------------------------- modes

    def train(self: Self, mode: bool = True) -> Self:
        """Switch this module and all below to training (or with False to evaluation)."""
        for module in self.modules():
            if module.training is not mode:
                module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Switch this module and all below to evaluation."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Let all parameters be learnt, or with False keep them as they are."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters; without `set_to_none` they become zeros."""
        for parameter in self.parameters():
            clear_grad(parameter, set_to_none)

    def to(self: Self, dtype: DTypeLike | None = None, *, device: str | None = None) -> Self:
        """Change the float dtype of all parameters and float buffers in place. Gradients are forgotten.

        "cpu", as PyTorch's users write, changes nothing: it is the only device.
        """
        if isinstance(dtype, str) and dtype.partition(":")[0] in ("cpu", "cuda", "mps"):
            dtype, device = None, dtype
        if device not in (None, "cpu"):
            raise ArgumentError(
                f"the only device is 'cpu'; got {device!r}. Leave it out: a GPU is used by steps that are compiled "
                "with cr.compile(step, backend='jax')"
            )
        if dtype is None:
            return self
        target = as_dtype(dtype)
        if target.kind != "f":
            raise DtypeError(f"a module holds float32 or float64; got {target.name}")
        for tensor in (*self.parameters(), *self.buffers()):
            cell = tensor.cell
            if cell is not None and cell.array.dtype.kind == "f" and cell.array.dtype != target:
                cell.write(cell.array.astype(target))
                cell.grad = None
        bump_structure(name=f"a module was cast to {target.name}")
        return self

    def float(self: Self) -> Self:
        """All parameters and float buffers in float32."""
        return self.to("float32")

    def double(self: Self) -> Self:
        """All parameters and float buffers in float64."""
        return self.to("float64")

    # ------------------------------------------------------------------------------- state

    def __reduce__(self) -> Any:
        raise DtypeError(
            f"modules are not pickled: pickles run code when loaded; got {type(self).__name__}. Use "
            "cr.save(path, module.state_dict())"
        )

    def _saved(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors in PyTorch's order; a shared tensor under each of its names."""
        stack: list[tuple[str, Module]] = [("", self)]
        while stack:
            path, module = stack.pop()
            for kind in ("parameter", "buffer"):
                for name, value in module._own(kind):
                    yield _join(path, name), value
            below = [(_join(path, name), child) for name, child in module._own("module")]
            stack.extend(reversed(below))

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """All parameters and persistent buffers by their paths, as constants: a snapshot that stays as it is.

        prefix: stands before each path. keep_vars: the parameters themselves, not snapshots.

        >>> from chainrule import nn
        >>> list(nn.Sequential(nn.Linear(2, 3)).state_dict())
        ['0.weight', '0.bias']
        """
        return {prefix + name: tensor if keep_vars else tensor.detach() for name, tensor in self._saved()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadReport:
        """Copy tensors or arrays of the same names and shapes into this module; nothing is changed on an error.

        With strict=False names that one side lacks are left alone and returned. Float dtypes are converted.
        Raises ArgumentError for names and ShapeError for shapes that do not fit, all of them in one message.
        """
        own = dict(self._saved())
        given = {id(own[name]) for name in own if name in state_dict}
        missing = [name for name in own if name not in state_dict]
        # A shared tensor may come under one of its names only, as safetensors' own `save_model` writes it.
        absent = [name for name in missing if id(own[name]) not in given]
        unexpected = [name for name in state_dict if name not in own]
        arrays = {name: _loaded(name, state_dict[name]) for name in own if name in state_dict}
        shapes = {
            name: (own[name].shape, array.shape)
            for name, array in arrays.items()
            if array.shape != own[name].shape
        }
        if strict and (absent or unexpected):
            raise ArgumentError(explain_names(type(self).__name__, list(own), absent, unexpected, shapes))
        if shapes:
            raise ShapeError(explain_shapes(shapes))
        for name, array in arrays.items():
            cell = own[name].cell
            assert cell is not None
            if isinstance(array, Tensor):
                cell.write_node(astype(array, cell.type.dtype).node)
            else:
                cell.write_node(constant(NUMPY.cast(array, cell.array.dtype)))
        return LoadReport(absent, unexpected)

    # ------------------------------------------------------------------------------- showing, copying

    def extra_repr(self) -> str:
        """What stands between the brackets of the layer's repr."""
        return ""

    def __repr__(self) -> str:
        own = self.extra_repr()
        below = self._shown_below()
        if not below and "\n" not in own:
            return f"{type(self).__name__}({own})"
        lines = "\n".join([own, *below] if own else below).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {lines}\n)"

    def _shown_below(self) -> list[str]:
        return [f"({name}): {module!r}" for name, module in self._own("module")]

    def __copy__(self: Self) -> Self:
        """A module of its own that has the same parameters and layers, which stay this one's."""
        twin = type(self).__new__(type(self))
        for name, value in self.__dict__.items():
            if name != "_parent":
                own = name.startswith("_") and type(value) in (dict, list, set)
                twin.__dict__[name] = copy.copy(value) if own else value
        return twin

    def __deepcopy__(self: Self, memo: dict[int, Any]) -> Self:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        for name, value in self.__dict__.items():
            if name != "_parent":
                twin.__dict__[name] = copy.deepcopy(value, memo)
        for name, module in twin._own("module"):
            module.__dict__["_parent"] = (weakref.ref(twin), name)
        return twin


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _name_cell(tensor: Tensor, name: str) -> None:
    if tensor.cell is not None:
        tensor.cell.name = name


def _as_buffer(tensor: Any) -> Tensor:
    """A tensor that stands on a cell, so that layers can write it."""
    if not isinstance(tensor, Tensor):
        raise ArgumentError(f"a buffer must be a Tensor; got {type(tensor).__name__}. Use cr.tensor(…)")
    if tensor.cell is not None:
        return tensor
    if tensor.requires_grad:
        raise GradientError(
            f"a buffer keeps numbers, not what they were computed from; got {tensor.dtype}{tensor.shape} that requires "
            "grad. Write .detach() behind it, or compute it under cr.no_grad()"
        )
    if tensor.node.value is None:  # a traced one gets its cell when the step has run
        return tensor
    return of_cell(Cell(tensor.numpy(), kind="buffer"))


def _refuse_loss(name: str, kind: str, value: Any) -> None:
    """What replaces a parameter, buffer or layer must be one, or it would no longer be learnt or saved, unnoticed."""
    advice = {
        "parameter": f"Use nn.Parameter(…), or {name}.copy_(…) under cr.no_grad() to change its numbers",
        "module": f"Use an nn.Module, or del {name} first",
    }.get(kind, f"Use cr.tensor(…), or del {name} first")
    raise ArgumentError(
        f"{name!r} is a {kind} of the module; got {type(value).__name__} in its place. {advice}"
    )


def _refuse_hidden(name: str, value: Any) -> None:
    """Layers inside plain lists would never be learnt, and nobody would notice."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    if any(isinstance(part, Module | Parameter) for part in parts):
        raise ArgumentError(
            f"a module finds its layers and parameters as attributes; got {name!r}, a {type(value).__name__} with "
            f"{len(value)} entries. Use nn.Sequential or nn.ModuleList, or one attribute for each"
        )


def _loaded(name: str, value: Any) -> Any:
    """An array; a tensor where a step is traced, for what is read there is another one at each call."""
    if isinstance(value, Tensor) and state.trace is not None and value.dtype.kind in "biuf":
        return value.detach()
    array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise DtypeError(f"load_state_dict needs numbers; got {array.dtype} for {name!r}")
    return array
