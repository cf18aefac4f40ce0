"""Attention, the transformer's encoder and positions: beside PyTorch's, by differences, compiled, with bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim
from chainrule.errors import ArgumentError, BoundsError, DtypeError, ShapeError
from chainrule.tensor.random import Generator
from chainrule.testing import check_grads

pytestmark = pytest.mark.usefixtures("one_thread_of_pytorch")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def pairs(torch: Any, *arrays: np.ndarray) -> tuple[list[cr.Tensor], list[Any]]:
    """The same leaves here and there."""
    ours = [cr.tensor(one, requires_grad=True) for one in arrays]
    return ours, [torch.from_numpy(one.copy()).requires_grad_() for one in arrays]


def compare(torch: Any, out: cr.Tensor, expected: Any, ours: list[cr.Tensor], theirs: list[Any]) -> None:
    """The results, and the gradients of all leaves."""
    close(out.detach().numpy(), expected.detach().numpy())
    slope = normal(*out.shape, seed=9)
    out.backward(slope)
    expected.backward(torch.from_numpy(slope))
    for one, two in zip(ours, theirs, strict=True):
        assert (one.grad is None) == (two.grad is None)
        if one.grad is not None:
            close(one.grad.numpy(), two.grad.numpy())


def compare_modules(
    torch: Any, ours: nn.Module, theirs: Any, out: Any, expected: Any, x: Any, y: Any
) -> None:
    parameters = [one for _, one in ours.named_parameters()], [one for _, one in theirs.named_parameters()]
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    compare(torch, out, expected, [*x, *parameters[0]], [*y, *parameters[1]])


def load(ours: nn.Module, theirs: Any) -> None:
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})


# ------------------------------------------------------------------------------------- the function


def mask_of(kind: str, shape: tuple[int, ...]) -> np.ndarray | None:
    if kind == "none":
        return None
    if kind == "bool":
        mask = normal(*shape, seed=5) > -0.3
        mask[..., 0] = True
        return mask
    return normal(*shape, seed=6)


@pytest.mark.parametrize(
    ("shape", "keys", "width", "options"),
    [
        ((5, 3), 5, 3, {}),
        ((2, 5, 3), 7, 4, {}),
        ((2, 3, 7, 4), 7, 4, {"is_causal": True}),
        ((2, 3, 7, 5), 5, 2, {"is_causal": True, "scale": 0.3}),
        ((1, 1, 1, 1), 1, 1, {}),
        ((2, 0, 3), 4, 3, {}),
        ((0, 5, 3), 5, 3, {}),
    ],
    ids=str,
)
def test_attention_equals_pytorchs(
    torch: Any, shape: tuple[int, ...], keys: int, width: int, options: dict[str, Any]
) -> None:
    *batch, length, size = shape
    parts = normal(*shape), normal(*batch, keys, size, seed=1), normal(*batch, keys, width, seed=2)
    for kind in (
        ("none",) if options.get("is_causal") else ("none", "bool", "float")
    ):  # PyTorch takes one of both
        ours, theirs = pairs(torch, *parts)
        mask = mask_of(kind, (length, keys))
        given = {} if mask is None else {"attn_mask": cr.tensor(mask)}
        wanted = {} if mask is None else {"attn_mask": torch.from_numpy(mask)}
        out = F.scaled_dot_product_attention(*ours, **given, **options)
        expected = torch.nn.functional.scaled_dot_product_attention(*theirs, **wanted, **options)
        compare(torch, out, expected, ours, theirs)


def test_a_mask_and_looking_back_only_hold_together() -> None:
    q, k, v = (cr.tensor(normal(2, 4, 3, seed=seed)) for seed in range(3))
    mask = np.array([True, False, True, True])
    both = F.scaled_dot_product_attention(q, k, v, cr.tensor(mask), is_causal=True)
    one = F.scaled_dot_product_attention(q, k, v, cr.tensor(np.tri(4, dtype=bool) & mask))
    close(both.numpy(), one.numpy())


def test_groups_of_query_heads_share_keys_as_in_pytorch(torch: Any) -> None:
    ours, theirs = pairs(torch, normal(2, 6, 5, 4), normal(2, 3, 5, 4, seed=1), normal(2, 2, 5, 3, seed=2))
    out = F.scaled_dot_product_attention(*ours, enable_gqa=True, is_causal=True)
    expected = torch.nn.functional.scaled_dot_product_attention(*theirs, enable_gqa=True, is_causal=True)
    compare(torch, out, expected, ours, theirs)
    with pytest.raises(ShapeError, match="heads"):
        F.scaled_dot_product_attention(
            cr.ones((2, 5, 4)), cr.ones((3, 5, 4)), cr.ones((2, 5, 4)), enable_gqa=True
        )


def test_who_may_look_at_nothing_gets_nothing_and_no_gradient() -> None:
    """PyTorch's function gives 0 here as well; its MultiheadAttention gives NaN where it returns weights."""
    q, k, v = (cr.tensor(normal(3, 4, seed=seed), requires_grad=True) for seed in range(3))
    for mask in (np.array([[True], [False], [True]]), np.array([[0.0], [-np.inf], [0.0]])):
        out = F.scaled_dot_product_attention(q, k, v, cr.tensor(mask))
        assert out[1].tolist() == [0.0] * 4 and bool(cr.isfinite(out).all())
        for one in (q, k, v):
            one.grad = None
        (out * out).sum().backward()
        assert all(bool(cr.isfinite(one.grad).all()) for one in (q, k, v))
        assert q.grad is not None and q.grad[1].tolist() == [0.0] * 4 and bool((q.grad[0] != 0).all())
    layer = nn.MultiheadAttention(4, 2, dtype="float64")
    x = cr.tensor(normal(3, 2, 4), requires_grad=True)
    out, weights = layer(x, x, x, key_padding_mask=cr.tensor([[False] * 3, [True] * 3]))
    assert weights is not None and weights[1].tolist() == [[0.0] * 3] * 3
    out.sum().backward()
    assert x.grad is not None and bool(cr.isfinite(x.grad).all()) and not x.grad[:, 1].numpy().any()


