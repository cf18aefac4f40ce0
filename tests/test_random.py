"""Random numbers: the published algorithm, one stream for each seed, the promised distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import ops

ONES = 0xFFFFFFFF
# Threefry-2x32, 20 rounds: the known-answer vectors of the Random123 distribution (counter, key, result).
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((ONES, ONES), (ONES, ONES), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


def words(state, size):
    generator = cr.Generator()
    generator.set_state(list(state))
    return generator.bits(size).value


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers_of_threefry(counter, key, answer):
    assert words((*key, *counter), 2).tolist() == list(answer)


def test_the_counter_carries_into_its_high_word():
    key = (11, 22)
    across = words((*key, ONES, 5), 4)
    assert across[[0, 2]].tolist() == words((*key, ONES, 5), 2).tolist()
    assert across[[1, 3]].tolist() == words((*key, 0, 6), 2).tolist()
    generator = cr.Generator()
    generator.set_state([*key, ONES, 5])
    generator.bits(3)
    assert generator.get_state() == [*key, 1, 6]
    generator.set_state([*key, ONES, ONES])
    generator.bits(2)
    assert generator.get_state() == [*key, 0, 0]
    start = np.asarray([1, 2, 3, 4], np.uint32)
    assert ops.advance(start, blocks=(7 << 32) + 5).tolist() == [1, 2, 8, 11]


def test_pieces_of_a_stream_do_not_overlap():
    generator = cr.Generator(3)
    drawn = np.concatenate([generator.bits(size).value for size in (1, 2, 7, 64, 1000)])
    assert len(set(drawn.tolist())) == drawn.size


def test_the_same_seed_gives_the_same_numbers_and_another_one_others():
    draws = {
        "rand": lambda g: cr.rand(3, 4, generator=g),
        "randn": lambda g: cr.randn(7, generator=g),
        "randint": lambda g: cr.randint(-5, 5, (20,), generator=g),
        "randperm": lambda g: cr.randperm(20, generator=g),
        "rand64": lambda g: cr.rand(5, dtype=cr.float64, generator=g),
    }
    for draw in draws.values():
        first, again, other = (draw(cr.Generator(seed)).tolist() for seed in (7, 7, 8))
        assert first == again != other
    cr.manual_seed(5)
    first = cr.rand(4).tolist()
    second = cr.rand(4).tolist()
    cr.manual_seed(5)
    assert cr.rand(4).tolist() == first != second
    assert cr.Generator(1 << 40).get_state() == [0, 256, 0, 0]


def test_a_state_can_be_kept_and_continued():
    generator = cr.Generator(9)
    generator.normal(5)
    state = generator.get_state()
    expected = generator.uniform(6).tolist()
    twin = cr.Generator(0)
    twin.set_state(state)
    assert twin.uniform(6).tolist() == expected and all(isinstance(word, int) for word in state)
    for bad in ([1, 2, 3], [0, 0, 0, -1], [0, 0, 0, 1 << 32], ["a", 0, 0, 0]):
        with pytest.raises(cr.ArgumentError, match="four 32-bit numbers"):
            twin.set_state(bad)


def moments(x):
    return [float((x**k).mean()) for k in (1, 2, 3, 4)]


@pytest.mark.parametrize("dtype", [cr.float32, cr.float64])
def test_uniform_numbers_have_the_moments_of_the_distribution(dtype):
    count = 400_000
    x = cr.Generator(1).uniform(count, dtype=dtype)
    values = x.numpy().astype(np.float64)
    assert x.dtype == dtype and values.min() >= 0 and values.max() < 1
    for k, moment in enumerate(moments(values), start=1):
        deviation = math.sqrt((1 / (2 * k + 1) - 1 / (k + 1) ** 2) / count)
        assert abs(moment - 1 / (k + 1)) < 4 * deviation
    counts = np.bincount((values * 64).astype(int), minlength=64)
    assert ((counts - count / 64) ** 2 / (count / 64)).sum() < 63 + 5 * math.sqrt(2 * 63)
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 4 / math.sqrt(count)
    grain = 24 if dtype == cr.float32 else 53
    assert (values * 2.0**grain == np.floor(values * 2.0**grain)).all()


@pytest.mark.parametrize("dtype", [cr.float32, cr.float64])
def test_normal_numbers_have_the_moments_of_the_distribution(dtype):
    count = 400_000
    x = cr.Generator(2).normal(count, dtype=dtype)
    values = x.numpy().astype(np.float64)
    assert x.dtype == dtype and np.isfinite(values).all()
    for moment, expected, variance in zip(moments(values), (0, 1, 0, 3), (1, 2, 15, 96)):
        assert abs(moment - expected) < 4 * math.sqrt(variance / count)
    assert abs((np.abs(values) < 1).mean() - 0.6826894921) < 0.003 and 4 < np.abs(values).max() < 7
    shifted = cr.Generator(2).normal(count, 5.0, 0.5).numpy()
    assert shifted.mean() == pytest.approx(5.0, abs=0.01) and shifted.std() == pytest.approx(0.5, abs=0.01)


def test_bounds_of_uniform_numbers_are_never_reached_by_rounding():
    generator = cr.Generator()
    generator._unit = lambda shape, dtype: cr.full(shape, 1 - 2.0**-24, dtype=dtype)
    assert generator.uniform(1, 1.0, 2.0).item() < 2.0
    values = cr.Generator(4).uniform((1000,), -3.0, 5.0).numpy()
    assert values.min() >= -3 and values.max() < 5 and values.mean() == pytest.approx(1.0, abs=0.3)


def test_whole_numbers_cover_their_range():
    x = cr.Generator(5).integers((6, 2000), -3, 4)
    values, counts = np.unique(x.numpy(), return_counts=True)
    assert x.dtype == cr.int64 and values.tolist() == list(range(-3, 4))
    assert (np.abs(counts - 12000 / 7) < 5 * math.sqrt(12000 / 7)).all()
    assert cr.Generator(5).integers(3, 2**40, 2**40 + 1).tolist() == [2**40] * 3


@pytest.mark.parametrize("size", [0, 1, 2, 17, 5000])
def test_randperm_is_a_permutation(size):
    order = cr.randperm(size, generator=cr.Generator(6))
    assert order.dtype == cr.int64 and sorted(order.tolist()) == list(range(size))


def test_every_permutation_is_as_likely_as_every_other():
    generator = cr.Generator(7)
    found = [tuple(generator.permutation(3).tolist()) for _ in range(3000)]
    counts = np.unique(np.asarray(found), axis=0, return_counts=True)[1]
    assert len(counts) == 6 and (np.abs(counts - 500) < 5 * math.sqrt(500)).all()


def test_shapes_and_dtypes():
    assert cr.rand(2, 3).shape == cr.rand((2, 3)).shape == cr.randn([2, 3]).shape == (2, 3)
    assert cr.rand().shape == () and cr.rand(0).shape == (0,) and cr.randint(0, 2, ()).shape == ()
    assert (
        cr.rand(2).dtype == cr.randn(2).dtype == cr.float32
        and cr.randn(2, dtype=cr.float64).dtype == cr.float64
    )
    assert not cr.rand(2).requires_grad


MISTAKES = [
    (lambda: cr.manual_seed(-1), cr.ArgumentError, "got -1"),
    (lambda: cr.manual_seed(1 << 64), cr.ArgumentError, "2\\*\\*64 - 1"),
    (lambda: cr.manual_seed(1.5), cr.ArgumentError, "whole number as seed; got 1.5"),
    (lambda: cr.rand(2, dtype=cr.int64), cr.DtypeError, "randint"),
    (lambda: cr.rand(-1), cr.ShapeError, "sizes from 0"),
    (lambda: cr.rand(2.5), cr.ArgumentError, "whole number as size; got 2.5"),
    (lambda: cr.rand(1 << 40, 1 << 40), cr.ShapeError, "more than memory can hold"),
    (lambda: cr.randint(3, 3, (2,)), cr.ArgumentError, "low < high"),
    (lambda: cr.randint(0, 1 << 40, (2,)), cr.ArgumentError, "2\\*\\*32"),
    (lambda: cr.Generator().uniform(2, 1.0, 0.0), cr.ArgumentError, "low <= high"),
    (lambda: cr.Generator().uniform(2, 0.0, math.inf), cr.ArgumentError, "finite"),
    (lambda: cr.randperm(-1), cr.ShapeError, "sizes from 0"),
]


@pytest.mark.parametrize(("act", "error", "message"), MISTAKES)
def test_mistakes_are_named(act, error, message):
    with pytest.raises(error, match=message) as caught:
        act()
    assert "test_random.py" in str(caught.value)
