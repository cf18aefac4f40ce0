"""Interrupted trainings go on to the very bits of those that were not; and those that cannot go on say why."""

import copy
import functools
import json
import os
import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import chainrule as cr
import kill_and_resume
from chainrule import nn, optim
from chainrule.data.loader import DataLoader
from chainrule.errors import ArgumentError, RunError
from chainrule.train import Callback, fit, load_run


def rows(count=70):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, 4))
    return x, (x @ generator.normal(size=(4, 3))).argmax(axis=1)


def network(width=8):
    cr.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2),
        nn.Dropout(0.1, generator=cr.Generator(3)), nn.Linear(width, 3),
    )  # fmt: skip


def bits(model):
    return b"".join(one.numpy().tobytes() for one in model.state_dict().values())


class Stop(Callback):
    """Presses Ctrl-C after an update."""

    def __init__(self, step):
        self.step = step

    def on_batch_end(self, run, batch):
        if batch["step"] == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def trained(folder, optimizer=optim.Adam, scheduler=None, data=None, resume=False, **options):
    """(bits at the end, the run)."""
    model = network(options.pop("width", 8))
    made = optimizer(model.parameters())
    cr.manual_seed(9 if not resume else 10)
    defaults = {"epochs": 4, "batch_size": 16, "progress": False}
    run = fit(
        model, data or rows(), optimizer=made, scheduler=scheduler and scheduler(made), folder=folder, resume=resume,
        **{**defaults, **options},
    )  # fmt: skip
    return bits(model), run


# ------------------------------------------------------------------------------------------- kill -9


def test_killed_trainings_end_with_the_bits_of_the_unbroken_one(tmp_path):
    """A few by chance; `python tests/kill_and_resume.py 50` does more."""
    chance, killed = random.Random(7), 0
    for way in kill_and_resume.WAYS:
        wanted = kill_and_resume.unbroken(tmp_path / f"unbroken {way}", way)
        outcome, kills = kill_and_resume.broken(tmp_path / way, chance, 2, way)
        assert outcome == wanted
        killed += kills
    assert killed >= 4


# ------------------------------------------------------------------------------------------- every place, every part


