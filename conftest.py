"""Compiled code of a test run is kept in a folder of its own: the user's cache stays as it is."""

from __future__ import annotations

import atexit
import os
import tempfile

_cache = tempfile.TemporaryDirectory(prefix="chainrule-cache-")
atexit.register(_cache.cleanup)  # left to itself it warns, and warnings are errors here
os.environ["CHAINRULE_CACHE_DIR"] = _cache.name
