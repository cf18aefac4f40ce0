"""Put known faults into every derivative rule, one at a time, and count how many the generated checks find.

    python tests/mutate_rules.py            # all mutants, with totals
    python tests/mutate_rules.py sin sum    # those of some operations

A mutant is a rule that is wrapped (sign, factor 2, no gradient, operands' rules swapped) or whose formula is
changed in its syntax tree (an operator or function exchanged, a term dropped, a constant moved). A mutant that
no mathematics can tell from the original is excluded, with the reason, in EQUIVALENT.
"""

from __future__ import annotations

import ast
import copy
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from chainrule import ops
from op_checks import (
    check_conventions,
    check_derivatives,
    check_float32,
    check_second_order,
    check_types_and_graph,
    operation,
    sampled,
)
from op_samples import SAMPLES

CHECKS = (check_derivatives, check_conventions, check_second_order, check_float32, check_types_and_graph)

SYMMETRIC = {"absorb", "equal", "add", "maximum", "minimum", "hypot"}
"""Functions whose arguments can be exchanged: no mutant is made of that, nor of two equal rules exchanged."""

EQUIVALENT = {
    ("copysign", "Mult → Div in operand 0"): "sign(x) and sign(out) are ±1, where a product is a quotient",
    ("slice", "0 → 1 #2"): "nothing was taken, so it does not matter where in the zeros nothing is put",
}
"""(operation, mutant): why no mathematics can tell it from the original although its text differs."""


@dataclass(frozen=True)
class Mutant:
    """One change: install it, run the checks, put the original back."""

    operation: str
    description: str
    install: Callable[[], Callable[[], None]]


# ------------------------------------------------------------------------------------ wrapped rules


def _negated(rule: Any) -> Any:
    return -rule if isinstance(rule, int) else lambda *a, **k: -rule(*a, **k)


def _doubled(rule: Any) -> Any:
    if isinstance(rule, int):
        return lambda out, *operands, **k: 2 * (out * 0 + rule)
    return lambda *a, **k: rule(*a, **k) * 2


def _rules(op: ops.Op) -> tuple[Any, ...]:
    if isinstance(op, ops.Elementwise):
        return op.derivatives
    if isinstance(op, ops.Linear):
        return op.transposes if op.transposes is not None else (op.transpose_of,)
    return (op.weights,) if isinstance(op, ops.Selection) else ()


def _installer(op: ops.Op, rules: tuple[Any, ...]) -> Callable[[], Callable[[], None]]:
    name = {"elementwise": "derivatives", "selection": "weights"}.get(op.kind, "transposes")
    if name == "transposes" and op.transposes is None:  # type: ignore[attr-defined]
        name = "transpose_of"
    value = rules if name in ("derivatives", "transposes") else rules[0]

    def install() -> Callable[[], None]:
        before = getattr(op, name)
        setattr(op, name, value)
        return lambda: setattr(op, name, before)

    return install


def _wrapped(op: ops.Op) -> Iterator[tuple[str, tuple[Any, ...]]]:
    rules = _rules(op)
    for k, rule in enumerate(rules):
        where = f" of operand {k}" if len(rules) > 1 else ""
        if rule is None or rule == 0:
            if isinstance(op, ops.Elementwise) and rule == 0:
                yield f"slope 1{where}", (*rules[:k], 1, *rules[k + 1 :])
            continue
        changes = {"sign": _negated(rule), "factor 2": _doubled(rule)}
        if op.kind not in ("selection",) and not (
            op.kind == "linear" and rules[0] is not rule and len(rules) == 1
        ):
            changes["no gradient"] = None
        for name, changed in changes.items():
            if name == "no gradient" and (
                op.kind == "selection" or getattr(op, "transpose_of", None) is rule
            ):
                continue
            yield f"{name}{where}", (*rules[:k], changed, *rules[k + 1 :])
    if len(rules) == 2 and None not in rules and not _same(*rules):
        yield "operands' rules swapped", (rules[1], rules[0])


