"""Every function of the array API standard: present, of the standard's signature, equal to NumPy, differentiable."""

from __future__ import annotations

import inspect
import itertools
import math
import zlib

import numpy as np
import pytest

import chainrule as cr
from chainrule.tensor import inspection

# The array API standard 2025.12, main namespace, without the optional extensions.
STANDARD = {
    "constants": "e inf nan newaxis pi",
    "dtypes": "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64",
    "creation": (
        "arange asarray empty empty_like eye from_dlpack full full_like linspace meshgrid ones ones_like tril triu "
        "zeros zeros_like"
    ),
    "data types": "astype can_cast finfo iinfo isdtype result_type",
    "elementwise": (
        "abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_invert bitwise_or "
        "bitwise_right_shift bitwise_xor ceil clip copysign cos cosh divide equal exp expm1 floor floor_divide "
        "greater greater_equal hypot isfinite isinf isnan less less_equal log log1p log2 log10 logaddexp "
        "logical_and logical_not logical_or logical_xor maximum minimum multiply negative nextafter not_equal "
        "positive pow reciprocal remainder round sign signbit sin sinh square sqrt subtract tan tanh trunc"
    ),
    "indexing": "take take_along_axis",
    "inspection": "__array_namespace_info__",
    "linear algebra": "matmul matrix_transpose tensordot vecdot",
    "manipulation": (
        "broadcast_arrays broadcast_shapes broadcast_to concat expand_dims flip moveaxis permute_dims repeat reshape "
        "roll squeeze stack tile unstack"
    ),
    "searching": "argmax argmin count_nonzero nonzero searchsorted where",
    "sets": "isin unique_all unique_counts unique_inverse unique_values",
    "sorting": "argsort sort",
    "statistical": "cumulative_prod cumulative_sum max mean min prod std sum var",
    "utility": "all any diff",
}
# Not offered, because there are no complex numbers here.
COMPLEX = {"complex64", "complex128", "conj", "imag", "real"}

ATTRIBUTES = "device dtype mT ndim shape size T"
METHODS = (
    "__abs__ __add__ __and__ __array_namespace__ __bool__ __complex__ __dlpack__ __dlpack_device__ __eq__ __float__ "
    "__floordiv__ __ge__ __getitem__ __gt__ __index__ __int__ __invert__ __le__ __lshift__ __lt__ __matmul__ __mod__ "
    "__mul__ __ne__ __neg__ __or__ __pos__ __pow__ __rshift__ __setitem__ __sub__ __truediv__ __xor__ to_device "
    "__iadd__ __isub__ __imul__ __itruediv__ __ifloordiv__ __ipow__ __imod__ __iand__ __ior__ __ixor__ __ilshift__ "
    "__irshift__ __imatmul__ __radd__ __rsub__ __rmul__ __rtruediv__ __rfloordiv__ __rpow__ __rmatmul__ __rmod__ "
    "__rand__ __ror__ __rxor__ __rlshift__ __rrshift__"
)

FLOATS = ["float32", "float64"]
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
SHAPES = [(), (0,), (1,), (7,), (2, 0, 3), (1, 1), (5, 3), (2, 3, 5)]


def function(name):
    """A function of the public namespace."""
    return getattr(cr, name)


def seeded(*key):
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def sample(shape, dtype, low=-3.0, high=3.0):
    """Numbers without ties, kinks or zeros on the way, the same ones for the same request."""
    random = seeded(shape, dtype, low, high)
    kind = np.dtype(dtype).kind
    if kind == "b":
        return random.integers(0, 2, shape).astype(bool)
    if kind == "u":
        return random.integers(0, 7, shape).astype(dtype)
    if kind == "i":
        return random.integers(-6, 7, shape).astype(dtype)
    return random.uniform(low, high, shape).astype(dtype)


def same(got, want, dtype=None, rtol=None):
    """Equal shape, dtype and values (to rounding for floats)."""
    assert isinstance(got, cr.Tensor)
    want = np.asarray(want)
    assert got.shape == want.shape
    assert got.dtype == (want.dtype if dtype is None else np.dtype(dtype)), (got.dtype, want.dtype, dtype)
    if got.dtype.kind == "f":
        precise = {4: 3e-6, 8: 1e-13}[got.dtype.itemsize] if rtol is None else rtol
        np.testing.assert_allclose(got.numpy(), want, rtol=precise, atol=precise)
    else:
        np.testing.assert_array_equal(got.numpy(), want)


# ------------------------------------------------------------------------------------------ the standard


@pytest.mark.parametrize("group", STANDARD)
def test_every_name_of_the_standard_is_offered(group):
    assert [name for name in STANDARD[group].split() if not hasattr(cr, name)] == []


def test_complex_numbers_are_not_offered_and_this_is_said():
    assert not any(hasattr(cr, name) for name in COMPLEX)
    assert "complex" in inspection.__doc__
    with pytest.raises(cr.DtypeError, match="complex numbers are not offered"):
        cr.tensor([1j])
    with pytest.raises(cr.DtypeError, match="complex numbers are not offered"):
        cr.asarray(np.ones(2, np.complex128))


def test_every_attribute_and_method_of_the_array_object_is_offered():
    x = cr.ones((2, 2))
    assert [name for name in ATTRIBUTES.split() if not hasattr(x, name)] == []
    assert [name for name in METHODS.split() if name not in dir(cr.Tensor)] == []