def test_gradients_of_attention_of_both_orders() -> None:
    q, k, v = (cr.tensor(normal(2, 3, 3, seed=seed)) for seed in range(3))
    mask = cr.tensor(np.array([[True, False, True], [True, True, False], [False, False, False]]))
    check_grads(lambda q, k, v: F.scaled_dot_product_attention(q, k, v), (q, k, v), elements=3)
    check_grads(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask), (q, k, v), elements=3)
    added = cr.tensor(normal(3, 3, seed=4))
    check_grads(
        lambda q, m: F.scaled_dot_product_attention(q, k, v, m, is_causal=True), (q, added), elements=3
    )
    check_grads(
        lambda q, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.4, generator=Generator(3)),
        (q, v),
        elements=3,
    )


def test_dropout_of_weights_keeps_the_mean() -> None:
    q, k, v = cr.zeros((400, 1, 2)), cr.zeros((400, 50, 2)), cr.ones((400, 50, 2))
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=0.5, generator=Generator(1)).numpy()
    assert abs(out.mean() - 1) < 0.02 and out.std() > 0.1


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"key": cr.ones((2, 4, 5))}, ShapeError, "one width"),
        ({"value": cr.ones((2, 5, 3))}, ShapeError, "a value for each key"),
        ({"query": cr.ones(3)}, ShapeError, "Add an axis"),
        ({"query": cr.ones((2, 4, 3), dtype="float64")}, DtypeError, "one dtype"),
        ({"attn_mask": cr.ones((4, 4), dtype="int64")}, DtypeError, "mask of bools"),
        ({"attn_mask": cr.ones((3, 4))}, ShapeError, "scores and the mask"),
        ({"attn_mask": cr.ones((5, 2, 4, 4))}, ShapeError, "extra axes"),
        ({"dropout_p": 2.0}, ArgumentError, "probability"),
    ],
    ids=str,
)
def test_bad_input_of_the_function_is_named(change: dict[str, Any], error: type, words: str) -> None:
    x = cr.ones((2, 4, 3))
    with pytest.raises(error, match=words) as caught:
        F.scaled_dot_product_attention(**{"query": x, "key": x, "value": x, **change})
    assert "scaled_dot_product_attention" in str(caught.value)


