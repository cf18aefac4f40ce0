"""Twelve steps from one neuron to training and second derivatives: if one fails, begin there."""

from __future__ import annotations

import math

import numpy as np

import chainrule as cr


def test_01_numbers_in_numbers_out():
    assert (cr.tensor([1.0, 2.0]) * 3.0 + 1.0).tolist() == [4.0, 7.0]


def test_02_one_neuron_has_the_gradient_of_the_textbook():
    w = cr.tensor(0.8, dtype=cr.float64, requires_grad=True)
    x = cr.tensor(0.5, dtype=cr.float64)
    z = w * x
    loss = cr.functional.binary_cross_entropy(cr.sigmoid(z), cr.tensor(1.0, dtype=cr.float64))
    loss.backward()
    share = 1 / (1 + math.exp(-0.4))
    assert abs(w.grad.item() - (share - 1) * 0.5) < 1e-15
    assert abs(w.grad.item() - -0.2006561699) < 1e-9
    assert abs(z.grad.item() - (share - 1)) < 1e-15


def test_03_where_paths_meet_gradients_add():
    x = cr.tensor(3.0, requires_grad=True)
    (x * x + x).backward()
    assert x.grad.item() == 7.0


def test_04_a_broadcast_operand_answers_for_all_its_uses():
    b = cr.tensor([1.0, 2.0], requires_grad=True)
    (cr.ones((5, 2)) * b).sum().backward()
    assert b.grad.tolist() == [5.0, 5.0]


def test_05_a_matrix_product():
    x, w = cr.tensor([[1.0, 2.0]], requires_grad=True), cr.tensor([[3.0], [4.0]], requires_grad=True)
    (x @ w).backward()
    assert x.grad.tolist() == [[3.0, 4.0]] and w.grad.tolist() == [[1.0], [2.0]]


def test_06_softmax_and_cross_entropy():
    logits = cr.tensor([[0.0, 0.0, 0.0]], requires_grad=True)
    loss = cr.functional.cross_entropy(logits, cr.asarray([2]))
    loss.backward()
    assert abs(loss.item() - math.log(3)) < 1e-6
    np.testing.assert_allclose(logits.grad.numpy(), [[1 / 3, 1 / 3, -2 / 3]], rtol=1e-6)


def test_07_parts_and_assignments():
    x = cr.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 1.0
    y[0] = y[2] * 10.0
    y[1:].sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0]
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 2.0, 12.0]


def test_08_a_choice_whose_other_side_is_not_finite():
    x = cr.tensor([0.0, 4.0], requires_grad=True)
    cr.where(x > 0, cr.sqrt(x), 0.0).sum().backward()
    assert x.grad.tolist() == [0.0, 0.25]


def test_09_functions_become_gradient_functions():
    value, slopes = cr.value_and_grad(lambda p: (p["w"] ** 2).sum() + p["b"])(
        {"w": cr.tensor([1.0, 2.0]), "b": cr.tensor(5.0)}
    )
    assert value.item() == 10.0 and slopes["w"].tolist() == [2.0, 4.0] and slopes["b"].item() == 1.0


def test_10_second_derivatives():
    def rosenbrock(x):
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

    hessian = cr.hessian(rosenbrock)(cr.tensor([1.0, 1.0], dtype=cr.float64))
    assert hessian.tolist() == [[802.0, -400.0], [-400.0, 200.0]]


def test_11_both_modes_agree_on_a_network():
    def network(w):
        return cr.tanh(w @ w).sum()

    w, v = (cr.tensor(np.random.default_rng(k).normal(size=(4, 4))) for k in (1, 2))
    slope = cr.jvp(network, [w], [v])[1].item()
    assert abs(slope - (cr.grad(network)(w) * v).sum().item()) < 1e-12


def test_12_a_network_learns_exclusive_or():
    cr.manual_seed(1)
    x = cr.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = cr.tensor([[0.0], [1.0], [1.0], [0.0]])
    weights = [
        cr.randn(2, 8).requires_grad_(),
        cr.zeros(8).requires_grad_(),
        cr.randn(8, 1).requires_grad_(),
        cr.zeros(1).requires_grad_(),
    ]
    for _ in range(400):
        hidden = cr.tanh(x @ weights[0] + weights[1])
        loss = cr.functional.binary_cross_entropy_with_logits(hidden @ weights[2] + weights[3], y)
        loss.backward()
        with cr.no_grad():
            for k in range(4):
                weights[k] -= 0.5 * weights[k].grad
                weights[k].grad = None
    assert loss.item() < 0.05
    chance = cr.sigmoid(cr.tanh(x @ weights[0] + weights[1]) @ weights[2] + weights[3])
    assert (chance > 0.5).tolist() == (y > 0.5).tolist()
