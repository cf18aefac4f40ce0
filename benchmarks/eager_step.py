"""One training step of a tiny network, ours (eager and compiled) against PyTorch eager, alternating in one run.

Linear 64→32, ReLU, Linear 32→10, cross-entropy, backward, SGD; batch 32, float32. PyTorch is timed with the
threads it chooses and with one. Prints medians, spread and ratios; also what NumPy alone needs for the same step.

    python benchmarks/eager_step.py [--rounds 15] [--steps 200]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np

import chainrule as cr
from chainrule import nn, optim

IN, HIDDEN, CLASSES, BATCH, RATE = 64, 32, 10, 32, 0.01
Step = Callable[[], object]


def data() -> tuple[np.ndarray, np.ndarray]:
    """Inputs (32, 64) float32 and labels (32,) int64, fixed by a seed."""
    random = np.random.default_rng(0)
    return random.standard_normal((BATCH, IN)).astype(np.float32), random.integers(0, CLASSES, BATCH)


def ours(compiled: bool = False) -> Step:
    """The step written with chainrule: eager, or as one native function."""
    x, y = (cr.tensor(one) for one in data())
    model = nn.Sequential(nn.Linear(IN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    optimizer = optim.SGD(model.parameters(), lr=RATE)

    def step() -> object:
        loss = cr.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return cr.compile(step) if compiled else step


def torch_step(threads: int | None) -> Step:
    """The step written with PyTorch, on its own number of threads or on `threads`."""
    import torch

    default = torch.get_num_threads()
    x, y = (torch.from_numpy(one) for one in data())
    model = torch.nn.Sequential(
        torch.nn.Linear(IN, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, CLASSES)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    def step() -> object:
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    def on_threads() -> object:
        torch.set_num_threads(threads or default)
        return step

    step.prepare = on_threads  # type: ignore[attr-defined]
    return step


def numpy_step() -> Step:
    """Forward, backward and update written by hand in NumPy: what no engine on NumPy can undercut."""
    x, y = data()
    random = np.random.default_rng(1)
    state = {
        "w1": random.standard_normal((HIDDEN, IN)).astype(np.float32),
        "b1": np.zeros(HIDDEN, np.float32),
        "w2": random.standard_normal((CLASSES, HIDDEN)).astype(np.float32),
        "b2": np.zeros(CLASSES, np.float32),
    }
    rows = np.arange(BATCH)

    def step() -> object:
        hidden = x @ state["w1"].T + state["b1"]
        active = np.maximum(hidden, 0)
        scores = active @ state["w2"].T + state["b2"]
        shifted = scores - scores.max(1, keepdims=True)
        powers = np.exp(shifted)
        totals = powers.sum(1, keepdims=True)
        loss = -(shifted - np.log(totals))[rows, y].mean()
        g = powers / totals
        g[rows, y] -= 1
        g /= BATCH
        g_hidden = (g @ state["w2"]) * (hidden > 0)
        gradients = {"w1": g_hidden.T @ x, "b1": g_hidden.sum(0), "w2": g.T @ active, "b2": g.sum(0)}
        for name, gradient in gradients.items():
            state[name] = state[name] - RATE * gradient
        return loss

    return step


def measure(steps: dict[str, Step], rounds: int, count: int) -> dict[str, list[float]]:
    """Seconds per step of each candidate, one sample per round, the candidates taking turns."""
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            getattr(step, "prepare", lambda: None)()
            for _ in range(count // 10):
                step()
            start = time.perf_counter()
            for _ in range(count):
                step()
            samples[name].append((time.perf_counter() - start) / count)
    return samples


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    steps: dict[str, Step] = {
        "chainrule eager": ours(),
        "chainrule compiled": ours(compiled=True),
        "NumPy by hand": numpy_step(),
    }
    versions = [
        f"chainrule {cr.__version__}",
        f"numpy {np.__version__}",
        f"python {platform.python_version()}",
    ]
    try:
        import torch

        versions.append(f"torch {torch.__version__}")
        steps[f"PyTorch eager, {torch.get_num_threads()} threads"] = torch_step(None)
        steps["PyTorch eager, 1 thread"] = torch_step(1)
    except ImportError:
        print("PyTorch is not installed: only our own times")
    samples = measure(steps, arguments.rounds, arguments.steps)
    ours_median = statistics.median(samples["chainrule eager"])
    print(", ".join(versions))
    for name, times in samples.items():
        median, low, high = statistics.median(times), min(times), max(times)
        print(
            f"{name:<28} {median * 1e6:7.1f} µs  ({low * 1e6:.1f} to {high * 1e6:.1f})"
            f"   chainrule eager takes {ours_median / median:5.2f}x of it"
        )


if __name__ == "__main__":
    main()
