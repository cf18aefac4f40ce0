"""More checks like those of `compiler_checks`: what a step does to the state around it.

Cells that are written in place or not, whoever else holds their arrays; calls that take the quick way or must not;
steps that are refused or interrupted; memory, threads, many steps in one call, and what the disk keeps.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, ops, optim
from chainrule.compiler import compile_graph, known, machine
from chainrule.compiler.repeat import NAME
from chainrule.config import config
from chainrule.errors import ArgumentError, ChainruleError, GraphError
from chainrule.graph import Cell, Graph, Node, state
from chainrule.operations import INPUT, Type
from chainrule.runtime import memory, repeated, threads
from chainrule.trace import Tracing
from compiler_checks import (
    CHECKS,
    Made,
    arrays_of,
    check,
    checks,
    learns,
    near,
    normal,
    refused,
)


def parameters(*shapes: tuple[int, ...]) -> list[Any]:
    """Tensors that learn."""
    return [cr.tensor(normal(*shape, seed=k), requires_grad=True) for k, shape in enumerate(shapes)]


def bits(tensors: list[Any]) -> list[bytes]:
    """What the tensors hold."""
    return [one.detach().numpy().tobytes() for one in tensors]


# ------------------------------------------------------------------------------------------- commit

Updates = Callable[[list[Any], Any], list[tuple[Any, Any]]]
#: What is written to cells of 70 numbers each, from what they hold: [(cell, new value), …].
COMMITS: dict[str, Updates] = {
    "plain": lambda p, g: [(p[0], p[0] - 0.1 * g), (p[1], p[1] + p[0])],
    "swap": lambda p, g: [(p[0], p[1] * 1.0 + g * 0.0), (p[1], p[0] + 0.0), (p[2], p[2] + g)],
    "turn": lambda p, g: [(p[0], p[1] + g), (p[1], p[2] - g), (p[2], p[0] * 0.5)],
    "by the first": lambda p, g: [(p[0], p[0] * p[0][0] + g)],
    "by the last": lambda p, g: [(p[0], p[0] - cr.broadcast_to(p[0][69:], (70,)) * g)],
    "reversed": lambda p, g: [(p[0], cr.flip(p[0]) + g), (p[1], p[1] + cr.flip(p[1]))],
    "centred": lambda p, g: [(p[0], p[0] - cr.mean(p[0]) + g), (p[1], cr.cumulative_sum(p[1]))],
    "turned": lambda p, g: [(p[0], cr.reshape(cr.reshape(p[0], (7, 10)).T, (70,)) + g)],
    "momentum": lambda p, g: [(p[1], 0.9 * p[1] + cr.flip(p[0])), (p[0], p[0] - 0.1 * p[1] + g)],
    "moments": lambda p, g: [(p[1], 0.9 * p[1] + g), (p[2], 0.9 * p[2] + g * g), (p[0], p[0] - p[1] / (cr.sqrt(p[2] * p[2]) + 1.0))],
    "after": lambda p, g: [(p[0], p[0] - g), (p[1], p[1] + cr.flip(p[0] - g)), (p[2], cr.roll(p[0], 1) + p[2])],
    "same": lambda p, g: [(one, p[0] * 0.5 + g) for one in p],
    "handed on": lambda p, g: [(p[0], g), (p[1], p[0]), (p[2], p[2])],
    "rolled": lambda p, g: [(p[k], cr.roll(p[(k + 1) % 3], k) + p[k] * g) for k in range(3)],
    "one way": lambda p, g: [(p[1], 0.9 * p[1] + cr.flip(p[0])), (p[0], p[0] - 0.1 * g)],
    "between": lambda p, g: [(p[2], p[2] + g), (p[1], p[1] + cr.flip(p[0])), (p[0], p[0] - 0.1 * g)],
    "by another": lambda p, g: [(p[1], p[1] * 0.5 + p[0][3]), (p[0], p[0] * p[1] + cr.sum(p[1] * p[2]))],
    "sorted": lambda p, g: [(p[0], cr.sort(p[0] + g)), (p[1], p[1] + cr.sort(p[0]))],
    "product": lambda p, g: [(p[0], cr.reshape(cr.reshape(p[0], (7, 10)) @ cr.reshape(p[1], (10, 7)) @ cr.reshape(p[0], (7, 10)), (70,)) * 0.01 + g)],
    "pairs": lambda p, g: [(p[0], p[0] + p[1][::-1] * g), (p[1], p[1] + p[2][::-1]), (p[2], p[2] * 0.5 + p[0])],
    "looked up": lambda p, g: [(p[0], p[0] + cr.take(p[0], cr.argsort(g), axis=0) * 0.1), (p[1], p[1] + cr.take(p[1], cr.astype(cr.abs(g), cr.int64), axis=0))],
    "chosen": lambda p, g: [(p[0], cr.where(g > 0, p[0], cr.flip(p[1]))), (p[1], cr.concat([p[1][:35] + g[:35], p[0][35:]]))],
}  # fmt: skip


#: How many of the cells are written where they lie, of those kinds where that matters.
IN_PLACE = {"one way": 2, "between": 3, "by the first": 0, "reversed": 0, "pairs": 2}


def check_commit(kind: str) -> None:
    """In place or not, early or late: what every cell becomes, and what was kept of it before."""

    def make() -> Made:
        p = parameters((70,), (70,), (70,))

        def step(x: Any) -> Any:
            before = [one.detach() for one in p]
            loss = cr.sum(cr.sin(p[0]) * x) + cr.sum(cr.log(cr.abs(x) + 1.0) * p[1])
            with cr.no_grad():
                for held, value in COMMITS[kind](before, x):
                    p[[one is held for one in before].index(True)].copy_(value)
            more = (p[0] + 1.0, p[0]) if kind in ("swap", "same") else ()
            return (loss, before[0] * 2.0, cr.isfinite(before[2]), *more)

        return step, p, [(cr.tensor(normal(70, seed=k)),) for k in range(4)]

    step = learns(make)
    if kind in IN_PLACE and "commit" not in config.skip:
        assert len(compile_graph(step.graph()).fusion.in_place) == IN_PLACE[kind]
    step, p, given = make()
    run, kept = cr.compile(step), []
    for (x,) in given:
        run(x)
        kept.append(([one.detach() for one in p], bits(p)))
        kept.append(([one.clone() for one in p] if hasattr(p[0], "clone") else [], bits(p)))
    for handles, wanted in kept:
        assert not handles or bits(handles) == wanted, "what was kept has changed"


checks("commit", check_commit, [(kind,) for kind in COMMITS])


@check
def check_kept_arrays_stay() -> None:
    """A state that somebody holds is never written into, whatever way it is held."""
    model = nn.Linear(40, 30)
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    @cr.compile
    def step(x: Any) -> Any:
        loss = cr.mean(model(x) ** 2)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss, model.weight * 1.0

    x = cr.tensor(normal(8, 40, dtype="float32"))
    kept: list[tuple[Any, bytes]] = []
    for k in range(6):
        _, weight = step(x)
        held = (
            [weight, model.weight.detach(), *model.state_dict().values()]
            if k != 3
            else [model.bias._cell.array]
        )
        held += [model.weight.cell.array] if k == 4 else []
        kept += [
            (one, np.array(one if isinstance(one, np.ndarray) else one.numpy()).tobytes()) for one in held
        ]
        for one, wanted in kept:
            assert (one if isinstance(one, np.ndarray) else one.numpy()).tobytes() == wanted, f"call {k}"
    twin = nn.Linear(40, 30)
    twin.load_state_dict(model.state_dict())
    wanted = bits(list(twin.parameters()))
    step(x)
    assert bits(list(twin.parameters())) == wanted


@check
def check_arrays_of_others_stay() -> None:
    """A cell whose array is a part of another one, or came from anywhere, gets an array of its own first."""
    base = normal(100)
    whole, (w, v) = base.tobytes(), parameters((20,), (20,))

    @cr.compile
    def step(x: Any) -> Any:
        with cr.no_grad():
            w.copy_(w - 0.5 * x)
            v.copy_(v * 0.5 + x)
        return cr.sum(x)

    x = cr.tensor(normal(20))
    for place in (8, 3, 40):
        w.cell.write(base[place : place + 20])
        wanted = base[place : place + 20].copy()
        for _ in range(3):
            step(x)
            wanted -= 0.5 * x.numpy()
            near(w.numpy(), wanted, 4)
            assert base.tobytes() == whole
    w.cell.write(base[::5])  # not side by side
    step(x)
    near(w.numpy(), base[::5] - 0.5 * x.numpy(), 4)
    assert base.tobytes() == whole


@check
def check_cells_of_another_type() -> None:
    """A cell cannot take a value of another type or shape: in place there would be no room for it."""
    for old, new in (
        ((7, "float32"), (7, "float64")),
        ((1, "float64"), (7, "float64")),
        ((7, "float32"), (7, "int32")),
    ):
        outer, state.trace = state.trace, Tracing()
        try:
            read = Node(INPUT, type=(Type((old[0],), np.dtype(old[1])),))
            value = ops.cast(ops.broadcast_to(read, shape=(new[0],)), dtype=np.dtype(new[1]))
        finally:
            state.trace = outer
        slot = Cell(normal(old[0], dtype=old[1])), "array"
        try:
            compile_graph(Graph("types", (), (), {slot: read}, {slot: value}))
        except GraphError:
            continue
        raise AssertionError(f"{old} takes {new}")


@check
def check_optimizers() -> None:
    """All kinds of updates, of parameters of equal and of different sizes."""

    def make(kind: str) -> Made:
        cr.manual_seed(1)
        model = nn.Sequential(
            nn.Linear(6, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(16, 16),
            nn.Tanh(),
            nn.Linear(16, 4),
        ).to(cr.float64)
        makers = {
            "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
            "adam": lambda p: optim.Adam(p, lr=0.01),
            "adamw": lambda p: optim.AdamW(p, lr=0.01),
            "rmsprop": lambda p: optim.RMSprop(p, lr=0.01),
        }
        optimizer = makers[kind](model.parameters())

        def step(x: Any, y: Any) -> Any:
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        return (
            step,
            list(model.parameters()),
            [(cr.tensor(normal(9, 6, seed=k)), cr.tensor(np.arange(9) % 4)) for k in range(3)],
        )

    for kind in ("sgd", "adam", "adamw", "rmsprop"):
        learns(lambda kind=kind: make(kind), units=1e6)


@check
def check_gradients_from_call_to_call() -> None:
    """Gradients that stay, are there before or not, lie in any order, or are given by hand."""

    def made() -> list[list[Any]]:
        found = []
        for wrap_it in (lambda f: f, cr.compile):
            w, v = parameters((3, 5), (3, 5))

            def step(x: Any, w: Any = w, v: Any = v) -> Any:
                loss = cr.sum(cr.tanh(w * x)) + cr.sum(w * v)
                loss.backward()
                with cr.no_grad():
                    v.copy_(v - 0.1 * w.grad)
                return loss, w.grad * 2.0

            run, values = wrap_it(step), []
            for k in range(7):
                if k == 3:
                    w.grad = None
                if k == 5:
                    w.grad, v.grad = cr.permute_dims(cr.tensor(normal(5, 3)), (1, 0)), None
                values += arrays_of(run(cr.tensor(normal(3, 5, seed=k))))
                values += [w.numpy(), v.numpy(), w.grad.numpy(), v.grad.numpy()]
            found.append(values)
        return found

    for one, other in zip(*made(), strict=True):
        near(other, one, 64)


# ------------------------------------------------------------------------------------------- which program serves


@check
def check_calls_that_only_look_alike() -> None:
    """Every call gets what Python gives: whatever differs from the call before is seen."""
    w = cr.tensor([1.5, -2.0, 0.5], requires_grad=True)

    def function(x: Any, y: Any = 2.0) -> Any:
        loss = cr.sum(w * x * y)
        if state.grad_enabled:
            loss.backward()
        return loss, bool(getattr(x, "requires_grad", False))

    step = cr.compile(function)
    plain = cr.tensor([1.0, 2.0, 3.0])

    def both(*given: Any, **named: Any) -> None:
        found = []
        for run in (function, step):
            w.grad = None
            for one in given:
                if isinstance(one, cr.Tensor) and one.requires_grad:
                    one.grad = None
            value, flag = run(*given, **named)
            grads = [
                None if one.grad is None else one.grad.tolist()
                for one in (w, *given)
                if isinstance(one, cr.Tensor)
            ]
            found.append((value.tolist(), value.dtype, flag, grads))
        assert found[0] == found[1], found

    learning = cr.tensor([1.0, 2.0, 3.0], requires_grad=True)
    for _ in range(2):
        for given in (
            (plain,),
            (learning,),
            (plain,),
            (plain * 1.0,),
            (np.array([1.0, 2.0, 3.0], "float32"),),
            (w,),
            (plain,),
            (plain, 3.0),
            (plain, 4.0),
            (plain, plain),
        ):
            both(*given)
        both(plain, y=3.0)
        both(plain, y=plain)
        both(cr.tensor([[1.0, 2.0, 3.0]]))
        both(cr.tensor([1.0, 2.0, 3.0], dtype=cr.float64))
        both(cr.tensor([2.0]))
        both(plain * 2.0)
        with cr.no_grad():
            both(plain)
        both(plain)
    step(plain)
    step(plain)
    made = len(step.recompiles)
    for _ in range(3):
        step(plain)
    assert len(step.recompiles) == made, "an equal call was traced again"
    outer, config.compile = config.compile, False
    try:
        step(cr.ones((2, 1, 3)))
        step(plain)
        assert len(step.recompiles) == made, "compiled although it is switched off"
    finally:
        config.compile = outer
    w.grad = None
    step(plain)
    assert w.grad.tolist() == [2.0, 4.0, 6.0]
    step(plain)  # gradients add up
    assert w.grad.tolist() == [4.0, 8.0, 12.0]


@check
def check_types_and_flags_that_change() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    step = cr.compile(lambda x: model(x))
    x = cr.tensor(normal(5, 3, dtype="float32"))
    model.eval()
    for _ in range(2):
        near(step(x).numpy(), model(x).detach().numpy(), 16)
        model.to(cr.float64)
        wide = cr.tensor(normal(5, 3))
        near(step(wide).numpy(), model(wide).detach().numpy(), 16)
        model.to(cr.float32)
        model.train()
        assert (step(x).numpy() != step(x).numpy()).any()
        model.eval()
    model[0].weight.requires_grad = False
    near(step(x).numpy(), model(x).detach().numpy(), 16)
    outer = config.check_finite
    w = cr.tensor([0.0], requires_grad=True)

    @cr.compile
    def careful(x: Any) -> Any:
        loss = cr.sum(x / w)
        loss.backward()
        w.grad = None
        return loss

    try:
        for _ in range(2):
            config.check_finite = True
            refused(lambda: careful(cr.tensor([1.0])), "loss")
            config.check_finite = False
            assert careful(cr.tensor([1.0])).item() == np.inf
    finally:
        config.check_finite = outer


@check
def check_results_of_every_kind() -> None:
    """Arguments, cells, constants, numbers and texts leave as Python hands them out; handles follow."""
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    constant = cr.tensor([7.0, 8.0])

    def function(x: Any, y: Any) -> Any:
        old = w.detach()
        x[0] = 5.0
        y += 1.0
        with cr.no_grad():
            w.copy_(w + 1.0)
        return {
            "x": x,
            "y": [y, 3, "text", None],
            "w": (w, old, w * 2.0),
            "c": constant,
            "z": x * 2.0 + constant,
        }

    step = cr.compile(function)
    for k in range(3):
        found = []
        start = w.numpy()
        for run in (function, step):
            w.cell.write(start.copy())
            x, y = cr.tensor([1.0, 2.0 + k]), cr.tensor([3.0, 4.0])
            out = run(x, y)
            values = [x, y, out["x"], out["y"][0], *out["w"], out["c"], out["z"], w]
            found.append(([one.tolist() for one in values], out["y"][1:]))
            assert out["c"] is constant or out["c"].tolist() == [7.0, 8.0]
        assert found[0] == found[1], found
    raw = np.array([1.0, 2.0])
    same = cr.compile(
        lambda x: (x, x * 2.0) if isinstance(x, cr.Tensor) else (cr.asarray(x), cr.asarray(x) * 2.0)
    )
    for _ in range(2):
        given, twice = same(raw)
        raw[0] += 10.0
        assert given.tolist()[0] == twice.tolist()[0] / 2.0 == raw[0] - 10.0
    loss = cr.compile(lambda x: cr.sum(w * x))(constant)
    try:
        loss.backward()
    except ChainruleError:
        return
    raise AssertionError("a gradient was lost at the compiled function")


@check
def check_the_interpreter_keeps_the_rules() -> None:
    """Without llvmlite: the same results, the same checks, nothing changed by a step that is refused."""
    from chainrule.runtime import program

    outer, program.available = program.available, lambda: False
    try:
        with contextlib.redirect_stderr(open(os.devnull, "w")):
            for kind in ("plain", "swap", "after", "handed on"):
                check_commit(kind)
            check_refused_steps_change_nothing()
            table = cr.tensor(normal(4, 3))
            look = cr.compile(lambda at: cr.take(table, at, axis=0) * 2.0)
            near(look(cr.tensor([1, 3])).numpy(), table.numpy()[[1, 3]] * 2.0, 1)
            refused(lambda: look(cr.tensor([4, 0])), "got 0 to 4")
    finally:
        program.available = outer


# ------------------------------------------------------------------------------------------- refused, interrupted


@check
def check_refused_steps_change_nothing() -> None:
    w, b, m = parameters((4, 3), (3,), (4, 3))
    cells = [w, b, m]

    @cr.compile
    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(x @ w + b, y) + cr.mean(cr.log(x[:, 0]))
        loss.backward()
        with cr.no_grad():
            m.copy_(0.9 * m + w.grad)
            w.copy_(w - 0.1 * m)
            b.copy_(b - 0.1 * b.grad)
        w.grad = None
        b.grad = None
        return loss, x + w[0, 0]

    x, y = np.abs(normal(5, 4)) + 0.1, np.array([0, 1, 2, 0, 1])
    bad, huge = x.copy(), x.copy()
    bad[2, 0], huge[1, 1] = 0.0, np.inf
    for k in range(3):
        before = bits(cells)
        refused(lambda: step(cr.tensor(bad), cr.tensor(y)), "loss", "finite", "x")
        assert bits(cells) == before
        refused(lambda: step(cr.tensor(huge), cr.tensor(y)), "loss")
        refused(lambda: step(cr.tensor(x), cr.tensor(y + 1)), "3")
        refused(lambda: step(cr.tensor(x), cr.tensor(y - 1 - k)))
        assert bits(cells) == before and w.grad is None and b.grad is None
        step(cr.tensor(x), cr.tensor(y))
        assert bits(cells) != before and w.grad is None
    outcome = step.audit(cr.tensor(x), cr.tensor(y))
    before = bits(cells)
    assert outcome.ok, str(outcome)
    assert step.report(cr.tensor(x), cr.tensor(y)).native_share in (0.0, 1.0)
    step.report()
    assert bits(cells) == before
    ten = cr.compile(lambda x: cr.sort(cr.take(x, cr.astype(x, cr.int64), axis=0)))
    refused(lambda: ten(cr.tensor([0.0, 9.0])))


@check
def check_a_commit_waits_for_checks_that_products_make() -> None:
    """Where products themselves watch what is checked, nothing stands between what is computed and what commits."""
    for read in (lambda slope: slope * 2.0, lambda slope: slope + 1.0, lambda slope: cr.exp(slope * 0.0)):
        w, v = parameters((70, 6), (70, 6))

        def step(x: Any, slope: Any, w: Any = w, v: Any = v, read: Any = read) -> Any:
            y = x @ w
            y.backward(slope)
            found = read(w.grad)
            with cr.no_grad():
                v.copy_(v * 0.9 + w.grad)
                w.copy_(w - 0.1 * w.grad)
            w.grad = None
            return y, found

        run, x, slope = cr.compile(step), normal(5, 70), cr.tensor(normal(5, 6))
        for at in ((2, 3), (4, 69)):
            run(cr.tensor(x), slope)
            before, bad = bits([w, v]), x.copy()
            bad[at] = np.inf
            refused(lambda run=run, bad=bad, slope=slope: run(cr.tensor(bad), slope))
            assert bits([w, v]) == before and w.grad is None


@check
def check_a_failure_inside_numpy_changes_nothing() -> None:
    w = cr.tensor([1.0, 2.0], requires_grad=True)

    @cr.compile
    def step(x: Any) -> Any:
        order = cr.argsort(x * 2.0)
        with cr.no_grad():
            w.copy_(w + cr.astype(order, w.dtype))
        return order

    def fails(*_: Any, **__: Any) -> Any:
        raise ValueError("out of order")

    assert step(cr.tensor([2.0, 3.0])).tolist() == [0, 1]
    before, works = bits([w]), ops.argsort.body
    ops.argsort.body = fails
    try:
        step(cr.tensor([3.0, 2.0]))
    except ChainruleError as failure:
        assert str(failure).count("Nothing was changed by this step") == 1
        assert (
            "argsort" in str(failure)
            and "out of order" in str(failure)
            and str(failure).count("(runtime_checks.py:") == 1
        )
    else:
        raise AssertionError("a failure inside NumPy was lost")
    finally:
        ops.argsort.body = works
    assert bits([w]) == before
    assert step(cr.tensor([3.0, 2.0])).tolist() == [1, 0]


@check
def check_interrupted_steps_happen_or_not() -> None:
    """Ctrl-C between any two lines of the runtime: the step has happened as a whole, or not at all."""
    folder = os.path.dirname(memory.__file__)
    w, v, g = parameters((4,), (4,), (4,))

    def function(x: Any) -> Any:
        loss = cr.sum(w * x) + cr.sum(g * g)
        loss.backward()
        with cr.no_grad():
            w.copy_(w - 0.1 * w.grad)  # in place
            v.copy_(w)  # not in place
        w.grad = None
        return loss

    step, x = cr.compile(function), cr.tensor([1.0, 2.0, 3.0, 4.0])

    def now_held() -> tuple[Any, ...]:
        return w.tolist(), v.tolist(), None if g.grad is None else g.grad.tolist()

    def after(start: tuple[Any, ...]) -> tuple[Any, ...]:
        moved = [a - 0.1 * b for a, b in zip(start[0], x.tolist())]
        slope = [2.0 * one + (0.0 if start[2] is None else start[2][k]) for k, one in enumerate(g.tolist())]
        return moved, moved, slope

    def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
        return all(
            (a is None) == (b is None) and (a is None or np.allclose(a, b)) for a, b in zip(one, other)
        )

    for _ in range(3):
        step(x)
    for count in range(1, 400):
        lines = [0]

        def tick(frame: Any, event: str, _: Any, lines: Any = lines, count: int = count) -> Any:
            if not frame.f_code.co_filename.startswith(folder):
                return None
            # At `try:` and at the end of a `with` Python tells a line, but no signal can come there.
            text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
            if event == "line" and not text.startswith(("with ", "try:")):
                lines[0] += 1
                if lines[0] == count:
                    raise KeyboardInterrupt
            return tick

        start = now_held()
        outer = sys.gettrace()
        sys.settrace(tick)
        try:
            step(x)
            ended = True
        except KeyboardInterrupt:
            ended = False
        finally:
            sys.settrace(outer)
        now = now_held()
        assert same(now, start) or same(now, after(start)), f"line {count}: {start} became {now}"
        if ended:
            assert same(now, after(start))
            break
    else:
        raise AssertionError("the step never came to its end")
    assert count > 20
    start = now_held()
    step(x)
    assert same(now_held(), after(start))


# ------------------------------------------------------------------------------------------- memory


@check
def check_memory() -> None:
    """Addresses, wholeness, alignment, and who can reach an array."""
    x = normal(6, 4)
    assert memory.address(x) == x.ctypes.data and memory.address(x[2:]) == x[2:].ctypes.data
    assert memory.address(x[:0]) == 0 and memory.address(np.zeros((0, 3))) == 0
    assert memory.whole(x) is x and memory.whole(x[1:3]).base is x
    crooked = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float64)
    strange = np.frombuffer(bytearray(b"\0" + x.tobytes()), dtype="u1", offset=1).view("float64")
    for one in (
        x.T,
        x[::2],
        x[:, 1:],
        x[:, ::-1],
        np.broadcast_to(x[0], (3, 4)),
        np.asfortranarray(x),
        crooked,
        strange,
    ):
        made = memory.whole(one)
        assert (
            made.flags.c_contiguous and made.flags.aligned and (made == one).all() and made.shape == one.shape
        )
    for size in (0, 1, 63, 64, 65, 1000):
        made = memory.aligned(size)
        assert made.nbytes == size and made.dtype == np.uint8 and (not size or made.ctypes.data % 64 == 0)
        assert made.base is None or made.base.nbytes >= size
    copied = memory.aligned_like(x)
    assert (copied == x).all() and copied.ctypes.data % 64 == 0 and not np.shares_memory(copied, x)
    back = memory.array_at(x.ctypes.data, (6, 4), x.dtype)
    assert (
        (back == x).all()
        and np.shares_memory(back, x)
        and memory.array_at(0, (0, 3), x.dtype).shape == (0, 3)
    )
    back[5, 3] = 9.0
    assert x[5, 3] == 9.0
    cells = [Cell(normal(3)), Cell(normal(4))]
    assert memory.all_alone(cells)
    held = cells[1].array
    assert not memory.all_alone(cells) and memory.all_alone(cells[:1]) and not memory.all_alone(cells[1:])
    arrays = list(map(memory.array_of, cells))
    assert memory.first_alone(arrays, cells[:1])
    assert not memory.first_alone(arrays, cells)
    del held
    assert memory.first_alone(arrays, cells)
    del arrays
    before = cells[0].array
    memory.make_alone(cells[0])
    assert cells[0].owned and cells[0].array is not before and (cells[0].array == before).all()
    mine = memory.address(cells[0].array)
    memory.make_alone(cells[0])
    assert memory.address(cells[0].array) == mine, "an array that is the runtime's and alone was copied"
    kept = cells[0].array
    memory.make_alone(cells[0])
    assert cells[0].array is not kept


@check
def check_inputs_of_any_layout() -> None:
    x = normal(6, 8)
    crooked = np.frombuffer(bytearray(b"\0" + x.tobytes()), np.uint8)[1:].view(np.float64).reshape(6, 8)
    given = [
        x,
        x.T.copy().T,
        np.repeat(x, 2, axis=0)[::2],
        x[::-1][::-1],
        crooked,
        x.astype(">f8"),
        np.broadcast_to(x, (2, 6, 8))[1],
    ]
    step = cr.compile(
        lambda x: (
            cr.sum(cr.asarray(x) * 2.0, axis=0),
            cr.asarray(x) @ cr.permute_dims(cr.asarray(x), (1, 0)),
            cr.asarray(x),
        )
    )
    for one in given:
        before = one.tobytes()
        total, square, same = arrays_of(step(one))
        near(total, x.sum(0) * 2.0, 16)
        near(square, x @ x.T, 64)
        assert (same == x).all() and one.tobytes() == before and not np.shares_memory(same, one)
    views = cr.compile(lambda x: cr.exp(x) + cr.flip(x, axis=0))
    base = cr.tensor(x)
    for one in (
        base,
        cr.permute_dims(cr.permute_dims(base, (1, 0)) * 1.0, (1, 0)),
        cr.flip(cr.flip(base, axis=1), axis=1),
        cr.broadcast_to(base[:1], (6, 8)),
        base[:, ::-1],
    ):
        near(views(one).numpy(), np.exp(one.numpy()) + one.numpy()[::-1], 16)


# ------------------------------------------------------------------------------------------- many steps, threads


@check
def check_many_steps_in_one_call() -> None:
    def make(kind: str) -> tuple[Any, list[Any]]:
        cr.manual_seed(2)
        model = nn.Sequential(
            nn.Linear(7, 200 if kind == "shared" else 9),
            nn.BatchNorm1d(200 if kind == "shared" else 9),
            nn.ReLU(),
            nn.Linear(200 if kind == "shared" else 9, 3),
        )
        optimizer = optim.Adam(model.parameters(), lr=0.05)
        last = cr.tensor(np.zeros(3, "float32"), requires_grad=True)

        @cr.compile
        def step(x: Any, y: Any) -> Any:
            out = model(x)
            loss = F.cross_entropy(out, y) + cr.mean(cr.log(x[:, 0]))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            with cr.no_grad():
                last.copy_(cr.mean(out, axis=0) if kind != "kept" else cr.mean(out, axis=0) + last * 0.0)
            return {"loss": loss, "several": [out, 3 if kind == "text" else cr.argmax(out, axis=1)]}

        return step, [*model.parameters(), last]

    rows = 6
    x, y = (np.abs(normal(40, 7, dtype="float32")) + 0.1), np.arange(40) % 3
    order = np.random.default_rng(0).permutation(40)[: 6 * rows]
    before = cr.get_num_threads()
    try:
        for kind, count in (("plain", 1), ("kept", 1), ("shared", 2)):
            cr.set_num_threads(count)
            step, held = make(kind)
            singles = [
                step(
                    cr.tensor(x[order[k * rows : (k + 1) * rows]]),
                    cr.tensor(y[order[k * rows : (k + 1) * rows]]),
                )
                for k in range(6)
            ]
            twin, cells = make(kind)
            twin(cr.tensor(x[order[:rows]]), cr.tensor(y[order[:rows]]))
            loop = repeated.repeated(twin._last)
            assert loop is not None and loop.fits([x, y]) and loop.output_bytes == 4 + rows * 3 * 4 + rows * 8
            assert (
                not loop.fits([x])
                and not loop.fits([x[:, :6], y])
                and not loop.fits([x.astype("float64"), y])
            )
            assert (
                not loop.fits([x[::2], y[::2]])
                and not loop.fits([x, y, y])
                and not loop.fits([np.asfortranarray(x), y])
            )
            done, found, failure = loop.run([x, y], order[rows:], 5)
            assert done == 5 and failure is None and bits(cells) == bits(held)
            for k, one in enumerate(singles[1:]):
                assert found["loss"][k] == one["loss"].numpy()
                assert found["several"][0][k].tobytes() == one["several"][0].numpy().tobytes()
                assert (found["several"][1][k] == one["several"][1].numpy()).all()
            bad = x.copy()
            bad[order[2 * rows + 1], 0] = 0.0
            done, found, failure = loop.run([bad, y], order, 6)
            assert done == 2 and failure is not None and "loss" in str(failure) and len(found["loss"]) == 2
            for k in range(2):
                step(
                    cr.tensor(x[order[k * rows : (k + 1) * rows]]),
                    cr.tensor(y[order[k * rows : (k + 1) * rows]]),
                )
            assert bits(cells) == bits(held)
            kept = [one.detach() for one in cells]
            wanted = bits(kept)
            loop.run([x, y], order, 1)
            assert bits(kept) == wanted and bits(cells) != wanted
            again = twin(cr.tensor(x[:rows]), cr.tensor(y[:rows]))
            step(cr.tensor(x[order[:rows]]), cr.tensor(y[order[:rows]]))
            assert again["loss"].item() == step(cr.tensor(x[:rows]), cr.tensor(y[:rows]))["loss"].item()
    finally:
        cr.set_num_threads(1)
        threads.pool()
        cr.set_num_threads(before)
    assert NAME


@check
def check_steps_that_cannot_be_repeated() -> None:
    w = cr.tensor([1.0, 2.0, 3.0], requires_grad=True)

    def grown(x: Any) -> Any:
        loss = cr.sum(w * x)
        loss.backward()
        return loss

    outside = cr.tensor([1.0, 2.0, 3.0])
    x, y = cr.tensor(normal(4, 3)), cr.tensor(normal(2, 3))
    wrong: list[tuple[Any, tuple[Any, ...]]] = [
        (lambda x: cr.sort(x), (x,)), (grown, (x,)), (lambda x: x, (x,)), (lambda x: (x * 2.0, 3), (x,)),
        (lambda x, y: cr.sum(x) + y, (x, y)), (lambda x: x * 2.0, (cr.tensor(2.0),)), (lambda: w * 2.0, ()),
        (lambda x: (x * 2.0, w), (x,)), (lambda x: x[:0] + 1.0, (cr.tensor(np.zeros((0, 3))),)),
        (lambda x: x * 2.0 + outside, (cr.tensor(normal(3)),)), (lambda x: w * 1.0 + cr.sum(x), (x,)),
    ]  # fmt: skip
    for k, (function, given) in enumerate(wrong):
        step = cr.compile(function)
        step(*given)
        made = repeated.repeated(step._last)
        assert (made is None) == (k < 10), k


@check
def check_threads_and_their_number() -> None:
    before, made = cr.get_num_threads(), threads.pool()
    x = cr.tensor(normal(400, 300))
    step = cr.compile(lambda x: (x @ cr.permute_dims(x, (1, 0)), cr.exp(x)))
    try:
        cr.set_num_threads(1)
        wanted = [one.tobytes() for one in arrays_of(step(x))]
        assert threads.pool() is None
        for count in (2, 5, 3):
            cr.set_num_threads(count)
            made = threads.pool()
            assert made is not None and made.threads == count and threads.pool() is made
            for _ in range(8):
                assert [one.tobytes() for one in arrays_of(step(x))] == wanted
        for wrong in (0, -1, 1025, True, 2.0, "2", None):
            try:
                cr.set_num_threads(wrong)  # type: ignore[arg-type]
            except ArgumentError:
                continue
            raise AssertionError(f"set_num_threads took {wrong!r}")
        assert cr.get_num_threads() == 3
        cr.set_num_threads(1024)
        assert cr.get_num_threads() == 1024
        for text, number in (
            ("1", 1),
            ("7", 7),
            ("1024", 1024),
            ("0", None),
            ("1025", None),
            ("-1", None),
            ("x", None),
            ("²", None),
            ("00001", None),
            ("1.5", None),
        ):
            try:
                assert threads._number(text) == number
            except ArgumentError:
                assert number is None, text
    finally:
        cr.set_num_threads(1)
        assert threads.pool() is None
        cr.set_num_threads(before)


# ------------------------------------------------------------------------------------------- what the disk keeps


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A new folder for machine code; the process forgets what it has compiled."""
    outer = {name: os.environ.get(name) for name in ("CHAINRULE_CACHE", "CHAINRULE_CACHE_DIR")}
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(CHAINRULE_CACHE="1", CHAINRULE_CACHE_DIR=folder)
        kept = dict(machine._natives)
        machine._natives.clear()
        try:
            yield Path(folder)
        finally:
            machine._natives.update(kept)
            for name, value in outer.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


