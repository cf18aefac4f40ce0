"""Losses by name with weights of rows, and data made fit for a model: dtypes, shapes, faults told by place."""

import functools

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn
from chainrule.errors import ArgumentError, DataError, DtypeError
from chainrule.train.losses import find_loss
from chainrule.train.problem import (
    inputs_for,
    make_problem,
    measure,
    refuse_one_class,
    run_model,
    targets_for,
    tensors_of,
)

ROWS, CLASSES = 12, 4


def example(name, seed=0):
    """(outputs, targets) that fit the loss."""
    generator = np.random.default_rng(seed)
    out = generator.normal(size=(ROWS, CLASSES))
    if name in ("mse", "l1", "huber", "smooth_l1"):
        return out, generator.normal(size=(ROWS, CLASSES))
    if name == "bce":
        return 1 / (1 + np.exp(-out)), generator.integers(0, 2, out.shape).astype(float)
    if name == "bce_with_logits":
        return out, generator.integers(0, 2, out.shape).astype(float)
    scores = out - np.log(np.exp(out).sum(axis=1, keepdims=True))
    if name == "kl_div":
        share = generator.uniform(size=out.shape)
        return scores, share / share.sum(axis=1, keepdims=True)
    return (scores if name == "nll" else out), generator.integers(0, CLASSES, ROWS)


NAMES = ["cross_entropy", "nll", "kl_div", "bce", "bce_with_logits", "mse", "l1", "huber", "smooth_l1"]


def value(loss, outputs, targets, weights=None):
    return make_problem(loss, ()).loss(tensors_of(outputs), tensors_of(targets), weights).item()


# ------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("name", NAMES)
def test_weights_repeat_rows(name):
    out, y = example(name)
    counts = np.array([3, 0, 1, 1, 2, 1, 0, 0, 1, 1, 4, 1])
    rows = np.repeat(np.arange(ROWS), counts)
    assert value(name, out, y, counts * 0.5) == pytest.approx(value(name, out[rows], y[rows]), rel=1e-12)
    assert value(name, out, y, np.ones(ROWS)) == pytest.approx(value(name, out, y), rel=1e-12)
    assert value(name, out, y, np.zeros(ROWS)) == 0


MODULES = {
    "weighted classes": (nn.CrossEntropyLoss(weight=[1.0, 2.0, 0.5, 3.0], ignore_index=1), "cross_entropy"),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.2), "cross_entropy"),
    "likelihood": (nn.NLLLoss(weight=[1.0, 2.0, 0.5, 3.0]), "nll"),
    "positive": (nn.BCEWithLogitsLoss(pos_weight=[1.0, 2.0, 3.0, 4.0]), "bce_with_logits"),
    "wide": (nn.HuberLoss(delta=0.3), "huber"),
    "rows": (nn.KLDivLoss(reduction="batchmean"), "kl_div"),
    "places": (nn.KLDivLoss(), "kl_div"),
    "sum": (nn.MSELoss(reduction="sum"), "mse"),
    "partial": (functools.partial(F.cross_entropy, label_smoothing=0.2), "cross_entropy"),
    "function": (F.smooth_l1_loss, "smooth_l1"),
}


@pytest.mark.parametrize("which", MODULES)
def test_weights_repeat_rows_of_losses_with_options(which):
    loss, name = MODULES[which]
    out, y = example(name)
    counts = np.array([3, 0, 1, 1, 2, 1, 0, 0, 1, 1, 4, 1])
    rows = np.repeat(np.arange(ROWS), counts)
    assert value(loss, out, y, counts) == pytest.approx(value(loss, out[rows], y[rows]), rel=1e-6)
    assert value(loss, out, y) == pytest.approx(loss(tensors_of(out), tensors_of(y)).item(), rel=1e-12)
    assert find_loss(loss).kind == find_loss(name).kind
    if isinstance(loss, nn.Module):
        assert loss.reduction != "none"


def test_weights_of_rows_with_several_places_and_ignored_classes():
    generator = np.random.default_rng(0)
    out, y = generator.normal(size=(5, 3, 4)), generator.integers(0, 3, (5, 4))
    y[0] = y[2, 1:] = -100
    counts = np.array([2, 1, 3, 0, 1])
    rows = np.repeat(np.arange(5), counts)
    assert value("cross_entropy", out, y, counts) == pytest.approx(value("cross_entropy", out[rows], y[rows]))


