"""The worked examples of the posts that asked for this project: their numbers, and corrections where they err.

Through the public functions, and where an example is an expression, through the command line too.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
from chainrule.cli import main
from chainrule.explain.numerical import central, proportional_blame

EXAMPLES = json.loads((Path(__file__).parent / "data" / "worked_examples.json").read_text(encoding="utf-8"))


def number(value, requires_grad=True):
    return cr.tensor(np.asarray(value, dtype=np.float64), requires_grad=requires_grad)


@pytest.fixture
def command(capsys):
    """The command's JSON, with its steps by name."""

    def run(*arguments):
        assert main(["explain", *arguments, "--json", "--lang", "en"]) == 0
        told = json.loads(capsys.readouterr().out)
        told["by_name"] = {step["name"]: step for step in told["steps"]}
        return told

    return run


@pytest.fixture
def text(capsys):
    def run(*arguments, language="en"):
        assert main(["explain", *arguments, "--lang", language]) == 0
        return capsys.readouterr().out

    return run


def near(value, digits=9):
    return pytest.approx(value, rel=10.0**-digits, abs=10.0**-digits)


# ------------------------------------------------------------------------------------- S1-S6: one neuron

NEURON = EXAMPLES["neuron"]
ARGUMENTS = ("sigmoid(w*x)", "w=0.8", "x=0.5", "--loss", "bce", "--y", "1")


def test_s1_to_s4_through_tensors():
    w, x, y = (number(NEURON["given"][name]) for name in "wxy")
    z = w * x
    y_hat = cr.sigmoid(z)
    loss = cr.functional.binary_cross_entropy(y_hat, y)
    loss.backward()
    assert z.item() == near(NEURON["z"], 15) and y_hat.item() == near(NEURON["y_hat"], 14)
    assert loss.item() == near(NEURON["loss"], 14)
    for tensor, name in ((z, "z"), (w, "w"), (x, "x"), (y_hat, "y_hat")):
        assert tensor.grad.item() == near(NEURON["gradients"][name]), name


def test_s1_to_s4_through_the_command(command):
    steps = command(*ARGUMENTS)["by_name"]
    assert steps["z"]["value"] == near(NEURON["z"], 15) and steps["ŷ"]["value"] == near(NEURON["y_hat"], 14)
    assert steps["L"]["value"] == near(NEURON["loss"], 14)
    for name, told in (("z", "z"), ("w", "w"), ("x", "x"), ("y_hat", "ŷ")):
        assert steps[told]["gradient"] == near(NEURON["gradients"][name]), name
    assert steps["ŷ"]["operands"][0]["local"] == near(NEURON["slope"])


@pytest.mark.parametrize("rate", sorted(NEURON["updates"]))
def test_s5_one_update(command, rate):
    expected = NEURON["updates"][rate]
    update = command(*ARGUMENTS, "--lr", rate)["update"]
    assert update["values"]["w"] == near(expected["w"]) and update["after"] == near(expected["loss"], 6)
    w = number(0.8)
    loss = cr.functional.binary_cross_entropy(cr.sigmoid(w * 0.5), number(1.0, False))
    loss.backward()
    with cr.no_grad():
        w -= float(rate) * w.grad
    assert w.item() == near(expected["w"])


def test_s6_numerical_differentiation_errs_as_a_u():
    def loss(values):
        y_hat = cr.sigmoid(number(values["w"]) * 0.5)
        return cr.functional.binary_cross_entropy(y_hat, number(1.0, False)).item()

    for step, about in NEURON["step_sizes"].items():
        error = abs(central(loss, {"w": np.asarray(0.8)}, "w", (), float(step)) - NEURON["gradients"]["w"])
        assert about / 30 < error < about * 30, step


def test_s6_the_command_prints_check_cost_and_step_sizes(command, text):
    told = command(*ARGUMENTS, "--check-steps")
    for row in told["numerical"]:
        assert row["verdict"] == "correct" and row["numerical"] == near(NEURON["gradients"][row["name"]])
    errors = {f"{row['step']:.0e}": row["error"] for row in told["step_sizes"]["errors"]}
    assert (
        errors["1e-05"] < errors["1e-03"] < errors["1e-01"]
        and errors["1e-05"] < errors["1e-08"] < errors["1e-12"]
    )
    assert "2 forward passes for each element" in text(*ARGUMENTS)
    assert "순전파 2번" in text(*ARGUMENTS, language="ko")


