"""More checks: what the others pass by.

Signs of zeros, rare kinds of loops and of cuts, refusals, limits of the machine, what is told of a step.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import chainrule as cr
import test_parts
from chainrule import functional as F
from chainrule.compiler import cache, compile_graph, entry, known, machine, parts
from chainrule.compiler import loops as ir
from chainrule.compiler.indices import Index, Variable
from chainrule.compiler.plan import Buffer
from chainrule.compiler.work import work_of
from chainrule.config import config
from chainrule.errors import ArgumentError, ChainruleError, CompileError
from chainrule.operations import Type
from chainrule.ops.convolution import window
from chainrule.runtime import threads
from compiler_checks import FLOATS, MACHINES, agree, check, near, normal
from memory_checks import place

# ------------------------------------------------------------------------------------------- numbers

SIGNED = ["negative", "abs", "sign", "floor", "ceil", "trunc", "round", "sin", "tan", "asin", "atan", "sinh", "tanh",
          "asinh", "atanh", "expm1", "log1p", "sqrt", "square"]  # fmt: skip


@check
def check_signs_of_zeros() -> None:
    """A zero has the sign that NumPy gives it."""

    def both(x: Any) -> tuple[Any, ...]:
        return (
            *(getattr(cr, name)(x) for name in SIGNED),
            x * -1.0,
            x * 0.0,
            -(x * x),
            x / 2.0,
            x - x,
            1.0 / x,
        )

    for dtype in FLOATS:
        zeros = cr.tensor(np.array([0.0, -0.0], dtype))
        with np.errstate(all="ignore"):
            pairs = zip(both(zeros), cr.compile(both)(zeros), strict=True)
            for k, (one, other) in enumerate(pairs):
                assert (np.signbit(one.numpy()) == np.signbit(other.numpy())).all(), k


@check
def check_a_sum_regroups_only_itself() -> None:
    """What is added up is computed as it stands; only the sum may take another order."""
    large = 1e12

    def rounded(x: Any) -> Any:
        return (
            cr.sum((x + large) - large, axis=0), cr.sum((x + large) - large, axis=1), cr.sum((x + large) - large),
            cr.mean((x + large) - large, axis=(0, 2)), cr.cumulative_sum((x + large) - large, axis=1)
        )  # fmt: skip

    for shape in ((3, 4, 5), (2, 40, 3), (40, 2, 33), (1, 3, 9000), (5, 2, 6000)):
        agree(rounded, normal(*shape), units=64, machines=MACHINES[:1])


@check
def check_long_sums_with_many_totals() -> None:
    """Sums that are kept in float64, with more totals than lie beside the result: in strips, or some at a time."""
    for *shape, axis in ((140, 5, 1000, 0), (130, 4097, 18, 0), (3, 150, 4100, 1), (150, 4300, 3, 0)):
        x = normal(*shape, dtype="float32")
        agree(lambda x, axis=axis: cr.sum(x * 0.5 + 8.0, axis=axis), x, units=8)  # type: ignore[misc]


@check
def check_products_of_windows() -> None:
    """Two axes that move alike are two axes."""
    lines = [
        lambda x, y: cr.sum(_windows(x, 3) * _windows(y, 3)),
        lambda x, y: cr.tensordot(_windows(x, 3), _windows(y, 3), axes=2),
        lambda x, y: cr.tensordot(_windows(x, 4), _windows(y, 4), axes=([1], [1])),
        lambda x, y: cr.vecdot(_windows(x, 5), _windows(y, 5)),
        lambda x, y: _windows(x, 2).T @ _windows(y, 2),
    ]
    for one in lines:
        for dtype in FLOATS:
            agree(one, normal(19, dtype=dtype), normal(19, dtype=dtype, seed=1))


def _windows(x: Any, size: int) -> Any:
    return window(x, sizes=(size,), strides=(1,), dilation=(1,))


@check
def check_operands_that_are_views() -> None:
    """Products and convolutions of what lies elsewhere, or several times, or not at all."""
    shown = [
        lambda x: cr.repeat(x, 2, axis=0), lambda x: cr.repeat(x, 2, axis=1)[:, : x.shape[1]],
        lambda x: cr.tile(x, (2, 1)), lambda x: cr.roll(x, 3, axis=1), lambda x: cr.roll(x, 1, axis=0),
        lambda x: cr.flip(x, axis=1), lambda x: cr.flip(x, axis=0), lambda x: x[::2], lambda x: x[:, ::-1],
        lambda x: cr.reshape(cr.matrix_transpose(x), (x.shape[0], x.shape[1])), lambda x: cr.concat([x, x[:1]], axis=0),
        lambda x: cr.pad(x, ((1, 1), (0, 0))), lambda x: cr.take(x, cr.tensor([1, 1, 0]), axis=0),
        lambda x: cr.broadcast_to(x[:1], (4, x.shape[1])), lambda x: cr.tril(x),
        lambda x: cr.stack([x[0], x[2]], axis=0),
    ]  # fmt: skip
    for view in shown:
        agree(lambda x, y, view=view: (view(x) @ y, cr.matrix_transpose(y) @ cr.matrix_transpose(view(x))),  # type: ignore[misc]
              normal(4, 6), normal(6, 5, seed=1), machines=MACHINES[:1])  # fmt: skip
        agree(
            lambda x, y, view=view: y @ view(x),
            normal(4, 6),
            normal(3, view(cr.tensor(normal(4, 6))).shape[0], seed=1),
        )  # type: ignore[misc]
        agree(
            lambda x, w, view=view: F.conv2d(view(x)[None, None], w), normal(4, 6), normal(2, 1, 2, 3, seed=1)
        )  # type: ignore[misc]


@check
def check_one_of_several_results() -> None:
    """Of what a loop over time gives, which NumPy may run, some results only."""
    x = normal(4, 4)
    for body in (
        lambda c, one: (c + one, c * one),
        lambda c, one: (cr.sort(c + one), c),
        lambda c, one: (c, cr.sort(one)),
    ):
        agree(lambda x, body=body: cr.scan(body, x[0], x)[1] * 2.0, x)  # type: ignore[misc]
        agree(lambda x, body=body: cr.scan(body, x[0], x)[0] * 2.0, x)  # type: ignore[misc]
    agree(
        lambda x: (
            cr.scan(lambda c, one: ((c[0] + one, c[1] * 0.5), (c[1], one)), (x[0], x[1]), x)[0][0] - 1.0
        ),
        x,
    )
    agree(
        lambda x: (
            cr.scan(lambda c, one: ((cr.sort(c[0]), c[1] * 0.5), (c[1], one)), (x[0], x[1]), x)[1][0] - 1.0
        ),
        x,
    )


@check
def check_nested_sums_in_blocks() -> None:
    """Sums over more than one block, over very many, with one column, with several loops around, wide rows."""
    cases = [
        # x, weights, how: blocks of the sum are 2, many, more than one loop around a block
        ((1, 60, 9, 9), (6, 60, 3, 3), {}), ((1, 70, 6, 6), (3, 70, 3, 3), {}), ((1, 530, 4, 4), (2, 530, 1, 1), {}),
        ((2, 600, 5, 6), (7, 600, 3, 3), {"padding": 1}), ((1, 1, 70, 70), (2, 1, 64, 64), {}),
        ((1, 3, 40, 40), (1, 3, 33, 31), {"stride": 3}), ((1, 5000, 3, 3), (2, 5000, 1, 1), {}),
    ]  # fmt: skip
    for x, weight, how in cases:
        for dtype in FLOATS:
            agree(
                lambda x, w, how=how: F.conv2d(x, w, **how),  # type: ignore[misc]
                normal(*x, dtype=dtype), normal(*weight, dtype=dtype, seed=1),
                units=64, machines=MACHINES[:1] if x[1] < 100 else (),
            )  # fmt: skip
    narrow = normal(96, 5000, dtype="float32"), normal(5000, 3, dtype="float32", seed=1)
    agree(lambda x, y: x @ y, *narrow, units=64, machines=MACHINES)
    agree(lambda x, y: y.T @ x.T, *narrow, units=64, machines=MACHINES)
    agree(lambda x, y: x @ y, normal(2, 3, 9, 5), normal(2, 3, 5, 4, seed=1), machines=MACHINES)
    agree(lambda x, y: cr.matrix_transpose(x) @ y[0], normal(4, 3, 5, 9), normal(1, 3, 5, 4, seed=1))


@check
def check_false_is_no_true() -> None:
    agree(
        lambda x: (
            cr.logical_or(x > 0, False), cr.logical_xor(x > 0, cr.tensor([True, False, False, True])),
            cr.pad(x > 0, ((1, 1),)), cr.concat([x > 0, cr.zeros((2,), dtype=cr.bool)]), cr.where(x > 1, False, x > 0),
            cr.zeros((4,), dtype=cr.bool) | (x < 0), cr.any(cr.reshape(x > 2, (2, 2)), axis=1), cr.full((3,), False),
            cr.cumulative_sum(cr.astype(x > 0, cr.int32)), cr.tril(cr.reshape(x > 0, (2, 2))),
        ),
        np.array([-1.0, 0.5, 0.0, 3.0]),
    )  # fmt: skip


@check
def check_sums_of_large_images() -> None:
    """Channels innermost, and sums over all else in two steps: a convolution, batch statistics, their gradients."""

    def loss(x: Any, w: Any, v: Any) -> Any:
        hidden = F.conv2d(x, w, padding=1)
        centred = hidden - cr.mean(hidden, axis=(0, 2, 3), keepdims=True)
        scaled = centred / cr.sqrt(cr.mean(centred * centred, axis=(0, 2, 3), keepdims=True) + 1e-5)
        return cr.sum(F.max_pool2d(F.conv2d(cr.relu(scaled), v), 2) ** 2.0)

    def sums(x: Any, w: Any, v: Any) -> Any:
        hidden = F.conv2d(x, w, padding=1)
        return (
            loss(x, w, v), *cr.grad(loss, (0, 1, 2))(x, w, v), cr.sum(hidden, axis=(0, 2, 3)),
            cr.sum(hidden, axis=(0, 3)), cr.mean(cr.permute_dims(hidden, (0, 2, 3, 1)), axis=(0, 1, 2)),
        )  # fmt: skip

    x = normal(6, 3, 20, 20, dtype="float32")
    agree(
        sums,
        x,
        normal(16, 3, 3, 3, dtype="float32", seed=1),
        normal(4, 16, 3, 3, dtype="float32", seed=2),
        units=256,
    )


# ------------------------------------------------------------------------------------------- loops over time


@check
def check_steps_of_rare_kinds() -> None:
    """Bodies that NumPy runs alone, with functions of the C library, with tables, with results that are inputs."""
    x, start = normal(5, 4), normal(4, seed=1)
    bodies = [
        lambda c, one: (cr.sort(c), one),
        lambda c, one: (cr.sort(c + one), c),
        lambda c, one: (cr.tanh(c) * cr.sinh(one), cr.tan(one) + cr.acosh(cr.abs(one) + 1.0) + cr.expm1(c)),
        lambda c, one: (cr.reshape(cr.reshape(c, (2, 2)) @ cr.reshape(one, (2, 2)), (4,)), one),
        lambda c, one: (c + one, c),
        lambda c, one: (one, c),
        lambda c, one: (c, (c, one, c * one)),
        lambda c, one: (c * 0.5, (c * 0.5, c, one)),
        lambda c, one: (cr.where(one > 0, c, cr.tensor([1.0, 2.0, 3.0, 4.0])), cr.tensor([5.0, 6.0])),
    ]
    for body in bodies:
        run = lambda x, start, body=body: (*_leaves(cr.scan(body, start, x)), x * 2.0, start * 2.0)
        agree(run, x, start, units=64)
        with skipped("layout"):
            agree(run, x, start, units=64)


def _leaves(found: Any) -> tuple[Any, ...]:
    if isinstance(found, tuple):
        return tuple(leaf for one in found for leaf in _leaves(one))
    return (found,)


@contextlib.contextmanager
def skipped(*passes: str) -> Any:
    """The compiler without some passes."""
    outer, config.skip = config.skip, frozenset(passes)
    try:
        yield
    finally:
        config.skip = outer


@check
def check_without_passes() -> None:
    """Each pass may be left out, and all of them; a name that none has is refused."""
    from chainrule.compiler import PASSES

    body = lambda c, one: (cr.tanh(c * one), c)
    for some in [*((one,) for one in PASSES), tuple(PASSES)]:
        with skipped(*some):
            agree(
                lambda x, y: (
                    F.softmax(x @ y, axis=1), cr.sort(cr.exp(x)), cr.var(x, axis=0), *_leaves(cr.scan(body, x[0], x)),
                    F.conv2d(x[None, None], y[None, None, :2, :2]), *cr.grad(lambda x, y: cr.sum(cr.relu(x @ y) ** 2.0),
                    (0, 1))(x, y), F.layer_norm(x, (4,)),
                ),
                normal(5, 4), normal(4, 3, seed=1), units=64,
            )  # fmt: skip
    with skipped("merg"):
        refusal(lambda: compile_graph(_graph()), ArgumentError, "got merg")


def _graph() -> Any:
    step = cr.compile(lambda x: cr.exp(x) * 0.75)
    step(cr.tensor(normal(3)))
    return step.graph()


def refusal(function: Any, kind: type[BaseException], words: str) -> None:
    """What a function raises, and what it says."""
    try:
        function()
    except kind as failure:
        assert words in str(failure), failure
    else:
        raise AssertionError(f"not refused: {words}")


@check
def check_values_that_go_round() -> None:
    """Steps that return what they were given, constants, nothing, one thing twice; and repeated in one call."""
    w, other = cr.tensor([1.0, 2.0], requires_grad=True), cr.tensor([3.0])

    def function(x: Any) -> Any:
        with cr.no_grad():
            w.copy_(cr.flip(w) * x)
        y = x * 4.0
        return {
            "none": None, "text": "a", "x": x, "other": other, "number": 3, "same": [y, {"y": y}],
            "twice": [w.detach(), x * 2.0, x * 2.0],
        }  # fmt: skip

    found = []
    for run in (function, cr.compile(function)):
        w.cell.write(np.array([1.0, 2.0], "float32"))
        seen = []
        for k in range(3):
            out = run(cr.tensor([1.5 + k]))
            seen.append([out["none"], out["text"], out["number"], out["x"].tolist(), out["other"].tolist()])
            seen.append([*(one.tolist() for one in out["twice"]), w.tolist()])
            seen.append([out["same"][0] is out["same"][1]["y"], out["same"][0].tolist()])
        found.append(seen)
    assert found[0] == found[1]


@check
def check_gradients_that_are_taken_away() -> None:
    """A step that forgets a gradient which was there before it, with and without having read it."""
    for read in (False, True):
        found = []
        for compiled in (False, True):
            w, v = (cr.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))

            def step(x: Any, w: Any = w, v: Any = v) -> Any:
                total = cr.sum(x * w.detach()) + (cr.sum(w.grad) if read else 0.0)  # noqa: B023
                w.grad = None
                cr.sum(v * x).backward()
                return total

            run = cr.compile(step) if compiled else step
            seen = []
            for k in range(3):
                cr.sum(w * (k + 1.0)).backward()
                seen.append([run(cr.tensor([1.0, 3.0])).item(), w.grad is None, v.grad.tolist()])
            found.append(seen)
        assert found[0] == found[1], found


@check
def check_state_of_another_type() -> None:
    """Buffers and parameters that get another shape or dtype from outside between two calls."""

    class Held(cr.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("held", cr.tensor([1.0, 2.0]))
            self.weight = cr.nn.Parameter(cr.tensor([1.0, 2.0]))

        def __call__(self, x: Any) -> Any:
            return cr.sum(self.held * x) + cr.sum(self.weight * 2.0)

    def wider(model: Any) -> None:
        model.held = cr.tensor([1.0, 2.0, 3.0])

    def double(model: Any) -> None:
        model.held = cr.tensor([1.0, 2.0, 3.0], dtype=cr.float64)

    def fresh(model: Any) -> None:
        model.weight = cr.nn.Parameter(cr.tensor([[4.0, 5.0], [1.0, 0.5]]))

    def rewritten(model: Any) -> None:
        model.held.cell.write(np.array([4.0, 5.0], "float64"))
        model.weight.cell.write(np.array([[1.0], [3.0], [5.0]]))

    found = []
    for compiled in (False, True):
        model = Held()
        run = cr.compile(model) if compiled else model
        seen = []
        for change in (lambda model: None, wider, double, fresh, rewritten, lambda model: None):
            change(model)
            for _ in range(3):
                out = run(cr.tensor(0.5))
                seen.append((out.item(), str(out.dtype)))
        found.append(seen)
    assert found[0] == found[1], found


@check
def check_commits_past_one_another() -> None:
    """Cells that are written in turn, where one is read by the update of another: whichever comes first."""
    x = normal(6)
    at = np.array([1, 2, 0, 0, 3, 3])

    def made() -> tuple[list[Any], list[Any]]:
        p, q, r = (
            cr.tensor(normal(*shape, seed=k), requires_grad=True)
            for k, shape in enumerate([(6,), (2, 6), (6,)])
        )
        return [p, q, r], [
            lambda x, at: r.copy_(r + x),
            lambda x, at: q.copy_(q * 0.5 + p),
            lambda x, at: p.copy_(x * 2.0),
            lambda x, at: r.copy_(cr.take(p, at, axis=0) * x),
            lambda x, at: p.copy_(cr.flip(p) + cr.take(r, at, axis=0)),
        ]

    for order in list(itertools.permutations(range(5), 3))[::2]:
        found = []
        for compiled in (False, True):
            cells, updates = made()

            def step(x: Any, at: Any, some: Any = [updates[k] for k in order]) -> Any:  # noqa: B006
                with cr.no_grad():
                    for update in some:
                        update(x, at)
                return cr.sum(x)

            run = cr.compile(step) if compiled else step
            for _ in range(2):
                run(cr.tensor(x), cr.tensor(at))
            found.append([one.numpy() for one in cells])
        for one, other in zip(*found):
            near(other, one, 4.0, str(order))


# ------------------------------------------------------------------------------------------- what is told of a step


@check
def check_work_that_is_counted() -> None:
    """Operations on floats and bytes: of elementwise loops, products, gathers, NumPy's calls, loops over time."""
    at = np.array([1, 0, 2, 2])

    def counted(function: Any, *arrays: Any) -> list[tuple[Any, ...]]:
        step = cr.compile(function)
        step(*map(cr.tensor, arrays))
        return [tuple(work_of(nest)) for nest in compile_graph(step.graph()).loops.nests]

    x, y = normal(5, 4), normal(4, 3, seed=1)
    assert counted(lambda x: x * 2.0 + 1.0, x) == [(40, 160, 160)]
    assert counted(lambda x, y: x @ y, x, y) == [(2 * 5 * 4 * 3, 8 * (20 + 12), 8 * 15)]
    three = normal(2, 5, 4), normal(2, 4, 3, seed=1)
    assert counted(lambda x, y: x @ y, *three) == [(2 * 2 * 5 * 4 * 3, 8 * 2 * (20 + 12), 8 * 2 * 15)]
    assert counted(lambda x: cr.sum(x, axis=1), x) == [(20, 160, 40)]
    assert counted(lambda x: x[0] + x[1], x) == [(4, 64, 32)]
    assert counted(lambda x, at: cr.take(x, at, axis=0) * 2.0, x, at)[0] == (16, 8 * 16 + 8 * 4, 8 * 16)
    assert counted(lambda x: cr.astype(x, cr.int32) + 1, x) == [(0, 160, 80)]
    assert counted(lambda x: cr.sort(x), x)[0] == (None, 160, 160)
    start = lambda x: x[0] * 0.0 + 1.0
    loop = counted(lambda x: cr.scan(lambda c, one: (c * one + 1.0, c), start(x), x)[1], x)
    assert loop[1] == (5 * 4 * 2, 8 * (4 + 20), 8 * (20 + 8)), loop
    whole = counted(lambda x: cr.scan(lambda c, one: (cr.sort(c), c + one), start(x), x)[1], x)
    assert whole[1][0] is None, whole


