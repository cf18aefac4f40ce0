"""Networks side by side, cross-validation and rivals: against figures worked out another way."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn

pandas = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from scipy import stats  # noqa: E402
from sklearn.linear_model import LogisticRegression, Ridge  # noqa: E402

from chainrule.data.reading import Reading, Table  # noqa: E402
from chainrule.data.tabular import bundled  # noqa: E402
from chainrule.errors import ArgumentError  # noqa: E402
from chainrule.tensor.random import default_generator  # noqa: E402
from chainrule.train.networks import (  # noqa: E402
    Networks,
    accuracy,
    average,
    class_loss,
    deal,
    number_loss,
    shares_of,
    soft_labels,
)
from chainrule.train.rivals import (  # noqa: E402
    Difference,
    corrected_interval,
    linear_predictions,
    paired_difference,
)
from chainrule.train.tabular import Settings, make_networks, plan_table, predict_rows, train_plan  # noqa: E402
from chainrule.train.validation import CrossValidation, cross_validate, fold_rows  # noqa: E402


def one_of(model, k):
    """Network k of several, as layers of `nn`."""
    layers = []
    for module in model:
        if isinstance(module, nn.ReLU):
            layers.append(nn.ReLU())
            continue
        layer = nn.Linear(module.in_features, module.out_features)
        layer.load_state_dict({"weight": module.weight[k].detach(), "bias": module.bias[k, 0].detach()})
        layers.append(layer)
    return nn.Sequential(*layers)


def test_networks_side_by_side_are_ordinary_networks():
    model = make_networks((3, 8, 4, 2), 5, seed=1)
    x = cr.tensor(np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32))
    found = model(x).detach().numpy()
    assert found.shape == (6, 5, 2)
    for k in range(5):
        np.testing.assert_allclose(found[:, k], one_of(model, k)(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(average(found), found.mean(axis=1), rtol=1e-6)
    assert len({one.tobytes() for one in model.hidden1.weight.detach().numpy()}) == 5, "drawn apart"
    names = [name for name, _ in model.named_parameters()]
    assert names == [
        f"{layer}.{kind}" for layer in ("hidden1", "hidden2", "output") for kind in ("weight", "bias")
    ]


def test_each_network_learns_what_it_would_alone():
    """The gradient of network k is that of its own rows' mean loss, times a factor for all."""
    model, generator = make_networks((3, 4, 2), 3, seed=2), np.random.default_rng(1)
    x = generator.normal(size=(30, 3)).astype(np.float32)
    labels = generator.integers(0, 2, 30)
    parts = deal(labels, 30, seed=0, parts=3)
    learnt, judged = shares_of(parts, 3)
    assert (learnt.sum(axis=1) == 1).all() and (judged.sum(axis=1) == 1).all() and not (learnt * judged).any()
    targets = {"truth": cr.tensor(soft_labels(labels, 2, 0.1)), "shares": cr.tensor(learnt)}
    class_loss(model(cr.tensor(x)), targets).backward()
    for k in range(3):
        alone, rows = one_of(model, k), parts != k
        loss = nn.CrossEntropyLoss(label_smoothing=0.1)(alone(cr.tensor(x[rows])), cr.tensor(labels[rows]))
        loss.backward()
        np.testing.assert_allclose(
            model.hidden1.weight.grad.numpy()[k] * 3, alone[0].weight.grad.numpy(), rtol=1e-3, atol=1e-6
        )


def test_rows_are_judged_by_the_network_that_has_not_seen_them():
    parts = np.array([0, 1, 2, 0, 1, 2])
    _, judged = shares_of(parts, 3)
    answers = np.zeros((6, 3, 2), np.float32)
    answers[np.arange(6), parts, 1] = 1.0  # only the judge of each row says class 1
    truth = soft_labels(np.array([1, 1, 1, 1, 1, 0]), 2, 0.0)
    assert accuracy(answers, {"truth": truth, "shares": judged}) == pytest.approx(5 / 6)
    numbers = np.arange(18, dtype=np.float32).reshape(6, 3, 1)
    wanted = numbers[np.arange(6), parts, 0]
    loss = number_loss(cr.tensor(numbers), {"truth": cr.tensor(wanted + 2), "shares": cr.tensor(judged)})
    assert loss.item() == pytest.approx(4.0)


