"""Graph → graph: products are computed in the order of axes in which they are read, long sums in two steps.

The gradient of a weight comes out of the chain rule as the transpose of a product; (x·y)ᵀ = yᵀ·xᵀ has every element
from the same terms in the same order, so nothing but the place of the elements changes, and reading along memory is
many times faster than across it.
A sum over the outermost axis and over others, of values that lie apart from each other, would add up rows in one
place; in two steps there is a place for each value of the outermost axis, and threads can share them.
Knows operations by their lowering, never by name; knows nothing of loops or machine code.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..graph import Graph, Node
from ..operations import Type
from ..ops.lowering import Contraction, Reduce, View
from ..rewrite import remake, rewrite
from .forms import Order, elements, lowering_of
from .indices import Index, Variable
from .orders import orders

# A sum of so many elements is worth two steps.
_LONG = 1 << 15


def layout(graph: Graph) -> Graph:
    """The graph with products turned where only their transposes are read, and with long sums in two steps."""
    return _in_two_steps(_with_products_turned(graph))


def _with_products_turned(graph: Graph) -> Graph:
    turned = _turned(graph)

    def rule(node: Node, original: Node) -> Node:
        if original not in turned:
            return node
        (product,) = node.inputs
        x, y = product.inputs
        return remake(product, (_swapped(node, y), _swapped(node, x)), types=node.types)

    return rewrite(graph, rule) if turned else graph


def _in_two_steps(graph: Graph) -> Graph:
    known = orders(graph)

    def rule(node: Node, original: Node) -> Node:
        first = _first_axis(original, known)
        if first is None:
            return node
        axes = tuple(axis for axis in node.attributes["axes"] if axis != first)
        (x,) = node.inputs
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        attributes = {"axes": axes, "keepdims": True}
        part = remake(node, (x,), attributes=attributes, types=(Type(shape, node.dtype),))
        return remake(node, (part,))

    return rewrite(graph, rule) if known else graph


def _first_axis(node: Node, known: Mapping[Node, Order]) -> int | None:
    """The axis that a sum leaves for a second step; None where one step is as good."""
    form = lowering_of(node)
    if not isinstance(form, Reduce) or not form.grouped or not node.inputs or node._value is not None:
        return None
    (x,) = node.inputs
    if x not in known or elements(x) < _LONG:
        return None
    axes, gone = known[x].axes, node.attributes["axes"]
    apart = axes[-1] not in gone and x.shape[axes[-1]] > 1
    return axes[0] if apart and axes[0] in gone and len(gone) > 1 and x.shape[axes[0]] > 1 else None


def _turned(graph: Graph) -> set[Node]:
    """Views that exchange the last two axes of a product that nothing else reads."""
    readers: dict[Node, list[Node]] = {}
    for node in graph.nodes():
        for operand in node.inputs:
            readers.setdefault(operand, []).append(node)
    roots = {
        *graph.roots,
        *(check.condition for check in graph.checks),
        *(check.subject for check in graph.checks),
    }
    found: set[Node] = set()
    for product, views in readers.items():
        form = lowering_of(product) if product.inputs and product._value is None else None
        turns = isinstance(form, Contraction) and form.turns
        if turns and product not in roots and all(map(_swaps, views)):
            found.update(views)
    return found


def _swapped(view: Node, operand: Node) -> Node:
    """The operand with its last two axes exchanged, by the same operation."""
    *rest, rows, columns = operand.shape
    return remake(view, (operand,), types=(Type((*rest, columns, rows), operand.dtype),))


def _swaps(node: Node) -> bool:
    """Whether a node is a view that exchanges the last two axes of its operand and does nothing else."""
    form = lowering_of(node)
    if not isinstance(form, View) or node.inputs[0].ndim != node.ndim or node.ndim < 2:
        return False
    position = [Index.of(Variable(f"a{k}", size)) for k, size in enumerate(node.shape)]
    found = form.index(list(position), node.inputs[0].type, node.type, **node.attributes)
    return list(map(Index.of, found)) == [*position[:-2], position[-1], position[-2]]
