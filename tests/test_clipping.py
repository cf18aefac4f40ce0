"""Clipping: PyTorch's numbers, eager and compiled; what is not finite; faults in words."""

import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ArgumentError, NonFiniteError, ShapeError

SHAPES = [(3, 4), (4,), (), (0, 2), (2, 3, 2)]
ORDERS = [2.0, 1, math.inf, 3.5, 0.5]


def with_gradients(dtype="float64", scale=1.0):
    generator = np.random.default_rng(2)
    parameters = [cr.zeros(shape, dtype=dtype).requires_grad_() for shape in SHAPES]
    for one in parameters:
        one.grad = cr.tensor((generator.normal(size=one.shape) * scale).astype(dtype))
    return parameters


def in_torch(torch, parameters):
    twins = [
        torch.zeros(one.shape, dtype=getattr(torch, one.dtype.name), requires_grad=True) for one in parameters
    ]
    for one, twin in zip(parameters, twins):
        twin.grad = torch.tensor(one.grad.numpy())
    return twins


def assert_same_gradients(parameters, twins, tolerance):
    for one, twin in zip(parameters, twins):
        assert one.grad.dtype == one.dtype and one.grad.shape == one.shape
        np.testing.assert_allclose(one.grad.numpy(), twin.grad.numpy(), rtol=tolerance, atol=0)


@pytest.mark.parametrize("dtype,tolerance", [("float64", 1e-13), ("float32", 2e-6)])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("limit", [0.0, 0.3, 1e3, math.inf])
def test_norms_equal_pytorch(torch, order, limit, dtype, tolerance):
    parameters = with_gradients(dtype)
    twins = in_torch(torch, parameters)
    norm = nn.utils.clip_grad_norm_(parameters, limit, norm_type=order)
    expected = torch.nn.utils.clip_grad_norm_([one for one in twins if one.numel()], limit, norm_type=order)
    assert norm.shape == () and norm.dtype == np.dtype(dtype) and not norm.requires_grad
    assert norm.item() == pytest.approx(expected.item(), rel=tolerance)
    assert_same_gradients(parameters, twins, tolerance)


@pytest.mark.parametrize("limit", [0.0, 0.4])
def test_entries_equal_pytorch(torch, limit):
    parameters = with_gradients()
    parameters[1].grad = cr.tensor([math.nan, math.inf, -math.inf, 0.1], dtype="float64")
    twins = in_torch(torch, parameters)
    optim.clip_grad_value_(parameters, limit)
    torch.nn.utils.clip_grad_value_(twins, limit)
    assert_same_gradients(parameters, twins, 0)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_norms_that_are_not_finite(torch, bad):
    parameters = with_gradients()
    parameters[0].grad[0, 0] = bad
    twins = in_torch(torch, parameters)
    before = [one.grad.numpy() for one in parameters]
    with pytest.raises(NonFiniteError, match=f"must be finite to be clipped by; got {bad}"):
        optim.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
    for one, kept in zip(parameters, before):
        np.testing.assert_array_equal(one.grad.numpy(), kept)
    found = optim.clip_grad_norm_(parameters, 1.0).item()
    assert repr(found) == repr(
        torch.nn.utils.clip_grad_norm_([one for one in twins if one.numel()], 1.0).item()
    )
    assert_same_gradients(parameters, twins, 0)


def test_squares_of_large_float32_do_not_overflow():
    w = cr.zeros(2).requires_grad_()
    w.grad = cr.tensor([3e30, 4e30])
    assert optim.clip_grad_norm_([w], 1.0).item() == pytest.approx(5e30, rel=1e-6)
    assert w.grad.tolist() == pytest.approx([0.6, 0.8], rel=1e-6)


def test_one_tensor_shared_ones_and_none():
    w, v = cr.zeros(2).requires_grad_(), cr.zeros(3).requires_grad_()
    assert optim.clip_grad_norm_([w, v], 1.0).item() == 0.0 and w.grad is None
    w.grad = cr.tensor([3.0, 4.0])
    assert optim.clip_grad_norm_(w, math.inf).item() == 5.0 and w.grad.tolist() == [3.0, 4.0]
    assert optim.clip_grad_norm_([w, v, w], 2.5).item() == 5.0
    assert w.grad.tolist() == pytest.approx([1.5, 2.0], rel=1e-6) and v.grad is None
    assert nn.utils.get_total_norm([], 2.0).item() == 0.0


def test_mixed_dtypes_keep_their_own():
    w, v = cr.zeros(1).requires_grad_(), cr.zeros(1, dtype="float64").requires_grad_()
    w.grad, v.grad = cr.tensor([3.0]), cr.tensor([4.0], dtype="float64")
    assert optim.clip_grad_norm_([w, v], 1.0).dtype == cr.float64
    assert (w.grad.dtype, v.grad.dtype) == (cr.float32, cr.float64)


