"""The cache of machine code beside other people and other files: what is not ours is neither run nor removed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler import available, cache, known, machine
from chainrule.errors import CompileError

pytestmark = [
    pytest.mark.skipif(not available(), reason="needs llvmlite"),
    pytest.mark.skipif(os.name != "posix", reason="needs owners, modes and links"),
]

ROOT = Path(__file__).resolve().parent.parent
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
STRANGER = 54321
KEY, CODE = cache.key_of("a module"), b"its code" * 40


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """A pipe without anybody at its other end must not hold us up for ever."""

    def late(*_: Any) -> None:
        raise TimeoutError("waited for a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user names."""
    named = tmp_path / "named"
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(named))
    monkeypatch.delenv("CHAINRULE_CACHE", raising=False)
    machine._natives.clear()
    return named


def compiled() -> list[float]:
    """One call of a step that was never compiled in this process."""
    machine._natives.clear()
    step = cr.compile(lambda x: cr.exp(x) * 1.25 - x)
    found: list[float] = step(cr.tensor(np.linspace(-1, 1, 37))).tolist()
    assert step._last.native is not None
    return found


def picture(*places: Path) -> dict[str, tuple[int, str, bytes]]:
    """All that is in folders: kinds and modes, where links lead, contents. Nothing is followed."""
    found = {}
    for place in places:
        for path in [place, *sorted(place.rglob("*"))]:
            status = path.lstat()
            link = os.readlink(path) if path.is_symlink() else ""
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            found[str(path)] = (status.st_mode, link, content)
    return found


# ------------------------------------------------------------------------------- what is not ours stays


def near(name: str, chance: random.Random) -> str:
    """A name that differs a little from one of ours."""
    k = chance.randrange(len(name))
    return chance.choice([
        "." + name, name + "~", name[1:], name.upper(), name + ".bak", name[:k] + "g" + name[k + 1 :], name[:-2],
        name[:-1] + "O", "0" + name, name + "\n", " " + name, name.replace(".", "-"), name[:k] + "é" + name[k:],
    ])  # fmt: skip


def strange_names(chance: random.Random) -> set[str]:
    """Names of all kinds of files that are not ours."""
    ours = [
        f"{chance.getrandbits(256):064x}.o",
        f"{chance.getrandbits(256):064x}.{chance.getrandbits(64):016x}.part",
    ]
    close = {near(name, chance) for name in ours for _ in range(8)}
    usual = {
        ".bashrc",
        ".ssh",
        ".k.0123456789abcdef",
        "thesis.tex",
        "data.bin",
        "a.o",
        "논문.hwp",
        ".git",
        "-rf",
        "*",
    }
    return {
        one for one in close | usual if not cache._CODE.fullmatch(one) and not cache._TEMPORARY.fullmatch(one)
    }


def scatter(folder: Path, aside: Path, chance: random.Random) -> None:
    """Put files, folders, links, pipes of a stranger into a folder: old ones, and larger than the cache may be."""
    folder.mkdir(parents=True, exist_ok=True)
    aside.mkdir(exist_ok=True)
    (aside / "target").write_bytes(b"precious")
    for name in strange_names(chance):
        path = folder / name
        match chance.randrange(6):
            case 0:
                path.mkdir()
                (path / f"{chance.getrandbits(256):064x}.o").write_bytes(bytes(3000))
            case 1:
                path.symlink_to(aside / "target")
            case 2:
                path.symlink_to(aside)
            case 3:
                os.mkfifo(path)
            case _:
                path.write_bytes(chance.randbytes(3000))
        if not path.is_symlink():
            os.utime(path, (1, 1))


