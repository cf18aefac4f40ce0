"""Batch normalization in nine steps, convolution as shared weights, softmax with cross-entropy, single uses."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import functional, nn
from chainrule.errors import ArgumentError
from chainrule.explain import explain
from chainrule.explain.classes import Classes
from chainrule.explain.convolution import Convolution
from chainrule.explain.normalization import Normalization
from chainrule.explain.section import Table, columns, told
from chainrule.explain.uses import Uses

GOLDEN = Path(__file__).parent / "golden"


def tensor(value, requires_grad=False):
    return cr.tensor(value, dtype=cr.float64, requires_grad=requires_grad)


def section_of(loss, kind, about=None, **options):
    (found,) = [one for one in explain(loss, about=about, **options).sections if isinstance(one, kind)]
    return found


def text_of(section, language):
    return "\n".join(told(section, language)) + "\n"


def golden(name, language):
    return (GOLDEN / f"explain_{name}.{language}.txt").read_text(encoding="utf-8")


# ----------------------------------------------------------------------------- S15: batch normalization


def s15():
    x = tensor([[1.0], [2.0], [3.0], [6.0]], True)
    gamma, beta = tensor([2.0], True), tensor([0.5], True)
    out = functional.batch_norm(x, None, None, gamma, beta, training=True)
    options = {
        "names": {"x": x, "gamma": gamma, "beta": beta, "out": out},
        "gradient": [[1.0], [0.0], [-1.0], [2.0]],
    }
    return out, options


def test_s15_nine_steps_forward_and_back():
    out, options = s15()
    found = section_of(out, Normalization, **options)
    values = dict(found.forward)
    assert [formula.partition(" = ")[0] for formula, _ in found.forward] == [*"μcqvdins", "out"]
    assert values["μ = mean(x)"] == 3 and values["v = mean(q)"] == 3.5
    assert values["d = √(v + 1e-05)"] == pytest.approx(np.sqrt(3.5 + 1e-5), rel=1e-15)
    assert values["out = s + beta"] == pytest.approx([-1.6380869, -0.5690434, 0.5, 3.7071303], abs=5e-8)
    assert found.gradient == pytest.approx([1.1454019, -0.2290816, -1.6035652, 0.6872448], abs=5e-8)
    assert found.gradient.sum() == pytest.approx(0, abs=1e-14)
    sent = {(line.step, line.target): line.outgoing for line in found.backward}
    assert sent[8, "gamma"] == pytest.approx(2.1380869, abs=5e-8) and sent[9, "beta"] == 2
    assert [line.step for line in found.backward] == [9, 9, 8, 8, 7, 7, 6, 5, 4, 3, 2, 2, 1]
    for line in found.backward:  # what each line says: incoming × local derivative, added up where it says so
        product = line.incoming * line.local
        assert np.allclose(product.sum() if line.added else product, line.outgoing, atol=1e-14), line
    assert np.allclose(sent[7, "c"] + sent[3, "c"], sent[2, "x"]) and np.allclose(
        sent[2, "x"] + sent[1, "x"], found.gradient
    )


def test_s15_three_paths():
    out, options = s15()
    found = section_of(out, Normalization, **options)
    d = np.sqrt(3.5 + 1e-5)
    g, c = 2 * np.array([1.0, 0.0, -1.0, 2.0]), np.array([-2.0, -1.0, 0.0, 3.0])
    assert np.allclose(found.paths["directly"], g / d, atol=1e-15)
    assert np.allclose(found.paths["through_mean"], -(g / d).mean(), atol=1e-15)
    assert np.allclose(found.paths["through_variance"], -c * (g * c).mean() / d**3, atol=1e-15)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_s15_as_text(language):
    out, options = s15()
    assert text_of(section_of(out, Normalization, **options), language) == golden("batch_norm", language)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(2, 5),
    st.integers(1, 3),
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
)
def test_the_three_paths_add_up_to_the_gradient(seed, rows, channels, spatial, scaled, shifted):
    rng = np.random.default_rng(seed)
    x = tensor(rng.normal(size=(rows, channels, *(2,) * spatial)), True)
    weight = tensor(rng.normal(size=channels), True) if scaled else None
    bias = tensor(rng.normal(size=channels), True) if shifted else None
    out = functional.batch_norm(x, None, None, weight, bias, training=True)
    loss = (out * out * tensor(rng.normal(size=out.shape))).sum()
    named = {name: one for name, one in (("weight", weight), ("bias", bias)) if one is not None}
    found = section_of(loss, Normalization, x, names=named)
    loss.backward()
    gradient = np.moveaxis(x.grad.numpy(), 1, 0).reshape(channels, -1)[found.channel]
    assert np.allclose(found.gradient, gradient, atol=1e-12)
    sent = {line.target: line.outgoing for line in found.backward if line.added}
    for vector, name in ((weight, "weight"), (bias, "bias")):
        if vector is not None:
            assert sent[name] == pytest.approx(vector.grad.numpy()[found.channel], abs=1e-12)
    assert len(found.forward) == 7 + scaled + shifted


def test_layers_tell_of_their_strongest_channel_and_evaluation_has_none():
    cr.manual_seed(0)
    layer = nn.BatchNorm2d(3, dtype=cr.float64)
    x = cr.randn((2, 3, 4, 4), dtype=cr.float64).requires_grad_()
    factors = tensor([1.0, 5.0, 2.0]).reshape((1, 3, 1, 1))
    loss = (cr.tanh(layer(x)) * factors).sum()
    found = section_of(loss, Normalization)
    assert found.channels == 3 and found.channel == 1 and found.x.size == 32
    text = text_of(found, "en")
    assert "channel 1 of 3" in text and "‖·‖" in text and "(32,) from" in text
    assert (
        "(32,) " in text_of(found, "ko")
        and "부터" in text_of(found, "ko")
        and "from" not in text_of(found, "ko")
    )
    assert json.loads(explain(loss).json())["sections"][0]["section"] == "batch_norm"
    layer.eval()
    assert explain(cr.tanh(layer(x)).sum()).sections == []


# --------------------------------------------------------------------------------------- S16: convolution


def s16():
    x = tensor(np.arange(1.0, 10.0).reshape(1, 1, 3, 3), True)
    w = tensor([[[[1.0, 0.0], [-1.0, 2.0]]]], True)
    out = functional.conv2d(x, w)
    return out, {"names": {"x": x, "w": w, "out": out}, "gradient": [[[[1.0, 2.0], [3.0, 4.0]]]]}


def test_s16_windows_and_what_each_adds():
    out, options = s16()
    story = explain(out, **options)
    assert story["out"].value.tolist() == [[[[7, 9], [13, 15]]]]
    (found,) = story.sections
    assert isinstance(found, Convolution)
    assert [one.window.tolist() for one in found.visits] == [
        [[1, 2], [4, 5]], [[2, 3], [5, 6]], [[4, 5], [7, 8]], [[5, 6], [8, 9]],
    ]  # fmt: skip
    assert [one.place for one in found.visits] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert found.total.tolist() == found.gradient.tolist() == [[37, 47], [67, 77]]
    heard = np.array([total for *_, total in found.heard]).reshape(3, 3)
    assert heard.tolist() == [[1, 2, 0], [2, 4, 4], [-3, 2, 8]]
    assert story["x"].gradient.reshape(3, 3).tolist() == heard.tolist()
    assert story["w"].gradient.reshape(2, 2).tolist() == found.total.tolist()


@pytest.mark.parametrize("language", ["en", "ko"])
def test_s16_as_text(language):
    out, options = s16()
    assert text_of(section_of(out, Convolution, **options), language) == golden("convolution", language)


def test_the_rule_of_a_convolution_is_sketched():
    out, options = s16()
    text = str(explain(out, language="en", fold=False, **options))
    assert "→ x: conv(∂out/∂out, flip(w)) = " in text and "→ w: conv(x, ∂out/∂out) = " in text
    assert "out = conv(x, w)" in text


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 2), st.integers(1, 2), st.integers(1, 2), st.integers(0, 1),
    st.integers(1, 2), st.integers(1, 2), st.integers(1, 2),
)  # fmt: skip
def test_windows_add_up_to_the_filters_gradient(
    seed, spatial, batch, stride, padding, dilation, groups, kernel
):
    rng = np.random.default_rng(seed)
    x = tensor(rng.normal(size=(batch, 2 * groups, *(6,) * spatial)), True)
    w = tensor(rng.normal(size=(2 * groups, 2, *(kernel,) * spatial)), True)
    convolve = functional.conv1d if spatial == 1 else functional.conv2d
    out = convolve(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    loss = cr.sin(out).sum()
    found = section_of(loss, Convolution, w)
    loss.backward()
    gradient = w.grad.numpy()[found.filter, found.channel]
    assert np.allclose(found.gradient, gradient, atol=1e-12) and np.allclose(
        found.total, gradient, atol=1e-12
    )
    assert found.places == batch * int(np.prod(out.shape[2:]))
    assert len(found.visits) + found.others == found.places
    for one in found.visits:
        assert np.allclose(one.share, one.window * one.arriving)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 2), st.integers(1, 2))
def test_what_the_input_hears_is_its_gradient(seed, stride, dilation):
    rng = np.random.default_rng(seed)
    x, w = tensor(rng.normal(size=(1, 1, 4, 4)), True), tensor(rng.normal(size=(1, 1, 2, 2)), True)
    loss = cr.sin(functional.conv2d(x, w, stride=stride, dilation=dilation)).sum()
    found = section_of(loss, Convolution, x)
    loss.backward()
    heard = np.array([total for *_, total in found.heard]).reshape(4, 4)
    assert np.allclose(heard, x.grad.numpy()[0, 0], atol=1e-13)


# ------------------------------------------------------------------- S10: softmax and cross-entropy, uses


def s10():
    z = tensor([1.0, 2.2, -3.0, 4.1], True)
    loss = functional.cross_entropy(z, cr.tensor(1))
    return z, loss


def test_s10_shares_less_target():
    z, loss = s10()
    found = section_of(loss, Classes, z)
    assert np.round(found.p, 4).tolist() == [0.0377, 0.1251, 0.0007, 0.8365]
    assert np.round(found.gradient, 5).tolist() == [0.03768, -0.87488, 0.00069, 0.83651]
    assert found.target == 1 and found.factor == 1 and round(loss.item(), 4) == 2.0785
    assert np.allclose(found.gradient, found.p - np.eye(4)[1], atol=1e-15)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_s10_as_text(language):
    z, loss = s10()
    found = section_of(loss, Classes, z, names={"z": z, "L": loss})
    assert text_of(found, language) == golden("cross_entropy", language)


def test_a_character_net_is_told_over_time_and_class_by_class():
    """'hell' → 'ello': one hidden unit for each letter, W and U of the identity's kind, all four steps count."""
    letters = np.eye(4)
    W, U, V = (tensor(np.roll(letters, k, axis=0) * 0.5, True) for k in (0, 1, 2))
    h, loss, logits = cr.zeros(4, dtype=cr.float64), tensor(0.0), []
    for letter, wanted in zip([0, 1, 2, 2], [1, 2, 2, 3]):
        h = cr.tanh(tensor(letters[letter]) @ W + h @ U)
        logits.append(h @ V)
        loss = loss + functional.cross_entropy(logits[-1], cr.tensor(wanted))
    loss.backward()
    for weight in (W, U, V):
        (found,) = explain(loss, about=weight).sections
        assert found.kind == "through_time" and found.steps == 4
        assert np.allclose(found.total, weight.grad.numpy(), atol=1e-14)
    for z, wanted in zip(logits, [1, 2, 2, 3]):
        found = section_of(loss, Classes, z)
        p = np.exp(z.detach().numpy()) / np.exp(z.detach().numpy()).sum()
        assert found.target == wanted and np.allclose(found.gradient, p - np.eye(4)[wanted], atol=1e-14)


