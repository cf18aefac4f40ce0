"""Images: arrays and folders in one form, faults told by file, and random changes that repeat bit for bit."""

import builtins
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.data import (
    Compose,
    DataLoader,
    Dataset,
    GaussianNoise,
    ImageFolder,
    RandomCrop,
    RandomHorizontalFlip,
    RandomShift,
    RandomVerticalFlip,
    Subset,
    as_images,
    load_image,
    train_test_split,
)
from chainrule.data.chance import Chance
from chainrule.data.datasets import AugmentedSource, DatasetSource
from chainrule.errors import ArgumentError, DataError, MissingExtraError
from chainrule.ops import random_bits

Image = pytest.importorskip("PIL.Image")


def chance(rows=4, epoch=1, seed=0):
    return Chance.of(seed, epoch, np.arange(rows))


@pytest.fixture
def folder(tmp_path):
    """Two classes of 8 and 4 images; class 1 is brighter. One lies a folder deeper, and there is other stuff."""
    random = np.random.default_rng(0)
    for name, count, level in (("cat", 8, 40), ("dog", 4, 200)):
        (tmp_path / name / "more").mkdir(parents=True)
        for k in range(count):
            pixels = (random.integers(0, 40, (6, 6, 3)) + level).astype(np.uint8)
            place = tmp_path / name / "more" if k == 0 else tmp_path / name
            Image.fromarray(pixels).save(place / f"{k}.PNG")
        (tmp_path / name / "notes.txt").write_text("none")
        (tmp_path / name / ".hidden.png").write_text("none")
    (tmp_path / ".cache").mkdir()
    return tmp_path


# ------------------------------------------------------------------------------------------- arrays


def test_images_of_every_layout_become_one():
    grey = np.arange(2 * 5 * 7, dtype=np.uint8).reshape(2, 5, 7)
    colours = np.stack([grey, grey + 1, grey + 2], axis=-1)
    assert as_images(grey).shape == (2, 1, 5, 7) and as_images(grey).dtype == np.float32
    np.testing.assert_array_equal(as_images(colours)[:, 2], (grey + 2) / np.float32(255))
    np.testing.assert_array_equal(as_images(np.moveaxis(colours, -1, 1)), as_images(colours))
    np.testing.assert_array_equal(as_images(cr.tensor(grey)), as_images(grey))
    twice = np.zeros((1, 3, 5, 3), np.uint8)
    assert as_images(twice, channels="first").shape == (1, 3, 5, 3)
    assert as_images(twice, channels="last").shape == (1, 3, 3, 5)
    assert as_images(np.full((1, 2, 2), 65535, np.uint16)).max() == 1
    assert as_images(np.ones((1, 2, 2), bool)).max() == 1 and as_images(grey, white=510).max() < 0.15


@pytest.mark.parametrize("array,options,kind,words", [
    (np.zeros((2, 64)), {}, DataError, r"images need shape \(N, height, width\), or that with channels; got \(2, 64\)"),
    (np.zeros((1, 3, 5, 3)), {}, DataError, r"\(1, 3, 5, 3\): either could be the channels. Write channels="),
    (np.zeros((1, 9, 9, 9)), {}, DataError, "no axis of 1 to 4 channels"),
    (np.full((1, 2, 2), 16.0), {}, DataError, "from 0 to 1; got 16 to 16. Write white=255"),
    (np.full((1, 2, 2), -0.5), {}, DataError, "got -0.5 to -0.5. Scale them"),
    (np.full((1, 2, 2), 300), {}, ArgumentError, "int64 do not say what white is; got numbers from 300 to 300"),
    (np.full((1, 2, 2), 300), {"white": 255}, DataError, "from 0 to 255; got 300 to 300"),
    (np.full((1, 2, 2), np.nan), {}, DataError, r"images needs finite numbers; got nan in row 0, place \(0, 0\)"),
    (np.zeros((1, 2, 2)), {"channels": "middle"}, ArgumentError, "channels must be 'first' or 'last'"),
])  # fmt: skip
def test_arrays_that_are_no_images(array, options, kind, words):
    with pytest.raises(kind, match=words):
        as_images(array, **options)


# ------------------------------------------------------------------------------------------- folders


