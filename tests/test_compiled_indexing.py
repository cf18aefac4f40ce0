"""Indexing with numbers that come with the data: traced, native and through JAX it is what NumPy and eager code do."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import chainrule as cr
from chainrule import nn, ops
from chainrule.graph import evaluate
from chainrule.trace import trace

HAS_JAX = importlib.util.find_spec("jax") is not None
ENGINES = [
    "native",
    pytest.param("jax", marks=pytest.mark.skipif(not HAS_JAX, reason="JAX is not installed")),
]
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


class Given:
    """A piece of a key that comes as argument number `number` of the step."""

    def __init__(self, number):
        self.number = number

    def __repr__(self):
        return f"Given({self.number})"


@st.composite
def keys(draw, masks=False):
    """(shape, key, arrays): a key in which index arrays, single indices and slices' starts may come as arguments."""
    shape, arrays = draw(SHAPES), []
    common = draw(npst.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3))
    masked = draw(st.integers(0, len(shape) - 1)) if masks else None
    parts, axis = [], 0

    def piece(array):
        if draw(st.integers(0, 3)) == 0 and not masks:
            return array
        arrays.append(np.asarray(array))
        return Given(len(arrays) - 1)

    end = draw(st.integers(masked + 1 if masks else 0, len(shape)))
    while axis < end:
        size = shape[axis]
        if axis == masked:
            many = draw(st.integers(1, end - axis))
            parts.append(piece(draw(npst.arrays(np.bool_, shape[axis : axis + many]))))
            axis += many
            continue
        forms = ["slice", "whole", "integer", "window"] + (
            [] if masks else ["array", "array", "scalar", "mask"]
        )
        form = draw(st.sampled_from(forms))
        index = st.integers(-size, size - 1)
        if form == "slice":
            parts.append(draw(st.slices(size)))
        elif form == "whole":
            parts.append(slice(None))
        elif form == "integer":
            parts.append(draw(index))
        elif form == "scalar":
            parts.append(piece(np.asarray(draw(index))))
        elif form == "window":
            length = draw(st.integers(1, size))
            start = draw(st.integers(0, size - length))
            arrays.append(np.asarray(start))
            parts.append((Given(len(arrays) - 1), length))
        elif form == "array":
            sub = tuple(
                draw(st.sampled_from([1, one])) for one in common[draw(st.integers(0, len(common))) :]
            )
            dtype = draw(st.sampled_from([np.int64, np.int32, np.int8]))
            parts.append(piece(draw(npst.arrays(dtype, sub, elements=index))))
        else:
            parts.append(draw(npst.arrays(np.bool_, (size,))))
        axis += 1
        if draw(st.integers(0, 5)) == 0:
            parts.append(None)
    if draw(st.integers(0, 2)) == 0:
        # Behind the Ellipsis whatever is left must fit the last axes: only where all axes are named.
        place = draw(st.integers(0, len(parts))) if end == len(shape) else len(parts)
        parts.insert(place, Ellipsis)
    return shape, tuple(parts), arrays


def filled(key, arrays):
    """The key with the arguments in it."""
    parts = []
    for one in key:
        if isinstance(one, Given):
            parts.append(arrays[one.number])
        elif isinstance(one, tuple):
            start = arrays[one[0].number]
            parts.append(slice(start, start + one[1]))
        else:
            parts.append(one)
    return tuple(parts)


