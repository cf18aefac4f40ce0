"""Scores and fit times on real tables, without any setting: chainrule, scikit-learn's network, and a linear model.

Five data sets that ship with scikit-learn (and one made, larger one with --made), repeated cross-validation with the
same rows for all. chainrule gets the table as it is; the others get scaled numbers, as their manuals advise.

    python benchmarks/tables.py                      # five data sets, 5 folds, 4 repeats
    python benchmarks/tables.py --data iris wine --repeats 1 --json tables.json
"""

import argparse
import json
import os
import platform
import time
import warnings
from importlib import metadata

import numpy as np
import pandas
from sklearn import datasets
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from chainrule.data.tabular import Reading, Table
from chainrule.train.rivals import corrected_interval
from chainrule.train.tabular import plan_table, train_plan

REAL = ("iris", "wine", "breast_cancer", "digits", "diabetes")
MADE = "friedman1"

# Enough passes for scikit-learn's network to reach its own stopping rule on every fold.
MOST_PASSES = 5000


def load(name):
    """(table of plain columns with the column `target`, inputs, targets, whether targets are classes)."""
    if name == MADE:
        x, y = datasets.make_friedman1(5000, noise=1.0, random_state=0)
    else:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    frame = pandas.DataFrame(x, columns=[f"x{k}" for k in range(x.shape[1])])
    frame["target"] = y
    return Table(frame, Reading(name, "utf-8", ",", len(frame), len(frame.columns), ())), x, y, name not in (
        "diabetes", MADE
    )  # fmt: skip


def ours(table, rows, number):
    outcome = train_plan(plan_table(table, "target", rows=rows))
    return next(iter(outcome.score.values()))


def scikit_learn(make, x, y, rows):
    training, test = rows
    model = make_pipeline(StandardScaler(), make).fit(x[training], y[training])
    return model.score(x[test], y[test])


def measure(name, folds, repeats, seed):
    """Scores and seconds of every fold, by model."""
    table, x, y, classes = load(name)
    kind = RepeatedStratifiedKFold if classes else RepeatedKFold
    splits = list(kind(n_splits=folds, n_repeats=repeats, random_state=seed).split(x, y))
    found = {model: {"scores": [], "seconds": []} for model in ("chainrule", "network", "linear")}
    for number, rows in enumerate(splits):
        network = (MLPClassifier if classes else MLPRegressor)(max_iter=MOST_PASSES, random_state=number)
        linear = LogisticRegression(max_iter=MOST_PASSES) if classes else Ridge()
        for model, run in {
            "chainrule": lambda rows=rows, number=number: ours(table, rows, number),
            "network": lambda rows=rows, network=network: scikit_learn(network, x, y, rows),
            "linear": lambda rows=rows, linear=linear: scikit_learn(linear, x, y, rows),
        }.items():
            started = time.perf_counter()
            score = run()
            found[model]["seconds"].append(time.perf_counter() - started)
            found[model]["scores"].append(float(score))
    trained, tested = len(splits[0][0]), len(splits[0][1])
    gain = np.subtract(found["chainrule"]["scores"], found["network"]["scores"])
    low, high = corrected_interval(gain.tolist(), tested, trained)
    return {
        "data": name,
        "rows": len(x),
        "columns": x.shape[1],
        "score": "accuracy" if classes else "r2",
        "gain": {"value": float(gain.mean()), "low": low, "high": high},
        **found,
    }


def line(result):
    cells = [
        f"{result['data']} ({result['rows']} × {result['columns']}, {result['score'].replace('r2', 'R²')})"
    ]
    for model in ("chainrule", "network", "linear"):
        scores = result[model]["scores"]
        cells.append(f"{np.mean(scores):.4f} ± {np.std(scores, ddof=1):.3f}")
    gain = result["gain"]
    cells.append(f"{gain['value']:+.4f} ({gain['low']:+.4f} … {gain['high']:+.4f})")
    for model in ("chainrule", "network"):
        cells.append(f"{np.median(result[model]['seconds']):.2f} s")
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=(*REAL, MADE), default=REAL)
    parser.add_argument("--made", action="store_true", help=f"{MADE}, 5,000 rows, too")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", default="tables.json", help="where every score and time is written")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    versions = {name: metadata.version(name) for name in ("chainrule", "numpy", "scikit-learn", "pandas")}
    machine = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
    }
    print(", ".join(f"{name} {version}" for name, version in (versions | machine).items()))
    print(
        f"{arguments.folds} folds, {arguments.repeats} repeats, seed {arguments.seed}; mean ± deviation of the folds"
    )
    print()
    print("| data | chainrule | scikit-learn MLP | linear | chainrule − MLP (95 %) | fit: chainrule | MLP |")
    print("|---|---|---|---|---|---|---|")
    results = []
    for name in [*arguments.data, *([MADE] if arguments.made else [])]:
        results.append(measure(name, arguments.folds, arguments.repeats, arguments.seed))
        print(line(results[-1]), flush=True)
    record = {"versions": versions, "machine": machine, "folds": arguments.folds, "repeats": arguments.repeats,
              "seed": arguments.seed, "results": results}  # fmt: skip
    with open(arguments.json, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
    print(f"\nwritten: {arguments.json}")


if __name__ == "__main__":
    main()
