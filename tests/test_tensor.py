"""The Tensor: what it is made of, how it becomes Python and NumPy, how it is shown, where gradients arrive."""

from __future__ import annotations

import html.parser
import math
import pickle

import numpy as np
import pytest

import chainrule as cr
from chainrule import ops

# ---------------------------------------------------------------------------------------------- making one

MADE = [
    (1.5, "float32", ()),
    (1, "int64", ()),
    (True, "bool", ()),
    ([], "float32", (0,)),
    ([[1, 2], [3, 4]], "int64", (2, 2)),
    ([1, 2.5], "float32", (2,)),
    ([True, False], "bool", (2,)),
    ((1.0, 2.0), "float32", (2,)),
    ([[]], "float32", (1, 0)),
    (np.float64(1.5), "float64", ()),
    (np.ones(2), "float64", (2,)),
    (np.ones(2, np.float32), "float32", (2,)),
    (np.int8(3), "int8", ()),
    ([np.float64(1.0), 2.0], "float64", (2,)),
    ([np.ones(2), np.zeros(2)], "float64", (2, 2)),
    (np.ones(2, ">f8"), "float64", (2,)),
    (np.ones((3, 2))[::2].T, "float64", (2, 2)),
    (range(3), "int64", (3,)),
    ([cr.ones(2), cr.zeros(2)], "float32", (2, 2)),
    (cr.ones(2, dtype=cr.float64), "float64", (2,)),
    (memoryview(b"ab"), "uint8", (2,)),
]


@pytest.mark.parametrize(("data", "dtype", "shape"), MADE)
def test_made_of_anything_with_numbers(data, dtype, shape):
    x = cr.tensor(data)
    assert x.dtype == np.dtype(dtype) and x.shape == shape and x.dtype.isnative
    np.testing.assert_array_equal(x.numpy(), np.asarray(data))


def test_made_with_a_dtype():
    assert cr.tensor(0.1, dtype=cr.float64).item() == 0.1
    assert cr.tensor([1, 2], dtype="float64").dtype == cr.float64 and cr.tensor(
        [1.9], dtype=cr.int32
    ).tolist() == [1]
    assert cr.tensor([2**63 + 1, 1], dtype=cr.uint64).tolist() == [2**63 + 1, 1]
    assert cr.tensor(2**63, dtype=cr.uint64).item() == 2**63
    assert cr.tensor([0, 2], dtype=cr.bool).tolist() == [False, True]
    assert cr.tensor(1.5, dtype=float).dtype == cr.float32 and cr.tensor(1, dtype=int).dtype == cr.int64


NOT_MADE = [
    ("text", None, cr.DtypeError, "needs numbers; got 'text'"),
    ([1, "a"], None, cr.DtypeError, "needs numbers"),
    (None, None, cr.DtypeError, "needs numbers; got None"),
    ([[1, 2], [3]], None, cr.ShapeError, "rows of equal length.*Pad the short rows"),
    ([300], "uint8", cr.DtypeError, "uint8 holds 0 to 255"),
    (-1, "uint8", cr.DtypeError, "uint8 holds 0 to 255"),
    ([2**63], None, cr.DtypeError, "int64 holds"),
    ([10**40], None, cr.DtypeError, "int64 holds"),
    (np.asarray(["a"]), None, cr.DtypeError, "needs numbers"),
    (1j, None, cr.DtypeError, "complex numbers"),
    (np.ones(2, np.float16), None, cr.DtypeError, "must be one of"),
    ([1.0], "float16", cr.DtypeError, "must be one of"),
    (np.asarray([None, 1]), None, cr.DtypeError, "needs numbers"),
    ({"a": 1}, None, cr.DtypeError, "needs numbers"),
    ([1.0], "nonsense", cr.DtypeError, "must be one of"),
]


@pytest.mark.parametrize(("data", "dtype", "error", "message"), NOT_MADE)
def test_what_is_no_array_of_numbers_is_refused(data, dtype, error, message):
    with pytest.raises(error, match=message) as caught:
        cr.tensor(data, dtype=dtype)
    assert "test_tensor.py" in str(caught.value)


