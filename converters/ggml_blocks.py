"""GGML's block formats as group schemes: their bits, byte for byte, and nothing lost.

A row of a quantized tensor is a sequence of blocks; each format is described by its block
layout, little-endian. Scales and minimums of Q4_0, Q4_1, Q8_0, TQ1_0 and TQ2_0 are the block's
own fp16 numbers; those of Q4_K and Q6_K are products of an fp16 number and a small integer,
which float32 holds exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor

Bytes = NDArray[np.uint8]
Parts = tuple[Bytes, NDArray[np.float32], NDArray[np.float32] | None]


@dataclass(frozen=True)
class BlockType:
    """One block format.

    ``decode`` takes blocks uint8 [n, block_bytes] and returns codes uint8 [n,
    weights], scales float32 [n, weights / group] and minimums or None.
    """

    name: str
    weights: int
    block_bytes: int
    scheme: GroupScheme
    decode: Callable[[Bytes], Parts]

    def unpack(self, raw: Bytes) -> QuantizedTensor:
        """Rows of blocks, uint8 [rows, row bytes], as a quantized tensor."""
        rows, row_bytes = raw.shape
        inputs = row_bytes // self.block_bytes * self.weights
        codes, scales, minimums = self.decode(raw.reshape(-1, self.block_bytes))
        groups = (rows, inputs // self.scheme.group_size)
        return QuantizedTensor(
            self.scheme,
            codes.reshape(rows, inputs),
            scales.reshape(groups),
            None if minimums is None else minimums.reshape(groups),
        )


def _half(blocks: Bytes, at: int) -> NDArray[np.float32]:
    """The fp16 number at byte ``at`` of each block, float32 [n, 1]."""
    raw = np.ascontiguousarray(blocks[:, at : at + 2])
    return raw.view("<f2").astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """All low nibbles of the last axis, then all high nibbles."""
    return np.concatenate([packed & 0x0F, packed >> 4], axis=-1)


def _q4_0(blocks: Bytes) -> Parts:
    """18 bytes: scale fp16, 16 bytes of nibbles (weights 0-15 low, 16-31 high)."""
    return _nibbles(blocks[:, 2:]), _half(blocks, 0), None


def _q4_1(blocks: Bytes) -> Parts:
    """20 bytes: scale fp16, minimum fp16, nibbles as in Q4_0."""
    return _nibbles(blocks[:, 4:]), _half(blocks, 0), _half(blocks, 2)


def _q8_0(blocks: Bytes) -> Parts:
    """34 bytes: scale fp16, 32 int8. Flipping the top bit adds 128."""
    return blocks[:, 2:] ^ np.uint8(0x80), _half(blocks, 0), None


def _q4_k(blocks: Bytes) -> Parts:
    """144 bytes: scale of scales and of minimums fp16, 12 bytes, 128 bytes of nibbles.

    The 12 bytes hold eight 6-bit scales and eight 6-bit minimums: bytes 0-3 and 4-7 the
    first four of each in their low 6 bits, bytes 8-11 the low nibbles of the
    last four (scales low, minimums high), whose top 2 bits sit above the first four.
    Every 32 bytes of nibbles are 64 weights, low nibbles first.
    """
    first, second, third = (blocks[:, at : at + 4] for at in (4, 8, 12))
    scales = np.concatenate([first & 63, (third & 15) | ((first >> 6) << 4)], axis=1)
    minimums = np.concatenate([second & 63, (third >> 4) | ((second >> 6) << 4)], axis=1)
    codes = _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 256)
    return codes, _half(blocks, 0) * scales, _half(blocks, 2) * minimums * np.float32(-1)


def _q6_k(blocks: Bytes) -> Parts:
    """210 bytes: 128 of low nibbles, 64 of top bit pairs, 16 int8 scales, scale fp16.

    Each half of 128 weights takes 64 low-nibble bytes (weights 0-63 low, 64-127
    high) and 32 bytes whose bit pairs, from the lowest, belong to weights 0-31, 32-63, 64-95 and
    96-127. A code is centred at 32; here it is moved to 128.
    """
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64))
    pairs = blocks[:, 128:192].reshape(-1, 2, 1, 32)
    top = (pairs >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3
    codes = low | (top.reshape(-1, 2, 128) << 4)
    small = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    scales: NDArray[np.float32] = _half(blocks, 208) * small
    return (codes + 96).astype(np.uint8).reshape(-1, 256), scales, None


def _tq2_0(blocks: Bytes) -> Parts:
    """66 bytes: 64 bytes of bit pairs, scale fp16. Codes 0, 1, 2 are -1, 0, 1.

    Every 32 bytes hold 128 weights: their bit pairs, from the lowest, belong to weights 0-31,
    32-63, 64-95 and 96-127.
    """
    pairs = blocks[:, :64].reshape(-1, 2, 1, 32)
    codes = (pairs >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & np.uint8(3)
    return codes.reshape(-1, 256), _half(blocks, 64), None


def _tq1_0(blocks: Bytes) -> Parts:
    """54 bytes: 48 bytes of five ternary digits, 4 of four, scale fp16.

    A byte is the fraction 0.t0t1t2t3t4 in base 3, times 256 and rounded up: multiplying by
    3**n, modulo 256, leaves digit n in front. Byte j of the first 32 holds weights 32n+j, of the
    next 16 weights 160+16n+j, of the last four 240+4n+j.
    """
    powers = np.array([1, 3, 9, 27, 81], np.uint8)[:, None]
    parts = []
    for first, last, digits in ((0, 32, 5), (32, 48, 5), (48, 52, 4)):
        # uint8 products wrap around, which is the modulus.
        fraction = blocks[:, None, first:last] * powers[:digits]
        parts.append(((fraction.astype(np.uint16) * 3) >> 8).reshape(len(blocks), -1))
    return np.concatenate(parts, axis=1).astype(np.uint8), _half(blocks, 52), None


# By the number of the type in a GGUF file.
BLOCK_TYPES: dict[int, BlockType] = {
    2: BlockType("Q4_0", 32, 18, GroupScheme(4, 32), _q4_0),
    3: BlockType("Q4_1", 32, 20, GroupScheme(4, 32, "minimum"), _q4_1),
    8: BlockType("Q8_0", 32, 34, GroupScheme(8, 32), _q8_0),
    12: BlockType("Q4_K", 256, 144, GroupScheme(4, 32, "minimum", "fp32"), _q4_k),
    14: BlockType("Q6_K", 256, 210, GroupScheme(8, 16, "symmetric", "fp32"), _q6_k),
    34: BlockType("TQ1_0", 256, 54, GroupScheme(2, 256), _tq1_0),
    35: BlockType("TQ2_0", 256, 66, GroupScheme(2, 256), _tq2_0),
}

# Types that are known by name and size but not read: name, weights and bytes of a block.
UNREAD_TYPES: dict[int, tuple[str, int, int]] = {
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    13: ("Q5_K", 256, 176),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    39: ("MXFP4", 32, 17),
}
