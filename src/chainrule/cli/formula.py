"""The story of a formula for `chainrule explain "sigmoid(w*x)" w=0.8 x=0.5 --loss bce --y 1`, in float64.

Below the story: one update by gradient descent, numerical differentiation with its cost, and remarks where
a formula or picture that is often taught does not hold.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, ExpressionError
from ..explain.data import numbers
from ..explain.expression import (
    Evaluation,
    Expression,
    negative_log_likelihood,
    read_assignments,
    read_value,
)
from ..explain.numbers import digits, show
from ..explain.numerical import (
    STEPS,
    Difference,
    best_difference,
    central,
    proportional_blame,
    rounding_noise,
)
from ..explain.story import Step, Story, build
from ..explain.text import tell
from ..functional import binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy, mse_loss
from ..language import LANGUAGES, sentence
from ..operations import Array
from ..tensor import Tensor
from . import readable
from .outputs import refuse_own_files

LOSSES = ("mse", "bce", "bce_with_logits", "ce", "nll")
_CLASS_LOSSES = "ce and nll"

# Elements whose derivative is checked numerically; more would be a wait, not an explanation.
CHECKED_ELEMENTS = 100

# Above this relative difference the slopes to the left and right are taken for a kink.
_KINK = 1e-3


def explain_formula(arguments: argparse.Namespace) -> int:
    """Print the story; 1 if a numerical derivative contradicts the gradient."""
    page = page_path(arguments.html) if arguments.html is not None else None
    problem = _problem(arguments)
    story = _story(problem, arguments)
    sections = _sections(problem, story, arguments, arguments.lang)
    for one in sections:
        story.extras |= one.data
    story.notes[arguments.lang] = [line for one in sections for line in one.lines]
    if arguments.json:
        told = story.json()
    else:
        told = "\n".join([tell(story, arguments.lang), *story.notes[arguments.lang]])
    if page is not None:  # before anything is printed: the reader of a pipe may leave early
        for language in LANGUAGES:
            if language not in story.notes:
                others = _sections(problem, story, arguments, language)
                story.notes[language] = [line for one in others for line in one.lines]
        story.save(page, arguments.lang)
    print(told)
    if page is not None and not arguments.json:
        print(sentence("explain.page", arguments.lang, path=readable(page)))
    return 1 if any(one.contradiction for one in sections) else 0


def page_path(path: str, run: str | None = None) -> str:
    """The path of the page, refused before anything is printed. run: the directory of the run that it tells of."""
    if not Path(path).absolute().parent.is_dir():
        raise ArgumentError(f"--html writes into a folder that exists; got {path!r}. Make the folder first")
    if not path.lower().endswith((".html", ".htm")):
        raise ArgumentError(f"--html writes a page; got {path!r}. Choose a name that ends in .html")
    refuse_own_files("--html", path, run)
    return path


# ------------------------------------------------------------------------------------------ the problem


@dataclass
class Problem:
    """A formula, its values, and what is done with its result."""

    formula: Expression
    values: dict[str, Array]
    loss: str | None
    target: Array | None

    def evaluate(self, values: Mapping[str, Array]) -> tuple[Evaluation, Tensor]:
        """The formula and, behind it, the loss (or the formula's own result)."""
        done = self.formula.evaluate(values)
        if self.loss is None:
            return done, done.result
        prediction, target = done.result, self.target
        assert target is not None
        if target.ndim == 0 and self.loss == "nll" and prediction.ndim == 1:  # a class, as a one-hot vector
            target = _one_hot(int(_classes(target)), prediction.shape[0])
        elif target.ndim == 0 and self.loss != "ce":  # one target for all
            target = np.broadcast_to(target, prediction.shape)
        wanted = Tensor(target, dtype=prediction.dtype)
        done.named.setdefault("y", wanted)
        return done, self._apply(prediction, wanted)

    def _apply(self, prediction: Tensor, wanted: Tensor) -> Tensor:
        if self.loss == "mse":
            return mse_loss(prediction, wanted)
        if self.loss == "bce":
            return binary_cross_entropy(prediction, wanted)
        if self.loss == "bce_with_logits":
            return binary_cross_entropy_with_logits(prediction, wanted)
        if self.loss == "ce" and prediction.ndim:
            assert self.target is not None
            classes = self.target.shape != prediction.shape
            return cross_entropy(prediction, Tensor(_classes(self.target)) if classes else wanted)
        if prediction.shape != wanted.shape:
            raise ExpressionError(
                f"nll needs a target of shape {prediction.shape}; got {wanted.shape}. Give as many values"
            )
        return negative_log_likelihood(prediction, wanted)

    def objective(self, values: Mapping[str, Array]) -> float:
        """The number that is minimised: the loss, or the sum of the result's elements."""
        return float(self.evaluate(values)[1].detach().numpy().sum())


def _one_hot(chosen: int, classes: int) -> Array:
    if not 0 <= chosen < classes:
        raise ExpressionError(
            f"--y needs a class from 0 to {classes - 1}; got {chosen}. Classes are counted from 0"
        )
    shares: Array = np.eye(classes)[chosen]
    return shares


def _classes(target: Array) -> Array:
    if not np.equal(target, np.floor(target)).all():
        raise ExpressionError(
            f"{_CLASS_LOSSES} need classes (whole numbers) or one share for each logit; got {show(target)}. Check --y"
        )
    return target.astype(np.int64)


def _problem(arguments: argparse.Namespace) -> Problem:
    formula = Expression(readable(arguments.expression))
    values = read_assignments([readable(one) for one in arguments.values])
    target = None
    if arguments.loss is not None:
        if arguments.y is not None:
            target = read_value("y", arguments.y)
        elif "y" in values and "y" not in formula.names:
            target = values.pop("y")
        else:
            raise ExpressionError(
                f"a loss needs a target; got --loss {arguments.loss} without --y. Add --y 1"
            )
    elif arguments.y is not None:
        raise ExpressionError(
            f"a target needs a loss; got --y {arguments.y} without --loss. Add --loss {', '.join(LOSSES)}"
        )
    formula.check(list(values))
    return Problem(formula, values, arguments.loss, target)


def _story(problem: Problem, arguments: argparse.Namespace) -> Story:
    done, result = problem.evaluate(problem.values)
    if not result.requires_grad:
        raise ExpressionError(
            f"a gradient needs a result that follows its values smoothly; got {problem.formula.text!r}, which is "
            "a comparison or constant. Use it inside where(…)"
        )
    names = list(done.named.items())
    taken = set(done.named)
    if problem.loss is not None:
        logits = problem.loss in ("bce_with_logits", "ce") and not (
            problem.loss == "ce" and not done.result.ndim
        )
        names += [("z" if logits else "ŷ", done.result), ("L" if "L" not in taken else "loss", result)]
    elif not any(one.node is result.node for one in done.named.values()):
        names.append(("y" if "y" not in taken else "out", result))
    depth = arguments.depth
    story = build(
        result,
        names,
        [],
        fold=not arguments.unfold,
        depth=depth,
        language=arguments.lang,
        sources=done.sources,
    )
    given = ", ".join(f"{name} = {show(value)}" for name, value in problem.values.items())
    ending = f", y = {show(problem.target)}" if problem.target is not None else ""
    root, text = story.root.name, problem.formula.text
    if ";" in text or "\n" in text:
        head = f"{text}   →   {root} = {problem.loss}(ŷ, y)" if problem.loss else text
    else:
        head = f"{root} = {problem.loss}({text}, y)" if problem.loss else f"{root} = {text}"
    story.title = f"{head}   ({given}{ending})"
    return story


# --------------------------------------------------------------------------------------------- sections


@dataclass
class Section:
    """A part below the story: its lines, its data, and whether it found a contradiction."""

    lines: list[str]
    data: dict[str, Any]
    contradiction: bool = False


def _sections(problem: Problem, story: Story, arguments: argparse.Namespace, language: str) -> list[Section]:
    sections = []
    if problem.loss is not None or arguments.lr is not None:
        sections.append(_update(problem, story, arguments, language))
    sections.append(_numerical(problem, story, language))
    if arguments.check_steps:
        sections.append(_steps(problem, story, language))
    if arguments.blame is not None:
        sections.append(_blame(story, arguments.blame, language))
    remarks = _remarks(problem, story, language)
    if remarks:
        lines = ["", sentence("explain.remarks", language), *(f"  {remark}" for remark in remarks)]
        sections.append(Section(lines, {"remarks": remarks}))
    return sections


def _gradient(story: Story, name: str) -> Array:
    found = story[name].gradient
    assert found is not None
    return found


def _value(step: Step) -> Array:
    assert step.value is not None
    return step.value


def _updated_names(problem: Problem, wish: str | None) -> list[str]:
    """Names that gradient descent moves: those asked for, or those that look like weights, or all."""
    if wish is not None:
        chosen = [name.strip() for name in wish.split(",")]
        for name in chosen:
            if name not in problem.values:
                raise ExpressionError(
                    f"--update names given values; got {name!r} (given: {', '.join(problem.values)}). Check it"
                )
        return chosen
    weights = [name for name in problem.values if name.lower().startswith(("w", "b", "theta"))]
    return weights or list(problem.values)


def _update(problem: Problem, story: Story, arguments: argparse.Namespace, language: str) -> Section:
    """w ← w − η·∂L/∂w, and the loss that follows."""
    rate = 0.1 if arguments.lr is None else arguments.lr
    if not math.isfinite(rate):
        raise ArgumentError(f"a learning rate is a finite number; got {rate}. Use for example --lr 0.1")
    root = story.root.name
    lines = ["", sentence("explain.update", language, root=root, rate=digits(rate))]
    moved = dict(problem.values)
    data: dict[str, Any] = {"rate": rate, "values": {}}
    for name in _updated_names(problem, arguments.update):
        slope = _gradient(story, name)
        moved[name] = problem.values[name] - rate * slope
        data["values"][name] = numbers(moved[name])
        old = f"{show(problem.values[name])} − {digits(rate)} × {_bracketed(show(slope))}"
        lines.append(f"  {name} ← {old} = {show(moved[name])}")
    before, after = problem.objective(problem.values), problem.objective(moved)
    data |= {"before": _number(before), "after": _number(after)}
    still = all(np.array_equal(moved[name], value) for name, value in problem.values.items())
    key = f"explain.loss_{'falls' if after < before else 'stays' if still else 'rises'}"
    lines.append("  " + sentence(key, language, root=root, before=digits(before), after=digits(after)))
    return Section(lines, {"update": data})


def _bracketed(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def _number(value: float) -> Any:
    return numbers(np.asarray(value))


def _elements(problem: Problem) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, index) for name, value in problem.values.items() for index in np.ndindex(value.shape)]


