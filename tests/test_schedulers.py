"""Schedulers: PyTorch's numbers, states that continue bit for bit, no recompilation, faults in words."""

import json
import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import optim
from chainrule.errors import ArgumentError, MissingNameError, TraceError
from chainrule.optim import lr_scheduler

STEPS = 40


def sequential(module, optimizer):
    warm_up = module.LinearLR(optimizer, start_factor=0.1, total_iters=5)
    descent = module.CosineAnnealingLR(optimizer, T_max=20)
    rest = module.StepLR(optimizer, step_size=4)
    return module.SequentialLR(optimizer, [warm_up, descent, rest], milestones=[5, 25])


def one_cycle_after_constant(module, optimizer):
    first = module.ConstantLR(optimizer, factor=0.25, total_iters=100)
    cycle = module.OneCycleLR(optimizer, max_lr=[0.3, 0.4], total_steps=60)
    return module.SequentialLR(optimizer, [first, cycle], milestones=[7])


def chained(module, optimizer):
    parts = [
        module.ConstantLR(optimizer, factor=0.1, total_iters=6),
        module.ExponentialLR(optimizer, gamma=0.9),
    ]
    return module.ChainedScheduler(parts)


SCHEDULERS = {
    "StepLR": lambda module, optimizer: module.StepLR(optimizer, step_size=7, gamma=0.3),
    "MultiStepLR": lambda module, optimizer: module.MultiStepLR(optimizer, [3, 9, 9, 30], gamma=0.5),
    "ExponentialLR": lambda module, optimizer: module.ExponentialLR(optimizer, gamma=0.93),
    "ConstantLR": lambda module, optimizer: module.ConstantLR(optimizer),
    "LinearLR": lambda module, optimizer: module.LinearLR(optimizer, 0.05, 0.8, total_iters=12),
    "PolynomialLR": lambda module, optimizer: module.PolynomialLR(optimizer, total_iters=25, power=1.7),
    "LambdaLR": lambda module, optimizer: module.LambdaLR(
        optimizer, [lambda step: 0.95**step, lambda step: 1 / (1 + step)]
    ),
    "CosineAnnealingLR": lambda module, optimizer: module.CosineAnnealingLR(optimizer, T_max=11, eta_min=0.003),
    "CosineAnnealingWarmRestarts": lambda module, optimizer: module.CosineAnnealingWarmRestarts(
        optimizer, T_0=5, T_mult=2, eta_min=0.001
    ),
    "OneCycleLR": lambda module, optimizer: module.OneCycleLR(optimizer, max_lr=0.3, total_steps=50),
    "OneCycleLR of three phases": lambda module, optimizer: module.OneCycleLR(
        optimizer, max_lr=[0.3, 0.5], epochs=10, steps_per_epoch=5, three_phase=True, pct_start=0.2,
        div_factor=10.0, final_div_factor=100.0, base_momentum=0.8, max_momentum=[0.9, 0.99],
    ),
    "OneCycleLR on lines": lambda module, optimizer: module.OneCycleLR(
        optimizer, max_lr=0.3, total_steps=50, anneal_strategy="linear", pct_start=0.0, cycle_momentum=False
    ),
    "SequentialLR": sequential,
    "SequentialLR with OneCycleLR": one_cycle_after_constant,
    "ChainedScheduler": chained,
}  # fmt: skip
each_scheduler = pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)


def optimizer_of(name="SGD", lr=0.1, **options):
    """Two groups with other rates, after one step, so that schedulers come second as they should."""
    first, second = cr.tensor([1.0], requires_grad=True), cr.tensor([2.0], requires_grad=True)
    groups = [{"params": [first]}, {"params": [second], "lr": lr / 4}]
    options = {"momentum": 0.9, **options} if name == "SGD" else options
    optimizer = getattr(optim, name)(groups, lr=lr, **options)
    (first + second).sum().backward()
    optimizer.step()
    return optimizer


def optimizer_in_torch(torch, name="SGD", lr=0.1):
    first, second = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    options = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(torch.optim, name)(
        [{"params": [first]}, {"params": [second], "lr": lr / 4}], lr=lr, **options
    )
    (first + second).sum().backward()
    optimizer.step()
    return optimizer