def test_of_a_batch_the_least_certain_item_is_told():
    z = tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]], True)
    loss = functional.cross_entropy(z, cr.tensor([0, 2]))
    found = section_of(loss, Classes, z)
    assert found.item == 1 and found.target == 2 and found.factor == pytest.approx(0.5)
    assert "item 1 of 2" in text_of(found, "en") and "0.5 × (p − y)" in text_of(found, "ko")


def test_a_tied_weight_is_told_use_by_use():
    cr.manual_seed(0)
    table = cr.randn((5, 3), dtype=cr.float64).requires_grad_()
    loss = functional.cross_entropy(cr.tanh(table[cr.tensor([0, 2])]) @ table.T, cr.tensor([1, 4]))
    found = section_of(loss, Uses, table, language="en")
    loss.backward()
    assert [name for name, *_ in found.shares] == ["take", "matmul"]
    assert np.allclose(found.total, table.grad.numpy(), atol=1e-14)
    assert found.shares[0][2][[1, 3, 4]].any() == np.False_
    assert "2 operations read table" in text_of(found, "en") or "read" in text_of(found, "en")
    assert "읽고" in text_of(found, "ko")


def test_a_tensor_with_one_use_has_nothing_more_to_tell():
    w = tensor(2.0, True)
    with pytest.raises(
        ArgumentError, match=r"got float64\(\), which is none of these\. Its step in the story says all"
    ):
        explain(w * 3.0, about=w)


