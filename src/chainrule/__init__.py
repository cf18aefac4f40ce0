"""chainrule: backpropagation that you can see, check and trust, at the speed of compiled code.

Array functions follow the array API standard, `nn` and `optim` PyTorch, transformations JAX.
"""

# Names in columns, not one a line.
# ruff: noqa: I001, RUF022
# fmt: off

from math import e, inf, nan, pi
from typing import TYPE_CHECKING

from . import data, functional, linalg, nn, optim, testing
from .config import config
from .dtypes import bool_ as bool
from .dtypes import float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64
from .elsewhere import become_room, checked_call, missing
from .errors import (
    ArgumentError, AssertionFailed, AxisError, BoundsError, ChainruleError, CompileError, CotangentError, DataError,
    DtypeError, ExpressionError, GradientCheckError, GradientError, GraphError, GraphRetainedWarning, MissingExtraError,
    MissingNameError, NoAxisError, NonFiniteError, RecompileWarning, RunError, ShapeError, SharingError, TraceError,
)
from .explain import Story, explain
from .ops.namespace import Rescue, rescues
from .iteration import scan
from .runtime import compile, get_num_threads, set_num_threads
from .tensor import Tensor
from .tensor.accumulation import index_add, index_put, scatter_add
from .tensor.creation import (
    arange, asarray, empty, empty_like, eye, full, full_like, linspace, meshgrid, ones, ones_like, tensor, tril,
    triu, zeros, zeros_like,
)
from .tensor.elementwise import (
    abs, acos, acosh, add, allclose, asin, asinh, astype, atan, atan2, atanh, bitwise_and, bitwise_invert,
    bitwise_left_shift, bitwise_or, bitwise_right_shift, bitwise_xor, ceil, clip, copysign, cos, cosh, divide,
    equal, erf, exp, expm1, floor, floor_divide, greater, greater_equal, hypot, isclose, isfinite, isinf, isnan,
    less, less_equal, log, log10, log1p, log2, logaddexp, logical_and, logical_not, logical_or, logical_xor,
    maximum, minimum, multiply, negative, nextafter, not_equal, positive, pow, reciprocal, relu, remainder,
    result_type, round, sigmoid, sign, signbit, sin, sinh, sqrt, square, subtract, tan, tanh, trunc, where,
)
from .tensor.inspection import __array_namespace_info__
from .tensor.inspection import (
    FloatInfo, IntegerInfo, NamespaceInfo, can_cast, finfo, iinfo, isdtype,
)
from .tensor.interchange import (
    from_dlpack,
)
from .tensor.manipulation import (
    broadcast_arrays, broadcast_shapes, broadcast_to, concat, expand_dims, flatten, flip, matrix_transpose,
    moveaxis, pad, permute_dims, repeat, reshape, roll, squeeze, stack, take, tile, unstack,
)
from .tensor.products import (
    matmul, outer, tensordot, vecdot,
)
from .tensor.random import (
    Generator, manual_seed, rand, randint, randn, randperm,
)
from .tensor.searching import (
    UniqueAll, UniqueCounts, UniqueInverse, argmax, argmin, argsort, isin, nonzero, searchsorted, sort,
    take_along_axis, unique_all, unique_counts, unique_inverse, unique_values,
)
from .tensor.statistical import (
    all, any, count_nonzero, cumulative_prod, cumulative_sum, diff, max, mean, min, prod, std, sum, var,
)
from .train import (
    Callback, LearningRates, Run, evaluate, find_learning_rate, fit, load, load_run, predict, save,
)
from .transforms import (
    checkpoint, custom_gradient, enable_grad, grad, hessian, hvp, jacobian, jvp, no_grad, value_and_grad, vjp,
)

__version__ = "0.1.0"
newaxis = None

