"""What does not fit between a module and a state dictionary, in words.

Knows names and shapes only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

Shape = tuple[int, ...]

_SHOWN = 10


def listed(names: Iterable[str]) -> str:
    """The names in quotation marks; the first of them and a count, if there are many."""
    return _first([repr(name) for name in names], ", ")


def _first(parts: Sequence[str], between: str) -> str:
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return between.join(parts[:_SHOWN]) + more


def explain_shapes(shapes: Mapping[str, tuple[Shape, Shape]]) -> str:
    """Tensors that have another shape there than here."""
    return (
        f"load_state_dict needs equal shapes; got {_shapes(shapes)}. Build the module with the sizes that it was "
        "saved with"
    )


def _shapes(shapes: Mapping[str, tuple[Shape, Shape]]) -> str:
    return _first(
        [f"{name} is {here} here and {there} there" for name, (here, there) in shapes.items()], "; "
    )


def explain_names(
    module: str,
    own: Sequence[str],
    missing: Sequence[str],
    unexpected: Sequence[str],
    shapes: Mapping[str, tuple[Shape, Shape]],
) -> str:
    """Names that one side lacks, with the nearest of the other, and shapes that differ as well."""
    parts = [f"{len(missing)} missing: {listed(missing)}"] if missing else []
    if unexpected:
        shown = [_with_nearest(name, missing) for name in unexpected[:_SHOWN]]
        more = f" and {len(unexpected) - _SHOWN} more" if len(unexpected) > _SHOWN else ""
        parts.append(f"{len(unexpected)} unknown: {', '.join(shown)}{more}")
    if shapes:
        parts.append(f"{len(shapes)} of another shape: {_shapes(shapes)}")
    return f"load_state_dict needs the names of {module}; got {'; '.join(parts)}. {_advice(own, missing, unexpected)}"


def _with_nearest(name: str, candidates: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.8)
    return f"{name!r} (near {close[0]!r})" if close else repr(name)


def _advice(own: Sequence[str], missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """How to load it all the same: a prefix that is too much or too little, otherwise strict=False."""
    prefix = _prefix(unexpected, own)
    if prefix:
        why = ", which PyTorch's DataParallel adds" if prefix == "module." else ""
        return (
            f"The names there start with {prefix!r}{why}. Load "
            f"{{name.removeprefix({prefix!r}): tensor for name, tensor in state.items()}}"
        )
    prefix = _prefix(missing, unexpected)
    if prefix:
        return (
            f"The names here start with {prefix!r}. Load {{{prefix!r} + name: tensor for name, tensor in "
            f"state.items()}}, or load it into the part .{prefix[:-1]}"
        )
    return "Build the module as it was saved, or pass strict=False to load the names that both have"


def _prefix(longer: Sequence[str], shorter: Sequence[str]) -> str:
    """A prefix, with its dot, without which every longer name is one of the shorter; empty if there is none."""
    if not longer or not shorter:
        return ""
    known = set(shorter)
    first = longer[0]
    places = [k + 1 for k, letter in enumerate(first) if letter == "."]
    for place in places:
        prefix = first[:place]
        if all(name.startswith(prefix) and name[place:] in known for name in longer):
            return prefix
    return ""
