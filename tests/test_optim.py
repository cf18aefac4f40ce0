"""Optimizers: hyper-parameters in cells, state that can be saved, traced steps, faults in words.

Trajectories beside PyTorch's are in test_training_parity.
"""

import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ArgumentError, ChainruleError, MissingNameError, ShapeError
from chainrule.graph import Graph, Node, Trace, evaluate, state, verify
from chainrule.operations import READ
from chainrule.ops import NUMPY
from chainrule.runtime import compile
from chainrule.structure import structure_version


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
    ("AdamW", {"lr": 1e-2, "weight_decay": 0.1, "maximize": True}),
    ("RMSprop", {"lr": 1e-2, "weight_decay": 0.01}),
    ("RMSprop", {"lr": 1e-2, "momentum": 0.5, "centered": True}),
    ("Adagrad", {"lr": 1e-2, "lr_decay": 0.01, "initial_accumulator_value": 0.1}),
]


def test_state_dict_has_the_form_of_pytorch_and_is_taken_from_it(torch):
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
        (lambda w: optim.Adam(iter(())), "read before is empty"),
        (lambda w: optim.SGD(w), r"Write \[parameter\]"),
        (lambda w: optim.Adam(nn.Identity()), r"got Identity. Pass model\.parameters"),
        (lambda w: optim.Adam({"params": [w]}), "a list of groups; got dict"),
        (lambda w: optim.Adam([{"params": [w]}, w]), "a dict with 'params'; got Tensor"),
        (lambda w: optim.Adam([{"params": []}]), "got no parameters"),
        (lambda w: optim.Adam([("w", w)]), r"must be a Tensor; got tuple. Pass model\.parameters"),
        (lambda w: optim.SGD([w], lr=-1), "lr must be from 0; got -1"),
        (lambda w: optim.SGD([w], lr=math.nan), "lr must be finite; got nan"),
        (lambda w: optim.Adam([w], lr=math.inf), "lr must be finite; got inf"),
        (lambda w: optim.SGD([w], lr="fast"), "lr must be a number; got 'fast'"),
        (lambda w: optim.SGD([w], lr=True), "lr must be a number; got True"),
        (lambda w: optim.SGD([w], dampening=math.nan), "dampening must be finite; got nan"),
        (lambda w: optim.SGD([w], nesterov=True), "nesterov needs a momentum above 0"),
        (lambda w: optim.Adam([w], betas=(0.9, 1.0)), r"betas\[1\] must be from 0 to below 1; got 1"),
        (lambda w: optim.Adam([w], betas=0.9), r"betas must be 2 numbers; got 0\.9"),
        (lambda w: optim.AdamW([w], betas=(0.9, 0.99, 0.999)), "betas must be 2 numbers"),
        (lambda w: optim.AdamW([w], eps=math.nan), "eps must be finite; got nan"),
        (lambda w: optim.AdamW([{"params": [w], "decoupled_weight_decay": False}]), r"Use optim\.Adam"),
        (lambda w: optim.RMSprop([w], alpha=1.0), "alpha must be from 0 to below 1; got 1"),
        (lambda w: optim.RMSprop([w], momentum=-0.1), "momentum must be from 0; got -0.1"),
        (lambda w: optim.Adagrad([w], lr_decay=-1), "lr_decay must be from 0; got -1"),
        (
            lambda w: optim.Adagrad([w], initial_accumulator_value=-1),
            "initial_accumulator_value must be from 0",
        ),
        (lambda w: optim.Adam([w, w]), "one group, once"),
        (lambda w: optim.Adam([w * 2]), "result of an operation"),
        (lambda w: optim.Adam([{"params": [w], "speed": 3}]), "unknown speed"),
        (lambda w: optim.Adam([np.zeros(3)]), "must be a Tensor; got ndarray"),
        (
            lambda w: optim.AdamW([w], learning_rate=0.1),
            r"AdamW takes \(params, lr=0.001.*got learning_rate=0.1. Use lr=",
        ),
        (lambda w: optim.SGD([w], foreach=True), "got foreach=True. There is one implementation"),
    ],
)
def test_faults_are_told(make, words):
    with pytest.raises(ArgumentError, match=words):
        make(cr.tensor([1.0], requires_grad=True))


