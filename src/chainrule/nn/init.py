"""How parameters start: PyTorch's initialisers, which write into a tensor and return it.

Random ones draw from `generator`, the default generator if none is given.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np

from ..elsewhere import missing_in
from ..errors import ArgumentError, ShapeError
from ..ops import NUMPY, quiet
from ..tensor import Tensor
from ..tensor.creation import full
from ..tensor.random import Generator, default_generator
from ..transforms import no_grad
from .quantiles import cumulative, quantile

# The gain that keeps the variance of activations: torch.nn.init.calculate_gain. Those of convolutions are 1.
_LINEAR = ("linear", *(f"conv{kind}{axes}d" for kind in ("", "_transpose") for axes in (1, 2, 3)))
_GAINS = dict.fromkeys((*_LINEAR, "sigmoid"), 1.0) | {"tanh": 5 / 3, "relu": math.sqrt(2.0), "selu": 3 / 4}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights before this activation function are scaled.

    nonlinearity: "linear", "sigmoid", "tanh", "relu", "selu" or "leaky_relu" (`param`: its slope, 0.01 by default);
    the names of convolutions count as linear. Raises ArgumentError for any other.

    >>> calculate_gain("relu") ** 2
    2.0000000000000004
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        known = [name for name in _GAINS if not name.startswith("conv")]
        raise ArgumentError(f"a gain is known for {', '.join(known)} and leaky_relu; got {nonlinearity!r}")
    return _GAINS[nonlinearity]


def _fans(tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim < 2:
        raise ShapeError(f"this initialisation needs a weight of two or more axes; got {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _write(tensor: Tensor, values: Any) -> Tensor:
    with no_grad():
        return tensor.copy_(values)


def _write_array(tensor: Tensor, values: Any) -> Tensor:
    """Numbers computed in float64, rounded to the tensor's type."""
    with quiet():
        return _write(tensor, NUMPY.cast(np.asarray(values), tensor.dtype))


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Numbers spread evenly over a ≤ x < b.

    >>> import chainrule as cr
    >>> drawn = uniform_(cr.zeros(100), -1.0, 1.0)
    >>> bool((cr.abs(drawn) <= 1).all()), len(set(drawn.tolist())) > 90
    (True, True)
    """
    return _write(tensor, (generator or default_generator).uniform(tensor.shape, a, b, tensor.dtype))


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Normally distributed numbers.

    >>> import chainrule as cr
    >>> drawn = normal_(cr.zeros(1000), mean=5.0, std=0.01, generator=cr.Generator(0))
    >>> round(drawn.mean().item(), 2)
    5.0
    """
    return _write(tensor, (generator or default_generator).normal(tensor.shape, mean, std, tensor.dtype))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """The same number everywhere.

    >>> import chainrule as cr
    >>> constant_(cr.zeros(2), 0.5).tolist()
    [0.5, 0.5]
    """
    return _write(tensor, full(tensor.shape, val, dtype=tensor.dtype))


def zeros_(tensor: Tensor) -> Tensor:
    """Zeros.

    >>> from chainrule import nn
    >>> nn.init.zeros_(nn.Linear(3, 2).bias).tolist()
    [0.0, 0.0]
    """
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Ones.

    >>> import chainrule as cr
    >>> ones_(cr.zeros(2)).tolist()
    [1.0, 1.0]
    """
    return constant_(tensor, 1.0)


def eye_(tensor: Tensor) -> Tensor:
    """The identity: 1 on the diagonal of a matrix, 0 elsewhere.

    >>> import chainrule as cr
    >>> eye_(cr.zeros((2, 3))).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    return _write_array(tensor, np.eye(*_matrix("eye_", tensor)))