OPTIMIZERS = {
    "sgd": lambda parameters: optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda parameters: optim.Adam(parameters, lr=0.01, amsgrad=True),
    "adamw": lambda parameters: optim.AdamW(parameters, lr=0.01),
    "rmsprop": lambda parameters: optim.RMSprop(parameters, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda parameters: optim.Adagrad(parameters, lr=0.05),
}
SCHEDULERS = {
    "step": lambda optimizer: optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
    "cosine": lambda optimizer: optim.lr_scheduler.CosineAnnealingLR(optimizer, 4),
    "one cycle": lambda optimizer: optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=16),
    "plateau": lambda optimizer: optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on(tmp_path, name):
    wanted, _ = trained(None, OPTIMIZERS[name])
    _, run = trained(tmp_path / "run", OPTIMIZERS[name], callbacks=[Stop(6)])
    assert run.state == "interrupted"
    assert trained(tmp_path / "run", OPTIMIZERS[name], resume=True)[0] == wanted


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_goes_on(tmp_path, name):
    wanted, whole = trained(None, OPTIMIZERS["sgd"], SCHEDULERS[name])
    trained(tmp_path / "run", OPTIMIZERS["sgd"], SCHEDULERS[name], callbacks=[Stop(7)])
    got, run = trained(tmp_path / "run", OPTIMIZERS["sgd"], SCHEDULERS[name], resume=True)
    assert got == wanted
    assert [one["learning_rate"] for one in run.history] == [one["learning_rate"] for one in whole.history]


@pytest.mark.parametrize("step", range(1, 13))
def test_every_place_of_the_epoch_goes_on(tmp_path, step):
    """Four updates an epoch, the last one of 8 rows; the history's sums go on in the middle too."""
    options = {"epochs": 3, "patience": 2, "metrics": ["accuracy", "f1", "roc_auc"]}
    wanted, whole = trained(None, **options)
    _, run = trained(tmp_path / "run", callbacks=[Stop(step)], **options)
    assert len(run.history) == step // 4 if step % 4 else step // 4 - 1 <= len(run.history) <= step // 4
    got, run = trained(tmp_path / "run", resume=True, **options)
    assert got == wanted and run.best_epoch == whole.best_epoch and run.state == whole.state

    def without_times(history):
        return [{name: value for name, value in one.items() if name != "seconds"} for one in history]

    assert without_times(run.history) == without_times(whole.history)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert without_times(map(json.loads, lines)) == without_times(whole.history)


def test_accumulation_weights_and_clipping_go_on(tmp_path):
    options = {
        "accumulate": 3, "batch_size": 5, "class_weight": "balanced", "sample_weight": np.linspace(0.5, 2, 70),
        "clip_norm": 0.5, "clip_value": 0.2, "checkpoint_steps": 1,
    }  # fmt: skip
    wanted, _ = trained(None, **options)
    for step in (1, 4, 5):
        folder = tmp_path / str(step)
        trained(folder, callbacks=[Stop(step)], **options)
        assert trained(folder, resume=True, **options)[0] == wanted


def test_batches_of_a_loader_and_of_a_function_go_on(tmp_path):
    x, y = rows()
    sources = {
        "loader": DataLoader((x, y), batch_size=16, shuffle=True, seed=4),
        "function": lambda epoch: ((x[k::5], y[k::5]) for k in range(5)),
    }
    for name, source in sources.items():
        wanted, _ = trained(None, data=source)
        trained(tmp_path / name, data=source, callbacks=[Stop(7)])
        assert trained(tmp_path / name, data=source, resume=True)[0] == wanted


def test_a_step_of_ones_own_goes_on(tmp_path):
    """With two optimizers, gradients that it accumulates over two calls, and the random numbers of NumPy and Python."""

    def run(folder, **options):
        model = network()
        optimizers = [
            optim.Adam(model[0].parameters()),
            optim.SGD(model[5].parameters(), lr=0.1, momentum=0.9),
        ]
        calls = Calls()

        def step(x, y):
            calls.count += 1
            noise = cr.tensor(np.random.standard_normal(x.shape), dtype=cr.float32)
            loss = cr.functional.cross_entropy(model(x + noise * 0.1), y) * (1 + random.random() / 10)
            loss.backward()
            for one in optimizers if calls.count % 2 == 0 else ():
                one.step()
                one.zero_grad()
            return loss

        np.random.seed(0)
        random.seed(0)
        callbacks = [calls, *options.pop("callbacks", ())]
        run = fit(
            model, rows(), step=step, optimizer=optimizers, folder=folder, epochs=4, progress=False,
            callbacks=callbacks, batch_size=16, **options,
        )  # fmt: skip
        return bits(model), run

    wanted, _ = run(None)
    run(tmp_path / "run", callbacks=[Stop(3)])
    got, resumed = run(tmp_path / "run", resume=True)
    assert got == wanted and resumed.resumed_at == (1, 3)
    with pytest.raises(ArgumentError, match="without optimizer="):
        fit(network(), rows(), step=lambda x, y: 0.0, folder=tmp_path / "other")


class Calls(Callback):
    """Counts the calls of a step."""

    count = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_temporary_buffers_frozen_layers_and_modes_go_on(tmp_path):
    class Drifting(nn.Module):
        def __init__(self):
            cr.manual_seed(0)
            self.inner = nn.Linear(4, 3)
            self.norm = nn.BatchNorm1d(3)
            self.register_buffer("drift", cr.zeros(3), persistent=False)

        def forward(self, x):
            if self.training:
                with cr.no_grad():
                    self.drift.copy_(self.drift * 0.9 + 0.1)
            return self.norm(self.inner(x)) + self.drift

    class Freeze(Callback):
        def on_epoch_begin(self, run, epoch):
            if epoch == 2:
                run.model.inner.requires_grad_(False)
                run.model.norm.eval()

    def run(folder, *more, **options):
        model = Drifting()
        callbacks = [Freeze(), *more]
        fit(
            model,
            rows(),
            batch_size=16,
            epochs=2,
            folder=folder,
            progress=False,
            callbacks=callbacks,
            **options,
        )
        return bits(model), model.drift.tolist()

    wanted = run(None)
    run(tmp_path / "run", Stop(6))
    assert run(tmp_path / "run", resume=True) == wanted


def test_weights_that_stood_column_by_column_in_memory(tmp_path):
    """A file keeps no order of axes, and BLAS gives other bits for the other order."""

    def run(folder, **options):
        generator = np.random.default_rng(1)
        model = network(64)
        for one in model.parameters():
            one.cell.write(np.asfortranarray(generator.normal(size=one.shape).astype(np.float32)))
        optimizer = optim.SGD(model.parameters(), lr=0.1)  # keeps the order of the axes
        fit(model, rows(200), optimizer=optimizer, epochs=2, folder=folder, progress=False, **options)
        assert all(one.cell.array.flags.c_contiguous for one in model.parameters())
        return bits(model)

    cr.manual_seed(1)
    wanted = run(None)
    cr.manual_seed(1)
    run(tmp_path / "run", callbacks=[Stop(2)])
    assert run(tmp_path / "run", resume=True) == wanted


class Counting(Callback):
    """A callback whose state decides what is learnt."""

    def __init__(self):
        self.count = 0

    def on_batch_end(self, run, batch):
        self.count += 1
        run.optimizer.param_groups[0]["lr"] = 0.1 / self.count

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_callbacks_with_a_state_go_on_and_are_missed(tmp_path):
    seen = []
    wanted, _ = trained(None, callbacks=[Counting()])
    trained(tmp_path / "run", callbacks=[Counting(), Stop(6)])
    with pytest.raises(RunError, match=r"needs the callbacks whose state was kept; got no Counting"):
        trained(tmp_path / "run", resume=True)
    got, _ = trained(tmp_path / "run", resume=True, callbacks=(one for one in (seen.append, Counting())))
    assert got == wanted and len(seen) == 3


# ------------------------------------------------------------------------------------------- ends, and beyond


def test_a_finished_run_returns_at_once_and_more_epochs_go_on(tmp_path):
    folder = tmp_path / "run"
    longer, _ = trained(None, epochs=6, patience=6)
    wanted, first = trained(folder, epochs=4, patience=6)

    def fail(record):
        raise AssertionError("nothing is left to train")

    got, run = trained(folder, epochs=4, patience=6, resume=True, callback=fail)
    assert got == wanted and run.history == first.history and run.score == first.score and run.restored
    assert trained(folder, epochs=2, patience=6, resume=True)[0] == wanted
    assert trained(folder, epochs=6, patience=6, resume=True)[0] == longer
    assert json.loads((folder / "run.json").read_text())["config"]["epochs"] == 6


def test_early_stopping_and_a_stop_of_a_callback_stay_ends(tmp_path):
    x, y = rows()
    options = {"validation": (x, np.roll(y, 1)), "epochs": 30}
    wanted, first = trained(tmp_path / "early", patience=2, **options)
    assert first.state == "early"
    got, run = trained(tmp_path / "early", patience=2, resume=True, **options)
    assert got == wanted and run.state == "early" and run.history == first.history
    _, run = trained(tmp_path / "early", patience=3, resume=True, **options)
    assert len(run.history) > len(first.history)

    class Enough(Callback):
        def on_batch_end(self, run, batch):
            if batch["step"] == 6:
                run.stop()

    wanted, first = trained(tmp_path / "stopped", callbacks=[Enough()])
    got, run = trained(tmp_path / "stopped", resume=True)
    assert got == wanted and (run.state, len(run.history)) == ("stopped", 2)
    assert len(trained(tmp_path / "stopped", resume=True, epochs=5)[1].history) == 5


@pytest.mark.parametrize(
    "options,words",
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"batch_size": 8}, "batch_size is 16 there and 8 here"),
        ({"width": 9}, r"the model's 0.weight is float32\(8, 4\) there and float32\(9, 4\) here"),
        ({"optimizer": OPTIMIZERS["sgd"]}, "optimizer is Adam there and SGD here"),
        ({"loss": nn.CrossEntropyLoss()}, "loss is 'cross_entropy' there and 'CrossEntropyLoss"),
        ({"data": rows(71)}, "the data, or how they are cut into batches, are not the same"),
        (
            {"batch_size": 8, "validation": 0.3},
            "/run': batch_size [^;]*; validation [^;]*$",
        ),
        ({"class_weight": {0: 2.0}}, "class_weight is None there and {'0': 2.0} here"),
        ({"data": DataLoader(rows(), batch_size=8)}, "the data, or how they are cut into batches"),
        ({"accumulate": 2}, "accumulate is 1 there and 2 here"),
        ({"scheduler": SCHEDULERS["step"]}, "scheduler is none there and StepLR here"),
        ({"patience": 3}, "restore_best is False there and True here"),
        ({"metrics": ["f1"]}, "metrics is accuracy there and f1 here"),
        ({"seed": 1, "clip_norm": 1.0}, "seed is 0 there and 1 here.*clip_norm is None there and 1.0 here"),
    ],
)
def test_another_training_is_refused_with_what_differs(tmp_path, options, words):
    trained(tmp_path / "run", epochs=1)
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(RunError, match=f"goes on with the same training; got another than that in .*{words}"):
        trained(tmp_path / "run", resume=True, **options)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["state"] == "finished" and (tmp_path / "run" / "run.json").read_bytes() == before