def test_gradients_of_weighted_rows():
    out, y = example("cross_entropy")
    weights = np.arange(ROWS, dtype=np.float64)
    logits = cr.tensor(out, requires_grad=True)
    make_problem("cross_entropy", ()).loss(logits, tensors_of(y), weights).backward()
    share = np.exp(out) / np.exp(out).sum(axis=1, keepdims=True) - np.eye(CLASSES)[y]
    np.testing.assert_allclose(logits.grad.numpy(), share * (weights / weights.sum())[:, None], rtol=1e-12)


def test_functions_with_and_without_reduction():
    def own(outputs, targets, reduction="mean"):
        losses = (outputs - targets) ** 4
        return losses if reduction == "none" else losses.mean()

    out, y = example("mse")
    counts = np.array([3, 0, 1, 1, 2, 1, 0, 0, 1, 1, 4, 1])
    rows = np.repeat(np.arange(ROWS), counts)
    assert value(own, out, y, counts) == pytest.approx(value(own, out[rows], y[rows]))
    assert find_loss(own).kind == "custom"
    with pytest.raises(
        ArgumentError, match="weights of rows need the loss of each row; got the function <lambda>"
    ):
        value(lambda a, b: (a - b).mean(), out, y, counts)
    with pytest.raises(ArgumentError, match=r"must return a number for each of 12 rows; got shape \(\)"):
        value(lambda a, b, reduction="mean": (a - b).mean(), out, y, counts)
    with pytest.raises(ArgumentError, match=r"a loss must be one number, a Tensor; got shape \(12, 4\)"):
        value(lambda a, b: a - b, out, y)
    with pytest.raises(ArgumentError, match="a loss must be one number, a Tensor; got float"):
        value(lambda a, b: 1.0, out, y)


@pytest.mark.parametrize("loss,words", [
    ("crossentropy", "loss must be cross_entropy, nll, .* got 'crossentropy'. Did you mean 'cross_entropy'"),
    ("hubber", "Did you mean 'huber'"), ("rmsle", "or a function; got 'rmsle'"),
    (nn.MSELoss, "got the class MSELoss"), (3, "got int"), (None, "got NoneType"),
])  # fmt: skip
def test_losses_that_are_none(loss, words):
    with pytest.raises(ArgumentError, match=words):
        find_loss(loss)


def test_other_words_for_losses():
    for word, name in {"mae": "l1", "mse_loss": "mse", "binary_cross_entropy": "bce"}.items():
        assert find_loss(word) is find_loss(name)


def test_loss_and_metrics_of_all_rows():
    out, y = example("cross_entropy")
    weights = np.arange(ROWS, dtype=np.float64)
    problem = make_problem("cross_entropy", ["accuracy", "f1"])
    found = measure(problem, out, y, weights)
    assert found["loss"] == pytest.approx(value("cross_entropy", out, y, weights))
    assert found["accuracy"] == pytest.approx(np.average(out.argmax(axis=1) == y, weights=weights))
    assert list(found) == ["loss", "accuracy", "f1"]


# ------------------------------------------------------------------------------------------- inputs


class Words(nn.Module):
    """Takes whole numbers alone."""

    def __init__(self):
        self.table = nn.Parameter(np.arange(12, dtype=np.float32).reshape(4, 3))

    def forward(self, ids):
        if ids.dtype.kind == "f":
            raise DtypeError("ids must be whole")
        return cr.take(self.table, ids, axis=0)


class Both(nn.Module):
    def __init__(self):
        self.words, self.linear = Words(), nn.Linear(2, 3)

    def forward(self, ids, counts):
        return self.words(ids) + self.linear(counts)


def test_whole_numbers_stay_whole_where_the_model_takes_them():
    assert inputs_for(nn.Linear(2, 1), [[1, 2], [3, 4]]).dtype == np.float32
    assert inputs_for(nn.Linear(2, 1, dtype="float64"), [[True, False]]).dtype == np.float64
    assert inputs_for(Words(), [0, 3, 1]).dtype == np.int64
    ids, counts = inputs_for(Both(), ([0, 3, 1], [[1, 2], [3, 4], [5, 6]]))
    assert ids.dtype == np.int64 and counts.dtype == np.float32
    named = inputs_for(Both(), {"ids": [0, 3, 1], "counts": np.ones((3, 2))})
    assert named["ids"].dtype == np.int64 and named["counts"].dtype == np.float32
    assert run_model(Both(), named).shape == (3, 3)
    with pytest.raises(DtypeError, match="ids must be whole"):
        inputs_for(nn.Sequential(Words(), Words()), [0, 1])


