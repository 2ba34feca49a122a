"""The GGUF container: metadata, tensor infos, aligned data; every number checked.

Layout, little-endian: ``GGUF``, version uint32, tensor count uint64, metadata count uint64,
then the metadata (key, type, value), the tensor infos (name, dimensions fastest first, type,
offset) and, at the next multiple of the alignment, the data.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arkinfer.converters.ggml_blocks import BLOCK_TYPES, UNREAD_TYPES
from arkinfer.errors import CheckpointFormatError, DamagedCheckpointError

MAGIC = b"GGUF"

# Float types by number: dtype bytes per value.
FLOAT_TYPES: dict[int, tuple[str, int]] = {0: ("f32", 4), 1: ("f16", 2), 30: ("bf16", 2)}

# Metadata scalars by number, as struct and numpy codes.
_SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: row-major shape, type number, and its bytes in the file."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    row_bytes: int

    @property
    def type_name(self) -> str:
        """The type as people call it."""
        return _type(self.type)[0]


@dataclass(frozen=True)
class GgufFile:
    """The parsed head of a file. Numeric arrays are numpy arrays, others lists."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]

    def rows(self, name: str, rows: Sequence[int] | slice) -> NDArray[np.uint8]:
        """Raw bytes of some rows of a tensor, uint8 [rows, row bytes].

        A slice is mapped until the result is dropped; a list of rows is copied.

        Raises:
            DamagedCheckpointError: the file has become shorter or unreadable.
        """
        tensor = self.tensors[name]
        count = math.prod(tensor.shape[:-1])
        try:
            mapped = np.memmap(self.path, np.uint8, "r", tensor.offset, (count, tensor.row_bytes))
        except (OSError, ValueError) as error:
            raise DamagedCheckpointError(
                f"'{self.path}' cannot be read any more: {error}",
                remedy="check that nothing changes the checkpoint while it is read",
            ) from None
        return mapped[rows]


