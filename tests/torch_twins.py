"""A layer or function of ours beside PyTorch's: same parameters, same input, same cotangent, float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import chainrule as cr
from rivals import torch

TOLERANCE = 1e-9


def close(got: Any, wanted: Any, what: str) -> None:
    """Shapes are equal and numbers agree to 1e-9."""
    wanted = wanted.detach().numpy() if isinstance(wanted, torch.Tensor) else np.asarray(wanted)
    got = got.detach().numpy() if isinstance(got, cr.Tensor) else np.asarray(got)
    assert got.shape == wanted.shape, f"{what}: shape {got.shape}, PyTorch has {wanted.shape}"
    np.testing.assert_allclose(got, wanted, rtol=TOLERANCE, atol=TOLERANCE, err_msg=what)


def same_layer(ours: Any, theirs: Any, *arguments: Any, training: bool = True, calls: int = 1) -> None:
    """Outputs, gradients of input and parameters, and the state afterwards, after PyTorch's state was loaded."""
    theirs = theirs.to(torch.float64).train(training)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.to("float64").load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    ours.train(training)
    for _ in range(calls):
        same_function(ours, theirs, *arguments)
    for (name, mine), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        close(mine.grad, other.grad, f"gradient of {name}")
    for name, value in theirs.state_dict().items():
        close(ours.state_dict()[name], value, f"state {name}")


def same_function(ours: Callable[..., Any], theirs: Callable[..., Any], *arguments: Any) -> None:
    """Outputs and the gradients of all arguments."""
    mine = [cr.tensor(one, requires_grad=True) for one in arguments]
    other = [torch.tensor(one, requires_grad=True) for one in arguments]
    result, wanted = ours(*mine), theirs(*other)
    close(result, wanted, "output")
    cotangent = np.random.default_rng(1).normal(size=result.shape)
    (result * cotangent).sum().backward()
    (wanted * torch.from_numpy(cotangent)).sum().backward()
    for k, (one, two) in enumerate(zip(mine, other)):
        close(one.grad, two.grad, f"gradient of argument {k}")


def same_compiled(layer: Any, *arguments: Any) -> None:
    """Outputs and gradients of a compiled step of the layer equal those of the eager one (to rounding)."""
    inputs = [cr.tensor(one) for one in arguments]
    parameters = list(layer.parameters())
    result = layer(*inputs)
    cotangent = cr.tensor(np.random.default_rng(1).normal(size=result.shape), dtype=result.dtype)

    def step(*given: Any) -> Any:
        for parameter in parameters:
            parameter.grad = None
        value, pull = cr.vjp(layer, *given)
        return value, pull(cotangent), [one.grad for one in _backward(layer, given, cotangent, parameters)]

    eager, compiled = step(*inputs), cr.compile(step)(*inputs)
    for k, (one, two) in enumerate(zip(_leaves(compiled), _leaves(eager), strict=True)):
        scale = 1e-12 if two.dtype == np.float64 else 1e-5
        assert one.dtype == two.dtype and one.shape == two.shape
        np.testing.assert_allclose(one, two, rtol=scale, atol=scale, err_msg=f"result {k}")


def _backward(layer: Any, given: Any, cotangent: Any, parameters: list[Any]) -> list[Any]:
    (layer(*given) * cotangent).sum().backward() if parameters else None
    return parameters


def _leaves(found: Any) -> list[Any]:
    if isinstance(found, tuple | list):
        return [leaf for one in found for leaf in _leaves(one)]
    return [found.detach().numpy()]
