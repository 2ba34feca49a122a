"""KV caches as devices hold them (``arkinfer/tir/caches.py``), from plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def cache_words(x: Array, capacity: int, dtype: Any, is_key: bool, fill: float = 0) -> Array:
    """[kv_heads, tokens, head_dim] in the words of a cache; the rest of it is ``fill``."""
    kv_heads, tokens, head_dim = x.shape
    whole = np.full((kv_heads, capacity, head_dim), fill, np.float32)
    whole[:, :tokens] = x
    packed = whole if dtype == "f32" else whole.astype(np.float16).view(np.uint32)
    if is_key:
        packed = packed.reshape(kv_heads, capacity // 64, 64, -1).swapaxes(2, 3)
    return np.ascontiguousarray(packed)
