"""Networks that are trained for the clock: their layers, first weights and batches, the same for every engine.

Knows NumPy alone, so that a process that measures a rival loads nothing else of ours.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

OPTIMIZERS = {"sgd": 0.01, "adam": 1e-3}
"""Each optimizer with its learning rate; everything else as in PyTorch."""
DTYPES = ("float32", "float64")

# Batches of an epoch: so many, or as many as stay within these elements and operations.
_MOST_BATCHES = 100
_MOST_ELEMENTS = 4_000_000
_MOST_WORK = 15_000_000_000
_FEWEST_BATCHES = 8


class Layer(NamedTuple):
    """A layer under its name in the state dictionary.

    Kinds: `linear` (inputs → outputs), `norm` (of outputs), `relu`, `conv` (3×3, padding 1), `pool` (2×2), `flatten`.
    """

    name: str
    kind: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Workload(ABC):
    """What is trained: first weights, batches, an optimizer, and how much work a step is at least."""

    name: str
    batch: int
    dtype: str = "float32"
    optimizer: str = "adam"

    @abstractmethod
    def shapes(self) -> dict[str, tuple[tuple[int, ...], int]]:
        """Shape of each weight in PyTorch's layout and the width that bounds its first values (0: ones; −1: zeros)."""

    @abstractmethod
    def batches(self, count: int) -> tuple[Array, Array]:
        """So many batches: inputs (count, batch, …), labels (count, batch, …)."""

    @property
    @abstractmethod
    def flops(self) -> int:
        """Floating-point operations of the products of one step: forward, by weights, by inputs (not by the data)."""

    @property
    @abstractmethod
    def form(self) -> str:
        """The network in a few words."""

    @property
    def rate(self) -> float:
        """The learning rate."""
        return OPTIMIZERS[self.optimizer]

    def weights(self) -> dict[str, Array]:
        """First weights by their names in a state dictionary: uniform within ±1/√width, or ones, or zeros."""
        random = np.random.default_rng(0)
        found: dict[str, Array] = {}
        for name, (shape, width) in self.shapes().items():
            if width > 0:
                found[name] = random.uniform(-(width**-0.5), width**-0.5, shape).astype(self.dtype)
            else:
                found[name] = np.full(shape, width + 1, self.dtype)
        return found

    def data(self) -> tuple[Array, Array]:
        """One batch."""
        inputs, labels = self.batches(1)
        return inputs[0], labels[0]

    @property
    def epoch(self) -> int:
        """How many batches an epoch has here."""
        inputs, _ = self.batches(1)
        fit = min(_MOST_ELEMENTS // inputs.size, _MOST_WORK // self.flops)
        return max(_FEWEST_BATCHES, min(_MOST_BATCHES, fit))

    @property
    def parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(math.prod(shape) for shape, _ in self.shapes().values())

    @property
    def state_bytes(self) -> int:
        """Bytes that an update must read and write: the parameters, for Adam two moments beside them."""
        return 2 * (3 if self.optimizer == "adam" else 1) * self.parameters * np.dtype(self.dtype).itemsize

    @property
    def described(self) -> str:
        """`64-32-10, batch 32, float32, SGD`."""
        optimizer = {"sgd": "SGD", "adam": "Adam"}[self.optimizer]
        return f"{self.form}, batch {self.batch}, {self.dtype}, {optimizer}"

    def as_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        fields = {name: list(one) if isinstance(one, tuple) else one for name, one in asdict(self).items()}
        return {"kind": type(self).__name__, **fields}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Workload:
        """A workload from its fields."""
        kinds: dict[str, Any] = {"Layered": Layered, "Sequences": Sequences}
        kind = kinds[fields["kind"]]
        known: dict[str, Any] = {
            name: tuple(fields[name]) if isinstance(fields[name], list) else fields[name]
            for name in kind.__dataclass_fields__
        }
        made: Workload = kind(**known)
        return made


@dataclass(frozen=True)
class Layered(Workload):
    """A classifier from dense layers with ReLU between them; before them, for images, convolutions.

    sizes: widths of the dense layers; with an image, the first is what the convolutions leave. norm: whether
    BatchNorm stands before each ReLU of a dense layer. image: (channels, height, width) of the input. channels: of each
    convolution (3×3, padding 1, ReLU, 2×2 max-pool).

    >>> len(list(Layered("one", 8, sizes=(4, 3, 2)).layers()))
    3
    """

    sizes: tuple[int, ...] = ()
    norm: bool = False
    image: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()

    def layers(self) -> Iterator[Layer]:
        """Every layer in order, named by its place."""
        for number, (kind, inputs, outputs) in enumerate(self._kinds()):
            yield Layer(str(number), kind, inputs, outputs)

    def _kinds(self) -> Iterator[tuple[str, int, int]]:
        planes = [*self.image[:1], *self.channels]
        for inputs, outputs in itertools.pairwise(planes):
            for kind in ("conv", "relu", "pool"):
                yield kind, inputs, outputs
        if self.image:
            yield "flatten", self.sizes[0], self.sizes[0]
        last = len(self.sizes) - 2
        for k, (inputs, outputs) in enumerate(zip(self.sizes, self.sizes[1:])):
            for kind in ["linear"] if k == last else ["linear", *(["norm"] if self.norm else []), "relu"]:
                yield kind, inputs, outputs

    def shapes(self) -> dict[str, tuple[tuple[int, ...], int]]:
        """Weights and biases of linear layers and convolutions, scales and shifts of norms."""
        found: dict[str, tuple[tuple[int, ...], int]] = {}
        for layer in self.layers():
            weight, bias = f"{layer.name}.weight", f"{layer.name}.bias"
            if layer.kind == "linear":
                found |= {
                    weight: ((layer.outputs, layer.inputs), layer.inputs),
                    bias: ((layer.outputs,), layer.inputs),
                }
            elif layer.kind == "conv":
                width = 9 * layer.inputs
                found |= {
                    weight: ((layer.outputs, layer.inputs, 3, 3), width),
                    bias: ((layer.outputs,), width),
                }
            elif layer.kind == "norm":
                found |= {weight: ((layer.outputs,), 0), bias: ((layer.outputs,), -1)}
        return found

    def batches(self, count: int) -> tuple[Array, Array]:
        """Inputs (count, batch, width or image), labels (count, batch)."""
        random = np.random.default_rng(1)
        shape = (count, self.batch, *(self.image or self.sizes[:1]))
        inputs = random.standard_normal(shape).astype(self.dtype)
        return inputs, random.integers(0, self.sizes[-1], (count, self.batch))

    @property
    def flops(self) -> int:
        """Of the products and convolutions; nothing flows towards the data."""
        total, first = 0, True
        pixels = math.prod(self.image[1:])
        for layer in self.layers():
            if layer.kind == "pool":
                pixels //= 4
            elif layer.kind in ("linear", "conv"):
                work = 9 * pixels if layer.kind == "conv" else 1
                total += (2 if first else 3) * 2 * self.batch * layer.inputs * layer.outputs * work
                first = False
        return total

    @property
    def form(self) -> str:
        """`64-32-10`."""
        widths = "-".join(map(str, self.sizes)) + (" + BatchNorm" if self.norm else "")
        if not self.image:
            return widths
        planes = "→".join(map(str, (self.image[0], *self.channels)))
        return f"{planes} channels 3×3 on {self.image[1]}×{self.image[2]}, max-pools, {widths}"


@dataclass(frozen=True)
class Sequences(Workload):
    """A model that predicts the next of `vocabulary` characters at each of `length` places.

    network: `rnn` (tanh) or `lstm` (embedding, one recurrent layer, linear), or `gpt`: learned positions and `layers`
    blocks of LayerNorm, causal attention with `heads` heads, LayerNorm, two linear layers with GELU between them.
    """

    network: str = "rnn"
    width: int = 128
    length: int = 64
    vocabulary: int = 65
    layers: int = 1
    heads: int = 1

    @property
    def gates(self) -> int:
        """Products of a recurrent layer that stand side by side."""
        return 4 if self.network == "lstm" else 1

    def shapes(self) -> dict[str, tuple[tuple[int, ...], int]]:
        """In the order of the network."""
        d, v = self.width, self.vocabulary
        found: dict[str, tuple[tuple[int, ...], int]] = {"tokens.weight": ((v, d), d)}
        if self.network == "gpt":
            found["positions.weight"] = ((self.length, d), d)
            for k in range(self.layers):
                block = f"blocks.{k}"
                found |= _norm(f"{block}.before", d) | _linear(f"{block}.attention", d, 3 * d)
                found |= _linear(f"{block}.project", d, d) | _norm(f"{block}.between", d)
                found |= _linear(f"{block}.widen", d, 4 * d) | _linear(f"{block}.narrow", 4 * d, d)
            found |= _norm("norm", d)
        else:
            rows = self.gates * d
            for name, shape in (
                ("weight_ih", (rows, d)),
                ("weight_hh", (rows, d)),
                ("bias_ih", (rows,)),
                ("bias_hh", (rows,)),
            ):
                found[f"recurrent.{name}_l0"] = (shape, d)
        return found | _linear("head", d, v)

    def batches(self, count: int) -> tuple[Array, Array]:
        """Characters and those that follow them, both (count, batch, length) int64."""
        random = np.random.default_rng(1)
        text = random.integers(0, self.vocabulary, (count, self.batch, self.length + 1))
        return np.ascontiguousarray(text[..., :-1]), np.ascontiguousarray(text[..., 1:])

    @property
    def flops(self) -> int:
        """Of the products; of attention the half that a causal mask leaves."""
        d, places = self.width, self.batch * self.length
        per_place = 2 * d * self.vocabulary
        if self.network == "gpt":
            per_place += self.layers * (2 * 12 * d * d + 2 * d * self.length)
        else:
            per_place += 2 * 2 * self.gates * d * d
        return 3 * places * per_place

    @property
    def form(self) -> str:
        """`char LSTM 128, T 64, vocabulary 65`."""
        names = {"rnn": "tanh RNN", "lstm": "LSTM", "gpt": f"GPT {self.layers} layers, {self.heads} heads,"}
        return f"{names[self.network]} {self.width}, T {self.length}, vocabulary {self.vocabulary}"


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[tuple[int, ...], int]]:
    return {f"{name}.weight": ((outputs, inputs), inputs), f"{name}.bias": ((outputs,), inputs)}


