"""Pooling beside PyTorch: every option; ties, padding, NaN, empty batches; what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn
from chainrule.errors import ArgumentError, DtypeError, ShapeError
from chainrule.testing import check_grads
from rivals import torch
from torch_twins import same_compiled, same_function, same_layer

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape)


def tied(*shape: int) -> np.ndarray:
    """Few different numbers, so that most windows have several largest entries."""
    return RANDOM.integers(0, 3, shape).astype("f8")


MAX = [
    ("MaxPool1d", {"kernel_size": 2}, (2, 3, 7)),
    ("MaxPool1d", {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2}, (2, 3, 9)),
    ("MaxPool1d", {"kernel_size": 3, "stride": 2, "ceil_mode": True}, (3, 8)),
    ("MaxPool2d", {"kernel_size": 2}, (2, 3, 4, 6)),
    ("MaxPool2d", {"kernel_size": 3, "stride": 2, "padding": 1}, (2, 3, 7, 6)),
    ("MaxPool2d", {"kernel_size": 3, "stride": 1, "padding": 1}, (1, 2, 4, 5)),
    (
        "MaxPool2d",
        {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "ceil_mode": True},
        (2, 3, 8, 7),
    ),
    ("MaxPool2d", {"kernel_size": 2, "stride": 3, "dilation": (3, 1), "ceil_mode": True}, (2, 3, 9, 8)),
    ("MaxPool2d", {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True}, (2, 3, 5, 5)),
    ("MaxPool2d", {"kernel_size": (2, 3)}, (3, 5, 6)),
    ("MaxPool2d", {"kernel_size": 1}, (1, 2, 3, 3)),
    ("MaxPool2d", {"kernel_size": 5, "stride": 1, "padding": 2}, (1, 2, 6, 7)),
    (
        "MaxPool2d",
        {"kernel_size": (4, 3), "stride": (1, 2), "padding": (2, 1), "dilation": (2, 1)},
        (1, 2, 8, 7),
    ),
    ("MaxPool2d", {"kernel_size": 2}, (0, 3, 4, 6)),
]
MEAN = [
    ("AvgPool1d", {"kernel_size": 2}, (2, 3, 7)),
    ("AvgPool1d", {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}, (2, 3, 8)),
    ("AvgPool1d", {"kernel_size": 3, "stride": 2, "ceil_mode": True}, (3, 8)),
    ("AvgPool2d", {"kernel_size": 2}, (2, 3, 5, 6)),
    ("AvgPool2d", {"kernel_size": 3, "stride": 2, "padding": 1}, (2, 3, 7, 6)),
    ("AvgPool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}, (2, 3, 7, 6)),
    ("AvgPool2d", {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "ceil_mode": True}, (2, 3, 8, 7)),
    ("AvgPool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
     (2, 3, 8, 6)),
    ("AvgPool2d", {"kernel_size": 2, "divisor_override": 3}, (3, 5, 6)),
    ("AvgPool2d", {"kernel_size": (4, 5), "stride": (1, 2), "padding": (2, 1), "ceil_mode": True}, (1, 2, 8, 7)),
    ("AvgPool2d", {"kernel_size": 2}, (0, 3, 4, 6)),
]  # fmt: skip
ADAPTIVE = [
    ("AdaptiveAvgPool1d", 3, (2, 3, 7)), ("AdaptiveAvgPool1d", 1, (3, 7)), ("AdaptiveAvgPool1d", 9, (2, 3, 4)),
    ("AdaptiveAvgPool2d", 1, (2, 3, 5, 6)), ("AdaptiveAvgPool2d", (2, 3), (2, 3, 4, 6)),
    ("AdaptiveAvgPool2d", (3, 4), (2, 3, 7, 5)), ("AdaptiveAvgPool2d", (None, 2), (3, 7, 5)),
    ("AdaptiveAvgPool2d", 3, (0, 3, 4, 4)), ("AdaptiveAvgPool2d", (5, 7), (1, 2, 5, 4)),
    ("AdaptiveMaxPool1d", 3, (2, 3, 7)), ("AdaptiveMaxPool1d", 1, (3, 7)),
    ("AdaptiveMaxPool2d", 1, (2, 3, 5, 6)), ("AdaptiveMaxPool2d", (2, 3), (2, 3, 4, 6)),
    ("AdaptiveMaxPool2d", (3, 4), (2, 3, 7, 5)), ("AdaptiveMaxPool2d", (6, None), (3, 4, 5)),
]  # fmt: skip


@pytest.mark.pytorch
@pytest.mark.parametrize("values", [normal, tied])
@pytest.mark.parametrize("name,options,shape", MAX, ids=str)
def test_largest_entries(name: str, options: Any, shape: Any, values: Any) -> None:
    same_layer(getattr(nn, name)(**options), getattr(torch.nn, name)(**options), values(*shape))


@pytest.mark.pytorch
@pytest.mark.parametrize("name,options,shape", MEAN, ids=str)
def test_means(name: str, options: Any, shape: Any) -> None:
    same_layer(getattr(nn, name)(**options), getattr(torch.nn, name)(**options), normal(*shape))


@pytest.mark.pytorch
@pytest.mark.parametrize("values", [normal, tied])
@pytest.mark.parametrize("name,size,shape", ADAPTIVE, ids=str)
def test_even_areas(name: str, size: Any, shape: Any, values: Any) -> None:
    same_layer(getattr(nn, name)(size), getattr(torch.nn, name)(size), values(*shape))


@pytest.mark.pytorch
def test_functions_take_arguments_in_pytorchs_order() -> None:
    theirs, x, y = torch.nn.functional, normal(2, 3, 8), normal(2, 3, 8, 9)
    same_function(
        lambda a: F.max_pool1d(a, 3, 2, 1, 2, True), lambda a: theirs.max_pool1d(a, 3, 2, 1, 2, True), x
    )
    same_function(
        lambda a: F.max_pool2d(a, 3, 2, 1, 2, True), lambda a: theirs.max_pool2d(a, 3, 2, 1, 2, True), y
    )
    same_function(
        lambda a: F.avg_pool1d(a, 3, 2, 1, True, False),
        lambda a: theirs.avg_pool1d(a, 3, 2, 1, True, False),
        x,
    )
    same_function(
        lambda a: F.avg_pool2d(a, 3, 2, 1, True, False, 5),
        lambda a: theirs.avg_pool2d(a, 3, 2, 1, True, False, 5),
        y,
    )
    same_function(lambda a: F.adaptive_avg_pool1d(a, 3), lambda a: theirs.adaptive_avg_pool1d(a, 3), x)
    same_function(lambda a: F.adaptive_max_pool1d(a, 3), lambda a: theirs.adaptive_max_pool1d(a, 3), x)
    same_function(
        lambda a: F.adaptive_avg_pool2d(a, (3, 2)), lambda a: theirs.adaptive_avg_pool2d(a, (3, 2)), y
    )
    same_function(
        lambda a: F.adaptive_max_pool2d(a, (3, 2)), lambda a: theirs.adaptive_max_pool2d(a, (3, 2)), y
    )


def test_the_first_of_equal_entries_takes_the_gradient_and_padding_none() -> None:
    x = cr.tensor([[[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]], requires_grad=True)
    F.max_pool2d(x, 2, 1).sum().backward()
    assert x.grad.tolist() == [[[[1, 1, 0], [0, 0, 0]]]]
    below = cr.tensor([[[-5.0, -7.0, -6.0]]], requires_grad=True)
    pooled = F.max_pool1d(below, 3, 2, padding=1)
    assert pooled.tolist() == [[[-5, -6]]]
    pooled.sum().backward()
    assert below.grad.tolist() == [[[1, 0, 1]]]


def test_nan_and_infinity_show_in_their_windows_only() -> None:
    x = cr.tensor([[[np.nan, 1.0, 2.0, 3.0, np.inf, 0.0]]], requires_grad=True)
    largest = F.max_pool1d(x, 2)
    assert np.array_equal(largest.detach().numpy(), [[[np.nan, 3, np.inf]]], equal_nan=True)
    largest.sum().backward()
    assert x.grad.tolist() == [[[1, 0, 0, 1, 1, 0]]]
    holes = np.where(RANDOM.random((2, 2, 6, 7)) < 0.2, np.nan, tied(2, 2, 6, 7))
    same_compiled(nn.MaxPool2d(3, 2, 1), holes)
    for size in (3, 4):  # evenly, and with stretches of two lengths
        means = F.adaptive_avg_pool1d(x, size).detach().numpy()[0, 0]
        assert np.isnan(means[0]) and means[-1] == np.inf and np.isfinite(means[1])
    assert F.adaptive_max_pool1d(x, 4).detach().numpy()[0, 0, -1] == np.inf


@pytest.mark.parametrize("layer,shape", [
    (nn.MaxPool2d(3, 2, 1), (1, 2, 6, 5)), (nn.MaxPool1d(2, dilation=2, ceil_mode=True, stride=3), (2, 2, 7)),
    (nn.AvgPool2d((2, 3), 1, 1, count_include_pad=False), (1, 2, 4, 5)), (nn.AdaptiveAvgPool2d((3, 2)), (1, 2, 7, 5)),
    (nn.AdaptiveMaxPool2d((2, 3)), (1, 2, 5, 7)),
], ids=str)  # fmt: skip
def test_gradients_by_differences(layer: Any, shape: Any) -> None:
    check_grads(layer, (cr.tensor(normal(*shape)),), order=2)


@pytest.mark.parametrize("values", [normal, tied])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "name,options,shape", [MAX[1], *MAX[4:9], *MAX[11:14], MEAN[1], *MEAN[4:8], MEAN[9]], ids=str
)
def test_compiled_equals_eager(name: str, options: Any, shape: Any, dtype: str, values: Any) -> None:
    same_compiled(getattr(nn, name)(**options), values(*shape).astype(dtype))


@pytest.mark.parametrize(
    "name,size,shape", [ADAPTIVE[3], *ADAPTIVE[4:8], ADAPTIVE[11], ADAPTIVE[13]], ids=str
)
def test_compiled_areas_equal_eager_ones(name: str, size: Any, shape: Any) -> None:
    same_compiled(getattr(nn, name)(size), tied(*shape))


X = cr.ones((2, 3, 8, 8))
MISFITS = [
    (lambda: nn.MaxPool2d(9)(X), ShapeError, r"MaxPool2d needs 9 places or more; got 8, 8 with padding.*\(…, 8, 8\)"),
    (lambda: nn.Sequential(nn.MaxPool2d(4, dilation=3))(X), ShapeError, "MaxPool2d '0' needs 10 places"),
    (lambda: nn.MaxPool2d(3, padding=2)(X), ArgumentError, "padding of at most half the window; got padding 2"),
    (lambda: nn.AvgPool2d(2, padding=2)(X), ArgumentError, "padding of at most half the window"),
    (lambda: nn.MaxPool1d(2)(X), ShapeError, r"MaxPool1d needs \(N, C, L\), or \(C, L\) for one; got \(2, 3, 8, 8\)"),
    (lambda: nn.MaxPool2d(2)(cr.ones((8, 8))), ShapeError, r"Add the axis of channels: x\[None\]"),
    (lambda: nn.MaxPool2d(2)(cr.ones((2, 0, 8, 8))), ShapeError, "sizes from 1 on every axis but the batch"),
    (lambda: F.max_pool2d(cr.ones((2, 3, 8, 8), dtype="int64"), 2), DtypeError, "max_pool2d needs floats; got int64"),
    (lambda: nn.MaxPool2d(0), ArgumentError, "as kernel_size; got 0"),
    (lambda: nn.MaxPool2d(2, stride=0), ArgumentError, "as stride; got 0"),
    (lambda: nn.MaxPool2d(2, return_indices=True), ArgumentError, "largest entries only; got return_indices=True"),
    (lambda: F.adaptive_max_pool2d(X, 2, True), ArgumentError, "got return_indices=True"),
    (lambda: F.avg_pool2d(X, 2, divisor_override=0), ArgumentError, "other than 0 as divisor_override; got 0"),
    (lambda: nn.AdaptiveAvgPool2d((1, 2, 3)), ArgumentError, "2 sizes as output_size, or one"),
    (lambda: nn.AdaptiveMaxPool2d(0), ArgumentError, "as output_size; got 0"),
    (lambda: nn.AdaptiveAvgPool2d(2)(cr.ones((2, 3, 0, 8))), ShapeError, "sizes from 1 on every axis but the batch"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), MISFITS, ids=[words for *_, words in MISFITS])
def test_what_does_not_fit(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    assert "test_pooling.py" in str(caught.value)


def test_what_is_printed() -> None:
    assert (
        repr(nn.MaxPool2d(2)) == "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)"
    )
    assert repr(nn.AvgPool1d(3, 2)) == "AvgPool1d(kernel_size=3, stride=2, padding=0, ceil_mode=False)"
    assert repr(nn.AdaptiveAvgPool2d((1, None))) == "AdaptiveAvgPool2d(output_size=(1, None))"
