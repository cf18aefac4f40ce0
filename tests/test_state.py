"""What surrounds a compiled step: whatever it reads is noticed, whatever it writes is written, or it says why not."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import queue
import random
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
import state_idioms
import state_idioms_of_classes  # noqa: F401 - adds its own to the list
import state_idioms_of_gradients  # noqa: F401
import state_idioms_of_networks  # noqa: F401
import state_idioms_of_python  # noqa: F401
import state_idioms_outside  # noqa: F401
import stateful_programs


@pytest.mark.parametrize("name", state_idioms.IDIOMS)
def test_state_and_settings_around_a_step(name: str) -> None:
    answer = state_idioms.outcome(name)
    assert answer in state_idioms.IDIOMS[name].answers, answer


@pytest.mark.parametrize("first", range(0, 500, 10))
def test_random_programs_that_keep_state(first: int) -> None:
    answers = {seed: stateful_programs.check(seed) for seed in range(first, first + 10)}
    assert {seed: one for seed, one in answers.items() if one not in ("equal", "refused")} == {}


@pytest.mark.parametrize("first", range(0, 48, 6))
def test_random_steps_that_share_their_state(first: int) -> None:
    answers = {seed: stateful_programs.check_together(3 * seed) for seed in range(first, first + 6)}
    assert {seed: one for seed, one in answers.items() if one not in ("equal", "refused")} == {}


def test_numbers_that_change_become_inputs() -> None:
    class Trainer:
        rate = 1.0

        def step(self, x: cr.Tensor, scale: float) -> cr.Tensor:
            return x * scale * self.rate

    trainer = Trainer()
    step = cr.compile(trainer.step)
    x = cr.ones(2)
    for k in range(6):
        trainer.rate = 1.0 + k
        assert step(x, 0.5 * k).tolist() == [0.5 * k * (1.0 + k)] * 2
    assert len(step.recompiles) == 1 and len(step._programs) == 2
    assert step(x, 2).dtype == cr.float32


def test_numbers_that_decide_the_graph_are_told_once() -> None:
    step = cr.compile(lambda x, n: x.reshape((n, -1)).sum(axis=0))
    x = cr.arange(5040, dtype=cr.float32)
    with pytest.warns(cr.RecompileWarning, match=r"8 times more because of argument n .*pass a tensor"):
        for n in range(1, 11):
            assert step(x, n).shape == (5040 // n,) if 5040 % n == 0 else True
    shapes = cr.compile(lambda x: x * 2.0)
    with pytest.warns(cr.RecompileWarning, match=r"argument x .*bucket_by_length"):
        for n in range(1, 11):
            shapes(cr.ones(n))


def test_whole_numbers_keep_what_python_makes_of_them() -> None:
    step = cr.compile(lambda x, n: (x * (n // 3), n % 5, n / 4, n * 2 - 1, -n, abs(n), n > 3))
    for n in (7, 8, -9, 10):
        result = step(cr.ones(1), n)
        assert list(result[1:]) == [n % 5, n / 4, n * 2 - 1, -n, abs(n), n > 3]
        assert [type(one) for one in result[1:]] == [int, float, int, int, int, bool]
        assert result[0].tolist() == [float(n // 3)]
    with pytest.raises(ZeroDivisionError):
        cr.compile(lambda x, n: x / (1 / n))(cr.ones(1), 0)


def test_numbers_of_a_call_make_tensors() -> None:
    def step(x: cr.Tensor, n: float) -> Any:
        return (
            cr.tensor(n) * x,
            cr.full((2,), n),
            cr.asarray(x.sum().item()),
            cr.where(x > 0, n, 0.0),
            cr.maximum(x, n),
        )

    compiled = cr.compile(step)
    for n in (1.5, 2.5, 3.5):
        for one, other in zip(compiled(cr.ones(2), n), step(cr.ones(2), n)):
            assert one.tolist() == other.tolist() and one.dtype == other.dtype
    assert len(compiled.recompiles) == 1


def test_what_is_printed_appears_after_the_call(capsys: pytest.CaptureFixture[str]) -> None:
    @cr.compile
    def step(x: cr.Tensor) -> cr.Tensor:
        loss = (x * x).sum()
        print("loss", loss.item(), f"{loss:.2f}", sep=" | ")
        return loss

    for k in (1.0, 2.0):
        step(cr.tensor([k]))
    assert capsys.readouterr().out == "loss | 1.0 | 1.00\nloss | 4.0 | 4.00\n"


def test_assertions_are_checks() -> None:
    space: dict[str, object] = {"cr": cr, "kept": []}
    exec(  # pytest would rewrite an assert that stands here
        "def step(x):\n    kept.append(x.sum().item())\n    assert (x > 0).all(), 'positive'\n    return x\n",
        space,
    )
    step = cr.compile(space["step"])  # type: ignore[arg-type]
    step(cr.ones(2))
    with pytest.raises(AssertionError, match="must hold"):
        step(cr.tensor([1.0, -1.0]))
    assert space["kept"] == [2.0], "a step whose check fails has changed nothing"


def test_a_step_that_is_no_graph_runs_in_segments() -> None:
    results = []
    for compiled in (False, True):
        random = np.random.default_rng(0)
        w = cr.tensor([[1.0, -2.0], [0.5, 1.0]], requires_grad=True)
        log: list[float] = []

        def step(x: cr.Tensor, random=random, w=w, log=log) -> cr.Tensor:
            y = (x + cr.tensor(random.normal(size=2))) @ w.astype(cr.float64)
            if y.sum() > 0.5:
                y = y * 2.0
            loss = (y[y > 0] ** 2).sum() + y.sum()
            log.append(float(loss))
            loss.backward()
            with cr.no_grad():
                w.copy_(w - 0.1 * w.grad)
            w.grad = None
            return loss

        run = cr.compile(step, fallback=True) if compiled else step
        results.append(
            ([run(cr.tensor([k, 1.0], dtype=cr.float64)).item() for k in range(5)], log, w.tolist())
        )
        if compiled:
            assert "test_state.py:" in run.fallback_reason and run._segmented.segments > 0
    assert results[0][0] == pytest.approx(results[1][0])
    assert results[0][1] == pytest.approx(results[1][1])
    np.testing.assert_allclose(results[0][2], results[1][2], rtol=1e-6)


class TestWhatCannotBePutBack:
    """With `fallback=True` Python runs again what the attempt to record has run: only what can be put back."""

    @pytest.mark.parametrize("kind", ["iterator", "generator", "queue"])
    def test_is_an_error_with_its_line(self, kind: str) -> None:
        numbers, waiting = itertools.count(), queue.SimpleQueue[int]()
        for k in range(5):
            waiting.put(k)
        made = (k for k in range(5))
        take = {"iterator": lambda: next(numbers), "generator": lambda: next(made), "queue": waiting.get}[
            kind
        ]

        @cr.compile(fallback=True)
        def step(x: cr.Tensor) -> cr.Tensor:
            return x * take()

        with pytest.raises(cr.TraceError, match=r"test_state.py:\d+"):
            step(cr.ones(1))

    def test_random_numbers_are_put_back(self) -> None:
        found = []
        for compiled in (False, True):
            random.seed(0)
            np.random.seed(0)
            own = np.random.default_rng(0)

            def step(x: cr.Tensor, own: Any = own) -> cr.Tensor:
                return x * random.random() + float(np.random.rand()) + own.random()

            run = cr.compile(step, fallback=True) if compiled else step
            found.append([run(cr.ones(1)).item() for _ in range(3)])
        assert found[0] == found[1]


def test_a_result_kept_with_its_history_is_refused() -> None:
    w = cr.tensor([2.0], requires_grad=True)
    kept: list[cr.Tensor] = [cr.zeros(1)]

    def step(x: cr.Tensor) -> cr.Tensor:
        kept[0] = kept[0] * 0.5 + w * x
        kept[0].sum().backward()
        return kept[0]

    compiled = cr.compile(step)
    compiled(cr.ones(1))
    words = r"kept\[0\], which an earlier call has computed.*detach.*test_state.py:\d+"
    with pytest.raises(cr.TraceError, match=words):
        compiled(cr.ones(1))


def test_arguments_with_a_history_are_refused_also_by_a_program_that_is_there() -> None:
    w, leaf = cr.tensor([1.0], requires_grad=True), cr.tensor([2.0], requires_grad=True)
    step = cr.compile(lambda x: (w * x).sum())
    step(cr.ones(1))
    with pytest.raises(cr.GradientError, match=r"pass x.detach\(\)"):
        step(leaf * 2.0)


# --------------------------------------------------------------------------------------- what is handed in


@dataclasses.dataclass
class Counted:
    """A dataclass that does something when it is made."""

    x: Any
    made: int = dataclasses.field(init=False, default=3)

    def __post_init__(self) -> None:
        self.made += 1


def in_place_on_an_array(a):
    a += 1.0
    return cr.asarray(a).sum()


def one_tensor_twice(x, y):
    x += 1.0
    return x + y


def a_leaf_of_an_argument(x):
    x.requires_grad_()
    (x**3).sum().backward()
    return x.grad


def gradients_of_gradients_and_backward(x):
    w = x.detach()
    w.requires_grad_()
    (w**3).sum().backward(create_graph=True)
    slope, w.grad = w.grad, None
    (slope**2).sum().backward()
    return w.grad


def rows_columns_and_masks(x, mask, columns):
    y = x * 1.0
    y[mask] = 0.0
    picked = x[cr.arange(2), columns]
    y[y < 0] = 1.0
    return y, picked


def a_list_that_is_changed(items):
    items[0] = items[0] * 2.0
    items.append(items[0] + 1.0)
    return items[-1]


ARGUMENTS: dict[Any, Callable[[int], tuple[Any, ...]]] = {
    in_place_on_an_array: lambda k: (np.full(2, k, "float32"),),
    one_tensor_twice: lambda k: (cr.ones(2) * k,) * 2,
    a_leaf_of_an_argument: lambda k: (cr.tensor([1.0, 2.0]) * (k + 1.0),),
    gradients_of_gradients_and_backward: lambda k: (cr.tensor([1.0, 2.0]) * (k + 1.0),),
    rows_columns_and_masks: lambda k: (
        cr.tensor([[1.0, -2.0], [3.0, -4.0]]) * (k + 1.0),
        cr.tensor([[True, False], [k > 1, False]]),
        cr.tensor([k % 2, 1]),
    ),
    a_list_that_is_changed: lambda k: ([cr.ones(2) * k],),
    (lambda counted: counted.x * counted.made): lambda k: (Counted(cr.ones(2) * k),),
}


@pytest.mark.parametrize("function", ARGUMENTS, ids=lambda one: one.__name__)
def test_arguments_are_what_they_are_in_python(function: Any) -> None:
    seen: list[Any] = []
    for run in (function, cr.compile(function)):
        seen.append([])
        for k in range(4):
            given = ARGUMENTS[function](k)
            result = run(*given)
            parts = result if isinstance(result, tuple) else (result,)
            seen[-1].append([one.tolist() for one in parts])
            seen[-1].append(stateful_programs.describe(list(given), {}, {}))
    assert stateful_programs.same(*seen), stateful_programs.differ(*seen)


def test_copies_of_a_compiled_step_compile_anew() -> None:
    step = cr.compile(lambda x: x * 2.0)
    assert (
        step(cr.ones(1)).item()
        == copy.deepcopy(step)(cr.ones(1)).item()
        == copy.copy(step)(cr.ones(1)).item()
    )


def test_a_failing_step_puts_everything_back() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.v, self.n, self.log, self.seen = cr.zeros(1), 0, [1.0], {"a": cr.ones(1)}

        def step(self, x: cr.Tensor) -> cr.Tensor:
            self.v = self.v + x
            self.n += 1
            self.log.append(x.sum().item())
            self.seen["b"] = x
            self.extra = 1
            raise KeyError("mine")

    trainer = Trainer()
    before = stateful_programs.describe(trainer, {}, {})
    with pytest.raises(KeyError, match="mine"):
        cr.compile(trainer.step)(cr.ones(1))
    assert stateful_programs.describe(trainer, {}, {}) == before


def test_a_long_chain_of_objects_is_looked_at_to_its_end() -> None:
    class Link:
        def __init__(self, following: Any) -> None:
            self.following, self.k = following, 1.0

    last = Link(None)
    first = last
    for _ in range(500):
        first = Link(first)

    def step(x: cr.Tensor) -> cr.Tensor:
        link = first
        while link.following is not None:
            link = link.following
        return x * link.k

    compiled = cr.compile(step)
    for last.k in (1.0, 2.0, 3.0):
        assert compiled(cr.ones(1)).item() == last.k


def test_gradients_of_what_is_returned_and_kept() -> None:
    """What is kept has its gradient, wherever else it goes; what is only returned says that it has none."""
    w = cr.tensor([1.0, 2.0], requires_grad=True)

    class Box:
        kept: Any = None
        nested: Any = None

    def make(box: Box) -> Any:
        def step(x: Any) -> Any:
            h = x * w
            box.nested = {"h": [h]}
            square = box.kept = h * h
            loss = square.sum()
            loss.backward()
            return box.nested, square, loss, h.grad

        return step

    plain, compiled = Box(), Box()
    eager, native = make(plain), cr.compile(make(compiled))
    for _ in range(3):
        wanted, got = eager(cr.ones(2)), native(cr.ones(2))
        assert got[0] is compiled.nested and got[1] is compiled.kept
        for one, other in ((wanted[0]["h"][0], got[0]["h"][0]), (wanted[1], got[1])):
            assert one.grad.tolist() == other.grad.tolist()
        assert wanted[3].tolist() == got[3].tolist()
        with pytest.raises(cr.GradientError, match=r"return y, y\.grad"):
            _ = got[2].grad
        got[2].grad = None
        assert got[2].grad is None


ONE_TENSOR = """
def step(x):
    {places}.t = {table}[0]
    {places}.t += 1.0
    return x + {table}[0]
"""


@pytest.mark.parametrize("places, table", [("a", "z"), ("z", "a")])
def test_what_must_stay_one_is_compared_in_any_order_of_names(places: str, table: str) -> None:
    """Two places held one tensor when the step was recorded; one of them holds another tensor later."""

    def run(compiled: bool) -> list[Any]:
        module = types.ModuleType("one_tensor")
        space: dict[str, Any] = vars(module)
        owner, held = space[places], space[table] = types.SimpleNamespace(t=cr.zeros(2)), [cr.ones(2)]
        exec(compile(ONE_TENSOR.format(places=places, table=table), "<one tensor>", "exec"), space)
        function = cr.compile(space["step"]) if compiled else space["step"]
        seen: list[Any] = []
        for call in range(6):
            seen.append(function(cr.zeros(2)).tolist())
            if call == 2:
                owner.t = cr.ones(2) * 5.0
            if call == 3:
                owner.t = held[0]
            seen.append((held[0].tolist(), owner.t.tolist(), held[0] is owner.t))
        return seen

    assert run(True) == run(False)