def test_a_list_of_tensors_with_history_is_refused_in_favour_of_stack():
    w = cr.tensor(1.0, requires_grad=True)
    with pytest.raises(cr.GradientError, match=r"cr\.stack"):
        cr.tensor([w * 1.0, w * 2.0])


def test_attributes():
    x = cr.zeros((2, 3, 4))
    assert (x.shape, x.ndim, x.size, x.dtype, x.device) == ((2, 3, 4), 3, 24, cr.float32, "cpu")
    assert (
        x.mT.shape == (2, 4, 3)
        and cr.zeros((2, 3)).T.shape == (3, 2)
        and cr.tensor(1.0).size == 1
        and cr.zeros((0, 2)).size == 0
    )
    assert (
        x.to_device("cpu") is x
        and x.__array_namespace__() is cr
        and hash(x) == hash(x)
        and len({x, cr.ones(1)}) == 2
    )
    with pytest.raises(cr.ShapeError, match="matrix; got shape"):
        print(x.T)
    with pytest.raises(cr.ArgumentError, match="only device"):
        x.to_device("cuda")
    assert x.__array_namespace__(api_version="2024.12") is cr


# -------------------------------------------------------------------------------------------- to Python


def test_to_python_numbers():
    assert (
        type(cr.tensor(1.5).item()) is float
        and type(cr.tensor([[2]]).item()) is int
        and type(cr.tensor(True).item()) is bool
    )
    assert (
        float(cr.tensor([1.5])) == 1.5
        and int(cr.tensor(2.9)) == 2
        and complex(cr.tensor(1.5)) == 1.5
        and bool(cr.tensor(0.0)) is False
    )
    assert (
        cr.tensor([[1, 2]]).tolist() == [[1, 2]]
        and [10, 20, 30][cr.asarray(1)] == 20
        and math.exp(cr.tensor(0.0)) == 1.0
    )
    assert round(float(cr.tensor(2.5))) == 2 and f"{cr.tensor(2.5).item():.2f}" == "2.50"


def test_arrays_are_copies_and_history_is_not_cut_silently():
    x = cr.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2.0
    assert x.numpy().tolist() == [1.0, 2.0]  # of a leaf nothing is cut
    for act, what in (
        (y.numpy, "numpy"),
        (lambda: np.asarray(y), "NumPy"),
        (lambda: np.asarray(x), "NumPy"),
        (lambda: np.dot(y, y), "NumPy"),
    ):
        with pytest.raises(cr.GradientError, match=rf"(?s){what}.*\.detach\(\)\.numpy\(\)"):
            act()
    with cr.no_grad():
        assert y.numpy().tolist() == np.asarray(y).tolist() == [2.0, 4.0]
    constant = cr.tensor([1.0, 2.0])
    assert (
        np.asarray(constant).dtype == np.float32
        and np.asarray(constant, dtype=np.float64).dtype == np.float64
    )
    assert np.array(constant, copy=True).tolist() == [1.0, 2.0] and np.mean([constant, constant]) == 1.5
    with pytest.raises(cr.ArgumentError, match="copy=None"):
        np.asarray(constant, copy=False)


def test_dlpack_in_and_out():
    x = cr.tensor([[1.0, 2.0]])
    out = np.from_dlpack(x)
    assert (
        out.tolist() == [[1.0, 2.0]]
        and not np.shares_memory(out, x.node.value)
        and x.__dlpack_device__() == (1, 0)
    )
    with pytest.raises(cr.SharingError, match="not shared; got copy=False") as caught:
        np.from_dlpack(x, copy=False)
    assert isinstance(caught.value, BufferError)
    array = np.asarray([1, 2], np.int16)
    y = cr.from_dlpack(array)
    array[0] = 9
    assert y.tolist() == [1, 2] and y.dtype == cr.int16 and cr.from_dlpack(x) is not x
    with pytest.raises(cr.GradientError, match="detach"):
        np.from_dlpack(cr.tensor(1.0, requires_grad=True))
    with pytest.raises(cr.ArgumentError, match="copy=None"):
        cr.from_dlpack(array, copy=False)
    with pytest.raises(cr.ArgumentError, match="__dlpack__"):
        cr.from_dlpack([1, 2])
    with pytest.raises(cr.ArgumentError, match="device"):
        cr.from_dlpack(array, device="gpu")


