"""Files and state dictionaries to and from PyTorch: names, types, shared weights, and what does not fit in words."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError, ShapeError
from rivals import RIVALS, torch

pytestmark = pytest.mark.pytorch

files: Any = importlib.import_module("safetensors.torch") if RIVALS["pytorch"].installed else None


def network(nn: Any) -> Any:
    """The same model in either library, with the same names."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(7, 4, padding_idx=0)
            self.body = nn.Sequential(
                nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.LayerNorm(6), nn.Dropout(0.5)
            )
            self.heads = nn.ModuleDict({"kind": nn.Linear(6, 3), "price": nn.Linear(6, 1, bias=False)})
            self.extra = nn.ModuleList([nn.Linear(6, 6)])

        def forward(self, tokens: Any) -> Any:
            h = self.extra[0](self.body(self.words(tokens)))
            return self.heads["kind"](h), self.heads["price"](h)

    return Net()


def outputs(model: Any, tokens: Any) -> list[np.ndarray]:
    return [one.detach().numpy() for one in model.eval()(tokens)]


def trained(model: Any, tensor: Any) -> Any:
    """With running statistics that are not those of the start."""
    for k in range(3):
        model(tensor(np.random.default_rng(k).integers(0, 7, 9)))
    return model


TOKENS = np.array([0, 3, 6, 1])


def test_our_files_are_read_by_pytorch(tmp_path: Path) -> None:
    ours, theirs = trained(network(nn), cr.tensor), network(torch.nn)
    cr.save(tmp_path / "ours.safetensors", ours.state_dict())
    read = files.load_file(tmp_path / "ours.safetensors")
    assert not any(theirs.load_state_dict(read, strict=True))
    assert {name: str(value.dtype) for name, value in read.items()} == {
        name: str(value.dtype) for name, value in theirs.state_dict().items()
    }
    assert theirs.body[1].num_batches_tracked.item() == 3
    for one, other in zip(outputs(ours, cr.tensor(TOKENS)), outputs(theirs, torch.tensor(TOKENS))):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_pytorchs_files_are_read_by_us(tmp_path: Path) -> None:
    ours, theirs = network(nn), trained(network(torch.nn), torch.tensor)
    files.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    read = cr.load(tmp_path / "theirs.safetensors")
    assert ours.load_state_dict(read) == ([], []) and set(read) == set(ours.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert ours.state_dict()[name].dtype.name == str(value.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(ours.state_dict()[name].numpy(), value.numpy())
    assert ours.body[1].num_batches_tracked.dtype == cr.int64
    for one, other in zip(outputs(ours, cr.tensor(TOKENS)), outputs(theirs, torch.tensor(TOKENS))):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_is_widened_exactly(tmp_path: Path, kind: str) -> None:
    values = torch.tensor([1.0, -2.5, 3.140625, 1e-3, 6e4, float("inf"), -0.0, float("nan")]).to(
        getattr(torch, kind)
    )
    files.save_file({"a": values.reshape(2, 4), "count": torch.tensor(3)}, tmp_path / "half.safetensors")
    read = cr.load(tmp_path / "half.safetensors")
    assert read["a"].dtype == cr.float32 and read["count"].dtype == cr.int64 and read["a"].shape == (2, 4)
    np.testing.assert_array_equal(read["a"].numpy(), values.float().reshape(2, 4).numpy())


def test_a_whole_model_in_bfloat16(tmp_path: Path) -> None:
    theirs = network(torch.nn).to(torch.bfloat16)
    files.save_file(theirs.state_dict(), tmp_path / "half.safetensors")
    ours = network(nn)
    assert ours.load_state_dict(cr.load(tmp_path / "half.safetensors")) == ([], [])
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(
            ours.state_dict()[name].numpy(),
            value.to(torch.float32).numpy() if value.is_floating_point() else value.numpy(),
        )


def tied(nn: Any) -> Any:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(5, 3)
            self.head = nn.Linear(3, 5, bias=False)
            self.head.weight = self.words.weight

    return Tied()


def test_tied_weights_both_ways(tmp_path: Path) -> None:
    ours, theirs = tied(nn), tied(torch.nn)
    assert len(list(ours.parameters())) == 1 and list(ours.state_dict()) == ["words.weight", "head.weight"]
    cr.save(tmp_path / "ours.safetensors", ours.state_dict())
    theirs.load_state_dict(files.load_file(tmp_path / "ours.safetensors"))
    np.testing.assert_array_equal(theirs.head.weight.detach().numpy(), ours.words.weight.detach().numpy())
    # PyTorch's own way of writing tied weights leaves all names out but one.
    torch.nn.init.normal_(theirs.head.weight)
    files.save_model(theirs, str(tmp_path / "theirs.safetensors"))
    read = cr.load(tmp_path / "theirs.safetensors")
    assert len(read) == 1
    assert ours.load_state_dict(read) == ([], []) and ours.head.weight is ours.words.weight
    np.testing.assert_array_equal(ours.head.weight.detach().numpy(), theirs.head.weight.detach().numpy())
    with pytest.raises(ArgumentError, match=r"2 missing: 'words\.weight', 'head\.weight'"):
        ours.load_state_dict({})


def test_what_does_not_fit_is_listed_with_the_nearest_names() -> None:
    ours = network(nn)
    state = {name: value.numpy() for name, value in network(torch.nn).state_dict().items()}
    state["body.0.wieght"] = state.pop("body.0.weight")
    state["heads.price.weight"] = np.zeros((2, 6), np.float32)
    with pytest.raises(ArgumentError) as caught:
        ours.load_state_dict(state)
    told = str(caught.value)
    assert "1 missing: 'body.0.weight'; 1 unknown: 'body.0.wieght' (near 'body.0.weight')" in told
    assert "1 of another shape: heads.price.weight is (1, 6) here and (2, 6) there" in told
    assert "pass strict=False" in told
    with pytest.raises(ShapeError, match=r"needs equal shapes; got heads\.price\.weight"):
        ours.load_state_dict(state, strict=False)


def test_a_prefix_too_much_or_too_little_is_named_with_the_line_to_write() -> None:
    ours = network(nn)
    state = torch.nn.DataParallel(network(torch.nn)).state_dict()
    state = {name: value.numpy() for name, value in state.items()}
    with pytest.raises(
        ArgumentError,
        match=r"start with 'module\.', which PyTorch's DataParallel adds\. Load "
        r"\{name\.removeprefix\('module\.'\): tensor for name, tensor in state\.items\(\)\}",
    ):
        ours.load_state_dict(state)
    assert ours.load_state_dict({name.removeprefix("module."): one for name, one in state.items()}) == (
        [],
        [],
    )
    with pytest.raises(ArgumentError, match=r"start with 'model\.net\.'\. Load"):
        ours.load_state_dict({f"model.net.{name}": one for name, one in ours.state_dict().items()})
    outer = nn.ModuleDict({"net": ours})
    with pytest.raises(
        ArgumentError, match=r"The names here start with 'net\.'.*or load it into the part \.net"
    ):
        outer.load_state_dict(ours.state_dict())
    assert outer.load_state_dict(ours.state_dict(prefix="net.")) == ([], [])


def test_many_names_are_cut_with_their_count() -> None:
    model = nn.ModuleList([nn.Linear(1, 1) for _ in range(30)])
    with pytest.raises(ArgumentError, match=r"60 missing: '0\.weight'.* and 50 more"):
        model.load_state_dict({})
