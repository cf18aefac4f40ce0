"""What goes out and comes in: no memory that a graph or a parameter relies on; errors arrive whole elsewhere."""

from __future__ import annotations

import concurrent.futures
import copy
import ctypes
import importlib.util
import multiprocessing
import pickle

import numpy as np
import pytest

import chainrule as cr
from chainrule import errors, nn, optim

HAS_TORCH = importlib.util.find_spec("torch") is not None

# ------------------------------------------------------------------------------------------- out


def _torch(name):
    def export(t):
        import torch

        return {
            "from_dlpack": torch.from_dlpack,
            "from_dlpack, no copy": lambda t: torch.from_dlpack(t, copy=False),
            "asarray": torch.asarray,
            "as_tensor": lambda t: torch.as_tensor(np.asarray(t)),
        }[name](t)

    return pytest.param(
        export, id=f"torch.{name}", marks=pytest.mark.skipif(not HAS_TORCH, reason="no PyTorch")
    )


class _Versioned:
    """An object that hands on `__dlpack__` with the arguments that it is told."""

    def __init__(self, tensor, **options):
        self.tensor, self.options = tensor, options

    def __dlpack__(self, **_):
        return self.tensor.__dlpack__(**self.options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


OUT = [
    pytest.param(export, id=name)
    for name, export in {
        "numpy()": lambda t: t.numpy(),
        "np.asarray": np.asarray,
        "np.asarray, no copy": lambda t: np.asarray(t, copy=False),
        "np.array, no copy": lambda t: np.array(t, copy=False),
        "np.array": np.array,
        "np.atleast_1d": np.atleast_1d,
        "np.ascontiguousarray": np.ascontiguousarray,
        "np.reshape": lambda t: np.reshape(t, (-1,)),
        "__array__": lambda t: t.__array__(),
        "__array__, no copy": lambda t: t.__array__(copy=False),
        "__array__, of its dtype": lambda t: t.__array__(t.dtype),
        "np.from_dlpack": np.from_dlpack,
        "np.from_dlpack, copy": lambda t: np.from_dlpack(t, copy=True),
        "np.from_dlpack, no copy": lambda t: np.from_dlpack(t, copy=False),
        "unversioned": lambda t: np.from_dlpack(_Versioned(t)),
        "unversioned, no copy": lambda t: np.from_dlpack(_Versioned(t, copy=False)),
        "versioned": lambda t: np.from_dlpack(_Versioned(t, max_version=(1, 0))),
        "versioned, no copy": lambda t: np.from_dlpack(_Versioned(t, max_version=(1, 0), copy=False)),
        "memoryview": lambda t: np.asarray(memoryview(t)),
        "np.frombuffer": lambda t: np.frombuffer(t, t.dtype),
        "__array_interface__": lambda t: t.__array_interface__,
        "__array_struct__": lambda t: t.__array_struct__,
        "copy.copy": lambda t: copy.copy(t).numpy(),
        "copy.deepcopy": lambda t: copy.deepcopy(t).numpy(),
        "np.add.at": lambda t: np.add.at(t, 0, 100.0),
        "np.multiply.at": lambda t: np.multiply.at(t, 0, 100.0),
        "out of a ufunc": lambda t: np.add(np.zeros(t.shape), 1.0, out=t),
        "np.copyto": lambda t: np.copyto(t, 100.0),
        "np.put": lambda t: np.put(t, 0, 100.0),
        "ufunc without a change": lambda t: np.positive(t).numpy(),
        "astype, no copy": lambda t: t.astype(t.dtype, copy=False).numpy(),
        "asarray, no copy": lambda t: cr.asarray(t, copy=False).numpy(),
    }.items()
] + [_torch(name) for name in ("from_dlpack", "from_dlpack, no copy", "asarray", "as_tensor")]


def overwrite(memory):
    """Every number that the exported memory holds becomes 100, whatever its owner says about writing."""
    if memory is None or isinstance(memory, cr.Tensor):
        return
    if not isinstance(memory, np.ndarray):  # PyTorch's: it ignores marks
        memory.fill_(100.0)
        return
    if memory.flags.writeable:
        memory[...] = 100.0
    elif memory.size:
        one = np.asarray(100.0, memory.dtype).tobytes()
        ctypes.memmove(memory.ctypes.data, one * memory.size, memory.nbytes)


REFUSALS = (cr.ChainruleError, TypeError, ValueError, AttributeError, BufferError)


def give_away(export, tensor):
    """Export and overwrite; or it is refused."""
    try:
        overwrite(export(tensor))
    except REFUSALS:
        return


KINDS = {
    "constant": lambda: cr.tensor([3.0, 4.0]),
    "result": lambda: cr.tensor([1.5, 2.0]) * 2.0,
    "slice": lambda: cr.tensor([9.0, 3.0, 4.0])[1:],
    "reshaped": lambda: cr.reshape(cr.tensor([[3.0], [4.0]]), (2,)),
    "broadcast": lambda: cr.broadcast_to(cr.tensor([[3.0, 4.0]]), (1, 2))[0],
    "turned": lambda: cr.flip(cr.tensor([4.0, 3.0])),
    "compiled": lambda: cr.compile(lambda x: x * 2.0)(cr.tensor([1.5, 2.0])),
    "detached": lambda: cr.tensor([3.0, 4.0], requires_grad=True).detach(),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("export", OUT)
def test_what_is_handed_out_is_not_what_a_graph_relies_on(kind, export):
    w, c = cr.tensor([1.0, 2.0], requires_grad=True), KINDS[kind]()
    y = (w * c).sum()
    give_away(export, c)
    assert c.tolist() == [3.0, 4.0]
    y.backward()
    assert y.item() == 11.0 and w.grad.tolist() == [3.0, 4.0]


HANDLES = {
    "detach": lambda layer, optimizer: layer.weight.detach(),
    "state_dict": lambda layer, optimizer: layer.state_dict()["weight"],
    "kept vars": lambda layer, optimizer: layer.state_dict(keep_vars=True)["weight"],
    "gradient": lambda layer, optimizer: layer.weight.grad,
    "moment": lambda layer, optimizer: optimizer.state_dict()["state"][0]["exp_avg"],
    "buffer": lambda layer, optimizer: layer.scale,
    "parameter": lambda layer, optimizer: layer.weight,
}


def training():
    """A layer and an optimizer that have made a step."""
    layer = nn.Linear(2, 1, bias=False)
    layer.register_buffer("scale", cr.tensor([2.0]))
    with cr.no_grad():
        layer.weight.copy_([[3.0, 4.0]])
    optimizer = optim.Adam(layer.parameters(), lr=0.1)
    (layer(cr.tensor([[1.0, 2.0]])) * layer.scale).sum().backward()
    optimizer.step()
    return layer, optimizer


def everything(layer, optimizer):
    moments = optimizer.state_dict()["state"][0]
    held = [
        layer.weight.detach(),
        layer.weight.grad,
        layer.scale,
        *(v for v in moments.values() if isinstance(v, cr.Tensor)),
    ]
    return [one.tolist() for one in held]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("handle", HANDLES)
@pytest.mark.parametrize("export", OUT)
def test_what_is_handed_out_is_no_state_of_a_training(handle, export):
    layer, optimizer = training()
    before = everything(layer, optimizer)
    y = layer(cr.tensor([[1.0, 2.0]])).sum()
    with cr.no_grad():
        give_away(export, HANDLES[handle](layer, optimizer))
    assert everything(layer, optimizer) == before
    x = cr.tensor([[1.0, 2.0]], requires_grad=True)
    layer(x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), layer.weight.detach().numpy())
    assert y.item() == layer(cr.tensor([[1.0, 2.0]])).sum().item()


def test_no_copy_is_refused_by_the_rules_of_each_protocol():
    c = cr.tensor([1.0])
    for ask, kinds in (
        (lambda: np.asarray(c, copy=False), (ValueError,)),
        (lambda: c.__array__(copy=False), (ValueError,)),
        (lambda: c.__dlpack__(copy=False), (BufferError,)),
        (lambda: c.__dlpack__(max_version=(1, 0), copy=False), (BufferError,)),
        (lambda: c.__dlpack__(dl_device=(2, 0)), (BufferError,)),
        (lambda: cr.from_dlpack(np.ones(1), copy=False), (ValueError,)),
        (lambda: cr.asarray(np.ones(1), copy=False), (ValueError,)),
    ):
        for kind in (*kinds, cr.SharingError, cr.ChainruleError):
            with pytest.raises(kind, match=r"got (copy=False|dl_device)"):
                ask()


# ------------------------------------------------------------------------------------------- in


class _WithArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class _WithDlpack:
    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        options["copy"] = None
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class _WithInterface:
    def __init__(self, array):
        self.array, self.__array_interface__ = array, array.__array_interface__


def _loaded(array):
    layer = nn.Linear(2, 1, bias=False)
    layer.load_state_dict({"weight": array.reshape(1, 2)})
    return layer.weight.detach().reshape(2)


def _written(array):
    x = cr.zeros(2)
    x[:] = array
    return x


def _set_gradient(array):
    w = cr.tensor([0.0, 0.0], requires_grad=True)
    (w * 1.0).backward(array)
    return w.grad


def _from_torch(array):
    torch = pytest.importorskip("torch")
    return cr.tensor(torch.from_numpy(array))


def _dlpack_from_torch(array):
    torch = pytest.importorskip("torch")
    return cr.from_dlpack(torch.from_numpy(array))


IN = {
    "tensor": cr.tensor,
    "Tensor": cr.Tensor,
    "asarray": cr.asarray,
    "from_dlpack": cr.from_dlpack,
    "from_dlpack, of another": lambda a: cr.from_dlpack(_WithDlpack(a)),
    "__array__": lambda a: cr.asarray(_WithArray(a)),
    "__array_interface__": lambda a: cr.asarray(_WithInterface(a)),
    "memoryview": lambda a: cr.asarray(memoryview(a)),
    "list of arrays": lambda a: cr.tensor([a])[0],
    "operand": lambda a: cr.zeros(2) + a,
    "where": lambda a: cr.where(cr.tensor([True, True]), a, 0.0),
    "stack": lambda a: cr.stack([a])[0],
    "reshape": lambda a: cr.reshape(a, (2,)),
    "astype": lambda a: cr.astype(a, cr.float32, copy=False),
    "copy_": lambda a: cr.zeros(2).copy_(a),
    "x[...] = a": _written,
    "index_put": lambda a: cr.index_put(cr.zeros(2), slice(None), a),
    "Parameter": lambda a: nn.Parameter(a).detach(),
    "leaf": lambda a: cr.tensor(a, requires_grad=True).detach(),
    "load_state_dict": _loaded,
    "backward(gradient)": _set_gradient,
    "compiled": lambda a: cr.compile(lambda x: x)(a),
    "compiled, captured": lambda a: cr.compile(lambda: cr.asarray(a))(),
    "torch": _from_torch,
    "DLPack of torch": _dlpack_from_torch,
}


@pytest.mark.parametrize("way", IN)
def test_what_comes_in_is_copied(way):
    foreign = np.asarray([3.0, 4.0], np.float32)
    c = IN[way](foreign)
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    y = (w * c).sum()
    foreign[...] = 100.0
    y.backward()
    assert c.tolist() == [3.0, 4.0] and w.grad.tolist() == [3.0, 4.0]


INDICES = {
    "x[k]": (lambda x, k: x[k], [0, 2]),
    "x[k, None]": (lambda x, k: x[k, None], [0, 2]),
    "x[mask]": (lambda x, k: x[k], [True, False, True]),
    "x[k] = v": (lambda x, k: cr.index_put(x, k, 0.0), [0, 2]),
    "take": (lambda x, k: cr.take(x, k, axis=0), [0, 2]),
    "take_along_axis": (lambda x, k: cr.take_along_axis(x, k, axis=0), [0, 2]),
    "scatter_add": (lambda x, k: cr.zeros(3).scatter_add(0, k, x * x), [0, 2]),
    "where": (lambda x, k: cr.where(k, x, 0.0), [True, False, True]),
    "embedding": (lambda x, k: cr.functional.embedding(k, cr.reshape(x, (3, 1))), [0, 2]),
}


@pytest.mark.parametrize("name", INDICES)
def test_indices_that_come_in_are_copied(name):
    use, places = INDICES[name]
    x, foreign = cr.tensor([1.0, 2.0, 3.0], requires_grad=True), np.asarray(places)
    wanted = cr.grad(lambda x: use(x, np.asarray(places)).sum())(x.detach())
    y = use(x, foreign).sum()
    foreign[...] = 1 - foreign.astype(int).clip(0, 1)
    y.backward()
    assert x.grad.tolist() == wanted.tolist()


# ------------------------------------------------------------------------------------------- errors, copies, scalars


def all_errors():
    pending, found = [errors.ChainruleError], []
    while pending:
        kind = pending.pop()
        found.append(kind)
        pending.extend(kind.__subclasses__())
    return sorted(
        {one for one in found if one.__module__.startswith("chainrule.")}, key=lambda one: one.__name__
    )


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling(kind):
    more = {"CotangentError": ((1,), (2,)), "GradientCheckError": ({"report": 1},)}.get(kind.__name__, ())
    if kind.__name__ == "UsageError":  # which is told by a key of the catalogue
        error = kind("did_you_mean", name="train")
    else:
        error = kind("a rule; got this. Do that", *more)
    error.extra = lambda: None  # what cannot leave the process stays behind
    for twin in (
        pickle.loads(pickle.dumps(error)),
        pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error)))),
        copy.copy(error),
    ):
        assert type(twin) is kind and str(twin) == str(error) and twin.message == error.message
        assert (twin.origin.file, twin.origin.line, str(twin.origin)) == (
            error.origin.file,
            error.origin.line,
            str(error.origin),
        )
        assert "test_borders.py" in str(twin)
        for name in ("expected", "got", "report", "fact", "run"):
            assert getattr(twin, name, None) == getattr(error, name, None)


