"""Recurrent cells and nets: beside PyTorch's, by differences, compiled, with lengths and with bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim
from chainrule.errors import ArgumentError, BoundsError, DtypeError, ShapeError
from chainrule.testing import check_grads

pytestmark = pytest.mark.usefixtures("one_thread_of_pytorch")

KINDS = ["RNN", "LSTM", "GRU"]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def leaves(torch: Any, *arrays: np.ndarray) -> tuple[list[cr.Tensor], list[Any]]:
    ours = [cr.tensor(one, requires_grad=True) for one in arrays]
    return ours, [torch.from_numpy(one.copy()).requires_grad_() for one in arrays]


def flat(results: Any) -> list[Any]:
    """The tensors of (output, h) or (output, (h, c)), or of a cell's result."""
    if not isinstance(results, tuple):
        return [results]
    return [one for part in results for one in flat(part)]


def compare(torch: Any, results: Any, expected: Any, ours: list[cr.Tensor], theirs: list[Any]) -> None:
    """Every result, and the gradients of everything that learns under a weighted sum of all results."""
    loss, wanted = cr.tensor(0.0, dtype="float64"), torch.zeros((), dtype=torch.float64)
    for k, (one, two) in enumerate(zip(flat(results), flat(expected), strict=True)):
        close(one.detach().numpy(), two.detach().numpy())
        slope = normal(*one.shape, seed=20 + k)
        loss = loss + (one * cr.tensor(slope)).sum()
        wanted = wanted + (two * torch.from_numpy(slope)).sum()
    loss.backward()
    wanted.backward()
    for one, two in zip(ours, theirs, strict=True):
        assert (one.grad is None) == (two.grad is None)
        if one.grad is not None:
            close(one.grad.numpy(), two.grad.numpy())


def twins(torch: Any, kind: str, *sizes: int, **options: Any) -> tuple[Any, Any]:
    theirs = getattr(torch.nn, kind)(*sizes, dtype=torch.float64, **options)
    ours = getattr(nn, kind)(*sizes, dtype="float64", **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    return ours, theirs


# --------------------------------------------------------------------------------------------- cells


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(3,), (), (0,)], ids=str)
@pytest.mark.parametrize("started", [True, False])
def test_cells_equal_pytorchs(
    torch: Any, kind: str, bias: bool, batch: tuple[int, ...], started: bool
) -> None:
    ours, theirs = twins(torch, f"{kind}Cell", 4, 5, bias=bias)
    x, y = leaves(torch, normal(*batch, 4), normal(*batch, 5, seed=1), normal(*batch, 5, seed=2))
    used = [1, 2] if kind == "LSTM" else [1]
    if not started:
        results, expected, used = ours(x[0]), theirs(y[0]), []
    elif kind == "LSTM":
        results, expected = ours(x[0], (x[1], x[2])), theirs(y[0], (y[1], y[2]))
    else:
        results, expected = ours(x[0], x[1]), theirs(y[0], y[1])
    known = [[one[k] for k in (0, *used)] for one in (x, y)]
    compare(torch, results, expected, [*known[0], *ours.parameters()], [*known[1], *theirs.parameters()])


def test_the_other_activation_of_a_simple_cell_equals_pytorchs(torch: Any) -> None:
    ours, theirs = twins(torch, "RNNCell", 4, 5, nonlinearity="relu")
    x, y = leaves(torch, normal(3, 4))
    compare(torch, ours(*x), theirs(*y), [*x, *ours.parameters()], [*y, *theirs.parameters()])
    with pytest.raises(ArgumentError, match="nonlinearity must be 'tanh' or 'relu'; got 'gelu'"):
        nn.RNNCell(4, 5, nonlinearity="gelu")


