"""Graph → graph: products are computed in the order of axes in which they are read.

The gradient of a weight comes out of the chain rule as the transpose of a product; (x·y)ᵀ = yᵀ·xᵀ has every element
from the same terms in the same order, so nothing but the place of the elements changes, and reading along memory is
many times faster than across it.
Knows operations by their lowering, never by name; knows nothing of loops or machine code.
"""

from __future__ import annotations

from ..graph import Graph, Node
from ..operations import Type
from ..ops.lowering import Contraction, View
from ..rewrite import remake, rewrite
from .fuse import lowering_of
from .indices import Index, Variable


def layout(graph: Graph) -> Graph:
    """The graph with products turned where only their transposes are read."""
    turned = _turned(graph)

    def rule(node: Node, original: Node) -> Node:
        if original not in turned:
            return node
        (product,) = node.inputs
        x, y = product.inputs
        return remake(product, (_swapped(node, y), _swapped(node, x)), types=node.types)

    return rewrite(graph, rule) if turned else graph


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
        computed = product.inputs and product._value is None and isinstance(lowering_of(product), Contraction)
        if computed and product not in roots and all(map(_swaps, views)):
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
