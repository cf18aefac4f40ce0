"""What is shown while training: on a terminal, in a notebook, in a pipe, in Korean; and to objects of one's own."""

import os
import re
import struct
import subprocess
import sys
import types

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError
from chainrule.train import progress as module
from chainrule.train.notebook import in_notebook
from chainrule.train.progress import (
    Bar,
    Course,
    Lines,
    NotebookBar,
    Silent,
    clock,
    describe,
    fitting,
    make_progress,
)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)

    def sleep(self, seconds):
        self.now += seconds


def record(epoch, **values):
    return {"epoch": float(epoch), "loss": 0.5 / epoch, **values, "seconds": 1.0}


# ------------------------------------------------------------------------------------------- words


def test_words_of_a_record():
    assert describe({"loss": 0.25, "largest": 3.0}) == "loss 0.25  largest 3"
    found = describe(record(1, balanced_accuracy=0.5, validation_r2=0.25, learning_rate=1e-3), "ko")
    assert found == "손실 0.5  균형 정확도 0.500  검증 R² 0.25  학습률 0.001"


def test_what_does_not_fit_is_left_out():
    values = {
        "epoch": 1.0,
        "loss": 0.5,
        "accuracy": 0.25,
        "validation_loss": 0.75,
        "validation_accuracy": 0.125,
    }
    assert fitting(values, 200, "en") == describe(values)
    assert fitting(values, 60, "en") == "loss 0.5  validation loss 0.75  validation accuracy 0.125"
    assert fitting(values, 20, "en") == "validation loss 0.75" and fitting(values, 5, "en") == ""
    assert [clock(one) for one in (0, 59.6, 3599, 36000)] == ["0:00", "1:00", "59:59", "10:00:00"]


def test_the_time_that_is_left(monkeypatch):
    time = Clock(monkeypatch)
    course = Course(10, "en")
    assert course.left() == ""
    time.sleep(30)
    course.end_epoch(record(1))
    assert course.left() == "4:30 left"
    course.batches = (5, 10, 0.1)
    time.sleep(15)
    assert course.left() == "4:15 left" and course.slow()
    course.end()
    assert course.left() == ""
    resumed = Course(10, "ko")
    resumed.resume(7)
    time.sleep(20)
    resumed.end_epoch(record(8))
    assert resumed.left() == "0:40 남음"


# ------------------------------------------------------------------------------------------- lines


def test_progress_in_a_pipe_is_a_few_plain_lines(capsys):
    x, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    cr.manual_seed(0)
    cr.fit(nn.Linear(2, 2), (x / 40, y), epochs=40, progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert (
        len(lines) == 11 and lines[0].startswith("epoch  1/40  loss ") and lines[-1].startswith("epoch 40/40")
    )
    assert "validation accuracy" in lines[0] and "\x1b" not in "".join(lines)


def test_lines_in_korean_and_the_last_epoch(capsys):
    lines = Lines(100, "ko")
    for epoch in (1.0, 2.0):
        lines.epoch({"epoch": epoch, "loss": 0.5, "validation_accuracy": 1.0})
    lines.close()
    lines.close()
    assert capsys.readouterr().out.splitlines() == [
        "에폭   1/100  손실 0.5  검증 정확도 1.000", "에폭   2/100  손실 0.5  검증 정확도 1.000"
    ]  # fmt: skip


def test_slow_epochs_break_the_silence(monkeypatch, capsys):
    time = Clock(monkeypatch)
    lines = Lines(100, "en")
    for done in range(1, 8):
        time.sleep(10)
        lines.batch(done, 20, 0.25)
    lines.epoch(record(1))
    for epoch in (2, 3):
        time.sleep(31)
        lines.epoch(record(epoch))
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1/100  batch  3/20  loss 0.25  0.1/s",
        "epoch 1/100  batch  6/20  loss 0.25  0.1/s",
        "epoch   1/100  loss 0.5",
        "epoch   2/100  loss 0.25",
        "epoch   3/100  loss 0.1667",
    ]


# ------------------------------------------------------------------------------------------- a terminal

DEMONSTRATION = """
import sys, chainrule.train.progress as module
now = [0.0]
module.time = type(sys)("time")
module.time.perf_counter = lambda: now[0]
shown = module.make_progress(True, 3, sys.argv[1])
assert type(shown).__name__ == "Bar"
for epoch in (1, 2, 3):
    for done in range(1, 11):
        now[0] += 0.5
        shown.batch(done, 10, 0.25)
    shown.epoch({"epoch": float(epoch), "loss": 0.5, "accuracy": 0.75, "validation_loss": 0.625, "seconds": 5.0})
shown.close()
print("after")
"""


def on_a_terminal(columns, language):
    """What a program writes to a terminal of so many columns."""
    pty = pytest.importorskip("pty")
    import fcntl
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "TTY_COMPATIBLE"):
        environment.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-c", DEMONSTRATION, language], stdout=follower, stderr=follower, env=environment
    ) as program:
        os.close(follower)
        written = b""
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # Linux says so at the end
                break
            if not part:
                break
            written += part
    os.close(leader)
    assert program.returncode == 0, written.decode()
    return written.decode()


