"""The models of character sequences, written with PyTorch, which is handed in. Knows nothing of chainrule."""

from __future__ import annotations

from typing import Any

from ..workloads import Sequences, Workload


def sequence_model(torch: Any, workload: Workload) -> Any:
    """The model of a workload. Its classes are made here: their base comes with PyTorch, which may not be there."""
    assert isinstance(workload, Sequences)
    return _transformer(torch, workload) if workload.network == "gpt" else _recurrent(torch, workload)


def _recurrent(torch: Any, workload: Sequences) -> Any:
    """Embedding, one recurrent layer, a linear layer at every place."""
    nn = torch.nn

    class Recurrent(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            kind = {"rnn": nn.RNN, "lstm": nn.LSTM}[workload.network]
            self.tokens = nn.Embedding(workload.vocabulary, workload.width)
            self.recurrent = kind(workload.width, workload.width, batch_first=True)
            self.head = nn.Linear(workload.width, workload.vocabulary)

        def forward(self, x: Any) -> Any:
            """Logits (batch, length, vocabulary) of characters (batch, length)."""
            states, _ = self.recurrent(self.tokens(x))
            return self.head(states)

    return Recurrent()


def _block(torch: Any, workload: Sequences) -> Any:
    """Attention and two linear layers, each behind a LayerNorm and beside a shortcut."""
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            d, self.heads = workload.width, workload.heads
            self.before, self.between = nn.LayerNorm(d), nn.LayerNorm(d)
            self.attention, self.project = nn.Linear(d, 3 * d), nn.Linear(d, d)
            self.widen, self.narrow = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

        def forward(self, x: Any) -> Any:
            """(batch, length, width) → the same."""
            batch, length, width = x.shape
            parts = self.attention(self.before(x)).view(batch, length, 3, self.heads, width // self.heads)
            q, k, v = (parts[:, :, one].transpose(1, 2) for one in range(3))
            seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
            x = x + self.project(seen.reshape(batch, length, width))
            return x + self.narrow(functional.gelu(self.widen(self.between(x))))

    return Block()


def _transformer(torch: Any, workload: Sequences) -> Any:
    """A decoder with learned positions."""
    nn = torch.nn

    class Transformer(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(workload.vocabulary, workload.width)
            self.positions = nn.Embedding(workload.length, workload.width)
            self.blocks = nn.ModuleList([_block(torch, workload) for _ in range(workload.layers)])
            self.norm = nn.LayerNorm(workload.width)
            self.head = nn.Linear(workload.width, workload.vocabulary)

        def forward(self, x: Any) -> Any:
            """Logits (batch, length, vocabulary) of characters (batch, length)."""
            x = self.tokens(x) + self.positions.weight
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return Transformer()
