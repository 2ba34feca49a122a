"""Dense causal attention with grouped query heads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def attention(
    q: NDArray[Any], keys: NDArray[Any], values: NDArray[Any], past: int, scale: float
) -> NDArray[np.float64]:
    """Return softmax(scale * q·K) · V over the tokens up to each query.

    Query head h uses kv head ``h // (heads / kv_heads)``; row t is the query at
    absolute position past + t.

    Args:
        q: [tokens, heads, head_dim].
        keys: [kv_heads, at least past + tokens, head_dim].
        values: of the shape of ``keys``.

    Returns:
        float64 [tokens, heads, head_dim].
    """
    queries = np.asarray(q, np.float64)
    tokens, heads, head_dim = queries.shape
    kv_heads = keys.shape[0]
    k = np.asarray(keys, np.float64)
    v = np.asarray(values, np.float64)
    grouped = queries.reshape(tokens, kv_heads, heads // kv_heads, head_dim)
    result = np.empty_like(grouped)
    for t in range(tokens):
        length = past + t + 1
        scores = scale * np.einsum("kgd,knd->kgn", grouped[t], k[:, :length])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        result[t] = np.einsum("kgn,knd->kgd", weights, v[:, :length])
    return result.reshape(tokens, heads, head_dim)
