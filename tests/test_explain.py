"""The story of a tensor: steps, names, folding, sums, both languages, JSON, and what it must not touch."""

import json
import re
import string

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, ops
from chainrule.cli import main
from chainrule.errors import ArgumentError, GradientError, ShapeError, TraceError
from chainrule.explain import explain
from chainrule.explain.formula import Formula, slope
from chainrule.explain.text import pad, width
from chainrule.graph import Node
from chainrule.language import catalogue, preferred_language
from chainrule.operations import INPUT, Type
from chainrule.tensor.core import wrap

TABLE = """\
L = binary_cross_entropy(y_hat, 1)

  step  node                                forward ▶  local derivative                          backward ◀ ∂L/∂node
  ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────
  1     w (leaf)                            0.8                                                  -0.200656
  2     x (constant)                        0.5                                                  —
  3     z = w·x                             0.4        ∂z/∂w = x = 0.5                           -0.401312
  4     y_hat = sigmoid(z)                  0.598688   ∂y_hat/∂z = y_hat·(1 − y_hat) = 0.240261  -1.67032
  5     L = binary_cross_entropy(y_hat, 1)  0.513015   ∂L/∂y_hat = -1.67032                      1
"""


def number(value, requires_grad=False):
    return cr.tensor(value, dtype=cr.float64, requires_grad=requires_grad)


def seed_neuron():
    w, x = number(0.8, True), number(0.5)
    z = w * x
    y_hat = cr.sigmoid(z)
    loss = cr.functional.binary_cross_entropy(y_hat, number(1.0))
    return w, x, z, y_hat, loss


def test_the_seeds_neuron_as_text():
    w, x, z, y_hat, loss = seed_neuron()
    told = str(explain(loss, names={"L": loss}, language="en"))
    assert told.startswith(TABLE)
    assert "→ y_hat: ∂L/∂L × ∂L/∂y_hat = 1 × (-1.67032) = -1.67032" in told
    assert "→ z: ∂L/∂y_hat × ∂y_hat/∂z = (-1.67032) × 0.240261 = -0.401312" in told
    assert "→ w: ∂L/∂z × ∂z/∂w = (-0.401312) × 0.5 = -0.200656" in told
    assert "Each factor is the slope of the other" in told
    assert (
        "test_explain.py:" in told and "loss = cr.functional.binary_cross_entropy(y_hat, number(1.0))" in told
    )
    assert all(one is not None for one in (w, x, z, y_hat))


def test_korean_uses_the_glossary():
    w, x, z, y_hat, loss = seed_neuron()
    told = explain(loss, names={"w": w, "x": x, "z": z, "y_hat": y_hat}).text("ko")
    for word in ("순전파", "역전파", "국소적 미분", "기울기", "상수", "리프"):
        assert word in told
    assert "출력 × (1 − 출력)" in told and "Why" not in told and "slope" not in told


def test_unfolded_story_tells_the_inside_of_the_loss():
    w, x, *_, loss = seed_neuron()
    assert float(w) == 0.8 and float(x) == 0.5
    folded, whole, one = explain(loss), explain(loss, fold=False), explain(loss, depth=1)
    assert len(folded.steps) == 5 and len(whole.steps) == len(one.steps) > 10
    assert [step.operation for step in whole.steps].count("log") == 2
    assert folded.root.folded.count("log") == 2
    assert np.allclose(whole["w"].gradient, folded["w"].gradient, rtol=1e-15)


def test_grad_is_neither_read_nor_written():
    w, *_, loss = seed_neuron()
    before = explain(loss)
    assert w.grad is None and loss.grad is None
    loss.backward()
    kept = w.grad
    after = explain(loss)
    assert w.grad is kept and str(after) == str(before)
    assert after["w"].gradient == pytest.approx(-0.2006561699, abs=1e-10)