def numbers(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def in_numpy(shape, key, arrays):
    """The part that NumPy chooses; a key that NumPy does not take is no example."""
    try:
        return numbers(shape)[filled(key, [one if one.ndim else one.item() for one in arrays])]
    except IndexError:
        assume(False)


def reading(key, weights):
    """What is read, and the first and second derivative of a loss of it."""

    def act(x, *arrays):
        def loss(x):
            return (cr.sin(x[filled(key, arrays)]) * weights).sum()

        def bent(x):
            return (cr.grad(loss)(x) ** 2).sum()

        return x[filled(key, arrays)], cr.grad(loss)(x), cr.grad(bent)(x)

    return act


def writing(key):
    """What is written, and the derivatives of a loss for what was there and for what was put there."""

    def act(x, v, *arrays):
        def after(x, v):
            y = x * 1.0
            y[filled(key, arrays)] = v
            return y

        def loss(x, v):
            y = after(x, v)
            return (y * y * y).sum()

        def bent(x, v):
            first, second = cr.grad(loss, argnums=(0, 1))(x, v)
            return (first**2).sum() + (second**2).sum()

        return after(x, v), *cr.grad(loss, argnums=(0, 1))(x, v), *cr.grad(bent, argnums=(0, 1))(x, v)

    return act


def interpreted(function, *arrays):
    """The function traced, and its graph run by NumPy: all that compiling does but the machine code."""
    args = tuple(cr.asarray(one) for one in arrays)
    graph = trace(function, args, {}, "step").graph
    assert all(value.all() for value in evaluate_checks(graph, arrays))
    return evaluate(graph, [np.asarray(one) for one in arrays], ops.NUMPY)


def evaluate_checks(graph, arrays):
    found = evaluate(graph, [np.asarray(one) for one in arrays], ops.NUMPY)
    return found[len(graph.outputs) + len(graph.writes) :]


def agree(found, wanted):
    for one, other in zip(found, wanted):
        np.testing.assert_allclose(np.asarray(one), other.detach().numpy(), rtol=1e-12, atol=1e-14)


MANY = settings(
    max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much]
)
FEW = settings(MANY, max_examples=12)


@MANY
@given(keys())
def test_reading_in_a_trace_is_reading(case):
    check_reading(*case, interpreted)


@MANY
@given(keys(), st.sampled_from(["number", "part", "broadcast"]))
def test_writing_in_a_trace_is_writing(case, form):
    check_writing(*case, form, interpreted)


@MANY
@given(keys(masks=True), st.booleans())
def test_writing_through_a_mask_in_a_trace_is_writing(case, scalar):
    check_masked(*case, scalar, interpreted)


ROW, COLUMN = np.asarray([1, -1]), np.asarray([[0], [2]])
PLACES = [
    ((3, 3, 3, 3), (slice(None), Given(0), slice(1, None), Given(1)), [ROW, COLUMN]),
    ((3, 3, 3), (slice(None), Given(0), None, Given(1)), [ROW, COLUMN]),
    ((3, 3, 3), (slice(None), Given(0), ..., Given(1)), [ROW, COLUMN]),
    ((3, 3, 3), (slice(None), Given(0), Given(1)), [ROW, COLUMN]),
    ((3, 3, 3, 3), (None, slice(None), 1, Given(0), slice(2)), [ROW]),
    ((3, 3, 3, 3), (slice(None), 1, slice(None), Given(0)), [ROW]),
    ((3, 3, 3, 3), (slice(None), Given(0), slice(None), Given(1)), [np.asarray(1), ROW]),
    ((3, 3, 3, 3), (slice(None), Given(0), slice(None), Given(1)), [np.asarray(1), np.asarray(-1)]),
    ((3, 3, 3), (slice(None), True, Given(0)), [ROW]),
    ((3, 3, 3), (slice(None, None, -1), True, slice(None), Given(0)), [ROW]),
    ((3, 3, 3), (slice(None, None, -2), [True, False, True], Given(0)), [ROW]),
    ((3, 4, 3), (slice(None), (Given(0), 2), Given(1)), [np.asarray(1), COLUMN]),
]


@pytest.mark.parametrize("case", PLACES, ids=lambda case: str(case[1]))
def test_axes_of_index_arrays_stand_where_numpy_puts_them(case):
    check_reading(*case, interpreted)
    for form in ("number", "part", "broadcast"):
        check_writing(*case, form, interpreted)


MASKED = [
    ((2, 3, 4), (slice(None), Given(0), slice(1, 3)), [np.asarray([True, False, True])]),
    ((2, 3, 4, 2), (slice(None), 1, slice(None), Given(0)), [np.asarray([True, False])]),
    ((2, 3, 4, 2), (slice(None), Given(0), None, 1), [np.ones((3, 4), bool)]),
    ((2, 3, 4), (..., Given(0)), [np.asarray([True, False, True, True])]),
    ((2, 3), (Given(0), slice(0, None), None), [np.asarray([True, False])]),
    ((2, 3), (None, Given(0)), [np.ones((2, 3), bool)]),
    ((2, 3, 4), (Given(0),), [np.asarray(True)]),
    ((2, 3), (slice(None), 2, Given(0)), [np.asarray(False)]),
    ((2, 3), (slice(None), Given(1), Given(0)), [np.asarray(True), np.asarray(1)]),
    ((2, 3, 3), (Given(0), (Given(1), 2)), [np.asarray([True, False]), np.asarray(1)]),
]


