"""The part of docs/speed.md that is written from kept records.

Knows records and the page's marks; measures nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...errors import ArgumentError
from .table import Teller

HEADINGS = {"training_step": "## Dense networks", "networks": "## Images and sequences"}
"""Records of workloads, and what stands above their tables."""
BEGIN, END = "<!-- bench -->", "<!-- end of bench -->"


def block(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown of the records of `training_step`, `networks`, `growth` and `sklearn`, those that there are."""
    teller = Teller("en")
    lines: list[str] = []
    growth, scikit = (records.get(name) for name in ("growth", "sklearn"))
    steps = {name: records[name] for name in HEADINGS if name in records}
    for name, found in steps.items():
        lines += ["", HEADINGS[name], "", *teller.machine(found), ""]
        lines += [f"- {note}" for note in teller.notes(found)]
        for table in teller.workloads(found):
            lines += ["", *table.markdown()]
    if steps:
        lines += ["", "## Where we lose", ""]
        lines += [f"- {loss}" for found in steps.values() for loss in teller.losses(found)]
    if scikit is not None:
        lines += ["", "## scikit-learn's network", ""]
        for table in teller.scikit(scikit):
            lines += [*table.markdown(), "", *teller.marks(scikit)]
    if growth is not None:
        lines += ["", "## Growth"]
        for table in teller.growth(growth):
            lines += ["", *table.markdown()]
        lines += ["", *teller.marks(growth)]
    return "\n".join(lines).strip() + "\n"


def updated(page: str, records: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with its part between the marks written anew. Raises ArgumentError if the marks are missing."""
    pattern = re.compile(f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})", re.DOTALL)
    if not pattern.search(page):
        raise ArgumentError(f"a page needs the marks {BEGIN} and {END}; got one without. Put them into it")
    return pattern.sub(lambda _: block(records), page, count=1)
