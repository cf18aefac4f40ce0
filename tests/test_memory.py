"""Graphs: deep ones work, dropped ones are freed at once, kept ones are noticed, threads have their own."""

from __future__ import annotations

import gc
import threading
import tracemalloc
import warnings
import weakref

import numpy as np
import pytest

import chainrule as cr
from chainrule.tensor import arrival


@pytest.fixture
def without_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_chain_of_100000_operations_forward_backward_and_dropped():
    x = cr.tensor(1.0, dtype=cr.float64, requires_grad=True)
    y = x
    for _ in range(100_000):
        y = y + 1e-5
    y.backward()
    assert y.item() == pytest.approx(2.0) and x.grad.item() == 1.0
    middle = weakref.ref(y.node.inputs[0])
    del y
    assert middle() is None


def test_a_diamond_of_2_to_the_60_paths_is_walked_once():
    x = cr.tensor(1.0, dtype=cr.float64, requires_grad=True)
    y = x
    for _ in range(60):
        y = (y + y) * 0.5
    y.backward()
    assert x.grad.item() == 1.0


PROGRAMS = {
    "elementwise": lambda x: (cr.exp(x) * x / (1.0 + x)).sum(),
    "broadcast": lambda x: (x[:, None] * x[None, :] + cr.ones(4)).mean(),
    "product": lambda x: (x.reshape(2, 2) @ x.reshape(2, 2)).max(),
    "composite": lambda x: cr.functional.cross_entropy(x.reshape(2, 2), cr.asarray([0, 1])),
    "indexing": lambda x: (cr.sort(x)[[0, 2]] * cr.cumulative_prod(x)[1:3]).sum(),
}


def assigned(x):
    y = x * 1.0
    y[0] = y[1] * 2.0
    y += x
    return y.sum()


PROGRAMS["in place"] = assigned
PROGRAMS["checkpoint"] = lambda x: cr.checkpoint(lambda x: cr.sin(cr.exp(x)))(x).sum()


@pytest.mark.parametrize("name", PROGRAMS)
def test_graphs_are_freed_without_the_cycle_collector(name, without_collector):
    x = cr.tensor([0.5, 1.0, 1.5, 2.0], requires_grad=True)
    loss = PROGRAMS[name](x)
    nodes, pending = [], [loss.node]
    while pending:
        node = pending.pop()
        if node.cell is None:
            nodes.append(weakref.ref(node))
        pending.extend(node.inputs)
    node = None
    loss.backward()
    assert x.grad is not None and len(nodes) > 2
    del loss
    assert [one() for one in nodes if one() is not None] == []


def test_transformations_leave_nothing_behind(without_collector):
    seen = []

    def f(x):
        y = cr.exp(x)
        seen.append(weakref.ref(y.node))
        return (y * y).sum()

    x = cr.tensor([1.0, 2.0])
    for transform in (cr.grad, cr.value_and_grad, cr.jacobian, cr.hessian):
        transform(f)(x)
    cr.jvp(f, [x], [x])
    cr.hvp(f, [x], [x])
    assert len(seen) >= 6 and [one() for one in seen if one() is not None] == []


def test_a_long_loop_does_not_grow_memory(without_collector):
    w = cr.tensor(np.ones(100), requires_grad=True)
    kept = []

    def steps(count):
        for _ in range(count):
            loss = (w * w).sum()
            loss.backward()
            kept.append(loss.item())
            w.grad = None

    steps(200)
    tracemalloc.start()
    steps(200)
    before = tracemalloc.get_traced_memory()[0]
    steps(2000)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 2000 * 64 + 50_000  # the kept floats and their list, but no arrays


def test_keeping_losses_with_their_graphs_warns_once_and_names_the_line():
    w = cr.tensor(1.0, requires_grad=True)
    losses = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3 * arrival.RETAINED_GRAPHS_LIMIT):
            loss = w * 2.0
            loss.backward()
            losses.append(loss)
    assert [one.category for one in caught] == [cr.GraphRetainedWarning]
    message = str(caught[0].message)
    assert "test_memory.py" in message and ".item()" in message and caught[0].filename == __file__
    with open(__file__, encoding="utf-8") as source:
        assert "loss = w * 2.0" in source.readlines()[caught[0].lineno - 1]


def test_keeping_the_numbers_of_the_losses_does_not_warn():
    w = cr.tensor(1.0, requires_grad=True)
    losses = []
    for _ in range(20_000):
        loss = w * 2.0
        loss.backward()
        losses.append(loss.item())
        w.grad = None
    assert losses == [2.0] * 20_000


def test_a_constant_holds_no_history():
    x = cr.tensor(np.ones(1000))
    before = weakref.ref(x.node)
    y = (x * 2.0 + 1.0).sum()
    del x
    assert before() is None and y.is_leaf
    w = cr.tensor(1.0, requires_grad=True)
    with cr.no_grad():
        z = w * 3.0
    assert z.is_leaf and not z.requires_grad


def trained(seed):
    """Weights after some steps of gradient descent on a graph of this thread."""
    w = cr.tensor(np.random.default_rng(seed).normal(size=(20, 20)), requires_grad=True)
    for _ in range(60):
        with cr.no_grad():
            assert not (w * 1.0).requires_grad
        loss = cr.functional.mse_loss(cr.tanh(w @ w), cr.zeros((20, 20), dtype=cr.float64))
        loss.backward()
        with cr.no_grad():
            w -= 0.1 * w.grad
        w.grad = None
    return w.numpy()


def test_eight_threads_with_their_own_graphs():
    answers, failures = {}, []
    start = threading.Barrier(8)

    def work(seed):
        start.wait()
        try:
            answers[seed] = trained(seed)
        except Exception as failure:  # shown by the main thread
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for seed in range(8):
        np.testing.assert_array_equal(answers[seed], trained(seed))


def test_threads_draw_different_random_numbers():
    generator, drawn = cr.Generator(1), []
    threads = [
        threading.Thread(target=lambda: drawn.extend(generator.uniform(100).tolist() for _ in range(50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({tuple(one) for one in drawn}) == 200


def test_recording_is_a_matter_of_the_thread():
    w = cr.tensor(1.0, requires_grad=True)
    found = []
    with cr.no_grad():
        thread = threading.Thread(target=lambda: found.append((w * 2.0).requires_grad))
        thread.start()
        thread.join()
        assert not (w * 2.0).requires_grad
    assert found == [True]
