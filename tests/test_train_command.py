"""`chainrule train`, `predict` and `demo`: real tables beat the baseline, runs come back, faults are told in words."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from chainrule.cli import main
from chainrule.errors import RunError
from chainrule.files import Folder, NewFolder
from chainrule.language import catalogue
from chainrule.train.predictor import load_predictor
from chainrule.train.rivals import accuracy_interval, macro_f1
from chainrule.train.run import free_place, read_run

pandas = pytest.importorskip("pandas")
datasets = pytest.importorskip("sklearn.datasets")

from chainrule.data.tabular import read_table, split  # noqa: E402

TABLES = ("iris", "wine", "breast_cancer", "digits", "diabetes")


def export(name, path):
    """A table of scikit-learn as a CSV file, with class names where there are."""
    bunch = getattr(datasets, f"load_{name}")(as_frame=True)
    frame = bunch.frame.copy()
    if name in ("iris", "wine", "breast_cancer"):
        frame["target"] = [str(bunch.target_names[k]) for k in bunch.target]
    frame.to_csv(path, index=False)
    return path


def command(capsys, *arguments):
    """(exit code, output, errors) of a command in this process."""
    code = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One run of the iris table, shared by the tests that only read it."""
    folder = tmp_path_factory.mktemp("iris")
    table = export("iris", folder / "iris.csv")
    assert (
        main(
            [
                "train",
                str(table),
                "--target",
                "target",
                "--quiet",
                "--epochs",
                "60",
                "--out",
                str(folder / "run"),
            ]
        )
        == 0
    )
    return table, folder / "run"


# ------------------------------------------------------------------------------------------- the main road


@pytest.mark.parametrize("name", TABLES)
def test_real_tables_beat_the_baseline_and_runs_come_back(name, tmp_path, capsys):
    table, place = export(name, tmp_path / f"{name}.csv"), tmp_path / "run"
    code, out, _ = command(
        capsys, "train", table, "--target", "target", "--epochs", 60, "--json", "--out", place
    )
    record = json.loads(out)
    assert code == 0 and record["beats_baseline"]
    if name == "diabetes":
        assert record["score"]["r2"] > 0.25 > record["baseline"]["r2"]
        assert record["score"]["mean_absolute_error"] < record["baseline"]["mean_absolute_error"]
    else:
        assert record["score"]["accuracy"] > max(0.85, record["baseline"]["accuracy"] + 0.2)
    assert sorted(os.listdir(place)) == ["checkpoints", "metrics.jsonl", "model.safetensors", "run.json"]
    assert {*record["score"]} == {*record["linear"]} and record["difference"]["low"] <= record["difference"][
        "high"
    ]

    # The score is that of rows that were not learnt from, and predict reproduces it.
    frame, _ = read_table(table)
    task = record["preparation"]["schema"]["target"]["task"]
    training, test = split(frame, "target", task, seed=0)
    assert not {*test} & {*training} and len(test) == record["split"]["test"]
    frame.iloc[test].to_csv(tmp_path / "test.csv", index=False)
    assert command(capsys, "predict", place, tmp_path / "test.csv", "-o", tmp_path / "out.csv")[0] == 0
    predicted = pandas.read_csv(tmp_path / "out.csv", dtype=str)
    if name == "diabetes":
        error = np.abs(predicted["prediction"].astype(float) - predicted["target"].astype(float)).mean()
        assert error == pytest.approx(record["score"]["mean_absolute_error"], rel=1e-6)
    else:
        assert (predicted["prediction"] == predicted["target"]).mean() == record["score"]["accuracy"]
        shares = predicted[[one for one in predicted if one.startswith("probability_")]].astype(float)
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)


