"""Batches: their rows, order and weights; what data may look like, and what is refused with its place."""

import subprocess
import sys

import numpy as np
import pytest

import chainrule as cr
from chainrule.data import ArraySource, Batch, DataLoader, IterableSource, Source, train_test_split
from chainrule.data.arrays import as_array, as_arrays
from chainrule.data.holding import held_back_rows
from chainrule.data.weights import as_sample_weight, class_weights
from chainrule.errors import ArgumentError, DataError
from chainrule.tensor.random import Generator, default_generator


def numbers(rows=10):
    return np.arange(rows, dtype=np.float32)[:, None], np.arange(rows)


# ------------------------------------------------------------------------------------------- sources


@pytest.mark.parametrize("rows,size,drop,sizes", [
    (10, 4, False, [4, 4, 2]), (10, 4, True, [4, 4]), (8, 4, True, [4, 4]), (3, 5, False, [3]), (1, 1, False, [1]),
])  # fmt: skip
def test_every_row_is_in_one_batch(rows, size, drop, sizes):
    x, y = numbers(rows)
    source = ArraySource(x, y, batch_size=size, drop_last=drop, seed=3)
    batches = list(source.epoch(1))
    assert [one.rows for one in batches] == sizes and source.batches == len(sizes) and source.rows == rows
    seen = np.concatenate([one.targets for one in batches])
    np.testing.assert_array_equal(seen, source.order(1)[: sum(sizes)])
    for one in batches:
        np.testing.assert_array_equal(one.inputs[:, 0], one.targets)


