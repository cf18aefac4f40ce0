"""Ctrl-C and SIGTERM as wishes to end after the batch at hand.

Only in the main thread, and only where the program has no handler of its own; elsewhere signals are left alone.
Knows nothing of what is trained.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

# What a shell reports of a program that SIGTERM ended: 128 + 15.
TERMINATED = 143


class Signals:
    """A context in which the first signal is noted, and the second one does what it always did.

    asked: "" or "interrupted" (Ctrl-C) or "terminated" (SIGTERM, which is noted only if `catch_terminate`).
    """

    def __init__(self, catch_terminate: bool = False) -> None:
        self.asked = ""
        self._wanted = [signal.SIGINT, *([signal.SIGTERM] if catch_terminate else [])]
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
            for number in self._wanted:
                if signal.getsignal(number) is usual[number]:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            if self.asked == "terminated":
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self.asked = "terminated"
        elif self.asked:
            raise KeyboardInterrupt
        else:
            self.asked = "interrupted"

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
