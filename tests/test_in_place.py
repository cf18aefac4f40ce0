"""`x[i] = v`, `+=` and their kin: they point one handle at a new value, and can spoil nothing.

1,000 random programs with assignments are compared with the same programs written without any.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

import chainrule as cr

# --------------------------------------------------------------------------------------- random programs

SHAPES = [(), (3,), (2, 3), (3, 2), (2, 2, 3)]
KEYS = {
    (): [(), ...],
    (3,): [
        0,
        -1,
        slice(1, None),
        slice(None, None, -1),
        [2, 0],
        [1, 1, 1],
        np.asarray([True, False, True]),
        ...,
    ],
    (2, 3): [
        0,
        (slice(None), 1),
        (..., slice(None, None, 2)),
        ([0, 1], [2, 2]),
        ([0, 0], [1, 1]),
        (None, 1),
        np.eye(2, 3, dtype=bool),
    ],
    (3, 2): [
        (slice(None, None, -2), 0),
        [0, 2, 0],
        (1, slice(None)),
        (slice(None), [1, 0]),
        np.asarray([False, True, True]),
    ],
    (2, 2, 3): [
        (0, ..., 1),
        (slice(None), [0, 0], slice(1, 3)),
        (1, 1),
        (slice(None), 0, [2, 1]),
        np.ones((2, 2), bool),
    ],
}
UPDATES = ["+=", "-=", "*=", "/="]


class Program:
    """A random list of statements over tensors that share names, run with or without assignments.

    Values are held in boxes: two names for one handle are two names for one box.
    """

    def __init__(self, seed):
        random = np.random.default_rng(seed)
        self.leaves = [random.uniform(0.5, 2.0, SHAPES[random.integers(len(SHAPES))]) for _ in range(2)]
        self.statements = []
        self.count = len(self.leaves)
        self.shapes = [leaf.shape for leaf in self.leaves]
        for _ in range(random.integers(4, 12)):
            self.statements.append(self._statement(random))

    def _statement(self, random):
        target = int(random.integers(self.count))
        shape = self.shapes[target]
        kind = random.choice(["update", "set", "set", "alias", "part", "function", "part update", "copy"])
        same = [k for k in range(self.count) if self.shapes[k] == shape]
        if kind == "update":
            fitting = [k for k in range(self.count) if self.shapes[k] in (shape, ())]
            return kind, target, int(random.choice(fitting)), str(random.choice(UPDATES))
        if kind in ("set", "part update"):
            keys = KEYS[shape]
            return (
                kind,
                target,
                keys[random.integers(len(keys))],
                int(random.integers(self.count)),
                float(random.uniform(0.5, 2)),
            )
        if kind == "copy":
            return kind, target, int(random.choice(same))
        if kind in ("alias", "function"):
            self.shapes.append(shape)
        else:
            self.shapes.append(shape if not shape else shape[1:])
            if self.shapes[-1] not in KEYS:
                self.shapes[-1] = shape
        self.count += 1
        return kind, target, str(random.choice(["sin", "clone", "whole", "flip", "reshape"]))

    def run(self, tensors, mode):
        """The final values of all names. `mode` has the actions: with assignments, or without."""
        boxes = [[tensor * 1.0] for tensor in tensors]
        for statement in self.statements:
            kind, target = statement[:2]
            box = boxes[target]
            if kind == "alias":
                boxes.append(box)
            elif kind == "function":
                boxes.append([_function(box[0], statement[2])])
            elif kind == "part":
                part = box[0][0] if box[0].shape and box[0].shape[1:] in KEYS else box[0].clone()
                boxes.append([part])
            elif kind == "update":
                mode.update(box, statement[3], boxes[statement[2]][0])
            elif kind == "copy":
                mode.copy(box, boxes[statement[2]][0])
            else:
                key, source, number = statement[2:]
                value = boxes[source][0] if kind == "set" else None
                part = box[0][key].shape
                fits = value is not None and value.shape == part
                if kind == "part update":
                    mode.set(box, key, box[0][key] * number)
                elif fits:
                    mode.set(box, key, value)
                else:
                    mode.set(box, key, cr.sin(box[0]).sum() * number)
        return [box[0] for box in boxes]


def _function(x, name):
    return {
        "sin": cr.sin,
        "clone": lambda x: x.clone(),
        "whole": lambda x: x[...],
        "flip": cr.flip,
        "reshape": lambda x: x.reshape(x.shape),
    }[name](x)


class WithAssignments:
    @staticmethod
    def update(box, sign, value):
        if sign == "+=":
            box[0] += value
        elif sign == "-=":
            box[0] -= value
        elif sign == "*=":
            box[0] *= value
        else:
            box[0] /= value * value + 1.0

    @staticmethod
    def set(box, key, value):
        box[0][key] = value

    @staticmethod
    def copy(box, value):
        box[0].copy_(value)


class WithoutAssignments:
    """The same by functions that give new tensors: a choice between old entries and spread values."""

    @staticmethod
    def update(box, sign, value):
        x = box[0]
        box[0] = {"+=": x + value, "-=": x - value, "*=": x * value, "/=": x / (value * value + 1.0)}[sign]

    @staticmethod
    def set(box, key, value):
        x = box[0]
        part = np.empty(x.shape)[key].shape
        written = np.full(x.shape, -1)
        written[key] = np.arange(np.prod(part, dtype=int)).reshape(part)
        spread = cr.broadcast_to(value, part).reshape(-1)
        chosen = spread[np.maximum(written, 0)] if spread.size else x
        box[0] = cr.where(cr.asarray(written >= 0), chosen, x)

    @staticmethod
    def copy(box, value):
        box[0] = value * 1.0


def outcome(program, mode):
    leaves = [cr.tensor(leaf, requires_grad=True) for leaf in program.leaves]
    results = program.run(leaves, mode)
    loss = sum(
        ((cr.sin(result) * (k + 1)).sum() for k, result in enumerate(results)),
        start=cr.tensor(0.0, dtype=cr.float64),
    )
    loss.backward()
    # A leaf that was written over altogether hears nothing.
    gradients = [np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy() for leaf in leaves]
    return [result.detach().numpy() for result in results], gradients


@pytest.mark.parametrize("block", range(10))
def test_random_programs_equal_their_functional_form(block):
    for seed in range(100 * block, 100 * block + 100):
        program = Program(seed)
        values, gradients = outcome(program, WithAssignments)
        wanted, wanted_gradients = outcome(program, WithoutAssignments)
        for got, want in zip(values + gradients, wanted + wanted_gradients, strict=True):
            np.testing.assert_allclose(
                got, want, rtol=1e-11, atol=1e-11, err_msg=f"{seed}: {program.statements}"
            )


def test_the_programs_use_every_kind_of_statement():
    kinds = {statement[0] for seed in range(1000) for statement in Program(seed).statements}
    assert kinds == {"update", "set", "alias", "part", "function", "part update", "copy"}


# ------------------------------------------------------------------------------------ handles and sharing


def test_the_user_s_array_may_change_after_it_was_given():
    array = np.ones(3)
    other = np.ones(3)
    x = cr.tensor(array, requires_grad=True)
    y = x * other
    z = cr.asarray(array)
    array[:] = 100.0
    other[:] = 100.0
    y.sum().backward()
    assert x.tolist() == z.tolist() == y.tolist() == x.grad.tolist() == [1.0] * 3


@pytest.mark.parametrize("requires_grad", [False, True])
def test_changes_of_what_numpy_gives_never_reach_the_tensor(requires_grad):
    x = cr.tensor([1.0, 2.0], requires_grad=requires_grad)
    for array in (x.numpy(), x.detach().numpy(), np.asarray(x.detach()), np.array(x.detach())):
        array[:] = 100.0
    assert x.tolist() == [1.0, 2.0]
    (x * x).sum().backward() if requires_grad else None
    if requires_grad:
        x.grad.numpy()[:] = 100.0
        assert x.grad.tolist() == [2.0, 4.0]


def test_an_assignment_reaches_no_other_handle():
    x = cr.tensor([[1.0, 2.0], [3.0, 4.0]])
    others = [
        x[0],
        x[:],
        x.T,
        x.reshape(4),
        x.detach(),
        x.clone(),
        +x,
        cr.asarray(x, copy=True),
        x.reshape(2, 2),
    ]
    before = [other.tolist() for other in others]
    x += 10.0
    x[0, 0] = 99.0
    assert x.tolist() == [[99.0, 12.0], [13.0, 14.0]]
    assert [other.tolist() for other in others] == before
    view = x[0]
    view[0] = -1.0
    assert x[0, 0].item() == 99.0


def test_what_backward_needs_is_never_overwritten():
    x = cr.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = cr.exp(x)
    z = y * y
    y *= 0.0
    y[1] = 7.0
    z.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp(2 * np.asarray([1.0, 2.0, 3.0])), rtol=1e-6)


def test_a_constant_takes_up_the_history_of_what_is_written_into_it():
    w = cr.tensor(2.0, requires_grad=True)
    x = cr.zeros(3)
    x[1] = w * 3.0
    x += w
    assert x.requires_grad and x.tolist() == [2.0, 8.0, 2.0]
    x.sum().backward()
    assert w.grad.item() == 6.0 and x.grad.tolist() == [1.0] * 3


def test_every_assignment_operator():
    x = cr.tensor([7.0, -7.0])
    x += 1
    x -= 2
    x *= 3
    x /= 2
    x **= 2
    x //= 2
    x %= 50
    assert x.tolist() == [40.0, 22.0]
    k = cr.asarray([6, 3])
    handle = k
    k &= 6
    k |= 8
    k ^= 1
    k <<= 2
    k >>= 1
    assert k is handle and k.tolist() == [30, 22] and k.dtype == cr.int64
    m = cr.eye(2)
    m @= cr.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert m.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_assignments_keep_shape_and_dtype():
    x = cr.ones((3, 1))
    with pytest.raises(cr.ShapeError, match=r"\(3, 1\) and \(3, 4\)"):
        x += cr.ones(4)
    whole = cr.ones(2, dtype=cr.int32)
    with pytest.raises(cr.DtypeError, match="keeps the dtype; got int32 and a result of float32"):
        whole += 1.5
    with pytest.raises(cr.DtypeError, match="keeps the dtype; got bool"):
        flags = cr.asarray([True])
        flags += 1
    whole += cr.ones(2, dtype=cr.int64)
    assert whole.dtype == cr.int32
    x += np.ones((3, 1))
    assert x.dtype == cr.float32 and x.tolist() == [[2.0]] * 3


# ---------------------------------------------------------------------------------------- leaves and cells


ASSIGNMENTS = {
    "+=": lambda w: w.__iadd__(1.0),
    "x[i] = v": lambda w: w.__setitem__(0, 1.0),
    "copy_": lambda w: w.copy_(cr.zeros(2)),
    "*=": lambda w: w.__imul__(2.0),
}


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_a_leaf_that_requires_grad_refuses_outside_no_grad(name):
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(cr.GradientError, match="leaf that requires grad") as caught:
        ASSIGNMENTS[name](w)
    assert (
        name in str(caught.value)
        and "no_grad" in str(caught.value)
        and "test_in_place.py" in str(caught.value)
    )
    assert w.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_under_no_grad_a_leaf_keeps_its_cell_and_takes_a_new_array(name):
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    y = (w * w).sum()
    cell, array, handle = w.cell, w.cell.array, w
    with cr.no_grad():
        ASSIGNMENTS[name](w)
    assert w is handle and w.cell is cell and w.requires_grad and w.is_leaf
    assert cell.array is not array and array.tolist() == [1.0, 2.0]
    y.backward()  # of the values that were read, not of the new ones
    assert w.grad.tolist() == [2.0, 4.0]


def test_gradient_descent_by_hand():
    w = cr.tensor([5.0], requires_grad=True)
    for _ in range(100):
        loss = ((w - 2.0) ** 2).sum()
        loss.backward()
        with cr.no_grad():
            w -= 0.1 * w.grad
        w.grad = None
    assert w.item() == pytest.approx(2.0, abs=1e-6)


def test_a_cell_without_gradient_takes_numbers_but_never_a_history():
    frozen = cr.tensor([1.0, 2.0], requires_grad=True).requires_grad_(False)
    cell = frozen.cell
    frozen += 1.0
    assert frozen.cell is cell and cell.array.tolist() == [2.0, 3.0]
    w = cr.tensor(1.0, requires_grad=True)
    with pytest.raises(cr.GradientError, match="would cut a gradient"):
        frozen += w
    with pytest.raises(cr.GradientError, match="would cut a gradient"):
        frozen[0] = w
    with cr.no_grad():
        frozen += w
    assert frozen.tolist() == [3.0, 4.0]


def test_copy_shares_no_array_with_its_source():
    source = cr.tensor([1.0, 2.0])
    frozen = cr.tensor([0.0, 0.0], requires_grad=True).requires_grad_(False)
    frozen.copy_(source)
    assert frozen.tolist() == [1.0, 2.0] and not np.shares_memory(frozen.cell.array, source.node.value)
    w = cr.tensor([3.0, 4.0], requires_grad=True)
    y = w * 2.0
    x = cr.zeros(2)
    x.copy_(y)
    x.sum().backward()
    assert w.grad.tolist() == [2.0, 2.0] and y.grad.tolist() == x.grad.tolist() == [1.0, 1.0]
    with pytest.raises(cr.ShapeError, match=r"fit \(2,\); got \(3,\)"):
        x.copy_(cr.ones(3))


def test_deep_copies_are_leaves_of_their_own():
    w = cr.tensor([1.0], requires_grad=True)
    (w * 3.0).backward()
    twin = copy.deepcopy([w, w])
    assert (
        twin[0] is twin[1] and twin[0] is not w and twin[0].requires_grad and twin[0].grad.tolist() == [3.0]
    )
    with cr.no_grad():
        twin[0] += 1.0
    assert w.tolist() == [1.0] and not np.shares_memory(w.cell.array, copy.deepcopy(w).cell.array)
    assert copy.deepcopy(cr.ones(2)).tolist() == [1.0, 1.0]
    with pytest.raises(cr.GradientError, match="detach"):
        copy.deepcopy(w * 1.0)


def test_gradients_after_an_assignment_belong_to_the_new_value():
    w = cr.tensor(3.0, requires_grad=True)
    x = w * 1.0
    before = x * x
    x *= 10.0
    (before + x).backward()
    assert w.grad.item() == 2 * 3.0 + 10.0
    assert x.grad.item() == 1.0
