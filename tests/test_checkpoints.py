"""Run directories: what stands in them, damage that is noticed, disks that refuse, one process at a time."""

import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ArgumentError, RunError
from chainrule.files import Folder
from chainrule.train import Callback, fit, load_run
from chainrule.train.checkpoint import Checkpoints
from chainrule.train.lock import FolderLock
from chainrule.train.run import RunFolder, read_run


def rows(count=60):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, 4))
    return x, (x @ generator.normal(size=(4, 3))).argmax(axis=1)


def network(width=8):
    cr.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 3))


def trained(folder, model=None, data=None, **options):
    model = model or network()
    defaults = {"epochs": 4, "progress": False, "checkpoint_steps": 1, "checkpoint_seconds": None}
    cr.manual_seed(3 if not options.get("resume") else 4)  # for dropout; what is resumed has its own state
    return fit(model, data or rows(), folder=folder, **{**defaults, **options})


def bits(model):
    return b"".join(one.numpy().tobytes() for one in model.state_dict().values())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "실행 1"


# ------------------------------------------------------------------------------------------- what stands in it


def test_a_run_directory_tells_all_of_the_training(folder):
    run = trained(folder, patience=3, metrics=["accuracy", "f1"], clip_norm=1.0)
    assert run.folder == str(folder)
    assert sorted(os.listdir(folder)) == ["checkpoints", "metrics.jsonl", "model.safetensors", "run.json"]
    record = json.loads((folder / "run.json").read_text())
    assert record["state"] == "finished" and record["training"]["epochs"] == 4
    assert record["config"]["patience"] == 3 and record["config"]["clip_norm"] == 1.0
    assert record["problem"]["loss"] == "cross_entropy" and record["problem"]["metrics"] == ["accuracy", "f1"]
    assert record["optimizers"][0]["class"] == "Adam" and record["optimizers"][0]["groups"][0]["lr"] == 1e-3
    assert record["model"]["state"]["0.weight"] == "float32(8, 4)"
    assert record["data"]["training"]["rows"] == 48 and len(record["data"]["validation"]["sha256"]) == 64
    assert {"python", "numpy", "chainrule", "platform"} <= set(record["versions"])
    assert {"system", "processor", "processors", "threads"} <= set(record["environment"])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines == run.history
    assert len(os.listdir(folder / "checkpoints")) == 2
    stored = read_run(folder)
    assert stored.history == run.history and stored.record["validation"] == run.score


def test_metrics_are_there_while_training_goes_on(folder):
    seen = []

    def look(record):
        seen.append(len((folder / "metrics.jsonl").read_text().splitlines()))
        assert json.loads((folder / "run.json").read_text())["state"] == "running"
        assert (folder / "lock").read_text().strip() == str(os.getpid())

    trained(folder, callback=look, epochs=3)
    assert seen == [1, 2, 3]


def test_load_run_gives_the_run_back(folder):
    run = trained(folder, patience=2)
    again = load_run(folder, network())
    x, y = rows()
    np.testing.assert_array_equal(again.outputs(x), run.outputs(x))
    assert (
        again.history == run.history
        and again.score == run.score
        and again.evaluate(x, y) == run.evaluate(x, y)
    )
    assert (again.state, again.best_epoch, again.restored, again.folder) == (
        "finished", run.best_epoch, True, str(folder),
    )  # fmt: skip
    with pytest.raises(
        RunError, match=r"do not fit the model: .*0.weight is \(9, 4\) here and \(8, 4\) there"
    ):
        load_run(folder, network(9))
    with pytest.raises(
        RunError, match=r"a run directory with run.json is needed; got .*which does not exist"
    ):
        load_run(folder.parent / "nothing", network())


