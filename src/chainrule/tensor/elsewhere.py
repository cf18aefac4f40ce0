"""Everyday names of PyTorch and NumPy that a Tensor lacks, each with what to write here instead.

Descriptors on the class, not `__getattr__`: a class with `__getattr__` reads every attribute more slowly (in
Python 3.11 nearly three times), and these cost nothing until one of the names is asked for.
Knows names and advice; computes nothing.
"""

from __future__ import annotations

from typing import NoReturn

from ..errors import MissingNameError

_FLOATS_ONLY = "tensors hold bool, whole numbers, float32 or float64: use x.astype(cr.float32)"
_ON_CPU = "tensors live in the memory of the CPU: leave it out"
_KEEPS_GRAD = "any tensor still held has its .grad after backward(): leave it out"
_NO_LAYOUT = "tensors have no strides and share no memory: leave it out"

# name → what to write, as the end of "Use …"; a text that starts with "tensors" or "any" stands for itself.
ADVICE = {
    # Shapes. `size` is a number here, as in the array API; `size(0)` cannot be told apart from it.
    "view": "x.reshape(…)",
    "view_as": "x.reshape(y.shape)",
    "reshape_as": "x.reshape(y.shape)",
    "unflatten": "x.reshape(…)",
    "ravel": "x.flatten()",
    "unsqueeze": "cr.expand_dims(x, axis=…)",
    "dim": "x.ndim",
    "numel": "x.size",
    "nelement": "x.size",
    "t": "x.T",
    "permute": "x.permute_dims(…)",
    "transpose": "x.permute_dims(…), or x.mT for the last two axes",
    "swapaxes": "x.permute_dims(…), or cr.moveaxis(x, source, destination)",
    "swapdims": "x.permute_dims(…), or cr.moveaxis(x, source, destination)",
    "movedim": "cr.moveaxis(x, source, destination)",
    "expand": "cr.broadcast_to(x, shape)",
    "expand_as": "cr.broadcast_to(x, y.shape)",
    "repeat": "cr.tile(x, …) for copies of the whole, cr.repeat(x, …) for copies of each entry",
    "repeat_interleave": "cr.repeat(x, …)",
    "unbind": "cr.unstack(x, axis=…)",
    "chunk": "slices, such as x[:n]",
    "split": "slices, such as x[:n]",
    "narrow": "a slice, such as x[:, start:stop]",
    "select": "an index, such as x[:, i]",
    "contiguous": _NO_LAYOUT,
    "is_contiguous": _NO_LAYOUT,
    "stride": _NO_LAYOUT,
    "strides": _NO_LAYOUT,
    # Types and devices.
    "to": "x.astype(dtype); there is one device, the CPU",
    "type": "x.astype(dtype), or x.dtype",
    "type_as": "x.astype(y.dtype)",
    "float": "x.astype(cr.float32)",
    "double": "x.astype(cr.float64)",
    "half": _FLOATS_ONLY,
    "bfloat16": _FLOATS_ONLY,
    "int": "x.astype(cr.int32)",
    "long": "x.astype(cr.int64)",
    "short": "x.astype(cr.int16)",
    "byte": "x.astype(cr.uint8)",
    "bool": "x.astype(cr.bool)",
    "is_floating_point": 'cr.isdtype(x.dtype, "real floating")',
    "cpu": _ON_CPU,
    "cuda": _ON_CPU,
    "is_cuda": _ON_CPU,
    "pin_memory": _ON_CPU,
    "nbytes": "x.numpy().nbytes",
    "element_size": "x.dtype.itemsize",
    "itemsize": "x.dtype.itemsize",
    "new_zeros": "cr.zeros(shape, dtype=x.dtype)",
    "new_ones": "cr.ones(shape, dtype=x.dtype)",
    "new_full": "cr.full(shape, value, dtype=x.dtype)",
    "new_tensor": "cr.tensor(data, dtype=x.dtype)",
    # Gradients.
    "data": "x.detach() to read, x.copy_(…) under cr.no_grad() to write",
    "detach_": "x = x.detach()",
    "retain_grad": _KEEPS_GRAD,
    "retains_grad": _KEEPS_GRAD,
    "grad_fn": "cr.explain(x), which tells how x was computed",
    "zero_": "x.copy_(0), under cr.no_grad() for a leaf; x.grad = None for a gradient",
    "fill_": "x.copy_(value), under cr.no_grad() for a leaf",
    "add_": "x += y, under cr.no_grad() for a leaf",
    "sub_": "x -= y, under cr.no_grad() for a leaf",
    "mul_": "x *= y, under cr.no_grad() for a leaf",
    "div_": "x /= y, under cr.no_grad() for a leaf",
    "clamp_": "x.copy_(x.clip(…)), under cr.no_grad() for a leaf",
    "uniform_": "x.copy_(cr.rand(*x.shape)), under cr.no_grad() for a leaf",
    "normal_": "x.copy_(cr.randn(*x.shape)), under cr.no_grad() for a leaf",
    # Arithmetic.
    "add": "x + y",
    "sub": "x - y",
    "mul": "x * y",
    "div": "x / y",
    "neg": "-x",
    "pow": "x ** y",
    "matmul": "x @ y",
    "mm": "x @ y",
    "bmm": "x @ y",
    "mv": "x @ y",
    "dot": "x @ y",
    "eq": "x == y",
    "ne": "x != y",
    "lt": "x < y",
    "le": "x <= y",
    "gt": "x > y",
    "ge": "x >= y",
    "clamp": "x.clip(low, high)",
    "norm": "cr.linalg.vector_norm(x)",
    "softmax": "cr.functional.softmax(x, axis=…)",
    "log_softmax": "cr.functional.log_softmax(x, axis=…)",
    "logsumexp": "cr.functional.logsumexp(x, axis=…)",
    "amax": "x.max(axis=…)",
    "amin": "x.min(axis=…)",
    "cumsum": "cr.cumulative_sum(x, axis=…)",
    "cumprod": "cr.cumulative_prod(x, axis=…)",
    # Picking entries.
    "masked_fill": "cr.where(mask, value, x)",
    "masked_fill_": "x[mask] = value",
    "masked_select": "x[mask]",
    "gather": "cr.take_along_axis(x, indices, axis=…)",
    "index_select": "cr.take(x, indices, axis=…)",
    "scatter_": "x[indices] = values",
    "scatter_add_": "x = x.scatter_add(axis, index, source)",
    "index_add_": "x = x.index_add(axis, index, source)",
    "index_put_": "x[indices] = values, or x = x.index_put(indices, values, accumulate=True)",
    "topk": "cr.argsort(x, axis=…, descending=True)[..., :k]",
    # NumPy.
    "copy": "x.clone()",
}  # fmt: skip

