"""Convolutions in machine code: right for every shape, without NumPy, in loops that run along memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim
from chainrule.compiler import compile_graph
from chainrule.compiler.loops import Contraction, walk
from chainrule.compiler.nested import Nested, suits
from chainrule.compiler.product import Registers, is_product
from chainrule.runtime import threads
from random_convolutions import SHORT, Shape, check, compiled, random_shape

GOLDEN = Path(__file__).parent / "golden"

SHAPES = {
    "image": Shape(2, 3, 5, (6, 7), (3, 3), padding=1),
    "one channel": Shape(2, 1, 16, (28, 28), (3, 3), padding=1),
    "channels fill vectors": Shape(3, 16, 32, (14, 14), (3, 3), padding=1),
    "many channels": Shape(1, 70, 40, (9, 9), (3, 3), padding=1),
    "odd channels": Shape(2, 5, 7, (8, 9), (3, 2), padding=1),
    "one output channel": Shape(2, 4, 1, (7, 7), (3, 3)),
    "strides": Shape(2, 4, 6, (9, 8), (3, 3), (2, 3)),
    "strides that leave places over": Shape(2, 3, 4, (10, 11), (3, 3), (3, 2), padding=1),
    "dilation": Shape(2, 4, 6, (11, 9), (3, 2), dilation=(2, 3)),
    "strides and dilation": Shape(2, 4, 6, (11, 12), (3, 2), (2, 1), (1, 2)),
    "groups": Shape(2, 4, 6, (6, 5), (3, 3), groups=2, padding=1),
    "each channel apart": Shape(2, 24, 24, (7, 7), (3, 3), groups=24, padding=1),
    "each channel apart, twice": Shape(2, 8, 16, (7, 7), (3, 3), (2, 2), groups=8),
    "kernel of one": Shape(4, 12, 20, (6, 6), (1, 1)),
    "kernel of one, strides": Shape(4, 12, 20, (7, 6), (1, 1), (2, 2)),
    "kernel of the image": Shape(3, 4, 6, (5, 5), (5, 5)),
    "one image": Shape(1, 3, 8, (12, 12), (5, 5), padding=2),
    "one axis": Shape(3, 5, 7, (31,), (4,), (2,), padding=1),
    "three axes": Shape(2, 2, 3, (4, 5, 6), (2, 3, 2), (1, 2, 1), (1, 1, 2), padding=1),
    "returned": Shape(2, 6, 20, (8, 8), (3, 3), padding=1, returned=True),
    "a long sum": Shape(5, 3, 4, (40, 40), (3, 3), padding=1),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_values_and_gradients(shape: Shape, dtype: str) -> None:
    check(shape, dtype)


@pytest.mark.parametrize("machine", SHORT, ids=["SSE", "AVX"])
@pytest.mark.parametrize(
    "name", ["channels fill vectors", "odd channels", "one channel", "each channel apart"]
)
def test_for_processors_with_other_registers(name: str, machine: Registers) -> None:
    check(SHAPES[name], "float32", machine)


@pytest.mark.parametrize("seed", range(6))
def test_random_shapes(seed: int) -> None:
    check(random_shape(seed), ("float32", "float64")[seed % 2])


def test_no_images() -> None:
    shape = Shape(0, 3, 4, (5, 5), (3, 3), returned=True)
    found = cr.compile(shape.step())(*shape.arrays("float32"))
    assert [one.shape for one in found] == [(), (0, 3, 5, 5), (4, 3, 3, 3), (4,), (0, 4, 3, 3)]
    assert not any(one.numpy().any() for one in found)


# ---------------------------------------------------------------------------------- whole networks


def learner(batch: int = 8, norm: bool = False) -> tuple[nn.Module, Any, list[Any]]:
    """A small network for images, its step, and a batch."""
    cr.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=not norm), *([nn.BatchNorm2d(16)] * norm), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1), nn.Flatten(),
        nn.Linear(8 * 4 * 4, 10),
    )  # fmt: skip
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    @cr.compile
    def step(x: Any, y: Any) -> cr.Tensor:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    random = np.random.default_rng(0)
    x = random.normal(size=(batch, 1, 14, 14)).astype("float32")
    return model, step, [cr.tensor(x), cr.tensor(random.integers(0, 10, batch))]


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch norm"])
def test_a_network_trains_as_the_interpreter_does(norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, step, batch = learner(norm=norm)
    losses = [step(*batch).item() for _ in range(5)]
    other, again, _ = learner(norm=norm)
    monkeypatch.setattr(cr.config, "compile", False)
    np.testing.assert_allclose(losses, [again(*batch).item() for _ in range(5)], rtol=2e-4)
    for one, two in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=2e-2, atol=2e-4)


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch norm"])
def test_a_network_is_machine_code_altogether_and_passes_its_audit(norm: bool) -> None:
    _, step, batch = learner(norm=norm)
    report = step.report(*batch)
    assert report.native_share == 1.0 and not report.host_operations
    convolutions = [one for one in report.nests if "conv" in one.title or "slice" in one.title]
    assert sum(one.flops or 0 for one in convolutions) >= 2 * 8 * 14 * 14 * 16 * 9
    audit = step.audit(*batch)
    assert audit.ok, audit


def test_the_bits_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_wanted", threads._wanted)
    found = []
    for count in (1, 2, 3):
        cr.set_num_threads(count)
        model, step, batch = learner(batch=48, norm=True)
        losses = [step(*batch).numpy().tobytes() for _ in range(3)]
        found.append((losses, [one.numpy().tobytes() for one in model.state_dict().values()]))
        assert step.report().threads == count
    assert found[0] == found[1] == found[2]


def test_the_gradient_towards_the_data_is_not_computed() -> None:
    _, step, batch = learner()
    step(*batch)
    sums = [line for line in step.stages()["lower"].splitlines() if line.strip().startswith("contract")]
    # Forward and weights of each layer, and inputs of the second and of the linear one.
    assert len(sums) == 3 + 3 + 2


# ---------------------------------------------------------------------------------- what became of it


def contractions(shape: Shape, dtype: str = "float32") -> list[Contraction]:
    """The sums of a shape's step: forward, or one of the gradients."""
    loops = compiled(shape, dtype).loops
    return [one for nest in loops.nests for one in walk(nest.body) if isinstance(one, Contraction)]


