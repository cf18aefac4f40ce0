"""Training beside PyTorch: the same weights, batches and settings give the same losses, outputs and weights.

Every optimizer with its options on three networks, 200 steps. In float64 everything agrees to 1e-9; in float32,
where both round on their own, losses and outputs agree to 1e-4. Left out by name: the bias of a layer that feeds a
batch normalization, which subtracts it again, so that its gradient is rounding noise. What of it is in the running
mean is taken out of both before they are compared.
"""

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.optim import lr_scheduler
from rivals import torch

pytestmark = [pytest.mark.pytorch, pytest.mark.usefixtures("one_thread_of_pytorch")]

INPUTS, HIDDEN, CLASSES, ROWS, BATCH, STEPS = 7, 11, 5, 31, 13, 200

OPTIMIZERS = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("Adam", {}),
    ("Adam", {"betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.02, "amsgrad": True}),
    ("AdamW", {}),
    ("AdamW", {"weight_decay": 0.1, "amsgrad": True, "betas": (0.85, 0.95)}),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.9, "momentum": 0.8, "weight_decay": 0.01}),
    ("RMSprop", {"centered": True, "momentum": 0.5, "eps": 1e-6}),
    ("Adagrad", {}),
    ("Adagrad", {"lr_decay": 0.01, "weight_decay": 0.01, "initial_accumulator_value": 0.1, "eps": 1e-8}),
]
NETWORKS = {"mlp": None, "batch normalization": "BatchNorm1d", "layer normalization": "LayerNorm"}
BIASES_BEFORE_A_NORMALIZATION = {"batch normalization": {"0.bias"}}

each_optimizer = pytest.mark.parametrize("name,options", OPTIMIZERS, ids=lambda one: str(one))
each_network = pytest.mark.parametrize("network", NETWORKS)


def build(library, network):
    """Linear, normalization, ReLU, Linear, from `chainrule.nn` or `torch.nn`."""
    norm = NETWORKS[network]
    middle = [] if norm is None else [getattr(library, norm)(HIDDEN)]
    return library.Sequential(
        library.Linear(INPUTS, HIDDEN), *middle, library.ReLU(), library.Linear(HIDDEN, CLASSES)
    )


def pair(network, dtype):
    """Our network and PyTorch's with the same weights."""
    cr.manual_seed(3)
    model, twin = build(nn, network).to(dtype), build(torch.nn, network).to(getattr(torch, dtype))
    twin.load_state_dict(
        {name: torch.from_numpy(np.array(value.numpy())) for name, value in model.state_dict().items()}
    )
    return model, twin


def batches(dtype, steps=STEPS):
    """Three batches an epoch, of 13, 13 and 5 rows."""
    generator = np.random.default_rng(5)
    inputs = generator.normal(size=(ROWS, INPUTS)).astype(dtype)
    targets = (inputs @ generator.normal(size=(INPUTS, CLASSES))).argmax(1)
    starts = range(0, ROWS, BATCH)
    for step in range(steps):
        start = starts[step % len(starts)]
        yield inputs[start : start + BATCH], targets[start : start + BATCH]


def our_step(model, optimizer, x, y, clip=lambda parameters: None):
    outputs = model(cr.tensor(x))
    loss = cr.functional.cross_entropy(outputs, cr.tensor(y))
    loss.backward()
    clip(list(model.parameters()))
    optimizer.step()
    optimizer.zero_grad()
    return loss.item(), outputs.detach().numpy()


def their_step(model, optimizer, x, y, clip=lambda parameters: None):
    outputs = model(torch.from_numpy(x))
    loss = torch.nn.functional.cross_entropy(outputs, torch.from_numpy(y))
    loss.backward()
    clip(list(model.parameters()))
    optimizer.step()
    optimizer.zero_grad()
    return loss.item(), outputs.detach().numpy()


def assert_same_state(model, twin, left_out=(), tolerance=1e-9):
    """Weights, and running statistics where there are some."""
    theirs = twin.state_dict()
    assert list(model.state_dict()) == list(theirs)
    for name, value in model.state_dict().items():
        if name not in left_out:
            np.testing.assert_allclose(
                value.numpy(), theirs[name].numpy(), rtol=0, atol=tolerance, err_msg=name
            )


def running_mean(values, momentum=0.1):
    """What a batch normalization with its usual momentum makes of values that arrive one after the other."""
    mean = 0.0
    for value in values:
        mean = (1 - momentum) * mean + momentum * value
    return mean


