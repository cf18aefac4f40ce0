"""A forecast of a real time series with an LSTM, beside the methods that it has to beat.

    python examples/forecast_series.py                      CO₂ in the air of Mauna Loa, week by week
    python examples/forecast_series.py --series sunspots    sunspots, year by year
    python examples/forecast_series.py --quick

Windows of the past go in, the next steps come out, all at once. The last fifth of the time is the test: scaling,
weights and the choice of the epoch know nothing of it. Beside the LSTM stand the last value, the value one season ago,
and a linear model on the same windows (least squares, solved exactly).
Data: statsmodels' `co2` (C. D. Keeling, T. P. Whorf: weekly means from 1958 to 2001; 59 missing weeks are filled by
straight lines) and `sunspots` (yearly means from 1700 to 2008). Needs statsmodels.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LinearRegression
from statsmodels import datasets

import chainrule as cr
from chainrule import nn, optim


class Series(NamedTuple):
    """A series, how far to look back and ahead, and how long its season is."""

    values: Any
    length: int
    horizon: int
    season: int
    unit: str


def read(name: str) -> Series:
    """One of the two series."""
    if name == "co2":
        weeks = datasets.co2.load_pandas().data["co2"].interpolate()
        return Series(weeks.to_numpy(), 104, 26, 52, "ppm of CO₂")
    years = datasets.sunspots.load_pandas().data["SUNACTIVITY"]
    return Series(years.to_numpy(), 33, 8, 11, "sunspots")


class Forecast(nn.Module):
    """An LSTM over the window, then a linear layer for all steps ahead.

    Both work with differences from the last value, so that a level which no training window had is no trouble.
    """

    def __init__(self, horizon: int, hidden: int) -> None:
        self.lstm = nn.LSTM(1, hidden, batch_first=True)
        self.out = nn.Linear(hidden, horizon)

    def forward(self, x: Any) -> Any:
        """(N, length, 1) → (N, horizon)."""
        last = x[:, -1:, :]
        outputs, _ = self.lstm(x - last)
        return self.out(outputs[:, -1, :]) + last[:, :, 0]


def errors(found: Any, truth: Any) -> list[float]:
    """Mean absolute error over all steps ahead, of the first one and of the last one."""
    apart = np.abs(found - truth)
    return [float(apart.mean()), float(apart[:, 0].mean()), float(apart[:, -1].mean())]


def naive(series: Series, starts: Any) -> dict[str, Any]:
    """What needs no training: the last value, and the value of the same season."""
    ahead = np.arange(series.horizon)
    now = starts[:, None] + series.length
    one_season_ago = now + ahead - series.season * (ahead // series.season + 1)
    return {
        "last value": np.repeat(series.values[now - 1], series.horizon, axis=1),
        "one season ago": series.values[one_season_ago],
    }


def main() -> None:
    """Train, forecast, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", choices=["co2", "sunspots"], default="co2")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="2 epochs, 8 hidden units")
    given = parser.parse_args()
    epochs, hidden = (2, 8) if given.quick else (given.epochs, given.hidden)
    started = time.perf_counter()

    series = read(given.series)
    windows = cr.data.SeriesWindows(series.values, series.length, series.horizon)
    training, validation, test = windows.split(0.15, 0.2)
    cr.manual_seed(given.seed)
    model = Forecast(series.horizon, hidden)
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    run = cr.fit(
        model, training, validation=validation, loss="mse", optimizer=optimizer, epochs=epochs, batch_size=32,
        seed=given.seed, patience=25, clip_norm=1.0, progress=False,
        scheduler=optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs),
    )  # fmt: skip

    truth = series.values[test.starts()[:, None] + series.length + np.arange(series.horizon)]
    found = naive(series, test.starts())
    x, y = training.arrays()
    x_test, _ = test.arrays()
    line = LinearRegression().fit((x - x[:, -1:])[:, :, 0], y - x[:, -1])
    found["linear"] = test.unscale(line.predict((x_test - x_test[:, -1:])[:, :, 0]) + x_test[:, -1])
    found["LSTM"] = test.unscale(run.predict(test))
    print(
        f"{given.series}: {len(series.values)} steps; {len(training)} windows of {series.length} steps to train on, "
        f"{len(test)} to test on; seed {given.seed}, best epoch {run.best_epoch} of {len(run.history)}"
    )
    print(f"mean absolute error, {series.unit}:   all {series.horizon} steps     first      last")
    scores = {name: errors(one, truth) for name, one in found.items()}
    for name, parts in scores.items():
        print(f"  {name:32}" + "".join(f"{one:10.3f}" for one in parts))
    best = min((name for name in scores if name != "LSTM"), key=lambda name: scores[name][0])
    change = scores["LSTM"][0] / scores[best][0] - 1
    print(
        f"Verdict: the LSTM's error is {change:+.0%} against the best of the others ({best}), after "
        f"{time.perf_counter() - started:.0f} s."
    )


if __name__ == "__main__":
    main()