# Functions here under the same name, which are methods there.
FUNCTIONS = (
    "acos", "argsort", "asin", "atan", "ceil", "cosh", "count_nonzero", "diff", "erf", "expm1",
    "flip", "floor", "isfinite", "isinf", "isnan", "log10", "log1p", "log2", "logical_and",
    "logical_not", "logical_or", "maximum", "minimum", "moveaxis", "nonzero", "outer", "reciprocal",
    "remainder", "roll", "round", "sign", "sinh", "sort", "square", "take", "tan", "tile", "tril",
    "triu", "trunc", "where",
)  # fmt: skip


class Elsewhere:
    """An attribute that is not there: reading it raises an AttributeError with the advice, so `hasattr` is False."""

    __slots__ = ("advice", "name")

    def __init__(self, name: str, advice: str) -> None:
        self.name = name
        self.advice = advice

    def __get__(self, instance: object, owner: type | None = None) -> NoReturn:
        kind = (type(instance) if owner is None else owner).__name__
        raise MissingNameError(f"{kind!r} has no attribute {self.name!r}. {self.advice}")


def _sentence(advice: str) -> str:
    return f"{advice[0].upper()}{advice[1:]}" if advice.startswith(("tensors", "any")) else f"Use {advice}"


def attach(kind: type) -> None:
    """Put the descriptors on the class, where it has nothing of its own by that name."""
    same = {name: f"cr.{name}(x)" for name in FUNCTIONS}
    for name, advice in (ADVICE | same).items():
        if not hasattr(kind, name):
            setattr(kind, name, Elsewhere(name, _sentence(advice)))


def without_these(kind: type, names: list[str]) -> list[str]:
    """`names` without those that are elsewhere: what `dir()` and completion at a prompt shall list."""
    return [name for name in names if not isinstance(_found(kind, name), Elsewhere)]


def _found(kind: type, name: str) -> object:
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