SIGNATURES = {
    "arange": "(start, /, stop=None, step=1, *, dtype=None, device=None)",
    "asarray": "(obj, /, *, dtype=None, device=None, copy=None)",
    "empty": "(shape, *more, dtype=None, device=None)",  # and PyTorch's way, axis by axis
    "empty_like": "(x, /, *, dtype=None, device=None)",
    "eye": "(n_rows, n_cols=None, /, *, k=0, dtype=None, device=None)",
    "from_dlpack": "(x, /, *, device=None, copy=None)",
    "full": "(shape, fill_value, *, dtype=None, device=None)",
    "full_like": "(x, /, fill_value, *, dtype=None, device=None)",
    "linspace": "(start, stop, /, num, *, dtype=None, device=None, endpoint=True)",
    "meshgrid": "(*arrays, indexing='xy')",
    "ones": "(shape, *more, dtype=None, device=None)",
    "ones_like": "(x, /, *, dtype=None, device=None)",
    "tril": "(x, /, *, k=0)",
    "triu": "(x, /, *, k=0)",
    "zeros": "(shape, *more, dtype=None, device=None)",
    "zeros_like": "(x, /, *, dtype=None, device=None)",
    "astype": "(x, dtype, /, *, copy=True, device=None)",
    "can_cast": "(from_, to, /)",
    "finfo": "(type, /)",
    "iinfo": "(type, /)",
    "isdtype": "(dtype, kind)",
    "clip": "(x, /, min=None, max=None)",
    "take": "(x, indices, /, *, axis=None)",
    "take_along_axis": "(x, indices, /, *, axis=-1)",
    "matmul": "(x, y, /)",
    "matrix_transpose": "(x, /)",
    "tensordot": "(x, y, /, *, axes=2)",
    "vecdot": "(x, y, /, *, axis=-1)",
    "broadcast_arrays": "(*arrays)",
    "broadcast_shapes": "(*shapes)",
    "broadcast_to": "(x, /, shape)",
    "concat": "(arrays, /, *, axis=0)",
    "expand_dims": "(x, /, axis=0)",
    "flip": "(x, /, *, axis=None)",
    "moveaxis": "(x, source, destination, /)",
    "permute_dims": "(x, /, axes)",
    "repeat": "(x, repeats, /, *, axis=None)",
    "reshape": "(x, /, shape, *, copy=None)",
    "roll": "(x, /, shift, *, axis=None)",
    "squeeze": "(x, /, axis=None)",
    "stack": "(arrays, /, *, axis=0)",
    "tile": "(x, repetitions, /)",
    "unstack": "(x, /, *, axis=0)",
    "argmax": "(x, /, *, axis=None, keepdims=False)",
    "argmin": "(x, /, *, axis=None, keepdims=False)",
    "count_nonzero": "(x, /, *, axis=None, keepdims=False)",
    "nonzero": "(x, /)",
    "searchsorted": "(x1, x2, /, *, side='left', sorter=None)",
    "where": "(condition, x, y, /)",
    "isin": "(x, values, /, *, invert=False)",
    "unique_all": "(x, /)",
    "unique_counts": "(x, /)",
    "unique_inverse": "(x, /)",
    "unique_values": "(x, /)",
    "argsort": "(x, /, *, axis=-1, descending=False, stable=True)",
    "sort": "(x, /, *, axis=-1, descending=False, stable=True)",
    "cumulative_prod": "(x, /, *, axis=None, dtype=None, include_initial=False)",
    "cumulative_sum": "(x, /, *, axis=None, dtype=None, include_initial=False)",
    "max": "(x, /, *, axis=None, keepdims=False)",
    "mean": "(x, /, *, axis=None, keepdims=False)",
    "min": "(x, /, *, axis=None, keepdims=False)",
    "prod": "(x, /, *, axis=None, dtype=None, keepdims=False)",
    "std": "(x, /, *, axis=None, correction=0.0, keepdims=False)",
    "sum": "(x, /, *, axis=None, dtype=None, keepdims=False)",
    "var": "(x, /, *, axis=None, correction=0.0, keepdims=False)",
    "all": "(x, /, *, axis=None, keepdims=False)",
    "any": "(x, /, *, axis=None, keepdims=False)",
    "diff": "(x, /, *, axis=-1, n=1, prepend=None, append=None)",
    "add": "(x, y, /)",
    "exp": "(x, /)",
    "logical_not": "(x, /)",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_the_standard_s(name):
    signature = inspect.signature(function(name))
    bare = signature.replace(
        parameters=[one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()],
        return_annotation=inspect.Signature.empty,
    )
    assert str(bare) == SIGNATURES[name]


# ------------------------------------------------------------------------------------- elementwise, values

# name: (NumPy's name, range of the numbers, dtypes). None for the range: any.
NUMBERS = FLOATS + INTEGERS
UNARY = {
    "abs": ("abs", None, NUMBERS),
    "acos": ("arccos", (-0.9, 0.9), FLOATS),
    "acosh": ("arccosh", (1.1, 9), FLOATS),
    "asin": ("arcsin", (-0.9, 0.9), FLOATS),
    "asinh": ("arcsinh", None, FLOATS),
    "atan": ("arctan", None, FLOATS),
    "atanh": ("arctanh", (-0.9, 0.9), FLOATS),
    "bitwise_invert": ("invert", None, ["bool", *INTEGERS]),
    "ceil": ("ceil", None, NUMBERS),
    "cos": ("cos", None, FLOATS),
    "cosh": ("cosh", None, FLOATS),
    "exp": ("exp", None, FLOATS),
    "expm1": ("expm1", None, FLOATS),
    "floor": ("floor", None, NUMBERS),
    "isfinite": ("isfinite", None, NUMBERS),
    "isinf": ("isinf", None, NUMBERS),
    "isnan": ("isnan", None, NUMBERS),
    "log": ("log", (0.1, 9), FLOATS),
    "log1p": ("log1p", (-0.9, 9), FLOATS),
    "log2": ("log2", (0.1, 9), FLOATS),
    "log10": ("log10", (0.1, 9), FLOATS),
    "logical_not": ("logical_not", None, ["bool", *NUMBERS]),
    "negative": ("negative", None, NUMBERS),
    "positive": ("positive", None, NUMBERS),
    "reciprocal": ("reciprocal", (0.5, 3), FLOATS),
    "round": ("round", None, NUMBERS),
    "sign": ("sign", None, NUMBERS),
    "signbit": ("signbit", None, FLOATS),
    "sin": ("sin", None, FLOATS),
    "sinh": ("sinh", None, FLOATS),
    "sqrt": ("sqrt", (0.1, 9), FLOATS),
    "square": ("square", None, NUMBERS),
    "tan": ("tan", (-1, 1), FLOATS),
    "tanh": ("tanh", None, FLOATS),
    "trunc": ("trunc", None, NUMBERS),
}
BINARY = {
    "add": ("add", None, NUMBERS),
    "atan2": ("arctan2", None, FLOATS),
    "bitwise_and": ("bitwise_and", None, ["bool", *INTEGERS]),
    "bitwise_or": ("bitwise_or", None, ["bool", *INTEGERS]),
    "bitwise_xor": ("bitwise_xor", None, ["bool", *INTEGERS]),
    "copysign": ("copysign", None, FLOATS),
    "divide": ("divide", (0.5, 3), FLOATS),
    "equal": ("equal", None, ["bool", *NUMBERS]),
    "floor_divide": ("floor_divide", (0.5, 3), FLOATS),
    "greater": ("greater", None, NUMBERS),
    "greater_equal": ("greater_equal", None, NUMBERS),
    "hypot": ("hypot", None, FLOATS),
    "less": ("less", None, NUMBERS),
    "less_equal": ("less_equal", None, NUMBERS),
    "logaddexp": ("logaddexp", None, FLOATS),
    "logical_and": ("logical_and", None, ["bool", *NUMBERS]),
    "logical_or": ("logical_or", None, ["bool", *NUMBERS]),
    "logical_xor": ("logical_xor", None, ["bool", *NUMBERS]),
    "maximum": ("maximum", None, NUMBERS),
    "minimum": ("minimum", None, NUMBERS),
    "multiply": ("multiply", None, NUMBERS),
    "nextafter": ("nextafter", None, FLOATS),
    "not_equal": ("not_equal", None, ["bool", *NUMBERS]),
    "pow": ("power", (0.5, 3), FLOATS),
    "remainder": ("remainder", (0.5, 3), FLOATS),
    "subtract": ("subtract", None, NUMBERS),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary_functions_equal_numpy(name):
    reference, limits, dtypes = UNARY[name]
    for dtype, shape in itertools.product(dtypes, SHAPES):
        x = sample(shape, dtype, *(limits or ()))
        same(function(name)(cr.asarray(x)), getattr(np, reference)(x))


@pytest.mark.parametrize("name", BINARY)
def test_binary_functions_equal_numpy(name):
    reference, limits, dtypes = BINARY[name]
    pairs = [
        ((3, 5), (3, 5)),
        ((5,), (3, 5)),
        ((3, 1), (1, 7)),
        ((), (7,)),
        ((0, 3), (1,)),
        ((2, 1, 3), (4, 1)),
    ]
    for dtype, (first, second) in itertools.product(dtypes, pairs):
        x, y = sample(first, dtype, *(limits or ())), sample((*second, 2), dtype, *(limits or ()))[..., 0]
        same(function(name)(cr.asarray(x), cr.asarray(y)), getattr(np, reference)(x, y))


def test_no_elementwise_function_of_the_standard_is_left_out_of_the_comparison():
    tested = {*UNARY, *BINARY, "clip", "bitwise_left_shift", "bitwise_right_shift"}
    assert set(STANDARD["elementwise"].split()) == tested


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_division_shifts_and_powers_have_answers_everywhere(dtype):
    x = np.asarray([-5, 0, 1, 7, 6] if dtype.startswith("i") else [5, 0, 1, 7, 6]).astype(dtype)
    y = np.asarray([0, 0, 3, 2, 1], dtype)
    divided = cr.floor_divide(cr.asarray(x), cr.asarray(y))
    left = cr.remainder(cr.asarray(x), cr.asarray(y))
    same(divided, [0, 0, 0, 3, 6], dtype)
    same(left, [0, 0, 1, 1, 0], dtype)
    width = 8 * np.dtype(dtype).itemsize
    places = cr.asarray(np.asarray([0, 1, width - 1, width, 100], dtype))
    one = cr.ones(5, dtype=dtype)
    top = np.asarray(1 << (width - 1)).astype(np.uint64).astype(dtype)
    same(cr.bitwise_left_shift(one, places), np.asarray([1, 2, top, 0, 0], dtype), dtype)
    same(cr.bitwise_right_shift(one * 4, places), np.asarray([4, 2, 0, 0, 0]), dtype)
    same(cr.asarray(x) ** cr.asarray(y), [1, 1, 1, 49, 6], dtype)
    smallest = cr.asarray(np.asarray([np.iinfo(dtype).min], dtype))
    if dtype.startswith("i"):
        same(smallest // cr.full((1,), -1, dtype=dtype), smallest.numpy(), dtype)
        same(
            cr.full((3,), -4, dtype=dtype) >> cr.asarray(np.asarray([1, width, 100], dtype)),
            [-2, -1, -1],
            dtype,
        )


def test_floats_become_integers_by_one_rule():
    x = cr.tensor([np.nan, np.inf, -np.inf, 1.9, -1.9, 1e20, -1e20, 300.0], dtype=cr.float64)
    assert cr.astype(x, cr.int8).tolist() == [0, 127, -128, 1, -1, 127, -128, 127]
    assert cr.astype(x, cr.uint8).tolist() == [0, 255, 0, 1, 0, 255, 0, 255]
    most = 2**63 - 1
    assert cr.astype(x, cr.int64).tolist() == [0, most, -most - 1, 1, -1, most, -most - 1, 300]
    assert cr.astype(x, cr.bool).tolist() == [True] * 8


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_clip_equals_numpy(dtype):
    x = sample((5, 3), dtype)
    for low, high in [(-1, 1), (None, 1), (-1, None), (2, -2)]:
        same(cr.clip(cr.asarray(x), low, high), np.clip(x, low, high))
    bound = sample((3,), dtype)
    same(cr.clip(cr.asarray(x), cr.asarray(bound)), np.maximum(x, bound))
    assert math.isnan(cr.clip(math.nan, 0.0, 1.0).item())


def test_where_promotes_and_broadcasts():
    condition = np.asarray([[True], [False]])
    x, y = sample((3,), "float32"), sample((2, 3), "float64")
    same(cr.where(cr.asarray(condition), cr.asarray(x), cr.asarray(y)), np.where(condition, x, y))
    assert cr.where(cr.asarray(condition), 1.0, cr.zeros(2)).dtype == cr.float32
    assert cr.where(True, 1, 2).item() == 1
    with pytest.raises(cr.DtypeError, match="bool condition"):
        cr.where(cr.ones(2), 1.0, 2.0)


# -------------------------------------------------------------------------------------------- promotion


def test_promotion_is_the_standard_s():
    for kinds in (INTEGERS, FLOATS):
        for first, second in itertools.product(kinds, kinds):
            if {first, second} & {"uint64"} and {first, second} & {"int8", "int16", "int32", "int64"}:
                with pytest.raises(cr.DtypeError, match="no common integer type"):
                    cr.result_type(first, second)
            else:
                want = np.result_type(np.dtype(first), np.dtype(second))
                assert cr.result_type(first, second) == want
                assert (cr.ones(2, dtype=first) + cr.ones(2, dtype=second)).dtype == want


@pytest.mark.parametrize("dtype", NUMBERS)
def test_python_scalars_are_weak(dtype):
    x = cr.ones(3, dtype=dtype)
    assert (x + 1).dtype == (2 * x).dtype == (x**2).dtype == (x // 1).dtype == np.dtype(dtype)
    assert (x + True).dtype == np.dtype(dtype)
    if np.dtype(dtype).kind == "f":
        assert (x + 1.5).dtype == (1.5 / x).dtype == (x * 1e300).dtype == np.dtype(dtype)
        assert (
            (x * np.sqrt(2)).dtype
            == (np.float64(2) * x).dtype
            == (x + np.float32(1)).dtype
            == np.dtype(dtype)
        )
        assert (x * np.float64(2)).tolist() == [2.0] * 3
    else:
        assert (x + 1.5).dtype == cr.float32
        with pytest.raises(cr.DtypeError, match="holds"):
            x + (np.iinfo(dtype).max + 1)
        with pytest.raises(cr.DtypeError, match="holds"):
            (np.iinfo(dtype).min - 1) * x


def test_python_numbers_too_large_for_float32_are_infinite_without_a_warning():
    assert (cr.ones(1) * 1e300).tolist() == [math.inf]
    assert (cr.ones(1) * -(10**400)).tolist() == [-math.inf]
    assert cr.tensor([1e300]).tolist() == [math.inf]
    assert (cr.ones(1, dtype=cr.float64) * 1e300).tolist() == [1e300]


def test_arrays_of_numpy_are_not_weak():
    assert (cr.ones(2) + np.ones(2)).dtype == cr.float64
    assert (cr.ones(2) + np.asarray(1.0)).dtype == cr.float64
    assert (cr.ones(2) + np.ones(2, np.int64)).dtype == cr.float32


def test_result_type_takes_arrays_dtypes_and_numbers():
    assert cr.result_type(cr.ones(1), 1.0, np.int8(3)) == cr.float32
    assert cr.result_type(1, 2) == cr.int64 and cr.result_type(1.0) == cr.float32
    assert cr.result_type(np.ones(1), "float32") == cr.float64
    with pytest.raises(cr.ArgumentError, match="at least one"):
        cr.result_type()


def test_questions_about_dtypes():
    info = function("finfo")(cr.float32)
    reference = np.finfo(np.float32)
    assert (info.bits, info.dtype) == (32, cr.float32)
    for name in ("eps", "max", "min", "smallest_normal"):
        value = getattr(info, name)
        assert type(value) is float and value == float(getattr(reference, name))
    limits = function("iinfo")(cr.ones(1, dtype=cr.uint8))
    assert (limits.bits, limits.min, limits.max, limits.dtype) == (8, 0, 255, cr.uint8)
    with pytest.raises(cr.DtypeError, match="iinfo"):
        function("finfo")("int8")
    with pytest.raises(cr.DtypeError, match="finfo"):
        function("iinfo")("float32")
    isdtype = function("isdtype")
    kinds = {
        "bool": ["bool"],
        "signed integer": INTEGERS[:4],
        "unsigned integer": INTEGERS[4:],
        "integral": INTEGERS,
        "real floating": FLOATS,
        "complex floating": [],
        "numeric": NUMBERS,
    }
    for kind, members in kinds.items():
        assert [name for name in ["bool", *NUMBERS] if isdtype(name, kind)] == sorted(
            members, key=["bool", *NUMBERS].index
        )
    assert isdtype("int8", ("bool", cr.int8)) and not isdtype("int8", (cr.int16, "real floating"))
    with pytest.raises(cr.ArgumentError, match="kind of dtype"):
        isdtype("int8", "whole")
    for first, second in itertools.product(["bool", *NUMBERS], ["bool", *NUMBERS]):
        assert function("can_cast")(first, second) == np.can_cast(first, second)
    told = function("__array_namespace_info__")()
    assert told.default_dtypes() == {"real floating": cr.float32, "integral": cr.int64, "indexing": cr.int64}
    assert set(told.dtypes()) == {"bool", *NUMBERS} and set(told.dtypes(kind="real floating")) == set(FLOATS)
    assert told.devices() == ["cpu"] and told.default_device() == "cpu"
    assert told.capabilities()["boolean indexing"] is True
    for bad in ("float16", "nonsense", [1], np.dtype("datetime64[s]"), np.dtype([("a", "i4")]), 3):
        with pytest.raises(cr.DtypeError, match="must be one of"):
            cr.zeros(1, dtype=bad)
    assert cr.zeros(1, dtype=">f8").dtype == cr.zeros(1, dtype=np.double).dtype == cr.float64


# --------------------------------------------------------------------------------------------- creation


@pytest.mark.parametrize("dtype", ["bool", *NUMBERS])
def test_creation_equals_numpy(dtype):
    for shape in [*SHAPES, 4, [2, 3]]:
        for name in ("zeros", "ones"):
            same(function(name)(shape, dtype=dtype), getattr(np, name)(shape, dtype))
            like = cr.zeros(shape, dtype="int8")
            same(function(name + "_like")(like, dtype=dtype), getattr(np, name)(shape, dtype))
        assert cr.empty(shape, dtype=dtype).shape == np.empty(shape).shape
        same(cr.full(shape, 1, dtype=dtype), np.full(shape, 1, dtype))
    for rows, columns, k in [(3, None, 0), (2, 5, 1), (4, 2, -1), (0, 3, 0)]:
        same(cr.eye(rows, columns, k=k, dtype=dtype), np.eye(rows, columns, k, dtype))
    x = sample((2, 4, 3), dtype)
    for k in (-2, 0, 1):
        same(cr.tril(cr.asarray(x), k=k), np.tril(x, k))
        same(cr.triu(cr.asarray(x), k=k), np.triu(x, k))


def test_creation_defaults():
    assert cr.zeros(1).dtype == cr.ones(1).dtype == cr.empty(1).dtype == cr.eye(1).dtype == cr.float32
    assert cr.full((1,), 1).dtype == cr.arange(3).dtype == cr.int64
    assert (
        cr.full((1,), True).dtype == cr.bool and cr.full((), 1.0).dtype == cr.arange(3.0).dtype == cr.float32
    )
    assert cr.full_like(cr.zeros(1, dtype="int8"), 3).dtype == cr.int8
    assert cr.linspace(0, 1, 2).dtype == cr.float32
    fill = cr.tensor(2.0, requires_grad=True)
    cr.full((3,), fill).sum().backward()
    assert fill.grad.item() == 3.0


@pytest.mark.parametrize(
    "bounds", [(5,), (2, 7), (0, 10, 3), (5, 0, -2), (0.0, 1.0, 0.25), (1.5,), (3, 3), (4, 2), (0, 7, 2.5)]
)
def test_arange_equals_numpy(bounds):
    want = np.arange(*bounds)
    same(cr.arange(*bounds), want.astype("float32") if want.dtype.kind == "f" else want)
    same(cr.arange(*bounds, dtype=cr.float64), want.astype("float64"))


def test_linspace_and_meshgrid_equal_numpy():
    for num, endpoint in itertools.product((0, 1, 2, 17), (True, False)):
        got = cr.linspace(-1, 2.5, num, endpoint=endpoint, dtype=cr.float64)
        same(got, np.linspace(-1, 2.5, num, endpoint=endpoint))
    vectors = [sample((n,), "float64") for n in (3, 0, 2)]
    for count, indexing in itertools.product((0, 1, 2, 3), ("xy", "ij")):
        chosen = [vectors[0], vectors[2], vectors[1]][:count]
        got = cr.meshgrid(*map(cr.asarray, chosen), indexing=indexing)
        want = np.meshgrid(*chosen, indexing=indexing)
        assert isinstance(got, tuple) and len(got) == len(want)
        for one, other in zip(got, want):
            same(one, other)


def test_asarray_shares_only_what_it_says():
    x = cr.ones(2)
    assert cr.asarray(x) is x and cr.asarray(x, copy=True) is not x
    assert cr.asarray(x, dtype=cr.float64).dtype == cr.float64
    assert cr.asarray([[1, 2], [3, 4]]).shape == (2, 2)
    with pytest.raises(cr.ArgumentError, match="copy=None"):
        cr.asarray(np.ones(2), copy=False)
    with pytest.raises(cr.ArgumentError, match="cpu"):
        cr.asarray(x, device="cuda")


# ------------------------------------------------------------------------------------- statistics, values


@pytest.mark.parametrize(
    "name", ["sum", "prod", "max", "min", "mean", "std", "var", "all", "any", "count_nonzero"]
)
def test_reductions_equal_numpy(name):
    dtypes = FLOATS if name in ("mean", "std", "var") else ["bool", *NUMBERS]
    if name in ("max", "min"):
        dtypes = NUMBERS
    for dtype, shape in itertools.product(dtypes, SHAPES):
        x = sample(shape, dtype)
        axes = [None, (), *range(-len(shape), len(shape)), tuple(range(len(shape)))]
        for axis, keepdims in itertools.product(axes, (False, True)):
            touched = range(len(shape)) if axis is None else [axis] if isinstance(axis, int) else axis
            empty = 0 in [shape[one] for one in touched]
            if empty and name in ("max", "min", "mean", "std", "var"):
                continue
            want = getattr(np, name)(x, axis=axis, keepdims=keepdims)
            dtype_wanted = None
            if name in ("sum", "prod") and np.dtype(dtype).kind != "f":
                dtype_wanted = "uint64" if dtype.startswith("u") else "int64"
            tolerance = {"float32": 1e-5, "float64": 1e-12}.get(dtype)
            same(function(name)(cr.asarray(x), axis=axis, keepdims=keepdims), want, dtype_wanted, tolerance)


def test_reductions_of_nothing():
    nothing = cr.zeros((0, 3))
    assert cr.sum(nothing).item() == 0 and cr.prod(nothing, axis=0).tolist() == [1.0] * 3
    assert cr.all(nothing).item() is True and cr.any(nothing).item() is False
    assert math.isnan(cr.mean(nothing).item()) and math.isnan(cr.var(nothing).item())
    for name in ("max", "min", "argmax", "argmin"):
        with pytest.raises((cr.ShapeError, cr.ArgumentError), match=r"no elements|at least one element"):
            function(name)(nothing, axis=0)
    assert cr.max(nothing, axis=1).shape == (0,)


@pytest.mark.parametrize("dtype", FLOATS)
def test_correction_of_variances(dtype):
    x = sample((5, 3), dtype)
    for correction in (0, 1, 0.5):
        same(cr.var(cr.asarray(x), axis=0, correction=correction), np.var(x, axis=0, ddof=correction))
        same(cr.std(cr.asarray(x), axis=1, correction=correction), np.std(x, axis=1, ddof=correction))
    assert math.isinf(cr.var(cr.tensor([1.0, 2.0]), correction=2).item())
    shifted = cr.tensor(np.asarray([1e6, 1e6 + 1, 1e6 + 2]), dtype=cr.float64)
    assert cr.var(shifted).item() == pytest.approx(2 / 3, rel=1e-12)


def test_running_totals_equal_numpy():
    for dtype, shape in itertools.product(NUMBERS, [s for s in SHAPES if s]):
        x = sample(shape, dtype)
        kind = np.dtype(dtype).kind
        wide = None if kind == "f" else "uint64" if kind == "u" else "int64"
        for axis, initial in itertools.product(range(-len(shape), len(shape)), (False, True)):
            options = {"axis": axis, "include_initial": initial}
            same(cr.cumulative_sum(cr.asarray(x), **options), np.cumulative_sum(x, **options), wide, 1e-5)
            same(cr.cumulative_prod(cr.asarray(x), **options), np.cumulative_prod(x, **options), wide, 1e-5)
    same(cr.cumulative_sum(cr.asarray([1, 2])), [1, 3])
    assert cr.cumulative_sum(cr.ones(2), dtype=cr.float64).dtype == cr.float64
    with pytest.raises(cr.ShapeError, match="axis="):
        cr.cumulative_sum(cr.ones((2, 2)))


def test_large_float32_sums_do_not_stop_at_two_to_the_24():
    count = 20_000_000
    ones = cr.ones((count, 1))
    for axis in (None, 0, (0, 1)):
        assert cr.sum(ones, axis=axis).reshape(()).item() == count
    assert cr.sum(ones.reshape(1, count), axis=1).tolist() == [count]
    assert cr.cumulative_sum(ones, axis=0)[-1, 0].item() == count
    assert cr.mean(ones, axis=0).tolist() == [1.0]
    across = cr.ones((count // 4, 4))
    assert cr.sum(across, axis=0).tolist() == [count / 4] * 4


def test_diff_equals_numpy():
    for dtype, shape in itertools.product(
        ["float32", "float64", "int16", "uint8"], [(7,), (2, 3, 5), (1, 4), (0, 2)]
    ):
        x = sample(shape, dtype)
        for axis, n in itertools.product(range(-len(shape), len(shape)), (0, 1, 2, 9)):
            same(cr.diff(cr.asarray(x), axis=axis, n=n), np.diff(x, axis=axis, n=n))
    x, edge = sample((2, 3), "float64"), sample((2, 1), "float64")
    got = cr.diff(cr.asarray(x), prepend=cr.asarray(edge), append=cr.asarray(edge))
    same(got, np.diff(x, prepend=edge, append=edge))
    same(cr.diff(cr.asarray(x), axis=0, prepend=0.0), np.diff(x, axis=0, prepend=0.0))


# ----------------------------------------------------------------------------------- manipulation, values


@pytest.mark.parametrize("dtype", ["bool", "int16", "float64"])
def test_manipulation_equals_numpy(dtype):
    x = sample((2, 3, 5), dtype)
    t = cr.asarray(x)
    for shape in [(30,), (5, 6), (-1,), (3, -1, 2), (2, 3, 5), (1, 30, 1)]:
        same(cr.reshape(t, shape), x.reshape(shape))
    for axes in itertools.permutations(range(3)):
        same(cr.permute_dims(t, axes), x.transpose(axes))
    same(cr.matrix_transpose(t), x.swapaxes(-1, -2))
    for source, destination in [(0, 2), (-1, 0), ((0, 1), (1, 0)), ((0, 2), (-1, 0)), (1, 1)]:
        same(cr.moveaxis(t, source, destination), np.moveaxis(x, source, destination))
    for axis in (0, 3, -1, -4, (0, 2), (-1, 0)):
        same(cr.expand_dims(t, axis=axis), np.expand_dims(x, axis))
    thin = x[:, :1, None]
    for axis in (1, 2, -2, (1, 2)):
        same(cr.squeeze(cr.asarray(thin), axis), np.squeeze(thin, axis))
    same(cr.squeeze(cr.asarray(thin)), np.squeeze(thin))
    for axis in (None, 0, -1, (0, 2)):
        same(cr.flip(t, axis=axis), np.flip(x, axis))
    for shift, axis in [(2, None), (-1, 0), (7, 2), ((1, -2), (0, 1)), ((1, 1), (0, 0)), (0, 1)]:
        same(cr.roll(t, shift, axis=axis), np.roll(x, shift, axis))
    for repeats, axis in [(2, None), (3, 1), ([1, 0, 2], 1), (0, 0), ([2], 2)]:
        same(cr.repeat(t, repeats, axis=axis), np.repeat(x, repeats, axis))
    for repetitions in [(2,), (2, 1, 3), (1, 2, 1, 1), (0, 1), (1, 1, 1)]:
        same(cr.tile(t, repetitions), np.tile(x, repetitions))
    same(cr.broadcast_to(t[:, :1], (4, 2, 3, 5)), np.broadcast_to(x[:, :1], (4, 2, 3, 5)))
    for axis in (0, 1, -1):
        for part, other in zip(cr.unstack(t, axis=axis), np.unstack(x, axis=axis), strict=True):
            same(part, other)
    same(cr.pad(t, [(1, 0), (0, 2), (3, 1)]), np.pad(x, [(1, 0), (0, 2), (3, 1)]))
    same(cr.flatten(t, 1), x.reshape(2, 15))
    same(cr.flatten(cr.asarray(x[0, 0, 0])), x[0, 0, 0].reshape(1))


def test_joining_equals_numpy_and_promotes():
    x, y, z = sample((2, 3), "float32"), sample((2, 1), "int32"), sample((2, 0), "float64")
    same(cr.concat([cr.asarray(x), cr.asarray(y)], axis=1), np.concatenate([x, y], axis=1), "float32")
    same(cr.concat([cr.asarray(x), cr.asarray(z)], axis=-1), np.concatenate([x, z], axis=-1))
    same(cr.concat([cr.asarray(x), cr.asarray(y)], axis=None), np.concatenate([x, y], axis=None), "float32")
    same(cr.concat([cr.asarray(x)]), x)
    for axis in (0, 1, 2, -1):
        same(cr.stack([cr.asarray(x), cr.asarray(x) + 1], axis=axis), np.stack([x, x + 1], axis=axis))
    assert [one.shape for one in cr.broadcast_arrays(cr.ones(3), cr.ones((2, 1)))] == [(2, 3)] * 2
    assert cr.broadcast_shapes((3,), (2, 1), ()) == (2, 3)
    with pytest.raises(cr.ShapeError, match=r"\(3,\) and \(4,\)"):
        cr.broadcast_shapes((3,), (4,))


def test_no_function_gives_back_the_handle_it_got():
    x = cr.tensor([[1.0, 2.0]], requires_grad=True) * 1.0
    results = [
        cr.reshape(x, (1, 2)),
        cr.squeeze(x, ()),
        cr.moveaxis(x, 0, 0),
        cr.expand_dims(x, axis=()),
        cr.roll(x, 0, axis=0),
        cr.tile(x, (1, 1)),
        cr.clip(x),
        cr.diff(x, n=0),
        cr.astype(x, cr.float32),
        cr.positive(x),
        +x,
        x[...],
        x[:],
        cr.cumulative_prod(x, axis=0),
        cr.cumulative_sum(x, axis=0),
        cr.broadcast_to(x, (1, 2)),
        cr.flatten(x, 0, 0),
        x.clone(),
        x.detach(),
        cr.permute_dims(x, (0, 1)),
        cr.concat([x]),
        cr.repeat(x, 1, axis=0),
        cr.sort(x),
        cr.flip(x, axis=()),
    ]
    for result in results:
        assert result is not x
        result.__iadd__(1.0)
    assert x.tolist() == [[1.0, 2.0]]
    x.sum().backward()
    assert x.grad.tolist() == [[1.0, 1.0]]


# --------------------------------------------------------------------------- searching, sorting, sets, values


@pytest.mark.parametrize("dtype", NUMBERS)
def test_searching_and_sorting_equal_numpy(dtype):
    for shape in [(7,), (3, 5), (2, 3, 5), (1,), (2, 0)]:
        x = sample(shape, dtype)
        t = cr.asarray(x)
        for axis, keepdims in itertools.product([None, *range(-len(shape), len(shape))], (False, True)):
            if x.size:
                same(cr.argmax(t, axis=axis, keepdims=keepdims), np.argmax(x, axis=axis, keepdims=keepdims))
                same(cr.argmin(t, axis=axis, keepdims=keepdims), np.argmin(x, axis=axis, keepdims=keepdims))
        for axis in range(-len(shape), len(shape)):
            same(cr.argsort(t, axis=axis), np.argsort(x, axis=axis, stable=True))
            same(cr.sort(t, axis=axis), np.sort(x, axis=axis))
            same(cr.sort(t, axis=axis, descending=True), np.flip(np.sort(x, axis=axis), axis=axis))
        order = cr.argsort(t, descending=True)
        negative = -x.astype("float64")
        same(order, np.argsort(negative, axis=-1, stable=True))
        for got, want in zip(cr.nonzero(t), np.nonzero(x), strict=True):
            same(got, want)
        same(cr.isin(t, cr.asarray(x.reshape(-1)[:3])), np.isin(x, x.reshape(-1)[:3]))
        same(cr.isin(t, cr.asarray(x.reshape(-1)[:3]), invert=True), ~np.isin(x, x.reshape(-1)[:3]))


def test_unique_functions_follow_the_standard():
    x = np.asarray([[3.0, 1.0, np.nan], [1.0, np.nan, 3.0]])
    found = cr.unique_all(cr.asarray(x))
    assert found._fields == ("values", "indices", "inverse_indices", "counts")
    assert cr.unique_counts(x)._fields == ("values", "counts")
    assert cr.unique_inverse(x)._fields == ("values", "inverse_indices")
    np.testing.assert_array_equal(found.values.numpy(), [1.0, 3.0, np.nan, np.nan])
    assert found.counts.tolist() == [2, 2, 1, 1] and found.indices.tolist() == [1, 0, 2, 4]
    np.testing.assert_array_equal(found.values.numpy()[found.inverse_indices.numpy()], x)
    assert found.counts.dtype == found.indices.dtype == found.inverse_indices.dtype == cr.int64
    same(cr.unique_values(cr.asarray([2, 1, 2], dtype=cr.int8)), np.asarray([1, 2], np.int8))


def test_searchsorted_equals_numpy():
    edges, values = np.sort(sample((9,), "float64")), sample((4, 3), "float64")
    for side in ("left", "right"):
        same(
            cr.searchsorted(cr.asarray(edges), cr.asarray(values), side=side),
            np.searchsorted(edges, values, side),
        )
    mixed = sample((9,), "float64")
    order = cr.argsort(cr.asarray(mixed))
    same(cr.searchsorted(mixed, 0.5, sorter=order), np.searchsorted(np.sort(mixed), 0.5))
    with pytest.raises(cr.ShapeError, match="vector"):
        cr.searchsorted(cr.ones((2, 2)), 1.0)
    with pytest.raises(cr.ArgumentError, match="left"):
        cr.searchsorted(cr.ones(2), 1.0, side="middle")


def test_nan_in_orders_and_extremes():
    x = cr.tensor([2.0, math.nan, 1.0])
    assert math.isnan(cr.max(x).item()) and math.isnan(cr.min(x).item())
    assert cr.argmax(x).item() == cr.argmin(x).item() == 1
    assert cr.sort(x).tolist()[:2] == [1.0, 2.0]
    assert math.isnan(cr.maximum(math.nan, 1.0).item()) and math.isnan(cr.minimum(1.0, math.nan).item())


@pytest.mark.parametrize("kind", INTEGERS)
def test_taking_equals_numpy_for_every_index_type(kind):
    x = sample((4, 3, 5), "float64")
    indices = np.asarray([2, 0, 2], kind)
    for axis in (0, 1, -1):
        same(cr.take(cr.asarray(x), cr.asarray(indices), axis=axis), np.take(x, indices, axis=axis))
        along = np.asarray([[[1, 0, 2]]], kind) if axis == -1 else np.zeros((1, 1, 1), kind)
        same(
            cr.take_along_axis(cr.asarray(x), cr.asarray(along), axis=axis),
            np.take_along_axis(x, along.astype(np.int64), axis),
        )
    beyond = cr.asarray(np.asarray([np.iinfo(kind).max], kind))
    with pytest.raises(cr.BoundsError, match="needs indices from"):
        cr.take(cr.ones(3), beyond)
    with pytest.raises(cr.BoundsError, match="needs indices from"):
        cr.take_along_axis(cr.ones(3), beyond)


# ------------------------------------------------------------------------------------- products, values

PRODUCTS = [
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((2, 3), (5, 3, 4)),
    ((7, 1, 2, 3), (5, 3, 4)),
    ((3,), (5, 3, 4)),
    ((5, 2, 3), (3,)),
    ((2, 0), (0, 4)),
    ((0, 3), (3, 2)),
    ((1, 1), (1, 1)),
    ((4, 0, 2, 3), (3, 2)),
]


@pytest.mark.parametrize("shapes", PRODUCTS)
def test_matmul_equals_numpy(shapes):
    for dtype in ("float32", "float64", "int32", "uint8"):
        x, y = sample(shapes[0], dtype), sample(shapes[1], dtype)
        same(cr.matmul(cr.asarray(x), cr.asarray(y)), np.matmul(x, y))
        same(cr.asarray(x) @ y, x @ y)
        same(x @ cr.asarray(y), x @ y)


def test_tensordot_vecdot_outer_equal_numpy():
    x, y = sample((2, 3, 4), "float64"), sample((4, 3, 5), "float64")
    for axes in (0, 1, ((1,), (1,)), ((1, 2), (1, 0)), ((-1, 1), (0, -2))):
        same(cr.tensordot(cr.asarray(x), cr.asarray(y), axes=axes), np.tensordot(x, y, axes=axes))
    same(cr.tensordot(cr.asarray(x), cr.asarray(x), axes=3), np.tensordot(x, x, axes=3))
    same(cr.vecdot(cr.asarray(x), cr.asarray(x[0])), np.vecdot(x, x[0]))
    same(cr.vecdot(cr.asarray(x), cr.asarray(x), axis=-2), np.vecdot(x, x, axis=-2))
    same(cr.outer(cr.asarray(x[0, 0]), cr.asarray(y[0, 0])), np.outer(x[0, 0], y[0, 0]))
    with pytest.raises(cr.ShapeError, match="one length"):
        cr.vecdot(cr.ones((2, 1)), cr.ones((2, 3)))


def test_isclose_and_allclose_equal_numpy():
    x = np.asarray([1.0, 1.0 + 1e-9, np.inf, np.inf, np.nan, 1.0, -np.inf, 0.0])
    y = np.asarray([1.0, 1.0, np.inf, 1.0, np.nan, np.inf, np.inf, 1e-9])
    same(cr.isclose(x, y), np.isclose(x, y))
    same(cr.isclose(x, y, equal_nan=True), np.isclose(x, y, equal_nan=True))
    small = cr.asarray([1, 2], dtype=cr.uint8)
    assert cr.isclose(small, small + 1).tolist() == [False, False]
    assert cr.allclose([1.0, 2.0], [1.0, 2.0]) and not cr.allclose([1.0], [1.1])