def test_tensors_are_not_pickled():
    with pytest.raises(cr.ArgumentError, match=r"cr\.save"):
        pickle.dumps(cr.ones(2))


# ------------------------------------------------------------------------------------------- NumPy's ufuncs

UFUNCS = {
    "exp": lambda t, a: np.exp(t),
    "add": lambda t, a: np.add(a, t),
    "arr * t": lambda t, a: a * t,
    "arr @ t": lambda t, a: a @ t,
    "arr - t": lambda t, a: a - t,
    "arr / t": lambda t, a: a / t,
    "arr ** t": lambda t, a: a**t,
    "scalar * t": lambda t, a: np.float64(3.0) * t,
    "scalar - t": lambda t, a: np.float32(3.0) - t,
    "arctan2": lambda t, a: np.arctan2(a, t),
    "power": lambda t, a: np.power(t, 2.0),
    "maximum": lambda t, a: np.maximum(a, t),
    "matmul": lambda t, a: np.matmul(t, a),
    "true_divide": lambda t, a: np.true_divide(1.0, t),
    "absolute": lambda t, a: np.absolute(t),
    "arcsinh": lambda t, a: np.arcsinh(t),
    "exp2": lambda t, a: np.exp2(t),
    "hypot": lambda t, a: np.hypot(t, a),
    "logaddexp": lambda t, a: np.logaddexp(t, a),
    "positive": lambda t, a: np.positive(t),
    "square": lambda t, a: np.square(t),
    "list": lambda t, a: np.multiply([[1.0, 2.0], [3.0, 4.0]], t),
    "float_power": lambda t, a: np.float_power(t, 1.5),
    "conjugate": lambda t, a: np.conjugate(t),
    "sum": lambda t, a: np.sum(t * 1.0, axis=0),
    "mean": lambda t, a: np.mean(t),
    "max": lambda t, a: np.max(t, axis=1),
    "std": lambda t, a: np.prod(t, axis=0),
    "vecdot": lambda t, a: np.vecdot(t, a),
    "clip": lambda t, a: np.minimum(np.maximum(t, 0.7), 1.4),
    "remainder": lambda t, a: t % 0.4,
}


@pytest.mark.parametrize("name", UFUNCS)
def test_ufuncs_on_tensors_stay_differentiable(name):
    array = np.asarray([[1.1, 0.6], [0.9, 1.7]])
    start = np.asarray([[0.5, 1.0], [1.3, 2.2]])
    t = cr.tensor(start, requires_grad=True)
    result = UFUNCS[name](t, array)
    want = UFUNCS[name](start, array)
    assert isinstance(result, cr.Tensor) and result.dtype == cr.float64
    np.testing.assert_allclose(result.detach().numpy(), want, rtol=1e-12)
    result.sum().backward()
    step, slopes = 1e-6, np.zeros((2, 2))
    for place in np.ndindex(2, 2):
        moved = np.zeros((2, 2))
        moved[place] = step
        slopes[place] = (
            UFUNCS[name](start + moved, array).sum() - UFUNCS[name](start - moved, array).sum()
        ) / (2 * step)
    np.testing.assert_allclose(t.grad.numpy(), slopes, rtol=1e-6, atol=1e-8)


def test_comparisons_and_logic_of_arrays_with_tensors():
    array, t = np.asarray([1.0, 2.0]), cr.tensor([2.0, 2.0], requires_grad=True)
    assert (
        (array < t).tolist() == [True, False]
        and (array == t).tolist() == [False, True]
        and np.isfinite(t).tolist() == [True, True]
    )
    assert np.logical_and(array > 1, t > 1).tolist() == [False, True] and (
        np.asarray([1, 3]) & cr.asarray([3, 1])
    ).tolist() == [1, 1]