# --------------------------------------------------------------------------------------- S7-S10: rules


def test_s7_proportional_blame_is_shown_beside_the_gradient(command, text):
    example = EXAMPLES["blame"]
    shares, blame = proportional_blame(example["contributions"], example["error"])
    assert shares == near(example["shares"], 15) and blame == near(example["blame"], 15)
    rows = command("a + b", "a=3", "b=2", "--blame", "0.6")["blame"]
    assert [row["blame"] for row in rows] == near(example["blame"], 15)
    assert [row["gradient"] for row in rows] == [0.6, 0.6]
    assert "every term moves a sum one for one" in text("a + b", "a=3", "b=2", "--blame", "0.6")


def test_s8_the_rules_of_the_nodes(command):
    added = command("g*(x + y)", "g=0.7", "x=2", "y=3")["by_name"]
    assert [added[name]["gradient"] for name in "xy"] == [0.7, 0.7]
    product = command("g*(x*y)", "g=0.7", "x=2", "y=3")["by_name"]
    assert [product[name]["gradient"] for name in "xy"] == near([0.7 * 3, 0.7 * 2])
    for x, expected in ((2.0, 0.7), (0.0, 0.0), (-2.0, 0.0)):
        assert command("g*relu(x)", "g=0.7", f"x={x}")["by_name"]["x"]["gradient"] == expected
    y = 1 / (1 + np.exp(-2.0))
    assert command("g*sigmoid(x)", "g=0.7", "x=2")["by_name"]["x"]["gradient"] == near(0.7 * y * (1 - y), 14)


@pytest.mark.parametrize("target", range(3))
def test_s9_softmax_and_cross_entropy_leave_p_minus_one_hot(command, target):
    z = number([0.3, -1.2, 2.0])
    cr.functional.cross_entropy(z, cr.tensor(target)).backward()
    expected = np.exp([0.3, -1.2, 2.0]) / np.exp([0.3, -1.2, 2.0]).sum() - np.eye(3)[target]
    assert z.grad.numpy() == near(expected, 14)
    told = command("z", "z=[0.3, -1.2, 2.0]", "--loss", "ce", "--y", str(target))
    assert told["steps"][0]["gradient"] == near(expected.tolist(), 14)
    separate = number([0.3, -1.2, 2.0])
    (-cr.log(cr.functional.softmax(separate))[target]).backward()
    assert separate.grad.numpy() == near(expected, 12)


def test_s10_the_character_rnn(command):
    example = EXAMPLES["character_rnn"]
    z = number(example["logits"])
    loss = cr.functional.cross_entropy(z, cr.tensor(example["target"]))
    loss.backward()
    assert cr.functional.softmax(z).tolist() == pytest.approx(example["p"], abs=5e-5)
    assert loss.item() == pytest.approx(example["loss"], abs=5e-5)
    assert z.grad.tolist() == pytest.approx(example["gradient"], abs=5e-6)
    told = command("z", f"z={example['logits']}", "--loss", "ce", "--y", str(example["target"]))
    assert told["steps"][-1]["value"] == pytest.approx(example["loss"], abs=5e-5)
    assert told["steps"][0]["gradient"] == pytest.approx(example["gradient"], abs=5e-6)


# ------------------------------------------------------------------------- S11-S14: what goes wrong


def test_s11_saturation(command):
    example = EXAMPLES["saturation"]
    steps = command("z = w*x + b; sigmoid(z)", "w=100", "b=50", "x=0.01")["by_name"]
    assert steps["z"]["value"] == near(example["z"], 14)
    assert steps["y"]["value"] == 1  # and still the slope is not 0: 1 − y is computed with all its digits
    assert steps["y"]["operands"][0]["local"] == pytest.approx(example["sigmoid_slope_51"], rel=1e-4)
    for function, at, expected in (
        ("sigmoid", 5, example["sigmoid_slope_5"]),
        ("tanh", 5, example["tanh_slope_5"]),
        ("sigmoid", 51, example["sigmoid_slope_51"]),
    ):
        slope = command(f"{function}(z)", f"z={at}")["by_name"]["z"]["gradient"]
        assert slope == pytest.approx(expected, rel=1e-4), (function, at)


