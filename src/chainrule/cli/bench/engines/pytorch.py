"""The step written with PyTorch, eager, with its fused optimizers, on as many threads as PyTorch chooses.

Loads PyTorch when it is asked to; knows nothing of chainrule.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ..workloads import Workload
from . import Prepared


def load() -> None:
    """Import PyTorch."""
    importlib.import_module("torch")


def environment(folder: str) -> dict[str, str]:
    """Nothing is kept."""
    return {}


def prepare(workload: Workload) -> Prepared:
    """The network as modules, and the step as the manual writes it."""
    torch: Any = importlib.import_module("torch")
    dtype = getattr(torch, workload.dtype)
    layers = []
    for one in workload.layers():
        if one.kind == "linear":
            layers.append(torch.nn.Linear(one.inputs, one.outputs, dtype=dtype))
        elif one.kind == "norm":
            layers.append(torch.nn.BatchNorm1d(one.outputs, dtype=dtype))
        else:
            layers.append(torch.nn.ReLU())
    model = torch.nn.Sequential(*layers)
    weights = {name: torch.from_numpy(array) for name, array in workload.weights().items()}
    model.load_state_dict(weights, strict=False)
    optimizers = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    optimizer = optimizers[workload.optimizer](model.parameters(), lr=workload.rate, fused=True)

    def step(x: Any, y: Any) -> Any:
        loss = torch.nn.functional.cross_entropy(model(x), y)
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


def keeping(torch: Any, tensors: list[Any]) -> Callable[[], None]:
    """What brings back the present numbers of these tensors."""
    kept = [one.detach().clone() for one in tensors]

    def restore() -> None:
        with torch.no_grad():
            for one, number in zip(tensors, kept):
                one.copy_(number)

    return restore
