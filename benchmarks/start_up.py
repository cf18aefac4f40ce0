"""Import time against NumPy's, and what an installation weighs.

python benchmarks/start_up.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ("chainrule", "numpy", "llvmlite", "rich", "safetensors", "markdown-it-py", "mdurl", "pygments")


def import_seconds(module: str, rounds: int) -> list[float]:
    """Wall time of a fresh interpreter that imports `module`, less that of one that imports nothing."""
    # As installed: with byte code written, which a first run takes care of.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times = []
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, env=environment)
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True, env=environment)
        bare = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True, env=environment)
        times.append((time.perf_counter() - bare) - (bare - start))
    return times


def installed_megabytes(package: str) -> float:
    """Size on disk of an installed distribution's own files, without byte code."""
    files = importlib.metadata.files(package) or []
    paths = {Path(str(one.locate())).resolve() for one in files if not str(one).endswith(".pyc")}
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    medians = {}
    for module in ("numpy", "chainrule"):
        times = import_seconds(module, rounds)
        medians[module] = statistics.median(times)
        print(f"import {module:<10} {medians[module]:.3f} s  ({min(times):.3f} to {max(times):.3f})")
    bound = 1.3 * medians["numpy"] + 0.1
    print(f"aim: 1.3 x NumPy's + 0.1 s = {bound:.3f} s")
    total = 0.0
    for package in PACKAGES:
        try:
            size = installed_megabytes(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        total += size
        print(f"{package:<16} {size:8.1f} MB")
    print(f"{'all':<16} {total:8.1f} MB")


if __name__ == "__main__":
    main()
