"""What holds of the JAX engine where JAX is not installed: an error that names the extra, cells that can wait."""

from __future__ import annotations

import importlib.util
import threading
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.graph import Cell
from chainrule.locks import lock_of


def test_without_jax_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(cr.MissingExtraError, match=r"pip install 'chainrule\[jax\]'"):
        cr.compile(lambda x: x, backend="jax")
    with pytest.raises(cr.MissingExtraError, match=r"pip install 'chainrule\[jax\]'"):
        cr.fit(nn.Linear(6, 1), (np.ones((8, 6)), np.ones((8, 1))), loss="mse", backend="jax", progress=False)


def test_whoever_reads_a_cell_that_a_step_uses_up_waits_for_it() -> None:
    class Gone:
        shape, dtype = (2,), np.dtype("float64")

        def __array__(self, *_: Any, **__: Any) -> Any:
            tried.set()
            raise RuntimeError("Array has been deleted")

    tried = threading.Event()
    cell = Cell(np.zeros(2))
    cell.write(Gone())  # type: ignore[arg-type]
    assert cell.type.shape == (2,)
    read: list[Any] = []
    reader = threading.Thread(target=lambda: read.append(cell.array))
    with lock_of([cell]):
        reader.start()
        assert tried.wait(10)
        cell.write(np.ones(2))
    reader.join(10)
    assert read[0].tolist() == [1.0, 1.0]
    cell.write(Gone())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="deleted"):
        _ = cell.array