def _label(root: str, name: str, index: Sequence[int]) -> str:
    return f"∂{root}/∂{name}" + (f"[{', '.join(map(str, index))}]" if index else "")


def _numerical(problem: Problem, story: Story, language: str) -> Section:
    """Every element's derivative by central differences beside its gradient, and what both cost."""
    elements = _elements(problem)
    lines = ["", sentence("explain.numerical", language)]
    rows, contradiction = [], False
    noise = rounding_noise(problem.evaluate(problem.values)[1].node)
    for name, index in elements[:CHECKED_ELEMENTS]:
        gradient = float(_gradient(story, name)[index])
        found = best_difference(problem.objective, problem.values, name, index, noise)
        verdict = _verdict(problem, found, gradient)
        contradiction = contradiction or verdict == "wrong"
        rows.append(
            {
                "name": name,
                "index": list(index),
                "gradient": _number(gradient),
                "numerical": _number(found.value),
                "step": _number(found.step),
                "error": _number(found.error),
                "verdict": verdict,
            }
        )
        lines.append("  " + _row(story.root.name, found, gradient, verdict, language))
    if len(elements) > CHECKED_ELEMENTS:
        lines.append(
            "  " + sentence("explain.checked_some", language, count=CHECKED_ELEMENTS, total=len(elements))
        )
    cost = {"elements": len(elements), "forward_passes": 2 * len(elements)}
    lines.append("  " + sentence("explain.cost", language, count=len(elements), passes=2 * len(elements)))
    return Section(lines, {"numerical": rows, "numerical_cost": cost}, contradiction)


