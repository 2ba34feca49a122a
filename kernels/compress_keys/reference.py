"""InfLLM v2 key compression: means of overlapping windows of keys."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def window_count(length: int, window: int, stride: int) -> int:
    """Whole windows in ``length`` tokens; a partial window at the end does not count."""
    return 0 if length < window else (length - window) // stride + 1


def compress_keys(keys: NDArray[Any], window: int, stride: int) -> NDArray[np.float64]:
    """Return the mean key of every whole window, ``mean(keys[stride*j : stride*j + window])``.

    Args:
        keys: [kv_heads, tokens, head_dim], after rotary embedding.
        window: tokens per window.
        stride: tokens between the starts of two windows.

    Returns:
        float64 [kv_heads, window_count(tokens, window, stride), head_dim].
    """
    values = np.asarray(keys, np.float64)
    kv_heads, tokens, head_dim = values.shape
    count = window_count(tokens, window, stride)
    result = np.empty((kv_heads, count, head_dim))
    for j in range(count):
        result[:, j] = values[:, stride * j : stride * j + window].mean(axis=1)
    return result
