"""Several small networks side by side: one for each part of the rows that is held back, all trained in one step.

Each network holds back another part of the training rows. Their answers are averaged, which errs less than one network
(L. Breiman, "Bagging predictors", 1996), and every row is judged by a network that has not learnt from it, so all
training rows tell when to stop. Their weights stand in one array, so the step costs little more than that of one.
Knows layers and losses; knows nothing of tables and of files.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import functional, nn
from ..functional.composite import composite
from ..tensor import Tensor, as_tensor
from ..tensor.creation import zeros
from ..tensor.random import Generator

Array = NDArray[Any]

# Rows are dealt into at least so many parts, so that a single network still learns from most of them.
PARTS = 5


@composite
def weighted_sums(x: Any, weight: Tensor, bias: Tensor) -> Tensor:
    """x·weightᵀ + bias of several networks at once: (rows, in) or (count, rows, in) → (count, rows, out)."""
    result: Tensor = as_tensor(x) @ weight.mT + bias
    return result


class SideBySide(nn.Module):
    """A weighted sum of each of `count` networks: (rows, in) or (count, rows, in) → (count, rows, out).

    `weight` is (count, out, in) and `bias` (count, 1, out), drawn for each network as in `nn.Linear`, so
    `weight[k]` and `bias[k, 0]` are those of an `nn.Linear`.

    >>> import chainrule as cr
    >>> SideBySide(3, 2, count=5)(cr.ones((7, 3))).shape
    (5, 7, 2)
    """

    def __init__(self, in_features: int, out_features: int, count: int) -> None:
        self.in_features, self.out_features, self.count = in_features, out_features, count
        self.weight = nn.Parameter(zeros((count, out_features, in_features)))
        self.bias = nn.Parameter(zeros((count, 1, out_features)))
        bound = 1 / math.sqrt(in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Any) -> Tensor:
        """x·weightᵀ + bias, for each network."""
        return weighted_sums(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes and number of networks."""
        return f"in_features={self.in_features}, out_features={self.out_features}, count={self.count}"


class Networks(nn.Sequential):
    """`count` networks of weighted sums of these `sizes` with ReLU between them: (rows, in) → (rows, count, out).

    The layers are called hidden1, relu1, …, output.

    >>> import chainrule as cr
    >>> model = Networks((4, 16, 3), count=5)
    >>> model(cr.ones((7, 4))).shape, model.parameter_count
    ((7, 5, 3), 655)
    """

    def __init__(self, sizes: tuple[int, ...], count: int) -> None:
        layers: dict[str, nn.Module] = {}
        for number, (width, following) in enumerate(itertools.pairwise(sizes[:-1]), 1):
            layers[f"hidden{number}"] = SideBySide(width, following, count)
            layers[f"relu{number}"] = nn.ReLU()
        layers["output"] = SideBySide(sizes[-2], sizes[-1], count)
        super().__init__(layers)
        self.sizes, self.count = tuple(sizes), count

    def forward(self, x: Any) -> Tensor:
        """What each network answers to each row."""
        result: Tensor = super().forward(x).permute_dims((1, 0, 2))
        return result

    @property
    def parameter_count(self) -> int:
        """How many numbers all networks learn."""
        return sum(one.size for one in self.parameters())


def average(answers: Array) -> Array:
    """The answer of the networks together, (rows, out): the mean of the logits, or of the numbers; float64.

    The mean of logits is the geometric mean of the probabilities, made to add up to 1.
    """
    result: Array = answers.astype(np.float64).mean(axis=1)
    return result


# ------------------------------------------------------------------------------------------- parts and shares


def deal(labels: Array | None, rows: int, seed: int, parts: int = PARTS) -> NDArray[np.int64]:
    """The part, 0 … parts − 1, of each of so many rows, at random; with labels (rows,) each part has its share of them.

    >>> np.bincount(deal(np.array([0, 1] * 10), 20, seed=0)).tolist()
    [4, 4, 4, 4, 4]
    """
    order: NDArray[np.int64] = Generator(seed).permutation(rows).numpy()
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    found = np.empty(rows, np.int64)
    found[order] = np.arange(rows) % parts
    return found


def shares_of(parts: NDArray[np.int64], count: int, weights: Array | None = None) -> tuple[Array, Array]:
    """How much each network learns from each row, and is judged by it: two arrays (rows, count), float32.

    Network k holds back part k. A row's shares add up to its weight (1 by default), among the networks that learn
    from it; rows of parts beyond the networks are judged by none.
    """
    judged = (parts[:, None] == np.arange(count)).astype(np.float32)
    learnt = 1 - judged
    total = learnt.sum(axis=1, keepdims=True)
    learnt = np.divide(learnt, total, out=np.zeros_like(learnt), where=total > 0)
    if weights is not None:
        scale = weights.astype(np.float32)[:, None]
        learnt, judged = learnt * scale, judged * scale
    return learnt, judged


def soft_labels(labels: NDArray[np.int64], classes: int, smoothing: float) -> Array:
    """Rows of probabilities: 1 − smoothing for the true class, and smoothing shared by all classes; float32.

    C. Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016, section 7.
    """
    found: Array = np.full((len(labels), classes), smoothing / classes, np.float32)
    found[np.arange(len(labels)), labels] += np.float32(1 - smoothing)
    return found


# ------------------------------------------------------------------------------------------- losses and metrics

Targets = dict[str, Any]
"""`truth`: (rows, classes) probabilities or (rows,) numbers; `shares`: (rows, count), how much each network counts."""


def class_loss(answers: Tensor, targets: Targets) -> Tensor:
    """Cross-entropy of each network, counted by the shares; the mean over the rows."""
    truth, shares = targets["truth"], targets["shares"]
    rows, count = shares.shape
    wanted = truth.reshape((rows, 1, -1)) * shares.reshape((rows, count, 1))
    result: Tensor = -(functional.log_softmax(answers, axis=2) * wanted).sum() / rows
    return result


def number_loss(answers: Tensor, targets: Targets) -> Tensor:
    """Squared error of each network, counted by the shares; the mean over the rows."""
    truth, shares = targets["truth"], targets["shares"]
    difference = answers.reshape(shares.shape) - truth.reshape((shares.shape[0], 1))
    result: Tensor = (difference * difference * shares).sum() / shares.shape[0]
    return result


def accuracy(answers: Array, targets: Targets) -> float:
    """The share of right answers, of the networks that count for each row."""
    right = answers.argmax(axis=2) == targets["truth"].argmax(axis=1)[:, None]
    counted = targets["shares"] > 0
    return float((right & counted).sum() / max(1, int(counted.sum())))