def test_the_order_is_a_pure_function_of_seed_and_epoch():
    x, y = numbers(100)
    source = ArraySource(x, y, batch_size=7, seed=5)
    orders = {
        (seed, epoch): tuple(ArraySource(x, y, seed=seed).order(epoch))
        for seed in (0, 5, 2**63)
        for epoch in (1, 2, 300)
    }
    assert len(set(orders.values())) == len(orders)
    assert all(sorted(one) == list(range(100)) for one in orders.values())
    list(source.epoch(9))  # what came before does not matter
    assert tuple(source.order(2)) == orders[5, 2]
    code = (
        "from chainrule.data.sources import epoch_order; import chainrule as cr; cr.rand(5); "
        "print(epoch_order(100, 5, 2).tolist())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert tuple(int(one) for one in other.stdout.strip("[]\n").split(",")) == orders[5, 2]


def test_the_order_never_changes_between_versions():
    # Written down once: a run that was stopped under one version goes on under the next.
    assert ArraySource(np.arange(8), None, seed=0).order(1).tolist() == [2, 6, 4, 0, 1, 5, 3, 7]
    assert ArraySource(np.arange(8), None, seed=7).order(3).tolist() == [6, 4, 1, 2, 5, 3, 7, 0]


def test_drawing_the_order_leaves_the_default_generator_alone():
    before = cr.manual_seed(3).get_state()
    ArraySource(np.arange(8), None).order(1)
    train_test_split(np.arange(8))
    assert default_generator.get_state() == before


def test_each_place_is_equally_likely_in_the_order():
    counts = np.zeros((6, 6))
    for epoch in range(1, 1201):
        counts[np.arange(6), ArraySource(np.arange(6), None, seed=1).order(epoch)] += 1
    # χ² of 36 cells with 25 degrees of freedom: 52.6 is exceeded once in a thousand.
    assert ((counts - 200) ** 2 / 200).sum() < 52.6


def test_an_epoch_can_go_on_in_its_middle():
    x, y = numbers(23)
    source = ArraySource(x, y, np.arange(23.0), batch_size=5)
    whole, rest = list(source.epoch(4)), list(source.epoch(4, skip=3))
    assert len(rest) == 2
    for one, other in zip(whole[3:], rest):
        np.testing.assert_array_equal(one.targets, other.targets)
        np.testing.assert_array_equal(one.weights, other.weights)


def test_tuples_and_dicts_of_inputs_and_targets():
    x, y = numbers(6)
    source = ArraySource({"a": x, "b": (x * 2, y)}, {"t": y}, batch_size=4, shuffle=False)
    first = next(source.epoch(1))
    assert first.inputs["b"][0].tolist() == [[0], [2], [4], [6]] and first.targets["t"].tolist() == [
        0,
        1,
        2,
        3,
    ]
    assert isinstance(source, Source)


def test_batches_have_arrays_of_their_own():
    x, y = numbers(6)
    for shuffle in (False, True):
        first = next(ArraySource(x, y, batch_size=4, shuffle=shuffle).epoch(1))
        first.inputs[:] = -1
    assert x.min() == 0


def test_the_fingerprint_knows_the_data_and_how_they_are_cut():
    x, y = numbers(50)
    changed = x.copy()
    changed[49, 0] = np.nextafter(changed[49, 0], 100)
    options = [
        {}, {"batch_size": 8}, {"seed": 1}, {"shuffle": False}, {"drop_last": True}, {"weights": np.ones(50)},
    ]  # fmt: skip
    found = [ArraySource(x, y, **one).fingerprint() for one in options]
    found += [
        ArraySource(changed, y).fingerprint(),
        ArraySource(x, y.astype(np.int32)).fingerprint(),
        ArraySource(x[:, 0], y).fingerprint(),
        ArraySource({"a": x}, y).fingerprint(),
    ]
    assert len(set(found)) == len(found)
    assert ArraySource(np.asfortranarray(x.copy()), y).fingerprint() == found[0]


def test_a_source_needs_equal_rows():
    x, y = numbers(10)
    with pytest.raises(DataError, match="X and y need as many rows; got 10 and 9"):
        ArraySource(x, y[:9])
    with pytest.raises(DataError, match=r"X\['a'\] and X\['b'\]\[1\] need as many rows; got 10 and 3"):
        ArraySource({"a": x, "b": (x, y[:3])}, y)
    with pytest.raises(DataError, match="drop_last leaves no batch: got 10 rows for batches of 32"):
        ArraySource(x, y, drop_last=True)


def test_iterables_of_batches():
    batches = [([[1.0], [2.0]], [0, 1]), ([[3.0]], [0], [2.0])]
    source = IterableSource(batches)
    assert source.batches == 2 and source.rows is None and len(source.fingerprint()) == 64
    for _ in range(2):
        one, two = source.epoch(1)
        assert (
            one.rows == 2
            and one.weights is None
            and two.weights.tolist() == [2]
            and two.targets.tolist() == [0]
        )
    assert [one.rows for one in source.epoch(2, skip=1)] == [1]
    asked = []

    def make(epoch):
        asked.append(epoch)
        yield from batches

    source = IterableSource(make)
    assert source.batches is None and len(list(source.epoch(3))) == 2 and asked == [3]
    assert isinstance(source, Source)
    ready = Batch(np.ones((1, 1)), np.ones(1), None, 1)
    assert next(IterableSource([ready]).epoch(1)) is ready


def test_a_generator_lasts_for_one_epoch():
    source = IterableSource(([[float(k)]], [k]) for k in range(3))
    assert len(list(source.epoch(1))) == 3
    with pytest.raises(
        DataError, match=r"lasts for one epoch; got a second use of it, in epoch 2. Give a function"
    ):
        list(source.epoch(2))


@pytest.mark.parametrize("item,words", [
    (np.ones(3), r"a batch is \(x, y\) or \(x, y, weights\); got ndarray"),
    (([1.0],), "got tuple of 1"),
    (([[1.0]], [0, 1]), "X and y need as many rows; got 1 and 2"),
    (([[np.nan]], [0]), "X needs finite numbers; got nan in row 0, column 0"),
    (([[1.0]], [0], [-1.0]), "weights from 0; got -1 in row 0"),
])  # fmt: skip
def test_batches_that_are_none(item, words):
    with pytest.raises(DataError, match=words):
        list(IterableSource([item]).epoch(1))
    with pytest.raises(ArgumentError, match="batches come from an iterable"):
        IterableSource(3)


# ------------------------------------------------------------------------------------------- DataLoader


def test_a_loader_yields_tensors_in_the_form_of_the_data():
    x, y = numbers(5)
    loader = DataLoader((x, y), batch_size=2)
    assert len(loader) == 3 and repr(loader) == "DataLoader(5 rows in 3 batches of 2)"
    for one, other in loader:
        assert isinstance(one, cr.Tensor) and one.dtype == cr.float32 and other.dtype == cr.int64
    assert [one.tolist() for one in DataLoader(y, batch_size=3)] == [[0, 1, 2], [3, 4]]
    assert [one["x"].shape for one in DataLoader({"x": x})] == [(1, 1)] * 5
    assert [part.shape for part in next(iter(DataLoader((x, y, x), batch_size=2)))] == [(2, 1), (2,), (2, 1)]
    (a, b), c = next(iter(DataLoader(((x, cr.tensor(x)), y.tolist()), batch_size=4)))
    assert a.shape == b.shape == (4, 1) and c.shape == (4,)
    *_, w = next(iter(DataLoader((x, y), batch_size=2, sample_weight=y + 1)))
    assert w.tolist() == [1, 2]


def test_objects_that_give_one_item_at_a_time():
    class Items:
        def __init__(self, rows, sizes=(2, 2)):
            self.rows, self.sizes = rows, sizes

        def __len__(self):
            return self.rows

        def __getitem__(self, k):
            return cr.ones(self.sizes[k % 2]) * k, k

    x, y = next(iter(DataLoader(Items(5), batch_size=3)))
    assert x.tolist() == [[0, 0], [1, 1], [2, 2]] and y.tolist() == [0, 1, 2] and y.dtype == cr.int64
    with pytest.raises(DataError, match="items need one shape; got Items"):
        DataLoader(Items(5, (2, 3)))
    with pytest.raises(DataError, match="needs rows; got Items without items"):
        DataLoader(Items(0))


def test_a_dataset_of_pytorch_is_taken(torch):
    pairs = torch.utils.data.TensorDataset(torch.ones(4, 2), torch.arange(4))
    assert next(iter(DataLoader(pairs, batch_size=2)))[1].tolist() == [0, 1]


def test_each_loop_over_a_loader_is_the_next_epoch():
    x, y = numbers(40)
    loader = DataLoader((x, y), batch_size=16, shuffle=True, seed=2)
    loops = [[k for _, part in loader for k in part.tolist()] for _ in range(3)]
    assert len({tuple(one) for one in loops}) == 3
    assert loops == [loader.order(epoch).tolist() for epoch in (1, 2, 3)]
    assert [k for batch in loader.epoch(2) for k in batch.targets] == loops[1]
    again = DataLoader((x, y), batch_size=16, shuffle=True, seed=2)
    again.load_state_dict(loader.state_dict())
    loader.set_epoch(4)
    assert next(iter(loader))[1].tolist() == next(iter(again))[1].tolist() == loader.order(4)[:16].tolist()
    assert isinstance(loader, Source) and loader.fingerprint() == again.fingerprint()


@pytest.mark.parametrize("options,words", [
    ({"batch_size": 0}, "batch_size must be a whole number from 1; got 0"),
    ({"num_workers": 4}, "num_workers is for a data.Dataset; got 4 for arrays. Leave it out: batches are cut"),
    ({"generator": 4}, "Write seed="),
    ({"sampler": 4}, "no argument 'sampler'"),
    ({"nonsense": 4}, "It takes batch_size, shuffle"),
])  # fmt: skip
def test_arguments_that_a_loader_has_not(options, words):
    with pytest.raises(ArgumentError, match=words):
        DataLoader(numbers(), **options)


# ------------------------------------------------------------------------------------------- what data look like


def test_dtypes_of_data():
    assert as_array([1, 2], "X").dtype == np.int64 and as_array([True], "X").dtype == bool
    assert as_array(np.ones(2, np.float16), "X").dtype == np.float32
    assert as_array(np.ones(2, ">f4"), "X").dtype == np.dtype("float32")
    assert as_array(np.ones(2, np.longdouble), "X").dtype == np.float64
    assert as_array(np.array([1, 2.5], object), "X").dtype == np.float64
    assert as_array(np.ma.masked_array([1, 2], mask=[False, False]), "X").tolist() == [1, 2]
    assert as_array(cr.tensor([1.0], requires_grad=True), "X").dtype == np.float32


def test_tables():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False]})
    assert as_array(frame, "X").tolist() == [[1, 0.5, 1], [2, 1.5, 0]]
    assert as_array(frame[["a"]], "X").dtype == np.int64
    assert as_array(pandas.Series([1, 2], dtype="Int64"), "y").tolist() == [1, 2]
    assert as_array(pandas.DataFrame({"a": [1, 2]}, dtype=object), "X").tolist() == [[1], [2]]
    x, y = next(iter(DataLoader((frame, frame["a"]), batch_size=2)))
    assert x.shape == (2, 3) and y.dtype == cr.int64


