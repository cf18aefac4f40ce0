"""NumPy's BLAS under our limits: how many threads it uses, when, and what holds afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

import chainrule as cr
from chainrule import blas
from chainrule.blas import limit, single_threaded
from chainrule.runtime import threads

LIBRARIES = ThreadpoolController().select(user_api="blas").lib_controllers

pytestmark = pytest.mark.skipif(
    not any(one.get_num_threads() > 1 for one in LIBRARIES), reason="needs a BLAS with several threads"
)


def counts() -> list[int]:
    """Of the libraries that were there when somebody first asked; another test may load more, such as SciPy's own."""
    return [one.get_num_threads() for one, _ in blas._libraries()]


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threads, "_wanted", threads._wanted)
    before = counts()
    yield
    for (one, _), number in zip(blas._libraries(), before):
        blas._put(one, number)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_number_of_threads_holds_for_products_outside_compiled_steps(count: int) -> None:
    most = [number for _, number in blas._libraries()]
    cr.set_num_threads(count)
    assert counts() == [min(count, number) for number in most]
    cr.set_num_threads(1000)
    assert counts() == most, "never more than there were"


def test_one_thread_inside_and_what_was_there_afterwards() -> None:
    before = counts()
    with single_threaded():
        assert set(counts()) == {1}
        with single_threaded():
            assert set(counts()) == {1}
        assert set(counts()) == {1}, "the first one still needs it"
    assert counts() == before


def test_a_limit_set_meanwhile_holds_afterwards() -> None:
    before = counts()
    with single_threaded():
        limit(1000)
        assert set(counts()) == {1}
    assert counts() == before
    with single_threaded():
        limit(1)
    assert set(counts()) == {1}


def test_what_others_have_set_is_left_alone() -> None:
    with threadpool_limits(1, user_api="blas"):
        with single_threaded():
            pass
        assert set(counts()) == {1}


def test_a_failure_inside_puts_the_number_back() -> None:
    before = counts()
    with pytest.raises(KeyError), single_threaded():
        raise KeyError
    assert counts() == before


def test_users_in_several_threads_count_together() -> None:
    before, inside = counts(), []
    barrier = threading.Barrier(4)

    def use() -> None:
        with single_threaded():
            barrier.wait()
            inside.append(counts())
            barrier.wait()

    crowd = [threading.Thread(target=use) for _ in range(4)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert inside == [[1] * len(before)] * 4
    assert counts() == before


def test_a_limit_can_be_set_from_any_thread_one_after_the_other() -> None:
    for number in (1, 1000, 1):
        thread = threading.Thread(target=limit, args=(number,))
        thread.start()
        thread.join()
        assert counts() == [min(number, most) for _, most in blas._libraries()]
        cr.set_num_threads(1000)
        assert counts() == [most for _, most in blas._libraries()]