def test_every_convolution_is_cut_into_tiles() -> None:
    for shape in SHAPES.values():
        assert all(suits(one) for one in contractions(shape))


def test_columns_are_output_channels_and_rows_are_places() -> None:
    first = contractions(SHAPES["channels fill vectors"])[0]
    assert first.columns.extent == 32 and first.rows.extent == 14
    assert sorted(one.extent for one in first.inner) == [3, 3, 16]
    assert [first.out[1].coefficient(one) for one in (first.columns, first.rows)] == [1, 32]


def test_a_kernel_of_one_is_a_matrix_product_of_all_places() -> None:
    first = contractions(Shape(4, 12, 20, (6, 6), (1, 1)))[0]
    assert is_product(first)
    assert max(first.rows.extent, first.columns.extent) == 36
    chained = compiled_chain()
    (_, second) = [
        one for nest in chained.loops.nests for one in walk(nest.body) if isinstance(one, Contraction)
    ]
    assert is_product(second) and not second.batch
    assert (second.rows.extent, second.columns.extent, second.inner[0].extent) == (4 * 36, 24, 20)


def compiled_chain() -> Any:
    """Two convolutions, the second with a kernel of one."""
    x, w, v = (np.ones(shape, "float32") for shape in ((4, 3, 8, 8), (20, 3, 3, 3), (24, 20, 1, 1)))
    function = lambda x, w, v: F.conv2d(F.relu(F.conv2d(x, w)), v).sum()
    return compile_graph(cr.compile(function).graph(x, w, v), Registers(32, 16))


def test_channels_apart_run_in_vectors_of_channels() -> None:
    first = contractions(SHAPES["each channel apart"])[0]
    assert first.columns.extent == 24 and Nested(first, Registers(64, 32)).left_vectors


def test_a_result_that_is_returned_lies_in_row_major_order() -> None:
    compilation = compiled(Shape(2, 6, 20, (8, 8), (3, 3), returned=True), "float32")
    orders = {buffer.place: [] for buffer in compilation.plan.buffers.values()}  # type: ignore[var-annotated]
    for buffer in compilation.plan.buffers.values():
        orders[buffer.place].append(buffer.order)
    assert set(orders["source"]) == set(orders["result"]) == {None}


def test_an_order_is_printed_with_its_reason() -> None:
    plan = compiled_chain().stages["plan"]
    assert "axes (0, 2, 3, 1): the sum runs along it" in plan
    assert "axes (0, 2, 3, 1): as %" in plan


def test_without_layout_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cr.config, "skip", frozenset({"layout"}))
    check(SHAPES["channels fill vectors"], "float32")
    assert all(one.order is None for one in compiled_chain().plan.buffers.values())


def test_few_tiles_share_their_sum_among_tasks() -> None:
    """The gradient of a small kernel: one tile of the result, and a long sum."""
    sums = contractions(Shape(64, 1, 16, (28, 28), (3, 3), padding=1))
    weight = min(sums, key=lambda one: one.out[0].size)
    cut = Nested(weight, Registers(64, 32))
    assert cut.ranges == 1 and cut.parts > 1 and cut.height == 9


def test_the_loops_are_written_down() -> None:
    """CHAINRULE_UPDATE_GOLDEN=1 writes the file anew; read the difference before you keep it."""

    def network(x: Any, w: Any, b: Any) -> Any:
        def loss(w: Any, b: Any) -> Any:
            y = F.max_pool2d(F.relu(F.conv2d(x, w, b, padding=1)), 2)
            return (y * y).sum()

        return cr.value_and_grad(loss, argnums=(0, 1))(w, b)

    x, w, b = (np.ones(shape, "float32") for shape in ((2, 3, 4, 6), (8, 3, 3, 3), (8,)))
    compilation = compile_graph(cr.compile(network).graph(x, w, b), Registers(32, 16))
    text = f"{compilation.stages['lower']}\n{compilation.stages['plan']}\n"
    file = GOLDEN / "convolution.txt"
    if os.environ.get("CHAINRULE_UPDATE_GOLDEN") == "1":
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")
