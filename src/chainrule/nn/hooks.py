"""Hooks of modules: called before and after `forward`, and when gradients leave and enter a layer.

A layer with gradient hooks stands between two gates: identities that let values through and hear, in one moment,
of all gradients that pass them.
Knows modules by their call only; knows nothing of particular layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .. import autodiff
from ..errors import ArgumentError
from ..graph import Graph, Node, state
from ..operations import INPUT
from ..pytree import flatten, unflatten
from ..tensor import Tensor, wrap
from ..tensor.hooks import RemovableHandle, as_handle, replaced

Gradients = tuple[Tensor | None, ...]

_NOTHING = object()


@dataclass(frozen=True)
class Entry:
    """A function with how it wants to be called."""

    function: Callable[..., Any]
    with_kwargs: bool = False
    always_call: bool = False


@dataclass
class ModuleHooks:
    """The hooks of one module, in the order in which they run."""

    forward_pre: dict[int, Entry] = field(default_factory=dict)
    forward: dict[int, Entry] = field(default_factory=dict)
    backward_pre: dict[int, Entry] = field(default_factory=dict)
    backward: dict[int, Entry] = field(default_factory=dict)

    def add(
        self,
        kind: str,
        function: Callable[..., Any],
        prepend: bool,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Register a function; the handle takes it away again."""
        if not callable(function):
            raise ArgumentError(f"a hook is a function; got {type(function).__name__}")
        return RemovableHandle(getattr(self, kind), Entry(function, with_kwargs, always_call), prepend)

    def functions(self) -> Iterator[Callable[..., Any]]:
        """What the user has written, all kinds."""
        for kind in (self.forward_pre, self.forward, self.backward_pre, self.backward):
            for entry in kind.values():
                yield entry.function

    def copy(self) -> ModuleHooks:
        """The same hooks, of which some can be added without touching these."""
        return ModuleHooks(
            dict(self.forward_pre), dict(self.forward), dict(self.backward_pre), dict(self.backward)
        )

    # ------------------------------------------------------------------------------- a call

    def call(self, module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """`forward` with all that is registered around it."""
        called: set[int] = set()
        output = None
        try:
            arguments, keywords = self._before(module, arguments, keywords)
            gates = _Gates(module, self) if self._watches_gradients() else None
            if gates is not None:
                arguments = gates.enter(arguments)
            output = module.forward(*arguments, **keywords)
            for key, entry in list(self.forward.items()):
                called.add(key)
                output = _after(module, entry, arguments, keywords, output)
            return output if gates is None else gates.leave(output)
        except BaseException:
            for key, entry in list(self.forward.items()):
                if entry.always_call and key not in called:
                    _after(module, entry, arguments, keywords, output)
            raise

    def _before(
        self, module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        for entry in list(self.forward_pre.values()):
            given = (module, arguments, keywords) if entry.with_kwargs else (module, arguments)
            answer = entry.function(*given)
            if answer is None:
                continue
            if not entry.with_kwargs:
                arguments = answer if isinstance(answer, tuple) else (answer,)
            elif isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], tuple):
                arguments, keywords = answer
            else:
                raise ArgumentError(
                    "a forward pre-hook with_kwargs returns (arguments, keywords), a tuple and a dict, or None; got "
                    f"{type(answer).__name__}"
                )
        return arguments, keywords

    def _watches_gradients(self) -> bool:
        return bool(self.backward or self.backward_pre) and state.grad_enabled


def _after(
    module: Any, entry: Entry, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any
) -> Any:
    given = (module, arguments, keywords, output) if entry.with_kwargs else (module, arguments, output)
    answer = entry.function(*given)
    return output if answer is None else answer


# ------------------------------------------------------------------------------------------- gradients


