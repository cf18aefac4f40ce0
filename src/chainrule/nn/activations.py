"""Activations as layers: the functions of `functional` where a Sequential needs a module.

`inplace` is accepted for the sake of code written for PyTorch: tensors are never overwritten, so it changes nothing.
"""

from __future__ import annotations

from typing import Any

from .. import functional
from ..functional.activations import APPROXIMATIONS, check_beta, check_bounds
from ..functional.checks import check_choice, check_number
from ..functional.composite import one_axis
from ..tensor import Tensor
from .module import Module


class _InPlace(Module):
    """A layer without options but `inplace`."""

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def extra_repr(self) -> str:
        """Whether it was asked to work in place."""
        return ", ".join([*self._options(), *(["inplace=True"] if self.inplace else [])])

    def _options(self) -> list[str]:
        return []


class ReLU(_InPlace):
    """max(x, 0), elementwise; its slope at 0 is 0.

    >>> import chainrule as cr
    >>> ReLU()(cr.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def forward(self, x: Any) -> Tensor:
        """max(x, 0)."""
        return functional.relu(x)


class ReLU6(_InPlace):
    """x from 0 to 6, cut off beyond, elementwise; see `functional.relu6`.

    >>> ReLU6()(9.0).item()
    6.0
    """

    def forward(self, x: Any) -> Tensor:
        """min(max(x, 0), 6)."""
        return functional.relu6(x)


class LeakyReLU(_InPlace):
    """x above 0, `negative_slope`·x elsewhere, elementwise; see `functional.leaky_relu`.

    >>> import chainrule as cr
    >>> LeakyReLU(0.5)(cr.tensor([-2.0, 3.0]))
    tensor([-1.,  3.])
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = check_number("LeakyReLU", "negative_slope", negative_slope)

    def forward(self, x: Any) -> Tensor:
        """x, or `negative_slope`·x."""
        return functional.leaky_relu(x, self.negative_slope)

    def _options(self) -> list[str]:
        return [f"negative_slope={self.negative_slope}"]


class ELU(_InPlace):
    """x above 0, `alpha`·(eˣ − 1) elsewhere, elementwise; see `functional.elu`.

    >>> import chainrule as cr
    >>> ELU(alpha=2.0)(cr.tensor([-1e4, 3.0]))
    tensor([-2.,  3.])
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = check_number("ELU", "alpha", alpha)

    def forward(self, x: Any) -> Tensor:
        """x, or `alpha`·(eˣ − 1)."""
        return functional.elu(x, self.alpha)

    def _options(self) -> list[str]:
        return [f"alpha={self.alpha}"]


class CELU(_InPlace):
    """x above 0, `alpha`·(e^(x/alpha) − 1) elsewhere, elementwise; see `functional.celu`.

    >>> import chainrule as cr
    >>> CELU(alpha=2.0)(cr.tensor([-1e4, 3.0]))
    tensor([-2.,  3.])
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = check_number("CELU", "alpha", alpha, above=0)

    def forward(self, x: Any) -> Tensor:
        """x, or `alpha`·(e^(x/alpha) − 1)."""
        return functional.celu(x, self.alpha)

    def _options(self) -> list[str]:
        return [f"alpha={self.alpha}"]


class SELU(_InPlace):
    """λ·elu(x, α), elementwise, keeps mean 0 and variance 1 from layer to layer; see `functional.selu`.

    >>> round(SELU()(1.0).item(), 4)
    1.0507
    """

    def forward(self, x: Any) -> Tensor:
        """λ·elu(x, α)."""
        return functional.selu(x)


