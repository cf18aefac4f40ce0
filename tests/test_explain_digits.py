"""Random formulas of depth 8 with vectors and shared parts: every number told, recomputed with mpmath.

The recomputation knows no chain rule: each gradient is a difference quotient with 50 digits, in which one
element, as one consumer reads it, is moved by 1e-25.
"""

import os
import random
import re
from dataclasses import dataclass, field

import mpmath
import numpy as np
import pytest

from chainrule.explain.expression import Expression
from chainrule.explain.story import build

COUNT = int(os.environ.get("CHAINRULE_RANDOM_EXPRESSIONS", "25"))
DIGITS = 6
LENGTH = 3
H = mpmath.mpf(10) ** -25

UNARY = {
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "tanh": mpmath.tanh,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "relu": lambda x: max(x, mpmath.mpf(0)),
    "abs": abs,
    "erf": mpmath.erf,
    "square": lambda x: x * x,
    "softplus": lambda x: mpmath.log(1 + mpmath.exp(x)),
}
BINARY = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "maximum": max,
    "minimum": min,
}


@dataclass(eq=False)
class Term:
    """A node of the formula: its text, the operands, and what it does to one element (or to a vector)."""

    text: str
    kind: str
    operands: list["Term"] = field(default_factory=list)
    values: list[mpmath.mpf] | None = None
    vector: bool = False


