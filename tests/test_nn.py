"""Modules: registration, names, state, modes, layers beside PyTorch's, faults in words."""

import copy
from collections import OrderedDict

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError, BoundsError, DtypeError, GradientError, ShapeError
from chainrule.graph import topological
from chainrule.structure import structure_version


class Block(nn.Module):
    def __init__(self, width):
        self.inner = nn.Linear(width, width)
        self.scale = nn.Parameter(np.ones(width, np.float32))
        self.register_buffer("seen", cr.zeros(()))
        self.register_buffer("scratch", cr.zeros(()), persistent=False)

    def forward(self, x):
        return self.inner(x) * self.scale


def make():
    cr.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), Block(8), nn.ReLU(), nn.Linear(8, 3))


def test_names_follow_registration_as_in_pytorch():
    model = make()
    names = ["0.weight", "0.bias", "1.scale", "1.inner.weight", "1.inner.bias", "3.weight", "3.bias"]
    assert [name for name, _ in model.named_parameters()] == names
    assert [name for name, _ in model.named_buffers()] == ["1.seen", "1.scratch"]
    assert list(model.state_dict()) == [*names[:3], "1.seen", *names[3:]]
    assert [name for name, _ in model.named_modules()] == ["", "0", "1", "1.inner", "2", "3"]
    assert [name for name, _ in model.named_children()] == ["0", "1", "2", "3"]


def test_order_of_the_state_equals_pytorch(torch):

    class Twin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(2, 2)
            self.scale = torch.nn.Parameter(torch.ones(2))
            self.register_buffer("seen", torch.zeros(()))

    theirs = torch.nn.Sequential(torch.nn.Linear(3, 2), Twin())
    ours = nn.Sequential(nn.Linear(3, 2), Block(2))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    assert ours[1].inner.weight.tolist() == theirs[1].inner.weight.tolist()


def test_cells_know_their_path_in_the_outermost_module():
    class Model(nn.Module):
        def __init__(self):
            self.layers = nn.Sequential()  # built from the outside inwards
            self.layers.append(nn.Linear(2, 2))

    model = Model()
    assert model.layers[0].weight.cell.name == "layers.0.weight"
    assert model.layers[0].weight.cell.kind == "parameter"
    block = Block(2)
    assert block.inner.weight.cell.name == "inner.weight"
    outer = nn.Sequential(block)
    assert block.inner.weight.cell.name == "0.inner.weight" and outer[0].inner.path == "0.inner"


def test_a_call_opens_scopes_with_the_names_of_the_layers():
    model = make()
    paths = {node.scope.path for node in topological([model(cr.ones((2, 4))).node]) if node.scope is not None}
    assert paths == {
        "Sequential/0/linear",
        "Sequential/1/inner/linear",
        "Sequential/1",
        "Sequential/2",
        "Sequential/3/linear",
    }
    assert all(
        scope.kind == ("function" if scope.name == "linear" else "module")
        for node in topological([model(cr.ones((2, 4))).node])
        if (scope := node.scope) is not None
    )


def test_replacing_and_deleting_layers():
    model = make()
    before = structure_version()
    model[3] = nn.Linear(8, 5)
    assert structure_version() > before
    assert model(cr.ones((1, 4))).shape == (1, 5) and model[3].path == "3"
    block = model[1]
    block.scale = None
    assert [name for name, _ in block.named_parameters()] == ["inner.weight", "inner.bias"]
    del block.inner
    with pytest.raises(AttributeError, match="Block has no attribute 'inner'"):
        _ = block.inner


def test_a_shared_layer_is_counted_once_and_saved_under_both_names():
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, layer)
    assert len(list(model.parameters())) == 2 and len(list(model.modules())) == 2
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_modes_reach_every_layer_and_say_so_once():
    model = make()
    model.eval()
    assert not any(module.training for module in model.modules())
    before = structure_version()
    model.eval()
    assert structure_version() == before
    model.train()
    assert all(module.training for module in model.modules()) and structure_version() > before


def test_freezing_is_a_change_of_structure():
    model = make()
    before = structure_version()
    model[0].requires_grad_(False)
    assert structure_version() > before
    model(cr.ones((2, 4))).sum().backward()
    assert model[0].weight.grad is None and model[3].weight.grad is not None
    model.zero_grad()
    assert model[3].weight.grad is None


def test_state_dict_is_a_snapshot_and_loading_writes_the_same_cells():
    model = make()
    cell = model[0].weight.cell
    saved = model.state_dict()
    with cr.no_grad():
        model[0].weight += 1.0
    assert not np.array_equal(saved["0.weight"].numpy(), model[0].weight.detach().numpy())
    report = model.load_state_dict(saved)
    assert report == ([], []) and model[0].weight.cell is cell
    np.testing.assert_array_equal(saved["0.weight"].numpy(), model[0].weight.detach().numpy())