def _matrix(name: str, tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim != 2:
        raise ShapeError(f"{name} needs a matrix; got shape {tensor.shape}. Reshape it")
    return tensor.shape[0], tensor.shape[1]


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution weight (out, in, sizes …) that passes as many channels on unchanged as it can, in each group.

    >>> import chainrule as cr
    >>> dirac_(cr.zeros((1, 1, 3))).tolist()
    [[[0.0, 1.0, 0.0]]]
    """
    if tensor.ndim not in (3, 4, 5):
        raise ShapeError(f"dirac_ needs a weight of three to five axes; got {tensor.shape}")
    channels = tensor.shape[0]
    if groups < 1 or channels % groups:
        raise ArgumentError(f"dirac_ needs groups that divide {channels} channels; got groups={groups}")
    values = np.zeros(tensor.shape)
    middle = tuple(size // 2 for size in tensor.shape[2:])
    each = channels // groups
    for group in range(groups):
        for k in range(min(each, tensor.shape[1])):
            values[(group * each + k, k, *middle)] = 1
    return _write_array(tensor, values)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """U(−b, b) with b = gain·√(6 / (fan in + fan out)) (Glorot and Bengio, 2010).

    >>> import chainrule as cr
    >>> bool((cr.abs(xavier_uniform_(cr.zeros((2, 4)))) <= 1).all())
    True
    """
    bound = gain * math.sqrt(6.0 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """N(0, gain²·2 / (fan in + fan out)) (Glorot and Bengio, 2010).

    >>> import chainrule as cr
    >>> drawn = xavier_normal_(cr.zeros((100, 100)), generator=cr.Generator(0))
    >>> round(cr.std(drawn).item(), 2)  # √(2 / 200)
    0.1
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(_fans(tensor))), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f"mode must be 'fan_in' or 'fan_out'; got {mode!r}")
    return calculate_gain(nonlinearity, a) / math.sqrt(_fans(tensor)[mode == "fan_out"])


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """U(−b, b) with b = gain·√(3 / fan) (He and others, 2015); `a` is the slope of a leaky ReLU.

    >>> from chainrule import nn
    >>> weight = nn.init.kaiming_uniform_(nn.Conv2d(6, 8, 1).weight, nonlinearity="relu")
    >>> bool((weight.detach() ** 2 <= 1).all())  # b = √2·√(3 / 6)
    True
    """
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """N(0, gain² / fan) (He and others, 2015); `a` is the slope of a leaky ReLU.

    >>> import chainrule as cr
    >>> drawn = kaiming_normal_(cr.zeros((50, 200)), nonlinearity="relu", generator=cr.Generator(0))
    >>> round(cr.std(drawn).item(), 2)  # √2 / √200
    0.1
    """
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Normally distributed numbers, of which only those with a ≤ x ≤ b are drawn.

    Each is the quantile of a number spread evenly between the probabilities of the bounds, so the distribution is
    right however far out the bounds are. Raises ArgumentError unless a < b and std > 0.

    >>> import chainrule as cr
    >>> values = trunc_normal_(cr.zeros(1000), std=2.0)
    >>> -2.0 <= values.min().item() and values.max().item() <= 2.0
    True
    """
    if not a < b or not 0 < std < math.inf:
        raise ArgumentError(f"trunc_normal_ needs a < b and a positive std; got a={a}, b={b}, std={std}")
    low, high = (a - mean) / std, (b - mean) / std
    mirrored = low > 0  # probabilities keep their digits in the lower tail only
    if mirrored:
        low, high = -high, -low
    below, above = cumulative(low), cumulative(high)
    even = (generator or default_generator).uniform(tensor.shape, dtype="float64").numpy()
    values = quantile(below + (above - below) * even) if above > 0 else np.full(tensor.shape, high)
    with quiet():
        spread = np.clip(mean + std * (-values if mirrored else values), a, b)
    return _write(tensor, _inside(NUMPY.cast(spread, tensor.dtype), a, b))


def _inside(values: Any, low: float, high: float) -> Any:
    """Rounding to the tensor's type must not pass the bounds."""
    kind = values.dtype.type
    least, most = kind(low), kind(high)
    least = np.nextafter(least, kind(math.inf)) if least < low else least
    most = np.nextafter(most, kind(-math.inf)) if most > high else most
    return np.clip(values, least, most)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """A (semi-)orthogonal matrix times `gain`; axes behind the first are taken as one.

    Rows (or columns, if there are more rows) are orthogonal and of length `gain`, in a direction spread evenly.
    Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning …", 2013; the signs as in
    Mezzadri, "How to generate random matrices from the classical compact groups", 2007.

    >>> import chainrule as cr
    >>> w = orthogonal_(cr.zeros((2, 3)))
    >>> bool((cr.abs(w @ w.T - cr.eye(2)) < 1e-6).all())
    True
    """
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_ needs two or more axes; got {tensor.shape}")
    if not tensor.size:
        return tensor
    rows = tensor.shape[0]
    columns = tensor.size // rows
    draws = (generator or default_generator).normal((rows, columns), dtype="float64").numpy()
    q, r = np.linalg.qr(draws if rows >= columns else draws.T)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return _write_array(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """N(0, std²), of which the share `sparsity` of each column (rounded up) is 0.

    Martens, "Deep learning via Hessian-free optimization", 2010.

    >>> import chainrule as cr
    >>> cr.count_nonzero(sparse_(cr.zeros((10, 3)), 0.25), axis=0).tolist()
    [7, 7, 7]
    """
    rows, columns = _matrix("sparse_", tensor)
    if not 0 <= sparsity <= 1:
        raise ArgumentError(f"sparse_ needs a share from 0 to 1 as sparsity; got {sparsity}")
    source = generator or default_generator
    values = source.normal(tensor.shape, 0.0, std, "float64").numpy()
    order = np.argsort(source.uniform((rows, columns), dtype="float64").numpy(), axis=0, kind="stable")
    np.put_along_axis(values, order[: math.ceil(sparsity * rows)], 0.0, axis=0)
    return _write_array(tensor, values)


def __getattr__(name: str) -> NoReturn:
    raise missing_in("nn.init", name, globals())
