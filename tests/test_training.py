"""fit beyond the plain case: own steps, weights, accumulation, batches, several inputs, schedulers, callbacks."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.data.loader import DataLoader
from chainrule.errors import ArgumentError, DataError
from chainrule.train import Callback, evaluate, fit, predict


def rows(count=70, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, 4))
    return x, (x @ generator.normal(size=(4, 3))).argmax(axis=1)


def network(seed=0):
    cr.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def trained(data=None, model=None, **options):
    """(the weights after training, the run) with SGD and without rows held back."""
    model = model or network()
    defaults = {
        "optimizer": None if "step" in options else optim.SGD(model.parameters(), lr=0.5),
        "epochs": 3,
        "validation": None,
        "progress": False,
    }
    run = fit(model, rows() if data is None else data, **{**defaults, **options})
    return np.concatenate([one.numpy().reshape(-1) for one in model.state_dict().values()]), run


# ------------------------------------------------------------------------------------------- accumulation, weights


WEIGHTED = [
    {},
    {"sample_weight": np.linspace(0, 2, 70)},
    {"class_weight": "balanced"},
    {"loss": nn.CrossEntropyLoss(weight=cr.tensor([1.0, 2.0, 5.0], dtype=cr.float64))},
    {"loss": nn.CrossEntropyLoss(ignore_index=1)},
    {"clip_norm": 0.1},
    {"clip_value": 0.01},
]


@pytest.mark.parametrize("options", WEIGHTED, ids=lambda one: "-".join(one) or "plain")
def test_accumulated_batches_equal_one_big_batch(options):
    # 70 rows: five batches of 8 make an update of 40, then three of 8 and one of 6 make one of 30.
    big, first = trained(batch_size=40, **options)
    small, second = trained(batch_size=8, accumulate=5, **options)
    np.testing.assert_allclose(small, big, rtol=0, atol=1e-14)
    assert second.history[-1]["loss"] == pytest.approx(first.history[-1]["loss"], rel=1e-14)
    assert not np.allclose(big, trained(batch_size=8, **options)[0])


def test_accumulation_of_a_summed_loss_adds_up():
    big, _ = trained(batch_size=40, loss=nn.CrossEntropyLoss(reduction="sum"), clip_norm=0.1)
    small, _ = trained(batch_size=8, accumulate=5, loss=nn.CrossEntropyLoss(reduction="sum"), clip_norm=0.1)
    np.testing.assert_allclose(small, big, rtol=0, atol=1e-14)


def test_class_weights_give_the_update_of_pytorch(torch):
    utils = pytest.importorskip("sklearn.utils.class_weight")
    x, y = rows()
    balanced = utils.compute_class_weight("balanced", classes=np.arange(3), y=y)
    model = network()
    layers = [torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)]
    theirs = torch.nn.Sequential(*layers).double()
    theirs.load_state_dict({name: torch.tensor(one.numpy()) for name, one in model.state_dict().items()})
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        logits = theirs(torch.tensor(x))
        weight = torch.tensor(balanced)
        torch.nn.functional.cross_entropy(logits, torch.tensor(y), weight=weight).backward()
        optimizer.step()
    wanted = np.concatenate([one.detach().numpy().reshape(-1) for one in theirs.state_dict().values()])
    for rule in ("balanced", dict(enumerate(balanced.tolist())), balanced):
        got, _ = trained((x, y), model=network(), batch_size=70, class_weight=rule)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)
    got, _ = trained((x, y), model=network(), batch_size=70, sample_weight=balanced[y])
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)


def test_weights_of_rows_and_of_classes_multiply():
    x, y = rows()
    weights = np.linspace(0.5, 2, 70)
    both, _ = trained((x, y), batch_size=70, sample_weight=weights, class_weight={1: 4.0})
    product, _ = trained((x, y), batch_size=70, sample_weight=weights * np.where(y == 1, 4.0, 1.0))
    np.testing.assert_array_equal(both, product)
    assert not np.allclose(both, trained((x, y), batch_size=70, sample_weight=weights)[0])


def test_a_weight_of_zero_leaves_a_row_out_and_metrics_count_every_row():
    x, y = rows()
    kept = np.arange(70) < 50
    without, _ = trained((x[kept], y[kept]), batch_size=70)
    zero, run = trained((x, y), batch_size=70, sample_weight=kept.astype(float))
    np.testing.assert_allclose(zero, without, rtol=0, atol=1e-13)
    model = run.model
    scored = run.evaluate(x, y)
    assert scored["accuracy"] == np.mean(predict(model, x, loss="cross_entropy") == y)
    weighted = run.evaluate(x, y, sample_weight=kept.astype(float))
    assert weighted == pytest.approx(run.evaluate(x[kept], y[kept]))


def test_rows_held_back_have_weights_too():
    x, y = rows()
    weights = np.where(y == 0, 5.0, 1.0)
    _, run = trained((x, y), validation=(x, y, weights), epochs=1)
    wanted = evaluate(run.model, (x, y), sample_weight=weights)
    assert run.score["loss"] == pytest.approx(wanted["loss"])
    assert run.score["accuracy"] == pytest.approx(evaluate(run.model, (x, y))["accuracy"])
    _, run = trained((x, y), validation=(x, y), class_weight={0: 5.0}, epochs=1)
    assert run.score["loss"] == pytest.approx(evaluate(run.model, (x, y), sample_weight=weights)["loss"])


def test_a_function_as_loss_takes_weights_if_it_has_a_reduction():
    x, _ = rows()
    target = x.sum(axis=1, keepdims=True) * [1.0, 0.5, 0.25]

    def quartic(outputs, targets, reduction="mean"):
        losses = ((outputs - targets) ** 4).mean(axis=1)
        return losses if reduction == "none" else losses.mean()

    plain, _ = trained((x, target), loss=quartic, optimizer=None, batch_size=70)
    weighted, _ = trained(
        (x, target), loss=quartic, optimizer=None, batch_size=70, sample_weight=np.full(70, 3.0)
    )
    np.testing.assert_allclose(plain, weighted, atol=1e-14)
    with pytest.raises(ArgumentError, match="weights of rows need the loss of each row"):
        trained((x, target), loss=lambda a, b: ((a - b) ** 2).mean(), sample_weight=np.ones(70))


# ------------------------------------------------------------------------------------------- a step of one's own


def own_step(model, optimizer):
    def step(x, y):
        optimizer.zero_grad()
        outputs = model(x)
        loss = cr.functional.cross_entropy(outputs, y)
        loss.backward()
        optimizer.step()
        return loss, outputs

    return step


def test_a_step_of_ones_own_equals_that_of_fit():
    wanted, run = trained()
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    got, own = trained(model=model, step=own_step(model, optimizer), optimizer=optimizer)
    np.testing.assert_array_equal(got, wanted)
    assert [one["accuracy"] for one in own.history] == [one["accuracy"] for one in run.history]


def test_a_compiled_step_of_ones_own():
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    got, _ = trained(
        model=model, step=cr.compile(own_step(model, optimizer)), optimizer=optimizer, batch_size=35
    )
    np.testing.assert_allclose(got, trained(batch_size=35)[0], atol=1e-12)


def test_a_step_without_a_loss_and_a_function_as_one():
    model = network()

    def step(x, y):
        return float(model(x).sum())

    _, run = trained(model=model, step=step, loss=None, validation=0.2, metrics=[], epochs=2)
    assert set(run.history[0]) == {"epoch", "loss", "seconds"} and run.optimizer is None

    def largest(outputs, targets):
        return float(outputs.max())

    _, run = trained(model=model, step=step, loss=None, validation=0.2, metrics=[largest], epochs=1)
    assert set(run.score) == {"largest"} and set(run.evaluate(*rows())) == {"largest"}


def test_two_optimizers_in_one_step():
    model = network()
    first, second = optim.SGD(model[0].parameters(), lr=0.5), optim.SGD(model[2].parameters(), lr=0.5)

    def step(x, y):
        loss = cr.functional.cross_entropy(model(x), y)
        loss.backward()
        for one in (first, second):
            one.step()
            one.zero_grad()
        return loss

    got, run = trained(model=model, step=step, optimizer=[first, second])
    np.testing.assert_array_equal(got, trained()[0])
    assert run.optimizer == [first, second]


@pytest.mark.parametrize(
    "options,words",
    [
        ({"step": lambda x, y: None}, "step must return the loss as one number; got NoneType"),
        ({"step": lambda x, y: x}, r"step must return the loss as one number; got a tensor of shape \(32, 4\)"),
        ({"step": "mine"}, r"step must be a function \(x, y\) → loss; got str"),
        ({"step": lambda x, y: 1.0, "clip_norm": 1.0}, "does the whole update; got clip_norm beside it"),
        ({"step": lambda x, y: 1.0, "accumulate": 2}, "does the whole update; got accumulate beside it"),
        ({"loss": None}, "training needs a loss; got None"),
        ({"loss": lambda outputs, targets: 1.0}, "a loss must be one number, a Tensor; got float"),
        (
            {"loss": lambda outputs, targets: cr.tensor(1.0)},
            "a loss must depend on parameters that require grad; got a tensor without gradient",
        ),
        ({"loss": lambda outputs, targets: outputs * 2}, r"a loss must be one number, a Tensor; got shape \(32, 3\)"),
        ({"clip_norm": 0}, "clip_norm must be a number above 0; got 0"),
        ({"accumulate": 0}, "accumulate must be a whole number from 1"),
        ({"optimizer": [1, 2]}, "one optimizer updates the model; got 2"),
        ({"callbacks": [Callback]}, r"got the class Callback. Write Callback\(\)"),
        ({"callbacks": [3]}, "a callback is a cr.Callback or a function of each epoch's record; got int"),
        ({"metrics": {"loss": lambda a, b: 1.0}}, "a metric needs a name of its own; got 'loss'"),
        ({"resume": True}, "resume=True needs the folder of the run"),
        ({"monitor": "val_accuracy"}, "monitor must be one of loss, accuracy; got 'val_accuracy'"),
        ({"validation": 0.2, "monitor": "val_loss"}, "Did you mean 'validation_loss'"),
        ({"loss": "mse", "class_weight": "balanced"}, "y needs one number|class_weight needs a loss of classes"),
        ({"metrics": [lambda a, b: 0.0], "monitor": "lambda"}, "says which way is better"),
    ],
)  # fmt: skip
def test_refusals(options, words):
    with pytest.raises((ArgumentError, DataError), match=words):
        trained(**options)


# ------------------------------------------------------------------------------------------- where batches come from


def test_a_loader_a_list_and_a_function_of_the_epoch():
    data = rows()
    wanted, _ = trained(data, batch_size=20, seed=3)
    loader = DataLoader(data, batch_size=20, shuffle=True, seed=3)
    np.testing.assert_array_equal(trained(loader)[0], wanted)
    batches = [(data[0][:40], data[1][:40]), (data[0][40:], data[1][40:])]
    listed, run = trained(batches)
    called, _ = trained(lambda epoch: iter(batches))
    np.testing.assert_array_equal(listed, called)
    assert run.predict(data[0]).shape == (70,)
    _, run = trained(loader, validation=loader, epochs=1)
    assert run.score == pytest.approx(run.evaluate(loader))
    assert run.score == pytest.approx(run.evaluate(data))


def test_batches_of_weights_and_of_whole_numbers():
    x, y = rows()
    weights = np.linspace(0.1, 1, 70)
    wanted, _ = trained((x, y), sample_weight=weights, batch_size=35, seed=1)
    loader = DataLoader((x, y), batch_size=35, shuffle=True, seed=1, sample_weight=weights)
    np.testing.assert_array_equal(trained(loader)[0], wanted)
    whole = (x * 10).astype(np.int64)
    got, _ = trained([(whole, y)])
    np.testing.assert_array_equal(got, trained([(whole.astype(np.float64), y)])[0])
    with pytest.raises(ArgumentError, match="gets x and y; got batches with weights of rows beside them"):
        trained(loader, step=lambda x, y: 1.0)
    wanted, _ = trained((x, y), class_weight={0: 3.0}, batch_size=35, seed=1)
    loader = DataLoader((x, y), batch_size=35, shuffle=True, seed=1)
    np.testing.assert_array_equal(trained(loader, class_weight={0: 3.0})[0], wanted)
    for data in ((x, y), loader):
        _, run = trained(data, class_weight={0: 3.0}, validation=loader, epochs=1)
        heavy = np.where(y == 0, 3.0, 1.0)
        assert run.score["loss"] == pytest.approx(evaluate(run.model, (x, y), sample_weight=heavy)["loss"])


def test_batches_that_cannot_be():
    x, y = rows()
    with pytest.raises(DataError, match="a generator of batches lasts for one epoch"):
        trained(iter([(x, y)]), epochs=2)
    with pytest.raises(DataError, match="an epoch needs a batch at least; got none in epoch 1"):
        trained(lambda epoch: [])
    with pytest.raises(ArgumentError, match="a share is held back from arrays"):
        trained([(x, y)], validation=0.3)
    with pytest.raises(ArgumentError, match="sample_weight goes with arrays"):
        trained([(x, y)], sample_weight=np.ones(70))
    with pytest.raises(ArgumentError, match="counts the classes of arrays"):
        trained([(x, y)], class_weight="balanced")
    with pytest.raises(DataError, match=r"classes are 0 to 2; got 0 to 7"):
        trained([(x, y), (x, np.where(y == 1, 7, y))])
    with pytest.raises(ArgumentError, match=r"fit needs data as a pair \(X, y\); got ndarray"):
        trained(x)


class TwoInputs(nn.Module):
    """Numbers beside a category."""

    def __init__(self):
        cr.manual_seed(1)
        self.embedding = nn.Embedding(5, 3)
        self.linear = nn.Linear(7, 3)

    def forward(self, numbers, category):
        return self.linear(cr.concat([numbers, self.embedding(category)], axis=1))


def test_several_inputs_as_a_tuple_and_a_dict():
    x, y = rows()
    category = np.arange(70) % 5
    one, run = trained(((x, category), y), model=TwoInputs(), optimizer=None, validation=0.2)
    other, _ = trained(
        ({"category": category, "numbers": x}, y), model=TwoInputs(), optimizer=None, validation=0.2
    )
    np.testing.assert_array_equal(one, other)
    assert run.predict((x, category)).shape == (70,)
    assert set(run.evaluate((x, category), y)) == {"loss", "accuracy"}
    loader = DataLoader(((x, category), y), batch_size=32, shuffle=True)
    looped, _ = trained(loader, model=TwoInputs(), optimizer=None)
    np.testing.assert_array_equal(looped, trained(((x, category), y), model=TwoInputs(), optimizer=None)[0])


# ------------------------------------------------------------------------------------------- schedulers, watching


def test_schedulers_step_after_epochs_or_updates():
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    _, run = trained(model=model, optimizer=optimizer, scheduler=optim.lr_scheduler.StepLR(optimizer, 1, 0.5))
    assert [one["learning_rate"] for one in run.history] == [1.0, 0.5, 0.25]
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=10)
    trained(model=model, scheduler=scheduler, optimizer=None)
    assert scheduler.last_epoch == 9  # three epochs of three updates


def test_reduce_on_plateau_sees_what_is_monitored():
    x, y = rows()
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.1, patience=0)

    def falling(outputs, targets):
        falling.value -= 1
        return falling.value

    falling.value = 0.0
    falling.higher_is_better = True
    options = {"metrics": [falling], "monitor": "falling"}
    _, run = trained((x, y), model=model, optimizer=optimizer, scheduler=scheduler, batch_size=70, **options)
    assert [one["learning_rate"] for one in run.history] == pytest.approx(
        [1.0, 1.0, 0.1]
    ) and run.best_epoch == 1
    with pytest.raises(ArgumentError, match="got mode='max' for loss, of which lower is better"):
        trained((x, y), model=model, optimizer=optimizer, scheduler=scheduler)
    with pytest.raises(ArgumentError, match="a scheduler must hold the optimizer that is used"):
        trained((x, y), scheduler=optim.lr_scheduler.StepLR(optimizer, 1))
    with pytest.raises(
        ArgumentError, match=r"scheduler must be one of chainrule.optim.lr_scheduler; got the class"
    ):
        trained((x, y), scheduler=optim.lr_scheduler.StepLR)


def test_the_best_epoch_by_a_metric_puts_weights_and_buffers_back():
    x, y = rows()
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double()
    states = []
    _, run = trained(
        (x, y), model=model, validation=(x, np.roll(y, 1)), monitor="validation_accuracy", patience=3, epochs=40,
        callback=lambda record: states.append(model.state_dict()),
    )  # fmt: skip
    values = [one["validation_accuracy"] for one in run.history]
    assert run.stopped == "early" and run.best_epoch == int(np.argmax(values)) + 1 == len(values) - 3
    for name, one in model.state_dict().items():
        np.testing.assert_array_equal(one.numpy(), states[run.best_epoch - 1][name].numpy())


def test_dropout_and_batchnorm_are_in_the_right_mode():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append((self.training, len(x)))
            return x

    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), Spy(), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    model.eval()
    model[3].train()
    fit(model, rows(), epochs=2, validation=0.2, batch_size=28, progress=False)
    # The probe of two rows, then each epoch two batches and the 14 rows held back.
    assert seen == [(False, 2)] + [(True, 28), (True, 28), (False, 14)] * 2
    assert [one.training for one in model.modules()] == [False, False, False, False, True, False]


def test_batchnorm_and_a_last_batch_of_one_row():
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()
    batches = []

    class Count(Callback):
        def on_batch_end(self, run, batch):
            batches.append(batch["batch"])

    trained(rows(41), model=model, optimizer=None, batch_size=20, epochs=1, callbacks=Count())
    assert batches == [1, 2]
    batches.clear()
    trained(rows(41), batch_size=20, epochs=1, callbacks=Count())
    assert batches == [1, 2, 3]


# ------------------------------------------------------------------------------------------- callbacks


class Recorder(Callback):
    def __init__(self):
        self.events = []

    def on_train_begin(self, run):
        self.events.append(("begin", run.state, run.model.training))

    def on_epoch_begin(self, run, epoch):
        self.events.append(("epoch", epoch, run.model.training))

    def on_batch_end(self, run, batch):
        self.events.append(("batch", batch["epoch"], batch["batch"], batch["step"]))

    def on_epoch_end(self, run, record):
        assert run.history[-1] is record
        self.events.append(("end of epoch", record["epoch"]))

    def on_train_end(self, run):
        self.events.append(("end", run.state))


def test_callbacks_are_told_in_order():
    recorder, records = Recorder(), []
    trained(callbacks=[recorder, records.append], epochs=2, batch_size=40)
    assert recorder.events == [
        ("begin", "running", True), ("epoch", 1, True), ("batch", 1, 1, 1), ("batch", 1, 2, 2), ("end of epoch", 1.0),
        ("epoch", 2, True), ("batch", 2, 1, 3), ("batch", 2, 2, 4), ("end of epoch", 2.0), ("end", "finished"),
    ]  # fmt: skip
    assert [one["epoch"] for one in records] == [1.0, 2.0]


def test_a_callback_can_end_the_training():
    class Enough(Callback):
        def on_batch_end(self, run, batch):
            if batch["step"] == 4:
                run.stop()

    _, run = trained(callbacks=[Enough()], batch_size=30)
    assert run.state == run.stopped == "stopped" and len(run.history) == 2
    _, run = trained(callback=lambda record: run.stop())  # that of the run before: nothing happens
    assert run.state == "finished"


def test_a_gradient_that_is_not_finite_changes_nothing():
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()
    before = model.state_dict()

    @cr.custom_gradient
    def broken(x):
        return x, lambda g: g * float("nan")

    def loss(outputs, targets):
        return cr.functional.cross_entropy(broken(outputs), targets)

    with pytest.raises(
        ArgumentError, match=r"needs a finite gradient of 0.weight; got nan in epoch 1, batch 2,"
    ):
        trained(model=model, loss=loss, optimizer=None, batch_size=20, accumulate=2)
    for name, one in model.state_dict().items():
        np.testing.assert_array_equal(one.numpy(), before[name].numpy())
    assert all(one.grad is None for one in model.parameters())


def test_evaluate_and_predict_without_a_run():
    x, y = rows()
    _, run = trained((x, y))
    assert evaluate(run.model, (x, y)) == run.evaluate((x, y))
    np.testing.assert_array_equal(predict(run.model, x), run.outputs(x))
    np.testing.assert_array_equal(predict(run.model, x, loss="cross_entropy"), run.predict(x))
    with pytest.raises(ArgumentError, match=r"evaluate needs data as a pair \(X, y\); got ndarray"):
        evaluate(run.model, x)


def test_a_step_that_returns_only_the_loss_has_no_training_metrics():
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x, y):
        loss = cr.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    data = (np.eye(2, dtype="float32").repeat(5, 0), np.array([0, 1]).repeat(5))
    run = cr.fit(model, data, step=step, epochs=1, validation=0.2, progress=False)
    assert "accuracy" not in run.history[0] and "validation_accuracy" in run.history[0]
