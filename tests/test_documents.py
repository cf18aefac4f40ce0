"""The documents tell the truth: their Python blocks run, and what they show is what is printed.

A ```python block runs in the namespace of its document; a ```text block right after it is what it prints.
In a ```console block every `$ chainrule …` line is run and must print what follows it. After the comment
`<!-- numbers vary -->` digits are not compared: times and scores differ between machines.
Run with UPDATE_DOCUMENTS=1 to write the present output into the documents.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import chainrule as cr

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ["README.md", "README.ko.md", "ARCHITECTURE.md", *sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")
)]  # fmt: skip
UPDATE = os.environ.get("UPDATE_DOCUMENTS") == "1"


class Block(NamedTuple):
    kind: str
    text: str
    start: int  # of the text, in the document
    line: int
    varies: bool
    adjacent: bool  # only blank space since the block before


def blocks_of(document: str) -> list[Block]:
    found: list[Block] = []
    end = 0
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", document, re.MULTILINE | re.DOTALL):
        between = document[end : match.start()]
        found.append(
            Block(
                match[1], match[2], match.start(2), document.count("\n", 0, match.start(2)) + 1,
                "<!-- numbers vary -->" in between, not between.replace("<!-- numbers vary -->", "").strip(),
            )
        )  # fmt: skip
        end = match.end()
    return found


def masked(text: str, varies: bool) -> str:
    """The text as it is compared: without trailing spaces.

    Where numbers vary, digits are masked, lines that then repeat (one for each epoch) count once, and the line that
    says after which epoch training ended is left out: rounding may end it earlier on another processor.
    """
    lines = [line.rstrip() for line in text.strip().splitlines()]
    if not varies:
        return "\n".join(lines)
    kept: list[str] = []
    for line in lines:
        plain = re.sub(r"\s+", " ", re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", "#", line))
        if (not kept or plain != kept[-1]) and not plain.startswith(
            ("Training all", "Training stopped", "학습 ")
        ):
            kept.append(plain)
    return "\n".join(kept)


def run_command(command: str, folder: Path) -> str:
    words = shlex.split(command)
    assert words[0] == "chainrule", f"documents run chainrule only, not {words[0]}"
    environment = {
        **os.environ,
        "PYTHONIOENCODING": "utf-8",
        "COLUMNS": "110",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
    }
    done = subprocess.run(
        [sys.executable, "-m", "chainrule.cli", *words[1:]],
        cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def console(block: Block, folder: Path) -> str:
    """The block with the output that its commands print now."""
    written = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            written += [
                line,
                *(out.rstrip() for out in run_command(line[2:], folder).strip("\n").splitlines()),
            ]
    return "\n".join(written) + "\n"


_NEEDS_JAX = {"docs/jax.md"}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.jax] if name in _NEEDS_JAX else []) for name in DOCUMENTS
])  # fmt: skip
def test_document(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = (ROOT / name).read_text(encoding="utf-8")
    cr.rescues(reset=True)  # of the tests before
    for file in (ROOT / "docs" / "data").glob("*") if (ROOT / "docs" / "data").exists() else ():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    namespace: dict[str, object] = {"__name__": "__main__"}
    replacements: list[tuple[Block, str]] = []
    printed: str | None = None
    for block in blocks_of(document):
        if block.kind == "python":
            out = io.StringIO()
            file = tmp_path / "example.py"
            file.write_text("\n" * 0 + block.text, encoding="utf-8")
            with contextlib.redirect_stdout(out):
                exec(compile(block.text, "example.py", "exec"), namespace)
            printed = out.getvalue()
            continue
        if block.kind == "text" and printed is not None and block.adjacent:
            replacements.append((block, printed))
        elif block.kind == "console":
            replacements.append((block, console(block, tmp_path)))
        printed = None
    for block, now in replacements:
        if not UPDATE:
            assert masked(block.text, block.varies) == masked(now, block.varies), f"{name}:{block.line}"
    if UPDATE:
        for block, now in reversed(replacements):
            document = (
                document[: block.start]
                + "\n".join(line.rstrip() for line in now.strip("\n").splitlines())
                + "\n"
                + document[block.start + len(block.text) :]
            )
        (ROOT / name).write_text(document, encoding="utf-8")


def test_both_readmes_show_the_same_commands() -> None:
    english, korean = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md"))
    assert re.findall(r"^```sh\n(.*?)^```", english, re.M | re.S) == re.findall(
        r"^```sh\n(.*?)^```", korean, re.M | re.S
    )


def test_the_names_that_the_page_for_pytorch_users_lists_exist() -> None:
    """Every `nn.X`, `F.X`, `optim.X`, `data.X`, `cr.X` of the table is there, and nothing public is left out."""
    page = (ROOT / "docs" / "coming-from-pytorch.md").read_text(encoding="utf-8")
    table = page.split("## What exists")[1].split("## ")[0]
    named = set(re.findall(r"`((?:nn|F|optim|data|cr)[.][\w.]+)`", table))
    assert len(named) > 50
    for name in named:
        found: object = cr
        for part in name.removeprefix("cr.").replace("F.", "functional.").split("."):
            found = getattr(found, part)
    public = {f"nn.{name}" for name in cr.nn.__all__ if name not in ("init", "utils")}
    public |= {f"F.{name}" for name in cr.functional.__all__}
    public |= {f"data.{name}" for name in cr.data.__all__}
    public |= {f"optim.{name}" for name in cr.optim.__all__ if name[0].isupper() and name != "Optimizer"}
    public |= {f"optim.lr_scheduler.{name}" for name in cr.optim.lr_scheduler.__all__}
    left_out = public - named - {"optim.ParameterGroup", "optim.lr_scheduler.LRScheduler"}
    # What loaders and runs are made of: PyTorch has nothing in their place.
    made_of = ("ArraySource", "Batch", "ImageFormat", "IterableSource", "Source")
    left_out -= {f"data.{name}" for name in made_of}
    assert not left_out
