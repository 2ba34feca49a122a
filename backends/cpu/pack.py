"""The packed layouts of ``weights.bin`` (docs/bundle.md), both ways.

A matrix [outputs, inputs] is cut in panels of 16 outputs, the last one padded
with zeros, so that a vector register holds one input of 16 outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PANEL = 16

Array = NDArray[Any]


def panels(outputs: int) -> int:
    """How many panels hold this many outputs."""
    return -(-outputs // PANEL)


def packed_bytes(outputs: int, inputs: int, bits: int) -> int:
    """Bytes of a packed matrix whose elements have ``bits`` bits."""
    return panels(outputs) * PANEL * inputs * bits // 8


def _padded(rows: Array) -> Array:
    """[panels, 16, inputs], zeros below the last row."""
    outputs, inputs = rows.shape
    full = panels(outputs) * PANEL
    if full != outputs:
        rows = np.concatenate([rows, np.zeros((full - outputs, inputs), rows.dtype)])
    return rows.reshape(-1, PANEL, inputs)


def pack_matrix(rows: Array) -> Array:
    """[outputs, inputs] of any dtype -> [panels, inputs, 16]; floats, scales, offsets."""
    return np.ascontiguousarray(_padded(rows).transpose(0, 2, 1))


def unpack_matrix(packed: Array, outputs: int, inputs: int) -> Array:
    """The inverse of :func:`pack_matrix`; ``packed`` may be flat."""
    rows = packed.reshape(-1, inputs, PANEL).transpose(0, 2, 1).reshape(-1, inputs)
    return np.ascontiguousarray(rows[:outputs])


def pack_codes8(codes: NDArray[np.uint8]) -> NDArray[np.int8]:
    """uint8 codes [outputs, inputs] -> int8 (code - 128) [panels, inputs/4, 16, 4].

    ``inputs`` is a multiple of 4. Padding holds zero bytes.
    """
    signed = _padded(codes ^ np.uint8(0x80)).view(np.int8)
    count, _, inputs = signed.shape
    return np.ascontiguousarray(signed.reshape(count, PANEL, inputs // 4, 4).transpose(0, 2, 1, 3))


def unpack_codes8(packed: Array, outputs: int, inputs: int) -> NDArray[np.uint8]:
    """The inverse of :func:`pack_codes8`; ``packed`` may be flat bytes."""
    shaped = packed.view(np.uint8).reshape(-1, inputs // 4, PANEL, 4) ^ np.uint8(0x80)
    rows = shaped.transpose(0, 2, 1, 3).reshape(-1, inputs)
    return np.ascontiguousarray(rows[:outputs])


def pack_codes4(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 codes below 16 [outputs, inputs] -> bytes [panels, inputs/8, 16, 4].

    Byte b of chunk c holds input 8c+b in its low and input 8c+4+b in its high
    nibble. ``inputs`` is a multiple of 8.
    """
    rows = _padded(codes)
    count, _, inputs = rows.shape
    halves = rows.reshape(count, PANEL, inputs // 8, 2, 4)
    both = halves[:, :, :, 0] | (halves[:, :, :, 1] << np.uint8(4))
    return np.ascontiguousarray(both.transpose(0, 2, 1, 3))


def unpack_codes4(packed: Array, outputs: int, inputs: int) -> NDArray[np.uint8]:
    """The inverse of :func:`pack_codes4`; ``packed`` may be flat bytes."""
    both = packed.view(np.uint8).reshape(-1, inputs // 8, PANEL, 4).transpose(0, 2, 1, 3)
    halves = np.stack([both & np.uint8(0x0F), both >> np.uint8(4)], axis=3)
    return np.ascontiguousarray(halves.reshape(-1, inputs)[:outputs])


def pack_codes2(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 codes below 4 [outputs, inputs] -> bytes [panels, inputs/16, 16, 4].

    Byte b of chunk c holds input 16c+4j+b in bits 2j and 2j+1. ``inputs`` is a
    multiple of 16.
    """
    rows = _padded(codes)
    count, _, inputs = rows.shape
    quarters = rows.reshape(count, PANEL, inputs // 16, 4, 4)
    packed = quarters[:, :, :, 0].copy()
    for j in (1, 2, 3):
        packed |= quarters[:, :, :, j] << np.uint8(2 * j)
    return np.ascontiguousarray(packed.transpose(0, 2, 1, 3))


def unpack_codes2(packed: Array, outputs: int, inputs: int) -> NDArray[np.uint8]:
    """The inverse of :func:`pack_codes2`; ``packed`` may be flat bytes."""
    bytes_ = packed.view(np.uint8).reshape(-1, inputs // 16, PANEL, 4).transpose(0, 2, 1, 3)
    quarters = [bytes_ >> np.uint8(2 * j) & np.uint8(3) for j in range(4)]
    return np.ascontiguousarray(np.stack(quarters, axis=3).reshape(-1, inputs)[:outputs])
