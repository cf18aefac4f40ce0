"""Handwritten digits with a small convolutional network, from several seeds, beside two classical methods.

    python examples/digits_cnn.py              five seeds; each splits, draws weights and shuffles by itself
    python examples/digits_cnn.py --quick      a minute's look: one seed, few epochs

Data: 1,797 digits of 8 × 8 pixels, scikit-learn's `load_digits` (from UCI's "Optical Recognition of Handwritten
Digits"; E. Alpaydin, C. Kaynak). Needs chainrule[tabular] for scikit-learn.
"""

from __future__ import annotations

import argparse
import statistics
import time

from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

import chainrule as cr
from chainrule import nn, optim


def network(width: int) -> nn.Module:
    """Three convolutions, two halvings, one linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(8 * width, 10),
    )  # fmt: skip


def train(seed: int, epochs: int, width: int) -> tuple[float, float, float]:
    """Test accuracy of the network, of the nearest three neighbours and of support vectors, on the same rows."""
    digits = load_digits()
    images = cr.data.as_images(digits.images, white=16)
    x, x_test, y, y_test = cr.data.train_test_split(
        images, digits.target, test_size=0.25, stratify=digits.target, seed=seed
    )
    cr.manual_seed(seed)
    model = network(width)
    optimizer = optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    run = cr.fit(
        model, (x, y), optimizer=optimizer, epochs=epochs, batch_size=64, seed=seed, validation=None, progress=False,
        scheduler=optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs),
        augment=cr.data.RandomShift(1), metrics=["accuracy"],
    )  # fmt: skip
    found = run.evaluate(x_test, y_test)["accuracy"]
    rows, rows_test = x.reshape(len(x), -1), x_test.reshape(len(x_test), -1)
    neighbours = KNeighborsClassifier(3).fit(rows, y).score(rows_test, y_test)
    machine = SVC(C=10).fit(rows, y).score(rows_test, y_test)
    return found, float(neighbours), float(machine)


def main() -> None:
    """Train from every seed and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--width", type=int, default=32, help="channels of the first convolution")
    parser.add_argument("--quick", action="store_true", help="one seed, 3 epochs, 8 channels")
    given = parser.parse_args()
    seeds, epochs, width = ([0], 3, 8) if given.quick else (given.seeds, given.epochs, given.width)
    parameters = sum(one.size for one in network(width).parameters())
    print(
        f"network of {parameters:,} parameters, {epochs} epochs; a quarter of the digits is held back for the test"
    )
    print("seed   network   3 neighbours   support vectors   seconds")
    results = []
    for seed in seeds:
        started = time.perf_counter()
        results.append(train(seed, epochs, width))
        shown = "   ".join(f"{one:.2%}" for one in results[-1])
        print(f"{seed:4}   {shown}   {time.perf_counter() - started:.0f}", flush=True)
    means = [statistics.mean(column) for column in zip(*results)]
    spread = statistics.stdev(one[0] for one in results) if len(results) > 1 else 0.0
    print(f"mean   {'   '.join(f'{one:.2%}' for one in means)}   (network: ± {spread:.2%} from seed to seed)")
    won = sum(one[0] > max(one[1:]) for one in results)
    print(f"Verdict: the network is above both classical methods from {won} of {len(results)} seeds.")


if __name__ == "__main__":
    main()