# ------------------------------------------------------------------------------------- words and columns


def test_arrays_are_described_in_the_readers_language():
    x = tensor(np.arange(60.0).reshape(20, 3), True)
    story = explain((x * x).sum(), names={"x": x})
    assert "(20, 3) from 0 to 59, mean 29.5" in story.text("en")
    assert "(20, 3) 0부터 59까지, 평균 29.5" in story.text("ko")
    assert "mean" not in story.text("ko").replace("mean(", "") and "평균" not in story.text("en")
    page = story.html("ko")
    assert '<span class="cr-ko" lang="ko">(20, 3) 0부터 59까지, 평균 29.5</span>' in page
    assert '<span class="cr-en" lang="en">(20, 3) from 0 to 59, mean 29.5</span>' in page


def test_a_sum_of_many_terms_is_cut():
    w, h = tensor(0.5, True), tensor(1.0)
    for _ in range(30):
        h = w * h
    text = str(explain(h, names={"w": w}, language="en"))
    (line,) = [one for one in text.splitlines() if "30 paths meet at w" in one]
    assert line.count(" + ") == 9 and "+ … +" in line


def test_a_large_filter_is_told_in_short_place_by_place():
    cr.manual_seed(0)
    layer = nn.Conv2d(1, 1, 3)
    section = explain(layer(cr.randn(2, 1, 6, 6)).sum(), about=layer.weight).sections[0]
    table = next(one for one in section.blocks("en") if isinstance(one, Table))
    shares = [row[3] for row in table.rows]
    assert all(one.startswith("(3, 3) from ") for one in shares[:-2]), "no empty cell"
    assert all(one.startswith("[[") for one in shares[-2:]), "the others and the sum, number by number"


