"""Formulas typed by a user, read by a list of what is allowed and never run as code.

Python's parser only makes the tree; names, numbers, vectors, operators and the functions below are all that
may stand in it. Names assigned in front (`a = w*x; a + a`) are shared, so their gradients add up.
Knows the public array functions; knows nothing of stories.
"""

from __future__ import annotations

import ast
import difflib
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import functional
from ..dtypes import float64
from ..errors import ChainruleError, ExpressionError
from ..graph import Node
from ..operations import Array
from ..tensor import Tensor, products, statistical
from ..tensor import elementwise as elementwise_functions

# Limits that keep a typed formula harmless: letters, nesting, elements of a value and of a result, exponent.
MAX_LETTERS = 2000
MAX_DEPTH = 60
MAX_GIVEN = 1000
MAX_ELEMENTS = 100_000
MAX_EXPONENT = 1000

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.MatMult: operator.matmul,
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
_CONSTANTS = {"pi": math.pi, "e": math.e}


def negative_log_likelihood(p: Any, y: Any) -> Tensor:
    """−Σ y·log p of probabilities `p`: the loss of the true class alone.

    >>> round(negative_log_likelihood(0.5, 1.0).item(), 4)
    0.6931
    """
    terms = functional.absorb(elementwise_functions.log(p), y)
    return -statistical.sum(terms) if terms.ndim else -terms


def _cross_entropy(z: Any, y: Any) -> Tensor:
    """Softmax and cross-entropy of logits; `y` is a class or a vector of shares."""
    target = y if isinstance(y, Tensor) else Tensor(np.float64(y))
    if target.ndim == 0 and float(target) == int(float(target)):
        target = Tensor(np.asarray(int(float(target))))
    return functional.cross_entropy(z, target)


@dataclass(frozen=True)
class Function:
    """A function that may be called: how many arguments, and whether it takes `axis` and `keepdims`."""

    call: Callable[..., Any]
    least: int
    most: int
    along_axis: bool = False


_ONE = (
    "sigmoid", "tanh", "relu", "exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "square", "sin", "cos",
    "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erf", "abs", "sign", "floor",
    "ceil", "reciprocal",
)  # fmt: skip
_TWO = ("maximum", "minimum", "add", "subtract", "multiply", "divide", "pow", "logaddexp", "hypot", "atan2")
_REDUCTIONS = ("sum", "mean", "max", "min", "prod", "var", "std")

FUNCTIONS: dict[str, Function] = {
    **{name: Function(getattr(elementwise_functions, name), 1, 1) for name in _ONE},
    **{name: Function(getattr(elementwise_functions, name), 2, 2) for name in _TWO},
    **{name: Function(getattr(statistical, name), 1, 1, True) for name in _REDUCTIONS},
    **{name: Function(getattr(functional, name), 1, 1) for name in ("softplus",)},
    **{name: Function(getattr(functional, name), 1, 1, True) for name in ("softmax", "log_softmax", "logsumexp")},
    "matmul": Function(products.matmul, 2, 2),
    "dot": Function(products.matmul, 2, 2),
    "outer": Function(products.outer, 2, 2),
    "where": Function(elementwise_functions.where, 3, 3),
    "clip": Function(elementwise_functions.clip, 3, 3),
    "absorb": Function(functional.absorb, 2, 2),
    "mse": Function(functional.mse_loss, 2, 2),
    "bce": Function(functional.binary_cross_entropy, 2, 2),
    "bce_with_logits": Function(functional.binary_cross_entropy_with_logits, 2, 2),
    "ce": Function(_cross_entropy, 2, 2),
    "nll": Function(negative_log_likelihood, 2, 2),
}  # fmt: skip


@dataclass
class Evaluation:
    """A formula computed once: its result, every named tensor, and the text behind each node."""

    result: Tensor
    named: dict[str, Tensor]
    sources: dict[Node, str] = field(default_factory=dict)


