"""Convolutions from a seed: any number of axes, sizes, strides, gaps and groups, and what stands around them.

`python tests/random_convolutions.py 1000` audits any number of them: every stored value of the machine code, values and
gradients, beside the interpreter in float64, for processors with short and long vectors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import functional as F
from chainrule import ops
from chainrule.compiler import Compilation, compile_graph
from chainrule.compiler.machine import registers
from chainrule.compiler.product import Registers
from chainrule.runtime import compile
from chainrule.runtime.audit import audit_sources
from chainrule.tensor import wrap

SHORT = (Registers(16, 16), Registers(32, 16))
"""The vector registers of other processors: what is written for them runs here, too."""


@dataclass(frozen=True)
class Shape:
    """A convolution: batch, input and output channels, places, kernel, and how it moves."""

    batch: int
    inputs: int
    outputs: int
    places: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    padding: int = 0
    returned: bool = False

    def arrays(self, dtype: str, seed: int = 0) -> list[np.ndarray]:
        """An input, a weight and a bias."""
        random = np.random.default_rng(seed)
        shapes = (
            (self.batch, self.inputs, *self.places),
            (self.outputs, self.inputs // self.groups, *self.kernel),
            (self.outputs,),
        )
        return [random.normal(size=shape).astype(dtype) for shape in shapes]

    def step(self) -> Callable[..., Any]:
        """Loss, gradients and maybe the result itself, of input, weight and bias."""
        axes = len(self.places)
        options = {
            "strides": self.strides or (1,) * axes, "dilation": self.dilation or (1,) * axes, "groups": self.groups
        }  # fmt: skip
        edge = (0, 0, *(self.padding,) * axes)

        def network(x: cr.Tensor, w: cr.Tensor, b: cr.Tensor) -> Any:
            inside = cr.tanh(x).node
            if self.padding:
                inside = ops.pad.node((inside,), {"low": edge, "high": edge, "interior": (0,) * len(edge)})
            y = wrap(ops.conv.node((inside, w.node), options)) + cr.reshape(b, (1, -1, *(1,) * axes))
            return (F.relu(y) * cr.sigmoid(y)).sum(), y

        def both(x: cr.Tensor, w: cr.Tensor, b: cr.Tensor) -> Any:
            loss = lambda *given: network(*given)[0]
            gradients = cr.grad(loss, argnums=(0, 1, 2))(x, w, b)
            value, y = network(x, w, b)
            return (value, *gradients, y) if self.returned else (value, *gradients)

        return both


def compiled(shape: Shape, dtype: str, machine: Registers | None = None) -> Compilation:
    """Every stage for a processor with these registers."""
    graph = compile(shape.step()).graph(*shape.arrays(dtype))
    return compile_graph(graph, machine or registers())


def check(shape: Shape, dtype: str, machine: Registers | None = None) -> None:
    """Every stored value of one shape's step, from machine code and from the interpreter."""
    compilation = compiled(shape, dtype, machine)
    audit = audit_sources(compilation, shape.arrays(dtype))
    assert audit.ok, f"{shape} {dtype} {machine}: {audit}"
    assert compilation.emitted.segments == 1, f"{shape}: NumPy is called"


def random_shape(seed: int) -> Shape:
    """Shape number `seed`."""
    random = np.random.default_rng(seed)
    number = lambda low, high: int(random.integers(low, high))
    axes = (1, 2, 2, 2, 3)[number(0, 5)]
    groups = (1, 1, 1, 2, 3)[number(0, 5)]
    each = (number(1, 8), number(1, 20), 1, number(14, 36))[number(0, 4)]
    outs = (number(1, 8), number(1, 40), 1, 16)[number(0, 4)]
    kernel = tuple(number(1, 5) for _ in range(axes))
    dilation = tuple((1, 1, 2)[number(0, 3)] for _ in range(axes))
    strides = tuple((1, 1, 2, 3)[number(0, 4)] for _ in range(axes))
    most = {1: 60, 2: 18, 3: 6}[axes]
    places = tuple(max(gap * (size - 1) + 1, number(1, most)) for size, gap in zip(kernel, dilation))
    if not number(0, 4):  # each channel apart
        groups, each, outs = number(2, 36), 1, number(1, 3)
    return Shape(
        number(1, 5), groups * each, groups * outs, places, kernel, strides, dilation, groups, number(0, 3),
        bool(number(0, 2)),
    )  # fmt: skip


if __name__ == "__main__":
    for count in range(int(sys.argv[1]) if len(sys.argv) > 1 else 100):
        check(random_shape(count), ("float32", "float64")[count % 2], (None, *SHORT)[count % 3])
    print("all agree")
