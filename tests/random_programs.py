"""Random programs from a seed: expressions over views, reductions, products and choices, and their gradient step.

`python tests/random_programs.py 1000` runs any number of them through machine code and the interpreter.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import ops
from chainrule.graph import evaluate
from chainrule.runtime import compile

UNARY: tuple[Callable[[Any], Any], ...] = (
    cr.tanh, cr.sin, cr.abs, cr.square, lambda x: cr.exp(-x * x), lambda x: cr.sqrt(x * x + 0.5), lambda x: -x,
    lambda x: cr.maximum(x, 0.25), lambda x: cr.where(x > 0, x, 0.5 * x), lambda x: cr.log(cr.abs(x) + 1.0),
    lambda x: cr.sigmoid(x) * 2.0,
)  # fmt: skip
BINARY: tuple[Callable[[Any, Any], Any], ...] = (
    lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: x / (y * y + 1.0), cr.maximum,
    lambda x, y: cr.where(x < y, x, y),
)  # fmt: skip


def step_of(random: np.random.Generator, x: Any, pool: list[Any]) -> Any:
    """One more value from those that exist already."""
    way = int(random.integers(9))
    if way <= 1:
        return UNARY[int(random.integers(len(UNARY)))](x)
    if way == 2:
        other = pool[int(random.integers(len(pool)))]
        fits = other.ndim == x.ndim and all(a == b or 1 in (a, b) for a, b in zip(x.shape, other.shape))
        return BINARY[int(random.integers(len(BINARY)))](x, other if fits else cr.tanh(x))
    axis = int(random.integers(max(x.ndim, 1)))
    if way == 3 and x.ndim:
        fold = (cr.sum, cr.mean, cr.max, cr.min)[int(random.integers(4))]
        return fold(x, axis=axis, keepdims=bool(random.integers(2)))
    if way == 4 and x.ndim > 1:
        return cr.permute_dims(x, tuple(int(k) for k in random.permutation(x.ndim)))
    if way == 5 and x.ndim:
        return cr.reshape(x, (x.shape[-1], -1) if random.integers(2) else (-1,))
    if way == 6 and x.ndim and x.shape[axis] > 2:
        key = [slice(None)] * x.ndim
        key[axis] = slice(1, None, int(random.integers(1, 3)))
        return cr.flip(x[tuple(key)], axis=axis)
    if way == 7 and x.ndim == 2:
        return (
            cr.tanh(x @ cr.permute_dims(x, (1, 0)))
            if random.integers(2)
            else cr.permute_dims(x, (1, 0)) @ (x * 0.5)
        )
    if way == 8 and x.ndim:
        return cr.concat([x, UNARY[int(random.integers(len(UNARY)))](x)], axis=axis)
    return cr.roll(x, 1, axis=axis) + 0.5 if x.ndim else x * 1.5


def check(seed: int, dtype: str = "float64") -> None:
    """Value and gradient of program number `seed`, from machine code and from the interpreter."""
    random = np.random.default_rng(seed)
    shapes = [(3, 5), (1, 5), (7,), (2, 3, 4)]
    arrays = [random.normal(size=shapes[int(random.integers(4))]).astype(dtype) for _ in range(2)]
    w = cr.tensor(arrays[0], requires_grad=True)
    length, choices = int(random.integers(3, 14)), int(random.integers(1 << 30))

    def program(x: Any) -> Any:
        chooser = np.random.default_rng(choices)
        pool = [w, x]
        for _ in range(length):
            made = step_of(chooser, pool[-1 - int(chooser.integers(min(3, len(pool))))], pool)
            pool.append(made if made.size < 5000 else cr.mean(made))
        loss = sum((cr.mean(one) for one in pool[2:]), cr.mean(w))
        loss.backward()
        return loss, pool[-1]

    step = compile(program)
    results = step(cr.tensor(arrays[1]))
    graph = step.graph()
    reads = [arrays[0] for _ in graph.reads]
    with ops.quiet():
        wanted = evaluate(graph, [arrays[1], *reads], ops.NUMPY)
    tolerance = 1e-11 if dtype == "float64" else 2e-4
    for got, value in zip([one.numpy() for one in results] + [w.grad.numpy()], wanted):
        np.testing.assert_allclose(got, value, rtol=tolerance, atol=tolerance, err_msg=f"program {seed}")


if __name__ == "__main__":
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 100):
        check(number)
    print("all agree")