def _row(root: str, found: Difference, gradient: float, verdict: str, language: str) -> str:
    sign = {"correct": "✓", "wrong": "✗"}.get(verdict, "?")
    values = {"gradient": digits(gradient), "numerical": digits(found.value)}
    key = "explain.measured" if math.isfinite(found.value) else "explain.unmeasured"
    measured = sentence(key, language, **values, step=f"{found.step:.0e}", error=f"{found.error:.0e}")
    text = f"{_label(root, found.name, found.index)}  {measured}  {sign}"
    return text if verdict == "correct" else f"{text} {sentence(f'explain.verdict_{verdict}', language)}"


def _verdict(problem: Problem, found: Difference, gradient: float) -> str:
    """correct, wrong, kink (the slopes left and right differ) or undecidable (no finite difference)."""
    if not (math.isfinite(found.value) and math.isfinite(gradient)):
        return "undecidable"
    if found.agrees(gradient):
        return "correct"
    up, down = dict(problem.values), dict(problem.values)
    up[found.name], down[found.name] = up[found.name].copy(), down[found.name].copy()
    step = 1e-6 * max(1.0, abs(float(problem.values[found.name][found.index])))
    up[found.name][found.index] += step
    down[found.name][found.index] -= step
    middle = problem.objective(problem.values)
    right = (problem.objective(up) - middle) / step
    left = (middle - problem.objective(down)) / step
    return "kink" if abs(right - left) > _KINK * max(1.0, abs(right), abs(left)) else "wrong"


