"""Random programs that keep state: compiled, they equal eager in every number and every attribute, or say why not.

A program is text: classes with attributes, properties, slots and inheritance, lists, dicts, closures, globals, a layer
with buffers and hooks, an optimizer written by hand; a step that reads and writes them; and what somebody changes from
outside between calls. It runs twice, once compiled. After each call the result, the whole state and which places hold
one and the same tensor are compared. An error of the compiled run must name a line of the program.

    python tests/stateful_programs.py 50000 [first seed]

By command, one program of ten has three steps over one world; one of five runs as machine code and the others on the
interpreter, which takes the same graphs, guards and effects and no time for LLVM.
"""

from __future__ import annotations

import collections
import random
import sys
import types
import warnings
from math import isnan
from typing import Any

import numpy as np

import chainrule as cr
from chainrule.runtime import program

CALLS = 6

WORLD = """
import collections, dataclasses, functools, types
import numpy as np
import chainrule as cr
from chainrule import nn, optim

class Base:
    rate = 0.5
    table = {{"k": 1.5}}
    def __init__(self):
        self.k = {a}
        self.n = 0
        self.t = cr.tensor([{a}, {b}])
        self.h = None
        self.flag = {flag}
        self.mode = "{mode}"
        self._p = {b}
        self.log = []
    @property
    def p(self):
        return self._p * 2
    @p.setter
    def p(self, value):
        self._p = value
    def scale(self, v):
        return v * self.rate
    def __call__(self, v):
        return v * self.k
    def helper(self, v):
        return self.scale(v) + self.p
    @staticmethod
    def shift(v, by={{"s": 0.25}}):
        return v + by["s"]
    @classmethod
    def of_class(cls, v):
        return v * cls.rate

class Derived(Base):
    def scale(self, v):
        return super().scale(v) + self.extra()
    def extra(self):
        return 0.125

class Slotted:
    __slots__ = ("k", "t")
    def __init__(self):
        self.k = {b}
        self.t = cr.tensor([{b}, {a}])

@dataclasses.dataclass
class Config:
    k: float = {a}
    t: object = None

@dataclasses.dataclass
class Box:
    x: object
    k: float
    a: object = None
    total: float = dataclasses.field(init=False, default=0.0)

class Dynamic:
    def __init__(self):
        self.w0, self.w1 = {a}, {b}
    def __getattr__(self, name):
        if name == "lazy":
            return self.w0 * 2
        raise AttributeError(name)

class Layer(nn.Module):
    def __init__(self):
        self.weight = nn.Parameter([{a}, {b}])
        self.register_buffer("mean", cr.zeros(2))
        self.h = None
        self.count = 0
        self.noise = [{a}]
    def forward(self, v):
        return v * self.weight + self.noise[0] if self.training else v * self.weight

class Momentum:
    def __init__(self, parameters, lr):
        self.parameters, self.lr = list(parameters), lr
        self.m = [cr.zeros(2) for _ in self.parameters]
        self.state = {{}}
    def step(self):
        with cr.no_grad():
            for i, one in enumerate(self.parameters):
                if one.grad is None:
                    continue
                self.m[i] = 0.5 * self.m[i] + one.grad
                self.state[i] = self.state.get(i, 0) + 1
                one.copy_(one - self.lr * self.m[i])
                one.grad = None

class World:
    pass

def box_of(i):
    x, k = cr.tensor([{a}, i * 0.5]), [{a}, {b}, {a}, 2.0, 3.0, {b}][i]
    return {box}

def array_of(k):
    return np.array([k, 1.0], "float64" if k == 3.0 else "float32")

reused = collections.OrderedDict()

def refilled(x, k):
    reused["x"], reused["k"], reused["a"] = x, k, array_of(k)
    return reused

members, raw, na, scalar = {{1, 2}}, bytearray(b"abc"), np.array([{a}, {b}], "float32"), np.float32({b})
G = {a}
GT = cr.tensor([{b}, {b}])
GD = {{"k": {b}, "t": cr.tensor([{a}, {a}])}}
GL = [cr.tensor([1.0, {a}]), cr.tensor([{b}, 2.0])]
GF = [lambda v: v * G, lambda v: v + GD["k"]]
counter = 0

def fn(v, c={{"k": {a}}}):
    return v * c["k"]

def make():
    c, ct = {b}, cr.tensor([{a}, 1.0])
    def inner(v):
        nonlocal c, ct
        {inner}
        return v
    def poke(value):
        nonlocal c
        c = value
    return inner, poke, lambda: (c, ct)

inner, poke, look = make()
o, q, s, cfg, dyn, m = Base(), Derived(), Slotted(), Config(), Dynamic(), Layer()
o.sub, o.parts = Base(), [Base(), Slotted()]
ns = types.SimpleNamespace(k={b}, t=cr.tensor([{b}, 1.0]))
dq = collections.deque([cr.zeros(2), cr.zeros(2)], maxlen=2)
od = collections.OrderedDict(x=cr.tensor([{a}, {b}]), y={b})
part = functools.partial(fn, c={{"k": {b}}})
w = cr.tensor([{a}, {b}], requires_grad=True)
past = cr.tensor([{a}, {b}], requires_grad=True)
far = past * 2.0
mo = Momentum([w, m.weight], 0.1)
sgd = optim.SGD([w], lr=0.1)
log, items = [], []

def step(v, box):
    global G, GT, counter
{body}
    return v
"""