def test_a_column_of_states_that_are_too_large_is_left_out():
    cr.manual_seed(0)
    net = nn.RNN(1, 8)
    section = explain((net(cr.randn(40, 2, 1))[0] ** 2).mean(), about=net.weight_hh_l0).sections[0]
    text = "\n".join(told(section, "en"))
    assert "more steps)" in text and "h_t  " not in text.splitlines()[2]


def test_columns_without_content_are_left_out():
    lines = columns(Table(["a", "b", "c"], [["1", "", "x"], ["2", "", "기울기"]], total=True))
    assert lines == ["a  c", "─" * 9, "1  x", "─" * 9, "2  기울기"]


# ------------------------------------------------------------------------------------------------ the page


CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def net_page(tmp_path_factory):
    """A page with all three sections: a convolution, a batch normalization, a loop."""
    cr.manual_seed(0)
    front = nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    rnn, head = nn.RNN(2, 3), nn.Linear(3, 2)
    features = front(cr.randn((4, 1, 3, 3)))
    out, _ = rnn(cr.stack([features, features, features]))
    loss = functional.cross_entropy(head(out[-1]), cr.tensor([0, 1, 0, 1]))
    story = explain(loss, language="en")
    assert [one.kind for one in story.sections] == ["through_time", "batch_norm", "convolution"]
    path = tmp_path_factory.mktemp("nets") / "net.html"
    story.save(path)
    return path


def test_every_section_has_tables_and_both_languages(net_page):
    text = net_page.read_text(encoding="utf-8")
    assert text.count('<section class="cr-section">') == 3 and text.count('class="cr-total"') >= 2
    for words in (
        "Through time",
        "시간에 따른 역전파",
        "Batch normalization of",
        "배치 정규화",
        "Shared weights",
        "가중치 공유",
    ):
        assert words in text
    assert "style=" not in text and "onerror" not in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_net_opens_without_complaint(net_page, scheme):
    if CHROMIUM is None:
        pytest.skip("no chromium found; set CHROMIUM to one")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1500, "height": 900}, color_scheme=scheme).new_page()
        complaints = []
        page.on("console", lambda one: complaints.append(one.text))
        page.on("pageerror", lambda one: complaints.append(str(one)))
        page.goto(net_page.as_uri())
        assert page.locator(".cr-section").count() == 3 and complaints == []
        front, back = (
            page.eval_on_selector(selector, f"one => getComputedStyle(one).{what}")
            for selector, what in ((".cr-section td", "color"), (".cr-story", "backgroundColor"))
        )
        assert front != back
        assert "Through time" in page.inner_text("main") and "시간에 따른" not in page.inner_text("main")
        page.click("#cr-language")
        assert "시간에 따른 역전파" in page.inner_text("main") and "Through time" not in page.inner_text(
            "main"
        )
        wide = page.eval_on_selector_all(".cr-section .cr-scroll", "all => all.map(one => one.clientWidth)")
        assert all(0 < one <= 1500 for one in wide)
        for _ in range(page.locator(".cr-node").count() * 2):  # through every step, forwards and back
            page.keyboard.press("ArrowRight")
        assert complaints == []
        browser.close()
