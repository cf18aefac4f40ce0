"""Lines of code by room: lines that hold a token, without comments and docstrings.

python benchmarks/sizes.py
"""

from __future__ import annotations

import io
import tokenize
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "chainrule"
_SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(source: str) -> int:
    """Lines with at least one token that is no comment and no docstring."""
    lines: set[int] = set()
    opening = True  # a string at the start of a logical line is a docstring
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _SILENT:
            opening = opening or token.type == tokenize.NEWLINE
            continue
        if not (token.type == tokenize.STRING and opening):
            lines.update(range(token.start[0], token.end[0] + 1))
        opening = False
    return len(lines)


def rooms() -> dict[str, tuple[int, int]]:
    """(code lines, modules) of every room: a folder of the package, or a module that stands alone."""
    lines: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        room = f"{inside.parts[0]}/" if len(inside.parts) > 1 else inside.name
        lines[room] += code_lines(path.read_text(encoding="utf-8"))
        modules[room] += 1
    return {room: (lines[room], modules[room]) for room in lines}


def main() -> None:
    """Print the table."""
    table = rooms()
    for room, (lines, modules) in sorted(table.items(), key=lambda item: -item[1][0]):
        print(f"{room:<16} {lines:>6} lines  {modules:>3} module{'s' if modules > 1 else ''}")
    print(f"{'all':<16} {sum(lines for lines, _ in table.values()):>6} lines")


if __name__ == "__main__":
    main()