class Expression:
    """A formula that has been read and found harmless.

    >>> formula = Expression("a = w*x; a + a")
    >>> formula.names
    ('w', 'x')
    >>> formula.evaluate({"w": 3.0, "x": 2.0}).result.item()
    12.0
    """

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.statements = _parse(self.text)
        self.names = _free_names(self.statements)

    def check(self, given: Sequence[str]) -> None:
        """Raise ExpressionError unless every name in the formula has a value, and every value a use."""
        for name in self.names:
            if name not in given:
                close = [other for other in given if other.lower() == name.lower()]
                close += difflib.get_close_matches(name, given, 1, 0.5) + difflib.get_close_matches(
                    name, FUNCTIONS, 1, 0.8
                )
                hint = f" Did you mean {close[0]}?" if close else f" Add {name}=NUMBER"
                known = ", ".join(given) or "no names"
                raise ExpressionError(
                    f"every name needs a value; got {name!r} without one (given: {known}).{hint}"
                )
        for name in given:
            if name not in self.names:
                used = ", ".join(self.names) or "none"
                raise ExpressionError(
                    f"every value needs a name of the formula; got {name!r}, which it does not use "
                    f"(it uses: {used}). Take the value out or use the name"
                )

    def evaluate(self, values: Mapping[str, Any], requires_grad: bool = True) -> Evaluation:
        """Compute the formula in float64; the values given require grad, so that each has a gradient."""
        self.check(list(values))
        named = {
            name: Tensor(np.asarray(value, dtype=np.float64), dtype=float64, requires_grad=requires_grad)
            for name, value in values.items()
        }
        walker = _Walker(self.text, named)
        result: Any = None
        for statement in self.statements:
            result = walker.value(statement.value)
            if isinstance(statement, ast.Assign):
                target = statement.targets[0]
                assert isinstance(target, ast.Name)
                named[target.id] = walker.tensor(result)
        return Evaluation(walker.tensor(result), named, walker.sources)


def _refuse(found: str, hint: str = "") -> ExpressionError:
    allowed = "names, numbers, [vectors], + - * / ** @, comparisons, name = …; and the listed functions"
    return ExpressionError(
        f"a formula may hold {allowed}; got {found}. {hint or 'See chainrule explain --help'}"
    )


# ---------------------------------------------------------------------------------------------- reading


def _parse(text: str) -> list[ast.Assign | ast.Expr]:
    if len(text) > MAX_LETTERS:
        raise ExpressionError(f"a formula has at most {MAX_LETTERS} letters; got {len(text)}. Shorten it")
    if not text:
        raise ExpressionError('a formula is needed; got an empty one. Write for example "sigmoid(w*x)"')
    try:
        statements = ast.parse(text, mode="exec").body
    except SyntaxError as failure:
        raise ExpressionError(
            f"a formula must be readable as arithmetic; got {_short(text)!r}, unclear at letter {failure.offset or 1} "
            f"({failure.msg}). Write for example sigmoid(w*x + b)"
        ) from None
    except (ValueError, MemoryError, RecursionError):
        raise ExpressionError(
            "a formula must be readable as arithmetic; got one nested too deeply. Simplify it"
        ) from None
    _check_depth(statements)
    result: list[ast.Assign | ast.Expr] = []
    for k, statement in enumerate(statements):
        last = k == len(statements) - 1
        if isinstance(statement, ast.Expr) and last:
            result.append(statement)
        elif isinstance(statement, ast.Assign) and not last:
            _check_target(statement)
            result.append(statement)
        elif isinstance(statement, ast.Expr | ast.Assign):
            raise _refuse(_quote(text, statement), "Write name = …; for each part, and the result last")
        else:
            raise _refuse(_quote(text, statement))
    for statement in result:
        for node in ast.walk(statement.value):
            _check_node(text, node)
    return result


def _quote(text: str, node: ast.AST) -> str:
    segment = ast.get_source_segment(text, node) or type(node).__name__
    return repr(_short(segment))


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _check_depth(statements: Sequence[ast.AST]) -> None:
    level: list[ast.AST] = list(statements)
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    raise ExpressionError(
        f"a formula may be nested {MAX_DEPTH} deep; got a deeper one. Name parts: a = …; f(a)"
    )


def _check_target(statement: ast.Assign) -> None:
    target = statement.targets[0]
    if len(statement.targets) != 1 or not isinstance(target, ast.Name):
        raise _refuse("an assignment to something other than one name", "Write a = w*x")
    if target.id in FUNCTIONS or target.id.startswith("__"):
        raise _refuse(f"an assignment to {target.id!r}", "Choose another name")


