#!/usr/bin/env bash
# The built wheel in a virtual environment of its own, used as somebody would who has nothing else: a read-only
# working folder, no compiler on PATH, the C locale, no terminal, output into a pipe, files under a Korean path.
set -euo pipefail
wheel=$(readlink -f "$1")
place=$(mktemp -d)
trap 'chmod -R u+w "$place"; rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q "$wheel[tabular]"
mkdir -p "$place/읽기전용" "$place/한글 경로"
chmod a-w "$place/읽기전용"
cd "$place/읽기전용"
run() { env -i PATH="$place/venv/bin" HOME="$place" LANG=C TERM=dumb "$@"; }

# Through a pipe into a file: `grep -q` would close the pipe early, and pipefail would call that a failure.
run chainrule explain "sigmoid(w*x)" w=0.8 x=0.5 --loss bce --y 1 | cat >"$place/story.txt"
grep -q -- "-0.2006" "$place/story.txt"
run chainrule explain "sigmoid(w*x)" w=0.8 x=0.5 --lang ko --html "$place/한글 경로/그래프.html" | cat >/dev/null
test -s "$place/한글 경로/그래프.html"
run chainrule demo --out "$place/한글 경로/실행" | cat >"$place/demo.txt"
grep -qi "baseline" "$place/demo.txt"
run python -W error -c "import chainrule"
echo "the wheel works alone"