def test_load_run_of_a_loss_and_a_metric_of_ones_own(folder):
    def distance(outputs, targets):
        return ((outputs - targets) ** 2).mean()

    def largest(outputs, targets):
        return float(np.abs(outputs - targets).max())

    x, _ = rows()
    model = nn.Sequential(nn.Linear(4, 1))
    run = trained(folder, model, (x, x[:, 0]), loss=distance, metrics=[largest])
    again = load_run(folder, nn.Sequential(nn.Linear(4, 1)))
    np.testing.assert_array_equal(again.predict(x), run.predict(x))
    with pytest.raises(ArgumentError, match=r"needs the loss of the run; got a run with .*distance.*loss=…"):
        again.evaluate(x, x[:, 0])
    again = load_run(folder, nn.Sequential(nn.Linear(4, 1)), loss=distance, metrics=[largest])
    assert again.evaluate(x, x[:, 0]) == run.evaluate(x, x[:, 0])


def test_a_folder_that_has_a_run_or_other_files(folder):
    trained(folder)
    with pytest.raises(RunError, match=r"got .*, which has one. Write resume=True to go on with it"):
        trained(folder)
    other = folder.parent / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(RunError, match=r"which has 'thesis.txt' and no run.json"):
            trained(other, resume=resume)
    assert os.listdir(other) == ["thesis.txt"]
    (folder.parent / "file").write_text("")
    with pytest.raises(RunError, match="a run needs a folder that it can write to"):
        trained(folder.parent / "file")


def test_a_run_of_an_error_says_so_and_can_be_continued(folder):
    def fail(record):
        if record["epoch"] == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trained(folder, callback=fail)
    assert json.loads((folder / "run.json").read_text())["state"] == "failed"
    with pytest.raises(RunError, match=r"a run that has ended is needed; got .* \(its state is 'failed'\)"):
        read_run(folder)
    assert load_run(folder, network()).state == "failed"
    whole = network()
    trained(folder.parent / "whole", whole)
    model = network()
    trained(folder, model, resume=True)
    assert bits(model) == bits(whole)


# ------------------------------------------------------------------------------------------- damage


def newest(folder):
    return sorted((folder / "checkpoints").glob("[0-9]*"))[-1]


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def tamper(path):
    """A change by somebody who knows JSON and not the checksum."""
    facts = path.with_name("checkpoint.json")
    facts.write_text(re.sub(r'"step": \d+', '"step": 1', facts.read_text()))


def remove(path):
    path.unlink()


DAMAGES = {
    cut: "is cut or changed",
    flip: "is cut or changed",
    tamper: "was changed: its checksum does not match",
    remove: "is not whole",
}


