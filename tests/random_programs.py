"""Random programs from a seed: expressions over every kind of operation, and their gradients in one compiled step.

`python tests/random_programs.py 1000` runs any number of them through machine code and the interpreter, in float64 and
float32 in turn; `python tests/random_programs.py 1000 5000` begins at number 5000.

Shapes have no axis or up to four, of 0, 1, prime and other lengths. A value that rounding may push over the edge of a
jump (an integer cast, two equal maxima) differs between two correct programs: where values are apart, the audit, which
follows every stored value with the operands it had, has the last word, and the program is counted.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import functional as F
from chainrule import ops
from chainrule.errors import BoundsError, NonFiniteError
from chainrule.graph import evaluate
from chainrule.runtime import compile

Random = np.random.Generator

UNARY: tuple[Callable[[Any], Any], ...] = (
    cr.tanh, cr.sin, cr.abs, cr.square, lambda x: cr.exp(-x * x), lambda x: cr.sqrt(x * x + 0.5), lambda x: -x,
    lambda x: cr.maximum(x, 0.25), lambda x: cr.where(x > 0, x, 0.5 * x), lambda x: cr.log(cr.abs(x) + 1.0),
    lambda x: cr.sigmoid(x) * 2.0, lambda x: cr.clip(x, -0.5, 0.75), cr.relu, cr.erf, cr.cos, cr.atan, F.softplus,
    lambda x: cr.log1p(x * x), lambda x: cr.expm1(cr.tanh(x)), lambda x: cr.floor(x) + x,
    lambda x: 1.0 / (x * x + 0.3), lambda x: cr.asinh(x) - cr.round(x), lambda x: cr.sign(x) * cr.sqrt(cr.abs(x) + 0.1),
    lambda x: (x * x + 0.2) ** 1.5,
)  # fmt: skip
BINARY: tuple[Callable[[Any, Any], Any], ...] = (
    lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: x / (y * y + 1.0), cr.maximum,
    lambda x, y: cr.where(x < y, x, y), cr.minimum, lambda x, y: cr.atan2(x, y * y + 0.5), cr.hypot, cr.logaddexp,
    lambda x, y: cr.remainder(x, cr.abs(y) + 0.7), lambda x, y: cr.copysign(x, y),
    lambda x, y: cr.where((x > 0.1) & ~(y > 0.0), x * y, y - 1.0), lambda x, y: (x * x + 0.5) ** cr.tanh(y),
)  # fmt: skip
#: Of two arrays of whole numbers; the second has zeros and negative numbers.
WHOLE: tuple[Callable[[Any, Any], Any], ...] = (
    cr.floor_divide, cr.remainder, lambda x, y: x * y - x, lambda x, y: (x & y) | (x ^ 3), cr.maximum,
    lambda x, y: cr.where(x == y, x + 100, x - y),
    lambda x, y: cr.bitwise_left_shift(x, y) - cr.bitwise_right_shift(x, 1),
    lambda x, y: cr.abs(x) + cr.sign(y), lambda x, y: x * 0 + y * y * y * y,
)  # fmt: skip
INTEGERS = (cr.int8, cr.int16, cr.int32, cr.int64, cr.uint8, cr.uint16, cr.uint32, cr.uint64)
SHAPES = (
    (3, 5), (1, 5), (7,), (2, 3, 4), (), (1,), (0,), (3, 0), (0, 2, 3), (11, 13), (17,), (1, 1, 7), (2, 1, 3, 2),
    (37, 3),
)  # fmt: skip


def folded(random: Random, x: Any, axis: int) -> Any:
    """A sum, mean, extreme, product, spread … over an axis, over some, or over all."""
    axes: Any = (axis, None, tuple(k for k in range(x.ndim) if k != axis))[int(random.integers(3))]
    keep, way = bool(random.integers(2)), int(random.integers(9))
    over = x.shape[axis] if axes == axis else x.size
    if not over or way == 0:
        return cr.sum(x, axis=axes, keepdims=keep)
    if way <= 4:
        fold = (cr.mean, cr.max, cr.min, cr.var)[way - 1]
        return fold(x, axis=axes, keepdims=keep) if axes != () else x
    if way == 5:
        return cr.prod(cr.tanh(x) + 0.5, axis=axis, keepdims=keep)
    if way == 6:
        return (cr.cumulative_sum if random.integers(2) else cr.cumulative_prod)(cr.tanh(x), axis=axis)
    if way == 7:
        return F.log_softmax(x, axis=axis) if random.integers(2) else F.softmax(x, axis=axis)
    index = (cr.argmax if random.integers(2) else cr.argmin)(x, axis=axis, keepdims=True)
    return cr.take_along_axis(x, index, axis=axis) * cr.astype(
        cr.any(x > 0.3, axis=axis, keepdims=True), x.dtype
    )


def multiplied(random: Random, x: Any) -> Any:
    """A product of x with itself, its transpose, its rows or its columns."""
    way, turned = int(random.integers(4)), cr.matrix_transpose(x)
    if way == 0:
        return cr.tanh(x @ turned)
    if way == 1:
        return turned @ (x * 0.5)
    if way == 2 and x.ndim == 2:
        return x @ cr.tanh(cr.sum(x, axis=0)) if random.integers(2) else cr.outer(x[:, -1], x[:, 0])
    return cr.vecdot(x, cr.sin(x)) if random.integers(2) else cr.tensordot(x, cr.tanh(x), axes=((-1,), (-1,)))


def moved(random: Random, x: Any, axis: int) -> Any:
    """The elements of x in other places: views, copies, gathered and scattered ones."""
    way, size = int(random.integers(11)), x.shape[axis]
    if way == 0:
        return cr.permute_dims(x, tuple(int(k) for k in random.permutation(x.ndim)))
    if way == 1:
        return cr.reshape(x, (x.shape[-1], -1) if x.size and random.integers(2) else (x.size,))
    if way == 2:
        key = [slice(None)] * x.ndim
        key[axis] = slice(1, None, int(random.integers(1, 3))) if size > 2 else slice(None, None, -1)
        return cr.flip(x[tuple(key)], axis=axis)
    if way == 3:
        return cr.concat([x, UNARY[int(random.integers(len(UNARY)))](x)], axis=axis)
    if way == 4:
        return (
            cr.stack([x, cr.roll(x, 1, axis=axis)], axis=axis)
            if random.integers(2)
            else cr.repeat(x, 2, axis=axis)
        )
    if way == 5:
        return cr.pad(x, tuple((int(random.integers(3)), int(random.integers(2))) for _ in x.shape))
    if way == 6:
        return cr.tile(x, (2,)) if random.integers(2) else cr.broadcast_to(x, (3, *x.shape))
    if way == 7 and x.ndim > 1:
        return (cr.tril if random.integers(2) else cr.triu)(x, k=int(random.integers(-1, 2)))
    if way == 8 and size:
        return cr.take(x, cr.tensor(random.integers(-size, size, int(random.integers(0, 6)))), axis=axis)
    if way == 9 and size:
        y = x * 1.0
        y[int(random.integers(-size, size)) if not axis else ...] = 0.5
        return y
    return cr.sort(x, axis=axis) if random.integers(2) else cr.expand_dims(x, axis=axis)


def in_whole_numbers(random: Random, x: Any) -> Any:
    """Cast to integers, divided by zero and worse, and back."""
    dtype = INTEGERS[int(random.integers(len(INTEGERS)))]
    signed = -1.0 if dtype in INTEGERS[:4] else 0.0
    y = cr.astype(cr.clip(x * 3.0, 3 * signed, 5.0), dtype)
    z = cr.astype(cr.clip(cr.sin(x) * 4.0, 2 * signed, 3.0), dtype)
    made = WHOLE[int(random.integers(len(WHOLE)))](y, z)
    if random.integers(3) == 0 and x.ndim:
        made = cr.sum(made, axis=0) + cr.astype(cr.count_nonzero(made), made.dtype)
    return cr.astype(made, x.dtype) * 0.125 + (cr.sum(x) if made.ndim != x.ndim else x)


def looked_up(random: Random, x: Any) -> Any:
    """Rows by tokens that x gives, a loss by labels, or a loop over the rows; at times an index has no place."""
    way, rows = int(random.integers(4)), x.shape[0]
    worse = int(random.integers(12)) == 0
    tokens = cr.astype(cr.clip(cr.abs(x) * 2.0, 0.0, rows - 1.0), cr.int64) + (rows if worse else 0)
    if way == 0 and rows:
        return cr.take(x, cr.reshape(tokens, (-1,)) if tokens.size < 30 else tokens[0], axis=0)
    if way == 1 and x.ndim == 2 and x.size:
        classes = x.shape[1]
        labels = cr.astype(cr.clip(cr.abs(cr.sum(x, axis=1)), 0.0, classes - 1.0), cr.int32)
        return F.cross_entropy(x, labels + (classes if worse else 0)) + x
    if way == 2 and x.size:
        return cr.checkpoint(lambda given: cr.tanh(given) * cr.sum(given * given))(x)

    def body(carry: Any, row: Any) -> Any:
        after = cr.tanh(carry * 0.5 + row)
        return after, after * row

    last, every = cr.scan(body, cr.sum(x, axis=0) * 0.1, x, reverse=bool(random.integers(2)))
    return every if random.integers(2) else last


def step_of(random: Random, x: Any, pool: list[Any]) -> Any:
    """One more value from those that exist already."""
    way = int(random.integers(12))
    if way <= 2:
        return UNARY[int(random.integers(len(UNARY)))](x)
    if way <= 4:
        other = pool[int(random.integers(len(pool)))]
        pairs = zip(reversed(x.shape), reversed(other.shape))
        fits = all(a == b or 1 in (a, b) for a, b in pairs)
        return BINARY[int(random.integers(len(BINARY)))](x, other if fits else cr.tanh(x))
    if way == 5:
        return in_whole_numbers(random, x)
    if not x.ndim:
        return x * 1.5 if random.integers(2) else cr.reshape(x, (1, 1))
    axis = int(random.integers(x.ndim))
    if way <= 7:
        return folded(random, x, axis)
    if way == 8 and x.ndim > 1:
        return multiplied(random, x)
    if way == 9:
        return looked_up(random, x)
    return moved(random, x, axis)


class Program:
    """Program number `seed`: two arrays, and a function of tensors that makes the same choices at every call."""

    def __init__(self, seed: int, dtype: str = "float64") -> None:
        random = np.random.default_rng(seed)
        shapes = [SHAPES[int(random.integers(len(SHAPES)))] for _ in range(2)]
        self.w, self.x = (np.asarray(random.normal(size=shape)).astype(dtype) for shape in shapes)
        self.length, self.choices = int(random.integers(3, 14)), int(random.integers(1 << 30))

    def __call__(self, w: Any, x: Any) -> Any:
        chooser = np.random.default_rng(self.choices)
        pool = [w, x]
        for _ in range(self.length):
            made = step_of(chooser, pool[-1 - int(chooser.integers(min(3, len(pool))))], pool)
            made = made if made.size < 5000 and made.ndim < 5 else cr.sum(made) * 1e-3
            pool.append(made)
        mean = lambda one: cr.sum(one) / max(1, math.prod(one.shape))
        loss = sum((mean(cr.tanh(one) + 0.01 * one) for one in pool[2:]), mean(w))
        loss.backward()
        return loss, pool[-1]


AGREE, JUMP, REFUSED, OUTSIDE = "agree", "agree up to a jump", "refused: not finite", "refused: index"


def interpreted(program: Program, step: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Everything that the step's graph gives, and what its checks say, from the interpreter."""
    graph = step.graph()
    with ops.quiet():
        found = evaluate(graph, [program.x, *(program.w for _ in graph.reads)], ops.NUMPY)
    return found, found[len(found) - len(graph.checks) :]