def test_loading_explains_what_does_not_fit_and_changes_nothing():
    model = make()
    before = model[0].weight.tolist()
    saved = dict(make().state_dict())
    saved["0.weight"] = np.zeros((4, 8), np.float32)
    with pytest.raises(ShapeError, match=r"0.weight is \(8, 4\) here and \(4, 8\) there"):
        model.load_state_dict(saved)
    del saved["0.weight"]
    saved["9.weight"] = np.zeros(3)
    with pytest.raises(ArgumentError, match=r"1 missing: '0\.weight'; 1 unknown: '9\.weight'"):
        model.load_state_dict(saved)
    assert model.load_state_dict(saved, strict=False) == (["0.weight"], ["9.weight"])
    assert model[0].weight.tolist() == before


def test_float64_state_is_converted():
    model = nn.Linear(2, 1)
    model.load_state_dict({"weight": np.array([[1.0, 2.0]]), "bias": [0.5]})
    assert model.weight.dtype == cr.float32 and model.weight.tolist() == [[1.0, 2.0]]
    model.double()
    assert model(cr.ones((1, 2), dtype=cr.float64)).item() == 3.5


def test_a_copy_shares_nothing():
    model = make()
    twin = copy.deepcopy(model)
    assert twin[1].inner.path == "1.inner" and twin[1]._parent[0]() is twin
    with cr.no_grad():
        twin[0].weight += 1.0
    assert not np.array_equal(twin[0].weight.detach().numpy(), model[0].weight.detach().numpy())


def test_super_init_may_be_left_out_or_called():
    class Old(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)

    assert len(list(Old().parameters())) == 2


def test_layers_in_plain_lists_are_refused():
    class Hidden(nn.Module):
        def __init__(self):
            self.layers = [nn.Linear(1, 1)]

    with pytest.raises(
        ArgumentError, match=r"'layers', a list with 1 entries. Use nn.Sequential or nn.ModuleList"
    ):
        Hidden()
    listed = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    assert len(list(listed.parameters())) == 4


def test_sequential_is_a_sequence():
    model = make()
    assert (
        len(model) == 4
        and isinstance(model[-1], nn.Linear)
        and [type(one).__name__ for one in model][2] == "ReLU"
    )
    part = model[:2]
    assert (
        len(part) == 2
        and part[0] is model[0]
        and model[0].path == "0"
        and part(cr.ones((1, 4))).shape == (1, 8)
    )
    named = nn.Sequential(OrderedDict(first=nn.Linear(2, 2), act=nn.Tanh()))
    assert list(named.state_dict()) == ["first.weight", "first.bias"] and named.first is named[0]
    with pytest.raises(BoundsError, match="has 4 layers; got index 4"):
        model[4]
    with pytest.raises(ArgumentError, match="cannot hold itself"):
        named.append(named)


def test_linear_starts_as_in_pytorch():
    cr.manual_seed(3)
    layer = nn.Linear(400, 300)
    weights = layer.weight.detach().numpy()
    assert np.abs(weights).max() <= 1 / 20 and weights.std() == pytest.approx(1 / 20 / np.sqrt(3), rel=0.02)
    assert np.abs(layer.bias.detach().numpy()).max() <= 1 / 20
    cr.manual_seed(3)
    np.testing.assert_array_equal(nn.Linear(400, 300).weight.detach().numpy(), weights)
    assert (
        nn.Linear(2, 2, bias=False).bias is None
        and nn.Linear(2, 2, dtype="float64").weight.dtype == cr.float64
    )


@pytest.mark.parametrize("name", ["kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"])
def test_initialisers_have_the_variance_of_pytorchs(torch, name):
    ours, theirs = cr.zeros((200, 300)), torch.empty(200, 300)
    cr.manual_seed(0)
    torch.manual_seed(0)
    getattr(nn.init, name)(ours)
    getattr(torch.nn.init, name)(theirs)
    assert ours.numpy().std() == pytest.approx(theirs.std().item(), rel=0.01)
    assert np.abs(ours.numpy()).max() == pytest.approx(theirs.abs().max().item(), rel=0.2)