@pytest.mark.parametrize("seed", range(8))
def test_files_of_others_survive_compiling_and_cutting(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(cache, "_LARGEST", 5000)
    aside = tmp_path / "aside"
    scatter(base, aside, chance)
    scatter(base / "code-v1", aside, chance)
    # Names like ours, of things that we do not make; and ours, where they do not belong.
    (base / f"{1:064x}.o").write_bytes(bytes(9000))
    (base / f"{1:064x}.{1:016x}.part").write_bytes(bytes(9000))
    (base / "code-v1" / f"{2:064x}.o").symlink_to(aside / "target")
    (base / "code-v1" / f"{3:064x}.o").mkdir()
    os.mkfifo(base / "code-v1" / f"{4:064x}.{4:016x}.part")
    os.utime(base / f"{1:064x}.{1:016x}.part", (1, 1))
    for place in (base, base / "code-v1"):
        place.chmod(0o755)
    before = picture(base, aside)
    for number in range(12):
        cache.store(cache.key_of(str(number)), bytes(2000))
    compiled()
    after = picture(base, aside)
    assert {path: after.get(path) for path in before} == before
    ours = {Path(path).name for path in after if path not in before}
    assert ours and all(cache._CODE.fullmatch(one) for one in ours)


def test_the_home_folder_as_the_cache(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scatter(base, base.parent / "aside", random.Random(0))
    before = picture(base)
    monkeypatch.setattr(cache, "_LARGEST", 100)
    compiled()
    del before[str(base)]  # its times
    after = picture(base)
    assert {path: after.get(path) for path in before} == before
    assert {path for path in after if path not in before and Path(path).parent == base} == {
        str(base / "code-v1")
    }


# ------------------------------------------------------------------------------- what is not ours is not run


def own(path: Path, user: int = STRANGER) -> None:
    os.chown(path, user, -1, follow_symlinks=False)


def as_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def as_second_name(path: Path) -> None:
    os.link(path, path.with_name("second"))


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_link_to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def as_socket(path: Path) -> None:
    path.unlink()
    before = os.getcwd()
    os.chdir(path.parent)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(before)


def as_device(path: Path) -> None:
    path.unlink()
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # zeros without end
    except OSError:
        pytest.skip("no devices can be made here")


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nothing"))


def as_of_group(path: Path) -> None:
    path.chmod(path.stat().st_mode | stat.S_IWGRP)


def as_of_all(path: Path) -> None:
    path.chmod(path.stat().st_mode | stat.S_IWOTH)


FILES: list[Callable[[Path], None]] = [
    as_link, as_second_name, as_pipe, as_link_to_pipe, as_socket, as_device, as_folder, as_dangling_link, as_of_group,
    as_of_all, own,
]  # fmt: skip


@pytest.mark.parametrize("change", FILES, ids=lambda one: one.__name__)
def test_a_file_that_is_not_surely_ours_is_not_read(base: Path, change: Callable[[Path], None]) -> None:
    if change is own and not IS_ROOT:
        pytest.skip("only root may give files away")
    cache.store(KEY, CODE)
    assert cache.load(KEY) == CODE
    path = base / "code-v1" / f"{KEY}.o"
    change(path)
    beside = {one: one.lstat().st_mode for one in path.parent.iterdir() if one != path}
    assert cache.load(KEY) is None
    cache.store(KEY, CODE)
    if change is as_folder:
        assert cache.load(KEY) is None and path.is_dir()
    else:
        assert cache.load(KEY) == CODE, "it is replaced by one of our own"
    assert {one: one.lstat().st_mode for one in path.parent.iterdir() if one != path} == beside


def test_files_of_another_user(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, for those who are not root."""
    cache.store(KEY, CODE)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert cache.load(KEY) is None
    before = picture(base)
    cache.store(KEY, CODE[1:])
    assert picture(base) == before


def outer(base: Path) -> Path:
    return base


def inner(base: Path) -> Path:
    return base / "code-v1"


def swap_for_file(place: Path) -> None:
    shutil.rmtree(place)
    place.write_bytes(b"no folder")


def swap_for_pipe(place: Path) -> None:
    shutil.rmtree(place)
    os.mkfifo(place)


def swap_for_own_link(place: Path) -> None:
    place.rename(place.with_name("moved"))
    place.symlink_to("moved")


def swap_for_link_of_another(place: Path) -> None:
    swap_for_own_link(place)
    own(place)


FOLDERS: list[Callable[[Path], None]] = [
    as_of_group, as_of_all, own, swap_for_file, swap_for_pipe, swap_for_own_link, swap_for_link_of_another,
]  # fmt: skip


@pytest.mark.parametrize("which", [outer, inner], ids=lambda one: one.__name__)
@pytest.mark.parametrize("change", FOLDERS, ids=lambda one: one.__name__)
def test_a_folder_that_others_may_write_is_not_used(
    base: Path, tmp_path: Path, which: Callable[[Path], Path], change: Callable[[Path], None]
) -> None:
    if change in (own, swap_for_link_of_another) and not IS_ROOT:
        pytest.skip("only root may give files away")
    wanted = compiled()
    cache.store(KEY, CODE)
    change(which(base))
    before = picture(tmp_path)
    if which is outer and change is swap_for_own_link:
        assert cache.load(KEY) == CODE, "the user's own link, to a larger disk"
        return
    assert cache.load(KEY) is None
    cache.store(KEY, CODE[1:])
    assert compiled() == wanted
    assert picture(tmp_path) == before, "nothing is written there either"


@contextlib.contextmanager
def as_user(user: int) -> Iterator[None]:
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that other users can reach, which those of pytest are not."""
    place = Path(tempfile.mkdtemp(prefix="chainrule-test-"))
    place.chmod(0o755)
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(place / "cache"))
    monkeypatch.delenv("CHAINRULE_CACHE", raising=False)
    yield place
    shutil.rmtree(place)


@pytest.mark.skipif(not IS_ROOT, reason="only root may be several users")
@pytest.mark.parametrize("mode", [0o755, 0o775, 0o777, 0o1777])
def test_two_users_with_one_folder_do_not_run_each_others_code(open_place: Path, mode: int) -> None:
    wanted = compiled()
    folder = open_place / "cache"
    folder.chmod(mode)
    with as_user(STRANGER):
        assert cache.load(KEY) is None
        cache.store(KEY, CODE)
        assert cache.load(KEY) is None and compiled() == wanted
        with contextlib.suppress(OSError):
            (folder / f"{KEY}.o").write_bytes(CODE)
    assert cache.load(KEY) is None and compiled() == wanted


@pytest.mark.skipif(not IS_ROOT, reason="only root may be several users")
def test_a_folder_that_may_be_read_only(open_place: Path) -> None:
    folder = open_place / "cache" / "code-v1"
    own(open_place)
    with as_user(STRANGER):
        wanted = compiled()
        cache.store(KEY, CODE)
        folder.chmod(0o500)
        before = picture(folder)
        cache.store(cache.key_of("another"), CODE)
        assert cache.load(KEY) == CODE and compiled() == wanted
        assert picture(folder) == before
        folder.chmod(0o700)


# ------------------------------------------------------------------------------- poison


def other_code() -> bytes:
    """Code of another step, as LLVM made it."""
    return machine._compiled("define i32 @another(ptr %table) {\n  ret i32 0\n}\n")


POISONS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda code: b"",
    "a word": lambda code: b"not code",
    "zeros": lambda code: bytes(len(code)),
    "half": lambda code: code[: len(code) // 2],
    "its beginning": lambda code: code[:64],
    "another's code": lambda code: other_code(),
    "a list": lambda code: b"[]",
    "an empty record": lambda code: b"{}",
    "a record": lambda code: (
        b'{"entry": 1, "code": 2, "arena": "x", "scratch": [], "shares": 0, "libraries": {}}'
    ),
    "deep": lambda code: b"[" * 100_000,
    "no text": lambda code: b"\xff\xfe" * 50,
}


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("which", ["code", "note"])
def test_a_file_with_a_right_checksum_of_something_else(base: Path, poison: str, which: str) -> None:
    wanted = compiled()
    files = sorted((base / "code-v1").iterdir(), key=lambda file: file.stat().st_size)
    code, note = files[-1], files[0]
    key = (code if which == "code" else note).name.removesuffix(".o")
    content = cache.load(key)
    assert content is not None
    cache.store(key, POISONS[poison](content))
    assert compiled() == wanted


@pytest.mark.parametrize("field,value", [
    ("arena", -1), ("arena", 1.5), ("arena", True), ("scratch", "0"), ("entry", None), ("code", 3),
    ("code", "../../x"), ("libraries", [1]), ("libraries", ["a b"]), ("shares", "yes"),
])  # fmt: skip
def test_a_note_of_something_else(base: Path, field: str, value: Any) -> None:
    wanted = compiled()
    note = min((base / "code-v1").iterdir(), key=lambda file: file.stat().st_size)
    key = note.name.removesuffix(".o")
    content = cache.load(key)
    assert content is not None
    cache.store(key, json.dumps({**json.loads(content), field: value}).encode())
    assert compiled() == wanted


def test_a_note_of_another_entry_is_an_error(base: Path) -> None:
    """What was compiled and what was noted contradict each other: neither is run."""
    compiled()
    note = min((base / "code-v1").iterdir(), key=lambda file: file.stat().st_size)
    key = note.name.removesuffix(".o")
    content = cache.load(key)
    assert content is not None
    cache.store(key, json.dumps({**json.loads(content), "entry": "another"}).encode())
    with pytest.raises(CompileError, match=r"kept under another; .* Set CHAINRULE_CACHE=0"):
        compiled()


@pytest.mark.skipif(not IS_ROOT, reason="only root may mount")
def test_a_disk_that_is_really_full(base: Path) -> None:
    wanted = compiled()
    shutil.rmtree(base)
    base.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", base], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not allow mounting")
    try:
        (base / "thesis.tex").write_bytes(b"mine")
        with contextlib.suppress(OSError), open(base / "filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        before = picture(base)
        assert compiled() == wanted
        after = picture(base)
        assert all(after[path] == one for path, one in before.items())
        assert not [path for path in after if path.endswith(".part")]
        (base / "filler").unlink()
        assert compiled() == wanted and len(list((base / "code-v1").glob("*.o"))) == 2
    finally:
        subprocess.run(["umount", base], check=True)


# ------------------------------------------------------------------------------- paths that are none


@pytest.mark.parametrize("named", ["cache", "./cache", "../cache", "~/cache", "."])
def test_a_relative_folder_is_ignored_and_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", named)
    monkeypatch.setattr(cache, "_REPORTED", set())
    with pytest.warns(RuntimeWarning, match="CHAINRULE_CACHE_DIR must be an absolute path; got '") as caught:
        assert cache.folder() == tmp_path / "xdg/chainrule/code-v1"
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.store(KEY, CODE)
        assert cache.load(KEY) == CODE
    assert os.listdir(tmp_path) == ["xdg"]


@pytest.mark.parametrize(
    "name,home", [("XDG_CACHE_HOME", None), ("HOME", "somewhere"), ("LOCALAPPDATA", None)]
)
def test_relative_folders_of_the_system_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, home: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    for one in ("CHAINRULE_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(one, raising=False)
    monkeypatch.setattr(sys, "platform", "win32" if name == "LOCALAPPDATA" else "linux")
    monkeypatch.setenv("HOME", home or str(tmp_path / "home"))
    if home is None:
        monkeypatch.setenv(name, "relative")
    expected = tmp_path / "home/.cache/chainrule/code-v1" if name == "XDG_CACHE_HOME" else None
    assert cache.folder() == expected
    monkeypatch.setattr(sys, "platform", "linux")
    cache.store(KEY, CODE)
    assert not (tmp_path / "relative").exists() and not (tmp_path / "somewhere").exists()


# ------------------------------------------------------------------------------- code of other sources


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of this package."""
    place = tmp_path / "source" / "chainrule"
    shutil.copytree(ROOT / "src" / "chainrule", place, ignore=shutil.ignore_patterns("__pycache__"))
    return place


def quietly_changed(path: Path, text: str) -> None:
    """Other content of equal size and time."""
    status, content = path.stat(), path.read_bytes()
    other = content[: -len(text)] + text.encode()
    assert len(other) == len(content) and other != content
    path.write_bytes(other)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "name", ["__init__.py", "graph.py", "ops/linear.py", "compiler/llvm.py", "compiler/known.py"]
)
def test_sources_are_told_apart_by_their_content(
    copy: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(known, "__file__", str(copy / "compiler" / "known.py"))
    monkeypatch.setattr(known, "_LOADED", 2**62)
    sources = known._sources.__wrapped__
    before = sources()
    os.utime(copy / name)  # only the time
    assert sources() == before
    content = (copy / name).read_bytes()
    quietly_changed(copy / name, "#\n")
    assert sources() != before
    (copy / name).write_bytes(content)
    assert sources() == before
    (copy / name).rename(copy / name.replace(".py", "_2.py"))
    if name.endswith("known.py"):  # a package of bytecode alone
        with pytest.raises(known._CannotTell):
            sources()
    else:
        assert sources() != before


def test_sources_that_changed_after_they_were_loaded_tell_nothing(
    copy: Path, monkeypatch: pytest.MonkeyPatch, base: Path
) -> None:
    monkeypatch.setattr(known, "__file__", str(copy / "compiler" / "known.py"))
    known._sources.cache_clear()
    try:
        wanted = compiled()
        assert compiled() == wanted
        assert len(list((base / "code-v1").iterdir())) == 1, "the code, whose text is its name, and no note"
    finally:
        known._sources.cache_clear()


def test_code_of_a_changed_package_is_not_run(copy: Path, tmp_path: Path, base: Path) -> None:
    """The change that was overlooked: equal size, equal time, another number in a rule."""
    rule = copy / "ops" / "elementwise.py"
    program = (
        "import chainrule as cr; print(cr.compile(lambda x: cr.relu(x) * 2)(cr.tensor([-1.0, 3.0])).tolist())"
    )

    def run() -> str:
        environment = {**os.environ, "PYTHONPATH": str(copy.parent), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
        )
        return done.stdout

    def notes() -> int:
        return len(list((base / "code-v1").iterdir()))

    assert run() == run() == "[-0.0, 6.0]\n" or run() == "[0.0, 6.0]\n"
    before = notes()
    quietly_changed(rule, "#\n")
    run()
    assert notes() == before + 1, "the same code, under a new note"