def test_s11_the_slope_at_51_is_kept_by_the_loss_that_knows_its_logits():
    z = number(51.0)
    cr.functional.binary_cross_entropy_with_logits(z, number(1.0, False)).backward()
    assert z.grad.item() == pytest.approx(-EXAMPLES["saturation"]["sigmoid_slope_51"], rel=1e-4)


@pytest.mark.parametrize("layers", sorted(EXAMPLES["sigmoid_layers"], key=int))
def test_s12_sigmoids_pass_a_quarter_at_best(layers):
    x = start = number(0.0)
    for _ in range(int(layers)):
        x = cr.sigmoid(x) - 0.5  # back to the steepest point
    x.backward()
    assert start.grad.item() == EXAMPLES["sigmoid_layers"][layers]


def test_s13_clipping_the_error_kills_its_gradient(command):
    example = EXAMPLES["clipping"]
    given = f"d={example['delta']}"
    clipped = command("square(clip(d, -1, 1))", given)["by_name"]["d"]["gradient"]
    assert clipped == example["clip_then_square"]
    huber = command("where(abs(d) < 1, 0.5*square(d), abs(d) - 0.5)", given)["by_name"]["d"]["gradient"]
    assert huber == example["huber"]


@pytest.mark.parametrize("factor", sorted(EXAMPLES["repeated_factor"]))
def test_s14_one_factor_repeated_vanishes_or_explodes(factor):
    for steps, expected in zip((50, 100), EXAMPLES["repeated_factor"][factor]):
        h = start = number(1.0)
        for _ in range(steps):
            h = h * float(factor)
        h.backward()
        assert start.grad.item() == pytest.approx(expected, rel=1e-4)


# --------------------------------------------------------------------------------- S15-S20: small graphs


def batch_norm(x, gamma, beta, eps):
    centred = x - cr.mean(x)
    return gamma * (centred / cr.sqrt(cr.mean(centred * centred) + eps)) + beta


def test_s15_batch_norm_as_a_graph(command):
    example = EXAMPLES["batch_norm"]
    x, gamma, beta = (number(example[name]) for name in ("x", "gamma", "beta"))
    out = batch_norm(x, gamma, beta, example["eps"])
    out.backward(number(example["dout"], False))
    assert out.tolist() == near(example["out"], 7) and x.grad.tolist() == near(example["dx"], 7)
    assert gamma.grad.item() == near(example["dgamma"], 7) and beta.grad.item() == example["dbeta"]
    assert sum(x.grad.tolist()) == pytest.approx(0, abs=1e-12)
    formula = "c = x - mean(x); n = c/sqrt(mean(c*c) + 1e-05); sum(d*(gamma*n + beta))"
    told = command(formula, f"x={example['x']}", "gamma=2", "beta=0.5", f"d={example['dout']}")["by_name"]
    assert told["x"]["gradient"] == near(example["dx"], 7) and told["gamma"]["gradient"] == near(
        example["dgamma"], 7
    )
    assert told["d"]["gradient"] == near(example["out"], 7)


def test_s16_convolution_from_slices_and_sums():
    example = EXAMPLES["convolution"]
    x, w = number(example["x"]), number(example["w"])
    parts = [w[i, j] * x[i : i + 2, j : j + 2] for i in range(2) for j in range(2)]
    out = parts[0] + parts[1] + parts[2] + parts[3]
    out.backward(number(example["dout"], False))
    assert out.tolist() == example["out"]
    assert w.grad.tolist() == example["dw"] and x.grad.tolist() == example["dx"]


