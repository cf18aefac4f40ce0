"""Linear algebra under the names of the array API's extension `linalg`: the part of it that is offered.

Nothing here decomposes a matrix: there are products, transposes and norms.
"""

from typing import NoReturn

from .elsewhere import checked_call, missing_in
from .tensor import manipulation as _manipulation
from .tensor import norms as _norms
from .tensor import products as _products

matrix_norm, vector_norm = checked_call(_norms.matrix_norm), checked_call(_norms.vector_norm)
matmul, outer, tensordot, vecdot = map(
    checked_call, (_products.matmul, _products.outer, _products.tensordot, _products.vecdot)
)
matrix_transpose = checked_call(_manipulation.matrix_transpose)

__all__ = ["matmul", "matrix_norm", "matrix_transpose", "outer", "tensordot", "vecdot", "vector_norm"]


def __getattr__(name: str) -> NoReturn:
    raise missing_in("linalg", name, __all__)
