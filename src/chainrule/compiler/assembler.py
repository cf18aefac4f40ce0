"""A program: LLVM's textual IR from its input, the object file to its output. `parts.py` runs it beside this process.

    python -I -S assembler.py FOLDER-OF-LLVMLITE PROCESSOR FEATURES LEVEL

It loads llvmlite and nothing of this package, so it begins quickly.
"""

from __future__ import annotations

import sys
from typing import Any


def prepare(binding: Any) -> None:
    """llvmlite's binding, ready for this processor."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    binding.initialize_native_asmparser()  # for the word that tells the processor that a loop waits


def target_machine(binding: Any, processor: str, features: str, level: int) -> Any:
    """A new description of a processor."""
    target = binding.Target.from_default_triple()
    return target.create_target_machine(cpu=processor, features=features, opt=level, jit=True)


def assemble(binding: Any, text: str, machine: Any, level: int) -> bytes:
    """The object file that LLVM makes of a module. RuntimeError if it refuses the text."""
    # A context of its own: what the module names is forgotten with it.
    module = binding.parse_assembly(text, binding.create_context())
    module.verify()
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    options = binding.create_pipeline_tuning_options(level)
    options.loop_vectorization = True
    options.loop_interleaving = True
    passes = binding.create_pass_builder(machine, options)
    manager = passes.getModulePassManager()
    manager.run(module, passes)
    _dispose(manager)
    code: bytes = machine.emit_object(module)
    return code


def _dispose(manager: Any) -> None:
    """Free a pass manager. llvmlite's own way finds an empty method first (50 KB stay for every module, 0.50.0)."""
    for kind in type(manager).__mro__:
        if "_dispose" in vars(kind) and kind.__name__ != "ObjectRef":
            kind._dispose(manager)  # type: ignore[attr-defined]
            manager.detach()
            return


def main() -> None:
    """Between standard input and output."""
    folder, processor, features, level = sys.argv[1:]
    sys.path.insert(0, folder)
    from llvmlite import binding

    prepare(binding)
    machine = target_machine(binding, processor, features, int(level))
    sys.stdout.buffer.write(assemble(binding, sys.stdin.buffer.read().decode(), machine, int(level)))


if __name__ == "__main__":
    main()