@pytest.mark.parametrize("damage,words", DAMAGES.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_a_damaged_checkpoint_is_passed_over_and_told(folder, damage, words):
    whole = network()
    trained(folder.parent / "whole", whole)
    trained(folder, epochs=2)
    damage(newest(folder) / "state.safetensors")
    model = network()
    with pytest.warns(RuntimeWarning, match=f"a damaged checkpoint was passed over: checkpoint .*{words}"):
        run = trained(folder, model, resume=True)
    assert bits(model) == bits(whole) and run.resumed_at == (2, 2)
    assert sum(one.endswith(".damaged") for one in os.listdir(folder / "checkpoints")) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(folder, network(), resume=True, epochs=5)


def test_every_byte_of_a_checkpoint_is_guarded(folder):
    trained(folder, epochs=1, keep_checkpoints=1)
    checkpoints = Checkpoints(Folder.open(str(folder)), 1)
    place = newest(folder)
    generator = np.random.default_rng(0)
    for name in ("state.safetensors", "checkpoint.json"):
        data = (place / name).read_bytes()
        for position in generator.integers(0, len(data), 40):
            damaged = bytearray(data)
            damaged[position] ^= 1 << int(generator.integers(0, 8))
            (place / name).write_bytes(bytes(damaged))
            before = None if name == "state.safetensors" else json.loads(data)
            try:
                found = checkpoints.read(place.name)
            except RunError:
                continue
            # White space between the words of JSON means nothing.
            assert before is not None and {**found.facts, "sha256": before["sha256"]} == before
        (place / name).write_bytes(data)
    assert checkpoints.read(place.name).facts["epoch"] == 2


def test_none_whole_is_an_error_and_a_finished_run_without_any_is_not_trained_anew(folder):
    trained(folder, epochs=2)
    for place in (folder / "checkpoints").iterdir():
        cut(place / "state.safetensors")
    with pytest.raises(
        RunError, match=r"needs a checkpoint that is whole; got 2 in .*none of them: checkpoint"
    ):
        trained(folder, resume=True)
    shutil.rmtree(folder / "checkpoints")
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(RunError, match=r"finished run .* without any"):
        trained(folder, resume=True)
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_checkpoint_of_another_version(folder):
    trained(folder, epochs=1)
    for place in (folder / "checkpoints").iterdir():
        facts = place / "checkpoint.json"
        facts.write_text(facts.read_text().replace("chainrule checkpoint 1", "chainrule checkpoint 9"))
    with pytest.raises(RunError, match="has the format 'chainrule checkpoint 9', and this version reads"):
        trained(folder, resume=True)


def test_changed_weights_metrics_and_records_are_noticed(folder):
    trained(folder, epochs=2)
    kept = folder.parent / "kept"
    shutil.copytree(folder, kept)
    for name in ("model.safetensors", "metrics.jsonl"):
        flip(folder / name)
        with pytest.raises(RunError, match=f"needs the {name} that it was saved with; got another one"):
            load_run(folder, network())
        shutil.copy(kept / name, folder / name)
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text.replace('"epochs": 2', '"epochs": 3', 1))
    with pytest.raises(RunError, match="does not match its checksum"):
        load_run(folder, network())
    (folder / "run.json").write_text("{")
    for act in (lambda: load_run(folder, network()), lambda: trained(folder, resume=True)):
        with pytest.raises(RunError, match=r"a run needs a readable run.json"):
            act()
    with pytest.raises(RunError, match=r"Remove run.json to go on from the checkpoints alone"):
        trained(folder, resume=True)
    (folder / "run.json").unlink()
    wanted = read_run(kept)
    trained(folder, resume=True, epochs=2)
    assert read_run(folder).record["problem"] == wanted.record["problem"]
    assert bits(load_run(folder, network()).model) == bits(load_run(kept, network()).model)


def test_what_a_killed_process_was_writing_is_removed(folder):
    trained(folder, epochs=2)
    (folder / ".run.json.0123456789abcdef").write_text("half")
    (folder / "checkpoints" / ".000099.0123456789abcdef").mkdir()
    (folder / "checkpoints" / ".000001.removed").mkdir()
    trained(folder, resume=True, epochs=3)
    names = os.listdir(folder) + os.listdir(folder / "checkpoints")
    assert not [one for one in names if one.startswith(".")]


# ------------------------------------------------------------------------------------------- disks that refuse


class FullDisk(Callback):
    """From an update on, every fsync fails, as it does on a full disk; until another update."""

    def __init__(self, monkeypatch, begin, end):
        self.patch, self.begin, self.end = monkeypatch, begin, end

    def on_batch_end(self, run, batch):
        if batch["step"] == self.begin:
            self.patch.setattr(os, "fsync", self.refuse)
        if batch["step"] == self.end:
            self.patch.undo()

    @staticmethod
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_in_the_middle_warns_once_and_training_goes_on(folder, monkeypatch):
    model, whole = network(), network()
    with pytest.warns(RuntimeWarning) as caught:
        run = trained(folder, model, callbacks=[FullDisk(monkeypatch, 3, 6)])
    told = [str(one.message) for one in caught]
    assert len(told) == 1 and "No space left on device" in told[0]
    assert "the last good checkpoint, 000003, is kept, and writing is tried again later" in told[0]
    trained(folder.parent / "whole", whole)
    assert bits(model) == bits(whole) and run.state == "finished"
    assert bits(load_run(folder, network()).model) == bits(whole)


