"""Nested arguments: everything comes back as what it was, with all that it held, and no code of the user's runs."""

from __future__ import annotations

import collections
import dataclasses
import time
import typing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn
from chainrule.pytree import flatten, labels, skeleton, unflatten

RAN: list[str] = []


@dataclasses.dataclass
class Counted:
    weight: typing.Any
    bias: typing.Any = 0
    total: typing.Any = dataclasses.field(init=False)
    unset: typing.Any = dataclasses.field(init=False)
    fixed: typing.Any = dataclasses.field(init=False, default=7)
    seen: dataclasses.InitVar[int] = 0

    def __post_init__(self, seen):
        RAN.append("__post_init__")
        self.total = (self.weight, self.bias)


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: typing.Any
    b: typing.Any = None

    def __post_init__(self):
        RAN.append("frozen")
        object.__setattr__(self, "extra", self.a)


@dataclasses.dataclass(slots=True)
class Slotted:
    a: typing.Any
    b: typing.Any = 1


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Strict:
    a: typing.Any

    def __post_init__(self):
        RAN.append("strict")


class Plain(Slotted):
    """A dataclass's child with attributes of its own, and hooks that must not run."""

    def __init__(self, a, b):
        RAN.append("init")
        super().__init__(a, b)
        object.__setattr__(self, "more", [a])

    def __setattr__(self, name, value):
        RAN.append(f"set {name}")
        super().__setattr__(name, value)


class Point(typing.NamedTuple):
    x: typing.Any
    y: typing.Any = 2


class Checked(Point):
    def __new__(cls, x, y):
        RAN.append("new")
        return super().__new__(cls, x, y)


class Pair(tuple):
    def __new__(cls, first, second):
        RAN.append("pair")
        return super().__new__(cls, (first, second))


class Record(dict):
    def __init__(self, name, **entries):
        RAN.append("record")
        super().__init__(**entries)
        self.name = name

    def __setitem__(self, key, value):
        RAN.append("write")
        super().__setitem__(key, value)

    def __getitem__(self, key):
        RAN.append("read")
        return super().__getitem__(key)


class Row(list):
    __slots__ = ("label",)


class Table(collections.UserDict):
    pass


def _with(made, **attributes):
    for name, value in attributes.items():
        object.__setattr__(made, name, value)
    return made


def builders(inner):
    """Every kind of container around what `inner` draws."""
    names = st.sampled_from("abc")
    entries = st.dictionaries(names, inner, max_size=3)
    rows = st.lists(inner, max_size=3)
    return st.one_of(
        rows,
        rows.map(tuple),
        entries,
        entries.map(collections.OrderedDict),
        entries.map(lambda d: collections.defaultdict(list, d)),
        entries.map(lambda d: collections.defaultdict(None, d)),
        entries.map(
            lambda d: _with(collections.Counter(), **{"note": 1}) if not d else collections.Counter(d)
        ),
        entries.map(Table),
        entries.map(lambda d: Record("r", **d)),
        entries.map(lambda d: _with(collections.OrderedDict(d), mark=3)),
        rows.map(collections.UserList),
        rows.map(lambda r: _with(Row(r), label="row")),
        rows.map(Row),
        st.tuples(inner, inner).map(lambda two: Pair(*two)),
        st.tuples(inner, inner).map(lambda two: Point(*two)),
        st.tuples(inner, inner).map(lambda two: Checked(*two)),
        st.tuples(inner, inner).map(lambda two: Counted(*two)),
        st.tuples(inner, inner).map(lambda two: Frozen(*two)),
        st.tuples(inner, inner).map(lambda two: Slotted(*two)),
        st.tuples(inner, inner).map(lambda two: Plain(*two)),
        st.tuples(inner, inner).map(lambda two: _with(Counted(*two), later=two[0])),
        inner.map(lambda one: Strict(a=one)),
    )


TREES = st.recursive(st.integers(0, 9) | st.none() | st.text(max_size=2), builders, max_leaves=12)


def described(tree):
    """All that can be seen of a tree, so that two can be compared to the last attribute."""
    kind = type(tree)
    names = [one.name for one in dataclasses.fields(tree)] if dataclasses.is_dataclass(tree) else []
    names += [name for base in kind.__mro__ for name in base.__dict__.get("__slots__", ())]
    held = {name: described(vars(tree)[name]) for name in getattr(tree, "__dict__", {})}
    slots = {
        name: described(getattr(tree, name)) for name in names if name not in held and hasattr(tree, name)
    }
    if isinstance(tree, dict):
        inside = [(key, described(dict.__getitem__(tree, key))) for key in tree]
    elif isinstance(tree, list | tuple):
        inside = [described(one) for one in tree]
    else:
        inside = None if held or slots else repr(tree)
    return kind, inside, held, slots, getattr(tree, "default_factory", None)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(TREES)