# ----------------------------------------------------------------------------------------- the layer


def fresh(torch: Any, *arguments: Any, **options: Any) -> tuple[nn.MultiheadAttention, Any]:
    """The layer here and there with the same numbers, biases included."""
    theirs = torch.nn.MultiheadAttention(*arguments, dtype=torch.float64, **options)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours = nn.MultiheadAttention(*arguments, dtype="float64", **options)
    load(ours, theirs)
    return ours, theirs


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("same", ["self", "memory", "three"])
def test_layer_equals_pytorchs(torch: Any, batch_first: bool, bias: bool, same: str) -> None:
    ours, theirs = fresh(torch, 6, 3, bias=bias, batch_first=batch_first)
    arrays = [normal(2, 5, 6), normal(2, 7, 6, seed=1), normal(2, 7, 6, seed=2)]
    if not batch_first:
        arrays = [one.swapaxes(0, 1).copy() for one in arrays]
    x, y = pairs(torch, *arrays[: {"self": 1, "memory": 2, "three": 3}[same]])
    places = {"self": [0, 0, 0], "memory": [0, 1, 1], "three": [0, 1, 2]}[same]
    out, weights = ours(*(x[k] for k in places))
    expected, wanted = theirs(*(y[k] for k in places))
    close(weights.detach().numpy(), wanted.detach().numpy())
    compare_modules(torch, ours, theirs, out, expected, x, y)


@pytest.mark.parametrize(
    "options", [{"kdim": 5}, {"kdim": 5, "vdim": 4}, {"vdim": 4, "bias": False}], ids=str
)
def test_other_widths_of_keys_and_values_equal_pytorchs(torch: Any, options: dict[str, Any]) -> None:
    ours, theirs = fresh(torch, 6, 2, **options)
    x, y = pairs(
        torch,
        normal(3, 2, 6),
        normal(4, 2, options.get("kdim", 6), seed=1),
        normal(4, 2, options.get("vdim", 6), seed=2),
    )
    out, _ = ours(*x)
    expected, _ = theirs(*y)
    compare_modules(torch, ours, theirs, out, expected, x, y)


@pytest.mark.parametrize(
    ("padding", "mask"),  # PyTorch asks for both of one kind
    [(padding, mask) for padding in ("none", "bool") for mask in ("none", "bool", "heads")]
    + [("none", "float"), ("float", "none"), ("float", "float")],
)
@pytest.mark.parametrize("single", [False, True])
def test_masks_of_the_layer_mean_what_pytorchs_do(torch: Any, padding: str, mask: str, single: bool) -> None:
    ours, theirs = fresh(torch, 4, 2, batch_first=True)
    shape = (5, 4) if single else (3, 5, 4)
    x, y = pairs(torch, normal(*shape))
    given: dict[str, Any] = {}
    if padding != "none":
        kept = mask_of(padding, (5,) if single else (3, 5))
        assert kept is not None
        given["key_padding_mask"] = ~kept if padding == "bool" else kept
    if mask != "none":
        batch = 1 if single else 3
        kept = mask_of("bool" if mask == "heads" else mask, (2 * batch, 5, 5) if mask == "heads" else (5, 5))
        assert kept is not None
        given["attn_mask"] = kept if mask == "float" else ~kept
    out, weights = ours(*x * 3, **{k: cr.tensor(v) for k, v in given.items()}, average_attn_weights=False)
    expected, wanted = theirs(
        *y * 3, **{k: torch.from_numpy(v) for k, v in given.items()}, average_attn_weights=False
    )
    close(weights.detach().numpy(), wanted.detach().numpy())
    compare_modules(torch, ours, theirs, out, expected, x, y)
    again, nothing = ours(*x * 3, **{k: cr.tensor(v) for k, v in given.items()}, need_weights=False)
    assert nothing is None
    close(again.detach().numpy(), out.detach().numpy())