@check
def check_what_is_known_says_the_same() -> None:
    """A plan whose code lies on the disk needs and has what the compiler says; what cannot be trusted is not taken."""
    programs = [
        (lambda x: cr.exp(x) * 0.75, normal(6)),
        (lambda x: x @ cr.matrix_transpose(x), normal(300, 40)),
        (lambda x: cr.tanh(cr.sum(x * 0.125, axis=0)), normal(5, 5000, dtype="float32")),
        (lambda x: cr.sinh(x), normal(4)),
    ]
    with place() as folder:
        cr.compile(lambda x: x - 7.25)(cr.tensor(normal(3)))
        stored = [cache.load(one.stem) for one in folder.rglob("*.o")]
        (other,) = (content for content in stored if content and content[:1] != b"{")
    for function, x in programs:
        with place():
            step = cr.compile(function)
            result = step(cr.tensor(x)).numpy()
            again = compile_graph(step.graph())
            assert again.known is not None
            os.environ["CHAINRULE_CACHE"] = "0"
            fresh = compile_graph(step.graph())
            assert fresh.name is None and fresh.known is None
            os.environ["CHAINRULE_CACHE"] = "1"
            assert again.needs == fresh.needs and again.segments == fresh.segments == 1
            assert cache.load(fresh.needs.code) is not None
            machine._natives.clear()
            held = fresh.native(), fresh.native()
            assert [made for _, made in held] == [True, False]
            del held
            cache.store(fresh.needs.code, other)  # code that has no such entry
            machine._natives.clear()
            near(cr.compile(function)(cr.tensor(x)).numpy(), result, 0)
            machine._natives.clear()
            with mock.patch.object(machine, "assemble", side_effect=AssertionError("compiled again")):
                near(cr.compile(function)(cr.tensor(x)).numpy(), result, 0)
    with place():
        good = b'{"entry": "a", "code": "b", "arena": 0, "scratch": 0, "shares": false, "libraries": []}'
        for content, trusted in (
            (good, True), (good.replace(b'"arena": 0', b'"arena": -64'), False), (good[:-1], False),
            (good.replace(b'"scratch": 0', b'"scratch": -1'), False), (good.replace(b"false", b"0"), False),
            (good.replace(b"[]", b'["../x"]'), False), (good.replace(b'"arena": 0', b'"arena": 0.5'), False),
        ):  # fmt: skip
            cache.store("e" * 64, content)
            assert (known.recall("e" * 64) is not None) is trusted, content


