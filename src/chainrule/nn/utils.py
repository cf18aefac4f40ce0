"""What PyTorch's users look for in `nn.utils`: clipping of gradients, and all parameters as one vector."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from ..clipping import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from ..elsewhere import missing_in
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor
from ..tensor.manipulation import concat, reshaped
from ..transforms import no_grad


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All entries of all parameters, one after the other: shape (n,). Gradients pass.

    Raises ArgumentError without parameters.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.utils.parameters_to_vector([cr.ones(2, 2), cr.zeros(1)])
    tensor([1., 1., 1., 1., 0.])
    """
    given = list(parameters)
    if not given:
        raise ArgumentError("a vector needs at least one parameter; got none. Pass model.parameters()")
    return concat([reshaped(one, (one.size,)) for one in given])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Write the entries of a vector of shape (n,) into the parameters, which have n entries together.

    Raises ShapeError if the sizes differ, and then changes nothing.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> w = cr.zeros(2).requires_grad_()
    >>> nn.utils.vector_to_parameters(cr.tensor([1.0, 2.0]), [w]); w
    tensor([1., 2.], requires_grad=True)
    """
    given = list(parameters)
    total = sum(one.size for one in given)
    if vec.shape != (total,):
        raise ShapeError(
            f"vector_to_parameters needs a vector of all {total} entries; got shape {vec.shape}. Use "
            "parameters_to_vector of the same model"
        )
    start = 0
    with no_grad():
        for one in given:
            one.copy_(reshaped(vec[start : start + one.size], one.shape).astype(one.dtype))
            start += one.size


__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "parameters_to_vector",
    "vector_to_parameters",
]


def __getattr__(name: str) -> NoReturn:
    raise missing_in("nn.utils", name, __all__)
