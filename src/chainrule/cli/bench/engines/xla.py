"""The step written with JAX: one jitted function of the whole state, which is donated; `lax.scan` for an epoch.

BatchNorm keeps running statistics, Adam its moments and its count, as PyTorch does.
Loads JAX when it is asked to; knows nothing of chainrule.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ..workloads import Layered, Workload
from . import Prepared
from .xla_sequences import sequence_model

# PyTorch's defaults.
_EPSILON, _MOMENTUM = 1e-5, 0.1
_BETAS, _ADAM_EPSILON = (0.9, 0.999), 1e-8


def load() -> None:
    """Import JAX."""
    importlib.import_module("jax")


def environment(folder: str) -> dict[str, str]:
    """Where JAX keeps compiled code, however small."""
    return {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def prepare(workload: Workload) -> Prepared:
    """The jitted step, with float64 switched on for workloads that need it."""
    jax: Any = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", workload.dtype == "float64")
    step = _step(jax, workload)
    once = jax.jit(step, donate_argnums=0)
    many = jax.jit(lambda state, batches: jax.lax.scan(lambda held, batch: step(held, *batch), state, batches),
                   donate_argnums=0)  # fmt: skip
    held = [_state(jax, workload)]
    x, y = map(jax.numpy.asarray, workload.data())

    def one_step() -> Any:
        held[0], loss = once(held[0], x, y)
        return loss.block_until_ready()

    def epoch() -> Callable[[], Any]:
        batches = tuple(map(jax.numpy.asarray, workload.batches(workload.epoch)))

        def run() -> Any:
            held[0], losses = many(held[0], batches)
            return losses.block_until_ready()

        return run

    def keep() -> Callable[[], None]:
        kept = jax.tree.map(np.array, held[0])
        return lambda: held.__setitem__(0, jax.tree.map(jax.numpy.array, kept))

    return Prepared(one_step, float, epoch, keep, "lax.scan")


def _state(jax: Any, workload: Workload) -> dict[str, Any]:
    """Parameters, running statistics, moments and the count of updates."""
    parameters = {}
    for name, array in workload.weights().items():
        # JAX's own habit: (inputs, outputs). Tables of vectors lie as they are read.
        turned = array.ndim == 2 and not name.startswith(("tokens", "positions"))
        parameters[name] = jax.numpy.array(np.ascontiguousarray(array.T) if turned else array)
    running = {
        one.name: {
            "mean": jax.numpy.zeros(one.outputs, workload.dtype),
            "variance": jax.numpy.ones(one.outputs, workload.dtype),
            "count": jax.numpy.zeros((), "int32"),
        }
        for one in (workload.layers() if isinstance(workload, Layered) else ())
        if one.kind == "norm"
    }
    # Copies of their own: what is donated may not be donated twice.
    moments = [jax.tree.map(jax.numpy.zeros_like, parameters) for _ in range(2)]
    count = jax.numpy.zeros((), workload.dtype)
    state = {"parameters": parameters, "running": running, "count": count}
    return state | ({"moments": moments} if workload.optimizer == "adam" else {})


def _step(jax: Any, workload: Workload) -> Any:
    """(state, x, y) → (state, loss)."""
    logits_of = _layers(jax, workload) if isinstance(workload, Layered) else sequence_model(jax, workload)

    def loss_of(parameters: Any, running: Any, x: Any, y: Any) -> Any:
        logits, seen = logits_of(parameters, running, x)
        logits, y = logits.reshape(-1, logits.shape[-1]), y.reshape(-1)
        # Quicker here than picking each row's entry (whose gradient scatters): 15 µs against 21 in mlp_tiny's scan.
        chosen = jax.nn.one_hot(y, logits.shape[1], dtype=logits.dtype)
        return -(jax.nn.log_softmax(logits) * chosen).sum(1).mean(), seen

    def step(state: Any, x: Any, y: Any) -> Any:
        (loss, running), slopes = jax.value_and_grad(loss_of, has_aux=True)(
            state["parameters"], state["running"], x, y
        )
        return _updated(jax, workload, state, slopes) | {"running": running}, loss

    return step


def _layers(jax: Any, workload: Layered) -> Any:
    """(parameters, running statistics, x) → (logits, running statistics)."""
    layers = list(workload.layers())

    def logits_of(parameters: Any, running: Any, x: Any) -> Any:
        seen = {}
        for one in layers:
            weight, bias = (parameters.get(f"{one.name}.{name}") for name in ("weight", "bias"))
            if one.kind == "linear":
                x = x @ weight + bias
            elif one.kind == "conv":
                x = jax.lax.conv_general_dilated(
                    x, weight, (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW")
                )
                x = x + bias[:, None, None]
            elif one.kind == "relu":
                x = jax.nn.relu(x)
            elif one.kind == "pool":
                window = (1, 1, 2, 2)
                x = jax.lax.reduce_window(x, -jax.numpy.inf, jax.lax.max, window, window, "VALID")
            elif one.kind == "flatten":
                x = x.reshape(len(x), -1)
            else:
                x, seen[one.name] = _normalised(jax, workload.batch, x, weight, bias, running[one.name])
        return x, seen

    return logits_of


def _normalised(jax: Any, batch: int, x: Any, weight: Any, bias: Any, old: Any) -> Any:
    """BatchNorm of a batch, and its running statistics."""
    mean, variance = x.mean(0), x.var(0)
    x = (x - mean) * (jax.lax.rsqrt(variance + _EPSILON) * weight) + bias
    unbiased = variance * (batch / max(1, batch - 1))
    return x, {
        "mean": (1 - _MOMENTUM) * old["mean"] + _MOMENTUM * mean,
        "variance": (1 - _MOMENTUM) * old["variance"] + _MOMENTUM * unbiased,
        "count": old["count"] + 1,
    }


def _updated(jax: Any, workload: Workload, state: Any, slopes: Any) -> dict[str, Any]:
    """The state after an update, running statistics left out."""
    rate, (first, second) = workload.rate, _BETAS
    count = state["count"] + 1
    if workload.optimizer == "sgd":
        moved = jax.tree.map(lambda p, g: p - rate * g, state["parameters"], slopes)
        return {"parameters": moved, "count": count}
    means, squares = state["moments"]
    means = jax.tree.map(lambda m, g: first * m + (1 - first) * g, means, slopes)
    squares = jax.tree.map(lambda v, g: second * v + (1 - second) * g * g, squares, slopes)
    size, root = rate / (1 - first**count), jax.numpy.sqrt(1 - second**count)
    moved = jax.tree.map(
        lambda p, m, v: p - size * m / (jax.numpy.sqrt(v) / root + _ADAM_EPSILON),
        state["parameters"],
        means,
        squares,
    )
    return {"parameters": moved, "moments": [means, squares], "count": count}