def test_looking_back_only_is_a_keyword_of_its_own() -> None:
    layer = nn.MultiheadAttention(4, 2, dtype="float64")
    x = cr.tensor(normal(5, 2, 4))
    ahead = cr.tensor(~np.tri(5, dtype=bool))
    for given in ({"is_causal": True}, {"attn_mask": ahead, "is_causal": True}):
        close(
            layer(x, x, x, **given)[0].detach().numpy(), layer(x, x, x, attn_mask=ahead)[0].detach().numpy()
        )


def test_first_numbers_are_pytorchs(torch: Any) -> None:
    cr.manual_seed(0)
    torch.manual_seed(0)
    ours, theirs = nn.MultiheadAttention(64, 4), torch.nn.MultiheadAttention(64, 4)
    for (name, one), (other, two) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other and one.shape == tuple(two.shape)
        here, there = one.detach().numpy(), two.detach().numpy()
        assert abs(here.std() - there.std()) < 0.03 * max(there.std(), 1e-9) + 1e-12
        assert abs(np.abs(here).max() - np.abs(there).max()) < 0.05 * np.abs(there).max() + 1e-12


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m, x: m(x[0, 0], x, x), ShapeError, "needs query, key and value"),
        (lambda m, x: m(cr.ones((3, 2, 5)), x, x), ShapeError, "4 features on the last axis of query"),
        (lambda m, x: m(x, x[:2], x), ShapeError, "a value for each key"),
        (lambda m, x: m(x, x[:, :1], x[:, :1]), ShapeError, "one batch size.*batch_first=True"),
        (lambda m, x: m(x.astype("float64"), x, x), DtypeError, "float32"),
        (lambda m, x: m(x, x, x, key_padding_mask=cr.ones((3, 2), dtype="bool")), ShapeError, r"\(2, 3\)"),
        (
            lambda m, x: m(x, x, x, attn_mask=cr.ones((2, 3), dtype="bool")),
            ShapeError,
            r"\(3, 3\) or \(4, 3, 3\)",
        ),
        (lambda m, x: m(x, x, x, attn_mask=cr.ones((3, 3), dtype="int64")), DtypeError, "True is left out"),
    ],
)
def test_bad_input_names_the_layer(call: Any, error: type, words: str) -> None:
    model = nn.ModuleDict({"look": nn.MultiheadAttention(4, 2)})
    with pytest.raises(error, match=words) as caught:
        call(model["look"], cr.ones((3, 2, 4)))
    assert "MultiheadAttention 'look'" in str(caught.value)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ArgumentError, match=r"MultiheadAttention needs num_heads that divide.*embed_dim=12"):
        nn.MultiheadAttention(10, 3)
    with pytest.raises(ArgumentError, match="num_heads"):
        nn.TransformerEncoderLayer(10, 3)
    with pytest.raises(ArgumentError, match="add_bias_kv"):
        nn.MultiheadAttention(4, 2, add_bias_kv=True)  # type: ignore[call-arg]
    assert nn.MultiheadAttention(4, 2, add_bias_kv=False, device="cpu") is not None  # type: ignore[call-arg]


def test_empty_batches_pass() -> None:
    x = cr.ones((3, 0, 4))
    out, weights = nn.MultiheadAttention(4, 2)(x, x, x)
    assert out.shape == (3, 0, 4) and weights is not None and weights.shape == (0, 3, 3)