def test_a_tree_comes_back_as_it_was_and_nothing_runs(tree):
    before = described(tree)
    RAN.clear()
    leaves, structure = flatten(tree)
    twin = unflatten(structure, leaves)
    again = flatten(twin)
    assert not RAN, "flattening ran code of the user's"
    assert described(twin) == before == described(tree)
    assert again[0] == leaves and skeleton(again[1]) == skeleton(structure)
    hash(skeleton(structure))
    assert len(labels(structure, "x")) == len(leaves)
    if leaves:
        other = flatten(unflatten(structure, [object() for _ in leaves]))
        assert skeleton(other[1]) == skeleton(structure), "the leaves are no part of the structure"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(TREES, TREES)
def test_different_trees_have_different_skeletons(first, second):
    same = skeleton(flatten(first)[1]) == skeleton(flatten(second)[1])
    (one, _), (two, _) = flatten(first), flatten(second)
    if same:
        rebuilt = unflatten(flatten(first)[1], two)
        assert described(rebuilt) == described(second), "who takes one for the other makes the wrong tree"
    assert not (same and len(one) != len(two))


def test_what_is_one_thing_stays_one_leaf():
    class Net(nn.Module):
        pass

    @dataclasses.dataclass(eq=False)
    class Described(nn.Module):
        size: int = 3

    things = [
        nn.Linear(1, 1), Net(), Described(), nn.Sequential(nn.ReLU()), cr.ones(2), np.ones(2), {1}, frozenset(),
        collections.deque([1]), "text", time.gmtime(), range(3), Counted, dict, object(), np.float32(1),
    ]  # fmt: skip
    for thing in things:
        leaves, structure = flatten([thing])
        assert leaves[0] is thing and len(leaves) == 1 and unflatten(structure, leaves)[0] is thing


def test_labels_say_how_to_reach_a_leaf():
    tree = {
        "a": Point(1, [2]),
        "b": Counted(3),
        "c": _with(Row([4]), label=5),
        "d": collections.OrderedDict(e=6),
    }
    leaves, structure = flatten(tree)
    assert dict(zip(labels(structure, "t"), leaves)) == {
        "t['a'].x": 1, "t['a'].y[0]": 2, "t['b'].weight": 3, "t['b'].bias": 0, "t['b'].total[0]": 3,
        "t['b'].total[1]": 0, "t['c'][0]": 4, "t['c'].label": 5, "t['d']['e']": 6,
    }  # fmt: skip


def test_an_entry_and_an_attribute_of_one_name_differ():
    first, second = Record("x"), Record("x")
    dict.__setitem__(second, "name", vars(second).pop("name"))
    assert skeleton(flatten(first)[1]) != skeleton(flatten(second)[1])


@pytest.mark.parametrize("make", [
    lambda x: Counted(x, 2.0), lambda x: Frozen(x, 2.0), lambda x: Plain(x, 2.0), lambda x: Slotted(x, x),
    lambda x: collections.OrderedDict(w=x), lambda x: collections.defaultdict(list, w=x), lambda x: Record("r", w=x),
    lambda x: Checked(x, 2.0), lambda x: Pair(x, 2.0), lambda x: Table(w=x), lambda x: Row([x]),
    lambda x: _with(Row([x]), label=x),
])  # fmt: skip
def test_compiled_functions_take_and_give_them(make):
    def first(tree):
        return next(one for one in flatten(tree)[0] if isinstance(one, cr.Tensor))

    def step(tree):
        return tree, first(tree) * 2.0, type(tree).__name__

    compiled, x = cr.compile(step), cr.tensor([1.0, 2.0])
    for _ in range(2):
        tree = make(x)
        RAN.clear()
        twin, doubled, name = compiled(tree)
        assert not RAN
        assert doubled.tolist() == [2.0, 4.0] and name == type(tree).__name__
        assert type(twin) is type(tree) and first(twin).tolist() == [1.0, 2.0]
    assert len(compiled.recompiles) <= 1


def test_an_attribute_that_is_no_field_is_an_argument_too():
    @cr.compile
    def step(config, x):
        return x * config.rate

    config = Counted(1.0)
    for rate in (2.0, 3.0):
        config.rate = rate
        assert step(config, cr.ones(1)).tolist() == [rate]


# ------------------------------------------------------------------------------------------- the package's own names


def test_dir_shows_what_is_offered_and_rooms_are_no_functions():
    shown = [name for name in dir(cr) if not name.startswith("__")]
    assert sorted(shown) == sorted(name for name in cr.__all__ if not name.startswith("__"))
    for name in ("trace", "graph", "compiler", "nn", "data", "train", "errors"):
        room = getattr(cr, name)
        for kind in (TypeError, cr.ChainruleError):
            with pytest.raises(
                kind, match=rf"chainrule\.{name} is a room of the package, not a function.*test_pytree"
            ):
                room(cr.ones((2, 2)))
    with pytest.raises(TypeError, match="sum of a diagonal"):
        cr.trace(cr.ones((2, 2)))
