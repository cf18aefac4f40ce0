"""Every mistake is answered with the rule, the values got, the fix, and the user's own line."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest

import chainrule as cr
from chainrule import errors


def leaf():
    return cr.tensor([1.0, 2.0], requires_grad=True)


# name: (what the user does, class, parts of the message)
MISTAKES = {
    "add": (
        lambda: cr.ones((16, 8)) + cr.ones(3),
        cr.ShapeError,
        ["add needs shapes", "(16, 8) and (3,)", "Reshape one of them"],
    ),
    "add a column": (
        lambda: cr.ones((3, 4)) + cr.ones(3),
        cr.ShapeError,
        ["(3, 4) and (3,)", "Did you mean y[:, None], of shape (3, 1)?"],
    ),
    "add a column on the left": (
        lambda: cr.ones(3) * cr.ones((3, 4)),
        cr.ShapeError,
        ["multiply", "Did you mean x[:, None], of shape (3, 1)?"],
    ),
    "add transposed": (
        lambda: cr.ones((3, 4)) - cr.ones((4, 3)),
        cr.ShapeError,
        ["subtract", "(3, 4) and (4, 3)", ".T"],
    ),
    "where": (
        lambda: cr.where(cr.tensor([True, False]), cr.ones(3), 0.0),
        cr.ShapeError,
        ["where", "(2,) and (3,)"],
    ),
    "matmul": (
        lambda: cr.ones((32, 64)) @ cr.ones((32, 10)),
        cr.ShapeError,
        ["matmul needs x.shape[-1] == y.shape[-2]; got (32, 64) and (32, 10)", "Did you mean x.T?"],
    ),
    "matmul right": (
        lambda: cr.ones((32, 64)) @ cr.ones((10, 64)),
        cr.ShapeError,
        ["(32, 64) and (10, 64)", "Did you mean y.T?"],
    ),
    "matmul swapped": (lambda: cr.ones((3, 4)) @ cr.ones((5, 3)), cr.ShapeError, ["Did you mean y @ x?"]),
    "matmul hopeless": (
        lambda: cr.ones((3, 4)) @ cr.ones((5, 6)),
        cr.ShapeError,
        ["(3, 4) and (5, 6)", "Reshape"],
    ),
    "matmul vector": (
        lambda: cr.ones((3, 4)) @ cr.ones(5),
        cr.ShapeError,
        ["x.shape[-1] == y.shape[0]; got (3, 4) and (5,)"],
    ),
    "matmul swapped vector": (
        lambda: cr.ones((3, 4)) @ cr.ones(3),
        cr.ShapeError,
        ["(3, 4) and (3,)", "Did you mean y @ x?"],
    ),
    "matmul batch": (
        lambda: cr.ones((2, 3, 4)) @ cr.ones((5, 4, 3)),
        cr.ShapeError,
        ["matmul", "(2,) and (5,)"],
    ),
    "matmul number": (lambda: cr.ones((3, 4)) @ cr.tensor(2.0), cr.ShapeError, ["(3, 4) and ()", "Use *"]),
    "tensordot": (
        lambda: cr.tensordot(cr.ones((2, 3)), cr.ones((2, 3)), axes=1),
        cr.ShapeError,
        ["(2, 3)", "paired axes"],
    ),
    "tensordot too many": (
        lambda: cr.tensordot(cr.ones(3), cr.ones(3)),
        cr.ShapeError,
        ["over 2 axes", "(3,) and (3,)"],
    ),
    "outer": (
        lambda: cr.outer(cr.ones((2, 2)), cr.ones(2)),
        cr.ShapeError,
        ["two vectors; got (2, 2) and (2,)"],
    ),
    "concat": (
        lambda: cr.concat([cr.ones((2, 3)), cr.ones((2, 4))]),
        cr.ShapeError,
        ["concat", "(2, 3), (2, 4)"],
    ),
    "concat nothing": (lambda: cr.concat([]), cr.ArgumentError, ["at least one array"]),
    "stack": (
        lambda: cr.stack([cr.ones(2), cr.ones(3)]),
        cr.ShapeError,
        ["stack needs arrays of one shape; got (2,) and (3,)", "concat"],
    ),
    "reshape": (lambda: cr.ones((2, 3)).reshape(4), cr.ShapeError, ["(2, 3) (6) to (4,) (4)"]),
    "reshape rest": (
        lambda: cr.ones((2, 3)).reshape(4, -1),
        cr.ShapeError,
        ["cannot work out -1 in (4, -1); got (2, 3), 6 entries"],
    ),
    "reshape negative": (lambda: cr.ones((2, 3)).reshape(-2, -3), cr.ShapeError, ["(2, 3)"]),
    "reshape fraction": (
        lambda: cr.ones(4).reshape(2.0, 2),
        cr.ArgumentError,
        ["whole number as size; got 2.0"],
    ),
    "axis": (
        lambda: cr.ones((2, 3)).sum(2),
        cr.ShapeError,
        ["sum needs an axis from -2 to 1; got 2 for shape (2, 3)"],
    ),
    "axis of a number": (lambda: cr.tensor(1.0).sum(0), cr.ShapeError, ["single number has none"]),
    "axis twice": (lambda: cr.ones((2, 3)).sum((0, -2)), cr.ShapeError, ["different axes; got (0, -2)"]),
    "axis fraction": (lambda: cr.ones(2).sum(0.0), cr.ArgumentError, ["whole number as axis; got 0.0"]),
    "squeeze": (lambda: cr.squeeze(cr.ones((2, 3)), 0), cr.ShapeError, ["axes of size 1", "(2, 3)"]),
    "permute": (
        lambda: cr.permute_dims(cr.ones((2, 3)), (0,)),
        cr.ShapeError,
        ["each axis of (2, 3) once; got axes (0,)"],
    ),
    "broadcast_to": (
        lambda: cr.broadcast_to(cr.ones(3), (2, 4)),
        cr.ShapeError,
        ["broadcast_to", "(3,)", "(2, 4)"],
    ),
    "broadcast_to smaller": (
        lambda: cr.broadcast_to(cr.ones((2, 3)), (3,)),
        cr.ShapeError,
        ["cannot shrink; got (2, 3) to (3,)"],
    ),
    "repeat": (lambda: cr.repeat(cr.ones(3), [1, 2]), cr.ShapeError, ["3 of them", "[1, 2]"]),
    "pad": (lambda: cr.pad(cr.ones((2, 2)), [(1, 1)]), cr.ShapeError, ["(before, after)", "(2, 2)"]),
    "meshgrid": (lambda: cr.meshgrid(cr.ones((2, 2))), cr.ShapeError, ["vectors; got (2, 2)"]),
    "tril": (lambda: cr.tril(cr.ones(3)), cr.ShapeError, ["tril needs at least two axes"]),
    "nonzero": (lambda: cr.nonzero(cr.tensor(1.0)), cr.ShapeError, ["nonzero"]),
    "max of nothing": (lambda: cr.zeros((0, 2)).max(), cr.ShapeError, ["no elements", "(0, 2)"]),
    "take": (
        lambda: cr.take(cr.ones(3), cr.asarray([3])),
        cr.BoundsError,
        ["needs indices from -3 to 2; got 3"],
    ),
    "take floats": (
        lambda: cr.take(cr.ones(3), cr.ones(1)),
        cr.DtypeError,
        ["whole numbers as indices; got float32", "astype(int64)"],
    ),
    "take axis": (lambda: cr.take(cr.ones((3, 2)), [0]), cr.ShapeError, ["axis="]),
    "take_along_axis": (
        lambda: cr.take_along_axis(cr.ones((3, 2)), [0]),
        cr.ShapeError,
        ["2 axes; got (1,) for (3, 2)"],
    ),
    "integer types": (
        lambda: cr.ones(2, dtype=cr.uint64) + cr.ones(2, dtype=cr.int8),
        cr.DtypeError,
        ["add", "uint64 and int8", "astype"],
    ),
    "scalar too large": (
        lambda: cr.ones(2, dtype=cr.uint8) + 256,
        cr.DtypeError,
        ["uint8 holds 0 to 255; got 256"],
    ),
    "bits of floats": (lambda: cr.ones(2) & cr.ones(2), cr.DtypeError, ["bools or integers; got float32"]),
    "dtype": (lambda: cr.ones(2).astype("float16"), cr.DtypeError, ["must be one of", "float16"]),
    "operand": (lambda: cr.ones(2) + "a", cr.DtypeError, ["needs numbers; got 'a'"]),
    "too many": (lambda: cr.add(1.0, 2.0, 3.0), cr.ArgumentError, ["add takes x, y; got 3 arguments"]),
    "integer gradient": (
        lambda: cr.tensor([1, 2], requires_grad=True),
        cr.DtypeError,
        ["only floats have gradients; got int64", "1.0 instead of 1"],
    ),
    "integer gradient later": (
        lambda: cr.asarray([True]).requires_grad_(),
        cr.DtypeError,
        ["only floats have gradients; got bool"],
    ),
    "backward of many": (
        lambda: (leaf() * 2.0).backward(),
        cr.GradientError,
        ["one number to start from; got shape (2,)", ".sum()", "gradient="],
    ),
    "backward without": (lambda: cr.ones(()).backward(), cr.GradientError, ["requires_grad=True", "no_grad"]),
    "backward of integers": (lambda: cr.asarray(3).backward(), cr.GradientError, ["int64()"]),
    "backward of detached": (lambda: leaf().detach().sum().backward(), cr.GradientError, ["detached"]),
    "backward of a comparison": (lambda: (leaf() > 0).all().backward(), cr.GradientError, ["bool"]),
    "backward shape": (
        lambda: (leaf() * 2.0).backward(cr.ones(3)),
        cr.ShapeError,
        ["gradient (3,) for a tensor of shape (2,)"],
    ),
    "backward bools": (
        lambda: (leaf() * 2.0).backward([True, False]),
        cr.ArgumentError,
        ["numbers; got bools"],
    ),
    "backward inputs": (
        lambda: leaf().sum().backward(inputs=[cr.ones(2)]),
        cr.GradientError,
        ["inputs=", "float32(2,)"],
    ),
    "gradient of another shape": (
        lambda: setattr(leaf(), "grad", cr.ones(3)),
        cr.ShapeError,
        ["float32(2,); got float32(3,)"],
    ),
    "gradient of another kind": (
        lambda: setattr(leaf(), "grad", 1.0),
        cr.DtypeError,
        ["tensor or None; got float"],
    ),
    "numpy": (lambda: (leaf() * 2.0).numpy(), cr.GradientError, ["would cut", ".detach().numpy()"]),
    "bool": (lambda: bool(cr.ones(2)), cr.ShapeError, ["truth of 2 elements", "(2,)", "all() or any()"]),
    "if": (lambda: 1 if cr.ones((2, 2)) > 0 else 0, cr.ShapeError, ["truth of 4 elements"]),
    "item": (lambda: cr.ones(3).item(), cr.ShapeError, ["exactly one element; got shape (3,)", "tolist"]),
    "float": (lambda: float(cr.zeros(0)), cr.ShapeError, ["exactly one element; got shape (0,)"]),
    "int of NaN": (lambda: int(cr.tensor(math.nan)), cr.ArgumentError, ["nan"]),
    "index": (lambda: [1, 2][cr.tensor(1.0)], cr.DtypeError, ["whole number; got float32"]),
    "zeros": (lambda: cr.zeros((2, -1)), cr.ShapeError, ["zeros needs sizes from 0; got (2, -1)"]),
    "zeros fraction": (lambda: cr.zeros(2.5), cr.ArgumentError, ["whole number as size; got 2.5"]),
    "arange": (lambda: cr.arange(0, 1, 0), cr.ArgumentError, ["step other than 0"]),
    "arange of NaN": (lambda: cr.arange(math.nan), cr.ArgumentError, ["finite"]),
    "linspace": (lambda: cr.linspace(0, 1, -1), cr.ShapeError, ["sizes from 0"]),
    "full": (lambda: cr.full((2,), [1, 2]), cr.ShapeError, ["one number; got shape (2,)"]),
    "where condition": (
        lambda: cr.where(cr.ones(2), 1.0, 0.0),
        cr.DtypeError,
        ["bool condition; got float32", "x != 0"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_answered_in_the_words_of_the_user(name):
    act, error, parts = MISTAKES[name]
    with pytest.raises(error) as caught:
        act()
    message = str(caught.value)
    assert [part for part in parts if part not in message] == []
    assert re.search(rf"\(test_errors\.py:{act.__code__.co_firstlineno}\)$", message), message
    assert caught.value.origin.file == __file__


HUGE = {
    "zeros": lambda: cr.zeros((1 << 40, 1 << 40)),
    "ones": lambda: cr.ones((1 << 45, 8)),
    "full": lambda: cr.full((1 << 62, 4), 1.0),
    "arange": lambda: cr.arange(1 << 60),
    "linspace": lambda: cr.linspace(0, 1, 1 << 60),
    "eye": lambda: cr.eye(1 << 40),
    "broadcast_to": lambda: cr.broadcast_to(cr.ones(1), (1 << 33, 1 << 33)),
    "add": lambda: cr.ones((1 << 24, 1)) + cr.ones((1, 1 << 24)),
    "tile": lambda: cr.tile(cr.ones(4), (1 << 30, 1 << 30)),
    "repeat": lambda: cr.repeat(cr.ones(4), 1 << 60),
    "pad": lambda: cr.pad(cr.ones(4), [(1 << 50, 0)]),
    "meshgrid": lambda: cr.meshgrid(*[cr.ones(1 << 12)] * 4),
    "outer": lambda: cr.outer(cr.ones(1 << 24), cr.ones(1 << 24)),
    "reshape": lambda: cr.ones(1).reshape(1 << 32, 1 << 32),
    "randn": lambda: cr.randn(1 << 30, 1 << 30),
    "matmul": lambda: cr.ones((1 << 23, 1)) @ cr.ones((1, 1 << 23)),
}


@pytest.mark.parametrize("name", HUGE)
def test_shapes_beyond_memory_are_refused_before_memory_is_touched(name):
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(cr.ShapeError) as caught:
        HUGE[name]()
    assert "test_errors.py" in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 * 1024  # kilobytes


def test_numbers_at_the_edges_never_warn_or_fail():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in (cr.float32, cr.float64):
            x = cr.tensor(
                [0.0, -0.0, math.inf, -math.inf, math.nan, 1e38, 1e-45, -1.0], dtype=dtype, requires_grad=True
            )
            for name in (
                "exp",
                "log",
                "sqrt",
                "reciprocal",
                "acos",
                "atanh",
                "log1p",
                "tan",
                "cosh",
                "square",
                "expm1",
                "acosh",
                "sigmoid",
                "erf",
                "log2",
            ):
                getattr(cr, name)(x).sum().backward()
            for name in (
                "divide",
                "pow",
                "multiply",
                "add",
                "subtract",
                "remainder",
                "floor_divide",
                "hypot",
                "atan2",
                "logaddexp",
                "maximum",
            ):
                getattr(cr, name)(x[:, None], x).sum().backward()
            (x.sum() + x.prod() + x.var() + x.mean() + cr.cumulative_sum(x)[-1] + x.max()).backward()
            (x @ x + (x[:, None] @ x[None, :]).sum()).backward()
            x.detach().astype(cr.int8), x.detach().astype(cr.float32)
        for kind in ("int8", "int64", "uint8", "uint64"):
            limits = np.iinfo(kind)
            k = cr.tensor([0, 1, limits.min, limits.max], dtype=kind)
            for name in (
                "floor_divide",
                "remainder",
                "pow",
                "multiply",
                "add",
                "subtract",
                "bitwise_left_shift",
                "bitwise_right_shift",
                "divide",
            ):
                getattr(cr, name)(k[:, None], k)
            for name in ("abs", "negative", "square", "sign", "sqrt", "log", "reciprocal"):
                getattr(cr, name)(k)
            k.sum(), k.prod(), k @ k, cr.cumulative_prod(k), -k, k // 0, k % 0
        cr.var(cr.ones(1), correction=1), cr.mean(cr.ones(0)), cr.ones(1) / 0.0, 1 / cr.zeros(1)


def test_the_users_line_is_the_first_one_outside_the_package():
    def helper():
        return cr.ones(2) + cr.ones(3)

    with pytest.raises(cr.ShapeError) as caught:
        helper()
    assert caught.value.origin.line == helper.__code__.co_firstlineno + 1
    assert str(errors.Origin(helper.__code__, 0)).startswith("test_errors.py:")
    assert errors.at(None) == ""


def test_every_error_is_also_the_kind_that_python_would_raise():
    kinds = {
        cr.ShapeError: ValueError,
        cr.DtypeError: TypeError,
        cr.BoundsError: IndexError,
        cr.ArgumentError: ValueError,
        cr.GradientError: RuntimeError,
        cr.DataError: ValueError,
        cr.MissingExtraError: ImportError,
    }
    for kind, python in kinds.items():
        assert issubclass(kind, python) and issubclass(kind, cr.ChainruleError)
        assert str(kind("the rule")).startswith("the rule (test_errors.py:")
