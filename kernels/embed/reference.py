"""Token embedding lookup."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def embed(ids: NDArray[Any], weight: NDArray[Any], scale: float = 1.0) -> NDArray[np.float64]:
    """Return ``scale * weight[ids]``.

    Args:
        ids: integers [tokens], each in [0, vocabulary).
        weight: [vocabulary, hidden], already dequantized.
        scale: the muP embedding scale.

    Returns:
        float64 [tokens, hidden].
    """
    return np.asarray(weight, np.float64)[np.asarray(ids, np.int64)] * scale