NUMBERS = [
    "o.k", "q.k", "o.sub.k", "o.parts[0].k", "s.k", "o.parts[1].k", "cfg.k", "ns.k", "G", "GD['k']", "m.noise[0]",
    "o.p",
    "Base.rate", "Base.table['k']", "dyn.w0", "od['y']", "q.rate", "o._p",
]  # fmt: skip
READ_ONLY = [
    "dyn.lazy",
    "getattr(dyn, 'w' + str(1))",
    "getattr(o, 'missing', 0.5)",
    "len(items) + 1",
    "(o.n + 1)",
]
TENSORS = [
    "o.t", "q.t", "o.sub.t", "s.t", "o.parts[1].t", "ns.t", "GT", "GD['t']", "GL[0]", "GL[1]", "od['x']", "m.mean",
    "dq[0]",
]  # fmt: skip
COUNTERS = ["o.n", "q.n", "counter", "m.count", "o.sub.n"]
CALLS_OF = ["o(v)", "q.helper(v)", "o.helper(v)", "fn(v)", "part(v)", "m(v)", "Base.shift(v)", "Derived.of_class(v)",
            "inner(v)", "functools.reduce(lambda a, f: f(a), GF, v)",
            "sum([v * one.k for one in o.parts])"]  # fmt: skip


# How the second argument is made, and how its parts are named.
BOXES = {
    "{'x': x, 'k': k, 'a': array_of(k)}": "box['{}']",
    "collections.OrderedDict(x=x, k=k, a=array_of(k))": "box['{}']",
    "refilled(x, k)": "box['{}']",
    "collections.UserDict(x=x, k=k, a=array_of(k))": "box['{}']",
    "Box(x, k, array_of(k))": "box.{}",
    "types.SimpleNamespace(x=x, k=k, a=array_of(k))": "box.{}",
}


