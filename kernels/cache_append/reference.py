"""Writing new keys and values into the KV cache."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


def cache_append(cache: NDArray[Any], new: NDArray[Any], past: int) -> NDArray[Any]:
    """Return the cache with the new tokens at positions past .. past + tokens - 1.

    The same for keys and for values; values are rounded to the cache's type.

    Args:
        cache: float16 or float32 [kv_heads, capacity, head_dim].
        new: [tokens, kv_heads * head_dim].

    Returns:
        A new array of the shape and type of ``cache``.
    """
    kv_heads, _, head_dim = cache.shape
    tokens = new.shape[0]
    result = cache.copy()
    result[:, past : past + tokens] = new.reshape(tokens, kv_heads, head_dim).transpose(1, 0, 2)
    return result
