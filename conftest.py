"""Compiled code of a test run is kept in a folder of its own: the user's cache stays as it is."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_cache = tempfile.mkdtemp(prefix="chainrule-cache-")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ["CHAINRULE_CACHE_DIR"] = _cache