def momenta(optimizer):
    return [group["betas"][0] if "betas" in group else group["momentum"] for group in optimizer.param_groups]


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@each_scheduler
def test_rates_and_momenta_equal_pytorch(torch, make, name):
    ours, theirs = optimizer_of(name), optimizer_in_torch(torch, name)
    mine = make(lr_scheduler, ours)
    other = make(torch.optim.lr_scheduler, theirs)
    theirs.step()  # PyTorch wants to see one between the making of the scheduler and its first step
    seen = set()
    for _ in range(STEPS):
        rates = [group["lr"] for group in ours.param_groups]
        assert rates == pytest.approx([group["lr"] for group in theirs.param_groups], rel=1e-12, abs=1e-16)
        assert mine.get_last_lr() == rates
        assert momenta(ours) == pytest.approx(momenta(theirs), rel=1e-12)
        seen.update(rates)
        mine.step()
        other.step()
    assert len(seen) > 3, "a schedule that never changes anything compares nothing"


@each_scheduler
def test_saved_state_continues_bit_for_bit(make):
    whole = optimizer_of()
    scheduler = make(lr_scheduler, whole)
    for _ in range(13):
        scheduler.step()
    saved = json.loads(json.dumps(scheduler.state_dict()))
    snapshot, kept = scheduler.state_dict(), whole.state_dict()
    expected = []
    for _ in range(STEPS - 13):
        scheduler.step()
        expected.append((scheduler.get_last_lr(), momenta(whole)))
    again = optimizer_of(lr=0.7)
    continued = make(lr_scheduler, again)
    again.load_state_dict(kept)
    continued.load_state_dict(saved)
    assert continued.get_last_lr() == [group["lr"] for group in again.param_groups]
    assert json.loads(json.dumps(snapshot)) == saved, "a state is a snapshot"
    found = []
    for _ in range(STEPS - 13):
        continued.step()
        found.append((continued.get_last_lr(), momenta(again)))
    assert found == expected


@pytest.mark.parametrize(
    "make", [SCHEDULERS[name] for name in ("StepLR", "CosineAnnealingLR", "LinearLR", "SequentialLR")]
)
def test_the_state_of_pytorch_is_taken(torch, make):
    ours, theirs = optimizer_of(), optimizer_in_torch(torch)
    mine, other = make(lr_scheduler, ours), make(torch.optim.lr_scheduler, theirs)
    theirs.step()
    for _ in range(6):
        other.step()
    mine.load_state_dict(other.state_dict())
    for group, rate in zip(ours.param_groups, other.get_last_lr()):
        group["lr"] = rate
    for _ in range(6):
        mine.step()
        other.step()
        assert mine.get_last_lr() == pytest.approx(other.get_last_lr(), rel=1e-12)


def test_last_epoch_goes_on_where_the_rates_are(torch):
    ours, theirs = optimizer_of(), optimizer_in_torch(torch)
    with pytest.raises(ArgumentError, match="needs groups with 'initial_lr'"):
        lr_scheduler.ExponentialLR(ours, 0.9, last_epoch=4)
    for group in (*ours.param_groups, *theirs.param_groups):
        group["initial_lr"] = 0.5
    mine = lr_scheduler.ExponentialLR(ours, 0.9, last_epoch=4)
    other = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.9, last_epoch=4)
    theirs.step()
    assert mine.last_epoch == other.last_epoch == 5
    mine.step()
    other.step()
    assert mine.get_last_lr() == pytest.approx(other.get_last_lr())
    assert ours.state_dict()["param_groups"][0]["initial_lr"] == 0.5


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_reduction_on_a_plateau_equals_pytorch_and_continues(torch, mode, threshold_mode):
    settings = {
        "mode": mode, "threshold_mode": threshold_mode, "factor": 0.5, "patience": 2, "threshold": 0.05,
        "cooldown": 2, "min_lr": [0.004, 0.001], "eps": 1e-4,
    }  # fmt: skip
    ours, theirs = optimizer_of(), optimizer_in_torch(torch)
    mine = lr_scheduler.ReduceLROnPlateau(ours, **settings)
    other = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **settings)
    fresh = json.loads(json.dumps(mine.state_dict()))
    assert fresh["best"] == (math.inf if mode == "min" else -math.inf)
    mine.load_state_dict(fresh)
    generator = np.random.default_rng(4)
    values = [*generator.normal(size=30), math.nan, *generator.normal(size=10), *[0.0] * 20]
    for count, value in enumerate(values):
        if count == 17:
            state, kept = json.loads(json.dumps(mine.state_dict())), ours.state_dict()
            ours = optimizer_of(lr=0.9)
            ours.load_state_dict(kept)
            mine = lr_scheduler.ReduceLROnPlateau(ours)
            mine.load_state_dict(state)
        if count == 25:
            mine.load_state_dict(other.state_dict())
        mine.step(cr.tensor(value, dtype="float64") if count % 2 else value)
        other.step(value)
        assert mine.get_last_lr() == other.get_last_lr()
        assert (mine.best, mine.num_bad_epochs, mine.cooldown_counter) == (
            other.best, other.num_bad_epochs, other.cooldown_counter,
        )  # fmt: skip
    assert mine.get_last_lr() == [0.004, 0.001], "the values were meant to reach the lowest rates"


