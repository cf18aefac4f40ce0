"""What a compiled step notices between its calls: three steps equal eager after every change, which is named."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim
from chainrule.structure import bump_structure, changes_since, structure_version


class World:
    """A model, its optimizer and its step, made twice: once compiled, once eager."""

    def __init__(self, compiled: bool) -> None:
        cr.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(8, 16, bias=False), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.25), nn.Linear(16, 3)
        )
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.01)
        self.scheduler = optim.lr_scheduler.ExponentialLR(self.optimizer, gamma=0.5)
        self.weights: Any = None
        self.step = cr.compile(self.learn) if compiled else self.learn

    def learn(self, x: cr.Tensor, y: cr.Tensor) -> cr.Tensor:
        loss = F.cross_entropy(self.model(x), y, weight=self.weights)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss


def batch(rows: int = 32) -> tuple[cr.Tensor, cr.Tensor]:
    random = np.random.default_rng(rows)
    return cr.tensor(random.normal(size=(rows, 8)).astype("float32")), cr.tensor(random.integers(0, 3, rows))


def three_steps(fast: World, slow: World, rows: int = 32, seed: int = 1) -> None:
    """The same losses and, in the end, the same state."""
    x, y = batch(rows)
    found = []
    for world in (fast, slow):
        cr.manual_seed(seed)
        found.append([world.step(x, y).item() for _ in range(3)])
    assert found[0] == pytest.approx(found[1], abs=2e-4)
    for (name, one), other in zip(fast.model.state_dict().items(), slow.model.state_dict().values()):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=2e-3, err_msg=name)


def swap(world: World) -> None:
    cr.manual_seed(9)
    world.model[4] = nn.Linear(16, 3)
    world.optimizer = optim.SGD(world.model.parameters(), lr=0.1)


def freeze(world: World) -> None:
    world.model[0].weight.requires_grad = False


def other_weights(world: World) -> None:
    world.weights = cr.tensor([1.0, 2.0, 3.0])


CHANGES: dict[str, tuple[Callable[[World], Any], str | None]] = {
    "a scheduler": (lambda world: world.scheduler.step(), None),
    "a learning rate": (lambda world: world.optimizer.param_groups[0].update({"lr": 0.002}), None),
    "a swapped layer": (swap, "4: another Linear"),
    "a frozen parameter": (freeze, "0.weight.requires_grad: True → False"),
    "eval": (lambda world: world.model.eval(), "Sequential.training: True → False"),
    "class weights": (other_weights, "self.weights: None → "),
    "weight decay": (
        lambda world: world.optimizer.param_groups[0].update({"weight_decay": 0.1}),
        "weight_decay in use: False → True",
    ),
    "another optimizer": (
        lambda world: setattr(world, "optimizer", optim.SGD(world.model.parameters(), lr=0.1)),
        "self.optimizer: ",
    ),
    "a dropout rate": (lambda world: setattr(world.model[3], "p", 0.5), "3.p: 0.25 → 0.5"),
    "a removed layer": (lambda world: setattr(world.model, "3", nn.Identity()), "3: Dropout → Identity"),
    "a hook": (
        lambda world: world.model[0].register_forward_hook(lambda m, i, o: o * 2.0),
        "hook <lambda>: False → True",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_three_steps_equal_eager_after_every_change(name: str) -> None:
    change, reason = CHANGES[name]
    fast, slow = World(True), World(False)
    three_steps(fast, slow)
    assert fast.step.recompiles == []
    for world in (fast, slow):
        change(world)
    three_steps(fast, slow, seed=2)
    if reason is None:
        assert fast.step.recompiles == [], "this is an input, it needs no new trace"
    else:
        assert len(fast.step.recompiles) == 1, fast.step.recompiles
        assert reason in fast.step.recompiles[0], fast.step.recompiles
    three_steps(fast, slow, seed=3)
    assert len(fast.step.recompiles) == (reason is not None)


def test_another_seed_is_no_other_program() -> None:
    fast, slow = World(True), World(False)
    for seed in (1, 2, 3):
        three_steps(fast, slow, seed=seed)
    assert fast.step.recompiles == [] and len(fast.step._programs) == 1


def test_a_retrace_is_listed_although_the_machine_code_is_known() -> None:
    """The same text was compiled before, by another step or another process."""
    first, second = World(True), World(True)
    x, y = batch()
    for world in (first, second):
        world.step(x, y)
        freeze(world)
        world.step(x, y)
    assert second.step.recompiles == first.step.recompiles == ["0.weight.requires_grad: True → False"]
    assert not second.step._last.compiled_now


def test_back_to_what_it_was_finds_the_first_program() -> None:
    """train → eval → train, freeze → unfreeze, a hook put on and taken away: nothing is traced a third time."""
    fast, slow = World(True), World(False)
    three_steps(fast, slow)
    first = fast.step._last
    there_and_back: list[tuple[Callable[[World], Any], Callable[[World], Any]]] = [
        (lambda world: world.model.eval(), lambda world: world.model.train()),
        (freeze, lambda world: world.model[0].weight.requires_grad_(True)),
    ]
    for there, back in there_and_back:
        for round_ in range(2):
            for change in (there, back):
                for world in (fast, slow):
                    change(world)
                three_steps(fast, slow, seed=5)
            assert fast.step._last is first
            del round_
    assert len(fast.step.recompiles) == 2 and len(fast.step._programs) == 3
    handle = fast.model[0].register_forward_hook(lambda m, i, o: o)
    handle.remove()
    fast.step(*batch())
    assert fast.step._last is first and len(fast.step.recompiles) == 2


def test_other_models_are_nothing_to_a_step() -> None:
    world = World(True)
    world.step(*batch())
    for _ in range(3):
        other = World(True)
        other.step(*batch())
    assert world.step(*batch()) is not None and world.step.recompiles == []


def test_programs_of_what_was_swapped_out_go() -> None:
    world = World(True)
    world.step(*batch())
    first = weakref.ref(world.step._last)
    old = weakref.ref(world.model[4])
    swap(world)
    world.step(*batch())
    gc.collect()
    assert first() is None and old() is None, "neither the program nor the journal holds the old layer"


def test_a_new_shape_says_which_argument() -> None:
    fast, slow = World(True), World(False)
    three_steps(fast, slow)
    three_steps(fast, slow, rows=8)
    assert fast.step.recompiles == [
        "argument x: float32[32, 8] → float32[8, 8]; argument y: int64[32] → int64[8]"
    ]
    three_steps(fast, slow)
    assert len(fast.step.recompiles) == 1


def test_many_causes_are_cut_short() -> None:
    world = World(True)
    world.step(*batch())
    for layer in world.model:
        layer.note = 1
    world.step(*batch())
    assert (
        world.step.recompiles[0].endswith("and 1 more") and "0.note: nothing → 1" in world.step.recompiles[0]
    )


def test_a_program_that_was_dropped_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cr.runtime.compiled, "_MOST_PROGRAMS", 1)
    step = cr.compile(lambda x: x * 2.0)
    for size in (1, 2, 1):
        step(cr.ones(size))
    assert step.recompiles == ["argument x: float32[1] → float32[2]", "argument x: float32[2] → float32[1]"]
    assert len(step._programs) == 1


def test_the_list_of_reasons_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cr.runtime.compiled, "_MOST_REASONS", 3)
    step = cr.compile(lambda x, n: x * float(n))
    for n in range(6):
        step(cr.ones(1), n)
    assert step.recompiles == [f"argument n: {n} → {n + 1}" for n in (2, 3, 4)]


# ------------------------------------------------------------------------------------- kinds of steps


def both(
    make: Callable[[], tuple[Callable[..., Any], Callable[[], list[Any]]]], *calls: tuple[Any, ...]
) -> Any:
    """Run the calls of a step compiled and eagerly; results and state must agree. The compiled function."""
    cr.manual_seed(0)
    function, fast = make()
    compiled = cr.compile(function)
    cr.manual_seed(4)
    got = [compiled(*call) for call in calls]
    cr.manual_seed(0)
    plain, slow = make()
    cr.manual_seed(4)
    cr.config.compile = False
    try:
        wanted = [plain(*call) for call in calls]
    finally:
        cr.config.compile = True
    for one, other in zip(got, wanted):
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), atol=2e-5)
    for one, other in zip(fast(), slow(), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=2e-5)
    return compiled


def numbers(*modules: nn.Module) -> list[Any]:
    return [value.numpy() for module in modules for value in module.state_dict().values()]


def test_gradient_accumulation() -> None:
    def make() -> Any:
        model = nn.Linear(8, 3)
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any, y: Any, update: bool) -> Any:
            loss = F.cross_entropy(model(x), y) / 2.0
            loss.backward()
            if update:
                optimizer.step()
                optimizer.zero_grad()
            return loss

        return step, lambda: numbers(model)

    x, y = batch()
    compiled = both(make, *[(x, y, k % 2 == 1) for k in range(6)])
    assert len(compiled._programs) == 2
    (reason,) = compiled.recompiles
    assert set(reason.split("; ")) == {
        "argument update: False → True", "weight.grad: None → a gradient", "bias.grad: None → a gradient",
    }  # fmt: skip


def test_several_micro_batches_in_one_step() -> None:
    def make() -> Any:
        model = nn.Linear(8, 3)
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any, y: Any) -> Any:
            total = 0.0
            for part in range(4):
                loss = F.cross_entropy(model(x[part * 8 : part * 8 + 8]), y[part * 8 : part * 8 + 8]) / 4.0
                loss.backward()
                total = total + loss
            optimizer.step()
            optimizer.zero_grad()
            return total

        return step, lambda: numbers(model)

    assert both(make, *[batch()] * 4).recompiles == []


def test_clipping() -> None:
    def make() -> Any:
        model = nn.Linear(8, 3)
        optimizer = optim.SGD(model.parameters(), lr=0.5)

        def step(x: Any, y: Any) -> Any:
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
            return cr.stack([loss, norm])

        return step, lambda: numbers(model)

    both(make, *[batch()] * 4)


def test_several_losses_and_optimizers() -> None:
    def make() -> Any:
        body, head, critic = nn.Linear(8, 6), nn.Linear(6, 3), nn.Linear(6, 1)
        first = optim.Adam([*body.parameters(), *head.parameters()], lr=0.01)
        second = optim.SGD(critic.parameters(), lr=0.1, momentum=0.9)

        def step(x: Any, y: Any) -> Any:
            features = cr.tanh(body(x))
            loss = F.cross_entropy(head(features), y)
            loss.backward()
            first.step()
            first.zero_grad()
            other = (critic(features.detach()) ** 2).mean()
            other.backward()
            second.step()
            second.zero_grad()
            return cr.stack([loss, other])

        return step, lambda: numbers(body, head, critic)

    assert len(both(make, *[batch()] * 5)._programs) == 1


def test_nested_compiled_calls() -> None:
    def make() -> Any:
        model = nn.Linear(8, 3)
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        forward = cr.compile(lambda x: cr.tanh(model(x)))

        def step(x: Any, y: Any) -> Any:
            loss = F.cross_entropy(forward(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss + 0.0 * cr.compile(lambda v: v.sum())(forward(x))

        return step, lambda: numbers(model)

    both(make, *[batch()] * 3)


def test_inference_and_running_statistics() -> None:
    def make() -> Any:
        learning = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        resting = nn.Sequential(*learning)

        def step(x: Any, training: bool) -> Any:
            with cr.no_grad():
                return learning(x) if training else resting(x)

        return step, lambda: numbers(learning)

    x, _ = batch()
    compiled = both(make, (x, True), (x, True), (x, False), (x, True), (x, False), (x, False))
    assert compiled.recompiles == ["argument training: True → False"]


def test_functions_of_derivatives() -> None:
    def make() -> Any:
        w = cr.tensor(np.linspace(-1, 1, 8))

        def step(x: Any) -> Any:
            loss = lambda v: (cr.tanh(x @ v) ** 2).sum()
            value, slope = cr.value_and_grad(loss)(w)
            curvature = cr.hessian(loss)(w) @ slope
            bent = cr.jacobian(lambda v: cr.sin(v))(w).sum(axis=0)
            return cr.concat([value.reshape(1), slope, bent, curvature])

        return step, lambda: [w.numpy()]

    x = cr.astype(batch()[0], cr.float64)
    both(make, (x,), (x,))


RATE = 0.5


def test_numbers_of_closures_and_globals_that_change(monkeypatch: pytest.MonkeyPatch) -> None:
    factor, table = 2.0, {"shift": [1.0, 2.0]}

    def scaled(x: Any) -> Any:
        return x * RATE * factor + table["shift"][1]

    step = cr.compile(scaled)
    for change in (
        lambda: None,
        lambda: monkeypatch.setitem(globals(), "RATE", 0.25),
        lambda: table["shift"].__setitem__(1, 5.0),
    ):
        change()
        for _ in range(3):
            assert step(cr.tensor([1.0, 2.0])).tolist() == scaled(cr.tensor([1.0, 2.0])).tolist()
    factor = 4.0
    for _ in range(3):
        assert step(cr.tensor([1.0])).tolist() == scaled(cr.tensor([1.0])).tolist()
    first, second, third = step.recompiles
    assert first == "RATE: 0.5 → 0.25" and "table" in second and "factor: 2.0 → 4.0" in third


# ---------------------------------------------------------------------------------------- the journal


def test_the_journal_of_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    owner, other = nn.Module(), nn.Module()
    start = structure_version()
    assert changes_since(start) == []
    owner.size = 3
    assert changes_since(start) == ["Module.size: nothing → 3"]
    middle = structure_version()
    owner.size = 4
    owner.size = 5
    assert changes_since(middle) == ["Module.size: 3 → 5"]
    owner.size = 3
    assert changes_since(middle) == []
    owner.size = 3.0
    assert changes_since(middle) == ["Module.size: 3 → 3.0"], "an equal number of another type is another one"
    owner.size = 3
    owner.list = []
    same = structure_version()
    owner.list = owner.list
    assert changes_since(same) == ["Module.list: another list"], "what cannot be told apart counts as changed"
    owner.part = other
    held = structure_version()
    owner.part = nn.Module()
    assert changes_since(held) == ["Module.part: another Module"]
    owner.part = other
    assert changes_since(held) == []
    del owner.part
    assert changes_since(held) == ["Module.part: Module → nothing"]
    owner.text = "x" * 100
    assert len(changes_since(held)[1]) < 70
    new = structure_version()
    third = nn.Module()
    third.size = 1
    assert changes_since(new) == [], "what is new matters only where it is named"
    bump_structure(name="something was loaded")
    assert changes_since(new) == ["something was loaded"]
    bump_structure()
    assert changes_since(new)[1] == "an attribute of a module or an optimizer was written"
    for _ in range(5000):
        owner.size = 1
    assert changes_since(new) is None, "too long ago"
    assert changes_since(structure_version()) == []


def test_a_program_older_than_the_journal_is_traced_again() -> None:
    world = World(True)
    world.step(*batch())
    for _ in range(5000):
        world.model.note = 1
    world.step(*batch())
    assert world.step.recompiles == ["attributes of modules or optimizers were written"]
