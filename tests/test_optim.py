"""Optimizers: trajectories beside PyTorch's, hyper-parameters in cells, state that can be saved, faults in words."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ArgumentError, ShapeError
from chainrule.graph import Graph, Node, evaluate, state, structure_version, verify
from chainrule.operations import READ
from chainrule.ops import NUMPY
from chainrule.runtime import compile


def make_model(dtype, seed=1):
    cr.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16, dtype=dtype), nn.Tanh(), nn.Linear(16, 3, dtype=dtype))


def make_data(dtype, rows=32):
    generator = np.random.default_rng(7)
    return generator.normal(size=(rows, 6)).astype(dtype), generator.integers(0, 3, rows)


def twin_in_torch(torch, model):
    layers = [
        torch.nn.Linear(one.in_features, one.out_features) if isinstance(one, nn.Linear) else torch.nn.Tanh()
        for one in model
    ]
    twin = torch.nn.Sequential(*layers).to(torch.from_numpy(model[0].weight.detach().numpy()).dtype)
    state = {name: torch.from_numpy(value.numpy()) for name, value in model.state_dict().items()}
    twin.load_state_dict(state)
    return twin


VARIANTS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.01}),
    ("Adam", {"lr": 1e-3}),
    ("Adam", {"lr": 1e-2, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.02}),
    ("Adam", {"lr": 1e-2, "amsgrad": True}),
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name,options", VARIANTS, ids=lambda one: str(one))
def test_trajectory_equals_pytorch(name, options, dtype):
    torch = pytest.importorskip("torch")
    model = make_model(dtype)
    twin = twin_in_torch(torch, model)
    x, y = make_data(dtype)
    ours = getattr(optim, name)(model.parameters(), **options)
    theirs = getattr(torch.optim, name)(twin.parameters(), **options)
    xs, ys, xt, yt = cr.tensor(x), cr.tensor(y), torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(200):
        loss = cr.functional.cross_entropy(model(xs), ys)
        loss.backward()
        ours.step()
        ours.zero_grad()
        expected = torch.nn.functional.cross_entropy(twin(xt), yt)
        expected.backward()
        theirs.step()
        theirs.zero_grad()
        assert loss.item() == pytest.approx(expected.item(), abs=1e-9 if dtype == "float64" else 1e-4)
    if dtype == "float64":
        for mine, other in zip(model.parameters(), twin.parameters()):
            np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), rtol=0, atol=1e-9)


def test_state_dict_has_the_form_of_pytorch_and_is_taken_from_it():
    torch = pytest.importorskip("torch")
    model = make_model("float64")
    twin = twin_in_torch(torch, model)
    x, y = make_data("float64")
    theirs = torch.optim.Adam(twin.parameters(), lr=1e-2)
    for _ in range(5):
        torch.nn.functional.cross_entropy(twin(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        theirs.step()
        theirs.zero_grad()
    ours = optim.Adam(model.parameters(), lr=0.5)
    assert ours.state_dict()["param_groups"][0]["params"] == theirs.state_dict()["param_groups"][0]["params"]
    ours.load_state_dict(theirs.state_dict())
    model.load_state_dict({name: value.numpy() for name, value in twin.state_dict().items()})
    assert ours.param_groups[0]["lr"] == 1e-2
    for _ in range(5):
        cr.functional.cross_entropy(model(cr.tensor(x)), cr.tensor(y)).backward()
        ours.step()
        ours.zero_grad()
        torch.nn.functional.cross_entropy(twin(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        theirs.step()
        theirs.zero_grad()
    np.testing.assert_allclose(
        model[0].weight.detach().numpy(), twin[0].weight.detach().numpy(), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name,options", VARIANTS, ids=lambda one: str(one))
def test_formula_on_tensors_equals_formula_on_arrays(name, options):
    """A traced step runs the same formula on tensors; here without a trace, which must give the same bits."""
    eager, symbolic = make_model("float32"), make_model("float32")
    first, second = (
        getattr(optim, name)(eager.parameters(), **options),
        getattr(optim, name)(symbolic.parameters(), **options),
    )
    x, y = map(cr.tensor, make_data("float32"))
    for _ in range(10):
        for model, step in (
            (eager, first.step),
            (symbolic, lambda: [second._step_traced(g) for g in second.param_groups]),
        ):
            model.zero_grad()
            cr.functional.cross_entropy(model(x), y).backward()
            with cr.no_grad():
                step()
    for mine, other in zip(eager.parameters(), symbolic.parameters()):
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), rtol=2e-6, atol=1e-7)
        assert mine.dtype == other.dtype == cr.float32
    assert all(entry["step"].item() == 10 for entry in (*first.state.values(), *second.state.values()))


def test_saved_and_loaded_state_continues_bit_for_bit():
    x, y = map(cr.tensor, make_data("float32"))

    def run(model, optimizer, steps):
        for _ in range(steps):
            model.zero_grad()
            cr.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    whole = make_model("float32")
    optimizer = optim.Adam(whole.parameters(), lr=1e-2)
    run(whole, optimizer, 7)
    weights, state = whole.state_dict(), optimizer.state_dict()
    run(whole, optimizer, 5)
    again = make_model("float32", seed=9)
    continued = optim.Adam(again.parameters())
    again.load_state_dict(weights)
    continued.load_state_dict(state)
    run(again, continued, 5)
    for mine, other in zip(whole.parameters(), again.parameters()):
        np.testing.assert_array_equal(mine.detach().numpy(), other.detach().numpy())


def test_an_array_that_somebody_holds_is_not_written_into():
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    optimizer = optim.SGD([w], lr=0.1, momentum=0.9)
    held = w.cell.array
    (w * w).sum().backward()
    kept = w.detach()
    optimizer.step()
    np.testing.assert_array_equal(held, [1.0, 2.0])
    assert kept.tolist() == [1.0, 2.0] and w.tolist() == pytest.approx([0.8, 1.6])


def test_hyper_parameters_are_floats_in_cells():
    w = cr.tensor([1.0], requires_grad=True)
    optimizer = optim.Adam([w], lr=0.1)
    group = optimizer.param_groups[0]
    assert group["lr"] == 0.1 and group["betas"] == (0.9, 0.999) and group["amsgrad"] is False
    before = structure_version()
    group["lr"] = 0.2
    assert group["lr"] == 0.2
    assert structure_version() == before, "a new learning rate is no new structure"
    group["weight_decay"] = 0.1
    assert structure_version() > before, "switching weight decay on changes the formula"
    assert "lr=0.2" in repr(optimizer)
    with pytest.raises(ArgumentError, match="'momentum'"):
        group["momentum"] = 0.5


def test_groups_have_their_own_learning_rates():
    a, b = cr.tensor([1.0], requires_grad=True), cr.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1)
    ((a + b) * 1.0).sum().backward()
    optimizer.step()
    assert (a.item(), b.item()) == pytest.approx((0.9, 0.5))


def test_parameters_without_gradient_stay_and_do_not_count():
    a, b = cr.tensor([1.0], requires_grad=True), cr.tensor([1.0], requires_grad=True)
    optimizer = optim.Adam([a, b], lr=0.1)
    (a * 2).sum().backward()
    optimizer.step()
    assert b.item() == 1.0 and b not in optimizer.state and optimizer.state[a]["step"].item() == 1


def test_zero_grad_forgets_or_zeroes():
    w = cr.tensor([3.0], requires_grad=True)
    optimizer = optim.SGD([w])
    (w * w).sum().backward()
    optimizer.zero_grad(set_to_none=False)
    assert w.grad.tolist() == [0.0]
    optimizer.zero_grad()
    assert w.grad is None


def test_closure_is_run_with_gradients():
    w = cr.tensor([3.0], requires_grad=True)
    optimizer = optim.SGD([w], lr=0.1)

    def closure():
        loss = (w * w).sum()
        loss.backward()
        return loss

    with cr.no_grad():
        assert optimizer.step(closure).item() == 9.0
    assert w.item() == pytest.approx(2.4)


@pytest.mark.parametrize(
    "make,words",
    [
        (lambda w: optim.SGD([]), "at least one parameter"),
        (lambda w: optim.SGD(w), r"Write \[parameter\]"),
        (lambda w: optim.SGD([w], lr=-1), "lr must be from 0; got -1"),
        (lambda w: optim.SGD([w], lr="fast"), "lr must be a number; got 'fast'"),
        (lambda w: optim.SGD([w], nesterov=True), "nesterov needs a momentum above 0"),
        (lambda w: optim.Adam([w], betas=(0.9, 1.0)), r"betas\[1\] must be from 0 to below 1; got 1"),
        (lambda w: optim.Adam([w, w]), "one group, once"),
        (lambda w: optim.Adam([w * 2]), "result of an operation"),
        (lambda w: optim.Adam([{"params": [w], "speed": 3}]), "unknown speed"),
        (lambda w: optim.Adam([np.zeros(3)]), "must be a Tensor; got ndarray"),
    ],
)
def test_faults_are_told(make, words):
    with pytest.raises(ArgumentError, match=words):
        make(cr.tensor([1.0], requires_grad=True))


def test_state_of_another_model_is_refused_and_nothing_changes():
    w, v = cr.tensor([1.0], requires_grad=True), cr.tensor([1.0, 2.0], requires_grad=True)
    one, other = optim.Adam([w], lr=0.1), optim.Adam([v], lr=0.2)
    (v * v).sum().backward()
    other.step()
    with pytest.raises(ShapeError, match=r"exp_avg of shape \(1,\); got \(2,\)"):
        one.load_state_dict(other.state_dict())
    assert one.param_groups[0]["lr"] == 0.1 and not one.state


# ------------------------------------------------------------------------------------------- in a trace


class Recorder:
    """The smallest trace that `graph.Trace` describes: reads become sources, writes are collected."""

    def __init__(self):
        self.reads, self.arrays, self.grads = {}, {}, {}

    def read(self, cell):
        if cell not in self.arrays:
            node = Node(READ, (), {}, None, (cell.type,), cell.requires_grad, cell)
            self.reads[cell, "array"] = self.arrays[cell] = node
        return self.arrays[cell]

    def write(self, cell, node):
        self.arrays[cell] = node

    def read_grad(self, cell):
        return self.grads.get(cell)

    def write_grad(self, cell, node):
        self.grads[cell] = node

    def apply(self, operation, inputs, attributes):
        return operation.symbolic(inputs, attributes)

    def create(self, cell):
        raise AssertionError("a cell that is made in a trace does not outlive it")

    def check(self, condition, message, error=None, subject=None):
        pass

    def differentiated(self, node):
        pass

    def graph(self, loss):
        written = {(cell, "array"): node for cell, node in self.arrays.items() if node.operation is not READ}
        return verify(Graph("step", (), (loss.node,), self.reads, written))


@pytest.mark.parametrize("name,options", VARIANTS, ids=lambda one: str(one))
def test_a_traced_step_is_a_graph_whose_hyper_parameters_are_inputs(name, options):
    model, twin = make_model("float64"), make_model("float64")
    optimizer, eager = (getattr(optim, name)(one.parameters(), **options) for one in (model, twin))
    x, y = map(cr.tensor, make_data("float64"))

    def step(network, updater):
        loss = cr.functional.cross_entropy(network(x), y)
        loss.backward()
        updater.step()
        updater.zero_grad()
        return loss

    recorder = state.trace = Recorder()
    try:
        assert repr(optimizer.param_groups[0]["lr"]).startswith("Traced float64[]")
        graph = recorder.graph(step(model, optimizer))
    finally:
        state.trace = None
    assert optimizer.param_groups[0]._cells["lr"] in {cell for cell, _ in graph.reads}
    for count in range(12):
        if count == 6:  # a new learning rate needs no new graph
            optimizer.param_groups[0]["lr"] = eager.param_groups[0]["lr"] = 0.003
        values = evaluate(graph, [cell.array for cell, _ in graph.reads], NUMPY)
        for (cell, _), value in zip(graph.writes, values[1:]):
            cell.write(np.asarray(value))
        assert float(values[0]) == pytest.approx(step(twin, eager).item(), rel=1e-12)
    for mine, other in zip(model.parameters(), twin.parameters()):
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), rtol=1e-11, atol=1e-13)
    assert all(entry["step"].item() == 12 for entry in optimizer.state.values())


@pytest.mark.parametrize("name,options", VARIANTS[1::2], ids=lambda one: str(one))
def test_a_compiled_step_equals_the_eager_one(name, options):
    pytest.importorskip("llvmlite")
    model, twin = make_model("float32"), make_model("float32")
    optimizer, eager = (getattr(optim, name)(one.parameters(), **options) for one in (model, twin))
    x, y = map(cr.tensor, make_data("float32"))

    @compile
    def step(x, y):
        loss = cr.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    for count in range(12):
        if count == 4:  # no new trace
            optimizer.param_groups[0]["lr"] = eager.param_groups[0]["lr"] = 0.003
        if count == 8:  # other structure: some parameters are frozen, and weights decay
            model[0].requires_grad_(False)
            twin[0].requires_grad_(False)
            optimizer.param_groups[0]["weight_decay"] = eager.param_groups[0]["weight_decay"] = 0.1
        expected = cr.functional.cross_entropy(twin(x), y)
        expected.backward()
        eager.step()
        eager.zero_grad()
        assert step(x, y).item() == pytest.approx(expected.item(), abs=1e-5)
    assert len(step.recompiles) == 1
    for mine, other in zip(model.parameters(), twin.parameters()):
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), atol=2e-5)
    assert [entry["step"].item() for entry in optimizer.state.values()] == [8, 8, 12, 12]