@pytest.mark.parametrize("make,name,words", [
    (lambda p: p.DataFrame({"a": [1], "city": ["Seoul"]}), "X",
     r"X needs numbers; got (object|str) such as 'Seoul' in column 'city'\. Encode it: X = pandas\.get_dummies"),
    (lambda p: p.Series(["a", "b"]), "y", r"y needs numbers; got (object|str) such as 'a'\. Encode them: classes, y ="),
    (lambda p: p.Series(["a", "b"], dtype="category"), "y", "y needs numbers; got category such as 'a'"),
    (lambda p: p.DataFrame({"t": p.to_datetime(["2024-01-01"])}), "X", r"got datetime64\[\w+\] such as Timestamp"),
    (lambda p: p.DataFrame({"age": [1.0, None, None]}), "X",
     r"X needs finite numbers; got nan in row 1, column 'age' \(2 of 3 rows"),
    (lambda p: p.DataFrame({"n": p.array([1, None], dtype="Int64")}), "X", "got nan in row 1, column 'n'"),
    (lambda p: p.DataFrame({"n": [1, None]}, dtype=object), "X", "got nan in row 1, column 'n'"),
    (lambda p: p.DataFrame(index=[0, 1]), "X", "X needs columns; got a table with none"),
    (lambda p: p.DataFrame({"a": []}), "X", r"X needs rows; got shape \(0, 1\)"),
])  # fmt: skip
def test_tables_that_are_not_numbers(make, name, words):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(DataError, match=words):
        as_array(make(pandas), name)


