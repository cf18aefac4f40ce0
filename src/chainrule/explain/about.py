"""Which sections a story has: those about the tensor that the user asks for, or those about what the story holds.

Without a wish the first loop over time, batch normalization and convolution of the story get a section each.
Knows every kind of section; computes nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..autodiff import Contribution
from ..errors import ArgumentError
from ..graph import Node
from ..operations import Array
from ..tensor import Tensor
from .classes import classes
from .convolution import convolution, convolutions
from .normalization import calls, normalization
from .section import Section
from .through_time import through_time
from .uses import uses


@dataclass(frozen=True, slots=True)
class Told:
    """What a section may read: the result and its start, the gradient of every node, names of nodes."""

    root: Node
    seed: Array
    order: Sequence[Node]
    arrived: Mapping[Node, Any]
    passed: Sequence[Contribution]
    names: Mapping[Node, str]

    @property
    def root_name(self) -> str:
        """Name of the result."""
        return self.names.get(self.root, "L")


def sections(told: Told, about: Tensor | None) -> list[Section]:
    """The sections, in the order of what a learner meets first.

    Raises ArgumentError if `about` is no part of the story, or nothing is to be told of it.
    """
    wish = None if about is None else _wished(told, about)
    found: list[Section] = []
    loop = through_time(told.root, told.seed, wish, told.names, told.root_name)
    if loop is not None:
        found.append(loop)
    for call in calls(told.order):
        if wish is None or call.reads(wish):
            steps = normalization(call, told.arrived, told.passed, told.names, told.root_name)
            if steps is not None:
                found.append(steps)
                break
    for node in convolutions(told.order, wish)[:1]:
        met = convolution(node, told.order, told.arrived, told.names, told.root_name)
        if met is not None:
            found.append(met)
    if wish is not None:
        others = (classes(told.order, wish, told.passed, told.names, told.root_name),)
        found += [one for one in others if one is not None]
        if not found:
            found = [_of_uses(told, wish)]
    return found


def _of_uses(told: Told, wish: Node) -> Section:
    """What is said of a tensor that has no other section."""
    order = [node for node in told.order if node.requires_grad]
    found = uses(order, wish, told.arrived, told.names, told.root_name)
    if found is None:
        raise ArgumentError(
            "about= takes a weight that is used several times, the filter of a convolution, what goes into a batch "
            f"normalization or logits of cross_entropy; got {wish.dtype.name}{wish.shape}, which is none of these. "
            "Its step in the story says all"
        )
    return found


def _wished(told: Told, about: Tensor) -> Node:
    """The node of the story that stands for the tensor."""
    if not isinstance(about, Tensor):
        raise ArgumentError(f"about= takes a tensor of the story; got {type(about).__name__}")
    for node in told.order:
        if node.cell is about.cell if about.cell is not None else node is about.node:
            return node
    raise ArgumentError(
        f"about= takes a tensor that the story is told of; got {about.dtype.name}{about.shape}, on which "
        f"{told.root_name} does not depend"
    )