class Writer:
    """Random statements."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.box = self.random.choice(list(BOXES))

    def part(self, name: str) -> str:
        """A part of the second argument."""
        return BOXES[self.box].format(name)

    def one(self, some: list[str]) -> str:
        return self.random.choice(some)

    def number(self) -> str:
        return self.one(NUMBERS + READ_ONLY)

    def value(self) -> str:
        return f"{self.random.choice([-1, 1]) * self.random.randint(1, 12) / 8}"

    def statement(self) -> list[str]:
        """One statement of a step."""
        t, u, k, n = self.one(TENSORS), self.one(TENSORS), self.one(NUMBERS), self.one(COUNTERS)
        # A buffer takes no graph; in one of eight cases it is tried.
        buffered = ".detach()" if t == "m.mean" and self.random.random() < 0.875 else ""
        choices = [
            [f"v = v * {self.number()}"],
            [f"v = v + {self.number()} * 0.25"],
            [f"v = v + {t}"],
            [f"v = v * {t} + {u}"],
            [f"{t} = {t} * 0.5 + v{buffered}"],
            [f"{t} = (v * {k}){buffered}"],
            [f"{t}.copy_({u} * 0.5)"],
            [f"{t} *= 0.5"],
            [f"{t} += v"],
            [f"{n} += 1"],
            [f"{n} += 1", f"v = v * {n}"],
            [f"{k} = {k} * 0.5"],
            [f"{k} = {k} + 0.125", f"v = v + {k}"],
            [
                f"if {self.one(['o', 'q', 'o.sub'])}.flag:",
                f"    v = v * {self.value()}",
                "else:",
                f"    v = v + {t}",
            ],
            [f"if o.mode == {self.one(['a', 'b'])!r}:", f"    v = v + {self.value()}"],
            [f"if {n} % 3 == 2:", f"    {t} = {t} * 0.0"],
            [f"v = {self.one(CALLS_OF)}"],
            [f"v = {self.one(CALLS_OF)}"],
            ["o.h = v if o.h is None else o.h * 0.5 + v"],
            ["m.h = v * 1.0 if m.h is None else m.h + v", "v = m.h * 0.5"],
            ["log.append(v.sum().item())"],
            ["o.log.append({'v': v, 's': f'{v.sum().item():.4f}'})"],
            ["items.append(1)"],
            ["items.append(v)", "v = v + len(items)"],
            ["GL[0], GL[1] = GL[1], GL[0]"],
            ["o.t, q.t = q.t, o.t"],
            [f"o.other = {t}", "v = v + o.other"],
            ["dq.append(v * 0.5)"],
            ["GL.append(GL.pop(0))"],
            ["GD['new'] = GD.get('new', 0.0) + 0.5", "v = v + GD['new']"],
            ["for name in list(GD):", "    v = v + GD[name] * 0.125"],
            ["cfg.t = v if cfg.t is None else cfg.t + v"],
            ["if not hasattr(o, 'made'):", "    o.made = v * 0.0", "o.made = o.made + v"],
            ["loss = ((w * v) ** 2).sum()", "loss.backward()", "mo.step()"],
            ["loss = ((w - v) ** 2).sum() + m(v).sum()", "loss.backward()", "mo.step()"],
            ["loss = ((w - v) ** 2).sum()", "loss.backward()", "sgd.step()", "sgd.zero_grad()"],
            ["loss = (w * v * far).sum()", "loss.backward()"],
            ["w.grad = None"],
            ["past.grad = None", "v = v + past * 0.125"],
            ["sgd.zero_grad()"],
            ["(w * v).sum().backward()", "w.grad = None"],
            ["if w.grad is not None:", "    v = v + w.grad * 0.125", "w.grad = None"],
            ["w.grad = None if w.grad is None else w.grad * 0.5"],
            ["g = w.grad", "w.grad = None", "v = v if g is None else v + g * 0.25"],
            ["w.grad = v.detach() * 0.5"],
            ["if w.grad is not None:", "    with cr.no_grad():", "        w.grad.copy_(w.grad * 0.5)"],
            ["g = w.grad", "if g is not None:", "    g += 0.5"],
            ["if w.grad is not None:", "    w.grad[0] = 1.0", "(w * v).sum().backward()"],
            ["o.g = w.grad"],
            ["if getattr(o, 'g', None) is not None:", "    v = v + o.g * 0.125"],
            ["if getattr(o, 'g', None) is not None:", "    o.g += 0.25"],
            ["past.grad = w.grad"],
            ["w.grad, past.grad = past.grad, w.grad"],
            ["with cr.no_grad():", "    w.copy_(w * 0.5)"],
            ["fn.calls = getattr(fn, 'calls', 0) + 1"],
            ["del items[:1]"],
            ["s.t, o.sub.t = o.sub.t, s.t * 1.0"],
            [
                "x = v.detach() * 1.0",
                "x.requires_grad_()",
                "((x * w) ** 2).sum().backward()",
                "v = v + x.grad",
            ],
            ["assert (v * 0.0 == 0.0).all()"],
            ["v = v * sgd.param_groups[0]['lr'] * 4.0"],
            ["part.keywords['c']['k'] = part.keywords['c']['k'] * 0.5"],
            ["items[:] = [1.0] * 3", "v = v * sum(items)"],
            ["Base.seen = getattr(Base, 'seen', 0) + 1"],
            ["setattr(dyn, 'w1', dyn.w1 * 0.5)"],
            ["o.pair = (v, o.n)", "v = v + o.pair[0]"],
            ["v = v[[1, 0]]"],
            [f"v = v * {self.part('k')}"],
            [f"v = v + {self.part('x')}"],
            [f"v = v + {self.part('x')} * {self.part('k')}"],
            [f"{self.part('x')} = {self.part('x')} * 0.5 + v"],
            [f"{self.part('x')} += v"],
            [f"{self.part('k')} += 1.0"],
            [f"v = v + {self.part('a')} * 0.5"] if "SimpleNamespace" not in self.box else ["pass"],
            [f"o.last = {self.part('x')}", "v = v + o.last"],
            ["v = v * len(members)"],
            ["members.add(7)"],
            ["v = v + raw[0] / 128"],
            ["v = v * cr.tensor(na)"],
            ["v = v + na * 0.5"],
            ["v = v * float(na.sum())"],
            ["v = v * float(scalar)"],
            ["o.t = GL[0]", "o.t += 1.0", "v = v + GL[0]"],
            ["w.requires_grad_(o.flag)", "v = v + (w * 1.0).detach()"],
            ["print(end='')", "v = v * (2.0 if 2 in members else 0.5)"],
            [
                "o.carry = v * w if getattr(o, 'carry', None) is None else o.carry * 0.5 + v * w",
                "o.carry.sum().backward()",
            ],
            [
                "o.carry = v * w if getattr(o, 'carry', None) is None else o.carry.detach() * 0.5 + v * w",
                "o.carry.sum().backward()",
            ],
        ]
        return self.random.choice(choices)

    def inner(self) -> str:
        """What the closure does."""
        return self.one([
            "v = v * c", "c = c * 0.5; v = v + c", "ct = ct * 0.5 + v; v = v + ct", "ct += v; c += 1.0",
            "v = v + ct * c",
        ])  # fmt: skip

    def change(self) -> str:
        """What somebody does between calls."""
        t, u = self.one(TENSORS), self.one(TENSORS)
        fresh = f"cr.tensor([{self.value()}, {self.value()}])"
        return self.random.choice([
            "pass",
            "pass",
            f"{self.one(NUMBERS)} = {self.value()}",
            f"{self.one(NUMBERS)} = {self.value()}",
            f"{t} = {fresh}" if t != "m.mean" else f"m.mean.copy_({fresh})",
            f"{t} += 1.0",
            f"{t} = {u}" if "m.mean" not in (t, u) else "pass",
            f"{self.one(['o', 'q', 'o.sub'])}.flag = not o.flag",
            "o.mode = 'b' if o.mode == 'a' else 'a'",
            "m.eval()" if self.random.random() < 0.5 else "m.train()",
            f"o.rate = {self.value()}",
            f"q.rate = {self.value()}",
            f"Derived.rate = {self.value()}",
            f"Derived.extra = lambda self: {self.value()}",
            f"q.extra = lambda: {self.value()}",
            f"GF[0] = lambda v: v * {self.value()}",
            "GF.reverse()",
            f"GF.append(lambda v: v + {self.value()})",
            f"poke({self.value()})",
            f"fn.__defaults__ = ({{'k': {self.value()}}},)",
            f"fn.__defaults__[0]['k'] = {self.value()}",
            f"Base.shift.__defaults__[0]['s'] = {self.value()}",
            f"mo.lr = {self.value()}",
            "mo.lr *= 0.5",
            "sgd.param_groups[0]['lr'] = 0.05",
            "o.sub = Base()",
            "o.parts.append(Base())",
            "o.parts[0] = Derived()",
            "items.append(2.0)",
            "items.clear()",
            f"od['y'] = {self.value()}",
            "od.move_to_end('x')",
            f"o.missing = {self.value()}",
            "o.h = None",
            "m.h = None",
            "o.n = 0",
            "counter = 5",
            f"Dynamic.lazy = {self.value()}",
            f"dyn.w1 = {self.value()}",
            "w.grad = None",
            "if w.requires_grad: (w * 0.5).sum().backward()",
            "o.g = w.grad",
            "if w.grad is not None: w.grad.copy_(w.grad * 0.5)",
            f"past.grad = cr.tensor([{self.value()}, {self.value()}])",
            f"w.grad = cr.tensor([{self.value()}, {self.value()}])",
            "w.requires_grad_(not w.requires_grad)" if self.random.random() < 0.2 else "pass",
            f"with cr.no_grad(): w.copy_({fresh})",
            "m.register_forward_hook(lambda mod, a, out: out * o.k)" if self.random.random() < 0.3 else "pass",
            f"m.noise[0] = {self.value()}",
            f"m.noise = [{self.value()}]",
            "GL[0] = GL[1]",
            f"Base.rate = {self.value()}",
            self.one(["o.__class__ = Derived", "q.__class__ = Base", "o.sub.__class__ = Derived"]),
            f"vars(o)['k'] = {self.value()}",
            f"o.__dict__.update(k={self.value()}, fresh=1)",
            "del o.made" if self.random.random() < 0.5 else "pass",
            "GD.pop('new', None)",
            "members.discard(2)",
            "members.add(9)",
            "raw[0] = raw[0] + 16",
            f"na[1] = {self.value()}",
            f"scalar = np.float32({self.value()})",
            "far = past * 3.0",
            f"part.keywords['c']['k'] = {self.value()}",
            "o.t = GL[0]",
            "GL[1] = o.t",
            f"s.k = {self.value()}",
        ])  # fmt: skip


def make(seed: int) -> tuple[str, list[str]]:
    """A program's text, and the changes after each call."""
    writer = Writer(seed)
    lines = [line for _ in range(writer.random.randint(2, 6)) for line in writer.statement()]
    body = "\n".join(f"    {line}" for line in lines)
    text = WORLD.format(
        a=writer.random.randint(1, 8) / 4, b=writer.random.randint(1, 8) / 8, flag=writer.random.random() < 0.5,
        mode=writer.one(["a", "b"]), inner=writer.inner(), body=body, box=writer.box,
    )  # fmt: skip
    return text, [
        "\n".join(writer.change() for _ in range(writer.random.choice([1, 1, 2]))) for _ in range(CALLS)
    ]


