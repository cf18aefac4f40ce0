"""Indexing: every key that NumPy understands gives the same entries, with the right gradient; bad keys say why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import chainrule as cr
from chainrule import ops
from chainrule.graph import constant

SHAPES = st.lists(st.integers(0, 5), min_size=0, max_size=4).map(tuple)


@st.composite
def arrays_and_keys(draw):
    """A shape and a key for it: integers, slices of every step, None, Ellipsis, integer arrays, masks, mixed."""
    shape = draw(SHAPES)
    forms = [npst.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True)]
    if shape:
        forms.append(st.builds(tuple, mixed_keys(shape)))
    forms.append(npst.arrays(np.bool_, st.just(shape)))
    if shape and 0 not in shape:
        forms.append(
            npst.integer_array_indices(
                shape, result_shape=npst.array_shapes(min_dims=0, max_dims=2, max_side=4)
            )
        )
    return shape, draw(st.one_of(forms))


@st.composite
def mixed_keys(draw, shape):
    """One part for each of the first axes; index arrays broadcast with each other."""
    common = draw(st.integers(0, 4))
    parts = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        forms = [st.slices(size), st.just(slice(None)), st.just(slice(None, None, -1))]
        if size:
            index = st.integers(-size, size - 1)
            forms += [index, npst.arrays(np.int64, (common,), elements=index)]
            forms.append(npst.arrays(np.int8, (draw(st.sampled_from([1, common])),), elements=index))
            forms.append(st.lists(index, min_size=common, max_size=common))
        parts.append(draw(st.one_of(forms)))
        if draw(st.integers(0, 9)) == 0:
            parts.append(None)
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), Ellipsis)
        if len(parts) > 1 and parts[-1] is not Ellipsis:
            # Behind the Ellipsis the sizes are those of the last axes: only slices fit whatever they are.
            place = next(k for k, one in enumerate(parts) if one is Ellipsis)
            parts[place + 1 :] = [
                one if isinstance(one, slice) or one is None else slice(None) for one in parts[place + 1 :]
            ]
    return parts


def numbered(shape):
    return np.arange(1.0, np.prod(shape, dtype=int) + 1).reshape(shape)


@settings(max_examples=800, deadline=None, derandomize=True)
@given(arrays_and_keys(), st.booleans())
def test_indexing_equals_numpy_with_its_gradient(case, as_tensors):
    shape, key = case
    array = numbered(shape)
    want = array[key]
    x = cr.tensor(array, requires_grad=True)
    got = x[_with_tensors(key) if as_tensors else key]
    assert got.shape == want.shape and got.dtype == cr.float64
    np.testing.assert_array_equal(got.detach().numpy(), want)
    weights = np.arange(1.0, want.size + 1).reshape(want.shape)
    (got * weights).sum().backward()
    expected = np.zeros(shape)
    np.add.at(expected, key, weights)
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def _with_tensors(key):
    parts = key if isinstance(key, tuple) else (key,)
    return tuple(cr.asarray(one) if isinstance(one, np.ndarray) else one for one in parts)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(arrays_and_keys(), st.sampled_from(["number", "part", "broadcast"]))
def test_setting_equals_numpy_with_its_gradient(case, form):
    shape, key = case
    array = numbered(shape)
    part = array[key].shape
    value = -numbered({"number": (), "part": part, "broadcast": part[1:] if part[:1] != (0,) else part}[form])
    want = array.copy()
    want[key] = value
    x, v = cr.tensor(array, requires_grad=True), cr.tensor(value, requires_grad=True)
    y = x * 1.0
    y[key] = v
    np.testing.assert_array_equal(y.detach().numpy(), want)
    weights = np.arange(1.0, want.size + 1).reshape(shape)
    (y * weights).sum().backward()
    kept = weights.copy()
    kept[key] = 0
    np.testing.assert_array_equal(x.grad.numpy(), kept)
    np.testing.assert_array_equal(v.grad.numpy(), _arrived(shape, key, part, value.shape, weights))


def _arrived(shape, key, part, value_shape, weights):
    """What each entry of the value hears: the weights of the places where it was the last to be written."""
    owners = np.broadcast_to(np.arange(np.prod(value_shape, dtype=int)).reshape(value_shape), part)
    written = np.full(shape, -1)
    written[key] = owners
    gradient = np.zeros(np.prod(value_shape, dtype=int))
    reached = written >= 0
    np.add.at(gradient, written[reached], weights[reached])
    return gradient.reshape(value_shape)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint64"])
def test_index_arrays_of_every_integer_type(kind):
    x = cr.tensor(numbered((4, 3)))
    indices = np.asarray([3, 0, 3], kind)
    np.testing.assert_array_equal(x[indices].numpy(), numbered((4, 3))[indices])
    np.testing.assert_array_equal(x[:, cr.asarray(indices[1:2])].numpy(), numbered((4, 3))[:, indices[1:2]])
    np.testing.assert_array_equal(x[indices, [0, 1, 2]].numpy(), numbered((4, 3))[indices, [0, 1, 2]])
    assert x[np.asarray(2, kind)].tolist() == [7.0, 8.0, 9.0] == x[cr.asarray(np.asarray(2, kind))].tolist()


def test_masks_and_booleans():
    x = cr.tensor(numbered((2, 3)), requires_grad=True)
    assert x[x > 2.5].tolist() == [3.0, 4.0, 5.0, 6.0]
    assert x[cr.tensor([True, False])].shape == (1, 3) and x[:, [True, False, True]].shape == (2, 2)
    assert x[True].shape == (1, 2, 3) and x[False].shape == (0, 2, 3) and x[np.bool_(True), 0].shape == (1, 3)
    x[x > 2.5].sum().backward()
    assert x.grad.tolist() == [[0.0, 0.0, 1.0], [1.0, 1.0, 1.0]]


def test_a_row_of_a_large_table_costs_only_the_row(monkeypatch):
    table = cr.zeros((3000, 1000))
    table = table.requires_grad_()
    largest = []
    arange = np.arange
    monkeypatch.setattr(np, "arange", lambda *a, **k: largest.append(arange(*a, **k).size) or arange(*a, **k))
    table[[5, 7, 5]], table[[1, 2], [3, 4]], table[::-1, 3]
    assert max(largest, default=0) <= 3000


def test_lists_of_nothing_choose_nothing():
    x = cr.ones((3, 2))
    assert (
        x[[]].shape == (0, 2) and x[:, []].shape == (3, 0) and x[cr.zeros(0, dtype=cr.int64)].shape == (0, 2)
    )


BAD_KEYS = [
    (3, cr.BoundsError, r"axis 0 must be from -3 to 2; got 3 for shape \(3, 4\)"),
    (-4, cr.BoundsError, "got -4"),
    ((0, 4), cr.BoundsError, "axis 1 must be from -4 to 3; got 4"),
    ((slice(None, None, -1), 9), cr.BoundsError, "axis 1 .* got 9"),
    (2**80, cr.BoundsError, "must be from -3 to 2"),
    ([0, 3], cr.BoundsError, "axis 0 must be from -3 to 2; got 0 to 3"),
    (([0, 1], [0, 4]), cr.BoundsError, "axis 1 must be from -4 to 3; got 0 to 4"),
    ((0, 0, 0), cr.BoundsError, r"shape \(3, 4\) takes at most 2 indices; got 3"),
    (([0, 1], [0, 1, 2]), cr.BoundsError, r"broadcast together; got \(2,\) and \(3,\)"),
    (np.ones(4, bool), cr.BoundsError, r"\(3,\); got a mask of shape \(4,\)"),
    (np.ones((3, 5), bool), cr.BoundsError, r"\(3, 4\); got a mask of shape \(3, 5\)"),
    ((..., ...), cr.ShapeError, "one Ellipsis"),
    (slice(None, None, 0), cr.ShapeError, "step other than 0"),
    (slice(0.5), cr.DtypeError, "whole numbers; got 0.5"),
    (1.0, cr.DtypeError, "got 1.0"),
    ("a", cr.DtypeError, "got 'a'"),
    (cr.ones(2), cr.DtypeError, "got float32"),
    ([0.5], cr.DtypeError, "got float32"),
    ({}, cr.DtypeError, "whole numbers, bools, slices"),
]


@pytest.mark.parametrize(("key", "error", "message"), BAD_KEYS)
def test_bad_keys_say_the_rule_what_they_got_and_where(key, error, message):
    for act in (lambda x: x[key], lambda x: x.__setitem__(key, 1.0)):
        with pytest.raises(error, match=message) as caught:
            act(cr.ones((3, 4)))
        assert "test_indexing.py" in str(caught.value)


def test_empty_axes_and_single_numbers_have_no_entries_to_name():
    with pytest.raises(cr.BoundsError, match="axis is empty"):
        cr.ones(0)[0]
    with pytest.raises(cr.BoundsError, match=r"shape \(\) takes at most 0 indices"):
        cr.tensor(1.0)[0]
    assert cr.tensor(1.0)[()].item() == cr.tensor(1.0)[...].item() == 1.0 and cr.tensor(1.0)[None].shape == (
        1,
    )


BAD_VALUES = [
    (slice(None), np.ones(3), cr.ShapeError, r"shape \(3, 4\); got \(3,\)"),
    (0, np.ones((2, 4)), cr.ShapeError, r"shape \(4,\); got \(2, 4\)"),
    ([0, 1], np.ones((3, 4)), cr.ShapeError, r"shape \(2, 4\); got \(3, 4\)"),
]


@pytest.mark.parametrize(("key", "value", "error", "message"), BAD_VALUES)
def test_values_that_do_not_fit_are_refused(key, value, error, message):
    x = cr.ones((3, 4), dtype=cr.float64)
    with pytest.raises(error, match=message):
        x[key] = value
    assert x.tolist() == np.ones((3, 4)).tolist()


def test_values_keep_the_dtype_of_the_tensor():
    whole = cr.zeros(3, dtype=cr.int64)
    for value in (1.5, cr.ones(1), np.ones(1)):
        with pytest.raises(cr.DtypeError, match="keeps the dtype"):
            whole[0] = value
    with pytest.raises(cr.DtypeError, match="holds"):
        cr.zeros(3, dtype=cr.uint8)[0] = 300
    whole[0] = np.int8(3)
    single = cr.zeros(2)
    single[0] = np.float64(0.1)
    assert whole.tolist() == [3, 0, 0] and single.dtype == cr.float32 and single[0].item() == np.float32(0.1)
    wide = cr.zeros((1, 2))
    wide[0] = cr.ones((1, 1, 2))
    assert wide.tolist() == [[1.0, 1.0]]


def test_iteration_length_and_membership():
    x = cr.tensor(numbered((3, 2)), requires_grad=True)
    total = cr.tensor(0.0, dtype=cr.float64)
    for row in x:
        total = total + row[0]
    total.backward()
    assert len(x) == 3 and x.grad.tolist() == [[1.0, 0.0]] * 3
    assert 4.0 in x and 7.0 not in x
    with pytest.raises(cr.ShapeError, match="at least one axis"):
        len(cr.tensor(1.0))
    with pytest.raises(cr.ShapeError, match="at least one axis"):
        iter(cr.tensor(1.0))


@pytest.mark.parametrize("index", [3, -4])
def test_adding_at_an_index_outside_never_slips_into_the_next_row(index):
    updates, indices = constant(np.ones((2, 1))), constant(np.asarray([index]))
    with pytest.raises(cr.BoundsError, match="needs indices from -3 to 2"):
        ops.scatter_add.node((updates, indices), {"axis": 1, "size": 3})
    with pytest.raises(cr.BoundsError, match="needs indices from -3 to 2"):
        ops.scatter_along.node((updates, constant(np.asarray([[index], [0]]))), {"size": 3})
