"""The models of character sequences, written with PyTorch. Loads PyTorch; knows nothing of chainrule."""

from __future__ import annotations

import importlib
from typing import Any

from ..workloads import Sequences

torch: Any = importlib.import_module("torch")
_Module: Any = torch.nn.Module


def sequence_model(workload: Sequences) -> Any:
    """The model of a workload."""
    return Transformer(workload) if workload.network == "gpt" else Recurrent(workload)


class Recurrent(_Module):  # type: ignore[misc]
    """Embedding, one recurrent layer, a linear layer at every place."""

    def __init__(self, workload: Sequences) -> None:
        super().__init__()
        kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM}[workload.network]
        self.tokens = torch.nn.Embedding(workload.vocabulary, workload.width)
        self.recurrent = kind(workload.width, workload.width, batch_first=True)
        self.head = torch.nn.Linear(workload.width, workload.vocabulary)

    def forward(self, x: Any) -> Any:
        """Logits (batch, length, vocabulary) of characters (batch, length)."""
        states, _ = self.recurrent(self.tokens(x))
        return self.head(states)


class Block(_Module):  # type: ignore[misc]
    """Attention and two linear layers, each behind a LayerNorm and beside a shortcut."""

    def __init__(self, workload: Sequences) -> None:
        super().__init__()
        d, self.heads = workload.width, workload.heads
        self.before, self.between = torch.nn.LayerNorm(d), torch.nn.LayerNorm(d)
        self.attention, self.project = torch.nn.Linear(d, 3 * d), torch.nn.Linear(d, d)
        self.widen, self.narrow = torch.nn.Linear(d, 4 * d), torch.nn.Linear(4 * d, d)

    def forward(self, x: Any) -> Any:
        """(batch, length, width) → the same."""
        functional = torch.nn.functional
        batch, length, width = x.shape
        parts = self.attention(self.before(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = (parts[:, :, one].transpose(1, 2) for one in range(3))
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        x = x + self.project(seen.reshape(batch, length, width))
        return x + self.narrow(functional.gelu(self.widen(self.between(x))))


class Transformer(_Module):  # type: ignore[misc]
    """A decoder with learned positions."""

    def __init__(self, workload: Sequences) -> None:
        super().__init__()
        self.tokens = torch.nn.Embedding(workload.vocabulary, workload.width)
        self.positions = torch.nn.Embedding(workload.length, workload.width)
        self.blocks = torch.nn.ModuleList([Block(workload) for _ in range(workload.layers)])
        self.norm = torch.nn.LayerNorm(workload.width)
        self.head = torch.nn.Linear(workload.width, workload.vocabulary)

    def forward(self, x: Any) -> Any:
        """Logits (batch, length, vocabulary) of characters (batch, length)."""
        x = self.tokens(x) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
