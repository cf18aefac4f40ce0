"""Layers that hold other layers: in a chain, in a list, in a dict."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from ..errors import ArgumentError, BoundsError, MissingKeyError
from .mismatches import listed
from .module import Module

Self = TypeVar("Self", bound="_Numbered")


class _Numbered(Module):
    """Layers by their positions, which are their names too."""

    def _name_at(self, index: Any) -> str:
        try:
            place = operator.index(index)
        except TypeError:
            raise ArgumentError(
                f"{self._called()} is read by whole numbers and slices; got {index!r}. Use its attribute, or "
                "nn.ModuleDict"
            ) from None
        if not -len(self) <= place < len(self):
            raise BoundsError(f"{self._called()} has {len(self)} layers; got index {place}")
        return self._names()[place]

    def _names(self) -> list[str]:
        return [name for name, _ in self._own("module")]

    def _replace(self, modules: Iterable[Module]) -> None:
        """Hold these layers, numbered from 0."""
        new = [_checked(module) for module in modules]
        for name in self._names():
            delattr(self, name)
        for k, module in enumerate(new):
            self.add_module(str(k), module)

    def __len__(self) -> int:
        return len(self._names())

    def __iter__(self) -> Iterator[Module]:
        return iter([module for _, module in self._own("module")])

    def __reversed__(self) -> Iterator[Module]:
        return reversed(list(self))

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            names = self._names()[index]
            return self._part({self._part_name(k, name): self.__dict__[name] for k, name in enumerate(names)})
        return self.__dict__[self._name_at(index)]

    def _part_name(self, place: int, name: str) -> str:
        """The name in a slice of what is called `name` here."""
        del place
        return name

    def _part(self: Self, modules: Mapping[str, Module]) -> Self:
        """Layers of this one in a container of their own; they stay registered (and named) here."""
        part = type(self)()
        part.__dict__.update(modules)
        part._kinds.update(dict.fromkeys(modules, "module"))
        return part

    def __setitem__(self, index: int | slice, module: Any) -> None:
        if isinstance(index, slice):
            modules = list(self)
            modules[index] = [_checked(one) for one in module]
            self._replace(modules)
        else:
            self.add_module(self._name_at(index), _checked(module))

    def __delitem__(self, index: int | slice) -> None:
        modules = list(self)
        if not isinstance(index, slice):
            self._name_at(index)
        del modules[index]
        self._replace(modules)

    def insert(self, index: int, module: Module) -> Any:
        """Put a layer in front of the one at `index`; those behind it are numbered anew."""
        modules = list(self)
        modules.insert(operator.index(index), _checked(module))
        self._replace(modules)
        return self

    def pop(self, index: int = -1) -> Module:
        """Take a layer out and return it; those behind it are numbered anew."""
        module: Module = self[operator.index(index)]
        del self[index]
        return module

    def append(self: Self, module: Module) -> Self:
        """Add a layer at the end; returns this module."""
        self.add_module(str(len(self)), _checked(module))
        return self

    def extend(self: Self, modules: Iterable[Module]) -> Self:
        """Add layers at the end; returns this module."""
        if isinstance(modules, Module) and not isinstance(modules, _Numbered):
            raise ArgumentError(f"extend takes several layers; got one {type(modules).__name__}. Use append")
        for module in list(modules):
            self.append(module)
        return self

    def __iadd__(self: Self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def __add__(self: Self, modules: Iterable[Module]) -> Self:
        both = [*self, *modules]
        return self._part({str(k): _checked(module) for k, module in enumerate(both)})


class Sequential(_Numbered):
    """Layers one after the other: given as arguments, or as an OrderedDict with their names.

    A list of layers in every respect: index, slice, `append`, `insert`, `pop`, `del`.

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
    >>> layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 3)])
    >>> layers.insert(1, nn.ReLU())
    >>> layers.pop(), len(layers)
    (Linear(in_features=2, out_features=3, bias=True), 2)
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        if modules is not None:
            self.extend(modules)

    def insert(self, index: int, module: Module) -> None:
        """Put a layer in front of the one at `index`; those behind it are numbered anew."""
        super().insert(index, module)

    def _part_name(self, place: int, name: str) -> str:
        return str(place)

    def _shown_below(self) -> list[str]:
        """Equal neighbours on one line: `(0-2): 3 x Linear(…)`."""
        runs: list[tuple[int, int, str]] = []
        for k, module in enumerate(self):
            text = repr(module)
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], k, text)
            else:
                runs.append((k, k, text))
        return [
            f"({first}): {text}" if first == last else f"({first}-{last}): {last - first + 1} x {text}"
            for first, last, text in runs
        ]


class ModuleDict(Module):
    """A dict of layers that are registered, in the order in which they were added.

    >>> from chainrule import nn
    >>> heads = nn.ModuleDict({"price": nn.Linear(4, 1), "kind": nn.Linear(4, 3)})
    >>> list(heads), heads["kind"].out_features, "price" in heads
    (['price', 'kind'], 3, True)
    """

    def __init__(self, modules: Any = None) -> None:
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Module:
        if key not in self:
            raise MissingKeyError(
                f"{self._called()} has {listed(self.keys()) or 'no layers'}; got {key!r}. Check the name"
            )
        module: Module = self.__dict__[key]
        return module

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, _checked(module))

    def __delitem__(self, key: str) -> None:
        self[key]
        delattr(self, key)

    def __contains__(self, key: object) -> bool:
        return self._kinds.get(key) == "module"  # type: ignore[call-overload, no-any-return]

    def __len__(self) -> int:
        return len(self.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> list[str]:
        """The names."""
        return [name for name, _ in self._own("module")]

    def values(self) -> list[Module]:
        """The layers."""
        return [module for _, module in self._own("module")]

    def items(self) -> list[tuple[str, Module]]:
        """Names with their layers."""
        return list(self._own("module"))

    def get(self, key: str, default: Module | None = None) -> Module | None:
        """The layer of that name, or `default`."""
        return dict(self.items()).get(key, default)

    def pop(self, key: str) -> Module:
        """Take a layer out and return it."""
        module = self[key]
        del self[key]
        return module

    def clear(self) -> None:
        """Take all layers out."""
        for key in self.keys():
            del self[key]

    def update(self, modules: Any) -> None:
        """Add layers, from a dict or pairs of name and layer; those of a name that is there are replaced."""
        pairs = modules.items() if isinstance(modules, Mapping | ModuleDict) else modules
        for key, module in pairs:
            self[key] = module


def _checked(module: Any) -> Module:
    if isinstance(module, type):
        name = module.__name__
        raise ArgumentError(
            f"a layer must be a Module; got the class {name}. Write {name}(), with its arguments"
        )
    if not isinstance(module, Module):
        raise ArgumentError(f"a layer must be a Module; got {type(module).__name__}. Wrap it in an nn.Module")
    return module