def read(path: Path) -> GgufFile:
    """Read everything but the tensors' data.

    Raises:
        CheckpointFormatError: a version, or a byte order, that is not read.
        DamagedCheckpointError: unreadable, truncated, or contradicts itself.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise DamagedCheckpointError(
                    f"'{path}' does not start with GGUF",
                    "a GGUF file",
                    "download the file again",
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(path, data)
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(f"'{path}' cannot be read: {error}") from None


def _parse(path: Path, data: mmap.mmap) -> GgufFile:
    cursor = _Cursor(path, data)
    cursor.at = 4
    version = cursor.scalar("I")
    if version not in (2, 3):
        order = " (big-endian)" if version in (2 << 24, 3 << 24) else ""
        raise CheckpointFormatError(
            f"'{path}' is GGUF version {version}{order}", "version 2 or 3, little-endian"
        )
    tensor_count, pair_count = cursor.scalar("Q"), cursor.scalar("Q")
    metadata: dict[str, Any] = {}
    for _ in range(cursor.count(pair_count, 12, "metadata entries")):
        key = cursor.string()
        if key in metadata:
            raise cursor.damaged(f"metadata key '{key[:100]}' is given twice")
        metadata[key] = cursor.value(cursor.scalar("I"), key)
    tensors: dict[str, GgufTensor] = {}
    for _ in range(cursor.count(tensor_count, 24, "tensors")):
        tensor = _tensor(cursor)
        if tensor.name in tensors:
            raise cursor.damaged(f"tensor '{tensor.name[:100]}' is given twice")
        tensors[tensor.name] = tensor
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
        raise cursor.damaged(f"general.alignment is {str(alignment)[:60]}")
    start = -(-cursor.at // alignment) * alignment
    placed = {name: _place(cursor, tensor, start, alignment) for name, tensor in tensors.items()}
    return GgufFile(path, metadata, placed)


def _tensor(cursor: _Cursor) -> GgufTensor:
    """One tensor info; its offset still counts from the start of the data."""
    name = cursor.string()
    rank = cursor.scalar("I")
    if not 1 <= rank <= 4:
        raise cursor.damaged(f"tensor '{name[:100]}' has {rank} dimensions (expected 1 to 4)")
    shape = tuple(cursor.scalar("Q") for _ in range(rank))[::-1]
    if 0 in shape:
        raise cursor.damaged(f"tensor '{name[:100]}' is empty: {list(shape)}")
    kind = cursor.scalar("I")
    if kind not in FLOAT_TYPES and kind not in BLOCK_TYPES and kind not in UNREAD_TYPES:
        raise cursor.damaged(f"tensor '{name[:100]}' has the unknown type {kind}")
    type_name, weights, block_bytes = _type(kind)
    if shape[-1] % weights:
        raise cursor.damaged(
            f"tensor '{name[:100]}' has rows of {shape[-1]} weights in {type_name} "
            f"blocks of {weights}"
        )
    row_bytes = shape[-1] // weights * block_bytes
    return GgufTensor(name, shape, kind, cursor.scalar("Q"), row_bytes)


def _place(cursor: _Cursor, tensor: GgufTensor, start: int, alignment: int) -> GgufTensor:
    size = math.prod(tensor.shape[:-1]) * tensor.row_bytes
    begin = start + tensor.offset
    if tensor.offset % alignment or begin + size > len(cursor.data):
        raise cursor.damaged(
            f"tensor '{tensor.name[:100]}' lies at bytes {begin} to {begin + size} "
            f"of {len(cursor.data)}, or off the alignment of {alignment}"
        )
    return GgufTensor(tensor.name, tensor.shape, tensor.type, begin, tensor.row_bytes)


def _type(kind: int) -> tuple[str, int, int]:
    """Name, weights and bytes of a block."""
    if kind in FLOAT_TYPES:
        name, size = FLOAT_TYPES[kind]
        return name.upper(), 1, size
    if kind in BLOCK_TYPES:
        block = BLOCK_TYPES[kind]
        return block.name, block.weights, block.block_bytes
    return UNREAD_TYPES[kind]


class _Cursor:
    """Reads forward through a file and never past its end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.at = 0

    def damaged(self, what: str) -> DamagedCheckpointError:
        return DamagedCheckpointError(
            f"'{self.path}' is damaged: {what}", remedy="download the file again"
        )

    def count(self, number: int, smallest: int, what: str) -> int:
        """Check a count of things of at least ``smallest`` bytes against what is left."""
        left = len(self.data) - self.at
        if number * smallest > left:
            raise self.damaged(f"{number} {what} at byte {self.at}, but {left} bytes are left")
        return number

    def take(self, size: int, what: str) -> bytes:
        self.count(size, 1, what)
        self.at += size
        return self.data[self.at - size : self.at]

    def scalar(self, code: str) -> Any:
        size = struct.calcsize("<" + code)
        return struct.unpack("<" + code, self.take(size, "bytes of a number"))[0]

    def string(self) -> str:
        raw = self.take(self.scalar("Q"), "bytes of a string")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.damaged(f"the string at byte {self.at - len(raw)} is not UTF-8") from None

    def value(self, kind: int, key: str) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(key)
        raise self.damaged(f"metadata key '{key[:100]}' has the unknown type {kind}")

    def _array(self, key: str) -> Any:
        kind, number = self.scalar("I"), self.scalar("Q")
        if kind == _STRING:
            self.count(number, 8, "strings")
            return [self.string() for _ in range(number)]
        if kind not in _SCALARS:
            raise self.damaged(f"metadata key '{key[:100]}' is an array of the type {kind}")
        code = _SCALARS[kind]
        dtype = np.dtype("<u1" if code == "?" else "<" + code)
        raw = self.take(self.count(number, dtype.itemsize, "numbers") * dtype.itemsize, "bytes")
        return np.frombuffer(raw, dtype)
