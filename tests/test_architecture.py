"""The house keeps its order: levels, lazy imports, sizes, words, documentation, both languages."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "chainrule"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Each room imports only from rooms of lower levels, and from itself.
LEVELS = {
    "errors": 0, "dtypes": 0, "language": 0, "pytree": 0, "config": 0, "files": 0,
    "operations": 0, "elsewhere": 0, "blas": 0, "structure": 0, "locks": 0, "graph": 1,
    "ops": 2, "rewrite": 2,
    "autodiff": 3, "scans": 3.5,
    "tensor": 4, "iteration": 4.5,
    "functional": 5, "linalg": 5, "transforms": 5, "trace": 5, "compiler": 5, "backends": 5,
    "runtime": 6, "clipping": 6,
    "nn": 7, "optim": 7, "data": 7, "explain": 7,
    "train": 8,
    "cli": 9, "testing": 9,
}  # fmt: skip

# What may be imported inside a function: heavy or optional, and needed by some users only.
LAZY = {
    "llvmlite", "rich", "safetensors", "pandas", "sklearn", "charset_normalizer", "importlib",
}  # fmt: skip

# A module that is longer has to be split.
LONGEST_MODULE = 600


def room_of(path: Path) -> str:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def imports_of(path: Path) -> list[tuple[ast.AST, str]]:
    """(statement, absolute module name) of every import in a module."""
    package = ["chainrule", *path.relative_to(PACKAGE).parts[:-1]]
    found: list[tuple[ast.AST, str]] = []
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            found += [(statement, alias.name) for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            base = package[: len(package) - statement.level + 1] if statement.level else []
            name = ".".join([*base, *([statement.module] if statement.module else [])])
            found += [
                (statement, f"{name}.{alias.name}" if name == "chainrule" else name)
                for alias in statement.names
            ]
    return found


def test_every_room_has_a_level() -> None:
    rooms = {room_of(path) for path in MODULES} - {"__init__", "__main__"}
    assert rooms <= set(LEVELS), f"give these rooms a level: {sorted(rooms - set(LEVELS))}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_upward(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    for statement, name in imports_of(path):
        parts = name.split(".")
        if parts[0] != "chainrule":
            continue
        assert len(parts) > 1, f"{path.name}:{statement.lineno} imports the whole package"  # type: ignore[attr-defined]
        other = parts[1]
        if other == "__version__":
            continue
        allowed = other == room or LEVELS[other] < LEVELS[room] or (LEVELS[other] == LEVELS[room] == 0)
        assert allowed, (
            f"{path.relative_to(PACKAGE)}:{statement.lineno} imports {other} (level {LEVELS[other]}) "  # type: ignore[attr-defined]
            f"into {room} (level {LEVELS[room]})"
        )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_inside_functions_are_lazy_ones(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for statement in ast.walk(function):
            if isinstance(statement, ast.Import):
                names = [alias.name for alias in statement.names]
            elif isinstance(statement, ast.ImportFrom):
                names = [statement.module or "."] if not statement.level else ["."]
            else:
                continue
            for name in names:
                assert name.split(".")[0] in LAZY, (
                    f"{path.relative_to(PACKAGE)}:{statement.lineno} imports {name} inside a function"
                )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_are_small_and_say_what_they_know(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST_MODULE, f"{path.name} has grown too long: split it"
    assert ast.get_docstring(ast.parse(text)), f"{path.name} needs a docstring that says what it knows"


def test_importing_the_package_stays_light() -> None:
    code = (
        "import sys, chainrule; "
        "heavy = {'llvmlite', 'rich', 'pandas', 'sklearn', 'torch', 'jax', 'safetensors', 'threadpoolctl'}; "
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


_IMPORT_ALL_WITHOUT = """
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
import chainrule
for module in pkgutil.walk_packages(chainrule.__path__, "chainrule."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def test_every_module_is_imported_where_only_the_core_is_installed() -> None:
    """Rivals and extras are imported when they are used, so that collecting the doctests needs none of them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {one.split(">")[0] for one in project["dependencies"]}
    optional = {"torch", "jaxlib", "IPython", "matplotlib", "tqdm", "polars", "scipy"}
    optional |= {"sklearn", "PIL", "charset_normalizer", "pytest"}  # their names for pip are others
    for extra in project["optional-dependencies"].values():
        optional |= {one.split(">")[0] for one in extra if "chainrule" not in one} - core
    code = _IMPORT_ALL_WITHOUT.format(blocked=sorted(optional))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_project_speaks_of_itself_alone() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    words = re.compile(
        "(^|[^a-z.])/" + "(work|farm|root|home)/|" + "assist" + "ant|\\b(TO" + "DO|FIX" + "ME|XX" + "X)\\b"
    )
    for name in listed.stdout.split("\n"):
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".sh", ".js", ".css", ".txt") and path.is_file():
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                assert not words.search(line), f"{name}:{number}: {line.strip()}"


def test_public_names_are_documented() -> None:
    import chainrule

    for name in chainrule.__all__:
        thing = getattr(chainrule, name)
        if callable(thing) and not isinstance(thing, type) and thing is not chainrule.bool:
            assert thing.__doc__ and len(thing.__doc__) > 20, f"chainrule.{name} needs a docstring"
