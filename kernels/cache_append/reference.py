"""Writing new keys and values into the KV cache."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from arkinfer.kernels.cache_append.layout import CacheType, stored


def cache_append(
    cache: NDArray[Any], new: NDArray[Any], past: int, dtype: CacheType | None = None
) -> NDArray[Any]:
    """Return the cache with the new tokens at positions past .. past + tokens - 1.

    The same for keys and for values, as the numbers that they stand for; ``layout`` has the bytes.

    Args:
        cache: float16, float32 or float64 [kv_heads, capacity, head_dim].
        new: [tokens, kv_heads * head_dim].
        dtype: the type of the cache, to which new numbers are rounded or quantized; that of
            the array when None.

    Returns:
        A new array of the shape and type of ``cache``.
    """
    kv_heads, _, head_dim = cache.shape
    tokens = new.shape[0]
    result = cache.copy()
    rows = new.reshape(tokens, kv_heads, head_dim).transpose(1, 0, 2)
    result[:, past : past + tokens] = rows if dtype is None else stored(rows, dtype)
    return result
