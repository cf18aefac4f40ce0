"""Fixtures of several test modules, each asked for by name, and the comparisons that cannot be made here."""

from __future__ import annotations

import functools
import subprocess
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import rivals

_NOT_RUN = pytest.StashKey[dict[str, int]]()


@pytest.fixture(scope="session")
def torch() -> Any:
    """PyTorch; a test that asks for it is a comparison, as if it bore the mark `pytorch`."""
    return rivals.torch


@pytest.fixture(scope="module")
def one_thread_of_pytorch() -> Iterator[None]:
    """Tiny operations gain nothing from PyTorch's threads, which wait for each other on a busy machine."""
    if not rivals.RIVALS["pytorch"].installed:
        yield
        return
    before = rivals.torch.get_num_threads()
    rivals.torch.set_num_threads(1)
    yield
    rivals.torch.set_num_threads(before)


# ------------------------------------------------------------------ no test leaves a process behind

_STARTED: weakref.WeakSet[subprocess.Popen[Any]] = weakref.WeakSet()
_start = subprocess.Popen.__init__


@functools.wraps(_start)
def _noted(process: subprocess.Popen[Any], *args: Any, **options: Any) -> None:
    _start(process, *args, **options)
    _STARTED.add(process)


subprocess.Popen.__init__ = _noted  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """What a test has started is over when it ends, or is ended: a training left running slows all that follow."""
    before = set(_STARTED)
    try:
        yield
    finally:
        left = [process for process in set(_STARTED) - before if process.poll() is None]
        for process in left:
            process.kill()
            process.wait()
    if left:
        pytest.fail(f"{item.name} has left a process running: {left[0].args}")


# ------------------------------------------------------- comparisons whose package is not installed: one line


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run, and count it."""
    counts = dict.fromkeys(rivals.RIVALS, 0)
    kept, dropped = [], []
    for item in items:
        if "torch" in getattr(item, "fixturenames", ()):
            item.add_marker("pytorch")
        missing = [
            mark for mark in counts if item.get_closest_marker(mark) and not rivals.RIVALS[mark].installed
        ]
        for mark in missing[:1]:
            counts[mark] += 1
        (dropped if missing else kept).append(item)
    config.stash[_NOT_RUN] = counts
    items[:] = kept
    if dropped:
        config.hook.pytest_deselected(items=dropped)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker tells the counts to the process that prints the summary."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["not_run"] = session.config.stash.get(_NOT_RUN, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Every worker collects the same tests, so the counts of any of them are those of all."""
    if counts := getattr(node, "workeroutput", {}).get("not_run"):
        node.config.stash[_NOT_RUN] = counts


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One line for each kind of comparison that was not made."""
    for line in rivals.left_out(config.stash.get(_NOT_RUN, {})):
        terminalreporter.write_line(line, yellow=True)
