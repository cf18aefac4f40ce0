"""What was decided or noticed about a table, as data: a key and the values that belong to it.

Nothing here prints. The sentences stand in the catalogue, in English and Korean; `str(fact)` is the English one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import DataError
from ..language import catalogue, sentence

_ROOM = "fact"

# What may stand between columns, by the names that facts give them; the catalogue has them in Korean.
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True, slots=True)
class Fact:
    """One statement about a table: a key of the catalogue's `[fact]` and the values in its sentence.

    >>> str(Fact("blank_lines", {"count": 2}))
    '2 blank lines were skipped'
    """

    room: ClassVar[str] = "fact"

    key: str
    values: Mapping[str, Any]

    def __str__(self) -> str:
        return self.told("en")

    def told(self, language: str) -> str:
        """The sentence in "en" or "ko", without a full stop."""
        values = {name: _told_value(value, language) for name, value in self.values.items()}
        return sentence(f"{self.room}.{self.key}", language, **values)

    def to_json(self) -> dict[str, Any]:
        """The fact as plain JSON."""
        return {"key": self.key, "values": dict(self.values)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Fact:
        """The inverse of `to_json`. Raises DataError for a key that does not exist."""
        if f"{cls.room}.{record['key']}" not in catalogue():
            raise fault("unknown_fact", name=repr(record["key"]))
        return cls(record["key"], dict(record["values"]))


def _told_value(value: Any, language: str) -> Any:
    """Several names as a list in quotes, what is a sentence itself in the reader's language, the rest as it is."""
    if isinstance(value, Fact):
        return value.told(language)
    if isinstance(value, (list, tuple)):
        return listed(value, language=language)
    if isinstance(value, str) and value in DELIMITERS.values():
        return sentence(f"{_ROOM}.{value.replace(' ', '_')}", language)
    return value


@dataclass(frozen=True, slots=True)
class Fault(Fact):
    """What is wrong with a table, as a key of the catalogue's `[fault]` and values; also a part of such a sentence."""

    room: ClassVar[str] = "fault"


def fault(key: str, **values: Any) -> DataError:
    """The error for a fault, in English; its `fact` tells it in other languages.

    >>> fault("no_rows").fact.told("ko")
    '표에 행이 하나는 있어야 하는데 하나도 없습니다. 행을 어떻게 골랐는지 확인하십시오'
    """
    found = Fault(key, values)
    error = DataError(str(found))
    error.fact = found
    return error


def fact(key: str, **values: Any) -> Fact:
    """Short form of `Fact(key, values)`."""
    return Fact(key, values)


def listed(names: Iterable[object], limit: int = 8, language: str = "en") -> str:
    """Names in quotes for a sentence, cut after `limit` of them with the count of the rest.

    >>> listed(["a", "b", "c"], limit=2)
    "'a', 'b' and 1 more"
    """
    names = list(names)
    shown = ", ".join(quoted(name) for name in names[:limit])
    if len(names) <= limit:
        return shown
    return sentence(f"{_ROOM}.more", language, names=shown, count=len(names) - limit)


def quoted(value: object, limit: int = 40) -> str:
    """One value from a file in quotes, cut to `limit` characters so that a message stays readable."""
    text = str(value)
    return repr(text if len(text) <= limit else text[:limit] + "…")
