"""How long the first call of a large step takes, with nothing of it on the disk.

    python benchmarks/first_step.py                           # all of them, three fresh processes each
    python benchmarks/first_step.py gpt residual --rounds 1

Each step runs in a process of its own with CHAINRULE_CACHE=0. Seconds of the clock, and of the processors: those of
the process and of its children, which tell more where others are at work on the same machine. The median is printed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import nn, optim
from chainrule.cli.bench.engines import own
from chainrule.cli.bench.workloads import WORKLOADS

Call = Callable[[], Any]


def gpt() -> Call:
    """GPT of `chainrule bench`: 4 layers, 4 heads, 128 wide, 64 letters, batch 12, Adam."""
    return _of_bench("gpt")


def cnn() -> Call:
    """The convolutional network of `chainrule bench`."""
    return _of_bench("cnn")


def _of_bench(name: str) -> Call:
    workload = WORKLOADS[name]
    return own.prepare(workload).step


class Residual(nn.Module):
    """x + linear(relu(linear(norm(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        return x + self.second(cr.relu(self.first(self.norm(x))))


class ResidualConvolutions(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x))))))."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, channels, 3, stride=stride, padding=1)
        self.one = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.other = nn.BatchNorm2d(channels)
        same = inputs == channels and stride == 1
        self.past = None if same else nn.Conv2d(inputs, channels, 1, stride=stride)

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        found = self.other(self.second(cr.relu(self.one(self.first(x)))))
        return cr.relu(found + (x if self.past is None else self.past(x)))


def residual() -> Call:
    """50 residual blocks of two dense layers, 64 wide, Adam."""
    cr.manual_seed(0)
    return _classifier(nn.Sequential(*(Residual(64) for _ in range(50)), nn.Linear(64, 10)), (32, 64))


def resnet() -> Call:
    """A residual network of 50 convolutions: 8 blocks of each of 16, 32 and 64 channels, images of 16 × 16, Adam."""
    cr.manual_seed(0)
    blocks, before = [], 16
    for channels in (16, 32, 64):
        for k in range(8):
            blocks.append(ResidualConvolutions(before, channels, 2 if k == 0 and channels > 16 else 1))
            before = channels
    layers = [
        nn.Conv2d(3, 16, 3, padding=1),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    ]
    return _classifier(nn.Sequential(*layers), (8, 3, 16, 16))


def _classifier(model: nn.Module, shape: tuple[int, ...]) -> Call:
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    random = np.random.default_rng(0)
    x = cr.tensor(random.normal(size=shape).astype("float32"))
    y = cr.tensor(random.integers(0, 10, shape[0]))

    @cr.compile
    def step(x: cr.Tensor, y: cr.Tensor) -> cr.Tensor:
        loss = cr.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return lambda: step(x, y)


def chain(layers: int = 1000) -> Call:
    """1,000 dense layers of width 16 one after the other, SGD."""
    cr.manual_seed(0)
    model = nn.Sequential(*(one for _ in range(layers) for one in (nn.Linear(16, 16), nn.Tanh())))
    optimizer = optim.SGD(model.parameters(), lr=1e-3)
    x = cr.tensor(np.random.default_rng(0).normal(size=(8, 16)).astype("float32"))

    @cr.compile
    def step(x: cr.Tensor) -> cr.Tensor:
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return lambda: step(x)


def chain_short() -> Call:
    """The same with 250 layers, to see how the time grows."""
    return chain(250)


def examples() -> Call:
    """The gradients of 64 examples, one after the other in one step, clipped and summed."""
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 10))
    parameters = list(model.parameters())
    optimizer = optim.SGD(parameters, lr=0.1)
    random = np.random.default_rng(0)
    x = cr.tensor(random.normal(size=(64, 32)).astype("float32"))
    y = cr.tensor(random.integers(0, 10, 64))

    @cr.compile
    def step(x: cr.Tensor, y: cr.Tensor) -> list[cr.Tensor]:
        total: list[Any] = [0.0 for _ in parameters]
        for k in range(64):
            cr.functional.cross_entropy(model(x[k : k + 1]), y[k : k + 1]).backward()
            found = [one.grad for one in parameters]
            optimizer.zero_grad()
            norm = cr.sqrt(sum((one**2).sum() for one in found))
            total = [one + two / cr.maximum(norm, 1.0) for one, two in zip(total, found)]
        return total

    return lambda: step(x, y)


