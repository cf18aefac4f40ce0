"""fit: what it learns, repeats, stops at and refuses."""

import os
import signal
import threading

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.data.sources import epoch_order
from chainrule.errors import ArgumentError, DataError, ShapeError
from chainrule.train import fit


def blobs(rows=120, classes=3, seed=0):
    """Points around the corners of a triangle."""
    generator = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    centres = np.array([[0, 0], [4, 0], [0, 4]])
    return centres[y] + generator.normal(size=(rows, 2)), y


def network(outputs=3, seed=0):
    cr.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, outputs))


def quick(model, data, **options):
    return fit(
        model,
        data,
        **{"epochs": 15, "progress": False, "optimizer": optim.Adam(model.parameters(), lr=0.02), **options},
    )


def test_classes_are_learnt_and_scored_on_rows_held_back():
    run = quick(network(), blobs())
    assert run.stopped == "finished" and len(run.history) == 15
    assert set(run.history[0]) == {
        "epoch",
        "loss",
        "accuracy",
        "validation_loss",
        "validation_accuracy",
        "seconds",
    }
    assert run.history[-1]["loss"] < run.history[0]["loss"] / 2
    assert run.score["accuracy"] > 0.85
    x, y = blobs(seed=5)
    scored = run.evaluate(x, y)
    assert scored["accuracy"] == np.mean(run.predict(x) == y) > 0.85
    np.testing.assert_allclose(run.predict_proba(x).sum(axis=1), 1, rtol=1e-5)
    assert "finished after 15 epochs" in repr(run)


def test_the_validation_score_is_that_of_the_rows_given():
    held = blobs(seed=8)
    run = quick(network(), blobs(), validation=held, epochs=3)
    again = run.evaluate(*held)
    assert again == pytest.approx(run.score)


@pytest.mark.parametrize("loss", ["bce_with_logits", "bce", nn.BCEWithLogitsLoss()])
def test_two_classes_with_one_output(loss):
    x, y = blobs()
    model = network(1)
    if loss == "bce":
        model.append(nn.Sigmoid())
    run = quick(model, (x, (y > 0).astype(int)), loss=loss)
    assert run.score["accuracy"] > 0.85 and set(run.predict(x).tolist()) == {0, 1}
    probabilities = run.predict_proba(x)
    assert probabilities.shape == (120,)
    np.testing.assert_array_equal(run.predict(x), probabilities > 0.5)


def test_numbers_are_learnt_in_the_shape_they_came():
    x, _ = blobs()
    y = x[:, 0] * 2 - x[:, 1]
    run = quick(network(1), (x, y), loss="mse", epochs=40)
    assert run.predict(x).shape == y.shape
    assert np.mean((run.predict(x) - y) ** 2) < 0.1 * y.var()
    assert run.score["mean_absolute_error"] < 1
    with pytest.raises(ArgumentError, match="probabilities need a loss of classes; got one of numbers"):
        run.predict_proba(x)


def test_a_loss_and_a_metric_of_ones_own():
    x, y = blobs()

    def margin(outputs, targets):
        return ((outputs - targets) ** 4).mean()

    def largest(outputs, targets):
        return float(np.abs(outputs - targets).max())

    run = quick(network(1), (x, y[:, None].astype(float)), loss=margin, metrics=[largest], epochs=2)
    assert set(run.history[0]) == {
        "epoch",
        "loss",
        "largest",
        "validation_loss",
        "validation_largest",
        "seconds",
    }


def test_the_same_seed_gives_the_same_bits():
    first, second, other = (quick(network(), blobs(), seed=seed, epochs=3) for seed in (1, 1, 2))
    for name, weight in first.model.state_dict().items():
        np.testing.assert_array_equal(weight.numpy(), second.model.state_dict()[name].numpy())
    assert [one["loss"] for one in first.history] == [one["loss"] for one in second.history]
    assert [one["loss"] for one in first.history] != [one["loss"] for one in other.history]


def test_one_epoch_equals_the_loop_written_by_hand():
    x, y = blobs(rows=64)
    model, twin = network(), network()
    quick(
        model,
        (x, y),
        epochs=1,
        validation=None,
        batch_size=20,
        seed=4,
        optimizer=optim.SGD(model.parameters(), lr=0.1),
    )
    optimizer = optim.SGD(twin.parameters(), lr=0.1)
    order = epoch_order(64, seed=4, number=1)
    for start in range(0, 64, 20):
        rows = order[start : start + 20]
        optimizer.zero_grad()
        cr.functional.cross_entropy(twin(x[rows].astype(np.float32)), y[rows]).backward()
        optimizer.step()
    for mine, other in zip(model.parameters(), twin.parameters()):
        np.testing.assert_array_equal(mine.detach().numpy(), other.detach().numpy())


