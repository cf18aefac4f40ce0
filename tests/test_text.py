"""Text: vocabularies that a run directory keeps, windows of tokens, streams, sequences filled up to one length."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn, optim
from chainrule.data import DataLoader, SequenceDataset, Source, TextWindows, Vocabulary, pad_sequences
from chainrule.errors import ArgumentError, DataError, RunError

TEXT = "한글과 English, ‘quotes’ — and 🙂 on\ntwo lines"


# ------------------------------------------------------------------------------------------- vocabularies


@given(st.text(min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_every_text_comes_back(text):
    vocabulary = Vocabulary.from_text(text)
    tokens = vocabulary.encode(text)
    assert tokens.dtype == np.int64 and tokens.shape == (len(text),)
    assert len(vocabulary) == len(set(text)) and tokens.max() < len(vocabulary)
    assert vocabulary.decode(tokens) == text
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert again == vocabulary and again.encode(text).tolist() == tokens.tolist()
    assert Vocabulary.of_bytes().decode(Vocabulary.of_bytes().encode(text)) == text.encode(
        "utf-8", "surrogatepass"
    ).decode("utf-8", "replace")


def test_a_lone_surrogate_is_a_character_too():
    text = "a\udc80b"
    vocabulary = Vocabulary.from_text(text)
    assert vocabulary.decode(vocabulary.encode(text)) == text
    stored = json.loads(json.dumps(vocabulary.to_json()).encode("ascii"))
    assert Vocabulary.from_json(stored) == vocabulary


def test_numbers_follow_the_code_points():
    vocabulary = Vocabulary.from_text("hello")
    assert vocabulary.tokens == ["e", "h", "l", "o"] and vocabulary.encode("hole").tolist() == [1, 3, 2, 0]
    assert "h" in vocabulary and "x" not in vocabulary and repr(vocabulary) == "Vocabulary(4 tokens: 'ehlo')"
    assert vocabulary.decode(cr.tensor([0, 1])) == "eh" and vocabulary.decode([]) == ""
    assert Vocabulary("olh").encode("hol").tolist() == [2, 0, 1]
    assert len({Vocabulary("ab"), Vocabulary("ab"), Vocabulary("ba"), Vocabulary("ab", pad="<pad>")}) == 3


def test_characters_that_the_vocabulary_lacks():
    vocabulary = Vocabulary.from_text("abc\n")
    with pytest.raises(DataError, match=r"has 4 tokens, and not '€' \(U\+20AC\); got it at place 5, line 3"):
        vocabulary.encode("ab\n\nc€")
    open_one = Vocabulary.from_text("aab", unknown="<unk>", min_count=2)
    assert open_one.tokens == ["<unk>", "a"] and open_one.encode("abc").tolist() == [1, 0, 0]
    assert open_one.decode([1, 0]) == "a<unk>" and "<unk>" in open_one
    padded = Vocabulary("ab", pad="<pad>", unknown="<unk>")
    assert padded.tokens == ["<pad>", "<unk>", "a", "b"] and padded.encode("bx").tolist() == [3, 1]
    assert padded.decode([2, 0, 0]) == "a"


def test_bytes_need_no_vocabulary_of_their_own():
    vocabulary = Vocabulary.of_bytes()
    assert len(vocabulary) == 256 and vocabulary.encode(TEXT).tolist() == list(TEXT.encode())
    assert (
        vocabulary.encode(b"\xff\x00").tolist() == [255, 0]
        and vocabulary.decode([0xC3, 0xA9, 0xFF]) == "é\ufffd"
    )
    assert (
        "한" in vocabulary
        and vocabulary.tokens[10] == "<0x0A>"
        and repr(vocabulary) == "Vocabulary.of_bytes()"
    )
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary != Vocabulary("ab")


@pytest.mark.parametrize("make,kind,words", [
    (lambda: Vocabulary.from_text(""), DataError, "a vocabulary needs characters; got none"),
    (lambda: Vocabulary.from_text(3), DataError, "of characters needs a text; got int"),
    (lambda: Vocabulary("abca"), DataError, "has each character once; got 'a' twice. Use Vocabulary.from_text"),
    (lambda: Vocabulary(["ab"]), DataError, "of single characters; got 'ab'"),
    (lambda: Vocabulary("ab", pad="x"), ArgumentError, "need names of their own, as '<pad>'"),
    (lambda: Vocabulary("ab", pad="<a>", unknown="<a>"), ArgumentError, "need names of their own"),
    (lambda: Vocabulary.from_text("aab", min_count=2), ArgumentError, "min_count leaves characters out"),
    (lambda: Vocabulary("ab").encode(3), DataError, "encode needs a text; got int"),
    (lambda: Vocabulary("ab").encode(b"a"), DataError, "encode needs a text; got bytes"),
    (lambda: Vocabulary("ab").decode([2]), DataError, "tokens are 0 to 1; got 2 to 2"),
    (lambda: Vocabulary("ab").decode([-1, 0]), DataError, "tokens are 0 to 1; got -1 to 0"),
    (lambda: Vocabulary("ab").decode([[0]]), DataError, r"numbers \(length,\); got int64 \(1, 1\). Decode row by"),
    (lambda: Vocabulary("ab").decode([0.5]), DataError, "whole numbers"),
])  # fmt: skip
def test_vocabularies_that_are_none(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


# ------------------------------------------------------------------------------------------- windows


def test_targets_are_the_inputs_moved_on_by_one():
    windows = TextWindows(np.arange(11), 3)
    x, y = windows.arrays()
    assert x.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]] and (y == x + 1).all() and len(windows) == 3
    assert x.flags.c_contiguous and x.dtype == y.dtype == np.int64
    assert TextWindows(np.arange(11), 3, stride=2).arrays()[0][:, 0].tolist() == [0, 2, 4, 6]
    assert len(TextWindows(np.arange(10), 3)) == 3 and len(TextWindows(np.arange(9), 3)) == 2
    assert TextWindows("abab", 3).vocabulary == Vocabulary("ab") and TextWindows(b"\xff\x01", 1)[0][
        0
    ].tolist() == [255]
    assert [x.tolist() for x, _ in windows][-1] == [6, 7, 8] and windows[-1][1].tolist() == [7, 8, 9]
    assert windows.preparation is None and windows.size_in_memory == 3 * 3 * 16


def test_random_windows_are_a_function_of_seed_and_epoch():
    made = [TextWindows(np.arange(1000), 8, random=True, seed=seed) for seed in (0, 0, 1)]
    rows = np.arange(50)
    first, again, other = (one.take(rows, 3) for one in made)
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[0] != other[0]).any() and (first[0] != made[0].take(rows, 4)[0]).any()
    np.testing.assert_array_equal(first[1], first[0] + 1)
    np.testing.assert_array_equal(made[0].take(rows[10:20], 3)[0], first[0][10:20])
    starts = np.concatenate([made[0].take(np.arange(124), epoch)[0][:, 0] for epoch in range(1, 60)])
    assert starts.min() < 5 and starts.max() > 985 and made[0].size_in_memory is None


def test_a_split_leaves_no_token_in_two_parts():
    windows = TextWindows(np.arange(100), 4, random=True)
    training, validation, test = windows.split(0.2, 10)
    assert training.tokens.tolist() == list(range(70)) and validation.tokens.tolist() == list(range(70, 90))
    assert test.tokens[0] == 90 and training.random and not validation.random
    assert max(training.take(np.arange(17), 9)[1].max(), 0) < 70
    with pytest.raises(
        DataError, match="windows of 4 tokens and the next one need a longer text; got 3 tokens"
    ):
        windows.split(3)


def test_streams_go_on_where_the_batch_before_ended():
    streams = TextWindows(np.arange(27), 4).streams(3)
    batches = list(streams.epoch(1))
    assert len(streams) == streams.batches == 2 and streams.rows == 6 and isinstance(streams, Source)
    for before, after in itertools.pairwise(batches):
        np.testing.assert_array_equal(after.inputs[:, 0], before.targets[:, -1])
    np.testing.assert_array_equal(batches[0].inputs[:, 0], [0, 8, 16])
    assert [one.inputs.tolist() for one in streams.epoch(2, skip=1)] == [batches[1].inputs.tolist()]
    assert all((y == x + 1).all() for x, y in streams)
    with pytest.raises(DataError, match="7 streams with windows of 4 tokens need 29 tokens; got 27"):
        TextWindows(np.arange(27), 4).streams(7)


@pytest.mark.parametrize("make,kind,words", [
    (lambda: TextWindows("abc", 3), DataError, "windows of 3 tokens and the next one need a longer text; got 3 tokens"),
    (lambda: TextWindows("abc", 0), ArgumentError, "length must be a whole number from 1; got 0"),
    (lambda: TextWindows("abc", 1, stride=0), ArgumentError, "stride must be a whole number from 1"),
    (lambda: TextWindows(["ab", "c"], 1), DataError, "windows are of one text; got list of texts. Join them"),
    (lambda: TextWindows(np.ones((2, 2)), 1), DataError, r"tokens \(length,\) of whole numbers; got float64 \(2, 2\)"),
    (lambda: TextWindows([0, 1, 2], 1, vocabulary=Vocabulary("ab")), DataError, "tokens are 0 to 1; got 0 to 2"),
    (lambda: TextWindows([0, -1], 1), DataError, "tokens are 0 to inf; got -1 to 0"),
    (lambda: TextWindows("abc", 1, vocabulary=Vocabulary("ab")), DataError, "and not 'c'"),
    (lambda: TextWindows("abc", 1)[5], IndexError, "there are 2 windows; got 5"),
])  # fmt: skip
def test_windows_that_are_none(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


# ------------------------------------------------------------------------------------------- padding


def test_sequences_are_filled_up_to_one_length():
    values, lengths = pad_sequences([[1, 2, 3], [4], [5, 6]])
    assert values.tolist() == [[1, 2, 3], [4, 0, 0], [5, 6, 0]] and lengths.tolist() == [3, 1, 2]
    assert pad_sequences([[1, 2, 3], [4]], padding="pre").values.tolist() == [[1, 2, 3], [0, 0, 4]]
    cut = pad_sequences([[1, 2, 3], [4]], 2)
    assert cut.values.tolist() == [[1, 2], [4, 0]] and cut.lengths.tolist() == [2, 1]
    assert pad_sequences([[1, 2, 3], [4]], 2, truncating="pre", value=-1).values.tolist() == [[2, 3], [4, -1]]
    assert pad_sequences([[1]], 3).values.shape == (1, 3)
    vectors = pad_sequences([np.ones((2, 5), np.float32), cr.ones((3, 5))])
    assert vectors.values.shape == (2, 3, 5) and vectors.values.dtype == np.float32
    assert pad_sequences([[1], [2.5, 1]]).values.dtype == np.float64
    assert pad_sequences([[1]], 2, value=0.5, dtype="float32").values.tolist() == [[1, 0.5]]


@pytest.mark.parametrize("sequences,options,kind,words", [
    ([[1], []], {}, DataError, "a step at least; got none in sequence 1. Leave it out"),
    ([], {}, DataError, "needs sequences; got none"),
    ([3], {}, DataError, "an axis at least; got the number 3 for sequence 0"),
    (["ab"], {}, DataError, "got a text for sequence 0. Use Vocabulary"),
    ([[[1, 2]], [[1]]], {}, DataError, r"may differ in length only; got \(1, 2\) for sequence 0 and \(1, 1\) for"),
    ([[1.0], [np.nan]], {}, DataError, "sequence 1 needs finite numbers"),
    ([[1]], {"value": 0.5}, ArgumentError, "value must be a number of int64; got 0.5. Write dtype="),
    ([[1]], {"maxlen": 0}, ArgumentError, "maxlen must be a whole number from 1"),
    ([[1]], {"padding": "right"}, ArgumentError, "padding must be 'post'"),
    ([[1]], {"batch_first": True}, ArgumentError, "batch_first=True. Leave it out: the rows are the first axis"),
])  # fmt: skip
def test_sequences_that_cannot_be_filled_up(sequences, options, kind, words):
    with pytest.raises(kind, match=words):
        pad_sequences(sequences, **options)


def test_batches_are_as_long_as_their_longest_sequence():
    sequences = [np.arange(1, n + 1) for n in (3, 9, 1, 5)]
    data = SequenceDataset(sequences, [0, 1, 0, 1], multiple_of=4)
    shapes = {}
    for (values, lengths), y in DataLoader(data, 1):
        shapes[int(lengths[0])] = values.shape[1]
        assert (
            values[0, : int(lengths[0])].tolist() == list(range(1, int(lengths[0]) + 1)) and values.sum() > 0
        )
        assert y.shape == (1,)
    assert shapes == {3: 4, 9: 9, 1: 4, 5: 8}
    steps = SequenceDataset(sequences, [one * 2 for one in sequences])
    (values, lengths), y = steps.take(np.array([0, 2]))
    assert y.tolist() == [[2, 4, 6, *[-100] * 5], [2, *[-100] * 7]] and values.shape == (2, 8)
    assert steps.fingerprint() != data.fingerprint() and data[1][1] == 1
    with pytest.raises(DataError, match="as many rows; got 4 and 3"):
        SequenceDataset(sequences, [0, 1, 0])
    with pytest.raises(DataError, match="one for each; got 2 for the 3 steps of sequence 0"):
        SequenceDataset(sequences, [[0, 1], [0] * 9, [0], [1] * 5])
    with pytest.raises(ArgumentError, match="multiple_of must be a whole number"):
        SequenceDataset(sequences, [0, 1, 0, 1], multiple_of=0)


# ------------------------------------------------------------------------------------------- training


class Next(nn.Module):
    """The next token from this one alone: what a table of pairs knows."""

    def __init__(self, tokens):
        super().__init__()
        self.table = nn.Embedding(tokens, tokens)

    def forward(self, x):
        return self.table(x).permute_dims((0, 2, 1))


def language_model(data, **options):
    cr.manual_seed(0)
    model = Next(4)
    given = {"epochs": 12, "batch_size": 4, "progress": False, "compile": False, **options}
    return cr.fit(model, data, optimizer=optim.Adam(model.parameters(), lr=0.1), **given)


@pytest.mark.parametrize("kind", ["windows", "random", "streams", "arrays", "loader"])
def test_a_language_model_is_trained_on_each(kind, tmp_path):
    windows = TextWindows("abcd" * 30, 5, random=kind == "random")
    data = {
        "streams": lambda: windows.streams(4), "arrays": windows.arrays,
        "loader": lambda: DataLoader(windows, 4, shuffle=True),
    }.get(kind, lambda: windows)()  # fmt: skip
    made = {"preparation": windows.vocabulary} if kind == "arrays" else {}
    run = language_model(data, folder=tmp_path / "run", **made)
    assert run.history[-1]["loss"] < 0.2
    assert ("validation_loss" in run.history[0]) == (kind in ("windows", "random", "arrays"))
    again = cr.load_run(tmp_path / "run", Next(4))
    assert again.preparation == windows.vocabulary
    assert cr.load_run(tmp_path / "run", lambda found: Next(len(found))).model.table.weight.shape == (4, 4)
    with pytest.raises(ArgumentError, match=r"into an nn.Module; got the class Next. Build it as for fit"):
        cr.load_run(tmp_path / "run", Next)
    assert again.preparation.decode(again.predict("abca")[0]) == "bcdb"
    assert again.predict(["ab", "cd"]).tolist() == [[1, 2], [3, 0]]
    assert again.outputs(np.array([[0, 1]])).shape == (1, 4, 2)
    with pytest.raises(DataError, match="and not 'x'"):
        again.predict("abx")
    with pytest.raises(
        DataError, match=r"texts need one length; got 1 to 2 characters. Make the vocabulary with pad"
    ):
        again.predict(["a", "ab"])
    with pytest.raises(DataError, match="a text needs a character at least"):
        again.predict("")


def test_windows_and_their_arrays_train_the_same():
    windows = TextWindows("abcd" * 30, 5)
    training, validation = windows.split(0.2)
    wanted = language_model(training.arrays(), validation=validation.arrays()).history
    for data, options in ((windows, {"validation": 0.2}), (training, {"validation": validation})):
        history = language_model(data, **options).history
        assert [one["loss"] for one in history] == [one["loss"] for one in wanted]
        assert [one["validation_loss"] for one in history] == [one["validation_loss"] for one in wanted]


def test_a_learning_rate_is_found_for_a_data_set():
    found = cr.find_learning_rate(Next(4), TextWindows("abcd" * 100, 5, random=True), steps=40, batch_size=4)
    assert len(found.rates) > 10


def test_what_a_run_cannot_keep(tmp_path):
    with pytest.raises(
        ArgumentError, match=r"preparation must be a cr.data.Vocabulary, Scaling or ImageFormat; got dict"
    ):
        language_model(TextWindows("abcd" * 30, 5), preparation={"a": 0})
    with pytest.raises(ArgumentError, match=r"Use preparation=…, a cr.data.Vocabulary"):
        language_model(TextWindows("abcd" * 30, 5), vocabulary=Vocabulary("abcd"))
    with pytest.raises(ArgumentError, match=r"sample_weight goes with arrays .*; got a data set"):
        language_model(TextWindows("abcd" * 30, 5), sample_weight=[1])
    from chainrule.data.kept import from_stored

    with pytest.raises(
        RunError, match="knows vocabulary, scaling, images as preparations of data; got another"
    ):
        from_stored({"kind": "words"}, "runs/1")


class Mean(nn.Module):
    """Mean of the embeddings of the steps that there are."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 4, padding_idx=0)
        self.out = nn.Linear(4, 2)

    def forward(self, values, lengths):
        sums = self.embedding(values).sum(axis=1)
        return self.out(sums / lengths.astype(sums.dtype).reshape((-1, 1)))


def test_sequences_of_different_lengths_are_trained_on():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 60)
    sequences = [random.integers(1, 4, random.integers(1, 20)) + 2 * label for label in labels]
    model = Mean()
    run = cr.fit(
        model, SequenceDataset(sequences, labels), epochs=15, progress=False, metrics=["accuracy"], compile=False,
        optimizer=optim.Adam(model.parameters(), lr=0.05),
    )  # fmt: skip
    assert run.score["accuracy"] > 0.8
    padded = pad_sequences(sequences)
    whole = run.predict(padded)
    assert (whole == labels).mean() > 0.9
    np.testing.assert_array_equal(whole, run.predict(SequenceDataset(sequences, labels)))


def test_a_data_set_that_gives_items_is_read_once():
    class Items:
        def __len__(self):
            return 12

        def __getitem__(self, k):
            return [float(k % 2)], k % 2

    run = cr.fit(nn.Linear(1, 2), Items(), epochs=2, progress=False, validation=Items(), compile=False)
    assert len(run.history) == 2 and "validation_loss" in run.history[0]
