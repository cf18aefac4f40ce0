"""Run directories from elsewhere, moved, removed, wanted by several: nothing outside is touched, nothing is lost."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import warnings

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.cli import main
from chainrule.cli import train as train_command
from chainrule.errors import RunError
from chainrule.files import Folder
from chainrule.train import Callback, fit, load_run
from chainrule.train.run import RunFolder, owning_run, read_run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs links and pipes")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """A pipe without anybody at its other end must not hold us up for ever, and a slow disk not for long."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)

    def late(*_):
        raise TimeoutError("waited for a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def rows():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 4))
    return x, (x @ generator.normal(size=(4, 3))).argmax(axis=1)


def network():
    cr.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


def trained(folder, model=None, **options):
    defaults = {
        "epochs": 4,
        "progress": False,
        "checkpoint_steps": 1,
        "checkpoint_seconds": None,
        "compile": False,
    }
    model = model or network()
    cr.manual_seed(3)  # for dropout; what is resumed has its own state
    return fit(model, rows(), folder=folder, **{**defaults, **options})


def bits(model):
    return b"".join(one.numpy().tobytes() for one in model.state_dict().values())


@pytest.fixture(scope="module")
def whole():
    """The weights of a training that nothing happened to."""
    model = network()
    cr.manual_seed(3)
    fit(model, rows(), epochs=4, progress=False, compile=False)
    return bits(model)


def picture(*places):
    """All that is in folders: kinds, where links lead, contents. Nothing is followed."""
    found = {}
    for place in places:
        for path in [place, *sorted(place.rglob("*"))]:
            status = path.lstat()
            link = os.readlink(path) if path.is_symlink() else ""
            found[str(path)] = (
                status.st_mode,
                link,
                path.read_bytes() if stat.S_ISREG(status.st_mode) else b"",
            )
    return found


# ------------------------------------------------------------------------------------------- folders from elsewhere


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of two epochs, of which copies are spoilt."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    trained(folder, epochs=2)
    return folder


@pytest.fixture
def outside(tmp_path):
    """What belongs to the user: a diary, keys, and a run of another name."""
    place = tmp_path / "home"
    (place / ".ssh").mkdir(parents=True)
    (place / ".ssh" / "id").write_text("secret")
    (place / "diary").write_text("Dear diary")
    (place / "12345").write_text("12345\n")
    for name in (".000001.removed", "000001.damaged", "000900", "000901"):
        (place / name).mkdir()
        (place / name / "file").write_text("mine")
    return place


def link_to_file(path, outside):
    path.symlink_to(outside / "diary")


def link_to_number(path, outside):
    path.symlink_to(outside / "12345")


def link_to_folder(path, outside):
    path.symlink_to(outside)


def link_to_nothing(path, outside):
    path.symlink_to(outside / "not yet")


def hard_link(path, outside):
    os.link(outside / "diary", path)


def hard_link_to_number(path, outside):
    os.link(outside / "12345", path)


def pipe(path, outside):
    os.mkfifo(path)


def link_to_pipe(path, outside):
    os.mkfifo(outside / "pipe")
    path.symlink_to(outside / "pipe")


def link_to_endless(path, outside):
    path.symlink_to("/dev/zero")


def a_socket(path, outside):
    before = os.getcwd()
    os.chdir(path.parent)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(before)


def folder_with_links(path, outside):
    path.mkdir()
    (path / "more").symlink_to(outside)
    (path / "file").symlink_to(outside / "diary")


KINDS = [
    link_to_file, link_to_number, link_to_folder, link_to_nothing, hard_link, hard_link_to_number, pipe, link_to_pipe,
    link_to_endless, a_socket, folder_with_links,
]  # fmt: skip
NAMES = [
    "lock", "run.json", "metrics.jsonl", "model.safetensors", "checkpoints", ".run.json.0123456789abcdef",
    "checkpoints/000001", "checkpoints/000002", "checkpoints/000003", "checkpoints/000004",
    "checkpoints/000004/state.safetensors", "checkpoints/000004/checkpoint.json", "checkpoints/000900",
    "checkpoints/.000001.removed", "checkpoints/.000007.0123456789abcdef", "checkpoints/000004.damaged",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_outside_is_written_or_removed(tmp_path, begun, outside, name, kind):
    run = tmp_path / "run"
    shutil.copytree(begun, run)
    newest = sorted((run / "checkpoints").glob("[0-9]*"))[-1].name
    path = run / name.replace("000004", newest)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    kind(path, outside)
    before = picture(outside)
    for act in (lambda: trained(run, resume=True), lambda: load_run(run, network()), lambda: read_run(run)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged checkpoints are told of
            try:
                act()
            except RunError as error:
                assert ". " in str(error), "it says what to do"
    assert picture(outside) == before


@pytest.mark.parametrize("kind", KINDS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("name", ["lock", "metrics.jsonl", "model.safetensors", "checkpoints", "run.json"])
def test_a_new_run_in_a_prepared_folder(tmp_path, outside, name, kind):
    run = tmp_path / "run"
    run.mkdir()
    kind(run / name, outside)
    before = picture(outside)
    try:
        trained(run, epochs=1)
    except RunError:
        pass
    else:
        assert read_run(run).record["state"] == "finished"
        assert all(not path.is_symlink() for path in run.iterdir())
    assert picture(outside) == before


@pytest.mark.parametrize("content", [b"Dear diary", b"12345 and more", b"\n\n", b"1" * 25, b"-1", b"\xff"])
def test_a_file_called_lock_of_somebody_else(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    with pytest.raises(
        RunError, match=r"its file lock is not one that a training made\. Move away what is in its"
    ):
        trained(tmp_path)
    assert picture(tmp_path).keys() == {str(tmp_path), str(tmp_path / "lock")}
    assert (tmp_path / "lock").read_bytes() == content


@pytest.mark.parametrize("kind,words", [
    (link_to_folder, "a symbolic link"), (hard_link, "a file"), (pipe, "a pipe"), (a_socket, "a socket"),
])  # fmt: skip
def test_the_error_says_what_is_in_the_way(tmp_path, begun, outside, kind, words):
    run = tmp_path / "run"
    shutil.copytree(begun, run)
    shutil.rmtree(run / "checkpoints")
    kind(run / "checkpoints", outside)
    with pytest.raises(
        RunError, match=f"checkpoints is {words} and no folder. Move away what is in its place"
    ):
        trained(run, resume=True)


@pytest.mark.parametrize("kind,words", [
    (link_to_number, "a symbolic link and no regular file"), (pipe, "a pipe and no regular file"),
    (a_socket, "a socket and no regular file"), (folder_with_links, "a folder and no regular file"),
    (hard_link_to_number, "a hard link to a file that has another name too"),
])  # fmt: skip
def test_the_error_says_what_the_lock_is(tmp_path, outside, kind, words):
    kind(tmp_path / "lock", outside)
    with pytest.raises(RunError, match=f"lock is {words}. Move away what is in its place"):
        trained(tmp_path)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT])
@pytest.mark.parametrize(
    "kind", [link_to_number, pipe, hard_link_to_number, a_socket], ids=lambda one: one.__name__
)
def test_what_is_exchanged_between_the_look_and_the_opening(tmp_path, outside, monkeypatch, kind, flags):
    (tmp_path / "file").write_text("")
    with Folder.open(str(tmp_path)) as folder:
        status = folder.status("file")
        (tmp_path / "file").unlink()
        kind(tmp_path / "file", outside)
        monkeypatch.setattr(Folder, "status", lambda self, name: status)
        if kind is hard_link_to_number and flags == os.O_RDONLY:
            os.close(folder.open_file("file", flags))
            return
        with pytest.raises(OSError):
            folder.open_file("file", flags)


def test_files_of_the_user_in_a_run_stay(tmp_path, begun):
    run = tmp_path / "run"
    shutil.copytree(begun, run)
    mine = [
        run / "notes.txt", run / ".gitignore", run / ".notes.txt.0123456789abcdef", run / "checkpoints" / ".gitignore",
        run / "checkpoints" / ".nfs0000000000000001", run / "checkpoints" / "best" / "file", run / ".git" / "HEAD",
    ]  # fmt: skip
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    trained(run, resume=True)
    assert all(path.read_text() == "mine" for path in mine)


# ------------------------------------------------------------------------------------------- while training goes on


class At(Callback):
    """Does something in the middle of the training."""

    def __init__(self, act, epoch=2):
        self.act, self.epoch = act, epoch

    def on_epoch_end(self, run, record):
        if record["epoch"] == self.epoch:
            self.act()


def renamed(run):
    run.rename(run.with_name("moved"))
    return run.with_name("moved")


def renamed_and_replaced_by_a_folder(run):
    place = renamed(run)
    run.mkdir()
    (run / "mine").write_text("mine")
    return place


def renamed_and_replaced_by_a_file(run):
    place = renamed(run)
    run.write_text("mine")
    return place


def parent_renamed(run):
    run.parent.rename(run.parent.with_name("elsewhere"))
    return run.parent.with_name("elsewhere") / run.name


def renamed_twice(run):
    renamed(run).rename(run.with_name("again"))
    return run.with_name("again")


def renamed_and_linked(run):
    place = renamed(run)
    run.symlink_to(place)
    return run


MOVES = [
    renamed, renamed_and_replaced_by_a_folder, renamed_and_replaced_by_a_file, parent_renamed, renamed_twice,
    renamed_and_linked,
]  # fmt: skip


@pytest.mark.parametrize("move", MOVES, ids=lambda one: one.__name__)
def test_a_folder_that_is_moved_stays_whole(tmp_path, whole, move):
    run, model, places = tmp_path / "above" / "run", network(), []
    run.parent.mkdir()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = trained(run, model, callbacks=[At(lambda: places.append(move(run)))])
    (place,) = places
    told = [str(one.message) for one in caught]
    if move is renamed_and_linked:
        assert not told
    else:
        assert len(told) == 1 and "a run folder must keep its name while a training writes to it" in told[0]
        assert f"{str(run)!r}, which has the name {str(place)!r} now" in told[0]
    assert found.folder == str(place) and bits(model) == whole
    assert sorted(os.listdir(place)) == ["checkpoints", "metrics.jsonl", "model.safetensors", "run.json"]
    assert bits(load_run(place, network()).model) == whole and len(read_run(place).history) == 4
    if move is renamed_and_replaced_by_a_folder:
        assert os.listdir(run) == ["mine"]
    if move is renamed_and_replaced_by_a_file:
        assert run.read_text() == "mine"
    assert trained(place, resume=True, epochs=5).resumed_at[0] == 5


def test_a_folder_whose_new_name_is_not_known(tmp_path, whole, monkeypatch):
    run, model = tmp_path / "run", network()
    monkeypatch.setattr("chainrule.files.Folder.whereabouts", lambda self: None)
    with pytest.warns(
        RuntimeWarning, match="which has another, which the system does not tell now"
    ) as caught:
        trained(run, model, callbacks=[At(lambda: renamed(run))])
    assert len(caught) == 1 and not run.exists()
    assert bits(load_run(tmp_path / "moved", network()).model) == whole == bits(model)


@pytest.mark.parametrize("steps", [1, None])
def test_a_folder_that_is_removed_is_made_again(tmp_path, whole, steps):
    run, model = tmp_path / "run", network()
    with pytest.warns(RuntimeWarning, match=r"got .*, which was removed. It was made again") as caught:
        trained(run, model, callbacks=[At(lambda: shutil.rmtree(run))], checkpoint_steps=steps)
    assert len(caught) == 1
    assert bits(load_run(run, network()).model) == whole == bits(model)
    assert len(read_run(run).history) == 4 and 1 <= len(os.listdir(run / "checkpoints")) <= 2
    assert not (run / "lock").exists()


def test_a_folder_that_is_removed_and_replaced_is_an_error_that_keeps_the_run(tmp_path, whole):
    run, model = tmp_path / "run", network()

    def replace():
        shutil.rmtree(run)
        run.mkdir()
        (run / "mine").write_text("mine")

    with (
        pytest.warns(
            RuntimeWarning, match="it was removed, and something else has its place. Training goes on"
        ),
        pytest.raises(
            RunError, match=r"it was removed, and something else has its place. Move away"
        ) as caught,
    ):
        trained(run, model, callbacks=[At(replace)])
    assert os.listdir(run) == ["mine"] and bits(caught.value.run.model) == whole


def checkpoints_become(kind):
    def act(run, outside):
        shutil.rmtree(run / "checkpoints")
        kind(run / "checkpoints", outside)

    act.__name__ = kind.__name__
    return act


@pytest.mark.parametrize(
    "kind",
    [link_to_file, link_to_folder, link_to_nothing, hard_link, pipe, a_socket],
    ids=lambda one: one.__name__,
)
def test_checkpoints_that_become_something_else(tmp_path, whole, outside, kind):
    run, model = tmp_path / "run", network()
    act = checkpoints_become(kind)
    kept = []

    def swap():
        act(run, outside)
        kept.append(picture(outside))

    with pytest.warns(
        RuntimeWarning, match=r"checkpoints is a .* and no folder. Training goes on, there is no"
    ) as caught:
        trained(run, model, callbacks=[At(swap)])
    assert len(caught) == 1 and "Move away what is in its place" in str(caught[0].message)
    assert bits(load_run(run, network()).model) == whole == bits(model)
    assert picture(outside) == kept[0]


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.json", "model.safetensors", "lock"])
@pytest.mark.parametrize(
    "kind", [link_to_file, hard_link, link_to_nothing, pipe, a_socket], ids=lambda one: one.__name__
)
def test_files_that_become_links(tmp_path, whole, outside, name, kind):
    run, model = tmp_path / "run", network()

    def swap():
        (run / name).unlink(missing_ok=True)
        kind(run / name, outside)

    before = {path: one for path, one in picture(outside).items() if not path.endswith("home")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained(run, model, callbacks=[At(swap)])
    assert {path: one for path, one in picture(outside).items() if not path.endswith("home")} == before
    assert bits(load_run(run, network()).model) == whole


def test_a_closed_folder_is_not_written_to(tmp_path):
    folder = RunFolder(tmp_path / "run")
    trained(folder)
    with pytest.raises(
        RunError, match=r"a run is written to while its folder is open; got .*, which is closed"
    ):
        folder.update(score=1)


# ------------------------------------------------------------------------------------------- several processes

WANTS = """
import sys, time
sys.path.insert(0, {tests!r})
from test_foreign_runs import *
while time.time() < {start}:
    pass
try:
    trained({folder!r}, epochs=30)
except RunError as error:
    print("refused", error.message)
else:
    print("trained")
"""


def test_several_processes_that_want_one_folder(tmp_path):
    import time

    run = tmp_path / "deep" / "er" / "run"
    code = WANTS.format(tests=os.path.dirname(__file__), folder=str(run), start=time.time() + 3)
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    ends = [one.communicate(timeout=100) for one in crowd]
    assert all(one.returncode == 0 for one in crowd), ends
    told = sorted(out for out, _ in ends)
    assert told[-1] == "trained\n" and all(one.startswith("refused") for one in told[:-1])
    assert all("is at work" in one or "which has one" in one for one in told[:-1])
    stored = read_run(run)
    assert len(stored.history) == 30 and not (run / "lock").exists()
    load_run(run, network())


def test_a_run_that_cannot_begin_removes_no_other(tmp_path):
    """Both made `runs`; what one of them takes back is its own."""
    one, other = RunFolder(tmp_path / "runs" / "one"), RunFolder(tmp_path / "runs" / "other")
    one.open(resume=False)
    other.open(resume=False)
    other.start(problem={})
    (tmp_path / "runs" / "one" / "notes.txt").write_text("mine")
    one.discard()
    assert os.listdir(tmp_path / "runs" / "one") == ["notes.txt"]
    (tmp_path / "runs" / "one" / "notes.txt").unlink()
    assert (tmp_path / "runs" / "other" / "run.json").exists()
    other.discard()
    assert os.listdir(tmp_path / "runs") == ["one"]


def test_nobody_else_may_write_while_folds_are_scored(tabular, tmp_path, monkeypatch):
    """Training is over then, and the run is not."""
    run, told = tmp_path / "run", []
    score = train_command.cross_validate

    def look(*arguments, **options):
        with pytest.raises(RunError, match=f"where process {os.getpid()} is at work") as caught:
            RunFolder(run).open(resume=True)
        told.append(caught.value)
        return score(*arguments, **options)

    monkeypatch.setattr(train_command, "cross_validate", look)
    arguments = [
        "train",
        tabular / "table.csv",
        "--target",
        "way",
        "--epochs",
        3,
        "--folds",
        2,
        "--quiet",
        "--out",
        run,
    ]
    assert main([str(one) for one in arguments]) in (0, 1) and told
    assert RunFolder(run).open(resume=True)


# ------------------------------------------------------------------------------------------- what users name


@pytest.fixture(scope="module")
def tabular(tmp_path_factory):
    """A run of a table, and the table."""
    pytest.importorskip("pandas")
    folder = tmp_path_factory.mktemp("tabular")
    chance = np.random.default_rng(0)
    lines = [f"{a:.3f},{b:.3f},{'up' if a > b else 'down'}" for a, b in chance.normal(size=(60, 2))]
    (folder / "table.csv").write_text("\n".join(["a,b,way", *lines, ""]))
    arguments = [
        "train",
        folder / "table.csv",
        "--target",
        "way",
        "--epochs",
        5,
        "--quiet",
        "--out",
        folder / "run",
    ]
    assert main([str(one) for one in arguments]) in (0, 1)
    return folder


def as_it_is(path, aside):
    return str(path)


def relative(path, aside):
    return os.path.relpath(path)


def by_detour(path, aside):
    return f"{path.parent}/./x/../{path.name}".replace("/x/../", f"/../{path.parent.name}/")


def by_link(path, aside):
    link = aside / f"link{path.suffix}"
    link.symlink_to(path)
    return str(link)


def by_link_to_link(path, aside):
    (aside / "first").symlink_to(path)
    (aside / "second.html").symlink_to("first")
    return str(aside / "second.html")


def by_linked_folder(path, aside):
    (aside / "folder").symlink_to(path.parent)
    return str(aside / "folder" / path.name)


def by_hard_link(path, aside):
    os.link(path, aside / "hard.html")
    return str(aside / "hard.html")


def in_capitals(path, aside):
    return str(path.parent / path.name.upper())


WAYS = [as_it_is, relative, by_detour, by_link, by_link_to_link, by_linked_folder, by_hard_link, in_capitals]
FILES = [
    "run.json",
    "metrics.jsonl",
    "model.safetensors",
    "lock",
    "STATE",
    "FACTS",
    "checkpoints/new",
    "checkpoints",
]


def refused(capsys, *arguments):
    code = main([str(one) for one in arguments])
    captured = capsys.readouterr()
    assert code == 2 and "must name a file that no run needs; got " in captured.err
    assert "which belongs to the run in " in captured.err and captured.out == ""


@pytest.mark.parametrize("way", WAYS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("name", FILES)
def test_no_output_goes_into_the_files_of_a_run(tabular, tmp_path, monkeypatch, capsys, name, way):
    run = tmp_path / "run"
    shutil.copytree(tabular / "run", run)
    newest = sorted((run / "checkpoints").glob("[0-9]*"))[-1]
    path = {"STATE": newest / "state.safetensors", "FACTS": newest / "checkpoint.json"}.get(name, run / name)
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.chdir(aside)
    if way is by_hard_link and not path.is_file():
        pytest.skip("there is nothing to link to")
    target = way(path, aside)
    before = picture(run)
    for place in (run, run / "run.json"):
        refused(capsys, "predict", place, tabular / "table.csv", "-o", target)
    if way is not by_hard_link:  # whose run is not at hand
        refused(capsys, "bench", "--quick", "--out", target)
    if target.endswith(".html"):
        refused(capsys, "explain", run, "--row", 1, "--data", tabular / "table.csv", "--html", target)
    if target.endswith(".html") and way is not by_hard_link:
        refused(capsys, "explain", "x*2", "x=1", "--html", target)
    assert picture(run) == before


def test_outputs_of_one_run_do_not_go_into_another(tabular, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(tabular / "run", other)
    before = picture(other)
    refused(capsys, "predict", tabular / "run", tabular / "table.csv", "-o", other / "run.json")
    refused(capsys, "explain", "x*2", "x=1", "--html", other / "checkpoints" / "page.html")
    code = main(
        ["train", str(tabular / "table.csv"), "--target", "way", "--out", str(other / "checkpoints" / "new")]
    )
    assert code == 2 and "which belongs to the run in" in capsys.readouterr().err
    with pytest.raises(
        RunError, match=r"a run needs a folder of its own; got .*, which belongs to the run in"
    ):
        trained(other / "checkpoints" / "000099")
    assert picture(other) == before


def test_other_files_beside_a_run_are_the_users(tabular, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(tabular / "run", run)
    for target in (
        run / "predictions.csv",
        tmp_path / "checkpoints",
        tmp_path / "lock",
        run / "x" / "run.json",
    ):
        target.parent.mkdir(exist_ok=True)
        assert main(["predict", str(run), str(tabular / "table.csv"), "-o", str(target), "--quiet"]) == 0
        assert target.read_text().startswith("a,b,way,prediction")
    assert read_run(run).record["kind"] == "tabular"
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "run.json").write_text('{"format": "of somebody else"}')
    assert owning_run(tmp_path / "bench" / "run.json") is None
    assert owning_run(tmp_path / "x") is None and owning_run("/") is None and owning_run("run.json") is None


def test_the_command_follows_a_folder_that_is_moved(tabular, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    note = RunFolder.note_epoch

    def note_and_move(self, record):
        note(self, record)
        if record["epoch"] == 2:
            os.rename("run", "moved")

    monkeypatch.setattr(RunFolder, "note_epoch", note_and_move)
    arguments = ["train", tabular / "table.csv", "--target", "way", "--epochs", 5, "--out", "run", "--json"]
    assert main([str(one) for one in arguments]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["run"] == "moved" and os.listdir(tmp_path) == ["moved"]
    assert "score" in read_run("moved").record


# ------------------------------------------------------------------------------------------- without open folders


def test_where_folders_cannot_be_held_open(tmp_path, whole, outside, monkeypatch):
    """As on Windows, which opens no folders: the same by paths."""
    monkeypatch.setattr("chainrule.files._HOLDS", False)
    run, model = tmp_path / "run", network()
    trained(run, epochs=2)
    trained(run, model, resume=True)
    assert bits(load_run(run, network()).model) == whole == bits(model)
    assert sorted(os.listdir(run)) == ["checkpoints", "metrics.jsonl", "model.safetensors", "run.json"]
    with pytest.warns(RuntimeWarning, match="which was removed. It was made again"):
        trained(tmp_path / "again", model, callbacks=[At(lambda: shutil.rmtree(tmp_path / "again"))])
    before = picture(outside)
    for name, kind in (("checkpoints", link_to_folder), ("lock", link_to_file), ("lock", hard_link)):
        copy = tmp_path / f"{name} {kind.__name__}"
        shutil.copytree(run, copy)
        if name == "checkpoints":
            shutil.rmtree(copy / name)
        kind(copy / name, outside)
        with pytest.raises(RunError, match="a run needs a folder that it can write to"):
            trained(copy, resume=True)
    assert picture(outside) == {**before, str(outside): picture(outside)[str(outside)]}
    monkeypatch.setattr("chainrule.files._HOLDS", os.open in os.supports_dir_fd)
