"""Cosines and sines of rotary position embedding, plain or LongRoPE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def rope_table(
    past: int,
    tokens: int,
    total: int,
    short: NDArray[Any],
    long: NDArray[Any],
    original_max: int = 0,
    attention_factor: float = 1.0,
    depths: Sequence[int] | None = None,
) -> NDArray[np.float64]:
    """Return cos and sin of the angles of positions past .. past + tokens - 1.

    The angle is the float32 product of position and inverse frequency, because that
    rounding, large at long context, is what models are run with everywhere.

    Args:
        past: tokens in front of the first row.
        tokens: rows of the table.
        total: length of the sequence once the whole append is done; it chooses the factors.
        short: float32 [head_dim / 2], inverse frequencies divided by the short factors.
        long: float32 [head_dim / 2], used when ``0 < original_max < total``.
        attention_factor: multiplies cos and sin.
        depths: positions of the rows after ``past``, for a tree of draft tokens.

    Returns:
        float64 [tokens, head_dim]: cosines, then sines.
    """
    inverse = np.asarray(long if 0 < original_max < total else short, np.float32)
    positions = past + np.asarray(range(tokens) if depths is None else depths, np.float32)
    angles = (positions[:, None] * inverse[None, :]).astype(np.float64)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * attention_factor