def test_functions_of_cells_equal_their_layers_and_have_both_orders() -> None:
    for kind, function, gates in (("RNN", F.rnn_cell, 1), ("LSTM", F.lstm_cell, 4), ("GRU", F.gru_cell, 3)):
        cell = getattr(nn, f"{kind}Cell")(3, 2, dtype="float64")
        weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
        x, h, c = (cr.tensor(normal(*shape, seed=k)) for k, shape in enumerate([(2, 3), (2, 2), (2, 2)]))
        state = (h, c) if gates == 4 else h
        for one, two in zip(flat(function(x, state, *weights)), flat(cell(x, state))):
            close(one.detach().numpy(), two.detach().numpy())

        def of(x: Any, h: Any, *rest: Any, function: Any = function, more: Any = (c,) * (gates == 4)) -> Any:
            return cr.concat([one * one for one in flat(function(x, (h, *more) if more else h, *rest))])

        check_grads(of, (x, h, *(one.detach() for one in weights)), elements=3)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: F.lstm_cell(cr.ones(2), cr.ones((1, 1)), cr.ones((4, 2)), cr.ones((4, 1))),
            ShapeError,
            "pair",
        ),
        (
            lambda: F.gru_cell(cr.ones(2), cr.ones(1), cr.ones((4, 2)), cr.ones((4, 1))),
            ShapeError,
            "weight_ih",
        ),
        (
            lambda: F.rnn_cell(cr.ones(3), cr.ones(1), cr.ones((1, 2)), cr.ones((1, 1))),
            ShapeError,
            "an input",
        ),
        (
            lambda: F.rnn_cell(cr.ones(2), cr.ones(2), cr.ones((1, 2)), cr.ones((1, 1))),
            ShapeError,
            "states of",
        ),
        (
            lambda: nn.LSTMCell(2, 3)(cr.ones((1, 2)), cr.ones((1, 3))),
            ShapeError,
            "LSTMCell needs hx as a pair",
        ),
        (lambda: nn.GRUCell(2, 3)(cr.ones((1, 4))), ShapeError, r"GRUCell needs \(N, 2\) or \(2,\)"),
        (lambda: nn.GRUCell(2, 3)(cr.ones((1, 2)), cr.ones((2, 3))), ShapeError, r"hx of shape \(1, 3\)"),
        (lambda: nn.RNNCell(2, 3)(cr.ones((1, 2), dtype="float64")), DtypeError, "RNNCell needs"),
        (lambda: nn.RNNCell(0, 3), ArgumentError, "input_size"),
    ],
)
def test_bad_input_of_cells_is_named(call: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        call()


# ---------------------------------------------------------------------------------------- whole sequences

OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 3, "bias": False, "batch_first": True},
    {"bidirectional": True, "batch_first": True},
]


def given_to(kind: str, options: dict[str, Any], single: bool, batch: int = 3) -> list[np.ndarray]:
    """An input of 7 steps, and the states at the start."""
    count = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    shape = (7, 4) if single else (batch, 7, 4) if options.get("batch_first") else (7, batch, 4)
    state = (count, 5) if single else (count, batch, 5)
    return [normal(*shape), normal(*state, seed=1), *([normal(*state, seed=2)] if kind == "LSTM" else [])]


