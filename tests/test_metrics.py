"""Metrics: the numbers of scikit-learn, batch by batch, with ties, weights, missing classes and one class."""

import json
import warnings

import numpy as np
import pytest

from chainrule.errors import ArgumentError
from chainrule.train.metrics import FunctionMetric, make_metrics

sklearn = pytest.importorskip("sklearn.metrics")


def reference(function, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


CLASSES = {
    "accuracy": lambda y, z, w: sklearn.accuracy_score(y, z.argmax(1), sample_weight=w),
    "balanced_accuracy": lambda y, z, w: sklearn.balanced_accuracy_score(y, z.argmax(1), sample_weight=w),
    "precision": lambda y, z, w: sklearn.precision_score(
        y, z.argmax(1), average="macro", zero_division=0, sample_weight=w
    ),
    "recall": lambda y, z, w: sklearn.recall_score(
        y, z.argmax(1), average="macro", zero_division=0, sample_weight=w
    ),
    "f1": lambda y, z, w: sklearn.f1_score(y, z.argmax(1), average="macro", zero_division=0, sample_weight=w),
    "log_loss": lambda y, z, w: sklearn.log_loss(
        y, softmax(z), labels=np.arange(z.shape[1]), sample_weight=w
    ),
    "top_2_accuracy": lambda y, z, w: sklearn.top_k_accuracy_score(
        y, z, k=2, labels=np.arange(z.shape[1]), sample_weight=w
    ),
    "top_3_accuracy": lambda y, z, w: sklearn.top_k_accuracy_score(
        y, z, k=3, labels=np.arange(z.shape[1]), sample_weight=w
    ),
}
BINARY = {
    "accuracy": lambda y, p, w: sklearn.accuracy_score(y, p > 0.5, sample_weight=w),
    "balanced_accuracy": lambda y, p, w: sklearn.balanced_accuracy_score(y, p > 0.5, sample_weight=w),
    "precision": lambda y, p, w: sklearn.precision_score(y, p > 0.5, zero_division=0, sample_weight=w),
    "recall": lambda y, p, w: sklearn.recall_score(y, p > 0.5, zero_division=0, sample_weight=w),
    "f1": lambda y, p, w: sklearn.f1_score(y, p > 0.5, zero_division=0, sample_weight=w),
    "log_loss": lambda y, p, w: sklearn.log_loss(y, p, labels=[0, 1], sample_weight=w),
    "roc_auc": lambda y, p, w: sklearn.roc_auc_score(y, p, sample_weight=w),
    "average_precision": lambda y, p, w: sklearn.average_precision_score(y, p, sample_weight=w),
}
NUMBERS = {
    "mean_absolute_error": sklearn.mean_absolute_error,
    "mae": sklearn.mean_absolute_error,
    "mse": sklearn.mean_squared_error,
    "rmse": sklearn.root_mean_squared_error,
    "mape": sklearn.mean_absolute_percentage_error,
    "r2": sklearn.r2_score,
}


def streamed(metric, outputs, targets, weights, cuts=(0, 7, 7, 31, 64)):
    """The metric after batches of several sizes, one of them empty, with its state taken over half way."""
    ends = [*cuts[1:], len(targets)]
    for place, (start, stop) in enumerate(zip(cuts, ends)):
        metric.update(
            outputs[start:stop], targets[start:stop], None if weights is None else weights[start:stop]
        )
        if place == 2:
            state = metric.state_dict()
            metric.reset()
            assert np.isnan(metric.compute())
            metric.load_state_dict(state)
    return metric.compute()


def drawn_weights(generator, rows, weighted):
    return generator.integers(0, 4, rows) * 0.5 if weighted else None


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("name", CLASSES)
def test_metrics_of_classes(name, weighted, missing):
    for seed in range(5):
        generator = np.random.default_rng(seed)
        z = generator.integers(-3, 4, (90, 5)) / 2  # many ties
        y = generator.integers(0, 3 if missing else 5, 90)
        w = drawn_weights(generator, 90, weighted)
        metric = make_metrics([name], "classes")[name]
        found = streamed(metric, z, y, w)
        assert found == pytest.approx(reference(CLASSES[name], y, z, w), rel=1e-12), seed
        assert metric(z, y, w) == pytest.approx(found, rel=1e-12)
        assert metric.higher_is_better is (name != "log_loss")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("name", BINARY)
def test_metrics_of_two_classes_with_one_output(name, logits, weighted):
    for seed in range(5):
        generator = np.random.default_rng(seed)
        z = generator.integers(-4, 5, (90, 1)) / 2
        y = generator.integers(0, 2, (90, 1)).astype(np.float64)
        w = drawn_weights(generator, 90, weighted)
        metric = make_metrics([name], "binary", logits)[name]
        found = streamed(metric, z if logits else sigmoid(z), y, w)
        expected = reference(BINARY[name], y[:, 0].astype(int), sigmoid(z)[:, 0], w)
        assert found == pytest.approx(expected, rel=1e-12), seed


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("name", NUMBERS)
def test_metrics_of_numbers(name, columns, weighted):
    for seed in range(5):
        generator = np.random.default_rng(seed)
        # Far from zero: sums of squares alone would lose all digits of r2.
        y = generator.normal(size=(90, columns)) + 1e4
        out = y + generator.normal(size=(90, columns)) / 3
        w = drawn_weights(generator, 90, weighted)
        found = streamed(make_metrics([name], "numbers")[name], out, y, w)
        assert found == pytest.approx(NUMBERS[name](y, out, sample_weight=w), rel=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_area_under_the_curve_of_several_classes(classes, weighted):
    for seed in range(5):
        generator = np.random.default_rng(seed)
        z = generator.normal(size=(30, classes))[generator.integers(0, 30, 90)]  # rows that are equal: ties
        y = generator.integers(0, classes, 90)
        w = drawn_weights(generator, 90, weighted)
        p = softmax(z)
        for name, function in {
            "roc_auc": sklearn.roc_auc_score,
            "average_precision": sklearn.average_precision_score,
        }.items():
            each = [function(y == one, p[:, one], sample_weight=w) for one in range(classes)]
            found = streamed(make_metrics(name, "classes")[name], z, y, w)
            assert found == pytest.approx(np.mean(each), rel=1e-9), seed
        given = make_metrics("roc_auc", "classes", logits=False)["roc_auc"](p, y, w)
        if classes > 2 and w is None:
            assert given == pytest.approx(sklearn.roc_auc_score(y, p, multi_class="ovr", average="macro"))


def test_one_class_alone():
    z = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    y = np.zeros(3, int)
    metrics = make_metrics(["accuracy", "balanced_accuracy", "f1", "recall", "roc_auc"], "classes")
    found = {name: metric(z, y) for name, metric in metrics.items()}
    assert found["accuracy"] == found["balanced_accuracy"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(reference(sklearn.f1_score, y, z.argmax(1), average="macro"))
    assert np.isnan(found["roc_auc"])
    binary = make_metrics(["precision", "recall", "average_precision"], "binary")
    assert [binary[name](np.array([1.0, -1.0]), np.zeros(2)) for name in ("precision", "recall")] == [0, 0]
    assert np.isnan(binary["average_precision"](np.array([1.0, -1.0]), np.zeros(2)))


def test_constant_targets_and_single_rows():
    r2 = make_metrics("r2", "numbers")["r2"]
    assert np.isnan(r2(np.array([1.0]), np.array([1.0])))
    constant = np.full(10, 0.1)
    assert r2(constant, constant) == 1 and r2(constant + 1, constant) == 0
    r2.update(constant[:3] + 1, constant[:3])
    r2.update(constant, constant)
    assert r2.compute() == 0


def test_probabilities_as_targets_ignored_classes_and_places_of_a_row():
    generator = np.random.default_rng(0)
    z, y = generator.normal(size=(20, 3)), generator.integers(0, 3, 20)
    metrics = make_metrics(["accuracy", "f1", "log_loss", "roc_auc"], "classes")
    soft = np.eye(3)[y]
    for metric in metrics.values():
        assert metric(z, soft) == metric(z, y)
        ignored = np.where(np.arange(20) < 5, -100, y)
        assert metric(z, ignored) == pytest.approx(metric(z[5:], y[5:]), rel=1e-12)
        # Places of one row have the row's weight.
        places, labels = z.reshape(5, 4, 3).transpose(0, 2, 1), y.reshape(5, 4)
        w = np.arange(5.0)
        assert metric(places, labels, w) == pytest.approx(metric(z, y, np.repeat(w, 4)), rel=1e-12)


def test_log_loss_stays_finite_where_it_can():
    metric = make_metrics("log_loss", "binary", logits=True)["log_loss"]
    assert metric(np.array([1000.0, -1000.0]), np.array([1.0, 0.0])) == 0
    assert metric(np.array([-1000.0]), np.array([1.0])) == 1000
    certain = make_metrics("log_loss", "binary", logits=False)["log_loss"]
    y, p = np.array([1.0, 0.0]), np.array([0.0, 0.0])
    assert certain(p, y) == pytest.approx(sklearn.log_loss(y, p, labels=[0, 1]))


def test_functions_of_ones_own_and_names_of_entries():
    def largest_error(outputs, targets):
        return np.abs(outputs - targets).max()

    metrics = make_metrics([largest_error, "mae", largest_error, lambda a, b: 1.0], "custom")
    assert list(metrics) == ["largest_error", "mae", "largest_error_2", "lambda"]
    one = metrics["largest_error"]
    assert one.higher_is_better is False and metrics["lambda"].higher_is_better is None
    one.update(np.array([1.0, 2.0]), np.array([0.0, 0.0]))
    one.update(np.array([5.0]), np.array([0.0]))
    assert one.compute() == 3  # (2 · 2 rows + 5 · 1 row) / 3 rows
    assert (
        make_metrics({"size": lambda outputs, targets: outputs.size}, "classes")["size"](np.ones(4), 0) == 4
    )
    assert list(make_metrics(None, "classes")) == ["accuracy"] and not make_metrics(None, "custom")
    largest_error.higher_is_better = True
    assert FunctionMetric("a", largest_error).higher_is_better is True


def test_a_custom_loss_is_read_from_outputs_and_targets():
    accuracy = make_metrics("accuracy", "custom")["accuracy"]
    assert accuracy(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1, 1])) == 0.5
    assert accuracy(np.array([[2.0], [-1.0]]), np.array([[1.0], [1.0]])) == 0.5


def test_states_are_small_and_plain():
    generator = np.random.default_rng(0)
    z, y = generator.normal(size=(1000, 3)), generator.integers(0, 3, 1000)
    metrics = make_metrics(["accuracy", "f1", "log_loss", "top_2_accuracy"], "classes")
    for metric in metrics.values():
        metric.update(z, y)
        assert len(json.dumps(metric.state_dict())) < 400
        assert f"{metric.compute():.6g}" in repr(metric)


@pytest.mark.parametrize(
    "names,kind,words",
    [
        (["acuracy"], "classes", r"got 'acuracy'\. Did you mean 'accuracy'\?"),
        (["F1"], "classes", "Did you mean 'f1'"),
        (["top_5"], "classes", "Did you mean 'top_5_accuracy'"),
        (["nothing like it"], "classes", r"metrics by name are accuracy, .*\. Or give a function"),
        (["r2"], "classes", "a loss of classes has the metrics accuracy, .* got 'r2'"),
        (["accuracy"], "numbers", "a loss of numbers has the metrics mean_absolute_error"),
        ([3], "classes", "a metric is a name or a function"),
        ([sklearn.f1_score], "classes", "takes the targets first and classes. Use a name such as 'f1'"),
    ],
)
def test_names_that_are_not_known(names, kind, words):
    with pytest.raises(ArgumentError, match=words):
        make_metrics(names, kind)


def test_outputs_that_do_not_fit():
    metrics = make_metrics(["accuracy"], "classes") | make_metrics(["mae"], "numbers")
    with pytest.raises(ArgumentError, match=r"need outputs \(rows, classes\); got \(3,\)"):
        metrics["accuracy"](np.ones(3), np.ones(3, int))
    with pytest.raises(ArgumentError, match=r"need one class for each row; got \(2,\) for outputs \(3, 2\)"):
        metrics["accuracy"](np.ones((3, 2)), np.ones(2, int))
    with pytest.raises(ArgumentError, match=r"of one shape; got \(3,\) and \(2,\)"):
        metrics["mae"](np.ones(3), np.ones(2))
    with pytest.raises(ArgumentError, match="must return one number; got str from 'words'"):
        FunctionMetric("words", lambda outputs, targets: "no")(np.ones(3), np.ones(3))