@each_network
@each_optimizer
def test_trajectory_in_float64(name, options, network):
    model, twin = pair(network, "float64")
    ours = getattr(optim, name)(model.parameters(), lr=1e-3, **options)
    theirs = getattr(torch.optim, name)(twin.parameters(), lr=1e-3, **options)
    before = {key: value.numpy() for key, value in model.state_dict().items()}
    biases = [], []
    for x, y in batches("float64"):
        for found, one in zip(biases, (model, twin)):
            found.append(one[0].bias.detach().numpy().copy())
        loss, outputs = our_step(model, ours, x, y)
        expected, wanted = their_step(twin, theirs, x, y)
        assert loss == pytest.approx(expected, abs=1e-9)
        np.testing.assert_allclose(outputs, wanted, rtol=0, atol=1e-9)
    left_out = BIASES_BEFORE_A_NORMALIZATION.get(network, set())
    assert_same_state(model, twin, left_out and left_out | {"1.running_mean"})
    if left_out:
        means = [
            one.state_dict()["1.running_mean"].numpy() - running_mean(found)
            for one, found in zip((model, twin), biases)
        ]
        np.testing.assert_allclose(*means, rtol=0, atol=1e-9)
    learnt = {key: value.numpy() for key, value in model.state_dict().items() if key not in left_out}
    assert all(np.any(value != before[key]) for key, value in learnt.items())


@each_network
@each_optimizer
def test_trajectory_in_float32(name, options, network):
    model, twin = pair(network, "float32")
    ours = getattr(optim, name)(model.parameters(), lr=1e-3, **options)
    theirs = getattr(torch.optim, name)(twin.parameters(), lr=1e-3, **options)
    for x, y in batches("float32"):
        loss, outputs = our_step(model, ours, x, y)
        expected, wanted = their_step(twin, theirs, x, y)
        assert loss == pytest.approx(expected, abs=1e-4)
        np.testing.assert_allclose(outputs, wanted, rtol=0, atol=1e-4)
    assert all(parameter.dtype == cr.float32 for parameter in model.parameters())
    assert all(
        entry.dtype == cr.float32
        for kept in ours.state.values()
        for key, entry in kept.items()
        if key != "step"
    )


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_maximize_climbs_as_in_pytorch(name):
    model, twin = pair("mlp", "float64")
    ours = getattr(optim, name)(model.parameters(), lr=1e-3, weight_decay=0.01, maximize=True)
    theirs = getattr(torch.optim, name)(twin.parameters(), lr=1e-3, weight_decay=0.01, maximize=True)
    losses = []
    for x, y in batches("float64", 30):
        losses.append(our_step(model, ours, x, y)[0])
        assert losses[-1] == pytest.approx(their_step(twin, theirs, x, y)[0], abs=1e-9)
    assert losses[-3] > losses[0]
    assert_same_state(model, twin)


# ----------------------------------------------------------------------- schedulers, clipping, groups


def warm_up_and_cosine(module, optimizer):
    warm_up = module.LinearLR(optimizer, start_factor=0.1, total_iters=20)
    return module.SequentialLR(optimizer, [warm_up, module.CosineAnnealingLR(optimizer, T_max=180)], [20])


WHOLE_LOOPS = {
    "one cycle, norm": (
        ("Adam", {}),
        lambda module, optimizer: module.OneCycleLR(optimizer, 0.01, total_steps=STEPS),
        lambda library: lambda parameters: library.utils.clip_grad_norm_(parameters, 0.5),
    ),
    "one cycle with momentum, largest entry": (
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        lambda module, optimizer: module.OneCycleLR(optimizer, 0.05, total_steps=STEPS, three_phase=True),
        lambda library: lambda parameters: library.utils.clip_grad_norm_(parameters, 0.1, float("inf")),
    ),
    "warm-up and cosine, entry by entry": (
        ("AdamW", {"weight_decay": 0.1}),
        warm_up_and_cosine,
        lambda library: lambda parameters: library.utils.clip_grad_value_(parameters, 0.05),
    ),
    "exponential, norm of magnitudes": (
        ("RMSprop", {"momentum": 0.5}),
        lambda module, optimizer: module.ExponentialLR(optimizer, 0.99),
        lambda library: lambda parameters: library.utils.clip_grad_norm_(parameters, 2.0, 1.0),
    ),
}


@pytest.mark.parametrize("loop", WHOLE_LOOPS)
def test_whole_loops_with_groups_schedulers_and_clipping(loop):
    (name, options), schedule, clip = WHOLE_LOOPS[loop]
    model, twin = pair("layer normalization", "float64")

    def groups(network):
        parameters = list(network.parameters())
        return [{"params": parameters[:3]}, {"params": parameters[3:], "lr": 2e-3, "weight_decay": 0.003}]

    ours = getattr(optim, name)(groups(model), lr=1e-3, **options)
    theirs = getattr(torch.optim, name)(groups(twin), lr=1e-3, **options)
    our_scheduler, their_scheduler = schedule(lr_scheduler, ours), schedule(torch.optim.lr_scheduler, theirs)
    for step, (x, y) in enumerate(batches("float64")):
        loss, _ = our_step(model, ours, x, y, clip(nn))
        expected, _ = their_step(twin, theirs, x, y, clip(torch.nn))
        assert loss == pytest.approx(expected, abs=1e-9)
        if step < STEPS - 1:
            our_scheduler.step()
            their_scheduler.step()
            assert our_scheduler.get_last_lr() == pytest.approx(
                their_scheduler.get_last_lr(), rel=1e-9, abs=1e-15
            )
    assert_same_state(model, twin)


