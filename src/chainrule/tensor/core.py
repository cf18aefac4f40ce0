"""The user's Tensor: a handle on a node or a cell, with operators, `backward`, and NumPy's protocols.

Handles never share storage: `+=` and `x[i] = v` point this handle at a new node and reach no other.
Knows nothing of modules, optimizers or compilation.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import ops
from ..autodiff import gradients
from ..dtypes import Dtype, as_dtype
from ..errors import (
    DtypeError,
    GradientError,
    GraphRetainedWarning,
    ShapeError,
    TraceError,
    at,
)
from ..graph import CONSTANT, OPERATIONS, Attributes, Cell, Node, Operation, constant, state
from . import dispatch

# Graphs from one line that may be alive at the same time before the line is named in a warning.
RETAINED_GRAPHS_LIMIT = 1000


class Tensor:
    """An n-dimensional array that remembers how it was computed.

    Made by `tensor`, `zeros`, … or as the result of operations. Shapes are tuples of int, dtypes are
    NumPy's. After `y.backward()` every tensor still held that `y` depends on has its `.grad`.

    >>> import chainrule as cr
    >>> w = cr.tensor([1.0, 2.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> w.grad
    tensor([2., 4.])
    """

    __slots__ = ("__weakref__", "_cell", "_grad", "_node")
    __array_priority__ = 100
    __hash__ = object.__hash__

    def __init__(self, data: Any, dtype: DTypeLike | None = None, requires_grad: bool = False) -> None:
        array = dispatch.to_array(data.numpy() if isinstance(data, Tensor) else data, _dtype(dtype))
        self._grad: Tensor | None = None
        self._node: Node | None = None
        self._cell: Cell | None = None
        if requires_grad:
            self._cell = Cell(_differentiable(array), requires_grad=True)
        else:
            self._node = Node(CONSTANT, value=array)

    # ------------------------------------------------------------------------------- what it is

    @property
    def node(self) -> Node:
        """The graph node that this tensor stands for now."""
        if self._cell is not None:
            return self._cell.read()
        assert self._node is not None
        return self._node

    @property
    def cell(self) -> Cell | None:
        """The mutable cell behind a parameter, buffer or other leaf; None for a result."""
        return self._cell

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return self._cell.array.shape if self._cell is not None else self.node.shape

    @property
    def dtype(self) -> Dtype:
        """Data type of the elements."""
        return self._cell.array.dtype if self._cell is not None else self.node.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=object)) if self.shape else 1

    @property
    def device(self) -> str:
        """Where the elements live: always "cpu"."""
        return "cpu"

    def to_device(self, device: str, /, *, stream: None = None) -> Tensor:
        """This tensor; the only device is "cpu"."""
        if device != "cpu":
            raise DtypeError(f"the only device is 'cpu'; got {device!r}")
        return self

    @property
    def is_leaf(self) -> bool:
        """True if no recorded operation made this tensor."""
        return self._cell is not None or not self.node.inputs

    @property
    def requires_grad(self) -> bool:
        """Whether `backward` computes a gradient for this tensor."""
        return self._cell.requires_grad if self._cell is not None else self.node.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self._cell is not None:
            _differentiable(self._cell.array)
            self._cell.requires_grad = bool(value)
        elif value and not self.requires_grad:
            self._cell = Cell(_differentiable(self.numpy()), requires_grad=True)
            self._node = None
        elif not value and self.requires_grad:
            raise GradientError("requires_grad can be switched off on leaves only. Use detach()")

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad` and return this tensor. Raises DtypeError unless it holds floats."""
        self.requires_grad = requires_grad
        return self

    @property
    def grad(self) -> Tensor | None:
        """∂(what `backward` was called on)/∂(this), in this tensor's shape; None before. Calls add up."""
        if self._cell is None:
            return self._grad
        if state.trace is not None:
            node = state.trace.read_grad(self._cell)
            return None if node is None else wrap(node)
        grad: Tensor | None = self._cell.grad
        return grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and (value.shape != self.shape or value.dtype != self.dtype):
            raise ShapeError(
                f"a gradient has its tensor's type, {self.dtype.name}{self.shape}; "
                f"got {value.dtype.name}{value.shape}"
            )
        if self._cell is None:
            self._grad = value
        elif state.trace is not None:
            state.trace.write_grad(self._cell, None if value is None else value.node)
        else:
            self._cell.grad = value

    # ------------------------------------------------------------------------------- to Python

    def _array(self) -> NDArray[Any]:
        value = self._cell.array if self._cell is not None and state.trace is None else self.node.value
        if value is None:
            node = self.node
            made = f" (made at {node.origin})" if node.origin is not None else ""
            raise TraceError(
                f"inside cr.compile a tensor has no numbers yet; got Traced {node.type} "
                f"{node.operation.name}{made}. Return it from the step, use cr.where instead of if, or set "
                "CHAINRULE_COMPILE=0 to run eagerly"
            )
        result: NDArray[Any] = value
        return result

    def numpy(self) -> NDArray[Any]:
        """A copy as a NumPy array. Raises GradientError if that would cut a gradient: use `detach()` first."""
        if self.requires_grad and not self.is_leaf and state.grad_enabled:
            raise GradientError(
                f"numpy() would cut this tensor from its gradient; got {self.dtype.name}{self.shape} "
                "that requires grad. Use .detach().numpy()"
            )
        return self._array().copy()

    def item(self) -> bool | int | float:
        """The only element, as a Python number. Raises ShapeError if there are more."""
        if self.size != 1:
            raise ShapeError(f"item() needs exactly one element; got shape {self.shape}. Use tolist()")
        result: bool | int | float = self._array().item()
        return result

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self._array().tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(
                f"the truth of {self.size} elements is not defined; got shape {self.shape}. Use all() or any()"
            )
        return bool(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise DtypeError(f"an index must be a whole number; got {self.dtype.name}. Use astype(int64)")
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(float(self))

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("len() needs at least one axis; got a tensor of shape ()")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[k] for k in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    # ------------------------------------------------------------------------------- gradients

    def backward(
        self,
        gradient: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Sequence[Tensor] | None = None,
    ) -> None:
        """Compute the gradient of this tensor for everything that it depends on, by the chain rule.

        gradient: ∂L/∂(this), of this tensor's shape and dtype; 1 for a tensor of one element.
        create_graph: the gradients can be differentiated again.
        inputs: add to the `.grad` of these only.
        retain_graph: accepted for PyTorch's sake; a graph lives as long as somebody holds it.
        Raises GradientError if this tensor requires no grad, or has several elements and no `gradient`.
        """
        node = self.node
        if not node.requires_grad:
            raise GradientError(
                f"backward() needs a tensor that depends on one with requires_grad=True; got "
                f"{node.dtype.name}{node.shape} without. Were the inputs detached, or was this under no_grad?"
            )
        as_nodes = create_graph or state.trace is not None
        seed = self._seed(node, gradient)
        only = None if inputs is None else {one.node for one in inputs}

        def deposit(reached: Node, g: Any) -> None:
            if only is None or reached in only:
                _deposit(reached, g, as_nodes)

        recording, state.grad_enabled = state.grad_enabled, create_graph
        try:
            gradients([node], [seed if as_nodes else seed.value], as_nodes=as_nodes, visit=deposit)
        finally:
            state.grad_enabled = recording
        if state.trace is None:
            _watch(node)

    def _seed(self, node: Node, gradient: Any) -> Node:
        if gradient is None:
            if self.size != 1:
                raise GradientError(
                    f"backward() needs one number to start from; got shape {self.shape}. Use .sum() or "
                    ".mean(), or pass gradient= of that shape"
                )
            return constant(np.ones(node.shape, node.dtype))
        given = as_tensor(gradient, node.dtype)
        if given.shape != node.shape:
            raise ShapeError(f"gradient= needs the tensor's shape {node.shape}; got {given.shape}")
        return dispatch.astype(given.node, node.dtype)

    def detach(self) -> Tensor:
        """The same values as a constant: no gradient passes."""
        if state.trace is not None and self.node.value is None:
            return wrap(ops.stop_gradient.node((self.node,), {}))
        return wrap(Node(CONSTANT, value=self._array()))

    def clone(self) -> Tensor:
        """A tensor of its own with the same values; gradients pass through."""
        return wrap(ops.positive.node((self.node,), {}))

    # ------------------------------------------------------------------------------- in place

    def _assign(self, name: str, result: Tensor) -> Tensor:
        """Point this handle at `result`; on a cell, put a new array into the cell."""
        self._refuse_leaf(name)
        if result.shape != self.shape:
            raise ShapeError(f"{name} keeps the shape; got {self.shape} and {result.shape} afterwards")
        node = result.node
        if node.dtype != self.dtype:
            if node.dtype.kind == "f" and self.dtype.kind != "f":
                raise DtypeError(
                    f"{name} keeps the dtype; got {self.dtype.name} and {node.dtype.name}. Use astype first"
                )
            node = dispatch.astype(node, self.dtype)
        if self._cell is not None:
            self._cell.write_node(node)
            return self
        old = self._node
        if old is not None and old.holder is not None and old.holder() is self:
            old.holder = None
        self._node = node
        if node.requires_grad:
            node.holder = weakref.ref(self)
        return self

    def _refuse_leaf(self, name: str) -> None:
        if self._cell is not None and self._cell.requires_grad and state.grad_enabled:
            raise GradientError(
                f"{name} would change a leaf that requires grad; got {self._cell.name or 'a tensor'} of shape "
                f"{self.shape}. Use cr.no_grad(), or compute a new tensor"
            )

    def copy_(self, source: Any) -> Tensor:
        """Take over the values of `source` (broadcast to this shape). Leaves that require grad: under no_grad."""
        given = as_tensor(source, self.dtype)
        return self._assign("copy_", wrap(dispatch.expand(given.node, self.shape)))

    # ------------------------------------------------------------------------------- protocols

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if self.requires_grad:
            raise GradientError(
                f"NumPy would cut this tensor from its gradient; got {self.dtype.name}{self.shape} that "
                "requires grad. Use .detach().numpy()"
            )
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        op = OPERATIONS.get(_UFUNCS.get(ufunc.__name__, ufunc.__name__))
        if method == "__call__" and not keywords:
            if ufunc.__name__ == "matmul":
                return as_tensor(inputs[0]) @ as_tensor(inputs[1])
            if isinstance(op, ops.Elementwise):
                return elementwise(op, *inputs)
        return NotImplemented

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return sys.modules[__name__.partition(".")[0]]  # the whole package, which stands above this room

    def __apply__(self, operation: Operation, operands: tuple[Any, ...], attributes: Attributes) -> Tensor:
        nodes = tuple(one.node if isinstance(one, Tensor) else one for one in operands)
        return wrap(operation.on_nodes(nodes, attributes))  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        node = self.node
        if node.value is None:
            return f"Traced {node.type} {node.operation.name}{at(node.origin)}"
        text = np.array2string(node.value, separator=", ", prefix="tensor(", threshold=100, edgeitems=3)
        notes = "" if node.dtype.name in ("float32", "int64", "bool") else f", dtype={node.dtype.name}"
        if self._cell is not None and self._cell.requires_grad:
            notes += ", requires_grad=True"
        elif node.requires_grad:
            notes += f", from {node.operation.name}"
        return f"tensor({text}{notes})"

    def _repr_html_(self) -> str:
        value = self.node.value
        head = f"Tensor {self.node.type}" + (" · requires grad" if self.requires_grad else "")
        if value is None or not 1 <= value.ndim <= 2 or value.size > 100:
            return f"<pre>{head}\n{_escape(repr(self))}</pre>"
        rows = "".join(
            "<tr>" + "".join(f"<td style='text-align:right'>{number:.6g}</td>" for number in row) + "</tr>"
            for row in np.atleast_2d(value)
        )
        return f"<table><caption>{head}</caption>{rows}</table>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._cell is None and self.requires_grad:
            raise GradientError("only leaves can be deep-copied; got a result with a history. Use .detach()")
        copy = type(self).__new__(type(self))
        copy._grad = None
        copy._node = None if self._cell is not None else Node(CONSTANT, value=self._array())
        copy._cell = None
        if self._cell is not None:
            own = self._cell
            copy._cell = Cell(own.array, own.requires_grad, own.kind, own.name)
        memo[id(self)] = copy
        return copy

    def __reduce__(self) -> Any:
        raise DtypeError("tensors are not pickled: pickles run code when loaded. Use cr.save, or .numpy()")

    # ------------------------------------------------------------------------------- operators

    def __add__(self, other: Any) -> Tensor:
        return elementwise(ops.add, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return elementwise(ops.add, other, self)

    def __iadd__(self, other: Any) -> Tensor:
        return self._assign("+=", elementwise(ops.add, self, other))

    def __sub__(self, other: Any) -> Tensor:
        return elementwise(ops.subtract, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return elementwise(ops.subtract, other, self)

    def __isub__(self, other: Any) -> Tensor:
        return self._assign("-=", elementwise(ops.subtract, self, other))

    def __mul__(self, other: Any) -> Tensor:
        return elementwise(ops.multiply, self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return elementwise(ops.multiply, other, self)

    def __imul__(self, other: Any) -> Tensor:
        return self._assign("*=", elementwise(ops.multiply, self, other))

    def __truediv__(self, other: Any) -> Tensor:
        return elementwise(ops.divide, self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return elementwise(ops.divide, other, self)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._assign("/=", elementwise(ops.divide, self, other))

    def __floordiv__(self, other: Any) -> Tensor:
        return elementwise(ops.floor_divide, self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return elementwise(ops.floor_divide, other, self)

    def __mod__(self, other: Any) -> Tensor:
        return elementwise(ops.remainder, self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return elementwise(ops.remainder, other, self)

    def __pow__(self, other: Any) -> Tensor:
        if isinstance(other, int | float) and other == 2:
            return elementwise(ops.square, self)
        return elementwise(ops.pow_, self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return elementwise(ops.pow_, other, self)

    def __ipow__(self, other: Any) -> Tensor:
        return self._assign("**=", self**other)

    def __neg__(self) -> Tensor:
        return elementwise(ops.negative, self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return elementwise(ops.abs_, self)

    def __invert__(self) -> Tensor:
        return elementwise(ops.bitwise_invert, self)

    def __and__(self, other: Any) -> Tensor:
        return elementwise(ops.bitwise_and, self, other)

    def __rand__(self, other: Any) -> Tensor:
        return elementwise(ops.bitwise_and, other, self)

    def __or__(self, other: Any) -> Tensor:
        return elementwise(ops.bitwise_or, self, other)

    def __ror__(self, other: Any) -> Tensor:
        return elementwise(ops.bitwise_or, other, self)

    def __xor__(self, other: Any) -> Tensor:
        return elementwise(ops.bitwise_xor, self, other)

    def __rxor__(self, other: Any) -> Tensor:
        return elementwise(ops.bitwise_xor, other, self)

    def __lshift__(self, other: Any) -> Tensor:
        return elementwise(ops.bitwise_left_shift, self, other)

    def __rshift__(self, other: Any) -> Tensor:
        return elementwise(ops.bitwise_right_shift, self, other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return elementwise(ops.equal, self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return elementwise(ops.not_equal, self, other)

    def __lt__(self, other: Any) -> Tensor:
        return elementwise(ops.less, self, other)

    def __le__(self, other: Any) -> Tensor:
        return elementwise(ops.less_equal, self, other)

    def __gt__(self, other: Any) -> Tensor:
        return elementwise(ops.greater, self, other)

    def __ge__(self, other: Any) -> Tensor:
        return elementwise(ops.greater_equal, self, other)

    # Filled by `methods`, from the functions of the same names.
    __matmul__: ClassVar[Callable[..., Tensor]]
    __rmatmul__: ClassVar[Callable[..., Tensor]]
    __getitem__: ClassVar[Callable[..., Tensor]]
    __setitem__: ClassVar[Callable[..., None]]
    T: ClassVar[Any]
    mT: ClassVar[Any]
    abs: ClassVar[Callable[..., Tensor]]
    all: ClassVar[Callable[..., Tensor]]
    any: ClassVar[Callable[..., Tensor]]
    argmax: ClassVar[Callable[..., Tensor]]
    argmin: ClassVar[Callable[..., Tensor]]
    astype: ClassVar[Callable[..., Tensor]]
    clip: ClassVar[Callable[..., Tensor]]
    cos: ClassVar[Callable[..., Tensor]]
    exp: ClassVar[Callable[..., Tensor]]
    flatten: ClassVar[Callable[..., Tensor]]
    log: ClassVar[Callable[..., Tensor]]
    max: ClassVar[Callable[..., Tensor]]
    mean: ClassVar[Callable[..., Tensor]]
    min: ClassVar[Callable[..., Tensor]]
    permute_dims: ClassVar[Callable[..., Tensor]]
    prod: ClassVar[Callable[..., Tensor]]
    relu: ClassVar[Callable[..., Tensor]]
    reshape: ClassVar[Callable[..., Tensor]]
    sigmoid: ClassVar[Callable[..., Tensor]]
    sin: ClassVar[Callable[..., Tensor]]
    sqrt: ClassVar[Callable[..., Tensor]]
    squeeze: ClassVar[Callable[..., Tensor]]
    std: ClassVar[Callable[..., Tensor]]
    sum: ClassVar[Callable[..., Tensor]]
    tanh: ClassVar[Callable[..., Tensor]]
    var: ClassVar[Callable[..., Tensor]]


_UFUNCS = {
    "absolute": "abs", "fabs": "abs", "power": "pow", "true_divide": "divide", "rint": "round",
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2", "arcsinh": "asinh",
    "arccosh": "acosh", "arctanh": "atanh", "invert": "bitwise_invert", "mod": "remainder",
    "left_shift": "bitwise_left_shift", "right_shift": "bitwise_right_shift",
}  # fmt: skip


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _dtype(dtype: DTypeLike | None) -> Dtype | None:
    return None if dtype is None else as_dtype(dtype)


def _differentiable(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind != "f":
        raise DtypeError(
            f"only floats have gradients; got {array.dtype.name} with requires_grad=True. Write 1.0 instead "
            "of 1, or dtype=cr.float32"
        )
    return array


def wrap(node: Node) -> Tensor:
    """A handle on a node."""
    handle = Tensor.__new__(Tensor)
    handle._node = node
    handle._cell = None
    handle._grad = None
    if node.requires_grad:
        node.holder = weakref.ref(handle)
    return handle


def as_tensor(data: Any, dtype: Dtype | None = None) -> Tensor:
    """The tensor itself, or one made of `data`."""
    return data if isinstance(data, Tensor) else Tensor(data, dtype)


def as_operand(data: Any) -> Any:
    """A node, or a Python number (which takes the dtype of what stands beside it)."""
    if isinstance(data, Tensor):
        return data.node
    if isinstance(data, bool | int | float) and not isinstance(data, np.generic):
        return data
    return Node(CONSTANT, value=dispatch.to_array(data))


def elementwise(op: ops.Elementwise, *operands: Any) -> Tensor:
    """Apply an elementwise operation to tensors, arrays and numbers, with promotion and broadcasting."""
    return wrap(dispatch.elementwise(op, [as_operand(operand) for operand in operands]))


# ------------------------------------------------------------------------------- gradients arrive here


def _deposit(node: Node, g: Any, as_nodes: bool) -> None:
    """Add a cotangent to the `.grad` of the leaf or of the held tensor that the node belongs to."""
    if node.cell is not None:
        if node.cell.requires_grad:
            _deposit_in_cell(node.cell, g, as_nodes)
    elif node.holder is not None:
        handle = node.holder()
        if handle is not None:
            arrived = wrap(g) if as_nodes else wrap(Node(CONSTANT, value=np.asarray(g)))
            handle._grad = arrived if handle._grad is None else handle._grad + arrived


def _deposit_in_cell(cell: Cell, g: Any, as_nodes: bool) -> None:
    if state.trace is not None:
        present = state.trace.read_grad(cell)
        state.trace.write_grad(cell, g if present is None else ops.add(present, g))
        return
    if not as_nodes and (cell.grad is None or not cell.grad.requires_grad):
        value = g if cell.grad is None else cell.grad._array() + g
        cell.grad = wrap(Node(CONSTANT, value=np.asarray(value)))
        return
    arrived = wrap(g if as_nodes else constant(g))
    cell.grad = arrived if cell.grad is None else cell.grad + arrived


_retained: dict[tuple[int, int], weakref.WeakSet[Node]] = {}


def _watch(root: Node) -> None:
    """Warn once per line when many graphs that started there are kept alive."""
    if root.origin is None:
        return
    alive = _retained.setdefault((id(root.origin.code), root.origin.lasti), weakref.WeakSet())
    alive.add(root)
    if len(alive) == RETAINED_GRAPHS_LIMIT:
        warnings.warn_explicit(
            f"{RETAINED_GRAPHS_LIMIT} results of this line are still held together with the graphs that made "
            f"them, so memory grows{at(root.origin)}. Keep loss.item() or loss.detach() instead",
            GraphRetainedWarning,
            root.origin.file,
            root.origin.line,
        )