class Gain(nn.Module):
    """A module of the user's own, with a setting, a counter that it moves, and code."""

    power = 2

    def __init__(self, gain=1.0, call=None):
        self.gain, self.call, self.calls = gain, call, 0
        self.names = {"kind": "plain", "sizes": [1, 2]}

    def forward(self, x):
        self.calls += 1
        return x * self.gain if self.call is None else self.call(x)


class Stronger(Gain):
    power = 3


def scaled(by, offset=0.0):
    def loss(outputs, targets):
        return by * cr.functional.cross_entropy(outputs, targets) + offset

    return loss


def halved(outputs, targets):
    return cr.functional.cross_entropy(outputs, targets) * 0.5


def tripled(outputs, targets):
    return cr.functional.cross_entropy(outputs, targets) * 3.0


def less_one(outputs, targets):
    return cr.functional.cross_entropy(outputs, targets) - 0.5


def weighted(outputs, targets, by=1.0):
    return cr.functional.cross_entropy(outputs, targets) * by


class Scaling:
    def __init__(self, by):
        self.by = by

    def __call__(self, outputs, targets):
        return scaled(self.by)(outputs, targets)

    def loss(self, outputs, targets):
        return self(outputs, targets)


def made_of(*layers):
    cr.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), *layers, nn.Linear(8, 3))


