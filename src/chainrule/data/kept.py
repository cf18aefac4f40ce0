"""What turns raw data into the rows of a network, as JSON: a run directory keeps it beside the weights.

Knows the kinds there are; knows nothing of files and of training.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from ..errors import ArgumentError, RunError
from .images import ImageFormat
from .series import Scaling
from .text import Vocabulary


@runtime_checkable
class Preparation(Protocol):
    """What turns raw data (a text, a path) into rows."""

    kind: str

    def prepare(self, raw: Any) -> Any:
        """Rows of raw data; anything else as it is."""

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON has it."""


_KINDS: dict[str, Any] = {one.kind: one for one in (Vocabulary, Scaling, ImageFormat)}


def check_preparation(preparation: Any) -> None:
    """Raise ArgumentError for anything that a run directory cannot keep."""
    if not isinstance(preparation, tuple(_KINDS.values())):
        shown = (
            f"the class {preparation.__name__}"
            if isinstance(preparation, type)
            else type(preparation).__name__
        )
        raise ArgumentError(
            f"preparation must be a cr.data.Vocabulary, Scaling or ImageFormat; got {shown}. It is what a run "
            "directory keeps beside the weights"
        )


def stored(preparation: Preparation) -> dict[str, Any]:
    """The preparation for a record.

    >>> stored(Vocabulary("ab"))["kind"]
    'vocabulary'
    """
    return {"kind": preparation.kind, **preparation.to_json()}


def from_stored(record: Any, place: str) -> Preparation | None:
    """The preparation that a record describes; None where there is none. RunError for one of another version."""
    if record is None:
        return None
    try:
        made: Preparation = _KINDS[record["kind"]].from_json(record)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"this version knows {', '.join(_KINDS)} as preparations of data; got another one in {place!r}. Use the "
            "version that wrote it"
        ) from error
    return made