def test_a_folder_for_each_class(folder):
    data = ImageFolder(folder)
    assert data.classes == ["cat", "dog"] and data.class_to_idx == {"cat": 0, "dog": 1} and len(data) == 12
    assert data.targets.tolist() == [0] * 8 + [1] * 4 and data.samples[-1][1] == 1
    assert repr(data) == f"ImageFolder(12 images of 2 classes, RGB, 6 × 6, in {str(folder)!r})"
    image, label = data[9]
    assert (
        isinstance(image, cr.Tensor) and image.shape == (3, 6, 6) and image.dtype == cr.float32 and label == 1
    )
    assert float(image.min()) >= 200 / 255 and float(image.max()) < 1
    x, y = data.take(np.array([0, 11]))
    assert x.shape == (2, 3, 6, 6) and y.tolist() == [0, 1] and x[1].min() > x[0].max()
    assert ImageFolder(folder, mode="L", resize=(4, 8))[0][0].shape == (1, 4, 8)
    assert ImageFolder(folder, classes=["dog"]).targets.tolist() == [0] * 4
    assert load_image(data.samples[0][0], resize=3).shape == (3, 3, 3)


def test_resizing_to_a_square_keeps_the_middle(tmp_path):
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 10:20] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert load_image(tmp_path / "wide.png", mode="L", resize=5).min() == 1
    stretched = load_image(tmp_path / "wide.png", mode="L", resize=(5, 5))
    assert stretched[0, :, 0].max() == 0 and stretched[0, :, 2].min() > 0.9


