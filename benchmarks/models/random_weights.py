"""Random numbers for weights: many gigabytes out of one small pool.

Speed depends on how many bytes are read, not on which. The pool is longer than any cache, and
each matrix starts at another place in it.
"""

from __future__ import annotations

import functools
import zlib

import numpy as np
from numpy.typing import NDArray

_POOL_BYTES = (64 << 20) + 4099


@functools.cache
def _pool() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, _POOL_BYTES, dtype=np.uint8)


def random_bytes(name: str, start: int, count: int) -> NDArray[np.uint8]:
    """Bytes ``start`` to ``start + count`` of the endless random bytes called ``name``."""
    pool = _pool()
    at = (zlib.crc32(name.encode()) + start) % len(pool)
    pieces = []
    while count > 0:
        piece = pool[at : at + count]
        pieces.append(piece)
        count -= len(piece)
        at = 0
    return np.concatenate(pieces) if pieces else pool[:0]


def scale(inputs: int, levels: int) -> float:
    """The scale of uniform codes -levels/2 .. levels/2 - 1 that keeps activations' size."""
    return float(np.float16(np.sqrt(12.0 / inputs) / levels))