def test_early_stopping_puts_the_best_weights_back():
    x, y = blobs()
    wrong = np.roll(y, 1)  # what is learnt makes the validation loss worse
    model = network()
    best = []
    run = quick(
        model,
        (x, y),
        validation=(x, wrong),
        patience=2,
        callback=lambda record: best.append(model.state_dict()),
    )
    assert run.stopped == "early" and run.restored and len(run.history) == run.best_epoch + 2 < 15
    np.testing.assert_array_equal(
        model[0].weight.detach().numpy(), best[run.best_epoch - 1]["0.weight"].numpy()
    )
    assert run.score == pytest.approx(run.evaluate(x, wrong))


def test_float64_models_get_float64_data_and_modes_are_put_back():
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3, dtype="float64")).eval()
    run = fit(model, blobs(), epochs=1, progress=False)
    assert run.outputs([[1.0, 2.0]]).dtype == np.float64 and not model.training and not model[0].training


# ------------------------------------------------------------------------------------------- stopping


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread"
)
def test_ctrl_c_ends_with_a_run_that_can_be_used():
    def press(record):
        if record["epoch"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    run = quick(network(), blobs(), callback=press)
    assert run.stopped == "interrupted" and len(run.history) == 3
    assert run.predict([[0.0, 0.0]]).shape == (1,)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_from_anywhere_ends_with_a_run():
    def interrupt(record):
        raise KeyboardInterrupt

    run = quick(network(), blobs(), callback=interrupt)
    assert run.stopped == "interrupted" and len(run.history) == 1


def test_a_loss_that_is_not_finite_ends_before_the_step():
    model = network()
    with (
        np.errstate(all="ignore"),
        pytest.raises(
            ArgumentError,
            match=r"needs a finite loss; got (nan|inf) in epoch 1, batch \d+, with a learning rate of 1e\+30",
        ),
    ):
        quick(model, blobs(), optimizer=optim.SGD(model.parameters(), lr=1e30))
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def explode(record):
        optimizer.param_groups[0]["lr"] = 1e30

    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning, match="Use a lower learning rate"):
        run = quick(model, blobs(), optimizer=optimizer, callback=explode, restore_best=True)
    assert run.stopped == "diverged" and np.isfinite(run.outputs([[1.0, 1.0]])).all()


# ------------------------------------------------------------------------------------------- refusals


def broken(kind):
    x, y = blobs()
    x[7, 1] = np.nan
    return x if kind == "x" else y


@pytest.mark.parametrize(
    "data,words",
    [
        (
            lambda x, y: (broken("x"), y),
            r"X needs finite numbers; got nan in row 7, column 1 \(1 of 120 rows",
        ),
        (lambda x, y: (x, y + 1), r"classes are 0 to 2; got 1 to 3. Number the classes from 0: y - 1"),
        (lambda x, y: (x, y + 5), r"got 5 to 7. Give the last layer 8 outputs"),
        (lambda x, y: (x, y - 1), r"got -1 to 1. Number the classes from 0"),
        (lambda x, y: (x, y * 1.0), r"classes as whole numbers; got float64. Use y.astype\(int\)"),
        (
            lambda x, y: (x, np.array(["a", "b", "c"])[y]),
            r"y needs numbers; got <U1 such as 'a'. Encode them",
        ),
        (lambda x, y: (x, y[:-1]), "X and y need as many rows; got 120 and 119"),
        (lambda x, y: (x[:0], y[:0]), r"X needs rows; got shape \(0, 2\)"),
        (lambda x, y: (x, np.stack([y, y], 1)), r"one class for each row, shape \(120,\); got \(120, 2\)"),
    ],
)
def test_data_that_do_not_fit_are_refused_up_front(data, words):
    model = network()
    before = model.state_dict()["0.weight"].tolist()
    with pytest.raises(DataError, match=words):
        quick(model, data(*blobs()))
    assert model[0].weight.tolist() == before


def test_scores_of_sequences_are_told_where_classes_belong():
    tokens = np.arange(60).reshape(10, 6) % 9
    scores = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9))
    with pytest.raises(
        DataError, match=r"shape \(10, 9\); got \(10, 6\)\. Classes are the axis 1 .*\(0, 2, 1\)"
    ):
        quick(scores, (tokens, tokens))
    with pytest.raises(DataError, match=r"one tensor from the model; got a tuple\. Return the scores alone"):
        quick(nn.GRU(2, 3, batch_first=True), (np.ones((4, 5, 2), np.float32), np.arange(4) % 3))


