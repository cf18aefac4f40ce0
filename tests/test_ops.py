"""Every registered primitive, by generated checks, and the conventions at kinks and edges."""

from __future__ import annotations

from typing import Any

import pytest

from chainrule import ops
from op_checks import CHECKS, operation, sampled
from op_samples import SAMPLES, WITHOUT_SAMPLES


@pytest.mark.parametrize("op", ops.primitives(), ids=lambda op: op.name)
def test_every_primitive_has_samples(op: ops.Op) -> None:
    assert op.name in SAMPLES or op.name in WITHOUT_SAMPLES, (
        f"the operation {op.name} is registered, but has no samples. Add SAMPLES[{op.name!r}] in "
        "tests/op_samples.py: a reference in plain NumPy, and operands "
        f"({', '.join(op.operand_names)}; attributes {', '.join(op.attribute_names) or 'none'}) at the shapes "
        "() (0,) (1,) (7,) (3, 5), away from kinks. All its tests follow from that"
    )


def test_no_samples_without_a_primitive() -> None:
    assert not (SAMPLES.keys() | WITHOUT_SAMPLES.keys()) - {op.name for op in ops.primitives()}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", sampled())
def test_generated(name: str, check: Any) -> None:
    check(operation(name), SAMPLES[name])