def test_numbers_too_large_for_the_model_are_told():
    with pytest.raises(
        DataError, match=r"numbers of float64 are too large for the model's float32\. Scale them"
    ):
        inputs_for(nn.Linear(1, 1), [[1e300]])


def test_data_are_not_copied_without_need():
    x = np.ones((5, 2), np.float32)
    assert np.shares_memory(inputs_for(nn.Linear(2, 1), x), x)


def test_outputs_of_several_chunks_and_trees():
    class Two(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(1, 2)

        def forward(self, x):
            return {"a": self.linear(x), "b": (x,)}

    x = np.arange(2500, dtype=np.float32)[:, None]
    model = Two()
    out = run_model(model, x)
    assert out["a"].shape == (2500, 2) and model.training
    np.testing.assert_array_equal(out["b"][0], x)
    with pytest.raises(
        ArgumentError, match="the model must return a Tensor, or a tuple or dict of them; got float"
    ):
        run_model(Returning(), x)


class Returning(nn.Module):
    def forward(self, x):
        return 1.0


# ------------------------------------------------------------------------------------------- targets


def targets(loss, y, outputs):
    return targets_for(make_problem(loss, ()), y, np.zeros(outputs, np.float32), len(y))


def test_targets_as_losses_need_them():
    assert (
        targets("mse", [1, 2], (2, 1)).shape == (2, 1) and targets("mse", [1, 2], (2, 1)).dtype == np.float32
    )
    assert targets("cross_entropy", np.array([[0], [1]], np.uint8), (2, 3)).tolist() == [0, 1]
    assert targets("cross_entropy", [0, -100], (2, 3)).tolist() == [0, -100]
    assert targets("kl_div", np.full((2, 3), 1 / 3), (2, 3)).dtype == np.float32
    own = make_problem(lambda a, b: a, ())
    found = targets_for(own, {"a": [1, 2], "b": [[0.5], [1.5]]}, np.zeros((2, 1), np.float32), 2)
    assert found["a"].dtype == np.int64 and found["b"].dtype == np.float32


@pytest.mark.parametrize("loss,y,outputs,words", [
    ("cross_entropy", [0.5, 1.0], (2, 3), r"whole numbers; got float64 such as 0\.5\. Use loss='mse'"),
    ("cross_entropy", [0.0, 1.0], (2, 3), r"got float64\. Use y\.astype\(int\), or use loss='mse'"),
    ("cross_entropy", [0, 3], (2, 3), r"classes are 0 to 2; got 0 to 3\. Give the last layer 4 outputs"),
    ("cross_entropy", [-100, -100], (2, 3), "a row whose class is not ignored; got none"),
    ("cross_entropy", [0, 1], (2,), r"needs outputs \(rows, classes\); got \(2,\)"),
    ("nll", np.full((2, 3), 1 / 3), (2, 3), "nll needs classes as whole numbers"),
    ("kl_div", [0, 1], (2, 3), r"kl_div needs a probability for each class, .* Use loss='cross_entropy'"),
    ("bce", [0, 2], (2, 1), "targets from 0 to 1; got 0 to 2"),
    ("l1", [[1, 2], [3, 4]], (2, 1), r"one number for each output of the model; got rows of shape \(2,\)"),
    ("mse", ([1, 2], [3, 4]), (2, 1), "one array of targets; got a tuple"),
    ("mse", [1.0, np.nan], (2, 1), "y needs finite numbers; got nan in row 1"),
])  # fmt: skip
def test_targets_that_do_not_fit(loss, y, outputs, words):
    with pytest.raises(DataError, match=words):
        targets(loss, y, outputs)


def test_one_class_alone_is_refused_for_training():
    x = np.random.default_rng(0).normal(size=(20, 2))
    for loss, outputs in (("cross_entropy", 2), ("bce_with_logits", 1)):
        with pytest.raises(DataError, match="rows of two classes at least; got class 1 in all 20 rows"):
            cr.fit(nn.Linear(2, outputs), (x, np.ones(20, int)), loss=loss, validation=None, progress=False)
    refuse_one_class(make_problem("cross_entropy", ()), np.array([1]))
    refuse_one_class(make_problem("bce", ()), np.array([0.5, 0.5]))
    refuse_one_class(make_problem("mse", ()), np.array([1.0, 1.0]))
