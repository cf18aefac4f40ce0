"""Put faults into the compiler and the runtime, one at a time, and count how many of them the quick checks find.

    python tests/mutate_compiler.py                       # all: about 440 generated faults and those made by hand
    python tests/mutate_compiler.py product merge         # those of some modules
    python tests/mutate_compiler.py --most 3 --seed 1     # other ones, up to 3 in a function

A fault is one change in the syntax tree of one function (a number off by one, a comparison turned round, a condition
or a call left out, operands exchanged, an early return …) or of one constant of a module. Each runs in a process of
its own, forked from one in which everything is loaded and compiled: there the function gets its faulty code, and the
checks (the files `tests/*_checks.py`) that reach it run, first those that
found most so far, until one fails.
Machine code is only taken over where its text is the same, letter by letter. What survives is explained in SURVIVORS,
by the kinds of reasons in REASONS; whatever is not explained is printed, and makes the command fail.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import functools
import importlib
import inspect
import io
import json
import os
import random
import resource
import select
import signal
import sys
import time
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chainrule
import commit_checks  # noqa: F401 - adds its checks
import edge_checks  # noqa: F401
import memory_checks  # noqa: F401
import runtime_checks  # noqa: F401
from chainrule.compiler import machine
from compiler_checks import CHECKS
from surviving_mutants import HAND_MADE, REASONS, SURVIVORS

ROOT = Path(chainrule.__file__).parent
MODULES = [
    *(f"compiler.{one.stem}" for one in sorted((ROOT / "compiler").glob("*.py"))),
    *(f"runtime.{one}" for one in ("host", "memory", "program", "repeated", "served", "threads")),
]
#: Functions that only print, and names of types.
NO_CODE = {
    "__str__", "_print", "_expression", "_print_contraction", "stages", "_dump", "__repr__", "PASSES", "STAGES",
    "__all__", "Statement", "Number", "Atom", "Position", "Reader", "Part", "Axes", "Seen",
}  # fmt: skip
#: A faulty process is ended, and counts as found, after so many times what its checks take, and these seconds more: of
#: processor time, and of the clock.
_TIMES, _SECONDS, _CLOCK = 3, 20, 120
#: Seconds of checks that are run together, first those that are close to the module and find most in little time.
_BUDGET = 5.0
#: Beginnings of the names of checks that are likely to find what is wrong with a module.
CLOSE: dict[str, tuple[str, ...]] = {
    "merge": ("commit", "loops", "optimizers"), "commit": ("commit", "kept", "a_commit"),
    "plan": ("values_that", "the_arena", "commit"),
    "program": ("kept", "commit", "refused", "interrupted"), "memory": ("memory", "kept", "arrays", "inputs"),
    "served": ("calls", "results", "types", "gradients"), "repeated": ("many", "steps"), "threads": ("threads",
    "work"),
    "host": ("numpy", "a_failure", "refused"), "known": ("what_is_known",), "cache": ("files",),
    "__init__": ("the_coll", "names"),
    "recurrence": ("scan",), "steps": ("scan",), "nested": ("convolution", "a_network"), "tiles": ("convolution",),
    "orders": ("a_network", "convolution"), "layout": ("a_network",), "product": ("product", "a_gradient"),
    "folds": ("folds", "long_sums", "around"), "polynomials": ("functions",), "mathlib": ("functions", "whole"),
    "builder": ("whole", "casts", "functions", "folds", "places"), "pool": ("work", "threads"),
    "contraction": ("empty", "convolution"), "repeat": ("many",), "indices": ("positions", "views", "values_of"),
    "llvm": ("whole", "casts", "functions", "work"), "nests": ("views", "places", "around"),
    "fuse": ("commit", "fus", "conv"),
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One fault: where it is, what it is, and the tree of the module with it."""

    module: str
    function: str
    description: str
    tree: ast.Module = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        """How it is called in the table."""
        return f"{self.module}.{self.function}: {self.description}"


# ------------------------------------------------------------------------------------------- changes

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.Div: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip
_SIDES = {"left": "right", "right": "left", "min": "max", "max": "min", "any": "all", "all": "any", "first": "last",
          "reads": "writes", "writes": "reads", "rows": "columns", "columns": "rows", "own": "common",
          "common": "own",
          "low": "high", "high": "low", "inputs": "outputs", "start": "final", "before": "after"}  # fmt: skip


def _short(node: ast.AST) -> str:
    text = ast.unparse(node).replace("\n", " ")
    return text if len(text) <= 60 else text[:57] + "…"


