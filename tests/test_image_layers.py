"""Normalization and dropout of images beside PyTorch: running statistics, groups, root mean squares, channels."""

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
from torch_twins import close, same_compiled, same_function, same_layer

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape)


LAYERS = [
    ("BatchNorm2d", (3,), {}, (4, 3, 5, 2)),
    ("BatchNorm2d", (3,), {"momentum": 0.3, "eps": 1e-3, "affine": False}, (4, 3, 2, 2)),
    ("BatchNorm2d", (3,), {"momentum": None}, (2, 3, 1, 1)),
    ("BatchNorm2d", (3,), {"track_running_stats": False}, (2, 3, 4, 1)),
    ("BatchNorm1d", (3,), {}, (4, 3, 5)),
    ("GroupNorm", (2, 6), {}, (4, 6, 5, 2)),
    ("GroupNorm", (6, 6), {"eps": 1e-3}, (2, 6, 7)),
    ("GroupNorm", (1, 6), {"affine": False}, (3, 6)),
    ("GroupNorm", (2, 6), {}, (0, 6, 2, 2)),
    ("RMSNorm", (5,), {}, (4, 3, 5)),
    ("RMSNorm", ((3, 5),), {"eps": 1e-3}, (4, 3, 5)),
    ("RMSNorm", (5,), {"elementwise_affine": False}, (5,)),
]


@pytest.mark.pytorch
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name,sizes,options,shape", LAYERS, ids=str)
def test_layers(name: str, sizes: Any, options: Any, shape: Any, training: bool) -> None:
    ours, theirs = getattr(nn, name)(*sizes, **options), getattr(torch.nn, name)(*sizes, **options)
    with torch.no_grad():
        for value in theirs.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.tensor(RANDOM.uniform(0.5, 2.0, value.shape)))
    same_layer(ours, theirs, normal(*shape), training=training, calls=3)


@pytest.mark.pytorch
def test_functions() -> None:
    theirs = torch.nn.functional
    x, w, b = normal(3, 6, 4, 2), normal(6), normal(6)
    same_function(
        lambda *a: F.group_norm(a[0], 3, *a[1:], 1e-3),
        lambda *a: theirs.group_norm(a[0], 3, *a[1:], 1e-3),
        x,
        w,
        b,
    )
    same_function(lambda a: F.group_norm(a, 2), lambda a: theirs.group_norm(a, 2), x)
    same_function(
        lambda a, w: F.rms_norm(a, (4, 2), w, 1e-3),
        lambda a, w: theirs.rms_norm(a, (4, 2), w, 1e-3),
        x,
        normal(4, 2),
    )
    same_function(lambda a: F.rms_norm(a, 2), lambda a: theirs.rms_norm(a, (2,)), x)
    for shape in ((4, 6), (4, 6, 3), (4, 6, 3, 2)):
        mean, var = RANDOM.normal(size=6), RANDOM.uniform(1, 2, 6)
        ours, other = (cr.tensor(mean), cr.tensor(var)), (torch.tensor(mean), torch.tensor(var))
        same_function(
            lambda *a, ours=ours: F.batch_norm(a[0], *ours, *a[1:], training=True, momentum=0.2),
            lambda *a, other=other: theirs.batch_norm(a[0], *other, *a[1:], training=True, momentum=0.2),
            normal(*shape), w, b,
        )  # fmt: skip
        for one, two in zip(ours, other):
            close(one, two, "running statistics")


@pytest.mark.pytorch
def test_root_mean_squares_of_float32_take_its_own_eps() -> None:
    x = np.zeros((1, 2), "f4") + np.float32(1e-4)
    wanted = torch.nn.functional.rms_norm(torch.tensor(x), (2,)).numpy()
    np.testing.assert_allclose(F.rms_norm(cr.tensor(x), 2).numpy(), wanted, rtol=1e-6)


@pytest.mark.parametrize("layer,shape", [
    (nn.BatchNorm2d(3), (2, 3, 4, 3)), (nn.GroupNorm(2, 4), (2, 4, 3)), (nn.RMSNorm((3, 4)), (2, 3, 4)),
], ids=str)  # fmt: skip
def test_compiled_equals_eager_and_gradients(layer: Any, shape: Any) -> None:
    layer.to("float64")
    same_compiled(layer, normal(*shape))
    check_grads(layer, (cr.tensor(normal(*shape)),), order=2)


# ---------------------------------------------------------------------------------------- channels left out