def test_where_paths_meet_gradients_add_up():
    a = number(1.0, True)
    b = a + a
    c = b + b
    story = explain(c, names={"a": a, "b": b, "c": c}, language="en")
    assert float(story["a"].gradient) == 4
    assert "2 paths meet at b, and their gradients add up: 1 + 1 = 2" in str(story)
    assert "2 paths meet at a, and their gradients add up: 2 + 2 = 4" in str(story)
    told = story.data()["steps"][0]
    assert [one["value"] for one in told["sum_of"]] == [2.0, 2.0]
    assert [one["operand"] for one in told["sum_of"]] == [0, 1]


def test_matrices_show_rules_and_large_arrays_are_described():
    weight = cr.ones((4, 3), dtype=cr.float64).requires_grad_()
    rows = cr.tensor(np.arange(60.0).reshape(20, 3))
    out = cr.matmul(rows, cr.matrix_transpose(weight))
    story = explain(out.sum(), names={"weight": weight, "rows": rows, "out": out}, language="en")
    step = story["out"]
    assert step.edges[1].rule == "rowsᵀ @ ∂L/∂out"
    assert "(20, 3) from 0 to 59, mean 29.5" in str(story)
    assert story.data()["steps"][0]["value"] == np.ones((4, 3)).tolist()


def test_a_tensor_of_several_elements_starts_from_ones_or_from_what_is_given():
    x = cr.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * x
    ones = explain(y, language="en")
    assert ones.seed_is_ones and "every gradient is that of their sum" in str(ones)
    assert ones["x"].gradient.tolist() == [2, 4, 6]
    given = explain(y, gradient=[1.0, 0.0, -1.0])
    assert given["x"].gradient.tolist() == [2, 0, -6] and not given.seed_is_ones
    with pytest.raises(ShapeError, match=r"gradient= needs the tensor's shape \(3,\); got \(2,\)"):
        explain(y, gradient=[1.0, 2.0])


def test_no_gradient_behind_the_tensor_is_an_error_with_the_fix():
    with pytest.raises(
        GradientError, match=r"explain needs a tensor that depends on one with requires_grad=True"
    ):
        explain(cr.tensor(1.0) * 2)
    with pytest.raises(ArgumentError, match="explain needs a Tensor; got float"):
        explain(1.0)
    with pytest.raises(ArgumentError, match="one of en, ko; got 'de'"):
        explain(number(1.0, True) * 2, language="de")
    with pytest.raises(ArgumentError, match="names= maps names to tensors"):
        explain(number(1.0, True) * 2, names={"w": 3})


def test_names_come_from_the_user_then_cells_then_variables():
    w = number(2.0, True)
    parts = [number(3.0, True)]
    result = (w * parts[0]) + 1.0
    assert {step.name for step in explain(result).steps} >= {"w", "parts[0]", "result"}
    assert {step.name for step in explain(result, names={"weight": w}).steps} >= {"weight", "parts[0]"}
    w.cell.name = "layer.weight"
    assert explain(result)["layer.weight"].value == 2


def test_one_name_is_given_once_and_unknown_names_are_listed():
    w = number(2.0, True)
    v = number(3.0, True)
    w.cell.name = v.cell.name = "weight"
    story = explain(w * v)
    assert [step.name for step in story.steps[:2]] == ["weight", "weight_2"]
    with pytest.raises(
        ArgumentError, match=r"no step has this name; got 'q'\. The names are weight, weight_2"
    ):
        story["q"]


def test_an_updated_parameter_keeps_its_name_in_the_old_graph():
    w = number(2.0, True)
    loss = w * w
    with cr.no_grad():
        w -= 1.0
    assert float(explain(loss)["w"].value) == 2 and float(explain(loss)["w"].gradient) == 4