def test_sixteen_bits_of_grey_are_kept(tmp_path):
    pixels = np.array([[0, 300], [30000, 65535]], np.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    np.testing.assert_allclose(load_image(tmp_path / "deep.png", mode="L")[0], pixels / 65535, rtol=1e-6)
    assert load_image(tmp_path / "deep.png").shape == (3, 2, 2)


def test_a_photograph_is_turned_as_its_camera_noted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a.png", exif=exif)
    assert load_image(tmp_path / "a.png").shape == (3, 6, 4)
    (tmp_path / "root" / "one").mkdir(parents=True)
    (tmp_path / "a.png").rename(tmp_path / "root" / "one" / "a.png")
    assert ImageFolder(tmp_path / "root").preparation.size == (6, 4)


def test_faults_of_folders_are_told_with_their_file(folder, tmp_path):
    with pytest.raises(DataError, match=r"got '.*nowhere': No such file or directory. Check the path"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"need a folder for each class; got .* without folders"):
        ImageFolder(folder / "cat" / "more")
    with pytest.raises(DataError, match=r"got no 'dgo' in .*. Did you mean 'dog'\?"):
        ImageFolder(folder, classes=["dgo"])
    (folder / "bird").mkdir()
    with pytest.raises(DataError, match=r"every class needs images; got none in '.*bird'"):
        ImageFolder(folder)
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(folder / "bird" / "b.png")
    with pytest.raises(
        DataError, match=r"got 6 × 6 in '.*1.PNG' and 5 × 6 in 'b.png'. Write resize=\(5, 6\)"
    ):
        ImageFolder(folder)
    (folder / "bird" / "b.png").write_bytes(b"not an image")
    with pytest.raises(
        DataError, match=r"whole image file is needed; got '.*b.png': it cannot be identified"
    ):
        ImageFolder(folder)
    whole = (folder / "cat" / "1.PNG").read_bytes()
    (folder / "bird" / "b.png").write_bytes(whole[: len(whole) // 2])
    data = ImageFolder(folder, resize=6)
    with pytest.raises(
        DataError, match=r"in batch 1 of epoch 1: a whole image file is needed; got '.*b.png'"
    ):
        list(DataLoader(data, batch_size=13, num_workers=2))
    with pytest.raises(DataError, match=r"got '.*gone.png', which does not exist"):
        load_image(folder / "gone.png")


@pytest.mark.parametrize("options,words", [
    ({"transform": 1}, "no argument 'transform'. Write resize= and mode=; random changes go to cr.fit"),
    ({"mode": "CMYK"}, "mode must be 'RGB' or 'L'"),
    ({"resize": 0}, "resize must be a whole number, or"),
    ({"resize": (1, 2, 3)}, "resize must be a whole number, or"),
])  # fmt: skip
def test_options_that_are_none(folder, options, words):
    with pytest.raises(ArgumentError, match=words):
        ImageFolder(folder, **options)


def test_without_pillow_the_extra_is_named(folder, monkeypatch):
    found = builtins.__import__

    def refuse(name, *arguments, **keywords):
        if name.startswith("PIL"):
            raise ImportError(name)
        return found(name, *arguments, **keywords)

    for name in [one for one in sys.modules if one.startswith("PIL")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"needs Pillow: pip install 'chainrule\[images\]'"):
        ImageFolder(folder)


def test_splitting_keeps_the_share_of_each_class(folder):
    data = ImageFolder(folder)
    training, test = data.split(0.25)
    assert sorted([*training.rows, *test.rows]) == list(range(12)) and len(test) == 3
    assert np.bincount(test.targets).tolist() == [2, 1] and test.classes == ["cat", "dog"]
    assert [len(one) for one in data.split(2, 4)] == [6, 2, 4]
    assert len(data.subset([3, 4])) == 2 and len(data.subset(data.targets == 1)) == 4
    other = train_test_split(data, test_size=0.25, stratify=data.targets)
    assert isinstance(other[1], Subset) and np.bincount(other[1].targets).tolist() == [2, 1]
    with pytest.raises(DataError, match="every part needs a row at least; got 12 rows for parts of 12"):
        data.split(12)
    with pytest.raises(ArgumentError, match="a size must be a share between 0 and 1"):
        data.split(1.5)
    with pytest.raises(DataError, match="rows 0 to 11; got 3 to 12"):
        data.subset([3, 12])


def test_the_fingerprint_knows_what_is_in_the_files(folder):
    first = ImageFolder(folder).fingerprint()
    assert ImageFolder(folder).fingerprint() == first
    assert ImageFolder(folder, mode="L").fingerprint() != first
    gone = ImageFolder(folder)
    (folder / "cat" / "2.PNG").rename(folder / "kept")
    with pytest.raises(DataError, match=r"a whole image file is needed; got '.*2.PNG'"):
        gone.fingerprint()
    (folder / "kept").rename(folder / "cat" / "2.PNG")
    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(folder / "dog" / "1.PNG")
    assert ImageFolder(folder).fingerprint() != first


# ------------------------------------------------------------------------------------------- loaders


def same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.inputs, b.inputs)
        np.testing.assert_array_equal(a.targets, b.targets)


def test_batches_do_not_depend_on_the_number_of_workers(folder):
    data = ImageFolder(folder)
    changes = [RandomHorizontalFlip(), RandomShift(1), GaussianNoise()]
    loaders = [
        DataLoader(data, 5, shuffle=True, seed=3, augment=changes, num_workers=workers)
        for workers in (0, 1, 3)
    ]
    for loader in loaders[1:]:
        same(loader.epoch(2), loaders[0].epoch(2))
        same(loader.epoch(2, skip=1), list(loaders[0].epoch(2))[1:])
    assert [x.shape for x, _ in loaders[2]] == [(5, 3, 6, 6), (5, 3, 6, 6), (2, 3, 6, 6)]
    epoch = loaders[2].epoch(1)
    next(epoch)
    epoch.close()  # a reader that leaves early leaves no thread behind
    in_memory = DataLoader(data.arrays(), 5, shuffle=True, seed=3, augment=changes)
    same(in_memory.epoch(2), loaders[0].epoch(2))
    assert loaders[0].fingerprint() == loaders[2].fingerprint() != DataLoader(data, 5, seed=3).fingerprint()


def test_a_data_set_of_ones_own_is_read_batch_by_batch():
    class Mine(Dataset):
        read = 0

        def __len__(self):
            return 7

        def __getitem__(self, index):
            Mine.read += 1
            return {"image": cr.ones((1, 2, 2)) * index, "size": [index, 1]}, float(index)

    loader = DataLoader(Mine(), 3)
    assert Mine.read == 0 and len(loader) == 3
    x, y = next(iter(loader))
    assert (
        Mine.read == 3 and x["image"].shape == (3, 1, 2, 2) and x["size"].tolist() == [[0, 1], [1, 1], [2, 1]]
    )
    assert y.tolist() == [0, 1, 2] and DatasetSource(Mine(), 3).fingerprint() == ""
    with pytest.raises(
        DataError, match=r"must be a pair \(x, y\); got a int64|must be a pair \(x, y\); got a ndarray"
    ):
        type("Bad", (Mine,), {"__getitem__": lambda self, index: index})().take(np.array([0]))
    with pytest.raises(DataError, match="items need one shape; got Bad"):
        type("Bad", (Mine,), {"__getitem__": lambda self, index: (np.ones(index), 0)})().take(
            np.array([1, 2])
        )
    with pytest.raises(DataError, match="training needs rows; got Bad without any"):
        DataLoader(type("Bad", (Mine,), {"__len__": lambda self: 0})())
    with pytest.raises(DataError, match="in batch 1 of epoch 1: X needs finite numbers"):
        list(DataLoader(type("Bad", (Mine,), {"__getitem__": lambda self, index: (np.nan, 0)})()))


# ------------------------------------------------------------------------------------------- augmentation


def test_the_numbers_of_a_row_do_not_depend_on_the_others():
    rows = np.array([7, 1, 2**40])
    whole, alone = Chance.of(5, 3, rows), Chance.of(5, 3, rows[1:])
    np.testing.assert_array_equal(whole.uniform((3, 3))[1:], alone.uniform((3, 3)))
    np.testing.assert_array_equal(whole.integers(-2, 3)[1:], alone.integers(-2, 3))
    np.testing.assert_array_equal(whole.normal((5,))[1:], alone.normal((5,)))
    np.testing.assert_array_equal(whole.fork(1).uniform()[1:], alone.fork(1).uniform())
    drawn = [
        tuple(Chance.of(seed, epoch, rows).fork(place).uniform())
        for seed in (0, 1, 2**40) for epoch in (1, 2) for place in (0, 1)
    ]  # fmt: skip
    assert len(set(drawn)) == len(drawn) and len(set(np.concatenate(drawn))) == 36
    assert alone.rows == 2
    with pytest.raises(ArgumentError, match="integers needs low < high"):
        alone.integers(2, 2)


def test_the_numbers_are_the_ones_that_everything_random_comes_from():
    key = np.array([11, 22, 0, 0], np.uint32)
    words = Chance(key[:1], key[1:2])._bits(6)[0]
    np.testing.assert_array_equal(words, random_bits(key, size=6))


def test_the_numbers_never_change_between_versions():
    # Written down once: a run that was stopped under one version goes on under the next.
    assert Chance.of(0, 1, np.array([0, 5])).integers(0, 1000).tolist() == [344, 560]


def test_chance_is_spread_as_it_says():
    numbers = chance(64)
    assert abs(numbers.uniform((1000,)).mean() - 0.5) < 0.005
    drawn = numbers.normal((1001,))
    assert abs(drawn.mean()) < 0.02 and abs(drawn.std() - 1) < 0.02
    counts = np.bincount(numbers.integers(0, 5, (1000,)).reshape(-1))
    assert ((counts - 12800) ** 2 / 12800).sum() < 18.5  # χ² with 4 degrees of freedom: once in a thousand


def test_flips_crops_and_shifts_are_what_they_are_called():
    images = np.arange(40 * 2 * 3 * 4, dtype=np.float32).reshape(40, 2, 3, 4)
    for kind, axis in ((RandomHorizontalFlip, 3), (RandomVerticalFlip, 2)):
        np.testing.assert_array_equal(kind(p=1.0)(images, chance(40)), np.flip(images, axis))
        np.testing.assert_array_equal(kind(p=0.0)(images, chance(40)), images)
        flipped = (kind()(images, chance(40)) != images).any(axis=(1, 2, 3))
        assert 8 < flipped.sum() < 32
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (2, 2)), constant_values=-1)
    cut = RandomCrop((2, 3), padding=(1, 2), fill=-1)(images, chance(40))
    places = set()
    for before, after in zip(padded, cut):
        found = [
            (i, j) for i in range(4) for j in range(6) if (before[:, i : i + 2, j : j + 3] == after).all()
        ]
        places |= set(found)
        assert found
    assert len(places) > 12
    shifted = RandomShift(1)(images, chance(40))
    np.testing.assert_array_equal(shifted, RandomCrop(padding=1)(images, chance(40)))
    assert shifted.shape == images.shape and (shifted != images).any()
    assert RandomShift((0, 2)).padding == (0, 2)
    grey = RandomShift(1)(images[:, 0].astype(np.uint8), chance(40))
    assert grey.shape == (40, 3, 4) and grey.dtype == np.uint8