def test_ufuncs_without_a_counterpart_work_on_constants_and_refuse_to_cut():
    constant, t = cr.tensor([8.0, 27.0], dtype=cr.float64), cr.tensor([8.0, 27.0], requires_grad=True)
    result = np.cbrt(constant)
    assert isinstance(result, cr.Tensor) and result.tolist() == pytest.approx([2.0, 3.0])
    assert [part.tolist() for part in np.divmod(constant, 5.0)] == [[1.0, 5.0], [3.0, 2.0]]
    assert np.add.reduce(constant).item() == 35.0 and np.multiply.outer(constant, constant).shape == (2, 2)
    array = np.ones(2)
    array += constant
    assert array.tolist() == [9.0, 28.0]
    for act, what in (
        (lambda: np.cbrt(t), "numpy.cbrt"),
        (lambda: np.add.reduce(t), "numpy.add.reduce"),
        (lambda: np.add(t, 1, out=array), "numpy.add with out="),
        (lambda: np.add(array, t, where=array > 0), "with where="),
    ):
        with pytest.raises(cr.GradientError, match=what) as caught:
            act()
        assert "detach" in str(caught.value) and "test_tensor.py" in str(caught.value)
    with pytest.raises(cr.ArgumentError, match="out="):
        np.add(array, 1.0, out=constant)
    with pytest.raises(TypeError):
        np.add(constant, object())


def test_no_ufunc_with_a_counterpart_is_forgotten():
    ours = {op.name for op in ops.primitives() if isinstance(op, ops.Elementwise)}
    t = cr.tensor([0.5, 0.25], requires_grad=True)
    for name in dir(np):
        ufunc = getattr(np, name)
        if isinstance(ufunc, np.ufunc) and ufunc.__name__ in ours and "f->f" in "".join(ufunc.types):
            assert isinstance(ufunc(*[t] * ufunc.nin), cr.Tensor)


# ---------------------------------------------------------------------------------------------- shown as text

SHOWN = [
    (lambda: cr.tensor(2.0), "tensor(2.)"),
    (lambda: cr.tensor([1.0, 2.5]), "tensor([1. , 2.5])"),
    (lambda: cr.tensor([1, 2]), "tensor([1, 2])"),
    (lambda: cr.tensor([True]), "tensor([ True])"),
    (lambda: cr.tensor([1.0], dtype=cr.float64), "tensor([1.], dtype=float64)"),
    (lambda: cr.tensor([math.nan, math.inf, -math.inf]), "tensor([ nan,  inf, -inf])"),
    (lambda: cr.zeros(0), "tensor([])"),
    (lambda: cr.zeros((0, 3)), "tensor([], shape=(0, 3))"),
    (lambda: cr.zeros(0, dtype=cr.int64), "tensor([], dtype=int64)"),
    (lambda: cr.tensor(3, dtype=cr.uint8), "tensor(3, dtype=uint8)"),
    (lambda: cr.tensor(1.0, requires_grad=True), "tensor(1., requires_grad=True)"),
    (lambda: cr.tensor(1.0, requires_grad=True) * 2.0, "tensor(2., from multiply)"),
    (lambda: cr.tensor([[1.0, 2.0], [3.0, 4.0]]), "tensor([[1., 2.],\n        [3., 4.]])"),
    (lambda: cr.tensor([1e-20, 1e20]), "tensor([1.e-20, 1.e+20])"),
]


@pytest.mark.parametrize(("make", "text"), SHOWN)
def test_shown_in_the_terminal(make, text):
    assert repr(make()) == str(make()) == text


def test_large_tensors_are_shortened_and_say_their_shape():
    text = repr(cr.zeros((1000, 1000), dtype=cr.float64))
    assert len(text) < 600 and "..." in text and text.endswith(", shape=(1000, 1000), dtype=float64)")


class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.words, self.cells = [], [], 0

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.cells += tag == "td"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def read(tensor):
    reader = Reader()
    reader.feed(tensor._repr_html_())
    assert reader.open == []
    return reader


