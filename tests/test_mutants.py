"""The generated checks have teeth: faults put into the derivative rules are found."""

from __future__ import annotations

import pytest

import mutate_rules
from op_checks import sampled


def test_mutated_rules_die() -> None:
    counted, killed, survivors, excused = mutate_rules.run(sampled())
    assert counted >= 500
    assert killed >= 0.98 * counted, [f"{one.operation}: {one.description}" for one in survivors]
    named = {(one.operation, one.description) for one in excused}
    assert named == mutate_rules.EQUIVALENT.keys(), "an excuse belongs to no mutant any more: remove it"


@pytest.mark.parametrize("name", ["sin", "divide", "matmul", "sum", "reduce_max", "put"])
def test_every_kind_is_mutated(name: str) -> None:
    descriptions = {one.description.split(" of ")[0] for one in mutate_rules.mutants(name)}
    assert {"sign", "factor 2"} <= descriptions
