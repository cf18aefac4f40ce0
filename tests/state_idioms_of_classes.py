"""The same for what Python lets anybody change: classes of objects, bases of classes, dicts, code, registrations."""

from __future__ import annotations

import abc
import enum
import functools
import operator
import types
import weakref

import chainrule as cr
from chainrule import nn
from state_idioms import idiom


class _Plain:
    def by(self, x):
        return x * 2.0


class _Other:
    def by(self, x):
        return x * 3.0


class _Slotted:
    __slots__ = ("k",)

    def by(self, x):
        return x * self.k


class _SlottedOther(_Slotted):
    __slots__ = ()

    def by(self, x):
        return x + self.k


@idiom
def class_of_an_object():
    o = types.SimpleNamespace(part=_Plain())
    return (
        lambda x: o.part.by(x),
        lambda i: setattr(o.part, "__class__", [_Other, _Plain][i % 2]) if i != 2 else None,
        lambda: type(o.part).__name__,
    )


@idiom
def class_of_an_object_in_a_list():
    parts = [_Plain(), _Plain()]
    return (
        lambda x: sum(one.by(x) for one in parts),
        lambda i: setattr(parts[i % 2], "__class__", [_Other, _Plain][i // 2 % 2]),
        lambda: [type(one).__name__ for one in parts],
    )


@idiom
def class_of_an_object_with_slots():
    o = _Slotted()
    o.k = 2.0
    return (
        lambda x: o.by(x),
        lambda i: setattr(o, "__class__", [_SlottedOther, _Slotted][i % 2]),
        lambda: type(o).__name__,
    )


@idiom
def class_of_an_argument_that_is_held():
    o = _Plain()
    f = functools.partial(lambda part, x: part.by(x), o)
    return f, lambda i: setattr(o, "__class__", [_Other, _Plain][i % 2]), lambda: type(o).__name__


@idiom
def class_of_a_layer():
    class Doubled(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 2.0

    cr.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2))
    layer = net[0]
    return (
        lambda x: net(x).detach(),
        lambda i: setattr(layer, "__class__", [Doubled, nn.Linear][i % 2]),
        lambda: type(layer).__name__,
    )


class _Following(nn.Module):
    def __init__(self):
        self.register_buffer("mean", cr.zeros(2))
        self.last = None


@idiom
def buffer_that_is_printed_and_returned():
    class Printing(_Following):
        def forward(self, x):
            self.mean = self.mean * 0.5 + x
            print(self.mean.sum().item(), end="")
            return self.mean

    layer = Printing()
    return lambda x: layer(x), lambda i: None, lambda: layer.mean


@idiom(answers=("refused",))
def buffer_that_is_kept_in_two_places():
    class Keeping(_Following):
        def forward(self, x):
            self.mean = self.mean * 0.5 + x
            self.last = self.mean
            return x

    layer = Keeping()
    return lambda x: layer(x), lambda i: None, lambda: (layer.mean, layer.last)


@idiom
def buffer_and_its_copy():
    class Copying(_Following):
        def forward(self, x):
            self.mean = self.mean * 0.5 + x
            self.last = self.mean.clone()
            return x

    layer = Copying()
    return lambda x: layer(x), lambda i: None, lambda: (layer.mean, layer.last)


@idiom
def bases_of_a_class():
    class Child(_Plain):
        pass

    o = Child()
    return (
        lambda x: o.by(x),
        lambda i: setattr(Child, "__bases__", ([_Other, _Plain][i % 2],)),
        lambda: Child.__mro__[1].__name__,
    )


@idiom
def step_that_changes_its_class():
    class Odd:
        def step(self, x):
            self.__class__ = Even
            return x * 2.0

    class Even(Odd):
        def step(self, x):
            self.__class__ = Odd
            return x * 5.0

    o = Odd()
    return lambda x: o.step(x), lambda i: None, lambda: type(o).__name__


@idiom
def dict_of_an_object():
    o = _Plain()
    o.k = 2.0

    def change(i):
        o.__dict__ = {"k": i + 3.0}

    return lambda x: x * o.k, change, lambda: o.k


@idiom
def dict_of_a_layer():
    net = nn.Sequential(nn.Dropout(0.0))
    net.k = 2.0

    def change(i):
        net.__dict__ = {**net.__dict__, "k": i + 3.0}

    return lambda x: net(x) * net.k, change, lambda: net.k


@idiom
def function_registered_for_a_type():
    @functools.singledispatch
    def f(value, x):
        return x * 2.0

    def change(i):
        f.register(float, lambda value, x: x * (i + 3.0))

    return lambda x: f(1.5, x), change, lambda: None


@idiom
def code_of_a_function():
    def f(x):
        return x * 2.0

    others = [lambda x: x * 3.0, lambda x: x + 1.0]

    def change(i):
        f.__code__ = others[i % 2].__code__

    return lambda x: f(x), change, lambda: None


@idiom
def descriptor_with_state():
    class Scaled:
        k = 2.0

        def __get__(self, owner, kind):
            return self.k

    class Owner:
        scale = Scaled()

    o = Owner()
    return (
        lambda x: x * o.scale,
        lambda i: setattr(vars(Owner)["scale"], "k", i + 3.0),
        lambda: o.scale,
    )


@idiom
def attribute_of_a_metaclass():
    class Meta(type):
        k = 2.0

        def by(cls, x):
            return x * cls.k

    class Made(metaclass=Meta):
        pass

    return lambda x: Made.by(x), lambda i: setattr(Meta, "k", i + 3.0), lambda: Meta.k


@idiom
def registered_subclass():
    class Shape(abc.ABC):  # noqa: B024 - what belongs to it is registered
        pass

    o = _Plain()

    def step(x):
        return x * 2.0 if isinstance(o, Shape) else x * 3.0

    return step, lambda i: Shape.register(_Plain) if i == 1 else None, lambda: isinstance(o, Shape)


@idiom
def values_of_an_enumeration():
    class Mode(enum.Enum):
        A = 2.0
        B = 3.0

    o = types.SimpleNamespace(mode=Mode.A)
    return (
        lambda x: x * o.mode.value if o.mode is Mode.A else x + o.mode.value,
        lambda i: setattr(o, "mode", [Mode.B, Mode.A][i % 2]),
        lambda: o.mode.name,
    )


@idiom
def key_of_an_item_getter():
    o = types.SimpleNamespace(get=operator.itemgetter(0), t=(2.0, 3.0))
    return (
        lambda x: x * o.get(o.t),
        lambda i: setattr(o, "get", operator.itemgetter((i + 1) % 2)),
        lambda: None,
    )


@idiom
def weak_reference_to_another():
    kept = [_Plain(), _Other()]
    o = types.SimpleNamespace(ref=weakref.ref(kept[0]))
    return (
        lambda x: o.ref().by(x),
        lambda i: setattr(o, "ref", weakref.ref(kept[(i + 1) % 2])),
        lambda: None,
    )


@idiom
def attribute_that_is_deleted_outside_and_comes_back():
    o = types.SimpleNamespace(n=1.0)

    def step(x):
        if not hasattr(o, "made"):
            o.made = x * 0.0
        o.made = o.made + x
        o.pair = (x, o.n)
        return x + o.pair[0]

    def change(call):
        if call == 1:
            del o.made

    return step, change, lambda: (o.made, o.pair, list(vars(o)))