def _steps(problem: Problem, story: Story, language: str) -> Section:
    """The U curve: the error of a central difference for every step, in the first element."""
    name, index = _elements(problem)[0]
    gradient = float(_gradient(story, name)[index])
    scale = max(1.0, abs(float(problem.values[name][index])))
    errors = [
        abs(central(problem.objective, problem.values, name, index, h * scale) - gradient) for h in STEPS
    ]
    lines = ["", sentence("explain.step_sizes", language, label=_label(story.root.name, name, index))]
    finite = [one for one in errors if one > 0 and math.isfinite(one)]
    low = math.log10(min(finite)) if finite else 0.0
    for h, error in zip(STEPS, errors):
        bar = "▇" * (1 + round(2 * (math.log10(error) - low))) if error > 0 and math.isfinite(error) else ""
        lines.append(f"  h = {h * scale:.0e}   {error:.1e}  {bar}")
    if finite and max(finite) > 100 * min(finite):
        lines.append("  " + sentence("explain.step_shape", language))
    data = [{"step": h * scale, "error": _number(error)} for h, error in zip(STEPS, errors)]
    return Section(lines, {"step_sizes": {"name": name, "index": list(index), "errors": data}})


# ---------------------------------------------------------------------------------------------- remarks


def _blame(story: Story, error: float, language: str) -> Section:
    """Proportional blame beside the gradient, for the terms of the last sum."""
    terms = _terms(story)
    values = [float(step.value) for step in terms if step.value is not None]
    shares, blame = proportional_blame(values, error)
    lines = ["", sentence("explain.blame", language, error=digits(error))]
    rows = []
    for step, share, part in zip(terms, shares, blame):
        row = {
            "name": step.name,
            "contribution": digits(step.value),
            "share": digits(share),
            "blame": digits(part),
        }
        lines.append("  " + sentence("explain.blame_row", language, **row, gradient=digits(error)))
        rows.append({"name": step.name, "share": share, "blame": part, "gradient": error})
    lines.append("  " + sentence("explain.blame_why", language))
    return Section(lines, {"blame": rows})


def _terms(story: Story) -> list[Step]:
    """Steps whose values the result adds up."""
    pending, terms = [story.root], list[Step]()
    while pending:
        step = pending.pop()
        if step.operation == "add" and (step is story.root or len(step.arrivals) == 1):
            pending += [edge.source for edge in reversed(step.edges)]
        else:
            terms.append(step)
    if len(terms) < 2 or any(step.value is None or step.value.size != 1 for step in terms):
        raise ExpressionError(
            f"--blame divides an error among the terms of a sum; got {story.title!r}. Use it on a + b"
        )
    return terms


# Losses that apply a function to what they get, and the loss to take where it has been applied already.
_APPLIED_INSIDE = {"ce": ("softmax", "nll"), "bce_with_logits": ("sigmoid", "bce")}


def _remarks(problem: Problem, story: Story, language: str) -> list[str]:
    """Where what is often taught does not hold for this formula, and what does."""
    remarks = []
    remarks += [
        sentence("explain.remark_zero", language, name=step.name, local=digits(local))
        for step, local in _absorbed(story)
    ]
    if any(step.operation == "matmul" or "matmul" in step.folded for step in story.steps):
        remarks.append(sentence("explain.remark_batch", language))
    twice = _APPLIED_INSIDE.get(problem.loss or "")
    if twice and any(edge.source.operation == twice[0] for edge in story.root.edges):
        remarks.append(
            sentence("explain.remark_twice", language, function=twice[0], loss=problem.loss, instead=twice[1])
        )
    inner = _logit(story)
    if inner is not None and problem.target is not None:
        p, y = float(_value(story["ŷ"])), float(problem.target)
        found = float(_gradient(story, inner.name))
        values = {
            "p": digits(p),
            "y": digits(y),
            "z": inner.name,
            "delta": digits(p - y),
            "found": digits(found),
        }
        if problem.loss == "bce":
            remarks.append(sentence("explain.remark_delta", language, **values))
        elif problem.loss in ("nll", "ce") and y != 1:
            with np.errstate(all="ignore"):
                whole = -(y * np.log(p) if y else 0.0) - (1 - y) * np.log1p(-p)
            remarks.append(sentence("explain.remark_half", language, **values, loss=digits(whole)))
    return remarks


def _absorbed(story: Story) -> list[tuple[Step, Array]]:
    """Steps where a gradient of 0 met a local derivative that is infinite or not a number, and that derivative."""
    found = []
    for step in story.steps:
        for edge in step.edges:
            if edge.local is None or step.gradient is None:
                continue
            met = (step.gradient == 0) & ~np.isfinite(edge.local)
            if met.any():
                found.append((step, np.broadcast_to(edge.local, met.shape)[met][0]))
    return found


def _logit(story: Story) -> Step | None:
    """The step z behind ŷ = sigmoid(z), where both are single numbers."""
    for step in story.steps:
        if step.name == "ŷ" and step.operation == "sigmoid" and step.type.shape == ():
            source = step.edges[0].source
            return source if source.gradient is not None else None
    return None
