"""fit as machine code: it learns what Python learns, one call or many at a time, and stays Python where it must.

`python tests/test_compiled_fit.py` trains for 1,000 steps and prints how far compiled and eager curves are apart.
"""

import functools
import os
import random
import signal
import sys
import threading

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.compiler import available, llvm
from chainrule.config import config
from chainrule.data.loader import DataLoader
from chainrule.errors import ArgumentError, CompileError, TraceError
from chainrule.train import Callback, engine, fit, stretch
from chainrule.train.loop import Loop

pytestmark = pytest.mark.skipif(not available(), reason="without llvmlite nothing is compiled")


def rows(count=150, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, 12))
    return x, (x @ generator.normal(size=(12, 5))).argmax(axis=1)


def plain():
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5))


def normed():
    return nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5))


def dropped():
    return nn.Sequential(
        nn.Linear(12, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 8), nn.Dropout(0.1, generator=cr.Generator(3)),
        nn.Linear(8, 5),
    )  # fmt: skip


MODELS = {"plain": plain, "batchnorm": normed, "dropout": dropped}


class Each(Callback):
    """Wants to be told of every update, so there is one call for each."""

    def __init__(self):
        self.losses = []

    def on_batch_end(self, run, batch):
        self.losses.append(batch["loss"])


def trained(
    make=plain, data=None, compile=True, optimizer=optim.Adam, scheduler=None, dtype="float64", **options
):
    """(the weights at the end, the run)."""
    cr.manual_seed(0)
    model = make() if callable(make) and not isinstance(make, nn.Module) else make
    model = model.to(dtype)
    made = optimizer(model.parameters())
    defaults = {"epochs": 3, "batch_size": 16, "progress": False}
    run = fit(
        model, rows() if data is None else data, optimizer=made, scheduler=scheduler and scheduler(made),
        compile=compile, **{**defaults, **options},
    )  # fmt: skip
    return np.concatenate([one.numpy().reshape(-1) for one in model.state_dict().values()]), run


def history(run):
    return [{name: value for name, value in one.items() if name != "seconds"} for one in run.history]


@pytest.fixture
def calls(monkeypatch):
    """How many updates were made by a stretch, and how many one by one."""
    counts = {"stretch": 0, "single": 0}
    run, group = stretch.Stretches.run, Loop._group

    def counted_run(self, order, most):
        made = run(self, order, most)
        counts["stretch"] += len(made.losses)
        return made

    def counted_group(self, batches):
        counts["single"] += 1
        return group(self, batches)

    monkeypatch.setattr(stretch.Stretches, "run", counted_run)
    monkeypatch.setattr(Loop, "_group", counted_group)
    return counts


# ------------------------------------------------------------------------------------------- the same as Python


