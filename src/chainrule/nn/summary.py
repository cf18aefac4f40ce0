"""What a model is made of, layer by layer: output shapes, parameters, multiply-adds, memory of the backward pass.

The model is traced, not run: no numbers are computed, so nothing of it changes, and its size costs nothing. What
the backward pass keeps is read off the graph of the gradient itself.
Knows modules, traces and graphs; knows nothing of particular layers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autodiff import call, gradients, part
from ..dtypes import DEFAULT_FLOAT, Dtype, as_dtype
from ..elsewhere import checked_call
from ..errors import ArgumentError, DtypeError, TraceError
from ..graph import Graph, Node, Scope, state, topological
from ..language import preferred_language, sentence
from ..operations import CONSTANT, INPUT
from ..ops import Op
from ..ops.lowering import Contraction, View
from ..pytree import flatten, unflatten
from ..tensor import Tensor, as_tensor
from ..tensor.creation import zeros
from ..trace import trace
from ..transforms import enable_grad
from .hooks import Entry, ModuleHooks
from .module import Module

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass
class LayerSummary:
    """One call of one layer. Counts are its own, without those of layers inside it.

    output: shape of what it returned, in the same nesting; None where it was never called. shared: it was called
    before, or its parameters are counted elsewhere. kept_bytes: what it computed and the backward pass reads.
    """

    path: str
    type: str
    output: Any = None
    trainable: int = 0
    frozen: int = 0
    multiply_adds: int = 0
    kept_bytes: int = 0
    shared: bool = False


@dataclass
class Summary:
    """All layers in the order of their calls, and the totals; `print` shows a table.

    kept_bytes: all that the backward pass keeps, with what it reads of the inputs. parameter_bytes: the parameters.
    """

    layers: list[LayerSummary]
    trainable: int
    frozen: int
    parameter_bytes: int
    multiply_adds: int
    input_bytes: int
    kept_bytes: int
    language: str = "en"

    @property
    def parameters(self) -> int:
        """All of them, each once."""
        return self.trainable + self.frozen

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts and lists."""
        found = dataclasses.asdict(self)
        del found["language"]
        return {**found, "parameters": self.parameters}

    def __str__(self) -> str:
        return "\n".join(_table(self))

    __repr__ = __str__


@checked_call
def summary(model: Module, inputs: Any, *, dtypes: Any = None, language: str | None = None) -> Summary:
    """The layers of `model` with their output shapes, parameters, multiply-adds and memory of the backward pass.

    inputs: a size such as `(32, 10)`, an example (tensor or array), a tuple or list of several of either, or a dict
    of either for keywords. dtypes: those of the sizes, one or in the same nesting; the model's own float type by
    default, so a model that starts with whole numbers needs `dtypes="int64"`.
    Multiply-adds are those of matrix products and convolutions in the forward pass. The memory is that of all values
    which the backward pass reads, each counted once, in the model's present mode and with what is frozen now.
    The model is traced and not run: its mode, buffers and random generators stay as they are. Raises ArgumentError
    if it cannot be traced because it asks for numbers.

    >>> from chainrule import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> found = summary(model, (32, 4))
    >>> found.parameters, found.multiply_adds, found.layers[1].output
    (67, 1792, (32, 8))
    """
    if not isinstance(model, Module):
        raise ArgumentError(f"summary needs a module; got {type(model).__name__}")
    names = {module: path for path, module in model.named_modules()}
    watcher = _Watcher(model, names)
    given, keywords = _arguments(inputs, dtypes, _float_type(model))
    try:
        with _observed(model, watcher), enable_grad():
            trace(watcher.probe, given, keywords, "summary", twice=False)
    except DtypeError as failure:
        if dtypes is not None:
            raise
        fix = "Sizes stand for floats: for whole numbers give summary dtypes='int64', or an example"
        raise DtypeError(
            f"{failure.message.rpartition('. ')[0] or failure.message}. {fix}", failure.origin
        ) from None
    except TraceError as failure:
        raise ArgumentError(
            f"summary needs a model that can be traced without numbers; got one that asks for them: {failure.message}",
            failure.origin,
        ) from None
    return watcher.finished(language or preferred_language())


# ------------------------------------------------------------------------------------------- examples


def _float_type(model: Module) -> Dtype:
    return next((one.dtype for one in model.parameters()), DEFAULT_FLOAT)


def _arguments(inputs: Any, dtypes: Any, default: Dtype) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        kinds = dtypes if isinstance(dtypes, Mapping) else dict.fromkeys(inputs, dtypes)
        return (), {name: _example(one, kinds.get(name), default) for name, one in inputs.items()}
    several = isinstance(inputs, list | tuple) and not _is_size(inputs)
    if several and all(_is_size(one) or hasattr(one, "dtype") for one in inputs):
        row = dtypes if isinstance(dtypes, list | tuple) else [dtypes] * len(inputs)
        if len(row) != len(inputs):
            raise ArgumentError(f"summary needs one dtype for each input; got {len(row)} for {len(inputs)}")
        return tuple(_example(one, kind, default) for one, kind in zip(inputs, row)), {}
    return (_example(inputs, dtypes, default),), {}


