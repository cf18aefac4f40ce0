"""Language models of characters that learn to write like Python's documentation: an LSTM and a four-layer GPT.

    python examples/character_model.py                   both, one after the other
    python examples/character_model.py --model gpt --epochs 20 --folder runs/gpt
    python examples/character_model.py --quick

They are measured by perplexity on the last tenth of the text, which they have not seen: between how many characters
they hesitate on average. Beside them stand two counts: how often each character occurs (unigrams), and how often after
which other one (bigrams).
Data: the texts of Python's `help()`, `pydoc_data.topics`, which every Python has; they differ a little between its
versions.
"""

from __future__ import annotations

import argparse
import math
import time
from pydoc_data import topics
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import functional as F
from chainrule import nn, optim


class LSTM(nn.Module):
    """Characters → vectors → LSTM → scores of the next character."""

    def __init__(self, characters: int, width: int) -> None:
        self.embedding = nn.Embedding(characters, width // 2)
        self.lstm = nn.LSTM(width // 2, 2 * width, batch_first=True)
        self.out = nn.Linear(2 * width, characters)

    def forward(self, tokens: Any) -> Any:
        """(N, length) → (N, characters, length)."""
        outputs, _ = self.lstm(self.embedding(tokens))
        return self.out(outputs).permute_dims((0, 2, 1))  # classes first, as cross_entropy takes them


class Block(nn.Module):
    """Attention to what came before, then a small network; each adds to what it is given."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Any) -> Any:
        """(N, length, width) → the same shape."""
        n, length, width = x.shape
        parts = self.qkv(self.norm1(x)).reshape((n, length, 3, self.heads, width // self.heads))
        q, k, v = (parts[:, :, j].permute_dims((0, 2, 1, 3)) for j in range(3))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.dropout(self.out(seen.permute_dims((0, 2, 1, 3)).reshape((n, length, width))))
        return x + self.dropout(self.mlp(self.norm2(x)))


class GPT(nn.Module):
    """Characters and places → vectors → blocks → scores of the next character, by the same vectors."""

    def __init__(self, characters: int, width: int, length: int, layers: int = 4, heads: int = 4) -> None:
        self.embedding = nn.Embedding(characters, width)
        self.positions = nn.LearnedPositions(length, width, batch_first=True)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout=0.1) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens: Any) -> Any:
        """(N, length) → (N, characters, length)."""
        x = self.norm(self.blocks(self.positions(self.embedding(tokens))))
        return (x @ self.embedding.weight.T).permute_dims((0, 2, 1))


def read() -> str:
    """All texts of Python's help, one after the other."""
    return "\n".join(topics.topics[name] for name in sorted(topics.topics))


def counted(training: Any, validation: Any, characters: int) -> tuple[float, float]:
    """Perplexities of unigrams and bigrams, each count raised by one tenth so that nothing is impossible."""
    pairs = np.full((characters, characters), 0.1)
    np.add.at(pairs, (training[:-1], training[1:]), 1)
    singles = np.bincount(training, minlength=characters) + 0.1
    single = np.log(singles / singles.sum())[validation[1:]].mean()
    pair = np.log(pairs / pairs.sum(axis=1, keepdims=True))[validation[:-1], validation[1:]].mean()
    return math.exp(-single), math.exp(-pair)


def sample(run: Any, prompt: str, count: int, length: int, temperature: float, seed: int) -> str:
    """The prompt and `count` characters after it, drawn from the model one by one."""
    vocabulary = run.preparation
    random = np.random.default_rng(seed)
    tokens = vocabulary.encode(prompt).tolist()
    for _ in range(count):
        scores = run.outputs(np.array([tokens[-length:]]))[0, :, -1].astype(np.float64) / temperature
        shares = np.exp(scores - scores.max())
        tokens.append(int(random.choice(len(shares), p=shares / shares.sum())))
    return str(vocabulary.decode(tokens))


def train(name: str, training: Any, validation: Any, given: argparse.Namespace) -> float:
    """Train one model, print what it writes, return its perplexity."""
    cr.manual_seed(given.seed)
    characters = len(training.vocabulary)
    made = {
        "lstm": lambda: LSTM(characters, given.width),
        "gpt": lambda: GPT(characters, given.width, given.length),
    }
    model = made[name]()
    batches = -(-len(training) // given.batch_size)
    optimizer = optim.AdamW(model.parameters(), lr=2e-3 if name == "lstm" else 1e-3, weight_decay=0.01)
    started = time.perf_counter()
    run = cr.fit(
        model, training, validation=validation, epochs=given.epochs, batch_size=given.batch_size, seed=given.seed,
        optimizer=optimizer, clip_norm=1.0, progress="plain" if given.progress else False,
        scheduler=optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=4e-3 if name == "lstm" else 2e-3, total_steps=batches * given.epochs
        ),
        folder=None if given.folder is None else f"{given.folder}-{name}",
    )  # fmt: skip
    seconds = time.perf_counter() - started
    perplexity = math.exp(run.history[-1]["validation_loss"])
    parameters = sum(one.size for one in model.parameters())
    print(f"--- {name}: {parameters:,} parameters, {batches * given.epochs} updates in {seconds:.0f} s")
    print(sample(run, "The ", given.sample, given.length, given.temperature, given.seed))
    return perplexity


def main() -> None:
    """Train the models and compare their perplexities."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["lstm", "gpt", "both"], default="both")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=int, default=128, help="of the GPT; the LSTM has twice as many units")
    parser.add_argument("--length", type=int, default=128, help="characters of a window")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--sample", type=int, default=400, help="characters to write at the end")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="keep the runs in FOLDER-lstm and FOLDER-gpt")
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--quick", action="store_true", help="20,000 characters, one epoch of tiny models")
    given = parser.parse_args()
    text = read()
    if given.quick:
        text, given.epochs, given.width, given.length, given.sample = text[:20_000], 1, 32, 32, 20

    windows = cr.data.TextWindows(text, given.length, random=True, seed=given.seed)
    training, validation = windows.split(0.1)
    print(
        f"{len(text):,} characters, {len(windows.vocabulary)} different ones; the last tenth is held back; seed "
        f"{given.seed}"
    )
    single, pair = counted(training.tokens, validation.tokens, len(windows.vocabulary))
    found = {"unigrams": single, "bigrams": pair}
    for name in ("lstm", "gpt") if given.model == "both" else (given.model,):
        found[name] = train(name, training, validation, given)
    print("perplexity of a character on the text held back (and bits):")
    for name, value in found.items():
        print(f"  {name:12} {value:7.2f}  ({math.log2(value):.2f})")
    best = min(found, key=lambda name: found[name])
    print(f"Verdict: {best} is best, with {found[best] / pair:.0%} of the perplexity of bigrams.")


if __name__ == "__main__":
    main()