CLASSES = cr.tensor([1.0, 2.0, 1.0, 0.5, 3.0], dtype=cr.float64)
OPTIONS = {
    "momentum": {"optimizer": functools.partial(optim.SGD, lr=0.1, momentum=0.9)},
    "clipped": {"clip_norm": 0.5, "clip_value": 0.1},
    "weights of classes": {"class_weight": "balanced", "accumulate": 3},
    "ignored": {"loss": nn.CrossEntropyLoss(CLASSES, ignore_index=2)},
    "step scheduler": {"scheduler": functools.partial(optim.lr_scheduler.OneCycleLR, max_lr=0.01, total_steps=24)},
    "epoch scheduler": {"scheduler": functools.partial(optim.lr_scheduler.ExponentialLR, gamma=0.5)},
    "numbers": {"loss": "mse", "data": (rows()[0], rows()[0][:, :5] * 2.0), "metrics": ["mae", "r2"]},
    "weighed numbers": {"loss": "mse", "data": (rows()[0], rows()[0][:, :5]), "sample_weight": np.linspace(0, 1, 150)},
    "metrics": {"metrics": ["accuracy", "f1", "roc_auc", "log_loss", "top_2_accuracy"]},
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_compiled_training_is_that_of_python(name):
    wanted, first = trained(compile=False, **OPTIONS[name])
    got, second = trained(compile=True, **OPTIONS[name])
    assert second.compiled is not None and second.why_python is None
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9)
    for one, other in zip(history(second), history(first)):
        assert one == pytest.approx(other, abs=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_many_updates_in_one_call_have_the_bits_of_single_ones(name, calls):
    each = Each()
    wanted, first = trained(
        MODELS[name], callbacks=[each], metrics=["accuracy", "log_loss", "f1"], dtype="float32"
    )
    assert calls["stretch"] == 0 and calls["single"] == len(each.losses) == 24
    calls.update(single=0)
    got, second = trained(MODELS[name], metrics=["accuracy", "log_loss", "f1"], dtype="float32")
    # One by one: the first update of an epoch, after the code was looked up, and the smaller last batch.
    assert calls["stretch"] >= 18 and calls["stretch"] + calls["single"] == 24
    assert got.tobytes() == wanted.tobytes() and history(first) == history(second)


@pytest.mark.parametrize(
    "options", [{"sample_weight": np.linspace(0.1, 2, 150)}, {"loss": "mse"}, OPTIONS["ignored"]]
)
def test_stretches_with_weights_and_numbers_have_the_bits_of_single_updates(options, calls):
    data = (rows()[0], rows()[0][:, :5]) if options.get("loss") == "mse" else rows()
    wanted, first = trained(data=data, callbacks=[Each()], **options)
    got, second = trained(data=data, **options)
    assert calls["stretch"] > 12
    assert got.tobytes() == wanted.tobytes() and history(first) == history(second)


def test_several_inputs_and_outputs(calls):
    class Two(nn.Module):
        def __init__(self):
            self.one, self.other = nn.Linear(4, 5), nn.Linear(8, 5)

        def forward(self, left, right):
            return {"sum": self.one(left) + self.other(right), "left": self.one(left)}

    def loss(outputs, targets):
        return cr.functional.cross_entropy(outputs["sum"], targets["y"]) + (outputs["left"] ** 2).mean() * 0.1

    x, y = rows()
    data = {"left": x[:, :4], "right": x[:, 4:]}, {"y": y}
    wanted, _ = trained(Two, data, compile=False, loss=loss)
    got, run = trained(Two, data, loss=loss)
    assert calls["stretch"] > 12 and run.compiled is not None
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9)


def test_the_length_of_stretches_changes_no_bit(monkeypatch):
    wanted, first = trained(dropped)
    monkeypatch.setattr(stretch, "_SECONDS", 1e-9)
    got, run = trained(dropped)
    assert got.tobytes() == wanted.tobytes() and history(run) == history(first)


def test_batches_of_a_loader(calls):
    x, y = rows()
    loader = DataLoader((x, y), batch_size=16, shuffle=True, seed=4)
    wanted, _ = trained(data=loader, compile=False)
    got, run = trained(data=loader)
    assert calls["stretch"] == 0 and run.compiled is not None
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9)


def test_a_rate_that_changes_traces_nothing_again():
    schedule = functools.partial(optim.lr_scheduler.OneCycleLR, max_lr=0.01, total_steps=24)
    _, run = trained(scheduler=schedule)
    assert run.compiled.recompiles == []


# ------------------------------------------------------------------------------------------- ends


def test_a_loss_that_is_not_finite_ends_at_the_same_update(calls):
    """The rate is so high that some updates later the loss is no number."""
    found = []
    for compile, callbacks in ((False, ()), (True, [Each()]), (True, ())):
        with pytest.raises(
            ArgumentError, match=r"needs a finite loss; got (nan|inf) in epoch 1, batch"
        ) as caught:
            trained(
                compile=compile,
                optimizer=functools.partial(optim.SGD, lr=1e150),
                callbacks=callbacks,
                epochs=1,
            )
        found.append(str(caught.value).partition(" with a learning rate")[0])
    assert found[0] == found[1] == found[2]


class Logarithm(nn.Module):
    def __init__(self):
        self.inner, self.outer = nn.Linear(12, 8), nn.Linear(8, 5)

    def forward(self, x):
        return self.outer(cr.log(self.inner(x)))


def test_the_first_number_that_is_not_finite_is_told():
    words = r"got nan in epoch 1, batch 1.*The first comes from log \(test_compiled_fit.*log needs x > 0"
    with pytest.raises(ArgumentError, match=words):
        trained(Logarithm)


class Explodes(Callback):
    """From the second epoch on the rate is far too high."""

    def on_epoch_begin(self, run, epoch):
        if epoch == 2:
            run.optimizer.param_groups[0]["lr"] = 1e150


def test_a_refused_update_leaves_the_weights_of_the_one_before(calls):
    runs = {}
    for name, callbacks in (("single", [Each(), Explodes()]), ("stretch", [Explodes()])):
        with pytest.warns(RuntimeWarning, match="ended early: the (loss|gradient of .*) must be finite; got"):
            runs[name] = trained(normed, callbacks=callbacks, optimizer=functools.partial(optim.SGD, lr=0.1))
    assert runs["stretch"][1].state == "diverged" and len(runs["stretch"][1].history) == 1
    assert runs["stretch"][0].tobytes() == runs["single"][0].tobytes()
    assert calls["stretch"] >= 6


