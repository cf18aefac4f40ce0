"""What this machine could do at best, measured beside the engines: products, memory, calls.

The floor of a step is the products' operations at the best product rate, plus the bytes of parameters and moments at
the best rate for arrays of that size, plus one call: everything between is left out. It is a guide, no bound: small
products and arrays that stay in a cache can be quicker than the large ones that give the rates.
Knows our own kernels and NumPy's; knows nothing of rivals.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...runtime import compile
from ...tensor import Tensor
from ...tensor.creation import tensor
from ...transforms import no_grad
from .timing import Effort, in_turns
from .workloads import Workload

# Rows, columns and depth of the product: from this size on, rates do not grow.
_SIDE = 768
# A stream is at least so long, so that it takes longer than a call.
_SHORTEST = 1 << 16


def measure(workload: Workload, effort: Effort) -> dict[str, Any]:
    """Rates of this machine for the workload's dtype and size of state, and the floor of its step in seconds.

    `products`: operations a second; `memory`: bytes a second for parameters and moments; `call`: seconds.
    """
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((_SIDE, _SIDE)).astype(workload.dtype) for _ in range(2))
    size = max(_SHORTEST, workload.state_bytes // (2 * a.itemsize))
    w, g, one = np.zeros(size, a.dtype), np.ones(size, a.dtype), np.zeros(1, a.dtype)
    runs = {
        "call": _compiled(lambda x: x + 1, one),
        "products": _compiled(lambda x, y: x @ y, a, b),
        "products NumPy": lambda: a @ b,
        "memory": _stream(w, g),
        "memory NumPy": lambda: np.add(w, g, out=w),
    }
    samples = in_turns(runs, effort)
    # The best samples: a floor is what was possible, not what was usual.
    seconds = {name: min(found) for name, found in samples.items()}
    call = seconds["call"]
    # One call is no part of the work; NumPy's own is far shorter.
    work = {
        name: max(found - call, found / 10) if "NumPy" not in name else found
        for name, found in seconds.items()
    }
    operations, moved = 2 * _SIDE**3, 3 * size * a.itemsize
    products = {who: operations / work[f"products{suffix}"] for who, suffix in _WHO}
    memory = {who: moved / work[f"memory{suffix}"] for who, suffix in _WHO}
    floor = workload.flops / max(products.values()) + workload.state_bytes / max(memory.values()) + call
    return {"seconds": floor, "products": products, "memory": memory, "call": call}


_WHO = (("chainrule", ""), ("numpy", " NumPy"))


def _compiled(function: Any, *arrays: Any) -> Any:
    step, given = compile(function), [tensor(one) for one in arrays]
    return lambda: step(*given)


def _stream(w: Any, g: Any) -> Any:
    """One array is read and written, one is read: what an update does."""
    held = tensor(w, requires_grad=True)

    @compile
    def step(by: Tensor) -> None:
        with no_grad():
            held.copy_(held + by)

    given = tensor(g)
    return lambda: step(given)
