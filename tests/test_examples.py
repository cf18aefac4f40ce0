"""The examples run, say what they measured, and come to a verdict; how good they are is told by their pages."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run_example(name):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py"), "--quick"],
        capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


first_run = functools.cache(run_example)


@pytest.mark.parametrize("name,needs,rivals", [
    ("digits_cnn", "sklearn", ["network", "3 neighbours", "support vectors"]),
    ("denoise_digits", "sklearn", ["noisy digits", "principal components", "network"]),
    ("forecast_series", "statsmodels", ["last value", "one season ago", "linear", "LSTM"]),
    ("character_model", "pydoc_data", ["unigrams", "bigrams", "lstm", "gpt"]),
])  # fmt: skip
def test_an_example_comes_to_its_verdict(name, needs, rivals):
    pytest.importorskip(needs)
    printed = first_run(name)
    for one in rivals:
        assert one in printed
    verdict = printed.strip().splitlines()[-1]
    assert verdict.startswith("Verdict: ") and re.search(r"\d", verdict)
    assert not re.search(r"\bnan\b", printed)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_has_a_page_with_its_command(path):
    page = (ROOT / "docs" / "examples" / f"{path.stem}.md").read_text(encoding="utf-8")
    assert f"python examples/{path.name}" in page and "Verdict: " in page


def test_the_same_seed_prints_the_same_numbers():
    pytest.importorskip("sklearn")
    one, other = (re.sub(r"\d+ s\.", "", run("denoise_digits")) for run in (first_run, run_example))
    assert one == other