@check
def check_long_modules_in_two_parts() -> None:
    """Made in one part, in two by this process, in two by two processes: the same bits."""
    before = entry._MOST_WRITTEN, entry._LEAST_ALIKE, parts._LONG, parts._processors
    cached = os.environ.get("CHAINRULE_CACHE")
    os.environ["CHAINRULE_CACHE"] = "0"
    entry._MOST_WRITTEN, entry._LEAST_ALIKE = 8, 1
    try:
        machine._natives.clear()
        whole, step = test_parts.bits(2)
        parts._LONG = 0
        text = step.stages()["llvm"]
        first, second = parts.cut(text)
        assert test_parts.functions(first) | test_parts.functions(second) == test_parts.functions(text)
        assert 0.2 < len(first) / (len(first) + len(second)) < 0.8
        assert parts.separate(parts.join([b"one", b"", b"three"])) == [b"one", b"", b"three"]
        assert parts.separate(parts.join([b"one"])) == [b"one"]
        for processors, start in (
            (1, parts._start),
            (2, parts._start),
            (2, test_parts.Lost("cannot be started")),
        ):
            parts._processors, parts._start = lambda count=processors: count, start
            machine._natives.clear()
            assert test_parts.bits(2)[0] == whole, processors
    finally:
        parts._start = subprocess.Popen
        entry._MOST_WRITTEN, entry._LEAST_ALIKE, parts._LONG, parts._processors = before
        os.environ.pop("CHAINRULE_CACHE")
        if cached is not None:
            os.environ["CHAINRULE_CACHE"] = cached


