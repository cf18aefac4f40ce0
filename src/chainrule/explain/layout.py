"""A layered drawing of a graph, left to right: layers, order within them, coordinates, and ways for the edges.

The steps of Sugiyama, Tagawa and Toda ("Methods for visual understanding of hierarchical system structures",
IEEE Trans. SMC 11, 1981): longest-path layers with leaves pulled to their first use, a dummy in every layer
that an edge crosses, barycentre sweeps, then heights by isotonic regression. Everything is deterministic.
Knows boxes, ports and edges; knows nothing of what they stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

SWEEPS = 12
"""Barycentre and height sweeps; small graphs are stable after a few."""


@dataclass(slots=True)
class Box:
    """A node: its size, and for each operand the height of its port above or below the middle."""

    width: float
    height: float
    ports: list[float] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class Link:
    """An edge from the right side of `source` to port `port` of `target` (indices of boxes)."""

    source: int
    target: int
    port: int


@dataclass(slots=True)
class Drawing:
    """Boxes with their places (x, y is the left end of the middle line), ways of the links, and the size."""

    boxes: list[Box]
    ways: list[list[tuple[float, float]]]
    width: float
    height: float


@dataclass(slots=True)
class _Item:
    """A box or a dummy in one layer, with what stands before and after it: (item, port height)."""

    height: float
    box: int | None
    before: list[tuple[int, float]] = field(default_factory=list)
    after: list[tuple[int, float]] = field(default_factory=list)
    y: float = 0.0


def draw(boxes: Sequence[Box], links: Sequence[Link], gap: float, spacing: float, margin: float) -> Drawing:
    """Place the boxes and route the links.

    gap: free width between layers (labels stand there). spacing: free height between neighbours.
    Boxes must come in topological order.
    """
    layer = _layers(len(boxes), links)
    items, columns, chains = _with_dummies(boxes, links, layer)
    _order(items, columns)
    _heights(items, columns, spacing)
    top = min(item.y - item.height / 2 for item in items) if items else 0.0
    bottom = max(item.y + item.height / 2 for item in items) if items else 0.0
    left, lefts, widths = margin, [], []
    for column in columns:
        width = max((boxes[box].width for k in column if (box := items[k].box) is not None), default=0.0)
        lefts.append(left)
        widths.append(width)
        left += width + gap
    for item in items:
        item.y += margin - top
        if item.box is not None:
            placed = boxes[item.box]
            placed.x = lefts[layer[item.box]] + (widths[layer[item.box]] - placed.width) / 2
            placed.y = item.y
    ways = [
        _way(boxes, link, [items[k].y for k in chain], layer[link.source], lefts, widths)
        for link, chain in zip(links, chains)
    ]
    return Drawing(list(boxes), ways, left - gap + margin, bottom - top + 2 * margin)


def _layers(count: int, links: Sequence[Link]) -> list[int]:
    """Longest path from the leaves; then what has no more operands than uses moves right, up to its first use."""
    layer = [0] * count
    incoming: list[list[int]] = [[] for _ in range(count)]
    users: list[list[int]] = [[] for _ in range(count)]
    for link in links:
        incoming[link.target].append(link.source)
        users[link.source].append(link.target)
    for k in range(count):
        if incoming[k]:
            layer[k] = 1 + max(layer[source] for source in incoming[k])
    for k in reversed(range(count)):
        if users[k] and len(incoming[k]) <= len(users[k]):
            layer[k] = max(layer[k], min(layer[user] for user in users[k]) - 1)
    return layer


def _with_dummies(
    boxes: Sequence[Box], links: Sequence[Link], layer: list[int]
) -> tuple[list[_Item], list[list[int]], list[list[int]]]:
    """Items of every layer, and for each link the dummies that it passes."""
    items = [_Item(box.height, k) for k, box in enumerate(boxes)]
    columns: list[list[int]] = [[] for _ in range(max(layer, default=0) + 1)]
    for k in range(len(boxes)):
        columns[layer[k]].append(k)
    chains: list[list[int]] = []
    # Links of one source share their dummies as far as they run together: one line, not a bundle.
    shared: dict[tuple[int, int], int] = {}
    for link in links:
        chain, last = [], link.source
        for at in range(layer[link.source] + 1, layer[link.target]):
            key = (link.source, at)
            if key not in shared:
                shared[key] = len(items)
                items.append(_Item(LANE, None))
                columns[at].append(shared[key])
                _connect(items, last, shared[key], 0.0)
            last = shared[key]
            chain.append(last)
        _connect(items, last, link.target, boxes[link.target].ports[link.port])
        chains.append(chain)
    return items, columns, chains


LANE = 26.0
"""Height that a passing edge takes."""


def _connect(items: list[_Item], source: int, target: int, port: float) -> None:
    items[source].after.append((target, port))
    items[target].before.append((source, port))


# ------------------------------------------------------------------------------------------------ order


def _order(items: list[_Item], columns: list[list[int]]) -> None:
    """Barycentre sweeps to and fro; the order with the fewest crossings is kept."""
    best, fewest = [list(column) for column in columns], _crossings(items, columns)
    for sweep in range(SWEEPS):
        backwards = sweep % 2 == 0
        for column in reversed(columns) if backwards else columns:
            place = _places(columns)
            weight = {k: _barycentre(items, k, place, backwards) for k in column}
            column.sort(key=lambda k: weight[k])
        count = _crossings(items, columns)
        if count < fewest:
            best, fewest = [list(column) for column in columns], count
    columns[:] = best


def _places(columns: list[list[int]]) -> dict[int, int]:
    return {k: position for column in columns for position, k in enumerate(column)}


def _barycentre(items: list[_Item], k: int, place: dict[int, int], backwards: bool) -> float:
    """Mean place of the neighbours on one side; ports count as a small part of a place."""
    neighbours = items[k].after if backwards else items[k].before
    if not neighbours:
        return float(place[k])
    return sum(place[other] + port / 1000 for other, port in neighbours) / len(neighbours)


def _crossings(items: list[_Item], columns: list[list[int]]) -> int:
    place = _places(columns)
    total = 0
    for column in columns:
        ends = [
            place[target] + port / 1000
            for k in column
            for target, port in sorted(items[k].after, key=lambda one: place[one[0]] + one[1] / 1000)
        ]
        total += sum(ends[j] > ends[k] for k in range(len(ends)) for j in range(k))
    return total


# ---------------------------------------------------------------------------------------------- heights


def _heights(items: list[_Item], columns: list[list[int]], spacing: float) -> None:
    """Every item as near as possible to its neighbours, without overlap."""
    for column in columns:
        _place(items, column, [0.0] * len(column), spacing)
    for sweep in range(SWEEPS):
        backwards = sweep % 2 == 0
        for column in reversed(columns) if backwards else columns:
            wishes = [_wish(items, k, backwards) for k in column]
            _place(items, column, wishes, spacing)


def _wish(items: list[_Item], k: int, backwards: bool) -> float:
    item = items[k]
    neighbours = item.after if backwards else item.before
    if not neighbours:
        neighbours = item.before if backwards else item.after
        if not neighbours:
            return item.y
        backwards = not backwards
    if backwards:
        return sum(items[other].y + port for other, port in neighbours) / len(neighbours)
    return sum(items[other].y - port for other, port in neighbours) / len(neighbours)


def _place(items: list[_Item], column: list[int], wishes: list[float], spacing: float) -> None:
    """Least movement in squares that keeps order and distance: isotonic regression, pooling violators."""
    offsets, offset = [], 0.0
    for position, k in enumerate(column):
        if position:
            offset += (items[column[position - 1]].height + items[k].height) / 2 + spacing
        offsets.append(offset)
    pools: list[tuple[float, int]] = []
    for wish, shift in zip(wishes, offsets):
        pools.append((wish - shift, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (mean, count), (before, earlier) = pools.pop(), pools.pop()
            pools.append(((mean * count + before * earlier) / (count + earlier), count + earlier))
    level = [mean for mean, count in pools for _ in range(count)]
    for k, base, shift in zip(column, level, offsets):
        items[k].y = base + shift


# ------------------------------------------------------------------------------------------------- ways


def _way(
    boxes: Sequence[Box],
    link: Link,
    heights: list[float],
    layer: int,
    lefts: list[float],
    widths: list[float],
) -> list[tuple[float, float]]:
    """Corner points of a link: out of its source, level through every layer that it crosses, into the port."""
    source, target = boxes[link.source], boxes[link.target]
    points = [(source.x + source.width, source.y)]
    right = lefts[layer] + widths[layer]
    if right > points[0][0]:
        points.append((right, source.y))
    for k, y in enumerate(heights, layer + 1):
        points += [(lefts[k], y), (lefts[k] + widths[k], y)]
    points.append((target.x, target.y + target.ports[link.port]))
    return points
