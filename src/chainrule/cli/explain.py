"""`chainrule explain`: the story of a formula, or of one prediction of a run.

    chainrule explain "sigmoid(w*x)" w=0.8 x=0.5 --loss bce --y 1
    chainrule explain runs/2025-11-21-iris --row 5

Finds out which of the two is meant; the rest is done in `formula` and `row`.
"""

from __future__ import annotations

import argparse
import os

from ..explain.expression import FUNCTIONS
from ..train.predictor import load_predictor
from ..train.run import RECORD
from . import readable
from .formula import LOSSES, explain_formula
from .row import explain_run
from .usage import Parser, UsageError

TAKES_FORMULAS = True

# Options that have no meaning for a run, and those that have none for a formula.
_OF_FORMULAS = ("loss", "y", "lr", "update", "blame", "check_steps")
_OF_RUNS = ("data", "encoding")


def add_arguments(parser: Parser) -> None:
    """The arguments and options of `chainrule explain`."""
    codes = parser.say("option.explain_codes")
    parser.epilog = f"{parser.say('option.functions', names=', '.join(sorted(FUNCTIONS)))}\n\n{codes}"
    parser.add("expression", about="expression")
    parser.add("values", about="values", nargs="*", metavar="name=value")
    parser.add("--loss", about="loss", choices=LOSSES)
    parser.add("--y", about="y", metavar="VALUE")
    parser.add("--lr", about="formula_lr", type=float, metavar="RATE")
    parser.add("--update", about="update", metavar="NAMES")
    parser.add("--unfold", about="unfold", action="store_true")
    parser.add("--depth", about="depth", type=int, metavar="N")
    parser.add("--blame", about="blame", type=float, metavar="ERROR")
    parser.add("--check-steps", about="check_steps", action="store_true")
    parser.add("--row", about="row", type=int, metavar="N")
    parser.add("--data", about="data", metavar="data.csv")
    parser.add("--encoding", about="encoding", metavar="NAME")
    parser.add("--html", about="html", metavar="FILE")
    parser.add("--json", about="json", action="store_true")


def run(arguments: argparse.Namespace) -> int:
    """Tell the story; 1 if a numerical derivative of a formula contradicts its gradient."""
    given = {name: getattr(arguments, name) for name in (*_OF_FORMULAS, *_OF_RUNS)}
    found = arguments.expression.strip()
    if arguments.row is None:
        if os.path.isfile(os.path.join(found, RECORD)) or (not arguments.values and _is_place(found)):
            load_predictor(found)  # what is no run of a table has no rows either
            raise UsageError("row_needed", run=readable(found))
        for name in _OF_RUNS:
            if given[name] is not None:
                raise UsageError("only_for_rows", option=f"--{name}")
        return explain_formula(arguments)
    for name in _OF_FORMULAS:
        if given[name] not in (None, False):
            raise UsageError("not_for_rows", option=f"--{name.replace('_', '-')}")
    if arguments.values:
        raise UsageError("superfluous", argument=readable(arguments.values[0]), prog="chainrule explain")
    return explain_run(arguments, found)


def _is_place(text: str) -> bool:
    """Is it a folder, or a name in one? `runs/iris` is a formula too, but one whose names have values."""
    return os.path.isdir(text) or (os.sep in text and os.path.isdir(os.path.dirname(text)))