def screens(written):
    """The text of each drawing, without colours; the drawings begin where the cursor goes back."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", written)
    return [one for one in re.split(r"\r(?!\n)(?:\x1b\[2K|\x1b\[1A)*|\x1b\[\?25[lh]", plain) if one.strip()]


def test_a_bar_on_a_terminal():
    written = on_a_terminal(120, "en")
    drawn = screens(written)
    assert len(drawn) > 20
    assert any(
        one.startswith("epoch 1/3 ━")
        and "\n" in one
        and "batch  6/10  loss 0.25  2/s" in one
        and "left" in one
        for one in drawn
    )
    last = written.replace("\x1b[?25h", "").rstrip().splitlines()
    assert last[-1].endswith("after")
    shown = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", last[-2])
    assert shown.strip("\r ").endswith("━━━ loss 0.5  accuracy 0.750  validation loss 0.625")
    assert "epoch 3/3" in shown and "left" not in shown


def test_a_narrow_terminal_in_korean_has_one_line_still():
    drawn = screens(on_a_terminal(50, "ko"))
    for one in drawn:
        for line in one.splitlines():
            wide = sum(2 if "가" <= letter <= "힣" else 1 for letter in line.rstrip())
            assert wide <= 50, line
    assert any("에폭 2/3" in one and "검증 손실 0.625" in one for one in drawn)


def test_nothing_is_drawn_more_often_than_ten_times_a_second(monkeypatch, capsys):
    time = Clock(monkeypatch)
    monkeypatch.setenv("TERM", "xterm")
    bar = Bar(1000, "en")
    drawn = []
    monkeypatch.setattr(bar, "_draw", lambda: drawn.append(time.now))
    for epoch in range(1, 1001):
        bar.epoch(record(epoch))
        bar.batch(1, 1, 0.5)
        time.sleep(0.001)
    bar.close()
    assert 10 <= len(drawn) <= 12


# ------------------------------------------------------------------------------------------- a notebook


@pytest.fixture
def notebook(monkeypatch):
    """A kernel's IPython, as far as it is asked; the list of what was displayed."""
    shown = []
    shell = types.SimpleNamespace(kernel=object())
    python = types.ModuleType("IPython")
    python.get_ipython = lambda: shell
    display = types.ModuleType("IPython.display")
    display.display = lambda data, **options: shown.append((data, options))
    python.display = display
    monkeypatch.setitem(sys.modules, "IPython", python)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return types.SimpleNamespace(shown=shown, shell=shell)


def test_a_notebook_has_one_display(notebook, monkeypatch):
    time = Clock(monkeypatch)
    shown = make_progress(True, 3)
    assert isinstance(shown, NotebookBar)
    for epoch in (1, 2, 3):
        for done in range(1, 11):
            time.sleep(0.5)
            shown.batch(done, 10, 0.25)
        shown.epoch(record(epoch, **{"<b>&": 1.0}))
    shown.close()
    numbers = {options["display_id"] for _, options in notebook.shown}
    assert len(numbers) == 1 and len(notebook.shown) > 20
    assert [options["update"] for _, options in notebook.shown] == [False] + [True] * (
        len(notebook.shown) - 1
    )
    data = notebook.shown[-1][0]
    assert data["text/plain"] == "epoch 3/3  loss 0.1667  <b>& 1"
    assert "&lt;b&gt;&amp; 1" in data["text/html"] and "<b>" not in data["text/html"]
    assert "value='3.000' max='3'" in data["text/html"]
    assert any("batch  8/10  loss 0.25" in one["text/html"] for one, _ in notebook.shown)


def test_a_terminal_of_ipython_is_no_notebook(notebook):
    assert in_notebook()
    notebook.shell.kernel = None
    assert not in_notebook()
    del notebook.shell.kernel
    assert not in_notebook() and isinstance(make_progress(True, 3), Lines)


def test_looking_for_a_notebook_loads_nothing():
    code = (
        "import sys, chainrule.train.progress as p; p.make_progress(True, 3); print('IPython' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ------------------------------------------------------------------------------------------- one's own


def test_objects_with_epochs_alone_still_work():
    class Own:
        def __init__(self):
            self.told = []

        def epoch(self, one):
            self.told.append(one["epoch"])

        def close(self):
            self.told.append("closed")

    class WithBatches(Own):
        def batch(self, done, total, loss):
            self.told.append((done, total))

    x, y = np.arange(20.0).reshape(10, 2) / 20, np.arange(10) % 2
    for own, expected in (
        (Own(), [1, 2, "closed"]),
        (WithBatches(), [(1, 2), (2, 2), 1, (1, 2), (2, 2), 2, "closed"]),
    ):
        cr.fit(nn.Linear(2, 2), (x, y), epochs=2, batch_size=5, validation=None, progress=own)
        assert own.told == expected


def test_what_progress_may_be(capsys):
    assert isinstance(make_progress(False, 3), Silent) and isinstance(make_progress("plain", 3), Lines)
    silent = make_progress(False, 3)
    silent.epoch(record(1))
    silent.batch(1, 2, 0.5)
    silent.close()
    assert capsys.readouterr().out == ""
    for wrong in ("dots", None, 3, Silent):
        with pytest.raises(ArgumentError, match="progress must be True, False or 'plain'"):
            make_progress(wrong, 3)