def test_rows_are_dealt_in_equal_shares_and_by_the_seed():
    labels = np.array([0] * 40 + [1] * 7 + [2] * 3)
    parts = deal(labels, 50, seed=3)
    for label in range(3):
        counts = np.bincount(parts[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert (np.bincount(parts) == 10).all()
    assert (deal(labels, 50, seed=3) == parts).all() and (deal(labels, 50, seed=4) != parts).any()
    assert (deal(None, 50, seed=3) != parts).any()


def test_a_weight_for_every_class_lets_classes_count_alike():
    generator = np.random.default_rng(0)
    x = np.concatenate([generator.normal(0, 1, 190), generator.normal(1.2, 1, 10)])
    frame = pandas.DataFrame({"x": x, "z": generator.normal(size=200), "y": ["a"] * 190 + ["b"] * 10})
    table = Table(frame, Reading("t.csv", "utf-8", ",", 200, 3, ()))
    recalls = {}
    for weight in (None, "balanced"):
        plan = plan_table(table, "y", settings=Settings(class_weight=weight, epochs=60))
        train_plan(plan)
        predicted = predict_rows(plan.model, plan.preparation, plan.preparation.transform(frame))[0]
        recalls[weight] = (predicted[190:] == "b").mean()
    assert recalls["balanced"] > recalls[None] + 0.2


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_tables_of_few_rows_are_learnt_without_a_fault(rows):
    frame = pandas.DataFrame({"x": np.arange(9.0) ** 2, "y": np.arange(9.0)})
    table = Table(frame, Reading("t.csv", "utf-8", ",", 9, 2, ()))
    plan = plan_table(table, "y", settings=Settings(epochs=3), rows=(np.arange(rows), np.arange(rows, 9)))
    outcome = train_plan(plan)
    assert np.isfinite(outcome.score["r2"]) and plan.model.count == min(rows, 5)


def test_the_users_own_random_numbers_stay_where_they_were():
    cr.manual_seed(5)
    expected = default_generator.get_state()
    train_plan(plan_table(bundled("iris"), "species", settings=Settings(epochs=1, seed=3)))
    assert default_generator.get_state() == expected


# ------------------------------------------------------------------------------------------- cross-validation


def test_folds_are_complete_stratified_and_dealt_anew():
    plan = plan_table(bundled("iris"), "species", settings=Settings(epochs=1))
    splits = fold_rows(plan, 5, 2)
    assert len(splits) == 10
    for repeat in (splits[:5], splits[5:]):
        assert sorted(np.concatenate([test for _, test in repeat]).tolist()) == list(range(150))
        for training, test in repeat:
            assert not {*training} & {*test} and len(training) == 120
            names = plan.table.frame["species"].iloc[test]
            assert names.value_counts().tolist() == [10, 10, 10]
    assert not np.array_equal(splits[0][1], splits[5][1])
    for folds, repeats in ((1, 1), (151, 1), (5, 0)):
        with pytest.raises(ArgumentError, match="must be"):
            fold_rows(plan, folds, repeats)


def test_scores_that_are_known_already_are_not_found_again():
    plan = plan_table(bundled("iris"), "species", settings=Settings(epochs=15))
    noted = []
    whole = cross_validate(plan, folds=3, note=lambda scores, total: noted.append((len(scores), total)))
    again = cross_validate(plan, folds=3, done=whole.scores[:2])
    assert noted == [(1, 3), (2, 3), (3, 3)] and again == whole
    assert again.to_json()["mean"]["network"] == whole.mean("network")


def test_the_interval_is_that_of_nadeau_and_bengio():
    values = [0.81, 0.84, 0.79, 0.9, 0.86, 0.83, 0.85, 0.8, 0.88, 0.82]
    low, high = corrected_interval(values, tested=30, trained=120)
    spread = np.sqrt((1 / 10 + 30 / 120) * np.var(values, ddof=1))
    expected = stats.t.interval(0.95, 9, loc=np.mean(values), scale=spread)
    assert (low, high) == pytest.approx(expected)
    plain = stats.t.interval(0.95, 9, loc=np.mean(values), scale=stats.sem(values))
    assert low < plain[0] and high > plain[1], "folds share rows, so the interval is wider"
    assert corrected_interval([0.5], 1, 4) == (-np.inf, np.inf)


def test_the_difference_of_two_models_is_taken_fold_by_fold():
    scores = tuple(
        {"network": {"r2": 0.6 + k / 50}, "linear": {"r2": 0.5 + k / 50}, "baseline": {"r2": 0.0}}
        for k in range(6)
    )
    found = CrossValidation(3, 2, 80.0, 40.0, scores)
    assert found.difference.value == pytest.approx(0.1) and found.difference.verdict == "better"
    low, high = found.interval("network", "r2")
    assert low < 0.65 < high, "the scores vary far more than their difference"


# ------------------------------------------------------------------------------------------- rivals


def test_the_linear_model_is_scikit_learns():
    generator = np.random.default_rng(0)
    x, unseen = (
        generator.normal(size=(60, 3)).astype(np.float32),
        generator.normal(size=(9, 3)).astype(np.float32),
    )
    labels = (x @ [1.0, -1.0, 0.5] > 0.3).astype(np.int64)
    found = linear_predictions(x, labels, unseen, classes=True, balanced=True)
    assert (found == LogisticRegression(class_weight="balanced").fit(x, labels).predict(unseen)).all()
    y = (x @ np.array([1.0, 2.0, 3.0])).astype(np.float32)
    found = linear_predictions(x, y, unseen, classes=False, balanced=False)
    np.testing.assert_allclose(found, Ridge().fit(x, y).predict(unseen), rtol=1e-4)
    assert (linear_predictions(x, np.full(60, 1), unseen, classes=True, balanced=False) == 1).all()


def test_verdicts():
    generator = np.random.default_rng(0)
    linear, noise = generator.normal(size=80), generator.normal(size=80)
    for shift, verdict in ((1.0, "better"), (-1.0, "worse"), (0.0, "open")):
        found = paired_difference("m", linear + shift + noise / 3, linear)
        expected = stats.ttest_rel(linear + shift + noise / 3, linear).confidence_interval()
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
        assert found.verdict == verdict == found.to_json()["verdict"]
    assert paired_difference("m", np.ones(1), np.zeros(1)).verdict == "open"
    same = paired_difference("m", np.ones(5), np.ones(5))
    assert same == Difference("m", 0.0, 0.0, 0.0) and same.verdict == "same"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"epochs": 0}, "epochs must be a whole number from 1; got 0"),
        ({"networks": 0}, "networks must be a whole number from 1"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"learning_rate": float("nan")}, "the learning rate must be above 0; got nan"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1"),
        ({"class_weight": "equal"}, "class_weight must be none or balanced; got 'equal'"),
    ],
)
def test_settings_without_meaning(wrong, words):
    with pytest.raises(ArgumentError, match=words):
        plan_table(bundled("iris"), "species", settings=Settings(**wrong))


def test_a_model_of_one_network():
    plan = plan_table(bundled("iris"), "species", settings=Settings(networks=1, epochs=40))
    outcome = train_plan(plan)
    assert plan.model.count == 1 and outcome.score["accuracy"] > 0.8
    assert "validation_loss" in outcome.run.history[0], "a fifth is held back all the same"
    assert isinstance(plan.model, Networks)
