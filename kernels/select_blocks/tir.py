"""select_blocks as TIR, in three launches.

``normalizers`` finds, of each query head, the logarithm of the sum of the exponentials of its
scores; ``window_scores`` sums what is normalised so over the heads of a group; ``choose_blocks``
pools windows to blocks and takes the best. The scores are those of
``kernels/select_blocks/reference.py``, as logarithms.
"""

from __future__ import annotations

from arkinfer.kernels.select_blocks.tir_choose import block_capacity, choose_blocks
from arkinfer.kernels.select_blocks.tir_scores import (
    NEVER,
    Selection,
    normalizers,
    window_scores,
)

__all__ = [
    "NEVER",
    "Selection",
    "block_capacity",
    "choose_blocks",
    "normalizers",
    "window_scores",
]
