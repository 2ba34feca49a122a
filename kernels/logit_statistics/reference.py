"""Reductions of logits: the best token, its logit, and the logarithm of the softmax's divisor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def logit_statistics(logits: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return what greedy choice and log-probabilities need of each row.

    Args:
        logits: [rows, vocabulary].

    Returns:
        int64 [rows], the token with the highest logit, the smallest of several; and float64
        [rows, 2], that logit and ``log(sum(exp(logits)))``.
    """
    values = np.asarray(logits, np.float64)
    best = values.argmax(axis=1)
    highest = values.max(axis=1)
    total = np.exp(values - highest[:, None]).sum(axis=1)
    return best, np.stack([highest, highest + np.log(total)], axis=1)
