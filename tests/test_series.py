"""Windows over time series: what is predicted lies behind what is seen, and no later number reaches the training."""

import json

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.data import DataLoader, Scaling, SeriesWindows, train_test_split
from chainrule.errors import ArgumentError, DataError


def steps(count=40, columns=2):
    return np.arange(count * columns, dtype=float).reshape(count, columns)


# ------------------------------------------------------------------------------------------- windows


def test_targets_are_the_steps_after_the_inputs():
    windows = SeriesWindows(np.arange(12.0), 4, 2, scaling=None)
    x, y = windows.arrays()
    assert x.shape == (7, 4, 1) and y.shape == (7, 2) and x.dtype == y.dtype == np.float32
    np.testing.assert_array_equal(x[:, :, 0], np.arange(7)[:, None] + np.arange(4))
    np.testing.assert_array_equal(y, np.arange(7)[:, None] + [4, 5])
    apart = SeriesWindows(np.arange(12.0), 4, 2, stride=3, scaling=None)
    assert apart.starts().tolist() == [0, 3, 6] and apart[-1][1].tolist() == [10, 11] and len(apart) == 3
    assert windows.size_in_memory == x.nbytes + y.nbytes
    assert repr(windows) == "SeriesWindows(7 windows of 4 steps and 2 to predict, over steps 0 to 11)"


def test_columns_are_chosen_by_number_or_name():
    pandas = pytest.importorskip("pandas")
    values = steps()
    frame = pandas.DataFrame(values, columns=["load", "wind"])
    assert SeriesWindows(values, 3, 2).arrays()[1].shape == (36, 2, 2)
    assert SeriesWindows(values, 3, 2, target=1).arrays()[1].shape == (36, 2)
    assert SeriesWindows(frame[["load"]], 3, 2).arrays()[1].shape == (36, 2, 1)
    assert SeriesWindows(frame["load"], 3, 2).arrays()[1].shape == (36, 2)
    for target, shape in (("wind", (36, 2)), (["wind"], (36, 2, 1)), (-1, (36, 2))):
        windows = SeriesWindows(frame, 3, 2, target=target)
        x, y = windows.arrays()
        assert x.shape == (36, 3, 2) and y.shape == shape
        np.testing.assert_allclose(
            windows.unscale(y).reshape(36, 2), values[:, 1][windows.starts()[:, None] + [3, 4]], 1e-6
        )


@pytest.mark.parametrize("length,horizon,stride,sizes", [
    (1, 1, 1, (0.2,)), (5, 3, 1, (0.2,)), (5, 3, 2, (0.3, 0.2)), (7, 1, 3, (10, 9)), (3, 8, 1, (8,)),
])  # fmt: skip
def test_nothing_leaks_backwards(length, horizon, stride, sizes):
    values = steps(80, 1)[:, 0]
    whole = SeriesWindows(values, length, horizon, stride=stride)
    parts = whole.split(*sizes)
    cut = 0
    for place, part in enumerate(parts):
        x, y = part.arrays()
        seen, wanted = part.scaling.scale(values), part.unscale(y)
        np.testing.assert_allclose(wanted[:, 0] - length, part.starts(), atol=1e-4)
        assert len(part) == len(x) and part.scaling.offset == parts[0].scaling.offset
        assert wanted.min() > cut - 1e-3  # numbers are their own times
        np.testing.assert_allclose(x[:, 0, 0], seen[part.starts()], rtol=1e-5, atol=1e-5)
        if place:  # the first target of a later part is the first step behind the cut
            assert abs(wanted.min() - cut) < stride + 1e-3
        assert wanted.max() < part._end - 1 + 1e-3
        cut = part._end
    training = parts[0]
    fitted = values[: training._end]
    assert training.scaling.offset[0] == pytest.approx(fitted.mean())
    assert training.scaling.factor[0] == pytest.approx(fitted.std())


def test_later_numbers_change_nothing_in_the_training_part():
    values = np.sin(np.arange(60.0))
    changed = values.copy()
    changed[48:] = 1000
    one, other = (SeriesWindows(v, 5, 2).split(0.2)[0] for v in (values, changed))
    for a, b in zip(one.arrays(), other.arrays()):
        np.testing.assert_array_equal(a, b)
    assert one.fingerprint() == other.fingerprint() != SeriesWindows(values, 5, 2).fingerprint()


def test_a_part_that_is_split_again_keeps_its_scaling():
    training, test = SeriesWindows(np.arange(100.0), 5).split(0.2)
    inner, validation = training.split(0.25)
    assert inner.scaling.offset == validation.scaling.offset == test.scaling.offset == 39.5
    assert inner._end == validation._begin == 60
    later, last = test.split(0.5)
    assert later.scaling.offset == last.scaling.offset == 39.5 and last._begin == 90
    fixed = SeriesWindows(np.arange(100.0), 5, scaling=Scaling([0.0], [2.0]))
    assert fixed.split(0.2)[0][0][0][1].tolist() == [0.5] and fixed.split(0.2)[1].scaling.factor == 2


def test_windows_are_not_drawn_at_random():
    windows = SeriesWindows(np.arange(100.0), 5)
    with pytest.raises(ArgumentError, match=r"rows drawn at random would leak; got SeriesWindows. Write"):
        train_test_split(windows)
    some = windows.subset(np.arange(0, 90, 3))
    with pytest.raises(
        ArgumentError, match="the whole is split, by its order; got a subset of SeriesWindows"
    ):
        some.split(0.2)
    with pytest.raises(ArgumentError, match="or validation=None"):
        cr.fit(nn.Linear(1, 1), some)
    assert len(some) == 30 and some.take(np.array([1]))[0].shape == (1, 5, 1)


