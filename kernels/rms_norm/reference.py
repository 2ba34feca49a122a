"""Root-mean-square normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rms_norm(x: NDArray[Any], weight: NDArray[Any], epsilon: float) -> NDArray[np.float64]:
    """Return ``x / sqrt(mean(x**2) + epsilon) * weight`` over the last axis.

    Args:
        x: [..., hidden].
        weight: [hidden].

    Returns:
        float64, of the shape of ``x``.
    """
    values = np.asarray(x, np.float64)
    mean_square = np.mean(np.square(values), axis=-1, keepdims=True)
    normalised = values / np.sqrt(mean_square + epsilon)
    return np.asarray(normalised * np.asarray(weight, np.float64))