@pytest.mark.parametrize("case", MASKED, ids=lambda case: str(case[1]))
@pytest.mark.parametrize("scalar", [True, False])
def test_a_mask_stands_where_numpy_puts_it(case, scalar):
    check_masked(*case, scalar, interpreted)


@pytest.mark.parametrize("engine", ENGINES)
@FEW
@given(keys(), keys(), keys(masks=True), st.sampled_from(["number", "part", "broadcast"]))
def test_compiled_steps_read_and_write_as_eager_code(engine, one, other, masked, form):
    def compiled(function, *arrays):
        return cr.compile(function, backend=engine)(*(cr.asarray(one) for one in arrays))

    check_reading(*one, compiled)
    check_writing(*other, form, compiled)
    check_masked(*masked, True, compiled)


def check_reading(shape, key, arrays, run):
    want = in_numpy(shape, key, arrays)
    act = reading(key, numbers(want.shape, 1))
    x = numbers(shape)
    eager = act(cr.asarray(x), *map(cr.asarray, arrays))
    assert eager[0].shape == want.shape
    np.testing.assert_array_equal(eager[0].numpy(), want)
    found = run(act, x, *arrays)
    np.testing.assert_array_equal(np.asarray(found[0]), want)
    agree(found, eager)


def check_writing(shape, key, arrays, form, run):
    part = in_numpy(shape, key, arrays).shape
    value = numbers({"number": (), "part": part, "broadcast": part[1:]}[form], 2)
    act, x = writing(key), numbers(shape)
    want = x.copy()
    want[filled(key, [one if one.ndim else one.item() for one in arrays])] = value
    eager = act(cr.asarray(x), cr.asarray(value), *map(cr.asarray, arrays))
    np.testing.assert_array_equal(eager[0].numpy(), want)
    found = run(act, x, value, *arrays)
    np.testing.assert_array_equal(np.asarray(found[0]), want)
    agree(found, eager)


def check_masked(shape, key, arrays, scalar, run):
    in_numpy(shape, key, arrays)
    plain = filled(key, [one if one.ndim else one.item() for one in arrays])
    # A value that fits whatever the mask chooses: of size 1 where the chosen entries are counted.
    twice = filled(
        key, [np.ones_like(one) if one.dtype == bool else one if one.ndim else one.item() for one in arrays]
    )
    none = filled(
        key, [np.zeros_like(one) if one.dtype == bool else one if one.ndim else one.item() for one in arrays]
    )
    sizes = zip(numbers(shape)[twice].shape, numbers(shape)[none].shape)
    fits = () if scalar else tuple(full if full == empty else 1 for full, empty in sizes)
    value, act, x = numbers(fits, 2), writing(key), numbers(shape)
    want = x.copy()
    want[plain] = value
    eager = act(cr.asarray(x), cr.asarray(value), *map(cr.asarray, arrays))
    np.testing.assert_array_equal(eager[0].numpy(), want)
    found = run(act, x, value, *arrays)
    np.testing.assert_array_equal(np.asarray(found[0]), want)
    agree(found, eager)


# ------------------------------------------------------------------------------------- indices outside, unknown lengths


def assigned(part):
    def act(x, *arrays):
        y = x * 1.0
        part(y, *arrays)
        return y

    return act