# ------------------------------------------------------------------------------------------- scaling


def test_scaling_and_back():
    values = np.array([[1.0, 5.0, 0.1], [3.0, 5.0, 0.2], [8.0, 5.0, 0.6]])
    standard = Scaling.fit(values)
    np.testing.assert_allclose(standard.scale(values)[:, [0, 2]].std(axis=0), 1)
    assert standard.scale(values)[:, 1].tolist() == [0, 0, 0]
    narrow = Scaling.fit(values, "minmax")
    assert narrow.scale(values)[:, 0].tolist() == [0, 2 / 7, 1] and narrow.scale(values)[:, 1].tolist() == [
        0,
        0,
        0,
    ]
    for how, target in (("standard", None), ("minmax", 2), ("standard", [2, 0])):
        scaling = Scaling.from_json(json.loads(json.dumps(Scaling.fit(values, how, target).to_json())))
        scaled = scaling.scale(values)
        chosen = 0 if target is None else target
        np.testing.assert_allclose(scaling.unscale(scaled[None, :, chosen]), values[None, :, chosen])
        np.testing.assert_allclose(
            scaling.unscale(cr.tensor(scaled[None, :, chosen])), values[None, :, chosen]
        )
    assert repr(standard).startswith("Scaling(3 columns: (x - 4) / 2.94392, (x - 5) / 1, ")
    assert repr(Scaling.fit([1.0, 3.0])) == "Scaling(1 column: (x - 2) / 1)"
    constant = Scaling.fit(np.full(10, 0.1))
    assert constant.factor == 1
    np.testing.assert_allclose(Scaling.fit([1.0, 2.0, 3.0]).scale([2.0]), [0])


@pytest.mark.parametrize("make,kind,words", [
    (lambda: SeriesWindows([1.0, np.nan], 1), DataError, "the series needs finite numbers; got nan in row 1"),
    (lambda: SeriesWindows(np.ones((2, 2, 2)), 1), DataError, r"\(steps,\) or \(steps, columns\); got \(2, 2, 2\)"),
    (lambda: SeriesWindows(steps(5), 5), DataError, "5 steps and 1 to predict needs 6 steps; got 5"),
    (lambda: SeriesWindows(steps(), 0), ArgumentError, "length must be a whole number from 1; got 0"),
    (lambda: SeriesWindows(steps(), 2, stride=1.5), ArgumentError, "stride must be a whole number from 1"),
    (lambda: SeriesWindows(steps(), 2, target=2), ArgumentError, "a column of the series, 0 to 1; got 2"),
    (lambda: SeriesWindows(steps(), 2, target="load"), ArgumentError, "a column of the series, 0 to 1; got 'load'"),
    (lambda: SeriesWindows(steps(), 2, scaling="robust"), ArgumentError, "scaling must be 'standard', 'minmax'"),
    (lambda: SeriesWindows(steps(), 10, 5).split(4), DataError, "10 steps and 5 to predict needs 15 steps; got 14"),
    (lambda: SeriesWindows(steps(), 10, 5).split(0.9), DataError, "needs 15 steps; got 4"),
    (lambda: SeriesWindows(steps(), 2).split(), ArgumentError, "split needs the size of a part"),
    (lambda: SeriesWindows(steps(), 2)[99], IndexError, "there are 38 windows; got 99"),
    (lambda: Scaling.fit(steps()).scale(np.ones(3)), DataError, "the scaling is of 2 columns"),
    (lambda: Scaling.fit(steps(), target=[0, 1]).unscale(np.ones(3)), DataError, "predictions of 2 columns are needed"),
])  # fmt: skip
def test_series_that_are_none(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


# ------------------------------------------------------------------------------------------- training


def linear(windows, place=None, **options):
    cr.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 1))
    given = {"loss": "mse", "epochs": 30, "progress": False, "compile": False, **options}
    return cr.fit(model, windows, optimizer=optim.Adam(model.parameters(), lr=0.05), folder=place, **given)


def test_a_forecast_in_the_units_of_the_series(tmp_path):
    values = 300 + 20 * np.sin(np.arange(400) / 5)
    training, test = SeriesWindows(values, 8).split(0.25)
    run = linear(training, tmp_path / "run", validation=test)
    again = cr.load_run(tmp_path / "run", nn.Sequential(nn.Flatten(), nn.Linear(8, 1)))
    predicted = again.preparation.unscale(again.predict(test))
    truth = values[test.starts()[:, None] + 8]
    assert predicted.shape == truth.shape == (100, 1) and np.abs(predicted - truth).max() < 0.5
    assert run.evaluate(test)["loss"] == pytest.approx(run.score["loss"], rel=1e-5)
    assert run.evaluate(DataLoader(test, 16))["loss"] == pytest.approx(run.score["loss"], rel=1e-4)
    np.testing.assert_array_equal(again.preparation.scale(values[:8]), training.scaling.scale(values[:8]))


def test_a_share_is_held_back_at_the_end_and_scaled_by_the_rest():
    values = np.r_[np.sin(np.arange(80.0)), 100 + np.sin(np.arange(20.0))]
    run = linear(SeriesWindows(values, 8), validation=0.2, epochs=1)
    assert cr.predict(run.model, SeriesWindows(values, 8)).shape == (92, 1)
    assert run.preparation.offset[0] == pytest.approx(values[:80].mean())
    assert run.history[0]["validation_loss"] > 1000 > run.history[0]["loss"]