def _is_size(given: Any) -> bool:
    return (
        isinstance(given, list | tuple)
        and bool(given)
        and all(isinstance(one, int | np.integer) and not isinstance(one, bool) for one in given)
    )


def _example(given: Any, dtype: Any, default: Dtype) -> Tensor:
    if _is_size(given):
        return zeros(tuple(given), dtype=default if dtype is None else as_dtype(dtype))
    return as_tensor(given).detach()


# ------------------------------------------------------------------------------------------- watching


@contextlib.contextmanager
def _observed(model: Module, watcher: _Watcher) -> Iterator[None]:
    """Let the watcher hear of every call. It is no change of structure, so compiled steps stay valid."""
    before = {module: module._hooks for module in model.modules()}
    try:
        for module, own in before.items():
            hooks = ModuleHooks() if own is None else own.copy()
            hooks.forward_pre = {0: Entry(watcher.enters), **hooks.forward_pre}
            hooks.forward[0] = Entry(watcher.leaves)
            module.__dict__["_hooks"] = hooks
        yield
    finally:
        for module, own in before.items():
            module.__dict__["_hooks"] = own


class _Watcher:
    """Hears of the calls of layers while the model is traced, then looks at the graph."""

    def __init__(self, model: Module, names: dict[Module, str]) -> None:
        self.model = model
        self.names = names
        self.rows: list[LayerSummary] = []
        self.of_scope: dict[Scope, LayerSummary] = {}
        self.seen: set[int] = set()
        self.called: set[Module] = set()
        self.input_bytes = 0
        self.kept_bytes = 0

    def enters(self, module: Module, arguments: Any) -> None:
        """A call begins."""
        row = self._row(module)
        self.rows.append(row)
        assert state.scope is not None
        self.of_scope[state.scope] = row

    def leaves(self, module: Module, arguments: Any, output: Any) -> None:
        """A call ends."""
        assert state.scope is not None
        self.of_scope[state.scope].output = _shapes(output)

    def _row(self, module: Module) -> LayerSummary:
        row = LayerSummary(self.names[module], type(module).__name__, shared=module in self.called)
        self.called.add(module)
        for _, parameter in module._own("parameter"):
            if id(parameter) in self.seen:
                row.shared = True
            elif parameter.requires_grad:
                row.trainable += parameter.size
            else:
                row.frozen += parameter.size
            self.seen.add(id(parameter))
        return row

    def probe(self, *arguments: Any, **keywords: Any) -> None:
        """The model, and the gradient of its outputs; only the graph is of interest."""
        output = self.model(*arguments, **keywords)
        outputs = [leaf.node for leaf in flatten(output)[0] if isinstance(leaf, Tensor)]
        for node in topological(outputs):
            self._row_of(node).multiply_adds += _multiply_adds(node)
        for node, index in _read_backwards(outputs):
            size = math.prod(node.types[index].shape) * node.types[index].dtype.itemsize
            if node.operation is INPUT:
                self.input_bytes += size
            else:
                self._row_of(node).kept_bytes += size
            self.kept_bytes += size

    def _row_of(self, node: Node) -> LayerSummary:
        """The innermost layer in which a node was made."""
        scope = node.scope
        while scope is not None and scope not in self.of_scope:
            scope = scope.parent
        return self.rows[0] if scope is None else self.of_scope[scope]

    def finished(self, language: str) -> Summary:
        """Rows of layers that were never called come last; then the totals."""
        for module in self.names:
            holds_layers = bool(list(module.children())) and not list(module.parameters(recurse=False))
            if (
                module not in self.called and not holds_layers
            ):  # a ModuleList is never called and says nothing
                self.rows.append(self._row(module))
        trainable = sum(one.size for one in self.model.parameters() if one.requires_grad)
        return Summary(
            self.rows,
            trainable,
            sum(one.size for one in self.model.parameters()) - trainable,
            sum(one.size * one.dtype.itemsize for one in self.model.parameters()),
            sum(row.multiply_adds for row in self.rows),
            self.input_bytes,
            self.kept_bytes,
            language,
        )


def _shapes(output: Any) -> Any:
    leaves, structure = flatten(output)
    return unflatten(
        structure, [one.shape if isinstance(one, Tensor) else type(one).__name__ for one in leaves]
    )