@check
def check_rules_of_others_have_no_name() -> None:
    """Code is known by the sources of this package: a rule that was written elsewhere is compiled anew."""
    assert known._is_known_room("chainrule.ops.matmul") and known._is_known_room("chainrule.compiler.loops")
    for room in ("zoo", "chainrule_zoo.ops.x", "chainrule.zoo.animals", "", "chainrule.nn.linear"):
        assert not known._is_known_room(room), room
    from chainrule.operations import OPERATIONS
    from chainrule.ops.lowering import Scalar

    exp = OPERATIONS["exp"]
    with place():
        assert known._of_this_package(exp, exp.lowering)
        foreign = Scalar(lambda builder, x: x)
        assert not known._of_this_package(exp, foreign)


@check
def check_folders_of_the_cache() -> None:
    """A relative folder is told of once and not used; looking does not make a folder."""
    with place() as base:
        os.environ["CHAINRULE_CACHE_DIR"] = str(base / "deep" / "er")
        assert cache.load("a" * 64) is None and not (base / "deep").exists()
        cache.store("a" * 64, b"code")
        assert cache.load("a" * 64) == b"code"
        os.environ["CHAINRULE_CACHE_DIR"] = "somewhere/else"
        cache._REPORTED.discard("somewhere/else")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(3):
                cache.folder()
        assert [str(one.message).count("must be an absolute path") for one in told] == [1]
        assert not Path("somewhere").exists()


