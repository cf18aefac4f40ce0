"""What people who come from PyTorch, NumPy or a spreadsheet type first, and what they are told."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

import chainrule as cr
from chainrule import elsewhere as package_names
from chainrule import nn
from chainrule.cli import main
from chainrule.errors import ArgumentError
from chainrule.tensor import elsewhere

# ------------------------------------------------------------------------- names of PyTorch and NumPy


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("unsqueeze", "Use cr.expand_dims(x, axis=…)"),
        ("view", "Use x.reshape(…)"),
        ("float", "Use x.astype(cr.float32)"),
        ("isnan", "Use cr.isnan(x)"),
        ("cpu", "Tensors live in the memory of the CPU: leave it out"),
    ],
)
def test_a_name_of_pytorch_is_answered_with_ours(name, advice):
    for one in (cr.ones(2), nn.Parameter(cr.ones(2)), cr.ones(2) + 1):
        with pytest.raises(AttributeError, match=re.escape(advice)) as caught:
            getattr(one, name)
        assert f"{type(one).__name__!r} has no attribute {name!r}" in str(caught.value)
        assert "test_stranger.py" in str(caught.value)


def test_names_that_are_elsewhere_are_not_there():
    x = cr.ones(2)
    for name in (*elsewhere.ADVICE, *elsewhere.FUNCTIONS):
        assert not hasattr(x, name) and name not in dir(x)
    assert getattr(x, "cuda", None) is None
    assert {"reshape", "T", "backward", "grad"} <= set(dir(x))
    with pytest.raises(AttributeError, match=r"object has no attribute 'nonsense'$"):
        x.nonsense  # noqa: B018


def test_every_advice_names_something_that_exists():
    x = cr.ones((2, 2))
    for name in elsewhere.FUNCTIONS:
        assert callable(getattr(cr, name)), name
    for name, advice in elsewhere.ADVICE.items():
        for place in re.findall(r"\bcr((?:\.\w+)+)", advice):
            found = cr
            for part in place[1:].split("."):
                assert hasattr(found, part), (name, advice)
                found = getattr(found, part)
        for attribute in re.findall(r"\bx\.(\w+)", advice):
            assert hasattr(x, attribute), (name, advice)


def test_advice_about_writing_in_place_works():
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    with cr.no_grad():
        w.copy_(0)
        w += 3
        w.copy_(w.clip(0, 2))
    assert w.tolist() == [2, 2] and w.requires_grad
    x = cr.tensor([[3.0, 1.0, 2.0]])
    assert cr.argsort(x, axis=1, descending=True)[..., :2].tolist() == [[0, 2]]


# ------------------------------------------------------------------------------- arguments of functions


@pytest.mark.parametrize("make", [cr.zeros, cr.ones, cr.empty])
def test_a_shape_may_be_given_axis_by_axis(make):
    assert make(2, 3).shape == make((2, 3)).shape == (2, 3)
    assert make(()).shape == () and make(0).shape == (0,)
    assert make(2, 3, dtype=cr.int64).dtype == cr.int64


@pytest.mark.parametrize(
    ("dtype", "fix"),
    [(np.float64, "dtype=cr.float64"), (np.int64, "dtype=cr.int64"), ("float32", "dtype=cr.float32")],
)
def test_a_dtype_behind_the_shape_is_told_its_name(dtype, fix):
    with pytest.raises(cr.ArgumentError, match=fix):
        cr.zeros(3, dtype)


def test_a_number_is_formatted_as_numbers_are():
    loss = cr.tensor(0.12345, requires_grad=True) * 2
    assert f"{loss:.3f}" == "0.247" and f"{cr.tensor([3]):4d}" == "   3"
    assert f"{loss}" == str(loss)
    with pytest.raises(cr.ShapeError, match="exactly one element"):
        f"{cr.ones(2):.3f}"


def test_options_of_other_compilers_and_loops_are_answered():
    with pytest.raises(cr.ArgumentError, match=r"compile takes .*got mode='max-autotune'\. Leave it out"):
        cr.compile(lambda x: x, mode="max-autotune")
    with pytest.raises(cr.ArgumentError, match=r"scan takes .*got unroll=4\. Leave it out.*test_stranger.py"):
        cr.scan(lambda carry, x: (carry, x), cr.ones(2), cr.ones((3, 2)), unroll=4)


def test_a_draw_from_softmax_is_the_one_of_the_advice():
    cr.manual_seed(0)
    logits = cr.log(cr.tensor([0.1, 0.6, 0.3])) + cr.zeros((4000, 1))
    drawn = cr.argmax(logits - cr.log(-cr.log(cr.rand(logits.shape))), axis=-1).numpy()  # elsewhere.ADVICE
    assert abs(np.bincount(drawn, minlength=3) / 4000 - [0.1, 0.6, 0.3]).max() < 0.03
    with pytest.raises(cr.MissingNameError, match=r"cr.rand\(logits.shape\).*a draw from softmax"):
        cr.multinomial(logits, 1)


def test_what_gives_its_state_too_is_no_tensor():
    class Reader(nn.Module):
        def __init__(self):
            self.rnn, self.out = nn.GRU(3, 4), nn.Linear(4, 1)

        def forward(self, x):
            return self.out(self.rnn(x))

    words = r"one tensor is needed in Reader/out; got a tuple of float32\(5, 2, 4\) and float32\(1, 2, 4\)\. Recurrent"
    for context in (cr.enable_grad, cr.no_grad):
        with context(), pytest.raises(cr.DtypeError, match=words + ".*output, _ = layer.*test_stranger.py"):
            Reader()(cr.ones((5, 2, 3)))
    with pytest.raises(
        cr.DtypeError, match=r"in Sequential/1; got a tuple of float32\(5, 2, 4\) and a tuple"
    ):
        nn.Sequential(nn.LSTM(3, 4), nn.Linear(4, 1))(cr.ones((5, 2, 3)))


def test_numbers_asked_for_inside_a_compiled_step_are_told_as_such():
    with pytest.raises(
        cr.ArgumentError, match=r"got requires_grad=True\. Call \.requires_grad_\(\) on the result"
    ):
        cr.ones(2, requires_grad=True)
    weight = cr.ones(2).requires_grad_()
    with pytest.raises(
        cr.TraceError, match=r"inside cr.compile a tensor has no numbers yet.*test_stranger.py"
    ):
        cr.compile(lambda x: (weight * x).numpy())(cr.ones(2))


def test_fit_says_that_the_data_are_a_pair():
    with pytest.raises(cr.ArgumentError, match=re.escape("fit(model, (X, y), …)")):
        cr.fit(nn.Linear(1, 1), [[1.0]], [1.0])
    with pytest.raises(cr.ArgumentError, match="Did you mean 'cross_entropy'"):
        cr.fit(nn.Linear(1, 1), ([[1.0]], [1.0]), loss="crossentropy")


# ------------------------------------------------------------------------------------------ the commands


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{k};{k % 7};{'n/a?' if k == 9 else k * k};{k % 2}" for k in range(60)]
    (tmp_path / "data.csv").write_text("a;b;c;y\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def told(capsys, *arguments):
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


TRAIN = ("train", "data.csv", "--target", "y", "--epochs", "1", "--out", "run", "--skip", "c")


def test_columns_can_be_skipped_or_taken_as_names(table, capsys):
    code, _, err = told(capsys, *TRAIN[:-2])
    assert code == 2 and "--category or --skip" in err
    code, out, _ = told(capsys, *TRAIN, "--category", "b", "--lang", "ko")
    assert code == 0
    assert re.search(r"\n +c +건너뜀", out) and re.search(r"\n +b +범주", out)
    assert "세미콜론으로 나뉩니다" in out
    code, _, err = told(capsys, *TRAIN[:-1], "nothing")
    assert code == 2 and "no column 'nothing'" in err


def test_predict_never_writes_over_the_table_that_it_reads(table, capsys):
    assert told(capsys, *TRAIN)[0] in (0, 1)  # one epoch may not beat the baseline
    before = (table / "data.csv").read_bytes()
    code, _, err = told(capsys, "predict", "run", "data.csv", "-o", os.path.join(".", "data.csv"))
    assert code == 2 and "Choose another name" in err
    assert (table / "data.csv").read_bytes() == before


def test_predict_says_what_the_network_needs(table, capsys):
    assert told(capsys, *TRAIN)[0] in (0, 1)  # one epoch may not beat the baseline
    (table / "short.csv").write_text("a\n1\n", encoding="utf-8")
    code, _, err = told(capsys, "predict", "run", "short.csv")
    assert code == 2 and "no column 'b'" in err and "The network was trained with it" in err
    (table / "run" / "model.safetensors").unlink()
    code, _, err = told(capsys, "predict", "run", "short.csv")
    assert code == 2 and "without it. Use another copy of the run" in err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
@pytest.mark.parametrize(
    "verb", [("explain", "w*x", "w=1", "x=2"), ("explain", "w*x", "w=1", "x=2", "--json")]
)
def test_a_full_disk_is_one_line(verb):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "chainrule.cli", *verb],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert (
        done.stderr.startswith("chainrule: error: the output must go somewhere")
        and done.stderr.count("\n") == 1
    )


# ------------------------------------------------------------------------------------------ explanations


def test_a_slope_of_zero_that_met_no_number_is_remarked(capsys):
    _, out, _ = told(capsys, "explain", "where(x>0, sqrt(x), 0)", "x=-1", "--lang", "en")
    assert "0 × nan counts as 0" in out
    _, out, _ = told(capsys, "explain", "sqrt(x)", "x=4", "--lang", "en")
    assert "counts as 0" not in out


def test_a_loss_that_stays_has_its_reason(capsys):
    _, out, _ = told(
        capsys, "explain", "relu(w*x)", "w=-1", "x=1", "--loss", "mse", "--y", "2", "--lang", "en"
    )
    assert "L stays at 4: the gradient is 0" in out
    _, out, _ = told(
        capsys, "explain", "w*x", "w=-1", "x=1", "--loss", "mse", "--y", "2", "--lr", "5", "--lang", "en"
    )
    assert "this step is too large" in out


def test_no_number_is_shown_where_none_was_measured(capsys):
    _, out, _ = told(capsys, "explain", "log(x)", "x=0", "--lang", "en")
    assert "finds no finite value" in out and "h = nan" not in out


def test_help_lists_the_functions_that_a_formula_may_call(capsys):
    _, out, _ = told(capsys, "explain", "--help")
    assert "softmax" in out and "logaddexp" in out


def test_names_of_pytorch_in_the_package_are_answered_with_ours():
    with pytest.raises(AttributeError, match=r"chainrule has no 'cat'. Use cr.concat"):
        cr.cat  # noqa: B018
    with pytest.raises(AttributeError, match=r"chainrule has no 'concat_all'. See dir\(chainrule\)"):
        cr.concat_all  # noqa: B018
    assert not hasattr(cr, "einsum")


@pytest.mark.parametrize("name", sorted(package_names.ADVICE))
def test_every_advice_about_the_package_names_things_that_exist(name):
    assert name not in cr.__all__
    for path in re.findall(r"cr\.([a-z_0-9.]+)", package_names.ADVICE[name]):
        found = cr
        for part in path.rstrip(".").split("."):
            found = getattr(found, part)


def test_max_with_dim_is_not_mistaken_for_pytorchs():
    x = cr.tensor([[1.0, 2.0], [4.0, 3.0]])
    with pytest.raises(ArgumentError, match=r"max\(axis=…\) for the values and argmax\(axis=…\)"):
        x.max(dim=1)
    assert x.max(axis=1).tolist() == [2.0, 4.0] and x.sum(dim=1).tolist() == [3.0, 7.0]


def test_modules_stay_on_the_cpu_and_are_not_pickled():
    model = cr.nn.Linear(2, 1)
    assert model.to("cpu") is model
    with pytest.raises(ArgumentError, match="the only device is 'cpu'; got 'cuda:0'"):
        model.to("cuda:0")
    with pytest.raises(TypeError, match="modules are not pickled"):
        pickle.dumps(model)


def test_a_page_is_written_also_when_the_reader_of_the_text_leaves_early(tmp_path):
    page, reader = tmp_path / "page.html", os.pipe()
    os.close(reader[0])
    command = [sys.executable, "-m", "chainrule.cli", "explain", "sigmoid(w*x)", "w=0.8", "x=0.5", "--html"]
    with os.fdopen(reader[1], "wb") as closed:
        subprocess.run([*command, str(page)], stdout=closed, stderr=subprocess.DEVNULL, check=False)
    assert "</html>" in page.read_text(encoding="utf-8")