# (how it begins, how it goes on, what is told): models and losses whose tensors have the same shapes.
CHANGES = {
    "activation": ((nn.ReLU(),), (nn.Tanh(),), "the model's 1 is ReLU there and Tanh here"),
    "dropout": ((nn.Dropout(0.5),), (nn.Dropout(0.25),), "the model's 1.p is 0.5 there and 0.25 here"),
    "slope": ((nn.LeakyReLU(0.1),), (nn.LeakyReLU(0.3),), "1.negative_slope is 0.1 there and 0.3 here"),
    "momentum": (
        (nn.BatchNorm1d(8, momentum=0.1),), (nn.BatchNorm1d(8, momentum=0.2),), "1.momentum is 0.1 there and 0.2 here"
    ),
    "epsilon": ((nn.LayerNorm(8),), (nn.LayerNorm(8, eps=1e-3),), "1.eps is 1e-05 there and 0.001 here"),
    "activation of a layer": (
        (nn.TransformerEncoderLayer(8, 2, 8),), (nn.TransformerEncoderLayer(8, 2, 8, activation="gelu"),), "activation"
    ),
    "attribute": ((Gain(1.0),), (Gain(2.0),), "1.gain is 1.0 there and 2.0 here"),
    "class": ((Gain(1.0),), (Stronger(1.0),), "1 is Gain there and Stronger here"),
    "function": ((Gain(1.0, cr.tanh),), (Gain(1.0, cr.sigmoid),), "call"),
    "lambda": ((Gain(1.0, lambda x: x * 2),), (Gain(1.0, lambda x: x * 3),), "constants is 2 there and 3 here"),
    "array": ((Gain(np.ones(8, "float32")),), (Gain(np.zeros(8, "float32")),), "1.gain is float32"),
    "tensor": ((Gain(cr.ones(8)),), (Gain(cr.zeros(8)),), "1.gain is float32"),
    "closure": (scaled(1.0), scaled(2.0), "the loss's by is 1.0 there and 2.0 here"),
    "second number": (scaled(1.0), scaled(1.0, 0.5), "the loss's offset is 0.0 there and 0.5 here"),
    "constant": (halved, tripled, "the loss's constants is 0.5 there and 3.0 here"),
    "code": (halved, less_one, "the loss's code is another"),
    "object": (Scaling(1.0), Scaling(2.0), "the loss.by is 1.0 there and 2.0 here"),
    "method": (Scaling(1.0).loss, Scaling(2.0).loss, "object.by is 1.0 there and 2.0 here"),
    "partial": (
        functools.partial(weighted, by=3.0), functools.partial(weighted, by=4.0), "3.0.* there and .*4.0.* here"
    ),
    "module": (
        nn.CrossEntropyLoss(label_smoothing=0.1), nn.CrossEntropyLoss(label_smoothing=0.2), "0.1 there and .*0.2 here"
    ),
}  # fmt: skip


