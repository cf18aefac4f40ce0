"""Typed formulas: what is understood, what is refused and how, and the command that tells their story."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from chainrule.cli import main
from chainrule.errors import ExpressionError
from chainrule.explain.expression import FUNCTIONS, Expression, read_assignments, read_value


def value(text, **values):
    return Expression(text).evaluate(values).result.tolist()


# --------------------------------------------------------------------------------------------- computing


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("1 + 2*3", {}, 7.0),
        ("-x**2", {"x": 3}, -9.0),
        ("2**-1", {}, 0.5),
        ("x @ y", {"x": [1, 2, 3], "y": [4, 5, 6]}, 32.0),
        ("w @ x", {"w": [[1, 2], [3, 4]], "x": [1, 1]}, [3.0, 7.0]),
        ("x + [1, 2]", {"x": 1}, [2.0, 3.0]),
        ("sum(w, axis=0)", {"w": [[1, 2], [3, 4]]}, [4.0, 6.0]),
        ("sum(softmax(x, axis=-1))", {"x": [1, 2]}, 1.0),
        ("where(x > 0, x, -x)", {"x": [-2, 3]}, [2.0, 3.0]),
        ("clip(x, -1, 1)", {"x": 5}, 1.0),
        ("a = w*x; b = a + a; b*b", {"w": 3, "x": 0.5}, 9.0),
        ("a = w*x\nb = a + a\nb*b", {"w": 3, "x": 0.5}, 9.0),
        ("cos(pi) + log(e)", {}, 0.0),
        ("mse(x, [1, 2])", {"x": [1, 4]}, 2.0),
        ("ce(x, 1)", {"x": [0, 0]}, float(np.log(2))),
        ("nll(softmax(x), [0, 1])", {"x": [0, 0]}, float(np.log(2))),
        ("9**9**9", {}, 9.0**9.0**9 if False else np.inf),
    ],
)
def test_formulas_are_computed_in_float64(text, values, expected):
    assert value(text, **values) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_listed_function_can_be_called(name):
    values = {"ce": "[1, 2], 0", "clip": "x, 0, 1", "where": "x > 0, x, 0"}
    values |= dict.fromkeys(["mse", "bce", "bce_with_logits"], "0.5, 1")
    given = values.get(name, ", ".join(["x", "[0.25, 1.5]"][: FUNCTIONS[name].least]))
    if name in ("acosh", "atanh"):
        given = {"acosh": "x + 1", "atanh": "x/2"}[name]
    result = Expression(f"{name}({given}) + 0*sum(x)").evaluate({"x": [0.5, 0.75]}).result
    assert np.isfinite(result.detach().numpy()).all()


def test_shared_parts_are_one_node_and_their_gradients_add_up():
    done = Expression("a = w*x; a*a + a").evaluate({"w": 2.0, "x": 3.0})
    done.result.backward()
    assert done.named["w"].grad.item() == (2 * 6 + 1) * 3
    assert done.named["a"].grad.item() == 13


def test_numbers_may_start_with_a_sign_and_be_written_in_any_way():
    assert read_assignments(["x=-1", "w = 2.5e-3", "v=(1, -2)"])["v"].tolist() == [1, -2]
    assert read_value("x", "[[1, 2], [3, 4]]").shape == (2, 2)


# ---------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').system('true')", r"got a call of \"__import__\('os'\)\.system\""),
        ("__import__('os')", "only listed functions may be called; got '__import__'"),
        ("eval('1')", "only listed functions may be called; got 'eval'"),
        ("x.real", r"got an attribute access 'x\.real'"),
        ("().__class__.__bases__", "got an attribute access"),
        ("lambda: 1", "got a lambda"),
        ("(lambda: 1)()", "got a call of 'lambda: 1'"),
        ("'a'*3", "got the text"),
        ("b'a'", "got the bytes"),
        ("1j*x", "got the complex number"),
        ("True", "got the truth value"),
        ("None", "got the constant 'None'"),
        ("x[0]", r"got an index 'x\[0\]'"),
        ("x if x else 1", "got an if-else"),
        ("[y for y in x]", "got a ListComp"),
        ("{1: 2}", "got a Dict"),
        ("(y := 3)", "got a NamedExpr"),
        ("f'{x}'", "got a JoinedStr"),
        ("sigmoid(*x)", "got a Starred"),
        ("sum(x, **x)", r"got the argument \*\* of sum"),
        ("sum(x, axis=y)", "got axis='y'"),
        ("sigmoid(x, axis=0)", "got the argument axis of sigmoid"),
        ("not x", "got the operator in 'not x'"),
        ("~x", "got the operator in '~x'"),
        ("x // 2", "got the operator in 'x // 2'"),
        ("x and y", "got a BoolOp"),
        ("1 < x < 2", "got the comparison '1 < x < 2'"),
        ("x in y", "got the comparison 'x in y'"),
        ("import os", "got 'import os'"),
        ("while 1: pass", "got 'while 1: pass'"),
        ("del x", "got 'del x'"),
        ("x; y", "got 'x'"),
        ("x = 1", "got 'x = 1'"),
        ("x.y = 1; x", "an assignment to something other than one name"),
        ("a = b = 1; a", "an assignment to something other than one name"),
        ("a += 1; a", r"got 'a \+= 1'"),
        ("sigmoid = 1; sigmoid", "an assignment to 'sigmoid'"),
        ("a = 1; a = 2; a", "a name is assigned once; got 'a' again"),
        ("[x, 1]", "a vector holds numbers; got 'x' in it"),
        ("[[1, 2], [3]] * x", "the rows of a matrix have equal length"),
        ("x**99999", "an exponent may reach 1000; got '99999'"),
        ("1e999*x", "numbers go up to 1.8e308"),
        ("9" * 400, "numbers go up to 1.8e308"),
        ("", "a formula is needed; got an empty one"),
        ("x +", "must be readable as arithmetic; got 'x \\+'"),
        ("(" * 150 + "x" + ")" * 150 + "+" * 2, "must be readable as arithmetic"),
        ("-" * 100 + "x", "nested 60 deep"),
        ("x" + "+x" * 500, "nested 60 deep"),
        ("x" * 3000, "at most 2000 letters; got 3000"),
        ("x\0", "readable as arithmetic"),
        ("sigmod(x)", r"got 'sigmod'\. Did you mean sigmoid\?"),
        ("max(x, y)", r"max takes 1 argument; got 2\. For the larger of two write maximum\(a, b\)"),
        ("clip(x)", "clip takes 3 arguments; got 1"),
    ],
)
def test_whatever_is_not_plain_arithmetic_is_refused_by_name(text, message):
    with pytest.raises(ExpressionError, match=message):
        Expression(text).evaluate({"x": 1.0, "y": 2.0})


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("w*x", {"w": 1.0, "X": 2.0}, r"got 'x' without one \(given: w, X\)\. Did you mean X\?"),
        ("w*weight", {"w": 1.0, "weigth": 2.0}, "Did you mean weigth"),
        ("w*x", {"w": 1.0}, "Add x=NUMBER|Did you mean"),
        ("w*x", {"w": 1.0, "x": 2.0, "z": 3.0}, r"got 'z', which it does not use \(it uses: w, x\)"),
        ("w@x", {"w": [1.0, 2.0], "x": [1.0, 2.0, 3.0]}, r"'w@x': matmul needs .* got \(2,\) and \(3,\)"),
        ("x + y", {"x": [1.0, 2.0], "y": [1.0, 2.0, 3.0]}, r"'x \+ y'"),
        ("outer(outer(x, x), outer(x, x))", {"x": list(range(1, 31))}, "."),
    ],
)
def test_names_and_shapes_that_do_not_fit(text, values, message):
    with pytest.raises(ExpressionError, match=message):
        Expression(text).evaluate(values)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("x=abc", "a value is a number, a vector"),
        ("x='1'", "a value is a number"),
        ("x=nan", "a value is a number"),
        ("x=", "a value is a number"),
        ("x=True", "a value is a number"),
        ("x=__import__('os')", "a value is a number"),
        ("x=[1, [2]]", "rows of a matrix have equal length"),
        ("x=[]", "1 to 1000 elements; got 0"),
        ("x=" + str([0] * 1001), "1 to 1000 elements; got 1001"),
        ("x=1e999", "a value is a number"),
        ("=3", "values are given as name=number; got '=3'"),
        ("x", "values are given as name=number; got 'x'"),
        ("2x=3", "values are given as name=number"),
        ("sigmoid=3", "sigmoid is a function here"),
    ],
)
def test_values_that_are_no_numbers(pair, message):
    with pytest.raises(ExpressionError, match=message):
        read_assignments([pair])


def test_a_value_given_twice():
    with pytest.raises(ExpressionError, match="got 'x' twice"):
        read_assignments(["x=1", "x=2"])


# ------------------------------------------------------------------------------------- the command line


def run(capsys, *arguments):
    code = main(["explain", *arguments])
    caught = capsys.readouterr()
    return code, caught.out, caught.err


SEED = ("sigmoid(w*x)", "w=0.8", "x=0.5", "--loss", "bce", "--y", "1", "--lang", "en")


def test_the_seeds_story_update_check_and_cost(capsys):
    code, out, err = run(capsys, *SEED)
    assert (code, err) == (0, "")
    for line in (
        "L = bce(sigmoid(w*x), y)   (w = 0.8, x = 0.5, y = 1)",
        "    → w: ∂L/∂z × ∂z/∂w = (-0.401312) × 0.5 = -0.200656",
        "  w ← 0.8 − 0.1 × (-0.200656) = 0.820066",
        "  L falls from 0.513015 to 0.509001",
        "2 forward passes for each element, 4 for the 2 here",
        "Sigmoid and binary cross-entropy cancel: ∂L/∂z = ŷ − y = 0.598688 − 1 = -0.401312.",
    ):
        assert line in out
    assert out.count("✓") == 2


def test_options_may_stand_between_values_and_the_language_anywhere(capsys):
    code, out, _ = run(capsys, "sigmoid(w*x)", "w=0.8", "--loss", "bce", "x=0.5", "--y", "1", "--lang", "ko")
    assert code == 0 and "순전파" in out and "경사 하강법" in out and "수치 미분" in out
    assert main(["--lang", "ko", "explain", "x*2", "x=1"]) == 0
    assert "순전파" in capsys.readouterr().out


def test_json_holds_story_update_and_check(capsys):
    code, out, _ = run(capsys, *SEED, "--json", "--lr", "1.0")
    told = json.loads(out)
    assert code == 0 and told["root"] == "L"
    assert told["update"]["values"]["w"] == pytest.approx(1.0006561699, abs=1e-10)
    assert told["update"]["after"] == pytest.approx(0.4739531, abs=1e-7)
    assert [row["verdict"] for row in told["numerical"]] == ["correct", "correct"]
    assert told["numerical_cost"] == {"elements": 2, "forward_passes": 4}


def test_functions_open_when_asked(capsys):
    folded = json.loads(run(capsys, *SEED, "--json")[1])["steps"]
    whole = json.loads(run(capsys, *SEED, "--json", "--unfold")[1])["steps"]
    assert folded[-1]["operation"] == "binary_cross_entropy" and "log" in folded[-1]["folded"]
    assert len(whole) > len(folded) and [step["operation"] for step in whole].count("log") == 2
    assert json.loads(run(capsys, *SEED, "--json", "--depth", "1")[1])["steps"] == whole


def test_a_formula_may_start_with_a_minus_sign(capsys):
    for text in ("-w*x", "-w", "---w*x"):
        code, out, _ = run(capsys, text, "w=2", *(["x=3"] if "x" in text else []), "--lang", "en")
        assert code == 0 and "∂y/∂w" in out


def test_kinks_and_infinite_slopes_are_no_contradiction(capsys):
    assert run(capsys, "abs(x) + relu(x)", "x=0", "--lang", "en")[0] == 0
    code, out, _ = run(capsys, "sqrt(x)**2", "x=0", "--lang", "en")
    assert code == 0 and "not decidable here" in out
    assert "a kink" in run(capsys, "relu(x)", "x=0", "--lang", "en")[1]


def test_the_error_of_every_step_size_is_a_u(capsys):
    told = json.loads(run(capsys, *SEED, "--check-steps", "--json")[1])
    errors = [row["error"] for row in told["step_sizes"]["errors"]]
    lowest = errors.index(min(errors))
    assert 2 <= lowest <= 6 and errors[0] > 1e4 * errors[lowest] and errors[-1] > 1e4 * errors[lowest]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("w*x", "w=1", "x=2", "--loss", "bce"), "a loss needs a target; got --loss bce without --y"),
        (("w*x", "w=1", "x=2", "--y", "1"), "a target needs a loss"),
        (("w*x", "w=3", "x=1", "--loss", "bce", "--y", "1"), "probabilities from 0 to 1"),
        (("x", "x=[1, 2]", "--loss", "ce", "--y", "5"), "classes from 0 to 1"),
        (("x", "x=[1, 2]", "--loss", "ce", "--y", "0.5"), r"whole numbers"),
        (("x > 1", "x=1"), "a comparison or constant"),
        (("x*y", "x=1", "y=2", "--blame", "1"), "terms of a sum"),
        (("a+b", "a=1", "b=-1", "--blame", "1"), "whose sum is not 0"),
        (("x", "x=1", "--html", "missing/page.html"), "a folder that exists"),
        (("x", "x=1", "--html", "page.txt"), "ends in .html"),
        (("x", "x=1", "--lr", "nan"), "a finite number"),
        (("w", "w=1", "--lr", "1", "--update", "q"), "--update names given values; got 'q'"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(capsys, arguments, message):
    code, out, err = run(capsys, *arguments, "--lang", "en")
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1 and err.startswith("chainrule: error: ")
    assert "Traceback" not in err and ".py:" not in err


def test_unknown_verbs_and_help(capsys):
    assert main(["exlain"]) == 2 and "Did you mean explain?" in capsys.readouterr().err
    assert main([]) == 2 and "explain" in capsys.readouterr().out
    assert main(["--help"]) == 0 and "explain" in capsys.readouterr().out
    assert main(["--help", "--lang", "ko"]) == 0 and "사용법" in capsys.readouterr().out
    assert main(["explain", "--help"]) == 0 and "--check-steps" in capsys.readouterr().out
    assert main(["explain", "x", "x=1", "--wrong"]) == 2 and "--wrong" in capsys.readouterr().err
    assert main(["--version"]) == 0 and capsys.readouterr().out.startswith("chainrule ")


def test_env_lists_versions(capsys):
    assert main(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["packages"]["numpy"] == np.__version__ and facts["threads"] >= 1
    assert main(["env"]) == 0 and "numpy" in capsys.readouterr().out


def command(*arguments, cwd=None, **environment):
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "chainrule.cli", *arguments],
        capture_output=True,
        cwd=cwd,
        env=kept | environment,
        check=False,
    )


def test_it_speaks_unicode_in_a_plain_environment_and_writes_to_korean_paths(tmp_path):
    folder = tmp_path / "한글 폴더"
    folder.mkdir()
    plain = {"LANG": "C", "LC_ALL": "C", "TERM": "dumb", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = command("explain", *SEED[:-1], "ko", "--html", "이야기.html", cwd=folder, **plain)
    assert done.returncode == 0, done.stderr.decode()
    assert "순전파 ▶" in done.stdout.decode("utf-8") and "∂L/∂w" in done.stdout.decode("utf-8")
    assert "역전파" in (folder / "이야기.html").read_text(encoding="utf-8")
    wrong = command("explain", "ŷ*w", "w=1", **plain)
    assert wrong.returncode == 2 and "ŷ" in wrong.stderr.decode("utf-8") and b"Traceback" not in wrong.stderr


def test_a_closed_pipe_ends_quietly():
    done = subprocess.run(
        f'"{sys.executable}" -m chainrule.cli explain "x*x" x=3 | head -n 1',
        shell=True,
        capture_output=True,
        check=False,
    )
    assert (
        done.stdout.decode().startswith("y = x*x")
        and b"Traceback" not in done.stderr
        and b"Exception" not in done.stderr
    )
