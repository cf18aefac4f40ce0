"""Networks that are trained for the clock: their layers, first weights and batches, the same for every engine.

Knows NumPy alone, so that a process that measures a rival loads nothing else of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

OPTIMIZERS = {"sgd": 0.01, "adam": 1e-3}
"""Each optimizer with its learning rate; everything else as in PyTorch."""
DTYPES = ("float32", "float64")

# Batches of an epoch: so many, or as many as stay within these elements.
_MOST_BATCHES = 100
_MOST_ELEMENTS = 4_000_000
_FEWEST_BATCHES = 8


class Layer(NamedTuple):
    """A layer under its name in the state dictionary: `linear` (inputs → outputs), `norm` (of outputs) or `relu`."""

    name: str
    kind: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Workload:
    """A classifier from dense layers with ReLU between them, its batch and its optimizer.

    norm: whether BatchNorm stands before each ReLU.

    >>> len(list(Workload("one", (4, 3, 2), 8).layers()))
    3
    """

    name: str
    sizes: tuple[int, ...]
    batch: int
    dtype: str = "float32"
    optimizer: str = "adam"
    norm: bool = False

    @property
    def rate(self) -> float:
        """The learning rate."""
        return OPTIMIZERS[self.optimizer]

    def layers(self) -> Iterator[Layer]:
        """Every layer in order, named by its place."""
        number = 0
        last = len(self.sizes) - 2
        for k, (inputs, outputs) in enumerate(zip(self.sizes, self.sizes[1:])):
            kinds = ["linear"] if k == last else ["linear", *(["norm"] if self.norm else []), "relu"]
            for kind in kinds:
                yield Layer(str(number), kind, inputs, outputs)
                number += 1

    def weights(self) -> dict[str, Array]:
        """First weights by their names in a state dictionary, in PyTorch's layout: uniform within ±1/√inputs."""
        random = np.random.default_rng(0)
        found: dict[str, Array] = {}
        for layer in self.layers():
            if layer.kind == "linear":
                bound = layer.inputs**-0.5
                shapes = {"weight": (layer.outputs, layer.inputs), "bias": (layer.outputs,)}
                for name, shape in shapes.items():
                    found[f"{layer.name}.{name}"] = random.uniform(-bound, bound, shape).astype(self.dtype)
            elif layer.kind == "norm":
                found[f"{layer.name}.weight"] = np.ones(layer.outputs, self.dtype)
                found[f"{layer.name}.bias"] = np.zeros(layer.outputs, self.dtype)
        return found

    def data(self) -> tuple[Array, Array]:
        """One batch: inputs (batch, width) and labels (batch,) int64."""
        inputs, labels = self.batches(1)
        return inputs[0], labels[0]

    def batches(self, count: int) -> tuple[Array, Array]:
        """So many batches: inputs (count, batch, width), labels (count, batch)."""
        random = np.random.default_rng(1)
        inputs = random.standard_normal((count, self.batch, self.sizes[0])).astype(self.dtype)
        return inputs, random.integers(0, self.sizes[-1], (count, self.batch))

    @property
    def epoch(self) -> int:
        """How many batches an epoch has here."""
        fit = _MOST_ELEMENTS // (self.batch * self.sizes[0])
        return max(_FEWEST_BATCHES, min(_MOST_BATCHES, fit))

    @property
    def parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(array.size for array in self.weights().values())

    @property
    def flops(self) -> int:
        """Floating-point operations of the products of one step: forward, by weights, by inputs (not by the data)."""
        total = 0
        for k, (inputs, outputs) in enumerate(zip(self.sizes, self.sizes[1:])):
            total += (3 if k else 2) * 2 * self.batch * inputs * outputs
        return total

    @property
    def state_bytes(self) -> int:
        """Bytes that an update must read and write: the parameters, for Adam two moments beside them."""
        return 2 * (3 if self.optimizer == "adam" else 1) * self.parameters * np.dtype(self.dtype).itemsize

    @property
    def described(self) -> str:
        """`64-32-10, batch 32, float32, SGD`."""
        optimizer = {"sgd": "SGD", "adam": "Adam"}[self.optimizer]
        widths = "-".join(map(str, self.sizes)) + (" + BatchNorm" if self.norm else "")
        return f"{widths}, batch {self.batch}, {self.dtype}, {optimizer}"

    def as_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {**asdict(self), "sizes": list(self.sizes)}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Workload:
        """A workload from its fields."""
        known = {name: fields[name] for name in Workload.__dataclass_fields__}
        return Workload(**{**known, "sizes": tuple(fields["sizes"])})


STANDARD = ("mlp_tiny", "mlp_small", "mlp_big", "mlp_deep_bn")
WORKLOADS = {
    one.name: one
    for one in (
        Workload("mlp_tiny", (64, 32, 10), 32, optimizer="sgd"),
        Workload("mlp_small", (784, 256, 128, 10), 64),
        Workload("mlp_big", (784, 1024, 1024, 10), 256),
        Workload("mlp_deep_bn", (64, 128, 128, 128, 128, 128, 128, 10), 128, norm=True),
        # The same with sizes that no register and no cache line divides.
        Workload("odd_tiny", (67, 31, 11), 29, optimizer="sgd"),
        Workload("odd_small", (787, 257, 127, 11), 61),
        Workload("odd_big", (787, 1021, 1021, 11), 251),
        Workload("odd_deep_bn", (67, 127, 127, 127, 127, 127, 127, 11), 127, norm=True),
        Workload("odd_float64", (127, 101, 11), 61, dtype="float64"),
    )
}