@pytest.mark.parametrize(
    "name,value,words",
    [
        ("lr", -0.1, r"lr must be from 0; got -0\.1"),
        ("lr", math.nan, "lr must be finite; got nan"),
        ("lr", None, "lr must be a number; got None"),
        ("betas", (0.9, 1.5), r"betas\[1\] must be from 0 to below 1"),
        ("betas", (0.9,), r"betas must be 2 numbers; got \(0\.9,\)"),
        ("betas", 0.9, r"betas must be 2 numbers; got 0\.9"),
        ("params", [], "got 'params'. Use add_param_group"),
        ("momentum", 0.9, "the hyper-parameters of this group are lr, betas"),
    ],
)
def test_what_is_written_into_a_group_is_checked(name, value, words):
    optimizer = optim.Adam([cr.tensor([1.0], requires_grad=True)], lr=0.1)
    before = optimizer.state_dict()
    with pytest.raises(ArgumentError, match=words):
        optimizer.param_groups[0][name] = value
    assert optimizer.state_dict() == before
    with pytest.raises(ArgumentError, match="Set it to 0"):
        del optimizer.param_groups[0]["lr"]


def test_a_learning_rate_may_come_as_any_kind_of_number():
    optimizer = optim.Adam([cr.tensor([1.0], requires_grad=True)], lr=np.float32(0.5))
    group = optimizer.param_groups[0]
    assert group["lr"] == 0.5 and type(group["lr"]) is float
    group["lr"] = cr.tensor(0.25)
    group["betas"] = [0.5, np.float64(0.75)]
    assert group["lr"] == 0.25 and group["betas"] == (0.5, 0.75)


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Adagrad"])
@pytest.mark.parametrize("first,second", [("float32", "float64"), ("float64", "float32")])
def test_a_model_may_change_its_dtype_in_mid_training(name, first, second):
    model = make_model(first)
    optimizer = getattr(optim, name)(
        model.parameters(), lr=1e-3, **({"momentum": 0.9} if name == "SGD" else {})
    )

    def step(dtype):
        x, y = map(cr.tensor, make_data(dtype))
        model.zero_grad()
        cr.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    step(first)
    kept = {id(entry): entry.numpy() for entries in optimizer.state.values() for entry in entries.values()}
    model.to(second)
    step(second)
    assert all(parameter.dtype.name == second for parameter in model.parameters())
    for entries in optimizer.state.values():
        assert entries["step"].item() == 2
        for key, entry in entries.items():
            assert key == "step" or entry.dtype.name == second
            assert id(entry) in kept, "what was learnt before is kept"


def test_what_is_kept_grows_with_the_hyper_parameters():
    w = cr.tensor([1.0, -2.0], requires_grad=True)
    optimizer = optim.RMSprop([w], lr=0.1, momentum=0.9)
    group = optimizer.param_groups[0]
    (w * w).sum().backward()
    optimizer.step()
    group["momentum"], group["centered"] = 0.0, True
    optimizer.step()
    assert set(optimizer.state[w]) == {"step", "square_avg", "momentum_buffer", "grad_avg"}
    again = optim.RMSprop([w], lr=0.1)
    again.load_state_dict(optimizer.state_dict())
    assert set(again.state[w]) == set(optimizer.state[w]) and again.param_groups[0]["centered"] is True


def test_an_optimizer_of_the_users_own_needs_three_methods():
    class Signs(optim.Optimizer):
        """Steps of one size, in the direction of the sign."""

        def __init__(self, params, lr=0.5):
            super().__init__(params, {"lr": lr})

        def coefficients(self, xp, group, step):
            return {"lr": group["lr"]}

        def update(self, xp, parameter, gradient, kept, numbers):
            return parameter - xp.sign(gradient) * numbers["lr"], kept

    w = cr.tensor([1.0, -2.0], requires_grad=True)
    optimizer = Signs([w])
    (w * w).sum().backward()
    optimizer.step()
    assert w.tolist() == [0.5, -1.5]
    bare = optim.Optimizer([w], {"lr": 0.1})
    with pytest.raises(ArgumentError, match="needs a method coefficients"):
        bare.step()


def test_keywords_of_pytorch_that_change_nothing_are_taken():
    w = cr.tensor([1.0], requires_grad=True)
    optimizer = optim.AdamW([w], lr=0.1, foreach=None, fused=None, capturable=False, differentiable=False)
    assert "foreach" not in optimizer.param_groups[0]
    assert optim.lr_scheduler.StepLR(optimizer, 2, verbose=False).step_size == 2


@pytest.mark.parametrize(
    "name,words",
    [("NAdam", "Use AdamW"), ("StepLR", r"optim\.lr_scheduler\.StepLR"), ("Nonsense", "See dir")],
)
def test_names_of_others_are_answered_with_ours(name, words):
    with pytest.raises(MissingNameError, match=words):
        getattr(optim, name)


# ------------------------------------------------------------------------------------------- loading


