"""Where output goes: its reader may leave, a disk may be full, and no name in a file moves the terminal's cursor."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.cli import main
from chainrule.language import visible

pytest.importorskip("pandas")
pytest.importorskip("sklearn")

# What a stream may answer when nobody can read it any more.
REFUSALS = {
    "reader has left": BrokenPipeError(errno.EPIPE, "Broken pipe"),
    "disk is full": OSError(errno.ENOSPC, "No space left on device"),
    "terminal is gone": OSError(errno.EIO, "Input/output error"),
}


class Refusing:
    """A stream that takes so many texts and refuses the next ones."""

    encoding, closed = "utf-8", False

    def __init__(self, takes: int, failure: OSError, terminal: bool) -> None:
        self.left, self.failure, self.terminal_like = takes, failure, terminal

    def isatty(self) -> bool:
        return self.terminal_like

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise self.failure
        return len(text)

    def flush(self) -> None:
        if self.left < 0:
            raise self.failure


def data() -> Any:
    x = np.random.default_rng(0).normal(size=(60, 3))
    return x, (x[:, 0] > 0).astype(int)


@pytest.mark.parametrize("takes", [0, 1, 5])
@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("progress,terminal", [(True, False), ("plain", False), (True, True)])
def test_a_training_goes_on_when_nobody_reads(
    progress: Any, terminal: bool, refusal: str, takes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Refusing(takes, REFUSALS[refusal], terminal))
    folder = tmp_path / "run"
    run = cr.fit(nn.Linear(3, 2), data(), epochs=12, progress=progress, folder=folder)
    monkeypatch.undo()
    assert run.stopped == "finished" and len(run.history) == 12
    assert (folder / "model.safetensors").exists()


def test_a_stream_that_was_closed_ends_no_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with open(tmp_path / "out", "w") as stream:
        pass
    monkeypatch.setattr(sys, "stdout", stream)
    run = cr.fit(nn.Linear(3, 2), data(), epochs=12, progress="plain")
    monkeypatch.undo()
    assert len(run.history) == 12


def test_a_fault_of_a_display_is_not_taken_for_a_reader_that_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any) -> str:
        raise ValueError("a fault")

    monkeypatch.setattr("chainrule.train.progress.describe", wrong)
    with pytest.raises(ValueError, match="a fault"):
        cr.fit(nn.Linear(3, 2), data(), epochs=2, progress="plain")


def table(folder: Path) -> Path:
    x, y = data()
    path = folder / "data.csv"
    rows = "\n".join(f"{a:.3f},{b:.3f},{'yes' if c else 'no'}" for (a, b, _), c in zip(x, y))
    path.write_text(f"a,b,t\n{rows}\n", encoding="utf-8")
    return path


def saved(folder: Path) -> dict[str, Any]:
    """The record of a run whose weights are there."""
    assert (folder / "model.safetensors").stat().st_size > 0
    record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return record


def program(folder: Path, *arguments: str, stdout: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "chainrule.cli", *arguments], cwd=folder, stdout=stdout, stderr=subprocess.PIPE
    )


@pytest.mark.parametrize("lines", [0, 1, 8])
@pytest.mark.parametrize(
    "more", [(), ("--json",), ("--folds", "2")], ids=lambda one: " ".join(one) or "plain"
)
def test_a_model_is_saved_for_a_reader_that_leaves(tmp_path: Path, more: tuple[str, ...], lines: int) -> None:
    table(tmp_path)
    asked = ("train", "data.csv", "--target", "t", "--epochs", "30", "--out", "run", *more)
    process = program(tmp_path, *asked, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    for _ in range(0 if "--json" in more else lines):
        process.stdout.readline()
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert process.wait(120) == 0 and told == b""
    record = saved(tmp_path / "run")
    assert record["state"] == "finished" and record["score"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
def test_a_model_is_saved_where_the_output_finds_no_space(tmp_path: Path) -> None:
    table(tmp_path)
    with open("/dev/full", "wb") as full:
        process = program(
            tmp_path, "train", "data.csv", "--target", "t", "--epochs", "3", "--out", "run", stdout=full
        )
        _, told = process.communicate(timeout=120)
    assert process.returncode == 2 and told.startswith(b"chainrule: error: the output must go somewhere")
    assert saved(tmp_path / "run")["score"]


def test_a_command_that_only_prints_stops_for_a_reader_that_leaves(tmp_path: Path) -> None:
    process = program(tmp_path, "explain", "w*x", "w=1", "x=2", stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert process.wait(120) == 0 and told == b""


# ------------------------------------------------------------------------------- control characters

SEQUENCES = {
    "colour": "\x1b[31m",
    "title": "\x1b]0;title\x07",
    "8-bit": "\x9b2J",
    "delete": "\x7f\x08\x08",
    "carriage return": "x\ry",
    "new line": "x\nVerdict   the network is great",
    "right to left": "\u202e\u2066",
    "line separator": "x\u2028Verdict   the network is great",
}


def assert_harmless(text: str) -> None:
    """Whatever is printed is lines of visible letters."""
    assert visible(text, lines=True) == text
    assert not any(line.startswith("Verdict   the network is great") for line in text.splitlines())


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("name", SEQUENCES)
def test_names_and_values_never_reach_the_terminal_as_they_are(
    name: str, language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import pandas

    from chainrule.data.tabular import write_table

    bad = SEQUENCES[name]
    monkeypatch.chdir(tmp_path)
    x, y = data()
    frame = pandas.DataFrame({
        f"number{bad}": [f"{one:.3f}" for one in x[:, 0]],
        f"kind{bad}": [f"u{bad}" if one > 0 else "v" for one in x[:, 1]],
        f"text{bad}": [f"{bad} row {k}" for k in range(len(x))],
        f"target{bad}": [f"yes{bad}" if one else "no" for one in y],
    })  # fmt: skip
    write_table(frame, "data.csv")
    path = "data\x1b[31m.csv"
    os.rename("data.csv", path)
    target = next(one for one in pandas.read_csv(path).columns if one.startswith("target"))
    for arguments in (
        ("train", path, "--target", target, "--epochs", "2", "--out", f"run{bad.partition('/')[0]}"),
        ("train", path, "--target", f"none{bad}"),
        ("train", path, "--target", target, "--skip", f"none{bad}"),
        ("train", f"none{bad}", "--target", "t"),
        ("predict", f"run{bad}", path, "-o", f"out{bad}.csv"),
        ("predict", f"run{bad}", path, "--json", "-o", f"out{bad}.csv"),
        ("explain", f"run{bad}", "--row", "1"),
        ("explain", f"x{bad}", "x=1"),
        (f"verb{bad}",),
        ("train", f"--option{bad}"),
    ):
        main([*arguments, "--lang", language])
        captured = capsys.readouterr()
        assert_harmless(captured.out)
        assert_harmless(captured.err)
        assert captured.out or captured.err