# --------------------------------------------------------------------------------------- the encoder


def encoders(torch: Any, layers: int = 2, **options: Any) -> tuple[nn.TransformerEncoder, Any]:
    final = bool(options.get("norm_first"))
    there = torch.nn.TransformerEncoderLayer(6, 2, 11, dropout=0.0, dtype=torch.float64, **options)
    theirs = torch.nn.TransformerEncoder(
        there,
        layers,
        torch.nn.LayerNorm(6, dtype=torch.float64) if final else None,
        enable_nested_tensor=False,
    )
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    here = nn.TransformerEncoderLayer(6, 2, 11, dropout=0.0, dtype="float64", **options)
    ours = nn.TransformerEncoder(here, layers, nn.LayerNorm(6, dtype="float64") if final else None)
    load(ours, theirs)
    return ours, theirs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm_first": True, "batch_first": True},
        {"activation": "gelu", "batch_first": True},
        {"norm_first": True, "bias": False, "layer_norm_eps": 1e-3},
    ],
    ids=str,
)
@pytest.mark.parametrize("masked", [False, True])
def test_encoder_equals_pytorchs(torch: Any, options: dict[str, Any], masked: bool) -> None:
    ours, theirs = encoders(torch, **options)
    shape = (3, 5, 6) if options.get("batch_first") else (5, 3, 6)
    x, y = pairs(torch, normal(*shape))
    given: dict[str, Any] = {}
    if masked:
        padding = np.zeros((3, 5), bool)
        padding[1, 3:] = True
        given = {"mask": ~np.tri(5, dtype=bool), "src_key_padding_mask": padding}
    out = ours(*x, **{k: cr.tensor(v) for k, v in given.items()})
    expected = theirs(*y, **{k: torch.from_numpy(v) for k, v in given.items()})
    compare_modules(torch, ours, theirs, out, expected, x, y)
    if masked:
        causal = ours(*x, src_key_padding_mask=cr.tensor(padding), is_causal=True)
        close(causal.detach().numpy(), out.detach().numpy())


def test_encoder_layer_takes_functions_and_refuses_the_rest() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, activation=F.silu)
    assert layer(cr.ones((3, 2, 4))).shape == (3, 2, 4)
    with pytest.raises(ArgumentError, match="'relu', 'gelu' or a function"):
        nn.TransformerEncoderLayer(4, 2, 8, activation="swish")
    with pytest.raises(ArgumentError, match="a layer to copy"):
        nn.TransformerEncoder(nn.TransformerEncoderLayer, 2)  # type: ignore[arg-type]


def test_copies_of_a_layer_learn_on_their_own() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 2)
    first, second = encoder.layers
    assert first.linear1.weight.tolist() == second.linear1.weight.tolist()
    with cr.no_grad():
        first.linear1.weight += 1.0
    assert first.linear1.weight.tolist() != second.linear1.weight.tolist()


def test_dropout_of_the_encoder_stops_in_evaluation() -> None:
    cr.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5), 1)
    x = cr.randn(3, 2, 4)
    assert encoder(x).tolist() != encoder(x).tolist()
    encoder.eval()
    assert encoder(x).tolist() == encoder(x).tolist()


# ------------------------------------------------------------------------------------------ positions


@pytest.mark.parametrize("width", [1, 2, 5, 8])
def test_waves_are_those_of_the_paper(width: int) -> None:
    table = F.sinusoidal_positions(7, width, "float64").numpy()
    for t in range(7):
        for column in range(width):
            angle = t / 10000 ** ((column - column % 2) / width)
            assert abs(table[t, column] - (np.cos(angle) if column % 2 else np.sin(angle))) < 1e-12
    assert F.sinusoidal_positions(7, width).dtype == cr.float32