def trained(name="Adam", shape=(2,), **options):
    w = cr.ones(shape).requires_grad_()
    optimizer = getattr(optim, name)([w], **options)
    (w * w).sum().backward()
    optimizer.step()
    return w, optimizer


def test_loading_writes_into_the_cells_that_there_are():
    w, optimizer = trained()
    cell, saved = optimizer.state[w]["exp_avg"].cell, optimizer.state_dict()
    optimizer.step()
    assert optimizer.state[w]["exp_avg"].tolist() != saved["state"][0]["exp_avg"].tolist()
    optimizer.load_state_dict(saved)
    assert optimizer.state[w]["exp_avg"].cell is cell
    assert optimizer.state[w]["exp_avg"].tolist() == saved["state"][0]["exp_avg"].tolist()
    optimizer.load_state_dict({**saved, "state": {}})
    assert not optimizer.state


def test_a_state_that_went_through_a_file_has_texts_as_numbers_and_lists_as_pairs():
    w, optimizer = trained()
    saved = optimizer.state_dict()
    group = {**saved["param_groups"][0], "betas": [0.5, 0.75]}
    optimizer.load_state_dict({"state": {"0": saved["state"][0]}, "param_groups": [group]})
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.75) and optimizer.state[w]["step"].item() == 1


def change(saved, **entries):
    return {**saved, "state": {0: {**saved["state"][0], **entries}}}


@pytest.mark.parametrize(
    "spoil,words",
    [
        (lambda saved: saved["state"], "needs 'state' and 'param_groups'; got \\[0\\]"),
        (lambda saved: None, "needs 'state' and 'param_groups'; got NoneType"),
        (lambda saved: {**saved, "param_groups": []}, r"groups of \[1\] parameters; got \[\]"),
        (
            lambda saved: {**saved, "state": {3: saved["state"][0]}},
            r"knows 1 parameters; got state for \{3\}",
        ),
        (
            lambda saved: change(saved, momentum_buffer=cr.zeros(2)),
            "Adam knows step, exp_avg, exp_avg_sq, max_exp",
        ),
        (lambda saved: change(saved, exp_avg_sq=None), "got step, exp_avg. Was it another optimizer"),
        (lambda saved: change(saved, exp_avg="lost"), "needs numbers; got <U4 for exp_avg"),
        (lambda saved: change(saved, exp_avg=cr.zeros(5)), r"exp_avg of shape \(2,\); got \(5,\)"),
        (lambda saved: change(saved, step=cr.zeros(2)), r"step of shape \(\); got \(2,\)"),
        (
            lambda saved: {**saved, "param_groups": [{**saved["param_groups"][0], "lr": math.nan}]},
            "lr must be finite; got nan",
        ),
    ],
)
def test_spoilt_states_are_refused_and_nothing_changes(spoil, words):
    _, optimizer = trained(lr=0.25)
    saved = optimizer.state_dict()
    with pytest.raises(ChainruleError, match=words):
        optimizer.load_state_dict(spoil(saved))
    now = optimizer.state_dict()
    assert now["param_groups"] == saved["param_groups"]
    assert {name: entry.tolist() for name, entry in now["state"][0].items()} == {
        name: entry.tolist() for name, entry in saved["state"][0].items()
    }


def test_states_of_other_optimizers_are_refused():
    _, adam = trained()
    for name in ("SGD", "RMSprop", "Adagrad"):
        with pytest.raises(ArgumentError, match=f"load_state_dict of {name} knows step"):
            trained(name)[1].load_state_dict(adam.state_dict())
    with pytest.raises(ArgumentError, match=r"as in Adam's state\. Use optim\.Adam"):
        trained("AdamW")[1].load_state_dict(adam.state_dict())
    decoupled = trained("Adam", decoupled_weight_decay=True, weight_decay=0.1)[1]
    other = trained("AdamW")[1]
    other.load_state_dict(decoupled.state_dict())
    assert other.param_groups[0]["weight_decay"] == 0.1


def test_state_of_another_model_is_refused_and_nothing_changes():
    w, v = cr.tensor([1.0], requires_grad=True), cr.tensor([1.0, 2.0], requires_grad=True)
    one, other = optim.Adam([w], lr=0.1), optim.Adam([v], lr=0.2)
    (v * v).sum().backward()
    other.step()
    with pytest.raises(ShapeError, match=r"exp_avg of shape \(1,\); got \(2,\)"):
        one.load_state_dict(other.state_dict())
    assert one.param_groups[0]["lr"] == 0.1 and not one.state


# ------------------------------------------------------------------------------------------- in a trace


class Recorder(Trace):
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
        rate = optimizer.param_groups[0]["lr"]
        assert isinstance(rate, float) and repr(rate) == "Traced float read"
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
