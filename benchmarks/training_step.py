"""The measurements of docs/speed.md: every workload against every rival, growth, scikit-learn's network.

    python benchmarks/training_step.py                        # all of it, into benchmarks/results/ (about 25 minutes)
    python benchmarks/training_step.py --only growth          # a part of it
    python benchmarks/training_step.py --docs                 # write the page from the kept results

What is measured is what `chainrule bench` measures. Needs torch, jax and scikit-learn; who is missing is reported.
Run it when nothing else runs: what others take is measured too, and spoilt measurements are marked.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from chainrule.cli import main as chainrule
from chainrule.cli.bench import page
from chainrule.cli.bench.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "speed.md"

DENSE = [name for name in WORKLOADS if name.startswith(("mlp", "odd"))]
PARTS = {
    "training_step": [*DENSE, "--torch-compile", "--epoch"],
    "networks": [*(name for name in WORKLOADS if name not in DENSE), "--epoch"],
    "growth": ["--growth", "all"],
    "sklearn": ["--sklearn"],
}


def records() -> dict[str, dict[str, object]]:
    """The kept results by name."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(RESULTS.glob("*.json"))
        if path.stem in PARTS
    }


def main() -> int:
    """Measure and keep, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--quick", action="store_true", help="a few samples, to see that all works")
    parser.add_argument(
        "--docs", action="store_true", help=f"only write {PAGE.relative_to(ROOT)} from what is kept"
    )
    arguments = parser.parse_args()
    code = 0
    if not arguments.docs:
        RESULTS.mkdir(exist_ok=True)
        for name in [arguments.only] if arguments.only else PARTS:
            place = RESULTS / f"{name}.json"
            quick = ["--quick"] if arguments.quick else []
            code = max(code, chainrule(["bench", *PARTS[name], *quick, "--out", str(place)]))
    text = page.updated(PAGE.read_text(encoding="utf-8"), records())
    PAGE.write_text(text, encoding="utf-8")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