def _expressions(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Changes of one expression."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        other = _COMPARISONS[type(node.ops[0])]()
        yield (
            f"{_short(node)} → {other.__class__.__name__}",
            ast.Compare(node.left, [other], node.comparators),
        )
    elif isinstance(node, ast.BoolOp):
        for k, value in enumerate(node.values):
            rest = node.values[:k] + node.values[k + 1 :]
            yield f"without {_short(value)}", rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
        yield (
            f"{_short(node)} → {'or' if isinstance(node.op, ast.And) else 'and'}",
            ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values),
        )
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield f"{_short(node)} → {_short(node.operand)}", node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS and not _is_text(node):
        other_op = _OPERATORS[type(node.op)]()
        yield f"{_short(node)} → {other_op.__class__.__name__}", ast.BinOp(node.left, other_op, node.right)
        yield f"{_short(node)} → {_short(node.left)}", node.left
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        for value in (node.value + 1, node.value - 1):
            yield f"{node.value} → {value}", ast.Constant(value)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield f"{node.value} → {not node.value}", ast.Constant(not node.value)
    elif isinstance(node, ast.IfExp):
        yield f"always {_short(node.body)}", node.body
        yield f"always {_short(node.orelse)}", node.orelse
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
        if len(node.args) >= 2 and not any(isinstance(one, ast.Starred) for one in node.args[:2]):
            swapped = [node.args[1], node.args[0], *node.args[2:]]
            if ast.dump(swapped[0]) != ast.dump(swapped[1]):
                yield f"{_short(node)}: arguments exchanged", ast.Call(node.func, swapped, node.keywords)
        if (
            isinstance(node.func, ast.Name)
            and node.func.id in ("sorted", "reversed", "list", "int")
            and node.args
        ):
            if node.func.id in ("sorted", "reversed"):
                yield f"{_short(node)}: as it is", ast.Call(ast.Name("list", ast.Load()), node.args[:1], [])
        elif isinstance(node.func, ast.Name) and node.func.id in _SIDES:
            yield (
                f"{_short(node)} → {_SIDES[node.func.id]}",
                ast.Call(ast.Name(_SIDES[node.func.id], ast.Load()), node.args, node.keywords),
            )
    elif isinstance(node, ast.Attribute) and node.attr in _SIDES and isinstance(node.ctx, ast.Load):
        yield f"{_short(node)} → {_SIDES[node.attr]}", ast.Attribute(node.value, _SIDES[node.attr], node.ctx)
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield (
            f"without if {_short(node.ifs[0])}",
            ast.comprehension(node.target, node.iter, node.ifs[1:], node.is_async),
        )


def _is_text(node: ast.AST) -> bool:
    return any(
        isinstance(one, ast.JoinedStr) or (isinstance(one, ast.Constant) and isinstance(one.value, str))
        for one in ast.walk(node)
    )