def test_positions_are_added_along_time() -> None:
    x = cr.tensor(normal(2, 5, 4))
    for layer in (
        nn.SinusoidalPositions(4, batch_first=True),
        nn.LearnedPositions(9, 4, batch_first=True, dtype="float64"),
    ):
        added = (layer(x) - x).detach().numpy()
        assert np.allclose(added[0], added[1]) and not np.allclose(added[0, 0], added[0, 1])
        close(layer(x[0]).detach().numpy(), layer(x)[0].detach().numpy())
        layer.batch_first = False
        turned = cr.permute_dims(x, (1, 0, 2))
        close((layer(turned) - turned).detach().numpy()[:, 0], added[0])
    assert not list(nn.SinusoidalPositions(4).parameters()) and not nn.SinusoidalPositions(4).state_dict()


def test_learned_positions_get_the_gradient_of_what_was_there() -> None:
    layer = nn.LearnedPositions(4, 2)
    layer(cr.zeros((3, 5, 2))).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[5.0, 5.0]] * 3 + [[0.0, 0.0]]


def test_bad_input_of_positions_names_the_layer() -> None:
    with pytest.raises(
        ShapeError, match=r"LearnedPositions has 4 positions; got a sequence of 5.*max_length=5"
    ):
        nn.LearnedPositions(4, 2)(cr.zeros((5, 2)))
    with pytest.raises(ShapeError, match=r"SinusoidalPositions needs \(N, L, E\) or \(L, E\) with E = 4"):
        nn.SinusoidalPositions(4, batch_first=True)(cr.zeros((5, 2)))
    with pytest.raises(DtypeError, match="SinusoidalPositions needs floats"):
        nn.SinusoidalPositions(4)(cr.zeros((5, 4), dtype="int64"))
    with pytest.raises(DtypeError, match="LearnedPositions"):
        nn.LearnedPositions(4, 2)(cr.zeros((3, 2), dtype="float64"))
    with pytest.raises(ArgumentError, match="length"):
        F.sinusoidal_positions(-1, 4)


# ------------------------------------------------------------------------------------------- compiled


class Language(nn.Module):
    """A small model of the next token, whose first and last table are one."""

    def __init__(self, tokens: int, width: int, tied: bool = True, **options: Any) -> None:
        self.embed = nn.Embedding(tokens, width, dtype="float64")
        self.positions = nn.LearnedPositions(16, width, batch_first=True, dtype="float64")
        layer = nn.TransformerEncoderLayer(width, 2, 3 * width, batch_first=True, dtype="float64", **options)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width, dtype="float64"))
        self.head = nn.Linear(width, tokens, bias=False, dtype="float64")
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Any) -> Any:
        return self.head(self.encoder(self.positions(self.embed(tokens)), is_causal=True))