def test_layers_are_folded_and_containers_opened():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    xb, yb = cr.ones((5, 4)), cr.tensor([0, 1, 2, 0, 1])
    loss = cr.functional.cross_entropy(model(xb), yb)
    story = explain(loss, language="en")
    told = [step.operation for step in story.steps if not step.is_leaf]
    assert told == ["linear", "relu", "linear", "cross_entropy"]
    assert [step.scope for step in story.steps if not step.is_leaf][:3] == [
        f"Sequential/{k}" for k in range(3)
    ]
    assert [edge.source.name for edge in story.steps[3].edges] == ["xb", "0.weight", "0.bias"]
    loss.backward()
    for name, parameter in model.named_parameters():
        assert np.allclose(story[name].gradient, parameter.grad.numpy(), rtol=1e-6, atol=1e-8)
    assert [step.operation for step in explain(loss, depth=0).steps if not step.is_leaf] == [
        "Sequential",
        "cross_entropy",
    ]


def test_no_slope_is_zero_and_an_untaken_branch_says_so():
    x = cr.tensor([-1.0, 4.0], requires_grad=True)
    story = explain(cr.where(x > 0, cr.sqrt(x), 0.0).sum(), names={"x": x})
    assert story["x"].gradient.tolist() == [0, 0.25]
    flat = explain(cr.floor(x * 2).sum(), names={"x": x})
    assert flat["x"].gradient.tolist() == [0, 0]


def test_checkpointed_parts_and_custom_gradients_are_told():
    w = number(0.5, True)
    story = explain(cr.checkpoint(lambda x: cr.exp(x * x))(w) * 2.0, names={"w": w})
    assert float(story["w"].gradient) == pytest.approx(2 * np.exp(0.25))


def test_a_long_chain_is_told_without_recursion_and_cut_in_the_middle():
    w = number(1.0, True)
    y = w
    for _ in range(5000):
        y = y * 1.0001
    story = explain(y, names={"w": w}, language="en")
    assert len(story.steps) == 5001 and float(story["w"].gradient) == pytest.approx(1.0001**5000)
    assert "4801 steps in the middle are left out" in str(story)
    assert str(story).count("\n") < 1500
    assert "5001 steps are too many for a picture" in story.html()


# --------------------------------------------------------------------------------------------- formulas


def in_python(text):
    """The formula's own notation as Python."""
    text = text.replace("·", "*").replace("−", "-").replace("²", "**2").replace("³", "**3").replace("^", "**")
    text = re.sub(r"\[([^\]]*)\]", r"float(\1)", text.replace("≥", ">=").replace("≤", "<="))
    return re.sub(r"\|([^|]*)\|", r"abs(\1)", text)


SLOPED = [
    one
    for one in ops.primitives()
    if isinstance(one, ops.Elementwise) and any(rule is not None for rule in one.derivatives)
]


@pytest.mark.parametrize("operation", SLOPED, ids=lambda operation: operation.name)
def test_the_written_slope_has_the_value_of_the_slope(operation):
    count = len(operation.operand_names)
    numbers = {"acosh": [1.7]}.get(operation.name, [0.37, 0.61][:count])
    arrays = [np.array(one) for one in numbers]
    out = operation.run(arrays, {})
    kind = Type((), cr.float64)
    names = ["x", "y"][:count]
    known = {
        name: getattr(np, name, None)
        for name in ("exp", "log", "sqrt", "cos", "sin", "cosh", "sinh", "sign", "floor")
    }
    known |= {
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "out": float(out),
        **dict(zip(names, map(float, arrays))),
    }
    for index, rule in enumerate(operation.derivatives):
        if rule is None:
            continue
        text = slope(operation, index, Formula("out", kind), [Formula(name, kind) for name in names], {})
        with ops.quiet():
            expected = float(rule) if isinstance(rule, int) else float(rule(out, *arrays))
        assert eval(in_python(text), known) == pytest.approx(expected, rel=1e-5), text


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("1·x is x", lambda x, y: 1 * x),
        ("x·x is a square", lambda x, y: x * x),
        ("brackets only where needed", lambda x, y: (x + y) * (x - y)),
        ("no brackets in sums", lambda x, y: x + y * 2),
        ("right of minus", lambda x, y: x - (y - 1)),
        ("right of division", lambda x, y: x / (y * 2)),
        ("sign", lambda x, y: -(x + y)),
    ],
)
def test_formulas_are_written_with_as_few_brackets_as_possible(text, formula):
    written = str(formula(Formula("x"), Formula("y")))
    assert written == {
        "1·x is x": "x", "x·x is a square": "x²", "brackets only where needed": "(x + y)·(x − y)",
        "no brackets in sums": "x + y·2", "right of minus": "x − (y − 1)", "right of division": "x/(y·2)",
        "sign": "−(x + y)",
    }[text]  # fmt: skip


