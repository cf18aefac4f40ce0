"""Which nodes of a graph are told together: the calls of functions and layers, folded into one step each.

A call is folded whole or not at all, and only if one of its nodes is used outside: then its step has one
value and one gradient. By default functions and layers are folded and the containers around them opened.
Knows nodes and scopes; knows nothing of values, gradients or text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..graph import Node, Scope


@dataclass(eq=False, slots=True)
class Unit:
    """What becomes one step: a node, or all nodes of a folded call; `result` is the one seen from outside."""

    result: Node
    scope: Scope | None = None
    members: list[Node] = field(default_factory=list)


def units(order: Iterable[Node], root: Node, fold: bool, depth: int | None) -> list[Unit]:
    """The units of the nodes in `order` (topological), leaves left out, in topological order.

    depth: how many levels of calls are opened; None opens containers (modules that hold modules).
    """
    nodes = [node for node in order if node.inputs and not is_plain_spread(node)]
    closed = _Closed(nodes, fold, depth)
    while True:
        keys = {node: closed.key(node) for node in nodes}
        several = _with_several_results(keys, root)
        if not several:
            break
        closed.opened |= several
    members: dict[Scope | Node, list[Node]] = {}
    for node, key in keys.items():
        members.setdefault(key, []).append(node)
    found = [_unit(key, inner) for key, inner in members.items()]
    return sorted(found, key=lambda unit: unit.result.serial)


def is_plain_spread(node: Node) -> bool:
    """Is the node a constant copied along axes? It stands for the constant and is no step of its own."""
    return node.operation.name == "broadcast_to" and not node.requires_grad


def _unit(key: Scope | Node, members: list[Node]) -> Unit:
    """A call that consists of one operation is told as that operation."""
    folded = isinstance(key, Scope) and len(members) > 1
    return Unit(members[-1], _innermost(members) if folded else None, members)


def _innermost(members: list[Node]) -> Scope:
    """The innermost call that holds all members: of a layer that only calls `linear`, that function."""
    common = _inwards(members[0])
    for node in members[1:]:
        around = set(_inwards(node))
        common = [scope for scope in common if scope in around]
    return common[0]


def _with_several_results(keys: dict[Node, Scope | Node], root: Node) -> set[Scope]:
    """Folded scopes of which more than one node is used outside."""
    used: dict[Scope | Node, set[Node]] = {keys[root]: {root}} if root in keys else {}
    for node, key in keys.items():
        for operand in node.inputs:
            inner = keys.get(operand)
            if inner is not None and inner is not key:
                used.setdefault(inner, set()).add(operand)
    return {key for key, nodes in used.items() if isinstance(key, Scope) and len(nodes) > 1}


class _Closed:
    """The folded scope of each node, given the scopes that must stay open."""

    def __init__(self, nodes: list[Node], fold: bool, depth: int | None) -> None:
        self.nodes = nodes
        self.fold = fold
        self.depth = depth
        self.opened: set[Scope] = set()
        self.containers: set[Scope] = set()
        for node in nodes:
            inside_module = False
            for scope in _inwards(node):
                if inside_module:
                    self.containers.add(scope)
                inside_module = inside_module or scope.kind == "module"

    def key(self, node: Node) -> Scope | Node:
        """The folded scope that the node belongs to; the node itself where there is none."""
        if not self.fold:
            return node
        for level, scope in enumerate(reversed(_inwards(node))):
            if scope in self.opened or scope.kind == "expression":
                continue
            if level >= self.depth if self.depth is not None else scope not in self.containers:
                return scope
        return node


def _inwards(node: Node) -> list[Scope]:
    """Scopes of a node from the innermost to the outermost."""
    scopes = []
    scope = node.scope
    while scope is not None:
        scopes.append(scope)
        scope = scope.parent
    return scopes