@check
def check_what_has_no_machine_code() -> None:
    """If NumPy may not help, the step is refused with the operation; a function that no library has is, too."""
    outer, config.forbid_interpreter = config.forbid_interpreter, True
    try:
        refusal(
            lambda: cr.compile(lambda x: cr.sort(x))(cr.tensor(normal(3))), CompileError, "sort of float64[3]"
        )
        assert cr.compile(lambda x: x * 2.0)(cr.tensor([1.0])).tolist() == [2.0]
    finally:
        config.forbid_interpreter = outer
    refusal(lambda: machine._bind("no_such_function"), CompileError, "has no no_such_function")
    assert any(hasattr(one, "expm1") for one in machine._c_library())


@check
def check_stretches_that_overlap_are_not_shared() -> None:
    """Threads take turns of a loop only if each of them has memory of its own."""
    outer, inner = Variable("i", 100), Variable("j", 3)
    out = Buffer("out", Type((400,), np.dtype("float64")), "arena", 0)
    one = ir.Value("one", "constant", np.dtype("float64"), (), 1.0)
    for step, wide, own in (
        (3, 1, True),
        (2, 1, False),
        (1, 1, False),
        (4, 1, True),
        (0, 1, False),
        (3, 2, False),
    ):
        at = Index.of(outer) * step + Index.of(inner) * wide
        nest = ir.Nest("test", [ir.For(outer, [ir.For(inner, [ir.Store(out, at, one)])])])
        assert (ir.outer_loop(nest) is not None) is own, (step, wide)


