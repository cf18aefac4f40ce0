"""The same for features of Python that state hides behind: descriptors, context managers, caches, views …"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import dataclasses
import datetime
import enum
import functools
import math
import operator
import os
import pathlib
import tempfile
import types
import weakref
from typing import ClassVar

import numpy as np
import pandas as pd

import chainrule as cr
from chainrule import nn, optim
from state_idioms import idiom


@idiom
def env():
    os.environ["CRT"] = "1"
    return (
        lambda x: x * float(os.environ["CRT"]),
        lambda i: os.environ.__setitem__("CRT", str(i + 2)),
        lambda: None,
    )


@idiom
def getenv():
    os.environ["CRT"] = "1"
    return (
        lambda x: x * float(os.getenv("CRT")),
        lambda i: os.environ.__setitem__("CRT", str(i + 2)),
        lambda: None,
    )


@idiom
def ctxvar():
    v = contextvars.ContextVar("v", default=1.0)
    return lambda x: x * v.get(), lambda i: v.set(i + 0.5), lambda: None


@idiom
def defdict():
    k = [2.0]
    d = collections.defaultdict(lambda: k[0])
    return lambda x: x * d["q"], lambda i: (k.__setitem__(0, i + 0.5), d.clear()), lambda: dict(d)


@idiom
def cachedprop():
    class A:
        w = 1.5

        @functools.cached_property
        def f(s):
            return s.w * 2

    a = A()
    return (
        lambda x: x * a.f,
        lambda i: (setattr(A, "w", i + 0.5), a.__dict__.pop("f", None) if i % 2 else None),
        lambda: a.__dict__,
    )


@idiom
def cachedprop_tensor():
    class A:
        @functools.cached_property
        def f(s):
            return cr.ones(2) * 3

    a = A()
    return lambda x: x * a.f, lambda i: None, lambda: a.__dict__


@idiom
def single():
    k = [1.0]

    @functools.singledispatch
    def f(v, x):
        return x

    @f.register
    def _(v: int, x):
        return x * k[0]

    return lambda x: f(3, x), lambda i: k.__setitem__(0, i + 0.5), lambda: k


@idiom
def enumer():
    class M(enum.Enum):
        A = 1
        B = 2

    o = types.SimpleNamespace(m=M.A)
    return (
        lambda x: x * 2 if o.m is M.A else x,
        lambda i: setattr(o, "m", M.B if i % 2 else M.A),
        lambda: o.m.name,
    )


@idiom
def weak():
    class A:
        k = 1.0

    a = A()
    r = weakref.ref(a)
    return lambda x: x * r().k, lambda i: setattr(a, "k", i + 0.5), lambda: a.k


@idiom
def getitem_cls():
    class A:
        def __init__(s):
            s.d = [1.0, 2.0]

        def __getitem__(s, i):
            return s.d[i]

        def __len__(s):
            return len(s.d)

        def __iter__(s):
            return iter(s.d)

    a = A()
    return lambda x: x * a[0] + sum(a) * len(a), lambda i: a.d.append(i + 0.5), lambda: a.d


@idiom
def iter_cls():
    class It:
        def __init__(s):
            s.i = 0

        def __iter__(s):
            return s

        def __next__(s):
            s.i += 1
            return float(s.i)

    it = It()
    return lambda x: x * next(it), lambda i: None, lambda: it.i


@idiom
def ctxman():
    class C:
        def __init__(s):
            s.k = 1.0
            s.depth = 0

        def __enter__(s):
            s.depth += 1
            return s

        def __exit__(s, *a):
            s.k += 0.5

    c = C()

    def step(x):
        with c as q:
            x = x * q.k
        return x

    return step, lambda i: None, lambda: (c.k, c.depth)


@idiom
def ctxgen():
    k = [1.0]

    @contextlib.contextmanager
    def scaled():
        k[0] += 1
        yield k[0]
        k[0] *= 0.5

    def step(x):
        with scaled() as q:
            return x * q

    return step, lambda i: None, lambda: k


@idiom
def deco():
    def times(f):
        n = [0]

        @functools.wraps(f)
        def g(*a, **kw):
            n[0] += 1
            return f(*a, **kw) * n[0]

        g.n = n
        return g

    @times
    def h(x):
        return x + 1

    return lambda x: h(x), lambda i: None, lambda: h.n


@idiom
def partialmeth():
    class A:
        k = 1.0

        def f(s, x, p):
            return x * p * s.k

        g = functools.partialmethod(f, p=2.0)

    a = A()
    return lambda x: a.g(x), lambda i: setattr(A, "k", i + 0.5), lambda: A.k


@idiom
def descr():
    class D:
        def __init__(s):
            s.v = {}

        def __get__(s, o, t):
            return s.v.get(id(o), 1.0)

        def __set__(s, o, v):
            s.v[id(o)] = v

    class A:
        k = D()

    a = A()
    return lambda x: x * a.k, lambda i: setattr(a, "k", i + 0.5), lambda: None


@idiom
def frozen_slots():
    @dataclasses.dataclass(frozen=True, slots=True)
    class C:
        k: float
        t: object

    o = types.SimpleNamespace(c=C(1.0, cr.ones(2)))
    return lambda x: x * o.c.k + o.c.t, lambda i: setattr(o, "c", C(i + 0.5, cr.ones(2) * i)), lambda: o.c.k


@idiom
def state_dataclass_replaced():
    @dataclasses.dataclass
    class S:
        v: object
        n: int

    o = types.SimpleNamespace(s=S(cr.zeros(2), 0))

    def step(x):
        o.s = dataclasses.replace(o.s, v=o.s.v + x, n=o.s.n + 1)
        return o.s.v * o.s.n

    return step, lambda i: None, lambda: (o.s.v, o.s.n)


@idiom
def classmethod_counter():
    class A:
        n = 0

        @classmethod
        def tick(c):
            c.n += 1
            return c.n

    return lambda x: x * A.tick(), lambda i: None, lambda: A.n


@idiom
def recursion():
    o = types.SimpleNamespace(d=3)

    def f(x, n):
        return x if n == 0 else f(x * 2, n - 1)

    return lambda x: f(x, o.d), lambda i: setattr(o, "d", i), lambda: None


@idiom
def genexp():
    ks = [1.0, 2.0]

    def gen():
        yield from ks

    return lambda x: sum(x * k for k in gen()), lambda i: ks.append(i + 0.5), lambda: ks


@idiom
def tree():
    class N:
        def __init__(s, v, *c):
            s.v = v
            s.c = list(c)

        def total(s):
            return s.v + sum(k.total() for k in s.c)

    t = N(1.0, N(2.0), N(3.0, N(4.0)))
    return lambda x: x * t.total(), lambda i: setattr(t.c[1].c[0], "v", i + 0.5), lambda: None


@idiom
def cyc():
    class N:
        pass

    a, b = N(), N()
    a.o = b
    b.o = a
    a.k = 1.0
    b.k = 2.0
    return lambda x: x * a.o.k * a.o.o.k, lambda i: setattr(b, "k", i + 0.5), lambda: None


@idiom
def selfref_list():
    part = [1.0]
    part.append(part)
    return lambda x: x * part[1][1][0], lambda i: part.__setitem__(0, i + 0.5), lambda: part[0]


@idiom
def opattr():
    g = operator.attrgetter("k")
    o = types.SimpleNamespace(k=1.0)
    return lambda x: x * g(o), lambda i: setattr(o, "k", i + 0.5), lambda: None


@idiom
def opitem():
    g = operator.itemgetter("k")
    d = {"k": 1.0}
    return lambda x: x * g(d), lambda i: d.__setitem__("k", i + 0.5), lambda: None


@idiom
def methodcaller():
    class A:
        k = 1.0

        def f(s):
            return s.k

    a = A()
    g = operator.methodcaller("f")
    return lambda x: x * g(a), lambda i: setattr(a, "k", i + 0.5), lambda: None


@idiom
def bound_in_list():
    class A:
        k = 1.0

        def f(s, x):
            return x * s.k

    a = A()
    part = [a.f]
    return lambda x: part[0](x), lambda i: setattr(a, "k", i + 0.5), lambda: None


@idiom
def mapf():
    k = [1.0]

    def f(v):
        return v * k[0]

    return lambda x: sum(map(f, [x, x])), lambda i: k.__setitem__(0, i + 0.5), lambda: None


@idiom
def nested_def():
    k = [1.0]

    def step(x):
        def inner(v):
            def deeper(u):
                return u * k[0]

            return deeper(v)

        return inner(x)

    return step, lambda i: k.__setitem__(0, i + 0.5), lambda: None


@idiom
def str_mode():
    o = types.SimpleNamespace(mode="a")

    def step(x):
        match o.mode:
            case "a":
                return x
            case _:
                return x * 3

    return step, lambda i: setattr(o, "mode", "ab"[i % 2]), lambda: None


@idiom
def varargs():
    ks = (1.0, 2.0)
    o = types.SimpleNamespace(kw={"c": 3.0})

    def f(x, *a, **kw):
        return x * sum(a) + kw["c"]

    return lambda x: f(x, *ks, **o.kw), lambda i: o.kw.update(c=i + 0.5), lambda: None


@idiom
def module_dict():
    m = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    cr.manual_seed(0)
    for p in m.parameters():
        with cr.no_grad():
            p.copy_(cr.ones(p.shape))
    o = types.SimpleNamespace(k="a")
    return (
        lambda x: m[o.k](x),
        lambda i: (setattr(o, "k", "ab"[i % 2]), i == 2 and m["a"].requires_grad_(False)),
        lambda: None,
    )


@idiom
def ema():
    m = nn.Linear(2, 2)
    for p in m.parameters():
        with cr.no_grad():
            p.copy_(cr.ones(p.shape))
    sh = {n: p.detach() for n, p in m.named_parameters()}
    o = optim.SGD(m.parameters(), lr=0.1)

    def step(x):
        part = (m(x) ** 2).sum()
        part.backward()
        o.step()
        o.zero_grad()
        for n, p in m.named_parameters():
            sh[n] = 0.9 * sh[n] + 0.1 * p.detach()
        return part

    return step, lambda i: None, lambda: sh


@idiom
def replay():
    buf = collections.deque(maxlen=3)

    def step(x):
        buf.append(x * 2)
        return sum(buf) / len(buf)

    return step, lambda i: None, lambda: list(buf)


@idiom
def rnn_hidden_detach():
    cell = nn.RNNCell(2, 2)
    for p in cell.parameters():
        with cr.no_grad():
            p.copy_(cr.ones(p.shape) * 0.1)

    class T:
        h = None

    t = T()

    def step(x):
        h = cr.zeros((1, 2)) if t.h is None else t.h.detach()
        t.h = cell(x.reshape((1, 2)), h)
        part = (t.h**2).sum()
        part.backward()
        return part

    return step, lambda i: None, lambda: [p.grad for p in cell.parameters()]


@idiom
def best_loss():
    class T:
        best = float("inf")

    t = T()

    def step(x):
        part = (x**2).sum().item()
        t.last = part
        return x

    return step, lambda i: None, lambda: t.last if hasattr(t, "last") else None


@idiom
def warm():
    class S:
        t = 0

        def lr(s):
            return min(1.0, (s.t + 1) / 3)

    s = S()

    def step(x):
        s.t += 1
        return x * s.lr()

    return step, lambda i: None, lambda: s.t


@idiom
def cosine():
    class S:
        t = 0

    s = S()

    def step(x):
        s.t += 1
        return x * math.cos(s.t / 5)

    return step, lambda i: None, lambda: s.t


@idiom
def modulo_every():
    c = {"n": 0}
    acc = [cr.zeros(2)]

    def step(x):
        c["n"] += 1
        acc[0] = acc[0] + x
        if c["n"] % 2 == 0:
            acc[0] = cr.zeros(2)
        return acc[0]

    return step, lambda i: None, lambda: (c, acc)


@idiom
def text_template():
    log = {}

    def step(x):
        log["m"] = f"{x.sum().item():.3f} at {x.max().item():g}"
        return x

    return step, lambda i: None, lambda: log


@idiom
def exc_flag():
    o = types.SimpleNamespace(bad=False)

    def step(x):
        try:
            if o.bad:
                raise ValueError
            return x * 2
        except ValueError:
            return x
        finally:
            o.bad = not o.bad

    return step, lambda i: None, lambda: o.bad


@idiom
def global_fn_swap():
    ns = {"cr": cr}
    exec("def act(x): return x*2\ndef step(x): return act(x)", ns)
    return ns["step"], lambda i: exec(f"def act(x): return x*{i + 3}", ns), lambda: None


@idiom
def builtin_shadow():
    ns = {"cr": cr}
    exec("def step(x): return x*max(2,3)", ns)
    return ns["step"], lambda i: ns.__setitem__("max", lambda a, b: a + b + i), lambda: None


@idiom
def lru():
    o = types.SimpleNamespace(k=1.0)

    @functools.lru_cache
    def f(n):
        return n * 2.0

    return lambda x: x * f(o.k), lambda i: setattr(o, "k", i + 0.5), lambda: None


@idiom
def deep_cfg():
    class C:
        pass

    c = C()
    c.a = C()
    c.a.b = C()
    c.a.b.l = [{"k": 1.0}]
    return lambda x: x * c.a.b.l[0]["k"], lambda i: c.a.b.l[0].update(k=i + 0.5), lambda: None


@idiom
def swap_sub():
    class L:
        def __init__(s, k):
            s.k = k

        def __call__(s, x):
            return x * s.k

    class M:
        pass

    m = M()
    m.l = L(1.0)
    return lambda x: m.l(x), lambda i: setattr(m, "l", L(i + 0.5)), lambda: None


@idiom
def userlist():
    u = collections.UserList([1.0, 2.0])
    return lambda x: x * u[0] + len(u), lambda i: u.append(i), lambda: list(u)


@idiom
def chainmap():
    a, b = {"k": 1.0}, {"j": 2.0}
    c = collections.ChainMap(a, b)
    return lambda x: x * c["k"] * c["j"], lambda i: b.update(j=i + 0.5), lambda: None


@idiom
def counter():
    c = collections.Counter()

    def step(x):
        c["n"] += 1
        return x * c["n"]

    return step, lambda i: None, lambda: dict(c)


@idiom
def borg():
    class B:
        s: ClassVar = {}

        def __init__(self):
            self.__dict__ = B.s

    a, b = B(), B()
    a.k = 1.0
    return lambda x: x * b.k, lambda i: setattr(a, "k", i + 0.5), lambda: None


@idiom
def dict_swap():
    class A:
        pass

    a = A()
    a.k = 1.0
    return lambda x: x * a.k, lambda i: setattr(a, "__dict__", {"k": i + 0.5}), lambda: None


@idiom
def nn_param_list():
    ps = (
        nn.ParameterList([nn.Parameter([1.0, 2.0])])
        if hasattr(nn, "ParameterList")
        else [nn.Parameter([1.0, 2.0])]
    )

    def step(x):
        part = sum((p * x).sum() for p in ps)
        part.backward()
        return part

    return step, lambda i: ps.append(nn.Parameter([i + 1.0, 1.0])), lambda: [p.grad for p in ps]


@idiom
def a_column_of_a_table():
    table = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    o = types.SimpleNamespace(column=table["a"], table=table)

    def change(i):
        o.table.loc[0, "a"] = i + 3.0
        o.column = o.table["a"]

    return lambda x: x * float(o.column.sum()) + float(o.table["a"].max()), change, lambda: None


@idiom(answers=("refused",))
def refused_file_of_numpy():
    folder = tempfile.mkdtemp()
    np.save(folder + "/a.npy", np.ones(2))
    return lambda x: x * cr.tensor(np.load(folder + "/a.npy")), lambda i: None, lambda: None


@idiom(answers=("refused",))
def refused_path():
    path = pathlib.Path(__file__)
    return lambda x: x * len(path.read_text()), lambda i: None, lambda: None


@idiom(answers=("refused",))
def refused_date():
    return lambda x: x * datetime.datetime.now().year, lambda i: None, lambda: None
