"""CRC-32C and the bundle format's checksum, in numpy (docs/bundle.md).

A CRC is linear over GF(2), so many equally long lanes are computed at once and then
joined: ``crc(a + b) = shift(crc(a), len(b)) ^ crc(b)``, where ``shift`` advances a register
over zero bytes. Leading zeros leave a register that starts at 0 unchanged, so a short
chunk is padded in front.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

CHUNK = 64 * 1024
_LANE = 256
_POLYNOMIAL = 0x82F63B78

# Maps each byte of a register to its image; the image of a register is their XOR.
_Operator = NDArray[np.uint32]


def _byte_table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    one, polynomial = np.uint32(1), np.uint32(_POLYNOMIAL)
    for _ in range(8):
        table = (table >> one) ^ (table & one) * polynomial
    return table


_TABLE = _byte_table()


def _apply(operator: _Operator, register: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return np.asarray(
        operator[0][register & 0xFF]
        ^ operator[1][(register >> 8) & 0xFF]
        ^ operator[2][(register >> 16) & 0xFF]
        ^ operator[3][register >> 24]
    )


def _operator(advance: Callable[[NDArray[np.uint32]], NDArray[np.uint32]]) -> _Operator:
    single = np.arange(256, dtype=np.uint32)
    return np.stack([advance(single << np.uint32(8 * byte)) for byte in range(4)])


def _powers(count: int) -> list[_Operator]:
    """Operators that advance over 2**k zero bytes, k < count."""
    operators = [_operator(lambda r: _TABLE[r & 0xFF] ^ (r >> 8))]
    for _ in range(count - 1):
        last = operators[-1]
        operators.append(_operator(lambda r, last=last: _apply(last, _apply(last, r))))  # type: ignore[misc]
    return operators


_SHIFT = _powers(33)


def _shift(register: int, length: int) -> int:
    value = np.array([register], dtype=np.uint32)
    for bit, operator in enumerate(_SHIFT):
        if length >> bit & 1:
            value = _apply(operator, value)
    return int(value[0])


def _registers(rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Registers, started at 0, of equally long rows; the length is 256 times a power of two."""
    count, length = rows.shape
    lanes = length // _LANE
    columns = np.ascontiguousarray(rows.reshape(count * lanes, _LANE).T)
    register = np.zeros(count * lanes, dtype=np.uint32)
    for column in columns:
        register = _TABLE[(register ^ column) & 0xFF] ^ (register >> 8)
    level = 8
    while lanes > 1:
        pairs = register.reshape(-1, 2)
        register = _apply(_SHIFT[level], pairs[:, 0]) ^ pairs[:, 1]
        lanes //= 2
        level += 1
    return register


_FULL_START = np.uint32(_shift(0xFFFFFFFF, CHUNK) ^ 0xFFFFFFFF)


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """CRC-32C (Castagnoli) of up to 4 GiB of bytes."""
    view = np.frombuffer(data, dtype=np.uint8)
    length = _LANE
    while length < len(view):
        length *= 2
    row = np.zeros((1, length), dtype=np.uint8)
    if len(view):
        row[0, -len(view) :] = view
    return int(_registers(row)[0]) ^ _shift(0xFFFFFFFF, len(view)) ^ 0xFFFFFFFF


class Checksum:
    """The bundle checksum of a stream of bytes: the CRC-32C of its chunks' CRC-32Cs."""

    def __init__(self) -> None:
        self._tail = bytearray()
        self._list = bytearray()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes; any length, in file order."""
        view = memoryview(data).cast("B")
        if self._tail:
            take = min(CHUNK - len(self._tail), len(view))
            self._tail += view[:take]
            view = view[take:]
            if len(self._tail) < CHUNK:
                return
            self._whole(memoryview(self._tail))
            self._tail = bytearray()
        whole = len(view) // CHUNK * CHUNK
        step = 64 * CHUNK
        for start in range(0, whole, step):
            self._whole(view[start : min(start + step, whole)])
        self._tail += view[whole:]

    def _whole(self, view: memoryview) -> None:
        rows = np.frombuffer(view, dtype=np.uint8).reshape(-1, CHUNK)
        self._list += (_registers(rows) ^ _FULL_START).astype("<u4").tobytes()

    def value(self) -> int:
        """The checksum of everything added so far."""
        tail = crc32c(self._tail).to_bytes(4, "little") if self._tail else b""
        return crc32c(bytes(self._list) + tail)


def checksum(data: bytes | bytearray | memoryview) -> int:
    """The bundle checksum of one range of bytes."""
    result = Checksum()
    result.update(data)
    return result.value()