def check(seed: int, dtype: str = "float64") -> str:
    """Value and gradient of program number `seed`, from machine code and from the interpreter; what came of it."""
    program = Program(seed, dtype)
    w, x = cr.tensor(program.w, requires_grad=True), cr.tensor(program.x)
    step = compile(lambda x: program(w, x))
    told = f"program {seed} {dtype}"
    try:
        results = step(x)
    except (BoundsError, NonFiniteError) as failure:
        assert w.grad is None and w.numpy().tobytes() == program.w.tobytes(), told
        if isinstance(failure, NonFiniteError):
            assert not all(np.all(one) for one in interpreted(program, step)[1]), f"{told}: {failure}"
            return REFUSED
        try:
            program(w, x)
        except BoundsError:
            return OUTSIDE
        raise AssertionError(f"{told}: ordinary code takes what the step refuses: {failure}") from None
    wanted, held = interpreted(program, step)
    assert all(np.all(one) for one in held), f"{told}: a check has failed, and nothing was said"
    rounding = 1e-11 if dtype == "float64" else 2e-4
    for got, value in zip([*(one.numpy() for one in results), w.grad.numpy()], wanted):
        assert got.shape == value.shape and got.dtype == value.dtype, told
        if not np.allclose(got, value, rtol=rounding, atol=rounding, equal_nan=True):
            w.grad = None
            found = compile(lambda x: program(w, x)).audit(x)
            assert found.ok, f"{told}: {found}"
            return JUMP
    return AGREE


def main() -> int:
    """Run as many programs as asked for."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    counts: Counter[str] = Counter()
    for number in range(first, first + count):
        try:
            counts[check(number, ("float64", "float32")[number % 2])] += 1
        except Exception as failure:
            counts["DIFFERENT"] += 1
            print(f"{number}: {type(failure).__name__}: {str(failure)[:1500]}", flush=True)
    print(", ".join(f"{number} {what}" for what, number in sorted(counts.items())))
    return min(counts["DIFFERENT"], 1)


if __name__ == "__main__":
    sys.exit(main())
