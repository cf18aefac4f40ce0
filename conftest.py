"""Compiled code of a test run is kept in a folder of its own: the user's cache stays as it is."""

from __future__ import annotations

import os
import tempfile

_cache = tempfile.TemporaryDirectory(prefix="chainrule-cache-")
os.environ["CHAINRULE_CACHE_DIR"] = _cache.name