def test_noise_is_added_and_kept_in_its_range():
    images = np.full((8, 1, 16, 16), 0.5)
    noisy = GaussianNoise(sigma=0.1)(images, chance(8))
    assert noisy.dtype == np.float64 and abs(noisy.std() - 0.1) < 0.01 and images.max() == 0.5
    assert GaussianNoise(sigma=5.0)(images, chance(8)).max() == 1
    assert GaussianNoise(mean=3.0, sigma=0.0, clip=False)(images, chance(8)).min() == 3.5


@pytest.mark.parametrize("make,words", [
    (lambda: RandomHorizontalFlip(1.5), "p must be a probability from 0 to 1"),
    (lambda: RandomCrop(0), "size must be a whole number from 1, or two"),
    (lambda: RandomCrop(4, padding=-1), "padding must be a whole number from 0"),
    (lambda: RandomShift(0), "pixels must be a whole number from 1"),
    (lambda: GaussianNoise(sigma=-1), "sigma must be a number from 0"),
    (lambda: Compose([RandomHorizontalFlip]), r"the class RandomHorizontalFlip. Write RandomHorizontalFlip\(\)"),
    (lambda: DataLoader(np.ones(3), augment=3), r"a function \(images, chance\) → images; got int"),
    (lambda: cr.fit(nn.Linear(1, 1), ([[0.0]], [0.0]), augment=3), r"a function \(images, chance\) → images; got int"),
])  # fmt: skip
def test_changes_that_are_none(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_what_cannot_be_changed_is_told():
    with pytest.raises(
        DataError, match=r"RandomShift needs images .*; got shape \(4, 64\). Reshape the rows"
    ):
        RandomShift(1)(np.zeros((4, 64)), chance())
    with pytest.raises(DataError, match="changes one array of images; got a dict"):
        RandomShift(1)({"a": 1}, chance())
    with pytest.raises(DataError, match="GaussianNoise needs images of floats; got uint8"):
        GaussianNoise()(np.zeros((4, 1, 2, 2), np.uint8), chance())
    with pytest.raises(
        DataError, match="a window of 9 × 9 needs images of that size; got 4 × 6 with their padding"
    ):
        RandomCrop(9, padding=1)(np.zeros((4, 1, 2, 4)), chance())
    loader = DataLoader((np.zeros((4, 2)), np.zeros(4)), 4, augment=lambda images, chance: images[:2])
    with pytest.raises(ArgumentError, match=r"an array with the 4 rows that it was given; got \(2, 2\)"):
        list(loader)


# ------------------------------------------------------------------------------------------- training


def network():
    cr.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 2))