def changed_run(folder, made, resume=False, epochs=2):
    model, loss = (
        (made_of(*copy.deepcopy(made)), "cross_entropy") if isinstance(made, tuple) else (made_of(), made)
    )
    cr.manual_seed(1)
    options = {"epochs": epochs, "batch_size": 16, "progress": False, "compile": False}
    return fit(model, rows(), loss=loss, folder=folder, resume=resume, **options)


@pytest.mark.parametrize("name", CHANGES)
def test_another_behaviour_of_the_same_shapes_is_noticed(tmp_path, name):
    begun, goes_on, words = CHANGES[name]
    changed_run(tmp_path / "run", begun)
    changed_run(tmp_path / "run", begun, resume=True, epochs=3)
    with pytest.raises(RunError, match=f"got another than that in .*{words}.*resume='changed' goes on"):
        changed_run(tmp_path / "run", goes_on, resume=True, epochs=4)
    with pytest.warns(RuntimeWarning, match=f"goes on as another one: .*{words}"):
        assert len(changed_run(tmp_path / "run", goes_on, resume="changed", epochs=4).history) == 4
    assert len(changed_run(tmp_path / "run", goes_on, resume=True, epochs=5).history) == 5


def test_what_training_itself_changes_is_no_difference(tmp_path):
    cr.manual_seed(0)
    model = made_of(Gain())
    options = {"batch_size": 16, "progress": False, "compile": False, "folder": tmp_path / "run"}
    fit(model, rows(), epochs=2, **options)
    assert model[1].calls > 0
    fit(model, rows(), epochs=3, resume=True, **options)  # the same object, which has counted
    assert len(fit(made_of(Gain()), rows(), epochs=4, resume=True, **options).history) == 4  # a new one


def test_changed_data_go_on_only_deliberately(tmp_path):
    x, y = rows(20)
    batches = [(x[k : k + 4], y[k : k + 4]) for k in range(0, 20, 4)]
    for k, (before, after) in enumerate(
        [(rows(70), rows(71)), (batches, batches[1:]), (batches, batches[::-1])]
    ):
        folder = tmp_path / str(k)
        trained(folder, data=before, epochs=1, validation=None)
        trained(folder, data=before, epochs=2, validation=None, resume=True)
        with pytest.raises(RunError, match="the data, or how they are cut into batches, are not the same"):
            trained(folder, data=after, epochs=3, validation=None, resume=True)
        with pytest.warns(RuntimeWarning, match="goes on as another one: the data"):
            trained(folder, data=after, epochs=3, validation=None, resume="changed")


def test_changed_does_not_let_another_state_pass(tmp_path):
    trained(tmp_path / "run", epochs=1)
    for options in ({"width": 9}, {"optimizer": OPTIMIZERS["sgd"]}, {"batch_size": 8}, {"seed": 3}):
        with pytest.raises(RunError, match="got another than that") as failure:
            trained(tmp_path / "run", resume="changed", **options)
        assert "resume='changed'" not in str(failure.value)
    with pytest.raises(ArgumentError, match="resume must be True, False or 'changed'; got 'yes'"):
        trained(tmp_path / "run", resume="yes")


_DESCRIBED = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import test_resume
from chainrule.train.behaviour import describe_behaviour
for name, (begun, _, _) in test_resume.CHANGES.items():
    layers, loss = (begun, None) if isinstance(begun, tuple) else ((), begun)
    for each in describe_behaviour(test_resume.made_of(*layers), {"loss": loss, "set": {"a", "b", "c"}}).items():
        print(name, *each)
    print(describe_behaviour(test_resume.made_of(), {"in": lambda x: x in {"a", "b", "c", "d"}}))