def test_layers_and_losses_equal_pytorch(torch):
    model, x = make(), np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    for ours, theirs in ((nn.ReLU(), torch.nn.ReLU()), (nn.Sigmoid(), torch.nn.Sigmoid()), (nn.Tanh(), torch.nn.Tanh()),
                         (nn.Identity(3), torch.nn.Identity()), (nn.Flatten(0), torch.nn.Flatten(0))):  # fmt: skip
        np.testing.assert_allclose(ours(cr.tensor(x)).numpy(), theirs(torch.from_numpy(x)).numpy(), atol=1e-6)
    logits, classes = model(x), np.array([0, 1, 2, 0, 1])
    values = logits.detach().numpy()
    targets = np.random.default_rng(1).random((5, 3)).astype(np.float32)
    for reduction in ("mean", "sum"):
        pairs = [
            (nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss, values, classes),
            (nn.MSELoss, torch.nn.MSELoss, values, targets),
            (nn.BCEWithLogitsLoss, torch.nn.BCEWithLogitsLoss, values, targets),
            (nn.BCELoss, torch.nn.BCELoss, targets, np.round(targets)),
        ]
        for ours, theirs, first, second in pairs:
            expected = theirs(reduction=reduction)(torch.from_numpy(first), torch.from_numpy(second)).item()
            assert ours(reduction=reduction)(cr.tensor(first), cr.tensor(second)).item() == pytest.approx(
                expected, rel=1e-5
            )


def test_faults_name_the_layer():
    model = make()
    with pytest.raises(ShapeError, match=r"Linear '0' needs 4 features on the last axis; got \(2, 5\)"):
        model(cr.ones((2, 5)))
    with pytest.raises(
        DtypeError, match=r"Linear '0' needs its weight's dtype, float32; got float64. Use x.astype"
    ):
        model(np.ones((2, 4)))
    with pytest.raises(DtypeError, match="Linear '0' needs floats; got int64"):
        model(np.ones((2, 4), int))
    with pytest.raises(ArgumentError, match="in_features must be a whole number from 1; got 0"):
        nn.Linear(0, 3)
    with pytest.raises(ArgumentError, match="reduction must be"):
        nn.MSELoss("average")
    with pytest.raises(ArgumentError, match="needs a method forward; got Empty"):
        type("Empty", (nn.Module,), {})()(1)
    with pytest.raises(AttributeError, match=r"Did you mean 'inner'\?"):
        _ = model[1].iner
    with pytest.raises(DtypeError, match="only floats have gradients"):
        nn.Parameter([1, 2])


def test_repr_shows_the_layers():
    assert repr(make()) == (
        "Sequential(\n"
        "  (0): Linear(in_features=4, out_features=8, bias=True)\n"
        "  (1): Block(\n"
        "    (inner): Linear(in_features=8, out_features=8, bias=True)\n"
        "  )\n"
        "  (2): ReLU()\n"
        "  (3): Linear(in_features=8, out_features=3, bias=True)\n"
        ")"
    )


def test_apply_goes_from_the_inside_outwards():
    order = []
    make().apply(lambda module: order.append(type(module).__name__))
    assert order == ["Linear", "Linear", "Block", "ReLU", "Linear", "Sequential"]


@pytest.mark.parametrize("name,value,words", [
    ("weight", cr.zeros((2, 3)), r"'weight' is a parameter of the module; got Tensor.*Use nn\.Parameter"),
    ("inner", cr.relu, "'inner' is a module of the module; got function in its place"),
    ("seen", np.zeros(2), r"'seen' is a buffer of the module; got ndarray.*cr\.tensor"),
])  # fmt: skip
def test_what_is_learnt_or_saved_is_not_lost_by_an_assignment(name, value, words):
    """A plain tensor in the place of a parameter would never be learnt again, and not be saved."""
    module = nn.Linear(3, 2) if name == "weight" else Block(2)
    before = list(module.state_dict())
    with pytest.raises(ArgumentError, match=words):
        setattr(module, name, value)
    assert list(module.state_dict()) == before
    delattr(module, name)
    setattr(module, name, value)
    assert getattr(module, name) is value


def test_a_class_in_place_of_a_layer():
    with pytest.raises(ArgumentError, match=r"got the class ReLU\. Write ReLU\(\)"):
        nn.Sequential(nn.Linear(1, 1), nn.ReLU)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_buffer_keeps_no_graph(compiled):
    """Eager and compiled steps refuse it alike; what was detached is state in both."""

    class Follow(nn.Module):
        def __init__(self, cut):
            self.weight = nn.Parameter(cr.tensor([1.0, 2.0]))
            self.register_buffer("mean", cr.zeros(2))
            self.cut = cut

        def forward(self, x):
            moved = self.mean * 0.5 + x * self.weight
            self.mean = moved.detach() if self.cut else moved
            return self.mean.sum() + moved.sum()

    def step_of(model):
        return cr.compile(lambda x: model(x)) if compiled else model

    wrong = Follow(False)
    with pytest.raises(GradientError, match=r"a buffer keeps numbers.*\.detach\(\).*test_nn\.py"):
        step_of(wrong)(cr.ones(2))
    assert wrong.mean.tolist() == [0.0, 0.0]
    right = Follow(True)
    step = step_of(right)
    for _ in range(3):
        step(cr.ones(2))
    assert right.mean.tolist() == [1.75, 3.5] and right.mean.cell.kind == "buffer"