def _statements(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Changes of one statement."""
    if isinstance(node, ast.If | ast.While):
        for value in (True, False):
            if isinstance(node, ast.While) and value:
                continue
            changed = copy.copy(node)
            changed.test = ast.Constant(value)
            yield f"{type(node).__name__.lower()} {_short(node.test)} → {value}", changed
    elif _acts(node):
        yield f"without {_short(node)}", ast.Pass()
    elif isinstance(node, ast.Continue | ast.Break):
        yield f"without {type(node).__name__.lower()}", ast.Pass()


def _acts(node: ast.AST) -> bool:
    """Whether a statement does something to what is there already."""
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Subscript | ast.Attribute)
    return isinstance(node, ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    )


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, replacement: ast.AST) -> None:
        self.target, self.replacement = target, replacement

    def visit(self, node: ast.AST) -> Any:
        return self.replacement if node is self.target else super().visit(node)


def _code_of(function: ast.AST) -> Iterator[ast.AST]:
    """What a function does, without its types, its text for people and the texts of errors."""
    pending = list(ast.iter_child_nodes(function))
    if isinstance(function, ast.FunctionDef):
        pending = [*function.body, *function.args.defaults]
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.Raise | ast.Assert) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            continue
        yield node
        children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.AnnAssign):
            children = [node.value] if node.value is not None else []
        if isinstance(node, ast.FunctionDef):
            children = [*node.body, *node.args.defaults]
        pending = children + pending


def _places(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """(name, tree) of every function and method, and of every constant of the module."""
    for one in tree.body:
        if isinstance(one, ast.FunctionDef):
            yield one.name, one
        elif isinstance(one, ast.ClassDef):
            yield from (
                (f"{one.name}.{inner.name}", inner)
                for inner in one.body
                if isinstance(inner, ast.FunctionDef)
            )
        elif (
            isinstance(one, ast.Assign)
            and isinstance(one.targets[0], ast.Name)
            and one.targets[0].id not in NO_CODE
        ):
            yield one.targets[0].id, one


def _module_tree(module: str) -> ast.Module:
    return ast.parse(
        inspect.getsource(importlib.import_module(f"chainrule.{module}".removesuffix(".__init__")))
    )


def mutants_of(module: str, most: int, seed: int, fewest: int) -> list[Mutant]:
    """The faults of a module: up to `most` of each function and constant, which follow from its name and text."""
    tree = _module_tree(module)
    found = []
    for name, place in _places(tree):
        if name.rpartition(".")[2] in NO_CODE:
            continue
        changes: list[tuple[int, int, str]] = []
        nodes = list(_code_of(place))
        counts: Counter[str] = Counter()
        for number, node in enumerate(nodes):
            for k, (description, _) in enumerate([*_expressions(node), *_statements(node)]):
                counts[description] += 1
                label = description if counts[description] == 1 else f"{description} #{counts[description]}"
                changes.append((number, k, label))
        if len(changes) < fewest:
            continue
        chooser = random.Random(f"{seed} {module} {name}")
        share = min(most, max(1, round(len(changes) / 12 + 0.5)))
        for number, k, label in sorted(chooser.sample(changes, min(share, len(changes)))):
            changed, same = copy.deepcopy(tree), dict(_places(tree))
            target = list(_code_of(dict(_places(changed))[name]))[number]
            replacement = [*_expressions(target), *_statements(target)][k][1]
            _Replace(target, replacement).visit(changed)
            assert same[name] is place
            found.append(Mutant(module, name, label, ast.fix_missing_locations(changed)))
    return found


def made_by_hand() -> Iterator[Mutant]:
    """The faults of the table: a text in a function exchanged for another one."""
    for module, function, old, new in HAND_MADE:
        tree = _module_tree(module)
        places = dict(_places(tree))
        text = ast.unparse(places[function]) if function in places else ""
        old_text, new_text = (
            ast.unparse(ast.parse(one)) if one and not one.startswith("=") else one.removeprefix("=")
            for one in (old, new)
        )
        if text.count(old_text) != 1:
            print(f"gone: {module}.{function} has {text.count(old_text)} × {old_text!r}; correct HAND_MADE")
            continue
        changed = ast.parse(text.replace(old_text, new_text or "pass" * (old[:1] != "="))).body[0]
        _Replace(places[function], changed).visit(tree)
        yield Mutant(
            module,
            function,
            f"by hand: {old_text} → {new_text or 'nothing'}",
            ast.fix_missing_locations(tree),
        )


# ------------------------------------------------------------------------------------------- one fault


def _codes(code: types.CodeType, prefix: str = "") -> Iterator[tuple[str, types.CodeType]]:
    """Code objects of a module by the names of functions and methods, the outer ones only."""
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            if one.co_flags & inspect.CO_OPTIMIZED:
                yield prefix + one.co_name, one
            else:  # the body of a class
                yield from _codes(one, f"{one.co_name}.")


def _plain(member: Any) -> types.FunctionType | None:
    """The function behind a property, a cache, a context manager."""
    for name in ("fget", "func", "__func__", "__wrapped__"):
        inner = getattr(member, name, None)
        if isinstance(inner, types.FunctionType) or (inner is not None and name != "func"):
            return _plain(inner)
    return member if isinstance(member, types.FunctionType) else None


def install(mutant: Mutant) -> None:
    """Give the function its faulty code, or the module its faulty constant, in this process."""
    module = importlib.import_module(f"chainrule.{mutant.module}".removesuffix(".__init__"))
    owner, _, name = mutant.function.rpartition(".")
    holder = getattr(module, owner) if owner else module
    made = compile(mutant.tree, module.__file__ or "", "exec", dont_inherit=True)
    member = vars(holder).get(name)
    function = _plain(member)
    if function is not None and not isinstance(member, type):
        codes = dict(_codes(made))
        function.__code__ = codes[mutant.function].replace(co_freevars=function.__code__.co_freevars)
        fresh = _defaults(mutant, module)
        function.__defaults__ = fresh if fresh is not None else function.__defaults__
        return
    (statement,) = [one for label, one in _places(mutant.tree) if label == name]
    assert isinstance(statement, ast.Assign)
    value = eval(compile(ast.Expression(statement.value), "<mutant>", "eval"), vars(module))
    for other in list(sys.modules.values()):
        if getattr(other, "__name__", "").startswith("chainrule") and getattr(other, name, None) is member:
            setattr(other, name, value)


def _defaults(mutant: Mutant, module: Any) -> tuple[Any, ...] | None:
    (place,) = [one for label, one in _places(mutant.tree) if label == mutant.function][:1]
    if not isinstance(place, ast.FunctionDef) or not place.args.defaults:
        return None
    return tuple(
        eval(compile(ast.Expression(one), "<mutant>", "eval"), vars(module)) for one in place.args.defaults
    )


#: What is remembered of the machine, not of a program.
_OF_THE_MACHINE = {"_binding", "available", "registers", "_processor", "_bind", "_say_once"}


def forget() -> None:
    """Empty every memory of the compiler, so that nothing computed without the fault is used again."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("chainrule."):
            for name, one in list(vars(module).items()):
                if isinstance(one, functools._lru_cache_wrapper) and name not in _OF_THE_MACHINE:
                    one.cache_clear()
    importlib.import_module("chainrule.compiler.forms")._whole_bodies.clear()


def run_checks(names: list[str], results: int) -> None:
    """In a process of its own: the checks in order; the first that fails is told through a pipe."""
    for name in names:
        try:
            CHECKS[name]()
        except BaseException as failure:
            os.write(results, json.dumps([name, f"{type(failure).__name__}: {str(failure)[:200]}"]).encode())
            os._exit(0)
    os.write(results, json.dumps(["", ""]).encode())
    os._exit(0)


def killer_of(mutant: Mutant | None, names: list[str], seconds: dict[str, float]) -> tuple[str, str]:
    """(the check that fails, how); ("", "") if none does. seconds: how long each check takes."""
    usual = _TIMES * sum(seconds[name] for name in names)
    most = int(usual + _SECONDS)
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1), os.dup2(quiet, 2)
        try:
            if mutant is not None:
                install(mutant)
            forget()
        except BaseException as failure:
            os.write(writing, json.dumps(["install", f"{type(failure).__name__}: {failure}"]).encode())
            os._exit(0)
        run_checks(names, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        ready, _, _ = select.select([pipe], [], [], 2 * usual + _CLOCK)
        told = pipe.read() if ready else b""
    if not ready:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if told:
        name, how = json.loads(told)
        return name, how
    return (
        ("a crash", f"signal {os.WTERMSIG(status)}")
        if ready and os.WIFSIGNALED(status)
        else ("time", "not ended")
    )


# ------------------------------------------------------------------------------------------- counting


def reached_by() -> tuple[dict[str, set[tuple[str, str]]], dict[str, float]]:
    """For each check: the functions of the compiler and the runtime that it calls; and its seconds."""
    reached: dict[str, set[tuple[str, str]]] = {}
    seconds: dict[str, float] = {}
    root = str(ROOT)
    for name, one in CHECKS.items():
        forget()
        seen: set[types.CodeType] = set()

        def note(frame: Any, event: str, _: Any, seen: set[types.CodeType] = seen) -> None:
            if event == "call":
                seen.add(frame.f_code)

        started = time.perf_counter()
        sys.setprofile(note)
        try:
            one()
        finally:
            sys.setprofile(None)
        _KEPT.extend(machine._natives.values())
        seconds[name] = time.perf_counter() - started
        reached[name] = {
            (
                Path(code.co_filename).stem if "compiler/__init__" not in code.co_filename else "__init__",
                code.co_qualname.partition(".<locals>")[0],
            )
            for code in seen
            if code.co_filename.startswith(root)
        }
    return reached, seconds


_KEPT: list[Any] = []


def main() -> int:
    os.environ["CHAINRULE_CACHE"] = "0"  # machine code is shared by its text only, within this process
    os.environ.setdefault("CHAINRULE_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", help="names of modules, such as product; all without any")
    parser.add_argument("--most", type=int, default=1, help="faults in one function at most")
    parser.add_argument(
        "--fewest", type=int, default=5, help="leave out functions with fewer places for a fault"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="only list the faults")
    parser.add_argument("--verbose", action="store_true", help="say which check finds which fault")
    parser.add_argument(
        "--hasty", action="store_true", help="give a fault up after the checks that are likely"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=_BUDGET,
        help="of likely checks for each fault; with --hasty these alone",
    )
    parser.add_argument(
        "--only", type=Path, help="a file with the names of faults, one in a line: only those"
    )
    chosen = parser.parse_args()
    modules = [
        one
        for one in MODULES
        if not chosen.modules or one.rpartition(".")[2] in chosen.modules or one in chosen.modules
    ]
    mutants = [one for one in made_by_hand() if one.module in modules]
    mutants += [
        one for module in modules for one in mutants_of(module, chosen.most, chosen.seed, chosen.fewest)
    ]
    if chosen.only is not None:
        wanted = set(chosen.only.read_text(encoding="utf-8").splitlines())
        mutants = [one for one in mutants if one.name in wanted]
    if chosen.list:
        print("\n".join(one.name for one in mutants))
        return 0
    with contextlib.redirect_stderr(io.StringIO()):
        reached, seconds = reached_by()
    total = sum(seconds.values())
    print(f"{len(CHECKS)} checks in {total:.1f} s; {len(mutants)} faults", flush=True)
    failed = killer_of(None, list(CHECKS), seconds)
    if failed != ("", ""):
        print(f"the checks fail without any fault, so a find would mean nothing: {failed}")
        return 1
    return _count(mutants, reached, seconds, chosen.verbose, chosen.hasty, chosen.seconds)


def _count(
    mutants: list[Mutant],
    reached: dict[str, Any],
    seconds: dict[str, float],
    verbose: bool,
    hasty: bool,
    budget: float,
) -> int:
    finds: Counter[str] = Counter()
    survivors: list[Mutant] = []
    everything = list(CHECKS)
    for number, mutant in enumerate(mutants):
        started = time.perf_counter()
        stem = mutant.module.rpartition(".")[2]
        names = [one for one in everything if (stem, mutant.function) in reached[one]]
        if mutant.function.rpartition(".")[2].isupper() or (
            not names and mutant.function.lstrip("_").isupper()
        ):
            names = everything
        words = CLOSE.get(stem, ())
        names.sort(key=lambda one: (not one.startswith(words), (seconds[one] + 0.02) / (1 + finds[one])))
        quick = _within(names, seconds, budget)
        rest = [] if hasty else [one for one in names if one not in quick]
        name, how = next(
            (found for some in (quick, rest) if some and (found := killer_of(mutant, some, seconds))[0]),
            ("", ""),
        )
        finds[name] += 1
        if not name or name == "install":
            survivors.append(mutant)
        if verbose or not name or name == "install":
            state = (
                f"found by {name} ({how})"
                if name and name != "install"
                else "SURVIVED" + f" {how}" * bool(how) + " not reached" * (not names)
            )
            print(
                f"{number} {time.perf_counter() - started:.1f} s  {mutant.name}: {state}".replace("\n", " "),
                flush=True,
            )
    for name, count in finds.most_common(12):
        print(f"  {count:4} found by {name}" if name else "", flush=True)
    return _report(mutants, survivors)


def _within(names: list[str], seconds: dict[str, float], budget: float) -> list[str]:
    """The first checks that together take no longer than the budget; one at least."""
    found: list[str] = []
    for name in names:
        budget -= seconds[name]
        if budget < 0 and found:
            break
        found.append(name)
    return found


def _report(mutants: list[Mutant], survivors: list[Mutant]) -> int:
    explained = [one for one in survivors if one.name in SURVIVORS]
    open_ones = [one for one in survivors if one.name not in SURVIVORS]
    named = {one.name for one in mutants}
    for one in explained:
        reason, why = SURVIVORS[one.name]
        print(f"explained: {one.name}: {REASONS[reason]}: {why}")
    for one in open_ones:
        print(f"SURVIVED: {one.name}")
    killed = {one.name for one in mutants} - {one.name for one in survivors}
    for name in sorted(SURVIVORS.keys() & killed):
        print(f"found although it is explained: {name}")
    print(f"{len(SURVIVORS.keys() - named)} explanations belong to faults that were not tried")
    kinds = Counter(SURVIVORS[one.name][0] for one in explained)
    counted = len(mutants) - len(explained)
    rate = 100 * (len(mutants) - len(survivors)) / max(1, counted)
    print(
        f"{len(mutants)} faults: {len(mutants) - len(survivors)} found, {len(explained)} explained "
        f"({', '.join(f'{count} {REASONS[kind]}' for kind, count in sorted(kinds.items())) or 'none'}), "
        f"{len(open_ones)} survived: {rate:.1f} % of those that change a result are found"
    )
    return 0 if rate >= 98 else 1


if __name__ == "__main__":
    sys.exit(main())