def test_shown_in_a_notebook():
    table = read(cr.tensor([[1.0, math.nan], [3.25, -1e-9]], requires_grad=True))
    assert table.words == ["Tensor float32[2, 2] · requires grad", "1", "nan", "3.25", "-1e-09"]
    assert read(cr.tensor([1, 2, 3])).words[1:] == ["1", "2", "3"] and read(cr.tensor([True])).words[1:] == [
        "True"
    ]
    for make in (lambda: cr.tensor(1.0), lambda: cr.zeros((2, 2, 2)), lambda: cr.zeros((0, 3))):
        assert read(make()).words == [repr(make())]
    big = read(cr.zeros((500, 300)))
    assert big.cells == 17 * 17 and "…" in big.words and len(cr.zeros((500, 300))._repr_html_()) < 30_000


# ------------------------------------------------------------------------------------- gradients arrive


def test_every_tensor_still_held_has_its_gradient():
    x = cr.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3.0
    z = y * y
    loss = z.sum()
    assert x.grad is y.grad is loss.grad is None
    loss.backward()
    assert [one.grad.tolist() for one in (x, y, z)] == [
        [18.0, 36.0],
        [6.0, 12.0],
        [1.0, 1.0],
    ] and loss.grad.item() == 1.0
    assert not x.grad.requires_grad and x.is_leaf and not y.is_leaf


@pytest.mark.parametrize(
    "act",
    [
        lambda y: cr.cumulative_sum(y, axis=0),
        lambda y: cr.prod(y),
        lambda y: cr.cumulative_prod(y),
        lambda y: y.sum(),
        lambda y: cr.mean(y),
        lambda y: cr.concat([y, y]),
        lambda y: cr.astype(y, cr.float32, copy=False) * 1.0,
        lambda y: cr.zeros(2).copy_(y),
        lambda y: y.reshape(2),
        lambda y: cr.asarray(y) + 0.0,
        lambda y: cr.diff(y, n=0),
        lambda y: cr.broadcast_to(y, (2,)),
        lambda y: np.exp(y),
        lambda y: cr.std(y),
        lambda y: y[...],
        lambda y: cr.functional.softmax(y) * y,
        lambda y: cr.sort(y),
        lambda y: y.mean(keepdims=True),
        lambda y: cr.where(y > 0, y, 0.0),
        lambda y: cr.clip(y),
    ],
)
def test_no_function_takes_the_gradient_away_from_its_argument(act):
    x = cr.tensor([1.0, 2.0], requires_grad=True)
    y = x * 1.0
    result = act(y)
    (result * result).sum().backward()
    assert y.grad is not None and y.grad.tolist() == x.grad.tolist()


def test_gradients_accumulate_until_they_are_reset():
    x = cr.tensor(2.0, requires_grad=True)
    y = x * x
    y.backward()
    y.backward()
    assert x.grad.item() == 8.0 and y.grad.item() == 2.0
    x.grad = None
    (x * 3.0).backward()
    assert x.grad.item() == 3.0
    x.grad = cr.tensor(10.0)
    (x * 3.0).backward()
    assert x.grad.item() == 13.0
    first = x.grad
    (x * 3.0).backward()
    assert first.item() == 13.0 and x.grad.item() == 16.0