def test_a_full_disk_at_the_end_keeps_the_run_and_the_last_good_checkpoint(folder, monkeypatch):
    model, whole = network(), network()
    trained(folder.parent / "whole", whole)
    with (
        pytest.warns(RuntimeWarning, match="a checkpoint needs a folder that can be written to"),
        pytest.raises(
            RunError, match=r"No space left on device.*The trained model is in `error.run`"
        ) as caught,
    ):
        trained(folder, model, callbacks=[FullDisk(monkeypatch, 5, None)])
    monkeypatch.undo()
    assert bits(model) == bits(whole) and len(caught.value.run.history) == 4
    again = network()
    trained(folder, again, resume=True)
    assert bits(again) == bits(whole)


def test_a_full_disk_at_the_start_is_an_error_before_anything_is_lost(folder, monkeypatch):
    monkeypatch.setattr(os, "fsync", FullDisk.refuse)
    model = network()
    before = bits(model)
    with pytest.raises(RunError, match=r"a run needs a folder that it can write to; got .*No space left"):
        trained(folder, model)
    assert bits(model) == before


LIMITED = """
import resource, sys, warnings
sys.path.insert(0, {tests!r})
from test_checkpoints import *

class Limit(Callback):
    def on_batch_end(self, run, batch):
        if batch["step"] == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
        if batch["step"] == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    trained({folder!r}, callbacks=[Limit()])
print([str(one.message) for one in caught])
"""


def test_a_limit_of_file_sizes_of_the_system(folder):
    code = LIMITED.format(tests=os.path.dirname(__file__), folder=str(folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("File too large") == 1
    whole = network()
    trained(folder.parent / "whole", whole)
    assert bits(load_run(folder, network()).model) == bits(whole)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount")
def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not allow mounting")
    try:

        class Filler(Callback):
            def on_epoch_end(self, run, record):
                if record["epoch"] == 2:
                    with pytest.raises(OSError), open(disk / "filler", "wb") as file:
                        while True:
                            file.write(b"0" * 4096)
                            file.flush()
                if record["epoch"] == 4:
                    os.unlink(disk / "filler")

        model, whole = network(64), network(64)
        with pytest.warns(RuntimeWarning, match="No space left on device"):
            run = trained(disk / "run", model, callbacks=[Filler()], epochs=6)
        trained(tmp_path / "whole", whole, epochs=6)
        assert bits(model) == bits(whole) == bits(load_run(disk / "run", network(64)).model)
        assert len(run.history) == 6 and len(read_run(disk / "run").history) == 6
    finally:
        subprocess.run(["umount", disk], check=True)


# ------------------------------------------------------------------------------------------- one at a time


def test_a_folder_that_another_process_is_at(folder):
    folder.mkdir()
    lock = FolderLock(Folder.open(str(folder)))
    assert lock.take() is None
    with pytest.raises(RunError, match=rf"one process at a time .* where process {os.getpid()} is at work"):
        trained(folder)
    lock.release()
    assert os.listdir(folder) == []
    trained(folder)


def test_the_lock_of_a_killed_process_is_free(folder):
    folder.mkdir()
    code = (
        "import sys, time; from chainrule.files import Folder; from chainrule.train.lock import FolderLock; "
        f"lock = FolderLock(Folder.open({str(folder)!r})); assert lock.take() is None; "
        "print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match=f"where process {process.pid} is at work"):
            trained(folder)
    finally:
        process.kill()
        process.communicate()
    assert (folder / "lock").exists()
    trained(folder)
    assert not (folder / "lock").exists()


def test_the_lock_is_given_back_after_an_error(folder):
    with pytest.raises(ArgumentError, match="finite loss"), np.errstate(all="ignore"):
        model = network()
        trained(folder, model, optimizer=optim.SGD(model.parameters(), lr=1e30))
    assert not (folder / "lock").exists()


def test_a_run_folder_holds_more_entries(folder):
    trained(RunFolder(folder, {"kind": "tabular", "preparation": {"columns": ["a"]}}))
    stored = read_run(folder)
    assert stored.record["preparation"] == {"columns": ["a"]} and stored.record["kind"] == "tabular"
    opened = RunFolder(folder)
    assert opened.open(resume=True)
    opened.update(score={"accuracy": 0.5})
    opened.close()
    assert read_run(folder).record["score"] == {"accuracy": 0.5}