@pytest.mark.parametrize("data,words", [
    ([[1, 2], [3]], "X needs rows of one length; got 2 in row 0 and 1 in row 1. Pad"),
    ([["a"]], r"X needs numbers; got <U1 such as 'a'\. Encode texts"),
    (np.ones(2, complex), "got complex128"),
    (3.0, r"X needs rows; got float 3\.0"),
    ([], r"X needs rows; got shape \(0,\)"),
    (None, "X needs rows; got NoneType None"),
    ([[1.0, np.inf]], r"got inf in row 0, column 1 \(1 of 1 rows"),
    (np.full((2, 2, 2), np.nan), r"got nan in row 0, place \(0, 0\)"),
    (np.ma.masked_array([1.0, 2.0], mask=[False, True]), "got nan in row 1"),
    (np.array([1, "a"], object), "got object such as 1"),
])  # fmt: skip
def test_data_that_are_not_numbers(data, words):
    with pytest.raises(DataError, match=words):
        as_array(data, "X")


def test_sparse_arrays_are_told_what_to_do():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(DataError, match=r"X needs a dense array; got csr_matrix\. Write X\.toarray\(\)"):
        as_array(sparse.csr_matrix(np.eye(2)), "X")


def test_a_fault_in_a_leaf_is_told_by_its_name():
    with pytest.raises(DataError, match=r"X\['b'\]\[1\] needs finite numbers; got nan in row 1"):
        as_arrays({"a": [1.0, 2.0], "b": ([1, 2], [0.0, np.nan])}, "X")
    with pytest.raises(DataError, match=r"X\[0\] and X\[1\] need as many rows; got 2 and 3"):
        as_arrays(([1, 2], [1, 2, 3]), "X")
    with pytest.raises(DataError, match="data need at least one array"):
        as_arrays({}, "X")