class Generator:
    """Terms over given leaves; every text is made once, so that a text names one term."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.leaves = []
        for name in ("w", "x", "u", "v"):
            vector = name in "uv"
            numbers = [
                round(self.random.uniform(-1.5, 1.5), 2) or 0.25 for _ in range(LENGTH if vector else 1)
            ]
            self.leaves.append(Term(name, "leaf", [], [mpmath.mpf(one) for one in numbers], vector))
        self.terms = list(self.leaves)
        self.texts = {leaf.text for leaf in self.leaves}
        self.shared = []

    def term(self, depth):
        if depth == 0:
            return self.random.choice(self.leaves + self.shared)
        for _ in range(50):
            made = self._operation(depth)
            if made is not None:
                self.terms.append(made)
                return made
        return self.random.choice(self.leaves)

    def _operation(self, depth):
        if self.random.random() < 0.55:
            name = self.random.choice([*UNARY, "sum", "mean"])
            operand = self.term(depth - 1)
            if name in ("sum", "mean") and not operand.vector:
                name = "tanh"
            vector = operand.vector and name not in ("sum", "mean")
            return self._new(f"{name}({operand.text})", name, [operand], vector)
        name = self.random.choice(list(BINARY))
        pair = [self.term(depth - 1), self.term(self.random.randrange(2))]
        self.random.shuffle(pair)
        left, right = (one.text if one.kind not in "+-*" else f"({one.text})" for one in pair)
        text = f"{left} {name} {right}" if name in "+-*" else f"{name}({left}, {right})"
        return self._new(text, name, pair, any(one.vector for one in pair))

    def _new(self, text, kind, operands, vector):
        if text in self.texts or len(text) > 600:
            return None
        self.texts.add(text)
        return Term(text, kind, operands, None, vector)

    def formula(self):
        """(text, root): shared parts are named first."""
        parts = []
        for name in ("s1", "s2"):
            part = self.term(3)
            if part.kind == "leaf" or part.text in ("s1", "s2"):
                continue
            parts.append(f"{name} = {part.text}")
            part.text = name
            self.shared.append(part)
        root = self.term(8)
        if root.vector:
            root = Term(f"sum({root.text})", "sum", [root])
            self.terms.append(root)
        return "; ".join([*parts, root.text]), root


def evaluate(terms, bump=None):
    """Values of all terms; `bump` (consumer, position, element) moves one operand element by H."""
    values = {}
    for term in terms:
        if term.kind == "leaf":
            values[term] = term.values
            continue
        read = []
        for position, operand in enumerate(term.operands):
            numbers = values[operand]
            if term.vector and not operand.vector:
                numbers = numbers * LENGTH
            if bump is not None and bump[0] is term and bump[1] == position:
                numbers = [one + H * (k == bump[2]) for k, one in enumerate(numbers)]
            read.append(numbers)
        values[term] = apply(term, read)
    return values


def apply(term, read):
    if term.kind in ("sum", "mean"):
        total = mpmath.fsum(read[0])
        return [total / LENGTH if term.kind == "mean" else total]
    if term.kind in UNARY:
        return [UNARY[term.kind](one) for one in read[0]]
    return [BINARY[term.kind](*pair) for pair in zip(*read)]


class Exact:
    """Exact values, gradients of every term, and what passes along every edge."""

    def __init__(self, terms, root):
        self.order = reachable(terms, root)
        self.value = evaluate(self.order)
        self.edge = {}  # as the consumer reads it: broadcast
        for term in self.order:
            for position, operand in enumerate(term.operands):
                size = LENGTH if (term.vector or operand.vector) else 1
                self.edge[term, position] = [self._slope(root, (term, position, k)) for k in range(size)]
        self.gradient = {root: [mpmath.mpf(1)]}
        for operand in self.order:
            if operand is not root:
                arrived = [self.arriving(*key) for key in self.edge if key[0].operands[key[1]] is operand]
                self.gradient[operand] = [mpmath.fsum(column) for column in zip(*arrived)]

    def _slope(self, root, bump):
        return (evaluate(self.order, bump)[root][0] - self.value[root][0]) / H

    def arriving(self, term, position):
        """The edge's gradient in the operand's own shape."""
        numbers = self.edge[term, position]
        return numbers if term.operands[position].vector else [mpmath.fsum(numbers)]

    def local(self, term, position):
        """∂term/∂operand, element by element."""
        read = [
            self.value[one] * LENGTH if term.vector and not one.vector else self.value[one]
            for one in term.operands
        ]
        size = len(read[position])
        result = []
        for k in range(size):
            moved = list(read)
            moved[position] = [one + H * (j == k) for j, one in enumerate(read[position])]
            changed = apply(term, moved)
            at = k if len(changed) == size else 0
            result.append((changed[at] - apply(term, read)[at]) / H)
        return result


def reachable(terms, root):
    """Terms behind the root, operands first."""
    needed, pending = set(), [root]
    while pending:
        term = pending.pop()
        if term not in needed:
            needed.add(term)
            pending += term.operands
    return [term for term in terms if term in needed]


def agrees(printed, exact, digits=DIGITS):
    """Is the printed number the exact one, rounded to `digits`? Float64 may lose the 12th digit before."""
    exact = mpmath.mpf(exact)
    if exact == 0:
        return abs(printed) <= 1e-12
    unit = mpmath.mpf(10) ** (mpmath.floor(mpmath.log10(abs(exact))) - digits + 1)
    return abs(mpmath.mpf(printed) - exact) <= unit * mpmath.mpf("0.5001") + mpmath.mpf("1e-13") * (
        1 + abs(exact)
    )


def flat(value):
    return [one for part in value for one in flat(part)] if isinstance(value, list) else [value]


def compare(printed, exact, what, digits=DIGITS):
    printed = flat(printed)
    assert len(printed) in (len(exact), 1), f"{what}: {printed} against {exact}"
    for k, one in enumerate(exact):
        shown = printed[k] if len(printed) == len(exact) else printed[0]
        assert agrees(shown, one, digits), f"{what}[{k}]: {shown} is printed, {mpmath.nstr(one, 17)} is exact"


def away_from_kinks(seed):
    """A formula without ties and kinks: there the gradient is a convention, which other tests state."""
    for attempt in range(1000):
        generator = Generator(1000 * seed + attempt)
        text, root = generator.formula()
        order = reachable(generator.terms, root)
        values = evaluate(order)
        gaps = [
            abs(values[term.operands[0]][k])
            for term in order
            if term.kind in ("relu", "abs")
            for k in range(len(values[term]))
        ]
        for term in order:
            if term.kind in ("maximum", "minimum"):
                pair = [
                    values[one] * (1 if one.vector or not term.vector else LENGTH) for one in term.operands
                ]
                gaps += [abs(x - y) for x, y in zip(*pair)]
        if min(gaps, default=1) > 1e-6 and len(order) > 12:
            return generator, text, root
    raise AssertionError("no formula found")


@dataclass
class Case:
    story: object
    exact: Exact
    term: dict  # step number → term


@pytest.fixture(scope="module", params=range(COUNT))
def case(request):
    with mpmath.workdps(50):
        generator, text, root = away_from_kinks(request.param)
        done = Expression(text).evaluate(
            {leaf.text: np.array([float(one) for one in leaf.values]).reshape((LENGTH,) if leaf.vector else ())
             for leaf in generator.leaves if re.search(rf"\b{leaf.text}\b", text)}
        )  # fmt: skip
        story = build(done.result, list(done.named.items()), [], sources=done.sources)
        exact = Exact(generator.terms, root)
        by_text = {term.text: term for term in exact.order}
        terms = {}
        for step in story.steps:
            found = (
                root
                if step is story.root
                else by_text.get(step.source or step.name) or by_text.get(step.name)
            )
            if found is not None:
                terms[step.number] = found
        yield Case(story, exact, terms)


def broadcast_of(case, step):
    """(consumer, position) for a step that only spreads a number over a vector."""
    consumer, edge = step.arrivals[0]
    return case.term[consumer.number], edge.position


def test_json_numbers(case):
    """Every value, gradient, local, incoming and outgoing number of the JSON, to 12 digits."""
    with mpmath.workdps(50):
        exact, checked = case.exact, 0
        for step, told in zip(case.story.steps, case.story.data()["steps"]):
            term = case.term.get(step.number)
            if term is None:
                assert step.operation == "broadcast_to"
                consumer, position = broadcast_of(case, step)
                compare(told["value"], exact.value[consumer.operands[position]] * LENGTH, step, 12)
                compare(told["gradient"], exact.edge[consumer, position], step, 12)
                continue
            compare(told["value"], exact.value[term], f"{step} value", 12)
            compare(told["gradient"], exact.gradient[term], f"{step} gradient", 12)
            for position, operand in enumerate(told["operands"]):
                if operand["outgoing"] is None:  # softplus is logaddexp(x, 0): a number is no term
                    continue
                compare(operand["incoming"], exact.gradient[term], f"{step} incoming", 12)
                spread = case.story.steps[operand["step"] - 1].operation == "broadcast_to"
                arriving = exact.edge[term, position] if spread else exact.arriving(term, position)
                compare(operand["outgoing"], arriving, f"{step} outgoing {position}", 12)
                if operand["local"] is not None:
                    compare(operand["local"], exact.local(term, position), f"{step} local {position}", 12)
                checked += 1
        assert checked >= len(case.term) / 2


NUMBER = re.compile(r"-?(?:\d+\.?\d*(?:e[+-]?\d+)?|inf|nan)")


def read(text):
    return [float(one) for one in NUMBER.findall(text)]


@pytest.mark.parametrize("language", ["en", "ko"])
def test_text_numbers(case, language):
    """Every number of the table and of the told backward pass, to the printed digit."""
    with mpmath.workdps(50):
        table, told = re.split(r"\n\n(?=[^ ])", case.story.text(language).partition("\n\n")[2], maxsplit=1)
        check_table(case, table)
        check_backward(case, told)


def check_table(case, table):
    exact, step, position = case.exact, None, 0
    rows = table.split("\n")[2:]
    assert sum(bool(re.match(r"  \d", row)) for row in rows) == len(case.story.steps)
    for row in rows:
        cells = re.split(r"\s{2,}", row.strip())
        if re.match(r"  \d", row):
            step, position = case.story.steps[int(cells[0]) - 1], 0
            term = case.term.get(step.number)
            if term is None:
                continue
            compare(read(cells[2]), exact.value[term], f"{step} value")
            compare(read(cells[-1]), exact.gradient[term], f"{step} gradient")
            local = cells[3] if len(cells) == 5 else ""
        else:
            local = cells[0]
        if term is not None and local.startswith("∂"):
            compare(read(local.rpartition(" = ")[2]), exact.local(term, position), f"{step} local")
        position += 1


def check_backward(case, told):
    exact, step, seen = case.exact, None, 0
    for line in told.split("\n"):
        head = re.match(r"  (\w+) = ", line)
        if head:
            step, position = case.story[head[1]], 0
        elif line.startswith("    → "):
            term = case.term.get(step.number)
            if term is not None and " × " in line:
                product, outgoing = line.rpartition(" = ")[::2]
                incoming, local = product.rpartition(" = ")[2].split(" × ")
                compare(read(incoming), exact.gradient[term], f"{step} incoming")
                compare(read(local), exact.local(term, position), f"{step} local")
                spread = step.edges[position].source.operation == "broadcast_to"
                compare(
                    read(outgoing),
                    exact.edge[term, position] if spread else exact.arriving(term, position),
                    step,
                )
                seen += 1
            position += 1
        elif re.search(r"^  \S.*: .* = ", line) and step is not None:
            names = re.findall(r"[a-z]\w*|L", re.sub(r"[가-힣]", " ", line.partition(":")[0]))
            met = next(one for one in case.story.steps if len(one.arrivals) > 1 and one.name in names)
            if met.number in case.term:
                compare(read(line.rpartition(" = ")[2]), exact.gradient[case.term[met.number]], f"{met} sum")
    assert seen