def test_early_stopping_and_the_best_weights():
    x, y = rows()
    options = {"validation": (x, np.roll(y, 1)), "epochs": 30, "patience": 2}
    wanted, first = trained(compile=False, **options)
    got, run = trained(**options)
    assert (run.state, run.best_epoch, run.restored) == (first.state, first.best_epoch, True)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9)


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread"
)
def test_ctrl_c_is_heard_between_two_stretches(monkeypatch):
    run = stretch.Stretches.run

    def interrupted(self, order, most):
        os.kill(os.getpid(), signal.SIGINT)
        return run(self, order, most)

    monkeypatch.setattr(stretch.Stretches, "run", interrupted)
    _, got = trained(data=rows(2000), epochs=5)
    assert got.state == "interrupted" and not got.history


# ------------------------------------------------------------------------------------------- Python first


@pytest.fixture
def soon(monkeypatch):
    """Code is made after five calls of a kind."""
    monkeypatch.setattr(engine.Engine, "_wait", lambda self, leaves: 5)


def test_python_comes_first_and_code_after_some_updates(soon, calls):
    wanted, _ = trained(compile="auto", callbacks=[Each()], dtype="float32")
    got, run = trained(compile="auto", dtype="float32")
    assert run.compiled is not None and calls["stretch"] > 5
    assert got.tobytes() == wanted.tobytes()


def test_small_trainings_stay_python_and_large_ones_do_not():
    _, run = trained(compile="auto")
    assert run.compiled is None and run.why_python is None
    wide = lambda: nn.Sequential(nn.Linear(12, 3000), nn.ReLU(), nn.Linear(3000, 5))
    tensors = [cr.zeros(1024, 12)]
    small, large = (engine.Engine(len, make(), "auto", ())._wait(tensors) for make in (plain, wide))
    assert small > 900 and large < 100


