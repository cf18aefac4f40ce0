"""Arguments that layers share, checked when a layer is made."""

from __future__ import annotations

from ..errors import ArgumentError


def check_size(name: str, value: int) -> int:
    """A whole number from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArgumentError(f"{name} must be a whole number from 1; got {value!r}")
    return value