"""


def test_a_description_is_the_same_in_every_process():
    told = {
        subprocess.run(
            [sys.executable, "-c", _DESCRIBED, os.path.dirname(__file__)], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(told) == 1 and " at 0x" not in next(iter(told))


def test_other_hyper_parameters_are_told(tmp_path):
    wanted, _ = trained(None)
    trained(tmp_path / "run", callbacks=[Stop(6)])
    with pytest.warns(
        RuntimeWarning, match="keeps the hyper-parameters of its checkpoint; got others: lr=0.5 here"
    ):
        got, _ = trained(tmp_path / "run", lambda parameters: optim.Adam(parameters, lr=0.5), resume=True)
    assert got == wanted


# ------------------------------------------------------------------------------------------- signals


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread"
)
def test_ctrl_c_twice_ends_at_once_with_the_last_checkpoint(tmp_path):
    class Impatient(Callback):
        def on_batch_end(self, run, batch):
            if batch["step"] == 6:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                raise AssertionError("the second Ctrl-C ends the update")

    wanted, _ = trained(None)
    _, run = trained(tmp_path / "run", callbacks=[Impatient()], checkpoint_steps=2)
    assert run.state == "interrupted" and run.predict(rows()[0]).shape == (70,)
    assert len(run.history) == 1

    def look(record):
        lines.append(len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()))

    lines = []
    got, run = trained(tmp_path / "run", resume=True, checkpoint_steps=2, callback=look)
    assert got == wanted and run.resumed_at == (1, 4)
    assert lines == [
        1,
        2,
        3,
        4,
    ]  # the line of the first epoch, which the checkpoint did not know, was cut off


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread"
)
def test_the_second_ctrl_c_while_the_end_is_written(tmp_path):
    class Late(Callback):
        def on_train_end(self, run):
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(5)

    _, run = trained(tmp_path / "run", callbacks=[Stop(6), Late()])
    assert run.state == "interrupted" and load_run(tmp_path / "run", network()).state == "interrupted"


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from test_resume import *

class Tell(Callback):
    def on_batch_end(self, run, batch):
        print(batch["step"], flush=True)
        if batch["step"] >= 5:
            threading.Event().wait({pause})

wanted, run = trained({folder!r}, callbacks=[Tell()], epochs=2, checkpoint_seconds=None)
print(run, run.predict(rows()[0]).shape)
"""


def signalled(folder, number, pause=0.3):
    """(exit code, output) of a training in a process of its own that gets a signal in its sixth update."""
    code = PROGRAM.format(tests=os.path.dirname(__file__), folder=str(folder), pause=pause)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.strip() == "6":
            process.send_signal(number)
            break
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def test_ctrl_c_in_a_process_gives_a_usable_run_and_a_checkpoint(tmp_path):
    code, output, errors = signalled(tmp_path / "run", signal.SIGINT)
    assert code == 0 and "Run(interrupted after 1 epochs" in output and "(70,)" in output, errors
    assert load_run(tmp_path / "run", network()).state == "interrupted"
    wanted, _ = trained(None, epochs=2)
    got, run = trained(tmp_path / "run", resume=True, epochs=2)
    assert got == wanted and run.resumed_at == (2, 2)


def test_sigterm_writes_a_checkpoint_and_exits_with_143(tmp_path):
    code, output, errors = signalled(tmp_path / "run", signal.SIGTERM)
    assert code == 143 and not output and not errors
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "interrupted"
    wanted, _ = trained(None, epochs=2)
    got, run = trained(tmp_path / "run", resume=True, epochs=2)
    assert got == wanted and run.resumed_at == (2, 2)


def test_sigterm_without_a_folder_and_in_threads_is_left_alone(tmp_path):
    handlers = []

    def look(record):
        handlers.append(signal.getsignal(signal.SIGTERM))

    trained(None, callback=look, epochs=1)
    thread = threading.Thread(target=lambda: trained(tmp_path / "run", callback=look, epochs=1))
    thread.start()
    thread.join()
    assert handlers == [signal.SIG_DFL] * 2
    trained(tmp_path / "other", callback=look, epochs=1)
    assert handlers[2] is not signal.SIG_DFL and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