__all__ = [
    "ArgumentError", "AssertionFailed", "AxisError", "BoundsError", "Callback", "ChainruleError", "CompileError",
    "CotangentError", "DataError", "DtypeError", "ExpressionError", "FloatInfo", "Generator",
    "GradientCheckError", "GradientError", "GraphError", "GraphRetainedWarning", "IntegerInfo", "LearningRates",
    "MissingExtraError", "MissingNameError", "NamespaceInfo", "NoAxisError", "NonFiniteError", "RecompileWarning",
    "Rescue", "Run", "RunError", "ShapeError", "SharingError", "Story", "Tensor", "TraceError", "UniqueAll",
    "UniqueCounts", "UniqueInverse", "__array_namespace_info__", "abs", "acos", "acosh", "add", "all", "allclose",
    "any", "arange", "argmax", "argmin", "argsort", "asarray", "asin", "asinh", "astype", "atan", "atan2",
    "atanh", "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "bool", "broadcast_arrays", "broadcast_shapes", "broadcast_to", "can_cast", "ceil",
    "checkpoint", "clip", "compile", "concat", "config", "copysign", "cos", "cosh", "count_nonzero",
    "cumulative_prod", "cumulative_sum", "custom_gradient", "data", "diff", "divide", "e", "empty", "empty_like",
    "enable_grad", "equal", "erf", "evaluate", "exp", "expand_dims", "explain", "expm1", "eye",
    "find_learning_rate", "finfo", "fit", "flatten", "flip", "float32", "float64", "floor", "floor_divide",
    "from_dlpack", "full", "full_like", "functional", "get_num_threads", "grad", "greater", "greater_equal",
    "hessian", "hvp", "hypot", "iinfo", "index_add", "index_put", "inf", "int16", "int32", "int64", "int8",
    "isclose", "isdtype", "isfinite", "isin", "isinf", "isnan", "jacobian", "jvp", "less", "less_equal", "linalg",
    "linspace", "load", "load_run", "log", "log10", "log1p", "log2", "logaddexp", "logical_and", "logical_not",
    "logical_or", "logical_xor", "manual_seed", "matmul", "matrix_transpose", "max", "maximum", "mean",
    "meshgrid", "min", "minimum", "moveaxis", "multiply", "nan", "negative", "newaxis", "nextafter", "nn",
    "no_grad", "nonzero", "not_equal", "ones", "ones_like", "optim", "outer", "pad", "permute_dims", "pi",
    "positive", "pow", "predict", "prod", "rand", "randint", "randn", "randperm", "reciprocal", "relu",
    "remainder", "repeat", "rescues", "reshape", "result_type", "roll", "round", "save", "scan", "scatter_add",
    "searchsorted", "set_num_threads", "sigmoid", "sign", "signbit", "sin", "sinh", "sort", "sqrt", "square",
    "squeeze", "stack", "std", "subtract", "sum", "take", "take_along_axis", "tan", "tanh", "tensor", "tensordot",
    "testing", "tile", "tril", "triu", "trunc", "uint16", "uint32", "uint64", "uint8", "unique_all",
    "unique_counts", "unique_inverse", "unique_values", "unstack", "value_and_grad", "var", "vecdot", "vjp",
    "where", "zeros", "zeros_like",
]

if not TYPE_CHECKING:  # a type checker would take every name for known
    # PyTorch's keywords (`dim=`, `keepdim=`, `out=`) are told in our words, here at the door: within the package the
    # functions call each other without it.
    from types import FunctionType as _Function

    for _name in __all__:
        if isinstance(globals()[_name], _Function) and globals()[_name].__module__.startswith("chainrule.tensor."):
            globals()[_name] = checked_call(globals()[_name])

    # Inner rooms are attributes of the package too, as Python has it. Whoever calls one is told so.
    for _name in list(globals()):
        become_room(globals()[_name], __name__)

    def __dir__() -> list[str]:
        return [*__all__, *(_name for _name in globals() if _name.startswith("__"))]

    def __getattr__(name: str) -> object:
        raise missing(name)
