"""The step written with PyTorch, eager, with its fused optimizers, on as many threads as PyTorch chooses.

Loads PyTorch when it is asked to; knows nothing of chainrule.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ..workloads import Layered, Workload
from . import Prepared
from .pytorch_sequences import sequence_model


def load() -> None:
    """Import PyTorch."""
    importlib.import_module("torch")


def environment(folder: str) -> dict[str, str]:
    """Nothing is kept."""
    return {}


def prepare(workload: Workload) -> Prepared:
    """The network as modules, and the step as the manual writes it."""
    torch: Any = importlib.import_module("torch")
    model = network(torch, workload)
    optimizers = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    optimizer = optimizers[workload.optimizer](model.parameters(), lr=workload.rate, fused=True)

    def step(x: Any, y: Any) -> Any:
        logits = model(x)
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    def epoch() -> Callable[[], Any]:
        batches = list(zip(*map(torch.from_numpy, workload.batches(workload.epoch))))
        return lambda: [step(x, y) for x, y in batches]

    def keep() -> Callable[[], None]:
        moments = [
            one for state in optimizer.state.values() for one in state.values() if torch.is_tensor(one)
        ]
        return keeping(torch, [*model.parameters(), *model.buffers(), *moments])

    x, y = map(torch.from_numpy, workload.data())
    return Prepared(lambda: step(x, y), lambda loss: float(loss.item()), epoch, keep, "calls")


def network(torch: Any, workload: Workload) -> Any:
    """The workload's network with its first weights."""
    if isinstance(workload, Layered):
        made: dict[str, Callable[[int, int], Any]] = {
            "linear": torch.nn.Linear,
            "conv": lambda inputs, outputs: torch.nn.Conv2d(inputs, outputs, 3, padding=1),
            "norm": lambda inputs, outputs: torch.nn.BatchNorm1d(outputs),
            "relu": lambda inputs, outputs: torch.nn.ReLU(),
            "pool": lambda inputs, outputs: torch.nn.MaxPool2d(2),
            "flatten": lambda inputs, outputs: torch.nn.Flatten(),
        }
        model = torch.nn.Sequential(*(made[one.kind](one.inputs, one.outputs) for one in workload.layers()))
    else:
        model = sequence_model(torch, workload)
    model.to(getattr(torch, workload.dtype))
    weights = {name: torch.from_numpy(array) for name, array in workload.weights().items()}
    model.load_state_dict(weights, strict=False)
    return model


def keeping(torch: Any, tensors: list[Any]) -> Callable[[], None]:
    """What brings back the present numbers of these tensors."""
    kept = [one.detach().clone() for one in tensors]

    def restore() -> None:
        with torch.no_grad():
            for one, number in zip(tensors, kept):
                one.copy_(number)

    return restore
