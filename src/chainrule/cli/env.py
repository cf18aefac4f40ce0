"""`chainrule env`: what is installed here and which processor it runs on, for bug reports."""

from __future__ import annotations

import argparse
import json
import platform
from importlib import metadata
from pathlib import Path

from ..language import sentence
from ..runtime.threads import usable_cpus
from .usage import Parser

_REQUIRED = ("numpy", "llvmlite", "rich", "safetensors")
_EXTRAS = {"tabular": ("pandas", "scikit-learn", "charset-normalizer"), "jax": ("jax",)}


def add_arguments(parser: Parser) -> None:
    """The options of `chainrule env`."""
    parser.add("--json", about="json", action="store_true")
    parser.epilog = parser.say("option.plain_codes")


def run(arguments: argparse.Namespace) -> int:
    """Print the facts and return 0."""
    facts = gather()
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return 0
    absent = sentence("cli.not_installed", arguments.lang)
    rows = [(name, str(facts[name])) for name in ("chainrule", "python", "system", "processor", "threads")]
    packages = facts["packages"]
    assert isinstance(packages, dict)
    rows += [(name, version or absent) for name, version in packages.items()]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    return 0


def gather() -> dict[str, object]:
    """Versions by name; None for what is not installed."""
    names = [*_REQUIRED, *(one for group in _EXTRAS.values() for one in group)]
    return {
        "chainrule": version_of("chainrule"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "threads": usable_cpus(),
        "packages": {name: version_of(name) for name in names},
        "extras": {extra: all(version_of(one) for one in group) for extra, group in _EXTRAS.items()},
    }


def version_of(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