def _check_node(text: str, node: ast.AST) -> None:
    """Let through what the walker understands; name everything else."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise _refuse(f"{_kind(node.value)} {_quote(text, node)}")
        _number(node.value)
    elif isinstance(node, ast.BinOp):
        if type(node.op) not in _BINARY:
            raise _refuse(f"the operator in {_quote(text, node)}", "Use ** for powers")
        if (
            isinstance(node.op, ast.Pow)
            and isinstance(node.right, ast.Constant)
            and _too_large(node.right.value)
        ):
            raise ExpressionError(
                f"an exponent may reach {MAX_EXPONENT}; got {_quote(text, node.right)}. Use a smaller one"
            )
    elif isinstance(node, ast.UnaryOp):
        if not isinstance(node.op, ast.USub | ast.UAdd):
            raise _refuse(f"the operator in {_quote(text, node)}")
    elif isinstance(node, ast.Compare):
        if len(node.ops) != 1 or type(node.ops[0]) not in _COMPARE:
            raise _refuse(f"the comparison {_quote(text, node)}", "Compare two things with < <= > >= == !=")
    elif isinstance(node, ast.Call):
        _check_call(text, node)
    elif isinstance(node, ast.List | ast.Tuple):
        as_array(_plain(node), _quote(text, node))
    elif not isinstance(
        node,
        ast.Name | ast.List | ast.Tuple | ast.Load | ast.operator | ast.unaryop | ast.cmpop | ast.keyword,
    ):
        raise _refuse(f"{_article(node)} {_quote(text, node)}")


def _too_large(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) > MAX_EXPONENT


def _check_call(text: str, node: ast.Call) -> None:
    if not isinstance(node.func, ast.Name):
        raise _refuse(f"a call of {_quote(text, node.func)}")
    name = node.func.id
    function = FUNCTIONS.get(name)
    if function is None:
        close = difflib.get_close_matches(name, FUNCTIONS, 1, 0.5)
        hint = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(sorted(FUNCTIONS))}"
        raise ExpressionError(f"only listed functions may be called; got {name!r}. {hint}")
    if not function.least <= len(node.args) <= function.most:
        hint = f". For the larger of two write {name}imum(a, b)" if name in ("max", "min") else ""
        raise ExpressionError(
            f"{name} takes {function.most} argument{'s' * (function.most > 1)}; got {len(node.args)}{hint}"
        )
    for keyword in node.keywords:
        if not function.along_axis or keyword.arg != "axis":
            raise _refuse(
                f"the argument {keyword.arg or '**'} of {name}",
                "Only axis=NUMBER of sums and the like is known",
            )
        if _literal(keyword.value) is None:
            raise _refuse(f"axis={_quote(text, keyword.value)}", "axis is a whole number")


def _kind(value: Any) -> str:
    return {str: "the text", bytes: "the bytes", bool: "the truth value", complex: "the complex number"}.get(
        type(value), "the constant"
    )


def _article(node: ast.AST) -> str:
    names = {
        "Attribute": "an attribute access",
        "Lambda": "a lambda",
        "Subscript": "an index",
        "IfExp": "an if-else",
    }
    return names.get(type(node).__name__, f"a {type(node).__name__}")


def _literal(node: ast.AST) -> int | None:
    """The whole number that the tree spells, or None."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _literal(node.operand)
        return None if inner is None else -inner
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def _number(value: int | float) -> float:
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ExpressionError("numbers go up to 1.8e308; got a larger one. Use a smaller number")
    return result


def _free_names(statements: Sequence[ast.Assign | ast.Expr]) -> tuple[str, ...]:
    """Names that need a value from outside, in order of appearance."""
    bound: set[str] = set()
    free: dict[str, None] = {}
    for statement in statements:
        called = {id(node.func) for node in ast.walk(statement.value) if isinstance(node, ast.Call)}
        found = [
            node
            for node in ast.walk(statement.value)
            if isinstance(node, ast.Name) and id(node) not in called
        ]
        for node in sorted(found, key=lambda one: (one.lineno, one.col_offset)):
            if node.id not in bound and node.id not in _CONSTANTS:
                free[node.id] = None
        if isinstance(statement, ast.Assign):
            target = statement.targets[0]
            assert isinstance(target, ast.Name)
            if target.id in bound or target.id in free:
                raise ExpressionError(
                    f"a name is assigned once; got {target.id!r} again. Choose another name"
                )
            bound.add(target.id)
    return tuple(free)


# -------------------------------------------------------------------------------------------- computing


