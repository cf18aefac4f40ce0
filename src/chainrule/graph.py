"""The tensor graph: types, nodes, scopes, cells, closed graphs; walking, printing, verifying, evaluating.

A node keeps what happened (operation, inputs, attributes), where (scope, origin) and, when it ran
eagerly, its array. Nodes are compared by identity and never merged here.
Knows nothing of particular operations, of derivatives, loops or machine code.
"""

from __future__ import annotations

import itertools
import operator
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from .dtypes import Dtype
from .errors import BoundsError, ChainruleError, GraphError, Origin, TraceError, find_origin
from .locks import lock_of
from .operations import CONSTANT, INPUT, NO_ATTRIBUTES, READ, Arithmetic, Array, Attributes, Operation, Type


@dataclass(eq=False, slots=True, weakref_slot=True)
class Scope:
    """One call of a composite function or module; nodes made inside it carry it.

    `kind` is "function", "module" or "expression". `origin` is set for functions of this package, where
    every node inside comes from the same line of the user; modules leave it None.
    """

    name: str
    kind: str
    parent: Scope | None
    call_number: int
    origin: Origin | None = None

    @property
    def path(self) -> str:
        """Names from the outermost scope inwards: `Sequential/0/linear`."""
        names = [self.name]
        scope = self.parent
        while scope is not None:
            names.append(scope.name)
            scope = scope.parent
        return "/".join(reversed(names))


class Trace(Protocol):
    """What a running trace offers to cells: it stands between them and the graph being built."""

    place: ClassVar[str] = "inside cr.compile"
    advice: ClassVar[str] = (
        "Return it from the step, use cr.where instead of if, or set CHAINRULE_COMPILE=0 to run eagerly"
    )

    def read(self, cell: Cell) -> Node:
        """The node that stands for the cell's array at this point of the trace."""

    def write(self, cell: Cell, node: Node) -> None:
        """From here on the cell's array is `node`."""

    def read_grad(self, cell: Cell) -> Node | None:
        """The node that stands for the cell's gradient, or None where there is none."""

    def write_grad(self, cell: Cell, node: Node | None) -> None:
        """From here on the cell's gradient is `node`, or none."""

    def gradient(self, cell: Cell, handle: Callable[[Node], Any]) -> Any:
        """The tensor that is the cell's gradient, made with `handle` where there is none yet; None without one."""
        node = self.read_grad(cell)
        return None if node is None else handle(node)

    def set_gradient(self, cell: Cell, tensor: Any) -> None:
        """From here on the cell's gradient is this tensor, or None."""
        self.write_grad(cell, None if tensor is None else tensor.node)

    def apply(self, operation: Operation, inputs: tuple[Node, ...], attributes: Attributes) -> Node:
        """Record one operation on nodes of which at least one has no array."""

    def create(self, cell: Cell) -> None:
        """A cell was made while the trace runs."""

    def check(
        self,
        condition: Node,
        message: str,
        error: type[ChainruleError] = BoundsError,
        subject: Node | None = None,
    ) -> None:
        """`condition` must hold wherever it is computed, or `error` with `message` is raised and nothing written."""

    def differentiated(self, node: Node) -> None:
        """`backward` starts at `node`."""

    def require_grad(self, cell: Cell, value: bool) -> None:
        """The cell requires grad from here on, or no longer."""
        cell.requires_grad = value

    def make_leaf(self, node: Node) -> Cell:
        """A cell that holds `node` and requires grad."""
        raise TraceError(
            f"{self.place} a tensor becomes no leaf; got requires_grad=True on {node.type}. Set it outside, or use "
            "cr.grad"
        )

    # Whether numbers are computed as soon as somebody asks for them.
    forces: ClassVar[bool] = False

    def force(self, node: Node) -> Array | None:
        """The numbers of a node, where they are computed when somebody asks; else None."""
        return None

    # Whether numbers can be handed on before they are known: into results, texts and attributes.
    delivers: ClassVar[bool] = False

    def text_of(self, value: Any, spec: str) -> str:
        """What stands for a value in a text until its numbers are known."""
        return repr(value)

    def decide(self, node: Node) -> bool | None:
        """The truth of `node` where only one can be meant: in an assertion. None if that cannot be told."""
        return None

    def refused(self, error: TraceError, node: Node) -> None:
        """Numbers were asked for that are not there; the error is on its way."""
        return None