# ------------------------------------------------------------------------------------------- JSON, files


def test_json_is_strict_even_with_nan_and_infinity():
    x = cr.tensor([0.0, -1.0, 4.0], dtype=cr.float64, requires_grad=True)
    story = explain(cr.log(x).sum(), names={"x": x})
    told = json.loads(story.json(), parse_constant=lambda name: pytest.fail(name))
    assert told["steps"][1]["value"][:2] == ["-Infinity", "NaN"]
    assert told["steps"][0]["gradient"] == ["Infinity", -1.0, 0.25]
    assert told == story.data()


def test_float32_numbers_are_written_with_their_own_digits():
    x = cr.tensor(0.1, requires_grad=True)
    assert explain(x * 3.0, names={"x": x}).data()["steps"][0]["value"] == 0.1


def test_large_arrays_are_described_in_json_unless_full():
    x = cr.ones((40, 50)).requires_grad_()
    story = explain((x * 2.0).sum(), names={"x": x})
    assert story.data()["steps"][0]["value"] == {"shape": [40, 50], "min": 1.0, "mean": 1.0, "max": 1.0}
    assert story.data(full=True)["steps"][0]["value"] == np.ones((40, 50)).tolist()


def test_save_writes_page_json_or_text(tmp_path):
    *_, loss = seed_neuron()
    story = explain(loss)
    for name in ("쪽.html", "story.json", "이야기.txt"):
        story.save(tmp_path / name)
    assert (tmp_path / "쪽.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert json.loads((tmp_path / "story.json").read_text(encoding="utf-8"))["schema"] == "chainrule.story/1"
    assert (
        "순전파" in story.text("ko")
        and (tmp_path / "이야기.txt").read_text(encoding="utf-8") == str(story) + "\n"
    )
    with pytest.raises(ArgumentError, match="could not be written"):
        story.save(tmp_path / "missing" / "page.html")


def test_the_notebook_shows_the_picture_without_script():
    *_, loss = seed_neuron()
    shown = explain(loss, language="ko")._repr_html_()
    assert "<svg" in shown and "<script" not in shown and 'lang="ko"' in shown


# --------------------------------------------------------------------------------------------- languages


def placeholders(text):
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


def test_both_languages_say_the_same_with_the_same_placeholders():
    for key, sentences in catalogue().items():
        if key.startswith("operation."):
            assert set(sentences) == {"ko"}, (
                f"{key}: the English sentence stands in the operation's docstring"
            )
            continue
        assert {"en", "ko"} <= set(sentences), key
        assert placeholders(sentences["en"]) == placeholders(sentences["ko"]), key


def test_every_operation_has_its_reason_in_korean():
    missing = [one.name for one in ops.primitives() if f"operation.{one.name}" not in catalogue()]
    assert not missing, f"add a Korean sentence to [operation] in catalogue.toml for {missing}"
    names = {one.name for one in ops.primitives()}
    assert {key.partition(".")[2] for key in catalogue() if key.startswith("operation.")} <= names
    for key, sentences in catalogue().items():
        if key.startswith(("operation.", "composite.")):
            assert sentences["ko"].endswith("다."), key


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "C"}, "en"),
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "ko_KR", "LC_ALL": "C"}, "en"),
    ],
)
def test_the_environment_chooses_the_language(monkeypatch, environment, language):
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert preferred_language() == language


