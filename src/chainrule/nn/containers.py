"""Layers that hold other layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import ArgumentError, BoundsError
from .module import Module


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
