"""Convolutions beside PyTorch: every option, both kinds; what does not fit; and a small network that learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim
from chainrule.errors import ArgumentError, DtypeError, ShapeError
from chainrule.testing import check_grads
from rivals import torch
from torch_twins import close, same_compiled, same_function, same_layer

pytestmark = pytest.mark.usefixtures("one_thread_of_pytorch")

RANDOM = np.random.default_rng(0)
EXAMPLES = json.loads((Path(__file__).parent / "data" / "worked_examples.json").read_text(encoding="utf-8"))


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape)


# --------------------------------------------------------------------------------------- beside PyTorch

ONE = [
    ((3, 4, 1), {}, (2, 3, 7)),
    ((3, 4, 3), {"padding": 1}, (2, 3, 7)),
    ((3, 4, 3), {"stride": 2, "padding": 2, "bias": False}, (2, 3, 8)),
    ((4, 6, 3), {"groups": 2, "dilation": 2, "padding": 3}, (1, 4, 9)),
    ((3, 4, 4), {"padding": "same"}, (2, 3, 7)),
    ((3, 4, 4), {"padding": "same", "dilation": 3}, (2, 3, 11)),
    ((3, 4, 3), {"padding": "valid", "stride": 3}, (2, 3, 11)),
    ((3, 4, 3), {"padding": 2, "padding_mode": "reflect"}, (2, 3, 5)),
    ((3, 4, 3), {"padding": 2, "padding_mode": "replicate"}, (2, 3, 5)),
    ((3, 4, 3), {"padding": 2, "padding_mode": "circular"}, (2, 3, 5)),
    ((3, 4, 4), {"padding": "same", "padding_mode": "reflect"}, (2, 3, 5)),
    ((3, 3, 3), {"groups": 3}, (5, 3, 3)),
    ((3, 4, 3), {"padding": 1}, (3, 7)),
    ((3, 4, 3), {}, (0, 3, 7)),
]
TWO = [
    ((3, 4, 1), {}, (2, 3, 5, 6)),
    ((3, 4, 3), {"padding": 1}, (2, 3, 5, 7)),
    ((3, 4, 3), {"stride": 2, "padding": 1}, (2, 3, 8, 7)),
    ((3, 4, (2, 3)), {"stride": (3, 1), "padding": (0, 2), "dilation": (2, 1)}, (2, 3, 9, 5)),
    ((4, 6, 3), {"groups": 2, "stride": 2, "bias": False}, (1, 4, 7, 6)),
    ((3, 6, 3), {"groups": 3, "padding": 1}, (2, 3, 4, 4)),
    ((3, 4, (4, 3)), {"padding": "same"}, (2, 3, 6, 5)),
    ((3, 4, 3), {"padding": (2, 1), "padding_mode": "reflect"}, (2, 3, 4, 5)),
    ((3, 4, 3), {"padding": 1, "padding_mode": "replicate", "stride": 2}, (2, 3, 4, 5)),
    ((3, 4, 3), {"padding": (2, 1), "padding_mode": "circular"}, (2, 3, 4, 5)),
    ((3, 4, (4, 2)), {"padding": "same", "padding_mode": "circular"}, (2, 3, 6, 5)),
    ((1, 1, 5), {"padding": 4}, (1, 1, 1, 1)),
    ((3, 4, 3), {}, (3, 5, 6)),
    ((3, 4, 3), {"padding": 1}, (0, 3, 5, 6)),
]


@pytest.mark.pytorch
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("sizes,options,shape", ONE, ids=str)
def test_conv1d(sizes: Any, options: Any, shape: Any) -> None:
    same_layer(nn.Conv1d(*sizes, **options), torch.nn.Conv1d(*sizes, **options), normal(*shape))


@pytest.mark.pytorch
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("sizes,options,shape", TWO, ids=str)
def test_conv2d(sizes: Any, options: Any, shape: Any) -> None:
    same_layer(nn.Conv2d(*sizes, **options), torch.nn.Conv2d(*sizes, **options), normal(*shape))


TRANSPOSED_ONE = [
    ((3, 4, 3), {}, (2, 3, 5)),
    ((3, 4, 4), {"stride": 2, "padding": 1}, (2, 3, 5)),
    ((4, 6, 3), {"stride": 3, "groups": 2, "output_padding": 2, "dilation": 2}, (2, 4, 5)),
    ((3, 4, 2), {"padding": 3}, (3, 9)),
]
TRANSPOSED_TWO = [
    ((3, 4, 2), {"stride": 2}, (2, 3, 4, 5)),
    ((3, 4, 3), {"stride": 2, "padding": 1, "output_padding": 1}, (2, 3, 4, 5)),
    ((4, 6, (3, 2)), {"stride": (1, 3), "padding": (2, 0), "groups": 2, "bias": False}, (1, 4, 5, 3)),
    ((3, 4, 3), {"dilation": 2, "output_padding": 1, "padding": (1, 2)}, (2, 3, 4, 5)),
    ((3, 4, (1, 3)), {"padding": (1, 3)}, (2, 3, 5, 8)),
    ((3, 3, 3), {"groups": 3}, (3, 4, 5)),
    ((3, 4, 2), {"stride": 2}, (0, 3, 4, 5)),
]


@pytest.mark.pytorch
@pytest.mark.parametrize("sizes,options,shape", TRANSPOSED_ONE, ids=str)
def test_conv_transpose1d(sizes: Any, options: Any, shape: Any) -> None:
    same_layer(
        nn.ConvTranspose1d(*sizes, **options), torch.nn.ConvTranspose1d(*sizes, **options), normal(*shape)
    )


@pytest.mark.pytorch
@pytest.mark.parametrize("sizes,options,shape", TRANSPOSED_TWO, ids=str)
def test_conv_transpose2d(sizes: Any, options: Any, shape: Any) -> None:
    same_layer(
        nn.ConvTranspose2d(*sizes, **options), torch.nn.ConvTranspose2d(*sizes, **options), normal(*shape)
    )


@pytest.mark.pytorch
@pytest.mark.parametrize("size", [9, (9, 10), [2, 4, 9, 10]])
def test_the_output_size_of_a_transposed_convolution(size: Any) -> None:
    ours, theirs = nn.ConvTranspose2d(3, 4, 3, 2, 1), torch.nn.ConvTranspose2d(3, 4, 3, 2, 1).double()
    ours.to("float64").load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    x = normal(2, 3, 5, 5)
    wanted = theirs(torch.tensor(x), output_size=[9, 9] if size == 9 else size)
    close(ours(cr.tensor(x), output_size=size), wanted, "output")
    with pytest.raises(ShapeError, match=r"can give sizes from \(9, 9\) to \(10, 10\).*got output_size=11"):
        ours(cr.tensor(x), output_size=11)


@pytest.mark.pytorch
def test_functions_take_arguments_in_pytorchs_order() -> None:
    x, w, b = normal(2, 4, 9), normal(6, 2, 3), normal(6)
    same_function(
        lambda *a: F.conv1d(*a, 2, 1, 2, 2), lambda *a: torch.nn.functional.conv1d(*a, 2, 1, 2, 2), x, w, b
    )
    x, w, b = normal(2, 4, 6, 7), normal(6, 2, 3, 2), normal(6)
    same_function(
        lambda *a: F.conv2d(*a, (2, 1), (1, 0), 1, 2),
        lambda *a: torch.nn.functional.conv2d(*a, (2, 1), (1, 0), 1, 2),
        x, w, b,
    )  # fmt: skip
    x, w, b = normal(2, 4, 5, 6, 7), normal(6, 2, 2, 3, 2), normal(6)
    same_function(
        lambda *a: F.conv3d(*a, (2, 1, 1), (1, 0, 1), 1, 2),
        lambda *a: torch.nn.functional.conv3d(*a, (2, 1, 1), (1, 0, 1), 1, 2),
        x, w, b,
    )  # fmt: skip
    x, w, b = normal(2, 4, 3, 4, 3), normal(4, 3, 2, 3, 2), normal(6)
    same_function(
        lambda *a: F.conv_transpose3d(*a, 2, 1, 1, 2),
        lambda *a: torch.nn.functional.conv_transpose3d(*a, 2, 1, 1, 2),
        x, w, b,
    )  # fmt: skip
    x, w, b = normal(2, 4, 4, 3), normal(4, 3, 3, 2), normal(6)
    same_function(
        lambda *a: F.conv_transpose2d(*a, 2, 1, 1, 2),
        lambda *a: torch.nn.functional.conv_transpose2d(*a, 2, 1, 1, 2),
        x, w, b,
    )  # fmt: skip
    x, w, b = normal(2, 4, 5), normal(4, 3, 3), normal(6)
    same_function(
        lambda *a: F.conv_transpose1d(*a, 2, 1, 1, 2, 3),
        lambda *a: torch.nn.functional.conv_transpose1d(*a, 2, 1, 1, 2, 3),
        x, w, b,
    )  # fmt: skip


def test_first_values_are_spread_as_pytorchs() -> None:
    """Uniform up to 1/√fan, weight and bias, where fan counts the weight's second axis."""
    cr.manual_seed(0)
    for layer, fan in (
        (nn.Conv2d(16, 64, 3, groups=2), 72),
        (nn.Conv1d(16, 64, 5), 80),
        (nn.ConvTranspose2d(64, 16, 3, groups=2), 72),
    ):
        bound = 1 / fan**0.5
        for one, least in ((layer.weight.numpy(), 0.99), (layer.bias.numpy(), 0.7)):
            assert least * bound < np.abs(one).max() <= bound
            assert abs(one.std() * 3**0.5 - bound) < 0.35 * bound


