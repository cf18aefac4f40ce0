"""Arrays of numbers out of what users have: tensors, arrays, lists, tables; and faults in them told by place.

A fault is told by the name of its leaf, its row and its column: `X['image']`, row 7, column 'age'.
Knows nothing of batches, models and losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..tensor import Tensor

Array = NDArray[Any]

_NUMBERS = "biuf"


def as_array(data: Any, name: str) -> Array:
    """The numbers of a tensor, array, DataFrame, Series or nested list, with at least one row, all of them finite.

    Bools and integers keep their dtype; float16 becomes float32. `name` is what messages call the data.
    Raises DataError for texts, ragged lists, no rows, NaN and infinity.

    >>> as_array([[1, 2], [3, 4]], "X").dtype
    dtype('int64')
    """
    columns = None
    if _is_table(data):
        columns = [repr(one) for one in data.columns]
        array = _table(data, name)
    elif _is_series(data):
        array = _column(data, name, "")
    else:
        array = _plain(data, name)
    if not array.ndim or not array.shape[0]:
        shown = f"shape {array.shape}" if array.ndim else f"{type(data).__name__} {data!r:.40}"
        raise DataError(f"{name} needs rows; got {shown}. Check how the data were read")
    refuse_non_finite(array, name, columns)
    return array


def map_leaves(tree: Any, function: Callable[[Any, str], Any], name: str) -> Any:
    """`function(leaf, its name)` for every leaf. Tuples and dicts are branches; a list is one leaf: rows of data.

    >>> map_leaves({"a": 1, "b": (2, 3)}, lambda leaf, name: name, "X")
    {'a': "X['a']", 'b': ("X['b'][0]", "X['b'][1]")}
    """
    if isinstance(tree, dict):
        return {key: map_leaves(one, function, f"{name}[{key!r}]") for key, one in tree.items()}
    if isinstance(tree, tuple):
        parts = [map_leaves(one, function, f"{name}[{place}]") for place, one in enumerate(tree)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return function(tree, name)


def named_leaves(tree: Any, name: str) -> list[tuple[str, Any]]:
    """(name, leaf) of every leaf, in order.

    >>> named_leaves((1, 2), "X")
    [('X[0]', 1), ('X[1]', 2)]
    """
    found: list[tuple[str, Any]] = []
    map_leaves(tree, lambda leaf, place: found.append((place, leaf)), name)
    return found


def as_arrays(tree: Any, name: str) -> Any:
    """`as_array` of every leaf of a tuple or dict; all leaves must have as many rows.

    >>> as_arrays({"a": [1, 2], "b": [[1.0], [2.0]]}, "X")["b"].shape
    (2, 1)
    """
    arrays = map_leaves(tree, as_array, name)
    count_rows(named_leaves(arrays, name))
    return arrays


def count_rows(leaves: Sequence[tuple[str, Array]]) -> int:
    """The number of rows that all leaves have. Raises DataError, which names two leaves that differ."""
    if not leaves:
        raise DataError("data need at least one array; got none. Check how they were made")
    first, rows = leaves[0][0], len(leaves[0][1])
    for name, array in leaves[1:]:
        if len(array) != rows:
            raise DataError(
                f"{first} and {name} need as many rows; got {rows} and {len(array)}. Check how they were made"
            )
    return rows


def refuse_non_finite(array: Array, name: str, columns: Sequence[str] | None = None) -> None:
    """Raise DataError with row and column of the first NaN or infinity."""
    if array.dtype.kind != "f" or not array.size or np.isfinite(array).all():
        return
    bad = ~np.isfinite(array)
    row, *rest = (int(one) for one in np.unravel_index(int(bad.argmax()), array.shape))
    place = f"row {row}"
    if len(rest) == 1:
        place += f", column {columns[rest[0]] if columns is not None else rest[0]}"
    elif rest:
        place += f", place ({', '.join(map(str, rest))})"
    rows = int(bad.reshape(len(array), -1).any(axis=1).sum())
    raise DataError(
        f"{name} needs finite numbers; got {array[(row, *rest)]} in {place} ({rows} of {len(array)} rows have such "
        "values). Fill them or leave the rows out"
    )


# ------------------------------------------------------------------------------- tables


def _is_table(data: Any) -> bool:
    return hasattr(data, "columns") and hasattr(data, "iloc")


def _is_series(data: Any) -> bool:
    return hasattr(data, "iloc") and hasattr(data, "to_numpy")


def _table(frame: Any, name: str) -> Array:
    width = len(frame.columns)
    if not width:
        raise DataError(f"{name} needs columns; got a table with none. Check how it was read")
    columns = [_column(frame.iloc[:, place], name, repr(frame.columns[place])) for place in range(width)]
    result = np.empty((len(frame), width), np.result_type(*columns))
    for place, one in enumerate(columns):
        result[:, place] = one
    return result


def _column(series: Any, name: str, column: str) -> Array:
    """One column's numbers; where a value is missing, NaN."""
    values = np.asarray(series)
    if values.dtype.kind in _NUMBERS:
        return _own_dtype(values)
    try:
        # What pandas calls Int64, boolean and Float64, and objects that are numbers, with their missing values.
        if values.dtype.kind == "O" and str(series.dtype) != "category":
            return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError):
        pass
    shown = next((repr(one) for one in series.dropna().tolist() if not isinstance(one, float)), "nothing")
    where = f" in column {column}" if column else ""
    raise DataError(
        f"{name} needs numbers; got {series.dtype} such as {shown}{where}. {_advice(name, column)}"
    )


