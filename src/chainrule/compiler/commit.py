"""Which cells can take their new arrays where the old ones lie, and the order that this needs.

A step computes first, then checks, then commits: what is written in place comes after every check, so that a step
whose check fails has changed nothing. A new value may overwrite the old one if each element depends on the same
element of the old one only, and nothing needs the old one afterwards.
Knows groups and lowerings; knows nothing of buffers and machine code.
"""

from __future__ import annotations

from ..graph import Node
from ..ops.lowering import Scalar
from .forms import lowering_of, whole
from .fuse import Fusion, Group


def order_commit(fusion: Fusion) -> Fusion:
    """The fusion with its groups in the order compute, check, commit; `in_place` says which cells those commit."""
    graph = fusion.graph
    checks = [group for group in fusion.groups if group.check is not None]
    computing = [group for group in fusion.groups if group.check is None]
    group_of = {group.root: group for group in computing}
    found: dict[Node, Node] = {}
    counts: dict[Node, int] = {}
    for node in (*graph.outputs, *graph.writes.values()):
        if node is not None:
            counts[node] = counts.get(node, 0) + 1
    for slot, node in graph.writes.items():
        if node is not None and whole(node):
            continue  # NumPy is called before the checks, and loops over time run
        old = graph.reads.get(slot)
        if slot[1] != "array" or node is None or old is None or node not in group_of:
            continue
        if counts[node] > 1 or old in counts:
            continue
        if _elementwise(fusion, group_of[node], old):
            found[node] = old
    late = _without_conflicts(fusion, computing, checks, found)
    early = [group for group in computing if group not in late]
    fusion.groups = [*early, *checks, *(group for group in computing if group in late)]
    fusion.in_place = {node: old for node, old in found.items() if group_of[node] in late}
    fusion.late = {group.root for group in late}
    return fusion


def _elementwise(fusion: Fusion, group: Group, old: Node) -> bool:
    """Whether element i of the root needs element i of the old value at most."""
    inlined = set(group.inlined)
    pending, seen = [group.root], set()
    if group.root.type != old.type:
        return False
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if not isinstance(lowering_of(node), Scalar) or (node.shape and node.shape != old.shape):
            if _depends(node, old, inlined):
                return False
            continue
        pending.extend(operand for operand in node.inputs if operand in inlined)
    return True


def _depends(node: Node, old: Node, inlined: set[Node]) -> bool:
    pending, seen = [node], set()
    while pending:
        one = pending.pop()
        if one is old:
            return True
        if one not in seen:
            seen.add(one)
            if one is node or one in inlined:
                pending.extend(one.inputs)
    return False


def _without_conflicts(
    fusion: Fusion, computing: list[Group], checks: list[Group], found: dict[Node, Node]
) -> set[Group]:
    """The groups of the commit: those that write in place, and what only they need.

    From `found` goes what a group before the commit needs already, or whose old value one after it still needs.
    """
    results = {node for node in (*fusion.graph.outputs, *fusion.graph.writes.values()) if node is not None}
    while True:
        late = _late(computing, checks, results, found)
        refused = {node for group in (*computing, *checks) if group not in late
                   for node in group.reads if node in found}  # fmt: skip
        overwritten: dict[Node, Node] = {}
        for group in computing:
            if group in late:
                refused |= {overwritten[node] for node in group.reads if node in overwritten}
                if group.root in found:
                    overwritten[found[group.root]] = group.root
        if not refused:
            return late
        for node in refused:
            del found[node]


def _late(
    computing: list[Group], checks: list[Group], results: set[Node], found: dict[Node, Node]
) -> set[Group]:
    """Groups that write in place, and those that nothing else reads."""
    readers: dict[Node, list[Group]] = {}
    for group in (*computing, *checks):
        for node in group.reads:
            readers.setdefault(node, []).append(group)
    late: set[Group] = set()
    for group in reversed(computing):
        if group.root in found:
            late.add(group)
        elif group.root in results or whole(group.root):
            continue
        elif group.root in readers and all(reader in late for reader in readers[group.root]):
            late.add(group)
    return late