@pytest.mark.parametrize(
    "options,words",
    [
        (
            {"loss": "crossentropy"},
            "loss must be cross_entropy, .*or a function.*Did you mean 'cross_entropy'",
        ),
        ({"epochs": 0}, "epochs must be a whole number from 1; got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"metrics": ["r2"]}, "a loss of classes has the metrics accuracy, .*; got 'r2'"),
        ({"validation": 1.5}, "validation must be a share"),
        ({"optimizer": "adam"}, r"Write optim.Adam\(model.parameters\(\)\)"),
        (
            {"optimizer": optim.SGD([cr.tensor([1.0], requires_grad=True)])},
            "must hold parameters of the model",
        ),
        ({"progress": "dots"}, "progress must be True, False or 'plain'"),
    ],
)
def test_arguments_without_meaning_are_refused(options, words):
    with pytest.raises(ArgumentError, match=words):
        quick(network(), blobs(), **options)


def test_other_refusals():
    x, y = blobs()
    with pytest.raises(ArgumentError, match=r"fit needs data as a pair \(X, y\); got ndarray"):
        quick(network(), x)
    with pytest.raises(ArgumentError, match="needs a model with parameters; got Sequential without any"):
        fit(nn.Sequential(nn.ReLU()), (x, y), progress=False)
    with pytest.raises(DataError, match=r"targets from 0 to 1; got 0 to 2\. For more than two classes"):
        quick(network(1), (x, y), loss="bce_with_logits")
    with pytest.raises(
        DataError,
        match=r"one number for each output of the model; got rows of shape \(\) for outputs of shape \(3,\)",
    ):
        quick(network(3), (x, y), loss="mse")
    with pytest.raises(DataError, match=r"a validation share of 0\.2 needs more rows; got 1"):
        quick(network(), (x[:1], y[:1]))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(1, 2), nn.Linear(1, 2)

    def forward(self, left, right):
        return self.one(left) + self.two(right)


@pytest.mark.parametrize("inputs,words", [
    (lambda x: {"left": x[:, :1], "rihgt": x[:, 1:]}, r"X goes to Pair\.forward\(left, right\); got a dict of 'left'"),
    (lambda x: (x[:, :1],) * 3, "got a tuple of 3"), (lambda x: x, "got one array"),
])  # fmt: skip
def test_inputs_that_forward_does_not_take(inputs, words):
    x, y = blobs(classes=2)
    with pytest.raises(DataError, match=words):
        quick(Pair(), (inputs(x), y))


def test_an_error_inside_forward_stays_what_it_is():
    class Broken(nn.Linear):
        def forward(self, x):
            return len(3)

    with pytest.raises(TypeError, match="has no len"):
        quick(Broken(2, 3), blobs())


@pytest.mark.parametrize("model,words", [
    (nn.Linear, r"got the class Linear\. Write Linear\(\)"), (lambda x: x, "got function. Build the model"),
    (np.random.default_rng(0), "got numpy.random._generator.Generator"),
])  # fmt: skip
def test_models_that_are_none(model, words):
    with pytest.raises(ArgumentError, match=words):
        fit(model, blobs())


@pytest.mark.parametrize("options,words", [
    ({"folder": 3}, "folder must be a path; got 3"), ({"restore_best": "yes"}, "restore_best must be True, False"),
    ({"loss": lambda outputs: outputs}, r"a loss is called with \(outputs, targets\).*takes \(outputs\)"),
    ({"step": lambda x: x}, r"a step is called with the inputs and the targets.*takes \(x\)"),
    ({"validation": np.zeros((5, 2))}, r"got ndarray \(5, 2\)"), ({"loss": "ce"}, "Use 'cross_entropy', with a model"),
    ({"loss": "binary_crossentropy"}, "Use 'bce_with_logits', or 'bce'"),
])  # fmt: skip
def test_options_that_do_not_fit(options, words):
    with pytest.raises(ArgumentError, match=words):
        quick(network(), blobs(), **options)


def test_numbers_of_numpy_are_numbers(tmp_path):
    """They come out of a search over settings, and go into a record that is JSON."""
    run = fit(
        network(), blobs(), epochs=np.int64(2), batch_size=np.int32(16), clip_norm=np.float32(1.0), seed=np.uint8(3),
        folder=tmp_path / "run", progress=False,
    )  # fmt: skip
    same = fit(network(), blobs(), epochs=2, batch_size=16, clip_norm=1.0, seed=3, progress=False)
    assert run.history[-1]["loss"] == same.history[-1]["loss"]


def test_one_row_or_one_feature_without_its_axis():
    x, y = blobs()
    run = quick(network(), (x, y))
    with pytest.raises(ShapeError, match=r"one row write X\.reshape\(1, -1\)"):
        run.predict(x[0])
    with pytest.raises(ShapeError, match=r"one row write X\.reshape\(1, -1\)"):
        run.predict_proba(x[0])
    with pytest.raises(
        ShapeError, match=r"one axis, and then: Linear.*one feature write X\.reshape\(-1, 1\)"
    ):
        quick(nn.Linear(1, 3), (x[:, 0], y))


def test_nothing_to_learn():
    with pytest.raises(ArgumentError, match=r"parameters that require grad.*requires_grad_\(True\)"):
        quick(network().requires_grad_(False), blobs())


def test_warnings_name_the_line_of_the_user():
    x, _ = blobs()
    model = nn.Linear(2, 1)
    rate = optim.SGD(model.parameters(), lr=10.0)
    with pytest.warns(RuntimeWarning, match="training ended early") as caught:
        fit(model, (x, x[:, :1]), loss="mse", optimizer=rate, epochs=60, progress=False)
    assert [one.filename for one in caught] == [__file__]