def stepper(model: nn.Module, optimizer: Any) -> Any:
    def step(tokens: Any, targets: Any) -> Any:
        logits = model(tokens)
        loss = F.cross_entropy(logits.reshape((-1, logits.shape[-1])), targets.reshape((-1,)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def test_tied_weights_are_one_parameter_everywhere() -> None:
    cr.manual_seed(0)
    model = Language(11, 6, dropout=0.0)
    names = [name for name, _ in model.named_parameters()]
    assert "embed.weight" in names and "head.weight" not in names
    assert {"embed.weight", "head.weight"} <= set(model.state_dict())
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    step = stepper(model, optimizer)
    tokens = np.random.default_rng(0).integers(0, 11, (3, 5))
    step(tokens[:, :-1], tokens[:, 1:])
    assert model.head.weight is model.embed.weight
    assert model.head.weight.tolist() == model.state_dict()["embed.weight"].tolist()
    twin = Language(11, 6, dropout=0.0)
    twin.load_state_dict(model.state_dict())
    assert twin.head.weight is twin.embed.weight
    close(twin(tokens).detach().numpy(), model(tokens).detach().numpy())
    alone = {name: value for name, value in model.state_dict().items() if name != "head.weight"}
    assert twin.load_state_dict(alone) == ([], [])
    found = nn.summary(model, (3, 5), dtypes="int64")
    assert found.parameters == sum(one.size for one in model.parameters())
    assert [row.shared for row in found.layers if row.path == "head"] == [True]


def test_compiled_encoder_equals_eager_and_learns_the_same() -> None:
    tokens = np.random.default_rng(0).integers(0, 11, (2, 8))
    losses = []
    for compiled in (False, True):
        cr.manual_seed(3)
        model = Language(11, 6, norm_first=True, activation="gelu")  # with dropout: both draw the same
        step = stepper(model, optim.AdamW(model.parameters(), lr=0.01))
        step = cr.compile(step) if compiled else step
        x, y = cr.tensor(tokens[:, :-1]), cr.tensor(tokens[:, 1:])
        losses.append([step(x, y).item() for _ in range(3)])
        if compiled:
            report = step.report()
            assert report.native_share == 1.0 and report.host_operations == ()
    close(losses[1], losses[0])
    assert losses[0][2] < losses[0][0]


def test_a_compiled_step_refuses_unknown_tokens_and_changes_nothing() -> None:
    cr.manual_seed(0)
    model = Language(11, 6, dropout=0.0)
    step = cr.compile(stepper(model, optim.SGD(model.parameters(), lr=0.1)))
    tokens = np.random.default_rng(0).integers(0, 11, (2, 8))
    step(cr.tensor(tokens[:, :-1]), cr.tensor(tokens[:, 1:]))
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    tokens[1, 3] = 11
    with pytest.raises(BoundsError, match="Embedding 'embed' needs indices from 0 to 10; got"):
        step(cr.tensor(tokens[:, :-1]), cr.tensor(tokens[:, 1:]))
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_a_compiled_mask_is_an_input() -> None:
    cr.manual_seed(0)
    layer = nn.MultiheadAttention(4, 2, batch_first=True, dtype="float64")
    x = cr.tensor(normal(2, 5, 4))

    @cr.compile
    def attended(x: Any, padding: Any) -> Any:
        return layer(x, x, x, key_padding_mask=padding)

    for seed in range(3):
        padding = cr.tensor(normal(2, 5, seed=seed) > 0.3)
        for one, two in zip(attended(x, padding), layer(x, x, x, key_padding_mask=padding)):
            close(one.detach().numpy(), two.detach().numpy())
    nothing = cr.tensor(np.ones((2, 5), bool))
    assert attended(x, nothing)[1].tolist() == np.zeros((2, 5, 5)).tolist()


def test_layers_that_look_back_only_share_one_mask() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 8, 0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 3)

    @cr.compile
    def slope(x: Any) -> Any:
        loss = encoder(x, is_causal=True).sum()
        loss.backward()
        return loss

    slope(cr.ones((4, 32, 8)))
    traced = slope.stages()["simplify"]
    assert traced.count("constant bool[32, 32]") == 1 and "constant bool[4, 2, 32, 32]" not in traced


def test_the_memory_of_attention_is_reported() -> None:
    """Weights of every head are kept for the backward pass: four times the bytes for twice the length."""
    layer = nn.MultiheadAttention(16, 4, batch_first=True)
    kept = {}
    for length in (64, 128):
        example = cr.ones((2, length, 16))
        found = nn.summary(layer, (example, example, example))
        kept[length] = found.layers[0].kept_bytes
        assert kept[length] >= 2 * 4 * length * length * 4
    assert 3 < kept[128] / kept[64] < 4.5

    @cr.compile
    def slope(x: Any) -> Any:
        loss = layer(x, x, x, need_weights=False)[0].sum()
        loss.backward()
        return loss

    slope(cr.ones((2, 64, 16)))
    report = slope.report()
    shares = [one for one in report.values if one.type.endswith("[2, 4, 64, 64]") and one.became == "stored"]
    assert shares and report.arena >= 2 * 4 * 64 * 64 * 4
