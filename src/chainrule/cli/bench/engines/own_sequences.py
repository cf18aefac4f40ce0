"""The models of character sequences, written with chainrule.

Knows what a user of the package knows.
"""

from __future__ import annotations

from typing import Any

from ....functional import gelu, scaled_dot_product_attention
from ....nn import LSTM, RNN, Embedding, LayerNorm, Linear, Module, ModuleList
from ....tensor import Tensor
from ....tensor.manipulation import permute_dims, reshape
from ..workloads import Sequences, Workload


def sequence_model(workload: Workload) -> Module:
    """The model of a workload."""
    assert isinstance(workload, Sequences)
    return Transformer(workload) if workload.network == "gpt" else Recurrent(workload)


class Recurrent(Module):
    """Embedding, one recurrent layer, a linear layer at every place."""

    def __init__(self, workload: Sequences) -> None:
        super().__init__()
        kind: Any = {"rnn": RNN, "lstm": LSTM}[workload.network]
        self.tokens = Embedding(workload.vocabulary, workload.width)
        self.recurrent = kind(workload.width, workload.width, batch_first=True)
        self.head = Linear(workload.width, workload.vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, length, vocabulary) of characters (batch, length)."""
        states, _ = self.recurrent(self.tokens(x))
        logits: Tensor = self.head(states)
        return logits


class Block(Module):
    """Attention and two linear layers, each behind a LayerNorm and beside a shortcut."""

    def __init__(self, workload: Sequences) -> None:
        super().__init__()
        d, self.heads = workload.width, workload.heads
        self.before, self.between = LayerNorm(d), LayerNorm(d)
        self.attention, self.project = Linear(d, 3 * d), Linear(d, d)
        self.widen, self.narrow = Linear(d, 4 * d), Linear(4 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, width) → the same."""
        batch, length, width = x.shape
        parts = reshape(self.attention(self.before(x)), (batch, length, 3, self.heads, width // self.heads))
        q, k, v = (permute_dims(parts[:, :, one], (0, 2, 1, 3)) for one in range(3))
        seen = permute_dims(scaled_dot_product_attention(q, k, v, is_causal=True), (0, 2, 1, 3))
        x = x + self.project(reshape(seen, (batch, length, width)))
        x = x + self.narrow(gelu(self.widen(self.between(x))))
        return x


class Transformer(Module):
    """A decoder with learned positions."""

    def __init__(self, workload: Sequences) -> None:
        super().__init__()
        self.tokens = Embedding(workload.vocabulary, workload.width)
        self.positions = Embedding(workload.length, workload.width)
        self.blocks = ModuleList([Block(workload) for _ in range(workload.layers)])
        self.norm = LayerNorm(workload.width)
        self.head = Linear(workload.width, workload.vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, length, vocabulary) of characters (batch, length)."""
        x = self.tokens(x) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits
