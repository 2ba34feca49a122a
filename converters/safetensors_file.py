"""One file in the safetensors format: eight bytes of header length, JSON, data."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from arkinfer.errors import DamagedCheckpointError

# The format's own limit on its header.
_LONGEST_HEADER = 100_000_000

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}

_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8}
_BITS |= {"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8}
_BITS |= {"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32}
_BITS |= {"I64": 64, "U64": 64, "F64": 64, "C64": 64}


@dataclass(frozen=True)
class Entry:
    """One tensor: where its bytes are in the file, and how to read them."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def read(self, rows: slice) -> NDArray[Any]:
        """Map consecutive rows of a tensor whose dtype is in :data:`DTYPES`.

        The mapping ends with the last reference to the result.

        Raises:
            DamagedCheckpointError: the file has become shorter or unreadable.
        """
        dtype = DTYPES[self.dtype]
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            raise ValueError(f"rows must be consecutive, not {rows}")
        shape = (max(stop - start, 0), *self.shape[1:])
        if 0 in shape:
            return np.empty(shape, dtype)
        row_bytes = math.prod(self.shape[1:]) * dtype.itemsize
        try:
            return np.memmap(self.file, dtype, "r", self.offset + start * row_bytes, shape)
        except (OSError, ValueError) as error:
            raise DamagedCheckpointError(
                f"'{self.file}' cannot be read any more: {error}",
                remedy="check that nothing changes the checkpoint while it is read",
            ) from None


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a file.

    Raises:
        DamagedCheckpointError: the file is unreadable, truncated, or its header is
            not valid: wrong JSON, unknown dtype, or offsets that do not
            fit shapes, each other or the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                raise DamagedCheckpointError(
                    f"'{path}' has a header of {length} bytes in a file of {size} bytes",
                    f"at most {max(0, min(size - 8, _LONGEST_HEADER))}",
                    "download the file again",
                )
            text = file.read(length)
    except OSError as error:
        raise DamagedCheckpointError(f"'{path}' cannot be read: {error.strerror}") from None
    return _entries(path, _parse(path, text), 8 + length, size)


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not JSON ({str(error)[:100]})") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    header.pop("__metadata__", None)
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is given twice")
    return result


def _entries(path: Path, header: dict[str, Any], start: int, size: int) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    spans: list[tuple[int, int, str]] = []
    for name, fields in header.items():
        begin, end, dtype, shape = _fields(path, name, fields)
        bits = math.prod(shape) * _BITS[dtype]
        if bits != 8 * (end - begin):
            raise _damaged(
                path,
                f"tensor '{name[:100]}' of shape {list(shape)} and dtype {dtype} "
                f"has {end - begin} bytes instead of {-(-bits // 8)}",
            )
        spans.append((begin, end, name))
        entries[name] = Entry(path, dtype, shape, start + begin)
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise _damaged(
                path, f"tensor '{name[:100]}' starts at byte {begin} instead of {position}"
            )
        position = end
    if start + position != size:
        raise DamagedCheckpointError(
            f"'{path}' has {size} bytes",
            f"{start + position} as its header says",
            "download the file again",
        )
    return entries


def _fields(path: Path, name: str, fields: Any) -> tuple[int, int, str, tuple[int, ...]]:
    if isinstance(fields, dict):
        dtype = fields.get("dtype")
        shape, span = _sizes(fields.get("shape")), _sizes(fields.get("data_offsets"))
        if (
            isinstance(dtype, str)
            and dtype in _BITS
            and shape is not None
            and len(shape) <= 8
            # Even an empty tensor's other dimensions must be ones that an array can have.
            and math.prod(size for size in shape if size) < 1 << 60
            and span is not None
            and len(span) == 2
            and span[0] <= span[1]
        ):
            return span[0], span[1], dtype, shape
    raise _damaged(path, f"tensor '{name[:100]}' has no usable dtype, shape and data_offsets")


def _sizes(value: Any) -> tuple[int, ...] | None:
    """A list of sizes, or None for anything else."""
    if isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 62 for item in value):
        return tuple(value)
    return None


def _damaged(path: Path, what: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(f"'{path}' is damaged: {what}", remedy="download the file again")
