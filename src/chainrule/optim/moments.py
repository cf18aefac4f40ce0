"""What an optimizer keeps for each parameter, as a dict whose writes count: compiled steps rely on what is in it."""

from __future__ import annotations

from typing import Any

from ..structure import bump_structure
from ..tensor import Tensor

_Kept = dict[Tensor, dict[str, Tensor]]


class State(_Kept):
    """The entries of parameters, such as Adam's `exp_avg`; of: the optimizer, for people.

    >>> from chainrule import nn, optim
    >>> layer = nn.Linear(2, 1)
    >>> optimizer = optim.Adam(layer.parameters())
    >>> optimizer.state.clear()  # the next step begins anew, compiled or not
    """

    def __init__(self, of: str) -> None:
        super().__init__()
        self._of = of

    def _changed(self) -> None:
        # Nothing that is there before or now can be compared later on, so each write counts as a change.
        bump_structure(self, f"{self._of}.state", ..., self)

    def __setitem__(self, parameter: Tensor, entries: dict[str, Tensor]) -> None:
        # Who relies on the entries of a parameter has made them, so those of a new one are no change.
        changes = self.get(parameter, entries) is not entries
        super().__setitem__(parameter, entries)
        if changes:
            self._changed()

    def __delitem__(self, parameter: Tensor) -> None:
        super().__delitem__(parameter)
        self._changed()

    def __ior__(self, other: Any) -> State:  # type: ignore[override, misc]
        self.update(other)
        return self

    def clear(self) -> None:
        """Forget all entries."""
        super().clear()
        self._changed()

    def pop(self, parameter: Tensor, *default: Any) -> Any:
        """Take the entries of a parameter out."""
        found = super().pop(parameter, *default)
        self._changed()
        return found

    def popitem(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Take the last entries out."""
        found = super().popitem()
        self._changed()
        return found

    def update(self, *other: Any, **more: Any) -> None:
        """Put many in."""
        super().update(*other, **more)
        self._changed()

    def __reduce__(self) -> Any:
        # Copies are made entry by entry, with the new parameters.
        return State, (self._of,), None, None, iter(self.items())
