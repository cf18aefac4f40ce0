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
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import CompileError

# LLVM's level 2: level 3 takes twice as long for loops like ours.
_SPEED_LEVEL = 2

_lock = threading.Lock()


@functools.cache
def available() -> bool:
    """Whether llvmlite can be imported."""
    return importlib.util.find_spec("llvmlite") is not None


@functools.cache
def _binding() -> Any:
    """llvmlite's binding, ready for this processor."""
    binding = importlib.import_module("llvmlite.binding")
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding


class Native:
    """Machine code of one module. Lives as long as this object is held."""

    def __init__(self, text: str, entry: str, libraries: Iterable[str]) -> None:
        binding = _binding()
        _resolve(libraries)
        machine = _target_machine()
        try:
            module = binding.parse_assembly(text)
            module.verify()
        except RuntimeError as failure:
            raise CompileError(f"LLVM refuses the generated code: {failure}. Please report this") from failure
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        options = binding.create_pipeline_tuning_options(_SPEED_LEVEL)
        options.loop_vectorization = True
        options.loop_interleaving = True
        passes = binding.create_pass_builder(machine, options)
        passes.getModulePassManager().run(module, passes)
        # The engine owns the module and the target machine from here on.
        self._engine = binding.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        address = self._engine.get_function_address(entry)
        if not address:
            raise CompileError(f"LLVM made no code for {entry}. Please report this")
        self.text, self.entry = text, entry
        self._function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)

    def __call__(self, addresses: list[int]) -> None:
        """Run with the addresses of all buffers; 0 for those that are empty."""
        table = (ctypes.c_void_p * len(addresses))(*addresses)
        self._function(ctypes.addressof(table))


def _target_machine() -> Any:
    """A new description of this processor, with the features that it really has."""
    binding = _binding()
    try:
        features = binding.get_host_cpu_features().flatten()
    except RuntimeError:
        features = ""
    target = binding.Target.from_default_triple()
    return target.create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features, opt=_SPEED_LEVEL, jit=True
    )


_natives: weakref.WeakValueDictionary[str, Native] = weakref.WeakValueDictionary()


def native(text: str, entry: str, libraries: Iterable[str]) -> tuple[Native, bool]:
    """The machine code of a module, and whether it had to be made: equal modules are compiled once."""
    with _lock:
        known = _natives.get(entry)
        if known is not None:
            return known, False
        made = Native(text, entry, libraries)
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
