"""Kill a training with SIGKILL at random moments, resume it until it is done, and compare its bits with one unbroken.

`python tests/kill_and_resume.py 50` does it 50 times and prints how many ended with the same bits: in turn with steps
in Python, with compiled ones, and with many of them in one native call. The training has dropout (from the default
generator and from one of its own), BatchNorm, ReduceLROnPlateau, a partial last batch, a partial last group of
accumulated batches, early stopping with the best weights kept, and a callback with a state. Each process runs with
another number of threads for NumPy's BLAS and for compiled steps.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import chainrule as cr
from chainrule import nn, optim
from chainrule.train import Callback, fit

STEPS_BETWEEN_CHECKPOINTS = 5


class Diary(Callback):
    """Notes every update in a file, where it survives the process; its state takes part in training."""

    def __init__(self, path: Path, pause: float) -> None:
        self.seen = 0.0
        self.pause = pause
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_batch_end(self, run, batch):
        self.seen = self.seen * 0.9 + batch["loss"]
        os.write(self.file, f"{batch['step']}\n".encode())
        time.sleep(self.pause)

    def on_epoch_end(self, run, record):
        group = run.optimizer.param_groups[0]
        group["weight_decay"] = 0.01 + 1e-3 * (self.seen % 1)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


class Epochs(Callback):
    """Notes every epoch only, so that the updates between need not be made one by one; takes part in the same way."""

    on_epoch_end = Diary.on_epoch_end

    def __init__(self, path: Path, pause: float) -> None:
        self.diary = Diary(path, pause * 10)
        self.seen = 0.0

    def on_epoch_begin(self, run, epoch):
        if epoch > 1:
            self.diary.on_batch_end(run, {"step": (epoch - 1) * 15, "loss": run.history[-1]["loss"]})
            self.seen = self.diary.seen

    def state_dict(self):
        return self.diary.state_dict()

    def load_state_dict(self, state):
        self.diary.load_state_dict(state)
        self.seen = self.diary.seen


def make_model() -> nn.Module:
    cr.manual_seed(5)
    generator = cr.Generator(8)
    return nn.Sequential(
        nn.Linear(12, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(40, 24), nn.ReLU(), nn.Dropout(0.2, generator=generator), nn.Linear(24, 3),
    )  # fmt: skip


WAYS = ("python", "compiled", "stretches")


def train(folder: Path, pause: float = 0.004, way: str = "python") -> None:
    """One process: begin, or go on."""
    diary = (Epochs if way == "stretches" else Diary)(folder.with_suffix(".diary"), pause)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(330, 12)).astype(np.float32)
    y = (x @ generator.normal(size=(12, 3))).argmax(axis=1)
    noisy = np.where(generator.random(330) < 0.3, generator.integers(0, 3, 330), y)
    model = make_model()
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    fit(
        model,
        (x[:230], noisy[:230]),
        validation=(x[230:], y[230:]),
        optimizer=optimizer,
        scheduler=optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0),
        epochs=12,
        batch_size=16,
        accumulate=1 if way == "stretches" else 4,
        clip_norm=1.0,
        patience=10,
        metrics=["accuracy", "f1"],
        callbacks=[diary],
        compile=way != "python",
        progress=False,
        folder=folder,
        checkpoint_seconds=None,
        checkpoint_steps=STEPS_BETWEEN_CHECKPOINTS,
        resume=True,
    )


def outcome(folder: Path) -> str:
    """A digest of the weights at the end and of every number of the history but the times."""
    found = hashlib.sha256((folder / "model.safetensors").read_bytes())
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        del record["seconds"]
        found.update(json.dumps(record).encode())
    return found.hexdigest()


def start(folder: Path, pause: float, threads: int, way: str = "python") -> subprocess.Popen[bytes]:
    numbers = {"OPENBLAS_NUM_THREADS": str(threads), "CHAINRULE_NUM_THREADS": str(threads)}
    environment = {**os.environ, **numbers, "PYTHONWARNINGS": "error"}
    command = [sys.executable, __file__, "train", os.fspath(folder), str(pause), way]
    return subprocess.Popen(command, env=environment)


def unbroken(folder: Path, way: str = "python") -> str:
    """The outcome of a training that nobody stops."""
    assert start(folder, 0.0, 1, way).wait() == 0
    return outcome(folder)


def newest_step(folder: Path) -> int | None:
    """The update of the newest checkpoint, or None."""
    names = sorted(path for path in (folder / "checkpoints").glob("[0-9]*"))
    return json.loads((names[-1] / "checkpoint.json").read_text())["step"] if names else None


def updates(folder: Path) -> int:
    """The last update that any process of this training noted."""
    diary = folder.with_suffix(".diary")
    lines = diary.read_bytes().split() if diary.exists() else []
    return int(lines[-1]) if lines else 0


def wait_by_chance(process: subprocess.Popen[bytes], folder: Path, chance: random.Random) -> bool:
    """Wait for a moment by chance: of the whole life of a process, or of its updates; whether it still lives."""
    if chance.random() < 0.25:
        time.sleep(chance.uniform(0.0, 1.5))
    else:
        before = updates(folder)
        wanted = chance.randint(1, 30)  # counted in updates that this process makes, the repeated ones too
        seen = 0
        while process.poll() is None and seen < wanted:
            time.sleep(0.001)
            now = updates(folder)
            seen, before = seen + (now != before), now
        time.sleep(chance.uniform(0.0, 0.01))
    return process.poll() is None


def broken(folder: Path, chance: random.Random, kills: int, way: str = "python") -> tuple[str, int]:
    """(outcome, how often it was killed) of a training that is killed up to `kills` times and then left alone."""
    killed = 0
    while True:
        process = start(folder, 0.004, chance.randint(1, 4), way)
        if killed < kills and wait_by_chance(process, folder, chance):
            process.kill()
            process.wait()
            killed += 1
            check_loss(folder)
            continue
        code = process.wait()
        assert code == 0, f"the training ended with {code}"
        return outcome(folder), killed


def check_loss(folder: Path) -> None:
    """What was lost is at most what lies between two checkpoints."""
    last = updates(folder)
    if last:
        step = newest_step(folder)
        assert step is not None and step >= last - STEPS_BETWEEN_CHECKPOINTS, (step, last)


def main(rounds: int, seed: int = 0) -> int:
    chance = random.Random(seed)
    equal = kills = 0
    with tempfile.TemporaryDirectory() as place:
        wanted = {way: unbroken(Path(place) / f"unbroken {way}", way) for way in WAYS}
        for k in range(rounds):
            way = WAYS[k % len(WAYS)]
            got, killed = broken(Path(place) / f"run{k}", chance, chance.randint(1, 3), way)
            same = got == wanted[way]
            equal, kills = equal + same, kills + killed
            print(
                f"{k + 1}: {way}, killed {killed} times, {'the same bits' if same else 'OTHER BITS'}",
                flush=True,
            )
    print(f"{equal} of {rounds} ended with the bits of the unbroken run, after {kills} kills")
    return 0 if equal == rounds else 1


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
    else:
        sys.exit(main(int(sys.argv[1]), *map(int, sys.argv[2:])))