OUTSIDE = {
    "one array": (lambda x, k: x[k], [3], "take needs indices from -3 to 2; got 3"),
    "from the end": (lambda x, k: x[k, 0], [-4], "-3 to 2; got -4"),
    "beside another": (lambda x, k: x[cr.arange(2), k], [0, 4], "-4 to 3; got 0 to 4"),
    "of unsigned": (lambda x, k: x[0, k.astype(cr.uint8)], [250, 1], "got 1 to 250"),
    "one number": (lambda x, k: x[k[0], :], [9], "got 9"),
    "a slice": (lambda x, k: x[k[0] : k[0] + 2], [2], "2 entries of 3 must begin from 0 to 1; got 2"),
    "a slice from the end": (lambda x, k: x[:, k[0] : k[0] + 3], [-1], "got -1"),
    "written": (assigned(lambda x, k: x.__setitem__(k, 0.0)), [0, 5], "-3 to 2; got 0 to 5"),
    "written side by side": (
        assigned(lambda x, k: x.__setitem__((k, k), 0.0)),
        [0, 3],
        "-3 to 2; got 0 to 3",
    ),
    "written in a slice": (assigned(lambda x, k: x.__setitem__(slice(k[0], k[0] + 2), 0.0)), [2], "got 2"),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", OUTSIDE)
def test_an_index_outside_raises_and_changes_nothing(name, engine):
    read, indices, message = OUTSIDE[name]
    w = cr.tensor(numbers((3, 4)), requires_grad=True)

    @cr.compile(backend=engine)
    def step(k):
        loss = read(w, k).sum()
        loss.backward()
        with cr.no_grad():
            w.copy_(w - 0.1 * w.grad)
        w.grad = None
        return loss

    step(cr.asarray(np.zeros(len(indices), "int64")))
    before = w.detach().numpy()
    for _ in range(2):
        with pytest.raises(cr.errors.BoundsError, match=message) as caught:
            step(cr.asarray(np.asarray(indices)))
        assert "test_compiled_indexing.py" in str(caught.value) and "Nothing was changed" in str(caught.value)
        np.testing.assert_array_equal(w.detach().numpy(), before)
    step(cr.asarray(np.zeros(len(indices), "int64")))
    assert (w.detach().numpy() != before).any()


UNKNOWN = {
    "mask": (lambda x: x[x > 0], r"mask of shape \(3, 4\).*cr\.where.*fallback=True"),
    "mask of rows": (lambda x: x[x[:, 0] > 0, 1], r"mask of shape \(3,\) for shape \(3, 4\)"),
    "mask of one bool": (lambda x: x[x[0, 0] > 0], r"mask of shape \(\)"),
    "as many values": (assigned(lambda x: x.__setitem__(x > 0, cr.ones(5))), r"fits however many.*got \(5,\)"),
    "two masks": (assigned(lambda x: x.__setitem__((x[:, 0] > 0, x[0] > 0), 0.0)), "must be known"),
    "nonzero": (lambda x: cr.nonzero(x)[0], "that of nonzero depends on the data.*cr.where"),
    "unique": (lambda x: cr.unique_values(x), "that of unique_all depends on the data"),
    "end of a slice": (lambda x: x[: (x[0, 0] > 0).astype(cr.int64)], r"got x\[:k\].*x\[k:k \+ length\]"),
    "ends of a slice": (lambda x: x[cr.argmax(x[0]) : cr.argmin(x[0])], "length of a slice must be known"),
    "step of a slice": (lambda x: x[:: cr.argmax(x[0])], r"got x\[::k\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_shape_that_depends_on_the_data_names_the_line_and_the_cure(name):
    function, message = UNKNOWN[name]
    with pytest.raises(cr.TraceError, match=message) as caught:
        cr.compile(function)(cr.tensor(numbers((3, 4))))
    assert "test_compiled_indexing.py" in str(caught.value)


class Counter(nn.Module):
    """A table of which rows are read, and a count of how often."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(np.arange(1.0, 13.0).reshape(3, 4))
        self.register_buffer("hits", cr.zeros(3))

    def forward(self, k):
        self.hits[k] = self.hits[k] + 1.0
        return (self.table[k, :2] ** 2).sum()


@pytest.mark.parametrize("engine", ENGINES)
def test_state_is_read_and_written_by_index(engine):
    def learner():
        model = Counter()

        def step(k):
            loss = model(k)
            loss.backward()
            with cr.no_grad():
                model.table.copy_(model.table - 0.1 * model.table.grad)
                model.table[k[:1], 3] = 0.0
                model.table[model.table > 9.5] = 9.0
            model.table.grad = None
            return loss

        return model, step

    (eager, plain), (model, step) = learner(), learner()
    step = cr.compile(step, backend=engine)
    for k in ([0, 1], [1, 1], [2, -1]):
        assert abs(step(cr.tensor(k)).item() - plain(cr.tensor(k)).item()) < 1e-9
    for name, one in model.state_dict().items():
        np.testing.assert_allclose(one.numpy(), eager.state_dict()[name].numpy(), rtol=1e-12)


SCANS = {
    "read": lambda x, k: (x[k : k + 2].sum() + x[k, 1], x[[k, k + 1]]),
    "written": lambda x, k: (cr.index_put(x, (k, slice(None)), 1.0, accumulate=True).sum(), x[k]),
    "through a mask": lambda x, k: (cr.index_put(x, x > x[k, 0], 0.0).sum(), x[k]),
}


@pytest.mark.parametrize("engine", [None, *ENGINES])
@pytest.mark.parametrize("name", SCANS)
def test_the_steps_of_a_scan_read_and_write_by_index(name, engine):
    def run(x, ks):
        def step(carry, k):
            total, row = SCANS[name](x, k)
            return carry + total, row

        carry, rows = cr.scan(step, cr.asarray(0.0, dtype=cr.float64), ks)
        return carry * (rows * rows).sum()

    x, ks = cr.asarray(numbers((6, 4))), cr.tensor([0, 2, 4])
    want = cr.asarray(0.0, dtype=cr.float64)
    rows = []
    for k in ks.tolist():
        total, row = SCANS[name](x, k)
        want, rows = want + total, [*rows, row]
    want = want * (cr.stack(rows) ** 2).sum()
    act = run if engine is None else cr.compile(run, backend=engine)
    assert abs(act(x, ks).item() - want.item()) < 1e-10
    slope = cr.grad(run) if engine is None else cr.compile(cr.grad(run), backend=engine)
    assert slope(x, ks).shape == x.shape
    with pytest.raises(cr.BoundsError, match=r"got .* to (5|6|9|10)"):
        act(x, cr.tensor([0, 9, 4]))


SEARCHES = {
    "searchsorted": lambda x, y: cr.searchsorted(cr.sort(cr.reshape(x, (-1,))), y),
    "searchsorted, right": lambda x, y: cr.searchsorted(y[0], x, side="right", sorter=cr.argsort(y[0])),
    "isin": lambda x, y: cr.isin(x, y),
    "isin, inverted": lambda x, y: cr.isin(x, y[:0], invert=True) & ~cr.isin(x, y, invert=True),
    "allclose": lambda x, y: cr.allclose(x, y) | cr.allclose(x, x + 1e-9),
    "rows and columns": lambda x, y: x[cr.argsort(x[:, 0])][:, cr.argsort(y[0])],
    "a list of indices": lambda x, y: x[[cr.argmax(x[:, 0]), cr.argmin(x[:, 0])]],
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", SEARCHES)
def test_searches_are_part_of_a_compiled_step(name, engine):
    random = np.random.default_rng(3)
    for kind in ("float64", "float32", "int32"):
        x, y = (cr.asarray(random.integers(0, 6, (3, 4)).astype(kind)) for _ in range(2))
        found, wanted = cr.compile(SEARCHES[name], backend=engine)(x, y), SEARCHES[name](x, y)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    npst.arrays(
        np.float64,
        npst.array_shapes(max_dims=2, max_side=5),
        elements=st.sampled_from([0.0, -0.0, 1, 2, np.inf, np.nan]),
    ),
    npst.arrays(
        np.float64,
        npst.array_shapes(max_dims=2, min_side=0, max_side=5),
        elements=st.sampled_from([0.0, 1, 3, -np.inf, np.nan]),
    ),
    st.booleans(),
)
def test_isin_and_searchsorted_are_numpys(x, among, flag):
    np.testing.assert_array_equal(cr.isin(x, among, invert=flag).numpy(), np.isin(x, among, invert=flag))
    ordered, side = np.sort(among.reshape(-1)), "right" if flag else "left"
    np.testing.assert_array_equal(
        cr.searchsorted(ordered, x, side=side).numpy(), np.searchsorted(ordered, x, side)
    )