def test_columns_count_korean_letters_twice():
    assert width("기울기 ŷ") == 8 and width("y\u0302") == 1 and pad("값", 4) == "값  "


def test_a_leaf_alone_is_a_story_too():
    w = number(2.0, True)
    story = explain(w, language="en")
    assert [step.name for step in story.steps] == ["w"] and float(story.root.gradient) == 1
    assert "<svg" in story.html() and "w (leaf)" in str(story)


def test_a_folded_call_adds_up_all_its_paths():
    p = number(0.6, True)
    loss = cr.functional.binary_cross_entropy(p, number(0.3))
    edge = explain(loss, names={"p": p}).root.edges[0]
    assert edge.paths == 2 and edge.source.name == "p"
    assert float(edge.outgoing) == float(edge.local) == pytest.approx((0.6 - 0.3) / (0.6 * 0.4), rel=1e-14)


def test_a_traced_tensor_has_no_numbers_to_tell():
    traced = wrap(Node(INPUT, type=(Type((2,), cr.float32),), requires_grad=True))
    with pytest.raises(TraceError, match=r"has none yet; got Traced float32\[2\]"):
        explain(traced)


def test_the_net_slope_of_a_folded_call_is_kept_where_nothing_arrives():
    x = number([0.5, 1.5], True)
    story = explain(cr.mean(x) * 0.0, names={"x": x})
    edge = story.steps[1].edges[0]
    assert edge.outgoing.tolist() == [0, 0] and edge.local.tolist() == [0.5, 0.5]


def test_parts_of_arrays_are_written_as_slices():
    x = number([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], True)
    story = explain(x[:, 0:3:2].sum(), names={"x": x})
    assert [step.formula for step in story.steps[1:]] == ["x[0:2, 0:3:2]", "sum(v1, axis=(0, 1))"]
    assert story["x"].gradient.tolist() == [[1, 0, 1], [1, 0, 1]]


def test_one_element_in_brackets_is_no_sum():
    w = number([[2.0]], True)
    assert not explain(w * w).seed_is_ones and explain(cr.concat([w, w])).seed_is_ones


@pytest.mark.parametrize(
    ("formula", "loss", "values", "function", "instead"),
    [
        ("softmax(z)", "ce", "z=[1,2]", "softmax", "nll"),
        ("sigmoid(z)", "bce_with_logits", "z=0.3", "sigmoid", "bce"),
    ],
)
def test_a_function_applied_twice_is_noticed(formula, loss, values, function, instead, capsys):
    assert main(["explain", formula, values, "--loss", loss, "--y", "1", "--lang", "en"]) == 0
    printed = capsys.readouterr().out
    assert f"{function} is applied twice: --loss {loss} applies it itself" in printed
    assert main(["explain", formula, values, "--loss", instead, "--y", "1", "--lang", "en"]) == 0
    assert "applied twice" not in capsys.readouterr().out


def test_nll_takes_a_class_as_ce_does(capsys):
    assert main(["explain", "softmax(z)", "z=[1,2,4]", "--loss", "nll", "--y", "1", "--json"]) == 0
    probabilities = json.loads(capsys.readouterr().out)
    assert main(["explain", "z", "z=[1,2,4]", "--loss", "ce", "--y", "1", "--json"]) == 0
    logits = json.loads(capsys.readouterr().out)

    def gradient(story):
        return next(step["gradient"] for step in story["steps"] if step["name"] == "z")

    np.testing.assert_allclose(gradient(probabilities), gradient(logits), rtol=1e-12)
    assert main(["explain", "softmax(z)", "z=[1,2,4]", "--loss", "nll", "--y", "3", "--lang", "en"]) == 2
    assert "--y needs a class from 0 to 2; got 3" in capsys.readouterr().err