ROOTS = [
    "G", "GT", "GD", "GL", "counter", "o", "q", "s", "cfg", "dyn", "m", "ns", "dq", "od", "w", "past", "far", "mo",
    "log", "items", "Base", "Derived", "fn", "part", "box", "members", "raw", "na", "scalar",
]  # fmt: skip


def run(text: str, changes: list[str], seed: int, compiled: bool) -> tuple[list[Any], Exception | None, Any]:
    """What is seen after each call, and the error that ended it."""
    module = sys.modules["stateful_program"] = types.ModuleType("stateful_program")
    space = vars(module)
    exec(compile(text, f"<program {seed}>", "exec"), space)
    generator = np.random.default_rng(seed)
    step = cr.compile(space["step"]) if compiled else space["step"]
    seen: list[Any] = []
    for call, change in enumerate(changes):
        x = cr.tensor((generator.integers(-4, 5, 2) / 4).astype("float32"))
        try:
            space["box"] = space["box_of"](call)
            result = step(x, space["box"])
        except Exception as failure:
            return seen, failure, step
        seen.append((describe(result, {}, {})[2:4], picture(space)))  # a result has numbers, but no graph
        try:
            exec(compile(change, "<change>", "exec"), space)
        except (AttributeError, TypeError, cr.ChainruleError, IndexError, KeyError):
            seen.append("a change that cannot be made here")
    seen.append(picture(space))
    return seen, None, step


