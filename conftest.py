"""Compiled code of a test run is kept in a folder of its own: the user's cache stays as it is."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
import threading

_cache = tempfile.mkdtemp(prefix="chainrule-cache-")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ["CHAINRULE_CACHE_DIR"] = _cache

# A shell lets the programs in its background ignore Ctrl-C, and what they start too: here it is heard.
if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):
    signal.signal(signal.SIGINT, signal.default_int_handler)
