"""LLVM's textual IR → a function that can be called, through llvmlite.

llvmlite is loaded when the first step is compiled. Where it is missing, `available` says so.
Knows nothing of loops and graphs.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib
import importlib.util
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from ..errors import CompileError
from ..locks import COMPILING, LLVM, lock
from . import cache
from .assembler import assemble, prepare, target_machine
from .parts import compile_parts, cut, join, separate
from .product import Registers

# LLVM's level 2: level 3 takes twice as long for loops like ours.
_SPEED_LEVEL = 2

_lock = lock(threading.Lock(), COMPILING)


@functools.cache
def available() -> bool:
    """Whether llvmlite can be imported."""
    return importlib.util.find_spec("llvmlite") is not None


@functools.cache
def _binding() -> Any:
    """llvmlite's binding, ready for this processor."""
    binding = importlib.import_module("llvmlite.binding")
    prepare(binding)
    # llvmlite's own lock, which every call of it holds: a child must not find it held by a thread it does not have.
    held = getattr(getattr(importlib.import_module("llvmlite.binding.ffi").lib, "_lock", None), "_lock", None)
    if hasattr(held, "acquire"):
        lock(held, LLVM)
    return binding


class Native:
    """Machine code of one module. Lives as long as this object is held.

    text: LLVM's textual IR, or what writes it where code is not on the disk under the name `key`.
    """

    def __init__(
        self, text: str | Callable[[], str], entry: str, libraries: Iterable[str], key: str | None = None
    ) -> None:
        _resolve(libraries)
        self.entry = entry
        engine = None if key is None else _kept(key, entry)
        if engine is None:
            text = text if isinstance(text, str) else text()
            engine = _kept(key := key_of(text), entry)
            if engine is None:
                code = _compiled(text)
                cache.store(key, code)
                engine = _engine(code)
        self._engine = engine
        #: Takes the address of the table of addresses (0 for empty buffers); 0, or 1 if a check has failed.
        self.function = self.lookup(entry, ctypes.c_int, ctypes.c_void_p)

    def lookup(self, name: str, result: Any, *parameters: Any) -> Any:
        """Another function of the module, with its ctypes signature."""
        address = self._engine.get_function_address(name)
        if not address:
            raise CompileError(f"LLVM made no code for {name}. Please report this")
        return ctypes.CFUNCTYPE(result, *parameters)(address)


def target() -> tuple[str, ...]:
    """Whatever machine code depends on beside its text: processor, version of LLVM, effort."""
    return (*_processor(), repr(_binding().llvm_version_info), str(_SPEED_LEVEL))


def key_of(text: str) -> str:
    """Under which name the machine code of a module is kept on the disk."""
    return cache.key_of(text, *target())


def _kept(key: str, entry: str) -> Any:
    """An engine with the code on the disk; None if there is none with this entry."""
    code = cache.load(key)
    if code is None or not all(map(_is_object, separate(code))):
        return None
    engine = _engine(code)
    return engine if engine.get_function_address(entry) else None


def _is_object(code: bytes) -> bool:
    """Whether something begins like an object file, and one of the systems' usual kind does not end too early.

    LLVM stops the process for what is none. The checksum tells of damage; this of what was never code.
    """
    if sys.platform in ("win32", "darwin"):
        return len(code) > 64 and (sys.platform == "win32" or code.startswith(b"\xcf\xfa\xed\xfe"))
    if not code.startswith(b"\x7fELF\x02") or len(code) < 64:
        return False
    order: Literal["little", "big"] = "little" if code[5] == 1 else "big"
    table, size, count = (int.from_bytes(code[a:b], order) for a, b in ((40, 48), (58, 60), (60, 62)))
    return count > 0 and table + size * count <= len(code)


def _engine(code: bytes) -> Any:
    """What runs the object files of a module."""
    binding = _binding()
    # An empty module: the code is there already. The engine owns it and the target machine.
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _target_machine())
    for one in separate(code):
        engine.add_object_file(binding.ObjectFileRef.from_data(one))
    engine.finalize_object()
    return engine


def _compiled(text: str) -> bytes:
    """The object files that LLVM makes of a module, as one file."""
    binding = _binding()

    def here(part: str) -> bytes:
        try:
            return assemble(binding, part, _target_machine(), _SPEED_LEVEL)
        except RuntimeError as failure:
            raise CompileError(f"LLVM refuses the generated code: {failure}. Please report this") from failure

    options = [*_processor(), str(_SPEED_LEVEL)]
    return join(compile_parts(cut(text), here, options, Path(binding.__file__).parent.parent.parent))


@functools.cache
def registers() -> Registers:
    """The vector registers of this processor; the smallest that every 64-bit machine has where it is not known."""
    if not available():
        return Registers(16, 16)
    try:
        features = _binding().get_host_cpu_features()
    except RuntimeError:
        features = {}
    if features.get("avx512f"):
        return Registers(64, 32)
    if features.get("avx2"):
        return Registers(32, 16)
    return Registers(16, 32 if features.get("neon") else 16)


@functools.cache
def _processor() -> tuple[str, str]:
    """Name and features of this processor: features that it really has, whatever its name promises."""
    binding = _binding()
    try:
        features = binding.get_host_cpu_features().flatten()
    except RuntimeError:
        features = ""
    return binding.get_host_cpu_name(), features


def _target_machine() -> Any:
    """A new description of this processor."""
    return target_machine(_binding(), *_processor(), _SPEED_LEVEL)


_natives: weakref.WeakValueDictionary[str, Native] = weakref.WeakValueDictionary()


def native(
    text: str | Callable[[], str], entry: str, libraries: Iterable[str], key: str | None = None
) -> tuple[Native, bool]:
    """The machine code of a module, and whether it had to be made: equal modules are compiled once."""
    with _lock:
        known = _natives.get(entry)
        if known is not None:
            return known, False
        made = Native(text, entry, libraries, key)
        _natives[entry] = made
        return made, True


# ------------------------------------------------------------------------------- the C library


def _c_library() -> Iterator[ctypes.CDLL]:
    """Where the functions are looked for: in the process first, because a search of the disk takes long."""
    if sys.platform == "win32":
        yield ctypes.CDLL("ucrtbase")
        return
    yield ctypes.CDLL(None)
    found = ctypes.util.find_library("m")
    if found is not None:
        yield ctypes.CDLL(found)


@functools.cache
def _bind(name: str) -> None:
    for library in _c_library():
        function = getattr(library, name, None)
        if function is not None:
            address = ctypes.cast(function, ctypes.c_void_p).value
            _binding().add_symbol(name, address)
            return
    raise CompileError(f"the C library of this machine has no {name}. Set CHAINRULE_COMPILE=0")


def _resolve(names: Iterable[str]) -> None:
    """Bind each function by its address, so that nothing depends on what the process happens to export."""
    for name in names:
        _bind(name)