def picture(space: dict[str, Any]) -> Any:
    """Every root, and the closure, with the same number for the same tensor."""
    known: dict[int, int] = {}
    held: dict[int, Any] = {}
    return {name: describe(space[name], known, held) for name in ROOTS} | {
        "closure": describe(space["look"](), known, held)
    }


def describe(value: Any, known: dict[int, int], held: dict[int, Any], depth: int = 0) -> Any:
    """A value as plain data."""
    if isinstance(value, cr.Tensor):
        number = known.setdefault(id(value), len(known))
        held[id(value)] = value
        try:
            grad = None if value.grad is None else value.grad.numpy().tolist()
        except cr.GradientError:  # a result says that it has none, where it is not kept as well
            grad = None
        numbers = value.detach().numpy().tolist()
        # What a compiled step has kept has no history, so only leaves can be asked for theirs.
        return ("tensor", number, value.dtype.name, numbers, grad, value.requires_grad and value.is_leaf)
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, collections.UserDict):
        value = value.data
    if isinstance(value, dict):
        return ("dict", [(key, describe(one, known, held, depth + 1)) for key, one in value.items()])
    if isinstance(value, list | tuple | collections.deque):
        return (type(value).__name__, [describe(one, known, held, depth + 1) for one in value])
    if isinstance(value, np.ndarray | np.generic):
        return (str(value.dtype), value.tolist())
    if isinstance(value, set | bytearray):
        return (type(value).__name__, sorted(value))
    if isinstance(value, type):
        plain = {
            name: one for name, one in vars(value).items() if isinstance(one, bool | int | float | str | dict)
        }
        shown = [
            (name, describe(plain[name], known, held)) for name in sorted(plain) if not name.startswith("__")
        ]
        return ("class", shown)
    if depth > 4 or (callable(value) and not hasattr(value, "__dict__")):
        return type(value).__name__
    slots = [name for name in getattr(type(value), "__slots__", ()) if hasattr(value, name)]
    attributes = {**getattr(value, "__dict__", {}), **{name: getattr(value, name) for name in slots}}
    shown = [
        (n, describe(one, known, held, depth + 1))
        for n, one in attributes.items()
        if n not in ("_parent", "_hooks")
    ]
    return (type(value).__name__, shown)


