"""Containers, embedding, dropout, normalization and initialisers: beside PyTorch's, compiled, and with bad input."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim
from chainrule.errors import ArgumentError, BoundsError, DtypeError, MissingKeyError, ShapeError
from chainrule.graph import topological
from chainrule.nn.quantiles import cumulative, quantile
from chainrule.tensor.random import Generator, default_generator
from chainrule.testing import check_grads


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# --------------------------------------------------------------------------------------------- parity


def beside(ours: nn.Module, theirs: Any, x: np.ndarray, torch: Any) -> None:
    """Output, gradient of the input and of every parameter, and every buffer, to 1e-10."""
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    given, wanted = cr.tensor(x), torch.from_numpy(x)
    floats = x.dtype.kind == "f"
    if floats:
        given.requires_grad_()
        wanted.requires_grad_()
    out, expected = ours(given), theirs(wanted)
    close(out.detach().numpy(), expected.detach().numpy())
    if out.requires_grad:
        slope = normal(*out.shape, seed=9)
        out.backward(slope)
        expected.backward(torch.from_numpy(slope))
    if floats:
        close(given.grad.numpy(), wanted.grad.numpy())
    for (name, one), (other, two) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        assert (one.grad is None) == (two.grad is None)
        if one.grad is not None:
            close(one.grad.numpy(), two.grad.numpy())
    for (name, one), (other, two) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        assert name == other and str(two.dtype).endswith(one.dtype.name)
        close(one.numpy(), two.numpy())


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [(2, 1), (7, 3), (3, 7), (2, 3, 5), (1, 3, 4), (7, 1, 1)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": None},
        {"momentum": 0.5, "eps": 1e-3},
        {"affine": False},
        {"track_running_stats": False},
    ],
    ids=str,
)
def test_batch_norm_equals_pytorchs(torch: Any, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    ours = nn.BatchNorm1d(shape[1], dtype="float64", **options)
    theirs = torch.nn.BatchNorm1d(shape[1], dtype=torch.float64, **options)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    for k in range(3):
        for parameter in (*ours.parameters(), *theirs.parameters()):
            parameter.grad = None
        beside(ours, theirs, normal(*shape, seed=k) * 3 + k, torch)
    ours.eval()
    theirs.eval()
    beside(ours, theirs, normal(*shape, seed=5), torch)


@pytest.mark.parametrize("normalized", [7, (7,), (3, 7), [3, 7]], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"elementwise_affine": False, "eps": 1e-3}], ids=str
)
def test_layer_norm_equals_pytorchs(torch: Any, normalized: Any, options: dict[str, Any]) -> None:
    theirs = torch.nn.LayerNorm(normalized, dtype=torch.float64, **options)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    ours = nn.LayerNorm(normalized, dtype="float64", **options)
    for shape in ((3, 7), (1, 3, 7), (2, 5, 3, 7)):
        for parameter in (*ours.parameters(), *theirs.parameters()):
            parameter.grad = None
        beside(ours, theirs, normal(*shape), torch)


@pytest.mark.parametrize("padding", [None, 0, 2, -1])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (2, 1, 3), (0,)], ids=str)
def test_embedding_equals_pytorchs(torch: Any, padding: int | None, shape: tuple[int, ...]) -> None:
    theirs = torch.nn.Embedding(5, 3, padding_idx=padding, dtype=torch.float64)
    ours = nn.Embedding(5, 3, padding_idx=padding, dtype="float64")
    assert ours.padding_idx == theirs.padding_idx
    beside(ours, theirs, np.random.default_rng(1).integers(0, 5, shape), torch)
    if padding is not None:
        fresh = nn.Embedding(5, 3, padding_idx=padding)
        assert fresh.weight.detach()[padding].tolist() == [0.0] * 3
        assert np.count_nonzero(fresh.weight.detach().numpy()) == 12


def test_functional_forms_equal_pytorchs(torch: Any) -> None:
    there = torch.nn.functional
    x, w, b = normal(4, 3), normal(3, seed=1), normal(3, seed=2)
    mean, var = normal(3, seed=3), normal(3, seed=4) ** 2
    for training in (True, False):
        own = [cr.tensor(one) for one in (mean, var)]
        other = [torch.from_numpy(one.copy()) for one in (mean, var)]
        found = F.batch_norm(x, *own, cr.tensor(w), cr.tensor(b), training, 0.3, 1e-4)
        wanted = there.batch_norm(
            torch.from_numpy(x), *other, torch.from_numpy(w), torch.from_numpy(b), training, 0.3, 1e-4
        )
        close(found.numpy(), wanted.numpy())
        for one, two in zip(own, other):
            close(one.numpy(), two.numpy())
    close(
        F.layer_norm(x, (3,), cr.tensor(w), cr.tensor(b)).numpy(),
        there.layer_norm(torch.from_numpy(x), (3,), torch.from_numpy(w), torch.from_numpy(b)).numpy(),
    )
    table = normal(4, 2)
    rows = F.embedding([[1, 3]], cr.tensor(table))
    close(rows.numpy(), there.embedding(torch.tensor([[1, 3]]), torch.from_numpy(table)).numpy())


@pytest.mark.parametrize("size", [1, 3, 7])
def test_gradients_of_both_orders(size: int) -> None:
    x = cr.tensor(normal(size + 1, size))
    w, b = cr.tensor(normal(size, seed=1)), cr.tensor(normal(size, seed=2))
    check_grads(lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), (x, w, b), elements=4)
    check_grads(lambda x, w, b: F.batch_norm(x, w, b * b + 1, w, b), (x, w, b), elements=4)
    if size > 1:  # of one feature the result is a constant
        check_grads(lambda x, w, b: F.layer_norm(x, size, w, b), (x, w, b), elements=4)
    indices = np.random.default_rng(3).integers(1, size + 1, (2, size))  # not the padding: that is a constant
    check_grads(lambda table: F.embedding(indices, table, padding_idx=0) ** 2, (x,), elements=6)
    check_grads(lambda x: F.dropout(x, 0.4, generator=Generator(4)) ** 2, (x,), elements=6)


def test_s15_batch_norm_as_a_layer() -> None:
    layer = nn.BatchNorm1d(1, dtype="float64")
    with cr.no_grad():
        layer.weight.copy_(2.0)
        layer.bias.copy_(0.5)
    x = cr.tensor(np.array([[1.0], [2.0], [3.0], [6.0]]), requires_grad=True)
    out = layer(x)
    out.backward(np.array([[1.0], [0.0], [-1.0], [2.0]]))
    assert out.detach().flatten().tolist() == pytest.approx(
        [-1.6380869, -0.5690434, 0.5, 3.7071303], abs=5e-8
    )
    assert x.grad.flatten().tolist() == pytest.approx(
        [1.1454019, -0.2290816, -1.6035652, 0.6872448], abs=5e-8
    )
    assert layer.weight.grad.item() == pytest.approx(2.1380869, abs=5e-8) and layer.bias.grad.item() == 2.0
    assert x.grad.sum().item() == pytest.approx(0.0, abs=1e-14)


def test_the_variance_does_not_cancel() -> None:
    """Mean 10⁴, spread 1: as E[x²] − E[x]² in float32 nothing would be left of it."""
    x = cr.tensor((normal(64, 3) + 1e4).astype(np.float32))
    for out in (nn.BatchNorm1d(3)(x), nn.LayerNorm(64)(x.T).T):
        values = x.numpy().astype(np.float64)
        wanted = (values - values.mean(0)) / np.sqrt(values.var(0) + 1e-5)
        np.testing.assert_allclose(out.detach().numpy(), wanted, atol=2e-3)


# -------------------------------------------------------------------------------------------- dropout


def test_dropout_keeps_the_right_share_and_scales_it() -> None:
    x = cr.ones(200_000, dtype="float64")
    for p in (0.1, 0.5, 0.9):
        out = nn.Dropout(p, generator=Generator(7))(x).numpy()
        assert set(np.unique(out)) == {0.0, 1 / (1 - p)}
        share = (out != 0).mean()
        assert abs(share - (1 - p)) < 5 * math.sqrt(p * (1 - p) / x.size)  # five standard deviations
        kept = (out != 0).astype(float) - share
        neighbours = (kept[1:] * kept[:-1]).mean() / kept.var()
        assert abs(neighbours) < 5 / math.sqrt(x.size)


def test_dropout_at_its_ends_and_in_evaluation() -> None:
    x = cr.tensor([1.0, math.inf, 3.0], requires_grad=True)
    before = default_generator.get_state()
    assert nn.Dropout(0)(x) is x and nn.Dropout(0.5).eval()(x) is x
    nothing = nn.Dropout(1.0)(x)
    assert default_generator.get_state() == before
    nothing.sum().backward()
    assert nothing.tolist() == [0.0] * 3 and x.grad.tolist() == [0.0] * 3
    # What is left out stops an infinity too, in both directions.
    out = F.dropout(cr.tensor([math.inf] * 64), 0.5, generator=Generator(1))
    assert set(out.tolist()) == {0.0, math.inf}
    assert F.dropout(cr.zeros((0, 3)), 0.5).shape == (0, 3)


def test_the_state_of_the_generator_decides_the_entries() -> None:
    layer, x = nn.Dropout(0.5), cr.ones((5, 7))
    cr.manual_seed(3)
    state = default_generator.get_state()
    first, second = layer(x).tolist(), layer(x).tolist()
    assert first != second
    default_generator.set_state(state)
    assert [layer(x).tolist(), layer(x).tolist()] == [first, second]
    own = nn.Dropout(0.5, generator=Generator(11))
    twin = copy.deepcopy(own)
    assert own(x).tolist() == twin(x).tolist() and twin.generator is not own.generator
    before = default_generator.get_state()
    own(x)
    assert default_generator.get_state() == before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("own", [False, True])
def test_compiled_and_eager_leave_out_the_same_entries(dtype: str, own: bool) -> None:
    layers = [nn.Dropout(0.3, generator=Generator(2) if own else None) for _ in range(2)]
    compiled = cr.compile(lambda x: layers[1](x))
    x = cr.tensor(normal(5, 7).astype(dtype))
    results: list[list[Any]] = []
    for call in (layers[0], compiled):
        cr.manual_seed(9)
        results.append([call(x).numpy() for _ in range(3)])
        results[-1].append((layers[len(results) - 1].generator or default_generator).get_state())
    for one, other in zip(*results):
        np.testing.assert_array_equal(one, other)
    assert len(compiled._programs) == 1


def test_dropout_is_not_drawn_again_by_a_checkpoint() -> None:
    layer, x = nn.Dropout(0.5), cr.tensor([1.0] * 50, requires_grad=True)
    out = cr.checkpoint(layer)(x)
    out.sum().backward()
    assert x.grad.tolist() == out.tolist()


# ---------------------------------------------------------------------------------- in compiled steps


def network(momentum: float | None) -> nn.Sequential:
    cr.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(20, 6, padding_idx=0),
        nn.Flatten(),
        nn.Linear(18, 16),
        nn.BatchNorm1d(16, momentum=momentum),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.LayerNorm(16),
        nn.Linear(16, 3),
    ).double()


def learning(model: nn.Module) -> Any:
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x: cr.Tensor, y: cr.Tensor) -> cr.Tensor:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


@pytest.mark.parametrize("momentum", [0.1, None])
def test_compiled_steps_equal_eager_ones(momentum: float | None) -> None:
    eager, fast = network(momentum), network(momentum)
    plain, compiled = learning(eager), cr.compile(learning(fast))
    random = np.random.default_rng(0)
    batches = [
        (cr.tensor(random.integers(0, 20, (8, 3))), cr.tensor(random.integers(0, 3, 8))) for _ in range(4)
    ]
    losses: list[list[float]] = []
    for step, model in ((plain, eager), (compiled, fast)):
        cr.manual_seed(5)
        losses.append([step(*batch).item() for batch in batches[:3]])
        model.eval()
        losses[-1].append(step(*batches[3]).item())
        model.train()
        losses[-1].append(step(*batches[3]).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)
    for (name, one), (_, other) in zip(eager.state_dict().items(), fast.state_dict().items()):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-12, err_msg=name)
    assert fast[3].num_batches_tracked.item() == 4
    assert eager[0].weight.detach()[0].tolist() == [0.0] * 6  # the padding row has learnt nothing


def test_an_index_outside_the_table_changes_nothing_in_a_compiled_step() -> None:
    model = network(0.1)
    step = cr.compile(learning(model))
    x, y = cr.tensor(np.zeros((8, 3), np.int64)), cr.tensor(np.zeros(8, np.int64))
    step(x, y)
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    message = (
        r"Embedding '0' needs indices from 0 to 19; got {} to {}\. Check the data, or make the table larger"
    )
    for bad in (20, -1):
        with pytest.raises(BoundsError, match=message.format(bad, bad) + r"\. Nothing was changed"):
            step(cr.tensor(np.full((8, 3), bad)), y)
        with pytest.raises(BoundsError, match=message.format(bad, bad)):
            model(cr.tensor(np.full((8, 3), bad)))
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_running_statistics_are_written_in_the_same_cells() -> None:
    layer = nn.BatchNorm1d(3)
    cells = [buffer.cell for buffer in layer.buffers()]
    layer(cr.tensor(normal(5, 3).astype(np.float32)))
    cr.compile(lambda x: layer(x))(cr.tensor(normal(5, 3).astype(np.float32)))
    assert [buffer.cell for buffer in layer.buffers()] == cells
    assert layer.num_batches_tracked.item() == 2 and layer.num_batches_tracked.dtype == cr.int64
    with cr.no_grad():
        layer(cr.ones((2, 3)))
    assert layer.num_batches_tracked.item() == 3
    layer.reset_parameters()
    assert layer.running_mean.tolist() == [0.0] * 3 and layer.num_batches_tracked.item() == 0


def test_a_detached_tensor_requires_no_grad_while_traced() -> None:
    w = cr.tensor(2.0, requires_grad=True)
    seen = []

    def step(x: cr.Tensor) -> cr.Tensor:
        seen.append((w * x).detach().requires_grad)
        return w * x

    cr.compile(step)(cr.tensor(1.0))
    assert seen == [False]


# ------------------------------------------------------------------------------------------ bad input


def test_faults_name_the_layer_and_the_fix() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            self.bn = nn.BatchNorm1d(4)
            self.norm = nn.LayerNorm((2, 3))
            self.words = nn.Embedding(5, 2)

    model = Model()
    with pytest.raises(
        ShapeError,
        match=r"BatchNorm1d 'bn' needs two or more values for each channel in training; "
        r"got \(1, 4\)\. Use a larger batch, leave out a last batch of one row, or call \.eval\(\)",
    ):
        model.bn(cr.ones((1, 4)))
    assert model.bn.num_batches_tracked.item() == 0 and model.bn.running_mean.tolist() == [0.0] * 4
    with pytest.raises(ShapeError, match=r"BatchNorm1d 'bn' needs \(N, 4\) or \(N, 4, L\); got \(2, 3\)"):
        model.bn(cr.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"got \(2, 4, 1, 1\)"):
        model.bn(cr.ones((2, 4, 1, 1)))
    with pytest.raises(DtypeError, match="BatchNorm1d 'bn' needs its weight's dtype, float32; got float64"):
        model.bn(np.ones((2, 4)))
    with pytest.raises(ShapeError, match=r"LayerNorm 'norm' needs \(2, 3\) as the last axes; got \(3, 2\)"):
        model.norm(cr.ones((3, 2)))
    with pytest.raises(DtypeError, match="LayerNorm 'norm' needs floats; got int64"):
        model.norm(np.ones((2, 3), int))
    with pytest.raises(
        DtypeError, match=r"Embedding 'words' needs whole numbers as indices; got float32\(2,\)"
    ):
        model.words(cr.ones(2))
    with pytest.raises(BoundsError, match="Embedding 'words' needs indices from 0 to 4; got -1 to 3"):
        model.words([-1, 3])
    for wrong in (
        lambda: nn.Dropout(1.5),
        lambda: nn.Dropout(-0.1),
        lambda: nn.Dropout(math.nan),
        lambda: nn.Dropout(0.5, generator=3),
        lambda: nn.Embedding(0, 3),
        lambda: nn.Embedding(3, 2, padding_idx=3),
        lambda: nn.LayerNorm(0),
        lambda: nn.LayerNorm(()),
        lambda: nn.BatchNorm1d(2, eps=-1),
        lambda: nn.BatchNorm1d(2, momentum="x"),
    ):
        with pytest.raises(ArgumentError, match="got"):
            wrong()
    nothing_flattens = nn.Sequential(nn.Identity(), nn.Linear(144, 10))
    with pytest.raises(
        ShapeError, match=r"got \(4, 4, 6, 6\)\. Flatten it first: nn.Flatten\(\).*x\.flatten\(1\)"
    ):
        nothing_flattens(cr.ones((4, 4, 6, 6)))
    with pytest.raises(
        ShapeError, match=r"Linear needs 6 .*got \(1, 2, 3\)\. Flatten it first.*or x\.flatten\(1\)"
    ):
        nn.Linear(6, 1)(cr.ones((1, 2, 3)))
    convolve = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    with pytest.raises(
        ShapeError, match=r"got \(4, 36\)\. This is one row without the axis of the batch.*x\[None\]"
    ):
        convolve(cr.ones((3, 8, 8)))
    assert convolve(cr.ones((3, 8, 8))[None]).shape == (1, 10)
    with pytest.raises(ShapeError, match=r"got \(4, 6, 6\)\. Add the axis of the batch: x\[None\]"):
        nn.BatchNorm2d(4)(cr.ones((4, 6, 6)))
    with pytest.raises(
        ShapeError, match=r"got \(2, 6, 4\)\. Channels are the axis 1: .*permute_dims\(x, \(0, 2, 1\)\)"
    ):
        nn.BatchNorm1d(4)(cr.ones((2, 6, 4)))
    with pytest.raises(DtypeError, match=r"Linear needs floats; got uint8.*/ 255, if these are pixels"):
        nn.Linear(2, 1)(cr.ones((1, 2), dtype="uint8"))
    with pytest.raises(ShapeError, match="from_pretrained needs a table"):
        nn.Embedding.from_pretrained([1.0])
    with pytest.raises(ShapeError, match="running_mean of shape"):
        F.batch_norm(cr.ones((2, 3)), cr.ones(2), None, training=True)
    with pytest.raises(ArgumentError, match="unless it is training"):
        F.batch_norm(cr.ones((2, 3)), None, None)


def test_repr_equals_pytorchs(torch: Any) -> None:

    def model(nn: Any) -> Any:
        return nn.ModuleDict(
            {
                "words": nn.Embedding(10, 3, padding_idx=0),
                "plain": nn.Embedding(10, 3),
                "drop": nn.Dropout(0.25),
                "layers": nn.ModuleList(
                    [nn.Linear(2, 2), nn.Linear(2, 2), nn.LayerNorm(8), nn.LayerNorm((2, 3), bias=False)]
                ),
                "chain": nn.Sequential(
                    nn.Linear(2, 3, bias=False), nn.Sequential(nn.Tanh()), nn.Identity(), nn.Flatten()
                ),
                "empty": nn.ModuleList(),
            }
        )

    assert repr(model(nn)) == repr(model(torch.nn))
    # The bias of batch norms has been shown by PyTorch since 2.12 only.
    assert repr(nn.BatchNorm1d(8)).replace("bias=True, ", "") == repr(torch.nn.BatchNorm1d(8)).replace(
        "bias=True, ", ""
    )


def test_the_new_functions_are_folded_by_the_explainer() -> None:
    x = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.LayerNorm(3))(
        cr.tensor(normal(4, 3).astype(np.float32))
    )
    names = {node.scope.path for node in topological([x.node]) if node.scope is not None}
    assert {"Sequential/0/batch_norm", "Sequential/1/dropout", "Sequential/2/layer_norm"} <= names
    told = str(cr.explain(x.sum(), language="en"))
    assert "layer_norm" in told and "Shifting or stretching a whole row changes nothing" in told


# ----------------------------------------------------------------------------------------- containers


def numbers(container: nn.Module) -> list[int]:
    return [layer.in_features for layer in container]


@pytest.mark.parametrize(
    "make", [nn.ModuleList, lambda layers: nn.Sequential(*layers)], ids=["list", "sequential"]
)
def test_a_numbered_container_is_a_list(make: Any) -> None:
    container = make([nn.Linear(k, 1) for k in (1, 2, 3)])
    container.insert(1, nn.Linear(9, 1))
    assert numbers(container) == [1, 9, 2, 3] and list(container.state_dict())[2] == "1.weight"
    assert container[2].weight.cell.name == "2.weight" and container[2].path == "2"
    assert container.pop(-2).in_features == 2 and numbers(container) == [1, 9, 3]
    del container[0]
    assert numbers(container) == [9, 3] and [name for name, _ in container.named_children()] == ["0", "1"]
    container += [nn.Linear(4, 1), nn.Linear(5, 1)]
    assert numbers(container) == [9, 3, 4, 5] and numbers(reversed(container)) == [5, 4, 3, 9]
    del container[1:3]
    container.insert(-1, nn.Linear(7, 1))
    container.insert(99, nn.Linear(8, 1))
    assert numbers(container) == [9, 7, 5, 8]
    container[1:3] = [nn.Linear(6, 1)]
    container[-1] = nn.Linear(2, 1)
    assert numbers(container) == [9, 6, 2] and numbers(container + nn.ModuleList([nn.Linear(1, 1)])) == [
        9,
        6,
        2,
        1,
    ]
    layer = container[0]
    assert layer in container and layer.path == "0" and numbers(container[::-1]) == [2, 6, 9]
    with pytest.raises(BoundsError, match="has 3 layers; got index 3"):
        container[3]
    with pytest.raises(BoundsError):
        container.pop(-4)
    with pytest.raises(ArgumentError, match="whole numbers and slices; got 'x'"):
        container["x"]
    for wrong in (
        lambda: container.append(3),
        lambda: container.insert(0, None),
        lambda: container.extend([1]),
    ):
        with pytest.raises(ArgumentError, match="a layer must be a Module; got"):
            wrong()
    assert numbers(container) == [9, 6, 2]


def test_names_in_slices_are_pytorchs(torch: Any) -> None:
    for kind in (nn, torch.nn):
        layers = [kind.Linear(1, 1) for _ in range(4)]
        assert [name for name, _ in kind.ModuleList(layers)[1:3].named_children()] == ["0", "1"]
        assert [name for name, _ in kind.Sequential(*layers)[1:3].named_children()] == ["1", "2"]


def test_a_module_dict_is_a_dict() -> None:
    heads = nn.ModuleDict({"price": nn.Linear(4, 1), "kind": nn.Linear(4, 3)})
    heads["extra"] = nn.ReLU()
    assert list(heads) == heads.keys() == ["price", "kind", "extra"] and len(heads) == 3
    assert list(heads.state_dict()) == ["price.weight", "price.bias", "kind.weight", "kind.bias"]
    assert heads["kind"].weight.cell.name == "kind.weight" and heads.get("none") is None
    heads.update([("kind", nn.Linear(4, 5)), ("last", nn.Tanh())])
    assert heads["kind"].out_features == 5 and [type(one).__name__ for one in heads.values()][-1] == "Tanh"
    assert heads.pop("last").__class__ is nn.Tanh and "last" not in heads
    del heads["extra"]
    assert dict(heads.items()).keys() == {"price", "kind"}
    with pytest.raises(
        MissingKeyError, match=r"ModuleDict has 'price', 'kind'; got 'colour'\. Check the name"
    ):
        heads["colour"]
    with pytest.raises(KeyError):
        heads.pop("colour")
    for taken in ("keys", "forward", "training"):
        with pytest.raises(ArgumentError, match=f"has an attribute '{taken}' already"):
            heads[taken] = nn.ReLU()
    heads.clear()
    assert len(heads) == 0 and not list(heads.parameters())


def test_shared_layers_copies_and_buffers() -> None:
    shared = nn.BatchNorm1d(2)
    model = nn.Sequential(shared, nn.Identity(), shared)
    twin = copy.deepcopy(model)
    assert twin[0] is twin[2] and twin[0] is not shared
    assert len(list(twin.parameters())) == 2 and len(list(twin.buffers())) == 3
    twin(cr.tensor(normal(3, 2).astype(np.float32)))
    assert shared.num_batches_tracked.item() == 0 and twin[0].num_batches_tracked.item() == 2
    twin.eval()
    assert not twin[2].training and shared.training
    assert list(model.state_dict(prefix="net.")) == ["net." + name for name in model.state_dict()]
    assert model.state_dict(keep_vars=True)["0.weight"] is shared.weight


# -------------------------------------------------------------------------------------- initialisers


def drawn(name: str, shape: tuple[int, ...], **options: Any) -> np.ndarray:
    cr.manual_seed(1)
    return getattr(nn.init, name)(cr.zeros(shape), **options).numpy().astype(np.float64)


def largest_gap(sample: np.ndarray, other: np.ndarray) -> float:
    """The Kolmogorov–Smirnov statistic of two samples."""
    every = np.sort(np.concatenate([sample, other]))
    shares = [np.searchsorted(np.sort(one), every, side="right") / one.size for one in (sample, other)]
    return float(np.abs(shares[0] - shares[1]).max())


RANDOM = [
    ("uniform_", {"a": -2.0, "b": 3.0}),
    ("normal_", {"mean": 1.0, "std": 2.0}),
    ("xavier_uniform_", {"gain": 2.0}),
    ("xavier_normal_", {}),
    ("kaiming_uniform_", {"a": 0.3, "mode": "fan_out"}),
    ("kaiming_uniform_", {"nonlinearity": "selu"}),
    ("kaiming_normal_", {"nonlinearity": "tanh"}),
    ("trunc_normal_", {}),
    ("trunc_normal_", {"mean": 1.0, "std": 0.5, "a": 0.9, "b": 3.0}),
    ("trunc_normal_", {"mean": -1.0, "std": 1.0, "a": 0.5, "b": 9.0}),
    ("orthogonal_", {"gain": 2.0}),
    ("sparse_", {"sparsity": 0.3, "std": 1.0}),
]


@pytest.mark.parametrize(("name", "options"), RANDOM, ids=str)
def test_initialisers_draw_from_pytorchs_distributions(
    torch: Any, name: str, options: dict[str, Any]
) -> None:
    shape = (200, 150)
    ours = drawn(name, shape, **options)
    torch.manual_seed(1)
    theirs = getattr(torch.nn.init, name)(torch.empty(shape), **options).numpy().astype(np.float64)
    # Two samples of n numbers of one distribution differ by more in one case of a million.
    limit = math.sqrt(-math.log(1e-6 / 2) / ours.size)
    assert largest_gap(ours.ravel(), theirs.ravel()) < limit
    assert ours.mean() == pytest.approx(theirs.mean(), abs=6 * theirs.std() / math.sqrt(ours.size) * 1.5)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.03)


def test_bounds_are_kept_exactly() -> None:
    for dtype in (np.float32, np.float64):
        for a, b in ((-1 / 3, 1 / 7), (0.1, 0.3), (8.0, 9.0), (-9.0, -8.0)):
            tensor = cr.zeros(20_000, dtype=dtype)
            values = nn.init.trunc_normal_(tensor, 0.0, 1.0, a, b).numpy().astype(np.float64)
            assert a <= values.min() and values.max() <= b
            values = nn.init.uniform_(tensor, a, b).numpy().astype(np.float64)
            assert a - 1e-7 <= values.min() and values.max() < b + 1e-7
    far = nn.init.trunc_normal_(cr.zeros(50_000, dtype="float64"), 0.0, 1.0, 8.0, 9.0).numpy()
    density = math.exp(-32.0) / math.sqrt(2 * math.pi), math.exp(-40.5) / math.sqrt(2 * math.pi)
    wanted = (density[0] - density[1]) / (cumulative(-8.0) - cumulative(-9.0))
    assert far.mean() == pytest.approx(wanted, abs=5 * far.std() / math.sqrt(far.size))


def test_quantiles_are_exact_to_the_last_digits() -> None:
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(40):
        for share in (1e-15, 1e-6, 0.02, 0.0749, 0.0751, 0.3, 0.5, 0.6, 0.925, 0.99, 1 - 1e-12):
            wanted = mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(share) - 1)
            assert float(quantile(np.array(share))) == pytest.approx(float(wanted), rel=1e-15, abs=1e-300)
    assert quantile(np.array([0.0, 1.0])).tolist() == [-math.inf, math.inf]
    assert quantile(np.array([1e-300]))[0] == pytest.approx(-37.0471, abs=1e-4)


def test_exact_initialisers(torch: Any) -> None:
    for name, shape, options in (
        ("eye_", (3, 5), {}),
        ("eye_", (5, 3), {}),
        ("dirac_", (4, 3, 5), {}),
        ("dirac_", (6, 2, 3, 4), {"groups": 2}),
        ("dirac_", (2, 3, 3, 2, 3), {}),
        ("constant_", (2, 2), {"val": 0.3}),
        ("ones_", (3,), {}),
        ("zeros_", (2, 1), {}),
    ):
        wanted = getattr(torch.nn.init, name)(torch.empty(shape), **options).numpy()
        np.testing.assert_array_equal(drawn(name, shape, **options), wanted.astype(np.float64))
    for shape in ((5, 3), (3, 5), (4, 2, 3)):
        flat = drawn("orthogonal_", shape, gain=3.0).reshape(shape[0], -1)
        product = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
        np.testing.assert_allclose(product, 9 * np.eye(min(flat.shape)), atol=1e-5)
    sparse = drawn("sparse_", (10, 4), sparsity=0.25)
    assert (sparse == 0).sum(0).tolist() == [3] * 4 and drawn("sparse_", (4, 2), sparsity=1.0).any() == 0
    for nonlinearity in (
        "linear",
        "conv2d",
        "conv_transpose3d",
        "sigmoid",
        "tanh",
        "relu",
        "leaky_relu",
        "selu",
    ):
        assert nn.init.calculate_gain(nonlinearity) == torch.nn.init.calculate_gain(nonlinearity)


def test_an_initialiser_writes_into_the_parameter_and_draws_from_a_generator() -> None:
    weight = nn.Linear(4, 3).weight
    cell = weight.cell
    for name in ("orthogonal_", "trunc_normal_", "uniform_", "normal_", "kaiming_normal_", "xavier_uniform_"):
        initialise = getattr(nn.init, name)
        assert initialise(weight, generator=Generator(3)) is weight and weight.cell is cell
        once = weight.tolist()
        before = default_generator.get_state()
        assert initialise(weight, generator=Generator(3)).tolist() == once
        assert default_generator.get_state() == before


def test_initialisers_refuse_what_has_no_meaning() -> None:
    matrix, vector = cr.zeros((2, 3)), cr.zeros(3)
    for wrong in (
        lambda: nn.init.eye_(vector),
        lambda: nn.init.dirac_(matrix),
        lambda: nn.init.orthogonal_(vector),
        lambda: nn.init.sparse_(vector, 0.5),
        lambda: nn.init.kaiming_uniform_(vector),
    ):
        with pytest.raises(ShapeError, match="got"):
            wrong()
    for wrong in (
        lambda: nn.init.trunc_normal_(matrix, a=1.0, b=1.0),
        lambda: nn.init.trunc_normal_(matrix, std=0.0),
        lambda: nn.init.sparse_(matrix, 1.5),
        lambda: nn.init.dirac_(cr.zeros((3, 1, 1)), groups=2),
        lambda: nn.init.calculate_gain("swish"),
        lambda: nn.init.kaiming_normal_(matrix, mode="fan"),
    ):
        with pytest.raises(ArgumentError, match="got"):
            wrong()
