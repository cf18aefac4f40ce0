"""The command `chainrule`: finds the verb, loads only its module, and turns errors into one clear line.

A verb is a module of this folder with `add_arguments(parser)` and `run(arguments) -> int`; its help is the
sentence `cli.<verb>` of the catalogue, that of its options `option.<name>`; `TAKES_FORMULAS` says that an argument
may start with a minus sign. What a verb of `_WORKING` does is finished and saved also where nobody reads what it
prints; the others stop then.
Exit codes: 0 done, 1 a finding, 2 wrong usage or bad input.
Knows nothing of what the verbs do.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import ChainruleError
from ..language import LANGUAGES, preferred_language, sentence, visible
from .terminal import drop_output, full, outlets
from .usage import Parser

VERBS = ("explain", "train", "predict", "demo", "bench", "env")
_WORKING = ("train", "demo", "predict")

_OPTION = re.compile(r"--[a-z][a-z-]*(=.*)?", re.DOTALL)

DONE, FINDING, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (that of the process by default) and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _speak_unicode()
    try:
        with _quiet_pipe(), outlets(goes_on=_works(arguments)):
            return _dispatch(arguments)
    except ChainruleError as failure:
        language = _language(arguments)
        told = visible(plain(failure, language), lines=True)
        print(f"chainrule: {sentence('cli.error', language)}: {told}", file=sys.stderr)
        return WRONG_USAGE
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED


def plain(failure: ChainruleError, language: str) -> str:
    """The message without the line of code: at a prompt there is none that the user has written."""
    fact = getattr(failure, "fact", None)
    told: str = failure.message if fact is None else fact.told(language)
    return told


def readable(argument: str) -> str:
    """The argument as it was typed. In a plain locale Python keeps letters beyond ASCII as escaped bytes.

    For texts and for showing paths; a path itself must stay as it came, so that it is found.
    """
    try:
        return argument.encode(sys.getfilesystemencoding(), "surrogateescape").decode("utf-8")
    except UnicodeError:
        return argument


def _works(arguments: Sequence[str]) -> bool:
    """Whether the command leaves something behind besides what it prints."""
    return any(one in _WORKING for one in arguments)


def _dispatch(arguments: list[str]) -> int:
    language = _language(arguments)
    if arguments and arguments[0] == "--lang":
        arguments = [*arguments[2:], *arguments[:2]]
    elif arguments and arguments[0].startswith("--lang="):
        arguments = [*arguments[1:], arguments[0]]
    if not arguments or arguments[0] in ("-h", "--help", "help") or arguments[0].startswith("--lang"):
        print(_overview(language))
        return DONE if arguments and arguments[0] in ("-h", "--help", "help") else WRONG_USAGE
    if arguments[0] in ("-V", "--version"):
        print(f"chainrule {_version()}")
        return DONE
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, 1, 0.5)
        hint = sentence("cli.did_you_mean", language, name=close[0]) if close else ""
        known = ", ".join(VERBS)
        print(
            f"chainrule: {sentence('cli.unknown_verb', language, verb=verb, known=known)} {hint}".rstrip(),
            file=sys.stderr,
        )
        return WRONG_USAGE
    return _run(verb, rest, language)


def _run(verb: str, rest: list[str], language: str) -> int:
    module: Any = importlib.import_module(f"{__name__}.{verb}")
    parser = Parser(verb, language)
    module.add_arguments(parser)
    parser.add("--lang", about="lang", choices=LANGUAGES, default=language)
    parser.add("-h", "--help", about="help", action="help")
    options = {option for action in parser._actions for option in action.option_strings}
    try:
        if getattr(module, "TAKES_FORMULAS", False):
            rest = [_not_an_option(one, options) for one in rest]
        parsed = parser.parse_intermixed_args(rest)
    except SystemExit as stop:  # --help
        return stop.code if isinstance(stop.code, int) else WRONG_USAGE
    result: int = module.run(parsed)
    return result


def _not_an_option(argument: str, options: set[str]) -> str:
    """A formula such as `-w*x` is no option: a blank in front keeps argparse from taking it for one."""
    looks_like_option = _OPTION.fullmatch(argument) or argument.partition("=")[0] in options
    return f" {argument}" if argument.startswith("-") and not looks_like_option else argument


def _language(arguments: Sequence[str]) -> str:
    """The language asked for by `--lang`, wherever it stands, or by the environment."""
    for k, argument in enumerate(arguments):
        wish = argument.partition("=")[2] if argument.startswith("--lang=") else None
        if argument == "--lang" and k + 1 < len(arguments):
            wish = arguments[k + 1]
        if wish in LANGUAGES:
            return wish
    return preferred_language()


def _overview(language: str) -> str:
    lines = [sentence("cli.usage", language), "", sentence("cli.about", language), ""]
    lines += [f"  {verb:<9}{sentence(f'cli.{verb}', language)}" for verb in VERBS]
    return "\n".join([*lines, "", sentence("cli.more", language)])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("chainrule")
    except PackageNotFoundError:
        return "(not installed)"


def _speak_unicode() -> None:
    """Let every letter out: UTF-8 where the terminal's own encoding lacks ▶ or 한, and never die of one."""
    for stream in (sys.stdout, sys.stderr):
        if not hasattr(stream, "reconfigure"):
            continue
        try:
            "▶∂ŷ한".encode(stream.encoding or "ascii")
            stream.reconfigure(errors="backslashreplace")
        except (UnicodeEncodeError, LookupError):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def _quiet_pipe() -> Iterator[None]:
    """Stop without a word when the reader of a pipe (`| head`) has gone; say it where a disk is full."""
    try:
        yield
    except BrokenPipeError:
        drop_output(sys.stdout)
        raise SystemExit(DONE) from None
    except OSError as failure:
        if failure.filename is not None:  # not of the output
            raise
        drop_output(sys.stdout)
        raise full(failure) from failure
