"""Fixtures of several test modules, each asked for by name: `pytestmark = pytest.mark.usefixtures(…)`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def one_thread_of_pytorch() -> Iterator[None]:
    """Tiny operations gain nothing from PyTorch's threads, which wait for each other on a busy machine."""
    try:
        import torch
    except ImportError:  # what needs it is skipped
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def ctrl_c_as_usual() -> Iterator[None]:
    """A shell lets programs in its background ignore Ctrl-C, and the tests too if they run there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
