"""Random networks of every kind of layer from a seed, trained for some steps in every engine.

`python tests/random_architectures.py 500` trains any number of them: ordinary code, machine code, and JAX where it is
installed, in float64, from the same weights on the same batches.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import nn, optim

Random = np.random.Generator
STEPS = 3
#: Relative to the largest number of each array: Adam divides by gradients that may be small.
TOLERANCE = 1e-7
#: Where they are nothing but rounding (a LayerNorm of two features gives ±1 whatever it gets), it makes steps of it: so
#: many times the distance that weights one rounding away have come apart in ordinary code.
NUDGES = 100
ENGINES = ("native", "jax") if importlib.util.find_spec("jax") else ("native",)


def pick(random: Random, *choices: Any) -> Any:
    """One of the choices."""
    return choices[int(random.integers(len(choices)))]


def activation(random: Random) -> nn.Module:
    """A smooth one more often than one with a kink."""
    kind: Any = pick(random, nn.Tanh, nn.GELU, nn.SiLU, nn.Sigmoid, nn.ReLU, nn.LeakyReLU, nn.Softplus)
    made: nn.Module = kind()
    return made


def dense(random: Random, width: int, classes: int) -> list[nn.Module]:
    """Linear layers with norms and activations between them."""
    layers: list[nn.Module] = []
    for _ in range(int(random.integers(0, 3))):
        wider = int(random.integers(2, 12))
        layers.append(nn.Linear(width, wider, bias=bool(random.integers(2))))
        norm: Any = pick(random, None, nn.BatchNorm1d, nn.LayerNorm, nn.RMSNorm)
        layers += [norm(wider)] if norm is not None else []
        layers.append(activation(random))
        layers += [nn.Dropout(0.3)] if random.integers(3) == 0 else []
        width = wider
    return [*layers, nn.Linear(width, classes)]


def images(random: Random, batch: int, classes: int) -> tuple[nn.Module, np.ndarray[Any, Any]]:
    """Convolutions, norms, pools, and a dense end."""
    channels, side = int(random.integers(1, 4)), int(random.integers(7, 12))
    x = random.standard_normal((batch, channels, side, side + int(random.integers(3))))
    layers: list[nn.Module] = []
    for _ in range(int(random.integers(1, 3))):
        groups = channels if random.integers(4) == 0 else 1
        wider = groups * int(random.integers(1, 4))
        layers.append(
            nn.Conv2d(
                channels, wider, int(random.integers(1, 4)), stride=int(random.integers(1, 3)),
                padding=int(random.integers(0, 3)), dilation=int(random.integers(1, 3)), groups=groups,
                bias=bool(random.integers(2)),
            )
        )  # fmt: skip
        channels = wider
        norms: tuple[Callable[[int], nn.Module] | None, ...] = (
            None, nn.BatchNorm2d, lambda planes: nn.GroupNorm(1, planes), lambda planes: nn.Dropout2d(0.2),
        )  # fmt: skip
        norm = pick(random, *norms)
        layers += [norm(wider)] if norm is not None else []
        layers.append(activation(random))
    pools: tuple[Callable[[], nn.Module] | None, ...] = (
        None, lambda: nn.MaxPool2d(2, ceil_mode=bool(random.integers(2)), padding=int(random.integers(2))),
        lambda: nn.AvgPool2d(2, padding=int(random.integers(2))), lambda: nn.Upsample(scale_factor=2),
        lambda: nn.ConvTranspose2d(channels, channels, 2, stride=2),
    )  # fmt: skip
    pool = pick(random, *pools)
    if pool is not None:
        layers += [nn.AdaptiveAvgPool2d((4, 3)), pool()]
    features = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(2) if random.integers(2) else nn.AdaptiveMaxPool2d(2), nn.Flatten()
    )
    return nn.Sequential(features, *dense(random, 4 * channels, classes)), x


class Last(nn.Module):
    """A recurrent layer of which the last state, or the mean over time, goes on."""

    def __init__(self, layer: nn.Module, mean: bool) -> None:
        super().__init__()
        self.layer, self.mean = layer, mean

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        """(batch, time, features) → (batch, states)."""
        states, _ = self.layer(x)
        return cr.mean(states, axis=1) if self.mean else states[:, -1]


class Pooled(nn.Module):
    """An encoder of which the mean over time goes on."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        """(batch, time, width) → (batch, width)."""
        return cr.mean(self.encoder(x), axis=1)


def sequences(random: Random, batch: int, classes: int) -> tuple[nn.Module, np.ndarray[Any, Any]]:
    """A recurrent layer or an encoder, and a dense end."""
    length, width = int(random.integers(1, 7)), 2 * int(random.integers(1, 5))
    x = random.standard_normal((batch, length, width))
    if random.integers(3) == 0:
        layer = nn.TransformerEncoderLayer(
            width, 2, dim_feedforward=int(random.integers(2, 9)), dropout=float(pick(random, 0.0, 0.2)),
            activation=pick(random, "relu", "gelu"), batch_first=True, norm_first=bool(random.integers(2)),
        )  # fmt: skip
        return nn.Sequential(
            Pooled(nn.TransformerEncoder(layer, int(random.integers(1, 3)))), *dense(random, width, classes)
        ), x
    kind: Any = pick(random, nn.RNN, nn.LSTM, nn.GRU)
    states, both = int(random.integers(1, 7)), bool(random.integers(2))
    layer = kind(width, states, num_layers=int(random.integers(1, 3)), bidirectional=both, batch_first=True)
    ends = states * (2 if both else 1)
    return nn.Sequential(Last(layer, bool(random.integers(2))), *dense(random, ends, classes)), x


def architecture(seed: int) -> tuple[nn.Module, np.ndarray[Any, Any], np.ndarray[Any, Any], Random]:
    """A network in float64 with a batch and its labels, and what chooses the rest."""
    random = np.random.default_rng(seed)
    cr.manual_seed(seed)
    batch, classes = int(random.integers(2, 7)), int(random.integers(2, 5))
    made: Any = pick(random, images, sequences, sequences)
    model, x = made(random, batch, classes)
    return model.to(cr.float64), x, random.integers(0, classes, batch), random


def train(
    seed: int, engine: str, nudged: bool = False
) -> tuple[list[float], dict[str, np.ndarray[Any, Any]]]:
    """Losses of some steps and the state after them; engine: "eager", "native" or "jax"; nudged: weights rounded up."""
    model, x, y, random = architecture(seed)
    with cr.no_grad():
        for parameter in model.parameters() if nudged else ():
            parameter.copy_(parameter * (1 + 2.0**-52))
    kind: Any = pick(random, optim.SGD, optim.Adam, optim.RMSprop)
    optimizer = kind(model.parameters(), lr=1e-2)
    cr.manual_seed(seed + 1)

    def step(inputs: cr.Tensor, labels: cr.Tensor) -> cr.Tensor:
        loss = cr.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    run: Any = step
    if engine != "eager":
        run = cr.compile(step, backend="jax") if engine == "jax" else cr.compile(step)
    inputs, labels = cr.tensor(x), cr.tensor(y)
    losses = [run(inputs, labels).item() for _ in range(STEPS)]
    return losses, {name: value.numpy() for name, value in model.state_dict().items()}


def difference(seed: int, engine: str) -> float:
    """The largest difference between an engine and ordinary code, relative to the largest number of each array."""
    return apart(train(seed, "eager"), train(seed, engine))


Trained = tuple[list[float], dict[str, np.ndarray[Any, Any]]]


def apart(one: Trained, other: Trained) -> float:
    """The largest difference between two trainings."""
    (losses, state), (found, after) = one, other
    worst = max(abs(a - b) / max(1.0, abs(a)) for a, b in zip(losses, found, strict=True))
    for name, value in state.items():
        mine = after[name]
        assert value.shape == mine.shape and value.dtype == mine.dtype, name
        if value.size:
            scale = max(1.0, float(np.abs(value).max()))
            worst = max(worst, float(np.abs(value.astype(float) - mine.astype(float)).max()) / scale)
    return worst


def main() -> int:
    """Train as many networks as asked for."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    bad = 0
    for engine in ENGINES:
        worst = 0.0
        for seed in range(first, first + count):
            try:
                away = difference(seed, engine)
                allowed = TOLERANCE
                if not away <= allowed:
                    allowed = max(
                        allowed, NUDGES * apart(train(seed, "eager"), train(seed, "eager", nudged=True))
                    )
            except Exception as failure:
                print(f"{engine} {seed}: {type(failure).__name__}: {failure}", flush=True)
                bad += 1
                continue
            worst = max(worst, away)
            if not away <= allowed:
                print(f"{engine} {seed}: differs by {away:.2e}, and {allowed:.2e} is rounding", flush=True)
                bad += 1
        print(f"{engine}: {count} networks, {STEPS} steps each, largest difference {worst:.2e}", flush=True)
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
