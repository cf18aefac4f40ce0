"""Noise taken out of images of digits by a convolutional autoencoder, beside simple filters.

    python examples/denoise_digits.py
    python examples/denoise_digits.py --quick

The network sees noisy digits and learns to give the clean ones; the noise is drawn anew in every epoch. It is measured
by PSNR on digits that it has never seen, with noise that it has never seen. The filters get their best setting on the
training digits: a blur, and a projection on principal components, which knows what digits look like.
Data: scikit-learn's `load_digits`. Needs chainrule[tabular] for scikit-learn.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import chainrule as cr
from chainrule import nn, optim


def network(width: int) -> nn.Module:
    """8 × 8 pixels, squeezed to 4 × 4 and 2 × 2, and brought back."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(width, 1, 3, padding=1), nn.Sigmoid(),
    )  # fmt: skip


def psnr(found: Any, wanted: Any) -> float:
    """Peak signal to noise ratio in decibels: 10·log₁₀(1 / mean squared error), for images from 0 to 1."""
    return -10 * math.log10(float(np.mean((np.asarray(found, np.float64) - wanted) ** 2)))


def noisy(images: Any, sigma: float, seed: int) -> Any:
    """The images with normally distributed noise."""
    return images + np.random.default_rng(seed).normal(0, sigma, images.shape).astype(np.float32)


def blurred(images: Any, share: float) -> Any:
    """Each pixel mixed with the mean of its 3 × 3 neighbourhood."""
    around = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(2, 3))
    return (1 - share) * images + share * windows.mean(axis=(-1, -2))


def best_blur(clean: Any, dirty: Any) -> float:
    """The share of the neighbourhood that gives the highest PSNR."""
    return max(np.linspace(0, 1, 21), key=lambda share: psnr(np.clip(blurred(dirty, share), 0, 1), clean))


def principal(clean: Any, dirty: Any) -> Any:
    """A function that projects images on as many principal components as give the highest PSNR."""
    rows = clean.reshape(len(clean), -1)
    dirty_rows = dirty.reshape(len(dirty), -1)
    models = [PCA(count).fit(rows) for count in range(2, 49, 2)]

    def quality(one: PCA) -> float:
        return psnr(np.clip(one.inverse_transform(one.transform(dirty_rows)), 0, 1), rows)

    best = max(models, key=quality)
    return lambda x: best.inverse_transform(best.transform(x.reshape(len(x), -1))).reshape(x.shape)


def picture(*images: Any) -> str:
    """Small images side by side in characters."""
    shades = " ░▒▓█"
    lines = [["".join(shades[min(4, max(0, int(v * 5)))] * 2 for v in row) for row in one] for one in images]
    return "\n".join("   ".join(parts) for parts in zip(*lines))


def main() -> None:
    """Train, measure, and show one digit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sigma", type=float, default=0.3, help="standard deviation of the noise; white is 1"
    )
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--width", type=int, default=32, help="channels of the first convolution")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="3 epochs, 8 channels")
    given = parser.parse_args()
    epochs, width = (3, 8) if given.quick else (given.epochs, given.width)
    started = time.perf_counter()

    images = cr.data.as_images(load_digits().images, white=16)
    clean, test = cr.data.train_test_split(images, test_size=0.25, seed=given.seed)
    dirty, dirty_test = noisy(clean, given.sigma, given.seed), noisy(test, given.sigma, given.seed + 1)

    cr.manual_seed(given.seed)
    model = network(width)
    optimizer = optim.Adam(model.parameters(), lr=2e-3)
    run = cr.fit(
        model, (clean, clean), loss="mse", optimizer=optimizer, epochs=epochs, batch_size=64, seed=given.seed,
        scheduler=optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs), progress=False, validation=None,
        augment=cr.data.GaussianNoise(sigma=given.sigma, clip=False),
    )  # fmt: skip
    found = run.outputs(dirty_test)

    share, project = best_blur(clean, dirty), principal(clean, dirty)
    scores = {
        "noisy digits": psnr(np.clip(dirty_test, 0, 1), test),
        f"blur ({share:.0%} of the 3 × 3 mean)": psnr(np.clip(blurred(dirty_test, share), 0, 1), test),
        "principal components": psnr(np.clip(project(dirty_test), 0, 1), test),
        "network": psnr(found, test),
    }
    print(
        f"noise of {given.sigma:g}, {len(clean)} digits to train on, {len(test)} to test on; seed {given.seed}"
    )
    for name, value in scores.items():
        print(f"  {name:32} {value:6.2f} dB")
    print("clean, noisy, network:")
    print(picture(test[0, 0], dirty_test[0, 0], found[0, 0]))
    *others, own = scores.values()
    seconds = time.perf_counter() - started
    print(f"Verdict: {own - max(others):+.2f} dB against the best of the others, after {seconds:.0f} s.")


if __name__ == "__main__":
    main()
