"""InfLLM v2 attention over selected blocks of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def block_sparse_attention(
    q: NDArray[Any],
    keys: NDArray[Any],
    values: NDArray[Any],
    mask: NDArray[np.bool_],
    past: int,
    scale: float,
    block_size: int,
) -> NDArray[np.float64]:
    """Return softmax(scale * q·K) · V over the causal tokens of each query's blocks.

    Row t is the query at absolute position past + t; all query heads of a kv head
    share its blocks.

    Args:
        q: [tokens, heads, head_dim].
        keys: [kv_heads, at least past + tokens, head_dim].
        values: of the shape of ``keys``.
        mask: [kv_heads, tokens, blocks]; every row must hold a block with a causal token.
        block_size: tokens per block.

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
        for h in range(kv_heads):
            allowed = np.repeat(mask[h, t], block_size)[: past + t + 1]
            chosen = np.flatnonzero(allowed)
            scores = scale * grouped[t, h] @ k[h, chosen].T
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            result[t, h] = weights @ v[h, chosen]
    return result.reshape(tokens, heads, head_dim)