def gan() -> Call:
    """A generator of four transposed convolutions against a classifier of four: both learn in one step, with Adam."""
    cr.manual_seed(0)
    widths = (64, 32, 16)
    generator = nn.Sequential(
        nn.ConvTranspose2d(32, 64, 4),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        *(
            layer
            for before, after in itertools.pairwise(widths)
            for layer in (nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU())
        ),
        nn.ConvTranspose2d(16, 3, 4, 2, 1),
        nn.Tanh(),
    )
    critic = nn.Sequential(
        *(
            layer
            for before, after in zip((3, 16, 32), (16, 32, 64))
            for layer in (nn.Conv2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.LeakyReLU(0.2))
        ),
        nn.Conv2d(64, 1, 4),
        nn.Flatten(),
    )
    learners = [optim.Adam(one.parameters(), lr=2e-4, betas=(0.5, 0.999)) for one in (generator, critic)]
    random = np.random.default_rng(0)
    real = cr.tensor(random.normal(size=(16, 3, 32, 32)).astype("float32"))
    noise = cr.tensor(random.normal(size=(16, 32, 1, 1)).astype("float32"))

    def surely(scores: cr.Tensor, truth: float) -> cr.Tensor:
        return cr.functional.binary_cross_entropy_with_logits(scores, cr.full_like(scores, truth))

    @cr.compile
    def step(real: cr.Tensor, noise: cr.Tensor) -> tuple[cr.Tensor, cr.Tensor]:
        made = generator(noise)
        seen = surely(critic(real), 1.0) + surely(critic(made.detach()), 0.0)
        seen.backward()
        learners[1].step()
        learners[1].zero_grad()
        fooled = surely(critic(made), 1.0)
        fooled.backward()
        learners[0].step()
        for one in learners:
            one.zero_grad()
        return seen, fooled

    return lambda: step(real, noise)


def style() -> Call:
    """An image learns the products of feature maps of one picture and the features of another: ten convolutions."""
    cr.manual_seed(0)
    widths = (3, 16, 16, 32, 32, 64, 64, 64, 64, 64, 64)
    layers = [nn.Conv2d(before, after, 3, padding=1) for before, after in itertools.pairwise(widths)]
    for layer in layers:
        layer.requires_grad_(False)
    random = np.random.default_rng(0)
    pictures = [cr.tensor(random.normal(size=(1, 3, 64, 64)).astype("float32")) for _ in range(2)]
    image = cr.tensor(pictures[0].numpy(), requires_grad=True)
    optimizer = optim.Adam([image], lr=0.05)

    def features(x: cr.Tensor) -> list[cr.Tensor]:
        found = []
        for k, layer in enumerate(layers):
            x = cr.relu(layer(x))
            found.append(x)
            x = cr.functional.avg_pool2d(x, 2) if k in (1, 3, 7) else x
        return found

    def products(x: cr.Tensor) -> cr.Tensor:
        flat = cr.reshape(x, (x.shape[1], -1))
        return flat @ flat.T / flat.size

    with cr.no_grad():
        content, manner = (features(one) for one in pictures)
        wanted = [products(one) for one in manner]

    @cr.compile
    def step() -> cr.Tensor:
        now = features(image)
        loss = cr.mean((now[7] - content[7]) ** 2.0)
        for one, other in zip(now, wanted):
            loss = loss + 100.0 * cr.mean((products(one) - other) ** 2.0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


STEPS = {one.__name__: one for one in (gpt, cnn, residual, resnet, gan, style, examples, chain_short, chain)}


def seconds_of_processors() -> float:
    """What this process and its finished children have used so far."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in found)


def measure(name: str) -> dict[str, float]:
    """One first call in this process."""
    call = STEPS[name]()
    started, used = time.perf_counter(), seconds_of_processors()
    call()
    return {"clock": time.perf_counter() - started, "processors": seconds_of_processors() - used}


def main() -> None:
    """Measure in fresh processes and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", help=f"of {', '.join(STEPS)}; all of them if none is given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inside", action="store_true", help="one measurement in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(measure(arguments.steps[0])))
        return
    environment = os.environ | {"CHAINRULE_CACHE": "0"}
    for name in arguments.steps or STEPS:
        command = [sys.executable, __file__, name, "--inside"]
        found = [
            json.loads(subprocess.run(command, check=True, env=environment, capture_output=True).stdout)
            for _ in range(arguments.rounds)
        ]
        clock, processors = ([one[key] for one in found] for key in ("clock", "processors"))
        print(
            f"{name:<12} clock {statistics.median(clock):7.2f} s ({min(clock):.2f} to {max(clock):.2f})   "
            f"processors {statistics.median(processors):7.2f} s ({min(processors):.2f} to {max(processors):.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
