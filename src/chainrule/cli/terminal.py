"""What the command prints on its way out: no control character of a file reaches the terminal, and a reader may leave.

Names of columns, values and paths come from files of anybody; an escape sequence in one of them could change what a
terminal shows, or forge lines. Here they are written as `\\u001b`, which JSON reads as the same letter.
Knows streams of text; knows nothing of what is printed.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from ..errors import ArgumentError
from ..language import visible


class Outlet:
    """A stream that writes control characters as text, and may go on without a reader.

    goes_on: whether a failure to write is kept in `lost` and everything further goes nowhere, because what the command
    does is worth more than what it prints; if not, the failure is raised.
    """

    def __init__(self, inner: TextIO, goes_on: bool) -> None:
        self._inner = inner
        self._goes_on = goes_on
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Write text."""
        self._guarded(self._inner.write, visible(text, lines=True))
        return len(text)

    def writelines(self, texts: Any) -> None:
        """Write texts one after the other."""
        for text in texts:
            self.write(text)

    def flush(self) -> None:
        """Let everything out."""
        self._guarded(self._inner.flush)

    def terminal(self) -> TextIO:
        """The stream itself, for what moves a terminal's cursor on purpose."""
        return self._inner

    def _guarded(self, action: Any, *arguments: Any) -> None:
        if self.lost is not None:
            return
        try:
            action(*arguments)
        except OSError as failure:
            if not self._goes_on:
                raise
            self.lost = failure
            drop_output(self._inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@contextlib.contextmanager
def outlets(goes_on: bool) -> Iterator[None]:
    """Let everything that is printed pass through outlets.

    At the end a reader that has gone is passed over in silence; ArgumentError where a disk is full.
    """
    before = sys.stdout, sys.stderr
    out, err = (None if stream is None else Outlet(stream, goes_on) for stream in before)
    sys.stdout, sys.stderr = out, err
    try:
        yield
        if out is not None:
            out.flush()
    finally:
        sys.stdout, sys.stderr = before
    if out is not None and out.lost is not None and not isinstance(out.lost, BrokenPipeError):
        raise full(out.lost)


def full(failure: OSError) -> ArgumentError:
    """The error of output that was refused."""
    return ArgumentError(f"the output must go somewhere; got {failure.strerror}. Check the free space")


def drop_output(stream: TextIO | None) -> None:
    """Python flushes once more at exit; let that go nowhere."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # a stream without a file
        assert stream is not None
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