def test_reduction_on_a_plateau_in_the_loop():
    model, twin = pair("mlp", "float64")
    ours, theirs = optim.SGD(model.parameters(), lr=0.1), torch.optim.SGD(twin.parameters(), lr=0.1)
    settings = {"factor": 0.5, "patience": 2, "threshold": 0.05, "cooldown": 1, "min_lr": 1e-3}
    first = lr_scheduler.ReduceLROnPlateau(ours, **settings)
    second = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **settings)
    rates = set()
    for x, y in batches("float64"):
        first.step(our_step(model, ours, x, y)[0])
        second.step(their_step(twin, theirs, x, y)[0])
        rates.update(first.get_last_lr())
        assert first.get_last_lr() == second.get_last_lr()
    assert len(rates) > 3
    assert_same_state(model, twin)


# ------------------------------------------------------------------- state, from and to PyTorch's


@each_optimizer
def test_state_is_exchanged_with_pytorch_in_both_directions(name, options):
    """Six steps here, six there with what was kept here, six here with what was kept there; beside it PyTorch alone."""
    model, twin = pair("mlp", "float64")
    _, alone = pair("mlp", "float64")
    ours = getattr(optim, name)(model.parameters(), lr=1e-3, **options)
    reference = getattr(torch.optim, name)(alone.parameters(), lr=1e-3, **options)
    data = list(batches("float64", 18))
    for x, y in data:
        their_step(alone, reference, x, y)

    for x, y in data[:6]:
        our_step(model, ours, x, y)
    theirs = getattr(torch.optim, name)(twin.parameters())
    saved = ours.state_dict()
    kept = {
        k: {key: torch.tensor(value.numpy()) for key, value in entries.items()}
        for k, entries in saved["state"].items()
    }
    theirs.load_state_dict({**saved, "state": kept})
    twin.load_state_dict(
        {key: torch.from_numpy(np.array(value.numpy())) for key, value in model.state_dict().items()}
    )
    for x, y in data[6:12]:
        their_step(twin, theirs, x, y)

    again = build(nn, "mlp").to("float64")
    again.load_state_dict({key: value.numpy() for key, value in twin.state_dict().items()})
    continued = getattr(optim, name)(again.parameters(), lr=0.7)
    continued.load_state_dict(theirs.state_dict())
    for x, y in data[12:]:
        our_step(again, continued, x, y)
    assert_same_state(again, alone, tolerance=1e-13)


# --------------------------------------------------------------------------- compiled and eager


@each_optimizer
def test_compiled_steps_equal_eager_ones_and_new_numbers_do_not_recompile(name, options):
    pytest.importorskip("llvmlite")
    model, twin = pair("mlp", "float64")[0], pair("mlp", "float64")[0]
    optimizer, eager = (getattr(optim, name)(one.parameters(), lr=1e-3, **options) for one in (model, twin))

    @cr.compile
    def step(x, y):
        loss = cr.functional.cross_entropy(model(x), y)
        loss.backward()
        norm = optim.clip_grad_norm_(model.parameters(), 0.4)
        optimizer.step()
        optimizer.zero_grad()
        return loss, norm

    generator, programs = np.random.default_rng(0), set()
    for count in range(8):
        x, y = generator.normal(size=(BATCH, INPUTS)), generator.integers(0, CLASSES, BATCH)
        for group in (optimizer.param_groups[0], eager.param_groups[0]):
            group["lr"] = 1e-3 * (1 + count)
            for key in ("weight_decay", "momentum", "alpha", "eps", "lr_decay"):
                if group.get(key):
                    group[key] = group[key] * 0.9
            if "betas" in group:
                group["betas"] = (0.9 - 0.01 * count, 0.99)
        loss, norm = step(cr.tensor(x), cr.tensor(y))
        programs.add(step._last)
        norms = []
        expected, _ = our_step(
            twin, eager, x, y, lambda given, to=norms: to.append(optim.clip_grad_norm_(given, 0.4))
        )
        assert loss.item() == pytest.approx(expected, abs=1e-12)
        assert norm.item() == pytest.approx(norms[0].item(), rel=1e-12)
    assert len(programs) == 1 and step.recompiles == []
    for mine, other in zip(model.parameters(), twin.parameters()):
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), rtol=0, atol=1e-12)