def multiply(rows):
    return (cr.ones((rows, 3)) @ cr.ones((rows, 3))).tolist()  # the line that is wrong


def test_an_error_of_a_worker_arrives_whole():
    line = multiply.__code__.co_firstlineno + 1
    context = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool,
        pytest.raises(
            cr.ShapeError, match=rf"got \(2, 3\) and \(2, 3\).*\(test_borders\.py:{line}\)"
        ) as caught,
    ):
        pool.submit(multiply, 2).result(120)
    assert caught.value.origin.line == line


def test_copies_of_tensors_and_modules():
    for tensor in (cr.tensor([1.0, 2.0]), cr.tensor([1.0, 2.0], requires_grad=True) * 1.0, cr.tensor(3)):
        twin = copy.copy(tensor)
        assert (
            twin is not tensor
            and twin.tolist() == tensor.tolist()
            and twin.requires_grad == tensor.requires_grad
        )
        twin += 1
        assert twin.tolist() != tensor.tolist()
    w = cr.tensor([1.0], requires_grad=True)
    (copy.copy(w * 3.0) * 2.0).sum().backward()
    assert w.grad.tolist() == [6.0]
    parameter = nn.Parameter([1.0])
    twin = copy.copy(parameter)
    assert type(twin) is nn.Parameter and twin.cell is parameter.cell and twin.requires_grad

    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model.note = "mine"
    twin = copy.copy(model)
    assert [one.cell for one in twin.parameters()] == [one.cell for one in model.parameters()]
    twin.note, twin.extra = "other", nn.Linear(2, 2)
    assert model.note == "mine" and len(model.state_dict()) == 2 and len(twin.state_dict()) == 4
    assert model[0].path == "0" and twin(cr.ones((1, 2))).shape == (1, 2)
    layer = copy.copy(nn.Linear(2, 2))
    layer.train(False)
    assert not layer.training


