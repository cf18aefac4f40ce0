"""`nn.summary`: shapes, parameters, multiply-adds by formula, memory read off the gradient, nothing changed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError, DtypeError, ShapeError
from chainrule.structure import structure_version
from chainrule.tensor.random import default_generator


class Words(nn.Module):
    """Whole numbers and floats by name; a layer called twice, a layer never called, a nested output."""

    def __init__(self) -> None:
        self.table = nn.Embedding(100, 16)
        self.parts = nn.ModuleDict({"twice": nn.Linear(16, 16), "head": nn.Linear(16, 3)})
        self.norm = nn.LayerNorm(16)
        self.drop = nn.Dropout(0.1)
        self.unused = nn.Linear(2, 2)

    def forward(self, tokens: Any, weights: Any = None) -> dict[str, Any]:
        h = self.parts["twice"](self.parts["twice"](self.table(tokens)))
        if weights is not None:
            h = h * weights
        return {"classes": self.parts["head"](self.drop(self.norm(h))), "hidden": (h, 3)}


def test_shapes_parameters_and_multiply_adds_by_formula() -> None:
    model = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10, bias=False))
    model[3].requires_grad_(False)
    found = nn.summary(model, (32, 64))
    assert [(row.path, row.type, row.output) for row in found.layers] == [
        ("", "Sequential", (32, 10)),
        ("0", "Linear", (32, 128)),
        ("1", "BatchNorm1d", (32, 128)),
        ("2", "ReLU", (32, 128)),
        ("3", "Linear", (32, 10)),
    ]
    assert [row.trainable for row in found.layers] == [0, 64 * 128 + 128, 256, 0, 0]
    assert [row.frozen for row in found.layers] == [0, 0, 0, 0, 1280]
    assert [row.multiply_adds for row in found.layers] == [0, 32 * 64 * 128, 0, 0, 32 * 128 * 10]
    assert found.parameters == 64 * 128 + 128 + 256 + 1280 == sum(one.size for one in model.parameters())
    assert (found.trainable, found.frozen, found.parameter_bytes) == (8576, 1280, 4 * 9856)
    assert found.multiply_adds == 32 * 64 * 128 + 32 * 128 * 10


@pytest.mark.parametrize("shape", [(5,), (1, 5), (7, 5), (2, 3, 5)])
def test_multiply_adds_of_a_linear_layer_over_any_leading_axes(shape: tuple[int, ...]) -> None:
    assert nn.summary(nn.Linear(5, 3), shape).multiply_adds == np.prod(shape) * 3


def test_memory_is_what_the_backward_pass_reads() -> None:
    # tanh' comes from its own result; the product needs its input; the last result is needed by nobody.
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    found = nn.summary(model, (16, 4))
    assert [row.kept_bytes for row in found.layers] == [0, 0, 16 * 8 * 4, 0]
    assert found.input_bytes == 16 * 4 * 4 and found.kept_bytes == 16 * 8 * 4 + 16 * 4 * 4
    # In float64 twice as much; nothing for what is frozen; the input is not needed where no weight meets it.
    assert nn.summary(model.double(), (16, 4)).kept_bytes == 2 * found.kept_bytes
    model.requires_grad_(False)
    assert nn.summary(model, (16, 4)).kept_bytes == 0
    model[2].requires_grad_(True)
    only_last = nn.summary(model, (16, 4))
    assert (only_last.kept_bytes, only_last.input_bytes) == (16 * 8 * 8, 0)


def test_memory_of_a_sum_of_squares_is_its_input() -> None:
    class Squares(nn.Module):
        def __init__(self) -> None:
            self.w = nn.Parameter(np.ones(3, np.float32))

        def forward(self, x: Any) -> Any:
            return ((x * self.w) ** 2).sum() + (x + self.w).sum()

    found = nn.summary(Squares(), (5, 3))
    assert (
        found.layers[0].kept_bytes == 5 * 3 * 4 and found.input_bytes == 5 * 3 * 4
    )  # x·w for the square, x for w


def test_several_inputs_whole_numbers_names_and_shared_layers() -> None:
    model = Words()
    found = nn.summary(model, {"tokens": (4, 7), "weights": (4, 7, 16)}, dtypes={"tokens": "int64"})
    rows = {row.path: row for row in found.layers}
    assert [row.path for row in found.layers] == [
        "",
        "table",
        "parts.twice",
        "parts.twice",
        "norm",
        "drop",
        "parts.head",
        "unused",
    ]
    assert rows[""].output == {"classes": (4, 7, 3), "hidden": ((4, 7, 16), "int")}
    assert [row.shared for row in found.layers] == [False, False, False, True, False, False, False, False]
    assert [row.trainable for row in found.layers] == [0, 1600, 272, 0, 32, 0, 51, 6]
    assert rows["unused"].output is None and found.parameters == 1961
    assert found.multiply_adds == 28 * (16 * 16 * 2 + 16 * 3)
    for inputs in (((4, 7), (4, 7, 16)), [np.zeros((4, 7), int), cr.ones((4, 7, 16))]):
        assert nn.summary(model, inputs, dtypes=["int64", None]).to_dict() == found.to_dict()
    assert nn.summary(model, cr.zeros((4, 7), dtype="int64")).layers[0].output == rows[""].output


def test_nothing_of_the_model_changes() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[2].generator = cr.Generator(1)
    heard: list[Any] = []
    model[0].register_forward_hook(lambda module, given, output, heard=heard: heard.append(output.shape))
    compiled = cr.compile(lambda x: model(x))
    compiled(cr.ones((2, 3)))
    heard.clear()
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    random = default_generator.get_state(), model[2].generator.get_state()
    version, programs = structure_version(), len(compiled._programs)
    for _ in range(2):
        nn.summary(model, (1_000_000, 3))  # nothing of this size is computed
    assert structure_version() == version and all(module.training for module in model.modules())
    assert (default_generator.get_state(), model[2].generator.get_state()) == random
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[name])
    assert heard == [] and all(one.grad is None for one in model.parameters())
    compiled(cr.ones((2, 3)))
    assert (
        len(compiled._programs) == programs and len(model[0]._hooks.forward) == 1 and model[1]._hooks is None
    )


def test_gradient_hooks_keep_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    before = nn.summary(model, (16, 4)).kept_bytes
    for layer in model:
        layer.register_full_backward_hook(lambda module, before, after: None)
    assert nn.summary(model, (16, 4)).kept_bytes == before


def test_the_mode_counts() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    training = nn.summary(model, (8, 3)).kept_bytes
    assert nn.summary(model.eval(), (8, 3)).kept_bytes == training - 8 * 4  # the mask, one byte each


def test_the_table_reads_well_in_both_languages() -> None:
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Sequential(nn.Linear(128, 10)))
    assert str(nn.summary(model, (32, 64), language="en")).splitlines() == [
        "layer            output     parameters  multiply-adds  kept for backward",
        "─" * 72,
        "Sequential       (32, 10)            –              –                  –",
        "  0: Linear      (32, 128)       8,320        262,144           16.0 KiB",
        "  1: ReLU        (32, 128)           –              –           16.0 KiB",
        "  2: Sequential  (32, 10)            –              –                  –",
        "    0: Linear    (32, 10)        1,290         40,960                  –",
        "─" * 72,
        "Parameters: 9,610 (9,610 trainable, 0 frozen), 37.5 KiB",
        "Multiply-adds of one forward pass: 303,104",
        "Kept for the backward pass: 40.0 KiB (8.0 KiB of it inputs)",
    ]
    korean = str(nn.summary(model, (32, 64), language="ko")).splitlines()
    assert korean[0].startswith("층  ") and korean[-1].startswith("역전파를 위해 보관: 40.0 KiB")


def test_numbers_can_be_written_as_json() -> None:
    found = nn.summary(nn.Linear(3, 2), (4, 3)).to_dict()
    assert json.loads(json.dumps(found))["layers"][0]["output"] == [4, 2] and found["parameters"] == 8
    assert set(found) == {
        "layers",
        "trainable",
        "frozen",
        "parameters",
        "parameter_bytes",
        "multiply_adds",
        "input_bytes",
        "kept_bytes",
    }


def test_faults_in_words() -> None:
    model = Words()
    with pytest.raises(
        DtypeError, match=r"Embedding 'table' needs whole numbers.*Sizes stand for floats: .*dtypes='int64'"
    ):
        nn.summary(model, (4, 7))
    with pytest.raises(ShapeError, match="Linear needs 3 features"):
        nn.summary(nn.Linear(3, 2), (4, 4))
    with pytest.raises(ArgumentError, match="summary needs a module; got int"):
        nn.summary(3, (2,))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="one dtype for each input; got 1 for 2"):
        nn.summary(model, ((4, 7), (4, 7, 16)), dtypes=["int64"])

    class Asking(nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    with pytest.raises(
        ArgumentError, match="summary needs a model that can be traced without numbers; got one that asks"
    ):
        nn.summary(Asking(), (2,))
    assert model.table._hooks is None
