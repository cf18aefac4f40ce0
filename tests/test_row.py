"""`chainrule explain RUN --row N`: the numbers against the network itself, the words in both languages."""

import json

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.cli import main

pandas = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from chainrule.data.tabular import bundled, read_table, write_table  # noqa: E402
from chainrule.train.explanation import explain_row  # noqa: E402
from chainrule.train.predictor import load_predictor  # noqa: E402


def command(capsys, *arguments):
    """(exit code, output, errors) of a command in this process."""
    code = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def people(rows=160):
    """A table with every kind of column: numbers, a date, yes and no, words, missing values."""
    generator = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "age": generator.integers(18, 80, rows).astype(object),
            "city": generator.choice(["Seoul", "Busan", "Jeju"], rows).astype(object),
            "member": generator.choice(["yes", "no"], rows),
            "joined": [f"2024-{1 + k % 12:02}-{1 + k % 28:02}" for k in range(rows)],
        }
    )
    frame["income"] = (frame["age"].astype(float) * 2 + (frame["city"] == "Seoul") * 40 + 10).round(1)
    frame.loc[::9, "age"] = None
    frame.loc[5, "city"] = None
    return frame


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of classes (iris) and one of numbers (people), with their tables."""
    folder = tmp_path_factory.mktemp("rows")
    write_table(bundled("iris").frame, folder / "iris.csv")
    write_table(people(), folder / "people.csv")
    for name, target in (("iris", "species"), ("people", "income")):
        arguments = ["--target", target, "--epochs", "40", "--quiet", "--out", str(folder / name)]
        assert main(["train", str(folder / f"{name}.csv"), *arguments]) == 0
    return folder


@pytest.mark.parametrize("name", ["iris", "people"])
@pytest.mark.parametrize("row", [1, 6, 71, 150])
def test_the_numbers_are_those_of_the_prediction(runs, name, row):
    predictor = load_predictor(runs / name)
    frame = read_table(runs / f"{name}.csv").frame
    one = frame.iloc[[row - 1]]
    found, predicted = explain_row(predictor, one), predictor.predict(one)
    assert found.prediction == predicted.values[0] or found.prediction == pytest.approx(predicted.values[0])
    if predicted.probabilities is not None:
        np.testing.assert_allclose(found.probabilities, predicted.probabilities[0], rtol=1e-5)
        truth = predictor.preparation.classes.index(one["species"].iloc[0])
        assert found.loss == pytest.approx(-np.log(found.probabilities[truth]), rel=1e-4)
        ordered = np.sort(found.logits)[::-1]
        assert found.margin == pytest.approx(ordered[0] - ordered[1], abs=1e-5)
    else:
        assert found.margin == pytest.approx(float(found.prediction), rel=1e-5)
        scale = predictor.preparation.target_scale
        assert found.loss == pytest.approx(
            ((found.prediction - float(one["income"].iloc[0])) / scale) ** 2, rel=1e-3
        )
    assert {entry.column for entry in found.inputs} == {step.column for step in predictor.preparation.steps}
    pushes = [abs(entry.push) for entry in found.inputs]
    assert pushes == sorted(pushes, reverse=True)


@pytest.mark.parametrize("name", ["iris", "people"])
def test_pushes_are_exact_while_no_unit_switches(runs, name):
    """The rest is what the networks answer to nothing at all, with the very same units switched on."""
    predictor = load_predictor(runs / name)
    row = read_table(runs / f"{name}.csv").frame.iloc[[70]]
    found = explain_row(predictor, row)
    state = {key: value.numpy().astype(np.float64) for key, value in predictor.model.state_dict().items()}
    on = found.layers[1].values > 0  # (count, units)
    hidden = state["hidden1.bias"][:, 0] * on
    answer = (np.einsum("koh,kh->ko", state["output.weight"], hidden) + state["output.bias"][:, 0]).mean(
        axis=0
    )
    if found.logits is not None:
        order = np.argsort(-found.logits)
        expected = answer[order[0]] - answer[order[1]]
    else:
        expected = answer[0] * predictor.preparation.target_scale + predictor.preparation.target_mean
    assert found.rest == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_slope_of_the_loss_is_in_the_columns_own_unit(runs):
    predictor = load_predictor(runs / "iris")
    row = read_table(runs / "iris.csv").frame.iloc[[70]]
    found = {one.column: one for one in explain_row(predictor, row).inputs}
    moved = row.copy()
    step = 1e-3
    losses = []
    for sign in (1, -1):
        moved["petal_width_cm"] = str(float(row["petal_width_cm"].iloc[0]) + sign * step)
        losses.append(explain_row(predictor, moved).loss)
    assert found["petal_width_cm"].slope == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=2e-2)


def test_the_text_has_the_users_words_and_units(runs, capsys):
    code, out, err = command(capsys, "explain", runs / "iris", "--row", 71)
    assert code == 0 and not err
    for words in (
        "Row 71 of iris.csv: species is predicted as v",
        "petal_width_cm   1.8 ",
        "push: gradient × input, towards v",
        "Layers (5 networks side by side",
        "relu1    16 units, above 0: ",
        "softmax",
        "Loss: −log of the probability of versicolor = −log ",
        "Step by step, folded by layer",
        "z1 = weighted_sums(x, hidden1.weight, hidden1.bias)",
        "L = cross_entropy(logits)",
    ):
        assert words in out, words
    code, out, _ = command(capsys, "explain", runs / "people", "--row", 10, "--lang", "ko")
    assert code == 0
    for words in ("people.csv의 10행: income", "(비어 있음)", "단위는 income", "층별로 접음"):
        assert words in out, words


def test_json_has_every_number(runs, capsys):
    code, out, _ = command(capsys, "explain", runs / "people", "--row", 6, "--json")
    found = json.loads(out)["explanation"]
    assert (
        code == 0
        and found["row"] == 6
        and found["target"] == "income"
        and found["method"] == "gradient × input"
    )
    assert found["rest"] + sum(one["push"] for one in found["inputs"]) == pytest.approx(found["prediction"])
    city = next(one for one in found["inputs"] if one["column"] == "city")
    assert city["value"] is None and city["inputs"]["city (missing)"] == 1
    assert [len(one["outputs"]) for one in found["layers"]] == [5, 5, 5]


def test_the_page_tells_it_in_both_languages(runs, tmp_path, capsys):
    code, out, _ = command(capsys, "explain", runs / "iris", "--row", 1, "--html", tmp_path / "쪽.html")
    page = (tmp_path / "쪽.html").read_text(encoding="utf-8")
    assert code == 0 and "쪽.html" in out
    assert "Inputs, by their push" in page and "입력 (영향이 큰 순서)" in page and "<svg" in page


def test_a_row_of_another_table_and_without_a_target(runs, tmp_path, capsys):
    frame = read_table(runs / "iris.csv").frame
    frame[["petal_width_cm", "petal_length_cm", "sepal_width_cm", "sepal_length_cm"]].to_csv(
        tmp_path / "new.csv", index=False
    )
    code, out, _ = command(capsys, "explain", runs / "iris", "--row", 2, "--data", tmp_path / "new.csv")
    assert code == 0 and "Row 2 of new.csv" in out and "the table does not say" in out
    assert ("Loss:" not in out and "margin = logits[0, 0] − logits[0, 1]" in out) or "margin" in out
    frame["species"] = "tulip"
    frame.to_csv(tmp_path / "other.csv", index=False)
    code, out, _ = command(capsys, "explain", runs / "iris", "--row", 2, "--data", tmp_path / "other.csv")
    assert code == 0 and "the table does not say" in out, "a class that was not learnt has no loss"


def test_what_cannot_be_explained(runs, tmp_path, capsys):
    for arguments, english, korean in (
        (["--row", 0], "--row must be from 1 to 150, counted below the column names; got 0", "1에서 150까지"),
        (["--row", 151], "--row must be from 1 to 150", "1에서 150까지"),
        ([], "is a run: name the row to explain, --row 1", "설명할 행을 --row 1처럼"),
        (["--row", 1, "--loss", "bce"], "--loss is for formulas", "--loss는 수식에 쓰는"),
        (["x=3", "--row", 1], "no use for the argument 'x=3'", "쓸 곳이 없습니다"),
    ):
        for language, words in (("en", english), ("ko", korean)):
            code, _, err = command(capsys, "explain", runs / "iris", *arguments, "--lang", language)
            assert code == 2 and words in err, arguments
    code, _, err = command(capsys, "explain", "w*x", "w=1", "x=2", "--data", "t.csv")
    assert code == 2 and "--data is for a run of a table" in err
    code, _, err = command(capsys, "explain", tmp_path, "--row", 1)
    assert code == 2 and "a run directory with run.json is needed" in err


def test_a_model_of_fit_is_answered_with_python(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.ones((20, 1), np.float32)
    cr.fit(nn.Linear(1, 1), (x, x), loss="mse", epochs=1, folder="runs/line", progress=False)
    for arguments in (
        ["explain", "runs/line"],
        ["explain", "runs/line", "--row", 1],
        ["predict", "runs/line", "x.csv"],
    ):
        code, _, err = command(capsys, *arguments)
        assert code == 2 and "got 'runs/line', a model that cr.fit trained" in err
        assert "cr.load_run('runs/line', model) predicts" in err
    code, _, err = command(capsys, "explain", "runs/none")
    assert (
        code == 2 and "a run directory with run.json is needed; got 'runs/none', which does not exist" in err
    )
    code, _, err = command(capsys, "explain", "elsewhere/none")
    assert code == 2 and "every name needs a value" in err, "no folder of that name: a formula"


def test_the_table_of_a_run_is_found_and_checked(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(bundled("iris").frame, "iris.csv")
    command(capsys, "train", "iris.csv", "--target", "species", "--epochs", 2, "--quiet", "--out", "run")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert command(capsys, "explain", "../run", "--row", 1)[0] == 0
    (tmp_path / "iris.csv").rename(tmp_path / "moved.csv")
    code, _, err = command(capsys, "explain", "../run", "--row", 1)
    assert code == 2 and "which is gone. Put it back, or name it with --data" in err
    assert command(capsys, "explain", "../run", "--row", 1, "--data", "../moved.csv")[0] == 0
