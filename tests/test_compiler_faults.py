"""Every check that faults in the compiler and the runtime were tried against (`mutate_compiler.py`), as a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import chainrule as cr
import commit_checks  # noqa: F401 - adds its checks
import edge_checks  # noqa: F401
import memory_checks  # noqa: F401
import runtime_checks  # noqa: F401
from chainrule.compiler import available
from compiler_checks import CHECKS

pytestmark = pytest.mark.skipif(not available(), reason="needs llvmlite")


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = cr.get_num_threads()
    yield
    cr.set_num_threads(before)


@pytest.mark.parametrize("name", CHECKS)
def test_the_compiler_and_the_runtime(name: str) -> None:
    CHECKS[name]()