def test_a_single_number_has_no_length_for_whoever_asks():
    one = cr.tensor(1.0)
    for ask in (len, iter, list, tuple, lambda x: [*x], lambda x: dict(zip(x, x))):
        for kind in (TypeError, cr.ShapeError, cr.NoAxisError):
            with pytest.raises(kind, match="at least one axis"):
                ask(one)
    assert not np.iterable(one) and np.iterable(cr.ones(1))
    assert np.broadcast_to(one, (2,)).tolist() == [1.0, 1.0]


AXES = {
    "expand_dims": lambda x, axis: cr.expand_dims(x, axis=axis),
    "expand_dims, by place": lambda x, axis: cr.expand_dims(x, axis),
    "squeeze": lambda x, axis: cr.squeeze(x, axis),
    "sum": lambda x, axis: cr.sum(x, axis=axis),
    "sort": lambda x, axis: cr.sort(x, axis=axis),
    "concat": lambda x, axis: cr.concat([x, x], axis=axis),
    "stack": lambda x, axis: cr.stack([x, x], axis=axis),
    "flip": lambda x, axis: cr.flip(x, axis=axis),
    "moveaxis": lambda x, axis: cr.moveaxis(x, axis, 0),
    "softmax": lambda x, axis: cr.functional.softmax(x, axis=axis),
    "norm": lambda x, axis: cr.linalg.vector_norm(x, axis=axis),
    "index_add": lambda x, axis: cr.index_add(x, axis, [0], x),
}


@pytest.mark.parametrize("name", AXES)
@pytest.mark.parametrize("axis", [9, -9])
def test_an_axis_that_is_not_there_is_an_index_error_too(name, axis):
    for kind in (IndexError, ValueError, cr.AxisError, cr.ShapeError):
        with pytest.raises(kind, match=f"needs an axis from .*got {axis}"):
            AXES[name](cr.ones((1, 1)), axis)