# ------------------------------------------------------------------------------------------- by hand


def test_the_worked_example() -> None:
    example = (
        EXAMPLES["convolution"]["given"] if "given" in EXAMPLES["convolution"] else EXAMPLES["convolution"]
    )
    x, w = (cr.tensor(np.asarray(example[name], "f8")[None, None], requires_grad=True) for name in "xw")
    out = F.conv2d(x, w)
    out.backward(cr.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], dtype="float64"))
    assert out.tolist() == [[[[7, 9], [13, 15]]]]
    assert w.grad.tolist() == [[[[37, 47], [67, 77]]]]
    assert x.grad.tolist() == [[[[1, 2, 0], [2, 4, 4], [-3, 2, 8]]]]


@pytest.mark.parametrize("options", [
    {"stride": 2, "padding": 1}, {"groups": 3, "dilation": (1, 2)},
    {"padding": "same", "padding_mode": "reflect"},
], ids=str)  # fmt: skip
def test_gradients_by_differences(options: Any) -> None:
    layer = nn.Conv2d(3, 3, 3, dtype="float64", **options)
    check_grads(layer, (cr.tensor(normal(1, 3, 5, 6)),), order=2)


@pytest.mark.parametrize("kind,sizes,options,shape", [
    (nn.Conv1d, *ONE[3]), (nn.Conv1d, *ONE[9]), (nn.Conv1d, *ONE[12]),
    (nn.Conv2d, *TWO[1]), (nn.Conv2d, *TWO[3]), (nn.Conv2d, *TWO[5]), (nn.Conv2d, *TWO[7]), (nn.Conv2d, *TWO[13]),
    (nn.ConvTranspose2d, *TRANSPOSED_TWO[1]), (nn.ConvTranspose2d, *TRANSPOSED_TWO[2]),
], ids=str)  # fmt: skip
def test_compiled_equals_eager(kind: Any, sizes: Any, options: Any, shape: Any) -> None:
    same_compiled(kind(*sizes, dtype="float64", **options), normal(*shape))


