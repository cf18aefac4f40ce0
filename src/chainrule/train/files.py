"""Tensors by their names in a file, written so that a crash tears nothing.

Tensors are kept in the safetensors format, which holds numbers only, so opening a file never runs code. The
format has no checksum, so one is put into its metadata and looked at when the file is read.
Knows nothing of modules and of training.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dtypes import ALL, float32
from ..errors import ArgumentError, DtypeError, RunError
from ..files import replace_file
from ..graph import constant
from ..tensor import Tensor, wrap

Array = NDArray[Any]
Path = str | os.PathLike[str]

_CHECKSUM = "sha256"


def save(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write tensors (or arrays) by their names to a safetensors file; the old file stays until the new one is whole.

    Raises ArgumentError for anything but a flat dict of tensors, RunError where the file cannot be written.

    >>> import tempfile, os, chainrule as cr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     name = os.path.join(folder, "model.safetensors")
    ...     save(name, {"weight": cr.ones(2)})
    ...     load(name)
    {'weight': tensor([1., 1.])}
    """
    if not isinstance(tensors, Mapping):
        raise ArgumentError(
            f"save needs a path and then a dict of tensors; got {type(tensors).__name__}. Write "
            "cr.save(path, model.state_dict())"
        )
    write_file(path, to_bytes(tensors))


def load(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, in the order of the file. float16 becomes float32.

    Raises RunError for a file that is missing, no safetensors file, damaged, or changed since `save` wrote it.
    """
    return from_bytes(read_file(path), os.fspath(path))


def to_bytes(tensors: Mapping[str, Any]) -> bytes:
    """The content of a safetensors file, with a checksum of names, types and numbers."""
    from safetensors.numpy import save as encode

    arrays = {_checked_name(name): _to_array(name, value) for name, value in tensors.items()}
    # One entry only: the library writes several in an order that differs from run to run.
    result: bytes = encode(arrays, {_CHECKSUM: _digest(arrays)})
    return result


def from_bytes(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors in the content of a safetensors file; `name` is for messages."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as decode

    try:
        (size,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + size])
        arrays: dict[str, Array] = decode(data)
        metadata = header.pop("__metadata__", {})
        order = sorted(header, key=lambda one: header[one]["data_offsets"])
    except (SafetensorError, struct.error, ValueError, KeyError, TypeError, OverflowError) as error:
        raise RunError(
            f"load needs a whole safetensors file; got {name!r}: {error or type(error).__name__}. Use another copy"
        ) from error
    if _CHECKSUM in metadata and metadata[_CHECKSUM] != _digest(arrays):
        raise RunError(
            f"load needs a file as it was saved; got {name!r}, whose numbers do not match its checksum. "
            "Use another copy, or train again"
        )
    return {one: wrap(constant(_own_dtype(one, arrays[one]))) for one in order}


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or name == "__metadata__":
        raise ArgumentError(f"save needs names that are texts; got {name!r}")
    return name


def _to_array(name: str, value: Any) -> Array:
    array = value.detach().numpy() if isinstance(value, Tensor) else value
    if not isinstance(array, np.ndarray | np.generic) or array.dtype not in ALL:
        raise ArgumentError(
            f"save needs tensors or arrays; got {type(value).__name__} for {name!r}. Nested dicts are saved one by one"
        )
    return np.array(array, order="C")


def _own_dtype(name: str, array: Array) -> Array:
    if array.dtype == np.float16:
        return array.astype(float32)
    if array.dtype not in ALL:
        raise DtypeError(f"load has no dtype {array.dtype}; got it for {name!r}. Convert the file to float32")
    return array


def _digest(arrays: Mapping[str, Array]) -> str:
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        found.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        found.update(array.tobytes())
    return found.hexdigest()


# --------------------------------------------------------------------------------------- files and folders


def readable(name: str) -> str:
    """A file's name as text to print or store, also where the locale knows no more than ASCII."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def read_file(path: Path) -> bytes:
    """The content of a file; RunError says why there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise RunError(
            f"a readable file is needed; got {os.fspath(path)!r}: {error.strerror}. Check the path"
        ) from error


def write_file(path: Path, data: bytes) -> None:
    """Write beside the place, flush to the disk, rename; RunError says why it failed, and the old file stays."""
    try:
        replace_file(path, data)
    except OSError as error:
        raise RunError(
            f"a place to write a file to is needed; got {os.fspath(path)!r}: {error.strerror}. Check the folder, its "
            "permissions and the free space"
        ) from error
