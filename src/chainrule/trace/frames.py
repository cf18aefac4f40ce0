"""What the user's code names, which of it runs while a function is traced, and what it must not call.

Names are read from the instructions of code. A profile function sees every call: of a frame of Python it learns the
code, of a C function its name. That makes a trace ten times as slow, so large steps are observed only where their code
names something that is no computation. Code of this package is passed over; of the standard library only the names
count, because what it keeps for itself is no state.
Knows code objects and frames; knows nothing of tensors and graphs.
"""

from __future__ import annotations

import contextlib
import dis
import io
import os
import random
import socket
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import numpy as np

from ..errors import PACKAGE_FOLDER, Origin, find_origin

_STDLIB = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")})
# Libraries whose own variables are no state of a step, and too many to look at.
_NUMERIC = (
    "numpy", "jax", "jaxlib", "llvmlite", "scipy", "rich", "safetensors", "threadpoolctl", "ml_dtypes", "torch",
    "pandas", "polars", "pyarrow", "sklearn", "statsmodels", "matplotlib", "PIL", "IPython", "pytest", "_pytest",
    "pluggy", "hypothesis", "sympy", "numba", "h5py", "xarray", "networkx", "tensorflow", "torchvision", "tqdm",
)  # fmt: skip
_SITE = tuple({sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib")})
# Modules that read files for the sake of messages, and the machinery of tests and debuggers.
_SILENT = (
    "warnings.py",
    "linecache.py",
    "traceback.py",
    "tokenize.py",
    "inspect.py",
    "dis.py",
    "contextlib.py",
)

# Modules of the standard library that came with the interpreter itself, and only compute.
_MACHINERY = ("<frozen importlib", "<frozen zipimport", "<frozen abc", "<frozen codecs", "<frozen runpy")

_LOADS = {"LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR", "LOAD_SUPER_ATTR", "IMPORT_FROM"}
_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}
_VARIABLES = {
    "LOAD_DEREF",
    "LOAD_CLASSDEREF",
    "LOAD_FAST",
    "LOAD_FAST_CHECK",
    "LOAD_FAST_BORROW",
    "LOAD_CLOSURE",
}
_GROWING = {"append", "extend"}
# With one of these a name can be made up while the code runs; where it is written out, that is seen.
_BY_NAME = {"getattr", "setattr", "delattr", "hasattr"}
_DYNAMIC = {"vars", "dir", "attrgetter", "asdict", "astuple", "__dict__"}
_WHOLE_NAMESPACE = {"globals", "locals", "eval", "exec"}


class Names(NamedTuple):
    """What a piece of code names.

    attributes: of whatever object. variables: of its module. dynamic: it can name attributes that stand nowhere.
    namespace: it can name variables that stand nowhere. growing: names that it only ever appends to; reading: those
    that it uses in other ways.
    """

    attributes: frozenset[str]
    variables: frozenset[str]
    dynamic: bool
    namespace: bool
    growing: frozenset[str]
    reading: frozenset[str]


def names_of(code: CodeType) -> Names:
    """What the code names, read from its instructions."""
    attributes, variables, growing, reading = set[str](), set[str](), set[str](), set[str]()
    instructions = [
        one for one in dis.get_instructions(code) if one.opname not in ("CACHE", "PRECALL", "PUSH_NULL")
    ]
    for here, after in zip(instructions, [*instructions[1:], None]):
        name = here.argval
        if not isinstance(name, str):
            continue
        if here.opname in _LOADS:
            attributes.add(name)
        elif here.opname in _GLOBALS:
            variables.add(name)
        elif here.opname not in _VARIABLES:
            continue
        grows = (
            after is not None and after.opname in ("LOAD_ATTR", "LOAD_METHOD") and after.argval in _GROWING
        )
        (growing if grows else reading).add(name)
    dynamic = not _DYNAMIC.isdisjoint(attributes | variables) or any(
        one.opname in _GLOBALS and one.argval in _BY_NAME and not _spelt(instructions[k + 1 :])
        for k, one in enumerate(instructions)
    )
    texts = {one for one in code.co_consts if isinstance(one, str) and one.isidentifier()}
    texts |= {
        one for part in code.co_consts if isinstance(part, tuple) for one in part if isinstance(one, str)
    }
    namespace = not _WHOLE_NAMESPACE.isdisjoint(variables)
    return Names(
        frozenset(attributes | texts),
        frozenset(variables),
        dynamic,
        namespace,
        frozenset(growing),
        frozenset(reading),
    )


def _spelt(after: list[dis.Instruction]) -> bool:
    """Whether the second argument of getattr stands in the code: behind one variable and its attributes."""
    for k, one in enumerate(after):
        if one.opname == "LOAD_CONST":
            then = [other.opname for other in after[k + 1 : k + 3]]
            called = then[:1] == ["CALL"] or (then[-1:] == ["CALL"] and then[0].startswith("LOAD_"))
            return k > 0 and called and isinstance(one.argval, str)
        if one.opname not in _VARIABLES | _GLOBALS | {"LOAD_ATTR"}:
            return False
    return False


_names: dict[CodeType, Names] = {}


def known_names(code: CodeType) -> Names:
    """The same, read once."""
    found = _names.get(code)
    if found is None:
        if len(_names) > 4096:
            _names.clear()
        found = _names[code] = names_of(code)
    return found


def is_user_file(file: str) -> bool:
    """Whether code of this file keeps state of the user's: not this package's, the standard library's or NumPy's."""
    if file.startswith((PACKAGE_FOLDER, "<frozen ")):
        return False
    for folder in _SITE:
        if file.startswith(folder):
            return file[len(folder) :].partition(os.sep)[0] not in _NUMERIC
    return not file.startswith(_STDLIB) or "site-packages" in file


def is_user_code(code: CodeType, space: Mapping[str, Any]) -> bool:
    """The same of a piece of code and its variables: dataclasses and named tuples have functions without a file."""
    if code.co_filename != "<string>":
        return is_user_file(code.co_filename)
    name = space.get("__name__", "__main__")
    return not str(name).startswith("namedtuple_") and is_user_module(name)


def is_user_module(name: str | None) -> bool:
    """Whether a module's objects are the user's: not those of this package, the standard library or NumPy."""
    if name is None:
        return False
    if not isinstance(name, str):  # a class whose objects say so themselves
        return True
    top = name.partition(".")[0]
    return top not in _NUMERIC and top != __name__.partition(".")[0] and top not in sys.stdlib_module_names


def is_own_module(name: str | None) -> bool:
    """Whether a module belongs to this package or to a library of numbers, whose objects look after themselves."""
    top = name.partition(".")[0] if isinstance(name, str) else ""
    return top in _NUMERIC or top == __name__.partition(".")[0]


class Impurity(NamedTuple):
    """Something that a graph cannot do again: what, where, and what to do instead; whether it cannot be taken back."""

    what: str
    origin: Origin | None
    cure: str
    moves_on: bool


class Observer:
    """Watches one run of a function. `enter` is called with each new code of the user's, before it runs."""

    def __init__(self, enter: Callable[[FrameType, Names, bool], None]) -> None:
        self.impurities: list[Impurity] = []
        self._enter = enter
        # By identity, because a code's hash is computed anew each time; the codes are held so that it stays theirs.
        self._kinds: dict[int, int] = {}
        self._codes: list[CodeType] = []

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            if id(frame.f_code) not in self._kinds:
                self._meet(frame)
        elif event == "c_call":
            kind = self._kinds.get(id(frame.f_code))
            if kind is None:
                kind = self._meet(frame)
            if kind:
                self._check(frame, argument)

    def _meet(self, frame: FrameType) -> int:
        code = frame.f_code
        file = code.co_filename
        kind = 0
        if not file.startswith((PACKAGE_FOLDER, *_MACHINERY)) and not file.endswith(_SILENT):
            kind = 2 if is_user_code(code, frame.f_globals) else 1
        self._kinds[id(code)] = kind
        self._codes.append(code)
        if kind:
            self._enter(frame, known_names(code), kind == 2)
        return kind

    def _check(self, frame: FrameType, function: Any) -> None:
        found = _impure(function)
        if found is not None:
            origin = find_origin_of(frame)
            owner = getattr(function, "__self__", None)
            moves_on = found[1] is _OUTSIDE or function is input or isinstance(owner, socket.socket)
            self.impurities.append(Impurity(found[0], origin, found[1], moves_on))

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """In this thread. A profiler that is at work is stopped meanwhile, and goes on afterwards."""
        outer = sys.getprofile()
        sys.setprofile(self._note)
        try:
            yield
        finally:
            if outer is None or callable(outer):
                sys.setprofile(outer)
            else:  # cProfile's object, which is no function
                sys.setprofile(None)
                outer.enable()


@contextlib.contextmanager
def finding(changed: Callable[[], bool], found: list[Origin]) -> Iterator[None]:
    """Find the line of the user's that makes `changed` true: the last one that began before it was."""
    last: list[Origin] = []

    def step(frame: FrameType, event: str, argument: Any) -> Any:
        if not found and last and changed():
            found.append(last[0])
        last[:] = [Origin(frame.f_code, frame.f_lasti)]
        return step

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        return step(frame, event, argument) and step if is_user_file(frame.f_code.co_filename) else None

    outer = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(outer)
        if not found and last and changed():
            found.append(last[0])


def find_origin_of(frame: FrameType | None) -> Origin | None:
    """The user's own line that a frame was reached from."""
    while frame is not None:
        if is_user_file(frame.f_code.co_filename):
            return Origin(frame.f_code, frame.f_lasti)
        frame = frame.f_back
    return find_origin(1)


# ------------------------------------------------------------------------------------ what is no computation

_CLOCK = "Read it before the step and pass it as an argument"
_RANDOM = "Use chainrule's random functions, or draw before the step and pass the numbers as an argument"
_OUTSIDE = "Do it before the step or behind it, with what the step returns"
# What asks for no state that can change, or changes what is compared at each call.
_OF_THE_PROCESS = {"fspath", "getpid", "_path_normpath", "putenv", "unsetenv", "cpu_count"}
# Modules whose objects, written in C, are compared, only compute, or are refused by other rules.
_IN_C = {
    "builtins", "collections", "re", "_sre", "decimal", "fractions", "datetime", "array", "itertools", "functools",
    "operator", "_operator", "weakref", "_weakref", "_weakrefset", "_thread", "threading", "contextvars",
    "_contextvars", "_struct", "struct", "types", "typing", "math", "random", "_random", "_io", "io", "abc", "_abc",
    "ctypes", "_ctypes", "enum", "uuid", "ast", "_ast", "string", "unicodedata", "time", "dataclasses", "copy",
}  # fmt: skip
_STATEFUL = {
    "_csv",
    "_queue",
    "sqlite3",
    "zlib",
    "_bz2",
    "_lzma",
    "mmap",
    "select",
    "_pickle",
    "_ssl",
    "_hashlib",
}
# The flag of types that are made while Python runs (CPython's Py_TPFLAGS_HEAPTYPE).
HEAP_TYPE = 1 << 9
_FILE = "Read before the step and pass a tensor; print(…) is delivered after the call, other output belongs behind it"


def _impure(function: Any) -> tuple[str, str] | None:
    """What a C function does besides computing, and the cure; None if nothing is known."""
    module = getattr(function, "__module__", None)
    name = getattr(function, "__name__", "")
    owner = getattr(function, "__self__", None)
    if function is print:
        return None
    if module == "time" or (name in ("now", "utcnow", "today") and isinstance(owner, type)):
        return f"it reads the clock ({name})", _CLOCK
    if module == "gc" and name != "collect":  # which is off while a step is recorded
        return f"it asks what collects Python's memory ({name})", _CLOCK
    if module in ("posix", "nt", "_signal") and name not in _OF_THE_PROCESS:
        if "random" in name:
            return f"it draws random numbers of the operating system ({name})", _RANDOM
        return f"it asks the operating system ({name})", _FILE
    if isinstance(owner, random.Random):
        return f"it draws random numbers of Python ({name})", _RANDOM
    if (
        isinstance(owner, io.IOBase | socket.socket)
        or (module in ("io", "_io") and name == "open")
        or function is input
    ):
        return f"it reads or writes a file ({name})", _FILE
    kind = type(owner)
    if not kind.__flags__ & HEAP_TYPE or kind.__module__ in _STATEFUL:
        top = kind.__module__.partition(".")[0]
        if top in sys.stdlib_module_names and kind.__module__ not in _IN_C:
            return (
                f"it works with a {kind.__module__}.{kind.__name__} ({name}), whose state nobody can see",
                _OUTSIDE,
            )
    return None


# Modules of the standard library whose functions only compute.
_PURE = {
    "math", "cmath", "functools", "itertools", "operator", "collections", "typing", "dataclasses", "contextlib", "copy",
    "re", "string", "enum", "abc", "numbers", "types", "inspect", "warnings", "statistics", "bisect", "heapq", "json",
    "textwrap", "fractions", "decimal", "builtins", "_operator", "_functools", "_collections", "random", "_bisect",
    "weakref", "_weakref", "__future__", "collections.abc", "_collections_abc", "pprint", "traceback", "array",
}  # fmt: skip
_READING_BUILTINS = {"open", "input"}
# What libraries call their functions that read files.
_READING = {
    "load", "loadtxt", "genfromtxt", "fromfile", "memmap", "read", "readline", "readlines", "read_text", "read_bytes",
    "read_csv", "recv", "open",
}  # fmt: skip


def is_suspicious(value: Any) -> bool:
    """Whether code that names this may do what a graph cannot do again, so that its run is to be observed."""
    if isinstance(value, io.IOBase | socket.socket):
        return True
    module = getattr(value, "__module__", None)
    if isinstance(value, BuiltinFunctionType | FunctionType | type) and isinstance(module, str):
        top = module.partition(".")[0]
        return (top in sys.stdlib_module_names and module not in _PURE) or value is open or value is input
    module = getattr(type(value), "__module__", None)  # an object of a class of the standard library
    return (
        isinstance(module, str)
        and module.partition(".")[0] in sys.stdlib_module_names
        and module not in _PURE
    )


def may_read(names: Names) -> bool:
    """Whether code names something that reads from outside."""
    return not (_READING_BUILTINS.isdisjoint(names.variables) and _READING.isdisjoint(names.attributes))


class OutsideState:
    """Random numbers of NumPy and Python, and places in files, as they were: to be compared and put back."""

    def __init__(self) -> None:
        self._numpy: Any = np.random.get_state(legacy=True)
        self._python = random.getstate()
        self._others: list[tuple[Any, Any]] = []
        self._seen: set[int] = set()

    def watch(self, generator: Any) -> bool:
        """Keep an eye on one generator or file too; whether it is one."""
        if isinstance(generator, np.random.Generator | np.random.RandomState | random.Random | io.IOBase):
            if id(generator) not in self._seen:
                self._seen.add(id(generator))
                self._others.append((generator, _state_of(generator)))
            return True
        return False

    def changed(self) -> bool:
        """Whether something was drawn since."""
        now: Any = np.random.get_state(legacy=True)
        if random.getstate() != self._python or not all(
            np.array_equal(a, b) for a, b in zip(now, self._numpy)
        ):
            return True
        return any(repr(_state_of(one)) != repr(state) for one, state in self._others)

    def restore(self) -> None:
        """Put everything back."""
        np.random.set_state(self._numpy)
        random.setstate(self._python)
        for one, state in self._others:
            if isinstance(one, io.IOBase):
                if state is not None:
                    one.seek(state)
            elif isinstance(one, random.Random):
                one.setstate(state)
            elif isinstance(one, np.random.Generator):
                one.bit_generator.state = state
            else:
                one.set_state(state)


def _state_of(generator: Any) -> Any:
    if isinstance(generator, io.IOBase):
        return generator.tell() if not generator.closed and generator.seekable() else None
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state(legacy=False)