def same(one: Any, other: Any) -> bool:
    """Equal up to rounding of floats; types and structure exactly."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other or abs(one - other) <= 2e-5 * max(1.0, abs(one)) or (isnan(one) and isnan(other))
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return bool(one == other) or (isinstance(one, str) and _nearly(one, other))


def _nearly(one: str, other: str) -> bool:
    try:
        return abs(float(one) - float(other)) <= 2e-4 * max(1.0, abs(float(one)))
    except ValueError:
        return False


def differ(one: Any, other: Any, path: str = "") -> str:
    """Where two pictures differ first."""
    if isinstance(one, tuple | list) and isinstance(other, tuple | list) and len(one) == len(other):
        for k, (a, b) in enumerate(zip(one, other)):
            if not same(a, b):
                return differ(a, b, f"{path}[{k}]")
    if isinstance(one, dict) and isinstance(other, dict) and list(one) == list(other):
        for key in one:
            if not same(one[key], other[key]):
                return differ(one[key], other[key], f"{path}.{key}")
    return f"{path}: {one} but compiled {other}"


def check(seed: int) -> str:
    """equal, refused or, of a program that comes out differently, what is different."""
    text, changes = make(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted, failed, _ = run(text, changes, seed, False)
        got, refused, _ = run(text, changes, seed, True)
    return _answer(seed, wanted, failed, got, refused)


def check_together(seed: int) -> str:
    """The same for three steps over one world, called in random turns, all of them or two compiled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted, failed = _run_together(seed, False)
        got, refused = _run_together(seed, True)
    return _answer(seed, wanted, failed, got, refused)


def _run_together(seed: int, compiled: bool) -> tuple[list[Any], Exception | None]:
    made = [make(seed + k) for k in range(3)]
    steps = [
        text[text.rindex("def step(v") :].replace("step", f"step{k}", 1) for k, (text, _) in enumerate(made)
    ]
    module = sys.modules["stateful_program"] = types.ModuleType("stateful_program")
    space = vars(module)
    exec(compile("\n".join([made[0][0], *steps]), f"<program {seed}>", "exec"), space)
    functions = [space[f"step{k}"] for k in range(3)]
    functions = [cr.compile(one) if compiled and (k or seed % 2) else one for k, one in enumerate(functions)]
    generator, chance = np.random.default_rng(seed), random.Random(seed)
    changes = [one for _, some in made for one in some]
    seen: list[Any] = []
    for call in range(2 * CALLS):
        x = cr.tensor((generator.integers(-4, 5, 2) / 4).astype("float32"))
        function, change = chance.choice(functions), chance.choice([*changes, *["pass"] * len(changes)])
        try:
            space["box"] = space["box_of"](call % CALLS)
            result = function(x, space["box"])
        except Exception as failure:
            return seen, failure
        seen.append((describe(result, {}, {})[2:4], picture(space)))
        try:
            exec(compile(change, "<change>", "exec"), space)
        except (AttributeError, TypeError, cr.ChainruleError, IndexError, KeyError):
            seen.append("a change that cannot be made here")
    return [*seen, picture(space)], None


def _answer(
    seed: int, wanted: list[Any], failed: Exception | None, got: list[Any], refused: Exception | None
) -> str:
    if any(not same(one, other) for one, other in zip(wanted, got)):
        return differ(wanted[: len(got)], got[: len(wanted)])
    if refused is None:
        return "equal" if failed is None else f"eager alone fails: {failed!r}"
    if failed is not None and type(failed) is type(refused):
        return "equal"
    if isinstance(refused, cr.ChainruleError) and f"<program {seed}>:" in str(refused):
        return "refused"
    return f"an error without a line of the program: {refused!r}"


def main() -> None:
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    found: collections.Counter[str] = collections.Counter()
    made = program.available
    for seed in range(first, first + count):
        program.available = made if seed % 5 == 0 else lambda: False  # type: ignore[assignment]
        answer = check_together(seed) if seed % 10 == 3 else check(seed)
        found[answer if answer in ("equal", "refused") else "different"] += 1
        if answer not in ("equal", "refused"):
            print(f"seed {seed}: {answer}", flush=True)
        if seed % 1000 == 999:
            print(dict(found), flush=True)
    print(dict(found))


if __name__ == "__main__":
    main()