@check
def check_what_is_known_of_a_plan() -> None:
    """No two plans share a name, equal ones do, and what runs from the disk is what was compiled."""
    w = cr.tensor([1.0, 2.0, 3.0], requires_grad=True)

    def update(scale: float, order: int) -> Any:
        def step(x: Any, y: Any) -> Any:
            with cr.no_grad():
                w.copy_((w, w * scale + cr.sum(x, axis=0) * 0.0, cr.flip(w) * scale)[order])
            return cr.sum(x * w)

        return step

    functions: list[Any] = [
        lambda x, y: x + y, lambda x, y: y - x, lambda x, y: x - y, lambda x, y: x + y + 1.0, lambda x, y: x + y + 2.0,
        lambda x, y: x + y + cr.tensor([1.0, 2.0, 4.0]), lambda x, y: x + y + cr.tensor([1.0, 2.0, 5.0]),
        lambda x, y: cr.sum(x + y, axis=0), lambda x, y: cr.sum(x + y, axis=1), lambda x, y: (x + y, x), lambda x, y: (x, x + y),
        lambda x, y: (x + y).astype("float32"), lambda x, y: cr.permute_dims(x + y, (1, 0)), lambda x, y: (x + y)[0],
        lambda x, y: (x + y)[1], lambda x, y: cr.take(x, cr.tensor([0, 1]), axis=1), lambda x, y: x @ cr.permute_dims(y, (1, 0)),
        lambda x, y: cr.take(x, cr.tensor([0, 2]), axis=1), lambda x, y: cr.permute_dims(x, (1, 0)) @ y, lambda x, y: cr.exp(x) @ y.T + 1.0,
        lambda x, y: F.conv2d(cr.reshape(x, (1, 1, 2, 3)), cr.reshape(y, (3, 1, 1, 2))), lambda x, y: (cr.exp(x) * y, cr.exp(x) + y),
        lambda x, y: F.conv2d(cr.reshape(x, (1, 1, 2, 3)), cr.reshape(y, (3, 1, 2, 1))), update(0.5, 1), update(0.25, 1), update(0.5, 2),
    ]  # fmt: skip
    x, y = cr.tensor(np.arange(6.0).reshape(2, 3)), cr.tensor(np.arange(6.0).reshape(2, 3) * 0.5 + 1.0)
    with place() as folder:
        names: dict[str, int] = {}
        first = []
        for turn in range(2):
            machine._natives.clear()
            for k, function in enumerate(functions):
                w.cell.write(np.array([1.0, 2.0, 3.0], "float32"))
                step = cr.compile(function)
                values = [one.tobytes() for one in (*arrays_of(step(x, y)), w.numpy())]
                w.cell.write(np.array([1.0, 2.0, 3.0], "float32"))
                again = [one.tobytes() for one in (*arrays_of(step(x, y)), w.numpy())]
                assert values == again
                compilation = compile_graph(step.graph())
                assert compilation.name is not None
                assert names.setdefault(compilation.name, k) == k, (
                    f"{k} is taken for {names[compilation.name]}"
                )
                if not turn:
                    first.append(values)
                else:
                    assert compilation.known is not None and values == first[k], k
                    w.cell.write(np.array([1.0, 2.0, 3.0], "float32"))
                    for one, value in zip(arrays_of(function(x, y)), arrays_of_bytes(values, step, x, y)):
                        near(value, one, 16)
        assert len(names) == len(functions)
        name = compilation.name
        outer = known._sources
        known._sources = lambda: "another state of this package"
        try:
            assert compile_graph(step.graph()).name not in (None, name), (
                "the name does not tell the sources apart"
            )
        finally:
            known._sources = outer
        others = [config.skip, frozenset({"merge"})]
        config.skip = others[1]
        try:
            assert compile_graph(step.graph()).name not in (None, name)
        finally:
            config.skip = others[0]
        assert (
            known._sources() == outer()
            and "known.py" in outer()
            and "kinds.py" in outer()
            and "graph.py" in outer()
        )
        assert (
            str(Path(known.__file__).stat().st_mtime_ns) in outer()
            and str(Path(known.__file__).stat().st_size) in outer()
        )
        for file in folder.iterdir():
            file.write_bytes(file.read_bytes()[:-1] + b"?")
        machine._natives.clear()
        assert compile_graph(step.graph()).known is None
        found = cr.compile(lambda x: cr.scan(lambda c, one: (c + one, c), cr.tensor(np.zeros(3)), x)[1])
        found(x)
        assert compile_graph(found.graph()).name is None
        sorting = cr.compile(lambda x: cr.sort(x))
        sorting(x)
        assert compile_graph(sorting.graph()).name is None
    outside, inside = cr.compile(functions[3]), cr.compile(functions[3])
    assert [one.tobytes() for one in arrays_of(outside(x, y))] == [
        one.tobytes() for one in arrays_of(inside(x, y))
    ]


def arrays_of_bytes(values: list[bytes], step: Any, x: Any, y: Any) -> list[Any]:
    """The bytes as arrays again, typed like the outputs of the step's graph."""
    outputs = step.graph().outputs
    return [np.frombuffer(one, node.dtype).reshape(node.shape) for one, node in zip(values, outputs)]


__all__ = ["CHECKS"]