def test_s17_a_sum_times_a_factor(command):
    example = EXAMPLES["product_of_sum"]
    told = command("(x + y)*z", *(f"{name}={example[name]}" for name in "xyz"))
    assert told["steps"][-1]["value"] == example["f"]
    assert {name: told["by_name"][name]["gradient"] for name in "xyz"} == example["gradients"]


def test_s18_a_neuron_of_two_inputs(command):
    example = EXAMPLES["two_input_neuron"]
    given = [f"w{k}={value}" for k, value in enumerate(example["w"])] + [
        f"x{k}={value}" for k, value in enumerate(example["x"])
    ]
    told = command("sigmoid(w0*x0 + w1*x1 + w2)", *given)
    assert told["steps"][-1]["value"] == near(example["f"])
    assert [told["by_name"][f"w{k}"]["gradient"] for k in range(3)] == near(example["dw"])
    assert [told["by_name"][f"x{k}"]["gradient"] for k in range(2)] == near(example["dx"])


def test_s19_the_small_engines_expression(command):
    example = EXAMPLES["small_engine"]
    a, b = number(example["a"]), number(example["b"])
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + cr.relu(b + a)
    d += 3 * d + cr.relu(b - a)
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    g.backward()
    assert g.item() == near(example["g"], 13)
    assert a.grad.item() == near(example["da"], 13) and b.grad.item() == near(example["db"], 13)
    formula = (
        "c0 = a + b; d0 = a*b + b**3; c1 = c0 + (c0 + 1); c2 = c1 + (1 + c1 + (-a)); "
        "d1 = d0 + (d0*2 + relu(b + a)); d2 = d1 + (3*d1 + relu(b - a)); e2 = c2 - d2; f = e2**2; f/2 + 10/f"
    )
    told = command(formula, "a=-4", "b=2")
    assert told["steps"][-1]["value"] == near(example["g"], 13)
    assert told["by_name"]["a"]["gradient"] == near(example["da"], 13)
    assert told["by_name"]["b"]["gradient"] == near(example["db"], 13)


def test_s20_order_matters(command):
    assert command("b = a + a; b + b", "a=1")["by_name"]["a"]["gradient"] == EXAMPLES["order"]["dc_da"]


# ------------------------------------------------------------------------------------------ corrections


@pytest.mark.parametrize("loss", ["nll", "ce"])
def test_the_shortcut_delta_does_not_follow_from_half_of_the_loss(command, text, loss):
    example = EXAMPLES["half_loss"]
    arguments = ("sigmoid(w*x)", "w=0.8", "x=0.5", "--loss", loss, "--y", "0")
    assert command(*arguments)["by_name"]["z"]["gradient"] == 0
    told = text(*arguments)
    assert "does not belong to L = −y·log ŷ with a sigmoid" in told
    assert "here 0.598688" in told and "L = 0.913015" in told
    assert "지름길" in text(*arguments, language="ko")
    whole = command(*arguments[:4], "bce", "--y", "0")["by_name"]
    assert whole["z"]["gradient"] == pytest.approx(example["dz"], abs=5e-5)
    assert whole["L"]["value"] == pytest.approx(example["bce_loss"], abs=5e-5)


def test_with_label_1_both_losses_agree_and_nothing_is_corrected(command, text):
    arguments = ("sigmoid(w*x)", "w=0.8", "x=0.5", "--loss", "nll", "--y", "1")
    assert command(*arguments)["by_name"]["z"]["gradient"] == near(NEURON["gradients"]["z"])
    assert "shortcut" not in text(*arguments)


def test_weights_in_a_matrix_need_the_transpose_and_the_sum_over_the_batch(text):
    told = text("sum(tanh(x@w))", "x=[[1, 2], [3, 4], [5, 6]]", "w=[[0.1, 0.2], [0.3, -0.1]]")
    assert "with matrices it is δ·aᵀ, and the product adds up over the batch" in told
    assert "→ w: xᵀ @ ∂y/∂z" in told
    delta, x = number([[1.0], [2.0]], False), number([[3.0], [4.0]], False)
    w = number([[0.5]])
    cr.matmul(x, w).backward(delta)
    assert w.grad.tolist() == [[3.0 * 1 + 4.0 * 2]]