def test_warm_restarts_go_to_any_moment(torch):
    ours, theirs = optimizer_of(), optimizer_in_torch(torch)
    mine = lr_scheduler.CosineAnnealingWarmRestarts(ours, T_0=3, T_mult=2)
    other = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(theirs, T_0=3, T_mult=2)
    for moment in (0.25, 2.75, 3.0, 8.5, 9.125, 30.0):
        mine.step(moment)
        other.step(moment)
        assert mine.get_last_lr() == pytest.approx(other.get_last_lr(), rel=1e-12)
        assert mine.last_epoch == other.last_epoch


def test_the_last_step_of_one_cycle_stays_and_one_more_is_an_error():
    optimizer = optimizer_of()
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=4, anneal_strategy="linear")
    for _ in range(3):
        scheduler.step()
    lowest = scheduler.get_last_lr()
    assert lowest == pytest.approx([0.3 / 25 / 1e4] * 2)
    scheduler.step()  # every batch ends with a step, the last one too
    assert scheduler.get_last_lr() == lowest
    with pytest.raises(ArgumentError, match="has 4 steps; got one more"):
        scheduler.step()
    assert scheduler.last_epoch == 4


@pytest.mark.parametrize("start", [0.0, 0.1, 1.0])
def test_phases_without_length_divide_nothing_by_zero(start):
    optimizer = optimizer_of()
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=10, pct_start=start)
    for _ in range(10):
        scheduler.step()
        assert all(math.isfinite(rate) for rate in scheduler.get_last_lr())


def test_a_factor_of_zero_is_undone():
    optimizer = optimizer_of()
    scheduler = lr_scheduler.ConstantLR(optimizer, factor=0.0, total_iters=2)
    assert scheduler.get_last_lr() == [0.0, 0.0]
    scheduler.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.1, 0.025]


def test_schedulers_called_one_after_the_other_multiply(torch):
    ours, theirs = optimizer_of(), optimizer_in_torch(torch)
    mine = [SCHEDULERS[name](lr_scheduler, ours) for name in ("LinearLR", "StepLR", "ExponentialLR")]
    other = [
        SCHEDULERS[name](torch.optim.lr_scheduler, theirs) for name in ("LinearLR", "StepLR", "ExponentialLR")
    ]
    theirs.step()
    for _ in range(STEPS):
        for one in (*mine, *other):
            one.step()
        rates = [group["lr"] for group in ours.param_groups]
        assert rates == pytest.approx([group["lr"] for group in theirs.param_groups], rel=1e-12)


def test_combined_schedulers_can_be_nested():
    def rates_of(nested):
        optimizer = optimizer_of()
        if nested:
            inner = chained(lr_scheduler, optimizer)
            first = lr_scheduler.LinearLR(optimizer, 0.5, total_iters=3)
            scheduler = lr_scheduler.SequentialLR(optimizer, [first, inner], [3])
        else:
            scheduler = chained(lr_scheduler, optimizer)
        found = []
        for _ in range(12):
            found.append(scheduler.get_last_lr())
            scheduler.step()
        return found

    plain, nested = rates_of(False), rates_of(True)
    assert nested[0] == pytest.approx([0.05, 0.0125])
    for one, other in zip(plain, nested[3:]):
        assert one == pytest.approx(other)