class State(threading.local):
    """What holds for the running thread: recording, scope, trace, depth of nested transformations."""

    grad_enabled: bool = True
    scope: Scope | None = None
    trace: Trace | None = None
    gradient_of: Node | None = None
    depth: int = 0
    quiet: bool = False  # inside a section that has switched floating-point warnings off already


state = State()
_next_serial = itertools.count(1).__next__
_next_call = _next_serial  # one count for both, so that a node is older than a call if its number is smaller


Hooks = dict[int, Callable[[Any, bool], Any]]
"""What a cotangent passes through when it is complete: each takes it, and whether it is a node, and answers one."""


class Node(Arithmetic):
    """One operation that happened or will happen, with one result.

    Operations with several results give a node of several types, whose parts are read by `part` nodes.
    `serial` grows with creation, and operands exist before their node: so sorting by it is a topological
    order. `value` is the array when the node ran eagerly, None while traced.
    """

    __slots__ = (
        "__weakref__", "_type", "_value", "attributes", "cell", "gradient_of", "holder", "hooks", "inputs",
        "operation", "origin", "requires_grad", "scope", "serial",
    )  # fmt: skip

    def __init__(
        self,
        operation: Operation,
        inputs: tuple[Node, ...] = (),
        attributes: Attributes = NO_ATTRIBUTES,
        value: Array | tuple[Array, ...] | None = None,
        type: tuple[Type, ...] | None = None,
        requires_grad: bool = False,
        cell: Cell | None = None,
    ) -> None:
        self.operation = operation
        self.inputs = inputs
        self.attributes = attributes
        self._value = value
        self._type = type
        self.requires_grad = requires_grad
        self.cell = cell
        self.serial = _next_serial()
        self.holder: weakref.ref[Any] | None = None
        self.hooks: Hooks | None = None
        self.scope: Scope | None = None
        self.origin: Origin | None = None
        self.gradient_of: Node | None = None
        if inputs:
            self.scope = scope = state.scope
            forward = state.gradient_of
            if forward is not None:
                self.gradient_of = forward
                self.origin = forward.origin
            elif scope is not None and scope.origin is not None:
                self.origin = scope.origin
            else:
                self.origin = find_origin(2)

    def __apply__(self, operation: Operation, operands: tuple[Any, ...], attributes: Attributes) -> Any:
        return operation.on_nodes(operands, attributes)  # type: ignore[attr-defined]

    @property
    def value(self) -> Any:
        """The array (a tuple of arrays for several results), or None for a traced node.

        A broadcast is expanded only when somebody looks at it, and not kept: NumPy broadcasts by itself, and in a
        compiled step a mask or table would become a constant of the expanded size.
        """
        if self._value is None and self.operation.name == "broadcast_to":
            source = self.inputs[0].value
            if source is not None:
                return self.operation.body(np, source, **self.attributes)
        return self._value

    @property
    def types(self) -> tuple[Type, ...]:
        """Type of each result."""
        if self._type is None:
            values = self._value if isinstance(self._value, tuple) else (self._value,)
            self._type = tuple(Type(value.shape, value.dtype) for value in values)  # type: ignore[union-attr]
        return self._type

    @property
    def type(self) -> Type:
        """Type of the (first) result."""
        return self.types[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the (first) result."""
        value = self._value
        return value.shape if type(value) is np.ndarray else self.types[0].shape

    @property
    def dtype(self) -> Dtype:
        """Dtype of the (first) result."""
        value = self._value
        return value.dtype if type(value) is np.ndarray else self.types[0].dtype

    @property
    def ndim(self) -> int:
        """Number of axes of the (first) result."""
        return len(self.shape)

    def __repr__(self) -> str:
        place = f" ({self.origin})" if self.origin is not None else ""
        return f"<node {self.operation.name} {', '.join(map(str, self.types))}{place}>"


def operand_types(inputs: Iterable[Node]) -> list[Type]:
    """Types of operands, one after the other; a node with several results gives several."""
    return [type for operand in inputs for type in operand.types]


def constant(value: Any, dtype: Dtype | None = None) -> Node:
    """A source node that holds `value` as an array."""
    return Node(CONSTANT, value=np.asarray(value, dtype))


class Cell:
    """A mutable thing: parameter, buffer, moment, step count, hyper-parameter, generator.

    Arrays are replaced, never written into, so a node that read the cell keeps what it read. Only the runtime
    writes into an array, into one that it has made itself (`owned`) and that nobody else can reach.

    An engine may leave an array of its own kind here (`_array`), on a device of its own: it has a shape and a dtype,
    and NumPy can copy it, which is done when somebody asks for `array`.
    """

    __slots__ = (
        "__weakref__", "_array", "_copied", "_reader", "generation", "grad", "hooks", "kind", "name", "owned",
        "requires_grad",
    )  # fmt: skip

    def __init__(
        self, array: Array, requires_grad: bool = False, kind: str = "leaf", name: str | None = None
    ) -> None:
        self._array: Any = array
        self._copied: tuple[Any, Array] | None = None
        self.grad: Any = None
        self.hooks: Hooks | None = None
        self.requires_grad = requires_grad
        self.kind = kind
        self.name = name
        self.generation = 0
        self.owned = False
        self._reader: weakref.ref[Node] | None = None
        if state.trace is not None:
            state.trace.create(self)

    @property
    def array(self) -> Array:
        """The array that the cell holds now."""
        held = self._array
        return held if type(held) is np.ndarray else self._copy()

    def _copy(self) -> Array:
        """A copy of an array that an engine has left here, the same one as long as the engine's stays."""
        while True:
            held, copied = self._array, self._copied
            if type(held) is np.ndarray:
                return held
            if copied is not None and copied[0] is held:
                return copied[1]
            try:
                made = np.array(held)
            except RuntimeError:
                if self._array is held:  # a step in another thread is about to replace what it has used up
                    with lock_of((self,)):
                        pass
                    if self._array is held:
                        raise
                continue
            self._copied = held, made
            return made

    @property
    def type(self) -> Type:
        """Shape and dtype of the array."""
        return Type(self._array.shape, self._array.dtype)

    def read(self) -> Node:
        """The node that stands for the present array; the same one as long as the array and node live."""
        if state.trace is not None:
            return state.trace.read(self)
        node = self._reader() if self._reader is not None else None
        array = self.array
        if node is None or node._value is not array or node.requires_grad is not self.requires_grad:
            node = Node(READ, value=array, requires_grad=self.requires_grad, cell=self)
            self._reader = weakref.ref(node)
        return node

    def write(self, array: Array) -> None:
        """Replace the array. The caller gives it away: nobody else may write into it."""
        self._array = array
        self._copied = None
        self.owned = False
        self.generation += 1

    def own(self, array: Array) -> None:
        """Replace the array by one that the runtime has made and may write into."""
        self.write(array)
        self.owned = True

    def write_node(self, node: Node) -> None:
        """Replace the array by a node's: now, or at the end of the running trace."""
        if state.trace is not None:
            state.trace.write(self, node)
        else:
            self.write(node.value)


# ---------------------------------------------------------------------------------------------- scopes


class scope:
    """Context in which new nodes belong to a new scope.

    >>> with scope("softmax", "function") as inner:
    ...     inner.path
    'softmax'
    """

    __slots__ = ("_opened", "_outer")

    def __init__(self, name: str, kind: str) -> None:
        outer = state.scope
        origin = None
        if kind == "function":
            origin = outer.origin if outer is not None and outer.origin is not None else find_origin(2)
        self._outer = outer
        self._opened = Scope(name, kind, outer, _next_call(), origin)

    def __enter__(self) -> Scope:
        state.scope = self._opened
        return self._opened

    def __exit__(self, *_: object) -> None:
        state.scope = self._outer


# ------------------------------------------------------------------------------------------------ walks


def topological(roots: Iterable[Node], follow: Callable[[Node], bool] | None = None) -> list[Node]:
    """Every node that `roots` depend on, operands first; `follow` says whose operands are looked at."""
    return sorted(_reached(roots, follow), key=_serial)


def _reached(roots: Iterable[Node], follow: Callable[[Node], bool] | None = None) -> set[Node]:
    """Every node that `roots` depend on."""
    seen: set[Node] = set()
    pending = list(roots)
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if follow is None or follow(node):
            pending.extend(node.inputs)
    return seen


_serial = operator.attrgetter("serial")


# --------------------------------------------------------------------------------------- closed graphs


@dataclass(eq=False, slots=True)
class Check:
    """A condition that must hold before anything is written: a bool node and what to say if it fails.

    `{low}` and `{high}` in the message stand for the range of `subject`, looked up when it has failed. `cell`: whose
    gradient the subject is.
    """

    condition: Node
    message: str
    origin: Origin | None
    error: type[ChainruleError] = BoundsError
    subject: Node | None = None
    cell: Cell | None = None


Slot = tuple[Cell, str]
"""Part of a cell that a graph reads or writes: (cell, "array") or (cell, "grad")."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Graph:
    """A closed piece of computation: every source is an input, a read or a constant.

    `reads` and `writes` name the parts of cells; a write of None clears a gradient.
    """

    name: str
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    reads: dict[Slot, Node] = field(default_factory=dict)
    writes: dict[Slot, Node | None] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def roots(self) -> tuple[Node, ...]:
        """Everything that must be computed: outputs, written values, conditions."""
        written = (node for node in self.writes.values() if node is not None)
        return (*self.outputs, *written, *(check.condition for check in self.checks))

    @property
    def sources(self) -> tuple[Node, ...]:
        """Nodes whose arrays are given from outside: the inputs, then what is read from cells."""
        return (*self.inputs, *self.reads.values())

    def nodes(self) -> list[Node]:
        """All nodes in topological order, the sources included."""
        return sorted(_reached(self.roots).union(self.sources), key=_serial)

    def __str__(self) -> str:
        return "\n".join(print_graph(self))


def evaluate(graph: Graph, sources: Sequence[Any], namespace: Any) -> tuple[Any, ...]:
    """Values of `graph.roots`, computed operation by operation over `namespace`.

    This is the interpreter that everything compiled is compared with (`ops.NUMPY` as namespace); with
    another array library in its place it is another backend. A value is dropped after its last use.
    """
    values: dict[Node, Any] = dict(zip(graph.sources, sources, strict=True))
    nodes = topological(graph.roots, follow=lambda node: node not in values)
    uses = Counter(itertools.chain(graph.roots, *(node.inputs for node in nodes)))
    for node in nodes:
        if node in values:
            continue
        if not node.inputs:
            values[node] = node.value
            continue
        operands = [values[operand] for operand in node.inputs]
        values[node] = node.operation.body(namespace, *operands, **node.attributes)
        for operand in node.inputs:
            uses[operand] -= 1
            if not uses[operand]:
                values.pop(operand, None)
    return tuple(values[root] for root in graph.roots)


# ------------------------------------------------------------------------------------ printer, verifier


class Names:
    """Short, stable names for nodes: a cell's own name, otherwise `%1`, `%2` … in order of appearance."""

    _SCALAR: ClassVar[int] = 1

    def __init__(self) -> None:
        self._names: dict[Node, str] = {}
        self._taken: set[str] = set()
        self._count = 0

    def __getitem__(self, node: Node) -> str:
        if node not in self._names:
            self._names[node] = self._choose(node)
        return self._names[node]

    def _choose(self, node: Node) -> str:
        value = node._value
        if node.operation is CONSTANT and isinstance(value, np.ndarray) and value.size == self._SCALAR:
            return repr(value.item()) if value.ndim == 0 else f"{value.tolist()}"
        name = node.cell.name if node.cell is not None else None
        if name and name not in self._taken:
            self._taken.add(name)
            return name
        self._count += 1
        return f"%{self._count}"


def names_of(graph: Graph) -> Names:
    """The names under which the graph is printed."""
    names = Names()
    for node in (*graph.inputs, *graph.nodes()):
        names[node]
    return names


def print_graph(graph: Graph, names: Names | None = None) -> Iterator[str]:
    """The graph as text, one node a line: name = operation(operands), type, scope, the user's line."""
    names = names or Names()
    given = ", ".join(f"{names[node]}: {node.type}" for node in graph.inputs)
    yield f"graph {graph.name}({given})"
    slots = {node: slot for slot, node in graph.reads.items()}
    rows: list[tuple[str, str, str]] = []
    for node in graph.nodes():
        scalar = node.operation is CONSTANT and not names[node].startswith("%")
        if node in graph.inputs or scalar:
            continue
        text = f"{names[node]} = {describe(node, names)}"
        if node in slots:
            text = f"{names[node]} = read({slots[node][0].name or 'cell'}.{slots[node][1]})"
        notes = [node.scope.path] if node.scope is not None else []
        notes += ["gradient"] if node.gradient_of is not None else []
        notes += [str(node.origin)] if node.origin is not None else []
        rows.append((text, " ".join(map(str, node.types)), "  ".join(notes)))
    width = max((len(row[0]) for row in rows), default=0)
    middle = max((len(row[1]) for row in rows), default=0)
    for text, types, note in rows:
        yield f"  {text:<{width}}  {types:<{middle}}  {note}".rstrip()
    for (cell, part), written in graph.writes.items():
        yield f"  write {cell.name or 'cell'}.{part} ← {names[written] if written is not None else None}"
    for check in graph.checks:
        yield f"  check {names[check.condition]}: {check.message}"
    yield f"  return {', '.join(names[node] for node in graph.outputs)}"


def describe(node: Node, names: Names) -> str:
    """`multiply(%1, w)` with attributes, as the printer shows it."""
    parts = [names[operand] for operand in node.inputs]
    for name, value in node.attributes.items():
        shown = f"<graph of {len(value.nodes())} nodes>" if isinstance(value, Graph) else repr(value)
        parts.append(f"{name}={shown}")
    if node.operation is CONSTANT:
        return f"constant {node.type}"
    return f"{node.operation.name}({', '.join(parts)})" if parts else node.operation.name


def refuse_left(graph: Graph, source: Node) -> None:
    """A value that has left the function in which it stood for a number, as that of a scan, is told at its line."""
    readers = [node for node in graph.nodes() if source in node.inputs and node.origin is not None]
    if source.operation is INPUT and readers:
        raise TraceError(
            f"a value of a function that is recorded by itself, as that of scan, stays in it; got {readers[0].type} "
            f"{readers[0].operation.name} used outside. Return it as part of y",
            readers[0].origin,
        )


def verify(graph: Graph) -> Graph:
    """Return the graph, or raise GraphError: closed, well typed, operands before their nodes."""
    sources = set(graph.sources)
    for node in graph.nodes():
        if not node.inputs:
            if node not in sources and node.value is None:
                refuse_left(graph, node)
                raise GraphError(f"{graph.name}: {node!r} is used but is no input, read or constant")
            continue
        if node in sources:
            continue
        for operand in node.inputs:
            if operand.serial >= node.serial:
                raise GraphError(f"{graph.name}: {node!r} comes before its operand {operand!r}")
        derived = node.operation.types(*operand_types(node.inputs), **node.attributes)
        if derived != node.types:
            raise GraphError(
                f"{graph.name}: {node!r} states {', '.join(map(str, node.types))}; "
                f"its rule gives {', '.join(map(str, derived))}"
            )
    for (cell, part), written in graph.writes.items():
        if written is not None and written.type != cell.type:
            raise GraphError(f"{cell.name}.{part} is {cell.type}; {written.type} would be written")
    return graph