@pytest.mark.parametrize("make,shape,function", [
    (nn.Dropout1d, (8, 100, 3), F.dropout1d), (nn.Dropout1d, (400, 3), F.dropout1d),
    (nn.Dropout2d, (8, 100, 3, 2), F.dropout2d), (nn.Dropout2d, (8, 100, 3), F.dropout2d),
])  # fmt: skip
def test_whole_channels_are_left_out(make: Any, shape: Any, function: Any) -> None:
    layer, x = make(0.25), cr.tensor(np.abs(normal(*shape)) + 1, requires_grad=True)
    cr.manual_seed(5)
    result = layer(x)
    places = int(np.prod(shape[-1:] if len(shape) < 4 else shape[-2:]))
    ratio = np.round(result.detach().numpy() / x.detach().numpy(), 12).reshape(-1, places)
    assert set(ratio.ravel()) == {0.0, np.round(4 / 3, 12)}
    assert (ratio == ratio[:, :1]).all(), "a channel was left out in part"
    assert 0.15 < (ratio[:, 0] == 0).mean() < 0.35
    result.sum().backward()
    np.testing.assert_allclose(x.grad.numpy() * x.detach().numpy(), result.detach().numpy(), rtol=1e-12)
    cr.manual_seed(5)
    assert np.array_equal(
        cr.compile(lambda x: function(x, 0.25))(x.detach()).numpy(), result.detach().numpy()
    )
    assert layer.eval()(x) is x or np.array_equal(layer(x).detach().numpy(), x.detach().numpy())
    assert not function(x, 1.0).detach().numpy().any()


@pytest.mark.pytorch
def test_unflatten() -> None:
    for dim, sizes in ((1, (3, 4)), (1, (-1, 2, 2)), (-1, [12]), (0, (2, 1))):
        same_function(nn.Unflatten(dim, sizes), torch.nn.Unflatten(dim, tuple(sizes)), normal(2, 12))
    assert repr(nn.Unflatten(1, (3, 4))) == "Unflatten(dim=1, unflattened_size=(3, 4))"


MISFITS = [
    (lambda: nn.BatchNorm2d(3)(cr.ones((2, 4, 5, 5))), ShapeError,
     r"BatchNorm2d needs \(N, 3, H, W\); got \(2, 4, 5, 5\)\. Change the input, or use nn\.BatchNorm2d\(4\)"),
    (lambda: nn.BatchNorm2d(3)(cr.ones((2, 3))), ShapeError, r"use nn\.BatchNorm1d\(3\)"),
    (lambda: nn.BatchNorm1d(3)(cr.ones((2, 3, 4, 4))), ShapeError,
     r"BatchNorm1d needs \(N, 3\) or \(N, 3, L\).*use nn\.BatchNorm2d\(3\)"),
    (lambda: nn.BatchNorm2d(3)(cr.ones((1, 3, 1, 1))), ShapeError, "two or more values for each channel in training"),
    (lambda: nn.GroupNorm(2, 5), ArgumentError, "groups that divide the channels; got num_groups=2 and num_channels=5"),
    (lambda: nn.GroupNorm(2, 6)(cr.ones((2, 5))), ShapeError, r"GroupNorm needs \(N, 6, …\); got \(2, 5\)"),
    (lambda: F.group_norm(cr.ones((2, 5)), 2), ArgumentError, r"got 2 groups for \(2, 5\)"),
    (lambda: F.group_norm(cr.ones((2, 4)), 2, cr.ones(2)), ShapeError, r"weight of shape \(4,\)"),
    (lambda: F.group_norm(cr.ones((2, 4)), 0), ArgumentError, "as num_groups; got 0"),
    (lambda: nn.RMSNorm(3)(cr.ones((2, 5))), ShapeError, r"RMSNorm needs \(3,\) as the last axes; got \(2, 5\)"),
    (lambda: F.rms_norm(cr.ones((2, 3)), 3, cr.ones(2)), ShapeError, r"weight of shape \(3,\); got \(2,\)"),
    (lambda: nn.RMSNorm(3)(cr.ones((2, 3), dtype="int64")), DtypeError, "RMSNorm needs floats"),
    (lambda: nn.Dropout2d()(cr.ones((2, 3))), ShapeError, r"Dropout2d needs channels .*3 or 4 axes; got \(2, 3\)"),
    (lambda: nn.Dropout2d(1.5), ArgumentError, "Dropout2d needs a probability from 0 to 1 as p; got 1.5"),
    (lambda: nn.Dropout1d(generator=3), ArgumentError, "Dropout1d needs a generator"),
    (lambda: nn.Unflatten(1, (5, 2))(cr.ones((2, 12))), ShapeError, r"as many entries as axis 1, 12; got \(2, 12\)"),
    (lambda: nn.Unflatten(1, 3), ArgumentError, "as unflattened_size; got 3"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), MISFITS, ids=[words for *_, words in MISFITS])
def test_what_does_not_fit(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    assert "test_image_layers.py" in str(caught.value)