# ------------------------------------------------------------------------------- arrays and lists


def _lengths(data: Any, error: Exception) -> str:
    """What is uneven: the first two rows of different lengths, or NumPy's words."""
    rows = list(data) if isinstance(data, list | tuple) else []
    sizes = [len(row) if isinstance(row, list | tuple | np.ndarray) else 1 for row in rows]
    other = next((place for place, size in enumerate(sizes) if size != sizes[0]), None)
    if other is not None:
        return f"{sizes[0]} in row 0 and {sizes[other]} in row {other}"
    if rows and isinstance(rows[0], list | tuple):
        return f"a {type(data).__name__} of rows such as ({', '.join(type(one).__name__ for one in rows[0][:4])})"
    return f"{type(data).__name__}: {str(error).rstrip('.')}"


def _plain(data: Any, name: str) -> Array:
    try:
        array = data.detach().numpy() if isinstance(data, Tensor) else np.asarray(data)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            f"{name} needs rows of one length; got {_lengths(data, error)}. Pad the rows, or give several arrays as a "
            "tuple or dict: (X, y), not a list of pairs"
        ) from error
    if isinstance(data, np.ma.MaskedArray):
        array = np.ma.filled(data.astype(np.result_type(data.dtype, np.float32)), np.nan)
    if array.dtype.kind == "O":
        array = _objects(array, name)
    if array.dtype.kind not in _NUMBERS:
        shown = next((repr(one) for one in array.reshape(-1)[:1].tolist()), "nothing")
        raise DataError(f"{name} needs numbers; got {array.dtype} such as {shown}. {_advice(name, '')}")
    return _own_dtype(array)


def _objects(array: Array, name: str) -> Array:
    """Objects that are numbers, as float64; else as they are."""
    if array.ndim == 0 and hasattr(array.item(), "toarray"):
        raise DataError(
            f"{name} needs a dense array; got {type(array.item()).__name__}. Write {name}.toarray()"
        )
    if any(isinstance(one, str) for one in array.reshape(-1)[:1].tolist()):
        return array
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        return array


def _own_dtype(array: Array) -> Array:
    """The array in a dtype that tensors have, in the machine's own byte order."""
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _advice(name: str, column: str) -> str:
    if name == "y" or name.startswith("y["):
        return "Encode them: classes, y = np.unique(y, return_inverse=True)"
    if column:
        return (
            f"Encode it: X = pandas.get_dummies(X, columns=[{column}]); `chainrule train` does it for tables"
        )
    return "Encode texts as numbers first; `chainrule train` does it for tables"
