"""Rotary position embedding, half-split (dimension j is rotated with j + head_dim / 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rope(x: NDArray[Any], table: NDArray[Any], head_dim: int) -> NDArray[np.float64]:
    """Rotate every head of every token.

    Args:
        x: [tokens, heads * head_dim].
        table: [tokens, head_dim], cosines then sines.

    Returns:
        float64 [tokens, heads * head_dim].
    """
    tokens = x.shape[0]
    half = head_dim // 2
    heads = np.asarray(x, np.float64).reshape(tokens, -1, head_dim)
    angles = np.asarray(table, np.float64)[:, None, :]
    cos, sin = angles[..., :half], angles[..., half:]
    first, second = heads[..., :half], heads[..., half:]
    rotated = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.reshape(x.shape)