class GELU(Module):
    """x·Φ(x), elementwise, with Φ by the error function or (approximate="tanh") by tanh; see `functional.gelu`.

    >>> round(GELU(approximate="tanh")(1.0).item(), 4)
    0.8412
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = check_choice("approximate", approximate, APPROXIMATIONS)

    def forward(self, x: Any) -> Tensor:
        """x·Φ(x)."""
        return functional.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        """How Φ is computed."""
        return f"approximate={self.approximate!r}"


class SiLU(_InPlace):
    """x·sigmoid(x), elementwise; see `functional.silu`.

    >>> round(SiLU()(1.0).item(), 4)
    0.7311
    """

    def forward(self, x: Any) -> Tensor:
        """x·sigmoid(x)."""
        return functional.silu(x)


class Mish(_InPlace):
    """x·tanh(log(1 + eˣ)), elementwise; see `functional.mish`.

    >>> round(Mish()(1.0).item(), 4)
    0.8651
    """

    def forward(self, x: Any) -> Tensor:
        """x·tanh(log(1 + eˣ))."""
        return functional.mish(x)


class Softplus(Module):
    """log(1 + e^(beta·x)) / beta, elementwise, and x where beta·x > `threshold`; see `functional.softplus`.

    >>> round(Softplus()(0.0).item(), 4)
    0.6931
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta = check_beta(beta)
        self.threshold = check_number("Softplus", "threshold", threshold)

    def forward(self, x: Any) -> Tensor:
        """log(1 + e^(beta·x)) / beta."""
        return functional.softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """Steepness, and where it becomes a line."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ), elementwise.

    >>> Sigmoid()(0.0).item()
    0.5
    """

    def forward(self, x: Any) -> Tensor:
        """1 / (1 + e⁻ˣ)."""
        return functional.sigmoid(x)


class LogSigmoid(Module):
    """log(sigmoid(x)), elementwise, without overflow; see `functional.logsigmoid`.

    >>> LogSigmoid()(-1e4).item()
    -10000.0
    """

    def forward(self, x: Any) -> Tensor:
        """log(sigmoid(x))."""
        return functional.logsigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent, elementwise.

    >>> Tanh()(0.0).item()
    0.0
    """

    def forward(self, x: Any) -> Tensor:
        """tanh x."""
        return functional.tanh(x)


class Hardtanh(_InPlace):
    """x between `min_val` and `max_val`, cut off beyond, elementwise; see `functional.hardtanh`.

    >>> Hardtanh(-2.0, 2.0)(3.0).item()
    2.0
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        check_bounds("Hardtanh", min_val, max_val)
        self.min_val, self.max_val = min_val, max_val

    def forward(self, x: Any) -> Tensor:
        """min(max(x, min_val), max_val)."""
        return functional.hardtanh(x, self.min_val, self.max_val)

    def _options(self) -> list[str]:
        return [f"min_val={self.min_val}, max_val={self.max_val}"]


class Hardsigmoid(_InPlace):
    """(x + 3) / 6 from −3 to 3, 0 below and 1 above, elementwise; see `functional.hardsigmoid`.

    >>> Hardsigmoid()(0.0).item()
    0.5
    """

    def forward(self, x: Any) -> Tensor:
        """(x + 3) / 6, cut off at 0 and 1."""
        return functional.hardsigmoid(x)


class Hardswish(_InPlace):
    """x·hardsigmoid(x), elementwise; see `functional.hardswish`.

    >>> Hardswish()(4.0).item()
    4.0
    """

    def forward(self, x: Any) -> Tensor:
        """x·hardsigmoid(x)."""
        return functional.hardswish(x)


class _AlongAxis(Module):
    """A layer that works along one axis, the last by default."""

    def __init__(self, dim: int | None = None, *, axis: int | None = None) -> None:
        self.dim = one_axis(axis, dim)

    def extra_repr(self) -> str:
        """The axis."""
        return f"dim={self.dim}"


class Softmax(_AlongAxis):
    """eˣ / Σ eˣ along `dim` (`axis` means the same), the last axis by default; see `functional.softmax`.

    >>> import chainrule as cr
    >>> Softmax(dim=1)(cr.zeros((1, 2)))
    tensor([[0.5, 0.5]])
    """

    def forward(self, x: Any) -> Tensor:
        """eˣ / Σ eˣ."""
        return functional.softmax(x, self.dim)


class LogSoftmax(_AlongAxis):
    """log of `Softmax`, computed without overflow; see `functional.log_softmax`.

    >>> import chainrule as cr
    >>> LogSoftmax(dim=1)(cr.tensor([[0.0, -1e4]])).tolist()
    [[0.0, -10000.0]]
    """

    def forward(self, x: Any) -> Tensor:
        """x − log Σ eˣ."""
        return functional.log_softmax(x, self.dim)


class Softmin(_AlongAxis):
    """e⁻ˣ / Σ e⁻ˣ along `dim` (`axis` means the same), the last axis by default; see `functional.softmin`.

    >>> import chainrule as cr
    >>> Softmin(dim=0)(cr.tensor([0.0, 1e4]))
    tensor([1., 0.])
    """

    def forward(self, x: Any) -> Tensor:
        """e⁻ˣ / Σ e⁻ˣ."""
        return functional.softmin(x, self.dim)