# ------------------------------------------------------------------------------------------- weights


def test_class_weights_are_those_of_scikit_learn():
    utilities = pytest.importorskip("sklearn.utils")
    generator = np.random.default_rng(0)
    for _ in range(20):
        y = generator.integers(0, 4, 30)
        expected = utilities.class_weight.compute_sample_weight("balanced", y)
        np.testing.assert_allclose(class_weights("balanced", y, classes=6)[y], expected, rtol=1e-15)
        chosen = {1: 3.0, 2: 0.0}
        np.testing.assert_array_equal(
            class_weights(chosen, y)[y], utilities.class_weight.compute_sample_weight(chosen, y)
        )
    assert class_weights([1, 2, 0.5], np.array([0, 1, 2])).tolist() == [1, 2, 0.5]


@pytest.mark.parametrize("weights,words", [
    ([1, 2], r"one weight for each row, shape \(3,\); got \(2,\)"),
    ([1, -2, 1], "weights from 0; got -2 in row 1"),
    ([1, np.nan, 1], "sample_weight needs finite numbers; got nan in row 1"),
    ([0, 0, 0], "a weight above 0; got 0 in all rows"),
    (["a", "b", "c"], "sample_weight needs numbers"),
])  # fmt: skip
def test_sample_weights_that_are_none(weights, words):
    with pytest.raises(DataError, match=words):
        as_sample_weight(weights, 3)


@pytest.mark.parametrize("weight,words", [
    ("balance", "must be 'balanced', a dict or a sequence; got 'balance'"),
    ({5: 1.0}, "names classes 0 to 2; got 5"),
    ({"a": 1.0}, "names classes 0 to 2; got 'a'"),
    ({1: -1.0}, "finite weights from 0; got -1.0 for class 1"),
    ({1: float("nan")}, "finite weights from 0; got nan for class 1"),
    ({1: "x"}, "finite weights from 0; got 'x' for class 1"),
    ([1.0, 2.0], "a weight for each class, 3 of them; got 2"),
    ({0: 0, 1: 0, 2: 0}, "a weight above 0; got 0 for every class"),
])  # fmt: skip
def test_class_weights_that_are_none(weight, words):
    with pytest.raises(ArgumentError, match=words):
        class_weights(weight, np.array([0, 1, 2]))


def test_class_weights_need_classes():
    data = np.arange(8.0).reshape(8, 1), np.array([0.5, 1.0] * 4)
    with pytest.raises(ArgumentError, match="one class for each row; got targets of float"):
        cr.fit(cr.nn.Linear(1, 1), data, loss="bce_with_logits", class_weight="balanced", validation=None)


# ------------------------------------------------------------------------------------------- splits


def test_held_back_rows_keep_the_share_of_every_label():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 19 + [3])
    chosen = held_back_rows(labels, 0.2, Generator(0))
    assert chosen.sum() == 20
    assert [int(chosen[labels == k].sum()) for k in range(4)] == [10, 6, 4, 0]


