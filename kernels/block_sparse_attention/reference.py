"""InfLLM v2 attention over selected blocks of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from arkinfer.kernels.attention.reference import attend, causal


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
    visible = np.repeat(mask, block_size, axis=2)[..., : keys.shape[1]]
    visible = visible & causal(q.shape[0], past, visible.shape[2])
    return attend(q, keys[:, : visible.shape[2]], values[:, : visible.shape[2]], visible, scale)