def test_other_memory_orders_and_types() -> None:
    x, w = normal(2, 3, 6, 5), normal(4, 3, 3, 3)
    wanted = F.conv2d(cr.tensor(x), cr.tensor(w)).numpy()
    for stepped in (
        np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        x[:, :, ::-1][:, :, ::-1],
    ):
        np.testing.assert_allclose(F.conv2d(cr.tensor(stepped), cr.tensor(w)).numpy(), wanted, 1e-13)
    single = F.conv2d(cr.tensor(x.astype("f4")), cr.tensor(w.astype("f4")))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single.numpy(), wanted, atol=1e-5)


# ------------------------------------------------------------------------------------- what does not fit

X = cr.ones((2, 3, 8, 8))
MISFITS = [
    (lambda: nn.Conv2d(3, 4, 3)(cr.ones((2, 8, 8, 3))), ShapeError,
     r"Conv2d needs 3 channels, x \(N, 3, H, W\); got \(2, 8, 8, 3\)\. Channels come first: .*\(0, 3, 1, 2\)"),
    (lambda: nn.Conv2d(3, 4, 3)(cr.ones((8, 8, 3))), ShapeError, r"permute_dims\(x, \(2, 0, 1\)\)"),
    (lambda: nn.Conv2d(1, 4, 3)(cr.ones((5, 8, 8))), ShapeError, r"got \(5, 8, 8\)\. For a batch .*x\[:, None\]"),
    (lambda: nn.Sequential(nn.Conv2d(5, 4, 3))(X), ShapeError, r"Conv2d '0' needs 5 channels.*got \(2, 3, 8, 8\)"),
    (lambda: nn.Conv2d(3, 4, 3)(cr.ones((8, 8))), ShapeError, r"needs \(N, C, H, W\), or \(C, H, W\).*x\[None\]"),
    (lambda: nn.Conv1d(3, 4, 3)(X), ShapeError, r"Conv1d needs \(N, C, L\).*got \(2, 3, 8, 8\)\. Reshape it"),
    (lambda: nn.Conv2d(3, 4, 5, dilation=2)(X), ShapeError,
     r"needs \(9, 9\) places or more for a kernel \(5, 5\).*got \(8, 8\), \(8, 8\) with padding. Pad more"),
    (lambda: nn.Conv2d(3, 4, 3)(cr.ones((2, 3, 0, 8))), ShapeError, "needs .* places or more"),
    (lambda: F.conv2d(cr.ones((2, 4, 8, 8)), cr.ones((3, 2, 3, 3)), groups=2), ArgumentError,
     "as many output channels in every group; got 3 for groups=2"),
    (lambda: F.conv2d(X, cr.ones((4, 3, 3))), ShapeError, r"a weight \(O, C/groups, …\) with 4 axes; got \(4, 3, 3\)"),
    (lambda: F.conv2d(X, cr.ones((4, 3, 3, 3)), cr.ones(3)), ShapeError, r"a bias of shape \(4,\); got \(3,\)"),
    (lambda: F.conv2d(X, cr.ones((0, 3, 3, 3))), ShapeError, "a weight with sizes from 1"),
    (lambda: nn.Conv2d(3, 4, 3)(cr.ones((2, 3, 8, 8), dtype="int64")), DtypeError, "Conv2d needs floats; got int64"),
    (lambda: F.conv2d(X, cr.ones((4, 3, 3, 3), dtype="float64")), DtypeError, r"one dtype; got float32 and float64"),
    (lambda: F.conv2d(cr.ones((2, 3, 8, 8), dtype="int32"), X), DtypeError, "conv2d needs floats; got int32"),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), ArgumentError, "divide in_channels; got in_channels=3 and groups=2"),
    (lambda: nn.Conv2d(4, 5, 3, groups=2), ArgumentError, "divide out_channels"),
    (lambda: nn.Conv2d(3, 4, 3, padding="same", stride=2), ArgumentError, r"padding='same' for stride 1 only"),
    (lambda: nn.Conv2d(3, 4, 3, padding="half"), ArgumentError, "'same' or 'valid' as padding; got 'half'"),
    (lambda: nn.Conv2d(3, 4, 3, padding=-1), ArgumentError, "a whole number from 0, or 2 of them, as padding; got -1"),
    (lambda: nn.Conv2d(3, 4, 0), ArgumentError, "a whole number from 1, or 2 of them, as kernel_size; got 0"),
    (lambda: nn.Conv2d(3, 4, (3, 3, 3)), ArgumentError, r"as kernel_size; got \(3, 3, 3\)"),
    (lambda: nn.Conv2d(3, 4, 3, stride=1.5), ArgumentError, "as stride; got 1.5"),
    (lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"), ArgumentError, "padding_mode must be 'zeros', 'reflect'"),
    (lambda: nn.Conv2d(3, 4, 3, padding=8, padding_mode="reflect")(X), ShapeError, "from 0 to 7 places around"),
    (lambda: nn.Conv2d(3, 4, 3, device="cuda"), ArgumentError, "got device='cuda'"),
    (lambda: nn.ConvTranspose2d(3, 4, 3, padding="same"), ArgumentError, "needs numbers as padding; got 'same'"),
    (lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"), ArgumentError, "needs padding_mode='zeros'"),
    (lambda: nn.ConvTranspose2d(3, 4, 3, output_padding=1)(X), ArgumentError, "less than stride or dilation; got"),
    (lambda: nn.ConvTranspose2d(3, 4, 1, padding=4)(X), ShapeError, "would have no output"),
    (lambda: nn.ConvTranspose2d(5, 4, 3)(X), ShapeError, "ConvTranspose2d needs 5 channels"),
    (lambda: F.conv_transpose2d(X, cr.ones((3, 1, 2, 2)), groups=2), ArgumentError, "got 3 for groups=2"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), MISFITS, ids=[words for *_, words in MISFITS])
def test_what_does_not_fit(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    assert "test_convolution.py" in str(caught.value)


def test_harmless_keywords_and_what_is_printed() -> None:
    layer = nn.Conv2d(3, 8, 3, padding=1, groups=1, bias=False, device="cpu")
    assert repr(layer) == "Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)"
    assert repr(nn.ConvTranspose1d(4, 2, 3, 2, output_padding=1, groups=2)) == (
        "ConvTranspose1d(4, 2, kernel_size=(3,), stride=(2,), output_padding=(1,), groups=2)"
    )


def test_summary_counts_the_products_of_convolutions() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(8, 2, (1, 2), bias=False)
    )
    found = nn.summary(model, (5, 4, 6, 7))
    assert [row.multiply_adds for row in found.layers if row.path] == [
        5 * 8 * 6 * 7 * 2 * 9,
        0,
        5 * 2 * 6 * 6 * 8 * 2,
    ]
    assert [row.output for row in found.layers if row.path] == [(5, 8, 6, 7), (5, 8, 6, 7), (5, 2, 6, 6)]
    assert found.parameters == 8 * 2 * 9 + 8 + 2 * 8 * 2


# ----------------------------------------------------------------------------------------------- training


def network(library: Any) -> Any:
    return library.Sequential(
        library.Conv2d(2, 6, 3, padding=1, bias=False),
        library.BatchNorm2d(6),
        library.ReLU(),
        library.MaxPool2d(2),
        library.Conv2d(6, 8, 3, stride=2, padding=1, groups=2),
        library.GroupNorm(4, 8),
        library.ReLU(),
        library.AdaptiveAvgPool2d((2, 2)),
        library.Flatten(),
        library.Linear(32, 4),
    )


@pytest.mark.pytorch
@pytest.mark.parametrize("compiled", [False, True])
def test_fifty_steps_beside_pytorch(compiled: bool) -> None:
    model, twin = network(nn).to("float64"), network(torch.nn).double()
    model.load_state_dict({key: value.numpy() for key, value in twin.state_dict().items()})
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    other = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)

    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    run = cr.compile(step) if compiled else step
    draw = np.random.default_rng(3)
    losses = []
    for _ in range(50):
        x, y = draw.normal(size=(5, 2, 9, 8)), draw.integers(0, 4, 5)
        losses.append(run(cr.tensor(x), cr.tensor(y)).item())
        loss = torch.nn.functional.cross_entropy(twin(torch.tensor(x)), torch.tensor(y))
        other.zero_grad()
        loss.backward()
        other.step()
        assert losses[-1] == pytest.approx(loss.item(), rel=1e-9, abs=1e-9)
    for name, value in twin.state_dict().items():
        close(model.state_dict()[name], value, name)
