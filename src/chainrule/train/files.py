"""State in a file, written so that a crash tears nothing, and read back with every bit or not at all.

Numbers are kept in the safetensors format, which holds numbers only, so opening a file never runs code. The format
has no checksum, so one is put into its metadata and looked at when the file is read. A dict of tensors has the very
names that PyTorch's safetensors reads; what else a nested state has stands beside them in the metadata, as JSON.
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

from ..errors import ArgumentError, DtypeError, RunError
from ..files import replace_file
from ..graph import constant
from ..tensor import Tensor, wrap
from .state import as_saved, put_together, take_apart

Array = NDArray[Any]
Path = str | os.PathLike[str]

# The one entry of metadata: of a dict of tensors, and of anything else.
_CHECKSUM, _STATE = "sha256", "chainrule"

# The names of types in the format; float16 and bfloat16 are read as float32, which holds all their numbers.
_TYPES = {
    "BOOL": "?", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "u1", "U16": "<u2", "U32": "<u4",
    "U64": "<u8", "F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip


def save(path: Path, state: Any) -> None:
    """Write a state to a safetensors file; the old file stays until the new one is whole and on the disk.

    state: what `state_dict()` gives, or dicts, lists and tuples of tensors, arrays, numbers, texts, bools and None:
    `cr.save(path, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3})`. The two arguments
    may come in PyTorch's order too. Raises ArgumentError, which names the place, for anything else in the state, and
    RunError where the file cannot be written.

    >>> import tempfile, os, chainrule as cr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     name = os.path.join(folder, "state.safetensors")
    ...     save(name, {"model": {"weight": cr.ones(2)}, "epoch": 3})
    ...     load(name)
    {'model': {'weight': tensor([1., 1.])}, 'epoch': 3}
    """
    if isinstance(state, str | os.PathLike) and not isinstance(path, str | os.PathLike):
        path, state = state, path
    if not isinstance(path, str | os.PathLike) or isinstance(state, str | os.PathLike):
        raise ArgumentError(
            f"save needs a path and a state; got {type(path).__name__} and {type(state).__name__}. Write "
            "cr.save(path, model.state_dict())"
        )
    write_file(path, to_bytes(state))


def load(path: Path) -> Any:
    """The state in a file that `save` wrote, or the tensors of any safetensors file in the order of the file.

    Tensors and arrays come back as tensors, float16 and bfloat16 as float32, named tuples as tuples.
    Raises RunError for a file that is missing, no safetensors file, damaged, or changed since `save` wrote it.
    """
    if not isinstance(path, str | os.PathLike):
        raise ArgumentError(f"load needs a path; got {type(path).__name__}. Write cr.load(path)")
    return from_bytes(read_file(path), os.fspath(path))


def to_bytes(state: Any) -> bytes:
    """The content of a safetensors file, with a checksum of names, types, numbers and structure."""
    from safetensors.numpy import save as encode

    if _is_flat(state):
        arrays = {name: as_saved(name, value) for name, value in state.items()}
        # One entry only: the library writes several in an order that differs from run to run.
        return _encoded(encode, arrays, {_CHECKSUM: _digest(arrays)})
    arrays, skeleton = take_apart(state)
    text = json.dumps(skeleton, separators=(",", ":"))
    record = json.dumps({_CHECKSUM: _digest(arrays, text), "state": text})
    return _encoded(encode, arrays, {_STATE: record})


def _encoded(encode: Any, arrays: dict[str, Array], metadata: dict[str, str]) -> bytes:
    from safetensors import SafetensorError

    try:
        result: bytes = encode(arrays, metadata)
    except SafetensorError as error:
        raise ArgumentError(f"save needs a state that a safetensors file can hold; got {error}") from error
    return result


def _is_flat(state: Any) -> bool:
    """Whether a state is a dict of tensors by names that the format can have."""
    return isinstance(state, Mapping) and all(
        isinstance(name, str)
        and name != "__metadata__"
        and name.isprintable()
        and isinstance(value, Tensor | np.ndarray)
        for name, value in state.items()
    )


# --------------------------------------------------------------------------------------- reading


def from_bytes(data: bytes, name: str) -> Any:
    """The state in the content of a file; `name` is for messages."""
    arrays, metadata = _decoded(data, name)
    tensors = {one: wrap(constant(array)) for one, array in arrays.items()}
    record = _state_record(metadata, name)
    if record is None:
        if _CHECKSUM in metadata and metadata[_CHECKSUM] != _digest(arrays):
            raise _changed(name)
        return tensors
    try:
        text = record["state"]
        if record[_CHECKSUM] != _digest(arrays, text):
            raise _changed(name)
        return put_together(json.loads(text), tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, RunError):
            raise
        raise _changed(name) from error


def _decoded(data: bytes, name: str) -> tuple[dict[str, Array], dict[str, str]]:
    """(arrays in the order of the file, metadata); the library checks that the parts fill the file."""
    from safetensors import SafetensorError, deserialize

    try:
        parts = dict(deserialize(data))  # type: ignore[no-untyped-call]
        (size,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + size])
        metadata = dict(header.pop("__metadata__", None) or {})
        order = sorted(header, key=lambda one: (header[one]["data_offsets"], one))
        return {one: _array(one, parts[one], name) for one in order}, metadata
    except (
        SafetensorError, struct.error, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        if isinstance(error, DtypeError):
            raise
        shown = str(error) or type(error).__name__
        raise RunError(
            f"load needs a whole safetensors file; got {name!r}: {shown}{_other_format(data)}. Use another copy"
        ) from error


def _other_format(data: bytes) -> str:
    """What the file is by its first bytes, where that is known."""
    if data[:2] == b"PK":
        return ", which looks like a file of torch.save or numpy.savez: write it with safetensors"
    if data[:6] == b"\x93NUMPY":
        return ", which is a file of numpy.save: read it with numpy.load"
    return ""


def _array(name: str, part: dict[str, Any], file: str) -> Array:
    if part["dtype"] not in _TYPES:
        raise DtypeError(
            f"load has no dtype {part['dtype']}; got it for {name!r} in {file!r}. Convert it to float32"
        )
    array = np.frombuffer(part["data"], dtype=_TYPES[part["dtype"]]).reshape(part["shape"])
    if part["dtype"] == "BF16":
        return np.asarray((array.astype(np.uint32) << 16).view(np.float32))
    if part["dtype"] == "F16":
        return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="))


def _state_record(metadata: Mapping[str, str], name: str) -> dict[str, Any] | None:
    """The structure of a nested state; None for a dict of tensors. A damaged name of the entry does not hide it."""
    for key, text in metadata.items():
        if key != _STATE and not text.startswith(f'{{"{_CHECKSUM}": "'):
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _changed(name) from error
        if key != _STATE or not isinstance(record, dict):
            raise _changed(name)
        return record
    return None


def _changed(name: str) -> RunError:
    return RunError(
        f"load needs a file as it was saved; got {name!r}, whose numbers do not match its checksum. "
        "Use another copy, or train again"
    )


def _digest(arrays: Mapping[str, Array], skeleton: str | None = None) -> str:
    found = hashlib.sha256() if skeleton is None else hashlib.sha256(f"{skeleton}\0".encode())
    for name in sorted(arrays):
        array = arrays[name]
        found.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
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
