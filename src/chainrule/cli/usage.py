"""What is wrong with a command line, in the reader's language; and help that is written in it.

Knows the catalogue and argparse; knows nothing of what the verbs do.
"""

from __future__ import annotations

import argparse
import difflib
import re
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from ..data.facts import Fact
from ..errors import ArgumentError
from ..language import sentence


@dataclass(frozen=True, slots=True)
class Usage(Fact):
    """A key of the catalogue's `[usage]` and its values."""

    room: ClassVar[str] = "usage"


class UsageError(ArgumentError):
    """A command line that has no meaning; `fact` tells it in every language."""

    def __init__(self, key: str, **values: Any) -> None:
        self.fact = Usage(key, values)
        super().__init__(str(self.fact))


def nearest(name: str, known: list[str]) -> Fact:
    """`Did you mean …?`, or which there are."""
    close = difflib.get_close_matches(name, known, 1, 0.5)
    if not close:  # the last part of a dotted name may be all that is remembered
        close = [one for one in known if one.rpartition(".")[2] == name.rpartition(".")[2]][:1]
    return Usage("did_you_mean", {"name": close[0]}) if close else Usage("known", {"known": ", ".join(known)})


class Parser(argparse.ArgumentParser):
    """argparse whose help is written in one language, from the catalogue's `[option]`, and whose errors are ours."""

    def __init__(self, verb: str, language: str) -> None:
        super().__init__(
            prog=f"chainrule {verb}",
            description=sentence(f"cli.{verb}", language),
            allow_abbrev=False,
            add_help=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.language = language
        self._positionals.title = sentence("cli.arguments", language)
        self._optionals.title = sentence("cli.options", language)

    def say(self, key: str, **values: Any) -> str:
        """A sentence of the catalogue."""
        return sentence(key, self.language, **values)

    def add(self, *names: str, about: str, values: dict[str, Any] | None = None, **options: Any) -> None:
        """An argument or option with the help `option.<about>`."""
        text = self.say(f"option.{about}", **(values or {})).replace("%", "%%")
        if "metavar" in options and "{" in str(options["metavar"]):
            options["metavar"] = options["metavar"].format(
                column=self.say("option.word_column"), file=self.say("option.word_file")
            )
        self.add_argument(*names, help=text, **options)

    def error(self, message: str) -> NoReturn:
        """Every mistake is a UsageError; a wrong option names the nearest right one."""
        known = [option for action in self._actions for option in action.option_strings]
        found = re.fullmatch(r"unrecognized arguments: (\S+).*", message, re.DOTALL)
        if found is None:
            raise UsageError("other", message=message, prog=self.prog)
        name = found[1].partition("=")[0]
        if not name.startswith("-"):
            raise UsageError("superfluous", argument=name, prog=self.prog)
        raise UsageError(
            "unknown_option",
            name=name,
            advice=nearest(name, [one for one in known if one.startswith("--")]),
            prog=self.prog,
        )
