"""More checks: which program serves a call, and what it hands back."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import nn
from chainrule.config import config
from chainrule.errors import ChainruleError
from chainrule.graph import state
from commit_checks import (
    check_commit,
    check_refused_steps_change_nothing,
)
from compiler_checks import (
    check,
    near,
    normal,
    refused,
)

# ------------------------------------------------------------------------------------------- which program serves


@check
def check_calls_that_only_look_alike() -> None:
    """Every call gets what Python gives: whatever differs from the call before is seen."""
    w = cr.tensor([1.5, -2.0, 0.5], requires_grad=True)

    def function(x: Any, y: Any = 2.0) -> Any:
        loss = cr.sum(w * x * y)
        if state.grad_enabled:
            loss.backward()
        return loss, bool(getattr(x, "requires_grad", False))

    step = cr.compile(function)
    plain = cr.tensor([1.0, 2.0, 3.0])

    def both(*given: Any, **named: Any) -> None:
        found = []
        for run in (function, step):
            w.grad = None
            for one in given:
                if isinstance(one, cr.Tensor) and one.requires_grad:
                    one.grad = None
            value, flag = run(*given, **named)
            grads = [
                None if one.grad is None else one.grad.tolist()
                for one in (w, *given)
                if isinstance(one, cr.Tensor)
            ]
            found.append((value.tolist(), value.dtype, flag, grads))
        assert found[0] == found[1], found

    learning = cr.tensor([1.0, 2.0, 3.0], requires_grad=True)
    for _ in range(2):
        for given in (
            (plain,),
            (learning,),
            (plain,),
            (plain * 1.0,),
            (np.array([1.0, 2.0, 3.0], "float32"),),
            (w,),
            (plain,),
            (plain, 3.0),
            (plain, 4.0),
            (plain, plain),
        ):
            both(*given)
        both(plain, y=3.0)
        both(plain, y=plain)
        both(cr.tensor([[1.0, 2.0, 3.0]]))
        both(cr.tensor([1.0, 2.0, 3.0], dtype=cr.float64))
        both(cr.tensor([2.0]))
        both(plain * 2.0)
        with cr.no_grad():
            both(plain)
        both(plain)
    step(plain)
    step(plain)
    made = len(step.recompiles)
    for _ in range(3):
        step(plain)
    assert len(step.recompiles) == made, "an equal call was traced again"
    outer, config.compile = config.compile, False
    try:
        step(cr.ones((2, 1, 3)))
        step(plain)
        assert len(step.recompiles) == made, "compiled although it is switched off"
    finally:
        config.compile = outer
    w.grad = None
    step(plain)
    assert w.grad.tolist() == [2.0, 4.0, 6.0]
    step(plain)  # gradients add up
    assert w.grad.tolist() == [4.0, 8.0, 12.0]


@check
def check_types_and_flags_that_change() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    step = cr.compile(lambda x: model(x))
    x = cr.tensor(normal(5, 3, dtype="float32"))
    model.eval()
    for _ in range(2):
        near(step(x).numpy(), model(x).detach().numpy(), 16)
        model.to(cr.float64)
        wide = cr.tensor(normal(5, 3))
        near(step(wide).numpy(), model(wide).detach().numpy(), 16)
        model.to(cr.float32)
        model.train()
        assert (step(x).numpy() != step(x).numpy()).any()
        model.eval()
    model[0].weight.requires_grad = False
    near(step(x).numpy(), model(x).detach().numpy(), 16)
    outer = config.check_finite
    w = cr.tensor([0.0], requires_grad=True)

    @cr.compile
    def careful(x: Any) -> Any:
        loss = cr.sum(x / w)
        loss.backward()
        w.grad = None
        return loss

    try:
        for _ in range(2):
            config.check_finite = True
            refused(lambda: careful(cr.tensor([1.0])), "loss")
            config.check_finite = False
            assert careful(cr.tensor([1.0])).item() == np.inf
    finally:
        config.check_finite = outer


@check
def check_results_of_every_kind() -> None:
    """Arguments, cells, constants, numbers and texts leave as Python hands them out; handles follow."""
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    constant = cr.tensor([7.0, 8.0])

    def function(x: Any, y: Any) -> Any:
        old = w.detach()
        x[0] = 5.0
        y += 1.0
        with cr.no_grad():
            w.copy_(w + 1.0)
        return {
            "x": x,
            "y": [y, 3, "text", None],
            "w": (w, old, w * 2.0),
            "c": constant,
            "z": x * 2.0 + constant,
        }

    step = cr.compile(function)
    for k in range(3):
        found = []
        start = w.numpy()
        for run in (function, step):
            w.cell.write(start.copy())
            x, y = cr.tensor([1.0, 2.0 + k]), cr.tensor([3.0, 4.0])
            out = run(x, y)
            values = [x, y, out["x"], out["y"][0], *out["w"], out["c"], out["z"], w]
            found.append(([one.tolist() for one in values], out["y"][1:]))
            assert out["c"] is constant or out["c"].tolist() == [7.0, 8.0]
        assert found[0] == found[1], found
    raw = np.array([1.0, 2.0])
    same = cr.compile(
        lambda x: (x, x * 2.0) if isinstance(x, cr.Tensor) else (cr.asarray(x), cr.asarray(x) * 2.0)
    )
    for _ in range(2):
        given, twice = same(raw)
        raw[0] += 10.0
        assert given.tolist()[0] == twice.tolist()[0] / 2.0 == raw[0] - 10.0
    loss = cr.compile(lambda x: cr.sum(w * x))(constant)
    try:
        loss.backward()
    except ChainruleError:
        return
    raise AssertionError("a gradient was lost at the compiled function")


@check
def check_the_interpreter_keeps_the_rules() -> None:
    """Without llvmlite: the same results, the same checks, nothing changed by a step that is refused."""
    from chainrule.runtime import program

    outer, program.available = program.available, lambda: False
    try:
        with open(os.devnull, "w") as quiet, contextlib.redirect_stderr(quiet):
            for kind in ("plain", "swap", "after", "handed on"):
                check_commit(kind)
            check_refused_steps_change_nothing()
            table = cr.tensor(normal(4, 3))
            look = cr.compile(lambda at: cr.take(table, at, axis=0) * 2.0)
            near(look(cr.tensor([1, 3])).numpy(), table.numpy()[[1, 3]] * 2.0, 1)
            refused(lambda: look(cr.tensor([4, 0])), "got 0 to 4")
    finally:
        program.available = outer
