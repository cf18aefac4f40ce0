"""Sentences in English and Korean, from one catalogue (`catalogue.toml`) where both stand side by side.

Korean particles follow the sound before them: write `{name:을/를}` and the right one is chosen.
Knows nothing of what the sentences are about.
"""

from __future__ import annotations

import functools
import os
import re
import string
import tomllib
from importlib import resources
from typing import Any

from .errors import ArgumentError

LANGUAGES = ("en", "ko")

# Whether the Korean reading of a digit or Latin letter ends in a consonant (0 영, 1 일, 3 삼, 6 육, 7 칠, 8 팔;
# L 엘, M 엠, N 엔, R 알), and the few that end in ㄹ, which matters for 으로/로 alone.
_CLOSED = frozenset("013678lmnrLMNR")
_CLOSED_BY_RIEUL = frozenset("178lrLR")


def preferred_language() -> str:
    """The language that the environment asks for: "ko" if LC_ALL, LC_MESSAGES or LANG says Korean, else "en"."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            return "ko" if value.lower().startswith("ko") else "en"
    return "en"


# Control characters (but for the blank ones), and those that turn the direction of writing or begin a line.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_BLANKS = re.compile("[\t\n]")


def visible(text: str, lines: bool = False) -> str:
    """The text with control characters written out, so that a terminal shows them and does not obey them.

    lines: whether tabs and ends of lines are meant.

    >>> visible("red\x1b[31m"), visible("two\\nlines", lines=True) == "two\\nlines"
    ('red\\\\u001b[31m', True)
    """
    text = _CONTROLS.sub(_written_out, text)
    return text if lines else _BLANKS.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    return f"\\u{ord(found.group()):04x}"


@functools.cache
def catalogue() -> dict[str, dict[str, str]]:
    """Every sentence by its key: `{"explain.leaf": {"en": …, "ko": …}}`."""
    text = resources.files("chainrule").joinpath("catalogue.toml").read_text(encoding="utf-8")
    return {
        f"{room}.{key}": sentences
        for room, entries in tomllib.loads(text).items()
        for key, sentences in entries.items()
    }


def sentence(key: str, language: str = "en", **values: Any) -> str:
    """The sentence `key` of the catalogue, filled with `values`.

    Raises ArgumentError for a language other than "en" or "ko".
    """
    if language not in LANGUAGES:
        raise ArgumentError(f"the language must be one of {', '.join(LANGUAGES)}; got {language!r}")
    return _FORMATTER.format(catalogue()[key][language], **values)


def particle(word: str, pair: str) -> str:
    """The Korean particle of `pair` ("을/를", "이/가", "은/는", "과/와", "으로/로") that follows `word`.

    >>> particle("기울기", "은/는"), particle("값", "은/는"), particle("w1", "으로/로")
    ('는', '은', '로')
    """
    closed_form, open_form = pair.split("/")
    last = next((letter for letter in reversed(word) if letter.isalnum()), "")
    if "가" <= last <= "힣":
        final = (ord(last) - ord("가")) % 28
        closed, by_rieul = final != 0, final == 8
    else:
        closed, by_rieul = last in _CLOSED, last in _CLOSED_BY_RIEUL
    if closed_form == "으로" and by_rieul:
        closed = False
    return closed_form if closed else open_form


class _Formatter(string.Formatter):
    """`str.format` with one more thing: a pair of particles as the format of a field."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if "/" in format_spec and "가" <= format_spec[0] <= "힣":
            return f"{visible(str(value))}{particle(str(value), format_spec)}"
        text = str(super().format_field(value, format_spec))
        return visible(text) if isinstance(value, str) else text


_FORMATTER = _Formatter()
