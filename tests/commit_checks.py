"""More checks: what a step does to cells and gradients, and that it happens as a whole or not at all.

Cells that are written in place or not, whoever else holds their arrays; steps that are refused or interrupted.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, ops, optim
from chainrule.compiler import compile_graph
from chainrule.config import config
from chainrule.errors import ChainruleError, GraphError
from chainrule.graph import Cell, Graph, Node, state
from chainrule.operations import INPUT, Type
from chainrule.runtime import memory
from chainrule.trace import Tracing
from compiler_checks import (
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
    "moments": lambda p, g: [(p[1], 0.9 * p[1] + g), (p[2], 0.9 * p[2] + g * g), (p[0],
    p[0] - p[1] / (cr.sqrt(p[2] * p[2]) + 1.0))],
    "after": lambda p, g: [(p[0], p[0] - g), (p[1], p[1] + cr.flip(p[0] - g)), (p[2], cr.roll(p[0], 1) + p[2])],
    "same": lambda p, g: [(one, p[0] * 0.5 + g) for one in p],
    "handed on": lambda p, g: [(p[0], g), (p[1], p[0]), (p[2], p[2])],
    "rolled": lambda p, g: [(p[k], cr.roll(p[(k + 1) % 3], k) + p[k] * g) for k in range(3)],
    "one way": lambda p, g: [(p[1], 0.9 * p[1] + cr.flip(p[0])), (p[0], p[0] - 0.1 * g)],
    "between": lambda p, g: [(p[2], p[2] + g), (p[1], p[1] + cr.flip(p[0])), (p[0], p[0] - 0.1 * g)],
    "by another": lambda p, g: [(p[1], p[1] * 0.5 + p[0][3]), (p[0], p[0] * p[1] + cr.sum(p[1] * p[2]))],
    "sorted": lambda p, g: [(p[0], cr.sort(p[0] + g)), (p[1], p[1] + cr.sort(p[0]))],
    "product": lambda p, g: [(p[0], cr.reshape(cr.reshape(p[0], (7, 10)) @ cr.reshape(p[1], (10,
    7)) @ cr.reshape(p[0], (7, 10)), (70,)) * 0.01 + g)],
    "pairs": lambda p, g: [(p[0], p[0] + p[1][::-1] * g), (p[1], p[1] + p[2][::-1]), (p[2], p[2] * 0.5 + p[0])],
    "looked up": lambda p, g: [(p[0], p[0] + cr.take(p[0], cr.argsort(g), axis=0) * 0.1), (p[1],
    p[1] + cr.take(p[1], cr.astype(cr.abs(g), cr.int64), axis=0))],
    "chosen": lambda p, g: [(p[0], cr.where(g > 0, p[0], cr.flip(p[1]))), (p[1], cr.concat([p[1][:35] + g[:35],
    p[0][35:]]))],
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
        refused(lambda k=k: step(cr.tensor(x), cr.tensor(y - 1 - k)))
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
            and str(failure).count("(commit_checks.py:") == 1
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
