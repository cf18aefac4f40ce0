"""The generated checks have teeth: faults put into the derivative rules are found."""

from __future__ import annotations

import pytest

import chainrule as cr
import mutate_rules
from chainrule.testing import check_grads
from op_checks import call, differentiable, function_of, operation, sampled
from op_samples import SAMPLES


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


NAMED = {"sign": "sign", "factor 2": "factor", "no gradient": "zero"}


@pytest.mark.parametrize("name", sampled())
def test_check_grads_finds_and_names_mutated_rules(name: str) -> None:
    """What a user would see: sign, factor and missing gradient of every rule, by their kind."""
    op = operation(name)
    cases = [one for one in SAMPLES[name].cases if differentiable(op, one)]
    sizes = {
        k: min(one.operands[0].size, call(op, one.operands, one.attributes).size)
        for k, one in enumerate(cases)
    }
    largest = cases[max(sizes, key=lambda k: sizes[k])] if cases else None
    for mutant in mutate_rules.mutants(name):
        kind = NAMED.get(mutant.description.split(" of ")[0])
        if kind is None:
            continue
        assert largest is not None
        function, floats, _ = function_of(op, largest)
        restore = mutant.install()
        try:
            report = check_grads(function, tuple(cr.Tensor(one) for one in floats), 1, raise_on_error=False)
        finally:
            restore()
        assert not report.ok, mutant.description
        assert kind in {one.kind for one in report.wrong}, f"{mutant.description}\n{report}"