def trained(data, **options):
    given = {"epochs": 3, "batch_size": 4, "progress": False, "compile": False, **options}
    model = network()
    run = cr.fit(model, data, optimizer=optim.SGD(model.parameters(), lr=0.1), **given)
    return run, np.concatenate([one.detach().numpy().reshape(-1) for one in model.parameters()])


def test_a_folder_is_trained_on_and_predicted_from(folder, tmp_path):
    data = ImageFolder(folder)
    run, _ = trained(data, epochs=20, metrics=["accuracy"], validation=0.25, folder=tmp_path / "run")
    assert run.score["accuracy"] == 1 and run.evaluate(data)["accuracy"] == 1
    assert run.predict(data).tolist() == data.targets.tolist()
    again = cr.load_run(tmp_path / "run", network())
    paths = [path for path, _ in data.samples]
    assert again.preparation.classes == ["cat", "dog"]
    assert again.predict(paths).tolist() == data.targets.tolist()
    assert again.predict(paths[-1]).tolist() == [1] and again.predict_proba(paths[0]).shape == (1, 2)
    Image.fromarray(np.zeros((3, 6, 3), np.uint8)).save(tmp_path / "other.png")
    with pytest.raises(DataError, match=r"got 3 × 6 in '.*other.png' and 6 × 6 in those of the training"):
        again.predict(tmp_path / "other.png")