def test_the_report_says_what_was_done(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(capsys, "train", trained[0], "--target", "target", "--epochs", 30, "--seed", 1)
    assert code == 0 and not err and "\x1b" not in out
    for words in (
        "iris.csv: 150 rows, 5 columns",
        "sepal length (cm)  number  4.3 to 7.9",
        "classification: the target holds names, 3 different ones",
        "setosa 50 · versicolor 50 · virginica 50",
        "120 training and 30 test rows (seed 1)",
        "5 networks 4 → 16 → 3, ReLU; 655 parameters",
        "columns of numbers (4) are scaled to mean 0 and deviation 1 before learning",
        "epoch  1/30  loss",
        "score of 30 rows that nothing was learnt from",
        "of 30 right; 95 % interval",
        "linear: logistic regression on the same inputs; the baseline always answers 'setosa'",
        "Verdict",
        "chainrule predict runs/",
    ):
        assert words in out
    (run,) = os.listdir("runs")
    assert (
        run.endswith("-iris")
        and len((tmp_path / "runs" / run / "metrics.jsonl").read_text().splitlines()) == 30
    )
    again = command(capsys, "train", trained[0], "--target", "target", "--epochs", 1, "--quiet")[1]
    assert f"runs/{run}-2" in again


def test_everything_is_said_in_korean_too(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, out, _ = command(capsys, "train", trained[0], "--target", "target", "--epochs", 3, "--lang", "ko")
    for words in (
        "150행 5열",
        "훈련 120행, 테스트 30행",
        "선형: 같은 입력의 로지스틱 회귀",
        "신경망이 도움이 되는지 알 수 없습니다",
        "에폭 1/3  손실",
        "정확도",
        "기준선",
        "3개 에폭을 모두 마쳤습니다",
    ):
        assert words in out
    _, out, _ = command(capsys, "predict", trained[1], trained[0], "-o", "o.csv", "--lang", "ko")
    assert "150개 행을 예측했습니다" in out
    for key, texts in catalogue().items():
        if key.partition(".")[0] in ("train", "predict", "demo", "progress", "fact", "fault", "usage", "row"):
            assert set(texts) == {"en", "ko"}, key


def test_the_same_seed_gives_the_same_weights(trained, tmp_path, capsys):
    for name in ("a", "b"):
        command(
            capsys,
            "train",
            trained[0],
            "--target",
            "target",
            "--epochs",
            5,
            "--quiet",
            "--out",
            tmp_path / name,
        )
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second


def test_mixed_tables_with_missing_values(tmp_path, capsys):
    generator = np.random.default_rng(0)
    rows = 300
    age, city = generator.integers(18, 80, rows), generator.choice(["Seoul", "Busan", "Jeju"], rows)
    income = 20 + age * 0.5 + (city == "Seoul") * 30 + generator.normal(size=rows)
    frame = pandas.DataFrame(
        {"id": np.arange(rows), "age": age, "city": city, "income": income.round(3)}
    ).astype(object)
    frame.loc[generator.choice(rows, 20, replace=False), "age"] = None
    frame.loc[generator.choice(rows, 20, replace=False), "city"] = None
    frame.loc[[3, 5], "income"] = None
    frame.to_csv(tmp_path / "people.csv", index=False)
    code, out, _ = command(
        capsys,
        "train",
        tmp_path / "people.csv",
        "--target",
        "income",
        "--hidden",
        "16,8",
        "--out",
        tmp_path / "r",
    )
    assert code == 0
    assert "id    skipped   every row has its own whole number, and the name says identifier" in out
    assert "20 missing" in out and "2 rows have no target value and are left out" in out
    assert "→ 16 → 8 → 1" in out and "the baseline always answers the mean" in out
    assert read_run(tmp_path / "r").record["score"]["r2"] > 0.7


def test_a_network_that_learns_nothing_says_so(tmp_path, capsys):
    generator = np.random.default_rng(1)
    frame = pandas.DataFrame({"noise": generator.normal(size=60), "y": ["a", "b", "b"] * 20})
    frame.to_csv(tmp_path / "noise.csv", index=False)
    code, out, _ = command(
        capsys, "train", tmp_path / "noise.csv", "--target", "y", "--epochs", 5, "--out", tmp_path / "r"
    )
    assert code == 1, "a finding"
    record = read_run(tmp_path / "r").record
    assert record["score"]["accuracy"] <= record["baseline"]["accuracy"]
    assert "the network is no better than the baseline" in out


# ------------------------------------------------------------------------------------------- predict


def test_predict_keeps_the_columns_and_adds_its_own(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pandas.read_csv(trained[0], dtype=str).head(6)
    frame["prediction"], frame["extra"] = "mine", "x"
    frame[frame.columns[::-1]].to_csv("turned.csv", index=False)
    code, out, _ = command(capsys, "predict", trained[1], "turned.csv")
    rows = list(
        csv.DictReader((tmp_path / "turned-predictions.csv").read_text(encoding="utf-8").splitlines())
    )
    names = [
        *frame.columns[::-1],
        "prediction_2",
        "probability_setosa",
        "probability_versicolor",
        "probability_virginica",
    ]
    assert code == 0 and list(rows[0]) == names
    assert rows[0]["prediction"] == "mine" and {row["prediction_2"] for row in rows} == {"setosa"}
    assert "columns that the training table did not have were ignored: 'extra', 'prediction'" in out
    assert "accuracy 1.000" in out and "an honest score only if none of them was trained on" in out


def test_predict_without_target_and_as_json(trained, tmp_path, capsys):
    frame = pandas.read_csv(trained[0], dtype=str).head(3).drop(columns="target")
    frame.to_csv(tmp_path / "new.csv", index=False)
    code, out, _ = command(
        capsys, "predict", trained[1], tmp_path / "new.csv", "-o", tmp_path / "o.csv", "--json"
    )
    record = json.loads(out)
    assert (
        code == 0 and record["rows"] == 3 and record["score"] is None and record["columns"][0] == "prediction"
    )
    assert (
        load_predictor(trained[1]).predict(read_table(tmp_path / "new.csv").frame).values.tolist()
        == ["setosa"] * 3
    )


def test_predict_names_a_missing_column_and_unseen_values(tmp_path, capsys):
    rows = [("red", 1, "yes"), ("blue", 2, "no")] * 20
    pandas.DataFrame(rows, columns=["colour", "size", "good"]).to_csv(tmp_path / "t.csv", index=False)
    command(
        capsys,
        "train",
        tmp_path / "t.csv",
        "--target",
        "good",
        "--epochs",
        2,
        "--quiet",
        "--out",
        tmp_path / "r",
    )
    (tmp_path / "a.csv").write_text("color,size\nred,1\n")
    code, _, err = command(capsys, "predict", tmp_path / "r", tmp_path / "a.csv")
    assert code == 2 and "the table has no column 'colour'" in err and "Did you mean 'color'?" in err
    (tmp_path / "b.csv").write_text("colour,size\ngreen,1\n")
    code, out, _ = command(capsys, "predict", tmp_path / "r", tmp_path / "b.csv", "-o", tmp_path / "o.csv")
    assert code == 0 and "column 'colour': 1 values, such as 'green', were never seen in training" in out
    (tmp_path / "c.csv").write_text("colour,size\nred,big\n")
    code, _, err = command(capsys, "predict", tmp_path / "r", tmp_path / "c.csv", "-o", tmp_path / "p.csv")
    assert code == 2 and "'big'" in err and not (tmp_path / "p.csv").exists()


# ------------------------------------------------------------------------------------------- demo


def test_demo_trains_shows_and_points_on(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(capsys, "demo")
    assert code == 0 and not err
    assert "150 rows, 5 columns" in out and "baseline" in out and "Examples" in out
    assert "chainrule explain 'sigmoid(w*x)' w=0.8 x=0.5" in out
    (run,) = os.listdir("runs")
    record = read_run(f"runs/{run}").record
    assert record["score"]["accuracy"] > 0.9 and record["baseline"]["accuracy"] < 0.4
    assert f"accuracy  {record['score']['accuracy']:.3f}" in out


def test_demo_without_a_place_here_uses_a_temporary_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").write_text("a file where the folder would be")
    code, out, _ = command(capsys, "demo", "--epochs", 3)
    assert code == 0 and "this folder cannot be written to, so the run is kept in " in out
    (made,) = (tmp_path / "elsewhere").glob("*/iris-demo/run.json")
    assert read_run(made.parent).record["training"]["epochs"] == 3


# ------------------------------------------------------------------------------------------- refusals


def write(folder, text, encoding="utf-8"):
    path = folder / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


def rows_of(*columns, count=30):
    return "a,b,y\n" + "".join(
        ",".join(str(column[k % len(column)]) for column in columns) + "\n" for k in range(count)
    )


@pytest.mark.parametrize(
    "text,target,words",
    [
        (
            rows_of([1, 2, 3], [4, 5], ["p", "q"]),
            "yy",
            "the table has no column 'yy'; it has 'a', 'b', 'y'. Did you mean 'y'?",
        ),
        (rows_of([1, 2, 3], [4, 5], ["p", "q"]), None, "table.csv has a, b, y. Use --target COLUMN"),
        ("", "y", "the empty file"),
        ("a,b,y\n", "y", "needs at least one row below the column names"),
        ("a,b,y\n1,2,3\n1,2\n", "y", "line 3"),
        (rows_of([1, 2, 3], [4, 5], [7]), "y", "needs at least two different values; got '7' in every row"),
        (
            rows_of([1, 2, 3], [4, 5], ["only"]),
            "y",
            "needs at least two different values; got 'only' in every row",
        ),
        (rows_of([1, 2, 3], [4, 5], [""]), "y", "needs at least two different values; got none in 30 rows"),
        (rows_of([1], [2], ["p", "q"]), "y", "learning needs at least one column besides the target 'y'"),
    ],
)
def test_tables_that_cannot_be_learnt(text, target, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [] if target is None else ["--target", target]
    code, out, err = command(capsys, "train", write(tmp_path, text), *arguments)
    assert code == 2 and not out and words in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert os.listdir(tmp_path) == ["table.csv"], "nothing is left behind"


def test_a_cp949_table_is_read_and_said_so(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "키,지역,등급\n" + "".join(
        f"{160 + k % 20},{'서울부산'[k % 2 * 2 :][:2]},{'상하'[k % 2]}\n" for k in range(60)
    )
    code, out, _ = command(
        capsys, "train", write(tmp_path, text, "cp949"), "--target", "등급", "--epochs", 40
    )
    assert code == 0 and "the text is not UTF-8; read as cp949 (Korean)" in out
    (run,) = os.listdir("runs")
    assert read_run(f"runs/{run}").record["preparation"]["schema"]["target"]["classes"] == ["상", "하"]


def test_a_missing_file_and_a_missing_extra(tmp_path, capsys, monkeypatch):
    code, _, err = command(capsys, "train", tmp_path / "none.csv", "--target", "y")
    assert code == 2 and "does not exist" in err
    monkeypatch.setitem(sys.modules, "pandas", None)
    code, _, err = command(capsys, "train", tmp_path / "none.csv", "--target", "y")
    assert code == 2 and "pip install 'chainrule[tabular]'" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "options,words",
    [
        (["--epochs", "0"], "--epochs must be at least 1; got 0"),
        (["--patience=-2"], "--patience must be at least 1; got -2"),
        (["--hidden", "64x32"], "--hidden takes widths such as 64,32; got '64x32'"),
        (["--batch-size", "0"], "--batch-size must be at least 1; got 0"),
        (["--batch-size", "2.5"], "--batch-size takes a whole number; got '2.5'"),
        (["--lr", "0"], "--lr must be above 0"),
        (["--seed", "-1"], "--seed must be at least 0; got -1"),
        (["--task", "regression"], "'setosa'"),
    ],
)
def test_options_without_meaning(trained, options, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(capsys, "train", trained[0], "--target", "target", *options)
    assert code == 2 and words in err and os.listdir(tmp_path) == []


def test_a_folder_that_is_taken_or_cannot_be_made(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(capsys, "train", trained[0], "--target", "target", "--out", trained[1])
    assert code == 2 and "which exists. Name another with --out" in err
    (tmp_path / "runs").write_text("")
    code, _, err = command(capsys, "train", trained[0], "--target", "target")
    assert code == 2 and "a run needs a folder that it can write to" in err and "name another folder" in err
    (tmp_path / "empty").mkdir()
    code, _, _ = command(
        capsys, "train", trained[0], "--target", "target", "--epochs", 1, "--quiet", "--out", "empty"
    )
    assert code == 0 and sorted(os.listdir(tmp_path)) == ["empty", "runs"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(trained, tmp_path, capsys, monkeypatch):
    tmp_path.chmod(0o500)
    monkeypatch.chdir(tmp_path)
    code, _, err = command(capsys, "train", trained[0], "--target", "target")
    assert code == 2 and "Permission denied. Check the free space and the permissions" in err


def test_a_full_disk_leaves_nothing(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("chainrule.files.Folder.write", full)
    code, _, err = command(capsys, "train", trained[0], "--target", "target", "--epochs", 1, "--quiet")
    assert code == 2 and "No space left on device" in err and os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------------------- runs that are none


def test_what_is_no_run_directory(trained, tmp_path, capsys):
    for place, words in (
        (tmp_path / "none", "which does not exist"),
        (trained[0], "a file. Name a folder that `chainrule train` made"),
        (tmp_path, "a folder without it"),
        (trained[1].parent, f"Did you mean {str(trained[1])!r}?"),
    ):
        code, _, err = command(capsys, "predict", place, trained[0], "-o", tmp_path / "o.csv")
        assert code == 2 and words in err
    assert read_run(trained[1] / "model.safetensors").record["kind"] == "tabular"


def damage(path, change):
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(bytes(data))


def flip(data):
    data[-3] ^= 16


def cut(data):
    del data[len(data) // 2 :]


def change(old, new):
    return lambda data: data.__setitem__(slice(None), data.replace(old, new))


@pytest.mark.parametrize(
    "file,change,words",
    [
        ("model.safetensors", flip, "its checksum does not match. Use another copy of the run, or train again"),
        ("model.safetensors", cut, "its checksum does not match"),
        ("run.json", cut, "a run needs a readable run.json"),
        ("run.json", change(b'"seed": 0', b'"seed": 1'), "a run needs run.json as it was saved"),
        ("run.json", change(b"run 1", b"run 9"), "reads the format 'chainrule run 1'; got 'chainrule run 9'"),
        ("run.json", lambda data: data.__setitem__(slice(None), b"[1]"), "got None in"),
    ],
)  # fmt: skip
def test_changed_files_are_refused(trained, file, change, words, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(trained[1], copy)
    damage(copy / file, change)
    code, _, err = command(capsys, "predict", copy, trained[0], "-o", tmp_path / "o.csv")
    assert code == 2 and words in err and "Traceback" not in err


def test_a_run_without_weights(trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained[1], copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"model.safetensors that it was saved with; got .* without it"):
        read_run(copy)


def test_a_folder_appears_only_when_it_is_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = free_place("a table: with/odd name")
    assert place.endswith("-a-table-with-odd-name")
    with Folder.open(str(tmp_path)) as parent:
        folder = NewFolder(parent, "whole")
        folder.write("one", b"1")
        assert not os.path.exists("whole")
        folder.finish()
        unused = NewFolder(parent, "unused")
        unused.write("one", b"1")
        unused.discard()
    assert os.listdir(tmp_path) == ["whole"] and os.listdir("whole") == ["one"]


# ------------------------------------------------------------------------------------------- as a program


def program(*arguments, cwd, **environment):
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))
    }
    return subprocess.Popen(
        [sys.executable, "-m", "chainrule.cli", *map(str, arguments)], cwd=cwd, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**plain, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    "more", [{}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}], ids=["usual", "ascii"]
)
def test_plain_terminal_c_locale_and_korean_path(trained, tmp_path, more):
    folder = tmp_path / "새 폴더"
    folder.mkdir()
    shutil.copy(trained[0], folder / "붓꽃.csv")
    process = program(
        "train",
        "붓꽃.csv",
        "--target",
        "target",
        "--epochs",
        "2",
        cwd=folder,
        LC_ALL="C",
        LANG="C",
        TERM="dumb",
        **more,
    )
    out, err = (stream.decode("utf-8") for stream in process.communicate(timeout=120))
    assert process.returncode == 0 and not err and "붓꽃.csv: 150 rows" in out and "\x1b" not in out
    (run,) = os.listdir(folder / "runs")
    assert run.endswith("-붓꽃") and read_run(folder / "runs" / run).record["table"]["name"] == "붓꽃.csv"
    process = program("predict", f"runs/{run}", "붓꽃.csv", cwd=folder, LC_ALL="C", TERM="dumb", **more)
    out, err = (stream.decode("utf-8") for stream in process.communicate(timeout=120))
    assert process.returncode == 0 and not err and f"붓꽃.csv predicted by runs/{run}" in out
    assert (folder / "붓꽃-predictions.csv").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_saves_what_there_is(trained, tmp_path):
    process = program(
        "train", trained[0], "--target", "target", "--epochs", 10**6, "--patience", 10**6, cwd=tmp_path
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(b"epoch"):
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = (stream.decode("utf-8") for stream in process.communicate(timeout=120))
    assert process.returncode == 0 and not err and "stopped by Ctrl-C after epoch" in out
    (run,) = os.listdir(tmp_path / "runs")
    assert read_run(tmp_path / "runs" / run).record["training"]["stopped"] == "interrupted"


# ------------------------------------------------------------------------------------------- figures


def test_macro_f1_and_interval_beside_their_sources():
    from sklearn.metrics import f1_score

    generator = np.random.default_rng(0)
    for _ in range(20):
        truth, predicted = generator.integers(0, 4, (2, 30))
        assert macro_f1(truth, predicted) == pytest.approx(f1_score(truth, predicted, average="macro"))
    low, high = accuracy_interval(1.0, 10)
    assert (low, high) == pytest.approx((0.7225, 1.0), abs=1e-4)  # Wilson: 1 / (1 + z²/n)
    # Both ends solve (p̂ − p)² = z²·p·(1 − p)/n.
    for end in accuracy_interval(0.8, 50):
        assert (0.8 - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 50)
