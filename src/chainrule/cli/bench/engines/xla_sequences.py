"""The models of character sequences, written with JAX: functions of their parameters.

The products of all times with the inputs' weights are one; the recurrence is `lax.scan`. Knows nothing of chainrule.
"""

from __future__ import annotations

from typing import Any

from ..workloads import Sequences, Workload

_EPSILON = 1e-5


def sequence_model(jax: Any, workload: Workload) -> Any:
    """(parameters, running statistics, characters) → (logits, running statistics)."""
    assert isinstance(workload, Sequences)
    kinds = {"rnn": _recurrent, "lstm": _recurrent, "gpt": _transformer}
    return kinds[workload.network](jax, workload)


def _recurrent(jax: Any, workload: Sequences) -> Any:
    width = workload.width

    def rnn(carry: Any, given: Any, weight: Any) -> Any:
        state = jax.numpy.tanh(given + carry[0] @ weight)
        return (state,), state

    def lstm(carry: Any, given: Any, weight: Any) -> Any:
        i, f, g, o = jax.numpy.split(given + carry[0] @ weight, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * carry[1] + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
        state = jax.nn.sigmoid(o) * jax.numpy.tanh(cell)
        return (state, cell), state

    step, carried = (lstm, 2) if workload.network == "lstm" else (rnn, 1)

    def logits_of(parameters: Any, running: Any, x: Any) -> Any:
        inputs, weight, *biases = (
            parameters[f"recurrent.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        given = parameters["tokens.weight"][x.T] @ inputs + (biases[0] + biases[1])
        zeros = jax.numpy.zeros((x.shape[0], width), given.dtype)
        _, states = jax.lax.scan(lambda carry, one: step(carry, one, weight), (zeros,) * carried, given)
        logits = states @ parameters["head.weight"] + parameters["head.bias"]
        return logits.swapaxes(0, 1), running

    return logits_of


def _transformer(jax: Any, workload: Sequences) -> Any:
    numpy = jax.numpy
    heads = workload.heads

    def linear(p: Any, name: str, x: Any) -> Any:
        return x @ p[f"{name}.weight"] + p[f"{name}.bias"]

    def norm(p: Any, name: str, x: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        scale = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + _EPSILON)
        return centred * scale * p[f"{name}.weight"] + p[f"{name}.bias"]

    def attention(p: Any, name: str, x: Any) -> Any:
        batch, length, width = x.shape
        parts = linear(p, f"{name}.attention", x).reshape(batch, length, 3, heads, width // heads)
        q, k, v = (parts[:, :, one].swapaxes(1, 2) for one in range(3))
        scores = q @ k.swapaxes(2, 3) / (width // heads) ** 0.5
        scores = numpy.where(numpy.tril(numpy.ones((length, length), bool)), scores, -numpy.inf)
        seen = (jax.nn.softmax(scores, axis=-1) @ v).swapaxes(1, 2).reshape(batch, length, width)
        return linear(p, f"{name}.project", seen)

    def logits_of(parameters: Any, running: Any, x: Any) -> Any:
        x = parameters["tokens.weight"][x] + parameters["positions.weight"]
        for k in range(workload.layers):
            name = f"blocks.{k}"
            x = x + attention(parameters, name, norm(parameters, f"{name}.before", x))
            wide = jax.nn.gelu(
                linear(parameters, f"{name}.widen", norm(parameters, f"{name}.between", x)), approximate=False
            )
            x = x + linear(parameters, f"{name}.narrow", wide)
        return linear(parameters, "head", norm(parameters, "norm", x)), running

    return logits_of
