"""The layers, each an equation over `functional` with its parameters."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from numpy.typing import DTypeLike

from .. import functional
from ..dtypes import DEFAULT_FLOAT, as_dtype
from ..errors import ArgumentError, BoundsError, DtypeError, ShapeError
from ..tensor import Tensor, as_tensor
from ..tensor.creation import zeros
from ..tensor.manipulation import flatten
from . import init
from .module import Module, Parameter


class Linear(Module):
    """x·weightᵀ + bias: (…, in_features) → (…, out_features).

    `weight` is (out_features, in_features) and `bias` (out_features,); both start as U(−1/√in, 1/√in), which is
    what `kaiming_uniform_(a=√5)` means in PyTorch.

    Raises ShapeError for another number of features and DtypeError for another dtype, naming the layer.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Linear(4, 2)(cr.ones((3, 4))).shape
    (3, 2)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, dtype: DTypeLike | None = None
    ) -> None:
        self.in_features = _size("in_features", in_features)
        self.out_features = _size("out_features", out_features)
        wanted = DEFAULT_FLOAT if dtype is None else as_dtype(dtype)
        self.weight = Parameter(zeros((out_features, in_features), dtype=wanted))
        self.register_parameter("bias", Parameter(zeros(out_features, dtype=wanted)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Any) -> Tensor:
        """x·weightᵀ + bias."""
        source = as_tensor(x)
        if not source.ndim or source.shape[-1] != self.in_features:
            raise ShapeError(
                f"{self._called()} needs {self.in_features} features on the last axis; got {source.shape}. "
                f"Change the input, or use nn.Linear({source.shape[-1] if source.ndim else 1}, {self.out_features})"
            )
        if source.dtype != self.weight.dtype:
            raise DtypeError(
                f"{self._called()} needs its weight's dtype, {self.weight.dtype.name}; got {source.dtype.name}. "
                f"Use x.astype('{self.weight.dtype.name}'), or the module's .to('{source.dtype.name}')"
                if source.dtype.kind == "f"
                else f"{self._called()} needs floats; got {source.dtype.name}. "
                f"Use x.astype('{self.weight.dtype.name}')"
            )
        return functional.linear(source, self.weight, self.bias)

    def _called(self) -> str:
        """`Linear 'encoder.0'`."""
        return f"Linear {self.path!r}" if self.path else "Linear"

    def extra_repr(self) -> str:
        """Sizes and whether there is a bias."""
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"


def _size(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArgumentError(f"{name} must be a whole number from 1; got {value!r}")
    return value


class _Numbered(Module):
    """Layers by their positions, which are their names too."""

    def _name_at(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise BoundsError(f"{type(self).__name__} has {len(self)} layers; got index {index}")
        return self._names()[index]

    def _names(self) -> list[str]:
        return [name for name, _ in self._own("module")]

    def __len__(self) -> int:
        return len(self._names())

    def __iter__(self) -> Iterator[Module]:
        return iter([module for _, module in self._own("module")])

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            # The parts stay registered here; a slice only calls them in order.
            part = type(self)()
            chosen = self._names()[index]
            part.__dict__.update({name: self.__dict__[name] for name in chosen})
            part._kinds.update(dict.fromkeys(chosen, "module"))
            return part
        return self.__dict__[self._name_at(index)]

    def __setitem__(self, index: int, module: Module) -> None:
        self.add_module(self._name_at(index), module)

    def append(self, module: Module) -> _Numbered:
        """Add a layer at the end; returns this module."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> _Numbered:
        """Add layers at the end; returns this module."""
        for module in modules:
            self.append(module)
        return self


class Sequential(_Numbered):
    """Layers one after the other: given as arguments, or as an OrderedDict with their names.

    >>> from chainrule import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> len(model), model[0].out_features, [name for name, _ in model.named_parameters()]
    (3, 8, ['0.weight', '0.bias', '2.weight', '2.bias'])
    """

    def __init__(self, *layers: Any) -> None:
        if len(layers) == 1 and isinstance(layers[0], OrderedDict | dict):
            for name, module in layers[0].items():
                self.add_module(name, module)
            return
        if len(layers) == 1 and isinstance(layers[0], list | tuple):
            raise ArgumentError(
                f"Sequential takes layers as arguments; got a {type(layers[0]).__name__}. Write Sequential(*layers)"
            )
        self.extend(layers)

    def forward(self, x: Any) -> Any:
        """Each layer applied to the result of the one before."""
        for layer in self:
            x = layer(x)
        return x


class ModuleList(_Numbered):
    """A list of layers that are registered; what is done with them is written in `forward` of their owner.

    >>> from chainrule import nn
    >>> len(nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]))
    2
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)


class ReLU(Module):
    """max(x, 0), elementwise; its slope at 0 is 0."""

    def forward(self, x: Any) -> Tensor:
        """max(x, 0)."""
        return functional.relu(x)


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ), elementwise."""

    def forward(self, x: Any) -> Tensor:
        """1 / (1 + e⁻ˣ)."""
        return functional.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent, elementwise."""

    def forward(self, x: Any) -> Tensor:
        """tanh x."""
        return functional.tanh(x)


class Identity(Module):
    """What comes in goes out; arguments of the constructor are ignored."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        del arguments, keywords

    def forward(self, x: Any) -> Any:
        """x."""
        return x


class Flatten(Module):
    """Axes from `start_dim` to `end_dim` folded into one; by default all but the first.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Flatten()(cr.zeros((2, 3, 4))).shape
    (2, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, x: Any) -> Tensor:
        """The folded tensor."""
        return flatten(as_tensor(x), self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The axes."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