@pytest.mark.parametrize("order", ORDERS)
def test_compiled_steps_clip_as_eager_ones(order):
    pytest.importorskip("llvmlite")
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(6, 4)), generator.normal(size=(6, 2))

    def make():
        cr.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3, dtype="float64"), nn.Tanh(), nn.Linear(3, 2, dtype="float64"))
        optimizer = optim.SGD(model.parameters(), lr=0.5)

        def step(x, y):
            loss = cr.functional.mse_loss(model(x), y)
            loss.backward()
            norm = optim.clip_grad_norm_(model.parameters(), 0.2, norm_type=order, error_if_nonfinite=True)
            optim.clip_grad_value_(model.parameters(), 0.05)
            optimizer.step()
            optimizer.zero_grad()
            return loss, norm

        return model, step

    (model, step), (twin, eager) = make(), make()
    native = cr.compile(step)
    for _ in range(5):
        for found, expected in zip(native(cr.tensor(x), cr.tensor(y)), eager(cr.tensor(x), cr.tensor(y))):
            assert found.item() == pytest.approx(expected.item(), rel=1e-11)
    assert native.recompiles == []
    for one, other in zip(model.parameters(), twin.parameters()):
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), rtol=1e-11)


def test_a_compiled_step_with_an_infinite_norm_changes_nothing():
    pytest.importorskip("llvmlite")
    w = cr.tensor([1.0, 2.0], requires_grad=True)

    @cr.compile
    def step(factor):
        (w * factor).sum().backward()
        optim.clip_grad_norm_([w], 1.0, error_if_nonfinite=True)
        with cr.no_grad():
            w.copy_(w - w.grad)
        w.grad = None

    step(cr.tensor(3.0))
    before = w.tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cr.config, "check_finite", False)
        with pytest.raises(
            NonFiniteError, match="the norm of the gradients must be finite to be clipped by; got inf"
        ):
            step(cr.tensor(math.inf))
    assert w.tolist() == before and w.grad is None


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda w: optim.clip_grad_norm_([w], -1.0), "max_norm must be a number from 0; got -1.0"),
        (lambda w: optim.clip_grad_norm_([w], math.nan), "max_norm must be a number from 0; got nan"),
        (lambda w: optim.clip_grad_norm_([w], "1"), "max_norm must be a number from 0; got '1'"),
        (lambda w: optim.clip_grad_norm_([w], 1.0, norm_type=0), "norm_type must be above 0; got 0"),
        (
            lambda w: optim.clip_grad_norm_([w], 1.0, norm_type=-math.inf),
            "norm_type must be a number from 0; got -inf",
        ),
        (lambda w: optim.clip_grad_value_([w], -1.0), "clip_value must be a number from 0; got -1.0"),
        (lambda w: optim.clip_grad_norm_([w], 1.0, foreach=True), "got foreach=True"),
        (lambda w: optim.clip_grad_norm_([w]), "got no max_norm"),
        (lambda w: optim.clip_grad_norm_([], 1.0), "got none. Pass model.parameters"),
        (lambda w: optim.clip_grad_norm_(iter(()), 1.0), "read before is empty"),
        (lambda w: optim.clip_grad_norm_(nn.Identity(), 1.0), "got Identity. Pass model.parameters"),
        (lambda w: optim.clip_grad_value_([np.zeros(2)], 1.0), "got ndarray. Pass model.parameters"),
        (lambda w: nn.utils.parameters_to_vector([]), "at least one parameter; got none"),
    ],
)
def test_faults_are_told(call, words):
    with pytest.raises(ArgumentError, match=words):
        call(cr.zeros(2).requires_grad_())


def test_parameters_as_one_vector_and_back(torch):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    twin = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    twin.load_state_dict({name: torch.tensor(value.numpy()) for name, value in model.state_dict().items()})
    vector = nn.utils.parameters_to_vector(model.parameters())
    np.testing.assert_array_equal(
        vector.detach().numpy(), torch.nn.utils.parameters_to_vector(twin.parameters()).detach().numpy()
    )
    (vector * vector).sum().backward()
    np.testing.assert_allclose(model[0].weight.grad.numpy(), 2 * model[0].weight.detach().numpy())
    nn.utils.vector_to_parameters(vector * 2, model.parameters())
    torch.nn.utils.vector_to_parameters(
        torch.nn.utils.parameters_to_vector(twin.parameters()) * 2, twin.parameters()
    )
    for one, other in zip(model.parameters(), twin.parameters()):
        np.testing.assert_array_equal(one.detach().numpy(), other.detach().numpy())
        assert one.requires_grad and one.is_leaf
    before = model[0].weight.tolist()
    with pytest.raises(ShapeError, match=r"a vector of all 11 entries; got shape \(5,\)"):
        nn.utils.vector_to_parameters(cr.zeros(5), model.parameters())
    assert model[0].weight.tolist() == before
