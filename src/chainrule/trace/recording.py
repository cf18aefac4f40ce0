"""What happens while a function is traced: cells are read and written in the graph only, conditions become checks.

Knows cells, nodes and operations; knows nothing of arguments, tensors or machine code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from ..config import config
from ..errors import AssertionFailed, BoundsError, ChainruleError, NonFiniteError, TraceError, find_origin
from ..graph import Cell, Check, Node, Slot, Trace, topological
from ..operations import CONSTANT, READ, Attributes, Operation
from ..ops.bounds import bounds_of, describe_range
from .assertions import asserted_truth

# Kinds of cells that a function makes anew each time it runs.
_OF_ONE_CALL = ("leaf", "generator")


class Tracing(Trace):
    """The trace of one call: stands between cells and the graph that is being built."""

    delivers = True

    def __init__(self) -> None:
        self.start = Node(CONSTANT).serial
        self.reads: dict[Slot, Node] = {}
        self.arrays: dict[Cell, Node] = {}
        self.grads: dict[Cell, Node | None] = {}
        self.grad_was_none: dict[Cell, bool] = {}
        # The tensors that are gradients now, where somebody has seen them; those of gradients that were there before.
        self.gradients: dict[Cell, Any] = {}
        self.found_gradients: dict[Cell, Any] = {}
        # Cells whose gradient an effect of the call puts there: a tensor that is also somewhere else.
        self.kept_gradients: set[Cell] = set()
        self.written: dict[Slot, None] = {}
        self.deposited: dict[Cell, tuple[Node, Any]] = {}
        self.checks: list[Check] = []
        self.local: set[Cell] = set()
        # Errors that were raised for want of numbers, whoever has caught them, and the nodes that they were about.
        self.errors: list[TraceError] = []
        self.asked: list[Node] = []
        # What was formatted, by the number that stands for it in texts; what was printed.
        self.texts: list[tuple[Any, str]] = []
        self.printed: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        # Inputs whose history in another call is gone, and what they are called.
        self.cut: dict[Node, str] = {}
        # Whether cells required grad before the step changed that.
        self.flags: dict[Cell, bool] = {}

    # ------------------------------------------------------------------------------- cells

    def create(self, cell: Cell) -> None:
        """A leaf that is made here does not outlive the call: it is neither read from outside nor written.

        What modules and optimizers make (buffers, moments) they keep, so that is state like any other.
        """
        if cell.kind in _OF_ONE_CALL:
            self.local.add(cell)

    def read(self, cell: Cell) -> Node:
        """A source the first time; later what was written, as a leaf of its own."""
        node = self.arrays.get(cell)
        if node is None:
            if cell in self.local:
                node = Node(READ, value=cell.array, requires_grad=cell.requires_grad, cell=cell)
            else:
                node = Node(READ, type=(cell.type,), requires_grad=cell.requires_grad, cell=cell)
                self.reads[cell, "array"] = node
            self.arrays[cell] = node
        elif node.cell is not cell:
            # Written before: gradients of what follows belong to the cell, and stop there.
            node = Node(
                ops.stop_gradient, (node,), type=node.types, requires_grad=cell.requires_grad, cell=cell
            )
            self.arrays[cell] = node
        return node

    def write(self, cell: Cell, node: Node) -> None:
        """The cell holds `node` from here on."""
        if node.type != cell.type:
            raise TraceError(
                f"a compiled step keeps the types of cells; {cell.name or 'a tensor'} is {cell.type}, and "
                f"{node.type} would be written. Use astype, or do it outside the step"
            )
        self.arrays[cell] = node
        self.written[cell, "array"] = None

    def read_grad(self, cell: Cell) -> Node | None:
        """A source the first time, if there is a gradient; that there is one holds for this trace."""
        if cell not in self.grads:
            present = None if cell in self.local else cell.grad
            self.grad_was_none[cell] = present is None
            node = None
            if present is not None:
                node = self.reads[cell, "grad"] = Node(READ, type=(cell.type,))
            self.grads[cell] = node
        self._follow(cell)
        return self.grads[cell]

    def write_grad(self, cell: Cell, node: Node | None) -> None:
        """The gradient is `node` from here on, which is another tensor."""
        self._follow(cell)
        self.gradients.pop(cell, None)
        self._put_grad(cell, node)

    def gradient(self, cell: Cell, handle: Callable[[Node], Any]) -> Any:
        """The same tensor each time, until another takes its place: what it is changed to in place is the gradient."""
        node = self.read_grad(cell)
        if node is None:
            return None
        if cell not in self.gradients:
            self.gradients[cell] = handle(node)
            if self.reads.get((cell, "grad")) is node:
                self.found_gradients[cell] = self.gradients[cell]
        return self.gradients[cell]

    def set_gradient(self, cell: Cell, tensor: Any) -> None:
        """This very tensor is the gradient from here on."""
        self.write_grad(cell, None if tensor is None else tensor.node)
        if tensor is not None:
            self.gradients[cell] = tensor

    def _follow(self, cell: Cell) -> None:
        """A tensor that is a gradient may have been changed in place."""
        tensor = self.gradients.get(cell)
        if tensor is not None and tensor.node is not self.grads[cell]:
            self._put_grad(cell, tensor.node)

    def _put_grad(self, cell: Cell, node: Node | None) -> None:
        self.grads[cell] = node
        self.written[cell, "grad"] = None
        if node is not None and cell.requires_grad:
            self.deposited[cell] = node, find_origin()

    def require_grad(self, cell: Cell, value: bool) -> None:
        """Whether the cell requires grad from here on."""
        self.flags.setdefault(cell, cell.requires_grad)
        cell.requires_grad = value
        node = self.arrays.pop(cell, None)
        if node is not None:
            cut = Node(ops.stop_gradient, (node,), type=node.types, requires_grad=value, cell=cell)
            self.arrays[cell] = cut

    def make_leaf(self, node: Node) -> Cell:
        """A leaf of this call: it holds the node's numbers, and its gradients stop there."""
        cell = Cell(np.broadcast_to(np.zeros((), node.dtype), node.shape), requires_grad=True)
        self.arrays[cell] = node
        return cell

    def restore(self) -> None:
        """Put back what a trace has to change for real."""
        for cell, value in self.flags.items():
            cell.requires_grad = value

    # ------------------------------------------------------------------------------- numbers, texts

    def refused(self, error: TraceError, node: Node) -> None:
        """Somebody needs numbers that are not there."""
        self.errors.append(error)
        self.asked.append(node)

    def keys_of(self, numbers: dict[Node, Any]) -> frozenset[Any]:
        """Which of these numbers the questions depend on."""
        return frozenset(numbers[one] for one in topological(self.asked) if one in numbers)

    def text_of(self, value: Any, spec: str) -> str:
        """A mark that stands for a value in a text, until the call has numbers."""
        self.texts.append((value, spec))
        return f"\ue000{len(self.texts) - 1}\ue001"

    def within(self, other: Trace) -> bool:
        """Whether another trace is this one, or runs inside it."""
        while other is not self and hasattr(other, "outer"):
            other = other.outer
        return other is self

    def decide(self, node: Node) -> bool | None:
        """The truth of a value where it is asserted: it becomes a check of the step. None anywhere else."""
        wanted = asserted_truth()
        if wanted is None:
            return None
        condition = node if wanted else ops.bitwise_invert.on_nodes((node,), {})
        if condition.shape:
            condition = ops.reshape.node((condition,), {"shape": ()})
        self.check(condition, "an assertion of a compiled step must hold; it does not", AssertionFailed)
        return wanted

    # ------------------------------------------------------------------------------- operations, checks

    def apply(self, operation: Operation, inputs: tuple[Node, ...], attributes: Attributes) -> Node:
        """A node without an array; an operation with bounds brings its check."""
        assert isinstance(operation, ops.Op)
        for operand in inputs:
            if operand.serial <= self.start and operand.value is None:
                raise TraceError(
                    f"{operation.name} needs values of this step; got {operand.type} {operand.operation.name} of "
                    f"one that is over, made at {operand.origin}. Return it from that step"
                )
        bounded = bounds_of(operation, inputs, attributes)
        if bounded is not None:
            self.check(bounded.condition, bounded.message, BoundsError, bounded.indices)
        return operation.symbolic(inputs, attributes)

    def check(
        self,
        condition: Node,
        message: str,
        error: type[ChainruleError] = BoundsError,
        subject: Node | None = None,
    ) -> None:
        """The condition must hold before anything is written; one that is known not to hold raises here."""
        value = condition.value
        if value is None:
            self.checks.append(Check(condition, message, find_origin(), error, subject))
        elif not value.all():
            raise error(describe_range(message, None if subject is None else subject.value))

    def differentiated(self, node: Node) -> None:
        """The loss must be finite, and nothing in it may come from another call that gradients would have to follow."""
        if self.cut:
            self._refuse_cut(node)
        if config.check_finite:
            message = "a loss must be finite before anything is learnt from it; got {low}"
            self.check(ops.isfinite.on_nodes((node,), {}), message, NonFiniteError, node)

    def _refuse_cut(self, node: Node) -> None:
        """A loss must not depend on what another call has computed from what requires grad."""
        for one in topological([node], follow=lambda one: one.operation is not ops.stop_gradient):
            if one in self.cut:
                raise TraceError(
                    f"a compiled step differentiates its own computation; its loss depends on {self.cut[one]}, which "
                    "an earlier call has computed from tensors that require grad, and gradients would go on into that "
                    "call. Keep and pass on x.detach()"
                )

    # ------------------------------------------------------------------------------- the end

    def close(self) -> tuple[dict[Slot, Node | None], list[Check]]:
        """What is written, and all checks, those of the gradients at the end."""
        for cell in self.gradients:
            self._follow(cell)
        writes: dict[Slot, Node | None] = {}
        for cell, part in self.written:
            if cell in self.local:
                continue
            node = self.arrays[cell] if part == "array" else self.grads[cell]
            if part == "grad" and node is None and self.grad_was_none.get(cell):
                continue
            if part == "grad" and cell in self.kept_gradients:
                continue
            if node is None or self.reads.get((cell, part)) is not node:
                writes[cell, part] = node
        if config.check_finite:
            self._check_gradients()
        self.gradients.clear()
        self.found_gradients.clear()
        return writes, self.checks

    def _check_gradients(self) -> None:
        for cell, (node, origin) in self.deposited.items():
            condition = ops.isfinite.on_nodes((node,), {})
            if cell not in self.local and condition.value is None:
                condition.origin = origin
                message = f"the gradient of {cell.name or 'a tensor'} must be finite; got {{low}} to {{high}}"
                self.checks.append(Check(condition, message, origin, NonFiniteError, node, cell))
