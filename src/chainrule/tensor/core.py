"""The user's Tensor: a handle on a node or a cell, with operators, `backward`, and NumPy's protocols.

Handles never share storage: `+=` and `x[i] = v` point this handle at a new node and reach no other.
Knows nothing of modules, optimizers or compilation.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import ops
from ..dtypes import Dtype, as_dtype, of_python
from ..errors import (
    ArgumentError,
    DtypeError,
    GradientError,
    NoAxisError,
    ShapeError,
    SharingError,
    TraceError,
)
from ..graph import Cell, Node, Trace, state
from ..operations import CONSTANT, Attributes, Operation
from ..structure import bump_structure
from . import dispatch, display
from .operators import Operators


class Tensor(Operators):
    """An n-dimensional array that remembers how it was computed.

    Made by `tensor`, `zeros`, … or as the result of operations. Shapes are tuples of int, dtypes are
    NumPy's. After `y.backward()` every tensor still held that `y` depends on has its `.grad`.

    >>> import chainrule as cr
    >>> w = cr.tensor([1.0, 2.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> w.grad
    tensor([2., 4.])
    """

    # _lost is set on what a compiled step returns whose gradient it has computed and not kept.
    __slots__ = ("__weakref__", "_cell", "_grad", "_lost", "_node")
    __array_priority__ = 100

    def __init__(self, data: Any, dtype: DTypeLike | None = None, requires_grad: bool = False) -> None:
        self._grad: Tensor | None = None
        self._node: Node | None = None
        self._cell: Cell | None = None
        if issubclass(type(data), dispatch.Weak):  # a number that a compiled step does not know yet
            self._node = dispatch.number(data, _dtype(dtype) or of_python(data))
            if requires_grad:
                self._require_grad_traced(True)
            return
        array = dispatch.to_array(data.numpy() if isinstance(data, Tensor) else data, _dtype(dtype))
        if requires_grad:
            self._cell = Cell(_differentiable(array), requires_grad=True)
        else:
            self._node = Node(CONSTANT, value=array)

    # ------------------------------------------------------------------------------- what it is

    @property
    def node(self) -> Node:
        """The graph node that this tensor stands for now."""
        node = self._node
        if node is not None:
            return node
        assert self._cell is not None
        return self._cell.read()

    @property
    def cell(self) -> Cell | None:
        """The mutable cell behind a parameter, buffer or other leaf; None for a result."""
        return self._cell

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        node = self._node
        if node is None:
            return self._array_of_cell().shape
        value = node._value
        return value.shape if type(value) is np.ndarray else node.shape

    @property
    def dtype(self) -> Dtype:
        """Data type of the elements."""
        node = self._node
        if node is None:
            return self._array_of_cell().dtype
        value = node._value
        return value.dtype if type(value) is np.ndarray else node.dtype

    def _array_of_cell(self) -> NDArray[Any]:
        assert self._cell is not None
        array: NDArray[Any] = self._cell._array
        return array

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def device(self) -> str:
        """Where the elements live: always "cpu"."""
        return "cpu"

    def to_device(self, device: str, /, *, stream: None = None) -> Tensor:
        """This tensor; the only device is "cpu"."""
        if device != "cpu":
            raise ArgumentError(f"the only device is 'cpu'; got {device!r}. Leave it out")
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
        if state.trace is not None and self.node.value is None:
            self._require_grad_traced(bool(value))
        elif self._cell is not None:
            _differentiable(self._cell.array)
            before, self._cell.requires_grad = self._cell.requires_grad, bool(value)
            bump_structure(self._cell, f"{self._cell.name or 'a tensor'}.requires_grad", before, bool(value))
        elif value and not self.requires_grad:
            self._cell = Cell(_differentiable(self.numpy()), requires_grad=True)
            self._node = None
        elif not value and self.requires_grad:
            raise GradientError("requires_grad can be switched off on leaves only. Use detach()")

    def _require_grad_traced(self, value: bool) -> None:
        """The same while a step is recorded: what becomes of it is written when the step has run."""
        trace = state.trace
        assert trace is not None
        if self.dtype.kind != "f":
            _differentiable(np.empty(0, self.dtype))
        if self._cell is not None:
            trace.require_grad(self._cell, value)
        elif value and not self.requires_grad:
            self._cell, self._node = trace.make_leaf(self.node), None
        elif not value and self.requires_grad:
            raise GradientError("requires_grad can be switched off on leaves only. Use detach()")

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad` and return this tensor. Raises DtypeError unless it holds floats."""
        self.requires_grad = requires_grad
        return self

    @property
    def grad(self) -> Tensor | None:
        """∂(what `backward` was called on)/∂(this), in this tensor's shape; None before. Calls add up.

        Raises GradientError for the result of a compiled step that has called `backward`: only what it keeps in
        places of the user's has its gradient outside.
        """
        if self._cell is None:
            if self._grad is None and getattr(self, "_lost", False):
                raise GradientError(
                    "a compiled step leaves the gradients of its results inside; got .grad of one. Return it from the "
                    "step beside the result (return y, y.grad), or set .grad = None here"
                )
            return self._grad
        if state.trace is not None:
            traced: Tensor | None = state.trace.gradient(self._cell, wrap)
            return traced
        grad: Tensor | None = self._cell.grad
        return grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and not isinstance(value, Tensor):
            raise DtypeError(f"a gradient is a tensor or None; got {type(value).__name__}. Use cr.tensor(…)")
        if value is not None and (value.shape != self.shape or value.dtype != self.dtype):
            raise ShapeError(
                f"a gradient has its tensor's type, {self.dtype.name}{self.shape}; "
                f"got {value.dtype.name}{value.shape}. Reshape it, or use astype"
            )
        if self._cell is None:
            self._grad = value
            self._lost = False
        elif state.trace is not None:
            state.trace.set_gradient(self._cell, value)
        else:
            self._cell.grad = value

    # ------------------------------------------------------------------------------- to Python

    def _array(self) -> NDArray[Any]:
        value = self._cell.array if self._cell is not None and state.trace is None else self.node.value
        if value is None:
            node = self.node
            made = f" (made at {node.origin})" if node.origin is not None else ""
            trace = state.trace or Trace
            if state.trace is not None and (value := state.trace.force(node)) is not None:
                forced: NDArray[Any] = value
                return forced
            number.refuse(
                node,
                f"{trace.place} a tensor has no numbers yet; got Traced {node.type} {node.operation.name}{made}. "
                f"{trace.advice}",
            )
        result: NDArray[Any] = value
        return result

    def numpy(self) -> NDArray[Any]:
        """A copy as a NumPy array. Raises GradientError if that would cut a gradient: use `detach()` first."""
        array = self._array()
        if self.requires_grad and not self.is_leaf and state.grad_enabled:
            raise GradientError(
                f"numpy() would cut this tensor from its gradient; got {self.dtype.name}{self.shape} "
                "that requires grad. Use .detach().numpy()"
            )
        return array.copy()

    def item(self) -> bool | int | float:
        """The only element, as a Python number. Raises ShapeError if there are more."""
        if self.size != 1:
            raise ShapeError(f"item() needs exactly one element; got shape {self.shape}. Use tolist()")
        if state.trace is not None and state.trace.delivers and self.node.value is None:
            return number.number_of(self.node)  # type: ignore[return-value]
        result: bool | int | float = self._array().item()
        return result

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self._array().tolist()

    def __float__(self) -> float:
        return float(self._only())

    def _only(self) -> Any:
        """The only element, known now."""
        if self.size != 1:
            raise ShapeError(f"item() needs exactly one element; got shape {self.shape}. Use tolist()")
        return self._array().item()

    def __int__(self) -> int:
        value = self._only()
        if not math.isfinite(value):
            raise ArgumentError(
                f"no whole number stands for {value}; got it from int(tensor). Use isfinite first"
            )
        return int(value)

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(
                f"the truth of {self.size} elements is not defined; got shape {self.shape}. Use all() or any()"
            )
        if state.trace is not None and self.node.value is None:
            decided: bool | None = state.trace.decide(dispatch.astype(self.node, np.dtype(bool)))
            if decided is not None:
                return decided
        return bool(self._only())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise DtypeError(f"an index must be a whole number; got {self.dtype.name}. Use astype(int64)")
        return int(self._only())

    def __complex__(self) -> complex:
        return complex(float(self))

    def __len__(self) -> int:
        if not self.shape:
            raise NoAxisError(
                "len() needs at least one axis; got a tensor of shape (). Use x[None] or x.item()"
            )
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise NoAxisError(
                "iteration needs at least one axis; got a tensor of shape (). Use x[None] or x.item()"
            )
        return (self[k] for k in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool((self == value)._array().any())

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
        arrival.backward(self, gradient, create_graph, inputs)

    def detach(self) -> Tensor:
        """The same values as a constant: no gradient passes."""
        if state.trace is not None and self.node.value is None:
            cut: Node = ops.stop_gradient.node((self.node,), {})
            cut.requires_grad = False
            return wrap(cut)
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
            if not np.can_cast(node.dtype, self.dtype, "same_kind"):
                raise DtypeError(
                    f"{name} keeps the dtype; got {self.dtype.name} and a result of {node.dtype.name}. "
                    "Use astype first, or write x = x … without it"
                )
            node = dispatch.astype(node, self.dtype)
        if self._cell is not None:
            if node.requires_grad and state.grad_enabled:
                raise GradientError(
                    f"{name} would cut a gradient: {self._cell.name or 'this tensor'} keeps numbers without "
                    f"history; got {node.dtype.name}{node.shape} that requires grad. Use .detach()"
                )
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
        given = as_tensor(source)
        try:
            node = dispatch.broadcast(given.node, self.shape)
        except ShapeError:
            raise ShapeError(
                f"copy_ needs values that fit {self.shape}; got {given.shape}. Reshape them"
            ) from None
        # An array of its own: a cell shares with nobody, and the source keeps its handle.
        own = node if node.value is None else ops.positive.record((node,), {}, np.array(node.value))
        return self._assign("copy_", wrap(own))

    # ------------------------------------------------------------------------------- protocols

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if self.requires_grad and state.grad_enabled:
            raise GradientError(
                f"NumPy would cut this tensor from its gradient; got {self.dtype.name}{self.shape} that "
                "requires grad. Use .detach().numpy()"
            )
        if copy is False:
            raise SharingError("a tensor's memory is not shared; got copy=False from NumPy. Use copy=None")
        array = self._array().copy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        return interchange.apply_ufunc(ufunc, method, inputs, keywords)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        return interchange.to_dlpack(self, max_version, dl_device, copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # kDLCPU, device 0

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return sys.modules[__name__.partition(".")[0]]  # the whole package, which stands above this room

    def __apply__(self, operation: Operation, operands: tuple[Any, ...], attributes: Attributes) -> Tensor:
        nodes = tuple(one.node if isinstance(one, Tensor) else one for one in operands)
        return wrap(operation.on_nodes(nodes, attributes))  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return display.text(self.node, self._cell is not None)

    def __str__(self) -> str:
        return self._text("")

    def __format__(self, spec: str) -> str:
        return self._text(spec)

    def _text(self, spec: str) -> str:
        """The tensor in a text; with a format the number of a tensor of one element. A compiled step fills it in."""
        if state.trace is not None and state.trace.delivers and self.node.value is None:
            return state.trace.text_of(self, spec)
        if not spec:
            return repr(self)
        if self.size != 1:
            raise ShapeError(
                f"a format such as {spec!r} is for one number; got a tensor of shape {self.shape}"
            )
        return format(self._array().item(), spec)

    def _repr_html_(self) -> str:
        return display.table(self.node, self._cell is not None)

    def __copy__(self) -> Tensor:
        """Another handle: on the same cell, or on a result whose gradient passes through."""
        if self._cell is None:
            return self.clone()
        twin = type(self).__new__(type(self))
        twin._node, twin._cell, twin._grad = None, self._cell, None
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._cell is None and self.requires_grad:
            raise GradientError("only leaves can be deep-copied; got a result with a history. Use .detach()")
        if state.trace is not None:
            if self._cell is None:
                memo[id(self)] = self.detach().clone()
                return memo[id(self)]  # type: ignore[no-any-return]
            raise TraceError(
                "copy.deepcopy in a compiled step would copy numbers that are other ones at each call; got it of a "
                "parameter, a buffer or a leaf. Make the copy before the step, or use .detach().clone()"
            )
        copy = type(self).__new__(type(self))
        copy._grad = None
        copy._node = None if self._cell is not None else Node(CONSTANT, value=self._array())
        copy._cell = None
        memo[id(self)] = copy
        if self._cell is not None:
            own = self._cell
            # A cell owns its array alone, so that whoever updates it need not ask who else reads it.
            copy._cell = Cell(own.array.copy(), own.requires_grad, own.kind, own.name)
            copy._cell.grad = None if own.grad is None else own.grad.detach()
        return copy

    def __reduce__(self) -> Any:
        raise ArgumentError("tensors are not pickled: pickles run code when loaded. Use cr.save, or .numpy()")

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
    index_add: ClassVar[Callable[..., Tensor]]
    index_put: ClassVar[Callable[..., Tensor]]
    log: ClassVar[Callable[..., Tensor]]
    max: ClassVar[Callable[..., Tensor]]
    mean: ClassVar[Callable[..., Tensor]]
    min: ClassVar[Callable[..., Tensor]]
    permute_dims: ClassVar[Callable[..., Tensor]]
    prod: ClassVar[Callable[..., Tensor]]
    register_hook: ClassVar[Callable[..., Any]]
    relu: ClassVar[Callable[..., Tensor]]
    reshape: ClassVar[Callable[..., Tensor]]
    scatter_add: ClassVar[Callable[..., Tensor]]
    sigmoid: ClassVar[Callable[..., Tensor]]
    sin: ClassVar[Callable[..., Tensor]]
    sqrt: ClassVar[Callable[..., Tensor]]
    squeeze: ClassVar[Callable[..., Tensor]]
    std: ClassVar[Callable[..., Tensor]]
    sum: ClassVar[Callable[..., Tensor]]
    tanh: ClassVar[Callable[..., Tensor]]
    var: ClassVar[Callable[..., Tensor]]


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


def of_cell(cell: Cell) -> Tensor:
    """A handle on a cell: it always shows the array that the cell holds."""
    handle = Tensor.__new__(Tensor)
    handle._node = None
    handle._cell = cell
    handle._grad = None
    return handle


def as_tensor(data: Any, dtype: Dtype | None = None) -> Tensor:
    """The tensor itself, or one made of `data`."""
    if isinstance(data, Tensor):
        return data
    try:
        return Tensor(data, dtype)
    except (GradientError, ShapeError):
        if isinstance(data, tuple) and any(isinstance(part, Tensor) for part in data):
            raise DtypeError(_several(data)) from None
        raise


def _several(parts: tuple[Any, ...]) -> str:
    """A layer that gives its state too, in a place for one tensor: what came, and how to take the first of it."""
    shown = [
        f"{part.dtype.name}{part.shape}" if isinstance(part, Tensor) else f"a {type(part).__name__}"
        for part in parts
    ]
    here = f" in {state.scope.path}" if state.scope is not None else ""
    return (
        f"one tensor is needed{here}; got a tuple of {' and '.join(shown)}. Recurrent layers and attention give "
        "their output and something else: output, _ = layer(x)"
    )


def as_operand(data: Any) -> Any:
    """A node, or a Python number (which takes the dtype of what stands beside it)."""
    if isinstance(data, Tensor):
        return data.node
    if isinstance(data, bool | int | float):  # a TracedNumber says so too
        return data  # numpy.float64 is a Python float too, and as weak: `x / np.sqrt(2)` keeps float32
    if isinstance(data, np.floating):
        return float(data)
    return Node(CONSTANT, value=dispatch.to_array(data))


def elementwise(op: ops.Elementwise, *operands: Any) -> Tensor:
    """Apply an elementwise operation to tensors, arrays and numbers, with promotion and broadcasting."""
    nodes = []
    for operand in operands:
        node = operand._node if isinstance(operand, Tensor) else None
        nodes.append(as_operand(operand) if node is None else node)
    return wrap(dispatch.elementwise(op, nodes))


from . import arrival, interchange, number  # noqa: E402 - they need Tensor, which is complete here