def _multiply_adds(node: Node) -> int:
    """Those of a product or convolution, or of all in the graph that the node runs, as often as it does."""
    operation = node.operation
    if isinstance(operation, Op) and isinstance(operation.lowering, Contraction):
        along: Sequence[int] = operation.lowering.inner(*(one.type for one in node.inputs), **node.attributes)
        return math.prod(node.shape) * math.prod(along)
    times: int = node.attributes.get("length", 1)
    inside = [one for one in node.attributes.values() if isinstance(one, Graph)]
    return times * sum(_multiply_adds(one) for graph in inside for one in topological(graph.outputs))


def _read_backwards(outputs: Sequence[Node]) -> list[tuple[Node, int]]:
    """Results (node and number) of the forward pass that the gradients of the parameters are computed from.

    A view stands for what it looks at; parameters and constants are there anyway.
    """
    mark = Node(CONSTANT).serial
    given = [node for node in outputs if node.requires_grad]
    found: list[Node] = []

    def collect(node: Node, gradient: Node) -> None:
        if node.cell is not None and node.cell.requires_grad:
            found.append(gradient)

    recording, state.grad_enabled = state.grad_enabled, False
    try:
        seeds = [Node(INPUT, type=node.types) for node in given]
        gradients(given, seeds, as_nodes=True, visit=collect)
    finally:
        state.grad_enabled = recording
    read: dict[tuple[Node, int], None] = {}
    for node in topological(found, follow=lambda node: node.serial > mark):
        if node.serial > mark and node.operation is not call:  # a gate of gradient hooks only lets through
            for operand in (node,) if node.operation is part else node.inputs:
                base = _looked_at(operand)
                result = (base.inputs[0], base.attributes["index"]) if base.operation is part else (base, 0)
                if result[0].serial <= mark and base.cell is None and base.operation is not CONSTANT:
                    read.setdefault(result)
    return list(read)


def _looked_at(node: Node) -> Node:
    while (behind := _source(node)) is not None:
        node = behind
    return node


def _source(node: Node) -> Node | None:
    """What the node looks at without a value of its own: behind a view, an identity, or a gate; None if it has one."""
    operation = node.operation
    if not node.inputs or not isinstance(operation, Op):
        return None
    (first, *_), attributes = node.inputs, node.attributes
    if operation is part and first.operation is call:
        graph, index = first.attributes["graph"], attributes["index"]
        return first.inputs[index] if graph.outputs[index] is graph.inputs[index] else None
    view = isinstance(operation.lowering, View) or operation.name in ("positive", "stop_gradient")
    return first if view else None


# ------------------------------------------------------------------------------------------- the table


def _table(found: Summary) -> Iterator[str]:
    def say(key: str, **values: Any) -> str:
        return sentence(f"summary.{key}", found.language, **values)

    head = [say(key) for key in ("layer", "output", "parameters", "multiply_adds", "kept")]
    called = {row.path for row in found.layers if row.output is not None}
    rows = [head, *([*_cells(row, called, say("not_called"), say("shared"))] for row in found.layers)]
    widths = [max(_width(row[k]) for row in rows) for k in range(len(head))]
    for number, row in enumerate(rows):
        left = [_padded(cell, width) for cell, width in zip(row[:2], widths[:2])]
        right = [_padded(cell, width, True) for cell, width in zip(row[2:], widths[2:])]
        yield "  ".join([*left, *right]).rstrip()
        if number == 0:
            yield "─" * (sum(widths) + 2 * (len(widths) - 1))
    yield "─" * (sum(widths) + 2 * (len(widths) - 1))
    yield say("total_parameters", count=f"{found.parameters:,}", trainable=f"{found.trainable:,}",
              frozen=f"{found.frozen:,}{'*' if found.frozen else ''}", bytes=_bytes(found.parameter_bytes))  # fmt: skip
    yield say("total_multiply_adds", count=f"{found.multiply_adds:,}")
    yield say("total_kept", bytes=_bytes(found.kept_bytes), inputs=_bytes(found.input_bytes))


def _cells(row: LayerSummary, called: set[str], not_called: str, shared: str) -> Iterator[str]:
    parts = row.path.split(".") if row.path else []
    outer = [k for k in range(len(parts)) if ".".join(parts[:k]) in called]  # layers that it stands inside of
    name = ".".join(parts[outer[-1] if outer else 0 :])
    yield "  " * len(outer) + (f"{name}: {row.type}" if name else row.type)
    yield not_called if row.output is None else str(row.output)
    count = row.trainable + row.frozen
    if row.shared and not count:
        yield shared
    else:
        yield f"{count:,}" + (f" ({row.frozen:,}*)" if row.frozen else "") if count else "–"
    yield f"{row.multiply_adds:,}" if row.multiply_adds else "–"
    yield _bytes(row.kept_bytes) if row.kept_bytes else "–"


def _bytes(count: int) -> str:
    """`1.5 MiB`; whole bytes below a KiB.

    >>> _bytes(512), _bytes(1536)
    ('512 B', '1.5 KiB')
    """
    size, unit = float(count), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{count} B" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _padded(text: str, width: int, right: bool = False) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space