def test_train_test_split():
    x, y = numbers(40)
    parts = train_test_split(x, y, y.tolist(), test_size=0.25, seed=1)
    assert [len(part) for part in parts] == [30, 10] * 3 and isinstance(parts[4], list)
    assert parts[2].tolist() == parts[4] == parts[0][:, 0].tolist() != sorted(parts[4])
    assert sorted(parts[4] + parts[5]) == list(range(40))
    again = train_test_split(y, test_size=10, seed=1)
    np.testing.assert_array_equal(again[1], parts[3])
    assert train_test_split(y, test_size=4, shuffle=False)[1].tolist() == [36, 37, 38, 39]
    both = train_test_split({"a": cr.tensor(x), "b": y}, seed=3)
    assert isinstance(both[0]["a"], cr.Tensor) and both[1]["a"].shape == (10, 1)


def test_train_test_split_keeps_the_shares_of_labels_and_the_type():
    pandas = pytest.importorskip("pandas")
    labels = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
    frame = pandas.DataFrame({"n": range(100)}, index=range(100, 200))
    _, test, _, y_test = train_test_split(frame, labels, test_size=0.2, stratify=labels)
    assert isinstance(test, pandas.DataFrame) and len(test) == 20
    assert [y_test.count(one) for one in "abc"] == [12, 6, 2]
    assert [labels[k] for k in test["n"]] == y_test


@pytest.mark.parametrize("arguments,options,kind,words", [
    ((), {}, ArgumentError, "needs an array; got none"),
    (([1, 2], [1]), {}, DataError, "array 0 and array 1 need as many rows; got 2 and 1"),
    (([1],), {}, DataError, "two parts need at least two rows; got 1 rows"),
    (([1, 2, 3],), {"test_size": 1.5}, ArgumentError, "must leave rows to train on"),
    (([1, 2, 3],), {"test_size": 3}, ArgumentError, "fewer than 3 rows; got 3"),
    (([1, 2, 3],), {"test_size": 0}, ArgumentError, "test_size must be a share"),
    (([1, 2, 3],), {"stratify": [1, 2]}, DataError, "one label for each of 3 rows"),
    (([1, 2, 3, 4],), {"stratify": [1, 1, 2, 2]}, DataError, "a test row for each label of several rows; got 1 test"),
    (([1, 2, 3, 4],), {"stratify": [1, 1, 2, 2], "shuffle": False}, ArgumentError, "stratify draws rows at random"),
    ((3,), {}, DataError, "needs rows; got int for array 0"),
    (([1, 2, 3],), {"random_state": 0}, ArgumentError, "no argument 'random_state'. Write seed="),
])  # fmt: skip
def test_splits_that_cannot_be(arguments, options, kind, words):
    with pytest.raises(kind, match=words):
        train_test_split(*arguments, **options)


def test_the_fault_of_a_batch_is_told_with_its_place():
    x, y = numbers(4)
    bad = x.copy()
    bad[2] = np.nan
    source = IterableSource([(x, y), (bad, y)])
    with pytest.raises(DataError, match=r"in batch 2 of epoch 1: X needs finite numbers; got nan in row 2"):
        list(source.epoch(1))
    with pytest.raises(DataError, match=r"in batch 2 of epoch 3: X needs"):
        list(source.epoch(3, skip=1))


def test_a_function_of_batches_without_the_epoch():
    with pytest.raises(
        ArgumentError, match=r"called with the number of the epoch; got one that takes \(\)\. Write"
    ):
        IterableSource(lambda: [])


@pytest.mark.parametrize("data,words", [
    ([[1, 2], [3]], "got 2 in row 0 and 1 in row 1"),
    ([([1.0, 2.0], 0), ([3.0, 4.0], 1)], r"rows such as \(list, int\)"),
])  # fmt: skip
def test_rows_of_several_lengths(data, words):
    with pytest.raises(DataError, match=words):
        DataLoader((data, [0, 1]))