def test_a_scheduler_never_recompiles_a_step():
    pytest.importorskip("llvmlite")
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    optimizer = optim.Adam([w], lr=0.1)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20)

    @cr.compile
    def step():
        loss = (w * w).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    programs = set()
    for _ in range(20):
        step()
        programs.add(step._last)
        scheduler.step()
    assert len(programs) == 1 and step.recompiles == []


def test_a_scheduler_inside_a_compiled_step_is_refused():
    w = cr.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([w], lr=0.1)
    scheduler = lr_scheduler.StepLR(optimizer, 2)

    @cr.compile
    def step():
        (w * w).sum().backward()
        optimizer.step()
        scheduler.step()

    with pytest.raises(TraceError, match="Call it after the step"):
        step()
    assert w.tolist() == [1.0] and scheduler.last_epoch == 0


def test_the_wrong_order_is_told_once():
    w = cr.tensor([1.0], requires_grad=True)
    scheduler = lr_scheduler.StepLR(optim.SGD([w], lr=0.1), 2)
    with pytest.warns(UserWarning, match=r"comes after optimizer\.step") as told:
        scheduler.step()
        scheduler.step()
    assert len(told) == 1 and told[0].filename == __file__


def test_interval_says_when_fit_steps():
    optimizer = optimizer_of()
    assert lr_scheduler.StepLR(optimizer, 2).interval == "epoch"
    assert lr_scheduler.ReduceLROnPlateau(optimizer).interval == "epoch"
    assert lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5).interval == "step"
    batches, epochs = lr_scheduler.LinearLR(optimizer, interval="step"), lr_scheduler.StepLR(optimizer, 2)
    assert lr_scheduler.SequentialLR(optimizer, [batches, epochs], [3]).interval == "step"
    assert lr_scheduler.ChainedScheduler([epochs]).interval == "epoch"
    assert lr_scheduler.ChainedScheduler([epochs], interval="step").interval == "step"


def test_a_scheduler_shows_where_it_is():
    scheduler = lr_scheduler.StepLR(optimizer_of(), 2)
    scheduler.step()
    assert repr(scheduler) == "StepLR(epoch 1, lr=0.1, 0.025)"