def _same(first: Any, second: Any) -> bool:
    """Rules that are one and the same: swapping them changes nothing."""
    if isinstance(first, int) or isinstance(second, int):
        return bool(first == second)
    parts = ("co_code", "co_consts", "co_names", "co_varnames")
    return all(getattr(first.__code__, part) == getattr(second.__code__, part) for part in parts)


# ------------------------------------------------------------------------------------ changed formulas

_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Mod: ast.Mult,
    ast.FloorDiv: ast.Mult,
}  # fmt: skip
_FUNCTIONS = {
    "sin": "cos", "cos": "sin", "sinh": "cosh", "cosh": "sinh", "exp": "expm1", "log": "log1p", "sqrt": "square",
    "sign": "abs_", "floor": "ceil", "take": "take_along", "permute_dims": "reshape", "sigmoid": "tanh",
}  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Gt: ast.Lt, ast.Lt: ast.Gt, ast.GtE: ast.LtE, ast.LtE: ast.GtE, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}  # fmt: skip


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Every single change of one node of a formula."""
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        other = _OPERATORS[type(node.op)]
        yield f"{type(node.op).__name__} → {other.__name__}", ast.BinOp(node.left, other(), node.right)
        yield f"right of {type(node.op).__name__} dropped", node.left
        yield f"left of {type(node.op).__name__} dropped", node.right
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "minus dropped", node.operand
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"{node.value} → {node.value + 1}", ast.Constant(node.value + 1)
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        other_op = _COMPARISONS[type(node.ops[0])]
        yield f"comparison → {other_op.__name__}", ast.Compare(node.left, [other_op()], node.comparators)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id in _FUNCTIONS:
            name = _FUNCTIONS[node.func.id]
            yield f"{node.func.id} → {name}", ast.Call(ast.Name(name, ast.Load()), node.args, [])
        if len(node.args) == 2 and node.func.id not in SYMMETRIC:
            yield f"arguments of {node.func.id} swapped", ast.Call(node.func, node.args[::-1], [])


def _variants(tree: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    for place, node in enumerate(ast.walk(tree)):
        for description, _ in _changes(node):
            changed = copy.deepcopy(tree)
            target = list(ast.walk(changed))[place]
            replacement = dict(_changes(target))[description]
            yield description, ast.fix_missing_locations(_Replace(target, replacement).visit(changed))


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, replacement: ast.AST) -> None:
        self.target, self.replacement = target, replacement

    def visit(self, node: ast.AST) -> Any:
        return self.replacement if node is self.target else super().visit(node)


def _source(rule: FunctionType) -> ast.Lambda | ast.FunctionDef | None:
    """The syntax tree of a rule, found by line and column."""
    tree = ast.parse(inspect.getsource(sys.modules[rule.__module__]))
    if rule.__name__ != "<lambda>":
        return next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == rule.__name__)
    spans = {(line, column) for line, _, column, _ in rule.__code__.co_positions() if line and column}
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            inside = {(n.lineno, n.col_offset) for n in ast.walk(node.body) if isinstance(n, ast.expr)}
            own = not any(isinstance(n, ast.Lambda) for n in ast.walk(node.body))
            if own and (node.body.lineno, node.body.col_offset) in spans and spans & inside:
                return node
    return None


def _formulas(op: ops.Op) -> Iterator[tuple[str, tuple[Any, ...]]]:
    rules = _rules(op)
    for k, rule in enumerate(rules):
        if not isinstance(rule, FunctionType):
            continue
        tree = _source(rule)
        if tree is None:
            raise AssertionError(f"the source of rule {k} of {op.name} was not found")
        namespace = {**vars(sys.modules["chainrule.ops"]), **rule.__globals__}
        where = f" in operand {k}" if len(rules) > 1 else ""
        if isinstance(tree, ast.Lambda):
            for description, body in _variants(tree.body):
                expression = ast.Expression(ast.Lambda(copy.deepcopy(tree.args), body))
                changed = eval(compile(ast.fix_missing_locations(expression), "<mutant>", "eval"), namespace)
                yield f"{description}{where}", (*rules[:k], changed, *rules[k + 1 :])
        else:
            for description, definition in _variants(_bare(tree)):
                scope = dict(namespace)
                exec(compile(ast.Module([definition], []), "<mutant>", "exec"), scope)
                yield f"{description}{where}", (*rules[:k], scope[tree.name], *rules[k + 1 :])


def _bare(tree: ast.FunctionDef) -> Any:
    """The function without annotations, so that only its formula is changed."""
    bare = copy.deepcopy(tree)
    bare.returns, bare.decorator_list = None, []
    for argument in (*bare.args.args, *bare.args.kwonlyargs, bare.args.vararg):
        if argument is not None:
            argument.annotation = None
    return bare


def control(name: str) -> Mutant:
    """The rules taken apart and put together again without a change: the checks must pass on them."""
    op = operation(name)
    rules = tuple(_rebuilt(rule) if isinstance(rule, FunctionType) else rule for rule in _rules(op))
    return Mutant(name, "control", _installer(op, rules) if rules else lambda: lambda: None)


def _rebuilt(rule: FunctionType) -> Any:
    tree = _source(rule)
    assert tree is not None
    namespace = {**vars(sys.modules["chainrule.ops"]), **rule.__globals__}
    if isinstance(tree, ast.Lambda):
        return eval(compile(ast.Expression(tree), "<control>", "eval"), namespace)
    exec(compile(ast.fix_missing_locations(ast.Module([_bare(tree)], [])), "<control>", "exec"), namespace)
    return namespace[tree.name]


def mutants(name: str) -> list[Mutant]:
    """Every mutant of one operation."""
    op = operation(name)
    seen: dict[str, int] = {}
    result = []
    for description, rules in (*_wrapped(op), *_formulas(op)):
        seen[description] = seen.get(description, 0) + 1
        label = description if seen[description] == 1 else f"{description} #{seen[description]}"
        result.append(Mutant(name, label, _installer(op, rules)))
    return result


# ------------------------------------------------------------------------------------------ counting


def is_killed(mutant: Mutant) -> bool:
    """Whether a generated check fails while the mutant is in place."""
    restore = mutant.install()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for check in CHECKS:
                check(operation(mutant.operation), SAMPLES[mutant.operation])
    except Exception:
        return True
    finally:
        restore()
    return False


def run(names: list[str]) -> tuple[int, int, list[Mutant], list[Mutant]]:
    """(mutants that count, killed, survivors, excused) over some operations."""
    counted = killed = 0
    survivors, excused = [], []
    for name in names:
        if is_killed(control(name)):
            raise AssertionError(
                f"{name}: the unchanged rules fail the checks, so a killed mutant would mean nothing"
            )
        for mutant in mutants(name):
            if (mutant.operation, mutant.description) in EQUIVALENT:
                excused.append(mutant)
                continue
            counted += 1
            if is_killed(mutant):
                killed += 1
            else:
                survivors.append(mutant)
    return counted, killed, survivors, excused


def main(names: list[str]) -> int:
    counted, killed, survivors, excused = run(names or sampled())
    for mutant in survivors:
        print(f"survived: {mutant.operation}: {mutant.description}")
    for mutant in excused:
        print(
            f"equivalent: {mutant.operation}: {mutant.description}: {EQUIVALENT[mutant.operation, mutant.description]}"
        )
    rate = 100 * killed / max(counted, 1)
    print(f"{counted} mutants of {len(names or sampled())} operations, {killed} killed ({rate:.1f} %), "
          f"{len(survivors)} survived, {len(excused)} equivalent")  # fmt: skip
    return 0 if rate >= 98 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
