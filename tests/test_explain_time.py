"""A recurrent net told over time: what each step adds to a shared weight, and the product of Jacobians."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError
from chainrule.explain import explain
from chainrule.explain.section import told
from chainrule.explain.through_time import ThroughTime
from chainrule.iteration import scan

GOLDEN = Path(__file__).parent / "golden"


def tensor(value, requires_grad=False):
    return cr.tensor(value, dtype=cr.float64, requires_grad=requires_grad)


def repeated(factor, steps):
    weight, h = tensor(factor, True), tensor(1.0)
    for _ in range(steps):
        h = weight * h
    return weight, h


def section_of(tensor, about=None, **options):
    (found,) = explain(tensor, about=about, **options).sections
    assert isinstance(found, ThroughTime)
    return found


# ------------------------------------------------------------------------------------------ S14, by hand


@pytest.mark.parametrize("steps", [50, 100])
@pytest.mark.parametrize(
    ("factor", "expected", "verdict"),
    [
        (0.9, {50: 0.0051538, 100: 2.656e-05}, "vanishes"),
        (1.0, {50: 1, 100: 1}, "holds"),
        (1.1, {50: 117.3909, 100: 13780.6}, "explodes"),
    ],
)
def test_s14_the_product_of_jacobians(factor, expected, verdict, steps):
    weight, h = repeated(factor, steps)
    found = section_of(h, weight)
    first = found.moments[0]
    assert first.step == 0 and found.steps == steps
    assert first.jacobian.item() == pytest.approx(factor**steps, rel=1e-12)
    assert first.stretch == pytest.approx(expected[steps], rel=1e-4)
    assert found.rate == pytest.approx(factor, rel=1e-12) and found.verdict == verdict
    # ∂h_T/∂w = T·w^(T−1): every step adds the same.
    shares = [one.share for one in found.moments if one.share is not None]
    assert np.allclose(shares, factor ** (steps - 1), rtol=1e-12)
    assert found.total.item() == pytest.approx(steps * factor ** (steps - 1), rel=1e-12)
    for language, word in (
        ("en", {"vanishes": "vanishes", "holds": "holds", "explodes": "explodes"}[verdict]),
        ("ko", {"vanishes": "기울기 소실", "holds": "유지", "explodes": "기울기 폭주"}[verdict]),
    ):
        assert word in told(found, language)[-1]


def test_over_100_steps_is_said_after_50():
    _, h = repeated(0.9, 50)
    text = str(explain(h, language="en"))
    assert "a factor of 0.9 for each step on average, and would be 2.65614e-05 over 100 steps" in text
    assert "stretches no vector by more than 0.00515378" in text


# ---------------------------------------------------------------------------------- a small net, in full


def small_net():
    """x_t @ W + h @ U + b over three steps, everything by hand."""
    W = tensor([[0.5, -0.3], [0.2, 0.4]], True)
    U = tensor([[0.6, 0.1], [-0.2, 0.5]], True)
    b = tensor([0.1, -0.1], True)
    xs = tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    h = cr.zeros(2, dtype=cr.float64)
    states = []
    for t in range(3):
        h = cr.tanh(xs[t] @ W + h @ U + b)
        states.append(h.detach().numpy())
    return (W, U, b, xs, h), states, (h * h).sum()


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_text_of_a_small_net(language):
    (W, U, b, xs, h), _, loss = small_net()
    named = {"W": W, "U": U, "b": b, "xs": xs, "h": h, "L": loss}
    text = "\n".join(told(section_of(loss, U, names=named), language)) + "\n"
    assert text == (GOLDEN / f"explain_through_time.{language}.txt").read_text(encoding="utf-8")


def test_contributions_and_jacobians_by_the_textbook():
    (W, U, b, xs, h), states, loss = small_net()
    x, u = xs.numpy(), U.detach().numpy()
    before = [np.zeros(2), *states]
    slopes = [1 - one**2 for one in states]
    reach = {3: np.eye(2)}
    for t in (2, 1, 0):  # ∂h_t/∂h_(t−1) = diag(1 − h_t²)·Uᵀ
        reach[t] = reach[t + 1] @ (slopes[t][:, None] * u.T)
    incoming = {t: 2 * states[2] @ reach[t] for t in range(4)}
    deltas = {t: incoming[t] * slopes[t - 1] for t in (1, 2, 3)}
    for weight, share in (
        (W, lambda t: np.outer(x[t - 1], deltas[t])),
        (U, lambda t: np.outer(before[t - 1], deltas[t])),
        (b, lambda t: deltas[t]),
    ):
        found = section_of(loss, weight)
        assert [one.step for one in found.moments] == [0, 1, 2, 3]
        for one in found.moments:
            assert np.allclose(one.jacobian, reach[one.step], atol=1e-14)
            assert one.stretch == pytest.approx(np.linalg.norm(reach[one.step], 2))
            assert np.allclose(one.gradient, incoming[one.step], atol=1e-14)
            if one.step:
                assert np.allclose(one.share, share(one.step), atol=1e-14)
    assert h.shape == (2,)


def test_without_about_the_loops_own_weight_is_told_of():
    (_, U, *_), _, loss = small_net()
    found = section_of(loss, names={"U": U})
    assert found.weight == "U" and np.allclose(found.gradient, found.total)
    loss.backward()
    assert np.allclose(found.total, U.grad.numpy(), atol=1e-14)


def test_json_and_page_hold_the_section(tmp_path):
    (_, U, *_), _, loss = small_net()
    story = explain(loss, about=U, language="ko")
    data = json.loads(story.json())["sections"][0]
    assert data["section"] == "through_time" and data["verdict"] == "vanishes"
    assert np.allclose(data["sum"], data["gradient"]) and len(data["moments"]) == 4
    page = story.html()
    assert "BPTT" in page and "adds to ∂" in page and page.count('class="cr-total"') == 1
    assert "BPTT" in story._repr_html_()


# ------------------------------------------------- every step with a weight of its own: the truth to compare with


def vanilla(weights, x, state):
    W, U, b = weights
    (h,) = state
    return (cr.tanh(x @ W + h @ U + b),)


def gated(weights, x, state):
    """A GRU in which the reset gate stands before the product."""
    W, U, b = weights
    (h,) = state
    size = h.shape[-1]
    given = x @ W + b
    r = cr.sigmoid(given[:, :size] + h @ U[:, :size])
    z = cr.sigmoid(given[:, size : 2 * size] + h @ U[:, size : 2 * size])
    n = cr.tanh(given[:, 2 * size :] + (r * h) @ U[:, 2 * size :])
    return ((1 - z) * n + z * h,)


def separate(weights, x, state):
    """The same with a matrix for each gate, as papers write it."""
    W, Ur, Uz, Un, b = weights
    (h,) = state
    size = h.shape[-1]
    given = x @ W + b
    r = cr.sigmoid(given[:, :size] + h @ Ur)
    z = cr.sigmoid(given[:, size : 2 * size] + h @ Uz)
    return ((1 - z) * cr.tanh(given[:, 2 * size :] + (r * h) @ Un) + z * h,)


def long_short(weights, x, state):
    W, U, b = weights
    h, c = state
    size = h.shape[-1]
    gates = x @ W + h @ U + b
    i, f, g, o = (gates[:, k * size : (k + 1) * size] for k in range(4))
    c = cr.sigmoid(f) * c + cr.sigmoid(i) * cr.tanh(g)
    return cr.sigmoid(o) * cr.tanh(c), c


def joined(weights, x, state):
    """[x, h] side by side in one product."""
    W, U, b = weights
    (h,) = state
    return (cr.tanh(cr.concat([x, h], axis=1) @ cr.concat([W, U], axis=0) + b),)


CELLS = {
    "vanilla": (vanilla, 1, 1), "gru": (gated, 3, 1), "lstm": (long_short, 4, 2), "joined": (joined, 1, 1),
    "separate": (separate, 3, 1),
}  # fmt: skip


def drawn(seed, kind, steps, batch, inputs, hidden):
    rng = np.random.default_rng(seed)
    cell, gates, parts = CELLS[kind]
    shapes = [(inputs, gates * hidden), (hidden, gates * hidden), (gates * hidden,)]
    if kind == "separate":
        shapes[1:2] = [(hidden, hidden)] * 3
    arrays = [rng.normal(size=shape) for shape in shapes]
    xs = rng.normal(size=(steps, batch, inputs))
    state = tuple(cr.zeros((batch, hidden), dtype=cr.float64) for _ in range(parts))
    return cell, arrays, xs, state


def looped(cell, weights, xs, state, every):
    """The loss of a loop; `weights` are the same for all steps, or (a list) one set for each."""
    total = tensor(0.0)
    for t, x in enumerate(xs):
        state = cell(weights[t] if isinstance(weights, list) else weights, tensor(x), state)
        if every:
            total = total + (state[0] * state[0]).sum()
    return total if every else (state[0] * cr.cos(state[0])).sum()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from(["vanilla", "gru", "lstm", "separate"]), st.integers(3, 6),
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.booleans(),
)  # fmt: skip
def test_each_share_is_the_gradient_of_that_steps_own_weight(seed, kind, steps, batch, inputs, hidden, every):
    cell, arrays, xs, state = drawn(seed, kind, steps, batch, inputs, hidden)
    shared = tuple(tensor(one, True) for one in arrays)
    loss = looped(cell, shared, xs, state, every)
    own = [tuple(tensor(one, True) for one in arrays) for _ in range(steps)]
    looped(cell, own, xs, state, every).backward()
    loss.backward()
    for k, weight in enumerate(shared):
        found = section_of(loss, weight)
        assert found.steps == steps and found.outside is None, (k, found)
        for one in found.moments:
            if one.step:
                assert np.allclose(one.share, own[one.step - 1][k].grad.numpy(), atol=1e-11)
        assert np.allclose(found.total, weight.grad.numpy(), atol=1e-11)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from(list(CELLS)), st.integers(3, 5),
    st.integers(1, 2), st.integers(1, 2),
)  # fmt: skip
def test_the_jacobians_are_those_of_running_the_loop_on_from_there(seed, kind, steps, batch, hidden):
    cell, arrays, xs, state = drawn(seed, kind, steps, batch, 2, hidden)
    shared = tuple(tensor(one, True) for one in arrays)
    loss = looped(cell, shared, xs, state, False)
    found = section_of(loss, None if kind == "joined" else shared[seed % len(shared)])
    states = [state]
    for x in xs:
        states.append(cell(shared, tensor(x), states[-1]))
    shape = states[0][0].shape

    def flat(parts):
        return cr.concat([cr.reshape(one, (-1,)) for one in parts])

    def run_on(values, t):
        pieces = [cr.reshape(one, shape) for one in cr.unstack(cr.reshape(values, (len(state), -1)))]
        parts = tuple(pieces)
        for x in xs[t:]:
            parts = cell(shared, tensor(x), parts)
        return flat(parts)

    assert [one.step for one in found.moments] == list(range(kind == "joined", steps + 1))
    order = _order_of(found.moments[-1].state, flat(states[-1]).detach().numpy(), shape, len(state))
    for one in found.moments:
        values = flat(states[one.step]).detach()
        expected = cr.jacobian(lambda v, t=one.step: run_on(v, t))(values).detach().numpy()
        assert np.allclose(one.state, values.numpy()[order])
        assert np.allclose(one.jacobian, expected[np.ix_(order, order)], atol=1e-10)


def _order_of(state, values, shape, parts):
    """The section may hand on c before h: positions of its numbers in (h, c)."""
    size = int(np.prod(shape))
    for order in (range(parts), reversed(range(parts))):
        places = np.concatenate([np.arange(k * size, (k + 1) * size) for k in order])
        if np.allclose(values[places], state):
            return places
    raise AssertionError("the state of the section is not the state of the loop")


# --------------------------------------------------------------------------------------- scans and layers


def test_a_scan_tells_the_same_as_the_loop():
    (W, U, b, xs, _), _, by_hand = small_net()

    def step(h, x):
        h = cr.tanh(x @ W + h @ U + b)
        return h, h

    h, _ = scan(step, cr.zeros(2, dtype=cr.float64), xs)
    loss = (h * h).sum()
    for weight in (W, U, b):
        one, other = section_of(loss, weight), section_of(by_hand, weight)
        for a, z in zip(one.moments, other.moments, strict=True):
            assert a.step == z.step and np.allclose(a.jacobian, z.jacobian, atol=1e-14)
            assert np.allclose(a.state, z.state) and np.allclose(a.gradient, z.gradient, atol=1e-14)
            assert (a.share is None) == (z.share is None)
            assert a.share is None or np.allclose(a.share, z.share, atol=1e-14)


def test_a_scan_backwards_in_time_counts_its_own_steps():
    w, xs = tensor(0.5, True), tensor([1.0, 2.0, 4.0])
    h, _ = scan(lambda h, x: (w * h + x, h), tensor(0.0), xs, reverse=True)
    found = section_of(h, w)
    # h = 1 + w·(2 + w·4): the first step reads 4 and multiplies h_0 = 0, the last multiplies 2 + 4w.
    assert [one.share.item() for one in found.moments if one.share is not None] == [0.0, 2.0, 4.0]


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("layers", [1, 2])
def test_recurrent_layers_are_told_step_by_step(kind, layers):
    cr.manual_seed(1)
    layer = getattr(nn, kind)(2, 3, num_layers=layers, dtype=cr.float64)
    out, _ = layer(cr.randn((5, 2, 2), dtype=cr.float64))
    loss = (out * out).mean()
    loss.backward()
    for name, weight in layer.named_parameters():
        found = section_of(loss, weight, language="en")
        assert found.weight == name and found.steps == 5
        assert np.allclose(found.total, weight.grad.numpy(), atol=1e-13)
        assert found.outside is None
        assert len([one for one in found.moments if one.share is not None]) == 5


def test_truncated_steps_and_constants_are_no_loop():
    w = tensor(0.5, True)
    h = tensor(1.0)
    for _ in range(4):
        h = w * h.detach()
    with pytest.raises(
        ArgumentError, match=r"about= takes a weight that is used several times.*none of these"
    ):
        explain(h, about=w)
    assert explain(h).sections == []


def test_a_state_that_is_read_in_two_places_is_found():
    """Gradient descent on x²: the state is p, though the rate is multiplied with 2p."""
    rate, p = tensor(0.1, True), tensor(1.0)
    for _ in range(6):
        p = p - rate * (2 * p)
    found = section_of(p, rate)
    assert found.steps == 6 and found.verdict == "vanishes"
    assert (
        found.moments[0].step == 1
    )  # 2·p_0 is a plain number: no operation is left that would lead back to p_0
    for one in found.moments:
        assert one.state.item() == pytest.approx(0.8**one.step)
        assert one.jacobian.item() == pytest.approx(0.8 ** (6 - one.step))
        if one.step:
            assert one.share.item() == pytest.approx(-2 * 0.8**5)


def test_a_factor_near_1_holds_over_a_few_steps_and_says_what_100_would_do():
    _, h = repeated(0.9, 3)
    lines = told(section_of(h), "en")
    assert "holds its size over these steps" in lines[-1] and "2.65614e-05 over 100 steps" in lines[-2]


def test_a_product_that_shrinks_to_0_still_has_a_rate():
    weight, h = repeated(1e-5, 80)
    found = section_of(h, weight)
    assert found.moments[0].stretch == 0 and found.verdict == "vanishes"
    assert found.rate == pytest.approx(1e-5, rel=0.1)


def test_a_long_loop_is_told_of_if_asked_for():
    weight, h = repeated(0.9995, 3500)
    assert explain(h).sections == []
    found = section_of(h, weight, language="ko")
    assert found.steps == 3500 and found.moments[0].stretch == pytest.approx(0.9995**3500)
    lines = told(found, "ko")
    assert any("시점 3481개 더" in line for line in lines) and len(lines) < 35


def test_the_weight_of_a_cell_and_a_checkpointed_loop_are_told():
    cr.manual_seed(0)
    cell = nn.RNNCell(2, 3, dtype=cr.float64)
    h = cr.zeros((2, 3), dtype=cr.float64)
    for x in cr.randn((4, 2, 2), dtype=cr.float64):
        h = cr.checkpoint(lambda h, x=x: cell(x, h))(h)
    loss = (h * h).sum()
    loss.backward()
    for weight in cell.parameters():
        found = section_of(loss, weight)
        assert found.steps == 4 and np.allclose(found.total, weight.grad.numpy(), atol=1e-13)


def test_a_large_state_is_measured_along_some_directions():
    cr.manual_seed(0)
    U = (cr.randn((80, 80), dtype=cr.float64) * 0.1).detach().requires_grad_()
    h = cr.randn((1, 80), dtype=cr.float64)
    for _ in range(4):
        h = cr.tanh(h @ U)
    found = section_of(h.sum(), U)
    assert not found.whole and all(one.jacobian is None for one in found.moments)
    assert "along some directions" in "\n".join(told(found, "en")) and "일부 방향" in "\n".join(
        told(found, "ko")
    )
    product = np.eye(80)
    state = found.moments
    exact = {4: 1.0}
    for t in (3, 2, 1):
        product = product @ ((1 - state[t + 1].state ** 2)[:, None] * U.detach().numpy().T)
        exact[t] = np.linalg.norm(product, 2)
    for t, largest in exact.items():
        assert 0 < state[t].stretch <= largest * (1 + 1e-9)


def test_a_loop_that_overflows_is_told_without_a_verdict():
    weight, h = repeated(1e200, 3)
    found = section_of(h, weight)
    assert found.verdict == "unknown"
    assert "share" in told(found, "en")[0] and json.loads(explain(h, about=weight).json())


def test_a_hook_on_the_way_is_said():
    w, h = tensor(0.5, True), tensor(1.0)
    for _ in range(3):
        h = w * h
    w.register_hook(lambda g: g * 10)
    text = "\n".join(told(section_of(h, w), "en"))
    assert "Backpropagation arrives at" in text and "not linear" in text


def test_about_must_be_part_of_the_story():
    weight, h = repeated(0.5, 3)
    with pytest.raises(
        ArgumentError, match=r"about= takes a tensor that the story is told of; got float64\(\)"
    ):
        explain(h, about=tensor(1.0, True))
    with pytest.raises(ArgumentError, match="about= takes a tensor of the story; got float"):
        explain(h, about=3.0)
    assert weight.grad is None