def _norm(name: str, width: int) -> dict[str, tuple[tuple[int, ...], int]]:
    return {f"{name}.weight": ((width,), 0), f"{name}.bias": ((width,), -1)}


STANDARD = ("mlp_tiny", "mlp_small", "mlp_big", "mlp_deep_bn")
WORKLOADS: dict[str, Workload] = {
    one.name: one
    for one in (
        Layered("mlp_tiny", 32, optimizer="sgd", sizes=(64, 32, 10)),
        Layered("mlp_small", 64, sizes=(784, 256, 128, 10)),
        Layered("mlp_big", 256, sizes=(784, 1024, 1024, 10)),
        Layered("mlp_deep_bn", 128, sizes=(64, 128, 128, 128, 128, 128, 128, 10), norm=True),
        # The same with sizes that no register and no cache line divides.
        Layered("odd_tiny", 29, optimizer="sgd", sizes=(67, 31, 11)),
        Layered("odd_small", 61, sizes=(787, 257, 127, 11)),
        Layered("odd_big", 251, sizes=(787, 1021, 1021, 11)),
        Layered("odd_deep_bn", 127, sizes=(67, 127, 127, 127, 127, 127, 127, 11), norm=True),
        Layered("odd_float64", 61, "float64", sizes=(127, 101, 11)),
        Layered("cnn", 64, sizes=(1568, 128, 10), image=(1, 28, 28), channels=(16, 32)),
        Sequences("rnn", 32, network="rnn"),
        Sequences("lstm", 32, network="lstm"),
        Sequences("gpt", 12, network="gpt", layers=4, heads=4),
    )
}