class Stop(Callback):
    """Presses Ctrl-C after an epoch, so that stretches are not kept from being made."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, run, record):
        if record["epoch"] == self.epoch:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread"
)
@pytest.mark.parametrize("choice", [True, "auto"])
def test_a_resumed_training_has_the_bits_of_the_unbroken_one(tmp_path, soon, choice):
    wanted, whole = trained(dropped, compile=choice, dtype="float32", epochs=5)
    for epoch in (1, 3) if choice == "auto" else (2,):
        folder = tmp_path / f"{choice}{epoch}"
        options = {
            "compile": choice,
            "dtype": "float32",
            "epochs": 5,
            "folder": folder,
            "checkpoint_steps": 3,
        }
        _, first = trained(dropped, callbacks=[Stop(epoch)], **options)
        assert first.state == "interrupted"
        got, run = trained(dropped, resume=True, **options)
        assert got.tobytes() == wanted.tobytes() and history(run) == history(whole)


def test_a_training_goes_on_as_it_was_run(tmp_path, monkeypatch):
    trained(epochs=1, folder=tmp_path / "run")
    monkeypatch.setattr(config, "compile", False)
    with pytest.raises(cr.RunError, match="compile is True there and False here"):
        trained(epochs=2, folder=tmp_path / "run", resume=True)


def test_checkpoints_come_after_their_number_of_updates(tmp_path, calls):
    _, run = trained(
        data=rows(800), epochs=2, folder=tmp_path / "run", checkpoint_steps=7, checkpoint_seconds=None
    )
    assert calls["stretch"] > 40 and run.state == "finished"


# ------------------------------------------------------------------------------------------- what is no graph


class Noisy(nn.Module):
    def __init__(self, noise):
        self.inner = nn.Linear(12, 5)
        self.noise = noise

    def forward(self, x):
        return self.inner(x) + self.noise(self)


def numpy_noise(self):
    return np.random.standard_normal(5).astype(np.float64)


def own_noise():
    generator = np.random.default_rng(5)
    return lambda self: generator.standard_normal(5)


def count_attribute(self):
    self.calls = getattr(self, "calls", 0) + 1
    return self.calls * 0.01


def count_outside():
    seen = []

    def noise(self):
        seen.append(1)
        return len(seen) * 0.01

    return noise


IMPURE = {
    "numpy": (lambda: numpy_noise, "draws random numbers of NumPy or Python"),
    "generator": (own_noise, "draws random numbers of NumPy or Python"),
    "list": (count_outside, "because of seen"),
    "python": (lambda: lambda self: random.random(), "draws random numbers of NumPy or Python"),
    "number": (lambda: lambda self: float(self.inner.weight.sum()) * 0.0, "TraceError: "),
}


@pytest.mark.parametrize("name", IMPURE)
def test_a_model_that_is_no_graph_runs_as_python_and_says_why(name, soon):
    make, words = IMPURE[name]

    def run(compile):
        np.random.seed(0)
        random.seed(0)
        return trained(lambda: Noisy(make()), compile=compile, validation=None)

    wanted, _ = run(False)
    got, found = run("auto")
    assert found.compiled is None and words in found.why_python
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)  # some steps of a list ran as machine code
    with pytest.raises((TraceError, TypeError, cr.RecompileWarning)):
        run(True)


def keep_number(self):
    self.decay = getattr(self, "decay", 1.0) * 0.75
    return self.decay


def keep_tensor(self):
    self.kept = getattr(self, "kept", cr.zeros(5)) * 0.5 + self.inner.bias.detach()
    return self.kept * 0.1


def keep_in_list(self):
    self.__dict__.setdefault("past", [0.0, 1.0])
    self.past[0], self.past[1] = self.past[1], self.past[0] * 0.5
    return self.past[0]


@pytest.mark.parametrize("noise", [count_attribute, keep_number, keep_tensor, keep_in_list])
@pytest.mark.parametrize("choice", [True, "auto"])
def test_what_the_model_keeps_between_steps_is_part_of_the_step(noise, choice, soon):
    def kept(run):
        found = vars(run.model)
        return [np.asarray(found[name]) for name in ("calls", "decay", "kept", "past") if name in found]

    wanted, slow = trained(lambda: Noisy(noise), compile=False, validation=None)
    got, run = trained(lambda: Noisy(noise), compile=choice, validation=None)
    assert run.compiled is not None and run.why_python is None
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)
    assert len(kept(run)) == len(kept(slow)) == 1
    np.testing.assert_allclose(kept(run)[0], kept(slow)[0], rtol=0, atol=1e-12)


def scaled(self):
    return self.inner.bias.detach() * self.scale + self.offset


class Changes(Callback):
    """Somebody who changes the model after each epoch."""

    def __init__(self, change):
        self.model, self.change, self.epochs = None, change, 0

    def on_epoch_end(self, *_):
        self.epochs += 1
        self.change(self.model, self.epochs)


CHANGES = {
    "number": lambda model, n: setattr(model, "scale", 0.5 / n),
    "tensor": lambda model, n: setattr(model, "offset", cr.full(5, 0.25 * n)),
    "whole number": lambda model, n: setattr(model, "scale", n),
    "flag": lambda model, n: setattr(model.inner.bias, "requires_grad", n % 2 == 0),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("choice", [True, "auto"])
def test_what_somebody_changes_between_epochs_counts_from_then_on(name, choice, soon):
    def run(compile):
        callback = Changes(CHANGES[name])

        def make():
            callback.model = Noisy(scaled)
            callback.model.scale, callback.model.offset = 1.0, cr.zeros(5)
            return callback.model

        return trained(make, compile=compile, validation=None, epochs=4, callbacks=[callback])

    (wanted, _), (got, found) = run(False), run(choice)
    assert found.compiled is not None and found.why_python is None
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)


def test_hooks_run_at_each_call(soon):
    model, seen = plain(), []
    model[0].register_forward_hook(
        lambda module, inputs, output: seen.append(len(output)) if module.training else None
    )
    _, run = trained(model, compile="auto", validation=None)
    assert "has hooks" in run.why_python and len(seen) == 3 * 10


def test_a_step_of_ones_own_is_compiled_where_it_is_asked_for():
    def own(compile):
        cr.manual_seed(0)
        model = plain().double()
        optimizer = optim.Adam(model.parameters())

        def step(x, y):
            outputs = model(x)
            loss = cr.functional.cross_entropy(outputs, y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss, outputs

        options = {"epochs": 3, "batch_size": 16, "progress": False, "compile": compile}
        run = fit(model, rows(), step=step, optimizer=optimizer, **options)
        return np.concatenate([one.numpy().reshape(-1) for one in model.parameters()]), run

    wanted, first = own("auto")
    got, second = own(True)
    assert "runs as it is written" in first.why_python and second.compiled is not None
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9)
    assert history(second)[-1]["accuracy"] == history(first)[-1]["accuracy"]


def test_a_model_that_is_changed_in_the_middle(soon):
    class Freeze(Callback):
        def on_epoch_begin(self, run, epoch):
            if epoch == 2:
                run.model[0].requires_grad_(False)

    wanted, _ = trained(compile=False, callbacks=[Freeze()], epochs=4)
    for choice in (True, "auto"):
        got, run = trained(compile=choice, callbacks=[Freeze()], epochs=4)
        assert run.compiled is not None
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9)


def test_switched_off(monkeypatch):
    assert trained(compile=False)[1].why_python == "compile=False"
    monkeypatch.setattr(config, "compile", False)
    wanted, run = trained(compile=True)
    assert run.why_python == "CHAINRULE_COMPILE=0" and run.compiled is None
    np.testing.assert_array_equal(wanted, trained(compile=False)[0])
    with pytest.raises(ArgumentError, match="compile must be True, False or 'auto'; got 1"):
        trained(compile=1)


# ------------------------------------------------------------------------------------------- audited


def test_audited_updates_change_nothing(calls):
    wanted, _ = trained(normed)
    stretched = calls["stretch"]
    got, _ = trained(normed, audit_every=5)
    assert got.tobytes() == wanted.tobytes() and 0 < calls["stretch"] - stretched < stretched
    with pytest.raises(
        ArgumentError, match="audit_every looks into steps that are compiled; got compile='auto'"
    ):
        trained(compile="auto", audit_every=5)


def test_an_audit_finds_machine_code_that_computes_something_else(monkeypatch):
    monkeypatch.setenv("CHAINRULE_CACHE", "0")  # what a broken compiler has made is not to be kept
    monkeypatch.setitem(llvm._ARITHMETIC, "divide", ("fmul", "", ""))
    with pytest.raises(CompileError, match=r"(?s)must compute what the interpreter computes.*divide"):
        trained(audit_every=4)


# ------------------------------------------------------------------------------------------- by command


def digit_models(width=32):
    """Networks for 8 × 8 pixels."""
    first, last = nn.Linear(64, width), nn.Linear(width, 10)
    return {
        "plain": [first, nn.ReLU(), last],
        "batchnorm": [first, nn.BatchNorm1d(width), nn.ReLU(), last],
        "dropout": [first, nn.Tanh(), nn.Dropout(0.2), last],
    }


def farthest(name, data, updates):
    """The largest difference between the curves of losses, and between the weights, of compiled and eager steps."""
    losses, weights = [], []
    for choice in (False, True):
        cr.manual_seed(0)
        model = nn.Sequential(*digit_models()[name]).double()
        each, epochs = Each(), max(1, updates // (len(data[0]) // 32))
        fit(
            model, data, optimizer=optim.SGD(model.parameters(), lr=0.05, momentum=0.9), epochs=epochs, validation=None,
            callbacks=[each], progress=False, compile=choice,
        )  # fmt: skip
        losses.append(np.array(each.losses))
        weights.append(np.concatenate([one.numpy().reshape(-1) for one in model.state_dict().values()]))
    return len(losses[0]), np.abs(losses[0] - losses[1]).max(), np.abs(weights[0] - weights[1]).max()


def digits():
    """8 × 8 pixels of 1,797 digits, from 0 to 1."""
    x, y = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    return x / 16, y


@pytest.mark.parametrize("name", ["batchnorm", "dropout"])
def test_curves_on_digits_agree(name):
    x, y = digits()
    _, losses, weights = farthest(name, (x[:640], y[:640]), 60)
    assert losses < 1e-11 and weights < 1e-11


def test_how_soon_code_is_made_follows_from_steps_and_pixels_too():
    places = {(32, 16): 32, (32,): 32, (32, 100, 8): 3200, (32, 3, 10, 10): 3200}
    for shape, count in places.items():
        assert engine._places(np.zeros(shape, np.float32)) == count
    assert engine._places(np.zeros((32, 100), np.int64)) == 3200

    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    made = engine.make_forward_engine(model, "auto", lambda model, x: model(x))
    small = made._wait([np.zeros((8, 1, 2, 2), np.float32)])
    large = made._wait([np.zeros((64, 1, 64, 64), np.float32)])
    assert large < small / 10


if __name__ == "__main__":
    for model in digit_models():
        count, between_losses, between_weights = farthest(model, digits(), int(sys.argv[1]))
        print(
            f"{model}: {count} updates; losses differ by {between_losses:.1e}, weights by {between_weights:.1e}"
        )
