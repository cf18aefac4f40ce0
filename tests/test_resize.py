"""Resizing and padding beside PyTorch: modes, sizes and factors; what does not fit."""

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


NEAREST = [
    ((2, 3, 5), {"size": 10}), ((2, 3, 5), {"size": 7}), ((2, 3, 7), {"size": 3}), ((2, 3, 5), {"scale_factor": 2}),
    ((2, 3, 5), {"scale_factor": 1.5}), ((2, 3, 9), {"scale_factor": 0.4}), ((2, 3, 5), {"size": 5}),
    ((2, 3, 4, 5), {"size": (8, 15)}), ((2, 3, 4, 5), {"size": (3, 11)}), ((2, 3, 4, 5), {"scale_factor": 2}),
    ((2, 3, 4, 5), {"scale_factor": (2.7, 0.7)}), ((2, 3, 4, 5), {"scale_factor": 2.3}),
    ((2, 3, 4, 5), {"scale_factor": 2.3, "recompute_scale_factor": True}), ((0, 3, 4, 5), {"size": 8}),
]  # fmt: skip


@pytest.mark.pytorch
@pytest.mark.parametrize("shape,options", NEAREST, ids=str)
def test_nearest(shape: Any, options: Any) -> None:
    same_function(
        lambda x: F.interpolate(x, **options),
        lambda x: torch.nn.functional.interpolate(x, **options),
        normal(*shape),
    )


@pytest.mark.pytorch
def test_nearest_takes_the_same_entries_for_every_size() -> None:
    """Where a place falls on the border of two entries, rounding decides; it must decide as in PyTorch."""
    for size in range(1, 40):
        x = np.arange(size, dtype="f8")[None, None]
        for target in (1, 2, 3, 7, 12, 25, 31, 39, 64):
            wanted = torch.nn.functional.interpolate(torch.tensor(x), size=target).numpy()
            assert np.array_equal(F.interpolate(cr.tensor(x), size=target).numpy(), wanted), (size, target)
        for factor in (0.3, 0.7, 1.1, 1.7, 2.9, 3.3):
            if int(size * factor):
                wanted = torch.nn.functional.interpolate(torch.tensor(x), scale_factor=factor).numpy()
                got = F.interpolate(cr.tensor(x), scale_factor=factor).numpy()
                assert np.array_equal(got, wanted), (size, factor)


LINEAR = [
    ((2, 3, 5), {"size": 10}), ((2, 3, 5), {"size": 7}), ((2, 3, 7), {"size": 3}), ((2, 3, 5), {"size": 1}),
    ((2, 3, 1), {"size": 4}), ((2, 3, 5), {"scale_factor": 1.7}),
    ((2, 3, 5), {"scale_factor": 1.7, "recompute_scale_factor": True}),
    ((2, 3, 4, 5), {"size": (8, 15)}), ((2, 3, 4, 5), {"size": (3, 11)}), ((2, 3, 4, 5), {"scale_factor": 2}),
    ((2, 3, 4, 5), {"scale_factor": (2.7, 0.7)}), ((2, 3, 4, 5), {"size": (4, 5)}), ((0, 3, 4, 5), {"size": 8}),
]  # fmt: skip


@pytest.mark.pytorch
@pytest.mark.parametrize("corners", [False, True, None])
@pytest.mark.parametrize("shape,options", LINEAR, ids=str)
def test_between_entries(shape: Any, options: Any, corners: bool | None) -> None:
    mode = "linear" if len(shape) == 3 else "bilinear"
    same_function(
        lambda x: F.interpolate(x, mode=mode, align_corners=corners, **options),
        lambda x: torch.nn.functional.interpolate(x, mode=mode, align_corners=corners, **options),
        normal(*shape),
    )


@pytest.mark.pytorch
def test_the_layer() -> None:
    for options in ({"size": 7}, {"scale_factor": 2, "mode": "bilinear", "align_corners": True}):
        same_layer(nn.Upsample(**options), torch.nn.Upsample(**options), normal(2, 3, 4, 5))
    assert repr(nn.Upsample(scale_factor=2)) == "Upsample(scale_factor=2, mode='nearest')"
    assert repr(nn.Upsample((4, 5), mode="bilinear")) == "Upsample(size=(4, 5), mode='bilinear')"


@pytest.mark.parametrize("options", [
    {"scale_factor": 2}, {"size": (7, 3)}, {"size": (7, 3), "mode": "bilinear"},
    {"scale_factor": 2, "mode": "bilinear", "align_corners": True},
], ids=str)  # fmt: skip
def test_compiled_equals_eager(options: Any) -> None:
    same_compiled(nn.Upsample(**options), normal(2, 3, 4, 5))
    check_grads(nn.Upsample(**options), (cr.tensor(normal(1, 1, 3, 4)),), order=2)