def state_of(parts: list[Any]) -> Any:
    return tuple(parts) if len(parts) > 1 else parts[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("single", [False, True], ids=["batch", "single"])
def test_nets_equal_pytorchs(torch: Any, kind: str, options: dict[str, Any], single: bool) -> None:
    ours, theirs = twins(torch, kind, 4, 5, **options)
    for started in (False, True):
        ours.zero_grad()
        theirs.zero_grad()
        x, y = leaves(torch, *given_to(kind, options, single))
        results = ours(x[0], state_of(x[1:])) if started else ours(x[0])
        expected = theirs(y[0], state_of(y[1:])) if started else theirs(y[0])
        count = len(x) if started else 1
        compare(
            torch, results, expected, [*x[:count], *ours.parameters()], [*y[:count], *theirs.parameters()]
        )


def test_a_simple_net_with_rectifiers_equals_pytorchs(torch: Any) -> None:
    ours, theirs = twins(torch, "RNN", 4, 5, 2, nonlinearity="relu")
    x, y = leaves(torch, normal(7, 3, 4))
    compare(torch, ours(*x), theirs(*y), [*x, *ours.parameters()], [*y, *theirs.parameters()])
    assert repr(ours) == "RNN(4, 5, num_layers=2, nonlinearity='relu')"
    assert repr(nn.GRU(4, 5)) == "GRU(4, 5)"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("started", [False, True])
def test_lengths_are_what_packed_sequences_are(
    torch: Any, kind: str, options: dict[str, Any], started: bool
) -> None:
    ours, theirs = twins(torch, kind, 4, 5, **options)
    arrays = given_to(kind, options, single=False, batch=4)
    lengths = [3, 7, 1, 5]
    first = bool(options.get("batch_first"))
    hole = arrays[0] if first else arrays[0].swapaxes(0, 1)
    for row, length in zip(hole, lengths):
        row[length:] = 1e3  # whatever stands behind the end has no effect
    x, y = leaves(torch, *arrays)
    packed = torch.nn.utils.rnn.pack_padded_sequence(y[0], lengths, batch_first=first, enforce_sorted=False)
    expected, last = theirs(packed, state_of(y[1:])) if started else theirs(packed)
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(expected, batch_first=first, total_length=7)
    results = ours(x[0], state_of(x[1:]) if started else None, lengths=lengths)
    count = len(x) if started else 1
    compare(
        torch, results, (padded, last), [*x[:count], *ours.parameters()], [*y[:count], *theirs.parameters()]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_stop_infinities_of_the_padding(kind: str) -> None:
    net = getattr(nn, kind)(4, 5, bidirectional=True, dtype="float64")
    x = cr.tensor(normal(6, 2, 4), requires_grad=True)
    whole, _ = net(x[:3])
    cut, _ = net(x, lengths=cr.tensor([3, 3]))
    close(cut[:3].detach().numpy(), whole.detach().numpy())
    assert not cut[3:].detach().numpy().any()
    cut.sum().backward()
    assert x.grad is not None and not x.grad[3:].numpy().any() and x.grad[:3].numpy().all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_both_orders(kind: str) -> None:
    net = getattr(nn, kind)(3, 2, dtype="float64")
    names = [name for name, _ in net.named_parameters()]

    def of(x: Any, *weights: Any) -> Any:
        twin = getattr(nn, kind)(3, 2, dtype="float64")
        for name, weight in zip(names, weights):
            twin.__dict__[name] = weight
        output, last = twin(x, lengths=[3, 1])
        return cr.concat([one.reshape((-1,)) for one in flat((output, last))]) * output.sum()

    weights = [one.detach() for one in net.parameters()]
    check_grads(of, (cr.tensor(normal(3, 2, 3)), *weights), elements=2)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_that_are_computed_again_change_nothing_but_memory(kind: str) -> None:
    nets = [getattr(nn, kind)(4, 5, 2, bidirectional=True, dtype="float64") for _ in range(2)]
    nets.append(getattr(nn, kind)(4, 5, 2, bidirectional=True, checkpoint_every=4, dtype="float64"))
    found = []
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
        results = flat(net(cr.tensor(normal(11, 3, 4)), lengths=[11, 2, 7]))
        cr.concat([one.reshape((-1,)) ** 2 for one in results]).sum().backward()
        found.append([*(one.detach() for one in results), *(one.grad for one in net.parameters())])
    for one, two in zip(*found, strict=True):
        close(one.numpy(), two.numpy())
    kept = [nn.summary(net, (64, 3, 4)).kept_bytes for net in nets[1:]]
    assert kept[1] < 0.8 * kept[0]
    assert "checkpoint_every=4" in repr(nets[2])


def test_a_single_sequence_takes_a_single_length_of_any_whole_type() -> None:
    net = nn.GRU(4, 5, dtype="float64")
    x = cr.tensor(normal(300, 4))
    whole, last = net(x[:200])
    for length in (200, np.uint8(200), cr.tensor(200, dtype="uint8")):
        cut, end = net(x, lengths=length)
        close(cut[:200].detach().numpy(), whole.detach().numpy())
        close(end.detach().numpy(), last.detach().numpy())
        assert not cut[200:].detach().numpy().any()


def test_a_summary_counts_the_products_of_every_step() -> None:
    for kind, gates in (("RNN", 1), ("LSTM", 4), ("GRU", 3)):
        found = nn.summary(getattr(nn, kind)(4, 5, 2), (7, 3, 4))
        assert found.multiply_adds == 7 * 3 * gates * 5 * (4 + 5 + 5 + 5)
        assert nn.summary(getattr(nn, kind)(4, 5, 2), (14, 3, 4)).kept_bytes > 1.9 * found.kept_bytes


def test_dropout_stands_between_layers_in_training_only() -> None:
    cr.manual_seed(0)
    x = cr.tensor(normal(7, 3, 4))
    net = nn.GRU(4, 5, 2, dropout=0.5, dtype="float64")
    assert net(x)[0].tolist() != net(x)[0].tolist()
    net.eval()
    assert net(x)[0].tolist() == net(x)[0].tolist()
    net.train()
    lower = nn.GRU(4, 5, dtype="float64")
    lower.load_state_dict({name: value for name, value in net.state_dict().items() if name.endswith("l0")})
    upper = nn.GRU(5, 5, dtype="float64")
    upper.load_state_dict(
        {name.replace("l1", "l0"): value for name, value in net.state_dict().items() if name.endswith("l1")}
    )
    cr.manual_seed(7)
    found, _ = net(x)
    cr.manual_seed(7)
    wanted, _ = upper(F.dropout(lower(x)[0], 0.5))
    close(found.detach().numpy(), wanted.detach().numpy())
    with pytest.warns(UserWarning, match="GRU drops out between its layers; got dropout=0.5 and one layer"):
        nn.GRU(4, 5, dropout=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_first_numbers_are_pytorchs(torch: Any, kind: str) -> None:
    cr.manual_seed(0)
    torch.manual_seed(0)
    ours, theirs = getattr(nn, kind)(16, 64, 2), getattr(torch.nn, kind)(16, 64, 2)
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert one.shape == tuple(two.shape)
        assert (
            abs(one.detach().numpy()).max() <= 1 / 8
            and abs(one.detach().numpy().std() - two.std().item()) < 0.02
        )


def test_empty_batches_pass_as_in_pytorch() -> None:
    output, (h, c) = nn.LSTM(4, 5, bidirectional=True)(cr.ones((3, 0, 4)))
    assert output.shape == (3, 0, 10) and h.shape == c.shape == (2, 0, 5)
    output.sum().backward()
    assert nn.GRU(4, 5)(cr.ones((3, 0, 4)), lengths=[])[0].shape == (3, 0, 5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: m(cr.ones(4)), ShapeError, r"\(T, N, 4\), or \(T, 4\) for one sequence; got \(4,\)"),
        (lambda m: m(cr.ones((7, 3, 2))), ShapeError, r"input_size="),
        (lambda m: m(cr.ones((0, 3, 4))), ShapeError, "a step in time or more"),
        (lambda m: m(cr.ones((7, 3, 4), dtype="float64")), DtypeError, "float32"),
        (lambda m: m(cr.ones((7, 3, 4), dtype="int64")), DtypeError, "needs floats"),
        (lambda m: m(cr.ones((7, 3, 4)), cr.ones((1, 3, 5))), ShapeError, r"hx as a pair \(h, c\)"),
        (
            lambda m: m(cr.ones((7, 3, 4)), (cr.ones((1, 3, 5)), cr.ones((1, 2, 5)))),
            ShapeError,
            "needs c of shape",
        ),
        (lambda m: m(cr.ones((7, 4)), (cr.ones((1, 1, 5)),) * 2), ShapeError, r"needs h of shape \(1, 5\)"),
        (lambda m: m(cr.ones((7, 3, 4)), lengths=[7, 8, 1]), BoundsError, "lengths from 1 to 7.*got 1 to 8"),
        (lambda m: m(cr.ones((7, 3, 4)), lengths=[7, 0, 1]), BoundsError, "Leave empty sequences out"),
        (lambda m: m(cr.ones((7, 3, 4)), lengths=[7, 1]), ShapeError, "a length for each sequence"),
        (lambda m: m(cr.ones((7, 3, 4)), lengths=[7.0, 1.0, 2.0]), DtypeError, "whole numbers as lengths"),
    ],
)
def test_bad_input_names_the_net(call: Any, error: type, words: str) -> None:
    model = nn.ModuleDict({"memory": nn.LSTM(4, 5)})
    with pytest.raises(error, match=words) as caught:
        call(model["memory"])
    assert "LSTM 'memory'" in str(caught.value)


def test_what_pytorchs_users_look_for_is_answered() -> None:
    with pytest.raises(AttributeError, match="Weights are read where they lie: leave it out"):
        nn.LSTM(2, 3).flatten_parameters()
    with pytest.raises(ArgumentError, match=r"put an nn\.Linear behind the net"):
        nn.LSTM(2, 3, proj_size=1)  # type: ignore[call-arg]
    assert nn.LSTM(2, 3, proj_size=0, device="cpu") is not None  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match=r"Use cr\.data\.pad_sequences, then net"):
        _ = nn.utils.rnn


