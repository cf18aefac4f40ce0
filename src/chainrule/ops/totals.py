"""How sums are kept while they grow: one rule for the interpreter, the compiler, and the bounds of the audit.

A float32 total that grows by one term after the other loses up to half a unit in its last place with each, and stops
growing at 2²⁴ times its terms. So long sums are added up in blocks, and the sums of the blocks in float64; products in
blocks of their common axis; and running totals are kept in float64 throughout.
Knows dtypes and numbers of terms; knows nothing of arrays, graphs or machine code.
"""

from __future__ import annotations

from ..dtypes import Dtype, float32, float64
from ..operations import Type

#: So many terms at most are added up one after the other, in their own type; rows of numbers, each in its own place.
BLOCK, ROWS = 256, 128
#: So many at most where the whole common axis of a convolution is not longer.
WHOLE_BLOCK = 512
#: The sums of so many blocks are added up in the product's own type; of more, in float64.
FEW_BLOCKS = 16
#: Libraries add up products of vectors in a few lanes from one end to the other: they are given products of so few
#: results in parts of the common axis, so long.
FEW_RESULTS, SHORT_COMMON = 4096, 512


def kept_in(dtype: Dtype, terms: int) -> Dtype:
    """The type in which the blocks of a sum of so many terms are added up: float64 for float32 if there are several."""
    return float64 if dtype == float32 and terms > ROWS else dtype


def running_in(dtype: Dtype) -> Dtype:
    """The type in which a running total is kept: each of its values is a result, the last one of all the terms."""
    return float64 if dtype == float32 else dtype


def running_type(type: Type) -> Type:
    """The type of a running total of values of a type."""
    return Type(type.shape, running_in(type.dtype))


def product_roundings(terms: int) -> int:
    """How often a term of a product over a common axis of so many terms is rounded at most."""
    return min(terms, WHOLE_BLOCK + 2 * FEW_BLOCKS)