def test_augmentation_is_for_the_training_rows_alone(folder):
    seen = {"rows": 0}

    def whiten(images, chance):
        seen["rows"] += len(images)
        return np.ones_like(images)

    data = ImageFolder(folder)
    x, y = data.arrays()
    for given in (data, (x, y)):
        seen["rows"] = 0
        run, _ = trained(given, validation=0.25, augment=whiten, epochs=2)
        assert seen["rows"] == 2 * 9
        plain = run.evaluate(x, y)["loss"]
        assert run.evaluate(DataLoader((x, y), 4, augment=whiten))["loss"] == pytest.approx(plain, rel=1e-6)
        assert seen["rows"] == 2 * 9
    run, _ = trained((x, y), validation=DataLoader((x, y), 4, augment=whiten), epochs=1)
    assert run.history[-1]["validation_loss"] == pytest.approx(run.evaluate(x, y)["loss"], rel=1e-6)
    with pytest.raises(ArgumentError, match=r"augment goes with arrays .* and data sets; got batches"):
        trained(DataLoader((x, y), 4), augment=whiten, validation=None)


def test_data_set_arrays_and_loader_train_the_same(folder):
    data = ImageFolder(folder)
    changes = [RandomHorizontalFlip(), RandomShift(1), GaussianNoise()]
    options = {"validation": None, "augment": changes}
    wanted = trained(data.arrays(), **options)[1]
    np.testing.assert_array_equal(trained(data, **options)[1], wanted)
    loader = DataLoader(data, 4, shuffle=True, augment=changes, num_workers=2)
    np.testing.assert_array_equal(trained(loader, validation=None)[1], wanted)
    assert not np.array_equal(trained(data, validation=None)[1], wanted)
    run, _ = trained(data, validation=None, class_weight="balanced", epochs=1)
    other, _ = trained(data, validation=None, class_weight={0: 0.75, 1: 1.5}, epochs=1)
    assert run.history[0]["loss"] == pytest.approx(other.history[0]["loss"])


@pytest.mark.parametrize("as_arrays", [False, True])
def test_an_augmented_training_resumes_bit_for_bit(folder, tmp_path, as_arrays):
    data = ImageFolder(folder)
    given = data.arrays() if as_arrays else data
    options = {"augment": [RandomHorizontalFlip(), RandomShift(1), GaussianNoise()], "validation": 0.25}
    wanted = trained(given, **options)[1]

    class Stop(cr.Callback):
        def on_batch_end(self, run, told):
            if told["step"] == 4:
                os.kill(os.getpid(), signal.SIGINT)

    place = tmp_path / "run"
    run, _ = trained(given, folder=place, callbacks=Stop(), **options)
    assert run.state == "interrupted" and len(run.history) == 1
    with pytest.raises(cr.RunError, match="the data, or how they are cut into batches, are not the same"):
        trained(given, folder=place, resume=True, augment=RandomShift(2), validation=0.25)
    run, found = trained(given, folder=place, resume=True, **options)
    assert run.state == "finished" and run.resumed_at == (2, 1)
    np.testing.assert_array_equal(found, wanted)


def test_the_changes_are_the_same_in_another_process():
    code = (
        "import numpy as np, hashlib; from chainrule.data import *; from chainrule.data.chance import Chance; "
        "x = np.linspace(0, 1, 4 * 64, dtype=np.float32).reshape(4, 1, 8, 8); "
        "y = Compose([RandomHorizontalFlip(), RandomShift(2), GaussianNoise()])(x, Chance.of(1, 2, np.arange(4))); "
        "print(hashlib.sha256(y.tobytes()).hexdigest())"
    )
    found = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(found) == 1


def test_sources_tell_what_they_are():
    source = AugmentedSource(DatasetSource(Squares(), 2), RandomShift(1), 0)
    assert source.rows == 4 and source.batches == 2 and sorted(source.order(1)) == [0, 1, 2, 3]
    with pytest.raises(DataError, match="drop_last leaves no batch: got 4 rows for batches of 5"):
        DatasetSource(Squares(), 5, drop_last=True)
    assert repr(RandomCrop(2)) == "RandomCrop(size=(2, 2), padding=(0, 0), fill=0.0)"


class Squares(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return np.full((1, 2, 2), float(index)), index * index