# ------------------------------------------------------------------------------------------- processors and threads


@check
def check_limits_of_containers() -> None:
    """The processors that a container's groups grant, in both versions; nonsense limits nothing."""
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cases: list[tuple[dict[str, str], int]] = [
        ({}, every),
        ({"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, every),
        ({"sys/fs/cgroup/cpu.max": "100000 0\n"}, every),
        ({"sys/fs/cgroup/cpu.max": "0 100000\n"}, every),
        ({"sys/fs/cgroup/cpu.max": "nonsense\n"}, every),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/../a\n", "sys/fs/cgroup/a/b/cpu.max": "100000 100000\n"}, every),
        ({"proc/self/cgroup": "7:memory:/a\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, every),
        ({"proc/self/cgroup": "4:cpu,cpuacct:/a:b\n", "sys/fs/cgroup/cpu/a:b/cpu.cfs_quota_us": "100000\n",
          "sys/fs/cgroup/cpu/a:b/cpu.cfs_period_us": "100000\n"}, 1),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, every),
        ({"proc/self/cgroup": "one\n\n"}, every),
    ]  # fmt: skip
    for files, wanted in cases:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / name).write_text(text, encoding="utf-8")
            assert threads.usable_cpus(folder) == wanted, files


@check
def check_threads_that_are_asked_for() -> None:
    """The number that was set, else the environment's, else the machine's."""
    outer = os.environ.get("CHAINRULE_NUM_THREADS"), threads._wanted, threads._default
    try:
        for number in (1, 3, 7):
            threads._wanted = threads._default = None
            os.environ["CHAINRULE_NUM_THREADS"] = str(number)
            assert cr.get_num_threads() == number
        threads._default = None
        os.environ["CHAINRULE_NUM_THREADS"] = "none"
        refusal(cr.get_num_threads, ArgumentError, "none")
        del os.environ["CHAINRULE_NUM_THREADS"]
        threads._default = None
        assert cr.get_num_threads() == threads.usable_cpus()
    finally:
        name, threads._wanted, threads._default = outer
        os.environ.pop("CHAINRULE_NUM_THREADS", None)
        if name is not None:
            os.environ["CHAINRULE_NUM_THREADS"] = name


@check
def check_names_in_what_is_refused() -> None:
    """A refused step calls its state by the names that the user gave."""

    class Scale(cr.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = cr.nn.Parameter(cr.tensor([np.nan, 2.0]))

        def __call__(self, x: Any) -> Any:
            return x / self.factor

    model = Scale()

    def step(x: Any) -> Any:
        loss = cr.sum(model(x))
        loss.backward()
        return loss

    outer, config.check_finite = config.check_finite, True
    try:
        for run in (cr.compile(step),):
            for _ in range(2):
                refusal(lambda run=run: run(cr.tensor([1.0, 1.0])), ChainruleError, "comes from factor:")  # type: ignore[misc]
    finally:
        config.check_finite = outer
