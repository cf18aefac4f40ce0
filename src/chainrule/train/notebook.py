"""One display of a notebook that is drawn again in its place; no widgets, so it is there when the notebook is opened.

Knows IPython where the program already runs in it, and never loads it otherwise; knows nothing of training.
"""

from __future__ import annotations

import html
import importlib
import secrets
import sys
from collections.abc import Sequence


def in_notebook() -> bool:
    """Whether the program runs in a Jupyter kernel, whose displays can be drawn again. Loads nothing.

    >>> in_notebook()
    False
    """
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None


class Display:
    """A bar with lines of text beneath, shown once and then drawn again under the same number."""

    def __init__(self) -> None:
        self._number = secrets.token_hex(8)
        self._shown = False
        self._last: dict[str, str] = {}

    def show(self, done: float, total: float, lines: Sequence[str], aside: str = "") -> None:
        """Draw; nothing is sent if nothing changed."""
        first, *rest = [html.escape(line) for line in lines]
        below = "".join(f"<div style='opacity:0.7'>{line}</div>" for line in rest)
        data = {
            "text/plain": "\n".join([f"{lines[0]}  {aside}".rstrip(), *lines[1:]]),
            "text/html": (
                "<div style='font-family:monospace;white-space:pre-wrap;line-height:1.6'>"
                f"<progress value='{done:.3f}' max='{total}' style='width:14em;vertical-align:middle'></progress> "
                f"{first} <span style='opacity:0.7'>{html.escape(aside)}</span>{below}</div>"
            ),
        }
        if data == self._last:
            return
        display = importlib.import_module("IPython.display").display
        display(data, raw=True, display_id=self._number, update=self._shown)
        self._shown, self._last = True, data