@pytest.mark.parametrize(
    "make,words",
    [
        (lambda o: lr_scheduler.StepLR(o, 0), "step_size must be a whole number from 1; got 0"),
        (lambda o: lr_scheduler.StepLR(o, 2.5), "step_size must be a whole number"),
        (lambda o: lr_scheduler.StepLR(o), "StepLR takes .*; got no step_size"),
        (lambda o: lr_scheduler.StepLR(o, 2, verbose=True), "got verbose=True. Print"),
        (lambda o: lr_scheduler.StepLR("adam", 2), "needs an optimizer; got str"),
        (lambda o: lr_scheduler.LambdaLR(None, abs), "needs an optimizer; got NoneType"),
        (lambda o: lr_scheduler.StepLR(o, 2, gamma=math.nan), "gamma must be finite; got nan"),
        (
            lambda o: lr_scheduler.StepLR(o, 2, interval="batch"),
            "interval must be 'epoch' or 'step'; got 'batch'",
        ),
        (lambda o: lr_scheduler.LinearLR(o, start_factor=0), "start_factor must be above 0 to 1; got 0"),
        (lambda o: lr_scheduler.LinearLR(o, end_factor=2), "end_factor must be from 0 to 1; got 2"),
        (lambda o: lr_scheduler.MultiStepLR(o, [1, "two"]), "a milestone must be a whole number"),
        (lambda o: lr_scheduler.LambdaLR(o, 0.5), "must be a function of the step; got float"),
        (lambda o: lr_scheduler.LambdaLR(o, [abs]), "one value or 2, one for each group; got 1"),
        (lambda o: lr_scheduler.LambdaLR(o, lambda step: -1.0), "lr must be from 0; got -0.1"),
        (lambda o: lr_scheduler.LambdaLR(o, lambda step: math.inf), "must be finite; got inf"),
        (
            lambda o: lr_scheduler.LambdaLR(o, lambda step: None),
            "what lr_lambda gives must be a number; got None",
        ),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=0), "T_max must be a whole number from 1"),
        (lambda o: lr_scheduler.OneCycleLR(o, 0.1), "needs total_steps, or epochs and steps_per_epoch"),
        (lambda o: lr_scheduler.OneCycleLR(o, -0.1, total_steps=9), "max_lr must be above 0; got -0.1"),
        (
            lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=9, pct_start=3),
            "pct_start must be from 0 to 1",
        ),
        (
            lambda o: lr_scheduler.OneCycleLR(o, 0.1, 9, anneal_strategy="exp"),
            "must be 'cos' or 'linear'; got 'exp'",
        ),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o, mode="best"), "mode must be 'min' or 'max'; got 'best'"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=1.0), "factor must be from 0 to below 1; got 1"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=-1), "patience must be a whole number from 0"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o).step(), r"Write scheduler\.step\(loss\)"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o).step([1.0, 2.0]), r"needs one number; got \[1.0, 2.0\]"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o).step("good"), "needs one number; got 'good'"),
        (lambda o: lr_scheduler.SequentialLR(o, [], []), "at least one scheduler; got none"),
        (
            lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(o, 2)], [2]),
            "1 schedulers need 0 milestones",
        ),
        (
            lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(o, 2) for _ in "abc"], [5, 3]),
            r"milestones must rise; got \[5, 3\]",
        ),
        (
            lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.ReduceLROnPlateau(o)]),
            "needs no metric; got Reduce",
        ),
        (
            lambda o: lr_scheduler.ChainedScheduler(
                [lr_scheduler.StepLR(one, 2) for one in (o, optimizer_of())]
            ),
            "must have its optimizer; got another one's",
        ),
    ],
)
def test_faults_are_told(make, words):
    with pytest.raises(ArgumentError, match=words):
        make(optimizer_of())


def test_momentum_cannot_cycle_where_there_is_none():
    optimizer = optimizer_of("Adagrad")
    with pytest.raises(ArgumentError, match=r"got Adagrad\. Pass cycle_momentum=False"):
        lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9)
    assert lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9, cycle_momentum=False).interval == "step"


def test_other_states_are_refused_and_nothing_changes():
    optimizer = optimizer_of()
    step, cosine = lr_scheduler.StepLR(optimizer, 2), lr_scheduler.CosineAnnealingLR(optimizer, 5)
    before = step.state_dict()
    with pytest.raises(ArgumentError, match=r"of StepLR needs step_size, gamma.*Was it another scheduler"):
        step.load_state_dict(cosine.state_dict())
    with pytest.raises(ArgumentError, match="the rates of 2 parameter groups; got 1"):
        step.load_state_dict({**before, "_last_lr": [0.1]})
    assert step.state_dict() == before
    both = lr_scheduler.ChainedScheduler([step, cosine])
    with pytest.raises(ArgumentError, match="the state of 2 schedulers; got 1"):
        both.load_state_dict({**both.state_dict(), "_schedulers": [before]})


def test_groups_that_come_later_are_told():
    optimizer = optimizer_of()
    schedulers = lr_scheduler.StepLR(optimizer, 2), lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    optimizer.add_param_group({"params": [cr.tensor([3.0], requires_grad=True)]})
    with pytest.raises(ArgumentError, match="knows 2 parameter groups; got 3"):
        schedulers[0].step()
    schedulers[1].step(1.0)
    with pytest.raises(ArgumentError, match="knows 2 parameter groups; got 3"):
        schedulers[1].step(2.0)


@pytest.mark.parametrize(
    "name,words", [("WarmupLR", "LinearLR.*SequentialLR"), ("CyclicLR", "OneCycleLR"), ("Nonsense", "dir")]
)
def test_names_of_others_are_answered_with_ours(name, words):
    with pytest.raises(MissingNameError, match=words):
        getattr(lr_scheduler, name)