class _Gates:
    """The two gates of one call, and what has passed the second when the first is reached."""

    def __init__(self, module: Any, hooks: ModuleHooks) -> None:
        self.module = module
        self.hooks = hooks
        self.inputs: _Row | None = None
        self.outputs: _Row | None = None
        self.passed: Gradients = ()

    def enter(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments behind the first gate."""
        self.inputs = _Row(arguments)
        result: tuple[Any, ...] = self.inputs.through(self._at_inputs)
        return result

    def leave(self, output: Any) -> Any:
        """The output behind the second gate."""
        self.outputs = _Row(output)
        return self.outputs.through(self._at_outputs)

    def _at_outputs(self, slots: list[Any], as_nodes: bool) -> list[Any]:
        """First in the backward pass: the gradients of the outputs."""
        assert self.inputs is not None and self.outputs is not None
        for entry in list(self.hooks.backward_pre.values()):
            gradients = self.outputs.gradients(slots, as_nodes)
            answer = entry.function(self.module, gradients)
            slots = self.outputs.answered("a full backward pre-hook", answer, slots, as_nodes)
        self.passed = self.outputs.gradients(slots, as_nodes)
        if not self.inputs.places:  # nothing in front of this layer learns, so this is the last that is heard
            for entry in list(self.hooks.backward.values()):
                entry.function(self.module, (None,) * self.inputs.width, self.passed)
        return slots

    def _at_inputs(self, slots: list[Any], as_nodes: bool) -> list[Any]:
        """Last in the backward pass: the gradients of the inputs."""
        assert self.inputs is not None
        for entry in list(self.hooks.backward.values()):
            gradients = self.inputs.gradients(slots, as_nodes)
            answer = entry.function(self.module, gradients, self.passed)
            slots = self.inputs.answered("a full backward hook", answer, slots, as_nodes)
        self.passed = ()
        return slots


class _Row:
    """What is handed to or from a module, in a row; the tensors in it that require grad pass the gate."""

    def __init__(self, given: Any) -> None:
        if type(given) is tuple:  # a None keeps its place in the row
            given = tuple(_NOTHING if one is None else one for one in given)
        self.leaves, self.structure = flatten(given)
        self.width = len(self.leaves)
        self.places = [
            k for k, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor) and leaf.requires_grad
        ]

    def through(self, hook: Callable[[list[Any], bool], list[Any]]) -> Any:
        """The same nesting with the tensors behind a gate that calls `hook`."""
        leaves, self.leaves = self.leaves, []
        if self.places:
            nodes = tuple(leaves[k].node for k in self.places)
            inside = tuple(Node(INPUT, type=node.types, requires_grad=True) for node in nodes)
            # A graph of nothing but its inputs: one node with several results, whose cotangents come together.
            gate = autodiff.call.node(nodes, {"graph": Graph("gate", inside, inside), "pulled": []})
            gate.hooks = {0: hook}
            for index, k in enumerate(self.places):
                leaves[k] = wrap(autodiff.part.node((gate,), {"index": index}))
        return unflatten(self.structure, [None if leaf is _NOTHING else leaf for leaf in leaves])

    def gradients(self, slots: list[Any], as_nodes: bool) -> Gradients:
        """What the hooks see: a tensor where a gradient has arrived, None elsewhere."""
        found: list[Tensor | None] = [None] * self.width
        for k, slot in zip(self.places, slots):
            if slot is not None:
                found[k] = as_handle(slot, as_nodes)
        return tuple(found)

    def answered(self, who: str, answer: Any, slots: list[Any], as_nodes: bool) -> list[Any]:
        """The cotangents after a hook has answered."""
        if answer is None:
            return slots
        given = (answer,) if isinstance(answer, Tensor) else tuple(answer)
        if len(given) != self.width:
            raise ArgumentError(f"{who} returns {self.width} gradients, one for each; got {len(given)}")
        changed = list(slots)
        for index, k in enumerate(self.places):
            slot, one = slots[index], given[k]
            if slot is not None:
                changed[index] = slot if one is None else replaced(who, one, slot, as_nodes)
        return changed
