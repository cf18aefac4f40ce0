"""Random networks learn the same in every engine. `random_architectures.py` trains any number of them by command."""

from __future__ import annotations

import pytest

from random_architectures import ENGINES, TOLERANCE, difference


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(25))
def test_random_networks_learn_the_same(seed: int, engine: str) -> None:
    assert difference(seed, engine) <= TOLERANCE
