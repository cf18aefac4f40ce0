"""Guards and effects left out, one kind at a time: random programs that keep state must notice each.

A mutant takes away what one kind of pattern checks, what one kind of place watches, or what one kind of effect does. It
dies when a program of `stateful_programs.py`, or one written for it, comes out differently from eager without an error.

    python tests/mutate_guards.py [programs for each mutant] [part of a mutant's name …]
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import state_idioms_of_classes  # noqa: F401 - adds its own to the list
import state_idioms_of_gradients  # noqa: F401
import state_idioms_of_networks  # noqa: F401
import state_idioms_of_python  # noqa: F401
import state_idioms_outside  # noqa: F401
import stateful_programs
from chainrule.runtime import compiled
from chainrule.runtime.served import Served
from chainrule.trace import function, guards, patterns, results, spaces, surroundings, templates
from chainrule.trace.recording import Tracing
from state_idioms import IDIOMS, outcome

Mutant = tuple[object, str, Any]


def _nothing(*_: Any, **__: Any) -> Any:
    return None


def _without_inputs(kind: type) -> Any:
    """The pattern hands its array on, but requires nothing."""
    original = kind.check

    def check(self: Any, writer: Any, variable: str) -> None:
        require, writer.require = writer.require, _nothing
        try:
            original(self, writer, variable)
        finally:
            writer.require = require

    return check


def _emptied(attribute: str) -> Any:
    """A space that watches nothing of this kind."""

    def setter(self: Any, value: Any) -> None:
        self.__dict__[attribute] = type(value)()

    return property(lambda self: self.__dict__.get(attribute, {}), setter)


def _unprepared(self: Any, call: Any, outputs: Any) -> Any:
    return lambda: None


def _only(kinds: tuple[type, ...]) -> Any:
    original = surroundings.Surroundings._watch

    def watch(self: Any, space: Any, name: str) -> None:
        if not isinstance(space, kinds):
            original(self, space, name)

    return watch


def _unscanned(self: Any, *_: Any, **__: Any) -> None:
    return None


MUTANTS: dict[str, list[Mutant]] = {
    **{
        f"{kind.__name__}: not compared": [(kind, "check", _without_inputs(kind))]
        for kind in (
            patterns.Same, patterns.Plain, patterns.Scalar, patterns.Number, patterns.Held, patterns.Given,
            patterns.Leaf, patterns.History, patterns.Contents, patterns.Again, patterns.Bytes, patterns.Group,
        )
    },
    "Sequence: its length": [(patterns.Sequence, "_kind", lambda self, writer, variable: "True or True")],
    "Mapping: its keys": [(patterns.Mapping, "_kind", lambda self, writer, variable: "True or True")],
    **{
        f"{kind.__name__}: not watched": [(surroundings.Surroundings, "_watch", _only((kind,)))]
        for kind in (
            spaces.Variables, spaces.Attributes, spaces.Slots, spaces.ClassAttributes, spaces.Closure, spaces.Defaults,
        )
    },
    **{
        f"{kind.__name__}: does not happen": [(kind, "prepare", _unprepared)]
        for kind in (
            templates.Assign, templates.Fill, templates.Extend, templates.Rebind, templates.Regrade, templates.Hold,
            templates.Apart, templates.Renew, templates.Require, templates.Print,
        )
    },
    "names that must not come": [(spaces, "write_names", _nothing)],
    "code of functions": [(surroundings.Surroundings, "_run", _unscanned)],
    "what stands nowhere by name": [(surroundings.Surroundings, "_anchor", _unscanned)],
    "values that are one object": [(results.Recipes, "_once", lambda self, value, made: made)],
    "tensors that must be different": [
        (guards.Guards, "_distinct", property(lambda self: False, lambda self, value: None))
    ],
    "values that a list gets without being read": [(results.Recipes, "_only_grows", lambda self, container: True)],
    "gradients that are there or not": [(Served, "_none", property(lambda self: [], lambda self, value: None))],
    "types of cells": [(Served, "_typed", property(lambda self: [], lambda self, value: None))],
    "a history in another call": [(Tracing, "_refuse_cut", _nothing)],
    # A second trace finds these too, so it is left out as well.
    "random numbers": [
        (surroundings.OutsideState, "changed", lambda self: False),
        (function, "difference_between", _nothing),
    ],
    "iterators": [
        (surroundings, "is_iterator", lambda value: False),
        (function, "difference_between", _nothing),
    ],
    "errors that were caught": [(Tracing, "refused", _nothing)],
    "a second trace": [(function, "difference_between", _nothing)],
    "what a trace has written": [(spaces.Space, "restore", _nothing)],
    "arrays written into": [(surroundings.Surroundings, "arrays_written", lambda self: [])],
}  # fmt: skip


# What takes away nothing that anybody could see.
EXPLAINED = {
    "types of cells": "only a module's cast and an optimizer that follows it change a cell's type, and a cast counts "
    "as a change of structure: the comparison of types is a second net under that one",
}


@contextlib.contextmanager
def planted(mutant: list[Mutant]) -> Iterator[None]:
    """The mutant is in place."""
    kept = [(owner, name, owner.__dict__.get(name)) for owner, name, _ in mutant]
    for owner, name, value in mutant:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in kept:
            if value is None:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


def killer(name: str, programs: int) -> str | None:
    """What notices the mutant first; None if nothing does."""
    # The call that is traced again would find most of them too: it is the second net, here the first one is tried.
    with planted([*MUTANTS[name], (compiled, "_VERIFIED_CALLS", 0)]):
        for idiom in IDIOMS:
            try:
                answer = outcome(idiom)
            except Exception as failure:
                answer = repr(failure)
            if answer not in IDIOMS[idiom].answers:
                return f"idiom {idiom}"
        for seed in range(programs):
            try:
                answer = stateful_programs.check(seed)
            except Exception as failure:
                answer = repr(failure)
            if answer not in ("equal", "refused"):
                return f"program {seed}"
    return None


def _in_a_child(name: str, programs: int, answer: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    answer.put(killer(name, programs) or "")


def main() -> int:
    programs = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    chosen = [name for name in MUTANTS if not sys.argv[2:] or any(part in name for part in sys.argv[2:])]
    context = multiprocessing.get_context("fork")
    survivors = []
    for name in chosen:
        begin, answer = time.perf_counter(), context.Queue()
        child = context.Process(target=_in_a_child, args=(name, programs, answer))
        child.start()
        child.join()
        found: str = answer.get() if child.exitcode == 0 else "a crash"
        if not found and name not in EXPLAINED:
            survivors.append(name)
        told = found or EXPLAINED.get(name, "SURVIVES")
        print(f"{name}: {told} ({time.perf_counter() - begin:.0f} s)", flush=True)
    explained = sum(name in EXPLAINED for name in chosen)
    print(f"{len(chosen)} mutants, {explained} of them explained; survivors: {survivors or 'none'}")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