def test_a_gradient_given_and_inputs_named():
    x, w = (cr.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    y = x * w * w
    for given in ([1.0, 10.0], np.asarray([1.0, 10.0]), cr.tensor([1, 10])):
        x.grad = None
        y.backward(given)
        assert x.grad.tolist() == [1.0, 40.0] and x.grad.dtype == cr.float32
    w.grad = x.grad = None
    y.backward(cr.ones(2), inputs=[w])
    assert x.grad is None and w.grad.tolist() == [2.0, 8.0]
    y.backward(cr.ones(2), inputs=w)
    assert w.grad.tolist() == [4.0, 16.0]


def test_gradients_of_gradients():
    x = cr.tensor(2.0, dtype=cr.float64, requires_grad=True)
    (x**3.0).backward(create_graph=True)
    first = x.grad
    assert first.requires_grad and first.item() == 12.0
    x.grad = None
    first.backward(create_graph=True)
    assert x.grad.item() == 12.0
    second, x.grad = x.grad, None
    second.backward()
    assert x.grad.item() == 6.0 and not x.grad.requires_grad


def test_a_seed_that_requires_grad_keeps_its_own_gradient():
    x = cr.tensor([1.0, 2.0], requires_grad=True)
    v = cr.tensor([3.0, 4.0], requires_grad=True)
    seed = v * 1.0
    y = x * x
    y.backward(seed, create_graph=True)
    (x.grad * x.grad).sum().backward()
    assert v.grad.tolist() == [2 * 3 * 4.0, 2 * 4 * 16.0] and seed.grad.tolist() == v.grad.tolist()


def test_sharing_and_unused_inputs():
    x, unused = cr.tensor(3.0, requires_grad=True), cr.tensor(1.0, requires_grad=True)
    y = x * x + x
    (y + y * y).backward()
    assert x.grad.item() == 7.0 * (1 + 2 * 12.0) and unused.grad is None


def test_detach_clone_and_no_grad():
    x = cr.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2.0
    assert not y.detach().requires_grad and y.detach().tolist() == [2.0, 4.0] and y.clone().requires_grad
    (y.clone() + y.detach() * 100.0).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
    with cr.no_grad():
        assert not (x * 2.0).requires_grad
        with cr.enable_grad():
            assert (x * 2.0).requires_grad
    assert x.clone() is not x and not x.clone().is_leaf


def test_requires_grad_can_be_switched_on_leaves():
    x = cr.ones(2)
    assert x.requires_grad_() is x and x.requires_grad and x.is_leaf
    (x * 2.0).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
    x.requires_grad = False
    assert not (x * 2.0).requires_grad
    x.requires_grad = True
    y = x * 2.0
    y.requires_grad = True
    with pytest.raises(cr.GradientError, match="leaves only"):
        y.requires_grad = False


def test_methods_are_the_functions():
    x = cr.tensor([[1.0, 4.0], [9.0, 16.0]])
    assert x.sum(0).tolist() == x.sum(axis=0).tolist() == x.sum(dim=0).tolist() == [10.0, 20.0]
    assert x.mean(0, 1).item() == 7.5 == x.mean().item() and x.max(1, keepdim=True).shape == (2, 1)
    assert x.sqrt().tolist() == [[1.0, 2.0], [3.0, 4.0]] and x.reshape(4).shape == x.reshape(
        (4,)
    ).shape == x.flatten().shape == (4,)
    assert x.permute_dims(1, 0).tolist() == x.T.tolist() and x.astype(cr.int64).tolist() == [[1, 4], [9, 16]]
    assert (
        x.argmax().item() == 3
        and x.min().item() == 1.0
        and x.all().item()
        and x.any().item()
        and x.clip(2.0, 5.0).max().item() == 5.0
    )
    assert x.var(0, correction=1).tolist() == [32.0, 72.0] and x.squeeze().shape == (2, 2)
    assert x.sum.__doc__ == cr.sum.__doc__


def test_comparison_with_what_is_no_number():
    x = cr.ones(2)
    assert (x == None) is False and (x != None) is True and (x == "a") is False  # noqa: E711


def test_a_leaf_as_seed_and_a_gradient_with_history():
    x, v = (cr.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    (x * x).backward(v, create_graph=True)
    first = x.grad
    (first * first).sum().backward()
    assert first.grad.tolist() == [4.0, 16.0] and v.grad.tolist() == [8.0, 64.0]
    assert x.grad.tolist() == [2.0 + 8.0, 8.0 + 64.0] and not x.grad.requires_grad
    z = cr.tensor([1.0, 2.0], requires_grad=True)
    (z + 0.0).backward(v, create_graph=True)
    assert z.grad is not v and z.grad.node.cell is None