# ------------------------------------------------------------------------------------------- compiled


class Reader(nn.Module):
    """Tokens, a net, and a class from the last state of both directions."""

    def __init__(self, kind: str, dropout: float = 0.0) -> None:
        self.embed = nn.Embedding(9, 4, padding_idx=0, dtype="float64")
        options = {"bidirectional": True, "batch_first": True, "dropout": dropout, "dtype": "float64"}
        self.net = getattr(nn, kind)(4, 5, 2, **options)
        self.head = nn.Linear(10, 3, dtype="float64")

    def forward(self, tokens: Any, lengths: Any) -> Any:
        _, last = self.net(self.embed(tokens), lengths=lengths)
        h = last[0] if isinstance(last, tuple) else last
        return self.head(cr.concat([h[-2], h[-1]], axis=-1))


def stepper(model: nn.Module, optimizer: Any) -> Any:
    def step(tokens: Any, lengths: Any, classes: Any) -> Any:
        loss = F.cross_entropy(model(tokens, lengths), classes)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def batch_of(seed: int = 0) -> tuple[cr.Tensor, cr.Tensor, cr.Tensor]:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 8, 4)
    tokens = random.integers(1, 9, (4, 7)) * (np.arange(7) < lengths[:, None])
    return cr.tensor(tokens), cr.tensor(lengths), cr.tensor(random.integers(0, 3, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_equals_eager(kind: str) -> None:
    losses = []
    for compiled in (False, True):
        cr.manual_seed(1)
        model = Reader(kind, dropout=0.3)
        step = stepper(model, optim.Adam(model.parameters(), lr=0.02))
        step = cr.compile(step) if compiled else step
        losses.append([step(*batch_of(k)).item() for k in range(4)])
    close(losses[1], losses[0])


def test_a_compiled_step_refuses_what_it_cannot_read_and_changes_nothing() -> None:
    cr.manual_seed(0)
    model = Reader("LSTM")
    step = cr.compile(stepper(model, optim.SGD(model.parameters(), lr=0.1)))
    tokens, lengths, classes = batch_of()
    step(tokens, lengths, classes)
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    far = (np.iinfo(np.int64).max, np.iinfo(np.int64).min, 1 << 32)
    for bad, words in (
        ((tokens, lengths + 7, classes), "LSTM 'net' needs lengths from 1 to 7"),
        ((tokens, lengths * 0, classes), "LSTM 'net' needs lengths from 1 to 7.*got 0 to 0"),
        ((tokens + 5, lengths, classes), "Embedding 'embed' needs indices from 0 to 8"),
        ((tokens, lengths, classes + 3), "needs classes from 0 to 2"),
        *(((cr.tensor(np.full((4, 7), one)), lengths, classes), "Embedding 'embed' needs") for one in far),
        *(((tokens, cr.tensor(np.full(4, one)), classes), "LSTM 'net' needs lengths") for one in far),
        *(((tokens, lengths, cr.tensor(np.full(4, one))), "needs classes from 0 to 2") for one in far),
    ):
        with pytest.raises(BoundsError, match=words):
            step(*bad)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    step(tokens, lengths, classes)