# ----------------------------------------------------------------------------------------------- padding

PADS = [
    ((2, 3, 5), (2, 1), {}), ((2, 3, 5), (2, 1), {"value": 4.5}), ((2, 3, 5), (-1, 2), {"value": -1.0}),
    ((2, 3, 4, 5), (1, 2, 3, 0), {}), ((2, 3, 4, 5), (-1, -2, 1, -1), {}), ((3, 4), (1, 1, 2, 2), {"value": 1.0}),
    ((2, 3, 5), (3, 4), {"mode": "reflect"}), ((2, 3, 4, 5), (4, 1, 0, 3), {"mode": "reflect"}),
    ((2, 3, 5), (7, 1), {"mode": "replicate"}), ((2, 3, 4, 5), (1, 2, 3, 0), {"mode": "replicate"}),
    ((2, 3, 5), (5, 4), {"mode": "circular"}), ((2, 3, 4, 5), (1, 2, 3, 0), {"mode": "circular"}),
]  # fmt: skip


@pytest.mark.pytorch
@pytest.mark.parametrize("shape,widths,options", PADS, ids=str)
def test_padding(shape: Any, widths: Any, options: Any) -> None:
    ours, theirs = (
        lambda x: F.pad(x, widths, **options),
        lambda x: torch.nn.functional.pad(x, widths, **options),
    )
    same_function(ours, theirs, normal(*shape))
    compiled = cr.compile(ours)
    x = cr.tensor(normal(*shape))
    assert np.array_equal(compiled(x).numpy(), ours(x).numpy())


@pytest.mark.pytorch
def test_zero_pad_layer() -> None:
    for padding, shape in ((2, (2, 3, 4, 5)), ((1, 0, -1, 2), (2, 3, 4, 5)), ((1, 2, 3, 4), (3, 4, 5))):
        same_layer(nn.ZeroPad2d(padding), torch.nn.ZeroPad2d(padding), normal(*shape))
    assert repr(nn.ZeroPad2d(1)) == "ZeroPad2d((1, 1, 1, 1))"


X = cr.ones((2, 3, 4, 5))
MISFITS = [
    (lambda: F.interpolate(X), ArgumentError, "needs size or scale_factor; got size=None, scale_factor=None"),
    (lambda: F.interpolate(X, 4, 2.0), ArgumentError, "needs size or scale_factor; got size=4"),
    (lambda: F.interpolate(X, scale_factor=0), ArgumentError, "a number above 0, or 2 of them, as scale_factor; got 0"),
    (lambda: F.interpolate(X, scale_factor=0.1), ShapeError, r"would leave no entries of \(4, 5\)"),
    (lambda: F.interpolate(X, size=(1, 2, 3)), ArgumentError, "as size"),
    (lambda: F.interpolate(X, 4, mode="linear"), ArgumentError, r"mode='bilinear' or 'nearest' for \(N, C, H, W\)"),
    (lambda: F.interpolate(X, 4, mode="bicubic"), ArgumentError, "'nearest', 'linear' or 'bilinear' as mode"),
    (lambda: F.interpolate(X, 4, align_corners=True), ArgumentError, "can align corners with"),
    (lambda: nn.Upsample(scale_factor=2)(cr.ones((3, 4))), ShapeError, r"Upsample needs \(N, C, L\) or \(N, C, H, W\)"),
    (lambda: nn.Upsample(), ArgumentError, "Upsample needs size or scale_factor"),
    (lambda: F.interpolate(cr.ones((1, 1, 4), dtype="int32"), 8), DtypeError, "interpolate needs floats; got int32"),
    (lambda: F.pad(X, (1,)), ArgumentError, r"two for each of the last axes.*got \(1,\)"),
    (lambda: F.pad(X, (1, 1), "mirror"), ArgumentError, "mode must be 'constant', 'reflect'"),
    (lambda: F.pad(X, (1, 1), "reflect", 2.0), ArgumentError, "a value with mode='constant' only"),
    (lambda: F.pad(X, (5, 0), "reflect"), ShapeError, "'reflect' needs from 0 to 4 places around an axis of 5"),
    (lambda: F.pad(X, (-3, -3)), ShapeError, "cannot cut off more than there is"),
    (lambda: nn.ZeroPad2d((1, 2)), ArgumentError, r"\(left, right, top, bottom\), as padding; got \(1, 2\)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), MISFITS, ids=[words for *_, words in MISFITS])
def test_what_does_not_fit(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    assert "test_resize.py" in str(caught.value)
