"""The command line itself: every verb's help, languages and exit codes; settings by option, `--set` and file."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from chainrule.cli import VERBS, main
from chainrule.errors import ArgumentError
from chainrule.language import LANGUAGES

pandas = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from chainrule.cli.options import BY_KEY, SETTINGS, gather  # noqa: E402
from chainrule.cli.usage import Parser, UsageError  # noqa: E402
from chainrule.data.tabular import bundled, write_table  # noqa: E402
from chainrule.train.run import read_run  # noqa: E402
from chainrule.train.tabular import Settings  # noqa: E402


def command(capsys, *arguments):
    """(exit code, output, errors) of a command in this process."""
    code = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with a table of iris flowers."""
    monkeypatch.chdir(tmp_path)
    write_table(bundled("iris").frame, "iris.csv")
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with its table beside it, shared by tests that only read it."""
    folder = tmp_path_factory.mktemp("trained")
    write_table(bundled("iris").frame, folder / "iris.csv")
    arguments = ["--target", "species", "--epochs", "30", "--quiet", "--out", str(folder / "run")]
    assert main(["train", str(folder / "iris.csv"), *arguments]) == 0
    return folder


# A command of each verb that does what it is there for, one that has no meaning, and a word of each language.
USES = {
    "explain": (["w*x", "w=2", "x=3"], ["w*", "w=2"]),
    "train": (
        ["{folder}/iris.csv", "--target", "species", "--epochs", "30", "--out", "{new}"],
        ["{folder}/none.csv"],
    ),
    "predict": (["{folder}/run", "{folder}/iris.csv", "-o", "{new}"], ["{folder}", "{folder}/iris.csv"]),
    "demo": (["--epochs", "20", "--out", "{new}"], ["--epochs", "0"]),
    "env": ([], ["--what"]),
    "bench": (["--sizes", "5,4,3", "--engines", "chainrule", "--quick"], ["--sizes", "wide"]),
}


def filled(arguments, trained, tmp_path):
    return [one.format(folder=trained, new=tmp_path / "new.csv") for one in arguments]


def test_every_verb_is_tried():
    assert {*USES} == {*VERBS}, "a new verb needs a line in USES"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_in_both_languages(verb, capsys):
    texts = {}
    for language in LANGUAGES:
        code, texts[language], err = command(capsys, verb, "--help", "--lang", language)
        assert code == 0 and not err
        assert "--json" in texts[language] and "--lang" in texts[language] and "-h, --help" in texts[language]
    assert re.search("[가-힣]", texts["ko"]) and not re.search("[가-힣]", texts["en"])
    # Every option that English explains, Korean explains too, in Korean.
    for option in re.findall(r"^  (--[a-z-]+)", texts["en"], re.MULTILINE):
        told = re.search(rf"^  {option}\b.*(?:\n {{10,}}\S.*)*", texts["ko"], re.MULTILINE)
        assert told is not None and re.search("[가-힣]", told[0]), option
    assert "exit codes: 0" in texts["en"] and "종료 코드: 0" in texts["ko"]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_ends_with_0_when_done_and_prints_json(verb, language, trained, tmp_path, capsys):
    arguments = filled(USES[verb][0], trained, tmp_path)
    code, out, err = command(capsys, verb, *arguments, "--json", "--lang", language)
    assert code == 0 and not err
    json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_ends_with_2_and_one_line_for_bad_input(verb, trained, tmp_path, capsys):
    for extra in ([], ["--jsno"]):
        arguments = filled(USES[verb][1] if not extra else USES[verb][0], trained, tmp_path) + extra
        for language, words in (("en", "chainrule: error: "), ("ko", "chainrule: 오류: ")):
            code, out, err = command(capsys, verb, *arguments, "--lang", language)
            assert code == 2 and not out and err.startswith(words) and err.count("\n") == 1
            if extra:
                assert "--json" in err and ("Did you mean" in err) is (language == "en")
    assert not (tmp_path / "new.csv").exists()


def test_a_finding_is_1(here, capsys):
    pandas.DataFrame({"x": [k * 7919 % 101 for k in range(60)], "y": ["a", "b", "b"] * 20}).to_csv(
        "noise.csv"
    )
    code, out, _ = command(
        capsys, "train", "noise.csv", "--target", "y", "--epochs", 3, "--skip", "unnamed 1"
    )
    assert code == 1 and "no better than the baseline" in out
    # A slope of 1 on the left, 0 on the right: a kink is no contradiction.
    assert command(capsys, "explain", "relu(x)", "x=0")[0] == 0


PLACES = {
    "usual": {},
    "korean": {"LC_ALL": "ko_KR.UTF-8", "LANG": "ko_KR.UTF-8"},
    "c": {"LC_ALL": "C", "LANG": "C", "TERM": "dumb"},
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


def program(*arguments, cwd, **environment):
    """A command as a process of its own: output in a pipe, no terminal, no input."""
    plain = {
        name: one
        for name, one in os.environ.items()
        if not name.startswith(("LC_", "LANG", "PYTHON", "TERM"))
    }
    return subprocess.Popen(
        [sys.executable, "-m", "chainrule.cli", *map(str, arguments)], cwd=cwd, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**plain, **environment},
    )  # fmt: skip


def finish(process):
    out, err = (stream.decode("utf-8") for stream in process.communicate(timeout=120))
    return process.returncode, out, err


@pytest.mark.parametrize("place", PLACES)
def test_the_whole_way_in_a_korean_folder_without_a_terminal(place, tmp_path):
    folder = tmp_path / "새 폴더"
    folder.mkdir()
    write_table(bundled("iris").frame.rename(columns={"species": "품종"}), folder / "붓꽃.csv")
    told = {}
    for verb, arguments in {
        "train": ["붓꽃.csv", "--target", "품종", "--epochs", "25", "--out", "결과"],
        "predict": ["결과", "붓꽃.csv", "-o", "예측.csv"],
        "explain": ["결과", "--row", "150", "--html", "설명.html"],
    }.items():
        code, told[verb], err = finish(program(verb, *arguments, cwd=folder, **PLACES[place]))
        assert code == 0 and not err and "\x1b" not in told[verb] and "\r" not in told[verb], verb
    korean = place == "korean"
    assert ("150행 5열" in told["train"]) is korean and ("150 rows, 5 columns" in told["train"]) is not korean
    assert ("행을 예측했습니다" in told["predict"]) is korean
    assert ("붓꽃.csv의 150행" in told["explain"]) is korean and "virginica" in told["explain"]
    assert sorted(os.listdir(folder)) == sorted(["결과", "붓꽃.csv", "설명.html", "예측.csv"])
    assert read_run(folder / "결과").record["request"]["target"] == "품종"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no way to give up processors here")
def test_one_processor_gives_the_same_weights(trained, tmp_path):
    code = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from chainrule.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [
        "train",
        trained / "iris.csv",
        "--target",
        "species",
        "--epochs",
        "30",
        "--quiet",
        "--out",
        "run",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = ((folder / "run" / "model.safetensors").read_bytes() for folder in (trained, tmp_path))
    assert first == second


# ------------------------------------------------------------------------------------------- settings


def chosen_of(*arguments):
    """The settings of a command line."""
    parser = Parser("train", "en")
    from chainrule.cli import train

    train.add_arguments(parser)
    return gather(parser.parse_intermixed_args(list(arguments)))


# A value for every setting that is not its default, as text.
VALUES = {
    "data.table": "t.csv", "data.target": "y", "data.task": "regression", "data.skip": "a,b", "data.category": "c",
    "data.encoding": "cp949", "data.test": "0.3", "model.hidden": "8,4", "model.networks": "3", "optim.lr": "3e-4",
    "optim.weight_decay": "0.5", "optim.label_smoothing": "0.2", "optim.batch_size": "7", "train.epochs": "9",
    "train.patience": "8", "train.class_weight": "balanced", "train.seed": "6", "train.checkpoint_seconds": "1.5",
    "validation.folds": "4", "validation.repeats": "3", "run.out": "place",
}  # fmt: skip


def toml_of(setting):
    text = VALUES[setting.key]
    if setting.kind in ("whole", "number"):
        return text
    if setting.kind == "widths":
        return f"[{text}]"
    if setting.kind == "names":
        return json.dumps(text.split(","))
    return json.dumps(text)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: one.key)
def test_a_setting_means_the_same_by_option_by_set_and_in_a_file(setting, tmp_path):
    assert {*VALUES} == {*BY_KEY}
    room, _, name = setting.key.partition(".")
    (tmp_path / "c.toml").write_text(f"[{room}]\n{name} = {toml_of(setting)}\n", encoding="utf-8")
    by_set = chosen_of("--set", f"{setting.key}={VALUES[setting.key]}")[setting.key]
    assert by_set != setting.default
    assert chosen_of("--config", str(tmp_path / "c.toml"))[setting.key] == by_set
    if setting.key == "data.table":
        assert chosen_of(VALUES[setting.key])[setting.key] == by_set
    elif setting.option is not None:
        texts = VALUES[setting.key].split(",") if setting.kind == "names" else [VALUES[setting.key]]
        arguments = [part for text in texts for part in (setting.option, text)]
        assert chosen_of(*arguments)[setting.key] == by_set


def test_defaults_are_those_of_training_from_python():
    assert chosen_of().settings() == Settings()
    chosen = chosen_of(*(part for key, text in VALUES.items() for part in ("--set", f"{key}={text}")))
    changed = chosen.settings()
    assert all(getattr(changed, name) != getattr(Settings(), name) for name in Settings.__slots__)


def test_the_command_line_wins_over_the_file(tmp_path):
    (tmp_path / "c.toml").write_text("[optim]\nlr = 0.5\n[train]\nepochs = 3\n", encoding="utf-8")
    chosen = chosen_of("--config", str(tmp_path / "c.toml"), "--lr", "0.25", "--set", "train.patience=4")
    assert (chosen["optim.lr"], chosen["train.epochs"], chosen["train.patience"]) == (0.25, 3, 4)


@pytest.mark.parametrize(
    ("text", "english", "korean"),
    [
        ("[optim]\nlrr = 1", "no setting 'optim.lrr'. Did you mean optim.lr?", "혹시 optim.lr을 찾으셨습니까?"),
        ("lr = 1", "no setting 'lr'. Did you mean optim.lr?", "'lr'이라는 설정은 없습니다"),
        ("[zzz]\nqqq = 1", "no setting 'zzz.qqq'. Known are data.table, data.target", "쓸 수 있는 것: data.table"),
        ("[train]\nepochs = 2.5", "train.epochs takes a whole number; got 2.5", "train.epochs는 정수여야 하는데"),
        ("[train]\nepochs = true", "train.epochs takes a whole number; got True", "정수여야 하는데 True가"),
        ("[optim]\nlr = '1'", "optim.lr takes a number; got '1'", "optim.lr은 숫자여야 하는데"),
        ("[optim]\nlr = nan", "optim.lr must be above 0; got nan", "optim.lr은 0보다 커야 하는데"),
        ("[data]\nskip = [1]", "data.skip takes the names of columns; got [1]", "열 이름을 써야 하는데"),
        ("[data]\ntask = 'rank'", "data.task takes one of auto, classification, regression", "가운데 하나여야 하는데"),
        ("[data]\ntarget = 3", "data.target takes a text; got 3", "글자여야 하는데 3이"),
        ("[model]\nhidden = 'wide'", "model.hidden takes widths such as 64,32; got 'wide'", "너비를 써야 하는데"),
        ("[optim\nlr = 1", "--config needs a TOML file; got 'c.toml'", "TOML 파일을 써야 하는데"),
    ],
)  # fmt: skip
def test_files_with_a_mistake(here, text, english, korean, capsys):
    (here / "c.toml").write_text(text, encoding="utf-8")
    for language, words in (("en", english), ("ko", korean)):
        code, _, err = command(capsys, "train", "iris.csv", "--config", "c.toml", "--lang", language)
        assert code == 2 and words in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "optim.lr"], "--set takes a key and a value, as optim.lr=3e-4; got 'optim.lr'"),
        (["--set", "learning_rate=1"], "there is no setting 'learning_rate'"),
        (["--set", "optim.lr=1", "--lr", "2"], "optim.lr is given twice, as 2.0 and as 1.0"),
        (["--config", "none.toml"], "--config needs a file that can be read; got 'none.toml': No such file"),
        (["--folds", "1"], "--folds must be at least 2; got 1"),
        (["--folds", "5", "--test", "0.5"], "--folds tests every row, so --test has no meaning beside it"),
        (["--folds", "151"], "folds must be from 2 to the number of rows with a target, 150; got 151"),
        (["--class-weight", "equal"], "--class-weight takes one of none, balanced; got 'equal'"),
        (["--hidden", "0"], "--hidden takes widths such as 64,32; got '0'"),
        (["more.csv"], "there is no use for the argument 'more.csv'"),
        (["--target"], "expected one argument"),
    ],
)
def test_command_lines_with_a_mistake(here, arguments, words, capsys):
    target = [] if "--target" in arguments else ["--target", "species"]
    code, out, err = command(capsys, "train", "iris.csv", *target, *arguments)
    assert (
        code == 2
        and words in err
        and err.count("\n") == 1
        and not re.search("^(fold|epoch)", out, re.MULTILINE)
    )


def test_a_usage_error_is_an_argument_error():
    with pytest.raises(ArgumentError, match="takes a key and a value") as caught:
        chosen_of("--set", "x")
    assert isinstance(caught.value, UsageError) and "키와 값" in caught.value.fact.told("ko")


def test_a_configuration_alone_is_enough(here, capsys):
    (here / "iris.toml").write_text(
        '[data]\ntable = "iris.csv"\ntarget = "species"\nskip = ["sepal_width_cm"]\n'
        '[train]\nepochs = 12\n[model]\nnetworks = 2\n[run]\nout = "place"\n',
        encoding="utf-8",
    )
    code, out, _ = command(capsys, "train", "--config", "iris.toml", "--json")
    record = json.loads(out)
    assert code in (0, 1) and record["run"] == "place" and record["network"]["count"] == 2
    assert record["settings"]["epochs"] == 12 == record["training"]["epochs"]
    assert record["request"]["kinds"] == {"sepal_width_cm": "skip"}


# ------------------------------------------------------------------------------------------- cross-validation


def test_cross_validation_from_the_command_line(here, capsys):
    train = ("train", "iris.csv", "--target", "species")
    code, out, _ = command(capsys, *train, "--folds", 3, "--repeats", 2, "--epochs", 40)
    assert code == 0
    for words in (
        "150 training rows, none held back: cross-validation tells the score",
        "fold 6/6  accuracy 0.",
        "means of 6 trainings (3 folds, 2 times), each scored on about 50 rows that it has not seen",
        "95 % intervals, corrected for folds that share training rows",
        "Verdict",
    ):
        assert words in out
    (run,) = os.listdir("runs")
    record = read_run(f"runs/{run}").record
    validation = record["cross_validation"]
    assert (
        len(validation["scores"]) == 6
        and validation["interval"]["network"]["accuracy"][0] < record["score"]["accuracy"]
    )
    assert record["score"] == validation["mean"]["network"] and record["difference"]["measure"] == "accuracy"
    code, out, _ = command(capsys, *train, "--repeats", 1, "--epochs", 2, "--lang", "ko")
    assert "폴드 5/5" in out and "보정한 95 % 구간" in out, "5 folds without --folds"


# ------------------------------------------------------------------------------------------- going on


LONG = ("--target", "species", "--epochs", "60", "--patience", "60", "--folds", "3", "--quiet")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of POSIX")
def test_a_run_that_was_killed_goes_on_bit_for_bit(here, capsys):
    assert command(capsys, "train", "iris.csv", *LONG, "--out", "whole")[0] == 0
    process = program("train", "iris.csv", *LONG, "--out", "killed", "--checkpoint-seconds", "0", cwd=here)
    for _ in range(2000):
        if (here / "killed" / "checkpoints" / "000020").exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    code, _, err = command(capsys, "predict", "killed", "iris.csv")
    if code == 2:  # it was killed in the middle
        assert "Go on with it: chainrule train --resume killed" in err
    assert command(capsys, "train", "--resume", "killed")[0] == 0
    first, second = ((here / name / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert first == second
    whole, killed = (read_run(here / name).record for name in ("whole", "killed"))
    for entry in ("score", "linear", "baseline", "difference", "cross_validation", "training"):
        assert whole[entry] == killed[entry], entry
    assert command(capsys, "predict", "killed", "iris.csv")[0] == 0


def test_folds_that_are_known_are_not_trained_again(here, capsys, monkeypatch):
    command(capsys, "train", "iris.csv", *LONG, "--out", "run")
    before = read_run(here / "run").record
    monkeypatch.setattr("chainrule.train.validation.train_plan", lambda part: pytest.fail("trained again"))
    assert command(capsys, "train", "--resume", "run")[0] == 0
    assert read_run(here / "run").record["cross_validation"] == before["cross_validation"]


def test_what_cannot_go_on(here, capsys):
    arguments = ("--target", "species", "--epochs", "2", "--quiet", "--out", "run")
    command(capsys, "train", "iris.csv", *arguments)
    for extra in (["iris.csv"], ["--lr", "1"], ["--set", "train.epochs=3"]):
        code, _, err = command(capsys, "train", "--resume", "run", *extra)
        assert code == 2 and "--resume goes on with the table and the settings of the run" in err
    code, _, err = command(capsys, "train", "--resume", "nowhere")
    assert code == 2 and "which does not exist" in err
    text = (here / "iris.csv").read_text()
    (here / "iris.csv").write_text(text.replace("5.1", "5.2", 1))
    for language, words in (("en", "whose cells are others now"), ("ko", "칸이 그때와 다릅니다")):
        code, _, err = command(capsys, "train", "--resume", "run", "--lang", language)
        assert code == 2 and words in err
    (here / "iris.csv").unlink()
    code, _, err = command(capsys, "train", "--resume", "run")
    assert code == 2 and "which is gone" in err


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_in_a_fold_leaves_a_run_to_go_on_with(here, capsys):
    process = program(
        "train", "iris.csv", "--target", "species", "--epochs", "40", "--folds", "3", "--repeats", "500",
        "--out", "run", cwd=here,
    )  # fmt: skip
    for _ in range(3000):
        record = here / "run" / "run.json"
        if process.poll() is not None or (record.exists() and "folds_done" in record.read_text()):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130 and "Traceback" not in err
    assert "cross_validation" not in read_run(here / "run").record
    assert command(capsys, "predict", "run", "iris.csv")[0] == 0