class _Walker:
    """Computes a tree that has been checked."""

    def __init__(self, text: str, named: dict[str, Tensor]) -> None:
        self.text = text
        self.named = named
        self.sources: dict[Node, str] = {}

    def value(self, node: ast.expr) -> Any:
        """The tensor, or the plain number, that the tree stands for."""
        try:
            result = self._compute(node)
        except ExpressionError:
            raise
        except ChainruleError as failure:
            said = failure.message
            raise ExpressionError(f"{_quote(self.text, node)}: {said}") from failure
        if isinstance(result, Tensor):
            if result.size > MAX_ELEMENTS:
                raise ExpressionError(
                    f"results have at most {MAX_ELEMENTS} elements; got {result.shape} from {_quote(self.text, node)}. "
                    "Use smaller vectors"
                )
            if not isinstance(node, ast.Name):
                self.sources.setdefault(result.node, ast.get_source_segment(self.text, node) or "")
        return result

    def tensor(self, value: Any) -> Tensor:
        """The value as a float64 tensor."""
        return value if isinstance(value, Tensor) else Tensor(np.float64(value), dtype=float64)

    def _compute(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            assert isinstance(node.value, int | float)
            return _number(node.value)
        if isinstance(node, ast.Name):
            return self.named[node.id] if node.id in self.named else _CONSTANTS[node.id]
        if isinstance(node, ast.List | ast.Tuple):
            return Tensor(as_array(_plain(node), "a vector"), dtype=float64)
        if isinstance(node, ast.UnaryOp):
            inner = self.value(node.operand)
            return -inner if isinstance(node.op, ast.USub) else inner
        if isinstance(node, ast.BinOp):
            return self._binary(node)
        if isinstance(node, ast.Compare):
            pair = self.value(node.left), self.value(node.comparators[0])
            return _COMPARE[type(node.ops[0])](self.tensor(pair[0]), pair[1])
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        function = FUNCTIONS[node.func.id]
        operands = [self.tensor(self.value(one)) for one in node.args]
        return function.call(
            *operands, **{str(keyword.arg): _literal(keyword.value) for keyword in node.keywords}
        )

    def _binary(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if not isinstance(left, Tensor) and not isinstance(right, Tensor):
            left = self.tensor(left)
        return _BINARY[type(node.op)](left, right)


def _plain(node: ast.expr) -> Any:
    """Nested lists of numbers; anything else inside a vector is refused."""
    if isinstance(node, ast.List | ast.Tuple):
        return [_plain(one) for one in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _plain(node.operand)
        if isinstance(inner, float):
            return -inner if isinstance(node.op, ast.USub) else inner
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, int | float)
        and not isinstance(node.value, bool)
    ):
        return _number(node.value)
    raise ExpressionError(f"a vector holds numbers; got {ast.unparse(node)!r} in it. Write [1, 2, 3]")


# ----------------------------------------------------------------------------------------- given values


def read_value(name: str, text: str) -> Array:
    """The number, vector or matrix that a user typed after `name=`, as a float64 array.

    >>> read_value("x", "[1, 2.5]")
    array([1. , 2.5])
    """
    what = f"{name}={_short(text)}"
    wrong = (
        f"a value is a number, a vector [1, 2] or a matrix [[1, 2], [3, 4]]; got {what!r}. "
        f"Write for example {name}=0.5"
    )
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ExpressionError(wrong) from None
    _check_depth([tree])
    try:
        return as_array(_plain(tree), what)
    except ExpressionError as failure:
        raise (
            failure if "rows" in str(failure) or "elements" in str(failure) else ExpressionError(wrong)
        ) from None


def as_array(value: Any, what: str) -> Array:
    """Nested lists as an array of float64; rows of unequal length and large ones are refused."""
    try:
        array = np.array(value, dtype=np.float64)
    except ValueError:
        raise ExpressionError(
            f"the rows of a matrix have equal length; got {what}. Fill the short rows"
        ) from None
    if array.size > MAX_GIVEN or array.size == 0:
        raise ExpressionError(f"a value has 1 to {MAX_GIVEN} elements; got {array.size} in {what}. Use fewer")
    return array


def read_assignments(pairs: Sequence[str]) -> dict[str, Array]:
    """`["w=0.8", "x=[1, 2]"]` as arrays by name."""
    values: dict[str, Array] = {}
    for pair in pairs:
        name, mark, text = pair.partition("=")
        name = name.strip()
        if not mark or not name.isidentifier():
            raise ExpressionError(f"values are given as name=number; got {pair!r}. Write for example w=0.8")
        if name in values:
            raise ExpressionError(f"a name has one value; got {name!r} twice. Take one out")
        if name in FUNCTIONS:
            raise ExpressionError(
                f"{name} is a function here; got it as the name of a value. Choose another name"
            )
        values[name] = read_value(name, text)
    return values
