"""The step through `torch.compile`: forward, backward, update and running statistics in one graph without a break.

`loss.backward()` and `optimizer.step()` inside `torch.compile` break the graph and take several times as long, so the
derivative is `torch.func`'s and the update is written out. Moments and scalars change in place.
Loads PyTorch when it is asked to; knows nothing of chainrule. It needs a C++ compiler.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ..workloads import Layered, Workload
from . import Prepared
from .pytorch import keeping, network

# PyTorch's defaults.
_MOMENTUM = 0.1
_BETAS, _EPSILON = (0.9, 0.999), 1e-8


def load() -> None:
    """Import PyTorch."""
    importlib.import_module("torch")


def environment(folder: str) -> dict[str, str]:
    """Where compiled code is kept."""
    return {"TORCHINDUCTOR_CACHE_DIR": folder}


def prepare(workload: Workload) -> Prepared:
    """The compiled step; compiling happens at the first call and takes some seconds or minutes."""
    torch: Any = importlib.import_module("torch")
    parameters = {name: torch.from_numpy(array) for name, array in workload.weights().items()}
    layers = list(workload.layers()) if isinstance(workload, Layered) else []
    running = {one.name: _Running(torch, one.outputs, workload) for one in layers if one.kind == "norm"}
    moments: list[Any] = []
    if workload.optimizer == "adam":
        update = _adam(torch, workload, parameters, moments)
    else:
        update = _sgd(workload, parameters)
    loss_of = _loss(torch, layers) if layers else _loss_of_model(torch, workload)

    def step(x: Any, y: Any) -> Any:
        slopes, (loss, seen) = torch.func.grad_and_value(loss_of, has_aux=True)(parameters, x, y)
        for name, (mean, variance) in seen.items():
            running[name].move(mean, variance)
        update(slopes)
        return loss

    def epoch() -> Callable[[], Any]:
        batches = list(zip(*map(torch.from_numpy, workload.batches(workload.epoch))))
        return lambda: [run(x, y) for x, y in batches]

    def keep() -> Callable[[], None]:
        seen = [one for each in running.values() for one in (each.mean, each.variance, each.count)]
        return keeping(torch, [*parameters.values(), *seen, *moments])

    run = torch.compile(step, fullgraph=True)
    x, y = map(torch.from_numpy, workload.data())
    return Prepared(lambda: run(x, y), lambda loss: float(loss.item()), epoch, keep, "calls")


class _Running:
    """Running statistics of one BatchNorm."""

    def __init__(self, torch: Any, width: int, workload: Workload) -> None:
        dtype = getattr(torch, workload.dtype)
        self.mean, self.variance = torch.zeros(width, dtype=dtype), torch.ones(width, dtype=dtype)
        self.count = torch.zeros((), dtype=torch.int64)
        self.unbiased = workload.batch / max(1, workload.batch - 1)

    def move(self, mean: Any, variance: Any) -> None:
        """Take in those of one batch."""
        self.mean.lerp_(mean, _MOMENTUM)
        self.variance.lerp_(variance * self.unbiased, _MOMENTUM)
        self.count.add_(1)


def _loss(torch: Any, layers: list[Any]) -> Any:
    """(parameters, x, y) → (loss, mean and variance of each BatchNorm)."""
    functional = torch.nn.functional

    def loss_of(parameters: Any, x: Any, y: Any) -> Any:
        seen = {}
        for one in layers:
            weight, bias = (parameters.get(f"{one.name}.{name}") for name in ("weight", "bias"))
            if one.kind == "linear":
                x = functional.linear(x, weight, bias)
            elif one.kind == "conv":
                x = functional.conv2d(x, weight, bias, padding=1)
            elif one.kind == "relu":
                x = functional.relu(x)
            elif one.kind == "pool":
                x = functional.max_pool2d(x, 2)
            elif one.kind == "flatten":
                x = x.flatten(1)
            else:
                variance, mean = torch.var_mean(x.detach(), 0, correction=0)
                seen[one.name] = (mean, variance)
                x = functional.batch_norm(x, None, None, weight, bias, training=True)
        return functional.cross_entropy(x, y), seen

    return loss_of


def _loss_of_model(torch: Any, workload: Workload) -> Any:
    """The same for a model of sequences, which has no running statistics."""
    model = network(torch, workload)

    def loss_of(parameters: Any, x: Any, y: Any) -> Any:
        logits = torch.func.functional_call(model, parameters, (x,))
        return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1)), {}

    return loss_of


def _sgd(workload: Workload, parameters: Any) -> Any:
    def update(slopes: Any) -> None:
        for name, one in parameters.items():
            one.sub_(workload.rate * slopes[name])

    return update


def _adam(torch: Any, workload: Workload, parameters: Any, moments: list[Any]) -> Any:
    """The update; all that it keeps is put into `moments`."""
    first, second = _BETAS
    means = {name: torch.zeros_like(one) for name, one in parameters.items()}
    squares = {name: torch.zeros_like(one) for name, one in parameters.items()}
    # Powers of both betas as tensors: as numbers of Python they would compile anew in every step. They have one
    # axis, because float64 tensors without axes are read before they are written (seen in PyTorch 2.13).
    powers = [torch.ones(1, dtype=getattr(torch, workload.dtype)) for _ in _BETAS]
    moments += [*means.values(), *squares.values(), *powers]

    def update(slopes: Any) -> None:
        for power, beta in zip(powers, _BETAS):
            power.mul_(beta)
        size, root = workload.rate / (1 - powers[0]), (1 - powers[1]).sqrt()
        for name, one in parameters.items():
            slope = slopes[name]
            means[name].lerp_(slope, 1 - first)
            squares[name].mul_(second).addcmul_(slope, slope, value=1 - second)
            one.sub_(size * means[name] / (squares[name].sqrt() / root + _EPSILON))

    return update
