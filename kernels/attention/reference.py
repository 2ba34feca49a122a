"""Dense causal attention with grouped query heads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def int8_queries(q: Array, scale: float) -> NDArray[np.float64]:
    """Return scale * q as kernels use it with int8 keys: rounded to 8 bits per head.

    code * step, codes to the nearest, halves to even; 127 steps are the largest
    |scale * q[2i]| + |scale * q[2i + 1]| of a head.
    With it :func:`attention` is what they compute but for the rounding of weights: a weight times
    the scale of its int8 value is rounded to 7 bits per query head and block of 64 tokens.

    Args:
        q: float32 [..., head_dim].
        scale: the softmax scale; with the result, :func:`attention` wants 1.
    """
    log2e = np.float32(1.44269504)  # kernels have powers of two
    scaled = np.asarray(q, np.float32) * (np.float32(scale) * log2e)
    pairs = np.abs(scaled[..., ::2])
    pairs[..., : q.shape[-1] // 2] += np.abs(scaled[..., 1::2])
    step = pairs.max(axis=-1, keepdims=True) / np.float32(127)
    inverse = np.zeros_like(step)
    np.divide(np.float32(1), step, out=inverse, where=step > 1e-35)
    coded: Array = np.rint(scaled * inverse).astype(np.float64) * step / log2e
    return coded


def attend(
    q: Array, keys: Array, values: Array, visible: NDArray[np.bool_], scale: float
) -> NDArray[np.float64]:
    """Return softmax(scale * q·K) · V over the tokens that each query sees.

    Query head h uses kv head ``h // (heads / kv_heads)``. Keys and values of a quantized cache are
    given as what it stands for (``layout.stored``).

    Args:
        q: [tokens, heads, head_dim].
        keys: [kv_heads, length, head_dim].
        values: of the shape of ``keys``.
        visible: [kv_heads, tokens, length]; every row must hold a token.

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
            seen = np.flatnonzero(visible[h, t])
            scores = scale * grouped[t, h] @ k[h, seen].T
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            result[t, h] = weights @ v[h, seen]
    return result.reshape(tokens, heads, head_dim)


def causal(
    tokens: int, past: int, length: int, ancestors: NDArray[np.uint64] | None = None
) -> NDArray[np.bool_]:
    """Return bool [tokens, length]: which slots of the caches each token of a call sees.

    Row t sees the slots up to past + t. With ``ancestors`` [tokens] the tokens are a tree: row t
    sees those before past, and slot past + j where bit j of ancestors[t] is set.
    """
    slots = np.arange(length) - past
    if ancestors is None:
        return np.asarray(slots <= np.arange(tokens)[:, None])
    bits = ancestors[:, None] >> np.clip(slots, 0, 63).astype(np.uint64) & np.uint64(1)
    return np.asarray((slots < 0) | ((slots < 64) & (bits > 0)))


def attention(q: Array, keys: Array, values: Array, past: int, scale: float) -> NDArray[np.float64]:
    """Return softmax(scale * q·K) · V over the tokens up to each query.

    Row t is the query at absolute position past + t; ``keys`` has at least past + tokens tokens.
    Shapes are those of :func:`attend`.
    """
    visible = causal(q.shape[0], past, keys.shape[1])
    return attend(q, keys, values, np.broadcast_to(visible, (keys.shape[0], *visible.shape)), scale)
