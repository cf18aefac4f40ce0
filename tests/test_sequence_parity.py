"""Training of sequence models beside PyTorch's: the same weights and batches give the same weights, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim

pytestmark = pytest.mark.usefixtures("one_thread_of_pytorch")

STEPS, BATCH, LENGTH, TOKENS, WIDTH = 50, 3, 6, 7, 6


class Predictor(nn.Module):
    """The next token, from a recurrent net or from a transformer that looks back only."""

    def __init__(self, kind: str) -> None:
        self.embed = nn.Embedding(TOKENS, WIDTH, dtype="float64")
        if kind == "transformer":
            layer = nn.TransformerEncoderLayer(
                WIDTH,
                2,
                10,
                dropout=0.0,
                batch_first=True,
                norm_first=True,
                activation="gelu",
                dtype="float64",
            )
            norm = nn.LayerNorm(WIDTH, dtype="float64")
            self.net: nn.Module = nn.TransformerEncoder(layer, 2, norm)
        else:
            self.net = getattr(nn, kind)(WIDTH, WIDTH, 2, batch_first=True, dtype="float64")
        self.head = nn.Linear(WIDTH, TOKENS, dtype="float64")

    def forward(self, tokens: Any, lengths: Any) -> Any:
        x = self.embed(tokens)
        if isinstance(self.net, nn.TransformerEncoder):
            later = cr.arange(LENGTH) >= lengths[:, None]
            return self.head(self.net(x, src_key_padding_mask=later, is_causal=True))
        return self.head(self.net(x, lengths=lengths)[0])


def theirs_of(torch: Any, kind: str) -> Any:
    class Predictor(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(TOKENS, WIDTH, dtype=torch.float64)
            if kind == "transformer":
                options = {"dropout": 0.0, "batch_first": True, "norm_first": True, "activation": "gelu"}
                layer = torch.nn.TransformerEncoderLayer(WIDTH, 2, 10, dtype=torch.float64, **options)
                norm = torch.nn.LayerNorm(WIDTH, dtype=torch.float64)
                self.net = torch.nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=False)
            else:
                net = getattr(torch.nn, kind)
                self.net = net(WIDTH, WIDTH, 2, batch_first=True, dtype=torch.float64)
            self.head = torch.nn.Linear(WIDTH, TOKENS, dtype=torch.float64)

        def forward(self, tokens: Any, lengths: Any) -> Any:
            x = self.embed(tokens)
            if kind == "transformer":
                later = torch.arange(LENGTH) >= lengths[:, None]
                ahead = torch.triu(torch.ones(LENGTH, LENGTH, dtype=torch.bool), 1)
                return self.head(self.net(x, mask=ahead, src_key_padding_mask=later))
            rnn = torch.nn.utils.rnn
            packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            padded, _ = rnn.pad_packed_sequence(self.net(packed)[0], batch_first=True, total_length=LENGTH)
            return self.head(padded)

    return Predictor()


def batches() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Tokens, lengths, and the token after each, −100 behind the end."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(STEPS):
        tokens, lengths = random.integers(0, TOKENS, (BATCH, LENGTH)), random.integers(1, LENGTH + 1, BATCH)
        following = np.where(np.arange(LENGTH) < lengths[:, None], (tokens * 3 + 1) % TOKENS, -100)
        found.append((tokens, lengths, following))
    return found


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "transformer"])
def test_trajectories_equal_pytorchs(torch: Any, kind: str, compiled: bool) -> None:
    theirs = theirs_of(torch, kind)
    ours = Predictor(kind)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    here, there = optim.Adam(ours.parameters(), lr=1e-3), torch.optim.Adam(theirs.parameters(), lr=1e-3)

    def step(tokens: Any, lengths: Any, following: Any) -> Any:
        loss = F.cross_entropy(ours(tokens, lengths).reshape((-1, TOKENS)), following.reshape((-1,)))
        loss.backward()
        here.step()
        here.zero_grad()
        return loss

    run = cr.compile(step) if compiled else step
    for batch in batches():
        loss = run(*map(cr.tensor, batch))
        tokens, lengths, following = map(torch.from_numpy, batch)
        wanted = torch.nn.functional.cross_entropy(
            theirs(tokens, lengths).reshape(-1, TOKENS), following.reshape(-1)
        )
        there.zero_grad()
        wanted.backward()
        there.step()
        assert abs(loss.item() - wanted.item()) < 1e-9
    for (name, one), (other, two) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        # The bias of keys moves all products of a query alike, which softmax does not see: its gradient is rounding
        # noise, which Adam blows up to full steps.
        a, b = one.detach().numpy(), two.detach().numpy()
        if name.endswith("in_proj_bias"):
            a, b = np.delete(a, slice(WIDTH, 2 * WIDTH)), np.delete(b, slice(WIDTH, 2 * WIDTH))
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
