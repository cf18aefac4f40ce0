"""Ways in which people keep state around a step: each is a step, a change from outside, and what to look at.

`outcome(name)` runs one twice, once compiled, and compares results and state after each call.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import itertools
import random
import time
import types
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import chainrule as cr
import stateful_programs
from chainrule import nn, optim


class Idiom(NamedTuple):
    """`make` gives (step, change, look); `answers`: what may come out."""

    make: Callable[[], tuple[Callable[..., Any], Callable[[int], Any], Callable[[], Any]]]
    answers: tuple[str, ...]


IDIOMS: dict[str, Idiom] = {}
XS = [[1.0, 2.0], [3.0, -1.0], [0.5, 0.25], [1.5, 1.25], [2.0, 2.0]]


def idiom(make: Any = None, answers: tuple[str, ...] = ("equal",)) -> Any:
    """Put one into the list."""
    if make is None:
        return lambda make: idiom(make, answers)
    IDIOMS[make.__name__] = Idiom(make, answers)
    return make


def outcome(name: str) -> str:
    """equal, refused (with a line of this file), or what is different."""
    seen: list[list[Any]] = []
    for compiled in (False, True):
        step, change, look = IDIOMS[name].make()
        run = cr.compile(step) if compiled else step
        seen.append([])
        known: dict[int, int] = {}
        held: dict[int, Any] = {}
        for call, x in enumerate(XS):
            cr.manual_seed(call)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", cr.RecompileWarning)
                    result = run(cr.tensor(x))
            except cr.ChainruleError as failure:
                if not compiled or "state_idioms" not in str(failure):
                    raise
                return "refused"
            seen[-1].append((_numbers(result), stateful_programs.describe(look(), known, held)))
            change(call)
    if all(map(stateful_programs.same, *seen)):
        return "equal"
    return stateful_programs.differ(*seen)


def _numbers(result: Any) -> Any:
    return stateful_programs.describe(result, {}, {})[2:4] if isinstance(result, cr.Tensor) else result


@idiom
def class_attr():
    class A:
        k = 2.0

        def f(s, x):
            return x * s.k

    a = A()
    return lambda x: a.f(x), lambda i: setattr(A, "k", i + 3.5), lambda: A.k


@idiom
def later_instance():
    class A:
        k = 2.0

        def f(s, x):
            return x * s.k

    a = A()
    return lambda x: a.f(x), lambda i: i == 1 and setattr(a, "k", 7.0), lambda: a.__dict__


@idiom
def prop():
    class A:
        def __init__(s):
            s._k = 1.0

        @property
        def k(s):
            return s._k * 2

        def f(s, x):
            return x * s.k

    a = A()
    return lambda x: a.f(x), lambda i: setattr(a, "_k", i * 1.5), lambda: a.__dict__


@idiom
def slots():
    class A:
        __slots__ = ("k", "v")

        def __init__(s):
            s.k = 1.0
            s.v = cr.zeros(2)

        def f(s, x):
            s.v = s.v + x * s.k
            return s.v.sum()

    a = A()
    return lambda x: a.f(x), lambda i: setattr(a, "k", i + 0.5), lambda: (a.k, a.v)


@idiom
def callable_obj():
    class A:
        def __init__(s):
            s.k = 1.0

        def __call__(s, x):
            return x * s.k

    a = A()
    return a, lambda i: setattr(a, "k", i + 0.5), lambda: a.k


@idiom
def default_arg():
    def g(x, cfg={"k": 2.0}):  # noqa: B006 - that it is mutable is the point
        return x * cfg["k"]

    return lambda x: g(x), lambda i: g.__defaults__[0].update(k=i + 0.5), lambda: g.__defaults__


@idiom
def part():
    d = {"k": 1.0}
    p = functools.partial(lambda c, x: x * c["k"], d)
    return lambda x: p(x), lambda i: d.update(k=i + 2.0), lambda: d


@idiom
def funcs_in_list():
    k = [1.0]
    fs = [lambda x: x * k[0], lambda x: x + k[0]]

    def ch(i):
        k[0] = i + 0.5
        fs.reverse()

    def step(x):
        for f in fs:
            x = f(x)
        return x

    return step, ch, lambda: k


@idiom
def obj_in_dict():
    class A:
        pass

    a = A()
    a.k = 1.0
    d = {"a": a}
    return lambda x: x * d["a"].k, lambda i: setattr(a, "k", i + 0.5), lambda: a.k


@idiom
def grad_outside():
    k = [2.0]
    g = cr.grad(lambda v: (v**2).sum() * k[0])
    return lambda x: g(x), lambda i: k.__setitem__(0, i + 1.0), lambda: k


@idiom
def checkpoint_outside():
    k = [2.0]
    g = cr.checkpoint(lambda v: (v**2) * k[0])
    return lambda x: g(x).sum(), lambda i: k.__setitem__(0, i + 1.0), lambda: k


@idiom
def inner_compiled():
    k = [2.0]
    inner = cr.compile(lambda v: v * k[0])
    return lambda x: inner(x).sum(), lambda i: k.__setitem__(0, i + 1.0), lambda: k


@idiom
def big_array():
    a = np.ones(500_000)
    return (
        lambda x: x * float(a.sum() / 500_000),
        lambda i: a.__setitem__(slice(None), i + 2.0),
        lambda: a[:3],
    )


@idiom
def long_list():
    part = [1.0] * 100
    return lambda x: x * sum(part), lambda i: part.__setitem__(70, i + 0.5), lambda: part[70]


@idiom
def ordered_dict_arg_like():
    d = collections.OrderedDict(k=cr.ones(2))
    return lambda x: x * d["k"], lambda i: d.update(k=cr.ones(2) * i), lambda: dict(d)


@idiom
def userdict():
    d = collections.UserDict(k=cr.ones(2))
    return lambda x: x * d["k"], lambda i: d.update(k=cr.ones(2) * i), lambda: dict(d)


@idiom
def counter_obj():
    class A:
        n = 0

    a = A()

    def step(x):
        a.n += 1
        return x * a.n

    return step, lambda i: None, lambda: a.n


@idiom
def nonlocal_counter():
    n = 0

    def step(x):
        nonlocal n
        n += 1
        return x * n

    return step, lambda i: None, lambda: n


@idiom
def nonlocal_tensor():
    h = None

    def step(x):
        nonlocal h
        h = x if h is None else 0.5 * h + x
        return h.sum()

    return step, lambda i: None, lambda: h


@idiom
def func_attr():
    def g(x):
        g.n = getattr(g, "n", 0) + 1
        return x * g.n

    return lambda x: g(x), lambda i: None, lambda: getattr(g, "n", 0)


@idiom
def training_flag():
    class L:
        training = True

        def __call__(s, x):
            return x * 2 if s.training else x

    class S:
        def __init__(s, *part):
            s.l = part

        def __call__(s, x):
            for k in s.l:
                x = k(x)
            return x

    m = S(L(), L())
    return lambda x: m(x), lambda i: setattr(m.l[1], "training", i % 2 == 0), lambda: None


@idiom
def module_attr_tensor():
    class M(nn.Module):
        def __init__(s):
            s.h = None
            s.n = 0

        def forward(s, x):
            s.h = x if s.h is None else s.h + x
            s.n += 1
            return s.h * s.n

    m = M()
    return lambda x: m(x), lambda i: None, lambda: (m.h, m.n)


@idiom
def module_list_noise():
    class M(nn.Module):
        def __init__(s):
            s.noise = [0.1]
            s.cfg = types.SimpleNamespace(k=2.0)

        def forward(s, x):
            return x * s.noise[0] + s.cfg.k

    m = M()

    def ch(i):
        m.noise[0] = i * 0.3
        m.cfg.k = i + 0.25

    return lambda x: m(x), ch, lambda: None


@idiom
def buffer_assign():
    class M(nn.Module):
        def __init__(s):
            s.register_buffer("b", cr.zeros(2))

        def forward(s, x):
            s.b = s.b * 0.5 + x
            return s.b.sum()

    m = M()
    return lambda x: m(x), lambda i: None, lambda: m.b


@idiom
def user_sgd():
    w = cr.tensor([1.0, 2.0], requires_grad=True)

    class SGD:
        def __init__(s, ps, lr):
            s.ps = list(ps)
            s.lr = lr
            s.m = [cr.zeros(2) for _ in s.ps]

        def step(s):
            with cr.no_grad():
                for i, p in enumerate(s.ps):
                    s.m[i] = 0.9 * s.m[i] + p.grad
                    p.copy_(p - s.lr * s.m[i])
                    p.grad = None

    o = SGD([w], 0.1)

    def step(x):
        part = ((w * x) ** 2).sum()
        part.backward()
        o.step()
        return part

    return step, lambda i: setattr(o, "lr", o.lr * 0.5), lambda: (w, o.m, w.grad)


@idiom
def captured_nonleaf():
    x0 = cr.tensor([3.0, 1.0], requires_grad=True)
    x1 = x0 * 2
    w = cr.tensor([1.0, 2.0], requires_grad=True)

    def step(x):
        part = ((w * x1 * x) ** 2).sum()
        part.backward()
        return part

    return step, lambda i: None, lambda: (w.grad, x0.grad, x1.grad)


@idiom
def arg_requires():
    def step(x):
        x = x * 1.0
        x = x.detach()
        x.requires_grad_()
        part = (x**3).sum()
        part.backward()
        return x.grad

    return step, lambda i: None, lambda: None


@idiom
def lr_read():
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    o = optim.SGD([w], lr=0.1)

    def step(x):
        part = (w * x).sum() * o.param_groups[0]["lr"]
        part.backward()
        o.step()
        o.zero_grad()
        return part

    return step, lambda i: o.param_groups[0].update(lr=0.1 * i + 0.05), lambda: w


@idiom
def global_dict_cache():
    cache = {}

    def step(x):
        if "m" not in cache:
            cache["m"] = cr.ones(2) * 3
        return x * cache["m"]

    return step, lambda i: None, lambda: cache


@idiom
def dataclass_cfg():
    @dataclasses.dataclass
    class C:
        k: float = 1.0
        h: object = None

    c = C()

    def step(x):
        c.h = x if c.h is None else c.h + x
        return c.h * c.k

    return step, lambda i: setattr(c, "k", i + 1.5), lambda: (c.k, c.h)


@idiom
def deque_hist():
    d = collections.deque([cr.zeros(2)] * 3, maxlen=3)

    def step(x):
        d.append(x * 2)
        return sum(d)

    return step, lambda i: None, lambda: list(d)


@idiom
def dict_of_objs_state():
    class S:
        pass

    st = {}

    def step(x):
        if "s" not in st:
            s = S()
            s.v = x * 1
            st["s"] = s
        else:
            st["s"].v = st["s"].v * 0.5 + x
        return st["s"].v.sum()

    return step, lambda i: None, lambda: st["s"].v if st else None


@idiom
def swap_lists():
    a = [cr.ones(2)]
    b = [cr.zeros(2)]

    def step(x):
        a[0], b[0] = b[0] + x, a[0]
        return a[0] - b[0]

    return step, lambda i: None, lambda: (a, b)


@idiom
def pop_list():
    q = [cr.ones(2) * k for k in range(8)]

    def step(x):
        return q.pop() * x

    return step, lambda i: None, lambda: q


@idiom
def item_log():
    log = []

    def step(x):
        part = (x * x).sum()
        log.append({"loss": part.item(), "s": f"{part.item():.2f}"})
        return part

    return step, lambda i: None, lambda: log


@idiom
def asserts():
    def step(x):
        assert (x > -10).all()
        return x * 2

    return step, lambda i: None, lambda: None


@idiom
def toggle_grad():
    w = cr.tensor([1.0, 2.0], requires_grad=True)

    def step(x):
        w.requires_grad_(False)
        l0 = (w * x).sum()
        w.requires_grad_(True)
        part = (w * x).sum() * l0
        part.backward()
        return part

    return step, lambda i: None, lambda: (w.grad, w.requires_grad)


@idiom
def metaclass_attr():
    class Meta(type):
        k = 2.0

    class A(metaclass=Meta):
        def f(s, x):
            return x * type(s).k

    a = A()
    return lambda x: a.f(x), lambda i: setattr(Meta, "k", i + 0.5), lambda: None


@idiom
def getattr_fallback():
    class A:
        def __init__(s):
            s.__dict__["d"] = {"k": 1.0}

        def __getattr__(s, n):
            try:
                return s.__dict__["d"][n]
            except KeyError:
                raise AttributeError(n) from None

        def f(s, x):
            return x * s.k

    a = A()
    return lambda x: a.f(x), lambda i: a.d.update(k=i + 0.5), lambda: None


@idiom
def dyn_getattr():
    class A:
        w0 = 1.0
        w1 = 2.0

    a = A()
    a.w2 = 3.0

    def step(x):
        for i in range(3):
            x = x * getattr(a, f"w{i}")
        return x

    return step, lambda i: setattr(a, f"w{i % 3}", i + 0.5), lambda: None


@idiom
def namedtuple_state():
    St = collections.namedtuple("St", "v n")

    class A:
        pass

    a = A()
    a.st = St(cr.zeros(2), 0)

    def step(x):
        a.st = St(a.st.v + x, a.st.n + 1)
        return a.st.v * a.st.n

    return step, lambda i: None, lambda: a.st


@idiom
def set_state():
    seen = {1}

    def step(x):
        seen.add(2)
        return x * len(seen)

    return step, lambda i: i == 2 and seen.add(9), lambda: seen


@idiom
def scheduler_obj():
    class Sch:
        def __init__(s):
            s.t = 0

        def rate(s):
            s.t += 1
            return 0.1 / (1 + s.t)

    sch = Sch()
    w = cr.tensor([1.0, 2.0], requires_grad=True)

    def step(x):
        part = ((w - x) ** 2).sum()
        part.backward()
        with cr.no_grad():
            w.copy_(w - sch.rate() * w.grad)
        w.grad = None
        return part

    return step, lambda i: None, lambda: (w, sch.t)


@idiom
def every_third():
    class A:
        n = 0

    a = A()
    a.v = cr.zeros(2)

    def step(x):
        a.n += 1
        if a.n % 3 == 0:
            a.v = cr.zeros(2)
        a.v = a.v + x
        return a.v.sum()

    return step, lambda i: None, lambda: (a.n, a.v)


@idiom
def manual_seed_inside():
    def step(x):
        cr.manual_seed(3)
        return x * cr.rand(2)

    return step, lambda i: None, lambda: cr.rand(2)


@idiom
def hook_closure():
    k = [1.0]
    m = nn.Linear(2, 2)
    with cr.no_grad():
        m.weight.copy_(cr.ones((2, 2)))
        m.bias.copy_(cr.zeros(2))
    m.register_forward_hook(lambda mod, a, o: o * k[0])
    return lambda x: m(x), lambda i: k.__setitem__(0, i + 0.5), lambda: None


@idiom
def inherited():
    class B:
        k = 1.0

        def f(s, x):
            return x * s.k + s.g()

        def g(s):
            return 1.0

    class D(B):
        def g(s):
            return super().g() + s.k

    d = D()
    return lambda x: d.f(x), lambda i: setattr(B, "k", i + 0.5), lambda: None


@idiom
def method_swapped():
    class B:
        def f(s, x):
            return x * 2

    b = B()
    return lambda x: b.f(x), lambda i: setattr(B, "f", (lambda s, x: x * (3 + i))), lambda: None


@idiom(answers=("refused",))
def refused_random():
    return lambda x: x * random.random(), lambda i: None, lambda: None


@idiom(answers=("refused",))
def refused_np():
    return lambda x: x * np.random.rand(), lambda i: None, lambda: None


@idiom(answers=("refused",))
def refused_rng():
    r = np.random.default_rng(0)
    return lambda x: x * r.random(), lambda i: None, lambda: None


@idiom(answers=("refused",))
def refused_next():
    it = iter([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    return lambda x: x * next(it), lambda i: None, lambda: None


@idiom(answers=("refused",))
def refused_count():
    it = itertools.count()

    class A:
        pass

    a = A()
    a.it = it
    return lambda x: x * next(a.it), lambda i: None, lambda: None


@idiom(answers=("refused",))
def refused_time():

    return lambda x: x * time.time(), lambda i: None, lambda: None


@idiom(answers=("refused",))
def refused_file():
    f = io.StringIO("a\nbb\nccc\n")
    return lambda x: x * len(f.readline()), lambda i: None, lambda: None


@idiom(answers=("refused",))
def refused_gen():
    g = (float(i) for i in range(20))
    return lambda x: x * next(g), lambda i: None, lambda: None


# One for each kind of guard and effect, so that none can be left out unnoticed.


@idiom
def numpy_scalar():
    class A:
        k = np.float32(1.5)

    return lambda x: x * float(A.k), lambda i: setattr(A, "k", np.float32(i + 0.5)), lambda: None


@idiom
def bytes_that_change():
    raw = bytearray(b"abc")
    return lambda x: x * raw[1], lambda i: raw.__setitem__(1, i + 1), lambda: raw


@idiom
def a_set_from_outside():
    names = {"a"}
    return (
        lambda x: x * 2.0 if "b" in names else x,
        lambda i: names.add("b" if i == 1 else "c"),
        lambda: names,
    )


@idiom
def history_from_outside():
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    o = types.SimpleNamespace(far=w * 2.0)

    def step(x):
        (o.far * x).sum().backward()
        return o.far * x

    return step, lambda i: setattr(o, "far", w * (i + 3.0)), lambda: w.grad


@idiom
def one_tensor_in_two_places():
    shared = cr.ones(2)
    o = types.SimpleNamespace(a=shared, b=shared)

    def step(x):
        o.a += x
        return o.a * 10.0 + o.b

    return step, lambda i: i == 1 and setattr(o, "b", cr.ones(2) * 5.0), lambda: (o.a, o.b)


@idiom
def two_tensors_that_become_one():
    o = types.SimpleNamespace(a=cr.ones(2), b=cr.zeros(2))

    def step(x):
        o.a += x
        return o.a * 10.0 + o.b

    return step, lambda i: i == 1 and setattr(o, "b", o.a), lambda: (o.a, o.b)


@idiom
def length_of_a_list():
    some = [1.0]
    return lambda x: x * len(some), lambda i: some.append(2.0), lambda: some


@idiom
def keys_of_a_dict():
    some = {"a": cr.ones(2), "b": cr.zeros(2)}

    def change(i):
        some["a"] = some.pop("a")
        some[f"c{i}"] = cr.ones(2)

    return lambda x: sum((k + 1) * one for k, one in enumerate(some.values())) * x, change, lambda: some


@idiom
def closure_from_outside():
    k = 1.0

    def set_k(i):
        nonlocal k
        k = i + 0.25

    return lambda x: x * k, set_k, lambda: k


@idiom
def in_place_on_what_is_captured():
    h = cr.zeros(2)

    def step(x):
        nonlocal h
        h += x
        return h * 2.0

    return step, lambda i: None, lambda: h


@idiom
def grad_switched_in_the_step():
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    o = types.SimpleNamespace(n=0)

    def step(x):
        o.n += 1
        w.requires_grad_(o.n < 3)
        return w * x

    return step, lambda i: None, lambda: (w.requires_grad, o.n)


@idiom
def printed():
    out = io.StringIO()

    def step(x):
        print("sum", x.sum().item(), file=out)
        return x

    return step, lambda i: None, out.getvalue


@idiom
def one_value_in_two_places():
    o = types.SimpleNamespace(a=None, b=None)

    def step(x):
        o.a = o.b = x * 2.0
        return o.a

    def change(i):
        o.a += 1.0

    return step, change, lambda: (o.a, o.b)


@idiom
def a_list_that_is_read_too():
    seen = []

    def step(x):
        seen.append(1)
        return x * len(seen)

    return step, lambda i: None, lambda: seen


@idiom
def gradients_kept_or_not():
    w = cr.tensor([1.0, 2.0], requires_grad=True)

    def step(x):
        (w * x).sum().backward()
        return w.grad * 1.0

    def change(i):
        if i % 2:
            w.grad = None

    return step, change, lambda: w.grad


@idiom
def another_type():
    model = nn.Linear(2, 2)
    with cr.no_grad():
        model.weight.copy_(cr.ones((2, 2)))
        model.bias.copy_(cr.zeros(2))

    return (
        lambda x: model(x.astype(model.weight.dtype)),
        lambda i: model.double() if i == 1 else None,
        lambda: model.weight,
    )


@idiom(answers=("refused",))
def refused_carry_with_history():
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    o = types.SimpleNamespace(h=cr.zeros(2))

    def step(x):
        o.h = o.h * 0.5 + w * x
        o.h.sum().backward()
        return o.h

    return step, lambda i: None, lambda: w.grad


@idiom(answers=("refused",))
def refused_error_that_is_caught():
    def step(x):
        try:
            return x * float(x.sum())
        except RuntimeError:
            return x

    return step, lambda i: None, lambda: None


@idiom(answers=("refused",))
def refused_counter_nobody_sees():
    tick = itertools.count(1).__next__
    return lambda x: x * tick(), lambda i: None, lambda: None


@idiom(answers=("refused",))
def refused_writing_into_an_array():
    a = np.ones(2, "float32")

    def step(x):
        a[0] += 1.0
        return x * float(a[0])

    return step, lambda i: None, lambda: a


@idiom
def number_of_another_type():
    o = types.SimpleNamespace(k=1)
    return lambda x: x * o.k, lambda i: setattr(o, "k", [2, 3, 4.5, True, 7][i]), lambda: o.k


@idiom
def another_leaf():
    o = types.SimpleNamespace(w=cr.tensor([1.0, 2.0], requires_grad=True))

    def step(x):
        (o.w * x).sum().backward()
        return o.w * x

    return (
        step,
        lambda i: setattr(o, "w", cr.tensor([i + 3.0, 1.0], requires_grad=True)),
        lambda: o.w.grad,
    )


@idiom
def another_leaf_that_is_only_read():
    o = types.SimpleNamespace(w=cr.tensor([1.0, 2.0], requires_grad=True))
    return (
        lambda x: o.w.detach() * x,
        lambda i: setattr(o, "w", cr.tensor([i + 3.0, 1.0], requires_grad=True)),
        lambda: o.w,
    )


@idiom
def tensor_of_another_shape():
    o = types.SimpleNamespace(t=cr.ones(2))
    shapes = [cr.ones(1), cr.ones((2, 2)), cr.ones(2, dtype=cr.float64), cr.ones(()), cr.ones(2)]
    return lambda x: (x * o.t).sum(), lambda i: setattr(o, "t", shapes[i] * 2.0), lambda: o.t


@idiom
def array_from_outside():
    a = np.array([1.0, 2.0], "float32")
    return lambda x: x * cr.tensor(a), lambda i: a.__setitem__(0, i + 3.0), lambda: a
