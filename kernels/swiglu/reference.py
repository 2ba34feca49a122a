"""Gated activation of the feed-forward block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def swiglu(gate: NDArray[Any], up: NDArray[Any]) -> NDArray[np.float64]:
    """Return ``gate / (1 + exp(-gate)) * up``, float64, of the shape of ``gate`` and ``up``."""
    values = np.asarray(gate, np.float64)
    # Both branches of the sigmoid keep exp's argument negative, so that it cannot overflow.
    decay = np.exp(-np.abs(values))
    sigmoid = np.where(values >= 0, 1.0, decay) / (1.0 + decay)
    return values * sigmoid * np.asarray(up, np.float64)
